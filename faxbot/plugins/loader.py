"""Finds plugins over the entry-point group `faxbot.plugins` and hands them out, initialised once
per process.

Manifests are read first, without running a line of any plugin; a plugin's module is imported when
it is used or asked about. A plugin that cannot be used is named with its reason in
`Plugins.broken`, and everything else works on.
"""

from __future__ import annotations

import inspect
import logging
import os
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar

from faxbot.errors import FaxbotError, PluginError
from faxbot.plugins import manifest as manifests
from faxbot.plugins.base import API_VERSION, BASES, Context, FaxbotPlugin
from faxbot.plugins.manifest import SCOPES, TRAITS, Manifest

GROUP = "faxbot.plugins"

P = TypeVar("P", bound=FaxbotPlugin)
MakeContext = Callable[[Manifest, Mapping[str, Any]], Context]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Broken:
    """A plugin that cannot be used: the name of its entry point, its package, one clear sentence."""

    name: str
    package: str
    reason: str


@dataclass(frozen=True, slots=True)
class Found:
    """A plugin whose manifest is sound; its code has not run yet."""

    manifest: Manifest
    entry_point: EntryPoint

    @property
    def package(self) -> str:
        return _package(self.entry_point)

    def broken(self, reason: str) -> Broken:
        return Broken(self.manifest.id, self.package, reason)


@dataclass(frozen=True, slots=True)
class Running:
    """A plugin that was initialised in this process, and what it was given."""

    plugin: FaxbotPlugin
    context: Context

    def stop(self, plugin_id: str) -> None:
        try:
            self.plugin.shutdown()
        except Exception as error:  # noqa: BLE001 - foreign code raises anything
            logger.warning("plugin %s: %s", plugin_id, _why("did not shut down", error))
        self.context.http.close()


class Plugins:
    """Every installed plugin, by id; safe to share between threads, and after a fork each process
    has its own instances."""

    def __init__(
        self,
        found: Iterable[Found],
        refused: Iterable[Broken],
        *,
        environ: Mapping[str, str],
        make_context: MakeContext,
    ) -> None:
        self._found = {plugin.manifest.id: plugin for plugin in found}
        self._refused = tuple(refused)
        self._environ = environ
        self._make_context = make_context
        self._classes: dict[str, type[FaxbotPlugin]] = {}
        self._failed: dict[str, Broken] = {}
        self._ready: dict[str, Running] = {}
        self._inherited: list[dict[str, Running]] = []
        self._lock = threading.RLock()
        _living.add(self)

    @property
    def broken(self) -> tuple[Broken, ...]:
        """What cannot be used, and why. Imports every plugin that was not imported yet, to know."""
        for plugin in self._found.values():
            try:
                self._class_of(plugin)
            except PluginError:
                continue
        return (*self._refused, *self._failed.values())

    def manifests(self) -> tuple[Manifest, ...]:
        """Of every plugin not known to be broken, by id."""
        usable = (plugin for key, plugin in sorted(self._found.items()) if key not in self._failed)
        return tuple(plugin.manifest for plugin in usable)

    def manifest(self, plugin_id: str) -> Manifest:
        """Raises PluginError that says why it is not usable, or names what is installed."""
        return self._plugin(plugin_id).manifest

    def get(self, plugin_id: str, base: type[P]) -> P:
        """The plugin, initialised once in this process; raises PluginError when it is not there,
        not a `base`, or fails.

        A plugin that failed to start is tried again the next time it is asked for.
        """
        running = self._ready.get(plugin_id) or self._start(self._plugin(plugin_id))
        plugin = running.plugin
        if not isinstance(plugin, base):
            raise PluginError(f"The plugin {plugin_id!r} is no {base.__name__}.")
        return plugin

    def close(self) -> None:
        """Shut down what was started here; one plugin's failure to do so keeps no other from it."""
        with self._lock:
            while self._ready:
                plugin_id, running = self._ready.popitem()
                running.stop(plugin_id)

    def _plugin(self, plugin_id: str) -> Found:
        if plugin_id not in self._found:
            for broken in self._refused:
                if broken.name == plugin_id:
                    raise PluginError(f"The plugin {plugin_id!r} cannot be used: {broken.reason}.")
            installed = ", ".join(sorted(self._found)) or "none"
            raise PluginError(f"There is no plugin {plugin_id!r}; installed: {installed}.")
        return self._found[plugin_id]

    def _start(self, found: Found) -> Running:
        plugin_id = found.manifest.id
        with self._lock:
            if plugin_id not in self._ready:
                cls = self._class_of(found)
                try:
                    self._ready[plugin_id] = self._initialised(found, cls)
                except (Exception, SystemExit) as error:  # noqa: BLE001 - foreign code
                    raise self._fail(found, _why("does not start", error)) from None
                self._failed.pop(plugin_id, None)
            return self._ready[plugin_id]

    def _initialised(self, found: Found, cls: type[FaxbotPlugin]) -> Running:
        settings = manifests.settings(found.manifest, self._environ)
        context = self._make_context(found.manifest, settings)
        try:
            plugin = cls()
            plugin.initialize(settings, context)
        except BaseException:
            context.http.close()
            raise
        return Running(plugin, context)

    def _class_of(self, found: Found) -> type[FaxbotPlugin]:
        plugin_id = found.manifest.id
        with self._lock:
            if plugin_id not in self._classes:
                try:
                    self._classes[plugin_id] = _import(found)
                except PluginError as error:
                    raise self._fail(found, error.detail) from None
                self._failed.pop(plugin_id, None)
            return self._classes[plugin_id]

    def _fail(self, found: Found, reason: str) -> PluginError:
        broken = found.broken(reason)
        if self._failed.get(broken.name) != broken:
            logger.warning(
                "plugin %s of package %s cannot be used: %s", broken.name, broken.package, reason
            )
        self._failed[broken.name] = broken
        return PluginError(f"The plugin {broken.name!r} cannot be used: {reason}.")

    def after_fork(self) -> None:
        """A child starts its own instances. The parent's are kept, not closed: their connections
        are the parent's."""
        self._lock = threading.RLock()
        if self._ready:
            self._inherited.append(self._ready)
            self._ready = {}


_living: weakref.WeakSet[Plugins] = weakref.WeakSet()


def _forked() -> None:
    for plugins in list(_living):
        plugins.after_fork()


os.register_at_fork(after_in_child=_forked)


def discover(
    *, environ: Mapping[str, str], make_context: MakeContext, scope_allowed: str = "trusted"
) -> Plugins:
    """Read the manifest of every installed plugin; nothing of a plugin runs.

    `environ` is where settings come from (Config.environ); `scope_allowed` is the highest of SCOPES
    this installation admits; `make_context` gives a plugin what it works with.
    """
    found: list[Found] = []
    refused: list[Broken] = []
    for entry_point in sorted(
        entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)
    ):
        try:
            plugin = Found(_manifest_of(entry_point), entry_point)
            _admit(plugin, scope_allowed)
        except PluginError as error:
            refused.append(Broken(entry_point.name, _package(entry_point), error.detail))
        else:
            found.append(plugin)
    unique, doubles = _apart(found)
    for broken in (*refused, *doubles):
        logger.warning(
            "plugin %s of package %s is refused: %s", broken.name, broken.package, broken.reason
        )
    return Plugins(unique, (*refused, *doubles), environ=environ, make_context=make_context)


def _package(entry_point: EntryPoint) -> str:
    return entry_point.dist.name if entry_point.dist else "unknown"


def _manifest_of(entry_point: EntryPoint) -> Manifest:
    try:
        module = entry_point.module
        spec = _locate(module)
    except Exception as error:  # noqa: BLE001 - finders and values are foreign
        raise PluginError(_why("cannot be found", error)) from None
    if spec is None or spec.origin is None:
        raise PluginError(f"its module {module} is not installed")
    return manifests.read(Path(spec.origin).with_name("manifest.json"))


def _locate(module: str) -> ModuleSpec | None:
    """Where a module lies. importlib.util.find_spec() would import its parent packages; no code may
    run yet."""
    path = None
    spec: ModuleSpec | None = None
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        name = ".".join(parts[:depth])
        finders = (finder for finder in sys.meta_path if hasattr(finder, "find_spec"))
        spec = next(
            (found for finder in finders if (found := finder.find_spec(name, path)) is not None),
            None,
        )
        if spec is None:
            return None
        path = spec.submodule_search_locations
    return spec


def _admit(found: Found, scope_allowed: str) -> None:
    manifest = found.manifest
    if manifest.id != found.entry_point.name:
        raise PluginError(f"its manifest says {manifest.id!r}: entry point and id must be the same")
    if not manifest.works_with(API_VERSION):
        raise PluginError(
            f"it works with the plugin contract {manifest.api}; this is {API_VERSION}"
        )
    if SCOPES.index(manifest.required_scope) > SCOPES.index(scope_allowed):
        raise PluginError(
            f"it needs the scope {manifest.required_scope}; "
            f"this installation allows {scope_allowed}"
        )


def _apart(found: list[Found]) -> tuple[list[Found], list[Broken]]:
    """Plugins with an id of their own, and those that share one.

    None of those is used: which of two packages a patient's fax goes through is not for the order
    of a list to decide.
    """
    unique: list[Found] = []
    doubles: list[Broken] = []
    for plugin in found:
        others = [
            other
            for other in found
            if other is not plugin and other.manifest.id == plugin.manifest.id
        ]
        if others:
            reason = (
                f"its id is also claimed by the package {others[0].package}: uninstall one of them"
            )
            doubles.append(plugin.broken(reason))
        else:
            unique.append(plugin)
    return unique, doubles


def _import(found: Found) -> type[FaxbotPlugin]:
    """The class an entry point names; raises PluginError where it is not what the manifest
    promises."""
    entry_point, manifest = found.entry_point, found.manifest
    try:
        cls = entry_point.load()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - foreign code
        raise PluginError(_why("cannot be imported", error)) from None
    base = BASES[manifest.type]
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise PluginError(
            f"{entry_point.attr} is no {base.__name__}, as its type {manifest.type!r} demands"
        )
    if inspect.isabstract(cls):
        raise PluginError(f"{cls.__name__} lacks {', '.join(sorted(cls.__abstractmethods__))}")
    lacking = [
        f"{method}() (trait {name})"
        for name, trait in TRAITS.items()
        if manifest.has(name)
        for method in trait.methods
        if getattr(cls, method, None) is getattr(base, method, None)
    ]
    if lacking:
        raise PluginError(f"{cls.__name__} lacks {', '.join(lacking)}")
    return cls


def _why(what: str, error: BaseException) -> str:
    """One sentence on an exception of foreign code: its kind and place. Its text is left out where
    it could hold a secret."""
    if isinstance(error, FaxbotError):
        return f"it {what}: {error.detail}"
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    text = f" ({error})" if isinstance(error, ImportError | SyntaxError) else ""
    return f"it {what}: {type(error).__name__}{place}{text}"
