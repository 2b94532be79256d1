"""Phaxio's codes in our words: every code that is published has a cause, and a type of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from faxbot.events import CAUSES as CANONICAL
from faxbot.events import Retry
from faxbot.plugins.base import State
from faxbot.providers.phaxio.faxes import CAUSES, STATES, update_of
from tests.providers.phaxio import MANIFEST, vendor

PAGE = (Path(__file__).parents[2] / "docs/providers/phaxio.md").read_text(encoding="utf-8")
PUBLISHED = {
    "documentConversionError": {4, 51, 54, 55, 57, 69, 122, 128, 129, 130, 133},
    "lineError": {
        *(11, 15, 16, 17, 19, 30, 32, 34, 35, 36, 37, 39, 43, 47, 49, 50, 52, 56, 58, 59, 61, 62),
        *(64, 71, 73, 74, 81, 83, 85, 87, 88, 89, 90, 91, 92, 93, 94, 95, 96, 97, 98, 99, 100),
        *(101, 102, 103, 104, 106, 107, 108, 109, 110, 111, 112, 114, 115, 116, 118, 121, 123),
        124,
    },
    "faxError": {
        *(6, 7, 8, 10, 12, 13, 14, 18, 20, 21, 22, 25, 26, 28, 29, 31, 33, 38, 40, 41, 42, 44),
        *(45, 46, 48, 53, 60, 63, 65, 66, 67, 68, 70, 72, 75, 76, 77, 78, 79, 80, 82, 84, 113),
        *(117, 119, 131, 132, 133),
    },
    "fatalError": {9, 23, 24, 126},
    "generalError": {3, 5, 86, 105, 120, 125},
}


def failed(kind: object, number: object) -> dict[str, object]:
    fax: dict[str, object] = vendor("faxes/failure_busy.json")
    return {**fax, "error_type": kind, "error_id": number, "recipients": []}


def test_the_table_holds_every_published_code_and_no_other() -> None:
    codes = {(kind, number) for kind, numbers in PUBLISHED.items() for number in numbers}

    assert set(CAUSES) == codes
    assert set(CAUSES.values()) <= set(CANONICAL) - {"unknown"}


@pytest.mark.parametrize(
    ("kind", "number", "cause"),
    [
        ("documentConversionError", 133, "doc_unreadable"),
        ("faxError", 133, "policy"),
        ("documentConversionError", 54, "doc_fetch_failed"),
        ("lineError", 17, "busy"),
        ("lineError", 15, "congestion"),
        ("lineError", 30, "no_answer"),
        ("lineError", 89, "dropped_early"),
        ("lineError", 34, "number_dead"),
        ("lineError", 115, "number_dead"),
        ("lineError", 52, "no_route"),
        ("lineError", 107, "no_fax_tone"),
        ("lineError", 109, "no_fax_tone"),
        ("lineError", 32, "bearer"),
        ("faxError", 132, "no_fax_tone"),
        ("faxError", 53, "page_failed"),
        ("faxError", 7, "incompatible_image"),
        ("faxError", 75, "cancelled"),
        ("faxError", 46, "funds"),
        ("generalError", 86, "funds"),
        ("fatalError", 23, "system"),
        ("faxError", 17, "unknown"),
        ("lineError", 133, "unknown"),
        ("lineError", 9999, "unknown"),
        ("LineError", 17, "unknown"),
        ("lineError", "17", "unknown"),
        ("lineError", True, "unknown"),
        ("lineError", None, "unknown"),
        (None, 17, "unknown"),
        ([], {}, "unknown"),
    ],
)
def test_a_code_means_what_it_means_with_its_type(kind: object, number: object, cause: str) -> None:
    update = update_of(failed(kind, number))

    assert (update.state, update.cause) == (State.FAILED, cause)


def test_the_error_may_stand_at_the_recipient_alone() -> None:
    at_recipient = {"error_type": "lineError", "error_id": 16}

    for recipients, cause in (
        ([at_recipient], "no_answer"),
        ([{}], "unknown"),
        (["x"], "unknown"),
        ("x", "unknown"),
        ({}, "unknown"),
    ):
        assert update_of({**failed(None, None), "recipients": recipients}).cause == cause
    assert update_of({**failed("lineError", 17), "recipients": [at_recipient]}).cause == "busy"


@pytest.mark.parametrize(
    "code", [("fatalError", 23), ("generalError", 3), ("faxError", 79), ("lineError", 9999)]
)
def test_what_may_have_arrived_is_not_sent_again(code: tuple[str, int]) -> None:
    cause = update_of(failed(*code)).cause

    assert cause is not None
    assert CANONICAL[cause].retry is Retry.VERIFY


@pytest.mark.parametrize("code", [code for code, cause in CAUSES.items() if cause == "funds"])
def test_an_account_without_money_holds_its_faxes(code: tuple[str, int]) -> None:
    assert CANONICAL[CAUSES[code]].retry is Retry.HOLD


def test_the_page_has_every_code_with_its_cause_and_every_setting() -> None:
    rows = re.findall(r"^\| `(\w+Error)` \| ([0-9, ]+) \| `(\w+)` \|$", PAGE, re.M)

    told = [((kind, int(number)), cause) for kind, ids, cause in rows for number in ids.split(",")]
    assert sorted(told) == sorted(CAUSES.items())
    for names in MANIFEST.variables.values():
        assert f"`{names[0]}`" in PAGE


def test_success_alone_is_a_delivery() -> None:
    assert [word for word, state in STATES.items() if state is State.DELIVERED] == ["success"]


def test_the_manifest_promises_no_more_than_is_known() -> None:
    assert not MANIFEST.has("absence_is_proof")
    assert MANIFEST.values("accepts")[0] == "application/pdf"
    assert MANIFEST.secrets == {"apiKey", "apiSecret", "callbackToken"}
    assert {names[0] for names in MANIFEST.variables.values()} == {
        "PHAXIO_API_KEY",
        "PHAXIO_API_SECRET",
        "PHAXIO_BASE_URL",
        "PHAXIO_CALLBACK_TOKEN",
        "PHAXIO_CALLER_ID",
        "PHAXIO_CANCEL_TIMEOUT_MINUTES",
        "PHAXIO_SEND_BY_LINK",
    }
