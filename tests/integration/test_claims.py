"""Who works on a fax: leases, fences, and the sweep that announces what nobody took."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from faxbot import callbacks, claims, health, sending
from faxbot.actors import Actor
from faxbot.db import new_id
from faxbot.errors import LeaseLost
from faxbot.events import OPEN, PAIRS, TERMINAL, Status
from faxbot.models import Attempt, Callback, Job
from faxbot.results import locked
from faxbot.shares import BEHIND, HALF_LIFE, URGENT
from tests.carrier import SimulatorProcess
from tests.ground import eventually
from tests.installation import Installation, Stores
from tests.integration.site import Site, number, open_site
from tests.servers import Postgres, RedisServer
from tests.threads import at_once


def put(site: Site, status: Status, **values: object) -> str:
    """A fax that is brought into `status` by the pairs the database allows."""
    job_id = site.submit(number()).job_id
    site.rung.clear()
    with site.runtime.database.transaction() as session:
        session.add(
            Attempt(
                id=new_id(),
                job_id=job_id,
                number=1,
                provider_id="simulator",
                tag=f"fb{job_id}",
                fence=1,
                intended_at=site.now,
            )
        )
        for step in way_to(status):
            session.execute(sa.update(Job).where(Job.id == job_id).values(status=step.value))
        session.execute(sa.update(Job).where(Job.id == job_id).values(attempts=1, **values))
    return job_id


def way_to(status: Status) -> list[Status]:
    """The shortest way from queued to `status`."""
    ways: list[list[Status]] = [[Status.QUEUED]]
    while ways[0][-1] is not status:
        way = ways.pop(0)
        ways += [[*way, after] for before, after in PAIRS if before is way[-1]]
    return ways[0][1:]


# Claims -------------------------------------------------------------------------------------------


def test_a_claim_is_a_lease_with_a_fence_that_rises(site: Site) -> None:
    job_id = site.submit(number()).job_id

    first = claims.claim(site.runtime, job_id)
    assert first is not None
    assert (first.status, first.fence) == ("queued", 1)
    assert first.lease_until == site.now + timedelta(seconds=60)
    assert claims.claim(site.runtime, job_id) is None
    site.now += timedelta(seconds=60)
    assert claims.claim(site.runtime, job_id) is None
    site.now += timedelta(seconds=1)
    second = claims.claim(site.runtime, job_id)
    assert second is not None
    assert second.fence == 2
    assert site.story(job_id) == "QUEUED"


def test_only_what_waits_before_the_intent_is_claimed(site: Site) -> None:
    claimed = {
        status
        for status in Status
        if claims.claim(site.runtime, put(site, status, next_at=site.now)) is not None
    }

    assert claimed == {Status.QUEUED, Status.RETRYING}


def test_what_is_not_due_or_not_there_is_not_claimed(site: Site) -> None:
    job_id = site.submit(number(), send_at=site.now + timedelta(hours=1)).job_id

    assert claims.claim(site.runtime, job_id) is None
    assert claims.claim(site.runtime, "0" * 32) is None
    site.now += timedelta(hours=1)
    assert claims.claim(site.runtime, job_id) is not None


def test_of_many_claims_at_once_one_wins(site: Site) -> None:
    job_id = site.submit(number()).job_id

    taken = at_once(8, lambda _: claims.claim(site.runtime, job_id))

    assert sum(claim is not None for claim in taken) == 1
    assert site.job(job_id).fence == 1


def test_who_lost_the_claim_writes_nothing_any_more(site: Site) -> None:
    job_id = site.submit(number()).job_id
    mine = claims.claim(site.runtime, job_id)
    assert mine is not None
    site.now += timedelta(seconds=61)
    other = claims.claim(site.runtime, job_id)
    assert other is not None
    before = site.job(job_id)

    with pytest.raises(LeaseLost), site.runtime.database.transaction() as session:
        claims.still_mine(session, mine)
    claims.release(site.runtime, mine)

    after = site.job(job_id)
    assert (after.lease_until, after.next_at, after.fence) == (
        before.lease_until,
        before.next_at,
        other.fence,
    )
    with site.runtime.database.transaction() as session:
        assert claims.still_mine(session, other).id == job_id


def test_a_claimed_fax_that_moved_on_all_the_same_is_not_the_workers_any_more(site: Site) -> None:
    job = claims.claim(site.runtime, site.submit(number()).job_id)
    assert job is not None
    with site.runtime.database.transaction() as session:
        session.execute(sa.update(Job).values(status="held"))

    with pytest.raises(LeaseLost), site.runtime.database.transaction() as session:
        claims.still_mine(session, job)


def test_a_lease_is_prolonged_while_its_worker_works_and_no_longer(
    store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    short = {"FAXBOT_LEASE_SECONDS": "0.5", "FAXBOT_HEARTBEAT_SECONDS": "0.1"}
    with open_site(store, carrier_of_all, **short) as site:
        job_id = site.submit(number()).job_id
        job = claims.claim(site.runtime, job_id)
        assert job is not None
        with claims.keeping(site.runtime, job):
            site.now += timedelta(seconds=30)
            until = site.now + timedelta(seconds=0.5)
            eventually(lambda: site.job(job_id).lease_until == until)
            claims.release(site.runtime, job)
            other = site.submit(number()).job_id
            late = claims.claim(site.runtime, other)
            assert late is not None
            with claims.keeping(site.runtime, late):
                site.now += timedelta(seconds=30)
                until = site.now + timedelta(seconds=0.5)
                eventually(lambda: site.job(other).lease_until == until)
        assert site.job(job_id).lease_until is None, "given back, and taken again by the heartbeat"


def test_a_lease_that_could_not_be_prolonged_once_is_prolonged_the_next_time(
    store: Installation, carrier_of_all: SimulatorProcess, caplog: pytest.LogCaptureFixture
) -> None:
    short = {"FAXBOT_LEASE_SECONDS": "0.5", "FAXBOT_HEARTBEAT_SECONDS": "0.1"}
    with open_site(store, carrier_of_all, **short) as site:
        job = claims.claim(site.runtime, site.submit(number()).job_id)
        assert job is not None
        failed = threading.Event()

        def fail_once(_c: Any, _cursor: Any, text: str, *_: Any) -> None:
            if "lease_until" in text and text.startswith("UPDATE") and not failed.is_set():
                failed.set()
                raise sa.exc.OperationalError(text, None, Exception("the connection is gone"))

        sa.event.listen(site.runtime.database.engine, "before_cursor_execute", fail_once)
        with claims.keeping(site.runtime, job):
            site.now += timedelta(seconds=30)
            until = site.now + timedelta(seconds=0.5)
            eventually(lambda: site.job(job.id).lease_until == until)
    assert failed.is_set()
    assert "leases not prolonged" in [record.message for record in caplog.records]


def test_a_claim_that_was_taken_over_is_not_prolonged(
    store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    short = {"FAXBOT_LEASE_SECONDS": "0.5", "FAXBOT_HEARTBEAT_SECONDS": "0.1"}
    with open_site(store, carrier_of_all, **short) as site:
        job_id = site.submit(number()).job_id
        mine = claims.claim(site.runtime, job_id)
        assert mine is not None
        site.now += timedelta(seconds=1)
        other = claims.claim(site.runtime, job_id)
        assert other is not None
        third = claims.claim(site.runtime, site.submit(number()).job_id)
        assert third is not None
        with claims.keeping(site.runtime, mine), claims.keeping(site.runtime, third):
            site.now += timedelta(seconds=1)
            until = site.now + timedelta(seconds=0.5)
            eventually(lambda: site.job(third.id).lease_until == until)
        assert site.job(job_id).lease_until == other.lease_until


def test_a_claim_given_back_never_lies_behind_the_deadline(site: Site) -> None:
    deadline = site.now + timedelta(seconds=5)
    job = claims.claim(site.runtime, site.submit(number(), expires_at=deadline).job_id)
    assert job is not None

    claims.release(site.runtime, job, until=site.now + timedelta(seconds=60))

    assert site.job(job.id).next_at == deadline


# The sweep ----------------------------------------------------------------------------------------


def test_every_open_status_is_announced_once_per_ring(site: Site) -> None:
    for status in OPEN:
        announced_once_per_ring(site, status)


def announced_once_per_ring(site: Site, status: Status) -> None:
    site.rung, now = [], site.now
    due = put(site, status, next_at=now, rung_at=None)
    put(site, status, next_at=now + timedelta(seconds=100), rung_at=None)
    put(site, status, next_at=now, rung_at=None, lease_until=now + timedelta(seconds=60))
    ring = (claims.TASKS[status], due)
    assert [s for s in OPEN if s is not status and claims.announce_due(site.runtime, s)] == []

    assert claims.announce_due(site.runtime, status) == 1
    assert site.rung == [ring]
    site.now += timedelta(seconds=7)
    assert claims.announce_due(site.runtime, status) == 0
    site.now += timedelta(seconds=1)
    assert claims.announce_due(site.runtime, status) == 1
    assert site.rung == [ring, ring]
    with site.runtime.database.transaction() as session:
        session.execute(sa.update(Job).values(next_at=None))


def test_what_came_due_since_it_was_announced_is_announced_at_once(site: Site) -> None:
    """A fax announced two seconds ago whose lease ran out, or whose pause ended, does not wait for
    the next ring."""
    now = site.now
    put(site, Status.RETRYING, next_at=now, rung_at=now - timedelta(seconds=2))

    assert claims.announce_due(site.runtime, Status.RETRYING) == 1


def test_a_final_fax_is_never_announced(site: Site) -> None:
    for status in TERMINAL:
        put(site, status, next_at=site.now, rung_at=None)

    for status in claims.TASKS:
        assert claims.announce_due(site.runtime, status) == 0, status
    assert (site.rung, set(claims.TASKS)) == ([], set(Status) - TERMINAL)


def test_beat_dead_for_three_hours_and_all_is_caught_up_oldest_first(site: Site) -> None:
    ages = [10_800, 60, 7_200, 3]
    faxes = [
        put(site, Status.QUEUED, next_at=site.now - timedelta(seconds=age), rung_at=None)
        for age in ages
    ]

    assert claims.announce_due(site.runtime, Status.QUEUED, limit=3) == 3
    assert [row for _, row in site.rung] == [faxes[0], faxes[2], faxes[1]]
    assert claims.announce_due(site.runtime, Status.QUEUED, limit=3) == 1


def test_higher_priorities_are_announced_first(site: Site) -> None:
    now = site.now
    wishes = [(128, 50), (0, 99), (255, 1), (128, 60), (129, 0)]
    faxes = [
        put(
            site,
            Status.QUEUED,
            priority=priority,
            next_at=now - timedelta(seconds=age),
            rung_at=None,
        )
        for priority, age in wishes
    ]

    claims.announce_due(site.runtime, Status.QUEUED)

    assert [row for _, row in site.rung] == [faxes[place] for place in (2, 4, 3, 0, 1)]


def test_what_the_broker_did_not_take_is_announced_by_the_next_sweep(site: Site) -> None:
    faxes = [
        put(site, Status.QUEUED, next_at=site.now - timedelta(hours=1, seconds=place), rung_at=None)
        for place in range(4)
    ]
    heard: list[str] = []

    def break_down(_task: str, row_id: str, _urgency: int = 0, /) -> bool:
        heard.append(row_id)
        return len(heard) < 3

    broken = replace(site.runtime, ring=break_down)
    assert claims.announce_due(broken, Status.QUEUED) == 2
    assert heard == faxes[:0:-1]

    site.now += timedelta(seconds=5)
    assert claims.announce_due(site.runtime, Status.QUEUED) == 2
    assert [row for _, row in site.rung] == faxes[1::-1]


def test_a_dead_workers_fax_is_announced_at_once_however_many_wait_for_workers(site: Site) -> None:
    job_id = put(site, Status.QUEUED, next_at=site.now, rung_at=None)
    site.runtime = replace(site.runtime, unanswered=lambda _task: 10 * claims.CROWDED)
    assert claims.announce_due(site.runtime, Status.QUEUED) == 1
    site.now += timedelta(seconds=5)
    assert claims.claim(site.runtime, job_id) is not None
    site.now += timedelta(seconds=61)

    assert claims.announce_due(site.runtime, Status.QUEUED) == 1
    site.now += timedelta(seconds=10)
    assert claims.announce_due(site.runtime, Status.QUEUED) == 0


def test_a_vanished_workers_call_is_settled_before_whatever_waits_to_be_sent(site: Site) -> None:
    """A broker looks into the urgent lists of all queues first, so that a queue of its own is not enough."""
    urgency: dict[str, int] = {}

    def note(_task: str, row_id: str, urgent: int = 0, /) -> bool:
        urgency[row_id] = urgent
        return True

    site.runtime = replace(site.runtime, ring=note)
    vanished = put(
        site, Status.SUBMITTING, priority=0, next_at=site.now, rung_at=None, lease_until=site.now
    )
    site.now += timedelta(seconds=1)
    urgent = put(site, Status.RETRYING, priority=255, next_at=site.now, rung_at=None)
    for status in (Status.SUBMITTING, Status.RETRYING):
        claims.announce_due(site.runtime, status)

    assert urgency[vanished] == urgency[urgent] == URGENT


@pytest.mark.parametrize("are_sent", [False, True])
def test_a_surge_that_is_announced_again_still_stands_behind_the_others(
    site: Site, are_sent: bool
) -> None:
    surge, other = Actor("surge", "env", frozenset({"*"})), Actor("other", "env", frozenset({"*"}))
    rung: dict[str, list[int]] = {}

    def note(_task: str, row_id: str, urgency: int = 0, /) -> bool:
        rung.setdefault(row_id, []).append(urgency)
        return True

    site.runtime = replace(site.runtime, ring=note)
    faxes = [site.submit(number(), actor=surge).job_id for _ in range(30)]
    small = [site.submit(number(), actor=other).job_id for _ in range(4)]
    if are_sent:  # nobody else waits: the surge still is one, while others come
        for fax in small:
            sending.attempt(site.runtime, fax)
    site.now += timedelta(seconds=8)
    claims.announce_due(site.runtime, Status.QUEUED)

    assert {rung[fax][-1] for fax in faxes} == {129 - BEHIND}
    if not are_sent:
        assert {rung[fax][-1] for fax in small} == {129}


def test_who_surged_is_announced_as_usual_once_nobody_else_comes(site: Site) -> None:
    rung: dict[str, int] = {}

    def note(_task: str, row_id: str, urgency: int = 0, /) -> bool:
        rung[row_id] = urgency
        return True

    site.runtime = replace(site.runtime, ring=note)
    small = site.submit(number(), actor=Actor("other", "env", frozenset({"*"}))).job_id
    faxes = [site.submit(number()).job_id for _ in range(30)]
    sending.attempt(site.runtime, small)
    site.now += timedelta(seconds=HALF_LIFE + 1)
    claims.announce_due(site.runtime, Status.QUEUED)

    assert {rung[fax] for fax in faxes} == {129}


def test_a_few_faxes_that_wait_are_no_surge_though_they_came_lately_as_well(site: Site) -> None:
    rung: dict[str, int] = {}

    def note(_task: str, row_id: str, urgency: int = 0, /) -> bool:
        rung[row_id] = urgency
        return True

    site.runtime = replace(site.runtime, ring=note)
    site.submit(number(), actor=Actor("other", "env", frozenset({"*"})))
    few = [site.submit(number()).job_id for _ in range(6)]
    site.now += timedelta(seconds=8)
    claims.announce_due(site.runtime, Status.QUEUED)

    assert {rung[fax] for fax in few} == {129}


def test_two_sweeps_at_once_announce_each_fax_once(site: Site) -> None:
    faxes = {put(site, Status.QUEUED, rung_at=None) for _ in range(12)}

    at_once(4, lambda _: claims.announce_due(site.runtime, Status.QUEUED))

    assert sorted(row for _, row in site.rung) == sorted(faxes)


def test_a_sweep_does_not_wait_for_a_fax_that_somebody_works_on(
    stores: Stores,
    postgres_server: Postgres,
    redis_server: RedisServer,
    carrier_of_all: SimulatorProcess,
) -> None:
    """On PostgreSQL; on SQLite all writers take turns."""
    with (
        stores.postgresql(postgres_server, redis_server) as store,
        open_site(store, carrier_of_all) as site,
    ):
        busy, free = (put(site, Status.QUEUED, rung_at=None) for _ in range(2))
        with site.runtime.database.transaction() as session:
            locked(session, busy)
            sweep = threading.Thread(
                target=claims.announce_due, args=(site.runtime, Status.QUEUED), daemon=True
            )
            sweep.start()
            sweep.join(10)
            assert not sweep.is_alive()
        assert site.rung == [(claims.TASKS[Status.QUEUED], free)]


def test_stored_callbacks_are_announced_once_per_ring_and_not_once_applied(site: Site) -> None:
    site.receive(site.signed(b'{"waiting": 1}'))
    site.receive(site.signed(b'{"applied": 1}'))
    with site.runtime.database.transaction() as session:
        first, second = session.scalars(sa.select(Callback).order_by(Callback.id))
        second.applied_at = site.now
    site.rung.clear()

    counts = []
    for _ in range(3):
        site.now += timedelta(seconds=10)
        counts.append(callbacks.announce_waiting(site.runtime))
        counts.append(callbacks.announce_waiting(site.runtime))

    assert counts == [1, 0, 1, 0, 1, 0]
    assert set(site.rung) == {("faxbot.apply_callback", first.id)}


MANY = """
INSERT INTO jobs SELECT (jsonb_populate_record(jobs, jsonb_build_object('id', md5(i::text)))).*
FROM jobs, generate_series(1, 3000) AS i
"""


def test_the_sweep_and_the_look_for_callbacks_do_not_walk_through_what_is_done(site: Site) -> None:
    database = site.runtime.database
    put(site, Status.QUEUED, rung_at=None)
    site.receive(site.signed(b"{}"))
    if not database.is_sqlite:  # it plans by what the tables hold
        with database.transaction() as session:
            session.execute(sa.text(MANY))
            session.execute(sa.text("UPDATE jobs SET status = 'cancelled' WHERE rung_at IS NULL"))
            session.execute(sa.text("ANALYZE jobs"))
    plans: list[str] = []

    def explain(connection: sa.Connection, _cursor: Any, text: str, values: Any, *_: Any) -> None:
        if text.startswith(("SELECT jobs.id", "SELECT callbacks.id", "SELECT EXISTS")):
            cursor = connection.connection.cursor()
            cursor.execute(f"EXPLAIN {'QUERY PLAN ' * database.is_sqlite}{text}", values)
            plans.append(str(cursor.fetchall()))
            cursor.close()

    for engine in (database.engine, database.reader):
        sa.event.listen(engine, "before_cursor_execute", explain)
    claims.announce_due(site.runtime, Status.QUEUED)
    health.ready(site.runtime)
    callbacks.announce_waiting(site.runtime)

    assert len(plans) == 5
    for plan in plans[:3]:
        assert "ix_jobs_due" in plan, plan
    if database.is_sqlite:
        assert "ix_callbacks_unwanted" in plans[3], plans[3]
        assert "ix_callbacks_waiting" in plans[4], plans[4]
