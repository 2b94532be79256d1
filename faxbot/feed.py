"""The feed: what happened to all faxes, in one order in which whoever reads on misses nothing.

The order is that of the events' ids. PostgreSQL gives ids out before it commits, so that 8 may be there while the
transaction with 7 still works: who read 8 and went on from there would never see 7. So nobody reads beyond settled():

1. The newest number that was given out is read.
2. Then the transactions are noted that hold the lock with which rows are inserted. Who had a number by then held the
   lock before he got it, and keeps it until what he committed can be seen.
3. When none of those is left, all that there will ever be up to that number is there.

So nothing is added to the insert, no other transaction of the server counts, and a writer that stands still delays the
feed until PostgreSQL ends it (15 s, see db) and hides nothing. SQLite has one writer at a time, and commits in the
order of the ids.

A cursor says which event was the last and when it was recorded. A ledger that was restored from a backup gives the same
ids to other events: then the time counts, and a few minutes come once more.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Self

import sqlalchemy as sa

from faxbot.db import Database, table
from faxbot.errors import DatabaseAway, Malformed
from faxbot.fanout import BODY
from faxbot.models import FaxEvent
from faxbot.results import stamp

SKEW = timedelta(minutes=5)
"""By so much the order of the ids and the times may differ: clocks of several machines, transactions that take long."""
WINDOW = 50_000
"""Of so many events those that are asked for are picked out at once: some 20 ms, however rare they are (measured)."""
FIRST_PATIENCE = 5.0
"""Seconds that a process which knows nothing yet waits for those who write at that moment."""
_PATIENCE = 0.05  # the same of one that has something to tell all the while
_LOOK = 0.01  # between two looks at who still writes
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_CURSOR = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place behind an event: its id, and when it was recorded in microseconds since 1970."""

    id: int
    recorded: int

    @classmethod
    def of(cls, row: sa.Row[Any]) -> Self:
        return cls(row.id, (row.recorded_at - _FIRST) // _MICROSECOND)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises Malformed for what this server never gave."""
        match = _CURSOR.fullmatch(text)
        try:
            if match is None:
                raise ValueError(text)
            found = cls(int(match[2]), int(match[1]))
            _ = found.recorded_at
        except (ValueError, OverflowError):
            raise Malformed("`cursor` is not one that this server gave") from None
        return found

    @property
    def recorded_at(self) -> datetime:
        return _FIRST + self.recorded * _MICROSECOND

    def __str__(self) -> str:
        return f"{self.recorded}-{self.id}"


BEGINNING = Cursor(0, 0)


@dataclass(frozen=True, slots=True)
class Filters:
    """Which events somebody wants; empty: all of his account."""

    types: frozenset[str] = frozenset()
    fax_id: str | None = None

    def let(self, row: sa.Row[Any]) -> bool:
        """Whether this event is among them."""
        return (not self.types or row.type in self.types) and self.fax_id in (None, row.fax_id)


class Page(NamedTuple):
    """Events, and behind which one to go on; `more`: whether there is more by now."""

    rows: Sequence[sa.Row[Any]]
    next: Cursor
    more: bool


class Feed:
    """The feed as one process reads it; safe to share between threads."""

    def __init__(self, database: Database, settled: int = 0) -> None:
        """`settled`: up to which id that was said before, by whichever process."""
        self._database = database
        self._lock = threading.Lock()
        self._settled = settled
        self._waits_for: tuple[int, frozenset[str]] | None = None
        """A number, and who wrote when it was the newest and might have a smaller one."""

    def settled(self, patience: float = _PATIENCE) -> int:
        """Up to which id all is there that ever will be; waits so many seconds for transactions that are about to end,
        and longer where nothing is known yet. Raises DatabaseAway, also where nothing is known and one does not end."""
        if self._database.is_sqlite:
            return self._last().id
        wanted = self._settle()
        deadline = time.monotonic() + (patience if self._settled else FIRST_PATIENCE)
        while self._settled < wanted and time.monotonic() < deadline:
            time.sleep(_LOOK)
            self._settle()
        if wanted and not self._settled:
            raise DatabaseAway("A transaction stands still. Ask again in a moment.")
        return self._settled

    def _settle(self) -> int:
        """Look once; the newest id."""
        known, waits_for = self._settled, self._waits_for
        drawn = self._database.row(_DRAWN, {})
        newest = drawn.last_value if drawn is not None and drawn.is_called else 0
        if newest == known:
            return newest
        if newest < known:  # another database, restored in the place of the one before
            with self._lock:
                self._settled, self._waits_for = 0, None
            return newest
        writers = frozenset(row[0] for row in self._database.rows(_WRITERS, {}))
        # Only a number that was noted before these writers were read may be judged by them.
        settled = newest if not writers else 0
        if waits_for is not None and writers.isdisjoint(waits_for[1]):
            settled, waits_for = max(settled, waits_for[0]), None
        with self._lock:
            self._settled = max(self._settled, settled)
            self._waits_for = (waits_for or (newest, writers)) if writers else None
        return newest

    def last(self) -> Cursor:
        """The place behind all that is there by now; raises DatabaseAway."""
        return self._last(self.settled())

    def _last(self, upto: int = 2**63 - 1) -> Cursor:
        row = self._database.row(_LAST, {"upto": upto})
        return Cursor.of(row) if row is not None else BEGINNING

    def knows(self, cursor: Cursor) -> bool:
        """Whether it names an event as it is known here; raises DatabaseAway."""
        if cursor == BEGINNING:
            return True
        row = self._database.row(_ONE, {"id": cursor.id})
        return row is not None and Cursor.of(row) == cursor

    def resumed(self, cursor: Cursor) -> Cursor:
        """Where to go on behind `cursor`: there, if it names an event as it is known here, else SKEW before its time.
        Raises DatabaseAway."""
        return cursor if self.knows(cursor) else self.since(cursor.recorded_at)

    def since(self, at: datetime) -> Cursor:
        """A place before all that was recorded at or after this time, and not long before; raises DatabaseAway."""
        before, behind, found = 0, self.settled(), BEGINNING
        while before < behind:  # 20 questions for a million events
            middle = (before + behind) // 2
            row = self._database.row(_NEXT, {"behind": middle, "upto": behind})
            if row is None or row.recorded_at >= at - SKEW:
                behind = middle
            else:
                before, found = row.id, Cursor.of(row)
        return found

    def page(
        self,
        account_id: str,
        filters: Filters,
        behind: Cursor,
        *,
        limit: int,
        upto: int,
        since: datetime | None = None,
    ) -> Page:
        """Up to `limit` events of the account behind a cursor, the oldest first, none beyond the id `upto`; where many
        others lie between, maybe fewer, or none, and `more`. Raises DatabaseAway."""
        first = self._database.row(_NEXT, {"behind": behind.id, "upto": upto})
        if first is None:
            return Page((), behind, more=False)
        # The events of one fax are few, and have an index.
        end = upto if filters.fax_id else min(upto, first.id + WINDOW)
        query = _EVENTS.where(_ROW.account_id == account_id, _ROW.id > behind.id, _ROW.id <= end)
        if filters.types:
            query = query.where(_ROW.type.in_(sorted(filters.types)))
        if since is not None:
            query = query.where(_ROW.recorded_at >= since)
        if filters.fax_id:
            of_it = sa.or_(_ROW.job_id == filters.fax_id, _ROW.inbound_id == filters.fax_id)
            query = query.where(of_it).order_by(_ROW.sequence)
        else:
            query = query.order_by(_ROW.id)
        rows = self._database.rows(query.limit(limit + 1), {})
        if len(rows) > limit:
            return Page(rows[:limit], Cursor.of(rows[limit - 1]), more=True)
        return Page(rows, self._last(end), more=end < upto)

    def news(self, behind: Cursor, *, limit: int, upto: int) -> Sequence[sa.Row[Any]]:
        """Up to `limit` events of all accounts behind a cursor, the oldest first; raises DatabaseAway."""
        return self._database.rows(_NEWS, {"behind": behind.id, "upto": upto, "most": limit})


def describe(row: sa.Row[Any]) -> dict[str, Any]:
    """An event as it is told outside, in plain JSON types: as webhooks tell it. No PHI."""
    return {
        "id": str(Cursor.of(row)),
        "type": row.type,
        "timestamp": stamp(row.occurred_at),
        "data": {name: getattr(row, name) for name in BODY},
    }


# Statements, made once ------------------------------------------------------------------------------------------

_ROW = table(FaxEvent).c
_EVENTS = sa.select(
    _ROW.id, _ROW.account_id, _ROW.type, _ROW.occurred_at, _ROW.recorded_at,
    sa.func.coalesce(_ROW.job_id, _ROW.inbound_id).label("fax_id"),
    *(_ROW[name] for name in BODY if name != "fax_id"),
)  # fmt: skip
_BEHIND = sa.bindparam("behind", type_=sa.BigInteger)
_UPTO = sa.bindparam("upto", type_=sa.BigInteger)
_NEWS = (
    _EVENTS.where(_ROW.id > _BEHIND, _ROW.id <= _UPTO)
    .order_by(_ROW.id)
    .limit(sa.bindparam("most", type_=sa.Integer))
)
_PLACES = sa.select(_ROW.id, _ROW.recorded_at)
_ONE = _PLACES.where(_ROW.id == sa.bindparam("id", type_=sa.BigInteger))
_NEXT = _PLACES.where(_ROW.id > _BEHIND, _ROW.id <= _UPTO).order_by(_ROW.id).limit(1)
_LAST = _PLACES.where(_ROW.id <= _UPTO).order_by(_ROW.id.desc()).limit(1)

# PostgreSQL alone.
_DRAWN = sa.text("SELECT last_value, is_called FROM events_id_seq")
_WRITERS = sa.text(
    "SELECT virtualtransaction FROM pg_locks WHERE locktype = 'relation' AND relation = 'events'::regclass "
    "AND mode = 'RowExclusiveLock' AND granted "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
