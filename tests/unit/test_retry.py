"""The golden table: cause and try -> seconds to wait, or the end; and the waits that carriers ask for."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faxbot.events import CAUSES
from faxbot.retry import Again, GiveUp, Hold, asked_wait, decide, full_jitter

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)

# After try 1, 2, 3, ...: seconds (m: minutes) to the next one, in the end "-": no more.
GOLDEN = {
    "busy": "2m 3m 5m 5m 10m 10m 15m 30m 30m 30m 30m -",
    "no_answer": "5m 15m 30m 60m -",
    "no_fax_tone": "5m -",
    "dropped_early": "1m 3m 5m 10m -",
    "handshake_failed": "1m 3m 5m 10m -",
    "session_timeout": "1m 3m 5m 10m -",
    "page_failed": "1m 2m 5m 10m 10m 10m 10m -",
    "incompatible_image": "1 -",
    "bearer": "30 -",
    "t38_failed": "30 -",
    "rejected": "15m 60m -",
    "unreachable": "15m 60m -",
    "doc_fetch_failed": "10 60 -",
    "network_error": "15 30 1m 2m 5m 5m 5m 5m 5m -",
    "congestion": "15 30 1m 2m 5m 5m 5m 5m 5m -",
    "trunk_down": "15 30 1m 2m 5m 5m 5m 5m 5m -",
    "no_route": "15 30 1m 2m 5m 5m 5m 5m 5m -",
}
HELD = {"trunk_denied", "funds", "config"}


def seconds(word: str) -> float:
    return float(word[:-1]) * 60 if word.endswith("m") else float(word)


@pytest.mark.parametrize("cause", GOLDEN)
def test_each_try_waits_as_the_table_says_and_the_last_gives_up(cause: str) -> None:
    *waits, last = GOLDEN[cause].split()

    for number, wait in enumerate(waits, start=1):
        expected = Again(NOW + timedelta(seconds=seconds(wait)))
        assert decide(cause, tries=number, now=NOW, luck=0.0) == expected, number
    for number in range(len(waits) + 1, len(waits) + 4):
        assert decide(cause, tries=number, now=NOW, luck=0.0) == GiveUp("exhausted")
    assert last == "-"


@pytest.mark.parametrize("cause", sorted(set(CAUSES) - set(GOLDEN)))
def test_every_other_cause_ends_or_holds_at_once(cause: str) -> None:
    expected = Hold("account_refused") if cause in HELD else GiveUp(cause)

    assert decide(cause, tries=1, now=NOW, luck=0.0) == expected


@pytest.mark.parametrize("cause", ["", "gremlins", "BUSY", "busy "])
def test_a_cause_that_no_list_has_is_never_tried_again(cause: str) -> None:
    assert decide(cause, tries=1, now=NOW, luck=0.0) == GiveUp("unknown")


@given(
    st.sampled_from(sorted(CAUSES)),
    st.integers(1, 50),
    st.floats(0, 1, exclude_max=True),
)
def test_luck_stretches_a_wait_by_at_most_a_fifth(cause: str, tries: int, luck: float) -> None:
    least = decide(cause, tries=tries, now=NOW, luck=0.0)
    some = decide(cause, tries=tries, now=NOW, luck=luck)

    if isinstance(least, Again):
        assert isinstance(some, Again)
        assert least.at <= some.at <= NOW + (least.at - NOW) * 1.2
    else:
        assert some == least


@given(st.integers(-5, 10_000), st.floats(0, 1, exclude_max=True))
def test_jitter_grows_with_the_faults_up_to_ten_minutes(faults: int, luck: float) -> None:
    bound = min(600.0, 5.0 * 2 ** min(max(faults, 1), 10))

    assert 0 <= full_jitter(faults, luck) <= bound
    assert full_jitter(faults, 0.5) == bound / 2


@pytest.mark.parametrize(
    ("asked", "wait"),
    [
        (None, None),
        (0, 1.0),
        (-3, 1.0),
        (2, 2.0),
        (90.5, 90.5),
        (10**9, 86_400.0),
        (math.inf, 86_400.0),
        (-math.inf, 1.0),
        (math.nan, None),
        ("60", None),
        (True, None),
        ([2], None),
    ],
)
def test_a_carrier_may_ask_for_a_second_to_a_day(asked: object, wait: float | None) -> None:
    assert asked_wait(asked) == wait


@given(st.one_of(st.none(), st.floats(), st.integers(), st.text()))
def test_no_wait_that_is_asked_for_breaks_the_clock(asked: object) -> None:
    wait = asked_wait(asked)

    assert wait is None or 1 <= timedelta(seconds=wait).total_seconds() <= 86_400
