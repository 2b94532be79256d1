"""What carriers have of a fax that waits in a restored ledger, and may have been sent after the backup.

Its next tries would have had certain tags (restored.tag_of), and each provider that may have called is asked for them.
What is found is entered as the attempt that it was, and goes on from there. That there is nothing lets the fax go only
where absence is proof, as for an uncertain one: told twice, when every call of before is over for sure, of every try
that there may have been, of everybody who may have called. Else the fax stays on hold, and a person finds out. Its
deadline does not end it before: that would say that it was not sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from faxbot import asking, audit, claims, jobs, ladder, outcomes, restored, routing
from faxbot.actors import Actor
from faxbot.audit import Action
from faxbot.db import UtcDateTime, first_id, new_id, table
from faxbot.errors import ConfigError
from faxbot.events import Event, Status
from faxbot.models import IS_OPEN, Attempt, Job
from faxbot.outcomes import Entry
from faxbot.plugins.base import State, TransportPlugin, Update
from faxbot.restored import Restore
from faxbot.results import locked
from faxbot.runtime import Runtime

FOUND = "found_at_carrier"
ABSENT = "absent"
"""With the time of the restore: all carriers have said it once since then."""
RECENT = timedelta(days=1)
"""A version whose tags nobody knows would have called within this time before the backup."""
MOST_RELEASES = 8
"""By the tag of an attempt no more are known."""


def recall(runtime: Runtime, held: Job) -> None:
    """Ask for the tries of a fax that is held as restored.REASON, and go by the answers."""
    asked_at = runtime.now()
    restore = runtime.restores.notice(asked_at)
    if restore is None or not runtime.restores.doubts(held, asked_at):
        _release(runtime, held)  # people have said that nothing was lost
        return
    providers = _providers(runtime, held)
    all_absent = _ask_for_tries(runtime, held, restore, providers)
    if all_absent is None:
        return
    over = restore.ahead is not None and asked_at >= _calls_over(runtime, restore)
    if not (all_absent and over and _is_proof(runtime, held, providers, restore)):
        _look_again(runtime, held, _wait(runtime, held, asked_at))
    elif held.waiting != (absent := f"{ABSENT}:{restore.at:%Y%m%dT%H%M%S.%f}"):
        wait = timedelta(seconds=runtime.config.look_up_seconds)
        _look_again(runtime, held, wait, absent)
    else:
        _release(runtime, held)


def _ask_for_tries(
    runtime: Runtime, held: Job, restore: Restore, providers: list[str]
) -> bool | None:
    """Whether all carriers say of all tries that they have none of them; None where there is no more to do: one was
    found and entered, or somebody else has the fax now."""
    silent: set[str] = set()
    for this in _tries(runtime, held, restore, providers):
        if this.provider_id in silent:
            continue  # who does not answer now is asked later; each question may take long
        if not _take_turn(runtime, held):
            return None
        update = _ask(runtime, held, this)
        if update is None:
            silent.add(this.provider_id)
        elif update.state is not State.ABSENT:
            _enter(runtime, held, this, update)
            return None
    return not silent


def _calls_over(runtime: Runtime, restore: Restore) -> datetime:
    """When every call of before is over for sure, and listed: a worker may begin as late as its lease allows."""
    config = runtime.config
    longest = config.lease_seconds + config.provider_call_seconds + config.settle_seconds
    return restore.at + timedelta(seconds=longest)


def _wait(runtime: Runtime, held: Job, asked_at: datetime) -> timedelta:
    """Until the next look: soon at first, then ever more seldom, as for an uncertain fax."""
    unit = timedelta(seconds=runtime.config.look_up_seconds)
    return min(max((asked_at - held.updated_at) / 2, unit), outcomes.LOOKS[-1] * unit)


def declare(runtime: Runtime, actor: Actor) -> None:
    """A person says that this ledger was restored: every fax that is not final is in doubt. Raises DatabaseAway."""
    now = runtime.now()
    with runtime.database.writing() as connection:
        runtime.restores.note(connection, now)
        audit.record(connection, actor, Action.LEDGER_RESTORED, now=now)


def deny(runtime: Runtime, actor: Actor) -> None:
    """A person says that nothing was lost on the way to where this ledger lies now: no fax is in doubt any more, and
    those that were held for it go. Raises DatabaseAway."""
    now = runtime.now()
    with runtime.database.writing() as connection:
        runtime.restores.deny(connection, now)
        connection.execute(_WAKE, {"now": now})
        audit.record(connection, actor, Action.LEDGER_COMPLETE, now=now)


def waiting(runtime: Runtime) -> int:
    """How many faxes wait until it is known whether they were sent; MOST of more. Raises DatabaseAway."""
    row = runtime.database.row(_WAITING, {})
    return row.faxes if row is not None else 0


MOST = 1000
_IS_HELD = sa.and_(sa.text(IS_OPEN), Job.status == Status.HELD.value, Job.reason == restored.REASON)
_WAKE = (
    sa.update(table(Job))
    .where(_IS_HELD)
    .values(next_at=sa.bindparam("now", type_=UtcDateTime), rung_at=None)
)
_WAITING = sa.select(sa.func.count().label("faxes")).select_from(
    sa.select(Job.id).where(_IS_HELD).limit(MOST).subquery()
)


def _providers(runtime: Runtime, held: Job) -> list[str]:
    """Who is asked: all that may see this fax, because it may have been another's turn then, and who had it last."""
    before = [held.provider_id] if held.provider_id else []
    return list(dict.fromkeys([*runtime.config.providers_for(held.wanted_provider_id), *before]))


def _tries(
    runtime: Runtime, held: Job, restore: Restore, providers: list[str]
) -> Iterator[Attempt]:
    """Those that there may have been, as they would have been made: of this ledger, and of one that was restored from
    the same backup before, in which a person has released the fax."""
    known = runtime.restores.releases(held, runtime.now())
    ahead = restore.ahead or restored.MOST_AHEAD
    for number in range(held.attempts + 1, held.attempts + ahead + 1):
        for provider_id in providers:
            for releases in sorted({0, known, known + 1}):  # 0: nothing was in doubt any more
                tag = restored.tag_of(held.id, number, releases)
                yield _attempt(runtime, held, number, provider_id, tag, restore)


def _attempt(
    runtime: Runtime, held: Job, number: int, provider_id: str, tag: str, restore: Restore
) -> Attempt:
    now = runtime.now()
    return Attempt(
        id=new_id(now),
        account_id=held.account_id,
        job_id=held.id,
        number=number,
        provider_id=provider_id,
        tag=tag,
        fence=held.fence,
        outcome="open",
        counted=False,
        pages_sent=0,
        looks=0,
        absences=0,
        intended_at=max(restore.backup_at, held.created_at) - restored.CLOCKS,
    )


def _take_turn(runtime: Runtime, held: Job) -> bool:
    """Have the fax to oneself for one question more: nobody else asks meanwhile, and who vanishes costs only time.
    Whether it is as it was."""
    now = runtime.now()
    question = timedelta(seconds=runtime.config.provider_call_seconds + asking.MARGIN)
    if held.next_at is not None and held.next_at - now >= question:
        return True  # most answers come at once: one turn is enough for many
    values = {"job_id": held.id, "mine": held.next_at, "until": now + 2 * question}
    if runtime.database.row(_TAKE_TURN, values) is None:
        return False
    held.next_at = now + 2 * question
    return True


_JOBS = table(Job)
_TAKE_TURN = (
    sa.update(_JOBS)
    .where(
        _JOBS.c.id == sa.bindparam("job_id"),
        _JOBS.c.status == Status.HELD.value,
        _JOBS.c.reason == restored.REASON,
        _JOBS.c.next_at == sa.bindparam("mine", type_=UtcDateTime),
    )
    .values(next_at=sa.bindparam("until", type_=UtcDateTime))
    .returning(_JOBS.c.id)
)


def _ask(runtime: Runtime, held: Job, this: Attempt) -> Update | None:
    def question(provider: TransportPlugin) -> Update:
        return provider.look_up(this.tag, to=jobs.number(runtime, held), since=this.intended_at)

    return asking.ask(runtime, this, question)


def _is_proof(runtime: Runtime, held: Job, providers: list[str], restore: Restore) -> bool:
    """Whether what none of these has was never sent: each says so for sure, and speaks for the account that it called
    for before; nobody else could have called; and the attempts of before had such tags."""
    if not providers:
        return False
    for provider_id in providers:
        if not runtime.plugins.has(provider_id, "absence_is_proof"):
            return False
        last = runtime.database.row(_LAST_CALL, {"provider_id": provider_id, "at": restore.at})
        if last and not routing.is_set_as(runtime, provider_id, last.settings_hash):
            return False
    since = {"first": first_id(restore.backup_at - RECENT), "next": first_id(restore.at)}
    made = runtime.database.rows(_RECENT, since)
    callers = _set_up(runtime) | {each.provider_id for each in made}
    if held.wanted_provider_id is None and not callers <= set(providers):
        return False
    return all(map(_is_derived, made))


def _set_up(runtime: Runtime) -> set[str]:
    """Who could send faxes, as this ledger knows it: after the backup it may have been anybody's turn. Who may not see
    the fax now is not asked all the same, for the question names its number."""
    return {
        manifest.id
        for manifest in runtime.plugins.manifests()
        if manifest.has("send_fax") and _is_set_up(runtime, manifest.id)
    }


def _is_set_up(runtime: Runtime, provider_id: str) -> bool:
    try:
        runtime.plugins.settings(provider_id)
    except ConfigError:
        return False
    return True


def _is_derived(made: sa.Row[Any]) -> bool:
    known = (restored.tag_of(made.job_id, made.number, each) for each in range(MOST_RELEASES))
    return made.tag in known


_ATTEMPTS = table(Attempt).c
_LAST_CALL = (
    sa.select(_ATTEMPTS.settings_hash)
    .where(
        _ATTEMPTS.provider_id == sa.bindparam("provider_id"),
        _ATTEMPTS.answered_at < sa.bindparam("at", type_=UtcDateTime),
    )
    .order_by(_ATTEMPTS.answered_at.desc())
    .limit(1)
)
_RECENT = (
    sa.select(_ATTEMPTS.job_id, _ATTEMPTS.number, _ATTEMPTS.tag, _ATTEMPTS.provider_id)
    .where(_ATTEMPTS.id >= sa.bindparam("first"), _ATTEMPTS.id < sa.bindparam("next"))
    .order_by(_ATTEMPTS.id.desc())
    .limit(1000)
)


def _enter(runtime: Runtime, held: Job, this: Attempt, update: Update) -> None:
    """Write down what was lost with the old ledger: this attempt was made, and the carrier has it."""
    now = runtime.now()
    way = ladder.way(runtime, held, runtime.plugins.manifest(this.provider_id), held.pages or 1)
    this.step, this.first_page = way.step, way.first_page
    this.settings_hash = routing.settings_hash(runtime, this.provider_id)
    with runtime.database.transaction() as session:
        job = locked(session, held.id)
        if not _is_so(job, held):
            return
        job.attempts = this.number
        job.provider_id, job.external_id, job.reason = this.provider_id, None, None
        job.next_at = now
        session.add(this)
        entry = Entry(session, runtime, job, this, now, "look_up")
        entry.record(Event.RELEASED, Status.QUEUED, reason=FOUND)
        entry.record(Event.SUBMITTING, Status.SUBMITTING)
        outcomes.news(entry, update)


def _look_again(runtime: Runtime, held: Job, wait: timedelta, waiting: str | None = None) -> None:
    with runtime.database.transaction() as session:
        job = locked(session, held.id)
        if _is_so(job, held):
            job.waiting, job.next_at = waiting, runtime.now() + wait


def _release(runtime: Runtime, held: Job) -> None:
    now = runtime.now()
    with runtime.database.transaction() as session:
        job = locked(session, held.id)
        if not _is_so(job, held):
            return
        is_due = claims.let_go(session, job, now, "look_up")
    if is_due:
        claims.announce(runtime, Status.QUEUED, held.id, now)


def _is_so(job: Job, held: Job) -> bool:
    """Whether nobody has looked at it, or changed it, meanwhile."""
    return (job.status, job.reason, job.next_at) == (held.status, held.reason, held.next_at)
