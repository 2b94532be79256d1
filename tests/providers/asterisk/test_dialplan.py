"""What deploy/asterisk does on a real Asterisk: every call's end is said, kept and forgotten, and text stays text."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import parse_qsl, quote

import pytest

from faxbot.plugins.base import State
from faxbot.providers.asterisk.calls import Call
from tests.ground import Ground, eventually
from tests.providers.asterisk.manager import Manager, Message
from tests.providers.asterisk.packages import Tree
from tests.providers.asterisk.pages import assert_arrived, assert_readable, make_tiff
from tests.providers.asterisk.server import (
    HOSTILE_LINES,
    HOSTILE_NAME,
    HOSTILE_WORDS,
    AsteriskServer,
    FarEnd,
    hangs_up_after,
)
from tests.threads import side_by_side

Pair = tuple[AsteriskServer, AsteriskServer]
# All that manager_faxbot.conf lets through.
KNOWN = {
    *("FullyBooted", "Shutdown", "OriginateResponse", "UserEvent", "FAXStatus"),
    *("DialBegin", "DialState", "DialEnd", "Hangup", "HangupRequest"),
}


@pytest.fixture
def own_asterisk(ground: Ground, asterisk_tree: Tree) -> Iterator[AsteriskServer]:
    server = AsteriskServer(ground, asterisk_tree)
    server.start()
    yield server
    if server.process is not None:
        server.stop()


def dial(
    manager: Manager, tag: str, number: str, file: Path, trunk: str = "trunk", **words: str
) -> None:
    variables = {
        "FAXJOB_ID": tag,
        "FAXJOB_FILE": str(file),
        "FAXJOB_DEVICE": f"PJSIP/{trunk}",
        "CHANNEL(hangup_handler_push)": '"faxbot-send,cause,1"',
    }
    variables |= {f"FAXJOB_{name}": value for name, value in words.items()}
    manager.ask(
        "Originate",
        ("Channel", f"PJSIP/{number}@{trunk}"),
        *(("Context", "faxbot-send"), ("Exten", "send"), ("Priority", "1")),
        *(("Timeout", "5000"), ("Async", "true"), ("ChannelId", f"fax-{tag}")),
        *(("CallerID", '"${EPOCH}, <a>\\" <5550001111>'),),
        *(("Variable", f"{name}={value}") for name, value in variables.items()),
    )


def told(manager: Manager, tag: str, timeout: float = 90.0) -> str:
    """The Result of FaxbotResult, undecoded."""

    def is_it(message: Message) -> bool:
        return message.get("UserEvent") == "FaxbotResult" and message["JobID"] == tag

    return manager.wait(is_it, timeout)["Result"]


def cause(manager: Manager, tag: str) -> str:
    """The Q.850 cause of our channel's end."""

    def is_it(message: Message) -> bool:
        return message.get("Event") == "Hangup" and message["Uniqueid"] == f"fax-{tag}"

    return manager.wait(is_it)["Cause"]


def decoded(result: str) -> dict[str, str]:
    return dict(parse_qsl(result, keep_blank_values=True))


def forget(manager: Manager, tag: str) -> None:
    manager.ask(
        "Originate",
        *(("Channel", "Local/ack@faxbot-ack/n"), ("Application", "NoOp"), ("Async", "true")),
        ("Variable", f"__FAXJOB_ID={tag}"),
    )


# What each situation gives: number, variables; status or reason, and cause. The causes of answered calls tell nothing.
ANSWERED: dict[str, tuple[str, dict[str, str], dict[str, str]]] = {
    "audio": (
        FarEnd.FAX.line(60),
        {"OPTS": "F"},
        {"status": "SUCCESS", "pages": "2", "mode": "audio"},
    ),
    "t38": (FarEnd.FAX_T38.line(60), {}, {"status": "SUCCESS", "pages": "2", "mode": "T38"}),
    "slow": (
        FarEnd.FAX_NO_ECM.line(60),
        {"OPTS": "F", "SLOW": "yes", "ECM": "no"},
        {"status": "SUCCESS", "rate": "9600"},
    ),
    "wrong-file": (
        FarEnd.FAX.line(61),
        {"OPTS": "F", "FILE": "/nowhere.tif"},
        {"status": "FAILED", "error": "FILE_ERROR", "text": "error reading file"},
    ),
    "hangs-up": (
        hangs_up_after(9),
        {"OPTS": "F"},
        {"status": "FAILED", "text": "The call dropped prematurely"},
    ),
    "full": (FarEnd.CANNOT_STORE, {"OPTS": "F"}, {"status": "FAILED"}),
    "too-long": (FarEnd.FAX.line(62), {"OPTS": "F", "MAXSECS": "8"}, {"status": "FAILED"}),
    "limit": (FarEnd.FAX_T38.line(62), {"MAXSECS": "8"}, {"status": "FAILED", "mode": "T38"}),
}
# A tag is no beginning of another: Asterisk refuses a channel id that begins, up to a "-", like one in use.
UNANSWERED = {
    "busy": (FarEnd.BUSY, "0", {"17"}),
    "no-answer": (FarEnd.NO_ANSWER, "3", {"19", "0"}),
    "tone": (FarEnd.BUSY_TONE, "3", {"19", "0"}),
    "unallocated": (FarEnd.UNALLOCATED, "0", {"1"}),
    "congestion": (FarEnd.CONGESTION, "0", {"34"}),
    "rejected": (FarEnd.REJECTED, "0", {"21"}),
    "changed": (FarEnd.CHANGED, "0", {"22"}),
    "out-of-order": (FarEnd.OUT_OF_ORDER, "0", {"27"}),
    "network-out-of-order": (FarEnd.NETWORK_OUT_OF_ORDER, "0", {"38"}),
    "invalid": (FarEnd.INVALID, "0", {"28"}),
    "dead": (FarEnd.FAX.line(63), "3", {"19", "0"}),
}


def every_end_is_told_and_kept_until_it_is_acknowledged(asterisk: AsteriskServer) -> None:
    file = make_tiff(asterisk.documents / "two.tif", pages=2)
    with Manager(asterisk) as manager:
        for tag, (number, words, _) in ANSWERED.items():
            dial(manager, tag, number, file, **words)
        for tag, (number, *_) in UNANSWERED.items():
            dial(manager, tag, number, file, trunk="deadtrunk" if tag == "dead" else "trunk")
        dial(manager, "older", FarEnd.BUSY.line(64), file, DEVICE="")
        for tag, (_, _, expected) in ANSWERED.items():
            said = decoded(told(manager, tag))
            assert said | expected == said, tag
        for tag, (_, reason, causes) in UNANSWERED.items():
            said = decoded(told(manager, tag))
            assert said.pop("device") in ("NOT_INUSE", "INUSE", "RINGINUSE"), tag
            assert said == {"status": "UNANSWERED", "reason": reason}, tag
            assert cause(manager, tag) in causes, tag
            kept = decoded(asterisk.stored()[f"{tag}/cause"])
            assert kept["status"] == "UNANSWERED"
            assert kept["cause"] in causes, tag
            assert (kept["tech"] in ("180", "183")) == (reason == "3" and tag != "dead"), tag
        assert told(manager, "older") == "status=UNANSWERED&reason=0&device=", "says nothing of it"

        tags = [*ANSWERED, *UNANSWERED]
        whys = {f"{tag}/cause" for tag in UNANSWERED}
        stored = {tag: told(manager, tag) for tag in tags}
        entries = asterisk.stored()
        assert stored.items() <= entries.items()
        assert {key for key in entries if key.partition("/")[0] in tags} == {*tags, *whys}
        for tag in tags[1:]:
            forget(manager, tag)
        eventually(lambda: not {*tags[1:], *whys} & asterisk.stored().keys())
        assert tags[0] in asterisk.stored()
        forget(manager, tags[0])
        eventually(lambda: tags[0] not in asterisk.stored())

    for end in (FarEnd.FAX, FarEnd.FAX_T38):
        assert assert_arrived(file, asterisk.heard(end.line(60)).path) == [0, 0]
    assert_readable(file, asterisk.heard(FarEnd.FAX_NO_ECM.line(60)).path)


def said_again(manager: Manager, far: str, file: Path, words: dict[str, str]) -> str:
    """What the far end calls itself in another call: T.30 goes on without a frame that was not understood (CSI), as on
    a machine too busy for a modem."""
    dial(manager, "again", far, file, **words)
    remote = decoded(told(manager, "again"))["remote"]
    forget(manager, "again")
    return remote


def text_of_others_and_ours_stays_text(asterisk: AsteriskServer) -> None:
    file = make_tiff(asterisk.documents / "one.tif", resolution="standard")
    station = "a,b=c;)}${EPOCH}$[1]"
    words = {
        "OPTS": "F",
        "STATION": quote(station, safe=""),
        "HEADER": quote('A, "B" )}${EPOCH}\r\nAction: Logoff', safe=""),
    }
    lines, said = FarEnd.FAX_HOSTILE_LINES.line(3), FarEnd.FAX_HOSTILE_WORDS.line(3)
    with Manager(asterisk) as manager:
        dial(manager, "lines", lines, file, **words)
        dial(manager, "words", said, file, **words)
        assert decoded(told(manager, "lines"))["remote"] == HOSTILE_LINES
        remote = decoded(told(manager, "words"))["remote"]
        assert (remote or said_again(manager, said, file, words)) == HOSTILE_WORDS
        assert decoded(asterisk.stored()["lines"])["remote"] == HOSTILE_LINES
        assert cause(manager, "lines") == "16"
        assert cause(manager, "words") == "16"
        manager.ask("Ping")
        events = [message for message in manager.log if "Response" not in message]
        for tag in ("lines", "words"):
            forget(manager, tag)
    assert {message.get("Event") for message in events} <= KNOWN
    assert all(message["Privilege"] for message in events)  # nobody else's event has one
    ours = [message for message in events if "fax-lines" in message.values()]
    assert ours
    assert HOSTILE_NAME not in str(ours)
    for number in (lines, said):
        received = asterisk.heard(number)
        assert received.station == station
        assert received.caller == "5550001111"
        assert assert_arrived(file, received.path) == [16]


@pytest.mark.waits
def test_what_calls_say_is_told_and_kept_and_stays_text(
    asterisk: AsteriskServer, subtests: pytest.Subtests
) -> None:
    deeds = (
        every_end_is_told_and_kept_until_it_is_acknowledged,
        text_of_others_and_ours_stays_text,
    )
    side_by_side(subtests, {each.__name__: partial(each, asterisk) for each in deeds})


def test_no_name_is_not_a_result(asterisk: AsteriskServer) -> None:
    """An acknowledgement without an id leaves all results where they are."""
    with Manager(asterisk) as manager:
        dial(manager, "kept", FarEnd.UNALLOCATED, Path("/nowhere.tif"))
        told(manager, "kept")
        forget(manager, "")
        dial(manager, "last", FarEnd.UNALLOCATED, Path("/nowhere.tif"))
        told(manager, "last")
        assert {"kept", "last"} <= asterisk.stored().keys()
        forget(manager, "kept")
        forget(manager, "last")
        eventually(lambda: not {"kept", "last"} & asterisk.stored().keys())


def test_results_survive_a_restart_also_of_the_fax_that_it_interrupts(
    own_asterisk: AsteriskServer,
) -> None:
    file = make_tiff(own_asterisk.documents / "dense.tif", dense=True)
    with Manager(own_asterisk) as manager:
        dial(manager, "over", FarEnd.BUSY, file)
        dial(manager, "running", FarEnd.FAX, file, OPTS="F")
        told(manager, "over")
        manager.wait(lambda message: message.get("Status") == "FAX Transmission In Progress")
    own_asterisk.restart()
    stored = own_asterisk.stored()
    assert decoded(stored["over"])["status"] == "UNANSWERED"
    assert decoded(stored["over/cause"])["cause"] == "17"
    assert decoded(stored["running"])["text"] == "The call dropped prematurely"


@pytest.fixture
def near_and_far(ground: Ground, asterisk_tree: Tree) -> Iterator[Pair]:
    far = AsteriskServer(ground, asterisk_tree)
    near = AsteriskServer(ground, asterisk_tree, far=far, rtp_timeout=3)
    for server in (far, near):
        server.start()
    yield near, far
    far.kill9()
    near.stop()


def test_a_far_end_that_falls_silent_ends_the_call(near_and_far: Pair) -> None:
    near, far = near_and_far
    file = make_tiff(near.documents / "dense.tif", dense=True)
    with Manager(near) as manager:
        dial(manager, "silent", FarEnd.FAX, file, OPTS="F")
        manager.wait(lambda message: message.get("Status") == "FAX Transmission In Progress")
        far.freeze()
        assert decoded(told(manager, "silent"))["text"] == "The call dropped prematurely"
        assert cause(manager, "silent") == "44"


@pytest.mark.waits
def test_a_far_end_that_falls_silent_in_t38_ends_the_call_by_t30_s_own_time(
    near_and_far: Pair,
) -> None:
    """rtp_timeout does not see it. Some 15 seconds: T.30 asks three times what became of the page (T4)."""
    near, far = near_and_far
    file = make_tiff(near.documents / "silent.tif", pages=10)
    with Manager(near) as manager:
        dial(manager, "silent", FarEnd.FAX_T38, file)
        eventually(lambda: near.confirmed("silent"), 60, every=0.1)
        far.freeze()
        said = decoded(told(manager, "silent"))
    assert said["mode"] == "T38"
    end = Call("silent", answered=True, result=said).update()
    assert (end.state, end.cause) == (State.FAILED, "page_failed")
    assert (end.pages_sent or 0) in range(1, 10)


def test_the_account_may_not_do_what_faxbot_does_not_need(asterisk: AsteriskServer) -> None:
    with Manager(asterisk) as manager:
        for action in ("Command", "DBDel", "Reload", "GetConfig", "PJSIPShowEndpoints"):
            with pytest.raises(AssertionError, match="Permission denied"):
                manager.ask(action, ("Command", "core show version"))
        with pytest.raises(AssertionError, match="Originate Access Forbidden"):
            manager.ask(
                "Originate",
                *(("Channel", "Local/ack@faxbot-ack"), ("Application", "System")),
                ("Data", "true"),
            )
        manager.ask("CoreStatus")
