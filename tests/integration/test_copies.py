"""A carrier's copy of a document goes when its fax has ended, where that is wished; at the latest when the carrier is
there again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from faxbot import alarms, copies, legalholds, sending, sweeps
from faxbot.errors import Unreachable
from faxbot.plugins.base import Receipt, State, TransportPlugin, Update
from tests.carrier import SimulatorProcess
from tests.installation import Installation
from tests.integration import odd
from tests.integration.odd import Odd, raises
from tests.integration.site import ACTOR, Site, open_site

CAN = ("send_fax", "status_lookup", "deletes_copy")


@pytest.fixture
def site(
    request: pytest.FixtureRequest, store: Installation, carrier_of_all: SimulatorProcess
) -> Iterator[Site]:
    """The provider `second` can delete its copies; what a test gives instead of True is the setting."""
    wished = getattr(request, "param", "true")
    settings = {"FAX_BACKENDS": "second", "FAXBOT_DELETE_AT_CARRIER": wished}
    with open_site(store, carrier_of_all, **settings) as site:
        plugins = odd.plugins(site.runtime, others={"second": CAN})
        site.runtime = replace(site.runtime, plugins=plugins)
        yield site


def provider(site: Site) -> Odd:
    plugin = site.runtime.plugins.get("second", TransportPlugin)
    assert isinstance(plugin, Odd)
    return plugin


def ended(site: Site, state: State = State.DELIVERED, cause: str | None = None) -> str:
    """A fax that has ended so; its carrier's name for it is `copy`."""
    does = provider(site).does
    does["send"] = lambda _usual, _fax: Receipt("copy")
    does["fetch"] = lambda _usual, name: Update(state, external_id=name, cause=cause)
    job_id = site.fax()
    sending.attempt(site.runtime, job_id)
    assert site.attempt(job_id).delete_copy_at is None, "it was to go before its end"
    site.after(600)
    return job_id


def deletions(site: Site) -> list[str]:
    """What the carrier is asked to delete from now on."""
    asked: list[str] = []
    provider(site).does["delete_copy"] = lambda _usual, name: asked.append(name)
    return asked


@pytest.mark.parametrize(
    ("state", "cause"), [(State.DELIVERED, None), (State.FAILED, "number_dead")]
)
def test_it_goes_once_the_fax_has_ended_however_it_ended(
    site: Site, state: State, cause: str | None
) -> None:
    asked = deletions(site)
    job_id = ended(site, state, cause)
    site.sweep()

    assert asked == ["copy"]
    for _ in range(3):
        site.after(3600)
    assert (asked, site.attempt(job_id).delete_copy_at) == (["copy"], None)


@pytest.mark.parametrize("site", ["false"], indirect=True)
def test_it_stays_where_nobody_wishes_that_it_goes(site: Site) -> None:
    asked = deletions(site)
    job_id = ended(site)
    site.sweep()

    assert (asked, site.attempt(job_id).delete_copy_at) == ([], None)


def test_a_carrier_that_is_away_is_asked_again_later_and_later_for_a_week(site: Site) -> None:
    provider(site).does["delete_copy"] = raises(Unreachable())
    job_id = ended(site)
    waits = []
    for _ in range(60):
        site.sweep()
        at = site.attempt(job_id).delete_copy_at
        if at is None:
            break
        waits.append((at - site.now).total_seconds())
        site.now = at + timedelta(seconds=1)

    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (60, 6 * 3600)
    assert 7 <= sum(waits) / 86_400 < 8
    assert at is None


def test_a_copy_that_is_not_deleted_for_a_day_is_an_alarm_until_it_is_gone_or_its_fax_is_held(
    site: Site,
) -> None:
    provider(site).does["delete_copy"] = raises(Unreachable())
    job_id = ended(site)

    def said() -> list[tuple[str, int]]:
        site.sweep()
        return [(each.code, each.count) for each in alarms.raised(site.runtime)]

    site.now += timedelta(hours=23)
    assert said() == []
    site.now += timedelta(hours=1, seconds=1)
    assert said() == [("copies", 1)]
    (alarm,) = alarms.raised(site.runtime)
    assert "second: 1" in alarm.detail
    legalholds.hold(site.runtime, ACTOR, "fax", job_id, "a test")
    assert said() == []
    site.now += timedelta(days=30)
    legalholds.lift(site.runtime, ACTOR, "fax", job_id)
    assert said() == [], "it was not asked meanwhile, and has as long as ever"
    site.now += timedelta(days=1, seconds=1)
    assert said() == [("copies", 1)]
    deletions(site)
    site.after(7 * 3600)
    assert said() == []


def test_it_goes_when_the_carrier_is_back(site: Site) -> None:
    provider(site).does["delete_copy"] = raises(Unreachable())
    job_id = ended(site)
    site.sweep()
    asked = deletions(site)
    site.after(3600)

    assert (asked, site.attempt(job_id).delete_copy_at) == (["copy"], None)


def test_a_lost_bell_or_a_dead_worker_only_costs_time(site: Site) -> None:
    ended(site)
    site.rung.clear()
    asked = deletions(site)
    site.after(61)

    assert asked == ["copy"]


def test_a_plugin_that_is_gone_keeps_nothing_from_going_on(site: Site) -> None:
    job_id = ended(site)
    site.runtime = replace(site.runtime, plugins=odd.plugins(site.runtime))
    site.after(600)

    assert site.attempt(job_id).delete_copy_at is not None
    site.after(8 * 86_400)
    assert site.attempt(job_id).delete_copy_at is None


def test_in_a_crowded_queue_it_is_not_announced_again_each_minute(site: Site) -> None:
    provider(site).does["delete_copy"] = raises(Unreachable())
    job_id = ended(site)
    site.runtime = replace(site.runtime, unanswered=lambda _task: 10_000)
    site.now += timedelta(hours=7)
    site.rung.clear()

    for _ in range(4):
        sweeps.run(site.runtime)
        site.now += timedelta(minutes=1)

    attempt_id = site.attempt(job_id).id
    assert site.rung.count((copies.TASK, attempt_id)) == 1
