"""How the stand-in Phaxio calls back, and receives: formats, signatures, schedule, misbehaviour."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.callbacks import Receiver
from tests.ground import eventually
from tests.phaxio_carrier import (
    PDF,
    TOKEN,
    PhaxioProcess,
    call,
    ended,
    entry,
    fax,
    file,
    form,
    news,
    sent,
)


@pytest.fixture(scope="module")
def carrier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PhaxioProcess]:
    with PhaxioProcess(tmp_path_factory.mktemp("phaxio")) as process:
        yield process


def check_signature(receiver: Receiver, url: str) -> None:
    """Every callback so far, computed here after the vendor's page."""
    for each in list(receiver.callbacks):
        fields, files = form(each.request.headers["content-type"], each.request.body)
        text = url + "".join(name + fields[name] for name in sorted(fields))
        for name in sorted(files):
            text += name + hashlib.sha1(files[name][1], usedforsecurity=False).hexdigest()
        proof = hmac.new(TOKEN.encode(), text.encode(), "sha1").hexdigest()
        assert each.request.headers["x-phaxio-signature"] == proof


@pytest.mark.parametrize("last", ["0000", "2017"])
def test_the_end_is_called_back_and_signed(carrier: PhaxioProcess, last: str) -> None:
    with Receiver() as receiver:
        number = sent(carrier, last, callback_url=receiver.url)
        eventually(lambda: receiver.callbacks)
        (fields,) = news(receiver)
        assert (sorted(fields), fields["event_type"]) == (["event_type", "fax"], "fax_completed")
        assert json.loads(fields["fax"]) == fax(carrier, number)
        check_signature(receiver, receiver.url)


def test_without_a_callback_token_nothing_is_signed(tmp_path: Path) -> None:
    with Receiver() as receiver, PhaxioProcess(tmp_path, callback_token="") as carrier:
        sent(carrier, callback_url=receiver.url)
        eventually(lambda: receiver.callbacks)
        assert "x-phaxio-signature" not in receiver.callbacks[0].request.headers


@pytest.mark.parametrize(
    ("version", "names"),
    [
        ("v1", ["direction", "fax", "is_test", "message", "success"]),
        ("v2", ["direction", "fax", "is_test", "message", "success"]),
        ("v2.1", ["event_type", "fax"]),
    ],
)
def test_the_account_chooses_the_webhook_format_and_a_default_address(
    tmp_path: Path, version: str, names: list[str]
) -> None:
    with Receiver() as receiver:
        url = receiver.url
        with PhaxioProcess(tmp_path, version=version, callback_url=url) as carrier:
            sent(carrier, "2017")
            eventually(lambda: receiver.callbacks)
            (fields,) = news(receiver)
            assert sorted(fields) == names
            assert "phone_number" in fields["fax"] or version == "v1"
            check_signature(receiver, url)


def test_events_on_the_way_come_on_request(tmp_path: Path) -> None:
    with (
        Receiver() as receiver,
        PhaxioProcess(tmp_path, inflight=True, page_seconds=0.3) as carrier,
    ):
        sent(carrier, "0017", callback_url=receiver.url)
        eventually(lambda: len(receiver.callbacks) == 3)
        retry, page, end = news(receiver)
        assert (retry["event_type"], retry["retry_count"]) == ("retry_scheduled", "1")
        (recipient,) = json.loads(retry["fax"])["recipients"]
        assert (recipient["status"], recipient["retry_count"]) == ("willretry", 1)
        assert (page["event_type"], page["page"]) == ("transmitting_page", "1")
        assert page["recipient_phone_number"] == "+15550100017"
        assert end["event_type"] == "fax_completed"
        check_signature(receiver, receiver.url)


def test_callbacks_come_twice_late_out_of_order_or_never(carrier: PhaxioProcess) -> None:
    def told(last: str, count: int) -> list[str]:
        with Receiver() as receiver:
            number = sent(carrier, last, callback_url=receiver.url)
            ended(carrier, number)
            eventually(lambda: len(receiver.callbacks) == count)
            eventually(lambda: entry(carrier, number)["told"])
            assert len(receiver.callbacks) == count
            return [each["event_type"] for each in news(receiver)]

    assert told("0022", 2) == ["fax_completed", "fax_completed"]
    assert told("0066", 2) == ["fax_completed", "retry_scheduled"]
    assert told("0044", 0) == []
    began = time.monotonic()
    assert told("0033", 1) == ["fax_completed"]
    assert time.monotonic() - began >= 0.5


def test_a_callback_that_is_not_taken_is_posted_again_until_the_schedule_ends(
    tmp_path: Path,
) -> None:
    with Receiver(*[500] * 1000) as receiver, PhaxioProcess(tmp_path, scale=1e-6) as carrier:
        number = sent(carrier, callback_url=receiver.url)
        eventually(lambda: entry(carrier, number)["told"])
        assert len(receiver.callbacks) == 17
        assert len({each.request.body for each in receiver.callbacks}) == 1


def test_an_address_that_is_none_keeps_no_other_callback_from_its_client(
    carrier: PhaxioProcess,
) -> None:
    for _ in range(8):  # more than there are threads that post
        sent(carrier, callback_url="http://[")
    with Receiver() as receiver:
        sent(carrier, callback_url=receiver.url)
        eventually(lambda: receiver.callbacks)


def test_the_pauses_between_posts_are_the_vendors_scaled(tmp_path: Path) -> None:
    with Receiver(500, 302, 404) as receiver, PhaxioProcess(tmp_path, scale=0.001) as carrier:
        number = sent(carrier, callback_url=receiver.url)
        eventually(lambda: entry(carrier, number)["told"])
        times = [each.at for each in receiver.callbacks]
        pauses = [after - before for before, after in itertools.pairwise(times)]
        assert len(pauses) == 3
        for pause, least in zip(pauses, (0.29, 0.59, 1.19), strict=True):
            assert pause > least


def test_credentials_in_the_address_are_sent_as_basic_and_signed_as_submitted(
    carrier: PhaxioProcess,
) -> None:
    with Receiver() as receiver:
        url = receiver.url.replace("http://", "http://user:pa%20ss@")
        sent(carrier, callback_url=url)
        eventually(lambda: receiver.callbacks)
        headers = receiver.callbacks[0].request.headers
        assert headers["authorization"] == requests.auth._basic_auth_str("user", "pa ss")
        check_signature(receiver, url)


# receiving


def receive(carrier: PhaxioProcess, content: bytes | None = PDF, **fields: str) -> int:
    """Have a fax come in."""
    numbers = {"from_number": "+15550170001", "to_number": "+15550170002", **fields}
    parts: list[Any] = [(name, (None, value)) for name, value in numbers.items()]
    answer = call(
        carrier,
        "POST",
        "/control/receive",
        files=parts + ([file(content=content)] if content else []),
    )
    assert answer.status_code == 201, answer.text
    number: int = answer.json()["id"]
    return number


@pytest.mark.parametrize("version", ["v1", "v2", "v2.1"])
def test_a_fax_comes_in_with_event_and_file(tmp_path: Path, version: str) -> None:
    with Receiver() as receiver:
        url = receiver.url
        with PhaxioProcess(tmp_path, version=version, receive_url=url) as carrier:
            number = receive(carrier)
            eventually(lambda: receiver.callbacks)
            request = receiver.callbacks[0].request
            fields, files = form(request.headers["content-type"], request.body)
            name = "filename" if version == "v1" else "file"
            assert files == {name: (f"fax-{number}.pdf", PDF)}
            said = json.loads(fields["fax"])
            assert (said["id"], said["direction"], said["status"]) == (
                *(number, "received"),
                "success",
            )
            check_signature(receiver, url)
            assert carrier.counts()["accepted"] == 0


def test_a_received_fax_may_come_without_its_file_and_have_it_fetched(
    carrier: PhaxioProcess,
) -> None:
    with Receiver() as receiver:
        number = receive(carrier, send_file="false", callback_url=receiver.url)
        eventually(lambda: receiver.callbacks)
        request = receiver.callbacks[0].request
        fields, files = form(request.headers["content-type"], request.body)
        assert (list(fields), files) == (["fax"], {})
    assert call(carrier, "GET", f"faxes/{number}/file").content == PDF
    assert fax(carrier, number)["from_number"] == "+15550170001"
    for action in ("cancel", "resend"):
        assert call(carrier, "POST", f"faxes/{number}/{action}").status_code == 404


def test_a_received_fax_comes_twice_from_the_number_that_does_so(carrier: PhaxioProcess) -> None:
    with Receiver() as receiver:
        receive(carrier, None, from_number="+15550170022", callback_url=receiver.url)
        eventually(lambda: len(receiver.callbacks) == 2)


def test_a_test_key_receives_through_the_api_and_learns_no_id(tmp_path: Path) -> None:
    with Receiver() as receiver:
        url = receiver.url
        with PhaxioProcess(tmp_path, receive_url=url) as carrier:
            fields = {
                "direction": "received",
                "from_number": "+15550170001",
                "to_number": "+15550170002",
            }
            parts = [(name, (None, value)) for name, value in fields.items()]
            answer = call(carrier, "POST", "faxes", files=[*parts, file()])
            assert (answer.status_code, "data" in answer.json()) == (200, False)
            eventually(lambda: receiver.callbacks)
            status = call(carrier, "GET", "account/status").json()["data"]
            assert status["faxes_today"] == {"sent": 0, "received": 1}
