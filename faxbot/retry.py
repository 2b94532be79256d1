"""When to try again: one pure function from cause, tries and clock to a decision; a table of
numbers tests it.

Delays follow the redial schedules of HylaFAX, eFax and gofaxip, joined (busy 2-30 min, no answer
5-60 min, ...); provider faults back off with full jitter (AWS, "Exponential Backoff And Jitter"):
base 5 s, cap 10 min. Retry-After comes first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from faxbot.events import CAUSES, Retry

MINUTE = 60.0
BASE = 5.0
CAP = 600.0
SPREAD = 0.2
"""Line delays are stretched by up to a fifth, so that jobs that failed together do not redial
together."""
LONGEST_WAIT = 86_400.0
"""Seconds; a carrier that asks for more is asked again after a day."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Seconds before try 2, 3, ...; the last one repeats. At most `tries` tries in all."""

    delays: tuple[float, ...]
    tries: int


def _minutes(*values: float) -> tuple[float, ...]:
    return tuple(value * MINUTE for value in values)


SCHEDULES: dict[str, Schedule] = {
    "busy": Schedule(_minutes(2, 3, 5, 5, 10, 10, 15, 30), 12),
    "no_answer": Schedule(_minutes(5, 15, 30, 60), 5),
    "no_fax_tone": Schedule(_minutes(5), 2),
    "dropped_early": Schedule(_minutes(1, 3, 5, 10), 5),
    "handshake_failed": Schedule(_minutes(1, 3, 5, 10), 5),
    "session_timeout": Schedule(_minutes(1, 3, 5, 10), 5),
    "page_failed": Schedule(_minutes(1, 2, 5, 10), 8),
    "incompatible_image": Schedule((1.0,), 2),
    "bearer": Schedule((30.0,), 2),
    "t38_failed": Schedule((30.0,), 2),
    "rejected": Schedule(_minutes(15, 60), 3),
    "unreachable": Schedule(_minutes(15, 60), 3),
    "doc_fetch_failed": Schedule((10.0, MINUTE, 5 * MINUTE), 3),
    **dict.fromkeys(
        ("network_error", "congestion", "trunk_down", "no_route"),
        Schedule((15.0, 30.0, *_minutes(1, 2, 5)), 10),
    ),
}


@dataclass(frozen=True, slots=True)
class Again:
    """Try again at `at`."""

    at: datetime


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Do not try again; `cause` says why in the end."""

    cause: str


@dataclass(frozen=True, slots=True)
class Hold:
    """Wait for an operator."""

    reason: str


Decision = Again | GiveUp | Hold


def decide(cause: str, *, tries: int, now: datetime, luck: float) -> Decision:
    """What to do after an attempt that ended with `cause` and surely delivered nothing.

    `tries`: attempts of this fax that count, this one included (from 1). `luck`: a random number in
    [0, 1). A cause that no list has is not tried again: nobody knows what it means.
    """
    known = CAUSES.get(cause, CAUSES["unknown"])
    if known.retry is Retry.HOLD:
        return Hold("account_refused")
    if known.retry is not Retry.AGAIN:
        return GiveUp(known.code)
    schedule = SCHEDULES[known.code]
    if tries >= schedule.tries:
        return GiveUp("exhausted")
    delay = schedule.delays[min(tries, len(schedule.delays)) - 1]
    return Again(now + timedelta(seconds=delay * (1 + SPREAD * luck)))


def full_jitter(faults: int, luck: float) -> float:
    """Seconds before the next call after `faults` provider faults: uniform in [0, min(cap, base *
    2^faults))."""
    return luck * float(min(CAP, BASE * 2 ** min(max(faults, 1), 20)))


def asked_wait(retry_after: object) -> float | None:
    """The seconds a carrier asked for, between 1 and a day; None where it asked for nothing that
    makes sense (a plugin hands on what it was told)."""
    if isinstance(retry_after, bool) or not isinstance(retry_after, int | float):
        return None
    return None if math.isnan(retry_after) else float(min(max(retry_after, 1.0), LONGEST_WAIT))
