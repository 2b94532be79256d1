"""What goes on all the time takes no longer when there are a million faxes that are done: no statement walks through
them. On PostgreSQL, which says how it would go about each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from psycopg import sql

from faxbot import (
    alarms,
    auditors,
    claims,
    configuration,
    deliveries,
    health,
    inbound,
    jobs,
    oversight,
    replays,
    sending,
)
from faxbot.dialling import Answer
from faxbot.errors import Unreachable
from faxbot.events import Status
from faxbot.jobs import Filters
from faxbot.models import Job, WebhookDelivery
from faxbot.web.console.faxes import TABS
from tests.carrier import SimulatorProcess
from tests.installation import Stores
from tests.integration import hooks, odd
from tests.integration.odd import raises
from tests.integration.site import ACTOR, Site, number, open_site

OLD_ID = "'00' || substr(md5(i::text), 3)"  # ids begin with their time
DONE = [
    (
        "INSERT INTO jobs SELECT (jsonb_populate_record(jobs, jsonb_build_object("
        f"'id', {OLD_ID}, 'status', 'queued', 'to_key', md5((i / 4)::text)))).* "
        "FROM jobs, generate_series(1, 8000) AS i"
    ),
    "UPDATE jobs SET status = 'cancelled', next_at = NULL, waiting = NULL WHERE status = 'queued'",
    (
        "INSERT INTO attempts SELECT (jsonb_populate_record(attempts, jsonb_build_object("
        f"'id', {OLD_ID}, 'job_id', {OLD_ID}, 'tag', md5(i::text), 'external_id', i::text, "
        "'answered_at', now() - i * interval '1 hour'))).* FROM attempts, generate_series(1, 8000) AS i"
    ),
    (
        "INSERT INTO events SELECT (jsonb_populate_record(events, jsonb_build_object("
        f"'id', 1000000 + i, 'job_id', {OLD_ID}))).* "
        "FROM events, generate_series(1, 8000) AS i WHERE sequence = 1"
    ),
    (
        "INSERT INTO callbacks SELECT (jsonb_populate_record(callbacks, jsonb_build_object("
        "'id', md5(i::text), 'key', md5(i::text), 'applied_at', now(), 'next_at', NULL))).* "
        "FROM callbacks, generate_series(1, 8000) AS i"
    ),
    "ANALYZE jobs, attempts, events, callbacks",
]

UNDER_WAY = [
    (
        "INSERT INTO jobs SELECT (jsonb_populate_record(jobs, jsonb_build_object("
        f"'id', {OLD_ID}, 'status', 'queued'))).* FROM jobs, generate_series(1, 8000) AS i"
    ),
    "UPDATE jobs SET status = 'submitting' WHERE status = 'queued'",
    "UPDATE jobs SET status = 'sent' WHERE status = 'submitting'",
    (
        "INSERT INTO attempts SELECT (jsonb_populate_record(attempts, jsonb_build_object("
        f"'id', {OLD_ID}, 'job_id', {OLD_ID}, 'tag', md5(i::text), 'external_id', i::text))).* "
        "FROM attempts, generate_series(1, 8000) AS i"
    ),
    "ANALYZE jobs, attempts",
]


@pytest.fixture
def walked(on_postgresql: Site) -> list[str]:
    """Beside thousands of faxes that are done: the statements that would walk through them."""
    site, found = on_postgresql, list[str]()
    site.receive(site.callback(site.final_at_carrier(site.sent("0044"))))
    with site.runtime.database.transaction() as session:
        for statement in DONE:
            session.execute(sa.text(statement))

    def explain(connection: sa.Connection, _cursor: Any, text: str, values: Any, *_: Any) -> None:
        if text.lstrip().startswith(("SELECT", "UPDATE", "DELETE")):
            cursor = connection.connection.cursor()
            cursor.execute(f"EXPLAIN {text}", values)
            plan = str(cursor.fetchall())
            cursor.close()
            if re.search(r"Seq Scan on (jobs|attempts|events|callbacks)\b", plan):
                found.append(f"{text}\n{plan}")

    for engine in (site.runtime.database.engine, site.runtime.database.reader):
        sa.event.listen(engine, "before_cursor_execute", explain)
    return found


def test_nothing_that_goes_on_all_the_time_walks_through_what_is_done(
    on_postgresql: Site, walked: list[str]
) -> None:
    site, to = on_postgresql, number()
    for fax in (site.fax_to(to), site.fax_to(to), site.fax("0017"), site.fax("0504")):
        sending.attempt(site.runtime, fax)
    site.after(600)
    site.odd.does["send"] = raises(Unreachable())
    for _ in range(6):
        site.sent()
    site.now += timedelta(seconds=31)
    site.sweep()
    health.ready(site.runtime)
    oversight.provider(site.runtime, ACTOR, "simulator")
    for statuses in ((Status.HELD,), *(behind for _, behind in TABS.values())):
        asked = Filters(statuses=tuple(each.value for each in statuses))
        jobs.page(site.runtime, ACTOR, asked, limit=50, cursor=None)

    assert walked == []


@pytest.mark.usefixtures("walked")
def test_a_list_of_a_provider_that_has_few_faxes_walks_through_no_others(
    on_postgresql: Site,
) -> None:
    plans: list[str] = []
    with on_postgresql.runtime.database.transaction() as session:
        seldom = "UPDATE jobs SET provider_id = 'seldom' WHERE id IN (SELECT min(id) FROM jobs)"
        session.execute(sa.text(seldom))
        session.execute(sa.text("ANALYZE jobs"))

    def explain(connection: sa.Connection, _cursor: Any, text: str, values: Any, *_: Any) -> None:
        cursor = connection.connection.cursor()
        cursor.execute(f"EXPLAIN ANALYZE {text}", values)
        plans.extend(line for (line,) in cursor.fetchall())
        cursor.close()

    runtime, asked = on_postgresql.runtime, Filters(provider_id="seldom")
    sa.event.listen(runtime.database.reader, "before_cursor_execute", explain)
    found, _ = jobs.page(runtime, ACTOR, asked, limit=50, cursor=None)

    assert len(found) == 1
    assert plans
    assert not [line for line in plans if "Removed by Filter" in line]


def plan_for_all_values(connection: sa.Connection, text: str, values: dict[str, Any]) -> str:
    """The one that PostgreSQL makes once, and takes for what is asked often."""
    places: dict[str, str] = {}
    numbered = re.sub(
        r"%\((\w+)\)s", lambda name: places.setdefault(name[1], f"${len(places) + 1}"), text
    )
    given = sql.SQL(", ").join(sql.Literal(values[name]) for name in places)
    cursor = connection.connection.cursor()
    cursor.execute("SET plan_cache_mode = force_generic_plan")
    cursor.execute(f"PREPARE asked AS {numbered}")
    cursor.execute(sql.SQL("EXPLAIN EXECUTE asked" + "({})" * bool(places)).format(given))
    plan = str(cursor.fetchall())
    cursor.execute("DEALLOCATE asked")
    cursor.close()
    return plan


def test_fitness_is_asked_without_a_walk_through_what_is_under_way(on_postgresql: Site) -> None:
    site, walks = on_postgresql, list[str]()
    others = {"never_used": ("send_fax", "listens", "accepts:image/tiff")}
    site.runtime = replace(site.runtime, plugins=odd.plugins(site.runtime, others=others))
    site.sent()
    with site.runtime.database.transaction() as session:
        for statement in UNDER_WAY:
            session.execute(sa.text(statement))

    def explain(connection: sa.Connection, _cursor: Any, text: str, values: Any, *_: Any) -> None:
        if text.startswith("SELECT"):
            plan = plan_for_all_values(connection, text, values)
            if re.search(r"Seq Scan on (jobs|attempts)\b", plan):
                walks.append(f"{text}\n{plan}")

    for engine in (site.runtime.database.engine, site.runtime.database.reader):
        sa.event.listen(engine, "before_cursor_execute", explain)
    health.ready(site.runtime)

    assert walks == []


def test_on_sqlite_what_is_due_is_announced_without_a_walk_through_what_is_done(
    stores: Stores, carrier_of_all: SimulatorProcess
) -> None:
    plans: list[str] = []

    def explain(connection: sa.Connection, _cursor: Any, text: str, values: Any, *_: Any) -> None:
        if text.startswith(("SELECT", "UPDATE")):
            cursor = connection.connection.cursor()
            cursor.execute(f"EXPLAIN QUERY PLAN {text}", values)
            plans.extend(str(step) for *_, step in cursor.fetchall())
            cursor.close()

    with open_site(stores.embedded(), carrier_of_all) as site:
        site.fax_to(number())
        site.now += timedelta(minutes=10)
        sa.event.listen(site.runtime.database.engine, "before_cursor_execute", explain)
        assert site.runtime.database.is_sqlite
        claims.announce_due(site.runtime, Status.QUEUED)

    assert len(plans) >= 3
    assert [plan for plan in plans if "SCAN jobs" in plan] == []


_LEDGER = "jobs|artifacts|events|attempts|idempotency_keys"


def test_on_sqlite_a_batch_of_retention_reads_what_it_removes_and_no_more(
    stores: Stores, carrier_of_all: SimulatorProcess
) -> None:
    """All faxes are of one account: who looks for what is of it looks at everything, for each batch."""
    read, whole = list[str](), list[str]()

    def explain(connection: sa.Connection, _c: Any, text: str, values: Any, *_: Any) -> None:
        if re.match("(SELECT|UPDATE|DELETE)", text):
            plan = plan_of(connection, text, values)
            read.extend(re.findall(rf"SEARCH ({_LEDGER})", plan))
            if re.search(
                rf"SCAN ({_LEDGER})(?! USING (COVERING )?INDEX ix_)|\(account_id=\?\)'", plan
            ):
                whole.append(f"{text}\n{plan}")

    with open_site(stores.embedded(), carrier_of_all) as site:
        jobs.cancel(site.runtime, ACTOR, site.fax())
        for engine in (site.runtime.database.engine, site.runtime.database.reader):
            sa.event.listen(engine, "before_cursor_execute", explain)
        for _ in range(2):
            site.now += timedelta(days=31)
            site.purge()
        assert set(read) == set(_LEDGER.split("|"))
        assert whole == []
        assert site.runtime.database.rows(sa.select(Job.id), {}) == [], "all of it was tried"


DELIVERED = (
    "INSERT INTO webhook_deliveries (id, account_id, webhook_id, fax_id, sequence, type, body, status, tries, turn, "
    "replays, created_at, ended_at) SELECT 'msg_' || {text}, 'default', '{webhook_id}', {text}, 1, 'FAX_QUEUED', '', "
    "'delivered', 0, 0, 0, {now}, {now} FROM {numbers}"
)
NUMBERS = {
    "postgresql": ("lpad(i::text, 32, '0')", "generate_series(1, 8000) AS i", "now()"),
    "sqlite": (
        "printf('%032d', value)",
        "json_each('[' || trim(replace(hex(zeroblob(4000)), '00', ',1'), ',') || ']')",
        "'2026-11-21 12:00:00.000000'",
    ),
}


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_deliveries_go_on_without_a_walk_through_those_that_are_done(
    kind: str, request: pytest.FixtureRequest, stores: Stores, carrier_of_all: SimulatorProcess
) -> None:
    with ExitStack() as stack:
        if kind == "postgresql":
            site: Site = request.getfixturevalue("on_postgresql")
            site.runtime = replace(site.runtime, config=site.runtime.config)
        else:
            site = stack.enter_context(open_site(stores.embedded(), carrier_of_all))
        runtime, walks = site.runtime, list[str]()
        webhook_id, _ = hooks.subscribe(runtime, "https://hooks.example.org/")
        text, numbers, now = NUMBERS[kind]
        text = text.replace("value", "key")
        done = DELIVERED.format(text=text, numbers=numbers, now=now, webhook_id=webhook_id)
        site.submit(number())
        with runtime.database.transaction() as session:
            session.execute(sa.text(done))
            session.execute(sa.text("ANALYZE"))
        assert site.count(WebhookDelivery) > 3000

        def explain(connection: sa.Connection, _c: Any, text: str, values: Any, *_: Any) -> None:
            if not text.startswith(("SELECT", "UPDATE", "DELETE")) or "webhook" not in text:
                return
            how = "EXPLAIN" if kind == "postgresql" else "EXPLAIN QUERY PLAN"
            cursor = connection.connection.cursor()
            cursor.execute(f"{how} {text}", values)
            plan = str(cursor.fetchall())
            cursor.close()
            if re.search(r"(Seq Scan on|SCAN) webhook_deliveries(?! USING)", plan):
                walks.append(f"{text}\n{plan}")

        for engine in (runtime.database.engine, runtime.database.reader):
            sa.event.listen(engine, "before_cursor_execute", explain)
        deliveries.announce_due(runtime)
        deliveries.tidy(runtime)
        (target,) = deliveries.claim(runtime, 10, 10)
        (row,) = deliveries.due(runtime, target, ["msg_1"], 10)
        tried = deliveries.Tried(target, row, site.now, Answer("status", 0.1, 500))
        deliveries.conclude(runtime, [tried])
        deliveries.release(runtime, target)
        replays.replay(runtime, ACTOR, row.id)
        replays.replay_all(runtime, ACTOR, webhook_id, replays.Filters(status="dead"))
        replays.replay_all(runtime, ACTOR, webhook_id, replays.Filters(fax_id=row.fax_id))
        with runtime.database.reading() as session:
            for which in (replays.Filters(), replays.Filters(status="dead")):
                replays.page(session, ACTOR, webhook_id, which, limit=50, cursor=None)
            replays.find(session, ACTOR, row.id)

    assert walks == []


RECEIVED = [
    (
        "INSERT INTO inbound_faxes (id, account_id, provider_id, external_id, status, numbers_sealed, tries, "
        "last_sequence, received_at, created_at, updated_at) SELECT {text}, 'default', 'simulator', {text}, "
        "'received', '', 1, 1, {now}, {now}, {now} FROM {numbers}"
    ),
    (
        "INSERT INTO callbacks (id, account_id, provider_id, key, raw_sealed, received_at, applied_at, tries, outcome) "
        "SELECT {text}, 'default', 'simulator', {text}, '', {now}, {now}, 1, 'applied' FROM {numbers}"
    ),
]


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_alarms_of_received_faxes_are_found_without_a_walk_through_those_that_are_stored(
    kind: str, request: pytest.FixtureRequest, stores: Stores, carrier_of_all: SimulatorProcess
) -> None:
    with ExitStack() as stack:
        if kind == "postgresql":
            site: Site = request.getfixturevalue("on_postgresql")
        else:
            site = stack.enter_context(open_site(stores.embedded(), carrier_of_all))
        text, numbers, now = NUMBERS[kind]
        with site.runtime.database.transaction() as session:
            for each in RECEIVED:
                stored = each.format(text=text.replace("value", "key"), numbers=numbers, now=now)
                session.execute(sa.text(stored))
            session.execute(sa.text("ANALYZE"))
        walks, asked = list[str](), list[str]()

        def explain(connection: sa.Connection, _c: Any, text: str, values: Any, *_: Any) -> None:
            cursor = connection.connection.cursor()
            cursor.execute(f"EXPLAIN {'QUERY PLAN ' * (kind == 'sqlite')}{text}", values)
            plan = str(cursor.fetchall())
            cursor.close()
            asked.append(text)
            if re.search(r"(Seq Scan on|SCAN) inbound_faxes(?! USING INDEX ix_\w+_lost)", plan) or (
                re.search(r"(Seq Scan on|SCAN) callbacks(?! USING INDEX ix_\w+_waiting)", plan)
            ):
                walks.append(f"{text}\n{plan}")

        for engine in (site.runtime.database.engine, site.runtime.database.reader):
            sa.event.listen(engine, "before_cursor_execute", explain)
        assert alarms.of_received(site.runtime) == []

    assert len(asked) == 3
    assert walks == []


OLD = (
    """INSERT INTO jobs (id, account_id, created_by, status, to_sealed, to_key, resolution, priority, tags, pages_sent,
    attempts, tries, fence, last_sequence, created_at, updated_at) SELECT {text}, 'default', 'a', 'queued', '', {text},
    'fine', 128, '{{}}', 0, 0, 0, 0, 2, {now}, {now} FROM {numbers}""",
    "UPDATE jobs SET status = 'cancelled'",
    """INSERT INTO events (account_id, job_id, sequence, type, schema_version, status, source, occurred_at, recorded_at)
    SELECT 'default', {text}, 2, 'FAX_CANCELLED', 1, 'cancelled', 'api', {now}, {now} FROM {numbers}""",
    """INSERT INTO inbound_faxes (id, account_id, provider_id, external_id, status, numbers_sealed, tries,
    last_sequence, received_at, created_at, updated_at) SELECT {text}, 'default', 'simulator', {text}, 'received', '',
    0, 1, {now}, {now}, {now} FROM {numbers}""",
    """INSERT INTO artifacts (id, account_id, job_id, role, position, storage_id, key, sha256, size, media_type, pages,
    created_at) SELECT {text}, 'default', {text}, 'document', 0, 'local', {text}, '', 1, '', 1, {now} FROM {numbers}""",
    """INSERT INTO audit_events (account_id, happened_at, actor_kind, actor, action, outcome, details, proof)
    SELECT 'default', {now}, 'cli', 'cli', 'fax.shown', 'done', '{{}}', {text} FROM {numbers}""",
    DELIVERED,
)
"""So many that no database would choose a walk through them."""
RETENTION = (
    "ARTIFACT_TTL_DAYS",
    "INBOUND_RETENTION_DAYS",
    *(
        f"STORAGE_RETENTION_{name}_DAYS"
        for name in ("RENDITIONS", "NUMBERS", "EVENTS", "CALLBACKS", "KEYS", "WEBHOOKS")
    ),
)
LISTED = "jobs|events|inbound_faxes|audit_events|webhook_deliveries"
LAST = "f" * 32


@pytest.fixture(params=["postgresql", "sqlite"])
def with_much_that_is_old(
    request: pytest.FixtureRequest, stores: Stores, carrier_of_all: SimulatorProcess
) -> Iterator[tuple[Site, str]]:
    """A site, and the id of a webhook of it."""
    with ExitStack() as stack:
        if request.param == "postgresql":
            site: Site = request.getfixturevalue("on_postgresql")
        else:
            site = stack.enter_context(open_site(stores.embedded(), carrier_of_all))
        webhook_id, _ = hooks.subscribe(site.runtime, "https://hooks.example.org/")
        text, numbers, _ = NUMBERS[request.param]
        words = {"text": text.replace("value", "key"), "numbers": numbers, "now": "'2026-01-02'"}
        with site.runtime.database.transaction() as session:
            for statement in OLD:
                old = statement.format(**words, webhook_id=webhook_id)
                session.connection().exec_driver_sql(old)
            session.execute(sa.text("ANALYZE"))
        yield site, webhook_id


def plan_of(connection: sa.Connection, text: str, values: Any) -> str:
    """Of a SELECT, on PostgreSQL the one for all values; there it must pass over no row to speak of, either."""
    cursor = connection.connection.cursor()
    if connection.dialect.name == "sqlite":
        cursor.execute(f"EXPLAIN QUERY PLAN {text}", values)
        return str(cursor.fetchall())
    cursor.execute(f"EXPLAIN ANALYZE {text}", values)
    lines = [line for (line,) in cursor.fetchall()]
    # A fax has some events, among which the one is looked for with which it ended.
    assert not [line for line in lines if re.search("Removed by Filter: [0-9]{2}", line)]
    return plan_for_all_values(connection, text, values)


def test_a_list_of_what_is_seldom_reads_nothing_else(
    with_much_that_is_old: tuple[Site, str],
) -> None:
    (site, webhook_id), plans = with_much_that_is_old, list[str]()
    runtime, since = site.runtime, site.now - timedelta(hours=1)
    for _ in range(3):
        jobs.cancel(runtime, ACTOR, site.fax())

    def explain(connection: sa.Connection, _c: Any, text: str, values: Any, *_: Any) -> None:
        if text.startswith("SELECT") and re.search(rf"FROM ({LISTED})\b", text):
            plans.append(plan_of(connection, text, values))

    def read_from(index: str) -> None:
        """So it was with all that was asked since the last time."""
        assert plans
        assert [plan for plan in plans if index not in plan] == []
        assert not re.search(rf"(Seq Scan on|SCAN) ({LISTED})\b", str(plans)), plans
        plans.clear()

    sa.event.listen(runtime.database.reader, "before_cursor_execute", explain)
    for status in ("failed", "fetching"):
        received = inbound.Filters(status=status)
        inbound.page(runtime, ACTOR, received, limit=50, cursor=LAST)
        read_from("ix_inbound_faxes_status")
    for outcome in ("refused", "failed"):
        deeds = auditors.Filters(outcome=outcome)
        auditors.page(runtime, ACTOR, deeds, limit=50, cursor="1-1")
        read_from("ix_audit_events_outcome")
    for statuses in (("delivered",), ("failed", "cancelled", "expired"), ()):
        over = Filters(statuses=statuses, ended_since=since)
        found, following = jobs.page(runtime, ACTOR, over, limit=2, cursor=None)
        more, _ = jobs.page(runtime, ACTOR, over, limit=2, cursor=following or LAST)
        assert (len(found), len(more)) == ((0, 0) if statuses == ("delivered",) else (2, 1))
        read_from("ix_events_ended")
    with runtime.database.reading() as session:
        seldom = replays.Filters(type="FAX_FAILED")
        replays.page(session, ACTOR, webhook_id, seldom, limit=50, cursor=f"msg_{LAST}")
    read_from("ix_webhook_deliveries_type")


def test_what_a_killed_run_of_retention_had_marked_is_found_without_a_walk(
    with_much_that_is_old: tuple[Site, str],
) -> None:
    (site, _), plans = with_much_that_is_old, list[str]()
    kept = dict.fromkeys(RETENTION, 0)
    configuration.change(
        site.runtime, ACTOR, kept, note="all is kept, so that nothing else is looked for"
    )

    def explain(connection: sa.Connection, _c: Any, text: str, values: Any, *_: Any) -> None:
        if text.startswith("SELECT") and "deleted_at IS NOT NULL" in text:
            plans.append(plan_of(connection, text, values))

    sa.event.listen(site.runtime.database.reader, "before_cursor_execute", explain)
    site.purge()
    assert len(plans) == 4
    # Those of received faxes and of messages may be found through these, of which there are none here.
    ways = "ix_artifacts_going|uq_artifacts_(inbound|callback)"
    assert [plan for plan in plans if not re.search(ways, plan)] == []
