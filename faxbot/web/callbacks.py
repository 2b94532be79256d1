"""The carriers' door: a callback is taken as it came, proven and stored by the domain, and answered at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from flask import Response, request

from faxbot import callbacks
from faxbot.errors import Malformed, NotFound, StorageAway
from faxbot.plugins.base import CHUNK, LARGEST_IN_MEMORY, CallbackRequest
from faxbot.spool import SpoolFile
from faxbot.web import api, auth, problems, schemas, uploads

CALLBACK_BYTES = 100 * 1024 * 1024
"""The largest callback; a received fax may come inside one."""

_KEPT = {200: api.answer(schemas.Received, "Kept, or known already. It is applied in a moment.")}
_ERRORS = (NotFound, Malformed, StorageAway, problems.REQUEST_TOO_LARGE)
_ANYTHING = {
    "description": "Whatever the carrier sends.",
    "content": {"*/*": {"schema": {}, "example": {"event": "fax.delivered"}}},
}

blueprint = api.Blueprint("callbacks", __name__, description="What carriers tell us.")


@blueprint.after_request
def ask_for_credentials(answer: Response) -> Response:
    """Many clients send the credentials of an address only when they are asked for them (RFC 7617)."""
    if answer.status_code == 401:
        answer.headers["WWW-Authenticate"] = 'Basic realm="faxbot"'
    return answer


@blueprint.operation(
    "POST",
    "/callbacks/<provider_id>",
    access=auth.SIGNATURE,
    answers=_KEPT,
    errors=_ERRORS,
    parameters=[
        api.path("provider_id", "whose carrier calls", "simulator"),
        {
            "name": "X-Simulator-Signature",
            "in": "header",
            "required": False,
            "schema": {"type": "string"},
            "description": "the proof, in the header that this carrier uses; here the simulator's",
            "example": "t=1700000000,v1=6a26657cbf1ceefcfa4929e3c16d5059c32c1a65f07058081468544536f4ea94",
        },
    ],
    requestBody=_ANYTHING,
)
def receive_callback(provider_id: str) -> Response:
    """Take a carrier's callback

    The provider checks that it truly comes from its carrier; what is forged, or older than five minutes like the
    example, is answered with 401. Repeats are welcome and change nothing.
    """
    with _request(provider_id) as posted:
        callbacks.receive(auth.runtime(), provider_id, posted)
    return api.reply(problems.dumps({"status": "ok"}))


@blueprint.operation(
    "POST",
    "/phaxio-callback",
    access=auth.SIGNATURE,
    answers=_KEPT,
    errors=_ERRORS,
    requestBody=_ANYTHING,
)
def receive_phaxio() -> Response:
    """Take Phaxio's callback, at an earlier Faxbot's address

    The same as /callbacks/phaxio.
    """
    return receive_callback("phaxio")


@blueprint.operation(
    "POST",
    "/phaxio-inbound",
    access=auth.SIGNATURE,
    answers=_KEPT,
    errors=_ERRORS,
    requestBody=_ANYTHING,
)
def receive_phaxio_inbound() -> Response:
    """Take Phaxio's news of a received fax, at an earlier Faxbot's address

    The same as /callbacks/phaxio.
    """
    return receive_callback("phaxio")


@blueprint.operation(
    "POST",
    "/sinch-inbound",
    access=auth.SIGNATURE,
    answers=_KEPT,
    errors=_ERRORS,
    requestBody=_ANYTHING,
)
def receive_sinch() -> Response:
    """Take Sinch's callback, at an earlier Faxbot's address

    The same as /callbacks/sinch.
    """
    return receive_callback("sinch")


@blueprint.operation(
    "POST",
    "/inbound/callback",
    access=auth.SIGNATURE,
    answers=_KEPT,
    errors=(Malformed, StorageAway, problems.REQUEST_TOO_LARGE),
    requestBody=_ANYTHING,
)
def receive_from_anybody() -> Response:
    """Take a callback of whichever carrier proves itself

    For one address at several carriers: the header that carries the proof says whose it is.
    """
    with _request() as posted:
        callbacks.receive_from_anybody(auth.runtime(), posted)
    return api.reply(problems.dumps({"status": "ok"}))


@blueprint.operation(
    "POST",
    "/_internal/asterisk/inbound",
    access=auth.SIGNATURE,
    answers=_KEPT,
    errors=_ERRORS,
    requestBody=_ANYTHING,
)
def receive_asterisk_inbound() -> Response:
    """Take a received fax of an Asterisk, at an earlier Faxbot's address

    The same as /callbacks/asterisk; X-Internal-Secret proves it.
    """
    return receive_callback("asterisk")


@blueprint.operation(
    "POST",
    "/_internal/freeswitch/outbound_result",
    access=auth.SIGNATURE,
    answers=_KEPT,
    errors=_ERRORS,
    requestBody=_ANYTHING,
)
def receive_freeswitch_result() -> Response:
    """Take the result of a call of FreeSWITCH, at an earlier Faxbot's address

    The same as /callbacks/freeswitch, for a plugin of that name.
    """
    return receive_callback("freeswitch")


@contextmanager
def _request(provider_id: str | None = None) -> Iterator[CallbackRequest]:
    """The request as it came; its body is read once, a large one into the spool, where it is gone at the end. Nothing
    is read of one that is refused in any case."""
    url = _address()
    headers = {name.lower(): value for name, value in request.headers.items()}
    head = CallbackRequest(request.method, url, headers, b"")
    callbacks.expect(auth.runtime(), head, provider_id)
    request.max_content_length = CALLBACK_BYTES
    body, read = bytearray(), uploads.reader(request)
    with ExitStack() as stack:
        spooled: SpoolFile | None = None
        while piece := read(CHUNK):
            if spooled is None and len(body) + len(piece) > LARGEST_IN_MEMORY:
                spooled = SpoolFile(auth.runtime().config.spool_dir)
                stack.callback(spooled.remove)
                spooled.write(bytes(body))
                body.clear()
            if spooled is None:
                body += piece
            else:
                spooled.write(piece)
        file = None if spooled is None else spooled.path
        yield replace(head, body=bytes(body), file=file)


def _address() -> str:
    """The address as the carrier used and signed it: PUBLIC_API_URL, then path and query, their escapes untouched."""
    environ = request.environ
    raw: str = (
        environ.get("RAW_URI") or environ.get("REQUEST_URI") or request.full_path.removesuffix("?")
    )
    if not raw.startswith("/"):  # the absolute form, which a proxy may use
        raw = "/" + raw.partition("://")[2].partition("/")[2]
    return auth.runtime().config.base_url + raw
