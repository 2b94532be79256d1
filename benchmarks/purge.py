"""Retention as a process of its own, so that its memory is its own: everything that a fax of today leaves is removed in
two goes, the document and the numbers, and a month later the rest. The clock is ours, the rest is the worker's.

    python -m benchmarks.purge FAXES rest|work

Reads its settings from the environment, and prints what it measured as JSON.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.processes import cpu_seconds
from faxbot import actors, retention, wiring
from faxbot.config import Config
from faxbot.db import table, utcnow
from faxbot.models import Artifact, Attempt, FaxEvent, IdempotencyKey, Job, RetentionProof
from faxbot.runtime import Runtime

MONTH = timedelta(days=31)
TABLES = tuple(table(model) for model in (Job, Artifact, Attempt, FaxEvent, IdempotencyKey))
"""In which a fax has rows."""


@dataclass(slots=True)
class Measured:
    """What is seen of a run from outside."""

    faxes: int
    rests: bool
    rested: float = 0.0
    held: list[float] = field(default_factory=list)
    """Seconds for which each write transaction lasted, and with it its locks."""
    peaks: dict[str, list[int]] = field(default_factory=dict)
    """By class the most memory so far, in bytes: when a tenth was removed, and at last."""

    def rest(self, seconds: float) -> None:
        if self.rests:
            self.rested += seconds
            time.sleep(seconds)

    def progress(self, name: str, removed: int) -> None:
        if removed >= self.faxes // 10:
            tenth = self.peaks.setdefault(name, [peak()])[0]
            self.peaks[name] = [tenth, peak()]

    def watch(self, engine: sa.Engine) -> None:
        began: list[float] = []
        wrote: list[str] = []

        def executed(_c: Any, _cursor: Any, text: str, _p: Any, _x: Any, _m: bool) -> None:
            if text.startswith(("UPDATE", "DELETE")):
                wrote.append(text)

        def ended(*_: object) -> None:
            if began and wrote:  # who finds nothing holds nothing
                self.held.append(time.perf_counter() - began[-1])
            began.clear()
            wrote.clear()

        sa.event.listen(engine, "begin", lambda _: began.append(time.perf_counter()))
        sa.event.listen(engine, "before_cursor_execute", executed)
        sa.event.listen(engine, "checkin", ended)  # the commit is over


def peak() -> int:
    """The most memory that this process has had, in bytes (not ru_maxrss, which knows its parent's)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError


def purge(runtime: Runtime, measured: Measured) -> Counter[str]:
    """One run as a worker works on it; how many rows were removed, by class."""
    run_id = retention.ask(runtime, actors.CLI)
    while not retention.work(runtime, run_id, progress=measured.progress, rest=measured.rest):
        pass
    proofs = runtime.database.rows(
        sa.select(table(RetentionProof)).where(RetentionProof.run_id == run_id), {}
    )
    broken = [each for each in proofs if each.outcome != retention.DONE]
    assert not broken, broken
    return Counter({getattr(each, "class"): each.deleted for each in proofs})


def _of_connections(runtime: Runtime) -> float:
    """Processor time that the database's processes took for this one, in seconds."""
    if runtime.database.is_sqlite:
        return 0.0
    found = runtime.database.rows(_PIDS, {})
    return cpu_seconds([row.pid for row in found])


_PIDS = sa.text(
    "SELECT pid FROM pg_stat_activity"
    " WHERE datname = current_database() AND backend_type = 'client backend'"
)


def main(words: list[str]) -> int:
    """Both goes over so many faxes, with the rests between batches or without."""
    faxes, rests = int(words[0]), words[1] == "rest"
    measured, removed = Measured(faxes, rests), Counter[str]()
    said: dict[str, Any] = {"goes": []}
    with closing(wiring.build(Config.load())) as runtime:
        runtime.plugins.manifests()
        runtime.database.row(sa.select(sa.literal(1)), {})
        measured.watch(runtime.database.engine)
        gc.collect()
        gc.freeze()  # as a worker does
        cpu = time.process_time()
        for go in range(2):
            later = replace(runtime, now=lambda go=go: utcnow() + go * MONTH)  # type: ignore[misc]
            began = time.perf_counter()
            removed += purge(later, measured)
            said["goes"].append(time.perf_counter() - began)
        said["cpu"] = time.process_time() - cpu + _of_connections(runtime)
        left = [runtime.database.rows(sa.select(each).limit(1), {}) for each in TABLES]
        folder = runtime.config.data_dir / "documents"
        files = sum(len(names) for _, _, names in os.walk(folder))
    wanted = dict.fromkeys(("document", "numbers", "events"), faxes)
    assert +removed == wanted, removed
    assert not any(left), "rows are left"
    assert not files, f"{files} documents are left"
    said |= {"rested": measured.rested, "held": measured.held}
    said |= {"peaks": measured.peaks, "peak": peak()}
    print(json.dumps(said))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
