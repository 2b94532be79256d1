"""One call at a time to a number, as many as set to a provider: who must wait waits, in turn, and that costs no try."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from faxbot import decisions, jobs, sending
from faxbot.errors import OutcomeUnknown, Refused, Unreachable
from faxbot.models import Lane, ProviderProbe
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
    assert shown == "Another fax to this number is under way; this one follows."
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


# Providers ------------------------------------------------------------------------------------------


def test_a_provider_is_given_as_many_at_a_time_as_set(opened: Opened) -> None:
    with opened(FAXBOT_PROVIDER_CALLS="2") as site:
        take(site)
        faxes = [site.fax() for _ in range(5)]
        at_once(len(faxes), lambda each: sending.attempt(site.runtime, faxes[each]))
        sent = [fax for fax in faxes if site.job(fax).status == "sent"]
        waiting = [fax for fax in faxes if fax not in sent]
        assert len(sent) == 2
        assert {site.job(fax).waiting for fax in waiting} == {"provider"}
        assert {site.job(fax).attempts for fax in waiting} == {0}
        assert 1 <= site.wait_of(waiting[0]) <= 10

        end(site, sent[0])
        site.after(10)
        assert sum(site.job(fax).status == "sent" for fax in faxes) == 2


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
