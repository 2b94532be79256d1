"""What comes of each try, and when the next one follows: with real receivers, and time in hand."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from faxbot import alarms, deliveries, doctor, replays, sweeps, webhooks
from faxbot.audit import Action
from faxbot.courier import REPLAY, Courier
from faxbot.crypto import Keyring
from faxbot.db import first_id, table, utcnow
from faxbot.deliveries import FAILING_FOR, IN_A_ROW, REST, SCHEDULE, next_wait
from faxbot.dialling import OUTCOMES, Answer
from faxbot.errors import NotFound, WebhookNotActive
from faxbot.models import AuditEvent, Webhook, WebhookDelivery, WebhookTry
from faxbot.replays import Filters
from tests.carrier import SimulatorProcess
from tests.ground import eventually
from tests.installation import Installation
from tests.integration.hooks import HERE, deliver, hook, rows, subscribe, tries
from tests.integration.site import ACTOR, Site, number, open_site
from tests.integration.web import opened
from tests.receiver import Heard, Receiver, verified

OTHER = replace(ACTOR, account_id="other")
HOUR = timedelta(hours=1)


@pytest.fixture
def site(store: Installation, carrier_of_all: SimulatorProcess) -> Iterator[Site]:
    with open_site(store, carrier_of_all, **HERE, FAXBOT_WEBHOOK_SECONDS="3") as site:
        yield site


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def fax(site: Site, **wish: Any) -> str:
    """One event: FAX_QUEUED."""
    return site.submit(number(), **wish).job_id


def until_next(site: Site) -> timedelta:
    """Go to the time of the next try; how long that was."""
    at: datetime = min(row.next_at for row in rows(site.runtime) if row.next_at is not None)
    for each in webhooks_of(site):
        at = max(at, each.rests_until or at)
    waited = at - site.now
    site.now = at
    return waited


def webhooks_of(site: Site) -> list[Webhook]:
    with site.runtime.database.reading() as session:
        return list(session.scalars(sa.select(Webhook)))


# The schedule -----------------------------------------------------------------------------------------


def test_ten_tries_in_some_75_hours_and_then_it_is_a_dead_letter(
    site: Site, receiver: Receiver
) -> None:
    receiver.does = lambda _: 500
    subscribe(site.runtime, receiver.url)
    fax(site)
    began, at = site.now, []
    deliver(site.runtime)
    while rows(site.runtime)[0].status == "waiting":
        at.append(until_next(site))
        deliver(site.runtime)

    assert [round(wait.total_seconds() / (1 + deliveries.STRETCH / 2) / planned, 1)
            for wait, planned in zip(at, SCHEDULE, strict=True)] == [1.0] * 9  # fmt: skip
    assert 75 * HOUR < site.now - began < 80 * HOUR
    (row,) = rows(site.runtime)
    assert (row.status, row.cause, row.tries, row.ended_at) == ("dead", "status", 10, site.now)
    assert len(receiver.heard) == 10
    assert set(receiver.ids) == {row.id}, "the same webhook-id on every try"
    assert len({heard.headers["webhook-signature"] for heard in receiver.heard}) == 10
    assert [(each.code, each.outcome) for each in tries(site.runtime)] == [(500, "status")] * 10


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=9, max_size=9))
def test_the_waits_add_up_to_75_hours_and_a_little_whatever_chance_says(luck: list[float]) -> None:
    answer = Answer("timeout", 15.0)
    waits = [next_wait(tried, answer, luck[tried]) for tried in range(9)]
    total = sum((wait for wait in waits if wait is not None), timedelta())

    assert 75 * HOUR <= total <= 80 * HOUR
    assert next_wait(9, answer, 0.5) is None
    for wait, planned in zip(waits, SCHEDULE, strict=True):
        assert wait is not None
        assert planned <= wait.total_seconds() <= planned * 1.05


def test_two_that_failed_together_are_not_tried_together() -> None:
    waits = {next_wait(4, Answer("status", 0.1, 500), luck / 10) for luck in range(10)}

    assert len(waits) == 10


@pytest.mark.parametrize(
    ("code", "asked", "wait"),
    [(503, "120", 120), (429, "3600", 3600), (500, "600", 600), (503, "1", 5), (503, "999999", 86_400),
     (503, "-5", 5), (503, "soon", 5), (301, "60", 60)],
)  # fmt: skip
def test_a_receiver_that_asks_to_wait_is_heeded_within_reason(
    site: Site, receiver: Receiver, code: int, asked: str, wait: int
) -> None:
    receiver.does = lambda _: (code, {"Retry-After": asked, "Location": "http://127.0.0.1:1/"})
    webhook_id, _ = subscribe(site.runtime, receiver.url)
    fax(site)
    deliver(site.runtime)
    (row,) = rows(site.runtime)

    assert wait <= (row.next_at - site.now).total_seconds() <= wait * 1.06
    rests = hook(site.runtime, webhook_id).rests_until
    if code in (429, 503) and asked.isdigit():
        assert rests == site.now + min(timedelta(seconds=int(asked)), HOUR), "the others wait too"
    else:
        assert rests is None


def test_whatever_goes_wrong_is_a_try_with_its_class_and_no_word_of_the_receiver(
    site: Site, receiver: Receiver
) -> None:
    answers: list[Any] = [302, 404, (200, {"X-Secret": "s3cret-answer"})]
    receiver.does = lambda _: answers.pop(0)
    subscribe(site.runtime, receiver.url)
    fax(site)
    for _ in range(3):
        deliver(site.runtime)
        if rows(site.runtime)[0].next_at:
            until_next(site)
    found = tries(site.runtime)

    assert [(each.code, each.outcome) for each in found] == [
        (302, "redirect"), (404, "status"), (200, "ok"),
    ]  # fmt: skip
    assert set(WebhookTry.__table__.columns.keys()) == {
        "id", "account_id", "delivery_id", "turn", "started_at", "duration_ms", "code", "outcome",
    }  # fmt: skip
    assert all(each.duration_ms >= 0 for each in found)
    assert "s3cret-answer" not in str(found)
    assert {each.outcome for each in found} <= set(OUTCOMES)


def test_a_receiver_that_hangs_or_is_not_there_costs_its_time_and_no_more(
    site: Site, receiver: Receiver
) -> None:
    receiver.does = receiver.hang
    subscribe(site.runtime, receiver.url)
    subscribe(site.runtime, "http://127.0.0.1:9999/")
    fax(site)
    deliver(site.runtime)

    assert {each.outcome for each in tries(site.runtime)} == {"timeout", "connection"}
    (slow,) = [each for each in tries(site.runtime) if each.outcome == "timeout"]
    assert 2900 < slow.duration_ms < 6000
    assert slow.code is None


def test_an_address_that_may_not_be_called_any_more_is_not_called(
    site: Site, receiver: Receiver
) -> None:
    subscribe(site.runtime, receiver.url)
    fax(site)
    deliver(replace(site.runtime, settings=Forbidding(site.runtime)))  # type: ignore[arg-type]

    assert receiver.heard == []
    assert [each.outcome for each in tries(site.runtime)] == ["not_allowed"]


class Forbidding:
    """Settings as another process would have them that allows no address of this machine."""

    def __init__(self, runtime: Any) -> None:
        self._snapshot = replace(
            runtime.settings.snapshot(), config=replace(runtime.config, webhook_networks="")
        )

    def snapshot(self) -> Any:
        return self._snapshot


# The endpoint -----------------------------------------------------------------------------------------


def test_410_ends_it_at_once_and_says_so_once(
    site: Site, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.does = lambda _: 410
    webhook_id, _ = subscribe(site.runtime, receiver.url)
    other = subscribe(site.runtime, "http://127.0.0.1:9999/")[0]
    for _ in range(3):
        fax(site)
    deliver(site.runtime)
    sweeps.run(site.runtime)
    ended = hook(site.runtime, webhook_id)

    assert (ended.state, ended.reason, ended.disabled_at) == ("disabled", "gone", site.now)
    assert len(receiver.heard) <= 3
    assert {row.status for row in rows(site.runtime, webhook_id)} == {"dead"}
    assert {row.status for row in rows(site.runtime, other)} == {"waiting"}
    said = audited(site, Action.WEBHOOK_DISABLED)
    assert [(row.object_id, row.actor, row.details) for row in said] == [
        (webhook_id, "worker", {"reason": "gone"})
    ]
    assert [record.message for record in caplog.records].count("webhook disabled") == 1
    fax(site)
    assert len(rows(site.runtime, webhook_id)) == 3, "nothing more is meant for it"


def audited(site: Site, action: Action) -> list[Any]:
    events = table(AuditEvent)
    query = sa.select(events).where(events.c.action == str(action)).order_by(events.c.id)
    return list(site.runtime.database.rows(query, {}))


def test_what_an_address_answers_is_not_held_against_the_one_that_took_its_place(
    site: Site, receiver: Receiver
) -> None:
    """The owner moves, and his old address says goodbye while the new one is being entered."""
    webhook_id, _ = subscribe(site.runtime, receiver.url)

    def moves(_: object) -> int:
        receiver.does = lambda _: 200  # it takes the test event
        webhooks.change(site.runtime, ACTOR, webhook_id, url=f"{receiver.url}/new")
        return 410

    site.now += timedelta(seconds=1)
    receiver.does = moves
    site.fax()
    deliver(site.runtime)
    moved = hook(site.runtime, webhook_id)
    assert (moved.state, moved.failures, moved.rests_until) == ("active", 0, None)


def test_an_endpoint_that_fails_rests_and_a_single_delivery_tries_it(
    site: Site, receiver: Receiver
) -> None:
    receiver.does = lambda _: 500
    webhook_id, _ = subscribe(site.runtime, receiver.url)
    for _ in range(40):
        fax(site)
    deliver(site.runtime)
    state = hook(site.runtime, webhook_id)
    assert IN_A_ROW <= len(receiver.heard) < IN_A_ROW + 8
    assert (state.failures, state.rests) == (len(receiver.heard), 1)
    assert state.rests_until == site.now + REST

    waits = []
    for _ in range(7):
        heard = len(receiver.heard)
        waits.append((hook(site.runtime, webhook_id).rests_until or site.now) - site.now)
        site.now += waits[-1]
        deliver(site.runtime)
        assert len(receiver.heard) == heard + 1
    assert [wait.total_seconds() for wait in waits] == [30, 60, 120, 240, 480, 600, 600]

    receiver.does = lambda _: 200
    site.now = (hook(site.runtime, webhook_id).rests_until or site.now) + timedelta(minutes=10)
    deliver(site.runtime)
    state = hook(site.runtime, webhook_id)
    assert (state.failures, state.rests, state.rests_until, state.failing_at) == (0, 0, None, None)
    assert {row.status for row in rows(site.runtime)} == {"delivered"}


def test_while_one_rests_the_others_are_delivered_to(site: Site, receiver: Receiver) -> None:
    with Receiver(lambda _: 500) as failing:
        subscribe(site.runtime, failing.url)
        well, _ = subscribe(site.runtime, receiver.url)
        for _ in range(20):
            fax(site)
        deliver(site.runtime)
        assert len(failing.heard) < 20
    assert [row.status for row in rows(site.runtime, well)] == ["delivered"] * 20


def test_five_days_of_nothing_but_failures_disable_it_with_one_notice(
    site: Site, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.does = lambda _: 500
    webhook_id, _ = subscribe(site.runtime, receiver.url)
    began = site.now
    while hook(site.runtime, webhook_id).state == "active":
        fax(site)
        deliver(site.runtime)
        site.now += timedelta(hours=6)
        assert site.now - began < FAILING_FOR + timedelta(days=1)
    for _ in range(3):
        sweeps.run(site.runtime)
        site.now += timedelta(minutes=10)

    assert site.now - began > FAILING_FOR
    assert hook(site.runtime, webhook_id).reason == "failing"
    assert len(audited(site, Action.WEBHOOK_DISABLED)) == 1
    assert [record.message for record in caplog.records].count("webhook disabled") == 1
    assert not [row for row in rows(site.runtime) if row.status == "waiting"]


def test_two_failures_with_a_week_in_between_disable_nothing(
    site: Site, receiver: Receiver
) -> None:
    answers = [500] * 2 + [200] * 100
    receiver.does = lambda _: answers.pop(0)
    webhook_id, _ = subscribe(site.runtime, receiver.url)
    fax(site)
    deliver(site.runtime)
    site.now += timedelta(days=7)
    deliver(site.runtime)

    assert hook(site.runtime, webhook_id).state == "active"
    site.now += timedelta(days=1)
    deliver(site.runtime)
    assert rows(site.runtime)[0].status == "delivered"


def test_one_that_is_disabled_is_an_alarm_until_somebody_has_looked(
    site: Site, receiver: Receiver
) -> None:
    receiver.does = lambda _: 410
    webhook_id, _ = subscribe(site.runtime, receiver.url)
    fax(site)
    deliver(site.runtime)
    (alarm,) = alarms.raised(site.runtime)
    assert (alarm.code, alarm.count) == ("webhooks", 1)
    assert "test" in alarm.detail

    receiver.does = lambda _: 200
    webhook, answer, activated = webhooks.send_test(site.runtime, ACTOR, webhook_id)
    assert (webhook.state, answer.ok, activated) == ("active", True, True)
    assert alarms.raised(site.runtime) == []


@pytest.mark.parametrize("part", ["url_sealed", "secret_sealed"])
def test_one_that_another_master_key_has_sealed_is_an_alarm_that_names_the_setting_and_nothing_of_it_is_lost(
    site: Site, receiver: Receiver, part: str
) -> None:
    webhook_id, _ = subscribe(site.runtime, receiver.url)
    subscribe(site.runtime, receiver.url)
    fax(site)
    other = Keyring({"other": secrets.token_bytes(32)}).seal(b"whsec_AAAA", f"webhooks.{part}")
    sealed = getattr(hook(site.runtime, webhook_id), part)
    change(site, webhook_id, part, other)
    with closing(Courier(site.runtime)) as courier:
        courier.wake()
        eventually(lambda: len(receiver.heard) == 1)

    (alarm,) = alarms.raised(site.runtime)
    assert (alarm.code, alarm.count) == ("webhooks_sealed", 1)
    assert "CONFIG_MASTER_KEY" in alarm.detail
    found = {each.name: each for each in doctor.examine(site.runtime.config, site.runtime)}
    assert (found["webhooks"].ok, found["webhooks"].setting) == (False, "CONFIG_MASTER_KEY")
    assert [row.webhook_id for row in rows(site.runtime) if row.status == "waiting"] == [webhook_id]

    change(site, webhook_id, part, sealed)
    assert alarms.raised(site.runtime) == []
    site.now += timedelta(seconds=site.runtime.config.lease_seconds + 1)
    deliver(site.runtime)
    assert len(receiver.heard) == 2


def change(site: Site, webhook_id: str, part: str, value: bytes) -> None:
    with site.runtime.database.transaction() as session:
        setattr(session.get_one(Webhook, webhook_id), part, value)


# Crashes, and several at once ------------------------------------------------------------------------


def test_what_was_taken_and_not_written_is_sent_again_with_the_same_id(
    site: Site, receiver: Receiver
) -> None:
    """A worker that dies between the answer and the commit (C12); its late writes are refused (C16)."""
    subscribe(site.runtime, receiver.url)
    fax(site)
    (target,) = deliveries.claim(site.runtime, 10, 10)
    (row,) = deliveries.due(site.runtime, target, [], 10)
    assert deliveries.claim(site.runtime, 10, 10) == [], "it is taken"
    deliver_nothing(site)
    assert receiver.heard == []

    site.now += timedelta(seconds=site.runtime.config.lease_seconds + 1)
    deliver(site.runtime)
    assert receiver.ids == [row.id]
    late = deliveries.Tried(target, row, site.now, Answer("status", 0.1, 500))
    assert deliveries.conclude(site.runtime, [late]) == {}
    assert [each.outcome for each in tries(site.runtime)] == ["ok"]
    assert rows(site.runtime)[0].status == "delivered"
    assert deliveries.prolong(site.runtime, [target]) == {}
    deliveries.release(site.runtime, target)


def deliver_nothing(site: Site) -> None:
    """A courier that has nothing to take."""
    with closing(Courier(site.runtime)) as courier:
        courier.wake()


def test_many_couriers_at_once_send_each_delivery_once(
    site: Site, store: Installation, receiver: Receiver
) -> None:
    others = [Receiver() for _ in range(3)]
    for each in (receiver, *others):
        subscribe(site.runtime, each.url)
    for _ in range(60):
        fax(site)
    with opened(store) as two, opened(store) as three:
        now, config = site.runtime.now, site.runtime.config
        runtimes = [site.runtime, *(replace(r, now=now, config=config) for r in (two, three))]
        for one in runtimes[1:]:
            one.settings._known = site.runtime.settings.snapshot()
        threads = [threading.Thread(target=deliver, args=(one,)) for one in runtimes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for other in others:
        other.__exit__()

    assert {each.outcome for each in tries(site.runtime)} == {"ok"}
    for each in (receiver, *others):
        assert len(each.ids) == len(set(each.ids)) == 60
    assert {row.status for row in rows(site.runtime)} == {"delivered"}
    assert len(tries(site.runtime)) == 240


def test_what_becomes_due_while_another_process_has_the_endpoint_is_not_forgotten(
    site: Site, receiver: Receiver
) -> None:
    first, second = threading.Event(), threading.Event()

    def slow(heard: Heard) -> int:
        if heard.event["data"]["sequence"] == 1 and not first.is_set():
            first.set()
            second.wait(20)
        return 200

    receiver.does = slow
    subscribe(site.runtime, receiver.url)
    fax(site)
    with closing(Courier(site.runtime)) as courier:
        courier.wake()
        assert first.wait(20)
        fax(site)
        second.set()
        eventually(lambda: len(receiver.heard) == 2)
        eventually(lambda: {row.status for row in rows(site.runtime)} == {"delivered"})


def test_the_sweep_wakes_who_delivers_only_where_something_is_due(
    site: Site, receiver: Receiver
) -> None:
    subscribe(site.runtime, receiver.url)
    site.sweep()
    assert deliveries.announce_due(site.runtime) == 0
    fax(site)
    site.rung.clear()
    assert deliveries.announce_due(site.runtime) == 1
    assert site.rung == [("faxbot.deliver_webhooks", "due")]
    site.work()
    assert deliveries.announce_due(site.runtime) == 0
    assert receiver.said == ["1 QUEUED"]


def test_what_one_fax_did_arrives_in_its_order(site: Site, receiver: Receiver) -> None:
    subscribe(site.runtime, receiver.url)
    ids = [site.sent() for _ in range(12)]
    deliver(site.runtime)

    for job_id in ids:
        of_fax = [h for h in receiver.heard if h.event["data"]["fax_id"] == job_id]
        assert [h.event["data"]["sequence"] for h in of_fax] == [1, 2, 3]


# Signatures -------------------------------------------------------------------------------------------


def test_what_arrives_is_verified_by_somebody_elses_verifier(
    site: Site, receiver: Receiver
) -> None:
    site.now = utcnow()  # the verifier goes by the real time
    _, secret = subscribe(site.runtime, receiver.url)
    fax(site)
    deliver(site.runtime)
    (heard,) = receiver.heard

    assert verified(heard, secret) == heard.event
    assert heard.headers["content-type"] == "application/json"
    with pytest.raises(Exception, match="signature"):
        verified(heard, webhooks.new_secret())
    with pytest.raises(Exception, match="signature"):
        verified(replace(heard, body=heard.body.replace(b"1", b"2")), secret)


def test_while_a_secret_is_rotated_both_sign_and_later_the_new_one_alone(
    site: Site, receiver: Receiver
) -> None:
    webhook_id, old = subscribe(site.runtime, receiver.url)
    with site.runtime.database.transaction() as session:
        _, new = webhooks.rotate(
            session, site.runtime.keyring, ACTOR, webhook_id, overlap=24 * HOUR, now=site.now
        )
    fax(site)
    deliver(site.runtime)
    both = receiver.heard[-1]
    assert verified(both, old) == verified(both, new)
    assert len(both.headers["webhook-signature"].split(" ")) == 2

    site.now += 24 * HOUR + timedelta(seconds=1)
    deliveries.tidy(site.runtime)
    assert hook(site.runtime, webhook_id).old_secret_sealed is None
    fax(site)
    deliver(site.runtime)
    assert len(receiver.heard[-1].headers["webhook-signature"].split(" ")) == 1


# Replays ----------------------------------------------------------------------------------------------


def test_a_replay_is_a_delivery_of_its_own_with_the_same_id(site: Site, receiver: Receiver) -> None:
    subscribe(site.runtime, receiver.url)
    fax(site)
    deliver(site.runtime)
    (row,) = rows(site.runtime)
    for _ in range(2):
        replays.replay(site.runtime, ACTOR, row.id)
        deliver(site.runtime)

    assert receiver.ids == [row.id] * 3
    assert [heard.headers.get(REPLAY) for heard in receiver.heard] == [None, "1", "2"]
    assert [each.turn for each in tries(site.runtime)] == [0, 1, 2]
    (row,) = rows(site.runtime)
    assert (row.status, row.turn, row.replays) == ("delivered", 2, 2)


def test_two_replays_in_a_row_are_two_deliveries(site: Site, receiver: Receiver) -> None:
    subscribe(site.runtime, receiver.url)
    fax(site)
    deliver(site.runtime)
    (row,) = rows(site.runtime)
    for _ in range(3):
        replays.replay(site.runtime, ACTOR, row.id)
    deliver(site.runtime)

    assert receiver.ids == [row.id] * 4


def test_a_replay_while_the_one_before_is_under_way_is_not_swallowed(
    site: Site, receiver: Receiver
) -> None:
    subscribe(site.runtime, receiver.url)
    fax(site)

    def again(_heard: Heard) -> int:
        if len(receiver.heard) == 1:
            (row,) = rows(site.runtime)
            replays.replay(site.runtime, ACTOR, row.id)
        return 200

    receiver.does = again
    deliver(site.runtime)

    assert len(receiver.heard) == 2
    assert {row.status for row in rows(site.runtime)} == {"delivered"}


def test_a_replay_between_two_tries_is_tried_at_once_and_begins_the_schedule_anew(
    site: Site, receiver: Receiver
) -> None:
    receiver.does = lambda _: 500
    subscribe(site.runtime, receiver.url)
    fax(site)
    for _ in range(3):
        deliver(site.runtime)
        until_next(site)
    (row,) = rows(site.runtime)
    assert row.tries == 3
    site.now -= timedelta(seconds=1)
    replays.replay(site.runtime, ACTOR, row.id)
    deliver(site.runtime)

    (row,) = rows(site.runtime)
    assert len(receiver.heard) == 4
    assert (row.tries, row.turn) == (1, 1)
    assert (row.next_at - site.now).total_seconds() < 6


def test_the_dead_are_kept_for_a_month_and_can_be_sent_again(
    site: Site, receiver: Receiver
) -> None:
    receiver.does = lambda _: 500
    webhook_id, _ = subscribe(site.runtime, receiver.url)
    fax(site)
    while True:
        deliver(site.runtime)
        if rows(site.runtime)[0].status == "dead":
            break
        until_next(site)
    site.now += timedelta(days=30) - timedelta(minutes=1)
    site.purge()
    receiver.does = lambda _: 200
    assert replays.replay_all(site.runtime, ACTOR, webhook_id, Filters(status="dead")) == {
        "count": 1, "next": None,
    }  # fmt: skip
    deliver(site.runtime)
    assert rows(site.runtime)[0].status == "delivered"

    site.now += timedelta(days=30, minutes=1)
    site.purge()
    assert rows(site.runtime) == []
    assert tries(site.runtime) == []


def test_a_filter_and_a_range_say_what_is_sent_again(site: Site, receiver: Receiver) -> None:
    webhook_id, _ = subscribe(site.runtime, receiver.url)
    early = site.sent()
    site.now += HOUR
    middle, noon = site.sent(), site.now
    site.now += HOUR
    site.sent()
    deliver(site.runtime)

    def again(**which: Any) -> list[tuple[str, str]]:
        receiver.heard.clear()
        replays.replay_all(site.runtime, ACTOR, webhook_id, Filters(**which))
        deliver(site.runtime)
        return [(h.event["data"]["fax_id"], h.said) for h in receiver.heard]

    assert again(fax_id=early, type="FAX_SENT") == [(early, "3 SENT")]
    assert {fax_id for fax_id, _ in again(since=noon, until=noon + HOUR)} == {middle}
    assert len(again(since=noon)) == 6
    assert len(again(until=noon)) == 3
    assert len(again(type="FAX_QUEUED")) == 3
    assert again(status="dead") == []
    everything = again()
    assert len(everything) == 9
    for each in (early, middle):
        said = [one for fax_id, one in everything if fax_id == each]
        assert said == sorted(said), "those of one fax come in their order"


def test_many_are_sent_again_in_pieces_and_none_is_left_out(
    site: Site, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replays, "SOME", 4)
    monkeypatch.setattr(replays, "MOST", 8)
    webhook_id, _ = subscribe(site.runtime, receiver.url)
    for _ in range(22):
        fax(site)
    deliver(site.runtime)
    counts, cursor = [], None
    while True:
        done = replays.replay_all(site.runtime, ACTOR, webhook_id, Filters(), cursor=cursor)
        counts.append(done["count"])
        if (cursor := done["next"]) is None:
            break
    deliver(site.runtime)

    assert counts == [8, 8, 6]
    assert sorted(receiver.ids) == sorted([row.id for row in rows(site.runtime)] * 2)
    said = audited(site, Action.WEBHOOK_REPLAYED)
    assert sum(row.details["count"] for row in said) == 22


def test_what_is_not_ones_own_is_not_there_and_what_is_disabled_gets_nothing(
    site: Site, receiver: Receiver
) -> None:
    receiver.does = lambda _: 410
    webhook_id, _ = subscribe(site.runtime, receiver.url)
    fax(site)
    deliver(site.runtime)
    (row,) = rows(site.runtime)
    for actor, delivery_id in ((OTHER, row.id), (ACTOR, "msg_" + "0" * 32)):
        with pytest.raises(NotFound):
            replays.replay(site.runtime, actor, delivery_id)
    with pytest.raises(NotFound):
        replays.replay_all(site.runtime, OTHER, webhook_id, Filters())
    with pytest.raises(WebhookNotActive):
        replays.replay(site.runtime, ACTOR, row.id)
    with pytest.raises(WebhookNotActive):
        replays.replay_all(site.runtime, ACTOR, webhook_id, Filters())


# What is deleted --------------------------------------------------------------------------------------


def test_a_deleted_one_leaves_nothing_and_a_late_event_does_no_harm(
    site: Site, receiver: Receiver
) -> None:
    webhook_id, _ = subscribe(site.runtime, receiver.url)
    fax(site)
    known = site.runtime.database.engine.get_execution_options()["faxbot_subscriptions"]
    known.of("default", "FAX_QUEUED")
    webhooks.delete(site.runtime, ACTOR, webhook_id)
    # A process that has not looked since.
    known._known, known._looked_at = {"default": [(webhook_id, frozenset())]}, known._clock()
    fax(site)
    deliver(site.runtime)
    assert receiver.heard == []
    sealed = hook(site.runtime, webhook_id)
    assert (sealed.url_sealed, sealed.secret_sealed, sealed.old_secret_sealed) == (None, None, None)

    deliveries.tidy(site.runtime)
    assert site.count(WebhookDelivery) == 0
    site.now += HOUR
    deliveries.tidy(site.runtime)
    assert site.count(Webhook) == 0


def test_nothing_of_an_address_or_a_secret_is_in_a_log(
    site: Site, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    token = secrets.token_hex(16)
    receiver.does = lambda _: 500
    with caplog.at_level(logging.DEBUG):
        _, secret = subscribe(site.runtime, receiver.url.replace("s3cret", token))
        subscribe(site.runtime, f"http://nobody.invalid:8080/{token}")
        fax(site)
        deliver(site.runtime)
        sweeps.run(site.runtime)
    assert receiver.heard[0].path.endswith(token)
    for record in caplog.records:
        assert token not in str(record.__dict__)
        assert secret not in str(record.__dict__)
    with site.runtime.database.engine.connect() as connection:
        stored = [str(row) for row in connection.execute(sa.text("SELECT * FROM webhooks"))]
    assert not [text for text in stored if token in text or secret in text]


def test_the_order_of_ids_is_the_order_of_events(site: Site, receiver: Receiver) -> None:
    subscribe(site.runtime, receiver.url)
    for _ in range(5):
        fax(site)
        site.now += timedelta(seconds=1)
    found = [row.id for row in rows(site.runtime)]

    assert all(one < two for one, two in pairwise(found))
    assert found[-1] < f"msg_{first_id(site.now)}"
