"""A stand-in carrier: takes faxes over HTTP, keeps them in a ledger of its own, and calls back as
carriers do.

It places no call. The last four digits of a number choose what happens (OUTCOMES, and of a number
that calls receiving.ARRIVALS; docs/simulator.md holds the same tables), among it what goes wrong
between a carrier and its client: lost replies, late, repeated and missing callbacks. After a
restart, also after a kill -9, every open fax goes on where it stood.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from faxbot.carriers import door
from faxbot.carriers.door import Answer, Request, error, read_form
from faxbot.carriers.ledger import RECEIVED, Fax, Ledger, Refusal
from faxbot.carriers.live import LiveFaxes
from faxbot.carriers.pages import PDF, Unreadable, blank_pdf, inspect
from faxbot.carriers.receiving import Receiving, Wish, view, wish
from faxbot.carriers.timeline import Post, Poster, Timeline
from faxbot.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a number's last digits bring about.

    `refused`: the HTTP status of a submission that is not taken. `code`: the carrier's word for a
    refusal or a failure. `pages`: confirmed before it fails. `missing`: not confirmed, though it is
    called delivered. `reply`: how an accepted submission is answered (`id`, `500`, `none`, `hang`).
    `callbacks`: `once`, `twice`, `late`, `reordered` or `none`. `listed_late`: a look-up does not
    find it at first. `ignored`: the submission is neither taken nor answered.
    """

    meaning: str
    code: str | None = None
    refused: int | None = None
    pages: int = 0
    missing: int = 0
    reply: str = "id"
    callbacks: str = "once"
    listed_late: bool = False
    ignored: bool = False


OUTCOMES: Mapping[str, Outcome] = {
    "0000": Outcome("delivered, like every number that is not in this table"),
    # the line
    "0003": Outcome("no route to the destination", "no-route"),
    "0013": Outcome("somebody answers, no fax tone", "no-fax-tone"),
    "0017": Outcome("the line is busy", "line-busy"),
    "0018": Outcome("nobody answers", "no-answer"),
    "0020": Outcome("the destination cannot be reached", "destination-unreachable"),
    "0021": Outcome("the call is refused", "call-refused"),
    "0027": Outcome("the carrier's own line is down", "trunk-down"),
    "0031": Outcome("the call drops before the first page", "call-dropped"),
    "0034": Outcome("no free circuit", "no-circuit"),
    "0038": Outcome("the network fails during the call", "network-failure"),
    "0048": Outcome("called delivered, and a page less is confirmed", missing=1),
    "0054": Outcome("the document cannot be fetched", "document-not-fetched"),
    "0058": Outcome("the line cannot carry a fax", "bearer-not-available"),
    "0088": Outcome("the machines find no common speed", "training-failed"),
    "0075": Outcome("the carrier cancels it, though nobody asked", "cancelled"),
    "0076": Outcome("the carrier's own deadline for the call passes", "expired"),
    "0102": Outcome("the call takes too long", "session-timeout"),
    "0323": Outcome("the document has no pages for the carrier", "document-empty"),
    "0326": Outcome("the carrier's service is set up wrongly", "service-misconfigured"),
    "0404": Outcome("the number is not in service", "number-not-in-service"),
    "0407": Outcome("the receiving machine demands a password", "receiver-refused"),
    "0409": Outcome("fails at page 2: one page is confirmed", "page-not-confirmed", pages=1),
    "0415": Outcome("the receiving machine cannot take the page format", "image-incompatible"),
    "0438": Outcome("switching to T.38 fails", "t38-failed"),
    "0998": Outcome("an internal fault of the carrier", "carrier-fault"),
    "0999": Outcome("fails with a code that no list has", "gremlins"),
    # the submission
    "0400": Outcome("400, the number is refused; nothing accepted", "number-refused", 400),
    "0401": Outcome("401, the account is refused; nothing accepted", "account-suspended", 401),
    "0402": Outcome("402, no funds; nothing accepted", "no-funds", 402),
    "0403": Outcome("403, nobody says why; nothing accepted", "forbidden", 403),
    "0413": Outcome("413, the document is too large; nothing accepted", "document-too-large", 413),
    "0422": Outcome("422, the document is refused; nothing accepted", "document-refused", 422),
    "0429": Outcome(
        "429 with Retry-After 2; taken once 2 seconds have passed since the first try",
        "throttled",
        429,
    ),
    "0430": Outcome(
        "429 without Retry-After; taken once 2 seconds have passed since the first try",
        "throttled",
        429,
    ),
    "0433": Outcome("403, the destination is barred; nothing accepted", "destination-barred", 403),
    "0500": Outcome("500 without accepting", "internal", 500),
    "0501": Outcome("500 after accepting; then delivered", reply="500"),
    "0503": Outcome("503 without accepting", "unavailable", 503),
    "0504": Outcome(
        "accepted, the reply is lost: the connection drops; then delivered", reply="none"
    ),
    "0505": Outcome(
        "accepted, the reply is lost, and a look-up finds it late; then delivered",
        reply="none",
        listed_late=True,
    ),
    "0508": Outcome("no answer at all, nothing accepted", ignored=True),
    "0509": Outcome("accepted, and no answer comes; then delivered", reply="hang"),
    "0510": Outcome(
        "accepted, and neither answer nor callback comes; delivered", reply="hang", callbacks="none"
    ),
    # the callbacks
    "0022": Outcome("delivered, every callback comes twice", callbacks="twice"),
    "0033": Outcome("delivered, the last callback comes late", callbacks="late"),
    "0044": Outcome("delivered, no callback ever: it must be asked for", callbacks="none"),
    "0066": Outcome("delivered, the last callback comes first", callbacks="reordered"),
}

THROTTLED_WITH_TIME = "0429"
THROTTLE_SECONDS = 2
HANG_SECONDS = 300.0
"""Longer than any client waits."""
REPOST_SECONDS = tuple(min(30.0, 0.5 * 2**number) for number in range(11))
"""The waits before a callback that was not taken is posted again."""

_NUMBER = re.compile(r"\+[1-9][0-9]{6,14}")
_ADDRESS = re.compile(r"https?://[^\s/?#]+\S*")
_TAG = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_HEADER = re.compile(r"[\x20-\x7e]{0,50}")
"""What fits into the line at the top of a page."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A submission as it came."""

    to: str
    tag: str
    callback_url: str
    header: str
    document: bytes


class Carrier:
    """The carrier itself, without its HTTP: takes, sends, tells."""

    def __init__(
        self, ledger: Ledger, secret: str, *, page_seconds: float, late_seconds: float
    ) -> None:
        self._ledger = ledger
        self._secret = secret.encode()
        self._page_seconds = page_seconds
        self._late_seconds = late_seconds
        self._timeline = Timeline()
        self._poster = Poster(self._timeline, REPOST_SECONDS)
        self._live = LiveFaxes(ledger, self._timeline)
        self._receiving = Receiving(
            ledger, self._live, self._timeline, self._poster, self._sign, late_seconds
        )
        self._lock = self._live.lock

    def resume(self) -> None:
        """Go on with every fax that is not done."""
        for fax in self._ledger.open():
            self._begin(fax)

    def close(self) -> None:
        """Stop, and write down where everything stands."""
        self._timeline.stop()
        self._live.save()
        self._ledger.close()

    def knows(self, secret: str) -> bool:
        return hmac.compare_digest(secret.encode(), self._secret)

    def submit(self, submission: Submission) -> Answer:
        """Take a fax or refuse it, as its number says."""
        if not _NUMBER.fullmatch(submission.to):
            return self._refuse(submission, 422, "number-malformed")
        if not _TAG.fullmatch(submission.tag):
            return self._refuse(submission, 422, "tag-malformed")
        if submission.callback_url and not _ADDRESS.fullmatch(submission.callback_url):
            return self._refuse(submission, 422, "callback-url-malformed")
        if not _HEADER.fullmatch(submission.header):
            return self._refuse(submission, 422, "header-malformed")
        outcome = _outcome(submission.to[-4:])
        if outcome.ignored:
            return Answer(0, hold=HANG_SECONDS)
        if outcome.refused and not self._throttle_is_over(submission, outcome):
            told = submission.to[-4:] == THROTTLED_WITH_TIME
            return self._refuse(submission, outcome.refused, outcome.code or "refused", told=told)
        try:
            document = inspect(submission.document)
        except Unreadable:
            return self._refuse(submission, 422, "document-unreadable")
        fax = Fax(
            id=f"sf_{secrets.token_hex(12)}",
            tag=submission.tag,
            to_key=self._key(submission.to),
            last_digits=submission.to[-4:],
            media_type=document.media_type,
            pages=document.pages,
            size=len(submission.document),
            sha256=hashlib.sha256(submission.document).hexdigest(),
            callback_url=submission.callback_url,
            header_key=self._key(submission.header) if submission.header else "",
            received_at=time.time(),
        )
        self._ledger.accept(fax)
        # In hand before it is answered: its client may ask for something at once.
        self._live.add(fax)
        return self._answer(fax, outcome)

    def fetch(self, fax_id: str) -> Answer:
        fax = self._live.find(fax_id)
        if fax is None:
            return error(404, "no-such-fax")
        return Answer(200, {"fax": view(fax) if fax.direction == RECEIVED else fax.view()})

    def document(self, fax_id: str) -> Answer:
        """The document of a fax that came in; of one that was sent, which is not kept, as many
        blank pages."""
        fax = self._live.find(fax_id)
        if fax is None:
            return error(404, "no-such-fax")
        if fax.direction == RECEIVED:
            return self._receiving.document(fax)
        return Answer(200, blank_pdf(fax.pages), {"Content-Type": PDF})

    def forget(self, fax_id: str) -> Answer:
        """Keep no document of this fax any more."""
        if self._live.find(fax_id) is not None:
            self._ledger.keep_documents(fax_id, [])
        return self.fetch(fax_id)

    def receive(self, wished: Wish) -> Answer:
        """Have a fax come in."""
        numbers = [number for number in (wished.sender, wished.recipient) if number]
        if not wished.recipient or not all(map(_NUMBER.fullmatch, numbers)):
            return error(422, "number-malformed")
        if not _ADDRESS.fullmatch(wished.callback_url):
            return error(422, "callback-url-malformed")
        return self._receiving.receive(wished, self._key(wished.recipient))

    def look_up(self, tag: str) -> Answer:
        with self._lock:
            known = [self._live.current(fax) for fax in self._ledger.tagged(tag)]
            faxes = [fax for fax in known if self._is_listed(fax)]
            return Answer(200, {"faxes": [fax.view() for fax in faxes]})

    def _is_listed(self, fax: Fax) -> bool:
        late = _outcome(fax.last_digits).listed_late
        return not late or time.time() - fax.received_at >= self._late_seconds

    def cancel(self, fax_id: str) -> Answer:
        with self._lock:
            fax = self._live.find(fax_id)
            if fax is None:
                return error(404, "no-such-fax")
            if fax.final:
                return error(409, "too-late")
            self._end(fax, "cancelled", "cancelled")
            self._live.save()
            return Answer(202, {"fax": fax.view()})

    def ledger(self, tag: str | None, after: int, limit: int) -> Answer:
        entries = self._ledger.entries(tag=tag, after=after, limit=limit)
        return Answer(200, {"counts": self._ledger.counts(), "faxes": entries})

    def _answer(self, fax: Fax, outcome: Outcome) -> Answer:
        def begin() -> None:
            self._begin(fax)

        if outcome.reply == "none":
            return Answer(0, then=begin)
        if outcome.reply == "hang":
            return Answer(0, then=begin, hold=HANG_SECONDS)
        if outcome.reply == "500":
            return replace(error(500, "internal"), then=begin)
        return Answer(202, {"fax": fax.view()}, then=begin)

    def _refuse(
        self, submission: Submission, status: int, code: str, *, told: bool = False
    ) -> Answer:
        """Note the refusal; `told`: say when to come again."""
        key = self._key(submission.to)
        self._ledger.refuse(Refusal(submission.tag[:128], key, status, code, time.time()))
        wait = {"Retry-After": str(THROTTLE_SECONDS)} if told else {}
        return error(status, code, wait)

    def _throttle_is_over(self, submission: Submission, outcome: Outcome) -> bool:
        if outcome.refused != 429:
            return False
        first = self._ledger.first_refusal(self._key(submission.to), "throttled")
        return first is not None and time.time() - first >= THROTTLE_SECONDS

    def _key(self, text: str) -> str:
        return hmac.new(self._secret, text.encode(), "sha256").hexdigest()[:32]

    def _begin(self, fax: Fax) -> None:
        self._live.add(fax)
        if fax.direction == RECEIVED:
            self._receiving.tell(fax)
        elif fax.final:
            self._tell(fax)
        else:
            self._timeline.after(self._page_seconds, lambda: self._step(fax))

    def _step(self, fax: Fax) -> None:
        """One page further, or the end. Without a time per page nobody could watch: the end comes
        at once."""
        with self._lock:
            if fax.final:
                return
            outcome = _outcome(fax.last_digits)
            if self._advance(fax, outcome):
                return
            fax.status = "sending"
            self._live.note(fax)
            if outcome.callbacks in ("once", "twice", "late"):
                self._post(fax, "fax.progress", outcome)
        self._timeline.after(self._page_seconds, lambda: self._step(fax))

    def _advance(self, fax: Fax, outcome: Outcome) -> bool:
        """Send a page; whether that, or failing to, was the end."""
        at_once = self._page_seconds == 0
        if outcome.code and not outcome.refused:
            last = min(outcome.pages, fax.pages - 1)
            if at_once or fax.pages_sent >= last:
                fax.pages_sent = last
                self._end(fax, "failed", outcome.code)
                return True
            fax.pages_sent += 1
            return False
        fax.pages_sent = fax.pages if at_once else fax.pages_sent + 1
        if fax.pages_sent < fax.pages:
            return False
        fax.pages_sent -= min(outcome.missing, fax.pages)
        self._end(fax, "delivered", None)
        return True

    def _end(self, fax: Fax, status: str, code: str | None) -> None:
        fax.status, fax.code, fax.ended_at = status, code, time.time()
        self._live.note(fax)
        self._tell(fax)

    def _tell(self, fax: Fax) -> None:
        """Call back how it ended, in the manner of its number."""
        outcome = _outcome(fax.last_digits)
        if outcome.callbacks == "none" or not fax.callback_url:
            self._live.told(fax)
        elif outcome.callbacks == "late":
            self._timeline.after(
                self._late_seconds, lambda: self._post(fax, f"fax.{fax.status}", outcome)
            )
        else:
            self._post(fax, f"fax.{fax.status}", outcome)
            if outcome.callbacks == "reordered":
                before = replace(
                    fax, status="sending", pages_sent=max(fax.pages - 1, 0), ended_at=None
                )
                self._timeline.after(0.2, lambda: self._post(before, "fax.progress", outcome))

    def _post(self, fax: Fax, event: str, outcome: Outcome) -> None:
        if not fax.callback_url:
            return
        body = json.dumps(
            {
                "event_id": f"{fax.id}-{fax.status}-{fax.pages_sent}",
                "event": event,
                "fax": fax.view(),
            }
        ).encode()
        last = fax.final

        def done(_taken: bool) -> None:
            if last:
                self._live.told(fax)

        for _ in range(2 if outcome.callbacks == "twice" else 1):
            self._poster.put(Post(fax.callback_url, body, self._sign, done))

    def _sign(self, body: bytes, kind: str = "application/json") -> Mapping[str, str]:
        now = str(int(time.time()))
        mac = hmac.new(self._secret, f"{now}.".encode(), "sha256")
        mac.update(body)
        return {"Content-Type": kind, "X-Simulator-Signature": f"t={now},v1={mac.hexdigest()}"}


def _outcome(last_digits: str) -> Outcome:
    return OUTCOMES.get(last_digits, OUTCOMES["0000"])


class Routes:
    """The carrier's paths, and who may use them."""

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier

    def __call__(self, request: Request) -> Answer:
        if not self._admitted(request):
            return error(401, "bad-credentials")
        calls = {"POST": self._post, "DELETE": self._delete}
        return calls.get(request.method, self._get)(request)

    def _admitted(self, request: Request) -> bool:
        """Whether the secret was given; /health and the ledger, which hold nothing private, are
        open to this machine."""
        given = request.headers.get("authorization")
        if given is None:
            return request.path in ("/health", "/v1/ledger") and request.local
        return self._carrier.knows(given.removeprefix("Bearer ").strip())

    def _get(self, request: Request) -> Answer:
        path, query = request.path, request.query
        if path == "/health":
            return Answer(200, {"ok": True})
        if path == "/v1/ledger":
            after, limit = query.get("after", "0"), query.get("limit", "1000000")
            if not (after.isdecimal() and limit.isdecimal()):
                return error(400, "bad-cursor")
            return self._carrier.ledger(query.get("tag"), int(after[:18]), int(limit[:7]))
        if path == "/v1/faxes":
            return self._carrier.look_up(query["tag"]) if "tag" in query else error(400, "no-tag")
        if path.startswith("/v1/faxes/"):
            fax_id, _, part = path.removeprefix("/v1/faxes/").partition("/")
            if part in ("", "file"):
                return self._carrier.document(fax_id) if part else self._carrier.fetch(fax_id)
        return error(404, "no-such-path")

    def _delete(self, request: Request) -> Answer:
        fax_id, _, part = request.path.removeprefix("/v1/faxes/").partition("/")
        if request.path.startswith("/v1/faxes/") and part == "file":
            return self._carrier.forget(fax_id)
        return error(404, "no-such-path")

    def _post(self, request: Request) -> Answer:
        if request.path == "/v1/faxes":
            return self._submit(request)
        if request.path.startswith("/v1/faxes/") and request.path.endswith("/cancel"):
            fax_id = request.path.removeprefix("/v1/faxes/").removesuffix("/cancel")
            return self._carrier.cancel(fax_id)
        if request.path == "/control/receive":
            return self._receive(request)
        return error(404, "no-such-path")

    def _receive(self, request: Request) -> Answer:
        """Somebody wants a fax to come in."""
        try:
            wished = wish(json.loads(request.body))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return error(422, "wish-malformed")
        return self._carrier.receive(wished)

    def _submit(self, request: Request) -> Answer:
        try:
            form = read_form(request)
            submission = Submission(
                to=form.fields["to"],
                tag=form.fields["tag"],
                callback_url=form.fields.get("callback_url", ""),
                header=form.fields.get("header", ""),
                document=form.files["file"],
            )
        except KeyError:
            return error(422, "field-missing")
        except ValueError:
            return error(400, "multipart-malformed")
        return self._carrier.submit(submission)


def serve(
    host: str = "127.0.0.1",
    port: int = 8091,
    ledger_path: Path = Path("simulator.db"),
    secret: str = "",
    *,
    page_seconds: float = 1.0,
    late_seconds: float = 30.0,
) -> None:
    """Run the carrier until SIGTERM or SIGINT. Prints its address once it listens (port 0 takes a
    free one).

    `page_seconds`: how long a page takes on the line; 0 ends every call at once and posts no
    progress. `late_seconds`: how long the late number waits with its callback. Raises ConfigError
    without a secret, OSError where it cannot listen.
    """
    if not secret:
        raise ConfigError(
            "SIMULATOR_SECRET is not set: the carrier and its client need the same one"
        )
    carrier = Carrier(
        Ledger(ledger_path), secret, page_seconds=page_seconds, late_seconds=late_seconds
    )
    try:
        door.serve("simulator", host, port, Routes(carrier), ready=carrier.resume)
    finally:
        carrier.close()
