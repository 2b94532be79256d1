"""A faxbot whose every process can be killed and comes back: web, workers, beat, broker, database, and a carrier that
is left alone."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import quote

import psutil

from tests.carrier import SimulatorProcess
from tests.ground import Ground
from tests.installation import Installation, Service, Stores
from tests.servers import PostgresServer, RedisServer, Server, free_port

WORKERS = 3
TIMES = {
    "FAXBOT_SWEEP_SECONDS": "0.5",
    "FAXBOT_RING_AGAIN_SECONDS": "1",
    "FAXBOT_LEASE_SECONDS": "3",
    "FAXBOT_HEARTBEAT_SECONDS": "0.75",
    "FAXBOT_LOOK_UP_SECONDS": "1",
    "FAXBOT_SETTLE_SECONDS": "2",
    "FAXBOT_POLL_FIRST_SECONDS": "3",
    "FAXBOT_HELD_CHECK_SECONDS": "1",
    "FAXBOT_CALLBACK_WAIT_SECONDS": "10",
    "FAXBOT_PROVIDER_READ_SECONDS": "1.5",
    "FAXBOT_PROVIDER_CALL_SECONDS": "2",
    "FAXBOT_BREAKER_REST_SECONDS": "1",
    "FAXBOT_NUMBER_GAP_SECONDS": "0",
}
"""What takes minutes in service takes seconds here; nothing else differs."""
LATE_SECONDS = 1.0
KINDS = {
    "worker": 70,
    "pool child": 12,
    "web": 5,
    "beat": 4,
    "broker": 3,
    "broker flushed": 2,
    "database": 4,
}
"""What is killed, and how often of a hundred. The database of the embedded store is a file."""


class System:
    """The processes of one installation; `kill()` takes one of them down and up again."""

    def __init__(
        self,
        installation: Installation,
        carrier: SimulatorProcess,
        broker: RedisServer,
        database: PostgresServer | None,
        luck: random.Random,
        changes: dict[str, str],
    ) -> None:
        self.carrier = carrier
        self.killed: Counter[str] = Counter()
        self._broker, self._database, self._luck = broker, database, luck
        port = str(free_port())
        words = {
            **TIMES,
            **carrier.environ,
            **changes,
            "FAXBOT_WEB_WORKERS": "1",
            "PUBLIC_API_URL": f"http://127.0.0.1:{port}",
        }
        self.web = Service(installation, "web", **words, FAXBOT_PORT=port)
        self._beat = Service(installation, "beat", **words)
        self._workers = [Service(installation, "worker", **words) for _ in range(WORKERS)]
        self._kinds = {
            kind: share for kind, share in KINDS.items() if database or kind != "database"
        }

    def start(self) -> None:
        for role in (*self._workers, self._beat):
            role.start()
        self.web.start()

    def stop(self) -> None:
        for role in (self.web, self._beat, *self._workers):
            role.kill9()

    def kill(self) -> str:
        """Kill one process, chosen by luck, and start it again; what it was."""
        (kind,) = self._luck.choices(list(self._kinds), list(self._kinds.values()))
        deeds: dict[str, Callable[[], object]] = {
            "worker": lambda: _again(self._luck.choice(self._workers)),
            "pool child": self._kill_pool_child,
            "web": lambda: _again(self.web, wait=False),
            "beat": lambda: _again(self._beat),
            "broker": lambda: _crash(self._broker),
            "broker flushed": self._flush,
            "database": self._kill_database,
        }
        deeds[kind]()
        self.killed[kind] += 1
        return kind

    def _kill_pool_child(self) -> None:
        parent = psutil.Process(self._luck.choice(self._workers).pid)
        with suppress(psutil.NoSuchProcess, IndexError):
            self._luck.choice(parent.children()).kill()

    def _flush(self) -> None:
        with self._broker.client() as client:
            client.flushall()

    def _kill_database(self) -> None:
        assert self._database is not None
        _crash(self._database)


def _crash(server: Server) -> None:
    server.kill9()
    server.start()


def _again(role: Service, *, wait: bool = True) -> None:
    role.kill9()
    role.start(wait=wait)


@contextmanager
def opened(store: str, luck: random.Random, changes: dict[str, str]) -> Iterator[System]:
    """A running system on `embedded` (SQLite, a broker on a socket) or `postgresql` (with Redis); all of it is gone at
    the end."""
    ground = Ground()
    broker = RedisServer(ground)
    database = PostgresServer(ground) if store == "postgresql" else None
    try:
        broker.start()
        if database is None:
            installation = Stores(ground).embedded()
            socket = quote(str(broker.socket), safe="/")
            installation.env["CELERY_BROKER_URL"] = f"redis+socket://{socket}"
            with _running(installation, broker, None, luck, changes) as system:
                yield system
            return
        database.start()
        with (
            Stores(ground).postgresql(database, broker) as installation,
            _running(installation, broker, database, luck, changes) as system,
        ):
            yield system
    finally:
        for server in (broker, database):
            if server is not None and server.process is not None:
                server.stop()
        ground.close()


@contextmanager
def _running(
    installation: Installation,
    broker: RedisServer,
    database: PostgresServer | None,
    luck: random.Random,
    changes: dict[str, str],
) -> Iterator[System]:
    with SimulatorProcess(
        installation.folder, page_seconds=0, late_seconds=LATE_SECONDS
    ) as carrier:
        system = System(installation, carrier, broker, database, luck, changes)
        system.start()
        try:
            yield system
        finally:
            system.stop()
