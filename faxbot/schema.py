"""Brings the schema up and down: Alembic's revisions under migrations/, one process at a time.

Apart from db.py because Alembic is needed for this alone, and no serving process carries it; it is imported where
there is something to do, for it takes as long as a tenth of a start (measured).
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from faxbot import db, legacy
from faxbot.config import Config
from faxbot.db import Database, faults, migrations_dir
from faxbot.errors import ConfigError
from faxbot.models import Job

_MIGRATION_LOCK = 0x0FAB07
_ASKED_EVERY = 0.2  # seconds


def upgrade(config: Config) -> None:
    """Bring the schema to the newest revision."""
    migrate(config, "head")


def migrate(config: Config, revision: str = "head") -> None:
    """Bring the schema to `revision`, up or down; safe when several processes start at once.

    Raises DatabaseAway; ConfigError for a database that somebody else has made, which stays as it is.
    """
    if _ours(config) == db.head() and revision == "head":
        return
    from alembic import command  # noqa: PLC0415 - see above
    from alembic.config import Config as AlembicConfig  # noqa: PLC0415

    database = Database(config, pool_size=1, hurried=False)
    try:
        with faults(), _one_at_a_time(config, database), database.engine.connect() as connection:
            settings = AlembicConfig()
            settings.set_main_option("script_location", str(migrations_dir()))
            settings.attributes["connection"] = connection
            if revision == "base" or revision.startswith("-"):
                command.downgrade(settings, revision)
            else:
                command.upgrade(settings, revision)
            connection.commit()
    finally:
        database.close()


def _ours(config: Config) -> str | None:
    """The revision that it has; raises ConfigError where it is not a database of faxbot's, or of a newer one."""
    revision, tables = db.look(config)
    if revision is not None and not db.is_known(revision):
        raise ConfigError(db.unknown(config))
    if revision is None and tables & {*Job.metadata.tables, *legacy.TABLES}:
        raise ConfigError(
            f"{db.place(config)} is another program's, perhaps an earlier Faxbot's, and was left as it is: set "
            "FAX_DATA_DIR to a new folder, or DATABASE_URL to an empty database"
        )
    return revision


@contextmanager
def _one_at_a_time(config: Config, database: Database) -> Iterator[None]:
    if database.is_sqlite:
        descriptor = os.open(
            config.data_dir / "migrate.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
        return
    with database.engine.connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        # Asked for again and again: an index that is built beside writers waits for all who wait within a statement.
        while not connection.scalar(sa.select(sa.func.pg_try_advisory_lock(_MIGRATION_LOCK))):
            time.sleep(_ASKED_EVERY)
        try:
            yield
        finally:
            with suppress(DBAPIError):
                connection.execute(sa.select(sa.func.pg_advisory_unlock(_MIGRATION_LOCK)))
