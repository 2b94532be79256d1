"""The stand-in Sinch as a process: who may come in, what it takes and refuses, by the vendor's files."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests

from faxbot.carriers.sinch.access import BUCKET
from faxbot.carriers.sinch.submission import JSON, MULTIPART, SERVICE_ID
from tests.ground import eventually
from tests.sinch_carrier import (
    KEY,
    PDF,
    PROJECT,
    SECRET,
    VENDOR,
    Bearer,
    SinchProcess,
    ask_for_token,
    call,
    ended,
    get,
    send,
    send_json,
    vendor,
    vendor_message,
)


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SinchProcess]:
    with SinchProcess(tmp_path_factory.mktemp("sinch")) as started:
        yield started


@pytest.fixture
def carrier(process: SinchProcess) -> Iterator[SinchProcess]:
    yield process
    process.usual_moods()


# who may come in


@pytest.mark.parametrize(
    ("auth", "project"),
    [
        ((KEY, "wrong"), PROJECT),
        (("wrong", SECRET), PROJECT),
        (("", ""), PROJECT),
        (("ü".encode(), b""), PROJECT),
        ((KEY, SECRET), "another-project"),
        (Bearer("nonsense"), PROJECT),
        (Bearer("a.b.c"), PROJECT),
        (Bearer(""), PROJECT),
        (None, PROJECT),
    ],
)
@pytest.mark.parametrize("path", ["faxes", "services", "faxes/01HDF5S9P29WC29J578J8EKC1C"])
def test_wrong_key_secret_or_project_is_401_without_a_body(
    carrier: SinchProcess, auth: Any, project: str, path: str
) -> None:
    answer = call("GET", f"{carrier.url}/v3/projects/{project}/{path}", auth=auth)
    first, headers, _ = vendor_message("errors/401.http")

    assert f"HTTP/1.1 {answer.status_code} {answer.reason}" == first
    assert answer.content == b""
    assert answer.headers["WWW-Authenticate"] == headers["www-authenticate"]
    assert "Content-Type" not in answer.headers


def test_a_token_is_of_the_vendors_shape_and_admits(carrier: SinchProcess) -> None:
    answer = ask_for_token(carrier)
    token, shape = answer.json(), vendor("token.json")

    assert answer.status_code == 200
    assert token.keys() == shape.keys()
    assert {**token, "access_token": ""} == {**shape, "access_token": ""}
    services = call("GET", f"{carrier.api}/services", auth=Bearer(token["access_token"]))
    assert services.status_code == 200
    other = call(
        "GET", f"{carrier.url}/v3/projects/other/services", auth=Bearer(token["access_token"])
    )
    assert other.status_code == 401


def test_an_expired_token_is_told_apart_and_a_new_one_admits(tmp_path: Path) -> None:
    first, headers, _ = vendor_message("errors/401_expired.http")
    with SinchProcess(tmp_path) as carrier:
        old = Bearer(ask_for_token(carrier).json()["access_token"])
        assert call("GET", f"{carrier.api}/services", auth=old).status_code == 200
        carrier.control("POST", "expire-tokens")
        answer = call("GET", f"{carrier.api}/services", auth=old)

        assert f"HTTP/1.1 {answer.status_code} {answer.reason}" == first
        assert answer.headers["WWW-Authenticate"] == headers["www-authenticate"]
        assert answer.content == b""
        new = Bearer(ask_for_token(carrier).json()["access_token"])
        assert call("GET", f"{carrier.api}/services", auth=new).status_code == 200


def test_a_token_ends_with_its_time_and_outlives_a_restart(tmp_path: Path) -> None:
    with SinchProcess(tmp_path, token_seconds=8.5) as carrier:
        granted = ask_for_token(carrier).json()
        token = Bearer(granted["access_token"])
        assert granted["expires_in"] == 8
        carrier.end(signal.SIGKILL)
        carrier.start()
        assert call("GET", f"{carrier.api}/services", auth=token).status_code == 200
        eventually(
            lambda: call("GET", f"{carrier.api}/services", auth=token).status_code == 401, 20.0
        )


def test_requests_for_a_token_are_counted_and_throttled_without_a_time(tmp_path: Path) -> None:
    with SinchProcess(tmp_path) as carrier:
        assert carrier.tokens() == {"asked": 0, "given": 0, "refused": 0, "throttled": 0}
        answers: list[requests.Response] = []
        with requests.Session() as session:
            session.trust_env = False
            while len(answers) < 1000 and 429 not in [each.status_code for each in answers[-1:]]:
                answers.append(
                    session.post(
                        f"{carrier.url}/oauth2/token",
                        auth=(KEY, SECRET),
                        data={"grant_type": "client_credentials"},
                        timeout=10,
                    )
                )
        given = [each for each in answers if each.status_code == 200]
        throttled = [each for each in answers if each.status_code == 429]

        assert len(given) >= BUCKET
        assert throttled, "the bucket is empty after 30"
        assert {each.content for each in throttled} == {b""}
        assert not any("Retry-After" in each.headers for each in throttled)
        counts = {"asked": len(answers), "given": len(given), "refused": 0, "throttled": 1}
        assert carrier.tokens() == counts
        eventually(lambda: ask_for_token(carrier).status_code == 200, 3.0)


@pytest.mark.parametrize(
    ("more", "status", "word"),
    [
        ({"auth": (KEY, "wrong")}, 401, "invalid_client"),
        ({"auth": None}, 401, "invalid_client"),
        ({"data": {"grant_type": "password"}}, 400, "unsupported_grant_type"),
        ({"data": {}}, 400, "invalid_request"),
        ({"data": None, "json": {"grant_type": "client_credentials"}}, 400, "invalid_request"),
    ],
)
def test_a_token_is_refused_by_the_words_of_oauth(
    carrier: SinchProcess, more: dict[str, Any], status: int, word: str
) -> None:
    answer = ask_for_token(carrier, **more)
    assert (answer.status_code, answer.json()["error"]) == (status, word)


# taking


def test_a_fax_to_one_number_is_answered_as_the_vendor_does(
    carrier: SinchProcess, tag: str
) -> None:
    url = "https://user:secret@fax.example.com/callbacks/sinch?attempt=1"
    answer = send(carrier, labels__faxbot=tag, callbackUrl=url, maxRetries="0")
    fax, shape = answer.json(), vendor("fax_queued.json")

    assert answer.status_code == 200
    assert shape.keys() <= fax.keys()
    assert re.fullmatch(r"[0-9A-HJKMNP-TV-Z]{26}", fax["id"])
    same = ("direction", "to", "status", "headerTimeZone", "retryDelaySeconds", "maxRetries")
    for name in (*same, "headerPageNumbers", "imageConversionMethod", "callbackUrlContentType"):
        assert fax[name] == shape[name], name
    assert fax["callbackUrl"] == "https://***:***@fax.example.com/callbacks/sinch?attempt=1"
    assert fax["labels"] == {"faxbot": tag}
    assert fax["projectId"] == PROJECT


@pytest.mark.parametrize(
    ("number", "name"),
    [
        ("+15550100000", "fax_completed.json"),
        ("+15550100090", "fax_completed_with_error.json"),
        ("+15550102017", "fax_failed.json"),
        ("+15550103133", "fax_failed_number_not_permitted.json"),
        ("+15550101133", "fax_failed_document.json"),
        ("+15550100094", "fax_failed_without_code.json"),
    ],
)
def test_an_ended_fax_is_of_the_vendors_shape(
    carrier: SinchProcess, number: str, name: str
) -> None:
    fields: dict[str, Any] = {
        "labels__faxbot": "attempt-7f3a",
        "callbackUrl": "http://127.0.0.1:9/",
    }
    fax = ended(carrier, send(carrier, number, maxRetries="0", **fields).json()["id"])
    shape = vendor(name)

    assert fax.keys() == shape.keys()
    words = ("status", "numberOfPages", "pagesSentSuccessfully", "errorType", "errorCode")
    for word in (*words, "errorMessage", "resolution"):
        assert fax.get(word) == shape.get(word), word
    for word in ("createTime", "completedTime"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", fax[word])


def test_values_are_odd_where_that_is_wished(carrier: SinchProcess) -> None:
    fax_id = send(carrier).json()["id"]
    usual = ended(carrier, fax_id)
    carrier.moods(values="odd")
    odd = get(carrier, fax_id)

    assert (usual["price"]["amount"], usual["hasFile"]) == ("0.2100", True)
    assert (odd["price"]["amount"], odd["hasFile"]) == (0.21, "true")


def test_each_number_is_a_fax_and_one_alone_is_no_list(carrier: SinchProcess, tag: str) -> None:
    numbers = ["+15550100001", "+15550100002"]
    one = send_json(carrier, to=["+15550100001"]).json()
    answers = [
        send(carrier, ",".join(numbers), labels__faxbot=tag).json(),
        send_json(carrier, to=numbers, labels={"faxbot": tag}).json(),
        send_json(carrier, to=",".join(numbers), labels={"faxbot": tag}).json(),
        call(
            "POST",
            f"{carrier.api}/faxes",
            data=[("to", numbers[0]), ("to", numbers[1]), ("labels[faxbot]", tag)],
            files={"file": ("fax.pdf", PDF)},
        ).json(),
    ]

    assert one["to"] == "+15550100001"
    assert [answer.keys() for answer in answers] == [vendor("answer_several.json").keys()] * 4
    assert [[fax["to"] for fax in answer["faxes"]] for answer in answers] == [numbers] * 4
    assert len({fax["id"] for answer in answers for fax in answer["faxes"]}) == 8
    assert len(carrier.faxes(tag)) == 8


ALL_FIELDS = {
    "from": "+15550100098",
    "headerText": "x" * 50,
    "headerPageNumbers": False,
    "headerTimeZone": "Europe/Berlin",
    "labels": {"faxbot": "all", "other": "2"},
    "callbackUrl": "http://127.0.0.1:9/x",
    "callbackUrlContentType": JSON,
    "maxRetries": 5,
    "retryDelaySeconds": 300,
    "imageConversionMethod": "MONOCHROME",
    "resolution": "SUPERFINE",
    "coverPageId": "01HDF5S9P29WC29J578J8EKC1C",
    "serviceId": SERVICE_ID,
}


def as_form(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What JSON has, as form fields."""
    form: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            form |= {f"{name}[{key}]": each for key, each in value.items()}
        elif isinstance(value, bool):
            form[name] = str(value).lower()
        else:
            form[name] = str(value)
    return form


def test_every_documented_field_is_taken_and_shown_in_both_forms(carrier: SinchProcess) -> None:
    more = {**ALL_FIELDS, "coverPageData": {"to_name": "x"}, "inProgressNotifications": True}
    for answer in (send(carrier, **as_form(more)), send_json(carrier, **more)):
        assert answer.status_code == 200, answer.text
        shown = get(carrier, answer.json()["id"])
        assert {name: shown[name] for name in ALL_FIELDS} == ALL_FIELDS


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"lables": "x"}, "lables"),
        ({"header_text": "x"}, "header_text"),
        ({"callback_url": "http://x/"}, "callback_url"),
        ({"status": "QUEUED"}, "status"),
        ({"batch_delay": 5}, "batch_delay"),
        ({"headerText": "x" * 51}, "headerText"),
        ({"headerPageNumbers": "yes"}, "headerPageNumbers"),
        ({"headerTimeZone": "Mars/Olympus"}, "headerTimeZone"),
        ({"headerTimeZone": "../../etc/passwd"}, "headerTimeZone"),
        ({"callbackUrl": "ftp://x/"}, "callbackUrl"),
        ({"callbackUrl": "https://"}, "callbackUrl"),
        ({"callbackUrl": "fax.example.com"}, "callbackUrl"),
        ({"callbackUrlContentType": "text/plain"}, "callbackUrlContentType"),
        ({"maxRetries": 6}, "maxRetries"),
        ({"maxRetries": -1}, "maxRetries"),
        ({"maxRetries": "many"}, "maxRetries"),
        ({"retryDelaySeconds": 29}, "retryDelaySeconds"),
        ({"retryDelaySeconds": 301}, "retryDelaySeconds"),
        ({"imageConversionMethod": "halftone"}, "imageConversionMethod"),
        ({"resolution": "fine"}, "resolution"),
        ({"coverPageData": {"To_Name": "x"}}, "coverPageData"),
        ({"serviceId": "another"}, "serviceId"),
        ({"inProgressNotifications": "1"}, "inProgressNotifications"),
        ({"from": "5550100"}, "from"),
        ({"contentUrl": "file:///etc/passwd"}, "contentUrl"),
        ({"to": "+15551"}, "to"),
        ({"to": "15550100000"}, "to"),
        ({"to": "+15550100000,+1555x"}, "to"),
        ({"to": "+1555010\u0660000"}, "to"),
    ],
)
def test_a_field_that_is_wrong_or_unknown_is_named_and_nothing_is_taken(
    carrier: SinchProcess, fields: dict[str, Any], field: str, tag: str
) -> None:
    given = {"labels": {"faxbot": tag}, **fields}
    before = carrier.counts()
    form = {"to": "+15550100000", **as_form(given)}
    answers = [
        call("POST", f"{carrier.api}/faxes", data=form, files={"file": ("fax.pdf", PDF)}),
        send_json(carrier, **given),
    ]

    for answer in answers:
        assert answer.status_code == 422, answer.text
        (violation,) = answer.json()["details"]["fieldViolations"]
        assert violation["field"] == field
        assert answer.json().keys() == vendor("errors/422.json").keys()
    after = carrier.counts()
    assert after["accepted"] == before["accepted"]
    assert after["refused"] == before["refused"] + 2


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"maxRetries": "3"}, "maxRetries"),
        ({"maxRetries": True}, "maxRetries"),
        ({"maxRetries": 1.5}, "maxRetries"),
        ({"labels": {"faxbot": 1}}, "labels"),
        ({"labels": ["x"]}, "labels"),
        ({"labels": None, "label": "x"}, "label"),
        ({"headerText": 5}, "headerText"),
        ({"to": {"number": "+15550100000"}}, "to"),
        ({"to": [15550100000]}, "to"),
        ({"files": {"file": "", "fileType": "PDF"}}, "files"),
        ({"files": [{"file": ""}]}, "files"),
        ({"files": [{"file": "", "fileType": "pdf"}]}, "files.fileType"),
        ({"files": [{"file": "?", "fileType": "PDF"}]}, "files.file"),
        ({"files": [{"file": 5, "fileType": "PDF"}]}, "files.file"),
        ({"contentUrl": []}, "contentUrl"),
    ],
)
def test_json_of_a_wrong_type_is_named(
    carrier: SinchProcess, fields: dict[str, Any], field: str
) -> None:
    answer = send_json(carrier, **fields)
    assert answer.status_code == 422, answer.text
    assert answer.json()["details"]["fieldViolations"][0]["field"] == field


@pytest.mark.parametrize(
    ("files", "field"),
    [
        ({"document": ("fax.pdf", PDF)}, "document"),
        ({"file[]": ("fax.pdf", PDF)}, "file[]"),
        ({"file": (None, "text")}, "file"),
        ({"labels": (None, "[object Object]"), "file": ("fax.pdf", PDF)}, "labels"),
        ({"file": ("fax.pdf", b"%PDF" + b"x" * 20 * 1024 * 1024)}, "file"),
    ],
)
def test_a_form_that_is_put_together_wrongly_is_named(
    carrier: SinchProcess, files: dict[str, Any], field: str
) -> None:
    answer = call("POST", f"{carrier.api}/faxes", data={"to": "+15550100000"}, files=files)
    assert answer.status_code == 422, answer.text
    assert answer.json()["details"]["fieldViolations"][0]["field"] == field


@pytest.mark.parametrize(
    "more",
    [
        {"data": {"to": "+15550100000"}},
        {"data": b"{", "headers": {"Content-Type": JSON}},
        {"data": b"[" * 100_000, "headers": {"Content-Type": JSON}},
        {"data": b"[]", "headers": {"Content-Type": JSON}},
        {"data": b"\xff\xfe", "headers": {"Content-Type": JSON}},
        {"data": b"", "headers": {"Content-Type": MULTIPART}},
        {"json": {"to": "+15550100000"}},
        {"json": {"contentUrl": "http://127.0.0.1:9/"}},
        {"json": {"to": [], "contentUrl": "http://127.0.0.1:9/"}},
        {"data": {"from": "+15550100000"}, "files": {"file": ("fax.pdf", PDF)}},
    ],
)
def test_what_is_no_submission_is_400_and_the_body_says_404(
    carrier: SinchProcess, more: dict[str, Any]
) -> None:
    answer = call("POST", f"{carrier.api}/faxes", **more)
    assert answer.status_code == 400
    assert answer.json() == vendor("errors/400.json")


@pytest.mark.parametrize(
    ("ending", "mood", "name"),
    [
        ("0400", "json", "errors/400.json"),
        ("0400", "printed", "errors/400.txt"),
        ("0402", "json", "errors/402.json"),
        ("0403", "json", "errors/403_schema.json"),
        ("0404", "json", "errors/404.json"),
        ("0404", "schema", "errors/404_schema.json"),
        ("0500", "json", "errors/500.json"),
    ],
)
def test_refusals_are_the_vendors_bodies(
    carrier: SinchProcess, ending: str, mood: str, name: str
) -> None:
    carrier.moods(errors=mood)
    answer = send(carrier, f"+1555010{ending}")

    assert answer.status_code == int(ending)
    if name.endswith(".txt"):
        assert answer.content == (VENDOR / name).read_bytes()
    else:
        assert answer.json() == vendor(name)


@pytest.mark.parametrize(
    ("mood", "name"),
    [
        ("json", "errors/422.json"),
        ("schema", "errors/422_schema.json"),
        ("printed", "errors/422.txt"),
    ],
)
def test_a_number_that_is_none_is_refused_in_the_vendors_words(
    carrier: SinchProcess, mood: str, name: str
) -> None:
    carrier.moods(errors=mood)
    answer = send(carrier, "+15551")

    assert answer.status_code == 422
    if name.endswith(".txt"):
        assert answer.content == (VENDOR / name).read_bytes()
    else:
        assert answer.json() == vendor(name)


def test_429_has_no_body_and_no_time_and_is_over_after_a_while(carrier: SinchProcess) -> None:
    first, headers, _ = vendor_message("errors/429.http")
    answer = send(carrier, "+15550100429")
    assert f"HTTP/1.1 {answer.status_code} {answer.reason}" == first
    assert (answer.content, answer.headers["Content-Length"]) == (b"", headers["content-length"])
    assert "Retry-After" not in answer.headers
    assert send(carrier, "+15550100430").headers["Retry-After"] == "2"
    eventually(lambda: send(carrier, "+15550100429").status_code == 200, 5.0, 0.2)
    eventually(lambda: send(carrier, "+15550100430").status_code == 200, 5.0, 0.2)


def test_a_callback_address_that_cannot_be_reached_is_named_without_its_credentials(
    carrier: SinchProcess,
) -> None:
    answer = send(carrier, "+15550100800", callbackUrl="https://u:p@nowhere.example/x")
    assert answer.json().keys() == vendor("errors/800.json").keys()
    assert answer.json() == {"error": "Could not connect to URL: https://***:***@nowhere.example/x"}
