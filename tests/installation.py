"""A faxbot of a test's own: its data folder, database and broker, and its processes as a real
service.

`Installation` is what the environment says; `Service` runs the `faxbot` command in that
environment.
"""

from __future__ import annotations

import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil
import requests

from faxbot import schema
from faxbot.config import Config
from tests.ground import BUSY, ENVIRONMENT, Ground, eventually, is_alive, processes_of
from tests.servers import Postgres, RedisServer, free_port

FAXBOT = Path(sys.executable).with_name("faxbot")
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ")


@dataclass
class Installation:
    """What one installation is told; `env` may be changed until something is started with it."""

    store: str
    """`embedded` (SQLite and the broker of `faxbot up`) or `postgresql` (with Redis)."""
    folder: Path
    ground: Ground
    env: dict[str, str] = field(default_factory=dict)

    @property
    def data_dir(self) -> Path:
        return Path(self.env["FAX_DATA_DIR"])

    def config(self, **changes: str) -> Config:
        """The configuration this environment gives, with `changes` to variables."""
        return Config.load({**self.env, **changes})

    def processes(self) -> list[psutil.Process]:
        """Everything that runs in it."""
        return processes_of(self.folder)


class Stores:
    """Makes installations with a migrated database, copied from a template that is migrated
    once."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._sqlite: Path | None = None
        # Several pytest workers may share one given server.
        self._prefix = f"faxbot_test_{secrets.token_hex(4)}"
        self._template = f"{self._prefix}_template"
        self._has_template = False
        self._made = 0
        self._given_back: list[Path] = []

    def give_back(self, installation: Installation) -> None:
        """Nobody needs it when the next one is made: they lie in memory."""
        self._given_back.append(installation.folder)

    def embedded(self) -> Installation:
        """SQLite under the data folder; no broker runs until `faxbot up` or the test starts one."""
        if self._sqlite is None:
            template = self._new("embedded")
            schema.upgrade(template.config())
            self._sqlite = template.data_dir / "faxbot.db"
        installation = self._new("embedded")
        shutil.copyfile(self._sqlite, installation.data_dir / "faxbot.db")
        return installation

    @contextmanager
    def postgresql(self, postgres: Postgres, redis: RedisServer) -> Iterator[Installation]:
        """A database of its own, dropped at the end, and the whole of `redis`, emptied."""
        if not self._has_template:
            postgres.create_database(self._template)
            url = postgres.url(self._template)
            schema.upgrade(self._new("template").config(DATABASE_URL=url))
            self._has_template = True
        self._made += 1
        database = f"{self._prefix}_{self._made}"
        postgres.create_database(database, template=self._template)
        with closing(redis.client()) as client:
            client.flushall()
        installation = self._new("postgresql")
        installation.env["DATABASE_URL"] = postgres.url(database)
        installation.env["CELERY_BROKER_URL"] = redis.url
        try:
            yield installation
        finally:
            postgres.drop_database(database)
            self.give_back(installation)

    def drop_template(self, postgres: Postgres) -> None:
        """Leave nothing on a server that others use."""
        postgres.drop_database(self._template)

    def _new(self, store: str) -> Installation:
        for folder in self._given_back:
            shutil.rmtree(folder, ignore_errors=True)
        self._given_back.clear()
        # Their databases and documents are synced all the time: on a disk that takes a seventh of a run (measured).
        folder = self._ground.new_folder("i", in_memory=True)
        data = folder / "data"
        data.mkdir(mode=0o700)
        env = {name: ENVIRONMENT[name] for name in _PASSED_ON if name in ENVIRONMENT}
        return Installation(store, folder, self._ground, {**env, "FAX_DATA_DIR": str(data)})


class Service:
    """One `faxbot` command as a process with its children: Service(installation, "up",
    FAXBOT_SWEEP_SECONDS="0.5").

    It is given a free port and an API key with every scope, unless `changes` name others.
    """

    def __init__(self, installation: Installation, *arguments: str, **changes: str) -> None:
        self.installation = installation
        self.arguments = arguments or ("up",)
        self.port = int(changes.get("FAXBOT_PORT") or free_port())
        self.key = changes.get("API_KEY", secrets.token_urlsafe(24))
        self.env = {
            **installation.env,
            "PYTHONUNBUFFERED": "1",
            **changes,
            "API_KEY": self.key,
            "FAXBOT_PORT": str(self.port),
        }
        self.log = installation.folder / f"{self.arguments[0]}-{self.port}.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None, "the service is not running"
        return self.process.pid

    def start(self, timeout: float = 60.0, *, wait: bool = True) -> Self:
        """Start it; `up` and `web` are awaited until /health/ready says 200, the others are not."""
        command: list[str | Path] = [FAXBOT, *self.arguments]
        folder = self.installation.folder
        self.process = self.installation.ground.start(
            command, folder, self.env, self.log, cwd=folder
        )
        if wait and self.arguments[0] in ("up", "web"):
            try:
                eventually(self._is_ready, timeout, every=0.05)
            except AssertionError as error:
                self.kill9()
                raise AssertionError(f"{error}; its output:\n{self.output()}") from None
        return self

    def output(self) -> str:
        """What it and its children printed so far."""
        return self.log.read_text(errors="replace")

    def tree(self) -> list[psutil.Process]:
        """Its process and all below it."""
        root = psutil.Process(self.pid)
        return [root, *root.children(recursive=True)]

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        """One call of its API with its key; it is waited for ten seconds of a quiet machine."""
        headers = {"X-API-Key": self.key, **options.pop("headers", {})}
        with requests.Session() as session:
            session.trust_env = False
            return session.request(
                method, self.url + path, headers=headers, **{"timeout": 10 * BUSY, **options}
            )

    def stop(self, how: signal.Signals = signal.SIGTERM, timeout: float = 60.0) -> int:
        """End it as an operator or a terminal would, and return its exit code; AssertionError when
        a process stays."""
        assert self.process is not None, "the service is not running"
        tree = self.tree() if self.process.poll() is None else []
        self.process.send_signal(how)
        try:
            code = self.process.wait(timeout * BUSY)
        except subprocess.TimeoutExpired:
            self._kill_all(tree)
            raise AssertionError(f"it did not stop; its output:\n{self.output()}") from None
        self._assert_none_left(tree, timeout=1.0)
        self.process = None
        return code

    def kill9(self, timeout: float = 15.0) -> None:
        """SIGKILL its first process alone; AssertionError when one of the others does not follow
        it."""
        assert self.process is not None, "the service is not running"
        tree = self.tree() if self.process.poll() is None else []
        self.process.kill()
        self.process.wait(timeout * BUSY)
        self._assert_none_left(tree, timeout)
        self.process = None

    def _assert_none_left(self, tree: list[psutil.Process], timeout: float) -> None:
        try:
            eventually(lambda: not any(map(is_alive, tree)), timeout)
        except AssertionError:
            left = [" ".join(process.cmdline()) for process in tree if is_alive(process)]
            self._kill_all(tree)
            raise AssertionError(f"left running: {left}; output:\n{self.output()}") from None

    def _kill_all(self, tree: list[psutil.Process]) -> None:
        self.process = None
        for process in tree:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def _is_ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"it ended with exit code {self.process.returncode}")
        try:
            return self.request("GET", "/health/ready", timeout=2).status_code == 200
        except requests.RequestException:
            return False
