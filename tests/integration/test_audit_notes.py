"""Reads are written down by another thread, within a second: a read costs no write, repeats are counted, and neither a
database that is away nor a stranger who knocks a thousand times fills memory or disk."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from sqlalchemy.exc import OperationalError

from faxbot import audit, trail
from faxbot.actors import CLI, STRANGER, Actor
from faxbot.audit import Action
from faxbot.db import table, utcnow
from faxbot.errors import DatabaseAway
from faxbot.models import AuditEvent
from faxbot.runtime import Runtime
from faxbot.trail import Notes
from tests.ground import eventually
from tests.integration.web import send

EVENTS = table(AuditEvent)
SHOWN = Action.FAX_SHOWN


def rows(runtime: Runtime, action: Action = SHOWN) -> list[Any]:
    query = sa.select(EVENTS).where(EVENTS.c.action == action.value).order_by(EVENTS.c.id)
    return list(runtime.database.rows(query, {}))


def row(action: Action = SHOWN, fax: str = "1", actor: Actor = CLI) -> trail.Row:
    return audit._row(actor, action, ("fax", fax), utcnow(), audit.DONE, None)


@contextmanager
def database_away(runtime: Runtime) -> Iterator[None]:
    def refuse(*_: Any) -> None:
        raise OperationalError("", {}, Exception())

    sa.event.listen(runtime.database.engine, "before_cursor_execute", refuse)
    try:
        yield
    finally:
        sa.event.remove(runtime.database.engine, "before_cursor_execute", refuse)


def test_a_read_is_written_down_within_a_second_with_who_and_from_where(
    runtime: Runtime, client: FlaskClient
) -> None:
    fax_id = send(client).get_json()["id"]
    begun = time.monotonic()
    answer = client.get(f"/fax/{fax_id}")
    (found,) = eventually(lambda: rows(runtime))

    assert time.monotonic() - begun < 10, "a second, and what a busy machine adds"
    assert (found.actor_kind, found.object_kind, found.object_id) == ("key", "fax", fax_id)
    assert (found.request_id, found.address) == (answer.headers["X-Request-Id"], "127.0.0.1")
    assert (found.outcome, found.details) == ("done", {})


def test_a_read_costs_its_own_thread_no_write(runtime: Runtime, client: FlaskClient) -> None:
    fax_id = send(client).get_json()["id"]
    client.get(f"/fax/{fax_id}")  # the key's first use is written
    eventually(lambda: rows(runtime))
    asked: list[str] = []

    def note(_connection: Any, _cursor: Any, text: str, *_: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            asked.append(text.split()[0])

    for engine in (runtime.database.engine, runtime.database.reader):
        sa.event.listen(engine, "before_cursor_execute", note)
    client.get(f"/fax/{fax_id}")

    assert set(asked) == {"SELECT"}


def test_the_first_is_written_at_once_and_repeats_as_one_row_with_their_count(
    runtime: Runtime,
) -> None:
    now = 0.0
    notes = Notes(runtime.database, lambda: now)
    for _ in range(5):
        notes.add(row())
    notes.add(row(fax="2"))
    notes.flush()
    assert [(each.object_id, each.details) for each in rows(runtime)] == [("1", {}), ("2", {})]
    now = trail.SILENT - 1
    notes.add(row())
    notes.flush()
    assert len(rows(runtime)) == 2

    now = trail.SILENT + 1
    notes.flush()
    assert [(each.object_id, each.details) for each in rows(runtime)][2:] == [("1", {"times": 5})]
    notes.add(row())
    notes.flush()
    assert [each.details for each in rows(runtime)][3:] == [{}]
    notes.close()


def test_who_reads_and_what_and_with_which_outcome_is_never_thrown_together(
    runtime: Runtime,
) -> None:
    other = Actor("default", "other", frozenset())
    notes = Notes(runtime.database)
    for each in (row(), row(fax="2"), row(actor=other), {**row(), "outcome": "failed"}):
        notes.add(each)
    notes.add({**row(), "details": {"why": "revoked"}})
    notes.flush()
    notes.close()
    assert len(rows(runtime)) == 5


def test_what_is_not_written_yet_is_written_when_the_process_ends(runtime: Runtime) -> None:
    for _ in range(3):
        audit.note(runtime, CLI, SHOWN, ("fax", "1"))
    runtime.notes.close()

    assert [each.details for each in rows(runtime)] == [{}, {"times": 2}]


def test_while_the_database_is_away_notes_wait(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    notes = Notes(runtime.database)
    with database_away(runtime):
        notes.add(row())
        with pytest.raises(DatabaseAway):
            notes.flush()
        eventually(lambda: "audit notes not written" in caplog.text)
    eventually(lambda: rows(runtime))
    notes.close()
    assert len(rows(runtime)) == 1


def test_memory_is_bounded_and_what_is_lost_is_counted(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trail, "MOST", 3)
    notes = Notes(runtime.database)
    with database_away(runtime):
        for number in range(10):
            notes.add(row(fax=str(number)))
    notes.close()

    assert len(rows(runtime)) == 3
    (lost,) = rows(runtime, Action.AUDIT_LOST)
    assert (lost.details, lost.outcome, lost.actor) == ({"lost": 7}, "failed", "clock")


def test_who_reads_more_than_is_known_as_repeats_is_written_down_all_the_same(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trail, "MOST", 3)
    notes = Notes(runtime.database, lambda: 0.0)
    for number in range(10):
        notes.add(row(fax=str(number)))
        notes.add(row(fax=str(number)))
        notes.flush()
    notes.close()

    first = [each.object_id for each in rows(runtime) if not each.details]
    again = [each.object_id for each in rows(runtime) if each.details == {"times": 1}]
    assert first == again == [str(number) for number in range(10)]
    assert rows(runtime, Action.AUDIT_LOST) == []


def test_what_can_never_be_written_is_counted_and_keeps_nobody_back(runtime: Runtime) -> None:
    notes = Notes(runtime.database)
    notes.add({**row(), "action": None})
    with pytest.raises(sa.exc.IntegrityError):
        notes.flush()
    notes.add(row())
    notes.close()

    assert len(rows(runtime)) == 1
    assert [each.details for each in rows(runtime, Action.AUDIT_LOST)] == [{"lost": 1}]


def test_a_stranger_who_comes_from_everywhere_fills_nothing(runtime: Runtime) -> None:
    failed = Action.AUTHENTICATION_FAILED
    notes = Notes(runtime.database, lambda: 0.0)
    for number in range(3000):
        stranger = Actor("default", "stranger", frozenset(), STRANGER, None, f"192.0.2.{number}")
        notes.add(row(failed, actor=stranger), stranger=True)
    notes.close()
    found = rows(runtime, failed)

    assert len(found) == trail.MOST_OF_STRANGERS + 2
    assert [each.address for each in found[-2:]] == ["many", "many"]
    assert found[-1].details == {"times": 3000 - trail.MOST_OF_STRANGERS - 1}
    assert rows(runtime, Action.AUDIT_LOST) == []


def test_a_read_costs_microseconds(runtime: Runtime) -> None:
    """Told apart from what the machine does beside: the best of many."""
    times = []
    for number in range(200):
        begun = time.perf_counter()
        audit.note(runtime, CLI, SHOWN, ("fax", str(number % 5)))
        times.append(time.perf_counter() - begun)

    assert sorted(times)[20] < 0.0005
