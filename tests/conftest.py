"""Fixtures: real servers for the session, an installation for each test, services as processes, no
network.

A test that asks for `store` (or for `config`, `broker` or `runtime`, which come from it) runs
twice: on PostgreSQL with Redis, and on SQLite with the embedded broker. `make test` and `make
test-whole` run the first (--store postgresql) with all tests that run once, `make test-embedded`
the second; without --store both are run.
"""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from faxbot import wiring
from faxbot.config import Config
from faxbot.runtime import Runtime
from tests import guard, statements
from tests.browser import packages as chromium
from tests.debian import Store
from tests.ground import Ground
from tests.guard import allow_this_machine_only, name_connections
from tests.installation import Installation, Service, Stores
from tests.prometheus import packages as prometheus
from tests.providers.asterisk import packages as asterisk
from tests.servers import Postgres, PostgresServer, RedisServer, describe, given_postgres

allow_this_machine_only()
name_connections()
statements.share()


def pytest_runtest_logstart(nodeid: str) -> None:
    guard.running[:] = [nodeid]


# A shell that starts the tests in the background has them ignore Ctrl-C, and so would every process
# they start; what Ctrl-C does to those is among the things that are tested.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long something takes says nothing here: the machine may be busy.
settings.register_profile("usual", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", settings.get_profile("usual"), max_examples=2000)
settings.load_profile("usual")

StartService = Callable[..., Service]
ACCEPTANCE, BROWSER = "tests/acceptance/", "tests/browser/"
"""With these begin the names of tests."""
FETCHED: dict[str, Callable[[], Store[Any]]] = {
    "asterisk": asterisk.store,
    BROWSER: chromium.store,
    "tests/prometheus/": prometheus.store,
}
"""What is not there on every machine, by a word in the names of tests that need it."""


def pytest_report_header() -> list[str]:
    """Which servers the tests run on."""
    return [
        *describe(),
        *(f"{store().program.name}: {store().describe()}" for store in FETCHED.values()),
    ]


BOTH = ("embedded", "postgresql")


def pytest_addoption(parser: pytest.Parser) -> None:
    """--store, and without it both; what a run for the browser alone wants."""
    parser.addoption(
        "--store",
        choices=BOTH,
        help="postgresql: of what runs on both stores only this, and all that runs once; embedded: the rest.",
    )
    parser.addoption(
        "--need-chromium", action="store_true", help="without a Chromium the tests of pages fail."
    )
    parser.addoption(
        "--screenshots", action="store_true", help="draw the pictures in docs/screenshots anew."
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is for the other store goes. What mostly waits for calls comes first, and so to the first process; whole
    installations, which wait for each other's processes, to the second, and what needs a browser to the third: the
    others have the machine meanwhile, and nobody waits for these in the end. (--dist worksteal gives each process as
    many, in this order, and who has done his takes from the last ones of who has not.)"""
    if wanted := config.getoption("--store"):
        mine = [item for item in items if (wanted == "embedded") == _is_embedded(item)]
        config.hook.pytest_deselected(items=list(set(items) - set(mine)))
        items[:] = mine
    waiting, whole, pages, others = [], [], [], []
    for item in items:
        if item.get_closest_marker("waits"):
            waiting.append(item)
        elif item.nodeid.startswith(ACCEPTANCE):
            whole.append(item)
        elif item.nodeid.startswith(BROWSER):
            pages.append(item)
        else:
            others.append(item)
    share = len(items) // getattr(config, "workerinput", {}).get("workercount", 1)
    first = max(share - len(waiting), 0)
    second = first + max(share - len(whole), 0)
    items[:] = [*waiting, *others[:first], *whole, *others[first:second], *pages, *others[second:]]


def _is_embedded(item: pytest.Item) -> bool:
    """Whether it is a test of both stores, on SQLite."""
    callspec = getattr(item, "callspec", None)
    return callspec is not None and "embedded" in callspec.params.values()


def pytest_collection_finish() -> None:
    """The tests themselves are no garbage: not to look through six thousand of them again and again saves a tenth."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What could not be tested for want of an Asterisk, a Chromium or a promtool, and which one it was otherwise."""
    for word, store in FETCHED.items():
        program = store().program
        skipped = [
            report.longrepr[2]
            for report in terminalreporter.stats.get("skipped", [])
            if isinstance(report.longrepr, tuple) and program.not_tested in report.longrepr[2]
        ]
        if skipped:
            terminalreporter.write_sep("!", f"{len(skipped)} tests: {program.not_tested}", red=True)
            terminalreporter.write_line(skipped[0])
        elif any(word in report.nodeid for report in terminalreporter.stats.get("passed", [])):
            terminalreporter.write_line(f"{program.name}: {store().describe()}")


@pytest.fixture(scope="session")
def ground() -> Iterator[Ground]:
    """The folder of this pytest process; cleared at the end, also when pytest is killed."""
    ground = Ground()
    yield ground
    ground.close()


@pytest.fixture(scope="session")
def redis_server(ground: Ground) -> Iterator[RedisServer]:
    """The session's Redis. A test that crashes or freezes one starts its own."""
    server = RedisServer(ground)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres_server(ground: Ground) -> Iterator[Postgres]:
    """The session's PostgreSQL. A test that crashes or freezes one starts its own."""
    if (given := given_postgres()) is not None:
        yield given
        given.hang_up()
        return
    server = PostgresServer(ground)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_postgres(ground: Ground) -> Iterator[PostgresServer]:
    """One that the test may kill or freeze."""
    server = PostgresServer(ground)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def stores(ground: Ground) -> Iterator[Stores]:
    """Migrates one template of each kind, when first asked for it."""
    stores = Stores(ground)
    yield stores
    if (given := given_postgres()) is not None:
        stores.drop_template(given)
        given.hang_up()


@pytest.fixture
def embedded(stores: Stores) -> Iterator[Installation]:
    """An installation on SQLite, for tests that need one and run once."""
    installation = stores.embedded()
    yield installation
    stores.give_back(installation)


def installed(request: pytest.FixtureRequest, stores: Stores) -> Iterator[Installation]:
    """A fresh, migrated installation on the store that the test is given."""
    if request.param == "embedded":
        installation = stores.embedded()
        yield installation
        stores.give_back(installation)
        return
    postgres = request.getfixturevalue("postgres_server")
    redis = request.getfixturevalue("redis_server")
    with stores.postgresql(postgres, redis) as installation:
        yield installation


store = pytest.fixture(installed, params=BOTH, name="store")


@pytest.fixture
def broker(store: Installation, redis_server: RedisServer) -> str:
    """The address of a running broker, which is the one the installation's configuration names."""
    config = store.config()
    with redis_server.client() as client:
        client.flushall()
    if config.embedded_broker:
        config.broker_socket.symlink_to(redis_server.socket)
    return config.broker


@pytest.fixture
def config(store: Installation) -> Config:
    return store.config()


@pytest.fixture
def runtime(config: Config) -> Iterator[Runtime]:
    """What the domain functions work with, over this installation's own database."""
    runtime = wiring.build(config)
    yield runtime
    runtime.close()


@pytest.fixture
def start_service() -> Iterator[StartService]:
    """start_service(installation, "up", VARIABLE="value"): a running Service; at the end no process
    may be left."""
    started: list[Service] = []

    def start(installation: Installation, *arguments: str, **changes: str) -> Service:
        service = Service(installation, *arguments, **changes)
        started.append(service)
        return service.start()

    yield start
    for service in reversed(started):
        if service.process is not None:
            service.stop()
