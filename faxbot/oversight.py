"""What an operator sees of the providers, and does to them: how they stand, pause, resume, reset,
test connection; and how their callbacks arrive."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from faxbot import audit, breaker, callbacks, guard, limits
from faxbot.actors import Actor
from faxbot.audit import Action
from faxbot.breaker import WINDOW
from faxbot.config import Config
from faxbot.db import table
from faxbot.errors import FaxbotError, InvalidFields, NotFound, PluginError
from faxbot.models import Attempt, Callback, CallbackRefusal, ProviderHistory
from faxbot.plugins.base import FaxbotPlugin, Health
from faxbot.plugins.loader import Plugins
from faxbot.plugins.manifest import Manifest
from faxbot.results import stamp
from faxbot.runtime import Runtime

OUTBOUND, INBOUND, STORAGE = "outbound", "inbound", "storage"
NOTIFICATION = "notification"
"""The slots that a plugin may have; several may send, receive and tell people."""
DEEDS = {
    "pause": (breaker.pause, Action.PROVIDER_PAUSED),
    "resume": (breaker.resume, Action.PROVIDER_RESUMED),
    "reset": (breaker.reset, Action.PROVIDER_RESET),
    "enable": (guard.enable, Action.PLUGIN_ENABLED),
}
NOTE_LENGTH = 255
ANSWERED_WITHIN = 5.0
"""Seconds in which a carrier, a storage or a server of mails says how it is."""
LATEST = datetime(3000, 1, 1, tzinfo=UTC)
"""The databases and their drivers cannot tell every later time in every zone."""
DAY = timedelta(days=1)
MOST_COUNTED = 1000
TICKS = 20
"""Of the newest calls it is shown one by one how they went."""
HISTORY = 100
"""Entries of a provider's history that are shown, the newest first."""


def slots(plugins: Plugins, config: Config, plugin_id: str) -> list[str]:
    """What a plugin is active for: `outbound` and `inbound` faxes, `storage`, `notification`."""
    have = {
        OUTBOUND: config.provider_ids,
        INBOUND: receivers(plugins, config),
        STORAGE: (config.storage_backend,),
        NOTIFICATION: config.notification_plugin_ids,
    }
    return [slot for slot, plugin_ids in have.items() if plugin_id in plugin_ids]


def receivers(plugins: Plugins, config: Config) -> list[str]:
    """Those whose received faxes are wanted, and that can bring some."""
    return [each for each in config.inbound_provider_ids if plugins.has(each, "inbound_supported")]


def providers(runtime: Runtime, actor: Actor) -> list[dict[str, Any]]:
    """Every transport plugin that can be used, as plain JSON types; no secrets, no PHI."""
    runtime.breakers.forget()  # who looks sees what another process has just done
    runtime = runtime.anew()
    return [
        _describe(runtime, actor, manifest)
        for manifest in runtime.plugins.manifests()
        if manifest.type == "transport"
    ]


def provider(runtime: Runtime, actor: Actor, provider_id: str) -> dict[str, Any]:
    """One of them, with its history; raises NotFound."""
    manifest = _manifest(runtime, provider_id)
    of_provider = {"account_id": actor.account_id, "provider_id": provider_id}
    runtime.breakers.forget()  # who looks sees what another process has just done
    runtime = runtime.anew()
    return {
        **_describe(runtime, actor, manifest),
        "history": [
            {
                "type": row.type,
                "reason": row.reason,
                "note": row.note,
                "actor": row.actor,
                "expires_at": stamp(row.expires_at),
                "recorded_at": stamp(row.recorded_at),
            }
            for row in runtime.database.rows(_HISTORY, of_provider)
        ],
    }


_HISTORY = (
    sa.select(table(ProviderHistory))
    .where(
        ProviderHistory.account_id == sa.bindparam("account_id"),
        ProviderHistory.provider_id == sa.bindparam("provider_id"),
    )
    .order_by(ProviderHistory.id.desc())
    .limit(HISTORY)
)


def _manifest(runtime: Runtime, provider_id: str) -> Manifest:
    try:
        manifest = runtime.plugins.manifest(provider_id)
    except PluginError:
        manifest = None
    if manifest is None or manifest.type != "transport":
        raise NotFound("there is no provider of this id: `faxbot providers list` shows all")
    return manifest


def _describe(runtime: Runtime, actor: Actor, manifest: Manifest) -> dict[str, Any]:
    now = runtime.now()
    standing = runtime.breakers.standing(actor.account_id, manifest.id, now)
    rest = standing.rest(now)
    calls = {
        "account_id": actor.account_id,
        "provider_id": manifest.id,
        "since": now - WINDOW,
    }
    verdicts = Counter(row.verdict for row in runtime.database.rows(_CALLS, calls))
    newest = runtime.database.rows(_TICKS, {**calls, "since": now - DAY})
    return {
        "id": manifest.id,
        "name": manifest.name,
        "version": manifest.version,
        "traits": list(manifest.traits),
        "active": manifest.id in runtime.config.provider_ids,
        "slots": slots(runtime.plugins, runtime.config, manifest.id),
        "requires_baa": manifest.hipaa.get("requiresBaa") is True,
        "covered": manifest.id in runtime.config.covered_provider_ids,
        "state": standing.state(now),
        "reason": rest.reason if rest else standing.reason if standing.opened_at else None,
        "rests_until": stamp(rest.until) if rest else None,
        "degraded_at": stamp(standing.degraded_at),
        "calls": {name: verdicts[name] for name in (breaker.OK, breaker.FAULT, breaker.SLOW)},
        "newest": [row.verdict for row in reversed(newest)],
        "not_understood": len(
            runtime.database.rows(_NOT_UNDERSTOOD, {**calls, "since": now - DAY})
        ),
    }


_SINCE = (
    Attempt.account_id == sa.bindparam("account_id"),
    Attempt.provider_id == sa.bindparam("provider_id"),
    Attempt.answered_at > sa.bindparam("since", type_=Attempt.answered_at.type),
)
_VERDICTS = (
    sa.select(Attempt.verdict)
    .where(*_SINCE, Attempt.verdict.is_not(None))
    .order_by(Attempt.answered_at.desc())
)
_CALLS = _VERDICTS.limit(breaker.MOST_CALLS)
_TICKS = _VERDICTS.limit(TICKS)
_NOT_UNDERSTOOD = (
    sa.select(Attempt.id).where(*_SINCE, Attempt.cause == "unknown").limit(MOST_COUNTED)
)


def change(
    runtime: Runtime,
    actor: Actor,
    provider_id: str,
    deed: str,
    *,
    note: str,
    until: datetime | None = None,
) -> dict[str, Any]:
    """Pause, resume or reset a provider, or enable its plugin again, for a reason that goes into its
    history: how it stands then.

    Raises NotFound, InvalidFields for a reason that is none or a pause that has ended already.
    """
    _manifest(runtime, provider_id)
    check_note(note)
    now = runtime.now()
    if until is not None and not now < until < LATEST:
        wrong = "lies in the past" if until <= now else "is not before the year 3000"
        raise InvalidFields(errors={"until": [wrong]})
    more = {"until": until} if deed == "pause" else {}
    do, action = DEEDS[deed]
    with runtime.database.transaction() as session:
        state = breaker.locked(session, actor.account_id, provider_id, now)
        do(session, state, now, actor=actor.id, note=note, **more)
        audit.record(session, actor, action, ("plugin", provider_id), now=now)
    return provider(runtime, actor, provider_id)


def check_note(note: str) -> None:
    """Raise InvalidFields for a reason that is none."""
    if not 1 <= len(note) <= NOTE_LENGTH or not note.isprintable():
        raise InvalidFields(errors={"note": [f"1 to {NOTE_LENGTH} printable characters: why?"]})


def try_connection(runtime: Runtime, actor: Actor, provider_id: str) -> dict[str, Any]:
    """{"ok": bool, "detail": str}: whether the carrier lets us in now; raises NotFound,
    PluginTestsCrowded. What is wrong is said in a sentence, without secrets."""
    _manifest(runtime, provider_id)
    with limits.one_test():
        found = health_of(runtime, provider_id)
    outcome = audit.DONE if found["ok"] else audit.FAILED
    of, now = ("plugin", provider_id), runtime.now()
    with runtime.database.writing() as connection:
        audit.record(connection, actor, Action.PROVIDER_TESTED, of, now=now, outcome=outcome)
    return found


def health_of(runtime: Runtime, plugin_id: str) -> dict[str, Any]:
    """{"ok": bool, "detail": str} as a plugin says itself, or why it cannot be asked."""
    try:
        return said_of_itself(runtime.plugins.get(plugin_id, FaxbotPlugin))
    except FaxbotError as error:
        return {"ok": False, "detail": error.detail}


def health_in_time(
    runtime: Runtime, plugin_ids: Iterable[str], seconds: float | None = None
) -> dict[str, dict[str, Any]]:
    """The same of several, asked at once, by their ids; of one whose carrier takes longer (ANSWERED_WITHIN), that it
    does. Nobody is asked twice at a time: who asks meanwhile gets the same answer."""
    seconds = ANSWERED_WITHIN if seconds is None else seconds
    until = time.monotonic() + seconds
    found, asked = dict[str, dict[str, Any]](), dict[str, Future[dict[str, Any]]]()
    for plugin_id in plugin_ids:
        try:
            asked[plugin_id] = _asked(runtime.plugins.get(plugin_id, FaxbotPlugin))
        except FaxbotError as error:
            found[plugin_id] = {"ok": False, "detail": error.detail}
    for plugin_id, answer in asked.items():
        try:
            found[plugin_id] = answer.result(max(0.0, until - time.monotonic()))
        except TimeoutError:
            late = f"It did not answer within {seconds:g} s."
            found[plugin_id] = {"ok": False, "detail": late}
    return found


_asking = threading.Lock()
_under_way: dict[int, tuple[FaxbotPlugin, Future[dict[str, Any]]]] = {}
"""Plugins that are asked now, by their id() in this process, and what will be their answer."""


def _asked(plugin: FaxbotPlugin) -> Future[dict[str, Any]]:
    answer = Future[dict[str, Any]]()

    def ask() -> None:
        said = said_of_itself(plugin)
        with _asking:
            del _under_way[id(plugin)]
        answer.set_result(said)

    with _asking:
        if id(plugin) in _under_way:
            return _under_way[id(plugin)][1]
        threading.Thread(target=ask, name="health of a plugin", daemon=True).start()
        _under_way[id(plugin)] = plugin, answer
    return answer


def said_of_itself(plugin: FaxbotPlugin) -> dict[str, Any]:
    """The same of one that has begun."""
    try:
        health = as_said(plugin.health())
    except FaxbotError as error:
        return {"ok": False, "detail": error.detail}
    except Exception as error:  # noqa: BLE001 - a plugin raises anything
        return {"ok": False, "detail": f"The plugin failed ({type(error).__name__})."}
    return {"ok": health.ok, "detail": health.detail}


def as_said(health: object) -> Health:
    """What a plugin's health() gave, where that is what it should be."""
    if not isinstance(health, Health):
        return _NOT_SAID
    return health if (type(health.ok), type(health.detail)) == (bool, str) else _NOT_SAID


_NOT_SAID = Health(False, "The plugin does not say how it is.")


# Callbacks ------------------------------------------------------------------------------------------

LATEST_CALLBACKS = 100


def webhooks(runtime: Runtime) -> list[dict[str, Any]]:
    """Of every provider whose carrier calls back, as plain JSON types: the addresses to paste there,
    how many came within a day and what became of them, what was refused, and the newest without
    their content. Of what was refused another process may not have written yet what came within a second of what it
    wrote last: it does with the next one, or when it ends."""
    runtime.tallies.write_refused()
    return [
        _webhooks_of(runtime, manifest)
        for manifest in runtime.plugins.manifests()
        if manifest.has("status_callback") or manifest.has("inbound_supported")
    ]


def _webhooks_of(runtime: Runtime, manifest: Manifest) -> dict[str, Any]:
    since = runtime.now() - DAY
    of_provider = {"provider_id": manifest.id}
    lately = runtime.database.rows(_OUTCOMES, {**of_provider, "since": since})
    paths = manifest.values("webhook_path") or (f"/callbacks/{manifest.id}",)
    return {
        "provider_id": manifest.id,
        "name": manifest.name,
        "addresses": [_to_paste(runtime, manifest, path) for path in paths],
        "receives": manifest.id in receivers(runtime.plugins, runtime.config),
        "proof": _proof_of(manifest),
        "lately": dict(Counter(row.outcome or "waiting" for row in lately)),
        "refused": [
            {
                "reason": row.reason,
                "detail": callbacks.REFUSALS.get(row.reason, row.reason),
                "count": row.count,
                "first_at": stamp(row.first_at),
                "last_at": stamp(row.last_at),
            }
            for row in runtime.database.rows(_REFUSED, of_provider)
        ],
        "latest": [
            {
                "id": row.id,
                "received_at": stamp(row.received_at),
                "applied_at": stamp(row.applied_at),
                "outcome": row.outcome,
            }
            for row in runtime.database.rows(_LATEST, of_provider)
        ],
    }


def proof_settings(manifest: Manifest) -> tuple[str, ...]:
    """The settings without which no callback of its carrier can be proven."""
    return manifest.values("callback_secret")


def _to_paste(runtime: Runtime, manifest: Manifest, path: str) -> str:
    """Secrets are named, never shown."""
    scheme, _, rest = runtime.config.base_url.partition("://")
    credentials = "NAME:PASSWORD@" if manifest.has("webhook_basic_auth") else ""
    return f"{scheme}://{credentials}{rest}{path}"


def _proof_of(manifest: Manifest) -> str:
    """How its carrier proves that it calls, in a sentence."""
    if headers := manifest.values("verify_header"):
        return f"The carrier signs each callback in the header {headers[0]}."
    if prefixes := manifest.values("basic_auth_env"):
        names = f"{prefixes[0]}_USER and {prefixes[0]}_PASS"
        return f"NAME and PASSWORD in the address are {names}."
    return "The plugin checks it."


_OF_PROVIDER = Callback.provider_id == sa.bindparam("provider_id")
_OUTCOMES = (
    sa.select(Callback.outcome)
    .where(
        _OF_PROVIDER,
        Callback.received_at > sa.bindparam("since", type_=Callback.received_at.type),
    )
    .order_by(Callback.received_at.desc())
    .limit(MOST_COUNTED)
)
_LATEST = (
    sa.select(Callback.id, Callback.received_at, Callback.applied_at, Callback.outcome)
    .where(_OF_PROVIDER)
    .order_by(Callback.received_at.desc())
    .limit(LATEST_CALLBACKS)
)
_REFUSED = (
    sa.select(table(CallbackRefusal))
    .where(CallbackRefusal.provider_id == sa.bindparam("provider_id"))
    .order_by(CallbackRefusal.last_at.desc())
)
