"""The one way to save settings: checked, written into the audit trail, and kept as a revision that can be gone back to.

A revision holds the whole of what was saved at its version, sealed. The newest KEPT stay, and every one that somebody
has given a name (a backup).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from faxbot import audit
from faxbot.actors import Actor
from faxbot.audit import Action
from faxbot.crypto import Unsealable
from faxbot.db import inserts, table
from faxbot.errors import ConfigError, FaxbotError, InvalidFields, NotFound
from faxbot.events import DEFAULT_ACCOUNT
from faxbot.models import ConfigRevision
from faxbot.runtime import Runtime
from faxbot.settings import Saved, Stored, Wish

KEPT = 100
"""So many of the newest revisions are kept, beside the backups."""
FOUND_SO = "it was found so: what saved it kept no revision"


@dataclass(frozen=True, slots=True)
class Deed:
    """Who saves something, why, and how that is called in the audit trail; `of` is what it is done to."""

    actor: Actor
    note: str
    action: Action = Action.CONFIG_CHANGED
    of: tuple[str, str] | None = None
    details: Mapping[str, Any] | None = None
    """Names and counts, for the audit trail."""


def _nothing_more(_session: Session, _now: datetime) -> None:
    """What is saved is all that changes."""


def save(
    runtime: Runtime,
    deed: Deed,
    wish: Wish,
    *,
    seen: int,
    more: Callable[[Session, datetime], None] = _nothing_more,
) -> int:
    """Save values by scope and key (None: take back) over version `seen`, and do `more` in the same transaction; the
    new version. This process goes by it at once, the others within LOOK_EVERY.

    Raises ChangedMeanwhile as Settings.write(), InvalidFields where options do not hold.
    """
    now = runtime.now()
    names = [name_of(scope, key) for scope, values in wish.items() for key in values]
    try:
        with runtime.database.transaction() as session:
            written = runtime.settings.write(session, wish, seen=seen, now=now)
            if seen:
                _keep(session, runtime, written.before, now)
            _keep(session, runtime, written.after, now, deed, names)
            _forget_old(session, written.after.version)
            more(session, now)
            version = written.after.version
            audit.record(
                session,
                deed.actor,
                deed.action,
                deed.of or ("config", str(version)),
                now=now,
                details={"version": version, "names": names, **(deed.details or {})},
            )
    except ConfigError as error:
        raise InvalidFields(errors={"settings": [error.detail]}) from None
    with suppress(FaxbotError):  # it is saved; who cannot look now looks again before it is used
        runtime.settings.catch_up()
    runtime.breakers.forget()
    return version


def name_of(scope: str, key: str) -> str:
    """How one value is called: an option by its variable, a plugin's setting as plugin.key."""
    return f"{scope}.{key}" if scope else key


def back_up(session: Session, runtime: Runtime, actor: Actor, stored: Stored, note: str) -> None:
    """Give the revision of what is saved now a name, so that it is kept; another name takes the place of the first."""
    now = runtime.now()
    _keep(session, runtime, stored, now)
    session.get_one(ConfigRevision, (DEFAULT_ACCOUNT, stored.version)).backup = note
    audit.record(
        session,
        actor,
        Action.CONFIG_BACKED_UP,
        ("config", str(stored.version)),
        now=now,
        details={"version": stored.version},
    )


def listed(runtime: Runtime) -> list[sa.Row[Any]]:
    """All revisions without what was saved, newest first."""
    return list(runtime.database.rows(_LISTED, _ACCOUNT))


def saved_at(runtime: Runtime, version: int) -> Saved:
    """What was saved when the settings had this version, by scope and key; 0: nothing. Raises NotFound; ConfigError
    where it was sealed with another master key."""
    if version == 0:
        return {}
    row = runtime.database.row(_ONE, {**_ACCOUNT, "version": version})
    if row is None:
        raise NotFound("there is no such version (any more): `faxbot config backups` lists them")
    try:
        found: Saved = json.loads(runtime.keyring.open(row.settings_sealed, place(version)))
    except (Unsealable, ValueError):
        raise ConfigError(
            f"version {version} does not open: CONFIG_MASTER_KEY is not the key it was saved with"
        ) from None
    return found


def _keep(
    session: Session,
    runtime: Runtime,
    stored: Stored,
    now: datetime,
    deed: Deed | None = None,
    names: list[str] | None = None,
) -> None:
    """Keep what is saved as the revision of its version: what a deed has made of it, or (None) as it is found, unless
    that is kept already."""
    sealed = runtime.keyring.seal(json.dumps(stored.saved).encode(), place(stored.version))
    row = {
        **_ACCOUNT,
        "version": stored.version,
        "saved_at": now,
        "actor": deed.actor.id if deed else "unknown",
        "note": deed.note if deed else FOUND_SO,
        "names": names or [],
        "backup": None,
        "settings_sealed": sealed,
    }
    insert = inserts(ConfigRevision)[session.get_bind().dialect.name].values(row)
    if deed is None:
        session.execute(insert.on_conflict_do_nothing())
        return
    key = ("account_id", "version")
    new = {name: insert.excluded[name] for name in row if name not in key}
    session.execute(insert.on_conflict_do_update(index_elements=key, set_=new))


def _forget_old(session: Session, version: int) -> None:
    session.execute(
        sa.delete(ConfigRevision).where(
            ConfigRevision.account_id == DEFAULT_ACCOUNT,
            ConfigRevision.version <= version - KEPT,
            ConfigRevision.backup.is_(None),
        )
    )


def place(version: int) -> str:
    """Where a revision is sealed (Keyring.seal)."""
    return f"config_revisions.settings:{DEFAULT_ACCOUNT}:{version}"


_ACCOUNT = {"account_id": DEFAULT_ACCOUNT}
_ROWS = table(ConfigRevision)
_OF_ACCOUNT = _ROWS.c.account_id == sa.bindparam("account_id")
_LISTED = (
    sa.select(*(column for column in _ROWS.c if column.name != "settings_sealed"))
    .where(_OF_ACCOUNT)
    .order_by(_ROWS.c.version.desc())
)
_ONE = sa.select(_ROWS.c.settings_sealed).where(
    _OF_ACCOUNT, _ROWS.c.version == sa.bindparam("version")
)
