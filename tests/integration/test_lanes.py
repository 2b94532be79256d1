"""One call at a time to a number, as many as set to a provider: who must wait waits, in turn, and that costs no try."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from faxbot import claims, decisions, jobs, lanes, oversight, sending
from faxbot.errors import DatabaseAway, OutcomeUnknown, Refused, Unreachable
from faxbot.events import Status
from faxbot.models import Job, Lane, ProviderProbe
from faxbot.plugins.base import Receipt, State, Update
from tests.carrier import SimulatorProcess
from tests.installation import Installation
from tests.integration.odd import raises
from tests.integration.site import ACTOR, Site, number, open_site
from tests.threads import at_once

pytestmark = pytest.mark.usefixtures("adds_up")

GAP = 5.0
NAMES = itertools.count()
Opened = Callable[..., Any]


@pytest.fixture
def opened(store: Installation, carrier_of_all: SimulatorProcess) -> Opened:
    """Opens a site with other settings."""

    @contextmanager
    def opening(**settings: str) -> Iterator[Site]:
        with open_site(store, carrier_of_all, **settings) as site:
            yield site

    return opening


def take(site: Site) -> None:
    """Let the carrier take faxes and say nothing more of them."""
    site.odd.does["send"] = lambda _usual, _fax: Receipt(f"id-{next(NAMES)}")
    site.odd.does["fetch"] = lambda _usual, name: Update(State.PROGRESS, external_id=name)
    site.odd.does["look_up"] = raises(OutcomeUnknown())


def end(site: Site, job_id: str, state: State = State.DELIVERED, cause: str | None = None) -> None:
    """The carrier tells how this fax's call ended."""
    name = site.job(job_id).external_id
    site.odd.does["read_callback"] = lambda _usual, _request: [
        Update(state, external_id=name, cause=cause)
    ]
    site.receive(site.signed(f"{next(NAMES)}".encode()))
    callbacks = [ring for ring in site.rung if ring[0] == "faxbot.apply_callback"]
    site.rung[:] = callbacks
    site.work()


def attempt(site: Site, job_id: str) -> str:
    sending.attempt(site.runtime, job_id)
    return site.job(job_id).status


def test_the_second_fax_to_a_number_waits_for_the_first_and_says_so(site: Site) -> None:
    take(site)
    to = number()
    first, second, other = site.fax_to(to), site.fax_to(to), site.fax()
    assert attempt(site, first) == "sent"
    assert attempt(site, second) == "queued"
    assert attempt(site, other) == "sent"

    job = site.job(second)
    assert (job.waiting, job.attempts, job.tries, job.lease_until) == ("number", 0, 0, None)
    shown = jobs.describe(site.runtime, job)["explanation"]
    assert shown == "Another fax to this number is under way or has just been; this one follows."
    site.after(30)
    assert site.job(second).status == "queued"

    end(site, first)
    assert site.wait_of(second) == GAP
    site.after(GAP)
    assert (site.job(second).status, site.job(second).waiting) == ("sent", None)


@pytest.mark.parametrize("limit", [1, 3])
def test_of_workers_that_come_at_once_as_many_call_a_number_as_may(
    opened: Opened, limit: int
) -> None:
    with opened(FAXBOT_CALLS_PER_NUMBER=str(limit)) as site:
        take(site)
        to = number()
        faxes = [site.fax_to(to) for _ in range(8)]
        at_once(len(faxes), lambda each: sending.attempt(site.runtime, faxes[each]))

        statuses = [site.job(fax).status for fax in faxes]
        assert (statuses.count("sent"), statuses.count("queued")) == (limit, 8 - limit)
        assert site.count(Lane) == limit


def test_many_faxes_to_one_number_all_arrive_one_after_the_other(site: Site) -> None:
    take(site)
    to = number()
    left = [site.fax_to(to) for _ in range(25)]
    arrived = []
    site.work()
    for _ in range(200):
        under_way = [fax for fax in left if site.job(fax).status == "sent"]
        assert len(under_way) <= 1
        for fax in under_way:
            end(site, fax)
            left.remove(fax)
            arrived.append(fax)
        if not left:
            break
        site.after(GAP)

    assert left == []
    assert {site.job(fax).attempts for fax in arrived} == {1}


def fences(site: Site) -> int:
    """How often any fax was claimed."""
    with site.runtime.database.reading() as session:
        return session.scalar(sa.select(sa.func.sum(Job.fence))) or 0


def come(site: Site, count: int, to: str | None = None) -> list[str]:
    """So many faxes, one after the other, each looked at once."""
    faxes = []
    for _ in range(count):
        site.now += timedelta(milliseconds=2)
        faxes.append(site.fax_to(to or number()))
        attempt(site, faxes[-1])
    site.rung.clear()
    return faxes


def test_of_many_that_wait_for_a_number_each_has_its_turn_and_few_look_in_vain(site: Site) -> None:
    take(site)
    to = number()
    faxes = come(site, 100, to)
    looks = fences(site)
    for place in range(10):
        site.after(60)
        assert site.job(faxes[place]).status == "sent"
        end(site, faxes[place])
        site.now += timedelta(seconds=GAP)
        newcomer = site.fax_to(to)
        assert attempt(site, newcomer) == "queued", "it overtakes those that wait"
        site.sweep()
    assert fences(site) - looks < 150


def test_the_gap_holds_for_the_next_try_of_the_same_fax(opened: Opened) -> None:
    with opened(FAXBOT_NUMBER_GAP_SECONDS="600") as site:
        take(site)
        fax = site.fax()
        attempt(site, fax)
        end(site, fax, State.FAILED, "busy")
        for _ in range(59):
            site.after(10)
        assert (site.job(fax).attempts, site.job(fax).waiting) == (1, "number")
        site.after(10)
        assert site.job(fax).attempts == 2


def test_the_least_urgent_has_its_turn_though_urgent_ones_come_all_the_time(site: Site) -> None:
    take(site)
    to = number()
    under_way = site.fax_to(to)
    attempt(site, under_way)
    low = site.fax_to(to, priority=0)
    attempt(site, low)
    waiting = [low]
    for _ in range(40):
        waiting.append(site.fax_to(to, priority=200))
        attempt(site, waiting[-1])
        site.now += timedelta(seconds=55)
        end(site, under_way)
        site.after(GAP)
        (under_way,) = (fax for fax in waiting if site.job(fax).status == "sent")
        waiting.remove(under_way)
        if under_way == low:
            break

    assert under_way == low
    assert site.now - site.job(low).created_at > timedelta(minutes=20)


def test_a_lane_that_is_kept_for_one_that_does_not_come_is_not_kept_for_long(site: Site) -> None:
    take(site)
    first, gone, second = come(site, 3, number())
    end(site, first)
    jobs.cancel(site.runtime, ACTOR, gone)
    for _ in range(36):
        site.after(5)

    assert site.job(second).status == "sent"


def test_those_who_give_their_lanes_back_at_once_do_not_wait_for_each_other(
    on_postgresql: Site,
) -> None:
    """On PostgreSQL; on SQLite all writers take turns."""
    site = on_postgresql
    config = replace(site.runtime.config, calls_per_number=2)
    to = number()
    faxes = [site.fax_to(to) for _ in range(2)]
    for _ in range(40):
        for fax in faxes:
            with site.runtime.database.transaction() as session:
                job = session.get_one(Job, fax)
                assert (
                    lanes.enter(session, config, job, "simulator", site.now, numbers=[job.to_key])
                    is None
                )
        with site.runtime.database.transaction() as session:
            session.execute(sa.update(Lane).values(wanted=True))

        def leave(each: int) -> None:
            with site.runtime.database.transaction() as session:
                job = session.get_one(Job, faxes[each])
                lanes.leave(session, config, job, site.now, called=False, numbers=[job.to_key])

        at_once(2, leave)


def test_who_is_woken_takes_the_place_that_was_kept_for_it(opened: Opened) -> None:
    with opened(FAXBOT_CALLS_PER_NUMBER="2") as site:
        take(site)
        to = number()
        faxes = come(site, 6, to)
        for place in range(0, 6, 2):
            assert {site.job(fax).status for fax in faxes[place : place + 2]} == {"sent"}
            end(site, faxes[place])
            end(site, faxes[place + 1])
            site.after(GAP)
        assert {site.job(fax).status for fax in faxes} == {"delivered"}


def test_fewer_calls_to_a_number_than_before_are_kept_to_soon(opened: Opened) -> None:
    with opened(FAXBOT_CALLS_PER_NUMBER="3") as site:
        take(site)
        faxes = come(site, 6, number())
        config = replace(site.runtime.config, calls_per_number=1)
        site.runtime = replace(site.runtime, config=config)
        for fax in faxes[:3]:
            end(site, fax)
        for place in range(3, 5):
            site.after(GAP)
            assert [site.job(fax).status for fax in faxes].count("sent") == 1
            assert all(site.wait_of(fax) > 0 for fax in faxes[place + 1 :])
            end(site, faxes[place])
        site.after(GAP)
        assert site.job(faxes[5]).status == "sent"


def test_trouble_in_the_intent_is_no_death_of_a_worker(on_postgresql: Site) -> None:
    site = on_postgresql
    take(site)
    first, second = come(site, 2, number())
    end(site, first)
    site.now += timedelta(seconds=GAP)
    with site.runtime.database.transaction() as session:
        session.execute(sa.select(Lane).with_for_update()).all()
        with pytest.raises(DatabaseAway):
            sending.attempt(site.runtime, second)

    job = site.job(second)
    assert (job.status, job.lease_until, job.faults, job.deaths) == ("queued", None, 1, 0)


def test_who_is_prepared_and_waits_was_nobodys_death(site: Site) -> None:
    take(site)
    to = number()
    attempt(site, site.fax_to(to))
    second = site.fax_to(to)
    with site.runtime.database.transaction() as session:
        session.execute(sa.update(Job).where(Job.id == second).values(deaths=2, faults=3))

    attempt(site, second)
    assert (site.job(second).deaths, site.job(second).faults) == (0, 0)


ENDS: dict[str, tuple[Callable[[Site, str], object], float]] = {
    "delivered": (lambda site, fax: end(site, fax), GAP),
    "busy": (lambda site, fax: end(site, fax, State.FAILED, "busy"), GAP),
    "failed": (lambda site, fax: end(site, fax, State.FAILED, "number_dead"), GAP),
    "no funds": (lambda site, fax: end(site, fax, State.FAILED, "funds"), GAP),
    "cancelled": (lambda site, fax: end(site, fax, State.FAILED, "cancelled"), GAP),
}


@pytest.mark.parametrize("how", ENDS)
def test_every_end_of_a_call_lets_the_next_one_go_after_the_gap(site: Site, how: str) -> None:
    deed, gap = ENDS[how]
    take(site)
    to = number()
    first, second = site.fax_to(to), site.fax_to(to)
    attempt(site, first)
    attempt(site, second)
    deed(site, first)

    assert site.wait_of(second) == gap


@pytest.mark.parametrize("error", [Refused(), Unreachable()])
def test_where_no_call_was_made_no_gap_follows(site: Site, error: Exception) -> None:
    to = number()
    first, second = site.fax_to(to), site.fax_to(to)
    site.odd.does["send"] = raises(error)
    attempt(site, first)
    take(site)

    assert attempt(site, second) == "sent"


def test_an_uncertain_fax_keeps_its_lane_until_it_is_settled(site: Site) -> None:
    take(site)
    to = number()
    first, second = site.fax_to(to), site.fax_to(to)
    site.odd.does["send"] = raises(OutcomeUnknown())
    assert attempt(site, first) == "uncertain"
    take(site)
    assert attempt(site, second) == "queued"

    decisions.decide(site.runtime, ACTOR, first, "failed", "the receiver says so")
    assert site.wait_of(second) == GAP


def test_a_call_that_is_never_heard_of_again_holds_its_lane_for_two_hours(site: Site) -> None:
    take(site)
    to = number()
    first, second = site.fax_to(to), site.fax_to(to)
    attempt(site, first)
    attempt(site, second)
    for _ in range(119):
        site.after(60)
    assert site.job(second).status == "queued"
    for _ in range(3):
        site.after(60)

    assert site.job(second).status == "sent"


def test_a_call_that_is_never_heard_of_again_holds_its_lane_as_long_as_set(opened: Opened) -> None:
    with opened(FAXBOT_LONGEST_CALL_SECONDS="300") as site:
        take(site)
        first, second = come(site, 2, number())
        for _ in range(4):
            site.after(60)
        assert (site.job(first).status, site.job(second).status) == ("sent", "queued")
        for _ in range(3):
            site.after(60)

        assert site.job(second).status == "sent"


def test_the_most_urgent_of_those_that_wait_is_next(site: Site) -> None:
    take(site)
    to = number()
    first = site.fax_to(to)
    attempt(site, first)
    late = site.fax_to(to)
    urgent = site.fax_to(to, priority=200)
    for fax in (late, urgent):
        attempt(site, fax)
    end(site, first)
    site.after(GAP)

    assert (site.job(urgent).status, site.job(late).status) == ("sent", "queued")


def test_who_waits_may_be_cancelled_and_expires_in_time(site: Site) -> None:
    take(site)
    to = number()
    first, cancelled = site.fax_to(to), site.fax_to(to)
    late = site.fax_to(to, expires_at=site.now + timedelta(seconds=20))
    for fax in (first, cancelled, late):
        attempt(site, fax)
    jobs.cancel(site.runtime, ACTOR, cancelled)
    site.after(21)
    end(site, first)
    site.after(GAP)

    assert [site.job(fax).status for fax in (first, cancelled, late)] == [
        "delivered",
        "cancelled",
        "expired",
    ]
    assert site.job(late).attempts == 0


def test_who_is_woken_for_after_its_deadline_expires_in_time(opened: Opened) -> None:
    with opened(FAXBOT_NUMBER_GAP_SECONDS="3600") as site:
        take(site)
        to = number()
        first = site.fax_to(to)
        late = site.fax_to(to, expires_at=site.now + timedelta(minutes=10))
        for fax in (first, late):
            attempt(site, fax)
        end(site, first)
        site.after(600)

        assert (site.job(late).status, site.job(late).attempts) == ("expired", 0)


def test_who_has_waited_long_for_its_number_is_rung_for_as_one_that_has(site: Site) -> None:
    take(site)
    to = number()
    first, low = site.fax_to(to), site.fax_to(to, priority=0)
    for fax in (first, low):
        attempt(site, fax)
    site.now += timedelta(minutes=20)
    end(site, first)
    rung: list[tuple[str, int]] = []

    def note(_task: str, row_id: str, urgency: int = 0, /) -> bool:
        rung.append((row_id, urgency))
        return True

    site.runtime = replace(site.runtime, ring=note)
    site.now += timedelta(seconds=GAP)
    claims.announce_due(site.runtime, Status.QUEUED)
    assert rung == [(low, 160)]


# Providers ------------------------------------------------------------------------------------------


def test_a_provider_is_given_as_many_at_a_time_as_set(opened: Opened) -> None:
    with opened(FAXBOT_PROVIDER_CALLS="2") as site:
        take(site)
        faxes = [site.fax() for _ in range(5)]
        at_once(len(faxes), lambda each: sending.attempt(site.runtime, faxes[each]))
        sent = [fax for fax in faxes if site.job(fax).status == "sent"]
        waiting = [fax for fax in faxes if fax not in sent]
        assert len(sent) == 2
        assert {site.job(fax).waiting for fax in waiting} == {"provider:simulator"}
        assert {site.job(fax).attempts for fax in waiting} == {0}
        shown = jobs.describe(site.runtime, site.job(waiting[0]))["explanation"]
        assert shown.startswith("The carrier has as many faxes as it is given at a time")

        end(site, sent[0])
        site.after(5)
        assert sum(site.job(fax).status == "sent" for fax in faxes) == 2


def test_a_provider_gets_as_many_a_minute_as_set_though_the_sweep_looks_every_five_seconds(
    opened: Opened,
) -> None:
    with opened(FAXBOT_PROVIDER_CALLS_PER_MINUTE="60") as site:
        take(site)
        faxes = come(site, 90)
        for _ in range(12):
            site.after(5)

        sent = sum(site.job(fax).status == "sent" for fax in faxes)
        assert 55 <= sent <= 66


def test_who_waits_for_its_number_uses_up_no_call_of_the_provider(opened: Opened) -> None:
    with opened(FAXBOT_PROVIDER_CALLS_PER_MINUTE="30") as site:
        take(site)
        to = number()
        attempt(site, site.fax_to(to))
        site.now += timedelta(seconds=3)
        assert attempt(site, site.fax_to(to)) == "queued"

        assert attempt(site, site.fax()) == "sent"


def test_a_provider_may_be_given_next_to_nothing(opened: Opened) -> None:
    with opened(FAXBOT_PROVIDER_CALLS_PER_MINUTE="1e-300") as site:
        take(site)
        first, second = come(site, 2)

        assert (site.job(first).status, site.job(second).status) == ("sent", "queued")
        site.after(86_400)
        assert site.job(second).status == "sent"


def test_of_many_that_wait_for_a_provider_each_has_its_turn_and_none_looks_in_vain(
    opened: Opened,
) -> None:
    with opened(FAXBOT_PROVIDER_CALLS="1") as site:
        take(site)
        faxes = come(site, 100)
        looks = fences(site)
        for place in range(8):
            assert [site.job(fax).status for fax in faxes[: place + 2]].count("sent") == 1
            end(site, faxes[place])
            newcomer = site.fax()
            assert attempt(site, newcomer) == "queued", "it overtakes those that wait"
            site.after(5)
        assert site.job(faxes[8]).status == "sent"

        urgent, late = site.fax(priority=255), site.fax(priority=255)
        attempt(site, urgent)
        jobs.cancel(site.runtime, ACTOR, urgent)
        attempt(site, late)
        end(site, faxes[8])
        site.after(5)
        assert site.job(late).status == "sent"
        assert fences(site) - looks < 40


def test_who_waits_for_a_provider_that_rests_is_held_and_says_so(opened: Opened) -> None:
    with opened(FAXBOT_PROVIDER_CALLS="1") as site:
        take(site)
        waiting = come(site, 3)[1:]
        oversight.change(site.runtime, ACTOR, "simulator", "pause", note="maintenance")
        site.after(5)

        assert {(site.job(fax).status, site.job(fax).reason) for fax in waiting} == {
            ("held", "paused")
        }


def test_those_that_wait_go_when_the_limit_is_taken_away(opened: Opened) -> None:
    with opened(FAXBOT_PROVIDER_CALLS="1") as site:
        take(site)
        faxes = come(site, 4)
        config = replace(site.runtime.config, provider_calls=0)
        site.runtime = replace(site.runtime, config=config)
        site.after(5)

        assert {site.job(fax).status for fax in faxes} == {"sent"}


def test_a_provider_is_given_faxes_evenly(opened: Opened) -> None:
    with opened(FAXBOT_PROVIDER_CALLS_PER_MINUTE="30") as site:
        take(site)
        faxes = [site.fax() for _ in range(6)]
        site.rung.clear()
        for fax in faxes:
            attempt(site, fax)
        assert [site.job(fax).status for fax in faxes].count("sent") == 1
        for _ in range(60):
            site.after(1)

        times = sorted(site.attempt(fax).intended_at for fax in faxes)
        gaps = [(after - before).total_seconds() for before, after in itertools.pairwise(times)]
        assert min(gaps) >= 2
        assert {site.job(fax).attempts for fax in faxes} == {1}


def test_a_probe_that_must_wait_for_its_number_makes_place_for_another(site: Site) -> None:
    take(site)
    to = number()
    attempt(site, site.fax_to(to))
    site.odd.does["send"] = raises(Unreachable())
    for _ in range(5):
        site.sent()
    site.now += timedelta(seconds=31)
    take(site)
    assert attempt(site, site.fax_to(to)) == "queued"

    assert site.count(ProviderProbe) == 0
    assert attempt(site, site.fax()) == "sent"
