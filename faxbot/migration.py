"""Coming from the earlier Faxbot: a plan says what would become of each value that it was told, and why; only then it
is written, as one revision that can be gone back from.

plan() is pure: nothing is asked, read or written for it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from faxbot import activation, configuration, oversight, phone
from faxbot.actors import Actor
from faxbot.config import BY_NAME, Config
from faxbot.errors import ChangeRefused, ConfigError, InvalidFields
from faxbot.legacy import JSON_KEYS, PUBLISHED, SHOWN_ONLY, SLOTS, TABLE, Row
from faxbot.options import TRUE, Option
from faxbot.plugins import manifest as manifests
from faxbot.plugins.manifest import MASK, Manifest
from faxbot.revisions import name_of
from faxbot.runtime import Runtime
from faxbot.settings import OPTIONS, Snapshot

SAME, RENAMED, DIFFERS, DROPPED, UNSET = "same", "renamed", "differs", "dropped", "not set"
"""What becomes of a value; the last one says that a default is another one here."""
ENVIRONMENT, DATABASE = "environment", "database"
"""Where it belongs."""
_EXAMPLE = re.compile(r"your[_-].*", re.IGNORECASE)
"""What its .env.example has where a value belongs."""
_SECRET = re.compile(r"(KEY|SECRET|PASSWORD|PASS|TOKEN)$|^DATABASE_URL$")
_NUMBER = re.compile(r"\+?[0-9][0-9 ().-]{5,}[0-9]")


@dataclass(frozen=True, slots=True)
class Found:
    """What the earlier Faxbot was told: values by the name of its variable, and what was not understood."""

    values: Mapping[str, str] = field(repr=False)
    not_taken: tuple[tuple[str, str], ...] = ()
    """Names (never values) with the reason."""
    from_environment: bool = True


@dataclass(frozen=True, slots=True)
class Known:
    """What this installation can be told."""

    manifests: tuple[Manifest, ...]
    options: Mapping[str, Option] = field(default_factory=lambda: BY_NAME)

    def settings_of(self, variable: str) -> list[tuple[Manifest, str]]:
        """Settings of plugins that are read from it; not those that faxbot itself goes by."""
        if variable in self.options:
            return []
        return [
            (manifest, key)
            for manifest in self.manifests
            for key, names in manifest.variables.items()
            if variable in names
        ]

    def is_known(self, variable: str) -> bool:
        return variable in self.options or bool(self.settings_of(variable))

    def is_secret(self, variable: str) -> bool:
        if variable in self.options:
            return self.options[variable].secret
        of_plugins = self.settings_of(variable)
        return bool(_SECRET.search(variable)) or any(
            key in manifest.secrets for manifest, key in of_plugins
        )


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes of one value; everything here may be shown."""

    name: str
    kind: str
    shown: str = ""
    new: str = ""
    place: str = ""
    note: str = ""
    warning: str = ""


@dataclass(slots=True)
class Plan:
    """What would be done, and what with."""

    steps: list[Step] = field(default_factory=list)
    saved: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)
    """For the database, by scope (OPTIONS, or a plugin's id) and key."""
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    """For the environment, by variable of ours."""

    @property
    def provider_id(self) -> str:
        """Which provider is to send; empty where nothing said so."""
        return str(self.saved.get(OPTIONS, {}).get("FAX_BACKENDS", ""))

    @property
    def chosen(self) -> tuple[str, ...]:
        """The plugins that something said: who is to send, and what is to keep documents."""
        options = self.saved.get(OPTIONS, {})
        return tuple(str(options[name]) for name in _PLUGIN_OPTIONS if name in options)

    @property
    def wish(self) -> dict[str, Any]:
        """For the database, by full name."""
        return {
            name_of(scope, key): value
            for scope, values in self.saved.items()
            for key, value in values.items()
        }


def of_environment(environ: Mapping[str, str], *, whole: bool = False) -> Found:
    """What of `environ` the earlier Faxbot read; an empty variable is an unset one. `whole`: it was written for
    faxbot, so that names which nobody knows are worth a word."""
    names = {row.name for row in TABLE}
    given = {name: value for name, value in environ.items() if value}
    values = {name: value for name, value in given.items() if whole or name in names}
    return Found(values)


def of_json(text: str) -> Found:
    """What a faxbot.config.json says; raises ConfigError, never with what it holds."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigError("it is not JSON") from None
    providers = document.get("providers") if isinstance(document, dict) else None
    if not isinstance(providers, dict) or document.get("version") != 1:
        raise ConfigError(
            "it is no faxbot.config.json of the earlier Faxbot (version 1, with `providers`)"
        )
    values: dict[str, str] = {}
    not_taken: list[tuple[str, str]] = []
    for slot, entry in providers.items():
        _read_slot(str(slot), entry, values, not_taken)
    return Found(values, tuple(not_taken), from_environment=False)


def _read_slot(
    slot: str, entry: Any, values: dict[str, str], not_taken: list[tuple[str, str]]
) -> None:
    name = f"providers.{slot if slot in ('outbound', 'inbound', 'auth', 'storage') else '?'}"
    plugin = entry.get("plugin") if isinstance(entry, dict) else entry
    if plugin is None:
        return
    if slot not in SLOTS:
        not_taken.append((name, "the earlier Faxbot never read it"))
        return
    if not isinstance(entry, dict) or not isinstance(plugin, str):
        not_taken.append((name, "it names no plugin"))
        return
    if not entry.get("enabled", True):
        not_taken.append((name, "it is not enabled there"))
        return
    values[SLOTS[slot]] = plugin
    settings = entry.get("settings") or {}
    if not isinstance(settings, dict):
        not_taken.append((f"{name}.settings", "it is no object"))
        return
    _read_settings(f"{name}.settings", JSON_KEYS.get(plugin, {}), settings, values, not_taken)


def _read_settings(
    name: str,
    keys: Mapping[str, str],
    settings: Mapping[str, Any],
    values: dict[str, str],
    not_taken: list[tuple[str, str]],
) -> None:
    for key, value in settings.items():
        if key in SHOWN_ONLY or value is None or value == "":
            continue
        if reason := _no_value(key in keys, value):
            label = key if re.fullmatch(r"[A-Za-z0-9_]{1,64}", key) else "?"
            not_taken.append((f"{name}.{label}", reason))
        else:
            values[keys[key]] = str(value).lower() if isinstance(value, bool) else str(value)


def _no_value(known: bool, value: Any) -> str:
    """Why a JSON value is not taken as a variable would have it; empty: it is."""
    if not known:
        return "no such setting is known"
    if not isinstance(value, str | int | float):
        return "it is no text, number or truth value"
    if re.fullmatch(r"\*+", str(value)):
        return "it is only the mask of a secret: add the variable to the .env"
    return ""


def joined(founds: Iterable[Found]) -> Found:
    """Several of them as one; what comes first counts, as the environment did with the earlier Faxbot before the
    file, and each conflict is told."""
    values: dict[str, str] = {}
    not_taken: list[tuple[str, str]] = []
    several = tuple(founds)
    for found in several:
        not_taken += found.not_taken
        for name, value in found.values.items():
            if values.setdefault(name, value) != value and not found.from_environment:
                not_taken.append(
                    (f"{name} of the file", "the environment says something else, and counted")
                )
    return Found(values, tuple(not_taken), any(found.from_environment for found in several))


def plan(found: Found, known: Known) -> Plan:
    """What becomes of everything that was found; nothing is done."""
    made = Plan()
    ours: dict[str, str] = {}
    for row in TABLE:
        if row.name in found.values:
            made.steps.append(_step(row, found.values[row.name], known, ours))
    rows = {row.name for row in TABLE}
    for name in sorted(found.values.keys() - rows):
        made.steps.append(_foreign(name, found.values[name], known, ours))
    made.steps += [Step(name, DROPPED, note=reason) for name, reason in found.not_taken]
    _place(made, ours, known)
    if found.from_environment:
        made.steps += _other_defaults(found, made, known)
    return made


def _step(row: Row, value: str, known: Known, ours: dict[str, str]) -> Step:
    secret = known.is_secret(row.name) or bool(row.new and known.is_secret(row.new))
    shown = masked(value, secret=secret)
    warning = _warning(value, secret=secret)
    new = row.name if row.new is None else row.new
    if not new or not known.is_known(new):
        gone = row.gone or f"no plugin with a setting {new} is installed"
        return Step(row.name, DROPPED, shown, note=gone, warning=warning)
    if _EXAMPLE.fullmatch(value):
        return Step(
            row.name,
            DROPPED,
            shown,
            note="is what the earlier one's example has there, and no value",
        )
    value, refusal = _converted(new, value, known)
    if refusal:
        return Step(row.name, DROPPED, shown, note=refusal, warning=warning)
    ours[new] = value
    kind = RENAMED if new != row.name else DIFFERS if row.note else SAME
    place = _place_of(new, known)
    return Step(row.name, kind, shown, new, place, row.note, warning)


def _foreign(name: str, value: str, known: Known, ours: dict[str, str]) -> Step:
    """A variable that the earlier one did not have: ours, or anybody's."""
    shown = masked(value, secret=known.is_secret(name))
    if not known.is_known(name):
        return Step(name, DROPPED, note="neither Faxbot knows it")
    value, refusal = _converted(name, value, known)
    if refusal:
        return Step(name, DROPPED, shown, note=refusal)
    ours[name] = value
    return Step(name, SAME, shown, name, _place_of(name, known), "a setting of this faxbot")


def _warning(value: str, *, secret: bool) -> str:
    if "${" in value:
        return "${...} in it is taken as it stands, not looked up"
    if secret and hashlib.sha256(value.encode(errors="replace")).hexdigest() in PUBLISHED:
        return "this very secret lies in the earlier Faxbot's public repository: everybody knows it, change it"
    return ""


def masked(value: str, *, secret: bool) -> str:
    """A value fit to be shown: no secret, no number, nothing that steers a terminal."""
    if secret:
        return MASK
    text = "".join(sign if sign.isprintable() else "?" for sign in value)
    if "://" in text:
        text = re.sub(r"//.*@", f"//{MASK}@", text)
        text = re.sub(r"\?.*", f"?{MASK}", text)
    elif not re.fullmatch(r"[0-9]+(\.[0-9]+){3}", text):
        text = _NUMBER.sub(lambda number: phone.mask(number[0]), text)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _place_of(variable: str, known: Known) -> str:
    if variable in known.options:
        return DATABASE if known.options[variable].editable else ENVIRONMENT
    plugin_ids = dict.fromkeys(manifest.id for manifest, _ in known.settings_of(variable))
    return f"{DATABASE} ({', '.join(plugin_ids)})"


def _converted(variable: str, value: str, known: Known) -> tuple[str, str]:
    """The value as ours is written, and why it cannot be had (empty: it can)."""
    if variable in _PLUGIN_OPTIONS:
        return _plugin_id(variable, value, known)
    option = known.options.get(variable)
    if option is None:
        return value, ""
    if option.kind == "bool":
        # The earlier one took everything else for false, `on` too.
        value = "true" if value.lower() in TRUE - {"on"} else "false"
    try:
        Config.load({variable: value})
    except ConfigError as error:
        return value, error.detail
    return value, ""


_PLUGIN_OPTIONS: Mapping[str, tuple[str, Callable[[Manifest], bool]]] = {
    "FAX_BACKENDS": ("provider", lambda manifest: manifest.has("send_fax")),
    "STORAGE_BACKEND": ("storage", lambda manifest: manifest.type == "storage"),
}


def _plugin_id(variable: str, value: str, known: Known) -> tuple[str, str]:
    kind, fits = _PLUGIN_OPTIONS[variable]
    wanted = value.strip().lower()
    wanted = "asterisk" if wanted == "sip" else wanted
    if any(manifest.id == wanted and fits(manifest) for manifest in known.manifests):
        return wanted, ""
    return value, f"no {kind} plugin of this name is installed"


def _place(made: Plan, ours: Mapping[str, str], known: Known) -> None:
    """Sort what was taken over into what the database and what the environment is told."""
    for name, value in ours.items():
        if name in known.options:
            if known.options[name].editable:
                made.saved.setdefault(OPTIONS, {})[name] = value
            else:
                made.environment[name] = value
    for manifest in known.manifests:
        own = {
            key: names for key, names in manifest.variables.items() if known.settings_of(names[0])
        }
        # A plugin that only another one's variables would serve was not meant.
        if any(names[0] in ours for names in own.values()):
            given = manifests.given(manifest, ours)
            made.saved[manifest.id] = {key: given[key] for key in own if key in given}


def _other_defaults(found: Found, made: Plan, known: Known) -> list[Step]:
    """What nobody said, and what is taken for it is another thing here."""
    steps = []
    for row in TABLE:
        new = row.name if row.new is None else row.new
        if not row.default or row.name in found.values or known.is_secret(new):
            continue
        default = _default(new, made.chosen, known)
        if default is not None and default != row.default:
            note = f"the earlier one took {row.default}, this one takes {default or 'nothing'}"
            steps.append(Step(row.name, UNSET, new=new, note=note))
    return steps


def _default(variable: str, chosen: Collection[str], known: Known) -> str | None:
    """What we take where a variable is not set; None where that is of no interest."""
    if variable == "FAX_BACKENDS":
        variable = "FAX_BACKEND"
    if variable in known.options:
        default = known.options[variable].default
        return str(default).lower() if isinstance(default, bool) else str(default)
    for manifest, key in known.settings_of(variable):
        if manifest.id in chosen:
            return str(manifest.properties[key].get("default", ""))
    return None


# Doing it -------------------------------------------------------------------------------------------------------------


def weigh(runtime: Runtime, made: Plan, *, untested: bool) -> dict[str, str]:
    """Take out of the plan the settings of plugins that cannot be set so, or, unless `untested`, do not work so: the
    reasons, by plugin. What those lack that were chosen stays in it, so that apply() refuses it."""
    reasons: dict[str, str] = {}
    snapshot = runtime.settings.read()
    for plugin_id in sorted(made.saved.keys() - {OPTIONS}):
        try:
            activation.examined(
                runtime,
                plugin_id,
                made.saved[plugin_id],
                snapshot.of_plugin(plugin_id),
                untested=untested,
            )
        except InvalidFields as error:
            told = (
                sentence if key == "settings" else f"{key} {sentence}"
                for key, sentences in error.errors.items()
                for sentence in sentences
            )
            reasons[plugin_id] = "; ".join(told)
        except ChangeRefused as error:
            reasons[plugin_id] = error.detail
    for plugin_id in reasons:
        if plugin_id not in (*made.chosen, *snapshot.config.provider_ids):
            del made.saved[plugin_id]
    return reasons


@dataclass(frozen=True, slots=True)
class Applied:
    """What was written."""

    before: int
    """The version of the settings that can be gone back to."""
    version: int
    differing: tuple[str, ...]
    """What does not read back as it was written; empty when all is well."""
    health: Mapping[str, Any]
    """Whether the provider that sends now works, as it says itself; {} where nobody asked."""


def apply(runtime: Runtime, actor: Actor, made: Plan, *, note: str, untested: bool) -> Applied:
    """Write the plan as one revision, then read back what holds, and ask the provider that sends.

    Raises as configuration.change().
    """
    before = runtime.settings.read().version
    configuration.change(runtime, actor, made.wish, note=note, seen=before, untested=untested)
    runtime = runtime.fresh()
    health = {} if untested else oversight.health_of(runtime, runtime.config.provider_id)
    snapshot = runtime.settings.read()
    return Applied(before, snapshot.version, tuple(_differing(runtime, snapshot, made)), health)


def _differing(runtime: Runtime, snapshot: Snapshot, made: Plan) -> list[str]:
    wrong = []
    for scope, values in made.saved.items():
        if scope == OPTIONS:
            meant = Config.load(values)
            holds = {name: getattr(snapshot.config, BY_NAME[name].field) for name in values}
            wanted = {name: getattr(meant, BY_NAME[name].field) for name in values}
        else:
            holds, wanted = runtime.plugins.settings(scope, snapshot.of_plugin(scope)), values
        wrong += [name_of(scope, key) for key in values if holds.get(key) != wanted[key]]
    return wrong
