"""Where the simulated carrier that `faxbot up` starts is found, and the secret that it shares with its clients: two
files of the data folder, which outlive it and are read by commands in another terminal."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from faxbot.config import Config
from faxbot.supervisor import keyfile, listening

URL, SECRET = "SIMULATOR_BASE_URL", "SIMULATOR_SECRET"


def is_wanted(config: Config) -> bool:
    """Whether `faxbot up` starts one."""
    return "simulator" in config.provider_ids and not config.environ.get(URL)


def prepare(config: Config) -> tuple[int, Mapping[str, str]]:
    """The port for it, and the variables that lead its clients there; the lock of the data folder is held.

    The port is the one of before where that is free: at another address there would be another carrier, for all that
    faxbot knows, and what that does not know would prove nothing.
    """
    kept = _text(_port_file(config))
    port = listening.free_port(int(kept) if kept.isdecimal() else 0)
    keyfile.write_privately(_port_file(config), str(port))
    secret = config.environ.get(SECRET) or _text(_secret_file(config))
    if not secret:
        secret = secrets.token_urlsafe(32)
    keyfile.write_privately(_secret_file(config), secret)
    return port, _variables(str(port), secret)


def known(config: Config) -> Config:
    """The same configuration with what leads to it, where the environment names no carrier and one was started: for
    commands that people call beside `faxbot up`."""
    port, secret = _text(_port_file(config)), _text(_secret_file(config))
    if not is_wanted(config) or not (port and secret):
        return config
    own = {name: value for name, value in config.environ.items() if value}
    return replace(config, environ={**_variables(port, secret), **own})


def _variables(port: str, secret: str) -> dict[str, str]:
    return {URL: f"http://127.0.0.1:{port}", SECRET: secret}


def _port_file(config: Config) -> Path:
    return config.data_dir / "simulator-port"


def _secret_file(config: Config) -> Path:
    return config.data_dir / "simulator-secret"


def _text(file: Path) -> str:
    with suppress(OSError, UnicodeDecodeError):
        return file.read_text().strip()
    return ""
