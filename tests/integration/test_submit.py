"""Submitting: all of a fax is recorded or nothing of it is left; numbers sealed, lists complete."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from faxbot import jobs
from faxbot.actors import Actor
from faxbot.errors import DatabaseAway, InvalidFields
from faxbot.hidden import Hidden
from faxbot.models import Artifact, FaxEvent, IdempotencyKey, Job, JobTag
from tests.carrier import SimulatorProcess
from tests.installation import Installation
from tests.integration import odd
from tests.integration.site import ACTOR, Site, number, open_site, tiff
from tests.servers import free_port

TABLES = (Job, FaxEvent, Artifact, JobTag, IdempotencyKey)
TO = "+15550107700"


def rows(site: Site) -> dict[str, int]:
    return {model.__tablename__: site.count(model) for model in TABLES}


def nothing_is_left(site: Site) -> None:
    assert set(rows(site).values()) == {0}
    assert site.stored() == 0
    assert site.rung == []


# All or nothing -----------------------------------------------------------------------------------


@contextmanager
def refusing(site: Site, table: str) -> Iterator[None]:
    """Every INSERT into a table fails."""
    if site.runtime.database.is_sqlite:
        make = [
            f"CREATE TRIGGER no BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'no'); END",
        ]
        drop = ["DROP TRIGGER no"]
    else:
        body = "'BEGIN RAISE EXCEPTION ''no''; END'"
        make = [
            f"CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS {body}",
            f"CREATE TRIGGER no BEFORE INSERT ON {table} EXECUTE FUNCTION no()",
        ]
        drop = [f"DROP TRIGGER no ON {table}", "DROP FUNCTION no()"]
    run(site, make)
    try:
        yield
    finally:
        run(site, drop)


def run(site: Site, statements: list[str]) -> None:
    with site.runtime.database.engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


@pytest.mark.parametrize("model", TABLES, ids=lambda model: model.__tablename__)
def test_when_any_part_cannot_be_recorded_nothing_is(site: Site, model: type[Any]) -> None:
    wish: dict[str, Any] = {"key": "order-1", "tags": {"case": "1"}, "pages": 2}

    with refusing(site, model.__tablename__), pytest.raises(sa.exc.DBAPIError):
        site.submit(TO, **wish)

    nothing_is_left(site)
    assert site.submit(TO, **wish).replayed is False


def test_a_document_that_cannot_be_stored_takes_those_before_it_along(site: Site) -> None:
    good, gone = site.upload(), site.upload()
    gone.path.unlink()

    with pytest.raises(FileNotFoundError):
        site.submit(TO, key="order-1", uploads=(good, gone))

    nothing_is_left(site)


def test_a_store_that_fails_after_it_kept_the_bytes_keeps_none(site: Site) -> None:
    late = odd.plugins(site.runtime, storage=odd.LateStorage)
    site.runtime = replace(site.runtime, plugins=late)

    with pytest.raises(OSError, match="the disk says no"):
        site.submit(TO, key="order-1")

    nothing_is_left(site)


def test_an_answer_that_cannot_be_written_leaves_nothing(site: Site) -> None:
    wish = jobs.Submission(to=Hidden(TO), uploads=(site.upload(),))

    with pytest.raises(ZeroDivisionError):
        jobs.submit(site.runtime, ACTOR, wish, key="k", present=lambda _job: b"%d" % (1 // 0))

    nothing_is_left(site)


def test_a_database_that_is_away_takes_nothing(
    store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    away = f"postgresql://nobody@127.0.0.1:{free_port()}/none"
    key = "A" * 43 + "="
    with open_site(store, carrier_of_all, DATABASE_URL=away, CONFIG_MASTER_KEY=key) as site:
        upload = site.upload()
        with pytest.raises(DatabaseAway):
            site.submit(TO, key="order-1", uploads=(upload,))
        upload.path.unlink(missing_ok=True)
        assert site.stored() == 0
        assert site.rung == []


def test_a_fax_whose_commit_was_not_answered_keeps_its_document(site: Site) -> None:
    engine = site.runtime.database.engine

    def lose_the_answer(connection: sa.Connection) -> None:
        sa.event.remove(engine, "commit", lose_the_answer)
        if site.runtime.database.is_sqlite:
            connection.exec_driver_sql("COMMIT")
        else:
            connection.connection.commit()
        raise sa.exc.OperationalError("COMMIT", None, OSError("the connection is gone"))

    sa.event.listen(engine, "commit", lose_the_answer)
    with pytest.raises(DatabaseAway):
        site.submit(TO, key="order-1")

    answer = site.submit(TO, key="order-1")
    assert answer.replayed is True
    assert (site.count(Job), site.stored()) == (1, 1)
    site.sweep()
    site.after(10)
    assert site.job(answer.job_id).status == "sent"


# What is recorded ---------------------------------------------------------------------------------


def test_what_is_personal_is_sealed_and_a_number_is_found_by_its_keyed_hash(site: Site) -> None:
    one, two = (site.job(site.submit(TO, header="Dr. Doe").job_id) for _ in range(2))
    other = site.job(site.submit("+15550107701").job_id)

    assert (
        one.to_key
        == two.to_key
        == jobs.number_key(site.runtime.keyring, Hidden(TO))
        != other.to_key
    )
    assert one.to_sealed != two.to_sealed
    assert b"7700" not in one.to_sealed + (one.header_sealed or b"")
    assert jobs.number(site.runtime, one) == Hidden(TO)
    assert jobs.header(site.runtime, one) == Hidden("Dr. Doe")
    assert jobs.header(site.runtime, other) == Hidden("")


@pytest.mark.parametrize(
    ("send_at", "expires_at", "next_at"),
    [(None, None, 0), (-60, None, 0), (3600, None, 3600), (None, 60, 0), (3600, 60, 60)],
)
def test_a_fax_is_due_at_its_time_and_looked_at_no_later_than_its_deadline(
    site: Site, send_at: int | None, expires_at: int | None, next_at: int
) -> None:
    wish = {"send_at": send_at, "expires_at": expires_at}
    times: dict[str, Any] = {
        name: site.now + timedelta(seconds=after)
        for name, after in wish.items()
        if after is not None
    }

    job_id = site.submit(TO, **times).job_id

    assert site.wait_of(job_id) == next_at
    assert [row for _, row in site.rung] == ([job_id] if next_at == 0 else [])


def test_a_provider_that_is_not_active_is_refused_by_name_of_the_field(site: Site) -> None:
    with pytest.raises(InvalidFields) as refused:
        site.submit(TO, provider_id="phaxio", uploads=(site.upload(tiff(1)),))

    assert list(refused.value.errors) == ["provider_id"]
    assert site.count(Job) == 0


def test_pages_of_a_list_hold_each_fax_once_while_new_ones_come(site: Site) -> None:
    mine = []
    for _ in range(7):
        site.now += timedelta(milliseconds=1)
        mine.append(site.submit(number(), tags={"n": "1"}).job_id)
    site.submit(TO, actor=Actor("other", "k", frozenset()), tags={"n": "1"})
    seen: list[str] = []
    cursor = None
    while True:
        asked = jobs.Filters(tags={"n": "1"})
        found, cursor = jobs.page(site.runtime, ACTOR, asked, limit=3, cursor=cursor)
        seen += [job.id for job in found]
        if cursor is None:
            break
        site.now += timedelta(milliseconds=1)
        site.submit(number(), tags={"n": "1"})

    assert seen == mine[::-1]
