"""Carriers' own copies of documents: deleted there once a fax has ended, where the carrier can and that is wished
(FAXBOT_DELETE_AT_CARRIER), or when retention has removed ours; never of a fax under a legal hold.

The wish is a time in the attempt's row, so that no restart forgets it. To delete twice does no harm, so nobody takes
turns; the carrier is asked with no transaction open.
"""

from __future__ import annotations

import logging
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from faxbot import claims, guard
from faxbot.db import UtcDateTime, table
from faxbot.errors import FaxbotError
from faxbot.models import HAS_COPY, Attempt, Job
from faxbot.plugins.base import TransportPlugin
from faxbot.runtime import Runtime

log = logging.getLogger(__name__)

TASK = "faxbot.delete_copy"
_IS_HELD = sa.exists().where(Job.id == Attempt.job_id, Job.legal_hold_at.is_not(None))
SOONEST, LATEST = timedelta(minutes=1), timedelta(hours=6)
"""Between two tries: for as long as it has been wanted, within these."""
GIVEN_UP = timedelta(days=7)
"""A carrier that has not deleted it by then does not: a person must."""
LATE = timedelta(days=1)
"""By then people are to know."""


def announce_due(runtime: Runtime, *, limit: int = 500) -> int:
    """Ring for copies that are due, as long as the broker takes it; how many."""
    now = runtime.now()
    unanswered = max(SOONEST, timedelta(seconds=claims.ring_again(runtime, TASK)))
    with runtime.database.transaction() as session:
        due = session.scalars(
            sa.select(Attempt.id)
            .where(sa.text(HAS_COPY), Attempt.delete_copy_at <= now, ~_IS_HELD)
            .order_by(Attempt.delete_copy_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        ).all()
        if due:
            again = {"delete_copy_at": now + unanswered}
            session.execute(sa.update(Attempt).where(Attempt.id.in_(due)).values(again))
    for count, attempt_id in enumerate(due):
        if not runtime.ring(TASK, attempt_id):
            return count
    return len(due)


def delete(runtime: Runtime, attempt_id: str) -> None:
    """Have the carrier delete its copy of one attempt's document; nothing when that is done. Safe to
    call any number of times."""
    this = runtime.database.row(_WISHED, {"attempt_id": attempt_id})
    if this is None:
        return
    since, now = this.copy_wanted_at or this.ended_at, runtime.now()
    words: dict[str, Any] = {"attempt_id": attempt_id, "at": None, "deleted": this.copy_deleted_at}
    if this.external_id is None:
        pass
    elif _deleted(runtime, this):
        words["deleted"] = now
    elif now - since >= GIVEN_UP:
        names = {"provider_id": this.provider_id, "job_id": this.job_id}
        log.error("copy not deleted at the carrier", extra=names)
    else:
        words["at"] = _again_at(now, since)
    runtime.database.row(_NEXT, words)


_OF_ATTEMPT = Attempt.id == sa.bindparam("attempt_id")
_WISHED = sa.select(table(Attempt)).where(_OF_ATTEMPT, sa.text(HAS_COPY), ~_IS_HELD)
_NEXT = (
    sa.update(table(Attempt))
    .where(_OF_ATTEMPT)
    .values(
        delete_copy_at=sa.bindparam("at", type_=UtcDateTime),
        copy_deleted_at=sa.bindparam("deleted", type_=UtcDateTime),
    )
    .returning(table(Attempt).c.id)
)


def _deleted(runtime: Runtime, this: sa.Row[Any]) -> bool:
    """Whether the carrier has deleted it, or has no way to."""
    names = {"provider_id": this.provider_id, "job_id": this.job_id}
    if guard.is_disabled(runtime, this.account_id, this.provider_id):
        return False
    try:
        if runtime.plugins.manifest(this.provider_id).has("deletes_copy"):
            runtime.plugins.get(this.provider_id, TransportPlugin).delete_copy(this.external_id)
    except FaxbotError as error:
        log.warning("copy not deleted yet", extra={**names, "error": error.code})
        return False
    except Exception as error:  # noqa: BLE001 - a plugin's bug; its text may hold anything
        log.warning("copy not deleted yet", extra={**names, "error": type(error).__name__})
        guard.failed(runtime, this.account_id, this.provider_id, error)
        return False
    return True


def _again_at(now: datetime, since: datetime) -> datetime:
    return now + min(max(now - since, SOONEST), LATEST)


def late(runtime: Runtime, *, most: int) -> dict[str, int]:
    """By provider how many documents it still has that it was first asked to delete more than LATE ago, up to `most` in
    all. Raises DatabaseAway."""
    rows = runtime.database.rows(_LATE.limit(most), {"since": runtime.now() - LATE})
    return Counter(row.provider_id for row in rows)


_LATE = sa.select(table(Attempt).c.provider_id).where(
    sa.text(HAS_COPY),
    sa.func.coalesce(Attempt.copy_wanted_at, Attempt.ended_at)
    < sa.bindparam("since", type_=UtcDateTime),
    ~_IS_HELD,
)
