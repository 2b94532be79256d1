"""What might be a second fax is not sent: the carrier has after all what it was proven not to have, has a fax twice,
or answers about another one."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

import pytest

from faxbot import decisions, followup, sending
from faxbot.errors import OutcomeUnknown, Unreachable
from faxbot.plugins.base import OutboundFax, Receipt, State, Update
from tests.carrier import SimulatorProcess
from tests.installation import Installation
from tests.integration.odd import answers, raises
from tests.integration.site import ACTOR, Site, open_site

pytestmark = pytest.mark.usefixtures("adds_up")

UNDER_WAY: dict[str, Any] = {"status": "sending", "code": None, "pages_sent": 0, "ended_at": None}
BUSY: dict[str, Any] = {"status": "failed", "code": "line-busy"}
DONE: dict[str, Any] = {"status": "delivered", "code": None, "pages_sent": 1}


def hear(site: Site, fax: dict[str, Any], **changes: Any) -> None:
    site.receive(site.callback(fax, **changes))
    site.work()


def let_days_pass(site: Site) -> None:
    for _ in range(48):
        site.after(3600)


def proven_absent(site: Site) -> tuple[str, dict[str, Any]]:
    """A fax that two look-ups did not find, and that the carrier has all the same; what it says of it."""
    site.odd.does.clear()
    job_id = site.sent("0504")
    fax = site.final_at_carrier(job_id)
    site.odd.does["look_up"] = answers(Update(State.ABSENT))
    while site.job(job_id).status == "uncertain":
        site.now += timedelta(seconds=site.wait_of(job_id))
        followup.look_up(site.runtime, job_id)
    assert site.job(job_id).status == "retrying"
    return job_id, fax


def never_reached(site: Site) -> tuple[str, dict[str, Any]]:
    """A fax whose call is said to have failed before it began, and that the carrier has all the same."""

    def taken(usual: Any, fax: OutboundFax) -> object:
        usual(fax)
        raise Unreachable

    site.odd.does["send"] = taken
    job_id = site.sent("0044")
    del site.odd.does["send"]
    assert site.job(job_id).status == "retrying"
    return job_id, site.final_at_carrier(job_id)


# It has it after all --------------------------------------------------------------------------------


@pytest.mark.parametrize("made", [proven_absent, never_reached])
@pytest.mark.parametrize("status", ["queued", "sending"])
def test_what_the_carrier_says_it_has_after_all_is_not_sent_again(
    site: Site, made: Any, status: str
) -> None:
    job_id, fax = made(site)
    hear(site, fax, **{**UNDER_WAY, "status": status})
    let_days_pass(site)

    assert site.at_carrier(job_id) == site.job(job_id).attempts == 1
    assert (site.job(job_id).status, site.job(job_id).reason) == ("held", "said_accepted")
    assert site.story(job_id).endswith("RETRYING ANOMALY HELD") or site.story(job_id).endswith(
        "RECONCILED ANOMALY HELD"
    )


def test_when_that_one_fails_in_whatever_order_it_is_said_the_fax_goes_on(site: Site) -> None:
    for order in itertools.permutations([UNDER_WAY, BUSY]):
        job_id, fax = proven_absent(site)
        site.odd.does.clear()
        site.odd.does["send"] = lambda _usual, fax: Receipt(f"id-{fax.tag}")
        for number, change in enumerate(order):
            hear(site, fax, **change, n=number)
        site.after(60)
        site.after(60)

        assert [attempt.outcome for attempt in site.attempts(job_id)] == ["failed", "accepted"]


def test_when_that_one_is_delivered_a_person_decides(site: Site) -> None:
    job_id, fax = proven_absent(site)
    hear(site, fax, **UNDER_WAY)
    hear(site, fax, **DONE)
    let_days_pass(site)

    assert (site.job(job_id).reason, site.job(job_id).attempts) == ("said_delivered", 1)


def test_one_that_is_under_way_after_all_ends_the_tries_after_the_next(site: Site) -> None:
    job_id, fax = proven_absent(site)
    site.odd.does["send"] = lambda _usual, fax: Receipt(f"id-{fax.tag}")
    sending.attempt(site.runtime, job_id)
    hear(site, fax, **UNDER_WAY)
    assert site.job(job_id).status == "sent"
    second = site.attempt(job_id)
    hear(site, {**fax, **BUSY, "id": second.external_id, "tag": second.tag})
    let_days_pass(site)

    assert (site.job(job_id).reason, site.job(job_id).attempts) == ("said_accepted", 2)


@pytest.mark.parametrize(
    ("said", "reason"), [("under way", "said_accepted"), ("done", "said_delivered")]
)
def test_what_a_person_says_of_the_next_one_says_nothing_of_that_one(
    site: Site, said: str, reason: str
) -> None:
    job_id, fax = proven_absent(site)
    site.odd.does["send"] = raises(OutcomeUnknown())
    sending.attempt(site.runtime, job_id)
    hear(site, fax, **(UNDER_WAY if said == "under way" else DONE))
    site.rung.clear()
    decided = decisions.decide(site.runtime, ACTOR, job_id, "retry", "they never had the second")
    site.work()

    assert (decided.status, decided.reason) == ("held", reason)
    assert site.story(job_id).endswith("UNCERTAIN ANOMALY DECIDED HELD")
    site.odd.does["send"] = lambda _usual, fax: Receipt(f"id-{fax.tag}")
    decisions.release(site.runtime, ACTOR, job_id)
    site.work()
    assert (site.job(job_id).status, site.job(job_id).attempts) == ("sent", 3)


def test_a_person_may_send_it_all_the_same(site: Site) -> None:
    job_id, fax = proven_absent(site)
    hear(site, fax, **UNDER_WAY)
    site.odd.does["send"] = lambda _usual, fax: Receipt(f"id-{fax.tag}")
    decisions.release(site.runtime, ACTOR, job_id)
    site.work()

    assert (site.job(job_id).status, site.job(job_id).attempts) == ("sent", 2)


# It has it twice --------------------------------------------------------------------------------------


def test_that_a_copy_under_another_name_failed_says_nothing_of_ours(site: Site) -> None:
    job_id = site.sent("0044")
    fax = site.final_at_carrier(job_id)
    hear(site, fax, **BUSY, id="sf_another")

    assert site.story(job_id) == "QUEUED SUBMITTING SENT ANOMALY"
    hear(site, fax, **DONE)
    assert (site.job(job_id).status, site.at_carrier(job_id)) == ("delivered", 1)


def test_a_copy_that_is_under_way_when_ours_has_failed_keeps_the_fax_from_the_next_try(
    site: Site,
) -> None:
    another = {**UNDER_WAY, "id": "sf_another"}
    for order in itertools.permutations([another, BUSY]):
        job_id = site.sent("0044")
        fax = site.final_at_carrier(job_id)
        for number, change in enumerate(order):
            hear(site, fax, **change, n=number)
        let_days_pass(site)

        assert (site.job(job_id).status, site.job(job_id).reason) == ("held", "said_accepted")
        assert site.job(job_id).attempts == 1


def test_the_answer_to_our_call_that_names_another_than_the_failed_one_stops_the_next_try(
    site: Site,
) -> None:
    job_id = site.fax("0044")

    def call_back_first(usual: Any, fax: OutboundFax) -> object:
        receipt = usual(fax)
        hear(site, site.final_at_carrier(job_id), **BUSY, id="sf_another")
        return receipt

    site.odd.does["send"] = call_back_first
    sending.attempt(site.runtime, job_id)
    del site.odd.does["send"]
    let_days_pass(site)

    assert (site.job(job_id).status, site.job(job_id).attempts) == ("held", 1)


# It speaks of another one -----------------------------------------------------------------------------


@pytest.mark.parametrize("state", [State.DELIVERED, State.FAILED, State.PROGRESS])
def test_an_answer_about_another_fax_than_was_asked_about_changes_nothing(
    site: Site, state: State
) -> None:
    uncertain, sent = site.sent("0500"), site.sent("0044")
    stories = site.story(uncertain), site.story(sent)
    other = Update(state, tag="fb-of-somebody-else", external_id="sf_else", cause="busy")
    site.odd.does["look_up"] = site.odd.does["fetch"] = answers(other)
    for _ in range(3):
        site.after(3600)
    assert (site.story(uncertain), site.story(sent)) == stories

    same_id = site.attempt(sent).external_id
    for about in ({"external_id": "sf_else"}, {"external_id": same_id, "tag": other.tag}):
        site.odd.does["fetch"] = answers(Update(state, cause="busy", **about))
        site.after(3600)
        assert site.story(sent) == stories[1]


# When it was asked ------------------------------------------------------------------------------------


def test_an_answer_counts_by_when_it_was_asked_for(
    store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    with open_site(store, carrier_of_all, FAXBOT_SETTLE_SECONDS="299") as site:
        job_id = site.sent("0500")

        def slow(usual: Any, tag: str) -> object:
            answer = usual(tag)
            site.now += timedelta(seconds=100)
            return answer

        site.after(0)
        site.odd.does["look_up"] = slow
        site.after(240)
        assert site.now > site.events(job_id)[-1].recorded_at + timedelta(seconds=299)
        assert site.attempt(job_id).absences == 0


# Words that are no words -----------------------------------------------------------------------------


def test_a_name_for_news_that_no_encoding_has_is_news_all_the_same(site: Site) -> None:
    job_id = site.sent("0044")
    tag = site.attempt(job_id).tag
    odd = [Update(State.PROGRESS, tag=tag, pages_sent=0, key="\ud800")]
    site.odd.does["read_callback"] = answers(odd)
    site.receive(site.signed(b"{}"))
    site.work()

    assert site.story(job_id) == "QUEUED SUBMITTING SENT PROGRESS"
