"""Faxes that come in through a real Asterisk: each is told of until core has it, with its document as it was sent, and
whatever a caller says stays text."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pypdfium2
import pytest
from PIL import Image, ImageChops

from faxbot.documents import Limits, Renderer
from faxbot.errors import Unreachable
from faxbot.plugins.base import Arrival, CallbackRequest
from faxbot.providers.asterisk import Asterisk
from tests.ground import Ground, eventually
from tests.providers.asterisk.caller import AUDIO, NUMBER, T38, FaxMachine, Stranger
from tests.providers.asterisk.ear import Ear, provider
from tests.providers.asterisk.manager import Manager
from tests.providers.asterisk.packages import Tree
from tests.providers.asterisk.pages import assert_arrived, make_tiff
from tests.providers.asterisk.server import (
    DEPLOY,
    HOSTILE_LINES,
    HOSTILE_WORDS,
    AsteriskServer,
    FarEnd,
)
from tests.threads import side_by_side

FAMILY = "faxbot-in"
SECRET = "an internal secret's stand-in".replace(" ", "-")
HOSTILE = {
    "lines": "1\r\n\r\nEvent: UserEvent\r\nUserEvent: Forged",
    "words": ")}${EPOCH}:1,a=b&status=SUCCESS",
    "brackets": ")" * 300,
    "shell": "`touch /tmp/x`&&$(id)|'\"",
}


def at(server: AsteriskServer, **settings: Any) -> Asterisk:
    given = {"port": server.port, "password": server.password, "dial": server.dial(), **settings}
    return provider(folder=server.documents, **given)


def document(this: Asterisk, arrival: Arrival) -> bytes:
    target = io.BytesIO()
    this.document(arrival.external_id, target)
    return target.getvalue()


def waiting(server: AsteriskServer, number: str) -> list[str]:
    """What AstDB has of faxes for this number that have ended."""
    to = f"to={quote(number, safe='')}&"
    return [each for each in server.stored(FAMILY).values() if to in each and "BEGUN" not in each]


# At one Asterisk, to whom an ear listens --------------------------------------------------------------


WAYS: dict[str, tuple[str, str, int, str, str]] = {
    "fine as sound": (FarEnd.US_AUDIO.line(1), AUDIO, 1, "fine", "audio"),
    "standard as sound": (FarEnd.US_AUDIO.line(2), AUDIO, 2, "standard", "audio"),
    "fine by T.38": (FarEnd.US.line(3), T38, 2, "fine", "T38"),
    "T.38 is asked for in vain": (FarEnd.US.line(5), AUDIO, 1, "fine", "audio"),
    "standard by T.38": (FarEnd.US.line(4), T38, 1, "standard", "T38"),
}


def arrives_as_it_was_sent(
    number: str,
    how: str,
    pages: int,
    resolution: str,
    mode: str,
    server: AsteriskServer,
    ear: Ear,
    folder: Path,
) -> None:
    this, sent = at(server), make_tiff(folder / f"{number}.tif", pages, resolution)
    ended = FaxMachine(server, number, sent, how).end()
    assert (ended.status, ended.pages, ended.mode) == ("SUCCESS", pages, mode)

    arrival = ear.came(number)

    assert (arrival.cause, arrival.pages, arrival.attached) == (None, pages, False)
    assert arrival.sender.reveal() == NUMBER
    assert arrival.received_at is not None
    received = folder / f"{number}-received.tif"
    received.write_bytes(document(this, arrival))
    assert_arrived(sent, received)
    eventually(lambda: not waiting(server, number), 15, every=0.2)
    shown(received, sent, resolution)
    this.taken(arrival.external_id)
    with pytest.raises(Unreachable):
        document(this, arrival)
    this.taken(arrival.external_id)
    assert ear.all_for(number) == [arrival]


def shown(received: Path, sent: Path, resolution: str) -> None:
    """As people get it: the same dots, on paper as long as the sender's."""
    renderer = Renderer(Limits(50, 50_000_000, 30, 512), 1)
    try:
        target = received.with_suffix(".pdf")
        pages = renderer.unfold(received, target)
    finally:
        renderer.close()
    down = {"fine": 196, "standard": 98}[resolution]
    with pypdfium2.PdfDocument(target) as made, Image.open(sent) as before:
        assert len(made) == pages == getattr(before, "n_frames", 1)
        for number, page in enumerate(made):
            before.seek(number)
            (only,) = page.get_objects()
            dots = only.get_bitmap(render=False).to_pil().convert("1")
            assert ImageChops.logical_xor(dots, before.convert("1")).getbbox() is None
            size = page.get_size()
            assert size == pytest.approx((1728 / 204 * 72, before.height / down * 72), abs=0.1)


def a_caller_who_hangs_up_in_the_middle_has_sent_no_document_and_his_pages_stay(
    server: AsteriskServer, ear: Ear, folder: Path
) -> None:
    sent, number = make_tiff(folder / "ten.tif", 10), FarEnd.US_AUDIO.line(10)
    FaxMachine(server, number, sent, seconds=25)
    arrival = ear.came(number)
    assert arrival.cause == "page_failed"
    assert arrival.pages in range(1, 10)
    with pytest.raises(Unreachable):
        document(at(server), arrival)
    (aside,) = server.arrived.glob(f"{arrival.external_id}*")
    assert aside.name == f"{arrival.external_id}.part.tif"
    assert_arrived(sent, aside, 1, arrival.pages)


def a_call_has_its_time_and_no_more(server: AsteriskServer, ear: Ear, folder: Path) -> None:
    sent, number = make_tiff(folder / "long.tif", 10), FarEnd.US_NINE_SECONDS.line(11)
    FaxMachine(server, number, sent)
    arrival = ear.came(number, 40)
    assert arrival.cause == "dropped_early"
    assert not arrival.pages


def what_callers_call_themselves_is_text(server: AsteriskServer, ear: Ear, folder: Path) -> None:
    del folder
    with Manager(server) as manager, Manager(server, server.observer) as observer:
        for line, (name, text) in enumerate(HOSTILE.items(), 20):
            number = (
                f"+1555{line:04}{text}901"[-78:] if name == "words" else FarEnd.US_AUDIO.line(line)
            )
            with Stranger(server, quote(number, safe="+"), quote(text, safe="")):
                pass
            eventually(partial(by, ear, text[:40]), 30, every=0.05)
            (said,) = by(ear, text[:40])
            assert said.recipient.reveal() == number[:40]
            assert said.cause == "dropped_early"
        observer.ask("Ping")
        manager.ask("Ping")
        heard = [each for each in manager.log if each.get("UserEvent") == "FaxbotReceived"]
        assert len(heard) >= len(HOSTILE)
        for each in manager.log:
            assert each.get("UserEvent") != "Forged"
        for each in heard:
            assert each["CallerIDNum"] == each["CallerIDName"] == "<unknown>"
            assert (each["Context"], each["Exten"]) == ("faxbot-receive", "h")


def by(ear: Ear, sender: str) -> list[Arrival]:
    return [each for each in ear.arrivals if each.sender.reveal() == sender]


def station_ids_are_text(server: AsteriskServer, ear: Ear, folder: Path) -> None:
    sent = make_tiff(folder / "stations.tif")
    numbers = {FarEnd.US_AUDIO.line(30): HOSTILE_LINES, FarEnd.US_AUDIO.line(31): HOSTILE_WORDS}
    for number, station in numbers.items():
        FaxMachine(server, number, sent, station=station, caller="5551234")
    for number in numbers:
        arrival = ear.came(number)
        assert (arrival.cause, arrival.pages) == (None, 1)
        assert arrival.sender.reveal() == "5551234"


TOGETHER = (
    a_caller_who_hangs_up_in_the_middle_has_sent_no_document_and_his_pages_stay,
    a_call_has_its_time_and_no_more,
    what_callers_call_themselves_is_text,
    station_ids_are_text,
)


# Each at one of its own -------------------------------------------------------------------------------


def what_came_while_nobody_listened_is_found_when_somebody_does(
    own: AsteriskServer, folder: Path
) -> None:
    """Two of them at once, Asterisk restarted in between; one who hears and forgets changes nothing."""
    sent = make_tiff(folder / "unheard.tif")
    numbers = [FarEnd.US_AUDIO.line(line) for line in (1, 2)]
    for machine in [FaxMachine(own, number, sent) for number in numbers]:
        assert machine.end().status == "SUCCESS"
    eventually(lambda: all(waiting(own, number) for number in numbers), 10)
    own.restart()
    strange = own.arrived / "somebody-elses.tif"
    strange.write_bytes(b"II*\0")

    with Ear(at(own), forgets=True) as first:
        early = [first.came(number) for number in numbers]
    with Ear(at(own)) as second:
        for number, before in zip(numbers, early, strict=True):
            arrival = second.came(number)
            assert arrival == before
            (folder / "unheard-received.tif").write_bytes(document(at(own), arrival))
            assert_arrived(sent, folder / "unheard-received.tif")
            at(own).taken(arrival.external_id)
        eventually(lambda: not own.stored(FAMILY), 15, every=0.2)
    assert list(own.arrived.iterdir()) == [strange]


def what_a_killed_listener_had_not_acknowledged_its_successor_hears(
    own: AsteriskServer, folder: Path
) -> None:
    del folder
    number = FarEnd.US_AUDIO.line(9)
    with Ear(at(own), forgets=True) as killed:
        with Stranger(own, number, "5550001"):
            pass
        first = killed.came(number, 20)
    assert waiting(own, number)
    with Ear(at(own)) as successor:
        assert successor.came(number, 20) == first
        eventually(lambda: not own.stored(FAMILY), 10, every=0.2)


def a_call_in_which_asterisk_died_is_told_of(own: AsteriskServer, folder: Path) -> None:
    sent, number = make_tiff(folder / "dies.tif", 10), FarEnd.US_AUDIO.line(3)
    FaxMachine(own, number, sent)
    eventually(lambda: "BEGUN" in str(own.stored(FAMILY)), 10)
    with Ear(at(own)) as ear:
        eventually(lambda: "receive" in own.cli("fax show sessions"), 20, every=0.2)
        assert not ear.arrivals, "it is under way"
    threading.Event().wait(2)  # what is younger than a second is not on Asterisk's disk
    own.kill9()
    own.start()
    with Ear(at(own)) as ear:
        assert ear.came(number, 20).cause == "system"


def a_caller_who_says_nothing_ends_the_call(own: AsteriskServer, folder: Path) -> None:
    """Others' calls whose far end was killed may go on talking to one of our ports: then once more."""
    del folder
    with Ear(at(own)) as ear:
        for number in (FarEnd.US_AUDIO.line(line) for line in (4, 7, 8)):
            with Stranger(own, number, "5550000"), suppress(AssertionError):
                assert ear.came(number, 15).cause == "dropped_early"
                return
    raise AssertionError("none of the calls has ended")


class Hook(ThreadingHTTPServer):
    """The other end of a hand-over: the provider's own methods behind a real HTTP server."""

    def __init__(self, this: Asterisk) -> None:
        self.this = this
        self.answers = [503]
        """What is answered first, whatever is posted."""
        self.taken: list[tuple[Arrival, bytes]] = []
        super().__init__(("127.0.0.1", 0), _Posted)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/_internal/asterisk/inbound"

    @contextmanager
    def serving(self) -> Iterator[None]:
        thread = threading.Thread(target=self.serve_forever)
        thread.start()
        try:
            yield
        finally:
            self.shutdown()
            thread.join()
            self.server_close()

    def take(self, headers: dict[str, str], body: bytes) -> int:
        if self.answers:
            return self.answers.pop(0)
        request = CallbackRequest("POST", self.url, headers, body)
        if not self.this.verify_callback(request):
            return 401
        (arrival,) = self.this.read_callback(request)
        assert isinstance(arrival, Arrival)
        file = io.BytesIO()
        if arrival.attached:
            self.this.attached(request, file)
        self.taken.append((arrival, file.getvalue()))
        return 200


class _Posted(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.send_response(self.server.take(headers, body))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def an_asterisk_elsewhere_hands_its_faxes_over(own: AsteriskServer, folder: Path) -> None:
    sent, number = make_tiff(folder / "elsewhere.tif", 2), FarEnd.US_AUDIO.line(5)
    machine, failing = FaxMachine(own, number, sent), FarEnd.US_NINE_SECONDS.line(6)
    FaxMachine(own, failing, sent)
    away = at(own, receivedFolder="/nowhere/at/all", inboundSecret=SECRET)
    hook = Hook(away)
    settings = folder / "handover.conf"
    settings.write_text(f"URL={hook.url}\nSECRET=not-{SECRET}\nFOLDER={own.arrived}\n")
    with Ear(away) as ear, hook.serving():
        assert hand_over(own, settings)[1].count("chmod 600") == 1
        settings.chmod(0o600)
        assert hand_over(own, settings) == (0, ""), "what is under way waits"
        assert machine.end().status == "SUCCESS"
        eventually(lambda: waiting(own, number) and waiting(own, failing), 10)

        code, said = hand_over(own, settings)
        assert code == 1
        assert sorted(said.split("HTTP ")[n][:3] for n in (1, 2)) == ["401", "503"]
        assert (len(hook.taken), len(own.stored(FAMILY))) == (0, 2)
        settings.write_text(f"URL={hook.url}\nSECRET={SECRET}\nFOLDER={own.arrived}\n")
        assert hand_over(own, settings) == (0, "")
        assert hand_over(own, settings) == (0, "")
        assert not ear.arrivals, "who has no such folder leaves it to those who hand over"

    taken = {arrival.recipient.reveal(): (arrival, file) for arrival, file in hook.taken}
    assert len(hook.taken) == 2
    arrival, file = taken[number]
    assert (arrival.cause, arrival.pages, arrival.sender.reveal()) == (None, 2, NUMBER)
    (folder / "elsewhere-received.tif").write_bytes(file)
    assert_arrived(sent, folder / "elsewhere-received.tif")
    assert taken[failing][0].cause == "dropped_early"
    assert not own.stored(FAMILY)
    assert not list(own.arrived.glob("in-*"))


def a_call_in_which_an_asterisk_elsewhere_died_is_handed_over_as_lost(
    own: AsteriskServer, folder: Path
) -> None:
    """Not one that is under way, however long, nor one that has just begun."""
    sent, number = make_tiff(folder / "long-ago.tif", 10), FarEnd.US_AUDIO.line(12)
    FaxMachine(own, number, sent)
    eventually(lambda: "BEGUN" in str(own.stored(FAMILY)), 10)
    ((up, entry),) = own.stored(FAMILY).items()
    old, now = int(time.time()) - 5000, int(time.time())
    own.cli(f"database put {FAMILY} {up} {re.sub('begun=[0-9]+', f'begun={old}', entry)}")
    lost, young = "in-17952892274-100000001", "in-17952892275-100000002"
    for name, begun in ((lost, old), (young, now)):
        who = f"channel=1795289227.4&begun={begun}&from=%2B15550001111&to=%2B15550100900"
        own.cli(f"database put {FAMILY} {name} status=BEGUN&{who}")
    (own.arrived / f"{lost}.tif").write_bytes(b"II*\0")
    away = at(own, receivedFolder="/nowhere/at/all", inboundSecret=SECRET)
    hook = Hook(away)
    hook.answers.clear()
    settings = folder / "lost.conf"
    settings.write_text(f"URL={hook.url}\nSECRET={SECRET}\nFOLDER={own.arrived}\n")
    settings.chmod(0o600)
    with hook.serving():
        assert hand_over(own, settings) == (0, "")
    ((arrival, file),) = hook.taken
    assert (arrival.external_id, arrival.cause, file) == (lost, "system", b"")
    assert arrival.sender.reveal() == "+15550001111"
    assert set(own.stored(FAMILY)) == {up, young}
    assert [each.name for each in own.arrived.glob(f"{lost}*")] == [f"{lost}.part.tif"]


def hand_over(own: AsteriskServer, settings: Path) -> tuple[int, str]:
    """Run deploy/asterisk/faxbot-handover as cron does; its exit status and what it says."""
    tools = own.folder / "tools"
    if not tools.exists():
        tools.mkdir()
        console = tools / "asterisk"
        console.write_text(f'#!/bin/sh\nexec {shlex.join(map(str, own._command))} "$@"\n')
        console.chmod(0o700)
    environment = {
        "FAXBOT_HANDOVER_CONF": str(settings),
        "FAXBOT_HANDOVER_PATH": str(tools),
        "HOME": str(own.folder),
        "PATH": os.defpath,
    }
    done = subprocess.run(
        ["/bin/sh", DEPLOY / "faxbot-handover"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr + done.stdout


APART: tuple[tuple[Callable[[AsteriskServer, Path], None], int | None], ...] = (
    (what_came_while_nobody_listened_is_found_when_somebody_does, None),
    (what_a_killed_listener_had_not_acknowledged_its_successor_hears, None),
    (a_call_in_which_asterisk_died_is_told_of, None),
    (a_caller_who_says_nothing_ends_the_call, 3),
    (an_asterisk_elsewhere_hands_its_faxes_over, None),
    (a_call_in_which_an_asterisk_elsewhere_died_is_handed_over_as_lost, None),
)


@pytest.mark.waits
def test_every_fax_that_comes_in_is_told_of_and_whatever_breaks_none_is_lost(
    asterisk: AsteriskServer,
    ground: Ground,
    asterisk_tree: Tree,
    tmp_path: Path,
    subtests: pytest.Subtests,
) -> None:
    """Side by side: all of it waits for calls, some forty seconds."""
    with Ear(at(asterisk)) as ear:
        deeds = {
            name: partial(arrives_as_it_was_sent, *way, asterisk, ear, tmp_path)
            for name, way in WAYS.items()
        }
        deeds |= {each.__name__: partial(each, asterisk, ear, tmp_path) for each in TOGETHER}
        for deed, rtp_timeout in APART:
            own = AsteriskServer(ground, asterisk_tree, rtp_timeout=rtp_timeout)
            deeds[deed.__name__] = partial(at_one_of_its_own, deed, own, tmp_path)
        side_by_side(subtests, deeds)
        assert ear.error is None


def at_one_of_its_own(
    deed: Callable[[AsteriskServer, Path], None], own: AsteriskServer, folder: Path
) -> None:
    own.start()
    try:
        deed(own, folder)
    finally:
        with suppress(AssertionError):
            own.stop()
