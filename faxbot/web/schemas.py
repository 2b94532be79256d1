"""The shapes that go in and out, as marshmallow schemas: they check what comes in and document both.

Answers are plain JSON values made by the domain and are not dumped through a schema (a page of 50 faxes would cost more
than its query); a test holds real answers against the schemas instead. No message repeats a value that a client sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import marshmallow as ma
from flask_smorest.fields import Upload
from marshmallow import fields, validate

from faxbot.activation import SLOTS
from faxbot.decisions import OUTCOMES, REASON_LENGTH
from faxbot.errors import InvalidFields
from faxbot.events import Event, Notable, ProviderEvent, Status
from faxbot.notices import STATUSES as NOTICE_STATUSES
from faxbot.oversight import NOTE_LENGTH

REACH = timedelta(days=366)
"""How far ahead a fax may be planned."""
# Far enough from the ends of the calendar that no zone can push a time out of it.
_EARLIEST, _LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(3000, 1, 1, tzinfo=UTC)
_STATUS = validate.OneOf([str(status) for status in Status])
MAX_TAGS = 10
EXAMPLE_ID = "0193f2c4a1b27c3d8e4f5a6b7c8d9e0f"
EXAMPLE_TIME = "2026-11-20T12:00:00Z"


class Whole(validate.Validator):
    """The whole text must match. Written ^...$ as JSON Schema has it; Python's $ alone would let a line end pass."""

    def __init__(self, pattern: str, error: str) -> None:
        self.regex = re.compile(
            pattern
        )  # under this name apispec finds it for the OpenAPI document
        self.sentence = error

    def __call__(self, value: str) -> str:
        if not self.regex.fullmatch(value):
            raise ma.ValidationError(self.sentence)
        return value


_ASCII = Whole(r"^[\x20-\x7e]*$", error="Only printable ASCII characters.")
PROVIDER = Whole(r"^[a-z0-9][a-z0-9._-]{0,63}$", error="Not a provider's id.")
TO_KEY = Whole(r"^[0-9a-f]{64}$", error="Not a `to_key` of a fax.")
TAG_NAME = "A name is 1 to 64 letters, digits, dots, dashes or underscores."
_TAG_NAME = Whole(r"^[A-Za-z0-9._-]{1,64}$", error=TAG_NAME)


def load(schema: ma.Schema, data: Mapping[str, Any]) -> dict[str, Any]:
    """The checked values of `data`; raises InvalidFields."""
    try:
        return dict(schema.load(data))
    except ma.ValidationError as error:
        raise InvalidFields(errors=field_errors(schema, error.messages_dict)) from None


def within_reach(wish: Mapping[str, Any], now: datetime) -> None:
    """Raise InvalidFields where a fax is planned for later than a year from `now`."""
    far = [name for name in ("send_at", "expires_at") if name in wish and wish[name] > now + REACH]
    if far:
        raise InvalidFields(errors={name: ["This is more than a year from now."] for name in far})


def field_errors(schema: ma.Schema, messages: Mapping[str, Any]) -> dict[str, list[str]]:
    """Sentences by field. A name that the schema does not know is the client's own and is not repeated."""
    known = {field.data_key or name: field for name, field in schema.load_fields.items()}
    found: dict[str, list[str]] = {}
    for name, message in messages.items():
        if name in known:
            found[name] = _sentences(message)
        elif name == "_schema":
            found["body"] = _sentences(message)
        else:
            found["unknown"] = [f"There is an unknown parameter; known are {', '.join(known)}."]
    return found


def _sentences(message: Any) -> list[str]:
    """All sentences in marshmallow's nested messages, each once; inner keys may be the client's and are dropped."""
    if isinstance(message, Mapping):
        return list(dict.fromkeys(text for inner in message.values() for text in _sentences(inner)))
    return (
        [message]
        if isinstance(message, str)
        else [text for inner in message for text in _sentences(inner)]
    )


class Instant(fields.AwareDateTime):
    """A time with its zone, given back in UTC; one without a zone is refused: nobody knows when it is."""

    default_error_messages = {  # noqa: RUF012 - marshmallow's way to name messages
        "invalid": "Not a time like 2026-11-20T12:00:00Z (ISO 8601, with its zone).",
        "invalid_awareness": "The time needs its zone: add Z or an offset like +02:00.",
        "range": "Not between the years 2000 and 3000.",
    }

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> datetime:
        at = super()._deserialize(value, attr, data, **kwargs)
        if not _EARLIEST <= at < _LATEST:
            raise self.make_error("range")
        return at.astimezone(UTC)


class Count(fields.Integer):
    """A whole number in ASCII digits; int() would take 1_0, 1.9 and digits of other scripts."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        written = isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,9}", value)
        if not written and type(value) is not int:
            raise self.make_error("invalid")
        return super()._deserialize(value, attr, data, **kwargs)


class Tags(fields.Dict):
    """Names and values that a client hangs on a fax, to find it by."""

    def __init__(self, description: str) -> None:
        super().__init__(
            keys=fields.String(validate=_TAG_NAME),
            values=fields.String(validate=[validate.Length(max=255), printable]),
            validate=_few,
            metadata={"description": description, "maxProperties": MAX_TAGS},
        )


def _few(tags: Mapping[str, str]) -> None:
    if len(tags) > MAX_TAGS:
        raise ma.ValidationError(f"At most {MAX_TAGS} tags.")


def printable(text: str) -> None:
    """Raise ValidationError for a text that would steer a terminal."""
    if not text.isprintable():
        raise ma.ValidationError("Only printable characters.")


def says(text: str, example: Any = None) -> dict[str, Any]:
    """The metadata of a field that the documentation describes so."""
    return {"description": text} if example is None else {"description": text, "example": example}


class FaxRequest(ma.Schema):
    """A fax to send, as multipart/form-data."""

    to = fields.String(
        required=True,
        validate=validate.Length(max=64),
        metadata=says("the fax number, with + and country code", "+15550100000"),
    )
    file = fields.List(
        Upload(),
        required=True,
        metadata=says(
            "the document: PDF, TIFF, PNG, JPEG or UTF-8 text; repeat it for several, sent in this order as one fax"
        ),
    )
    send_at = Instant(metadata=says("not before this time; at most a year ahead", EXAMPLE_TIME))
    expires_at = Instant(
        metadata=says("not after this time: then the fax ends as `expired`", EXAMPLE_TIME)
    )
    priority = Count(
        validate=validate.Range(0, 255),
        metadata=says("0 to 255, higher goes first; 128 when not given", 128),
    )
    resolution = fields.String(
        validate=validate.OneOf(["standard", "fine"]),
        metadata=says("`fine` (204x196 dpi, the default) or `standard` (204x98)", "fine"),
    )
    header = fields.String(
        validate=[validate.Length(max=50), _ASCII],
        metadata=says(
            "a line that the carrier or the fax machine prints at the top of each page; printable ASCII; "
            "FAX_HEADER when not given"
        ),
    )
    tags = Tags("`tags[name]`=value, at most 10, to find the fax by")
    provider_id = fields.String(
        validate=PROVIDER, metadata=says("send with this provider", "simulator")
    )

    @ma.validates_schema
    def _in_order(self, data: dict[str, Any], **_: Any) -> None:
        if "send_at" in data and "expires_at" in data and data["expires_at"] <= data["send_at"]:
            raise ma.ValidationError("Must be later than send_at.", "expires_at")


class ResendRequest(ma.Schema):
    """What is to be otherwise when a fax is sent once more; the body may be left out."""

    may_be_left_out = True

    to = fields.String(
        validate=validate.Length(max=64),
        metadata=says("another fax number, with + and country code", "+15550100000"),
    )
    send_at = Instant(metadata=says("not before this time; at most a year ahead", EXAMPLE_TIME))
    provider_id = fields.String(
        validate=PROVIDER, metadata=says("send with this provider", "simulator")
    )


class _Page(ma.Schema):
    limit = Count(
        load_default=50, validate=validate.Range(1, 100), metadata=says("faxes per page, 1 to 100")
    )
    cursor = fields.String(
        validate=validate.Length(max=64), metadata=says("`next` of the page before")
    )
    status = fields.String(validate=_STATUS, metadata=says("only faxes in this status"))
    provider_id = fields.String(validate=PROVIDER, metadata=says("only faxes of this provider"))
    since = Instant(metadata=says("only faxes made at or after this time", EXAMPLE_TIME))
    until = Instant(metadata=says("only faxes made before this time", EXAMPLE_TIME))
    ended_since = Instant(
        metadata=says(
            "only faxes that are over, and ended at or after this time; the last to end comes first",
            EXAMPLE_TIME,
        )
    )


class FaxQuery(_Page):
    """Which faxes a list shows."""

    to_key = fields.String(
        validate=TO_KEY, metadata=says("only faxes to the number with this `to_key`")
    )
    tag = Tags("`tag[name]`=value: only faxes with this tag")


class PageQuery(ma.Schema):
    """How a page is shown."""

    width = Count(
        load_default=850,
        validate=validate.Range(200, 1700),
        metadata=says("pixels across, 200 to 1700; the height follows from the page", 850),
    )


class LinkQuery(ma.Schema):
    """What makes an address a link to a document."""

    token = fields.String(
        required=True,
        validate=validate.Length(max=255),
        metadata=says("what faxbot put into the link", "fb0123.65f0c0de.0123"),
    )


class FaxSearch(_Page):
    """Faxes to one number; a number does not belong in an address, so it stands in the body."""

    to = fields.String(
        required=True,
        validate=validate.Length(max=64),
        metadata=says("the fax number", "+15550100000"),
    )
    tags = Tags("only faxes with these tags")


class FaxError(ma.Schema):
    """Why the last attempt failed."""

    code = fields.String(required=True, metadata=says("a canonical cause", "busy"))
    message = fields.String(required=True, metadata=says("one sentence", "The line was busy."))
    retryable = fields.Boolean(
        required=True,
        metadata=says(
            "whether such a fax may go through another time; `status` says whether it is tried again"
        ),
    )


class Fax(ma.Schema):
    """One fax."""

    id = fields.String(required=True, metadata=says("its id", EXAMPLE_ID))
    to = fields.String(
        required=True,
        allow_none=True,
        metadata=says("the number; masked in lists; null where it does not open", "+15550100000"),
    )
    to_key = fields.String(
        required=True,
        allow_none=True,
        metadata=says("a keyed hash of the number, to list faxes by; null where it was removed"),
    )
    status = fields.String(
        required=True, validate=_STATUS, metadata=says("where it stands", "queued")
    )
    status_reason = fields.String(
        required=True, allow_none=True, metadata=says("why it is held, or the last cause")
    )
    explanation = fields.String(
        required=True, metadata=says("one sentence: what happens next, when and why")
    )
    provider_id = fields.String(
        required=True, allow_none=True, metadata=says("the provider that has it", "simulator")
    )
    external_id = fields.String(required=True, allow_none=True, metadata=says("the carrier's id"))
    pages = fields.Integer(
        required=True, allow_none=True, metadata=says("pages of all documents", 3)
    )
    pages_sent = fields.Integer(required=True, metadata=says("pages that are confirmed", 0))
    resolution = fields.String(required=True, metadata=says("`fine` or `standard`", "fine"))
    attempts = fields.Integer(required=True, metadata=says("calls to a provider so far", 0))
    attempts_at_most = fields.Integer(
        required=True,
        allow_none=True,
        metadata=says(
            "how many there are at most, if all that follow end like the last one; null before "
            "the second one, where there is no limit, and once it has ended",
            None,
        ),
    )
    next_at = fields.AwareDateTime(
        required=True, allow_none=True, metadata=says("when something happens next", EXAMPLE_TIME)
    )
    send_at = fields.AwareDateTime(required=True, allow_none=True, metadata=says("as asked for"))
    expires_at = fields.AwareDateTime(required=True, allow_none=True, metadata=says("as asked for"))
    priority = fields.Integer(required=True, metadata=says("0 to 255", 128))
    error = fields.Nested(
        FaxError, required=True, allow_none=True, metadata=says("why the last attempt failed")
    )
    tags = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        required=True,
        metadata=says("as given", {"case": "4711"}),
    )
    resend_of = fields.String(
        required=True, allow_none=True, metadata=says("the fax that this one repeats")
    )
    cancel_requested_at = fields.AwareDateTime(
        required=True, allow_none=True, metadata=says("when cancelling was asked for")
    )
    created_at = fields.AwareDateTime(required=True, metadata=says("in UTC", EXAMPLE_TIME))
    updated_at = fields.AwareDateTime(required=True, metadata=says("in UTC", EXAMPLE_TIME))
    purged_at = fields.AwareDateTime(
        required=True, allow_none=True, metadata=says("when retention removed its numbers")
    )
    legal_hold_at = fields.AwareDateTime(
        required=True, allow_none=True, metadata=says("since when nothing of it may be removed")
    )
    backend = fields.String(
        required=True,
        allow_none=True,
        metadata=says("the same as provider_id, for earlier clients"),
    )
    provider_sid = fields.String(
        required=True,
        allow_none=True,
        metadata=says("the same as external_id, for earlier clients"),
    )


class FaxPage(ma.Schema):
    """A page of faxes, newest first."""

    items = fields.List(fields.Nested(Fax), required=True)
    next = fields.String(
        required=True, allow_none=True, metadata=says("`cursor` of the next page; null at the end")
    )


class FaxEvent(ma.Schema):
    """Something that happened to a fax."""

    sequence = fields.Integer(required=True, metadata=says("counts from 1 without gaps", 1))
    type = fields.String(
        required=True,
        validate=validate.OneOf([str(event) for event in Event]),
        metadata=says("what happened", "FAX_QUEUED"),
    )
    status = fields.String(
        required=True, validate=_STATUS, metadata=says("the status after it", "queued")
    )
    attempt = fields.Integer(
        required=True, allow_none=True, metadata=says("which attempt it is about")
    )
    provider_id = fields.String(required=True, allow_none=True)
    cause = fields.String(
        required=True, allow_none=True, metadata=says("canonical cause of a failure")
    )
    reason = fields.String(required=True, allow_none=True, metadata=says("why it is held"))
    pages = fields.Integer(required=True, allow_none=True)
    pages_sent = fields.Integer(required=True, allow_none=True)
    source = fields.String(required=True, metadata=says("who said so", "api"))
    occurred_at = fields.AwareDateTime(
        required=True, metadata=says("when it happened", EXAMPLE_TIME)
    )
    recorded_at = fields.AwareDateTime(
        required=True, metadata=says("when we learnt of it", EXAMPLE_TIME)
    )


class FaxAttempt(ma.Schema):
    """One call to one provider."""

    number = fields.Integer(required=True, metadata=says("counts from 1", 1))
    provider_id = fields.String(required=True, metadata=says("whom we called", "simulator"))
    tag = fields.String(required=True, metadata=says("this attempt's own name at the carrier"))
    external_id = fields.String(required=True, allow_none=True, metadata=says("the carrier's id"))
    outcome = fields.String(required=True, metadata=says("what came of it", "accepted"))
    cause = fields.String(
        required=True, allow_none=True, metadata=says("canonical cause of a failure")
    )
    counted = fields.Boolean(required=True, metadata=says("whether it uses up one of the tries"))
    pages_sent = fields.Integer(required=True)
    planned_at = fields.AwareDateTime(
        required=True,
        allow_none=True,
        metadata=says("when it was to be made; null: by a version that did not note it", None),
    )
    intended_at = fields.AwareDateTime(
        required=True, metadata=says("when the intent was recorded", EXAMPLE_TIME)
    )
    accepted_at = fields.AwareDateTime(required=True, allow_none=True)
    ended_at = fields.AwareDateTime(required=True, allow_none=True)


class FaxDecision(ma.Schema):
    """What a person decided about an uncertain fax."""

    attempt = fields.Integer(required=True, metadata=says("which attempt it is about", 1))
    outcome = fields.String(required=True, metadata=says("what was found out", "delivered"))
    actor = fields.String(required=True, metadata=says("the id of the person, or of an API key"))
    reason = fields.String(
        required=True,
        allow_none=True,
        metadata=says(
            "in the person's words; empty for the role `viewer`; null where it does not open"
        ),
    )
    decided_at = fields.AwareDateTime(required=True, metadata=says("in UTC", EXAMPLE_TIME))


class FaxEvidence(ma.Schema):
    """One message of a carrier about a fax, as it came."""

    id = fields.String(required=True, metadata=says("its id", EXAMPLE_ID))
    provider_id = fields.String(required=True, metadata=says("whose carrier sent it", "simulator"))
    outcome = fields.String(
        required=True,
        allow_none=True,
        metadata=says(
            "`applied`; `nothing`: no news in it; `unreadable`: the plugin could not understand it, "
            "tried again while `applied_at` is null; `unmatched`: of no attempt that we know; null while it waits",
            "applied",
        ),
    )
    received_at = fields.AwareDateTime(required=True, metadata=says("in UTC", EXAMPLE_TIME))
    applied_at = fields.AwareDateTime(required=True, allow_none=True, metadata=says("in UTC"))
    method = fields.String(required=True, allow_none=True, metadata=says("of HTTP", "POST"))
    path = fields.String(
        required=True,
        allow_none=True,
        metadata=says("where to, without the query, which holds a token", "/callbacks/simulator"),
    )
    headers = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        required=True,
        metadata=says(
            "content-type, content-length, date and user-agent; none that proves or admits"
        ),
    )
    content_type = fields.String(
        required=True, allow_none=True, metadata=says("as it says", "application/json")
    )
    size_bytes = fields.Integer(required=True, allow_none=True, metadata=says("of the body", 512))
    body = fields.String(
        required=True,
        allow_none=True,
        metadata=says("as text; what is no printable character stands there as its code"),
    )
    cut = fields.Boolean(required=True, metadata=says("whether the body goes on"))
    not_shown = fields.String(
        required=True,
        allow_none=True,
        metadata=says(
            "why there is no body: `binary`; `large`: it lies in storage; `gone`; `sealed`: it does not open"
        ),
    )


class FaxEvidencePage(ma.Schema):
    """What carriers said of a fax, newest first."""

    items = fields.List(fields.Nested(FaxEvidence), required=True)
    more = fields.Boolean(required=True, metadata=says("whether there was more than is shown"))


class DecisionRequest(ma.Schema):
    """What you found out about an uncertain fax."""

    outcome = fields.String(
        required=True,
        validate=validate.OneOf(list(OUTCOMES)),
        metadata=says(
            "it was `delivered`; it has `failed`; it never went out and is to be sent anew: `retry`",
            "delivered",
        ),
    )
    reason = fields.String(
        required=True,
        validate=[validate.Length(1, REASON_LENGTH), printable],
        metadata=says("how you know; it is kept", "the receiver called: all pages are there"),
    )
    attempt = Count(
        validate=validate.Range(1),
        metadata=says(
            "the attempt that you found out about (`attempts` of the fax then): where another has "
            "begun since, the answer is 409. Without it the request must not be repeated blindly",
            1,
        ),
    )


class Timeline(ma.Schema):
    """What happened to a fax, in order."""

    events = fields.List(fields.Nested(FaxEvent), required=True)
    attempts = fields.List(fields.Nested(FaxAttempt), required=True)
    decisions = fields.List(fields.Nested(FaxDecision), required=True)


class Problem(ma.Schema):
    """What went wrong (RFC 9457)."""

    type = fields.String(
        required=True, metadata=says("an address that explains it", "/docs#invalid-fields")
    )
    title = fields.String(
        required=True, metadata=says("the kind of failure", "Some fields are not valid.")
    )
    status = fields.Integer(required=True, metadata=says("the HTTP status", 422))
    detail = fields.String(required=True, metadata=says("this failure", "Not valid: priority."))
    errors = fields.Dict(
        keys=fields.String(),
        values=fields.List(fields.String()),
        required=True,
        metadata=says("sentences about each field", {"priority": ["Not a valid integer."]}),
    )
    request_id = fields.String(
        required=True, metadata=says("the X-Request-Id of this answer; it stands in the log")
    )


class Alive(ma.Schema):
    """The process answers."""

    status = fields.String(required=True, metadata=says("always `ok`", "ok"))


class Part(ma.Schema):
    """One part of the service."""

    ok = fields.Boolean(required=True)
    detail = fields.String(required=True, metadata=says("one sentence", "reachable"))


class Alarm(ma.Schema):
    """Something that people must look at."""

    code = fields.String(required=True, metadata=says("what kind", "uncertain"))
    count = fields.Integer(required=True, metadata=says("how many faxes", 1))
    detail = fields.String(required=True, metadata=says("one sentence, with what to do"))


class Readiness(ma.Schema):
    """Whether faxes can be taken and sent."""

    ready = fields.Boolean(required=True)
    parts = fields.Dict(keys=fields.String(), values=fields.Nested(Part), required=True)
    alarms = fields.List(
        fields.Nested(Alarm),
        required=True,
        metadata=says("what people must look at; it makes the server no less ready"),
    )
    listen = fields.Boolean(
        required=True,
        metadata=says("a provider speaks by itself, and `faxbot listen` must run"),
    )


class ProviderChange(ma.Schema):
    """Why an operator does something to a provider."""

    note = fields.String(
        required=True,
        validate=[validate.Length(1, NOTE_LENGTH), printable],
        metadata=says("why; it goes into the provider's history", "as agreed with the carrier"),
    )


class ProviderPause(ProviderChange):
    """A pause, and how long it is to last."""

    until = Instant(metadata=says("when it ends by itself", EXAMPLE_TIME))


class ProviderCalls(ma.Schema):
    """What the calls of the last five minutes came to."""

    ok = fields.Integer(required=True)
    fault = fields.Integer(required=True)
    slow = fields.Integer(required=True)


class Provider(ma.Schema):
    """How a provider stands."""

    id = fields.String(required=True, metadata=says("its id", "simulator"))
    name = fields.String(required=True, metadata=says("its name", "Simulator"))
    version = fields.String(required=True)
    traits = fields.List(fields.String(), required=True)
    active = fields.Boolean(required=True, metadata=says("whether faxes are sent through it"))
    slots = fields.List(
        fields.String(), required=True, metadata=says("what it is active for", ["outbound"])
    )
    requires_baa = fields.Boolean(
        required=True, metadata=says("whether it takes an agreement (BAA) with its carrier")
    )
    covered = fields.Boolean(
        required=True,
        metadata=says("whether an administrator said that there is an agreement (BAA)"),
    )
    state = fields.String(
        required=True,
        validate=validate.OneOf(
            ["closed", "open", "half_open", "throttled", "paused", "plugin_disabled"]
        ),
        metadata=says("of its circuit breaker; `closed` is well", "closed"),
    )
    reason = fields.String(
        required=True, allow_none=True, metadata=says("why it is not called now")
    )
    rests_until = fields.AwareDateTime(required=True, allow_none=True)
    degraded_at = fields.AwareDateTime(
        required=True, allow_none=True, metadata=says("since when calls fail")
    )
    calls = fields.Nested(ProviderCalls, required=True)
    newest = fields.List(
        fields.String(validate=validate.OneOf(["ok", "fault", "slow"])),
        required=True,
        metadata=says("how up to 20 calls of the last day went, the newest last", ["ok", "fault"]),
    )
    not_understood = fields.Integer(
        required=True,
        metadata=says("attempts of the last day with a cause that no list has; 1000 at most", 0),
    )


class Providers(ma.Schema):
    """Every provider that is installed."""

    items = fields.List(fields.Nested(Provider), required=True)


class ProviderEntry(ma.Schema):
    """Something that happened to a provider."""

    type = fields.String(
        required=True,
        validate=validate.OneOf([str(event) for event in ProviderEvent]),
        metadata=says("what happened", "PROVIDER_PAUSED"),
    )
    reason = fields.String(required=True, allow_none=True)
    note = fields.String(required=True, allow_none=True, metadata=says("what the operator said"))
    actor = fields.String(
        required=True, metadata=says("an API key's id, `cli`, `worker` or `clock`", "worker")
    )
    expires_at = fields.AwareDateTime(required=True, allow_none=True)
    recorded_at = fields.AwareDateTime(required=True, metadata=says("in UTC", EXAMPLE_TIME))


class ProviderDetail(Provider):
    """A provider with its history."""

    history = fields.List(
        fields.Nested(ProviderEntry), required=True, metadata=says("the newest first")
    )


class Received(ma.Schema):
    """The callback is kept."""

    status = fields.String(required=True, metadata=says("always `ok`", "ok"))


# Callbacks and plugins, as administrators see them


class CallbackRefusal(ma.Schema):
    """Requests to a provider's door that were refused, for one reason."""

    reason = fields.String(required=True, metadata=says("a word", "not_proven"))
    detail = fields.String(required=True, metadata=says("a sentence, with what to compare"))
    count = fields.Integer(
        required=True,
        metadata=says(
            "written once a second at most: what another process counted within a second of its last write it adds "
            "with its next one, or when it ends; what it counted when it is killed is lost"
        ),
    )
    first_at = fields.AwareDateTime(required=True)
    last_at = fields.AwareDateTime(required=True)


class KeptCallback(ma.Schema):
    """A callback without its content."""

    id = fields.String(required=True)
    received_at = fields.AwareDateTime(required=True)
    applied_at = fields.AwareDateTime(required=True, allow_none=True)
    outcome = fields.String(
        required=True,
        allow_none=True,
        metadata=says("applied, nothing, unmatched or unreadable; null while it waits", "applied"),
    )


class CallbackDoor(ma.Schema):
    """How the callbacks of one provider arrive."""

    provider_id = fields.String(required=True, metadata=says("its id", "phaxio"))
    name = fields.String(required=True)
    addresses = fields.List(
        fields.String(),
        required=True,
        metadata=says("what to enter at the carrier, for news that belongs to no fax of ours"),
    )
    receives = fields.Boolean(
        required=True,
        metadata=says("whether its received faxes are wanted (FAX_INBOUND_BACKENDS)"),
    )
    proof = fields.String(required=True, metadata=says("how the carrier proves that it calls"))
    lately = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        required=True,
        metadata=says("how many came within a day, by what became of them; 1000 at most"),
    )
    refused = fields.List(fields.Nested(CallbackRefusal), required=True)
    latest = fields.List(
        fields.Nested(KeptCallback), required=True, metadata=says("the newest 100")
    )


class CallbackDoors(ma.Schema):
    """Every provider whose carrier calls back."""

    items = fields.List(fields.Nested(CallbackDoor), required=True)


class Notifier(ma.Schema):
    """A plugin by which people are told of faxes, or could be."""

    id = fields.String(required=True, metadata=says("its id", "email"))
    active = fields.Boolean(required=True)
    events = fields.List(
        fields.String(validate=validate.OneOf([str(each) for each in Notable])),
        required=True,
        metadata=says("of what", ["failed", "held"]),
    )
    waiting = fields.Integer(
        required=True,
        metadata=says(
            "notices that are not sent yet; of those that no message holds yet 1000 at most"
        ),
    )
    fault = fields.String(required=True, allow_none=True, metadata=says("what is wrong, if it is"))


class SentNotification(ma.Schema):
    """A message with one notice or many; with none it is a test."""

    id = fields.String(required=True)
    plugin_id = fields.String(required=True)
    notices = fields.Integer(required=True, metadata=says("how many it tells"))
    status = fields.String(required=True, validate=validate.OneOf(NOTICE_STATUSES))
    cause = fields.String(
        required=True, allow_none=True, metadata=says("why the last try failed", "unreachable")
    )
    tries = fields.Integer(required=True)
    next_at = fields.AwareDateTime(required=True, allow_none=True)
    created_at = fields.AwareDateTime(required=True)
    ended_at = fields.AwareDateTime(required=True, allow_none=True)


class Notifications(ma.Schema):
    """How people are told of faxes."""

    items = fields.List(fields.Nested(Notifier), required=True)
    messages = fields.List(
        fields.Nested(SentNotification), required=True, metadata=says("the newest 100")
    )


class PluginSlots(ma.Schema):
    """What a plugin is active for."""

    id = fields.String(required=True, metadata=says("its id", "phaxio"))
    slots = fields.List(
        fields.String(validate=validate.OneOf(SLOTS)),
        required=True,
        metadata=says("what it is active for", ["outbound"]),
    )
    active = fields.Boolean(required=True, metadata=says("whether it has a slot"))


class Plugin(PluginSlots):
    """What a plugin says of itself, and how it stands here."""

    name = fields.String(required=True)
    version = fields.String(required=True)
    type = fields.String(required=True, metadata=says("what kind it is", "transport"))
    api = fields.String(required=True, metadata=says("the plugin contract it needs", ">=1,<2"))
    package = fields.String(required=True, metadata=says("the package it comes from", "faxbot"))
    sha256 = fields.String(
        required=True, allow_none=True, metadata=says("of its own files, for a registry")
    )
    traits = fields.List(fields.String(), required=True)
    required_scope = fields.String(required=True)
    allowed_hosts = fields.List(fields.String(), required=True)
    categories = fields.List(fields.String(), required=True)
    hipaa = fields.Dict(keys=fields.String(), values=fields.Boolean(), required=True)
    learn_more = fields.String(required=True, allow_none=True)
    disabled = fields.Boolean(
        required=True, metadata=says("whether it failed too often and waits for a person")
    )


class BrokenPlugin(ma.Schema):
    """A plugin that cannot be used."""

    id = fields.String(required=True)
    package = fields.String(required=True)
    reason = fields.String(required=True, metadata=says("one sentence"))


class Plugins(ma.Schema):
    """Every plugin that is installed."""

    items = fields.List(fields.Nested(Plugin), required=True)
    broken = fields.List(fields.Nested(BrokenPlugin), required=True)


class PluginSetting(ma.Schema):
    """One setting of a plugin."""

    key = fields.String(required=True, metadata=says("its name in the manifest", "apiKey"))
    title = fields.String(required=True)
    description = fields.String(required=True)
    type = fields.String(required=True)
    secret = fields.Boolean(required=True)
    required = fields.Boolean(required=True)
    variables = fields.List(
        fields.String(),
        required=True,
        metadata=says("where it is read from, the first that is set"),
    )
    choices = fields.List(
        fields.Raw(), required=True, metadata=says("the only values that it takes; empty: any")
    )
    default = fields.Raw(required=True, allow_none=True)
    minimum = fields.Float(required=True, allow_none=True)
    maximum = fields.Float(required=True, allow_none=True)
    option = fields.String(
        required=True,
        allow_none=True,
        metadata=says("the option of faxbot that it is taken from: it is not set here"),
    )
    value = fields.Raw(
        required=True, allow_none=True, metadata=says("as it is; a secret that is set is masked")
    )
    source = fields.String(
        required=True,
        validate=validate.OneOf(["db", "env", "default", "unset"]),
        metadata=says("where the value comes from; `db`: it was saved here", "env"),
    )


class PluginConfig(ma.Schema):
    """How the settings of a plugin stand."""

    id = fields.String(required=True)
    fault = fields.String(
        required=True, allow_none=True, metadata=says("what is wrong with them, by variable")
    )
    settings = fields.List(fields.Nested(PluginSetting), required=True)


_UNTESTED = fields.Boolean(
    load_default=False,
    metadata=says("save it although the plugin does not work so, or was not asked", False),
)


class PluginWish(ProviderChange):
    """Settings of a plugin that are to be saved."""

    settings = fields.Dict(
        keys=fields.String(validate=validate.Length(1, 64)),
        values=fields.Raw(allow_none=True),
        required=True,
        validate=validate.Length(1, 100),
        metadata=says(
            "values by key; one that is not named stays, null takes back what was saved, and ******** leaves a "
            "secret as it is",
            {"secret": "********"},
        ),
    )
    untested = _UNTESTED


class Deactivation(ProviderChange):
    """Which slot a plugin is to lose."""

    slot = fields.String(
        required=True,
        validate=validate.OneOf(SLOTS),
        metadata=says(
            "`outbound` sends, `inbound` receives, `storage` keeps documents", "outbound"
        ),
    )


class Activation(Deactivation):
    """Which slot a plugin is to have."""

    first = fields.Boolean(
        load_default=True,
        metadata=says("of `outbound`: whether it takes faxes before those that are active", True),
    )
    covered = fields.Boolean(
        load_default=None,
        allow_none=True,
        metadata=says(
            "of `outbound`: whether there is an agreement (BAA) with this carrier, so that it may see a fax when the "
            "first cannot take it; unset: as it was",
            True,
        ),
    )
    untested = _UNTESTED


class PluginHealth(Part):
    """Whether a plugin works now."""

    id = fields.String(required=True)


class PluginsHealth(ma.Schema):
    """Whether the active plugins work now."""

    items = fields.List(fields.Nested(PluginHealth), required=True)


class RegistryQuery(ma.Schema):
    """Which plugins of the registry are shown."""

    category = fields.String(
        validate=validate.Length(max=64), metadata=says("only of this category", "outbound")
    )
    hipaa_only = fields.Boolean(
        load_default=False, metadata=says("only those that say they fit HIPAA", False)
    )


class RegistryEntry(ma.Schema):
    """A plugin that somebody has looked at."""

    id = fields.String(required=True)
    name = fields.String(required=True)
    package = fields.String(required=True)
    version = fields.String(required=True, allow_none=True)
    sha256 = fields.String(
        required=True, allow_none=True, metadata=says("of the only files that are admitted")
    )
    categories = fields.List(fields.String(), required=True)
    hipaa = fields.Dict(keys=fields.String(), values=fields.Boolean(), required=True)
    learn_more = fields.String(required=True, allow_none=True)
    installed = fields.String(
        required=True, allow_none=True, metadata=says("the version that is installed here")
    )


class PluginRegistry(ma.Schema):
    """The registry."""

    closed = fields.Boolean(
        required=True, metadata=says("whether this installation admits nothing else")
    )
    items = fields.List(fields.Nested(RegistryEntry), required=True)
