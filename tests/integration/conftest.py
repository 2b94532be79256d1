"""Fixtures for tests of the domain: a carrier for the session, and the road over each kind of store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from flask.testing import FlaskClient

from faxbot.config import Config
from faxbot.db import utcnow
from faxbot.runtime import Runtime
from tests.carrier import SimulatorProcess
from tests.ground import Ground
from tests.installation import Installation, Stores
from tests.integration.clock import Clock
from tests.integration.site import Site, open_site
from tests.integration.web import SECRET, client_of, new_key
from tests.servers import Postgres, RedisServer


@pytest.fixture(scope="session")
def carrier_of_all(ground: Ground) -> Iterator[SimulatorProcess]:
    """One carrier process for all tests that do no harm to it; its ledger counts by tag."""
    with SimulatorProcess(ground.new_folder("carrier")) as carrier:
        yield carrier


@pytest.fixture
def site(store: Installation, carrier_of_all: SimulatorProcess) -> Iterator[Site]:
    """The road over a database of its own."""
    with open_site(store, carrier_of_all) as site:
        yield site


@pytest.fixture
def adds_up(site: Site) -> Iterator[None]:
    """Whatever a test did, each status is the fold of the fax's events."""
    yield
    site.add_up()


@pytest.fixture
def on_postgresql(
    stores: Stores,
    postgres_server: Postgres,
    redis_server: RedisServer,
    carrier_of_all: SimulatorProcess,
) -> Iterator[Site]:
    """The same, for what PostgreSQL alone can do."""
    with (
        stores.postgresql(postgres_server, redis_server) as store,
        open_site(store, carrier_of_all) as site,
    ):
        yield site


@pytest.fixture
def config(store: Installation) -> Config:
    """An installation whose provider has all it needs; nobody need listen there."""
    return store.config(SIMULATOR_SECRET=SECRET)


@pytest.fixture
def clock() -> Clock:
    return Clock(utcnow())


@pytest.fixture
def at(runtime: Runtime, clock: Clock) -> Runtime:
    """A runtime whose time is in hand."""
    return replace(runtime, now=clock)


@pytest.fixture
def client(runtime: Runtime) -> FlaskClient:
    """A client of the HTTP API with a key that may send and read."""
    return client_of(runtime, new_key(runtime))
