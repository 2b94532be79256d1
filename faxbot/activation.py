"""Which plugin has which slot, and how plugins are set: changed while everything runs, only after the plugin has shown
that it works so, and written into its history.

A test asks the plugin's carrier, with no transaction open; what is saved then is saved only if nobody else saved
something since it was read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from faxbot import breaker, catalogue, oversight
from faxbot.catalogue import INBOUND, OUTBOUND, RECEIVES, STORAGE
from faxbot.errors import ChangeRefused, ConfigError, InvalidFields, PluginError
from faxbot.events import ProviderEvent
from faxbot.identity import Actor
from faxbot.models import ProviderState
from faxbot.plugins.manifest import MASK, Manifest
from faxbot.runtime import Runtime
from faxbot.settings import OPTIONS, Wish

SLOTS = (OUTBOUND, INBOUND, STORAGE)
_ORDER, _COVERED = "FAX_BACKENDS", "FAX_BACKENDS_COVERED"
_RECEIVING, _STORING = "FAX_INBOUND_BACKENDS", "STORAGE_BACKEND"
UNTESTED = "untested"


@dataclass(frozen=True, slots=True)
class Change:
    """Who changes what about a plugin, and why."""

    actor: Actor
    plugin_id: str
    note: str
    event: ProviderEvent
    reason: str | None = None


def activate(
    runtime: Runtime,
    actor: Actor,
    plugin_id: str,
    *,
    slot: str,
    note: str,
    first: bool = True,
    covered: bool | None = None,
    untested: bool = False,
) -> dict[str, Any]:
    """Give a plugin a slot; how it stands then (catalogue.plugin).

    `outbound`: it takes faxes before the others that are active, or, without `first`, behind them, where it may see one
    only if it is `covered` by an agreement (None: as it was). `inbound`: its received faxes are wanted too. `storage`:
    new documents are kept in it, those that are there stay where they are.

    Raises NotFound; InvalidFields for a plugin that cannot have this slot; ChangeRefused when its test fails, unless
    `untested`; ChangedMeanwhile when the settings were changed meanwhile.
    """
    manifest = catalogue.the_manifest(runtime, plugin_id)
    if not _can_have(manifest, slot):
        raise InvalidFields(errors={"slot": [f"{plugin_id} cannot be active for {slot}"]})
    oversight.check_note(note)
    snapshot = runtime.settings.read()
    config = snapshot.config
    if slot == OUTBOUND:
        others = [each for each in config.provider_ids if each != plugin_id]
        options = {_ORDER: _listed([plugin_id, *others] if first else [*others, plugin_id])}
        if covered is not None:
            agreed = [each for each in config.covered_provider_ids if each != plugin_id]
            options[_COVERED] = _listed([*agreed, plugin_id] if covered else agreed)
    elif slot == INBOUND:
        options = {_RECEIVING: _listed([*config.inbound_provider_ids, plugin_id])}
    else:
        options = {_STORING: plugin_id}
    if not untested:
        _demand(oversight.health_of(runtime, plugin_id))
    change = Change(actor, plugin_id, note, ProviderEvent.ACTIVATED, slot)
    _save(runtime, change, {OPTIONS: options}, snapshot.version)
    return catalogue.plugin(runtime.fresh(), actor, plugin_id)


def deactivate(
    runtime: Runtime, actor: Actor, plugin_id: str, *, slot: str, note: str
) -> dict[str, Any]:
    """Take a plugin out of a slot; how it stands then. Faxes that it has are followed to their end.

    Raises NotFound; InvalidFields where it does not have that slot; ChangeRefused for the last one that
    has; ChangedMeanwhile as activate().
    """
    catalogue.the_manifest(runtime, plugin_id)
    oversight.check_note(note)
    snapshot = runtime.settings.read()
    config = snapshot.config
    if slot not in catalogue.slots(config, plugin_id):
        raise InvalidFields(errors={"slot": [f"{plugin_id} is not active for {slot}"]})
    have = config.provider_ids if slot == OUTBOUND else config.inbound_provider_ids
    left = [each for each in have if each != plugin_id]
    if slot == STORAGE or not left:
        raise ChangeRefused(f"it is the only one for {slot}: activate another one first")
    option = _ORDER if slot == OUTBOUND else _RECEIVING
    change = Change(actor, plugin_id, note, ProviderEvent.DEACTIVATED, slot)
    _save(runtime, change, {OPTIONS: {option: _listed(left)}}, snapshot.version)
    return catalogue.plugin(runtime.fresh(), actor, plugin_id)


def configure(
    runtime: Runtime,
    actor: Actor,
    plugin_id: str,
    values: Mapping[str, Any],
    *,
    note: str,
    untested: bool = False,
) -> dict[str, Any]:
    """Save settings of a plugin, by key; how they stand then (catalogue.settings). A key that is not named stays as it
    is, None takes back what was saved, and MASK leaves a secret alone.

    Raises NotFound; InvalidFields naming what is wrong, never values; ChangeRefused when a plugin that is set so does
    not work, unless `untested`; ChangedMeanwhile as activate().
    """
    manifest = catalogue.the_manifest(runtime, plugin_id)
    oversight.check_note(note)
    unknown = [key for key in values if key not in manifest.properties]
    if unknown:
        raise InvalidFields(errors={key: ["is no setting of this plugin"] for key in unknown})
    kept = [key for key, value in values.items() if key in manifest.secrets and value == MASK]
    wish = {key: value for key, value in values.items() if key not in kept}
    snapshot = runtime.settings.read()
    saved = {**snapshot.of_plugin(plugin_id), **wish}
    saved = {key: value for key, value in saved.items() if value is not None}
    try:
        would_be = runtime.plugins.settings(plugin_id, saved)
    except ConfigError as error:
        raise InvalidFields(errors={"settings": [error.detail]}) from None
    _guard_secrets(manifest, _as_it_is(runtime, plugin_id), would_be, given=wish)
    if not untested:
        _demand(_health_if(runtime, plugin_id, saved))
    change = Change(
        actor, plugin_id, note, ProviderEvent.CONFIGURED, UNTESTED if untested else None
    )

    def mended(session: Session, state: ProviderState) -> None:
        # Other credentials were just let in: what the old ones did to it does not count.
        if state.opened_at is not None and not untested:
            breaker.reset(session, state, runtime.now(), actor=actor.key_id, note=note)

    _save(runtime, change, {plugin_id: wish}, snapshot.version, mended)
    return catalogue.settings(runtime.fresh(), plugin_id)


def _can_have(manifest: Manifest, slot: str) -> bool:
    if slot == STORAGE:
        return manifest.type == "storage"
    return manifest.type == "transport" and manifest.has(
        "send_fax" if slot == OUTBOUND else RECEIVES
    )


def _as_it_is(runtime: Runtime, plugin_id: str) -> Mapping[str, Any]:
    try:
        return runtime.plugins.settings(plugin_id)
    except ConfigError:
        return {}  # it cannot work as it is, and sends its secrets nowhere


def _guard_secrets(
    manifest: Manifest,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    given: Mapping[str, Any],
) -> None:
    """Raise InvalidFields where a secret that the caller need not know would go to another address."""
    rules = manifest.properties.items()
    addresses = [key for key, rule in rules if rule.get("format") == "uri"]
    moved = [key for key in addresses if before and before.get(key) != after.get(key)]
    kept = sorted(key for key in manifest.secrets if after.get(key) and key not in given)
    if moved and kept:
        sentence = f"is sent to another address ({', '.join(moved)}): give it again"
        raise InvalidFields(errors={key: [sentence] for key in kept})


def _health_if(runtime: Runtime, plugin_id: str, saved: Mapping[str, Any]) -> dict[str, Any]:
    try:
        with runtime.plugins.tried(plugin_id, saved) as plugin:
            return oversight.said_of_itself(plugin)
    except PluginError as error:
        return {"ok": False, "detail": error.detail}


def _demand(health: dict[str, Any]) -> None:
    if not health["ok"]:
        raise ChangeRefused(
            f"nothing was changed, because the plugin does not work so: {health['detail']}"
        )


def _save(
    runtime: Runtime,
    change: Change,
    wish: Wish,
    seen: int,
    more: Callable[[Session, ProviderState], None] = lambda _session, _state: None,
) -> None:
    now = runtime.now()
    try:
        with runtime.database.transaction() as session:
            runtime.settings.write(session, wish, seen=seen, now=now)
            state = breaker.locked(session, change.actor.account_id, change.plugin_id, now)
            more(session, state)
            actor = change.actor.key_id
            breaker.record(
                session,
                state,
                change.event,
                now,
                reason=change.reason,
                note=change.note,
                actor=actor,
            )
    except ConfigError as error:
        raise InvalidFields(errors={"settings": [error.detail]}) from None
    runtime.settings.forget()
    runtime.breakers.forget()


def _listed(plugin_ids: list[str]) -> str:
    return ",".join(dict.fromkeys(plugin_ids))
