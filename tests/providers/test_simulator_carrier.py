"""The stand-in carrier as a process: what it takes and refuses, what outlives a kill -9, how it keeps calling back."""

from __future__ import annotations

import hmac
import http.client
import io
import json
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from tests.callbacks import Receiver
from tests.carrier import SimulatorProcess
from tests.ground import eventually


@pytest.fixture(scope="module")
def document() -> bytes:
    file = io.BytesIO()
    page = Image.new("1", (1728, 1100), 1)
    page.save(file, "TIFF", compression="group4", save_all=True, append_images=[page])
    return file.getvalue()


@pytest.fixture(scope="module")
def carrier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(tmp_path_factory.mktemp("carrier")) as process:
        yield process


def post(
    carrier: SimulatorProcess,
    document: bytes,
    *,
    secret: str | None = None,
    drop: str = "",
    **fields: str,
) -> tuple[int, dict[str, Any]]:
    """Submit a fax: (status, answer). `drop` leaves a field out."""
    data = {"to": "+15550100000", "tag": "tag", "callback_url": "", **fields}
    headers = {"Authorization": f"Bearer {carrier.secret if secret is None else secret}"}
    with requests.Session() as session:
        session.trust_env = False
        answer = session.post(
            f"{carrier.url}/v1/faxes",
            headers=headers,
            timeout=10,
            data={name: value for name, value in data.items() if name != drop},
            files={} if drop == "file" else {"file": ("fax.tiff", document, "image/tiff")},
        )
        return answer.status_code, answer.json()


def raw(carrier: SimulatorProcess, request: bytes) -> bytes:
    """Everything the carrier says to these bytes until it closes."""
    host, _, port = carrier.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request)
        with suppress(OSError):  # ENOTCONN: it has hung up already
            connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


# what it takes and refuses


def test_of_a_header_the_ledger_keeps_a_keyed_hash(
    carrier: SimulatorProcess, document: bytes
) -> None:
    post(carrier, document, tag="with", header="Jane Doe, ward 3")
    post(carrier, document, tag="without")
    (kept,), (none,) = carrier.faxes("with"), carrier.faxes("without")
    files = carrier.ledger_path.parent.glob(f"{carrier.ledger_path.name}*")

    expected = hmac.new(carrier.secret.encode(), b"Jane Doe, ward 3", "sha256").hexdigest()[:32]
    assert (kept["header_key"], none["header_key"]) == (expected, "")
    assert not any(b"Jane Doe" in file.read_bytes() for file in files)


def test_a_ledger_from_before_headers_is_taken_on(tmp_path: Path, document: bytes) -> None:
    with SimulatorProcess(tmp_path) as process:
        post(process, document)
    with closing(sqlite3.connect(process.ledger_path)) as ledger:
        ledger.execute("ALTER TABLE faxes DROP COLUMN header_key")
    with SimulatorProcess(tmp_path) as process:
        post(process, document, tag="new", header="x")

        assert [bool(fax["header_key"]) for fax in process.faxes()] == [False, True]


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"to": "15550100000"}, 422, "number-malformed"),
        ({"to": "+1555010000x"}, 422, "number-malformed"),
        ({"to": "+0123456789"}, 422, "number-malformed"),
        ({"to": "+1" + "5" * 15}, 422, "number-malformed"),
        ({"to": ""}, 422, "number-malformed"),
        ({"to": "+1555010000\u0660"}, 422, "number-malformed"),
        ({"tag": ""}, 422, "tag-malformed"),
        ({"tag": "a b"}, 422, "tag-malformed"),
        ({"tag": "x" * 129}, 422, "tag-malformed"),
        ({"callback_url": "ftp://here/"}, 422, "callback-url-malformed"),
        ({"callback_url": "http://[bad"}, 202, None),
        ({"header": "x" * 50}, 202, None),
        ({"header": "x" * 51}, 422, "header-malformed"),
        ({"header": "caf\u00e9"}, 422, "header-malformed"),
        ({"header": "two\nlines"}, 422, "header-malformed"),
        ({"drop": "to"}, 422, "field-missing"),
        ({"drop": "tag"}, 422, "field-missing"),
        ({"drop": "file"}, 400, "multipart-malformed"),
        ({"secret": "wrong"}, 401, "bad-credentials"),
        ({"secret": ""}, 401, "bad-credentials"),
        ({"secret": "ü"}, 401, "bad-credentials"),
    ],
)
def test_a_submission_is_checked_as_a_carrier_would(
    carrier: SimulatorProcess,
    document: bytes,
    changes: dict[str, str],
    status: int,
    code: str | None,
) -> None:
    before = carrier.counts()["accepted"]
    answered, content = post(carrier, document, **changes)
    assert (answered, content.get("error", {}).get("code")) == (status, code)
    assert carrier.counts()["accepted"] == before + (status == 202)


@pytest.mark.parametrize("name", ["empty", "text", "cut"])
def test_a_document_that_is_no_whole_fax_document_is_refused(
    carrier: SimulatorProcess, document: bytes, name: str
) -> None:
    data = {"empty": b"", "text": b"Dear patient", "cut": document[:-20]}[name]
    assert post(carrier, data, tag=name) == (422, {"error": {"code": "document-unreadable"}})
    assert carrier.faxes(name) == []


KNOWN = "Authorization: Bearer test-secret"
STRANGER = "Authorization: Bearer wrong"
CHUNKED = "Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    ("line", "headers", "body", "status"),
    [
        ("POST /v1/faxes", [KNOWN, "Content-Length: 99999999999"], "", 413),
        ("POST /v1/faxes", [KNOWN, "Content-Length: " + "0" * 12 + "9" * 12], "", 413),
        ("POST /v1/faxes", [KNOWN, "Content-Length: " + "9" * 5000], "", 413),
        ("POST /v1/faxes", [KNOWN, "Content-Length: -1"], "", 411),
        ("POST /v1/faxes", [KNOWN, CHUNKED], "0\r\n\r\n", 411),
        ("POST /v1/faxes", [KNOWN, "Content-Length: 50"], "half", 400),
        ("POST /v1/faxes", [KNOWN, "Content-Length: 2"], "{}", 400),
        ("POST /v1/faxes/sf_none/cancel", [KNOWN], "", 404),
        ("POST /v1/faxes/sf_none/cancel", [], "", 401),
        ("GET /v1/faxes", [KNOWN], "", 400),
        ("GET /v1/faxes/sf_none", [KNOWN], "", 404),
        ("GET /v1/faxes/sf_none", [], "", 401),
        ("GET /v1/faxes?tag=a", [], "", 401),
        ("GET /elsewhere", [KNOWN], "", 404),
        ("GET /health", [], "", 200),
        ("GET /health", [STRANGER], "", 401),
        ("GET /v1/ledger", [], "", 200),
        ("GET /v1/ledger", [STRANGER], "", 401),
        ("GET /v1/ledger?after=x", [], "", 400),
        ("DELETE /v1/faxes/sf_none", [KNOWN], "", 404),
        ("DELETE /v1/faxes/sf_none/file", [KNOWN], "", 404),
        ("DELETE /v1/faxes/sf_none/file", [], "", 401),
    ],
)
def test_any_request_has_its_status_and_the_carrier_lives_on(
    carrier: SimulatorProcess, line: str, headers: list[str], body: str, status: int
) -> None:
    head = "".join(f"{each}\r\n" for each in [f"{line} HTTP/1.1", *headers])
    answer = raw(carrier, f"{head}\r\n{body}".encode())
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert carrier.get("/health") == {"ok": True}


def test_what_is_no_http_at_all_does_no_harm(carrier: SimulatorProcess) -> None:
    for noise in (b"\x16\x03\x01\x02\x00\x01", b"nonsense\r\n\r\n", b"\r\n" * 100, b"x" * 100_000):
        with suppress(ConnectionError):  # it may hang up before it has read all
            raw(carrier, noise)
    assert carrier.get("/health") == {"ok": True}


def test_a_connection_is_kept_for_the_next_request(carrier: SimulatorProcess) -> None:
    connection = http.client.HTTPConnection(carrier.url.removeprefix("http://"), timeout=10)
    connection.connect()
    own = connection.sock.getsockname()
    for _ in range(3):
        connection.request("GET", "/health")
        assert json.loads(connection.getresponse().read()) == {"ok": True}
        assert connection.sock.getsockname() == own
    connection.close()


# the ledger


def test_the_ledger_is_read_page_by_page_and_by_tag(
    carrier: SimulatorProcess, document: bytes
) -> None:
    for number in range(5):
        post(carrier, document, tag=f"page-{number}")
    everything = carrier.faxes()
    seen: list[dict[str, Any]] = []
    while page := carrier.get(f"/v1/ledger?limit=2&after={seen[-1]['n'] if seen else 0}")["faxes"]:
        assert len(page) <= 2
        seen += page
    assert [entry["id"] for entry in seen] == [entry["id"] for entry in everything]
    (one,) = carrier.faxes("page-3")
    assert one["tag"] == "page-3"


def test_one_number_has_one_key_and_the_number_itself_is_nowhere(
    tmp_path: Path, document: bytes
) -> None:
    with SimulatorProcess(tmp_path) as carrier:
        for to in ("+15550170123", "+15550170123", "+15550180123"):
            post(carrier, document, to=to)
        keys = [entry["to_key"] for entry in carrier.faxes()]
        assert keys[0] == keys[1] != keys[2]
        assert {entry["last_digits"] for entry in carrier.faxes()} == {"0123"}
        for file in tmp_path.iterdir():
            assert b"5550170" not in file.read_bytes()
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [carrier.ledger_path]


# crashes, restarts, stops


def test_what_was_taken_outlives_a_kill_and_goes_on(tmp_path: Path, document: bytes) -> None:
    with Receiver() as receiver, SimulatorProcess(tmp_path, page_seconds=0.3) as carrier:
        status, answer = post(carrier, document, callback_url=receiver.url)
        assert status == 202
        carrier.end(signal.SIGKILL)
        carrier.start()
        assert [entry["id"] for entry in carrier.faxes()] == [answer["fax"]["id"]]
        eventually(lambda: receiver.events("tag")[-1:] == ["fax.delivered"])
        eventually(lambda: carrier.faxes()[0]["told"])
        assert carrier.faxes()[0]["status"] == "delivered"


def test_every_answered_submission_is_there_after_a_kill_in_the_middle(
    tmp_path: Path, document: bytes
) -> None:
    with SimulatorProcess(tmp_path) as carrier:
        taken = [post(carrier, document, tag=f"t{number}")[1]["fax"]["id"] for number in range(20)]
        carrier.end(signal.SIGKILL)
        carrier.start()
        assert [entry["id"] for entry in carrier.faxes()] == taken


def test_a_callback_that_was_not_taken_is_posted_again_after_a_restart(
    tmp_path: Path, document: bytes
) -> None:
    with Receiver(*[503] * 1000) as receiver, SimulatorProcess(tmp_path) as carrier:
        post(carrier, document, callback_url=receiver.url)
        eventually(lambda: receiver.callbacks)
        eventually(lambda: carrier.faxes()[0]["status"] == "delivered")
        carrier.end(signal.SIGKILL)
        receiver.statuses.clear()
        carrier.start()
        eventually(lambda: carrier.faxes()[0]["told"])
        assert set(receiver.events("tag")) == {"fax.delivered"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_is_clean_and_a_restart_goes_on(
    tmp_path: Path, document: bytes, number: signal.Signals
) -> None:
    with Receiver() as receiver, SimulatorProcess(tmp_path, page_seconds=0.3) as carrier:
        post(carrier, document, callback_url=receiver.url)
        assert carrier.end(number) == 0
        assert list(tmp_path.iterdir()) == [carrier.ledger_path], "the log was folded into the file"
        carrier.start()
        eventually(lambda: receiver.events("tag")[-1:] == ["fax.delivered"])


# callbacks


def test_a_refused_callback_is_posted_again_later_and_later(
    tmp_path: Path, document: bytes
) -> None:
    with Receiver(500, 404) as receiver, SimulatorProcess(tmp_path) as carrier:
        post(carrier, document, callback_url=receiver.url)
        eventually(lambda: len(receiver.callbacks) == 3)
        eventually(lambda: carrier.faxes()[0]["told"])
        first, second, third = receiver.callbacks
        assert first.request.body == second.request.body == third.request.body
        assert second.at - first.at > 0.45
        assert third.at - second.at > 0.95


def test_a_callback_waits_for_a_server_that_is_away(tmp_path: Path, document: bytes) -> None:
    with Receiver() as receiver:
        url = receiver.url
    with SimulatorProcess(tmp_path) as carrier:
        post(carrier, document, callback_url=url)
        eventually(lambda: carrier.faxes()[0]["status"] == "delivered")
        assert not carrier.faxes()[0]["told"]


def test_one_callback_address_that_hangs_does_not_hold_up_the_others(
    tmp_path: Path, document: bytes
) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as deaf,
        Receiver() as receiver,
        SimulatorProcess(tmp_path) as carrier,
    ):
        post(
            carrier, document, tag="deaf", callback_url=f"http://127.0.0.1:{deaf.getsockname()[1]}/"
        )
        for number in range(5):
            post(carrier, document, tag=f"t{number}", callback_url=receiver.url)
        eventually(lambda: len(receiver.callbacks) == 5, 3.0)


# starting


def refusal_of(*arguments: object) -> str:
    """The last line of a carrier that does not start."""
    program = f"from pathlib import Path; from faxbot.carriers.simulator import serve; serve(*{arguments!r})"
    program = program.replace("PosixPath", "Path")
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=20
    )
    assert ended.returncode == 1
    return ended.stderr.strip().splitlines()[-1]


def test_without_a_secret_it_does_not_start(tmp_path: Path) -> None:
    assert "ConfigError: SIMULATOR_SECRET is not set" in refusal_of(
        "127.0.0.1", 0, tmp_path / "simulator.db", ""
    )
    assert list(tmp_path.iterdir()) == []


def test_on_a_port_that_is_taken_it_does_not_start(
    tmp_path: Path, carrier: SimulatorProcess
) -> None:
    port = int(carrier.url.rpartition(":")[2])
    assert "Address already in use" in refusal_of(
        "127.0.0.1", port, tmp_path / "simulator.db", "secret"
    )
