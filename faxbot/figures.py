"""Figures: how many events there were, how long faxes took, and how many are open; for charts and for Prometheus.

A sweep reads the feed on from where the last one stopped and adds each event to three rows: those of its minute (of its
hour, where that is long ago) and those since ever. Sums and cursor move in one transaction, and only from the place at
which the reading began: each event counts once, whoever counts at the same time, whoever dies, and whichever version of
faxbot wrote it. The newest minute is some seconds late: as much as the sweeps are apart (FAXBOT_SWEEP_SECONDS).

After two days minutes become hours. They are forgotten with the events that they were counted from; what was counted
since ever stays, so that no total ever falls. Nothing in these rows says anything of a fax.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from faxbot import retention
from faxbot.db import Base, Database, inserts, made_at, table, utcnow
from faxbot.events import DEFAULT_ACCOUNT, ENDS, OPEN, TERMINAL, Event, Status
from faxbot.feed import Feed
from faxbot.models import IS_OPEN, CountedEvents, DurationCount, EventCount, FaxEvent, Job
from faxbot.runtime import Runtime

EVER, MINUTE, HOUR = 0, 1, 60
"""The spans of time, in minutes."""
MINUTES_KEPT = timedelta(days=2)
BATCH = 1000
"""Events of one transaction, which are read before it begins; then others cannot write on SQLite for some 20 ms
(measured on a busy machine)."""
SLICE = 1.0
"""Seconds for which one sweep counts; where there are more events, the next one goes on."""
PATIENCE = 1.0
"""Seconds that are waited for who still writes events: retention takes long transactions."""
HOURS_AT_ONCE = 24
"""So many hours of minutes, and of hours that are forgotten, does one sweep tidy up."""
ACCEPT_TO_SENT, SENT_TO_FINAL = "accept_to_sent", "sent_to_final"
MEASURES = {
    ACCEPT_TO_SENT: "from when a fax was accepted, or was to be sent at, to when a carrier first took it",
    SENT_TO_FINAL: "from when a carrier last took a fax to its end",
}
BOUNDS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 14400, 86400)
"""Seconds."""
MOST = 10_000
"""Open faxes of one status are counted so far."""

_COUNTS, _DURATIONS, _COUNTED = table(EventCount), table(DurationCount), table(CountedEvents)
_EVENTS, _JOBS = table(FaxEvent), table(Job)
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
_A_MINUTE = timedelta(minutes=1)
Key = tuple[Any, ...]


def _minute(at: datetime) -> int:
    return (at - _FIRST) // _A_MINUTE


def _time(minute: int) -> datetime:
    return _FIRST + minute * _A_MINUTE


# Counting -------------------------------------------------------------------------------------------


def sweep(runtime: Runtime) -> int:
    """Count what is new, for a second at most; let minutes become hours, and forget what is old. How many events.
    Raises DatabaseAway."""
    until, counted = time.monotonic() + SLICE, 0
    cursor = counted_upto(runtime.database)
    upto = Feed(runtime.database, cursor).settled(PATIENCE)
    while found := count(runtime, upto):
        counted += found
        if time.monotonic() >= until:
            break
    tidy(runtime)
    return counted


def counted_upto(database: Database) -> int:
    """Up to the event of which id all are counted; raises DatabaseAway."""
    row = database.row(_CURSOR, {})
    if row is None:
        first = {"account_id": DEFAULT_ACCOUNT, "event_id": 0, "recorded_at": _FIRST}
        insert = inserts(CountedEvents)[database.engine.dialect.name].on_conflict_do_nothing()
        with database.writing() as connection:
            connection.execute(insert, first)
        return 0
    return int(row.event_id)


def count(runtime: Runtime, upto: int, batch: int = BATCH) -> int:
    """Count up to `batch` events, none beyond the id `upto`; how many. None where another process has counted them
    meanwhile."""
    behind = counted_upto(runtime.database)
    words = {"behind": behind, "upto": upto, "most": batch}
    rows = runtime.database.rows(_NEWS, words)
    if not rows:
        return 0
    counts, durations = _sums(rows, runtime.now(), _kept_since(runtime))
    moved = {"stood_at": behind, "event_id": rows[-1].id, "recorded_at": rows[-1].recorded_at}
    with runtime.database.writing() as connection:
        if connection.execute(_MOVE, moved).rowcount != 1:
            return 0
        _add(connection, EventCount, counts)
        _add(connection, DurationCount, durations)
    return len(rows)


@dataclass(slots=True)
class _Sum:
    """What is added to one row."""

    times: int = 0
    milliseconds: int = 0

    def add(self, times: int, milliseconds: int) -> None:
        self.times += times
        self.milliseconds += milliseconds


Sums = dict[Key, _Sum]


def _sums(rows: Sequence[sa.Row[Any]], now: datetime, kept_since: datetime) -> tuple[Sums, Sums]:
    """What these events add to event_counts and to duration_counts, by primary key."""
    counts, durations = Sums(), Sums()
    for row in rows:
        provider_id, cause = row.provider_id or "", row.cause or ""
        places = _places(row.recorded_at, now, kept_since)
        for place in places:
            key = (*place, row.account_id, row.type, row.status, provider_id, cause)
            counts.setdefault(key, _Sum()).add(1, 0)
        measured = _duration(row)
        if measured is None:
            continue
        measure, took = measured
        step = bisect_left(BOUNDS, took / timedelta(seconds=1))
        for place in places:
            key = (*place, row.account_id, measure, provider_id, row.status, step)
            durations.setdefault(key, _Sum()).add(1, took // timedelta(milliseconds=1))
    return counts, durations


def _places(at: datetime, now: datetime, kept_since: datetime) -> list[tuple[int, int]]:
    """The spans, each with the minute it begins with, to which something belongs that was recorded then."""
    places, minute = [(EVER, 0)], _minute(at)
    if at >= kept_since:
        is_new = at >= now - MINUTES_KEPT
        places.append((MINUTE, minute) if is_new else (HOUR, minute // HOUR * HOUR))
    return places


def _duration(row: sa.Row[Any]) -> tuple[str, timedelta] | None:
    """Which of MEASURES ends with this event, and how long it took by our clock."""
    none = timedelta()
    if row.type == Event.SENT:
        if row.sent_at is None and row.wanted_at is not None:
            return ACCEPT_TO_SENT, max(row.recorded_at - row.wanted_at, none)
    elif row.type in ENDS and row.status in TERMINAL and row.sent_at is not None:
        return SENT_TO_FINAL, max(row.recorded_at - row.sent_at, none)
    return None


def _add(connection: Connection, model: type[Base], sums: Sums) -> None:
    """Add these to their rows, in one order: who adds to the same ones at the same time waits for none of ours while we
    wait for one of his."""
    rows = table(model)
    key = [column.name for column in rows.primary_key]
    values = [column.name for column in rows.columns if column.name not in key]
    insert = inserts(model)[connection.dialect.name]
    added = insert.on_conflict_do_update(
        index_elements=key, set_={name: rows.c[name] + insert.excluded[name] for name in values}
    )
    new = [
        dict(zip(key, each, strict=True)) | {name: getattr(found, name) for name in values}
        for each, found in sorted(sums.items())
    ]
    if new:
        connection.execute(added, new)


# What is old ----------------------------------------------------------------------------------------


def tidy(runtime: Runtime) -> None:
    """Let minutes become hours, and forget hours with the events that they were counted from; some hours at once."""
    until = _minute(runtime.now() - MINUTES_KEPT) // HOUR * HOUR
    forgotten = _minute(_kept_since(runtime))
    for model in (EventCount, DurationCount):
        for _ in range(HOURS_AT_ONCE):
            oldest = _oldest(runtime.database, model, MINUTE)
            if oldest is None or oldest >= until:
                break
            _become_an_hour(runtime.database, model, oldest // HOUR * HOUR)
        oldest = _oldest(runtime.database, model, HOUR)
        if oldest is not None and oldest < forgotten:
            _forget(runtime.database, model, min(forgotten, oldest + HOURS_AT_ONCE * HOUR))


def _kept_since(runtime: Runtime) -> datetime:
    """What was recorded before is forgotten; the beginning of time where events are kept for ever."""
    days = retention.days(runtime.config, "events")
    return runtime.now() - timedelta(days=days) if days else _FIRST


def _oldest(database: Database, model: type[Base], span: int) -> int | None:
    """The minute with which the oldest of these spans begins."""
    row = database.row(_OLDEST[model], {"wanted": span})
    return None if row is None else int(row.minute)


def _forget(database: Database, model: type[Base], before: int) -> None:
    rows = table(model)
    with database.writing() as connection:
        connection.execute(sa.delete(rows).where(rows.c.span == HOUR, rows.c.minute < before))


def _become_an_hour(database: Database, model: type[Base], hour: int) -> None:
    """Put the minutes of one hour into its own row; who deletes them is the one to do it."""
    rows = table(model)
    key = [column.name for column in rows.primary_key][2:]
    of_hour = (rows.c.span == MINUTE, rows.c.minute >= hour, rows.c.minute < hour + HOUR)
    sums = Sums()
    with database.writing() as connection:
        for row in connection.execute(sa.delete(rows).where(*of_hour).returning(*rows.c)):
            its = (HOUR, hour, *(getattr(row, name) for name in key))
            milliseconds = getattr(row, "milliseconds", 0)
            sums.setdefault(its, _Sum()).add(row.times, milliseconds)
        _add(connection, model, sums)


# Reading --------------------------------------------------------------------------------------------


class Point(NamedTuple):
    """What happened in the time that begins `at`; `failed` counts expired faxes, too."""

    at: datetime
    accepted: int
    delivered: int
    failed: int
    received: int
    cancelled: int


class Ended(NamedTuple):
    """The same of a whole time."""

    accepted: int
    delivered: int
    failed: int
    received: int
    cancelled: int


_NAMED: dict[tuple[str, str], str] = {
    (Event.QUEUED, Status.QUEUED): "accepted",
    (Event.DELIVERED, Status.DELIVERED): "delivered",
    (Event.DECIDED, Status.DELIVERED): "delivered",
    (Event.FAILED, Status.FAILED): "failed",
    (Event.DECIDED, Status.FAILED): "failed",
    (Event.EXPIRED, Status.EXPIRED): "failed",
    (Event.RECEIVED, "received"): "received",
    (Event.CANCELLED, Status.CANCELLED): "cancelled",
}
_TYPES = sorted({str(event) for event, _ in _NAMED})
OUTCOMES = Ended._fields


def outcome(event_type: str, status: str) -> str | None:
    """Which of OUTCOMES an event is that leads to this status, if any."""
    return _NAMED.get((event_type, status))


def over_time(
    database: Database, account_id: str, since: datetime, until: datetime, points: int
) -> list[Point]:
    """What happened to an account's faxes, as about `points` times of the same length from the one that `since` falls
    into to the one before `until`: whole minutes, and whole hours where it is two days ago. The newest is some seconds
    late. Raises DatabaseAway."""
    width = max(-(-(until - since) // (points * _A_MINUTE)), 1)
    if utcnow() - since > MINUTES_KEPT - timedelta(hours=1):
        width = -(-width // HOUR) * HOUR
    first = _minute(since) // width * width
    end = -(-_minute(until) // width) * width
    if _time(end) < until:
        end += width
    found: dict[int, Counter[str]] = {}
    words = {"its": account_id, "first": first, "end": end, "width": width}
    for row in database.rows(_OVER_TIME, words):
        if (name := outcome(row.type, row.status)) is not None:
            found.setdefault(row.point, Counter())[name] += int(row.events)
    return [
        Point(_time(minute), *_figures(found.get((minute - first) // width, Counter())))
        for minute in range(first, end, width)
    ]


def ended(database: Database, account_id: str, since: datetime, until: datetime) -> Ended:
    """How many faxes were accepted, came to their end and came in from the minute of `since` to the one of `until`, or
    from hour to hour where that is two days ago. Raises DatabaseAway."""
    first = _minute(since)
    words = {"its": account_id, "first": first, "end": _minute(until) + 1, "width": 2**40}
    found = Counter[str]()
    for row in database.rows(_OVER_TIME, words):
        if (name := outcome(row.type, row.status)) is not None:
            found[name] += int(row.events)
    return Ended(*_figures(found))


def _figures(found: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(found[name] for name in OUTCOMES)


@dataclass(frozen=True, slots=True)
class Open:
    """The faxes of one status that are not at their end."""

    count: int
    """Up to MOST."""
    more: bool
    """Whether there are more."""
    oldest_at: datetime | None
    """When the oldest was accepted."""
    next_at: datetime | None
    """When the first of them is to be looked at next; long ago where nobody is at work."""


class Standing(NamedTuple):
    """How an account's faxes stand: the open ones by status, each of which is there, and what happened within a day."""

    open: dict[Status, Open]
    last_day: Ended


def open_states(database: Database, account_id: str, now: datetime) -> Standing:
    """How an account's faxes stand at this moment. The open ones are counted as they are; what happened within a day
    before `now` is some seconds late. Raises DatabaseAway."""
    last_day = ended(database, account_id, now - timedelta(days=1), now)
    return Standing(open_faxes(database, account_id), last_day)


def open_faxes(database: Database, account_id: str) -> dict[Status, Open]:
    """The open faxes of an account by status, as they are at this moment; raises DatabaseAway."""
    return {
        Status(row.status): Open(
            count=min(row.faxes, MOST),
            more=row.faxes > MOST,
            oldest_at=made_at(row.oldest) if row.oldest else None,
            next_at=row.next_at,
        )
        for row in database.rows(_OPEN, {"its": account_id})
    }


def totals(database: Database) -> Sequence[sa.Row[Any]]:
    """How many events there were since ever: account_id, type, status, provider_id, cause, count. Never less than
    before. Raises DatabaseAway."""
    return database.rows(_TOTALS, {})


class Histogram(NamedTuple):
    """How long something took since ever, by BOUNDS and beyond, each by itself."""

    counts: list[int]
    seconds: float


def histograms(database: Database) -> dict[tuple[str, str, str], Histogram]:
    """By measure, provider and status how long faxes of all accounts took since ever; raises DatabaseAway."""
    counts: dict[tuple[str, str, str], list[int]] = {}
    milliseconds = Counter[tuple[str, str, str]]()
    for row in database.rows(_ALL_DURATIONS, {}):
        which = row.measure, row.provider_id, row.status
        counts.setdefault(which, [0] * (len(BOUNDS) + 1))[row.step] += row.times
        milliseconds[which] += row.milliseconds
    return {which: Histogram(found, milliseconds[which] / 1000) for which, found in counts.items()}


def lag(database: Database, now: datetime) -> timedelta:
    """For how long the oldest event that is not counted yet has been there; raises DatabaseAway."""
    row = database.row(_NEXT, {"behind": counted_upto(database)})
    return max(now - row.recorded_at, timedelta()) if row is not None else timedelta()


# Statements, made once ------------------------------------------------------------------------------

_BEHIND = sa.bindparam("behind", type_=sa.BigInteger)
_OLDEST: dict[type[Base], sa.Select[int]] = {
    model: sa.select(rows.c.minute)
    .where(rows.c.span == sa.bindparam("wanted"))
    .order_by(rows.c.minute)
    .limit(1)
    for model, rows in ((EventCount, _COUNTS), (DurationCount, _DURATIONS))
}
_CURSOR = sa.select(_COUNTED.c.event_id).where(_COUNTED.c.account_id == DEFAULT_ACCOUNT)
_MOVE = (
    sa.update(_COUNTED)
    .where(
        _COUNTED.c.account_id == DEFAULT_ACCOUNT, _COUNTED.c.event_id == sa.bindparam("stood_at")
    )
    .values(event_id=sa.bindparam("event_id"), recorded_at=sa.bindparam("recorded_at"))
)
_EARLIER = _EVENTS.alias("earlier")
_SENT_AT = (
    sa.select(sa.func.max(_EARLIER.c.recorded_at, type_=_EARLIER.c.recorded_at.type))
    .where(
        _EARLIER.c.job_id == _EVENTS.c.job_id,
        _EARLIER.c.sequence < _EVENTS.c.sequence,
        _EARLIER.c.type == Event.SENT.value,
    )
    .scalar_subquery()
)
_WANTED_AT = (
    sa.select(
        sa.case((_JOBS.c.send_at > _JOBS.c.created_at, _JOBS.c.send_at), else_=_JOBS.c.created_at)
    )
    .where(_JOBS.c.id == _EVENTS.c.job_id)
    .scalar_subquery()
)
_IS_SENT = _EVENTS.c.type == Event.SENT.value
_MAY_END = _EVENTS.c.type.in_(sorted({*ENDS, Event.SENT}))
_NEWS = (
    sa.select(
        *(
            _EVENTS.c[name]
            for name in ("id", "account_id", "type", "status", "provider_id", "cause")
        ),
        _EVENTS.c.recorded_at,
        sa.case((_MAY_END, _SENT_AT)).label("sent_at"),
        sa.case((_IS_SENT, _WANTED_AT)).label("wanted_at"),
    )
    .where(_EVENTS.c.id > _BEHIND, _EVENTS.c.id <= sa.bindparam("upto", type_=sa.BigInteger))
    .order_by(_EVENTS.c.id)
    .limit(sa.bindparam("most", type_=sa.Integer))
)
_NEXT = (
    sa.select(_EVENTS.c.recorded_at).where(_EVENTS.c.id > _BEHIND).order_by(_EVENTS.c.id).limit(1)
)
_FROM = sa.bindparam("first", type_=sa.BigInteger)
_POINT = (_COUNTS.c.minute - _FROM) // sa.bindparam("width", type_=sa.BigInteger)
_OVER_TIME = (
    sa.select(
        _POINT.label("point"),
        _COUNTS.c.type,
        _COUNTS.c.status,
        sa.func.sum(_COUNTS.c.times).label("events"),
    )
    .where(
        _COUNTS.c.span.in_((MINUTE, HOUR)),
        _COUNTS.c.minute >= _FROM,
        _COUNTS.c.minute < sa.bindparam("end", type_=sa.BigInteger),
        _COUNTS.c.account_id == sa.bindparam("its"),
        _COUNTS.c.type.in_(_TYPES),
    )
    .group_by("point", _COUNTS.c.type, _COUNTS.c.status)
)
_TOTALS = sa.select(_COUNTS).where(_COUNTS.c.span == EVER)
_ALL_DURATIONS = sa.select(_DURATIONS).where(_DURATIONS.c.span == EVER)


def _open(status: Status) -> sa.Select[Any]:
    """The faxes of one status: by the index of accounts and statuses, whose ids say when a fax was accepted; and by
    the one of what is due."""
    its = _JOBS.c.account_id == sa.bindparam("its"), _JOBS.c.status == status.value
    some = sa.select(_JOBS.c.id).where(*its).limit(MOST + 1).subquery()
    oldest = sa.select(_JOBS.c.id).where(*its).order_by(_JOBS.c.id).limit(1)
    due = (
        sa.select(_JOBS.c.next_at)
        .where(sa.text(IS_OPEN), *its, _JOBS.c.next_at.is_not(None))
        .order_by(_JOBS.c.next_at)
        .limit(1)
    )
    return sa.select(
        sa.literal(status.value).label("status"),
        sa.select(sa.func.count()).select_from(some).scalar_subquery().label("faxes"),
        oldest.scalar_subquery().label("oldest"),
        due.scalar_subquery().label("next_at"),
    )


_OPEN = sa.union_all(*(_open(status) for status in OPEN))
