"""Why calls fail, in canonical causes: every sentence that spandsp and Asterisk have, and every number."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faxbot.events import CAUSES, Retry
from faxbot.providers.asterisk.causes import Q850, SENTENCES, SIP, failed, unanswered

FIXTURE = Path(__file__).parent / "vendor" / "asterisk" / "sentences.txt"
KNOWN = [
    tuple(part.strip() for part in line.partition("|")[::2])
    for line in FIXTURE.read_text().splitlines()
    if not line.startswith("#")
]
RANG = frozenset({"BEGIN", "RINGING"})
BEGUN = frozenset({"BEGIN"})
NOTHING: frozenset[str] = frozenset()


@pytest.mark.parametrize("pages", [0, 3])
@pytest.mark.parametrize(("error", "text"), KNOWN)
def test_every_known_sentence_has_a_cause(error: str, text: str, pages: int) -> None:
    cause = failed(error, text or error, pages, "")
    assert cause in CAUSES
    assert cause != "unknown"
    if pages and cause in ("dropped_early", "handshake_failed", "no_fax_tone"):
        pytest.fail(f"{cause}, with {pages} pages confirmed")


def test_the_table_has_no_sentence_that_the_fixture_lacks() -> None:
    said = {" ".join(word.lower().split()) for pair in KNOWN for word in pair}
    assert SENTENCES.keys() <= said


@pytest.mark.parametrize(
    ("error", "text", "pages", "remote", "cause"),
    [
        ("The call dropped prematurely", "The call dropped prematurely", 0, "", "dropped_early"),
        ("HANGUP", "The call dropped prematurely", 2, "FAR", "page_failed"),
        ("Timed out waiting for initial communication", "", 0, "", "no_fax_tone"),
        ("Timed out waiting for initial communication", "", 0, "FAR END", "handshake_failed"),
        ("Failed to train with any of the compatible modems", "", 0, "", "handshake_failed"),
        ("FAILED  TO train with any of the compatible modems", "", 1, "", "page_failed"),
        ("No response after sending a page", "", 0, "FAR END", "page_failed"),
        ("Far end cannot receive at the size of image", "", 0, "FAR END", "incompatible_image"),
        ("T38_NEG_ERROR", "error negotiating T.38", 0, "", "t38_failed"),
        ("UNKNOWN", "T.38 switch failed", 0, "", "t38_failed"),
        ("FILE_ERROR", "error reading file", 0, "", "config"),
        ("", "", 0, "", "dropped_early"),
        ("A new sentence of tomorrow", "", 0, "", "unknown"),
    ],
)
def test_a_sentence_means_what_it_says(
    error: str, text: str, pages: int, remote: str, cause: str
) -> None:
    assert failed(error, text, pages, remote) == cause


@pytest.mark.parametrize(
    ("reason", "cause", "sip", "dial", "canonical"),
    [
        (0, 17, 486, BEGUN, "busy"),
        (0, 17, None, BEGUN, "busy"),
        (3, 19, 480, RANG, "no_answer"),
        (3, None, None, RANG, "no_answer"),
        (3, None, None, BEGUN | {"PROGRESS"}, "no_answer"),
        (3, 19, None, BEGUN, "unreachable"),
        (3, None, None, NOTHING, "no_answer"),
        (0, 18, 408, BEGUN, "trunk_down"),
        (0, 18, 408, RANG, "no_answer"),
        (0, 1, 404, BEGUN, "number_dead"),
        (0, 22, 410, BEGUN, "number_dead"),
        (0, 28, 484, BEGUN, "number_invalid"),
        (0, 21, 403, BEGUN, "rejected"),
        (0, 21, 603, BEGUN, "rejected"),
        (0, 21, 401, BEGUN, "trunk_denied"),
        (0, 21, 407, BEGUN, "trunk_denied"),
        (0, 21, 402, BEGUN, "funds"),
        (0, 23, 302, BEGUN, "no_route"),
        (0, 23, 410, BEGUN, "number_dead"),
        (0, 34, 503, BEGUN, "congestion"),
        (0, 27, 502, BEGUN, "unreachable"),
        (0, 38, 500, BEGUN, "network_error"),
        (0, 58, 488, BEGUN, "bearer"),
        (0, None, 486, BEGUN, "busy"),
        (0, None, None, NOTHING, "config"),
        (None, None, None, NOTHING, "unreachable"),
        (0, 126, None, BEGUN, "unreachable"),
    ],
)
def test_an_unanswered_call_has_the_cause_of_its_hang_up(
    reason: int | None, cause: int | None, sip: int | None, dial: frozenset[str], canonical: str
) -> None:
    assert unanswered(cause, sip, dial, reason) == canonical


@pytest.mark.parametrize(
    ("device", "canonical"),
    [
        (None, "config"),
        ("INVALID", "config"),
        ("UNAVAILABLE", "trunk_down"),
        ("NOT_INUSE", "trunk_down"),
        ("", "trunk_down"),
    ],
)
def test_a_call_without_a_channel_is_told_by_its_trunk(device: str | None, canonical: str) -> None:
    assert unanswered(None, None, NOTHING, 0, device) == canonical
    assert unanswered(17, 486, BEGUN, 0, device) == "busy"
    assert unanswered(None, None, NOTHING, 3, device) == "no_answer"


def test_the_tables_hold_canonical_causes_only() -> None:
    assert {*Q850.values(), *SIP.values()} <= CAUSES.keys()


numbers = st.none() | st.integers(0, 999)


@given(numbers, numbers, numbers, st.frozensets(st.sampled_from(["BEGIN", "RINGING", "BUSY"])))
def test_whatever_is_heard_has_a_cause_that_somebody_knows(
    reason: int | None, cause: int | None, sip: int | None, dial: frozenset[str]
) -> None:
    assert unanswered(cause, sip, dial, reason) in CAUSES
    assert CAUSES[unanswered(cause, sip, dial, reason)].retry is not Retry.VERIFY


@given(st.text(), st.text(), st.integers(0, 99), st.text())
def test_whatever_is_said_of_a_failure_has_a_cause(
    words: str, more: str, pages: int, remote: str
) -> None:
    assert failed(words, more, pages, remote) in CAUSES
