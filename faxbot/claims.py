"""Claims: who works on a due fax, and for how long; and the bell for faxes that nobody took.

A claim is a lease on the row with a fence number that rises with each claim: every later write of
the holder checks it, so a worker that slept past its lease changes nothing any more.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from faxbot.db import UtcDateTime, first_id, table
from faxbot.errors import DatabaseAway, LeaseLost
from faxbot.events import CLAIMABLE, Event, Status
from faxbot.models import IS_OPEN, Job, JobRow
from faxbot.results import locked, record_event
from faxbot.runtime import Runtime
from faxbot.shares import HALF_LIFE, URGENT, behind, has_too_many

log = logging.getLogger(__name__)

TASKS: dict[Status, str] = {
    Status.QUEUED: "faxbot.send_fax",
    Status.RETRYING: "faxbot.send_fax",
    Status.SUBMITTING: "faxbot.settle_fax",
    Status.SENT: "faxbot.poll_fax",
    Status.UNCERTAIN: "faxbot.look_up_fax",
    Status.HELD: "faxbot.review_fax",
}
"""Which bell the sweep rings for a due fax of each open status."""
POISON = "poison"
DEATHS = 3
"""Workers that may die at a fax before its call; then it is at fault, and not they."""
AGING = 8
"""Priority that a waiting fax gains in a minute: in half an hour the lowest overtakes the highest."""
CROWDED = 500
"""So many unanswered rings in a queue mean that a fax is not forgotten: workers have much to do."""
RING_AGAIN_CROWDED = 300.0
"""Seconds after which the bell is rung again then: what has waited for long is more urgent by now."""


SINCE = sa.case(
    (Job.waiting.is_(None), Job.next_at),
    (Job.send_at > Job.updated_at, Job.send_at),
    else_=Job.updated_at,
)
"""Since when a fax waits; one that waits for its turn is looked at now and then, and grows no
younger by that."""


_CLAIMABLE = [status.value for status in CLAIMABLE]
_NOW = sa.bindparam("now", type_=UtcDateTime)
# Made once: building a statement costs more than running it.
_CLAIM = (
    sa.update(table(Job))
    .where(
        Job.id == sa.bindparam("job_id"),
        Job.status.in_(_CLAIMABLE),
        Job.next_at <= _NOW,
        sa.or_(Job.lease_until.is_(None), Job.lease_until < _NOW),
    )
    .values(
        fence=Job.fence + 1,
        lease_until=sa.bindparam("until", type_=UtcDateTime),
        # Who gives a claim back clears its lease: one that ran out was left by a dead worker.
        deaths=Job.deaths + sa.case((Job.lease_until.is_(None), 0), else_=1),
    )
    .returning(table(Job))
)


def claim(runtime: Runtime, job_id: str) -> JobRow | None:
    """Take a due fax for this worker: lease and raised fence committed, status unchanged; the job
    as it is then. None: nothing to do (any more).

    A fax past its deadline ends here as expired, and one that was the death of three workers as
    poison; not while it is in doubt since a restore: it may have been sent.
    """
    now = runtime.now()
    until = now + timedelta(seconds=runtime.config.lease_seconds)
    job = runtime.database.row(_CLAIM, {"job_id": job_id, "now": now, "until": until})
    late = job is not None and job.expires_at is not None and job.expires_at <= now
    if job is None or not (late or job.deaths >= DEATHS) or runtime.restores.doubts(job, now):
        return job
    with suppress(LeaseLost), runtime.database.transaction() as session:
        current = still_mine(session, job)
        if not expire(session, current, now, "worker"):
            _set_aside(session, current, now)
    return None


def _set_aside(session: Session, job: Job, now: datetime) -> None:
    """End a fax that nobody survives preparing, so that the others are sent."""
    log.error("poison: this fax is set aside", extra={"job_id": job.id, "deaths": job.deaths})
    job.reason = POISON
    record_event(
        session, job, Event.FAILED, status=Status.FAILED, cause=POISON, now=now, source="worker"
    )


def expire(session: Session, job: Job, now: datetime, source: str) -> bool:
    """End a locked fax whose deadline has passed; whether it had."""
    if job.expires_at is None or job.expires_at > now:
        return False
    record_event(session, job, Event.EXPIRED, status=Status.EXPIRED, now=now, source=source)
    return True


def keeping(runtime: Runtime, job: JobRow) -> AbstractContextManager[None]:
    """Prolong the claim's lease in the background while the body runs."""
    return runtime.leases.keep(job.id, job.fence, runtime.now)


def release(runtime: Runtime, job: JobRow, *, until: datetime | None = None) -> None:
    """Give a claim back before the intent, to be taken again at once or at `until`; costs no
    attempt. Nothing when the lease is lost already."""
    next_at = by_deadline(job, until or runtime.now())
    with runtime.database.transaction() as session:
        session.execute(
            sa.update(Job)
            .where(Job.id == job.id, Job.fence == job.fence, Job.status.in_(_CLAIMABLE))
            .values(lease_until=None, next_at=next_at, rung_at=None)
        )


def by_deadline(job: Job | JobRow, at: datetime) -> datetime:
    """`at`, or the fax's deadline when that comes first: it is looked at no later, and ends."""
    return at if job.expires_at is None else min(at, job.expires_at)


def let_go(session: Session, job: Job, now: datetime, source: str) -> bool:
    """End the wait of a locked fax that is held: it goes at its planned time; whether that is over, and
    the fax to be announced.
    """
    reason, next_at = job.reason, by_deadline(job, max(now, job.send_at or now))
    job.reason, job.next_at, job.rung_at = None, next_at, now
    record_event(
        session, job, Event.RELEASED, status=Status.QUEUED, reason=reason, now=now, source=source
    )
    return next_at <= now


def announce_due(runtime: Runtime, status: Status, *, limit: int = 500) -> int:
    """Ring the bell for faxes of one open status that are due and were not announced lately, higher
    priorities first; how many.

    "Older than", never "between": what a long outage left behind is found as well.
    """
    now = runtime.now()
    waiting: list[sa.ColumnExpressionArgument[bool]] = [
        sa.text(IS_OPEN),
        Job.status == status.value,
        Job.next_at <= now,
        sa.or_(
            Job.rung_at.is_(None),
            Job.rung_at < Job.next_at,
            Job.rung_at < Job.lease_until,  # that ring was answered, by a worker that is gone
            Job.rung_at <= now - timedelta(seconds=ring_again(runtime, TASKS[status])),
        ),
        sa.or_(Job.lease_until.is_(None), Job.lease_until < now),
    ]
    with runtime.database.transaction() as session:
        due = session.execute(
            sa.select(Job.id, Job.account_id, Job.priority, SINCE.label("since"))
            .where(*waiting)
            .order_by(Job.priority.desc(), Job.next_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        ).all()
        if due:
            ids = [job.id for job in due]
            session.execute(sa.update(Job).where(Job.id.in_(ids)).values(rung_at=now))
            # Who waits is not all who come: the others' faxes may be sent before they are announced again.
            lately = first_id(now - timedelta(seconds=HALF_LIFE))
            faxes_of = _submitted_since(session, lately)
            faxes_of.update(job.account_id for job in due if job.id < lately)
    for count, job in enumerate(due):
        surges = has_too_many(faxes_of[job.account_id], faxes_of.values())
        priority = behind(job.priority) if surges else job.priority
        if status is Status.SUBMITTING:
            priority = URGENT  # it may be out; to settle it asks nobody, and takes no time
        if not runtime.ring(TASKS[status], job.id, _aged(priority, now - job.since)):
            _not_rung(runtime, [left.id for left in due[count:]], now)
            return count
    return len(due)


def _submitted_since(session: Session, job_id: str) -> Counter[str]:
    # Counted here: for a GROUP BY, SQLite reads the index of accounts from end to end.
    return Counter(session.scalars(sa.select(Job.account_id).where(Job.id >= job_id)))


def announce(
    runtime: Runtime, status: Status, job_id: str, noted: datetime, urgency: int = URGENT
) -> None:
    """Ring the bell for a fax whose row says so already, with `noted`. Where the broker does not take
    it, the row says so too: in a crowded queue the sweep would wait for long."""
    if not runtime.ring(TASKS[status], job_id, urgency):
        with suppress(DatabaseAway):
            _not_rung(runtime, [job_id], noted)


def ring_again(runtime: Runtime, task: str) -> float:
    """Seconds after which an unanswered ring is taken for lost. In a crowded queue that is late: each
    ring more would make the others wait longer, those for other faxes among them."""
    soon = runtime.config.ring_again_seconds
    return soon if runtime.unanswered(task) < CROWDED else max(soon, RING_AGAIN_CROWDED)


def _aged(priority: int, waited: timedelta) -> int:
    """What has waited for long becomes more urgent, so that it does not wait for ever."""
    return min(URGENT, priority + int(AGING * waited.total_seconds() / 60))


def wake_held(
    runtime: Runtime,
    account_id: str,
    reasons: Sequence[str],
    *,
    until: datetime | None = None,
    limit: int = 500,
) -> int:
    """Have faxes that are held for these reasons, and would be looked at by `until` (None: ever),
    looked at again now, those first that have not been for the longest; how many. Never all at
    once: there may be thousands."""
    now = runtime.now()
    later = [] if until is None else [Job.next_at <= until]
    with runtime.database.transaction() as session:
        waiting = session.scalars(
            sa.select(Job.id)
            .where(
                sa.text(IS_OPEN),
                Job.status == Status.HELD.value,
                Job.account_id == account_id,
                Job.reason.in_(reasons),
                Job.next_at > now,
                *later,
            )
            .order_by(Job.next_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        ).all()
        if waiting:
            session.execute(
                sa.update(Job).where(Job.id.in_(waiting)).values(next_at=now, rung_at=None)
            )
    return len(waiting)


def _not_rung(runtime: Runtime, job_ids: Sequence[str], noted: datetime) -> None:
    """Take the note of a ring back that the broker did not take: the next sweep tries again."""
    with runtime.database.transaction() as session:
        session.execute(
            sa.update(Job).where(Job.id.in_(job_ids), Job.rung_at == noted).values(rung_at=None)
        )


def still_mine(session: Session, job: JobRow) -> Job:
    """The claimed job under its lock; raises LeaseLost when the claim was lost or the fax was
    cancelled meanwhile."""
    current = locked(session, job.id, fence=job.fence)
    if Status(current.status) not in CLAIMABLE:
        raise LeaseLost
    return current
