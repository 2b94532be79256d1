"""`faxbot beat`: apart from the worker, because the clock needs next to nothing of it."""

from __future__ import annotations

import click

from faxbot import production
from faxbot.cli import logs
from faxbot.config import Config
from faxbot.tasks import app as tasks


@click.command(short_help="Run the clock, which rings for what is due.")
@logs.log_level
@logs.log_format
def beat(log_level: str, log_format: str) -> None:
    """Run the clock that rings for what is due. One is enough; two do no harm."""
    config = Config.load()
    production.demand(config)
    logs.configure("beat", log_level, log_format)
    app = tasks.celery_app(config)
    app.Beat(
        # In memory: due times are columns, so a clock needs to remember nothing. The file that Celery's own choice
        # keeps is damaged by a kill, and said so at the next start with a traceback.
        scheduler_cls="celery.beat:Scheduler",
        loglevel=log_level.upper(),
        quiet=True,
        redirect_stdouts=False,
    ).run()
