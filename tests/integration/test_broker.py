"""What a worker takes from the broker, and what it leaves there for now: while usual faxes come, one
sending process stays free for the next of them."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import pytest
from celery import Celery
from kombu import Consumer, Queue
from kombu.asynchronous import Hub

from faxbot.config import Config
from faxbot.tasks.app import Bell, celery_app
from faxbot.tasks.broker import LOOK_AGAIN
from tests.ground import Ground
from tests.servers import RedisServer

SEND, APPLY = "faxbot.send_fax", "faxbot.apply_callback"
USUAL, LOW = 128, 0
"""Priorities: of a usual fax, and of one that stands behind them."""


class Worker:
    """What a worker's parent does with the broker, for so many sending processes: it takes messages, and acknowledges
    them when their task is done."""

    def __init__(self, app: Celery, processes: int) -> None:
        self.connection = app.connection_for_read()
        self.under_way: list[tuple[str, Any]] = []
        queues = [Queue(name) for name in ("send", "callbacks")]
        self._consumer = Consumer(
            self.connection, queues, on_message=self._take, accept=["json"], tag_prefix="test"
        )
        self._consumer.qos(prefetch_count=processes)
        self._consumer.consume()

    def _take(self, message: Any) -> None:
        (row_id, *_), *_ = message.decode()
        self.under_way.append((row_id, message))

    def takes(self, seconds: float = 0.4) -> Sequence[str]:
        """The rows whose messages came within these seconds."""
        before, until = len(self.under_way), time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            with suppress(socket.timeout):
                self.connection.drain_events(timeout=left)
        return [row_id for row_id, _ in self.under_way[before:]]

    def has_done(self, row_id: str) -> None:
        found = next(each for each in self.under_way if each[0] == row_id)
        self.under_way.remove(found)
        found[1].ack()


@pytest.fixture(scope="module")
def server(ground: Ground) -> Iterator[RedisServer]:
    server = RedisServer(ground)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def config(server: RedisServer) -> Config:
    with server.client() as client:
        client.flushall()
    return Config.load({"CELERY_BROKER_URL": server.url})


@pytest.fixture
def ring(config: Config) -> Bell:
    return Bell(config, patience=2.0)


@pytest.fixture
def worker(config: Config) -> Iterator[Worker]:
    worker = Worker(celery_app(config), processes=2)
    yield worker
    worker.connection.release()


def test_faxes_that_stand_behind_have_all_processes_while_no_others_come(
    worker: Worker, ring: Bell
) -> None:
    for row in ("low 1", "low 2", "low 3"):
        assert ring(SEND, row, LOW)

    assert worker.takes() == ["low 1", "low 2"]


def test_while_usual_faxes_come_the_last_free_process_waits_for_the_next_of_them(
    worker: Worker, ring: Bell
) -> None:
    for row, priority in (("usual 1", USUAL), ("low 1", LOW), ("low 2", LOW)):
        assert ring(SEND, row, priority)
    assert worker.takes() == ["usual 1"]
    worker.has_done("usual 1")
    assert worker.takes() == ["low 1"]

    assert ring(SEND, "usual 2", USUAL)

    assert worker.takes() == ["usual 2"]


def test_what_stands_behind_goes_on_as_soon_as_a_second_process_is_free(
    worker: Worker, ring: Bell
) -> None:
    assert ring(SEND, "usual", USUAL)
    for count in range(20):
        assert ring(SEND, f"low {count}", LOW)
    assert worker.takes() == ["usual"]
    begun = time.monotonic()
    worker.has_done("usual")
    for count in range(20):
        assert worker.takes(0.02) == [f"low {count}"]
        worker.has_done(f"low {count}")

    assert time.monotonic() - begun < 20 * LOOK_AGAIN / 2


def test_callbacks_and_sweeps_never_wait_for_that_process(worker: Worker, ring: Bell) -> None:
    for row, priority in (("usual 1", USUAL), ("low 1", LOW)):
        assert ring(SEND, row, priority)
    assert worker.takes() == ["usual 1"]

    assert ring(APPLY, "callback")

    assert worker.takes() == ["callback"]


def test_a_worker_of_one_process_keeps_none_free(config: Config, ring: Bell) -> None:
    worker = Worker(celery_app(config), processes=1)
    assert ring(SEND, "usual", USUAL)
    assert worker.takes() == ["usual"]
    worker.has_done("usual")
    assert ring(SEND, "low", LOW)

    assert worker.takes() == ["low"]
    worker.connection.release()


def test_all_faxes_flow_from_a_broker_that_answers_no_question_about_clients(
    server: RedisServer, worker: Worker, ring: Bell
) -> None:
    with server.client() as client:
        client.acl_setuser("default", enabled=True, commands=["-client"])
        try:
            for row, priority in (("usual 1", USUAL), ("usual 2", USUAL), ("low", LOW)):
                assert ring(SEND, row, priority)
            assert worker.takes() == ["usual 1", "usual 2"]
            worker.has_done("usual 1")
            assert worker.takes() == []
            worker.has_done("usual 2")
            assert worker.takes() == ["low"]
        finally:
            client.acl_setuser("default", enabled=True, commands=["+client"])


def test_a_connection_that_was_lost_while_all_were_busy_confuses_no_answers(
    server: RedisServer, config: Config, ring: Bell
) -> None:
    """redis-py finds that with a PING, and connects anew, before it sends what it was asked to: unknown to kombu, which
    then asks a second time."""
    hub = Hub()
    worker = Worker(celery_app(config), processes=2)
    worker.connection.register_with_event_loop(hub)
    hub.call_repeatedly(0.05, lambda: None)
    loop = hub.create_loop()

    def comes(row: str) -> None:
        deadline = time.monotonic() + 10.0
        while not any(each[0] == row for each in worker.under_way):
            assert time.monotonic() < deadline, row
            next(loop)

    try:
        for row in ("usual 1", "usual 2"):
            assert ring(SEND, row, USUAL)
            comes(row)
        channel: Any = worker.connection.default_channel
        mine = channel.client.connection
        with server.client() as client:
            client.client_kill_filter(_id=str(mine.handshake_metadata[b"id"]))
        mine.next_health_check = time.monotonic()  # the PING is due
        worker.has_done("usual 1")
        for row in ("usual 3", "usual 4", "usual 5"):
            assert ring(SEND, row, USUAL)
            comes(row)
            worker.has_done(row)
    finally:
        hub.close()
        worker.connection.release()


def test_a_broker_that_lets_nobody_end_a_wait_only_makes_them_wait_a_little(
    server: RedisServer, worker: Worker, ring: Bell
) -> None:
    with server.client() as client:
        client.acl_setuser("default", enabled=True, commands=["-client|unblock"])
        try:
            for row, priority in (("usual", USUAL), ("low", LOW)):
                assert ring(SEND, row, priority)
            assert worker.takes() == ["usual"]
            worker.has_done("usual")
            assert worker.takes(3 * LOOK_AGAIN) == ["low"]
        finally:
            client.acl_setuser("default", enabled=True, commands=["+client|unblock"])
