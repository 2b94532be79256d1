"""Tells people what happened, in threads of a worker process beside its tasks: one for each notification plugin.

A task only wakes it, so that a mail server that hangs keeps no process from its faxes; a thread goes on until nothing
is due for its plugin. Who tells whom is written in the database (notifying.py): of several processes one has a plugin,
and what a process that died has left is sent by another one.
"""

from __future__ import annotations

import logging
import threading
import time

from faxbot import notifying
from faxbot.errors import DatabaseAway, FaxbotError
from faxbot.notifying import PARTLY, Message, Place
from faxbot.plugins.base import NotificationPlugin
from faxbot.runtime import Runtime

log = logging.getLogger(__name__)

LONGEST_END = 5.0
"""Seconds that messages under way may take when the process ends."""
AFTER_FAULT = 1.0
"""Seconds after which it is written again what came of a message, where the database was away."""


class Messenger:
    """The messages of one process; make it after a fork. Safe to share between threads."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._threads: dict[str, threading.Thread] = {}
        self._lock = threading.Lock()
        self._ending = threading.Event()

    def wake(self) -> None:
        """There may be something to tell. Raises DatabaseAway."""
        runtime = self._runtime.fresh()
        with self._lock:
            for plugin_id in runtime.config.notification_plugin_ids:
                thread = self._threads.get(plugin_id)
                if self._ending.is_set() or (thread is not None and thread.is_alive()):
                    continue
                self._threads[plugin_id] = thread = threading.Thread(
                    target=self._run, args=(runtime, plugin_id), name="messenger", daemon=True
                )
                thread.start()

    def close(self) -> None:
        """End: messages under way have a few seconds, and what came of them is written."""
        with self._lock:
            self._ending.set()
        until = time.monotonic() + LONGEST_END
        for thread in self._threads.values():
            thread.join(max(0.0, until - time.monotonic()))

    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        with self._lock:
            return not any(thread.is_alive() for thread in self._threads.values())

    def _run(self, runtime: Runtime, plugin_id: str) -> None:
        try:
            for place in notifying.due(runtime, [plugin_id], runtime.now()):
                self._tell(runtime, place)
        except Exception as error:  # noqa: BLE001 - the sweep wakes us again, whatever it was
            detail = error.code if isinstance(error, FaxbotError) else type(error).__name__
            log.warning("notices wait", extra={"plugin_id": plugin_id, "error": detail})

    def _tell(self, runtime: Runtime, place: Place) -> None:
        claimed = notifying.claim(runtime, place)
        if claimed is None:
            return
        while not self._ending.is_set():
            message = notifying.next_message(runtime, claimed)
            if message is None:
                break
            self._conclude(runtime, claimed, message, *_send(runtime, claimed, message))
        notifying.release(runtime, claimed)

    def _conclude(
        self, runtime: Runtime, place: Place, message: Message, cause: str | None, sent: bool
    ) -> None:
        """Write down what came of it, however long the database is away: what is known here nobody else knows, and
        would send again. Where somebody else has the place by then, nothing is written. Raises DatabaseAway when the
        process ends before that."""
        said = False
        while True:
            try:
                return notifying.conclude(runtime, place, message, cause=cause, sent=sent)
            except DatabaseAway as error:
                if self._ending.is_set():
                    raise
                if not said:  # once, not each second
                    names = {"plugin_id": place.plugin_id, "error": error.code}
                    log.warning("what came of a notice waits", extra=names)
                said = True
            self._ending.wait(AFTER_FAULT)


def _send(runtime: Runtime, place: Place, message: Message) -> tuple[str | None, bool]:
    """Why it was not sent, or not to all, if so; and whether it was."""
    try:
        plugin = runtime.plugins.get(place.plugin_id, NotificationPlugin)
        all_told = plugin.notify(message.notification)
    except FaxbotError as error:
        return error.code, False
    except Exception as error:  # noqa: BLE001 - a plugin raises anything, and its text may hold anything
        return type(error).__name__[:32], False
    return (None if all_told is not False else PARTLY), True
