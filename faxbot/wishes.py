"""Settings that somebody wants saved, checked as a whole before anything is: every name and value, what they come to
together, and whether the plugins work so.

What is refused is never repeated: who brings the wrong file may bring a person's data.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from faxbot import activation, oversight, telltale
from faxbot.config import BY_NAME, Config
from faxbot.errors import (
    ChangedMeanwhile,
    ConfigError,
    InvalidFields,
    PluginError,
)
from faxbot.events import ProviderEvent
from faxbot.options import Option
from faxbot.plugins import manifest as manifests
from faxbot.plugins.manifest import MASK, Manifest
from faxbot.revisions import name_of
from faxbot.runtime import Runtime
from faxbot.settings import OPTIONS, Saved, Stored

Values = Mapping[str, Any]
Wanted = Mapping[str, Mapping[str, Any]]
"""By scope (OPTIONS, or a plugin's id) and key; None takes back."""

FREE_TEXT = frozenset({"FAX_HEADER"})
"""Options that may hold a telephone number: the sender's own."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be saved, checked, over what was read."""

    stored: Stored
    note: str
    wish: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What really changes."""
    moves: list[tuple[str, str, ProviderEvent]] = field(default_factory=list)
    untested: bool = False
    left_out: list[str] = field(default_factory=list)


def plan(
    runtime: Runtime,
    wanted: Wanted,
    note: str,
    *,
    untested: bool,
    seen: int | None = None,
    whole: bool = False,
    known: bool = False,
) -> Plan:
    """What is to be saved so that these values are. `whole`: what is not wanted is taken back. `known`: they come from
    our own revisions, so that no look for a person's data is needed.

    Raises InvalidFields by name, ChangeRefused when a plugin does not work so, ChangedMeanwhile when version `seen` is
    not the newest.
    """
    oversight.check_note(note)
    stored = runtime.settings.stored()
    if seen not in (None, stored.version):
        raise ChangedMeanwhile("the settings were changed meanwhile: nothing was saved")
    if whole:
        wanted = _with_the_rest_taken_back(stored, wanted)
    made = Plan(stored, note, untested=untested)
    wanted = {
        scope: _settings(runtime, scope, values)
        if scope != OPTIONS
        else _texts(stored, values, known)
        for scope, values in wanted.items()
    }
    for scope, values in wanted.items():
        if changed := _changed(stored, scope, values):
            made.wish[scope] = changed
    _check_together(runtime, made)
    boot, after = runtime.settings.boot, _after(stored, made.wish)
    before = boot.with_sound(stored.options)
    would_be = boot.with_sound(after.get(OPTIONS, {}))
    tested = sorted(made.wish.keys() - {OPTIONS})
    for plugin_id in tested:
        if not _only_leaves(runtime, made, plugin_id, would_be):
            _examine(runtime, stored, plugin_id, wanted[plugin_id], untested)
    if OPTIONS in made.wish:
        but = None if untested else tested
        made.moves.extend(activation.moves(runtime, before, would_be, after, but=but))
    return made


def _with_the_rest_taken_back(stored: Stored, wanted: Wanted) -> Wanted:
    there = [*stored.faults, *((scope, key) for scope, key, _ in places(stored.saved))]
    full = {scope: dict(values) for scope, values in wanted.items()}
    for scope, key in there:
        full.setdefault(scope, {}).setdefault(key, None)
    return full


def _changed(stored: Stored, scope: str, values: Values) -> dict[str, Any]:
    """Those that are not saved so already."""
    saved = stored.saved.get(scope, {})
    return {
        key: value
        for key, value in values.items()
        if (key in saved or (scope, key) in stored.faults if value is None else True)
        and not (key in saved and type(saved[key]) is type(value) and saved[key] == value)
    }


def _after(stored: Stored, wish: Wanted) -> dict[str, dict[str, Any]]:
    """What would be saved."""
    return {
        scope: {
            key: value
            for key, value in {**stored.saved.get(scope, {}), **wish.get(scope, {})}.items()
            if value is not None
        }
        for scope in {*stored.saved, *wish}
    }


def _check_together(runtime: Runtime, plan: Plan) -> None:
    """Raise InvalidFields where options would not hold; those that do not hold already can be taken back one by one."""
    stored, wish = plan.stored, plan.wish
    left = {
        (scope, key): fault
        for (scope, key), fault in stored.faults.items()
        if key not in wish.get(scope, {})
    }
    options = _after(stored, wish).get(OPTIONS, {})
    closed = {
        (scope, key): fault
        for (scope, key), fault in left.items()
        if key not in stored.saved.get(scope, {})
    }
    faults = {**closed, **runtime.settings.faults(options)}
    sets = any(value is not None for values in wish.values() for value in values.values())
    if faults and (sets or not faults.keys() <= stored.faults.keys()):
        raise InvalidFields(errors={name_of(*place): [fault] for place, fault in faults.items()})


def _texts(stored: Stored, values: Values, known: bool) -> dict[str, str | None]:
    """Values of options as they are saved, masked secrets left out; raises InvalidFields by name."""
    errors: dict[str, list[str]] = {}
    texts: dict[str, str | None] = {}
    for position, (name, value) in enumerate(values.items(), 1):
        there = name in stored.options or (OPTIONS, name) in stored.faults
        if value is None and there:
            texts[name] = None
        elif name not in BY_NAME:
            field, sentence = _stranger(name, position)
            errors.setdefault(field, []).append(sentence)
        elif not BY_NAME[name].editable:
            errors[name] = [only_environment(name)]
        elif not (BY_NAME[name].secret and value == MASK):
            texts[name] = _text(BY_NAME[name], value)
            if not known and (fault := out_of_place(BY_NAME[name], texts[name])):
                errors[name] = [fault]
    if errors:
        raise InvalidFields(errors=errors)
    return texts


def _text(option: Option, value: Any) -> str | None:
    """As options are written in the environment: JSON has one kind of number, 5.0 is the whole number 5."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and option.kind == "int" and value.is_integer():
        return str(int(value))
    if isinstance(value, int | float):
        return str(value)
    raise InvalidFields(errors={option.name: ["must be text, a number, true, false or null"]})


def out_of_place(option: Option, text: str | None) -> str:
    """Why the value of an option does not belong among settings, in a sentence; empty: it does."""
    if text and option.kind == "str":
        if telltale.is_personal(text):
            return f"{option.name} looks like a person's data: settings hold none"
        if option.name not in FREE_TEXT and telltale.has_number(text):
            return (
                f"{option.name} holds what looks like a telephone number: it does not belong there"
            )
    return ""


def _settings(runtime: Runtime, plugin_id: str, values: Values) -> Values:
    manifest = manifest_of(runtime, plugin_id)
    return manifests.unmasked(manifest, values) if manifest else values


def _only_leaves(runtime: Runtime, plan: Plan, plugin_id: str, would_be: Config) -> bool:
    """Whether settings are taken back only, of a plugin that has no slot then, or does not work as it is; and no
    address is left that a secret of the environment would go to."""
    manifest, stored = manifest_of(runtime, plugin_id), plan.stored
    after = _after(stored, plan.wish).get(plugin_id, {})
    sets = any(value is not None for value in plan.wish[plugin_id].values())
    if manifest is None or sets or any(key in after for key in activation.addresses(manifest)):
        return False
    if not oversight.slots(runtime.plugins, would_be, plugin_id):
        return True
    try:
        runtime.plugins.settings(plugin_id, stored.saved.get(plugin_id, {}))
    except ConfigError:
        return True
    return any(scope == plugin_id for scope, _ in stored.faults)


def _examine(
    runtime: Runtime, stored: Stored, plugin_id: str, values: Values, untested: bool
) -> None:
    """Raise where a plugin cannot be set so, or does not work so."""
    manifest = manifest_of(runtime, plugin_id)
    # What does not open is there all the same: who takes it back lets the environment's in.
    closed = {key: "" for scope, key in stored.faults if scope == plugin_id and key in values}
    was = {**stored.saved.get(plugin_id, {}), **closed}
    # What no plugin here knows can only be taken back.
    values = {
        key: value
        for key, value in values.items()
        if value is not None or (manifest is not None and key in manifest.properties)
    }
    if not values:
        return
    if manifest is None:
        installed = [each.id for each in runtime.plugins.manifests()]
        raise InvalidFields(errors={"plugins": [unknown(plugin_id, installed, "plugin")]})
    if strange := _strange_keys(manifest, values):
        raise InvalidFields(errors={manifest.id: strange})
    try:
        activation.examined(runtime, plugin_id, values, was, untested=untested)
    except InvalidFields as error:
        named = {
            plugin_id if key == "settings" else name_of(plugin_id, key): sentences
            for key, sentences in error.errors.items()
        }
        raise InvalidFields(errors=named) from None


def _strange_keys(manifest: Manifest, values: Values) -> list[str]:
    """A sentence about each key that the plugin does not have."""
    return [
        f"has no such setting (is {nearest} meant?)"
        if (nearest := near(key, manifest.properties))
        else _nameless(key, position)
        for position, key in enumerate(values, 1)
        if key not in manifest.properties
    ]


def _stranger(name: str, position: int) -> tuple[str, str]:
    """Under which name, and with which sentence, an unknown option is refused: its own may be a person's, and is not
    repeated."""
    nearest = near(name, BY_NAME)
    if nearest:
        return nearest, f"an option is not known (is {nearest} meant?)"
    return "options", _nameless(name, position)


def _nameless(name: str, position: int) -> str:
    if telltale.is_key(name):
        return f"key {position} looks like a person's data: settings hold none"
    return f"key {position} is not known (docs/settings.md lists all options)"


def unknown(name: str, known: Iterable[str], what: str) -> str:
    """A sentence about a name that is none, with the one that is meant perhaps."""
    nearest = near(name, known)
    return (
        f"there is no such {what} (is {nearest} meant?)" if nearest else f"there is no such {what}"
    )


def near(name: str, known: Iterable[str]) -> str:
    """The known name that looks most like it; "" where none does."""
    by_fold = {each.casefold(): each for each in known}
    found = difflib.get_close_matches(name.casefold(), by_fold, n=1, cutoff=0.75)
    return by_fold[found[0]] if found else ""


# Words and places -----------------------------------------------------------------------------------


def places(saved: Saved) -> Iterator[tuple[str, str, Any]]:
    """What is saved, one by one in order: scope, key, value."""
    for scope, values in sorted(saved.items()):
        for key, value in sorted(values.items()):
            yield scope, key, value


def only_environment(name: str) -> str:
    """Why an option cannot be saved."""
    return f"{name} is taken from the environment only ({BY_NAME[name].fixed})"


def manifest_of(runtime: Runtime, plugin_id: str) -> Manifest | None:
    """None where no such plugin can be used."""
    try:
        return runtime.plugins.manifest(plugin_id)
    except PluginError:
        return None
