"""What was delivered to a subscription, and having it sent again: one delivery, or all that fit a filter.

A replay is a turn of its own, with a number of its own: it is never taken for the one before, also where that is still
under way. The webhook-id stays, so that a receiver knows what it has had.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from faxbot import audit, webhooks
from faxbot.actors import Actor
from faxbot.audit import Action
from faxbot.db import UtcDateTime, first_id, table
from faxbot.deliveries import SOME
from faxbot.errors import Malformed, NotFound, WebhookNotActive
from faxbot.fanout import ACTIVE, TASK, WAITING
from faxbot.models import Webhook, WebhookDelivery, WebhookTry
from faxbot.runtime import Runtime

MOST = 10_000
"""Deliveries that one call has sent again."""
_ID = re.compile(r"msg_[0-9a-f]{32}")
_ROWS, _TRIES = table(WebhookDelivery), table(WebhookTry)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which deliveries are meant; None: all."""

    status: str | None = None
    type: str | None = None
    fax_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    """Of the event."""

    def of(self, webhook_id: str) -> list[sa.ColumnElement[bool]]:
        found = [_ROWS.c.webhook_id == webhook_id]
        if self.fax_id is not None:
            found.append(_ROWS.c.fax_id == self.fax_id)
        # In clear: the few that are dead have an index of their own, and few may be of this type, which a plan for all
        # types would not know.
        for name, wanted in (("status", self.status), ("type", self.type)):
            if wanted is not None:
                found.append(_ROWS.c[name] == sa.literal(wanted, literal_execute=True))
        if self.since is not None:
            found.append(_ROWS.c.id >= f"msg_{first_id(self.since)}")
        if self.until is not None:
            found.append(_ROWS.c.id < f"msg_{first_id(self.until)}")
        return found


def page(
    session: Session,
    actor: Actor,
    webhook_id: str,
    filters: Filters,
    *,
    limit: int,
    cursor: str | None,
) -> tuple[list[dict[str, Any]], str | None]:
    """Up to `limit` deliveries of the actor's subscription, newest first, and the cursor of the next page (None at the
    end). Raises NotFound, Malformed for a cursor that is not ours."""
    webhooks.find(session, actor, webhook_id)
    query = sa.select(_ROWS).where(*filters.of(webhook_id))
    if cursor is not None:
        query = query.where(_ROWS.c.id < _checked(cursor))
    found = session.execute(query.order_by(_ROWS.c.id.desc()).limit(limit + 1)).all()
    following = found[limit - 1].id if len(found) > limit else None
    return [describe(row) for row in found[:limit]], following


def count(session: Session, actor: Actor, webhook_id: str, filters: Filters, *, most: int) -> int:
    """How many deliveries of the actor's subscription fit, counted no further than to `most` + 1. Raises NotFound."""
    webhooks.find(session, actor, webhook_id)
    some = sa.select(_ROWS.c.id).where(*filters.of(webhook_id)).limit(most + 1)
    return session.scalar(sa.select(sa.func.count()).select_from(some.subquery())) or 0


def find(session: Session, actor: Actor, delivery_id: str) -> dict[str, Any]:
    """One delivery with its body and all tries, oldest first; raises NotFound."""
    row = _found(session, actor, delivery_id)
    webhooks.find(session, actor, row.webhook_id)
    tries = session.execute(
        sa.select(_TRIES).where(_TRIES.c.delivery_id == row.id).order_by(_TRIES.c.id)
    ).all()
    return {**describe(row), "body": row.body, "history": [_try_json(each) for each in tries]}


def replay(runtime: Runtime, actor: Actor, delivery_id: str) -> dict[str, Any]:
    """Have a delivery sent again, or, between two tries, tried at once; as it stands then. Raises NotFound,
    WebhookNotActive."""
    now = runtime.now()
    with runtime.database.transaction() as session:
        row = _found(session, actor, delivery_id)
        _must_be_active(webhooks.find(session, actor, row.webhook_id))
        session.connection().execute(_REPLAY, {"ids": [row.id], "now": now})
        _record(session, actor, row.webhook_id, now, {"count": 1, "delivery": row.id})
        found = describe(_found(session, actor, delivery_id))
    runtime.ring(TASK, "due")
    return found


def replay_all(
    runtime: Runtime, actor: Actor, webhook_id: str, filters: Filters, *, cursor: str | None = None
) -> dict[str, Any]:
    """Have all deliveries that fit sent again, at most the MOST oldest: {"count", "next"}. With `next` as cursor it
    goes on behind them (None: that was all). Those of one fax are sent in their order, those of several in none.
    What waits to be sent anyhow is left alone. Raises NotFound, Malformed, WebhookNotActive."""
    last = "" if cursor is None else _checked(cursor)
    with runtime.database.reading() as session:
        _must_be_active(webhooks.find(session, actor, webhook_id))
    count, more = 0, True
    which = [*filters.of(webhook_id), _ROWS.c.status != WAITING]
    while more and count < MOST:
        some = sa.select(_ROWS.c.id).where(*which, _ROWS.c.id > last)
        with runtime.database.transaction() as session:
            now = runtime.now()
            ids = session.scalars(some.order_by(_ROWS.c.id).limit(SOME)).all()
            more = len(ids) == SOME
            if ids:
                last = ids[-1]
                session.connection().execute(_REPLAY, {"ids": list(ids), "now": now})
            if ids or not count:
                _record(session, actor, webhook_id, now, {"count": len(ids)})
        count += len(ids)
    runtime.ring(TASK, "due")
    return {"count": count, "next": last if more else None}


# One that has ended begins its next turn; one that waits for its first try of a turn gets one turn more after it; one
# between two tries is tried at once, in a turn of its own.
_WAITS = sa.and_(_ROWS.c.status == WAITING, _ROWS.c.tries == 0)
_NOW = sa.bindparam("now", type_=UtcDateTime)
_REPLAY = (
    sa.update(_ROWS)
    .where(_ROWS.c.id.in_(sa.bindparam("ids", expanding=True)))
    .values(
        replays=_ROWS.c.replays + 1,
        turn=sa.case((_WAITS, _ROWS.c.turn), else_=_ROWS.c.turn + 1),
        tries=0,
        status=WAITING,
        next_at=sa.case((_WAITS, _ROWS.c.next_at), else_=_NOW),
        ended_at=None,
    )
)


def to_replay(session: Session, actor: Actor, webhook_id: str, filters: Filters) -> int:
    """How many deliveries replay_all() would have sent again, counted no further than to MOST + 1. Raises NotFound."""
    webhooks.find(session, actor, webhook_id)
    which = [*filters.of(webhook_id), _ROWS.c.status != WAITING]
    some = sa.select(_ROWS.c.id).where(*which).limit(MOST + 1)
    return session.scalar(sa.select(sa.func.count()).select_from(some.subquery())) or 0


def _must_be_active(webhook: Webhook) -> None:
    if webhook.state != ACTIVE:
        raise WebhookNotActive(
            f"Nothing is sent to this webhook now: it is {webhook.state}. Have it tested first (`faxbot webhooks test "
            f"{webhook.id}`)."
        )


def _checked(cursor: str) -> str:
    if not _ID.fullmatch(cursor):
        raise Malformed("`cursor` is not one that this server gave")
    return cursor


def _found(session: Session, actor: Actor, delivery_id: str) -> sa.Row[Any]:
    found = sa.select(_ROWS).where(_ROWS.c.id == delivery_id)
    row = session.execute(found).first() if _ID.fullmatch(delivery_id) else None
    if row is None or row.account_id != actor.account_id:
        raise NotFound("there is no delivery with this id")
    return row


def _record(
    session: Session, actor: Actor, webhook_id: str, now: datetime, details: dict[str, Any]
) -> None:
    of = ("webhook", webhook_id)
    audit.record(session, actor, Action.WEBHOOK_REPLAYED, of, now=now, details=details)


def describe(row: sa.Row[Any]) -> dict[str, Any]:
    """A delivery as lists show it, in plain JSON types."""
    return {
        "id": row.id,
        "webhook_id": row.webhook_id,
        "fax_id": row.fax_id,
        "sequence": row.sequence,
        "type": row.type,
        "status": row.status,
        "cause": row.cause,
        "tries": row.tries,
        "turn": row.turn,
        "replays": row.replays,
        "next_at": webhooks.stamp(row.next_at),
        "created_at": webhooks.stamp(row.created_at),
        "ended_at": webhooks.stamp(row.ended_at),
    }


def _try_json(row: sa.Row[Any]) -> dict[str, Any]:
    return {
        "turn": row.turn,
        "started_at": webhooks.stamp(row.started_at),
        "duration_ms": row.duration_ms,
        "code": row.code,
        "outcome": row.outcome,
    }
