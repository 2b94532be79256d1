"""Deliveries: who takes which of those that are due, what comes of each try, and when the next one follows.

A process takes an endpoint (a subscription), not single deliveries: with a lease on its row and a fence that rises,
until nothing is due for it any more. So two processes never send the same, an endpoint gets few at once, and what one
fax did arrives in its order while nothing fails. Outcomes are written many at a time. Calls are made with nothing open
(courier.py); one whose outcome was not written is made again, with the same webhook-id.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from faxbot import audit, fanout, webhooks
from faxbot.actors import CLOCK, Actor
from faxbot.audit import Action
from faxbot.crypto import Unsealable
from faxbot.db import UtcDateTime, table, then
from faxbot.dialling import GONE, Answer
from faxbot.fanout import ACTIVE, TASK, TOO_OLD, WAITING
from faxbot.models import Webhook, WebhookDelivery, WebhookTry
from faxbot.providers.http import retry_after
from faxbot.runtime import Runtime
from faxbot.webhooks import DELETED, DISABLED, Secret

log = logging.getLogger(__name__)

DELIVERED, DEAD = "delivered", "dead"
STATUSES = (WAITING, DELIVERED, DEAD)
SCHEDULE = (
    5.0,
    5 * 60.0,
    30 * 60.0,
    2 * 3600.0,
    5 * 3600.0,
    10 * 3600.0,
    14 * 3600.0,
    20 * 3600.0,
    24 * 3600.0,
)
"""Seconds from a try that failed to the next: ten tries in 75 h and 35 min (Standard Webhooks 1.0.0)."""
STRETCH = 0.05
"""A wait is longer by up to this part of it, so that what failed together is not tried together."""
IN_A_ROW = 5
"""So many failures in a row, and the endpoint rests; then a single delivery tries it."""
REST, REST_AT_MOST = timedelta(seconds=30), timedelta(minutes=10)
"""The first rest, twice as long each time."""
ASKED_AT_MOST = timedelta(hours=1)
"""For so long an endpoint rests that asks for it (429 and 503 with Retry-After); the delivery itself waits as asked, up
to a day."""
FAILING_FOR = timedelta(days=5)
"""An endpoint that does nothing but fail for so long is disabled."""
SOME = 500
"""Rows that one transaction forgets."""
WORKER = Actor("", "worker", frozenset(), CLOCK)


# Taking an endpoint -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """An endpoint that this process delivers to, as its row was read."""

    id: str
    account_id: str
    fence: int
    failures: int
    updated_at: datetime
    url: str = field(repr=False)
    secrets: tuple[Secret, ...] = field(repr=False)


_NOW = sa.bindparam("now", type_=UtcDateTime)
_UNTIL = sa.bindparam("until", type_=UtcDateTime)
_HOOKS, _ROWS = table(Webhook), table(WebhookDelivery)
_WAITS = _ROWS.c.status == sa.literal_column(f"'{WAITING}'")
"""In clear: by a parameter SQLite would not know that the index of those that are due holds it."""
_IS_DUE = (_WAITS, _ROWS.c.next_at <= _NOW)
_HAS_DUE = sa.exists().where(_ROWS.c.webhook_id == _HOOKS.c.id, *_IS_DUE)
_TAKEABLE = (
    _HOOKS.c.state == ACTIVE,
    sa.or_(_HOOKS.c.rests_until.is_(None), _HOOKS.c.rests_until <= _NOW),
    sa.or_(_HOOKS.c.lease_until.is_(None), _HOOKS.c.lease_until < _NOW),
    _HAS_DUE,
)
_ANSWERS, _FAILS = _HOOKS.c.failures == 0, _HOOKS.c.failures > 0


def _claim(which: sa.ColumnElement[bool]) -> sa.Executable:
    some = (
        sa.select(_HOOKS.c.id)
        .where(*_TAKEABLE, which)
        .limit(sa.bindparam("most"))
        .with_for_update(skip_locked=True, key_share=True)
    )
    update = sa.update(_HOOKS).where(_HOOKS.c.id.in_(some))
    return update.values(fence=_HOOKS.c.fence + 1, lease_until=_UNTIL).returning(*_HOOKS.c)


_CLAIM = (_claim(_ANSWERS), _claim(_FAILS))
_ANY = sa.select(
    *(sa.exists(sa.select(_HOOKS.c.id).where(*_TAKEABLE, which)) for which in (_ANSWERS, _FAILS))
)
_MINE = (_HOOKS.c.id == sa.bindparam("webhook_id"), _HOOKS.c.fence == sa.bindparam("number"))
_HELD = (
    sa.select(_HOOKS.c.id)
    .where(sa.tuple_(_HOOKS.c.id, _HOOKS.c.fence).in_(sa.bindparam("mine", expanding=True)))
    .order_by(_HOOKS.c.id)  # as conclude() locks them
    .with_for_update(key_share=True)
)
_PROLONG = (
    sa.update(_HOOKS).where(_HOOKS.c.id.in_(_HELD)).values(lease_until=_UNTIL).returning(*_HOOKS.c)
)
_RELEASE = sa.update(_HOOKS).where(*_MINE).values(lease_until=None).returning(_HOOKS.c.id)


def claim(runtime: Runtime, most: int, most_failing: int) -> list[Target]:
    """Take endpoints for which something is due, and that nobody has: at most so many that took the last call, and so
    many that did not. Raises DatabaseAway."""
    now = runtime.now()
    # Asked first: on SQLite an update that changes nothing waits for who writes, too.
    there = runtime.database.row(_ANY, {"now": now}) if most or most_failing else None
    found: list[sa.Row[Any]] = []
    for any_there, statement, room in zip(there or (), _CLAIM, (most, most_failing), strict=False):
        if any_there and room:
            words = {"now": now, "until": _lease(runtime, now), "most": room}
            found += runtime.database.rows(statement, words)
    targets = (_target(runtime, row, now) for row in found)
    return [target for target in targets if target is not None]


def prolong(runtime: Runtime, targets: Sequence[Target]) -> dict[str, Target]:
    """Keep endpoints that this process has; they as they stand now, by their ids. Left out is what is somebody else's,
    or is to get nothing more."""
    if not targets:
        return {}
    now, known = runtime.now(), {each.id: each for each in targets}
    words = {
        "mine": [(each.id, each.fence) for each in targets],
        "until": _lease(runtime, now),
    }
    kept: dict[str, Target] = {}
    for row in runtime.database.rows(_PROLONG, words):
        same = row.updated_at == known[row.id].updated_at
        target = known[row.id] if same else _target(runtime, row, now)
        if row.state == ACTIVE and target is not None:
            kept[row.id] = target
    return kept


def release(runtime: Runtime, target: Target) -> None:
    """Give an endpoint back."""
    runtime.database.row(_RELEASE, {"webhook_id": target.id, "number": target.fence})


def _lease(runtime: Runtime, now: datetime) -> datetime:
    return now + timedelta(seconds=runtime.config.lease_seconds)


def _target(runtime: Runtime, row: sa.Row[Any], now: datetime) -> Target | None:
    try:
        url = webhooks.address(runtime.keyring, row)
        keys = webhooks.live_secrets(runtime.keyring, row, now)
    except Unsealable as error:
        # Its lease runs out, and it is tried again.
        log.error("webhook does not open", extra={"webhook_id": row.id, "error": error.code})  # noqa: TRY400
        return None
    return Target(row.id, row.account_id, row.fence, row.failures, row.updated_at, url, keys)


def due(
    runtime: Runtime, target: Target, without: Collection[str], most: int
) -> Sequence[sa.Row[Any]]:
    """Deliveries that are due for this endpoint, oldest first, without those that are being sent."""
    words = {"now": runtime.now(), "webhook_id": target.id, "most": most, "without": list(without)}
    return runtime.database.rows(_DUE, words)


_DUE = (
    sa.select(
        _ROWS.c.id, _ROWS.c.webhook_id, _ROWS.c.fax_id, _ROWS.c.body, _ROWS.c.tries, _ROWS.c.turn
    )
    .where(
        _ROWS.c.webhook_id == sa.bindparam("webhook_id"),
        *_IS_DUE,
        _ROWS.c.id.not_in(sa.bindparam("without", expanding=True)),
    )
    # What was recorded at the same moment, in its order.
    .order_by(_ROWS.c.next_at, _ROWS.c.sequence, _ROWS.c.id)
    .limit(sa.bindparam("most"))
)


# After the calls --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of one try."""

    target: Target
    delivery: sa.Row[Any]
    """Of due()."""
    started_at: datetime
    answer: Answer


@dataclass(frozen=True, slots=True)
class Standing:
    """How an endpoint stands after that."""

    open: bool
    """Whether it may get more now."""
    failures: int


def conclude(
    runtime: Runtime, outcomes: Sequence[Tried], luck: Callable[[], float] = random.random
) -> dict[str, Standing]:
    """Write down what came of these tries, in one transaction; how each endpoint stands then, by its id. Those that
    this process has lost, or that are deleted, are left out, and nothing of them is written: who has them now sends it
    again. `luck` gives random numbers in [0, 1). Raises DatabaseAway."""
    now = runtime.now()
    with runtime.database.transaction() as session:
        wanted = sorted({each.target.id for each in outcomes})
        hooks = {each.id: each for each in session.scalars(_LOCKED, {"wanted": wanted})}
        mine = [each for each in outcomes if _is_mine(hooks.get(each.target.id), each.target)]
        if mine:
            session.execute(_TRIED, [_try(each) for each in mine])
            _taken(session, [each for each in mine if each.answer.ok], now)
            failed = [each for each in mine if not each.answer.ok]
            _failed(session, failed, now, luck)
            for each in sorted(mine, key=lambda one: one.started_at):
                # Of an endpoint that a person has changed meanwhile it says nothing.
                if hooks[each.target.id].updated_at == each.target.updated_at:
                    _judge(session, hooks[each.target.id], each, now)
            if any(hooks[each.target.id].state != ACTIVE for each in mine):
                then(session, "subscriptions", fanout.of(runtime.database).forget)
        return {each.target.id: _standing(hooks[each.target.id], now) for each in mine}


_LOCKED = (
    sa.select(Webhook)
    .where(Webhook.id.in_(sa.bindparam("wanted", expanding=True)))
    .order_by(Webhook.id)
    .with_for_update(key_share=True)
)
_TRIED = sa.insert(table(WebhookTry)).inline()


def _is_mine(webhook: Webhook | None, target: Target) -> bool:
    return webhook is not None and webhook.fence == target.fence and webhook.state != DELETED


def _standing(webhook: Webhook, now: datetime) -> Standing:
    rests = webhook.rests_until is not None and webhook.rests_until > now
    return Standing(webhook.state == ACTIVE and not rests, webhook.failures)


def _try(outcome: Tried) -> dict[str, Any]:
    return {
        "account_id": outcome.target.account_id,
        "delivery_id": outcome.delivery.id,
        "turn": outcome.delivery.turn,
        "started_at": outcome.started_at,
        "duration_ms": round(outcome.answer.seconds * 1000),
        "code": outcome.answer.code,
        "outcome": outcome.answer.outcome,
    }


# A turn ends, and the next one begins where it was asked for meanwhile (replays.py).
_MORE = _ROWS.c.replays > _ROWS.c.turn
_ENDS: dict[str, Any] = {
    "status": sa.case((_MORE, WAITING), else_=sa.bindparam("as_")),
    "next_at": sa.case((_MORE, _NOW), else_=None),
    "ended_at": sa.case((_MORE, None), else_=_NOW),
    "turn": sa.case((_MORE, _ROWS.c.turn + 1), else_=_ROWS.c.turn),
    "tries": sa.case((_MORE, 0), else_=sa.bindparam("tried")),
    "cause": sa.bindparam("why"),
}
_IN_ITS_TURN = (_WAITS, _ROWS.c.turn == sa.bindparam("in_turn"))
_TAKEN = (
    sa.update(_ROWS)
    .where(_ROWS.c.id.in_(sa.bindparam("taken", expanding=True)), *_IN_ITS_TURN)
    .values({**_ENDS, "tries": sa.case((_MORE, 0), else_=_ROWS.c.tries)})
)
_DIED = sa.update(_ROWS).where(_ROWS.c.id == sa.bindparam("died"), *_IN_ITS_TURN).values(_ENDS)
_AGAIN = (
    sa.update(_ROWS)
    .where(_ROWS.c.id == sa.bindparam("again"), *_IN_ITS_TURN)
    .values(
        tries=sa.bindparam("tried"),
        cause=sa.bindparam("why"),
        next_at=sa.bindparam("at", type_=UtcDateTime),
    )
)


def _taken(session: Session, outcomes: Sequence[Tried], now: datetime) -> None:
    turns: dict[int, list[str]] = {}
    for each in outcomes:
        turns.setdefault(each.delivery.turn, []).append(each.delivery.id)
    for turn, ids in turns.items():
        words = {"taken": ids, "in_turn": turn, "as_": DELIVERED, "why": "ok", "now": now}
        session.connection().execute(_TAKEN, words)


def _failed(
    session: Session, outcomes: Sequence[Tried], now: datetime, luck: Callable[[], float]
) -> None:
    again, died = [], []
    for each in outcomes:
        delivery, answer = each.delivery, each.answer
        words = {"in_turn": delivery.turn, "tried": delivery.tries + 1, "why": answer.outcome}
        wait = next_wait(delivery.tries, answer, luck())
        if wait is None:
            died.append({**words, "died": delivery.id, "as_": DEAD, "now": now})
        else:
            again.append({**words, "again": delivery.id, "at": now + wait})
    for statement, rows in ((_AGAIN, again), (_DIED, died)):
        if rows:
            session.connection().execute(statement, rows)


def next_wait(tries: int, answer: Answer, luck: float) -> timedelta | None:
    """How long a delivery waits that failed so, after so many failures before; None: it was the last try. At least as
    long as the receiver asks, who is believed for up to a day."""
    if answer.outcome == GONE or tries >= len(SCHEDULE):
        return None
    wait = SCHEDULE[tries] * (1 + STRETCH * luck)
    return timedelta(seconds=max(wait, retry_after(answer.headers or {}) or 0.0))


def _judge(session: Session, webhook: Webhook, outcome: Tried, now: datetime) -> None:
    """What this try says of its endpoint."""
    answer = outcome.answer
    if answer.ok:
        if webhook.failing_at is not None:
            webhook.failures = webhook.rests = 0
            webhook.failing_at = webhook.rests_until = None
        return
    webhook.failures += 1
    webhook.failing_at = webhook.failing_at or outcome.started_at
    if webhook.state != ACTIVE:
        return
    if answer.outcome == GONE:
        disable(session, webhook, "gone", now)
    elif now - webhook.failing_at >= FAILING_FOR and webhook.failures > len(SCHEDULE):
        disable(session, webhook, "failing", now)
    elif webhook.failures >= IN_A_ROW and (webhook.rests_until or now) <= now:
        webhook.rests += 1
        webhook.rests_until = now + min(REST * 2 ** min(webhook.rests - 1, 10), REST_AT_MOST)
    asked = retry_after(answer.headers or {}) if answer.code in (429, 503) else None
    if asked:
        until = now + min(timedelta(seconds=asked), ASKED_AT_MOST)
        webhook.rests_until = max(webhook.rests_until or until, until)


def disable(session: Session, webhook: Webhook, reason: str, now: datetime) -> None:
    """Send nothing there any more, until a person has it tested again. Said once, in the audit trail and in the log."""
    webhook.state, webhook.reason = DISABLED, reason
    webhook.disabled_at = webhook.updated_at = now
    session.flush()
    who = Actor(webhook.account_id, WORKER.id, WORKER.scopes, WORKER.kind)
    of, details = ("webhook", webhook.id), {"reason": reason}
    audit.record(session, who, Action.WEBHOOK_DISABLED, of, now=now, details=details)
    names = {"webhook_id": webhook.id, "reason": reason}
    then(session, f"disabled {webhook.id}", lambda: log.error("webhook disabled", extra=names))


# What runs by the clock -------------------------------------------------------------------------------


def announce_due(runtime: Runtime) -> int:
    """Wake who delivers where something is due that nobody is at; how many endpoints."""
    found = runtime.database.rows(_WAIT_FOR_SOMEBODY, {"now": runtime.now(), "most": SOME})
    if found:
        runtime.ring(TASK, "due")
    return len(found)


_WAIT_FOR_SOMEBODY = sa.select(_HOOKS.c.id).where(*_TAKEABLE).limit(sa.bindparam("most"))


def overdue(runtime: Runtime, by: timedelta) -> bool:
    """Whether something has been due for so long, and nobody is at it."""
    now = {"now": runtime.now() - by, "most": 1}
    return bool(runtime.database.rows(_WAIT_FOR_SOMEBODY, now))


def tidy(runtime: Runtime) -> int:
    """End what waits for endpoints that were given up, and forget the deliveries of deleted ones and secrets that sign
    no more; some hundreds of each. How many rows. What has ended is removed by retention."""
    now = runtime.now()
    todo: list[tuple[sa.Executable, dict[str, Any]]] = [
        (_SPENT_SECRETS, {"now": now}),
    ]
    for webhook in runtime.database.rows(_ENDED, {}):
        of_webhook = {"ended_id": webhook.id, "some": SOME}
        if webhook.state == DISABLED:
            todo.append((_GIVEN_UP, {**of_webhook, "now": now}))
        else:
            todo.append((_OF_DELETED, of_webhook))
            # A process that does not know yet would write deliveries for it.
            if webhook.updated_at < now - timedelta(seconds=100 * TOO_OLD):
                todo.append((_EMPTY, {"ended_id": webhook.id}))
    return sum(len(runtime.database.rows(statement, words)) for statement, words in todo)


def _some(*which: sa.ColumnElement[bool]) -> sa.ScalarSelect[Any]:
    some = sa.select(_ROWS.c.id).where(*which).limit(sa.bindparam("some"))
    return some.with_for_update(skip_locked=True).scalar_subquery()


_ENDED = sa.select(_HOOKS.c.id, _HOOKS.c.state, _HOOKS.c.updated_at).where(
    _HOOKS.c.state.in_((DISABLED, DELETED))
)
_OF_ENDED = _ROWS.c.webhook_id == sa.bindparam("ended_id")
_IS_DISABLED = sa.exists().where(
    _HOOKS.c.id == sa.bindparam("ended_id"), _HOOKS.c.state == DISABLED
)
_GIVEN_UP = (
    sa.update(_ROWS)
    .where(_ROWS.c.id.in_(_some(_WAITS, _OF_ENDED)), _IS_DISABLED)
    .values(status=DEAD, cause=DISABLED, next_at=None, ended_at=_NOW)
    .returning(_ROWS.c.id)
)
_OF_DELETED = sa.delete(_ROWS).where(_ROWS.c.id.in_(_some(_OF_ENDED))).returning(_ROWS.c.id)
_SPENT_SECRETS = (
    sa.update(_HOOKS)
    .where(
        _HOOKS.c.id.in_(
            sa.select(_HOOKS.c.id)
            .where(_HOOKS.c.old_secret_until < _NOW)
            .order_by(_HOOKS.c.id)
            .with_for_update(key_share=True)
        )
    )
    .values(old_secret_sealed=None, old_secret_until=None)
    .returning(_HOOKS.c.id)
)
_EMPTY = (
    sa.delete(_HOOKS)
    .where(_HOOKS.c.id == sa.bindparam("ended_id"), ~sa.exists().where(_OF_ENDED))
    .returning(_HOOKS.c.id)
)
