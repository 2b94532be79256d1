"""Stored bytes: every one belongs to a fax, whoever died while they were stored."""

from __future__ import annotations

from datetime import timedelta

import pytest

from faxbot import artifacts, claims
from faxbot.artifacts import Workspace
from faxbot.db import new_id
from faxbot.errors import LeaseLost
from faxbot.models import Artifact, JobRow
from tests.integration.site import Site, number


def leave_bytes(site: Site) -> str:
    """What a process leaves that dies between storing a document and recording its fax."""
    site.now += timedelta(seconds=1)
    row = artifacts.store(
        site.runtime,
        site.upload(),
        job_id=new_id(),
        account_id="default",
        role="document",
        position=0,
        now=site.now,
    )
    return str(row["key"])


def test_bytes_whose_fax_was_never_recorded_are_removed_within_a_day(site: Site) -> None:
    before = site.fax()
    for _ in range(3):
        site.now += timedelta(minutes=1)
        leave_bytes(site)
    after = site.fax()

    site.now += timedelta(hours=11)
    assert artifacts.collect(site.runtime) == 0
    site.now += timedelta(hours=2)
    assert artifacts.collect(site.runtime) == 3
    assert artifacts.collect(site.runtime) == 0

    assert site.stored() == 2
    site.work()
    assert {site.job(job_id).status for job_id in (before, after)} == {"sent"}


def test_a_walk_is_bounded_and_goes_on_where_the_last_one_ended(site: Site) -> None:
    site.fax()
    for _ in range(5):
        site.now += timedelta(hours=5)
        leave_bytes(site)
        site.fax()
    site.now += timedelta(hours=13)
    before = site.stored()

    removed = [artifacts.collect(site.runtime, limit=4) for _ in range(4)]

    assert sum(removed) == 5
    assert removed[-1] == 0
    assert max(removed) <= 3
    assert site.stored() == before - 5
    leave_bytes(site)
    site.now += timedelta(hours=13)
    assert artifacts.collect(site.runtime) == 1


@pytest.mark.parametrize("note", ["", "zzzz", "2999/01/01", "2999/01/01/../../x", "\0ä"])
def test_a_note_that_says_nothing_is_a_walk_from_the_beginning(site: Site, note: str) -> None:
    site.fax()
    leave_bytes(site)
    (site.runtime.config.data_dir / artifacts.NOTE).write_text(note)
    site.now += timedelta(hours=13)

    assert artifacts.collect(site.runtime) == 1


def test_nothing_is_removed_that_may_be_another_databases(site: Site) -> None:
    """The folder of a database that somebody left out of the settings for a while."""
    leave_bytes(site)
    site.now += timedelta(days=30)
    assert artifacts.collect(site.runtime) == 0

    site.submit(number())
    site.now += timedelta(days=30)
    assert artifacts.collect(site.runtime) == 0
    assert site.stored() == 2


def pages(site: Site, job: JobRow) -> None:
    with Workspace(site.runtime) as workspace:
        artifacts.pages_of(site.runtime, job, workspace)


def test_pages_of_a_worker_that_lost_its_claim_leave_no_bytes_behind(site: Site) -> None:
    job_id = site.submit(number()).job_id
    slow = claims.claim(site.runtime, job_id)
    assert slow is not None

    def take_over() -> None:
        site.now += timedelta(seconds=61)
        other = claims.claim(site.runtime, job_id)
        assert other is not None
        pages(site, other)

    site.interrupt("SELECT artifacts", take_over)
    with pytest.raises(LeaseLost):
        pages(site, slow)

    assert (site.stored(), site.count(Artifact)) == (2, 2)


def test_pages_that_take_the_place_of_earlier_ones_leave_one_of_them(site: Site) -> None:
    job_id = site.submit(number()).job_id
    slow = claims.claim(site.runtime, job_id)
    assert slow is not None

    # Both found none: a renderer's reply was lost, and the same worker made them again.
    site.interrupt("SELECT artifacts", lambda: pages(site, slow))
    pages(site, slow)

    assert (site.stored(), site.count(Artifact)) == (2, 2)
