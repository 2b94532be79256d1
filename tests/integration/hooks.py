"""What the tests of webhooks share: subscriptions that are active already, and a courier that works until nothing is
due."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from faxbot import actors, deliveries, fanout, webhooks
from faxbot.courier import Courier
from faxbot.db import table
from faxbot.models import Webhook, WebhookDelivery, WebhookTry
from faxbot.runtime import Runtime
from tests.ground import eventually

HERE = {"FAXBOT_WEBHOOK_NETWORKS": "127.0.0.1", "FAXBOT_WEBHOOK_PORTS": "1024-65535"}
"""Settings with which receivers on this machine may be called."""


def subscribe(
    runtime: Runtime,
    url: str,
    *types: str,
    account_id: str = "default",
    active: bool = True,
) -> tuple[str, str]:
    """The id and the secret of a subscription; `active` as after its test event."""
    actor, now = replace(actors.CLI, account_id=account_id), runtime.now()
    with runtime.database.transaction() as session:
        webhook, secret = webhooks.create(
            session, runtime, actor, name="test", url=url, types=types or ["*"], now=now
        )
        if active:
            webhooks.activate(webhook, now)
    fanout.of(runtime.database).forget()
    return webhook.id, secret


def deliver(runtime: Runtime, _due: str = "due", *, timeout: float = 30.0) -> None:
    """What the task starts, until nothing is due and nobody is at work."""
    with closing(Courier(runtime)) as courier:
        courier.wake()
        eventually(lambda: is_done(runtime), timeout)


def is_done(runtime: Runtime) -> bool:
    now = {"now": runtime.now(), "most": 1}
    held = sa.select(Webhook.id).where(Webhook.lease_until >= runtime.now())
    return not (
        runtime.database.rows(deliveries._WAIT_FOR_SOMEBODY, now) or runtime.database.rows(held, {})
    )


def hook(runtime: Runtime, webhook_id: str) -> Webhook:
    with runtime.database.reading() as session:
        return session.get_one(Webhook, webhook_id)


def rows(runtime: Runtime, webhook_id: str | None = None) -> Sequence[sa.Row[Any]]:
    """Deliveries, in the order of their events."""
    query = sa.select(table(WebhookDelivery)).order_by(
        WebhookDelivery.created_at, WebhookDelivery.sequence, WebhookDelivery.webhook_id
    )
    if webhook_id is not None:
        query = query.where(WebhookDelivery.webhook_id == webhook_id)
    return runtime.database.rows(query, {})


def tries(runtime: Runtime) -> Sequence[sa.Row[Any]]:
    return runtime.database.rows(sa.select(table(WebhookTry)).order_by(WebhookTry.id), {})
