"""A fax that is over is sent once more: as a new fax, with copies of its documents.

Copies, because bytes belong to one row: retention removes the first fax and all that is its own when its time has
come, a legal hold keeps that one only, and the new one goes by its own age. They are made in the spool and stored as
an upload is, so that whoever dies in between leaves what is collected (artifacts.collect).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from faxbot import artifacts, jobs
from faxbot.actors import Actor
from faxbot.artifacts import ArtifactRow, Upload
from faxbot.audit import Action
from faxbot.errors import ArtifactDamaged, ArtifactNotFound, InvalidFields, NotPossibleNow
from faxbot.events import TERMINAL, Status
from faxbot.hidden import Hidden
from faxbot.jobs import Answer, Repeat, Submission
from faxbot.models import AuditEvent, JobRow
from faxbot.results import stamp
from faxbot.runtime import Runtime
from faxbot.spool import SpoolFile

NOT_SENT = frozenset({Status.FAILED, Status.EXPIRED})
"""How a fax ended that may be sent once more as one of many."""
GONE = "its document is not there any more: send it anew with the document"


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What is to be otherwise than it was; `to` is E.164. A deadline and a planned time are never taken over."""

    to: Hidden[str] | None = None
    send_at: datetime | None = None
    provider_id: str | None = None


def resend(
    runtime: Runtime,
    actor: Actor,
    job_id: str,
    changes: Changes,
    *,
    key: str | None,
    present: Callable[[JobRow], bytes],
) -> Answer:
    """Send a fax once more that is final, however it ended: a new fax with its documents, number, header, resolution,
    priority, tags and wish for a provider. `key` and `present` as in jobs.submit(): a repeat gets the first answer,
    also when the document is gone by then.

    Raises NotFound, NotPossibleNow (not final, or its document or number is gone), InvalidFields (its provider is not
    active any more, and no other one was named), and as jobs.submit().
    """
    job = jobs.find(runtime, actor, job_id)
    request = _request(job_id, changes)
    if key is not None:
        first = jobs.answered(runtime, actor, key, request, present)
        if first is not None:
            return first
    if Status(job.status) not in TERMINAL:
        raise NotPossibleNow(
            f"only a fax that is over is sent once more; this one is {job.status}: "
            "cancel it first, or send the document as another fax"
        )
    if changes.provider_id is None:
        _demand_its_provider(runtime, job)
    with _copies(runtime, job) as uploads:
        submission = Submission(
            to=changes.to or _number(runtime, job),
            uploads=uploads,
            resolution=job.resolution,
            priority=job.priority,
            header=jobs.header(runtime, job),
            tags=job.tags,
            send_at=changes.send_at,
            provider_id=changes.provider_id or job.wanted_provider_id,
            repeats=Repeat(job_id, job.status, request),
        )
        return jobs.submit(runtime, actor, submission, key=key, present=present)


def as_one_of_many(runtime: Runtime, actor: Actor, job_id: str) -> Answer:
    """Send a fax once more that was not sent, as it was: once, however often and by whomever that is asked.

    Raises as resend(); NotPossibleNow also for one that was sent once more by itself, or that ended otherwise.
    """
    key, as_it_was = f"one of many: {job_id}", Changes()
    first = jobs.answered(runtime, actor, key, _request(job_id, as_it_was), jobs.no_body)
    if first is not None:
        return first
    job = jobs.find(runtime, actor, job_id)
    if Status(job.status) not in NOT_SENT:
        raise NotPossibleNow(
            f"only what failed or expired is sent once more so, and this one is {job.status}"
        )
    if sent_anew(runtime, (job_id,)):
        raise NotPossibleNow("it was sent once more already")
    return resend(runtime, actor, job_id, as_it_was, key=key, present=jobs.no_body)


def sent_anew(runtime: Runtime, job_ids: Collection[str]) -> set[str]:
    """Those of these faxes that were sent once more, as far as the audit trail goes back: it says so in the
    transaction that makes the new fax."""
    rows = runtime.database.rows(_SENT_ANEW, {"job_ids": list(job_ids)}) if job_ids else ()
    return {row.object_id for row in rows}


_SENT_ANEW = sa.select(AuditEvent.object_id).where(
    AuditEvent.object_kind == "fax",
    AuditEvent.object_id.in_(sa.bindparam("job_ids", expanding=True)),
    AuditEvent.action == Action.FAX_RESENT.value,
)


def _demand_its_provider(runtime: Runtime, job: JobRow) -> None:
    wanted = job.wanted_provider_id
    if wanted is not None and wanted not in runtime.config.provider_ids:
        raise InvalidFields(
            errors={
                "provider_id": [
                    f"It was for {wanted}, which is not active any more (FAX_BACKENDS): choose another."
                ]
            }
        )


def _request(job_id: str, changes: Changes) -> bytes:
    """What makes the request what it is: that a fax is final, and what it had, never changes."""
    to = changes.to.reveal() if changes.to else None
    return json.dumps([job_id, to, stamp(changes.send_at), changes.provider_id]).encode()


def _number(runtime: Runtime, job: JobRow) -> Hidden[str]:
    if job.purged_at is not None:
        raise NotPossibleNow("retention has removed its number: say where to (`to`)")
    return jobs.number(runtime, job)


@contextmanager
def _copies(runtime: Runtime, job: JobRow) -> Iterator[tuple[Upload, ...]]:
    """Copies of all its documents in the spool, gone when the block ends."""
    documents, _ = artifacts.of_job(runtime.database, job.id)
    # Retention removes a fax's documents one after another.
    whole = sum(document.pages for document in documents) == job.pages
    if not whole or any(document.deleted_at is not None for document in documents):
        raise NotPossibleNow(GONE)
    files: list[SpoolFile] = []
    try:
        for document in documents:
            files.append(SpoolFile(runtime.config.spool_dir))
            _copy(runtime, document, files[-1])
        yield tuple(
            Upload(
                file.path,
                file.sha256,
                file.size,
                document.media_type,
                document.pages,
                document.ready or "",
            )
            for document, file in zip(documents, files, strict=True)
        )
    finally:
        for file in files:
            file.remove()


def _copy(runtime: Runtime, document: ArtifactRow, file: SpoolFile) -> None:
    try:
        for piece in artifacts.read(runtime, document):
            file.write(piece)
    except (ArtifactNotFound, ArtifactDamaged):
        raise NotPossibleNow(GONE) from None
