"""Figures: each event counts once, whoever counts and whoever dies; and what charts read of it."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from faxbot import figures, results, sending, sweeps
from faxbot.db import first_id, new_id, table, utcnow
from faxbot.errors import DatabaseAway
from faxbot.events import OPEN, Event, Status
from faxbot.figures import ACCEPT_TO_SENT, BOUNDS, SENT_TO_FINAL, Ended, Point
from faxbot.models import DurationCount, EventCount, FaxEvent, Job
from faxbot.runtime import Runtime
from tests.ground import eventually
from tests.installation import Installation
from tests.integration.site import Site

ROOT = Path(__file__).parents[2]
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
COUNTS = table(EventCount)
Kind = tuple[str, str, str, str, str]


def happened(runtime: Runtime) -> Counter[Kind]:
    """The events as they are: account, type, status, provider and cause."""
    with runtime.database.reading() as session:
        rows = session.execute(sa.select(table(FaxEvent)))
        return Counter(
            (row.account_id, row.type, row.status, row.provider_id or "", row.cause or "")
            for row in rows
        )


def counted(runtime: Runtime, *spans: int) -> Counter[Kind]:
    """The same as it is counted in these spans together."""
    found = Counter[Kind]()
    for row in runtime.database.rows(sa.select(COUNTS).where(COUNTS.c.span.in_(spans)), {}):
        found[row.account_id, row.type, row.status, row.provider_id, row.cause] += row.times
    return found


def rows_of(runtime: Runtime, model: type[Any], span: int) -> list[Any]:
    rows = table(model)
    return list(runtime.database.rows(sa.select(rows).where(rows.c.span == span), {}))


def busy(site: Site, faxes: int = 3) -> None:
    """Faxes with all kinds of events."""
    for _ in range(faxes):
        site.sent()
        site.sent("0017")


# Counting -------------------------------------------------------------------------------------------


def test_the_sweep_counts_each_event_once_by_what_it_is(site: Site) -> None:
    busy(site)
    figures.sweep(site.runtime)
    before = happened(site.runtime)
    assert sum(before.values()) >= 12
    assert counted(site.runtime, figures.EVER) == before
    assert counted(site.runtime, figures.MINUTE) == before

    assert figures.sweep(site.runtime) == 0
    busy(site, 1)
    sweeps.run(site.runtime)
    assert happened(site.runtime) != before
    assert counted(site.runtime, figures.EVER) == happened(site.runtime)
    assert counted(site.runtime, figures.MINUTE) == happened(site.runtime)


def test_what_is_counted_at_the_same_time_by_many_counts_once(site: Site) -> None:
    busy(site)
    upto, start = 2**40, threading.Barrier(4)

    def count(_who: int) -> int:
        start.wait(10)
        found = 0
        while figures.counted_upto(site.runtime.database) < last:
            found += figures.count(site.runtime, upto, batch=2)
        return found

    with site.runtime.database.reading() as session:
        last = session.scalar(sa.select(sa.func.max(FaxEvent.id))) or 0
    with ThreadPoolExecutor(4) as pool:
        shares = list(pool.map(count, range(4)))

    there = happened(site.runtime)
    assert sum(shares) == there.total()
    assert counted(site.runtime, figures.EVER) == counted(site.runtime, figures.MINUTE) == there


def test_who_dies_before_the_commit_has_counted_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy(site, 1)
    figures.counted_upto(site.runtime.database)
    usual = figures._add

    def dies(connection: Any, model: type[Any], sums: Any) -> None:
        usual(connection, model, sums)
        if model is DurationCount:
            raise KeyboardInterrupt

    monkeypatch.setattr(figures, "_add", dies)
    with pytest.raises(KeyboardInterrupt):
        figures.sweep(site.runtime)
    assert counted(site.runtime, 0, 1, 60) == Counter()
    assert figures.counted_upto(site.runtime.database) == 0

    monkeypatch.undo()
    figures.sweep(site.runtime)
    assert counted(site.runtime, figures.EVER) == happened(site.runtime)


COUNT = """
from faxbot import figures, wiring
from faxbot.config import Config
runtime = wiring.build(Config.load())
while True:
    figures.count(runtime, 2**40, batch=3)
"""


@contextmanager
def counting(store: Installation) -> Iterator[None]:
    """A process that counts till it is killed."""
    words = [sys.executable, "-c", COUNT]
    with subprocess.Popen(words, env=store.env, cwd=ROOT) as process:
        try:
            yield
        finally:
            process.kill()


def test_processes_that_are_killed_while_they_count_lose_and_double_nothing(
    store: Installation, site: Site
) -> None:
    busy(site, 1)
    pattern = site.runtime.database.rows(sa.select(table(FaxEvent)).order_by(FaxEvent.id), {})
    many = [
        {**row._asdict(), "id": None, "sequence": 1000 + n, "key": None}
        for n, row in enumerate(list(pattern) * 40)
    ]
    for row in many:
        del row["id"]
    luck = random.Random(5)
    for part in range(6):
        with site.runtime.database.writing() as connection:
            connection.execute(sa.insert(table(FaxEvent)), many[part::6])
        moved = figures.counted_upto(site.runtime.database) + luck.randrange(1, 30)
        with counting(store), counting(store):
            eventually(lambda: figures.counted_upto(site.runtime.database) >= moved, timeout=60)  # noqa: B023
        there, so_far = happened(site.runtime), counted(site.runtime, figures.EVER)
        assert so_far <= there
        assert counted(site.runtime, figures.MINUTE) == so_far

    figures.sweep(site.runtime)
    assert counted(site.runtime, figures.EVER) == happened(site.runtime)
    assert counted(site.runtime, figures.MINUTE) == happened(site.runtime)


def test_an_event_whose_transaction_ends_late_is_counted(on_postgresql: Site) -> None:
    """Ids are given out before the commit: who counted beyond this one would never count it."""
    site, database = on_postgresql, on_postgresql.runtime.database
    late, other = site.fax(), site.fax()
    figures.sweep(site.runtime)
    with database.transaction() as session:
        results.record_event(
            session, results.locked(session, late), Event.PROGRESS, now=site.now, source="api"
        )
        session.flush()
        with database.transaction() as second:
            results.record_event(
                second, results.locked(second, other), Event.PROGRESS, now=site.now, source="api"
            )
        figures.sweep(site.runtime)
        assert counted(site.runtime, figures.EVER) != happened(site.runtime)
    figures.sweep(site.runtime)
    assert counted(site.runtime, figures.EVER) == happened(site.runtime)


def test_durations_are_told_from_when_it_was_to_be_sent_and_from_when_the_carrier_had_it(
    site: Site,
) -> None:
    job_id = site.fax(send_at=site.now + HOUR)
    site.now += HOUR + timedelta(seconds=45)
    sending.attempt(site.runtime, job_id)
    assert site.job(job_id).status == "sent"
    site.now += timedelta(seconds=7)
    with site.runtime.database.transaction() as session:
        job = results.locked(session, job_id)
        facts: dict[str, Any] = {"now": site.now, "source": "poll"}
        results.record_event(session, job, Event.DELIVERED, status=Status.DELIVERED, **facts)
        results.record_event(session, job, Event.PURGED, **facts)
    figures.sweep(site.runtime)

    found = figures.histograms(site.runtime.database)
    assert {(key[0], key[2]): sum(of.counts) for key, of in found.items()} == {
        (ACCEPT_TO_SENT, "sent"): 1,
        (SENT_TO_FINAL, "delivered"): 1,
    }
    sent = found[ACCEPT_TO_SENT, "simulator", "sent"]
    assert sent.counts[BOUNDS.index(60)] == 1
    assert 44 < sent.seconds < 46
    final = found[SENT_TO_FINAL, "", "delivered"]
    assert (final.counts[BOUNDS.index(10)], final.seconds) == (1, 7)


# What is old ----------------------------------------------------------------------------------------


def test_minutes_become_hours_and_go_with_their_events_while_totals_stay(site: Site) -> None:
    site.runtime = replace(site.runtime, config=replace(site.runtime.config, events_days=30))
    for _ in range(3):
        busy(site, 1)
        figures.sweep(site.runtime)
        site.now += timedelta(minutes=20)
    there = counted(site.runtime, figures.EVER)
    durations = figures.histograms(site.runtime.database)
    minutes = rows_of(site.runtime, EventCount, figures.MINUTE)
    assert sum(row.times for row in minutes) == there.total()

    site.now += 2 * DAY + HOUR
    figures.sweep(site.runtime)
    assert rows_of(site.runtime, EventCount, figures.MINUTE) == []
    assert rows_of(site.runtime, DurationCount, figures.MINUTE) == []
    hours = rows_of(site.runtime, EventCount, figures.HOUR)
    assert counted(site.runtime, figures.HOUR) == there
    assert len(hours) < len(minutes)
    assert {row.minute % 60 for row in hours} == {0}

    site.now += 26 * DAY
    figures.sweep(site.runtime)
    assert counted(site.runtime, figures.HOUR) == there
    site.now += 3 * DAY
    figures.sweep(site.runtime)
    assert counted(site.runtime, figures.HOUR) == Counter()
    assert rows_of(site.runtime, DurationCount, figures.HOUR) == []
    assert counted(site.runtime, figures.EVER) == there
    assert figures.histograms(site.runtime.database) == durations


def test_events_kept_for_ever_keep_their_hours(site: Site) -> None:
    site.runtime = replace(site.runtime, config=replace(site.runtime.config, events_days=0))
    busy(site, 1)
    figures.sweep(site.runtime)
    there = counted(site.runtime, figures.EVER)
    site.now += 4000 * DAY
    figures.sweep(site.runtime)
    assert counted(site.runtime, figures.HOUR) == there


def test_what_happened_long_before_it_is_counted_goes_to_its_hour_or_to_the_totals_alone(
    site: Site,
) -> None:
    """The first sweep of this version finds the events of years."""
    site.runtime = replace(site.runtime, config=replace(site.runtime.config, events_days=30))
    now = site.now
    for days, spans in ((0, {0, 1}), (10, {0, 60}), (40, {0})):
        site.now = now - days * DAY
        fax = site.fax()
        site.now = now
        figures.sweep(site.runtime)
        rows = site.runtime.database.rows(sa.select(COUNTS), {})
        assert {row.span for row in rows} == spans, days
        with site.runtime.database.writing() as connection:
            connection.execute(sa.delete(COUNTS))
        assert site.job(fax).status == "queued"


# Reading --------------------------------------------------------------------------------------------


def event(
    site: Site, at: datetime, event_type: Event, status: str, *, account: str = "default"
) -> None:
    """An event as some process wrote it at that time: of figures it need know nothing."""
    row = {
        "account_id": account, "job_id": None, "sequence": 1, "type": event_type.value,
        "schema_version": 1, "status": status, "source": "api", "occurred_at": at, "recorded_at": at,
    }  # fmt: skip
    with site.runtime.database.writing() as connection:
        connection.execute(sa.insert(table(FaxEvent)), row)


def test_a_chart_has_equal_times_without_a_gap_and_says_what_happened_in_each(site: Site) -> None:
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    site.now = now
    event(site, now - timedelta(minutes=50, seconds=1), Event.QUEUED, "queued")
    event(site, now - timedelta(minutes=50), Event.QUEUED, "queued")
    event(site, now - timedelta(minutes=41), Event.DELIVERED, "delivered")
    event(site, now - timedelta(minutes=41), Event.DECIDED, "delivered")
    event(site, now - timedelta(minutes=41), Event.DECIDED, "retrying")
    event(site, now - timedelta(minutes=41), Event.PURGED, "delivered")
    event(site, now - timedelta(minutes=1), Event.FAILED, "failed")
    event(site, now - timedelta(minutes=1), Event.EXPIRED, "expired")
    event(site, now - timedelta(minutes=1), Event.CANCELLED, "cancelled")
    event(site, now - timedelta(seconds=1), Event.RECEIVED, "received")
    event(site, now - timedelta(seconds=1), Event.RECEIVED, "received", account="other")
    figures.sweep(site.runtime)

    database = site.runtime.database
    chart = figures.over_time(database, "default", now - HOUR, now, 6)
    assert chart == [
        Point(now - timedelta(minutes=60), 1, 0, 0, 0, 0),
        Point(now - timedelta(minutes=50), 1, 2, 0, 0, 0),
        Point(now - timedelta(minutes=40), 0, 0, 0, 0, 0),
        Point(now - timedelta(minutes=30), 0, 0, 0, 0, 0),
        Point(now - timedelta(minutes=20), 0, 0, 0, 0, 0),
        Point(now - timedelta(minutes=10), 0, 0, 2, 1, 1),
    ]
    assert figures.ended(database, "default", now - HOUR, now) == Ended(2, 2, 2, 1, 1)
    assert figures.ended(database, "default", now - timedelta(minutes=49), now) == Ended(
        0, 2, 2, 1, 1
    )
    assert figures.open_states(database, "default", now).last_day == Ended(2, 2, 2, 1, 1)
    assert figures.over_time(database, "nobody", now - HOUR, now, 2)[0][1:] == (0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("span", "points", "width"),
    [
        (HOUR, 60, timedelta(minutes=1)),
        (HOUR, 48, timedelta(minutes=2)),
        (DAY, 48, timedelta(minutes=30)),
        (7 * DAY, 48, timedelta(hours=4)),
        (30 * DAY, 30, DAY),
        (timedelta(seconds=1), 10, timedelta(minutes=1)),
    ],
)
def test_a_chart_adds_up_whatever_its_width(
    site: Site, span: timedelta, points: int, width: timedelta
) -> None:
    until, luck = utcnow(), random.Random(3)
    site.now = until
    since = until - span
    times = [since + span * luck.random() for _ in range(40)]
    for at in sorted(times):
        event(site, at, Event.DELIVERED, "delivered")
    figures.sweep(site.runtime)

    chart = figures.over_time(site.runtime.database, "default", since, until, points)
    assert {later.at - one.at for one, later in pairwise(chart)} <= {width}
    assert chart[0].at <= since < chart[0].at + width
    assert chart[-1].at < until <= chart[-1].at + width
    assert len(chart) <= points + 2
    expected = Counter(max(p.at for p in chart if p.at <= at) for at in times)
    assert {p.at: p.delivered for p in chart if p.delivered} == expected


def test_open_faxes_are_counted_by_status_with_the_oldest_and_what_is_due(site: Site) -> None:
    first = site.now
    one = site.fax()
    site.now += HOUR
    later = site.now + DAY
    site.fax(send_at=later)
    site.sent()
    standing = figures.open_states(site.runtime.database, "default", site.now)

    assert set(standing.open) == set(OPEN)
    queued, sent = standing.open[Status.QUEUED], standing.open[Status.SENT]
    assert (queued.count, queued.more, sent.count) == (2, False, 1)
    assert queued.oldest_at is not None
    assert abs(queued.oldest_at - first) < timedelta(seconds=1)
    assert queued.next_at == site.job(one).next_at
    held = standing.open[Status.HELD]
    assert (held.count, held.more, held.oldest_at, held.next_at) == (0, False, None, None)
    assert not any(
        of.count
        for of in figures.open_states(site.runtime.database, "other", site.now).open.values()
    )


def test_more_open_faxes_than_are_counted_are_said_to_be_more(site: Site) -> None:
    site.fax()
    many(site, 10_050, "queued")
    queued = figures.open_states(site.runtime.database, "default", site.now).open[Status.QUEUED]
    assert (queued.count, queued.more) == (10_000, True)
    assert queued.oldest_at is not None
    assert queued.oldest_at < site.now - 300 * DAY


def many(site: Site, faxes: int, status: str) -> None:
    """So many older faxes like the one that is there, of this status."""
    (row,) = site.runtime.database.rows(sa.select(table(Job)).limit(1), {})
    past = site.now - 365 * DAY
    ended = Status(status) not in OPEN
    new = [
        {**row._asdict(), "id": new_id(past + n * timedelta(seconds=1)), "status": "queued"}
        for n in range(faxes)
    ]
    with site.runtime.database.writing() as connection:
        for part in range(0, faxes, 5000):
            connection.execute(sa.insert(table(Job)), new[part : part + 5000])
        if ended:
            old = (Job.status == "queued", Job.id < first_id(past + faxes * timedelta(seconds=1)))
            change = {"status": status, "next_at": None}
            connection.execute(sa.update(table(Job)).where(*old).values(**change))


def test_neither_counting_nor_reading_walks_through_what_is_done(site: Site) -> None:
    site.sent()
    many(site, 9000, "cancelled")
    pattern = site.runtime.database.rows(sa.select(table(FaxEvent)).limit(1), {})[0]._asdict()
    del pattern["id"]
    events = [{**pattern, "sequence": 1000 + n} for n in range(9000)]
    with site.runtime.database.writing() as connection:
        connection.execute(sa.insert(table(FaxEvent)), events)
    figures.sweep(site.runtime)
    site.sent()
    with site.runtime.database.writing() as connection:
        connection.execute(sa.text("ANALYZE"))
    walks = list[str]()
    sqlite = site.runtime.database.is_sqlite

    def explain(connection: sa.Connection, _cursor: Any, text: str, values: Any, *_: Any) -> None:
        if not text.lstrip().startswith(("SELECT", "UPDATE", "DELETE")):
            return
        cursor = connection.connection.cursor()
        cursor.execute(f"EXPLAIN {'QUERY PLAN ' * sqlite}{text}", values)
        plan = str(cursor.fetchall())
        cursor.close()
        if re.search(r"Seq Scan on (jobs|events)\b|SCAN (jobs|events|earlier)\b", plan):
            walks.append(f"{text}\n{plan}")

    for engine in (site.runtime.database.engine, site.runtime.database.reader):
        sa.event.listen(engine, "before_cursor_execute", explain)
    assert figures.sweep(site.runtime) > 0
    figures.lag(site.runtime.database, site.now)
    figures.open_states(site.runtime.database, "default", site.now)
    figures.over_time(site.runtime.database, "default", site.now - DAY, site.now, 48)

    assert walks == []


def test_a_transaction_that_stands_still_delays_the_figures_and_nothing_else(
    on_postgresql: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = on_postgresql
    monkeypatch.setattr(figures, "PATIENCE", 0.1)
    fax = site.fax()
    figures.sweep(site.runtime)
    with site.runtime.database.transaction() as session:
        results.record_event(
            session, results.locked(session, fax), Event.PROGRESS, now=site.now, source="api"
        )
        session.flush()
        other = site.fax()
        with suppress(DatabaseAway):
            assert figures.sweep(site.runtime) == 0
        assert site.job(other).status == "queued"
        assert figures.lag(site.runtime.database, site.now + HOUR) >= HOUR
    assert figures.sweep(site.runtime) == 2
    assert figures.lag(site.runtime.database, site.now + HOUR) == timedelta()
