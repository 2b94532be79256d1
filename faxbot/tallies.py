"""What all processes count together, at the price of a statement now and then: requests a minute, failed logins, and
requests that were refused at the carriers' door.

The database holds the counts. Of a minute's requests a process takes a part at a time, with one statement, and hands
it out by itself: what all of them hand out is never more than the limit. Of addresses that are barred a process knows
what it has read, and asks nothing more until their time is over. What is refused at the door it writes once a second.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Any, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from faxbot.db import Database, UtcDateTime, inserts, table
from faxbot.errors import DatabaseAway
from faxbot.events import DEFAULT_ACCOUNT
from faxbot.models import CallbackRefusal, FailedLogin, RequestCount

MINUTE = 60
PARTS = 10
"""A process takes this part of what is left of a minute, and at least one: so much may lie unused in one that gets no
more requests of this key. The 600 requests of a limit of 600 cost 54 statements."""
REMEMBERED = 2.0  # seconds
WRITTEN_EVERY = 1.0
"""Seconds between two writes of what is refused for one reason: a stranger's request costs no commit."""
MOST_KNOWN = 10_000
"""Of each kind a process remembers no more; what it forgets it asks for again."""
_SKEW = timedelta(minutes=1)
"""The clocks of two machines differ by less. What lies further ahead was written by a clock that was wrong."""

Known = TypeVar("Known")
_Insert = postgresql.Insert | sqlite.Insert


@dataclass(slots=True)
class _Share:
    """What this process may hand out of one key's minute."""

    shift: int
    """Seconds by which the key's minutes begin earlier than the clock's: else all clients came back together."""
    minute: int = -1
    left: int = 0
    spent: int = 0
    """The limit with which the whole minute was found to be spent; 0: there may be more."""

    def turn(self, minute: int) -> None:
        """Forget what was of an earlier minute, or of a clock that was wrong."""
        if not self.minute - 1 <= minute <= self.minute:
            self.minute, self.left, self.spent = minute, 0, 0


class Tallies:
    """The counts as this process knows them; safe to share between threads."""

    def __init__(
        self,
        database: Database,
        clock: Callable[[], float] = monotonic,
        most_known: int = MOST_KNOWN,
    ) -> None:
        self._database, self._clock, self._most_known = database, clock, most_known
        self._dialect = database.engine.dialect.name
        self._shares: dict[tuple[str, str], _Share] = {}
        self._remembered: dict[str, tuple[Any, float]] = {}
        self._barred: dict[tuple[str, str], tuple[float, int]] = {}
        self._refused: dict[tuple[str, str], tuple[int, datetime, datetime]] = {}
        self._wrote: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    # Requests ---------------------------------------------------------------------------------------------------

    def take(self, account_id: str, name: str, limit: int, now: datetime) -> float:
        """Take one of the `limit` requests that `name` has in this minute: 0, or the seconds until its next minute.
        Raises DatabaseAway when this process has none left and cannot ask for more."""
        with self._lock:
            share = self._shares.get((account_id, name)) or self._new_share(account_id, name)
            at = now.timestamp() + share.shift
            minute, into = int(at // MINUTE), at % MINUTE
            share.turn(minute)
            if share.left:
                share.left -= 1
                return 0.0
            if share.spent >= limit:
                return MINUTE - into
        # Nothing is held meanwhile: another thread that finds nothing asks for itself.
        row = self._database.row(
            _TAKE[self._dialect],
            {
                "account": account_id,
                "who": name,
                "this": minute,
                "most": limit,
                "first": max(limit // PARTS, 1),
            },
        )
        with self._lock:
            if row is None:
                if share.minute == minute:
                    share.spent = limit
                return MINUTE - into
            share.turn(row.minute)  # another machine's clock may be in the next one already
            if (
                row.minute == share.minute
            ):  # else it ended meanwhile, and the rest of the part with it
                share.left += row.granted - 1
        return 0.0

    def _new_share(self, account_id: str, name: str) -> _Share:
        self._make_room(self._shares, lambda share: share.minute)
        share = _Share(zlib.crc32(f"{account_id} {name}".encode()) % MINUTE)
        self._shares[account_id, name] = share
        return share

    # Failed logins ----------------------------------------------------------------------------------------------

    def barred(self, kind: str, origin: str, limit: int, now: datetime) -> float:
        """For how many seconds more, as far as this process knows, `origin` is barred from logins of this kind; 0: it
        is not. Asks nothing."""
        known = self._barred.get((kind, origin))
        if known is None:
            return 0.0
        until, failures = known
        left = until - now.timestamp()
        if left <= 0 or failures < limit:  # an administrator may have raised the limit
            with self._lock:
                self._barred.pop((kind, origin), None)
            return 0.0
        return left

    @property
    def none_barred(self) -> bool:
        """Whether this process knows of nobody who is barred."""
        return not self._barred

    def look(self, kind: str, origin: str, limit: int, span: timedelta, now: datetime) -> float:
        """The same as the database has it; raises DatabaseAway."""
        names = {"login": kind, "whence": origin, "since": now - span, "soon": now + _SKEW}
        row = self._database.row(_FAILURES, names)
        return self._note(kind, origin, limit, span, now, row) if row is not None else 0.0

    def failed(
        self, kind: str, origin: str, limit: int, span: timedelta, now: datetime
    ) -> tuple[int, float]:
        """Count one more failure: how many they are since the first one, at most `span` ago, and for how long that
        bars the origin. Raises DatabaseAway."""
        names = {"login": kind, "whence": origin, "since": now - span, "soon": now + _SKEW}
        row = self._database.row(_FAIL[self._dialect], {**names, "at": now})
        if row is None:  # never: it is inserted or updated
            return 0, 0.0
        return row.failures, self._note(kind, origin, limit, span, now, row)

    def remembered(self, name: str, read: Callable[[], Known]) -> Known:
        """What read() gave within the last REMEMBERED seconds."""
        value, good_until = self._remembered.get(name, (None, 0.0))
        if self._clock() >= good_until:
            value = read()
            self._remembered[name] = value, self._clock() + REMEMBERED
        return cast(Known, value)

    def _note(
        self, kind: str, origin: str, limit: int, span: timedelta, now: datetime, row: sa.Row[Any]
    ) -> float:
        if row.failures < limit:
            return 0.0
        until = (row.began_at + span).timestamp()
        with self._lock:
            self._make_room(self._barred, lambda known: known[0])
            self._barred[kind, origin] = until, row.failures
        return float(until - now.timestamp())

    # The carriers' door -----------------------------------------------------------------------------------------

    def refused(self, provider_id: str, reason: str, now: datetime) -> None:
        """Count a refused request; raises DatabaseAway where it is time to write it, and it is not lost then."""
        key = (provider_id, reason)
        with self._lock:
            self._add(key, 1, now, now)
            clock = self._clock()
            if key in self._wrote and clock - self._wrote[key] < WRITTEN_EVERY:
                return
            self._wrote[key] = clock
        self._write(key)

    def write_refused(self) -> None:
        """Write what this process has counted since; raises DatabaseAway."""
        for key in list(self._refused):
            self._write(key)

    def close(self) -> None:
        """The process ends: write what is left, where the database is there."""
        with suppress(DatabaseAway):
            self.write_refused()

    def _add(self, key: tuple[str, str], count: int, first_at: datetime, last_at: datetime) -> None:
        before, first, last = self._refused.get(key, (0, first_at, last_at))
        self._refused[key] = before + count, min(first, first_at), max(last, last_at)

    def _write(self, key: tuple[str, str]) -> None:
        with self._lock:
            seen = self._refused.pop(key, None)
        if seen is None:
            return  # another thread has just written it
        (provider_id, reason), (count, first_at, last_at) = key, seen
        names = {"provider_id": provider_id, "reason": reason, "count": count}
        try:
            at = {"first_at": first_at, "last_at": last_at}
            self._database.row(_REFUSE[self._dialect], {**names, **at})
        except DatabaseAway:
            with self._lock:
                self._add(key, *seen)
            raise

    def _make_room(
        self, known: dict[tuple[str, str], Known], age: Callable[[Known], float]
    ) -> None:
        """Forget the older half of too many."""
        if len(known) >= self._most_known:
            for name in sorted(known, key=lambda name: age(known[name]))[: len(known) // 2]:
                del known[name]


# Statements, made once ------------------------------------------------------------------------------------------


def _take(insert: _Insert) -> sa.Executable:
    """A part of what is left of the minute `this`; no row where nothing is left."""
    row, this, most = table(RequestCount).c, _number("this"), _number("most")
    same = row.minute.between(this, this + 1)
    used = sa.case((same, row.used), else_=0)
    part = sa.case((most - used >= 2 * PARTS, (most - used) // PARTS), else_=1)
    return (
        insert.values(
            account_id=sa.bindparam("account"),
            name=sa.bindparam("who"),
            minute=this,
            used=_number("first"),
            granted=_number("first"),
        )
        .on_conflict_do_update(
            index_elements=["account_id", "name"],
            set_={
                "minute": sa.case((same, row.minute), else_=this),
                "used": used + part,
                "granted": part,
            },
            where=used < most,
        )
        .returning(row.minute, row.granted)
    )


def _fail(insert: _Insert) -> sa.Executable:
    """One failure more; the first one again where the last first one is too long ago."""
    row, at = table(FailedLogin).c, _time("at")
    same = row.began_at > _time("since"), row.began_at <= _time("soon")
    return (
        insert.values(
            account_id=DEFAULT_ACCOUNT,
            kind=sa.bindparam("login"),
            origin=sa.bindparam("whence"),
            failures=1,
            began_at=at,
        )
        .on_conflict_do_update(
            index_elements=["account_id", "kind", "origin"],
            set_={
                "failures": sa.case((sa.and_(*same), row.failures + 1), else_=1),
                "began_at": sa.case((sa.and_(*same), row.began_at), else_=at),
            },
        )
        .returning(row.failures, row.began_at)
    )


def _number(name: str) -> sa.BindParameter[int]:
    return sa.bindparam(name, type_=sa.BigInteger)


def _time(name: str) -> sa.BindParameter[datetime]:
    return sa.bindparam(name, type_=UtcDateTime)


def _refuse(insert: _Insert) -> Any:
    new, kept = insert.excluded, table(CallbackRefusal).c
    return (
        insert.values(
            account_id=DEFAULT_ACCOUNT,
            provider_id=sa.bindparam("provider_id"),
            reason=sa.bindparam("reason"),
            count=sa.bindparam("count"),
            first_at=sa.bindparam("first_at", type_=UtcDateTime),
            last_at=sa.bindparam("last_at", type_=UtcDateTime),
        )
        .on_conflict_do_update(
            index_elements=["account_id", "provider_id", "reason"],
            set_={
                "count": kept.count + new.count,
                # Another process may have written a later one.
                "last_at": sa.case((new.last_at > kept.last_at, new.last_at), else_=kept.last_at),
            },
        )
        .returning(kept.reason)
    )


_REFUSE = {dialect: _refuse(insert) for dialect, insert in inserts(CallbackRefusal).items()}
_TAKE = {dialect: _take(insert) for dialect, insert in inserts(RequestCount).items()}
_FAIL = {dialect: _fail(insert) for dialect, insert in inserts(FailedLogin).items()}
_FAILURES = sa.select(FailedLogin.failures, FailedLogin.began_at).where(
    FailedLogin.account_id == DEFAULT_ACCOUNT,
    FailedLogin.kind == sa.bindparam("login"),
    FailedLogin.origin == sa.bindparam("whence"),
    FailedLogin.began_at > _time("since"),
    FailedLogin.began_at <= _time("soon"),
)
