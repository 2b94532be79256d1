"""The messages in which people are told what happened: which notices come into one, who sends it, and what comes of it.

A process that has a plugin's lease makes one message after the other: while little happens each notice gets its own;
what is more than FAXBOT_NOTICES_PER_HOUR allows is told later, in one. A message is written down before it is sent,
with its id, which stays the same on every try: one whose outcome is not known is sent again, and known as a repeat.
Nothing is open while it is sent (messenger.py).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from faxbot.config import Config
from faxbot.db import UtcDateTime, inserts, new_id, table
from faxbot.events import CAUSES, HOLD_REASONS, Notable
from faxbot.models import Notice, Notifier, SentNotification
from faxbot.notices import (
    GIVEN_UP,
    IS_WAITING,
    MESSAGES,
    NOTICES,
    OF_ACTIVE,
    SENT,
    TOLD_WITHIN,
    WAITING,
)
from faxbot.plugins.base import Happening, Notification
from faxbot.runtime import Runtime

log = logging.getLogger(__name__)

TASK = "faxbot.tell_people"
LEASE = timedelta(minutes=2)
"""For so long one process has a plugin to itself, from each message on; a plugin is to be done within a minute."""
SCHEDULE = (60.0, 5 * 60.0, 15 * 60.0, 30 * 60.0, 3600.0)
"""Seconds from a try that failed to the next; the last of them again and again."""
MOST_DOUBTS = 5
"""So often is a message sent of which nobody knows whether it arrived."""
MOST_REFUSALS = 3
"""So often is one sent that the other end says it never takes."""
PUT_OFF_LONG = timedelta(minutes=15)
"""For so long a message waits for those to whom it is not taken for now: greylisting lets us in within minutes."""
BELIEVED = timedelta(days=1)
"""For so long after a message that went without them the next one does not wait for them either."""
MOST_IN_ONE = 5000
MOST_SHOWN = 100
"""Of the faxes of one message those that it names."""
REFUSED, UNKNOWN, PUT_OFF = "refused", "outcome-unknown", "throttled"
PARTLY, WITHOUT_SOME = "partly", "partly-put-off"
"""It is sent, and was refused for some; and that after it went without waiting for those who are put off."""
_NOTIFIERS = table(Notifier)


# What is due ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """Whose people are told, by which plugin; this process has it as long as `fence` is the newest."""

    account_id: str
    plugin_id: str
    fence: int = 0

    @property
    def names(self) -> dict[str, str]:
        return {"account_id": self.account_id, "plugin_id": self.plugin_id}


@dataclass(frozen=True, slots=True)
class Message:
    """One to be sent now."""

    notification: Notification
    tries: int
    """This one among them."""
    doubts: int
    """Tries before this one of which nobody knows whether they arrived."""


_UNTOLD = (
    sa.select(
        NOTICES.c.account_id, NOTICES.c.plugin_id, sa.func.min(NOTICES.c.created_at).label("since")
    )
    .where(NOTICES.c.notification_id.is_(None), NOTICES.c.plugin_id.in_(OF_ACTIVE))
    .group_by(NOTICES.c.account_id, NOTICES.c.plugin_id)
)
_WAITING = sa.select(
    MESSAGES.c.account_id, MESSAGES.c.plugin_id, MESSAGES.c.next_at.label("since")
).where(IS_WAITING, MESSAGES.c.plugin_id.in_(OF_ACTIVE))
_ALL_NOTIFIERS = sa.select(_NOTIFIERS).where(_NOTIFIERS.c.plugin_id.in_(OF_ACTIVE))


def due(runtime: Runtime, plugin_ids: Collection[str], at: datetime) -> list[Place]:
    """Where something is to be sent at this time, and nobody is at it; raises DatabaseAway."""
    if not plugin_ids:
        return []
    words = {"active": list(plugin_ids)}
    untold, waiting = (
        {
            (row.account_id, row.plugin_id): row.since
            for row in runtime.database.rows(statement, words)
        }
        for statement in (_UNTOLD, _WAITING)
    )
    since = {**untold, **waiting}
    if not since:
        return []
    for row in runtime.database.rows(_ALL_NOTIFIERS, words):
        place = (row.account_id, row.plugin_id)
        if place not in since:
            continue
        if row.lease_until is not None and row.lease_until >= at:
            del since[place]
        elif place not in waiting and row.ready_at is not None:
            since[place] = max(since[place], row.ready_at)
    return [Place(*place) for place, from_ in sorted(since.items()) if from_ <= at]


def announce_due(runtime: Runtime) -> int:
    """Wake who tells people where something is due; how many places."""
    found = due(runtime, runtime.config.notification_plugin_ids, runtime.now())
    if found:
        runtime.ring(TASK, "due")
    return len(found)


def overdue(runtime: Runtime, by: timedelta) -> bool:
    """Whether something has been due for so long, and nobody is at it."""
    return bool(due(runtime, runtime.config.notification_plugin_ids, runtime.now() - by))


# A message, from its making to its end ----------------------------------------------------------------


def claim(runtime: Runtime, place: Place) -> Place | None:
    """Have this plugin for a while; None where somebody else has it."""
    now = runtime.now()
    words = {"now": now, "until": now + LEASE, **_its(place)}
    with runtime.database.writing() as connection:
        begin = inserts(Notifier)[connection.dialect.name].on_conflict_do_nothing()
        connection.execute(begin, {**place.names, "fence": 0})
        row = connection.execute(_CLAIM, words).first()
    return None if row is None else Place(place.account_id, place.plugin_id, row.fence)


def release(runtime: Runtime, place: Place) -> None:
    """Give it back."""
    runtime.database.row(_RELEASE, {**_its(place), "mine": place.fence})


def _its(place: Place) -> dict[str, Any]:
    return {"its_account": place.account_id, "its_plugin": place.plugin_id}


_ITS = (
    _NOTIFIERS.c.account_id == sa.bindparam("its_account"),
    _NOTIFIERS.c.plugin_id == sa.bindparam("its_plugin"),
)
_FREE = sa.or_(
    _NOTIFIERS.c.lease_until.is_(None),
    _NOTIFIERS.c.lease_until < sa.bindparam("now", type_=UtcDateTime),
)
_CLAIM = (
    sa.update(_NOTIFIERS)
    .where(*_ITS, _FREE)
    .values(fence=_NOTIFIERS.c.fence + 1, lease_until=sa.bindparam("until", type_=UtcDateTime))
    .returning(_NOTIFIERS.c.fence)
)
_RELEASE = (
    sa.update(_NOTIFIERS)
    .where(*_ITS, _NOTIFIERS.c.fence == sa.bindparam("mine"))
    .values(lease_until=None)
    .returning(_NOTIFIERS.c.fence)
)


def next_message(runtime: Runtime, place: Place) -> Message | None:
    """What is to be sent now, noted as tried before it is; None where there is nothing, or this process has lost the
    place. One whose time is over is given up first. Raises DatabaseAway."""
    now = runtime.now()
    with runtime.database.transaction() as session:
        notifier = _mine(session, place)
        if notifier is None:
            return None
        sent = session.scalars(_OPEN, place.names).first()
        if sent is not None and _is_over(sent, now):
            _give_up(sent, now)
            session.flush()
            sent = None
        if sent is None:
            sent = _made(session, runtime.config, notifier, now)
        if sent is None or (sent.next_at or now) > now:
            return None
        # Should nobody live to see its end: that it was sent is possible, and it is sent again after a while.
        sent.tries += 1
        sent.doubts += 1
        sent.next_at = now + max(LEASE, wait(sent.tries))
        notifier.lease_until = now + LEASE
        put_off_long = sent.cause == PUT_OFF and (
            now - sent.created_at >= PUT_OFF_LONG or _goes_without_some(session, place, now)
        )
        notification = _notification(session, sent, put_off_long=put_off_long)
        return Message(notification, sent.tries, sent.doubts - 1)


_OPEN = sa.select(SentNotification).where(
    SentNotification.account_id == sa.bindparam("account_id"),
    SentNotification.plugin_id == sa.bindparam("plugin_id"),
    IS_WAITING,
)


def _goes_without_some(session: Session, place: Place, now: datetime) -> bool:
    """Whether the message before it went without some, who were put off for long: else each would wait as long for a
    mailbox that stays full, and those behind it with it."""
    before = session.execute(_LAST, place.names).first()
    return before is not None and before.cause == WITHOUT_SOME and before.ended_at > now - BELIEVED


# By the index of what a place was told: of its messages one at most has not ended.
_LAST = (
    sa.select(SentNotification.cause, SentNotification.ended_at)
    .where(
        SentNotification.account_id == sa.bindparam("account_id"),
        SentNotification.plugin_id == sa.bindparam("plugin_id"),
        SentNotification.ended_at.is_not(None),
    )
    .order_by(SentNotification.id.desc())
    .limit(1)
)


def _mine(session: Session, place: Place) -> Notifier | None:
    """Its row, locked, while this process has it."""
    names = (place.account_id, place.plugin_id)
    found = session.get(Notifier, names, with_for_update=True)
    return found if found is not None and found.fence == place.fence else None


def _is_over(sent: SentNotification, now: datetime) -> bool:
    return now - sent.created_at >= TOLD_WITHIN or sent.doubts >= MOST_DOUBTS


def _give_up(sent: SentNotification, now: datetime) -> None:
    sent.status, sent.ended_at, sent.next_at = GIVEN_UP, now, None
    sent.cause = sent.cause or UNKNOWN
    log.error("notification given up", extra=_said(sent))


def _said(sent: SentNotification) -> dict[str, Any]:
    return {"notification_id": sent.id, "plugin_id": sent.plugin_id, "error": sent.cause}


def _made(
    session: Session, config: Config, notifier: Notifier, now: datetime
) -> SentNotification | None:
    """A new message of the notices that wait: of the oldest alone where there are no more of them than may be sent now,
    else of all."""
    names = {"account_id": notifier.account_id, "plugin_id": notifier.plugin_id}
    free = _free(config, notifier.ready_at, now)
    ids = session.scalars(_OLDEST, names).all() if free else ()
    if not ids:
        return None
    taken = ids[:1] if len(ids) <= free else ids
    sent = SentNotification(
        id=new_id(now), **names, notices=len(taken), status=WAITING, tries=0, doubts=0,
        next_at=now, created_at=now,
    )  # fmt: skip
    session.add(sent)
    its = {"its_account": notifier.account_id, "its_plugin": notifier.plugin_id}
    session.connection().execute(_PUT, {**its, "into": sent.id, "last": taken[-1]})
    notifier.ready_at = _later(config, notifier.ready_at, now)
    session.flush()
    return sent


_ITS_UNTOLD = (
    Notice.account_id == sa.bindparam("account_id"),
    Notice.plugin_id == sa.bindparam("plugin_id"),
    Notice.notification_id.is_(None),
)
_OLDEST = sa.select(Notice.id).where(*_ITS_UNTOLD).order_by(Notice.id).limit(MOST_IN_ONE)
_PUT = (
    sa.update(NOTICES)
    .where(
        NOTICES.c.account_id == sa.bindparam("its_account"),
        NOTICES.c.plugin_id == sa.bindparam("its_plugin"),
        NOTICES.c.notification_id.is_(None),
        NOTICES.c.id <= sa.bindparam("last"),
    )
    .values(notification_id=sa.bindparam("into"))
)


def _pace(config: Config) -> tuple[int, timedelta]:
    """How many messages may come at once, and how far those that follow are apart: never more than the limit within
    an hour."""
    at_once = config.notices_per_hour // 2
    return at_once, timedelta(hours=1) / (config.notices_per_hour - at_once)


def _free(config: Config, ready_at: datetime | None, now: datetime) -> int:
    """How many messages may be sent now."""
    at_once, apart = _pace(config)
    if ready_at is None:
        return at_once
    return min(at_once, max(0, math.floor((now - ready_at) / apart) + 1))


def _later(config: Config, ready_at: datetime | None, now: datetime) -> datetime:
    """From when on there may be more, after this one."""
    at_once, apart = _pace(config)
    earliest = now - (at_once - 1) * apart
    return max(ready_at or earliest, earliest) + apart


def _notification(session: Session, sent: SentNotification, *, put_off_long: bool) -> Notification:
    of_it = {"sent": sent.id}
    rows = session.connection().execute(_SHOWN, of_it)
    happenings = tuple(
        Happening(Notable(row.kind), row.fax_id, row.occurred_at, sentence(row.why)) for row in rows
    )
    counted = session.connection().execute(_COUNTED, of_it)
    counts = {Notable(kind): number for kind, number in counted}
    return Notification(sent.id, happenings, counts, put_off_long)


_OF_IT = NOTICES.c.notification_id == sa.bindparam("sent")
_SHOWN = sa.select(NOTICES).where(_OF_IT).order_by(NOTICES.c.id).limit(MOST_SHOWN)
_COUNTED = sa.select(NOTICES.c.kind, sa.func.count()).where(_OF_IT).group_by(NOTICES.c.kind)


def wait(tries: int) -> timedelta:
    """How long after so many tries until the next one."""
    return timedelta(seconds=SCHEDULE[min(tries, len(SCHEDULE)) - 1])


def conclude(
    runtime: Runtime, place: Place, message: Message, *, cause: str | None, sent: bool
) -> None:
    """Write down what came of a message: it is `sent` (with the cause PARTLY not to all), or why not. One that is put
    off like the message before it is tried again at once, without those who are. Nothing where this process has lost
    the place. To write it again does no harm. Raises DatabaseAway."""
    now = runtime.now()
    with runtime.database.transaction() as session:
        if _mine(session, place) is None:
            return
        this = session.get_one(SentNotification, message.notification.id)
        this.cause = cause
        waited = message.notification.put_off_long
        if sent:
            this.status, this.ended_at, this.next_at = SENT, now, None
            if cause == PARTLY and waited:
                this.cause = WITHOUT_SOME
            return
        if cause != UNKNOWN:
            this.doubts = message.doubts
        this.next_at = now + wait(this.tries)
        never = cause == REFUSED and this.tries >= MOST_REFUSALS
        if never or _is_over(this, now):
            _give_up(this, now)
        elif cause == PUT_OFF and not waited and _goes_without_some(session, place, now):
            this.next_at = now
        else:
            log.warning("notification not sent", extra={**_said(this), "tries": this.tries})


def sentence(why: str | None) -> str:
    """What a cause or a reason means to people; nothing for one that no list has."""
    if why in CAUSES:
        return CAUSES[why].sentence
    return HOLD_REASONS.get(why or "", "")
