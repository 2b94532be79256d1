"""Notices: what people are to be told of faxes, by notification plugins: one for each event and plugin.

Most are written with their event (fanout.py), by what is known here of who wants what. That a fax waits for a person is
noted when the wait has lasted: held faxes come and go by themselves. notifying.py puts notices into messages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from faxbot import heartbeats
from faxbot.db import UtcDateTime, inserts, table
from faxbot.errors import ConfigError, PluginError
from faxbot.events import ASKED, WAIT_ENDS, Notable, Status
from faxbot.models import IS_OPEN, FaxEvent, Job, Notice, SentNotification
from faxbot.plugins.loader import Plugins
from faxbot.runtime import Runtime
from faxbot.settings import Settings, Snapshot

WAITING, SENT, GIVEN_UP = "waiting", "sent", "given_up"
STATUSES = (WAITING, SENT, GIVEN_UP)
"""How a message stands."""
TOLD_WITHIN = timedelta(days=1)
"""A message that is not sent by then is given up."""
KEPT = timedelta(days=31)
LOOKED, LOOK_EVERY = "looked for waits", timedelta(minutes=1)
"""As what it is noted that no wait was found, and for how long that is believed."""
TIDIED, TIDY_EVERY = "looked for old notices", timedelta(hours=1)
"""As what it is noted that all that is old was forgotten, and for how long that is believed."""
SOME = 500
"""Rows of one transaction of a sweep."""
NOTICES, MESSAGES = table(Notice), table(SentNotification)
IS_WAITING = MESSAGES.c.status == sa.literal_column(f"'{WAITING}'")
"""In clear: by a parameter SQLite would not know that the index of those that wait holds it."""
OF_ACTIVE: sa.BindParameter[list[str]] = sa.bindparam("active", expanding=True)


# Who is to tell ---------------------------------------------------------------------------------------


class Wanted:
    """fanout.Tellers: by which plugins people are told, and of what, as this process knows the settings."""

    def __init__(self, settings: Settings, plugins: Plugins) -> None:
        self._settings, self._plugins = settings, plugins
        self._known: tuple[Snapshot, Mapping[str, frozenset[str]]] | None = None

    def __call__(self) -> Mapping[str, frozenset[str]]:
        """Raises DatabaseAway and ConfigError as Settings.snapshot()."""
        snapshot, known = self._settings.snapshot(), self._known
        if known is None or known[0] is not snapshot:
            ids = snapshot.config.notification_plugin_ids
            found = {each: kinds(self._plugins, each, snapshot.of_plugin(each)) for each in ids}
            known = self._known = (snapshot, found)
        return known[1]


def kinds(plugins: Plugins, plugin_id: str, saved: Mapping[str, Any]) -> frozenset[str]:
    """Of what people are to be told by this plugin. While its settings do not hold, of what it tells by default: it is
    told when they are mended."""
    try:
        settings = plugins.settings(plugin_id, saved)
    except ConfigError:
        settings = {
            key: rule["default"]
            for key, rule in plugins.manifest(plugin_id).properties.items()
            if "default" in rule
        }
    except PluginError:
        settings = {}
    words = settings.get("events")
    named = ",".join(Notable) if words is None else str(words)
    return frozenset(word.strip() for word in named.split(",")) & set(Notable)


# What runs by the clock -------------------------------------------------------------------------------


def note_waits(runtime: Runtime) -> int:
    """Write down of faxes that are held or uncertain for FAXBOT_ALARM_SECONDS that they wait for a person: once for
    each wait; some hundreds. How many notices. Where there are none it rests, for it looks at all faxes that wait."""
    since = runtime.now() - timedelta(seconds=runtime.config.alarm_seconds)
    saved = runtime.settings.snapshot().saved
    wanted = [
        plugin_id
        for plugin_id in runtime.config.notification_plugin_ids
        if Notable.HELD in kinds(runtime.plugins, plugin_id, saved.get(plugin_id, {}))
    ]
    if not wanted or heartbeats.lately(runtime, LOOKED, LOOK_EVERY):
        return 0
    noted = 0
    for plugin_id in wanted:
        for statement in _LASTING.values():
            rows = runtime.database.rows(statement, {"plugin_id": plugin_id, "since": since})
            noted += _note(runtime, plugin_id, rows)
    if not noted:
        heartbeats.beat(runtime, [LOOKED])
    return noted


def _note(runtime: Runtime, plugin_id: str, rows: Sequence[sa.Row[Any]]) -> int:
    now = runtime.now()
    new = [
        {
            "account_id": row.account_id,
            "plugin_id": plugin_id,
            "fax_id": row.id,
            "sequence": row.sequence,
            "kind": Notable.HELD.value,
            "why": row.reason,
            "occurred_at": row.since,
            "created_at": now,
        }
        for row in rows
    ]
    if new:
        with runtime.database.writing() as connection:
            insert = inserts(Notice)[connection.dialect.name].on_conflict_do_nothing()
            connection.execute(insert, new)
    return len(new)


def _lasting(status: Status) -> sa.Select[Any]:
    """The faxes that wait in this status, each with the event with which the wait began: of those whose wait has lasted
    since before `since`, and of which this plugin has told nobody (alarms counts the same)."""
    entered, left = aliased(FaxEvent), aliased(FaxEvent)
    ended = sa.exists().where(
        left.job_id == entered.job_id,
        left.sequence > entered.sequence,
        left.status.in_(WAIT_ENDS[status]),
    )
    waits = (
        sa.select(Job.id, Job.account_id, Job.reason)
        .where(
            sa.text(IS_OPEN),
            Job.status == status.value,
            Job.reason.is_distinct_from(ASKED),  # who holds it himself knows of it
        )
        .subquery()
    )
    began = (
        sa.select(
            waits,
            sa.func.min(entered.sequence).label("sequence"),
            sa.func.min(entered.recorded_at).label("since"),
        )
        .join(entered, entered.job_id == waits.c.id)
        .where(entered.status == status.value, entered.reason.is_distinct_from(ASKED), ~ended)
        .group_by(*waits.c)
        .subquery()
    )
    told = sa.exists().where(
        NOTICES.c.plugin_id == sa.bindparam("plugin_id"),
        NOTICES.c.fax_id == began.c.id,
        NOTICES.c.kind == Notable.HELD.value,
        NOTICES.c.sequence >= began.c.sequence,
    )
    lasts = began.c.since < sa.bindparam("since", type_=UtcDateTime)
    return sa.select(began).where(lasts, ~told).order_by(began.c.since).limit(SOME)


_LASTING = {status: _lasting(status) for status in WAIT_ENDS}


def tidy(runtime: Runtime) -> int:
    """Forget what is over for long, and what was for plugins by which nobody is told any more; some hundreds of each.
    How many rows. Where no more is left it rests, for it looks at all old notices of faxes that still wait."""
    if heartbeats.lately(runtime, TIDIED, TIDY_EVERY):
        return 0
    now, active = runtime.now(), list(runtime.config.notification_plugin_ids)
    old, late = {"before": now - KEPT}, {"before": now - TOLD_WITHIN, "active": active}
    gone = [
        len(runtime.database.rows(statement, words))
        for statements, words in ((_OLD, old), (_UNWANTED, late))
        for statement in statements
    ]
    if max(gone) < SOME:
        heartbeats.beat(runtime, [TIDIED])
    return sum(gone)


_BEFORE = sa.bindparam("before", type_=UtcDateTime)


def _some(rows: sa.Table, *which: sa.ColumnElement[bool]) -> sa.Executable:
    some = sa.select(rows.c.id).where(*which).limit(SOME).scalar_subquery()
    return sa.delete(rows).where(rows.c.id.in_(some)).returning(rows.c.id)


# By the notice it is known that people were told of a wait that lasts: it stays, and each look comes by it.
_MAY_LAST = sa.and_(
    NOTICES.c.kind == Notable.HELD.value,
    sa.exists().where(Job.id == NOTICES.c.fax_id, sa.text(IS_OPEN)),
)
# Each by an index of its own.
_OLD = (
    _some(
        NOTICES,
        NOTICES.c.created_at < _BEFORE,
        NOTICES.c.notification_id.is_not(None),
        ~_MAY_LAST,
    ),
    _some(MESSAGES, MESSAGES.c.ended_at < _BEFORE),
)
_UNWANTED = (
    _some(
        NOTICES,
        NOTICES.c.notification_id.is_(None),
        NOTICES.c.plugin_id.not_in(OF_ACTIVE),
        NOTICES.c.created_at < _BEFORE,
    ),
    _some(
        MESSAGES,
        IS_WAITING,
        MESSAGES.c.plugin_id.not_in(OF_ACTIVE),
        MESSAGES.c.created_at < _BEFORE,
    ),
)
