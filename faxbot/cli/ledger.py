"""For commands that work on the database itself: they need no server, and no key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from faxbot import db, wiring
from faxbot.cli.db import must_exist
from faxbot.config import Config
from faxbot.runtime import Runtime


@contextmanager
def at_the_ledger() -> Iterator[Runtime]:
    """A runtime over a database that is there and up to date; raises ConfigError."""
    config = Config.load()
    must_exist(config)
    db.check(config)
    runtime = wiring.build(config)
    try:
        yield runtime.fresh()
    finally:
        runtime.close()
