"""After the call: look-ups and polls; each may run twice, late or at once, and does no harm."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest

from faxbot import alarms, claims, followup, jobs, sending
from faxbot.events import CAUSES, Status
from faxbot.plugins.base import OutboundFax, Receipt, State, Update
from tests.carrier import SimulatorProcess
from tests.installation import Installation
from tests.integration.odd import Vanished, answers, news, raises
from tests.integration.site import Site, number, open_site
from tests.threads import at_once

pytestmark = pytest.mark.usefixtures("adds_up")

# Uncertain ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["0501", "0504"])
def test_what_the_carrier_has_after_all_is_found_by_its_tag_and_never_sent_again(
    site: Site, ending: str
) -> None:
    job_id = site.sent(ending)
    site.final_at_carrier(job_id)

    site.work()

    assert site.story(job_id) == "QUEUED SUBMITTING UNCERTAIN RECONCILED SENT DELIVERED"
    assert [event.source for event in site.events(job_id)[3:]] == ["look_up"] * 3
    assert (site.job(job_id).tries, site.at_carrier(job_id)) == (1, 1)
    assert site.job(job_id).external_id == site.attempt(job_id).external_id


def test_absence_is_proof_only_twice_and_after_the_settle_time(site: Site) -> None:
    job_id = site.sent("0500")

    site.work()
    assert (site.attempt(job_id).absences, site.wait_of(job_id)) == (0, 60)
    site.after(60)
    assert (site.attempt(job_id).absences, site.wait_of(job_id)) == (1, 240)
    assert site.job(job_id).status == "uncertain"
    claims.announce_due(site.runtime, Status.UNCERTAIN)
    assert site.rung == [], "it was looked for before it was due"

    site.odd.does["send"] = lambda _usual, _fax: Receipt("second-1")
    site.after(240)
    site.sweep()
    first, second = site.attempts(job_id)
    assert (first.outcome, second.outcome) == ("absent", "accepted")
    assert first.tag != second.tag
    assert site.story(job_id) == "QUEUED SUBMITTING UNCERTAIN RECONCILED SUBMITTING SENT"


def test_a_look_up_that_finds_nothing_counts_only_after_the_settle_time(
    store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    with open_site(store, carrier_of_all, FAXBOT_SETTLE_SECONDS="299") as site:
        job_id = site.sent("0500")
        absences = []
        for wait in (0, 60, 240):
            site.after(wait)
            absences.append(site.attempt(job_id).absences)

    assert absences == [0, 0, 1]


def test_look_ups_come_at_once_then_at_1_5_and_15_minutes_then_hourly(
    store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    with open_site(store, carrier_of_all, without=["absence_is_proof"]) as site:
        job_id = site.sent("0500")
        waits = []
        for _ in range(7):
            waits.append(site.wait_of(job_id))
            site.after(waits[-1])

        assert waits == [0, 60, 240, 600, 3600, 3600, 3600]
        assert site.job(job_id).status == "uncertain", "without the trait absence proves nothing"
        assert site.attempt(job_id).absences == 0


def test_ten_bells_at_once_are_one_look_up(site: Site) -> None:
    job_id = site.sent("0500")
    site.work()
    site.now += timedelta(seconds=60)
    at_once(10, lambda _: followup.look_up(site.runtime, job_id))

    attempt = site.attempt(job_id)
    assert (attempt.absences, attempt.looks) == (1, 2)
    assert site.job(job_id).status == "uncertain"


@pytest.mark.parametrize("status", ["uncertain", "sent"])
def test_nobody_asks_a_carrier_about_a_fax_that_somebody_asks_about(
    site: Site, status: str
) -> None:
    job_id = site.sent("0500" if status == "uncertain" else "0044")
    site.now += timedelta(seconds=site.wait_of(job_id))
    asked, answer = threading.Semaphore(0), threading.Event()
    calls: list[str] = []

    def hang(_usual: Any, name: str) -> Update:
        calls.append(name)
        number = len(calls)
        asked.release()
        assert answer.wait(30)
        return Update(State.ACCEPTED, external_id=f"call-{number}")

    site.odd.does["look_up"] = site.odd.does["fetch"] = hang
    ask = followup.look_up if status == "uncertain" else followup.poll
    first, second = (
        threading.Thread(target=ask, args=(site.runtime, job_id), daemon=True) for _ in range(2)
    )
    first.start()
    assert asked.acquire(timeout=10)
    for _ in range(40):
        site.after(5)
        assert (len(calls), site.attempt(job_id).looks) == (1, 0)

    site.now += timedelta(seconds=60)  # whoever asked is gone
    second.start()
    assert asked.acquire(timeout=10)
    answer.set()
    first.join(10)
    second.join(10)
    assert len(calls) == 2
    if status == "sent":
        assert site.attempt(job_id).looks == 1, "the answer of a turn that is over counted"
    else:
        assert site.job(job_id).external_id == "call-2"


def test_a_call_that_began_late_and_takes_long_is_awaited_before_absence_counts(
    site: Site,
) -> None:
    """The worker stops right before its call, and goes on when it may still begin one."""
    job_id = site.fax("0044")

    def late(usual: Any, fax: OutboundFax) -> object:
        del site.odd.does["send"]
        site.now += timedelta(seconds=59)
        for _ in range(23):
            site.after(5)
        assert site.story(job_id).startswith("QUEUED SUBMITTING UNCERTAIN")
        return usual(fax)

    site.odd.does["send"] = late
    site.rung.clear()
    sending.attempt(site.runtime, job_id)
    for _ in range(4):
        site.after(600)

    assert len(site.attempts(job_id)) == site.at_carrier(job_id) == 1
    assert site.story(job_id).startswith("QUEUED SUBMITTING UNCERTAIN RECONCILED SENT")


def test_a_fax_the_carrier_once_had_is_not_sent_again_because_it_forgot_it(site: Site) -> None:
    job_id = site.sent("0044")
    site.odd.does["fetch"] = lambda _usual, name: Update(State.ABSENT, external_id=name)
    site.odd.does["look_up"] = lambda _usual, tag: Update(State.ABSENT, tag=tag)

    site.after(600)
    assert site.story(job_id) == "QUEUED SUBMITTING SENT UNCERTAIN"
    for _ in range(8):
        site.after(3600)

    assert site.job(job_id).status == "uncertain"
    assert len(site.attempts(job_id)) == 1


def test_a_carrier_that_breaks_at_a_fax_each_time_gets_it_ever_more_seldom(site: Site) -> None:
    job_id = site.sent("0500")
    pauses = []
    while len(site.attempts(job_id)) < 8:
        attempts = len(site.attempts(job_id))
        site.after(site.wait_of(job_id))
        if site.job(job_id).status == "retrying":
            pauses.append((attempts, site.wait_of(job_id)))

    assert all(wait <= min(600, 5 * 2**tries) for tries, wait in pauses)
    assert sum(wait for _, wait in pauses) > 5
    assert site.job(job_id).tries == 8
    assert site.at_carrier(job_id) == 0


def test_a_worker_that_vanished_before_its_call_costs_a_new_attempt_once_absence_is_proven(
    site: Site,
) -> None:
    job_id = site.fax()
    site.odd.does["send"] = raises(Vanished())
    with pytest.raises(Vanished):
        sending.attempt(site.runtime, job_id)
    del site.odd.does["send"]

    site.after(61)
    assert site.story(job_id) == "QUEUED SUBMITTING UNCERTAIN"
    absences = []
    for wait in (60, 240):
        site.after(wait)
        absences.append(site.attempt(job_id).absences)
    assert absences == [0, 1], "a call may begin for 60 s, and last for 120 s; then it settles"
    site.after(600)
    site.sweep()
    assert site.story(job_id) == "QUEUED SUBMITTING UNCERTAIN RECONCILED SUBMITTING SENT"
    assert [attempt.outcome for attempt in site.attempts(job_id)] == ["absent", "accepted"]
    assert site.at_carrier(job_id) == 1


def test_settling_leaves_alone_who_still_has_a_lease(site: Site) -> None:
    job_id, seen = site.fax(), []

    def look(usual: Any, fax: OutboundFax) -> object:
        followup.settle(site.runtime, job_id)
        seen.append(site.job(job_id).status)
        return usual(fax)

    site.odd.does["send"] = look
    sending.attempt(site.runtime, job_id)
    followup.settle(site.runtime, job_id)

    assert seen == ["submitting"]
    assert site.story(job_id) == "QUEUED SUBMITTING SENT"


NONSENSE: tuple[object, ...] = (
    None,
    "delivered",
    {"state": "delivered"},
    news(state="delivered", external_id="x"),
    news(state=State.DELIVERED, external_id=5),
    Update(State.DELIVERED, external_id="x" * 256),
    Update(State.DELIVERED, external_id="nul\0"),
    news(state=State.FAILED, tag=b"x"),
)


@pytest.mark.parametrize("status", ["uncertain", "sent"])
def test_nonsense_from_the_carrier_changes_nothing_and_it_is_asked_again(
    site: Site, status: str
) -> None:
    job_id = site.sent("0500" if status == "uncertain" else "0044")
    story = site.story(job_id)

    for answer in NONSENSE:
        site.odd.does["look_up"] = site.odd.does["fetch"] = answers(answer)
        site.after(site.wait_of(job_id))
        assert site.story(job_id) == story
        assert site.wait_of(job_id) > 0


def test_facts_of_a_wrong_kind_are_left_out_of_news_that_is_sound(site: Site) -> None:
    job_id = site.sent("0044")
    site.odd.does["fetch"] = lambda _usual, name: Update(
        State.FAILED,
        external_id=name,
        cause="Jane Doe's line was busy",
        pages_sent=10**30,
        occurred_at=site.now.replace(tzinfo=None),
        key="x" * 999,
    )

    site.after(600)

    event = site.events(job_id)[-1]
    assert (event.type, event.cause) == ("FAX_FAILED", "unknown")
    assert (event.pages_sent, event.occurred_at) == (0, site.now)


# Sent ---------------------------------------------------------------------------------------------


def test_a_fax_without_a_callback_is_asked_after_at_10_and_30_minutes_then_hourly(
    site: Site,
) -> None:
    job_id = site.sent()
    site.odd.does["fetch"] = lambda _usual, name: Update(State.ACCEPTED, external_id=name)
    waits = []
    for _ in range(5):
        waits.append(site.wait_of(job_id))
        site.after(waits[-1])

    assert waits == [600, 1200, 3600, 3600, 3600]
    assert site.story(job_id) == "QUEUED SUBMITTING SENT"


def test_a_lost_callback_only_costs_time(site: Site) -> None:
    job_id = site.sent("0044", pages=3)
    site.final_at_carrier(job_id)

    site.after(600)

    assert site.story(job_id) == "QUEUED SUBMITTING SENT DELIVERED"
    job = site.job(job_id)
    assert (job.pages_sent, job.pages, job.next_at) == (3, 3, None)
    assert site.events(job_id)[-1].source == "poll"


def test_nothing_final_for_a_day_is_uncertain_until_the_carrier_says_how_it_ended(
    site: Site,
) -> None:
    job_id = site.sent()
    name = site.job(job_id).external_id
    under_way = Update(State.PROGRESS, external_id=name, pages_sent=0)
    site.odd.does["fetch"] = site.odd.does["look_up"] = answers(under_way)
    for _ in range(12):
        site.after(3600 * 4)

    assert site.story(job_id) == "QUEUED SUBMITTING SENT PROGRESS UNCERTAIN"
    (alarm,) = alarms.raised(site.runtime)
    assert (alarm.code, alarm.count) == ("uncertain", 1), "nobody is told that somebody must ask"
    job = site.job(job_id)
    assert (job.tries, len(site.attempts(job_id))) == (1, 1)
    explanation = jobs.describe(site.runtime, job)["explanation"]
    assert explanation.startswith("What became of it at simulator is not known")

    site.odd.does["look_up"] = answers(Update(State.DELIVERED, external_id=name))
    site.after(3600)
    assert site.story(job_id).endswith("UNCERTAIN RECONCILED SENT DELIVERED")


def test_nothing_final_for_as_long_as_set_is_uncertain(
    store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    with open_site(store, carrier_of_all, FAXBOT_SILENCE_SECONDS="3000") as site:
        job_id = site.sent()
        site.odd.does["fetch"] = lambda _usual, name: Update(State.PROGRESS, external_id=name)
        for _ in range(2):
            site.after(site.wait_of(job_id))
        assert site.job(job_id).status == "sent"
        site.now += timedelta(seconds=site.wait_of(job_id))
        followup.poll(site.runtime, job_id)

        assert site.job(job_id).status == "uncertain"


@pytest.mark.parametrize(
    ("ending", "cause", "status", "wait"),
    [
        ("0017", "busy", "retrying", 120),
        ("0018", "no_answer", "retrying", 300),
        ("0034", "congestion", "retrying", 15),
        ("0404", "number_dead", "failed", None),
        ("0998", "system", "failed", None),
        ("0999", "unknown", "failed", None),
    ],
)
def test_a_line_result_is_final_for_the_attempt_and_never_a_matter_of_the_provider(
    site: Site, ending: str, cause: str, status: str, wait: float | None
) -> None:
    job_id = site.sent(ending)
    site.final_at_carrier(job_id)
    followup.poll(site.runtime, job_id)
    assert site.job(job_id).status == "sent", "it was polled before it was due"

    site.after(600)

    job, event = site.job(job_id), site.events(job_id)[-1]
    assert (job.status, job.reason, event.cause, job.tries) == (status, cause, cause, 1)
    assert site.attempt(job_id).outcome == "failed"
    assert site.rest() is None
    assert CAUSES[cause].sentence in jobs.describe(site.runtime, job)["explanation"]
    if wait is not None:
        assert wait <= site.wait_of(job_id) <= wait * 1.2


def test_a_line_that_stays_busy_fails_in_the_end_and_says_why(site: Site) -> None:
    job_id = site.fax()
    busy = Update(State.FAILED, cause="busy")
    site.odd.does["send"] = lambda _usual, fax: Receipt(f"id-{fax.tag}")
    site.odd.does["fetch"] = lambda _usual, name: Update(
        busy.state, external_id=name, cause=busy.cause
    )
    while site.job(job_id).next_at is not None:
        site.after(max(0.0, site.wait_of(job_id)))

    job, last = site.job(job_id), site.events(job_id)[-1]
    assert (job.status, job.tries, job.attempts) == ("failed", 12, 12)
    assert (last.type, last.cause, last.reason) == ("FAX_FAILED", "busy", "exhausted")


def ends(site: Site, job_id: str, *causes: str) -> str:
    """Let the calls of a fresh fax end so, one after the other; the last event, and the minutes to the next call,
    without the fifth by which they may be stretched."""
    left = list(causes)

    def fetch(_usual: object, name: str) -> Update:
        if all(name != attempt.external_id for attempt in site.attempts(job_id)):
            return Update(State.PROGRESS, external_id=name)
        return Update(State.FAILED, external_id=name, cause=left.pop(0))

    site.odd.does["send"] = lambda _usual, fax: Receipt(f"id-{fax.tag}")
    site.odd.does["fetch"] = fetch
    while left:
        site.after(max(0.0, site.wait_of(job_id)))
    last = site.story(job_id).split()[-1]
    if last != "RETRYING":
        return last
    wait = site.wait_of(job_id) / 60
    (least,) = [each for each in (1, 5, 15, 30) if each <= wait <= each * 1.2]
    return f"{last} {least}"


def test_each_kind_of_trouble_is_counted_for_itself(site: Site) -> None:
    busy = ["busy"] * 4
    assert ends(site, site.fax(), *busy) == "RETRYING 5"
    assert ends(site, site.fax(), *busy, "handshake_failed") == "RETRYING 1"
    assert ends(site, site.fax(), *busy, "handshake_failed", *busy) == "RETRYING 30"


def test_where_a_fax_has_arrived_before_a_machine_is_sought_for_longer(site: Site) -> None:
    reached, other = number(), number()
    assert ends(site, site.fax_to(reached), "no_fax_tone", "no_fax_tone") == "FAILED"
    site.odd.does["fetch"] = lambda _usual, name: Update(State.DELIVERED, external_id=name)
    arrived = site.fax_to(reached)
    while site.job(arrived).next_at is not None:
        site.after(max(0.0, site.wait_of(arrived)))
    assert site.job(arrived).status == "delivered"

    assert ends(site, site.fax_to(reached), "no_fax_tone", "no_fax_tone") == "RETRYING 15"
    assert ends(site, site.fax_to(reached), "number_dead") == "RETRYING 15"
    assert ends(site, site.fax_to(other), "no_fax_tone", "no_fax_tone") == "FAILED"
    assert ends(site, site.fax_to(other), "number_dead") == "FAILED"
