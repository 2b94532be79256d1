"""How this installation is set: what is saved goes before the environment, and that before the default; every value
with its origin. Whatever is changed is checked first, as a whole, and can be taken back.

Console, HTTP API and command go through these functions; other domain code reads runtime.config, and asks a
Configuration where it has a name only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from faxbot import activation, audit, oversight, revisions, wishes
from faxbot.actors import Actor
from faxbot.audit import Action
from faxbot.config import BY_NAME, GROUP_OF, Config, variable
from faxbot.errors import ConfigError, InvalidFields, NotFound
from faxbot.options import Option
from faxbot.plugins.manifest import MASK
from faxbot.results import stamp
from faxbot.revisions import Deed, name_of
from faxbot.runtime import Runtime
from faxbot.settings import OPTIONS, Stored
from faxbot.wishes import Plan, Values, manifest_of, only_environment, places, unknown

DB, ENV, DEFAULT = "db", "env", "default"
"""Where a value comes from."""
KIND, FORMAT = "faxbot settings", 1
"""What a document of export() says of itself."""
USING_ENVIRONMENT = "Nothing is saved in the database: the environment alone counts."
Item = dict[str, Any]
Also = Callable[[Session, datetime], None]

# Reading --------------------------------------------------------------------------------------------


def overview(runtime: Runtime) -> dict[str, Any]:
    """Everything at this moment: the version, every option (effective()), what is saved for plugins, and what is
    saved and does not count; secrets are masked. Raises DatabaseAway."""
    stored = runtime.settings.stored()
    nothing = not stored.saved and not stored.faults
    return {
        "version": stored.version,
        "using_environment": nothing,
        "notice": USING_ENVIRONMENT if nothing else None,
        "items": _items(runtime, stored, BY_NAME.values()),
        "plugins": [
            {"name": name_of(scope, key), "value": _shown(runtime, scope, key, value)}
            for scope, key, value in places(stored.saved)
            if scope != OPTIONS
        ],
        "broken": [
            *(
                _broken(scope, key, fault, stops=scope == OPTIONS)
                for (scope, key), fault in stored.faults.items()
            ),
            *_left_over(runtime, stored),
        ],
    }


def effective(runtime: Runtime) -> list[Item]:
    """Every option as it stands in the database now: name, group, value (secrets masked), source (`db`, `env`,
    `default`), default, editable, fixed (why it is not), secret, kind, help, feature, warning (where there is one about
    this value), fault (what is wrong with what is saved)."""
    return _items(runtime, runtime.settings.stored(), BY_NAME.values())


def item(runtime: Runtime, name: str) -> Item:
    """One of them, or a plugin's setting (`phaxio.baseUrl`) with name, value, source (also `unset`), secret, kind,
    help, fault; raises NotFound."""
    return _described(runtime, runtime.settings.stored(), name)


def _described(runtime: Runtime, stored: Stored, name: str) -> Item:
    name = variable(name)
    if name in BY_NAME:
        return _items(runtime, stored, [BY_NAME[name]])[0]
    plugin_id, _, key = name.rpartition(".")
    manifest = manifest_of(runtime, plugin_id)
    if manifest is None or key not in manifest.properties:
        raise NotFound(unknown(name, BY_NAME, "option"))
    rule, saved = manifest.properties[key], stored.saved.get(plugin_id, {})
    fault = stored.faults.get((plugin_id, key))
    try:
        value = runtime.plugins.settings(plugin_id, saved).get(key)
    except ConfigError as error:
        value, fault = saved.get(key), fault or error.detail
    here = key in saved or (plugin_id, key) in stored.faults
    return {
        "name": name,
        "value": _masked(value, key in manifest.secrets),
        "source": DB if here else runtime.plugins.source(plugin_id, key),
        "secret": key in manifest.secrets,
        "kind": rule["type"],
        "help": rule.get("description") or rule.get("title", ""),
        "fault": fault,
    }


def features(runtime: Runtime) -> list[Item]:
    """The flags: feature, name, enabled, default, source, editable, fixed, help, warning, warns (whether that is about
    its state now)."""
    return [
        {
            "feature": option.feature,
            "name": option.name,
            "enabled": bool(each["value"]),
            "default": bool(option.default),
            "source": each["source"],
            "editable": option.editable,
            "fixed": option.fixed or None,
            "help": option.help,
            "warning": option.warning or None,
            "warns": each["warning"] is not None,
        }
        for each in effective(runtime)
        if (option := BY_NAME[each["name"]]).feature
    ]


@dataclass(frozen=True, slots=True)
class Configuration:
    """The configuration as one process goes by it: `get`, `set`, `source`, `get_provider_config`; for code that has a
    name only. It costs no query (Settings.snapshot())."""

    runtime: Runtime

    def get(self, name: str) -> Any:
        """The value of an option that holds now, typed as in Config; raises NotFound."""
        return getattr(self._now(), _option(name).field)

    def set(self, actor: Actor, name: str, value: Any, *, note: str) -> Item:
        """Save it (None: take it back); how it stands then. Raises as change()."""
        return change(self.runtime, actor, {name: value}, note=note)[0]

    def source(self, name: str) -> str:
        """Where the value of an option comes from: DB, ENV or DEFAULT; raises NotFound."""
        option = _option(name)
        snapshot = self.runtime.settings.snapshot()
        return _source(option, snapshot.saved.get(OPTIONS, {}), snapshot.config)

    def get_provider_config(self, provider_id: str) -> dict[str, Any]:
        """A plugin's settings, typed, with defaults, and with its secrets: not to be shown. Raises PluginError where
        there is none of that id, ConfigError where they do not hold."""
        snapshot = self.runtime.settings.snapshot()
        return self.runtime.plugins.settings(provider_id, snapshot.of_plugin(provider_id))

    def _now(self) -> Config:
        return self.runtime.settings.snapshot().config


def _option(name: str) -> Option:
    if name not in BY_NAME:
        raise NotFound(unknown(name, BY_NAME, "option"))
    return BY_NAME[name]


def _items(runtime: Runtime, stored: Stored, wanted: Iterable[Option]) -> list[Item]:
    sound = runtime.settings.boot.with_sound(stored.options)
    return [_item(option, sound, stored) for option in wanted]


def _item(option: Option, sound: Config, stored: Stored) -> Item:
    fault = stored.faults.get((OPTIONS, option.name))
    value = None if fault else _plain(getattr(sound, option.field))
    warns = option.warns(value) and not fault
    if option.field == "require_api_key" and sound.keys_required:
        warns = False  # it changes nothing then
    return {
        "name": option.name,
        "group": GROUP_OF[option.name],
        "value": _masked(value, option.secret),
        "source": DB if fault else _source(option, stored.options, sound),
        "default": _plain(option.default),
        "editable": option.editable,
        "fixed": option.fixed or None,
        "secret": option.secret,
        "kind": "str" if option.kind == "Path" else option.kind,
        "help": option.help,
        "feature": option.feature or None,
        "warning": option.warning if warns else None,
        "fault": fault,
    }


def _source(option: Option, saved: Values, config: Config) -> str:
    if option.editable and option.name in saved:
        return DB
    return ENV if config.environ.get(option.name, "") != "" else DEFAULT


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else value


def _masked(value: Any, secret: bool) -> Any:
    return MASK if secret and value not in (None, "") else value


def _shown(runtime: Runtime, scope: str, key: str, value: Any) -> Any:
    """A saved value as it may be shown; what nobody here knows could be a secret."""
    if scope == OPTIONS:
        return _masked(value, key not in BY_NAME or BY_NAME[key].secret)
    manifest = manifest_of(runtime, scope)
    known = manifest is not None and key in manifest.properties
    return _masked(value, not known or (manifest is not None and key in manifest.secrets))


def _broken(scope: str, key: str, fault: str, *, stops: bool) -> Item:
    return {"name": name_of(scope, key) if key else scope, "fault": fault, "stops": stops}


def _left_over(runtime: Runtime, stored: Stored) -> Iterator[Item]:
    """What is saved and is left out: of another version of faxbot, or of a plugin that is gone or is set otherwise."""
    for scope, key, _ in places(stored.saved):
        if why := _not_counted(runtime, scope, key):
            yield _broken(scope, key, why, stops=False)
    for scope, values in sorted(stored.saved.items()):
        if scope != OPTIONS and manifest_of(runtime, scope) is not None:
            try:
                runtime.plugins.settings(scope, values)
            except ConfigError as error:
                yield _broken(scope, "", error.detail, stops=False)


def _not_counted(runtime: Runtime, scope: str, key: str) -> str:
    if scope == OPTIONS:
        if key not in BY_NAME:
            return "this version of faxbot has no such option: it is not counted"
        return "" if BY_NAME[key].editable else f"it is not counted: {only_environment(key)}"
    manifest = manifest_of(runtime, scope)
    if manifest is None:
        return "its plugin is not installed"
    return "" if key in manifest.properties else "the plugin has no such setting: it is not counted"


# Changing -------------------------------------------------------------------------------------------


@audit.refusals(Action.CONFIG_CHANGED)
def change(
    runtime: Runtime,
    actor: Actor,
    wish: Values,
    *,
    note: str,
    seen: int | None = None,
    untested: bool = False,
    also: Also | None = None,
) -> list[Item]:
    """Save values by name, options by variable and plugins' settings as `plugin.key`; how these stand then (item()).

    None takes back what was saved, MASK leaves a secret alone, and a value is text, a number or a truth value. A
    plugin whose settings change, or that becomes active, is tested first, unless `untested`. Where nothing would
    change nothing is written. `also` is done in the same transaction, or in one of its own where nothing changes.

    Raises InvalidFields by name, ChangeRefused when a test fails, ChangedMeanwhile when version `seen` is not the
    newest, or somebody else was faster, and Forbidden where an option or a plugin asks for more than the actor has.
    """
    wanted: dict[str, dict[str, Any]] = {}
    wish = {variable(name): value for name, value in wish.items()}
    for name, value in wish.items():
        scope, _, key = name.rpartition(".")
        wanted.setdefault(scope, {})[key if scope else name] = value
    plan = wishes.plan(runtime, wanted, note, untested=untested, seen=seen)
    _carry_out(runtime, actor, plan, Action.CONFIG_CHANGED, also=also)
    stored, stand = runtime.settings.stored(), list[Item]()
    for name in wish:
        with suppress(NotFound):  # it was taken back, and nobody here knows it
            stand.append(_described(runtime, stored, name))
    return stand


def switch(
    runtime: Runtime,
    actor: Actor,
    wish: Mapping[str, bool],
    *,
    note: str,
    seen: int | None = None,
) -> list[Item]:
    """Switch features on and off, by their names; how all stand then. Raises as change()."""
    names = {option.feature: option.name for option in BY_NAME.values() if option.feature}
    if not names.keys() >= wish.keys():
        raise InvalidFields(errors={"features": [f"known are {', '.join(sorted(names))}"]})
    values = {names[feature]: enabled for feature, enabled in wish.items()}
    change(runtime, actor, values, note=note, seen=seen)
    return features(runtime)


@audit.refusals(Action.CONFIG_RESTORED)
def restore(
    runtime: Runtime,
    actor: Actor,
    document: Any,
    *,
    note: str,
    seen: int | None = None,
    dry_run: bool = False,
    untested: bool = False,
    whole: bool = False,
) -> dict[str, Any]:
    """Save what a document of export() says, all of it or nothing: {"version", "dry_run", "changes": [{"name", "was",
    "becomes"}], "left_out": []}, secrets masked. What it does not name stays, or, with `whole`, is taken back; a
    masked secret is left alone. Raises as change().
    """
    wanted = _of_document(document)
    plan = wishes.plan(runtime, wanted, note, untested=untested, seen=seen, whole=whole)
    return _carry_out(runtime, actor, plan, Action.CONFIG_RESTORED, dry_run=dry_run)


@audit.refusals(Action.CONFIG_RESTORED)
def rollback(
    runtime: Runtime,
    actor: Actor,
    version: int,
    *,
    note: str,
    seen: int | None = None,
    dry_run: bool = False,
    untested: bool = False,
) -> dict[str, Any]:
    """Have saved what was saved when the settings had this version (0: nothing), as a new version; the same as of
    restore(). `left_out` names what this version of faxbot, or its plugins, do not know any more. Raises NotFound,
    and as change()."""
    try:
        kept = revisions.saved_at(runtime, version)
    except ConfigError as error:
        raise InvalidFields(errors={"version": [error.detail]}) from None
    left_out = {(scope, key) for scope, key, _ in places(kept) if _not_counted(runtime, scope, key)}
    wanted = {
        scope: {key: value for key, value in values.items() if (scope, key) not in left_out}
        for scope, values in kept.items()
    }
    plan = wishes.plan(runtime, wanted, note, untested=untested, seen=seen, whole=True, known=True)
    plan.left_out.extend(name_of(*place) for place in sorted(left_out))
    details = {"from": version}
    return _carry_out(
        runtime, actor, plan, Action.CONFIG_RESTORED, dry_run=dry_run, details=details
    )


def _demand_rights(runtime: Runtime, actor: Actor, plan: Plan) -> None:
    """Raise Forbidden where he may not save one of these."""
    actor.require_house()
    for name in plan.wish.get(OPTIONS, ()):
        if name in BY_NAME:
            actor.require(BY_NAME[name].scope)
    for plugin_id in plan.wish.keys() - {OPTIONS}:
        if manifest := manifest_of(runtime, plugin_id):
            activation.demand_right(actor, manifest)


def _carry_out(
    runtime: Runtime,
    actor: Actor,
    plan: Plan,
    action: Action,
    *,
    dry_run: bool = False,
    details: Mapping[str, Any] | None = None,
    also: Also | None = None,
) -> dict[str, Any]:
    _demand_rights(runtime, actor, plan)
    stored, version = plan.stored, plan.stored.version
    changes = [
        {
            "name": name_of(scope, key),
            "was": _shown(runtime, scope, key, stored.saved.get(scope, {}).get(key)),
            "becomes": _shown(runtime, scope, key, value),
        }
        for scope, key, value in places(plan.wish)
    ]
    if plan.wish and not dry_run:
        written_down = [
            *(
                activation.configured(actor, plugin_id, plan.note, plan.untested)
                for plugin_id in sorted(plan.wish.keys() - {OPTIONS})
            ),
            *(
                activation.Change(actor, plugin_id, plan.note, event, slot)
                for plugin_id, slot, event in plan.moves
            ),
        ]
        deed = Deed(
            actor, plan.note, action, details={"untested": plan.untested, **(details or {})}
        )

        def more(session: Session, now: datetime) -> None:
            for each in written_down:
                activation.write_down(session, each, now)
            if also is not None:
                also(session, now)

        version = revisions.save(runtime, deed, plan.wish, seen=version, more=more)
    elif also is not None:
        with runtime.database.transaction() as session:
            also(session, runtime.now())
    return {
        "version": version,
        "dry_run": dry_run,
        "changes": changes,
        "left_out": plan.left_out,
    }


# Documents and revisions ----------------------------------------------------------------------------


def export(runtime: Runtime, actor: Actor, *, reveal: bool = False) -> dict[str, Any]:
    """What is saved, as a document for restore(): {"kind", "format", "version", "exported_at", "redacted", "options":
    {variable: text}, "plugins": {id: {key: value}}, "left_out": names of what does not open or does not count}. What
    the environment says stays there.

    Secrets read MASK, unless `reveal` and the actor has every scope; raises Forbidden. Both is written down.
    """
    actor.require_house()
    if reveal:
        actor.require("*")
    stored, now = runtime.settings.stored(), runtime.now()
    left_out = [name_of(*place) for place in stored.faults]
    plugins: dict[str, dict[str, Any]] = {}
    options: dict[str, Any] = {}
    for scope, key, value in places(stored.saved):
        if (scope, key) in stored.faults:
            continue
        if scope == OPTIONS and _not_counted(runtime, scope, key):
            left_out.append(key)
            continue
        into = options if scope == OPTIONS else plugins.setdefault(scope, {})
        into[key] = value if reveal else _shown(runtime, scope, key, value)
    with runtime.database.transaction() as session:
        audit.record(
            session,
            actor,
            Action.CONFIG_REVEALED if reveal else Action.CONFIG_EXPORTED,
            ("config", str(stored.version)),
            now=now,
            details={"version": stored.version},
        )
    return {
        "kind": KIND,
        "format": FORMAT,
        "version": stored.version,
        "exported_at": stamp(now),
        "redacted": not reveal,
        "options": options,
        "plugins": plugins,
        "left_out": left_out,
    }


_PARTS = frozenset(
    ("kind", "format", "version", "exported_at", "redacted", "options", "plugins", "left_out")
)


def _of_document(document: Any) -> dict[str, dict[str, Any]]:
    """What a document wants saved, by scope and key; raises InvalidFields for one that is none of ours."""
    if not isinstance(document, dict) or document.get("kind") != KIND:
        raise InvalidFields(
            errors={"document": [f'is no export of faxbot: it has no "kind": "{KIND}"']}
        )
    if document.get("format") != FORMAT:
        raise InvalidFields(errors={"document": ["is of a format that this version cannot read"]})
    if not document.keys() <= _PARTS:
        raise InvalidFields(
            errors={"document": [f"has a part that is none; known are {', '.join(sorted(_PARTS))}"]}
        )
    options, plugins = document.get("options", {}), document.get("plugins", {})
    groups = plugins.values() if isinstance(plugins, dict) else ()
    if not isinstance(options, dict) or not all(isinstance(each, dict) for each in groups):
        raise InvalidFields(errors={"document": ["its options and plugins must be objects"]})
    if not isinstance(plugins, dict) or OPTIONS in plugins:
        raise InvalidFields(errors={"plugins": ["must be settings by a plugin's id"]})
    return {OPTIONS: options, **plugins}


def backups(runtime: Runtime, actor: Actor) -> list[dict[str, Any]]:
    """The revisions that can be gone back to, newest first: version, saved_at, actor, note, names (of what changed),
    backup (its name, or None), current."""
    actor.require_house()
    rows = revisions.listed(runtime)
    current = runtime.settings.stored().version
    return [
        {
            "version": row.version,
            "saved_at": stamp(row.saved_at),
            "actor": row.actor,
            "note": row.note,
            "names": row.names,
            "backup": row.backup,
            "current": row.version == current,
        }
        for row in rows
    ]


def backup(runtime: Runtime, actor: Actor, note: str) -> dict[str, Any]:
    """Keep what is saved now under this name, however many revisions follow; the revision as in backups(). Raises
    InvalidFields for a name that is none."""
    actor.require_house()
    oversight.check_note(note)
    stored = runtime.settings.stored()
    with runtime.database.transaction() as session:
        revisions.back_up(session, runtime, actor, stored, note)
    return next(each for each in backups(runtime, actor) if each["version"] == stored.version)
