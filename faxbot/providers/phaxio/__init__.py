"""Sends faxes through Phaxio (API v2.1, or v2 by its address) and reads what Phaxio says of them.

What Phaxio says is read with distrust: an answer that is not what it should be is an unknown
outcome, a code that the tables below do not hold is the cause `unknown`, and only the status
`success` is a delivery. docs/providers/phaxio.md has the sources.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from faxbot.errors import (
    AccountRefused,
    OutcomeUnknown,
    ProviderError,
    Refused,
    Throttled,
)
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
from faxbot.providers.http import refusal, retry_after
from faxbot.providers.phaxio import signature

_CODES: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "documentConversionError": {
        "doc_unreadable": (4, 51, 55, 69, 128, 129, 130, 133),
        "doc_fetch_failed": (54, 57),  # 57: its own store had a fault, the document has none
    },
    "lineError": {
        "busy": (17, 35, 90, 118),
        "congestion": (15, 74, 98, 101, 102, 111, 124),
        "no_answer": (16, 30, 39, 87, 94, 112),
        "dropped_early": (11, 19, 64, 89, 93, 96, 103, 104, 106, 108, 114),
        "network_error": (36, 37, 56, 58, 59, 61, 62, 81, 83, 88, 97, 99, 100, 110),
        # 107 and 109 are called a dropped call by Phaxio and a dead number by those who send much.
        "unreachable": (43, 107, 109),
        "bearer": (32, 71, 92, 95),
        "number_dead": (34, 47, 49, 73, 91, 115, 116, 123),
        "rejected": (50, 85),
        "no_route": (52,),
    },
    "faxError": {
        "no_fax_tone": (13, 14, 26, 132),
        "handshake_failed": (6, 12, 18, 20, 22, 28, 63, 65, 66, 67, 70, 72, 82, 117),
        "dropped_early": (38, 41, 80),
        "page_failed": (8, 10, 21, 29, 53, 60, 77, 84, 131),
        "incompatible_image": (7, 25, 31, 33, 45, 68),
        "network_error": (40, 42, 44, 78),
        "no_answer": (48,),
        "session_timeout": (76,),  # cancelTimeoutMinutes: too long for that, not for its sender
        "cancelled": (75,),
        "unconfirmed": (79,),  # "already complete", so it is not said how
        "doc_unreadable": (113,),
        "funds": (46,),
        "policy": (133,),
    },
    "fatalError": {
        "trunk_down": (9, 24),  # a fault before the call
        "system": (23,),  # "in the final stages": it may have arrived
    },
    "generalError": {"system": (3,), "funds": (5, 86, 105, 125)},
}
_SIMULATED: Mapping[tuple[str, int], str] = {
    ("documentConversionError", 122): "doc_unreadable",
    ("lineError", 121): "network_error",
    ("faxError", 119): "handshake_failed",
    ("fatalError", 126): "system",
    ("generalError", 120): "system",
}
"""What a test key can ask for (`test_fail`)."""
CAUSES: Mapping[tuple[str, int], str] = MappingProxyType(
    {
        (kind, number): cause
        for kind, causes in _CODES.items()
        for cause, numbers in causes.items()
        for number in numbers
    }
    | _SIMULATED
)
"""(error_type, error_id) of a fax that failed -> canonical cause (events.CAUSES); every other one is
`unknown`. An id means nothing without its type: 133 is a document that cannot be read, or a number
that is not permitted. Sources: phaxio.com/docs/errorMessages, and for ids that this page lacks an
older public copy of the same table."""

STATES: Mapping[str, State] = MappingProxyType(
    {
        "queued": State.ACCEPTED,
        "pendingbatch": State.ACCEPTED,
        "inprogress": State.PROGRESS,
        "success": State.DELIVERED,
        "failure": State.FAILED,
        "partialsuccess": State.FAILED,
    }
)
"""Phaxio's words for where a fax stands (phaxio.com/docs/statuses); every other word says only that
Phaxio has it."""

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

TAG = "faxbot"
LISTED_AT_ONCE = 500
MOST_LISTS = 4
LISTED_BEFORE = timedelta(hours=1)
"""How much earlier than our call a fax is looked for: the clocks need not agree."""
SHORTEST_WAIT = 1.0
"""Seconds after a 429; "wait a second, and then try again" (README of the vendor's clients)."""
_NAMES = {"application/pdf": "fax.pdf", "image/tiff": "fax.tiff"}
_PREFERENCE = (State.DELIVERED, State.PROGRESS, State.ACCEPTED, State.FAILED)
_MOST_PAGES = 100_000


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
            reply = self._call("GET", "/account/status")
            content = _accepted(reply)
        except AccountRefused as error:
            if error.cause == "config":
                return Health(
                    False,
                    "There is no Phaxio API at PHAXIO_BASE_URL: it ends with its version, /v2.1 or /v2.",
                )
            return Health(
                False,
                "Phaxio does not take these credentials: check PHAXIO_API_KEY and PHAXIO_API_SECRET.",
            )
        except Throttled:
            return Health(False, "Phaxio asks to wait: test again in a moment.")
        except ProviderError as error:
            return Health(False, f"{error.detail} Check PHAXIO_BASE_URL and the way out of here.")
        return _fitness(content, bool(self._token))

    def send(self, fax: OutboundFax) -> Receipt:
        """POST faxes (phaxio.com/docs/api/v2/faxes/create_and_send_fax), to one number under our
        tag."""
        form = self._form(fax)
        if self.config.get("sendByLink") and fax.document_url is not None:
            reply = self._submit({**form, "content_url": fax.document_url.reveal()})
        else:
            with fax.document.open("rb") as document:
                name = _NAMES.get(fax.media_type, "fax")
                reply = self._submit(form, {"file": (name, document, fax.media_type)})
        content = _accepted(reply)
        return Receipt(_id_of(_dict(content.get("data"))))

    def look_up(self, tag: str, *, to: Hidden[str], since: datetime) -> Update:  # noqa: ARG002
        """GET faxes by our tag. Where it is found twice (people can resend in Phaxio's console),
        the one that went furthest counts: a second try must not be a second fax."""
        found = [_update(fax) for fax in self._listed(tag, since) if _tag_of(fax) == tag]
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
        update = _update(_dict(_accepted(reply).get("data")))
        if update.external_id != external_id:
            raise OutcomeUnknown("The carrier's answer is about another fax.")
        return update

    def cancel(self, external_id: str) -> None:
        """POST faxes/{id}/cancel, which only schedules it: the fax ends as 75, or is sent after
        all. Raises Refused when it is too late, or there is no such fax."""
        reply = self._call("POST", f"/faxes/{quote(external_id, safe='')}/cancel")
        declined = reply.status < 300 or reply.status in (*_OPEN_STATUSES, 404, 409)
        if declined and _content(reply).get("success") is False:
            raise Refused("Phaxio does not stop this fax: it has ended, or is not known there.")
        _accepted(reply)

    def delete_copy(self, external_id: str) -> None:
        """DELETE faxes/{id}/file, where the setting deleteAfterEnd asks for it."""
        if not self.config.get("deleteAfterEnd"):
            return
        reply = self._call("DELETE", f"/faxes/{quote(external_id, safe='')}/file")
        if not _is_unknown(reply) and "has been deleted" not in _message(_content(reply)):
            _accepted(reply)

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

    def read_callback(self, request: CallbackRequest) -> list[Update]:
        """News of a fax that has ended, in the shapes v1, v2 and v2.1. Events on the way, unknown
        ones, received faxes and faxes of other programs are no news."""
        try:
            fields = signature.read(request).fields
        except ValueError:
            raise OutcomeUnknown("The callback is no form.") from None
        if fields.get(b"event_type", b"fax_completed") != b"fax_completed":
            return []
        fax = _loaded(fields.get(b"fax", b""))
        if b"received" in (fields.get(b"direction"), str(fax.get("direction")).encode()):
            return []
        tag = _tag_of(fax) or _attempt_in(request.url)
        return [replace(_update(fax), tag=tag)] if tag else []

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
            faxes, total = content.get("data"), _dict(content.get("paging")).get("total")
            if not isinstance(faxes, list) or type(total) is not int:
                raise OutcomeUnknown("The carrier's answer holds no list of faxes.")
            yield from map(_dict, faxes)
            seen += len(faxes)
            if not faxes or seen >= total:
                return
        raise OutcomeUnknown("The carrier's list of faxes does not end.")

    def _submit(self, form: Mapping[str, str], files: Any = None) -> HttpReply:
        return self.context.http.request(
            "POST", f"{self._base}/faxes", data=form, files=files, auth=self._auth
        )

    def _call(self, method: str, path: str, params: Mapping[str, str] | None = None) -> HttpReply:
        return self.context.http.request(method, self._base + path, params=params, auth=self._auth)


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
        return _dict(reply.json())
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
        error = Refused("The carrier answered that it does not take the fax.", cause="unknown")
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


def _update(fax: Mapping[str, Any]) -> Update:
    """News from a fax object of any version; raises OutcomeUnknown where that cannot be told.

    The status decides: a fax that was sent may still carry the error of an earlier call.
    """
    if fax.get("direction") == "received":
        raise OutcomeUnknown("The carrier's answer is about a received fax.")
    external_id, word = _id_of(fax), fax.get("status")
    state = STATES.get(word, State.ACCEPTED) if isinstance(word, str) else State.ACCEPTED
    pages = fax.get("num_pages")
    counted = type(pages) is int and 0 < pages <= _MOST_PAGES
    return Update(
        state,
        external_id=external_id,
        tag=_tag_of(fax),
        cause=_cause(fax) if state is State.FAILED else None,
        # How many pages the fax has; how many of them went is said of a sent one alone.
        pages_sent=pages if counted and state is State.DELIVERED else None,
        occurred_at=_moment(fax.get("completed_at")),
        # The same news has the same name, whether it was called back (twice) or asked for.
        key=f"{external_id}:{state}",
    )


def _cause(fax: Mapping[str, Any]) -> str:
    """Why a fax failed, by the error of the fax, else by that of its one recipient."""
    if fax.get("status") == "partialsuccess":
        return "unconfirmed"  # somebody has it, and it was for one
    recipients = fax.get("recipients")
    first = recipients[0] if isinstance(recipients, list) and recipients else None
    for told in (fax, first if isinstance(first, dict) else {}):
        kind, number = told.get("error_type"), told.get("error_id")
        if isinstance(kind, str) and type(number) is int:
            return CAUSES.get((kind, number), "unknown")
    return "unknown"


def _id_of(fax: Mapping[str, Any]) -> str:
    number = fax.get("id")
    if type(number) is not int or not 0 < number < 10**18:
        raise OutcomeUnknown("The carrier's answer holds no id.")
    return str(number)


def _tag_of(fax: Mapping[str, Any]) -> str | None:
    """Our tag; a fax without any may have {}, [] or null."""
    tags = fax.get("tags")
    tag = tags.get(TAG) if isinstance(tags, dict) else None
    return tag if isinstance(tag, str) and tag else None


def _attempt_in(url: str) -> str | None:
    """The tag in the address that was submitted for this fax; it is signed with the rest."""
    try:
        return parse_qs(urlsplit(url).query).get("attempt", [None])[-1]
    except ValueError:
        return None


def _loaded(text: bytes) -> dict[str, Any]:
    try:
        return _dict(json.loads(text))
    except (ValueError, RecursionError):
        raise OutcomeUnknown("The callback holds no fax.") from None


def _dict(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise OutcomeUnknown("The carrier's answer is not what it should be.")
    return value


def _moment(value: object) -> datetime | None:
    """RFC 3339, or seconds since 1970 as version 1 has them."""
    try:
        if type(value) is int:
            return datetime.fromtimestamp(value, UTC)
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except (ValueError, OverflowError, OSError):
        return None
    return moment if moment is not None and moment.tzinfo is not None else None
