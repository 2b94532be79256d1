"""The shapes of received faxes, as marshmallow schemas."""

from __future__ import annotations

import marshmallow as ma
from marshmallow import fields, validate

from faxbot.events import RECEPTION_MEANING, Reception
from faxbot.web.schemas import EXAMPLE_TIME, PROVIDER, TO_KEY, Count, Instant, says

_STATUS = validate.OneOf([status.value for status in Reception])
_MEANINGS = "; ".join(f"`{status}`: {text}" for status, text in RECEPTION_MEANING.items())


class InboundQuery(ma.Schema):
    """Which received faxes a list shows."""

    limit = Count(
        load_default=50, validate=validate.Range(1, 100), metadata=says("faxes per page, 1 to 100")
    )
    cursor = fields.String(
        validate=validate.Length(max=64), metadata=says("`next` of the page before")
    )
    status = fields.String(validate=_STATUS, metadata=says("only faxes in this status", "received"))
    unread = fields.Boolean(metadata=says("true: only those that nobody has read"))
    provider_id = fields.String(validate=PROVIDER, metadata=says("only faxes of this provider"))
    from_key = fields.String(
        validate=TO_KEY, metadata=says("only faxes of the sender with this `from_key`")
    )
    to_key = fields.String(
        validate=TO_KEY, metadata=says("only faxes to our number with this `to_key`")
    )
    since = Instant(metadata=says("only faxes noted at or after this time", EXAMPLE_TIME))
    until = Instant(metadata=says("only faxes noted before this time", EXAMPLE_TIME))


class InboundLinkQuery(ma.Schema):
    """What makes an address a link to a document."""

    token = fields.String(
        validate=validate.Length(max=255),
        metadata=says("what faxbot put into a link", "65f0c0de.0123"),
    )


class InboundError(ma.Schema):
    """What is wrong with a received fax."""

    code = fields.String(required=True, metadata=says("a cause", "unreachable"))
    message = fields.String(
        required=True, metadata=says("one sentence", "Its document cannot be had now.")
    )
    retryable = fields.Boolean(required=True, metadata=says("whether it is tried again by itself"))


class InboundFax(ma.Schema):
    """A fax that somebody sent to us."""

    id = fields.String(required=True)
    number_from = fields.String(
        data_key="from",
        required=True,
        allow_none=True,
        metadata=says("who sent it, as the carrier says; null where it does not", "+15550100001"),
    )
    to = fields.String(
        required=True,
        allow_none=True,
        metadata=says("our number that was called, as the carrier says", "+15550100002"),
    )
    from_key = fields.String(
        required=True, allow_none=True, metadata=says("a keyed hash of `from`, to filter by")
    )
    to_key = fields.String(
        required=True, allow_none=True, metadata=says("a keyed hash of `to`, to filter by")
    )
    status = fields.String(required=True, validate=_STATUS, metadata=says(_MEANINGS, "received"))
    error = fields.Nested(InboundError, required=True, allow_none=True)
    provider_id = fields.String(required=True, metadata=says("whose carrier brought it", "phaxio"))
    external_id = fields.String(required=True, metadata=says("the carrier's name for it"))
    pages = fields.Integer(required=True, allow_none=True)
    size_bytes = fields.Integer(
        required=True, allow_none=True, metadata=says("of the document as it came")
    )
    sha256 = fields.String(
        required=True, allow_none=True, metadata=says("of the document as it came")
    )
    received_at = fields.AwareDateTime(
        required=True, metadata=says("by the carrier's clock, where it says", EXAMPLE_TIME)
    )
    read_at = fields.AwareDateTime(
        required=True, allow_none=True, metadata=says("when it was marked as read")
    )
    read_by = fields.String(
        required=True, allow_none=True, metadata=says("the id of the key or user who did")
    )
    unread_seconds = fields.Integer(
        required=True, allow_none=True, metadata=says("its age while nobody has read it", 90)
    )
    next_at = fields.AwareDateTime(
        required=True, allow_none=True, metadata=says("when its document is tried to be had next")
    )
    created_at = fields.AwareDateTime(required=True, metadata=says("when we learnt of it"))
    updated_at = fields.AwareDateTime(required=True)
    purged_at = fields.AwareDateTime(
        required=True, allow_none=True, metadata=says("when retention removed its numbers")
    )
    legal_hold_at = fields.AwareDateTime(
        required=True, allow_none=True, metadata=says("since when nothing of it may be removed")
    )
    fr = fields.String(
        required=True, allow_none=True, metadata=says("the same as `from`, for earlier clients")
    )
    backend = fields.String(
        required=True, metadata=says("the same as `provider_id`, for earlier clients")
    )
    mailbox = fields.String(
        required=True, allow_none=True, metadata=says("always null, for earlier clients")
    )


class InboundPage(ma.Schema):
    """A page of received faxes, newest first."""

    items = fields.List(fields.Nested(InboundFax), required=True)
    next = fields.String(
        required=True, allow_none=True, metadata=says("`cursor` of the next page; null at the end")
    )


class InboundUnread(ma.Schema):
    """Received faxes that nobody has read."""

    count = fields.Integer(required=True, metadata=says("how many, 1,000 at most", 3))
    more = fields.Boolean(required=True, metadata=says("whether there are more than that"))
    oldest = fields.AwareDateTime(
        required=True, allow_none=True, metadata=says("when the oldest of them came", EXAMPLE_TIME)
    )
    oldest_seconds = fields.Integer(
        required=True, allow_none=True, metadata=says("its age in seconds", 90)
    )


class InboundLink(ma.Schema):
    """A link to a document."""

    url = fields.String(
        required=True,
        metadata=says("whoever has it has the document", "https://fax.example.org/inbound/..."),
    )
    expires_at = fields.AwareDateTime(required=True, metadata=says("when it ends", EXAMPLE_TIME))
