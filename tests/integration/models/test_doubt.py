"""What may have been delivered already is not sent again by itself; what this server gets wrong is
seen, costs no fax, and is tried again."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from faxbot import followup, jobs, sending, sweeps
from faxbot.crypto import Keyring, Unsealable
from faxbot.errors import AccountRefused, DestinationBarred, NotSent, Throttled
from faxbot.models import Callback
from faxbot.plugins.base import OutboundFax, State, Update
from tests.integration.odd import answers, raises
from tests.integration.site import ACTOR, Site

pytestmark = pytest.mark.usefixtures("adds_up")

DAY = 86_400.0


def hear(site: Site, fax: dict[str, Any], **changes: Any) -> None:
    site.receive(site.callback(fax, **changes))
    site.work()


def let_days_pass(site: Site) -> None:
    for _ in range(48):
        site.after(DAY / 24)


# Perhaps delivered ------------------------------------------------------------------------------------

BUSY = {"status": "failed", "code": "line-busy"}
NO_FUNDS = {"status": "failed", "code": "no-funds"}
DONE = {"status": "delivered", "code": None, "pages_sent": 1}


@pytest.mark.parametrize("failure", [BUSY, NO_FUNDS], ids=["busy", "no funds"])
def test_failed_and_delivered_in_any_order_and_number_are_never_a_second_fax(
    site: Site, failure: dict[str, Any]
) -> None:
    for order in itertools.permutations([failure, DONE]):
        job_id = site.sent("0044")
        fax = site.final_at_carrier(job_id)
        for number, change in enumerate([*order, *order]):
            hear(site, fax, **change, n=number)
        let_days_pass(site)

        job = site.job(job_id)
        assert site.at_carrier(job_id) == job.attempts == 1
        assert job.status == ("delivered" if order[0] is DONE else "held")
        assert site.story(job_id).count("ANOMALY") == 1


def test_a_fax_held_back_says_why_and_can_be_cancelled(site: Site) -> None:
    job_id = site.sent("0044")
    fax = site.final_at_carrier(job_id)
    hear(site, fax, **BUSY)
    hear(site, fax, **DONE)

    assert site.story(job_id) == "QUEUED SUBMITTING SENT RETRYING ANOMALY HELD"
    assert site.job(job_id).reason == site.events(job_id)[-1].reason == "said_delivered"
    shown = jobs.describe(site.runtime, jobs.find(site.runtime, ACTOR, job_id))
    assert "a second try might be a second fax" in shown["explanation"]
    assert jobs.cancel(site.runtime, ACTOR, job_id)[1] is True


def test_a_worker_that_prepares_a_fax_stops_when_it_may_have_been_delivered(site: Site) -> None:
    job_id = site.sent("0044")
    fax = site.final_at_carrier(job_id)
    hear(site, fax, **BUSY)
    site.interrupt("UPDATE jobs SET", lambda: hear(site, fax, **DONE))
    site.after(site.wait_of(job_id))

    assert site.story(job_id) == "QUEUED SUBMITTING SENT RETRYING ANOMALY HELD"


def test_what_is_said_of_the_first_attempt_ends_the_tries_after_the_second(site: Site) -> None:
    job_id = site.sent("0017")
    first = site.final_at_carrier(job_id)
    hear(site, first)
    site.after(site.wait_of(job_id))
    hear(site, first, **DONE)
    assert site.job(job_id).status == "sent"
    hear(site, site.final_at_carrier(job_id))
    let_days_pass(site)

    assert (site.job(job_id).status, site.job(job_id).reason) == ("held", "said_delivered")
    assert site.job(job_id).attempts == 2


@pytest.mark.parametrize(
    "refusal",
    [Throttled(), NotSent(cause="trunk_down"), AccountRefused(cause="funds"), DestinationBarred()],
    ids=lambda error: type(error).__name__,
)
def test_what_is_said_of_the_first_attempt_while_the_second_is_refused_ends_the_tries(
    site: Site, refusal: NotSent
) -> None:
    job_id = site.sent("0017")
    first = site.final_at_carrier(job_id)
    hear(site, first)

    def delivered_meanwhile(_usual: object, _fax: object) -> object:
        hear(site, first, **DONE)
        raise refusal

    site.odd.does["send"] = delivered_meanwhile
    site.after(site.wait_of(job_id))
    del site.odd.does["send"]
    let_days_pass(site)

    assert (site.job(job_id).status, site.job(job_id).reason) == ("held", "said_delivered")
    assert site.job(job_id).attempts == 2


def test_what_is_said_of_the_first_attempt_ends_the_tries_also_when_funds_end_the_second(
    site: Site,
) -> None:
    job_id = site.sent("0017")
    first = site.final_at_carrier(job_id)
    hear(site, first)
    site.after(site.wait_of(job_id))
    hear(site, first, **DONE)
    hear(site, site.final_at_carrier(job_id), **NO_FUNDS)
    let_days_pass(site)

    assert (site.job(job_id).reason, site.job(job_id).attempts) == ("said_delivered", 2)


def test_a_review_under_way_does_not_release_what_is_held_for_another_reason_now(
    site: Site,
) -> None:
    job_id = site.sent("0044")
    fax = site.final_at_carrier(job_id)
    hear(site, fax, **NO_FUNDS)
    assert site.job(job_id).reason == "account_refused"
    site.now += timedelta(hours=1)
    real = site.runtime.now
    asked: list[None] = []

    def clock() -> datetime:
        if len(asked) == 1:  # behind the reading of the row, before its lock
            asked.append(None)
            hear(site, fax, **DONE)
        asked.append(None)
        return real()

    followup.review(replace(site.runtime, now=clock), job_id)

    assert (site.job(job_id).status, site.job(job_id).reason) == ("held", "said_delivered")


def test_a_ring_that_comes_twice_releases_nothing_before_its_time(site: Site) -> None:
    job_id = site.fax()
    site.runtime = replace(site.runtime, keyring=Keyring({"other": bytes(32)}, "other"))
    while site.job(job_id).status == "queued":
        with pytest.raises(Unsealable):
            sending.attempt(site.runtime, job_id)
        site.now = site.job(job_id).next_at or site.now
    site.now -= timedelta(seconds=1)

    followup.review(site.runtime, job_id)
    assert site.job(job_id).status == "held"


def test_done_with_too_few_pages_contradicts_itself_no_second_time(site: Site) -> None:
    job_id = site.sent("0044", pages=3)
    fax = site.final_at_carrier(job_id)
    for number in range(2):
        hear(site, fax, **{**DONE, "pages_sent": 2}, n=number)

    assert site.story(job_id) == "QUEUED SUBMITTING SENT FAILED"


def test_absence_that_a_callback_contradicts_is_no_reason_to_send_again(site: Site) -> None:
    job_id = site.sent("0504")
    fax = site.final_at_carrier(job_id)
    site.odd.does["look_up"] = answers(Update(State.ABSENT))
    while site.job(job_id).status == "uncertain":
        site.now += timedelta(seconds=site.wait_of(job_id))
        followup.look_up(site.runtime, job_id)
    assert site.job(job_id).status == "retrying"
    hear(site, fax, **DONE)
    let_days_pass(site)

    assert site.at_carrier(job_id) == site.job(job_id).attempts == 1
    assert site.job(job_id).reason == "said_delivered"


# What a carrier names, and how ------------------------------------------------------------------------


@pytest.mark.parametrize("state", [State.DELIVERED, State.FAILED, State.PROGRESS])
def test_signed_news_that_names_the_tag_alone_settles_an_unknown_outcome(
    site: Site, state: State
) -> None:
    job_id = site.sent("0504")
    news = Update(state, tag=site.attempt(job_id).tag, cause="number_dead")
    site.odd.does["read_callback"] = answers([news])
    site.receive(site.signed(b"{}"))
    site.rung = site.rung[::-1]
    site.work()

    ends = {State.DELIVERED: "delivered", State.FAILED: "failed", State.PROGRESS: "sent"}
    assert site.job(job_id).status == ends[state]
    assert site.story(job_id).startswith("QUEUED SUBMITTING UNCERTAIN RECONCILED SENT")
    del site.odd.does["read_callback"]
    if state is State.PROGRESS:  # the carrier's name for it comes with the first answer
        fax = site.final_at_carrier(job_id)
        site.after(site.wait_of(job_id))
        assert (site.job(job_id).status, site.job(job_id).external_id) == ("delivered", fax["id"])


def test_the_id_that_comes_after_such_news_is_kept(site: Site) -> None:
    job_id = site.fax("0044")

    def call_back_first(usual: Any, fax: OutboundFax) -> object:
        receipt = usual(fax)
        site.odd.does["read_callback"] = answers([Update(State.PROGRESS, tag=fax.tag)])
        site.receive(site.signed(b"{}"))
        site.work()
        return receipt

    site.odd.does["send"] = call_back_first
    sending.attempt(site.runtime, job_id)

    fax = site.final_at_carrier(job_id)
    assert site.job(job_id).external_id == site.attempt(job_id).external_id == fax["id"]
    assert site.job(job_id).tries == 1


def test_a_second_name_for_one_attempt_is_kept_as_an_anomaly(site: Site) -> None:
    job_id = site.sent("0044")
    fax = site.final_at_carrier(job_id)
    for number in range(2):
        hear(site, fax, id="sf_another", status="sending", ended_at=None, pages_sent=0, n=number)

    anomalies = [event for event in site.events(job_id) if event.type == "FAX_ANOMALY"]
    assert [event.reason for event in anomalies] == ["second_name"]
    assert site.job(job_id).external_id == fax["id"]


# Callbacks that cannot be used yet --------------------------------------------------------------------


def test_a_wrong_key_burns_no_callback(site: Site) -> None:
    job_id = site.sent("0044")
    site.receive(site.callback(site.final_at_carrier(job_id)))
    right = site.runtime
    site.runtime = replace(right, keyring=Keyring({"other": bytes(32)}, "other"))
    site.work()
    site.after(10)
    assert site.job(job_id).status == "sent"

    site.runtime = right
    site.after(60)
    assert site.job(job_id).status == "delivered"


def test_a_repeat_of_what_could_not_be_read_is_read_again(site: Site) -> None:
    job_id = site.sent("0044")
    news = site.callback(site.final_at_carrier(job_id))
    site.odd.does["read_callback"] = raises(ValueError("a bug of the plugin"))
    site.receive(news)
    site.work()
    assert site.job(job_id).status == "sent"

    del site.odd.does["read_callback"]
    site.receive(news)
    site.receive(news)
    site.work()
    assert site.story(job_id) == "QUEUED SUBMITTING SENT DELIVERED"
    assert site.count(Callback) == 1


def test_callbacks_that_name_two_faxes_in_opposite_orders_lock_them_in_one(site: Site) -> None:
    faxes = [site.sent("0044") for _ in range(2)]
    first, second = (site.attempt(fax) for fax in faxes)
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, text: str, values: Any, *_: Any) -> None:
        told = str(values)
        if text.startswith("SELECT jobs.") and "WHERE jobs.id" in text:
            seen.extend(fax for fax in faxes if fax in told)

    sa.event.listen(site.runtime.database.engine, "before_cursor_execute", note)
    orders: tuple[list[dict[str, Any]], ...] = (
        [{"tag": first.tag}, {"external_id": second.external_id}],
        [{"tag": second.tag}, {"external_id": first.external_id}],
        [{"external_id": second.external_id}, {"external_id": first.external_id}],
    )
    for number, order in enumerate(orders):
        site.odd.does["read_callback"] = answers(
            [Update(State.PROGRESS, pages_sent=0, **names) for names in order]
        )
        site.receive(site.signed(b"%d" % number))
        site.work()

    assert seen == sorted(faxes) * 3


# Our own trouble --------------------------------------------------------------------------------------


def test_a_fax_that_this_server_fails_to_prepare_waits_longer_each_time_and_is_held_in_the_end(
    site: Site,
) -> None:
    job_id, right = site.fax(), site.runtime
    site.runtime = replace(right, keyring=Keyring({"other": bytes(32)}, "other"))
    waits = []
    while site.job(job_id).status == "queued":
        with pytest.raises(Unsealable):
            sending.attempt(site.runtime, job_id)
        waits.append(site.wait_of(job_id))
        site.now = site.job(job_id).next_at or site.now

    assert waits == [8, 16, 32, 64, 128, 256, 512, 3600]
    assert (site.job(job_id).status, site.job(job_id).reason) == ("held", "fault")
    assert site.attempts(job_id) == []
    site.runtime = right
    site.after(1)
    assert site.story(job_id) == "QUEUED HELD RELEASED SUBMITTING SENT"
    assert site.job(job_id).faults == 0


def test_a_fax_that_is_always_refused_does_not_keep_the_others_from_their_turn(site: Site) -> None:
    site.rung.clear()
    always = site.fax("0401")
    sending.attempt(site.runtime, always)
    others = [site.fax() for _ in range(5)]
    site.work()
    assert {site.job(other).status for other in others} == {"held"}

    for _ in range(12):
        site.after(60)
    assert {site.job(other).status for other in others} == {"sent"}


def test_an_untried_fax_finds_out_whether_an_account_is_mended(site: Site) -> None:
    site.odd.does["send"] = raises(AccountRefused(cause="funds"))
    refused, waiting = site.sent(), site.sent()
    for _ in range(10):
        site.after(60)

    assert site.story(waiting) == "QUEUED HELD RELEASED SUBMITTING HELD"
    assert site.story(refused) == "QUEUED SUBMITTING HELD"


def test_what_a_well_provider_cannot_mend_is_not_looked_at_by_every_sweep(site: Site) -> None:
    job_id = site.sent("0044")
    hear(site, site.final_at_carrier(job_id), **NO_FUNDS)
    assert (site.job(job_id).reason, site.rest()) == ("account_refused", None)
    site.now += timedelta(seconds=60)
    reviews = 0
    held_at = site.now - timedelta(seconds=60)
    while site.job(job_id).status == "held":
        sweeps.run(site.runtime)
        reviews += ("faxbot.review_fax", job_id) in site.rung
        site.work()
        site.now += timedelta(seconds=5)

    assert reviews <= 10, "it was looked at by every sweep"
    assert 720 <= (site.now - held_at).total_seconds() <= 730


CUT = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


def test_an_acceptance_in_hand_survives_connections_that_are_cut(on_postgresql: Site) -> None:
    site = on_postgresql
    job_id = site.fax("0044")

    def cut(usual: Any, fax: OutboundFax) -> object:
        receipt = usual(fax)
        alone = sa.create_engine(site.runtime.database.engine.url)
        with alone.connect() as connection:
            connection.execute(sa.text(CUT))
        alone.dispose()
        return receipt

    site.odd.does["send"] = cut
    sending.attempt(site.runtime, job_id)

    assert site.story(job_id) == "QUEUED SUBMITTING SENT"
    assert site.job(job_id).external_id is not None
