"""An account that submits far more than the others stands behind them, and no other does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from faxbot.shares import BEHIND, Shares


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


def test_who_submits_seven_times_as_much_stands_behind_the_others() -> None:
    clock = Clock()
    shares = Shares(clock)
    behind: dict[str, int] = dict.fromkeys(("a", "b", "c", "d", "surge"), 0)
    for _ in range(200):
        clock.at += 0.1
        for account in (*"abcd", *["surge"] * 7):
            behind[account] += shares.urgency(account, 128) < 128

    assert behind["surge"] > 1300
    assert {behind[account] for account in "abcd"} == {0}


def test_who_is_alone_or_like_the_others_stands_behind_nobody() -> None:
    clock = Clock()
    alone, alike = Shares(clock), Shares(clock)
    for _ in range(500):
        clock.at += 0.01
        assert alone.urgency("a", 128) == 128
        assert {alike.urgency(account, 128) for account in "abc"} == {128}


def test_a_surge_is_over_when_the_others_are_gone() -> None:
    clock = Clock()
    shares = Shares(clock)
    for _ in range(100):
        shares.urgency("surge", 128)
    shares.urgency("a", 128)
    assert shares.urgency("surge", 128) == 128 - BEHIND
    clock.at += 60
    for _ in range(100):
        assert shares.urgency("surge", 128) == 128


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 255), st.floats(0, 30))))
def test_urgency_is_never_more_than_asked_for_nor_below_nothing(
    submissions: list[tuple[str, int, float]],
) -> None:
    clock = Clock()
    shares = Shares(clock)
    for account, priority, pause in submissions:
        clock.at += pause
        assert max(priority - BEHIND, 0) <= shares.urgency(account, priority) <= priority
