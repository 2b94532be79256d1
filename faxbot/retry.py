"""When to try again: one pure function from what happened so far to a decision; a table of numbers tests it.

Each kind of trouble has delays and a limit of its own, and so have dials (nobody answered, the line was busy), tries
(machines met) and tries of one page: a busy line must not use up what a bad line needs. The schedules are those of
HylaFAX, eFax and gofaxip, joined. Faults of a provider back off with full jitter (AWS, "Exponential Backoff And
Jitter"): base 5 s, cap 10 min. Retry-After comes first. A deadline is none of this module's business: a fax that waits
for its next try when its deadline comes ends there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import takewhile

from faxbot.events import CAUSES, Retry

MINUTE = 60.0
BASE = 5.0
CAP = 600.0
SPREAD = 0.2
"""Line delays are stretched by up to a fifth, so that jobs that failed together do not redial
together."""
QUICK, SLOW = 8, 120.0
"""After so many tries in a row of which the carrier knows nothing, whatever it asks for, the next ones are so many
seconds apart at least: who asks for tries that a restored ledger does not know of (restored) counts on it."""
LONGEST_WAIT = 86_400.0
"""Seconds; a carrier that asks for more is asked again after a day."""
MOST_DIALS = 12
MOST_TRIES = 8
MOST_PAGE_TRIES = 3
"""Tries that end in the same page: it will not go through (HylaFAX gives up after as many)."""


class Use(StrEnum):
    """What an attempt with such an end uses up, beside the limit of its own kind."""

    DIAL = "dial"
    TRY = "try"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Schedule:
    """Seconds before the next try after the first, second, ... end of this kind; the last one repeats. At most
    `tries` such ends; `kind` names the ends that are counted together."""

    kind: str
    delays: tuple[float, ...]
    tries: int
    use: Use = Use.TRY


def _minutes(*values: float) -> tuple[float, ...]:
    return tuple(value * MINUTE for value in values)


_UNTRAINED = Schedule("no common speed", _minutes(1, 3, 5, 10), 5)
_TURNED_AWAY = Schedule("turned away", _minutes(15, 60), 3, Use.DIAL)
_WAYS = Schedule("no way there", (15.0, 30.0, *_minutes(1, 2, 5)), 10, Use.NOTHING)
_LINE = Schedule("wrong kind of line", (30.0,), 2)
SCHEDULES: dict[str, Schedule] = {
    "busy": Schedule("busy", _minutes(2, 3, 5, 5, 10, 10, 15, 30), 12, Use.DIAL),
    "no_answer": Schedule("no answer", _minutes(5, 15, 30, 60), 5, Use.DIAL),
    "no_fax_tone": Schedule("no fax machine", _minutes(5), 2),
    "dropped_early": _UNTRAINED,
    "handshake_failed": _UNTRAINED,
    "session_timeout": _UNTRAINED,
    "page_failed": Schedule("page", _minutes(1, 2, 5, 10), 8),
    "incompatible_image": Schedule("page format", (1.0,), 2),
    "bearer": _LINE,
    "t38_failed": _LINE,
    "rejected": _TURNED_AWAY,
    "unreachable": _TURNED_AWAY,
    "no_route": _TURNED_AWAY,
    "doc_fetch_failed": Schedule("document", (10.0, MINUTE, 5 * MINUTE), 3, Use.NOTHING),
    **dict.fromkeys(("network_error", "congestion", "trunk_down"), _WAYS),
}
PROVEN: dict[str, Schedule] = {
    "no_fax_tone": Schedule("no fax machine", _minutes(5, 15, 60), 4),
    "number_dead": Schedule("not in service", _minutes(15), 2, Use.DIAL),
}
"""For a number at which a fax has arrived before: there is a machine, whatever was heard this time."""


class End(StrEnum):
    """How an attempt ended that delivered nothing."""

    FAILED = "failed"
    """It was accepted, and the call failed."""
    REFUSED = "refused"
    """The carrier refuses this document or number for good."""
    ACCOUNT = "account"
    """The carrier refuses the account."""
    FAULT = "fault"
    """The carrier could not be reached or asks to wait: this attempt uses up nothing."""
    ABSENT = "absent"
    """Whether it was accepted was not known; the carrier never had it."""


@dataclass(frozen=True, slots=True)
class Past:
    """One attempt that is over: how, its canonical cause, and the pages confirmed in it."""

    end: End
    cause: str
    pages_sent: int = 0


@dataclass(frozen=True, slots=True)
class Again:
    """Try again at `at`; `left`: so many attempts, that one among them, if all end like the last (None: no limit)."""

    at: datetime
    left: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Do not try again; `cause` says why in the end."""

    cause: str


@dataclass(frozen=True, slots=True)
class Hold:
    """Wait for an operator."""

    reason: str


Decision = Again | GiveUp | Hold


def decide(
    history: Sequence[Past],
    *,
    now: datetime,
    luck: float,
    proven: bool = False,
    asked: float | None = None,
) -> Decision:
    """What to do after the last attempt of `history` (oldest first), which surely delivered nothing.

    `luck`: a random number in [0, 1). `proven`: a fax has arrived at this number before. `asked`: the seconds that
    the carrier asks to wait, as asked_wait() gives them.
    """
    last = history[-1]
    match last.end:
        case End.REFUSED:
            return GiveUp(last.cause)
        case End.ACCOUNT:
            return Hold("account_refused")
        case End.FAULT:
            row = sum(1 for _ in takewhile(lambda past: past.end is End.FAULT, reversed(history)))
            wait = asked if asked is not None else max(1.0, full_jitter(row, luck))
            return _again(history, now, wait)
        case End.ABSENT:
            # The first one at once. A carrier that breaks at a fax each time is not given it once a minute.
            absences = sum(past.end is End.ABSENT for past in history)
            wait = full_jitter(absences, luck) if absences > 1 else 0.0
            return _again(history, now, wait)
    return _after_call(
        [past for past in history if past.end is End.FAILED], now=now, luck=luck, proven=proven
    )


def _again(history: Sequence[Past], now: datetime, wait: float) -> Again:
    without_trace = takewhile(lambda past: past.end in (End.FAULT, End.ABSENT), reversed(history))
    if sum(1 for _ in without_trace) >= QUICK:
        wait = max(wait, SLOW)
    return Again(now + timedelta(seconds=wait))


def _after_call(calls: Sequence[Past], *, now: datetime, luck: float, proven: bool) -> Decision:
    # A cause that no list has is not tried again: nobody knows what it means.
    cause = CAUSES.get(calls[-1].cause, CAUSES["unknown"])
    schedule = _schedule(cause.code, proven=proven)
    if schedule is None:
        return Hold("account_refused") if cause.retry is Retry.HOLD else GiveUp(cause.code)
    such = [_schedule(past.cause, proven=proven) for past in calls]
    times = sum(one is not None and one.kind == schedule.kind for one in such)
    used = {use: sum(one is not None and one.use is use for one in such) for use in Use}
    of_its_kind = schedule.tries - times
    of_its_use = {Use.DIAL: MOST_DIALS - used[Use.DIAL], Use.TRY: MOST_TRIES - used[Use.TRY]}
    of_this_page = MOST_PAGE_TRIES - _tries_of_this_page(calls)
    if min(of_its_kind, *of_its_use.values(), of_this_page) <= 0:
        return GiveUp("exhausted")
    left = min(of_its_kind, of_its_use.get(schedule.use, of_its_kind))
    if cause.code == "page_failed":
        left = min(left, of_this_page)
    delay = schedule.delays[min(times, len(schedule.delays)) - 1]
    return Again(now + timedelta(seconds=delay * (1 + SPREAD * luck)), left)


def _schedule(cause: str, *, proven: bool) -> Schedule | None:
    known = PROVEN.get(cause) if proven else None
    return known or SCHEDULES.get(cause)


def _tries_of_this_page(calls: Sequence[Past]) -> int:
    """How many calls in a row ended in the page in which the last one did; 0 when it did not end in a page."""
    last = calls[-1]
    if last.cause != "page_failed":
        return 0
    # A busy line in between says nothing about the page.
    pages = (past for past in reversed(calls) if past.cause == "page_failed")
    return sum(1 for _ in takewhile(lambda past: past.pages_sent == last.pages_sent, pages))


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
