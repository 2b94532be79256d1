"""The stand-in Sinch as a process: its webhooks by the vendor's files, its control door, and how it starts."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import signal
import stat
import subprocess
import sys
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner

from faxbot.carriers.door import Request
from faxbot.carriers.ledger import Ledger
from faxbot.carriers.pages import blank_pdf
from faxbot.carriers.sinch.access import Access, Account
from faxbot.carriers.sinch.carrier import Carrier
from faxbot.carriers.sinch.numbers import OUTCOMES, TYPES
from faxbot.carriers.sinch.routes import Incoming, Routes
from faxbot.carriers.sinch.submission import JSON, MULTIPART
from faxbot.carriers.sinch.teller import REPOST_SECONDS, Times
from faxbot.cli import cli
from tests.callbacks import Callback, Receiver
from tests.ground import BUSY, eventually
from tests.sinch_carrier import (
    KEY,
    PDF,
    PROJECT,
    SECRET,
    SinchProcess,
    ask_for_token,
    call,
    content_of,
    ended,
    event_of,
    fax_of,
    get,
    hook,
    parts,
    posted,
    send,
    vendor_message,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SinchProcess]:
    with SinchProcess(tmp_path_factory.mktemp("sinch"), late_seconds=2) as started:
        yield started


@pytest.fixture
def carrier(process: SinchProcess) -> Iterator[SinchProcess]:
    yield process
    process.usual_moods()


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SinchProcess]:
    """A page takes a while, so that what is on its way can be seen."""
    with SinchProcess(tmp_path_factory.mktemp("slow"), page_seconds=0.4) as process:
        yield process


# webhooks


def test_the_end_is_posted_as_multipart_like_the_vendors(
    carrier: SinchProcess, receiver: Receiver, tag: str
) -> None:
    fields: dict[str, Any] = {
        "labels__faxbot": tag,
        "callbackUrl": hook(receiver, tag),
        "maxRetries": "0",
    }
    fax_id = send(carrier, **fields).json()["id"]
    (callback,) = eventually(lambda: posted(receiver, tag))
    _, headers, body = vendor_message("webhooks/completed_multipart.http")
    shape = parts(Callback(type(callback.request)("POST", "/", headers, body), 0.0))
    got = parts(callback)

    assert callback.request.headers["authorization"] == headers["authorization"]
    assert callback.request.url == f"/callbacks/sinch?attempt={tag}&token=t"
    assert list(got) == list(shape)
    for name, part in shape.items():
        assert part.get("content-type") == got[name].get("content-type"), name
        assert part.get_filename() == got[name].get_filename()
    assert event_of(callback) == "FAX_COMPLETED"
    assert content_of(got["file"]) == PDF
    expected = json.loads(content_of(shape["fax"]))
    assert fax_of(callback).keys() == expected.keys()
    assert fax_of(callback) == get(carrier, fax_id)


def test_the_end_is_posted_as_json_where_that_is_asked_for(
    carrier: SinchProcess, receiver: Receiver, tag: str
) -> None:
    for document, name in (
        ("files", "webhooks/completed_json_files.http"),
        ("file", "webhooks/completed_json_file.http"),
        ("none", "webhooks/completed_json_no_file.http"),
    ):
        carrier.moods(document=document)
        label = f"{tag}-{document}"
        fields: dict[str, Any] = {
            "labels__faxbot": label,
            "callbackUrlContentType": JSON,
            "maxRetries": "0",
        }
        send(carrier, callbackUrl=hook(receiver, label), **fields)
        (callback,) = eventually(lambda label=label: posted(receiver, label))  # type: ignore[misc]
        _, headers, body = vendor_message(name)
        shape = json.loads(body)
        assert callback.request.headers["content-type"] == headers["content-type"]
        assert callback.content.keys() == shape.keys()
        assert callback.content["fax"].keys() == shape["fax"].keys()
        files = callback.content.get("files", [callback.content])
        encoded = {each["file"]: each["fileType"] for each in files if "file" in each}
        assert encoded == ({} if document == "none" else {base64.b64encode(PDF).decode(): "PDF"})


def test_an_event_has_json_quotes_where_that_is_wished(
    carrier: SinchProcess, receiver: Receiver, tag: str
) -> None:
    carrier.moods(event="quoted")
    send(carrier, callbackUrl=hook(receiver, tag))
    (callback,) = eventually(lambda: posted(receiver, tag))
    assert event_of(callback) == '"FAX_COMPLETED"'
    assert parts(callback)["event"]["content-type"] == JSON


def test_a_failure_is_posted_as_completed_too(
    carrier: SinchProcess, receiver: Receiver, tag: str
) -> None:
    send(carrier, "+15550102034", callbackUrl=hook(receiver, tag))
    (callback,) = eventually(lambda: posted(receiver, tag))
    fax = fax_of(callback)
    assert event_of(callback) == "FAX_COMPLETED"
    assert (fax["status"], fax["errorType"], fax["errorCode"]) == ("FAILURE", "CALL_ERROR", 34)


def test_news_on_the_way_comes_only_where_it_is_asked_for(
    slow: SinchProcess, receiver: Receiver, tag: str
) -> None:
    send(slow, callbackUrl=hook(receiver, tag), inProgressNotifications="true")
    quiet = f"{tag}-quiet"
    send(slow, callbackUrl=hook(receiver, quiet))
    eventually(lambda: "FAX_COMPLETED" in [event_of(each) for each in posted(receiver, quiet)])
    eventually(lambda: len(posted(receiver, tag)) == 4)
    events = sorted(event_of(each) for each in posted(receiver, tag))
    assert events == ["FAX_COMPLETED"] + ["FAX_IN_PROGRESS"] * 3
    assert len(posted(receiver, quiet)) == 1


def test_callbacks_come_twice_late_never_or_in_the_wrong_order(
    carrier: SinchProcess, receiver: Receiver, tag: str
) -> None:
    ids = {}
    for ending in ("0510", "0022", "0033", "0044", "0066"):
        number, label = f"+1555010{ending}", f"{tag}-{ending}"
        try:
            answer = send(carrier, number, callbackUrl=hook(receiver, label), timeout=1)
        except requests.RequestException:
            continue
        ids[ending] = answer.json()["id"]
    for fax_id in ids.values():
        ended(carrier, fax_id)
    assert posted(receiver, f"{tag}-0033") == [], "it is late"
    eventually(lambda: len(posted(receiver, f"{tag}-0022")) == 2)
    eventually(lambda: len(posted(receiver, f"{tag}-0033")) == 1)
    eventually(lambda: len(posted(receiver, f"{tag}-0066")) == 2)

    statuses = [fax_of(each)["status"] for each in posted(receiver, f"{tag}-0066")]
    assert statuses == ["COMPLETED", "IN_PROGRESS"]
    one, two = posted(receiver, f"{tag}-0022")
    assert fax_of(one) == fax_of(two)
    assert posted(receiver, f"{tag}-0044") == posted(receiver, f"{tag}-0510") == []


def test_a_callback_may_lie_and_a_read_may_be_behind(
    carrier: SinchProcess, receiver: Receiver, tag: str
) -> None:
    lied, behind = f"{tag}-0077", f"{tag}-0078"
    false_id = send(carrier, "+15550100077", callbackUrl=hook(receiver, lied)).json()["id"]
    late_id = send(carrier, "+15550100078", callbackUrl=hook(receiver, behind)).json()["id"]
    (callback,) = eventually(lambda: posted(receiver, behind))
    assert fax_of(callback)["status"] == "COMPLETED"
    assert get(carrier, late_id)["status"] == "IN_PROGRESS"
    (callback,) = eventually(lambda: posted(receiver, lied))

    assert (fax_of(callback)["status"], "errorType" in fax_of(callback)) == ("COMPLETED", False)
    assert get(carrier, false_id)["status"] == "FAILURE"
    assert ended(carrier, late_id)["status"] == "COMPLETED"


def test_a_webhook_that_is_not_taken_is_posted_again_sixteen_times(tmp_path: Path) -> None:
    assert [wait / 60 for wait in REPOST_SECONDS] == [5, 10, 20, 30] + [360] * 12
    with Receiver(*[500] * 100) as receiver, SinchProcess(tmp_path, scale=1e-6) as carrier:
        send(carrier, callbackUrl=hook(receiver, "again"), labels__faxbot="again")
        eventually(lambda: carrier.faxes("again")[0]["told"])
        assert len(posted(receiver, "again")) == 17
        assert len({each.request.body for each in posted(receiver, "again")}) == 1


def test_a_webhook_is_posted_again_after_its_wait_until_it_is_taken(tmp_path: Path) -> None:
    with Receiver(500, 404) as receiver, SinchProcess(tmp_path, scale=0.001) as carrier:
        send(carrier, callbackUrl=hook(receiver, "again"), labels__faxbot="again")
        eventually(lambda: carrier.faxes("again")[0]["told"])
        first, second, third = posted(receiver, "again")
        assert second.at - first.at > 0.29
        assert third.at - second.at > 0.59


def test_what_was_taken_outlives_a_kill_and_goes_on(tmp_path: Path) -> None:
    with Receiver() as receiver, SinchProcess(tmp_path, page_seconds=0.3) as carrier:
        fields: dict[str, Any] = {"callbackUrl": hook(receiver, "k"), "labels__faxbot": "k"}
        fax_id = send(carrier, "+15550109999", **fields).json()["id"]
        carrier.end(signal.SIGKILL)
        carrier.start()
        assert get(carrier, fax_id)["to"] == "+15550109999"
        (callback,) = eventually(lambda: posted(receiver, "k"))
        assert fax_of(callback)["status"] == "COMPLETED"
        eventually(lambda: carrier.faxes("k")[0]["told"])
        assert call("GET", f"{carrier.api}/faxes/{fax_id}/file").content == PDF
        for file in tmp_path.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600


# what can be asked for at its control door


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (MULTIPART, "webhooks/incoming_multipart.http"),
        (JSON, "webhooks/incoming_json.http"),
    ],
)
def test_a_fax_comes_in(
    carrier: SinchProcess, receiver: Receiver, tag: str, kind: str, name: str
) -> None:
    fax_id = carrier.control(
        "POST",
        "receive",
        {
            "from": "+14155552222",
            "to": "+14155553333",
            "callbackUrl": hook(receiver, tag),
            "contentType": kind,
        },
    )["id"]
    (callback,) = eventually(lambda: posted(receiver, tag))
    _, headers, body = vendor_message(name)
    shape = Callback(type(callback.request)("POST", "/", headers, body), 0.0)

    assert event_of(callback) == "INCOMING_FAX"
    assert callback.request.headers["authorization"] == headers["authorization"]
    if kind == JSON:
        assert callback.content.keys() == shape.content.keys()
        document = base64.b64decode(callback.content["file"])
    else:
        assert list(parts(callback)) == list(parts(shape))
        document = content_of(parts(callback)["file"])
    assert document == call("GET", f"{carrier.api}/faxes/{fax_id}/file").content == blank_pdf(1)
    assert fax_of(shape).keys() <= fax_of(callback).keys()
    words = ("direction", "from", "to", "status", "numberOfPages")
    assert [fax_of(callback)[word] for word in words] == [fax_of(shape)[word] for word in words]
    assert get(carrier, fax_id)["direction"] == "INBOUND"
    assert carrier.counts()["by_status"], "and what came in is no submission:"
    assert fax_id not in [entry["id"] for entry in carrier.faxes()]


def test_a_fax_that_fails_to_come_in_is_posted_as_such_to_the_services_address(
    tmp_path: Path,
) -> None:
    with Receiver() as receiver:
        url = hook(receiver, "in")
        with SinchProcess(tmp_path, incoming_url=url, incoming_type=JSON) as carrier:
            wish = {"from": "+14155552222", "to": "+14155553333", "errorType": "FAX_ERROR"}
            error = {"errorCode": 117, "errorMessage": "No pages received"}
            carrier.control("POST", "receive", {**wish, **error})
            (callback,) = eventually(lambda: posted(receiver, "in"))
    shape = json.loads(vendor_message("webhooks/incoming_json_failed.http")[2])

    assert callback.content.keys() == shape.keys()
    for name in ("status", "numberOfPages", "errorType", "errorCode", "errorMessage"):
        assert callback.content["fax"][name] == shape["fax"][name]


def test_a_document_of_ones_own_comes_in(carrier: SinchProcess, receiver: Receiver) -> None:
    document = base64.b64encode(PDF).decode()
    numbers = {"from": "+14155552222", "to": "+14155553333", "pages": 3, "file": document}
    wish = {**numbers, "callbackUrl": hook(receiver, "own")}
    fax_id = carrier.control("POST", "receive", wish)["id"]
    assert call("GET", f"{carrier.api}/faxes/{fax_id}/file").content == PDF
    assert get(carrier, fax_id)["numberOfPages"] == 3


def test_requests_to_come_are_answered_as_wished(carrier: SinchProcess) -> None:
    fax_id = send(carrier).json()["id"]
    carrier.misbehave("internal", method="GET", path=f"faxes/{fax_id}", times=2)
    carrier.misbehave("throttled", path="token")
    carrier.misbehave("drop", method="GET", path="faxes")
    url = f"{carrier.api}/faxes/{fax_id}"

    assert [call("GET", url).status_code for _ in range(3)] == [500, 500, 200]
    assert [ask_for_token(carrier).status_code for _ in range(2)] == [429, 200]
    with pytest.raises(requests.ConnectionError):
        call("GET", f"{carrier.api}/faxes")
    assert call("GET", f"{carrier.api}/faxes").status_code == 200


def test_a_webhook_is_posted_again_with_lies_and_elsewhere(
    carrier: SinchProcess, receiver: Receiver, tag: str
) -> None:
    fax_id = send(carrier).json()["id"]
    ended(carrier, fax_id)
    wish = {"id": fax_id, "url": hook(receiver, tag), "contentType": JSON, "event": "FAX_ODD"}
    carrier.control("POST", "webhook", {**wish, "fax": {"status": "FAILURE", "id": "another"}})
    (callback,) = eventually(lambda: posted(receiver, tag))

    assert callback.content["event"] == "FAX_ODD"
    assert (fax_of(callback)["status"], fax_of(callback)["id"]) == ("FAILURE", "another")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        carrier.control("POST", "webhook", {"id": "none"})


@pytest.mark.parametrize(
    ("path", "wish"),
    [
        ("misbehave", {"answer": "nonsense"}),
        ("misbehave", {"answer": "drop", "times": 0}),
        ("misbehave", {"answer": "drop", "often": 3}),
        ("misbehave", []),
        ("moods", {"errors": "angry"}),
        ("moods", {"temper": "bad"}),
        ("moods", [1]),
        ("receive", {"from": "+14155552222"}),
        ("receive", {"from": "+14155552222", "to": "x"}),
        ("receive", {"from": "+14155552222", "to": "+14155553333", "page": 2}),
        ("receive", {"from": "+14155552222", "to": "+14155553333", "file": "?"}),
        ("webhook", {"ID": "x"}),
    ],
)
def test_a_wish_that_is_not_understood_is_refused(
    carrier: SinchProcess, path: str, wish: Any
) -> None:
    with pytest.raises(urllib.error.HTTPError, match="422"):
        carrier.control("POST", path, wish)


def test_the_control_door_is_for_this_machine_only(tmp_path: Path) -> None:
    account = Account(PROJECT, KEY, SECRET)
    carrier = Carrier(Ledger(tmp_path / "sinch.db"), account, Times(0, 0, 0))
    routes = Routes(carrier, Access(account, 60), PROJECT, Incoming("", MULTIPART))
    statuses = {
        routes(Request("GET", path, {}, {}, b"", local=False)).status
        for path in ("/control/ledger", "/control/health")
    }
    here = routes(Request("GET", "/control/ledger", {}, {}, b"", local=True)).status
    carrier.close()

    assert (statuses, here) == ({404}, 200)


def test_the_ledger_counts_every_submission_of_a_label(carrier: SinchProcess, tag: str) -> None:
    before = carrier.counts()
    for _ in range(2):
        send(carrier, "+15550107777", labels__faxbot=tag)
    send(carrier, "+15550100500", labels__faxbot=tag)
    send(carrier, "+15550107777", labels__faxbot=tag, maxRetries="9")
    one, two = carrier.faxes(tag)
    after = carrier.counts()

    assert (one["submissions"], two["submissions"]) == (4, 4)
    assert one["to_key"] == two["to_key"]
    assert one["sha256"] == hashlib.sha256(PDF).hexdigest()
    assert one["pages"] == 3
    assert after["tags_accepted_twice"] == before["tags_accepted_twice"] + 1
    assert after["refused"] == before["refused"] + 2


# starting


def test_the_command_starts_it(tmp_path: Path) -> None:
    environ = {
        "PATH": "/usr/bin:/bin",
        "FAX_DATA_DIR": str(tmp_path),
        "SINCH_PROJECT_ID": PROJECT,
        "SINCH_API_KEY": KEY,
        "SINCH_API_SECRET": SECRET,
    }
    command = [str(Path(sys.executable).with_name("faxbot")), "carrier", "sinch", "--port", "0"]
    with subprocess.Popen(
        command, env=environ, cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("sinch carrier: listening on http://127.0.0.1:")
            api = f"{line.rsplit(' ', 1)[1].strip()}/v3/projects/{PROJECT}"
            assert call("GET", f"{api}/services").status_code == 200
        finally:
            process.terminate()
        assert process.wait(10 * BUSY) == 0
    assert [file.name for file in tmp_path.iterdir()] == ["sinch.db"]


@pytest.mark.parametrize("missing", ["SINCH_PROJECT_ID", "SINCH_API_KEY", "SINCH_API_SECRET"])
def test_without_project_key_or_secret_it_does_not_start(tmp_path: Path, missing: str) -> None:
    names = ("SINCH_PROJECT_ID", "SINCH_API_KEY", "SINCH_API_SECRET")
    environ = {name: None if name == missing else "x" for name in names}
    result = CliRunner().invoke(
        cli,
        ["carrier", "sinch", "--port", "0"],
        env={**environ, "FAX_DATA_DIR": str(tmp_path)},
    )
    assert result.exit_code == 1
    assert "SINCH_API_SECRET" in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_the_page_has_every_test_number() -> None:
    page = (ROOT / "docs" / "sinch-carrier.md").read_text(encoding="utf-8")
    written = dict(re.findall(r"^\| `(\d{4})` \| (.+?) \|$", page, re.MULTILINE))
    assert written == {ending: each.meaning for ending, each in OUTCOMES.items()}
    types = dict(re.findall(r"^\| `(\d)\.\.\.` \| (\w+) \|", page, re.MULTILINE))
    assert types == TYPES
