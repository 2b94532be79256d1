"""A ledger that was restored from a backup: how that is noticed, and which faxes are in doubt since.

What was done after the backup is not in it. A fax that waits there may have been sent since, and would be sent a second
time. So the ledger keeps names of the place where it lies (Restores._place), which a copy does not take along: whoever
finds it elsewhere notes a Restore, and no fax of before is called for until its carriers were asked (recall).
A copy that cannot be told from the original (a volume's snapshot) is told of by people: `faxbot restored declare`.

The tag of each attempt follows from its fax and its number (tag_of), so that a ledger that knows nothing of an attempt
can still ask for it.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from psycopg.errors import FeatureNotSupported, InsufficientPrivilege, UndefinedFunction
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from faxbot import landmark, retry
from faxbot.db import Database, UtcDateTime, inserts, table, then
from faxbot.errors import DatabaseAway
from faxbot.events import DEFAULT_ACCOUNT, Event
from faxbot.landmark import Landmark
from faxbot.models import IS_OPEN, FaxEvent, Heartbeat, Job, JobRow

log = logging.getLogger(__name__)

REASON = "restored"
LOOK_EVERY = timedelta(seconds=1)
CLOCKS = timedelta(minutes=5)
"""By so much the clocks of carriers and of other machines may differ from ours."""
FEWEST_AHEAD, MOST_AHEAD = retry.QUICK, 64
"""So many tries of a fax that the ledger does not know of are asked for: from ... to."""
EACH = timedelta(seconds=retry.SLOW)
"""Behind the first ones, tries of which carriers know nothing, because they refused them, are no quicker (retry)."""
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


def tag_of(job_id: str, number: int, releases: int = 0) -> str:
    """The tag of a fax's attempt of this number: the same in every copy of the ledger, and no secret. A person who
    releases a fax in doubt (Restores.releases) knows of tries that the ledger does not: the next ones are no namesakes
    of theirs."""
    words = f"{job_id}.{number}" if not releases else f"{job_id}.{number}.{releases}"
    return f"fb{hashlib.sha256(words.encode()).hexdigest()[:32]}"


@dataclass(frozen=True, slots=True)
class Restore:
    """Noticed `at`; the ledger knows what was done until `backup_at`."""

    at: datetime
    backup_at: datetime

    @property
    def ahead(self) -> int | None:
        """How many tries that the ledger does not know of there may be one behind the other without a trace at the
        carrier; None: so many that nobody asks for them all, and a person must say."""
        ahead = FEWEST_AHEAD + (self.at - self.backup_at) // EACH
        return ahead if ahead <= MOST_AHEAD else None


class Restores:
    """What a process knows of it; safe to share between threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._noticed: tuple[Restore | None, datetime] | None = None
        self._untold: set[str] = set()
        """The parts of its place that this PostgreSQL keeps to itself."""
        self._path: Path | None = None

    def notice(self, now: datetime) -> Restore | None:
        """Look where this ledger lies, at most once a second, and note a restore that nobody has noted; the last one.
        Not in a transaction. Raises DatabaseAway."""
        with self._lock:
            noticed = self._noticed
        if noticed is not None and timedelta() <= now - noticed[1] < LOOK_EVERY:
            return noticed[0]
        found = self._look(now)
        with self._lock:
            self._noticed = (found, now)
        return found

    def doubts(self, job: Job | JobRow, now: datetime) -> bool:
        """Whether this fax may have been sent after the backup, for all that is known. Raises DatabaseAway."""
        restore = self.notice(now)
        if restore is None or job.created_at > restore.at:
            return False  # one that is planned for later is in doubt: a person may have had it sent at once
        return self._database.row(_CLEARED, {"job_id": job.id, "at": restore.at}) is None

    def releases(self, job: Job | JobRow, now: datetime) -> int:
        """How often people have released this fax while it was in doubt, for all that the ledger knows. Raises
        DatabaseAway."""
        restore = self.notice(now)
        if restore is None or job.created_at > restore.at:
            return 0  # it never was
        return len(self._database.rows(_RELEASES, {"job_id": job.id}))

    def beat(self, connection: Connection, now: datetime) -> None:
        """Write down until when this ledger knows all; in the caller's transaction, before which it has asked
        notice(): the last beat of before is to be seen first."""
        insert = inserts(Heartbeat)[connection.dialect.name]
        connection.execute(
            insert.values(_row(_BEAT, now)).on_conflict_do_update(
                index_elements=["account_id", "name"],
                set_={"beat_at": insert.excluded.beat_at},
                where=_BEATS.c.beat_at < insert.excluded.beat_at,
            )
        )
        if (path := self._file()) is not None:
            then(connection, _BEAT, lambda: landmark.beat(path, now))

    def note(self, connection: Connection, now: datetime) -> None:
        """People say that this ledger was restored; in the caller's transaction."""
        _lock(connection)
        _note(connection, self._place(self._landmark()), now)
        self._mark(connection, now)

    def deny(self, connection: Connection, now: datetime) -> None:
        """People say that nothing was lost: no fax is in doubt any more; in the caller's transaction."""
        _lock(connection)
        _stamp(connection, self._place(self._landmark()), now)
        self._mark(connection, now)

    def _mark(self, connection: Connection, now: datetime) -> None:
        """A stamp is a beat, and what this process has noticed is past."""
        self.beat(connection, now)
        with self._lock:
            self._noticed = None

    def _look(self, now: datetime) -> Restore | None:
        beside = self._landmark()  # before the ledger, which has each of its beats first
        here = self._place(beside)
        noted = _read(self._database.rows(_OURS, {}))
        if here.items() <= noted.place.items() and not noted.is_older(beside, now):
            return noted.restore
        with self._database.writing() as connection:
            _lock(connection)
            restore = _find(connection, here, beside, now)
            self.beat(connection, now)
        return restore

    def _place(self, beside: Landmark | None) -> dict[str, str]:
        """By part the names of where this ledger lies, which neither a dump, nor a base backup that was rolled forward,
        nor a copy of the file takes along; only what can be known here. Raises DatabaseAway."""
        if not self._database.is_sqlite:
            said = {part: self._said(part) for part in _WHERE}
        elif (path := self._file()) is not None:
            said = {"file": _inode(path), "beside": beside.name if beside else None}
        else:
            said = {}
        return {part: _short(name) for part, name in said.items() if name is not None}

    def _said(self, part: str) -> str | None:
        """What PostgreSQL says; None where this one, as some that others run, keeps it to itself."""
        if part in self._untold:
            return None
        try:
            row = self._database.row(_WHERE[part], {})
        except DBAPIError as error:
            if not isinstance(error.orig, _UNTOLD):
                raise DatabaseAway from error
            self._untold.add(part)
            return None
        return None if row is None else str(row[0])

    def _file(self) -> Path | None:
        """SQLite's file, by the name that it has itself: an address may write it in many ways."""
        if self._path is None and self._database.is_sqlite:
            row = self._database.row(_FILE, {})
            self._path = Path(row.file) if row is not None and row.file else None
        return self._path

    def _landmark(self) -> Landmark | None:
        path = self._file()
        return None if path is None else landmark.read(path)


@dataclass(frozen=True, slots=True)
class _Noted:
    """What the ledger says of itself: where it lies, by part; until when it knows all; whether it was restored."""

    place: dict[str, str]
    beat_at: datetime | None
    restore: Restore | None

    def is_elsewhere(self, here: dict[str, str]) -> bool:
        """A part that only one of both knows says nothing: some processes may ask more than others."""
        return any(self.place.get(part, name) != name for part, name in here.items())

    def is_older(self, beside: Landmark | None, now: datetime) -> bool:
        """Whether the ledger that lay here before has beaten after this one."""
        at = beside.beat_at if beside else None
        return at is not None and (self.beat_at or _LONG_AGO) < at <= now + CLOCKS


def _read(rows: Iterable[Any]) -> _Noted:
    times = {row.name: row.beat_at for row in rows}
    parts = [name.split(":") for name in times]
    return _Noted(
        {each[1]: each[2] for each in parts if len(each) == 3},
        times.get(_BEAT),
        Restore(times[_AT], times[_BACKUP]) if _AT in times else None,
    )


def _find(
    connection: Connection, here: dict[str, str], beside: Landmark | None, now: datetime
) -> Restore | None:
    """Note where this ledger lies, for the first time, or elsewhere than before, or more of it; the last restore."""
    noted = _read(connection.execute(_OURS).all())
    if noted.is_elsewhere(here) or noted.is_older(beside, now):
        restore = _note(connection, here, now)
        log.error(
            "this ledger was restored, or lies elsewhere now: no fax of before is sent until its carrier was asked",
            extra={"backup_at": restore.backup_at.isoformat()},
        )
        return restore
    _insert(connection, [_row(f"{_OUR}{part}:{name}", now) for part, name in here.items()])
    return noted.restore


def _note(connection: Connection, here: dict[str, str], now: datetime) -> Restore:
    """What one that is of no place knows is older than the tags that can be asked for; and as long as a fax is in doubt
    by an earlier restore, what was lost then is not known either."""
    noted = _read(connection.execute(_OURS).all())
    last = noted.beat_at if noted.place else None
    backup_at = min(last, now) if last is not None and last <= now + CLOCKS else _LONG_AGO
    if noted.restore is not None and _is_unresolved(connection, noted.restore):
        backup_at = min(backup_at, noted.restore.backup_at)
    # The clock of who took the newest fax may be ahead of ours.
    newest = connection.scalar(_NEWEST) or now
    restore = Restore(max(now, min(newest, now + CLOCKS)), backup_at)
    _stamp(connection, here, now)
    _insert(connection, [_row(_AT, restore.at), _row(_BACKUP, restore.backup_at)])
    return restore


def _is_unresolved(connection: Connection, restore: Restore) -> bool:
    return connection.execute(_UNRESOLVED, {"at": restore.at}).first() is not None


def _stamp(connection: Connection, here: dict[str, str], now: datetime) -> None:
    """This ledger lies here now, and nothing else is known of it."""
    connection.execute(sa.delete(_BEATS).where(_IS_OURS))
    _insert(connection, [_row(f"{_OUR}{part}:{name}", now) for part, name in here.items()])


def _insert(connection: Connection, rows: list[dict[str, Any]]) -> None:
    if rows:
        insert = inserts(Heartbeat)[connection.dialect.name]
        connection.execute(insert.on_conflict_do_nothing(), rows)


def _row(name: str, at: datetime) -> dict[str, Any]:
    return {"account_id": DEFAULT_ACCOUNT, "name": name, "beat_at": at}


def _lock(connection: Connection) -> None:
    """Against those that look at the same moment; SQLite lets in one at a time."""
    if connection.dialect.name == "postgresql":
        connection.execute(_LOCK)


def _inode(path: Path) -> str | None:
    try:
        return str(path.stat().st_ino)
    except OSError:
        return None


def _short(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]


_OUR = "ledger:"
_AT, _BACKUP, _BEAT = f"{_OUR}restored", f"{_OUR}backup", f"{_OUR}beat"
"""Besides these, `ledger:`, a part of the place, `:` and its name."""
_BEATS = table(Heartbeat)
_IS_OURS = _BEATS.c.name.startswith(_OUR)
_OURS = sa.select(_BEATS.c.name, _BEATS.c.beat_at).where(_IS_OURS)
_NEWEST = sa.select(Job.created_at).order_by(Job.id.desc()).limit(1)
_IS_RELEASE = sa.and_(FaxEvent.type == Event.RELEASED.value, FaxEvent.reason == REASON)
_SINCE = FaxEvent.recorded_at >= sa.bindparam("at", type_=UtcDateTime)
_CLEARED = (
    sa.select(FaxEvent.id)
    .where(FaxEvent.job_id == sa.bindparam("job_id"), _IS_RELEASE, _SINCE)
    .limit(1)
)
_RELEASES = sa.select(FaxEvent.id).where(
    FaxEvent.job_id == sa.bindparam("job_id"), _IS_RELEASE, FaxEvent.source == "person"
)
_UNRESOLVED = (
    sa.select(Job.id)
    .where(
        sa.text(IS_OPEN),
        Job.created_at <= sa.bindparam("at", type_=UtcDateTime),
        ~sa.exists().where(FaxEvent.job_id == Job.id, _IS_RELEASE, _SINCE),
    )
    .limit(1)
)
_LOCK = sa.text("LOCK TABLE heartbeats IN SHARE ROW EXCLUSIVE MODE")
_FILE = sa.text("SELECT file FROM pragma_database_list WHERE name = 'main'")
_WHERE = {
    "table": sa.text(
        "SELECT oid::text || ' ' || 'jobs'::regclass::oid FROM pg_database WHERE datname = current_database()"
    ),
    "cluster": sa.text("SELECT system_identifier FROM pg_control_system()"),
    # Another one since a standby was promoted, and where a base backup was rolled forward.
    "timeline": sa.text("SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)"),
}
_UNTOLD = (InsufficientPrivilege, UndefinedFunction, FeatureNotSupported)
