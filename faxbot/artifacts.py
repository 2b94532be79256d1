"""Stored documents: an upload is checked, sealed, kept under a key of ours, and opened again for the
worker.

Names on disk and in stores are made of ids; nothing a client wrote is ever part of one. What is read is what was
stored, byte for byte (sha256 of the row), or it is an error.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Self

import sqlalchemy as sa

from faxbot import addresses, claims, envelopes
from faxbot.crypto import Unsealable
from faxbot.db import Database, first_id, made_at, new_id, table
from faxbot.documents import RenderingFailed
from faxbot.errors import (
    ArtifactDamaged,
    ArtifactNotFound,
    DocumentTooLarge,
    FaxbotError,
    NotFound,
    NotPossibleNow,
    PluginError,
    StorageAway,
)
from faxbot.events import TERMINAL, Status
from faxbot.models import Artifact, Job, JobRow
from faxbot.plugins.base import StoragePlugin
from faxbot.runtime import Runtime
from faxbot.spool import SpoolFolder

log = logging.getLogger(__name__)

FAX_PAGES = "image/tiff"
PDF = "application/pdf"
FORMS = (FAX_PAGES, PDF)
"""Media types in which a provider can have fax pages."""
PREVIEW_WIDTH = 24
"""Pixels across a page of which nothing can be read: each is a square of 9 mm on paper, and a letter is told from
another by five of them from top to bottom, so that it would have to be 4 cm tall."""
UNSETTLED_AGE = timedelta(hours=1)
"""Nobody is still between storing and committing after this time."""
SEALED = ".sealed"
"""What the names of sealed bytes end with. Code of before looks for them under the key alone, finds nothing, and holds
the fax; it does not take them for a document that nobody can read."""
_NOTE = re.compile(r"([0-9a-f]{32})\.([a-z0-9][a-z0-9._-]*)\.([0-9a-f]{16})(\.sealed)?")
"""A note's name: artifact, storage, which database is to know of it, and whether the bytes are sealed."""
_PIECE = 256 * 1024


@dataclass(frozen=True, slots=True)
class Upload:
    """A checked document in the spool, not yet stored; `size` in bytes, `ready` as in Checked."""

    path: Path
    sha256: str
    size: int
    media_type: str
    pages: int
    ready: str = ""


def accept(runtime: Runtime, spooled: Sequence[tuple[Path, str, int]]) -> tuple[Upload, ...]:
    """Check spooled files (path, sha256, bytes) for type, pages and encryption; raises
    DocumentError's kin."""
    uploads = []
    for path, sha256, size in spooled:
        checked = runtime.checker.check(path)
        uploads.append(Upload(path, sha256, size, checked.media_type, checked.pages, checked.ready))
    if sum(upload.pages for upload in uploads) > runtime.config.max_pages:
        raise DocumentTooLarge(
            f"the documents have more than {runtime.config.max_pages} pages together (FAXBOT_MAX_PAGES): split the fax"
        )
    return tuple(uploads)


def storage(runtime: Runtime, storage_id: str) -> StoragePlugin:
    """The storage plugin of this id; raises PluginError."""
    return runtime.plugins.get(storage_id, StoragePlugin)


def store(
    runtime: Runtime,
    upload: Upload,
    *,
    owner: Mapping[str, str],
    account_id: str,
    role: str,
    position: int,
    now: datetime,
) -> dict[str, Any]:
    """Keep the bytes, sealed where FAXBOT_SEAL_DOCUMENTS says so, and durable on return; gives the values of the
    artifact row that names them (to_insert). `owner`: whose they are, by the column of models.Artifact. Raises
    StorageAway. The upload is gone then, also after an error."""
    storage_id = runtime.config.storage_backend
    artifact_id = new_id(now)
    data_key = envelopes.new_key() if runtime.config.seal_documents else None
    row = {
        "id": artifact_id,
        "account_id": account_id,
        **owner,
        "role": role,
        "position": position,
        "storage_id": storage_id,
        "key": _key(artifact_id),
        "sha256": upload.sha256,
        "size": upload.size,
        "media_type": upload.media_type,
        "pages": upload.pages,
        "ready": upload.ready or None,
        "data_key_sealed": data_key
        and runtime.keyring.seal(data_key, place(account_id, artifact_id)),
        "created_at": now,
    }
    try:
        source = _sealed(upload.path, data_key) if data_key else upload.path
        try:
            _put(runtime, row, source)
        finally:
            source.unlink(missing_ok=True)
    finally:
        upload.path.unlink(missing_ok=True)
    return row


def _sealed(path: Path, data_key: bytes) -> Path:
    """A sealed file (0600) beside this one, which stays: in the spool it is what is held."""
    target = path.with_name(path.name + SEALED)
    try:
        with path.open("rb") as source, new_file(target) as file:
            envelopes.seal(source, file, data_key)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return target


def _put(runtime: Runtime, row: Mapping[str, Any], source: Path) -> None:
    _note(runtime, row, source)
    try:
        storage(runtime, row["storage_id"]).put(_name(row), source)
    except BaseException:
        discard(runtime, [row])
        raise


def to_insert(runtime: Runtime, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of stored bytes as they are inserted now: to store them may have taken longer than who changes the master
    key waits, so their data keys are sealed anew."""
    keyring = runtime.keyring.still()

    def anew(row: Mapping[str, Any]) -> bytes | None:
        sealed, at = row["data_key_sealed"], place(row["account_id"], row["id"])
        return sealed and keyring.seal(keyring.open(sealed, at), at)

    return [{**row, "data_key_sealed": anew(row)} for row in rows]


def place(account_id: str, artifact_id: str) -> str:
    """Where a data key is sealed (Keyring.seal): it opens for this artifact only."""
    return f"artifacts.data_key:{account_id}:{artifact_id}"


def settle(runtime: Runtime, rows: Iterable[Mapping[str, Any]]) -> None:
    """The rows of stored bytes are committed. A note that stays is collect()'s: what it was for is
    done, and no trouble with it may look like trouble with the fax."""
    for row in rows:
        try:
            _note_of(runtime, row).unlink(missing_ok=True)
        except OSError as error:
            log.warning("note not removed", extra={"exception": type(error).__name__})


def discard(
    runtime: Runtime, rows: Iterable[Mapping[str, Any]], *, were_settled: bool = False
) -> bool:
    """Remove stored bytes that no row names (id, storage_id, key, data_key_sealed), or none will; whether all are
    gone. What cannot be removed is logged and left to collect(), so that the error that led here is
    the one that is seen. `were_settled`: no note is looked for; collect() would find it."""
    gone = True
    for row in rows:
        try:
            storage(runtime, row["storage_id"]).delete(_name(row))
            if not were_settled:
                settle(runtime, [row])
        except Exception as error:  # noqa: BLE001 - a store's client raises anything
            gone = False
            with suppress(OSError):
                _note(runtime, row)  # collect() may have taken it away while the row was there
            log.warning(
                "stored bytes not removed",
                extra={"key": row["key"], "exception": _said(error)},
            )
    return gone


def _said(error: Exception) -> str:
    """The sentence of a storage that says it is away, for it names what mends it; of others the kind."""
    return error.detail if isinstance(error, StorageAway) else type(error).__name__


def are_gone(runtime: Runtime, row: Mapping[str, Any]) -> bool:
    """Whether stored bytes are surely not there (row as in discard()). Raises StorageAway."""
    try:
        storage(runtime, row["storage_id"]).open(_name(row)).close()
    except ArtifactNotFound:
        return True
    return False


def look_for_newest(runtime: Runtime, storage_id: str) -> None:
    """Look for the newest bytes that are to be there, where they lie in this storage, and it has its files on this
    machine: a folder can be written also where what lay in it before is not mounted. Raises StorageAway. That one
    document is lost says nothing of the others."""
    try:
        row = runtime.database.row(_NEWEST, {})
    except (FaxbotError, sa.exc.SQLAlchemyError):
        return  # of the database others say what is wrong
    if row is None or row.storage_id != storage_id:
        return
    if storage(runtime, storage_id).path(row.key) is not None:
        are_gone(runtime, row._asdict())


_NEWEST = (
    sa.select(Artifact.storage_id, Artifact.key, Artifact.data_key_sealed)
    .where(Artifact.deleted_at.is_(None))
    .order_by(Artifact.id.desc())
    .limit(1)
)


def forget(runtime: Runtime, rows: Sequence[Mapping[str, Any]]) -> None:
    """Forget stored bytes and the rows that name them. Who dies in between leaves notes to collect()."""
    for row in rows:
        _note(runtime, row)
    with runtime.database.writing() as connection:
        gone = Artifact.id.in_([row["id"] for row in rows])
        connection.execute(sa.delete(table(Artifact)).where(gone))
    discard(runtime, rows)


_OF_JOB = (
    sa.select(table(Artifact))
    .where(Artifact.job_id == sa.bindparam("job_id"))
    .order_by(Artifact.position)
)
ArtifactRow = sa.Row[Any]
"""The columns of models.Artifact by name."""


def of_job(database: Database, job_id: str) -> tuple[list[ArtifactRow], list[ArtifactRow]]:
    """The job's documents in order, and the fax pages made of them, if they were made."""
    found = database.rows(_OF_JOB, {"job_id": job_id})
    return (
        [artifact for artifact in found if artifact.role == "document"],
        [artifact for artifact in found if artifact.role == "pages"],
    )


class Workspace:
    """A private folder (0700) in the spool, made when it is first asked for, gone at the end."""

    def __init__(self, runtime: Runtime) -> None:
        self._spool = runtime.config.spool_dir
        self._made: SpoolFolder | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._made is not None:
            self._made.remove()

    @property
    def folder(self) -> Path:
        if self._made is None:
            self._made = SpoolFolder(self._spool)
        return self._made.path


def fetch(runtime: Runtime, artifact: ArtifactRow, workspace: Workspace) -> Path:
    """The stored bytes in clear, as a file to be read: where they lie, or a copy (0600). Raises as read()."""
    if artifact.data_key_sealed is None:
        here = storage(runtime, artifact.storage_id).path(artifact.key)
        if here is not None and here.is_file():
            _check(artifact, *hash_file(here))
            return here
    target = workspace.folder / str(artifact.id)
    with new_file(target) as file:
        try:
            for piece in read(runtime, artifact):
                file.write(piece)
        except BaseException:
            target.unlink()
            raise
    return target


def read(runtime: Runtime, artifact: ArtifactRow) -> Iterator[bytes]:
    """The stored bytes in clear, piece by piece; what was given before an error is no document. Raises
    ArtifactNotFound, ArtifactDamaged where they are not what was stored, StorageAway; Unsealable without the master
    key."""
    sealed, digest, size = artifact.data_key_sealed, hashlib.sha256(), 0
    key = sealed and runtime.keyring.open(sealed, place(artifact.account_id, artifact.id))
    name = _name({"key": artifact.key, "data_key_sealed": sealed})
    with storage(runtime, artifact.storage_id).open(name) as source:
        for piece in _opened(artifact, source, key) if key else _pieces(source):
            digest.update(piece)
            size += len(piece)
            if size > artifact.size:
                break
            yield piece
    _check(artifact, digest.hexdigest(), size)


def _pieces(source: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: source.read(_PIECE), b"")


def _opened(artifact: ArtifactRow, source: BinaryIO, data_key: bytes) -> Iterator[bytes]:
    try:
        yield from envelopes.opened(source, data_key)
    except Unsealable:
        raise _damaged(artifact) from None


def _check(artifact: ArtifactRow, sha256: str, size: int) -> None:
    if (sha256, size) != (artifact.sha256, artifact.size):
        raise _damaged(artifact)


def _damaged(artifact: ArtifactRow) -> ArtifactDamaged:
    log.error("stored bytes are damaged", extra={"key": artifact.key})
    return ArtifactDamaged()


def new_file(path: Path) -> BinaryIO:
    """A file (0600) that must not be there yet."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def pages_of(runtime: Runtime, job: JobRow, workspace: Workspace) -> tuple[Path, int]:
    """The job's fax pages as a TIFF to be read: (path, pages); rendered once and kept.

    Raises DocumentError's kin when the documents cannot be rendered, ArtifactNotFound when they
    are gone, StorageAway when they cannot be asked for, PluginError when the pages cannot be kept.
    """
    documents, rendered = of_job(runtime.database, job.id)
    rendered = _made(documents, rendered, job.resolution)
    if rendered:
        # Pages that are gone, or away, can be made again, as long as the documents are there.
        with suppress(ArtifactNotFound, StorageAway):
            path = fetch(runtime, rendered[0], workspace)
            return path, rendered[0].pages
    sources = [(fetch(runtime, document, workspace), document.media_type) for document in documents]
    target = workspace.folder / "pages.tiff"
    pages = runtime.renderer.render(sources, target, resolution=job.resolution)
    _keep(runtime, job, target, pages, workspace)
    return target, pages


def lie_here(runtime: Runtime, job: JobRow) -> bool:
    """Whether all its documents are files of this machine, by their storages; what they say they say at once."""
    documents, _ = of_job(runtime.database, job.id)
    return all(lies_here(runtime, each.storage_id, each.key) for each in documents)


def lies_here(runtime: Runtime, storage_id: str, key: str) -> bool:
    """Whether this storage has what it keeps under this key as a file of this machine; not where nobody can tell."""
    try:
        return storage(runtime, storage_id).path(key) is not None
    except PluginError:
        return False


def _made(
    documents: list[ArtifactRow], rendered: list[ArtifactRow], resolution: str
) -> list[ArtifactRow]:
    """What has the fax pages, in one element, if they are there: rendered, or the document that came as fax pages."""
    came_so = len(documents) == 1 and documents[0].ready == resolution
    return documents if came_so else rendered


def are_made(runtime: Runtime, job: JobRow) -> bool:
    """Whether the job's fax pages are there as they are sent: made by a worker, and not removed by retention."""
    made = _made(*of_job(runtime.database, job.id), job.resolution)
    return bool(made) and made[0].deleted_at is None


def as_sent(runtime: Runtime, job: JobRow, workspace: Workspace) -> Path:
    """The job's fax pages as they are sent, a TIFF to be read. Raises NotFound where retention has removed them,
    NotPossibleNow while they are not made, StorageAway."""
    documents, rendered = of_job(runtime.database, job.id)
    made = _made(documents, rendered, job.resolution)
    if not made and documents and Status(job.status) not in TERMINAL:
        raise NotPossibleNow("its pages are not made yet: a worker makes them before it is sent")
    try:
        if made:
            return fetch(runtime, made[0], workspace)
    except ArtifactNotFound:
        pass
    raise NotFound("the pages of this fax are not there any more, or never were")


def pdf_as_sent(runtime: Runtime, job: JobRow, workspace: Workspace) -> Path:
    """The same as a PDF; raises as as_sent()."""
    return _as_pdf(runtime, as_sent(runtime, job, workspace), job.resolution, workspace)


def page_as_sent(
    runtime: Runtime, job: JobRow, number: int, width: int, workspace: Workspace
) -> Path:
    """One of them (from 1) as a PNG, so many pixels wide; raises as as_sent(), and NotFound where it has fewer."""
    pages = as_sent(runtime, job, workspace)
    return shown(runtime, pages, number, width, workspace, resolution=job.resolution)


def shown(
    runtime: Runtime,
    source: Path,
    number: int,
    width: int,
    workspace: Workspace,
    *,
    resolution: str = "fine",
) -> Path:
    """Page `number` (from 1) of fax pages or of a PDF as a PNG, so many pixels wide. Raises NotFound where there is no
    such page, and NotPossibleNow where it cannot be drawn."""
    target = workspace.folder / "page.png"
    try:
        pages = runtime.renderer.show(source, target, number, width=width, resolution=resolution)
    except RenderingFailed:
        raise NotPossibleNow("this page cannot be drawn now: open the document itself") from None
    if number > pages:
        raise NotFound(f"it has no page {number}: the last one is {pages}")
    return target


def fetched(runtime: Runtime, job_id: str, token: str, workspace: Workspace) -> tuple[Path, str]:
    """The fax pages of a job as PDF, for a carrier that fetches them by a link of ours, and whose account's it is;
    raises Unauthenticated, NotFound where they are gone."""
    addresses.admit_to_document(runtime, job_id, token)
    job = runtime.database.row(_RESOLUTION, {"job_id": job_id})
    documents, rendered = of_job(runtime.database, job_id)
    pages = _made(documents, rendered, job.resolution) if job is not None else []
    if job is None or not pages:
        raise NotFound("the pages of this fax are not there")
    try:
        path = fetch(runtime, pages[0], workspace)
    except ArtifactNotFound:
        raise NotFound("the pages of this fax are not there") from None
    return _as_pdf(runtime, path, job.resolution, workspace), job.account_id


_RESOLUTION = sa.select(Job.resolution, Job.account_id).where(Job.id == sa.bindparam("job_id"))


def from_page(
    runtime: Runtime, job: JobRow, pages: Path, wanted: range, workspace: Workspace
) -> Path:
    """Fax pages of a job, those `wanted` (from 1, to the last); not kept."""
    if wanted.start == 1:
        return pages
    target = workspace.folder / "continued.tiff"
    runtime.renderer.cut(pages, target, wanted, resolution=job.resolution)
    return target


def in_form(runtime: Runtime, job: JobRow, pages: Path, form: str, workspace: Workspace) -> Path:
    """Fax pages of a job in one of FORMS; not kept, for it costs next to nothing to make."""
    if form == FAX_PAGES:
        return pages
    return _as_pdf(runtime, pages, job.resolution, workspace)


def _as_pdf(runtime: Runtime, pages: Path, resolution: str, workspace: Workspace) -> Path:
    target = workspace.folder / "pages.pdf"
    runtime.renderer.wrap(pages, target, resolution=resolution)
    return target


def _keep(runtime: Runtime, job: JobRow, target: Path, pages: int, workspace: Workspace) -> None:
    """Store rendered pages beside the documents they were made of, in the place of earlier ones.

    Raises LeaseLost when another worker has the fax now, and its pages count.
    """
    digest, size = hash_file(target)
    kept = workspace.folder / "kept.tiff"
    os.link(target, kept)
    try:
        row = store(
            runtime,
            Upload(kept, digest, size, FAX_PAGES, pages, job.resolution),
            owner={"job_id": job.id},
            account_id=job.account_id,
            role="pages",
            position=0,
            now=runtime.now(),
        )
    except StorageAway as error:
        # The documents were read just now: who looks whether they are there would find them each time.
        raise PluginError(error.detail) from error
    unwanted = True
    try:
        with runtime.database.transaction() as session:
            claims.still_mine(session, job)
            replaced = session.execute(
                sa.delete(Artifact)
                .where(Artifact.job_id == job.id, Artifact.role == "pages")
                .returning(Artifact.id, Artifact.storage_id, Artifact.key, Artifact.data_key_sealed)
            ).mappings()
            earlier = [dict(known) for known in replaced]
            for known in earlier:
                _note(runtime, known)
            session.execute(sa.insert(Artifact), to_insert(runtime, [row]))
            unwanted = False  # now the commit decides, and its answer may be lost
    finally:
        if unwanted:
            discard(runtime, [row])
    settle(runtime, [row])
    discard(runtime, earlier)


def collect(runtime: Runtime) -> int:
    """Remove stored bytes that a process left which died before their row was committed, or could
    not remove; how many.

    A note in the data folder names them, so nothing else is ever touched: not what another
    database knows, nor what one that was restored from a backup does not know.
    """
    until = first_id(runtime.now() - UNSETTLED_AGE)
    try:
        names = sorted(note.name for note in _notes(runtime).iterdir())
    except FileNotFoundError:
        return 0
    notes = [note for name in names if name < until and (note := _NOTE.fullmatch(name))]
    for note in notes:
        with suppress(OSError):
            _empty(_notes(runtime) / note[0])
    removed, away = 0, set[tuple[str, str]]()
    for artifact_id, storage_id, database, sealed in (note.groups() for note in notes):
        day = _key(artifact_id).rpartition("/")[0]
        if database != _name_of_database(runtime) or (storage_id, day) in away:
            continue
        row = {
            "id": artifact_id,
            "storage_id": storage_id,
            "key": _key(artifact_id),
            "data_key_sealed": sealed,
        }
        if runtime.database.row(_KNOWN, {"artifact_id": artifact_id}) is not None:
            settle(runtime, [row])
        elif discard(runtime, [row]):
            removed += 1
        else:
            # It is asked once for each day: an answer may be long in coming, and one that it can never give (a folder
            # of this machine that nothing was ever kept in) must not be what keeps the bytes of other days.
            away.add((storage_id, day))
    return removed


def _empty(note: Path) -> None:
    """Its name is all that is needed, also of a note of another database's: it must not be what keeps the bytes."""
    if note.stat().st_size:
        unnamed = note.with_name(f"empty-{note.name}")
        unnamed.touch(0o600)
        unnamed.replace(note)


_KNOWN = sa.select(Artifact.id).where(Artifact.id == sa.bindparam("artifact_id"))


def _key(artifact_id: str) -> str:
    """Where a store keeps it. The day leads: folders stay small, and retention can walk them in
    order."""
    return f"{made_at(artifact_id):%Y/%m/%d}/{artifact_id}"


def _name(row: Mapping[str, Any]) -> str:
    """What the bytes of a row are called in their storage."""
    return str(row["key"]) + (SEALED if row["data_key_sealed"] else "")


def _note(runtime: Runtime, row: Mapping[str, Any], source: Path | None = None) -> None:
    """Note bytes that a process may leave behind which dies now. Its name says all; one more name
    of `source` costs much less than one more file (measured: 0.01 and up to 0.4 ms). No fsync: it
    guards against a process that dies, not a machine."""
    note = _note_of(runtime, row)
    try:
        _write(note, source)
    except FileNotFoundError:
        note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(note, source)


def _write(note: Path, source: Path | None) -> None:
    if source is not None:
        try:
            note.hardlink_to(source)
        except FileNotFoundError:
            raise
        except OSError:  # this file system has no links
            source = None
    if source is None:
        note.touch(0o600)


def _note_of(runtime: Runtime, row: Mapping[str, Any]) -> Path:
    sealed = SEALED if row["data_key_sealed"] else ""
    return _notes(runtime) / f"{row['id']}.{row['storage_id']}.{_name_of_database(runtime)}{sealed}"


def _notes(runtime: Runtime) -> Path:
    return runtime.config.data_dir / "unsettled"


def _name_of_database(runtime: Runtime) -> str:
    return _hash_of_place(runtime.config.database)


@cache
def _hash_of_place(address: str) -> str:
    """Of where a database is, and not of who asks there: with a new password it is the same one."""
    url = sa.make_url(address)
    # libpq takes a socket's folder there, and a schema.
    asked = [url.query.get(name) for name in ("host", "port", "options")]
    place = (url.host, url.port, url.database, *asked)
    return hashlib.sha256(repr(place).encode()).hexdigest()[:16]


def hash_file(path: Path) -> tuple[str, int]:
    """(sha256 as hex, bytes) of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return digest.hexdigest(), file.tell()
