"""Faxes that come in are noted, once, by the carrier's name for them.

The note is committed with the callback that brought it, so nothing is lost when the document cannot be had at once
(fetching).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from faxbot import outcomes
from faxbot.crypto import Keyring
from faxbot.db import inserts, new_id
from faxbot.errors import ArtifactNotFound, NotADocument, Refused
from faxbot.events import DEFAULT_ACCOUNT, Event, Reception
from faxbot.hidden import Hidden
from faxbot.models import InboundFax
from faxbot.plugins.base import Arrival
from faxbot.results import record_reception
from faxbot.runtime import Runtime

TASK = "faxbot.fetch_inbound"
OF_NO_USE = (NotADocument, Refused, ArtifactNotFound)
"""What hinders where the request that brought a fax has no document in it, or none any more."""
NO_DOCUMENT = "no-document"
"""The cause of a fax whose document nobody had for so long, or till a person gave it up (fetching)."""
_CODES = [error.code for error in OF_NO_USE]


def are_wanted(runtime: Runtime, provider_id: str) -> bool:
    """Whether faxes that this provider's carrier brings are received here (INBOUND_ENABLED, FAX_INBOUND_BACKENDS)."""
    config = runtime.config
    return config.inbound_enabled and provider_id in config.inbound_provider_ids


def checked(arrival: Arrival) -> Arrival:
    """An arrival as a plugin gave it, fit for the ledger: what is not a fact of the kind it should be is left out.
    Raises ValueError where it has no name."""
    if not outcomes.is_name(arrival.external_id):
        raise ValueError("no name")
    pages = arrival.pages
    counted = type(pages) is int and 0 < pages <= outcomes.MOST_PAGES
    return replace(
        arrival,
        sender=_number(arrival.sender),
        recipient=_number(arrival.recipient),
        pages=pages if counted else None,
        cause=None if arrival.cause is None else outcomes.canonical(arrival.cause),
        attached=arrival.attached is True,
        received_at=outcomes.dated(arrival.received_at),
    )


def ask_for_one(arrivals: Sequence[Arrival]) -> None:
    """Raise ValueError where a request is said to hold several documents: whose is which nobody can tell."""
    if sum(arrival.attached for arrival in arrivals) > 1:
        raise ValueError("several documents")


def _number(given: object) -> Hidden[str]:
    text: object = given.reveal() if isinstance(given, Hidden) else None
    return Hidden(text[:64] if isinstance(text, str) and text.isprintable() else "")


def note(
    session: Session, runtime: Runtime, arrival: Arrival, *, provider_id: str, callback_id: str
) -> str | None:
    """Note a checked arrival in the caller's transaction, once; the fax's id where its document is to be had now."""
    now = runtime.now()
    values = _new(runtime.keyring.still(), arrival, provider_id, now)
    its_name = {name: values[name] for name in ("account_id", "provider_id", "external_id")}
    insert = inserts(InboundFax)[session.connection().dialect.name]
    is_new = session.execute(
        insert.on_conflict_do_nothing().returning(InboundFax.id), values
    ).first()
    fax = session.scalars(_BY_NAME, its_name).one()
    if arrival.cause is not None:
        if is_new:
            fax.cause = arrival.cause
            record_reception(session, fax, Event.RECEIVE_FAILED, Reception.FAILED, now=now)
        return None  # what has come, or is said to have, is not taken back
    if not is_new and not _may_help(fax, arrival):
        return None
    if fax.status == Reception.FAILED:
        begin_again(fax, now)
        if fax.purged_at is not None:
            fax.numbers_sealed, fax.purged_at = values["numbers_sealed"], None
            fax.from_key, fax.to_key = values["from_key"], values["to_key"]
    if arrival.attached:
        fax.callback_id = callback_id
    fax.next_at = now
    return fax.id


def begin_again(fax: InboundFax, now: datetime) -> None:
    """Have the document of a locked fax that failed tried to be had, as of one that came now; who marked it as read has
    not read that."""
    fax.status, fax.cause, fax.tries, fax.updated_at = Reception.FETCHING, None, 0, now
    fax.fetching_at = fax.next_at = now
    fax.read_at = fax.read_by = None
    # What was to go at the carrier is needed now.
    fax.delete_copy_at = fax.copy_wanted_at = fax.copy_deleted_at = None


def _may_help(fax: InboundFax, arrival: Arrival) -> bool:
    """Whether a repeat brings what is missing: a document where there is none yet, or one that is of no use. The first
    one is not given up for another. What a person has given up, and is done with, comes back with its document only."""
    if fax.status == Reception.FETCHING:
        return arrival.attached and (fax.callback_id is None or fax.cause in _CODES)
    is_done_with = fax.cause == NO_DOCUMENT and fax.read_at is not None
    return fax.status == Reception.FAILED and (arrival.attached or not is_done_with)


def _new(keyring: Keyring, arrival: Arrival, provider_id: str, now: datetime) -> dict[str, Any]:
    sender, recipient = arrival.sender.reveal(), arrival.recipient.reveal()
    return {
        "id": new_id(now),
        "account_id": DEFAULT_ACCOUNT,
        "provider_id": provider_id,
        "external_id": arrival.external_id,
        "status": Reception.FETCHING,
        "numbers_sealed": keyring.seal(
            json.dumps({"from": sender, "to": recipient}).encode(), place(DEFAULT_ACCOUNT)
        ),
        "from_key": keyring.keyed_hash(sender.encode(), "number") if sender else None,
        "to_key": keyring.keyed_hash(recipient.encode(), "number") if recipient else None,
        "pages": arrival.pages,
        "tries": 0,
        "last_sequence": 0,
        "fetching_at": now,
        "received_at": arrival.received_at or now,
        "created_at": now,
        "updated_at": now,
    }


def place(account_id: str) -> str:
    """Where the numbers of a received fax are sealed to (Keyring.seal)."""
    return f"inbound_faxes.numbers:{account_id}"


_BY_NAME = (
    sa.select(InboundFax)
    .where(
        InboundFax.account_id == sa.bindparam("account_id"),
        InboundFax.provider_id == sa.bindparam("provider_id"),
        InboundFax.external_id == sa.bindparam("external_id"),
    )
    .with_for_update()
    .execution_options(populate_existing=True)
)
