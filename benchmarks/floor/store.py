"""The floor's rows, in plain SQL on psycopg or sqlite3: keys, jobs, events, idempotency keys.

Every public function is one transaction; times are seconds of the epoch.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool

SCHEMA = """
CREATE TABLE api_keys (key_hash text PRIMARY KEY, account text NOT NULL);
CREATE TABLE jobs (
    id text PRIMARY KEY, account text NOT NULL, recipient text NOT NULL, status text NOT NULL,
    path text NOT NULL, sha256 text NOT NULL, size bigint NOT NULL, tag text, external_id text,
    created_at double precision NOT NULL, updated_at double precision NOT NULL
);
CREATE INDEX jobs_page ON jobs (account, created_at DESC, id DESC);
CREATE UNIQUE INDEX jobs_tag ON jobs (tag);
CREATE TABLE events (
    job_id text NOT NULL, sequence integer NOT NULL, type text NOT NULL,
    recorded_at double precision NOT NULL, PRIMARY KEY (job_id, sequence)
);
CREATE TABLE idempotency_keys (
    account text NOT NULL, key text NOT NULL, job_id text NOT NULL,
    created_at double precision NOT NULL, PRIMARY KEY (account, key)
);
"""
JOB = ("id", "status", "recipient", "sha256", "size", "external_id", "created_at", "updated_at")
_EVENT = "INSERT INTO events (job_id, sequence, type, recorded_at) VALUES (%s, %s, %s, %s)"

Row = Sequence[Any]


class Taken(Exception):
    """This idempotency key is there already; carries the job it belongs to."""

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id


class Store(ABC):
    """What both engines share: the statements."""

    def __init__(self) -> None:
        self.own = threading.local()

    @abstractmethod
    def transaction(self) -> AbstractContextManager[None]:
        """A write transaction on this thread's connection."""

    @abstractmethod
    def run(self, statement: str, values: Row = ()) -> Any:
        """Execute one statement; gives the driver's cursor."""

    @abstractmethod
    def close(self) -> None:
        """No more statements, from this thread at least."""

    def create(self, key_hashes: Sequence[str]) -> None:
        """Make tables and keys."""
        with self.transaction():
            for statement in SCHEMA.split(";\n"):
                if statement.strip():
                    self.run(statement)
            for key_hash in key_hashes:
                self.run("INSERT INTO api_keys VALUES (%s, 'default')", (key_hash,))

    def account(self, key_hash: str) -> str | None:
        """Whose key that is."""
        row = self.run("SELECT account FROM api_keys WHERE key_hash = %s", (key_hash,)).fetchone()
        return row[0] if row else None

    def submit(self, account: str, key: str, job_id: str, document: Row, recipient: str) -> None:
        """Job, first event and idempotency row; `document` is (path, sha256, size). Raises Taken."""
        now = time.time()
        with self.transaction():
            row = self.run(
                "INSERT INTO idempotency_keys VALUES (%s, %s, %s, %s)"
                " ON CONFLICT DO NOTHING RETURNING job_id",
                (account, key, job_id, now),
            ).fetchone()
            if row is None:
                raise Taken(self._job_of(account, key))
            self.run(
                "INSERT INTO jobs (id, account, recipient, status, path, sha256, size, created_at,"
                " updated_at) VALUES (%s, %s, %s, 'queued', %s, %s, %s, %s, %s)",
                (job_id, account, recipient, *document, now, now),
            )
            self.run(_EVENT, (job_id, 1, "FAX_QUEUED", now))

    def _job_of(self, account: str, key: str) -> str:
        found = self.run(
            "SELECT job_id FROM idempotency_keys WHERE account = %s AND key = %s", (account, key)
        ).fetchone()
        return str(found[0])

    def job(self, account: str, job_id: str) -> Row | None:
        """The columns JOB of one job."""
        row: Row | None = self.run(
            f"SELECT {', '.join(JOB)} FROM jobs WHERE id = %s AND account = %s",
            (job_id, account),
        ).fetchone()
        return row

    def events(self, job_id: str) -> tuple[str | None, list[Row]]:
        """The tag of the attempt and (sequence, type, recorded_at) of each event."""
        tag = self.run("SELECT tag FROM jobs WHERE id = %s", (job_id,)).fetchone()
        rows = self.run(
            "SELECT sequence, type, recorded_at FROM events WHERE job_id = %s ORDER BY sequence",
            (job_id,),
        ).fetchall()
        return (tag[0] if tag else None), rows

    def claim(self, job_id: str, tag: str) -> Row | None:
        """Take a queued job for one attempt: (recipient, path), or None when somebody else has it."""
        now = time.time()
        with self.transaction():
            row: Row | None = self.run(
                "UPDATE jobs SET status = 'submitting', tag = %s, updated_at = %s"
                " WHERE id = %s AND status = 'queued' RETURNING recipient, path",
                (tag, now, job_id),
            ).fetchone()
            if row:
                self.run(_EVENT, (job_id, 2, "FAX_SUBMITTING", now))
        return row

    def sent(self, job_id: str, external_id: str) -> None:
        """The carrier has it; its callback may have come before."""
        now = time.time()
        with self.transaction():
            self.run(
                "UPDATE jobs SET external_id = %s, updated_at = %s,"
                " status = CASE status WHEN 'submitting' THEN 'sent' ELSE status END WHERE id = %s",
                (external_id, now, job_id),
            )
            self.run(_EVENT, (job_id, 3, "FAX_SENT", now))

    def final(self, tag: str) -> bool:
        """Delivered, by the attempt's tag; False for a repeat or a stranger."""
        now = time.time()
        with self.transaction():
            row = self.run(
                "UPDATE jobs SET status = 'delivered', updated_at = %s"
                " WHERE tag = %s AND status <> 'delivered' RETURNING id",
                (now, tag),
            ).fetchone()
            if row:
                self.run(_EVENT, (row[0], 4, "FAX_DELIVERED", now))
        return row is not None


class PostgresStore(Store):
    """psycopg over its own pool, as a service with threads is built; a read is a transaction of its own."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.lock = threading.Lock()
        self.made: ConnectionPool[psycopg.Connection[Any]] | None = None

    @property
    def pool(self) -> ConnectionPool[psycopg.Connection[Any]]:
        """Made in the process that uses it."""
        with self.lock:
            if self.made is None:
                self.made = ConnectionPool(
                    self.url, min_size=1, max_size=4, kwargs={"autocommit": True}, open=True
                )
            return self.made

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self.pool.connection() as connection, connection.transaction():
            self.own.connection = connection
            try:
                yield
            finally:
                del self.own.connection

    def run(self, statement: str, values: Row = ()) -> Any:
        held: psycopg.Connection[Any] | None = getattr(self.own, "connection", None)
        if held is not None:
            return held.execute(statement.encode(), values or None)
        with self.pool.connection() as connection:
            return connection.execute(statement.encode(), values or None)

    def close(self) -> None:
        if self.made is not None:
            self.made.close()


class SqliteStore(Store):
    """sqlite3 in WAL mode with synchronous FULL: as durable as the PostgreSQL beside it."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def close(self) -> None:
        self._connection().close()

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self.own, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self.path, timeout=10, isolation_level=None)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            self.own.connection = connection
        return connection

    @contextmanager
    def transaction(self) -> Iterator[None]:
        connection = self._connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def run(self, statement: str, values: Row = ()) -> Any:
        return self._connection().execute(statement.replace("%s", "?"), values)


def open_store(database: str) -> Store:
    """By the form of the address."""
    return PostgresStore(database) if database.startswith("postgresql:") else SqliteStore(database)


def create(database: str, key_hashes: Sequence[str]) -> None:
    """Make the tables of a new floor, on a connection of its own."""
    store = open_store(database)
    store.create(key_hashes)
    store.close()
