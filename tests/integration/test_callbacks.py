"""What carriers call back: proven, stored sealed and once, applied once in whatever order, and
never guessed at."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from faxbot import addresses, callbacks, oversight, sending
from faxbot.crypto import Keyring
from faxbot.errors import NotFound, Unauthenticated, Unreachable
from faxbot.models import Attempt, Callback
from faxbot.plugins.base import CallbackRequest, OutboundFax, State, Update
from faxbot.plugins.loader import Plugins
from faxbot.runtime import Runtime
from tests.carrier import SimulatorProcess
from tests.installation import Installation
from tests.integration.odd import Deed, Vanished, answers, news, raises, taken_and_gone
from tests.integration.site import Site, open_site
from tests.threads import at_once

pytestmark = pytest.mark.usefixtures("adds_up")


def stored(site: Site) -> list[Callback]:
    with site.runtime.database.reading() as session:
        return list(session.scalars(sa.select(Callback).order_by(Callback.received_at)))


# At the edge --------------------------------------------------------------------------------------


def test_a_carriers_word_is_stored_sealed_and_announced_before_it_is_answered(site: Site) -> None:
    job_id = site.sent("0044")
    request = site.callback(site.final_at_carrier(job_id))

    site.receive(request)

    (callback,) = stored(site)
    assert site.rung == [("faxbot.apply_callback", callback.id)]
    assert callback.applied_at is None
    assert callback.next_at is not None
    assert (callback.next_at - site.now).total_seconds() == 8
    for piece in (request.body[:40], b"simulator-signature", site.attempt(job_id).tag.encode()):
        assert piece not in callback.raw_sealed


def test_what_is_not_the_carriers_is_refused_and_leaves_nothing(site: Site) -> None:
    good = site.signed(b'{"fax": {}}')
    forged = [
        CallbackRequest(good.method, good.url, good.headers, good.body + b" "),
        CallbackRequest(good.method, good.url, {}, good.body),
        CallbackRequest(good.method, good.url, {"x-simulator-signature": "\xff" * 80}, good.body),
    ]

    for request in forged:
        with pytest.raises(Unauthenticated):
            site.receive(request)
    for provider_id in ("nobody", "local", "", "../simulator"):
        with pytest.raises(NotFound):
            callbacks.receive(site.runtime, provider_id, good)
    assert stored(site) == []
    assert site.rung == []


def test_a_hundred_forged_requests_at_once_cost_few_commits_and_are_counted(
    store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    forged = CallbackRequest("POST", "http://127.0.0.1:9/callbacks/simulator", {}, b"")

    def forge(site: Site, times: int) -> None:
        for _ in range(times):
            with pytest.raises(Unauthenticated):
                site.receive(forged)

    def refused(site: Site) -> list[tuple[str, int]]:
        doors = {one["provider_id"]: one for one in oversight.webhooks(site.runtime)}
        door = doors["simulator"]
        return [(one["reason"], one["count"]) for one in door["refused"]]

    with open_site(store, carrier_of_all) as site:
        began, writes = time.monotonic(), list[str]()

        def executed(_c: Any, _cursor: Any, text: str, _p: Any, _x: Any, _m: bool) -> None:
            if text.startswith("INSERT INTO callback_refusals"):
                writes.append(text)

        sa.event.listen(site.runtime.database.reader, "after_cursor_execute", executed)
        at_once(20, lambda _: forge(site, 5))
        assert 1 <= len(writes) <= time.monotonic() - began + 1
        assert refused(site) == [("not_proven", 100)]
        forge(site, 10)
    with open_site(store, carrier_of_all) as site:
        assert refused(site) == [("not_proven", 110)], "a process that ends writes the rest"


@pytest.mark.parametrize("answer", [raises(KeyError("signature")), answers("yes"), answers(None)])
def test_what_a_plugin_cannot_verify_is_refused(site: Site, answer: Deed) -> None:
    good = site.callback(site.final_at_carrier(site.sent("0044")))
    site.rung.clear()
    site.odd.does["verify_callback"] = answer

    with pytest.raises(Unauthenticated):
        site.receive(good)
    assert (stored(site), site.rung) == ([], [])


def test_a_repeat_is_stored_once_also_when_it_comes_many_times_at_once(site: Site) -> None:
    job_id = site.sent("0044")
    request = site.callback(site.final_at_carrier(job_id))

    at_once(6, lambda _: site.receive(request))
    assert len(stored(site)) == len(site.rung) == 1

    site.work()
    site.receive(site.callback(site.final_at_carrier(job_id)))
    assert site.rung == []
    assert site.story(job_id) == "QUEUED SUBMITTING SENT DELIVERED"


# Applied ------------------------------------------------------------------------------------------


def test_news_ends_the_fax_with_what_the_carrier_confirmed(site: Site) -> None:
    job_id = site.sent("0409", pages=3)
    site.receive(site.callback(site.final_at_carrier(job_id)))

    site.work()

    job, event, (callback,) = site.job(job_id), site.events(job_id)[-1], stored(site)
    assert (job.status, job.reason, job.pages_sent) == ("retrying", "page_failed", 1)
    assert (event.source, event.attempt, event.provider_id) == ("callback", 1, "simulator")
    assert event.occurred_at != event.recorded_at
    assert (callback.outcome, callback.tries, callback.next_at) == ("applied", 1, None)
    callbacks.apply(site.runtime, callback.id)
    assert len(site.events(job_id)) == 4


def test_pages_confirmed_by_an_earlier_attempt_stay_confirmed(site: Site) -> None:
    job_id = site.sent("0409", pages=3)
    site.receive(site.callback(site.final_at_carrier(job_id)))
    site.work()
    site.after(site.wait_of(job_id))
    second = site.final_at_carrier(job_id)
    site.receive(site.callback(second, status="sending", pages_sent=0, ended_at=None))
    site.work()

    assert [attempt.pages_sent for attempt in site.attempts(job_id)] == [1, 0]
    assert site.job(job_id).pages_sent == 1


def test_done_with_fewer_pages_than_were_sent_is_not_delivered(site: Site) -> None:
    job_id = site.sent("0044", pages=3)
    site.receive(site.callback(site.final_at_carrier(job_id), pages_sent=2))

    site.work()

    job = site.job(job_id)
    assert (job.status, job.reason, job.pages_sent) == ("failed", "unconfirmed", 2)


def test_callbacks_in_any_order_and_number_give_one_end(site: Site) -> None:
    news = [
        {"status": "sending", "pages_sent": 1, "ended_at": None},
        {"status": "sending", "pages_sent": 2, "ended_at": None},
        {"status": "delivered", "pages_sent": 3},
    ]
    for order in itertools.permutations(news):
        job_id = site.sent("0044", pages=3)
        fax = site.final_at_carrier(job_id)
        for number, change in enumerate([*order, *order]):
            site.receive(site.callback(fax, **change, n=number))
            site.work()

        job, story = site.job(job_id), site.story(job_id)
        assert (job.status, job.pages_sent) == ("delivered", 3)
        assert story.endswith("DELIVERED")
        assert story.count("PROGRESS") <= 2
        assert "ANOMALY" not in story
        sequence = [event.sequence for event in site.events(job_id)]
        assert sequence == list(range(1, len(sequence) + 1)) == [*range(1, job.last_sequence + 1)]


def test_callbacks_that_are_lost_cost_time_only(site: Site) -> None:
    """Any of them, and whatever is left in any order: the carrier is asked in the end."""
    news = [
        {"status": "sending", "pages_sent": 1, "ended_at": None},
        {"status": "sending", "pages_sent": 2, "ended_at": None},
        {"status": "delivered", "pages_sent": 3},
    ]
    for arriving in (*itertools.permutations(news, 2), *itertools.permutations(news, 1), ()):
        job_id = site.sent("0044", pages=3)
        fax = site.final_at_carrier(job_id)
        for change in arriving:
            site.receive(site.callback(fax, **change))
        site.work()
        site.after(600)

        job = site.job(job_id)
        assert (job.status, job.pages_sent, job.attempts) == ("delivered", 3, 1), arriving
        assert site.at_carrier(job_id) == 1
        assert site.story(job_id).count("DELIVERED") == 1


def test_pages_only_ever_add_up(site: Site) -> None:
    job_id = site.sent("0044", pages=3)
    fax = site.final_at_carrier(job_id)
    for pages in (2, 1, 10**9, 7, 0):
        site.receive(site.callback(fax, status="sending", pages_sent=pages, ended_at=None))
        site.work()

    assert [event.pages_sent for event in site.events(job_id)[3:]] == [2, 2, 2, 3, 3]
    assert site.job(job_id).pages_sent == 3


def test_a_contradiction_of_what_is_final_is_kept_once_and_never_applied(site: Site) -> None:
    job_id = site.sent("0044")
    fax = site.final_at_carrier(job_id)
    site.receive(site.callback(fax))
    site.work()

    for number in range(3):
        site.receive(site.callback(fax, status="failed", code="line-busy", n=number))
        site.receive(site.callback(fax, n=number))
        site.receive(site.callback(fax, status="sending", pages_sent=0, n=number))
        site.work()

    assert site.story(job_id) == "QUEUED SUBMITTING SENT DELIVERED ANOMALY"
    anomaly = site.events(job_id)[-1]
    assert (anomaly.status, anomaly.cause, anomaly.reason) == ("delivered", "busy", "said_failed")
    assert site.job(job_id).status == "delivered"


def test_late_news_of_an_older_attempt_does_not_touch_the_newer_one(site: Site) -> None:
    job_id = site.sent("0017")
    first = site.final_at_carrier(job_id)
    site.receive(site.callback(first))
    site.work()
    site.after(site.wait_of(job_id))
    assert [attempt.number for attempt in site.attempts(job_id)] == [1, 2]

    site.receive(site.callback(first, n=2))
    site.receive(site.callback(first, status="delivered", code=None, pages_sent=1))
    site.work()

    assert site.job(job_id).status == "sent"
    assert site.story(job_id) == "QUEUED SUBMITTING SENT RETRYING SUBMITTING SENT ANOMALY"
    assert site.events(job_id)[-1].attempt == 1
    assert site.job(job_id).pages_sent == 0


# Before we know what it is about ------------------------------------------------------------------


def test_a_callback_that_overtakes_our_own_commit_is_the_truth_at_once(site: Site) -> None:
    job_id = site.fax("0044")

    def call_back_first(usual: Any, fax: OutboundFax) -> object:
        receipt = usual(fax)
        site.receive(site.callback(site.final_at_carrier(job_id)))
        site.work()
        return receipt

    site.odd.does["send"] = call_back_first
    sending.attempt(site.runtime, job_id)

    assert site.story(job_id) == "QUEUED SUBMITTING SENT DELIVERED"
    assert (site.job(job_id).tries, site.attempt(job_id).outcome) == (1, "delivered")


def nameless(fax: dict[str, Any]) -> Deed:
    """The same callback from a carrier that names its own id only."""
    return answers([Update(State.DELIVERED, external_id=fax["id"], pages_sent=1)])


def test_a_callback_about_an_id_we_do_not_know_yet_waits_for_our_commit(site: Site) -> None:
    job_id = site.fax("0044")

    def call_back_first(usual: Any, fax: OutboundFax) -> object:
        receipt = usual(fax)
        account = site.final_at_carrier(job_id)
        site.odd.does["read_callback"] = nameless(account)
        site.receive(site.callback(account))
        site.work()
        return receipt

    site.odd.does["send"] = call_back_first
    sending.attempt(site.runtime, job_id)
    assert site.story(job_id) == "QUEUED SUBMITTING SENT"
    assert stored(site)[0].outcome is None

    site.after(3)
    assert site.story(job_id) == "QUEUED SUBMITTING SENT DELIVERED"


def test_one_that_may_wait_for_a_day_is_applied_within_a_minute_of_our_commit(
    store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    with open_site(store, carrier_of_all, FAXBOT_CALLBACK_WAIT_SECONDS="86400") as site:
        job_id = site.sent("0044")
        account = site.final_at_carrier(job_id)
        with site.runtime.database.transaction() as session:
            session.execute(sa.update(Attempt).values(external_id=None))
        site.odd.does["read_callback"] = nameless(account)
        site.receive(site.callback(account))
        site.work()
        with site.runtime.database.transaction() as session:
            session.execute(sa.update(Attempt).values(external_id=account["id"]))
        for _ in range(4):
            site.after(10)

        assert site.job(job_id).status == "delivered"


def test_a_callback_that_names_the_tag_settles_an_unknown_outcome(site: Site) -> None:
    job_id = site.sent("0504")
    site.receive(site.callback(site.final_at_carrier(job_id)))
    site.rung = site.rung[::-1]

    site.work()

    assert site.story(job_id) == "QUEUED SUBMITTING UNCERTAIN RECONCILED SENT DELIVERED"
    assert {event.source for event in site.events(job_id)[3:]} == {"callback"}


def test_a_callback_revives_the_fax_of_a_vanished_worker(site: Site) -> None:
    job_id = site.fax("0044")
    site.odd.does["send"] = taken_and_gone
    with pytest.raises(Vanished):
        sending.attempt(site.runtime, job_id)
    site.receive(site.callback(site.final_at_carrier(job_id)))
    site.work()

    assert site.story(job_id) == "QUEUED SUBMITTING SENT DELIVERED"
    site.after(61)
    assert site.at_carrier(job_id) == 1


def test_a_callback_that_belongs_to_no_fax_is_kept_and_marked_after_a_minute(site: Site) -> None:
    request = site.callback({"id": "sf_unknown", "tag": "fbunknown", "status": "delivered"})
    site.receive(request)

    tries = 0
    while stored(site)[0].applied_at is None and tries < 20:
        site.after(10)
        tries += 1

    (callback,) = stored(site)
    assert (callback.outcome, tries) == ("unmatched", 6)


def test_a_carrier_moves_its_own_faxes_only(site: Site) -> None:
    job_id = site.sent("0044")
    account = site.final_at_carrier(job_id)
    with site.runtime.database.transaction() as session:
        session.execute(sa.update(Attempt).values(provider_id="other"))
    for tag in (account["tag"], None):
        site.receive(site.callback(account, tag=tag))
    for _ in range(7):
        site.after(10)

    assert site.job(job_id).status == "sent"
    assert [callback.outcome for callback in stored(site)] == ["unmatched"] * 2


# Nonsense -----------------------------------------------------------------------------------------

SECRET = "+15559998877 Jane Doe"
UNREADABLE: tuple[Deed, ...] = (
    raises(ValueError(SECRET)),
    raises(RecursionError(SECRET)),
    answers(None),
    answers([None]),
    answers([news(state=State.DELIVERED, tag=5)]),
    answers([Update(State.DELIVERED, external_id="x" * 256)]),
    answers([news(state="delivered", tag="x")]),
    answers(5),
)


def test_a_callback_nobody_can_read_is_kept_and_not_asked_about_at_once(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    for number, deed in enumerate(UNREADABLE):
        site.odd.does["read_callback"] = deed
        site.receive(site.signed(b'{"n": %d}' % number))
        site.work()
    for body in (b"", b"null", b"[]", b"\xff", b'{"fax": {"id": 5}}', b"[" * 100_000):
        site.odd.does.pop("read_callback", None)
        site.receive(site.signed(body))
        site.work()

    kept = stored(site)
    assert [callback.outcome for callback in kept] == ["unreadable"] * len(kept)
    assert len(kept) == len(UNREADABLE) + 6
    assert callbacks.announce_waiting(site.runtime) == 0
    assert "Jane" not in caplog.text + repr([vars(record) for record in caplog.records])


def test_a_callback_that_its_carrier_cannot_confirm_now_is_read_again_later(site: Site) -> None:
    job_id = site.sent("0044")
    site.odd.does["read_callback"] = raises(Unreachable("away"))
    site.receive(site.callback(site.final_at_carrier(job_id)))
    site.work()
    site.after(20)

    (callback,) = stored(site)
    assert (callback.outcome, callback.applied_at, callback.tries) == (None, None, 2)
    assert site.job(job_id).status == "sent"

    del site.odd.does["read_callback"]
    site.after(60)
    assert [callback.outcome for callback in stored(site)] == ["applied"]
    assert site.job(job_id).status == "delivered"


def test_one_about_an_attempt_that_is_never_confirmed_is_given_up_after_a_day(site: Site) -> None:
    """Its fax is polled."""
    address = addresses.of_callbacks(site.runtime, site.attempt(site.sent("0044")))
    site.odd.does["read_callback"] = raises(Unreachable("away"))
    site.receive(replace(site.signed(b"{}"), url=address))
    site.work()
    for _ in range(23):
        site.after(3600)
    assert [callback.outcome for callback in stored(site)] == [None]

    site.after(3600)
    site.after(3600)
    assert [callback.outcome for callback in stored(site)] == ["unreadable"]


def test_a_callback_without_news_is_done_with(site: Site) -> None:
    site.odd.does["read_callback"] = answers([])
    site.receive(site.signed(b"{}"))

    site.work()

    assert stored(site)[0].outcome == "nothing"


def test_a_provider_that_takes_no_callbacks_gets_none(
    store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    with open_site(store, carrier_of_all, without=["status_callback"]) as site:
        with pytest.raises(NotFound):
            site.receive(site.signed(b"{}"))
        assert stored(site) == []


def plugin_gone(runtime: Runtime) -> Runtime:
    """Its package is not installed any more."""
    nothing = Plugins((), (), environ={}, make_context=lambda *_: pytest.fail("nobody starts"))
    return replace(runtime, plugins=nothing)


def key_gone(runtime: Runtime) -> Runtime:
    """The master key is another one, which does not open what was sealed before."""
    return replace(runtime, keyring=Keyring({"other": bytes(32)}, "other"))


@pytest.mark.parametrize("lacking", [plugin_gone, key_gone])
def test_a_callback_waits_while_its_plugin_or_its_key_is_gone_and_is_applied_when_it_is_back(
    site: Site, lacking: Callable[[Runtime], Runtime]
) -> None:
    job_id = site.sent("0044")
    site.receive(site.callback(site.final_at_carrier(job_id)))
    whole = site.runtime

    site.runtime = lacking(whole)
    for tries in (1, 2):
        site.work()
        (callback,) = stored(site)
        assert (callback.outcome, callback.applied_at, callback.tries) == (None, None, tries)
        assert callback.next_at is not None
        assert callback.next_at > site.now
        site.now = callback.next_at
        assert callbacks.announce_waiting(site.runtime) == 1

    site.runtime = whole
    site.work()
    assert site.story(job_id) == "QUEUED SUBMITTING SENT DELIVERED"
    assert stored(site)[0].outcome == "applied"
