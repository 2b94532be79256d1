"""For commands that work on the database itself: they need no server, and no key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from faxbot import db, wiring
from faxbot.config import Config
from faxbot.runtime import Runtime
from faxbot.supervisor import standin


@contextmanager
def at_the_ledger() -> Iterator[Runtime]:
    """A runtime over a database that is there and up to date; raises ConfigError."""
    with although_broken() as runtime:
        yield runtime.fresh()


@contextmanager
def although_broken() -> Iterator[Runtime]:
    """The same by the environment alone, for who mends the settings: what is saved and does not hold keeps nobody out.
    Raises ConfigError."""
    config = standin.known(Config.load())
    db.must_exist(config)
    db.check(config)
    runtime = wiring.build(config)
    try:
        yield runtime
    finally:
        runtime.close()
