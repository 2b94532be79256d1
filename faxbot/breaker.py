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
KNOWN_FOR = timedelta(seconds=1)
"""So long a process goes by what it last read."""
MOST_CALLS = 500
"""The newest calls that are looked at: at a hundred a minute, those of the window."""
OK, FAULT, SLOW = "ok", "fault", "slow"
THROTTLED, ACCOUNT_REFUSED, FAILING, PAUSED, DISABLED = (
    "throttled", "account_refused", "provider_failing", "paused", "plugin_disabled",
)  # fmt: skip
REASONS = (ACCOUNT_REFUSED, FAILING, PAUSED, DISABLED)
"""Why a fax is held for its provider."""


LOOKS = 10
"""A fax that is held for its provider is looked at so much more seldom than others: the sweep wakes
it when the provider is well."""


def look_again(config: Config, reason: str) -> timedelta:
    """When a fax that is held for this reason is looked at again by itself."""
    return timedelta(seconds=config.held_check_seconds * (LOOKS if reason in REASONS else 1))


def account_rest(config: Config) -> timedelta:
    """After a refused account; then a probe finds out whether it is mended."""
    return timedelta(seconds=config.account_rest_seconds)


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
    disabled_at: datetime | None = None

    def rest(self, now: datetime) -> Rest | None:
        """The rest it takes at the moment, None when it may be called, or tried by a probe."""
        if self.disabled_at:
            return Rest(None, DISABLED)
        if self.paused_at and (self.paused_until is None or self.paused_until > now):
            return Rest(self.paused_until, PAUSED)
        if self.rests_until is not None and self.rests_until > now:
            return Rest(self.rests_until, self.reason or FAILING)
        return None

    def state(self, now: datetime) -> str:
        """In a word: closed, open, half_open, throttled, paused or plugin_disabled."""
        rest = self.rest(now)
        if rest is not None:
            return rest.reason if rest.reason in (PAUSED, THROTTLED, DISABLED) else "open"
        return "closed" if self.opened_at is None else "half_open"


STATES = ("closed", "open", "half_open", THROTTLED, PAUSED, DISABLED)
"""All that Standing.state() says."""


def standings(database: Database, account_id: str) -> dict[str, Standing]:
    """By id what is known of the account's providers, as far as something happened to them; raises DatabaseAway."""
    rows = database.rows(_STATES, {"account_id": account_id})
    return {row.provider_id: Standing(*row[1:]) for row in rows}


def _standing(state: ProviderState) -> Standing:
    return Standing(*(getattr(state, name) for name in Standing.__dataclass_fields__))


_COLUMNS = [getattr(ProviderState, name) for name in Standing.__dataclass_fields__]
_STATE = sa.select(*_COLUMNS).where(
    ProviderState.account_id == sa.bindparam("account_id"),
    ProviderState.provider_id == sa.bindparam("provider_id"),
)
_STATES = sa.select(ProviderState.provider_id, *_COLUMNS).where(
    ProviderState.account_id == sa.bindparam("account_id")
)


# Before a call --------------------------------------------------------------------------------------


class Breakers:
    """The breakers of all providers as one process sees them; safe to share between threads."""

    def __init__(self, config: Config, database: Database) -> None:
        self._config, self._database = config, database
        self._known: dict[tuple[str, str], tuple[Standing, datetime]] = {}
        self._lock = threading.Lock()

    def set(self, config: Config) -> None:
        """How many probes are let through from now on."""
        self._config = config

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
        # What was read a second ago is too old for a probe: another may have decided meanwhile.
        with self._database.transaction() as session:
            state = locked(session, account_id, provider_id, now)
            through = _probe(session, self._config, state, job_id, now)
            found = _standing(state)
        with self._lock:
            self._known[account_id, provider_id] = (found, now)
        return through


def _probe(
    session: Session, config: Config, state: ProviderState, job_id: str, now: datetime
) -> Rest | bool:
    """let_through() for a provider that was half open, under its lock: a place among the probes,
    each held by one fax."""
    rest = _standing(state).rest(now)
    if rest is not None:
        return rest
    if state.opened_at is None:
        return False
    # Of a probe whose worker died nothing is waited for any longer.
    lapsed = (ProviderProbe.succeeded.is_(False), ProviderProbe.lease_until < now)
    session.execute(sa.delete(ProviderProbe).where(_probes_of(state), *lapsed))
    places = session.scalars(sa.select(ProviderProbe).where(_probes_of(state))).all()
    if sum(place.succeeded for place in places) >= config.breaker_probes:
        # Fewer are asked for than when they were let through.
        _close(session, state, now, actor="worker")
        return False
    until = now + timedelta(seconds=config.lease_seconds + config.provider_call_seconds)
    for place in places:
        if place.job_id == job_id and not place.succeeded:
            place.lease_until = until
            return True
    if len(places) >= config.breaker_probes:
        return Rest(until, state.reason or FAILING)
    session.add(
        ProviderProbe(
            account_id=state.account_id,
            provider_id=state.provider_id,
            slot=min(set(range(config.breaker_probes)) - {place.slot for place in places}),
            job_id=job_id,
            lease_until=until,
            succeeded=False,
        )
    )
    return True


def is_still_probe(
    session: Session, account_id: str, provider_id: str, job_id: str, now: datetime
) -> bool:
    """Whether this fax still has its place among the probes; the provider stays locked."""
    locked(session, account_id, provider_id, now)
    mine = _probe_of(account_id, provider_id, job_id)
    return session.scalar(sa.select(ProviderProbe.slot).where(mine)) is not None


def give_place_back(session: Session, account_id: str, provider_id: str, job_id: str) -> None:
    """This fax was to be a probe, and is not called now. The provider is locked already."""
    session.execute(sa.delete(ProviderProbe).where(_probe_of(account_id, provider_id, job_id)))


def _probe_of(account_id: str, provider_id: str, job_id: str) -> sa.ColumnElement[bool]:
    """The place that this fax holds and has not succeeded in."""
    return sa.and_(
        ProviderProbe.account_id == account_id,
        ProviderProbe.provider_id == provider_id,
        ProviderProbe.job_id == job_id,
        ProviderProbe.succeeded.is_(False),
    )


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
    seconds: float,
    is_probe: bool = False,
) -> None:
    """Note once what the call of this attempt, which took so many `seconds`, says of its provider,
    and open its breaker where it is time for that, or let a probe decide. Calls that went well
    touch nothing but their attempt."""
    if attempt.answered_at is not None:
        return
    attempt.answered_at = now
    attempt.verdict = verdict(result, seconds, config.provider_slow_seconds)
    if isinstance(result, Throttled):
        _throttle(_locked(session, attempt, now), result, now)
    elif isinstance(result, AccountRefused):
        open_for_account(session, config, attempt, now)
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
    if state.degraded_at is None and _lately(session, state, now) >= DEGRADED_FAULTS:
        _degrade(session, state, FAILING, now)


def _newest_calls(session: Session, state: ProviderState) -> Sequence[Any]:
    """Verdicts since the breaker was closed last, the newest first."""
    calls = sa.select(Attempt.verdict, Attempt.answered_at).where(
        *_calls_of(state), Attempt.verdict.is_not(None)
    )
    return session.execute(calls.order_by(Attempt.answered_at.desc()).limit(MOST_CALLS)).all()


def _lately(session: Session, state: ProviderState, now: datetime) -> int:
    """Faults within the time in which they make a provider a degraded one, however many calls went
    well among them; no more are counted than it takes."""
    faults = (
        sa.select(Attempt.id)
        .where(
            *_calls_of(state),
            Attempt.answered_at > now - DEGRADED_WITHIN,
            Attempt.verdict == FAULT,
        )
        .limit(DEGRADED_FAULTS)
        .subquery()
    )
    return session.scalar(sa.select(sa.func.count()).select_from(faults)) or 0


def _calls_of(state: ProviderState) -> list[sa.ColumnElement[bool]]:
    """Those that came back since the breaker was closed last."""
    calls = [
        Attempt.account_id == state.account_id,
        Attempt.provider_id == state.provider_id,
        Attempt.answered_at.is_not(None),
    ]
    if state.closed_at is not None:
        calls.append(Attempt.answered_at > state.closed_at)
    return calls


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
        record(session, state, ProviderEvent.DEGRADED, now, reason=reason)


def _judge_probe(session: Session, config: Config, attempt: Attempt, now: datetime) -> None:
    """A probe that fails opens the breaker again, for longer; when all have succeeded it closes;
    one that says nothing makes place for another."""
    state = _locked(session, attempt, now)
    mine = _probe_of(attempt.account_id, attempt.provider_id, attempt.job_id)
    if attempt.verdict is None:
        session.execute(sa.delete(ProviderProbe).where(mine))
        return
    succeeded = attempt.verdict == OK
    place = sa.update(ProviderProbe).where(mine).values(succeeded=succeeded)
    if session.execute(place.returning(ProviderProbe.slot)).first() is None:
        return  # decided already: that ends all places
    if not succeeded:
        _open(session, state, FAILING, _rest(config, state, now), now)
        return
    good = sa.select(sa.func.count()).where(_probes_of(state), ProviderProbe.succeeded.is_(True))
    if (session.scalar(good) or 0) >= config.breaker_probes:
        asked_to_rest = state.rests_until
        _close(session, state, now, actor="worker")
        if asked_to_rest is not None and asked_to_rest > now:  # 429, by another call meanwhile
            state.rests_until, state.reason = asked_to_rest, THROTTLED


def _close(
    session: Session, state: ProviderState, now: datetime, *, actor: str, note: str | None = None
) -> None:
    state.opened_at = state.rests_until = state.reason = state.degraded_at = None
    state.openings, state.closed_at, state.updated_at = 0, now, now
    _end_probes(session, state)
    record(session, state, ProviderEvent.RECOVERED, now, actor=actor, note=note)


def open_for_account(session: Session, config: Config, attempt: Attempt, now: datetime) -> None:
    """The carrier does not take our account: it says so, or "test connection" failed after a doubtful refusal."""
    state = _locked(session, attempt, now)
    _open(session, state, ACCOUNT_REFUSED, now + account_rest(config), now)


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


def record(
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
    """Write down in a locked provider's history what happened to it, and who did it."""
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
    record(session, state, ProviderEvent.PAUSED, now, note=note, actor=actor, expires_at=until)


def resume(session: Session, state: ProviderState, now: datetime, *, actor: str, note: str) -> None:
    """End a pause."""
    state.paused_at = state.paused_until = None
    state.updated_at = now
    record(session, state, ProviderEvent.RESUMED, now, note=note, actor=actor)


def reset(session: Session, state: ProviderState, now: datetime, *, actor: str, note: str) -> None:
    """Close the breaker: a person knows that the trouble is over."""
    _close(session, state, now, actor=actor, note=note)


def was_reset(session: Session, account_id: str, provider_id: str, since: datetime) -> bool:
    """Whether a person has closed its breaker since then."""
    resets = sa.exists().where(
        ProviderHistory.account_id == account_id,
        ProviderHistory.provider_id == provider_id,
        ProviderHistory.type == ProviderEvent.RECOVERED.value,
        ProviderHistory.note.is_not(None),
        ProviderHistory.recorded_at > since,
    )
    return session.scalar(sa.select(resets)) is True


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
    if _lately(session, state, now):
        return False
    state.degraded_at, state.updated_at = None, now
    record(session, state, ProviderEvent.RECOVERED, now, actor="clock")
    return True
