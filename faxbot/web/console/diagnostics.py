"""Diagnostics: what is wrong here and which setting mends it, as a page and as a file; and a test fax."""

from __future__ import annotations

import marshmallow as ma
from flask import Response, request
from marshmallow import fields, validate

from faxbot import diagnostics, testpage
from faxbot.db import new_id
from faxbot.web import diagnostics as api
from faxbot.web import idempotency, problems, submission
from faxbot.web.auth import actor, runtime
from faxbot.web.console import frame

pages = frame.Pages("diagnostics", __name__)

AT_A_TIME = 1.0
"""Seconds for which a page that asks for findings is kept waiting."""


class _Test(ma.Schema):
    """Where a test fax goes."""

    to = fields.String(required=True, validate=validate.Length(max=64))


@pages.page("/diagnostics", access="admin")
def show_diagnostics() -> Response:
    """What is had at once; the findings come behind it."""
    found = diagnostics.standing(runtime(), listeners=api.listeners())
    return frame.show(
        "diagnostics.html", found=found, provider=_traits(found["backend"]), test_key=new_id()
    )


def _traits(provider_id: str) -> dict[str, object]:
    active = (one for one in runtime().plugins.manifests() if one.id == provider_id)
    return {"id": provider_id, "traits": [each for one in active for each in one.traits]}


@pages.page("/diagnostics/findings", access="admin")
def show_findings() -> Response:
    """What the doctor finds, the gravest first; as long as he looks the page asks again, so that none of our threads
    waits for him."""
    found, more = diagnostics.look(runtime()).found(AT_A_TIME)
    graded = diagnostics.worst_first(found, production=runtime().config.production)
    return frame.show("findings.html", findings=graded, more=more)


@pages.page("/diagnostics/bundle", access="admin")
def take_bundle() -> Response:
    """All of it as a file."""
    document = problems.dumps(api.bundle())
    return frame.download(document, "application/json", "faxbot-diagnostics.json")


@pages.deed("/diagnostics/test-fax", access="admin")
def send_test() -> Response:
    """Send a page of our own, and go to see what becomes of it."""
    key = idempotency.parse(request.environ.get("HTTP_IDEMPOTENCY_KEY"))
    wish = frame.checked(_Test(), request.form)
    fax_id = testpage.send(runtime(), actor(), submission.number(wish), key=key)
    return frame.lead(f"/admin/ui/faxes/{fax_id}")
