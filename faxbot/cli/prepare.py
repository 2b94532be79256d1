"""`faxbot prepare`: what `faxbot up` has done before anything serves, in a process of its own that ends again."""

from __future__ import annotations

import click

from faxbot import schema, wiring
from faxbot.cli import firstkey
from faxbot.config import Config


@click.command(hidden=True)
def prepare() -> None:
    """Check the settings, bring the database to the newest schema and, outside production, see to the first API key."""
    config = Config.load()
    runtime = wiring.build(config)
    try:
        schema.upgrade(config)
        if not config.production:
            firstkey.keep(runtime)
    finally:
        runtime.close()
