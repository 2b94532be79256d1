"""The stages of a run: what is put under which load, side by side, in an order that rotates from round to round."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from benchmarks import documents
from benchmarks.client import Pace, Request, drive
from benchmarks.documents import Document
from benchmarks.figures import Figures
from benchmarks.load import Load, run
from benchmarks.processes import pss
from benchmarks.service import Submissions
from benchmarks.sides import Side

T = TypeVar("T")
CONNECTIONS = (1, 8, 32)
WARM_UP = 32
KEPT = 200
"""So many faxes of each side are there to be read in the reading stage."""


@dataclass(frozen=True)
class Length:
    """How long a run is."""

    rounds: int
    submit_seconds: float
    read_seconds: float
    paced_seconds: float
    closed_faxes: int
    worker_faxes: int
    growth_faxes: tuple[int, int] | None
    """Memory is compared between these two counts of faxes; None: not at all."""
    purged_faxes: tuple[int, ...]
    """So many old ones are removed, the fewest first."""


FULL = Length(5, 2.0, 1.0, 10.0, 400, 1500, (2_000, 20_000), (10_000, 100_000))
QUICK = Length(2, 1.0, 0.5, 3.0, 100, 300, None, (2_000, 5_000))
Progress = Callable[[str], None]


def rotated(sides: Sequence[T], by: int) -> list[T]:
    """The same sides, beginning with another one."""
    by %= len(sides)
    return [*sides[by:], *sides[:by]]


def keep_some(side: Side, document: Document) -> list[str]:
    """Submit faxes to be read later, outside all figures, which also warms every process up; their ids."""
    submissions = Submissions(side.service, document)
    replies = drive(side.service.address, submissions.take(KEPT), Pace(8))
    return [reply.json()["id"] for reply in replies if reply.status == 202]


def submit_and_read(
    figures: Figures, sides: Sequence[Side], length: Length, progress: Progress
) -> None:
    """POST a PDF as fast as answers come, then GET single faxes, at 1, 8 and 32 connections."""
    document = documents.pdf_page()
    kept = {side.name: keep_some(side, document) for side in sides}
    turns = itertools.count()
    for number in range(length.rounds):
        progress(f"submit and read, round {number + 1} of {length.rounds}")
        for connections in CONNECTIONS:
            pace = Pace(connections, seconds=length.submit_seconds)
            for side in rotated(sides, next(turns)):
                _submit(figures, side, document, pace)
            for side in rotated(sides, next(turns)):
                pace = Pace(connections, seconds=length.read_seconds)
                _read(figures, side, kept[side.name], pace)
    for side in sides:
        figures.add("memory/web", side.name, pss(side.roles["web"]))


def _submit(figures: Figures, side: Side, document: Document, pace: Pace) -> None:
    outcome = run(side.service, document, Load(10**9, pace), watched=side.watched)
    own_cpu = side.own_cpu(outcome.cpu_seconds)
    figures.take_outcome(f"submit/{pace.connections}", side.name, outcome, own_cpu)


def _read(figures: Figures, side: Side, fax_ids: Sequence[str], pace: Pace) -> None:
    requests = (
        Request(number, side.service.get(f"/fax/{fax_id}"))
        for number, fax_id in enumerate(itertools.cycle(fax_ids))
    )
    cpu_before = sum(side.watched.cpu().values())
    replies = drive(side.service.address, requests, pace)
    cpu = sum(side.watched.cpu().values()) - cpu_before
    assert pace.seconds is not None
    good = [reply for reply in replies if reply.status == 200]
    span = max(reply.done_at for reply in replies) - min(reply.due_at for reply in replies)
    stage = f"read/{pace.connections}"
    figures.add(f"{stage}/rate", side.name, len(good) / span)
    figures.add(f"{stage}/cpu", side.name, 1000 * cpu / max(len(good), 1))
    figures.add(f"{stage}/refused", side.name, float(len(replies) - len(good)))


def whole_path(figures: Figures, sides: Sequence[Side], length: Length, progress: Progress) -> None:
    """Finished fax pages through queue and carrier to their end: ten a second, then as fast as answers come."""
    document = documents.fax_page()
    for side in sides:
        run(side.service, document, Load(WARM_UP, Pace(8), wait=60))
    paced = Load(10**9, Pace(8, length.paced_seconds, rate=10), wait=60)
    closed = Load(length.closed_faxes, Pace(8), wait=120)
    for number in range(length.rounds):
        progress(f"whole path, round {number + 1} of {length.rounds}")
        for stage, load in (("paced", paced), ("closed", closed)):
            for side in rotated(sides, number):
                _path(figures, side, document, stage, load)
    for side in sides:
        roots = side.own_roots
        figures.add("memory/all", side.name, pss(roots))


def rendered_path(figures: Figures, side: Side, length: Length, progress: Progress) -> None:
    """The same with a PDF that is converted on its way; there is no floor for that."""
    progress("whole path with a rendered page")
    closed = Load(length.closed_faxes // 2, Pace(8), wait=120, converted=True)
    _path(figures, side, documents.pdf_page(), "rendered", closed)


def _path(figures: Figures, side: Side, document: Document, stage: str, load: Load) -> None:
    outcome = run(side.service, document, load, ledger=side.ledger, watched=side.watched)
    figures.take_outcome(stage, side.name, outcome, side.own_cpu(outcome.cpu_seconds))


def growth(figures: Figures, side: Side, length: Length, progress: Progress) -> None:
    """The memory of all processes of a side after few and after many faxes."""
    if length.growth_faxes is None:
        return
    document = documents.fax_page()
    done, found = 0, []
    for faxes in length.growth_faxes:
        progress(f"growth: {faxes} faxes")
        load = Load(faxes - done, Pace(8), wait=300)
        outcome = run(side.service, document, load, ledger=side.ledger, watched=side.watched)
        figures.take_outcome("long", side.name, outcome, side.own_cpu(outcome.cpu_seconds))
        done = faxes
        found.append(pss(side.own_roots))
        figures.add(f"growth/{faxes}", side.name, found[-1])
    figures.add("growth/ratio", side.name, found[-1] / found[0])
