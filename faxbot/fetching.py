"""The document of a received fax is had, from the request that brought it or from the carrier, and stored; then the
fax is received.

A task tries again, later and later. It gives up when those who should have the document had none for GIVEN_UP; what
hinders here never ends it, but a person may (inbound). To have it twice does no harm; the second one finds it stored.
Only when it is stored, or was given up and is purged, what was kept of it for that may go: the body of the callback,
and what the plugin holds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from faxbot import arrivals, artifacts, claims, guard, posted
from faxbot.arrivals import OF_NO_USE, TASK
from faxbot.artifacts import FAX_PAGES, PDF, Upload, Workspace
from faxbot.db import UtcDateTime, table
from faxbot.documents.process import RenderingFailed
from faxbot.errors import (
    AccountRefused,
    ArtifactNotFound,
    DatabaseAway,
    DocumentError,
    FaxbotError,
    NotADocument,
    PluginError,
    ProviderError,
)
from faxbot.events import Event, Reception
from faxbot.models import Artifact, Callback, InboundFax, LegalHold
from faxbot.plugins.base import TransportPlugin
from faxbot.results import record_reception
from faxbot.runtime import Runtime

log = logging.getLogger(__name__)

LEASES = 5
"""For so many times FAXBOT_LEASE_SECONDS one worker has a fax to itself, without a heartbeat; then another may try."""
SOONEST, LATEST = timedelta(seconds=30), timedelta(hours=1)
"""Between two tries: twice as long each time, within these."""
GIVEN_UP = timedelta(days=14)
"""Of trying in vain: time in which the trouble was ours does not count."""
IDLE = timedelta(days=1)
"""Between two tries; where it was longer nobody was here to try, and it does not count either."""
NO_DOCUMENT = arrivals.NO_DOCUMENT
MOST_BYTES = 200 * 1024 * 1024
"""Of a document; a hundred times what a long fax has."""
LET_GO, DAILY = timedelta(days=28), timedelta(days=1)
"""For so long what was kept of a received fax is to be let go every hour, and nothing that is stored of it is removed;
then each day, till it is done, or retention has removed the fax for as long: then a person must."""
TRIED_AT_LEAST = 24
"""So often, since for weeks nobody may have been here to try."""
LEFT = ("file in the plugin's folder", "body of the callback")
"""What may be left of a received fax, as the log calls it."""
DRAWN_AGAIN = 3
"""So many tries may fail to make a PDF of a TIFF, for want of memory or time; then it is kept as it came."""
STORAGE, INTERNAL = "storage", "internal"
"""What hinders where it is neither the carrier nor its plugin."""
Row = sa.Row[Any]
_FAX = table(InboundFax)


# Who is due -----------------------------------------------------------------------------------------


def sweep(runtime: Runtime) -> int:
    """Ring for received faxes whose document is due, as long as the broker takes it and workers keep up; how many. And
    remove the bodies of callbacks that nobody needs any more."""
    rung = _announce_due(runtime)
    _forget_bodies(runtime)
    return rung


def _announce_due(runtime: Runtime, *, limit: int = 500) -> int:
    if runtime.unanswered(TASK) >= claims.CROWDED:
        return 0  # they are not forgotten; each ring more would make the others wait longer
    due = runtime.database.rows(_DUE, {"now": runtime.now(), "limit": limit})
    for count, row in enumerate(due):
        if not runtime.ring(TASK, row.id):
            return count
    return len(due)


def _forget_bodies(runtime: Runtime, *, limit: int = 100) -> None:
    """Those that another callback of the same fax overtook, and what a worker left that died."""
    unneeded = runtime.database.rows(_UNNEEDED, {"limit": limit})
    if unneeded:
        artifacts.forget(runtime, [row._asdict() for row in unneeded])


_NOW = sa.bindparam("now", type_=UtcDateTime)
_DUE = (
    sa.select(InboundFax.id)
    .where(InboundFax.next_at.is_not(None), InboundFax.next_at <= _NOW)
    .order_by(InboundFax.next_at)
    .limit(sa.bindparam("limit"))
)
_UNNEEDED = (
    sa.select(table(Artifact))
    .join(Callback, Callback.id == Artifact.callback_id)
    .where(
        Artifact.callback_id.is_not(None),
        Callback.outcome.in_(("applied", "nothing")),
        # Of what nobody had for two weeks a person may want another try.
        ~sa.exists().where(
            InboundFax.callback_id == Callback.id, InboundFax.status != Reception.RECEIVED.value
        ),
    )
    .limit(sa.bindparam("limit"))
)


# Having it ------------------------------------------------------------------------------------------


def fetch(runtime: Runtime, inbound_id: str) -> None:
    """Have the document of one received fax and store it; nothing when that is done, or another worker's now. Where it
    is stored, or retention has removed a fax that was given up, let go of what was kept of it. Safe to call any number
    of times."""
    now, lease = runtime.now(), timedelta(seconds=runtime.config.lease_seconds)
    claim = {"inbound_id": inbound_id, "now": now, "until": now + LEASES * lease}
    fax = runtime.database.row(_CLAIM, claim)
    if fax is None:
        return
    if fax.status != Reception.FETCHING:
        _let_go(runtime, fax)
        return
    try:
        with Workspace(runtime) as workspace:
            _keep(runtime, fax, _had(runtime, fax, workspace), workspace)
    except DatabaseAway:
        raise
    except FaxbotError as error:
        _put_off(runtime, fax, error.code, error)
    except OSError as error:
        _put_off(runtime, fax, STORAGE, error)
    except Exception as error:  # noqa: BLE001 - a store's client, or a fault of ours; its text may hold anything
        _put_off(runtime, fax, INTERNAL, error)


_CLAIM = (
    sa.update(_FAX)
    .where(
        _FAX.c.id == sa.bindparam("inbound_id"),
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
    if fax.callback_id is not None:
        try:
            return _taken_out(runtime, fax, provider, workspace)
        except FaxbotError as error:
            if not fetches or isinstance(error, DatabaseAway):
                raise
            # The carrier may have it still; if not, the first trouble counts.
            with suppress(FaxbotError):
                return _fetched(runtime, fax, provider, workspace)
            raise
    return _fetched(runtime, fax, provider, workspace)


def _fetched(runtime: Runtime, fax: Row, provider: TransportPlugin, workspace: Workspace) -> Path:
    target = workspace.folder / "fetched"
    _asked(runtime, fax, target, lambda file: provider.document(fax.external_id, file))
    return target


def _taken_out(runtime: Runtime, fax: Row, provider: TransportPlugin, workspace: Workspace) -> Path:
    row = runtime.database.row(_RAW, {"callback_id": fax.callback_id})
    if row is None:
        raise ArtifactNotFound
    request = posted.opened(runtime, fax.callback_id, row.raw_sealed, workspace)
    target = workspace.folder / "attached"
    dated = replace(request, received_at=row.received_at)
    _asked(runtime, fax, target, lambda file: provider.attached(dated, file))
    return target


_RAW = sa.select(Callback.raw_sealed, Callback.received_at).where(
    Callback.id == sa.bindparam("callback_id")
)


def _asked(runtime: Runtime, fax: Row, target: Path, give: Callable[[BinaryIO], None]) -> None:
    """Have the plugin write the document into a new file; raises FaxbotError's kin, NotADocument for what is none, and
    OSError. A fault of its own code is noted, and is PluginError."""
    try:
        with _written(target) as file:
            give(file)
    except (FaxbotError, OSError):
        raise
    except Exception as error:  # noqa: BLE001 - a plugin's bug; its text may hold anything
        guard.failed(runtime, fax.account_id, fax.provider_id, error)
        raise PluginError(f"The plugin failed ({type(error).__name__}).") from None
    _kind(target)


@contextmanager
def _written(target: Path) -> Iterator[BinaryIO]:
    """A new private file that takes MOST_BYTES."""
    with artifacts.new_file(target) as file:
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


_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""Byte order and 42, or 43 for BigTIFF."""


def _kind(path: Path) -> str:
    """PDF or TIFF by its first bytes; raises NotADocument, as for a carrier's page of excuses."""
    with path.open("rb") as file:
        head = file.read(1024)
    if b"%PDF-" in head:  # ISO 32000-1, Annex H: within the first 1024 bytes
        return PDF
    if head.startswith(_TIFF):
        return FAX_PAGES
    raise NotADocument


# Storing it -----------------------------------------------------------------------------------------


def _keep(runtime: Runtime, fax: Row, path: Path, workspace: Workspace) -> None:
    """Store it, and a PDF of it where it is none; then it is received."""
    pages, uploads, is_sound = _looked_at(runtime, fax, path, workspace)
    rows: list[dict[str, Any]] = []
    unwanted = True
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
            this = locked(session, fax.id)
            if this.status != Reception.RECEIVED:  # nobody else has had it meanwhile
                _receive(runtime, session, this, artifacts.to_insert(runtime, rows), pages)
                if runtime.config.delete_at_carrier and is_sound:
                    this.delete_copy_at = this.copy_wanted_at = runtime.now()
                unwanted = False  # now the commit decides, and its answer may be lost
    finally:
        if unwanted:
            artifacts.discard(runtime, rows)
    artifacts.settle(runtime, rows)
    if not unwanted:
        _let_go(runtime, fax)


def _looked_at(
    runtime: Runtime, fax: Row, path: Path, workspace: Workspace
) -> tuple[int | None, dict[str, Upload], bool]:
    """How many pages it has, what is stored of it, by role, and whether it is sound. Whatever it is, it is what came:
    people may read what a strict reader does not; but only the carrier may have it whole then."""
    names = {"inbound_id": fax.id, "provider_id": fax.provider_id}
    kind, pages, shown, is_sound = _kind(path), fax.pages, None, True
    try:
        pages = runtime.checker.check(path).pages
    except DocumentError as error:
        is_sound = False
        log.warning("received document is not sound", extra={**names, "error": error.code})
    if kind == FAX_PAGES:
        drawn = workspace.folder / "shown.pdf"
        try:
            pages = runtime.renderer.unfold(path, drawn)
            shown = Upload(drawn, *artifacts.hash_file(drawn), PDF, pages)
        except (DocumentError, RenderingFailed) as error:
            if isinstance(error, RenderingFailed) and fax.tries < DRAWN_AGAIN:
                raise
            is_sound = False
            log.warning("received document cannot be shown", extra={**names, "error": error.code})
    document = Upload(path, *artifacts.hash_file(path), kind, pages or 0)
    return pages, {**({"pages": shown} if shown else {}), "document": document}, is_sound


def _receive(
    runtime: Runtime,
    session: Session,
    fax: InboundFax,
    rows: list[dict[str, Any]],
    pages: int | None,
) -> None:
    """These are its documents; the one that came is the last. What was kept for that is still to be let go."""
    now = runtime.now()
    session.execute(sa.insert(Artifact), rows)
    fax.pages, fax.size, fax.sha256 = pages, rows[-1]["size"], rows[-1]["sha256"]
    fax.cause, fax.next_at = None, fax.next_at or now
    # Who gave it up while it was had, and marked that, has not read it.
    fax.read_at = fax.read_by = None
    record_reception(session, fax, Event.RECEIVED, Reception.RECEIVED, now=now)


def locked(session: Session, inbound_id: str) -> InboundFax:
    """A received fax that is there, under its row lock until the transaction ends."""
    return session.scalars(_LOCKED, {"inbound_id": inbound_id}).one()


_LOCKED = (
    sa.select(InboundFax)
    .where(InboundFax.id == sa.bindparam("inbound_id"))
    .with_for_update()
    .execution_options(populate_existing=True)
)


def _let_go(runtime: Runtime, fax: Row) -> None:
    """It is stored: what was kept of it for that may go. Or it was given up, and retention has removed it: what its
    plugin may have goes as well, but not of one that is held. Nothing of this is trouble with the fax; a worker that
    dies on the way leaves it to the next one."""
    deeds = (lambda: _taken(runtime, fax), lambda: _without_body(runtime, fax))
    ended = [_without_trouble(fax, deed) for deed in deeds]
    left = ", ".join(what for what, is_gone in zip(LEFT, ended, strict=True) if not is_gone)
    now = runtime.now()
    with runtime.database.writing() as connection:
        # Whether a hold was lifted is asked behind the lock for which who lifts it made us wait.
        connection.execute(_LOCKED_ID, {"inbound_id": fax.id})
        this = connection.execute(_STANDS, {"inbound_id": fax.id}).first()
        if this is None or not _is_over(this):
            return  # it is had anew
        at = _again_at(fax, this, now) if left else None
        connection.execute(_LET_GO, {"its_id": fax.id, "at": at})
    if left and at is None:
        names = {"inbound_id": fax.id, "provider_id": fax.provider_id}
        log.error("received document never let go", extra={**names, "left": left})


def _taken(runtime: Runtime, fax: Row) -> bool:
    """Have the plugin let go; False where it must not now. It may take its time to start, and meanwhile a fax that was
    given up may be held, or be had anew: so that is looked at when it is there."""
    plugin = runtime.plugins.get(fax.provider_id, TransportPlugin)
    this = runtime.database.row(_STANDS, {"inbound_id": fax.id})
    if this is None or not _is_over(this) or _is_held(this):
        return False
    plugin.taken(fax.external_id)
    return True


def _without_body(runtime: Runtime, fax: Row) -> bool:
    """Remove the body of the callback that brought it, once it is stored; of one that was given up it goes with the
    callback."""
    this = runtime.database.row(_STANDS, {"inbound_id": fax.id})
    if this is not None and this.status == Reception.RECEIVED and this.callback_id is not None:
        posted.forget_body(runtime, this.callback_id)
    return True


def _is_over(this: Row) -> bool:
    """Whether what was kept of it is of no use: it is stored, or was given up and removed."""
    return this.status == Reception.RECEIVED or (
        this.status == Reception.FAILED and this.purged_at is not None
    )


def _is_held(this: Row) -> bool:
    """Whether what a plugin has of it may be all there is, and is to be kept."""
    return this.status != Reception.RECEIVED and this.legal_hold_at is not None


def _again_at(fax: Row, this: Row, now: datetime) -> datetime | None:
    """When what is left of it is to be let go next; None where that was in vain for LET_GO since retention removed it,
    or since its last legal hold was lifted, and so often."""
    if this.purged_at is not None and not _is_held(this):
        since = max(this.purged_at, this.lifted_at or this.purged_at)
        if now - since >= LET_GO and fax.tries >= TRIED_AT_LEAST:
            return None
    return now + (LATEST if now - fax.created_at < LET_GO else DAILY)


def _without_trouble(fax: Row, deed: Callable[[], bool]) -> bool:
    """Whether it was done, and went well."""
    try:
        return deed()
    except Exception as error:  # noqa: BLE001 - a plugin's or a store's; its text may hold anything
        names = {"inbound_id": fax.id, "provider_id": fax.provider_id}
        log.warning("received document not let go", extra={**names, "error": type(error).__name__})
        return False


_HOLDS = table(LegalHold)
_STANDS: sa.Select[Any] = sa.select(
    _FAX.c.status,
    _FAX.c.callback_id,
    _FAX.c.purged_at,
    _FAX.c.legal_hold_at,
    sa.select(sa.func.max(_HOLDS.c.lifted_at))
    .where(_HOLDS.c.fax_id == _FAX.c.id)
    .scalar_subquery()
    .label("lifted_at"),
).where(_FAX.c.id == sa.bindparam("inbound_id"))
_LOCKED_ID = sa.select(_FAX.c.id).where(_FAX.c.id == sa.bindparam("inbound_id")).with_for_update()
_LET_GO = (
    sa.update(_FAX)
    .where(_FAX.c.id == sa.bindparam("its_id"))
    .values(next_at=sa.bindparam("at", type_=UtcDateTime))
)


def _put_off(runtime: Runtime, fax: Row, code: str, error: Exception) -> None:
    """Try again later; after GIVEN_UP of that there is no document."""
    names = {"inbound_id": fax.id, "provider_id": fax.provider_id, "error": code}
    log.warning("received document not there yet", extra={**names, "kind": type(error).__name__})
    now = runtime.now()
    with runtime.database.transaction() as session:
        this = locked(session, fax.id)
        if this.status != Reception.FETCHING or this.next_at != fax.next_at:
            return  # it is another worker's by now
        since, passed = this.fetching_at or this.created_at, now - this.updated_at
        if passed > IDLE or not _is_not_there(fax, error):
            since += passed
        this.fetching_at, this.updated_at = since, now
        if now - since >= GIVEN_UP:
            give_up(session, this, now)
            return
        this.cause = code[:32]
        this.next_at = now + min(SOONEST * 2 ** min(this.tries - 1, 20), LATEST)


def give_up(session: Session, fax: InboundFax, now: datetime) -> None:
    """The document of a locked fax is not tried to be had any more; a worker that has it in this moment brings it all
    the same."""
    fax.cause, fax.next_at = NO_DOCUMENT, None
    record_reception(session, fax, Event.RECEIVE_FAILED, Reception.FAILED, now=now)


def _is_not_there(fax: Row, error: Exception) -> bool:
    """Whether who should have the document was asked and had none. Everything else is ours to mend, and the document
    may well lie here: a plugin or a storage that is away, an account that is refused."""
    if fax.callback_id is not None:
        return isinstance(error, OF_NO_USE)
    asked = isinstance(error, ProviderError | NotADocument)
    return asked and not isinstance(error, AccountRefused)
