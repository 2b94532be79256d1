"""Builds of faxbot that are broken on purpose: a soak that does not find what is planted here proves nothing.

Each is a copy of the package with one sentence of it replaced; a sentence that is not there any more is an error.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import faxbot


@dataclass(frozen=True)
class Planted:
    """What is replaced, and the kind of fault (a list of Result) that must be found then."""

    module: str
    old: str
    new: str
    kills: int


PLANTED: dict[str, Planted] = {
    "lost": Planted(
        "jobs.py",
        "        urgency = runtime.shares.urgency(job.account_id, job.priority)\n",
        "        if job.id[-1] in '01':  # planted: accepted, and gone\n"
        "            with runtime.database.writing() as lost:\n"
        "                lost.execute(sa.delete(table(Job)).where(Job.id == job.id))\n"
        "        urgency = runtime.shares.urgency(job.account_id, job.priority)\n",
        3,
    ),
    "duplicated": Planted(
        "followup.py",
        '        outcomes.unknown(entry, "unconfirmed")\n    runtime.ring(',
        '        entry.end("refused", "system")  # planted: a blind second try\n'
        "        entry.again_at(now)\n"
        "        entry.job.lease_until = None\n"
        '        entry.record(Event.RETRYING, Status.RETRYING, cause="system")\n'
        "    runtime.ring(",
        40,
    ),
    "stuck": Planted(
        "claims.py",
        "    now = runtime.now()\n    waiting: list[sa.ColumnExpressionArgument[bool]] = [\n",
        "    if status is Status.SUBMITTING:\n"
        "        return 0  # planted: nobody looks after vanished workers\n"
        "    now = runtime.now()\n    waiting: list[sa.ColumnExpressionArgument[bool]] = [\n",
        40,
    ),
}


def build(name: str, folder: Path) -> Path:
    """A folder to put on the path of Python: a faxbot with this fault. Raises AssertionError where
    it cannot be planted."""
    planted = PLANTED[name]
    shutil.copytree(
        Path(faxbot.__file__).parent,
        folder / "faxbot",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    module = folder / "faxbot" / planted.module
    text = module.read_text()
    assert text.count(planted.old) == 1, f"nothing to break in {planted.module}"
    module.write_text(text.replace(planted.old, planted.new))
    return folder
