"""The circuit breaker: what one worker learns of a provider all of them know, and only what concerns the provider."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from faxbot import breaker, followup, sending, sweeps
from faxbot.breaker import Breakers
from faxbot.errors import (
    AccountRefused,
    DatabaseAway,
    DestinationBarred,
    NotSent,
    OutcomeUnknown,
    ProviderError,
    Refused,
    Throttled,
    Unreachable,
)
from faxbot.models import ProviderHistory, ProviderProbe, ProviderState
from faxbot.plugins.base import Health, Receipt, State, Update
from faxbot.runtime import Runtime
from tests.carrier import SimulatorProcess
from tests.ground import eventually
from tests.installation import Installation
from tests.integration.odd import Vanished, raises
from tests.integration.site import Site, open_site
from tests.threads import at_once

MINUTE = timedelta(minutes=1)
GOOD, BAD, SLOW = "good", "bad", "slow"
ANSWERS = itertools.count()


def call(site: Site, kind: str = GOOD, *, after: timedelta = timedelta(seconds=2)) -> str:
    """One fax more, some time later, whose call ends so; its status."""

    def send(_usual: object, _fax: object) -> Receipt:
        if kind == BAD:
            raise Unreachable
        if kind == SLOW:
            site.now += timedelta(seconds=20)
        return Receipt(f"id-{next(ANSWERS)}")

    site.now += after
    site.odd.does["send"] = send
    return site.job(site.sent()).status


def rest_of(site: Site) -> tuple[float, str] | None:
    rest = site.rest()
    if rest is None:
        return None
    assert rest.until is not None
    return (rest.until - site.now).total_seconds(), rest.reason


def state(site: Site) -> str:
    return Breakers(site.runtime.config, site.runtime.database).standing(
        "default", "simulator", site.now
    ).state(site.now)  # fmt: skip


def history(site: Site) -> list[tuple[str, str | None, str]]:
    with site.runtime.database.reading() as session:
        found = session.scalars(sa.select(ProviderHistory).order_by(ProviderHistory.id))
        return [(row.type.removeprefix("PROVIDER_"), row.reason, row.actor) for row in found]


# What counts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "rest"),
    [
        (AccountRefused(), (600, "account_refused")),
        (Throttled(), (1, "throttled")),
        (Throttled(retry_after=90), (90, "throttled")),
        (Throttled(retry_after=1e12), (86_400, "throttled")),
        (Refused(), None),
        (DestinationBarred(), None),
        (Unreachable(retry_after=90), None),
        (OutcomeUnknown(), None),
    ],
)
def test_one_refusal_of_the_account_or_the_rate_makes_a_provider_rest_and_no_other(
    site: Site, error: NotSent, rest: tuple[float, str] | None
) -> None:
    site.odd.does["send"] = raises(error)
    site.sent()

    assert rest_of(site) == rest


def test_a_long_wait_that_a_carrier_asked_for_is_not_cut_short_by_a_shorter_one(site: Site) -> None:
    def throttled_meanwhile(_usual: object, _fax: object) -> Receipt:
        site.odd.does["send"] = raises(Throttled(retry_after=90))
        site.sent()
        raise Throttled(retry_after=2)

    job_id = site.fax()
    site.odd.does["send"] = throttled_meanwhile
    sending.attempt(site.runtime, job_id)

    assert rest_of(site) == (90, "throttled")


@pytest.mark.parametrize("error", [Unreachable(), OutcomeUnknown(), NotSent(), ProviderError()])
def test_five_faults_in_a_row_open_it_however_long_they_take(
    site: Site, error: ProviderError
) -> None:
    def fail() -> None:
        site.now += 3 * MINUTE
        site.odd.does["send"] = raises(error)
        site.sent()

    for _ in range(4):
        fail()
    call(site, GOOD)
    for _ in range(4):
        fail()
    assert state(site) == "closed"
    fail()

    assert rest_of(site) == (30, "provider_failing")
    assert state(site) == "open"


@pytest.mark.parametrize(
    ("calls", "opens"),
    [
        ("bad good bad bad", False),  # too few
        ("good bad good bad good", False),  # two of five
        ("good bad good bad bad", True),  # three of five
        ("good good bad good bad bad", True),  # half of six
        ("good good good good good good good bad bad bad bad", False),
    ],
)
def test_half_of_the_calls_of_five_minutes_open_it_when_there_are_five(
    site: Site, calls: str, opens: bool
) -> None:
    for kind in calls.split():
        call(site, kind)

    assert state(site) == ("open" if opens else "closed")


def test_calls_of_more_than_five_minutes_ago_have_no_share(site: Site) -> None:
    for kind in (BAD, GOOD, BAD):
        call(site, kind)
    site.now += 5 * MINUTE
    for kind in (GOOD, BAD):
        call(site, kind)

    assert state(site) == "closed"


def test_a_provider_that_takes_faxes_slowly_is_given_a_rest(site: Site) -> None:
    for kind in (SLOW, GOOD, SLOW, GOOD):
        assert call(site, kind) == "sent"
    assert state(site) == "closed"
    assert call(site, SLOW) == "sent"

    assert rest_of(site) == (30, "provider_failing")


def test_the_time_for_which_the_database_was_away_after_a_call_makes_no_provider_slow(
    site: Site,
) -> None:
    away: set[str] = set()

    def stay_away(_c: Any, _cursor: Any, text: str, *_: Any) -> None:
        if "FROM jobs JOIN attempts" in text and faxes[-1] not in away:
            away.add(faxes[-1])
            site.now += timedelta(seconds=25)
            raise DatabaseAway

    sa.event.listen(site.runtime.database.engine, "before_cursor_execute", stay_away)
    faxes: list[str] = []
    for _ in range(breaker.LEAST_CALLS):
        faxes.append(site.fax())
        sending.attempt(site.runtime, faxes[-1])

    assert away == set(faxes)
    assert {site.job(fax).status for fax in faxes} == {"sent"}
    assert state(site) == "closed"


def test_what_happens_on_the_line_is_no_matter_of_the_provider(site: Site) -> None:
    for _ in range(12):
        call(site, GOOD)
    site.odd.does["fetch"] = lambda _usual, name: Update(
        State.FAILED, external_id=name, cause="network_error"
    )
    site.after(600)

    assert state(site) == "closed"
    assert site.count(ProviderState) == 0, "a call that goes well writes nothing here"


def test_a_refusal_of_the_fax_shows_that_the_provider_works(site: Site) -> None:
    for _ in range(3):
        for kind in (BAD, BAD):
            call(site, kind, after=3 * MINUTE)
        site.odd.does["send"] = raises(Refused())
        site.sent()

    assert state(site) == "closed"


def test_a_doubtful_refusal_opens_it_only_where_the_carrier_does_not_let_us_in_either(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.odd.does["send"] = raises(DestinationBarred())
    site.sent()
    assert state(site) == "closed"

    monkeypatch.setattr(site.odd, "health", lambda: Health(False, "no such key"))
    site.sent()
    assert rest_of(site) == (600, "account_refused")


def test_a_refused_account_rests_as_long_as_set_whoever_says_that_it_is_refused(
    store: Installation, carrier_of_all: SimulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_site(store, carrier_of_all, FAXBOT_ACCOUNT_REST_SECONDS="45") as site:
        site.odd.does["send"] = raises(AccountRefused())
        site.sent()
        assert rest_of(site) == (45, "account_refused")

        site.now += 2 * MINUTE
        site.odd.does["send"] = raises(DestinationBarred())
        monkeypatch.setattr(site.odd, "health", lambda: Health(False, "no such key"))
        site.sent()
        assert rest_of(site) == (45, "account_refused")


def test_it_belongs_to_its_account(site: Site) -> None:
    site.odd.does["send"] = raises(AccountRefused())
    site.sent()

    assert state(site) == "open"
    other = Breakers(site.runtime.config, site.runtime.database)
    assert other.standing("other", "simulator", site.now).state(site.now) == "closed"


def test_workers_that_fail_at_once_all_keep_their_outcome_and_open_it_once(site: Site) -> None:
    faxes = [site.fax() for _ in range(8)]
    gate = threading.Barrier(len(faxes))

    def fail_together(_usual: Any, _fax: Any) -> object:
        gate.wait(20)
        raise Unreachable

    site.odd.does["send"] = fail_together
    at_once(len(faxes), lambda number: sending.attempt(site.runtime, faxes[number]))

    assert [site.story(fax) for fax in faxes] == ["QUEUED SUBMITTING RETRYING"] * len(faxes)
    assert rest_of(site) == (30, "provider_failing")
    assert history(site) == [("DEGRADED", "provider_failing", "worker")]
    assert site.count(ProviderState) == 1


# Open, and half open --------------------------------------------------------------------------------


@pytest.fixture
def opened(site: Site) -> Site:
    """A site whose provider has failed five times just now."""
    for _ in range(5):
        call(site, BAD)
    assert state(site) == "open"
    return site


def test_while_it_rests_nobody_calls_and_faxes_say_why(opened: Site) -> None:
    called = []
    opened.odd.does["send"] = lambda _usual, fax: called.append(fax)
    job_id = opened.sent()

    job = opened.job(job_id)
    assert (job.status, job.reason, job.attempts) == ("held", "provider_failing", 0)
    assert opened.wait_of(job_id) == 600, "the sweep wakes it when there is something to try"
    assert called == []


def test_a_process_that_has_just_started_knows_it(opened: Site) -> None:
    assert rest_of(opened) == (30, "provider_failing")


def test_a_probe_that_succeeds_closes_it_and_all_that_waited_go_at_once(opened: Site) -> None:
    waiting = [opened.sent() for _ in range(4)]
    opened.odd.does.pop("send")
    opened.after(31)
    opened.after(0)

    assert state(opened) == "closed"
    assert {opened.job(fax).status for fax in waiting} == {"sent"}
    assert opened.count(ProviderProbe) == 0
    assert [event for event, *_ in history(opened)] == ["DEGRADED", "RECOVERED"]


def test_a_probe_that_fails_opens_it_for_twice_as_long_up_to_ten_minutes(opened: Site) -> None:
    rests = []
    for _ in range(7):
        rest = rest_of(opened)
        assert rest is not None
        rests.append(rest[0])
        opened.now += timedelta(seconds=rest[0])
        assert state(opened) == "half_open"
        call(opened, BAD, after=timedelta())
    assert rests == [30, 60, 120, 240, 480, 600, 600]

    opened.now += 10 * MINUTE
    assert call(opened, GOOD, after=timedelta()) == "sent"
    assert state(opened) == "closed"
    for _ in range(5):
        call(opened, BAD)
    assert rest_of(opened) == (30, "provider_failing"), "it begins anew"


def test_what_failed_before_it_was_closed_does_not_open_it_again(opened: Site) -> None:
    opened.now += timedelta(seconds=31)
    call(opened, GOOD)
    for _ in range(3):
        call(opened, BAD)

    assert state(opened) == "closed"


def several(site: Site, number: int) -> Iterator[Runtime]:
    """The runtimes of so many processes: each has its own view of the breakers."""
    for _ in range(number):
        yield replace(site.runtime, breakers=Breakers(site.runtime.config, site.runtime.database))


@pytest.mark.parametrize("probes", [1, 3])
def test_as_many_probes_as_set_go_through_over_all_workers(
    store: Installation, carrier_of_all: SimulatorProcess, probes: int
) -> None:
    with open_site(store, carrier_of_all, FAXBOT_BREAKER_PROBES=str(probes)) as site:
        for _ in range(5):
            call(site, BAD)
        site.now += timedelta(seconds=31)
        faxes = [site.fax() for _ in range(8)]
        site.rung.clear()
        processes = list(several(site, len(faxes)))
        called: list[str] = []
        arrived, over = threading.Semaphore(0), threading.Event()

        def wait_long(_usual: Any, fax: Any) -> Receipt:
            called.append(fax.tag)
            arrived.release()
            assert over.wait(20)
            return Receipt(f"id-{fax.tag}")

        site.odd.does["send"] = wait_long

        def statuses() -> list[str]:
            return [site.job(fax).status for fax in faxes]

        def work(number: int) -> None:
            if number < len(faxes):
                sending.attempt(processes[number], faxes[number])
                return
            for _ in range(probes):
                assert arrived.acquire(timeout=20)
            # The probes are under way: whoever comes now is told to wait.
            late = site.fax()
            sending.attempt(next(several(site, 1)), late)
            assert site.job(late).status == "held"
            eventually(lambda: statuses().count("held") == len(faxes) - probes)
            over.set()

        at_once(len(faxes) + 1, work)

        assert len(called) == probes
        assert (statuses().count("sent"), statuses().count("held")) == (probes, 8 - probes)
        assert state(site) == "closed"


def test_a_probe_whose_worker_dies_makes_place_for_another_in_time(opened: Site) -> None:
    opened.now += timedelta(seconds=31)
    opened.odd.does["send"] = raises(Vanished())
    lost = opened.fax()
    with pytest.raises(Vanished):
        sending.attempt(opened.runtime, lost)
    opened.runtime.breakers.forget()

    assert call(opened, GOOD) == "held"
    longest = opened.runtime.config.lease_seconds + opened.runtime.config.provider_call_seconds
    assert call(opened, GOOD, after=timedelta(seconds=longest)) == "sent"
    assert state(opened) == "closed"


def test_a_probe_that_says_nothing_of_the_provider_makes_place_for_another(opened: Site) -> None:
    opened.now += timedelta(seconds=31)
    opened.odd.does["send"] = raises(Throttled(retry_after=5))
    opened.sent()
    assert rest_of(opened) == (5, "provider_failing")
    opened.now += timedelta(seconds=5)

    assert call(opened, GOOD) == "sent"
    assert state(opened) == "closed"


def test_a_wait_that_another_call_is_asked_for_outlives_the_probe_that_succeeds(site: Site) -> None:
    began, over = threading.Event(), threading.Event()

    def throttled_late(_usual: Any, _fax: Any) -> object:
        began.set()
        assert over.wait(20)
        raise Throttled(retry_after=90)

    site.odd.does["send"] = throttled_late
    early = threading.Thread(target=sending.attempt, args=(site.runtime, site.fax()), daemon=True)
    early.start()
    assert began.wait(20)
    for _ in range(5):
        call(site, BAD)
    site.now += timedelta(seconds=31)

    def succeed(_usual: Any, fax: Any) -> Receipt:
        over.set()
        early.join(20)
        return Receipt(f"id-{fax.tag}")

    probe = site.fax()
    site.odd.does["send"] = succeed
    sending.attempt(site.runtime, probe)

    assert site.job(probe).status == "sent"
    assert rest_of(site) == (90, "throttled")


def test_of_those_held_only_so_many_are_let_go_as_may_try(opened: Site) -> None:
    waiting = [opened.sent() for _ in range(6)]
    opened.now += timedelta(seconds=601)
    opened.rung.clear()
    for fax in waiting:
        followup.review(opened.runtime, fax)

    assert [opened.job(fax).status for fax in waiting].count("queued") == 1
    assert len(opened.rung) == 1


def test_the_sweep_wakes_as_many_as_may_try_and_some_hundreds_once_it_is_closed(
    opened: Site,
) -> None:
    waiting = [opened.sent() for _ in range(6)]

    def woken() -> int:
        sweeps.run(opened.runtime)
        opened.rung.clear()
        return sum(opened.wait_of(fax) <= 0 for fax in waiting)

    assert woken() == 0
    opened.now += timedelta(seconds=31)
    assert woken() == 1
    assert woken() == 2
    call(opened, GOOD, after=timedelta())
    assert state(opened) == "closed"
    assert woken() == 6


def test_news_of_a_call_that_began_before_it_opened_changes_nothing(site: Site) -> None:
    def open_meanwhile(_usual: Any, fax: Any) -> Receipt:
        site.odd.does["send"] = raises(Unreachable())
        for _ in range(5):
            site.sent()
        return Receipt(f"id-{fax.tag}")

    job_id = site.fax()
    site.odd.does["send"] = open_meanwhile
    sending.attempt(site.runtime, job_id)

    assert site.job(job_id).status == "sent"
    assert rest_of(site) == (30, "provider_failing")


def test_a_worker_goes_by_what_it_knows_for_a_second_and_not_longer(site: Site) -> None:
    ours, others = list(several(site, 2))
    asked = 0

    def count(_c: Any, _cursor: Any, text: str, *_: Any) -> None:
        nonlocal asked
        asked += "FROM provider_states" in text

    sa.event.listen(site.runtime.database.reader, "before_cursor_execute", count)
    for _ in range(5):
        assert ours.breakers.standing("default", "simulator", site.now).rest(site.now) is None
    assert asked == 1
    site.odd.does["send"] = raises(AccountRefused())
    sending.attempt(others, site.fax())
    assert ours.breakers.standing("default", "simulator", site.now).rest(site.now) is None
    site.now += timedelta(seconds=1)

    assert ours.breakers.standing("default", "simulator", site.now).rest(site.now) is not None


# Degraded, and people -------------------------------------------------------------------------------


def test_three_faults_in_ten_minutes_are_said_once_and_that_they_are_over(site: Site) -> None:
    for kind in (BAD, GOOD, BAD, GOOD, GOOD, GOOD, BAD, GOOD, GOOD, BAD):
        call(site, kind)
    assert state(site) == "closed"
    assert history(site) == [("DEGRADED", "provider_failing", "worker")]

    site.odd.does.pop("send")
    site.after(9 * 60)
    assert len(history(site)) == 1
    site.after(61)
    site.after(3600)
    assert history(site)[1:] == [("RECOVERED", None, "clock")]


def test_faults_among_many_good_calls_make_it_degraded_too(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "MOST_CALLS", 6)
    for _ in range(3):
        assert history(site) == []
        call(site, BAD)
        for _ in range(6):
            call(site, GOOD)
    assert history(site) == [("DEGRADED", "provider_failing", "worker")]

    site.after(9 * 60)
    assert len(history(site)) == 1


def change(site: Site, deed: Any, **words: Any) -> None:
    with site.runtime.database.transaction() as session:
        row = breaker.locked(session, "default", "simulator", site.now)
        deed(session, row, site.now, actor="somebody", note="maintenance", **words)
    site.runtime.breakers.forget()


def test_a_paused_provider_is_left_alone_until_it_is_resumed(site: Site) -> None:
    change(site, breaker.pause)
    job_id = site.sent()
    site.after(3 * 3600)

    job = site.job(job_id)
    assert (job.status, job.reason, job.attempts, state(site)) == ("held", "paused", 0, "paused")
    change(site, breaker.resume)
    site.after(60)
    assert site.job(job_id).status == "sent"
    assert history(site) == [("PAUSED", None, "somebody"), ("RESUMED", None, "somebody")]


def test_a_pause_ends_by_itself_when_it_was_to(site: Site) -> None:
    until: datetime = site.now + 30 * MINUTE
    change(site, breaker.pause, until=until)
    job_id = site.sent()
    site.after(29 * 60)
    assert site.job(job_id).status == "held"
    site.after(61)
    site.after(61)

    assert site.job(job_id).status == "sent"
    assert history(site)[-1] == ("RESUMED", None, "clock")


def test_a_person_may_close_it(opened: Site) -> None:
    waiting = opened.sent()
    change(opened, breaker.reset)
    opened.odd.does.pop("send")
    opened.after(60)

    assert state(opened) == "closed"
    assert opened.job(waiting).status == "sent"
    assert history(opened)[-1] == ("RECOVERED", None, "somebody")


def test_a_person_who_closes_it_lets_those_go_that_were_refused_themselves(site: Site) -> None:
    site.odd.does["send"] = raises(AccountRefused())
    refused = site.sent()
    site.odd.does.pop("send")
    site.after(60)
    assert site.job(refused).status == "held"
    change(site, breaker.reset)
    site.after(1)
    site.after(1)

    assert site.job(refused).status == "sent"


def test_a_person_who_closes_it_ends_a_long_wait_that_the_carrier_asked_for(site: Site) -> None:
    site.odd.does["send"] = raises(Throttled(retry_after=86_400))
    site.sent()
    waiting = site.sent()
    site.odd.does.pop("send")
    site.after(3600)
    assert site.job(waiting).attempts == 0
    change(site, breaker.reset)
    for _ in range(11):
        site.after(60)

    assert site.job(waiting).status == "sent"
