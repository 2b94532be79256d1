"""Documents in a folder of this machine: written whole or not at all, durable on return, readable
by this user only."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from faxbot.errors import ArtifactNotFound, StorageAway
from faxbot.plugins.base import Context, Health, StoragePlugin, check_key


class LocalStorage(StoragePlugin):
    """A key is the path below `documents`; core's keys begin with the day, so that folders stay
    small."""

    def initialize(self, config: Mapping[str, Any], context: Context) -> None:
        super().initialize(config, context)
        self._root = Path(str(config["dataDir"])).absolute() / "documents"

    def health(self) -> Health:
        """Whether a document could be kept now."""
        try:
            _make_folder(self._root)
            with _temporary(self._root / ".~") as probe:
                probe.touch(0o600)
        except OSError as error:
            return Health(
                False,
                f"The documents folder under FAX_DATA_DIR cannot be written: {error.strerror}.",
            )
        return Health(True, "The documents folder can be written.")

    def put(self, key: str, source: Path) -> None:
        """Moves `source` where it lies on the same file system, else copies it. Raises OSError when
        the disk fails."""
        target = self._path(key)
        _make_folder(target.parent)
        try:
            _settle(source)
            source.rename(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            with _temporary(target.with_name(_unfinished(target.name))) as copy:
                _copy(source, copy)
                copy.rename(target)
        _flush(target.parent)

    def open(self, key: str) -> BinaryIO:
        path = self._path(key)
        try:
            return path.open("rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            self._was_here(path.parent)
            raise ArtifactNotFound from None

    def path(self, key: str) -> Path | None:
        return self._path(key)

    def delete(self, key: str) -> None:
        """Also what a put() left that was killed while it copied: what is there whole was not left so."""
        folder, _, name = f"{self._root}/{check_key(key)}".rpartition("/")
        # No Path: retention asks for many thousands, and four of them cost as much as it takes to unlink a file. Nor is
        # a name tried without need: also who unlinks nothing keeps the others out of the folder meanwhile (measured, by
        # eight threads: 105 us a document with two names, 70 with one).
        for each in (name, _unfinished(name)):
            with suppress(FileNotFoundError, NotADirectoryError):
                os.unlink(f"{folder}/{each}")  # noqa: PTH108
                return
        self._was_here(folder)

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    def _was_here(self, folder: str | Path) -> None:
        """Raises StorageAway where the folder of what is not found is not there either: put() made it, and nothing of
        ours removes it. So this is a process without the volume of the others, which keeps new documents all the same,
        and of what it does not find nothing can be said."""
        try:
            os.stat(folder)  # noqa: PTH116 - as in delete()
        except (FileNotFoundError, NotADirectoryError):
            day = os.path.relpath(folder, self._root)
            raise StorageAway(
                f"The folder {day} is not under FAX_DATA_DIR/documents: mount the volume of the documents in every "
                "process, or make that folder where they are really gone (docs/storage.md)."
            ) from None


def _make_folder(folder: Path) -> None:
    """Make it and what is missing above it (0700), each durable: a file in a folder that is lost is
    lost."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)
        _flush(folder.parent)


def _settle(file: Path) -> None:
    """Make a file's bytes durable and its mode 0600. A link is refused: it would be moved instead
    of what it names."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fchmod(descriptor, 0o600)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy(source: Path, target: Path) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with source.open("rb") as reader, os.fdopen(descriptor, "wb") as writer:
        shutil.copyfileobj(reader, writer, 1024 * 1024)
        writer.flush()
        os.fsync(writer.fileno())


def _unfinished(name: str) -> str:
    """A name beside this one that no key can have, and known to who deletes it."""
    return f".{name}"


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """What is left under this name is removed."""
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
