"""Resting providers: what one worker learns all of them know, however many learn it at once."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest

from faxbot import breaker, sending
from faxbot.errors import (
    AccountRefused,
    DestinationBarred,
    NotSent,
    Refused,
    Throttled,
    Unreachable,
)
from faxbot.models import ProviderState
from tests.integration.odd import raises
from tests.integration.site import Site
from tests.threads import at_once


def note(site: Site, error: NotSent, *, account: str = "default") -> None:
    with site.runtime.database.transaction() as session:
        breaker.note(session, account, "simulator", error, site.now)


def rests_for(site: Site) -> tuple[float, str] | None:
    rest = site.rest()
    return None if rest is None else ((rest.until - site.now).total_seconds(), rest.reason)


@pytest.mark.parametrize(
    ("error", "rest"),
    [
        (AccountRefused(), (600, "account_refused")),
        (Throttled(), (1, "throttled")),
        (Throttled(retry_after=90), (90, "throttled")),
        (Throttled(retry_after=1e12), (86_400, "throttled")),
        (Refused(), None),
        (DestinationBarred(), None),
        (Unreachable(retry_after=90), None),
    ],
)
def test_only_the_account_and_the_rate_make_a_provider_rest(
    site: Site, error: NotSent, rest: tuple[float, str] | None
) -> None:
    note(site, error)

    assert rests_for(site) == rest
    if rest is not None:
        site.now += timedelta(seconds=rest[0])
        assert rests_for(site) is None


def test_a_longer_rest_is_not_cut_short_and_a_shorter_one_is_extended(site: Site) -> None:
    note(site, Throttled(retry_after=30))
    note(site, AccountRefused())
    note(site, Throttled(retry_after=2))

    assert rests_for(site) == (600, "account_refused")
    site.now += timedelta(seconds=599)
    note(site, Throttled(retry_after=5))
    assert rests_for(site) == (5, "throttled")


def test_a_rest_belongs_to_its_account(site: Site) -> None:
    note(site, AccountRefused(), account="other")

    assert site.rest() is None


def test_workers_that_are_refused_at_once_all_keep_their_outcome(site: Site) -> None:
    faxes = [site.fax() for _ in range(6)]
    gate = threading.Barrier(len(faxes))

    def refuse_together(usual: Any, fax: Any) -> object:
        gate.wait(20)
        return raises(AccountRefused())(usual, fax)

    site.odd.does["send"] = refuse_together
    at_once(len(faxes), lambda number: sending.attempt(site.runtime, faxes[number]))

    assert [site.story(fax) for fax in faxes] == ["QUEUED SUBMITTING HELD"] * len(faxes)
    assert site.count(ProviderState) == 1
