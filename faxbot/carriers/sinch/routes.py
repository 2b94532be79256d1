"""The stand-in Sinch's paths, who may use them, and a door of its own for whoever steers it."""

from __future__ import annotations

import json
import re
import threading
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from faxbot.carriers.door import Answer, Request, error
from faxbot.carriers.pages import blank_pdf
from faxbot.carriers.sinch import listing, submission, words
from faxbot.carriers.sinch.access import Access
from faxbot.carriers.sinch.carrier import Carrier
from faxbot.carriers.sinch.numbers import Error
from faxbot.carriers.sinch.submission import Invalid, Refused
from faxbot.carriers.sinch.words import refusal

LARGEST_MADE_UP = 256 * 1024 * 1024
"""Bytes of a document that is made up for a fax that comes in."""

_API = re.compile(r"/v3/projects/([^/]+)/(.+)")
_FAX = re.compile(r"faxes/([0-9A-Za-z]+)(/file(?:\.pdf)?)?")


@dataclass(slots=True)
class Misbehaviour:
    """How requests are answered that are still to come: `times` of them, of this method and this
    path below the project (`token`: for a token), or of any."""

    answer: str
    times: int = 1
    method: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class Incoming:
    """Where the service posts faxes that come in."""

    url: str
    content_type: str


class Routes:
    """From a request to its answer."""

    def __init__(
        self, carrier: Carrier, access: Access, project_id: str, incoming: Incoming
    ) -> None:
        self._carrier = carrier
        self._access = access
        self._project_id = project_id
        self._incoming = incoming
        self._planned: list[Misbehaviour] = []
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Answer:
        if request.path.startswith("/control/"):
            return self._control(request) if request.local else error(404, "no-such-path")
        if (request.method, request.path) == ("POST", "/oauth2/token"):
            planned = self._misbehaviour("POST", "token")
            answer = self._access.give_token(request)
            return refusal(planned) if planned else answer
        return self._api(request)

    # the vendor's calls

    def _api(self, request: Request) -> Answer:
        found = _API.fullmatch(request.path)
        if found is None:
            return self._not_found()
        refused = self._access.refusal(request, found[1])
        if refused:
            return refused
        if planned := self._misbehaviour(request.method, found[2]):
            return refusal(planned, self._carrier.moods["errors"])
        calls: Mapping[tuple[str, str], Callable[[Request], Answer]] = {
            ("POST", "faxes"): self._send,
            ("GET", "faxes"): lambda request: self._carrier.list_faxes(request.query),
            ("GET", "services"): self._services,
        }
        try:
            if call := calls.get((request.method, found[2])):
                return call(request)
            return self._one(request.method, found[2])
        except Invalid as invalid:
            return self._carrier.invalid(invalid)

    def _send(self, request: Request) -> Answer:
        try:
            return self._carrier.submit(submission.read(request))
        except Refused as refused:
            return self._carrier.refuse(refused)

    def _services(self, request: Request) -> Answer:
        page, size = listing.pages(request.query)
        its = self._incoming
        only = [words.service(self._project_id, its.url, its.content_type)]
        return words.page_of("services", only, page, size, self._carrier.moods["page"])

    def _one(self, method: str, path: str) -> Answer:
        """A call about one fax."""
        found = _FAX.fullmatch(path)
        if found is None:
            return self._not_found()
        calls = {
            ("GET", False): self._carrier.show,
            ("GET", True): self._carrier.document,
            ("DELETE", True): self._carrier.delete_document,
        }
        call = calls.get((method, found[2] is not None))
        return call(found[1]) if call else self._not_found()

    def _not_found(self) -> Answer:
        return refusal("not_found", self._carrier.moods["errors"])

    # the door of whoever steers it

    def _control(self, request: Request) -> Answer:
        calls: Mapping[tuple[str, str], Callable[[Request], Answer]] = {
            ("GET", "/control/health"): lambda _: Answer(200, {"ok": True}),
            ("GET", "/control/ledger"): self._ledger,
            ("POST", "/control/receive"): self._receive,
            ("POST", "/control/misbehave"): self._misbehave,
            ("POST", "/control/moods"): self._change_moods,
            ("POST", "/control/expire-tokens"): self._expire_tokens,
            ("POST", "/control/webhook"): self._webhook,
        }
        call = calls.get((request.method, request.path))
        if call is None:
            return error(404, "no-such-path")
        try:
            return call(request)
        except (ValueError, TypeError, AttributeError):
            return error(422, "wish-malformed")

    def _ledger(self, request: Request) -> Answer:
        query = request.query
        after, limit = query.get("after", "0"), query.get("limit", "1000000")
        if not (after.isdecimal() and limit.isdecimal()):
            return error(400, "bad-cursor")
        content = self._carrier.ledger(query.get("tag"), int(after[:18]), int(limit[:7]))
        return Answer(200, {**content, "tokens": self._access.counts()})

    def _receive(self, request: Request) -> Answer:
        """A fax comes in, or with an errorType fails to: JSON `from`, `to`, and if wished `pages`,
        `file` (a PDF, base64) or `bytes`, `stored`, `late`, `callbackUrl`, `contentType`, `errorType`, `errorCode`,
        `errorMessage`."""
        wish = _Wish(json.loads(request.body))
        numbers = (submission.number(wish.take("from")), submission.number(wish.take("to")))
        words_of_error = [wish.take(f"error{name}", None) for name in ("Type", "Code", "Message")]
        fault = Error(*words_of_error) if words_of_error[0] else None
        callback = (
            wish.take("callbackUrl", self._incoming.url),
            wish.take("contentType", self._incoming.content_type),
        )
        pages = int(wish.take("pages", 0 if fault else 1))
        document, size = wish.take("file", None), min(int(wish.take("bytes", 0)), LARGEST_MADE_UP)
        manner = {name: bool(wish.take(name, name == "stored")) for name in ("stored", "late")}
        wish.end()
        content = b64decode(document, validate=True) if document else blank_pdf(pages, size)
        fax_id = self._carrier.receive(numbers, pages, fault, callback, content, **manner)
        return Answer(201, {"id": fax_id})

    def _misbehave(self, request: Request) -> Answer:
        """Requests to come are answered otherwise."""
        wish = Misbehaviour(**json.loads(request.body))
        if wish.answer not in words.REFUSALS or not 0 < int(wish.times) < 10**6:
            raise ValueError("no such answer")
        with self._lock:
            self._planned.append(wish)
        return Answer(201)

    def _change_moods(self, request: Request) -> Answer:
        wish = json.loads(request.body)
        if any(each not in words.MOODS.get(name, ()) for name, each in wish.items()):
            raise ValueError("no such mood")
        self._carrier.moods.update(wish)
        return Answer(200, dict(self._carrier.moods))

    def _expire_tokens(self, _request: Request) -> Answer:
        self._access.expire_tokens()
        return Answer(200)

    def _webhook(self, request: Request) -> Answer:
        """A webhook of the fax `id` is posted, once more or for the first time; `event`, `url`,
        `contentType` and `fax` (fields it lies about) if wished."""
        wish = _Wish(json.loads(request.body))
        fax_id = wish.take("id")
        changes = {name: wish.take(name, None) for name in ("event", "url", "contentType")}
        lies = dict(wish.take("fax", {}))
        wish.end()
        known = self._carrier.teller.post_again(fax_id, **changes, lies=lies)
        return Answer(202) if known else error(404, "no-such-fax")

    def _misbehaviour(self, method: str, path: str) -> str:
        """What was planned for such a request, "" for nothing."""
        with self._lock:
            for wish in self._planned:
                if wish.method in ("", method) and wish.path in ("", path):
                    wish.times -= 1
                    if not wish.times:
                        self._planned.remove(wish)
                    return wish.answer
        return ""


class _Wish:
    """What somebody asks for at the control door; a name that nobody takes is a mistake."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self._content = dict(content)

    def take(self, name: str, *default: Any) -> Any:
        """Raises ValueError where there is neither a value nor a default."""
        if name not in self._content and not default:
            raise ValueError(name)
        return self._content.pop(name, *default)

    def end(self) -> None:
        if self._content:
            raise ValueError("unknown names")
