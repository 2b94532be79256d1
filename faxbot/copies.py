"""Carriers' own copies of documents, sent or received: deleted there once a fax has ended, or is stored here, where the
carrier can and that is wished (FAXBOT_DELETE_AT_CARRIER), or when retention has removed ours; never of a fax under a
legal hold.

The wish is a time in the row of the attempt, or of the received fax, so that no restart forgets it. To delete twice
does no harm, so nobody takes turns; the carrier is asked with no transaction open.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from faxbot import claims, guard
from faxbot.db import UtcDateTime, table
from faxbot.errors import FaxbotError, PluginError
from faxbot.models import HAS_COPY, Attempt, InboundFax, Job
from faxbot.plugins.base import TransportPlugin
from faxbot.runtime import Runtime

log = logging.getLogger(__name__)

TASK = "faxbot.delete_copy"
SOONEST, LATEST = timedelta(minutes=1), timedelta(hours=6)
"""Between two tries: for as long as it has been wanted, within these."""
GIVEN_UP = timedelta(days=7)
"""A carrier that has not deleted it by then does not: a person must."""
LATE = timedelta(days=1)
"""By then people are to know."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """Rows of which each says whether a carrier's copy of one document is to go."""

    of: sa.Table
    fax_id: sa.Column[str]
    named: str
    """How the log calls that."""
    since: sa.ColumnElement[datetime]
    """From when on the copy is to go."""
    is_held: sa.ColumnElement[bool]

    def wished(self, *columns: sa.ColumnElement[Any]) -> sa.Select[Any]:
        """Of those whose copy is to go, now or later."""
        return sa.select(*columns).where(sa.text(HAS_COPY), ~self.is_held)

    def one(self) -> sa.Select[Any]:
        """The row `row_id`, if it is one of them."""
        its = self.of.c
        columns = (its.id, its.account_id, its.provider_id, its.external_id, its.copy_deleted_at)
        names = (self.fax_id.label("fax_id"), self.since.label("since"))
        return self.wished(*columns, *names).where(its.id == sa.bindparam("row_id"))

    def next(self) -> sa.sql.dml.ReturningUpdate[Any]:
        """What is to come of the row `row_id`; nothing where another one has had it deleted meanwhile."""
        return (
            sa.update(self.of)
            .where(self.of.c.id == sa.bindparam("row_id"), sa.text(HAS_COPY))
            .values(
                delete_copy_at=sa.bindparam("at", type_=UtcDateTime),
                copy_deleted_at=sa.bindparam("deleted", type_=UtcDateTime),
            )
            .returning(self.of.c.id)
        )


_ATTEMPTS, _INBOUND, _JOBS = table(Attempt), table(InboundFax), table(Job)
_KINDS = (
    _Kind(
        _ATTEMPTS,
        _ATTEMPTS.c.job_id,
        "job_id",
        sa.func.coalesce(_ATTEMPTS.c.copy_wanted_at, _ATTEMPTS.c.ended_at),
        sa.exists().where(_JOBS.c.id == _ATTEMPTS.c.job_id, _JOBS.c.legal_hold_at.is_not(None)),
    ),
    _Kind(
        _INBOUND,
        _INBOUND.c.id,
        "inbound_id",
        _INBOUND.c.copy_wanted_at,
        _INBOUND.c.legal_hold_at.is_not(None),
    ),
)


def announce_due(runtime: Runtime, *, limit: int = 500) -> int:
    """Ring for copies that are due, up to `limit` of sent faxes and as many of received ones, as long as the broker
    takes it; how many."""
    now = runtime.now()
    unanswered = max(SOONEST, timedelta(seconds=claims.ring_again(runtime, TASK)))
    due: list[str] = []
    with runtime.database.transaction() as session:
        for kind in _KINDS:
            at = kind.of.c.delete_copy_at
            some = session.scalars(
                kind.wished(kind.of.c.id)
                .where(at <= now)
                .order_by(at)
                .limit(limit)
                .with_for_update(of=kind.of, skip_locked=True)
            ).all()
            if some:
                again = sa.update(kind.of).where(kind.of.c.id.in_(some))
                session.execute(again.values(delete_copy_at=now + unanswered))
            due += some
    for count, row_id in enumerate(due):
        if not runtime.ring(TASK, row_id):
            return count
    return len(due)


def delete(runtime: Runtime, row_id: str) -> None:
    """Have the carrier delete its copy of the document of one attempt, or of one received fax; nothing when that is
    done. Safe to call any number of times."""
    for kind in _KINDS:
        this = runtime.database.row(kind.one(), {"row_id": row_id})
        if this is not None:
            _delete(runtime, kind, this)
            return


def _delete(runtime: Runtime, kind: _Kind, this: sa.Row[Any]) -> None:
    names = {"provider_id": this.provider_id, kind.named: this.fax_id}
    now = runtime.now()
    words: dict[str, Any] = {"row_id": this.id, "at": None, "deleted": this.copy_deleted_at}
    if this.external_id is None or _has_no_way(runtime, this.provider_id):
        pass  # the wish has ended, and nothing was deleted: retention asks once there is a way
    elif _deleted(runtime, this, names):
        words["deleted"] = now
    elif now - this.since >= GIVEN_UP:
        log.error("copy not deleted at the carrier", extra=names)
    else:
        words["at"] = _again_at(now, this.since)
    runtime.database.row(kind.next(), words)


def _has_no_way(runtime: Runtime, provider_id: str) -> bool:
    """Whether its plugin is there, and is none that can have a copy deleted."""
    try:
        return not runtime.plugins.manifest(provider_id).has("deletes_copy")
    except PluginError:
        return False


def _deleted(runtime: Runtime, this: sa.Row[Any], names: dict[str, str]) -> bool:
    """Whether the carrier has deleted it."""
    if guard.is_disabled(runtime, this.account_id, this.provider_id):
        return False
    try:
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
    rows = runtime.database.rows(_LATE.limit(most), {"before": runtime.now() - LATE})
    return Counter(row.provider_id for row in rows)


_LATE = sa.union_all(
    *(
        kind.wished(kind.of.c.provider_id).where(
            kind.since < sa.bindparam("before", type_=UtcDateTime)
        )
        for kind in _KINDS
    )
)
