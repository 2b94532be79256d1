"""Faxes on a real line through faxbot's own road, with a clock in hand: cut off and continued, and whatever is done to
Asterisk meanwhile, one whole fax arrives and what is said of it is true."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pypdfium2
import pytest

from faxbot import hearing, inbound, jobs, sending, wiring
from faxbot.artifacts import Workspace
from faxbot.events import Status
from tests.carrier import SimulatorProcess
from tests.ground import Ground, eventually
from tests.installation import Installation, Stores
from tests.integration.conftest import carrier_of_all
from tests.integration.site import ACTOR, Site, open_site
from tests.providers.asterisk.caller import NUMBER, FaxMachine
from tests.providers.asterisk.packages import Tree
from tests.providers.asterisk.pages import assert_arrived, make_tiff
from tests.providers.asterisk.server import AsteriskServer, FarEnd, Received, hangs_up_after
from tests.threads import side_by_side

__all__ = ["carrier_of_all"]

Deed = Callable[[Site, AsteriskServer, Path], None]


@contextmanager
def road(
    installation: Installation, carrier: SimulatorProcess, own: AsteriskServer
) -> Iterator[Site]:
    """The road to this Asterisk, and somebody who listens to it. Polls are far away."""
    settings = {
        "FAX_BACKEND": "asterisk",
        "ASTERISK_AMI_PORT": str(own.port),
        "ASTERISK_AMI_PASSWORD": own.password,
        "ASTERISK_DIAL": own.dial("trunk-g711"),
        "ASTERISK_T38": "false",
        "ASTERISK_FOLDER": str(own.documents),
    }
    with open_site(installation, carrier, **settings) as site:
        site.runtime = replace(site.runtime, plugins=wiring.plugins(site.runtime.config))
        own.start()
        try:
            with listening(site):
                eventually(lambda: "faxbot" in own.cli("manager show connected"), 10)
                yield site
            site.add_up()
        finally:
            site.runtime.plugins.close()
            if own.process is not None:
                own.stop()


@contextmanager
def listening(site: Site) -> Iterator[None]:
    stop = threading.Event()
    listener = threading.Thread(target=hearing.listen, args=(site.runtime, "asterisk", stop))
    listener.start()
    try:
        yield
    finally:
        stop.set()
        listener.join()


def fax(site: Site, to: str, document: Path, pages: int) -> str:
    upload = site.upload(document.read_bytes(), pages)
    return site.fax_to(to, uploads=(upload,), header="Practice")


def call(site: Site, job_id: str) -> None:
    """Its next call, at the time when it is due."""
    given = len(site.attempts(job_id))
    for _ in range(4):  # a fax waits till its number's machine has hung up
        site.now = max(site.now, site.job(job_id).next_at or site.now)
        sending.attempt(site.runtime, job_id)
        if len(site.attempts(job_id)) > given:
            return
    raise AssertionError(site.story(job_id))


def is_now(site: Site, job_id: str, *statuses: Status, timeout: float = 60.0) -> str:
    """Wait until it has come so far; what is said of it then."""

    def come() -> bool:
        site.work()
        return Status(site.job(job_id).status) in statuses

    eventually(come, timeout, every=0.1)
    return str(jobs.describe(site.runtime, site.job(job_id))["explanation"])


def is_answered(site: Site, job_id: str) -> bool:
    site.work()
    return "PROGRESS" in site.story(job_id)


def in_order(server: AsteriskServer, number: str) -> list[Received]:
    """What the far end had of every call to this number, oldest first."""
    return sorted(server.received(number), key=lambda each: each.path.name)


def a_fax_that_is_cut_off_again_and_again_goes_on_and_arrives_once(
    site: Site, own: AsteriskServer, folder: Path
) -> None:
    pages, number = 5, hangs_up_after(25)
    document = make_tiff(folder / "five.tif", pages)
    job_id = fax(site, number, document, pages)

    for calls in range(1, 6):
        call(site, job_id)
        said = is_now(site, job_id, Status.RETRYING, Status.DELIVERED)
        eventually(lambda wanted=calls: len(own.received(number)) == wanted, 10)  # type: ignore[misc]
        job = site.job(job_id)
        if job.status == Status.DELIVERED:
            break
        assert 0 < job.pages_sent < pages
        assert f"{job.pages_sent} of 5 pages arrived; continuing at {job.pages_sent + 1}." in said

    assert (job.status, job.pages, job.pages_sent) == (Status.DELIVERED, pages, pages)
    attempts = site.attempts(job_id)
    assert len(attempts) > 1
    first = 1
    for attempt, received in zip(attempts, in_order(own, number), strict=True):
        assert attempt.first_page == first
        confirmed = attempt.pages_sent - first + 1
        # The far end may have a page whose confirmation did not get through any more.
        assert received.pages - confirmed in (0, 1)
        headers = assert_arrived(document, received.path, first, confirmed)
        assert len(headers) == confirmed
        assert min(headers) > 0
        first = attempt.pages_sent + 1
    assert first == pages + 1


def an_asterisk_that_is_stopped_gracefully_sends_its_fax_to_the_end_and_takes_no_other(
    site: Site, own: AsteriskServer, folder: Path
) -> None:
    document = make_tiff(folder / "two.tif", 2)
    job_id = fax(site, FarEnd.FAX, document, 2)
    call(site, job_id)
    eventually(lambda: is_answered(site, job_id))
    stopping = threading.Thread(target=own.cli, args=("core stop gracefully", 90.0))
    stopping.start()  # it says so when Asterisk has ended
    other = fax(site, FarEnd.BUSY, document, 2)
    call(site, other)
    said = is_now(site, other, Status.RETRYING)
    assert "could not be reached" in said
    is_now(site, job_id, Status.DELIVERED)
    own.gone()
    stopping.join()
    own.start()

    call(site, other)
    assert "busy" in is_now(site, other, Status.RETRYING)
    (received,) = own.received(FarEnd.FAX)
    assert (received.status, received.pages) == ("SUCCESS", 2)
    assert len(site.attempts(job_id)) == 1
    assert_arrived(document, received.path)


def an_asterisk_that_is_ended_in_the_middle_of_a_page_has_the_rest_sent_later(
    site: Site, own: AsteriskServer, folder: Path
) -> None:
    document = make_tiff(folder / "four.tif", 4)
    job_id = fax(site, FarEnd.FAX, document, 4)
    call(site, job_id)
    eventually(lambda: own.confirmed(site.attempt(job_id).tag), 60, every=0.2)
    own.stop()
    own.start()

    assert "pages arrived; continuing" in is_now(site, job_id, Status.RETRYING)
    call(site, job_id)
    is_now(site, job_id, Status.DELIVERED)
    cut, whole = in_order(own, FarEnd.FAX)
    assert (cut.status, whole.status) == ("FAILED", "SUCCESS")
    first = site.attempt(job_id).first_page
    assert first > 1
    assert_arrived(document, cut.path, 1, first - 1)
    assert_arrived(document, whole.path, first)
    assert site.job(job_id).pages_sent == 4


def a_fax_that_comes_in_is_received_once_with_its_document_and_one_that_failed_is_none(
    site: Site, own: AsteriskServer, folder: Path
) -> None:
    sent, number = make_tiff(folder / "comes-in.tif", 2), FarEnd.US_AUDIO.line(70)
    cut = FarEnd.US_NINE_SECONDS.line(71)
    for machine in [FaxMachine(own, number, sent), FaxMachine(own, cut, sent)]:
        machine.end()
    eventually(lambda: not own.stored("faxbot-in"), 30, every=0.2)
    eventually(lambda: len(came_in(site)) == 2, 10, every=0.1)

    received = came_in(site)
    assert {number: "received", cut: "failed"} == {
        to: one["status"] for to, one in received.items()
    }
    whole = received[number]
    assert (whole["pages"], whole["from"], whole["error"]) == (2, NUMBER, None)
    assert received[cut]["error"]["code"] == "dropped_early"
    with Workspace(site.runtime) as workspace:
        path, kind = inbound.document(site.runtime, whole["id"], workspace, as_it_came=True)
        assert kind == "image/tiff"
        assert_arrived(sent, path)
    with Workspace(site.runtime) as workspace:
        path, kind = inbound.document(site.runtime, whole["id"], workspace)
        assert kind == "application/pdf"
        with pypdfium2.PdfDocument(path) as made:
            assert [page.get_size()[1] for page in made] == [pytest.approx(11 * 72, abs=0.1)] * 2
    assert not list(own.arrived.glob("in-*.tif")), "what is stored need not lie there"


def came_in(site: Site) -> dict[str, dict[str, Any]]:
    """By the number that was called."""
    site.work()
    rows, _ = inbound.page(site.runtime, ACTOR, inbound.Filters(), limit=50, cursor=None)
    found = [inbound.describe(site.runtime, row) for row in rows]
    return {one["to"]: one for one in found if one["status"] != "fetching"}


DEEDS = (
    a_fax_that_is_cut_off_again_and_again_goes_on_and_arrives_once,
    an_asterisk_that_is_stopped_gracefully_sends_its_fax_to_the_end_and_takes_no_other,
    an_asterisk_that_is_ended_in_the_middle_of_a_page_has_the_rest_sent_later,
    a_fax_that_comes_in_is_received_once_with_its_document_and_one_that_failed_is_none,
)


@pytest.mark.waits
def test_one_whole_fax_arrives_whatever_happens_on_the_line(
    stores: Stores,
    carrier_of_all: SimulatorProcess,
    ground: Ground,
    asterisk_tree: Tree,
    tmp_path: Path,
    subtests: pytest.Subtests,
) -> None:
    """Side by side, each with an installation and an Asterisk of its own: all of it waits for calls."""

    def deed(this: Deed, installation: Installation, own: AsteriskServer) -> None:
        with road(installation, carrier_of_all, own) as site:
            this(site, own, tmp_path)

    places = [(stores.embedded(), AsteriskServer(ground, asterisk_tree)) for _ in DEEDS]
    deeds = {
        each.__name__: partial(deed, each, *place)
        for each, place in zip(DEEDS, places, strict=True)
    }
    side_by_side(subtests, deeds)
