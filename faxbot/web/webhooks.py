"""/webhooks: subscriptions to events, what was sent to them, and having it sent again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from flask import Response

from faxbot import replays, webhooks
from faxbot.dialling import OUTCOMES
from faxbot.errors import Malformed, NotFound, WebhookNotActive, WebhookTestsCrowded
from faxbot.models import Webhook
from faxbot.replays import Filters
from faxbot.web import api, problems, webhook_schemas
from faxbot.web.auth import actor, runtime

blueprint = api.Blueprint(
    "webhooks", __name__, description="Have events sent to you, signed; see what was sent."
)

_WEBHOOK_ID = [api.path("webhook_id", "the webhook's id")]
_DELIVERY_ID = [api.path("delivery_id", "the delivery's id")]


@blueprint.operation(
    "GET",
    "/webhooks",
    access="webhooks:manage",
    answers={200: api.answer(webhook_schemas.Webhooks, "All webhooks; no secrets.")},
)
def list_webhooks() -> Response:
    """List the webhooks"""
    with runtime().database.reading() as session:
        found = webhooks.everybody(session, actor().account_id)
    return api.reply(problems.dumps({"items": [_describe(webhook) for webhook in found]}))


@blueprint.operation(
    "POST",
    "/webhooks",
    access="webhooks:manage",
    body=webhook_schemas.WebhookWish(),
    answers={201: api.answer(webhook_schemas.NewWebhook, "The webhook, with its secret.")},
)
def create_webhook(wish: dict[str, Any]) -> Response:
    """Make a webhook

    Its secret is shown this once. Nothing is sent there until it has taken a test event.
    """
    now = runtime().now()
    with runtime().database.transaction() as session:
        webhook, secret = webhooks.create(session, runtime(), actor(), now=now, **wish)
    return api.reply(problems.dumps({**_describe(webhook), "secret": secret}), 201)


@blueprint.operation(
    "GET",
    "/webhooks/<webhook_id>",
    access="webhooks:manage",
    answers={200: api.answer(webhook_schemas.Webhook, "The webhook.")},
    errors=(NotFound,),
    parameters=_WEBHOOK_ID,
)
def read_webhook(webhook_id: str) -> Response:
    """Read a webhook"""
    with runtime().database.reading() as session:
        webhook = webhooks.find(session, actor(), webhook_id)
    return api.reply(problems.dumps(_describe(webhook)))


@blueprint.operation(
    "PATCH",
    "/webhooks/<webhook_id>",
    access="webhooks:manage",
    body=webhook_schemas.WebhookChange(),
    answers={200: api.answer(webhook_schemas.Webhook, "The webhook as it stands now.")},
    errors=(NotFound, WebhookTestsCrowded),
    parameters=_WEBHOOK_ID,
)
def change_webhook(wish: dict[str, Any], webhook_id: str) -> Response:
    """Change a webhook

    Where it is active, a new address must take a test event first, and nothing is changed when it does not.
    """
    return api.reply(
        problems.dumps(_describe(webhooks.change(runtime(), actor(), webhook_id, **wish)))
    )


@blueprint.operation(
    "DELETE",
    "/webhooks/<webhook_id>",
    access="webhooks:manage",
    answers={200: api.answer(webhook_schemas.Deleted, "It is no more.")},
    errors=(NotFound,),
    parameters=_WEBHOOK_ID,
)
def delete_webhook(webhook_id: str) -> Response:
    """Delete a webhook

    With all of its deliveries, those that wait and those that are kept.
    """
    webhooks.delete(runtime(), actor(), webhook_id)
    return api.reply(problems.dumps({"status": "deleted"}))


@blueprint.operation(
    "POST",
    "/webhooks/<webhook_id>/test",
    access="webhooks:manage",
    answers={200: api.answer(webhook_schemas.WebhookTest, "How the test event was taken.")},
    errors=(NotFound, WebhookTestsCrowded),
    parameters=_WEBHOOK_ID,
)
def test_webhook(webhook_id: str) -> Response:
    """Send a test event

    Where it is taken (2xx), the webhook is active from then on, if it was pending or disabled.
    """
    webhook, answer, activated = webhooks.send_test(runtime(), actor(), webhook_id)
    said = {
        "ok": answer.ok,
        "outcome": answer.outcome,
        "detail": f"{OUTCOMES[answer.outcome].capitalize()}.",
        "code": answer.code,
        "duration_ms": round(answer.seconds * 1000),
        "activated": activated,
        "webhook": _describe(webhook),
    }
    return api.reply(problems.dumps(said))


@blueprint.operation(
    "POST",
    "/webhooks/<webhook_id>/rotate",
    access="webhooks:manage",
    body=webhook_schemas.SecretRotation(),
    answers={200: api.answer(webhook_schemas.NewWebhook, "The webhook, with its new secret.")},
    errors=(NotFound,),
    parameters=_WEBHOOK_ID,
)
def rotate_webhook(wish: dict[str, Any], webhook_id: str) -> Response:
    """Give a webhook a new secret

    It is shown this once. For `overlap_hours` each request is signed with the old one as well.
    """
    overlap = timedelta(hours=wish["overlap_hours"])
    with runtime().database.transaction() as session:
        webhook, secret = webhooks.rotate(
            session, runtime().keyring, actor(), webhook_id, overlap=overlap, now=runtime().now()
        )
    return api.reply(problems.dumps({**_describe(webhook), "secret": secret}))


@blueprint.operation(
    "GET",
    "/webhooks/<webhook_id>/deliveries",
    access="webhooks:manage",
    query=webhook_schemas.DeliveryQuery(),
    answers={200: api.answer(webhook_schemas.DeliveryPage, "A page of deliveries.")},
    errors=(NotFound, Malformed),
    parameters=_WEBHOOK_ID,
)
def list_deliveries(query: dict[str, Any], webhook_id: str) -> Response:
    """List a webhook's deliveries

    Those that ended stay for a month. Pages by cursor: follow `next` until it is null.
    """
    limit, cursor = query.pop("limit"), query.pop("cursor", None)
    with runtime().database.reading() as session:
        items, following = replays.page(
            session, actor(), webhook_id, Filters(**query), limit=limit, cursor=cursor
        )
    return api.reply(problems.dumps({"items": items, "next": following}))


@blueprint.operation(
    "POST",
    "/webhooks/<webhook_id>/replay",
    access="webhooks:manage",
    body=webhook_schemas.ReplayWish(),
    answers={200: api.answer(webhook_schemas.Replayed, "How many are sent again.")},
    errors=(NotFound, Malformed, WebhookNotActive),
    parameters=_WEBHOOK_ID,
)
def replay_deliveries(wish: dict[str, Any], webhook_id: str) -> Response:
    """Send deliveries again

    All that fit, at most the oldest 10,000 in one request; what waits to be sent anyhow is left alone. Those of one fax
    come in their order, those of different faxes in none.
    """
    cursor = wish.pop("cursor", None)
    done = replays.replay_all(runtime(), actor(), webhook_id, Filters(**wish), cursor=cursor)
    return api.reply(problems.dumps(done))


@blueprint.operation(
    "GET",
    "/webhooks/deliveries/<delivery_id>",
    access="webhooks:manage",
    answers={200: api.answer(webhook_schemas.DeliveryDetail, "The delivery.")},
    errors=(NotFound,),
    parameters=_DELIVERY_ID,
)
def read_delivery(delivery_id: str) -> Response:
    """Read a delivery, with its tries"""
    with runtime().database.reading() as session:
        return api.reply(problems.dumps(replays.find(session, actor(), delivery_id)))


@blueprint.operation(
    "POST",
    "/webhooks/deliveries/<delivery_id>/replay",
    access="webhooks:manage",
    answers={200: api.answer(webhook_schemas.Delivery, "The delivery as it stands now.")},
    errors=(NotFound, WebhookNotActive),
    parameters=_DELIVERY_ID,
)
def replay_delivery(delivery_id: str) -> Response:
    """Send a delivery again

    Under the same `webhook-id`, in a turn of its own; one that waits for its next try is tried at once.
    """
    return api.reply(problems.dumps(replays.replay(runtime(), actor(), delivery_id)))


def _describe(webhook: Webhook) -> dict[str, Any]:
    return webhooks.describe(runtime(), webhook)
