"""Claims: who works on a due fax, and for how long; and the bell for faxes that nobody took.

A claim is a lease on the row with a fence number that rises with each claim: every later write of
the holder checks it, so a worker that slept past its lease changes nothing any more.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from faxbot.errors import DatabaseAway, LeaseLost
from faxbot.events import CLAIMABLE, Event, Status
from faxbot.models import Job
from faxbot.results import locked, record_event
from faxbot.runtime import Runtime

TASKS: dict[Status, str] = {
    Status.QUEUED: "faxbot.send_fax",
    Status.RETRYING: "faxbot.send_fax",
    Status.SUBMITTING: "faxbot.settle_fax",
    Status.SENT: "faxbot.poll_fax",
    Status.UNCERTAIN: "faxbot.look_up_fax",
    Status.HELD: "faxbot.review_fax",
}
"""Which bell the sweep rings for a due fax of each open status."""


_CLAIMABLE = [status.value for status in CLAIMABLE]


def claim(runtime: Runtime, job_id: str) -> Job | None:
    """Take a due fax for this worker: lease and raised fence committed, status unchanged. None:
    nothing to do (any more).

    A fax past its deadline ends here as expired.
    """
    now = runtime.now()
    with runtime.database.transaction() as session:
        job: Job | None = session.scalar(
            sa.update(Job)
            .where(
                Job.id == job_id,
                Job.status.in_(_CLAIMABLE),
                Job.next_at <= now,
                sa.or_(Job.lease_until.is_(None), Job.lease_until < now),
            )
            .values(
                fence=Job.fence + 1,
                lease_until=now + timedelta(seconds=runtime.config.lease_seconds),
            )
            .returning(Job)
        )
        if job is None:
            return None
        if job.expires_at is not None and job.expires_at <= now:
            record_event(
                session, job, Event.EXPIRED, status=Status.EXPIRED, now=now, source="worker"
            )
            return None
    return job


@contextmanager
def keeping(runtime: Runtime, job: Job) -> Iterator[None]:
    """Prolong the claim's lease in the background while the body runs."""
    config, done = runtime.config, threading.Event()

    def beat() -> None:
        while not done.wait(config.heartbeat_seconds):
            # With the database away the lease runs out, as it must: nobody can say any more that it is ours.
            with suppress(DatabaseAway):
                if not _prolong(runtime, job):
                    return

    heart = threading.Thread(target=beat, name="lease", daemon=True)
    heart.start()
    try:
        yield
    finally:
        done.set()
        heart.join()


def _prolong(runtime: Runtime, job: Job) -> bool:
    until = runtime.now() + timedelta(seconds=runtime.config.lease_seconds)
    with runtime.database.transaction() as session:
        kept = session.execute(
            sa.update(Job)
            .where(Job.id == job.id, Job.fence == job.fence, Job.lease_until.is_not(None))
            .values(lease_until=until)
        )
    return bool(kept.rowcount)  # type: ignore[attr-defined] # a cursor result has it


def release(
    runtime: Runtime, job: Job, *, wait: float = 0.0, until: datetime | None = None
) -> None:
    """Give a claim back before the intent, to be taken again after `wait` seconds or at `until`;
    costs no attempt. Nothing when the lease is lost already."""
    next_at = until or runtime.now() + timedelta(seconds=wait)
    next_at = min(next_at, job.expires_at or next_at)
    with runtime.database.transaction() as session:
        session.execute(
            sa.update(Job)
            .where(Job.id == job.id, Job.fence == job.fence, Job.status.in_(_CLAIMABLE))
            .values(lease_until=None, next_at=next_at, rung_at=None)
        )


def announce_due(runtime: Runtime, status: Status, *, limit: int = 500) -> int:
    """Ring the bell for faxes of one open status that are due and were not announced lately; how
    many.

    "Older than", never "between": what a long outage left behind is found as well.
    """
    now = runtime.now()
    stale = now - timedelta(seconds=runtime.config.ring_again_seconds)
    waiting = [
        Job.status == status.value,
        Job.next_at <= now,
        sa.or_(Job.rung_at.is_(None), Job.rung_at < Job.next_at, Job.rung_at <= stale),
        sa.or_(Job.lease_until.is_(None), Job.lease_until < now),
    ]
    with runtime.database.transaction() as session:
        due = session.scalars(
            sa.select(Job.id)
            .where(*waiting)
            .order_by(Job.next_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        ).all()
        if due:
            session.execute(sa.update(Job).where(Job.id.in_(due)).values(rung_at=now))
    for job_id in due:
        runtime.ring(TASKS[status], job_id)
    return len(due)


def still_mine(session: Session, job: Job) -> Job:
    """The claimed job under its lock; raises LeaseLost when the claim was lost or the fax was
    cancelled meanwhile."""
    current = locked(session, job.id, fence=job.fence)
    if Status(current.status) not in CLAIMABLE:
        raise LeaseLost
    return current
