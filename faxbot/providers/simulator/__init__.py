"""The simulator's client: speaks to the stand-in carrier over HTTP, as every provider speaks to its
own.

What the carrier says is read with distrust: an answer that is not what it should be is an unknown
outcome, a code that the table below does not hold is the cause `unknown`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, BinaryIO
from urllib.parse import quote

from multipart import MultipartSegment

from faxbot.errors import OutcomeUnknown, ProviderError, Refused, Unreachable
from faxbot.hidden import Hidden
from faxbot.plugins.base import (
    LARGEST_IN_MEMORY,
    Arrival,
    CallbackRequest,
    Context,
    Health,
    HttpReply,
    OutboundFax,
    Receipt,
    State,
    TransportPlugin,
    Update,
)
from faxbot.providers import parts
from faxbot.providers.facts import count_in, id_in, moment, number_in, object_in
from faxbot.providers.http import PDF, refusal

CAUSES: Mapping[str, str] = {
    # of a submission that was not taken
    "account-suspended": "trunk_denied",
    "bad-credentials": "trunk_denied",
    "forbidden": "trunk_denied",
    "no-funds": "funds",
    "destination-barred": "policy",
    "number-malformed": "number_invalid",
    "number-refused": "number_invalid",
    "document-refused": "doc_unreadable",
    "document-too-large": "doc_too_large",
    "document-unreadable": "doc_unreadable",
    "throttled": "congestion",
    # of a fax that was taken
    "line-busy": "busy",
    "no-answer": "no_answer",
    "no-fax-tone": "no_fax_tone",
    "call-dropped": "dropped_early",
    "number-not-in-service": "number_dead",
    "call-refused": "rejected",
    "destination-unreachable": "unreachable",
    "no-route": "no_route",
    "no-circuit": "congestion",
    "trunk-down": "trunk_down",
    "document-not-fetched": "doc_fetch_failed",
    "document-empty": "doc_empty",
    "service-misconfigured": "config",
    "network-failure": "network_error",
    "bearer-not-available": "bearer",
    "t38-failed": "t38_failed",
    "training-failed": "handshake_failed",
    "page-not-confirmed": "page_failed",
    "image-incompatible": "incompatible_image",
    "receiver-refused": "remote_refused",
    "session-timeout": "session_timeout",
    "carrier-fault": "system",
    "cancelled": "cancelled",
    "expired": "expired",
}
"""The carrier's words -> canonical causes (events.CAUSES); every other word is `unknown`."""

STATES: Mapping[str, State] = {
    "queued": State.ACCEPTED,
    "sending": State.PROGRESS,
    "delivered": State.DELIVERED,
    "failed": State.FAILED,
    "cancelled": State.FAILED,
}
"""The carrier's words for where a fax stands; every other word says only that the carrier has
it."""

RECEIVED, FAILED = "received", "failed"
"""The carrier's words for how a fax came in; every other word says that it is on its way."""
ANYTHING = "application/octet-stream"
"""How the carrier gives the document of a received fax: PDF or TIFF."""

TOLERANCE_SECONDS = 300
_SIGNATURE = re.compile(r"t=([0-9]{1,12}),v1=([0-9a-f]{64})")


class SimulatorProvider(TransportPlugin):
    """See docs/simulator.md."""

    def initialize(self, config: Mapping[str, Any], context: Context) -> None:
        super().initialize(config, context)
        self._base = str(config["baseUrl"]).rstrip("/")
        self._secret = str(config["secret"]).encode()
        self._headers = {"Authorization": f"Bearer {config['secret']}"}

    def health(self) -> Health:
        """Asks the carrier whether it is there and takes our secret."""
        try:
            reply = self._call("GET", "/health")
        except ProviderError as error:
            return Health(
                False,
                f"{error.detail} Is `faxbot carrier simulator` running at SIMULATOR_BASE_URL?",
            )
        if reply.status == 401:
            return Health(
                False,
                "The carrier does not take this secret: set the same SIMULATOR_SECRET for both.",
            )
        return Health(reply.status == 200, f"The carrier answered with HTTP status {reply.status}.")

    def send(self, fax: OutboundFax) -> Receipt:
        with fax.document.open("rb") as document:
            reply = self.context.http.request(
                "POST",
                f"{self._base}/v1/faxes",
                headers=self._headers,
                data={
                    "to": fax.to.reveal(),
                    "tag": fax.tag,
                    "callback_url": fax.callback_url,
                    "header": fax.header.reveal(),
                },
                files={"file": ("fax.tiff", document, fax.media_type)},
            )
        return Receipt(id_in(object_in(_accepted(reply).get("fax"))))

    def look_up(self, tag: str, *, to: Hidden[str], since: datetime) -> Update:  # noqa: ARG002
        faxes = _accepted(self._call("GET", "/v1/faxes", {"tag": tag})).get("faxes")
        if not isinstance(faxes, list):
            raise OutcomeUnknown("The carrier's answer holds no list of faxes.")
        if not faxes:
            return Update(State.ABSENT, tag=tag)
        return _update(faxes[0])

    def fetch(self, external_id: str) -> Update:
        reply = self._call("GET", f"/v1/faxes/{quote(external_id, safe='')}")
        if reply.status == 404 and _code(reply) == "no-such-fax":
            return Update(State.ABSENT, external_id=external_id)
        return _update(_accepted(reply).get("fax"))

    def cancel(self, external_id: str) -> None:
        """Raises NotSent's kin when the carrier refuses, e.g. because it is too late."""
        _accepted(self._call("POST", f"/v1/faxes/{quote(external_id, safe='')}/cancel"))

    def document(self, external_id: str, target: BinaryIO) -> None:
        """What came in; of a fax that was sent, which the carrier does not keep, blank pages."""
        url = f"{self._base}/v1/faxes/{quote(external_id, safe='')}/file"
        media_type = ANYTHING if external_id.startswith("rf_") else PDF
        reply = self.context.http.download(
            url, target, media_type=media_type, headers=self._headers
        )
        if reply is None:
            return
        code = _code(reply)
        if code in ("no-such-fax", "document-gone"):
            raise Refused("The carrier has no document of this fax.", cause="doc_fetch_failed")
        if code == "document-not-ready":
            raise Unreachable("The carrier does not have the document ready yet.")
        _accepted(reply)
        raise OutcomeUnknown("The carrier's answer is no document.")

    def attached(self, request: CallbackRequest, target: BinaryIO) -> None:
        try:
            found = parts.take_file(request, ("file",), target)
        except ValueError:
            found = False
        if not found:
            raise Refused("This callback holds no document.", cause="doc_fetch_failed")

    def delete_copy(self, external_id: str) -> None:
        reply = self._call("DELETE", f"/v1/faxes/{quote(external_id, safe='')}/file")
        if not (reply.status == 404 and _code(reply) == "no-such-fax"):
            _accepted(reply)

    def verify_callback(self, request: CallbackRequest) -> bool:
        match = _SIGNATURE.fullmatch(request.headers.get("x-simulator-signature", ""))
        if match is None:
            return False
        sent_at, proof = match.groups()
        mac = hmac.new(self._secret, f"{sent_at}.".encode(), hashlib.sha256)
        for chunk in request.chunks():
            mac.update(chunk)
        genuine = hmac.compare_digest(mac.hexdigest(), proof)
        return genuine and abs(self.context.now().timestamp() - int(sent_at)) <= TOLERANCE_SECONDS

    def read_callback(self, request: CallbackRequest) -> list[Update | Arrival]:
        """News of a fax: JSON, or for a received one whose document comes with it, a form."""
        try:
            text, attached = _news(request)
            content = json.loads(text)
        except (ValueError, RecursionError):
            raise OutcomeUnknown("The callback cannot be read.") from None
        fax = object_in(object_in(content).get("fax"))
        if fax.get("direction") != RECEIVED:
            return [_update(fax)]
        if fax.get("status") not in (RECEIVED, FAILED):
            return []
        return [_arrival(fax, attached=attached)]

    def _call(self, method: str, path: str, params: Mapping[str, str] | None = None) -> HttpReply:
        return self.context.http.request(
            method, self._base + path, params=params, headers=self._headers
        )


def _accepted(reply: HttpReply) -> dict[str, Any]:
    """The content of a 2xx answer; raises what any other status means."""
    if 200 <= reply.status < 300:
        return object_in(reply.json())
    code = _code(reply)
    cause = CAUSES.get(code) if code else None
    raise refusal(
        reply.status, reply.headers, cause=cause, blames_destination=code == "destination-barred"
    )


def _code(reply: HttpReply) -> str | None:
    """The carrier's word for a refusal, where its body has one."""
    try:
        code = object_in(object_in(reply.json()).get("error")).get("code")
    except ProviderError:
        return None
    return code if isinstance(code, str) else None


def _news(request: CallbackRequest) -> tuple[bytes, bool]:
    """The news in a callback, and whether a document comes with it; raises ValueError."""
    form = parts.form_of(request)[0] == parts.FORM
    text, event, attached = bytearray(), not form, False
    for piece in parts.events(request) if form else request.chunks():
        if isinstance(piece, MultipartSegment):
            event = piece.filename is None and piece.name == "event"
            attached = attached or (piece.filename is not None and piece.name == "file")
        elif piece and event:
            text += piece
            if len(text) > LARGEST_IN_MEMORY:
                raise ValueError("too much news")
    return bytes(text), attached


def _arrival(fax: Mapping[str, Any], *, attached: bool) -> Arrival:
    """A fax that came in, or failed to; raises OutcomeUnknown where that cannot be told."""
    code, failed = fax.get("code"), fax["status"] == FAILED
    return Arrival(
        id_in(fax),
        sender=number_in(fax.get("from")),
        recipient=number_in(fax.get("to")),
        pages=count_in(fax.get("pages")),
        cause=CAUSES.get(code if isinstance(code, str) else "", "unknown") if failed else None,
        attached=attached and not failed,
        received_at=moment(fax.get("ended_at")),
    )


def _update(fax: object) -> Update:
    """News from a fax as the carrier describes it; raises OutcomeUnknown where that cannot be
    told."""
    facts = object_in(fax)
    if facts.get("direction") == RECEIVED:
        raise OutcomeUnknown("The carrier's answer is about a received fax.")
    external_id = id_in(facts)
    word, pages = facts.get("status"), count_in(facts.get("pages_sent"))
    state = STATES.get(word, State.ACCEPTED) if isinstance(word, str) else State.ACCEPTED
    tag, code = facts.get("tag"), facts.get("code")
    return Update(
        state,
        external_id=external_id,
        tag=tag if isinstance(tag, str) else None,
        cause=CAUSES.get(code if isinstance(code, str) else "", "unknown")
        if state is State.FAILED
        else None,
        pages_sent=pages,
        occurred_at=moment(facts.get("ended_at")),
        # The same news has the same name, whether it was called back (twice) or asked for.
        key=f"{external_id}:{state}:{'-' if pages is None else pages}",
    )
