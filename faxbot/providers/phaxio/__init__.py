"""Sends and receives faxes through Phaxio (API v2.1, or v2 by its address) and reads what Phaxio says of them.

What Phaxio says is read with distrust: an answer that is not what it should be is an unknown
outcome. docs/providers/phaxio.md has the sources.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any, BinaryIO
from urllib.parse import quote

from faxbot.errors import (
    AccountRefused,
    DestinationBarred,
    OutcomeUnknown,
    ProviderError,
    Refused,
    Throttled,
    Unreachable,
)
from faxbot.hidden import Hidden
from faxbot.plugins.base import (
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
from faxbot.providers.facts import attempt_in, object_in
from faxbot.providers.http import PDF, refusal, retry_after
from faxbot.providers.phaxio import signature
from faxbot.providers.phaxio.faxes import (
    RECEIVED,
    TAG,
    arrival_of,
    ended_at,
    id_of,
    tag_of,
    update_of,
)

REFUSALS: tuple[tuple[str, type[ProviderError], str | None], ...] = (
    ("not formatted correctly", Refused, "number_invalid"),
    ("not permitted", Refused, "policy"),
    ("insufficient funds", AccountRefused, "funds"),
    ("auth failure", AccountRefused, None),
    ("rate limited", Throttled, None),
)
"""Words in the message of a submission that was not taken -> what they prove, and the cause; asked
only where the HTTP status leaves it open."""
_OPEN_STATUSES = (400, 403, 422)

LISTED_AT_ONCE = 500
MOST_LISTS = 4
LISTED_BEFORE = timedelta(hours=1)
"""How much earlier than our call a fax is looked for: the clocks need not agree."""
STORED_WITHIN = timedelta(hours=1)
"""After the end of a received fax its document may still be on its way into Phaxio's store; a copy
that is missing later is gone. How long that takes is not documented."""
SHORTEST_WAIT = 1.0
"""Seconds after a 429; "wait a second, and then try again" (README of the vendor's clients)."""
_COMPLETED = b"fax_completed"
_NAMES = {"application/pdf": "fax.pdf", "image/tiff": "fax.tiff"}
_PREFERENCE = (State.DELIVERED, State.PROGRESS, State.ACCEPTED, State.FAILED)


class PhaxioProvider(TransportPlugin):
    """See docs/providers/phaxio.md."""

    def initialize(self, config: Mapping[str, Any], context: Context) -> None:
        super().initialize(config, context)
        self._base = str(config["baseUrl"]).rstrip("/")
        self._auth = (str(config["apiKey"]), str(config["apiSecret"]))
        self._token = str(config.get("callbackToken") or "")

    def health(self) -> Health:
        """Asks for the account's status, which proves key and secret and costs nothing."""
        try:
            content = _accepted(self._call("GET", "/account/status"))
        except (AccountRefused, DestinationBarred) as error:
            return Health(False, _ADVICE.get(error.cause, _ADVICE["trunk_denied"]))
        except Throttled:
            return Health(False, "Phaxio asks to wait: test again in a moment.")
        except ProviderError as error:
            return Health(False, f"{error.detail} Check PHAXIO_BASE_URL and the way out of here.")
        return _fitness(content, bool(self._token))

    def send(self, fax: OutboundFax) -> Receipt:
        """POST faxes (phaxio.com/docs/api/v2/faxes/create_and_send_fax), to one number under our
        tag."""
        form, link = self._form(fax), fax.document_url.reveal()
        if link and self.config.get("sendByLink"):
            # As a part, so that this form is multipart too.
            reply = self._submit(
                form, {"content_url": (None, BytesIO(link.encode()), "text/plain")}
            )
        else:
            with fax.document.open("rb") as document:
                name = _NAMES.get(fax.media_type, "fax")
                reply = self._submit(form, {"file": (name, document, fax.media_type)})
        content = _accepted(reply)
        return Receipt(id_of(object_in(content.get("data"))))

    def look_up(self, tag: str, *, to: Hidden[str], since: datetime) -> Update:  # noqa: ARG002
        """GET faxes by our tag. Where it is found twice (people can resend in Phaxio's console),
        the one that went furthest counts: a second try must not be a second fax."""
        found = [update_of(fax) for fax in self._listed(tag, since) if tag_of(fax) == tag]
        if not found:
            return Update(State.ABSENT, tag=tag)
        return min(
            found, key=lambda each: (_PREFERENCE.index(each.state), int(each.external_id or 0))
        )

    def fetch(self, external_id: str) -> Update:
        """GET faxes/{id}; State.ABSENT where Phaxio says that it has no such fax."""
        reply = self._call("GET", f"/faxes/{quote(external_id, safe='')}")
        if _is_unknown(reply):
            return Update(State.ABSENT, external_id=external_id)
        update = update_of(object_in(_accepted(reply).get("data")))
        if update.external_id != external_id:
            raise OutcomeUnknown("The carrier's answer is about another fax.")
        return update

    def cancel(self, external_id: str) -> None:
        """POST faxes/{id}/cancel, which only schedules it: the fax ends as 75, or is sent after
        all. Raises Refused when it is too late, or there is no such fax."""
        reply = self._call("POST", f"/faxes/{quote(external_id, safe='')}/cancel")
        declined = reply.status < 300 or reply.status in (*_OPEN_STATUSES, 404, 409)
        content = _content(reply)
        if declined and content.get("success") is False:
            error = _refused(reply, _message(content))
            # Then it was not this fax that Phaxio spoke of.
            if isinstance(error, AccountRefused | Throttled) and reply.status != 404:
                raise error
            raise Refused("Phaxio does not stop this fax: it has ended, or is not known there.")
        _accepted(reply)

    def document(self, external_id: str, target: BinaryIO) -> None:
        """GET faxes/{id}/file; what is wrong comes as JSON at the same address. Raises Unreachable
        for a fax that was received so lately that its document may still come."""
        url = f"{self._base}/faxes/{quote(external_id, safe='')}/file"
        reply = self.context.http.download(url, target, media_type=PDF, auth=self._auth)
        if reply is None:
            return
        deleted = "has been deleted" in _message(_content(reply))
        if not deleted and not _is_unknown(reply):
            _accepted(reply)
            raise OutcomeUnknown("The carrier's answer is no PDF.")
        if not deleted and self._has_just_come(external_id):
            raise Unreachable("Phaxio does not have the document of this fax yet.")
        raise Refused("Phaxio has no document of this fax.", cause="doc_fetch_failed")

    def attached(self, request: CallbackRequest, target: BinaryIO) -> None:
        """The file part of a callback whose signature, which covers it, was verified."""
        try:
            found = parts.take_file(request, signature.DOCUMENTS, target)
        except ValueError:
            found = False
        if not found:
            raise Refused("This callback holds no document.", cause="doc_fetch_failed")

    def delete_copy(self, external_id: str) -> None:
        """DELETE faxes/{id}/file; what Phaxio knows of the call stays. Raises Unreachable for a fax that
        was received so lately that its document may still come."""
        reply = self._call("DELETE", f"/faxes/{quote(external_id, safe='')}/file")
        if "has been deleted" in _message(_content(reply)):
            return
        if not _is_unknown(reply):
            _accepted(reply)
        elif self._has_just_come(external_id):
            raise Unreachable("Phaxio does not have the document of this fax yet.")

    def verify_callback(self, request: CallbackRequest) -> bool:
        """By X-Phaxio-Signature; without a callback token, or without the header, never."""
        proof = request.headers.get("x-phaxio-signature", "")
        if not self._token or not proof:
            return False
        try:
            ours = signature.sign(self._token, request.url, signature.read(request))
        except ValueError:
            return False
        return hmac.compare_digest(ours.encode(), proof.encode(errors="backslashreplace"))

    def read_callback(self, request: CallbackRequest) -> list[Update | Arrival]:
        """News of a fax that has ended, in the shapes v1, v2 and v2.1, and of one that was received,
        whatever its event is called: that is not documented. Other events, and faxes that other
        programs sent, are no news."""
        try:
            form = signature.read(request)
        except ValueError:
            raise OutcomeUnknown("The callback is no form.") from None
        fields = form.fields
        completed = fields.get(b"event_type", _COMPLETED) == _COMPLETED
        if not completed and b"fax" not in fields:
            return []
        fax = _loaded(fields.get(b"fax", b""))
        if _is_received(fields.get(b"direction", b""), fax.get("direction")):
            success = fields.get(b"success", b"").decode(errors="replace")
            arrival = arrival_of(fax, attached=form.has_document, success=success)
            return [arrival] if arrival else []
        if not completed:
            return []
        tag = tag_of(fax) or attempt_in(request.url)
        return [replace(update_of(fax), tag=tag)] if tag else []

    def _has_just_come(self, external_id: str) -> bool:
        """Whether this is a fax that Phaxio received within STORED_WITHIN."""
        reply = self._call("GET", f"/faxes/{quote(external_id, safe='')}")
        if _is_unknown(reply):
            return False
        fax = object_in(_accepted(reply).get("data"))
        ended = ended_at(fax)
        lately = ended is not None and self.context.now() - ended < STORED_WITHIN
        return lately and fax.get("direction") == RECEIVED

    def _form(self, fax: OutboundFax) -> dict[str, str]:
        form = {
            "to": fax.to.reveal(),
            "callback_url": fax.callback_url,
            f"tag[{TAG}]": fax.tag,
        }
        optional = {
            "header_text": fax.header.reveal(),
            "caller_id": str(self.config.get("callerId") or ""),
            "cancel_timeout": self._cancel_timeout(fax.deadline),
        }
        return form | {name: value for name, value in optional.items() if value}

    def _cancel_timeout(self, deadline: datetime | None) -> str:
        """Minutes, 3 to 60, after which Phaxio gives up; "" for as long as it likes."""
        limits = (
            [self.config["cancelTimeoutMinutes"]] if "cancelTimeoutMinutes" in self.config else []
        )
        if deadline is not None:
            left = int((deadline - self.context.now()) / timedelta(minutes=1))
            limits += [max(left, 3)] if left <= 60 else []
        return str(min(limits)) if limits else ""

    def _listed(self, tag: str, since: datetime) -> Iterator[Mapping[str, Any]]:
        """Every fax that is listed under our tag, page by page; more than are asked for where
        Phaxio does not filter."""
        after = (since - LISTED_BEFORE).astimezone(UTC).isoformat(timespec="seconds")
        asked = {f"tag[{TAG}]": tag, "created_after": after, "per_page": str(LISTED_AT_ONCE)}
        seen = 0
        for page in range(1, MOST_LISTS + 1):
            content = _accepted(self._call("GET", "/faxes", {**asked, "page": str(page)}))
            faxes, total = content.get("data"), object_in(content.get("paging")).get("total")
            if not isinstance(faxes, list) or type(total) is not int:
                raise OutcomeUnknown("The carrier's answer holds no list of faxes.")
            yield from map(object_in, faxes)
            seen += len(faxes)
            if not faxes or seen >= total:
                return
        raise OutcomeUnknown("The carrier's list of faxes does not end.")

    def _submit(
        self, form: Mapping[str, str], files: Mapping[str, tuple[str | None, BinaryIO, str]]
    ) -> HttpReply:
        return self.context.http.request(
            "POST", f"{self._base}/faxes", data=form, files=files, auth=self._auth
        )

    def _call(self, method: str, path: str, params: Mapping[str, str] | None = None) -> HttpReply:
        return self.context.http.request(method, self._base + path, params=params, auth=self._auth)


_ADVICE = {
    "config": "There is no Phaxio API at PHAXIO_BASE_URL: it ends with its version, /v2.1 or /v2.",
    "funds": "The account has no funds: recharge it in Phaxio's console.",
    "trunk_denied": "Phaxio does not take these credentials: check PHAXIO_API_KEY and PHAXIO_API_SECRET.",
}
"""By the cause of a refusal: what mends it."""


def _fitness(content: Mapping[str, Any], has_token: bool) -> Health:
    account = content.get("data")
    balance = account.get("balance") if isinstance(account, dict) else None
    if type(balance) is not int:
        return Health(False, "What answers at PHAXIO_BASE_URL is not Phaxio's API.")
    advice = []
    if balance <= 0:
        advice.append("it has no funds left, and refuses faxes unless it is recharged by itself")
    if not has_token:
        advice.append("callbacks are refused until PHAXIO_CALLBACK_TOKEN is set: faxes are polled")
    return Health(True, "; ".join(["Phaxio knows this account", *advice]) + ".")


def _content(reply: HttpReply) -> dict[str, Any]:
    """The object in an answer; for a refusal, whose body may be anything, {} where it has none."""
    taken = 200 <= reply.status < 300
    try:
        return object_in(reply.json())
    except ProviderError:
        if taken:
            raise
        return {}


def _accepted(reply: HttpReply) -> dict[str, Any]:
    """The content of an answer that says success; raises what any other one means."""
    content = _content(reply)
    if 200 <= reply.status < 300:
        if content.get("success") is True:
            return content
        if content.get("success") is not False or content.get("data"):
            raise OutcomeUnknown("The carrier's answer is not what it should be.")
    raise _refused(reply, _message(content))


def _refused(reply: HttpReply, message: str) -> ProviderError:
    taken = 200 <= reply.status < 300
    error = refusal(reply.status, reply.headers)
    if taken:
        error = Refused("The carrier answered that it refuses this.", cause="unknown")
    if taken or reply.status in _OPEN_STATUSES:
        for words, kind, cause in REFUSALS:
            if words in message:
                wait = retry_after(reply.headers)
                error = kind("The carrier refused, and said why.", cause=cause, retry_after=wait)
                break
    if isinstance(error, Throttled):
        error.retry_after = max(error.retry_after or 0.0, SHORTEST_WAIT)
    return error


def _message(content: Mapping[str, Any]) -> str:
    """Phaxio's own words, in lower case; only to be compared, they may name a number."""
    message = content.get("message")
    return message.lower() if isinstance(message, str) else ""


def _is_unknown(reply: HttpReply) -> bool:
    """Whether Phaxio says that there is no such fax; a wrong address has no such body."""
    return reply.status == 404 and _content(reply).get("success") is False


def _is_received(said: bytes, direction: object) -> bool:
    """Whether a callback is about a received fax: by its own field, by the fax, or by both. Raises
    OutcomeUnknown where they differ."""
    told = {said.decode(errors="replace"), direction if isinstance(direction, str) else ""} - {""}
    if RECEIVED in told and len(told) > 1:
        raise OutcomeUnknown("The callback says both that a fax was sent and that it was received.")
    return RECEIVED in told


def _loaded(text: bytes) -> dict[str, Any]:
    try:
        return object_in(json.loads(text))
    except (ValueError, RecursionError):
        raise OutcomeUnknown("The callback holds no fax.") from None
