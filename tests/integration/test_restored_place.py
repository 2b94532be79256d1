"""Where a ledger lies: a copy of it is told from the original, and the original is taken for no copy."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import psycopg
import pytest
import sqlalchemy as sa

from faxbot import heartbeats
from faxbot.db import Database, then, utcnow
from faxbot.errors import DatabaseAway
from faxbot.models import Heartbeat
from faxbot.restored import Restore, Restores
from tests.carrier import SimulatorProcess
from tests.installation import Installation
from tests.integration.site import Site, open_site

LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@contextmanager
def opened(installation: Installation, **changes: str) -> Iterator[Database]:
    database = Database(installation.config(**changes))
    try:
        yield database
    finally:
        database.close()


def noticed(database: Database, now: datetime | None = None) -> Restore | None:
    """By a process that has just started."""
    return Restores(database).notice(now or utcnow())


# SQLite -----------------------------------------------------------------------------------------------


def written_over(backup: Path, ledger: Path) -> None:
    """As `cp` does, and as `mv` and `rm` with `cp` may on ext4: the inode stays."""
    with ledger.open("r+b") as file:
        file.truncate()
        file.write(backup.read_bytes())


def restored_by_sqlite(backup: Path, ledger: Path) -> None:
    """As `.restore` does."""
    with closing(sqlite3.connect(backup)) as source, closing(sqlite3.connect(ledger)) as target:
        source.backup(target)


def in_a_new_folder(backup: Path, ledger: Path) -> None:
    """Which is given the inode of before."""
    written_over(backup, ledger)
    ledger.with_name("faxbot.db-place").unlink()


def of_an_earlier_version(backup: Path, ledger: Path) -> None:
    """Which noted nothing."""
    with closing(sqlite3.connect(backup)) as copy, copy:
        copy.execute("DELETE FROM heartbeats WHERE name LIKE 'ledger:%'")
    written_over(backup, ledger)


def lost_and_brought_back(
    site: Site, store: Installation, bring: Callable[[Path, Path], None]
) -> datetime:
    """When the backup was taken; an hour later the ledger beats for the last time, and is brought back."""
    ledger, backup = store.data_dir / "faxbot.db", store.folder / "backup.db"
    heartbeats.beat(site.runtime, ["queued"])
    taken_at = site.now
    with closing(sqlite3.connect(ledger)) as source, closing(sqlite3.connect(backup)) as copy:
        source.backup(copy)
    site.now += timedelta(hours=1)
    heartbeats.beat(site.runtime, ["queued"])
    site.runtime.database.close()
    for end in ("-wal", "-shm"):
        ledger.with_name(ledger.name + end).unlink(missing_ok=True)
    inode = ledger.stat().st_ino
    bring(backup, ledger)
    assert ledger.stat().st_ino == inode
    return taken_at


@pytest.mark.parametrize("bring", [written_over, restored_by_sqlite, in_a_new_folder])
def test_a_copy_that_is_laid_over_the_file_is_noticed_once(
    embedded: Installation, carrier_of_all: SimulatorProcess, bring: Callable[[Path, Path], None]
) -> None:
    with open_site(embedded, carrier_of_all) as site:
        taken_at = lost_and_brought_back(site, embedded, bring)
        later = site.now + timedelta(minutes=1)

        with opened(embedded) as database:
            restore = Restore(later, taken_at)
            assert noticed(database, later) == restore
            assert noticed(database, later + timedelta(minutes=1)) == restore


def test_a_copy_of_a_version_that_noted_nothing_is_noticed_by_what_lies_beside_it(
    embedded: Installation, carrier_of_all: SimulatorProcess
) -> None:
    with open_site(embedded, carrier_of_all) as site:
        lost_and_brought_back(site, embedded, of_an_earlier_version)

        with opened(embedded) as database:
            assert noticed(database, site.now) == Restore(site.now, LONG_AGO)


def test_processes_whose_clocks_differ_beat_at_once_and_take_their_ledger_for_no_copy(
    embedded: Installation,
) -> None:
    with opened(embedded) as database:
        ahead, behind = Restores(database), Restores(database)
        now = utcnow()
        later = now + timedelta(seconds=2)
        assert noticed(database, now) is None

        def beat_behind() -> None:
            with database.writing() as connection:
                behind.beat(connection, now)

        with database.writing() as connection:
            # Between the other's commit and what it writes beside the ledger.
            then(connection, "other", beat_behind)
            ahead.beat(connection, later)
        assert noticed(database, later) is None


def test_a_file_that_its_address_names_in_another_way_is_told_from_its_copy(
    embedded: Installation, carrier_of_all: SimulatorProcess
) -> None:
    address = f"sqlite:///file:{embedded.data_dir}/faxbot.db?uri=true"
    with open_site(embedded, carrier_of_all, DATABASE_URL=address) as site:
        lost_and_brought_back(site, embedded, written_over)
        with opened(embedded, DATABASE_URL=address) as database:
            assert noticed(database, site.now) is not None


def test_a_file_that_is_not_where_it_was_says_nothing(embedded: Installation) -> None:
    with opened(embedded) as database:
        assert noticed(database) is None
        (embedded.data_dir / "faxbot.db").unlink()
        assert noticed(database) is None


# PostgreSQL -------------------------------------------------------------------------------------------


KEPT_BACK = """
    CREATE SCHEMA {code};
    CREATE FUNCTION {code}.pg_control_system(OUT system_identifier bigint) LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{code}'; END $$;
"""


def keeping_back(store: Installation, code: str) -> str:
    """The address for one whom PostgreSQL does not tell of the cluster, with this error."""
    address = store.env["DATABASE_URL"]
    with psycopg.connect(address) as connection:
        connection.execute(cast("psycopg.abc.Query", KEPT_BACK.format(code=code)))
    return f"{address}?options=-c%20search_path%3D{code},public,pg_catalog"


POSTGRESQL = pytest.mark.parametrize("store", ["postgresql"], indirect=True)


@POSTGRESQL
@pytest.mark.parametrize("code", ["insufficient_privilege", "undefined_function"])
def test_processes_that_may_ask_more_and_less_take_their_ledger_for_no_copy(
    store: Installation, code: str
) -> None:
    less = keeping_back(store, code)
    with opened(store) as many, opened(store, DATABASE_URL=less) as few:
        for database in (few, many, few, many):
            assert noticed(database) is None
        came_from_another(many, "cluster")
        assert noticed(few) is None  # he cannot know
        assert noticed(many) is not None


def came_from_another(database: Database, part: str) -> None:
    """Have the ledger say that this part of where it lay was another."""
    name = sa.func.substr(Heartbeat.name, 1, len(f"ledger:{part}:")) + "0" * 32
    its = Heartbeat.name.startswith(f"ledger:{part}:")
    with database.transaction() as session:
        session.execute(sa.update(Heartbeat).where(its).values(name=name))


@POSTGRESQL
def test_what_postgresql_cannot_say_just_now_is_asked_again(store: Installation) -> None:
    with opened(store, DATABASE_URL=keeping_back(store, "undefined_table")) as database:
        with pytest.raises(DatabaseAway):
            noticed(database)
        rows = database.rows(sa.select(Heartbeat.name), {})
        assert rows == []
