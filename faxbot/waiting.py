"""What waits for a person, by cause: held and uncertain faxes, and those that were not sent though another try might go
through. Never more rows are read than somebody can work on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from faxbot import jobs, resending
from faxbot.actors import Actor
from faxbot.db import first_id, table
from faxbot.events import CAUSES, WAIT_ENDS, Status
from faxbot.models import FaxEvent, Job
from faxbot.runtime import Runtime

MOST = 1000
"""So many faxes of each status are looked at; more are not counted."""
SHOWN = 10
"""Faxes of a group that are described one by one."""
LATELY = timedelta(days=3)
"""A fax that was not sent is for a person for so long, over a weekend, or until it is sent once more."""
STATUSES = (Status.HELD, Status.UNCERTAIN, Status.FAILED)
_MOST_EVENTS = 1000


@dataclass(frozen=True, slots=True)
class Cause:
    """Why faxes wait: their status, and its reason."""

    status: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class Group:
    """Faxes that wait for the same."""

    cause: Cause
    ids: tuple[str, ...]
    provider_ids: tuple[str, ...]
    """Whose matter it is, as far as providers were chosen."""
    more: bool
    """Whether there may be others: MOST were looked at."""
    since: datetime | None
    """Since when the one waits that was made first."""
    faxes: tuple[dict[str, Any], ...]
    """The first SHOWN as jobs.describe() gives them, numbers masked."""


def groups(runtime: Runtime, actor: Actor) -> list[Group]:
    """Everything that waits, the largest group of a status first; raises DatabaseAway."""
    found = []
    for status in STATUSES:
        causes, more = _of_status(runtime, actor, status)
        by_size = sorted(causes.items(), key=lambda pair: -len(pair[1]))
        first = [row.id for _, rows in by_size for row in rows[:SHOWN]]
        described = _described(runtime, first)
        for cause, rows in by_size:
            ids = tuple(row.id for row in rows)
            providers = {row.provider_id for row in rows if row.provider_id}
            shown = tuple(described[each] for each in ids[:SHOWN] if each in described)
            since = _since(runtime, status, min(ids))
            found.append(Group(cause, ids, tuple(sorted(providers)), more, since, shown))
    return found


def faxes_of(runtime: Runtime, actor: Actor, cause: Cause) -> list[str]:
    """The ids of the faxes that wait for this now, at most MOST; raises DatabaseAway."""
    causes, _ = _of_status(runtime, actor, Status(cause.status))
    return [row.id for row in causes.get(cause, ())]


def _of_status(
    runtime: Runtime, actor: Actor, status: Status
) -> tuple[dict[Cause, list[sa.Row[Any]]], bool]:
    """Faxes by cause, and whether there may be others. Held and uncertain ones: those first that were made first."""
    failed = status is Status.FAILED
    since = first_id(runtime.now() - LATELY) if failed else ""
    names = {"account_id": actor.account_id, "status": status.value, "since": since}
    rows = runtime.database.rows(_NEWEST if failed else _OLDEST, names)
    looked_at = _to_be_sent_anew(runtime, rows[:MOST]) if failed else rows[:MOST]
    found: dict[Cause, list[sa.Row[Any]]] = {}
    for row in looked_at:
        found.setdefault(Cause(status.value, row.reason), []).append(row)
    return found, len(rows) > MOST


def _to_be_sent_anew(runtime: Runtime, failed: Iterable[sa.Row[Any]]) -> list[sa.Row[Any]]:
    """Those that another try might help, and that nobody has sent once more."""
    may_help = [row for row in failed if row.reason in CAUSES and CAUSES[row.reason].retryable]
    done = resending.sent_anew(runtime, [row.id for row in may_help])
    return [row for row in may_help if row.id not in done]


_FAXES = (
    sa.select(Job.id, Job.reason, Job.provider_id)
    .where(
        Job.account_id == sa.bindparam("account_id"),
        Job.status == sa.bindparam("status"),
        Job.id >= sa.bindparam("since"),
    )
    .limit(MOST + 1)
)
_OLDEST, _NEWEST = _FAXES.order_by(Job.id), _FAXES.order_by(Job.id.desc())


def _described(runtime: Runtime, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    rows = runtime.database.rows(_THESE, {"ids": list(ids)})
    return {row.id: jobs.describe(runtime, row, masked=True) for row in rows}


_THESE = sa.select(table(Job)).where(Job.id.in_(sa.bindparam("ids", expanding=True)))


def _since(runtime: Runtime, status: Status, job_id: str) -> datetime | None:
    """Since when a fax waits: one that is let go, tried and held again has waited all the time."""
    ends = WAIT_ENDS.get(status, ())
    since: datetime | None = None
    for event in runtime.database.rows(_EVENTS, {"job_id": job_id}):
        if event.status in ends:
            break
        if event.status == status:
            since = event.recorded_at
    return since


_EVENTS = (
    sa.select(FaxEvent.status, FaxEvent.recorded_at)
    .where(FaxEvent.job_id == sa.bindparam("job_id"))
    .order_by(FaxEvent.sequence.desc())
    .limit(_MOST_EVENTS)
)
