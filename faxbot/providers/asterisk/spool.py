"""The folder into which Asterisk writes the faxes that it receives.

Others may use it too: nothing is opened or removed there but the file that a received fax names.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from faxbot.errors import AccountRefused, Refused, Unreachable

_OURS = re.compile(r"in-[0-9]{1,60}-[0-9]{9}")
_FILE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,120}\.tiff?", re.IGNORECASE)
_CALL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,99}")
_SUFFIX, _PART = ".tif", ".part.tif"
_CALLS = "call-"
"""Begins the names of files that somebody else's dialplan has received, once they are ours."""
LATE = 30.0
"""Seconds after its post in which the file of a call may still be written, and by which clocks may differ: less than
from one call of somebody to the end of his next."""
PART_KEPT = 30 * 86_400.0
"""Seconds for which the pages stay that had arrived when a call failed."""


def is_ours(text: str) -> bool:
    """Whether our dialplan gives faxes such names: nothing in one is chosen by who calls."""
    return _OURS.fullmatch(text) is not None


def is_call(text: str) -> bool:
    """Whether somebody else's dialplan may name its calls so (UNIQUEID)."""
    return _CALL.fullmatch(text) is not None


class Spool:
    """`here` is the folder as faxbot sees it."""

    def __init__(self, here: str) -> None:
        self._here = Path(here)

    @property
    def is_there(self) -> bool:
        """Whether faxes can be taken from it: where it is on another machine they are handed over instead. One that
        faxbot may not look at is there: of what came in there it is told, and that it cannot be had."""
        try:
            return stat.S_ISDIR(self._here.stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True

    def has(self, fax_name: str) -> bool:
        """Whether the document of this fax is seen there now; not where nobody can tell, as in a folder that faxbot may
        not enter."""
        name = _file_of(fax_name)
        return name is not None and os.path.isfile(self._here / name)  # noqa: PTH113 - the same

    def check(self, path: str) -> str:
        """The name of the file that somebody else's dialplan has received at `path`, which may come later. Raises
        Refused for one that is not in this folder itself, symbolic links followed."""
        try:
            file = Path(path).resolve()
            inside = Path(path).is_absolute() and file.parent == self._here.resolve()
        except (OSError, ValueError, RuntimeError):  # a link that leads to itself; a zero byte
            inside = False
        if not inside or not _FILE.fullmatch(file.name):
            raise Refused("The file is not in ASTERISK_RECEIVED_FOLDER.", cause="config")
        return file.name

    def adopt(self, call: str, path: str, *, posted_at: datetime | None = None) -> None:
        """Give that file the name of its call, by which it is found from then on: its own may be a caller's number, and
        the next one's, too. One that was written later than `posted_at` is the next one's. No error where it has it
        already, or is not there. Raises as check(), AccountRefused."""
        name, its = self.check(path), _file_of(call)
        if its is None or os.path.lexists(self._here / its):
            return
        with suppress(FileNotFoundError), _trouble():
            with _opened(self._here, name) as file:
                written_at = os.fstat(file.fileno()).st_mtime
            if posted_at is not None and written_at > posted_at.timestamp() + LATE:
                return
            (self._here / name).rename(self._here / its)

    def copy(self, fax_name: str, target: BinaryIO) -> None:
        """Write the document of this fax into `target`. Raises Refused for what names none, AccountRefused where it may
        not be read, or there is no folder, Unreachable where it is not there, which may be because it comes later."""
        name = _file_of(fax_name)
        if name is None:
            raise Refused("This is no name of a fax that was received.")
        try:
            with _trouble(), _opened(self._here, name) as source:
                shutil.copyfileobj(source, target)
        except FileNotFoundError:
            self.demand()
            raise Unreachable(
                "A received fax is not in ASTERISK_RECEIVED_FOLDER.", cause="config"
            ) from None

    def demand(self) -> None:
        """Raise AccountRefused where the folder is not there: of what lies in one that is not mounted, nobody can say
        that it is gone."""
        if not self.is_there:
            raise AccountRefused("ASTERISK_RECEIVED_FOLDER is not there.", cause="config")

    def forget(self, fax_name: str) -> None:
        """Remove the document of this fax; one that is not there is no error. Raises OSError where it cannot be removed
        now."""
        name = _file_of(fax_name)
        if name is not None:
            with suppress(NotADirectoryError):
                (self._here / name).unlink(missing_ok=True)

    def set_aside(self, fax_name: str) -> None:
        """Keep what came of a call that failed, for PART_KEPT, under a name that tells it from a document."""
        if is_ours(fax_name):
            with suppress(OSError):
                part = (self._here / f"{fax_name}{_SUFFIX}").rename(
                    self._here / f"{fax_name}{_PART}"
                )
                os.utime(part)

    def tidy(self) -> None:
        """Remove what was set aside long enough ago."""
        with suppress(OSError):
            for path in self._here.iterdir():
                aside = path.name.endswith(_PART) and is_ours(path.name.removesuffix(_PART))
                with suppress(OSError):
                    if aside and time.time() - path.lstat().st_mtime > PART_KEPT:
                        path.unlink()

    def faults(self) -> list[str]:
        """Sentences on what keeps faxes from being taken out of a folder that is there."""
        if self.is_there and not os.access(self._here, os.R_OK | os.W_OK | os.X_OK):
            return ["faxbot may not read ASTERISK_RECEIVED_FOLDER, or may not remove files there."]
        return []


def _file_of(fax_name: str) -> str | None:
    """The file of a fax: by the name that our dialplan, or another's call, gives it. What an earlier version noted has
    the file's own name behind a stroke."""
    if is_ours(fax_name):
        return f"{fax_name}{_SUFFIX}"
    call, stroke, name = fax_name.partition("/")
    if not is_call(call):
        return None
    if not stroke:
        return f"{_CALLS}{call}{_SUFFIX}"
    return name if _FILE.fullmatch(name) else None


@contextmanager
def _trouble() -> Iterator[None]:
    """What is wrong with a file that is there is AccountRefused: somebody here must mend it."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise AccountRefused(
            f"A received fax cannot be taken in ASTERISK_RECEIVED_FOLDER: {error.strerror}.",
            cause="config",
        ) from None


def _opened(folder: Path, name: str) -> BinaryIO:
    """The file itself, and nothing that a link in its place names."""
    number = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise IsADirectoryError(0, "it is no file")
    return os.fdopen(number, "rb")
