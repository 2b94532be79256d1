"""Received faxes as people see them: pages of them, one, its document, read and unread, links that expire, another
try at a document that nobody had, and the end of trying."""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from faxbot import arrivals, artifacts, audit, fetching, phone
from faxbot.actors import Actor
from faxbot.artifacts import PDF, Workspace
from faxbot.audit import Action
from faxbot.crypto import Unsealable
from faxbot.db import UtcDateTime, first_id, table
from faxbot.errors import (
    AccountRefused,
    ArtifactDamaged,
    ArtifactNotFound,
    DestinationBarred,
    Malformed,
    NotADocument,
    NotFound,
    NotPossibleNow,
    NotSent,
    OutcomeUnknown,
    PluginError,
    ProviderError,
    Refused,
    StorageAway,
    Throttled,
    Unauthenticated,
    Unreachable,
)
from faxbot.events import Reception
from faxbot.models import Artifact, FaxEvent, InboundFax
from faxbot.results import stamp
from faxbot.runtime import Runtime

MOST_COUNTED = 1000
"""More unread faxes are not counted."""
_FAX = table(InboundFax)
_ID = re.compile(r"[0-9a-f]{32}")
_TOKEN = re.compile(r"([0-9a-f]{1,16})\.([0-9a-f]{64})")
_LINK = "document link"
Row = sa.Row[Any]


# Reading --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which received faxes a list shows; None means all."""

    status: str | None = None
    provider_id: str | None = None
    unread: bool | None = None
    from_key: str | None = None
    to_key: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def find(runtime: Runtime, actor: Actor, inbound_id: str) -> Row:
    """The actor's received fax; raises NotFound, the same for a foreign id and an unknown one."""
    row = (
        runtime.database.row(_FIND, {"inbound_id": inbound_id})
        if _ID.fullmatch(inbound_id)
        else None
    )
    if row is None or row.account_id != actor.account_id:
        raise NotFound("there is no received fax with this id")
    return row


_FIND = sa.select(_FAX).where(_FAX.c.id == sa.bindparam("inbound_id"))


def page(
    runtime: Runtime, actor: Actor, filters: Filters, *, limit: int, cursor: str | None
) -> tuple[Sequence[Row], str | None]:
    """Up to `limit` received faxes, newest first, and the cursor of the next page (None at the end).

    Keyset over the time-ordered id: no OFFSET, no COUNT. Raises Malformed for a cursor that is not ours.
    """
    query = sa.select(_FAX).where(_FAX.c.account_id == actor.account_id, *_asked(filters))
    if cursor is not None:
        if not _ID.fullmatch(cursor):
            raise Malformed("`cursor` is not one that this server gave")
        query = query.where(_FAX.c.id < cursor)
    found = runtime.database.rows(query.order_by(_FAX.c.id.desc()).limit(limit + 1), {})
    return found[:limit], found[limit - 1].id if len(found) > limit else None


def _asked(filters: Filters) -> Iterator[sa.ColumnElement[bool] | sa.TextClause]:
    for name in ("status", "provider_id", "from_key", "to_key"):
        if (wanted := getattr(filters, name)) is not None:
            yield _FAX.c[name] == wanted
    if filters.status not in (None, Reception.RECEIVED.value):
        yield _NOT_RECEIVED
    if filters.unread is not None:
        yield from _IS_UNREAD if filters.unread else (_FAX.c.read_at.is_not(None),)
    if filters.since is not None:
        yield _FAX.c.id >= first_id(filters.since)
    if filters.until is not None:
        yield _FAX.c.id < first_id(filters.until)


# In the words of their indexes (models): SQLite takes no other condition for the same, nor does PostgreSQL where it
# plans for all values at once.
_NOT_RECEIVED = sa.text("inbound_faxes.status <> 'received'")
_UNREAD = sa.text("inbound_faxes.read_at IS NULL AND inbound_faxes.status = 'received'")
_IS_UNREAD = (_UNREAD, _FAX.c.purged_at.is_(None))
"""What retention has removed, nobody can read any more."""


def unread(runtime: Runtime, actor: Actor) -> dict[str, Any]:
    """{"count": int, "more": bool, "oldest": time or None, "oldest_seconds": int or None}."""
    oldest = sa.select(_FAX.c.received_at).where(_FAX.c.account_id == actor.account_id, *_IS_UNREAD)
    found = runtime.database.rows(oldest.order_by(_FAX.c.id).limit(MOST_COUNTED + 1), {})
    since = min((row.received_at for row in found), default=None)
    return {
        "count": min(len(found), MOST_COUNTED),
        "more": len(found) > MOST_COUNTED,
        "oldest": stamp(since),
        "oldest_seconds": None if since is None else _age(runtime.now(), since),
    }


def _age(now: datetime, since: datetime) -> int:
    return max(0, int((now - since).total_seconds()))


def describe(runtime: Runtime, fax: Row, *, masked: bool = False) -> dict[str, Any]:
    """A received fax as the API shows it, in plain JSON types; `masked` hides the numbers."""
    numbers = _numbers(runtime, fax, masked=masked)
    waits = fax.status == Reception.RECEIVED and fax.read_at is None and fax.purged_at is None
    return {
        "id": fax.id,
        "from": numbers["from"],
        "to": numbers["to"],
        "from_key": fax.from_key,
        "to_key": fax.to_key,
        "status": fax.status,
        "error": _error(fax),
        "provider_id": fax.provider_id,
        "external_id": fax.external_id,
        "pages": fax.pages,
        "size_bytes": fax.size,
        "sha256": fax.sha256,
        "received_at": stamp(fax.received_at),
        "read_at": stamp(fax.read_at),
        "read_by": fax.read_by,
        "unread_seconds": _age(runtime.now(), fax.received_at) if waits else None,
        "next_at": stamp(fax.next_at) if fax.status == Reception.FETCHING else None,
        "created_at": stamp(fax.created_at),
        "updated_at": stamp(fax.updated_at),
        "purged_at": stamp(fax.purged_at),
        "legal_hold_at": stamp(fax.legal_hold_at),
        "fr": numbers["from"],
        "backend": fax.provider_id,
        "mailbox": None,
    }


def _numbers(runtime: Runtime, fax: Row, *, masked: bool) -> dict[str, str | None]:
    """Both numbers; None where one is not known, or does not open."""
    try:
        said = json.loads(runtime.keyring.open(fax.numbers_sealed, arrivals.place(fax.account_id)))
    except Unsealable:
        return {"from": None, "to": None}
    return {
        side: (phone.mask(said[side]) if masked else said[side]) or None if said[side] else None
        for side in ("from", "to")
    }


def _error(fax: Row) -> dict[str, Any] | None:
    if fax.cause is None:
        return None
    if fax.status == Reception.FETCHING:
        message = f"{WHY.get(fax.cause, _OURS)} It is tried again."
        return {"code": fax.cause, "message": message, "retryable": True}
    message = _NEVER if fax.cause == fetching.NO_DOCUMENT else _ON_ITS_WAY
    message = _AGAIN if may_be_fetched(fax) else message
    return {"code": fax.cause, "message": message, "retryable": False}


_OURS = "Its document cannot be had now: this server failed at it, and the worker's log says how."
_AWAY = (
    "Its document cannot be had now: its provider cannot be reached, or has no time for it, or does not have it yet. "
    "Where it lies in a folder, see that the right one is mounted."
)
_NOT_THERE = "Its document is not there: its provider was asked, and had none."
WHY = {
    AccountRefused.code: "Its document cannot be had: its provider does not let this server in. Test its "
    "connection, and mend what that says.",
    ProviderError.code: _AWAY,
    Unreachable.code: _AWAY,
    Throttled.code: _AWAY,
    DestinationBarred.code: "Its document cannot be had: its provider forbids it. Test its connection.",
    NotSent.code: _AWAY,
    OutcomeUnknown.code: _AWAY,
    Refused.code: _NOT_THERE,
    NotADocument.code: "What its provider gave is no document: neither PDF nor TIFF, or larger than any fax.",
    PluginError.code: "Its document cannot be had: its plugin is disabled, or fails. Plugins says which.",
    StorageAway.code: "The storage of documents is away: Diagnostics and the worker's log say why.",
    ArtifactNotFound.code: "What came with its provider's message, which was to be its document, is not in the "
    "storage.",
    ArtifactDamaged.code: "What came with its provider's message is not what was stored of it.",
    Unsealable.code: "What came with its provider's message does not open: CONFIG_MASTER_KEY is another one.",
    fetching.STORAGE: "Its document cannot be written: the disk of this server is full, or not there.",
}
"""What hinders that a document is had, and who mends it, by the code of the error; else it is a fault of ours."""
_AGAIN = (
    "Its document could not be had: have it tried once more, or ask the carrier, or who sent it."
)
_NEVER = "Its document could not be had: ask who sent it."
_ON_ITS_WAY = "It failed on its way here; who sent it may send it again."


def events(runtime: Runtime, inbound_id: str) -> list[dict[str, Any]]:
    """What happened to a received fax, in its order: {"sequence", "type", "status", "cause", "pages", "occurred_at",
    "recorded_at"} each, in plain JSON types."""
    return [
        {
            **{name: row[name] for name in ("sequence", "type", "status", "cause", "pages")},
            "occurred_at": stamp(row["occurred_at"]),
            "recorded_at": stamp(row["recorded_at"]),
        }
        for row in (
            found._asdict()
            for found in runtime.database.rows(_HAPPENED, {"inbound_id": inbound_id})
        )
    ]


_EVENTS = table(FaxEvent)
_HAPPENED = (
    sa.select(_EVENTS)
    .where(_EVENTS.c.inbound_id == sa.bindparam("inbound_id"))
    .order_by(_EVENTS.c.sequence)
)


# Documents ------------------------------------------------------------------------------------------


def document(
    runtime: Runtime, inbound_id: str, workspace: Workspace, *, as_it_came: bool = False
) -> tuple[Path, str]:
    """The document of a received fax as a file to be read, and its media type: a PDF, or `as_it_came`. Raises NotFound
    where there is none (yet)."""
    found = {row.role: row for row in runtime.database.rows(_DOCUMENTS, {"inbound_id": inbound_id})}
    kept = found.get("document")
    if kept is not None and not as_it_came and kept.media_type != PDF:
        kept = found.get("pages")
    if kept is None:
        raise NotFound("this fax has no such document")
    try:
        return artifacts.fetch(runtime, kept, workspace), kept.media_type
    except ArtifactNotFound:
        raise NotFound("this fax has no such document any more") from None


def shown(runtime: Runtime, inbound_id: str, number: int, width: int, workspace: Workspace) -> Path:
    """One page of it (from 1) as a PNG, so many pixels wide. Raises NotFound, and NotPossibleNow where it cannot be
    drawn."""
    path, _ = document(runtime, inbound_id, workspace)
    return artifacts.shown(runtime, path, number, width, workspace)


_DOCUMENTS = sa.select(table(Artifact)).where(Artifact.inbound_id == sa.bindparam("inbound_id"))


def link(runtime: Runtime, actor: Actor, inbound_id: str) -> dict[str, Any]:
    """{"url", "expires_at"} of an address at which the PDF is for INBOUND_TOKEN_TTL_MINUTES, without a key: whoever has
    it has the document. Raises NotFound."""
    fax = find(runtime, actor, inbound_id)
    if fax.purged_at is not None:
        raise NotFound("this fax has no document any more")
    now = runtime.now()
    until = now + timedelta(minutes=runtime.config.inbound_token_ttl_minutes)
    what = f"{int(until.timestamp()):x}"
    proof = runtime.keyring.keyed_hash(f"inbound.{fax.id}.{what}".encode(), _LINK)
    with runtime.database.writing() as connection:
        audit.record(connection, actor, Action.INBOUND_LINKED, ("inbound", fax.id), now=now)
    url = f"{runtime.config.base_url}/inbound/{fax.id}/pdf?token={what}.{proof}"
    return {"url": url, "expires_at": stamp(datetime.fromtimestamp(int(what, 16), UTC))}


def admit(runtime: Runtime, inbound_id: str, token: str) -> str:
    """Whose account's received fax this is; raises Unauthenticated unless this is the token of a link to it that has
    not expired, and NotFound where it is gone."""
    match = _TOKEN.fullmatch(token)
    if match is not None:
        good = runtime.keyring.hashes(f"inbound.{inbound_id}.{match[1]}".encode(), _LINK)
        proven = [hmac.compare_digest(each, match[2]) for each in good]
        if any(proven) and runtime.now().timestamp() < int(match[1], 16):
            fax = runtime.database.row(_FIND, {"inbound_id": inbound_id})
            if fax is None:
                raise NotFound("there is no received fax with this id")
            return str(fax.account_id)
    raise Unauthenticated("this link is not one of ours, or its time is over")


# Tried once more, and given up ----------------------------------------------------------------------


def may_be_fetched(fax: Row | InboundFax) -> bool:
    """Whether a person may have its document tried to be had once more: it failed for want of that."""
    lost = fax.status == Reception.FAILED and fax.cause == fetching.NO_DOCUMENT
    return lost and fax.purged_at is None


@audit.refusals(Action.INBOUND_FETCHED)
def fetch(runtime: Runtime, actor: Actor, inbound_id: str) -> Row:
    """Have its document tried to be had once more, as of a fax that comes now. Raises NotFound, and NotPossibleNow
    where there is nothing to be had, or it is being had."""
    find(runtime, actor, inbound_id)
    now = runtime.now()
    with runtime.database.transaction() as session:
        fax = fetching.locked(session, inbound_id)
        if not may_be_fetched(fax):
            raise NotPossibleNow(_why_not(fax))
        arrivals.begin_again(fax, now)
        audit.record(session, actor, Action.INBOUND_FETCHED, ("inbound", inbound_id), now=now)
    runtime.ring(arrivals.TASK, inbound_id)
    return find(runtime, actor, inbound_id)


@audit.refusals(Action.INBOUND_GIVEN_UP)
def give_up(runtime: Runtime, actor: Actor, inbound_id: str) -> Row:
    """Have its document not tried to be had any more: then it can be marked as read, and goes by its age; or be tried
    once more (fetch()). Raises NotFound, and NotPossibleNow where nobody tries."""
    find(runtime, actor, inbound_id)
    now = runtime.now()
    with runtime.database.transaction() as session:
        fax = fetching.locked(session, inbound_id)
        if fax.status != Reception.FETCHING:
            raise NotPossibleNow("its document is not being had: it is there, or was given up")
        fetching.give_up(session, fax, now)
        audit.record(session, actor, Action.INBOUND_GIVEN_UP, ("inbound", inbound_id), now=now)
    return find(runtime, actor, inbound_id)


def _why_not(fax: InboundFax) -> str:
    if fax.status == Reception.FETCHING:
        return "its document is being had; `next_at` says when it is tried next"
    if fax.status == Reception.RECEIVED:
        return "its document is there"
    if fax.purged_at is not None:
        return "its time is over, and what was known of it is removed"
    return "it failed on its way here, and has no document"


# Read and unread ------------------------------------------------------------------------------------


def mark(runtime: Runtime, actor: Actor, inbound_id: str, *, read: bool) -> Row:
    """Say that somebody has read it, or that nobody has; the first who did stays. Raises NotFound, and NotPossibleNow
    for one whose document is not there yet."""
    find(runtime, actor, inbound_id)
    now = runtime.now()
    values: dict[str, Any] = {"inbound_id": inbound_id, "at": now if read else None}
    values |= {"by": actor.id if read else None, "now": now}
    with runtime.database.writing() as connection:
        # Who has it tried once more locks it as well: what nobody has had nobody has read.
        if connection.scalar(_STATUS, {"inbound_id": inbound_id}) == Reception.FETCHING:
            raise NotPossibleNow("its document is not there yet")
        changed = connection.execute(_MARK_READ if read else _MARK_UNREAD, values).first()
        if changed is not None:
            details = {"read": read}
            audit.record(
                connection, actor, Action.INBOUND_MARKED, ("inbound", inbound_id), now=now,
                details=details,
            )  # fmt: skip
    return find(runtime, actor, inbound_id)


_STATUS = sa.select(_FAX.c.status).where(_FAX.c.id == sa.bindparam("inbound_id")).with_for_update()
_MARK = (
    sa.update(_FAX)
    .where(_FAX.c.id == sa.bindparam("inbound_id"))
    .values(
        read_at=sa.bindparam("at", type_=UtcDateTime),
        read_by=sa.bindparam("by"),
        updated_at=sa.bindparam("now", type_=UtcDateTime),
    )
    .returning(_FAX.c.id)
)
_MARK_READ = _MARK.where(_FAX.c.read_at.is_(None))
_MARK_UNREAD = _MARK.where(_FAX.c.read_at.is_not(None))
