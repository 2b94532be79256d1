"""Carriers' own copies of documents: deleted there once a fax has ended, where the carrier can and that is wished
(FAXBOT_DELETE_AT_CARRIER).

The wish is a time in the attempt's row, so that no restart forgets it. To delete twice does no harm, so nobody takes
turns; the carrier is asked with no transaction open.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from faxbot import claims, guard
from faxbot.db import UtcDateTime, table
from faxbot.errors import FaxbotError
from faxbot.models import HAS_COPY, Attempt
from faxbot.plugins.base import TransportPlugin
from faxbot.runtime import Runtime

log = logging.getLogger(__name__)

TASK = "faxbot.delete_copy"
SOONEST, LATEST = timedelta(minutes=1), timedelta(hours=6)
"""Between two tries: as long as the fax has ended, within these."""
GIVEN_UP = timedelta(days=7)
"""A carrier that has not deleted it by then does not: a person must."""


def announce_due(runtime: Runtime, *, limit: int = 500) -> int:
    """Ring for copies that are due, as long as the broker takes it; how many."""
    now = runtime.now()
    unanswered = max(SOONEST, timedelta(seconds=claims.ring_again(runtime, TASK)))
    with runtime.database.transaction() as session:
        due = session.scalars(
            sa.select(Attempt.id)
            .where(sa.text(HAS_COPY), Attempt.delete_copy_at <= now)
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
    at = None if _is_done(runtime, this) else _again_at(runtime.now(), this.ended_at)
    runtime.database.row(_NEXT, {"attempt_id": attempt_id, "at": at})


_OF_ATTEMPT = Attempt.id == sa.bindparam("attempt_id")
_WISHED = sa.select(table(Attempt)).where(_OF_ATTEMPT, sa.text(HAS_COPY))
_NEXT = (
    sa.update(table(Attempt))
    .where(_OF_ATTEMPT)
    .values(delete_copy_at=sa.bindparam("at", type_=UtcDateTime))
    .returning(table(Attempt).c.id)
)


def _is_done(runtime: Runtime, this: sa.Row[Any]) -> bool:
    """Whether there is nothing left to do, or to hope for."""
    if this.external_id is None:
        return True
    names = {"provider_id": this.provider_id, "job_id": this.job_id}
    if runtime.now() - this.ended_at >= GIVEN_UP:
        log.error("copy not deleted at the carrier", extra=names)
        return True
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


def _again_at(now: datetime, ended_at: datetime) -> datetime:
    return now + min(max(now - ended_at, SOONEST), LATEST)
