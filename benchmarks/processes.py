"""Memory and CPU of a service's processes, read from /proc (Linux): the whole tree below those it was started as.

PSS (a process's own pages plus its share of the shared ones) can be summed over a tree; RSS counts shared pages
in every process. CPU includes children that ended and were waited for.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Process:
    """One process at one moment; memory in bytes, CPU in seconds since it began."""

    pid: int
    command: str
    cpu_seconds: float
    rss: int
    pss: int


def tree(roots: Iterable[int]) -> list[int]:
    """The processes `roots` and everything below them, as far as they still run."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            parent = _parent(entry)
            if parent is not None:
                children.setdefault(parent, []).append(int(entry.name))
    found: list[int] = []
    waiting = [pid for pid in roots if Path(f"/proc/{pid}").exists()]
    while waiting:
        pid = waiting.pop(0)
        if pid not in found:
            found.append(pid)
            waiting += children.get(pid, [])
    return found


def _stat(entry: Path) -> list[str] | None:
    """The fields of /proc/<pid>/stat after the command, which may itself hold blanks and brackets; None: it ended."""
    try:
        return (entry / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _parent(entry: Path) -> int | None:
    fields = _stat(entry)
    return int(fields[1]) if fields else None


def cpu_seconds(roots: Iterable[int]) -> float:
    """User and system time of the trees of `roots`, with that of their ended children."""
    total = 0
    for pid in tree(roots):
        fields = _stat(Path(f"/proc/{pid}"))
        if fields:
            total += sum(int(ticks) for ticks in fields[11:15])
    return total / _TICK


def processes(roots: Iterable[int]) -> list[Process]:
    """Every process of the trees of `roots` with its memory; one that ends meanwhile is left out."""
    found = []
    for pid in tree(roots):
        entry = Path(f"/proc/{pid}")
        fields = _stat(entry)
        try:
            rollup = (entry / "smaps_rollup").read_text()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields:
            cpu = sum(int(ticks) for ticks in fields[11:15]) / _TICK
            found.append(
                Process(
                    pid, command.strip(), cpu, _kilobytes(rollup, "Rss"), _kilobytes(rollup, "Pss")
                )
            )
    return found


def children(parent: int) -> list[Process]:
    """The processes that `parent` started itself."""
    return [one for one in processes([parent]) if _parent(Path(f"/proc/{one.pid}")) == parent]


def _kilobytes(rollup: str, name: str) -> int:
    for line in rollup.splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


def pss(roots: Iterable[int]) -> int:
    """PSS of the trees of `roots` together, in bytes."""
    return sum(process.pss for process in processes(roots))


class Peak:
    """The largest value `measure` gives while the block runs, looked at every `every` seconds."""

    def __init__(self, measure: Callable[[], int], every: float = 0.5) -> None:
        self.measure = measure
        self.every = every
        self.value = measure()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._over.wait(self.every):
            self.value = max(self.value, self.measure())

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.value = max(self.value, self.measure())
