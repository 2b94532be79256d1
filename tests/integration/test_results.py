"""The results table: the only writer of a status, and the database behind it that takes no other
move."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import sqlalchemy as sa

from faxbot import db
from faxbot.errors import LeaseLost, NotFound, TransitionRefused
from faxbot.events import KEEPS_STATUS, PAIRS, TERMINAL, TRANSITIONS, Event, Status, allowed
from faxbot.models import FaxEvent, Job
from faxbot.results import locked, record_event, timeline
from tests.integration.site import Site, number
from tests.integration.test_claims import way_to
from tests.threads import at_once


def in_status(site: Site, status: Status) -> str:
    """A fax that went to `status` by moves the table allows, each with its event."""
    job_id = site.submit(number()).job_id
    before = Status.QUEUED
    for after in way_to(status):
        event = next(m.event for m in TRANSITIONS if (m.source, m.target) == (before, after))
        record(site, job_id, event, after)
        before = after
    return job_id


def record(site: Site, job_id: str, event: Event, status: Status | None, **more: Any) -> bool:
    with site.runtime.database.transaction() as session:
        job = locked(session, job_id)
        return record_event(session, job, event, status=status, now=site.now, source="api", **more)


def raw(site: Site, statement: str, **values: object) -> int:
    """Run SQL as somebody who knows nothing of our code."""
    with site.runtime.database.engine.begin() as connection:
        return connection.execute(sa.text(statement), values).rowcount


# What the database refuses ------------------------------------------------------------------------


def takes(site: Site, job_id: str, status: str) -> bool:
    """Whether the database lets anybody write this status; it is not kept."""
    change = sa.text("UPDATE jobs SET status = :status WHERE id = :id")
    with site.runtime.database.engine.connect() as connection:
        try:
            connection.execute(change, {"status": status, "id": job_id})
        except sa.exc.IntegrityError:
            return False
        return True


def test_the_database_takes_the_pairs_of_the_table_and_refuses_all_others(site: Site) -> None:
    for before in Status:
        job_id = in_status(site, before)
        moves = {str(after) for source, after in PAIRS if source is before}

        taken = {word for word in (*map(str, Status), "x", "") if takes(site, job_id, word)}

        assert taken == moves | {str(before)}, before


class Undone(Exception):
    """Rolls back what was only tried."""


def test_a_fax_begins_as_queued(site: Site) -> None:
    site.submit(number())
    copy = copied(Job, id="'new'", status=":status")

    for status in (*(str(status) for status in Status if status is not Status.QUEUED), "x"):
        with pytest.raises(sa.exc.IntegrityError):
            raw(site, copy, status=status)
    assert site.count(Job) == 1
    raw(site, copy, status="queued")
    assert site.count(Job) == 2


def copied(model: type[Any], **changes: str) -> str:
    """SQL that copies every row of a table, with `changes` to columns."""
    names = [column.name for column in model.__table__.columns]
    names = [name for name in names if changes.get(name) != "-"]
    values = ", ".join(changes.get(name, name) for name in names)
    target = f"{model.__table__.name} ({', '.join(names)})"
    return f"INSERT INTO {target} SELECT {values} FROM {model.__table__.name}"


@pytest.mark.parametrize(
    "change", ["status = 'failed'", "type = 'FAX_SENT'", "recorded_at = NULL", "id = id + 1000"]
)
def test_an_event_never_changes(site: Site, change: str) -> None:
    site.submit(number())

    with pytest.raises(sa.exc.IntegrityError):
        raw(site, f"UPDATE events SET {change}")
    assert site.count(FaxEvent) == 1


def test_two_events_of_one_number_or_one_key_are_refused(site: Site) -> None:
    job_id = site.submit(number()).job_id
    record(site, job_id, Event.ANOMALY, None, key="k")

    with pytest.raises(sa.exc.IntegrityError, match="sequence"):
        raw(site, copied(FaxEvent, id="-", key="NULL"))
    with pytest.raises(sa.exc.IntegrityError, match="key"):
        raw(site, copied(FaxEvent, id="-", sequence="sequence + 5"))
    assert raw(site, copied(FaxEvent, id="-", sequence="sequence + 5", key="NULL")) == 2


# What our code refuses ----------------------------------------------------------------------------


def test_only_moves_of_the_table_are_recorded_and_a_refused_one_leaves_nothing(site: Site) -> None:
    for before in Status:
        job_id = in_status(site, before)
        events = len(site.events(job_id))
        with site.runtime.database.transaction() as session:
            fax = locked(session, job_id)
            for after, event in itertools.product(Status, Event):
                if not allowed(before, after, event):
                    with pytest.raises(TransitionRefused, match=f"may not lead from {before}"):
                        record_event(session, fax, event, status=after, now=site.now, source="api")

        job = site.job(job_id)
        assert (job.status, job.last_sequence, len(site.events(job_id))) == (before, events, events)


def test_events_are_numbered_without_gaps_and_carry_the_status_after_them(site: Site) -> None:
    for status in Status:
        job_id = in_status(site, status)
        for event in KEEPS_STATUS:
            assert record(site, job_id, event, None)

        events, job = site.events(job_id), site.job(job_id)
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        assert job.last_sequence == len(events)
        assert [event.status for event in events[-6:]] == [status] * 6
        assert (job.next_at is None) == (status in TERMINAL)
        assert job.lease_until is None


def test_two_moves_in_one_visit_are_two_moves_for_the_database(site: Site) -> None:
    job_id = in_status(site, Status.SUBMITTING)

    with site.runtime.database.transaction() as session:
        job = locked(session, job_id)
        for event, status in ((Event.SENT, Status.SENT), (Event.DELIVERED, Status.DELIVERED)):
            record_event(session, job, event, status=status, now=site.now, source="api")

    assert site.story(job_id).endswith("SUBMITTING SENT DELIVERED")


def test_a_repeat_of_the_same_news_is_known_by_its_key(site: Site) -> None:
    job_id, other = site.submit(number()).job_id, site.submit(number()).job_id

    assert record(site, job_id, Event.ANOMALY, None, key="one")
    assert not record(site, job_id, Event.ANOMALY, None, key="one")
    assert record(site, job_id, Event.ANOMALY, None, key="two")
    assert record(site, other, Event.ANOMALY, None, key="one")
    assert site.story(job_id) == "QUEUED ANOMALY ANOMALY"
    assert site.job(job_id).last_sequence == 3


def test_many_writers_at_once_leave_no_gap_and_no_double(site: Site) -> None:
    job_id = site.submit(number()).job_id

    def write(name: int) -> None:
        for turn in range(5):
            record(site, job_id, Event.ANOMALY, None, key=f"{name}:{turn}")
            record(site, job_id, Event.ANOMALY, None, key=f"all:{turn}")

    at_once(8, write)

    events = site.events(job_id)
    assert [event.sequence for event in events] == list(range(1, 1 + 1 + 8 * 5 + 5))


def test_an_error_in_the_same_transaction_takes_the_event_back(site: Site) -> None:
    job_id = site.submit(number()).job_id

    def cancel_and_fail() -> None:
        with site.runtime.database.transaction() as session:
            job = locked(session, job_id)
            record_event(
                session, job, Event.CANCELLED, status=Status.CANCELLED, now=site.now, source="api"
            )
            raise Undone

    with pytest.raises(Undone):
        cancel_and_fail()
    assert (site.story(job_id), site.job(job_id).status) == ("QUEUED", "queued")


def test_a_lock_needs_a_fax_and_the_fence_of_the_last_claim(site: Site) -> None:
    job_id = site.submit(number()).job_id

    with site.runtime.database.transaction() as session:
        assert locked(session, job_id, fence=0).id == job_id
        with pytest.raises(LeaseLost):
            locked(session, job_id, fence=1)
        with pytest.raises(NotFound):
            locked(session, "0" * 32)


def test_a_timeline_holds_ids_counts_and_times_and_nothing_else(site: Site) -> None:
    job_id = site.sent("0044", pages=2, header="Jane Doe's surgery")
    told = timeline(site.runtime.database, job_id)

    assert [event["type"] for event in told["events"]] == [
        "FAX_QUEUED",
        "FAX_SUBMITTING",
        "FAX_SENT",
    ]
    (attempt,) = told["attempts"]
    assert (attempt["outcome"], attempt["counted"]) == ("accepted", True)
    assert {type(v) for row in (*told["events"], attempt) for v in row.values()} <= {
        str,
        int,
        bool,
        type(None),
    }
    assert all(row["recorded_at"].endswith("Z") for row in told["events"])
    assert "Jane" not in str(told)


def test_ids_are_ordered_by_time_and_bounded_by_it() -> None:
    at = db.utcnow()
    ids = [db.new_id(at) for _ in range(100)]

    assert len(set(ids)) == 100
    assert all(db.first_id(at) <= new and len(new) == 32 and new[12] == "7" for new in ids)
    assert max(ids) < db.first_id(at.replace(year=at.year + 1))
