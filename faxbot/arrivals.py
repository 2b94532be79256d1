"""Faxes that come in: noted once by the carrier's name for them, then their document is had and stored, then they are
announced.

The note is committed with the callback it came in, so nothing is lost when a document cannot be had at once: a task
tries again, later and later, for GIVEN_UP. To have it twice does no harm; the second one finds it stored.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from faxbot import artifacts, guard, outcomes, posted
from faxbot.artifacts import FAX_PAGES, PDF, Upload, Workspace
from faxbot.crypto import Keyring
from faxbot.db import UtcDateTime, inserts, new_id, table
from faxbot.documents.process import RenderingFailed
from faxbot.errors import (
    ArtifactNotFound,
    DatabaseAway,
    DocumentError,
    FaxbotError,
    NotADocument,
    PluginError,
    Refused,
)
from faxbot.events import DEFAULT_ACCOUNT, Event, Reception
from faxbot.hidden import Hidden
from faxbot.models import Artifact, Callback, InboundFax
from faxbot.plugins.base import Arrival, CallbackRequest, TransportPlugin
from faxbot.results import record_reception
from faxbot.runtime import Runtime

log = logging.getLogger(__name__)

TASK = "faxbot.fetch_inbound"
LEASES = 5
"""For so many times FAXBOT_LEASE_SECONDS one worker has a fax to itself, without a heartbeat; then another may try."""
SOONEST, LATEST = timedelta(seconds=30), timedelta(hours=1)
"""Between two tries: twice as long each time, within these."""
GIVEN_UP = timedelta(days=14)
NO_DOCUMENT = "no-document"
"""The cause of a fax whose document nobody had for so long."""
MOST_BYTES = 200 * 1024 * 1024
"""Of a document; a hundred times what a long fax has."""
Row = sa.Row[Any]


# Noting ---------------------------------------------------------------------------------------------


def are_wanted(runtime: Runtime, provider_id: str) -> bool:
    """Whether faxes that this provider's carrier brings are received here (INBOUND_ENABLED, FAX_INBOUND_BACKENDS)."""
    config = runtime.config
    return config.inbound_enabled and provider_id in config.inbound_provider_ids


def checked(arrival: Arrival) -> Arrival:
    """An arrival as a plugin gave it, fit for the ledger: what is not a fact of the kind it should be is left out.
    Raises ValueError where it has no name."""
    if not outcomes.is_name(arrival.external_id):
        raise ValueError("no name")
    pages, at = arrival.pages, arrival.received_at
    counted = type(pages) is int and 0 < pages <= outcomes.MOST_PAGES
    dated = isinstance(at, datetime) and at.tzinfo is not None and 2000 <= at.year < 3000
    return replace(
        arrival,
        sender=_number(arrival.sender),
        recipient=_number(arrival.recipient),
        pages=pages if counted else None,
        cause=None if arrival.cause is None else outcomes.canonical(arrival.cause),
        attached=arrival.attached is True,
        received_at=at if dated else None,
    )


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
    if not is_new:
        # A repeat: it may bring the document of one that has none yet.
        if fax.status == Reception.RECEIVED or not (
            arrival.attached or fax.status == Reception.FAILED
        ):
            return None
        fax.status, fax.cause, fax.tries, fax.updated_at = Reception.FETCHING, None, 0, now
    if arrival.attached:
        fax.callback_id = callback_id
    fax.next_at = now
    return fax.id


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


# Having its document --------------------------------------------------------------------------------


def sweep(runtime: Runtime) -> int:
    """Ring for received faxes whose document is due, and remove the bodies that nobody needs; how many it rang for."""
    _forget_bodies(runtime)
    return _announce_due(runtime)


def _forget_bodies(runtime: Runtime, *, limit: int = 100) -> None:
    """Of callbacks that are applied, or cannot be, where no fax waits for the document in it: who was to forget them at
    once may have died."""
    unneeded = runtime.database.rows(_UNNEEDED, {"limit": limit})
    if unneeded:
        artifacts.forget(runtime, [row._asdict() for row in unneeded])


_UNNEEDED = (
    sa.select(table(Artifact))
    .join(Callback, Callback.id == Artifact.callback_id)
    .where(
        Artifact.callback_id.is_not(None),
        Callback.outcome.in_(("applied", "nothing")),
        ~sa.exists().where(
            InboundFax.callback_id == Callback.id,
            InboundFax.next_at.is_not(None),
        ),
    )
    .limit(sa.bindparam("limit"))
)


def _announce_due(runtime: Runtime, *, limit: int = 500) -> int:
    due = runtime.database.rows(_DUE, {"now": runtime.now(), "limit": limit})
    for count, row in enumerate(due):
        if not runtime.ring(TASK, row.id):
            return count
    return len(due)


_NOW = sa.bindparam("now", type_=UtcDateTime)
_DUE = (
    sa.select(InboundFax.id)
    .where(InboundFax.next_at <= _NOW)
    .order_by(InboundFax.next_at)
    .limit(sa.bindparam("limit"))
)


def fetch(runtime: Runtime, inbound_id: str) -> None:
    """Have the document of one received fax and store it; nothing when that is done, or another worker's now. Safe to
    call any number of times."""
    now, lease = runtime.now(), timedelta(seconds=runtime.config.lease_seconds)
    claim = {"inbound_id": inbound_id, "now": now, "until": now + LEASES * lease}
    fax = runtime.database.row(_CLAIM, claim)
    if fax is None:
        return
    names = {"inbound_id": fax.id, "provider_id": fax.provider_id}
    try:
        with Workspace(runtime) as workspace:
            _keep(runtime, fax, _had(runtime, fax, workspace), workspace)
    except DatabaseAway:
        raise
    except (FaxbotError, OSError) as error:
        code = error.code if isinstance(error, FaxbotError) else "storage"
        log.warning("received document not there yet", extra={**names, "error": code})
        _put_off(runtime, fax, code)
    except Exception as error:  # noqa: BLE001 - a plugin's bug, or a store's; its text may hold anything
        log.error("received document not there yet", extra={**names, "error": type(error).__name__})  # noqa: TRY400
        guard.failed(runtime, fax.account_id, fax.provider_id, error)
        _put_off(runtime, fax, PluginError.code)


_FAX = table(InboundFax)
_CLAIM = (
    sa.update(_FAX)
    .where(
        _FAX.c.id == sa.bindparam("inbound_id"),
        _FAX.c.status == Reception.FETCHING.value,
        _FAX.c.next_at <= _NOW,
    )
    .values(next_at=sa.bindparam("until", type_=UtcDateTime), tries=_FAX.c.tries + 1)
    .returning(*_FAX.c)
)


def _had(runtime: Runtime, fax: Row, workspace: Workspace) -> Path:
    """The document as a file of the workspace; raises FaxbotError's kin, OSError."""
    if guard.is_disabled(runtime, fax.account_id, fax.provider_id):
        raise PluginError("The plugin is disabled.")
    provider = runtime.plugins.get(fax.provider_id, TransportPlugin)
    fetches = runtime.plugins.manifest(fax.provider_id).has("gives_document")
    target = workspace.folder / "received"
    if fax.callback_id is not None:
        try:
            request = _request(runtime, fax.callback_id, workspace)
            with _written(target) as file:
                provider.attached(request, file)
            return target
        except (Refused, ArtifactNotFound):
            if not fetches:
                raise
            target.unlink(missing_ok=True)  # the carrier may have it still
    with _written(target) as file:
        provider.document(fax.external_id, file)
    return target


def _request(runtime: Runtime, callback_id: str, workspace: Workspace) -> CallbackRequest:
    row = runtime.database.row(_RAW, {"callback_id": callback_id})
    if row is None:
        raise ArtifactNotFound
    return posted.opened(runtime, callback_id, row.raw_sealed, workspace)


_RAW = sa.select(Callback.raw_sealed).where(Callback.id == sa.bindparam("callback_id"))


@contextmanager
def _written(target: Path) -> Iterator[BinaryIO]:
    """A new private file that takes MOST_BYTES."""
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        yield cast(BinaryIO, _Bounded(file))


class _Bounded:
    """What a plugin writes into."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._room = file, MOST_BYTES

    def write(self, data: bytes) -> int:
        self._room -= len(data)
        if self._room < 0:
            raise NotADocument
        return self._file.write(data)


def _kind(path: Path) -> str:
    """PDF or TIFF by its first bytes; raises NotADocument, as for a carrier's page of excuses."""
    with path.open("rb") as file:
        head = file.read(1024)
    if b"%PDF-" in head:  # ISO 32000-1, Annex H: within the first 1024 bytes
        return PDF
    if head[:4] in (b"II*\0", b"MM\0*"):
        return FAX_PAGES
    raise NotADocument


def _keep(runtime: Runtime, fax: Row, path: Path, workspace: Workspace) -> None:
    """Store it, and a PDF of it where it is none; then it is received."""
    kind, pages = _kind(path), fax.pages
    try:
        pages = runtime.checker.check(path).pages
    except DocumentError as error:
        # Whatever it is, it is what came: people may read what a strict reader does not.
        names = {"inbound_id": fax.id, "provider_id": fax.provider_id, "error": error.code}
        log.warning("received document is not sound", extra=names)
    uploads = {}
    if kind == FAX_PAGES:
        shown = workspace.folder / "shown.pdf"
        try:
            pages = runtime.renderer.unfold(path, shown)
            uploads["pages"] = Upload(shown, *artifacts.hash_file(shown), PDF, pages)
        except RenderingFailed:
            log.warning("received document cannot be shown", extra={"inbound_id": fax.id})
    uploads["document"] = Upload(path, *artifacts.hash_file(path), kind, pages or 0)
    rows: list[dict[str, Any]] = []
    unwanted, came_in = True, fax.callback_id
    try:
        for role, upload in uploads.items():
            stored = artifacts.store(
                runtime,
                upload,
                owner={"inbound_id": fax.id},
                account_id=fax.account_id,
                role=role,
                position=0,
                now=runtime.now(),
            )
            rows.append(stored)
        with runtime.database.transaction() as session:
            this = session.scalars(_LOCKED, {"inbound_id": fax.id}).one()
            if this.status == Reception.FETCHING:  # nobody else has had it meanwhile
                came_in = this.callback_id  # another callback may have brought it meanwhile
                _receive(session, this, rows, pages, runtime.now())
                unwanted = False  # now the commit decides, and its answer may be lost
    finally:
        if unwanted:
            artifacts.discard(runtime, rows)
    artifacts.settle(runtime, rows)
    if not unwanted:
        _let_go(runtime, fax, came_in)


def _receive(
    session: Session,
    fax: InboundFax,
    rows: list[dict[str, Any]],
    pages: int | None,
    now: datetime,
) -> None:
    """These are its documents; the one that came is the last."""
    session.execute(sa.insert(Artifact), rows)
    fax.pages, fax.size, fax.sha256 = pages, rows[-1]["size"], rows[-1]["sha256"]
    fax.cause = fax.next_at = None
    record_reception(session, fax, Event.RECEIVED, Reception.RECEIVED, now=now)


_LOCKED = (
    sa.select(InboundFax)
    .where(InboundFax.id == sa.bindparam("inbound_id"))
    .with_for_update()
    .execution_options(populate_existing=True)
)


def _let_go(runtime: Runtime, fax: Row, callback_id: str | None) -> None:
    """It is stored: what was kept of it for that may go. Nothing of this is trouble with the fax."""
    names = {"inbound_id": fax.id, "provider_id": fax.provider_id}
    try:
        if callback_id is not None:
            posted.forget_body(runtime, callback_id)
        runtime.plugins.get(fax.provider_id, TransportPlugin).taken(fax.external_id)
    except Exception as error:  # noqa: BLE001 - a plugin's or a store's; its text may hold anything
        log.warning("received document not let go", extra={**names, "error": type(error).__name__})


def _put_off(runtime: Runtime, fax: Row, code: str) -> None:
    """Try again later; after GIVEN_UP there is no document."""
    now = runtime.now()
    with runtime.database.transaction() as session:
        this = session.scalars(_LOCKED, {"inbound_id": fax.id}).one()
        if this.status != Reception.FETCHING:
            return
        this.updated_at = now
        if now - this.created_at >= GIVEN_UP:
            this.cause, this.next_at = NO_DOCUMENT, None
            record_reception(session, this, Event.RECEIVE_FAILED, Reception.FAILED, now=now)
            return
        this.cause = code[:32]
        this.next_at = now + min(SOONEST * 2 ** min(this.tries - 1, 20), LATEST)
