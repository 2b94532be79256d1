"""Stored documents: an upload is checked, kept under a key of ours, and opened again for the
worker.

Names on disk and in stores are made of ids; nothing a client wrote is ever part of one.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa

from faxbot import addresses, claims
from faxbot.db import Database, first_id, made_at, new_id, table
from faxbot.errors import ArtifactNotFound, DocumentTooLarge, NotFound
from faxbot.models import Artifact, Job, JobRow
from faxbot.plugins.base import StoragePlugin
from faxbot.runtime import Runtime

log = logging.getLogger(__name__)

FAX_PAGES = "image/tiff"
PDF = "application/pdf"
FORMS = (FAX_PAGES, PDF)
"""Media types in which a provider can have fax pages."""
UNSETTLED_AGE = timedelta(hours=1)
"""Nobody is still between storing and committing after this time."""
_NOTE = re.compile(r"([0-9a-f]{32})\.([a-z0-9][a-z0-9._-]*)\.([0-9a-f]{16})")
"""A note's name: artifact, storage, and which database is to know of it."""


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
    """Keep the bytes, durable on return, and give the values of the artifact row that names
    them. `owner`: whose they are, by the column of models.Artifact."""
    storage_id = runtime.config.storage_backend
    artifact_id = new_id(now)
    key = _key(artifact_id)
    row = {
        "id": artifact_id,
        "account_id": account_id,
        **owner,
        "role": role,
        "position": position,
        "storage_id": storage_id,
        "key": key,
        "sha256": upload.sha256,
        "size": upload.size,
        "media_type": upload.media_type,
        "pages": upload.pages,
        "ready": upload.ready or None,
        "created_at": now,
    }
    _note(runtime, row, upload.path)
    try:
        storage(runtime, storage_id).put(key, upload.path)
    except BaseException:
        discard(runtime, [row])
        raise
    return row


def settle(runtime: Runtime, rows: Iterable[Mapping[str, Any]]) -> None:
    """The rows of stored bytes are committed. A note that stays is collect()'s: what it was for is
    done, and no trouble with it may look like trouble with the fax."""
    for row in rows:
        try:
            _note_of(runtime, row).unlink(missing_ok=True)
        except OSError as error:
            log.warning("note not removed", extra={"exception": type(error).__name__})


def discard(runtime: Runtime, rows: Iterable[Mapping[str, Any]]) -> bool:
    """Remove stored bytes that no row names (id, storage_id, key); whether all are gone. What
    cannot be removed is logged and left to collect(), so that the error that led here is the one
    that is seen."""
    gone = True
    for row in rows:
        try:
            storage(runtime, row["storage_id"]).delete(row["key"])
            settle(runtime, [row])
        except Exception as error:  # noqa: BLE001 - a store's client raises anything
            gone = False
            log.warning(
                "stored bytes not removed",
                extra={"key": row["key"], "exception": type(error).__name__},
            )
    return gone


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
        self._made: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._made is not None:
            self._made.cleanup()

    @property
    def folder(self) -> Path:
        if self._made is None:
            self._spool.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._made = tempfile.TemporaryDirectory(dir=self._spool, prefix="work-")
        return Path(self._made.name)


def fetch(runtime: Runtime, artifact: ArtifactRow, workspace: Workspace) -> Path:
    """The stored bytes as a file to be read: where they lie, or a copy; raises ArtifactNotFound."""
    stored = storage(runtime, artifact.storage_id)
    here: Path | None = stored.path(artifact.key)
    if here is not None:
        if not here.is_file():
            raise ArtifactNotFound
        return here
    target = workspace.folder / str(artifact.id)
    with stored.open(artifact.key) as source:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            shutil.copyfileobj(source, file, 256 * 1024)
    return target


def pages_of(runtime: Runtime, job: JobRow, workspace: Workspace) -> tuple[Path, int]:
    """The job's fax pages as a TIFF to be read: (path, pages); rendered once and kept.

    Raises DocumentError's kin when the documents cannot be rendered, ArtifactNotFound when they
    are gone.
    """
    documents, rendered = of_job(runtime.database, job.id)
    if len(documents) == 1 and documents[0].ready == job.resolution:
        rendered = documents  # it came as fax pages
    if rendered:
        # Pages that are gone can be made again, as long as the documents are there.
        with suppress(ArtifactNotFound):
            path = fetch(runtime, rendered[0], workspace)
            return path, rendered[0].pages
    sources = [(fetch(runtime, document, workspace), document.media_type) for document in documents]
    target = workspace.folder / "pages.tiff"
    pages = runtime.renderer.render(sources, target, resolution=job.resolution)
    _keep(runtime, job, target, pages, workspace)
    return target, pages


def fetched(runtime: Runtime, job_id: str, token: str, workspace: Workspace) -> tuple[Path, str]:
    """The fax pages of a job as PDF, for a carrier that fetches them by a link of ours, and whose account's it is;
    raises Unauthenticated, NotFound where they are gone."""
    addresses.admit_to_document(runtime, job_id, token)
    job = runtime.database.row(_RESOLUTION, {"job_id": job_id})
    documents, rendered = of_job(runtime.database, job_id)
    pages = rendered or [document for document in documents if document.ready]
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
    row = store(
        runtime,
        Upload(kept, digest, size, FAX_PAGES, pages, job.resolution),
        owner={"job_id": job.id},
        account_id=job.account_id,
        role="pages",
        position=0,
        now=runtime.now(),
    )
    unwanted = True
    try:
        with runtime.database.transaction() as session:
            claims.still_mine(session, job)
            replaced = session.execute(
                sa.delete(Artifact)
                .where(Artifact.job_id == job.id, Artifact.role == "pages")
                .returning(Artifact.id, Artifact.storage_id, Artifact.key)
            ).mappings()
            earlier = [dict(known) for known in replaced]
            for known in earlier:
                _note(runtime, known)
            session.execute(sa.insert(Artifact), [row])
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
    ours = [note for note in notes if note[3] == _name_of_database(runtime)]
    return sum(_look_after(runtime, note[1], note[2]) for note in ours)


def _look_after(runtime: Runtime, artifact_id: str, storage_id: str) -> bool:
    """Whether the bytes of this note were removed."""
    row = {"id": artifact_id, "storage_id": storage_id, "key": _key(artifact_id)}
    if runtime.database.row(_KNOWN, {"artifact_id": artifact_id}) is None:
        return discard(runtime, [row])
    settle(runtime, [row])
    return False


_KNOWN = sa.select(Artifact.id).where(Artifact.id == sa.bindparam("artifact_id"))


def _key(artifact_id: str) -> str:
    """Where a store keeps it. The day leads: folders stay small, and retention can walk them in
    order."""
    return f"{made_at(artifact_id):%Y/%m/%d}/{artifact_id}"


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
    return _notes(runtime) / f"{row['id']}.{row['storage_id']}.{_name_of_database(runtime)}"


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
