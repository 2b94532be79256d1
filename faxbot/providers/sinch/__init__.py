"""Sends and receives faxes through the Sinch Fax API v3.

Sinch has no idempotency key, signs no webhook and redials by itself: so each attempt carries a
label and is looked up by it, what a webhook reports is asked for before it counts, and
redials are ours (docs/providers/sinch.md). Facts are from Sinch's OpenAPI file and SDKs, as vendor files in
tests/providers/vendor/sinch/.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote, urlsplit

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
from faxbot.providers.facts import attempt_in, id_in, moment, object_in
from faxbot.providers.http import PDF, refusal
from faxbot.providers.sinch import answers, webhooks

PAGE_SIZE, MOST_PAGES = 100, 20
KEPT_BACK = 4
"""The last digits of a number that no address has: addresses are written down on their way."""
CLOCKS_APART = timedelta(hours=1)
"""By so much a fax may seem to be older at Sinch than we know it to be; a longer list does no
harm."""
SHOWN_WITHIN = timedelta(hours=1)
"""So long after a fax came in, Sinch's record or copy of it may still be on its way to where it is
asked for; how long that takes is not documented."""
GIVEN_UP = timedelta(days=14)
"""So long after a fax came in, a Sinch that refuses the account is not waited for any more where the document lies
here: an account that is closed is asked in vain for ever."""
TOKEN_MARGIN, UNSAID_SECONDS, LONGEST_SECONDS = 60.0, 300.0, 86_400.0
"""Seconds: a token is renewed so long before its end; for so long it is good where Sinch does not
say; and at most for a day."""
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{1,8000}")

_KEYS = "SINCH_API_KEY and SINCH_API_SECRET (where they are unset, PHAXIO_API_KEY and _SECRET)"
_ADDRESSES = "Check SINCH_BASE_URL and SINCH_AUTH_BASE_URL."
_NO_TOKEN = f"Sinch gives no token for this key: check {_KEYS}."
_ADVICE: Mapping[int, str] = {
    401: f"Sinch refuses key, secret or project: check {_KEYS} and SINCH_PROJECT_ID.",
    402: "The Sinch account has no funds left: pay, and faxes go on.",
    403: "Sinch knows the key, but it may not use the Fax product: check the key's project.",
    404: "Nothing of the Fax API is at SINCH_BASE_URL, or SINCH_PROJECT_ID is no project: "
    "the address ends in /v3.",
    429: "Sinch takes no more calls at the moment. SINCH_AUTH_METHOD=oauth2 is limited less.",
}

R = TypeVar("R", HttpReply, HttpReply | None)


class SinchProvider(TransportPlugin):
    """See docs/providers/sinch.md."""

    def initialize(self, config: Mapping[str, Any], context: Context) -> None:
        super().initialize(config, context)
        base = str(config["baseUrl"]).rstrip("/")
        self._project = f"{base}/projects/{quote(str(config['projectId']), safe='')}"
        self._token_url = f"{str(config['authBaseUrl']).rstrip('/')}/oauth2/token"
        self._key = (str(config["apiKey"]), str(config["apiSecret"]))
        self._uses_tokens = config["authMethod"] == "oauth2"
        # Another server, key or secret, another token.
        named = "\n".join((self._token_url, *self._key)).encode()
        self._token_name = f"token-{hashlib.sha256(named).hexdigest()[:16]}"
        self._proofs = tuple(_proofs(config))

    def health(self) -> Health:
        """Asks for one service of the project: that proves key, secret and project, and costs
        nothing. A token that is kept would prove nothing of the secret, so a new one is asked
        for."""
        try:
            if self._uses_tokens:
                self._new_token()
            reply = self._call("GET", "/services", params={"pageSize": "1"})
        except AccountRefused as error:
            wrong = error.cause == "config"
            return Health(False, f"{error.detail} {_ADDRESSES}" if wrong else _NO_TOKEN)
        except Throttled:
            return Health(False, _ADVICE[429])
        except ProviderError as error:
            return Health(False, f"{error.detail} {_ADDRESSES}")
        if reply.status != 200:
            usual = f"Sinch answered with HTTP status {reply.status}."
            return Health(False, _ADVICE.get(reply.status, usual))
        try:
            listed = isinstance(object_in(reply.json()).get("services"), list)
        except ProviderError:
            listed = False
        if not listed:
            return Health(False, "What answers at SINCH_BASE_URL is not Sinch's Fax API.")
        return Health(True, "Sinch takes key, secret and project.")

    def send(self, fax: OutboundFax) -> Receipt:
        """One upload. `callbackUrlContentType` is multipart: no setting keeps the document out of
        the callback, and there it is not a third larger, as it would be in JSON."""
        form = {
            "to": fax.to.reveal(),
            f"labels[{answers.LABEL}]": fax.tag,
            "callbackUrl": self._with_credentials(fax.callback_url),
            "callbackUrlContentType": "multipart/form-data",
            "maxRetries": str(self.config["maxRetries"]),
            # One webhook for each page would tell nothing that must be known.
            "inProgressNotifications": "false",
            # The pages are black and white already, at 200 dpi across.
            "imageConversionMethod": "MONOCHROME",
            "resolution": "FINE",
            **({"headerText": fax.header.reveal()} if fax.header.reveal() else {}),
            **({"serviceId": self.config["serviceId"]} if self.config.get("serviceId") else {}),
        }
        reply = self._call("POST", "/faxes", form=form, fax=fax)
        return Receipt(id_in(answers.created(reply, fax.tag)))

    def look_up(self, tag: str, *, to: Hidden[str], since: datetime) -> Update:
        """Lists what was sent to numbers that begin so since then, and compares labels here: how
        they are asked for is not documented. `to` finds by prefix, and is taken in the address
        only. (Sinch Fax OpenAPI, getFaxes)"""
        params = {
            "direction": "OUTBOUND",
            "to": to.reveal()[:-KEPT_BACK],
            # With the "=" that follows it in the address: `createTime>=...`, as documented.
            "createTime>": f"{(since - CLOCKS_APART).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "pageSize": str(PAGE_SIZE),
        }
        for _ in range(MOST_PAGES):
            page = object_in(answers.accepted(self._call("GET", "/faxes", params=params)))
            faxes = page.get("faxes")
            if not isinstance(faxes, list):
                raise OutcomeUnknown("The carrier's answer holds no list of faxes.")
            for fax in faxes:
                if answers.label(object_in(fax)) == tag:
                    return answers.update(fax)
            number = answers.next_page(page)
            if number is None:
                return Update(State.ABSENT, tag=tag)
            params["page"] = str(number)
        raise OutcomeUnknown("The carrier's list of faxes to such numbers does not end.")

    def fetch(self, external_id: str) -> Update:
        """GET /faxes/{id}; a 404 counts as absence only in Sinch's own words."""
        record = self._record(external_id)
        return answers.update(record) if record else Update(State.ABSENT, external_id=external_id)

    def _record(self, external_id: str) -> dict[str, Any] | None:
        """What Sinch has of a fax; None where it says that it has none."""
        reply = self._call("GET", f"/faxes/{quote(external_id, safe='')}")
        if reply.status == 404 and answers.NOT_FOUND.search(reply.body):
            return None
        record = object_in(answers.accepted(reply))
        if id_in(record) != external_id:
            raise OutcomeUnknown("The carrier's answer is about another fax.")
        return record

    def document(self, external_id: str, target: BinaryIO) -> None:
        """GET /faxes/{id}/file, without `.pdf` at its end, which is deprecated. Raises Unreachable
        for a fax that was received so lately that its document may still come."""
        url = f"{self._project}/faxes/{quote(external_id, safe='')}/file"

        def request(**proof: Any) -> HttpReply | None:
            return self.context.http.download(url, target, media_type=PDF, **proof)

        reply = self._with_token(request) if self._uses_tokens else request(auth=self._key)
        if reply is None:
            return
        if reply.status == 404 and answers.NOT_FOUND.search(reply.body):
            self._wait_for_it(self._record(external_id) or {})
            raise Refused("Sinch has no document of this fax.", cause="doc_fetch_failed")
        answers.accepted(reply)
        raise OutcomeUnknown("The carrier's answer is no PDF.")

    def attached(self, request: CallbackRequest, target: BinaryIO) -> None:
        """Sinch's own copy, because nothing proves what a webhook holds; and what came with the webhook
        where Sinch says that it has none, of a fax that it knows, or where it has refused to be asked for GIVEN_UP: it
        confirmed the fax when that was noted."""
        event = webhooks.read(request)
        try:
            if self._own_copy(id_in(event.fax), target):
                return
        except (AccountRefused, DestinationBarred):  # 403, too
            at = _told_at(event.fax, event.at)
            if at is None or self.context.now() - at < GIVEN_UP:
                raise
        if not webhooks.save(request, target):
            raise Refused("This webhook holds no whole document.", cause="doc_fetch_failed")

    def _own_copy(self, external_id: str, target: BinaryIO) -> bool:
        """Write Sinch's own copy into `target`; False where it says that it has none. Raises Refused for a fax that it
        does not know."""
        record = self._record(external_id)
        if record is None:
            raise Refused("Sinch does not know this fax.", cause="doc_fetch_failed")
        if answers.keeps_none(record):
            return False
        try:
            self.document(external_id, target)
        except Refused:
            return False
        return True

    def delete_copy(self, external_id: str) -> None:
        """DELETE /faxes/{id}/file; the record of the fax stays for 13 months. Raises Unreachable for a
        fax that was received so lately that its document may still come."""
        reply = self._call("DELETE", f"/faxes/{quote(external_id, safe='')}/file")
        if reply.status == 404 and answers.NOT_FOUND.search(reply.body):
            record = self._record(external_id) or {}
            if not answers.keeps_none(record):
                self._wait_for_it(record)
        elif not 200 <= reply.status < 300:
            raise answers.refused(reply)

    def _wait_for_it(self, record: Mapping[str, Any]) -> None:
        """Of a fax that has no document in Sinch: raises Unreachable where it may still come."""
        if record.get("direction") == answers.INBOUND and self._is_new(record, None):
            raise Unreachable("Sinch does not have the document of this fax yet.")

    def verify_callback(self, request: CallbackRequest) -> bool:
        """Whether it has the Basic credentials of our callback addresses: Sinch signs nothing
        (Sinch Fax OpenAPI, WebhookBasicAuth)."""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        found = [hmac.compare_digest(proof, given.strip().encode()) for proof in self._proofs]
        return scheme.lower() == "basic" and any(found)

    def read_callback(self, request: CallbackRequest) -> list[Update | Arrival]:
        """What Sinch says of the fax when it is asked, because nothing proves what a webhook says.
        FAX_COMPLETED reports failures too, and in Sinch's own example a fax that came in: so the
        record tells what it is. With our label we sent it; without one it is none of ours, or came.

        Raises OutcomeUnknown where it cannot be read, Unreachable where Sinch does not confirm it
        yet (cause `unconfirmed` where it was asked and says so), AccountRefused where it lets us ask nothing.
        """
        event = webhooks.read(request)
        named = event.name in (webhooks.INCOMING, webhooks.COMPLETED)
        if not named and answers.state_of(event.fax) not in answers.END:
            return []
        external_id = id_in(event.fax)
        record = self._confirmed(external_id)
        if record is None:
            # With a document in it, it is kept for whoever may find out why, when asking has led to nothing.
            if event.name == webhooks.INCOMING and (
                event.documents or self._is_new(event.fax, event.at)
            ):
                raise Unreachable(
                    "The carrier does not know the fax that came in.", cause="unconfirmed"
                )
            return []
        tag = answers.label(record)
        usual = answers.INBOUND if event.name == webhooks.INCOMING else None
        came = tag is None and record.get("direction", usual) == answers.INBOUND
        if not came and (tag is None or attempt_in(request.url) not in (None, tag)):
            return []
        if answers.state_of(record) not in answers.END:
            raise Unreachable(
                "The carrier's own record does not show the end of the fax yet.",
                cause="unconfirmed",
            )
        if came:
            return [answers.arrival(record, documents=event.documents)]
        return [answers.update(record)]

    def _confirmed(self, external_id: str) -> dict[str, Any] | None:
        """The record, as _record(); raises AccountRefused, and Unreachable for all else."""
        try:
            return self._record(external_id)
        except AccountRefused:
            raise
        except ProviderError as error:
            raise Unreachable(f"The callback is not confirmed. {error.detail}") from None

    def _is_new(self, fax: Mapping[str, Any], told_at: datetime | None) -> bool:
        """Whether a fax came in, as far as is said, within SHOWN_WITHIN."""
        at = _told_at(fax, told_at)
        return at is not None and abs(self.context.now() - at) < SHOWN_WITHIN

    def _with_credentials(self, address: str) -> str:
        user, password = (
            quote(str(self.config[name]), safe="") for name in ("webhookUser", "webhookPassword")
        )
        parts = urlsplit(address)
        return parts._replace(netloc=f"{user}:{password}@{parts.netloc}").geturl()

    def _call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
        fax: OutboundFax | None = None,
    ) -> HttpReply:
        """One call as the project's key; with an expired token once more, since Sinch did nothing
        with the first."""

        def request(**proof: Any) -> HttpReply:
            with ExitStack() as opened:
                files = None
                if fax is not None:
                    stream = opened.enter_context(fax.document.open("rb"))
                    files = {"file": (_FILE_NAMES[fax.media_type], stream, fax.media_type)}
                return self.context.http.request(
                    method, self._project + path, params=params, data=form, files=files, **proof
                )

        return self._with_token(request) if self._uses_tokens else request(auth=self._key)

    def _with_token(self, request: Callable[..., R]) -> R:
        token = self._token()
        reply = request(headers={"Authorization": f"Bearer {token}"})
        if _is_expired(reply):
            reply = request(headers={"Authorization": f"Bearer {self._token(stale=token)}"})
        return reply

    def _token(self, *, stale: str | None = None) -> str:
        return self.context.cache.get(self._token_name, self._new_token, stale=stale)

    def _new_token(self) -> tuple[str, float]:
        """A token and the seconds for which it may be used. Whatever goes wrong here, no fax was
        posted: raises NotSent's kin only, also for a 429, which comes without Retry-After."""
        try:
            reply = self.context.http.request(
                "POST", self._token_url, data={"grant_type": "client_credentials"}, auth=self._key
            )
            if reply.status == 200:
                return _token_in(object_in(reply.json()))
            error = refusal(reply.status, reply.headers)
        except OutcomeUnknown as unknown:
            error = unknown
        if isinstance(error, OutcomeUnknown):
            raise Unreachable(f"No token could be had. {error.detail}")
        if isinstance(error, Throttled):
            raise error
        cause = error.cause if isinstance(error, AccountRefused) else "trunk_denied"
        raise AccountRefused(f"No token could be had. {error.detail}", cause=cause)


_FILE_NAMES = {"application/pdf": "fax.pdf", "image/tiff": "fax.tif"}


def _told_at(fax: Mapping[str, Any], told_at: datetime | None) -> datetime | None:
    """When a fax came in, as far as is said."""
    return told_at or moment(fax.get("completedTime")) or moment(fax.get("createTime"))


def _proofs(config: Mapping[str, Any]) -> Iterable[bytes]:
    """The Basic credentials that callbacks may have."""
    for kind in ("webhook", "inbound"):
        user, password = config.get(f"{kind}User"), config.get(f"{kind}Password")
        if user and password:
            yield base64.b64encode(f"{user}:{password}".encode())


def _is_expired(reply: HttpReply | None) -> bool:
    """Whether a token was good once, and is no more."""
    if reply is None or reply.status != 401:
        return False
    return "expired" in reply.headers.get("WWW-Authenticate", "").lower()


def _token_in(answer: Mapping[str, Any]) -> tuple[str, float]:
    token, seconds = answer.get("access_token"), answer.get("expires_in")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise OutcomeUnknown("The token server's answer holds no token.")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        seconds = UNSAID_SECONDS
    return token, max(0.0, min(seconds, LONGEST_SECONDS) - TOKEN_MARGIN)
