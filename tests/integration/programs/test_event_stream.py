"""GET /events/stream on real servers over real sockets: what is told, to whom, for how long, and at what cost."""

from __future__ import annotations

import json
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any

import psutil
import pytest
import requests
import sqlalchemy as sa

from faxbot import actors, identity, results, sessions, users
from faxbot.db import new_id, utcnow
from faxbot.errors import ListenersFull
from faxbot.events import Event, Status
from faxbot.feed import Cursor, Filters
from faxbot.hidden import Hidden
from faxbot.models import FaxEvent
from faxbot.runtime import Runtime
from faxbot.web import auth, schemas
from faxbot.web.auth import Shown, cookie_name
from faxbot.web.endless import Piece
from faxbot.web.streams import LOOK_SECONDS, Listener, Streams
from tests import installation
from tests.conftest import StartService
from tests.ground import eventually
from tests.installation import FAXBOT, Installation, Service, Stores
from tests.integration.site import Site
from tests.integration.test_identity import statements
from tests.integration.web import NUMBER, SECRET, TEXT, begun, new_key, new_user, opened
from tests.servers import Postgres, PostgresServer, RedisServer
from tests.stream import Ear, Silence, Told, listen

HEARTBEAT = 0.5
WEB = {
    "FAXBOT_WEB_WORKERS": "1",
    "FAXBOT_WEB_THREADS": "4",
    "FAXBOT_STREAM_HEARTBEAT_SECONDS": str(HEARTBEAT),
    "FAXBOT_MAX_LISTENERS": "1000",
    "SIMULATOR_SECRET": SECRET,
    "FAX_DISABLED": "true",
}
IDLE = 200


@dataclass
class Writer:
    """Somebody who records events."""

    runtime: Runtime

    def progress(self, job_id: str, count: int = 1) -> None:
        for _ in range(count):
            with self.runtime.database.transaction() as session:
                job = results.locked(session, job_id)
                results.record_event(session, job, Event.PROGRESS, now=utcnow(), source="api")

    def many(self, job_id: str, count: int) -> None:
        """As progress(), in one go."""
        with self.runtime.database.transaction() as session:
            job = results.locked(session, job_id)
            status, rows = Status(job.status), []
            for _ in range(count):
                job.last_sequence += 1
                row = results.event_row(
                    job, Event.PROGRESS, now=utcnow(), source="api", status=status
                )
                rows.append(row)
            session.flush()
            session.execute(sa.insert(FaxEvent), rows)


@dataclass
class House(Writer):
    """A running web process, and the runtime of somebody beside it who writes."""

    service: Service
    stack: ExitStack

    def listen(self, **options: Any) -> Ear:
        return self.stack.enter_context(listen(self.service, **options))

    def fax(self) -> str:
        """The id of a new fax, whose first event is FAX_QUEUED."""
        answer = self.submit()
        assert answer.status_code == 202
        return str(answer.json()["id"])

    def submit(self) -> requests.Response:
        files = {"file": ("document", TEXT)}
        return self.service.request("POST", "/fax/send", data={"to": NUMBER}, files=files)

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.service.pid).children()


@contextmanager
def house(store: Installation, start_service: StartService, **changes: str) -> Iterator[House]:
    service = start_service(store, "web", **{**WEB, **changes})
    with opened(store) as runtime, ExitStack() as stack:
        yield House(runtime, service, stack)


@pytest.fixture
def home(store: Installation, broker: str, start_service: StartService) -> Iterator[House]:
    assert broker
    with house(store, start_service) as home:
        yield home


@pytest.fixture
def alone(
    stores: Stores, postgres_server: Postgres, redis_server: RedisServer
) -> Iterator[Installation]:
    """For what runs once."""
    with stores.postgresql(postgres_server, redis_server) as store:
        yield store


@pytest.fixture
def small(alone: Installation, start_service: StartService) -> Iterator[House]:
    with house(alone, start_service, FAXBOT_MAX_LISTENERS="3") as home:
        yield home


def told_of(events: list[Told]) -> list[tuple[str, int]]:
    return [(event.data["data"]["fax_id"], event.data["data"]["sequence"]) for event in events]


# What is told ---------------------------------------------------------------------------------------------------


def test_what_happens_is_told_as_it_happens(home: House) -> None:
    earlier = home.fax()
    ear = home.listen()
    assert (ear.status, ear.headers["connection"]) == (200, "close")
    assert "transfer-encoding" not in ear.headers

    fax_id = home.fax()
    began = time.monotonic()
    home.progress(fax_id)
    events = ear.take(2)

    assert time.monotonic() - began < 14
    assert told_of(events) == [(fax_id, 1), (fax_id, 2)]
    assert [event.type for event in events] == ["FAX_QUEUED", "FAX_PROGRESS"]
    listed = home.service.request("GET", "/events").json()["items"]
    assert [event.data for event in events] == listed[1:]
    assert [event.id for event in events] == [item["id"] for item in listed[1:]]
    assert listed[0]["data"]["fax_id"] == earlier
    assert ear.retry == 3000


def test_a_cursor_says_where_to_begin_and_last_event_id_goes_before_it(home: House) -> None:
    fax_id = home.fax()
    home.progress(fax_id, 4)
    items = home.service.request("GET", "/events").json()["items"]
    first, third = items[0]["id"], items[2]["id"]

    everything = home.listen(cursor="0-0").take(5)
    behind_first = home.listen(cursor=first).take(4)
    behind_third = home.listen(cursor=first, headers={"Last-Event-ID": third}).take(2)

    assert [sequence for _, sequence in told_of(everything)] == [1, 2, 3, 4, 5]
    assert [sequence for _, sequence in told_of(behind_first)] == [2, 3, 4, 5]
    assert [sequence for _, sequence in told_of(behind_third)] == [4, 5]


def test_only_what_is_asked_for_is_told_and_the_place_goes_on_with_the_heartbeat(
    home: House,
) -> None:
    one, two = home.fax(), home.fax()
    of_one = home.listen(fax_id=one)
    of_type = home.listen(type="FAX_QUEUED,FAX_DELIVERED")
    for fax_id in (two, one, two):
        home.progress(fax_id)
    third = home.fax()

    assert told_of(of_one.take(1)) == [(one, 2)]
    assert told_of(of_type.take(1)) == [(third, 1)]
    newest = home.service.request("GET", "/events").json()["next"]

    def place_is_the_newest() -> bool:
        assert told_of(of_one.until_comment("heartbeat")) == []
        with suppress(Silence):  # its id comes behind the comment
            of_one.take(1, within=0.05)
        return bool(of_one.last_id == newest)

    eventually(place_is_the_newest)


def test_another_account_hears_nothing_and_a_wrong_scope_is_refused(home: House) -> None:
    foreign = home.listen(key=new_key(home.runtime, "events:read", account_id="other"))
    ours = home.listen(key=new_key(home.runtime, "events:read"))
    refused = home.listen(key=new_key(home.runtime, "fax:read", "fax:send"))
    nobody = home.listen(key="")
    fax_id = home.fax()

    assert told_of(ours.take(1)) == [(fax_id, 1)]
    foreign.until_comment("heartbeat")
    assert told_of(foreign.until_comment("heartbeat")) == []
    assert (refused.status, json.loads(refused.body)["type"]) == (403, "/docs#forbidden")
    assert "events:read" in json.loads(refused.body)["detail"]
    assert (nobody.status, nobody.headers["www-authenticate"][:6]) == (401, "Bearer")


def test_many_who_come_back_with_different_places_all_get_the_rest_once(home: House) -> None:
    fax_id = home.fax()
    home.many(fax_id, 1200)
    cursors = ["0-0"]
    page = home.service.request("GET", "/events?limit=400").json()
    while page["more"]:
        cursors.append(page["next"])
        page = home.service.request("GET", f"/events?limit=400&cursor={page['next']}").json()

    ears = [home.listen(headers={"Last-Event-ID": cursor}) for cursor in cursors * 3]
    home.progress(fax_id, 5)  # while they catch up

    for number, ear in enumerate(ears):
        already = 400 * (number % len(cursors))
        got = [sequence for _, sequence in told_of(ear.take(1206 - already))]
        assert got == list(range(already + 1, 1207))


# Coming back ----------------------------------------------------------------------------------------------------


def test_across_restarts_nothing_is_missed_and_nothing_comes_twice(home: House) -> None:
    fax_id, over = home.fax(), threading.Event()
    heard = Heard(home)

    def write() -> None:
        while not over.wait(0.005):
            home.progress(fax_id)

    def hears_more() -> None:
        so_far = len(heard.events)
        eventually(lambda: len(heard.events) > so_far + 3, 20)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        hears_more()
        for end in (home.service.stop, home.service.kill9, home.service.stop):
            end()
            home.service.start()
            hears_more()
    finally:
        over.set()
        writer.join()
    last = home.service.request("GET", f"/fax/{fax_id}/events").json()["events"][-1]["sequence"]
    try:
        eventually(lambda: len(heard.events) >= last, 20)
    finally:
        heard.stop()

    assert heard.events == [(fax_id, number) for number in range(1, last + 1)]
    assert heard.times >= 4


class Heard:
    """A client that comes again until it is stopped, as browsers do."""

    def __init__(self, home: House) -> None:
        self.events: list[tuple[str, int]] = []
        self.times = 0
        self._over = threading.Event()
        self._home = home
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        last_id = "0-0"
        while not self._over.is_set():
            try:
                with listen(self._home.service, headers={"Last-Event-ID": last_id}) as ear:
                    if ear.status != 200:
                        continue
                    self.times += 1
                    while not ear.has_ended and not self._over.is_set():
                        with suppress(Silence):
                            self.events += told_of(ear.take(1, within=0.3))
                        last_id = ear.last_id or last_id
            except (OSError, AssertionError):
                time.sleep(0.05)

    def stop(self) -> None:
        self._over.set()
        self._thread.join()


def test_a_server_that_stops_says_so_and_waits_for_nobody(small: House) -> None:
    ears = [small.listen() for _ in range(3)]
    for ear in ears:
        ear.until_comment("heartbeat")
    began = time.monotonic()
    small.service.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
    for ear in ears:
        ear.until_end(within=12)
        assert ear.comments[-1] == "this server stops; come again"
        ear.close()
    small.service.stop()

    assert time.monotonic() - began < 16  # of the 20 seconds that a request under way would have


def test_a_restored_database_under_a_running_server_ends_the_streams(
    alone: Installation, start_service: StartService
) -> None:
    with house(alone, start_service) as home:
        fax_id = home.fax()
        home.progress(fax_id, 9)
        ear = home.listen(cursor="0-0")
        ear.take(10)
        with home.runtime.database.transaction() as session:
            session.execute(sa.delete(FaxEvent).where(FaxEvent.sequence > 5))
            session.execute(sa.text("UPDATE jobs SET last_sequence = 5"))
            session.execute(sa.text("SELECT setval('events_id_seq', 5)"))
        ear.until_end()
        assert "the database was restored; come again" in ear.comments

        again = home.listen(headers={"Last-Event-ID": str(ear.last_id)})
        home.progress(fax_id, 2)
        assert told_of(again.take(7))[-2:] == [(fax_id, 6), (fax_id, 7)]


@pytest.mark.parametrize("more", [5, 8], ids=["as many", "more"])
def test_a_restored_database_that_has_gone_on_before_anybody_looked_ends_them_too(
    alone: Installation, start_service: StartService, more: int
) -> None:
    with house(alone, start_service) as home:
        fax_id = home.fax()
        home.progress(fax_id, 9)
        ear = home.listen(cursor="0-0")
        ear.take(10)
        with home.runtime.database.transaction() as session:
            session.execute(sa.delete(FaxEvent).where(FaxEvent.sequence > 5))
            session.execute(sa.text("UPDATE jobs SET last_sequence = 5"))
            session.execute(sa.text("SELECT setval('events_id_seq', 5)"))
            job = results.locked(session, fax_id)
            for _ in range(more):
                results.record_event(session, job, Event.PROGRESS, now=utcnow(), source="api")
        assert ear.until_end() == [], "it would go on from there, and miss others"
        assert "the database was restored; come again" in ear.comments

        again = home.listen(headers={"Last-Event-ID": str(ear.last_id)})
        assert told_of(again.take(5 + more))[5:] == [(fax_id, 6 + each) for each in range(more)]


def test_while_the_database_is_away_hearts_beat_and_then_nothing_is_missing(
    stores: Stores,
    own_postgres: PostgresServer,
    redis_server: RedisServer,
    start_service: StartService,
) -> None:
    with (
        stores_of_own(stores, own_postgres, redis_server) as store,
        house(store, start_service) as home,
    ):
        fax_id = home.fax()
        ear = home.listen()
        home.progress(fax_id)
        assert told_of(ear.take(1)) == [(fax_id, 2)]

        own_postgres.kill9()
        eventually(lambda: home.service.request("GET", "/health/ready").status_code == 503, 20)
        for _ in range(5):
            assert told_of(ear.until_comment("heartbeat", within=HEARTBEAT + 20)) == []
        own_postgres.start()
        eventually(lambda: home.service.request("GET", "/health/ready").status_code == 200, 30)
        home.progress(fax_id)

        assert told_of(ear.take(1, within=20)) == [(fax_id, 3)]
        eventually(lambda: "events are read again" in home.service.output())
        output = home.service.output()
        assert output.count("events cannot be read for those who listen") == 1
        assert output.count("events are read again") == 1


@contextmanager
def stores_of_own(
    stores: Stores, postgres: PostgresServer, redis: RedisServer
) -> Iterator[Installation]:
    """A database on a server that the test may kill; it goes with the server."""
    own = Stores(stores._ground)
    with own.postgresql(postgres, redis) as store:
        yield store


# Who may listen, and for how long -------------------------------------------------------------------------------


def signed_in(home: House, role: str) -> tuple[Any, Ear]:
    """A new user of this role, and his browser, which listens."""
    user = new_user(home.runtime, role)
    cookie = f"{cookie_name(home.runtime.config)}={begun(home.runtime, user)}"
    return user, home.listen(key="", headers={"Cookie": cookie})


def test_a_stream_ends_with_what_it_was_begun_with_and_the_others_go_on(
    alone: Installation, start_service: StartService
) -> None:
    with house(alone, start_service) as home:
        runtime = home.runtime
        deeds: dict[str, tuple[Ear, Callable[[Any], object]]] = {}

        key = new_key(runtime, "events:read")
        deeds["revoked"] = home.listen(key=key), partial(revoke, key)
        key = new_key(runtime, "events:read")
        deeds["rotated without overlap"] = home.listen(key=key), partial(rotate, runtime, key)
        key = new_key(runtime, "events:read")
        deeds["expired"] = home.listen(key=key), partial(expire, key)
        user, ear = signed_in(home, actors.OPERATOR)
        deeds["disabled"] = ear, partial(disable, user.id)
        user, ear = signed_in(home, actors.VIEWER)
        deeds["signed out"] = ear, partial(sign_out, user.id)

        keeps = [home.listen(), home.listen(key=new_key(runtime, "*"))]
        user, ear = signed_in(home, actors.ADMIN)
        keeps.append(ear)
        for why, (ear, deed) in deeds.items():
            ear.until_comment("heartbeat")
            with runtime.database.transaction() as session:
                deed(session)
            ear.until_end(within=HEARTBEAT + 20)
            assert ear.comments[-1] == "this key or session may not listen any more", why
            again = home.listen(key="", headers={"X-API-Key": "x"})
            assert again.status == 401
        fax_id = home.fax()
        for ear in keeps:
            assert told_of(ear.take(1)) == [(fax_id, 1)]


def revoke(key: str, session: Any) -> None:
    identity.revoke_key(session, key.split("_")[2], utcnow())


def rotate(runtime: Runtime, key: str, session: Any) -> None:
    identity.rotate_key(
        session, runtime.keyring, actors.CLI, key.split("_")[2], overlap=timedelta(), now=utcnow()
    )


def expire(key: str, session: Any) -> None:
    session.execute(
        sa.text("UPDATE api_keys SET expires_at = :at WHERE id = :id"),
        {"at": "2026-01-01 00:00:00", "id": key.split("_")[2]},
    )


def disable(user_id: str, session: Any) -> None:
    users.disable(session, actors.CLI, user_id, now=utcnow())


def sign_out(user_id: str, session: Any) -> None:
    session.execute(sa.text("DELETE FROM user_sessions WHERE user_id = :id"), {"id": user_id})


# How many, and what they cost -----------------------------------------------------------------------------------


def test_over_the_cap_there_is_a_503_and_who_is_gone_leaves_his_place(small: House) -> None:
    first, _, third = (small.listen() for _ in range(3))
    refused = small.listen()

    assert (refused.status, refused.headers["retry-after"]) == (503, "10")
    problem = json.loads(refused.body)
    assert schemas.Problem().validate(problem) == {}
    assert problem["type"] == "/docs#listeners-full"
    assert small.service.request("GET", "/health").status_code == 200

    for gone in (first, third):
        gone.close()
        taken = eventually(lambda: ear if (ear := small.listen()).status == 200 else None)
        assert taken is not None
        fax_id = small.fax()
        assert told_of(taken.take(1)) == [(fax_id, 1)]


def test_one_key_gets_a_quarter_of_the_places_and_the_others_theirs(
    alone: Installation, start_service: StartService
) -> None:
    with house(alone, start_service, FAXBOT_MAX_LISTENERS="20") as home:
        key, other = (new_key(home.runtime, "events:read") for _ in range(2))
        first = [home.listen(key=key) for _ in range(5)]
        assert {ear.status for ear in first} == {200}
        for refused in (home.listen(key=key), home.listen(key=key, cursor="0-0")):
            assert (refused.status, refused.headers["retry-after"]) == (503, "10")
            assert "share" in json.loads(refused.body)["detail"]
        assert [home.listen(key=other).status for _ in range(6)] == [200] * 5 + [503]

        first[0].close()
        assert eventually(lambda: home.listen(key=key).status == 200)


def test_few_places_are_nobodys_share(site: Site) -> None:
    """Four in any case, where there are as many; and where nobody needs a key, all who come are not one."""
    config = replace(site.runtime.config, max_listeners=6)
    streams = Streams(replace(site.runtime, config=config, now=utcnow))
    ours = actors.Actor("default", "a key", frozenset({"*"}))

    def comes(shown: Shown) -> bool:
        with suppress(ListenersFull):
            streams.open(ours, shown, Filters(), None)
            return True
        return False

    key = Shown(Hidden("fbk_live_x"), None)
    assert [comes(key) for _ in range(5)] == [True] * 4 + [False]
    assert [comes(auth.NOTHING) for _ in range(3)] == [True, True, False]


def test_where_files_are_few_half_of_the_connections_are_left_for_requests(
    alone: Installation, start_service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = alone.folder / "few-files"
    few.write_text(f'#!/bin/sh\nulimit -n 160\nexec "{FAXBOT}" "$@"\n')
    few.chmod(0o700)
    monkeypatch.setattr(installation, "FAXBOT", few)
    with house(alone, start_service) as home:
        keys = [new_key(home.runtime, "events:read") for _ in range(5)]
        ears = [home.listen(key=key) for key in keys for _ in range(8)]
        there = [ear for ear in ears if ear.status == 200]
        assert len(there) == 32  # 160 without 96 for the four threads and what else is open, halved
        assert home.submit().status_code == 202
        assert {ear.status for ear in ears if ear not in there} == {503}


def test_streams_with_a_body_that_never_comes_hold_no_thread(small: House) -> None:
    ears = [small.listen(headers={"Content-Length": "5"}) for _ in range(3)]
    fax_id = small.fax()
    for ear in ears:
        assert told_of(ear.take(1)) == [(fax_id, 1)]
    assert [small.submit().status_code for _ in range(5)] == [202] * 5


def test_two_hundred_who_listen_hold_no_thread_and_little_memory(home: House) -> None:
    done = home.fax()
    (worker,) = home.workers()
    warm = [home.listen(fax_id=done) for _ in range(20)]
    before = worker.memory_info().rss

    ears = warm + [home.listen(fax_id=done) for _ in range(IDLE - len(warm))]
    assert {ear.status for ear in ears} == {200}
    each = (worker.memory_info().rss - before) / (IDLE - len(warm))
    assert worker.num_threads() < 10
    assert each < 64 * 1024

    answers = [home.submit() for _ in range(20)]
    assert {answer.status_code for answer in answers} == {202}
    assert max(answer.elapsed.total_seconds() for answer in answers) < 8
    assert home.service.request("GET", "/health").elapsed.total_seconds() < 8
    home.progress(done)
    for ear in ears:
        assert told_of(ear.take(1)) == [(done, 2)]


def test_everybody_who_listens_is_told_everything_under_load(home: House) -> None:
    ears = [home.listen() for _ in range(50)]
    faxes = [home.fax() for _ in range(3)]
    for fax_id in faxes:
        home.many(fax_id, 700)

    expected = told_of(ears[0].take(2103))
    assert len(set(expected)) == 2103
    for ear in ears[1:]:
        assert told_of(ear.take(2103)) == expected


def test_who_is_slow_gets_all_of_it_once_and_keeps_nobody_waiting(home: House) -> None:
    fax_id = home.fax()
    slow, quick = home.listen(receive_buffer=4096), home.listen()
    (worker,) = home.workers()
    quick_got, count = 0, 4000
    memory = worker.memory_info().rss
    for _ in range(4):  # about a megabyte, of which he takes nothing yet
        home.many(fax_id, count // 4)
        quick_got += len(quick.take(count // 4))
    assert quick_got == count
    grown = worker.memory_info().rss - memory

    got = [sequence for _, sequence in told_of(slow.take(count, within=60))]
    assert got == list(range(2, count + 2))
    assert grown < 8 * 1024 * 1024


@pytest.mark.waits
def test_who_takes_nothing_is_given_up_and_can_come_again(
    alone: Installation, start_service: StartService
) -> None:
    with house(alone, start_service, FAXBOT_MAX_LISTENERS="1") as home:
        fax_id = home.fax()
        asleep = home.listen(receive_buffer=4096, cursor="0-0")
        home.many(fax_id, 4000)
        assert home.listen().status == 503

        ear = eventually(lambda: one if (one := home.listen()).status == 200 else None, 60)
        assert ear is not None
        asleep.until_end(within=30)
        ear.close()
        again = eventually(
            lambda: (
                one
                if (one := home.listen(headers={"Last-Event-ID": str(asleep.last_id)})).status
                == 200
                else None
            )
        )
        assert again is not None
        seen = int(str(asleep.last_id).rpartition("-")[2])
        assert told_of(again.take(4001 - seen))[-1] == (fax_id, 4001)


# The reader, in this process ------------------------------------------------------------------------------------


class Ears:
    """Listeners of a reader in this process, whose connections take everything at once but for who is slow."""

    def __init__(self, runtime: Runtime) -> None:
        self.streams = Streams(runtime)
        self.got: dict[Listener, list[bytes]] = {}
        self.slow: set[Listener] = set()

    def open(self, cursor: Cursor | None = None) -> Listener:
        actor = actors.Actor("default", "env", frozenset({"*"}))
        ear = self.streams.open(actor, Shown(None, None), Filters(), cursor)
        self.got[ear] = []
        ear.begin(self._tell)
        ear.drained()
        return ear

    def _tell(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            assert isinstance(piece.to, Listener)
            self.got[piece.to].append(piece.data)
            if piece.to not in self.slow:
                piece.to.drained()

    def heard(self, ear: Listener) -> list[int]:
        """The sequence numbers that he was told."""
        return [int(number) for number in re.findall(rb'"sequence":(\d+)', b"".join(self.got[ear]))]

    def has_looked(self, times: int = 1) -> None:
        """Wait until the reader has looked for news so many times more."""
        seen = {self.streams.read_at}

        def enough() -> bool:
            seen.add(self.streams.read_at)
            return len(seen) > times

        eventually(enough)


@contextmanager
def listening(runtime: Runtime, count: int = 0) -> Iterator[Ears]:
    ears = Ears(runtime)
    for _ in range(count):
        ears.open()
    try:
        yield ears
    finally:
        for ear in ears.got:
            ear.ended()


def questions(runtime: Runtime, count: int) -> int:
    """How many statements so many listeners cause while the reader looks for news five times, in its own time."""
    with listening(runtime, count) as ears, statements(runtime, str) as asked:
        began = time.monotonic()
        ears.has_looked(6)
        assert time.monotonic() - began > 4 * LOOK_SECONDS
        return len(asked)


def test_who_waits_asks_nothing_and_one_reads_for_all(site: Site) -> None:
    runtime = replace(site.runtime, now=utcnow)
    assert runtime.config.stream_heartbeat > 5 * LOOK_SECONDS
    job_id = site.fax()
    with suppress(ZeroDivisionError), runtime.database.transaction() as session:
        job = results.locked(session, job_id)  # a number that no event will ever have
        results.record_event(session, job, Event.PROGRESS, now=utcnow(), source="api")
        raise ZeroDivisionError
    for_one, for_many = questions(runtime, 1), questions(runtime, 100)

    assert for_one <= 14
    assert for_many <= for_one + 4  # where the first look lies


def test_nobody_reads_where_nobody_listens(runtime: Runtime) -> None:
    def readers() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "events"]

    Streams(runtime)
    assert readers() == []
    with listening(runtime, 3):
        assert len(readers()) == 1
    eventually(lambda: not readers())
    with listening(runtime, 1) as ears:
        assert len(readers()) == 1
        ears.has_looked()
        standing = ears.streams.standing()
        assert abs((utcnow() - standing["read_at"]).total_seconds()) < 10
        assert (standing["listeners"], standing["most"]) == (1, runtime.config.max_listeners)
    eventually(lambda: not readers())


def test_who_comes_between_two_looks_is_not_told_what_was_there_already(site: Site) -> None:
    home, job_id = Writer(replace(site.runtime, now=utcnow)), site.fax()
    with listening(home.runtime) as ears:
        early = ears.open()
        ears.has_looked()
        home.progress(job_id)
        late = ears.open()
        home.progress(job_id)
        ears.has_looked(2)

        assert (ears.heard(early), ears.heard(late)) == ([2, 3], [3])


def test_nobody_is_given_more_before_he_has_taken_what_he_has(site: Site) -> None:
    home, job_id = Writer(replace(site.runtime, now=utcnow)), site.fax()
    with listening(home.runtime) as ears:
        slow, quick = ears.open(), ears.open()
        ears.slow.add(slow)
        for _ in range(3):
            home.many(job_id, 300)
            ears.has_looked(2)
        assert ears.heard(quick) == list(range(2, 902))
        assert len(ears.got[slow]) == 1
        assert b"id: " not in slow.heartbeat()

        ears.slow.clear()
        slow.drained()
        eventually(lambda: len(ears.heard(slow)) == 900)
        assert ears.heard(slow) == ears.heard(quick)
        assert f"id: {ears.streams.feed.last()}\n".encode() in slow.heartbeat()


def test_all_who_listen_are_looked_at_with_two_questions(runtime: Runtime) -> None:
    keys = [new_key(runtime, "events:read") for _ in range(5)] + [new_key(runtime, "fax:read")]
    tokens = [begun(runtime, new_user(runtime, role)) for role in actors.ROLES]
    shown = [Shown(Hidden(key), None) for key in keys]
    shown += [Shown(None, Hidden(token)) for token in tokens]
    strangers = [Shown(Hidden(f"fbk_live_{new_id()[:12]}_{'x' * 43}"), None), Shown(None, None)]

    with statements(runtime, str) as asked:
        good = auth.may_still(runtime, {*shown, *strangers}, "events:read")

    assert good == {*shown[:5], *shown[6:]}
    assert len(asked) == 2
    assert sessions.still_good(runtime, []) == {}
