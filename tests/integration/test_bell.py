"""The bell only saves time: whatever the broker does, it is over soon, nothing breaks, and the
sweep finds the rest."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from urllib.parse import quote

import pytest

from faxbot import callbacks, claims, decisions, jobs, sending
from faxbot.claims import TASKS
from faxbot.config import Config
from faxbot.events import Status
from faxbot.runtime import Ring
from faxbot.tasks.app import QUEUES, Bell
from tests.ground import Ground
from tests.integration.site import ACTOR, Site
from tests.misbehaving import Server, answering, hanging_up, silent
from tests.servers import RedisServer
from tests.threads import at_once

ID = "01a1f8d63c7f7fcaa2e1f998a1736eb0"
SEND, APPLY = "faxbot.send_fax", "faxbot.apply_callback"
SOON = 12.0  # seconds; it gives up after 0.2, and without a limit it would wait for minutes


@pytest.fixture(scope="module")
def own_redis(ground: Ground) -> Iterator[RedisServer]:
    """A broker that these tests may stop, freeze and fill."""
    server = RedisServer(ground)
    server.start()
    yield server
    if server.process is not None:
        server.stop()


@pytest.fixture
def redis(own_redis: RedisServer) -> Iterator[RedisServer]:
    if own_redis.process is None:
        own_redis.start()
    with own_redis.client() as client:
        client.flushall()
    yield own_redis
    if own_redis.process is not None:
        own_redis.thaw()


@pytest.fixture(params=["tcp", "socket"])
def config(request: pytest.FixtureRequest, redis: RedisServer) -> Config:
    """An installation that reaches it over the network, or as the embedded one does."""
    socket = f"redis+socket://{quote(str(redis.socket))}"
    return Config.load({"CELERY_BROKER_URL": redis.url if request.param == "tcp" else socket})


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


def seconds_for(deed: Callable[[], object]) -> float:
    begun = time.monotonic()
    deed()
    return time.monotonic() - begun


def gives_up_soon_and_is_not_asked_again_for_five_seconds(
    ring: Ring, clock: Clock, mend: Callable[[], None]
) -> None:
    answers: list[bool] = []
    assert seconds_for(lambda: answers.append(ring(SEND, ID))) < SOON
    clock.at += 5.1
    assert seconds_for(lambda: answers.append(ring(SEND, ID))) < SOON
    assert answers == [False, False]

    mend()
    clock.at += 4.9
    assert ring(SEND, ID) is False, "it was asked, though it failed less than five seconds ago"
    clock.at += 0.2
    assert ring(SEND, ID) is True


@pytest.mark.parametrize("task", sorted(QUEUES))
def test_a_message_carries_an_id_in_its_queue_and_nothing_else(
    redis: RedisServer, config: Config, task: str
) -> None:
    assert Bell(config)(task, ID) is True

    with redis.client() as client:
        (raw,) = client.lrange(f"faxbot:{QUEUES[task]}", 0, -1)
        others = {key.decode() for key in client.keys("*")} - {f"faxbot:{QUEUES[task]}"}
    message = json.loads(raw)
    assert json.loads(base64.b64decode(message["body"]))[:2] == [[ID], {}]
    assert message["headers"]["task"] == task
    assert message["content-type"] == "application/json"
    assert not message["headers"]["eta"]
    assert [key for key in others if not key.startswith("faxbot:_kombu.binding")] == []


@pytest.mark.parametrize("warm", [True, False], ids=["connected before", "never connected"])
def test_a_stopped_broker_costs_the_first_a_moment_and_the_next_nothing(
    redis: RedisServer, config: Config, warm: bool
) -> None:
    clock = Clock()
    ring = Bell(config, clock=clock)
    assert not warm or ring(SEND, ID)
    redis.kill9()

    gives_up_soon_and_is_not_asked_again_for_five_seconds(ring, clock, redis.start)


@pytest.mark.parametrize("warm", [True, False], ids=["connected before", "never connected"])
def test_a_frozen_broker_costs_the_first_a_moment_and_the_next_nothing(
    redis: RedisServer, config: Config, warm: bool
) -> None:
    clock = Clock()
    ring = Bell(config, clock=clock)
    assert not warm or ring(SEND, ID)
    redis.freeze()

    gives_up_soon_and_is_not_asked_again_for_five_seconds(ring, clock, redis.thaw)


def test_all_threads_of_a_frozen_broker_are_back_soon(redis: RedisServer, config: Config) -> None:
    ring = Bell(config)
    redis.freeze()

    took = at_once(config.web_threads, lambda _: seconds_for(lambda: ring(SEND, ID)))

    assert max(took) < SOON


def test_a_full_broker_is_an_answer_like_any_other(redis: RedisServer, config: Config) -> None:
    with redis.client() as client:
        client.config_set("maxmemory", 1)
    try:
        assert Bell(config)(SEND, ID) is False
    finally:
        with redis.client() as client:
            client.config_set("maxmemory", 0)


@pytest.mark.parametrize(
    "behave",
    [answering(b"HTTP/1.1 400 Bad Request\r\n\r\n"), hanging_up, silent],
    ids=["no Redis", "hangs up", "silent"],
)
def test_whoever_listens_there_the_bell_is_over_soon(behave: Callable[..., None]) -> None:
    server = Server(behave)
    try:
        ring = Bell(Config.load({"CELERY_BROKER_URL": f"redis://127.0.0.1:{server.port}/0"}))
        answers: list[bool] = []
        assert seconds_for(lambda: answers.append(ring(SEND, ID))) < SOON
        assert answers == [False]
    finally:
        server.close()


@pytest.mark.parametrize("how", ["frozen", "stopped"])
def test_a_sweep_that_meets_a_dead_broker_is_over_soon_and_the_next_one_rings_for_all(
    site: Site, redis: RedisServer, how: str
) -> None:
    clock = Clock()
    ring = Bell(Config.load({"CELERY_BROKER_URL": redis.url}), patience=1.0, clock=clock)
    site.runtime = replace(site.runtime, ring=ring)
    for _ in range(4):
        site.fax()
    redis.freeze() if how == "frozen" else redis.kill9()
    site.now += timedelta(seconds=20)
    clock.at += 20

    def sweep() -> int:
        return claims.announce_due(site.runtime, Status.QUEUED)

    assert seconds_for(sweep) < SOON
    redis.thaw() if how == "frozen" else redis.start()
    clock.at += 5
    site.now += timedelta(seconds=5)
    assert sweep() == 4
    assert sweep() == 0


def test_a_bell_says_how_many_rings_nobody_has_answered_however_urgent_they_are(
    redis: RedisServer, config: Config
) -> None:
    clock = Clock()
    bell = Bell(config, clock=clock)
    assert bell.unanswered(SEND) == 0
    for urgency in (0, 100, 200, 255):
        bell(SEND, ID, urgency)
    bell("faxbot.poll_fax", ID)
    assert (bell.unanswered(SEND), bell.unanswered("faxbot.look_up_fax")) == (4, 1)

    redis.kill9()
    told: list[int] = []
    assert seconds_for(lambda: told.append(bell.unanswered(SEND))) < SOON
    assert told == [0]


def test_where_many_wait_for_workers_the_bell_is_not_rung_again_and_again(site: Site) -> None:
    """Else the rings of a long queue are more than its faxes, and what is new stands behind them all."""
    crowd = {SEND: claims.CROWDED}
    site.runtime = replace(site.runtime, unanswered=lambda task: crowd.get(task, 0))
    waits, polled = site.fax(), site.sent("0044")

    def after(seconds: float) -> set[str]:
        site.now += timedelta(seconds=seconds)
        return {row_id for _, row_id in announced(site)}

    assert after(60) == set(), "rung again before its turn can have come"
    assert after(claims.RING_AGAIN_CROWDED - 60) == {waits}
    later = site.fax(send_at=site.now + timedelta(seconds=5))
    assert after(5) == {later}, "it was never rung for"
    assert after(site.wait_of(polled)) == {polled, waits}
    assert after(10) == {polled, later}, "the queue of the polls is not crowded"

    crowd.clear()
    assert after(10) == {polled, waits, later}, "the queue is empty: the rings were lost"


def test_what_the_broker_did_not_take_waits_in_no_crowd(site: Site) -> None:
    crowd = {SEND: claims.CROWDED}
    hearing = replace(site.runtime, unanswered=lambda task: crowd.get(task, 0))
    site.runtime = replace(hearing, ring=lambda *_: False)
    new, held = site.fax(), site.fax()
    sending.attempt(replace(site.runtime, config=replace(hearing.config, fax_disabled=True)), held)
    assert decisions.release(site.runtime, ACTOR, held).status == "queued"
    site.runtime = hearing

    assert set(announced(site)) == {(SEND, new), (SEND, held)}
    assert announced(site) == []


def test_a_callback_is_rung_for_again_as_soon_as_its_queue_is_not_crowded(site: Site) -> None:
    crowd = {APPLY: claims.CROWDED}
    site.runtime = replace(site.runtime, unanswered=lambda task: crowd.get(task, 0))
    fax = site.sent("0044")
    site.receive(site.callback(site.final_at_carrier(fax)))
    ((_, callback_id),) = site.rung
    mine = (APPLY, callback_id)

    site.now += timedelta(seconds=60)
    assert mine not in announced(site)
    site.now += timedelta(seconds=claims.RING_AGAIN_CROWDED - 60)
    assert mine in announced(site)
    site.now += timedelta(seconds=60)
    assert mine not in announced(site)
    crowd.clear()
    assert mine in announced(site), "the queue is empty: the ring was lost"


def announced(site: Site) -> list[tuple[str, str]]:
    """What one sweep rings for."""
    site.rung = []
    for status in TASKS:
        claims.announce_due(site.runtime, status)
    callbacks.announce_waiting(site.runtime)
    return site.rung


def test_what_was_not_announced_is_recorded_all_the_same_and_found_by_the_sweep(
    site: Site, redis: RedisServer
) -> None:
    config = Config.load({"CELERY_BROKER_URL": redis.url})
    redis.kill9()
    hearing = site.runtime
    site.runtime = replace(hearing, ring=Bell(config))
    first, second = site.fax("0044"), site.fax("0044")
    sending.attempt(site.runtime, second)
    site.receive(site.callback(site.final_at_carrier(second)))
    site.now += timedelta(seconds=1)
    assert seconds_for(lambda: jobs.cancel(site.runtime, ACTOR, second)) < SOON
    site.runtime = hearing

    assert announced(site) == [(SEND, first), ("faxbot.poll_fax", second)]
    site.now += timedelta(seconds=6.9)
    assert announced(site) == []
    site.now += timedelta(seconds=0.1)
    ((task, callback_id),) = announced(site)
    assert task == "faxbot.apply_callback"
    assert announced(site) == []
    site.now += timedelta(seconds=10)
    assert set(announced(site)) >= {(SEND, first), (task, callback_id)}
    site.work()
    assert site.job(first).status == "sent"
    assert site.job(second).status == "delivered"


def test_what_is_urgent_is_answered_first_and_age_makes_urgent(
    redis: RedisServer, config: Config, site: Site
) -> None:
    """As a worker takes the messages: kombu looks into the lists in this order."""
    ring = Bell(config)
    for number, urgency in enumerate((0, 128, 255, 60, 190)):
        assert ring(SEND, f"{number}", urgency)
    with redis.client() as client:
        names = [
            f"faxbot:send{suffix}" for suffix in ("", *(f"\x06\x16{step}" for step in (3, 6, 9)))
        ]
        order = [
            json.loads(base64.b64decode(json.loads(message)["body"]))[0][0]
            for name in names
            for message in reversed(client.lrange(name, 0, -1))
        ]
    assert order == ["2", "4", "1", "3", "0"]

    rung: list[int] = []

    def note(_task: str, _row_id: str, urgency: int = 0, /) -> bool:
        rung.append(urgency)
        return True

    site.submit("+15550100000", priority=0)
    site.runtime = replace(site.runtime, ring=note)
    for _ in range(12):
        site.now += timedelta(minutes=5)
        claims.announce_due(site.runtime, Status.QUEUED)
    assert rung == sorted(rung)
    assert (rung[0], rung[-1]) == (40, 255)
