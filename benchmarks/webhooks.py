"""Webhooks: how many a worker delivers, rows and all, beside bare signed POSTs over a kept connection; and what the
others notice of one receiver that hangs.

The receiver is the same process for both sides. Deliveries are written as an event writes them (fanout), so a worker
finds what it would find.
"""

from __future__ import annotations

import base64
import hmac
import itertools
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
import requests
import sqlalchemy as sa

from benchmarks import product
from benchmarks.carrier import get_json
from benchmarks.client import Address
from benchmarks.figures import Figures
from benchmarks.launch import Child, Workshop, free_port, listens, until
from benchmarks.outcome import Spread
from benchmarks.processes import cpu_seconds
from benchmarks.servers import Servers
from benchmarks.stages import Length, Progress
from faxbot import actors, fanout, webhooks, wiring
from faxbot.config import Config
from faxbot.db import table, utcnow
from faxbot.models import Webhook, WebhookDelivery
from faxbot.runtime import Runtime
from faxbot.tasks.app import Bell

QUIET, HUNG = "all answer", "one hangs"
ENDPOINTS = 4
"""That the deliveries of a rate are for."""
OTHERS = 10
"""Beside the one that hangs."""
EVENTS_PER_SECOND, SECONDS = 20.0, 6.0
_ENDED = """
SELECT count(*), extract(epoch FROM min(t.started_at)), extract(epoch FROM max(d.ended_at))
FROM webhook_deliveries d JOIN webhook_tries t ON t.delivery_id = d.id WHERE d.status = 'delivered'
"""


@dataclass(frozen=True)
class Stand:
    """A receiver, and an installation that may call it."""

    receiver: str
    faxbot: product.Product
    database: str

    @contextmanager
    def runtime(self) -> Iterator[Runtime]:
        """What a web process has: events are written, and the bell is rung."""
        config = Config.load(self.faxbot.environment)
        runtime = wiring.build(config, ring=Bell(config))
        try:
            yield runtime
        finally:
            runtime.close()


def measure(
    figures: Figures, workshop: Workshop, servers: Servers, length: Length, say: Progress
) -> None:
    """Deliveries a second of both sides, and milliseconds from an event to its arrival at the others, each in turn."""
    port = free_port()
    receiver = workshop.python("receiver", "benchmarks.receiver", str(port))
    until(lambda: listens(port), receiver)
    database = servers.postgres.new_database()
    faxbot = product.install(
        workshop,
        "faxbot-webhooks",
        database,
        servers.redis.database(12),
        FAXBOT_WORKER_PROCESSES="1",
        FAXBOT_WEBHOOK_NETWORKS="127.0.0.1",
        FAXBOT_WEBHOOK_PORTS=str(port),
    )
    stand = Stand(f"http://127.0.0.1:{port}", faxbot, database)
    with stand.runtime() as runtime:
        _rates(figures, stand, runtime, length, say)
        _delays(figures, stand, runtime, length, say)


# How many ---------------------------------------------------------------------------------------------


def _rates(figures: Figures, stand: Stand, runtime: Runtime, length: Length, say: Progress) -> None:
    urls = [f"{stand.receiver}/hook/{number}" for number in range(ENDPOINTS)]
    for number in range(length.rounds):
        say(f"webhooks of one worker, round {number + 1} of {length.rounds}")
        sides: list[Callable[[], None]] = [
            lambda: figures.add("webhooks/rate", "floor", _bare(stand, length.read_seconds)),
            lambda: _drained(figures, stand, runtime, urls, length.worker_faxes),
        ]
        for side in sides if number % 2 else sides[::-1]:
            side()


def _bare(stand: Stand, seconds: float) -> float:
    """Signed POSTs a second of one thread, and nothing else."""
    key = secrets.token_bytes(32)
    body = fanout.body(_event("0" * 32, 1)).encode()
    with requests.Session() as session:
        session.trust_env = False
        begun = time.perf_counter()
        for count in itertools.count(1):
            name, at = f"msg_{secrets.token_hex(16)}", str(int(time.time()))
            signed = b".".join((name.encode(), at.encode(), body))
            proof = base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
            headers = {
                "Content-Type": "application/json", "webhook-id": name, "webhook-timestamp": at,
                "webhook-signature": f"v1,{proof}",
            }  # fmt: skip
            session.post(f"{stand.receiver}/hook", data=body, headers=headers, timeout=15)
            passed = time.perf_counter() - begun
            if passed >= seconds:
                return count / passed
    raise AssertionError


def _drained(figures: Figures, stand: Stand, runtime: Runtime, urls: list[str], count: int) -> None:
    """Write as many deliveries, start a worker, and ask the rows how fast it got through."""
    _subscribe(runtime, urls)
    for number in range(count // len(urls)):
        _happens(runtime, number)
    count = count // len(urls) * len(urls)
    worker = stand.faxbot.start("worker")
    try:
        with psycopg.connect(stand.database, autocommit=True) as connection:

            def ended(wanted: int) -> bool:
                _ring(runtime)
                row = connection.execute(_ENDED).fetchone()
                return row is not None and row[0] >= wanted

            until(lambda: ended(1), worker, 60, every=0.2)
            before = cpu_seconds([worker.pid])
            until(lambda: ended(count), worker, 120, every=0.1)
            row = connection.execute(_ENDED).fetchone()
        assert row is not None
        figures.add("webhooks/rate", "faxbot", count / float(row[2] - row[1]))
        figures.add("webhooks/cpu", "faxbot", 1000 * (cpu_seconds([worker.pid]) - before) / count)
    finally:
        worker.stop()


# How late ---------------------------------------------------------------------------------------------


def _delays(
    figures: Figures, stand: Stand, runtime: Runtime, length: Length, say: Progress
) -> None:
    address = Address.of(stand.receiver)
    worker = stand.faxbot.start("worker")
    for number in range(length.rounds):
        say(f"one receiver hangs, round {number + 1} of {length.rounds}")
        rounds = [(QUIET, "/reset"), (HUNG, "/hang")]
        for name, order in rounds if number % 2 else rounds[::-1]:
            urls = [f"{stand.receiver}/hook/{each}" for each in range(OTHERS)]
            _subscribe(runtime, [*urls, f"{stand.receiver}/slow"])
            _post(stand, order)
            _wait_for_worker(runtime, stand, worker)
            _post(stand, order)
            count = _paced(runtime)
            until(lambda: len(_late(address)) >= count * OTHERS, worker, 30)  # noqa: B023 - at once
            spread = Spread.of(_late(address))
            assert spread is not None
            figures.add("webhooks/late/p50", name, spread.p50)
            figures.add("webhooks/late/p95", name, spread.p95)
    worker.stop()


def _wait_for_worker(runtime: Runtime, stand: Stand, worker: Child) -> None:
    """Until it delivers, and every connection is there."""
    address = Address.of(stand.receiver)
    for _ in range(3):
        known = len(_late(address))
        _happens(runtime, 0)
        until(lambda: len(_late(address)) >= known + OTHERS, worker, 60)  # noqa: B023 - at once


def _paced(runtime: Runtime) -> int:
    """Events at an even pace; how many."""
    begun, count = time.perf_counter(), int(EVENTS_PER_SECOND * SECONDS)
    for number in range(count):
        time.sleep(max(0.0, begun + number / EVENTS_PER_SECOND - time.perf_counter()))
        _happens(runtime, number)
    return count


def _late(address: Address) -> list[float]:
    late: list[float] = get_json(address, "/taken")["late"]
    return late


def _post(stand: Stand, path: str) -> None:
    with requests.Session() as session:
        session.trust_env = False
        session.post(stand.receiver + path, timeout=15).raise_for_status()


# What both have ---------------------------------------------------------------------------------------


def _subscribe(runtime: Runtime, urls: list[str]) -> None:
    """These alone, and nothing that waits."""
    now = runtime.now()
    with runtime.database.transaction() as session:
        # In the order in which a worker locks them.
        session.execute(sa.select(Webhook.id).order_by(Webhook.id).with_for_update())
        session.execute(sa.delete(table(WebhookDelivery)))
        session.execute(sa.delete(table(Webhook)))
        for url in urls:
            webhook, _ = webhooks.create(
                session, runtime, actors.CLI, name="benchmark", url=url, types=["*"], now=now
            )
            webhooks.activate(webhook, now)
    fanout.of(runtime.database).forget()


def _happens(runtime: Runtime, number: int) -> None:
    """Write what an event of a fax writes for its subscribers."""
    with runtime.database.writing() as connection:
        now = runtime.now()
        fanout.fan_out(
            connection, {**_event(f"{number:032x}", 4), "occurred_at": now, "recorded_at": now}
        )


def _event(fax_id: str, sequence: int) -> dict[str, object]:
    now = utcnow()
    return {
        "account_id": "default", "job_id": fax_id, "sequence": sequence, "type": "FAX_DELIVERED",
        "status": "delivered", "attempt": 1, "provider_id": "simulator", "cause": None, "pages": 1, "pages_sent": 1,
        "occurred_at": now, "recorded_at": now,
    }  # fmt: skip


def _ring(runtime: Runtime) -> None:
    runtime.ring(fanout.TASK, "due")
