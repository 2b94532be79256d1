"""How a row of the audit trail is written: with a proof that faxbot wrote it, by who holds the data key `audit`.

That key is random, made with the first row, and kept sealed under the keyring: who can write to the database and has no
master key can neither forge a row nor link the rows anew, and a new master key seals this one key again and no row.
Notes keeps what is written down of reads, which have no transaction of their own.
"""

from __future__ import annotations

import hmac
import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from faxbot.crypto import Keyring, Unsealable
from faxbot.db import Database, inserts, table, utcnow
from faxbot.errors import ConfigError, DatabaseAway, FaxbotError, KeyMissing
from faxbot.events import DEFAULT_ACCOUNT
from faxbot.masterkeys import place
from faxbot.models import AuditEvent, DataKey

log = logging.getLogger(__name__)

KEY_NAME = "audit"
FIELDS = (
    "account_id", "happened_at", "actor_kind", "actor", "action", "object_kind", "object_id", "outcome", "request_id",
    "address", "details",
)  # fmt: skip
"""What a proof is about: all of a row but its id, which the database chooses."""
_OPTION = "faxbot_trail"
Row = dict[str, Any]


class Trail:
    """The data keys of a database's audit trails; safe to share between threads."""

    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._database, self._keyring = database, keyring
        self._keys: dict[str, tuple[object, bytes]] = {}
        """By account, with the master keys that were at work then: one that is lost takes this one along."""

    def key(self, connection: Connection, account_id: str) -> bytes:
        """The account's key, made in the transaction of `connection` where there is none yet; raises ConfigError where
        it does not open."""
        key = self.known(account_id)
        return key if key is not None else self._make(connection, account_id)

    def known(self, account_id: str) -> bytes | None:
        """The key that is committed, None before the first row; raises ConfigError, KeyMissing, DatabaseAway."""
        at_work = self._keyring.at_work
        read_at, key = self._keys.get(account_id, (None, b""))
        if read_at != at_work:
            # Not over the connection of a transaction: it may have made a key that is taken back.
            row = self._database.row(_KEY, {"account_id": account_id})
            if row is None:
                return None
            key = self._opened(row.key_sealed, account_id)
            self._keys[account_id] = at_work, key
        return key

    def _make(self, connection: Connection, account_id: str) -> bytes:
        sealed = self._keyring.seal(secrets.token_bytes(32), place(account_id, KEY_NAME))
        row = {"account_id": account_id, "name": KEY_NAME, "key_sealed": sealed}
        make = inserts(DataKey)[connection.dialect.name].on_conflict_do_nothing()
        connection.execute(make, {**row, "created_at": utcnow()})
        found = connection.execute(_KEY, {"account_id": account_id}).one()
        return self._opened(found.key_sealed, account_id)

    def _opened(self, sealed: bytes, account_id: str) -> bytes:
        try:
            return self._keyring.open(sealed, place(account_id, KEY_NAME))
        except Unsealable:
            raise ConfigError(
                "the key of the audit trail does not open: CONFIG_MASTER_KEY is not the key it was sealed with"
            ) from None


_KEY = sa.select(DataKey.key_sealed).where(
    DataKey.account_id == sa.bindparam("account_id"), DataKey.name == KEY_NAME
)


def attach(database: Database, keyring: Keyring) -> None:
    """Have everybody who works with this database write rows with their proof."""
    trail = Trail(database, keyring)
    for engine in (database.engine, database.reader):
        engine.update_execution_options(**{_OPTION: trail})


def of(database: Database) -> Trail:
    """The one that was attached; raises LookupError."""
    trail: Trail = database.engine.get_execution_options()[_OPTION]
    return trail


def append(held: Session | Connection, *rows: Row) -> None:
    """Append rows (FIELDS) in the caller's transaction."""
    connection = held.connection() if isinstance(held, Session) else held
    trail: Trail = connection.get_execution_options()[_OPTION]
    connection.execute(_APPEND, [_proven(trail, connection, row) for row in rows])


_APPEND = sa.insert(table(AuditEvent)).inline()


def _proven(trail: Trail, connection: Connection, row: Row) -> Row:
    row = {**row, "details": json.loads(json.dumps(row["details"]))}
    for name in ("actor", "object_id", "address", "request_id"):
        row[name] = row[name] and row[name][:64]
    row["proof"] = proof(trail.key(connection, row["account_id"]), row, secrets.token_hex(8))
    return row


def proof(key: bytes, row: Mapping[str, Any], nonce: str) -> str:
    """What proves that faxbot wrote this row. With the nonce no two are alike, so that a copy shows."""
    return f"{nonce}.{mac(key, ['row', nonce, *values(row)])}"


def is_ours(key: bytes, row: Mapping[str, Any]) -> bool:
    """Whether faxbot wrote this row as it is."""
    return same(proof(key, row, row["proof"].partition(".")[0]), row["proof"])


def same(ours: str, theirs: str) -> bool:
    """Whether two MACs are alike; `theirs` may be whatever somebody has put there."""
    return hmac.compare_digest(ours.encode(), theirs.encode())


def values(row: Mapping[str, Any]) -> list[Any]:
    """Of a row what a MAC is about, alike on both databases."""
    return [stamped(row[name]) if name == "happened_at" else row[name] for name in FIELDS]


def stamped(at: datetime) -> str:
    """A time to the microsecond, in UTC."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def mac(key: bytes, content: list[Any]) -> str:
    """HMAC-SHA256 as 64 hex digits over plain values, in one form of JSON."""
    return hmac.digest(key, _TEXT(content).encode(), "sha256").hex()


_TEXT = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


# Reads ----------------------------------------------------------------------------------------------

EVERY = 0.5
"""Seconds for which what is to be written is collected."""
SILENT = 60.0
"""Seconds for which a repeat of the same is only counted."""
MOST, MOST_OF_STRANGERS = 10_000, 200
"""So many different things may wait, and are known as repeats within SILENT; of those whom nobody knows so many, for
they choose what they do."""
LONGEST_END = 5.0
"""Seconds that the last ones may take when a process ends."""


@dataclass(slots=True)
class _Kept:
    """One thing that is done again and again."""

    row: Row
    stranger: bool
    since: float
    times: int = 0
    """Repeats that are not written yet."""


class Notes:
    """What to write down of reads, so that a read costs no write: a thread of this process writes it within a second, a
    repeat within SILENT as one row with its count. Safe to share between threads; begin it after a fork."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._database, self._clock = database, clock
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._new: list[Row] = []
        self._kept: dict[tuple[Any, ...], _Kept] = {}
        self._strangers = 0
        self._lost = 0
        self._wake, self._end = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, row: Row, *, stranger: bool = False) -> None:
        """Have a row (FIELDS) written; `stranger`: nobody knows who did it."""
        with self._lock:
            if stranger and self._strangers >= MOST_OF_STRANGERS:
                row = {**row, "address": "many", "request_id": None}
            what = (*(row[name] for name in _SAME), *row["details"].items())
            kept = self._kept.get(what)
            if kept is not None:
                kept.times += 1
                kept.row["happened_at"] = row["happened_at"]
                kept.row["request_id"] = row["request_id"]
                return
            if len(self._new) >= MOST:
                self._lost += 1
                return
            if len(self._kept) >= MOST:
                self._new += self._forget(next(iter(self._kept)))
            self._kept[what] = _Kept(dict(row), stranger, self._clock())
            self._strangers += stranger
            self._new.append(row)
            if self._thread is None and not self._end.is_set():
                self._thread = threading.Thread(target=self._run, name="audit notes", daemon=True)
                self._thread.start()
        self._wake.set()

    def flush(self, *, everything: bool = False) -> None:
        """Write what is due now, or `everything`; raises DatabaseAway, and what it could not write waits."""
        with self._writing:
            with self._lock:
                rows, self._new = [*self._new, *self._repeats(everything=everything)], []
                lost, self._lost = self._lost, 0
            if lost:
                rows.append(_gap(lost))
            if not rows:
                return
            try:
                with self._database.writing() as connection:
                    append(connection, *rows)
            except (DatabaseAway, KeyMissing):
                with self._lock:
                    self._new[:0] = rows
                raise
            except Exception:
                # They would be in the way of all that come after them.
                with self._lock:
                    self._lost += len(rows)
                raise

    def close(self) -> None:
        """Write all of it, for a process that ends."""
        with self._lock:
            self._end.set()
            thread = self._thread
        self._wake.set()
        if thread is not None:
            thread.join(LONGEST_END)

    def _repeats(self, *, everything: bool) -> list[Row]:
        """Those whose time is over, and what was repeated meanwhile as rows; the caller holds the lock."""
        until = self._clock() - SILENT
        rows = []
        for what, kept in list(self._kept.items()):
            if kept.since > until and not everything:
                break  # they are in order
            rows += self._forget(what)
        return rows

    def _forget(self, what: tuple[Any, ...]) -> list[Row]:
        """Its repeats that are not written yet, as a row."""
        kept = self._kept.pop(what)
        self._strangers -= kept.stranger
        details = {**kept.row["details"], "times": kept.times}
        return [{**kept.row, "details": details}] if kept.times else []

    def _run(self) -> None:
        over = said = False
        while not over:
            self._wake.wait(SILENT / 4 if self._kept else None)
            over = self._end.wait(EVERY)
            self._wake.clear()
            try:
                self.flush(everything=over)
            except Exception as error:  # noqa: BLE001 - the thread must go on
                detail = error.code if isinstance(error, FaxbotError) else type(error).__name__
                if not said:  # once while the database is away, not each second
                    log.error("audit notes not written", extra={"error": detail})  # noqa: TRY400
                said = True
                self._wake.set()
            else:
                said = False


_SAME = (
    "account_id",
    "actor_kind",
    "actor",
    "action",
    "object_kind",
    "object_id",
    "outcome",
    "address",
)
"""Two reads that are alike in these are the same thing done again."""


def _gap(lost: int) -> Row:
    """That something is missing here, and how much."""
    return {
        **dict.fromkeys(FIELDS),
        "account_id": DEFAULT_ACCOUNT,
        "happened_at": utcnow(),
        "actor_kind": "clock",
        "actor": "clock",
        "action": "audit.lost",
        "outcome": "failed",
        "details": {"lost": lost},
    }
