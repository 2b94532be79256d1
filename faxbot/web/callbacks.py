"""The carriers' door: a callback is taken as it came, proven and stored by the domain, and answered at once."""

from __future__ import annotations

from flask import Response, request

from faxbot import callbacks
from faxbot.errors import Malformed, NotFound
from faxbot.plugins.base import CallbackRequest
from faxbot.web import api, auth, problems, schemas

CALLBACK_BYTES = 25 * 1024 * 1024
"""The largest callback; a received fax may come inside one."""

blueprint = api.Blueprint("callbacks", __name__, description="What carriers tell us.")


@blueprint.operation(
    "POST",
    "/callbacks/<provider_id>",
    access=auth.SIGNATURE,
    answers={
        200: api.answer(schemas.Received, "Kept, or known already. It is applied in a moment.")
    },
    errors=(NotFound, Malformed, problems.REQUEST_TOO_LARGE),
    parameters=[
        {
            "name": "provider_id",
            "in": "path",
            "required": True,
            "schema": {"type": "string"},
            "description": "whose carrier calls",
            "example": "simulator",
        },
        {
            "name": "X-Simulator-Signature",
            "in": "header",
            "required": False,
            "schema": {"type": "string"},
            "description": "the proof, in the header that this carrier uses; here the simulator's",
            "example": "t=1700000000,v1=6a26657cbf1ceefcfa4929e3c16d5059c32c1a65f07058081468544536f4ea94",
        },
    ],
    requestBody={
        "description": "Whatever this provider's carrier sends.",
        "content": {"*/*": {"schema": {}, "example": {"event": "fax.delivered"}}},
    },
)
def receive_callback(provider_id: str) -> Response:
    """Take a carrier's callback

    The provider checks that it truly comes from its carrier; what is forged, or older than five minutes like the
    example, is answered with 401. Repeats are welcome and change nothing.
    """
    request.max_content_length = CALLBACK_BYTES
    callbacks.receive(
        auth.runtime(),
        provider_id,
        CallbackRequest(
            method=request.method,
            url=_address(),
            headers={name.lower(): value for name, value in request.headers.items()},
            body=request.get_data(cache=False),
        ),
    )
    return api.reply(problems.dumps({"status": "ok"}))


def _address() -> str:
    """The address as the carrier used and signed it: PUBLIC_API_URL, then path and query, their escapes untouched."""
    environ = request.environ
    raw: str = (
        environ.get("RAW_URI") or environ.get("REQUEST_URI") or request.full_path.removesuffix("?")
    )
    if not raw.startswith("/"):  # the absolute form, which a proxy may use
        raw = "/" + raw.partition("://")[2].partition("/")[2]
    return auth.runtime().config.base_url + raw
