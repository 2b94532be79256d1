"""A carrier's callback: verified and stored at the edge (receive), translated and applied in a
worker (apply).

What was stored is applied once. A callback that comes before our own commit of the carrier's
answer waits until the fax it speaks of is known; one that nobody can place in time is kept and
marked, never guessed. One that cannot be read may be all that is known of a received fax, unless its
address names an attempt, which is polled: it is read again as long as it is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from faxbot import addresses, arrivals, artifacts, claims, guard, logcontext, outcomes, posted
from faxbot.artifacts import Workspace
from faxbot.crypto import Unsealable
from faxbot.db import UtcDateTime, inserts, new_id, table
from faxbot.errors import (
    AccountRefused,
    ArtifactNotFound,
    DatabaseAway,
    FaxbotError,
    NotFound,
    PluginError,
    ProviderError,
    Unauthenticated,
    Unreachable,
)
from faxbot.events import DEFAULT_ACCOUNT
from faxbot.models import Artifact, Attempt, Callback, CallbackFax, Job
from faxbot.outcomes import Entry
from faxbot.plugins.base import Arrival, CallbackRequest, TransportPlugin, Update
from faxbot.plugins.manifest import Manifest
from faxbot.results import locked
from faxbot.runtime import Runtime

log = logging.getLogger(__name__)

TASK = "faxbot.apply_callback"
UNREADABLE, UNMATCHED, UNWANTED = "unreadable", "unmatched", "unwanted"
LONGEST_WAIT = timedelta(hours=1)
LONGEST_SILENCE = timedelta(hours=24)
"""For so long a carrier that cannot be asked about its own callback is asked again about an attempt; polls go on. And
one that is asked and does not confirm it, before nobody is told any more that something is to be mended."""
GIVEN_UP, TRIED_AT_LEAST = timedelta(days=30), 24
"""What was put off for so long, and so often, since for days nobody may have been here to try, is kept no longer than
the others."""
DAILY = timedelta(days=1)
"""Between two readings of what could not be read, or was not confirmed, and names no attempt: a mended setting or
plugin may, and a carrier may find it."""
UNCONFIRMED = "unconfirmed"
"""The cause of an Unreachable that says that the carrier was asked."""
LONGEST_PAUSE = timedelta(seconds=30)
"""Before it is seen again whether the fax of a callback is known by now."""


def expect(runtime: Runtime, head: CallbackRequest, provider_id: str | None = None) -> None:
    """Before the body is waited for: raise as receive(), or receive_from_anybody() without a `provider_id`, for what is
    refused whatever the body is. `head` is the request without it."""
    if provider_id is None:
        shown = [each for each in runtime.plugins.manifests() if _shows_proof(each, head.headers)]
        if not any(_may_be_genuine(runtime, each, head) for each in shown):
            raise _nobodys(runtime, shown)
        return
    provider = _door(runtime, provider_id)
    _admit(runtime, provider_id, head.url)
    manifest = runtime.plugins.manifest(provider_id)
    proofs = manifest.values("verify_header") or manifest.has("webhook_basic_auth")
    if proofs and not _shows_proof(manifest, head.headers):
        raise _refusal(runtime, provider_id, NOT_PROVEN)
    if manifest.has("proof_in_headers"):
        _proven(runtime, provider, provider_id, head)


def _may_be_genuine(runtime: Runtime, manifest: Manifest, head: CallbackRequest) -> bool:
    """Whether a body can make this request the carrier's, as far as its head tells."""
    if not manifest.has("proof_in_headers"):
        return True
    provider = _provider(runtime, manifest.id)
    return provider is not None and _is_genuine(provider, manifest.id, head)


def _door(runtime: Runtime, provider_id: str) -> TransportPlugin:
    """The provider that takes callbacks under this name; raises NotFound."""
    provider = _provider(runtime, provider_id)
    if provider is None or not runtime.plugins.manifest(provider_id).has("status_callback"):
        raise NotFound("no provider of this name takes callbacks here")
    return provider


def _shows_proof(manifest: Manifest, headers: Mapping[str, str]) -> bool:
    """Whether the headers hold what this provider's carrier proves itself with."""
    signed = any(name.lower() in headers for name in manifest.values("verify_header"))
    named = manifest.has("webhook_basic_auth") and "authorization" in headers
    return manifest.has("status_callback") and (signed or named)


def _nobodys(runtime: Runtime, shown: Sequence[Manifest]) -> Unauthenticated:
    """It is refused by each of these, whose proof it seemed to carry."""
    for manifest in shown:
        _refusal(runtime, manifest.id, NOT_PROVEN)
    return Unauthenticated("no provider's carrier has sent this, as far as it can be proven")


def receive(runtime: Runtime, provider_id: str, request: CallbackRequest) -> None:
    """Verify, store sealed, ring. A repeat is fine and changes nothing, unless the first could not
    be used: then it is tried once more.

    Raises NotFound for a provider that takes no callbacks here, Unauthenticated for a request that
    is not the carrier's.
    """
    provider = _door(runtime, provider_id)
    keep(runtime, provider_id, _proven(runtime, provider, provider_id, request))


def keep(runtime: Runtime, provider_id: str, request: CallbackRequest) -> None:
    """Store a proven callback, or what a listening provider heard, once; and ring."""
    now, keyring = runtime.now(), runtime.keyring.still()
    manifest = runtime.plugins.manifest(provider_id)
    packed = posted.pack(request, _which(manifest, request))
    said = posted.said(packed)
    keys = keyring.hashes(said, "callback")
    row = {
        "id": new_id(now),
        "account_id": DEFAULT_ACCOUNT,
        "provider_id": provider_id,
        "key": keyring.keyed_hash(said, "callback"),
        "raw_sealed": keyring.seal(packed, posted.PLACE),
        # The sweep takes over when the bell is lost.
        "received_at": now,
        "next_at": now + timedelta(seconds=runtime.config.ring_again_seconds),
        "tries": 0,
    }
    # While the master key is changed the first one may stand under another key than a repeat.
    keeps = manifest.has("keeps_documents")
    asks = keeps or len(keys) > 1 or request.file is not None
    try:
        known = asks and runtime.database.row(_kept(provider_id, keys), {}) is not None
    except DatabaseAway:
        if keeps:  # most are new, and the next fax may come before this is posted again
            _claim(runtime, provider_id, request)
        raise
    if keeps and not known:
        _claim(runtime, provider_id, request)
    stored = None if known else _stored(runtime, row, request)
    reopened = None if stored else runtime.database.row(_reopen(row, keys), {})
    if (callback_id := stored or (reopened and reopened.id)) is not None:
        runtime.ring(TASK, callback_id)


def _claim(runtime: Runtime, provider_id: str, request: CallbackRequest) -> None:
    """Have the plugin make its own what a new callback names on this machine; the callback is kept whatever comes of
    that."""
    try:
        runtime.plugins.get(provider_id, TransportPlugin).claim(request)
    except Exception as error:  # noqa: BLE001 - foreign code; the text may hold anything
        names = {"provider_id": provider_id, "error": type(error).__name__}
        log.error("document of a callback not claimed", extra=names)  # noqa: TRY400 - the class only


def _which(manifest: Manifest, request: CallbackRequest) -> str | None:
    """Which message this is, where a header of it says so (trait `repeat_header`)."""
    named = (request.headers.get(each.lower()) for each in manifest.values("repeat_header"))
    return next(filter(None, named), None)


def _stored(runtime: Runtime, row: dict[str, Any], request: CallbackRequest) -> str | None:
    """The id of the callback that is kept now; None where somebody has kept the same."""
    store = _STORE[runtime.database.engine.dialect.name]
    if request.file is None:
        kept = runtime.database.row(store, row)
        return kept and str(kept.id)
    bodies = posted.keep_body(runtime, request, row["id"])
    unwanted = True
    try:
        with runtime.database.writing() as connection:
            if connection.execute(store, row).first() is None:
                return None
            connection.execute(sa.insert(table(Artifact)), artifacts.to_insert(runtime, bodies))
            unwanted = False  # now the commit decides, and its answer may be lost
    finally:
        if unwanted:
            artifacts.discard(runtime, bodies)
    artifacts.settle(runtime, bodies)
    return str(row["id"])


def receive_from_anybody(runtime: Runtime, request: CallbackRequest) -> None:
    """The same for a request that names no provider: whose proof it carries, his it is. Raises
    Unauthenticated where no provider takes it."""
    unproven = []
    for manifest in runtime.plugins.manifests():
        if _shows_proof(manifest, request.headers):
            provider = _provider(runtime, manifest.id)
            if provider is not None and _is_genuine(provider, manifest.id, request):
                _admit(runtime, manifest.id, request.url)
                keep(runtime, manifest.id, request)
                return
            unproven.append(manifest)
    raise _nobodys(runtime, unproven)


def _proven(
    runtime: Runtime, provider: TransportPlugin, provider_id: str, request: CallbackRequest
) -> CallbackRequest:
    """The request with the address that its carrier was given; raises Unauthenticated."""
    _admit(runtime, provider_id, request.url)
    if _is_genuine(provider, provider_id, request):
        return request
    # A carrier signs the address that it was given, and ours may be another one since.
    elsewhere = replace(request, url=addresses.given(runtime, request.url))
    if elsewhere != request and _is_genuine(provider, provider_id, elsewhere):
        return elsewhere
    raise _refusal(runtime, provider_id, NOT_PROVEN)


def _admit(runtime: Runtime, provider_id: str, url: str) -> None:
    if not addresses.is_ours(runtime, url):
        raise _refusal(runtime, provider_id, NO_TOKEN)


NO_TOKEN, NOT_PROVEN = "no_token", "not_proven"
REFUSALS = {
    NO_TOKEN: "the address has no token of ours",
    NOT_PROVEN: "it is not proven that the carrier sent this: compare the secret that signs its callbacks",
}


def _refusal(runtime: Runtime, provider_id: str, reason: str) -> Unauthenticated:
    """Count it, for who looks why a carrier's news does not come; nothing of the request is kept."""
    runtime.tallies.refused(provider_id, reason, runtime.now())
    return Unauthenticated(REFUSALS[reason])


def _kept(provider_id: str, keys: Sequence[str]) -> sa.Select[Any]:
    return sa.select(Callback.id).where(Callback.provider_id == provider_id, Callback.key.in_(keys))


def _reopen(row: dict[str, Any], keys: Sequence[str]) -> sa.Update:
    return (
        sa.update(table(Callback))
        .where(
            Callback.provider_id == row["provider_id"],
            Callback.key.in_(keys),
            Callback.outcome.in_((UNREADABLE, UNMATCHED)),
        )
        .values(
            outcome=None,
            applied_at=None,
            received_at=row["received_at"],
            next_at=row["next_at"],
            tries=0,
        )
        .returning(Callback.id)
    )


# Made once: building a statement costs more than running it.
_STORE = {
    dialect: insert.on_conflict_do_nothing().returning(table(Callback).c.id)
    for dialect, insert in inserts(Callback).items()
}
_STORED = sa.select(
    Callback.account_id,
    Callback.provider_id,
    Callback.raw_sealed,
    Callback.received_at,
    Callback.applied_at,
    Callback.outcome,
).where(Callback.id == sa.bindparam("callback_id"))
_CALLBACK = sa.select(Callback).where(Callback.id == sa.bindparam("callback_id")).with_for_update()


def apply(runtime: Runtime, callback_id: str) -> None:
    """Apply a stored callback; nothing when it was applied before. Safe to call any number of
    times."""
    stored = runtime.database.row(_STORED, {"callback_id": callback_id})
    if stored is None or stored.applied_at is not None:
        return
    tag = ""
    try:
        with Workspace(runtime) as workspace:
            request = posted.opened(runtime, callback_id, stored.raw_sealed, workspace)
            tag = addresses.attempt_of(request.url)
            news = _read(runtime, stored, request)
    except (PluginError, Unsealable, ProviderError, ArtifactNotFound) as error:
        # A setting of this server is wrong, or the carrier away that was to confirm it; not the
        # callback.
        _log_unread(stored, error.code)
        _put_off(runtime, callback_id, tag)
        return
    is_over, came = _applied(runtime, callback_id, news, tag)
    for inbound_id in came:
        runtime.ring(arrivals.TASK, inbound_id)
    if is_over and not came:
        posted.forget_body(runtime, callback_id)  # the copy of a fax of ours, or a repeat


def _applied(
    runtime: Runtime, callback_id: str, news: list[Update | Arrival] | None, tag: str
) -> tuple[bool, list[str]]:
    """Whether nobody needs it any more but for received faxes, and those whose documents are to be had now."""
    now = runtime.now()
    with runtime.database.transaction() as session:
        callback = session.scalars(_CALLBACK, {"callback_id": callback_id}).one_or_none()
        if callback is None or callback.applied_at is not None:
            return False, []
        if news is None:
            _unreadable(session, callback, tag, now)
            return False, []
        arrived = [each for each in news if isinstance(each, Arrival)]
        if arrived and not arrivals.are_wanted(runtime, callback.provider_id):
            _finish(callback, UNWANTED, now)
            return False, []
        names = {"provider_id": callback.provider_id, "callback_id": callback_id}
        came = [arrivals.note(session, runtime, each, **names) for each in arrived]
        updates = [each for each in news if isinstance(each, Update)]
        known = _lock_in_one_order(session, callback.provider_id, updates)
        waiting = [
            update
            for update in updates
            if update not in known or not _apply_one(runtime, session, callback, update, now)
        ]
        if not arrived and (waiting or not updates):
            _note_named(session, callback, tag)
        patience = timedelta(seconds=runtime.config.callback_wait_seconds)
        callback.tries += 1
        if not waiting:
            _finish(callback, "applied" if news else "nothing", now)
        elif now - callback.received_at >= patience:
            log.warning("callback belongs to no fax", extra={"provider_id": callback.provider_id})
            _finish(callback, UNMATCHED, now)
        else:
            callback.next_at = now + min(patience / 20, LONGEST_PAUSE)
        is_over = callback.outcome in ("applied", "nothing")
        return is_over, [each for each in came if each is not None]


def _unreadable(session: Session, callback: Callback, tag: str, now: datetime) -> None:
    """Mark it: for good where its address names an attempt, else until it is read, or retention removes it."""
    _note_named(session, callback, tag)
    callback.tries += 1
    if tag:
        _finish(callback, UNREADABLE, now)
    else:
        callback.outcome, callback.next_at = UNREADABLE, now + DAILY


def _put_off(runtime: Runtime, callback_id: str, tag: str) -> None:
    """Try again later, and later each time."""
    with runtime.database.transaction() as session:
        callback = session.scalars(_CALLBACK, {"callback_id": callback_id}).one_or_none()
        if callback is None or callback.applied_at is not None:
            return  # retention has removed it, or another worker has applied it
        is_old = runtime.now() - callback.received_at >= GIVEN_UP
        if is_old and callback.tries >= TRIED_AT_LEAST:
            log.error("callback not applied", extra={"provider_id": callback.provider_id})
            _unreadable(session, callback, tag, runtime.now())
            return
        _note_named(session, callback, tag)
        wait = runtime.config.ring_again_seconds * 2 ** min(callback.tries, 10)
        callback.tries += 1
        callback.next_at = runtime.now() + min(timedelta(seconds=wait), LONGEST_WAIT)


def announce_waiting(runtime: Runtime, *, limit: int = 500) -> int:
    """Ring for stored callbacks that are due and not applied, as long as the broker takes it; how
    many."""
    now, soon = runtime.now(), timedelta(seconds=runtime.config.ring_again_seconds)
    _reopen_unwanted(runtime, now)
    # In a crowded queue they wait longer, and as soon as it is none, no longer.
    overdue = now + soon - timedelta(seconds=claims.ring_again(runtime, TASK))
    with runtime.database.transaction() as session:
        due = session.scalars(
            sa.select(Callback.id)
            .where(Callback.applied_at.is_(None), Callback.next_at <= overdue)
            .order_by(Callback.next_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        ).all()
        if due:
            session.execute(
                sa.update(Callback).where(Callback.id.in_(due)).values(next_at=now + soon)
            )
    for count, callback_id in enumerate(due):
        if not runtime.ring(TASK, callback_id):
            return count
    return len(due)


def _reopen_unwanted(runtime: Runtime, now: datetime) -> None:
    """Have what was said of received faxes while they were not wanted applied, now that they are."""
    providers = runtime.config.inbound_provider_ids if runtime.config.inbound_enabled else ()
    if runtime.database.row(_UNWANTED, {"providers": providers}) is not None:
        with runtime.database.writing() as connection:
            connection.execute(_REOPEN_UNWANTED, {"providers": providers, "now": now})


_IS_UNWANTED = sa.and_(
    Callback.outcome == sa.literal_column("'unwanted'"),
    Callback.provider_id.in_(sa.bindparam("providers", expanding=True)),
)
_UNWANTED = sa.select(Callback.id).where(_IS_UNWANTED).limit(1)
_REOPEN_UNWANTED = (
    sa.update(table(Callback))
    .where(_IS_UNWANTED)
    .values(
        outcome=None,
        applied_at=None,
        received_at=sa.bindparam("now", type_=UtcDateTime),
        next_at=sa.bindparam("now", type_=UtcDateTime),
    )
)


def _provider(runtime: Runtime, provider_id: str) -> TransportPlugin | None:
    try:
        return runtime.plugins.get(provider_id, TransportPlugin)
    except PluginError:
        return None


def _is_genuine(provider: TransportPlugin, provider_id: str, request: CallbackRequest) -> bool:
    """Whether it comes from the carrier; not where its plugin cannot say."""
    try:
        return provider.verify_callback(request) is True
    except Exception as error:  # noqa: BLE001 - a stranger's request may have made the plugin stumble
        names = {"provider_id": provider_id, "error": type(error).__name__}
        log.error("callback cannot be verified", extra=names)  # noqa: TRY400 - the class only
        return False


def _read(
    runtime: Runtime, stored: sa.Row[Any], request: CallbackRequest
) -> list[Update | Arrival] | None:
    """The news in a stored callback, None when its plugin cannot make anything of it. Raises PluginError and
    ProviderError for what is to be read again."""
    provider = runtime.plugins.get(stored.provider_id, TransportPlugin)
    if guard.is_disabled(runtime, stored.account_id, stored.provider_id):
        raise PluginError("The plugin is disabled.")
    try:
        news = list(provider.read_callback(request))
    except FaxbotError as error:
        if _is_for_later(runtime, stored, request, error):
            raise
        _log_unread(stored, error.code)
        return None
    except Exception as error:  # noqa: BLE001 - a plugin's bug stops this callback only
        _log_unread(stored, type(error).__name__)
        if stored.outcome is None:  # what is read again each day is one fault all the same
            guard.failed(runtime, stored.account_id, stored.provider_id, error)
        return None
    try:
        checked = [_checked(each) for each in news]
        arrivals.ask_for_one([each for each in checked if isinstance(each, Arrival)])
        return checked
    except ValueError as error:
        _log_unread(stored, type(error).__name__)
        return None


def _is_for_later(
    runtime: Runtime, stored: sa.Row[Any], request: CallbackRequest, error: FaxbotError
) -> bool:
    """Whether the carrier must be asked first and cannot be, or does not confirm it yet, a setting of this server is
    wrong, or the database is away."""
    if isinstance(error, Unreachable):
        late = runtime.now() - stored.received_at >= LONGEST_SILENCE
        return not (late and (error.cause == UNCONFIRMED or addresses.attempt_of(request.url)))
    ours = isinstance(error, ProviderError) and error.cause == "config"
    return ours or isinstance(error, AccountRefused | PluginError | DatabaseAway)


def _checked(news: object) -> Update | Arrival:
    return arrivals.checked(news) if isinstance(news, Arrival) else outcomes.checked(news)


def _log_unread(stored: sa.Row[Any], error: str) -> None:
    """Our own code or the class only: the text of a foreign exception may hold anything."""
    log.error("callback cannot be read", extra={"provider_id": stored.provider_id, "error": error})


def _apply_one(
    runtime: Runtime, session: Session, callback: Callback, update: Update, now: datetime
) -> bool:
    """Whether this piece of news is done with (applied, or old); False when it must wait for its
    fax."""
    found = _locked(session, callback.provider_id, update)
    if found is None:
        return False
    job, attempt = found
    entry = Entry(session, runtime, job, attempt, now, "callback")
    with logcontext.about(job_id=job.id, attempt=attempt.number, provider_id=attempt.provider_id):
        outcomes.news(entry, update)
    _note_fax(session, callback, job.id)
    session.flush()  # the next piece of news in this callback reads the rows again
    return True


def _note_named(session: Session, callback: Callback, tag: str) -> None:
    """Note the fax whose attempt the callback's address names, whatever it says: people want to see it there."""
    named = {"provider_id": callback.provider_id, "tag": tag, "external_id": None}
    for job_id in session.scalars(_JOBS_OF, named) if tag else ():
        _note_fax(session, callback, job_id)


def _note_fax(session: Session, callback: Callback, job_id: str) -> None:
    """Note that it is about this fax (evidence)."""
    row = {"job_id": job_id, "callback_id": callback.id, "account_id": callback.account_id}
    session.execute(_NOTE[session.get_bind().dialect.name], row)


_NOTE = {
    dialect: insert.on_conflict_do_nothing() for dialect, insert in inserts(CallbackFax).items()
}
_JOBS_OF = sa.select(Attempt.job_id).where(
    Attempt.provider_id == sa.bindparam("provider_id"),
    sa.or_(Attempt.tag == sa.bindparam("tag"), Attempt.external_id == sa.bindparam("external_id")),
)


def _lock_in_one_order(session: Session, provider_id: str, updates: list[Update]) -> list[Update]:
    """Lock the faxes of all this news, whatever the order in which a carrier names them, and how:
    of two callbacks about the same faxes one waits for the other. The news whose fax is known; one
    that becomes known meanwhile would be locked out of order."""
    if len(updates) < 2:
        return updates
    known, job_ids = [], set[str]()
    for update in updates:
        names = {"tag": update.tag, "external_id": update.external_id}
        if found := session.scalars(_JOBS_OF, {"provider_id": provider_id, **names}).all():
            known.append(update)
            job_ids.update(found)
    for job_id in sorted(job_ids):
        locked(session, job_id)
    return known


# The job's row is locked before the attempt's, as everywhere.
_FOUND = (
    sa.select(Job, Attempt)
    .join_from(Job, Attempt, Attempt.job_id == Job.id)
    .where(Attempt.provider_id == sa.bindparam("provider_id"))
    .with_for_update()
    .execution_options(populate_existing=True)
)
_BY_TAG = _FOUND.where(Attempt.tag == sa.bindparam("name"))
_BY_EXTERNAL_ID = (
    _FOUND.where(Attempt.external_id == sa.bindparam("name"))
    .order_by(Attempt.intended_at.desc())
    .limit(1)
)


def _locked(session: Session, provider_id: str, update: Update) -> tuple[Job, Attempt] | None:
    """The job and the attempt that this news speaks of, under their locks."""
    for statement, name in ((_BY_TAG, update.tag), (_BY_EXTERNAL_ID, update.external_id)):
        if name is not None:
            found = session.execute(statement, {"provider_id": provider_id, "name": name}).first()
            if found is not None:
                return found.Job, found.Attempt
    return None


def _finish(callback: Callback, outcome: str, now: datetime) -> None:
    callback.outcome, callback.applied_at, callback.next_at = outcome, now, None
