"""`faxbot beat`: apart from the worker, because the clock needs next to nothing of it."""

from __future__ import annotations

import click

from faxbot.cli import logs
from faxbot.config import Config
from faxbot.tasks import app as tasks


@click.command(short_help="Run the clock, which rings for what is due.")
@logs.log_level
@logs.log_format
def beat(log_level: str, log_format: str) -> None:
    """Run the clock that rings for what is due. One is enough; two do no harm."""
    config = Config.load()
    logs.configure("beat", log_level, log_format)
    config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    app = tasks.celery_app(config)
    app.Beat(
        schedule=str(config.data_dir / "beat-schedule"),
        loglevel=log_level.upper(),
        quiet=True,
        redirect_stdouts=False,
    ).run()
