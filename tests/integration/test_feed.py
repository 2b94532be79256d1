"""The feed of events: whoever reads on from a cursor gets each event once and misses none, whoever writes meanwhile."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from faxbot import feed, results
from faxbot.actors import Actor
from faxbot.errors import DatabaseAway, Malformed
from faxbot.events import Event, Status
from faxbot.feed import BEGINNING, Cursor, Feed, Filters, Page
from faxbot.models import FaxEvent, Job
from tests.integration.site import Site, number

ALL = Filters()


@pytest.fixture
def read(site: Site) -> Feed:
    return Feed(site.runtime.database)


def page(read: Feed, behind: Cursor = BEGINNING, filters: Filters = ALL, limit: int = 100) -> Page:
    return read.page("default", filters, behind, limit=limit, upto=read.settled())


def ids(found: Page) -> list[int]:
    return [row.id for row in found.rows]


def progress(site: Site, job_id: str, *, at: datetime | None = None) -> None:
    """One more event of this fax."""
    with site.runtime.database.transaction() as session:
        job = results.locked(session, job_id)
        results.record_event(session, job, Event.PROGRESS, now=at or site.now, source="api")


def stored(site: Site) -> list[tuple[str, int]]:
    with site.runtime.database.reading() as session:
        rows = session.execute(sa.select(FaxEvent.job_id, FaxEvent.sequence).order_by(FaxEvent.id))
        return [(row.job_id, row.sequence) for row in rows]


# Pages ----------------------------------------------------------------------------------------------------------


def test_pages_give_each_event_once_in_order_and_a_cursor_to_go_on_with(
    site: Site, read: Feed
) -> None:
    faxes = [site.fax() for _ in range(3)]
    for job_id in faxes * 3:
        progress(site, job_id)

    found, behind, pages = [], BEGINNING, []
    while True:
        got = page(read, behind, limit=5)
        found += [(row.fax_id, row.sequence) for row in got.rows]
        pages.append((len(got.rows), got.more))
        behind = got.next
        if not got.more:
            break
    assert found == stored(site)
    assert pages == [(5, True), (5, True), (2, False)]

    nothing = page(read, behind)
    assert (nothing.rows, nothing.next, nothing.more) == ((), behind, False)
    progress(site, faxes[0])
    assert [row.sequence for row in page(read, behind).rows] == [5]


def test_an_empty_ledger_has_a_cursor_too(site: Site, read: Feed) -> None:
    assert read.last() == BEGINNING
    assert page(read) == Page((), BEGINNING, more=False)
    assert read.since(site.now) == BEGINNING


def test_only_what_is_asked_for_is_given_and_the_cursor_passes_the_rest(
    site: Site, read: Feed
) -> None:
    one, two = site.fax(), site.fax()
    progress(site, one)
    with site.runtime.database.transaction() as session:
        results.record_event(
            session,
            results.locked(session, two),
            Event.CANCELLED,
            now=site.now,
            source="api",
            status=Status.CANCELLED,
        )

    def given(filters: Filters) -> list[tuple[str, str]]:
        got = page(read, filters=filters)
        assert (got.next, got.more) == (read.last(), False)
        return [(row.fax_id, row.type) for row in got.rows]

    assert given(Filters(fax_id=one)) == [(one, "FAX_QUEUED"), (one, "FAX_PROGRESS")]
    assert given(Filters(frozenset({"FAX_CANCELLED"}))) == [(two, "FAX_CANCELLED")]
    assert given(Filters(frozenset({"FAX_CANCELLED"}), one)) == []
    both = Filters(frozenset({"FAX_PROGRESS", "FAX_CANCELLED"}))
    assert given(both) == [(one, "FAX_PROGRESS"), (two, "FAX_CANCELLED")]


def test_another_account_has_a_feed_of_its_own(site: Site, read: Feed) -> None:
    ours = site.fax()
    theirs = site.submit(number(), actor=Actor("other", "k", frozenset({"*"}))).job_id

    for account_id, fax_id, foreign in (("default", ours, theirs), ("other", theirs, ours)):
        upto = read.settled()
        got = read.page(account_id, ALL, BEGINNING, limit=9, upto=upto)
        assert [row.fax_id for row in got.rows] == [fax_id]
        got = read.page(account_id, Filters(fax_id=foreign), BEGINNING, limit=9, upto=upto)
        assert not got.rows


def test_rare_events_are_looked_for_in_parts_and_none_of_them_is_left_out(
    site: Site, read: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "WINDOW", 4)
    first, last = site.fax(), None
    for turn in range(30):
        progress(site, first)
        if turn in (13, 29):
            last = site.fax()
    with site.runtime.database.transaction() as session:  # a hole that is larger than a part
        session.execute(sa.delete(FaxEvent).where(FaxEvent.id.between(18, 27)))

    found, behind, empty = [], BEGINNING, 0
    for _ in range(20):
        got = page(read, behind, Filters(frozenset({"FAX_QUEUED"})))
        found += [row.fax_id for row in got.rows]
        empty += not got.rows
        behind = got.next
        if not got.more:
            break
    assert (len(found), found[0], found[-1]) == (3, first, last)
    assert empty > 1


# Transactions that end in another order ---------------------------------------------------------------------------


@contextmanager
def half_done(site: Site, job_id: str) -> Iterator[Connection]:
    """An event that is written and not committed; committed at the end, unless the test has ended it otherwise."""
    database = site.runtime.database
    with database.transaction() as session:
        job = results.locked(session, job_id)
        results.record_event(session, job, Event.PROGRESS, now=site.now, source="api")
        yield session.connection()


def test_what_was_begun_earlier_and_ends_later_is_not_passed_by(on_postgresql: Site) -> None:
    site, read = on_postgresql, Feed(on_postgresql.runtime.database)
    one, two = site.fax(), site.fax()
    behind = page(read).next

    with half_done(site, one):
        progress(site, two)
        meanwhile = page(read, behind)

    assert (ids(meanwhile), meanwhile.next) == ([], behind)
    got = page(read, behind)
    assert [row.fax_id for row in got.rows] == [one, two]
    assert ids(got) == [behind.id + 1, behind.id + 2]


def test_what_is_taken_back_is_not_waited_for(on_postgresql: Site) -> None:
    site, read = on_postgresql, Feed(on_postgresql.runtime.database)
    one, two = site.fax(), site.fax()
    behind = page(read).next

    with suppress(ZeroDivisionError), half_done(site, one):
        progress(site, two)
        raise ZeroDivisionError
    got = page(read, behind)

    assert ([row.fax_id for row in got.rows], ids(got)) == ([two], [behind.id + 2])


def test_who_writes_without_a_pause_keeps_nobody_waiting(on_postgresql: Site) -> None:
    site, read = on_postgresql, Feed(on_postgresql.runtime.database)
    one, two = site.fax(), site.fax()
    behind = page(read).next

    with ExitStack() as later:  # there is always one in flight, and never the same
        with half_done(site, one):
            progress(site, two)
            assert ids(page(read, behind)) == []
            third = site.fax()
            later.enter_context(half_done(site, third))
        got = page(read, behind)

        assert [row.fax_id for row in got.rows] == [one, two]
        assert ids(got) == [behind.id + 1, behind.id + 2]


def test_a_writer_that_stands_still_hides_what_comes_behind_it_until_it_is_over(
    on_postgresql: Site,
) -> None:
    site, read = on_postgresql, Feed(on_postgresql.runtime.database)
    one, two = site.fax(), site.fax()
    behind = page(read).next

    with half_done(site, one):
        for _ in range(5):
            progress(site, two)
            # What was there before it began can be read all the same.
            assert ids(page(read)) == list(range(1, behind.id + 1))
            assert ids(page(read, behind)) == []
    assert len(page(read, behind).rows) == 6


def test_waiting_for_writers_is_short(on_postgresql: Site) -> None:
    site, read = on_postgresql, Feed(on_postgresql.runtime.database)
    job_id = site.fax()
    assert read.settled() == 1
    with half_done(site, job_id):
        began = time.monotonic()
        assert read.settled() == 1
        assert time.monotonic() - began < 4


def test_who_knows_nothing_yet_waits_for_those_who_write_and_does_not_begin_anew(
    on_postgresql: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = on_postgresql
    one, two = site.fax(), site.fax()
    with half_done(site, one):
        monkeypatch.setattr(feed, "FIRST_PATIENCE", 0.2)
        with pytest.raises(DatabaseAway, match="stands still"):
            Feed(site.runtime.database).last()

    monkeypatch.setattr(feed, "FIRST_PATIENCE", 30)
    with ThreadPoolExecutor(1) as pool:
        with half_done(site, two):
            last = pool.submit(Feed(site.runtime.database).last)
            progress(site, one)
        assert last.result().id >= 4


def test_other_transactions_of_the_server_delay_nothing(on_postgresql: Site) -> None:
    site, read = on_postgresql, Feed(on_postgresql.runtime.database)
    job_id = site.fax()
    with site.runtime.database.transaction() as session:
        session.execute(sa.update(Job).where(Job.id == "none").values(pages=1))
        session.execute(sa.text("SELECT pg_current_xact_id()"))
        session.execute(sa.text("SELECT count(*) FROM events"))

        progress(site, job_id)
        assert [row.sequence for row in page(read).rows] == [1, 2]


_WRITER = """
import random, sys, time
from faxbot import results, wiring
from faxbot.config import Config
from faxbot.db import utcnow
from faxbot.events import Event

seed, count, *faxes = sys.argv[1:]
chance = random.Random(seed)
runtime = wiring.build(Config.load())
print("ready", flush=True)
sys.stdin.read(1)
for _ in range(int(count)):
    try:
        with runtime.database.transaction() as session:
            for job_id in sorted(chance.sample(faxes, chance.choice((1, 1, 1, 2, 3)))):
                job = results.locked(session, job_id)
                results.record_event(session, job, Event.PROGRESS, now=utcnow(), source="api")
                time.sleep(chance.choice((0, 0, 0.001, 0.01, 0.03)))
            if chance.random() < 0.1:
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass
runtime.close()
"""


@contextmanager
def writers(
    site: Site, faxes: list[list[str]], count: int
) -> Iterator[list[subprocess.Popen[str]]]:
    """A process for each list of faxes, begun together, that records events in transactions of any length."""
    environment = dict(site.runtime.config.environ) | {"PYTHONPATH": str(Path.cwd())}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(seed), str(count), *some],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed, some in enumerate(faxes)
    ]
    try:
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == "ready"
        for process in started:
            assert process.stdin is not None
            process.stdin.write("x")
            process.stdin.flush()
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def test_however_many_write_each_reader_gets_each_event_once(site: Site) -> None:
    """One reader knows what it has seen before, one begins anew each time, and one takes page after page."""
    database, kept = site.runtime.database, Feed(site.runtime.database)
    faxes = [[site.fax() for _ in range(4)] for _ in range(4)]
    got: dict[str, list[tuple[str, int]]] = {"kept": [], "fresh": [], "small pages": []}
    places = dict.fromkeys(got, BEGINNING)

    def read_on() -> int:
        for who, limit in (("kept", 500), ("fresh", 500), ("small pages", 3)):
            reader = Feed(database) if who == "fresh" else kept
            found = page(reader, places[who], limit=limit)
            got[who] += [(row.fax_id, row.sequence) for row in found.rows]
            places[who] = found.next
        return sum(map(len, got.values()))

    with writers(site, faxes, 100) as processes:
        while any(process.poll() is None for process in processes):
            read_on()
        assert [process.returncode for process in processes] == [0] * len(processes)
    before = -1
    while before != (before := read_on()):
        pass

    expected = stored(site)
    assert len(expected) > 400
    for who, events in got.items():
        assert events == expected, who


def test_threads_share_one_feed(on_postgresql: Site) -> None:
    site, read = on_postgresql, Feed(on_postgresql.runtime.database)
    faxes = [[site.fax() for _ in range(3)] for _ in range(2)]
    got: list[list[tuple[str, int]]] = [[] for _ in range(4)]
    over = threading.Event()

    def follow(mine: list[tuple[str, int]]) -> None:
        behind, done = BEGINNING, False
        while not done:
            done = over.is_set()
            while True:
                found = page(read, behind)
                mine += [(row.fax_id, row.sequence) for row in found.rows]
                behind = found.next
                if not found.more:
                    break

    threads = [threading.Thread(target=follow, args=(mine,)) for mine in got]
    with writers(site, faxes, 60) as processes:
        for thread in threads:
            thread.start()
        for process in processes:
            process.wait()
    over.set()
    for thread in threads:
        thread.join()

    assert got == [stored(site)] * 4


# Cursors ----------------------------------------------------------------------------------------------------------


def test_a_cursor_is_read_as_it_was_written(site: Site, read: Feed) -> None:
    site.fax()
    last = read.last()
    assert Cursor.parse(str(last)) == last
    assert Cursor.parse(str(BEGINNING)) == BEGINNING
    assert last.recorded_at == site.now
    assert read.resumed(last) == last


@pytest.mark.parametrize(
    "text",
    [
        *("", "0", "-", "1-", "-1", "1-2-3", " 1-2", "1-2\n", "a-1", "1_0-1", "1.0-1", "\u0661-1"),
        *("9" * 19 + "-1", "1-" + "9" * 19, "9" * 18 + "-1"),
    ],
)
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(Malformed, match="`cursor` is not one"):
        Cursor.parse(text)


def test_after_a_backup_was_restored_nothing_new_is_missed(site: Site, read: Feed) -> None:
    """The clients know events that are lost; others have their ids by now."""
    job_id = site.fax()
    known = Cursor.of(page(read).rows[-1])
    lost = Cursor(known.id + 2, known.recorded + 3_000_000)

    site.now += timedelta(minutes=30)  # restored from a backup of before them
    for _ in range(4):
        progress(site, job_id)
    resumed = read.resumed(lost)

    assert resumed.id <= known.id
    assert [row.sequence for row in page(read, resumed).rows][-4:] == [2, 3, 4, 5]


def test_a_ledger_that_is_replaced_while_it_is_read_is_read_from_there(on_postgresql: Site) -> None:
    site, read = on_postgresql, Feed(on_postgresql.runtime.database)
    job_id = site.fax()
    for _ in range(9):
        progress(site, job_id)
    before = read.settled()

    with site.runtime.database.transaction() as session:
        session.execute(sa.delete(FaxEvent).where(FaxEvent.id > 4))
        session.execute(sa.update(Job).values(last_sequence=4))
        session.execute(sa.text("SELECT setval('events_id_seq', 4)"))
    assert (before, read.settled()) == (10, 4)
    progress(site, job_id)
    assert ids(page(read)) == [1, 2, 3, 4, 5]


def test_a_cursor_whose_event_was_deleted_goes_on_where_it_was(site: Site, read: Feed) -> None:
    job_id = site.fax()
    times = [site.now + timedelta(minutes=10 * step) for step in range(8)]
    for at in times[1:]:
        progress(site, job_id, at=at)
    middle = Cursor.of(page(read).rows[4])
    with site.runtime.database.transaction() as session:
        session.execute(sa.delete(FaxEvent).where(FaxEvent.id == middle.id))

    resumed = read.resumed(middle)
    assert [row.recorded_at for row in page(read, resumed).rows] == times[5:]


@pytest.mark.parametrize("step", range(12))
def test_since_begins_before_all_that_was_recorded_then_and_not_long_before(
    site: Site, read: Feed, step: int
) -> None:
    begin = site.now
    job_id = site.fax()
    for minutes in range(4, 40, 4):
        progress(site, job_id, at=begin + timedelta(minutes=minutes))

    at = begin + timedelta(minutes=4 * step)
    given = [row.recorded_at for row in page(read, read.since(at)).rows]
    upto = read.settled()
    exact = read.page("default", ALL, read.since(at), limit=99, upto=upto, since=at)

    times = [begin + timedelta(minutes=minutes) for minutes in range(0, 40, 4)]
    assert given == [time for time in times if time >= at - feed.SKEW]
    assert [row.recorded_at for row in exact.rows] == [time for time in times if time >= at]


def test_a_time_is_found_among_many_with_few_questions(site: Site, read: Feed) -> None:
    job_id = site.fax()
    for minutes in range(1, 200):
        progress(site, job_id, at=site.now + timedelta(minutes=minutes))
    asked: list[str] = []

    def note(_c: object, _cursor: object, text: str, _p: object, _x: object, _m: bool) -> None:
        asked.append(text)

    sa.event.listen(site.runtime.database.reader, "before_cursor_execute", note)
    read.since(site.now + timedelta(minutes=100))

    assert len(asked) < 14  # of 200: log2 and what settled() asks


# What an event says -----------------------------------------------------------------------------------------------


def test_an_event_is_told_as_webhooks_tell_it(site: Site, read: Feed) -> None:
    job_id = site.sent("0017")
    events = [feed.describe(row) for row in page(read).rows]

    assert [event["type"] for event in events] == ["FAX_QUEUED", "FAX_SUBMITTING", "FAX_SENT"]
    first, last = events[0], events[-1]
    assert first.keys() == {"id", "type", "timestamp", "data"}
    assert first["data"] == {
        "fax_id": job_id,
        "sequence": 1,
        "status": "queued",
        "provider_id": None,
        "attempt": None,
        "pages": 1,
        "pages_sent": None,
        "cause": None,
    }
    assert (last["data"]["attempt"], last["data"]["provider_id"]) == (1, "simulator")
    at = datetime.fromisoformat(first["timestamp"])
    assert (at, at.tzinfo) == (site.now, UTC)
