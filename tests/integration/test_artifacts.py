"""Stored bytes: every one belongs to a fax, whoever died while they were stored."""

from __future__ import annotations

import errno
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from faxbot import artifacts, claims
from faxbot.artifacts import Workspace
from faxbot.db import new_id
from faxbot.errors import InvalidFields, LeaseLost
from faxbot.models import Artifact, JobRow
from faxbot.runtime import Runtime
from faxbot.storage.local import LocalStorage
from tests.integration import odd
from tests.integration.site import Site, number


def leave_bytes(site: Site, runtime: Runtime | None = None) -> str:
    """What a process leaves that dies between storing a document and recording its fax."""
    site.now += timedelta(seconds=1)
    row = artifacts.store(
        runtime or site.runtime,
        site.upload(),
        owner={"job_id": new_id()},
        account_id="default",
        role="document",
        position=0,
        now=site.now,
    )
    return str(row["key"])


def test_bytes_whose_fax_was_never_recorded_are_removed_within_a_day(site: Site) -> None:
    before = site.fax()
    for _ in range(3):
        leave_bytes(site)
    after = site.fax()

    site.now += timedelta(minutes=50)
    assert artifacts.collect(site.runtime) == 0
    site.now += timedelta(minutes=20)
    assert artifacts.collect(site.runtime) == 3
    assert artifacts.collect(site.runtime) == 0

    assert site.stored() == 2
    assert unsettled(site) == 0
    site.work()
    assert {site.job(job_id).status for job_id in (before, after)} == {"sent"}


def test_several_who_collect_at_once_do_each_other_no_harm(site: Site) -> None:
    kept = site.fax()
    for _ in range(40):
        leave_bytes(site)
    site.now += timedelta(hours=2)
    start = threading.Barrier(4)

    def collect(_: int) -> int:
        start.wait()
        return artifacts.collect(site.runtime)

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(collect, range(4))) >= 40
    assert (site.stored(), unsettled(site)) == (1, 0)
    site.work()
    assert site.job(kept).status == "sent"


def unsettled(site: Site) -> int:
    return len(list((site.runtime.config.data_dir / "unsettled").iterdir()))


def test_a_recorded_fax_leaves_no_note_and_a_refused_one_none_either(site: Site) -> None:
    site.fax()
    with pytest.raises(InvalidFields):
        site.submit(number(), provider_id="none")
    assert unsettled(site) == 0
    assert site.stored() == 1


def test_a_fax_whose_process_died_behind_the_commit_keeps_its_document(site: Site) -> None:
    job_id = site.fax()
    with site.runtime.database.reading() as session:
        (document,) = session.scalars(sa.select(Artifact).filter_by(job_id=job_id, role="document"))
    artifacts._note(site.runtime, vars(document))  # it had no time to remove it

    site.now += timedelta(days=1)
    assert artifacts.collect(site.runtime) == 0
    assert (site.stored(), unsettled(site)) == (1, 0)


def test_what_another_database_or_one_from_a_backup_holds_is_never_touched(site: Site) -> None:
    site.fax()
    with site.runtime.database.transaction() as session:
        session.execute(sa.delete(Artifact))  # as if restored from before
    leave_bytes(site)
    other = replace(site.runtime.config, database_url="sqlite:////elsewhere.db")
    site.now += timedelta(days=30)

    assert artifacts.collect(replace(site.runtime, config=other)) == 0
    assert site.stored() == 2
    assert artifacts.collect(site.runtime) == 1
    assert site.stored() == 1


def test_a_new_password_of_the_database_leaves_no_bytes_behind(site: Site) -> None:
    def told(address: str) -> Runtime:
        return replace(site.runtime, config=replace(site.runtime.config, database_url=address))

    leave_bytes(site, told("postgresql://faxbot:old@db:5432/faxbot?sslmode=require"))
    site.now += timedelta(hours=2)
    for other in ("faxbot:old@other:5432/faxbot", "faxbot:old@db:5433/faxbot", "faxbot:old@db/f"):
        assert artifacts.collect(told(f"postgresql://{other}")) == 0

    assert artifacts.collect(told("postgresql://owner:new@db:5432/faxbot")) == 1
    assert (site.stored(), unsettled(site)) == (0, 0)


def test_a_file_that_is_no_note_of_ours_is_left_where_it_is(site: Site) -> None:
    site.fax()
    for name in (new_id(), f"{new_id()}.local.x", "readme.txt", f"{'f' * 32}.local.{'0' * 16}"):
        (site.runtime.config.data_dir / "unsettled" / name).touch()
    site.now += timedelta(days=1)
    assert artifacts.collect(site.runtime) == 0
    assert (site.stored(), unsettled(site)) == (1, 4)


def test_a_file_system_without_links_is_good_enough(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(errno.EPERM, "not permitted")

    with monkeypatch.context() as patch:
        patch.setattr("os.link", no_links)
        patch.setattr("pathlib.os.link", no_links)
        leave_bytes(site)
    assert unsettled(site) == 1
    site.now += timedelta(hours=2)
    assert artifacts.collect(site.runtime) == 1
    assert (site.stored(), unsettled(site)) == (0, 0)


def test_bytes_that_could_not_be_removed_are_tried_again(site: Site) -> None:
    leave_bytes(site)
    site.now += timedelta(hours=2)
    gone = odd.plugins(site.runtime, storage=Undying)
    assert artifacts.collect(replace(site.runtime, plugins=gone)) == 0
    assert (site.stored(), unsettled(site)) == (1, 1)

    assert artifacts.collect(site.runtime) == 1
    assert (site.stored(), unsettled(site)) == (0, 0)


def test_a_storage_that_is_away_is_asked_once_for_each_day_in_a_round(site: Site) -> None:
    """Each answer may be long in coming."""
    days = {leave_bytes(site).rpartition("/")[0] for _ in range(3)}
    site.now += timedelta(hours=2)
    gone = odd.plugins(site.runtime, storage=Undying)
    Undying.asked = 0
    assert artifacts.collect(replace(site.runtime, plugins=gone)) == 0
    assert Undying.asked == len(days)
    assert artifacts.collect(site.runtime) == 3


def test_bytes_of_a_day_that_has_no_folder_keep_no_others_from_being_removed(site: Site) -> None:
    """Who died before he made it left a note of what was never kept; nobody can tell that from a missing volume."""
    never = leave_bytes(site)
    documents = site.runtime.config.data_dir / "documents"
    shutil.rmtree((documents / never).parent)
    site.now += timedelta(days=1)
    for _ in range(2):
        leave_bytes(site)
    site.now += timedelta(hours=2)
    assert artifacts.collect(site.runtime) == 2
    assert (site.stored(), unsettled(site)) == (0, 1)

    (documents / never).parent.mkdir()
    assert artifacts.collect(site.runtime) == 1
    assert unsettled(site) == 0


class Undying(LocalStorage):
    """A store that is away when something is to be removed."""

    asked = 0

    def delete(self, key: str) -> None:
        Undying.asked += 1
        raise OSError(errno.EIO, "the store says no", key)


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
