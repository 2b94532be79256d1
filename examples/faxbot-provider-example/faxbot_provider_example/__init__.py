"""Sends faxes through Example, over the small HTTP API that README.md describes.

What the carrier says is read with distrust: an answer that is not what it should be is an unknown
outcome, a reason that the table below does not hold is the cause `unknown`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
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
from faxbot.providers.http import refusal

CAUSES: Mapping[str, str] = {
    "bad number": "number_invalid",
    "line busy": "busy",
    "no answer": "no_answer",
}
"""The carrier's reasons -> canonical causes (docs/events.md of faxbot lists them all)."""

STATES: Mapping[str, State] = {
    "queued": State.ACCEPTED,
    "sending": State.PROGRESS,
    "done": State.DELIVERED,
    "failed": State.FAILED,
}
"""The carrier's words for where a fax stands; another one says only that the carrier has it."""


class ExampleProvider(TransportPlugin):
    """What a method may raise, and what core makes of it: faxbot.plugins.base."""

    def initialize(self, config: Mapping[str, Any], context: Context) -> None:
        super().initialize(config, context)
        self._base = str(config["baseUrl"]).rstrip("/")
        self._secret = str(config["secret"])

    def health(self) -> Health:
        """Asks for the account, which costs nothing and needs the secret."""
        try:
            reply = self._call("GET", "/account")
        except ProviderError as error:
            return Health(False, f"{error.detail} Is EXAMPLE_BASE_URL right?")
        if reply.status in (401, 403):
            return Health(False, "The carrier does not take this secret: check EXAMPLE_SECRET.")
        return Health(reply.status == 200, f"The carrier answered with HTTP status {reply.status}.")

    def send(self, fax: OutboundFax) -> Receipt:
        with fax.document.open("rb") as document:
            reply = self._call(
                "POST",
                "/faxes",
                data={"to": fax.to.reveal(), "tag": fax.tag, "callback": fax.callback_url},
                files={"document": ("fax.tiff", document, fax.media_type)},
            )
        return Receipt(_id_of(_accepted(reply)))

    def look_up(self, tag: str, *, to: Hidden[str], since: datetime) -> Update:  # noqa: ARG002
        """GET /faxes by our tag. Of this carrier it is not known how soon it lists a fax, so the
        manifest does not declare `absence_is_proof`."""
        faxes = _accepted(self._call("GET", "/faxes", params={"tag": tag})).get("faxes")
        if not isinstance(faxes, list):
            raise OutcomeUnknown("The carrier's answer holds no list of faxes.")
        return _update(faxes[0]) if faxes else Update(State.ABSENT, tag=tag)

    def fetch(self, external_id: str) -> Update:
        reply = self._call("GET", f"/faxes/{quote(external_id, safe='')}")
        if reply.status == 404 and _error(reply) == "no such fax":
            return Update(State.ABSENT, external_id=external_id)
        return _update(_accepted(reply))

    def verify_callback(self, request: CallbackRequest) -> bool:
        proof = request.headers.get("x-example-signature", "")
        ours = hmac.new(self._secret.encode(), request.body, hashlib.sha256).hexdigest()
        return hmac.compare_digest(ours.encode(), proof.encode(errors="backslashreplace"))

    def read_callback(self, request: CallbackRequest) -> list[Update]:
        try:
            return [_update(json.loads(request.body))]
        except (ValueError, RecursionError):
            raise OutcomeUnknown("The callback is not JSON.") from None

    def _call(self, method: str, path: str, **more: Any) -> HttpReply:
        headers = {"Authorization": f"Bearer {self._secret}"}
        return self.context.http.request(method, self._base + path, headers=headers, **more)


def _accepted(reply: HttpReply) -> dict[str, Any]:
    """The content of a 2xx answer; raises what any other status means."""
    if 200 <= reply.status < 300:
        return _dict(reply.json())
    raise refusal(reply.status, reply.headers, cause=CAUSES.get(_error(reply)))


def _error(reply: HttpReply) -> str:
    """The carrier's word for a refusal; "" where it gave none."""
    try:
        error = _dict(reply.json()).get("error")
    except ProviderError:
        return ""
    return error if isinstance(error, str) else ""


def _update(fax: object) -> Update:
    facts = _dict(fax)
    external_id, tag, pages = _id_of(facts), facts.get("tag"), facts.get("pages")
    state = STATES.get(str(facts.get("state")), State.ACCEPTED)
    return Update(
        state,
        tag=tag if isinstance(tag, str) else None,
        external_id=external_id,
        cause=CAUSES.get(str(facts.get("reason")), "unknown") if state is State.FAILED else None,
        pages_sent=pages if type(pages) is int and pages >= 0 else None,
        # The same news has the same name, whether it was called back (twice) or asked for.
        key=f"{external_id}:{state}",
    )


def _id_of(fax: Mapping[str, Any]) -> str:
    external_id = fax.get("id")
    if not isinstance(external_id, str) or not external_id.isprintable() or not external_id:
        raise OutcomeUnknown("The carrier's answer holds no id.")
    return external_id


def _dict(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise OutcomeUnknown("The carrier's answer is not what it should be.")
    return value
