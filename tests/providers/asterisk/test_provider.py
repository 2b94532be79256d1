"""The provider at a real Asterisk: faxes that arrive, calls that fail in every way, and whatever is cut or killed.

All calls are made at once: a fax takes as long as it takes.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
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
from tests.providers.asterisk.pages import assert_arrived, assert_readable, make_tiff
from tests.providers.asterisk.server import AsteriskServer, FarEnd, hangs_up_after
from tests.threads import at_once, side_by_side

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
    header: str = HEADER
    settings: dict[str, Any] = field(default_factory=dict)


DEAD = {"dial": "PJSIP/{number}@deadtrunk"}
DENIED = {"dial": "PJSIP/{number}@deniedtrunk"}
CALLS: dict[str, Planned] = {
    "one page": Planned(FarEnd.FAX.line(1), State.DELIVERED),
    "ten pages": Planned(FarEnd.FAX.line(2), State.DELIVERED, pages=10),
    "one page, T.38": Planned(FarEnd.FAX_T38.line(3), State.DELIVERED, step=0),
    "ten pages, T.38": Planned(FarEnd.FAX_T38.line(4), State.DELIVERED, pages=10, step=0),
    "no text for the header line": Planned(FarEnd.FAX.line(15), State.DELIVERED, header=""),
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
    "trunk that Asterisk knows to be dead": Planned(
        FarEnd.FAX.line(14),
        State.FAILED,
        "trunk_down",
        settings={"dial": "PJSIP/{number}@watchedtrunk"},
    ),
    "the trunk wants a password": Planned(
        FarEnd.FAX.line(16), State.FAILED, "trunk_denied", settings=DENIED
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


EARLY = {"busy", "number_dead", "number_invalid", "rejected", "congestion", "network_error"}
"""Over at once."""


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """By number of pages."""
    folder = tmp_path_factory.mktemp("documents")
    return {pages: make_tiff(folder / f"{pages}.tif", pages) for pages in (1, 10)}


def at(server: AsteriskServer, **settings: Any) -> Asterisk:
    usual = {"dial": server.dial(), "stationId": "+1 555 000 1111", "callerId": "+15550001111"}
    given = {"port": server.port, "password": server.password, **usual, **settings}
    return provider(folder=server.documents, **given)


def begun(asterisk: AsteriskServer, documents: dict[int, Path]) -> dict[str, OutboundFax]:
    """The calls of the table, under way, by name."""
    asterisk.qualified()
    faxes = {}
    for name, plan in CALLS.items():
        this = fax(plan.number, documents[plan.pages], plan.pages, plan.step, plan.header)
        assert at(asterisk, **plan.settings).send(this).external_id == f"fax-{this.tag}"
        faxes[name] = this
    return faxes


# What breaks on the way, while the calls of the table go on.


def sent(this: Asterisk, number: str, document: Path, pages: int = 1) -> OutboundFax:
    made = fax(number, document, pages, AUDIO)
    this.send(made)
    return made


def look_up(this: Asterisk, tag: str, ago: float = 0.0) -> Update:
    since = datetime.now(UTC) - timedelta(seconds=ago)
    return this.look_up(tag, to=Hidden("+15550100100"), since=since)


def tags_in(server: AsteriskServer) -> set[str]:
    """Of which Asterisk's database has something."""
    return {key.partition("/")[0] for key in server.stored()}


def is_up(this: Asterisk, made: OutboundFax) -> bool:
    return this.fetch(f"fax-{made.tag}").state is State.PROGRESS


def is_begun(this: Asterisk, made: OutboundFax) -> bool:
    return this.fetch(f"fax-{made.tag}").state is State.ACCEPTED


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


def a_fax_is_cancelled_while_it_rings(
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


def with_a_page_confirmed(asterisk: AsteriskServer, ear: Ear, document: Path) -> OutboundFax:
    """A call in which a fax of ten pages is under way; a call that a busy machine spoils is made once more."""
    spoilt = []
    for line in (22, 26, 27):
        this = at(asterisk)
        made = sent(this, FarEnd.FAX.line(line), document, 10)
        eventually(lambda tag=made.tag: ear.of(tag, State.PROGRESS), 10)  # type: ignore[misc]
        assert is_up(this, made)
        eventually(lambda tag=made.tag: asterisk.confirmed(tag) or ear.of(tag), 90, every=0.5)  # type: ignore[misc]
        if not (ended := ear.of(made.tag)):
            return made
        spoilt.append(ended)
    raise AssertionError(spoilt)


def a_fax_is_cancelled_in_the_middle_of_a_page(
    asterisk: AsteriskServer, ear: Ear, documents: dict[int, Path]
) -> None:
    this = at(asterisk)
    made = with_a_page_confirmed(asterisk, ear, documents[10])
    this.cancel(f"fax-{made.tag}")
    end = ear.end(made.tag)
    assert (end.state, end.cause) == (State.FAILED, "page_failed")
    assert end.pages_sent in range(1, 10)
    with Ear(this, forgets=True) as again:
        # What is acknowledged stays in the database for a while, and says the same.
        assert again.end(made.tag).pages_sent == end.pages_sent
    assert this.fetch(f"fax-{made.tag}").key == end.key


def what_ends_while_the_connection_is_cut_is_heard_later(
    asterisk: AsteriskServer, ear: Ear, documents: dict[int, Path]
) -> None:
    """Of two that listen one is cut off."""
    assert not ear.error
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


def what_a_killed_listener_did_not_acknowledge_its_successor_hears(
    asterisk: AsteriskServer, ear: Ear, documents: dict[int, Path]
) -> None:
    """The other ear acknowledges it meanwhile: two that listen are harmless."""
    assert not ear.error
    with Ear(at(asterisk), forgets=True) as killed:
        made = sent(at(asterisk), FarEnd.BUSY.line(25), documents[1])
        first = killed.end(made.tag)
    assert made.tag in asterisk.stored()
    with Ear(at(asterisk)) as successor:
        second = successor.end(made.tag)
    assert (first.state, first.key) == (second.state, second.key)
    assert first.cause == "busy"


# Calls that nobody listens to, by the cause that they have all the same.
UNHEARD: dict[str, tuple[str, dict[str, Any]]] = {
    "busy": (FarEnd.BUSY.line(30), {}),
    "number_dead": (FarEnd.UNALLOCATED.line(30), {}),
    "congestion": (FarEnd.CONGESTION.line(30), {}),
    "rejected": (FarEnd.REJECTED.line(30), {}),
    "no_answer": (FarEnd.NO_ANSWER.line(30), {"ringSeconds": 5}),
    "unreachable": (FarEnd.FAX.line(31), {**DEAD, "ringSeconds": 5}),
    "trunk_down": (FarEnd.FAX.line(32), {"dial": "PJSIP/{number}@watchedtrunk"}),
    "trunk_denied": (FarEnd.FAX.line(34), DENIED),
    "config": (FarEnd.FAX.line(33), {"dial": "PJSIP/{number}@nosuch"}),
}


def a_call_that_ended_while_nobody_listened_has_its_cause(
    own: AsteriskServer, documents: dict[int, Path]
) -> None:
    own.qualified()
    begun = {
        cause: sent(at(own, **settings), number, documents[1])
        for cause, (number, settings) in UNHEARD.items()
    }
    eventually(lambda: {each.tag for each in begun.values()} <= own.stored().keys(), 20, every=0.2)
    for cause, made in begun.items():
        assert at(own).fetch(f"fax-{made.tag}").cause == cause
    with Ear(at(own)) as late:
        for cause, made in begun.items():
            assert late.end(made.tag).cause == cause


def asterisk_killed_in_mid_fax_leaves_the_outcome_unknown(
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


def asterisk_stopped_in_mid_fax_says_so(own: AsteriskServer, documents: dict[int, Path]) -> None:
    this = at(own)
    with Ear(this) as mine:
        made = sent(this, FarEnd.FAX, documents[10], 10)
        eventually(lambda: mine.of(made.tag, State.PROGRESS), 10)
        own.cli("core stop now")
        end = mine.end(made.tag)
    assert (end.state, end.cause) == (State.FAILED, "dropped_early")


def thirty_faxes_at_once_all_arrive(own: AsteriskServer, documents: dict[int, Path]) -> None:
    kinds = ((FarEnd.FAX_T38, 0), (FarEnd.FAX_T38, 0), (FarEnd.FAX, AUDIO))
    plans = [(kinds[number % 3][0].line(number), kinds[number % 3][1]) for number in range(30)]
    this = at(own)
    with Ear(this) as mine:
        faxes = [fax(number, documents[1], 1, step, HEADER) for number, step in plans]
        at_once(30, lambda each: this.send(faxes[each]))
        for each, (number, _) in zip(faxes, plans, strict=True):
            end = mine.end(each.tag, 110)
            assert (end.state, end.pages_sent) == (State.DELIVERED, 1), number
            assert_arrived(each.document, own.heard(number).path)


# One test, of some seventy seconds: all of it waits for calls.

TOGETHER = (
    a_fax_is_cancelled_while_it_rings,
    a_fax_is_cancelled_in_the_middle_of_a_page,
    what_ends_while_the_connection_is_cut_is_heard_later,
    what_a_killed_listener_did_not_acknowledge_its_successor_hears,
)
"""At one Asterisk, to whom the ear listens."""
APART = (
    a_call_that_ended_while_nobody_listened_has_its_cause,
    asterisk_killed_in_mid_fax_leaves_the_outcome_unknown,
    asterisk_stopped_in_mid_fax_says_so,
    thirty_faxes_at_once_all_arrive,
)
"""Each at one of its own."""


@pytest.mark.waits
def test_every_call_ends_as_it_should_whatever_breaks_meanwhile(
    asterisk: AsteriskServer,
    documents: dict[int, Path],
    ground: Ground,
    asterisk_tree: Tree,
    subtests: pytest.Subtests,
) -> None:
    mine = at(asterisk)
    mine.kept_seconds = 30.0
    with Ear(mine) as ear:
        faxes = begun(asterisk, documents)
        deeds = {each.__name__: partial(each, asterisk, ear, documents) for each in TOGETHER}
        for each in APART:
            own = AsteriskServer(ground, asterisk_tree)
            deeds[each.__name__] = partial(at_one_of_its_own, each, own, documents)
        for name, this in faxes.items():
            deeds[name] = partial(ends_as_it_should, CALLS[name], this, asterisk, ear)
        side_by_side(subtests, deeds)
        early = {this.tag for name, this in faxes.items() if CALLS[name].cause in EARLY}
        assert len(early) > len(EARLY)
        assert not [path for path in asterisk.documents.iterdir() if path.stem in early]
        sounded = [
            asterisk.heard(plan.number) for plan in CALLS.values() if plan.state is State.DELIVERED
        ]
        assert any(each.station for each in sounded if each.mode == "audio")
        eventually(lambda: not early & tags_in(asterisk), 45, every=1.0)
        assert ear.error is None


def at_one_of_its_own(
    deed: Callable[[AsteriskServer, dict[int, Path]], None],
    own: AsteriskServer,
    documents: dict[int, Path],
) -> None:
    own.start()
    try:
        deed(own, documents)
    finally:
        if own.process is not None:
            own.stop()


def ends_as_it_should(plan: Planned, this: OutboundFax, asterisk: AsteriskServer, ear: Ear) -> None:
    end = ear.end(this.tag, 110)
    assert (end.state, end.cause) == (plan.state, plan.cause)
    assert ear.of(this.tag) == [end], "told once"
    if end.state is State.DELIVERED:
        received = asterisk.heard(plan.number)
        assert end.pages_sent == received.pages == plan.pages
        assert received.mode == ("T38" if plan.number[-3:] == "101" else "audio")
        assert received.rate == 9600 or plan.step != SLOW
        # As sound it is said once, and a busy machine may spoil it.
        assert received.station == "+1 555 000 1111" or (received.mode, received.station) == (
            "audio",
            "",
        )
        assert received.caller == "+15550001111"
        if plan.step == SLOW:
            assert_readable(this.document, received.path)
        else:
            headers = assert_arrived(this.document, received.path)
            assert min(headers) > 0, "a header line is on every page"
    elif end.cause == "page_failed":
        confirmed = end.pages_sent or 0
        assert 0 < confirmed < plan.pages
        # The far end may have a page whose confirmation did not get through any more.
        assert asterisk.heard(plan.number).pages - confirmed in (0, 1)


# Behind the long one, so that what comes after this file need not wait for it.


def test_it_is_fit(asterisk: AsteriskServer) -> None:
    health = at(asterisk).health()
    assert health.ok, health.detail


def test_what_is_missing_is_said(asterisk: AsteriskServer) -> None:
    asterisk.qualified()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"password": "wrong password"}, "ASTERISK_AMI_PASSWORD"),
        ({"context": "nowhere"}, "extensions_faxbot.conf"),
        ({"context": "faxbot-ack"}, "extensions_faxbot.conf"),
        ({"dial": "PJSIP/{number}@nosuch"}, "PJSIP endpoint nosuch"),
        ({"dial": "PJSIP/{number}@watchedtrunk"}, "watchedtrunk does not answer"),
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
