"""What retention removes, class by class and batch by batch, and what is left of a fax meanwhile.

Each batch is locked, removed and counted in one transaction (Ledger): what was not all removed is not
removed at all. Bytes lie where no transaction reaches: their rows say that they go, then the bytes go, then the rows,
so that whoever dies in between leaves what the next one finds. A legal hold is a column of the row that is locked.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from faxbot import artifacts, fetching, results
from faxbot.db import among, first_id, made_at, planned_anew, table
from faxbot.errors import FaxbotError
from faxbot.events import TERMINAL, Reception
from faxbot.jobs import KEY_LIFE, answer_place
from faxbot.models import (
    HAS_COPY,
    HAS_ENDED,
    Artifact,
    Attempt,
    Callback,
    Decision,
    FaxEvent,
    IdempotencyKey,
    InboundFax,
    Job,
    Lane,
    LegalHold,
    ProvenStep,
    WebhookDelivery,
    WebhookTry,
)
from faxbot.runtime import Runtime

GONE = b""
"""In the place of what was sealed."""
DOCUMENT, NUMBERS = "document", "numbers"
"""What a FAX_PURGED is about, as its reason."""

_JOBS, _FILES, _INBOUND = table(Job), table(Artifact), table(InboundFax)
_ATTEMPTS, _EVENTS, _KEYS = table(Attempt), table(FaxEvent), table(IdempotencyKey)
_CALLBACKS, _DELIVERIES, _HOLDS = table(Callback), table(WebhookDelivery), table(LegalHold)
_FINAL = [status.value for status in TERMINAL]
_HAD = [Reception.RECEIVED.value, Reception.FAILED.value]
Rows = Sequence[sa.Row[Any]]
_Place = tuple[str, str]
"""A storage's id, and the folder of a day in it, or "" for the whole of it."""
Conditions = Sequence[sa.ColumnElement[bool]]

log = logging.getLogger(__name__)


class Mismatch(FaxbotError):
    """Not all that was found could be removed: nothing of this batch was."""

    code = "retention-mismatch"

    def __init__(self, expected: int, deleted: int) -> None:
        super().__init__("what was found and what was removed differ")
        self.expected, self.deleted = expected, deleted


class Ledger(Protocol):
    """Where a run is written down."""

    def hold(self, connection: Connection, /) -> None:
        """Have the run to oneself till the transaction ends, and its lease prolonged; the first thing that is done in
        it. Raises LeaseLost when another process works on the run."""

    def prove(
        self, connection: Connection, expected: int, deleted: int, last: Sequence[Any], /
    ) -> None:
        """Count a batch in its own transaction, and note where the next one goes on."""


LEASE = 3
"""For so many times as long as a fax's a run's lease is good; for half of it storages are asked after it was prolonged:
who stood still for longer removes nothing any more that the next one may have promised to keep."""
IN_A_ROW = 3
"""So many refusals of a storage in a row, and it is away: it is not asked any more in this run."""
AT_ONCE = 8
"""By so many threads storages are asked. Even for files of this machine they take half of the time (measured: 112 to
146 us each by one thread, 52 to 67 by four, 39 to 46 by eight)."""


@dataclass(slots=True)
class Work:
    """One class of one run: all that ended before `cutoff`."""

    runtime: Runtime
    cutoff: datetime
    ledger: Ledger
    cursor: Sequence[Any] = ()
    """The last that was looked at."""
    limit: int = 500
    until: float = math.inf
    """By the monotonic clock: when others are to have their turn."""
    away: set[_Place] = field(default_factory=set)
    """What refused IN_A_ROW, storages or days in one: it is not asked any more."""
    rehearsed: Mapping[str, datetime] = field(default_factory=dict)
    """The cutoffs of all classes where nothing is removed: what a run would have removed before is there still."""
    held: float = 0.0
    """For how many seconds the last batch held its locks: of one with bytes the longer time of two."""
    asks_until: float = field(init=False, default=-math.inf)
    """By the monotonic clock: whose lease is nearly over asks no storage to remove anything."""
    now: datetime = field(init=False)

    def __post_init__(self) -> None:
        self.now = self.runtime.now()

    @contextmanager
    def locking(self) -> Iterator[Connection]:
        """A transaction of a batch, which has the run to itself."""
        with self.runtime.database.writing() as connection, planned_anew(connection):
            since = time.monotonic()
            self.ledger.hold(connection)
            self.asks_until = since + LEASE / 2 * self.runtime.config.lease_seconds
            yield connection
            self.held = max(self.held, time.monotonic() - since)


@dataclass(frozen=True, slots=True)
class Step:
    """Rows of one kind: which go, in the order of `order`, and how they are removed; `remove` gives how many it has
    removed."""

    order: tuple[sa.Column[Any], ...]
    which: Callable[[Work], Conditions]
    remove: Callable[[Connection, Work, Rows], int]
    holds: sa.Table
    """Whose rows are locked."""
    columns: tuple[sa.Column[Any], ...] = ()
    """What else `remove` looks at."""
    joined: sa.FromClause | None = None

    def _query(self, which: Conditions, *columns: sa.Column[Any]) -> sa.Select[Any]:
        query = sa.select(*self.order, *columns).where(*which)
        if self.joined is not None:
            query = query.select_from(self.joined)
        return query.order_by(*self.order)

    def query(self, work: Work, limit: int) -> sa.Select[Any]:
        """The next that go, behind the cursor."""
        return self._next(self._query(self.which(work)), work, limit)

    def _next(self, query: sa.Select[Any], work: Work, limit: int) -> sa.Select[Any]:
        if work.cursor:
            query = query.where(sa.tuple_(*self.order) > self._place("after", work.cursor))
        return query.limit(limit)

    def _place(self, name: str, values: Sequence[Any]) -> sa.Tuple:
        """A row's place in the order."""
        named = enumerate(zip(self.order, values, strict=True))
        return sa.tuple_(*(sa.bindparam(f"{name}_{n}", v, type_=c.type) for n, (c, v) in named))

    def last(self, rows: Rows) -> list[Any]:
        return list(rows[-1][: len(self.order)])

    def batch(self, work: Work) -> int:
        """Remove up to `work.limit` rows; how many were found. Raises Mismatch, LeaseLost, DatabaseAway."""
        work.held = 0.0
        found = work.runtime.database.rows(self.query(work, work.limit), {})
        if not found:
            return 0
        last = self.last(found)
        with work.locking() as connection:
            rows = self.locked(connection, self.which(work), found)
            deleted = self._removed(connection, work, rows)
            work.ledger.prove(connection, len(rows), deleted, last)
        work.cursor = last
        return len(found)

    def _removed(self, connection: Connection, work: Work, rows: Rows) -> int:
        """Remove these; how many that was. Raises Mismatch."""
        deleted = self.remove(connection, work, rows) if rows else 0
        if deleted != len(rows):
            raise Mismatch(len(rows), deleted)
        return deleted

    def settle(self, _work: Work) -> int:
        """As BytesStep.settle(): nothing is left half removed where no bytes are."""
        return 0

    def spare(self, _work: Work) -> int:
        """As BytesStep.spare(), likewise."""
        return 0

    def locked(self, connection: Connection, which: Conditions, found: Rows) -> Rows:
        """Those that still are such, under their locks; who is looked for without one keeps nobody waiting."""
        # Both ends say where to look: by the ids alone a planner that knows the table as it was some thousands of rows
        # ago reads all that is old for each batch (measured: half of the time at 60,000 faxes).
        place = sa.tuple_(*self.order)
        query = self._query(which, *self.columns).where(
            _named(connection, self.order[0].table, found),
            place >= self._place("first", self.last(found[:1])),
            place <= self._place("last", self.last(found)),
        )
        locking = query.with_for_update(of=self.holds, skip_locked=True)
        return connection.execute(locking).all()

    def count(self, work: Work, most: int) -> Iterator[int]:
        """How many rows it would be, by and by."""
        while rows := work.runtime.database.rows(self.query(work, most), {}):
            yield len(rows)
            work.cursor = self.last(rows)


def _named(connection: Connection, of: sa.FromClause, rows: Rows) -> sa.ColumnElement[bool]:
    """Whether a row is one of these, by its primary key."""
    key = [of.c[each.name] for each in of.primary_key]
    if len(key) == 1:
        return among(connection, key[0], [getattr(row, key[0].name) for row in rows])
    these = [tuple(getattr(row, column.name) for column in key) for row in rows]
    return sa.tuple_(*key).in_(these)


@dataclass(frozen=True, slots=True)
class BytesStep(Step):
    """Stored bytes and the rows that name them."""

    its: Conditions = ()
    """Which of the joined rows are of this step at all."""

    def batch(self, work: Work) -> int:
        """As Step.batch(). What a storage does not remove stays, and is counted as found and not gone."""
        work.held = 0.0
        found = work.runtime.database.rows(self.query(work, work.limit), {})
        if not found:
            return 0
        with work.locking() as connection:
            rows = self.locked(connection, self.which(work), found)
            _mark(connection, rows, work.now)
        # Nothing is open meanwhile.
        try:
            gone, left, later = self._discard(work, rows)
        except BaseException:
            self._spare(work, rows)
            raise
        last = self.last(later) if later else self.last(found)
        with work.locking() as connection:
            deleted = self._removed(connection, work, gone)
            removed = {row.id for row in gone}
            _mark(connection, [row for row in rows if row.id not in removed], None)
            work.ledger.prove(connection, deleted + len(left), deleted, last)
        work.cursor = last
        return len(found)

    def settle(self, work: Work) -> int:
        """Look at the next that are said to go and were not found as such: who said so died, and they are to be kept by
        now, or he could not go on. A row goes, and is counted, whose bytes he had removed; of all others it is said
        that they stay, also where the storage cannot tell. How many were looked at, as long as there was time. Raises
        as batch(); nobody else works on the run, so nobody's bytes are on their way."""
        work.held = 0.0
        said, found = self._said(work)
        if not found:
            return 0
        with work.locking():
            pass  # its lease is good for as long as storages are asked
        found, gone = _looked_for(work, found)
        last = self.last(found)
        with work.locking() as connection:
            _mark(connection, [row for row in found if row.id not in gone], None)
            these = [row for row in found if row.id in gone]
            rows = self.locked(connection, said, these) if these else ()
            deleted = self._removed(connection, work, rows)
            work.ledger.prove(connection, deleted, deleted, last)
        work.cursor = last
        return len(found)

    def _removed(self, connection: Connection, work: Work, rows: Rows) -> int:
        """As Step._removed(). Nobody had their locks since they were found: a row that somebody else has removed by now
        who did not need it any more (artifacts.forget) is none that was found."""
        deleted = self.remove(connection, work, rows) if rows else 0
        if deleted != len(rows):
            left = sa.select(_FILES.c.id).where(
                among(connection, _FILES.c.id, [r.id for r in rows])
            )
            if connection.execute(left.limit(1)).first() is not None:
                raise Mismatch(len(rows), deleted)
        return deleted

    def spare(self, work: Work) -> int:
        """Say of the next that are said to go that they stay, whatever has become of their bytes: the next run
        removes what is gone. How many were found; raises as batch()."""
        work.held = 0.0
        _, found = self._said(work)
        if not found:
            return 0
        with work.locking() as connection:
            _mark(connection, found, None)
        work.cursor = self.last(found)
        return len(found)

    def _said(self, work: Work) -> tuple[Conditions, Rows]:
        """Which rows of this step are said to go, and the next of them."""
        said = (*self.its, _FILES.c.deleted_at.is_not(None))
        query = self._next(self._query(said, *self.columns), work, work.limit)
        return said, work.runtime.database.rows(query, {})

    def _spare(self, work: Work, rows: Rows) -> None:
        """Who was stopped in the middle says so of all: what is gone already is removed by the next run."""
        with suppress(FaxbotError), work.locking() as connection:
            _mark(connection, rows, None)

    def _discard(self, work: Work, rows: Rows) -> tuple[Rows, Rows, Rows]:
        """Have bytes removed as long as there is time: those that are gone, those that are not, and, where the time was
        over, all that were looked at."""
        asking = _Asking(work, rows)
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="purge") as pool:
            try:
                for each in [pool.submit(asking.discard) for _ in range(min(AT_ONCE, len(rows)))]:
                    each.result()
            finally:
                asking.stop()
        looked_at = rows[: asking.taken]
        gone = [row for row in looked_at if row.id in asking.gone]
        left = [row for row in looked_at if row.id not in asking.gone]
        return gone, left, looked_at if len(looked_at) < len(rows) else ()


class _Asking:
    """Several threads ask storages to remove bytes, in order. One that refuses IN_A_ROW, whichever thread asked, is
    away (_place), and is asked by nobody any more: one that hangs is asked once by each."""

    def __init__(self, work: Work, rows: Rows) -> None:
        self._work, self._rows = work, rows
        self._refusals = Counter[_Place]()
        self._lock = threading.Lock()
        self.taken = 0
        """So many of the rows are looked at, the first ones."""
        self.gone = set[str]()
        """The ids of those whose bytes are gone; it is logged which are not."""

    def stop(self) -> None:
        """Have nothing more removed but what is on its way."""
        with self._lock:
            self._rows = ()

    def discard(self) -> None:
        """What each thread does: the next, as long as there are any, and time; one at least."""
        while (row := self._next()) is not None:
            if self._discarded(row):
                self.gone.add(row.id)

    def _next(self) -> sa.Row[Any] | None:
        with self._lock:
            is_over = self.taken and time.monotonic() >= self._work.until
            if is_over or self.taken >= len(self._rows):
                return None
            self.taken += 1
            return self._rows[self.taken - 1]

    def _discarded(self, row: sa.Row[Any]) -> bool:
        work = self._work
        if _is_away(work, row) or time.monotonic() >= work.asks_until:
            return False
        is_gone = artifacts.discard(work.runtime, [row._asdict()], were_settled=True)
        place = None if is_gone else _place(work, row)
        with self._lock:
            if place is None:
                for each in _places(row) if self._refusals else ():
                    self._refusals.pop(each, None)
                return True
            self._refusals[place] += 1
            if self._refusals[place] >= IN_A_ROW:
                work.away.add(place)
        return False


def _places(row: sa.Row[Any]) -> tuple[_Place, _Place]:
    """Its storage, and in that the folder of its day."""
    return (row.storage_id, ""), (row.storage_id, row.key.rpartition("/")[0])


def _place(work: Work, row: sa.Row[Any]) -> _Place:
    """What is away where its bytes could not be asked for: of a storage that has files of this machine the folder of a
    day, which may be missing alone."""
    whole, day = _places(row)
    return day if artifacts.lies_here(work.runtime, row.storage_id, row.key) else whole


def _is_away(work: Work, row: sa.Row[Any]) -> bool:
    return bool(work.away) and not work.away.isdisjoint(_places(row))


def _looked_for(work: Work, rows: Rows) -> tuple[Rows, set[str]]:
    """Look for the bytes of these as long as there is time, of one at least: those that were looked for, and the ids of
    those whose bytes are gone. It takes no time to say of a storage that is away that it cannot tell."""
    gone = set[str]()
    until = min(work.until, work.asks_until)
    for number, row in enumerate(rows):
        if number and not _is_away(work, row) and time.monotonic() >= until:
            return rows[:number], gone
        if _are_gone(work, row):
            gone.add(row.id)
    return rows, gone


def _are_gone(work: Work, row: sa.Row[Any]) -> bool:
    """Whether its bytes are surely not there. A storage that cannot tell is not asked again in this run."""
    if _is_away(work, row):
        return False
    try:
        return artifacts.are_gone(work.runtime, row._asdict())
    except Exception as error:  # noqa: BLE001 - a store's client raises anything
        work.away.add(_place(work, row))
        log.warning("stored bytes not looked for", extra={"exception": type(error).__name__})
        return False


def _mark(connection: Connection, rows: Rows, at: datetime | None) -> None:
    """Say of these since when their bytes go; None: they stay."""
    if rows:
        its = among(connection, _FILES.c.id, [row.id for row in rows])
        connection.execute(sa.update(_FILES).where(its).values(deleted_at=at))


def _delete(connection: Connection, column: sa.Column[Any], ids: Sequence[str]) -> int:
    these = among(connection, column, ids)
    return connection.execute(sa.delete(column.table).where(these)).rowcount


def _before(work: Work, column: sa.Column[Any]) -> sa.ColumnElement[bool]:
    """Of rows whose ids say when they were made."""
    return column < first_id(work.cutoff)


def _without_bytes(work: Work, its: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """No bytes are left of who is looked for by this class, whose step before this one has removed the old ones."""
    young = (~_before(work, _FILES.c.id),) if work.rehearsed else ()
    return ~sa.exists().where(its, *young)


# Sent faxes -----------------------------------------------------------------------------------------

_FREE = _JOBS.c.legal_hold_at.is_(None)
_BYTES = (_FILES.c.storage_id, _FILES.c.key, _FILES.c.data_key_sealed)


def _of_ended(role: str) -> Callable[[Work], Conditions]:
    def which(work: Work) -> Conditions:
        return (
            _before(work, _FILES.c.id),
            _FILES.c.role == role,
            _JOBS.c.status.in_(_FINAL),
            _JOBS.c.updated_at < work.cutoff,
            _FREE,
        )

    return which


_FILES_OF_JOBS = _FILES.join(_JOBS, _FILES.c.job_id == _JOBS.c.id)


def _forget_documents(connection: Connection, work: Work, rows: Rows) -> int:
    """With the last document of a fax: FAX_PURGED, and the carrier's copies go as well."""
    deleted = _delete(connection, _FILES.c.id, [row.id for row in rows])
    faxes = {row.job_id for row in rows}
    more = sa.select(_FILES.c.job_id).where(
        among(connection, _FILES.c.job_id, sorted(faxes)), _FILES.c.role == "document"
    )
    purged = sorted(faxes.difference(connection.scalars(more)))
    results.purge(connection, _JOBS, purged, DOCUMENT, now=work.now)
    _forget_copies(connection, work, _ATTEMPTS.c.job_id, purged)
    return deleted


def _forget_copies(
    connection: Connection, work: Work, column: sa.Column[Any], ids: Sequence[str]
) -> None:
    """Have carriers that can asked to delete their copies of these faxes' documents (copies); `column` holds the ids,
    in the table where that is said."""
    if ids:
        wanted = (
            sa.update(column.table)
            .where(among(connection, column, ids), *_with_copy(work, column.table))
            .values(delete_copy_at=work.now, copy_wanted_at=work.now)
        )
        connection.execute(wanted)


def _with_copy(work: Work, of: sa.FromClause) -> Conditions:
    """Attempts, or received faxes, of which a carrier may have a copy that it can delete."""
    able = [each.id for each in work.runtime.plugins.manifests() if each.has("deletes_copy")]
    return (
        of.c.provider_id.in_(able),
        of.c.external_id.is_not(None),
        of.c.copy_deleted_at.is_(None),
    )


def _forget_files(connection: Connection, _work: Work, rows: Rows) -> int:
    return _delete(connection, _FILES.c.id, [row.id for row in rows])


def _ended_numbers(work: Work) -> Conditions:
    return (sa.text(HAS_ENDED), _JOBS.c.updated_at < work.cutoff, _FREE)  # type: ignore[return-value]


def _forget_numbers(connection: Connection, work: Work, rows: Rows) -> int:
    """Numbers, the header, what people wrote, and the first answer to an Idempotency-Key, which shows the number."""
    ids = [row.id for row in rows]
    emptied = {"to_sealed": GONE, "to_key": "", "header_sealed": None, "purged_at": work.now}
    purged = results.purge(connection, _JOBS, ids, NUMBERS, now=work.now, removed=emptied)
    said = table(Decision)
    connection.execute(
        sa.update(said).where(among(connection, said.c.job_id, ids)).values(reason_sealed=GONE)
    )
    _forget_reasons(connection, ids)
    _forget_answers(connection, work, rows)
    return purged


def _forget_reasons(connection: Connection, ids: Sequence[str]) -> None:
    """Of legal holds, which were all lifted."""
    of_these = sa.update(_HOLDS).where(among(connection, _HOLDS.c.fax_id, ids))
    connection.execute(of_these.values(reason_sealed=GONE))


def _keys_of(connection: Connection, ids: Sequence[str]) -> list[sa.ColumnElement[bool]]:
    """The keys of these faxes, by the index over their ends: both were made at the same moment (jobs.submit). One
    look for all that were made within some minutes."""
    pieces: list[list[str]] = []
    before = None
    for each in sorted(ids):
        at = made_at(each)
        if before is None or at - before >= _TOGETHER:
            pieces.append([])
        pieces[-1].append(each)
        before = at
    return [
        sa.and_(
            _KEYS.c.expires_at.between(
                made_at(piece[0]) + KEY_LIFE, made_at(piece[-1]) + KEY_LIFE + _MILLISECOND
            ),
            among(connection, _KEYS.c.job_id, piece),
        )
        for piece in pieces
    ]


_TOGETHER, _MILLISECOND = timedelta(minutes=10), timedelta(milliseconds=1)


def _forget_answers(connection: Connection, work: Work, rows: Rows) -> None:
    """Nothing is sealed in the place of the first answer: a row without any would not be found by who brings a new
    master key into use, and its key would be forgotten with the old one."""
    keyring = work.runtime.keyring.still()
    for account_id in sorted({row.account_id for row in rows}):
        nothing = keyring.seal(GONE, answer_place(account_id))
        ids = [row.id for row in rows if row.account_id == account_id]
        for these in _locked_keys_of(connection, ids):
            # A fax's key is of the fax's account; asked for it, SQLite reads all keys of the account for each batch.
            connection.execute(sa.update(_KEYS).where(these).values(response_sealed=nothing))


def _locked_keys_of(connection: Connection, ids: Sequence[str]) -> Iterator[sa.ColumnElement[bool]]:
    """_keys_of(), locked in the order in which others lock some of them as well (resealing)."""
    for these in _keys_of(connection, ids):
        order = sa.select(_KEYS.c.key_hash).where(these).order_by(*_KEYS.primary_key.columns)
        connection.execute(order.with_for_update())
        yield these


def _ended_trails(work: Work) -> Conditions:
    return (
        _JOBS.c.purged_at.is_not(None),
        _JOBS.c.purged_at < work.cutoff,
        _JOBS.c.updated_at < work.cutoff,
        _FREE,
        *(_as_if_gone(work) if work.rehearsed else (~sa.exists().where(_OF_JOB),)),
        ~sa.exists().where(_ATTEMPTS.c.job_id == _JOBS.c.id, sa.text(HAS_COPY)),
    )


_OF_JOB = _FILES.c.job_id == _JOBS.c.id


def _as_if_gone(work: Work) -> Conditions:
    """That a run would have removed all bytes of a fax before, and no carrier would be asked then for its copy."""
    gone = [
        sa.and_(_FILES.c.role == role, _FILES.c.id < first_id(cutoff), _JOBS.c.updated_at < cutoff)
        for role, cutoff in (
            ("document", work.rehearsed["document"]),
            ("pages", work.rehearsed["renditions"]),
        )
    ]
    return (
        ~sa.exists().where(_OF_JOB, ~sa.or_(*gone)),
        ~sa.and_(
            sa.exists().where(_OF_JOB, _FILES.c.role == "document"),
            sa.exists().where(_ATTEMPTS.c.job_id == _JOBS.c.id, *_with_copy(work, _ATTEMPTS)),
        ),
    )


def _forget_trails(connection: Connection, work: Work, rows: Rows) -> int:
    """The fax itself, and with it its events, attempts, decisions and tags (ON DELETE CASCADE: each row of it is looked
    for there anyway); a key that is good still stays."""
    ids = [row.id for row in rows]
    _delete(connection, _HOLDS.c.fax_id, ids)
    deleted = _delete(connection, _JOBS.c.id, ids)
    over = min(work.now, _keys_until(work))
    for these in _locked_keys_of(connection, ids):
        connection.execute(sa.delete(_KEYS).where(these, _KEYS.c.expires_at < over))
    return deleted


def _keys_until(work: Work) -> datetime:
    """Keys that expired before then are not kept; none where they are kept for ever."""
    days = work.runtime.config.keys_days
    return work.now - timedelta(days=days) + KEY_LIFE if days else made_at("0" * 12)


def _over_keys(work: Work) -> Conditions:
    until = min(work.now, work.cutoff + KEY_LIFE)
    return (_KEYS.c.expires_at < until, ~sa.exists().where(_JOBS.c.id == _KEYS.c.job_id))


def _forget_keys(connection: Connection, _work: Work, rows: Rows) -> int:
    these = [(row.account_id, row.route, row.key_hash) for row in rows]
    key = sa.tuple_(_KEYS.c.account_id, _KEYS.c.route, _KEYS.c.key_hash)
    return connection.execute(sa.delete(_KEYS).where(key.in_(these))).rowcount


def _by_key(of: sa.Table) -> Callable[[Connection, Work, Rows], int]:
    """Delete rows found by the columns of their primary key."""
    key = list(of.primary_key.columns)

    def remove(connection: Connection, _work: Work, rows: Rows) -> int:
        these = [tuple(row) for row in rows]
        return connection.execute(sa.delete(of).where(sa.tuple_(*key).in_(these))).rowcount

    return remove


_STEPS, _LANES = table(ProvenStep), table(Lane)

# Received faxes -------------------------------------------------------------------------------------

_KEPT_FREE = _INBOUND.c.legal_hold_at.is_(None)


def _is_had(work: Work) -> Conditions:
    """Received faxes at which nobody works: of what a plugin cannot let go of, the documents here go all the same."""
    long_ago = first_id(work.now - fetching.LET_GO)
    let_go = sa.and_(_INBOUND.c.status == Reception.RECEIVED.value, _INBOUND.c.id < long_ago)
    return (_INBOUND.c.status.in_(_HAD), sa.or_(_INBOUND.c.next_at.is_(None), let_go), _KEPT_FREE)


def _of_received(work: Work) -> Conditions:
    return (_before(work, _FILES.c.id), *_is_had(work))


def _ended_receptions(work: Work) -> Conditions:
    return (
        _before(work, _INBOUND.c.id),
        _INBOUND.c.purged_at.is_(None),
        *_is_had(work),
        # Of one whose document nobody has, people want to know whose it was.
        sa.or_(_INBOUND.c.status == Reception.RECEIVED.value, _INBOUND.c.updated_at < work.cutoff),
        # What came with it may be its document, or lie where its plugin finds it some day, and there is no other: until
        # a person gives it up.
        sa.or_(
            _INBOUND.c.cause.is_distinct_from(fetching.NO_DOCUMENT),
            sa.and_(
                _INBOUND.c.callback_id.is_(None),
                _INBOUND.c.provider_id.in_(_providers(work, keep=False)),
            ),
            _INBOUND.c.read_at.is_not(None),
        ),
        _without_bytes(work, _FILES.c.inbound_id == _INBOUND.c.id),
    )


def _providers(work: Work, *, keep: bool) -> list[str]:
    """Those that keep documents of received faxes on this machine, or those that do not."""
    manifests = work.runtime.plugins.manifests()
    return [each.id for each in manifests if each.has("keeps_documents") is keep]


def _forget_received_numbers(connection: Connection, work: Work, rows: Rows) -> int:
    """Its documents are gone by now: the carrier's copy goes as well, and what lies with a plugin of one that was given
    up (fetching)."""
    ids = [row.id for row in rows]
    emptied = {
        "numbers_sealed": GONE,
        "from_key": None,
        "to_key": None,
        "sha256": None,
        "purged_at": work.now,
    }
    purged = results.purge(connection, _INBOUND, ids, DOCUMENT, now=work.now, removed=emptied)
    _forget_copies(connection, work, _INBOUND.c.id, ids)
    let_go = sa.update(_INBOUND).where(
        among(connection, _INBOUND.c.id, ids),
        _INBOUND.c.cause == fetching.NO_DOCUMENT,
        _INBOUND.c.provider_id.in_(_providers(work, keep=True)),
    )
    connection.execute(let_go.values(next_at=work.now, tries=0))
    _forget_reasons(connection, ids)
    return purged


def _ended_reception_trails(work: Work) -> Conditions:
    return (
        _INBOUND.c.purged_at < work.cutoff,
        _INBOUND.c.status.in_(_HAD),
        _INBOUND.c.next_at.is_(None),
        _INBOUND.c.delete_copy_at.is_(None),
        _KEPT_FREE,
        ~sa.exists().where(_FILES.c.inbound_id == _INBOUND.c.id),
    )


def _forget_reception_trails(connection: Connection, _work: Work, rows: Rows) -> int:
    ids = [row.id for row in rows]
    _delete(connection, _EVENTS.c.inbound_id, ids)
    _delete(connection, _HOLDS.c.fax_id, ids)
    return _delete(connection, _INBOUND.c.id, ids)


# Carriers' messages, and webhooks -------------------------------------------------------------------


def _needed(work: Work) -> sa.ColumnElement[bool]:
    # What nobody could read may be read by a person, or be tried once more.
    lost = [_INBOUND.c.status == Reception.FAILED.value, _INBOUND.c.purged_at.is_(None)]
    if "inbound" in work.rehearsed:
        lost.append(~sa.and_(*_ended_receptions(replace(work, cutoff=work.rehearsed["inbound"]))))
    return sa.exists().where(
        _INBOUND.c.callback_id == _CALLBACKS.c.id,
        sa.or_(
            _INBOUND.c.status == Reception.FETCHING.value,
            sa.and_(*lost),
            _INBOUND.c.legal_hold_at.is_not(None),
        ),
    )


def _over_callbacks(work: Work) -> Conditions:
    # What could not be read is tried as long as it is kept (callbacks), and kept no longer for that.
    is_over = sa.or_(_CALLBACKS.c.applied_at.is_not(None), _CALLBACKS.c.outcome == "unreadable")
    return (_before(work, _CALLBACKS.c.id), is_over, ~_needed(work))


def _bodies(work: Work) -> Conditions:
    return (_before(work, _FILES.c.id), *_over_callbacks(work))


def _callbacks_without_body(work: Work) -> Conditions:
    return (*_over_callbacks(work), _without_bytes(work, _FILES.c.callback_id == _CALLBACKS.c.id))


_OF_HELD = sa.or_(
    *(
        sa.exists().where(faxes.c.id == _DELIVERIES.c.fax_id, faxes.c.legal_hold_at.is_not(None))
        for faxes in (_JOBS, _INBOUND)
    )
)


def _forget_deliveries(connection: Connection, _work: Work, rows: Rows) -> int:
    ids = [row.id for row in rows]
    _delete(connection, table(WebhookTry).c.delivery_id, ids)
    return _delete(connection, _DELIVERIES.c.id, ids)


# All classes ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Class:
    """What is kept for one time: the field of Config that says how many days (0: for ever), and what must go before it
    (`behind`): where that is kept for ever, so is this."""

    days: str
    steps: tuple[Step, ...]
    behind: tuple[str, ...] = ()


def _of_fax(step: tuple[sa.Column[Any], ...], *, role: str) -> BytesStep:
    return BytesStep(
        step,
        _of_ended(role),
        _forget_documents if role == "document" else _forget_files,
        _JOBS,
        (*_BYTES, _FILES.c.job_id),
        _FILES_OF_JOBS,
        (_FILES.c.role == role,),
    )


CLASSES: Mapping[str, Class] = {
    "document": Class("artifact_ttl_days", (_of_fax((_FILES.c.id,), role="document"),)),
    "renditions": Class("renditions_days", (_of_fax((_FILES.c.id,), role="pages"),)),
    "numbers": Class(
        "numbers_days",
        (
            Step(
                (_JOBS.c.updated_at, _JOBS.c.id),
                _ended_numbers,
                _forget_numbers,
                _JOBS,
                (_JOBS.c.account_id,),
            ),
            Step(
                tuple(_STEPS.primary_key.columns),
                lambda work: (_STEPS.c.updated_at < work.cutoff,),
                _by_key(_STEPS),
                _STEPS,
            ),
            Step(
                tuple(_LANES.primary_key.columns),
                lambda work: (_LANES.c.held_until < work.cutoff, ~_LANES.c.wanted),
                _by_key(_LANES),
                _LANES,
            ),
        ),
    ),
    "inbound": Class(
        "inbound_days",
        (
            BytesStep(
                (_FILES.c.id,),
                _of_received,
                _forget_files,
                _INBOUND,
                _BYTES,
                _FILES.join(_INBOUND, _FILES.c.inbound_id == _INBOUND.c.id),
            ),
            Step((_INBOUND.c.id,), _ended_receptions, _forget_received_numbers, _INBOUND),
        ),
    ),
    "callbacks": Class(
        "callbacks_days",
        (
            BytesStep(
                (_FILES.c.id,),
                _bodies,
                _forget_files,
                _CALLBACKS,
                _BYTES,
                _FILES.join(_CALLBACKS, _FILES.c.callback_id == _CALLBACKS.c.id),
            ),
            Step((_CALLBACKS.c.id,), _callbacks_without_body, _by_key(_CALLBACKS), _CALLBACKS),
        ),
    ),
    "webhooks": Class(
        "webhooks_days",
        (
            Step(
                (_DELIVERIES.c.ended_at, _DELIVERIES.c.id),
                lambda work: (_DELIVERIES.c.ended_at < work.cutoff, ~_OF_HELD),
                _forget_deliveries,
                _DELIVERIES,
            ),
        ),
    ),
    "events": Class(
        "events_days",
        (
            Step((_JOBS.c.purged_at, _JOBS.c.id), _ended_trails, _forget_trails, _JOBS),
            Step((_INBOUND.c.id,), _ended_reception_trails, _forget_reception_trails, _INBOUND),
        ),
        behind=("document", "renditions", "numbers"),
    ),
    "keys": Class(
        "keys_days",
        (Step((_KEYS.c.expires_at, *_KEYS.primary_key.columns), _over_keys, _forget_keys, _KEYS),),
    ),
}
"""In the order in which they are worked on: what belongs to a fax goes before the fax."""
