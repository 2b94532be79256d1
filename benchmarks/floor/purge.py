"""The floor of retention: old faxes go in batches, four statements and a commit each, and then their files.

Nothing is told, proven or kept for a month longer, and nobody's hold is looked for; who dies between commit and unlink
leaves files that nobody knows of.

    python -m benchmarks.floor.purge postgresql://...

Prints what it measured as JSON, as benchmarks.purge does.
"""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from pathlib import Path

import psycopg

from benchmarks.documents import PAGE_BYTES
from benchmarks.processes import cpu_seconds

BATCH = 1000
_AGE = 31 * 86400.0
_FILL = (
    "COPY jobs (id, account, recipient, status, path, sha256, size, tag, created_at, updated_at) FROM STDIN",
    "COPY events (job_id, sequence, type, recorded_at) FROM STDIN",
    "COPY idempotency_keys (account, key, job_id, created_at) FROM STDIN",
)
_EVENTS = ("FAX_QUEUED", "FAX_SUBMITTING", "FAX_SENT", "FAX_DELIVERED")
_OLD = """
SELECT id, path FROM jobs WHERE account = 'default' AND created_at < %s AND status = 'delivered'
ORDER BY created_at, id LIMIT %s FOR UPDATE
"""
_REMOVE = (
    "DELETE FROM events WHERE job_id = ANY(%s)",
    "DELETE FROM idempotency_keys WHERE account = 'default' AND key = ANY(%s)",
    "DELETE FROM jobs WHERE id = ANY(%s)",
)


def fill(database: str, folder: Path, faxes: int) -> None:
    """So many old faxes, each with four events, a key of its own and a file of the usual size."""
    first, page = time.time() - _AGE - 86400, os.urandom(PAGE_BYTES)
    made = []
    for number in range(faxes):
        path = folder / uuid.uuid4().hex
        with path.open("xb", buffering=0) as file:
            file.write(page)
            os.fsync(file.fileno())
        made.append((path, first + 86400 * number / faxes))
    with psycopg.connect(database, autocommit=True) as connection, connection.cursor() as cursor:
        with cursor.copy(_FILL[0]) as rows:
            for path, at in made:
                job = (path.name, "default", "+15550100000", "delivered", str(path), "0" * 64)
                rows.write_row((*job, PAGE_BYTES, path.name, at, at))
        with cursor.copy(_FILL[1]) as rows:
            for path, at in made:
                for sequence, name in enumerate(_EVENTS, 1):
                    rows.write_row((path.name, sequence, name, at))
        with cursor.copy(_FILL[2]) as rows:
            for path, at in made:
                rows.write_row(("default", path.name, path.name, at))
        os.sync()  # as for faxbot's (aged)
        for statement in ("VACUUM ANALYZE", "CHECKPOINT"):
            cursor.execute(statement)


def purge(connection: psycopg.Connection) -> list[float]:
    """Remove all that is old; seconds of each batch."""
    before = time.time() - _AGE + 86400
    took: list[float] = []
    while True:
        began = time.perf_counter()
        with connection.transaction():
            rows = connection.execute(_OLD, (before, BATCH)).fetchall()
            if not rows:
                return took
            ids = [row[0] for row in rows]
            for statement in _REMOVE:
                connection.execute(statement, (ids,))
        for _, path in rows:
            os.unlink(path)  # noqa: PTH108 - the least
        took.append(time.perf_counter() - began)


def main(words: list[str]) -> int:
    """All that is old, on one connection."""
    with psycopg.connect(words[0], autocommit=True) as connection:
        cpu, began = time.process_time(), time.perf_counter()
        batches = purge(connection)
        took = time.perf_counter() - began
        cpu = time.process_time() - cpu + cpu_seconds([connection.info.backend_pid])
    print(json.dumps({"seconds": took, "cpu": cpu, "held": batches}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
