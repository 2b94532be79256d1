"""Checks an upload before it is accepted: type by content, pages, encryption, and the limits on all
of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from faxbot.config import Config
from faxbot.documents.page import ROWS_PER_INCH
from faxbot.documents.process import Child


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
    """Checks documents in one child process, one after the other, for any number of threads."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._child = Child(memory_mb=limits.memory_mb, written_mb=0)

    def check(self, path: Path) -> Checked:
        """Type and pages of the document at `path`.

        Raises DocumentUnsupported, DocumentUnreadable or DocumentTooLarge, with a sentence that
        says what is wrong and what to do; OSError when there is no such file.
        """
        request = {
            "do": "check",
            "path": str(path.absolute()),
            "resolutions": list(ROWS_PER_INCH),
            "max_pages": self._limits.max_pages,
            "max_pixels": self._limits.max_pixels,
        }
        with self._child.lock:
            reply = self._child.ask(request, self._limits.seconds)
        return Checked(reply["media_type"], reply["pages"], reply["ready"])

    def close(self) -> None:
        """End the child process; the next check would start another."""
        with self._child.lock:
            self._child.close()
