"""Finds plugins over the entry-point group `faxbot.plugins` and hands them out, initialised once
per process.

Manifests are read first, without running a line of any plugin; a plugin's module is imported when
it is used or asked about. A plugin that cannot be used is named with its reason in
`Plugins.broken`, and everything else works on. What a plugin does when it begins has a time limit
(starting.py), and no network while it is imported (offline.py).
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution, EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar

from faxbot.errors import PluginError
from faxbot.plugins import manifest as manifests
from faxbot.plugins.base import API_VERSION, Context, FaxbotPlugin
from faxbot.plugins.contained import contain
from faxbot.plugins.manifest import SCOPES, Manifest
from faxbot.plugins.registry import OPEN, Registry
from faxbot.plugins.starting import Trial, load, why

GROUP = "faxbot.plugins"
OURS = "faxbot"
"""The package whose plugins come with faxbot."""
START_SECONDS = 10.0
AGAIN_SECONDS = 30.0
"""A plugin that failed to begin is left alone for so long: a failure may take START_SECONDS, and be asked for by every
fax that waits."""

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
    """A plugin whose manifest is sound; its code has not run yet. `module` is the file of its
    module."""

    manifest: Manifest
    entry_point: EntryPoint
    module: Path

    @property
    def folder(self) -> Path:
        return self.module.parent

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
    settings: Mapping[str, Any] = field(repr=False)

    def stop(self, plugin_id: str) -> None:
        try:
            self.plugin.shutdown()
        except Exception as error:  # noqa: BLE001 - foreign code raises anything
            logger.warning("plugin %s: %s", plugin_id, why("did not shut down", error))
        self.context.http.close()


@dataclass(slots=True)
class _Place:
    """How one plugin stands in this process. Who lets it begin holds the lock; the others wait for that."""

    found: Found
    lock: threading.Lock = field(default_factory=threading.Lock)
    cls: type[FaxbotPlugin] | None = None
    running: Running | None = None
    trial: Trial[Any] | None = None
    fault: Broken | None = None
    fault_at: float = 0.0


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
        start_seconds: float = START_SECONDS,
        again_seconds: float = AGAIN_SECONDS,
    ) -> None:
        self._places = {plugin.manifest.id: _Place(plugin) for plugin in found}
        self._refused = tuple(refused)
        self._environ = environ
        self._make_context = make_context
        self._start_seconds = start_seconds
        self._again_seconds = again_seconds
        self._saved: Mapping[str, Mapping[str, Any]] = {}
        self._serial = 0
        self._inherited: list[Running] = []
        self._replaced: list[tuple[str, Running]] = []
        self._lock = threading.Lock()
        _living.add(self)

    def set(self, saved: Mapping[str, Mapping[str, Any]], serial: int) -> None:
        """Have settings, by plugin and key, go before those of the environment; what a slow thread brings with a
        lower `serial` is past. A plugin whose settings changed starts anew when it is asked for next; calls
        under way end on the one that they began with, which is shut down with this process."""
        if saved is self._saved:
            return
        with self._lock:
            if serial < self._serial:
                return
            before, self._saved, self._serial = self._saved, saved, serial
            for plugin_id, place in self._places.items():
                if before.get(plugin_id) != saved.get(plugin_id):
                    with place.lock:
                        running, place.running, place.fault = place.running, None, None
                    if running is not None:
                        self._replaced.append((plugin_id, running))

    def settings(self, plugin_id: str, saved: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """How a plugin is set, or would be with `saved` in the place of what is: typed, with defaults.
        Raises ConfigError naming settings, never values; PluginError as manifest()."""
        manifest = self.manifest(plugin_id)
        if saved is None:
            saved = self._saved.get(plugin_id, {})
        return manifests.settings(manifest, self._environ, saved)

    def standing(self, plugin_id: str) -> dict[str, Any]:
        """How a plugin is set, complete or not, and not checked: for who shows what is to be mended. Raises
        PluginError as manifest()."""
        manifest = self.manifest(plugin_id)
        return manifests.standing(manifest, self._environ, self._saved.get(plugin_id, {}))

    def source(self, plugin_id: str, key: str) -> str:
        """Where a setting comes from: db, env, default, or unset."""
        manifest = self.manifest(plugin_id)
        if key in self._saved.get(plugin_id, {}):
            return "db"
        if any(self._environ.get(name) for name in manifest.variables.get(key, ())):
            return "env"
        return "default" if "default" in manifest.properties[key] else "unset"

    @contextmanager
    def tried(self, plugin_id: str, saved: Mapping[str, Any]) -> Iterator[FaxbotPlugin]:
        """Another instance of a plugin, set so, for as long as the block lasts; the one that works is not
        touched. Raises PluginError when it does not start, ConfigError as settings()."""
        place, settings = self._place(plugin_id), self.settings(plugin_id, saved)
        with place.lock:
            cls = self._class_of(place)
            if place.trial is not None and not place.trial.is_over:
                raise PluginError(f"The plugin {plugin_id!r} has not even ended its last start.")
            try:
                running = self._initialised(place, cls, settings)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - foreign code
                raise _unusable(place.found.broken(why("does not start", error))) from None
        try:
            yield running.plugin
        finally:
            running.stop(plugin_id)

    @property
    def broken(self) -> tuple[Broken, ...]:
        """What cannot be used, and why. Imports every plugin that was not imported yet, to know: side by side, so that
        those that hang take one time limit together."""
        places = list(self._places.values())
        if unknown := [place for place in places if place.cls is None and not self._rests(place)]:
            with ThreadPoolExecutor(len(unknown), "plugins") as threads:
                list(threads.map(self._import_all, unknown))
        return (*self._refused, *(place.fault for place in places if place.fault is not None))

    def manifests(self) -> tuple[Manifest, ...]:
        """Of every plugin not known to be broken, by id; one that did not start may the next time."""
        places = (place for _, place in sorted(self._places.items()))
        usable = (place for place in places if place.fault is None or place.cls is not None)
        return tuple(place.found.manifest for place in usable)

    def found(self, plugin_id: str) -> Found:
        """What is known of it without running it; raises PluginError as manifest()."""
        return self._place(plugin_id).found

    def manifest(self, plugin_id: str) -> Manifest:
        """Raises PluginError that says why it is not usable, or names what is installed."""
        return self._place(plugin_id).found.manifest

    def has(self, plugin_id: str, trait: str) -> bool:
        """Whether a plugin is there and declares `trait`."""
        try:
            return self.manifest(plugin_id).has(trait)
        except PluginError:
            return False

    def get(self, plugin_id: str, base: type[P]) -> P:
        """The plugin, initialised once in this process; raises PluginError when it is not there,
        not a `base`, or fails.

        A plugin that failed to start is tried again when it is asked for after a while.
        """
        place = self._place(plugin_id)
        plugin = (place.running or self._start(place)).plugin
        if not isinstance(plugin, base):
            raise PluginError(f"The plugin {plugin_id!r} is no {base.__name__}.")
        return plugin

    def in_use(self, plugin_id: str) -> Mapping[str, Any]:
        """The settings with which the plugin that get() gives has begun; raises PluginError as get()."""
        place = self._place(plugin_id)
        return (place.running or self._start(place)).settings

    def close(self) -> None:
        """Shut down what was started here; one plugin's failure to do so keeps no other from it."""
        for plugin_id, place in self._places.items():
            with place.lock:
                running, place.running = place.running, None
            if running is not None:
                running.stop(plugin_id)
        with self._lock:
            replaced, self._replaced = self._replaced, []
        for plugin_id, running in replaced:
            running.stop(plugin_id)

    def _place(self, plugin_id: str) -> _Place:
        if plugin_id not in self._places:
            for broken in self._refused:
                if broken.name == plugin_id:
                    raise PluginError(f"The plugin {plugin_id!r} cannot be used: {broken.reason}.")
            installed = ", ".join(sorted(self._places)) or "none"
            raise PluginError(f"There is no plugin {plugin_id!r}; installed: {installed}.")
        return self._places[plugin_id]

    def _start(self, place: _Place) -> Running:
        with place.lock:
            if place.running is None:
                cls = self._class_of(place)
                self._leave_alone(place)
                try:
                    settings = self.settings(place.found.manifest.id)
                    place.running = self._initialised(place, cls, settings)
                except (Exception, SystemExit) as error:  # noqa: BLE001 - foreign code
                    raise self._fail(place, why("does not start", error)) from None
                place.fault = None
            return place.running

    def _initialised(
        self, place: _Place, cls: type[FaxbotPlugin], settings: Mapping[str, Any]
    ) -> Running:
        manifest = place.found.manifest
        context = self._make_context(manifest, settings)

        def begin() -> Running:
            plugin = cls()
            plugin.initialize(settings, context)
            contain(plugin)
            return Running(plugin, context, settings)

        place.trial = trial = Trial(manifest.id, begin, lambda running: running.stop(manifest.id))
        try:
            return trial.result(self._start_seconds)
        except BaseException:
            context.http.close()
            raise

    def _import_all(self, place: _Place) -> None:
        with suppress(PluginError), place.lock:
            self._class_of(place)

    def _class_of(self, place: _Place) -> type[FaxbotPlugin]:
        """Its class; the caller holds the lock."""
        if place.cls is None:
            self._leave_alone(place)
            found = place.found
            place.trial = trial = Trial(found.manifest.id, lambda: _class(found))
            try:
                place.cls = trial.result(self._start_seconds)
            except PluginError as error:
                late = "" if trial.is_over else "it cannot be imported: "
                raise self._fail(place, late + error.detail) from None
            place.fault = None
        return place.cls

    def _rests(self, place: _Place) -> bool:
        """Whether it failed a moment ago, or its thread has not even ended: threads must not pile up."""
        if place.fault is None:
            return False
        hangs = place.trial is not None and not place.trial.is_over
        return hangs or time.monotonic() - place.fault_at < self._again_seconds

    def _leave_alone(self, place: _Place) -> None:
        if place.fault is not None and self._rests(place):
            raise _unusable(place.fault)

    def _fail(self, place: _Place, reason: str) -> PluginError:
        broken = place.found.broken(reason)
        if place.fault != broken:
            logger.warning(
                "plugin %s of package %s cannot be used: %s", broken.name, broken.package, reason
            )
        place.fault, place.fault_at = broken, time.monotonic()
        return _unusable(broken)

    def after_fork(self) -> None:
        """A child starts its own instances. The parent's are kept, not closed: their connections
        are the parent's; and its threads that were at it are not here."""
        self._lock = threading.Lock()
        self._inherited.extend(running for _, running in self._replaced)
        self._replaced = []
        for place in self._places.values():
            place.lock, place.trial = threading.Lock(), None
            if place.running is not None:
                self._inherited.append(place.running)
                place.running = None


def _unusable(broken: Broken) -> PluginError:
    return PluginError(f"The plugin {broken.name!r} cannot be used: {broken.reason}.")


_living: weakref.WeakSet[Plugins] = weakref.WeakSet()


def _forked() -> None:
    for plugins in list(_living):
        plugins.after_fork()


os.register_at_fork(after_in_child=_forked)


def discover(
    *,
    environ: Mapping[str, str],
    make_context: MakeContext,
    scope_allowed: str = "trusted",
    registry: Registry = OPEN,
    start_seconds: float = START_SECONDS,
    again_seconds: float = AGAIN_SECONDS,
    from_outside: bool = True,
) -> Plugins:
    """Read the manifest of every installed plugin; nothing of a plugin runs.

    `environ` is where settings come from (Config.environ); `scope_allowed` is the highest of SCOPES
    this installation admits, `registry` may name the only ones that it admits; `make_context` gives
    a plugin what it works with. A plugin may take
    `start_seconds` to be imported and as long to start; one that failed to is tried again after
    `again_seconds`. Without `from_outside` only those of faxbot's own package are admitted.
    """
    found: list[Found] = []
    refused: list[Broken] = []
    for entry_point in _installed(tuple(_places())):
        try:
            if not from_outside and _package(entry_point) != OURS:
                raise PluginError(
                    "it does not come with faxbot, and FAXBOT_PLUGINS_FROM_OUTSIDE is false"
                )
            plugin = find(entry_point, scope_allowed, registry)
        except PluginError as error:
            refused.append(Broken(entry_point.name, _package(entry_point), error.detail))
        else:
            found.append(plugin)
    unique, doubles = _apart(found)
    for broken in (*refused, *doubles):
        logger.warning(
            "plugin %s of package %s is refused: %s", broken.name, broken.package, broken.reason
        )
    return Plugins(
        unique,
        (*refused, *doubles),
        environ=environ,
        make_context=make_context,
        start_seconds=start_seconds,
        again_seconds=again_seconds,
    )


def _places() -> Iterator[tuple[str, int]]:
    """Where packages are looked for, and when something was last put there or taken away."""
    for place in sys.path:
        with suppress(OSError):
            yield place, Path(place).stat().st_mtime_ns


@lru_cache(maxsize=8)
def _installed(_places: tuple[tuple[str, int], ...]) -> tuple[EntryPoint, ...]:
    """The entry points of all packages in these places, in one order; to look takes 4 ms."""
    return tuple(sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)))


def _package(entry_point: EntryPoint) -> str:
    return _name(entry_point.dist) if entry_point.dist else "unknown"


@lru_cache(maxsize=256)
def _name(distribution: Distribution) -> str:
    return distribution.name


def find(entry_point: EntryPoint, scope_allowed: str, registry: Registry = OPEN) -> Found:
    """The plugin of an entry point by its manifest alone; raises PluginError with one sentence on
    why it is refused."""
    try:
        module = entry_point.module
        spec = _locate(module)
    except Exception as error:  # noqa: BLE001 - finders and values are foreign
        raise PluginError(why("cannot be found", error)) from None
    if spec is None or spec.origin is None:
        raise PluginError(f"its module {module} is not installed")
    origin = Path(spec.origin)
    found = Found(manifests.read(origin.with_name("manifest.json")), entry_point, origin)
    _admit(found, scope_allowed)
    registry.admit(found.manifest.id, found.package, origin)
    return found


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


def _class(found: Found) -> type[FaxbotPlugin]:
    return load(found.entry_point, found.manifest, found.folder)


def begin(found: Found, seconds: float) -> type[FaxbotPlugin]:
    """Import a plugin that was found as one that is used would be, for tools; raises PluginError."""
    return Trial(found.manifest.id, lambda: _class(found)).result(seconds)
