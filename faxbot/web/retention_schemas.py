"""The shapes of retention and legal holds, as marshmallow schemas."""

from __future__ import annotations

import marshmallow as ma
from marshmallow import fields, validate

from faxbot.legalholds import REASON_LENGTH
from faxbot.purging import CLASSES
from faxbot.web.schemas import EXAMPLE_TIME, Count, says


class RetentionQuery(ma.Schema):
    """How many runs are shown."""

    limit = Count(load_default=30, validate=validate.Range(1, 100), metadata=says("runs, 1 to 100"))


class RetentionProof(ma.Schema):
    """What a run removed of one class."""

    class_ = fields.String(
        data_key="class", required=True, metadata=says(", ".join(CLASSES), "document")
    )
    cutoff = fields.AwareDateTime(
        required=True, metadata=says("what ended before goes", EXAMPLE_TIME)
    )
    expected = fields.Integer(required=True, metadata=says("rows that were found", 1200))
    deleted = fields.Integer(required=True, metadata=says("of them, those that are gone", 1200))
    outcome = fields.String(
        required=True,
        metadata=says(
            "`open`, `done`, or how it was broken off: `mismatch`, `storage`, `failed`", "done"
        ),
    )
    started_at = fields.AwareDateTime(required=True, metadata=says("in UTC", EXAMPLE_TIME))
    ended_at = fields.AwareDateTime(
        required=True, allow_none=True, metadata=says("in UTC", EXAMPLE_TIME)
    )


class RetentionRun(ma.Schema):
    """One run of retention."""

    id = fields.String(required=True)
    due_at = fields.AwareDateTime(
        required=True, metadata=says("when it was due, in UTC", EXAMPLE_TIME)
    )
    asked_by = fields.String(
        required=True, metadata=says("`clock`, or who wanted it at once", "clock")
    )
    state = fields.String(required=True, metadata=says("`running`, `done` or `failed`", "done"))
    started_at = fields.AwareDateTime(required=True, metadata=says("in UTC", EXAMPLE_TIME))
    ended_at = fields.AwareDateTime(
        required=True, allow_none=True, metadata=says("in UTC", EXAMPLE_TIME)
    )
    classes = fields.List(fields.Nested(RetentionProof), required=True)


class Retention(ma.Schema):
    """What is kept how long, and what was removed."""

    days = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        required=True,
        metadata=says("by class for how many days it is kept; 0: for ever", {"document": 30}),
    )
    next_at = fields.AwareDateTime(
        required=True, metadata=says("when the next run is due, in UTC", EXAMPLE_TIME)
    )
    runs = fields.List(fields.Nested(RetentionRun), required=True)


class RetentionAsked(ma.Schema):
    """A run that somebody wants."""

    id = fields.String(required=True, metadata=says("the run's id"))


class LegalHoldWish(ma.Schema):
    """Why a fax must be kept."""

    reason = fields.String(
        required=True,
        validate=validate.Length(1, REASON_LENGTH),
        metadata=says("kept sealed, and shown to operators", "litigation, case 4711"),
    )


class LegalHoldQuery(ma.Schema):
    """Which hold is lifted."""

    hold = fields.String(
        validate=validate.Length(max=64), metadata=says("its id, where there are several")
    )


class LegalHold(ma.Schema):
    """That somebody said a fax must be kept."""

    id = fields.String(required=True, metadata=says("to lift it by"))
    actor = fields.String(required=True, metadata=says("who said so"))
    reason = fields.String(required=True, allow_none=True, metadata=says("why"))
    placed_at = fields.AwareDateTime(required=True, metadata=says("in UTC", EXAMPLE_TIME))
    lifted_by = fields.String(required=True, allow_none=True, metadata=says("who lifted it"))
    lifted_at = fields.AwareDateTime(
        required=True, allow_none=True, metadata=says("in UTC; null while it holds", EXAMPLE_TIME)
    )


class LegalHolds(ma.Schema):
    """The legal holds of a fax."""

    items = fields.List(fields.Nested(LegalHold), required=True)
