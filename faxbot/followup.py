"""After the call: settle a vanished worker's attempt, look an uncertain one up, poll a sent one and
pass a cancel on, review a held fax.

Each is rung by the sweep of its status and safe to run any number of times, also at once; the
carrier is asked with no transaction open, and about one fax by one worker at a time.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import Session

from faxbot import (
    artifacts,
    asking,
    breaker,
    claims,
    guard,
    jobs,
    logcontext,
    outcomes,
    recall,
    restored,
    routing,
)
from faxbot.db import UtcDateTime
from faxbot.errors import Refused
from faxbot.events import Status
from faxbot.models import IS_OPEN, Attempt, Job
from faxbot.outcomes import Entry
from faxbot.plugins.base import State, TransportPlugin, Update
from faxbot.results import locked, locked_with
from faxbot.runtime import Runtime

log = logging.getLogger(__name__)


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
        entry = Entry(session, runtime, job, _newest(session, job), now, "sweep")
        outcomes.unknown(entry, "unconfirmed")
    runtime.ring(claims.TASKS[Status.UNCERTAIN], job_id)


def look_up(runtime: Runtime, job_id: str) -> None:
    """Ask the carrier what it has under an uncertain attempt's tag; found settles it, absent twice
    may prove absence."""
    turn = _take_turn(runtime, job_id, Status.UNCERTAIN)
    if turn is None:
        return
    update = asking.ask(
        runtime, turn.attempt, lambda provider: _found_by_tag(runtime, turn, provider)
    )
    with runtime.database.transaction() as session:
        entry = _entry(runtime, session, turn, "look_up")
        if entry is None:
            return
        entry.attempt.looks += 1
        entry.job.next_at = outcomes.next_look_up(entry)
        _weigh(runtime, entry, update, turn.taken_at)


def _weigh(runtime: Runtime, entry: Entry, update: Update | None, asked_at: datetime) -> None:
    if update is None:
        return
    if update.state in (State.ACCEPTED, State.PROGRESS) and _is_silent(entry):
        return  # that it is under way was said for a day: a person must ask
    if update.state is not State.ABSENT:
        outcomes.news(entry, update)
        return
    # Absent twice, after the time in which the carrier's own listing settles, is proof where the
    # manifest says so; elsewhere only a person may decide. Of a fax that the carrier once had it
    # only proves that the carrier forgot it; and another account never had it.
    attempt = entry.attempt
    proof = runtime.plugins.manifest(attempt.provider_id).has("absence_is_proof")
    if not routing.is_set_as(runtime, attempt.provider_id, attempt.settings_hash):
        proof = False
    never_had = attempt.accepted_at is None
    settled = _call_over(entry) + timedelta(seconds=runtime.config.settle_seconds)
    if proof and never_had and asked_at >= settled:
        attempt.absences += 1
        if attempt.absences >= 2:
            outcomes.absent(entry)


def _call_over(entry: Entry) -> datetime:
    """When the attempt's call to the carrier was over for sure."""
    if entry.job.fence == entry.attempt.fence:
        return entry.job.updated_at  # its worker said so itself: that made the fax uncertain
    # settle() said it of a worker that vanished: it may have begun the call as late as its lease
    # allowed, and the call may have lasted as long as a call may.
    config = entry.config
    longest = config.lease_seconds + config.provider_call_seconds
    return entry.attempt.intended_at + timedelta(seconds=longest)


def poll(runtime: Runtime, job_id: str) -> None:
    """Ask the carrier how a sent fax is doing: a lost callback then only costs time. A cancel that
    was asked for is passed on first, and its outcome is news like any other."""
    turn = _take_turn(runtime, job_id, Status.SENT)
    if turn is None:
        return
    this = turn.attempt
    heard = turn.cancel_asked_at is None or _pass_cancel_on(runtime, this)

    def question(provider: TransportPlugin) -> Update:
        # A callback may have told of it by our tag alone.
        known = this.external_id
        if known is None:
            return _found_by_tag(runtime, turn, provider)
        return provider.fetch(known)

    update = asking.ask(runtime, this, question)
    with runtime.database.transaction() as session:
        entry = _entry(runtime, session, turn, "poll")
        if entry is None:
            return
        entry.attempt.looks += 1
        entry.job.next_at = outcomes.next_poll(entry)
        if turn.cancel_asked_at is not None and not heard:
            soon = _next_cancel(entry.now, turn.cancel_asked_at)
            entry.job.next_at = min(entry.job.next_at, soon)
        gone = update is not None and update.state is State.ABSENT
        if update is not None and not gone:
            outcomes.news(entry, update)
        if entry.job.status == Status.SENT and (gone or _is_silent(entry)):
            outcomes.unknown(entry, "unconfirmed")


def _is_silent(entry: Entry) -> bool:
    """Whether the carrier took it so long ago that it should have ended."""
    accepted_at = entry.attempt.accepted_at
    silence = timedelta(seconds=entry.config.silence_seconds)
    return accepted_at is not None and entry.now - accepted_at > silence


def _found_by_tag(runtime: Runtime, turn: _Turn, provider: TransportPlugin) -> Update:
    this = turn.attempt
    return provider.look_up(this.tag, to=jobs.number(runtime, turn.job), since=this.intended_at)


class _Turn(NamedTuple):
    """The right to ask the carrier about a fax: nobody else does before `until`, unless something
    new is wanted (a cancel), which ends the turn."""

    job: Job
    attempt: Attempt
    status: Status
    taken_at: datetime
    until: datetime
    cancel_asked_at: datetime | None


_TAKE_TURN = (
    sa.update(Job)
    .where(
        Job.id == sa.bindparam("job_id"),
        Job.status == sa.bindparam("wanted"),
        Job.next_at <= sa.bindparam("now", type_=UtcDateTime),
    )
    .values(next_at=sa.bindparam("until", type_=UtcDateTime))
    .returning(Job)
    .execution_options(synchronize_session=False)
)


def _take_turn(runtime: Runtime, job_id: str, status: Status) -> _Turn | None:
    """Take the turn at a due fax in `status`; None when it is not due, or not so any more.

    The fax is due again when the turn is over: a worker that vanishes in it costs only time.
    """
    now = runtime.now()
    # Long enough for a cancel and a question.
    until = now + timedelta(seconds=2 * runtime.config.provider_call_seconds + asking.MARGIN)
    wanted = {"job_id": job_id, "wanted": status.value, "now": now, "until": until}
    with runtime.database.transaction() as session:
        job: Job | None = session.scalar(_TAKE_TURN, wanted)
        if job is None:
            return None
        newest = _newest(session, job)
        logcontext.note(attempt=newest.number, provider_id=newest.provider_id)
        return _Turn(job, newest, status, now, until, job.cancel_requested_at)


def _entry(runtime: Runtime, session: Session, turn: _Turn, source: str) -> Entry | None:
    """The locked job and the attempt the carrier was asked about; None when the turn is not ours
    any more: one answer must not count twice."""
    job, attempt = locked_with(session, turn.attempt.id)
    if job.status != turn.status or job.next_at != turn.until:
        return None
    return Entry(session, runtime, job, attempt, runtime.now(), source)


def _pass_cancel_on(runtime: Runtime, this: Attempt) -> bool:
    """Whether the carrier has heard of the wish, or never will; a refusal is its answer to it."""
    try:
        if not runtime.plugins.manifest(this.provider_id).has("cancel"):
            return True
        if this.external_id is None:
            return False
        if guard.is_disabled(runtime, this.account_id, this.provider_id):
            return False
        runtime.plugins.get(this.provider_id, TransportPlugin).cancel(this.external_id)
    except Exception as error:  # noqa: BLE001 - the wish is kept; the carrier's word ends it
        asking.note_failure(runtime, "cancel not passed on", this, error)
        return isinstance(error, Refused)
    return True


def _next_cancel(now: datetime, asked_at: datetime) -> datetime:
    """When to try again to pass a cancel on: soon at first, then ever more seldom."""
    return now + max((now - asked_at) / 2, timedelta(seconds=10))


def ask_after_all(runtime: Runtime, provider_id: str) -> int:
    """Have every fax that this provider has, or may have, asked after now: it may have said something that
    nobody heard. How many. The sweep rings for them."""
    now = runtime.now()
    with runtime.database.transaction() as session:
        found = session.scalars(_HAS, {"provider": provider_id, "now": now}).all()
    return len(found)


_HAS = (
    sa.update(Job)
    .where(
        sa.text(IS_OPEN),
        Job.status.in_((Status.SENT.value, Status.UNCERTAIN.value)),
        Job.provider_id == sa.bindparam("provider"),
        Job.next_at > sa.bindparam("now", type_=UtcDateTime),
    )
    .values(next_at=sa.bindparam("now", type_=UtcDateTime), rung_at=None)
    .returning(Job.id)
    .execution_options(synchronize_session=False)
)


def review(runtime: Runtime, job_id: str) -> None:
    """Look at a due held fax again: release it when its reason is gone, expire it past its
    deadline."""
    now = runtime.now()
    with runtime.database.reading() as session:
        held = session.get(Job, job_id)
        if held is None or held.status != Status.HELD or held.next_at is None or held.next_at > now:
            return
        late = claims.by_deadline(held, now) < now
        stays = late or _still_held(runtime, session, held)
        check = now + breaker.look_again(runtime.config, held.reason or "")
        if stays and held.reason == breaker.ACCOUNT_REFUSED:
            rest = _own_rest(runtime, session, held)
            check = min(check, rest) if rest > now else check
    if held.reason == restored.REASON:  # asked of the carriers, with nothing open here
        recall.recall(runtime, held)
        return
    doubtful = late and runtime.restores.doubts(held, now)  # it may have been sent: asked first
    if held.reason == "document_gone":  # asked of the storage, with nothing open here
        stays = late or not _documents_are_there(runtime, held)
    with runtime.database.transaction() as session:
        job = locked(session, job_id)
        if (job.status, job.reason, job.next_at) != (held.status, held.reason, held.next_at):
            return  # it is held for another reason now, or somebody has looked meanwhile
        if not doubtful and claims.expire(session, job, now, "sweep"):
            return
        if stays and not doubtful:
            job.next_at = claims.by_deadline(job, check)
            return
        claims.let_go(session, job, now, "sweep")
    claims.announce(runtime, Status.QUEUED, job_id, now)


def _still_held(runtime: Runtime, session: Session, job: Job) -> bool:
    match job.reason:
        case "disabled":
            return runtime.config.fax_disabled
        case "no_provider":
            return not routing.candidates(runtime, job)
        case breaker.ACCOUNT_REFUSED | breaker.FAILING | breaker.PAUSED | breaker.DISABLED:
            now = runtime.now()
            if job.reason == breaker.ACCOUNT_REFUSED and now < _own_rest(runtime, session, job):
                return True
            # Of a provider that has rested only so many are let go as may try it.
            providers = routing.candidates(runtime, job)
            return bool(providers) and isinstance(
                routing.choose(runtime, job, providers), breaker.Rest
            )
        case "fault":
            return False
        case outcomes.SAID_ACCEPTED:
            return outcomes.doubt(session, job) is not None
    return True


def _own_rest(runtime: Runtime, session: Session, job: Job) -> datetime:
    """A fax that was refused itself comes behind those that only waited for the same account: one
    of them finds out whether it is mended."""
    if job.attempts == 0:
        return job.updated_at
    attempt = _newest(session, job)
    ended_at = attempt.ended_at or job.updated_at
    if breaker.was_reset(session, job.account_id, attempt.provider_id, ended_at):
        return ended_at  # a person says that it is
    return (
        ended_at
        + breaker.account_rest(runtime.config)
        + 2 * timedelta(seconds=runtime.config.held_check_seconds)
    )


def _documents_are_there(runtime: Runtime, job: Job) -> bool:
    """And are what was stored: a fax that is let go with less would be held again at once."""
    for artifact in artifacts.of_job(runtime.database, job.id)[0]:
        try:
            for _ in artifacts.read(runtime, artifact):
                pass
        except Exception as error:  # noqa: BLE001 - a store's client raises anything
            log.warning("document not there", extra={"exception": type(error).__name__})
            return False
    return True


def _newest(session: Session, job: Job) -> Attempt:
    return session.scalars(
        sa.select(Attempt).where(Attempt.job_id == job.id, Attempt.number == job.attempts)
    ).one()
