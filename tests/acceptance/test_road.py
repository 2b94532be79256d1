"""The road of one fax through real processes: to its end, and over what breaks on the way.

The carrier is a process of the test's own, so that its ledger can be asked how often each fax came.
"""

from __future__ import annotations

import hashlib
import io
import os
import signal
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from PIL import Image

from faxbot.db import utcnow
from faxbot.documents.renderer import NICE, NICE_BEHIND
from tests.acceptance.site import PDF, SHORT, Site
from tests.carrier import SimulatorProcess
from tests.conftest import StartService
from tests.ground import Ground, eventually
from tests.installation import Installation


@pytest.fixture
def carrier(store: Installation) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(store.folder) as carrier:
        yield carrier


@pytest.fixture
def site(store: Installation, carrier: SimulatorProcess, start_service: StartService) -> Site:
    return Site(start_service(store, "up", **SHORT, **carrier.environ), carrier)


def test_every_kind_of_document_goes_all_the_way_once(site: Site) -> None:
    pdf, png = PDF.read_bytes(), picture("PNG")
    faxes = {
        site.send(): 3,
        site.send(files={"file": ("n", "Grüße\n\fzweite Seite\n".encode())}): 2,
        site.send(files={"file": ("n", png)}): 1,
        site.send(files={"file": ("n", picture("JPEG"))}, resolution="standard"): 1,
        site.send(files={"file": ("n", picture("TIFF"))}): 1,
        site.send(files=[("file", ("n", pdf)), ("file", ("n", png))]): 4,
    }

    ready = fax_page()
    as_it_came = site.send(files={"file": ("n", ready)})
    faxes[as_it_came] = 1

    for fax_id, pages in faxes.items():
        fax = site.final(fax_id)
        assert (fax["status"], fax["pages"], fax["pages_sent"]) == ("delivered", pages, pages)
        assert site.at_carrier(fax_id) == 1
        the_timeline_tells_the_road_in_order(site.timeline(fax_id), pages)
    (attempt,) = site.timeline(as_it_came)["attempts"]
    (taken,) = site.carrier.faxes(attempt["tag"])
    assert taken["sha256"] == hashlib.sha256(ready).hexdigest()


def test_a_fax_that_stands_behind_others_is_drawn_behind_theirs(site: Site) -> None:
    """The processes that draw stay: their niceness tells for whom they were started. (19 is the last there is.)"""

    def drawing() -> set[int]:
        worker = site.child("worker")
        assert worker is not None
        drawn = {each.nice() for each in worker.children(recursive=True)} - {worker.nice()}
        return {nice - worker.nice() for nice in drawn}

    site.final(site.send(priority="128"))
    ours, least = os.getpriority(os.PRIO_PROCESS, 0), 19
    usual, behind = (min(ours + nice, least) - ours for nice in (NICE, NICE_BEHIND))
    assert drawing() == {usual}

    site.final(site.send(priority="0"))
    assert drawing() == {usual, behind}


def test_a_running_faxbot_goes_by_saved_settings_within_five_seconds(
    site: Site, ground: Ground
) -> None:
    """In every process: those of web, which save them, and those of the worker, which send."""
    before = site.send()
    site.final(before)
    with SimulatorProcess(ground.new_folder("second")) as second:
        settings = {
            "baseUrl": second.environ["SIMULATOR_BASE_URL"],
            "secret": second.environ["SIMULATOR_SECRET"],
        }
        wish = {"settings": settings, "note": "another account"}
        answer = site.service.request("PUT", "/plugins/simulator/config", json=wish)
        assert answer.status_code == 200, answer.text
        noticed = utcnow() + timedelta(seconds=5)
        eventually(lambda: utcnow() > noticed, 6)

        faxes = [site.send() for _ in range(6)]

        for fax_id in faxes:
            assert site.final(fax_id)["status"] == "delivered"
            (attempt,) = site.timeline(fax_id)["attempts"]
            assert (len(second.faxes(attempt["tag"])), site.at_carrier(fax_id)) == (1, 0)
    assert site.at_carrier(before) == 1


def the_timeline_tells_the_road_in_order(timeline: dict[str, Any], pages: int) -> None:
    kinds = [event["type"] for event in timeline["events"] if event["type"] != "FAX_PROGRESS"]
    assert kinds == ["FAX_QUEUED", "FAX_SUBMITTING", "FAX_SENT", "FAX_DELIVERED"]
    sequence = [event["sequence"] for event in timeline["events"]]
    assert sequence == list(range(1, len(sequence) + 1))
    assert timeline["events"][-1]["pages_sent"] == pages
    (attempt,) = timeline["attempts"]
    assert (attempt["outcome"], attempt["provider_id"]) == ("delivered", "simulator")


ENDS = {
    "0000": ("delivered", None, 1),
    "0404": ("failed", "number_dead", 1),
    "0422": ("failed", "doc_unreadable", 0),
    "0044": ("delivered", None, 1),  # never calls back: the poll finds out
    "0022": ("delivered", None, 1),  # every callback twice
    "0066": ("delivered", None, 1),  # callbacks in another order
    "0501": ("delivered", None, 1),  # a 5xx after accepting: looked up, not sent again
    "0504": ("delivered", None, 1),  # the reply is lost: looked up, not sent again
}


def test_what_the_carrier_does_decides_the_end(site: Site) -> None:
    faxes = {ending: site.send(ending) for ending in ENDS}
    busy, later = site.send("0017"), site.send(send_at=(utcnow() + timedelta(days=300)).isoformat())

    ends = {}
    for ending, fax_id in faxes.items():
        fax = site.final(fax_id)
        cause = fax["error"] and fax["error"]["code"]
        ends[ending] = (fax["status"], cause, site.at_carrier(fax_id))

    assert ends == ENDS
    a_busy_line_is_tried_again_later_and_says_so(site, busy)
    a_fax_for_later_waits_for_its_time(site, later)


def a_busy_line_is_tried_again_later_and_says_so(site: Site, fax_id: str) -> None:
    eventually(lambda: site.fax(fax_id)["status"] == "retrying", 30, every=0.1)
    fax = site.fax(fax_id)
    assert fax["error"] == {"code": "busy", "message": "The line was busy.", "retryable": True}
    assert fax["explanation"].startswith("The line was busy. Next try in ")
    assert fax["next_at"] is not None


def a_fax_for_later_waits_for_its_time(site: Site, fax_id: str) -> None:
    fax = site.fax(fax_id)
    assert fax["status"] == "queued"
    assert fax["explanation"].startswith("Scheduled: it will be sent in ")
    assert site.service.request("POST", f"/fax/{fax_id}/cancel").json()["status"] == "cancelled"


def test_a_refused_account_holds_the_fax_and_says_what_to_do(site: Site) -> None:
    fax_id = site.send("0401")

    eventually(lambda: site.fax(fax_id)["status"] == "held", 30, every=0.1)

    assert "credentials" in site.fax(fax_id)["explanation"]
    cancelled = site.service.request("POST", f"/fax/{fax_id}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")


def test_kill_9_of_any_role_loses_nothing_and_doubles_nothing(site: Site) -> None:
    faxes = [site.send() for _ in range(4)]
    site.kill("worker")
    faxes += [site.send() for _ in range(2)]
    site.kill("worker")
    site.kill("beat")
    site.kill("web")
    eventually(lambda: site.service.request("GET", "/health").status_code == 200, 20, every=0.1)
    faxes.append(site.send())

    ends = [site.final(fax_id, timeout=60)["status"] for fax_id in faxes]

    assert ends == ["delivered"] * len(faxes)
    assert [site.at_carrier(fax_id) for fax_id in faxes] == [1] * len(faxes)


def test_a_carrier_that_is_away_is_waited_for(site: Site) -> None:
    site.carrier.end(signal.SIGTERM)
    fax_id = site.send()
    eventually(lambda: site.fax(fax_id)["status"] == "retrying", 30, every=0.1)
    assert site.fax(fax_id)["error"]["code"] == "trunk_down"

    site.carrier.start()

    assert site.final(fax_id, timeout=60)["status"] == "delivered"
    assert site.at_carrier(fax_id) == 1


def picture(kind: str) -> bytes:
    """A small grey picture of this format."""
    buffer = io.BytesIO()
    Image.new("L", (400, 300), 128).save(buffer, kind)
    return buffer.getvalue()


def fax_page() -> bytes:
    """A page that is fax already: Group 4, 1728 wide, 204x196, min-is-white, one strip."""
    buffer = io.BytesIO()
    tags = {262: 0, 278: 2156, 266: 1}
    page = Image.new("1", (1728, 2156), 255)
    page.save(buffer, "TIFF", compression="group4", tiffinfo=tags, dpi=(204, 196))
    return buffer.getvalue()
