"""One sentence per fax for people: what happens next, when and why. Pure; holds no PHI."""

from __future__ import annotations

from datetime import datetime
from typing import cast

from faxbot.events import ASKED, CAUSES, CLAIMABLE, HOLD_REASONS, IN_DOUBT, Status
from faxbot.models import Job, JobRow

SCHEDULED = "Scheduled: it will be sent {when}."
SET_BACK = "This server could not prepare it; it is tried again {when}."
WAITING = {
    "number": "Another fax to this number is under way or has just been; this one follows.",
    "provider": "The carrier has as many faxes as it is given at a time; this one follows.",
}
DOUBT = " An earlier try may have arrived all the same."
SENTENCES: dict[Status, str] = {
    Status.QUEUED: "Waiting for a worker; it will be sent in a moment.",
    Status.SUBMITTING: "Being handed to {provider} now.",
    Status.SENT: "{provider} has it; {so_far}waiting for the result{cancelling}.",
    Status.RETRYING: "{why} {arrived}{next_try} {when}.",
    Status.HELD: "On hold: {held}.",
    Status.UNCERTAIN: (
        "{what} is not known{cancelling}; it is being looked up and will not be "
        "sent again blindly. Next look {when}."
    ),
    Status.DELIVERED: "Delivered: {all_pages} confirmed.",
    Status.FAILED: "{why} {in_the_end}It will not be tried again.",
    Status.CANCELLED: "Cancelled as asked.{doubt}",
    Status.EXPIRED: "Its deadline passed before it could be sent.",
}


def explain(job: Job | JobRow, now: datetime, *, continues: bool = False) -> str:
    """The sentence for this job at this moment. `continues`: its next call goes on behind the confirmed pages."""
    status = Status(job.status)
    waits = WAITING.get((job.waiting or "").partition(":")[0])
    if status in CLAIMABLE and waits:
        return waits
    scheduled = status is Status.QUEUED and job.next_at is not None and job.next_at > now
    later = SET_BACK if job.faults else SCHEDULED
    sentence = (later if scheduled else SENTENCES[status]).format_map(_Words(job, now, continues))
    return sentence[:1].upper() + sentence[1:]


class _Words:
    """What stands for the words in a sentence's braces: a method each, that is asked when the sentence has the word."""

    def __init__(self, job: Job | JobRow, now: datetime, continues: bool) -> None:
        self._job, self._now, self._continues = job, now, continues

    def __getitem__(self, word: str) -> str:
        return cast(str, getattr(self, word)())

    def provider(self) -> str:
        return self._job.provider_id or "the carrier"

    def what(self) -> str:
        # With a name for it the carrier has taken it once.
        if self._job.external_id:
            return f"what became of it at {self.provider()}"
        return f"whether {self.provider()} has it"

    def when(self) -> str:
        return _when(self._job.next_at, self._now)

    def next_try(self) -> str:
        return "Its deadline comes before the next try: it ends" if _ends(self._job) else "Next try"

    def why(self) -> str:
        cause = CAUSES.get(self._job.reason or "")
        return cause.sentence if cause else "The last try did not go through."

    def held(self) -> str:
        job, now = self._job, self._now
        reason = HOLD_REASONS.get(job.reason or "", "an operator must look")
        # The others end when somebody mends what they name; of these the row says when they end by themselves.
        ends = job.reason in ("account_refused", ASKED)
        rests = ends and job.next_at is not None and job.next_at > now
        what = "its deadline comes first: it ends" if _ends(job) else "looked at again"
        return f"{reason}; {what} {_when(job.next_at, now)}" if rests else reason

    def arrived(self) -> str:
        job = self._job
        if _ends(job) or not (self._continues and job.pages_sent and job.pages):
            return ""
        # Where all were confirmed and the call failed, the last one is sent again (ladder.way).
        first = min(job.pages_sent + 1, job.pages)
        return f"{job.pages_sent} of {job.pages} pages arrived; continuing at {first}. "

    def so_far(self) -> str:
        return self._confirmed("; ")

    def in_the_end(self) -> str:
        return self._confirmed(". ")

    def _confirmed(self, end: str) -> str:
        job = self._job
        return f"{job.pages_sent} of {job.pages} pages confirmed{end}" if job.pages_sent else ""

    def all_pages(self) -> str:
        return "its page is" if self._job.pages == 1 else f"all {self._job.pages} pages are"

    def doubt(self) -> str:
        return DOUBT if self._job.reason in IN_DOUBT else ""

    def cancelling(self) -> str:
        return " (a cancel was asked for)" if self._job.cancel_requested_at else ""


def _ends(job: Job | JobRow) -> bool:
    """Whether its deadline is what comes next (claims.by_deadline)."""
    return job.expires_at is not None and job.next_at == job.expires_at


def _when(at: datetime | None, now: datetime) -> str:
    seconds = 0 if at is None else round((at - now).total_seconds())
    if at is None or seconds <= 0:
        return "in a moment"
    clock = f"{at:%H:%M:%S} UTC" if at.date() == now.date() else f"{at:%Y-%m-%d %H:%M} UTC"
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"in {seconds // size} {unit}, at {clock}"
    return f"in {seconds} s, at {clock}"
