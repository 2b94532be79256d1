"""Where faxbot listens, and under which address it is reached from this machine."""

from __future__ import annotations

import socket
from dataclasses import replace

from faxbot.config import Config
from faxbot.errors import ConfigError

_BACKLOG = 1024
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - where to find ourselves


def reached_at(host: str) -> str:
    """The host to connect to for one that listens at `host`, which may stand for every address of this machine."""
    return _ANYWHERE.get(host, host)


def url(host: str, port: int) -> str:
    """The address, without a path, of a server that listens there."""
    host = reached_at(host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def listen(config: Config) -> socket.socket:
    """The socket web serves from; raises ConfigError, naming the setting, when its address cannot be had."""
    host, port = config.host, config.port
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, OverflowError):
        raise ConfigError(
            f"FAXBOT_HOST={host} is no address of this machine, or FAXBOT_PORT={port} no port"
        ) from None
    # `localhost` is two addresses; everything of ours, and of most people, says 127.0.0.1.
    family, kind, *_, address = min(found, key=lambda info: info[0] != socket.AF_INET)
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        raise ConfigError(
            f"cannot listen at {host} port {port} ({getattr(error, 'strerror', None) or error}): "
            "set FAXBOT_PORT to a free port (0 finds one) and FAXBOT_HOST to an address of this machine"
        ) from None
    return listener


def on_any_port(config: Config) -> Config:
    """The same configuration, on a free port where its own is taken."""
    try:
        listen(config).close()
    except ConfigError:
        return replace(config, port=0)
    return config


def free_port(wished: int = 0) -> int:
    """A port of this machine that nobody listens at, at this moment: the one that is wished, if that is one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wished))
        except (OSError, OverflowError):
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
