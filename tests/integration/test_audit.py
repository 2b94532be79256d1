"""The audit trail: a row with the deed or no deed, and the database itself keeps it for six years."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from faxbot import audit
from faxbot.actors import CLI
from faxbot.audit import Action
from faxbot.db import table
from faxbot.models import AuditEvent
from faxbot.runtime import Runtime

YEAR = timedelta(days=366)
ROWS = table(AuditEvent)


def written(runtime: Runtime, age: timedelta = timedelta()) -> int:
    with runtime.database.transaction() as session:
        audit.record(
            session, CLI, Action.KEY_CREATED, ("key", "abc"), now=runtime.now() - age, details={}
        )
    row = runtime.database.row(sa.select(sa.func.max(ROWS.c.id)), {})
    assert row
    return int(row[0])


def test_a_row_says_who_did_what_to_which_object(runtime: Runtime) -> None:
    number = written(runtime)
    row = runtime.database.row(sa.select(ROWS).where(ROWS.c.id == number), {})
    assert row
    assert (row.actor_kind, row.actor, row.action) == ("command", "cli", "key.created")
    assert (row.object_kind, row.object_id, row.outcome) == ("key", "abc", "done")


@pytest.mark.parametrize(
    "statement",
    [sa.update(ROWS).values(actor="somebody else"), sa.delete(ROWS)],
    ids=["change", "delete"],
)
def test_the_database_refuses_to_change_and_to_delete_a_row(
    runtime: Runtime, statement: sa.Update | sa.Delete
) -> None:
    number = written(runtime)
    with pytest.raises(DBAPIError), runtime.database.transaction() as session:
        session.execute(statement.where(ROWS.c.id == number))
    assert runtime.database.row(sa.select(ROWS).where(ROWS.c.actor == "cli"), {})


def test_a_row_of_more_than_six_years_may_go_and_may_still_not_change(runtime: Runtime) -> None:
    number = written(runtime, 6 * YEAR)
    with pytest.raises(DBAPIError), runtime.database.transaction() as session:
        session.execute(sa.update(ROWS).where(ROWS.c.id == number).values(actor="x"))
    with runtime.database.transaction() as session:
        session.execute(sa.delete(ROWS).where(ROWS.c.id == number))
    assert not runtime.database.row(sa.select(ROWS).where(ROWS.c.id == number), {})


def test_a_table_of_the_trail_cannot_be_emptied_at_once(runtime: Runtime) -> None:
    written(runtime)
    words = "DELETE FROM audit_events" if runtime.database.is_sqlite else "TRUNCATE audit_events"
    with pytest.raises(DBAPIError), runtime.database.transaction() as session:
        session.execute(sa.text(words))


def test_a_deed_that_is_taken_back_leaves_no_row(runtime: Runtime) -> None:
    def failing() -> None:
        with runtime.database.transaction() as session:
            audit.record(session, CLI, Action.KEY_CREATED, now=runtime.now())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert not runtime.database.row(sa.select(ROWS), {})
