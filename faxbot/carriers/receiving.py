"""Faxes that come in to the simulated carrier: what the number that calls brings about, how its
client is told, and the document that it may fetch.

Nobody calls: somebody asks for it at the control door (docs/simulator.md).
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from faxbot.carriers.door import Answer, error
from faxbot.carriers.ledger import RECEIVED, Fax, Ledger, moment
from faxbot.carriers.live import LiveFaxes
from faxbot.carriers.pages import TIFF, Unreadable, blank_pdf, inspect, inspect_pdf
from faxbot.carriers.timeline import Post, Poster, Timeline

Sign = Callable[[bytes, str], Mapping[str, str]]
"""The headers of a callback by its body and its Content-Type, at the moment of a try."""

MOST_BYTES = 256 * 1024 * 1024
_REORDER_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Arrival:
    """What a caller's last digits bring about.

    `code`: the carrier's word for why the fax failed on its way. `attached`: for each callback
    whether the document is in it. `callbacks`: `once`, `late` or `reordered`. `document`: `there`,
    or for late_seconds `not-ready` or `fault`, or `gone` for good.
    """

    meaning: str
    code: str | None = None
    attached: tuple[bool, ...] = (True,)
    callbacks: str = "once"
    document: str = "there"


_FETCHED = (False,)
ARRIVALS: Mapping[str, Arrival] = {
    "0000": Arrival("the document comes in the callback, like for every number not in this table"),
    "0011": Arrival("the callback comes without the document: it is to be fetched", None, _FETCHED),
    "0022": Arrival("every callback comes twice, with the document", None, (True, True)),
    "0023": Arrival("two callbacks, with the document and then without", None, (True, False)),
    "0032": Arrival("two callbacks, without the document and then with it", None, (False, True)),
    "0033": Arrival("the callback comes late", callbacks="late"),
    "0066": Arrival("the last callback comes first", callbacks="reordered"),
    "0425": Arrival(
        "to be fetched, and for a while not there yet", None, _FETCHED, document="not-ready"
    ),
    "0500": Arrival(
        "to be fetched, and for a while answered with 500", None, _FETCHED, document="fault"
    ),
    "0410": Arrival("to be fetched, and gone for good", None, _FETCHED, document="gone"),
    "0031": Arrival("the call drops before the first page: no fax", "call-dropped"),
    "0409": Arrival("fails at page 2: no fax", "page-not-confirmed"),
    "0999": Arrival("fails with a code that no list has: no fax", "gremlins"),
}


@dataclass(frozen=True, slots=True)
class Wish:
    """A fax that is to come in: from one number ("" where it is withheld) to another, told to
    `callback_url`."""

    sender: str
    recipient: str
    callback_url: str
    media_type: str
    pages: int
    content: bytes


def wish(content: Mapping[str, Any]) -> Wish:
    """What somebody asks for at the control door, JSON: `to`, `callback_url`, and if wished `from`,
    `pages`, `file` (base64) or `bytes` (a made-up PDF of at least that size). A file whose pages are
    named is taken whatever it is. Raises ValueError, TypeError, KeyError."""
    known = {"from", "to", "callback_url", "pages", "file", "bytes"}
    if content.keys() - known or {"file", "bytes"} <= content.keys():
        raise ValueError("unknown names, or a file and its size")
    pages, size = int(content.get("pages", 0)), int(content.get("bytes", 0))
    if not (0 <= pages <= 1000 and 0 <= size <= MOST_BYTES):
        raise ValueError("more than can be")
    made_up = "file" not in content
    document = blank_pdf(pages or 1, size) if made_up else b64decode(content["file"], validate=True)
    try:
        found = inspect_pdf(document) if document.startswith(b"%PDF-") else inspect(document)
        media_type, pages = found.media_type, pages or found.pages
    except Unreadable:
        if not pages:
            raise
        media_type = TIFF
    sender, recipient = str(content.get("from", "")), str(content["to"])
    return Wish(sender, recipient, str(content["callback_url"]), media_type, pages, document)


class Receiving:
    """Takes what comes in, tells its client, and gives the document."""

    def __init__(
        self,
        ledger: Ledger,
        live: LiveFaxes,
        timeline: Timeline,
        poster: Poster,
        sign: Sign,
        late_seconds: float,
    ) -> None:
        self._ledger = ledger
        self._live = live
        self._timeline = timeline
        self._poster = poster
        self._sign = sign
        self._late_seconds = late_seconds

    def receive(self, wished: Wish, to_key: str) -> Answer:
        """Have this fax come in."""
        its = arrival(wished.sender[-4:])
        now = time.time()
        fax = Fax(
            id=f"rf_{secrets.token_hex(12)}",
            tag="",
            to_key=to_key,
            last_digits=wished.sender[-4:],
            media_type=wished.media_type,
            pages=0 if its.code else wished.pages,
            size=len(wished.content),
            sha256=hashlib.sha256(wished.content).hexdigest(),
            callback_url=wished.callback_url,
            header_key="",
            received_at=now,
            status="failed" if its.code else "received",
            code=its.code,
            ended_at=now,
            direction=RECEIVED,
            details={"from": wished.sender, "to": wished.recipient},
        )
        kept = [] if its.code or its.document == "gone" else [(wished.media_type, wished.content)]
        self._ledger.accept(fax, kept)
        self._live.add(fax)
        return Answer(201, {"id": fax.id, "sha256": fax.sha256}, then=lambda: self.tell(fax))

    def tell(self, fax: Fax) -> None:
        """Call back that it came, or did not, in the manner of its number."""
        its = arrival(fax.last_digits)
        if its.callbacks == "late":
            self._timeline.after(self._late_seconds, lambda: self._tell_end(fax, its))
            return
        self._tell_end(fax, its)
        if its.callbacks == "reordered":
            before = {**view(fax), "status": "receiving", "pages": 0, "ended_at": None}
            self._timeline.after(
                _REORDER_SECONDS, lambda: self._post(fax, "fax.receiving", before, None)
            )

    def document(self, fax: Fax) -> Answer:
        """The document; its first bytes say what it is."""
        its = arrival(fax.last_digits)
        documents = self._ledger.documents(fax.id)
        if not documents:
            return error(410, "document-gone")
        if time.time() - fax.received_at < self._late_seconds and its.document != "there":
            late = its.document == "not-ready"
            return error(409, "document-not-ready") if late else error(500, "internal")
        return Answer(200, documents[0][1], {"Content-Type": "application/octet-stream"})

    def _tell_end(self, fax: Fax, its: Arrival) -> None:
        documents = self._ledger.documents(fax.id)
        for attached in its.attached:
            document = documents[0] if attached and documents else None
            self._post(fax, f"fax.{fax.status}", view(fax), document)

    def _post(
        self, fax: Fax, event: str, said: Mapping[str, Any], document: tuple[str, bytes] | None
    ) -> None:
        event_id = f"{fax.id}-{said['status']}"
        news = json.dumps({"event_id": event_id, "event": event, "fax": said}).encode()
        kind, body = "application/json", news
        if document is not None:
            boundary = f"simulator-{secrets.token_hex(12)}"
            kind, body = (
                f"multipart/form-data; boundary={boundary}",
                _form(boundary, news, *document),
            )

        def done(_taken: bool) -> None:
            self._live.told(fax)

        self._poster.put(Post(fax.callback_url, body, lambda body: self._sign(body, kind), done))


def arrival(last_digits: str) -> Arrival:
    """What a caller with these last digits brings about."""
    return ARRIVALS.get(last_digits, ARRIVALS["0000"])


def view(fax: Fax) -> dict[str, Any]:
    """What the carrier tells its client of a fax that came in."""
    return {
        "id": fax.id,
        "direction": fax.direction,
        "from": fax.details["from"],
        "to": fax.details["to"],
        "status": fax.status,
        "code": fax.code,
        "pages": fax.pages,
        "received_at": moment(fax.received_at),
        "ended_at": moment(fax.ended_at),
    }


def _form(boundary: str, news: bytes, media_type: str, content: bytes) -> bytes:
    """The news and the document as the two parts of a form."""
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="'
    return b"".join(
        (
            f'{head}event"\r\nContent-Type: application/json\r\n\r\n'.encode(),
            news,
            f'\r\n{head}file"; filename="fax"\r\nContent-Type: {media_type}\r\n\r\n'.encode(),
            content,
            f"\r\n--{boundary}--\r\n".encode(),
        )
    )
