"""Cannot forget what it keeps."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from faxbot.errors import ArtifactNotFound
from faxbot.plugins.base import StoragePlugin


class Plugin(StoragePlugin):
    def put(self, key: str, source: Path) -> None: ...

    def open(self, key: str) -> BinaryIO:
        raise ArtifactNotFound(key)
