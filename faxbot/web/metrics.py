"""GET /metrics: what Prometheus is told, with a key that has the scope `metrics`, or on this machine without one."""

from __future__ import annotations

from flask import Response

from faxbot import metrics
from faxbot.web import api, auth
from faxbot.web.auth import runtime

blueprint = api.Blueprint("metrics", __name__, description="Figures for Prometheus.")


@blueprint.operation(
    "GET",
    "/metrics",
    access=f"metrics{auth.OR_HERE}",
    answers={200: api.text_answer("All metrics, at most two seconds old.", "text/plain")},
    in_background=True,
)
def read_metrics() -> Response:
    """Figures for Prometheus

    The same whichever process answers: they are read from the database. No number, no name and nothing else of any one
    fax is among them.
    """
    whole = runtime()
    text = whole.tallies.remembered("metrics", lambda: metrics.exposition(whole))
    return Response(text, content_type=metrics.CONTENT_TYPE)
