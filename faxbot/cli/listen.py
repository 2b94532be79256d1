"""`faxbot listen`: apart from the workers, because it holds its connections for as long as it lives."""

from __future__ import annotations

import signal
import threading

import click

from faxbot import doctor, hearing, rotation, wiring
from faxbot.cli import logs
from faxbot.config import Config
from faxbot.tasks.app import Bell


@click.command(short_help="Listen to providers that speak by themselves (Asterisk).")
@logs.log_level
@logs.log_format
def listen(log_level: str, log_format: str) -> None:
    """Listen to every active provider that speaks by itself, as Asterisk does: what it says of a fax is kept as a
    callback is. One is enough; two do no harm, and one that is killed loses nothing."""
    config = Config.load()
    logs.configure("listen", log_level, log_format)
    doctor.start(config)
    rotation.admit(config)
    stop = threading.Event()
    for end in (signal.SIGTERM, signal.SIGINT):
        signal.signal(end, lambda *_: stop.set())
    bell = Bell(config)
    runtime = wiring.build(config, ring=bell, unanswered=bell.unanswered)
    try:
        hearing.listen_to_all(runtime, stop)
    finally:
        runtime.close()
