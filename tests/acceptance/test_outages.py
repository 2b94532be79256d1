"""Database, broker and everything at once go away and come back: nothing is lost, nothing comes
twice."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.acceptance.site import PDF, SHORT, Site
from tests.carrier import SimulatorProcess
from tests.conftest import StartService
from tests.ground import Ground, eventually
from tests.installation import Installation, Stores
from tests.servers import PostgresServer, RedisServer


@pytest.fixture
def redis(ground: Ground) -> Iterator[RedisServer]:
    server = RedisServer(ground)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def site(
    ground: Ground, own_postgres: PostgresServer, redis: RedisServer, start_service: StartService
) -> Iterator[Site]:
    """On a PostgreSQL and a Redis that this test may break."""
    with (
        Stores(ground).postgresql(own_postgres, redis) as store,
        SimulatorProcess(store.folder) as it,
    ):
        service = start_service(store, "up", **SHORT, **it.environ)
        yield Site(service, it)
        service.stop()
        if (
            own_postgres.process is None
        ):  # the test failed in the middle; its database is dropped below
            own_postgres.start()


def is_delivered_once(site: Site, fax_id: str) -> bool:
    return site.final(fax_id, timeout=60)["status"] == "delivered" and site.at_carrier(fax_id) == 1


def test_a_broker_that_is_stopped_or_frozen_costs_time_and_no_fax(
    site: Site, redis: RedisServer
) -> None:
    redis.kill9()
    stopped = [site.send() for _ in range(3)]
    redis.start()
    assert all(is_delivered_once(site, fax_id) for fax_id in stopped)

    def three() -> tuple[list[str], float]:
        begun = time.monotonic()
        return [site.send() for _ in range(3)], time.monotonic() - begun

    _, usual = three()
    redis.freeze()
    frozen, took = three()
    redis.thaw()
    # Each web process finds out for itself, in 0.2 s twice at most; the bell is silent after that.
    assert took < 5 + 3 * usual
    assert all(is_delivered_once(site, fax_id) for fax_id in frozen)


def test_a_database_that_is_away_is_a_503_and_the_same_request_goes_through_later(
    site: Site, own_postgres: PostgresServer
) -> None:
    before = site.send()
    request = {
        "data": {"to": "+15550100000"},
        "headers": {"Idempotency-Key": "the-same"},
    }
    own_postgres.kill9()

    away = site.service.request("POST", "/fax/send", files={"file": PDF.read_bytes()}, **request)

    assert (away.status_code, away.json()["type"]) == (503, "/docs#database-away")
    assert "Retry-After" in away.headers
    assert site.service.request("GET", "/health").status_code == 200
    ready = site.service.request("GET", "/health/ready")
    assert (ready.status_code, ready.json()["parts"]["database"]["ok"]) == (503, False)

    own_postgres.start()
    answer = eventually(lambda: submitted(site, request), 30, every=0.2)
    assert is_delivered_once(site, answer)
    assert is_delivered_once(site, before)


def submitted(site: Site, request: dict[str, dict[str, str]]) -> str:
    """The id of the accepted fax; empty while the database is still away."""
    files = {"file": PDF.read_bytes()}
    answer = site.service.request("POST", "/fax/send", files=files, **request)
    return str(answer.json()["id"]) if answer.status_code == 202 else ""


def test_the_embedded_broker_may_be_killed_while_faxes_come_in(
    embedded: Installation, start_service: StartService
) -> None:
    with SimulatorProcess(embedded.folder) as carrier:
        service = start_service(embedded, "up", **SHORT, **carrier.environ)
        site = Site(service, carrier)
        site.kill("broker")
        faxes = [site.send() for _ in range(3)]

        assert all(is_delivered_once(site, fax_id) for fax_id in faxes)
        service.stop()
