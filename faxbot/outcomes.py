"""What a carrier's answer does to a fax: accepted, refused, unknown, absent, or news.

Sending, polls, look-ups and callbacks all come here. Late, repeated and contradicting news is
normal input: a repeat is nothing, a contradiction of what is final is kept as FAX_ANOMALY and never
applied.
"""

from __future__ import annotations

import hashlib
import logging
import random
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Unpack, cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from faxbot import claims, ladder, lanes, retry
from faxbot.config import Config
from faxbot.errors import AccountRefused, DestinationBarred, NotSent, Refused
from faxbot.events import ASKED, CAUSES, CLAIMABLE, TERMINAL, Event, Status
from faxbot.jobs import number_keys
from faxbot.models import Attempt, FaxEvent, Job
from faxbot.plugins.base import State, Update
from faxbot.results import Facts, record_event
from faxbot.retry import End
from faxbot.runtime import Runtime

log = logging.getLogger(__name__)

POLLS = (1, 2, 6)
"""Waits before the polls of a sent fax, in units of poll_first (10 min): at 10, at 30, hourly."""
LOOKS = (0, 1, 4, 10, 60)
"""Waits before the look-ups of an uncertain fax, in units of look_up (1 min): at once, at 1, 5,
15 min, then hourly."""
SAID_DELIVERED, SAID_ACCEPTED = "said_delivered", "said_accepted"
SECOND_NAME = "second_name"
MOST_PAGES = 1_000_000
"""No fax has as many; a carrier that counts more is not believed."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One visit to the ledger: a locked job and one of its attempts, in the caller's transaction;
    `source` is who brings the news."""

    session: Session
    runtime: Runtime
    job: Job
    attempt: Attempt
    now: datetime
    source: str

    @property
    def config(self) -> Config:
        return self.runtime.config

    @property
    def numbers(self) -> tuple[str, ...]:
        """The keyed hashes of the fax's number."""
        return number_keys(self.runtime.keyring, self.job)

    def record(self, event: Event, status: Status | None = None, **facts: Unpack[Facts]) -> bool:
        """results.record_event() for this job and attempt."""
        return record_event(
            self.session,
            self.job,
            event,
            status=status,
            attempt=self.attempt,
            now=self.now,
            source=self.source,
            **facts,
        )

    def count(self) -> None:
        """Let this attempt use up one try, once."""
        if not self.attempt.counted:
            self.attempt.counted = True
            self.job.tries += 1

    def end(self, outcome: str, cause: str | None) -> None:
        """The attempt is over, and the line to the number is free."""
        self.attempt.outcome, self.attempt.cause = outcome, cause
        self.attempt.ended_at = self.now
        if cause == "unknown":
            self.wonder()
        called = outcome not in ("refused", "absent")
        if called and self.config.delete_at_carrier:
            self.attempt.delete_copy_at = self.now
        lanes.leave(
            self.session, self.config, self.job, self.now, called=called, numbers=self.numbers
        )

    def wonder(self) -> None:
        """Say that nobody here knows the cause; what the carrier said of it stays in its callback, sealed."""
        names = {"provider_id": self.attempt.provider_id, "job_id": self.job.id}
        log.warning("a cause that no list has", extra=names)

    def later(self, seconds: float) -> datetime:
        return self.now + timedelta(seconds=seconds)

    def again_at(self, at: datetime) -> None:
        """Plan the next try, or the next look at a held fax."""
        self.job.next_at = claims.by_deadline(self.job, at)
        self.job.rung_at = None


def checked(update: object) -> Update:
    """News as a plugin gave it, fit for the ledger: what is not a fact of the kind it should be is
    left out. Raises ValueError where it cannot say which fax it speaks of."""
    if not isinstance(update, Update) or not isinstance(update.state, State):
        raise ValueError("no news")
    for name in (update.tag, update.external_id):
        if name is not None and not is_name(name):
            raise ValueError("no name")
    pages = update.pages_sent
    counted = type(pages) is int and 0 <= pages <= MOST_PAGES
    return replace(
        update,
        cause=canonical(update.cause) if update.state is State.FAILED else None,
        pages_sent=pages if counted else None,
        occurred_at=dated(update.occurred_at),
        key=update.key if isinstance(update.key, str) else None,
    )


def dated(at: object) -> datetime | None:
    """A plugin's time where it is one with a zone, of this age."""
    sound = isinstance(at, datetime) and at.tzinfo is not None and 2000 <= at.year < 3000
    return cast(datetime, at) if sound else None


def is_name(value: object) -> bool:
    """Whether a carrier's name for a fax can be kept: 1 to 255 printable characters."""
    return isinstance(value, str) and 1 <= len(value) <= 255 and value.isprintable()


def canonical(cause: object) -> str:
    """A plugin's cause where it is one of events.CAUSES, else `unknown`: no text of a carrier gets
    into the results."""
    return cause if isinstance(cause, str) and cause in CAUSES else "unknown"


def next_poll(entry: Entry) -> datetime:
    """When to ask after a sent fax: at 10 min, 30 min, then hourly (as configured)."""
    wait = POLLS[min(entry.attempt.looks, len(POLLS) - 1)]
    return entry.later(entry.config.poll_first_seconds * wait)


def next_look_up(entry: Entry) -> datetime:
    """When to look an uncertain attempt up: at once, at 1, 5, 15 min, then hourly (as
    configured)."""
    wait = LOOKS[min(entry.attempt.looks, len(LOOKS) - 1)]
    return entry.later(entry.config.look_up_seconds * wait)


def accepted(entry: Entry, external_id: str | None) -> None:
    """The carrier has this newest attempt, under `external_id` where it said so. Nothing when that
    is known already, or the fax is final."""
    job, attempt = entry.job, entry.attempt
    if attempt.external_id is None:
        job.external_id = attempt.external_id = external_id
    elif _is_second_name(attempt, external_id) and _note_second_name(entry):
        hold_back(entry)
    if attempt.outcome in ("open", "unknown"):
        attempt.outcome, attempt.accepted_at = "accepted", entry.now
        entry.count()
    if Status(job.status) not in (Status.SUBMITTING, Status.UNCERTAIN):
        return
    if job.status == Status.UNCERTAIN:
        entry.record(Event.RECONCILED)
    attempt.looks = attempt.absences = 0
    job.lease_until = None
    # A cancel that was asked for meanwhile is passed on by the first poll.
    job.next_at = entry.now if job.cancel_requested_at else next_poll(entry)
    entry.record(Event.SENT, Status.SENT)


def _is_second_name(attempt: Attempt, external_id: str | None) -> bool:
    """Two names for one attempt: the carrier may have taken it twice."""
    return external_id not in (None, attempt.external_id) and attempt.external_id is not None


def _note_second_name(entry: Entry) -> bool:
    key = f"{entry.attempt.number}:{SECOND_NAME}"
    return entry.record(Event.ANOMALY, reason=SECOND_NAME, key=key)


def unknown(entry: Entry, cause: str) -> None:
    """The call may or may not have reached the carrier: look it up, starting now."""
    cause = canonical(cause)
    entry.attempt.outcome, entry.attempt.cause = "unknown", cause
    if cause == "unknown":
        entry.wonder()
    entry.attempt.looks = entry.attempt.absences = 0
    entry.count()
    entry.job.lease_until = None
    entry.job.next_at = entry.now
    entry.record(Event.UNCERTAIN, Status.UNCERTAIN, cause=cause)


def refused(entry: Entry, error: NotSent) -> None:
    """The carrier surely did not take it: fail, wait and retry, or hold, by the kind of refusal."""
    cause = canonical(error.cause)
    entry.end("refused", cause)
    if isinstance(error, Refused):
        entry.count()
        end = End.REFUSED
    elif isinstance(error, AccountRefused | DestinationBarred):
        end = End.ACCOUNT
    else:
        end = End.FAULT
    decision = _decide(entry, end, cause, asked=retry.asked_wait(error.retry_after))
    _follow(entry, decision, cause)


def _decide(entry: Entry, end: End, cause: str, *, asked: float | None = None) -> retry.Decision:
    """What comes after this attempt, which ended so, and the ones before it."""
    this, job = entry.attempt, entry.job
    earlier = entry.session.execute(_EARLIER, {"job_id": job.id, "number": this.number}).all()
    history = [
        retry.Past(_ENDS[row.outcome, row.counted], row.cause or "unknown", row.pages_sent)
        for row in earlier
        if (row.outcome, row.counted) in _ENDS
    ]
    return retry.decide(
        [*history, retry.Past(end, cause, this.pages_sent)],
        now=entry.now,
        luck=_luck(),
        proven=cause in retry.PROVEN and _has_arrived(entry),
        asked=asked,
    )


_ENDS = {
    ("failed", True): End.FAILED,
    ("refused", True): End.REFUSED,
    ("refused", False): End.FAULT,
    ("absent", True): End.ABSENT,
}
"""How earlier attempts ended, by outcome and whether they count."""
_EARLIER = (
    sa.select(Attempt.outcome, Attempt.counted, Attempt.cause, Attempt.pages_sent)
    .where(Attempt.job_id == sa.bindparam("job_id"), Attempt.number < sa.bindparam("number"))
    .order_by(Attempt.number)
)


def _has_arrived(entry: Entry) -> bool:
    """Whether a fax was delivered to this number before."""
    delivered = sa.exists().where(
        Job.account_id == entry.job.account_id,
        Job.to_key.in_(entry.numbers),
        Job.status == Status.DELIVERED.value,
    )
    return entry.session.scalar(sa.select(delivered)) is True


def absent(entry: Entry) -> None:
    """It is proven that the carrier never had this attempt: a new one may be made."""
    entry.end("absent", entry.attempt.cause)
    decision = _decide(entry, End.ABSENT, canonical(entry.attempt.cause))
    if isinstance(decision, retry.Again):  # it always is
        entry.again_at(decision.at)
        entry.job.attempts_at_most = None
    if entry.job.cancel_requested_at is not None:
        entry.record(Event.CANCELLED, Status.CANCELLED)
    else:
        entry.record(Event.RECONCILED, Status.RETRYING)
        hold_back(entry)


def news(entry: Entry, update: Update) -> None:
    """Apply one piece of news; what is old, repeated or impossible does no harm.

    Absence is no news here: who looked it up weighs it.
    """
    job, attempt = entry.job, entry.attempt
    update = _of_the_whole(update, attempt)
    if update.state is State.FAILED and _is_second_name(attempt, update.external_id):
        _note_second_name(entry)
        return  # that one copy failed says nothing of the other
    current = Status(job.status) not in TERMINAL and attempt.number == job.attempts
    if current and update.state is not State.ABSENT:
        accepted(entry, update.external_id)
    if not current or job.status != Status.SENT:
        _too_late(entry, update)
        return
    if update.pages_sent is not None:
        # Pages only ever add up: an older report that comes late must not take some away.
        pages = min(update.pages_sent, job.pages or update.pages_sent)
        attempt.pages_sent = max(attempt.pages_sent, pages)
        job.pages_sent = max(job.pages_sent, attempt.pages_sent)
    if update.state is State.PROGRESS:
        _progress(entry, update)
    elif update.state is State.DELIVERED:
        _delivered(entry, update)
    elif update.state is State.FAILED:
        _failed(entry, update)


def _of_the_whole(update: Update, attempt: Attempt) -> Update:
    """A carrier counts the pages of its own call; those before were confirmed in an earlier one."""
    if update.pages_sent is None:
        return update
    return replace(update, pages_sent=update.pages_sent + attempt.first_page - 1)


def _progress(entry: Entry, update: Update) -> None:
    attempt = entry.attempt
    name = f"{attempt.number}:progress:{update.key or attempt.pages_sent}".encode(
        errors="backslashreplace"
    )
    entry.record(
        Event.PROGRESS,
        pages_sent=attempt.pages_sent,
        # Hashed: a carrier's words may be long, and may be anything.
        key=hashlib.sha256(name).hexdigest(),
        occurred_at=update.occurred_at,
    )


def _delivered(entry: Entry, update: Update) -> None:
    job, attempt = entry.job, entry.attempt
    if _is_short(entry, update):
        # "Done" with fewer pages than we sent is not delivered.
        _failed(entry, Update(State.FAILED, cause="unconfirmed", occurred_at=update.occurred_at))
        return
    entry.end("delivered", None)
    ladder.worked(entry.session, job, attempt, entry.now, entry.numbers)
    attempt.pages_sent = job.pages_sent = job.pages or attempt.pages_sent
    entry.record(
        Event.DELIVERED,
        Status.DELIVERED,
        pages_sent=job.pages_sent,
        occurred_at=update.occurred_at,
    )


def _is_short(entry: Entry, update: Update) -> bool:
    pages = entry.job.pages
    return update.pages_sent is not None and pages is not None and update.pages_sent < pages


def _failed(entry: Entry, update: Update) -> None:
    cause = canonical(update.cause)
    entry.end("cancelled" if cause == "cancelled" else "failed", cause)
    _follow(entry, _decide(entry, End.FAILED, cause), cause, occurred_at=update.occurred_at)


def _follow(
    entry: Entry, decision: retry.Decision, cause: str, *, occurred_at: datetime | None = None
) -> None:
    """Carry out a decision about a fax whose attempt is over and delivered nothing."""
    job = entry.job
    job.lease_until, job.reason = None, cause
    reason = None
    if not isinstance(decision, retry.GiveUp):
        doubtful = doubt(entry.session, job)
        decision = decision if doubtful is None else retry.Hold(doubtful)
    if job.cancel_requested_at is not None:
        event, status = Event.CANCELLED, Status.CANCELLED
    elif isinstance(decision, retry.Again):
        event, status = Event.RETRYING, Status.RETRYING
        entry.again_at(decision.at)
        job.attempts_at_most = None if decision.left is None else job.attempts + decision.left
    elif isinstance(decision, retry.Hold):
        event, status = Event.HELD, Status.HELD
        job.reason = reason = decision.reason
        entry.again_at(entry.later(entry.config.held_check_seconds))
    else:
        # The cause of the last try stays what people read: "busy" says more than "exhausted".
        event, status = Event.FAILED, Status.FAILED
        reason = "exhausted" if decision.cause == "exhausted" else None
    entry.record(
        event,
        status,
        cause=cause,
        reason=reason,
        pages_sent=entry.attempt.pages_sent,
        occurred_at=occurred_at,
    )


_SAYS = {
    State.ACCEPTED: "accepted",
    State.PROGRESS: "accepted",
    State.DELIVERED: "delivered",
    State.FAILED: "failed",
}
_NEVER_HAD = ("refused", "absent")


def _too_late(entry: Entry, update: Update) -> None:
    """News for a final fax or an attempt that is over: kept when it contradicts, else nothing. A
    fax that may have been delivered after all, or is under way after all, is not sent again by
    itself."""
    attempt, said = entry.attempt, _SAYS.get(update.state)
    if said == "delivered" and _is_short(entry, update):
        said = "failed"
    if said == "failed" and attempt.outcome in (*_NEVER_HAD, "accepted"):
        attempt.outcome, attempt.cause = "failed", canonical(update.cause)
    agrees = said == attempt.outcome or (said == "failed" and attempt.outcome == "cancelled")
    late = said == "accepted" and attempt.outcome not in _NEVER_HAD
    if said is None or agrees or late:
        return
    if said == "accepted":
        attempt.outcome, attempt.accepted_at = "accepted", entry.now
        entry.count()
    new = entry.record(
        Event.ANOMALY,
        cause=update.cause,
        reason=f"said_{said}",
        pages_sent=update.pages_sent,
        key=f"{attempt.number}:said:{said}",
        occurred_at=update.occurred_at,
    )
    if new:
        hold_back(entry)


def hold_back(entry: Entry) -> None:
    """Keep a fax that waits for its next try from it where that might be a second fax. One that a
    person holds stays so: it is asked for when he lets it go."""
    job = entry.job
    if Status(job.status) not in (*CLAIMABLE, Status.HELD):
        return
    if job.status == Status.HELD and job.reason == ASKED:
        return
    reason = doubt(entry.session, job)
    if reason is None:
        return
    job.lease_until, job.reason = None, reason
    entry.again_at(entry.later(entry.config.held_check_seconds))
    if job.status != Status.HELD:
        entry.record(Event.HELD, Status.HELD, reason=reason)


def doubt(session: Session, job: Job) -> str | None:
    """Why a further try might be a second fax, of a fax whose attempts are over: one of them is said
    to be delivered, or to be under way all the same; None where nothing says so."""
    session.flush()
    said = sa.exists().where(FaxEvent.job_id == job.id, FaxEvent.type == Event.ANOMALY)
    if session.scalar(sa.select(said.where(FaxEvent.reason == SAID_DELIVERED))):
        return SAID_DELIVERED
    under_way = sa.exists().where(Attempt.job_id == job.id, Attempt.outcome == "accepted")
    twice = said.where(FaxEvent.reason == SECOND_NAME, FaxEvent.attempt == job.attempts)
    return SAID_ACCEPTED if session.scalar(sa.select(sa.or_(under_way, twice))) else None


def _luck() -> float:
    return random.random()  # noqa: S311 - spreads load over time, guards nothing
