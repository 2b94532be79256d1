"""Who is told of an event: each subscriber once, with the event itself, and of nothing that is personal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from faxbot import actors, fanout, jobs, sending, webhooks
from faxbot.errors import InvalidFields
from faxbot.events import Event, Status
from faxbot.fanout import LOOK_EVERY, RING_EVERY, TASK, TOO_OLD, Subscriptions
from faxbot.models import Job, WebhookDelivery
from faxbot.results import record_event
from tests.carrier import SimulatorProcess
from tests.installation import Installation
from tests.integration.hooks import HERE, rows, subscribe
from tests.integration.site import ACTOR, Site, number, open_site
from tests.integration.web import opened

NOWHERE = "http://127.0.0.1:9999/hook"
OTHER = replace(ACTOR, account_id="other")


@pytest.fixture
def site(store: Installation, carrier_of_all: SimulatorProcess) -> Iterator[Site]:
    with open_site(store, carrier_of_all, **HERE) as site:
        yield site


def told(site: Site, webhook_id: str) -> list[str]:
    """The types of the events that are to be sent there, in order."""
    return [row.type.removeprefix("FAX_") for row in rows(site.runtime, webhook_id)]


def test_every_event_of_a_fax_becomes_one_delivery_for_each_subscriber(site: Site) -> None:
    one, other = (subscribe(site.runtime, NOWHERE)[0] for _ in range(2))
    job_id = site.sent()
    jobs.cancel(site.runtime, ACTOR, job_id)
    site.receive(site.callback(site.final_at_carrier(job_id)))
    site.rung = [each for each in site.rung if each[0] != TASK]
    site.work()

    assert site.story(job_id) == " ".join(told(site, one)) == " ".join(told(site, other))
    assert len(told(site, one)) >= 5
    found = rows(site.runtime)
    assert len({row.id for row in found}) == len(found)
    assert {row.fax_id for row in found} == {job_id}


def test_what_is_sent_is_fixed_then_and_holds_nothing_else(site: Site) -> None:
    webhook_id, _ = subscribe(site.runtime, NOWHERE)
    to = number()
    job_id = site.submit(to, header="Practice of Dr. Zyzzyva", tags={"patient": "Doe"}).job_id
    sending.attempt(site.runtime, job_id)
    (queued, *others) = rows(site.runtime, webhook_id)
    (event, *_) = site.events(job_id)

    assert json.loads(queued.body) == {
        "type": "FAX_QUEUED",
        "timestamp": event.occurred_at.isoformat().replace("+00:00", "Z"),
        "data": {
            "fax_id": job_id, "sequence": 1, "status": "queued", "provider_id": None, "attempt": None, "pages": 1,
            "pages_sent": None, "cause": None,
        },
    }  # fmt: skip
    assert len(others) >= 2
    for row in (queued, *others):
        assert set(json.loads(row.body)["data"]) == set(fanout.BODY)
        assert to[2:] not in row.body
        assert "Zyzzyva" not in row.body
        assert "Doe" not in row.body


def test_it_is_told_only_of_what_it_asked_for_and_of_its_own_account(site: Site) -> None:
    some, _ = subscribe(site.runtime, NOWHERE, "FAX_SENT", "FAX_DELIVERED")
    others, _ = subscribe(site.runtime, NOWHERE, account_id="other")
    pending, _ = subscribe(site.runtime, NOWHERE, active=False)
    site.sent()
    site.submit(number(), actor=OTHER)

    assert told(site, some) == ["SENT"]
    assert told(site, others) == ["QUEUED"]
    assert told(site, pending) == []


def test_what_is_taken_back_is_told_to_nobody(site: Site) -> None:
    subscribe(site.runtime, NOWHERE)
    with pytest.raises(InvalidFields):
        site.submit(number(), provider_id="nobody")
    job_id = site.submit(number()).job_id
    site.rung.clear()

    def broken() -> None:
        with site.runtime.database.transaction() as session:
            cancel = {"status": Status.CANCELLED, "now": site.now, "source": "api"}
            record_event(session, session.get_one(Job, job_id), Event.CANCELLED, **cancel)  # type: ignore[arg-type]
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()

    assert site.story(job_id) == "QUEUED"
    assert [row.type for row in rows(site.runtime)] == ["FAX_QUEUED"]
    assert site.rung == []


def test_who_delivers_is_woken_after_the_commit_and_once_for_many(
    site: Site, store: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def ring(_task: str, _row_id: str) -> bool:
        with opened(store) as runtime:
            seen.append(len(rows(runtime)))
        return True

    time = [0.0]
    monkeypatch.setattr(fanout.of(site.runtime.database), "_ring", ring)
    monkeypatch.setattr(fanout.of(site.runtime.database), "_clock", lambda: time[0])
    subscribe(site.runtime, NOWHERE)
    for _ in range(5):
        site.submit(number())
    assert seen == [1]
    time[0] += RING_EVERY
    site.submit(number())

    assert seen == [1, 6]


def test_an_event_that_nobody_wants_costs_a_look_now_and_then(site: Site) -> None:
    asked: list[str] = []

    def executed(_c: Any, _cursor: Any, text: str, *_: Any) -> None:
        if "webhook" in text:
            asked.append(text)

    for engine in (site.runtime.database.engine, site.runtime.database.reader):
        sa.event.listen(engine, "after_cursor_execute", executed)
    time = [0.0]
    subscriptions = Subscriptions(site.runtime.database, site.runtime.ring, lambda: time[0])
    site.runtime.database.engine.update_execution_options(faxbot_subscriptions=subscriptions)
    for _ in range(20):
        site.submit(number())

    assert len(asked) == 1
    time[0] += LOOK_EVERY
    site.submit(number())
    site.submit(number())
    assert len(asked) == 2
    assert site.count(WebhookDelivery) == 0


def test_while_one_thread_looks_the_others_go_by_what_is_known_also_if_that_is_nobody(
    site: Site,
) -> None:
    time = [0.0]
    subscriptions = Subscriptions(site.runtime.database, site.runtime.ring, lambda: time[0])
    assert subscriptions.of("default", "FAX_SENT") == []
    time[0] += (LOOK_EVERY + TOO_OLD) / 2
    with subscriptions._lock:  # as while that thread waits for the database
        assert subscriptions.of("default", "FAX_SENT") == []


def test_a_change_of_another_process_is_known_within_five_seconds(
    site: Site, store: Installation
) -> None:
    time = [0.0]
    assert max(LOOK_EVERY, TOO_OLD) < 5
    here = Subscriptions(site.runtime.database, site.runtime.ring, lambda: time[0])
    assert here.of("default", "FAX_SENT") == []
    with opened(store) as elsewhere:
        actor, now = actors.CLI, elsewhere.now()
        elsewhere = replace(elsewhere, config=site.runtime.config)
        webhook_id, _ = subscribe(elsewhere, NOWHERE)
        time[0] += LOOK_EVERY
        assert here.of("default", "FAX_SENT") == [webhook_id]
        webhooks.delete(elsewhere, actor, webhook_id)
        assert now <= elsewhere.now()
        time[0] += LOOK_EVERY

    assert here.of("default", "FAX_SENT") == []


def test_a_fax_that_was_received_is_told_by_its_own_id(site: Site) -> None:
    """Its event has that in the place of a job's."""
    webhook_id, _ = subscribe(site.runtime, NOWHERE, "FAX_QUEUED")
    job_id = site.submit(number()).job_id
    (event,) = site.events(job_id)
    values = {each.key: getattr(event, each.key) for each in type(event).__table__.columns}
    received = {**values, "job_id": "1" * 32, "sequence": 1}
    with site.runtime.database.writing() as connection:
        fanout.fan_out(connection, received)

    found = {
        row.fax_id: json.loads(row.body)["data"]["fax_id"] for row in rows(site.runtime, webhook_id)
    }
    assert found == {job_id: job_id, "1" * 32: "1" * 32}


def test_what_is_to_be_sent_lies_there_before_anybody_is_told(
    site: Site, store: Installation
) -> None:
    """The delivery is written with the event: whoever dies in between loses nothing (C11)."""
    subscribe(site.runtime, NOWHERE)
    seen: list[tuple[int, int]] = []

    def both() -> None:
        with opened(store) as runtime:
            (events,) = runtime.database.rows(sa.text("SELECT count(*) AS n FROM events"), {})
            seen.append((events.n, len(rows(runtime))))

    fanout.of(site.runtime.database).of("default", "FAX_QUEUED")  # it has looked already
    site.interrupt("INSERT INTO events", both)
    site.submit(number())

    assert seen == [(1, 1)]
