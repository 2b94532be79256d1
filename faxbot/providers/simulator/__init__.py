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
from typing import Any
from urllib.parse import quote

from faxbot.errors import OutcomeUnknown, ProviderError
from faxbot.hidden import Hidden
from faxbot.plugins.base import (
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
from faxbot.providers.facts import id_in, moment, object_in
from faxbot.providers.http import refusal

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

TOLERANCE_SECONDS = 300
_SIGNATURE = re.compile(r"t=([0-9]{1,12}),v1=([0-9a-f]{64})")
_MOST_PAGES = 100_000


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

    def verify_callback(self, request: CallbackRequest) -> bool:
        match = _SIGNATURE.fullmatch(request.headers.get("x-simulator-signature", ""))
        if match is None:
            return False
        sent_at, proof = match.groups()
        message = sent_at.encode() + b"." + request.body
        genuine = hmac.compare_digest(
            hmac.new(self._secret, message, hashlib.sha256).hexdigest(), proof
        )
        return genuine and abs(self.context.now().timestamp() - int(sent_at)) <= TOLERANCE_SECONDS

    def read_callback(self, request: CallbackRequest) -> list[Update]:
        try:
            content = json.loads(request.body)
        except (ValueError, RecursionError):
            raise OutcomeUnknown("The callback is not JSON.") from None
        return [_update(object_in(content).get("fax"))]

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


def _update(fax: object) -> Update:
    """News from a fax as the carrier describes it; raises OutcomeUnknown where that cannot be
    told."""
    facts = object_in(fax)
    external_id = id_in(facts)
    word, pages = facts.get("status"), facts.get("pages_sent")
    state = STATES.get(word, State.ACCEPTED) if isinstance(word, str) else State.ACCEPTED
    counted = isinstance(pages, int) and not isinstance(pages, bool) and 0 <= pages <= _MOST_PAGES
    tag, code = facts.get("tag"), facts.get("code")
    return Update(
        state,
        external_id=external_id,
        tag=tag if isinstance(tag, str) else None,
        cause=CAUSES.get(code if isinstance(code, str) else "", "unknown")
        if state is State.FAILED
        else None,
        pages_sent=pages if counted else None,
        occurred_at=moment(facts.get("ended_at")),
        # The same news has the same name, whether it was called back (twice) or asked for.
        key=f"{external_id}:{state}:{pages if counted else '-'}",
    )
