"""Legal holds: nothing of a fax is removed, neither by retention nor at the carrier, until somebody lifts it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from faxbot import audit
from faxbot.actors import Actor
from faxbot.audit import Action
from faxbot.crypto import Unsealable
from faxbot.db import UtcDateTime, new_id, table
from faxbot.errors import NotFound
from faxbot.models import InboundFax, Job, LegalHold
from faxbot.results import stamp
from faxbot.runtime import Runtime

FAX, INBOUND = "fax", "inbound"
REASON_LENGTH = 500
_FAXES: dict[str, sa.Table] = {FAX: table(Job), INBOUND: table(InboundFax)}
_HOLDS = table(LegalHold)


def place(account_id: str) -> str:
    """Where reasons are sealed to (Keyring.seal)."""
    return f"legal_holds.reason:{account_id}"


def hold(runtime: Runtime, actor: Actor, kind: str, fax_id: str, reason: str) -> None:
    """Let nothing of this fax be removed from now on; a second reason is kept beside the first. Raises NotFound."""
    now = runtime.now()
    with runtime.database.writing() as connection:
        _set(connection, actor, kind, fax_id, now, held=True)
        connection.execute(
            sa.insert(_HOLDS),
            {
                "id": new_id(now),
                "account_id": actor.account_id,
                "kind": kind,
                "fax_id": fax_id,
                "actor": actor.id,
                "reason_sealed": runtime.keyring.still().seal(
                    reason.encode(), place(actor.account_id)
                ),
                "placed_at": now,
            },
        )
        audit.record(connection, actor, Action.LEGAL_HOLD_PLACED, (kind, fax_id), now=now)


def lift(runtime: Runtime, actor: Actor, kind: str, fax_id: str) -> None:
    """The fax goes by the clock again; nothing where there is no hold. Raises NotFound."""
    now = runtime.now()
    with runtime.database.writing() as connection:
        _set(connection, actor, kind, fax_id, now, held=False)
        lifted = connection.execute(
            sa.update(_HOLDS)
            .where(_HOLDS.c.fax_id == fax_id, _HOLDS.c.lifted_at.is_(None))
            .values(lifted_at=now, lifted_by=actor.id)
            .returning(_HOLDS.c.id)
        ).all()
        if lifted:
            audit.record(connection, actor, Action.LEGAL_HOLD_LIFTED, (kind, fax_id), now=now)


def _set(
    connection: Connection, actor: Actor, kind: str, fax_id: str, now: datetime, *, held: bool
) -> None:
    """Who removes a fax locks this row as well, and looks at it again when he has it."""
    faxes = _FAXES[kind]
    at = sa.func.coalesce(faxes.c.legal_hold_at, sa.bindparam("now", now, UtcDateTime))
    found = connection.execute(
        sa.update(faxes)
        .where(faxes.c.id == fax_id, faxes.c.account_id == actor.account_id)
        .values(legal_hold_at=at if held else None)
        .returning(faxes.c.id)
    ).first()
    if found is None:
        raise NotFound("there is no fax with this id")


def of(runtime: Runtime, actor: Actor, kind: str, fax_id: str) -> list[dict[str, Any]]:
    """The holds of a fax, newest first, as plain JSON types; those that were lifted, too. Raises NotFound."""
    faxes = _FAXES[kind]
    known = sa.select(faxes.c.id).where(
        faxes.c.id == fax_id, faxes.c.account_id == actor.account_id
    )
    if runtime.database.row(known, {}) is None:
        raise NotFound("there is no fax with this id")
    found = runtime.database.rows(
        sa.select(_HOLDS).where(_HOLDS.c.fax_id == fax_id).order_by(_HOLDS.c.id.desc()), {}
    )
    return [
        {
            "actor": row.actor,
            "reason": None if actor.masked else _reason(runtime, row),
            "placed_at": stamp(row.placed_at),
            "lifted_by": row.lifted_by,
            "lifted_at": stamp(row.lifted_at),
        }
        for row in found
    ]


def _reason(runtime: Runtime, row: sa.Row[Any]) -> str | None:
    try:
        return runtime.keyring.open(row.reason_sealed, place(row.account_id)).decode()
    except Unsealable:
        return None
