"""Retention: when a run is due, who works on it, and what came of it. What is removed, and how, is in purging.

A run is a row that is unique for the time at which it was due, in UTC: it does not matter how many clocks ring, how
late, or whether a day had 23 hours. Whoever works on it has a lease and some seconds, then the next one goes on where
the proofs say: faxes that wait are never kept waiting for long. Runs that were missed are not made up for: each
removes all that is old.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from faxbot import audit
from faxbot.actors import CLOCK, Actor
from faxbot.audit import Action
from faxbot.config import OPTIONS, Config
from faxbot.db import UtcDateTime, inserts, new_id, table
from faxbot.errors import DatabaseAway
from faxbot.events import DEFAULT_ACCOUNT
from faxbot.models import RetentionProof, RetentionRun
from faxbot.purging import CLASSES, BytesLeft, Mismatch, Step, Work
from faxbot.results import stamp
from faxbot.runtime import Runtime

log = logging.getLogger(__name__)

TASK = "faxbot.purge"
SLICE = 5.0
"""Seconds that one task works on a run; then faxes have their turn."""
LEASE = timedelta(seconds=60)
RUNNING, DONE, FAILED = "running", "done", "failed"
OPEN, MISMATCH, STORAGE = "open", "mismatch", "storage"
KEPT = 400
"""So many runs are kept, with what they proved: a year of days, and what people asked for."""
LEAST_ROWS, FIRST_BATCH, MOST_ROWS = 50, 200, 1000
AIM = {"sqlite": 0.05, "postgresql": 0.15}
"""Seconds for which a batch is to hold its locks: on SQLite everybody who writes waits meanwhile."""
REST = 0.5
"""For so many times as long as a batch took, the others are left alone."""
COUNTED = 5000
"""Rows that are counted at once."""
WORKER = Actor(DEFAULT_ACCOUNT, "worker", frozenset(), CLOCK)

_RUNS, _PROOFS = table(RetentionRun), table(RetentionProof)
_NOW = sa.bindparam("now", type_=UtcDateTime)
_UNTIL = sa.bindparam("until", type_=UtcDateTime)


# What is kept how long ------------------------------------------------------------------------------


def days(config: Config, name: str) -> int:
    """For how many days a class is kept; 0: for ever, also where what must go before is."""
    of = CLASSES[name]
    if any(days(config, other) == 0 for other in of.behind):
        return 0
    found: int = getattr(config, of.days)
    return found


def cutoffs(config: Config, now: datetime) -> dict[str, datetime]:
    """By class, in order, what ended before goes."""
    kept = {name: days(config, name) for name in CLASSES}
    return {name: now - timedelta(days=each) for name, each in kept.items() if each}


def would_remove(runtime: Runtime) -> Iterator[tuple[str, datetime, int]]:
    """By class the cutoff, and how many rows a run would remove now, as far as they are counted; nothing is changed."""
    for name, cutoff in cutoffs(runtime.config, runtime.now()).items():
        counted = 0
        yield name, cutoff, counted
        for step in CLASSES[name].steps:
            for some in step.count(Work(runtime, cutoff, _proves_nothing), COUNTED):
                counted += some
                yield name, cutoff, counted


def _proves_nothing(*_: object) -> None:
    raise AssertionError("nothing is removed while it is counted")


# When a run is due ----------------------------------------------------------------------------------


def due_at(config: Config, now: datetime) -> datetime:
    """When the newest run was due: whole intervals since 1970 in UTC, which knows no summer time."""
    interval = config.cleanup_interval_minutes * 60
    return datetime.fromtimestamp(now.timestamp() // interval * interval, UTC)


def next_at(config: Config, now: datetime) -> datetime:
    """When the next one is."""
    return due_at(config, now) + timedelta(minutes=config.cleanup_interval_minutes)


def announce_due(runtime: Runtime) -> int:
    """Make the run that is due, unless somebody has; ring for those that nobody works on. How many rings."""
    now = runtime.now()
    begin(runtime, due_at(runtime.config, now), "clock")
    waiting = runtime.database.rows(_IDLE, {"now": now})
    return sum(runtime.ring(TASK, run.id) for run in waiting)


_IDLE = sa.select(_RUNS.c.id).where(
    _RUNS.c.state == RUNNING,
    sa.or_(_RUNS.c.lease_until.is_(None), _RUNS.c.lease_until < _NOW),
)


def begin(runtime: Runtime, due: datetime, asked_by: str) -> str | None:
    """Make the run that is due at this time; its id, or None where it was made before."""
    now = runtime.now()
    run = {
        "id": new_id(now),
        "account_id": DEFAULT_ACCOUNT,
        "due_at": due,
        "asked_by": asked_by,
        "state": RUNNING,
        "started_at": now,
    }
    if runtime.database.row(_MADE, {"due": due}) is not None:
        return None
    made = runtime.database.row(_BEGIN[runtime.database.engine.dialect.name], run)
    return made and str(made.id)


_MADE = sa.select(_RUNS.c.id).where(
    _RUNS.c.account_id == DEFAULT_ACCOUNT, _RUNS.c.due_at == sa.bindparam("due", type_=UtcDateTime)
)
_BEGIN = {
    dialect: insert.on_conflict_do_nothing().returning(_RUNS.c.id)
    for dialect, insert in inserts(RetentionRun).items()
}


def ask(runtime: Runtime, actor: Actor) -> str:
    """A run that somebody wants now: its id; where one works already, that one."""
    now = runtime.now()
    if (running := runtime.database.row(_RUNNING, {})) is not None:
        return str(running.id)
    run_id = begin(runtime, now, actor.id)
    if run_id is None:  # at this very moment by somebody else
        return str(runtime.database.rows(_MADE, {"due": now})[0].id)
    with runtime.database.writing() as connection:
        audit.record(connection, actor, Action.RETENTION_ASKED, ("retention", run_id), now=now)
    return run_id


_RUNNING = sa.select(_RUNS.c.id).where(_RUNS.c.state == RUNNING).order_by(_RUNS.c.id).limit(1)


# Working on it --------------------------------------------------------------------------------------


def work(
    runtime: Runtime,
    run_id: str,
    *,
    seconds: float = SLICE,
    progress: Callable[[str, int], object] = lambda *_: None,
    rest: Callable[[float], object] = time.sleep,
) -> bool:
    """Work on a run for some seconds; whether there is nothing left to do for this process. Safe to call any number of
    times. `progress` hears the class and how many rows it has removed in this run. Raises DatabaseAway."""
    now = runtime.now()
    claim = {"run_id": run_id, "now": now, "until": now + LEASE}
    run = runtime.database.row(_CLAIM, claim)
    if run is None:
        return True
    slice_ = _Slice(runtime, run_id, time.monotonic() + seconds, progress, rest)
    for name, proof in _proofs(runtime, run):
        if not slice_.purge(name, proof):
            runtime.database.row(_LET_GO, {"run_id": run_id})
            runtime.ring(TASK, run_id)
            return False
    _end(runtime, run_id)
    return True


_OF_RUN = _RUNS.c.id == sa.bindparam("run_id")
_CLAIM = (
    sa.update(_RUNS)
    .where(
        _OF_RUN,
        _RUNS.c.state == RUNNING,
        sa.or_(_RUNS.c.lease_until.is_(None), _RUNS.c.lease_until < _NOW),
    )
    .values(lease_until=_UNTIL)
    .returning(*_RUNS.c)
)
_LET_GO = sa.update(_RUNS).where(_OF_RUN).values(lease_until=None).returning(_RUNS.c.id)
_KEEP = sa.update(_RUNS).where(_OF_RUN).values(lease_until=_UNTIL)


def _proofs(runtime: Runtime, run: sa.Row[Any]) -> Iterator[tuple[str, sa.Row[Any]]]:
    """The classes that this run has not ended, each with its proof, which is made when its turn has come."""
    for name, cutoff in cutoffs(runtime.config, run.started_at).items():
        first = {
            "run_id": run.id,
            "class": name,
            "account_id": run.account_id,
            "cutoff": cutoff,
            "step": 0,
            "expected": 0,
            "deleted": 0,
            "outcome": OPEN,
            "started_at": runtime.now(),
        }
        runtime.database.row(_FIRST[runtime.database.engine.dialect.name], first)
        (proof,) = runtime.database.rows(_PROOF, {"of_run": run.id, "of_class": name})
        if proof.outcome == OPEN:
            yield name, proof


_FIRST = {
    dialect: insert.on_conflict_do_nothing().returning(_PROOFS.c.run_id)
    for dialect, insert in inserts(RetentionProof).items()
}
_OF_PROOF = (
    _PROOFS.c.run_id == sa.bindparam("of_run"),
    _PROOFS.c["class"] == sa.bindparam("of_class"),
)
_PROOF = sa.select(_PROOFS).where(*_OF_PROOF)


@dataclass(frozen=True, slots=True)
class _Slice:
    """Some seconds of work on a run."""

    runtime: Runtime
    run_id: str
    until: float
    progress: Callable[[str, int], object]
    rest: Callable[[float], object]

    def purge(self, name: str, proof: sa.Row[Any]) -> bool:
        """Work on one class; whether it has ended, however it did."""
        removed = proof.deleted
        for number, step in enumerate(CLASSES[name].steps):
            if number < proof.step:
                continue
            cursor = _read(step.order, proof.cursor) if number == proof.step else ()
            prove = _proving(self.runtime, self.run_id, name, number)
            task = Work(self.runtime, proof.cutoff, prove, cursor=cursor, limit=FIRST_BATCH)
            while True:
                since = time.monotonic()
                found = self._batch(name, step, task)
                if found is None:
                    return True
                if not found:
                    break
                removed += found
                self.progress(name, removed)
                took = time.monotonic() - since
                if time.monotonic() >= self.until:
                    return False
                task.limit = _next_limit(self.runtime, task.limit, took)
                self.rest(took * REST)
        _finish(self.runtime, self.run_id, name, DONE)
        return True

    def _batch(self, name: str, step: Step, task: Work) -> int | None:
        """How many rows were found; None where the class is broken off."""
        try:
            return step.batch(task)
        except DatabaseAway:
            raise
        except Mismatch as mismatch:
            outcome, expected = MISMATCH, mismatch.expected
        except BytesLeft as bytes_left:
            outcome, expected = STORAGE, bytes_left.left
        except Exception as error:  # noqa: BLE001 - one class that fails keeps no other from going
            kind = type(error).__name__
            log.error("retention failed", extra={"class": name, "exception": kind})  # noqa: TRY400 - its text may hold anything
            outcome, expected = FAILED, 0
        log.error("retention broken off", extra={"class": name, "outcome": outcome})
        # What was found and not removed is in the proof, and stays where it is.
        _finish(self.runtime, self.run_id, name, outcome, expected)
        return None


def _next_limit(runtime: Runtime, limit: int, took: float) -> int:
    size = limit * min(2.0, AIM[runtime.database.engine.dialect.name] / max(took, 1e-4))
    return max(LEAST_ROWS, min(MOST_ROWS, int(size)))


def _proving(
    runtime: Runtime, run_id: str, name: str, step: int
) -> Callable[[Connection, int, int, Sequence[Any]], None]:
    def prove(connection: Connection, expected: int, deleted: int, last: Sequence[Any]) -> None:
        if expected != deleted:
            raise Mismatch(expected, deleted)
        counted = {
            "expected": _PROOFS.c.expected + expected,
            "deleted": _PROOFS.c.deleted + deleted,
        }
        connection.execute(
            sa.update(_PROOFS)
            .where(*_OF_PROOF)
            .values(**counted, step=step, cursor=_written(last)),
            {"of_run": run_id, "of_class": name},
        )
        connection.execute(_KEEP, {"run_id": run_id, "until": runtime.now() + LEASE})

    return prove


def _written(last: Sequence[Any]) -> list[str]:
    return [each.isoformat() if isinstance(each, datetime) else str(each) for each in last]


def _read(order: Sequence[sa.Column[Any]], cursor: Sequence[str] | None) -> list[Any]:
    def value(column: sa.Column[Any], text: str) -> Any:
        if isinstance(column.type, UtcDateTime):
            return datetime.fromisoformat(text)
        return int(text) if isinstance(column.type, sa.Integer) else text

    return [value(*each) for each in zip(order, cursor, strict=True)] if cursor else []


def _finish(runtime: Runtime, run_id: str, name: str, outcome: str, expected: int = 0) -> None:
    values = {"outcome": outcome, "ended_at": runtime.now()}
    runtime.database.row(
        sa.update(_PROOFS)
        .where(*_OF_PROOF, _PROOFS.c.outcome == OPEN)
        .values(**values, expected=_PROOFS.c.expected + expected)
        .returning(_PROOFS.c.run_id),
        {"of_run": run_id, "of_class": name},
    )


def _end(runtime: Runtime, run_id: str) -> None:
    """All classes have ended: so has the run."""
    now = runtime.now()
    with runtime.database.writing() as connection:
        found = connection.execute(sa.select(_PROOFS).where(_PROOFS.c.run_id == run_id)).all()
        failed = {
            getattr(proof, "class"): proof.outcome for proof in found if proof.outcome != DONE
        }
        ended = connection.execute(
            sa.update(_RUNS)
            .where(_OF_RUN, _RUNS.c.state == RUNNING)
            .values(state=FAILED if failed else DONE, ended_at=now, lease_until=None)
            .returning(_RUNS.c.id),
            {"run_id": run_id},
        ).first()
        if ended is None:
            return
        details: dict[str, Any] = {getattr(proof, "class"): proof.deleted for proof in found}
        if failed:
            details["broken_off"] = failed
        outcome = audit.FAILED if failed else audit.DONE
        of = ("retention", run_id)
        audit.record(
            connection,
            WORKER,
            Action.RETENTION_ENDED,
            of,
            now=now,
            outcome=outcome,
            details=details,
        )
        old = sa.select(_RUNS.c.id).order_by(_RUNS.c.id.desc()).offset(KEPT).scalar_subquery()
        connection.execute(sa.delete(_RUNS).where(_RUNS.c.id.in_(old), _RUNS.c.state != RUNNING))


# Looking at it --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Trouble:
    """The newest run that has ended, where it was broken off: by class how."""

    run_id: str
    outcomes: Mapping[str, str]


def trouble(runtime: Runtime) -> Trouble | None:
    """What is wrong with the newest run, if it has ended."""
    run = runtime.database.row(_NEWEST, {})
    if run is None or run.state != FAILED:
        return None
    proofs = runtime.database.rows(_PROOFS_OF, {"ids": [run.id]})
    return Trouble(
        run.id, {getattr(each, "class"): each.outcome for each in proofs if each.outcome != DONE}
    )


_NEWEST = sa.select(_RUNS).where(_RUNS.c.state != RUNNING).order_by(_RUNS.c.id.desc()).limit(1)
_PROOFS_OF = (
    sa.select(_PROOFS)
    .where(_PROOFS.c.run_id.in_(sa.bindparam("ids", expanding=True)))
    .order_by(_PROOFS.c.started_at)
)


def runs(runtime: Runtime, *, limit: int) -> list[dict[str, Any]]:
    """The newest runs, each with what it proved, as plain JSON types."""
    query = sa.select(_RUNS).order_by(_RUNS.c.id.desc()).limit(limit)
    return _described(runtime, runtime.database.rows(query, {}))


def one(runtime: Runtime, run_id: str) -> dict[str, Any]:
    """The same of one run; raises LookupError."""
    query = sa.select(_RUNS).where(_OF_RUN)
    return _described(runtime, runtime.database.rows(query, {"run_id": run_id}))[0]


def _described(runtime: Runtime, found: Sequence[sa.Row[Any]]) -> list[dict[str, Any]]:
    proofs = runtime.database.rows(_PROOFS_OF, {"ids": [run.id for run in found]})
    order = list(CLASSES)
    return [
        {
            "id": run.id,
            "due_at": stamp(run.due_at),
            "asked_by": run.asked_by,
            "state": run.state,
            "started_at": stamp(run.started_at),
            "ended_at": stamp(run.ended_at),
            "classes": sorted(
                (_proof_json(proof) for proof in proofs if proof.run_id == run.id),
                key=lambda proof: order.index(proof["class"]),
            ),
        }
        for run in found
    ]


def _proof_json(proof: sa.Row[Any]) -> dict[str, Any]:
    return {
        "class": getattr(proof, "class"),
        "cutoff": stamp(proof.cutoff),
        "expected": proof.expected,
        "deleted": proof.deleted,
        "outcome": proof.outcome,
        "started_at": stamp(proof.started_at),
        "ended_at": stamp(proof.ended_at),
    }


def setting(name: str) -> str:
    """The variable that says how long a class is kept."""
    (found,) = [each.name for each in OPTIONS if each.field == CLASSES[name].days]
    return found


def kept(config: Config) -> dict[str, int]:
    """By class for how many days it is kept; 0: for ever."""
    return {name: days(config, name) for name in CLASSES}
