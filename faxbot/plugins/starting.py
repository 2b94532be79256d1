"""Lets a plugin's own code begin, in a thread of its own, so that code which never ends holds up nobody for longer than
its time limit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from faxbot.errors import PluginError

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
        except BaseException as error:  # noqa: BLE001 - foreign code raises anything; result() raises it again
            self._error = error
        with self._lock:
            self._ended.set()
            unwanted = self._given_up and self._results
        if unwanted and self._discard is not None:
            self._discard(self._results.pop())
