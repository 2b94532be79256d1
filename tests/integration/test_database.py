"""The ledger's connections: reading waits for no writer, and a restart of the server reaches no
request."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import pytest
import sqlalchemy as sa

from faxbot import wiring
from faxbot.db import among, planned_anew
from faxbot.models import Job
from faxbot.runtime import Runtime
from tests.ground import Ground, eventually
from tests.installation import Stores
from tests.integration.web import SECRET, client_of, new_key, send
from tests.servers import PostgresServer, RedisServer

COUNT = sa.select(sa.func.count()).select_from(Job)


def test_reading_waits_for_no_writer(runtime: Runtime) -> None:
    """Were it to wait, it would wait for itself here, and be told after ten seconds."""
    with runtime.database.transaction() as writing:
        writing.execute(sa.update(Job).values(priority=1))

        with runtime.database.reading() as session:
            assert session.scalar(COUNT) == 0
        assert runtime.database.row(COUNT, {}) == (0,)


def test_a_value_is_looked_for_among_many_and_none_and_never_among_parts_of_one(
    runtime: Runtime,
) -> None:
    with runtime.database.writing() as connection:

        def is_found(value: str, *values: str) -> bool:
            its = among(connection, sa.literal(value, sa.String), values)
            return connection.scalar(sa.select(sa.literal(1)).where(its)) == 1

        assert is_found("b", "a", "b", *map(str, range(3000)))
        assert not is_found("c", "a", "b")
        assert not is_found("a")
        for values in (("a,b",), ("b", "c,a"), ("a,",), ("",), ("a", "")):
            with pytest.raises(ValueError, match="comma"):
                is_found("a", *values)


def test_what_is_planned_anew_is_not_prepared_and_what_comes_behind_it_is_again(
    runtime: Runtime,
) -> None:
    if runtime.database.is_sqlite:
        return
    prepared = sa.text("SELECT count(*) FROM pg_prepared_statements")
    with runtime.database.writing() as connection:
        driver: Any = connection.connection.driver_connection
        usual = driver.prepare_threshold
        before = connection.scalar(prepared)
        with suppress(LookupError), planned_anew(connection):
            for number in range(20):
                connection.execute(sa.select(sa.literal(number) + 1))
            assert connection.scalar(prepared) == before
            raise LookupError
        assert driver.prepare_threshold == usual
        for number in range(20):
            connection.execute(sa.select(sa.literal(number) + 1))
        assert (connection.scalar(prepared) or 0) > (before or 0)


def test_connections_are_held_no_longer_than_they_are_used(runtime: Runtime) -> None:
    database = runtime.database
    with database.transaction() as writing:
        writing.scalar(COUNT)
        with database.reading() as session:
            session.scalar(COUNT)
            assert database.held == 2
        assert database.held == 1
    assert database.held == 0


def test_after_a_restart_of_the_server_the_first_request_of_an_idle_service_is_answered(
    ground: Ground, redis_server: RedisServer
) -> None:
    server = PostgresServer(ground)
    server.start()
    with Stores(ground).postgresql(server, redis_server) as store:
        runtime = wiring.build(store.config(SIMULATOR_SECRET=SECRET))
        client = client_of(runtime, new_key(runtime))
        assert (client.get("/fax").status_code, send(client).status_code) == (200, 202)
        used = time.monotonic()

        server.restart()
        eventually(lambda: time.monotonic() > used + 1)

        assert (client.get("/fax").status_code, send(client).status_code) == (200, 202)
        runtime.close()
    server.stop()
