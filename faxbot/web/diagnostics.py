"""/admin/diagnostics, /admin/health-status: what is looked at when something is wrong, and whether anything is."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
from flask import Response
from marshmallow import fields

from faxbot import diagnostics
from faxbot.web import api, events, problems, schemas
from faxbot.web.auth import actor, runtime
from faxbot.web.schemas import EXAMPLE_TIME, says

blueprint = api.Blueprint(
    "diagnostics", __name__, description="What is looked at when something is wrong."
)


class JobCounts(ma.Schema):
    """Faxes by state, 100 of each at most."""

    queued = fields.Integer(required=True, metadata=says("that wait, also for a person"))
    in_progress = fields.Integer(required=True, metadata=says("that a carrier has"))
    needs_you = fields.Integer(required=True, metadata=says("held or uncertain"))
    recent_failures = fields.Integer(
        required=True, metadata=says("of those made within a day, that failed")
    )


class HealthStatus(ma.Schema):
    """Whether it goes well, in short."""

    timestamp = fields.AwareDateTime(required=True, metadata=says("in UTC", EXAMPLE_TIME))
    ready = fields.Boolean(required=True, metadata=says("as /health/ready says"))
    backend = fields.String(required=True, metadata=says("the active provider", "simulator"))
    backend_healthy = fields.Boolean(
        required=True, metadata=says("whether it is loaded and may be called")
    )
    jobs = fields.Nested(JobCounts, required=True)
    inbound_enabled = fields.Boolean(required=True)
    api_keys_configured = fields.Boolean(required=True, metadata=says("whether there is any key"))
    require_auth = fields.Boolean(
        required=True, metadata=says("whether requests without a key are refused")
    )


class Finding(ma.Schema):
    """How one thing stands."""

    name = fields.String(required=True, metadata=says("what was looked at", "broker"))
    ok = fields.Boolean(
        required=True, allow_none=True, metadata=says("null: it could not be asked")
    )
    sentence = fields.String(required=True)
    setting = fields.String(required=True, metadata=says("what mends it", "CELERY_BROKER_URL"))
    mend = fields.String(required=True, metadata=says("what to do, where it is not well"))
    needed = fields.Boolean(required=True, metadata=says("without it no fax goes"))
    needed_in_production = fields.Boolean(required=True)


class Summary(ma.Schema):
    """What the findings come to."""

    healthy = fields.Boolean(required=True)
    critical_issues = fields.List(fields.String(), required=True)
    warnings = fields.List(fields.String(), required=True)


class Sweep(ma.Schema):
    """A sweep, and when it was last done."""

    name = fields.String(required=True)
    beat_at = fields.AwareDateTime(required=True, allow_none=True)
    overdue = fields.Boolean(required=True)


class SchemaStand(ma.Schema):
    """Which migration this code wants, and which the database has."""

    expected = fields.String(required=True)
    found = fields.String(required=True, allow_none=True)


class EventStream(ma.Schema):
    """Who listens to events at the web process that answers."""

    listeners = fields.Integer(required=True)
    most = fields.Integer(required=True)
    read_at = fields.AwareDateTime(required=True, allow_none=True)
    lag_seconds = fields.Float(
        required=True, allow_none=True, metadata=says("null while nobody listens")
    )


class Diagnostics(ma.Schema):
    """What can be given to who helps: no secret, no number, nothing that people wrote."""

    timestamp = fields.AwareDateTime(required=True, metadata=says("in UTC", EXAMPLE_TIME))
    version = fields.String(required=True)
    python = fields.String(required=True)
    production = fields.Boolean(required=True)
    backend = fields.String(required=True, metadata=says("the active provider", "simulator"))
    database = fields.String(required=True, metadata=says("sqlite or postgresql"))
    schema = fields.Nested(SchemaStand, required=True)
    config_version = fields.Integer(
        required=True, metadata=says("of the settings; 0: the environment alone counts")
    )
    ready = fields.Boolean(required=True)
    parts = fields.Dict(keys=fields.String(), values=fields.Nested(schemas.Part), required=True)
    alarms = fields.List(fields.String(), required=True, metadata=says("their codes"))
    sweeps = fields.List(fields.Nested(Sweep), required=True)
    event_stream = fields.Nested(EventStream, required=True)
    summary = fields.Nested(Summary, required=True)
    findings = fields.List(fields.Nested(Finding), required=True)
    settings = fields.List(
        fields.Dict(), required=True, metadata=says("every option: name, value (masked), source")
    )
    plugins = fields.Dict(
        required=True, metadata=says("those that can be used and the broken ones, without values")
    )
    providers = fields.List(
        fields.Dict(), required=True, metadata=says("how each stands, and what happened to it")
    )


@blueprint.operation(
    "GET",
    "/admin/diagnostics",
    access="admin",
    answers={200: api.answer(Diagnostics, "All of it, without secrets.")},
)
def read_diagnostics() -> Response:
    """Read what is looked at when something is wrong

    It asks the active carriers, and waits 15 seconds for them at most. That it was read is written down.
    """
    return api.reply(problems.dumps(bundle()))


@blueprint.operation(
    "GET",
    "/admin/health-status",
    access="admin",
    answers={200: api.answer(HealthStatus, "How it goes.")},
)
def read_health_status() -> Response:
    """See in short how it goes"""
    return api.reply(problems.dumps(diagnostics.in_short(runtime(), actor())))


def bundle() -> dict[str, Any]:
    """diagnostics.report(), with the listeners of this process."""
    return diagnostics.report(runtime(), actor(), listeners=listeners())


def listeners() -> dict[str, Any]:
    """Who listens to events at this process (Streams.standing)."""
    return events.streams().standing()
