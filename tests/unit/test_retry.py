"""The golden table: what happened so far -> seconds to wait, or the end; and the waits that carriers ask for."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faxbot.events import CAUSES
from faxbot.events import Retry as Policy
from faxbot.restored import MOST_AHEAD, Restore
from faxbot.retry import (
    MOST_DIALS,
    MOST_TRIES,
    PROVEN,
    SCHEDULES,
    Again,
    Decision,
    End,
    GiveUp,
    Hold,
    Past,
    Use,
    asked_wait,
    decide,
    full_jitter,
)

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)

# After end 1, 2, 3, ... of this kind: seconds (m: minutes) to the next try, at last "-": no more.
GOLDEN = {
    "busy": "2m 3m 5m 5m 10m 10m 15m 30m 30m 30m 30m -",
    "no_answer": "5m 15m 30m 60m -",
    "no_fax_tone": "5m -",
    "dropped_early": "1m 3m 5m 10m -",
    "handshake_failed": "1m 3m 5m 10m -",
    "session_timeout": "1m 3m 5m 10m -",
    "page_failed": "1m 2m -",
    "incompatible_image": "1 -",
    "bearer": "30 -",
    "t38_failed": "30 -",
    "rejected": "15m 60m -",
    "unreachable": "15m 60m -",
    "doc_fetch_failed": "10 60 -",
    "network_error": "15 30 1m 2m 5m 5m 5m 5m 5m -",
    "congestion": "15 30 1m 2m 5m 5m 5m 5m 5m -",
    "trunk_down": "15 30 1m 2m 5m 5m 5m 5m 5m -",
    "no_route": "15m 60m -",
}
# The same for a number at which a fax has arrived before, where it differs.
GOLDEN_PROVEN = {"no_fax_tone": "5m 15m 60m -", "number_dead": "15m -"}
HELD = {"trunk_denied", "funds", "config"}

# Histories in which kinds of trouble mix: each word an end, with the page it failed in; then what follows the last.
MIXED = {
    # a line that was busy all day leaves the machine that answers at last all its tries
    "busy busy busy busy handshake_failed": "1m",
    "handshake_failed busy handshake_failed busy handshake_failed": "5m",
    # what is one trouble under several names is counted together
    "dropped_early session_timeout handshake_failed dropped_early": "10m",
    "dropped_early session_timeout handshake_failed dropped_early session_timeout": "-",
    "rejected unreachable": "60m",
    "rejected unreachable rejected": "-",
    "bearer t38_failed": "-",
    "rejected no_route unreachable": "-",
    "congestion trunk_down network_error": "1m",
    # dials are counted over all kinds, and so are tries
    "busy no_answer busy no_answer busy busy busy no_answer busy busy busy": "30m",
    "busy no_answer busy no_answer busy busy busy no_answer busy busy busy busy": "-",
    "page_failed:1 handshake_failed page_failed:2 handshake_failed page_failed:3 no_fax_tone bearer": "30",
    "page_failed:1 handshake_failed page_failed:2 handshake_failed page_failed:3 no_fax_tone bearer page_failed:4": "-",
    # carriers without a free line take nothing away
    "congestion congestion congestion congestion congestion busy": "2m",
    "busy congestion busy": "3m",
    # a page that fails three times is given up, one that gets further is not
    "page_failed:1 page_failed:1 page_failed:1": "-",
    "page_failed:1 page_failed:2 page_failed:2": "5m",
    "page_failed:1 busy page_failed:1 busy page_failed:1": "-",
    " ".join(f"page_failed:{page}" for page in range(7)): "10m",
    " ".join(f"page_failed:{page}" for page in range(8)): "-",
}


def seconds(word: str) -> float:
    return float(word[:-1]) * 60 if word.endswith("m") else float(word)


def expected(word: str) -> Decision:
    return GiveUp("exhausted") if word == "-" else Again(NOW + timedelta(seconds=seconds(word)))


def calls(*words: str) -> list[Past]:
    pairs = (word.partition(":") for word in words)
    return [Past(End.FAILED, cause, int(page or 0)) for cause, _, page in pairs]


def after(history: list[Past], *, luck: float = 0.0, proven: bool = False) -> Decision:
    return decide(history, now=NOW, luck=luck, proven=proven)


@pytest.mark.parametrize(
    ("cause", "proven", "golden"),
    [
        *((cause, False, golden) for cause, golden in GOLDEN.items()),
        *((cause, True, golden) for cause, golden in (GOLDEN | GOLDEN_PROVEN).items()),
    ],
)
def test_each_end_is_followed_as_the_table_says(cause: str, proven: bool, golden: str) -> None:
    words = golden.split()

    for number, word in enumerate(words, start=1):
        assert after(calls(*[cause] * number), proven=proven) == expected(word), number
    for number in range(len(words) + 1, len(words) + 4):
        assert after(calls(*[cause] * number), proven=proven) == GiveUp("exhausted")
    assert words[-1] == "-"


@pytest.mark.parametrize("history", MIXED)
def test_dials_tries_and_pages_are_counted_apart(history: str) -> None:
    assert after(calls(*history.split())) == expected(MIXED[history])


def test_each_cause_that_may_be_tried_again_has_its_schedule() -> None:
    again = {code for code, cause in CAUSES.items() if cause.retry is Policy.AGAIN}

    assert set(SCHEDULES) == set(GOLDEN) == again
    assert set(PROVEN) == set(GOLDEN_PROVEN)


@pytest.mark.parametrize("cause", sorted(set(CAUSES) - set(GOLDEN)))
def test_every_other_cause_ends_or_holds_at_once(cause: str) -> None:
    assert after(calls("busy", cause)) == (
        Hold("account_refused") if cause in HELD else GiveUp(cause)
    )


@pytest.mark.parametrize("cause", ["", "gremlins", "BUSY", "busy "])
def test_a_cause_that_no_list_has_is_never_tried_again(cause: str) -> None:
    assert after(calls(cause)) == GiveUp("unknown")


ENDS = st.one_of(
    st.builds(Past, st.just(End.FAILED), st.sampled_from(sorted(CAUSES)), st.integers(0, 3)),
    st.builds(Past, st.sampled_from(End), st.sampled_from(sorted(CAUSES))),
)


@given(st.lists(ENDS, min_size=1, max_size=40), st.booleans(), st.floats(0, 1, exclude_max=True))
def test_luck_stretches_a_wait_after_a_call_by_at_most_a_fifth(
    history: list[Past], proven: bool, luck: float
) -> None:
    history = [*history, Past(End.FAILED, "busy")]
    least, some = after(history, proven=proven), after(history, proven=proven, luck=luck)

    if isinstance(least, Again):
        assert isinstance(some, Again)
        assert least.at <= some.at <= NOW + (least.at - NOW) * 1.2
    else:
        assert some == least


@given(st.lists(st.sampled_from(sorted(SCHEDULES)), max_size=60), st.booleans())
def test_a_fax_that_is_never_delivered_comes_to_an_end(causes: list[str], proven: bool) -> None:
    """Whatever its calls meet: at most as many as the limits of all kinds allow."""
    history: list[Past] = []
    for cause in causes:
        history += calls(cause)
        if not isinstance(after(history, proven=proven), Again):
            break

    free = {one.kind: one.tries for one in SCHEDULES.values() if one.use is Use.NOTHING}
    assert len(history) <= MOST_DIALS + MOST_TRIES + sum(free.values())


@given(
    st.lists(ENDS, max_size=20),
    st.builds(Past, st.just(End.FAILED), st.sampled_from(sorted(SCHEDULES)), st.integers(0, 3)),
)
def test_as_many_attempts_are_left_as_follow_if_all_end_like_the_last(
    history: list[Past], last: Past
) -> None:
    decision = after([*history, last])
    if not isinstance(decision, Again):
        return
    assert decision.left
    for made in range(1, decision.left):
        assert isinstance(after([*history, *[last] * (1 + made)]), Again)
    assert after([*history, *[last] * (1 + decision.left)]) == GiveUp("exhausted")


@pytest.mark.parametrize("end", [End.FAULT, End.ABSENT])
def test_what_uses_nothing_up_has_no_last_attempt(end: End) -> None:
    decision = after([*calls("busy"), Past(end, "congestion")])
    assert isinstance(decision, Again)
    assert decision.left is None


def test_faults_of_the_provider_use_nothing_up_and_back_off() -> None:
    fault = Past(End.FAULT, "trunk_down")
    for row, bound in ((1, 10), (2, 20), (3, 40), (7, 600), (50, 600)):
        history = [*calls("busy"), *[fault] * row]
        assert after(history, luck=0.5) == Again(NOW + timedelta(seconds=bound / 2))
    # after a call that came about, the next fault is the first again
    history = [*[fault] * 50, *calls("busy"), fault]
    assert after(history, luck=0.5) == Again(NOW + timedelta(seconds=5))
    assert after([*[fault] * 50, *calls("busy")]) == expected("2m")
    # and never at once
    assert after([fault]) == expected("1")


def test_a_carrier_that_says_when_is_asked_then() -> None:
    history = [Past(End.FAULT, "congestion")] * 7

    assert decide(history, now=NOW, luck=0.9, asked=90.0) == Again(NOW + timedelta(seconds=90))


@given(
    st.lists(st.sampled_from([End.FAULT, End.ABSENT]), min_size=1, max_size=40),
    st.floats(0, 1, exclude_max=True),
    st.none() | st.floats(1, 3600),
)
def test_tries_without_a_trace_at_the_carrier_are_no_more_than_a_restored_ledger_asks_for(
    ends: list[End], luck: float, asked: float | None
) -> None:
    tries, began, at = [*calls("busy")], NOW, NOW
    for made, end in enumerate(ends, start=1):
        tries.append(Past(end, "congestion"))
        decision = decide(tries, now=at, luck=luck, asked=asked if end is End.FAULT else None)
        assert isinstance(decision, Again)
        assert made <= (Restore(at, began).ahead or MOST_AHEAD)
        at = decision.at


def test_a_refusal_ends_it_or_is_for_an_operator() -> None:
    assert after([*calls("busy"), Past(End.REFUSED, "doc_too_large")]) == GiveUp("doc_too_large")
    assert after([Past(End.ACCOUNT, "funds")]) == Hold("account_refused")


def test_what_the_carrier_never_had_is_sent_at_once_and_later_ever_more_slowly() -> None:
    absent = Past(End.ABSENT, "unconfirmed")

    assert after([*calls("busy"), absent], luck=0.5) == Again(NOW)
    assert after([absent, *calls("busy"), absent], luck=0.5) == Again(NOW + timedelta(seconds=10))
    assert after([absent] * 30, luck=0.5) == Again(NOW + timedelta(minutes=5))


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
