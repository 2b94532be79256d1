"""One sentence per fax: for every status and reason it is whole, true to the row, and holds nothing personal."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from faxbot.events import CAUSES, HOLD_REASONS, TERMINAL, Status
from faxbot.explanation import SENTENCES, explain
from faxbot.models import Job

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SENTENCES_ONLY = re.compile(r"[A-Z][^.?!]*\.( [A-Z0-9][^.?!]*\.)*")
LOOKED_UP = (
    "Whether simulator has it is not known; it is being looked up and will not be sent again "
    "blindly. Next look in 5 min, at 12:05:00 UTC."
)


def job(status: Status, **fields: Any) -> Job:
    known = {
        "reason": None,
        "provider_id": "simulator",
        "pages": 3,
        "pages_sent": 0,
        "next_at": None if status in TERMINAL else NOW,
        "cancel_requested_at": None,
    }
    return Job(status=status.value, **{**known, **fields})


TOLD = [
    (Status.QUEUED, {}, "Waiting for a worker; it will be sent in a moment."),
    (
        Status.QUEUED,
        {"next_at": NOW + timedelta(hours=5)},
        "Scheduled: it will be sent in 5 h, at 17:00:00 UTC.",
    ),
    (
        Status.QUEUED,
        {"next_at": NOW + timedelta(days=2)},
        "Scheduled: it will be sent in 48 h, at 2026-11-22 12:00 UTC.",
    ),
    (
        Status.QUEUED,
        {"next_at": NOW + timedelta(seconds=16), "faults": 2},
        "This server could not prepare it; it is tried again in 16 s, at 12:00:16 UTC.",
    ),
    (Status.SUBMITTING, {}, "Being handed to simulator now."),
    (Status.SENT, {}, "Simulator has it; waiting for the result."),
    (
        Status.SENT,
        {"pages_sent": 2, "cancel_requested_at": NOW},
        "Simulator has it; 2 of 3 pages confirmed; waiting for the result (a cancel was asked for).",
    ),
    (
        Status.RETRYING,
        {"reason": "busy", "next_at": NOW + timedelta(seconds=119)},
        "The line was busy. Next try in 119 s, at 12:01:59 UTC.",
    ),
    (
        Status.RETRYING,
        {"next_at": NOW + timedelta(minutes=10)},
        "The last try did not go through. Next try in 10 min, at 12:10:00 UTC.",
    ),
    (
        Status.RETRYING,
        {"reason": "busy", "next_at": NOW + timedelta(milliseconds=300)},
        "The line was busy. Next try in a moment.",
    ),
    (
        Status.RETRYING,
        {"reason": "busy", "next_at": NOW + 5 * MINUTE, "expires_at": NOW + 5 * MINUTE},
        "The line was busy. Its deadline comes before the next try: it ends in 5 min, at 12:05:00 UTC.",
    ),
    (
        Status.HELD,
        {"reason": "account_refused", "next_at": NOW + 5 * MINUTE, "expires_at": NOW + 5 * MINUTE},
        f"On hold: {HOLD_REASONS['account_refused']}; its deadline comes first: it ends in 5 min, at 12:05:00 UTC.",
    ),
    (
        Status.RETRYING,
        {"reason": "busy", "next_at": NOW + 5 * MINUTE, "expires_at": NOW + 6 * MINUTE},
        "The line was busy. Next try in 5 min, at 12:05:00 UTC.",
    ),
    (
        Status.RETRYING,
        {"reason": "page_failed", "pages_sent": 2, "next_at": NOW + 2 * MINUTE},
        "A page failed in the middle of the call. Next try in 2 min, at 12:02:00 UTC.",
    ),
    (
        Status.HELD,
        {"reason": "disabled"},
        "On hold: sending is switched off (by FAX_DISABLED, among the settings).",
    ),
    (Status.HELD, {"reason": "words nobody knows"}, "On hold: an operator must look."),
    (
        Status.HELD,
        {"reason": "account_refused", "next_at": NOW + timedelta(minutes=10)},
        f"On hold: {HOLD_REASONS['account_refused']}; looked at again in 10 min, at 12:10:00 UTC.",
    ),
    (
        Status.HELD,
        {"reason": "asked"},
        "On hold: a person holds it: release it (faxbot release).",
    ),
    (
        Status.HELD,
        {"reason": "asked", "next_at": NOW + 5 * MINUTE, "expires_at": NOW + 5 * MINUTE},
        f"On hold: {HOLD_REASONS['asked']}; its deadline comes first: it ends in 5 min, at 12:05:00 UTC.",
    ),
    (
        Status.HELD,
        {"reason": "account_refused"},
        "On hold: the carrier refused the account: check credentials and funds.",
    ),
    (
        Status.UNCERTAIN,
        {"next_at": NOW + timedelta(minutes=5)},
        LOOKED_UP,
    ),
    (Status.DELIVERED, {"pages_sent": 3}, "Delivered: all 3 pages are confirmed."),
    (Status.DELIVERED, {"pages": 1, "pages_sent": 1}, "Delivered: its page is confirmed."),
    (
        Status.FAILED,
        {"reason": "number_dead"},
        "The number is not in service. It will not be tried again.",
    ),
    (
        Status.FAILED,
        {"reason": "page_failed", "pages_sent": 1},
        f"{CAUSES['page_failed'].sentence} 1 of 3 pages confirmed. It will not be tried again.",
    ),
    (Status.CANCELLED, {}, "Cancelled as asked."),
    (
        Status.CANCELLED,
        {"reason": "said_accepted"},
        "Cancelled as asked. An earlier try may have arrived all the same.",
    ),
    (Status.EXPIRED, {}, "Its deadline passed before it could be sent."),
]


@pytest.mark.parametrize(("status", "fields", "sentence"), TOLD)
def test_what_people_read(status: Status, fields: dict[str, Any], sentence: str) -> None:
    assert explain(job(status, **fields), NOW) == sentence


@pytest.mark.parametrize(
    ("pages_sent", "arrived"),
    [
        (0, ""),
        (1, "1 of 3 pages arrived; continuing at 2. "),
        (3, "3 of 3 pages arrived; continuing at 3. "),
    ],
)
def test_a_fax_that_goes_on_says_from_where(pages_sent: int, arrived: str) -> None:
    waits = job(Status.RETRYING, reason="page_failed", pages_sent=pages_sent, next_at=NOW + MINUTE)
    broken, tried = "A page failed in the middle of the call.", "in 60 s, at 12:01:00 UTC."
    assert explain(waits, NOW, continues=True) == f"{broken} {arrived}Next try {tried}"
    waits.expires_at = waits.next_at
    assert "continuing" not in explain(waits, NOW, continues=True)


@pytest.mark.parametrize("status", Status)
def test_every_status_has_whole_sentences_whatever_the_reason(status: Status) -> None:
    for reason in (None, "gremlins", *CAUSES, *HOLD_REASONS):
        for pages_sent, wait in ((0, None), (1, -86_400), (3, 0), (0, 61)):
            next_at = None if wait is None else NOW + timedelta(seconds=wait)
            said = explain(job(status, reason=reason, pages_sent=pages_sent, next_at=next_at), NOW)
            assert SENTENCES_ONLY.fullmatch(said), said
            assert not re.search(r"[{}]|None|  |\.\.|; [A-Z]", said), said


def test_every_status_is_told() -> None:
    assert set(SENTENCES) == set(Status) == {status for status, _, _ in TOLD}


def test_a_fax_without_a_provider_yet_speaks_of_the_carrier() -> None:
    assert explain(job(Status.SENT, provider_id=None), NOW).startswith("The carrier has it;")
