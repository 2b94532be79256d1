"""Whatever the database or one who uses it does, nobody waits for it for ever."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
import sqlalchemy as sa

from faxbot import claims, jobs
from faxbot.db import Database
from faxbot.errors import DatabaseAway
from faxbot.models import Job
from tests.carrier import SimulatorProcess
from tests.ground import Ground, eventually
from tests.installation import Installation, Stores
from tests.integration.site import ACTOR, Site, number, open_site
from tests.servers import PostgresServer, RedisServer

FROZEN = """
import os, signal, sys
from faxbot.config import Config
from faxbot.db import Database
from faxbot.results import locked
with Database(Config.load()).transaction() as session:
    locked(session, sys.argv[1])
    print("locked", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
"""


@contextmanager
def frozen_holder(site: Site, job_id: str) -> Iterator[None]:
    """A process that is stopped in a transaction, in which it has locked this fax."""
    holder = subprocess.Popen(
        [sys.executable, "-c", FROZEN, job_id],
        env={**site.runtime.config.environ},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        yield
    finally:
        holder.kill()
        holder.communicate()


def seconds_until_away(deed: Callable[[], object]) -> float:
    begun = time.monotonic()
    with pytest.raises(DatabaseAway):
        deed()
    return time.monotonic() - begun


def test_who_stops_in_a_transaction_costs_the_others_seconds(site: Site) -> None:
    job_id = site.submit(number()).job_id
    with frozen_holder(site, job_id):
        assert seconds_until_away(lambda: jobs.cancel(site.runtime, ACTOR, job_id)) < 40

    job, ended = jobs.cancel(site.runtime, ACTOR, job_id)
    assert (job.status, ended) == ("cancelled", True)


def test_postgresql_takes_the_lock_from_who_stopped(on_postgresql: Site) -> None:
    site, mine = on_postgresql, on_postgresql.submit(number()).job_id
    with frozen_holder(site, mine):
        assert claims.claim(site.runtime, site.submit(number()).job_id) is not None

        def taken() -> bool:
            with suppress(DatabaseAway):
                return claims.claim(site.runtime, mine) is not None
            return False

        eventually(taken, 25)


def test_a_transaction_that_idled_too_long_is_over_and_the_next_goes_on(
    on_postgresql: Site,
) -> None:
    database = on_postgresql.runtime.database

    def idle() -> None:
        with database.transaction() as session, database.reading() as other:
            session.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = 50"))
            pid = session.scalar(sa.select(sa.func.pg_backend_pid()))
            sessions = sa.select(sa.func.count()).select_from(sa.table("pg_stat_activity"))
            eventually(lambda: other.scalar(sessions.where(sa.column("pid") == pid)) == 0)
            session.execute(sa.text("SELECT 1"))

    seconds_until_away(idle)
    assert on_postgresql.submit(number()).status == 202


def test_migrations_may_take_their_time_and_an_operators_own_limits_count(
    on_postgresql: Site,
) -> None:
    config = on_postgresql.runtime.config
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")

    def limits(database: Database) -> list[str | None]:
        with database.transaction() as session:
            found = [session.scalar(sa.text(f"SHOW {name}")) for name in names]
        database.close()
        return found

    own = on_postgresql.runtime.config.environ["DATABASE_URL"] + "?options=-c%20lock_timeout=7s"
    assert limits(Database(config, hurried=False)) == ["0", "0", "0"]
    assert limits(Database(config)) == ["15s", "5s", "15s"]
    assert limits(Database(type(config).load({**config.environ, "DATABASE_URL": own}))) == [
        *("15s", "7s", "15s")
    ]


def test_a_frozen_server_is_said_to_be_away_and_all_goes_on_when_it_is_back(
    ground: Ground,
    own_postgres: PostgresServer,
    redis_server: RedisServer,
    carrier_of_all: SimulatorProcess,
) -> None:
    store: Installation
    with (
        Stores(ground).postgresql(own_postgres, redis_server) as store,
        open_site(store, carrier_of_all) as site,
    ):
        site.submit(number())
        try:
            own_postgres.freeze()
            assert seconds_until_away(lambda: site.submit(number())) < 60
            assert seconds_until_away(lambda: site.submit(number())) < 12
        finally:
            own_postgres.thaw()

        assert site.submit(number()).status == 202
        assert site.count(Job) == 2
