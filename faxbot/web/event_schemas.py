"""The shapes of /events."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
from marshmallow import fields, validate
from webargs.fields import DelimitedList

from faxbot.events import CAUSES, Event, Reception, Status
from faxbot.feed import Filters
from faxbot.web.schemas import EXAMPLE_ID, EXAMPLE_TIME, Count, Instant, Whole, says

EXAMPLE_CURSOR = "1795176000000000-4711"
MOST = 500
_FAX_ID = Whole(r"^[0-9a-f]{32}$", error="Not a fax's id: 32 hex digits.")
_CURSOR = "behind which event to begin: `next` of a page, or `id` of an event"


class StreamQuery(ma.Schema):
    """Which events somebody listens to."""

    cursor = fields.String(metadata=says(_CURSOR, EXAMPLE_CURSOR))
    type = DelimitedList(
        fields.String(validate=validate.OneOf([str(event) for event in Event])),
        validate=validate.Length(1, len(Event)),
        metadata=says("only events of these types, with commas between them", ["FAX_DELIVERED"]),
    )
    fax_id = fields.String(validate=_FAX_ID, metadata=says("only events of this fax", EXAMPLE_ID))


class EventQuery(StreamQuery):
    """Which events a page shows."""

    since = Instant(
        metadata=says(
            "in the place of `cursor`: begin with what was recorded at or after this time",
            EXAMPLE_TIME,
        )
    )
    limit = Count(
        load_default=100,
        validate=validate.Range(1, MOST),
        metadata=says(f"events per page, 1 to {MOST}"),
    )

    @ma.validates_schema
    def one_beginning(self, query: dict[str, Any], **_: Any) -> None:
        """Raise ValidationError for two places to begin at."""
        if "since" in query and "cursor" in query:
            raise ma.ValidationError(
                "Either `cursor` or `since`: both say where to begin.", "since"
            )


def filters(query: dict[str, Any]) -> Filters:
    """What `type` and `fax_id` of a checked query ask for."""
    return Filters(frozenset(query.get("type", ())), query.get("fax_id"))


class EventData(ma.Schema):
    """What an event says; no number, name or text."""

    fax_id = fields.String(required=True, metadata=says("which fax", EXAMPLE_ID))
    sequence = fields.Integer(
        required=True, metadata=says("counts the fax's events from 1 without gaps", 1)
    )
    status = fields.String(
        required=True,
        validate=validate.OneOf(list(dict.fromkeys([*map(str, Status), *map(str, Reception)]))),
        metadata=says("the fax's status after it", "delivered"),
    )
    provider_id = fields.String(required=True, allow_none=True)
    attempt = fields.Integer(
        required=True, allow_none=True, metadata=says("which attempt it is about")
    )
    pages = fields.Integer(required=True, allow_none=True)
    pages_sent = fields.Integer(required=True, allow_none=True)
    cause = fields.String(
        required=True,
        allow_none=True,
        validate=validate.OneOf(list(CAUSES)),
        metadata=says("canonical cause of a failure"),
    )


class FeedEvent(ma.Schema):
    """Something that happened to a fax, as webhooks tell it too."""

    id = fields.String(required=True, metadata=says("a `cursor` behind this event", EXAMPLE_CURSOR))
    type = fields.String(
        required=True,
        validate=validate.OneOf([str(event) for event in Event]),
        metadata=says("what happened", "FAX_DELIVERED"),
    )
    timestamp = fields.AwareDateTime(required=True, metadata=says("when it happened", EXAMPLE_TIME))
    data = fields.Nested(EventData, required=True)


class FeedPage(ma.Schema):
    """A page of events, the newest last."""

    items = fields.List(fields.Nested(FeedEvent), required=True)
    next = fields.String(
        required=True,
        metadata=says("`cursor` to go on with, also where nothing follows yet", EXAMPLE_CURSOR),
    )
    more = fields.Boolean(
        required=True,
        metadata=says(
            "whether more follows already; a page may be short, or empty, although it does"
        ),
    )
