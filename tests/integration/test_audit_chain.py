"""The chain over the audit trail: every row is linked, however late it is committed, and whatever is done to the tables
afterwards shows. Who tampers here may do everything at the database, and has no master key."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError

from faxbot import audit, chain, crypto, masterkeys, sweeps, trail, verification
from faxbot.actors import CLI, Actor
from faxbot.audit import Action
from faxbot.chain import Head
from faxbot.db import table, utcnow
from faxbot.errors import ConfigError, DatabaseAway
from faxbot.models import AuditEvent, AuditLink, AuditWaiting, DataKey
from faxbot.runtime import Runtime
from faxbot.verification import Report, verify
from tests.integration.site import Site

EVENTS, LINKS, WAITING = table(AuditEvent), table(AuditLink), table(AuditWaiting)
DAY = timedelta(days=1)


def write(runtime: Runtime, count: int = 1, name: str = "abc", **more: Any) -> None:
    for _ in range(count):
        with runtime.database.transaction() as session:
            audit.record(session, CLI, Action.KEY_CREATED, ("key", name), now=runtime.now(), **more)


def take_back(runtime: Runtime, count: int) -> None:
    with runtime.database.transaction() as session:
        for _ in range(count):
            audit.record(session, CLI, Action.KEY_CREATED, now=runtime.now())
        raise ZeroDivisionError


def linked(runtime: Runtime, count: int) -> list[int]:
    """The ids of so many new rows, all linked, in order."""
    write(runtime, count)
    chain.link(runtime)
    return chained(runtime)


def chained(runtime: Runtime) -> list[int]:
    """The ids of the linked rows, in the order of the chain."""
    order = sa.select(LINKS.c.event_id).order_by(LINKS.c.position)
    return [row.event_id for row in runtime.database.rows(order, {})]


def tamper(runtime: Runtime, *statements: sa.Executable) -> None:
    """Do this at the database, whose owner can also switch its guards off and on."""
    names = ("audit_events", "audit_links")
    with runtime.database.transaction() as session:
        guards: list[str] = []
        if runtime.database.is_sqlite:
            found = (
                "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'audit%'"
            )
            for name, text in session.execute(sa.text(found)).all():
                guards.append(text)
                session.execute(sa.text(f"DROP TRIGGER {name}"))
        else:
            for name in names:
                session.execute(sa.text(f"ALTER TABLE {name} DISABLE TRIGGER ALL"))
                guards.append(f"ALTER TABLE {name} ENABLE TRIGGER ALL")
        for statement in statements:
            session.execute(statement)
        for text in guards:
            session.connection().exec_driver_sql(text)


def found(runtime: Runtime, **more: Any) -> list[str]:
    report = verify(runtime, **more)
    assert report.ok == (report.faults == [])
    assert report.fault_count == len(report.faults)
    return report.faults


def row(runtime: Runtime, number: int) -> dict[str, Any]:
    found = runtime.database.row(sa.select(EVENTS).where(EVENTS.c.id == number), {})
    assert found
    return found._asdict()


# Linking ------------------------------------------------------------------------------------------


def test_rows_are_linked_in_order_and_the_chain_is_sound(runtime: Runtime) -> None:
    ids = linked(runtime, 3)
    write(runtime)
    report = verify(runtime)

    assert len(ids) == 3
    assert ids == sorted(ids)
    assert (report.ok, report.links, report.first, report.waiting) == (True, 3, 1, 1)
    assert report.last == chain.end(runtime, "default")
    assert chain.link(runtime) == 1
    assert chain.link(runtime) == 0
    assert verify(runtime).links == 4


def test_a_trail_without_rows_is_sound(runtime: Runtime) -> None:
    assert chain.link(runtime) == 0
    assert verify(runtime) == Report()


def test_the_sweep_of_the_clock_links_within_its_period(site: Site) -> None:
    write(site.runtime)
    sweeps.run(site.runtime)

    assert len(chained(site.runtime)) == 1
    assert site.runtime.config.sweep_seconds <= 5.0


def test_more_than_a_batch_is_linked_at_once(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "BATCH", 3)
    monkeypatch.setattr(chain, "_NEXT", chain._NEXT.limit(3))
    monkeypatch.setattr(verification, "PAGE", 4)
    monkeypatch.setattr(verification, "WINDOW", 3)
    assert len(linked(runtime, 10)) == 10
    assert verify(runtime).links == 10


def test_a_row_of_a_transaction_that_ends_late_is_linked_although_younger_ones_are(
    on_postgresql: Site,
) -> None:
    """On SQLite one transaction writes at a time, and none can be late."""
    runtime = on_postgresql.runtime
    linked(runtime, 1)  # of the very first row the others wait: it makes the key
    with runtime.database.transaction() as late:
        audit.record(late, CLI, Action.KEY_CREATED, ("key", "late"), now=runtime.now())
        early = late.scalar(sa.text("SELECT max(id) FROM audit_events"))
        write(runtime, 2, "quick")
        assert chain.link(runtime) == 2
        before = chained(runtime)
        assert early not in before
        assert early < before[-1], "it shows nothing: the late one has the higher id"

    assert chain.link(runtime) == 1
    assert chained(runtime) == [*before, early]
    assert verify(runtime).ok


def test_a_row_whose_transaction_is_taken_back_leaves_nothing_to_link(runtime: Runtime) -> None:
    write(runtime)
    with pytest.raises(ZeroDivisionError):
        take_back(runtime, 1)
    assert chain.link(runtime) == 1
    assert verify(runtime).ok


def test_one_process_links_at_a_time(runtime: Runtime) -> None:
    write(runtime, 2)
    with runtime.database.writing() as connection:
        assert runtime.database.try_lock(connection, chain._LOCK)
        assert chain.link(runtime) == 0
    assert chain.link(runtime) == 2


def test_many_who_write_and_link_at_once_make_one_sound_chain(runtime: Runtime) -> None:
    def work() -> None:
        for _ in range(10):
            write(runtime, 2)
            chain.link(runtime)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    chain.link(runtime)

    report = verify(runtime)
    assert (report.faults, report.links, report.waiting) == ([], 80, 0)


def test_each_account_has_a_chain_of_its_own(runtime: Runtime) -> None:
    other = Actor("other", "abc", frozenset())
    write(runtime, 2)
    with runtime.database.transaction() as session:
        audit.record(session, other, Action.KEY_CREATED, now=runtime.now())
    chain.link(runtime)

    assert verify(runtime).links == 2
    assert verify(runtime, "other").links == 1


def test_linking_costs_the_same_however_long_the_trail_is(on_postgresql: Site) -> None:
    """Behind thousands of linked rows no statement walks through them."""
    runtime, walks = on_postgresql.runtime, list[str]()
    linked(runtime, 1)
    more = "generate_series(1, 8000) AS i"
    changes = "jsonb_build_object('id', 1000 + i, 'proof', md5(i::text))"
    row = f"(jsonb_populate_record(audit_events, {changes})).*"
    link = "'default', i + 1, i + 1000, mac, linked_at"
    copies = (
        f"INSERT INTO audit_events SELECT {row} FROM audit_events, {more}",
        f"INSERT INTO audit_links SELECT {link} FROM audit_links, {more}",
        "DELETE FROM audit_waiting",
    )
    tamper(runtime, *map(sa.text, copies))
    with runtime.database.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql(
            "ANALYZE audit_events, audit_links, audit_waiting"
        )

    def explain(connection: sa.Connection, _cursor: Any, text: str, values: Any, *_: Any) -> None:
        if text.startswith(("SELECT", "DELETE")):
            cursor = connection.connection.cursor()
            cursor.execute(f"EXPLAIN {text}", values[0] if isinstance(values, list) else values)
            plan = str(cursor.fetchall())
            cursor.close()
            if re.search(r"Seq Scan on audit_(events|links)\b", plan):
                walks.append(plan)

    for engine in (runtime.database.engine, runtime.database.reader):
        sa.event.listen(engine, "before_cursor_execute", explain)
    with runtime.database.transaction() as session:
        session.execute(sa.text("SELECT setval('audit_events_id_seq', 20000)"))
    write(runtime, 3)
    assert chain.link(runtime) == 3
    assert walks == []


# Tampering ----------------------------------------------------------------------------------------


def test_a_changed_row_is_named(runtime: Runtime) -> None:
    ids = linked(runtime, 5)
    tamper(runtime, sa.update(EVENTS).where(EVENTS.c.id == ids[2]).values(actor="somebody else"))

    assert found(runtime) == [f"row {ids[2]} (link 3) was changed"]


@pytest.mark.parametrize(
    "column",
    [
        "happened_at", "actor_kind", "actor", "action", "object_kind", "object_id", "outcome", "request_id",
        "address", "details", "proof",
    ],
)  # fmt: skip
def test_every_column_of_a_row_is_guarded(runtime: Runtime, column: str) -> None:
    ids = linked(runtime, 2)
    value: Any = {"happened_at": utcnow(), "details": {"a": 1}}.get(column, "x")
    tamper(runtime, sa.update(EVENTS).where(EVENTS.c.id == ids[0]).values({column: value}))

    assert found(runtime) == [f"row {ids[0]} (link 1) was changed"]


def test_a_removed_row_is_named_whether_its_link_went_with_it_or_not(runtime: Runtime) -> None:
    ids = linked(runtime, 6)
    tamper(
        runtime,
        sa.delete(EVENTS).where(EVENTS.c.id.in_([ids[1], ids[3], ids[4]])),
        sa.delete(LINKS).where(LINKS.c.event_id.in_(ids[3:5])),
    )

    assert found(runtime) == [
        f"row {ids[1]} (link 2) was removed",
        "links 4 to 5 are gone: the rows were removed, or their links",
    ]


def test_a_removed_beginning_is_noticed(runtime: Runtime) -> None:
    ids = linked(runtime, 3)
    tamper(
        runtime,
        sa.delete(EVENTS).where(EVENTS.c.id == ids[0]),
        sa.delete(LINKS).where(LINKS.c.event_id == ids[0]),
    )
    assert found(runtime) == ["link 1 is gone: the rows were removed, or their links"]


def test_re_ordered_rows_are_named(runtime: Runtime) -> None:
    ids = linked(runtime, 5)
    swap = sa.update(LINKS)
    tamper(
        runtime,
        swap.where(LINKS.c.position == 2).values(event_id=0),
        swap.where(LINKS.c.position == 4).values(event_id=ids[1]),
        swap.where(LINKS.c.position == 2).values(event_id=ids[3]),
    )
    why = "does not belong here: rows were re-ordered or put in, or the link was changed"
    assert found(runtime) == [f"row {ids[3]} (link 2) {why}", f"row {ids[1]} (link 4) {why}"]


def forged(runtime: Runtime, like: int, number: int, **changes: Any) -> sa.Insert:
    new = {"id": number, "proof": f"{number:016}.{'0' * 64}"}
    return sa.insert(EVENTS).values({**row(runtime, like), **new, **changes})


def test_a_row_that_faxbot_did_not_write_is_named_although_it_was_linked(runtime: Runtime) -> None:
    """It was put in where rows are waiting, so the sweep took it."""
    ids = linked(runtime, 2)
    strange = ids[-1] + 1000
    with runtime.database.transaction() as session:  # the guards forbid no new rows
        session.execute(forged(runtime, ids[0], strange, actor="mallory"))
    assert found(runtime) == [f"row {strange} (not linked yet) was changed or inserted"]
    chain.link(runtime)

    why = "was inserted: it was linked as it is, and faxbot did not write it"
    assert found(runtime) == [f"row {strange} (link 3) {why}"]


@pytest.mark.parametrize("number", [-1, -5, -(2**63)])
def test_a_row_that_was_put_in_before_the_first_and_is_hidden_from_the_sweep_is_named(
    runtime: Runtime, number: int
) -> None:
    ids = linked(runtime, 2)
    with runtime.database.transaction() as session:  # the guards forbid neither
        session.execute(forged(runtime, ids[0], number, actor="mallory"))
        session.execute(sa.delete(WAITING))
    assert found(runtime) == [f"row {number} lost its link"]
    assert len(linked(runtime, 1)) == 3, "it keeps nobody from writing"


@pytest.mark.parametrize("place", [{"position": 0}, {"position": -1}, {"account_id": "other"}])
def test_a_row_that_is_hidden_by_a_link_of_no_chain_is_named(
    runtime: Runtime, place: dict[str, Any]
) -> None:
    ids = linked(runtime, 2)
    strange = ids[-1] + 1000
    link = {"account_id": "default", "event_id": strange, "mac": "0" * 64, "linked_at": utcnow()}
    with runtime.database.transaction() as session:  # the guards forbid none of it
        session.execute(forged(runtime, ids[0], strange, actor="mallory"))
        session.execute(sa.insert(LINKS).values({**link, "position": 7, **place}))
        session.execute(sa.update(WAITING).values(account_id="other"))
    assert found(runtime) == [f"row {strange} lost its link"]


def test_a_row_whose_id_is_as_high_as_can_be_keeps_nobody_from_an_answer(runtime: Runtime) -> None:
    ids = linked(runtime, 2)
    with runtime.database.transaction() as session:
        session.execute(forged(runtime, ids[0], 2**63 - 1))
    chain.link(runtime)
    assert len(found(runtime)) == 1


@pytest.mark.parametrize(("of", "name"), [(EVENTS, "proof"), (LINKS, "mac")])
def test_a_proof_of_any_characters_is_only_a_wrong_one(
    runtime: Runtime, of: sa.Table, name: str
) -> None:
    ids = linked(runtime, 2)
    mine = of.c.id == ids[0] if of is EVENTS else of.c.event_id == ids[0]
    tamper(runtime, sa.update(of).where(mine).values({name: "é"}))
    assert found(runtime)[0].startswith(f"row {ids[0]} (link 1) ")


def test_a_row_that_was_put_in_with_a_link_of_its_own_is_named(runtime: Runtime) -> None:
    ids = linked(runtime, 3)
    strange = ids[-1] + 1000
    link = {"account_id": "default", "event_id": strange, "mac": "0" * 64, "linked_at": utcnow()}
    tamper(
        runtime,
        forged(runtime, ids[0], strange, actor="mallory"),
        sa.insert(LINKS).values({**link, "position": 4}),
    )
    assert found(runtime) == [f"row {strange} (link 4) was changed"]


def test_the_database_refuses_a_copy_of_a_row_and_one_past_its_refusal_is_named(
    runtime: Runtime,
) -> None:
    ids = linked(runtime, 3)
    strange = ids[-1] + 1000
    copy = forged(runtime, ids[0], strange, proof=row(runtime, ids[0])["proof"])
    for statement in (copy, copy.prefix_with("OR REPLACE", dialect="sqlite")):
        with pytest.raises(DBAPIError), runtime.database.transaction() as session:
            session.execute(statement)
    if runtime.database.is_sqlite:
        return  # its owner must build the whole table anew to have one
    constraint = "ALTER TABLE audit_events DROP CONSTRAINT uq_audit_events_proof"
    with runtime.database.transaction() as session:
        session.execute(sa.text(constraint))
        session.execute(copy)
    chain.link(runtime)

    assert found(runtime) == [f"row {strange} (link 4) is a copy of row {ids[0]}"]


def test_a_row_that_is_removed_before_it_is_linked_is_named(runtime: Runtime) -> None:
    ids = linked(runtime, 1)
    write(runtime, 2)
    tamper(runtime, sa.delete(EVENTS).where(EVENTS.c.id == ids[0] + 1))

    assert found(runtime) == [f"row {ids[0] + 1} was removed before it was linked"]
    assert chain.link(runtime) == 1


def test_a_row_that_lost_its_link_is_named(runtime: Runtime) -> None:
    ids = linked(runtime, 3)
    tamper(runtime, sa.delete(LINKS).where(LINKS.c.position == 2))

    assert found(runtime) == [
        "link 2 is gone: the rows were removed, or their links",
        f"row {ids[1]} lost its link",
    ]


def test_who_rebuilds_the_chain_without_the_key_is_found(runtime: Runtime) -> None:
    """Every row and link is there, in order, with MACs over what was changed, under another key."""
    ids = linked(runtime, 3)
    key, before = b"k" * 32, ""
    statements: list[sa.Executable] = []
    for position, number in enumerate(ids, 1):
        old = row(runtime, number) | {"actor": "nobody"}
        old["proof"] = trail.proof(key, old, "0" * 16)
        link = {"position": position, "event_id": number, "linked_at": utcnow()}
        before = chain.mac_of(key, before, link, old)
        statements += [
            sa.update(EVENTS).where(EVENTS.c.id == number).values(old),
            sa.update(LINKS).where(LINKS.c.position == position).values({**link, "mac": before}),
        ]
    tamper(runtime, *statements)

    assert len([fault for fault in found(runtime) if fault.endswith("was changed")]) == 3


def test_without_its_key_nothing_is_proven(runtime: Runtime) -> None:
    linked(runtime, 1)
    tamper(runtime, sa.delete(table(DataKey)))
    trail.attach(runtime.database, runtime.keyring)  # as a process that has just started

    assert found(runtime) == ["the key of the trail is gone: nothing in it can be proven"]


def test_faults_are_counted_and_the_first_hundred_told(runtime: Runtime) -> None:
    linked(runtime, 120)
    tamper(runtime, sa.update(EVENTS).values(actor="x"))
    report = verify(runtime)

    assert (report.fault_count, len(report.faults)) == (120, 100)


def test_only_what_was_linked_since_is_looked_at(runtime: Runtime) -> None:
    now = runtime.now()
    earlier, later = (replace(runtime, now=lambda at=at: at) for at in (now - DAY, now))  # type: ignore[misc]
    first = linked(earlier, 3)[0]
    linked(later, 2)
    tamper(runtime, sa.update(EVENTS).where(EVENTS.c.id == first).values(actor="x"))

    report = verify(runtime, since=now - DAY / 2)
    assert (report.ok, report.first, report.links) == (True, 4, 2)
    assert verify(runtime, since=now + DAY).links == 0
    assert not verify(runtime).ok


def test_a_long_chain_is_verified_in_parts(runtime: Runtime) -> None:
    ids = linked(runtime, 5)
    tamper(runtime, sa.update(EVENTS).where(EVENTS.c.id == ids[4]).values(actor="x"))
    reports, after = list[Report](), 0
    while not reports or reports[-1].more:
        reports.append(verify(runtime, after=after, most=2))
        after = reports[-1].last.position if reports[-1].last else 0

    assert [(each.first, each.links, each.ok) for each in reports] == [
        (1, 2, True),
        (3, 2, True),
        (5, 1, False),
    ]


# Its end ------------------------------------------------------------------------------------------


def cut_off(runtime: Runtime, ids: list[int]) -> None:
    tamper(
        runtime,
        sa.delete(EVENTS).where(EVENTS.c.id.in_(ids)),
        sa.delete(LINKS).where(LINKS.c.event_id.in_(ids)),
    )


def test_an_end_that_is_cut_off_shows_in_what_this_machine_has_noted(runtime: Runtime) -> None:
    ids = linked(runtime, 5)
    assert verify(runtime).heads == 1
    cut_off(runtime, ids[3:])

    (fault,) = found(runtime)
    assert re.match(
        r"the end is cut off: the chain ends at link 3, and at 20.*Z it ended at 5, so 2 are gone",
        fault,
    )


def test_a_chain_that_went_on_where_it_was_cut_off_shows_as_well(runtime: Runtime) -> None:
    ids = linked(runtime, 5)
    cut_off(runtime, ids[3:])
    linked(runtime, 4)

    (fault,) = found(runtime)
    assert fault.startswith("link 5 is not the one that was noted at 20")


def test_without_a_note_an_end_that_is_cut_off_is_not_seen_but_with_a_head_of_before(
    runtime: Runtime,
) -> None:
    ids = linked(runtime, 5)
    head = chain.end(runtime, "default")
    assert head
    chain.heads_file(runtime.config).unlink()
    cut_off(runtime, ids[3:])

    assert verify(runtime).heads == 0
    assert found(runtime) == []
    assert len(found(runtime, known=[Head(head.position, head.mac)])) == 1
    assert verify(runtime, known=[Head(1, "0" * 64)]).fault_count == 1


def test_the_notes_of_ends_are_private_and_grow_thin(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(chain, "_THIN_AT", 2000)
    caplog.set_level(logging.INFO, "faxbot.chain")
    start = runtime.now().replace(minute=0, second=0)
    for minute in range(0, 5 * 24 * 60, 20):
        at = start + timedelta(minutes=minute)
        linked(replace(runtime, now=lambda at=at: at), 1)  # type: ignore[misc]
    noted = chain.heads(runtime.config, "default")
    positions = [head.position for head in noted]

    assert chain.heads_file(runtime.config).stat().st_mode & 0o077 == 0
    assert positions == sorted(positions)
    assert positions[-1] == 360
    assert positions[-72:] == list(range(289, 361)), "of the last day each is kept"
    assert len(noted) < 72 + 5 * 24
    hourly = [record for record in caplog.records if record.message == "audit head"]
    assert len(hourly) == 120
    assert {"position", "mac"} <= hourly[0].__dict__.keys()
    assert verify(runtime).heads == len(noted)


def test_a_damaged_note_is_passed_over(runtime: Runtime) -> None:
    linked(runtime, 1)
    with chain.heads_file(runtime.config).open("a") as file:
        file.write("default 7 torn\n\n")
    linked(runtime, 1)
    assert verify(runtime).heads == 2


# The key ------------------------------------------------------------------------------------------


def test_the_trail_outlives_its_master_key(runtime: Runtime) -> None:
    """Only its one key is sealed anew, and the old rows stay as they are."""
    linked(runtime, 2)
    place, keys = masterkeys.place("default", trail.KEY_NAME), table(DataKey)
    sealed = runtime.database.row(sa.select(keys), {})
    assert sealed
    ring = crypto.Keyring({"new": b"n" * 32}, "new")
    again = ring.seal(runtime.keyring.open(sealed.key_sealed, place), place)
    with runtime.database.transaction() as session:
        session.execute(sa.update(keys).values(key_sealed=again))
    trail.attach(runtime.database, ring)
    linked(runtime, 2)

    assert verify(runtime).ok
    assert verify(runtime).links == 4


def test_with_a_wrong_master_key_nothing_is_written_and_the_setting_is_named(
    runtime: Runtime,
) -> None:
    linked(runtime, 1)
    trail.attach(runtime.database, crypto.Keyring({"other": b"o" * 32}, "other"))

    with pytest.raises(ConfigError, match="CONFIG_MASTER_KEY"):
        write(runtime)
    with pytest.raises(ConfigError, match="CONFIG_MASTER_KEY"):
        verify(runtime)


def test_a_first_row_that_is_taken_back_takes_its_key_with_it(runtime: Runtime) -> None:
    with pytest.raises(ZeroDivisionError):
        take_back(runtime, 2)
    linked(runtime, 2)

    trail.attach(runtime.database, runtime.keyring)  # as another process sees it
    assert found(runtime) == []


# The guards of the database -----------------------------------------------------------------------


@contextmanager
def refused() -> Iterator[None]:
    with pytest.raises(DBAPIError, match="audit trail is kept"):
        yield


def test_the_links_are_guarded_like_the_rows(runtime: Runtime) -> None:
    linked(runtime, 2)
    for statement in (sa.update(LINKS).values(mac="x"), sa.delete(LINKS)):
        with refused(), runtime.database.transaction() as session:
            session.execute(statement)


def test_nothing_is_replaced_by_a_new_row_of_the_same_id(runtime: Runtime) -> None:
    ids = linked(runtime, 2)
    same = row(runtime, ids[0]) | {"actor": "mallory"}
    link = {
        "account_id": "default",
        "position": 1,
        "event_id": 99,
        "mac": "x",
        "linked_at": utcnow(),
    }
    attempts = (
        [
            sa.insert(EVENTS).prefix_with("OR REPLACE").values(same),
            sa.insert(LINKS).prefix_with("OR REPLACE").values(link),
            sa.insert(LINKS).prefix_with("OR REPLACE").values({**link, "position": 9, "event_id": ids[0]}),
        ]
        if runtime.database.is_sqlite
        else [
            postgresql.insert(EVENTS)
            .values(same)
            .on_conflict_do_update(index_elements=["id"], set_={"actor": "mallory"})
        ]
    )  # fmt: skip
    for statement in attempts:
        with refused(), runtime.database.transaction() as session:
            session.execute(statement)
    if runtime.database.is_sqlite:
        by_place = (
            "INSERT OR REPLACE INTO audit_links (rowid, account_id, position, event_id, mac, linked_at) "
            "VALUES (1, 'default', 9, 99, 'x', '2026-01-01')"
        )
        with pytest.raises(DatabaseAway), runtime.database.transaction() as session:
            session.execute(sa.text(by_place))  # there is no such place
    assert verify(runtime).ok
