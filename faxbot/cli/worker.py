"""`faxbot worker`."""

from __future__ import annotations

import gc
import socket
import warnings

import click

from faxbot import doctor, lifeline
from faxbot.cli import logs
from faxbot.config import Config
from faxbot.tasks import app as tasks
from faxbot.tasks.worker import heed_the_end, serve


@click.command(short_help="Run a worker, which sends the faxes.")
@click.option(
    "--queue",
    "queues",
    multiple=True,
    type=click.Choice(sorted(set(tasks.QUEUES.values()))),
    help="Serve this queue only; may be repeated.  [default: all]",
)
@click.option(
    "--name",
    default="worker",
    show_default=True,
    help="Tells several workers of one machine apart.",
)
@logs.log_level
@logs.log_format
def worker(queues: tuple[str, ...], name: str, log_level: str, log_format: str) -> int:
    """Run a worker with FAXBOT_WORKER_PROCESSES processes. SIGTERM lets calls to carriers come to their
    end, and gives back faxes that are only being prepared."""
    config = Config.load()
    logs.configure("worker", log_level, log_format)
    doctor.start(config)
    app = tasks.celery_app(config)
    serve(config, app)
    lifeline.forks_die_with_me()
    # A warning for pickled messages, which this app does not take: containers and fresh machines run as root.
    warnings.filterwarnings("ignore", message=".*superuser privileges")
    program = app.Worker(
        hostname=f"{name}@{socket.gethostname()}",
        pool_cls="prefork",
        concurrency=config.worker_processes,
        queues=list(queues) or sorted(set(tasks.QUEUES.values())),
        loglevel=log_level.upper(),
        quiet=True,
        redirect_stdouts=False,
        without_mingle=True,
        without_gossip=True,
    )
    heed_the_end(program)
    # What exists now is shared with the pool's processes; a collector that touched it would copy it.
    gc.collect()
    gc.freeze()
    program.start()
    return int(program.exitcode or 0)
