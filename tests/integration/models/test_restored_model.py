"""Any order of things (test_model), in which the ledger is also lost and brought back from a backup, as often as it
likes: no fax is called for while an earlier call of it may still arrive, whatever the ledger has forgotten of it.

SQLite alone: what is looked for does not depend on the store, and a copy of a file is made in a moment.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import invariant, rule, run_state_machine_as_test

from faxbot import decisions, heartbeats, recall, restored
from faxbot.errors import NotPossibleNow
from faxbot.events import ASKED, OPEN, TERMINAL, Status
from faxbot.plugins.base import State
from tests.carrier import SimulatorProcess
from tests.installation import Installation
from tests.integration.models.test_model import FAXES, LONGEST, REPEATS, Road, alive, places
from tests.integration.site import ACTOR, Site, open_site

EXAMPLES = 30
MOST_BACKUPS = 3
LISTED_BY = timedelta(hours=2)
"""So long after the last loss nobody asks ever more seldom for what is there."""


@dataclass
class Backup:
    """A copy of the ledger, and what was so when it was made."""

    ledger: sqlite3.Connection
    ids: list[str]
    ended: dict[str, str]
    wished: set[str]
    made_at: datetime


class Losses(Road):
    """The same road; what happened after a backup may be forgotten at any moment."""

    ledger: Path

    def __init__(self) -> None:
        super().__init__()
        self.backups: list[Backup] = []

    # No preconditions: by the order of ids things may differ after the same steps, and hypothesis wants the same again.

    @rule()
    def a_backup_is_made(self) -> None:
        if len(self.backups) < MOST_BACKUPS:
            self.back_up()

    def back_up(self) -> None:
        self.site.now += timedelta(seconds=1)
        heartbeats.beat(self.site.runtime, ["queued"])
        copy = sqlite3.connect(":memory:")
        with closing(sqlite3.connect(self.ledger)) as source:
            source.backup(copy)
        wished = set(self.carrier.wished)
        made = Backup(copy, [*self.ids], {**self.ended}, wished, self.site.now)
        self.backups.append(made)

    @rule(number=st.integers(0, MOST_BACKUPS - 1), declared=st.booleans())
    def all_is_lost_and_brought_back(self, number: int, declared: bool) -> None:
        """By a backup that may be brought back again; it is noticed, or people say so."""
        if not self.backups:
            return
        backup = self.backups[number % len(self.backups)]
        self.site.now += timedelta(seconds=2)
        heartbeats.beat(self.site.runtime, ["queued"])
        with closing(sqlite3.connect(self.ledger)) as target:
            backup.ledger.backup(target)
        self.site.runtime.breakers.forget()
        self.site.now += timedelta(seconds=2)
        if declared:
            recall.declare(self.site.runtime, ACTOR)
        assert self.site.runtime.restores.notice(self.site.now) is not None
        self.ids, self.ended = [*backup.ids], {**backup.ended}
        self.carrier.wished = set(backup.wished)  # a wish of after it is lost with it

    @rule(place=places)
    def a_lost_fax_is_called_for_and_lost(self, place: int) -> None:
        """In one step, because by chance it is a long way: a try that the ledger forgets."""
        del self.backups[MOST_BACKUPS - 1 :]
        self.back_up()
        self.a_worker_tries(place)
        self.all_is_lost_and_brought_back(len(self.backups) - 1, declared=False)

    @rule(place=places)
    def somebody_cancels(self, place: int) -> None:
        if not self.carrier.wished:
            super().somebody_cancels(place)

    @rule(place=places)
    def somebody_sends_it_once_more(self, place: int) -> None:
        if self.ended and len(self.ids) < FAXES + REPEATS:
            super().somebody_sends_it_once_more(place)

    @rule(place=places)
    def somebody_releases(self, place: int) -> None:
        """Who lets one go that is in doubt has found out that it was not sent."""
        fax = self.at(place)
        if self.site.job(fax).reason == restored.REASON and alive(self.carrier.of(fax)):
            return
        with suppress(NotPossibleNow):
            decisions.release(self.site.runtime, ACTOR, fax)

    @rule(place=places)
    def somebody_finds_out_and_decides(self, place: int) -> None:
        """Of the one that is uncertain; not where another call may arrive of which the ledger has forgotten."""
        fax = self.at(place)
        newest = self.site.attempts(fax)[-1:]
        others = [c for c in self.carrier.of(fax) if not newest or c.tag != newest[0].tag]
        if not alive(others):
            super().somebody_finds_out_and_decides(place)

    @invariant()
    def what_is_told_is_true(self) -> None:
        assert self.carrier.breaches == []
        for fax in self.ids:
            job = self.site.job(fax)
            status = Status(job.status)
            if status in OPEN and (status, job.reason) != (Status.HELD, ASKED):
                assert job.next_at is not None, "nobody looks at it again"
                assert job.next_at <= self.site.now + timedelta(days=1), "nor soon"
            assert self.ended.get(fax) in (None, status), "what is final has changed"
            if status in TERMINAL:
                self.ended[fax] = status

    def teardown(self) -> None:
        """As there; a person lets go what nobody can prove, when he has found out."""
        given_up = self.site.now + LISTED_BY
        for _ in range(LONGEST):
            waits = [self.site.job(fax) for fax in self.ids if fax not in self.ended]
            if not waits:
                break
            for place in range(len(self.ids)):
                self.the_call_ends(place, "")
                reason = self.site.job(self.at(place)).reason
                if reason == ASKED or (reason == restored.REASON and self.site.now > given_up):
                    self.somebody_releases(place)
            soon = self.site.now + timedelta(seconds=61)
            self.site.now = max(soon, min(job.next_at or soon for job in waits))
            self.beat_ticks()
            self.all_bells_are_answered()
            self.what_is_told_is_true()
        else:
            raise AssertionError(f"no end: {[(job.status, job.reason) for job in waits]}")
        for fax in self.ids:
            arrived = sum(call.end is State.DELIVERED for call in self.carrier.of(fax))
            assert arrived <= 1
            if self.ended[fax] != Status.CANCELLED:  # it says that it may have arrived
                assert arrived == (self.ended[fax] == Status.DELIVERED)
        self.site.add_up()
        for backup in self.backups:
            backup.ledger.close()


@pytest.fixture
def site(embedded: Installation, carrier_of_all: SimulatorProcess) -> Iterator[Site]:
    with open_site(embedded, carrier_of_all) as site:
        yield site


def test_whatever_a_ledger_forgets_no_fax_is_sent_twice_and_each_ends(
    site: Site, embedded: Installation
) -> None:
    usual = settings.get_current_profile_name() == "usual"

    class Here(Losses):
        pass

    Here.site, Here.ledger = site, embedded.data_dir / "faxbot.db"
    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=EXAMPLES if usual else settings().max_examples,
            stateful_step_count=40,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
