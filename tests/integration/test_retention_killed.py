"""Retention whose process is killed between the mark, the bytes and the rows (C13), while people change what is kept:
what was removed is said, and what is there is there for everybody again."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
import sqlalchemy as sa

from faxbot import artifacts, jobs, legalholds, resending, retention
from faxbot.artifacts import Workspace
from faxbot.db import table, utcnow
from faxbot.errors import ArtifactNotFound, NotPossibleNow, StorageAway
from faxbot.models import Artifact, RetentionRun
from faxbot.purging import CLASSES, BytesStep
from faxbot.storage.local import LocalStorage
from tests.carrier import SimulatorProcess
from tests.installation import Installation
from tests.integration.site import ACTOR, Site, number, open_site
from tests.integration.test_arrivals import INBOUND
from tests.integration.test_retention import DAY, ended, proofs, received, rows

KEPT = {"STORAGE_RETENTION_NUMBERS_DAYS": "0", "STORAGE_RETENTION_RENDITIONS_DAYS": "0"}
"""So that a fax whose document stays can be sent once more."""
PROGRAM = """
import os, signal, sys, threading
from datetime import datetime
import sqlalchemy as sa
from dataclasses import replace
from faxbot import purging, retention, wiring
from faxbot.config import Config

point, run_id, now = sys.argv[1], sys.argv[2], datetime.fromisoformat(sys.argv[3])
runtime = replace(wiring.build(Config.load()), now=lambda: now)
purging.AT_ONCE = 1
removed = []

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def audit(event, arguments):
    if event == "os.remove" and "/documents/" in str(arguments[0]):
        name = str(arguments[0]).rpartition("/")[2]
        if point == "marked" or (len(removed) == 2 and not name.startswith(".")):
            die()
        if not name.startswith("."):
            removed.append(name)

def executed(connection, cursor, text, *_):
    if text.startswith("DELETE FROM artifacts"):
        die()

if point == "all gone":
    sa.event.listen(runtime.database.engine, "before_cursor_execute", executed)
else:
    sys.addaudithook(audit)
retention.work(runtime, run_id)
"""
GONE = {"marked": 0, "two gone": 2, "all gone": 4}
"""Where it is killed, and of how many documents the bytes are gone then."""


@pytest.fixture
def site(
    request: pytest.FixtureRequest, store: Installation, carrier_of_all: SimulatorProcess
) -> Iterator[Site]:
    how = {"more": INBOUND, **KEPT, **getattr(request, "param", {})}
    with open_site(store, carrier_of_all, **how) as site:
        yield site


def over(site: Site) -> str:
    """A fax that was cancelled just now, with bytes of its own."""
    job_id = site.submit(number()).job_id
    jobs.cancel(site.runtime, ACTOR, job_id)
    return job_id


def keep(site: Site, **days: int) -> None:
    """As if it were set so now."""
    site.runtime = replace(site.runtime, config=replace(site.runtime.config, **days))  # type: ignore[arg-type]


def is_there(site: Site, row: Any) -> bool:
    with Workspace(site.runtime) as workspace:
        try:
            return artifacts.fetch(site.runtime, row, workspace).is_file()
        except ArtifactNotFound:
            return False


def may_be_held(site: Site, job_id: str) -> bool:
    with suppress(NotPossibleNow):
        legalholds.hold(site.runtime, ACTOR, "fax", job_id, "a lawsuit")
        return True
    return False


def purged(site: Site, job_id: str) -> list[str | None]:
    return [event.reason for event in site.events(job_id) if event.type == "FAX_PURGED"]


@pytest.mark.parametrize(("days", "outcome"), [(0, "off"), (365, "done")])
@pytest.mark.parametrize("point", GONE)
def test_what_a_killed_run_has_not_removed_may_be_held_once_it_is_kept_longer(
    site: Site, point: str, days: int, outcome: str
) -> None:
    ids = [over(site) for _ in range(4)]
    site.now += 31 * DAY
    run_id = retention.ask(site.runtime, ACTOR)
    died = subprocess.run(
        [sys.executable, "-c", PROGRAM, point, run_id, site.now.isoformat()],
        env=dict(site.runtime.config.environ),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    left = rows(site, Artifact)
    assert all(row.deleted_at for row in left)
    there = {row.job_id for row in left if is_there(site, row)}
    gone = set(ids) - there
    assert (len(left), len(gone)) == (4, GONE[point])
    assert [may_be_held(site, each) for each in ids] == [False] * 4

    keep(site, artifact_ttl_days=days)
    site.after(181)
    site.work()
    assert {row.job_id: row.deleted_at for row in rows(site, Artifact)} == dict.fromkeys(there)
    assert proofs(site, run_id)["document"] == (len(gone), len(gone), outcome)
    assert {each: purged(site, each) for each in ids} == {
        each: ["document"] if each in gone else [] for each in ids
    }
    assert {row.state for row in rows(site, RetentionRun)} == {"done"}
    assert [may_be_held(site, each) for each in ids] == [True] * 4
    for each in there:
        again = resending.resend(
            site.runtime, ACTOR, each, resending.Changes(), key=None, present=jobs.no_body
        )
        assert again.job_id != each
    site.add_up()


def mark(site: Site) -> None:
    """As one leaves it whose run was broken off long ago."""
    with site.runtime.database.writing() as connection:
        connection.execute(sa.update(table(Artifact)).values(deleted_at=site.now))


def test_every_class_with_bytes_says_at_its_next_run_which_are_gone_and_which_are_not(
    site: Site,
) -> None:
    kept, gone = [ended(site), received(site, "in-1")], [ended(site), received(site, "in-2")]
    fax_of = {row.id: row.job_id or row.inbound_id for row in rows(site, Artifact)}
    for row in rows(site, Artifact):
        if fax_of[row.id] in gone:
            artifacts.discard(site.runtime, [row._asdict()])
    mark(site)
    keep(site, artifact_ttl_days=0, renditions_days=0, inbound_days=40, callbacks_days=0)
    run_id = site.purge()
    left = {row.id: row.deleted_at for row in rows(site, Artifact)}
    assert left == {each: None for each, fax in fax_of.items() if fax in kept}
    assert [purged(site, each) for each in (kept[0], gone[0])] == [[], ["document"]]
    found = proofs(site, run_id)
    assert found["inbound"] == (1, 1, "done")
    assert "document" not in found


def test_no_class_is_without_a_word_for_its_bytes() -> None:
    """Each step with bytes says whose they are, so that what one began no other ends."""
    steps = [step for each in CLASSES.values() for step in each.steps]
    (document, pages, *others) = [step for step in steps if isinstance(step, BytesStep)]
    assert document.its
    assert pages.its
    assert {step.holds.name for step in others} == {"inbound_faxes", "callbacks"}


class Away(LocalStorage):
    """It cannot tell what it has while it is told so."""

    away = False
    asked = 0

    def open(self, key: str) -> Any:
        if self.away:
            self.asked += 1
            raise StorageAway
        return super().open(key)


class Slow(LocalStorage):
    """It takes its time to say what it has."""

    asked = 0

    def open(self, key: str) -> Any:
        self.asked += 1
        time.sleep(0.1)
        self.then()
        return super().open(key)

    def then(self) -> None:
        """What a test does when it has been asked."""


def marked(site: Site, faxes: int) -> tuple[Slow, str]:
    """A run in which it is to be asked for so many."""
    for _ in range(faxes):
        over(site)
    mark(site)
    keep(site, artifact_ttl_days=0)
    return site.runtime.plugins.get("local", Slow), retention.ask(site.runtime, ACTOR)


def test_however_long_a_storage_takes_to_tell_a_slice_ends_and_so_does_the_run(
    store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    with open_site(store, carrier_of_all, storage=Slow, **KEPT) as site:
        storage, run_id = marked(site, 12)
        asked, is_over = [0], False
        while not is_over:
            is_over = retention.work(site.runtime, run_id, seconds=0.25, rest=lambda _s: None)
            asked.append(storage.asked)
        assert asked[-1] == 12, "for each once"
        assert max(after - before for before, after in pairwise(asked)) <= 3
        assert {row.deleted_at for row in rows(site, Artifact)} == {None}


class Hanging(Slow):
    """It says after a while that it is away."""

    def then(self) -> None:
        time.sleep(0.2)
        raise StorageAway


def test_a_storage_that_hangs_is_asked_once_and_the_slice_ends_with_all_that_it_could_not_tell(
    store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    with open_site(store, carrier_of_all, storage=Hanging, **KEPT) as site:
        storage, run_id = marked(site, 12)
        retention.work(site.runtime, run_id, seconds=0.25, rest=lambda _s: None)
        assert storage.asked == 1
        assert [row.deleted_at for row in rows(site, Artifact)] == [None] * 12


def test_who_waits_for_a_storage_for_longer_than_his_lease_is_good_prolongs_it_in_time(
    store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    lease = {"FAXBOT_LEASE_SECONDS": "1", "FAXBOT_HEARTBEAT_SECONDS": "0.4"}
    with open_site(store, carrier_of_all, storage=Slow, **KEPT, **lease) as site:
        storage, run_id = marked(site, 40)
        site.runtime = replace(site.runtime, now=utcnow)
        left = list[float]()

        def then() -> None:
            (run,) = rows(site, RetentionRun)
            left.append((run.lease_until - utcnow()).total_seconds())

        storage.then = then  # type: ignore[method-assign]
        while not retention.work(site.runtime, run_id, seconds=60, rest=lambda _s: None):
            pass
        assert len(left) == 40
        assert min(left) > 0, "another process could have begun the same"
        assert [(run.state, run.fence) for run in rows(site, RetentionRun)] == [("done", 1)]


def test_a_storage_that_cannot_tell_is_asked_once_and_keeps_nobody_from_a_hold(
    store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    with open_site(store, carrier_of_all, storage=Away, **KEPT) as site:
        ids = [over(site) for _ in range(3)]
        mark(site)
        storage = site.runtime.plugins.get("local", Away)
        storage.away = True
        keep(site, artifact_ttl_days=0)
        site.purge()
        assert storage.asked == 1
        assert [may_be_held(site, each) for each in ids] == [True] * 3


@pytest.mark.parametrize(
    "site", [{"FAXBOT_LEASE_SECONDS": "1", "FAXBOT_HEARTBEAT_SECONDS": "0.4"}], indirect=True
)
def test_who_stood_still_behind_his_mark_removes_nothing_that_is_held_meanwhile(site: Site) -> None:
    job_id = over(site)
    site.now += 31 * DAY
    run_id = retention.ask(site.runtime, ACTOR)
    before = site.runtime

    def meanwhile() -> None:
        site.now += timedelta(seconds=4)
        keep(site, artifact_ttl_days=0)
        while not retention.work(site.runtime, run_id, rest=lambda _s: None):
            pass
        assert may_be_held(site, job_id)
        time.sleep(1.6)  # his lease, as far as he may use it

    site.interrupt("UPDATE artifacts SET deleted_at", meanwhile)
    assert retention.work(before, run_id, rest=lambda _s: None)
    (row,) = rows(site, Artifact)
    assert is_there(site, row)
    assert row.deleted_at is None
