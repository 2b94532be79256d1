"""`faxbot web`."""

from __future__ import annotations

import socket

import click

from faxbot import doctor
from faxbot.cli import logs
from faxbot.config import Config
from faxbot.supervisor import listening
from faxbot.web import server


@click.command(short_help="Run the HTTP API.")
@click.option(
    "--fd",
    type=click.IntRange(3),
    help="Serve from this listening socket, already open, as the supervisor does.",
)
@logs.log_level
@logs.log_format
def web(fd: int | None, log_level: str, log_format: str) -> None:
    """Run the HTTP API at FAXBOT_HOST and FAXBOT_PORT, with FAXBOT_WEB_WORKERS processes."""
    config = Config.load()
    logs.configure("web", log_level, log_format)
    doctor.start(config)
    config.warn_of_open_folder()
    listener = listening.listen(config) if fd is None else socket.socket(fileno=fd)
    server.serve(config, listener)
