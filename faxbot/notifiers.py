"""What operators see of the telling of people: which plugins do it, what waits, what was sent or given up and why; and
a test notice."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from faxbot import audit, limits, notices
from faxbot.actors import Actor
from faxbot.audit import Action
from faxbot.db import new_id
from faxbot.errors import ConfigError, FaxbotError, NotFound, PluginError
from faxbot.notices import GIVEN_UP, IS_WAITING, MESSAGES, NOTICES, OF_ACTIVE, SENT
from faxbot.notifying import PARTLY, WITHOUT_SOME
from faxbot.plugins.base import Notification, NotificationPlugin
from faxbot.results import stamp
from faxbot.runtime import Runtime

NEWEST = 100
"""Messages that are shown, the newest first."""
FAILING = 3
"""So many tries in vain, and people must look."""


def notifiers(runtime: Runtime, actor: Actor) -> dict[str, Any]:
    """{"items": the plugins that tell people, or could, "messages": the newest messages}, as plain JSON types; no
    PHI, and nobody's address."""
    active = runtime.config.notification_plugin_ids
    found = [each.id for each in runtime.plugins.manifests() if each.type == "notification"]
    return {
        "items": [_described(runtime, actor, each) for each in dict.fromkeys((*active, *found))],
        "messages": [
            {
                "id": row.id,
                "plugin_id": row.plugin_id,
                "notices": row.notices,
                "status": row.status,
                "cause": row.cause,
                "tries": row.tries,
                "next_at": stamp(row.next_at),
                "created_at": stamp(row.created_at),
                "ended_at": stamp(row.ended_at),
            }
            for row in runtime.database.rows(
                _NEWEST, {"account_id": actor.account_id, "most": NEWEST}
            )
        ],
    }


def _described(runtime: Runtime, actor: Actor, plugin_id: str) -> dict[str, Any]:
    saved = runtime.settings.snapshot().of_plugin(plugin_id)
    place = {"account_id": actor.account_id, "plugin_id": plugin_id}
    untold = runtime.database.row(_UNTOLD, place)
    unsent = runtime.database.row(_UNSENT, place)
    return {
        "id": plugin_id,
        "active": plugin_id in runtime.config.notification_plugin_ids,
        "events": sorted(notices.kinds(runtime.plugins, plugin_id, saved)),
        "waiting": sum(row.notices or 0 for row in (untold, unsent) if row is not None),
        "fault": _fault(runtime, plugin_id),
    }


_PLACE = (
    MESSAGES.c.account_id == sa.bindparam("account_id"),
    MESSAGES.c.plugin_id == sa.bindparam("plugin_id"),
)
MOST_COUNTED = 1000
_SOME_UNTOLD = (
    sa.select(NOTICES.c.id)
    .where(
        NOTICES.c.account_id == sa.bindparam("account_id"),
        NOTICES.c.plugin_id == sa.bindparam("plugin_id"),
        NOTICES.c.notification_id.is_(None),
    )
    .limit(MOST_COUNTED)
)
_UNTOLD = sa.select(sa.func.count().label("notices")).select_from(_SOME_UNTOLD.subquery())
_UNSENT = sa.select(sa.func.sum(MESSAGES.c.notices).label("notices")).where(*_PLACE, IS_WAITING)
_NEWEST = (
    sa.select(MESSAGES)
    .where(MESSAGES.c.account_id == sa.bindparam("account_id"))
    .order_by(MESSAGES.c.id.desc())
    .limit(sa.bindparam("most"))
)


def faults(runtime: Runtime) -> dict[str, str]:
    """The plugins that should tell people and do not, each with a sentence; raises DatabaseAway."""
    found = {each: _fault(runtime, each) for each in runtime.config.notification_plugin_ids}
    return {each: why for each, why in found.items() if why}


def _fault(runtime: Runtime, plugin_id: str) -> str | None:
    """Why a plugin cannot tell people, or has not lately; None where all is well, as far as is known."""
    try:
        if runtime.plugins.manifest(plugin_id).type != "notification":
            return f"{plugin_id} is no notification plugin (FAXBOT_NOTIFICATIONS)"
        runtime.plugins.settings(plugin_id)
    except (ConfigError, PluginError) as error:
        return error.detail.rstrip(".")
    active = {"active": [plugin_id]}
    unsent = runtime.database.row(_FAILING, active)
    if unsent is not None:
        return f"a message has failed {unsent.tries} times ({unsent.cause})"
    last = runtime.database.row(_LAST, active)
    if last is not None and last.status == GIVEN_UP:
        return f"the last message was given up ({last.cause})"
    if last is not None and last.cause in (PARTLY, WITHOUT_SOME):
        return "the last message was refused for some of those who were to be told"
    return None


_FAILING = (
    sa.select(MESSAGES.c.tries, MESSAGES.c.cause)
    .where(MESSAGES.c.plugin_id.in_(OF_ACTIVE), IS_WAITING, MESSAGES.c.tries >= FAILING)
    .order_by(MESSAGES.c.id)
    .limit(1)
)
_LAST = (
    sa.select(MESSAGES.c.status, MESSAGES.c.cause)
    .where(MESSAGES.c.plugin_id.in_(OF_ACTIVE), MESSAGES.c.ended_at.is_not(None))
    .order_by(MESSAGES.c.ended_at.desc())
    .limit(1)
)


def test(runtime: Runtime, actor: Actor, plugin_id: str) -> dict[str, Any]:
    """{"ok": bool, "detail": str}: send a test notice to all whom this plugin tells, whether it is active or not;
    raises NotFound, PluginTestsCrowded."""
    try:
        manifest = runtime.plugins.manifest(plugin_id)
    except PluginError:
        manifest = None
    if manifest is None or manifest.type != "notification":
        raise NotFound(
            "there is no notification plugin of this id: `faxbot notifications list` shows all"
        )
    notification = Notification(new_id(runtime.now()))
    with limits.one_test():
        detail = _tried(runtime, plugin_id, notification)
    of, now = ("plugin", plugin_id), runtime.now()
    outcome = audit.FAILED if detail else audit.DONE
    # One that arrived is a message like others: what was wrong before it is over.
    row = {
        "id": notification.id, "account_id": actor.account_id, "plugin_id": plugin_id, "notices": 0,
        "status": SENT, "tries": 1, "doubts": 0, "created_at": now, "ended_at": now,
    }  # fmt: skip
    with runtime.database.writing() as connection:
        if not detail:
            connection.execute(sa.insert(MESSAGES).inline(), row)
        audit.record(connection, actor, Action.NOTIFICATION_TESTED, of, now=now, outcome=outcome)
    return {"ok": not detail, "detail": detail or "A test notice is on its way."}


def _tried(runtime: Runtime, plugin_id: str, notification: Notification) -> str:
    """Why a test notice could not be sent; empty where it was."""
    try:
        plugin = runtime.plugins.get(plugin_id, NotificationPlugin)
        all_told = plugin.notify(notification)
    except FaxbotError as error:
        return error.detail
    except Exception as error:  # noqa: BLE001 - a plugin raises anything
        return f"The plugin failed ({type(error).__name__})."
    if all_told is False:
        return "It was taken for some of those who are told, and refused for the others."
    return ""
