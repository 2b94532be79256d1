"""The stand-in Phaxio as a process: what it takes and refuses, how faxes end, what outlives a kill -9."""

from __future__ import annotations

import hashlib
import json
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.callbacks import Receiver
from tests.ground import BUSY, eventually
from tests.phaxio_carrier import (
    KEY,
    PDF,
    SECRET,
    PhaxioProcess,
    call,
    ended,
    fax,
    file,
    news,
    send,
    sent,
)

VENDOR = Path(__file__).parent / "vendor" / "phaxio"


def vendor(name: str) -> Any:
    return json.loads((VENDOR / name).read_text("utf-8-sig"))


@pytest.fixture(scope="module")
def carrier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PhaxioProcess]:
    with PhaxioProcess(tmp_path_factory.mktemp("phaxio"), late_seconds=2) as process:
        yield process


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PhaxioProcess]:
    """A page takes a while, so that what is on its way can be seen."""
    with PhaxioProcess(tmp_path_factory.mktemp("slow"), page_seconds=0.3) as process:
        yield process


REFUSED = {
    "0200": "refused_with_200.json",
    "0400": "number_invalid.json",
    "0401": "auth_failure.json",
    "0404": "not_found.json",
    "0422": "invalid_entity.json",
    "0429": "rate_limited.json",
    "0433": "number_not_permitted.json",
    "0500": "service_failure.json",
    "0502": "service_failure.txt",
    "0503": "unavailable",
}
KINDS = {each["file"]: each for each in vendor("answers.json")}


@pytest.mark.parametrize(("last", "name"), REFUSED.items())
def test_a_refusal_is_the_vendors_and_nothing_is_taken(
    carrier: PhaxioProcess, last: str, name: str
) -> None:
    tag = f"refused-{last}"
    answer = send(carrier, last, **{"tag[faxbot]": tag})
    recorded = (VENDOR / "answers" / name).read_bytes().strip()
    assert answer.content == recorded.removeprefix(b"\xef\xbb\xbf")
    assert answer.status_code == KINDS[name]["status"]
    assert answer.headers.get("content-type") == KINDS[name]["type"]
    assert carrier.faxes(tag) == []


def test_error_bodies_begin_with_a_byte_order_mark_on_request(tmp_path: Path) -> None:
    with PhaxioProcess(tmp_path, byte_order_mark=True) as carrier:
        answer = call(carrier, "GET", "account/status", auth=("wrong", SECRET))
        assert answer.content == (VENDOR / "answers/auth_failure.json").read_bytes()
        assert send(carrier).content.startswith(b'{"success":true')


@pytest.mark.parametrize(
    ("name", "method", "path"),
    [
        ("got", "GET", "faxes/{}"),
        ("cancelled", "POST", "faxes/{}/cancel"),
        ("resent", "POST", "faxes/{}/resend"),
        ("deleted_file", "DELETE", "faxes/{}/file"),
        ("account", "GET", "account/status"),
        ("listed_none", "GET", "faxes?tag[faxbot]=nobody"),
    ],
)
def test_an_answer_has_the_words_and_the_shape_of_the_recorded_one(
    carrier: PhaxioProcess, name: str, method: str, path: str
) -> None:
    number = sent(carrier, "0055")
    answer = call(carrier, method, path.format(number))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.headers["x-request-id"]
    assert shape(answer.json()) == shape(vendor(f"answers/{name}.json"))
    assert answer.json()["message"] == vendor(f"answers/{name}.json")["message"]


def shape(value: Any) -> Any:
    """Names and types; a value may be null in one and not in the other."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    if isinstance(value, list):
        return "list"
    return type(value).__name__ if isinstance(value, bool | int) else "text or null"


# credentials and paths


@pytest.mark.parametrize("auth", [None, ("", ""), (KEY, "wrong"), ("wrong", SECRET), (KEY, "ü")])
def test_wrong_credentials_are_refused_in_the_vendors_words(
    carrier: PhaxioProcess, auth: Any
) -> None:
    answer = call(carrier, "GET", "account/status", auth=auth)
    assert answer.status_code == 401
    assert answer.json() == vendor("answers/auth_failure.json")


def test_credentials_as_parameters_do_not_count(carrier: PhaxioProcess) -> None:
    path = f"account/status?api_key={KEY}&api_secret={SECRET}"
    assert call(carrier, "GET", path, auth=None).status_code == 401


def test_both_versions_of_the_api_have_the_same_faxes(carrier: PhaxioProcess) -> None:
    number = sent(carrier)
    for version in ("v2", "v2.1"):
        assert call(carrier, "GET", f"/{version}/faxes/{number}").status_code == 200
    assert call(carrier, "GET", f"/v1/faxes/{number}").status_code == 404


def test_countries_need_no_credentials_and_prove_none(carrier: PhaxioProcess) -> None:
    assert call(carrier, "GET", "public/countries", auth=None).json()["data"][0]["alpha2"] == "US"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "faxes/1"),
        ("GET", "faxes/nonsense"),
        ("GET", "faxes/99999999999999999999999"),
        ("POST", "faxes/1/cancel"),
        ("POST", "faxes/1/resend"),
        ("GET", "faxes/1/file"),
        ("DELETE", "faxes/1/file"),
        ("DELETE", "faxes/1"),
        ("GET", "elsewhere"),
    ],
)
def test_what_is_not_there_is_not_found(carrier: PhaxioProcess, method: str, path: str) -> None:
    answer = call(carrier, method, path)
    assert (answer.status_code, answer.json()) == (404, vendor("answers/not_found.json"))


# sending


MANY = {f"tag[t{number}]": "x" for number in range(11)}


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({}, 200, "queued for sending"),
        ({"header_text": "x" * 50}, 200, "queued"),
        ({"header_text": "x" * 51}, 422, "header_text"),
        ({"batch_delay": "0", "batch_collision_avoidance": "true"}, 200, "queued"),
        ({"batch_delay": "3601"}, 422, "batch_delay"),
        ({"batch_delay": "-1"}, 422, "batch_delay"),
        ({"batch_delay": "soon"}, 422, "batch_delay"),
        ({"batch_collision_avoidance": "True"}, 422, "batch_collision_avoidance"),
        ({"cancel_timeout": "3"}, 200, "queued"),
        ({"cancel_timeout": "2"}, 422, "cancel_timeout"),
        ({"cancel_timeout": "61"}, 422, "cancel_timeout"),
        ({"caller_id": "+15550100001"}, 200, "queued"),
        ({"caller_id": "5550100001"}, 422, "caller_id"),
        ({"callback_url": "mailto:a@example.com"}, 200, "queued"),
        ({"callback_url": "ftp://example.com"}, 422, "callback_url"),
        ({"test_fail": "lineError"}, 200, "queued"),
        ({"test_fail": "busy"}, 422, "test_fail"),
        ({"to[]": "+15550100001"}, 200, "queued"),
        ({"to[]": "5550100001"}, 422, "Phone number is not formatted correctly"),
        ({"drop": "to"}, 422, "No recipient"),
        ({"files": []}, 422, "Neither file nor content_url"),
        ({"files": [file(filename="")]}, 422, "no file name"),
        ({"file": "text", "files": []}, 422, "no file name"),
        ({"files": [file(), file()]}, 422, "Repeated: file"),
        ({"files": [file("file[]"), file("file[]")]}, 200, "queued"),
        ({"files": [file("document")]}, 422, "Unknown field: document"),
        ({"content_url": "nowhere"}, 422, "content_url"),
        ({"tag[a]": "1", "tag[b]": "2"}, 200, "queued"),
        ({"tag[]": "1"}, 422, "Unknown field: tag[]"),
        ({"tags[faxbot]": "1"}, 422, "Unknown field: tags[faxbot]"),
        ({"tag": "1"}, 422, "Unknown field: tag"),
        ({"header": "x"}, 422, "Unknown field: header"),
        ({"string_data": "x"}, 422, "Unknown field: string_data"),
        ({"api_key": KEY}, 422, "Unknown field: api_key"),
        ({"+15550100000": "x"}, 422, "Unknown field: (a name that is none)"),
        (MANY, 422, "More than 10 tags"),
    ],
    ids=lambda value: ",".join(value)[:40] if isinstance(value, dict) else "",
)
def test_every_field_is_checked(
    carrier: PhaxioProcess, fields: dict[str, Any], status: int, words: str
) -> None:
    before = carrier.counts()
    answer = send(carrier, **fields)
    assert answer.status_code == status
    assert words in answer.json()["message"]
    assert answer.json()["success"] == (status == 200)
    after = carrier.counts()
    assert after["accepted"] - before["accepted"] == (status == 200)
    assert after["refused"] - before["refused"] == (status != 200)


def test_a_form_that_is_not_multipart_is_refused(carrier: PhaxioProcess) -> None:
    data = {"to": "+15550100000", "content_url": "http://127.0.0.1:1/"}
    assert call(carrier, "POST", "faxes", data=data).status_code == 422


def test_a_live_key_simulates_no_failure_and_deletes_no_fax(tmp_path: Path) -> None:
    with PhaxioProcess(tmp_path, live=True, numbers=["+15550109999"]) as carrier:
        assert send(carrier, test_fail="lineError").status_code == 422
        assert send(carrier, caller_id="+15550100001").status_code == 422
        number = sent(carrier, caller_id="+15550109999")
        assert fax(carrier, number)["is_test"] is False
        assert call(carrier, "DELETE", f"faxes/{number}").status_code == 422
        assert fax(carrier, number)["id"] == number


def test_a_fax_goes_from_queued_to_success(slow: PhaxioProcess) -> None:
    number = sent(slow, **{"tag[faxbot]": "way", "tag[other]": "ü"})
    first = fax(slow, number)
    assert (first["status"], first["num_pages"], first["completed_at"]) == ("queued", 0, None)
    assert first["recipients"][0]["status"] is None
    eventually(lambda: fax(slow, number)["status"] == "inprogress")
    last = ended(slow, number)
    assert (last["status"], last["num_pages"], last["cost"]) == ("success", 1, 7)
    assert last["tags"] == {"faxbot": "way", "other": "ü"}
    (recipient,) = last["recipients"]
    assert recipient["phone_number"] == "+15550100000"
    assert (recipient["status"], recipient["completed_at"]) == ("success", last["completed_at"])


@pytest.mark.parametrize(
    ("last", "kind", "number"),
    [
        ("1054", "documentConversionError", 54),
        ("1133", "documentConversionError", 133),
        ("2017", "lineError", 17),
        ("3133", "faxError", 133),
        ("4023", "fatalError", 23),
        ("5105", "generalError", 105),
        ("2999", "lineError", 999),
        ("0099", "newError", 1),
        ("0098", None, None),
    ],
)
def test_a_number_chooses_error_type_and_id(
    carrier: PhaxioProcess, last: str, kind: str | None, number: int | None
) -> None:
    end = ended(carrier, sent(carrier, last))
    assert end["status"] == end["recipients"][0]["status"] == "failure"
    assert (end["error_type"], end["error_id"]) == (kind, number)
    for name in ("error_type", "error_id", "error_message"):
        assert end["recipients"][0][name] == end[name]


def test_several_recipients_have_one_id_and_may_succeed_in_part(carrier: PhaxioProcess) -> None:
    end = ended(carrier, sent(carrier, "0000", **{"to[]": "+15550102017"}))
    assert (end["status"], end["error_id"]) == ("partialsuccess", None)
    assert [each["status"] for each in end["recipients"]] == ["success", "failure"]
    assert [each["error_id"] for each in end["recipients"]] == [None, 17]


def test_odd_ends(carrier: PhaxioProcess) -> None:
    partial = ended(carrier, sent(carrier, "0088"))
    assert (partial["status"], partial["error_id"]) == ("partialsuccess", None)
    assert partial["recipients"][0]["error_id"] == 8
    redialled = ended(carrier, sent(carrier, "0017"))
    assert (redialled["status"], redialled["error_id"]) == ("success", 17)
    assert ended(carrier, sent(carrier, "0048"))["num_pages"] == 0


def test_a_status_that_no_list_has_shows_on_the_way(slow: PhaxioProcess) -> None:
    number = sent(slow, "0097")
    eventually(lambda: fax(slow, number)["status"] == "holding")
    assert ended(slow, number)["status"] == "success"


@pytest.mark.parametrize(
    ("content", "kind", "expected"),
    [
        (b"plain", "text/plain", None),
        (b"II*\x00", "image/tiff", 128),
        (b"not a pdf", "application/pdf", 128),
        (PDF[:-10], "application/pdf", 133),
        (b"%PDF-1.4\n%%EOF", "application/pdf", 133),
    ],
)
def test_a_document_that_is_none_is_taken_and_fails_later(
    carrier: PhaxioProcess, content: bytes, kind: str, expected: int | None
) -> None:
    end = ended(carrier, sent(carrier, files=[("file", ("name", content, kind))]))
    assert end["error_id"] == expected
    assert end["error_type"] == (expected and "documentConversionError")


def test_test_fail_simulates_a_failure_of_that_type(carrier: PhaxioProcess) -> None:
    end = ended(carrier, sent(carrier, test_fail="generalError"))
    assert (end["error_type"], end["error_id"]) == ("generalError", 120)


def test_an_eleventh_file_is_dropped_without_a_word(carrier: PhaxioProcess) -> None:
    assert ended(carrier, sent(carrier, files=[file("file[]")] * 11))["num_pages"] == 10


def test_a_batch_waits_for_its_delay(tmp_path: Path) -> None:
    with PhaxioProcess(tmp_path, scale=0.01) as carrier:
        number = sent(carrier, batch_delay="100")
        eventually(lambda: fax(carrier, number)["status"] == "pendingbatch")
        end = ended(carrier, number)
        assert end["status"] == "success"
        began, over = (
            datetime.fromisoformat(end[f"{each}_at"]) for each in ("created", "completed")
        )
        assert (over - began).total_seconds() > 0.9


class Document(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/fax.pdf" else 404)
        self.send_header("Content-Type", "application/pdf")
        self.end_headers()
        self.wfile.write(PDF)

    def log_message(self, *arguments: object) -> None:
        """Silent."""


@pytest.fixture
def documents() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Document) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_content_url_is_fetched_and_counts_before_the_file(
    carrier: PhaxioProcess, documents: str
) -> None:
    number = sent(carrier, content_url=f"{documents}/fax.pdf", **{"tag[faxbot]": "fetched"})
    assert ended(carrier, number)["num_pages"] == 2
    both = hashlib.sha256(PDF + PDF).hexdigest()
    eventually(lambda: [entry["sha256"] for entry in carrier.faxes("fetched")] == [both])
    alone = sent(carrier, files=[], content_url=f"{documents}/fax.pdf")
    assert ended(carrier, alone)["status"] == "success"
    assert call(carrier, "GET", f"faxes/{alone}/file").content == PDF


def test_a_content_url_that_cannot_be_fetched_is_error_54(
    carrier: PhaxioProcess, documents: str
) -> None:
    end = ended(carrier, sent(carrier, files=[], content_url=f"{documents}/gone"))
    assert (end["error_type"], end["error_id"]) == ("documentConversionError", 54)


@settings(max_examples=30, deadline=None)
@given(
    body=st.binary(max_size=300),
    path=st.sampled_from(["/v2.1/faxes", "/v2.1/faxes/1/resend", "/control/receive"]),
    kind=st.sampled_from(
        ["multipart/form-data; boundary=b", "application/x-www-form-urlencoded", "application/json"]
    ),
    framed=st.booleans(),
)
def test_noise_is_refused_and_does_no_harm(
    carrier: PhaxioProcess, body: bytes, path: str, kind: str, framed: bool
) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="to"\r\n\r\n'
    data = head + body + b"\r\n--b--\r\n" if framed else body
    answer = call(carrier, "POST", path, data=data, headers={"Content-Type": kind})
    assert 400 <= answer.status_code < 500
    assert carrier.control("GET", "health") == {"ok": True}


# what goes wrong between carrier and client


@pytest.mark.parametrize(
    ("last", "status"),
    [("0501", 500), ("0506", 500), ("0507", 503), ("0511", 200), ("0512", 200)],
)
def test_a_fax_may_be_taken_and_the_answer_be_none(
    carrier: PhaxioProcess, last: str, status: int
) -> None:
    answer = send(carrier, last, **{"tag[faxbot]": f"taken-{last}"})
    assert answer.status_code == status
    assert b'"id"' not in answer.content
    assert [entry["submissions"] for entry in carrier.faxes(f"taken-{last}")] == [1]
    (found,) = call(carrier, "GET", f"faxes?tag[faxbot]=taken-{last}").json()["data"]
    assert ended(carrier, found["id"])["status"] == "success"


def test_a_reply_may_be_lost_and_the_list_be_late(carrier: PhaxioProcess) -> None:
    for last in ("0504", "0505"):
        with pytest.raises(requests.ConnectionError):
            send(carrier, last, **{"tag[faxbot]": f"lost-{last}"})
        assert len(carrier.faxes(f"lost-{last}")) == 1

    def listed(last: str) -> int:
        answer = call(carrier, "GET", f"faxes?tag[faxbot]=lost-{last}").json()
        assert answer["paging"]["total"] == len(answer["data"])
        return len(answer["data"])

    assert (listed("0504"), listed("0505")) == (1, 0)
    eventually(lambda: listed("0505") == 1)


@pytest.mark.parametrize(("last", "taken"), [("0508", 0), ("0509", 1), ("0510", 1)])
def test_no_answer_may_come_at_all(carrier: PhaxioProcess, last: str, taken: int) -> None:
    host, _, port = carrier.url.removeprefix("http://").partition(":")
    prepared = requests.Request(
        "POST",
        f"{carrier.url}/v2.1/faxes",
        auth=(KEY, SECRET),
        files=[("to", (None, f"+1555010{last}")), ("tag[faxbot]", (None, f"hang-{last}")), file()],
    ).prepare()
    head = "".join(f"{name}: {value}\r\n" for name, value in prepared.headers.items())
    assert isinstance(prepared.body, bytes)
    with socket.create_connection((host, int(port)), timeout=0.5) as connection:
        connection.sendall(f"POST /v2.1/faxes HTTP/1.1\r\n{head}\r\n".encode() + prepared.body)
        with pytest.raises(TimeoutError):
            connection.recv(1)
    eventually(lambda: len(carrier.faxes(f"hang-{last}")) == taken)


@pytest.mark.parametrize(("last", "wait"), [("0429", None), ("0430", "2")])
def test_a_rate_limit_ends_after_its_time(tmp_path: Path, last: str, wait: str | None) -> None:
    with PhaxioProcess(tmp_path) as carrier:
        tags = {"tag[faxbot]": "limited"}
        answer = send(carrier, last, **tags)
        assert (answer.status_code, answer.headers.get("retry-after")) == (429, wait)
        eventually(lambda: send(carrier, last, **tags).status_code == 200)
        (entry,) = carrier.faxes("limited")
        assert entry["submissions"] == carrier.counts()["refused"] + 1


def test_any_request_can_be_answered_otherwise(carrier: PhaxioProcess) -> None:
    carrier.misbehave("service_failure_text", times=2, method="GET", path="account/status")
    carrier.misbehave("drop", method="POST")
    assert call(carrier, "GET", "faxes").status_code == 200
    number = sent_despite_drop(carrier)
    for _ in range(2):
        answer = call(carrier, "GET", "account/status")
        assert (answer.status_code, answer.text) == (500, "There was an error")
    assert call(carrier, "GET", "account/status").status_code == 200
    carrier.misbehave("not_found", path=f"faxes/{number}")
    assert call(carrier, "GET", f"faxes/{number}").status_code == 404
    assert call(carrier, "GET", f"faxes/{number}").status_code == 200


def sent_despite_drop(carrier: PhaxioProcess) -> int:
    """The first try finds the connection dropped, and nothing taken."""
    with pytest.raises(requests.ConnectionError):
        send(carrier, **{"tag[faxbot]": "dropped"})
    assert carrier.faxes("dropped") == []
    return sent(carrier)


@pytest.mark.parametrize("wish", [{}, {"answer": "nonsense"}, {"answer": "drop", "times": 0}, []])
def test_a_wish_that_is_none_is_refused(carrier: PhaxioProcess, wish: Any) -> None:
    answer = call(carrier, "POST", "/control/misbehave", json=wish)
    assert answer.status_code == 422


# the ledger, crashes, stops


def test_submissions_are_counted_by_tag(tmp_path: Path) -> None:
    with PhaxioProcess(tmp_path) as carrier:
        for last, tag in (("0000", "a"), ("0500", "a"), ("0001", "a"), ("0000", "b")):
            send(carrier, last, **{"tag[faxbot]": tag})
        send(carrier)
        send(carrier)
        assert [entry["submissions"] for entry in carrier.faxes("a")] == [3, 3]
        counts = carrier.counts()
        assert {name: counts[name] for name in ("accepted", "refused", "tags")} == {
            "accepted": 5,
            "refused": 1,
            "tags": 2,
        }
        assert counts["tags_accepted_twice"] == 1
        assert all("details" not in entry for entry in carrier.faxes())
        assert stat.S_IMODE(carrier.ledger_path.stat().st_mode) == 0o600


def test_what_was_taken_outlives_a_kill_and_goes_on(tmp_path: Path) -> None:
    with Receiver() as receiver, PhaxioProcess(tmp_path, page_seconds=0.2) as carrier:
        waiting = sent(carrier, "0055")
        number = sent(carrier, callback_url=receiver.url, **{"tag[faxbot]": "kept"})
        carrier.end(signal.SIGKILL)
        carrier.start()
        assert fax(carrier, number)["tags"] == {"faxbot": "kept"}
        eventually(lambda: [json.loads(each["fax"])["id"] for each in news(receiver)] == [number])
        assert call(carrier, "GET", f"faxes/{number}/file").content == PDF
        assert sent(carrier) > number
        call(carrier, "POST", f"faxes/{waiting}/cancel")
        assert ended(carrier, waiting)["error_id"] == 75


def test_a_stop_is_clean(tmp_path: Path) -> None:
    with PhaxioProcess(tmp_path, page_seconds=0.3) as carrier:
        sent(carrier)
        assert carrier.end(signal.SIGTERM) == 0
        assert list(tmp_path.iterdir()) == [carrier.ledger_path]
        carrier.start()


def test_the_command_takes_every_option(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "faxbot.cli", "carrier", "phaxio", "--port", "0"]
    command += ["--ledger", str(tmp_path / "own.db"), "--webhooks", "v1", "--inflight", "--live"]
    command += ["--byte-order-mark", "--callback-url", "http://127.0.0.1:1/", "--scale", "0.1"]
    command += ["--receive-url", "http://127.0.0.1:1/", "--number", "+15550100001"]
    command += ["--seconds-per-page", "0", "--late-seconds", "1"]
    secrets = {"PHAXIO_API_KEY": KEY, "PHAXIO_API_SECRET": SECRET, "PHAXIO_CALLBACK_TOKEN": "t"}
    environ = {"FAX_DATA_DIR": str(tmp_path / "data"), **secrets}
    with subprocess.Popen(command, env=environ, cwd=tmp_path, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert b"phaxio carrier: listening on http://127.0.0.1:" in process.stdout.readline()
            process.terminate()
            assert process.wait(20 * BUSY) == 0
        finally:
            process.kill()
    assert (tmp_path / "own.db").exists()


@pytest.mark.parametrize(
    ("environ", "word"),
    [({}, "PHAXIO_API_KEY"), ({"PHAXIO_API_KEY": "k"}, "PHAXIO_API_SECRET")],
)
def test_the_command_says_what_it_lacks(tmp_path: Path, environ: dict[str, str], word: str) -> None:
    command = [sys.executable, "-m", "faxbot.cli", "carrier", "phaxio", "--port", "0"]
    done = subprocess.run(
        command,
        env={"FAX_DATA_DIR": str(tmp_path / "data"), **environ},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode != 0
    assert word in done.stderr
    assert "Traceback" not in done.stderr
