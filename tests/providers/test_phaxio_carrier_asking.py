"""What can be asked of the stand-in Phaxio: lists, cancelling, sending again, files, deleting."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.callbacks import Receiver
from tests.ground import eventually
from tests.phaxio_carrier import (
    PDF,
    PhaxioProcess,
    call,
    ended,
    fax,
    news,
    sent,
)

VENDOR = Path(__file__).parent / "vendor" / "phaxio"


def vendor(name: str) -> Any:
    return json.loads((VENDOR / name).read_text("utf-8-sig"))


@pytest.fixture(scope="module")
def carrier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PhaxioProcess]:
    with PhaxioProcess(tmp_path_factory.mktemp("phaxio")) as process:
        yield process


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PhaxioProcess]:
    """A page takes a while, so that what is on its way can be seen."""
    with PhaxioProcess(tmp_path_factory.mktemp("slow"), page_seconds=0.3) as process:
        yield process


# lists


def test_a_list_is_filtered_and_paged(tmp_path: Path) -> None:
    with PhaxioProcess(tmp_path) as carrier:
        ids = [sent(carrier, last, **{"tag[a]": last[-1]}) for last in ("2017", "0001", "0002")]
        for number in ids:
            ended(carrier, number)
        carrier.control(
            "POST",
            "receive",
            b"from_number=%2B15550170001&to_number=%2B15550170002",
            "application/x-www-form-urlencoded",
        )
        received = call(carrier, "GET", "faxes?direction=received").json()["data"][0]["id"]
        past = quote("2021-11-04T16:28:30.000-05:00")
        now = quote(datetime.now().astimezone().isoformat())

        def listed(query: str) -> list[int]:
            answer = call(carrier, "GET", f"faxes?{query}")
            assert answer.status_code == 200
            return [each["id"] for each in answer.json()["data"]]

        assert listed("") == [received, *reversed(ids)]
        assert listed("direction=sent") == [*reversed(ids)]
        assert listed("status=failure") == [ids[0]]
        assert listed(f"phone_number={quote('+15550100001')}") == [ids[1]]
        assert listed(f"phone_number={quote('+1555010')}") == []
        assert listed("tag[a]=2") == [ids[2]]
        assert listed("tag[a]=2&tag[b]=2") == []
        assert listed(f"created_before={past}") == listed(f"created_after={now}") == []
        assert len(listed(f"created_after={past}&created_before={now}")) == 4
        page = call(carrier, "GET", "faxes?per_page=3&page=2")
        assert page.json()["paging"] == {"total": 4, "per_page": 3, "page": 2}
        assert [each["id"] for each in page.json()["data"]] == [ids[0]]
        names = ("x-total", "x-page", "x-per-page")
        assert [page.headers[name] for name in names] == ["4", "2", "3"]


@pytest.mark.parametrize(
    "query",
    [
        *("per_page=0", "per_page=1001", "page=0", "page=x", "created_after=yesterday"),
        *("status=sent", "direction=out", "tags[a]=1", "to=x", "created_before=9999-12-31"),
    ],
)
def test_a_filter_that_is_none_is_refused(carrier: PhaxioProcess, query: str) -> None:
    sent(carrier)
    assert call(carrier, "GET", f"faxes?{query}").status_code == (
        200 if query.endswith("9999-12-31") else 422
    )


# cancel, resend, files, deleting


def test_a_cancellation_is_scheduled_and_ends_as_75(carrier: PhaxioProcess) -> None:
    number = sent(carrier, "0055")
    eventually(lambda: fax(carrier, number)["status"] == "inprogress")
    answer = call(carrier, "POST", f"faxes/{number}/cancel").json()
    assert answer["data"] == {"id": number}
    end = ended(carrier, number)
    assert (end["status"], end["error_type"], end["error_id"]) == ("failure", "faxError", 75)


def test_a_cancellation_that_comes_too_late_is_79(carrier: PhaxioProcess) -> None:
    number = sent(carrier)
    assert ended(carrier, number)["error_id"] is None
    answer = call(carrier, "POST", f"faxes/{number}/cancel")
    assert (answer.status_code, answer.json()["success"]) == (422, False)
    last = fax(carrier, number)
    assert (last["status"], last["error_type"], last["error_id"]) == ("success", "faxError", 79)


def test_a_cancellation_may_be_scheduled_and_come_too_late(slow: PhaxioProcess) -> None:
    number = sent(slow, "0079")
    assert call(slow, "POST", f"faxes/{number}/cancel").status_code == 200
    end = ended(slow, number)
    assert (end["status"], end["error_id"]) == ("success", 79)


def test_a_cancel_timeout_ends_as_76(carrier: PhaxioProcess) -> None:
    end = ended(carrier, sent(carrier, "0055", cancel_timeout="3"))
    assert (end["status"], end["error_type"], end["error_id"]) == ("failure", "faxError", 76)


def test_a_fax_is_sent_again_under_a_new_id(carrier: PhaxioProcess) -> None:
    with Receiver() as receiver:
        number = sent(carrier, "2017", **{"tag[faxbot]": "again"})
        ended(carrier, number)
        answer = call(
            carrier, "POST", f"faxes/{number}/resend", data={"callback_url": receiver.url}
        ).json()
        again = answer["data"]["id"]
        assert again != number
        assert ended(carrier, again)["tags"] == {"faxbot": "again"}
        eventually(lambda: [json.loads(each["fax"])["id"] for each in news(receiver)] == [again])
    assert carrier.counts()["tags_accepted_twice"] > 0
    refused = call(carrier, "POST", f"faxes/{number}/resend", data={"to": "+15550100001"})
    assert refused.status_code == 422


def test_a_file_is_given_back_until_it_is_deleted(carrier: PhaxioProcess) -> None:
    number = sent(carrier)
    ended(carrier, number)
    answer = call(carrier, "GET", f"faxes/{number}/file")
    assert (answer.content, answer.headers["content-type"]) == (PDF, "application/pdf")
    assert answer.headers["content-disposition"] == f'attachment; filename="fax-{number}.pdf"'
    for size in ("s", "l"):
        thumbnail = call(carrier, "GET", f"faxes/{number}/file?thumbnail={size}")
        assert thumbnail.headers["content-type"] == "image/jpeg"
        assert thumbnail.content.startswith(b"\xff\xd8\xff")
    assert call(carrier, "GET", f"faxes/{number}/file?thumbnail=x").status_code == 422
    assert call(carrier, "DELETE", f"faxes/{number}/file").status_code == 200
    gone = call(carrier, "GET", f"faxes/{number}/file")
    assert (gone.status_code, gone.json()) == (404, vendor("answers/not_found.json"))
    again = call(carrier, "POST", f"faxes/{number}/resend").json()["data"]["id"]
    assert ended(carrier, again)["error_id"] == 113


def test_a_deleted_fax_is_gone_for_its_client_and_counted_still(carrier: PhaxioProcess) -> None:
    number = sent(carrier, **{"tag[faxbot]": "deleted"})
    ended(carrier, number)
    assert call(carrier, "DELETE", f"faxes/{number}").status_code == 200
    assert call(carrier, "GET", f"faxes/{number}").status_code == 404
    assert call(carrier, "GET", "faxes?tag[faxbot]=deleted").json()["data"] == []
    assert len(carrier.faxes("deleted")) == 1
