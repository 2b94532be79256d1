"""What this machine can do by itself, measured in the same minutes as the rest: a figure says little without it."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import os
import platform
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

PACKAGES = (
    "flask", "gunicorn", "sqlalchemy", "psycopg", "celery", "redis", "requests", "pypdfium2", "pillow",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rate:
    """Something done so many times a second."""

    what: str
    per_second: float


def rates(seconds: float = 0.5) -> list[Rate]:
    """Each measured for `seconds`."""
    block = os.urandom(30_000)
    with tempfile.TemporaryDirectory(prefix="faxbot-bench-") as folder:
        return [
            Rate("30 kB written and fsynced", _per_second(_writer(Path(folder), block), seconds)),
            Rate("SHA-256 of 30 kB", _per_second(lambda: hashlib.sha256(block).digest(), seconds)),
            Rate("HMAC-SHA256 of 64 bytes", _per_second(_signer(), seconds)),
            Rate("loopback round trips", _round_trips(seconds)),
        ]


def _per_second(once: Callable[[], object], seconds: float) -> float:
    begun = time.perf_counter()
    for count in itertools.count(1):
        once()
        passed = time.perf_counter() - begun
        if passed >= seconds:
            return round(count / passed, 0)
    raise AssertionError


def _writer(folder: Path, block: bytes) -> Callable[[], None]:
    numbers = itertools.count()

    def write() -> None:
        with (folder / str(next(numbers))).open("xb", buffering=0) as file:
            file.write(block)
            os.fsync(file.fileno())

    return write


def _signer() -> Callable[[], bytes]:
    key, text = os.urandom(32), os.urandom(64)
    return lambda: hmac.digest(key, text, "sha256")


def _round_trips(seconds: float) -> float:
    with socket.create_server(("127.0.0.1", 0)) as server:
        echo = threading.Thread(target=_echo, args=(server,), daemon=True)
        echo.start()
        with socket.create_connection(server.getsockname()) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

            def there_and_back() -> None:
                client.sendall(b"x")
                client.recv(1)

            rate = _per_second(there_and_back, seconds)
        echo.join()
        return rate


def _echo(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := connection.recv(1):
            connection.sendall(data)


def description(servers: str) -> str:
    """The machine and the versions in one sentence; `servers` says what database and broker run."""
    memory = next(
        int(line.split()[1]) / 2**20
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemTotal:")
    )
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"{os.cpu_count()} cores ({_processor()}), {memory:.1f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, {servers}; {packages}. Loopback, no TLS; load program, carrier, "
        "database, broker and service share the cores."
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
