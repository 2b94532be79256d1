"""Whether finding the next fax costs more when there are many: sweep, claim and lane beside a thousand and a million
faxes that are done, with the same queue of waiting ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from benchmarks.figures import Figures
from faxbot import claims, jobs, lanes, schema, wiring
from faxbot.config import Config
from faxbot.db import new_id
from faxbot.events import Status
from faxbot.models import Job
from faxbot.runtime import Runtime

FEW, MANY = "1,000 rows", "1,000,000 rows"
SIZES = {FEW: 1_000, MANY: 1_000_000}
QUEUE = 200
ROUNDS = 7

_DONE = """
INSERT INTO jobs (id, account_id, created_by, status, to_sealed, to_key, resolution, priority, tags, pages_sent,
                  attempts, tries, faults, deaths, fence, last_sequence, created_at, updated_at)
SELECT lpad(to_hex(n), 32, '0'), 'default', 'bench', 'delivered', '\\x00', md5((n % 5000)::text), 'fine', 128, '{}', 1,
       1, 1, 0, 0, 1, 4, now(), now()
FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS n
"""
_WAITING = """
INSERT INTO jobs (id, account_id, created_by, status, to_sealed, to_key, resolution, priority, tags, pages_sent,
                  attempts, tries, faults, deaths, fence, last_sequence, created_at, updated_at, next_at)
VALUES (:id, 'default', 'bench', 'queued', '\\x00', :to_key, 'fine', 128, '{}', 0, 0, 0, 0, 0, 0, 1, now(), now(),
        now())
"""


def measure(figures: Figures, database: str, folder: Path, say: Callable[[str], None]) -> None:
    """Milliseconds of one sweep, one claim and one lane, beside few rows and many."""
    config = Config.load({"DATABASE_URL": database, "FAX_DATA_DIR": str(folder)})
    schema.upgrade(config)
    with _runtime(config) as runtime:
        queue = _fill_queue(runtime)
        done = 0
        for name, size in SIZES.items():
            say(f"sweep, claim and lane beside {name}")
            _fill(runtime, done + 1, size)
            done = size
            for _ in range(ROUNDS):
                _round(figures, runtime, queue, name)


@contextmanager
def _runtime(config: Config) -> Iterator[Runtime]:
    runtime = wiring.build(config, ring=lambda _task, _row_id, _urgency=0, /: True)
    try:
        yield runtime
    finally:
        runtime.close()


def _fill(runtime: Runtime, first: int, last: int) -> None:
    with runtime.database.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE jobs DISABLE TRIGGER USER"))
        connection.execute(sa.text(_DONE), {"first": first, "last": last})
        connection.execute(sa.text("ALTER TABLE jobs ENABLE TRIGGER USER"))
    options = {"isolation_level": "AUTOCOMMIT"}
    with runtime.database.engine.connect().execution_options(**options) as connection:
        connection.execute(sa.text("SET statement_timeout = 0"))
        connection.execute(sa.text("VACUUM ANALYZE jobs"))


def _fill_queue(runtime: Runtime) -> list[str]:
    ids = [new_id() for _ in range(QUEUE)]
    with runtime.database.engine.begin() as connection:
        for number, job_id in enumerate(ids):
            connection.execute(sa.text(_WAITING), {"id": job_id, "to_key": f"{number % 5000:064x}"})
    return ids


def _round(figures: Figures, runtime: Runtime, queue: list[str], name: str) -> None:
    def take(what: str, deed: Callable[[], object], times: int) -> None:
        begun = time.perf_counter()
        deed()
        figures.add(f"rows/{what}", name, 1000 * (time.perf_counter() - begun) / times)

    with runtime.database.transaction() as session:
        session.execute(
            sa.update(Job).where(Job.id.in_(queue)).values(rung_at=None, lease_until=None)
        )
    take("sweep", lambda: claims.announce_due(runtime, Status.QUEUED), 1)
    take("claim", lambda: [claims.claim(runtime, job_id) for job_id in queue[:50]], 50)
    take("lane", lambda: _enter_and_leave(runtime, queue[:50]), 50)


def _enter_and_leave(runtime: Runtime, faxes: list[str]) -> None:
    for job_id in faxes:
        now = runtime.now()
        with runtime.database.transaction() as session:
            job = session.get_one(Job, job_id)
            numbers = jobs.number_keys(runtime.keyring, job)
            lanes.enter(session, runtime.config, job, "simulator", now, numbers=numbers)
            lanes.leave(session, runtime.config, job, now, called=False, numbers=numbers)
