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

from faxbot import auditlog, copies, notifiers, recall, retention
from faxbot.db import inserts, table
from faxbot.events import ASKED, DEFAULT_ACCOUNT, WAIT_ENDS, Reception, Status
from faxbot.models import (
    IS_OPEN,
    Callback,
    CallbackFax,
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
        "whether the carrier has them is not known, and it has not said by now: find out, and settle them "
        "(`faxbot decide`)"
    ),
    Status.HELD: (
        "they are held: `faxbot list --status held` names them, and `faxbot status` says of each why, and what mends it"
    ),
}
RECEIVED = "received"
NOT_HAD = (
    "the documents of {} could not be had for more than {}: the list of received faxes says of each why; what will "
    "never be had, give up; what was given up, have tried once more, or mark as read"
)
NOT_LET_GO = (
    "of {} that are stored here, or were given up, what was kept could not be removed for more than a day, a file in "
    "the plugin's folder or the body of a callback: the worker's log says why (`received document not let go`); of "
    "those that retention has removed it ends four weeks later: the log names them then (`received document never let "
    "go`), and you must remove what is left"
)
CALLBACKS = "callbacks"
UNREAD = (
    "could not be read for more than {}, name no fax that was sent, and may be of received ones: the worker's log says "
    "why (`callback cannot be read`). Mend the settings of the provider, or the account at its carrier: they are read "
    "again by themselves, each hour or each day, while they are kept; of one that makes no sense, or that its carrier "
    "was asked about and does not confirm, this ends in a week"
)
UNREADABLE_FOR = timedelta(days=7)
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
RESTORED = "restored"
MAYBE_SENT = (
    "held since the database was restored, until it is known whether carriers have had them: `faxbot restored status`; "
    "where a carrier cannot say that for sure, find out, and release what was not sent"
)
CODES = (
    *map(str, WAITS),
    RECEIVED,
    CALLBACKS,
    MASTER_KEY,
    AUDIT_LOG,
    RETENTION,
    COPIES,
    WEBHOOKS,
    SEALED,
    NOTICES,
    RESTORED,
)
"""All that an alarm may be called."""
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
    """`count` faxes wait for a person, and `code` is their status; or RECEIVED, so many unread CALLBACKS, MASTER_KEY,
    so many WEBHOOKS or SEALED ones, so many plugins that do not tell people (NOTICES), AUDIT_LOG and so many logs take
    nothing, RETENTION and so many classes were broken off, so many COPIES are at carriers still, or so many faxes are
    held because the ledger was RESTORED."""

    code: str
    count: int
    detail: str


def raised(runtime: Runtime) -> list[Alarm]:
    """The alarms of this moment; raises DatabaseAway."""
    since = _since(runtime)
    return [alarm for look in _LOOKS for alarm in look(runtime, since)]


def of_received(runtime: Runtime) -> list[Alarm]:
    """Those of received faxes alone, and of what may be one."""
    since = _since(runtime)
    return [*_not_had(runtime, since), *_unread(runtime, since)]


def _since(runtime: Runtime) -> datetime:
    """A fax that waits for a person since then will not mend itself soon."""
    return runtime.now() - timedelta(seconds=runtime.config.alarm_seconds)


def _waiting(runtime: Runtime, since: datetime) -> Iterator[Alarm]:
    for status, sentence in WAITS.items():
        row = runtime.database.row(_COUNTS[status], {"since": since})
        if row is not None and row.faxes:
            more = "more than " if row.faxes >= MOST else ""
            faxes = "1 fax waits" if row.faxes == 1 else f"{more}{row.faxes} faxes wait"
            detail = f"{faxes} for more than {_long(runtime)}: {sentence}"
            yield Alarm(status.value, row.faxes, detail)


def _not_had(runtime: Runtime, since: datetime) -> Iterator[Alarm]:
    count, said = 0, []
    for query, at, sentence in (
        (_FETCHED_NOT, since, NOT_HAD),
        (_NOT_LET_GO, runtime.now() - timedelta(days=1), NOT_LET_GO),
    ):
        row = runtime.database.row(query, {"since": at})
        if row is not None and row.faxes:
            count += row.faxes
            faxes = "1 received fax" if row.faxes == 1 else f"{row.faxes} received faxes"
            said.append(sentence.format(faxes, _long(runtime)))
    if count:
        yield Alarm(RECEIVED, count, ". Besides: ".join(said))


def _unread(runtime: Runtime, since: datetime) -> Iterator[Alarm]:
    # Till then it may but wait for its fax to be known.
    patient = runtime.now() - timedelta(seconds=runtime.config.callback_wait_seconds)
    sensible = runtime.now() - UNREADABLE_FOR
    row = runtime.database.row(_UNREAD, {"since": min(since, patient), "sensible": sensible})
    if row is not None and row.callbacks:
        more = "more than " if row.callbacks >= MOST else ""
        one = "1 message of a carrier"
        said = one if row.callbacks == 1 else f"{more}{row.callbacks} messages of carriers"
        yield Alarm(CALLBACKS, row.callbacks, f"{said} {UNREAD.format(_long(runtime))}")


def _long(runtime: Runtime) -> str:
    seconds = runtime.config.alarm_seconds
    return f"{seconds // 60:.0f} min" if seconds >= 60 else f"{seconds:g} s"


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


def _in_doubt(runtime: Runtime, _since: datetime) -> Iterator[Alarm]:
    # Asked only where there was a backup: it looks through all that are open.
    if runtime.restores.notice(runtime.now()) is None:
        return
    if held := recall.waiting(runtime):
        more = "more than " if held >= recall.MOST else ""
        faxes = "1 fax is" if held == 1 else f"{more}{held} faxes are"
        yield Alarm(RESTORED, held, f"{faxes} {MAYBE_SENT}")


_LOOKS = (_waiting, _not_had, _unread, _unfinished, _not_removed, _untold, _in_doubt)


def _webhooks(count: int) -> str:
    return "1 webhook" if count == 1 else f"{count} webhooks"


_SINCE = sa.bindparam("since", type_=InboundFax.created_at.type)
_FETCHED_NOT = sa.select(sa.func.count().label("faxes")).select_from(
    sa.union_all(
        sa.select(InboundFax.id).where(
            InboundFax.next_at.is_not(None),
            InboundFax.status == Reception.FETCHING.value,
            InboundFax.created_at < _SINCE,
        ),
        # In the words of its index: until somebody has marked it as read.
        sa.select(InboundFax.id).where(sa.text("cause = 'no-document' AND read_at IS NULL")),
    )
    .limit(MOST)
    .subquery()
)
# By the index over `next_at`, which few have.
_NOT_LET_GO = sa.select(sa.func.count().label("faxes")).select_from(
    sa.select(InboundFax.id)
    .where(
        InboundFax.next_at.is_not(None),
        sa.or_(
            sa.and_(InboundFax.status == Reception.RECEIVED.value, InboundFax.updated_at < _SINCE),
            # One that was given up, and went by its age (purging).
            sa.and_(
                InboundFax.status == Reception.FAILED.value,
                InboundFax.purged_at < _SINCE,
                InboundFax.legal_hold_at.is_(None),
            ),
        ),
    )
    .limit(MOST)
    .subquery()
)
# Few are not applied (ix_callbacks_waiting).
_UNREAD = sa.select(sa.func.count().label("callbacks")).select_from(
    sa.select(Callback.id)
    .where(
        Callback.applied_at.is_(None),
        Callback.tries > 0,
        Callback.received_at < _SINCE,
        sa.or_(
            Callback.outcome.is_(None),
            Callback.received_at > sa.bindparam("sensible", type_=Callback.received_at.type),
        ),
        ~sa.exists().where(CallbackFax.callback_id == Callback.id),
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
    cancel asked for, or a try in between that led nowhere, a fax waits no less long. Who holds a fax
    himself knows of it."""
    since = sa.bindparam("since", type_=FaxEvent.recorded_at.type)
    entered, left = aliased(FaxEvent), aliased(FaxEvent)
    ends = sa.exists().where(
        left.job_id == entered.job_id,
        left.sequence > entered.sequence,
        left.status.in_(WAIT_ENDS[status]),
    )
    waits = sa.exists().where(
        entered.job_id == Job.id,
        entered.status == status.value,
        entered.reason.is_distinct_from(ASKED),
        entered.recorded_at < since,
        ~ends,
    )
    waiting = (
        sa.select(Job.id)
        .where(
            sa.text(IS_OPEN),
            Job.status == status.value,
            Job.reason.is_distinct_from(ASKED),
            Job.created_at < since,
            waits,
        )
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
