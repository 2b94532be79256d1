"""Webhooks: the list, one of them, what was delivered there, and having it sent again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from flask import Response, request
from marshmallow import fields, validate
from werkzeug.datastructures import MultiDict

from faxbot import replays, webhooks
from faxbot.deliveries import DEAD, STATUSES
from faxbot.dialling import OUTCOMES
from faxbot.errors import InvalidFields, Malformed
from faxbot.events import EVENT_MEANING
from faxbot.fanout import ACTIVE, WAITING
from faxbot.models import Webhook
from faxbot.replays import Filters
from faxbot.web.auth import actor, runtime
from faxbot.web.console import frame
from faxbot.web.webhook_schemas import (
    DeliveryQuery,
    ReplayWish,
    SecretRotation,
    WebhookChange,
    WebhookWish,
)

pages = frame.Pages("webhooks", __name__)

HOME = "/admin/ui/webhooks"
ROWS = 50
MOST_COUNTED = 100
"""Deliveries that wait, or are given up, are counted no further in the list."""
_FILTERS = ("type", "fax_id", "since", "until")
_ONCE = "What the receiver verifies requests with (Standard Webhooks). It is not shown again: give it there now."


class _Deliveries(DeliveryQuery):
    """What stands in the address of the list of deliveries."""

    status = fields.String(validate=validate.OneOf(STATUSES))


_QUERY = _Deliveries(exclude=("limit",))


@pages.page("/webhooks", access="webhooks:manage")
def list_webhooks() -> Response:
    """The list."""
    with runtime().database.reading() as session:
        found = webhooks.everybody(session, actor().account_id)
        rows = [
            {**webhooks.describe(runtime(), webhook), "counts": _counts(session, webhook.id)}
            for webhook in found
        ]
    return frame.show("webhooks.html", rows=rows, types=_types(), reasons=webhooks.REASONS)


def _counts(session: Any, webhook_id: str) -> dict[str, str]:
    """How many deliveries wait and were given up; each has an index of its own."""
    found = {}
    for status in (WAITING, DEAD):
        which = Filters(status=status)
        count = replays.count(session, actor(), webhook_id, which, most=MOST_COUNTED)
        found[status] = f"{MOST_COUNTED}+" if count > MOST_COUNTED else str(count)
    return found


def _types() -> list[tuple[str, str]]:
    """What can be subscribed to, each in a sentence."""
    every = (webhooks.ALL, "all events, also those of later versions")
    return [every, *((str(event), meaning) for event, meaning in EVENT_MEANING.items())]


@pages.deed("/webhooks", access="webhooks:manage")
def create_webhook() -> Response:
    """Make one; its secret is shown this once."""
    wish = frame.checked(WebhookWish(), request.form)
    with runtime().database.transaction() as session:
        webhook, secret = webhooks.create(session, runtime(), actor(), now=runtime().now(), **wish)
        name = webhook.name
    return frame.reveal(f"The secret of {name}", _ONCE, secret)


@pages.page("/webhooks/<webhook_id>", access="webhooks:manage")
def show_webhook(webhook_id: str) -> Response:
    """One of them."""
    with runtime().database.reading() as session:
        webhook = webhooks.find(session, actor(), webhook_id)
        counts = _counts(session, webhook_id)
    return frame.show(
        "webhook.html",
        webhook=webhooks.describe(runtime(), webhook),
        counts=counts,
        types=_types(),
        reasons=webhooks.REASONS,
        overlap=webhooks.OVERLAP_HOURS,
        most_overlap=webhooks.MOST_OVERLAP_HOURS,
    )


@pages.deed("/webhooks/<webhook_id>", access="webhooks:manage")
def change_webhook(webhook_id: str) -> Response:
    """Change its name, its address or its types; an address that is left empty stays."""
    wish = frame.checked(WebhookChange(), request.form)
    webhooks.change(runtime(), actor(), webhook_id, **wish)
    return frame.lead(f"{HOME}/{webhook_id}")


@pages.deed("/webhooks/<webhook_id>/test", access="webhooks:manage")
def test_webhook(webhook_id: str) -> Response:
    """Send a test event, and show how it was taken."""
    _, answer, activated = webhooks.send_test(runtime(), actor(), webhook_id)
    return frame.ask(
        frame.show(
            "webhook-test.html",
            answer=answer,
            detail=OUTCOMES[answer.outcome].capitalize(),
            activated=activated,
        )
    )


@pages.deed("/webhooks/<webhook_id>/rotate", access="webhooks:manage")
def rotate_webhook(webhook_id: str) -> Response:
    """A new secret; it is shown this once."""
    wish = frame.checked(SecretRotation(), request.form)
    overlap = timedelta(hours=wish["overlap_hours"])
    with runtime().database.transaction() as session:
        webhook, secret = webhooks.rotate(
            session, runtime().keyring, actor(), webhook_id, overlap=overlap, now=runtime().now()
        )
        name = webhook.name
    return frame.reveal(f"The new secret of {name}", _ONCE, secret)


@pages.deed("/webhooks/<webhook_id>/delete", access="webhooks:manage")
def delete_webhook(webhook_id: str) -> Response:
    """End it, with all of its deliveries."""
    webhooks.delete(runtime(), actor(), webhook_id)
    return frame.lead(HOME)


# Deliveries ---------------------------------------------------------------------------------------------


@pages.page("/webhooks/<webhook_id>/deliveries", access="webhooks:manage")
def list_deliveries(webhook_id: str) -> Response:
    """What was sent there, and what is to be; of an address that makes no sense the filters as they were typed, and
    what is wrong with them."""
    with runtime().database.reading() as session:
        webhook = webhooks.find(session, actor(), webhook_id)
        try:
            query = frame.checked(_QUERY, frame.days(frame.asked()))
            cursor = query.pop("cursor", None)
            rows, following = replays.page(
                session, actor(), webhook_id, Filters(**query), limit=ROWS, cursor=cursor
            )
        except (InvalidFields, Malformed) as error:
            wrong = frame.mistaken(error)
            return _listed(webhook, wrong["problem"]["status"], [], **wrong)
    return _listed(webhook, 200, rows, **frame.leaves(cursor, following))


def _listed(webhook: Webhook, status: int, rows: list[dict[str, Any]], **view: Any) -> Response:
    filters = frame.filters(("status", *_FILTERS))
    return frame.show(
        "deliveries.html",
        status,
        webhook=webhooks.describe(runtime(), webhook),
        is_active=webhook.state == ACTIVE,
        statuses=STATUSES,
        status=filters.pop("status", None),
        types=webhooks.TYPES,
        filters=filters,
        rows=rows,
        outcomes=OUTCOMES,
        **view,
    )


@pages.page("/webhooks/deliveries/<delivery_id>", access="webhooks:manage")
def show_delivery(delivery_id: str) -> Response:
    """One delivery, with what is sent and all tries."""
    with runtime().database.reading() as session:
        delivery = replays.find(session, actor(), delivery_id)
        webhook = webhooks.find(session, actor(), delivery["webhook_id"])
    return frame.show(
        "delivery.html",
        delivery=delivery,
        webhook=webhooks.describe(runtime(), webhook),
        is_active=webhook.state == ACTIVE,
        outcomes=OUTCOMES,
    )


@pages.deed("/webhooks/deliveries/<delivery_id>/replay", access="webhooks:manage")
def replay_delivery(delivery_id: str) -> Response:
    """Send it again."""
    replays.replay(runtime(), actor(), delivery_id)
    return frame.done("It is sent again, under the same webhook-id.")


@pages.deed("/webhooks/<webhook_id>/ask", access="webhooks:manage")
def ask_to_replay(webhook_id: str) -> Response:
    """Say how many deliveries fit, before they are sent again."""
    wish = frame.checked(ReplayWish(), frame.days(request.form))
    with runtime().database.reading() as session:
        count = replays.to_replay(session, actor(), webhook_id, Filters(**wish))
    return _asked(webhook_id, request.form, count)


def _asked(webhook_id: str, values: MultiDict[str, str], count: int, sent: int = 0) -> Response:
    named = ("status", *_FILTERS, "cursor")
    return frame.ask(
        frame.show(
            "replay.html",
            webhook_id=webhook_id,
            chosen={name: values[name] for name in named if values.get(name)},
            count=count,
            most=replays.MOST,
            sent=sent,
        )
    )


@pages.deed("/webhooks/<webhook_id>/replay", access="webhooks:manage")
def replay_many(webhook_id: str) -> Response:
    """Send all that fit again, the oldest first; where they are many it asks once more."""
    wish = frame.checked(ReplayWish(), frame.days(request.form))
    cursor = wish.pop("cursor", None)
    done = replays.replay_all(runtime(), actor(), webhook_id, Filters(**wish), cursor=cursor)
    if done["next"] is None:
        return frame.done(f"Sent again: {done['count']}.")
    values = MultiDict({**request.form.to_dict(), "cursor": done["next"]})
    return _asked(webhook_id, values, 0, done["count"])
