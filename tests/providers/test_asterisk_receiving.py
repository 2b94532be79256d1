"""Received faxes at the provider asterisk: what is believed of an event, a post and a path, and what is left alone."""

from __future__ import annotations

import io
import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faxbot.errors import AccountRefused, ProviderError, Refused, Unreachable
from faxbot.plugins.base import LARGEST_IN_MEMORY, Arrival, CallbackRequest, Health
from faxbot.providers.asterisk import Asterisk, spool
from faxbot.providers.asterisk.ami import connected
from faxbot.providers.asterisk.fitness import FUNCTIONS
from faxbot.providers.asterisk.receiving import ASKED_ABOUT, KEPT_WITHOUT_FILE, Receiving
from tests.ground import eventually
from tests.providers.ami import PASSWORD, Asked, Manager, dialplan, error, ok, text
from tests.providers.asterisk.ear import Ear, provider
from tests.rights import bound_by_modes

NAME, OTHER = "in-1795289227-530475496", "in-1795289228-100000001"
THIRD, FOURTH = "in-1795289229-100000002", "in-1795289230-100000003"
FROM, TO = "+15550001111", "+15550100900"
WHO = "from=%2B15550001111&to=%2B15550100900&begun=1795289227&channel=1795289227.6"
ARRIVED = f"status=SUCCESS&error=&text=OK&pages=2&mode=T38&remote=x&ended=1795289243&{WHO}"
DROPPED = (
    "status=FAILED&error=The%20call%20dropped%20prematurely&text=The%20call%20dropped%20prematurely"
    f"&pages=1&remote=x&ended=1795289243&{WHO}"
)
SECRET = "the-internal-secret-of-tests"
BOUNDARY = "----------------------------9d1f2c"


@pytest.fixture
def manager() -> Iterator[Manager]:
    made = Manager()
    yield made
    made.close()


@pytest.fixture
def received(tmp_path: Path) -> Path:
    made = tmp_path / "documents-received"
    made.mkdir()
    return made


@pytest.fixture
def this(manager: Manager, received: Path) -> Asterisk:
    folder = received.with_name("documents")
    return provider(port=manager.port, password=PASSWORD, folder=folder, inboundSecret=SECRET)


def arrives(received: Path, name: str = NAME) -> None:
    """Asterisk has written its pages."""
    (received / f"{name}.tif").write_bytes(b"II*\0")


def rings(manager: Manager, name: str, **more: str) -> None:
    fields = {"Event": "UserEvent", "UserEvent": "FaxbotReceived", "FaxID": name, **more}
    manager.tell(text(*fields.items()))


# Heard ------------------------------------------------------------------------------------------------


def test_an_event_is_a_bell_and_the_database_tells(
    manager: Manager, this: Asterisk, received: Path
) -> None:
    arrives(received)
    with Ear(this) as ear:
        rings(manager, OTHER, Result=ARRIVED)
        manager.received[NAME] = ARRIVED
        rings(manager, NAME, Result=DROPPED)
        arrival = ear.came(TO)
        assert (arrival.external_id, arrival.cause, arrival.pages) == (NAME, None, 2)
        assert arrival.sender.reveal() == FROM
        assert arrival.received_at is not None
        assert arrival.received_at.timestamp() == 1795289243
        eventually(lambda: NAME not in manager.received)
        rings(manager, NAME)
        rings(manager, "../../etc/passwd")
        manager.received[OTHER] = DROPPED
        rings(manager, OTHER)
        eventually(lambda: len(ear.arrivals) == 2)
    assert {each["Key"] for each in manager.of("DBGet")} == {NAME, OTHER}


def test_a_call_that_is_under_way_waits_and_one_that_nobody_ended_has_failed(
    manager: Manager, this: Asterisk, received: Path
) -> None:
    manager.received |= {NAME: f"status=BEGUN&{WHO}", OTHER: f"status=BEGUN&{WHO[:-1]}7"}
    manager.calls.add("1795289227.6")
    (received / f"{OTHER}.tif").write_bytes(b"II*\0")
    with Ear(this) as ear:
        arrival = ear.came(TO)
        assert (arrival.external_id, arrival.cause) == (OTHER, "system")
        eventually(lambda: OTHER not in manager.received)
    assert NAME in manager.received
    assert [each.name for each in received.iterdir()] == [f"{OTHER}.part.tif"]


def test_where_the_folder_is_elsewhere_faxes_are_left_to_who_hands_them_over(
    manager: Manager, this: Asterisk, received: Path
) -> None:
    received.rmdir()
    manager.received[NAME] = ARRIVED
    with Ear(this) as ear:
        rings(manager, NAME)
        eventually(lambda: manager.of("DBGetTree"))
        manager.database["t1"] = "status=SUCCESS&pages=1"
        rings(manager, NAME)
        manager.tell(text(("Event", "Hangup"), ("Uniqueid", "fax-t1"), ("Cause", "16")))
        ear.end("t1")
    assert not ear.arrivals
    assert NAME in manager.received


def test_a_fax_whose_file_is_not_there_is_told_of_and_left_to_who_may_hand_it_over(
    manager: Manager, this: Asterisk, received: Path
) -> None:
    """The folder is there, but empty: that of Asterisk is on another machine."""
    now = int(time.time())
    young, old = (
        ARRIVED.replace("1795289243", str(each))
        for each in (now - 60, now - int(KEPT_WITHOUT_FILE) - 60)
    )
    manager.received |= {NAME: young, OTHER: old, THIRD: DROPPED}
    with Ear(this) as ear:
        eventually(lambda: len(ear.arrivals) == 3)
        eventually(lambda: list(manager.received) == [NAME])
        rings(manager, NAME)
        eventually(lambda: manager.of("DBGet"))
        manager.received[FOURTH] = DROPPED
        rings(manager, FOURTH)
        eventually(lambda: FOURTH not in manager.received)
        assert list(manager.received) == [NAME]
        arrives(received)
        rings(manager, NAME)
        eventually(lambda: not manager.received)
    assert [each.external_id for each in ear.arrivals].count(NAME) == 1


def test_a_fax_in_a_folder_that_faxbot_may_not_enter_is_told_of_and_health_says_so(
    manager: Manager, this: Asterisk, received: Path
) -> None:
    received.with_name("documents").mkdir()
    manager.received |= {NAME: ARRIVED, THIRD: DROPPED}
    has_the_context(manager)
    manager.answers["Getvar"] = evaluated
    arrives(received)

    def told() -> Health:
        with Ear(this) as ear:
            eventually(lambda: len(ear.arrivals) == 2 or ear.error)
            eventually(lambda: THIRD not in manager.received)
        with pytest.raises(AccountRefused):
            had(this, NAME)
        return this.health()

    received.chmod(0o600)
    health = bound_by_modes(told)
    assert not health.ok
    assert "faxbot may not read ASTERISK_RECEIVED_FOLDER" in health.detail
    assert list(manager.received) == [NAME], "who cannot tell keeps it"
    received.chmod(0o700)
    with Ear(this):
        eventually(lambda: not manager.received)
    assert this.health().ok


def test_a_fax_in_a_folder_below_what_faxbot_may_not_enter_is_told_of_and_health_says_so(
    manager: Manager, this: Asterisk, received: Path
) -> None:
    """Nobody would hear of it else: it is not handed over, and the listener lives."""
    has_the_context(manager)
    manager.answers["Getvar"] = evaluated
    manager.received[NAME] = ARRIVED

    def told() -> Health:
        with Ear(this) as ear:
            eventually(lambda: ear.arrivals or ear.error)
        assert [each.external_id for each in ear.arrivals] == [NAME]
        with pytest.raises(AccountRefused):
            had(this, NAME)
        return this.health()

    received.parent.chmod(0o600)
    try:
        health = bound_by_modes(told)
    finally:
        received.parent.chmod(0o700)
    assert not health.ok
    assert "faxbot may not read ASTERISK_RECEIVED_FOLDER" in health.detail
    assert NAME in manager.received


def test_a_fax_that_was_fetched_before_it_was_acknowledged_has_its_entry_deleted(
    manager: Manager, this: Asterisk, received: Path
) -> None:
    manager.received[NAME] = ARRIVED
    arrives(received)
    with connected(this._login) as ami:
        receiving = Receiving(this._spool, logging.getLogger("test"))
        receiving.ask(ami, all_of_them=True)
        (notice,) = receiving.notices(0.0, 1.0)
        this.taken(NAME)
        notice.acknowledge()
        receiving.ask(ami, all_of_them=False)
    assert not manager.received


def test_a_dialplan_that_deletes_nothing_is_told_of_once(
    manager: Manager, this: Asterisk, received: Path
) -> None:
    arrives(received)
    manager.answers["Originate"] = error("Extension does not exist.")
    manager.received[NAME] = ARRIVED
    with Ear(this) as ear:
        arrival = ear.came(TO)
        for _ in range(3):
            rings(manager, NAME)
        eventually(lambda: manager.of("Originate"))
        assert ear.arrivals == [arrival]


def test_what_was_set_aside_goes_after_a_month_and_no_document_ever_does(
    manager: Manager, this: Asterisk, received: Path
) -> None:
    old = [f"{NAME}.part.tif", f"{NAME}.tif", "in-1.part.tif", "theirs.part.tif", "theirs.tif"]
    for name in (*old, f"{OTHER}.part.tif"):
        (received / name).touch()
    for name in old:
        os.utime(received / name, (1, 1))
    with Ear(this):
        eventually(lambda: not (received / old[0]).exists())
    assert manager.of("DBGetTree")
    assert {each.name for each in received.iterdir()} == {*old[1:], f"{OTHER}.part.tif"}
    assert spool.PART_KEPT == 30 * 86_400


# Documents --------------------------------------------------------------------------------------------


def had(this: Asterisk, name: str) -> bytes:
    target = io.BytesIO()
    this.document(name, target)
    return target.getvalue()


def test_a_document_is_had_again_and_again_until_it_is_taken(
    this: Asterisk, received: Path
) -> None:
    (received / f"{NAME}.tif").write_bytes(b"II*\0 pages")
    (received / "theirs.tif").write_bytes(b"II*\0")
    assert had(this, NAME) == had(this, NAME) == b"II*\0 pages"
    this.taken(NAME)
    this.taken(NAME)
    with pytest.raises(Unreachable):
        had(this, NAME)
    assert [each.name for each in received.iterdir()] == ["theirs.tif"]


def test_a_folder_that_is_not_there_is_for_a_person_to_mend_and_hides_what_may_lie_in_it(
    this: Asterisk, received: Path
) -> None:
    received.rmdir()
    with pytest.raises(AccountRefused):
        had(this, NAME)
    with pytest.raises(AccountRefused):
        taken_out(this, hook(received))
    this.taken(NAME)  # it was handed over
    folder = received.with_name("documents")
    alone = provider(port=9, password=PASSWORD, folder=folder)
    named = {"inboundSecret": SECRET, "receivedFolder": str(received)}
    posted_to = provider(port=9, password=PASSWORD, folder=folder, **named)
    for each in (alone, posted_to):
        with pytest.raises(AccountRefused):
            each.taken(NAME)


NO_FAX = (
    *("", "..", "-x", "../documents/x.tif", f"{NAME}/../x.tif", f"x/{NAME}"),
    *("x/.tif", "x/a b.tif", "x/y.pdf", f"{NAME}\n"),
)


@pytest.mark.parametrize("name", NO_FAX)
def test_what_names_no_received_fax_is_refused_and_touches_nothing(
    this: Asterisk, received: Path, name: str
) -> None:
    (received / "a b.tif").touch()
    with pytest.raises(Refused):
        had(this, name)
    this.taken(name)
    assert (received / "a b.tif").exists()


def test_a_link_is_no_document(this: Asterisk, received: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"II*\0 secret")
    (received / f"{NAME}.tif").symlink_to(tmp_path / "secret")
    os.mkfifo(received / f"{OTHER}.tif")
    for name in (NAME, OTHER):
        with pytest.raises((Unreachable, AccountRefused)):
            had(this, name)
    this.taken(NAME)
    assert (tmp_path / "secret").exists()


# Posted -----------------------------------------------------------------------------------------------


def post(body: bytes, kind: str = "application/json", file: Path | None = None) -> CallbackRequest:
    headers = {"content-type": kind, "x-internal-secret": SECRET}
    url = "https://fax.example.com/_internal/asterisk/inbound"
    return CallbackRequest("POST", url, headers, b"" if file else body, file)


def hook(received: Path, **changes: Any) -> CallbackRequest:
    said: dict[str, Any] = {
        "tiff_path": str(received / "fax-7.tif"),
        "to_number": TO,
        "from_number": FROM,
        "faxstatus": "SUCCESS",
        "faxpages": 2,
        "uniqueid": "1795289227.4",
        **changes,
    }
    return post(
        json.dumps({name: each for name, each in said.items() if each is not None}).encode()
    )


def read(this: Asterisk, request: CallbackRequest) -> Arrival:
    (arrival,) = this.read_callback(request)
    assert isinstance(arrival, Arrival)
    return arrival


def test_what_an_earlier_faxbot_s_dialplan_posts_is_a_fax_with_its_file(
    this: Asterisk, received: Path
) -> None:
    (received / "fax-7.tif").write_bytes(b"II*\0")
    arrival = read(this, hook(received))
    assert arrival == read(this, hook(received)), "a repeat has the same name"
    assert (arrival.external_id, arrival.attached) == ("1795289227.4", True)
    assert (arrival.pages, arrival.cause) == (2, None)
    assert (arrival.sender.reveal(), arrival.recipient.reveal()) == (FROM, TO)
    for _ in range(2):
        assert taken_out(this, hook(received)) == had(this, arrival.external_id) == b"II*\0"
    this.taken(arrival.external_id)
    assert not list(received.iterdir())


def taken_out(this: Asterisk, request: CallbackRequest) -> bytes:
    target = io.BytesIO()
    this.attached(request, target)
    return target.getvalue()


def test_a_callers_number_that_names_his_file_is_in_no_name_and_told_apart_from_his_next(
    this: Asterisk, received: Path
) -> None:
    path = received / f"{FROM.removeprefix('+')}.tif"
    calls = [hook(received, tiff_path=str(path), uniqueid=f"1795289227.{n}") for n in (4, 5)]
    names = [read(this, each).external_id for each in calls]
    assert names == ["1795289227.4", "1795289227.5"]
    for request, content in zip(calls, (b"II*\0 one", b"II*\0 two"), strict=True):
        path.write_bytes(content)
        assert taken_out(this, request) == content
    assert [taken_out(this, each) for each in calls] == [b"II*\0 one", b"II*\0 two"]
    path.write_bytes(b"II*\0 three")
    assert taken_out(this, calls[0]) == b"II*\0 one", "the third one is not his first"
    this.taken(names[0])
    assert had(this, names[1]) == b"II*\0 two"
    assert {each.name for each in received.iterdir()} == {path.name, "call-1795289227.5.tif"}


def test_what_an_earlier_version_noted_is_had_and_let_go_by_its_files_name(
    this: Asterisk, received: Path
) -> None:
    (received / "fax-7.tif").write_bytes(b"II*\0")
    assert had(this, "1795289227.4/fax-7.tif") == had(this, "fax-7/fax-7.tif") == b"II*\0"
    this.taken("1795289227.4/fax-7.tif")
    assert not list(received.iterdir())


def test_a_file_that_is_not_there_yet_is_none_and_one_that_cannot_be_taken_is_for_a_person(
    this: Asterisk, received: Path
) -> None:
    with pytest.raises(Refused):
        taken_out(this, hook(received))
    (received / "fax-7.tif").mkdir()
    with pytest.raises(AccountRefused):
        taken_out(this, hook(received))


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"faxstatus": "FAILED", "faxpages": 1}, "page_failed"),
        ({"faxstatus": "FAILED", "faxpages": 0}, "dropped_early"),
        ({"faxstatus": "", "faxpages": ""}, "dropped_early"),
        ({"faxpages": 0}, "doc_empty"),
        ({"faxpages": "3"}, None),
        ({"faxstatus": None, "faxpages": None}, None),
    ],
)
def test_a_fax_that_failed_is_no_document(
    this: Asterisk, received: Path, changes: dict[str, Any], cause: str | None
) -> None:
    assert read(this, hook(received, **changes)).cause == cause


def test_a_path_that_leads_out_of_the_folder_is_refused(
    this: Asterisk, received: Path, tmp_path: Path
) -> None:
    (tmp_path / "x.tif").touch()
    (received / "link.tif").symlink_to(tmp_path / "x.tif")
    (received / "loop.tif").symlink_to(received / "loop.tif")
    (received / "below").mkdir()
    (received / "x.pdf").touch()
    outside = ("/etc/passwd", "x.tif", "", "\0", str(tmp_path / "x.tif"))
    inside = ("../x.tif", "link.tif", "loop.tif", "below/x.tif", "../documents/x.tif", "x.pdf", "")
    for path in (*outside, *(f"{received}/{each}" for each in inside)):
        with pytest.raises(Refused):
            read(this, hook(received, tiff_path=path))


def test_a_hook_that_is_none_is_refused(this: Asterisk, received: Path) -> None:
    for changes in (
        {"uniqueid": None},
        {"uniqueid": ""},
        {"uniqueid": "a b"},
        {"uniqueid": "x" * 101},
        {"faxstatus": ["SUCCESS"]},
        {"to_number": "1" * 9000},
    ):
        with pytest.raises(Refused):
            read(this, hook(received, **changes))


def form(file: bytes | None, **fields: str) -> bytes:
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    if file is not None:
        head = 'Content-Disposition: form-data; name="file"; filename="fax.tif"\r\nContent-Type: image/tiff'
        parts.append(f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + file + b"\r\n")
    return b"".join([*parts, f"--{BOUNDARY}--\r\n".encode()])


KIND = f"multipart/form-data; boundary={BOUNDARY}"


def test_a_large_file_is_taken_out_of_the_form_piece_by_piece(
    this: Asterisk, tmp_path: Path
) -> None:
    content = os.urandom(3 * LARGEST_IN_MEMORY)
    body = tmp_path / "body"
    body.write_bytes(form(content, uniqueid=NAME, result=ARRIVED))
    request = post(b"", KIND, body)
    arrival = read(this, request)
    assert (arrival.external_id, arrival.attached, arrival.pages) == (NAME, True, 2)
    target = io.BytesIO()
    this.attached(request, target)
    assert target.getvalue() == content


def test_a_form_with_plain_fields_is_understood_too(this: Asterisk) -> None:
    fields = {
        "to_number": TO,
        "from_number": FROM,
        "faxstatus": "SUCCESS",
        "faxpages": "1",
        "uniqueid": "pbx7-1.2",
    }
    arrival = read(this, post(form(b"II*\0", **fields), KIND))
    assert (arrival.external_id, arrival.attached, arrival.sender.reveal()) == (
        "pbx7-1.2",
        True,
        FROM,
    )
    failed = read(this, post(form(b"II*\0", uniqueid=NAME, result=DROPPED), KIND))
    assert (failed.cause, failed.attached, failed.pages) == ("page_failed", False, 1)


@pytest.mark.parametrize(
    "body",
    [
        form(b"II*\0", result=ARRIVED),
        form(b"II*\0", uniqueid="../x", result=ARRIVED),
        form(b"II*\0", uniqueid="pbx7-1.2", result=ARRIVED),
        form(b"II*\0", uniqueid=NAME, result="no result"),
        form(b"II*\0", uniqueid=NAME, result=ARRIVED)[:-20],
        form(b"II*\0", uniqueid=NAME, to_number="1" * 9000),
        b"",
        b"--",
    ],
)
def test_a_form_that_is_none_is_refused(this: Asterisk, body: bytes) -> None:
    with pytest.raises(Refused):
        read(this, post(body, KIND))


def test_a_form_that_is_cut_off_gives_no_document(this: Asterisk) -> None:
    whole = form(b"II*\0" + bytes(5000), uniqueid=NAME, result=ARRIVED)
    for body in (whole[:-200], form(None, uniqueid=NAME, result=ARRIVED)):
        with pytest.raises(Refused):
            this.attached(post(body, KIND), io.BytesIO())


@given(
    st.binary(max_size=300),
    st.sampled_from(
        [KIND, "application/json", "", "multipart/form-data", "multipart/form-data; boundary="]
    ),
)
def test_whatever_is_posted_is_a_fax_or_refused(body: bytes, kind: str) -> None:
    one = provider(folder="/nowhere/at/all", password=PASSWORD)
    for content in (body, form(body, uniqueid=NAME)):
        try:
            assert isinstance(read(one, post(content, kind)), Arrival)
        except ProviderError:
            continue


def test_only_who_knows_the_secret_posts(this: Asterisk, received: Path) -> None:
    request = hook(received)
    assert this.verify_callback(request)
    assert not this.verify_callback(replace(request, headers={}))
    for wrong in ("", SECRET[:-1], f"{SECRET}x", "\xff"):
        assert not this.verify_callback(replace(request, headers={"x-internal-secret": wrong}))
    without = provider(folder="/nowhere/at/all", password=PASSWORD)
    for headers in ({}, {"x-internal-secret": ""}):
        assert not without.verify_callback(CallbackRequest("POST", "", headers, b"{}"))


# Fitness ----------------------------------------------------------------------------------------------


def test_what_keeps_it_from_receiving_is_said_and_is_no_fault(
    manager: Manager, this: Asterisk, received: Path
) -> None:
    received.with_name("documents").mkdir()
    for words in ("the dialplan lacks faxbot-receive", "load the module that has FILTER"):
        health = this.health()
        assert health.ok
        assert f"It receives none: {words}" in health.detail
        has_the_context(manager)
    received.rmdir()
    manager.answers["Getvar"] = evaluated
    assert "ASTERISK_RECEIVED_FOLDER is not there" in this.health().detail
    received.mkdir()
    now = int(time.time())
    lately, before = (
        ARRIVED.replace("1795289243", str(each)) for each in (now - 60, now - int(ASKED_ABOUT) - 60)
    )
    # Who was received while its listener was killed has its entry for a month.
    manager.received |= {NAME: lately, FOURTH: before}
    manager.received |= {OTHER: DROPPED, THIRD: f"status=BEGUN&{WHO}"}
    health = this.health()
    assert health.ok
    assert "files are not in ASTERISK_RECEIVED_FOLDER: 1." in health.detail
    arrives(received)
    assert this.health() == Health(True, "Asterisk has all that a fax needs.")


def has_the_context(manager: Manager) -> None:
    lines = (("receive", "ReceiveFAX", ""),)
    manager.answers["ShowDialPlan"] = lambda asked: (
        dialplan(lines) if asked["Context"] == "faxbot-receive" else None
    )


def evaluated(asked: Asked) -> list[str]:
    return ok(("Value", FUNCTIONS.get(asked["Variable"], "0")))
