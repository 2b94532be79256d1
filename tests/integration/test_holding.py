"""What people do with a fax that waits: hold it until they let it go, or have it sent before its time."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from faxbot import alarms, breaker, claims, decisions, followup, jobs, notices, sending
from faxbot.actors import Actor
from faxbot.errors import LeaseLost, NotFound, NotPossibleNow, OutcomeUnknown
from faxbot.events import Event
from faxbot.models import Job, Notice
from faxbot.plugins.base import OutboundFax, State, Update
from tests.carrier import SimulatorProcess
from tests.installation import Installation
from tests.integration.odd import raises
from tests.integration.site import ACTOR, Site, number, open_site
from tests.integration.web import assert_problem, client_of, new_key
from tests.mailserver import MailServer

pytestmark = pytest.mark.usefixtures("adds_up")
HOUR = timedelta(hours=1)
STRANGER = Actor("other", "k", frozenset({"*"}))


def hold(site: Site, job_id: str) -> Job:
    return decisions.hold(site.runtime, ACTOR, job_id)


def release(site: Site, job_id: str) -> Job:
    return decisions.release(site.runtime, ACTOR, job_id)


def send_now(site: Site, job_id: str) -> Job:
    return decisions.send_now(site.runtime, ACTOR, job_id)


def busy(_usual: Any, name: str) -> Update:
    return Update(State.FAILED, external_id=name, cause="busy")


def retrying(site: Site) -> str:
    """A fax whose first call found the line busy."""
    site.odd.does["fetch"] = busy
    job_id = site.sent("0044")
    site.after(600)
    site.now += timedelta(seconds=site.runtime.config.number_gap_seconds)
    assert site.job(job_id).status == "retrying"
    assert site.wait_of(job_id) > 0
    site.rung.clear()
    site.odd.does.clear()
    return job_id


# Held -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("waits", ["queued", "scheduled", "retrying"])
def test_a_fax_that_a_person_holds_stays_until_it_is_let_go_and_nobody_looks_at_it(
    site: Site, waits: str
) -> None:
    later: dict[str, Any] = {"send_at": site.now + HOUR} if waits == "scheduled" else {}
    job_id = retrying(site) if waits == "retrying" else site.fax(**later)
    before = len(site.attempts(job_id))
    job = hold(site, job_id)
    assert (job.status, job.reason, job.next_at) == ("held", "asked", None)
    assert site.events(job_id)[-1].source == "person"
    story = site.story(job_id)
    for _ in range(30):
        site.after(3600)
    assert site.story(job_id) == story

    site.rung.clear()
    assert release(site, job_id).status == "queued"
    assert site.rung == [("faxbot.send_fax", job_id)]
    site.work()
    assert len(site.attempts(job_id)) == before + 1
    assert site.at_carrier(job_id) == before + 1


def test_a_planned_fax_that_is_let_go_is_sent_at_its_time_and_not_before(site: Site) -> None:
    planned = site.now + 5 * HOUR
    job_id = site.fax(send_at=planned)
    hold(site, job_id)
    site.rung.clear()
    assert release(site, job_id).next_at == planned
    assert site.rung == []
    site.after(HOUR.total_seconds())
    assert (site.job(job_id).status, site.job(job_id).attempts) == ("queued", 0)
    site.after(4 * HOUR.total_seconds() + 60)
    assert site.job(job_id).attempts == 1


def test_its_deadline_ends_it_all_the_same(site: Site) -> None:
    job_id = site.fax(expires_at=site.now + HOUR)
    assert hold(site, job_id).next_at == site.job(job_id).expires_at
    site.after(3599)
    assert site.job(job_id).status == "held"
    site.after(1)
    assert site.story(job_id) == "QUEUED HELD EXPIRED"


def test_a_review_that_comes_all_the_same_changes_nothing(site: Site) -> None:
    job_id = site.fax(expires_at=site.now + HOUR)
    hold(site, job_id)
    followup.review(site.runtime, job_id)
    claims.wake_held(site.runtime, "default", breaker.REASONS)
    site.sweep()
    assert site.story(job_id) == "QUEUED HELD"


def test_it_can_be_cancelled(site: Site) -> None:
    job_id = site.fax()
    hold(site, job_id)
    assert jobs.cancel(site.runtime, ACTOR, job_id)[1] is True
    assert site.story(job_id) == "QUEUED HELD CANCELLED"


def test_who_prepares_it_has_it_no_more_whatever_comes_then(site: Site) -> None:
    job_id = site.fax()
    mine = claims.claim(site.runtime, job_id)
    assert mine is not None
    hold(site, job_id)
    release(site, job_id)
    with pytest.raises(LeaseLost), site.runtime.database.transaction() as session:
        claims.still_mine(session, mine)
    site.work()
    assert site.at_carrier(job_id) == 1


def test_a_fax_that_is_being_handed_over_cannot_be_held(site: Site) -> None:
    said: list[str] = []

    def call(usual: Any, fax: OutboundFax) -> object:
        with pytest.raises(NotPossibleNow, match="this one is submitting") as refused:
            hold(site, job_id)
        said.append(str(refused.value))
        return usual(fax)

    job_id = site.fax()
    site.odd.does["send"] = call
    sending.attempt(site.runtime, job_id)
    assert (len(said), site.story(job_id)) == (1, "QUEUED SUBMITTING SENT")


def test_what_may_have_been_delivered_meanwhile_is_held_for_that_when_it_is_let_go(
    site: Site,
) -> None:
    """Neither may the news let go what a person holds, nor may he let go what he has not seen."""
    job_id = retrying(site)
    this = site.attempt(job_id)
    hold(site, job_id)
    said = {"id": this.external_id, "tag": this.tag, "status": "delivered", "pages_sent": 1}
    site.receive(site.callback(said))
    site.work()
    assert (site.job(job_id).status, site.job(job_id).reason) == ("held", "asked")

    site.rung.clear()
    job = release(site, job_id)
    assert (job.status, job.reason) == ("held", "said_delivered")
    assert job.next_at is not None
    assert site.rung == []
    assert site.story(job_id).endswith("HELD ANOMALY RELEASED HELD")
    assert release(site, job_id).status == "queued", "now he has seen it"


def test_neither_an_alarm_nor_a_notice_tells_of_it_and_the_wait_of_before_does_not_count(
    store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    with MailServer() as mail, open_site(store, carrier_of_all, **mail.environ) as site:
        job_id = site.fax()
        hold(site, job_id)
        site.now += 3 * HOUR
        assert (alarms.raised(site.runtime), notices.note_waits(site.runtime)) == ([], 0)

        site.odd.does["send"] = raises(OutcomeUnknown())
        release(site, job_id)
        with site.runtime.database.transaction() as session:
            held = session.get_one(Job, job_id)
            sending._hold(session, held, "fault", site.now, HOUR)
        site.now += timedelta(minutes=59)
        assert (alarms.raised(site.runtime), notices.note_waits(site.runtime)) == ([], 0)
        site.now += timedelta(minutes=2)
        assert [alarm.code for alarm in alarms.raised(site.runtime)] == ["held"]
        assert notices.note_waits(site.runtime) == site.count(Notice) == 1
        release(site, job_id)
        hold(site, job_id)
        assert alarms.raised(site.runtime) == []


# Sent before its time -------------------------------------------------------------------------------


@pytest.mark.parametrize("waits", ["scheduled", "retrying"])
def test_a_fax_that_waits_for_a_time_is_sent_now_once(site: Site, waits: str) -> None:
    until = site.now + 9 * HOUR
    job_id = (
        retrying(site)
        if waits == "retrying"
        else site.fax(send_at=site.now + HOUR, expires_at=until)
    )
    before = len(site.attempts(job_id))
    site.rung.clear()
    job = send_now(site, job_id)
    assert job.next_at == site.now
    assert site.rung == [("faxbot.send_fax", job_id)] != []
    site.work()
    site.sweep()

    assert site.at_carrier(job_id) == len(site.attempts(job_id)) == before + 1
    assert site.job(job_id).expires_at == (until if waits == "scheduled" else None)


def test_a_bell_that_was_not_taken_is_rung_again_by_the_sweep(site: Site) -> None:
    job_id = site.fax(send_at=site.now + HOUR)
    send_now(site, job_id)
    site.rung.clear()
    site.after(20)
    assert site.at_carrier(job_id) == 1


def test_what_waits_for_its_turn_keeps_it(site: Site) -> None:
    to = number("0044")
    first, second = site.fax_to(to), site.fax_to(to)
    sending.attempt(site.runtime, first)
    sending.attempt(site.runtime, second)
    assert site.job(second).waiting == "number"
    with pytest.raises(NotPossibleNow, match="waits for its turn"):
        send_now(site, second)
    assert site.attempts(second) == []


def test_one_that_is_sent_now_and_then_waits_for_its_turn_waits_since_then(site: Site) -> None:
    """Not since the time that it was planned for, which has not come."""
    to = number("0044")
    site.sent()
    first = site.fax_to(to)
    sending.attempt(site.runtime, first)
    planned = site.fax_to(to, send_at=site.now + 9 * HOUR)
    site.now += timedelta(seconds=1)
    send_now(site, planned)
    sending.attempt(site.runtime, planned)
    site.now += timedelta(seconds=1)
    other = site.fax_to(to)
    sending.attempt(site.runtime, other)
    assert {site.job(each).waiting for each in (planned, other)} == {"number"}

    site.final_at_carrier(first)
    site.after(600)
    site.after(60)
    assert (len(site.attempts(planned)), len(site.attempts(other))) == (1, 0)


@pytest.mark.parametrize(
    ("status", "why"),
    [
        ("queued", "due already"),
        ("held", "this one is held"),
        ("sent", "this one is sent"),
        ("cancelled", "this one is cancelled"),
    ],
)
def test_what_waits_for_no_time_cannot_be_sent_sooner(site: Site, status: str, why: str) -> None:
    job_id = site.sent() if status == "sent" else site.fax()
    if status == "held":
        hold(site, job_id)
    if status == "cancelled":
        jobs.cancel(site.runtime, ACTOR, job_id)
    story = site.story(job_id)
    with pytest.raises(NotPossibleNow, match=why):
        send_now(site, job_id)
    assert site.story(job_id) == story


@pytest.mark.parametrize("deed", [decisions.hold, decisions.send_now])
def test_nobody_else_may_and_what_is_final_stays(site: Site, deed: Any) -> None:
    failed, mine = site.sent("0400"), site.fax(send_at=site.now + HOUR)
    with pytest.raises(NotPossibleNow, match="this one is failed"):
        deed(site.runtime, ACTOR, failed)
    for actor, job_id in ((STRANGER, mine), (ACTOR, "0" * 32)):
        with pytest.raises(NotFound):
            deed(site.runtime, actor, job_id)
    assert site.story(mine) == Event.QUEUED.removeprefix("FAX_")


def test_a_fax_that_is_held_cannot_be_held_again(site: Site) -> None:
    mine, away = site.fax(), site.sent("0403")
    hold(site, mine)
    with pytest.raises(NotPossibleNow, match="a person holds it already"):
        hold(site, mine)
    with pytest.raises(NotPossibleNow, match="goes on when what it is held for is mended"):
        hold(site, away)


# Over HTTP ------------------------------------------------------------------------------------------


def test_they_are_asked_for_over_http(site: Site) -> None:
    sender = client_of(site.runtime, new_key(site.runtime, "fax:send"))
    fax_id = site.fax(send_at=site.now + HOUR)
    held = json.loads(sender.post(f"/fax/{fax_id}/hold").data)
    assert (held["status"], held["status_reason"], held["next_at"]) == ("held", "asked", None)
    assert_problem(sender.post(f"/fax/{fax_id}/hold"), 409, "not-possible-in-this-state")
    assert sender.post(f"/fax/{fax_id}/release").status_code == 200

    other = site.fax(send_at=site.now + HOUR)
    answer = sender.post(f"/fax/{other}/send-now")
    assert (answer.status_code, json.loads(answer.data)["status"]) == (200, "queued")
    refused = sender.post(f"/fax/{other}/send-now")
    detail = assert_problem(refused, 409, "not-possible-in-this-state")["detail"]
    assert detail == "It is due already: a worker takes it in a moment."
