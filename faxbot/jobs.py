"""Jobs: submit, find, list, describe, cancel. The row is the ledger and its own outbox; the bell
only saves time."""

from __future__ import annotations

import hmac
import json
import re
from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from faxbot import artifacts, audit, claims, limits, phone
from faxbot.actors import Actor
from faxbot.artifacts import Upload
from faxbot.audit import Action
from faxbot.crypto import Keyring, Unsealable
from faxbot.db import UtcDateTime, first_id, inserts, new_id, table
from faxbot.errors import (
    FaxRemoved,
    InvalidFields,
    KeyInFlight,
    KeyReused,
    Malformed,
    NotFound,
    NotPossibleNow,
    PagesPerDay,
)
from faxbot.events import AFTER_INTENT, CAUSES, TERMINAL, Event, Status
from faxbot.explanation import explain
from faxbot.hidden import Hidden
from faxbot.models import IS_END, Artifact, FaxEvent, IdempotencyKey, Job, JobRow, JobTag
from faxbot.results import append, event_row, locked, record_event, stamp
from faxbot.runtime import Runtime

ROUTE, RESEND = "POST /fax/send", "POST /fax/resend"
"""By which requests faxes are made: each has Idempotency-Keys of its own."""
KEY_LIFE = timedelta(days=31)
PRIORITY = 128


@dataclass(frozen=True, slots=True)
class Repeat:
    """That a fax is a fax sent once more: which one, how that one ended, and the whole request for it, in which no
    document needs to be named."""

    job_id: str
    status: str
    request: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What a client asks for, validated; `to` is E.164."""

    to: Hidden[str]
    uploads: tuple[Upload, ...]
    resolution: str = "fine"
    priority: int = PRIORITY
    header: Hidden[str] = Hidden("")
    tags: dict[str, str] = field(default_factory=dict, repr=False)
    send_at: datetime | None = None
    expires_at: datetime | None = None
    provider_id: str | None = None
    repeats: Repeat | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What to reply: HTTP status and body, and whether they are a replay of the first reply."""

    status: int
    body: bytes = field(repr=False)
    replayed: bool
    job_id: str


def no_body(_job: JobRow) -> bytes:
    """The first reply of who wants nothing but the fax's id."""
    return b""


# Submitting ---------------------------------------------------------------------------------------------------------


def submit(
    runtime: Runtime,
    actor: Actor,
    submission: Submission,
    *,
    key: str | None,
    present: Callable[[JobRow], bytes] = no_body,
) -> Answer:
    """Record a fax: idempotency row, job and first event in one transaction; then ring the bell.

    `present` gives the body of the first reply. The same key with the same request gives that
    reply again, byte for byte, or, once retention has removed the number, what it gives then;
    FaxRemoved where nothing is left of the fax. With another request KeyReused; while the first is in flight
    KeyInFlight at once. Raises DatabaseAway, StorageAway, InvalidFields, PagesPerDay, DocumentTooLarge.
    """
    now = runtime.now()
    job_id = new_id(now)
    documents: list[dict[str, Any]] = []
    unwanted = True
    try:
        for position, upload in enumerate(submission.uploads):
            documents.append(
                artifacts.store(
                    runtime,
                    upload,
                    owner={"job_id": job_id},
                    account_id=actor.account_id,
                    role="document",
                    position=position,
                    now=now,
                )
            )
        # Sealed behind what may take long: who brings a new master key into use waits for nobody for ever.
        values = _new_job(runtime, actor, submission, job_id, now)
        rows = artifacts.to_insert(runtime, documents)
        job = _as_row(values)
        body = present(job)
        with runtime.database.writing() as connection:
            if key is not None:
                first = _remember(runtime, connection, actor, submission, key, job, body, now)
                if first is not None:
                    return _again(runtime, connection, first, present)
            _check(runtime, submission, now)
            _insert(connection, job, values, rows)
            if submission.repeats is not None:
                _write_down(connection, actor, submission.repeats, job)
            limits.pages(runtime, connection, job.account_id, job.pages or 0, now)
            # From here on the commit decides, and its answer may be lost on the way to us: a fax
            # without its document would be worse than a document without its fax.
            unwanted = False
    except PagesPerDay:
        limits.tell_of_pages(runtime, actor.account_id, now)
        raise
    finally:
        if unwanted:
            artifacts.discard(runtime, documents)
    artifacts.settle(runtime, documents)
    if job.next_at is not None and job.next_at <= now:
        urgency = runtime.shares.urgency(job.account_id, job.priority)
        claims.announce(runtime, Status.QUEUED, job.id, now, urgency)
    return Answer(202, body, False, job.id)


def _write_down(connection: Connection, actor: Actor, repeats: Repeat, job: JobRow) -> None:
    """Who sends a fax is in its row; that one is sent once more, whatever became of it, is a deed."""
    details = {"status": repeats.status, "as": job.id}
    audit.record(
        connection,
        actor,
        Action.FAX_RESENT,
        ("fax", repeats.job_id),
        now=job.created_at,
        details=details,
    )


def _check(runtime: Runtime, submission: Submission, now: datetime) -> None:
    """Raise InvalidFields for what changes with time and settings; asked behind the key, because a
    repeat gets its first answer however late it comes."""
    if submission.provider_id not in (None, *runtime.config.provider_ids):
        raise InvalidFields(
            errors={"provider_id": ["is not an active provider of this server (FAX_BACKENDS)"]}
        )
    if submission.expires_at is not None and submission.expires_at <= now:
        raise InvalidFields(errors={"expires_at": ["lies in the past"]})


def _new_job(
    runtime: Runtime, actor: Actor, submission: Submission, job_id: str, now: datetime
) -> dict[str, Any]:
    keyring, account = runtime.keyring.still(), actor.account_id
    header = submission.header.reveal() or runtime.config.fax_header
    due = max(submission.send_at or now, now)
    return {
        "id": job_id,
        "account_id": account,
        "created_by": actor.id,
        "status": Status.QUEUED.value,
        "reason": None,
        "to_sealed": keyring.seal(submission.to.reveal().encode(), f"jobs.to:{account}"),
        "to_key": number_key(keyring, submission.to),
        "header_sealed": keyring.seal(header.encode(), f"jobs.header:{account}")
        if header
        else None,
        "resolution": submission.resolution,
        "priority": submission.priority,
        "tags": submission.tags,
        "wanted_provider_id": submission.provider_id,
        "provider_id": None,
        "external_id": None,
        "pages": sum(upload.pages for upload in submission.uploads),
        "pages_sent": 0,
        "attempts": 0,
        "attempts_at_most": None,
        "tries": 0,
        "faults": 0,
        "deaths": 0,
        "waiting": None,
        "resend_of": submission.repeats and submission.repeats.job_id,
        "send_at": submission.send_at,
        "expires_at": submission.expires_at,
        "next_at": min(due, submission.expires_at or due),
        "rung_at": now,
        "lease_until": None,
        "fence": 0,
        "cancel_requested_at": None,
        "last_sequence": 1,
        "created_at": now,
        "updated_at": now,
        "purged_at": None,
        "legal_hold_at": None,
    }


def number_key(keyring: Keyring, number: Hidden[str]) -> str:
    """The keyed hash under which a number is found (`to_key`)."""
    return keyring.keyed_hash(number.reveal().encode(), "number")


def keys_of_number(runtime: Runtime, number: Hidden[str]) -> tuple[str, ...]:
    """All of them: two while the master key is changed."""
    return runtime.keyring.hashes(number.reveal().encode(), "number")


def number_keys(keyring: Keyring, job: Job | JobRow) -> tuple[str, ...]:
    """The keyed hashes under which rows about the number of this fax may stand, always in the same order."""
    if keyring.rotates:
        with suppress(Unsealable):
            place = f"jobs.to:{job.account_id}"
            return keyring.hashes(keyring.open(job.to_sealed, place), "number")
    return (job.to_key,)


def keys_beside(runtime: Runtime, actor: Actor, to_key: str) -> tuple[str, ...]:
    """The same for a `to_key` that somebody gives."""
    if runtime.keyring.rotates:
        row = runtime.database.row(_TO, {"account_id": actor.account_id, "to_key": to_key})
        if row is not None:
            return number_keys(runtime.keyring, row)
    return (to_key,)


_TO = (
    sa.select(Job.account_id, Job.to_sealed, Job.to_key)
    .where(Job.account_id == sa.bindparam("account_id"), Job.to_key == sa.bindparam("to_key"))
    .limit(1)
)


# Made once: building a statement costs more than running it.
_INSERT_JOB = sa.insert(table(Job)).inline()
_INSERT_ARTIFACT = sa.insert(table(Artifact)).inline()
_INSERT_TAGS = sa.insert(table(JobTag)).inline()


def _as_row(values: dict[str, Any]) -> JobRow:
    """A new fax as it will be read: its values by name."""
    return cast(JobRow, SimpleNamespace(**values))


def _insert(
    connection: Connection, job: JobRow, values: dict[str, Any], documents: list[dict[str, Any]]
) -> None:
    connection.execute(_INSERT_JOB, values)
    first = event_row(job, Event.QUEUED, now=job.created_at, source="api", status=Status.QUEUED)
    append(connection, first)
    for document in documents:
        connection.execute(_INSERT_ARTIFACT, document)
    if job.tags:
        rows = [
            {"job_id": job.id, "account_id": job.account_id, "name": name, "value": value}
            for name, value in job.tags.items()
        ]
        connection.execute(_INSERT_TAGS, rows)


def _remember(
    runtime: Runtime,
    connection: Connection,
    actor: Actor,
    submission: Submission,
    key: str,
    job: JobRow,
    body: bytes,
    now: datetime,
) -> sa.Row[Any] | None:
    """Insert the key's row, or give the one that is there. Raises KeyInFlight, KeyReused."""
    keyring = runtime.keyring.still()
    route, request = ROUTE, _request(submission)
    if submission.repeats is not None:
        route, request = RESEND, submission.repeats.request
    known = _hashes(keyring, actor, route, key, request)
    # A second insert of a key would wait for the first one's commit: ask without waiting, and say "in flight".
    if not runtime.database.try_lock(connection, next(iter(known))):
        raise KeyInFlight
    if len(known) > 1:
        first = connection.execute(_first(actor, route, known)).first()
        if first is not None:
            return _same(first, known)
    row = {
        "account_id": actor.account_id,
        "route": route,
        "key_hash": keyring.keyed_hash(_name(actor, route, key), "idempotency-key"),
        "fingerprint": keyring.keyed_hash(request, "fingerprint"),
        "job_id": job.id,
        "response_status": 202,
        "response_sealed": keyring.seal(body, answer_place(actor.account_id)),
        "created_at": now,
        "expires_at": now + KEY_LIFE,
    }
    while connection.scalar(_REMEMBER[connection.dialect.name], row) is None:
        first = connection.execute(_first(actor, route, known)).first()
        if first is not None:  # else retention has removed it between the two statements
            return _same(first, known)
    return None


def answered(
    runtime: Runtime, actor: Actor, key: str, request: bytes, present: Callable[[JobRow], bytes]
) -> Answer | None:
    """What submit() answers to a repeat of this request to send a fax once more; None where it is none, as far as this
    moment tells. Raises KeyReused, FaxRemoved."""
    known = _hashes(runtime.keyring.still(), actor, RESEND, key, request)
    with runtime.database.reading() as session:
        first = session.execute(_first(actor, RESEND, known)).first()
        return None if first is None else _again(runtime, session, _same(first, known), present)


def _name(actor: Actor, route: str, key: str) -> bytes:
    return f"{actor.account_id}\n{route}\n{key}".encode()


def _hashes(keyring: Keyring, actor: Actor, route: str, key: str, request: bytes) -> dict[str, str]:
    """By the hashes of the key those of the request: several after the master key was changed."""
    return dict(
        zip(
            keyring.hashes(_name(actor, route, key), "idempotency-key"),
            keyring.hashes(request, "fingerprint"),
            strict=True,
        )
    )


def _first(actor: Actor, route: str, known: Iterable[str]) -> sa.Select[Any]:
    return sa.select(table(IdempotencyKey)).where(
        IdempotencyKey.account_id == actor.account_id,
        IdempotencyKey.route == route,
        IdempotencyKey.key_hash.in_(known),
    )


def _same(first: sa.Row[Any], known: Mapping[str, str]) -> sa.Row[Any]:
    if not hmac.compare_digest(first.fingerprint, known[first.key_hash]):
        raise KeyReused
    return first


def _again(
    runtime: Runtime,
    held: Session | Connection,
    first: sa.Row[Any],
    present: Callable[[JobRow], bytes],
) -> Answer:
    """The first reply; where retention has removed it, the fax as it stands. Raises FaxRemoved."""
    place = answer_place(first.account_id)
    body = runtime.keyring.still().open(first.response_sealed, place)
    if not body:
        job = held.execute(_FIND, {"job_id": first.job_id}).first()
        if job is None:
            raise FaxRemoved(
                f"the fax of this Idempotency-Key was {first.job_id}; nothing of it is kept, and nothing is sent anew"
            )
        body = present(job)
    return Answer(first.response_status, body, True, first.job_id)


def answer_place(account_id: str) -> str:
    """Where first answers are sealed to (Keyring.seal)."""
    return f"idempotency_keys.response:{account_id}"


_REMEMBER = {
    dialect: insert.on_conflict_do_nothing().returning(table(IdempotencyKey).c.job_id)
    for dialect, insert in inserts(IdempotencyKey).items()
}


def _request(submission: Submission) -> bytes:
    """Everything that makes the request what it is; kept as a keyed hash, because a number is
    easily guessed."""
    request = [
        submission.to.reveal(),
        [upload.sha256 for upload in submission.uploads],
        submission.resolution,
        submission.priority,
        submission.header.reveal(),
        sorted(submission.tags.items()),
        stamp(submission.send_at),
        stamp(submission.expires_at),
        submission.provider_id,
    ]
    return json.dumps(request).encode()


# Reading ------------------------------------------------------------------------------------------------------------


def find(runtime: Runtime, actor: Actor, job_id: str) -> JobRow:
    """The actor's fax; raises NotFound, the same for a foreign id and an unknown one."""
    row = runtime.database.row(_FIND, {"job_id": job_id}) if _ID.fullmatch(job_id) else None
    if row is None or row.account_id != actor.account_id:
        raise NotFound("there is no fax with this id")
    return _as_read(row)


def _as_read(row: sa.Row[Any]) -> JobRow:
    return cast(JobRow, _Row._make(row))


_Row: Any = namedtuple("_Row", table(Job).columns.keys())  # type: ignore[misc] # as many as the table has
"""Asked for a word of it, SQLAlchemy's own row takes fifteen times as long (measured), and who describes a fax asks for
forty."""
_ID = re.compile(r"[0-9a-f]{32}")
_FIND = sa.select(table(Job)).where(Job.id == sa.bindparam("job_id"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which faxes a list shows; None means all."""

    statuses: tuple[str, ...] = ()
    """Any of these; empty: all."""
    provider_id: str | None = None
    to_keys: tuple[str, ...] = ()
    """Of one number; empty: all."""
    since: datetime | None = None
    until: datetime | None = None
    """Of when they were made."""
    ended_since: datetime | None = None
    """Those that are over, and ended then or later."""
    tags: dict[str, str] = field(default_factory=dict)


def page(
    runtime: Runtime, actor: Actor, filters: Filters, *, limit: int, cursor: str | None
) -> tuple[list[JobRow], str | None]:
    """Up to `limit` faxes, newest first, and the cursor of the next page (None at the end). With `ended_since` the
    last to end comes first: by their ids, all that were made before would have to be looked through.

    Keyset over the time-ordered id, or over the time of the end: no OFFSET, no COUNT. Raises
    Malformed for a cursor that is not ours.
    """
    if cursor is not None and not _ID.fullmatch(cursor):
        raise Malformed("`cursor` is not one that this server gave")
    asked = _asked(actor, filters, cursor, limit + 1)
    rows = runtime.database.rows(_listing(frozenset(asked)), asked)
    found = [_as_read(row) for row in rows]
    return found[:limit], found[limit - 1].id if len(found) > limit else None


def _asked(actor: Actor, filters: Filters, cursor: str | None, rows: int) -> dict[str, Any]:
    """What _listing() asks for: that which is not None, and of what there may be several each by its number."""
    statuses = filters.statuses or (_FINAL if filters.ended_since else ())
    asked = {
        "account_id": actor.account_id,
        "rows": rows,
        "before": cursor,
        "ended_since": filters.ended_since,
        "provider_id": filters.provider_id,
        "since": filters.since and first_id(filters.since),
        "until": filters.until and first_id(filters.until),
    }
    for name, several in (
        ("status", statuses),
        ("to_key", filters.to_keys),
        ("tag", filters.tags),
        ("value", filters.tags.values()),
    ):
        asked |= {f"{name}_{number}": value for number, value in enumerate(several)}
    return {name: value for name, value in asked.items() if value is not None}


@lru_cache(maxsize=256)
def _listing(asked: frozenset[str]) -> sa.Select[Any]:
    """The list for what _asked() has. Made once: building it takes half as long as asking it (measured)."""
    # Each status by itself, from its end of the index: of several at once, of which few faxes are, a database reads
    # all faxes that are in none of them.
    statuses = _several("status", asked)
    if "ended_since" in asked:
        return _together([_ended(asked, status) for status in statuses], "ended_at", "id")
    if len(statuses) > 1:
        return _together([_of_status(asked, status) for status in statuses], "id")
    return _of_status(asked, *statuses)


def _together(queries: list[sa.Select[Any]], *order: str) -> sa.Select[Any]:
    each = sa.union_all(*(sa.select(one.subquery()) for one in queries)).subquery()
    shown = (each.c[name] for name in table(Job).c.keys())  # noqa: SIM118 - columns are no mapping
    return _newest(sa.select(*shown), *(each.c[name] for name in order))


def _of_status(
    asked: frozenset[str], status: sa.BindParameter[Any] | None = None
) -> sa.Select[Any]:
    job = table(Job).c
    found = _conditions(asked)
    if "before" in asked:
        found.append(job.id < sa.bindparam("before"))
    if status is not None:
        found.append(job.status == status)
    return _newest(sa.select(table(Job)).where(*found), job.id)


def _ended(asked: frozenset[str], status: sa.BindParameter[Any]) -> sa.Select[Any]:
    """Those that ended so, with when: by the events with which they did, for those never change, and whoever counts
    what ended counts them. A fax that retention removes while somebody turns the pages is their last one: what ended
    before it goes as well."""
    event, last, given = table(FaxEvent).c, table(FaxEvent).alias("last").c, sa.bindparam
    place = sa.tuple_(event.recorded_at, event.job_id)
    found: list[sa.ColumnElement[bool]] = [
        _IS_END,
        event.account_id == given("account_id"),
        event.status == status,
        event.recorded_at >= given("ended_since", type_=UtcDateTime),
    ]
    if "before" in asked:
        its = sa.select(last.recorded_at, last.job_id).where(
            last.job_id == given("before"), _IS_END
        )
        found.append(place < its.scalar_subquery())
    ends = sa.select(event.job_id, event.recorded_at.label("ended_at")).where(*found).subquery()
    job = table(Job)
    query = sa.select(job, ends.c.ended_at).join_from(ends, job, job.c.id == ends.c.job_id)
    return _newest(query.where(*_conditions(asked)), ends.c.ended_at, ends.c.job_id)


_IS_END: sa.ColumnElement[bool] = sa.text(IS_END)  # type: ignore[assignment] # in its index's own words


def _conditions(asked: frozenset[str]) -> list[sa.ColumnElement[bool]]:
    """What a fax of the list must be, beside its status and its place."""
    job, tag, given = table(Job).c, table(JobTag).c, sa.bindparam
    to_keys = _several("to_key", asked)
    conditions = {
        "account_id": job.account_id == given("account_id"),
        "provider_id": job.provider_id == given("provider_id"),
        "since": job.id >= given("since"),
        "until": job.id < given("until"),
    }
    found = [condition for name, condition in conditions.items() if name in asked]
    if to_keys:
        found.append(job.to_key.in_(to_keys))
    for name, value in zip(_several("tag", asked), _several("value", asked), strict=True):
        tagged = sa.select(tag.job_id).where(
            tag.account_id == given("account_id"), tag.name == name, tag.value == value
        )
        found.append(job.id.in_(tagged))
    return found


def _several(name: str, asked: frozenset[str]) -> list[sa.BindParameter[Any]]:
    numbers = range(sum(each.startswith(f"{name}_") for each in asked))
    return [sa.bindparam(f"{name}_{number}") for number in numbers]


def _newest(query: sa.Select[Any], *order: sa.ColumnElement[Any]) -> sa.Select[Any]:
    newest = (each.desc() for each in order)
    return query.order_by(*newest).limit(sa.bindparam("rows", type_=sa.Integer))


def number(runtime: Runtime, job: Job | JobRow) -> Hidden[str]:
    """The destination; raises Unsealable."""
    place = f"jobs.to:{job.account_id}"
    return Hidden(runtime.keyring.open(job.to_sealed, place).decode())


def header(runtime: Runtime, job: Job | JobRow) -> Hidden[str]:
    """The header text, empty when there is none; raises Unsealable."""
    if job.header_sealed is None:
        return Hidden("")
    place = f"jobs.header:{job.account_id}"
    return Hidden(runtime.keyring.open(job.header_sealed, place).decode())


def _continues(runtime: Runtime, job: Job | JobRow) -> bool:
    """Whether its next call is sure to leave out the pages that are confirmed (ladder.way), as far as its row tells:
    another provider would send them all, and so would the same one after a person said that nothing went out."""
    provider_id = job.provider_id
    if job.status != Status.RETRYING or not (provider_id and job.pages_sent):
        return False
    if not runtime.config.continue_faxes or job.reason == "unconfirmed":
        return False
    may_take_it = runtime.config.providers_for(job.wanted_provider_id)
    # Behind a first call that was taken it stays where it is; a later one may have been refused (routing).
    stays = provider_id in may_take_it and (job.attempts == 1 or len(may_take_it) == 1)
    return stays and runtime.plugins.has(provider_id, "confirms_pages")


def describe(runtime: Runtime, job: Job | JobRow, *, masked: bool = False) -> dict[str, Any]:
    """The fax as the API shows it, in plain JSON types; `masked` hides the number."""
    return {
        "id": job.id,
        "to": _shown(runtime, job, masked=masked),
        "to_key": job.to_key or None,
        "status": job.status,
        "status_reason": job.reason,
        "explanation": explain(job, runtime.now(), continues=_continues(runtime, job)),
        "provider_id": job.provider_id,
        "external_id": job.external_id,
        "pages": job.pages,
        "pages_sent": job.pages_sent,
        "resolution": job.resolution,
        "attempts": job.attempts,
        "attempts_at_most": job.attempts_at_most if job.status in _UNDER_WAY else None,
        "next_at": stamp(job.next_at),
        "send_at": stamp(job.send_at),
        "expires_at": stamp(job.expires_at),
        "priority": job.priority,
        "error": _error(job),
        "tags": job.tags,
        "resend_of": job.resend_of,
        "cancel_requested_at": stamp(job.cancel_requested_at),
        "created_at": stamp(job.created_at),
        "updated_at": stamp(job.updated_at),
        "purged_at": stamp(job.purged_at),
        "legal_hold_at": stamp(job.legal_hold_at),
        "backend": job.provider_id,
        "provider_sid": job.external_id,
    }


_FINAL = tuple(status.value for status in Status if status in TERMINAL)
_UNDER_WAY = (Status.SUBMITTING, Status.SENT, Status.RETRYING)
"""While it is in these, what was decided after its last attempt holds."""


def _shown(runtime: Runtime, job: Job | JobRow, *, masked: bool) -> str | None:
    """The number; None where it does not open."""
    try:
        to = number(runtime, job).reveal()
    except Unsealable:
        return None
    return phone.mask(to) if masked else to


def _error(job: Job | JobRow) -> dict[str, Any] | None:
    cause = CAUSES.get(job.reason or "")
    if cause is None or job.status == Status.DELIVERED:
        return None
    return {"code": cause.code, "message": cause.sentence, "retryable": cause.retryable}


# Cancelling ---------------------------------------------------------------------------------------------------------


def cancel(runtime: Runtime, actor: Actor, job_id: str) -> tuple[Job, bool]:
    """Cancel a fax: (job, True) when it ended now; (job, False) when the carrier may have it and
    the wish is kept and passed on.

    Raises NotFound, and NotPossibleNow for a fax that is final.
    """
    find(runtime, actor, job_id)
    now = runtime.now()
    with runtime.database.transaction() as session:
        job = locked(session, job_id)
        status = Status(job.status)
        if status in TERMINAL:
            raise NotPossibleNow(f"the fax is {job.status} already")
        if status in AFTER_INTENT:
            if job.cancel_requested_at is None:
                job.cancel_requested_at = now
                if status is Status.SENT:
                    job.next_at = now  # passed on by the next poll, which the sweep rings for too
                record_event(session, job, Event.CANCEL_REQUESTED, now=now, source="api")
        else:
            job.cancel_requested_at = now
            record_event(
                session, job, Event.CANCELLED, status=Status.CANCELLED, now=now, source="api"
            )
        details = {"status": str(status)}
        audit.record(
            session, actor, Action.FAX_CANCELLED, ("fax", job_id), now=now, details=details
        )
    if status is Status.SENT:
        runtime.ring(claims.TASKS[status], job.id)
    return job, status not in AFTER_INTENT
