"""What an administrator sees of the plugins: which are installed, which are broken and why, how their settings stand,
whether they work; and the registry of those that somebody has looked at."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from faxbot import guard, oversight
from faxbot.actors import Actor
from faxbot.config import BY_NAME
from faxbot.errors import ConfigError, NotFound, PluginError
from faxbot.plugins import manifest as manifests
from faxbot.plugins import registry
from faxbot.plugins.manifest import Manifest
from faxbot.runtime import Runtime


def plugins(runtime: Runtime, actor: Actor) -> dict[str, Any]:
    """{"items": usable ones, "broken": the others with the reason}, as plain JSON types."""
    runtime = runtime.anew()
    broken = runtime.plugins.broken  # imports what was not imported yet
    return {
        "items": [_describe(runtime, actor, each) for each in runtime.plugins.manifests()],
        "broken": [
            {"id": each.name, "package": each.package, "reason": each.reason} for each in broken
        ],
    }


def plugin(runtime: Runtime, actor: Actor, plugin_id: str) -> dict[str, Any]:
    """One of them; raises NotFound."""
    runtime = runtime.anew()
    return _describe(runtime, actor, the_manifest(runtime, plugin_id))


def _describe(runtime: Runtime, actor: Actor, manifest: Manifest) -> dict[str, Any]:
    found = runtime.plugins.found(manifest.id)
    return {
        **standing(runtime, manifest.id),
        "name": manifest.name,
        "version": manifest.version,
        "type": manifest.type,
        "api": manifest.api,
        "package": found.package,
        "sha256": _digest(found.module),
        "traits": list(manifest.traits),
        "required_scope": manifest.required_scope,
        "allowed_hosts": list(manifest.allowed_hosts),
        "categories": list(manifest.categories),
        "hipaa": dict(manifest.hipaa),
        "learn_more": learn_more(runtime, manifest.docs.get("learnMore", "")),
        "disabled": guard.is_disabled(runtime, actor.account_id, manifest.id),
    }


def standing(runtime: Runtime, plugin_id: str) -> dict[str, Any]:
    """What a plugin is active for, also of one that is not there any more."""
    active_for = oversight.slots(runtime.plugins, runtime.config, plugin_id)
    return {"id": plugin_id, "slots": active_for, "active": bool(active_for)}


def _digest(module: Path) -> str | None:
    try:
        return registry.digest(module)
    except PluginError:
        return None  # something among its files is no file


def enable(runtime: Runtime, actor: Actor, plugin_id: str, note: str) -> dict[str, Any]:
    """Have a disabled plugin asked again, for a reason that goes into its provider's history; how it
    stands then. Raises NotFound; InvalidFields as oversight.change()."""
    oversight.change(runtime, actor, plugin_id, "enable", note=note)
    return plugin(runtime, actor, plugin_id)


def learn_more(runtime: Runtime, page: str) -> str | None:
    """The address of a page of the documentation, where DOCS_BASE_URL says where that stands."""
    base = runtime.config.docs_base_url.rstrip("/")
    if page.startswith(("https://", "http://")):
        return page
    return f"{base}{page}" if base and page.startswith("/") else None


def in_words(traits: Iterable[str]) -> list[str]:
    """What traits mean, a sentence for each."""
    said = []
    for each in traits:
        name, _, value = each.partition(":")
        said.append(
            f"{manifests.TRAITS[name].meaning}: {value}"
            if value
            else manifests.TRAITS[name].meaning
        )
    return said


def settings(runtime: Runtime, plugin_id: str) -> dict[str, Any]:
    """How the settings of one plugin stand: value (secrets masked), where it comes from, and what
    is wrong with them, whose values are shown all the same; raises NotFound."""
    runtime = runtime.anew()
    manifest = the_manifest(runtime, plugin_id)
    try:
        values, fault = runtime.plugins.settings(plugin_id), None
    except ConfigError as error:
        values, fault = {}, error.detail
        with suppress(ConfigError):  # what does not open cannot be shown either
            values = runtime.plugins.standing(plugin_id)
    shown = manifests.masked(manifest, values)
    return {
        "id": manifest.id,
        "fault": fault,
        "settings": [
            {
                "key": key,
                "title": rule.get("title", key),
                "description": rule.get("description", ""),
                "type": rule["type"],
                "secret": bool(rule.get("secret")),
                "required": key in manifest.config_schema.get("required", ()),
                "variables": list(manifest.variables.get(key, ())),
                "choices": list(rule.get("enum", ())),
                "default": rule.get("default"),
                "minimum": rule.get("minimum"),
                "maximum": rule.get("maximum"),
                "option": next(iter(BY_NAME.keys() & set(manifest.variables.get(key, ()))), None),
                "value": shown.get(key),
                "source": runtime.plugins.source(plugin_id, key),
            }
            for key, rule in manifest.properties.items()
        ],
    }


def health(runtime: Runtime) -> list[dict[str, Any]]:
    """Of every active plugin whether it works now, as it says itself in time; asks their carriers, all at once."""
    config = runtime.config
    receivers = oversight.receivers(runtime.plugins, config)
    others = (config.storage_backend, *config.notification_plugin_ids)
    active = dict.fromkeys((*config.provider_ids, *receivers, *others))
    said = oversight.health_in_time(runtime, active)
    return [{"id": plugin_id, **said[plugin_id]} for plugin_id in active]


def listed(
    runtime: Runtime, *, category: str | None = None, hipaa_only: bool = False
) -> dict[str, Any]:
    """The registry: {"closed": whether nothing else is admitted, "items": [...]}."""
    found = registry.load(runtime.config.plugin_registry)
    installed = {manifest.id: manifest.version for manifest in runtime.plugins.manifests()}
    return {
        "closed": found.closed,
        "items": [
            {
                "id": entry.id,
                "name": entry.name,
                "package": entry.package,
                "version": entry.version or None,
                "sha256": entry.sha256 or None,
                "categories": list(entry.categories),
                "hipaa": dict(entry.hipaa),
                "learn_more": learn_more(runtime, entry.docs.get("learnMore", "")),
                "installed": installed.get(entry.id),
            }
            for entry in found.listed(category=category, hipaa_only=hipaa_only)
        ],
    }


def the_manifest(runtime: Runtime, plugin_id: str) -> Manifest:
    """Raises NotFound."""
    try:
        return runtime.plugins.manifest(plugin_id)
    except PluginError:
        raise NotFound("there is no such plugin: `faxbot plugins list` shows all") from None
