"""What people must look at, because nobody else can mend it: said in /health/ready, and logged once an hour as long as
it lasts."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from faxbot import auditlog, copies, notifiers, retention
from faxbot.db import inserts, table
from faxbot.events import DEFAULT_ACCOUNT, WAIT_ENDS, Reception, Status
from faxbot.models import (
    IS_OPEN,
    ConfigVersion,
    FaxEvent,
    Heartbeat,
    InboundFax,
    Job,
    Webhook,
)
from faxbot.runtime import Runtime
from faxbot.webhooks import DISABLED, unopened

log = logging.getLogger(__name__)

AGAIN = timedelta(hours=1)
MOST = 1000
"""More are not counted."""
WAITS: dict[Status, str] = {
    Status.UNCERTAIN: (
        "whether the carrier has them is not known, and it does not say: find out, and settle them "
        "(POST /fax/ID/decide)"
    ),
    Status.HELD: "they are held: GET /fax?status=held says of each why, and what mends it",
}
RECEIVED = "received"
NOT_HAD = (
    "nobody has the documents of {} for more than {}: GET /inbound?status=fetching and ?status=failed say of each "
    "why; what is lost, mark as read"
)
MASTER_KEY = "master_key"
WEBHOOKS = "webhooks"
GIVEN_UP = (
    "were given up, because they fail or want nothing more: `faxbot webhooks list` names them; mend the receiver and "
    "have it tested (`faxbot webhooks test`), or delete the webhook"
)
SEALED = "webhooks_sealed"
SHUT = (
    "do not open, and nothing is sent there: CONFIG_MASTER_KEY (or master.key under FAX_DATA_DIR) is not the key that "
    "sealed them; give it back, or delete the webhook and make it anew"
)
NOTICES = "notices"
UNTOLD = (
    "people are not told of faxes by {}: {}; `faxbot notifications test` says what is wrong, and "
    "`faxbot notifications list` what waits"
)
UNFINISHED = "a new master key was begun with: `faxbot config rotate-key` ends it; keep the old key till then"
AUDIT_LOG = "audit_log"
NOT_WRITTEN = (
    "the audit trail is not written on ({}), and nothing of it is lost: the worker's log says why ("
    "`audit log not written`), AUDIT_LOG_FILE and AUDIT_LOG_SYSLOG_ADDRESS where to"
)
RETENTION = "retention"
NOT_REMOVED = (
    "the last run of retention was broken off ({}): what was to be removed is there still, and the next run tries "
    "again; `faxbot retention list` and the worker's log say more"
)
NOT_DONE = (
    "a run of retention has worked for more than a day: `faxbot retention list` shows how far it is, and the worker's "
    "log what hinders it"
)
COPIES = "copies"
NOT_DELETED = (
    "carriers have not deleted their copies of documents ({}), asked for more than a day: the worker's log says why ("
    "`copy not deleted yet`); after seven days they are asked no more and this alarm ends: the log names the faxes "
    "then (`copy not deleted at the carrier`), and you must have the copies deleted there"
)
BROKEN_OFF = {
    retention.MISMATCH: "the database removed less than it was asked to",
    retention.STORAGE: "a storage did not remove what it was asked to",
    retention.FAILED: "it failed",
}


@dataclass(frozen=True, slots=True)
class Alarm:
    """`count` faxes wait for a person, and `code` is their status; or RECEIVED, MASTER_KEY, so many WEBHOOKS or SEALED
    ones, so many plugins that do not tell people (NOTICES), AUDIT_LOG and so many logs take nothing, RETENTION and so
    many classes were broken off, or so many COPIES are at carriers still."""

    code: str
    count: int
    detail: str


def raised(runtime: Runtime) -> list[Alarm]:
    """The alarms of this moment; raises DatabaseAway."""
    # A fax that stays uncertain or held for so long will not mend itself soon.
    since = runtime.now() - timedelta(seconds=runtime.config.alarm_seconds)
    return [alarm for look in _LOOKS for alarm in look(runtime, since)]


def _waiting(runtime: Runtime, since: datetime) -> Iterator[Alarm]:
    long = f"{runtime.config.alarm_seconds / 60:g} min"
    for status, sentence in WAITS.items():
        row = runtime.database.row(_COUNTS[status], {"since": since})
        if row is not None and row.faxes:
            more = "more than " if row.faxes >= MOST else ""
            faxes = "1 fax waits" if row.faxes == 1 else f"{more}{row.faxes} faxes wait"
            detail = f"{faxes} for more than {long}: {sentence}"
            yield Alarm(status.value, row.faxes, detail)
    row = runtime.database.row(_FETCHED_NOT, {"since": since})
    if row is not None and row.faxes:
        faxes = "1 received fax" if row.faxes == 1 else f"{row.faxes} received faxes"
        yield Alarm(RECEIVED, row.faxes, NOT_HAD.format(faxes, long))


def _unfinished(runtime: Runtime, since: datetime) -> Iterator[Alarm]:
    if runtime.database.row(_UNFINISHED, {"since": since}) is not None:
        yield Alarm(MASTER_KEY, 1, UNFINISHED)
    silent = {each.log for each in auditlog.behind(runtime) if each.since < since}
    if silent:
        yield Alarm(AUDIT_LOG, len(silent), NOT_WRITTEN.format(", ".join(sorted(silent))))


def _not_removed(runtime: Runtime, _since: datetime) -> Iterator[Alarm]:
    if (trouble := retention.trouble(runtime)) is not None:
        outcomes = trouble.outcomes.items()
        which = ", ".join(f"{name}: {BROKEN_OFF.get(how, how)}" for name, how in outcomes)
        said = NOT_REMOVED.format(which) if which else NOT_DONE
        yield Alarm(RETENTION, len(outcomes) or 1, said)
    if late := copies.late(runtime, most=MOST):
        count = sum(late.values())
        which = ", ".join(f"{name}: {number}" for name, number in sorted(late.items()))
        more = "more than " if count >= MOST else ""
        yield Alarm(COPIES, count, NOT_DELETED.format(more + which))


def _untold(runtime: Runtime, _since: datetime) -> Iterator[Alarm]:
    if given_up := len(runtime.database.rows(_GIVEN_UP, {})):
        yield Alarm(WEBHOOKS, given_up, f"{_webhooks(given_up)}: {GIVEN_UP}")
    if shut := unopened(runtime):
        yield Alarm(SEALED, shut, f"{_webhooks(shut)}: {SHUT}")
    if untold := notifiers.faults(runtime):
        detail = UNTOLD.format(", ".join(untold), "; ".join(dict.fromkeys(untold.values())))
        yield Alarm(NOTICES, len(untold), detail)


_LOOKS = (_waiting, _unfinished, _not_removed, _untold)


def _webhooks(count: int) -> str:
    return "1 webhook" if count == 1 else f"{count} webhooks"


_FETCHED_NOT = sa.select(sa.func.count().label("faxes")).select_from(
    sa.union_all(
        sa.select(InboundFax.id).where(
            InboundFax.next_at.is_not(None),
            InboundFax.status == Reception.FETCHING.value,
            InboundFax.created_at < sa.bindparam("since", type_=InboundFax.created_at.type),
        ),
        # In the words of its index: until somebody has marked it as read.
        sa.select(InboundFax.id).where(sa.text("cause = 'no-document' AND read_at IS NULL")),
    )
    .limit(MOST)
    .subquery()
)
_GIVEN_UP = sa.select(Webhook.id).where(Webhook.state == DISABLED).limit(MOST)
_UNFINISHED = sa.select(ConfigVersion.version).where(
    sa.or_(ConfigVersion.upcoming_key.is_not(None), ConfigVersion.retiring_key.is_not(None)),
    ConfigVersion.rotated_at < sa.bindparam("since", type_=ConfigVersion.rotated_at.type),
)


def _count(status: Status) -> sa.Select[Any]:
    """How many faxes of this status have had it since before `since`, by their events: with a
    cancel asked for, or a try in between that led nowhere, a fax waits no less long."""
    since = sa.bindparam("since", type_=FaxEvent.recorded_at.type)
    entered, left = aliased(FaxEvent), aliased(FaxEvent)
    ends = sa.exists().where(
        left.job_id == entered.job_id,
        left.sequence > entered.sequence,
        left.status.in_(WAIT_ENDS[status]),
    )
    waits = sa.exists().where(
        entered.job_id == Job.id, entered.status == status.value, entered.recorded_at < since, ~ends
    )
    waiting = (
        sa.select(Job.id)
        .where(sa.text(IS_OPEN), Job.status == status.value, Job.created_at < since, waits)
        .limit(MOST)
        .subquery()
    )
    return sa.select(sa.func.count().label("faxes")).select_from(waiting)


_COUNTS = {status: _count(status) for status in WAITS}


def shown(runtime: Runtime) -> list[dict[str, Any]]:
    """The same as plain JSON types."""
    return [asdict(alarm) for alarm in raised(runtime)]


def say(runtime: Runtime) -> int:
    """Log what was not said within the last hour; how many alarms there are."""
    alarms = raised(runtime)
    for alarm in alarms:
        if _not_said_lately(runtime, f"alarm:{alarm.code}"):
            log.error("alarm", extra={"alarm": alarm.code, "count": alarm.count})
    return len(alarms)


def _not_said_lately(runtime: Runtime, name: str) -> bool:
    """Whether this process is the one to say it now."""
    now = runtime.now()
    with runtime.database.writing() as connection:
        insert = inserts(Heartbeat)[connection.dialect.name]
        said = insert.values(
            account_id=DEFAULT_ACCOUNT, name=name, beat_at=now
        ).on_conflict_do_update(
            index_elements=["account_id", "name"],
            set_={"beat_at": now},
            where=table(Heartbeat).c.beat_at <= now - AGAIN,
        )
        return connection.execute(said.returning(table(Heartbeat).c.name)).first() is not None
