"""A stand-in carrier's memory: one SQLite file that holds every submission, and outlives a kill -9.

Written for counting: how often each tag came, what was taken and what refused, and a hash of every
document. Numbers are kept as a keyed hash and their last four digits only, header lines as a keyed
hash.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FINAL = frozenset({"delivered", "failed", "cancelled"})


@dataclass(slots=True)
class Fax:
    """A fax that was taken. Times are seconds of the epoch, `size` is in bytes; `told` once its end
    was called back (or need not be)."""

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

    @property
    def final(self) -> bool:
        return self.status in FINAL

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
    REAL NOT NULL, status TEXT NOT NULL, code TEXT, pages_sent INTEGER NOT NULL, ended_at REAL, told INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS faxes_tag ON faxes (tag);
CREATE INDEX IF NOT EXISTS faxes_open ON faxes (n) WHERE told = 0;
CREATE TABLE IF NOT EXISTS refusals (
    n INTEGER PRIMARY KEY, tag TEXT NOT NULL, to_key TEXT NOT NULL, status INTEGER NOT NULL, code
    TEXT NOT NULL, received_at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS refusals_tag ON refusals (tag);
CREATE INDEX IF NOT EXISTS refusals_to_key ON refusals (to_key);
"""
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM faxes"  # noqa: S608 - our own names
_MARKS = ", ".join("?" * len(_COLUMNS))
_INSERT = f"INSERT INTO faxes ({', '.join(_COLUMNS)}) VALUES ({_MARKS})"  # noqa: S608 - the same
_UPDATE = (
    "UPDATE faxes SET status = ?, code = ?, pages_sent = ?, ended_at = ?, told = ? WHERE id = ?"
)
_ENTRIES = """
SELECT n, id, tag, (SELECT count(*) FROM faxes AS f WHERE f.tag = faxes.tag)
    + (SELECT count(*) FROM refusals AS r WHERE r.tag = faxes.tag) AS submissions,
    to_key, last_digits, media_type, pages, size AS bytes, sha256, header_key, status, code, pages_sent,
    received_at, ended_at, told
FROM faxes WHERE n > ? AND (? IS NULL OR tag = ?) ORDER BY n LIMIT ?
"""
_COUNTS = """
SELECT (SELECT count(*) FROM faxes) AS accepted, (SELECT count(*) FROM refusals) AS refused,
    (SELECT count(DISTINCT tag) FROM faxes) AS tags,
    (SELECT count(*) FROM (SELECT 1 FROM faxes GROUP BY tag HAVING count(*) > 1)) AS
    tags_accepted_twice, (SELECT count(*) FROM faxes WHERE told = 0) AS open
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
        if "header_key" not in columns:  # a ledger that was made before there was one
            self._db.execute("ALTER TABLE faxes ADD header_key TEXT NOT NULL DEFAULT ''")

    def _connect(self) -> sqlite3.Connection:
        # Autocommit: an accepted fax is in the log when execute() returns, before its client is
        # answered.
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=10)
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        return db

    def accept(self, fax: Fax) -> None:
        """Keep a new fax; it is there after a kill -9 once this returns."""
        with self._lock:
            self._db.execute(_INSERT, astuple(fax))

    def refuse(self, refusal: Refusal) -> None:
        """Keep a submission that was not taken."""
        with self._lock:
            self._db.execute("INSERT INTO refusals VALUES (NULL, ?, ?, ?, ?, ?)", astuple(refusal))

    def save(self, faxes: Iterable[Fax]) -> None:
        """Write where these faxes stand, in one transaction."""
        rows = [
            (fax.status, fax.code, fax.pages_sent, fax.ended_at, fax.told, fax.id) for fax in faxes
        ]
        with self._lock, self._db:
            self._db.execute("BEGIN")
            self._db.executemany(_UPDATE, rows)

    def fax(self, fax_id: str) -> Fax | None:
        return next(iter(self._faxes("WHERE id = ?", fax_id)), None)

    def tagged(self, tag: str) -> list[Fax]:
        """Every fax that was taken under this tag, oldest first."""
        return self._faxes("WHERE tag = ? ORDER BY n", tag)

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

    def _faxes(self, where: str, *values: str) -> list[Fax]:
        with self._lock:
            rows = self._db.execute(f"{_SELECT} {where}", values).fetchall()
        return [Fax(**{**dict(row), "told": bool(row["told"])}) for row in rows]
