"""The file beside SQLite's ledger, which no backup of the ledger takes along: a name of this place, and when the ledger
here beat last.

What a file system calls a file (its inode) is given to the next one as soon as it is free. A copy that is laid down in
another place finds another name beside it, or none; one that is written over the ledger is older than the beat.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

_NAME = 32
_BEAT = 32
"""Characters of each; the beat stands behind the name and a blank."""


class Landmark(NamedTuple):
    """The name of the place, and a beat that the ledger which lies there has had."""

    name: str
    beat_at: datetime | None


def read(ledger: Path) -> Landmark | None:
    """What stands beside the ledger, put there where nothing does; None where nothing can."""
    try:
        if not _beside(ledger).exists():
            _put(ledger)
        text = _beside(ledger).read_text("ascii", "replace")
    except OSError:
        return None
    return Landmark(text[:_NAME], _time(text[_NAME + 1 :]))


def beat(ledger: Path, at: datetime) -> None:
    """Write down that the ledger has a beat of this time by now."""
    # An older beat is no harm: it only tells less.
    with suppress(OSError), _beside(ledger).open("r+b", buffering=0) as file:
        file.seek(_NAME)
        file.write(f" {at.isoformat(timespec='microseconds'):{_BEAT}}".encode())


def _put(ledger: Path) -> None:
    """Whole or not at all, and by one of those that try."""
    name = secrets.token_hex(_NAME // 2)
    draft = ledger.with_name(f"{_beside(ledger).name}.{name}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(name)
        with suppress(FileExistsError):
            os.link(draft, _beside(ledger))
    finally:
        draft.unlink(missing_ok=True)


def _time(text: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return at if at.tzinfo is not None else None


def _beside(ledger: Path) -> Path:
    return ledger.with_name(f"{ledger.name}-place")
