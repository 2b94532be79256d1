"""A callback's signature: the documented one is taken for five minutes, and nothing else ever."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faxbot.plugins.base import CallbackRequest
from tests.providers.conftest import offline

ROOT = Path(__file__).parents[2]
VECTOR = "t=1700000000,v1=6a26657cbf1ceefcfa4929e3c16d5059c32c1a65f07058081468544536f4ea94"
VECTOR_BODY = b'{"event": "fax.delivered"}'
VECTOR_TIME = datetime.fromtimestamp(1_700_000_000, UTC)


def vector(
    now: datetime = VECTOR_TIME, *, signature: str = VECTOR, body: bytes = VECTOR_BODY
) -> bool:
    """Whether the documented example, or a change of it, is taken at `now`."""
    headers = {"x-simulator-signature": signature}
    request = CallbackRequest("POST", "http://here", headers, body)
    return offline(now, secret="example-secret").verify_callback(request)


def test_the_documented_signature_is_taken() -> None:
    assert vector()
    page = (ROOT / "docs/simulator.md").read_text()
    assert f"X-Simulator-Signature: {VECTOR}" in page
    assert VECTOR_BODY.decode() in page


@pytest.mark.parametrize(
    ("seconds", "taken"), [(300, True), (-300, True), (301, False), (-301, False)]
)
def test_a_signature_holds_for_five_minutes_in_both_directions(seconds: int, taken: bool) -> None:
    assert vector(VECTOR_TIME + timedelta(seconds=seconds)) is taken


@pytest.mark.parametrize(
    "signature",
    [
        "",
        "v1=" + VECTOR[-64:],
        VECTOR[:-1],
        VECTOR + "0",
        VECTOR.upper(),
        " " + VECTOR,
        VECTOR + "\n",
        VECTOR.replace("1700000000", "1700000001"),
        VECTOR.replace("1700000000", "-1700000000"),
        VECTOR.replace("1700000000", "9" * 400),
        VECTOR[:-64] + "0" * 64,
        "t=\u0661\u0667,v1=" + VECTOR[-64:],
        "\x00",
    ],
)
def test_a_forged_or_garbled_signature_is_refused(signature: str) -> None:
    assert not vector(signature=signature)


def test_a_changed_body_is_refused() -> None:
    assert not vector(body=VECTOR_BODY + b" ")


@given(signature=st.text(), body=st.binary())
def test_no_text_at_all_is_taken_for_a_signature_or_breaks_the_check(
    signature: str, body: bytes
) -> None:
    assert not vector(signature=signature, body=body)


def test_a_request_without_the_header_is_refused() -> None:
    assert not offline().verify_callback(CallbackRequest("POST", "http://here", {}, b"{}"))
