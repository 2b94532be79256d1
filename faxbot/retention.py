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
from functools import partial
from typing import Any, NamedTuple

import sqlalchemy as sa
from psycopg.errors import QueryCanceled
from sqlalchemy.engine import Connection

from faxbot import audit, claims
from faxbot.actors import CLOCK, Actor
from faxbot.audit import Action
from faxbot.config import OPTIONS, Config
from faxbot.db import UtcDateTime, inserts, new_id, table
from faxbot.errors import DatabaseAway, LeaseLost
from faxbot.events import DEFAULT_ACCOUNT
from faxbot.models import RetentionProof, RetentionRun
from faxbot.purging import CLASSES, LEASE, Mismatch, Work
from faxbot.results import stamp
from faxbot.runtime import Runtime

log = logging.getLogger(__name__)

TASK = "faxbot.purge"
SLICE = 3.0
"""Seconds that one task works on a run; then faxes have their turn."""
RUNNING, DONE, FAILED = "running", "done", "failed"
OPEN, MISMATCH, STORAGE, OFF = "open", "mismatch", "storage", "off"
BROKEN_OFF = (FAILED, MISMATCH)
KEPT, KEPT_FOR = 400, timedelta(days=400)
"""So many runs are kept whatever they did, and those that removed something for so long."""
STUCK = timedelta(hours=24)
"""A run that has worked for so long is one to look at."""
LEAST_ROWS, FIRST_BATCH, MOST_ROWS = 50, 200, 2000
AIM = {"sqlite": 0.05, "postgresql": 0.15}
"""Seconds for which a batch is to hold its locks: on SQLite everybody who writes waits meanwhile."""
LONGEST = 1.0
"""Seconds that a batch is to take in all; no lock is held while its bytes are removed."""
REST = 0.5
"""For so many times as long as a batch took, the others are left alone."""
COUNTED = 5000
"""Rows that are counted at once."""
WORKER = Actor(DEFAULT_ACCOUNT, "worker", frozenset(), CLOCK)

_RUNS, _PROOFS = table(RetentionRun), table(RetentionProof)
_NOW = sa.bindparam("now", type_=UtcDateTime)
_UNTIL = sa.bindparam("until", type_=UtcDateTime)
_FAR = sa.bindparam("far", type_=UtcDateTime)


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
    """By class the cutoff, and how many rows a run would remove now, as far as they are counted: what its proof will
    say. Nothing is changed."""
    all_ = cutoffs(runtime.config, runtime.now())
    for name, cutoff in all_.items():
        counted = 0
        yield name, cutoff, counted
        for step in CLASSES[name].steps:
            for some in step.count(Work(runtime, cutoff, _Rehearsal(), rehearsed=all_), COUNTED):
                counted += some
                yield name, cutoff, counted


class _Rehearsal:
    """Nothing is removed while it is counted."""

    def hold(self, _connection: Connection) -> None:
        raise AssertionError

    def prove(self, *_: object) -> None:
        raise AssertionError


# When a run is due ----------------------------------------------------------------------------------


def due_at(config: Config, now: datetime) -> datetime:
    """When the newest run was due: whole intervals since 1970 in UTC, which knows no summer time."""
    interval = config.cleanup_interval_minutes * 60
    return datetime.fromtimestamp(now.timestamp() // interval * interval, UTC)


def next_at(config: Config, now: datetime) -> datetime:
    """When the next one is."""
    return due_at(config, now) + timedelta(minutes=config.cleanup_interval_minutes)


def announce_due(runtime: Runtime) -> int:
    """Make the run that is due, unless somebody has, or one is under way; ring for one that nobody works on. How many
    rings. A ledger that has no run yet has its first one when the next is due, so that people can say before what
    is to be kept."""
    now = runtime.now()
    running = runtime.database.row(_RUNNING, {})
    if running is None:
        is_first = runtime.database.row(sa.select(_RUNS.c.id).limit(1), {}) is None
        if is_first:
            at = stamp(next_at(runtime.config, now))
            log.warning("retention begins", extra={"at": at, "days": kept(runtime.config)})
        made = begin(runtime, due_at(runtime.config, now), "clock", only_noted=is_first)
        if is_first or made is None:
            return 0
    ring_again = timedelta(seconds=claims.ring_again(runtime, TASK))
    rung = runtime.database.rows(_RING, {"now": now, "before": now - ring_again})
    return sum(runtime.ring(TASK, run.id) for run in rung)


_IS_FREE = sa.or_(
    _RUNS.c.lease_until.is_(None),
    _RUNS.c.lease_until < _NOW,
    _RUNS.c.lease_until > _FAR,  # somebody has set the clock right
)
_RING = (
    sa.update(_RUNS)
    .where(
        _RUNS.c.state == RUNNING,
        sa.or_(_RUNS.c.lease_until.is_(None), _RUNS.c.lease_until < _NOW),
        sa.or_(
            _RUNS.c.rung_at.is_(None),
            _RUNS.c.rung_at <= sa.bindparam("before", type_=UtcDateTime),
            _RUNS.c.rung_at > _NOW,
        ),
    )
    .values(rung_at=_NOW)
    .returning(_RUNS.c.id)
)


def begin(
    runtime: Runtime, due: datetime, asked_by: str, *, only_noted: bool = False
) -> str | None:
    """Make the run that is due at this time, or only note that it was; its id, or None where it was made before, or
    where another one runs."""
    now = runtime.now()
    run = {
        "id": new_id(now),
        "account_id": DEFAULT_ACCOUNT,
        "due_at": due,
        "asked_by": asked_by,
        "state": DONE if only_noted else RUNNING,
        "started_at": now,
        "ended_at": now if only_noted else None,
        "fence": 0,
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
    """A run that somebody wants now: its id; where one works already, that one. It is about every account: raises
    Forbidden."""
    actor.require_house()
    now, run_id = runtime.now(), None
    while run_id is None:
        known = runtime.database.row(_RUNNING, {}) or runtime.database.row(_MADE, {"due": now})
        if known is not None:
            return str(known.id)
        run_id = begin(runtime, now, actor.id)  # None: at this very moment by somebody else
    with runtime.database.writing() as connection:
        audit.record(connection, actor, Action.RETENTION_ASKED, ("retention", run_id), now=now)
    return run_id


_RUNNING = (
    sa.select(_RUNS.c.id, _RUNS.c.started_at)
    .where(_RUNS.c.state == RUNNING)
    .order_by(_RUNS.c.id)
    .limit(1)
)


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
    lease = _lease(runtime)
    claim = {"run_id": run_id, "now": now, "until": now + lease, "far": now + 2 * lease}
    run = runtime.database.row(_CLAIM, claim)
    if run is None:
        return True
    ledger = _Ledger(runtime, run_id, run.fence)
    slice_ = _Slice(runtime, ledger, time.monotonic() + seconds, progress, rest)
    try:
        for turn in _turns(runtime, run, slice_):
            if not turn():
                runtime.database.row(_LET_GO, {**ledger.its, "now": runtime.now()})
                runtime.ring(TASK, run_id)
                return False
        _end(runtime, run_id)
    except LeaseLost:
        pass  # another process goes on
    return True


def _lease(runtime: Runtime) -> timedelta:
    """A storage may take long to say that it is away."""
    return timedelta(seconds=LEASE * runtime.config.lease_seconds)


_OF_RUN = _RUNS.c.id == sa.bindparam("run_id")
_CLAIM = (
    sa.update(_RUNS)
    .where(
        _OF_RUN,
        _RUNS.c.state == RUNNING,
        _IS_FREE,
    )
    .values(lease_until=_UNTIL, fence=_RUNS.c.fence + 1)
    .returning(*_RUNS.c)
)
_ITS = sa.update(_RUNS).where(_OF_RUN, _RUNS.c.fence == sa.bindparam("its_fence"))
_LET_GO = _ITS.values(lease_until=None, rung_at=_NOW).returning(_RUNS.c.id)
_KEEP = _ITS.values(lease_until=_UNTIL)


@dataclass(frozen=True, slots=True)
class _Ledger:
    """A run as the process has it that claimed it last."""

    runtime: Runtime
    run_id: str
    fence: int

    @property
    def its(self) -> dict[str, Any]:
        return {"run_id": self.run_id, "its_fence": self.fence}

    def hold(self, connection: Connection) -> None:
        """As purging.Ledger."""
        until = self.runtime.now() + _lease(self.runtime)
        if connection.execute(_KEEP, {**self.its, "until": until}).rowcount != 1:
            raise LeaseLost

    def of(self, name: str, step: int) -> _Page:
        return _Page(self, name, step)


@dataclass(frozen=True, slots=True)
class _Page:
    """The same for one step of one class."""

    ledger: _Ledger
    name: str
    step: int

    def hold(self, connection: Connection) -> None:
        self.ledger.hold(connection)

    def prove(
        self, connection: Connection, expected: int, deleted: int, last: Sequence[Any]
    ) -> None:
        # What differed was counted as found when the class was broken off.
        known = sa.case((_PROOFS.c.outcome == MISMATCH, 0), else_=expected)
        values = {
            "expected": _PROOFS.c.expected + known,
            "deleted": _PROOFS.c.deleted + deleted,
            "step": self.step,
            "cursor": _written(last),
        }
        connection.execute(
            sa.update(_PROOFS).where(*_OF_PROOF).values(**values),
            {"of_run": self.ledger.run_id, "of_class": self.name},
        )


def _turns(runtime: Runtime, run: sa.Row[Any], slice_: _Slice) -> Iterator[Callable[[], bool]]:
    """What is left to do in this run: the classes that it has not ended, each with its proof, which is made when its
    turn has come. Of what is kept for ever nothing goes, and nothing is left half removed: at once where that is so
    since the run began, and of what was broken off; of the others at its end."""
    wanted = cutoffs(runtime.config, run.started_at)
    begun = runtime.database.rows(_PROOFS_OF, {"ids": [run.id]})
    for proof in begun:
        if proof.outcome in BROKEN_OFF:
            yield partial(slice_.leave, getattr(proof, "class"), proof.cutoff_at)
        if proof.outcome == OPEN and getattr(proof, "class") not in wanted:
            yield partial(slice_.spare, getattr(proof, "class"), proof.cutoff_at, proof.deleted)
    for name, cutoff in wanted.items():
        first = {
            "run_id": run.id,
            "class": name,
            "account_id": run.account_id,
            "cutoff_at": cutoff,
            "step": 0,
            "expected": 0,
            "deleted": 0,
            "outcome": OPEN,
            "started_at": runtime.now(),
        }
        runtime.database.row(_FIRST[runtime.database.engine.dialect.name], first)
        # Who keeps it longer since the run began means this run, too.
        lowered = {"of_run": run.id, "of_class": name, "longer": cutoff}
        runtime.database.row(_LONGER, lowered)
        (proof,) = runtime.database.rows(_PROOF, {"of_run": run.id, "of_class": name})
        if proof.outcome == OPEN:
            yield partial(slice_.purge, name, proof)
    for name in (each for each in CLASSES if each not in wanted):
        yield partial(slice_.spare, name, run.started_at)


_FIRST = {
    dialect: insert.on_conflict_do_nothing().returning(_PROOFS.c.run_id)
    for dialect, insert in inserts(RetentionProof).items()
}
_OF_PROOF = (
    _PROOFS.c.run_id == sa.bindparam("of_run"),
    _PROOFS.c["class"] == sa.bindparam("of_class"),
)
_PROOF = sa.select(_PROOFS).where(*_OF_PROOF)
_KEPT_LONGER = sa.bindparam("longer", type_=UtcDateTime)
_LONGER = (
    sa.update(_PROOFS)
    .where(*_OF_PROOF, _PROOFS.c.outcome == OPEN, _PROOFS.c.cutoff_at > _KEPT_LONGER)
    .values(cutoff_at=_KEPT_LONGER)
    .returning(_PROOFS.c.run_id)
)


_Deed = tuple[int, Callable[[Work], int], Sequence[Any]]
"""The number of a step, what is done of it, and behind what."""


@dataclass(frozen=True, slots=True)
class _Slice:
    """Some seconds of work on a run."""

    runtime: Runtime
    ledger: _Ledger
    until: float
    progress: Callable[[str, int], object]
    rest: Callable[[float], object]

    def purge(self, name: str, proof: sa.Row[Any]) -> bool:
        """Work on one class; whether it has ended, however it did."""
        deeds = list[_Deed]()
        for number, step in enumerate(CLASSES[name].steps):
            if number >= proof.step:
                cursor = _read(step.order, proof.cursor) if number == proof.step else ()
                deeds += [(number, step.batch, cursor), (number, step.settle, ())]
        return self._do(name, deeds, proof.cutoff_at, proof.deleted, DONE)

    def spare(self, name: str, cutoff: datetime, removed: int = 0) -> bool:
        """The same for one that is kept for ever: what somebody had begun to remove who died."""
        steps = enumerate(CLASSES[name].steps)
        deeds: list[_Deed] = [(number, step.settle, ()) for number, step in steps]
        return self._do(name, deeds, cutoff, removed, OFF)

    def leave(self, name: str, cutoff: datetime) -> bool:
        """The same for one that was broken off, which has ended: nobody is told until the next run that something goes.
        Where that fails as well, all of it stays."""
        steps = list(enumerate(CLASSES[name].steps))
        went = self._all(name, [(number, step.settle, ()) for number, step in steps], cutoff)
        if went is None:
            went = self._all(name, [(number, step.spare, ()) for number, step in steps], cutoff)
        return went is not False

    def _do(
        self, name: str, deeds: Sequence[_Deed], cutoff: datetime, removed: int, outcome: str
    ) -> bool:
        went = self._all(name, deeds, cutoff, removed)
        if went is None:
            return self.leave(name, cutoff)
        if went:
            _finish(self.runtime, self.ledger.run_id, name, outcome)
        return went

    def _all(
        self, name: str, deeds: Sequence[_Deed], cutoff: datetime, removed: int | None = None
    ) -> bool | None:
        """Whether all of them were done in time; None where the class is broken off. `removed`: so many before; None:
        nobody hears of it."""
        away = set[tuple[str, str]]()
        for number, deed, cursor in deeds:
            page = self.ledger.of(name, number)
            task = Work(self.runtime, cutoff, page, cursor, FIRST_BATCH, self.until, away)
            while True:
                since = time.monotonic()
                found = self._batch(name, deed, task)
                if found is None:
                    return None
                if not found:
                    break
                if removed is not None:
                    removed += found
                    self.progress(name, removed)
                took = time.monotonic() - since
                if time.monotonic() >= self.until:
                    return False
                task.limit = _next_limit(self.runtime, task, took)
                self.rest(took * REST)
        return True

    def _batch(self, name: str, deed: Callable[[Work], int], task: Work) -> int | None:
        """How many rows were found; None where the class is broken off."""
        try:
            return deed(task)
        except LeaseLost:
            raise
        except DatabaseAway as away:
            if not _took_too_long(away):
                raise
            outcome, expected = FAILED, 0
        except Mismatch as mismatch:
            outcome, expected = MISMATCH, mismatch.expected
        except Exception as error:  # noqa: BLE001 - one class that fails keeps no other from going
            kind = type(error).__name__
            # The class only: the text of a foreign exception may hold anything.
            log.error("retention failed", extra={"class": name, "exception": kind})  # noqa: TRY400
            outcome, expected = FAILED, 0
        log.error("retention broken off", extra={"class": name, "outcome": outcome})
        # What was found and not removed is in the proof, and stays where it is.
        _finish(self.runtime, self.ledger.run_id, name, outcome, expected)
        return None


def _took_too_long(away: DatabaseAway) -> bool:
    """Whether the database is there, and gave up a statement: it would do so again."""
    original = getattr(away.__cause__, "orig", None)
    return isinstance(original, QueryCanceled)


def _next_limit(runtime: Runtime, task: Work, took: float) -> int:
    aim = AIM[runtime.database.engine.dialect.name]
    size = task.limit * min(2.0, aim / max(task.held, 1e-4), LONGEST / max(took, 1e-4))
    return max(LEAST_ROWS, min(MOST_ROWS, int(size)))


def _written(last: Sequence[Any]) -> list[str]:
    return [each.isoformat() if isinstance(each, datetime) else str(each) for each in last]


def _read(order: Sequence[sa.Column[Any]], cursor: Sequence[str] | None) -> list[Any]:
    def value(column: sa.Column[Any], text: str) -> Any:
        if isinstance(column.type, UtcDateTime):
            return datetime.fromisoformat(text)
        return int(text) if isinstance(column.type, sa.Integer) else text

    return [value(*each) for each in zip(order, cursor, strict=True)] if cursor else []


def _finish(runtime: Runtime, run_id: str, name: str, outcome: str, expected: int = 0) -> None:
    """End a class. Done is what is all gone: what a storage did not remove was found."""
    its: Any = outcome
    if outcome == DONE:
        its = sa.case((_PROOFS.c.expected == _PROOFS.c.deleted, DONE), else_=STORAGE)
    runtime.database.row(
        sa.update(_PROOFS)
        .where(*_OF_PROOF, _PROOFS.c.outcome == OPEN)
        .values(outcome=its, ended_at=runtime.now(), expected=_PROOFS.c.expected + expected)
        .returning(_PROOFS.c.run_id),
        {"of_run": run_id, "of_class": name},
    )


def _end(runtime: Runtime, run_id: str) -> None:
    """All classes have ended: so has the run."""
    now = runtime.now()
    with runtime.database.writing() as connection:
        found = connection.execute(sa.select(_PROOFS).where(_PROOFS.c.run_id == run_id)).all()
        failed = {
            getattr(proof, "class"): proof.outcome
            for proof in found
            if proof.outcome not in (DONE, OFF)
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
        newest = sa.select(_RUNS.c.id).order_by(_RUNS.c.id.desc()).limit(KEPT).scalar_subquery()
        removed = sa.exists().where(_PROOFS.c.run_id == _RUNS.c.id, _PROOFS.c.deleted > 0)
        is_old = sa.or_(~removed, _RUNS.c.started_at < now - KEPT_FOR)
        gone = (_RUNS.c.id.not_in(newest), _RUNS.c.state != RUNNING, is_old)
        connection.execute(sa.delete(_RUNS).where(*gone))


# Looking at it --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Trouble:
    """The newest run, where it was broken off (by class how), or has worked for STUCK and longer (no classes)."""

    run_id: str
    outcomes: Mapping[str, str]


def trouble(runtime: Runtime) -> Trouble | None:
    """What is wrong with the run that works, or with the newest that has ended."""
    running = runtime.database.row(_RUNNING, {})
    if running is not None and runtime.now() - running.started_at > STUCK:
        return Trouble(running.id, {})
    run = runtime.database.row(_NEWEST, {})
    if run is None or run.state != FAILED:
        return None
    proofs = runtime.database.rows(_PROOFS_OF, {"ids": [run.id]})
    well = (DONE, OFF)
    return Trouble(
        run.id,
        {getattr(each, "class"): each.outcome for each in proofs if each.outcome not in well},
    )


class Last(NamedTuple):
    """The newest run that is over: when it ended, and by class how many rows it removed."""

    ended_at: datetime
    removed: Mapping[str, int]


def last(runtime: Runtime) -> tuple[Last | None, datetime | None]:
    """The newest run that is over, and when the newest ended in which nothing was broken off."""
    run = runtime.database.row(_NEWEST, {})
    if run is None:
        return None, None
    proofs = runtime.database.rows(_PROOFS_OF, {"ids": [run.id]})
    removed = {getattr(proof, "class"): proof.deleted for proof in proofs}
    good = run if run.state == DONE else runtime.database.row(_NEWEST_DONE, {})
    return Last(run.ended_at, removed), good.ended_at if good is not None else None


_NEWEST = (
    sa.select(_RUNS).where(_RUNS.c.state != RUNNING).order_by(_RUNS.c.ended_at.desc()).limit(1)
)
_NEWEST_DONE = (
    sa.select(_RUNS).where(_RUNS.c.state == DONE).order_by(_RUNS.c.ended_at.desc()).limit(1)
)
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
        "cutoff": stamp(proof.cutoff_at),
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
