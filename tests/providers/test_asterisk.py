"""The provider asterisk: what it asks of a manager, what it makes of events in any order, and what a broken manager
cannot do to it."""

from __future__ import annotations

import json
import logging
import os
import socket
import stat
import time
import tracemalloc
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from faxbot.errors import AccountRefused, OutcomeUnknown, ProviderError, Refused, Unreachable
from faxbot.hidden import Hidden
from faxbot.plugins.base import Arrival, CallbackRequest, Gap, Notice, State, Update
from faxbot.providers.asterisk import Asterisk, tiff
from faxbot.providers.asterisk.ami import LONGEST_MESSAGE, Login, Message, connected
from faxbot.providers.asterisk.calls import FORGOTTEN, GRACE, MOST_CALLS, Call, Calls
from faxbot.providers.asterisk.listener import KEPT
from tests.ground import eventually
from tests.misbehaving import Behaviour, Server, resetting, silent
from tests.providers.ami import (
    BOOTED,
    DIALPLAN,
    GREETING,
    HANGS_UP,
    PASSWORD,
    Manager,
    dialplan,
    error,
    greeting_then,
    ok,
    text,
)
from tests.providers.asterisk.ear import Ear, fax, provider
from tests.providers.asterisk.pages import make_tiff

HEADER = 'Acme, Inc. = "Sons" & ${SHELL(id)} 100%'
AGAIN = 200.0  # seconds
CALLED = {"callerId": "+15550001111", "stationId": "Acme 1"}


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiff(tmp_path_factory.mktemp("documents") / "2.tif", 2)


@pytest.fixture
def manager() -> Iterator[Manager]:
    made = Manager()
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "documents"
    made.mkdir()
    return made


Connect = Callable[..., Asterisk]


@pytest.fixture
def connect(manager: Manager, folder: Path) -> Connect:
    def make(**changes: Any) -> Asterisk:
        usual: dict[str, Any] = {"port": manager.port, "password": PASSWORD, "folder": folder}
        return provider(**{**usual, **changes})

    return make


# What is asked of the manager ---------------------------------------------------------------


def originate(manager: Manager) -> dict[str, str]:
    (asked,) = manager.of("Originate")
    return dict(asked)


def variables(manager: Manager) -> dict[str, str]:
    pairs = (line.partition("=") for line in originate(manager)["Variable"].splitlines())
    return {name.removeprefix("FAXJOB_"): value for name, _, value in pairs}


def test_a_call_is_asked_for_with_all_that_it_takes(
    manager: Manager, connect: Connect, document: Path, folder: Path
) -> None:
    made = fax("+15550100100", document, 2, 0, HEADER)
    this = connect(stationId="+1 555 0001", callerId="+15550001111", folderThere="/there/")
    assert this.send(made).external_id == f"fax-{made.tag}"
    asked = originate(manager)
    del asked["Variable"]
    assert asked == {
        "Action": "Originate",
        "ActionID": f"fax-{made.tag}",
        "Channel": "PJSIP/+15550100100@trunk",
        "Context": "faxbot-send",
        "Exten": "send",
        "Priority": "1",
        "Timeout": "45000",
        "Async": "true",
        "ChannelId": f"fax-{made.tag}",
        "CallerID": "<+15550001111>",
    }
    given = variables(manager)
    assert not set(given["HEADER"]) & set(',="&$ ')
    assert unquote(given.pop("HEADER")) == HEADER
    assert unquote(given.pop("STATION")) == "+1 555 0001"
    assert given == {
        "ID": made.tag,
        "FILE": f"/there/{made.tag}.tif",
        "MAXSECS": "300",
        "OPTS": "zf",
        "ECM": "yes",
        "DEVICE": "PJSIP/trunk",
        "CHANNEL(hangup_handler_push)": '"faxbot-send,cause,1"',
        "FORWARD_CONTEXT": "faxbot-nothing-comes-in",
    }
    placed = folder / f"{made.tag}.tif"
    assert placed.read_bytes() == document.read_bytes()
    assert stat.S_IMODE(placed.stat().st_mode) == 0o640
    assert list(folder.iterdir()) == [placed]


@pytest.mark.parametrize(
    ("settings", "station"),
    [({}, ""), ({"callerId": "+15550001111"}, "+15550001111"), (CALLED, "Acme 1")],
)
def test_a_fax_without_a_text_of_its_own_has_a_header_line_with_our_number(
    manager: Manager, connect: Connect, document: Path, settings: dict[str, str], station: str
) -> None:
    """Where there is no text spandsp prints no line at all."""
    connect(**settings).send(fax("+15550100100", document))
    given = variables(manager)
    assert (given["HEADER"], unquote(given.get("STATION", ""))) == ("Fax", station)


@pytest.mark.parametrize(
    ("step", "t38", "words"),
    [
        (0, True, {"OPTS": "zf", "ECM": "yes"}),
        (0, False, {"OPTS": "F", "ECM": "yes"}),
        (1, True, {"OPTS": "F", "ECM": "yes"}),
        (2, True, {"OPTS": "F", "ECM": "yes", "SLOW": "yes"}),
        (3, True, {"OPTS": "F", "ECM": "no", "SLOW": "yes"}),
        (9, True, {"OPTS": "F", "ECM": "no", "SLOW": "yes"}),
    ],
)
def test_each_step_of_the_ladder_calls_more_carefully(
    manager: Manager, connect: Connect, document: Path, step: int, t38: bool, words: dict[str, str]
) -> None:
    connect(t38=t38).send(fax("+15550100100", document, 2, step))
    given = variables(manager)
    assert {key: given[key] for key in ("OPTS", "ECM", "SLOW") if key in given} == words


@pytest.mark.parametrize("dial", ["PJSIP/trunk", "PJSIP/15550100101@trunk", "PJSIP/{nummer}@trunk"])
def test_not_all_faxes_go_to_one_number(
    manager: Manager, connect: Connect, document: Path, folder: Path, dial: str
) -> None:
    this = connect(dial=dial)
    assert "{number}" in this.health().detail
    with pytest.raises(AccountRefused):
        this.send(fax("+15550100100", document))
    assert (manager.of("Originate"), list(folder.iterdir())) == ([], [])


@pytest.mark.parametrize(("pages", "seconds"), [(1, 300), (20, 1320), (500, 3600)])
def test_a_call_may_take_as_long_as_its_pages_may(
    manager: Manager, connect: Connect, document: Path, pages: int, seconds: int
) -> None:
    """Also where they are nearly white, and have few bytes: a slow machine takes each row's time."""
    connect().send(fax("+15550100100", document, pages))
    assert int(variables(manager)["MAXSECS"]) == pytest.approx(seconds, abs=30)


def test_a_trunk_may_take_digits_only(manager: Manager, connect: Connect, document: Path) -> None:
    connect(dial="PJSIP/trunk/sip:00{digits}@10.0.0.1").send(fax("+15550100100", document))
    assert originate(manager)["Channel"] == "PJSIP/trunk/sip:0015550100100@10.0.0.1"
    assert variables(manager)["DEVICE"] == "PJSIP/trunk"


@pytest.mark.parametrize(
    "number",
    [
        "",
        "+1",
        "1 555 0100",
        "+1555\r\nAction: Command",
        "+1555@evil",
        "1555&SIP/2",
        "+١٢٣٤٥",
        "5" * 16,
    ],
)
def test_what_is_no_number_is_refused_before_anything_is_done(
    manager: Manager, connect: Connect, document: Path, folder: Path, number: str
) -> None:
    with pytest.raises(Refused) as caught:
        connect().send(fax(number, document))
    assert caught.value.cause == "number_invalid"
    assert not manager.asked
    assert not list(folder.iterdir())


@pytest.mark.parametrize("tag", ["", "../../etc/passwd", "a b", "a&b", "a\r\nb", "x" * 65])
def test_a_tag_that_asterisk_could_not_keep_is_refused(
    manager: Manager, connect: Connect, document: Path, tag: str
) -> None:
    this = connect()
    with pytest.raises(Refused):
        this.send(replace(fax("+15550100100", document), tag=tag))
    for ask in (this.fetch, this.cancel):
        with pytest.raises(Refused):
            ask(f"fax-{tag}")
    assert not manager.asked


def test_a_line_break_never_gets_into_a_header(manager: Manager) -> None:
    with connected(Login("127.0.0.1", manager.port, "faxbot", PASSWORD)) as ami:
        for name, value in (("A", "b\r\nc"), ("A\n", "b"), ("A", "\0")):
            with pytest.raises(ValueError, match="line break"):
                ami.action("Ping", [(name, value)])
        assert ami.action("Ping")["Ping"] == "Pong"


def test_a_folder_that_takes_nothing_is_a_matter_of_settings(
    manager: Manager, connect: Connect, document: Path
) -> None:
    with pytest.raises(ProviderError, match="ASTERISK_FOLDER") as caught:
        connect(folder="/nowhere").send(fax("+15550100100", document))
    assert caught.value.cause == "config"
    assert not manager.asked


def test_asterisk_that_is_still_starting_is_not_given_a_call(
    connect: Connect, document: Path, folder: Path
) -> None:
    server = Server(_not_booted)
    with pytest.raises(Unreachable, match="starting"):
        connect(port=server.port).send(fax("+15550100100", document))
    server.close()
    assert not list(folder.iterdir())


@pytest.mark.parametrize("action", ["Challenge", "Originate"])
def test_asterisk_that_is_being_stopped_is_given_the_call_later(
    folder: Path, document: Path, action: str
) -> None:
    """It takes no action then, not even a login; neither account nor settings are to blame."""
    manager = Manager(**{action: error("Asterisk is shutting down")})
    this = provider(port=manager.port, password=PASSWORD, folder=folder)
    with pytest.raises(Unreachable, match="stopped"):
        this.send(fax("+15550100100", document))
    manager.close()
    assert not list(folder.iterdir())


def _not_booted(connection: socket.socket, server: Server) -> None:
    """No FullyBooted follows the login."""
    connection.sendall(GREETING)
    for number in range(1, 4):
        server.read(connection)
        connection.sendall(
            f"Response: Success\r\nActionID: faxbot-{number}\r\nChallenge: 1\r\n\r\n".encode()
        )
    server.read(connection)


def test_a_dialplan_of_an_older_faxbot_is_told_from_todays(
    manager: Manager, connect: Connect
) -> None:
    assert connect().health().ok
    extensions = [*DIALPLAN["faxbot-send"][:3], *DIALPLAN["faxbot-ack"]]
    manager.answers["ShowDialPlan"] = dialplan(extensions)
    health = connect().health()
    assert not health.ok
    assert "older faxbot" in health.detail
    # It kept causes, and did not say them.
    extensions.append(("cause", "Set", "DB(faxbot/${FAXJOB_ID}/cause)=status=UNANSWERED"))
    manager.answers["ShowDialPlan"] = dialplan(extensions)
    assert "older faxbot" in connect().health().detail


# Asking -------------------------------------------------------------------------------------

UNANSWERED = "status=UNANSWERED"
DONE = (
    "status=SUCCESS&error=HANGUP&text=OK&pages=2&rate=14400&mode=audio&remote=%2B1%20FAR&cause=16"
)


def look_up(this: Asterisk, tag: str, ago: timedelta) -> Update:
    return this.look_up(tag, to=Hidden("+15550100100"), since=datetime.now(UTC) - ago)


def test_a_result_in_the_database_is_news(manager: Manager, connect: Connect) -> None:
    manager.database["t1"] = DONE
    update = connect().fetch("fax-t1")
    assert (update.state, update.pages_sent, update.tag) == (State.DELIVERED, 2, "t1")
    assert look_up(connect(), "t1", timedelta(0)) == update


# What the dialplan kept of a call that was not answered, and of its channel's end.
UNHEARD: dict[str, tuple[str | None, str | None]] = {
    "busy": ("reason=0&device=NOT_INUSE", "cause=17&tech=486"),
    "trunk_denied": ("reason=0", "cause=21&tech=401&state=Down"),
    "no_answer": ("reason=3&device=", "cause=0&tech=183&state=Down"),
    "unreachable": ("reason=3", "cause=0&state=Down"),
    "number_dead": (None, "cause=1&tech=404&state=Down"),
    "config": ("reason=0&device=INVALID", None),
    "trunk_down": ("reason=0&device=UNAVAILABLE", None),
}


def test_of_a_call_that_nobody_heard_the_database_tells_the_cause(
    manager: Manager, connect: Connect
) -> None:
    for tag, entries in UNHEARD.items():
        for key, entry in zip((tag, f"{tag}/cause"), entries, strict=True):
            if entry is not None:
                manager.database[key] = f"status=UNANSWERED&{entry}"
    fetched = {tag: connect().fetch(f"fax-{tag}") for tag in UNHEARD}
    with Ear(connect()) as ear:
        heard = {tag: ear.end(tag) for tag in UNHEARD}
    for tag in UNHEARD:
        assert (fetched[tag].state, fetched[tag].cause) == (State.FAILED, tag)
        assert (heard[tag].cause, heard[tag].key) == (tag, fetched[tag].key)


def test_a_dialplan_that_keeps_no_causes_leaves_them_open(
    manager: Manager, connect: Connect
) -> None:
    manager.database.update({"t0": f"{UNANSWERED}&reason=0", "t3": f"{UNANSWERED}&reason=3"})
    assert connect().fetch("fax-t0").cause == "unreachable"
    assert connect().fetch("fax-t3").cause == "no_answer"


class Clock:
    """Of faxbot; Asterisk's is in its manager's `uptime`."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


class Asking:
    """Providers of one faxbot: each question is asked by another process of it."""

    def __init__(self, connect: Connect) -> None:
        self.clock = Clock()
        self.context = replace(connect().context, now=self.clock)
        self._connect = connect

    def process(self, **changes: Any) -> Asterisk:
        this = Asterisk()
        this.initialize(self._connect(**changes).config, self.context)
        return this

    def is_absent(self, since: datetime, **changes: Any) -> bool:
        try:
            update = self.process(**changes).look_up("t1", to=Hidden("+15550100100"), since=since)
        except OutcomeUnknown:
            return False
        return update.state is State.ABSENT

    def passes(self, manager: Manager, **time: float) -> None:
        self.clock.now += timedelta(**time)
        manager.uptime += int(timedelta(**time).total_seconds())


@pytest.fixture
def asking(connect: Connect, manager: Manager) -> Asking:
    """Asterisk is known for an hour."""
    made = Asking(connect)
    made.is_absent(made.clock.now)
    made.passes(manager, hours=1)
    return made


def test_absence_is_proof_only_where_asterisk_was_up_all_the_time(
    asking: Asking, manager: Manager
) -> None:
    since = asking.clock.now
    asking.passes(manager, minutes=10)
    assert asking.is_absent(since)
    manager.uptime = 590
    assert not asking.is_absent(since)
    asking.passes(manager, minutes=10)
    assert not asking.is_absent(since)
    assert asking.is_absent(asking.clock.now)


def test_another_asterisk_behind_the_same_address_proves_nothing(
    asking: Asking, manager: Manager
) -> None:
    """It never had the call, and is up for longer: of two that take turns, or one whose clock was set."""
    since = asking.clock.now
    asking.passes(manager, minutes=10)
    manager.uptime += 86_400
    assert not asking.is_absent(since)
    asking.passes(manager, minutes=10)
    assert not asking.is_absent(since)
    assert asking.is_absent(asking.clock.now)
    manager.uptime -= 86_400
    assert not asking.is_absent(since)


def test_an_asterisk_whose_clock_was_set_back_is_given_calls_and_proves_nothing(
    asking: Asking, manager: Manager, document: Path
) -> None:
    since = asking.clock.now
    asking.passes(manager, minutes=10)
    manager.uptime = -300
    asking.process().send(fax("+15550100100", document))
    assert not asking.is_absent(since)


def test_a_worker_that_calls_has_seen_which_asterisk_it_is(
    connect: Connect, manager: Manager, document: Path
) -> None:
    made = Asking(connect)
    made.process().send(fax("+15550100100", document))
    made.passes(manager, minutes=1)
    assert made.is_absent(made.clock.now)
    assert not made.is_absent(made.clock.now - timedelta(minutes=2))


def test_a_result_may_be_gone_after_a_while_and_then_absence_proves_nothing(
    asking: Asking, manager: Manager
) -> None:
    """As long as a result is kept there, whoever acknowledged it finds it still, however late core is."""
    since = asking.clock.now
    asking.passes(manager, seconds=KEPT - 310)
    assert asking.is_absent(since)
    asking.passes(manager, seconds=20)
    assert not asking.is_absent(since)


def test_a_dialplan_that_keeps_no_results_proves_nothing(asking: Asking, manager: Manager) -> None:
    since = asking.clock.now
    assert not asking.is_absent(since, context="nowhere")
    manager.answers["Getvar"] = ok(("Value", ""))  # as without func_db
    assert not asking.is_absent(since)
    assert "func_db" in asking.process().health().detail


def test_a_call_that_was_given_up_is_not_made_later(document: Path, connect: Connect) -> None:
    """What Asterisk has not got yet of it goes with the connection, at once."""
    ends: list[str] = []

    def behave(connection: socket.socket, server: Server) -> None:
        connection.sendall(GREETING)
        for each in LOGGED_IN:
            server.read(connection)
            connection.sendall(each)
        try:
            while server.read(connection):
                pass
            ends.append("let go of")
        except ConnectionResetError:
            ends.append("reset")

    server = Server(behave)
    usual = connect(port=server.port)
    this = Impatient()
    this.initialize(usual.config, usual.context)
    with pytest.raises(OutcomeUnknown):
        this.send(fax("+15550100100", document))
    eventually(lambda: ends)
    server.close()
    assert ends == ["reset"]


@pytest.mark.parametrize("value", ["", "nonsense", "x" * 5000, "&" * 50])
def test_a_result_that_cannot_be_read_is_never_absence(
    manager: Manager, connect: Connect, value: str
) -> None:
    manager.database["t1"] = value
    with pytest.raises(OutcomeUnknown):
        connect().fetch("fax-t1")


def test_a_call_is_cancelled_by_its_channel(manager: Manager, connect: Connect) -> None:
    manager.calls.add("fax-t1")
    manager.database["t2"] = DONE
    connect().cancel("fax-t1")
    assert manager.of("Hangup")[0]["Channel"] == "fax-t1"
    with pytest.raises(Refused, match="too late"):
        connect().cancel("fax-t2")
    with pytest.raises(OutcomeUnknown):
        connect().cancel("fax-t3")


# Events in any order ------------------------------------------------------------------------


def event(name: str, **fields: str) -> Message:
    return {"Event": name, **fields}


def result(encoded: str) -> Message:
    return event("UserEvent", UserEvent="FaxbotResult", JobID="t1", Result=encoded)


OURS = {"Uniqueid": "fax-t1"}
DEST = {"DestUniqueid": "fax-t1"}
BROKEN = "status=FAILED&error=The%20call%20dropped%20prematurely&text=&pages=1&remote=FAR&cause=0"
SCENARIOS: dict[str, tuple[list[Message], tuple[State, str | None, int | None]]] = {
    "delivered": (
        [
            event("DialBegin", **DEST),
            event("DialEnd", DialStatus="ANSWER", **DEST),
            event("UserEvent", UserEvent="FaxbotAnswered", JobID="t1"),
            event("OriginateResponse", ActionID="fax-t1", Response="Success", Reason="4", **OURS),
            event("HangupRequest", Cause="16", **OURS),
            result(DONE),
            event("Hangup", Cause="58", TechCause="488", **OURS),
        ],
        (State.DELIVERED, None, 2),
    ),
    "broken": (
        [
            event("UserEvent", UserEvent="FaxbotAnswered", JobID="t1"),
            event("OriginateResponse", ActionID="fax-t1", Response="Success", Reason="4", **OURS),
            result(BROKEN),
            event("Hangup", Cause="0", **OURS),
        ],
        (State.FAILED, "page_failed", 1),
    ),
    "busy": (
        [
            event("DialBegin", **DEST),
            event("HangupRequest", Cause="17", TechCause="486", **OURS),
            event("DialEnd", DialStatus="BUSY", **DEST),
            event("Hangup", Cause="17", TechCause="486", **OURS),
            event("OriginateResponse", ActionID="fax-t1", Response="Failure", Reason="0", **OURS),
            result("status=UNANSWERED&reason=0"),
        ],
        (State.FAILED, "busy", None),
    ),
    "no answer": (
        [
            event("DialBegin", **DEST),
            event("DialState", DialStatus="RINGING", **DEST),
            event("DialEnd", DialStatus="NOANSWER", **DEST),
            event("Hangup", Cause="19", TechCause="480", **OURS),
            event("OriginateResponse", ActionID="fax-t1", Response="Failure", Reason="3", **OURS),
            result("status=UNANSWERED&reason=3"),
        ],
        (State.FAILED, "no_answer", None),
    ),
    "no such trunk": (
        [
            event("OriginateResponse", ActionID="fax-t1", Response="Failure", Reason="0"),
            result("status=UNANSWERED&reason=0&device=INVALID"),
        ],
        (State.FAILED, "config", None),
    ),
    "a trunk that does not answer": (
        [
            event("OriginateResponse", ActionID="fax-t1", Response="Failure", Reason="0"),
            result("status=UNANSWERED&reason=0&device=UNAVAILABLE"),
        ],
        (State.FAILED, "trunk_down", None),
    ),
}


def told(calls: Calls, now: float) -> list[Call]:
    return [call for call, over in calls.ripe(now, AGAIN) if over]


@given(st.sampled_from(list(SCENARIOS)), st.data())
def test_the_last_events_of_a_call_may_come_in_any_order(name: str, data: st.DataObject) -> None:
    events, end = SCENARIOS[name]
    calls, now, heard = Calls(), 1000.0, []
    for each in data.draw(st.permutations(events)):
        calls.hear(each, now)
        heard += [call.update() for call in told(calls, now)]
        now += GRACE / 10
    heard += [call.update() for call in told(calls, now + GRACE)]
    assert [(each.state, each.cause, each.pages_sent) for each in heard] == [end]
    assert not told(calls, now + GRACE + 1), "told once"


@given(st.sampled_from(list(SCENARIOS)), st.data())
def test_what_is_lost_is_found_in_the_database_and_ends_alike(
    name: str, data: st.DataObject
) -> None:
    events, end = SCENARIOS[name]
    encoded = next(each["Result"] for each in events if "Result" in each)
    kept = data.draw(st.lists(st.sampled_from(events), unique_by=id))
    calls, now = Calls(), 1000.0
    for each in data.draw(st.permutations(kept)):
        calls.hear(each, now)
    calls.find("t1", encoded, now)
    (call,) = told(calls, now + GRACE)
    update = call.update()
    assert (update.state, update.pages_sent) == (end[0], end[2])
    if events[-1] in kept and any(each["Event"] == "Hangup" for each in kept):
        assert update.cause is None or update.cause in (end[1], "unreachable")


ANSWERED = [
    name
    for name, (events, _) in SCENARIOS.items()
    if not any(UNANSWERED in each.get("Result", "") for each in events)
]


@given(st.sampled_from(ANSWERED), st.data())
def test_a_cause_that_lies_beside_a_result_takes_nothing_from_it(
    name: str, data: st.DataObject
) -> None:
    events, end = SCENARIOS[name]
    calls, now = Calls(), 1000.0
    for each in data.draw(st.permutations([*events, None])):
        if each is None:
            calls.find("t1/cause", f"{UNANSWERED}&cause=17&tech=486&state=Down", now)
        else:
            calls.hear(each, now)
    (call,) = told(calls, now)
    update = call.update()
    assert (update.state, update.cause, update.pages_sent) == end


@given(st.data())
def test_the_dialplan_says_the_sip_status_that_a_hangup_of_asterisk_16_lacks(
    data: st.DataObject,
) -> None:
    why = f"{UNANSWERED}&cause=21&tech=401&state=Down"
    events = [
        event("Hangup", Cause="21", **OURS),
        event("OriginateResponse", ActionID="fax-t1", Response="Failure", Reason="0", **OURS),
        result("status=UNANSWERED&reason=0&device=NOT_INUSE"),
        event("UserEvent", UserEvent="FaxbotCause", JobID="t1", Result=why),
    ]
    calls, now = Calls(), 1000.0
    for each in data.draw(st.permutations(events)):
        calls.hear(each, now)
    assert [call.update().cause for call in told(calls, now + GRACE)] == ["trunk_denied"]


def test_an_asterisk_that_makes_no_channels_any_more_is_no_matter_of_settings() -> None:
    """It is being stopped: not even the dialplan's `failed` runs."""
    calls = Calls()
    calls.hear(
        event("OriginateResponse", ActionID="fax-t1", Response="Failure", Reason="0"), 1000.0
    )
    (call,) = told(calls, 1000.0 + GRACE)
    assert call.update().cause == "trunk_down"


@given(st.data())
def test_a_second_call_under_the_same_name_does_not_undo_the_first(data: st.DataObject) -> None:
    calls = Calls()
    news = [result(DONE), result("status=UNANSWERED&reason=0"), result(BROKEN)]
    for each in data.draw(st.permutations(news)):
        calls.hear(each, 1000.0)
    assert [call.update().state for call in told(calls, 1000.0 + GRACE)] == [State.DELIVERED]


def test_a_call_is_told_of_again_until_it_is_forgotten() -> None:
    calls = Calls()
    calls.find("t1", DONE, 1000.0)
    assert len(told(calls, 1000.0)) == 1
    assert not told(calls, 1000.0 + AGAIN - 1)
    assert len(told(calls, 1000.0 + AGAIN)) == 1
    calls.forget("t1")
    assert not told(calls, 1000.0 + 3 * AGAIN)


def test_an_answer_is_told_of_once_and_a_failure_after_it_is_not_believed() -> None:
    calls = Calls()
    answered = event("UserEvent", UserEvent="FaxbotAnswered", JobID="t1")
    failure = event("OriginateResponse", ActionID="fax-t1", Response="Failure", Reason="0")
    calls.hear(answered, 1000.0)
    ((call, over),) = calls.ripe(1000.0, AGAIN)
    assert (call.update().state, over) == (State.PROGRESS, False)
    calls.hear(failure, 1000.0)
    assert not list(calls.ripe(1000.0 + 3 * GRACE, AGAIN))


def test_calls_without_news_are_forgotten_and_a_flood_of_them_has_an_end() -> None:
    calls = Calls()
    for number in range(MOST_CALLS + 10):
        calls.hear(event("Hangup", Uniqueid=f"fax-{number}", Cause="16"), 1000.0)
    assert len(calls) == MOST_CALLS
    calls.tidy(1000.0 + FORGOTTEN + 1)
    assert len(calls) == 0


names = st.sampled_from(["Event", "UserEvent", "JobID", "Result", "Uniqueid", "Cause", "ActionID"])
words = st.text() | st.sampled_from(
    ["UserEvent", "FaxbotResult", "t1", "fax-t1", "Hangup", "DialState", "OriginateResponse", DONE]
)


@given(st.lists(st.dictionaries(names, words)))
def test_no_event_harms(events: list[dict[str, str]]) -> None:
    calls = Calls()
    for each in events:
        calls.hear(each, 1000.0)
    for call, _ in calls.ripe(1000.0 + GRACE, AGAIN):
        assert Call.read(call.body()) == call
        assert call.update().tag == call.tag


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
facts = ("tag", "result", "cause", "tech_cause", "dial", "answered", "reason")


@given(
    st.binary()
    | st.dictionaries(st.sampled_from(facts), json_values).map(json.dumps).map(str.encode)
)
def test_a_body_that_is_none_of_ours_is_an_error_of_the_tree(body: bytes) -> None:
    this = Asterisk()
    try:
        updates = this.read_callback(CallbackRequest("LISTEN", "", {}, body))
    except OutcomeUnknown:
        return
    assert all(isinstance(each, Arrival) or each.tag for each in updates)


# Listening ----------------------------------------------------------------------------------


def test_what_lies_in_the_database_is_told_first_and_deleted_a_while_after_it_was_kept(
    manager: Manager, connect: Connect, folder: Path
) -> None:
    manager.database["t1"] = DONE
    (folder / "t1.tif").touch()
    with Ear(connect()) as ear:
        assert ear.end("t1").state is State.DELIVERED
        eventually(lambda: not (folder / "t1.tif").exists())
        assert "t1" in manager.database, "whoever asks core's question finds it still"
    this = connect()
    this.kept_seconds = 0.0
    with Ear(this) as ear:
        assert ear.end("t1").state is State.DELIVERED
        eventually(lambda: "t1" not in manager.database)


def test_more_results_than_can_be_taken_at_once_do_not_end_the_listening(
    manager: Manager, connect: Connect
) -> None:
    """As after days without a listener."""
    filler = "&more=" + "x" * 3500
    manager.database |= {f"t{number}": DONE + filler for number in range(1300)}
    with Ear(connect()) as ear:
        assert ear.end("t0").state is State.DELIVERED
        manager.tell(
            text(
                ("Event", "UserEvent"),
                ("UserEvent", "FaxbotResult"),
                ("JobID", "late"),
                ("Result", DONE),
            )
        )
        assert ear.end("late").state is State.DELIVERED
        assert (ear.gaps, ear.error) == (1, None)


def test_events_are_heard_as_they_come(manager: Manager, connect: Connect) -> None:
    with Ear(connect()) as ear:
        for number in range(50):
            tag = f"t{number}"
            fields = (("Event", "UserEvent"), ("UserEvent", "FaxbotResult"), ("JobID", tag))
            manager.tell(text(*fields, ("Result", DONE)))
        for number in range(50):
            assert ear.end(f"t{number}").state is State.DELIVERED


def test_a_result_whose_event_never_came_is_looked_for(manager: Manager, connect: Connect) -> None:
    """As where the manager's user may not read the class `user`: the channel goes, and nothing is said."""
    with Ear(connect()) as ear:
        manager.database["t1"] = BROKEN
        manager.tell(text(("Event", "Hangup"), ("Uniqueid", "fax-t1"), ("Cause", "16")))
        assert ear.end("t1").cause == "page_failed"


def test_a_connection_that_breaks_is_made_again_and_asks_after_all(
    manager: Manager, connect: Connect
) -> None:
    with Ear(connect()) as ear:
        manager.tell(text(("Event", "Shutdown"), ("Shutdown", "Cleanly")))
        manager.database["t1"] = DONE
        eventually(lambda: ear.gaps == 2)
        assert ear.end("t1").state is State.DELIVERED


def test_asterisk_that_is_being_stopped_is_listened_to_until_its_calls_are_over(
    manager: Manager, connect: Connect
) -> None:
    with Ear(connect()) as ear:
        manager.answers["DBGetTree"] = error("Asterisk is shutting down")
        # A channel is gone, and its result is looked for.
        manager.tell(text(("Event", "Hangup"), ("Uniqueid", "fax-t0"), ("Cause", "16")))
        eventually(lambda: len(manager.of("DBGetTree")) > 1)
        manager.tell(text(*result(DONE).items()))
        assert ear.end("t1").state is State.DELIVERED
        assert (ear.gaps, ear.error) == (1, None)


def test_asterisk_that_is_not_stopped_after_all_is_asked_again(
    manager: Manager, connect: Connect
) -> None:
    with Ear(connect()) as ear:
        manager.answers["DBGetTree"] = error("Asterisk is shutting down")
        manager.tell(text(("Event", "Hangup"), ("Uniqueid", "fax-t0"), ("Cause", "16")))
        eventually(lambda: len(manager.of("DBGetTree")) > 1)
        manager.database["t0"] = DONE
        del manager.answers["DBGetTree"]
        assert ear.end("t0", 15).state is State.DELIVERED
        assert (ear.gaps, ear.error) == (1, None)


def test_listening_is_silent_at_most_for_seconds(connect: Connect) -> None:
    heard = connect().listen()
    assert isinstance(heard, Generator)
    begun = time.monotonic()
    kinds = [type(next(heard)) for _ in range(3)]
    heard.close()
    assert kinds == [Gap, type(None), type(None)]
    assert time.monotonic() - begun < 20


def test_listening_to_nobody_says_nothing_and_then_gives_up(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    heard = connect(port=9).listen()
    with caplog.at_level(logging.WARNING):
        assert [next(heard) for _ in range(3)] == [None, None, None]
    assert "not connected to Asterisk" in caplog.text


def test_what_is_forgotten_in_the_folder_goes_when_listening_begins(
    connect: Connect, folder: Path
) -> None:
    """And only what is ours: faxes that somebody received may lie there too."""
    old, part = (
        folder / f"fb{letter * 32}{end}" for letter, end in (("a", ".tif"), ("b", ".part"))
    )
    new, foreign = folder / f"fb{'c' * 32}.tif", folder / "received.tif"
    for path in (old, part, new, foreign):
        path.touch()
    for path in (old, part, foreign):
        os.utime(path, (time.time() - 90_000,) * 2)
    heard = connect().listen()
    assert isinstance(next(heard), Gap)
    assert next(heard) is None
    assert isinstance(heard, Generator)
    heard.close()
    assert sorted(folder.iterdir()) == [new, foreign]


def test_nothing_private_is_said_of_a_notice() -> None:
    assert "secret" not in repr(Notice(b"secret", lambda: None))
    assert PASSWORD not in repr(Login("h", 1, "u", PASSWORD))


# A manager that is broken, or is none ---------------------------------------------------------

LOGGED_IN = (
    b"Response: Success\r\nActionID: faxbot-1\r\nChallenge: 1\r\n\r\n",
    b"Response: Success\r\nActionID: faxbot-2\r\n\r\n" + BOOTED.encode() + b"\r\n\r\n",
    b"Response: Success\r\nActionID: faxbot-3\r\n\r\n",
)


def endless(begin: bytes, piece: bytes) -> Behaviour:
    """After what is sent at once, this piece again and again, as fast as it is taken."""

    def behave(connection: socket.socket, server: Server) -> None:
        connection.sendall(begin)
        while not server.done.is_set():
            connection.sendall(piece)

    return behave


def dripping(begin: bytes) -> Behaviour:
    def behave(connection: socket.socket, server: Server) -> None:
        connection.sendall(begin)
        while not server.done.wait(0.02):
            connection.sendall(b"x")

    return behave


def then_endless(piece: bytes) -> Behaviour:
    """Lets us in, and answers what is asked then with the same again and again."""

    def behave(connection: socket.socket, server: Server) -> None:
        connection.sendall(GREETING)
        for each in LOGGED_IN:
            server.read(connection)
            connection.sendall(each)
        server.read(connection)
        while not server.done.is_set():
            connection.sendall(piece)

    return behave


BIG = b"y" * 65536
EVENT = b"Event: Hangup\r\nUniqueid: fax-9\r\nX: " + b"z" * 1000 + b"\r\n\r\n"
BROKEN_MANAGERS: dict[str, Behaviour] = {
    "says nothing": silent,
    "resets": resetting,
    "is a web server": endless(b"HTTP/1.1 400 Bad Request\r\n\r\n", b"x"),
    "greets without an end": endless(b"", b"Asterisk Call Manager/"),
    "drips its greeting": dripping(b"Asterisk"),
    "greets and falls silent": dripping(GREETING),
    "hangs up": greeting_then(HANGS_UP),
    "speaks binary": greeting_then(bytes(range(256)) * 64),
    "hangs up after the login": greeting_then(*LOGGED_IN, HANGS_UP),
    "never ends a line": then_endless(BIG),
    "never ends a message": then_endless(b"Header: value\r\n"),
    "floods with events": then_endless(EVENT),
    "floods with answers to others": then_endless(b"Response: Success\r\nActionID: 0\r\n\r\n"),
    "never ends a list": then_endless(
        b"Response: Success\r\nActionID: faxbot-4\r\n\r\n"
        b"Event: DBGetResponse2\r\nActionID: faxbot-4\r\nVal: " + b"v" * 1000 + b"\r\n\r\n"
    ),
    "drips its answer": greeting_then(*LOGGED_IN, b"Response: Succ"),
}


class Impatient(Asterisk):
    connect_seconds = 0.5
    answer_seconds = 0.5


@pytest.fixture(params=BROKEN_MANAGERS)
def broken(request: pytest.FixtureRequest, folder: Path) -> Iterator[Impatient]:
    server = Server(BROKEN_MANAGERS[request.param])
    usual = provider(port=server.port, password=PASSWORD, folder=folder)
    this = Impatient()
    this.initialize(usual.config, usual.context)
    yield this
    server.close()


def test_a_broken_manager_is_an_error_in_time_and_fills_no_memory(
    broken: Impatient, document: Path
) -> None:
    made = fax("+15550100100", document)
    tracemalloc.start()
    begun = time.monotonic()
    for ask in (
        lambda: broken.fetch("fax-t1"),
        lambda: look_up(broken, "t1", timedelta(0)),
        lambda: broken.send(made),
    ):
        with pytest.raises(ProviderError):
            ask()
    with suppress(ProviderError):
        broken.cancel("fax-t1")
    assert not broken.health().ok
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert time.monotonic() - begun < 60
    assert most < 32 * 1024 * 1024


def test_a_listener_survives_a_broken_manager(broken: Impatient) -> None:
    heard = broken.listen()
    assert isinstance(heard, Generator)
    tracemalloc.start()
    begun = time.monotonic()
    for _ in range(3):
        next(heard)
    heard.close()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert time.monotonic() - begun < 60
    assert most < 32 * 1024 * 1024


def test_the_longest_message_that_is_taken_is_long_enough() -> None:
    assert LONGEST_MESSAGE > 10 * 10_000, "ListCommands has 10 KB"


# Documents ----------------------------------------------------------------------------------


def saved(path: Path, **changes: Any) -> Path:
    given: dict[str, Any] = {"mode": "1", "size": (1728, 2200), "dpi": (204, 196)}
    given |= {"compression": "group4", **changes}
    page = Image.new(given.pop("mode"), given.pop("size"), 1)
    page.save(path, "TIFF", **given)
    return path


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"dpi": (204, 98)}, ""),
        ({"compression": "group3"}, ""),
        ({"dpi": (80.31, 77.17), "resolution_unit": 3}, ""),
        ({"mode": "L", "compression": "tiff_lzw"}, "black and white"),
        ({"mode": "RGB", "compression": "jpeg"}, "black and white"),
        ({"compression": "tiff_lzw"}, "Group 3 or Group 4"),
        ({"size": (1700, 2200)}, "1728"),
        ({"dpi": (300, 300)}, "dots per inch"),
        ({"dpi": (0, 0)}, "dots per inch"),
    ],
)
def test_only_what_sendfax_sends_as_it_is_goes_on_the_line(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    if "resolution_unit" in changes:
        changes = {**changes, "tiffinfo": {296: 3, 282: 80.31, 283: 77.17}}
        del changes["resolution_unit"], changes["dpi"]
    fault = tiff.fault(saved(tmp_path / "page.tif", **changes))
    assert (words in fault) if words else fault == ""


def test_a_page_of_many_that_is_wrong_is_found(tmp_path: Path) -> None:
    path = tmp_path / "pages.tif"
    pages = [Image.new("1", (width, 2200), 1) for width in (1728, 1728, 1700)]
    options = {"compression": "group4", "dpi": (204, 196)}
    pages[0].save(path, "TIFF", save_all=True, append_images=pages[1:], **options)
    assert "1728" in tiff.fault(path)


def test_a_page_that_is_cut_off_is_found(tmp_path: Path) -> None:
    path = saved(tmp_path / "page.tif")
    path.write_bytes(path.read_bytes()[:-10])
    assert tiff.fault(path) == "it is not a whole TIFF"


@settings(deadline=None)
@given(data=st.data())
def test_no_damage_to_a_tiff_makes_the_check_fail_itself(
    data: st.DataObject, document: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(document.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.tif"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    assert isinstance(tiff.fault(path), str)


@pytest.mark.parametrize("content", [b"", b"II", b"no TIFF at all", b"%PDF-1.7", b"II*\0\0\0\0\0"])
def test_what_is_no_tiff_is_refused_before_anybody_is_called(
    manager: Manager, connect: Connect, folder: Path, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "document"
    path.write_bytes(content)
    with pytest.raises(Refused) as caught:
        connect().send(fax("+15550100100", path))
    assert caught.value.cause == "doc_unreadable"
    assert not manager.asked
    assert not list(folder.iterdir())
