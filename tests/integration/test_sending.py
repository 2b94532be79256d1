"""One attempt: what a single call to the carrier told us decides status, count and rest; and no
call is made twice."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from faxbot import callbacks, fanout, jobs, retry, sending
from faxbot.crypto import Keyring
from faxbot.db import Database
from faxbot.errors import (
    AccountRefused,
    DestinationBarred,
    OutcomeUnknown,
    ProviderError,
    Refused,
    Throttled,
    Unreachable,
)
from faxbot.errors import NotSent as NothingSent
from faxbot.events import CAUSES
from faxbot.plugins.base import OutboundFax, Receipt
from tests.carrier import SimulatorProcess
from tests.ground import eventually
from tests.installation import Installation
from tests.integration.odd import Deed, Vanished, answers, raises, taken_and_gone
from tests.integration.site import ACTOR, Site, open_site
from tests.servers import free_port
from tests.threads import at_once

pytestmark = pytest.mark.usefixtures("adds_up")

# ending: status, cause of the attempt, its outcome, counted, the provider's rest in seconds, faxes
# at the carrier
CALLS: dict[str, tuple[str, str | None, str, bool, float | None, int]] = {
    "0000": ("sent", None, "accepted", True, None, 1),
    "0400": ("failed", "number_invalid", "refused", True, None, 0),
    "0401": ("held", "trunk_denied", "refused", False, 600, 0),
    "0402": ("held", "funds", "refused", False, 600, 0),
    "0403": ("held", "trunk_denied", "refused", False, None, 0),
    "0413": ("failed", "doc_too_large", "refused", True, None, 0),
    "0422": ("failed", "doc_unreadable", "refused", True, None, 0),
    "0429": ("retrying", "congestion", "refused", False, 2, 0),
    "0433": ("failed", "policy", "refused", True, None, 0),
    "0500": ("uncertain", "unconfirmed", "unknown", True, None, 0),
    "0501": ("uncertain", "unconfirmed", "unknown", True, None, 1),
    "0504": ("uncertain", "unconfirmed", "unknown", True, None, 1),
}
LAST = {
    "sent": "SENT",
    "failed": "FAILED",
    "held": "HELD",
    "retrying": "RETRYING",
    "uncertain": "UNCERTAIN",
}


@pytest.mark.parametrize("ending", CALLS)
def test_what_one_call_told_us(site: Site, ending: str) -> None:
    status, cause, outcome, counted, rest, taken = CALLS[ending]

    job_id = site.sent(ending)

    job, attempt, last = site.job(job_id), site.attempt(job_id), site.events(job_id)[-1]
    assert (job.status, site.story(job_id)) == (status, f"QUEUED SUBMITTING {LAST[status]}")
    assert (attempt.outcome, attempt.cause, last.cause) == (outcome, cause, cause)
    assert (attempt.counted, job.tries, job.attempts) == (counted, int(counted), 1)
    assert (attempt.ended_at is not None) == (outcome == "refused")
    assert job.lease_until is None
    assert (job.external_id is not None) == (status == "sent")
    found = site.rest()
    assert rest == (found and found.until and (found.until - site.now).total_seconds())
    assert site.at_carrier(job_id) == taken
    assert (job.next_at is None) == (status == "failed")


@pytest.mark.parametrize(
    ("ending", "wait"),
    [("0000", 600), ("0401", 60), ("0429", 2), ("0500", 0)],
)
def test_somebody_looks_again_when_the_contract_says(site: Site, ending: str, wait: float) -> None:
    assert site.wait_of(site.sent(ending)) == wait


def test_a_carrier_that_is_away_costs_no_try_and_is_asked_again_later_and_later(
    store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    with open_site(store, carrier_of_all, SIMULATOR_BASE_URL=dead) as site:
        job_id = site.sent()

        for fault in range(1, 5):
            job, attempt = site.job(job_id), site.attempt(job_id)
            assert (job.status, job.tries, job.attempts) == ("retrying", 0, fault)
            assert (attempt.cause, attempt.counted) == ("trunk_down", False)
            wait = site.wait_of(job_id)
            assert 1 <= wait <= min(600, 5 * 2**fault)
            site.now += timedelta(seconds=wait)
            sending.attempt(site.runtime, job_id)

        # Five in a row: the provider rests, and so does the fax, which is never given up for it.
        for _ in range(20):
            site.after(site.wait_of(job_id))
        job = site.job(job_id)
        assert "HELD RELEASED SUBMITTING RETRYING HELD" in site.story(job_id)
        assert job.status in ("held", "retrying")
        assert (job.tries, job.attempts < 20) == (0, True)


def test_a_throttled_provider_is_left_alone_by_all_and_no_fax_is_held_for_it(site: Site) -> None:
    first, second = site.sent("0429"), site.sent("0000")

    job = site.job(second)
    assert (job.status, job.attempts, job.lease_until) == ("queued", 0, None)
    assert site.wait_of(second) == 2
    site.after(2)
    assert site.job(second).status == "sent"

    # The carrier counts its two seconds by its own clock; after eight in vain it is left alone for longer.
    def taken() -> bool:
        site.after(retry.SLOW)
        return site.job(first).status == "sent"

    eventually(taken, every=0.2)
    assert site.job(first).tries == 1


def test_a_refused_account_holds_the_next_faxes_before_they_are_tried_in_vain(site: Site) -> None:
    site.odd.does["send"] = raises(AccountRefused(cause="funds"))
    refused, next_one = site.sent(), site.sent()
    del site.odd.does["send"]

    assert site.story(next_one) == "QUEUED HELD"
    assert (site.job(next_one).reason, site.job(next_one).attempts) == ("account_refused", 0)
    for _ in range(9):
        site.after(60)
    assert site.job(next_one).status == site.job(refused).status == "held"
    site.after(60)
    assert site.story(next_one) == "QUEUED HELD RELEASED SUBMITTING SENT"
    for _ in range(2):
        site.after(60)
    assert site.story(refused) == "QUEUED SUBMITTING HELD RELEASED SUBMITTING SENT"
    assert site.job(refused).tries == 1


SECRET = "+15559998877 Jane Doe"
NO_NAMES: tuple[Any, ...] = (5, None, b"x", ["x"])
WRONG: tuple[Deed, ...] = (
    raises(ValueError(SECRET)),
    raises(RecursionError(SECRET)),
    raises(OutcomeUnknown(SECRET, cause=SECRET * 9)),
    raises(ProviderError(SECRET, cause="busy")),
    answers(None),
    answers(SECRET),
    answers({"external_id": "x"}),
    *(answers(Receipt(name)) for name in ("", "x" * 256, "a\nb", "nul\0")),
    *(answers(Receipt(name)) for name in NO_NAMES),
)


def test_whatever_a_provider_says_wrongly_is_an_unknown_outcome_at_once(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    for number, deed in enumerate(WRONG):
        site.odd.does.clear()
        site.sent()  # else the breaker opens
        site.now += timedelta(minutes=10)
        site.odd.does["send"] = deed
        with caplog.at_level(logging.DEBUG):
            job_id = site.sent()

        assert site.story(job_id) == "QUEUED SUBMITTING UNCERTAIN", number
        assert site.attempt(job_id).cause in CAUSES
        assert site.rung == [("faxbot.look_up_fax", job_id)]
    assert "Jane" not in caplog.text + repr([vars(record) for record in caplog.records])


@pytest.mark.parametrize(
    ("kind", "wait"),
    [
        (Refused, math.nan),
        (AccountRefused, math.inf),
        (DestinationBarred, -5.0),
        (Throttled, 1e300),
        (Throttled, math.nan),
        (Unreachable, "soon"),
    ],
)
def test_a_refusal_with_nonsense_in_it_is_a_refusal_all_the_same(
    site: Site, kind: type[NothingSent], wait: Any
) -> None:
    site.odd.does["send"] = raises(kind(SECRET, cause=SECRET, retry_after=wait))

    job_id = site.sent()

    assert site.job(job_id).status in ("failed", "held", "retrying")
    assert site.attempt(job_id).cause == site.events(job_id)[-1].cause == "unknown"
    assert site.job(job_id).next_at is None or 1 <= site.wait_of(job_id) <= 86_400


def test_the_intent_is_committed_and_no_connection_is_held_while_the_carrier_is_called(
    store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    with open_site(store, carrier_of_all) as site:
        other = site.runtime.database
        alone = Database(site.runtime.config, pool_size=1)
        fanout.attach(alone, site.runtime.ring)
        site.runtime = replace(site.runtime, database=alone)
        seen: list[object] = []

        def look(usual: Any, fax: OutboundFax) -> object:
            job = jobs.find(replace(site.runtime, database=other), ACTOR, job_id)
            seen.append((job.status, job.lease_until, alone.held))
            seen.append(site.attempt(job_id).tag == fax.tag)
            return usual(fax)

        site.odd.does["send"] = look
        job_id = site.fax()

        def render_for_long() -> None:
            site.now += timedelta(seconds=50)

        site.interrupt("UPDATE jobs SET", render_for_long)
        sending.attempt(site.runtime, job_id)

        lease = site.now + timedelta(seconds=60)
        assert seen == [("submitting", lease, 0), True]
        assert site.job(job_id).status == "sent"
        other.close()


def test_eight_workers_that_hear_the_bell_at_once_call_the_carrier_once(site: Site) -> None:
    job_id = site.fax()

    at_once(8, lambda _: sending.attempt(site.runtime, job_id))

    assert site.story(job_id) == "QUEUED SUBMITTING SENT"
    assert site.at_carrier(job_id) == 1


def test_a_worker_that_vanished_after_the_carrier_took_it_costs_no_second_fax(site: Site) -> None:
    job_id = site.fax()
    site.odd.does["send"] = taken_and_gone
    with pytest.raises(Vanished):
        sending.attempt(site.runtime, job_id)
    del site.odd.does["send"]

    site.after(59)
    assert site.story(job_id) == "QUEUED SUBMITTING", "its lease has not run out"
    site.final_at_carrier(job_id)
    site.after(2)
    assert site.story(job_id) == "QUEUED SUBMITTING UNCERTAIN RECONCILED SENT DELIVERED"
    assert (site.job(job_id).tries, site.at_carrier(job_id)) == (1, 1)


def test_a_worker_that_slept_past_its_lease_writes_nothing_when_it_wakes(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    story: list[str] = []

    def sleep(usual: Any, fax: OutboundFax) -> object:
        receipt = usual(fax)
        site.final_at_carrier(job_id)
        site.after(61)  # the others settle it meanwhile
        story.append(site.story(job_id))
        return receipt

    job_id = site.fax()
    site.odd.does["send"] = sleep
    with caplog.at_level(logging.INFO, "faxbot.sending"):
        sending.attempt(site.runtime, job_id)

    assert story == ["QUEUED SUBMITTING UNCERTAIN RECONCILED SENT DELIVERED"]
    assert site.story(job_id) == story[0]
    said = [record.message for record in caplog.records if record.name == "faxbot.sending"]
    assert said == ["claim lost"]
    assert site.at_carrier(job_id) == 1


def test_a_worker_that_slept_between_intent_and_call_calls_nobody(site: Site) -> None:
    job_id = site.fax()
    site.interrupt("INSERT INTO attempts", lambda: site.after(61))

    sending.attempt(site.runtime, job_id)

    assert site.story(job_id) == "QUEUED SUBMITTING UNCERTAIN"
    assert site.at_carrier(job_id) == 0


def test_a_fax_cancelled_while_its_pages_are_made_is_not_sent(site: Site) -> None:
    job_id = site.fax()
    site.interrupt("UPDATE jobs SET", lambda: jobs.cancel(site.runtime, ACTOR, job_id))

    sending.attempt(site.runtime, job_id)

    assert site.story(job_id) == "QUEUED CANCELLED"
    assert site.attempts(job_id) == []


def test_a_deadline_that_passes_while_the_pages_are_made_ends_the_fax(site: Site) -> None:
    job_id = site.fax(expires_at=site.now + timedelta(seconds=30))

    def wait() -> None:
        site.now += timedelta(seconds=30)

    site.interrupt("UPDATE jobs SET", wait)
    sending.attempt(site.runtime, job_id)

    assert site.story(job_id) == "QUEUED EXPIRED"
    assert site.attempts(job_id) == []


def test_a_fault_before_the_intent_gives_the_claim_back_and_costs_nothing(site: Site) -> None:
    job_id = site.fax()
    other = Keyring({"other": bytes(32)}, "other")

    with pytest.raises(Exception, match="sealed value does not open"):
        sending.attempt(replace(site.runtime, keyring=other), job_id)

    job = site.job(job_id)
    assert (job.status, job.attempts, job.lease_until) == ("queued", 0, None)
    assert site.wait_of(job_id) == site.runtime.config.ring_again_seconds
    site.after(10)
    assert site.job(job_id).status == "sent"


def test_documents_that_make_no_pages_fail_the_fax_and_nothing_is_sent(site: Site) -> None:
    broken = site.upload(b"%PDF-1.7 and then nothing of the kind")
    job_id = site.submit("+15550100000", uploads=(broken,)).job_id

    site.work()

    assert site.story(job_id) == "QUEUED FAILED"
    assert site.events(job_id)[-1].cause == site.job(job_id).reason == "doc_unreadable"
    assert callbacks.announce_waiting(site.runtime) == 0
    assert site.attempts(job_id) == []
