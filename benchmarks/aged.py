"""Faxes that were delivered long ago, with all that belongs to them, as they would lie in a database and a storage by
now: a document that is stored as any other, an attempt, four events and the answer to an Idempotency-Key.

Nobody could submit so many in the time of a measurement.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from benchmarks.documents import PAGE_BYTES
from benchmarks.purge import TABLES
from faxbot import artifacts
from faxbot.artifacts import FAX_PAGES, Upload
from faxbot.db import new_id
from faxbot.events import SCHEMA_VERSION
from faxbot.jobs import KEY_LIFE, ROUTE, answer_place
from faxbot.runtime import Runtime

EVENTS = (("FAX_QUEUED", "queued"), ("FAX_SUBMITTING", "submitting"), ("FAX_SENT", "sent"),
          ("FAX_DELIVERED", "delivered"))  # fmt: skip
PROVIDER = "asterisk"
"""It has no copy of what it sent: how long a carrier takes to delete its own is none of ours."""
DAY = timedelta(days=1)
_AT_ONCE = 1000
_GUARD = "jobs_guard_first_status"


def fill(runtime: Runtime, faxes: int, until: datetime) -> None:
    """So many faxes of the day before `until`, one after the other."""
    page = runtime.config.spool_dir / "aged-page"
    page.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    page.write_bytes(os.urandom(PAGE_BYTES))
    upload = Upload(page, *artifacts.hash_file(page), FAX_PAGES, 1, "fine")
    for first in range(0, faxes, _AT_ONCE):
        some = range(first, min(first + _AT_ONCE, faxes))
        made = [_fax(runtime, upload, until - DAY + DAY * number / faxes) for number in some]
        with runtime.database.writing() as connection, _unguarded(connection):
            for of, rows in zip(TABLES, zip(*made, strict=True), strict=True):
                connection.execute(sa.insert(of), [row for each in rows for row in each])
    page.unlink()
    os.sync()  # an unlinked file that was never written costs nothing
    tidy(runtime)


def tidy(runtime: Runtime) -> None:
    """What a database does by itself after a while, so that it does not while somebody measures."""
    with runtime.database.reader.connect() as connection:
        if runtime.database.is_sqlite:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            return
        connection.exec_driver_sql("SET statement_timeout = 0")
        connection.exec_driver_sql("VACUUM ANALYZE")
        connection.exec_driver_sql("CHECKPOINT")
        connection.exec_driver_sql("RESET statement_timeout")


def _fax(runtime: Runtime, upload: Upload, at: datetime) -> tuple[list[dict[str, Any]], ...]:
    """The rows of one, by table."""
    keyring, job_id, key = runtime.keyring, new_id(at), os.urandom(16)
    to = f"+1555{int.from_bytes(key[:3], 'big') % 10**7:07}"
    common = {"account_id": "default", "job_id": job_id}
    answer = {"id": job_id, "to": to, "to_key": keyring.keyed_hash(to.encode(), "number"),
              "rest": "x" * 600}  # fmt: skip
    return (
        [
            {
                "id": job_id,
                "account_id": "default",
                "created_by": "bench",
                "status": EVENTS[-1][1],
                "to_sealed": keyring.seal(to.encode(), "jobs.to:default"),
                "to_key": answer["to_key"],
                "resolution": "fine",
                "priority": 128,
                "tags": {},
                "provider_id": PROVIDER,
                "external_id": key.hex(),
                "pages": 1,
                "pages_sent": 1,
                "attempts": 1,
                "tries": 1,
                "fence": 1,
                "last_sequence": len(EVENTS),
                "created_at": at,
                "updated_at": at,
            }
        ],
        [_document(runtime, upload, job_id, at)],
        [
            {
                **common,
                "id": new_id(at),
                "number": 1,
                "provider_id": PROVIDER,
                "tag": key.hex(),
                "fence": 1,
                "outcome": "delivered",
                "external_id": key.hex(),
                "counted": True,
                "pages_sent": 1,
                "intended_at": at,
                "answered_at": at,
                "accepted_at": at,
                "ended_at": at,
            }
        ],
        [
            {
                **common,
                "sequence": number,
                "type": name,
                "schema_version": SCHEMA_VERSION,
                "status": status,
                "pages": 1,
                "source": "worker",
                "occurred_at": at,
                "recorded_at": at,
            }
            for number, (name, status) in enumerate(EVENTS, 1)
        ],
        [
            {
                **common,
                "route": ROUTE,
                "key_hash": keyring.keyed_hash(key, "idempotency-key"),
                "fingerprint": keyring.keyed_hash(key, "fingerprint"),
                "response_status": 202,
                "response_sealed": keyring.seal(
                    json.dumps(answer).encode(), answer_place("default")
                ),
                "created_at": at,
                "expires_at": at + KEY_LIFE,
            }
        ],
    )


def _document(runtime: Runtime, upload: Upload, job_id: str, at: datetime) -> dict[str, Any]:
    """Store it as it comes (store() takes the file away), and give its row."""
    copy = upload.path.with_name(job_id)
    copy.write_bytes(upload.path.read_bytes())
    row = artifacts.store(
        runtime,
        Upload(copy, upload.sha256, upload.size, upload.media_type, upload.pages, upload.ready),
        owner={"job_id": job_id},
        account_id="default",
        role="document",
        position=0,
        now=at,
    )
    artifacts.settle(runtime, [row])
    return row


@contextmanager
def _unguarded(connection: Connection) -> Iterator[None]:
    """A fax may not begin as delivered: the database sees to that. Had they gone from status to status one after the
    other, pages would have more room than those of a database that is in use."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("ALTER TABLE jobs DISABLE TRIGGER USER")
        yield
        connection.exec_driver_sql("ALTER TABLE jobs ENABLE TRIGGER USER")
        return
    guard = connection.exec_driver_sql(
        f"SELECT sql FROM sqlite_master WHERE name = '{_GUARD}'"
    ).scalar_one()
    connection.exec_driver_sql(f"DROP TRIGGER {_GUARD}")
    yield
    connection.exec_driver_sql(guard)
