"""What plugins keep for all processes: a carrier's token that one of them asked for.

A row per value, sealed. Who finds none that is good takes the making of it, with a time by which it
must be done, and asks the carrier with no transaction open; the others wait for the row.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from faxbot.crypto import Keyring, Unsealable
from faxbot.db import Database, UtcDateTime, inserts, table, utcnow
from faxbot.errors import DatabaseAway, Unreachable
from faxbot.events import DEFAULT_ACCOUNT
from faxbot.models import CachedValue

MAKING = timedelta(seconds=30)
"""Who has not made a value by then is taken for gone, and another one makes it."""
LOOK = 0.05  # seconds between two looks at whether another process has made it


class SharedCache:
    """The Cache of one plugin. What this process has read it knows by itself while it is good."""

    def __init__(
        self,
        database: Database,
        keyring: Keyring,
        plugin_id: str,
        now: Callable[[], datetime] = utcnow,
    ) -> None:
        self._database, self._keyring = database, keyring
        self._plugin_id, self._now = plugin_id, now
        self._known: dict[str, tuple[str, datetime]] = {}
        self._failed: dict[str, tuple[Exception, float]] = {}
        self._lock = threading.Lock()

    def get(
        self, name: str, make: Callable[[], tuple[str, float]], *, stale: str | None = None
    ) -> str:
        """plugins.base.Cache; a database that is away is Unreachable too, as plugins know of none."""
        asked_at = time.monotonic()
        with self._lock:  # one thread of this process asks for the others too
            known = self._known.get(name)
            if known is not None and known[1] > self._now() and known[0] != stale:
                return known[0]
            error, failed_at = self._failed.get(name, (None, 0.0))
            if error is not None and failed_at >= asked_at:
                raise error  # waited for: to wait for one's own as well would outlast what a call may take
            try:
                value = self._known[name] = self._of_all(name, make, stale)
            except Exception as failure:
                self._failed[name] = failure, time.monotonic()
                raise
            self._failed.pop(name, None)
            return value[0]

    def _of_all(
        self, name: str, make: Callable[[], tuple[str, float]], stale: str | None
    ) -> tuple[str, datetime]:
        given_up = time.monotonic() + MAKING.total_seconds()
        try:
            while True:
                value = self._read(name, stale) or self._made(name, make, stale)
                if value is not None:
                    return value
                if time.monotonic() > given_up:
                    raise Unreachable("Another process takes too long to get a carrier's token.")
                time.sleep(LOOK)
        except DatabaseAway:
            raise Unreachable("The database is away, which holds the carrier's token.") from None

    def _read(self, name: str, stale: str | None) -> tuple[str, datetime] | None:
        row = self._database.row(_READ, {**self._names(name), "now": self._now()})
        if row is None or row.value_sealed is None:
            return None
        try:
            value = self._keyring.open(row.value_sealed, self._place()).decode()
        except Unsealable:
            return None  # sealed with a key that is no more
        return None if value == stale else (value, row.good_until)

    def _made(
        self, name: str, make: Callable[[], tuple[str, float]], stale: str | None
    ) -> tuple[str, datetime] | None:
        """The value, when its making is ours; None while it is another's."""
        now = self._now()
        until = now + MAKING
        take = _TAKE[self._database.engine.dialect.name]
        mine = {**self._names(name), "mine_until": until}
        if self._database.row(take, {**mine, "now": now}) is None:
            return None
        if (just_made := self._read(name, stale)) is not None:
            self._database.row(_GIVE_UP, mine)
            return just_made
        try:
            value, seconds = make()
        except BaseException:
            with suppress(DatabaseAway):
                self._database.row(_GIVE_UP, mine)
            raise
        good_until = self._now() + timedelta(seconds=seconds)
        with suppress(DatabaseAway):  # good here at least
            sealed = self._keyring.seal(value.encode(), self._place())
            self._database.row(_KEEP, {**mine, "sealed": sealed, "good_until": good_until})
        return value, good_until

    def _names(self, name: str) -> dict[str, Any]:
        return {"account": DEFAULT_ACCOUNT, "plugin": self._plugin_id, "value": name}

    def _place(self) -> str:
        return f"plugin_cache.value:{DEFAULT_ACCOUNT}:{self._plugin_id}"


_HERE = sa.and_(
    CachedValue.account_id == sa.bindparam("account"),
    CachedValue.plugin_id == sa.bindparam("plugin"),
    CachedValue.name == sa.bindparam("value"),
)
_NOW = sa.bindparam("now", type_=UtcDateTime)
_MAKING_UNTIL = sa.bindparam("mine_until", type_=UtcDateTime)
_READ = sa.select(CachedValue.value_sealed, CachedValue.good_until).where(
    _HERE, CachedValue.good_until > _NOW
)
_TAKE = {
    dialect: insert.values(
        account_id=sa.bindparam("account"),
        plugin_id=sa.bindparam("plugin"),
        name=sa.bindparam("value"),
        making_until=_MAKING_UNTIL,
    )
    .on_conflict_do_update(
        index_elements=["account_id", "plugin_id", "name"],
        set_={"making_until": insert.excluded.making_until},
        where=sa.or_(CachedValue.making_until.is_(None), CachedValue.making_until < _NOW),
    )
    .returning(table(CachedValue).c.name)
    for dialect, insert in inserts(CachedValue).items()
}
_MINE = sa.and_(_HERE, CachedValue.making_until == _MAKING_UNTIL)
_KEEP = (
    sa.update(table(CachedValue))
    .where(_MINE)
    .values(
        value_sealed=sa.bindparam("sealed"),
        good_until=sa.bindparam("good_until", type_=UtcDateTime),
        making_until=None,
    )
    .returning(table(CachedValue).c.name)
)
_GIVE_UP = (
    sa.update(table(CachedValue))
    .where(_MINE)
    .values(making_until=None)
    .returning(table(CachedValue).c.name)
)
