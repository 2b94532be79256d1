"""`faxbot db`: the schema."""

from __future__ import annotations

import click

from faxbot import db as database
from faxbot import schema
from faxbot.config import Config


@click.group(short_help="Bring the database to the newest schema, or check it.")
def db() -> None:
    """Bring the database to the newest schema, or check it."""


@db.command(short_help="Bring the database to the newest schema.")
def upgrade() -> None:
    """Bring the database to this version's schema; safe to repeat, and with several at once."""
    config = Config.load()
    schema.upgrade(config)
    click.echo(f"the database is at revision {database.current(config)}")


@db.command(short_help="Say whether it has this version's schema.")
def check() -> None:
    """Say whether the database has this version's schema; exit code 1 when it has not."""
    config = Config.load()
    database.must_exist(config)
    database.check(config)
    click.echo(f"the database is at revision {database.current(config)}, as this version needs it")
