"""The results table: append FAX_* events, and with them move a fax's status; read the timeline
back.

record_event() is the only writer of a status. Status is the fold of the events: the next sequence
number, the check against
the transition table and the new status happen under the job's row lock, in the caller's
transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypedDict, Unpack

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from faxbot import events, fanout
from faxbot.db import Database, among, table
from faxbot.errors import LeaseLost, NotFound, TransitionRefused
from faxbot.events import Event, Reception, Status
from faxbot.fanout import fan_out
from faxbot.models import Attempt, FaxEvent, InboundFax, Job, JobRow


def locked(session: Session, job_id: str, *, fence: int | None = None) -> Job:
    """The job under its row lock until the transaction ends.

    With `fence`: raises LeaseLost when another claim came after the one with this number. Raises
    NotFound.
    """
    job = session.scalar(_LOCKED, {"job_id": job_id})
    if job is None:
        raise NotFound("there is no fax with this id")
    if fence is not None and job.fence != fence:
        raise LeaseLost
    return job


def locked_with(
    session: Session, attempt_id: str, *, fence: int | None = None
) -> tuple[Job, Attempt]:
    """An attempt and its job under their locks (the job's first, as everywhere).

    Raises LeaseLost as locked() does, NotFound.
    """
    found = session.execute(_LOCKED_WITH, {"attempt_id": attempt_id}).first()
    if found is None:
        raise NotFound("there is no fax with this attempt")
    if fence is not None and found.Job.fence != fence:
        raise LeaseLost
    return found.Job, found.Attempt


# Statements of the hot road are made once: building one costs more than running it.
_LOCKED = (
    sa.select(Job)
    .where(Job.id == sa.bindparam("job_id"))
    .with_for_update()
    .execution_options(populate_existing=True)
)
_LOCKED_WITH = (
    sa.select(Job, Attempt)
    .join_from(Job, Attempt, Attempt.job_id == Job.id)
    .where(Attempt.id == sa.bindparam("attempt_id"))
    .with_for_update()
    .execution_options(populate_existing=True)
)
_FAX_EVENTS = table(FaxEvent)
_APPEND = sa.insert(_FAX_EVENTS).inline()


class Facts(TypedDict, total=False):
    """What an event may say beside who, what and when; `key` names the news, for a repeat of it."""

    cause: str | None
    reason: str | None
    pages_sent: int | None
    key: str | None
    occurred_at: datetime | None


def record_event(
    session: Session,
    job: Job,
    event: Event,
    *,
    now: datetime,
    source: str,
    status: Status | None = None,
    attempt: Attempt | None = None,
    **facts: Unpack[Facts],
) -> bool:
    """Append one event to a locked job and move its status to `status` (None: it stays).

    `key` names the news: when the job has an event of that key already, nothing happens and the
    answer is False.
    Raises TransitionRefused for a step that events.TRANSITIONS does not hold.
    """
    before = Status(job.status)
    after = before if status is None else status
    if not events.allowed(before, after, event):
        raise TransitionRefused(f"{event} may not lead from {before} to {after}")
    key = facts.get("key")
    if key is not None and _known(session, job.id, key):
        return False
    job.last_sequence += 1
    job.status = after.value
    job.updated_at = now
    if after is not before:
        job.waiting = None
    if after in events.TERMINAL:
        job.next_at = job.lease_until = None
    row = event_row(job, event, now=now, source=source, status=after, attempt=attempt, **facts)
    # Each move is written by itself: the database judges pairs, and two events may come in one visit.
    session.flush()
    append(session, row)
    return True


def record_reception(
    session: Session, fax: InboundFax, event: Event, status: Reception, *, now: datetime
) -> None:
    """Append one event to a locked received fax, and move its status."""
    fax.last_sequence += 1
    fax.status = status.value
    fax.updated_at = now
    row = {
        "account_id": fax.account_id,
        "inbound_id": fax.id,
        "sequence": fax.last_sequence,
        "type": event.value,
        "schema_version": events.SCHEMA_VERSION,
        "status": status.value,
        "attempt": None,
        "provider_id": fax.provider_id,
        "cause": fax.cause,
        "pages": fax.pages,
        "pages_sent": None,
        "source": "worker",
        "occurred_at": fax.received_at,
        "recorded_at": now,
    }
    session.flush()
    append(session, row)


def append(held: Session | Connection, row: dict[str, Any]) -> None:
    """Append one event (event_row), and tell its subscribers; the one way in beside purge()."""
    held.execute(_APPEND, row)
    fan_out(held, row)


def purge(
    held: Connection,
    faxes: sa.Table,
    ids: Sequence[str],
    reason: str,
    *,
    now: datetime,
    removed: Mapping[str, Any] | None = None,
) -> int:
    """Set these columns of locked faxes (of `faxes`: jobs, or received ones), append a FAX_PURGED to each, and tell
    their subscribers; how many faxes it were. Status and updated_at stay: nothing has happened to the fax. Of many
    thousands none comes into this process, unless somebody wants to be told."""
    its = among(held, faxes.c.id, ids)
    values = {**(removed or {}), "last_sequence": faxes.c.last_sequence + 1}
    changed = held.execute(sa.update(faxes).where(its).values(**values)).rowcount
    event: dict[str, Any] = {
        "account_id": faxes.c.account_id,
        "sequence": faxes.c.last_sequence,
        "type": Event.PURGED.value,
        "schema_version": events.SCHEMA_VERSION,
        "status": faxes.c.status,
        "reason": reason,
        "pages": faxes.c.pages,
        "source": "sweep",
        "occurred_at": now,
        "recorded_at": now,
    }
    if faxes is table(Job):
        event |= {"job_id": faxes.c.id, "key": f"purged:{reason}"}
    else:
        event |= {"inbound_id": faxes.c.id}
    query = sa.select(
        *(
            each if isinstance(each, sa.Column) else sa.literal(each, _FAX_EVENTS.c[name].type)
            for name, each in event.items()
        )
    )
    insert = sa.insert(_FAX_EVENTS).from_select(list(event), query.where(its).order_by(faxes.c.id))
    if not fanout.concerns_anybody(held, Event.PURGED):
        held.execute(insert)
        return changed
    for row in held.execute(insert.returning(*_FAX_EVENTS.c)).all():
        fan_out(held, row._asdict())
    return changed


def event_row(
    job: Job | JobRow,
    event: Event,
    *,
    now: datetime,
    source: str,
    status: Status,
    attempt: Attempt | None = None,
    **facts: Unpack[Facts],
) -> dict[str, Any]:
    """The values of one event row for the job's current sequence number."""
    return {
        "account_id": job.account_id,
        "job_id": job.id,
        "sequence": job.last_sequence,
        "type": event.value,
        "schema_version": events.SCHEMA_VERSION,
        "status": status.value,
        "attempt": attempt.number if attempt else None,
        "provider_id": attempt.provider_id if attempt else None,
        "cause": facts.get("cause"),
        "reason": facts.get("reason"),
        "pages": job.pages,
        "pages_sent": facts.get("pages_sent"),
        "source": source,
        "key": facts.get("key"),
        "occurred_at": facts.get("occurred_at") or now,
        "recorded_at": now,
    }


def _known(session: Session, job_id: str, key: str) -> bool:
    return (
        session.scalar(sa.select(sa.exists().where(FaxEvent.job_id == job_id, FaxEvent.key == key)))
        is True
    )


def timeline(database: Database, job_id: str) -> dict[str, list[dict[str, Any]]]:
    """{"events": [...], "attempts": [...]} as plain JSON types, oldest first; no PHI in it."""
    of_job = {"job_id": job_id}
    return {
        "events": [_event_json(event) for event in database.rows(_EVENTS, of_job)],
        "attempts": [_attempt_json(attempt) for attempt in database.rows(_ATTEMPTS, of_job)],
    }


_EVENTS = (
    sa.select(table(FaxEvent))
    .where(FaxEvent.job_id == sa.bindparam("job_id"))
    .order_by(FaxEvent.sequence)
)
_ATTEMPTS = (
    sa.select(table(Attempt))
    .where(Attempt.job_id == sa.bindparam("job_id"))
    .order_by(Attempt.number)
)


def _event_json(event: sa.Row[Any]) -> dict[str, Any]:
    return {
        "sequence": event.sequence,
        "type": event.type,
        "status": event.status,
        "attempt": event.attempt,
        "provider_id": event.provider_id,
        "cause": event.cause,
        "reason": event.reason,
        "pages": event.pages,
        "pages_sent": event.pages_sent,
        "source": event.source,
        "occurred_at": stamp(event.occurred_at),
        "recorded_at": stamp(event.recorded_at),
    }


def _attempt_json(attempt: sa.Row[Any]) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "provider_id": attempt.provider_id,
        "tag": attempt.tag,
        "external_id": attempt.external_id,
        "outcome": attempt.outcome,
        "cause": attempt.cause,
        "counted": attempt.counted,
        "pages_sent": attempt.pages_sent,
        "planned_at": stamp(attempt.planned_at),
        "intended_at": stamp(attempt.intended_at),
        "accepted_at": stamp(attempt.accepted_at),
        "ended_at": stamp(attempt.ended_at),
    }


def stamp(at: datetime | None) -> str | None:
    """An aware time as RFC 3339 in UTC with Z, microseconds kept."""
    return None if at is None else at.isoformat().replace("+00:00", "Z")
