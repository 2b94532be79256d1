"""The threads that deliver: one endpoint that hangs delays nobody, none gets too much at once, and what is under way
when a process ends, or its database is away, is not lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from faxbot import courier, deliveries, health, webhooks
from faxbot.courier import CALLS_EACH, MOST_CALLS, Courier
from faxbot.dialling import GONE, Answer
from faxbot.models import WebhookDelivery
from tests import certificates
from tests.carrier import SimulatorProcess
from tests.ground import eventually
from tests.installation import Installation
from tests.integration.hooks import HERE, deliver, hook, rows, subscribe, tries
from tests.integration.site import ACTOR, Site, number, open_site
from tests.misbehaving import OK, Server, answering
from tests.receiver import Heard, Receiver


@pytest.fixture
def site(store: Installation, carrier_of_all: SimulatorProcess) -> Iterator[Site]:
    with open_site(store, carrier_of_all, **HERE, FAXBOT_WEBHOOK_SECONDS="30") as site:
        yield site


@pytest.fixture
def receivers() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def faxes(site: Site, count: int) -> None:
    for _ in range(count):
        site.submit(number())


def statuses(site: Site, webhook_id: str) -> set[str]:
    return {row.status for row in rows(site.runtime, webhook_id)}


def test_an_endpoint_that_hangs_holds_one_call_and_delays_no_other(
    site: Site, receivers: ExitStack
) -> None:
    hanging = receivers.enter_context(Receiver())
    hanging.does = hanging.hang
    subscribe(site.runtime, hanging.url)
    others = [receivers.enter_context(Receiver()) for _ in range(5)]
    ids = [subscribe(site.runtime, each.url)[0] for each in others]
    faxes(site, 30)
    with closing(Courier(site.runtime)) as works:
        works.wake()
        eventually(lambda: all(len(each.heard) == 30 for each in others), 25)
        eventually(lambda: all(statuses(site, each) == {"delivered"} for each in ids), 25)
        assert len(hanging.heard) == 1, "it still hangs, and has got no second call"
        faxes(site, 5)
        works.wake()
        eventually(lambda: all(len(each.heard) == 35 for each in others), 25)
        assert len(hanging.heard) == 1
        hanging.over.set()


def test_more_that_hang_than_calls_at_once_keep_nobody_waiting_who_answers(
    site: Site, receivers: ExitStack
) -> None:
    hanging = receivers.enter_context(Receiver())
    hanging.does = hanging.hang
    hung = MOST_CALLS + 8
    for _ in range(hung):
        subscribe(site.runtime, hanging.url)
    others = [receivers.enter_context(Receiver()) for _ in range(5)]
    ids = [subscribe(site.runtime, each.url)[0] for each in others]
    faxes(site, 3)
    with closing(Courier(site.runtime)) as works:
        works.wake()
        eventually(lambda: all(statuses(site, each) == {"delivered"} for each in ids), 25)
        eventually(lambda: len(hanging.heard) == hung, 25)
        # Every place that there was is held by one that hangs; new events go to the others as before.
        faxes(site, 3)
        works.wake()
        eventually(lambda: all(len(each.heard) == 6 for each in others), 25)
        assert len(hanging.heard) == hung, "each hangs in its first call, and has got no second"
        hanging.over.set()


def test_those_that_hang_leave_the_others_as_many_calls_as_they_had(
    site: Site, receivers: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "SLOW", 0.5)
    hanging = receivers.enter_context(Receiver())
    hanging.does = hanging.hang
    for _ in range(MOST_CALLS):
        subscribe(site.runtime, hanging.url)
    lock, now, most = threading.Lock(), [0], [0]

    def counts(_heard: Heard) -> int:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.01)
        with lock:
            now[0] -= 1
        return 200

    well = receivers.enter_context(Receiver(counts))
    faxes(site, 1)
    with closing(Courier(site.runtime)) as works:
        works.wake()
        eventually(lambda: len(hanging.heard) == MOST_CALLS, 25)
        eventually(lambda: all(each.hangs() for each in list(works._endpoints.values())), 25)
        webhook_id, _ = subscribe(site.runtime, well.url)
        faxes(site, 40)
        works.wake()
        eventually(lambda: statuses(site, webhook_id) == {"delivered"}, 25)
        hanging.over.set()

    assert 1 < most[0] <= CALLS_EACH


def test_those_that_failed_before_have_places_of_their_own(
    site: Site, receivers: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "MOST_FAILING", 2)
    monkeypatch.setattr(courier, "MOST_ANSWERING", 3)
    hanging = receivers.enter_context(Receiver())
    hanging.does = hanging.hang
    for _ in range(6):
        subscribe(site.runtime, hanging.url)
    with site.runtime.database.transaction() as session:
        session.execute(sa.text("UPDATE webhooks SET failures = 1"))
    well = receivers.enter_context(Receiver())
    ids = [subscribe(site.runtime, well.url)[0] for _ in range(6)]
    faxes(site, 3)
    with closing(Courier(site.runtime)) as works:
        works.wake()
        eventually(lambda: all(statuses(site, each) == {"delivered"} for each in ids), 25)
        assert len(hanging.heard) == 2
        hanging.over.set()


def test_an_endpoint_gets_few_calls_at_once_and_as_many_again_only_when_it_takes_them(
    site: Site, receivers: ExitStack
) -> None:
    lock, now, most = threading.Lock(), [0], [0]

    def counts(_heard: Heard) -> int:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.01)
        with lock:
            now[0] -= 1
        return 200

    receiver = receivers.enter_context(Receiver(counts))
    subscribe(site.runtime, receiver.url)
    faxes(site, 80)
    deliver(site.runtime)

    assert 1 < most[0] <= CALLS_EACH
    assert len(receiver.heard) == 80


def test_one_that_takes_its_time_gets_one_call_at_a_time(
    site: Site, receivers: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "SLOW", 0.02)
    lock, now, most = threading.Lock(), [0], [0]

    def slow(_heard: Heard) -> int:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.05)
        with lock:
            now[0] -= 1
        return 200

    receiver = receivers.enter_context(Receiver(slow))
    subscribe(site.runtime, receiver.url)
    faxes(site, 10)
    deliver(site.runtime)

    assert (most[0], len(receiver.heard)) == (1, 10)


def test_a_system_that_gives_no_thread_only_costs_time(
    site: Site, receivers: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "AFTER_FAULT", 0.05)
    start, refused = threading.Thread.start, list[str]()

    def starts(thread: threading.Thread) -> None:
        if thread.name == "call" and len(refused) < 3:
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", starts)
    receiver = receivers.enter_context(Receiver())
    subscribe(site.runtime, receiver.url)
    faxes(site, 5)
    deliver(site.runtime)

    assert len(refused) == 3
    assert len(set(receiver.ids)) == len(receiver.ids) == 5


def test_more_endpoints_than_threads_all_get_their_turn(site: Site, receivers: ExitStack) -> None:
    receiver = receivers.enter_context(Receiver())
    for _ in range(MOST_CALLS + 8):
        subscribe(site.runtime, receiver.url)
    faxes(site, 3)
    deliver(site.runtime)

    assert len(receiver.heard) == 3 * (MOST_CALLS + 8)
    assert len(set(receiver.ids)) == len(receiver.heard)


def test_who_is_woken_again_goes_on_and_ends_by_himself(
    site: Site, receivers: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "LINGER", 0.2)
    receiver = receivers.enter_context(Receiver())
    subscribe(site.runtime, receiver.url)
    with closing(Courier(site.runtime)) as works:
        for count in (1, 2, 3):
            faxes(site, 1)
            works.wake()
            eventually(lambda count=count: len(receiver.heard) == count)  # type: ignore[misc]
            eventually(lambda: works._thread is None, 5)


def test_a_process_that_ends_writes_what_is_done_and_gives_back_the_rest(
    site: Site, receivers: ExitStack
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(_heard: Heard) -> int:
        begun.set()
        go_on.wait(20)
        return 200

    receiver = receivers.enter_context(Receiver(slow))
    webhook_id, _ = subscribe(site.runtime, receiver.url)
    faxes(site, 5)
    works = Courier(site.runtime)
    works.wake()
    assert begun.wait(20)
    ending = threading.Thread(target=works.close)
    ending.start()
    assert works._ending.wait(5)
    go_on.set()
    ending.join()

    assert len(receiver.heard) == len(tries(site.runtime)) == 1
    assert sorted(row.status for row in rows(site.runtime)) == ["delivered", *["waiting"] * 4]
    assert hook(site.runtime, webhook_id).lease_until is None, "another one can go on at once"
    deliver(site.runtime)
    assert len(set(receiver.ids)) == len(receiver.ids) == 5


def test_what_was_done_while_the_database_was_away_is_written_later(
    site: Site, receivers: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "AFTER_FAULT", 0.05)
    failed: list[str] = []

    def away(_c: Any, _cursor: Any, text: str, *_: Any) -> None:
        if text.startswith("INSERT INTO webhook_tries") and len(failed) < 3:
            failed.append(text)
            raise sa.exc.OperationalError(text, {}, Exception("gone"))

    sa.event.listen(site.runtime.database.engine, "before_cursor_execute", away)
    receiver = receivers.enter_context(Receiver())
    subscribe(site.runtime, receiver.url)
    faxes(site, 3)
    deliver(site.runtime)

    assert len(failed) == 3
    assert len(set(receiver.ids)) == len(receiver.ids) == 3
    assert [each.outcome for each in tries(site.runtime)] == ["ok"] * 3


def test_a_delivery_that_the_ledger_does_not_know_any_more_keeps_no_other_waiting(
    site: Site, receivers: ExitStack
) -> None:
    """As after a restore beneath a worker that runs."""
    hanging, other = (receivers.enter_context(Receiver()) for _ in range(2))
    may = threading.Event()

    def waits(_heard: Heard) -> int:
        assert may.wait(60)
        return 200

    hanging.does = waits
    gone, _ = subscribe(site.runtime, hanging.url)
    stays, _ = subscribe(site.runtime, other.url)
    faxes(site, 1)
    with closing(Courier(site.runtime)) as works:
        works.wake()
        eventually(lambda: statuses(site, stays) == {"delivered"} and len(hanging.heard) == 1)
        with site.runtime.database.writing() as connection:
            connection.execute(sa.delete(WebhookDelivery).where(WebhookDelivery.webhook_id == gone))
        may.set()
        faxes(site, 3)
        works.wake()
        eventually(lambda: len(other.heard) == 4 and statuses(site, stays) == {"delivered"})
        eventually(lambda: statuses(site, gone) == {"delivered"})


@pytest.mark.parametrize("order", [1, -1], ids=["the unknown one last", "the unknown one first"])
def test_a_try_of_an_unknown_delivery_does_not_open_an_endpoint_that_another_one_has_closed(
    site: Site, order: int
) -> None:
    webhook_id, _ = subscribe(site.runtime, "http://127.0.0.1:9999/")
    faxes(site, 2)
    (target,) = deliveries.claim(site.runtime, 10, 10)
    known, unknown = deliveries.due(site.runtime, target, [], 10)
    with site.runtime.database.writing() as connection:
        connection.execute(sa.delete(WebhookDelivery).where(WebhookDelivery.id == unknown.id))
    gone = Answer(GONE, 0.1, 410)
    lot = [deliveries.Tried(target, row, site.now, gone) for row in (known, unknown)]

    standings = courier._written(site.runtime, lot[::order])
    assert not standings[webhook_id].open
    assert hook(site.runtime, webhook_id).state == webhooks.DISABLED


def test_one_that_is_deleted_while_it_is_called_gets_nothing_more(
    site: Site, receivers: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "LOOK_EVERY", 0.05)
    begun, go_on = threading.Event(), threading.Event()

    def slow(_heard: Heard) -> int:
        begun.set()
        go_on.wait(20)
        return 200

    receiver = receivers.enter_context(Receiver(slow))
    webhook_id, _ = subscribe(site.runtime, receiver.url)
    faxes(site, 20)
    with closing(Courier(site.runtime)) as works:
        works.wake()
        assert begun.wait(20)
        webhooks.delete(site.runtime, ACTOR, webhook_id)
        (endpoint,) = works._endpoints.values()
        eventually(lambda: not endpoint.open, 10)
        go_on.set()
        eventually(lambda: not works._endpoints, 10)

    assert len(receiver.heard) == 1
    deliveries.tidy(site.runtime)
    assert rows(site.runtime) == []


def test_on_an_endpoint_that_is_never_idle_an_old_secret_signs_to_its_end_and_no_longer(
    site: Site, receivers: ExitStack
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(_heard: Heard) -> int:
        begun.set()
        go_on.wait(20)
        return 200

    receiver = receivers.enter_context(Receiver(slow))
    webhook_id, _ = subscribe(site.runtime, receiver.url)
    left = timedelta(seconds=5)  # less than a lease
    with site.runtime.database.transaction() as session:
        webhooks.rotate(
            session, site.runtime.keyring, ACTOR, webhook_id, overlap=left, now=site.now
        )
    faxes(site, 2)
    with closing(Courier(site.runtime)) as works:
        works.wake()
        assert begun.wait(20)
        works._prolonged_at = time.monotonic() + 60  # it does not read the row again
        site.now += left
        go_on.set()
        eventually(lambda: len(receiver.heard) == 2)

    signatures = [each.headers["webhook-signature"].split() for each in receiver.heard]
    assert [len(each) for each in signatures] == [2, 1]


def test_a_process_that_sleeps_past_its_lease_changes_nothing_any_more(
    site: Site, receivers: ExitStack
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(_heard: Heard) -> int:
        if not begun.is_set():
            begun.set()
            go_on.wait(20)
            return 500
        return 200

    receiver = receivers.enter_context(Receiver(slow))
    webhook_id, _ = subscribe(site.runtime, receiver.url)
    faxes(site, 1)
    with closing(Courier(site.runtime)) as sleeper:
        sleeper.wake()
        assert begun.wait(20)
        sleeper._prolonged_at = time.monotonic() + 60  # its heart has stopped
        with site.runtime.database.transaction() as session:
            past = site.now - timedelta(seconds=1)
            session.execute(sa.text("UPDATE webhooks SET lease_until = :past"), {"past": past})
        with closing(Courier(site.runtime)) as other:
            other.wake()
            eventually(lambda: len(receiver.heard) == 2)
            eventually(lambda: statuses(site, webhook_id) == {"delivered"})
        go_on.set()
        eventually(lambda: not sleeper._endpoints, 10)

    assert len(set(receiver.ids)) == 1
    assert [each.outcome for each in tries(site.runtime)] == ["ok"], "its late word is refused"
    assert hook(site.runtime, webhook_id).failures == 0


def test_over_tls_it_goes_to_who_a_certificate_of_the_own_authority_vouches_for(
    store: Installation, carrier_of_all: SimulatorProcess, tmp_path: Path
) -> None:
    vouched, stranger = (
        certificates.certificate(tmp_path / f"{name}.pem", "127.0.0.1") for name in ("a", "b")
    )
    servers = [Server(answering(OK), certificates.serving(each)) for each in (vouched, stranger)]
    settings = {**HERE, "FAXBOT_WEBHOOK_CA_FILE": str(vouched)}
    with open_site(store, carrier_of_all, **settings) as site:
        ids = [subscribe(site.runtime, f"{each.url}/hook")[0] for each in servers]
        faxes(site, 3)
        deliver(site.runtime)
        found = [statuses(site, each) for each in ids]
    for server in servers:
        server.close()

    assert found == [{"delivered"}, {"waiting"}]
    assert (len(servers[0].requests), servers[1].requests) == (3, [])


def test_what_nobody_sends_makes_the_server_unfit_and_what_rests_does_not(site: Site) -> None:
    def fit() -> bool:
        return bool(health.ready(site.runtime)["parts"]["webhooks"]["ok"])

    webhook_id, _ = subscribe(site.runtime, "http://127.0.0.1:9999/")
    faxes(site, 1)
    site.now += timedelta(seconds=89)
    assert fit()
    site.now += timedelta(seconds=2)
    assert not fit()
    deliver(site.runtime)
    assert fit(), "it was tried, and waits for its next try"
    for _ in range(5):
        faxes(site, 1)
        deliver(site.runtime)
    assert hook(site.runtime, webhook_id).rests_until is not None
    assert fit()
