"""The stand-in Sinch as a process: submissions that go wrong, what becomes of a fax, what is kept and listed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import requests

from faxbot.carriers.pages import blank_pdf
from faxbot.carriers.sinch.listing import span
from faxbot.carriers.sinch.numbers import OUTCOMES, TYPES, outcome
from faxbot.carriers.sinch.submission import SERVICE_ID
from tests.ground import eventually
from tests.sinch_carrier import (
    FINAL,
    PDF,
    PROJECT,
    SinchProcess,
    call,
    ended,
    found,
    get,
    send,
    send_json,
    vendor,
)


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


# submissions that go wrong

BODIES: Mapping[str, Any] = {
    "0201": b"<html><body>OK</body></html>",
    "0202": b"",
    "0501": vendor("errors/500.json"),
}


@pytest.mark.parametrize("ending", [each for each in OUTCOMES if OUTCOMES[each].reply != "fax"])
def test_what_was_taken_and_not_rightly_answered_is_found_by_its_label(
    carrier: SinchProcess, ending: str, tag: str
) -> None:
    number = f"+1555010{ending}"
    hangs = OUTCOMES[ending].reply == "hang"
    answer = None
    try:
        answer = send(carrier, number, labels__faxbot=tag, timeout=0.5 if hangs else 10)
    except requests.RequestException:
        assert OUTCOMES[ending].reply in ("hang", "drop")

    (entry,) = eventually(lambda: carrier.faxes(tag))
    assert entry["submissions"] == 1
    if ending == "0505":
        assert found(carrier, tag) == [], "the list is behind"
        assert get(carrier, entry["id"])["id"] == entry["id"]
    (fax,) = eventually(lambda: found(carrier, tag, to=number))
    assert fax["id"] == entry["id"]
    assert ended(carrier, fax["id"])["status"] == ("FAILURE" if ending == "0506" else "COMPLETED")
    if answer is None:
        return
    assert answer.status_code == (500 if ending == "0501" else 200)
    if ending in BODIES:
        body = BODIES[ending]
        assert (answer.content if isinstance(body, bytes) else answer.json()) == body
    elif ending == "0203":
        assert "id" not in answer.json()
        assert answer.json()["labels"] == {"faxbot": tag}
    elif ending == "0204":
        assert [each["id"] for each in answer.json()["faxes"]] == [fax["id"]]
    elif ending == "0205":
        assert [each["id"] for each in answer.json()] == [fax["id"]]
    else:
        with pytest.raises(requests.JSONDecodeError):
            answer.json()


@pytest.mark.parametrize("ending", [each for each in OUTCOMES if OUTCOMES[each].refused])
def test_what_is_refused_is_counted_and_not_taken(tmp_path: Path, ending: str) -> None:
    with SinchProcess(tmp_path) as carrier:
        status = 0
        try:
            status = send(
                carrier,
                f"+1555010{ending}",
                labels__faxbot="t",
                timeout=0.5 if ending == "0508" else 10,
            ).status_code
        except requests.RequestException:
            assert ending in ("0507", "0508")
        expected = {"0430": 429, "0502": 500, "0507": 0, "0508": 0, "0800": 400}
        assert status == expected.get(ending, int(ending))
        eventually(lambda: carrier.counts()["refused"] == 1)
        assert carrier.counts()["accepted"] == 0
        assert found(carrier, "t") == []
        send(carrier, "+15550100000", labels__faxbot="t")
        assert carrier.faxes("t")[0]["submissions"] == 2


def test_an_account_without_money_refuses_everything_until_it_is_paid(
    carrier: SinchProcess,
) -> None:
    carrier.moods(account="unpaid")
    answer = send(carrier)
    assert (answer.status_code, answer.json()) == (402, vendor("errors/402.json"))
    assert call("GET", f"{carrier.api}/services").status_code == 200
    carrier.moods(account="paid")
    assert send(carrier).status_code == 200


# what becomes of a fax


@pytest.mark.parametrize(
    ("ending", "kind", "code", "retries"),
    [
        # one of every class of the vendor's errors, and whether the vendor itself redials
        ("2017", "CALL_ERROR", 17, 1),
        ("2015", "CALL_ERROR", 15, 1),
        ("2016", "CALL_ERROR", 16, 1),
        ("3048", "FAX_ERROR", 48, 1),
        ("2019", "CALL_ERROR", 19, 1),
        ("6089", "LINE_ERROR", 89, 1),
        ("3040", "FAX_ERROR", 40, 1),
        ("3006", "FAX_ERROR", 6, 1),
        ("3131", "FAX_ERROR", 131, 1),
        ("3132", "FAX_ERROR", 132, 1),
        ("4009", "FATAL_ERROR", 9, 0),
        ("3076", "FAX_ERROR", 76, 0),
        ("2034", "CALL_ERROR", 34, 0),
        ("2073", "CALL_ERROR", 73, 0),
        ("2050", "CALL_ERROR", 50, 0),
        ("6050", "LINE_ERROR", 50, 0),
        ("3133", "FAX_ERROR", 133, 0),
        ("2032", "CALL_ERROR", 32, 0),
        ("3007", "FAX_ERROR", 7, 0),
        ("2052", "CALL_ERROR", 52, 0),
        ("1128", "DOCUMENT_CONVERSION_ERROR", 128, 0),
        ("1133", "DOCUMENT_CONVERSION_ERROR", 133, 0),
        ("3113", "FAX_ERROR", 113, 0),
        ("1054", "DOCUMENT_CONVERSION_ERROR", 54, 0),
        ("1057", "DOCUMENT_CONVERSION_ERROR", 57, 0),
        ("5005", "GENERAL_ERROR", 5, 0),
        ("3046", "FAX_ERROR", 46, 0),
        ("5003", "GENERAL_ERROR", 3, 0),
        ("4023", "FATAL_ERROR", 23, 0),
        ("3075", "FAX_ERROR", 75, 0),
        ("3079", "FAX_ERROR", 79, 0),
        ("2107", "CALL_ERROR", 107, 1),
        ("2121", "CALL_ERROR", 121, 0),
        ("2999", "CALL_ERROR", 999, 1),
        ("0094", "FATAL_ERROR", None, 0),
        ("0095", "GENERAL_ERROR", None, 0),
        ("0098", None, None, 0),
        ("0099", "GREMLIN_ERROR", 1, 0),
    ],
)
def test_the_number_chooses_the_error(
    carrier: SinchProcess, ending: str, kind: str | None, code: int | None, retries: int
) -> None:
    fax = ended(carrier, send(carrier, f"+1555010{ending}", maxRetries="1").json()["id"])

    assert fax["status"] == "FAILURE"
    assert (fax.get("errorType"), fax.get("errorCode")) == (kind, code)
    assert fax["retryCount"] == retries
    assert fax["pagesSentSuccessfully"] == (1 if ending == "3131" else 0)


@pytest.mark.parametrize("digit", TYPES)
def test_every_type_takes_every_code(digit: str) -> None:
    for code in range(1000):
        error = outcome(f"{digit}{code:03}").error
        assert error is not None
        assert (error.type, error.code) == (TYPES[digit], code)


@pytest.mark.parametrize("ending", ["0000", "9898", "7017", "0001"])
def test_an_ending_without_a_meaning_is_delivered(carrier: SinchProcess, ending: str) -> None:
    fax = ended(carrier, send(carrier, f"+1989898{ending}").json()["id"])
    assert (fax["status"], fax["pagesSentSuccessfully"], fax["numberOfPages"]) == (
        "COMPLETED",
        3,
        3,
    )


def test_the_vendor_redials_as_often_and_as_late_as_it_is_told(tmp_path: Path) -> None:
    with SinchProcess(tmp_path, scale=0.01) as carrier:
        for retries in (0, 2):
            began = time.monotonic()
            fields: dict[str, Any] = {"maxRetries": str(retries), "retryDelaySeconds": "30"}
            fax = ended(carrier, send(carrier, "+15550102017", **fields).json()["id"])
            took = time.monotonic() - began
            assert (fax["status"], fax["retryCount"]) == ("FAILURE", retries)
            assert retries * 0.3 <= took < retries * 0.3 + 20


@pytest.mark.parametrize(
    ("ending", "retries", "status"),
    [
        ("0089", 1, "COMPLETED"),
        ("0089", 0, "FAILURE"),
        ("0090", 0, "COMPLETED"),
    ],
)
def test_a_completed_fax_shows_the_error_of_an_earlier_try(
    carrier: SinchProcess, ending: str, retries: int, status: str
) -> None:
    sent = send(carrier, f"+1555010{ending}", maxRetries=str(retries)).json()
    fax = ended(carrier, sent["id"])
    assert (fax["status"], fax["errorType"], fax["errorCode"]) == (status, "LINE_ERROR", 89)


def test_a_page_may_be_missing_from_what_is_called_completed(carrier: SinchProcess) -> None:
    fax = ended(carrier, send(carrier, "+15550100048").json()["id"])
    pages = (fax["numberOfPages"], fax["pagesSentSuccessfully"])
    assert (fax["status"], pages) == ("COMPLETED", (3, 2))


@pytest.mark.parametrize(("ending", "midway"), [("0000", "IN_PROGRESS"), ("0097", "PAUSED")])
def test_a_fax_is_queued_then_on_its_way_then_completed(
    slow: SinchProcess, ending: str, midway: str
) -> None:
    sent = send(slow, f"+1555010{ending}").json()
    seen = [sent["status"]]
    while seen[-1] not in FINAL:
        status = get(slow, sent["id"])["status"]
        seen += [status] if status != seen[-1] else []
        time.sleep(0.02)
    assert seen == ["QUEUED", midway, "COMPLETED"]


@pytest.mark.parametrize(
    ("name", "document", "error"),
    [
        ("fax.pdf", PDF[:-8], ("DOCUMENT_CONVERSION_ERROR", 133)),
        ("fax.pdf", b"", ("DOCUMENT_CONVERSION_ERROR", 133)),
        ("fax.tif", PDF, ("DOCUMENT_CONVERSION_ERROR", 129)),
        ("fax.xlsx", PDF, ("DOCUMENT_CONVERSION_ERROR", 128)),
        ("fax", PDF, ("DOCUMENT_CONVERSION_ERROR", 128)),
        ("fax.PDF", PDF, None),
        ("fax.txt", b"Dear colleague", None),
    ],
)
def test_a_document_is_taken_at_first_and_fails_later(
    carrier: SinchProcess, name: str, document: bytes, error: tuple[str, int] | None
) -> None:
    answer = send(carrier, document=document, name=name)
    assert answer.status_code == 200
    fax = ended(carrier, answer.json()["id"])
    kept = (fax["errorType"], fax["errorCode"]) if "errorType" in fax else None
    assert kept == error


def test_of_several_documents_the_first_that_is_unreadable_fails_the_fax(
    carrier: SinchProcess,
) -> None:
    files = [("file", ("a.tif", b"no")), ("file", ("b.pdf", b"no")), ("file", ("c.pdf", PDF))]
    sent = call("POST", f"{carrier.api}/faxes", data={"to": "+15550100000"}, files=files).json()
    fax = ended(carrier, sent["id"])
    assert (fax["errorType"], fax["errorCode"]) == ("DOCUMENT_CONVERSION_ERROR", 129)
    good = [("file", ("a.pdf", PDF)), ("file", ("b.txt", b"text"))]
    sent = call("POST", f"{carrier.api}/faxes", data={"to": "+15550100000"}, files=good).json()
    assert ended(carrier, sent["id"])["numberOfPages"] == 4


class _Content(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        known = self.headers.get("Authorization") == "Basic dTpw"
        self.send_response(200 if known else 401)
        self.send_header("Content-Type", "application/pdf")
        self.end_headers()
        self.wfile.write(PDF if known else b"")

    def log_message(self, *arguments: object) -> None:
        """Silent."""


def test_content_is_fetched_with_its_credentials_and_stands_before_the_files(
    carrier: SinchProcess,
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Content) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        url = f"http://u:p@127.0.0.1:{server.server_port}/fax.pdf"
        both = ended(carrier, send(carrier, contentUrl=f"{url},{url}").json()["id"])
        refused = send_json(carrier, files=None, contentUrl=url.replace("u:p", "u:x")).json()
        failed = ended(carrier, refused["id"])
        server.shutdown()

    assert (both["status"], both["numberOfPages"]) == ("COMPLETED", 9)
    assert (failed["errorType"], failed["errorCode"]) == ("DOCUMENT_CONVERSION_ERROR", 54)


# what is kept


def test_what_was_faxed_is_given_back_as_pdf_until_it_is_deleted(carrier: SinchProcess) -> None:
    fax_id = send(carrier).json()["id"]
    ended(carrier, fax_id)
    text_id = send(carrier, document=b"text", name="a.txt").json()["id"]
    for path in (f"{fax_id}/file", f"{fax_id}/file.pdf"):
        answer = call("GET", f"{carrier.api}/faxes/{path}")
        assert (answer.content, answer.headers["Content-Type"]) == (PDF, "application/pdf")
        assert f"fax-{fax_id}.pdf" in answer.headers["Content-Disposition"]
    assert call("GET", f"{carrier.api}/faxes/{text_id}/file").content == blank_pdf(1)

    deleted = call("DELETE", f"{carrier.api}/faxes/{fax_id}/file")
    assert (deleted.status_code, deleted.content) == (204, b"")
    answer = call("GET", f"{carrier.api}/faxes/{fax_id}/file")
    assert (answer.status_code, answer.json()) == (404, vendor("errors/404.json"))
    assert get(carrier, fax_id)["hasFile"] is False
    assert call("DELETE", f"{carrier.api}/faxes/{fax_id}/file").status_code == 404


def test_a_fax_whose_file_is_deleted_before_the_call_fails(slow: SinchProcess) -> None:
    fax_id = send(slow).json()["id"]
    assert call("DELETE", f"{slow.api}/faxes/{fax_id}/file").status_code == 204
    fax = ended(slow, fax_id)
    assert (fax["errorType"], fax["errorCode"]) == ("FAX_ERROR", 113)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "faxes/01HDF5S9P29WC29J578J8EKC1C"),
        ("GET", "faxes/01HDF5S9P29WC29J578J8EKC1C/file"),
        ("DELETE", "faxes/01HDF5S9P29WC29J578J8EKC1C/file"),
        ("DELETE", "faxes/01HDF5S9P29WC29J578J8EKC1C"),
        ("POST", "faxes/01HDF5S9P29WC29J578J8EKC1C/cancel"),
        ("POST", "files"),
        ("GET", "balance"),
        ("GET", "faxes/a%20b"),
    ],
)
def test_what_is_not_there_is_404(carrier: SinchProcess, method: str, path: str) -> None:
    answer = call(method, f"{carrier.api}/{path}")
    assert (answer.status_code, answer.json()) == (404, vendor("errors/404.json"))
    carrier.moods(errors="schema")
    assert call(method, f"{carrier.api}/{path}").json() == vendor("errors/404_schema.json")


def test_services_are_of_the_vendors_shape(tmp_path: Path) -> None:
    url = "https://a:b@fax.example.com/callbacks/sinch"
    with SinchProcess(tmp_path, incoming_url=url) as carrier:
        answer = call("GET", f"{carrier.api}/services", params={"pageSize": "1"})
        assert call("GET", f"{carrier.api}/services", params={"pageSize": "0"}).status_code == 422
    shape = vendor("services.json")
    shape["services"][0]["projectId"] = PROJECT

    assert answer.json() == shape


# lists


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SinchProcess]:
    """A carrier with five faxes: three to one number, one each to two that begin with it or not."""
    with SinchProcess(tmp_path_factory.mktemp("listed")) as process:
        for number in range(3):
            send(process, "+15550100000", labels__faxbot=f"l{number}")
        send(process, "+155501000009", labels__faxbot="l3")
        ended(process, send(process, "+15550202034", labels__faxbot="l4").json()["id"])
        numbers = {"from": "+15550300001", "to": "+15550100099"}
        process.control("POST", "receive", {**numbers, "callbackUrl": "http://127.0.0.1:9/"})
        eventually(lambda: process.counts()["by_status"] == {"COMPLETED": 5, "FAILURE": 1})
        yield process


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ({}, 6),
        ({"to": "+15550100000"}, 4),
        ({"to": "+155501000009"}, 1),
        ({"to": "+1555010000", "direction": "OUTBOUND"}, 4),
        ({"to": "+1555", "direction": "INBOUND"}, 1),
        ({"from": "+15550300001"}, 1),
        ({"from": "+15550100099"}, 5),
        ({"status": "FAILURE"}, 1),
        ({"status": "COMPLETED", "direction": "OUTBOUND"}, 4),
        ({"status": "QUEUED"}, 0),
        ({"serviceId": SERVICE_ID}, 6),
        ({"createTime": f"{datetime.now(UTC):%Y-%m}"}, 6),
        ({"createTime": "2020"}, 0),
        ({"createTime>": f"{datetime.now(UTC) - timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"}, 6),
        ({"createTime>": f"{datetime.now(UTC) + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"}, 0),
        ({"createTime<": f"{datetime.now(UTC) - timedelta(hours=1):%Y-%m-%dT%H:%M:%S.%fZ}"}, 0),
        ({"createTime<": f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%d}"}, 6),
    ],
)
def test_a_list_shows_what_its_query_asks_for(
    listed: SinchProcess, query: dict[str, str], count: int
) -> None:
    content = call("GET", f"{listed.api}/faxes", params=query).json()
    assert (content["totalItems"], len(content["faxes"])) == (count, count)
    assert content.keys() == vendor("list_empty.json").keys()


def test_a_comparison_stands_in_the_name_of_the_parameter(listed: SinchProcess) -> None:
    since = datetime.now(UTC) - timedelta(hours=1)
    for query in (f"createTime>={since:%Y-%m-%d}", f"createTime%3E={since:%Y-%m-%d}"):
        assert call("GET", f"{listed.api}/faxes?{query}").json()["totalItems"] == 6


def test_pages_of_a_list_hold_every_fax_once_newest_first(listed: SinchProcess) -> None:
    pages = [
        call("GET", f"{listed.api}/faxes", params={"page": str(page), "pageSize": "4"}).json()
        for page in (1, 2, 3)
    ]
    named = ("page", "pageSize", "totalPages", "totalItems")
    shown = [tuple(page[name] for name in named) for page in pages]
    assert shown == [(1, 4, 2, 6), (2, 4, 2, 6), (3, 4, 2, 6)]
    times = [fax["createTime"] for page in pages for fax in page["faxes"]]
    assert len(times) == 6
    assert times == sorted(times, reverse=True)
    listed.moods(page="pageNumber")
    odd = call("GET", f"{listed.api}/faxes").json()
    listed.moods(page="page")
    assert odd.keys() == vendor("list_page_dotnet.json").keys()


def test_a_fax_is_found_by_the_time_that_it_shows(listed: SinchProcess) -> None:
    for fax in call("GET", f"{listed.api}/faxes").json()["faxes"]:
        moment = fax["createTime"]
        query = {"createTime>": moment, "createTime<": moment}
        faxes = call("GET", f"{listed.api}/faxes", params=query).json()["faxes"]
        assert fax["id"] in [each["id"] for each in faxes]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"created_after": "2026"}, "created_after"),
        ({"labels": "faxbot=x"}, "labels"),
        ({"createTime": ">=2026-01-01"}, "createTime"),
        ({"createTime>": "2026-13"}, "createTime"),
        ({"createTime>": "2026-11-01T10:00:00 00:00"}, "createTime"),
        ({"createTime>": "yesterday"}, "createTime"),
        ({"direction": "sent"}, "direction"),
        ({"status": "DELIVERED"}, "status"),
        ({"page": "0"}, "page"),
        ({"pageSize": "1001"}, "pageSize"),
        ({"pageSize": "x"}, "pageSize"),
    ],
)
def test_a_query_that_is_wrong_or_unknown_is_named(
    listed: SinchProcess, query: dict[str, str], field: str
) -> None:
    answer = call("GET", f"{listed.api}/faxes", params=query)
    assert answer.status_code == 422
    assert answer.json()["details"]["fieldViolations"][0]["field"] == field


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2026", "2026-01-01T00:00:00", "2026-12-31T23:59:59.999999"),
        ("2026-02", "2026-02-01T00:00:00", "2026-02-28T23:59:59.999999"),
        ("2026-12", "2026-12-01T00:00:00", "2026-12-31T23:59:59.999999"),
        ("2026-11-20", "2026-11-20T00:00:00", "2026-11-20T23:59:59.999999"),
        ("2026-11-20T08", "2026-11-20T08:00:00", "2026-11-20T08:59:59.999999"),
        ("2026-11-20T08:30Z", "2026-11-20T08:30:00", "2026-11-20T08:30:59.999999"),
        ("2026-11-20T08:30:15+01:00", "2026-11-20T07:30:15", "2026-11-20T07:30:15.999999"),
        ("2026-11-20T08:30:15.250Z", "2026-11-20T08:30:15.25", "2026-11-20T08:30:15.250999"),
    ],
)
def test_a_partial_time_means_all_of_it(text: str, first: str, last: str) -> None:
    since, until = (datetime.fromisoformat(each + "+00:00").timestamp() for each in (first, last))
    assert span(text) == pytest.approx((since, until), abs=2e-6)
