"""One sentence per fax for people: what happens next, when and why. Pure; holds no PHI."""

from __future__ import annotations

from datetime import datetime

from faxbot.events import CAUSES, CLAIMABLE, HOLD_REASONS, Status
from faxbot.models import Job, JobRow

SCHEDULED = "Scheduled: it will be sent {when}."
SET_BACK = "This server could not prepare it; it is tried again {when}."
WAITING = {
    "number": "Another fax to this number is under way or has just been; this one follows.",
    "provider": "The carrier has as many faxes as it is given at a time; this one follows.",
}
DOUBT = " An earlier try that was taken for failed may have arrived all the same."
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
    cause = CAUSES.get(job.reason or "")
    provider = job.provider_id or "the carrier"
    # With a name for it the carrier has taken it once.
    what = f"what became of it at {provider}" if job.external_id else f"whether {provider} has it"
    confirmed = f"{job.pages_sent} of {job.pages} pages confirmed" if job.pages_sent else ""
    later = SET_BACK if job.faults else SCHEDULED
    sentence = (later if scheduled else SENTENCES[status]).format(
        provider=provider,
        what=what,
        when=_when(job.next_at, now),
        next_try="Its deadline comes before the next try: it ends" if _ends(job) else "Next try",
        why=cause.sentence if cause else "The last try did not go through.",
        held=_held(job, now),
        arrived=_arrived(job) if continues and not _ends(job) else "",
        so_far=confirmed and f"{confirmed}; ",
        in_the_end=confirmed and f"{confirmed}. ",
        all_pages="its page is" if job.pages == 1 else f"all {job.pages} pages are",
        doubt=DOUBT if job.reason in ("said_delivered", "said_accepted") else "",
        cancelling=" (a cancel was asked for)" if job.cancel_requested_at else "",
    )
    return sentence[:1].upper() + sentence[1:]


def _arrived(job: Job | JobRow) -> str:
    if not (job.pages_sent and job.pages):
        return ""
    # Where all were confirmed and the call failed, the last one is sent again (ladder.way).
    first = min(job.pages_sent + 1, job.pages)
    return f"{job.pages_sent} of {job.pages} pages arrived; continuing at {first}. "


def _held(job: Job | JobRow, now: datetime) -> str:
    reason = HOLD_REASONS.get(job.reason or "", "an operator must look")
    # The others end when somebody mends what they name; this one is tried again by itself.
    rests = job.reason == "account_refused" and job.next_at is not None and job.next_at > now
    what = "its deadline comes first: it ends" if _ends(job) else "looked at again"
    return f"{reason}; {what} {_when(job.next_at, now)}" if rests else reason


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
