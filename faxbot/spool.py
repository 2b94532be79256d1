"""The spool: where bytes of a client wait in private files until they are stored or refused, and where a document lies
in clear while somebody works with it.

A name is random and nothing a client wrote is ever part of one; files are 0600, folders 0700. Who makes an entry
removes it, and holds it locked until then (flock(2)): the kernel lets go of it with the process, however that
ended, so what a killed process left is known from what is in use. Who holds `upload-1` holds `upload-1.sealed` too.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path

STALE_SECONDS = 6 * 3600.0
"""Where locks cannot tell (a network file system without them): nothing in the spool stays untouched this long while
somebody works with it. Renderings take minutes; the first document of a form waits for its last, and on the slowest
line that is served the 50 MB of MAX_FILE_SIZE_MB take almost two hours."""
_UNFINISHED = "new-"
"""How an entry is named until it is locked."""


class SpoolFile:
    """One new file in the spool, hashed while it is written."""

    __slots__ = ("_descriptor", "_digest", "path", "size")

    def __init__(self, folder: Path) -> None:
        self.size = 0
        self._digest = hashlib.sha256()
        new = folder / f"{_UNFINISHED}{secrets.token_hex(16)}"
        self._descriptor = _create(new)
        self.path = _held(self._descriptor, new, "upload-")

    def write(self, data: bytes) -> None:
        """Append `data`; raises OSError when the disk is full."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        self._digest.update(data)
        self.size += len(data)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def remove(self) -> None:
        """Delete it and let go of it; no error when storage has moved it away."""
        self.path.unlink(missing_ok=True)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class SpoolFolder:
    """One new folder in the spool."""

    __slots__ = ("_descriptor", "path")

    def __init__(self, spool: Path) -> None:
        spool.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = spool / f"{_UNFINISHED}{secrets.token_hex(16)}"
        new.mkdir(mode=0o700)
        self._descriptor = os.open(new, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.path = _held(self._descriptor, new, "work-")

    def remove(self) -> None:
        """Delete it with all that is in it, and let go of it."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _create(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return os.open(path, flags, 0o600)


def _held(descriptor: int, new: Path, prefix: str) -> Path:
    """Lock an entry and give it the name under which it is known; nobody collects it in between."""
    with suppress(OSError):  # where there are no locks age decides
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    return new.rename(new.with_name(prefix + new.name.removeprefix(_UNFINISHED)))


def collect(folder: Path, *, older_than: float = STALE_SECONDS) -> int:
    """Remove what nobody holds, and what nobody has written to for `older_than` seconds where that cannot be told; say
    how many entries that were."""
    limit = time.time() - older_than
    removed = 0
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            # Its owner may remove it at the same moment.
            with suppress(FileNotFoundError):
                left = _is_left(folder / entry.name.partition(".")[0])
                if left is None:
                    left = entry.stat(follow_symlinks=False).st_mtime <= limit
                if not left:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    Path(entry.path).unlink()
                removed += 1
    return removed


def _is_left(path: Path) -> bool | None:
    """Whether the process that holds it is gone; None where a lock does not tell."""
    if path.name.startswith(_UNFINISHED):
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return True
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    else:
        return True
    finally:
        os.close(descriptor)
