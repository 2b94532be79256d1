"""Collects what processes of this machine have left in a storage that died before their fax was recorded: the notes of
it lie in this machine's own folder, where maybe no worker comes."""

from __future__ import annotations

import logging
import threading

from faxbot import artifacts
from faxbot.runtime import Runtime

log = logging.getLogger(__name__)

EVERY = 3600.0
"""Seconds between two rounds; the first one is made at once."""


class Collector:
    """A thread that does so as long as a process lives; begin it after a fork. However many do so at once in a folder,
    each note is done with once or twice, which is the same."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._end = threading.Event()
        threading.Thread(target=self._run, name="collector", daemon=True).start()

    def close(self) -> None:
        """Begin no other round; what is under way is waited for by nobody."""
        self._end.set()

    def _run(self) -> None:
        while not self._end.is_set():
            try:
                artifacts.collect(self._runtime.fresh())
            except Exception as error:  # noqa: BLE001 - the next round may do better
                if not self._end.is_set():
                    name = type(error).__name__
                    log.warning("stored bytes not collected", extra={"exception": name})
            self._end.wait(EVERY)
