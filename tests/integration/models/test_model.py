"""Any order of calls, callbacks, look-ups, sweeps, deaths, lost bells, cancels, holds, repeats and decisions, against a
carrier whose truth is known: hypothesis looks for an order in which a fax is sent twice, lost, told wrongly, or never
ends.

The reference is small enough to be seen through: what the carrier really took and how each call really ended. To look
for longer: make test ARGS="tests/integration/models/test_model.py --hypothesis-profile=long --hypothesis-seed=7"
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import hypothesis.strategies as st
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from faxbot import claims, decisions, followup, jobs, resending, sending, sweeps
from faxbot.errors import LeaseLost, NotPossibleNow, OutcomeUnknown, Refused, Unreachable
from faxbot.events import ASKED, OPEN, TERMINAL, Status
from faxbot.models import Attempt
from faxbot.plugins.base import CallbackRequest, OutboundFax, Receipt, State, Update
from faxbot.resending import Changes
from tests.integration.odd import Vanished
from tests.integration.site import ACTOR, TASKS, Site

EXAMPLES = 40
"""In each run of the tests; a profile of hypothesis may ask for more."""
FAXES = 3
REPEATS = 2
"""So many are sent once more at most."""
places = st.integers(0, FAXES + REPEATS - 1)
LISTED_AFTER = timedelta(seconds=40)
"""So late this carrier lists what it took, within the minute that it is given."""
LONGEST = 150
"""Sweeps until everything has ended."""


@dataclass
class Call:
    """What the carrier knows of one attempt that it took."""

    tag: str
    job_id: str
    taken_at: datetime
    news: list[Update] = field(default_factory=list)
    """All it ever said of it, in order; callbacks bring any of it, in any order, or not at all."""

    @property
    def external_id(self) -> str:
        return f"ext-{self.tag}"

    @property
    def end(self) -> State | None:
        last = self.news[-1].state if self.news else None
        return last if last in (State.DELIVERED, State.FAILED) else None

    def tell(self, state: State, **facts: Any) -> None:
        if self.end is None:
            self.news.append(
                Update(state, self.tag, self.external_id, key=f"{len(self.news)}", **facts)
            )


ANSWERS: dict[str, object] = {
    "accepts": None,
    "accepts and says nothing": OutcomeUnknown(),
    "accepts and the worker dies": Vanished(),
    "takes nothing and says nothing": OutcomeUnknown(),
    "takes nothing and the worker dies": Vanished(),
    "accepts and talks nonsense": 17,
    "is away": Unreachable(),
    "refuses": Refused(cause="number_dead"),
}
"""What a carrier does when it is called, and what the worker sees of it; None: the name of the fax there."""

MOODS = [*ANSWERS, *2 * ["accepts"]]
"""So that some faxes get far."""


class Carrier:
    """Takes faxes, says what it is told to say, and never forgets; notes calls that must not be."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.calls: list[Call] = []
        self.wished: set[str] = set()
        """Faxes whose cancel was asked for."""
        self.plan: list[str] = []
        """How it behaves at the next calls; when the list is over it takes everything."""
        self.breaches: list[str] = []
        site.odd.does = {
            "send": self._send,
            "look_up": self._look_up,
            "fetch": self._fetch,
            "cancel": self._cancel,
            "read_callback": self._read,
        }

    def of(self, job_id: str) -> list[Call]:
        return [call for call in self.calls if call.job_id == job_id]

    def _send(self, _usual: object, fax: OutboundFax) -> object:
        behaves = self.plan.pop() if self.plan else "accepts"
        with self.site.runtime.database.reading() as session:
            job_id = session.scalars(sa.select(Attempt.job_id).filter_by(tag=fax.tag)).one()
        if alive(self.of(job_id)):
            self.breaches.append("a second call for a fax that may still arrive, or has")
        if job_id in self.wished:
            self.breaches.append("a call for a fax that is not wanted any more")
        if behaves.startswith("accepts"):
            call = Call(fax.tag, job_id, self.site.now)
            call.tell(State.ACCEPTED)
            self.calls.append(call)
        answer = ANSWERS[behaves]
        if isinstance(answer, BaseException):
            raise answer
        return answer if answer is not None else Receipt(f"ext-{fax.tag}")

    def _look_up(self, _usual: object, tag: str) -> Update:
        listed = self.site.now - LISTED_AFTER
        found = [call for call in self.calls if call.tag == tag and call.taken_at <= listed]
        return found[0].news[-1] if found else Update(State.ABSENT, tag)

    def _fetch(self, _usual: object, external_id: str) -> Update:
        (found,) = (call for call in self.calls if call.external_id == external_id)
        return found.news[-1]

    def _cancel(self, _usual: object, external_id: str) -> None:
        (found,) = (call for call in self.calls if call.external_id == external_id)
        if found.end is not None:
            raise Refused
        found.tell(State.FAILED, cause="cancelled")

    def _read(self, _usual: object, request: CallbackRequest) -> list[Update]:
        tag, number = json.loads(request.body)
        return [next(call for call in self.calls if call.tag == tag).news[number]]


class Road(RuleBasedStateMachine):
    """The domain, and everything that may happen to it in any order."""

    site: Site

    def __init__(self) -> None:
        super().__init__()
        self.site.now += timedelta(days=1)  # what the last example did to its provider is over
        self.site.rung.clear()
        self.ids = [self.site.fax() for _ in range(FAXES)]
        self.ended: dict[str, str] = {}
        self.carrier = Carrier(self.site)

    def at(self, place: int) -> str:
        return self.ids[place % len(self.ids)]

    @initialize(plan=st.lists(st.sampled_from(MOODS), min_size=FAXES, max_size=12))
    def the_carrier_has_its_moods(self, plan: list[str]) -> None:
        self.carrier.plan = plan

    @rule(place=places)
    def a_worker_tries(self, place: int) -> None:
        """Whatever the hour, and whether or not a bell rang."""
        fax = self.at(place)
        self.site.now = max(self.site.now, self.site.job(fax).next_at or self.site.now)
        with suppress(Vanished):
            sending.attempt(self.site.runtime, fax)

    @rule(place=places)
    def a_worker_dies_before_its_call(self, place: int) -> None:
        claims.claim(self.site.runtime, self.at(place))

    @rule(number=st.integers(0, 20))
    def some_bell_is_answered(self, number: int) -> None:
        if self.site.rung:
            task, row_id = self.site.rung.pop(number % len(self.site.rung))
            with suppress(Vanished):
                TASKS[task](self.site.runtime, row_id)

    @rule()
    def all_bells_are_answered(self) -> None:
        for _ in range(1000):
            if not self.site.rung:
                return
            self.some_bell_is_answered(0)
        raise AssertionError(f"the bell does not stop: {self.site.rung}")

    @rule()
    def the_broker_is_emptied(self) -> None:
        self.site.rung.clear()

    @rule(seconds=st.sampled_from([1, 20, 61, 300, 3600]))
    def time_passes(self, seconds: int) -> None:
        self.site.now += timedelta(seconds=seconds)

    @rule()
    def beat_ticks(self) -> None:
        sweeps.run(self.site.runtime)

    @rule(place=places, cause=st.sampled_from(["", "busy", "page_failed", "number_dead", "?"]))
    def the_call_ends(self, place: int, cause: str) -> None:
        for call in self.carrier.of(self.at(place)):
            if cause:
                call.tell(State.FAILED, cause=cause, pages_sent=0)
            else:
                call.tell(State.DELIVERED, pages_sent=1)

    @rule(place=places, again=st.booleans())
    def the_line_is_busy_and_the_next_try_begins(self, place: int, again: bool) -> None:
        """In one step, because by chance it is a long way; and all that was said of the first call may come
        `again`."""
        fax = self.at(place)
        self.a_worker_tries(place)
        self.the_call_ends(place, "busy")
        if self.site.job(fax).status == Status.SENT:
            self.site.now = max(self.site.now, self.site.job(fax).next_at or self.site.now)
            followup.poll(self.site.runtime, fax)
        self.a_worker_tries(place)
        for number in range(len(self.said(place)) if again else 0):
            self.something_is_called_back(place, number)
        self.all_bells_are_answered()

    @rule(place=places)
    def the_call_goes_on(self, place: int) -> None:
        for call in self.carrier.of(self.at(place)):
            call.tell(State.PROGRESS, pages_sent=0)

    @rule(place=places, number=st.integers(0, 50))
    def something_is_called_back(self, place: int, number: int) -> None:
        if said := self.said(place):
            body = json.dumps(said[number % len(said)]).encode()
            self.site.receive(self.site.signed(body))

    def said(self, place: int) -> list[tuple[str, int]]:
        """All the carrier said of a fax: the call's tag, and which piece of its news."""
        calls = self.carrier.of(self.at(place))
        return [(call.tag, number) for call in calls for number in range(len(call.news))]

    @precondition(lambda self: not self.carrier.wished)  # so that the others go on
    @rule(place=places)
    def somebody_cancels(self, place: int) -> None:
        with suppress(NotPossibleNow):
            jobs.cancel(self.site.runtime, ACTOR, self.at(place))
            self.carrier.wished.add(self.at(place))

    @rule(place=places)
    def somebody_finds_out_and_decides(self, place: int) -> None:
        """What people say is true; the rest is theirs to answer for."""
        fax = self.at(place)
        tag = attempts[-1].tag if (attempts := self.site.attempts(fax)) else None
        call = next((call for call in self.carrier.of(fax) if call.tag == tag), None)
        if call is not None and call.end is None:
            return
        outcome = "retry" if call is None else str(call.end)
        with suppress(NotPossibleNow):
            decisions.decide(self.site.runtime, ACTOR, fax, outcome, "asked them")

    @rule(place=places)
    def somebody_releases(self, place: int) -> None:
        with suppress(NotPossibleNow):
            decisions.release(self.site.runtime, ACTOR, self.at(place))

    @rule(place=places)
    def somebody_holds(self, place: int) -> None:
        with suppress(NotPossibleNow):
            decisions.hold(self.site.runtime, ACTOR, self.at(place))

    @rule(place=places)
    def somebody_sends_it_now(self, place: int) -> None:
        with suppress(NotPossibleNow):
            decisions.send_now(self.site.runtime, ACTOR, self.at(place))

    @precondition(lambda self: self.ended and len(self.ids) < FAXES + REPEATS)
    @rule(place=places)
    def somebody_sends_it_once_more(self, place: int) -> None:
        """It is a fax of its own: what became of the first one stays, and whatever its carrier still says."""
        first = self.at(place)
        if first in self.ended:
            answer = resending.resend(
                self.site.runtime, ACTOR, first, Changes(), key=None, present=lambda _job: b""
            )
            self.ids.append(answer.job_id)
        else:
            with pytest.raises(NotPossibleNow):
                resending.resend(
                    self.site.runtime, ACTOR, first, Changes(), key=None, present=lambda _job: b""
                )

    @rule(place=places)
    def a_worker_that_prepares_it_is_overtaken(self, place: int) -> None:
        """By a person who holds it and lets it go again, and then goes on with what it had."""
        fax = self.at(place)
        mine = claims.claim(self.site.runtime, fax)
        self.somebody_holds(place)
        self.somebody_releases(place)
        self.all_bells_are_answered()
        if mine is not None:
            with pytest.raises(LeaseLost), self.site.runtime.database.transaction() as session:
                claims.still_mine(session, mine)

    # What must be so at any moment

    @invariant()
    def what_is_told_is_true(self) -> None:
        assert self.carrier.breaches == []
        for fax in self.ids:
            job = self.site.job(fax)
            status = Status(job.status)
            held = (status, job.reason) == (Status.HELD, ASKED)  # a person is who looks at it
            if status in OPEN and not held:
                assert job.next_at is not None, "nobody looks at it again"
                assert job.next_at <= self.site.now + timedelta(days=1), "nor soon"
            calls = self.carrier.of(fax)
            newest = self.site.attempts(fax)[-1:]
            mine = [call for call in calls if newest and call.tag == newest[0].tag]
            assert TRUE_WHEN[status](mine, calls, fax in self.carrier.wished), status
            assert self.ended.get(fax) in (None, status), "what is final has changed"
            if status in TERMINAL:
                self.ended[fax] = status

    def teardown(self) -> None:
        """Everything recovers, every call arrives; then each fax ends, and ends as it went."""
        for _ in range(LONGEST):
            waits = [self.site.job(fax) for fax in self.ids if fax not in self.ended]
            if not waits:
                break
            for place in range(len(self.ids)):
                self.the_call_ends(place, "")
                if self.site.job(self.at(place)).reason == ASKED:
                    self.somebody_releases(place)
            soon = self.site.now + timedelta(seconds=61)
            self.site.now = max(soon, min(job.next_at or soon for job in waits))
            self.beat_ticks()
            self.all_bells_are_answered()
            self.what_is_told_is_true()
        else:
            raise AssertionError(f"no end: {[(job.status, job.reason) for job in waits]}")
        for fax in self.ids:
            arrived = sum(call.end is State.DELIVERED for call in self.carrier.of(fax))
            assert arrived == (self.ended[fax] == Status.DELIVERED)
        self.site.add_up()


def alive(calls: list[Call]) -> bool:
    return any(call.end is not State.FAILED for call in calls)


Truth = Callable[[list[Call], list[Call], bool], bool]
TRUE_WHEN: dict[Status, Truth] = {
    # (the newest attempt's call, all calls, whether a cancel was asked for) -> whether the status may be told.
    Status.QUEUED: lambda _mine, calls, wished: not alive(calls) and not wished,
    Status.RETRYING: lambda _mine, calls, wished: not alive(calls) and not wished,
    Status.HELD: lambda _mine, calls, wished: not alive(calls) and not wished,
    Status.SUBMITTING: lambda mine, calls, _wished: alive(calls) == alive(mine),
    Status.UNCERTAIN: lambda mine, calls, _wished: alive(calls) == alive(mine),
    Status.SENT: lambda mine, _calls, _wished: bool(mine),
    Status.DELIVERED: lambda mine, _calls, _wished: [call.end for call in mine] == ["delivered"],
    Status.FAILED: lambda _mine, calls, wished: not alive(calls) and not wished,
    Status.CANCELLED: lambda _mine, calls, wished: not alive(calls) and wished,
    Status.EXPIRED: lambda _mine, _calls, _wished: False,
}


def test_no_order_of_things_sends_a_fax_twice_or_loses_it_or_tells_it_wrongly(site: Site) -> None:
    standard = settings.get_current_profile_name() == "usual"

    class Here(Road):
        pass

    Here.site = site
    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=EXAMPLES if standard else settings().max_examples,
            stateful_step_count=40,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
