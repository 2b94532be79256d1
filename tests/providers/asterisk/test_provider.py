"""The provider at a real Asterisk: faxes that arrive, calls that fail in every way, and whatever is cut or killed.

The calls of the table are made at once and each is waited for by a test of its own: a fax takes as long as it takes.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from faxbot.errors import OutcomeUnknown, Refused, Unreachable
from faxbot.hidden import Hidden
from faxbot.plugins.base import OutboundFax, State, Update
from faxbot.providers.asterisk import Asterisk
from tests.ground import Ground, eventually
from tests.providers.asterisk.ear import Ear, fax, provider
from tests.providers.asterisk.packages import Tree
from tests.providers.asterisk.pages import assert_arrived, make_tiff
from tests.providers.asterisk.server import AsteriskServer, FarEnd, hangs_up_after

HEADER = 'Acme, Inc. & "Sons" ${SHELL(id)}'
AUDIO, SLOW = 1, 3
"""Steps of the ladder."""


@dataclass(frozen=True)
class Planned:
    """A call, and how it is to end."""

    number: str
    state: State
    cause: str | None = None
    pages: int = 1
    step: int = AUDIO
    settings: dict[str, Any] = field(default_factory=dict)


DEAD = {"dial": "PJSIP/{number}@deadtrunk"}
CALLS: dict[str, Planned] = {
    "one page": Planned(FarEnd.FAX.line(1), State.DELIVERED),
    "ten pages": Planned(FarEnd.FAX.line(2), State.DELIVERED, pages=10),
    "one page, T.38": Planned(FarEnd.FAX_T38.line(3), State.DELIVERED, step=0),
    "ten pages, T.38": Planned(FarEnd.FAX_T38.line(4), State.DELIVERED, pages=10, step=0),
    "9600 without ECM": Planned(FarEnd.FAX_NO_ECM.line(5), State.DELIVERED, step=SLOW),
    "T.38 is offered in vain": Planned(FarEnd.FAX.line(6), State.DELIVERED, step=0),
    "the trunk has no T.38": Planned(
        FarEnd.FAX.line(7), State.DELIVERED, step=0, settings={"t38": False}
    ),
    "busy": Planned(FarEnd.BUSY, State.FAILED, "busy"),
    "no answer": Planned(FarEnd.NO_ANSWER, State.FAILED, "no_answer", settings={"ringSeconds": 5}),
    "wrong number": Planned(FarEnd.UNALLOCATED, State.FAILED, "number_dead"),
    "changed number": Planned(FarEnd.CHANGED, State.FAILED, "number_dead"),
    "invalid number": Planned(FarEnd.INVALID, State.FAILED, "number_invalid"),
    "rejected": Planned(FarEnd.REJECTED, State.FAILED, "rejected"),
    "congestion": Planned(FarEnd.CONGESTION, State.FAILED, "congestion"),
    "out of order": Planned(FarEnd.OUT_OF_ORDER, State.FAILED, "unreachable"),
    "network out of order": Planned(FarEnd.NETWORK_OUT_OF_ORDER, State.FAILED, "network_error"),
    "dead trunk": Planned(FarEnd.FAX.line(8), State.FAILED, "trunk_down", settings=DEAD),
    "dead trunk, short ring": Planned(
        FarEnd.FAX.line(9), State.FAILED, "unreachable", settings={**DEAD, "ringSeconds": 5}
    ),
    "no such trunk": Planned(
        FarEnd.FAX.line(10), State.FAILED, "config", settings={"dial": "PJSIP/{number}@nosuch"}
    ),
    "voice": Planned(FarEnd.VOICE, State.FAILED, "no_fax_tone"),
    "answers and hangs up": Planned(FarEnd.ANSWERS_AND_HANGS_UP, State.FAILED, "dropped_early"),
    "hangs up in T.38's talks": Planned(
        FarEnd.ANSWERS_AND_HANGS_UP.line(2), State.FAILED, "t38_failed", step=0
    ),
    "cannot store": Planned(FarEnd.CANNOT_STORE, State.FAILED, "dropped_early"),
    "hangs up in the first page": Planned(
        hangs_up_after(9, line=11), State.FAILED, "dropped_early", pages=10
    ),
    "hangs up in a later page": Planned(
        hangs_up_after(25, line=12), State.FAILED, "page_failed", pages=10
    ),
    "hangs up in a later page, T.38": Planned(
        hangs_up_after(28, t38=True, line=13), State.FAILED, "page_failed", pages=10, step=0
    ),
}


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """By number of pages."""
    folder = tmp_path_factory.mktemp("documents")
    return {pages: make_tiff(folder / f"{pages}.tif", pages) for pages in (1, 10)}


def at(server: AsteriskServer, **settings: Any) -> Asterisk:
    usual = {"dial": server.dial(), "stationId": "+1 555 000 1111", "callerId": "+15550001111"}
    given = {"port": server.port, "password": server.password, **usual, **settings}
    return provider(folder=server.documents, **given)


@pytest.fixture(scope="module")
def ear(asterisk: AsteriskServer) -> Iterator[Ear]:
    mine = at(asterisk)
    mine.kept_seconds = 30.0
    with Ear(mine) as listening:
        yield listening


@pytest.fixture(scope="module", autouse=True)
def under_way(
    asterisk: AsteriskServer, ear: Ear, documents: dict[int, Path]
) -> dict[str, OutboundFax]:
    """The calls of the table, all begun, by name."""
    assert ear.gaps
    begun = {}
    for name, plan in CALLS.items():
        this = fax(plan.number, documents[plan.pages], plan.pages, plan.step, HEADER)
        assert at(asterisk, **plan.settings).send(this).external_id == f"fax-{this.tag}"
        begun[name] = this
    return begun


# What breaks on the way: first, while the calls of the table go on.


def sent(this: Asterisk, number: str, document: Path, pages: int = 1) -> OutboundFax:
    made = fax(number, document, pages, AUDIO)
    this.send(made)
    return made


def look_up(this: Asterisk, tag: str, ago: float = 0.0) -> Update:
    since = datetime.now(UTC) - timedelta(seconds=ago)
    return this.look_up(tag, to=Hidden("+15550100100"), since=since)


def is_up(this: Asterisk, made: OutboundFax) -> bool:
    return this.fetch(f"fax-{made.tag}").state is State.PROGRESS


def is_begun(this: Asterisk, made: OutboundFax) -> bool:
    return this.fetch(f"fax-{made.tag}").state is State.ACCEPTED


def pages_so_far(server: AsteriskServer, made: OutboundFax) -> int:
    """Pages of this fax that were confirmed, by Asterisk's own command line."""
    sessions = server.cli("fax show sessions")
    for number in re.findall(r"([0-9]+) +(?:G.711|T.38) +send", sessions):
        told = server.cli(f"fax show session {number}")
        if f"{made.tag}.tif" in told and (pages := re.search(r"Tx Pages *: *([0-9]+)", told)):
            return int(pages[1])
    return 0


@pytest.fixture
def own(ground: Ground, asterisk_tree: Tree) -> Iterator[AsteriskServer]:
    """An Asterisk that a test may kill."""
    server = AsteriskServer(ground, asterisk_tree)
    server.start()
    yield server
    if server.process is not None:
        server.stop()


class Relay:
    """Stands between provider and manager: a network that can be cut."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._open: list[socket.socket] = []
        self._whole = threading.Event()
        self._whole.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def cut(self) -> None:
        self._whole.clear()
        for each in self._open:
            _shut(each)

    def mend(self) -> None:
        self._whole.set()

    def close(self) -> None:
        _shut(self._listener)
        self.cut()
        for thread in self._threads:
            thread.join()
        for each in (self._listener, *self._open):
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._open.append(near)
                if not self._whole.is_set():
                    _shut(near)
                    continue
                far = socket.create_connection(("127.0.0.1", self._to), timeout=5)
                far.settimeout(None)
                self._open.append(far)
                for pair in ((near, far), (far, near)):
                    self._threads.append(threading.Thread(target=_pump, args=pair))
                    self._threads[-1].start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    _shut(target)


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


def test_it_is_fit(asterisk: AsteriskServer) -> None:
    health = at(asterisk).health()
    assert health.ok, health.detail


def test_what_is_missing_is_said(asterisk: AsteriskServer) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"password": "wrong password"}, "ASTERISK_AMI_PASSWORD"),
        ({"context": "nowhere"}, "extensions_faxbot.conf"),
        ({"context": "faxbot-ack"}, "extensions_faxbot.conf"),
        ({"dial": "PJSIP/{number}@nosuch"}, "PJSIP endpoint nosuch"),
        ({"folder": "/nowhere/at/all"}, "ASTERISK_FOLDER"),
        ({"port": 9}, "ASTERISK_AMI_PORT"),
    ]
    usual = {"port": asterisk.port, "password": asterisk.password, "folder": asterisk.documents}
    for settings, words in wrong:
        health = provider(**{**usual, **settings}).health()
        assert not health.ok
        assert words in health.detail


def test_thirty_that_come_at_once_are_all_admitted(asterisk: AsteriskServer) -> None:
    """Asterisk lets ten connections wait; who came beside them and said nothing waited for ever."""
    this = at(asterisk)
    gate = threading.Barrier(30)

    def ask(_: int) -> bool:
        gate.wait()
        return this.fetch("fax-never").state is State.ABSENT

    with ThreadPoolExecutor(30) as pool:
        assert all(pool.map(ask, range(10 * 30)))


def test_a_wrong_context_calls_nobody_and_leaves_no_file(
    asterisk: AsteriskServer, documents: dict[int, Path]
) -> None:
    made = fax(FarEnd.FAX.line(20), documents[1])
    with pytest.raises(Exception, match="dialplan") as caught:
        at(asterisk, context="nowhere").send(made)
    assert getattr(caught.value, "cause", None) == "config"
    assert not (asterisk.documents / f"{made.tag}.tif").exists()


def test_a_call_that_was_never_made_is_absent(asterisk: AsteriskServer) -> None:
    assert at(asterisk).fetch("fax-never").state is State.ABSENT
    this = at(asterisk)
    eventually(lambda: _absent(this, "never"), 15.0, every=0.5)
    with pytest.raises(OutcomeUnknown):
        look_up(this, "never", ago=60)
    with pytest.raises(OutcomeUnknown):
        at(asterisk).cancel("fax-never")


def _absent(this: Asterisk, tag: str) -> bool:
    """Once Asterisk has been up, and was seen, for some seconds."""
    with suppress(OutcomeUnknown):
        return look_up(this, tag).state is State.ABSENT
    return False


def test_a_fax_is_cancelled_while_it_rings(
    asterisk: AsteriskServer, ear: Ear, documents: dict[int, Path]
) -> None:
    this = at(asterisk)
    made = sent(this, FarEnd.NO_ANSWER.line(21), documents[1])
    eventually(lambda: is_begun(this, made))
    assert look_up(this, made.tag).state is State.ACCEPTED
    this.cancel(f"fax-{made.tag}")
    assert ear.end(made.tag).state is State.FAILED
    with pytest.raises(Refused):
        this.cancel(f"fax-{made.tag}")
    assert this.fetch(f"fax-{made.tag}").state is State.FAILED


def test_a_fax_is_cancelled_in_the_middle_of_a_page(
    asterisk: AsteriskServer, ear: Ear, documents: dict[int, Path]
) -> None:
    this = at(asterisk)
    made = sent(this, FarEnd.FAX.line(22), documents[10], 10)
    eventually(lambda: ear.of(made.tag, State.PROGRESS), 10)
    assert is_up(this, made)
    eventually(lambda: pages_so_far(asterisk, made) >= 1, 60, every=0.5)
    this.cancel(f"fax-{made.tag}")
    end = ear.end(made.tag)
    assert (end.state, end.cause) == (State.FAILED, "page_failed")
    assert end.pages_sent in range(1, 10)
    with Ear(this, forgets=True) as again:
        # What is acknowledged stays in the database for a while, and says the same.
        assert again.end(made.tag).pages_sent == end.pages_sent
    assert this.fetch(f"fax-{made.tag}").key == end.key


def test_what_ends_while_the_connection_is_cut_is_heard_later(
    asterisk: AsteriskServer, documents: dict[int, Path]
) -> None:
    with ExitStack() as stack:
        relay = Relay(asterisk.port)
        stack.callback(relay.close)
        mine = stack.enter_context(Ear(at(asterisk, port=relay.port)))
        made = sent(at(asterisk), FarEnd.FAX.line(23), documents[1])
        eventually(lambda: mine.of(made.tag, State.PROGRESS), 10)
        relay.cut()
        with pytest.raises(Unreachable):
            at(asterisk, port=relay.port).send(fax(FarEnd.FAX.line(24), documents[1]))
        eventually(lambda: made.tag in asterisk.stored(), 60, every=0.5)
        relay.mend()
        end = mine.end(made.tag)
        assert (end.state, end.pages_sent) == (State.DELIVERED, 1)
        assert mine.gaps >= 2


def test_what_a_killed_listener_did_not_acknowledge_its_successor_hears(
    asterisk: AsteriskServer, documents: dict[int, Path]
) -> None:
    """The module's own ear acknowledges it meanwhile: two that listen are harmless."""
    with Ear(at(asterisk), forgets=True) as killed:
        made = sent(at(asterisk), FarEnd.BUSY.line(25), documents[1])
        first = killed.end(made.tag)
    assert made.tag in asterisk.stored()
    with Ear(at(asterisk)) as successor:
        second = successor.end(made.tag)
    assert (first.state, first.key) == (second.state, second.key)
    assert first.cause == "busy"


def test_asterisk_killed_in_mid_fax_leaves_the_outcome_unknown(
    own: AsteriskServer, documents: dict[int, Path]
) -> None:
    this = at(own)
    with Ear(this) as mine:
        made = sent(this, FarEnd.FAX, documents[10], 10)
        before = time.monotonic()
        eventually(lambda: mine.of(made.tag, State.PROGRESS), 10)
        own.kill9()
        with pytest.raises(Unreachable):
            this.fetch(f"fax-{made.tag}")
        own.start()
        eventually(lambda: mine.gaps >= 2, 20)
        assert this.fetch(f"fax-{made.tag}").state is State.ABSENT
        with pytest.raises(OutcomeUnknown):
            look_up(this, made.tag, ago=time.monotonic() - before)
        assert not mine.of(made.tag)


def test_asterisk_stopped_in_mid_fax_says_so(
    own: AsteriskServer, documents: dict[int, Path]
) -> None:
    this = at(own)
    with Ear(this) as mine:
        made = sent(this, FarEnd.FAX, documents[10], 10)
        eventually(lambda: mine.of(made.tag, State.PROGRESS), 10)
        own.cli("core stop now")
        end = mine.end(made.tag)
    assert (end.state, end.cause) == (State.FAILED, "dropped_early")


# The calls of the table.


@pytest.mark.parametrize("name", CALLS)
def test_a_call_ends_as_it_should(
    name: str,
    asterisk: AsteriskServer,
    ear: Ear,
    under_way: dict[str, OutboundFax],
) -> None:
    plan, this = CALLS[name], under_way[name]
    end = ear.end(this.tag, 110)
    assert (end.state, end.cause) == (plan.state, plan.cause)
    assert ear.of(this.tag) == [end], "told once"
    if end.state is State.DELIVERED:
        received = asterisk.heard(plan.number)
        assert end.pages_sent == received.pages == plan.pages
        assert received.mode == ("T38" if plan.number[-3:] == "101" else "audio")
        assert received.rate == 9600 or plan.step != SLOW
        assert received.station == "+1 555 000 1111"
        assert received.caller == "+15550001111"
        headers = assert_arrived(this.document, received.path)
        assert min(headers) > 0, "the header is on every page"
    elif end.cause == "page_failed":
        confirmed = end.pages_sent or 0
        assert 0 < confirmed < plan.pages
        # The far end may have a page whose confirmation did not get through any more.
        assert asterisk.heard(plan.number).pages - confirmed in (0, 1)


def test_what_is_acknowledged_is_forgotten(
    asterisk: AsteriskServer, ear: Ear, under_way: dict[str, OutboundFax]
) -> None:
    tags = {this.tag for name, this in under_way.items() if CALLS[name].number[-3:] > "103"}
    assert tags
    assert not [path for path in asterisk.documents.iterdir() if path.stem in tags]
    eventually(lambda: not tags & asterisk.stored().keys(), 45, every=1.0)
    assert ear.error is None
