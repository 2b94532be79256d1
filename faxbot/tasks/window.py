"""Flower, the window on the queue, as faxbot runs it: nobody looks through it without the password, and nobody changes
anything. What it shows has no arguments: workers tell none (worker.Request)."""

from __future__ import annotations

import logging
import signal
import sys
from types import FrameType
from typing import Any

from flower.app import Flower
from flower.options import default_options
from flower.urls import settings
from flower.views.monitor import Metrics
from tornado.web import authenticated

from faxbot.config import Config
from faxbot.errors import ConfigError
from faxbot.tasks.app import celery_app


class _Metrics(Metrics):  # type: ignore[misc]
    """Flower's own are open to everybody."""

    @authenticated
    async def get(self) -> None:
        await super().get()


def serve(config: Config, host: str, port: int) -> None:
    """Serve at `host` and `port` until SIGTERM or Ctrl-C. Raises ConfigError without a password, and where it cannot
    listen there.

    Flower's own way of being told (FLOWER_... variables, a flowerconfig.py in the folder it is started in, which it
    would run) is not taken: nothing there makes it writable or opens it.
    """
    if not config.flower_auth:
        raise ConfigError(
            "Flower shows nothing without a password: set FLOWER_BASIC_AUTH to operator:PASSWORD"
        )
    options: Any = default_options
    options.address, options.port = host, port
    options.basic_auth, options.read_only = [config.flower_auth], True
    for name in ("tornado.access", "tornado.general"):  # they write addresses with their query
        logging.getLogger(name).setLevel(logging.CRITICAL)
    flower = Flower(capp=celery_app(config), options=options, **settings)
    flower.add_handlers(".*", [(r"/metrics", _Metrics)])
    signal.signal(signal.SIGTERM, _end)
    try:
        flower.start_http_server()
    except OSError as error:
        raise ConfigError(
            f"cannot listen at {host} port {port} ({error.strerror}): set FAXBOT_FLOWER_PORT to a free port"
        ) from None
    try:
        flower.start()
    except (KeyboardInterrupt, SystemExit):
        pass
    finally:
        flower.stop()


def _end(_signum: int, _frame: FrameType | None) -> None:
    sys.exit(0)
