"""The circuit breaker: whether a provider may be called now. Rows in the database, so every process
knows, a restart forgets nothing, and an operator sees it.

What counts are the calls themselves, as their attempts noted them: no counter can drift from what
happened, and a call that went well writes nothing here. Open, a provider rests; then so many probes
go through as settings allow, over all processes, and decide. How a call on the line ended (busy, no
answer) is no matter of the provider and never comes here. Measured with the breakers of others:
their probes are not single and their counts overshoot when several processes share them.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from faxbot import retry
from faxbot.config import Config
from faxbot.db import Database, inserts
from faxbot.errors import (
    AccountRefused,
    DestinationBarred,
    ProviderError,
    Refused,
    Throttled,
)
from faxbot.events import ProviderEvent
from faxbot.models import Attempt, ProviderHistory, ProviderProbe, ProviderState

IN_A_ROW = 5
WINDOW, LEAST_CALLS, SHARE = timedelta(minutes=5), 5, 0.5
"""It opens on so many faults in a row, or on such a share of at least so many calls in the window."""
DEGRADED_FAULTS, DEGRADED_WITHIN = 3, timedelta(minutes=10)
REST_AT_MOST = timedelta(minutes=10)
ACCOUNT_REST = timedelta(minutes=10)
"""After a refused account; then a probe finds out whether it is mended."""
KNOWN_FOR = timedelta(seconds=1)
"""So long a process goes by what it last read."""
MOST_CALLS = 500
"""The newest calls that are looked at: at a hundred a minute, those of the window."""
OK, FAULT, SLOW = "ok", "fault", "slow"
THROTTLED, ACCOUNT_REFUSED, FAILING, PAUSED = (
    "throttled", "account_refused", "provider_failing", "paused",
)  # fmt: skip
REASONS = (ACCOUNT_REFUSED, FAILING, PAUSED)
"""Why a fax is held for its provider."""


LOOKS = 10
"""A fax that is held for its provider is looked at so much more seldom than others: the sweep wakes
it when the provider is well."""


def look_again(config: Config, reason: str) -> timedelta:
    """When a fax that is held for this reason is looked at again by itself."""
    return timedelta(seconds=config.held_check_seconds * (LOOKS if reason in REASONS else 1))


@dataclass(frozen=True, slots=True)
class Rest:
    """The provider is not to be called before `until`; None: until somebody resumes it."""

    until: datetime | None
    reason: str


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of a provider."""

    opened_at: datetime | None = None
    rests_until: datetime | None = None
    reason: str | None = None
    paused_at: datetime | None = None
    paused_until: datetime | None = None
    degraded_at: datetime | None = None
    updated_at: datetime | None = None

    def rest(self, now: datetime) -> Rest | None:
        """The rest it takes at the moment, None when it may be called, or tried by a probe."""
        if self.paused_at and (self.paused_until is None or self.paused_until > now):
            return Rest(self.paused_until, PAUSED)
        if self.rests_until is not None and self.rests_until > now:
            return Rest(self.rests_until, self.reason or FAILING)
        return None

    def state(self, now: datetime) -> str:
        """In a word: closed, open, half_open, throttled or paused."""
        rest = self.rest(now)
        if rest is not None:
            return rest.reason if rest.reason in (PAUSED, THROTTLED) else "open"
        return "closed" if self.opened_at is None else "half_open"


_COLUMNS = [getattr(ProviderState, name) for name in Standing.__dataclass_fields__]
_STATE = sa.select(*_COLUMNS).where(
    ProviderState.account_id == sa.bindparam("account_id"),
    ProviderState.provider_id == sa.bindparam("provider_id"),
)


# Before a call --------------------------------------------------------------------------------------


class Breakers:
    """The breakers of all providers as one process sees them; safe to share between threads."""

    def __init__(self, config: Config, database: Database) -> None:
        self._config, self._database = config, database
        self._known: dict[tuple[str, str], tuple[Standing, datetime]] = {}
        self._lock = threading.Lock()

    def standing(self, account_id: str, provider_id: str, now: datetime) -> Standing:
        """As it was at most a second ago. Raises DatabaseAway."""
        key = (account_id, provider_id)
        with self._lock:
            known = self._known.get(key)
        if known is not None and timedelta() <= now - known[1] < KNOWN_FOR:
            return known[0]
        row = self._database.row(_STATE, {"account_id": account_id, "provider_id": provider_id})
        found = Standing() if row is None else Standing(*row)
        with self._lock:
            self._known[key] = (found, now)
        return found

    def forget(self) -> None:
        """This process has changed something: it reads anew."""
        with self._lock:
            self._known.clear()

    def let_through(
        self, account_id: str, provider_id: str, job_id: str, now: datetime
    ) -> Rest | bool:
        """Why this fax may not call the provider now; else whether its call is a probe."""
        standing = self.standing(account_id, provider_id, now)
        rest = standing.rest(now)
        if rest is not None:
            return rest
        if standing.opened_at is None:
            return False
        if self._probe(account_id, provider_id, job_id, now):
            return True
        return Rest(now + self._probing, standing.reason or FAILING)

    @property
    def _probing(self) -> timedelta:
        """How long a probe may take; of one whose worker died nothing is waited for any longer."""
        return timedelta(seconds=self._config.lease_seconds + self._config.provider_call_seconds)

    def _probe(self, account_id: str, provider_id: str, job_id: str, now: datetime) -> bool:
        """Take one of the places for a probe, each held by one fax; whether there was one."""
        place = {"account_id": account_id, "provider_id": provider_id}
        held = {"job_id": job_id, "lease_until": now + self._probing, "succeeded": False}
        with self._database.writing() as connection:
            if connection.execute(_MY_PROBE, {**place, "job_id": job_id, "now": now}).first():
                return True
            for slot in range(self._config.breaker_probes):
                taken = connection.execute(
                    _take_probe(connection.dialect.name, now), {**place, "slot": slot, **held}
                ).first()
                if taken is not None:
                    return True
        return False


_MY_PROBE = sa.select(ProviderProbe.slot).where(
    ProviderProbe.account_id == sa.bindparam("account_id"),
    ProviderProbe.provider_id == sa.bindparam("provider_id"),
    ProviderProbe.job_id == sa.bindparam("job_id"),
    ProviderProbe.lease_until >= sa.bindparam("now", type_=ProviderProbe.lease_until.type),
    ProviderProbe.succeeded.is_(False),
)


def give_place_back(session: Session, account_id: str, provider_id: str, job_id: str) -> None:
    """This fax was to be a probe, and is not called now."""
    session.execute(sa.delete(ProviderProbe).where(_probe_of(account_id, provider_id, job_id)))


def _probe_of(account_id: str, provider_id: str, job_id: str) -> sa.ColumnElement[bool]:
    """The place that this fax holds and has not succeeded in."""
    return sa.and_(
        ProviderProbe.account_id == account_id,
        ProviderProbe.provider_id == provider_id,
        ProviderProbe.job_id == job_id,
        ProviderProbe.succeeded.is_(False),
    )


def _take_probe(dialect: str, now: datetime) -> Any:
    insert = inserts(ProviderProbe)[dialect]
    return insert.on_conflict_do_update(
        index_elements=["account_id", "provider_id", "slot"],
        set_={"job_id": insert.excluded.job_id, "lease_until": insert.excluded.lease_until},
        where=sa.and_(ProviderProbe.succeeded.is_(False), ProviderProbe.lease_until < now),
    ).returning(ProviderProbe.slot)


# After a call ---------------------------------------------------------------------------------------


def verdict(result: str | ProviderError, seconds: float, slow_after: float) -> str | None:
    """What a call says of its provider; None: nothing. A refusal of this fax is a good answer."""
    if isinstance(result, AccountRefused | DestinationBarred | Throttled):
        return None
    if isinstance(result, ProviderError) and not isinstance(result, Refused):
        return FAULT
    return SLOW if seconds >= slow_after else OK


def judge(
    session: Session,
    config: Config,
    attempt: Attempt,
    result: str | ProviderError,
    now: datetime,
    *,
    is_probe: bool = False,
) -> None:
    """Note once what the call of this attempt says of its provider, and open its breaker where it
    is time for that, or let a probe decide. Calls that went well touch nothing but their
    attempt."""
    if attempt.answered_at is not None:
        return
    seconds = (now - attempt.intended_at).total_seconds()
    attempt.answered_at = now
    attempt.verdict = verdict(result, seconds, config.provider_slow_seconds)
    if isinstance(result, Throttled):
        _throttle(_locked(session, attempt, now), result, now)
    elif isinstance(result, AccountRefused):
        _open(session, _locked(session, attempt, now), ACCOUNT_REFUSED, now + ACCOUNT_REST, now)
    elif attempt.verdict in (FAULT, SLOW):
        state = _locked(session, attempt, now)
        if state.opened_at is None:  # else this call began before that, or is a probe
            session.flush()
            _weigh(session, config, state, now)
    if is_probe:
        _judge_probe(session, config, attempt, now)


def _throttle(state: ProviderState, error: Throttled, now: datetime) -> None:
    until = now + timedelta(seconds=retry.asked_wait(error.retry_after) or 1.0)
    # Several workers may say so at once; a longer rest is not cut short by a later word.
    if state.rests_until is None or state.rests_until < until:
        state.rests_until = until
        state.reason = THROTTLED if state.opened_at is None else state.reason
        state.updated_at = now


def _weigh(session: Session, config: Config, state: ProviderState, now: datetime) -> None:
    """Open a closed breaker when the newest calls ask for it."""
    calls = _newest_calls(session, state)
    row = sum(1 for _ in takewhile(lambda call: call.verdict == FAULT, calls))
    window = [call.verdict for call in calls if call.answered_at > now - WINDOW]
    for bad in (FAULT, SLOW):
        often = len(window) >= LEAST_CALLS and window.count(bad) >= SHARE * len(window)
        if often or (bad == FAULT and row >= IN_A_ROW):
            _open(session, state, FAILING, _rest(config, state, now), now)
            return
    lately = [call for call in calls if call.answered_at > now - DEGRADED_WITHIN]
    if sum(call.verdict == FAULT for call in lately) >= DEGRADED_FAULTS:
        _degrade(session, state, FAILING, now)


def _newest_calls(session: Session, state: ProviderState) -> Sequence[Any]:
    """Verdicts since the breaker was closed last, the newest first."""
    calls = sa.select(Attempt.verdict, Attempt.answered_at).where(
        Attempt.account_id == state.account_id,
        Attempt.provider_id == state.provider_id,
        Attempt.answered_at.is_not(None),
        Attempt.verdict.is_not(None),
    )
    if state.closed_at is not None:
        calls = calls.where(Attempt.answered_at > state.closed_at)
    return session.execute(calls.order_by(Attempt.answered_at.desc()).limit(MOST_CALLS)).all()


def _rest(config: Config, state: ProviderState, now: datetime) -> datetime:
    """Twice as long each time it opens again."""
    first = timedelta(seconds=config.breaker_rest_seconds)
    doublings = min(state.openings, 20)
    return now + min(first * (1 << doublings), max(REST_AT_MOST, first))


def _open(
    session: Session, state: ProviderState, reason: str, until: datetime, now: datetime
) -> None:
    state.opened_at = state.opened_at or now
    state.openings += 1
    state.rests_until = max(until, state.rests_until or until)
    state.reason, state.updated_at = reason, now
    _end_probes(session, state)
    _degrade(session, state, reason, now)


def _degrade(session: Session, state: ProviderState, reason: str, now: datetime) -> None:
    if state.degraded_at is None:
        state.degraded_at = state.updated_at = now
        _record(session, state, ProviderEvent.DEGRADED, now, reason=reason)


def _judge_probe(session: Session, config: Config, attempt: Attempt, now: datetime) -> None:
    """A probe that fails opens the breaker again, for longer; when all have succeeded it closes;
    one that says nothing makes place for another."""
    state = _locked(session, attempt, now)
    mine = _probe_of(attempt.account_id, attempt.provider_id, attempt.job_id)
    if attempt.verdict is None:
        session.execute(sa.delete(ProviderProbe).where(mine))
    elif state.opened_at is None or (state.rests_until is not None and state.rests_until > now):
        pass  # decided already
    elif attempt.verdict in (FAULT, SLOW):
        _open(session, state, FAILING, _rest(config, state, now), now)
    elif session.execute(
        sa.update(ProviderProbe).where(mine).values(succeeded=True).returning(ProviderProbe.slot)
    ).all():
        good = sa.select(sa.func.count()).where(
            _probes_of(state), ProviderProbe.succeeded.is_(True)
        )
        if (session.scalar(good) or 0) >= config.breaker_probes:
            _close(session, state, now, actor="worker")


def _close(
    session: Session, state: ProviderState, now: datetime, *, actor: str, note: str | None = None
) -> None:
    state.opened_at = state.rests_until = state.reason = state.degraded_at = None
    state.openings, state.closed_at, state.updated_at = 0, now, now
    _end_probes(session, state)
    _record(session, state, ProviderEvent.RECOVERED, now, actor=actor, note=note)


def open_for_account(session: Session, attempt: Attempt, now: datetime) -> None:
    """The carrier does not take our account: "test connection" failed after a doubtful refusal."""
    _open(session, _locked(session, attempt, now), ACCOUNT_REFUSED, now + ACCOUNT_REST, now)


def _probes_of(state: ProviderState) -> sa.ColumnElement[bool]:
    return sa.and_(
        ProviderProbe.account_id == state.account_id,
        ProviderProbe.provider_id == state.provider_id,
    )


def _end_probes(session: Session, state: ProviderState) -> None:
    session.execute(sa.delete(ProviderProbe).where(_probes_of(state)))


def _locked(session: Session, attempt: Attempt, now: datetime) -> ProviderState:
    return locked(session, attempt.account_id, attempt.provider_id, now)


def locked(session: Session, account_id: str, provider_id: str, now: datetime) -> ProviderState:
    """The provider's row under its lock, made where there is none: who judges waits for the others'
    judgements. It is taken after a job's lock, never before."""
    insert = inserts(ProviderState)[session.get_bind().dialect.name]
    session.flush()  # what was changed here before is not read over
    session.execute(
        insert.values(
            account_id=account_id, provider_id=provider_id, openings=0, updated_at=now
        ).on_conflict_do_nothing()
    )
    return session.scalars(
        sa.select(ProviderState)
        .where(ProviderState.account_id == account_id, ProviderState.provider_id == provider_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one()


def _record(
    session: Session,
    state: ProviderState,
    event: ProviderEvent,
    now: datetime,
    *,
    reason: str | None = None,
    note: str | None = None,
    actor: str = "worker",
    expires_at: datetime | None = None,
) -> None:
    session.add(
        ProviderHistory(
            account_id=state.account_id,
            provider_id=state.provider_id,
            type=event.value,
            reason=reason,
            note=note,
            actor=actor,
            expires_at=expires_at,
            recorded_at=now,
        )
    )


# What people do, and the clock ----------------------------------------------------------------------


def pause(
    session: Session, state: ProviderState, now: datetime, *, actor: str, note: str,
    until: datetime | None = None,
) -> None:  # fmt: skip
    """Let nothing be sent through this provider until `until`, or until somebody resumes it."""
    state.paused_at, state.paused_until, state.updated_at = now, until, now
    _record(session, state, ProviderEvent.PAUSED, now, note=note, actor=actor, expires_at=until)


def resume(session: Session, state: ProviderState, now: datetime, *, actor: str, note: str) -> None:
    """End a pause."""
    state.paused_at = state.paused_until = None
    state.updated_at = now
    _record(session, state, ProviderEvent.RESUMED, now, note=note, actor=actor)


def reset(session: Session, state: ProviderState, now: datetime, *, actor: str, note: str) -> None:
    """Close the breaker: a person knows that the trouble is over."""
    _close(session, state, now, actor=actor, note=note)


def recover(session: Session, now: datetime) -> int:
    """Say of providers that had faults, and have had none lately, that they are well; how many. A
    pause that was to end has ended."""
    found = session.scalars(
        sa.select(ProviderState)
        .where(
            sa.or_(
                sa.and_(ProviderState.degraded_at.is_not(None), ProviderState.opened_at.is_(None)),
                ProviderState.paused_until <= now,
            )
        )
        .with_for_update(skip_locked=True)
    ).all()
    return sum(_recover(session, state, now) for state in found)


def _recover(session: Session, state: ProviderState, now: datetime) -> bool:
    if state.paused_until is not None and state.paused_until <= now:
        resume(session, state, now, actor="clock", note="the pause was to end now")
    if state.degraded_at is None or state.opened_at is not None:
        return False
    since = now - DEGRADED_WITHIN
    calls = _newest_calls(session, state)
    if any(call.verdict == FAULT and call.answered_at > since for call in calls):
        return False
    state.degraded_at, state.updated_at = None, now
    _record(session, state, ProviderEvent.RECOVERED, now, actor="clock")
    return True
