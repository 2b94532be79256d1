"""The worker alone: a queue is filled, then a worker is started, and the rows say how fast it got through.

The floor claims and finishes (two transactions in a Celery task). faxbot claims, records its intent and the outcome
of a call to a carrier that is not there.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

import psycopg

from benchmarks import documents, product
from benchmarks.client import Pace
from benchmarks.figures import Figures
from benchmarks.floor.settings import Settings
from benchmarks.floor.start import make_settings, start_worker
from benchmarks.floor.store import open_store
from benchmarks.floor.worker import ROWS, celery_app
from benchmarks.launch import Child, NotStarted, Workshop, until
from benchmarks.load import Load, run
from benchmarks.processes import cpu_seconds
from benchmarks.servers import Servers
from benchmarks.stages import Length, Progress

_SECONDS = 120.0
_FLOOR = """
SELECT count(*), extract(epoch FROM now()), min(recorded_at), max(recorded_at)
FROM events WHERE type = 'FAX_DELIVERED' AND recorded_at > %s
"""
_PRODUCT = """
SELECT count(*), extract(epoch FROM now()),
    extract(epoch FROM min(recorded_at)), extract(epoch FROM max(recorded_at))
FROM events WHERE type = 'FAX_SENT' AND recorded_at > to_timestamp(%s)
"""


def worker_alone(
    figures: Figures,
    workshop: Workshop,
    servers: Servers,
    length: Length,
    progress: Progress,
) -> None:
    """Add the rates of both sides, in turn, for every round."""
    floor = make_settings(
        workshop, "floor-rows", servers.postgres.new_database(), servers.redis.database(10)
    )
    database = servers.postgres.new_database()
    path = f"{product.plugin_folder(workshop)}:{product.HERE}"
    faxbot = product.install(
        workshop,
        "faxbot-rows",
        database,
        servers.redis.database(11),
        FAX_BACKEND="nocarrier",
        PYTHONPATH=path,
    )
    service = faxbot.service()
    web = faxbot.web()

    def fill_floor() -> None:
        fill(floor, length.worker_faxes)

    def fill_faxbot() -> None:
        run(service, documents.fax_page(), Load(length.worker_faxes, Pace(8)))

    turns: list[tuple[str, Callable[[], None], Callable[[], Child], str, str]] = [
        (
            "floor",
            fill_floor,
            lambda: start_worker(workshop, "rows", floor),
            floor.database,
            _FLOOR,
        ),
        ("faxbot", fill_faxbot, lambda: faxbot.start("worker"), database, _PRODUCT),
    ]
    for number in range(length.rounds):
        progress(f"worker alone, round {number + 1} of {length.rounds}")
        for side, fill_it, start, url, question in turns if number % 2 else turns[::-1]:
            fill_it()
            rate, cpu = drain(start, url, question, length.worker_faxes)
            figures.add("worker/rate", side, rate)
            figures.add("worker/cpu", side, cpu)
    web.stop()


def fill(settings: Settings, faxes: int) -> None:
    """Queue faxes of the floor whose worker only writes their rows."""
    store = open_store(settings.database)
    app = celery_app(settings)
    for _ in range(faxes):
        job_id = uuid.uuid4().hex
        store.submit("default", job_id, job_id, ("none", "none", 0), "+15550100000")
        app.send_task(ROWS, (job_id,))
    store.close()


def drain(
    start: Callable[[], Child], database: str, question: str, faxes: int
) -> tuple[float, float]:
    """Start the worker, wait for its last row, stop it: (faxes per second, CPU milliseconds per fax)."""
    begun_at = time.time()
    worker = start()
    try:
        with psycopg.connect(database, autocommit=True) as connection:

            def written(rows: int) -> bool:
                row = connection.execute(question.encode(), (begun_at,)).fetchone()
                return row is not None and row[0] >= rows

            until(lambda: written(1), worker, _SECONDS)
            before = cpu_seconds([worker.pid])
            until(lambda: written(faxes), worker, _SECONDS, every=0.1)
            row = connection.execute(question.encode(), (begun_at,)).fetchone()
        if row is None or row[3] <= row[2]:
            raise NotStarted("the worker wrote no rows")
        used = cpu_seconds([worker.pid]) - before
        return (faxes - 1) / float(row[3] - row[2]), 1000 * used / faxes
    finally:
        worker.stop()
