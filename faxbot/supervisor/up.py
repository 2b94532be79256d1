"""`faxbot up`: the embedded broker, the simulator's carrier, web, worker, beat and, once a provider must be listened
to, listen as children of one small process.

One `up` per data folder (a lock), one listening socket that outlives every restart of web, and nothing left behind
however it ends: asked to, crashed, or killed with -9. (The user's own command shares our terminal and group: after a
kill -9 it ends too, and what it started itself goes on.) In production the same roles run singly under systemd or
compose.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import faxbot
from faxbot.config import Config
from faxbot.errors import ConfigError
from faxbot.supervisor import broker, flower, keyfile, listening, standin
from faxbot.supervisor.console import Console
from faxbot.supervisor.probe import Probe
from faxbot.supervisor.processes import ChildFailed, Processes, Role, Stopped, Timing
from faxbot.supervisor.program import faxbot_command, pasteable_path, program, with_our_folder

EXAMPLE = Path(faxbot.__file__).parent.parent / "examples" / "three-pages.pdf"
"""A document to try things with; there in a checkout only."""
NUMBER = "+15550100000"
"""A number that cannot be anybody's (555-01xx is kept for fiction); the simulator delivers to it."""

_LOOK_EVERY = 10.0
"""Seconds between looks whether a provider must be listened to: one may be activated while all runs."""
_READY_WITHIN = 10.0
_READY_FOR_COMMAND_WITHIN = 60.0
_LOCK_WAIT = 5.0
"""How long processes of an `up` that was killed may take to go, in seconds; the kernel needs milliseconds."""


def up(
    config: Config,
    command: Sequence[str] = (),
    *,
    console: Console,
    verbose: bool = False,
    with_flower: bool = False,
    timing: Timing | None = None,
) -> int:
    """Run all roles until a signal comes, or `command` (with FAXBOT_URL and a key in its environment) ends.

    The exit code: the command's, 128 + the signal that cut it short, 0 after a signal without a command. Raises
    ConfigError when the port or the data folder is taken, ChildFailed when a role does not start; nothing runs then.
    """
    began = time.monotonic()
    with (
        _only_one(config) as lock,
        listening.listen(config) as listener,
        Processes(console, timing, verbose=verbose) as processes,
    ):
        site = _Site(config, lock, listener, verbose=verbose)
        if with_flower:
            site.prepare_flower()
        try:
            site.start(processes)
            missing = site.wait_until_ready(
                processes, _READY_FOR_COMMAND_WITHIN if command else _READY_WITHIN
            )
            listen = partial(site.listen_where_needed, processes)
            listen()
            if command:
                if missing:
                    raise ChildFailed(f"not ready: {missing}")
                return processes.run_in_front(command, site.for_command(), listen)
            for line in site.greeting(
                time.monotonic() - began, missing, in_clear=console.is_terminal
            ):
                console.say(line)
            while True:
                processes.turn()
                listen()
        except Stopped as end:
            console.say("faxbot is stopping (once more: at once)")
            return 128 + end.signum if command else 0
        finally:
            processes.stop()
            broker.clean_up(config)


class _Site:
    """What one `up` runs, and what its parts must know of each other."""

    def __init__(
        self, config: Config, lock: int, listener: socket.socket, *, verbose: bool
    ) -> None:
        self._config, self._lock, self._listener = config, lock, listener
        self._logs = ("--log-level", "info" if verbose else "warning", "--log-format", "text")
        host, port = listener.getsockname()[:2]
        self._address = (listening.reached_at(host), port)
        self.url = listening.url(host, port)
        self._listens, self._look_at = False, 0.0
        self._window: Role | None = None
        self._flower_url = ""
        self._environ = {**config.environ, "FAXBOT_PORT": str(port), "PYTHONUNBUFFERED": "1"}
        if not config.public_url and self._address[0] != "127.0.0.1":
            self._environ["PUBLIC_API_URL"] = self.url

    def prepare_flower(self) -> None:
        """Have start() start Flower, too, and the console lead there. Raises ConfigError where it could not start."""
        flower.must_be_installed()
        secret, port = flower.credentials(self._config), flower.port(self._config)
        self._flower_url = f"http://{flower.HOST}:{port}"
        self._environ["FAXBOT_FLOWER_URL"] = self._config.flower_url or self._flower_url
        probe = Probe(
            (flower.HOST, port), _get("/healthcheck", f"{flower.HOST}:{port}"), b"HTTP/1.1 200"
        )
        role = self._role("flower", "flower", *self._logs, probe=probe)
        own = {"FAXBOT_FLOWER_PORT": str(port), "FLOWER_BASIC_AUTH": secret}
        self._window = replace(role, environ={**self._environ, **own})

    def start(self, processes: Processes) -> None:
        """Bring everything up, in the order of need."""
        config = self._config
        up = processes.add(self._broker()) if config.embedded_broker else []
        # The migrations need no broker: both start together.
        prepared = processes.run(self._role("prepare", "prepare"))
        if prepared.exit_code != 0:
            raise ChildFailed("nothing was started; see above")
        processes.wait_until_up(up)
        if standin.is_wanted(config):
            up += processes.add(self._carrier())
        web, *_ = processes.add(*self._servers())
        if self._window:
            processes.add(self._window)
        processes.wait_until_up([*up, web])

    def wait_until_ready(self, processes: Processes, seconds: float) -> str:
        """Wait for /health/ready; what it still misses after `seconds`, "" for nothing.

        That is no reason to end everything: a part outside may come back, a backlog may take its time.
        """
        until = time.monotonic() + seconds
        while not processes.answers(self._probe("/health/ready")):
            if time.monotonic() > until:
                return self._missing()
            processes.turn()
        return ""

    def listen_where_needed(self, processes: Processes) -> None:
        """Start `listen` once a provider must be listened to. Then it stays: it is idle where that is over."""
        if self._listens or time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + _LOOK_EVERY
        if processes.answers(replace(self._probe("/health/ready"), wanted=must_listen)):
            self._listens = True
            processes.add(self._role("listen", "listen", *self._logs))

    def for_command(self) -> Mapping[str, str]:
        """The environment of the user's command; `faxbot` in it is this one."""
        environ = {**self._config.environ, "FAXBOT_URL": self.url}
        if key := keyfile.read(self._config):
            # One that is exported already may be another installation's.
            environ["FAXBOT_API_KEY"] = key
        return with_our_folder(environ)

    def greeting(self, seconds: float, missing: str, *, in_clear: bool) -> list[str]:
        """What a newcomer needs to know, in a few lines; the first key itself only where a person
        reads, and no log keeps it (`in_clear`)."""
        key_file = keyfile.path(self._config)
        first = keyfile.read(self._config)
        key = f"$(cat {shlex.quote(str(key_file))})" if first else "YOUR_KEY"
        where = f"{program()} keys create --name NAME --scope fax:send --scope fax:read"
        if first:
            where = f"{first}  (kept in {key_file})" if in_clear else f"in {key_file}"
        document = pasteable_path(EXAMPLE) if EXAMPLE.exists() else "FILE.pdf"
        send = f'curl -H "X-API-Key: {key}" -F to={NUMBER} -F file=@{document} {self.url}/fax/send'
        return [
            f"faxbot answers at {self.url}, but is not ready: {missing}"
            if missing
            else f"faxbot is ready at {self.url} ({seconds:.1f} s)",
            f"  console        {self.url}/admin/ui/",
            f"  documentation  {self.url}/docs",
            f"  API key        {where}",
            *self._about_flower(),
            f"  send a fax     {send}",
            "  stop           Ctrl-C",
        ]

    def _about_flower(self) -> list[str]:
        if self._window is None:
            return []
        where = "FLOWER_BASIC_AUTH" if self._config.flower_auth else flower.file(self._config)
        return [f"  Flower         {self._flower_url}  (name and password in {where})"]

    def _role(
        self,
        name: str,
        *words: str,
        pass_fds: tuple[int, ...] = (),
        probe: Probe | None = None,
        grace: float = 10.0,
    ) -> Role:
        return Role(
            name, faxbot_command(*words), self._environ, pass_fds=pass_fds, probe=probe, grace=grace
        )

    def _servers(self) -> list[Role]:
        socket_number = self._listener.fileno()
        return [
            self._role(
                "web",
                *("web", "--fd", str(socket_number), *self._logs),
                pass_fds=(socket_number,),
                probe=self._probe("/health"),
                grace=25.0,
            ),
            # SIGTERM lets calls to carriers come to their end; what is killed is taken up again when its lease ends.
            self._role("worker", "worker", *self._logs, grace=25.0),
            self._role("beat", "beat", *self._logs),
        ]

    def _broker(self) -> Role:
        # It inherits the lock: files that an old broker may still write are never opened by a second one.
        return Role(
            "broker",
            broker.command(self._config),
            self._environ,
            pass_fds=(self._lock,),
            probe=broker.probe(self._config),
            mend=lambda: broker.set_aside(self._config),
        )

    def _carrier(self) -> Role:
        port, variables = standin.prepare(self._config)
        self._environ.update(variables)
        ledger = self._config.data_dir / "simulator.db"
        words = ("carrier", "simulator", "--port", str(port), "--ledger", str(ledger))
        probe = Probe(("127.0.0.1", port), _get("/health", f"127.0.0.1:{port}"), b"HTTP/1.1 200")
        return self._role("carrier", *words, probe=probe)

    def _missing(self) -> str:
        """What /health/ready says of the parts that are not."""
        try:
            with socket.create_connection(self._address, timeout=5) as connection:
                connection.sendall(self._probe("/health/ready").ask)
                answer = b"".join(iter(lambda: connection.recv(65536), b""))
            parts = _json(answer)["parts"]
        except (OSError, ValueError, LookupError):
            return f"see {self.url}/health/ready"
        return "; ".join(part["detail"] for part in parts.values() if not part["ok"])

    def _probe(self, path: str) -> Probe:
        return Probe(self._address, _get(path, self.url.removeprefix("http://")), b"HTTP/1.1 200")


@contextmanager
def _only_one(config: Config) -> Iterator[int]:
    """The lock of the data folder as an open file; raises ConfigError naming who holds it."""
    config.make_data_dir()
    lock = os.open(config.data_dir / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        until = time.monotonic() + _LOCK_WAIT
        while not _locked(lock):
            holder = os.pread(lock, 20, 0).decode(errors="replace").strip()
            if _alive(holder) or time.monotonic() > until:
                raise ConfigError(
                    f"another faxbot up (process {holder or 'unknown'}) works in {config.data_dir}: "
                    "stop it, or set FAX_DATA_DIR to another folder"
                )
            time.sleep(0.05)
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield lock
    finally:
        os.close(lock)


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _alive(pid: str) -> bool:
    return pid.isdigit() and Path("/proc", pid).exists()


def must_listen(answer: bytes) -> bool:
    """Whether an answer of /health/ready, ready or not, says that a provider must be listened to."""
    try:
        return _json(answer)["listen"] is True
    except (ValueError, LookupError, TypeError):
        return False  # another answer, or not the whole of it: asked again


def _json(answer: bytes) -> Any:
    """The body of an HTTP answer; raises ValueError."""
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def _get(path: str, host: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
