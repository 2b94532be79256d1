"""The stand-in Phaxio without its HTTP: takes faxes, sends them as their numbers say, receives some,
and calls back."""

from __future__ import annotations

import hmac
import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from faxbot.carriers.door import Answer
from faxbot.carriers.ledger import RECEIVED, Fax, Ledger, Refusal
from faxbot.carriers.live import LiveFaxes
from faxbot.carriers.pages import PDF, blank_pdf
from faxbot.carriers.phaxio import numbers, words
from faxbot.carriers.phaxio.account import Account, Times
from faxbot.carriers.phaxio.details import doom, new_details, said, set_error
from faxbot.carriers.phaxio.documents import fetch, measure
from faxbot.carriers.phaxio.numbers import Error, Outcome, outcome
from faxbot.carriers.phaxio.submission import COUNTED_TAG, Submission
from faxbot.carriers.phaxio.teller import Teller
from faxbot.carriers.timeline import Timeline

FIRST_ID = 323034811
"""Ids are integers; the first one that was recorded."""
PRICE = 7
"""Cents per page."""


class Carrier:
    """Takes, sends, receives, tells."""

    def __init__(self, ledger: Ledger, account: Account, times: Times) -> None:
        self.account = account
        self._ledger = ledger
        self._times = times
        self._timeline = Timeline()
        self._live = LiveFaxes(ledger, self._timeline)
        self._teller = Teller(account, times, self._timeline, self._live, self.file)
        self._lock = self._live.lock
        self._ids = itertools.count(FIRST_ID + ledger.last())

    def resume(self) -> None:
        """Go on with every fax that is not done."""
        for fax in self._ledger.open():
            self._begin(fax)

    def close(self) -> None:
        """Stop, and write down where everything stands."""
        self._timeline.stop()
        self._live.save()
        self._ledger.close()

    # what a client asks for

    def submit(self, submission: Submission) -> Answer:
        """Take a fax or refuse it, as its first number says."""
        to = submission.to[0]
        chosen = outcome(to[-4:])
        if chosen.refused and not self._refusal_is_over(to, chosen):
            tag = submission.tags.get(COUNTED_TAG, "")
            return self.refuse(tag, to, chosen.refused, words.REFUSALS[chosen.refused])
        documents = [(part.media_type, part.content) for part in submission.files]
        fax = self._new_fax(submission, documents)
        self._ledger.accept(fax, documents)
        # In hand before it is answered: its client may ask for something at once.
        self._live.add(fax)
        answer = words.success("Fax queued for sending", data={"id": int(fax.id)})
        if chosen.reply != "id":
            answer = words.REFUSALS[chosen.reply]
        return replace(answer, then=lambda: self._begin(fax))

    def refuse(self, tag: str, to: str, code: str, answer: Answer) -> Answer:
        """Note a submission that is not taken, and answer so."""
        self._ledger.refuse(Refusal(tag[:128], self._key(to), answer.status, code, time.time()))
        return answer

    def find(self, fax_id: str) -> Fax | None:
        fax = self._live.find(fax_id)
        return None if fax is None or fax.details["deleted"] else fax

    def count(self, direction: str, since: float) -> int:
        """How many faxes of that direction there have been since that moment."""
        return sum(fax.direction == direction for fax in self._ledger.between(since, time.time()))

    def listed(self, since: float, until: float) -> list[Fax]:
        """What a list of that time shows, newest first."""
        found = [self._live.current(fax) for fax in self._ledger.between(since, until)]
        return [fax for fax in found if not fax.details["deleted"] and self._is_listed(fax)]

    def cancel(self, fax: Fax) -> Answer:
        """Schedule that it is cancelled; with error 79 where it has ended."""
        with self._lock:
            if fax.final:
                self._come_too_late(fax)
                return words.invalid("Could not cancel fax")
            if outcome(fax.last_digits).cancel_fails:
                fax.details["cancel_failed"] = True
                self._live.note(fax)
            else:
                cancelled = numbers.CANCELED
                self._timeline.after(self._times.page, lambda: self._break_off(fax, cancelled))
        return words.success("Fax cancellation scheduled successfully.", data={"id": int(fax.id)})

    def resend(self, fax: Fax, callback_url: str) -> Answer:
        """Send it again, under a new id; fails with 113 where its file is deleted."""
        documents = self._ledger.documents(fax.id)
        details = new_details(
            [each["phone_number"] for each in fax.details["recipients"]],
            is_test=fax.details["is_test"],
            tags=fax.details["tags"],
            caller_id=fax.details["caller_id"],
        )
        again = replace(
            fax,
            id=self._next_id(),
            callback_url=callback_url or fax.callback_url,
            received_at=time.time(),
            status="queued",
            code=None,
            pages_sent=0,
            ended_at=None,
            told=False,
            details=details,
        )
        measure(again, documents)
        if not documents:
            doom(again, numbers.FILE_DELETED)
        self._ledger.accept(again, documents)
        self._live.add(again)
        answer = words.success("Fax queued for resending", data={"id": int(again.id)})
        return replace(answer, then=lambda: self._begin(again))

    def file(self, fax: Fax) -> bytes | None:
        """Its first document as a PDF."""
        for media_type, content in self._ledger.documents(fax.id):
            return content if media_type == PDF else blank_pdf()
        return None

    def delete_file(self, fax: Fax) -> None:
        self._ledger.keep_documents(fax.id, [])

    def delete(self, fax: Fax) -> None:
        """Show it to its client no more; the ledger counts it still."""
        self._ledger.keep_documents(fax.id, [])
        with self._lock:
            fax.details["deleted"] = True
            self._live.note(fax)
            self._live.save()

    def receive(
        self, from_number: str, to_number: str, document: bytes, *, url: str = "", file: bool = True
    ) -> Fax:
        """Receive a fax, and call back with its file or without."""
        now = time.time()
        details = new_details([], is_test=not self.account.live)
        fax = self._make_fax(from_number, details, callback_url=url, received_at=now)
        measure(fax, [(PDF, document)])
        fax.direction, fax.status, fax.ended_at = RECEIVED, "success", now
        details |= {
            "from_number": from_number,
            "to_number": to_number,
            "num_pages": fax.pages,
            "cost": PRICE,
            "with_file": file,
        }
        self._ledger.accept(fax, [(PDF, document)])
        self._begin(fax)
        return fax

    def ledger(self, tag: str | None, after: int, limit: int) -> Answer:
        entries = self._ledger.entries(tag=tag, after=after, limit=limit)
        return Answer(200, {"counts": self._ledger.counts(), "faxes": entries})

    # a new fax

    def _new_fax(self, submission: Submission, documents: Sequence[tuple[str, bytes]]) -> Fax:
        details = new_details(
            submission.to,
            is_test=not self.account.live,
            tags=submission.tags,
            caller_id=submission.caller_id,
        )
        details |= {
            "content_urls": submission.content_urls,
            "batch_delay": submission.batch_delay,
            "cancel_timeout": submission.cancel_timeout,
        }
        fax = self._make_fax(
            submission.to[0],
            details,
            tag=submission.tags.get(COUNTED_TAG, ""),
            callback_url=submission.callback_url,
            header_key=self._key(submission.header),
        )
        if not submission.content_urls:
            measure(fax, documents)
        if submission.test_fail:
            doom(fax, numbers.simulated(submission.test_fail))
        return fax

    def _make_fax(
        self,
        number: str,
        details: dict[str, Any],
        *,
        tag: str = "",
        callback_url: str = "",
        header_key: str = "",
        received_at: float | None = None,
    ) -> Fax:
        return Fax(
            id=self._next_id(),
            tag=tag,
            to_key=self._key(number),
            last_digits=number[-4:],
            media_type="",
            pages=0,
            size=0,
            sha256="",
            callback_url=callback_url,
            header_key=header_key,
            received_at=time.time() if received_at is None else received_at,
            details=details,
        )

    def _next_id(self) -> str:
        return str(next(self._ids))

    def _key(self, text: str) -> str:
        return hmac.new(self.account.secret.encode(), text.encode(), "sha256").hexdigest()[:32]

    def _refusal_is_over(self, to: str, chosen: Outcome) -> bool:
        if chosen.seconds_refused is None:
            return False
        first = self._ledger.first_refusal(self._key(to), chosen.refused)
        return first is not None and time.time() - first >= chosen.seconds_refused

    def _is_listed(self, fax: Fax) -> bool:
        late = outcome(fax.last_digits).listed_late
        return not late or time.time() - fax.received_at >= self._times.late

    # its way

    def _begin(self, fax: Fax) -> None:
        self._live.add(fax)
        if fax.final:
            self._teller.tell(fax)
            return
        details, scale = fax.details, self._times.scale
        if details["cancel_timeout"] is not None:
            until = fax.received_at + details["cancel_timeout"] * 60 * scale
            self._at(until, lambda: self._break_off(fax, numbers.EXPIRED))
        if details["content_urls"] and not fax.sha256:
            threading.Thread(target=self._fetch, args=(fax,), name="fetch", daemon=True).start()
        elif details["batch_delay"] is not None and fax.status in ("queued", "pendingbatch"):
            fax.status = "pendingbatch"
            self._live.note(fax)
            self._at(fax.received_at + details["batch_delay"] * scale, lambda: self._step(fax))
        else:
            self._timeline.after(self._times.page, lambda: self._step(fax))

    def _at(self, moment: float, action: Callable[[], None]) -> None:
        self._timeline.after(max(0.0, moment - time.time()), action)

    def _fetch(self, fax: Fax) -> None:
        """Fetch what is to be rendered before the files, then go on."""
        fetched = [fetch(url) for url in fax.details["content_urls"]]
        documents = [each for each in fetched if each] + self._ledger.documents(fax.id)
        self._ledger.keep_documents(fax.id, documents)
        with self._lock:
            measure(fax, documents)
            if None in fetched:
                doom(fax, numbers.NOT_FETCHED)
            fax.details["content_urls"] = []
            self._live.note(fax)
            if fax.final:  # cancelled meanwhile
                return
        self._begin(fax)

    def _step(self, fax: Fax) -> None:
        """One page further, or the end. Without a time per page nobody could watch: the end comes
        at once."""
        with self._lock:
            while not fax.final and not self._stays(fax):
                self._advance(fax)
                self._live.note(fax)
                if self._times.page:
                    break
            if fax.final or self._stays(fax):
                return
        self._timeline.after(self._times.page, lambda: self._step(fax))

    def _stays(self, fax: Fax) -> bool:
        """Whether it stands still until it is cancelled."""
        return outcome(fax.last_digits).stays and fax.status == "inprogress"

    def _advance(self, fax: Fax) -> None:
        chosen, recipients = outcome(fax.last_digits), fax.details["recipients"]
        if fax.status in ("queued", "pendingbatch"):
            fax.status = chosen.midway
            fax.details["num_pages"] = fax.pages
            for recipient in recipients:
                recipient["status"] = "ringing"
        elif chosen.redialled and not recipients[0]["retry_count"]:
            recipients[0] |= {"status": "willretry", "retry_count": 1, **said(numbers.BUSY)}
            self._teller.tell_inflight(fax, "retry_scheduled", retry_count=1)
        elif all(self._error(fax, each) for each in recipients) or fax.pages_sent >= fax.pages:
            self._end(fax)
        else:
            fax.status = "inprogress"
            fax.pages_sent += 1
            for recipient in recipients:
                recipient["status"] = "callactive"
            self._teller.tell_inflight(fax, "transmitting_page", page=fax.pages_sent)

    def _error(self, fax: Fax, recipient: Mapping[str, Any]) -> Error | None:
        doom = fax.details["doom"]
        return Error(*doom) if doom else outcome(recipient["phone_number"][-4:]).error

    def _end(self, fax: Fax) -> None:
        """The end of every call, as each number says."""
        chosen, details = outcome(fax.last_digits), fax.details
        errors = [self._error(fax, each) for each in details["recipients"]]
        if fax.pages_sent:
            details["cost"] = PRICE * fax.pages_sent * errors.count(None)
        details["num_pages"] -= min(chosen.missing, fax.pages)
        if chosen.redialled and not any(errors):
            set_error(fax, numbers.BUSY)
        if details["cancel_failed"]:
            set_error(fax, numbers.CANCEL_TOO_LATE)
        self._finish(fax, errors, chosen.status)

    def _break_off(self, fax: Fax, error: Error) -> None:
        with self._lock:
            if not fax.final:
                self._finish(fax, [error] * len(fax.details["recipients"]), None)
            elif error is numbers.CANCELED:
                self._come_too_late(fax)

    def _come_too_late(self, fax: Fax) -> None:
        set_error(fax, numbers.CANCEL_TOO_LATE)
        self._live.note(fax)
        self._live.save()

    def _finish(self, fax: Fax, errors: Sequence[Error | None], status: str | None) -> None:
        fax.ended_at = time.time()
        for recipient, error in zip(fax.details["recipients"], errors, strict=True):
            recipient["completed_at"] = fax.ended_at
            if error:
                recipient |= {"status": "failure", **said(error)}
            else:
                recipient |= {"status": "success", "bitrate": 14400, "resolution": 8040}
        failed = [error for error in errors if error]
        if failed:
            fax.code = f"{failed[0].type} {failed[0].id}"
        if not status:
            partly = "partialsuccess" if failed else "success"
            status = "failure" if len(failed) == len(errors) else partly
        if status == "failure":
            set_error(fax, failed[0])
        fax.status = status
        self._live.note(fax)
        self._teller.tell(fax)
