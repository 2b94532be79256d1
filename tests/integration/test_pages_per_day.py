"""Pages a day: counted with the fax or not at all, by whichever process, until midnight UTC."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from faxbot import limits
from faxbot.errors import DocumentTooLarge, FaxbotError, KeyReused, PagesPerDay
from faxbot.models import Artifact, FaxEvent, IdempotencyKey, Job, JobTag, PageCount
from tests.carrier import SimulatorProcess
from tests.installation import Installation
from tests.integration.site import ACTOR, Site, open_site
from tests.integration.test_limits import statements
from tests.threads import at_once

NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
TO = "+15550107701"
LIMIT = 10


@pytest.fixture
def site(store: Installation, carrier_of_all: SimulatorProcess) -> Iterator[Site]:
    """The road of an installation that takes ten pages a day from an account."""
    with open_site(store, carrier_of_all, FAXBOT_PAGES_PER_DAY=str(LIMIT)) as site:
        site.now = NOON
        yield site


def counted(site: Site) -> dict[tuple[str, date], int]:
    with site.runtime.database.reading() as session:
        rows = session.execute(sa.select(PageCount.account_id, PageCount.day, PageCount.pages))
        return {(row.account_id, row.day): row.pages for row in rows}


def rows(site: Site) -> dict[str, int]:
    models = (Job, FaxEvent, Artifact, JobTag, IdempotencyKey)
    return {model.__tablename__: site.count(model) for model in models}


def refused(site: Site, pages: int, **wish: Any) -> PagesPerDay:
    with pytest.raises(PagesPerDay) as caught:
        site.submit(TO, pages=pages, **wish)
    return caught.value


def test_pages_of_one_day_are_added_up_and_the_next_day_begins_anew(site: Site) -> None:
    site.submit(TO, pages=6)
    site.submit(TO, pages=3)
    error = refused(site, 2)
    assert error.retry_after == 12 * 3600
    assert error.detail == (
        "The fax has 2 pages, and this account may send 1 more until 00:00 UTC "
        "(FAXBOT_PAGES_PER_DAY: 10)."
    )

    site.submit(TO, pages=1)
    site.now = NOON.replace(hour=23, minute=59, second=59)
    assert refused(site, 1).retry_after == 1
    site.now += timedelta(seconds=1)
    site.submit(TO, pages=10)
    assert counted(site) == {
        ("default", date(2026, 3, 1)): 10,
        ("default", date(2026, 3, 2)): 10,
    }


def test_what_is_refused_leaves_nothing_behind_and_its_key_is_free(site: Site) -> None:
    site.submit(TO, pages=9)
    before, stored, site.rung = rows(site), site.stored(), []

    refused(site, 2, key="order-1")

    assert (rows(site), site.stored(), site.rung) == (before, stored, [])
    assert counted(site) == {("default", NOON.date()): 9}
    assert site.submit(TO, pages=1, key="order-1").replayed is False


def test_a_fax_that_is_refused_for_another_reason_counts_nothing(site: Site) -> None:
    site.submit(TO, pages=2, key="order-1")
    wishes: list[dict[str, Any]] = [
        {"provider_id": "nobody"},
        {"expires_at": NOON - timedelta(seconds=1)},
        {"key": "order-1"},
    ]
    for wish in wishes:
        with pytest.raises(FaxbotError):
            site.submit(TO, pages=3, **wish)

    assert counted(site) == {("default", NOON.date()): 2}


def test_a_repeat_counts_nothing_and_is_answered_when_the_day_is_full(site: Site) -> None:
    upload = site.upload(pages=LIMIT)
    content = upload.path.read_bytes()
    site.submit(TO, uploads=(upload,), key="order-1")
    for _ in range(3):
        again = site.submit(TO, uploads=(site.upload(content, LIMIT),), key="order-1")
        assert again.replayed is True
    with pytest.raises(KeyReused):
        site.submit("+15550107702", uploads=(site.upload(content, LIMIT),), key="order-1")

    assert counted(site) == {("default", NOON.date()): LIMIT}


def test_a_fax_that_fits_into_no_day_is_too_large_and_says_which_setting(site: Site) -> None:
    with pytest.raises(DocumentTooLarge) as caught:
        site.submit(TO, pages=LIMIT + 1)

    assert "11 pages" in caught.value.detail
    assert "FAXBOT_PAGES_PER_DAY" in caught.value.detail
    assert counted(site) == {}
    assert (set(rows(site).values()), site.stored()) == ({0}, 0)


def test_accounts_have_each_their_own_pages(site: Site) -> None:
    other = replace(ACTOR, account_id="other")
    site.submit(TO, pages=LIMIT)
    site.submit(TO, pages=LIMIT, actor=other)

    for actor in (ACTOR, other):
        with pytest.raises(PagesPerDay):
            site.submit(TO, pages=1, actor=actor)


def test_at_the_same_time_exactly_so_many_are_taken(site: Site) -> None:
    def send(_number: int) -> int:
        taken = 0
        for _ in range(3):
            try:
                site.submit(TO, pages=1)
                taken += 1
            except PagesPerDay:
                pass
        return taken

    assert sum(at_once(6, send)) == LIMIT
    assert site.count(Job) == LIMIT
    assert counted(site) == {("default", NOON.date()): LIMIT}


def test_it_is_logged_once_for_an_account_and_day_by_all_processes(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.submit(TO, pages=LIMIT)
    with caplog.at_level(logging.INFO, "faxbot"):
        for _ in range(3):
            refused(site, 1)
        site.now += timedelta(days=1)
        site.submit(TO, pages=9)
        refused(site, 2)

    told = [vars(each) for each in caplog.records if each.name == "faxbot.limits"]
    assert [(each["levelname"], each["account"], each["limit"]) for each in told] == [
        ("WARNING", "default", LIMIT)
    ] * 2
    assert TO not in str(told)


def test_it_costs_one_statement_and_none_where_it_is_off(
    site: Site, store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    with statements(site.runtime) as with_limit:
        site.submit(TO)
    with open_site(store, carrier_of_all) as off:
        with statements(off.runtime) as without:
            off.submit(TO, pages=LIMIT + 1)
        before = counted(off)

    assert with_limit == [*without, "INSERT INTO page_counts"], (
        "and last, because the account's others wait for it"
    )
    assert before == counted(site)


def test_a_limit_that_is_raised_holds_at_once(site: Site) -> None:
    site.submit(TO, pages=LIMIT)
    refused(site, 1)

    site.runtime = replace(
        site.runtime, config=replace(site.runtime.config, pages_per_day=LIMIT + 1)
    )
    site.submit(TO, pages=1)
    refused(site, 1)


def test_counts_of_days_long_past_are_removed(site: Site) -> None:
    site.submit(TO)
    site.now += limits.PAGES_KEPT
    site.submit(TO)
    assert limits.forget(site.runtime) == 0

    site.now += timedelta(days=1)
    assert limits.forget(site.runtime) == 1
    assert list(counted(site)) == [("default", (NOON + limits.PAGES_KEPT).date())]
