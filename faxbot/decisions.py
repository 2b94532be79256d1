"""What people decide about a fax: hold it, let a held one go, have it sent at once, and settle an
uncertain one, with a reason that is kept."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from faxbot import audit, claims, jobs, outcomes
from faxbot.actors import Actor
from faxbot.audit import Action
from faxbot.crypto import Unsealable
from faxbot.db import new_id, table
from faxbot.errors import NotPossibleNow
from faxbot.events import ASKED, CLAIMABLE, Event, Status
from faxbot.models import Attempt, Decision, Job, JobRow
from faxbot.outcomes import Entry
from faxbot.results import locked, record_event, stamp
from faxbot.runtime import Runtime

OUTCOMES: dict[str, Status] = {
    "delivered": Status.DELIVERED,
    "failed": Status.FAILED,
    "retry": Status.RETRYING,
}
"""What a person may say of an uncertain fax, and where that takes it."""
REASON_LENGTH = 500


def release(runtime: Runtime, actor: Actor, job_id: str) -> Job:
    """Let a held fax go, whatever it is held for, at its planned time; where that is not mended it is
    held again. So is one that a person held while its carrier said that an earlier try may have
    arrived.

    Raises NotFound, and NotPossibleNow for a fax that is not held.
    """
    jobs.find(runtime, actor, job_id)
    now = runtime.now()
    with runtime.database.transaction() as session:
        job = locked(session, job_id)
        if job.status != Status.HELD:
            raise NotPossibleNow(f"only a held fax can be released; this one is {job.status}")
        reason, job.faults = job.reason, 0
        is_due = claims.let_go(session, job, now, "person")
        if reason == ASKED and job.attempts:
            this = _newest(session, job)
            outcomes.hold_back(Entry(session, runtime, job, this, now, "person"))
        audit.record(
            session,
            actor,
            Action.FAX_RELEASED,
            ("fax", job_id),
            now=now,
            details={"reason": reason},
        )
    if job.status == Status.QUEUED and is_due:
        claims.announce(runtime, Status.QUEUED, job_id, now)
    return job


def hold(runtime: Runtime, actor: Actor, job_id: str) -> Job:
    """Hold a fax that waits for its first or its next try, until a person releases it; its deadline
    ends it all the same. Nobody looks at it again by himself, and no alarm tells of it.

    Raises NotFound, and NotPossibleNow for a fax that does not wait so: the carrier may have it.
    """
    jobs.find(runtime, actor, job_id)
    now = runtime.now()
    with runtime.database.transaction() as session:
        job = locked(session, job_id)
        if job.status == Status.HELD:
            raise NotPossibleNow(_HELD_ALREADY if job.reason != ASKED else _HELD_SO)
        if Status(job.status) not in CLAIMABLE:
            raise NotPossibleNow(
                f"only a queued or retrying fax can be held; this one is {job.status}"
            )
        details = {"status": job.status}
        job.fence += 1  # a worker that prepares it has it no more
        job.lease_until, job.reason, job.next_at = None, ASKED, job.expires_at
        record_event(
            session, job, Event.HELD, status=Status.HELD, reason=ASKED, now=now, source="person"
        )
        audit.record(session, actor, Action.FAX_HELD, ("fax", job_id), now=now, details=details)
    return job


_HELD_SO = "a person holds it already"
_HELD_ALREADY = (
    "it is held already, and goes on when what it is held for is mended: cancel it, or hold it then"
)


def send_now(runtime: Runtime, actor: Actor, job_id: str) -> Job:
    """Have a fax tried now that waits for a time: for its `send_at`, or for the end of the pause behind
    a try. What waits for its number or provider keeps its place; a deadline stays what it is.

    Raises NotFound, and NotPossibleNow for a fax that waits for no time.
    """
    jobs.find(runtime, actor, job_id)
    now = runtime.now()
    with runtime.database.transaction() as session:
        job = locked(session, job_id)
        if (why_not := why_not_now(job, now)) is not None:
            raise NotPossibleNow(why_not)
        if job.send_at is not None:
            # Should it wait for its turn now, it has waited since then (claims.SINCE).
            job.send_at = min(job.send_at, now)
        job.next_at = job.rung_at = now
        details = {"status": job.status}
        audit.record(session, actor, Action.FAX_SENT_NOW, ("fax", job_id), now=now, details=details)
    claims.announce(runtime, Status(job.status), job_id, now)
    return job


def why_not_now(job: Job | JobRow, now: datetime) -> str | None:
    """Why it cannot be sent sooner; None where it can."""
    if Status(job.status) not in CLAIMABLE:
        return f"only a queued or retrying fax can be sent now; this one is {job.status}"
    if job.waiting is not None:
        return "it waits for its turn at its number or its provider, and keeps it"
    if job.next_at is None or job.next_at <= now:
        return "it is due already: a worker takes it in a moment"
    return None


def decide(
    runtime: Runtime,
    actor: Actor,
    job_id: str,
    outcome: str,
    reason: str,
    *,
    attempt: int | None = None,
) -> Job:
    """Settle an uncertain fax by what a person found out: it was `delivered`, it has `failed`, or
    it never went out and is sent anew (`retry`). `attempt`: which one was found out about; where
    another has begun meanwhile, nothing is decided.

    The reason is kept, sealed, beside who said it. Where a cancel was asked for, what was not
    delivered is cancelled; what is sent anew is held first where an earlier attempt is said to be
    under way or delivered: this was not about that one. Raises NotFound, and NotPossibleNow for a
    fax that is not uncertain.
    """
    jobs.find(runtime, actor, job_id)
    now = runtime.now()
    with runtime.database.transaction() as session:
        job = locked(session, job_id)
        if job.status != Status.UNCERTAIN:
            raise NotPossibleNow(f"only an uncertain fax is decided; this one is {job.status}")
        if attempt not in (None, job.attempts):
            raise NotPossibleNow(f"attempt {attempt} is over; the uncertain one is {job.attempts}")
        uncertain = _newest(session, job)
        place = f"decisions.reason:{job.account_id}"
        session.add(
            Decision(
                id=new_id(now),
                account_id=job.account_id,
                job_id=job.id,
                attempt=uncertain.number,
                outcome=outcome,
                actor=actor.id,
                reason_sealed=runtime.keyring.seal(reason.encode(), place),
                decided_at=now,
            )
        )
        _settle(Entry(session, runtime, job, uncertain, now, "person"), OUTCOMES[outcome])
        details = {"decided": outcome, "attempt": uncertain.number}
        audit.record(session, actor, Action.FAX_DECIDED, ("fax", job_id), now=now, details=details)
    if job.status == Status.RETRYING:
        claims.announce(runtime, Status.RETRYING, job_id, now)
    return job


def _newest(session: Session, job: Job) -> Attempt:
    return session.scalars(
        sa.select(Attempt).where(Attempt.job_id == job.id, Attempt.number == job.attempts)
    ).one()


def _settle(entry: Entry, status: Status) -> None:
    job, attempt = entry.job, entry.attempt
    if status is Status.DELIVERED:
        entry.end("delivered", None)
        attempt.pages_sent = job.pages_sent = job.pages or attempt.pages_sent
        job.reason = None
    else:
        entry.end("absent" if status is Status.RETRYING else "failed", "unconfirmed")
        job.reason = "unconfirmed"
    if status is not Status.DELIVERED and job.cancel_requested_at is not None:
        entry.record(Event.CANCELLED, Status.CANCELLED)
        return
    if status is Status.RETRYING:
        job.next_at = job.rung_at = entry.now
    entry.record(Event.DECIDED, status, pages_sent=attempt.pages_sent)
    outcomes.hold_back(entry)


def of_fax(runtime: Runtime, job: JobRow, *, masked: bool = False) -> list[dict[str, Any]]:
    """What was decided about this fax, as plain JSON types, oldest first. The reasons are people's
    words and may hold anything; `masked` leaves them out; one that does not open is None."""
    return [
        {
            "attempt": row.attempt,
            "outcome": row.outcome,
            "actor": row.actor,
            "reason": "" if masked else _reason(runtime, row),
            "decided_at": stamp(row.decided_at),
        }
        for row in runtime.database.rows(_OF_FAX, {"job_id": job.id})
    ]


def _reason(runtime: Runtime, row: sa.Row[Any]) -> str | None:
    try:
        place = f"decisions.reason:{row.account_id}"
        return runtime.keyring.open(row.reason_sealed, place).decode()
    except Unsealable:
        return None


_OF_FAX = (
    sa.select(table(Decision))
    .where(Decision.job_id == sa.bindparam("job_id"))
    .order_by(Decision.id)
)
