"""Lanes: how many calls go to one number at a time and with what gap, and how many a provider is
given at a time and a minute. Who must wait waits in its row, and that costs no attempt.

A lane is a row per number and place, taken in the transaction of the intent and given back when the
attempt is over; one whose call is never heard of again runs out. So two workers cannot both have it,
and nothing must be counted.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from faxbot import breaker
from faxbot.config import Config
from faxbot.db import inserts
from faxbot.events import CLAIMABLE, Status
from faxbot.models import Job, Lane

LONGEST_CALL = timedelta(hours=2)
"""A lane is nobody's any more so long after its call began: 100 pages at a minute each are done."""
LOOK_AGAIN = timedelta(minutes=1)
"""Who waits is woken when its turn comes; should that be lost, it looks by itself."""
NUMBER, PROVIDER = "number", "provider"


@dataclass(frozen=True, slots=True)
class Wait:
    """This fax cannot be called now: for its `number` or its `provider`; to be looked at again at
    `until`."""

    kind: str
    until: datetime


def enter(
    session: Session, config: Config, job: Job, provider_id: str, now: datetime
) -> Wait | None:
    """Take what the locked job needs for a call: a place with its provider and one in the lane of
    its number; else why it waits."""
    return _enter_provider(session, config, job, provider_id, now) or _enter_lane(
        session, config, job, now
    )


def _enter_lane(session: Session, config: Config, job: Job, now: datetime) -> Wait | None:
    place = {"account_id": job.account_id, "to_key": job.to_key}
    dialect = session.get_bind().dialect.name
    for slot in range(config.calls_per_number):
        taken = session.execute(
            _TAKE[dialect],
            {
                **place,
                "slot": slot,
                "job_id": job.id,
                "held_until": now + LONGEST_CALL,
                "wanted": False,
                "now": now,
            },
        ).first()
        if taken is not None:
            return None
    held = session.scalars(_WANT, {"account": job.account_id, "number": job.to_key}).all()
    return Wait(NUMBER, min(*held, now + LOOK_AGAIN))


def _take(insert: Any) -> Any:
    new = insert.excluded
    now = sa.bindparam("now", type_=Lane.held_until.type)
    return insert.on_conflict_do_update(
        index_elements=["account_id", "to_key", "slot"],
        set_={"job_id": new.job_id, "held_until": new.held_until},
        where=sa.or_(Lane.held_until <= now, Lane.job_id == new.job_id),
    ).returning(Lane.slot)


_TAKE = {dialect: _take(insert) for dialect, insert in inserts(Lane).items()}
_HERE = sa.and_(Lane.account_id == sa.bindparam("account"), Lane.to_key == sa.bindparam("number"))
_WANT = (
    sa.update(Lane)
    .where(_HERE)
    .values(wanted=True)
    .returning(Lane.held_until)
    .execution_options(synchronize_session=False)
)
_UNWANT = sa.update(Lane).where(_HERE).values(wanted=False)


def leave(session: Session, config: Config, job: Job, now: datetime, *, called: bool) -> None:
    """Give the lane back, with the gap that follows a call, and wake who waits for it."""
    free_at = now + timedelta(seconds=config.number_gap_seconds) if called else now
    here = {"account": job.account_id, "number": job.to_key}
    left = session.execute(_LEAVE, {**here, "job": job.id, "free_at": free_at}).first()
    if left is None or not left.wanted:
        return
    if session.execute(_WAKE, {**here, "free_at": free_at}).first() is None:
        session.execute(_UNWANT, here)


_LEAVE = (
    sa.update(Lane)
    .where(_HERE, Lane.job_id == sa.bindparam("job"))
    .values(held_until=sa.bindparam("free_at", type_=Lane.held_until.type))
    .returning(Lane.wanted)
    .execution_options(synchronize_session=False)
)
_NEXT = (
    sa.select(Job.id)
    .where(
        Job.account_id == sa.bindparam("account"),
        Job.to_key == sa.bindparam("number"),
        Job.waiting == NUMBER,
        Job.status.in_([status.value for status in CLAIMABLE]),
    )
    .order_by(Job.priority.desc(), Job.id)
    .limit(1)
    .with_for_update(skip_locked=True)
    .scalar_subquery()
)
_WAKE = (
    sa.update(Job)
    .where(Job.id == _NEXT)
    .values(next_at=sa.bindparam("free_at", type_=Job.next_at.type), rung_at=None)
    .returning(Job.id)
    .execution_options(synchronize_session=False)
)


def _enter_provider(
    session: Session, config: Config, job: Job, provider_id: str, now: datetime
) -> Wait | None:
    if not config.provider_calls and not config.provider_calls_per_minute:
        return None
    state = breaker.locked(session, job.account_id, provider_id, now)
    if config.provider_calls:
        busy = sa.select(Job.id).where(
            Job.account_id == job.account_id,
            Job.status.in_([Status.SUBMITTING.value, Status.SENT.value]),
            Job.provider_id == provider_id,
            Job.id != job.id,
        )
        limited = busy.limit(config.provider_calls).subquery()
        if (session.scalar(sa.select(sa.func.count()).select_from(limited)) or 0) >= (
            config.provider_calls
        ):
            return Wait(PROVIDER, now + _spread())
    if config.provider_calls_per_minute:
        # Each call moves the time of the next one: no calls are counted, and none come in heaps.
        at = max(state.next_call_at or now, now)
        if at > now:
            return Wait(PROVIDER, at + _spread())
        state.next_call_at = at + timedelta(seconds=60 / config.provider_calls_per_minute)
    return None


def _spread() -> timedelta:
    """Who waits for the same does not come back all at once."""
    return timedelta(seconds=1 + 9 * random.random())  # noqa: S311 - guards nothing
