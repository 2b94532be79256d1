"""What is planted in builds that are broken on purpose: a soak that does not find it proves nothing. By the list of
Result in which it must be found."""

from __future__ import annotations

from dataclasses import dataclass

from tests.planted import Planted


@dataclass(frozen=True)
class Fault(Planted):
    """What is planted, and after how many kills it must be found."""

    kills: int


PLANTED: dict[str, Fault] = {
    "lost": Fault(
        "jobs.py",
        "        urgency = runtime.shares.urgency(job.account_id, job.priority)\n",
        "        if job.id[-1] in '0123456789abcd':  # planted: accepted, and gone\n"
        "            with runtime.database.writing() as lost:\n"
        "                lost.execute(sa.delete(table(Job)).where(Job.id == job.id))\n"
        "        urgency = runtime.shares.urgency(job.account_id, job.priority)\n",
        3,
    ),
    "duplicated": Fault(
        "followup.py",
        '        outcomes.unknown(entry, "unconfirmed")\n    runtime.ring(',
        '        entry.end("refused", "system")  # planted: a blind second try\n'
        "        entry.again_at(now)\n"
        "        entry.job.lease_until = None\n"
        '        entry.record(Event.RETRYING, Status.RETRYING, cause="system")\n'
        "    runtime.ring(",
        80,  # most of them are held when the carrier calls back, and never doubled
    ),
    "stuck": Fault(
        "claims.py",
        "    now = runtime.now()\n    waiting: list[sa.ColumnExpressionArgument[bool]] = [\n",
        "    if status is Status.SUBMITTING:\n"
        "        return 0  # planted: nobody looks after vanished workers\n"
        "    now = runtime.now()\n    waiting: list[sa.ColumnExpressionArgument[bool]] = [\n",
        40,
    ),
}
