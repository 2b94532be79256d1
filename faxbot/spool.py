"""The spool: where bytes of a client wait in private files until they are stored or refused.

A name is random and nothing a client wrote is ever part of one; files are 0600, the folder is 0700.
Who makes a file removes it; what a killed process left is collected by age.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path

STALE_SECONDS = 6 * 3600.0
"""Nothing in the spool stays untouched this long while somebody works with it. Renderings take
minutes; the first document of a form waits for its last, and on the slowest line that is served
the 50 MB of MAX_FILE_SIZE_MB take almost two hours."""


class SpoolFile:
    """One new file in the spool, hashed while it is written."""

    __slots__ = ("_descriptor", "_digest", "path", "size")

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"upload-{secrets.token_hex(16)}"
        self.size = 0
        self._digest = hashlib.sha256()
        self._descriptor = _create(self.path)

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

    def close(self) -> None:
        """No more writing; the file stays."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def remove(self) -> None:
        """Close and delete it; no error when storage has moved it away."""
        self.close()
        self.path.unlink(missing_ok=True)


def _create(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return os.open(path, flags, 0o600)


def collect(folder: Path, *, older_than: float = STALE_SECONDS) -> int:
    """Remove what nobody has written to for `older_than` seconds, and say how many entries that
    were."""
    limit = time.time() - older_than
    removed = 0
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            # Its owner may remove it at the same moment.
            with suppress(FileNotFoundError):
                if entry.stat(follow_symlinks=False).st_mtime > limit:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    Path(entry.path).unlink()
                removed += 1
    return removed
