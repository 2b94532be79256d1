"""Flower beside the other roles (`faxbot up --flower`): that it is installed, where it listens, and who may look."""

from __future__ import annotations

import secrets
import socket
from importlib.util import find_spec
from pathlib import Path

from faxbot import production
from faxbot.config import Config
from faxbot.errors import ConfigError
from faxbot.supervisor import keyfile, listening

HOST = "127.0.0.1"
_NAME = "operator"


def must_be_installed() -> None:
    """Raises ConfigError, naming the extra, where it is not."""
    if find_spec("flower") is None:
        raise ConfigError('Flower is not installed: pip install "faxbot[operations]" brings it')


def file(config: Config) -> Path:
    """Where its password is kept that the first start made."""
    return config.data_dir / "flower-password"


def credentials(config: Config) -> str:
    """`name:password`: FLOWER_BASIC_AUTH, else what the first start made, for its owner alone. The lock of the data
    folder is held. Raises ConfigError in production, where none is made."""
    production.demand(config, [production.window(config)])
    if config.flower_auth:
        return config.flower_auth
    kept = file(config)
    if not kept.exists():
        keyfile.write_privately(kept, f"{_NAME}:{secrets.token_urlsafe(24)}\n")
    return kept.read_text().strip()


def port(config: Config) -> int:
    """FAXBOT_FLOWER_PORT, or for 0 a free one; raises ConfigError where somebody listens there."""
    if not config.flower_port:
        return listening.free_port()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, config.flower_port))
        except OSError as error:
            raise ConfigError(
                f"Flower cannot listen at {HOST} port {config.flower_port} ({error.strerror}): set "
                "FAXBOT_FLOWER_PORT to a free port (0 finds one)"
            ) from None
    return config.flower_port
