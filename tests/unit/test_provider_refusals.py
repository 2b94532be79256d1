"""What a status, a Retry-After and a body of a carrier's answer prove."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faxbot.errors import (
    AccountRefused,
    DestinationBarred,
    NotSent,
    OutcomeUnknown,
    ProviderError,
    Refused,
    Throttled,
)
from faxbot.events import CAUSES
from faxbot.providers.http import LONGEST_WAIT, Reply, refusal, retry_after


@pytest.mark.parametrize(
    ("status", "kind", "cause"),
    [
        (400, Refused, "rejected"),
        (401, AccountRefused, "trunk_denied"),
        (402, AccountRefused, "funds"),
        (403, DestinationBarred, "trunk_denied"),
        (404, AccountRefused, "config"),
        (405, Refused, "rejected"),
        (408, OutcomeUnknown, "unconfirmed"),
        (409, Refused, "rejected"),
        (413, Refused, "doc_too_large"),
        (415, Refused, "doc_unreadable"),
        (422, Refused, "rejected"),
        (429, Throttled, "congestion"),
        (451, Refused, "rejected"),
        (499, Refused, "rejected"),
        (500, OutcomeUnknown, "unconfirmed"),
        (502, OutcomeUnknown, "unconfirmed"),
        (503, OutcomeUnknown, "unconfirmed"),
        (504, OutcomeUnknown, "unconfirmed"),
        (599, OutcomeUnknown, "unconfirmed"),
        (200, OutcomeUnknown, "unconfirmed"),
        (100, OutcomeUnknown, "unconfirmed"),
        (301, AccountRefused, "config"),
        (302, OutcomeUnknown, "unconfirmed"),
        (303, OutcomeUnknown, "unconfirmed"),
        (304, OutcomeUnknown, "unconfirmed"),
        (307, AccountRefused, "config"),
        (308, AccountRefused, "config"),
    ],
)
def test_the_status_of_a_submit_says_what_is_proven(
    status: int, kind: type[ProviderError], cause: str
) -> None:
    error = refusal(status, {})
    assert type(error) is kind
    assert error.cause == cause


@given(
    status=st.integers(100, 599),
    headers=st.dictionaries(st.sampled_from(["Retry-After", "Date"]), st.text()),
)
def test_every_status_is_some_proof_and_every_cause_is_canonical(
    status: int, headers: Mapping[str, str]
) -> None:
    error = refusal(status, headers)
    assert isinstance(error, NotSent | OutcomeUnknown)
    assert error.cause in CAUSES
    assert error.retry_after is None or 0 <= error.retry_after <= LONGEST_WAIT


def test_the_carriers_own_word_names_the_cause() -> None:
    assert refusal(422, {}, cause="number_invalid").cause == "number_invalid"
    assert type(refusal(403, {}, cause="policy", blames_destination=True)) is Refused
    assert type(refusal(401, {}, blames_destination=True)) is AccountRefused


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": " 7 "}, 7.0),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "-3"}, None),
        ({"Retry-After": "1.5"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "9" * 400}, LONGEST_WAIT),
        ({"Retry-After": "²"}, None),
        (
            {
                "Retry-After": "Wed, 21 Oct 2026 07:28:10 GMT",
                "Date": "Wed, 21 Oct 2026 07:28:00 GMT",
            },
            10.0,
        ),
        (
            {
                "Retry-After": "Wed, 21 Oct 2026 07:28:10 -0000",
                "Date": "Wed, 21 Oct 2026 07:28:00 GMT",
            },
            10.0,
        ),
        (
            {
                "Retry-After": "Wed, 21 Oct 2026 07:27:00 GMT",
                "Date": "Wed, 21 Oct 2026 07:28:00 GMT",
            },
            0.0,
        ),
        (
            {
                "Retry-After": "Wed, 21 Oct 2099 07:28:10 GMT",
                "Date": "Wed, 21 Oct 2026 07:28:00 GMT",
            },
            LONGEST_WAIT,
        ),
    ],
)
def test_retry_after_is_read_in_seconds_or_as_a_date(
    headers: Mapping[str, str], seconds: float | None
) -> None:
    assert retry_after(headers) == seconds


def test_a_retry_after_date_is_held_against_our_clock_where_the_carrier_gives_none() -> None:
    until = email.utils.formatdate(time.time() + 60, usegmt=True)
    assert 55 <= (retry_after({"Retry-After": until}) or 0) <= 60


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b"[" * 100_000, b"NaN", b"<html>", b"1" * 5000]
)
def test_a_body_that_is_no_json_says_what_its_status_says(body: bytes) -> None:
    with pytest.raises(OutcomeUnknown, match="cannot be read"):
        Reply(200, {}, body).json()
    with pytest.raises(AccountRefused):
        Reply(401, {}, body).json()


def test_json_with_a_byte_order_mark_is_read() -> None:
    assert Reply(200, {}, b'\xef\xbb\xbf{"success": true}').json() == {"success": True}
