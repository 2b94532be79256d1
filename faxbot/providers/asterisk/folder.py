"""The folder in which a document lies while Asterisk sends it."""

from __future__ import annotations

import os
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path

from faxbot.errors import AccountRefused

OLDEST = 86_400.0
"""Seconds after which a document that nobody has removed goes; no call is as long."""
_SUFFIX, _PART = ".tif", ".part"
_OURS = re.compile(r"fb[0-9a-f]{32}\.(tif|part)")
"""Names that core gives its attempts. The folder may have received faxes of somebody else in it."""


class Folder:
    """`here` is the path for us, `there` the one for Asterisk ("" for the same). Files bear the name of the
    attempt, which is also fit to stand in a dialplan."""

    def __init__(self, here: str, there: str = "") -> None:
        self._here = Path(here)
        self._there = (there or here).rstrip("/")

    def there(self, tag: str) -> str:
        """The path of a document as Asterisk sees it."""
        return f"{self._there}/{tag}{_SUFFIX}"

    def put(self, tag: str, document: Path) -> None:
        """Copy the document in, whole or not at all, for us and the folder's group to read. Raises
        AccountRefused where the folder does not take it."""
        part = self._here / f"{tag}{_PART}"
        try:
            part.unlink(missing_ok=True)
            with document.open("rb") as source, open(part, "xb", opener=_private) as target:
                shutil.copyfileobj(source, target)
                os.fchmod(target.fileno(), 0o640)
            part.replace(self._here / f"{tag}{_SUFFIX}")
        except OSError as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise AccountRefused(
                f"The document cannot be put into ASTERISK_FOLDER: {error.strerror}.",
                cause="config",
            ) from None

    def forget(self, tag: str) -> None:
        """Remove a document; one that is not there, or cannot be removed now, is no error."""
        with suppress(OSError):
            (self._here / f"{tag}{_SUFFIX}").unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove documents of ours that are older than any call."""
        with suppress(OSError):
            for path in self._here.iterdir():
                ours = _OURS.fullmatch(path.name) is not None
                with suppress(OSError):
                    if ours and time.time() - path.lstat().st_mtime > OLDEST:
                        path.unlink()

    def faults(self) -> list[str]:
        """Sentences on what keeps documents from lying there."""
        if not os.path.isdir(self._here):  # noqa: PTH112 - Path's raises where it may not look
            return ["ASTERISK_FOLDER is not there: make it, with Asterisk's group and mode 2770."]
        if not os.access(self._here, os.W_OK | os.X_OK):
            return ["faxbot may not write into ASTERISK_FOLDER."]
        return []


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
