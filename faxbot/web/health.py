"""Liveness and readiness: open to everybody, and silent about anything that would help an attacker."""

from __future__ import annotations

from flask import Response

from faxbot import health
from faxbot.web import api, auth, schemas

blueprint = api.Blueprint("health", __name__, description="Whether the service lives and works.")


@blueprint.operation(
    "GET",
    "/health",
    access=auth.OPEN,
    answers={200: api.answer(schemas.Alive, "The process answers.")},
)
def alive() -> Response:
    """Liveness

    Says only that the process answers; it touches nothing else.
    """
    return api.reply(api.dumps({"status": "ok"}))


@blueprint.operation(
    "GET",
    "/health/ready",
    access=auth.OPEN,
    answers={
        200: api.answer(schemas.Readiness, "Faxes can be taken and sent."),
        503: api.answer(schemas.Readiness, "Something is away; `parts` says what."),
    },
)
def ready() -> Response:
    """Readiness

    Looks at the database, the queue, the storage and the provider.
    """
    state = health.ready(auth.runtime())
    return api.reply(api.dumps(state), 200 if state["ready"] else 503)
