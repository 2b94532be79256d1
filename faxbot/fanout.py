"""Who is told of an event: one delivery for each subscriber, and one notice for each notification plugin that is to
tell people, written in the transaction in which the event is appended.

What is sent to subscribers is fixed here, once: a body of ids, counts and words of ours, and no PHI (BODY). Who wants
what is known to each process and looked up every few seconds, so that an event of which nobody wants to be told costs
nothing.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from faxbot import events
from faxbot.db import Database, new_id, table, then
from faxbot.models import Notice, Webhook, WebhookDelivery

TASK = "faxbot.deliver_webhooks"
ACTIVE, WAITING = "active", "waiting"
BODY = ("fax_id", "sequence", "status", "provider_id", "attempt", "pages", "pages_sent", "cause")
"""All there is in `data`."""
LOOK_EVERY = 2.0  # seconds
TOO_OLD = 4.0
"""As in settings.py: by what is older than this nobody goes."""
RING_EVERY = 0.5
"""Seconds. Who delivers looks for more for a while, when he has been woken (courier.py)."""
_OPTION, _TELLERS = "faxbot_subscriptions", "faxbot_tellers"
_JSON = json.JSONEncoder(separators=(",", ":")).encode


class Ring(Protocol):
    """runtime.Ring, as far as it is needed here."""

    def __call__(self, task: str, row_id: str, /) -> bool: ...


class Subscriptions:
    """Who wants to be told of what, as this process knows it; safe to share between threads."""

    def __init__(
        self, database: Database, ring: Ring, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._database, self._ring, self._clock = database, ring, clock
        self._known: dict[str, list[tuple[str, frozenset[str]]]] | None = None
        self._looked_at = self._rung_at = float("-inf")
        self._lock = threading.Lock()

    def of(self, account_id: str, event_type: str) -> list[str]:
        """The ids of those who want to be told of such an event of this account, as it was LOOK_EVERY ago. Raises
        DatabaseAway."""
        wanted = self._current().get(account_id)
        if not wanted:
            return []
        return [webhook_id for webhook_id, types in wanted if not types or event_type in types]

    def anybody(self, event_type: str) -> bool:
        """Whether somebody of any account wants to be told of such an event. Raises DatabaseAway."""
        return any(self.of(account_id, event_type) for account_id in self._current())

    def forget(self) -> None:
        """This process has changed something: it reads anew."""
        self._looked_at = float("-inf")

    def ring(self) -> None:
        """Wake who delivers; for many events in a short time once."""
        now = self._clock()
        if now - self._rung_at >= RING_EVERY:
            self._rung_at = now
            self._ring(TASK, "due")

    def _current(self) -> dict[str, list[tuple[str, frozenset[str]]]]:
        age = self._clock() - self._looked_at
        known = self._known
        if known is not None and age < LOOK_EVERY:
            return known
        # One thread looks; the others go by what is known, if anything is, and that lately.
        if not self._lock.acquire(blocking=known is None or age >= TOO_OLD):
            return known or {}  # nobody wants anything, as far as is known
        try:
            if self._known is not None and self._clock() - self._looked_at < LOOK_EVERY:
                return self._known  # another one has looked meanwhile
            looked_at = self._clock()
            found: dict[str, list[tuple[str, frozenset[str]]]] = {}
            for row in self._database.rows(_ACTIVE, {}):
                found.setdefault(row.account_id, []).append((row.id, frozenset(row.types)))
            self._known, self._looked_at = found, looked_at
            return found
        finally:
            self._lock.release()


_ACTIVE = (
    sa.select(Webhook.id, Webhook.account_id, Webhook.types)
    .where(Webhook.state == ACTIVE)
    .order_by(Webhook.id)
)


Tellers = Callable[[], Mapping[str, frozenset[str]]]
"""By which notification plugins people are to be told, and of what (events.Notable)."""


def nobody() -> Mapping[str, frozenset[str]]:
    """Tellers where people are told of nothing."""
    return {}


def attach(database: Database, ring: Ring, tellers: Tellers = nobody) -> None:
    """Have everybody who appends events in this database tell the subscribers, and ring after the commit; and write
    down what people are to be told."""
    options = {_OPTION: Subscriptions(database, ring), _TELLERS: tellers}
    database.engine.update_execution_options(**options)


def of(database: Database) -> Subscriptions:
    """What was attached; raises LookupError."""
    found: Subscriptions = database.engine.get_execution_options()[_OPTION]
    return found


def fan_out(held: Session | Connection, event: Mapping[str, Any]) -> None:
    """Write a delivery for each subscriber of this event (its row's values), and a notice for each notification plugin
    that is to tell people of it, in the caller's transaction; who delivers is woken when that is committed."""
    bound: Any = held.get_bind() if isinstance(held, Session) else held
    options = bound.get_execution_options()
    _write_deliveries(held, event, options[_OPTION])
    kind = events.notable(event["type"], event["status"], event.get("reason"))
    if kind is not None:
        _write_notices(held, event, kind, options[_TELLERS]())


def concerns_anybody(held: Connection, event_type: str) -> bool:
    """Whether fan_out() may have something to write of such an event."""
    subscriptions: Subscriptions = held.get_execution_options()[_OPTION]
    return subscriptions.anybody(event_type) or events.may_be_notable(event_type)


def _write_deliveries(
    held: Session | Connection, event: Mapping[str, Any], subscriptions: Subscriptions
) -> None:
    found = subscriptions.of(event["account_id"], event["type"])
    if not found:
        return
    at, text = event["recorded_at"], body(event)
    row = {
        "account_id": event["account_id"],
        "fax_id": fax_id(event),
        "sequence": event["sequence"],
        "type": event["type"],
        "body": text,
        "status": WAITING,
        "tries": 0,
        "turn": 0,
        "replays": 0,
        "next_at": at,
        "created_at": at,
    }
    rows = [{**row, "id": f"msg_{new_id(at)}", "webhook_id": each} for each in found]
    held.execute(_INSERT, rows)
    then(held, TASK, subscriptions.ring)


def _write_notices(
    held: Session | Connection,
    event: Mapping[str, Any],
    kind: events.Notable,
    wanted: Mapping[str, frozenset[str]],
) -> None:
    expired = "expired" if event["type"] == events.Event.EXPIRED else None
    row = {
        "account_id": event["account_id"],
        "fax_id": fax_id(event),
        "sequence": event["sequence"],
        "kind": kind.value,
        "why": event["cause"] or event.get("reason") or expired,
        "occurred_at": event["occurred_at"],
        "created_at": event["recorded_at"],
    }
    rows = [{**row, "plugin_id": each} for each, kinds in wanted.items() if kind in kinds]
    if rows:
        held.execute(_NOTICE, rows)


_INSERT = sa.insert(table(WebhookDelivery)).inline()
_NOTICE = sa.insert(table(Notice)).inline()


def body(event: Mapping[str, Any]) -> str:
    """What is sent of an event, by its row's values."""
    at = event["occurred_at"].isoformat().replace("+00:00", "Z")
    data = {name: fax_id(event) if name == "fax_id" else event[name] for name in BODY}
    return _JSON({"type": event["type"], "timestamp": at, "data": data})


def fax_id(event: Mapping[str, Any]) -> str:
    """The id of the fax, sent or received, that an event is about."""
    return str(event.get("job_id") or event["inbound_id"])
