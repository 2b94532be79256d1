"""What people decide about a fax: let a held one go, settle an uncertain one, with a reason that is
kept."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from faxbot import audit, claims, jobs, outcomes
from faxbot.actors import Actor
from faxbot.audit import Action
from faxbot.crypto import Unsealable
from faxbot.db import new_id, table
from faxbot.errors import NotPossibleNow
from faxbot.events import Event, Status
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
    """Let a held fax go, whatever it is held for; where that is not mended it is held again.

    Raises NotFound, and NotPossibleNow for a fax that is not held.
    """
    jobs.find(runtime, actor, job_id)
    now = runtime.now()
    with runtime.database.transaction() as session:
        job = locked(session, job_id)
        if job.status != Status.HELD:
            raise NotPossibleNow(f"only a held fax can be released; this one is {job.status}")
        reason, job.reason, job.faults = job.reason, None, 0
        job.next_at = job.rung_at = now
        record_event(
            session,
            job,
            Event.RELEASED,
            status=Status.QUEUED,
            reason=reason,
            now=now,
            source="person",
        )
        audit.record(
            session,
            actor,
            Action.FAX_RELEASED,
            ("fax", job_id),
            now=now,
            details={"reason": reason},
        )
    claims.announce(runtime, Status.QUEUED, job_id, now)
    return job


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
        uncertain = session.scalars(
            sa.select(Attempt).where(Attempt.job_id == job.id, Attempt.number == job.attempts)
        ).one()
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
