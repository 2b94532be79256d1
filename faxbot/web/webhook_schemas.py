"""The shapes of webhooks and their deliveries; see web/schemas.py for the rules."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
from marshmallow import fields, validate

from faxbot.deliveries import STATUSES
from faxbot.destinations import LONGEST
from faxbot.dialling import OUTCOMES
from faxbot.web.schemas import EXAMPLE_ID, EXAMPLE_TIME, Count, Instant, Whole, printable, says
from faxbot.webhooks import (
    ALL,
    MOST_OVERLAP_HOURS,
    NAME_LENGTH,
    OVERLAP_HOURS,
    REASONS,
    STATES,
    TYPES,
)

EXAMPLE_DELIVERY = f"msg_{EXAMPLE_ID}"
_TYPE = validate.OneOf(TYPES)
_STATUS = validate.OneOf(STATUSES)
_OUTCOME = validate.OneOf(list(OUTCOMES))
_FAX_ID = Whole(r"^[0-9a-f]{32}$", error="Not the id of a fax.")


def _name(*, required: bool) -> fields.String:
    return fields.String(
        required=required,
        validate=[validate.Length(1, NAME_LENGTH), printable],
        metadata=says("what it is for", "records system"),
    )


def _url(*, required: bool) -> fields.String:
    return fields.String(
        required=required,
        validate=validate.Length(1, LONGEST),
        metadata=says(
            "where events are sent to; https in production; it is kept sealed and never shown again as a whole",
            "https://hooks.example.org/faxbot",
        ),
    )


def _types(**options: Any) -> fields.List[str]:
    return fields.List(
        fields.String(validate=validate.OneOf([*TYPES, ALL])),
        validate=validate.Length(1, len(TYPES) + 1, error="Choose at least one, and each once."),
        metadata=says("which events; `*`: all", ["FAX_DELIVERED", "FAX_FAILED"]),
        **options,
    )


class WebhookWish(ma.Schema):
    """A webhook to make."""

    name = _name(required=True)
    url = _url(required=True)
    types = _types(load_default=[ALL])


class WebhookChange(ma.Schema):
    """What is to be changed of a webhook."""

    name = _name(required=False)
    url = _url(required=False)
    types = _types()

    @ma.validates_schema
    def _something(self, data: dict[str, object], **_: object) -> None:
        if not data:
            raise ma.ValidationError("Name what is to be changed: name, url or types.")


class SecretRotation(ma.Schema):
    """How a webhook gets a new secret."""

    overlap_hours = Count(
        load_default=OVERLAP_HOURS,
        validate=validate.Range(0, MOST_OVERLAP_HOURS),
        metadata=says("for so long the old secret signs as well; 0: no more"),
    )


class Webhook(ma.Schema):
    """A subscription to events, without its secrets."""

    id = fields.String(required=True, metadata=says("its id", EXAMPLE_ID))
    name = fields.String(required=True, metadata=says("what it is for", "records system"))
    url = fields.String(
        required=True,
        allow_none=True,
        metadata=says("its host; what follows is not shown", "https://hooks.example.org/…"),
    )
    types = fields.List(fields.String(), required=True, metadata=says("which events", [ALL]))
    state = fields.String(
        required=True,
        validate=validate.OneOf(STATES),
        metadata=says(
            "`pending`: it has not taken a test event yet; `active`: events are sent; `disabled`: it was given up"
        ),
    )
    reason = fields.String(
        required=True,
        allow_none=True,
        metadata=says(
            "why it is disabled: " + "; ".join(f"`{k}`: {v}" for k, v in REASONS.items())
        ),
    )
    failures = fields.Integer(required=True, metadata=says("calls in a row that failed", 0))
    failing_since = fields.AwareDateTime(
        required=True, allow_none=True, metadata=says("when the first of them was")
    )
    rests_until = fields.AwareDateTime(
        required=True,
        allow_none=True,
        metadata=says("after several failures in a row nothing is sent for a while"),
    )
    old_secret_until = fields.AwareDateTime(
        required=True,
        allow_none=True,
        metadata=says("how long the secret of before the last rotation signs beside the new one"),
    )
    created_at = fields.AwareDateTime(required=True, metadata=says("in UTC", EXAMPLE_TIME))
    updated_at = fields.AwareDateTime(required=True, metadata=says("in UTC", EXAMPLE_TIME))
    activated_at = fields.AwareDateTime(required=True, allow_none=True)
    disabled_at = fields.AwareDateTime(required=True, allow_none=True)


class NewWebhook(Webhook):
    """A webhook with its secret, which is shown this once."""

    secret = fields.String(
        required=True, metadata=says("what it verifies with, as Standard Webhooks has it")
    )


class Webhooks(ma.Schema):
    """Every webhook, newest first."""

    items = fields.List(fields.Nested(Webhook), required=True)


class WebhookTest(ma.Schema):
    """How a test event was taken."""

    ok = fields.Boolean(required=True, metadata=says("whether it was taken (2xx)"))
    outcome = fields.String(required=True, validate=_OUTCOME, metadata=says("in a word", "ok"))
    detail = fields.String(required=True, metadata=says("in a sentence"))
    code = fields.Integer(
        required=True, allow_none=True, metadata=says("the status of the answer", 204)
    )
    duration_ms = fields.Integer(required=True, metadata=says("how long it took", 35))
    activated = fields.Boolean(
        required=True, metadata=says("whether events are sent there since now")
    )
    webhook = fields.Nested(Webhook, required=True)


class Deleted(ma.Schema):
    """A webhook that is no more."""

    status = fields.String(required=True, metadata=says("a word", "deleted"))


class _Which(ma.Schema):
    status = fields.String(validate=_STATUS, metadata=says("only deliveries in this status"))
    type = fields.String(validate=_TYPE, metadata=says("only of this event", "FAX_DELIVERED"))
    fax_id = fields.String(validate=_FAX_ID, metadata=says("only of this fax", EXAMPLE_ID))
    since = Instant(metadata=says("only of events at or after this time", EXAMPLE_TIME))
    until = Instant(metadata=says("only of events before this time", EXAMPLE_TIME))
    cursor = fields.String(
        validate=validate.Length(max=64), metadata=says("`next` of the answer before")
    )


class DeliveryQuery(_Which):
    """Which deliveries a list shows."""

    limit = Count(
        load_default=50,
        validate=validate.Range(1, 100),
        metadata=says("deliveries per page, 1 to 100"),
    )


class ReplayWish(_Which):
    """Which deliveries are to be sent again."""


class Delivery(ma.Schema):
    """One event for one webhook."""

    id = fields.String(
        required=True, metadata=says("the `webhook-id` on every try", EXAMPLE_DELIVERY)
    )
    webhook_id = fields.String(required=True, metadata=says("whose it is", EXAMPLE_ID))
    fax_id = fields.String(required=True, metadata=says("the fax it is about", EXAMPLE_ID))
    sequence = fields.Integer(required=True, metadata=says("the event's number of that fax", 4))
    type = fields.String(required=True, metadata=says("the event", "FAX_DELIVERED"))
    status = fields.String(
        required=True,
        validate=_STATUS,
        metadata=says("`waiting`: it is sent, or sent again; `dead`: it is tried no more"),
    )
    cause = fields.String(
        required=True,
        allow_none=True,
        metadata=says("how the last try ended, or why there is none any more", "ok"),
    )
    tries = fields.Integer(required=True, metadata=says("that failed in this turn", 0))
    turn = fields.Integer(
        required=True, metadata=says("0: for the first time; else which replay this is", 0)
    )
    replays = fields.Integer(required=True, metadata=says("how often it was asked for again", 0))
    next_at = fields.AwareDateTime(
        required=True, allow_none=True, metadata=says("when it is tried next")
    )
    created_at = fields.AwareDateTime(required=True, metadata=says("in UTC", EXAMPLE_TIME))
    ended_at = fields.AwareDateTime(required=True, allow_none=True)


class Try(ma.Schema):
    """One call with a delivery; of what was answered the status alone is kept."""

    turn = fields.Integer(required=True, metadata=says("the delivery's, then", 0))
    started_at = fields.AwareDateTime(required=True, metadata=says("in UTC", EXAMPLE_TIME))
    duration_ms = fields.Integer(required=True, metadata=says("how long it took", 35))
    code = fields.Integer(
        required=True, allow_none=True, metadata=says("the status of the answer", 204)
    )
    outcome = fields.String(
        required=True,
        validate=_OUTCOME,
        metadata=says("; ".join(f"`{word}`: {what}" for word, what in OUTCOMES.items()), "ok"),
    )


class DeliveryDetail(Delivery):
    """A delivery with what is sent, and all its tries."""

    body = fields.String(required=True, metadata=says("as it is signed; no PHI"))
    history = fields.List(fields.Nested(Try), required=True)


class DeliveryPage(ma.Schema):
    """A page of deliveries, newest first."""

    items = fields.List(fields.Nested(Delivery), required=True)
    next = fields.String(
        required=True, allow_none=True, metadata=says("`cursor` of the next page; null at the end")
    )


class Replayed(ma.Schema):
    """How many are sent again."""

    count = fields.Integer(required=True, metadata=says("deliveries", 12))
    next = fields.String(
        required=True,
        allow_none=True,
        metadata=says("`cursor` to go on with, where there are more; null: that was all"),
    )
