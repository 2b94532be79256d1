"""Retention: what is old goes, class by class and with proof; what is held, open or young stays; whoever dies in the
middle leaves what the next one finds."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from faxbot import (
    alarms,
    artifacts,
    copies,
    fetching,
    inbound,
    jobs,
    legalholds,
    posted,
    retention,
    sending,
)
from faxbot.config import Config
from faxbot.db import table
from faxbot.errors import (
    DatabaseAway,
    FaxRemoved,
    KeyReused,
    NotFound,
    NotPossibleNow,
    Refused,
    StorageAway,
    Unreachable,
)
from faxbot.models import (
    Artifact,
    Attempt,
    AuditEvent,
    Callback,
    Decision,
    FaxEvent,
    IdempotencyKey,
    InboundFax,
    Job,
    JobTag,
    LegalHold,
    ProvenStep,
    RetentionProof,
    RetentionRun,
    WebhookDelivery,
)
from faxbot.plugins.base import Context
from faxbot.purging import AT_ONCE, CLASSES, IN_A_ROW, _Asking
from faxbot.storage.local import LocalStorage
from tests.carrier import SimulatorProcess
from tests.installation import Installation
from tests.integration.hooks import HERE, subscribe
from tests.integration.odd import answers, raises
from tests.integration.site import ACTOR, Site, number, open_site
from tests.integration.test_arrivals import FROM, INBOUND, arrives, gives, said

DAY = timedelta(days=1)
RECEIVER = "http://127.0.0.1:1024/"
"""Nobody is there, and nobody is called."""


@pytest.fixture
def site(
    request: pytest.FixtureRequest, store: Installation, carrier_of_all: SimulatorProcess
) -> Iterator[Site]:
    """What a test gives are settings. Its carrier deletes no copies."""
    settings, none = getattr(request, "param", {}), ("deletes_copy",)
    with open_site(store, carrier_of_all, without=none, more=INBOUND, **settings) as site:
        yield site


@pytest.fixture
def able(store: Installation, carrier_of_all: SimulatorProcess) -> Iterator[Site]:
    """Its carrier can delete its copy."""
    with open_site(store, carrier_of_all) as site:
        assert site.runtime.plugins.manifest("simulator").has("deletes_copy")
        yield site


def settings(**given: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("site", [given], indirect=True)


def ended(site: Site, **wish: Any) -> str:
    """A fax that was delivered just now."""
    job_id = site.sent(**wish)
    site.final_at_carrier(job_id)
    site.after(600)
    assert site.job(job_id).status == "delivered"
    site.rung.clear()
    return job_id


def received(site: Site, name: str = "in-1") -> str:
    site.odd.does["document"] = gives()
    arrives(site, external_id=name, body=name.encode())
    site.work()
    return str(rows(site, InboundFax)[-1].id)


def rows(site: Site, model: type[Any]) -> list[Any]:
    return list(site.runtime.database.rows(sa.select(table(model)), {}))


def proofs(site: Site, run_id: str) -> dict[str, tuple[int, int, str]]:
    return {
        getattr(row, "class"): (row.expected, row.deleted, row.outcome)
        for row in rows(site, RetentionProof)
        if row.run_id == run_id
    }


def roles(site: Site) -> list[str]:
    return sorted(row.role for row in rows(site, Artifact))


# What goes, and when --------------------------------------------------------------------------------


def test_thirty_days_after_its_end_document_and_numbers_go_and_thirty_days_later_the_rest(
    site: Site,
) -> None:
    to = number()
    key = site.submit(to, key="one", header="Practice", tags={"case": "7"})
    job_id = key.job_id
    sending.attempt(site.runtime, job_id)
    site.final_at_carrier(job_id)
    site.after(600)
    assert site.job(job_id).status == "delivered"
    said_of_it = len(site.events(job_id))

    site.now += 30 * DAY - timedelta(minutes=2)
    site.purge()
    assert site.stored() > 0
    assert jobs.describe(site.runtime, site.job(job_id))["to"] == to

    site.now += timedelta(minutes=4)
    before = site.job(job_id).updated_at
    found = proofs(site, site.purge())
    assert found["document"] == (1, 1, "done")
    assert found["renditions"] == (1, 1, "done")
    assert found["numbers"][2] == "done"
    assert (site.stored(), roles(site)) == (0, [])
    job = site.job(job_id)
    assert (job.to_sealed, job.to_key, job.header_sealed) == (b"", "", None)
    assert job.updated_at == before, "nothing has happened to the fax"
    shown = jobs.describe(site.runtime, job)
    assert (shown["to"], shown["status"]) == (None, "delivered")
    told = site.events(job_id)
    assert [(each.type, each.reason) for each in told[said_of_it:]] == [
        ("FAX_PURGED", "document"),
        ("FAX_PURGED", "numbers"),
    ]
    site.add_up()
    assert rows(site, ProvenStep) == []

    again = site.submit(to, key="one", header="Practice", tags={"case": "7"})
    assert (again.replayed, again.job_id) == (True, job_id)
    assert json.loads(again.body) == shown, "the fax as it stands"

    site.now += 30 * DAY - timedelta(minutes=2)
    site.purge()
    assert len(site.events(job_id)) == said_of_it + 2
    site.now += timedelta(minutes=4)
    found = proofs(site, site.purge())
    assert found["events"] == (1, 1, "done")
    assert [rows(site, each) for each in (Job, FaxEvent, Attempt, JobTag)] == [[], [], [], []]
    assert rows(site, IdempotencyKey) == [], "it is older than 61 days"


def test_what_is_open_stays_however_old_it_is(site: Site) -> None:
    job_id = site.fax(send_at=site.now + timedelta(days=20))
    site.now += 80 * DAY
    found = proofs(site, site.purge())

    assert {name: each[:2] for name, each in found.items()} == dict.fromkeys(CLASSES, (0, 0))
    assert site.job(job_id).to_sealed
    assert "document" in roles(site)


@settings(
    ARTIFACT_TTL_DAYS="3",
    STORAGE_RETENTION_RENDITIONS_DAYS="1",
    STORAGE_RETENTION_NUMBERS_DAYS="10",
    STORAGE_RETENTION_EVENTS_DAYS="5",
)
def test_each_class_has_its_own_time(site: Site) -> None:
    job_id = ended(site)
    assert roles(site) == ["document", "pages"]
    site.now += timedelta(minutes=1)
    seen = []
    for _ in range(17):
        site.now += DAY
        site.purge()
        left = rows(site, Job)
        seen.append((roles(site), bool(left and left[0].to_sealed), bool(left)))

    assert seen[0] == (["document"], True, True)
    assert seen[1] == (["document"], True, True)
    assert seen[2:9] == [([], True, True)] * 7
    assert seen[9:14] == [([], False, True)] * 5
    assert seen[15:] == [([], False, False)] * 2
    with pytest.raises(NotFound):
        jobs.find(site.runtime, ACTOR, job_id)


@pytest.mark.parametrize(
    "site",
    [
        {"ARTIFACT_TTL_DAYS": "0"},
        {"STORAGE_RETENTION_NUMBERS_DAYS": "0"},
        {"STORAGE_RETENTION_RENDITIONS_DAYS": "0"},
    ],
    indirect=True,
)
def test_a_class_that_is_switched_off_is_kept_and_with_it_the_fax(site: Site) -> None:
    job_id = ended(site)
    off = {name for name, kept in retention.kept(site.runtime.config).items() if not kept}
    for _ in range(3):
        site.now += 100 * DAY
        found = proofs(site, site.purge())
    assert off - {"events"}
    assert "events" in off, "the rest of a fax never goes before what is kept of it"
    assert found.keys() == CLASSES.keys() - off
    assert site.job(job_id).status == "delivered"
    assert bool(site.job(job_id).to_sealed) is ("numbers" in off)
    assert ("document" in roles(site)) is ("document" in off)
    assert ("pages" in roles(site)) is ("renditions" in off)


def test_a_received_fax_goes_thirty_days_after_it_came_read_or_unread(site: Site) -> None:
    fax_id = received(site)
    told = [event.type for event in rows(site, FaxEvent)]
    assert (told, len(rows(site, Artifact))) == (["FAX_RECEIVED"], 1)
    site.now += 31 * DAY
    found = proofs(site, site.purge())

    assert found["inbound"] == (2, 2, "done"), "one document and one fax"
    assert (rows(site, Artifact), site.stored()) == ([], 0)
    fax = inbound.find(site.runtime, ACTOR, fax_id)
    shown = inbound.describe(site.runtime, fax)
    assert (shown["from"], shown["to"], shown["from_key"], shown["to_key"]) == (None,) * 4
    assert [(e.type, e.sequence) for e in rows(site, FaxEvent)] == [
        ("FAX_RECEIVED", 1),
        ("FAX_PURGED", 2),
    ]
    arrives(site, body=b"again")
    site.work()
    assert len(rows(site, InboundFax)) == 1, "a carrier that repeats itself makes no new one"

    site.now += 31 * DAY
    site.purge()
    assert (rows(site, InboundFax), rows(site, FaxEvent)) == ([], [])


def test_carriers_messages_go_and_their_large_bodies_and_not_one_that_waits(site: Site) -> None:
    site.odd.does["verify_callback"] = answers(True)
    site.odd.does["read_callback"] = answers([])
    large = site.runtime.config.spool_dir / "upload-large"
    large.parent.mkdir(parents=True, exist_ok=True)
    large.write_bytes(b"x" * 2_000_000)
    site.receive(said(b"one"))
    site.receive(said(file=large))
    site.work()
    assert [row.outcome for row in rows(site, Callback)] == ["nothing"] * 2
    site.receive(said(b"three"))
    site.rung.clear()
    site.now += 31 * DAY
    found = proofs(site, site.purge())

    (left,) = rows(site, Callback)
    assert left.applied_at is None
    assert found["callbacks"][2] == "done"
    assert found["callbacks"][0] >= 2
    assert (rows(site, Artifact), site.stored()) == ([], 0)


def test_a_key_is_good_for_at_least_as_long_as_its_fax(site: Site) -> None:
    to, upload = number(), site.upload()
    at = site.now + timedelta(days=20)
    first = site.submit(to, key="k", uploads=(upload,), send_at=at)
    site.now += 200 * DAY
    site.purge()
    with pytest.raises(KeyReused):
        site.submit(number(), key="k")
    assert rows(site, IdempotencyKey)[0].job_id == first.job_id


@settings(STORAGE_RETENTION_EVENTS_DAYS="1", ARTIFACT_TTL_DAYS="1", STORAGE_RETENTION_NUMBERS_DAYS="1",
          STORAGE_RETENTION_RENDITIONS_DAYS="1")  # fmt: skip
def test_a_key_whose_fax_is_gone_refuses_to_send_it_again(site: Site) -> None:
    to = number()
    first = site.submit(to, key="k")
    sending.attempt(site.runtime, first.job_id)
    site.final_at_carrier(first.job_id)
    site.after(600)
    for _ in range(3):
        site.now += 2 * DAY
        site.purge()
    assert rows(site, Job) == []
    with pytest.raises(FaxRemoved, match=first.job_id):
        site.submit(to, key="k")
    assert rows(site, Job) == []
    site.now += 60 * DAY
    site.purge()
    assert rows(site, IdempotencyKey) == []


@settings(**HERE)
def test_deliveries_of_webhooks_go_with_their_tries_and_those_that_wait_stay(site: Site) -> None:
    subscribe(site.runtime, RECEIVER)
    ended(site)
    waiting = rows(site, WebhookDelivery)
    assert waiting
    over = sa.update(table(WebhookDelivery)).where(table(WebhookDelivery).c.id != waiting[0].id)
    with site.runtime.database.writing() as connection:
        connection.execute(over.values(status="dead", ended_at=site.now, next_at=None))
    site.now += 29 * DAY
    assert proofs(site, site.purge())["webhooks"] == (0, 0, "done")
    site.now += 2 * DAY
    found = proofs(site, site.purge())["webhooks"]
    assert found == (len(waiting) - 1, len(waiting) - 1, "done")
    assert waiting[0].id in {row.id for row in rows(site, WebhookDelivery)}


@settings(**HERE)
def test_subscribers_are_told_that_something_was_purged(site: Site) -> None:
    job_id = ended(site)
    subscribe(site.runtime, RECEIVER)
    site.now += 31 * DAY
    site.purge()
    told = [(row.type, row.fax_id) for row in rows(site, WebhookDelivery)]
    assert told == [("FAX_PURGED", job_id)] * 2
    said = [json.loads(row.body)["data"] for row in rows(site, WebhookDelivery)]
    assert [each["sequence"] for each in said] == [row.sequence for row in site.events(job_id)[-2:]]
    assert {(each["fax_id"], each["status"], each["pages"]) for each in said} == {
        (job_id, "delivered", 1)
    }


def test_what_people_wrote_goes_with_the_numbers(site: Site) -> None:
    job_id = ended(site)
    sealed = site.runtime.keyring.seal(b"a reason", "decisions.reason:default")
    with site.runtime.database.writing() as connection:
        connection.execute(
            sa.insert(table(Decision)).values(
                id="d", account_id="default", job_id=job_id, attempt=1, outcome="failed",
                actor="env", reason_sealed=sealed, decided_at=site.now,
            )
        )  # fmt: skip
    site.now += 31 * DAY
    site.purge()
    assert rows(site, Decision)[0].reason_sealed == b""


# Legal holds ----------------------------------------------------------------------------------------


def test_a_legal_hold_keeps_all_of_a_fax_until_it_is_lifted(site: Site) -> None:
    held, other, came = ended(site), ended(site), received(site)
    legalholds.hold(site.runtime, ACTOR, "fax", held, "a lawsuit")
    legalholds.hold(site.runtime, ACTOR, "inbound", came, "a lawsuit")
    for _ in range(3):
        site.now += 40 * DAY
        site.purge()

    assert [row.id for row in rows(site, Job)] == [held]
    assert [row.id for row in rows(site, InboundFax)] == [came]
    assert sorted({row.job_id or row.inbound_id for row in rows(site, Artifact)}) == sorted(
        [held, came]
    )
    assert jobs.describe(site.runtime, site.job(held))["to"] is not None
    (said_why,) = legalholds.of(site.runtime, ACTOR, "fax", held)
    assert (said_why["reason"], said_why["lifted_at"]) == ("a lawsuit", None)
    with pytest.raises(NotFound):
        legalholds.hold(site.runtime, ACTOR, "fax", other, "too late")
    with pytest.raises(NotFound):
        legalholds.of(site.runtime, ACTOR, "inbound", held)

    legalholds.lift(site.runtime, ACTOR, "fax", held)
    legalholds.lift(site.runtime, ACTOR, "inbound", came)
    for _ in range(2):
        site.now += 40 * DAY
        site.purge()
    assert [rows(site, each) for each in (Job, InboundFax, Artifact, LegalHold)] == [[]] * 4
    deeds = [row.action for row in rows(site, AuditEvent) if row.action.startswith("legal")]
    assert deeds == ["legal_hold.placed"] * 2 + ["legal_hold.lifted"] * 2


def test_a_hold_that_comes_while_its_document_goes_is_told_so_and_one_after_that_keeps_the_rest(
    site: Site,
) -> None:
    ids = [ended(site) for _ in range(3)]
    site.now += 31 * DAY
    told: list[str] = []

    def hold() -> None:
        try:
            legalholds.hold(site.runtime, ACTOR, "fax", ids[0], "just in time")
        except NotPossibleNow as error:
            told.append(error.detail)
        assert site.job(ids[0]).legal_hold_at is None
        assert rows(site, LegalHold) == []

    site.interrupt("UPDATE artifacts SET deleted_at", hold)
    run_id = retention.ask(site.runtime, ACTOR)

    def again(name: str, _removed: int) -> None:
        if name == "document":
            legalholds.hold(site.runtime, ACTOR, "fax", ids[0], "the rest of it")

    retention.work(site.runtime, run_id, progress=again, rest=lambda _s: None)
    assert "at this moment" in told[0]
    assert site.job(ids[0]).to_sealed != b""
    assert [site.job(each).to_sealed for each in ids[1:]] == [b"", b""]


def test_of_two_holds_one_may_be_lifted_and_the_other_keeps_the_fax(site: Site) -> None:
    job_id = ended(site)
    for reason in ("one lawsuit", "another"):
        legalholds.hold(site.runtime, ACTOR, "fax", job_id, reason)
    with pytest.raises(NotPossibleNow, match="2 holds"):
        legalholds.lift(site.runtime, ACTOR, "fax", job_id)
    first = legalholds.of(site.runtime, ACTOR, "fax", job_id)[1]
    legalholds.lift(site.runtime, ACTOR, "fax", job_id, first["id"])
    with pytest.raises(NotFound):
        legalholds.lift(site.runtime, ACTOR, "fax", job_id, first["id"])
    site.now += 31 * DAY
    site.purge()
    assert site.job(job_id).to_sealed
    legalholds.lift(site.runtime, ACTOR, "fax", job_id)
    site.purge()
    assert site.job(job_id).to_sealed == b""
    assert {row.reason_sealed for row in rows(site, LegalHold)} == {b""}


@settings(**HERE)
def test_a_hold_keeps_what_subscribers_were_told_of_the_fax(site: Site) -> None:
    subscribe(site.runtime, RECEIVER)
    held, other = ended(site), ended(site)
    legalholds.hold(site.runtime, ACTOR, "fax", held, "a lawsuit")
    over = sa.update(table(WebhookDelivery))
    with site.runtime.database.writing() as connection:
        connection.execute(over.values(status="dead", ended_at=site.now, next_at=None))
    site.now += 31 * DAY
    site.purge()
    purged = {row.fax_id for row in rows(site, WebhookDelivery) if row.type != "FAX_PURGED"}
    assert purged == {held}
    assert held != other


# The carrier's copy ---------------------------------------------------------------------------------


def test_the_carrier_s_copy_goes_too_and_the_fax_not_before_that(able: Site) -> None:
    asked: list[str] = []
    refuse = [True]

    def delete(_usual: object, name: str) -> None:
        asked.append(name)
        if refuse[0]:
            raise DatabaseAway  # as good as any

    able.odd.does["delete_copy"] = delete
    job_id = ended(able)
    external = able.attempt(job_id).external_id
    assert asked == []
    able.now += 31 * DAY
    able.purge()
    able.after(1)
    assert asked == [external]
    assert able.attempt(job_id).copy_deleted_at is None
    refuse[0] = False
    able.after(3600)
    assert asked == [external] * 2
    assert able.attempt(job_id).copy_deleted_at == able.now
    able.now += 31 * DAY
    able.purge()
    assert rows(able, Job) == []


def test_a_carrier_that_never_deletes_it_keeps_the_fax_for_a_week_and_no_longer(able: Site) -> None:
    able.odd.does["delete_copy"] = lambda *_: (_ for _ in ()).throw(DatabaseAway())
    job_id = ended(able)
    able.now += 31 * DAY
    able.purge()
    able.after(1)
    assert able.attempt(job_id).delete_copy_at is not None, "it is tried again"
    able.after((copies.GIVEN_UP + timedelta(hours=7)).total_seconds())
    assert able.attempt(job_id).delete_copy_at is None


def test_a_copy_of_a_held_fax_stays_at_the_carrier(able: Site) -> None:
    asked: list[str] = []
    able.odd.does["delete_copy"] = lambda _usual, name: asked.append(name)
    job_id = ended(able)
    able.now += 31 * DAY
    able.purge()
    legalholds.hold(able.runtime, ACTOR, "fax", job_id, "a lawsuit")
    able.after(3600)
    assert asked == []
    legalholds.lift(able.runtime, ACTOR, "fax", job_id)
    able.after(3600)
    assert len(asked) == 1


def deletions(site: Site) -> list[str]:
    """What the carrier is asked to delete from now on."""
    asked: list[str] = []
    site.odd.does["delete_copy"] = lambda _usual, name: asked.append(name)
    return asked


def test_the_carrier_s_copy_of_a_received_fax_goes_too_and_the_fax_not_before_that(
    able: Site,
) -> None:
    came = able.carrier.receive("0011", RECEIVER)["id"]
    able.receive(able.callback(able.carrier.get(f"/v1/faxes/{came}")["fax"]))
    able.work()
    (fax,) = rows(able, InboundFax)
    assert (fax.status, fax.delete_copy_at) == ("received", None)
    able.now += 29 * DAY
    able.purge()
    able.after(1)
    assert able.carrier.has_document(came), "it is not old"

    able.now += 2 * DAY
    assert proofs(able, able.purge())["inbound"] == (2, 2, "done"), "what is removed here"
    able.odd.does["delete_copy"] = raises(Unreachable())
    able.after(1)
    able.now += 3 * DAY
    able.sweep()
    assert [each.code for each in alarms.raised(able.runtime)] == ["copies"]
    del able.odd.does["delete_copy"]
    able.after(6 * 3600)
    assert not able.carrier.has_document(came)
    assert rows(able, InboundFax)[0].copy_deleted_at == able.now
    assert alarms.raised(able.runtime) == []
    able.now += 31 * DAY
    able.purge()
    assert rows(able, InboundFax) == []


def test_a_carrier_that_never_deletes_its_copy_of_a_received_fax_keeps_it_for_a_week_and_no_longer(
    able: Site,
) -> None:
    able.odd.does["delete_copy"] = raises(Unreachable())
    received(able)
    able.now += 31 * DAY
    able.purge()
    able.now += 31 * DAY
    counted = {name: count for name, _, count in retention.would_remove(able.runtime)}
    assert (counted["events"], proofs(able, able.purge())["events"][0]) == (0, 0)
    assert len(rows(able, InboundFax)) == 1, "nobody has asked yet whether it is gone there"
    able.after(1)
    able.purge()
    assert rows(able, InboundFax) == []


def test_a_copy_that_went_when_its_fax_was_stored_is_not_asked_for_again(
    store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    with open_site(store, carrier_of_all, FAXBOT_DELETE_AT_CARRIER="true") as site:
        asked = deletions(site)
        received(site)
        site.after(1)
        assert asked == ["in-1"]
        site.now += 31 * DAY
        site.purge()
        site.after(61)
        assert asked == ["in-1"]


def test_a_copy_of_a_held_received_fax_stays_at_the_carrier(able: Site) -> None:
    asked = deletions(able)
    held, other = received(able), received(able, "in-2")
    legalholds.hold(able.runtime, ACTOR, "inbound", held, "a lawsuit")
    able.now += 31 * DAY
    able.purge()
    able.after(1)
    assert asked == ["in-2"]
    legalholds.lift(able.runtime, ACTOR, "inbound", held)
    able.purge()
    legalholds.hold(able.runtime, ACTOR, "inbound", held, "another lawsuit")
    able.after(3600)
    assert asked == ["in-2"], "ours is gone, and the last one is at the carrier"
    able.now += 40 * DAY
    able.purge()
    assert [each.id for each in rows(able, InboundFax)] == [held]
    legalholds.lift(able.runtime, ACTOR, "inbound", held)
    able.after(61)
    assert asked == ["in-2", "in-1"]
    assert other != held


def test_a_received_fax_that_nobody_had_goes_at_the_carrier_too_unless_it_comes_again(
    able: Site,
) -> None:
    able.odd.does["document"] = raises(Refused("it is gone"))
    for name in ("in-1", "in-2"):
        arrives(able, external_id=name, body=name.encode())
    for _ in range(40):
        able.after(DAY.total_seconds())
    assert {each.status for each in rows(able, InboundFax)} == {"failed"}
    asked = deletions(able)
    able.now += 31 * DAY
    able.purge()
    able.rung.clear()
    able.odd.does["document"] = gives()
    arrives(able, external_id="in-1", body=b"again")
    able.after(61)
    assert asked == ["in-2"]
    (first,) = [each for each in rows(able, InboundFax) if each.external_id == "in-1"]
    assert (first.status, first.delete_copy_at, first.copy_wanted_at) == ("received", None, None)
    able.now += 40 * DAY
    able.purge()
    able.after(1)
    assert asked == ["in-2", "in-1"]


@pytest.mark.parametrize(
    "where",
    [
        "UPDATE artifacts SET deleted_at",
        "DELETE FROM artifacts",
        "UPDATE inbound_faxes SET numbers_sealed",
        "UPDATE inbound_faxes SET delete_copy_at",
        "UPDATE retention_proofs",
    ],
)
def test_whoever_dies_in_the_middle_of_received_faxes_leaves_no_copy_at_the_carrier(
    able: Site, where: str
) -> None:
    asked = deletions(able)
    names = {f"in-{number}" for number in range(3)}
    for name in names:
        received(able, name)
    able.now += 31 * DAY
    run_id = retention.ask(able.runtime, ACTOR)
    with _killing(able, where), pytest.raises(Killed):
        retention.work(able.runtime, run_id)
    able.after(181)
    able.work()
    able.after(61)
    assert proofs(able, run_id)["inbound"][2] == "done"
    assert (rows(able, Artifact), able.stored()) == ([], 0)
    assert sorted(asked) == sorted(names)
    assert {each.delete_copy_at for each in rows(able, InboundFax)} == {None}
    assert None not in {each.copy_deleted_at for each in rows(able, InboundFax)}


def test_to_lift_where_there_is_no_hold_changes_nothing(site: Site) -> None:
    job_id = ended(site)
    legalholds.lift(site.runtime, ACTOR, "fax", job_id)
    assert (rows(site, LegalHold), site.job(job_id).legal_hold_at) == ([], None)
    with pytest.raises(NotFound):
        legalholds.lift(site.runtime, ACTOR, "fax", job_id, "0" * 32)
    with pytest.raises(NotFound):
        legalholds.lift(site.runtime, ACTOR, "fax", "0" * 32)
    assert site.job(job_id).legal_hold_at is None


# Proof ----------------------------------------------------------------------------------------------


def test_a_run_that_cannot_remove_what_it_found_is_broken_off_and_raises_an_alarm(
    site: Site,
) -> None:
    for _ in range(3):
        ended(site)
    site.now += 31 * DAY
    with refusing_deletes(site, "pages"):
        run_id = site.purge()
        found = proofs(site, run_id)
        assert found["renditions"] == (3, 0, "mismatch")
        left = [row for row in rows(site, Artifact) if row.role == "pages"]
        assert [row.deleted_at for row in left] == [None] * 3, "they may be held"
        (run,) = [row for row in rows(site, RetentionRun) if row.id == run_id]
        assert run.state == "failed"
        (alarm,) = [each for each in alarms.raised(site.runtime) if each.code == "retention"]
        assert "renditions" in alarm.detail
        assert found["numbers"][2] == "done", "one class keeps no other from going"
    found = proofs(site, site.purge())
    assert found["renditions"] == (3, 3, "done")
    assert [each for each in alarms.raised(site.runtime) if each.code == "retention"] == []


@pytest.mark.parametrize("refused", [1, 100], ids=["once", "again and again"])
def test_a_class_that_is_broken_off_behind_the_bytes_leaves_nothing_that_cannot_be_held(
    store: Installation, carrier_of_all: SimulatorProcess, refused: int
) -> None:
    """Its rows go all the same where that is possible, and are counted once."""
    with open_site(store, carrier_of_all, storage=Stubborn) as site:
        ids = [site.submit(number()).job_id for _ in range(3)]
        for each in ids:
            jobs.cancel(site.runtime, ACTOR, each)
        first = rows(site, Artifact)[0]
        site.runtime.plugins.get("local", Stubborn).keeps = first.key
        site.now += 31 * DAY
        with refusing(site, "DELETE FROM artifacts", refused):
            run_id = site.purge()
        assert proofs(site, run_id)["document"][2] == "failed"
        assert {row.deleted_at for row in rows(site, Artifact)} == {None}
        for each in ids:
            legalholds.hold(site.runtime, ACTOR, "fax", each, "a lawsuit")
        if refused == 1:
            assert [row.id for row in rows(site, Artifact)] == [first.id]
            assert proofs(site, run_id)["document"] == (2, 2, "failed")
            purged = [e.job_id for e in rows(site, FaxEvent) if e.reason == "document"]
            assert sorted(purged) == sorted(set(ids) - {first.job_id})


def test_the_body_of_an_old_message_that_goes_because_its_fax_is_received_breaks_nothing_off(
    site: Site,
) -> None:
    """Another worker lets go of it between the mark and the rows."""
    site.odd.does["verify_callback"] = answers(True)
    site.odd.does["read_callback"] = raises(ValueError())  # who can read it may be built yet
    for each in (1, 2):
        large(site, each)
    path = site.runtime.config.spool_dir / "upload-document"
    path.write_bytes(b"x" * 2_000_000)
    site.odd.does["attached"] = site.odd.does["document"] = raises(Unreachable())
    arrives(site, file=path, attached=True)
    site.work()
    (fax,) = rows(site, InboundFax)
    assert (fax.status, roles(site)) == ("fetching", ["request"] * 3)

    site.now += 31 * DAY
    runs = list[str]()

    def taken(*_: object) -> None:
        let_go = partial(posted.forget_body, site.runtime, fax.callback_id)
        site.interrupt("UPDATE artifacts SET deleted_at", let_go)
        runs.append(site.purge())

    site.odd.does["attached"], site.odd.does["taken"] = gives(), taken
    fetching.fetch(site.runtime, fax.id)
    assert rows(site, InboundFax)[0].status == "received"
    assert proofs(site, runs[0])["callbacks"] == (5, 5, "done"), "two bodies and three messages"
    assert (rows(site, Callback), roles(site)) == ([], ["document"])


def test_what_differed_and_goes_when_the_class_is_settled_is_counted_once(site: Site) -> None:
    ids = [ended(site) for _ in range(3)]
    site.now += 31 * DAY
    with refusing_deletes(site, "document") as allow:
        site.interrupt("DELETE FROM artifacts", allow)
        run_id = site.purge()
    assert proofs(site, run_id)["document"] == (3, 3, "mismatch")
    assert roles(site) == []
    for each in ids:
        assert [e.reason for e in site.events(each)].count("document") == 1


@contextmanager
def refusing(site: Site, beginning: str, times: int) -> Iterator[None]:
    """A database that gives up statements which begin so, so often."""
    left = [times]

    def executed(_c: Any, _cursor: Any, text: str, _p: Any, _x: Any, _m: bool) -> None:
        if text.startswith(beginning) and left[0]:
            left[0] -= 1
            raise RuntimeError("a fault")

    engine = site.runtime.database.engine
    sa.event.listen(engine, "before_cursor_execute", executed)
    try:
        yield
    finally:
        sa.event.remove(engine, "before_cursor_execute", executed)


def test_what_a_class_left_that_was_broken_off_is_settled_by_who_works_on_the_run_then(
    site: Site,
) -> None:
    """Its process was killed before it had."""
    ids = [ended(site) for _ in range(3)]
    site.now += 31 * DAY
    run_id = retention.ask(site.runtime, ACTOR)
    with (
        refusing(site, "DELETE FROM artifacts", 1),
        _killing(site, "DELETE FROM artifacts"),
        pytest.raises(Killed),
    ):
        retention.work(site.runtime, run_id)
    assert proofs(site, run_id)["document"] == (0, 0, "failed")
    with pytest.raises(NotPossibleNow):
        legalholds.hold(site.runtime, ACTOR, "fax", ids[0], "a lawsuit")

    site.after(181)
    site.work()
    assert proofs(site, run_id)["document"] == (3, 3, "failed")
    assert rows(site, Artifact) == []
    for each in ids:
        legalholds.hold(site.runtime, ACTOR, "fax", each, "a lawsuit")


@contextmanager
def refusing_deletes(site: Site, role: str) -> Iterator[Callable[[], None]]:
    """A database in which the rows of some stored bytes stay whatever is asked, until what is given here is called."""
    name = "artifacts"
    sqlite = site.runtime.database.is_sqlite
    make = (
        [
            f"CREATE TRIGGER stays BEFORE DELETE ON {name} WHEN OLD.role = '{role}' BEGIN SELECT RAISE(IGNORE); END"
        ]
        if sqlite
        else [
            f"""CREATE FUNCTION stays() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF OLD.role = '{role}' THEN RETURN NULL; END IF; RETURN OLD; END $$""",
            f"CREATE TRIGGER stays BEFORE DELETE ON {name} FOR EACH ROW EXECUTE FUNCTION stays()",
        ]
    )
    undo = (
        ["DROP TRIGGER IF EXISTS stays"]
        if sqlite
        else [f"DROP TRIGGER IF EXISTS stays ON {name}", "DROP FUNCTION IF EXISTS stays()"]
    )

    def done(statements: list[str]) -> None:
        with site.runtime.database.writing() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    done(make)
    try:
        yield lambda: done(undo)
    finally:
        done(undo)


class Stubborn(LocalStorage):
    """Removes nothing while it is told so, and never what it is told by name."""

    away = False
    keeps = ""
    asked = 0
    hangs_behind: int | None = None
    """After so many it answers nobody for a while, as one does whose time-out is over in the end."""
    _lock = threading.Lock()

    def delete(self, key: str) -> None:
        with self._lock:
            self.asked += 1
            hangs = self.hangs_behind is not None and self.asked > self.hangs_behind
        if hangs:
            time.sleep(0.2)
        if hangs or self.away or key.startswith(self.keeps or "-"):
            raise StorageAway
        super().delete(key)


def test_one_document_that_cannot_be_removed_keeps_no_other_from_going(
    store: Installation, carrier_of_all: SimulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "FIRST_BATCH", 2)
    with open_site(store, carrier_of_all, storage=Stubborn) as site:
        storage = site.runtime.plugins.get("local", Stubborn)
        ids = [site.submit(number()).job_id for _ in range(5)]
        for each in ids:
            jobs.cancel(site.runtime, ACTOR, each)
        bad = rows(site, Artifact)[1]
        storage.keeps = bad.key
        site.now += 31 * DAY
        for _ in range(2):
            found = proofs(site, site.purge())
            assert [row.id for row in rows(site, Artifact)] == [bad.id]
        assert found["document"] == (1, 0, "storage")
        assert rows(site, Artifact)[0].deleted_at is None, "it may be held"
        storage.keeps = ""
        assert proofs(site, site.purge())["document"] == (1, 1, "done")


def test_a_storage_that_is_away_is_asked_a_few_times_and_no_more_in_this_run(
    store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    with open_site(store, carrier_of_all, storage=Stubborn) as site:
        storage = site.runtime.plugins.get("local", Stubborn)
        faxes = 3 * AT_ONCE
        for _ in range(faxes):
            jobs.cancel(site.runtime, ACTOR, site.submit(number()).job_id)
        site.now += 31 * DAY
        storage.away, storage.asked = True, 0
        found = proofs(site, site.purge())
        assert found["document"] == (faxes, 0, "storage")
        assert IN_A_ROW <= storage.asked <= AT_ONCE
        assert {row.deleted_at for row in rows(site, Artifact)} == {None}, "they may be held"


def test_a_storage_that_hangs_in_the_middle_is_asked_once_by_each_thread_and_holds_nobody_long(
    store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    with open_site(store, carrier_of_all, storage=Stubborn) as site:
        storage = site.runtime.plugins.get("local", Stubborn)
        faxes = 80
        for _ in range(faxes):
            jobs.cancel(site.runtime, ACTOR, site.submit(number()).job_id)
        site.now += 31 * DAY
        storage.asked, storage.hangs_behind = 0, 40
        found = proofs(site, site.purge())
        left = len(rows(site, Artifact))
        assert found["document"] == (faxes, faxes - left, "storage")
        assert 40 <= faxes - left < 40 + AT_ONCE
        assert storage.asked <= 40 + 2 * AT_ONCE


def test_who_is_stopped_while_bytes_are_removed_says_of_none_that_it_goes(
    store: Installation, carrier_of_all: SimulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_site(store, carrier_of_all) as site:
        job_id = site.submit(number()).job_id
        jobs.cancel(site.runtime, ACTOR, job_id)
        site.now += 31 * DAY

        def no_thread(*_: object) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patched:
            patched.setattr(ThreadPoolExecutor, "submit", no_thread)
            found = proofs(site, site.purge())
        assert found["document"][2] == "failed"
        assert [row.deleted_at for row in rows(site, Artifact)] == [None]
        legalholds.hold(site.runtime, ACTOR, "fax", job_id, "a lawsuit")


class Waiting(LocalStorage):
    """Removes nothing before it may."""

    def initialize(self, config: Mapping[str, Any], context: Context) -> None:
        super().initialize(config, context)
        self.is_asked, self.may = threading.Event(), threading.Event()

    def delete(self, key: str) -> None:
        self.is_asked.set()
        assert self.may.wait(60)
        super().delete(key)


def test_who_is_stopped_while_some_bytes_are_on_their_way_has_no_more_removed(
    store: Installation, carrier_of_all: SimulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_site(store, carrier_of_all, storage=Waiting) as site:
        storage = site.runtime.plugins.get("local", Waiting)
        for _ in range(5):
            jobs.cancel(site.runtime, ACTOR, site.submit(number()).job_id)
        site.now += 31 * DAY
        submit, stop = ThreadPoolExecutor.submit, _Asking.stop

        def one_thread(pool: ThreadPoolExecutor, *work: Any) -> Any:
            if storage.is_asked.is_set():
                raise RuntimeError("can't start new thread")
            begun = submit(pool, *work)
            assert storage.is_asked.wait(60)
            return begun

        def stopped(asking: _Asking) -> None:
            stop(asking)
            storage.may.set()

        with monkeypatch.context() as patched:
            patched.setattr(ThreadPoolExecutor, "submit", one_thread)
            patched.setattr(_Asking, "stop", stopped)
            found = proofs(site, site.purge())
        assert found["document"] == (0, 0, "failed")
        assert {row.deleted_at for row in rows(site, Artifact)} == {None}
        assert site.stored() == 4
        assert proofs(site, site.purge())["document"] == (5, 5, "done")


def test_while_a_storage_is_away_its_rows_stay_and_the_next_run_removes_them(
    store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    with open_site(store, carrier_of_all, storage=Stubborn) as site:
        storage = site.runtime.plugins.get("local", Stubborn)
        ended(site)
        site.now += 31 * DAY
        storage.away = True
        found = proofs(site, site.purge())
        assert (found["document"], found["renditions"]) == ((1, 0, "storage"),) * 2
        assert len(rows(site, Artifact)) == 2
        (alarm,) = [each for each in alarms.raised(site.runtime) if each.code == "retention"]
        assert "document: a storage" in alarm.detail
        storage.away = False
        found = proofs(site, site.purge())
        assert (found["document"], rows(site, Artifact)) == ((1, 1, "done"), [])
        assert site.stored() == 0


@pytest.mark.parametrize("meanwhile", ["nothing", "a check of health", "a fax", "a received fax"])
def test_a_process_without_the_volume_of_the_documents_proves_no_removal(
    site: Site, meanwhile: str
) -> None:
    """Also when it has kept something since, on the wrong disk."""
    ended(site)
    site.now += 31 * DAY
    there = site.runtime.config.data_dir / "documents"
    elsewhere = there.rename(there.with_name("elsewhere"))
    match meanwhile:
        case "a check of health":
            assert artifacts.storage(site.runtime, "local").health().ok
        case "a fax":
            site.submit(number())
        case "a received fax":
            received(site)
    kept = {row.id for row in rows(site, Artifact)}
    found = proofs(site, site.purge())
    assert (found["document"], found["renditions"]) == ((1, 0, "storage"),) * 2
    assert {row.id for row in rows(site, Artifact)} == kept
    if there.exists():
        there.rename(there.with_name("wrong"))
    elsewhere.rename(there)
    found = proofs(site, site.purge())
    assert (found["document"], found["renditions"]) == ((1, 1, "done"),) * 2
    assert site.stored() == 0


def test_a_day_that_has_no_folder_keeps_no_other_day_from_being_removed(site: Site) -> None:
    """As of a container that had no volume then, and was made anew; its database was elsewhere."""
    lost = {ended(site) for _ in range(12)}
    days = {Path(row.key).parent for row in rows(site, Artifact)}
    site.now += 2 * DAY
    ended(site)
    for day in days:
        shutil.rmtree(site.runtime.config.data_dir / "documents" / day)
    site.now += 31 * DAY
    found = proofs(site, site.purge())
    assert (found["document"], found["renditions"]) == ((13, 1, "storage"),) * 2
    assert {row.job_id for row in rows(site, Artifact)} == lost


def test_documents_whose_day_has_no_folder_go_when_somebody_says_that_they_are_gone(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """As of documents that were brought back without their empty folders."""
    ended(site)
    (day,) = {Path(row.key).parent for row in rows(site, Artifact)}
    folder = site.runtime.config.data_dir / "documents" / day
    shutil.rmtree(folder)
    site.now += 31 * DAY
    assert proofs(site, site.purge())["document"] == (1, 0, "storage")
    said = {
        vars(each)["exception"]
        for each in caplog.records
        if each.message == "stored bytes not removed"
    }
    assert [(str(day) in each, "docs/storage.md" in each) for each in said] == [(True, True)]
    folder.mkdir()
    assert proofs(site, site.purge())["document"] == (1, 1, "done")
    assert rows(site, Artifact) == []


def test_every_run_is_there_to_be_looked_at(site: Site) -> None:
    ended(site)
    site.now += 31 * DAY
    run_id = site.purge()
    (shown,) = [each for each in retention.runs(site.runtime, limit=5) if each["id"] == run_id]
    assert (shown["state"], shown["asked_by"]) == ("done", "env")
    assert [each["class"] for each in shown["classes"]] == list(CLASSES)
    by_class = {each["class"]: each for each in shown["classes"]}
    assert (by_class["document"]["expected"], by_class["document"]["deleted"]) == (1, 1)
    actions = [(row.action, row.outcome) for row in rows(site, AuditEvent)]
    assert ("retention.asked", "done") in actions
    assert ("retention.ended", "done") in actions


def test_a_rehearsal_counts_and_changes_nothing(site: Site) -> None:
    ended(site)
    received(site)
    site.now += 31 * DAY
    before = {model: rows(site, model) for model in (Job, Artifact, InboundFax, FaxEvent)}
    counted = dict(rehearsed(site))
    assert {model: rows(site, model) for model in before} == before
    assert (counted["document"], counted["inbound"]) == (1, 2)


def rehearsed(site: Site) -> dict[str, int]:
    return {name: count for name, _, count in retention.would_remove(site.runtime)}


def large(site: Site, number: int = 0) -> None:
    """A carrier's message that is kept beside the database, and tells of nothing."""
    path = site.runtime.config.spool_dir / "upload-large"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes([number]) * 2_000_000)
    site.receive(said(file=path))


@pytest.mark.parametrize("without", [("deletes_copy",), ()], ids=["", "with copies"])
def test_a_rehearsal_says_of_each_class_what_the_run_then_proves(
    store: Installation, carrier_of_all: SimulatorProcess, without: tuple[str, ...]
) -> None:
    """Also where what is removed first is in the way of what goes behind it."""
    kept = {"ARTIFACT_TTL_DAYS": "80", "STORAGE_RETENTION_KEYS_DAYS": "200", **HERE}
    with open_site(store, carrier_of_all, more=INBOUND, without=without, **kept) as site:
        site.odd.does["document"] = raises(Refused("it is gone"))
        arrives(site, external_id="lost", body=b"lost")
        for _ in range(20):
            site.after(DAY.total_seconds())
        assert [row.status for row in rows(site, InboundFax)] == ["failed"]
        subscribe(site.runtime, RECEIVER)
        ended(site)
        over = sa.update(table(WebhookDelivery))
        with site.runtime.database.writing() as connection:
            connection.execute(over.values(status="dead", ended_at=site.now, next_at=None))
        jobs.cancel(site.runtime, ACTOR, site.submit(number(), key="k").job_id)
        received(site)
        large(site)
        site.work()
        site.rung.clear()
        all_in_all = dict.fromkeys(CLASSES, 0)
        for _ in range(22):
            site.now += 10 * DAY
            counted = rehearsed(site)
            run_id = site.purge()
            found = proofs(site, run_id)
            assert counted == {name: deleted for name, (_, deleted, _) in found.items()}
            for name, count in counted.items():
                all_in_all[name] += count
            site.rung.clear()
        assert all(all_in_all.values()), all_in_all
        assert bool(rows(site, Job)) is not bool(without), "its carrier was never asked"


# Runs -----------------------------------------------------------------------------------------------


@given(
    moments=st.lists(st.integers(0, 4 * 365 * 24 * 60), min_size=1, max_size=30),
    interval=st.integers(1, 7 * 24 * 60),
)
def test_a_due_time_is_a_whole_interval_and_no_later_than_now(
    moments: list[int], interval: int
) -> None:
    config = Config(cleanup_interval_minutes=interval)
    for minutes in moments:
        now = datetime(2024, 1, 1, 0, 0, 7, tzinfo=UTC) + timedelta(minutes=minutes)
        due = retention.due_at(config, now)
        assert due <= now < due + timedelta(minutes=interval)
        assert due.timestamp() % (interval * 60) == 0


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
def test_summer_time_makes_no_run_and_takes_none(
    site: Site, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        starts = (datetime(2026, 3, 27, 12, tzinfo=UTC), datetime(2026, 10, 23, 12, tzinfo=UTC))
        for start in starts:
            site.now = start
            runs_due(site)
            before = len(rows(site, RetentionRun))
            for _ in range(5 * 24):
                site.now += timedelta(hours=1)
                runs_due(site)
            assert len(rows(site, RetentionRun)) - before == 5  # as many midnights in UTC
    finally:
        monkeypatch.undo()
        time.tzset()


def runs_due(site: Site) -> None:
    """What a sweep does for retention, and the work that comes of it."""
    retention.announce_due(site.runtime)
    site.work()


def test_however_many_clocks_ring_at_once_a_run_is_made_once(site: Site) -> None:
    runs_due(site)
    site.now += DAY
    start = threading.Barrier(6)

    def ring(_: int) -> int:
        start.wait()
        return retention.announce_due(site.runtime)

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(ring, range(6))) == 1, "one of them rings"
    assert [row.asked_by for row in rows(site, RetentionRun)] == ["clock"] * 2
    assert [task for task, _ in site.rung] == ["faxbot.purge"]
    site.work()
    assert {row.state for row in rows(site, RetentionRun)} == {"done"}


def test_two_who_want_a_run_at_once_have_the_same_one(site: Site) -> None:
    """Both have found that none runs."""
    others: list[str] = []
    site.interrupt(
        "SELECT retention_runs.id",
        lambda: others.append(retention.ask(site.runtime, ACTOR)),
    )
    site.now += timedelta(seconds=1)
    assert [retention.ask(site.runtime, ACTOR)] == others
    asked = [row.action for row in rows(site, AuditEvent)]
    assert asked.count("retention.asked") == 1
    site.work()
    site.now += DAY
    site.interrupt("SELECT retention_runs.id", lambda: retention.ask(site.runtime, ACTOR))
    retention.announce_due(site.runtime)
    assert [row.state for row in rows(site, RetentionRun)].count("running") == 1


def test_however_many_want_a_run_at_once_one_is_made(site: Site) -> None:
    start = threading.Barrier(6)

    def ask(number: int) -> str:
        at = site.now + timedelta(microseconds=number)
        mine = replace(site.runtime, now=lambda: at)
        start.wait()
        return retention.ask(mine, ACTOR)

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(ask, range(6)))) == 1
    assert [row.state for row in rows(site, RetentionRun)] == ["running"]


def test_a_clock_that_is_set_back_makes_no_run_twice(site: Site) -> None:
    site.now = datetime(2026, 6, 1, 23, 30, tzinfo=UTC)
    runs_due(site)
    for hours in (1, -1, 1, -1, 1):
        site.now += timedelta(hours=hours)
        runs_due(site)
    due = [row.due_at for row in rows(site, RetentionRun)]
    assert sorted(due) == [datetime(2026, 6, day, tzinfo=UTC) for day in (1, 2)]


def test_a_lease_from_before_the_clock_was_set_right_keeps_nobody_from_a_run(site: Site) -> None:
    run_id = retention.ask(site.runtime, ACTOR)
    far = sa.update(table(RetentionRun)).values(lease_until=site.now + 30 * DAY)
    with site.runtime.database.writing() as connection:
        connection.execute(far)
    assert retention.work(site.runtime, run_id)
    assert rows(site, RetentionRun)[0].state == "done"


def test_a_ledger_that_has_no_run_yet_has_its_first_at_the_next_due_time(site: Site) -> None:
    """Who comes from a version without retention has time to say what must be kept."""
    site.now -= 40 * DAY
    ended(site)
    everything = sa.delete(table(RetentionRun))
    with site.runtime.database.writing() as connection:
        connection.execute(everything)
    site.now += 40 * DAY
    runs_due(site)
    assert roles(site) == ["document", "pages"]
    site.now += DAY
    runs_due(site)
    assert "document" not in roles(site)


def test_after_weeks_without_a_clock_one_run_does_for_all(site: Site) -> None:
    ended(site)
    runs_due(site)
    before = len(rows(site, RetentionRun))
    site.now += 45 * DAY
    runs_due(site)
    assert len(rows(site, RetentionRun)) == before + 1
    assert rows(site, Artifact) == []


def test_while_a_run_is_under_way_none_is_begun_and_one_that_takes_a_day_is_said(
    site: Site,
) -> None:
    run_id = retention.ask(site.runtime, ACTOR)
    assert retention.ask(site.runtime, ACTOR) == run_id
    for _ in range(3):
        site.now += DAY
        retention.announce_due(site.runtime)
    assert [row.id for row in rows(site, RetentionRun)] == [run_id]
    (alarm,) = [each for each in alarms.raised(site.runtime) if each.code == "retention"]
    assert "more than a day" in alarm.detail
    site.work()
    assert [each for each in alarms.raised(site.runtime) if each.code == "retention"] == []


def test_of_the_runs_those_that_removed_something_are_kept_for_a_year(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "KEPT", 2)
    ended(site)
    site.now += 31 * DAY
    first = site.purge()
    for _ in range(5):
        site.purge()
    left = [row.id for row in rows(site, RetentionRun)]
    assert len(left) == 3
    assert first in left
    site.now += 401 * DAY
    for _ in range(3):
        site.purge()
    assert first not in [row.id for row in rows(site, RetentionRun)]


# What changes in the middle of a run ----------------------------------------------------------------


def begun(site: Site, monkeypatch: pytest.MonkeyPatch, faxes: int = 3) -> str:
    """A run that has removed one document of several."""
    for name in ("LEAST_ROWS", "FIRST_BATCH", "MOST_ROWS"):
        monkeypatch.setattr(retention, name, 1)
    for _ in range(faxes):
        ended(site)
    site.now += 31 * DAY
    run_id = retention.ask(site.runtime, ACTOR)
    assert not retention.work(site.runtime, run_id, seconds=0)
    assert proofs(site, run_id) == {"document": (1, 1, "open")}
    return run_id


@pytest.mark.parametrize(("days", "outcome"), [(0, "off"), (365, "done")])
def test_who_keeps_a_class_longer_stops_the_run_that_is_under_way(
    site: Site, monkeypatch: pytest.MonkeyPatch, days: int, outcome: str
) -> None:
    run_id = begun(site, monkeypatch)
    site.runtime = replace(
        site.runtime, config=replace(site.runtime.config, artifact_ttl_days=days)
    )
    while not retention.work(site.runtime, run_id, rest=lambda _s: None):
        pass
    found = proofs(site, run_id)
    assert found["document"] == (1, 1, outcome)
    assert roles(site).count("document") == 2
    assert [row.state for row in rows(site, RetentionRun) if row.id == run_id] == ["done"]
    assert alarms.raised(site.runtime) == []


def test_two_that_meet_within_a_batch_count_nothing_twice_and_break_nothing_off(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first stands still between the bytes and their rows, until its lease is over."""
    monkeypatch.setattr(retention, "FIRST_BATCH", 2)
    ids = [ended(site) for _ in range(4)]
    site.now += 31 * DAY
    run_id = retention.ask(site.runtime, ACTOR)

    def meanwhile() -> None:
        site.now += timedelta(seconds=181)
        while not retention.work(site.runtime, run_id, rest=lambda _s: None):
            pass

    site.interrupt("UPDATE artifacts SET deleted_at", meanwhile)
    assert retention.work(site.runtime, run_id, rest=lambda _s: None)
    found = proofs(site, run_id)
    assert {each[2] for each in found.values()} == {"done"}
    assert (found["document"], found["numbers"][:1]) == ((4, 4, "done"), (8,))
    for each in ids:
        purged = [event.reason for event in site.events(each) if event.type == "FAX_PURGED"]
        assert purged == ["document", "numbers"]


def test_a_received_fax_that_failed_and_comes_again_after_its_purge_is_had(site: Site) -> None:
    """Its carrier was asked for it, for instance."""
    site.odd.does["document"] = raises(Refused("it is gone"))
    arrives(site, external_id="in-1", body=b"in-1")
    for _ in range(40):
        site.after(DAY.total_seconds())
    (fax,) = rows(site, InboundFax)
    assert (fax.status, fax.purged_at) == ("failed", None)
    site.after(31 * DAY.total_seconds())
    site.purge()
    assert rows(site, InboundFax)[0].numbers_sealed == b""

    site.odd.does["document"] = gives()
    arrives(site, external_id="in-1", body=b"again")
    site.purge()
    site.work()
    (fax,) = rows(site, InboundFax)
    assert (fax.status, fax.purged_at) == ("received", None)
    assert inbound.describe(site.runtime, fax)["from"] == FROM
    site.now += 29 * DAY
    site.purge()
    assert len(rows(site, Artifact)) == 1


class Killed(BaseException):
    """As good as a process that dies here: nothing behind it is done."""


@pytest.mark.parametrize(
    "where",
    [
        "UPDATE artifacts SET deleted_at",
        "DELETE FROM artifacts",
        "UPDATE jobs SET to_sealed",
    ],
)
def test_whoever_dies_in_the_middle_leaves_what_the_next_one_finds(site: Site, where: str) -> None:
    """C13: the storage has deleted it, and our row is there still; and each other place."""
    ids = [ended(site) for _ in range(3)]
    site.now += 31 * DAY
    run_id = retention.ask(site.runtime, ACTOR)
    with _killing(site, where), pytest.raises(Killed):
        retention.work(site.runtime, run_id)
    assert retention.work(site.runtime, run_id), "its lease is not over: it is left alone"
    assert [row.state for row in rows(site, RetentionRun) if row.id == run_id] == ["running"]

    site.after(181)
    site.work()
    found = proofs(site, run_id)
    assert {name: each[2] for name, each in found.items()} == dict.fromkeys(CLASSES, "done")
    assert all(expected == deleted for expected, deleted, _ in found.values())
    assert (found["document"][0], found["renditions"][0]) == (3, 3)
    assert (rows(site, Artifact), site.stored()) == ([], 0)
    for each in ids:
        purged = [event.reason for event in site.events(each) if event.type == "FAX_PURGED"]
        assert purged == ["document", "numbers"]
    site.add_up()


@contextmanager
def _killing(site: Site, beginning: str) -> Iterator[None]:
    """At the first statement that begins so."""

    def executed(_c: Any, _cursor: Any, text: str, _p: Any, _x: Any, _m: bool) -> None:
        if text.startswith(beginning):
            raise Killed

    engine = site.runtime.database.engine
    sa.event.listen(engine, "before_cursor_execute", executed)
    try:
        yield
    finally:
        sa.event.remove(engine, "before_cursor_execute", executed)


def test_a_slice_ends_in_time_and_the_next_one_goes_on_where_it_was(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LEAST_ROWS", "FIRST_BATCH", "MOST_ROWS"):
        monkeypatch.setattr(retention, name, 2)
    for _ in range(5):
        ended(site)
    site.now += 31 * DAY
    run_id = retention.ask(site.runtime, ACTOR)
    site.rung.clear()
    slices = 0
    while not retention.work(site.runtime, run_id, seconds=0):
        assert site.rung.pop() == ("faxbot.purge", run_id)
        slices += 1
    assert slices >= 3
    found = proofs(site, run_id)
    assert found["document"] == (5, 5, "done")
    assert found["renditions"] == (5, 5, "done")


def test_two_at_once_count_nothing_twice(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose lease was over while he stood still."""
    monkeypatch.setattr(retention, "FIRST_BATCH", 2)
    for _ in range(4):
        ended(site)
    site.now += 31 * DAY
    run_id = retention.ask(site.runtime, ACTOR)
    done: list[str] = []

    def meanwhile(name: str, _removed: int) -> None:
        if not done:
            done.append(name)
            site.now += timedelta(seconds=181)
            while not retention.work(site.runtime, run_id, rest=lambda _s: None):
                pass

    retention.work(site.runtime, run_id, progress=meanwhile, rest=lambda _s: None)
    found = proofs(site, run_id)
    assert done
    assert found["document"] == (4, 4, "done")
    assert len([e for e in rows(site, FaxEvent) if e.type == "FAX_PURGED"]) == 8


# What is set ----------------------------------------------------------------------------------------


def test_every_class_is_kept_for_thirty_days_unless_somebody_says_otherwise() -> None:
    assert retention.kept(Config()) == dict.fromkeys(CLASSES, 30)
    assert Config().cleanup_interval_minutes == 1440
    for name, each in CLASSES.items():
        nothing: dict[str, Any] = {each.days: 0}
        off = replace(Config(), **nothing)
        assert retention.days(off, name) == 0
        assert name not in retention.cutoffs(off, datetime.now(UTC))
