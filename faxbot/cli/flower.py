"""`faxbot flower`."""

from __future__ import annotations

import click

from faxbot import production
from faxbot.cli import logs
from faxbot.config import Config
from faxbot.supervisor.flower import must_be_installed


@click.command(short_help="Run Flower, a window on the queue that changes nothing.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address it listens on.")
@logs.log_level
@logs.log_format
def flower(host: str, log_level: str, log_format: str) -> None:
    """Run Flower, a window on the queue, at FAXBOT_FLOWER_PORT: workers, tasks and how long the queues are.

    It changes nothing, shows no arguments, and lets nobody in without the name and password of FLOWER_BASIC_AUTH. It
    needs the extra `operations` (pip install "faxbot[operations]").
    """
    config = Config.load()
    logs.configure("flower", log_level, log_format)
    must_be_installed()
    production.demand(config, [production.window(config)])
    from faxbot.tasks import window  # noqa: PLC0415 - it imports Flower

    window.serve(config, host, config.flower_port)
