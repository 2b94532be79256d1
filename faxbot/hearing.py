"""Hears what listening providers hear: each notice is kept as a callback is, and acknowledged only then; after a gap
every fax that the provider has is asked after.

Two processes that listen to one provider do no harm: what both hear is kept once. One that dies loses nothing: what it
did not acknowledge is heard again, or found when its successor asks.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Generator, Iterable
from contextlib import ExitStack, closing
from datetime import timedelta

import sqlalchemy as sa

from faxbot import callbacks, followup, guard, heartbeats
from faxbot.db import UtcDateTime
from faxbot.errors import FaxbotError
from faxbot.events import DEFAULT_ACCOUNT, Status
from faxbot.models import IS_OPEN, Attempt, ConfigVersion, Job
from faxbot.plugins.base import CallbackRequest, Gap, Notice, TransportPlugin
from faxbot.runtime import Runtime

log = logging.getLogger(__name__)

METHOD = "LISTEN"
PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds before a provider that stopped listening is asked to listen again, and each time after."""
LOOK_EVERY = 2.0  # seconds; who is to be listened to may change
BEAT_EVERY = 5.0  # seconds
SILENT = timedelta(seconds=60)
"""A listener that says so little is none."""
_OF_OURS = (FaxbotError, sa.exc.SQLAlchemyError)
"""What is no doing of a provider's code; the second while the tables are put back from a backup."""


def listeners(runtime: Runtime) -> list[str]:
    """The providers that must be listened to: those that are active, and those that were and have, or may have, a call
    under way."""
    config = runtime.config
    active = {*config.provider_ids, *config.inbound_provider_ids}
    speak = [each.id for each in runtime.plugins.manifests() if each.has("listens")]
    return [each for each in speak if each in active or _has_calls(runtime, each)]


def _has_calls(runtime: Runtime, provider_id: str) -> bool:
    # Most that are not active never were: that is known at once, however many faxes are under way with others.
    since = runtime.now() - timedelta(seconds=runtime.config.silence_seconds)
    asked = {"provider": provider_id, "since": since}
    return all(runtime.database.row(each, asked) is not None for each in (_EVER_CALLED, _UNDER_WAY))


_EVER_CALLED = (
    sa.select(Attempt.provider_id)
    .where(Attempt.provider_id == sa.bindparam("provider"))
    .order_by(
        Attempt.answered_at
    )  # else PostgreSQL may expect to find one soon, and walk through all
    .limit(1)
)
_UNDER_WAY = (
    sa.select(Job.id)
    .where(
        sa.text(IS_OPEN),
        Job.status.in_((Status.SUBMITTING.value, Status.SENT.value, Status.UNCERTAIN.value)),
        Job.provider_id == sa.bindparam("provider"),
        # A sent one that says nothing for so long is uncertain; that one may wait for a person for ever.
        sa.or_(
            Job.status != Status.UNCERTAIN.value,
            Job.updated_at > sa.bindparam("since", type_=UtcDateTime),
        ),
    )
    .limit(1)
)


def listen_to_all(runtime: Runtime, stop: threading.Event) -> None:
    """Listen to every provider that needs it, each in a thread of its own, until `stop` is set."""
    threads: dict[str, threading.Thread] = {}
    while not stop.is_set():
        try:
            wanted = listeners(runtime.fresh())
        except _OF_OURS as error:  # the database is away, or is put back: those that listen go on
            log.warning("not known whom to listen to", extra={"error": _name_of(error)})
            wanted = []
        for provider_id in wanted:
            if provider_id not in threads or not threads[provider_id].is_alive():
                threads[provider_id] = threading.Thread(
                    target=listen, args=(runtime, provider_id, stop), name=f"listen {provider_id}"
                )
                threads[provider_id].start()
        stop.wait(LOOK_EVERY)
    for thread in threads.values():
        thread.join()


def listen(runtime: Runtime, provider_id: str, stop: threading.Event) -> None:
    """Listen to one provider, again and again, until `stop` is set or it need not be listened to any more."""
    failures = 0
    while not stop.is_set():
        begun = time.monotonic()
        try:
            if not _listen_once(runtime, provider_id, stop):
                return
        except _OF_OURS as error:
            names = {"provider_id": provider_id, "error": _name_of(error)}
            log.warning("listening ended", extra=names)
        except Exception as error:  # noqa: BLE001 - foreign code; the text may hold anything
            names = {"provider_id": provider_id, "exception": type(error).__name__}
            log.error("listening ended", extra=names)  # noqa: TRY400 - the class only
            _count(runtime, provider_id, error)
        if time.monotonic() - begun > PAUSES[-1]:
            failures = 0
        stop.wait(PAUSES[min(failures, len(PAUSES) - 1)])
        failures += 1


def _listen_once(runtime: Runtime, provider_id: str, stop: threading.Event) -> bool:
    """Until it ends by itself (True), or is to end. Raises what the provider does."""
    this = runtime.fresh()
    if guard.is_disabled(this, DEFAULT_ACCOUNT, provider_id):
        _beat(this, provider_id)
        return True
    beaten = 0.0
    provider = this.plugins.get(provider_id, TransportPlugin)
    with ExitStack() as stack:
        heard = provider.listen()
        if isinstance(heard, Generator):
            stack.enter_context(closing(heard))  # it lets go of its connection
        for each in heard:
            _take(this, provider_id, each)
            if time.monotonic() - beaten >= BEAT_EVERY:
                _beat(this, provider_id)
                beaten = time.monotonic()
            if stop.is_set():
                return False
            this = runtime.fresh()
            if provider_id not in listeners(this):
                return False
            if this.plugins.get(provider_id, TransportPlugin) is not provider:
                return True  # it was set anew, and may be another account's
    return True


def _take(runtime: Runtime, provider_id: str, heard: object) -> None:
    if isinstance(heard, Notice):
        callbacks.keep(runtime, provider_id, CallbackRequest(METHOD, "", {}, heard.body))
        heard.acknowledge()
    elif isinstance(heard, Gap):
        followup.ask_after_all(runtime, provider_id)
    elif heard is not None:
        raise TypeError("a listening provider yields Notice, Gap or None")


def _count(runtime: Runtime, provider_id: str, error: Exception) -> None:
    try:
        guard.failed(runtime, DEFAULT_ACCOUNT, provider_id, error)
    except _OF_OURS as away:
        names = {"provider_id": provider_id, "error": _name_of(away)}
        log.warning("fault not counted", extra=names)


def _name_of(error: FaxbotError | sa.exc.SQLAlchemyError) -> str:
    return error.code if isinstance(error, FaxbotError) else type(error).__name__


def silent(runtime: Runtime, wanted: Iterable[str]) -> list[str]:
    """Of the providers that must be listened to, those to whom nobody does. A server that has just started waits
    first, and so does one whose settings were just changed: who was activated with them is listened to in a moment."""
    names = {_name(each): each for each in wanted}
    missing = heartbeats.missing(runtime, list(names), SILENT)
    if missing and (row := runtime.database.row(_CHANGED, {})) is not None:
        missing = missing if runtime.now() - row.changed_at > SILENT else []
    return [names[name] for name in missing]


_CHANGED = sa.select(ConfigVersion.changed_at).where(ConfigVersion.account_id == DEFAULT_ACCOUNT)


def _beat(runtime: Runtime, provider_id: str) -> None:
    heartbeats.beat(runtime, [_name(provider_id)])


def _name(provider_id: str) -> str:
    return f"listen:{provider_id}"[:64]
