"""Liveness and readiness: open to everybody, and silent about anything that would help an attacker."""

from __future__ import annotations

from flask import Response

from faxbot import health
from faxbot.web import api, auth, problems, schemas

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
    return api.reply(problems.dumps({"status": "ok"}))


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

    Looks at the database, the broker, the storage, the provider and the queue. A provider that rests, because its
    carrier refused the account or asked to wait, is no fault: faxes are taken and wait; its part says until when.
    """
    state = health.ready(auth.process())
    return api.reply(problems.dumps(state), 200 if state["ready"] else 503)
