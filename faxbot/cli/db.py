"""`faxbot db`: the schema."""

from __future__ import annotations

import click

from faxbot import db as database
from faxbot import schema
from faxbot.config import Config
from faxbot.errors import ConfigError


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
    must_exist(config)
    database.check(config)
    click.echo(f"the database is at revision {database.current(config)}, as this version needs it")


def must_exist(config: Config) -> None:
    """Raise ConfigError where SQLite's file is not there yet: opening it would make it, and a folder for it, wherever
    the command was called by mistake."""
    if not config.database_url and not (config.data_dir / "faxbot.db").exists():
        raise ConfigError(
            f"there is no database in {config.data_dir} (FAX_DATA_DIR): go to your faxbot folder or set it; "
            "`faxbot up` and `faxbot db upgrade` make a new one"
        )
