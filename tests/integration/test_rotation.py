"""A new master key while everything runs: what is sealed opens all the time, what is known by a hash is found, nobody
is called twice, and nothing that the old key could open is left."""

from __future__ import annotations

import base64
import json
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from copy import copy
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from faxbot import (
    addresses,
    alarms,
    arrivals,
    audit,
    crypto,
    identity,
    inbound,
    jobs,
    legalholds,
    masterkeys,
    resealing,
    revisions,
    rotation,
    routing,
    sending,
    trail,
    webhooks,
    wiring,
)
from faxbot.actors import CLI
from faxbot.cli.connection import PAGE
from faxbot.cli.connection import has_shape as has_shape
from faxbot.crypto import Keyring, Keys
from faxbot.db import Base, new_id, table, utcnow
from faxbot.errors import (
    ChangedMeanwhile,
    ConfigError,
    DatabaseAway,
    KeyMissing,
    KeyReused,
    Unauthenticated,
)
from faxbot.hidden import Hidden
from faxbot.inbound import Filters
from faxbot.models import (
    Attempt,
    AuditEvent,
    CachedValue,
    Callback,
    ConfigVersion,
    DataKey,
    Decision,
    IdempotencyKey,
    Job,
    Lane,
    LegalHold,
    ProvenStep,
)
from faxbot.plugins.base import Arrival, Receipt, State, Update
from faxbot.resealing import STORES, Change
from faxbot.runtime import Runtime
from tests.carrier import SimulatorProcess
from tests.ground import eventually
from tests.installation import Installation
from tests.integration.command import one_line, run, run_process
from tests.integration.hooks import hook, subscribe
from tests.integration.site import ACTOR, Site, number, open_site
from tests.integration.web import client_of, new_key
from tests.servers import free_port

OLD, NEW, NEWER = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2, 3))
IDS = {key: crypto.id_of(base64.b64decode(key)) for key in (OLD, NEW, NEWER)}
Opened = Callable[..., Any]


def nowhere(_seconds: float) -> None:
    """Nobody need be waited for: every process of these tests looks when it is asked to."""


@pytest.fixture
def opened(store: Installation, carrier_of_all: SimulatorProcess) -> Iterator[Opened]:
    """opened(key, previous): a process of the installation with these master keys, which knows how it stands."""
    with ExitStack() as stack:

        def opening(key: str, previous: str = "", **changes: str) -> Site:
            keys = {"CONFIG_MASTER_KEY": key, "CONFIG_MASTER_KEY_PREVIOUS": previous}
            site = stack.enter_context(open_site(store, carrier_of_all, **keys, **changes))
            rotation.note_sealing(site.runtime.database, site.runtime.keyring, utcnow())
            site.runtime.fresh()
            return site

        opening(OLD)  # it was there first
        yield opening


def rotate(site: Site) -> bool:
    return rotation.rotate(site.runtime, CLI, wait=nowhere)


def notice(*sites: Site) -> None:
    for site in sites:
        site.runtime.settings.catch_up()
        site.runtime.fresh()


def switched(site: Site, *others: Site) -> None:
    """The new key seals; nothing is sealed anew yet. The others know that it was announced, and no more."""
    stand = masterkeys.stand(site.runtime.database)
    new = site.runtime.keyring.ids[-1]
    at = rotation._announce(site.runtime, str(stand.sealing), new, lambda _: notice(*others))
    rotation._switch(site.runtime, CLI, str(stand.sealing), new, at)


def dump(site: Site) -> dict[str, list[Any]]:
    """Every value of every sealed column, and every hash made of a number or a key."""
    found: dict[str, list[Any]] = {}
    with site.runtime.database.reading() as session:
        for each in Base.metadata.sorted_tables:
            for column in each.columns:
                if column.name.endswith("_sealed") or f"{each.name}.{column.name}" in HASHED:
                    values = session.scalars(sa.select(column)).all()
                    found[f"{each.name}.{column.name}"] = [v for v in values if v is not None]
    return found


HASHED = (
    "jobs.to_key", "inbound_faxes.from_key", "inbound_faxes.to_key",
    "lanes.to_key", "proven_steps.to_key", "idempotency_keys.key_hash",
    "idempotency_keys.fingerprint", "callbacks.key", "attempts.settings_hash",
)  # fmt: skip


def fill(site: Site) -> dict[str, Any]:
    """Something in every sealed column and under every hash."""
    runtime, to = site.runtime, number()
    answer = site.submit(number(), key="order-1", header="Dr. Doe")
    done = site.fax_to(to, header="Dr. Doe")
    site.work()
    for fax in (answer.job_id, done):
        site.receive(site.callback(site.final_at_carrier(fax)))
        site.work()
        assert site.job(fax).status == "delivered"
    key = new_key(runtime)
    webhook_id, secret = subscribe(runtime, "https://hook.example.org/s3cret")
    with runtime.database.transaction() as session:
        _, newer = webhooks.rotate(
            session, runtime.keyring, CLI, webhook_id, overlap=timedelta(days=1), now=site.now
        )
        session.add(
            Decision(
                id=new_id(),
                job_id=done,
                attempt=1,
                outcome="failed",
                actor="a person",
                reason_sealed=runtime.keyring.seal(b"she called", "decisions.reason:default"),
                decided_at=site.now,
            )
        )
        session.add(
            LegalHold(
                id=new_id(),
                kind="fax",
                fax_id=done,
                actor="a person",
                reason_sealed=runtime.keyring.seal(b"a lawsuit", legalholds.place("default")),
                placed_at=site.now,
            )
        )
        session.add(
            ProvenStep(
                to_key=site.job(done).to_key, provider_id="simulator", step=2, updated_at=site.now
            )
        )
        cached = runtime.keyring.seal(b"token", "plugin_cache.value:default:simulator")
        session.add(CachedValue(plugin_id="simulator", name="t", value_sealed=cached))
        sealed = runtime.keyring.seal(b"k" * 32, masterkeys.place("default", "other"))
        session.add(DataKey(name="other", key_sealed=sealed, created_at=site.now))
        came = Arrival("in-1", Hidden("+15550100001"), Hidden(to))
        arrivals.note(session, runtime, came, provider_id="simulator", callback_id="none")
    wish = {"simulator": {"secret": site.carrier.secret}}
    seen = runtime.settings.read().version
    revisions.save(runtime, revisions.Deed(CLI, "a note"), wish, seen=seen)
    notice(site)
    return {
        "to": to,
        "answer": answer,
        "done": done,
        "key": key,
        "webhook": webhook_id,
        "secrets": (newer, secret),
    }


def test_every_sealed_column_of_the_schema_is_sealed_anew() -> None:
    """A new one is a decision: where it is sealed to, and what is hashed beside it."""
    sealed = {
        f"{each.name}.{column.name}"
        for each in Base.metadata.sorted_tables
        for column in each.columns
        if isinstance(column.type, sa.LargeBinary)
    }
    known = {f"{store.name}.{column}" for store in STORES for column in store.places}

    assert sealed == known


def test_every_purpose_of_a_hash_has_a_fate() -> None:
    fates = (*crypto.LASTING, *crypto.WRAPPED, *crypto.GIVEN_OUT, *crypto.RENEWED)
    assert len(set(fates)) == len(fates)
    ring = Keyring({"old": bytes(32)})
    for hashing in (ring.keyed_hash, ring.hashes):
        with pytest.raises(LookupError, match="a new purpose"):
            hashing(b"value", "a new purpose")


def test_after_it_nothing_that_the_old_key_could_open_or_find_is_left(opened: Opened) -> None:
    before = opened(OLD)
    known = fill(before)
    lanes = before.count(Lane)
    assert lanes
    was = dump(before)
    assert all(was.values()), [name for name, values in was.items() if not values]

    both = opened(NEW, OLD)
    assert both.runtime.keyring.current == IDS[OLD]
    assert rotate(both) is True
    after = opened(NEW)

    now = dump(after)
    old = Keyring({"old": base64.b64decode(OLD)})
    tag = old.tag(IDS[OLD])
    for name, values in now.items():
        assert not set(values) & set(was[name]), name
        if name.endswith("_sealed"):
            assert not [value for value in values if value[1:5] == tag], name
            assert len(values) >= len(was[name])
    (fax,), _ = inbound.page(
        after.runtime, CLI, Filters(to_key=after.job(known["done"]).to_key), limit=9, cursor=None
    )
    shown = inbound.describe(after.runtime, fax)
    assert (shown["from"], shown["to"]) == ("+15550100001", known["to"])
    job = after.job(known["done"])
    assert jobs.number(after.runtime, job).reveal() == known["to"]
    assert jobs.header(after.runtime, job).reveal() == "Dr. Doe"
    assert job.to_key == jobs.number_key(after.runtime.keyring, Hidden(known["to"]))
    assert after.runtime.settings.read().of_plugin("simulator")["secret"] == after.carrier.secret
    assert revisions.saved_at(after.runtime, 1)["simulator"] == {"secret": after.carrier.secret}
    keyring, webhook = after.runtime.keyring, hook(after.runtime, known["webhook"])
    assert webhooks.address(keyring, webhook) == "https://hook.example.org/s3cret"
    live = webhooks.live_secrets(keyring, webhook, after.now)
    assert tuple(each.text for each in live) == known["secrets"]
    with after.runtime.database.reading() as session:
        assert session.scalars(sa.select(ProvenStep.to_key)).all() == [job.to_key]
        raw, _ = session.scalars(sa.select(Callback.raw_sealed))
        assert b"fax.news" in base64.b64decode(
            json.loads(after.runtime.keyring.open(raw, "callbacks.raw:default"))["body"]
        )
        actions = session.scalars(sa.select(AuditEvent.action)).all()
    assert [a for a in actions if "master" in a] == ["master_key.changed", "master_key.retired"]
    progress = rotation.progress(after.runtime)
    assert (progress.state, progress.left, progress.unknown) == ("resting", {}, {})
    assert rotate(after) is False
    assert dump(after) == now


@pytest.mark.parametrize("when", ["announced", "switched", "ended", "again"])
def test_a_key_that_was_sent_before_gives_the_first_answer_whenever_it_comes_again(
    opened: Opened, when: str
) -> None:
    first = opened(OLD).submit("+15550107700", key="order-1")
    site = opened(NEW, OLD)
    if when != "announced":
        switched(site)
    between = site.submit("+15550107700", key="order-2")
    if when in ("ended", "again"):
        rotate(site)
        site = opened(NEW)
    if when == "again":
        rotate(opened(NEWER, NEW))
        site = opened(NEWER)

    for key, answer in (("order-1", first), ("order-2", between)):
        again = site.submit("+15550107700", key=key)
        assert (again.body, again.replayed) == (answer.body, True)
        with pytest.raises(KeyReused):
            site.submit("+15550107701", key=key)
    assert (site.count(Job), site.count(IdempotencyKey)) == (2, 2)


def test_a_key_whose_first_answer_retention_has_removed_is_known_when_the_old_master_key_is_forgotten(
    opened: Opened,
) -> None:
    kept = {"STORAGE_RETENTION_EVENTS_DAYS": "0"}
    old = opened(OLD, **kept)
    first = old.submit("+15550107700", key="order-1")
    jobs.cancel(old.runtime, ACTOR, first.job_id)
    old.now += timedelta(days=31)
    old.purge()
    assert old.job(first.job_id).to_key == ""
    both = opened(NEW, OLD, **kept)
    both.now = old.now
    rotate(both)
    site = opened(NEW, **kept)
    site.now = old.now + timedelta(days=40)

    again = site.submit("+15550107700", key="order-1")

    assert (again.replayed, again.job_id) == (True, first.job_id)
    assert (json.loads(again.body)["to"], site.count(Job)) == (None, 1)


def test_processes_that_notice_it_at_different_times_take_no_fax_twice(opened: Opened) -> None:
    """Two seconds apart, or more: each of them looks under both."""
    late, soon = opened(NEW, OLD), opened(NEW, OLD)
    switched(soon)
    assert late.runtime.keyring.current != soon.runtime.keyring.current

    for first, second in ((late, soon), (soon, late)):
        key = secrets.token_hex(8)
        answer = first.submit("+15550107700", key=key)
        again = second.submit("+15550107700", key=key)
        assert (again.job_id, again.replayed) == (answer.job_id, True)
    resealing_done = Change(soon.runtime.keyring, IDS[OLD], IDS[NEW])
    (store,) = [each for each in STORES if each.model is IdempotencyKey]
    list(resealing.seal_anew(soon.runtime.database, resealing_done, store, nowhere))
    assert late.submit("+15550107700", key=key).replayed
    assert late.count(Job) == 2


def test_the_order_in_which_a_process_has_its_keys_matters_to_nobody(opened: Opened) -> None:
    soon, swapped = opened(NEW, OLD), opened(OLD, NEW)
    switched(soon, swapped)
    first = soon.submit("+15550107700", key="order-1")
    assert swapped.submit("+15550107700", key="order-1").job_id == first.job_id
    assert soon.count(Job) == 1


def test_a_switch_that_is_noticed_in_the_midst_of_a_request_splits_no_row(opened: Opened) -> None:
    """What is sealed and hashed for one row is so with one master key, or it would not be found with its hashes."""
    site, both = opened(OLD), opened(NEW, OLD)
    earlier = both.runtime.settings.keys()
    switched(both)
    states: list[Keys] = [earlier, both.runtime.settings.keys()]
    asked = turns = 0

    def state() -> Keys:
        nonlocal asked
        asked += 1
        return states[asked > turns]

    first = {}
    for turns in range(12):
        asked = 0
        both.runtime.keyring.follow(state)
        first[turns] = both.submit(number(), key=f"order-{turns}", header="Dr. Doe").job_id
        assert asked > 0
    both.runtime.keyring.follow(both.runtime.settings.keys)
    with both.runtime.database.reading() as session:
        to = {
            each.id: (each.to_sealed, each.header_sealed)
            for each in session.scalars(sa.select(Job))
        }
    assert all(one[1:5] == other[1:5] for one, other in to.values() if other)
    rotate(both)
    del site
    for turn, fax in first.items():
        wish = {"header": "Dr. Doe"}
        again = both.submit(
            jobs.number(both.runtime, both.job(fax)).reveal(), key=f"order-{turn}", **wish
        )
        assert (again.job_id, again.replayed) == (fax, True)


def frozen(site: Site) -> Site:
    """A process that is stopped between sealing and writing: it goes by what it knew."""
    stopped = copy(site)
    stopped.runtime = replace(site.runtime, keyring=site.runtime.keyring.still())
    return stopped


def test_what_a_process_that_was_stopped_meanwhile_writes_late_is_shown_and_sealed_anew(
    opened: Opened,
) -> None:
    site = opened(NEW, OLD)
    late = frozen(site)
    rotate(site)
    first = late.submit("+15550107700", key="order-1")
    left = {
        "jobs.to_sealed": 1,
        "artifacts.data_key_sealed": 1,
        "idempotency_keys.response_sealed": 1,
    }
    assert rotation.progress(site.runtime).left == left
    assert rotation.progress(opened(NEW).runtime).unknown == left

    assert rotate(site) is True
    assert rotation.progress(site.runtime).left == {}
    assert rotate(site) is False
    rotate(opened(NEWER, NEW))
    last = opened(NEWER)
    assert last.submit("+15550107700", key="order-1").job_id == first.job_id

    # One that has slept through two of them.
    second = late.submit("+15550107700", key="order-2")
    both = opened(NEWER, OLD)
    assert rotate(both) is True
    assert rotation.progress(last.runtime).unknown == {}
    assert last.submit("+15550107700", key="order-2").job_id == second.job_id
    assert last.job(first.job_id).to_key == last.job(second.job_id).to_key


def test_what_is_written_late_is_looked_for_once_more_before_it_is_said_to_be_done(
    opened: Opened,
) -> None:
    site = opened(NEW, OLD)
    late = frozen(site)
    written: list[str] = []

    def wait(_seconds: float) -> None:
        if not written and masterkeys.stand(site.runtime.database)[1:4] == (IDS[NEW], None, None):
            written.append(late.submit(number()).job_id)

    rotation.rotate(site.runtime, CLI, wait=wait)

    assert len(written) == 1
    assert jobs.number(opened(NEW).runtime, site.job(written[0])).reveal()


def take(site: Site) -> None:
    """Let the carrier take faxes and say nothing more of them."""
    site.odd.does["send"] = lambda _usual, fax: Receipt(f"id-{fax.tag}")
    site.odd.does["fetch"] = lambda _usual, name: Update(State.PROGRESS, external_id=name)


def end(site: Site, job_id: str) -> None:
    name = site.job(job_id).external_id
    site.odd.does["read_callback"] = lambda _usual, _r: [Update(State.DELIVERED, external_id=name)]
    site.receive(site.signed(job_id.encode()))
    site.rung[:] = [ring for ring in site.rung if ring[0] == "faxbot.apply_callback"]
    site.work()


def attempt(site: Site, job_id: str) -> str:
    site.rung.clear()
    sending.attempt(site.runtime, job_id)
    return site.job(job_id).status


def test_one_number_is_called_once_at_a_time_whichever_hash_a_fax_stands_under(
    opened: Opened,
) -> None:
    """Of processes with the old key alone, with both, with both and the switch seen, and with the new one alone."""
    to = number()
    alone, late, soon = opened(OLD), opened(NEW, OLD), opened(NEW, OLD)
    for site in (alone, late, soon):
        take(site)
    under_old = [alone.fax_to(to) for _ in range(2)]
    switched(soon, late)
    under_new = [soon.fax_to(to) for _ in range(2)]
    assert len({soon.job(fax).to_key for fax in under_old + under_new}) == 2

    # One that has not even looked holds the number for all.
    assert attempt(alone, under_old[0]) == "sent"
    assert [attempt(site, fax) for site in (late, soon) for fax in under_new] == ["queued"] * 4
    end(late, under_old[0])
    soon.now += timedelta(seconds=6)
    under_new.sort(key=soon.wait_of)
    assert attempt(soon, under_new[0]) == "sent"
    assert attempt(late, under_new[1]) == attempt(late, under_old[1]) == "queued"

    # And one that knows the new key alone, after the end of it.
    rotate(soon)
    after = opened(NEW)
    take(after)
    after.now = soon.now
    assert attempt(after, under_old[1]) == attempt(after, under_new[1]) == "queued"
    end(after, under_new[0])
    statuses = set()
    for _ in range(3):
        after.now += timedelta(seconds=70)
        attempt(after, under_old[1])
        attempt(after, under_new[1])
        statuses.add(tuple(sorted(after.job(fax).status for fax in (under_old[1], under_new[1]))))
    assert statuses == {("queued", "sent")}


def test_a_call_of_a_process_with_the_old_key_alone_holds_its_number_beyond_the_end_of_it(
    opened: Opened,
) -> None:
    to = number()
    alone = opened(OLD)
    take(alone)
    first, second = alone.fax_to(to), alone.fax_to(to)
    assert attempt(alone, first) == "sent"
    rotate(opened(NEW, OLD))
    after = opened(NEW)
    take(after)
    assert attempt(after, second) == "queued"
    with after.runtime.database.reading() as session:
        assert session.scalars(sa.select(Lane.to_key)).all() == [after.job(second).to_key]


def test_while_processes_are_restarted_one_after_the_other_no_number_is_held_for_long(
    opened: Opened,
) -> None:
    """One with both keys makes the call, and one with the old key alone hears how it ended."""
    to = number()
    alone, both = opened(OLD), opened(NEW, OLD)
    for site in (alone, both):
        take(site)
    first, second = both.fax_to(to), both.fax_to(to)
    assert attempt(both, first) == "sent"
    end(alone, first)
    both.now += timedelta(seconds=6)
    assert attempt(both, second) == "sent"


def test_the_gap_after_a_call_holds_beyond_the_end_of_it(opened: Opened) -> None:
    to, gap = number(), {"FAXBOT_NUMBER_GAP_SECONDS": "600"}
    alone = opened(OLD, **gap)
    take(alone)
    first, second = alone.fax_to(to), alone.fax_to(to)
    assert attempt(alone, first) == "sent"
    end(alone, first)
    rotate(opened(NEW, OLD))
    after = opened(NEW, **gap)
    take(after)
    assert attempt(after, second) == "queued"
    after.now += timedelta(seconds=601)
    assert attempt(after, second) == "sent"


def test_who_waits_under_one_hash_is_woken_by_who_leaves_under_the_other(opened: Opened) -> None:
    to = number()
    site = opened(NEW, OLD)
    take(site)
    first = site.fax_to(to)
    switched(site)
    second = site.fax_to(to)
    assert attempt(site, first) == "sent"
    assert attempt(site, second) == "queued"
    end(site, first)
    assert site.wait_of(second) == 5.0
    site.now += timedelta(seconds=5)
    assert attempt(site, second) == "sent"


def test_lists_by_number_find_faxes_under_both_hashes(opened: Opened) -> None:
    to = "+15550107700"
    site = opened(NEW, OLD)
    earlier = site.fax_to(to)
    switched(site)
    later = site.fax_to(to)
    client = client_of(site.runtime, new_key(site.runtime))
    for key in {site.job(earlier).to_key, site.job(later).to_key}:
        found = json.loads(client.get(f"/fax?to_key={key}").data)["items"]
        assert {each["id"] for each in found} == {earlier, later}
    found = json.loads(client.post("/fax/search", json={"to": to}).data)["items"]
    assert {each["id"] for each in found} == {earlier, later}
    rotate(site)
    found = json.loads(client.post("/fax/search", json={"to": to}).data)["items"]
    assert {each["id"] for each in found} == {earlier, later}


@pytest.mark.parametrize("store", ["postgresql"], indirect=True)
@pytest.mark.parametrize("which", ["old", "new"])
def test_who_learns_something_of_a_number_while_it_is_hashed_anew_disturbs_nobody(
    opened: Opened, which: str
) -> None:
    """SQLite has one writer at a time."""
    to = number()
    site = opened(NEW, OLD)
    fax = site.fax_to(to)
    switched(site)
    keys = {"old": site.job(fax).to_key, "new": site.job(site.fax_to(to)).to_key}
    learnt = {"provider_id": "simulator", "updated_at": site.now}
    with site.runtime.database.transaction() as session:
        session.add(ProvenStep(to_key=keys["old"], step=1, **learnt))
    with ThreadPoolExecutor(1) as others, site.runtime.database.transaction() as session:
        if which == "old":
            session.get_one(Job, fax, with_for_update=True)
        else:
            session.add(ProvenStep(to_key=keys["new"], step=2, **learnt))
            session.flush()
        rotating = others.submit(rotate, site)
        eventually(lambda: site.runtime.database.row(WAITS, {}))
        if which == "old":
            step = sa.update(ProvenStep).where(ProvenStep.to_key == keys["old"]).values(step=2)
            session.execute(step)
        session.commit()
        assert rotating.result(30) is True

    with site.runtime.database.reading() as session:
        found = session.execute(sa.select(ProvenStep.to_key, ProvenStep.step)).all()
    assert [tuple(row) for row in found] == [(keys["new"], 2)]


WAITS = sa.text(
    "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
)


@pytest.mark.parametrize("later", ["old", "new"])
def test_what_was_learnt_of_a_number_moves_with_its_faxes_and_of_two_the_later_counts(
    opened: Opened, later: str
) -> None:
    to = number()
    site = opened(NEW, OLD)
    earlier = site.fax_to(to)
    switched(site)
    keys = {"old": site.job(earlier).to_key, "new": site.job(site.fax_to(to)).to_key}
    with site.runtime.database.transaction() as session:
        for name, key in keys.items():
            step, at = (2, site.now) if name == later else (1, site.now - timedelta(hours=1))
            session.add(ProvenStep(to_key=key, provider_id="simulator", step=step, updated_at=at))
        alone = ProvenStep(to_key=keys["old"], provider_id="other", step=3, updated_at=site.now)
        stray = ProvenStep(to_key="0" * 64, provider_id="other", step=1, updated_at=site.now)
        session.add_all([alone, stray])
    rotate(site)

    with site.runtime.database.reading() as session:
        found = session.execute(
            sa.select(ProvenStep.to_key, ProvenStep.provider_id, ProvenStep.step)
        )
        assert sorted(found) == [(keys["new"], "other", 3), (keys["new"], "simulator", 2)]


def test_api_keys_hold_before_meanwhile_and_after_and_so_do_those_made_then(
    opened: Opened,
) -> None:
    tokens = [new_key(opened(OLD).runtime)]
    late, soon = opened(NEW, OLD), opened(NEW, OLD)
    switched(soon)
    tokens += [new_key(site.runtime) for site in (late, soon)]
    rotate(soon)
    after = opened(NEW)
    tokens.append(new_key(after.runtime))
    rotate(opened(NEWER, NEW))
    tokens.append(new_key(opened(NEWER).runtime))

    for site in (opened(NEWER), opened(NEWER, NEW)):
        for token in tokens:
            assert identity.authenticate(site.runtime, token).may("fax:send")
        with pytest.raises(Unauthenticated):
            identity.authenticate(site.runtime, tokens[0][:-1] + "_")


# Callbacks and links --------------------------------------------------------------------------------


def test_addresses_that_carriers_have_are_good_for_a_while_after_it(opened: Opened) -> None:
    site = opened(OLD)
    sent = site.sent()
    with site.runtime.database.reading() as session:
        this = session.scalars(sa.select(Attempt).filter_by(job_id=sent)).one()
    callback = addresses.of_callbacks(site.runtime, this)
    link = addresses.of_document(site.runtime, this).reveal().rpartition("token=")[2]
    both = opened(NEW, OLD)
    for step in ("before", "after", "later"):
        each = opened(NEW) if step == "later" else both
        assert addresses.is_ours(each.runtime, callback)
        assert not addresses.is_ours(each.runtime, callback[:-1] + "_")
        addresses.admit_to_document(each.runtime, sent, link)
        with pytest.raises(Unauthenticated):
            addresses.admit_to_document(each.runtime, sent, link[:-1] + "_")
        if step == "before":
            rotate(both)

    after = opened(NEW)
    with after.runtime.database.transaction() as session:
        session.execute(sa.update(DataKey).values(created_at=utcnow() - masterkeys.LIFE))
    assert not addresses.is_ours(opened(NEW).runtime, callback)
    identity.authenticate(opened(NEW).runtime, new_key(after.runtime))


def test_a_callback_that_comes_again_is_known_whichever_key_hashed_it(opened: Opened) -> None:
    late, soon = opened(NEW, OLD), opened(NEW, OLD)
    first, second = late.signed(b"one"), late.signed(b"two")
    late.receive(first)
    switched(soon)
    soon.receive(second)
    for site in (late, soon):
        site.receive(first)
        site.receive(second)
    assert soon.count(Callback) == 2
    rotate(soon)
    for site in (late, soon, opened(NEW)):
        site.receive(first)
        site.receive(second)
    assert soon.count(Callback) == 2


def test_two_copies_of_one_callback_under_two_hashes_stop_nothing(opened: Opened) -> None:
    """A process with the old key alone may have stored the second."""
    alone, site = opened(OLD), opened(NEW, OLD)
    switched(site)
    request = site.signed(b"one")
    site.receive(request)
    alone.receive(request)
    assert site.count(Callback) == 2
    rotate(site)
    site.receive(request)
    assert site.count(Callback) == 2


def test_absence_proves_something_of_calls_that_were_under_way_and_nothing_where_the_key_is_gone(
    opened: Opened,
) -> None:
    site = opened(OLD)
    earlier = site.attempt(site.sent()).settings_hash
    both = opened(NEW, OLD)
    rotate(both)
    after = opened(NEW)
    for each in (both, after):
        assert routing.settings_hash(each.runtime, "simulator") != earlier
        assert routing.is_set_as(each.runtime, "simulator", earlier)
        assert not routing.is_set_as(each.runtime, "simulator", "0" * 16)
        assert not routing.is_set_as(each.runtime, "simulator", None)
    with after.runtime.database.transaction() as session:
        session.execute(sa.update(DataKey).values(created_at=utcnow() - masterkeys.LIFE))
    assert not routing.is_set_as(opened(NEW).runtime, "simulator", earlier)


# Who lacks a key ------------------------------------------------------------------------------------


def test_a_process_that_lacks_the_new_key_keeps_it_from_being_used(opened: Opened) -> None:
    alone, both = opened(OLD), opened(NEW, OLD)

    def look(_seconds: float) -> None:
        notice(alone)

    with pytest.raises(ConfigError, match="does not have the new master key"):
        rotation.rotate(both.runtime, CLI, wait=look)

    stand = masterkeys.stand(both.runtime.database)
    assert (stand.sealing, stand.upcoming, stand.retiring) == (IDS[OLD], None, None)
    assert alone.submit(number()).status == both.submit(number()).status == 202
    alone.runtime.close()
    assert rotate(both) is True, "the objection of before is forgotten"


def test_who_lacks_the_new_key_says_so_again_when_it_is_announced_again(opened: Opened) -> None:
    alone, both = opened(OLD), opened(NEW, OLD)

    def look(_seconds: float) -> None:
        notice(alone)

    def die(_seconds: float) -> None:
        notice(alone)
        raise Killed

    with pytest.raises(Killed):
        rotation.rotate(both.runtime, CLI, wait=die)
    both.now += timedelta(seconds=1)
    with pytest.raises(ConfigError, match="does not have the new master key"):
        rotation.rotate(both.runtime, CLI, wait=look)
    assert masterkeys.stand(both.runtime.database).sealing == IDS[OLD]


def test_of_two_who_announce_a_key_the_later_one_goes_on(opened: Opened) -> None:
    first, second = opened(NEW, OLD), opened(NEW, OLD)
    second.now += timedelta(seconds=1)
    announced: list[datetime] = []

    def announce(_seconds: float) -> None:
        if not announced:
            announced.append(rotation._announce(second.runtime, IDS[OLD], IDS[NEW], nowhere))

    with pytest.raises(ChangedMeanwhile):
        rotation.rotate(first.runtime, CLI, wait=announce)
    rotation._switch(second.runtime, CLI, IDS[OLD], IDS[NEW], *announced)


def test_two_who_seal_the_same_anew_both_come_to_the_end(opened: Opened) -> None:
    first, second = opened(NEW, OLD), opened(NEW, OLD)
    first.submit(number())
    switched(first)
    ended: list[bool] = []

    def overtake(_what: str, _done: int, _of: int) -> None:
        if not ended:
            ended.append(rotate(second))

    assert rotation.rotate(first.runtime, CLI, told=overtake, wait=nowhere) is True
    assert ended == [True]
    assert masterkeys.stand(first.runtime.database)[1:4] == (IDS[NEW], None, None)


def test_a_key_that_was_announced_and_is_gone_gives_way_to_another(opened: Opened) -> None:
    rotation._announce(opened(NEW, OLD).runtime, IDS[OLD], IDS[NEW], nowhere)
    other = opened(NEWER, OLD)
    assert rotate(other) is True
    assert masterkeys.stand(other.runtime.database).sealing == IDS[NEWER]

    rotation._announce(opened(NEW, NEWER).runtime, IDS[NEWER], IDS[NEW], nowhere)
    alone = opened(NEWER)
    assert rotate(alone) is False
    assert masterkeys.stand(alone.runtime.database)[1:4] == (IDS[NEWER], None, None)


def test_a_process_that_lacks_a_key_serves_nothing_and_says_which(opened: Opened) -> None:
    alone, both = opened(OLD), opened(NEW, OLD)
    for _ in range(3):
        both.submit(number(), header="x")
    switched(both)
    settings = alone.runtime.settings
    for attempted in (settings.catch_up, settings.snapshot, settings.keys):
        with pytest.raises(KeyMissing, match="CONFIG_MASTER_KEY"):
            attempted()
    with pytest.raises(KeyMissing):
        alone.submit(number())
    answer = client_of(alone.runtime, "fbk_live_0").get("/fax")
    assert (answer.status_code, json.loads(answer.data)["type"]) == (503, "/docs#key-missing")

    config = alone.runtime.config
    for key, words in (
        (OLD, r"another master key .* values do not open: 4 of data_keys.key_sealed"),
        (NEW, r"CONFIG_MASTER_KEY_PREVIOUS .* values do not open: .*3 of jobs.to_sealed, 3 of"),
        (NEWER, "another master key .* values do not open: [45] of data_keys.key_sealed, 3 of"),
    ):
        with pytest.raises(KeyMissing, match=words):
            rotation.admit(replace(config, master_key=key, master_key_previous=""))
    rotation.admit(both.runtime.config)


def test_a_first_start_with_another_key_than_the_data_were_sealed_with_is_refused(
    opened: Opened,
) -> None:
    """Also where nobody has noted it: the data of an earlier version."""
    site = opened(OLD)
    site.submit(number())
    with site.runtime.database.transaction() as session:
        session.execute(sa.update(ConfigVersion).values(sealing_key=None))
    config = replace(site.runtime.config, master_key=NEW)
    with pytest.raises(KeyMissing, match=r"give it as CONFIG_MASTER_KEY.*2 values do not open"):
        rotation.admit(config)
    rotation.admit(replace(config, master_key_previous=OLD))
    assert masterkeys.stand(site.runtime.database).sealing == IDS[OLD]


def test_with_the_key_lost_it_goes_on_with_a_new_one_and_says_what_is_lost(opened: Opened) -> None:
    site = opened(OLD)
    known = fill(site)
    with pytest.raises(ConfigError, match="is not lost"):
        rotation.give_up(site.runtime, CLI)
    lost = opened_without(site, NEW)
    found = rotation.give_up(lost, CLI)
    lost.close()
    assert found["jobs.to_sealed"] == 2

    after = opened(NEW)
    with pytest.raises(Unauthenticated):
        identity.authenticate(after.runtime, known["key"])
    client = client_of(after.runtime, new_key(after.runtime))
    assert after.submit(number()).status == 202
    page = json.loads(client.get("/fax").data)
    assert sorted(each["to"] is None for each in page["items"]) == [False, True, True]
    assert has_shape(page, PAGE)
    shown = json.loads(client.get(f"/fax/{known['done']}").data)
    assert (shown["status"], shown["to"]) == ("delivered", None)
    (decision,) = json.loads(client.get(f"/fax/{known['done']}/events").data)["decisions"]
    assert (decision["outcome"], decision["reason"]) == ("failed", None)
    assert (
        sum(rotation.progress(after.runtime).unknown.values())
        == sum(found.values()) - found["data_keys.key_sealed"]
    )


def test_a_process_that_runs_proves_nothing_with_a_key_of_the_trail_that_was_lost(
    opened: Opened,
) -> None:
    both = opened(NEW, OLD)
    audit.note(both.runtime, CLI, audit.Action.FAX_SEARCHED)
    both.runtime.notes.flush()
    switched(both)
    lost = opened_without(both, NEW)
    rotation.give_up(lost, CLI)
    lost.close()
    notice(both)
    with both.runtime.database.reading() as session:
        last = session.scalar(sa.select(sa.func.max(AuditEvent.id)))
    audit.note(both.runtime, CLI, audit.Action.FAX_SEARCHED)
    both.runtime.notes.flush(everything=True)
    key = trail.of(opened(NEW).runtime.database).known("default")
    assert key is not None
    with both.runtime.database.reading() as session:
        query = sa.select(table(AuditEvent)).where(AuditEvent.id > last)
        rows = [dict(row._mapping) for row in session.execute(query)]
    assert [trail.is_ours(key, row) for row in rows] == [True]


def opened_without(site: Site, key: str) -> Runtime:
    """A process that has this key alone, whatever the database says."""
    runtime = wiring.build(replace(site.runtime.config, master_key=key, master_key_previous=""))
    with suppress(KeyMissing):
        runtime.fresh()
    return runtime


def test_a_key_that_was_used_before_is_refused_while_hashes_of_it_live(opened: Opened) -> None:
    """A request that was sent before would be found no more: its hash was hashed under the key in between."""
    first = opened(OLD).submit("+15550107700", key="order-1")
    rotate(opened(NEW, OLD))
    back = opened(OLD, NEW)
    with pytest.raises(ConfigError, match="was used before"):
        rotate(back)
    assert back.submit("+15550107700", key="order-1").job_id == first.job_id
    assert masterkeys.stand(back.runtime.database).sealing == IDS[NEW]


def test_one_that_is_not_ended_raises_an_alarm(opened: Opened) -> None:
    site = opened(NEW, OLD)
    switched(site)
    site.now += timedelta(seconds=site.runtime.config.alarm_seconds - 60)
    assert alarms.raised(site.runtime) == []
    site.now += timedelta(seconds=120)
    assert [alarm.code for alarm in alarms.raised(site.runtime)] == ["master_key"]
    rotate(site)
    assert alarms.raised(site.runtime) == []


def test_what_is_saved_between_reading_and_writing_a_batch_stays(opened: Opened) -> None:
    site = opened(NEW, OLD)
    seen = site.runtime.settings.read().version
    deed = revisions.Deed(CLI, "a note")
    revisions.save(site.runtime, deed, {"": {"FAX_HEADER": "before"}}, seen=seen)
    switched(site)
    saved: list[int] = []

    def save(_c: Any, _cursor: Any, text: str, *_: Any) -> None:
        if "substr(config_entries.value_sealed" in text and "ORDER BY" in text and not saved:
            saved.append(1)
            wish = {"": {"FAX_HEADER": "meanwhile"}}
            revisions.save(site.runtime, deed, wish, seen=seen + 1)

    sa.event.listen(site.runtime.database.reader, "after_cursor_execute", save)
    rotate(site)

    assert saved == [1]
    assert opened(NEW).runtime.settings.read().config.fax_header == "meanwhile"


@pytest.mark.parametrize("overlap", [timedelta(), timedelta(days=1)])
def test_a_secret_that_is_rotated_between_reading_and_writing_a_batch_stays(
    opened: Opened, overlap: timedelta
) -> None:
    site = opened(NEW, OLD)
    webhook_id, first = subscribe(site.runtime, "https://hooks.example/faxes")
    switched(site)
    saved: list[str] = []

    def renew(_c: Any, _cursor: Any, text: str, *_: Any) -> None:
        if "substr(webhooks.secret_sealed" in text and "ORDER BY" in text and not saved:
            saved.append("")
            with site.runtime.database.transaction() as session:
                words: dict[str, Any] = {"overlap": overlap, "now": site.now}
                saved[0] = webhooks.rotate(session, site.runtime.keyring, CLI, webhook_id, **words)[
                    1
                ]

    sa.event.listen(site.runtime.database.reader, "after_cursor_execute", renew)
    rotate(site)

    after = opened(NEW).runtime
    live = webhooks.live_secrets(after.keyring, hook(after, webhook_id), site.now)
    assert [each.text for each in live] == ([saved[0], first] if overlap else [saved[0]])


# Killed anywhere ------------------------------------------------------------------------------------


class Killed(BaseException):
    """As SIGKILL: nothing of ours is asked."""


def test_whoever_is_killed_at_any_statement_is_followed_by_one_who_ends_it(opened: Opened) -> None:
    site = opened(OLD)
    known = fill(site)
    both = opened(NEW, OLD)
    numbers = [number() for _ in range(500)]
    statements, stop_at = 0, 1

    def count(*_: Any) -> None:
        nonlocal statements
        statements += 1
        if statements == stop_at:
            raise Killed

    database = both.runtime.database
    for engine in (database.engine, database.reader):
        sa.event.listen(engine, "before_cursor_execute", count)
    while True:
        statements = 0
        with suppress(Killed):
            if rotate(both) is not None:
                break
        stop_at += 1
        assert stop_at < 500
        statements = -10_000
        assert jobs.number(both.runtime, both.job(known["done"])).reveal() == known["to"]
        assert both.submit(numbers[stop_at], key=f"key-{stop_at}").status == 202
        identity.authenticate(both.runtime, known["key"])
    for engine in (database.engine, database.reader):
        sa.event.remove(engine, "before_cursor_execute", count)

    after = opened(NEW)
    progress = rotation.progress(after.runtime)
    assert (progress.state, progress.left, progress.unknown) == ("resting", {}, {})
    assert stop_at > 20
    for each in range(2, stop_at):
        assert after.submit(numbers[each], key=f"key-{each}").replayed is True


# Key files ------------------------------------------------------------------------------------------


def test_with_key_files_the_new_one_is_made_and_every_process_finds_it(
    store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(open_site(store, carrier_of_all))
        other = stack.enter_context(open_site(store, carrier_of_all))
        rotation.note_sealing(first.runtime.database, first.runtime.keyring, utcnow())
        notice(first, other)
        old = (store.data_dir / "master.key").read_bytes()
        fax = first.submit(number(), key="order-1").job_id

        assert rotation.rotate(first.runtime, CLI, wait=lambda _: notice(other)) is True

        new = (store.data_dir / "master.key").read_bytes()
        assert new != old
        assert not (store.data_dir / crypto.NEXT).exists()
        kept = store.data_dir / f"master.key.{crypto.id_of(old)}"
        assert kept.read_bytes() == old
        assert {path.stat().st_mode & 0o777 for path in store.data_dir.glob("master*")} == {0o600}
        notice(other)
        kept.unlink()
        third = stack.enter_context(open_site(store, carrier_of_all))
        for site in (first, other, third):
            assert site.runtime.keyring.current == crypto.id_of(new)
            assert jobs.number(site.runtime, site.job(fax)).reveal()


@pytest.mark.parametrize("is_noted", [False, True])
def test_no_key_file_is_made_for_a_database_in_which_something_is_sealed(
    store: Installation, carrier_of_all: SimulatorProcess, is_noted: bool
) -> None:
    with open_site(store, carrier_of_all) as site:
        fax = site.submit(number()).job_id
    if is_noted:
        rotation.admit(store.config())
    file, kept = store.data_dir / "master.key", store.folder / "kept.key"
    file.rename(kept)

    for words in (["keys", "list"], ["prepare"], ["config", "rotate-key"]):
        refused = run(store, *words)
        assert refused.code == 1
        assert "bring master.key back" in one_line(refused.err)
        assert list(store.data_dir.glob("master.key*")) == []

    kept.rename(file)
    with open_site(store, carrier_of_all) as site:
        assert jobs.number(site.runtime, site.job(fax)).reveal()


@pytest.mark.parametrize("role", ["web", "worker", "listen"])
def test_no_role_makes_a_key_file_for_it_either(
    embedded: Installation, carrier_of_all: SimulatorProcess, role: str
) -> None:
    with open_site(embedded, carrier_of_all) as site:
        site.submit(number())
    (embedded.data_dir / "master.key").unlink()

    ended = run_process(embedded, role, FAXBOT_PORT=str(free_port()))
    assert ended.code == 1
    assert "bring master.key back" in ended.err
    assert not (embedded.data_dir / "master.key").exists()


def test_nor_is_one_made_while_the_database_does_not_say_what_is_in_it(
    embedded: Installation,
) -> None:
    away = embedded.config(DATABASE_URL="postgresql://faxbot@127.0.0.1:9/faxbot")
    with pytest.raises(DatabaseAway):
        wiring.build(away)
    assert not (embedded.data_dir / "master.key").exists()


def test_a_process_that_runs_goes_on_without_its_key_file_and_makes_no_other(
    embedded: Installation, carrier_of_all: SimulatorProcess
) -> None:
    with open_site(embedded, carrier_of_all) as site:
        (embedded.data_dir / "master.key").unlink()
        assert not site.runtime.keyring.holds("0" * 12)
        assert jobs.number(site.runtime, site.job(site.submit(number()).job_id)).reveal()
        assert not (embedded.data_dir / "master.key").exists()


def test_a_key_file_that_is_lost_for_good_is_made_anew_when_that_is_said(
    store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    with open_site(store, carrier_of_all) as site:
        site.submit(number())
    (store.data_dir / "master.key").unlink()

    assert run(store, "config", "rotate-key", "--old-key-is-lost").code == 0
    assert run(store, "keys", "list").code == 0


@pytest.mark.parametrize("step", ["next made", "linked", "replaced"])
def test_key_files_are_found_wherever_their_change_was_interrupted(
    tmp_path: Path, step: str
) -> None:
    old = crypto.key_file(tmp_path / "master.key")
    new = crypto.key_file(tmp_path / crypto.NEXT)
    if step != "next made":
        (tmp_path / f"master.key.{crypto.id_of(old)}").hardlink_to(tmp_path / "master.key")
    if step == "replaced":
        crypto.promote(tmp_path)
    assert list(crypto.key_files(tmp_path)) == [crypto.id_of(old), crypto.id_of(new)]
    for _ in range(2):
        crypto.promote(tmp_path)
        assert list(crypto.key_files(tmp_path).values()) == [old, new]
        assert crypto.key_file(tmp_path / "master.key") == new


def test_files_of_a_backup_that_is_older_than_that_of_the_database_are_put_in_order(
    embedded: Installation, carrier_of_all: SimulatorProcess
) -> None:
    with open_site(embedded, carrier_of_all) as site:
        site.submit(number())
        rotate(site)
        second = site.runtime.keyring.current
    folder = embedded.data_dir
    (folder / "master.key").rename(folder / crypto.NEXT)
    (earlier,) = [path for path in folder.glob("master.key.*") if path.name != crypto.NEXT]
    earlier.rename(folder / "master.key")
    with open_site(embedded, carrier_of_all) as site:
        told: list[object] = []

        def tell(*what: object) -> None:
            told.append(what)
            assert len(told) < 50, "it does not end"

        assert rotation.rotate(site.runtime, CLI, told=tell, wait=nowhere) is True
        assert site.runtime.keyring.current not in (second, earlier.suffix[1:])
        assert rotation.progress(site.runtime).left == {}
        assert not (folder / crypto.NEXT).exists()


def test_a_new_key_file_that_is_promoted_as_it_is_read_is_made_no_second_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = crypto.key_file(tmp_path / "master.key")
    new = crypto.key_file(tmp_path / crypto.NEXT)
    exists, promoted = Path.exists, threading.Event()

    def exists_a_moment_ago(path: Path) -> bool:
        found = exists(path)
        if path.name == crypto.NEXT and not promoted.is_set():
            promoted.set()
            crypto.promote(tmp_path)
        return found

    monkeypatch.setattr(Path, "exists", exists_a_moment_ago)
    assert list(crypto.key_files(tmp_path).values()) == [old, new]
    assert promoted.is_set()
    assert not exists(tmp_path / crypto.NEXT)


def test_who_reads_key_files_while_they_change_finds_them_all_and_makes_none(
    tmp_path: Path,
) -> None:
    keys = [crypto.id_of(crypto.key_file(tmp_path / "master.key"))]
    stop = threading.Event()

    def read() -> int:
        found = 0
        while not stop.is_set():
            known = list(keys)
            assert set(known) <= set(crypto.key_files(tmp_path))
            found += 1
        return found

    with ThreadPoolExecutor(4) as others:
        readers = [others.submit(read) for _ in range(2)]
        try:
            for _ in range(40):
                keys.append(crypto.id_of(crypto.key_file(tmp_path / crypto.NEXT)))
                for each in [others.submit(crypto.promote, tmp_path) for _ in range(2)]:
                    each.result()
        finally:
            stop.set()
        assert all(reader.result() for reader in readers)
    assert not (tmp_path / crypto.NEXT).exists()
    assert set(crypto.key_files(tmp_path)) == set(keys)
