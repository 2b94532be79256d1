"""Checks an upload before it is accepted: type by content, pages, encryption, and the limits on all
of them."""

from __future__ import annotations

import os
import weakref
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, LifoQueue, SimpleQueue

from faxbot.config import Config
from faxbot.documents.page import ROWS_PER_INCH
from faxbot.documents.process import Child

PATIENCE = 0.25  # seconds that most checks are far below; waiting is cheaper than another process


@dataclass(frozen=True, slots=True)
class Limits:
    """What a document may take: pages, pixels of one page or picture, time in seconds, memory in
    MiB."""

    max_pages: int
    max_pixels: int
    seconds: float
    memory_mb: int

    @classmethod
    def of(cls, config: Config) -> Limits:
        """The limits for checking an upload."""
        return cls(
            config.max_pages, config.max_pixels, config.check_seconds, config.document_memory_mb
        )


@dataclass(frozen=True, slots=True)
class Checked:
    """A document that can be faxed.

    `media_type` is one of application/pdf, image/tiff, image/png, image/jpeg, text/plain. `ready`
    is the resolution (`fine`, `standard`) in which it consists of fax pages already and goes on the
    line as it is; else empty.
    """

    media_type: str
    pages: int
    ready: str = ""


class Checker:
    """Checks documents in a child process, one after the other, for any number of threads.

    While a check takes long, a second process is there for the others: so one document keeps
    nobody waiting, and no number of them can take more memory than two.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._children = [Child(memory_mb=limits.memory_mb, written_mb=0) for _ in range(2)]
        self.forget()
        _checkers.add(self)

    def set(self, limits: Limits) -> None:
        """Other limits, from the next document on."""
        self._limits = limits
        for child in self._children:
            child.memory_mb = limits.memory_mb

    def check(self, path: Path) -> Checked:
        """Type and pages of the document at `path`.

        Raises DocumentUnsupported, DocumentUnreadable or DocumentTooLarge, with a sentence that
        says what is wrong and what to do; OSError when there is no such file.
        """
        limits = self._limits
        request = {
            "do": "check",
            "path": str(path.absolute()),
            "resolutions": list(ROWS_PER_INCH),
            "max_pages": limits.max_pages,
            "max_pixels": limits.max_pixels,
        }
        child = self._idle_child()
        try:
            reply = child.ask(request, limits.seconds)
        finally:
            self._idle.put(child)
        return Checked(reply["media_type"], reply["pages"], reply["ready"])

    def close(self) -> None:
        """End the child processes; the next check would start another."""
        children = [self._idle.get() for _ in range(len(self._children) - self._spare.qsize())]
        for child in children:
            child.close()
            self._idle.put(child)

    def _idle_child(self) -> Child:
        """The child used last, if it is idle soon; else the spare one; else whichever is idle first:
        the time limit of a check bounds that wait too."""
        with suppress(Empty):
            return self._idle.get(timeout=PATIENCE)
        with suppress(Empty):
            return self._spare.get_nowait()
        return self._idle.get()

    def forget(self) -> None:
        """After a fork: threads that were not forked with us hold children no more."""
        self._idle: LifoQueue[Child] = LifoQueue()
        self._spare: SimpleQueue[Child] = SimpleQueue()
        self._idle.put(self._children[0])
        self._spare.put(self._children[1])


_checkers: weakref.WeakSet[Checker] = weakref.WeakSet()


def _after_fork() -> None:
    for checker in list(_checkers):
        checker.forget()


os.register_at_fork(after_in_child=_after_fork)
