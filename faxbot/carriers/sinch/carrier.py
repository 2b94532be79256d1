"""The stand-in Sinch itself, without its HTTP: takes faxes, sends and redials them, posts webhooks.

After a restart, also after a kill -9, every open fax goes on where it stood.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from faxbot.carriers.door import Answer
from faxbot.carriers.ledger import RECEIVED, SENT, Fax, Ledger, Refusal
from faxbot.carriers.live import LiveFaxes
from faxbot.carriers.pages import PDF, blank_pdf
from faxbot.carriers.sinch import listing, words
from faxbot.carriers.sinch.access import Account
from faxbot.carriers.sinch.documents import fetch, render
from faxbot.carriers.sinch.numbers import (
    FILE_DELETED,
    NOT_FETCHED,
    Error,
    Outcome,
    outcome,
)
from faxbot.carriers.sinch.submission import File, Invalid, Refused, Submission
from faxbot.carriers.sinch.teller import Teller, Times
from faxbot.carriers.sinch.words import acceptance, refusal
from faxbot.carriers.timeline import Timeline

LABEL = "faxbot"
"""The label by which the ledger counts submissions."""

OWN_NUMBER = "+15550100099"
"""Where faxes come from when their sender does not say."""

NOBODY = Error(None, None, None)
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class Carrier:
    """Takes, sends, tells."""

    def __init__(self, ledger: Ledger, account: Account, times: Times) -> None:
        self._ledger = ledger
        self._account = account
        self._times = times
        self._timeline = Timeline()
        self._live = LiveFaxes(ledger, self._timeline)
        self.teller = Teller(ledger, self._live, self._timeline, account.project_id, times)
        self.moods = self.teller.moods
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

    # what a client asks

    def submit(self, submission: Submission) -> Answer:
        """Take faxes or refuse them, as their numbers say."""
        if self.moods["account"] == "unpaid":
            return self._refuse(submission, submission.to[0], "payment_required")
        outcomes = [outcome(to[-4:]) for to in submission.to]
        for to, each in zip(submission.to, outcomes, strict=True):
            if each.refused and not self._is_over(to, each):
                return self._refuse(submission, to, each.refused)
        faxes = self._accept(submission)

        def begin() -> None:
            for fax in faxes:
                self._begin(fax)

        return replace(acceptance(outcomes[0].reply, self._objects(faxes)), then=begin)

    def invalid(self, invalid: Invalid) -> Answer:
        """The refusal of one field of a submission or a query."""
        return words.invalid(invalid.field, invalid.description, self.moods["errors"])

    def refuse(self, refused: Refused) -> Answer:
        """Refuse a submission that is not as it should be, and note it."""
        tag = refused.labels.get(LABEL, "")[:128]
        if isinstance(refused, Invalid):
            return self._noted(self.invalid(refused), f"invalid {refused.field}"[:64], tag)
        return self._noted(refusal("bad_request", self.moods["errors"]), "bad_request", tag)

    def _noted(self, answer: Answer, word: str, tag: str = "", to: str = "") -> Answer:
        """Have a refusal in the ledger."""
        key = self._key(to) if to else ""
        self._ledger.refuse(Refusal(tag, key, answer.status, word, time.time()))
        return answer

    def show(self, fax_id: str) -> Answer:
        fax = self._live.find(fax_id)
        if fax is None:
            return refusal("not_found", self.moods["errors"])
        with self._lock:
            return Answer(200, self.teller.show(self._as_read(fax)))

    def list_faxes(self, query: Mapping[str, str]) -> Answer:
        """A page of the faxes that a query asks for, newest first. Raises Invalid."""
        asked = listing.read(query)
        with self._lock:
            known = map(self._live.current, self._ledger.between(asked.since, asked.until))
            faxes = [self._as_read(fax) for fax in known if self._is_listed(fax)]
            found = self._objects([fax for fax in faxes if asked.shows(fax)])
        return words.page_of("faxes", found, asked.page, asked.size, self.moods["page"])

    def document(self, fax_id: str) -> Answer:
        """The PDF of a fax."""
        documents = self._ledger.documents(fax_id)
        if not documents:
            return refusal("not_found", self.moods["errors"])
        name = f'attachment; filename="fax-{fax_id}.pdf"'
        return Answer(200, documents[0][1], {"Content-Type": PDF, "Content-Disposition": name})

    def delete_document(self, fax_id: str) -> Answer:
        """Forget what was faxed; a fax whose call is still to come fails."""
        with self._lock:
            fax = self._live.find(fax_id)
            if fax is None or not fax.details["hasFile"]:
                return refusal("not_found", self.moods["errors"])
            self._ledger.keep_documents(fax_id, [])
            fax.details["hasFile"] = False
            self._live.note(fax)
            self._live.save()
        return Answer(204, b"")

    def ledger(self, tag: str | None, after: int, limit: int) -> dict[str, Any]:
        """The ledger's counts and entries."""
        entries = self._ledger.entries(tag=tag, after=after, limit=limit)
        return {"counts": self._ledger.counts(), "faxes": entries}

    # what the control door asks

    def receive(
        self,
        numbers: tuple[str, str],
        pages: int,
        fault: Error | None,
        callback: tuple[str, str],
        document: bytes | None,
    ) -> str:
        """Have a fax come in, or fail to (`fault`), from one number to another; it is posted to
        `callback` (URL, Content-Type). Gives its id."""
        document = document or blank_pdf(pages)
        kept = [] if fault else [(PDF, document)]
        now = _now()
        fax = self._new(numbers[1], callback[0], document, PDF, pages)
        fax.direction, fax.last_digits, fax.ended_at = RECEIVED, numbers[1][-4:], now
        fax.status = "FAILURE" if fault else "COMPLETED"
        fax.details = _details(numbers[1], numbers[0], {}, callback[1])
        fax.details |= {"hasFile": bool(kept), "error": _triple(fault or NOBODY)}
        self._ledger.accept(fax, kept)
        self._begin(fax)
        return fax.id

    # taking

    def _accept(self, submission: Submission) -> list[Fax]:
        urls = submission.content_urls
        pages, fault, document = (0, None, b"") if urls else render(submission.files)
        files = [(file.type, file.content) for file in submission.files]
        sent = b"".join(file.content for file in submission.files)
        kept = files if urls else [(PDF, document)]
        labels = submission.fields.get("labels", {})
        faxes = []
        for to in submission.to:
            fields = {name: each for name, each in submission.fields.items() if name != "from"}
            callback_url = fields.get("callbackUrl", "")
            kind = submission.files[0].type if submission.files else "URL"
            fax = self._new(to, callback_url, sent, kind, pages)
            fax.tag = labels.get(LABEL, "")[:128]
            header = fields.get("headerText", "")
            fax.header_key = self._key(header) if header else ""
            sender = submission.fields.get("from", OWN_NUMBER)
            fax.details = _details(to, sender, fields, fields["callbackUrlContentType"])
            fax.details |= {"fault": _triple(fault), "toFetch": list(urls)}
            self._ledger.accept(fax, kept)
            # In hand before it is answered: its client may ask for something at once.
            self._live.add(fax)
            faxes.append(fax)
        return faxes

    def _new(self, to: str, callback_url: str, sent: bytes, kind: str, pages: int) -> Fax:
        return Fax(
            id=_new_id(),
            tag="",
            to_key=self._key(to),
            last_digits=to[-4:],
            media_type=kind,
            pages=pages,
            size=len(sent),
            sha256=hashlib.sha256(sent).hexdigest(),
            callback_url=callback_url,
            header_key="",
            received_at=_now(),
            status="QUEUED",
        )

    def _refuse(self, submission: Submission, to: str, name: str) -> Answer:
        mood = self.moods["errors"]
        if name == "number_invalid":
            answer = words.invalid("to", f"The ({to}) is not a valid phone number", mood)
        elif name == "no_url":
            answer = words.no_url(words.masked(submission.fields.get("callbackUrl", "")))
        else:
            answer = refusal(name, mood)
        tag = submission.fields.get("labels", {}).get(LABEL, "")[:128]
        return self._noted(answer, name, tag, to)

    def _is_over(self, to: str, its: Outcome) -> bool:
        """Whether a refusal that passes has passed."""
        if its.until is None:
            return False
        first = self._ledger.first_refusal(self._key(to), its.refused)
        return first is not None and time.time() - first >= its.until

    def _key(self, text: str) -> str:
        return hmac.new(self._account.secret.encode(), text.encode(), "sha256").hexdigest()[:32]

    # reading

    def _objects(self, faxes: Sequence[Fax]) -> Sequence[dict[str, Any]]:
        return [self.teller.show(fax) for fax in faxes]

    def _is_listed(self, fax: Fax) -> bool:
        late = fax.direction == SENT and outcome(fax.last_digits).listed_late
        return not late or time.time() - fax.received_at >= self._times.late

    def _as_read(self, fax: Fax) -> Fax:
        """How a read shows a fax: some are behind."""
        behind = fax.direction == SENT and outcome(fax.last_digits).read_late
        if behind and fax.ended_at and time.time() - fax.ended_at < self._times.late:
            return replace(fax, status="IN_PROGRESS", ended_at=None)
        return fax

    # sending

    def _begin(self, fax: Fax) -> None:
        self._live.add(fax)
        if fax.final:
            self.teller.tell(fax)
        elif fax.details["toFetch"]:
            threading.Thread(target=self._fetch, args=(fax,), name="fetch", daemon=True).start()
        else:
            self._timeline.after(self._times.page, lambda: self._step(fax))

    def _fetch(self, fax: Fax) -> None:
        """Go on with what is fetched, which stands before the files, or fail over it."""
        fetched = fetch(fax.details["toFetch"])
        uploaded = [File(kind, content) for kind, content in self._ledger.documents(fax.id)]
        files = [*(fetched or ()), *uploaded]
        pages, fault, document = render(files)
        self._ledger.keep_documents(fax.id, [(PDF, document)])
        with self._lock:
            sent = b"".join(file.content for file in files)
            fax.pages, fax.size, fax.sha256 = pages, len(sent), hashlib.sha256(sent).hexdigest()
            fax.details["fault"] = _triple(fault if fetched else NOT_FETCHED)
            fax.details["toFetch"] = []
            self._live.note(fax)
            self._live.save()
        self._timeline.after(self._times.page, lambda: self._step(fax))

    def _step(self, fax: Fax) -> None:
        """One page further, or the end of a call. Without a time per page nobody could watch: the
        end comes at once."""
        with self._lock:
            if fax.final:
                return
            fault = _fault(fax)
            last = _last_page(fax, fault)
            at_once = self._times.page == 0
            calls = fax.status == "QUEUED"
            if calls:
                fax.status = outcome(fax.last_digits).midway
            if at_once or fax.pages_sent >= last:
                if at_once or not calls:
                    fax.pages_sent = last
                    self._end_call(fax, fault)
                    return
            elif not calls:
                fax.pages_sent += 1
                self.teller.tell_progress(fax)
            self._live.note(fax)
        self._timeline.after(self._times.page, lambda: self._step(fax))

    def _end_call(self, fax: Fax, fault: Error | None) -> None:
        """The end of a call is a redial, where that is allowed, or the end of the fax."""
        details = fax.details
        if fault is None:
            its = outcome(fax.last_digits)
            if its.kept_error:
                details["error"] = _triple(its.kept_error)
            fax.pages_sent -= min(its.missing, fax.pages_sent)
            fax.status, fax.code = "COMPLETED", None
        else:
            details["error"] = _triple(fault)
            if fault.is_redialled and details["retryCount"] < details["fields"]["maxRetries"]:
                details["retryCount"] += 1
                fax.pages_sent = 0
                self._live.note(fax)
                wait = details["fields"]["retryDelaySeconds"] * self._times.scale
                self._timeline.after(wait, lambda: self._step(fax))
                return
            fax.status, fax.code = "FAILURE", f"{fault.type} {fault.code}"
        fax.ended_at = time.time()
        self._live.note(fax)
        self.teller.tell(fax)


def _details(to: str, sender: str, fields: Mapping[str, Any], content_type: str) -> dict[str, Any]:
    """What a fax has beside what every carrier's has."""
    return {
        "to": to,
        "from": sender,
        "fields": dict(fields),
        "contentType": content_type,
        "error": _triple(NOBODY),
        "retryCount": 0,
        "hasFile": True,
    }


def _fault(fax: Fax) -> Error | None:
    """What this call fails with."""
    details, its = fax.details, outcome(fax.last_digits)
    if not details["hasFile"]:
        return FILE_DELETED
    if details["fault"]:
        return Error(*details["fault"])
    return its.error or (its.first_error if details["retryCount"] == 0 else None)


def _last_page(fax: Fax, fault: Error | None) -> int:
    """How many pages this call gets through."""
    if fault is None:
        return fax.pages
    return min(1, fax.pages - 1) if fault.comes_after_a_page else 0


def _triple(error: Error | None) -> list[Any] | None:
    """An error as JSON has it."""
    return [error.type, error.code, error.message] if error else None


def _now() -> float:
    """Seconds of the epoch, in whole milliseconds: as exact as times are shown."""
    return int(time.time() * 1000) / 1000


def _new_id() -> str:
    """26 letters like a ULID: the time, then chance."""
    value = int(time.time() * 1000) << 80 | secrets.randbits(80)
    return "".join(_CROCKFORD[value >> 5 * place & 31] for place in reversed(range(26)))
