"""A carrier's copy of a document goes when its fax has ended, or a received one is stored here, where that is wished;
at the latest when the carrier is there again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from faxbot import alarms, callbacks, copies, legalholds, sending, sweeps
from faxbot.db import table
from faxbot.errors import Unreachable
from faxbot.hidden import Hidden
from faxbot.models import Attempt, InboundFax
from faxbot.plugins.base import Arrival, Receipt, State, TransportPlugin, Update
from tests.carrier import SimulatorProcess
from tests.installation import Installation
from tests.integration import odd
from tests.integration.odd import Odd, Vanished, answers, raises
from tests.integration.site import ACTOR, Site, open_site, tiff
from tests.integration.test_arrivals import FROM, INBOUND, PDF, TO, gives, said

CAN = ("send_fax", "status_lookup", "deletes_copy", "status_callback", *INBOUND)


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


def received(site: Site, content: bytes = PDF) -> str:
    """A received fax whose document is stored; its carrier's name for it is `copy`, too."""
    does = provider(site).does
    arrival = Arrival("copy", sender=Hidden(FROM), recipient=Hidden(TO))
    does |= {"verify_callback": answers(True), "read_callback": answers([arrival])}
    does["document"] = raises(Unreachable())
    callbacks.receive(site.runtime, "second", said())
    site.work()
    (fax,) = site.runtime.database.rows(sa.select(table(InboundFax)), {})
    assert (fax.status, fax.delete_copy_at) == ("fetching", None), "it was to go before it is here"
    does["document"] = gives(content)
    site.after(31)
    return str(fax.id)


either = pytest.mark.parametrize("over", [ended, received], ids=["sent", "received"])
Over = Callable[[Site], str]
"""Has a fax, sent or received, whose copy is not needed any more."""


def noted(site: Site, fax_id: str) -> Any:
    """The row that says whether its copy is to go."""
    for column in (table(Attempt).c.job_id, table(InboundFax).c.id):
        row = site.runtime.database.row(sa.select(column.table).where(column == fax_id), {})
        if row is not None:
            return row
    raise AssertionError(fax_id)


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


def test_that_of_a_received_fax_goes_once_its_document_is_stored_here(site: Site) -> None:
    asked = deletions(site)
    fax_id = received(site)
    assert noted(site, fax_id).status == "received"
    site.sweep()

    for _ in range(3):
        site.after(3600)
    this = noted(site, fax_id)
    assert (asked, this.delete_copy_at) == (["copy"], None)
    assert this.copy_deleted_at is not None
    assert site.stored() == 1, "ours stays"


@pytest.mark.parametrize(
    "broken", [b"%PDF-1.4 and rubbish", PDF[:-300], tiff()[:-60], tiff(2)[:-60]]
)
def test_that_of_a_received_fax_whose_document_came_damaged_stays_as_it_may_be_the_only_whole_one(
    site: Site, broken: bytes
) -> None:
    asked = deletions(site)
    fax_id = received(site, broken)
    for _ in range(5):  # several tries are made to show a TIFF
        site.after(3600)
    this = noted(site, fax_id)
    assert (this.status, this.delete_copy_at, asked) == ("received", None, [])

    site.now += timedelta(days=31)
    site.purge()
    site.after(1)
    assert asked == ["copy"], "ours has gone by its age"


def test_the_carrier_has_no_document_of_the_received_fax_any_more(
    store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    """Asked over HTTP, as every carrier is."""
    with open_site(store, carrier_of_all, FAXBOT_DELETE_AT_CARRIER="true") as site:
        came = carrier_of_all.receive("0011", "http://127.0.0.1:9/")["id"]
        site.receive(site.callback(carrier_of_all.get(f"/v1/faxes/{came}")["fax"]))
        site.work()
        (fax,) = site.runtime.database.rows(sa.select(table(InboundFax)), {})
        assert (fax.status, fax.external_id) == ("received", came)
        assert carrier_of_all.has_document(came)
        site.after(1)
        assert not carrier_of_all.has_document(came)


@pytest.mark.parametrize("site", ["false"], indirect=True)
@either
def test_it_stays_where_nobody_wishes_that_it_goes(site: Site, over: Over) -> None:
    asked = deletions(site)
    fax_id = over(site)
    site.sweep()

    assert (asked, noted(site, fax_id).delete_copy_at) == ([], None)


@either
def test_a_carrier_that_is_away_is_asked_again_later_and_later_for_a_week(
    site: Site, over: Over, caplog: pytest.LogCaptureFixture
) -> None:
    provider(site).does["delete_copy"] = raises(Unreachable())
    fax_id = over(site)
    waits = []
    for _ in range(60):
        site.sweep()
        at = noted(site, fax_id).delete_copy_at
        if at is None:
            break
        waits.append((at - site.now).total_seconds())
        site.now = at + timedelta(seconds=1)

    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (60, 6 * 3600)
    assert 7 <= sum(waits) / 86_400 < 8
    assert at is None
    said = [each for each in caplog.records if each.name == copies.__name__]
    (given_up,) = [each for each in said if each.levelno == logging.ERROR]
    assert given_up.message == "copy not deleted at the carrier"
    assert getattr(given_up, "job_id" if over is ended else "inbound_id") == fax_id


@either
def test_a_copy_that_is_not_deleted_for_a_day_is_an_alarm_until_it_is_gone_or_its_fax_is_held(
    site: Site, over: Over
) -> None:
    provider(site).does["delete_copy"] = raises(Unreachable())
    fax_id, kind = over(site), "fax" if over is ended else "inbound"

    def said() -> list[tuple[str, int]]:
        site.sweep()
        return [(each.code, each.count) for each in alarms.raised(site.runtime)]

    site.now += timedelta(hours=23)
    assert said() == []
    site.now += timedelta(hours=1, seconds=1)
    assert said() == [("copies", 1)]
    (alarm,) = alarms.raised(site.runtime)
    assert "second: 1" in alarm.detail
    legalholds.hold(site.runtime, ACTOR, kind, fax_id, "a test")
    assert said() == []
    site.now += timedelta(days=20)
    legalholds.lift(site.runtime, ACTOR, kind, fax_id)
    assert said() == [], "it was not asked meanwhile, and has as long as ever"
    site.now += timedelta(days=1, seconds=1)
    assert said() == [("copies", 1)]
    deletions(site)
    site.after(7 * 3600)
    assert said() == []


def test_copies_of_sent_and_of_received_faxes_are_counted_together(site: Site) -> None:
    provider(site).does["delete_copy"] = raises(Unreachable())
    ended(site)
    received(site)
    site.now += timedelta(days=1, minutes=11)

    assert copies.late(site.runtime, most=9) == {"second": 2}
    assert copies.late(site.runtime, most=1) == {"second": 1}


@either
def test_it_goes_when_the_carrier_is_back(site: Site, over: Over) -> None:
    provider(site).does["delete_copy"] = raises(Unreachable())
    fax_id = over(site)
    site.sweep()
    asked = deletions(site)
    site.after(3600)

    assert (asked, noted(site, fax_id).delete_copy_at) == (["copy"], None)


@either
def test_a_lost_bell_or_a_dead_worker_only_costs_time(site: Site, over: Over) -> None:
    over(site)
    site.rung.clear()
    asked = deletions(site)
    site.after(61)

    assert asked == ["copy"]


@either
def test_a_worker_that_dies_before_it_notes_that_the_copy_is_gone_has_it_deleted_once_more(
    site: Site, over: Over
) -> None:
    fax_id = over(site)
    asked: list[str] = []

    def deleted_and_gone(_usual: object, name: str) -> None:
        asked.append(name)
        if len(asked) == 1:
            raise Vanished

    provider(site).does["delete_copy"] = deleted_and_gone
    with pytest.raises(Vanished):
        site.sweep()
    assert noted(site, fax_id).copy_deleted_at is None
    site.after(61)

    assert asked == ["copy"] * 2
    assert noted(site, fax_id).copy_deleted_at == site.now


@either
def test_what_one_of_two_at_once_had_deleted_stays_deleted_when_the_other_fails(
    site: Site, over: Over
) -> None:
    fax_id = over(site)
    asked: list[str] = []

    def both(_usual: object, name: str) -> None:
        asked.append(name)
        if len(asked) == 1:
            copies.delete(site.runtime, noted(site, fax_id).id)
            raise Unreachable

    provider(site).does["delete_copy"] = both
    copies.delete(site.runtime, noted(site, fax_id).id)
    assert noted(site, fax_id).copy_deleted_at == site.now
    site.after(3600)
    assert asked == ["copy"] * 2


def test_a_worker_that_dies_once_a_received_fax_is_stored_leaves_the_wish_behind(
    site: Site,
) -> None:
    asked = deletions(site)
    provider(site).does["taken"] = raises(Vanished())
    with pytest.raises(Vanished):
        received(site)
    site.after(61)

    assert asked == ["copy"]


def test_a_received_fax_that_is_held_meanwhile_keeps_its_copy_until_that_is_lifted(
    site: Site,
) -> None:
    asked = deletions(site)
    fax_id = received(site)
    legalholds.hold(site.runtime, ACTOR, "inbound", fax_id, "a test")
    copies.delete(site.runtime, fax_id)
    site.after(3600)
    assert asked == []
    legalholds.lift(site.runtime, ACTOR, "inbound", fax_id)
    site.after(61)
    assert asked == ["copy"]


def test_a_plugin_that_is_gone_keeps_nothing_from_going_on(site: Site) -> None:
    job_id = ended(site)
    site.runtime = replace(site.runtime, plugins=odd.plugins(site.runtime))
    site.after(600)

    assert site.attempt(job_id).delete_copy_at is not None
    site.after(8 * 86_400)
    assert site.attempt(job_id).delete_copy_at is None


@either
def test_in_a_crowded_queue_it_is_not_announced_again_each_minute(site: Site, over: Over) -> None:
    provider(site).does["delete_copy"] = raises(Unreachable())
    fax_id = over(site)
    site.runtime = replace(site.runtime, unanswered=lambda _task: 10_000)
    site.now += timedelta(hours=7)
    site.rung.clear()

    for _ in range(4):
        sweeps.run(site.runtime)
        site.now += timedelta(minutes=1)

    assert site.rung.count((copies.TASK, noted(site, fax_id).id)) == 1


@either
def test_a_plugin_that_cannot_delete_it_ends_the_wish_and_says_of_nothing_that_it_is_deleted(
    site: Site, over: Over
) -> None:
    """Retention asks for it once a later version can."""
    able = site.runtime
    without = {"second": [trait for trait in CAN if trait != "deletes_copy"]}
    site.runtime = replace(able, plugins=odd.plugins(able, others=without))
    asked = deletions(site)
    fax_id = over(site)
    site.sweep()
    this = noted(site, fax_id)
    assert (asked, this.delete_copy_at, this.copy_deleted_at) == ([], None, None)
    site.now += timedelta(days=2)
    site.sweep()
    assert alarms.raised(site.runtime) == []

    site.runtime = replace(site.runtime, plugins=able.plugins)
    asked = deletions(site)
    site.now += timedelta(days=29)
    site.purge()
    site.after(61)
    assert asked == ["copy"]
    assert noted(site, fax_id).copy_deleted_at == site.now
