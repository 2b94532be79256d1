"""Which plugin has which slot, and how plugins are set: changed while everything runs, only after the plugin has shown
that it works so, and written into its history.

A test asks the plugin's carrier, with no transaction open; what is saved then is saved only if nobody else saved
something since it was read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from faxbot import audit, breaker, catalogue, oversight, revisions, telltale
from faxbot.actors import Actor
from faxbot.audit import Action
from faxbot.config import BY_NAME, Config
from faxbot.errors import ChangeRefused, ConfigError, FaxbotError, InvalidFields, PluginError
from faxbot.events import ProviderEvent
from faxbot.oversight import INBOUND, NOTIFICATION, OUTBOUND, STORAGE
from faxbot.plugins import manifest as manifests
from faxbot.plugins.manifest import Manifest
from faxbot.revisions import Deed
from faxbot.runtime import Runtime
from faxbot.settings import OPTIONS, Saved, Wish

SLOTS = (OUTBOUND, INBOUND, STORAGE, NOTIFICATION)
_ORDER, _COVERED = "FAX_BACKENDS", "FAX_BACKENDS_COVERED"
_RECEIVING, _STORING = "FAX_INBOUND_BACKENDS", "STORAGE_BACKEND"
_TELLING = "FAXBOT_NOTIFICATIONS"
_OURS = frozenset(BY_NAME)
_PLACES = ("uri", "destination")
"""Formats of settings, in manifests."""
UNTESTED = "untested"


@dataclass(frozen=True, slots=True)
class Change:
    """Who changes what about a plugin, and why."""

    actor: Actor
    plugin_id: str
    note: str
    event: ProviderEvent
    reason: str | None = None
    mended: bool = False
    """Whether other credentials were just let in: what the old ones did to it does not count."""


@audit.refusals(Action.PLUGIN_ACTIVATED, of_plugin=True)
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
    new documents are kept in it, those that are there stay where they are. `notification`: it tells people, too.

    Raises NotFound; InvalidFields for a plugin that cannot have this slot; ChangeRefused when its test fails, unless
    `untested`; ChangedMeanwhile when the settings were changed meanwhile; Forbidden to who has an account of his own.
    """
    actor.require_house()
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
        options = {_RECEIVING: _listed([*oversight.receivers(runtime.plugins, config), plugin_id])}
    elif slot == NOTIFICATION:
        options = {_TELLING: _listed([*config.notification_plugin_ids, plugin_id])}
    else:
        options = {_STORING: plugin_id}
    _demand_proof(
        runtime, manifest, _settings_if(runtime, plugin_id, snapshot.of_plugin(plugin_id))
    )
    if not untested:
        _demand(runtime, plugin_id, snapshot.of_plugin(plugin_id))
    change = Change(actor, plugin_id, note, ProviderEvent.ACTIVATED, slot)
    _save(runtime, change, {OPTIONS: options}, snapshot.version)
    return catalogue.plugin(runtime, actor, plugin_id)


@audit.refusals(Action.PLUGIN_DEACTIVATED, of_plugin=True)
def deactivate(
    runtime: Runtime, actor: Actor, plugin_id: str, *, slot: str, note: str
) -> dict[str, Any]:
    """Take a plugin out of a slot, also one that is not installed any more; what it is active for then
    (catalogue.standing). Faxes that it has are followed to their end.

    Raises NotFound; InvalidFields where it does not have that slot; ChangeRefused for the last one that
    has, but of those that tell people; ChangedMeanwhile and Forbidden as activate().
    """
    actor.require_house()
    oversight.check_note(note)
    snapshot = runtime.settings.read()
    config = snapshot.config
    if slot not in oversight.slots(runtime.plugins, config, plugin_id):
        catalogue.the_manifest(runtime, plugin_id)
        raise InvalidFields(errors={"slot": [f"{plugin_id} is not active for {slot}"]})
    left = _others(runtime, config, plugin_id, slot)
    if _must_stay(runtime, slot, left):
        raise ChangeRefused(f"it is the only one for {slot}: activate another one first")
    option = _OPTION[slot]
    change = Change(actor, plugin_id, note, ProviderEvent.DEACTIVATED, slot)
    _save(runtime, change, {OPTIONS: {option: _listed(left)}}, snapshot.version)
    return catalogue.standing(runtime.fresh(), plugin_id)


def can_leave(runtime: Runtime, plugin_id: str) -> list[str]:
    """The slots that a plugin has and can be taken out of."""
    config = runtime.config
    return [
        slot
        for slot in oversight.slots(runtime.plugins, config, plugin_id)
        if not _must_stay(runtime, slot, _others(runtime, config, plugin_id, slot))
    ]


def _others(runtime: Runtime, config: Config, plugin_id: str, slot: str) -> list[str]:
    """Who has this slot beside the plugin."""
    have = {
        OUTBOUND: config.provider_ids,
        INBOUND: oversight.receivers(runtime.plugins, config),
        NOTIFICATION: config.notification_plugin_ids,
        STORAGE: (plugin_id,),
    }[slot]
    return [each for each in have if each != plugin_id]


def _must_stay(runtime: Runtime, slot: str, left: list[str]) -> bool:
    """Whether nobody of those that are left could do what the slot is for, and somebody must."""
    needed = _NEEDED.get(slot, "")
    return slot != NOTIFICATION and not any(runtime.plugins.has(each, needed) for each in left)


@audit.refusals(Action.PLUGIN_CONFIGURED, of_plugin=True)
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
    not work, unless `untested`; ChangedMeanwhile as activate(); Forbidden as that and demand_right().
    """
    actor.require_house()
    demand_right(actor, catalogue.the_manifest(runtime, plugin_id))
    oversight.check_note(note)
    snapshot = runtime.settings.read()
    was = snapshot.of_plugin(plugin_id)
    wish = examined(runtime, plugin_id, values, was, untested=untested)
    _save(
        runtime, configured(actor, plugin_id, note, untested), {plugin_id: wish}, snapshot.version
    )
    return catalogue.settings(runtime, plugin_id)


def demand_right(actor: Actor, manifest: Manifest) -> None:
    """Raise Forbidden unless he may set this plugin: who says which identity provider vouches for people can have it
    vouch for himself, as an administrator."""
    if manifest.type == "identity":
        actor.require("*")


def configured(actor: Actor, plugin_id: str, note: str, untested: bool) -> Change:
    """What is written down of settings that were saved."""
    reason = UNTESTED if untested else None
    return Change(actor, plugin_id, note, ProviderEvent.CONFIGURED, reason, mended=not untested)


def examined(
    runtime: Runtime,
    plugin_id: str,
    values: Mapping[str, Any],
    was: Mapping[str, Any],
    *,
    untested: bool,
) -> dict[str, Any]:
    """What is to be saved of settings of a plugin, where `was` is what is saved of it now: secrets that read MASK are
    left alone. Raises as configure()."""
    manifest = catalogue.the_manifest(runtime, plugin_id)
    _check_values(manifest, values)
    wish = manifests.unmasked(manifest, values)
    saved = {key: value for key, value in {**was, **wish}.items() if value is not None}
    try:
        would_be = runtime.plugins.settings(plugin_id, saved)
    except ConfigError as error:
        raise InvalidFields(errors={"settings": [error.detail]}) from None
    # Secrets that the caller need not know.
    unsaid = {key for key in manifest.secrets if would_be.get(key) and wish.get(key) is None}
    moved = _moved(runtime, manifest, was, wish, would_be)
    _guard_secrets(manifest, unsaid, moved, was, saved)
    if oversight.slots(runtime.plugins, runtime.config, plugin_id):
        _demand_proof(runtime, manifest, would_be)
    if not untested:
        _demand(runtime, plugin_id, saved)
    return wish


def moves(
    runtime: Runtime, before: Config, after: Config, saved: Saved, *, but: Collection[str] | None
) -> list[tuple[str, str, ProviderEvent]]:
    """The plugins that get or lose a slot by other options, with the slot. `saved` are plugins' settings as they would
    be. Raises InvalidFields for one that cannot have its slot, ChangeRefused when its test fails; `but` these need
    none (None: nobody does)."""
    had, gets = _slots(runtime, before), _slots(runtime, after)
    for plugin_id, slot in gets - had:
        try:
            fits = _can_have(runtime.plugins.manifest(plugin_id), slot)
        except PluginError:
            fits = False
        if not fits:
            raise InvalidFields(
                errors={_OPTION[slot]: [f"{plugin_id} cannot be active for {slot}"]}
            )
    new = {plugin_id for plugin_id, _ in gets - had}
    for plugin_id in sorted(new):
        settings = _settings_if(runtime, plugin_id, saved.get(plugin_id, {}))
        _demand_proof(runtime, runtime.plugins.manifest(plugin_id), settings)
    for plugin_id in sorted(new.difference(but) if but is not None else ()):
        _demand(runtime, plugin_id, saved.get(plugin_id, {}))
    return sorted(
        [(*each, ProviderEvent.DEACTIVATED) for each in had - gets]
        + [(*each, ProviderEvent.ACTIVATED) for each in gets - had]
    )


def _slots(runtime: Runtime, config: Config) -> set[tuple[str, str]]:
    named = config.inbound_backends
    receivers = (
        config.inbound_provider_ids if named else oversight.receivers(runtime.plugins, config)
    )
    return {
        *((each, OUTBOUND) for each in config.provider_ids),
        *((each, INBOUND) for each in receivers),
        (config.storage_backend, STORAGE),
        *((each, NOTIFICATION) for each in config.notification_plugin_ids),
    }


_OPTION = {OUTBOUND: _ORDER, INBOUND: _RECEIVING, STORAGE: _STORING, NOTIFICATION: _TELLING}
_NEEDED = {OUTBOUND: "send_fax", INBOUND: "inbound_supported"}


def possible(runtime: Runtime, plugin_id: str) -> list[str]:
    """The slots that a plugin can have; raises NotFound."""
    manifest = catalogue.the_manifest(runtime, plugin_id)
    return [slot for slot in SLOTS if _can_have(manifest, slot)]


def _can_have(manifest: Manifest, slot: str) -> bool:
    if slot in (STORAGE, NOTIFICATION):
        return manifest.type == slot
    return manifest.type == "transport" and manifest.has(_NEEDED[slot])


def _check_values(manifest: Manifest, values: Mapping[str, Any]) -> None:
    if not manifest.properties.keys() >= values.keys():
        # A key that is none is the client's own, and is not repeated.
        known = ", ".join(manifest.properties) or "none"
        raise InvalidFields(errors={"settings": [f"has an unknown key; known are {known}"]})
    for key in values:
        if ours := _OURS.intersection(manifest.variables.get(key, ())):
            sentence = f"is set for all of faxbot, by {min(ours)} in the environment"
            raise InvalidFields(errors={key: [sentence]})
    odds = {key: odd(manifest.properties[key], value) for key, value in values.items()}
    if errors := {key: [words] for key, words in odds.items() if words}:
        raise InvalidFields(errors=errors)


def odd(rule: Mapping[str, Any], value: Any) -> str:
    """Why the value of a plugin's setting does not belong there, in words that follow its name; empty: it does."""
    if not isinstance(value, str) or {"secret", "pattern", "enum"} & rule.keys():
        return ""
    if telltale.has_number(value) or telltale.is_personal(value):
        return (
            "holds what looks like a telephone number or a person's data: it does not belong there"
        )
    return ""


def addresses(manifest: Manifest) -> list[str]:
    """The keys of settings that name where a plugin's secrets are sent."""
    return [key for key, rule in manifest.properties.items() if rule.get("format") in _PLACES]


def _moved(
    runtime: Runtime,
    manifest: Manifest,
    was: Mapping[str, Any],
    wish: Mapping[str, Any],
    would_be: Mapping[str, Any],
) -> list[str]:
    """The addresses that would be others than with what `was` saved; where that does not hold together, all that
    are named."""
    try:
        before = runtime.plugins.settings(manifest.id, was)
    except ConfigError:
        return [key for key in addresses(manifest) if key in wish]
    return [key for key in addresses(manifest) if before.get(key) != would_be.get(key)]


def _guard_secrets(
    manifest: Manifest,
    keys: Iterable[str],
    moved: list[str],
    was: Mapping[str, Any],
    saved: Mapping[str, Any],
) -> None:
    """Raise InvalidFields where one of these secrets would go to an address that somebody chose: one that was saved to
    another than before, one of the environment to any that the environment does not name itself."""
    chosen = [address for address in addresses(manifest) if address in saved]
    errors = {}
    for key in sorted(keys):
        back = key in was and key not in saved
        astray = moved if key in saved else chosen if moved or back else []
        if astray:
            errors[key] = [f"is sent to another address ({', '.join(astray)}): give it again"]
    if errors:
        raise InvalidFields(errors=errors)


def _health_if(runtime: Runtime, plugin_id: str, saved: Mapping[str, Any]) -> dict[str, Any]:
    try:
        with runtime.plugins.tried(plugin_id, saved) as plugin:
            return oversight.said_of_itself(plugin)
    except FaxbotError as error:
        return {"ok": False, "detail": error.detail}


def _settings_if(runtime: Runtime, plugin_id: str, saved: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return runtime.plugins.settings(plugin_id, saved)
    except ConfigError:
        return {}


def _demand_proof(runtime: Runtime, manifest: Manifest, settings: Mapping[str, Any]) -> None:
    """In production nothing is active whose carrier's callbacks cannot be proven (doctor)."""
    unset = [key for key in oversight.proof_settings(manifest) if not settings.get(key)]
    if runtime.config.production and unset:
        names = [" or ".join(manifest.variables.get(key, (key,))) for key in unset]
        raise ChangeRefused(
            f"in production its carrier's callbacks must be proven: set {', '.join(names)} first"
        )


def _demand(runtime: Runtime, plugin_id: str, saved: Mapping[str, Any]) -> None:
    health = _health_if(runtime, plugin_id, saved)
    if not health["ok"]:
        raise ChangeRefused(
            f"nothing was changed, because the plugin {plugin_id} does not work so: {health['detail']}"
        )


def _save(runtime: Runtime, change: Change, wish: Wish, seen: int) -> None:
    deed = Deed(
        change.actor,
        change.note,
        _ACTIONS[change.event],
        ("plugin", change.plugin_id),
        {"event": change.event.value, "reason": change.reason},
    )
    revisions.save(
        runtime, deed, wish, seen=seen, more=lambda session, now: write_down(session, change, now)
    )


def write_down(session: Session, change: Change, now: datetime) -> None:
    """Write a change into the provider's history, and close a breaker that no longer means anything."""
    actor = change.actor
    state = breaker.locked(session, actor.account_id, change.plugin_id, now)
    if change.mended and state.opened_at is not None:
        breaker.reset(session, state, now, actor=actor.id, note=change.note)
    breaker.record(
        session,
        state,
        change.event,
        now,
        reason=change.reason,
        note=change.note,
        actor=actor.id,
    )


_ACTIONS = {
    ProviderEvent.ACTIVATED: Action.PLUGIN_ACTIVATED,
    ProviderEvent.DEACTIVATED: Action.PLUGIN_DEACTIVATED,
    ProviderEvent.CONFIGURED: Action.PLUGIN_CONFIGURED,
}


def _listed(plugin_ids: list[str]) -> str:
    return ",".join(dict.fromkeys(plugin_ids))
