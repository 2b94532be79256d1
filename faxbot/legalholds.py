"""Legal holds: nothing of a fax is removed, neither by retention nor at the carrier, until somebody lifts it."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from faxbot import audit
from faxbot.actors import Actor
from faxbot.audit import Action
from faxbot.crypto import Unsealable
from faxbot.db import UtcDateTime, new_id, table
from faxbot.errors import NotFound, NotPossibleNow
from faxbot.models import HAS_COPY, Artifact, Attempt, InboundFax, Job, LegalHold
from faxbot.results import stamp
from faxbot.runtime import Runtime

FAX, INBOUND = "fax", "inbound"
REASON_LENGTH = 500
_FAXES: dict[str, sa.Table] = {FAX: table(Job), INBOUND: table(InboundFax)}
_ID = re.compile(r"[0-9a-f]{32}")
_OWNER = {FAX: "job_id", INBOUND: "inbound_id"}
_COPIES = {FAX: table(Attempt).c.job_id, INBOUND: table(InboundFax).c.id}
"""Where it is said of a fax that its carrier's copy is to go."""
_HOLDS, _FILES = table(LegalHold), table(Artifact)


def place(account_id: str) -> str:
    """Where reasons are sealed to (Keyring.seal)."""
    return f"legal_holds.reason:{account_id}"


def hold(runtime: Runtime, actor: Actor, kind: str, fax_id: str, reason: str) -> None:
    """Let nothing of this fax be removed from now on; a second hold stands beside the first. Raises NotFound, and
    NotPossibleNow while retention is removing its document."""
    now = runtime.now()
    with runtime.database.writing() as connection:
        _set(connection, actor, kind, fax_id, now, held=True)
        going = (_FILES.c[_OWNER[kind]] == fax_id, _FILES.c.deleted_at.is_not(None))
        if connection.execute(sa.select(_FILES.c.id).where(*going).limit(1)).first() is not None:
            raise NotPossibleNow(
                "retention is removing its document at this moment: try again, to keep the rest of it"
            )
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


def lift(
    runtime: Runtime, actor: Actor, kind: str, fax_id: str, hold_id: str | None = None
) -> None:
    """Lift one hold; without the last one the fax goes by its age again. Nothing where there is none. Raises NotFound,
    also for a `hold_id` that is none of this fax, and NotPossibleNow where there are several and none is named."""
    now = runtime.now()
    with runtime.database.writing() as connection:
        _set(connection, actor, kind, fax_id, now, held=True)
        which = (_HOLDS.c.fax_id == fax_id, _HOLDS.c.lifted_at.is_(None))
        open_ = connection.scalars(sa.select(_HOLDS.c.id).where(*which)).all()
        if hold_id is None and len(open_) > 1:
            raise NotPossibleNow(
                f"there are {len(open_)} holds on this fax: say which one by its id"
            )
        if hold_id is not None and hold_id not in open_:
            raise NotFound("this fax has no such legal hold")
        these = [hold_id] if hold_id is not None else list(open_)
        lifted = sa.update(_HOLDS).where(_HOLDS.c.id.in_(these))
        connection.execute(lifted.values(lifted_at=now, lifted_by=actor.id))
        if len(these) == len(open_):
            _set(connection, actor, kind, fax_id, now, held=False)
            # The carrier was not asked meanwhile: it has as long as it ever had.
            its = _COPIES[kind]
            copies = sa.update(its.table).where(its == fax_id, sa.text(HAS_COPY))
            connection.execute(copies.values(copy_wanted_at=now, delete_copy_at=now))
        if these:
            audit.record(connection, actor, Action.LEGAL_HOLD_LIFTED, (kind, fax_id), now=now)


def _set(
    connection: Connection, actor: Actor, kind: str, fax_id: str, now: datetime, *, held: bool
) -> None:
    """Who removes a fax locks this row as well, and looks at it again when he has it."""
    _must_be_an_id(fax_id)
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


def _must_be_an_id(fax_id: str) -> None:
    if not _ID.fullmatch(fax_id):
        raise NotFound("there is no fax with this id")


def of(runtime: Runtime, actor: Actor, kind: str, fax_id: str) -> list[dict[str, Any]]:
    """The holds of a fax, newest first, as plain JSON types; those that were lifted, too. Raises NotFound."""
    _must_be_an_id(fax_id)
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
            "id": row.id,
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
