"""A new master key while everything runs: what is sealed opens all the time, what is known by a hash is found, nobody
is called twice, and nothing that the old key could open is left."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from faxbot import (
    addresses,
    alarms,
    crypto,
    identity,
    jobs,
    masterkeys,
    resealing,
    revisions,
    rotation,
    routing,
    sending,
    wiring,
)
from faxbot.actors import CLI
from faxbot.crypto import Keyring
from faxbot.db import Base, new_id, utcnow
from faxbot.errors import ConfigError, KeyMissing, KeyReused, Unauthenticated
from faxbot.hidden import Hidden
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
    ProvenStep,
)
from faxbot.plugins.base import Receipt, State, Update
from faxbot.resealing import STORES, Change
from tests.carrier import SimulatorProcess
from tests.installation import Installation
from tests.integration.site import Site, number, open_site
from tests.integration.web import client_of, new_key

OLD, NEW, NEWER = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2, 3))
IDS = {key: crypto.id_of(base64.b64decode(key)) for key in (OLD, NEW, NEWER)}
Opened = Callable[..., Any]


def nowhere(_seconds: float) -> None:
    """Nobody need be waited for: every process of these tests looks when it is asked to."""


@pytest.fixture
def opened(store: Installation, carrier_of_all: SimulatorProcess) -> Iterator[Opened]:
    """opened(key, previous): a process of the installation with these master keys, which knows how it stands."""
    with ExitStack() as stack:

        def opening(key: str, previous: str = "") -> Site:
            keys = {"CONFIG_MASTER_KEY": key, "CONFIG_MASTER_KEY_PREVIOUS": previous}
            site = stack.enter_context(open_site(store, carrier_of_all, **keys))
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


def switched(site: Site) -> None:
    """The new key seals; nothing is sealed anew yet."""
    stand = masterkeys.stand(site.runtime.database)
    new = site.runtime.keyring.ids[-1]
    rotation._announce(site.runtime, str(stand.sealing), new, nowhere)
    rotation._switch(site.runtime, CLI, str(stand.sealing), new)


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
    "jobs.to_key", "lanes.to_key", "proven_steps.to_key", "idempotency_keys.key_hash",
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
    with runtime.database.transaction() as session:
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
            ProvenStep(
                to_key=site.job(done).to_key, provider_id="simulator", step=2, updated_at=site.now
            )
        )
        cached = runtime.keyring.seal(b"token", "plugin_cache.value:default:simulator")
        session.add(CachedValue(plugin_id="simulator", name="t", value_sealed=cached))
        sealed = runtime.keyring.seal(b"k" * 32, masterkeys.place("default", "other"))
        session.add(DataKey(name="other", key_sealed=sealed, created_at=site.now))
    wish = {"simulator": {"secret": site.carrier.secret}}
    seen = runtime.settings.read().version
    revisions.save(runtime, revisions.Deed(CLI, "a note"), wish, seen=seen)
    notice(site)
    return {"to": to, "answer": answer, "done": done, "key": key}


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
    job = after.job(known["done"])
    assert jobs.number(after.runtime, job).reveal() == known["to"]
    assert jobs.header(after.runtime, job).reveal() == "Dr. Doe"
    assert job.to_key == jobs.number_key(after.runtime, Hidden(known["to"]))
    assert after.runtime.settings.read().of_plugin("simulator")["secret"] == after.carrier.secret
    assert revisions.saved_at(after.runtime, 1)["simulator"] == {"secret": after.carrier.secret}
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
    switched(soon)
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
    with pytest.raises(KeyMissing, match=r"give it as CONFIG_MASTER_KEY.*1 values do not open"):
        rotation.admit(config)
    rotation.admit(replace(config, master_key_previous=OLD))
    assert masterkeys.stand(site.runtime.database).sealing == IDS[OLD]


def test_with_the_key_lost_it_goes_on_with_a_new_one_and_says_what_is_lost(opened: Opened) -> None:
    site = opened(OLD)
    known = fill(site)
    with pytest.raises(ConfigError, match="is not lost"):
        rotation.give_up(site.runtime, CLI)
    config = replace(site.runtime.config, master_key=NEW)
    lost = wiring.build(config)
    with suppress(KeyMissing):
        lost.fresh()
    found = rotation.give_up(lost, CLI)
    lost.close()
    assert found["jobs.to_sealed"] == 2

    after = opened(NEW)
    with pytest.raises(Unauthenticated):
        identity.authenticate(after.runtime, known["key"])
    identity.authenticate(after.runtime, new_key(after.runtime))
    assert after.submit(number()).status == 202
    assert (
        sum(rotation.progress(after.runtime).unknown.values())
        == sum(found.values()) - found["data_keys.key_sealed"]
    )


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
