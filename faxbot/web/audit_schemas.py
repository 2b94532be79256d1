"""The shapes of the audit trail, as marshmallow schemas."""

from __future__ import annotations

import marshmallow as ma
from marshmallow import fields, validate

from faxbot.audit import Action
from faxbot.web.schemas import Count, Instant

_EXAMPLE_TIME = "2026-11-20T12:00:00Z"
_WORD = validate.Regexp(r"[ -~]{1,64}\Z", error="Not 1 to 64 printable characters of ASCII.")


class AuditQuery(ma.Schema):
    """Which rows of the audit trail are shown."""

    limit = Count(
        load_default=50,
        validate=validate.Range(1, 100),
        metadata={"description": "rows per page, 1 to 100"},
    )
    cursor = fields.String(
        validate=validate.Length(max=64), metadata={"description": "`next` of the page before"}
    )
    since = Instant(
        metadata={"description": "what happened at this time or later", "example": _EXAMPLE_TIME}
    )
    until = Instant(
        metadata={"description": "what happened before this time", "example": _EXAMPLE_TIME}
    )
    action = fields.String(
        validate=validate.OneOf([str(action) for action in Action]),
        metadata={"description": "only this kind of deed", "example": "key.created"},
    )
    actor = fields.String(
        validate=_WORD,
        metadata={"description": "only deeds of this actor: the id of a key or user, `cli`"},
    )
    object_kind = fields.String(
        validate=_WORD,
        metadata={"description": "only what was done to this kind of thing", "example": "fax"},
    )
    object_id = fields.String(
        validate=_WORD, metadata={"description": "only what was done to the thing of this id"}
    )
    outcome = fields.String(
        validate=validate.OneOf(["done", "refused", "failed"]),
        metadata={"description": "only what ended so", "example": "refused"},
    )


class AuditEntry(ma.Schema):
    """One deed."""

    id = fields.Integer(required=True)
    happened_at = fields.AwareDateTime(
        required=True, metadata={"description": "in UTC", "example": _EXAMPLE_TIME}
    )
    actor_kind = fields.String(
        required=True,
        metadata={
            "description": "`key`, `user`, `command`, `clock`, `link` (given to a carrier) or `stranger`"
        },
    )
    actor = fields.String(required=True, metadata={"description": "the actor's id"})
    action = fields.String(required=True, metadata={"description": "what was done"})
    object_kind = fields.String(required=True, allow_none=True)
    object_id = fields.String(required=True, allow_none=True)
    outcome = fields.String(
        required=True, metadata={"description": "`done`, `refused` or `failed`"}
    )
    request_id = fields.String(required=True, allow_none=True)
    address = fields.String(
        required=True, allow_none=True, metadata={"description": "where the request came from"}
    )
    details = fields.Dict(
        keys=fields.String(),
        required=True,
        metadata={
            "description": "names and counts; `times`: this is a repeat of what the row before it says, so often"
        },
    )
    position = fields.Integer(
        required=True,
        allow_none=True,
        metadata={"description": "of its link in the chain; null for some seconds"},
    )
    mac = fields.String(required=True, allow_none=True)


class AuditPage(ma.Schema):
    """A page of the audit trail."""

    items = fields.List(fields.Nested(AuditEntry), required=True)
    next = fields.String(
        required=True, allow_none=True, metadata={"description": "`cursor` of the next page"}
    )


class AuditVerifyQuery(ma.Schema):
    """How much of the chain is looked at."""

    since = Instant(
        metadata={"description": "only what was linked since this time", "example": _EXAMPLE_TIME}
    )
    after = fields.Integer(
        load_default=0,
        validate=validate.Range(0, 2**62),
        metadata={"description": "`next` of the answer before"},
    )


class AuditVerdict(ma.Schema):
    """Whether the audit trail is as it was written."""

    ok = fields.Boolean(required=True)
    faults = fields.List(
        fields.String(), required=True, metadata={"description": "a sentence each; at most 100"}
    )
    fault_count = fields.Integer(required=True)
    links = fields.Integer(required=True, metadata={"description": "how many were looked at"})
    first = fields.Integer(required=True, allow_none=True)
    head = fields.String(
        required=True,
        allow_none=True,
        metadata={
            "description": "position and MAC of the last link that was looked at: keep it elsewhere"
        },
    )
    waiting = fields.Integer(
        required=True, metadata={"description": "rows that have no link yet, of the last seconds"}
    )
    heads = fields.Integer(
        required=True,
        metadata={"description": "earlier ends of the chain that it was compared with"},
    )
    next = fields.Integer(
        required=True,
        allow_none=True,
        metadata={"description": "there are more links: ask again with this as `after`"},
    )
