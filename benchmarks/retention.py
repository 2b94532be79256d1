"""Retention: how fast it removes what is old beside a plain script that does so, in how much memory, how that grows,
and what those notice of it who submit meanwhile.

A fax goes in two goes, a month apart, and both count. Of each, ten rows go in all: the eight that it came with (aged),
and the two events that say what was removed; and one document.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks import aged, documents, product
from benchmarks.client import Pace
from benchmarks.figures import Figures
from benchmarks.floor import purge as floor
from benchmarks.floor.store import create
from benchmarks.launch import NotStarted, Workshop, until
from benchmarks.load import Load, run
from benchmarks.outcome import Spread
from benchmarks.servers import Servers
from benchmarks.sides import Side
from benchmarks.stages import WARM_UP, Length, Progress, rotated
from faxbot import actors, retention, schema, wiring
from faxbot.config import Config
from faxbot.db import utcnow
from faxbot.runtime import Runtime
from faxbot.tasks.app import Bell

FEW, MANY = "10,000 faxes", "100,000 faxes"
MILLION = 1_000_000
STORES = ("postgresql", "sqlite")
QUIET, WORKING = "in quiet", "while retention works"
RATE = 20.0
"""Submits a second."""
PATIENCE = 600.0
_AGE = timedelta(days=31)
_A_MONTH_LATER = sa.text(
    "UPDATE jobs SET purged_at = purged_at - interval '31 days' WHERE purged_at IS NOT NULL"
)


def measure(
    figures: Figures, workshop: Workshop, servers: Servers, length: Length, say: Progress
) -> None:
    """All of it."""
    _beside_the_floor(figures, workshop, servers, length, say)
    for store in STORES:
        database = servers.postgres.new_database() if store == "postgresql" else ""
        _growth(figures, workshop, store, _installed(workshop, store, database), length, say)
    _beside_submits(figures, workshop, servers, length, say)


# How fast ---------------------------------------------------------------------------------------------


def _beside_the_floor(
    figures: Figures, workshop: Workshop, servers: Servers, length: Length, say: Progress
) -> None:
    """Faxes a second of both sides in turn, without the rests that faxbot takes between its batches."""
    faxes = length.purged_faxes[0]
    plain, files = servers.postgres.new_database(), workshop.folder / "purge-floor"
    files.mkdir()
    create(plain, [])
    environment = _installed(workshop, "purge", servers.postgres.new_database())

    def of_floor() -> None:
        floor.fill(plain, files, faxes)
        said = _said(workshop, "floor-purge", {}, "benchmarks.floor.purge", plain)
        _add(figures, "floor", faxes, said, said["seconds"])

    def of_faxbot() -> None:
        _fill(environment, faxes)
        said = _purged(workshop, environment, faxes, "work")
        _add(figures, "faxbot", faxes, said, sum(said["goes"]))

    for number in range(length.rounds):
        say(f"{faxes:,} old faxes are removed, round {number + 1} of {length.rounds}")
        for side in rotated([of_floor, of_faxbot], number):
            side()


def _add(figures: Figures, side: str, faxes: int, said: Mapping[str, Any], seconds: float) -> None:
    figures.add("retention/rate", side, faxes / seconds)
    figures.add("retention/cpu", side, said["cpu"] / faxes * 1e6)
    figures.add("retention/held/p95", side, _p95(said["held"]))


def _p95(seconds: list[float]) -> float:
    """In milliseconds."""
    spread = Spread.of(seconds)
    assert spread is not None
    return spread.p95


# In how much memory, and how it grows -----------------------------------------------------------------


def _growth(
    figures: Figures,
    workshop: Workshop,
    store: str,
    environment: Mapping[str, str],
    length: Length,
    say: Progress,
) -> None:
    """Microseconds a fax, without and with the rests between batches, and the memory of the process that purges."""
    for faxes in length.purged_faxes:
        say(f"{faxes:,} old faxes on {store}")
        name = f"{faxes:,} faxes"
        _fill(environment, faxes)
        said = _purged(workshop, environment, faxes, "rest")
        whole = sum(said["goes"])
        figures.add(f"retention/{store}/fax", name, (whole - said["rested"]) / faxes * 1e6)
        figures.add(f"retention/{store}/fax and rest", name, whole / faxes * 1e6)
        figures.add(f"retention/{store}/held/p95", name, _p95(said["held"]))
        figures.add(f"retention/{store}/memory", name, said["peak"])
        figures.add(
            f"retention/{store}/growth",
            name,
            max(last / tenth for tenth, last in said["peaks"].values()),
        )


# What others notice -----------------------------------------------------------------------------------


def _beside_submits(
    figures: Figures, workshop: Workshop, servers: Servers, length: Length, say: Progress
) -> None:
    """Milliseconds of submits at an even pace, with a worker that works on a run and with none that does."""
    database, redis = servers.postgres.new_database(), servers.redis.database(13)
    side = product.start_whole(workshop, "faxbot", database, redis)
    folder = str(workshop.folder / "faxbot-data")
    config = Config.load(
        {"DATABASE_URL": database, "FAX_DATA_DIR": folder, "CELERY_BROKER_URL": redis}
    )
    run(side.service, documents.fax_page(), Load(WARM_UP, Pace(8), wait=60))
    with closing(wiring.build(config, ring=Bell(config))) as runtime:
        until(lambda: _state(runtime) == retention.DONE, seconds=PATIENCE)  # the clock's own
        speed = statistics.median(figures.of("retention/rate", "faxbot") or [2000.0])
        faxes = int(speed * (length.paced_seconds + 1))
        for number in range(length.rounds):
            say(f"submits beside retention, round {number + 1} of {length.rounds}")
            with runtime.database.writing() as connection:
                connection.execute(_A_MONTH_LATER)  # what is left of the last round's goes as well
            aged.fill(runtime, faxes, utcnow() - _AGE)
            deeds: Sequence[Callable[[], None]] = (
                lambda: _submit(figures, side, length, QUIET),
                lambda: _working(figures, runtime, side, length, say),
            )
            for deed in rotated(deeds, number):
                deed()


def _working(figures: Figures, runtime: Runtime, side: Side, length: Length, say: Progress) -> None:
    run_id = retention.ask(runtime, actors.CLI)
    runtime.ring(retention.TASK, run_id)
    until(lambda: _removed(runtime) > 0, seconds=PATIENCE)
    kept = Figures()
    _submit(kept, side, length, WORKING)
    if _state(runtime) != retention.RUNNING:
        say("it had ended before the submits had: they do not count")
    else:
        for what, sides in kept.values.items():
            figures.add(what, WORKING, sides[WORKING][0])
    until(lambda: _state(runtime) == retention.DONE, seconds=PATIENCE, every=0.2)


def _submit(figures: Figures, side: Side, length: Length, name: str) -> None:
    load = Load(10**9, Pace(8, length.paced_seconds, RATE), wait=60)
    outcome = run(side.service, documents.fax_page(), load, ledger=side.ledger)
    figures.take_outcome("retention/beside", name, outcome, 0)


def _state(runtime: Runtime) -> str:
    """Of the newest run."""
    found = retention.runs(runtime, limit=1)
    return str(found[0]["state"]) if found else ""


def _removed(runtime: Runtime) -> int:
    """Rows that the newest run has removed so far."""
    return sum(each["deleted"] for each in retention.runs(runtime, limit=1)[0]["classes"])


# What all have ----------------------------------------------------------------------------------------


def _installed(workshop: Workshop, name: str, database: str) -> dict[str, str]:
    """The environment of an installation of which nothing runs; `database`: its address, "" for SQLite."""
    environment = {"FAX_DATA_DIR": str(workshop.folder / f"purge-{name}")}
    environment |= {"DATABASE_URL": database} if database else {}
    schema.upgrade(Config.load(environment))
    return environment


def _fill(environment: Mapping[str, str], faxes: int) -> None:
    with closing(wiring.build(Config.load(environment))) as runtime:
        aged.fill(runtime, faxes, utcnow() - _AGE)


def _purged(
    workshop: Workshop, environment: Mapping[str, str], faxes: int, how: str
) -> dict[str, Any]:
    return _said(workshop, "purge", environment, "benchmarks.purge", str(faxes), how)


def _said(
    workshop: Workshop, name: str, environment: Mapping[str, str], *words: str | Path
) -> dict[str, Any]:
    """What a program of ours measured, printed as its last line; raises NotStarted."""
    child = workshop.python(name, *words, environment=environment)
    if child.process.wait() != 0:
        raise NotStarted(f"{name}:\n{child.log.read_text()[-2000:]}")
    said: dict[str, Any] = json.loads(child.log.read_text().splitlines()[-1])
    return said
