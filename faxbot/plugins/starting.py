"""Lets a plugin's own code begin: in a thread of its own, so that code which never ends holds up nobody for longer than
its time limit, and without the network while it is imported."""

from __future__ import annotations

import inspect
import threading
import traceback
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Generic, TypeVar, cast

from faxbot.errors import FaxbotError, PluginError
from faxbot.plugins.base import BASES, FaxbotPlugin
from faxbot.plugins.manifest import TRAITS, Manifest
from faxbot.plugins.offline import offline

T = TypeVar("T")


class Trial(Generic[T]):
    """`work` on its way in a daemon thread. A thread cannot be ended from outside: one that is given up stays until its
    code ends, and what it gives then goes to `discard`."""

    def __init__(
        self, name: str, work: Callable[[], T], discard: Callable[[T], None] | None = None
    ) -> None:
        self._work = work
        self._discard = discard
        self._results: list[T] = []
        self._error: BaseException | None = None
        self._given_up = False
        self._ended = threading.Event()
        self._lock = threading.Lock()
        threading.Thread(target=self._run, name=f"plugin-{name}", daemon=True).start()

    @property
    def is_over(self) -> bool:
        """Whether its thread has nothing more to do."""
        return self._ended.is_set()

    def result(self, seconds: float) -> T:
        """What the work gave, or raises what it raised; PluginError after `seconds`, and then it is given up."""
        if not self._ended.wait(seconds):
            with self._lock:
                self._given_up = not self._ended.is_set()
            if self._given_up:
                raise PluginError(
                    f"it was not done after {seconds:g} s (FAXBOT_PLUGIN_START_SECONDS)"
                )
        if self._error is not None:
            raise self._error
        return self._results[0]

    def _run(self) -> None:
        try:
            self._results.append(self._work())
        except (Exception, SystemExit) as error:  # noqa: BLE001 - foreign code raises anything; result() raises it again
            self._error = error
        except BaseException as error:  # noqa: BLE001 - to who asks for the result it would be the end
            self._error = PluginError(_kind(error))
        with self._lock:
            self._ended.set()
            unwanted = self._given_up and self._results
        if unwanted and self._discard is not None:
            self._discard(self._results.pop())


_networked: dict[str, str] = {}
"""Modules that asked for the network while they were imported in this process, and how."""


def load(entry_point: EntryPoint, manifest: Manifest, folder: Path) -> type[FaxbotPlugin]:
    """The class an entry point names, imported without the network; raises PluginError where it is
    not what the manifest promises."""
    module = entry_point.module
    try:
        with offline(folder) as used:
            cls = entry_point.load()
    except BaseException as error:  # noqa: BLE001 - foreign code, in a thread of its own
        if not used:
            raise PluginError(why("cannot be imported", error)) from None
    finally:
        # It is imported once, so a second try would find nothing wrong with it.
        if used:
            _networked[module] = used[0]
    if module in _networked:
        raise PluginError(f"it cannot be imported: it uses the network ({_networked[module]})")
    check_class(cls, manifest, entry_point.attr)
    return cast(type[FaxbotPlugin], cls)


def check_class(cls: object, manifest: Manifest, name: str) -> None:
    """Raise PluginError where what the entry point names (`name`) is not the class that the
    manifest promises."""
    base = BASES[manifest.type]
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise PluginError(f"{name} is no {base.__name__}, as its type {manifest.type!r} demands")
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


def why(what: str, error: BaseException) -> str:
    """One sentence on an exception of foreign code: its kind and place. Its text is left out where
    it could hold a secret."""
    if isinstance(error, FaxbotError):
        return f"it {what}: {error.detail}"
    return f"it {what}: {_kind(error)}"


def _kind(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    text = f" ({error})" if isinstance(error, ImportError | SyntaxError) else ""
    return f"{type(error).__name__}{place}{text}"
