"""Limits as clients meet them: 429 with a true Retry-After, each for who deserves it; whose address counts."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest
import sqlalchemy as sa
from flask import g
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from faxbot import wiring
from faxbot.config import Config
from faxbot.db import Database
from faxbot.models import FailedLogin
from faxbot.runtime import Runtime
from faxbot.web.auth import WITHOUT_KEY
from tests.installation import Installation, Service, Stores
from tests.integration.test_limits import Clock, statements, wrong_key
from tests.integration.web import ACCESS, SECRET, assert_problem, client_of, new_key, send

LIMIT = 4
PROXY = "10.0.0.5"


@pytest.fixture
def store(embedded: Installation) -> Installation:
    """What depends on the kind of database is tested where it is counted."""
    return embedded


@pytest.fixture
def clock() -> Clock:
    return Clock()


def limited(store: Installation, clock: Clock, **settings: str) -> Iterator[Runtime]:
    runtime = wiring.build(store.config(SIMULATOR_SECRET=SECRET, **settings))
    try:
        yield replace(runtime, now=lambda: clock.now)
    finally:
        runtime.close()


@pytest.fixture
def runtime(store: Installation, clock: Clock) -> Iterator[Runtime]:
    yield from limited(
        store,
        clock,
        MAX_REQUESTS_PER_MINUTE=str(LIMIT),
        FAXBOT_LOGIN_FAILURES=str(LIMIT),
        FAXBOT_PAGES_PER_DAY="3",
        FAXBOT_TRUSTED_PROXIES=PROXY,
    )


def too_many(response: TestResponse, code: str) -> tuple[int, str]:
    """The seconds of Retry-After, and what the answer says."""
    body = assert_problem(response, 429, code)
    seconds = response.headers["Retry-After"]
    assert seconds.isdecimal()
    return int(seconds), str(body["detail"])


# Requests a minute ----------------------------------------------------------------------------------


def test_a_key_has_so_many_requests_a_minute_whatever_they_are(
    runtime: Runtime, clock: Clock
) -> None:
    client = client_of(runtime, new_key(runtime))
    said = [
        client.get("/fax").status_code,
        client.get(f"/fax/{'0' * 32}").status_code,
        client.get("/admin/providers").status_code,
        send(client, to="nonsense").status_code,
    ]
    assert said == [200, 404, 403, 400]

    for path in ("/fax", "/admin/providers"):
        seconds, detail = too_many(client.get(path), "requests-per-minute")
        assert 1 <= seconds <= 60
        assert "MAX_REQUESTS_PER_MINUTE" in detail
    too_many(send(client), "requests-per-minute")
    assert client_of(runtime, new_key(runtime)).get("/fax").status_code == 200

    clock.forward(seconds)
    assert [client.get("/fax").status_code for _ in range(LIMIT)] == [200] * LIMIT
    too_many(client.get("/fax"), "requests-per-minute")


def test_a_second_too_early_is_too_early(runtime: Runtime, clock: Clock) -> None:
    client = client_of(runtime, new_key(runtime))
    clock.forward(0.3)
    for _ in range(LIMIT):
        client.get("/fax")
    seconds, _ = too_many(client.get("/fax"), "requests-per-minute")

    clock.forward(seconds - 1)
    assert too_many(client.get("/fax"), "requests-per-minute")[0] == 1
    clock.forward(1)
    assert client.get("/fax").status_code == 200


def test_what_asks_for_no_key_is_not_counted(runtime: Runtime) -> None:
    client = client_of(runtime, new_key(runtime))
    for _ in range(3 * LIMIT):
        assert client.get("/health").status_code == 200

    assert client.get("/fax").status_code == 200


@pytest.mark.parametrize("requests", ["0", "1000"])
def test_a_read_costs_no_statement_more_with_limits(
    store: Installation, clock: Clock, requests: str
) -> None:
    for runtime in limited(store, clock, MAX_REQUESTS_PER_MINUTE=requests):
        client = client_of(runtime, new_key(runtime))
        client.get("/fax")
        with statements(runtime) as asked:
            for _ in range(20):
                client.get(f"/fax/{'0' * 32}")
        # Whose key it is, and the fax; beside them the version of the settings, every two seconds.
        assert 40 <= len(asked) <= 42
        assert set(asked) == {"SELECT"}


def test_without_the_database_the_answer_is_that_it_is_away(runtime: Runtime) -> None:
    client = client_of(replace(runtime, config=replace(runtime.config, api_key="k" * 40)), "k" * 40)

    def refuse(*_: object) -> None:
        raise sa.exc.OperationalError("", {}, Exception("the database is away"))

    client.get("/fax")
    client.get("/fax")
    runtime.tallies.take("default", "key:env", LIMIT, runtime.now())
    sa.event.listen(runtime.database.reader, "before_cursor_execute", refuse)
    response = client.get("/fax")

    assert_problem(response, 503, "database-away")
    assert response.headers["Retry-After"]


# Failed logins --------------------------------------------------------------------------------------


def attempt(client: FlaskClient, key: str, peer: str, **headers: str) -> TestResponse:
    return client.get(
        "/fax", headers={"X-API-Key": key, **headers}, environ_base={"REMOTE_ADDR": peer}
    )


def statuses(client: FlaskClient, count: int, peer: str, **headers: str) -> list[int]:
    return [attempt(client, wrong_key(), peer, **headers).status_code for _ in range(count)]


def test_an_address_with_wrong_keys_is_told_when_to_come_again(
    runtime: Runtime, clock: Clock
) -> None:
    client, good = client_of(runtime), new_key(runtime)
    assert statuses(client, LIMIT, "203.0.113.7") == [401] * LIMIT
    clock.forward(100)
    seconds, _ = too_many(attempt(client, wrong_key(), "203.0.113.7"), "failed-logins")
    assert seconds == 800

    assert attempt(client, good, "203.0.113.7").status_code == 200
    assert statuses(client, 1, "203.0.113.8") == [401]
    clock.forward(seconds)
    assert statuses(client, 1, "203.0.113.7") == [401]


@pytest.mark.parametrize("route", sorted(r for r, a in ACCESS.items() if a not in WITHOUT_KEY))
def test_every_route_with_a_key_has_the_limits(runtime: Runtime, route: str) -> None:
    method, path = route.split()
    client, key = client_of(runtime), new_key(runtime)
    statuses(client, LIMIT, "127.0.0.1")
    path = path.replace("<", "").replace(">", "")

    too_many(client.open(path, method=method, headers={"X-API-Key": wrong_key()}), "failed-logins")
    for _ in range(LIMIT):
        client.get("/fax", headers={"X-API-Key": key})
    too_many(client.open(path, method=method, headers={"X-API-Key": key}), "requests-per-minute")


def test_whoever_invents_where_he_comes_from_is_counted_where_he_is(runtime: Runtime) -> None:
    client = client_of(runtime)
    said = [
        attempt(
            client, wrong_key(), "203.0.113.7", **{"X-Forwarded-For": f"198.51.100.{number}"}
        ).status_code
        for number in range(LIMIT + 2)
    ]

    assert said == [401] * LIMIT + [429] * 2


def test_behind_a_trusted_proxy_each_client_is_counted_for_himself(runtime: Runtime) -> None:
    client = client_of(runtime)
    assert statuses(client, LIMIT, PROXY, **{"X-Forwarded-For": "203.0.113.7"}) == [401] * LIMIT

    for written in ("203.0.113.7", "1.2.3.4, 203.0.113.7", f"{PROXY}, 203.0.113.7"):
        assert statuses(client, 1, PROXY, **{"X-Forwarded-For": written}) == [429]
    assert statuses(client, 1, PROXY, **{"X-Forwarded-For": "203.0.113.7, 203.0.113.8"}) == [401]
    assert statuses(client, 1, "203.0.113.7") == [429]


@pytest.mark.parametrize(
    ("peer", "address"), [(PROXY, "203.0.113.7"), ("10.0.0.6", "10.0.0.6"), ("", None)]
)
def test_who_does_something_is_known_with_his_address(
    runtime: Runtime, peer: str, address: str | None
) -> None:
    with client_of(runtime) as client:
        forwarded = {"X-Forwarded-For": "1.2.3.4, 203.0.113.7"}
        assert attempt(client, new_key(runtime), peer, **forwarded).status_code == 200
        assert g.actor.address == address


# Pages a day ----------------------------------------------------------------------------------------


def test_an_account_that_has_sent_its_pages_is_told_until_when(
    runtime: Runtime, clock: Clock
) -> None:
    keys = [new_key(runtime), new_key(runtime)]
    for number in range(3):
        assert send(client_of(runtime, keys[number % 2])).status_code == 202
    clock.forward(3600)
    client = client_of(runtime, keys[0])
    seconds, detail = too_many(send(client, key="order-1"), "pages-per-day")

    assert seconds == 11 * 3600
    assert "FAXBOT_PAGES_PER_DAY" in detail
    clock.forward(seconds)
    response = send(client, key="order-1")
    assert (response.status_code, response.headers.get("Idempotency-Replayed")) == (202, None)


# The real server ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def service(stores: Stores) -> Iterator[Service]:
    """A whole faxbot of three web processes that trusts this machine to be its proxy."""
    service = Service(
        stores.embedded(),
        "up",
        FAX_DISABLED="true",
        FAXBOT_WEB_WORKERS="3",
        FAXBOT_LOGIN_FAILURES="6",
        FAXBOT_TRUSTED_PROXIES="127.0.0.1",
    )
    service.start()
    yield service
    service.stop()


def raw(service: Service, *headers: str, path: str = "GET /fax") -> int:
    """The status that one request on a connection of its own has."""
    method, path = path.split()
    lines = [f"{method} {path} HTTP/1.1", "Host: faxbot", *headers, "Connection: close", "", ""]
    with closing(socket.create_connection(("127.0.0.1", service.port), timeout=20)) as connection:
        connection.sendall("\r\n".join(lines).encode())
        answer = b""
        while data := connection.recv(65536):
            answer += data
    return int(answer.split()[1])


def test_three_processes_count_what_one_address_fails(service: Service) -> None:
    said = [
        raw(service, f"X-API-Key: {wrong_key()}", "X-Forwarded-For: 203.0.113.9") for _ in range(40)
    ]

    assert said == [401] * 6 + [429] * 34
    assert raw(service, f"X-API-Key: {service.key}", "X-Forwarded-For: 203.0.113.9") == 200


def test_the_real_server_counts_whom_the_proxy_names_and_nobody_invented(service: Service) -> None:
    for written in (
        ["X-Forwarded-For: 1.2.3.4, 203.0.113.20"],
        ["X-Forwarded-For: 1.2.3.4", "X-Forwarded-For: 203.0.113.20"],
        ["X-Forwarded-For: 203.0.113.20", "X_Forwarded_For: 1.2.3.4", "Forwarded: for=1.2.3.4"],
    ):
        assert raw(service, f"X-API-Key: {wrong_key()}", *written) == 401

    with closing(Database(Config.load(service.env))) as database, database.reading() as session:
        rows = session.execute(sa.select(FailedLogin.origin, FailedLogin.failures))
        failures = {row.origin: row.failures for row in rows}
    assert failures["203.0.113.20"] == 3
    assert "1.2.3.4" not in failures
