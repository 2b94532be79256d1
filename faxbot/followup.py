"""After the call: settle a vanished worker's attempt, look an uncertain one up, poll a sent one and
pass a cancel on, review a held fax.

Each is rung by the sweep of its status and safe to run any number of times, also at once; the
carrier is asked with no transaction open.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from faxbot import artifacts, breaker, claims, outcomes
from faxbot.errors import FaxbotError, PluginError
from faxbot.events import Event, Status
from faxbot.models import Attempt, Job
from faxbot.outcomes import Entry
from faxbot.plugins.base import State, TransportPlugin, Update
from faxbot.results import locked, locked_with, record_event
from faxbot.runtime import Runtime

log = logging.getLogger(__name__)

PATIENCE = timedelta(hours=24)
"""A sent fax without a final result for this long is uncertain."""


def settle(runtime: Runtime, job_id: str) -> None:
    """A fax whose worker vanished after the intent: its outcome is unknown, its look-up starts
    now."""
    now = runtime.now()
    with runtime.database.transaction() as session:
        job = locked(session, job_id)
        leased = job.lease_until is not None and job.lease_until > now
        if job.status != Status.SUBMITTING or leased:
            return
        job.fence += 1  # a late write of the vanished worker is refused
        entry = Entry(session, runtime.config, job, _newest(session, job), now, "sweep")
        outcomes.unknown(entry, "unconfirmed")
    look_up(runtime, job_id)


def look_up(runtime: Runtime, job_id: str) -> None:
    """Ask the carrier what it has under an uncertain attempt's tag; found settles it, absent twice
    may prove absence."""
    asked = _ask_about(runtime, job_id, Status.UNCERTAIN)
    if asked is None:
        return
    with runtime.database.transaction() as session:
        entry = _entry(runtime, session, asked[0], Status.UNCERTAIN, "look_up")
        if entry is None:
            return
        entry.attempt.looks += 1
        entry.job.next_at = outcomes.next_look_up(entry)
        _weigh(runtime, entry, asked[1])


def _weigh(runtime: Runtime, entry: Entry, update: Update | None) -> None:
    if update is None:
        return
    if update.state is not State.ABSENT:
        outcomes.news(entry, update)
        return
    # Absent twice, after the time in which the carrier's own listing settles, is proof where the
    # manifest says so; elsewhere only a person may decide. Of a fax that the carrier once had it
    # only proves that the carrier forgot it.
    attempt = entry.attempt
    settled = timedelta(seconds=runtime.config.look_up_seconds)
    proof = runtime.plugins.manifest(attempt.provider_id).has("absence_is_proof")
    never_had = attempt.accepted_at is None
    if proof and never_had and entry.now - attempt.intended_at >= settled:
        attempt.absences += 1
        if attempt.absences >= 2:
            outcomes.absent(entry)


def poll(runtime: Runtime, job_id: str) -> None:
    """Ask the carrier how a sent fax is doing: a lost callback then only costs time. A cancel that
    was asked for is passed on first, and its outcome is news like any other."""
    asked = _ask_about(runtime, job_id, Status.SENT)
    if asked is None:
        return
    update = asked[1]
    with runtime.database.transaction() as session:
        entry = _entry(runtime, session, asked[0], Status.SENT, "poll")
        if entry is None:
            return
        entry.attempt.looks += 1
        entry.job.next_at = outcomes.next_poll(entry)
        gone = update is not None and update.state is State.ABSENT
        if update is not None and not gone:
            outcomes.news(entry, update)
        accepted_at = entry.attempt.accepted_at
        silent = accepted_at is not None and entry.now - accepted_at > PATIENCE
        if entry.job.status == Status.SENT and (gone or silent):
            outcomes.unknown(entry, "unconfirmed")


def _entry(
    runtime: Runtime, session: Session, asked: Attempt, status: Status, source: str
) -> Entry | None:
    """The locked job and the attempt the carrier was asked about; None when things moved on, also
    when somebody else has asked meanwhile: one answer must not count twice."""
    now = runtime.now()
    job, attempt = locked_with(session, asked.id)
    if not _wants_asking(job, status, now) or attempt.number != job.attempts:
        return None
    return Entry(session, runtime.config, job, attempt, now, source)


def _wants_asking(job: Job, status: Status, now: datetime) -> bool:
    return job.status == status and job.next_at is not None and job.next_at <= now


def _ask_about(
    runtime: Runtime, job_id: str, status: Status
) -> tuple[Attempt, Update | None] | None:
    """The newest attempt of a due fax in `status` and what its carrier says (None: no answer); None
    when there is nothing to ask about."""
    with runtime.database.reading() as session:
        job = session.get(Job, job_id)
        if job is None or not _wants_asking(job, status, runtime.now()):
            return None
        this = _newest(session, job)
    if job.cancel_requested_at is not None:
        _pass_cancel_on(runtime, this)
    try:
        provider = runtime.plugins.get(this.provider_id, TransportPlugin)
        if not runtime.plugins.manifest(this.provider_id).has("status_lookup"):
            return this, None
        if status is Status.SENT and this.external_id is not None:
            return this, outcomes.checked(provider.fetch(this.external_id))
        return this, outcomes.checked(provider.look_up(this.tag))
    except Exception as error:  # noqa: BLE001 - whatever a plugin does, we ask again later
        _log_failure("no answer from the carrier", this, error)
        return this, None


def _pass_cancel_on(runtime: Runtime, this: Attempt) -> None:
    try:
        if this.external_id and runtime.plugins.manifest(this.provider_id).has("cancel"):
            runtime.plugins.get(this.provider_id, TransportPlugin).cancel(this.external_id)
    except Exception as error:  # noqa: BLE001 - the wish is kept; the carrier's word ends it
        _log_failure("cancel not passed on", this, error)


def _log_failure(message: str, this: Attempt, error: Exception) -> None:
    """The class or our own code only: the text of a foreign exception may hold anything."""
    what = error.code if isinstance(error, FaxbotError) else type(error).__name__
    log.warning(
        message, extra={"provider_id": this.provider_id, "job_id": this.job_id, "error": what}
    )


def review(runtime: Runtime, job_id: str) -> None:
    """Look at a held fax again: release it when its reason is gone, expire it past its deadline."""
    now = runtime.now()
    with runtime.database.reading() as session:
        held = session.get(Job, job_id)
        if held is None or held.status != Status.HELD:
            return
        stays = _still_held(runtime, session, held)
    with runtime.database.transaction() as session:
        job = locked(session, job_id)
        if job.status != Status.HELD:
            return
        if job.expires_at is not None and job.expires_at <= now:
            record_event(
                session, job, Event.EXPIRED, status=Status.EXPIRED, now=now, source="sweep"
            )
            return
        if stays:
            job.next_at = now + timedelta(seconds=runtime.config.held_check_seconds)
            return
        reason, job.reason = job.reason, None
        job.next_at = job.rung_at = now
        record_event(
            session,
            job,
            Event.RELEASED,
            status=Status.QUEUED,
            reason=reason,
            now=now,
            source="sweep",
        )
    runtime.ring(claims.TASKS[Status.QUEUED], job_id)


def _still_held(runtime: Runtime, session: Session, job: Job) -> bool:
    provider_id = job.wanted_provider_id or runtime.config.provider_id
    match job.reason:
        case "disabled":
            return runtime.config.fax_disabled
        case "no_provider":
            return not _loads(runtime, provider_id)
        case "account_refused":
            now = runtime.now()
            rest = breaker.resting(runtime.database, job.account_id, provider_id, now)
            return rest is not None or now < job.updated_at + breaker.ACCOUNT_REST
        case "document_gone":
            return not _documents_are_there(runtime, session, job)
    return True


def _loads(runtime: Runtime, provider_id: str) -> bool:
    try:
        runtime.plugins.get(provider_id, TransportPlugin)
    except PluginError:
        return False
    return True


def _documents_are_there(runtime: Runtime, session: Session, job: Job) -> bool:
    for artifact in artifacts.of_job(session, job.id)[0]:
        try:
            artifacts.storage(runtime, artifact.storage_id).open(artifact.key).close()
        except FaxbotError:
            return False
    return True


def _newest(session: Session, job: Job) -> Attempt:
    return session.scalars(
        sa.select(Attempt).where(Attempt.job_id == job.id, Attempt.number == job.attempts)
    ).one()
