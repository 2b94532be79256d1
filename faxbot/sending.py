"""One attempt at one fax, readable from top to bottom: claim, prepare, intent, call, outcome.

Two commits fence the call to the carrier: the intent, with a tag of its own, before it; the outcome
after it. No transaction and no connection is held in between. If the outcome is unknown the fax is
`uncertain` and is looked up by its tag (followup.py), never sent again blindly.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy.orm import Session

from faxbot import (
    addresses,
    artifacts,
    breaker,
    claims,
    guard,
    jobs,
    ladder,
    lanes,
    logcontext,
    outcomes,
    restored,
    routing,
    stopping,
)
from faxbot.artifacts import Workspace
from faxbot.breaker import THROTTLED, Rest
from faxbot.db import new_id
from faxbot.errors import (
    ArtifactNotFound,
    DatabaseAway,
    DestinationBarred,
    DocumentError,
    LeaseLost,
    NotSent,
    OutcomeUnknown,
    ProviderError,
    StorageAway,
)
from faxbot.events import Event, Status
from faxbot.hidden import Hidden
from faxbot.ladder import Way
from faxbot.models import Attempt, Job, JobRow
from faxbot.outcomes import Entry
from faxbot.plugins.base import OutboundFax, Receipt
from faxbot.results import locked_with, record_event
from faxbot.routing import Route
from faxbot.runtime import Runtime

log = logging.getLogger(__name__)

FAULT = "fault"
FAULTS_TILL_HELD = 8
"""With the usual 8 s and doubling that is after 17 min."""
HELD_FOR_FAULT = timedelta(hours=1)
PAUSE = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is needed for the call."""

    route: Route
    document: Path
    pages: int
    to: Hidden[str]
    header: Hidden[str]
    way: Way


class NotNow(Exception):
    """A fax cannot be sent at the moment: hold it for `reason`, or, without one, let it wait till
    `until`."""

    def __init__(self, *, reason: str | None = None, until: datetime | None = None) -> None:
        super().__init__(reason)
        self.reason, self.until = reason, until


def attempt(runtime: Runtime, job_id: str) -> None:
    """Make one attempt at a due fax; nothing when it is not due, taken, or final.

    Safe to call any number of times.
    """
    job = claims.claim(runtime, job_id)
    if job is None:
        return
    try:
        with claims.keeping(runtime, job), artifacts.Workspace(runtime) as workspace:
            _attempt(runtime, job, workspace)
    except LeaseLost:
        log.info("claim lost", extra={"job_id": job_id})
    except stopping.Stopped:
        log.info("given back, this worker ends", extra={"job_id": job_id})


def _attempt(runtime: Runtime, job: JobRow, workspace: Workspace) -> None:
    try:
        with stopping.may_be_left():
            prepared = _prepare(runtime, job, workspace)
        this = _intend(runtime, job, prepared)
    except NotNow as wait:
        _put_off(runtime, job, wait)
        return
    except DocumentError:
        _unsendable(runtime, job)
        return
    except Exception:
        with suppress(LeaseLost):
            _set_back(runtime, job)
        raise
    except BaseException:
        # This worker is stopped; nothing was sent, and another one may have it at once.
        claims.release(runtime, job)
        raise
    if this is not None:
        logcontext.note(attempt=this.number, provider_id=this.provider_id)
        begun = runtime.now()
        result, raised = _call(runtime, job, this, prepared)
        took = runtime.now() - begun
        _conclude(runtime, job, this, prepared, result, took)
        if raised is not None or guard.overran(runtime, took):
            guard.failed(runtime, job.account_id, this.provider_id, raised or guard.OVERRUN)
        if isinstance(result, DestinationBarred):
            _doubt_account(runtime, this, prepared)


def _prepare(runtime: Runtime, job: JobRow, workspace: Workspace) -> Prepared:
    """Ask who can send it, and have its pages. No transaction is open; a crash here costs
    nothing."""
    if runtime.restores.doubts(job, runtime.now()):
        raise NotNow(reason=restored.REASON)
    if runtime.config.fax_disabled:
        raise NotNow(reason="disabled")
    providers = routing.candidates(runtime, job)
    if not providers:
        raise NotNow(reason="no_provider")
    if (rest := routing.rest_of_all(runtime, job, providers)) is not None:
        raise _not_while(rest)
    try:
        document, pages = artifacts.pages_of(runtime, job, workspace)
    except (ArtifactNotFound, StorageAway) as error:
        if isinstance(error, StorageAway) and not artifacts.lie_here(runtime, job):
            raise  # a service that hangs is asked later and later: each answer may be long in coming
        log.warning("document cannot be read", extra={"job_id": job.id, "exception": error.detail})
        raise NotNow(reason="document_gone") from None
    # Opened here, where a key that does not fit costs nothing yet.
    to, header = jobs.number(runtime, job), jobs.header(runtime, job)
    # Last, because a place for a probe is not given back: it runs out.
    route = routing.choose(runtime, job, providers)
    if isinstance(route, Rest):
        raise _not_while(route)
    way = ladder.way(runtime, job, runtime.plugins.manifest(route.provider_id), pages)
    document = artifacts.from_page(
        runtime, job, document, range(way.first_page, pages + 1), workspace
    )
    document = artifacts.in_form(runtime, job, document, route.form, workspace)
    header = Hidden(way.header(header.reveal(), pages))
    return Prepared(route, document, pages, to, header, way)


def _not_while(rest: Rest) -> NotNow:
    # A throttled provider is ready again in seconds: that is waiting, not holding.
    return NotNow(until=rest.until, reason=None if rest.reason == THROTTLED else rest.reason)


def _put_off(runtime: Runtime, job: JobRow, wait: NotNow) -> None:
    if wait.reason is None:
        # Looked at again before a long rest is over: a person may have ended it.
        soon = runtime.now() + breaker.REST_AT_MOST
        claims.release(runtime, job, until=min(wait.until or soon, soon))
        return
    with runtime.database.transaction() as session:
        current = claims.still_mine(session, job)
        check = breaker.look_again(runtime.config, wait.reason)
        _hold(session, current, wait.reason, runtime.now(), check)


def _set_back(runtime: Runtime, job: JobRow) -> None:
    """Trouble of this server's own (a full disk, a wrong key, a renderer that died) before the
    intent: try again later and later; a fax that meets it each time is held, so that people see
    it, and tried again every hour."""
    now = runtime.now()
    with runtime.database.transaction() as session:
        current = claims.still_mine(session, job)
        current.faults += 1
        if current.faults >= FAULTS_TILL_HELD:
            _hold(session, current, FAULT, now, HELD_FOR_FAULT)
            return
        wait = runtime.config.ring_again_seconds * 2 ** (current.faults - 1)
        current.next_at = claims.by_deadline(current, now + timedelta(seconds=wait))
        current.lease_until = current.rung_at = current.waiting = None


def _hold(session: Session, job: Job, reason: str, now: datetime, wait: timedelta) -> None:
    """Put a claimed fax on hold, to be looked at again after `wait`."""
    job.lease_until, job.reason = None, reason
    job.next_at = claims.by_deadline(job, now + wait)
    record_event(
        session, job, Event.HELD, status=Status.HELD, reason=reason, now=now, source="worker"
    )


def _unsendable(runtime: Runtime, job: JobRow) -> None:
    with runtime.database.transaction() as session:
        current = claims.still_mine(session, job)
        current.reason = "doc_unreadable"
        record_event(
            session,
            current,
            Event.FAILED,
            status=Status.FAILED,
            cause="doc_unreadable",
            now=runtime.now(),
            source="worker",
        )


def _intend(runtime: Runtime, job: JobRow, prepared: Prepared) -> Attempt | None:
    """Commit the intent: from here on this attempt may have reached the carrier. None when the
    fax's deadline passed while its pages were made, or when it must wait for its turn."""
    now = runtime.now()
    if runtime.restores.doubts(job, now):
        raise NotNow(reason=restored.REASON)  # while its pages were made another ledger took over
    releases = runtime.restores.releases(job, now)
    with runtime.database.transaction() as session:
        current = claims.still_mine(session, job)
        if claims.expire(session, current, now, "worker"):
            return None
        route = prepared.route
        # The provider's lock comes before the lane's, as where a call is judged.
        if route.is_probe and not breaker.is_still_probe(
            session, job.account_id, route.provider_id, job.id, now
        ):
            # Another probe has decided meanwhile: this one asks again whether it may call.
            current.lease_until = current.rung_at = None
            return None
        numbers = jobs.number_keys(runtime.keyring, current)
        wait = lanes.enter(
            session, runtime.config, current, route.provider_id, now, numbers=numbers
        )
        if wait is not None:
            _wait_for(session, current, wait, prepared)
            return None
        current.attempts += 1
        current.provider_id, current.external_id = prepared.route.provider_id, None
        current.reason, current.pages = None, prepared.pages
        current.faults = current.deaths = 0
        planned_at = current.next_at
        current.next_at = now  # the sweep looks at it as soon as the lease has run out
        current.lease_until = now + timedelta(seconds=runtime.config.lease_seconds)
        this = Attempt(
            id=new_id(now),
            account_id=job.account_id,
            job_id=job.id,
            number=current.attempts,
            provider_id=prepared.route.provider_id,
            tag=restored.tag_of(job.id, current.attempts, releases),
            callback_base=runtime.config.base_url,
            fence=job.fence,
            outcome="open",
            counted=False,
            pages_sent=0,
            step=prepared.way.step,
            first_page=prepared.way.first_page,
            settings_hash=route.settings_hash,
            looks=0,
            absences=0,
            planned_at=planned_at,
            intended_at=now,
        )
        session.add(this)
        Entry(session, runtime, current, this, now, "worker").record(
            Event.SUBMITTING, Status.SUBMITTING
        )
    return this


def _wait_for(session: Session, job: Job, wait: lanes.Wait, prepared: Prepared) -> None:
    """Give the claim back till then; it was no attempt."""
    job.waiting = wait.kind
    job.faults = job.deaths = 0
    job.lease_until = job.rung_at = None
    job.next_at = claims.by_deadline(job, wait.until)
    if prepared.route.is_probe:
        breaker.give_place_back(session, job.account_id, prepared.route.provider_id, job.id)


def _call(
    runtime: Runtime, job: JobRow, this: Attempt, prepared: Prepared
) -> tuple[str | ProviderError, Exception | None]:
    """The carrier's id for the fax, or what went wrong; and what the plugin's own code raised, if it
    did. Raises for nothing the provider does."""
    lease = timedelta(seconds=runtime.config.lease_seconds)
    if runtime.now() - this.intended_at >= lease:
        # This worker slept between intent and call: the attempt may be settled as absent by now,
        # and a call would be a second fax.
        raise LeaseLost
    fax = OutboundFax(
        tag=this.tag,
        to=prepared.to,
        document=prepared.document,
        media_type=prepared.route.form,
        pages=prepared.pages - prepared.way.first_page + 1,
        resolution=job.resolution,
        header=prepared.header,
        step=prepared.way.step or 0,
        deadline=job.expires_at,
        callback_url=addresses.of_callbacks(runtime, this),
        document_url=_link(runtime, this),
    )
    try:
        receipt: object = prepared.route.provider.send(fax)
    except ProviderError as error:
        return error, None
    except Exception as error:  # noqa: BLE001 - a plugin's bug neither loses a fax nor doubles it
        # The class only: the text of a foreign exception may hold anything.
        _log_raise(prepared.route.provider_id, job.id, error)
        return OutcomeUnknown(cause="system"), error
    if not isinstance(receipt, Receipt) or not outcomes.is_name(receipt.external_id):
        return OutcomeUnknown(), None
    return receipt.external_id, None


def _link(runtime: Runtime, this: Attempt) -> Hidden[str]:
    """Only for a provider that can make use of it: whoever has it has the document."""
    fetches = runtime.plugins.manifest(this.provider_id).has("fetches_document")
    return addresses.of_document(runtime, this) if fetches else Hidden("")


def _log_raise(provider_id: str, job_id: str, error: Exception) -> None:
    log.error(
        "provider raised",
        extra={"provider_id": provider_id, "job_id": job_id, "exception": type(error).__name__},
    )


def _conclude(
    runtime: Runtime,
    job: JobRow,
    this: Attempt,
    prepared: Prepared,
    result: str | ProviderError,
    took: timedelta,
) -> None:
    """Commit the outcome. What we hold in hand is not thrown away for a moment without database:
    some carriers can never be asked for it again."""
    given_up = time.monotonic() + runtime.config.lease_seconds
    while True:
        try:
            _commit_outcome(runtime, job, this, prepared, result, took)
        except DatabaseAway:
            if time.monotonic() > given_up:
                raise
            time.sleep(PAUSE)
        else:
            return


def _commit_outcome(
    runtime: Runtime,
    job: JobRow,
    this: Attempt,
    prepared: Prepared,
    result: str | ProviderError,
    took: timedelta,
) -> None:
    """Refused by the fence when this claim was lost meanwhile; does nothing a second time."""
    now = runtime.now()
    with runtime.database.transaction() as session:
        current, known = locked_with(session, this.id, fence=job.fence)
        breaker.judge(
            session,
            runtime.config,
            known,
            result,
            now,
            seconds=took.total_seconds(),
            is_probe=prepared.route.is_probe,
        )
        _apply(Entry(session, runtime, current, known, now, "worker"), result)
    if prepared.route.is_probe or not isinstance(result, str):
        runtime.breakers.forget()
    if not isinstance(result, str | NotSent):
        runtime.ring(claims.TASKS[Status.UNCERTAIN], job.id)


def _apply(entry: Entry, result: str | ProviderError) -> None:
    if isinstance(result, str):
        # A callback may have come first and have told us all this already.
        outcomes.accepted(entry, result)
    elif Status(entry.job.status) is not Status.SUBMITTING:
        return
    elif isinstance(result, NotSent):
        outcomes.refused(entry, result)
    else:
        outcomes.unknown(entry, result.cause)


def _doubt_account(runtime: Runtime, this: Attempt, prepared: Prepared) -> None:
    """A carrier that forbids a call may mean the number or us: if it does not let us in either, it
    means us."""
    try:
        if prepared.route.provider.health().ok:
            return
    except Exception as error:  # noqa: BLE001 - no answer says nothing
        _log_raise(prepared.route.provider_id, this.job_id, error)
        return
    with runtime.database.transaction() as session:
        breaker.open_for_account(session, runtime.config, this, runtime.now())
    runtime.breakers.forget()
