"""Lanes: how many calls go to one number at a time and with what gap, and how many a provider is
given at a time and a minute. Who must wait waits in its row, and that costs no attempt.

A lane is a row per number and place, taken in the transaction of the intent and given back when the
attempt is over, to the next that waits; one whose call is never heard of again runs out. So two
workers cannot both have it, and nothing must be counted. Who waits for a provider is let in by the
sweep. Nobody looks again and again: a thousand that wait cost no more than ten.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from faxbot import breaker
from faxbot.breaker import THROTTLED
from faxbot.claims import AGING, SINCE
from faxbot.config import Config
from faxbot.db import inserts
from faxbot.events import CLAIMABLE, Status
from faxbot.models import Job, Lane, ProviderState
from faxbot.runtime import Runtime

TURN = timedelta(minutes=1)
"""So long a free lane is kept for the one whose turn it is."""
LOOK_AGAIN = timedelta(minutes=1)
"""Who waits is woken when its turn comes; should that be lost, one of them looks by itself."""
MOST_COUNTED = 60
"""Of more that wait each looks once in an hour at most."""
AT_ONCE = 500
"""So many are let in by one sweep at most."""
SAVED_AT_MOST = timedelta(minutes=1)
NUMBER, PROVIDER, LET_IN = "number", "provider", "let_in"
NOBODY = ""

TURNS = ((Job.priority - AGING / 60 * sa.extract("epoch", SINCE)).desc(), Job.id)
"""Who is next: the most urgent, and who has waited becomes more urgent."""


@dataclass(frozen=True, slots=True)
class Wait:
    """This fax cannot be called now: for its number, or for a provider (`provider:` and its id); to
    be looked at again at `until`."""

    kind: str
    until: datetime


def for_provider(provider_id: str) -> str:
    """The kind of a wait for this provider."""
    return f"{PROVIDER}:{provider_id}"


def _let_in_to(provider_id: str) -> str:
    return f"{LET_IN}:{provider_id}"


def enter(
    session: Session,
    config: Config,
    job: Job,
    provider_id: str,
    now: datetime,
    *,
    numbers: Sequence[str],
) -> Wait | None:
    """Take what the locked job needs for a call: a place with its provider and one in the lane of
    its number; else why it waits.

    `numbers` are the keyed hashes of its number (jobs.number_keys). While the master key is changed there are two, and
    a place is taken under both, so that who knows one of them only stands in the same line.
    """
    if not config.provider_calls and not config.provider_calls_per_minute:
        return _enter_lane(session, config, job, numbers, now)
    # The provider's lock comes before the lane's, as where a call is judged.
    state = breaker.locked(session, job.account_id, provider_id, now)
    kind = for_provider(provider_id)
    others = _waiting(session, job, kind, numbers)
    if (others and job.waiting != _let_in_to(provider_id)) or _room(
        session, config, state, now
    ) < 1:
        return Wait(kind, now + _spread(others))
    wait = _enter_lane(session, config, job, numbers, now)
    if wait is None and config.provider_calls_per_minute:
        state.next_call_at = _next_call(config, state, now) + _interval(config)
    return wait


def _waiting(session: Session, job: Job, kind: str, numbers: Sequence[str]) -> int:
    """How many others wait for the same; no more than MOST_COUNTED are counted."""
    others = sa.select(Job.id).where(
        Job.account_id == job.account_id, Job.waiting == kind, Job.id != job.id
    )
    if kind == NUMBER:
        others = others.where(Job.to_key.in_(numbers))
    counted = others.limit(MOST_COUNTED).subquery()
    return session.scalar(sa.select(sa.func.count()).select_from(counted)) or 0


def _spread(others: int) -> timedelta:
    """The more wait for the same, the more seldom each of them looks."""
    return LOOK_AGAIN * (1 + others * random.random())  # noqa: S311 - guards nothing


# Numbers --------------------------------------------------------------------------------------------


def _enter_lane(
    session: Session, config: Config, job: Job, numbers: Sequence[str], now: datetime
) -> Wait | None:
    if len(numbers) == 1:
        taken = _take_place(session, config, job, numbers[0], now)
    else:
        all_or_none = session.connection().begin_nested()
        taken = all(_take_place(session, config, job, number, now) for number in numbers)
        if taken:
            all_or_none.commit()
        else:
            all_or_none.rollback()
    return None if taken else _wait_for_number(session, config, job, numbers, now)


def _take_place(session: Session, config: Config, job: Job, number: str, now: datetime) -> bool:
    # A lane is nobody's any more so long after its call began.
    held_until = now + timedelta(seconds=config.longest_call_seconds)
    mine = {"job_id": job.id, "held_until": held_until}
    if job.waiting == NUMBER:
        here = {"account": job.account_id, "number": number}
        turn = {"job": job.id, "held": mine["held_until"], "turn_began": now + TURN}
        if session.execute(_TAKE_TURN, {**here, **turn}).first():
            return True
    place = {"account_id": job.account_id, "to_key": number, "wanted": False, "now": now}
    take = _TAKE[session.get_bind().dialect.name]
    return any(
        session.execute(take, {**place, **mine, "slot": slot}).first()
        for slot in range(config.calls_per_number)
    )


def _wait_for_number(
    session: Session, config: Config, job: Job, numbers: Sequence[str], now: datetime
) -> Wait:
    held: list[Any] = []
    for number in numbers:
        here = {"account": job.account_id, "number": number}
        held += session.execute(_WANT, {**here, "slots": config.calls_per_number}).all()
    others = _waiting(session, job, NUMBER, numbers)
    until = now + _spread(others)
    for lane in held:
        if lane.job_id == job.id:
            until = min(until, max(lane.held_until - TURN, now))
        elif not others:
            until = min(until, lane.held_until)
    return Wait(NUMBER, until)


def _take(insert: Any) -> Any:
    new = insert.excluded
    now = sa.bindparam("now", type_=Lane.held_until.type)
    return insert.on_conflict_do_update(
        index_elements=["account_id", "to_key", "slot"],
        set_={"job_id": new.job_id, "held_until": new.held_until},
        where=Lane.held_until <= now,
    ).returning(Lane.slot)


_TAKE = {dialect: _take(insert) for dialect, insert in inserts(Lane).items()}
_HERE = sa.and_(Lane.account_id == sa.bindparam("account"), Lane.to_key == sa.bindparam("number"))
_MINE = sa.and_(_HERE, Lane.job_id == sa.bindparam("job"))
_CHANGE = sa.update(Lane).execution_options(synchronize_session=False)
_TAKE_TURN = (
    _CHANGE.where(_MINE, Lane.held_until <= sa.bindparam("turn_began", type_=Lane.held_until.type))
    .values(held_until=sa.bindparam("held", type_=Lane.held_until.type))
    .returning(Lane.slot)
)
_WANT = (
    _CHANGE.where(_HERE, Lane.slot < sa.bindparam("slots"))
    .values(wanted=True)
    .returning(Lane.held_until, Lane.job_id)
)


def leave(
    session: Session,
    config: Config,
    job: Job,
    now: datetime,
    *,
    called: bool,
    numbers: Sequence[str],
) -> None:
    """Give the lane back, with the gap that follows a call: to the next that waits for it, which is
    woken."""
    free_at = now + timedelta(seconds=config.number_gap_seconds) if called else now
    left: list[Any] = []
    for number in numbers:
        here = {"account": job.account_id, "number": number, "job": job.id, "free_at": free_at}
        left += session.execute(_LEAVE, here).all()
    wanted = [lane for lane in left if lane.wanted and lane.slot < config.calls_per_number]
    if not wanted:
        return
    waiting = {"account": job.account_id, "numbers": numbers, "free_at": free_at}
    woken = session.execute(_WAKE, waiting).first()
    for lane in wanted:
        # Its own place alone: who holds one and asks for another would wait for who does the reverse.
        change = _CHANGE.where(
            Lane.account_id == job.account_id, Lane.to_key == lane.to_key, Lane.slot == lane.slot
        )
        if woken is None:
            session.execute(change.values(wanted=False))
        else:
            session.execute(change.values(job_id=woken.id, held_until=free_at + TURN))


_LEAVE = (
    _CHANGE.where(_MINE)
    .values(job_id=NOBODY, held_until=sa.bindparam("free_at", type_=Lane.held_until.type))
    .returning(Lane.to_key, Lane.slot, Lane.wanted)
)
_FREE_AT = sa.bindparam("free_at", type_=Lane.held_until.type)
_NUMBERS: sa.BindParameter[str] = sa.bindparam("numbers", expanding=True)
_HAS_ITS_TURN = sa.exists().where(
    Lane.account_id == sa.bindparam("account"),
    Lane.to_key.in_(_NUMBERS),
    Lane.job_id == Job.id,
    Lane.held_until > _FREE_AT,
)
_NEXT = (
    sa.select(Job.id)
    .where(
        Job.account_id == sa.bindparam("account"),
        Job.to_key.in_(_NUMBERS),
        Job.waiting == NUMBER,
        Job.status.in_([status.value for status in CLAIMABLE]),
        sa.not_(_HAS_ITS_TURN),
    )
    .order_by(*TURNS)
    .limit(1)
    .with_for_update(skip_locked=True)
    .scalar_subquery()
)
_WAKE = (
    sa.update(Job)
    .where(Job.id == _NEXT)
    .values(
        next_at=sa.case((Job.expires_at < _FREE_AT, Job.expires_at), else_=_FREE_AT), rung_at=None
    )
    .returning(Job.id)
    .execution_options(synchronize_session=False)
)


# Providers ------------------------------------------------------------------------------------------


def _room(session: Session, config: Config, state: ProviderState, now: datetime) -> int:
    """How many more faxes this locked provider may be given now, AT_ONCE at most."""
    room = AT_ONCE
    if config.provider_calls:
        busy = (
            sa.select(Job.id)
            .where(
                Job.account_id == state.account_id,
                Job.status.in_([Status.SUBMITTING.value, Status.SENT.value]),
                Job.provider_id == state.provider_id,
            )
            .limit(config.provider_calls)
            .subquery()
        )
        under_way = session.scalar(sa.select(sa.func.count()).select_from(busy)) or 0
        room = min(room, config.provider_calls - under_way)
    if config.provider_calls_per_minute:
        late = now - _next_call(config, state, now)
        room = min(room, late // _interval(config) + 1)
    return room


def _interval(config: Config) -> timedelta:
    return timedelta(seconds=min(60 / config.provider_calls_per_minute, 86_400.0))


def _next_call(config: Config, state: ProviderState, now: datetime) -> datetime:
    """When the next call is due: each one moves it, so none are counted. What was not used since the
    last sweep but one may be used still: between two sweeps nobody is let in."""
    saved = min(timedelta(seconds=2 * config.sweep_seconds), SAVED_AT_MOST)
    return max(state.next_call_at or now, now - saved)


def let_in(runtime: Runtime) -> int:
    """Have those that wait for a provider tried again, as many as it may be given now and in their
    turn; how many."""
    return sum(
        _let_in(runtime, row.account_id, row.waiting.partition(":")[2])
        for row in runtime.database.rows(_WAITED_FOR, {})
    )


_WAITED_FOR = (
    sa.select(Job.account_id, Job.waiting)
    .where(Job.waiting.is_not(None), Job.waiting.startswith(f"{PROVIDER}:"))
    .distinct()
)


def _let_in(runtime: Runtime, account_id: str, provider_id: str) -> int:
    now = runtime.now()
    rest = runtime.breakers.standing(account_id, provider_id, now).rest(now)
    if rest is not None and rest.reason == THROTTLED:
        return 0
    with runtime.database.transaction() as session:
        state = breaker.locked(session, account_id, provider_id, now)
        # While it rests they find another one, or are held.
        room = AT_ONCE if rest else _room(session, runtime.config, state, now)
        room -= _under_way_to(session, state, now)
        if room < 1:
            return 0
        first = session.scalars(
            sa.select(Job.id)
            .where(Job.account_id == account_id, Job.waiting == for_provider(provider_id))
            .order_by(*TURNS)
            .limit(room)
            .with_for_update(skip_locked=True)
        ).all()
        session.execute(
            sa.update(Job)
            .where(Job.id.in_(first))
            .values(next_at=now, rung_at=None, waiting=_let_in_to(provider_id))
        )
    return len(first)


def _under_way_to(session: Session, state: ProviderState, now: datetime) -> int:
    """How many were let in, and no worker has brought them there yet."""
    let_in_before = (
        sa.select(Job.id)
        .where(
            Job.account_id == state.account_id,
            Job.waiting == _let_in_to(state.provider_id),
            Job.next_at <= now,
        )
        .limit(AT_ONCE)
        .subquery()
    )
    return session.scalar(sa.select(sa.func.count()).select_from(let_in_before)) or 0
