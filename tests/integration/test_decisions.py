"""What people decide: an uncertain fax is settled with a reason that is kept, a held one is let go."""

from __future__ import annotations

from datetime import timedelta

import pytest

from faxbot import decisions, jobs
from faxbot.actors import Actor
from faxbot.errors import NotFound, NotPossibleNow, OutcomeUnknown
from faxbot.models import Decision
from faxbot.plugins.base import State, Update
from tests.integration.odd import raises
from tests.integration.site import ACTOR, Site

pytestmark = pytest.mark.usefixtures("adds_up")

REASON = "Mrs. Ito of the clinic at +81 3-0000-0000 has all pages"
STRANGER = Actor("other", "k", frozenset({"*"}))


def uncertain(site: Site) -> str:
    """A fax whose carrier took it, never says so, and is not asked."""
    site.odd.does["send"] = raises(OutcomeUnknown())
    site.odd.does["look_up"] = raises(OutcomeUnknown())
    job_id = site.sent()
    site.rung.clear()
    return job_id


@pytest.mark.parametrize(
    ("outcome", "status", "attempt", "ending"),
    [
        ("delivered", "delivered", "delivered", "UNCERTAIN DECIDED"),
        ("failed", "failed", "failed", "UNCERTAIN DECIDED"),
        ("retry", "retrying", "absent", "UNCERTAIN DECIDED"),
    ],
)
def test_an_uncertain_fax_is_settled_as_a_person_says_and_why_is_kept(
    site: Site, outcome: str, status: str, attempt: str, ending: str
) -> None:
    job_id = uncertain(site)
    job = decisions.decide(site.runtime, ACTOR, job_id, outcome, REASON)

    assert (job.status, site.attempt(job_id).outcome) == (status, attempt)
    assert site.story(job_id).endswith(ending)
    assert site.events(job_id)[-1].source == "person"
    (kept,) = decisions.of_fax(site.runtime, jobs.find(site.runtime, ACTOR, job_id))
    assert (kept["attempt"], kept["outcome"], kept["actor"]) == (1, outcome, "env")
    assert kept["reason"] == REASON
    with site.runtime.database.reading() as session:
        assert REASON.encode() not in session.get_one(Decision, row_id(site)).reason_sealed


def row_id(site: Site) -> str:
    with site.runtime.database.reading() as session:
        return session.query(Decision).one().id


def test_one_that_is_sent_anew_goes_at_once_and_under_a_new_name(site: Site) -> None:
    job_id = uncertain(site)
    site.odd.does.clear()
    decisions.decide(site.runtime, ACTOR, job_id, "retry", REASON)
    site.work()

    assert (site.job(job_id).status, site.job(job_id).attempts) == ("sent", 2)
    assert len({attempt.tag for attempt in site.attempts(job_id)}) == 2


def test_a_carrier_that_says_later_that_it_was_delivered_stops_the_next_try(site: Site) -> None:
    job_id = uncertain(site)
    tag = site.attempt(job_id).tag
    decisions.decide(site.runtime, ACTOR, job_id, "retry", REASON)
    site.rung.clear()
    site.receive(site.callback({"id": "x", "tag": tag, "status": "delivered", "pages_sent": 1}))
    site.work()
    site.odd.does.clear()
    site.after(60)

    assert (site.job(job_id).status, site.job(job_id).reason) == ("held", "said_delivered")
    assert site.job(job_id).attempts == 1


@pytest.mark.parametrize(
    ("outcome", "status"),
    [("delivered", "delivered"), ("failed", "cancelled"), ("retry", "cancelled")],
)
def test_a_cancel_that_was_asked_for_is_honoured(site: Site, outcome: str, status: str) -> None:
    job_id = uncertain(site)
    jobs.cancel(site.runtime, ACTOR, job_id)

    assert decisions.decide(site.runtime, ACTOR, job_id, outcome, REASON).status == status


def test_a_look_up_that_was_under_way_changes_nothing_any_more(site: Site) -> None:
    job_id = uncertain(site)

    def decide_meanwhile(_usual: object, tag: str) -> Update:
        decisions.decide(site.runtime, ACTOR, job_id, "delivered", REASON)
        return Update(State.ABSENT, tag=tag)

    site.odd.does["look_up"] = decide_meanwhile
    for _ in range(5):
        site.after(3600)

    assert site.job(job_id).status == "delivered"
    assert site.job(job_id).attempts == 1


@pytest.mark.parametrize("deed", ["decide", "release"])
def test_nobody_else_may_and_it_must_be_the_time_for_it(site: Site, deed: str) -> None:
    def do(actor: Actor, job_id: str) -> None:
        if deed == "decide":
            decisions.decide(site.runtime, actor, job_id, "delivered", REASON)
        else:
            decisions.release(site.runtime, actor, job_id)

    job_id = site.sent()
    with pytest.raises(NotFound):
        do(STRANGER, job_id)
    with pytest.raises(NotFound):
        do(ACTOR, "0" * 32)
    with pytest.raises(NotPossibleNow, match="this one is sent"):
        do(ACTOR, job_id)
    assert site.count(Decision) == 0


def test_a_held_fax_that_is_released_goes_at_once(site: Site) -> None:
    job_id = site.sent("0403")
    assert site.job(job_id).status == "held"
    site.odd.does["send"] = lambda usual, fax: usual(fax)
    site.now += timedelta(seconds=1)
    job = decisions.release(site.runtime, ACTOR, job_id)

    assert (job.status, job.reason) == ("queued", None)
    assert site.rung == [("faxbot.send_fax", job_id)]
    assert site.events(job_id)[-1].source == "person"
    site.work()
    assert site.job(job_id).attempts == 2


def test_one_whose_reason_is_not_gone_is_held_again(site: Site) -> None:
    job_id = site.sent("0401")
    decisions.release(site.runtime, ACTOR, job_id)
    site.work()

    assert (site.job(job_id).status, site.job(job_id).reason) == ("held", "account_refused")
    assert site.job(job_id).attempts == 1


def test_who_found_out_about_one_attempt_decides_about_no_later_one(site: Site) -> None:
    job_id = uncertain(site)
    decisions.decide(site.runtime, ACTOR, job_id, "retry", REASON, attempt=1)
    site.work()
    assert (site.job(job_id).status, site.job(job_id).attempts) == ("uncertain", 2)

    # the same request once more, as a client sends it whose answer was lost
    with pytest.raises(NotPossibleNow, match="attempt 1 is over"):
        decisions.decide(site.runtime, ACTOR, job_id, "retry", REASON, attempt=1)
    assert (site.job(job_id).status, site.count(Decision)) == ("uncertain", 1)
    assert (
        decisions.decide(site.runtime, ACTOR, job_id, "delivered", REASON, attempt=2).status
        == "delivered"
    )
