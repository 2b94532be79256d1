"""A stand-in carrier's memory: one SQLite file that holds every submission, and outlives a kill -9.

Written for counting: how often each tag came, what was taken and what refused, and a hash of every
document. Numbers are kept as a keyed hash and their last four digits only, header lines as a keyed
hash; a carrier whose answers repeat a number or give back a document keeps them in `details` and
as documents.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterable
from dataclasses import astuple, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

SENT, RECEIVED = "sent", "received"


@dataclass(slots=True)
class Fax:
    """A fax that was taken, or received. Times are seconds of the epoch, `size` is in bytes; `told`
    once its end was called back (or need not be). `details` is what only its carrier understands,
    as JSON has it."""

    id: str
    tag: str
    to_key: str
    last_digits: str
    media_type: str
    pages: int
    size: int
    sha256: str
    callback_url: str
    header_key: str
    received_at: float
    status: str = "queued"
    code: str | None = None
    pages_sent: int = 0
    ended_at: float | None = None
    told: bool = False
    direction: str = SENT
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def final(self) -> bool:
        return self.ended_at is not None

    def view(self) -> dict[str, Any]:
        """What the carrier tells its client of it."""
        return {
            "id": self.id,
            "tag": self.tag,
            "status": self.status,
            "code": self.code,
            "pages": self.pages,
            "pages_sent": self.pages_sent,
            "received_at": moment(self.received_at),
            "ended_at": moment(self.ended_at),
        }


@dataclass(frozen=True, slots=True)
class Refusal:
    """A submission that was not taken: the status and the word it was answered with."""

    tag: str
    to_key: str
    status: int
    code: str
    received_at: float


def moment(seconds: float | None) -> str | None:
    """ISO 8601 in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()


_COLUMNS = tuple(column.name for column in fields(Fax))
_TABLES = """
CREATE TABLE IF NOT EXISTS faxes (
    n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, tag TEXT NOT NULL, to_key TEXT NOT NULL,
    last_digits TEXT NOT NULL, media_type TEXT NOT NULL, pages INTEGER NOT NULL, size INTEGER NOT
    NULL, sha256 TEXT NOT NULL, callback_url TEXT NOT NULL, header_key TEXT NOT NULL, received_at
    REAL NOT NULL, status TEXT NOT NULL, code TEXT, pages_sent INTEGER NOT NULL, ended_at REAL, told INTEGER NOT NULL,
    direction TEXT NOT NULL DEFAULT 'sent', details TEXT NOT NULL DEFAULT '{}');
CREATE INDEX IF NOT EXISTS faxes_tag ON faxes (tag);
CREATE INDEX IF NOT EXISTS faxes_open ON faxes (n) WHERE told = 0;
CREATE TABLE IF NOT EXISTS documents (
    n INTEGER PRIMARY KEY, fax_id TEXT NOT NULL, media_type TEXT NOT NULL, content BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS documents_fax_id ON documents (fax_id);
CREATE TABLE IF NOT EXISTS refusals (
    n INTEGER PRIMARY KEY, tag TEXT NOT NULL, to_key TEXT NOT NULL, status INTEGER NOT NULL, code
    TEXT NOT NULL, received_at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS refusals_tag ON refusals (tag);
CREATE INDEX IF NOT EXISTS refusals_to_key ON refusals (to_key);
"""
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM faxes"  # noqa: S608 - our own names
_MARKS = ", ".join("?" * len(_COLUMNS))
_INSERT = f"INSERT INTO faxes ({', '.join(_COLUMNS)}) VALUES ({_MARKS})"  # noqa: S608 - the same
_ADDED = {
    "header_key": "TEXT NOT NULL DEFAULT ''",
    "direction": "TEXT NOT NULL DEFAULT 'sent'",
    "details": "TEXT NOT NULL DEFAULT '{}'",
}
"""Columns that an older ledger has not."""
_CHANGING = (
    *("status", "code", "pages", "pages_sent", "media_type", "size", "sha256"),
    *("ended_at", "told", "details"),
)
_UPDATE = f"UPDATE faxes SET {' = ?, '.join(_CHANGING)} = ? WHERE id = ?"  # noqa: S608 - our own names
_ENTRIES = """
SELECT n, id, tag, (SELECT count(*) FROM faxes AS f WHERE f.tag = faxes.tag)
    + (SELECT count(*) FROM refusals AS r WHERE r.tag = faxes.tag) AS submissions,
    to_key, last_digits, media_type, pages, size AS bytes, sha256, header_key, status, code, pages_sent,
    received_at, ended_at, told
FROM faxes WHERE n > ? AND direction = 'sent' AND (? IS NULL OR tag = ?) ORDER BY n LIMIT ?
"""
_COUNTS = """
SELECT (SELECT count(*) FROM faxes WHERE direction = 'sent') AS accepted,
    (SELECT count(*) FROM refusals) AS refused,
    (SELECT count(DISTINCT tag) FROM faxes WHERE tag <> '') AS tags,
    (SELECT count(*) FROM (SELECT 1 FROM faxes WHERE tag <> '' GROUP BY tag HAVING count(*) > 1))
    AS tags_accepted_twice, (SELECT count(*) FROM faxes WHERE told = 0) AS open
"""


class Ledger:
    """The file and its questions; safe to share between threads."""

    def __init__(self, path: Path) -> None:
        """Open or make it (0600). Raises OSError or sqlite3.Error where that is not possible."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        self._path = path
        self._lock = threading.Lock()
        self._db = self._connect()
        self._db.executescript(_TABLES)
        columns = {row["name"] for row in self._db.execute("PRAGMA table_info(faxes)")}
        for name, kind in _ADDED.items():
            if name not in columns:
                self._db.execute(f"ALTER TABLE faxes ADD {name} {kind}")

    def _connect(self) -> sqlite3.Connection:
        # Autocommit: an accepted fax is in the log when execute() returns, before its client is
        # answered.
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=10)
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        return db

    def accept(self, fax: Fax, documents: Iterable[tuple[str, bytes]] = ()) -> None:
        """Keep a new fax and its documents (media type, content); they are there after a kill -9
        once this returns."""
        with self._lock, self._db:
            self._db.execute("BEGIN")
            self._db.execute(_INSERT, [_value(fax, name) for name in _COLUMNS])
            self._keep(fax.id, documents)

    def keep_documents(self, fax_id: str, documents: Iterable[tuple[str, bytes]]) -> None:
        """Keep these documents (media type, content) of a fax, and no others."""
        with self._lock, self._db:
            self._db.execute("BEGIN")
            self._db.execute("DELETE FROM documents WHERE fax_id = ?", (fax_id,))
            self._keep(fax_id, documents)

    def _keep(self, fax_id: str, documents: Iterable[tuple[str, bytes]]) -> None:
        self._db.executemany(
            "INSERT INTO documents VALUES (NULL, ?, ?, ?)",
            [(fax_id, media_type, content) for media_type, content in documents],
        )

    def documents(self, fax_id: str) -> list[tuple[str, bytes]]:
        """A fax's documents (media type, content), in the order in which they were kept."""
        with self._lock:
            rows = self._db.execute(
                "SELECT media_type, content FROM documents WHERE fax_id = ? ORDER BY n", (fax_id,)
            ).fetchall()
        return [(row["media_type"], row["content"]) for row in rows]

    def refuse(self, refusal: Refusal) -> None:
        """Keep a submission that was not taken."""
        with self._lock:
            self._db.execute("INSERT INTO refusals VALUES (NULL, ?, ?, ?, ?, ?)", astuple(refusal))

    def save(self, faxes: Iterable[Fax]) -> None:
        """Write where these faxes stand, in one transaction."""
        rows = [[_value(fax, name) for name in (*_CHANGING, "id")] for fax in faxes]
        with self._lock, self._db:
            self._db.execute("BEGIN")
            self._db.executemany(_UPDATE, rows)

    def fax(self, fax_id: str) -> Fax | None:
        return next(iter(self._faxes("WHERE id = ?", fax_id)), None)

    def tagged(self, tag: str) -> list[Fax]:
        """Every fax that was taken under this tag, oldest first."""
        return self._faxes("WHERE tag = ? ORDER BY n", tag)

    def between(self, since: float, until: float) -> list[Fax]:
        """Every fax of that time (seconds of the epoch), newest first."""
        return self._faxes("WHERE received_at BETWEEN ? AND ? ORDER BY n DESC", since, until)

    def last(self) -> int:
        """How many faxes there have been."""
        with self._lock:
            count: int = self._db.execute("SELECT coalesce(max(n), 0) FROM faxes").fetchone()[0]
        return count

    def open(self) -> list[Fax]:
        """Those whose end is still to be told, oldest first."""
        return self._faxes("WHERE told = 0 ORDER BY n")

    def first_refusal(self, to_key: str, code: str) -> float | None:
        """When a number was first refused with this word."""
        with self._lock:
            row = self._db.execute(
                "SELECT min(received_at) FROM refusals WHERE to_key = ? AND code = ?",
                (to_key, code),
            ).fetchone()
        first: float | None = row[0]
        return first

    def entries(
        self, *, tag: str | None = None, after: int = 0, limit: int = -1
    ) -> list[dict[str, Any]]:
        """Faxes taken, oldest first, each with the number of submissions under its tag; `n` is the
        cursor."""
        reader = self._connect()
        try:
            rows = reader.execute(_ENTRIES, (after, tag, tag, limit)).fetchall()
        finally:
            reader.close()
        return [
            {
                **dict(row),
                "told": bool(row["told"]),
                "received_at": moment(row["received_at"]),
                "ended_at": moment(row["ended_at"]),
            }
            for row in rows
        ]

    def counts(self) -> dict[str, Any]:
        """How many were taken and refused, under how many tags, and how they stand."""
        reader = self._connect()
        try:
            counts = dict(reader.execute(_COUNTS).fetchone())
            by_status = reader.execute(
                "SELECT status, count(*) FROM faxes GROUP BY status ORDER BY status"
            ).fetchall()
        finally:
            reader.close()
        return {**counts, "by_status": dict(by_status)}

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _faxes(self, where: str, *values: str | float) -> list[Fax]:
        with self._lock:
            rows = self._db.execute(f"{_SELECT} {where}", values).fetchall()
        return [
            Fax(
                **{
                    **dict(row),
                    "told": bool(row["told"]),
                    "details": json.loads(row["details"]),
                }
            )
            for row in rows
        ]


def _value(fax: Fax, name: str) -> Any:
    """What stands in this column."""
    value = getattr(fax, name)
    return json.dumps(value) if name == "details" else value
