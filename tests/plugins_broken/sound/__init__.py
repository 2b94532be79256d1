"""A whole plugin among broken ones: keeps bytes in memory, and counts what is done to it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from faxbot.errors import ArtifactNotFound
from faxbot.plugins.base import Context, StoragePlugin


class Sound(StoragePlugin):
    started: ClassVar[int] = 0
    stopped: ClassVar[int] = 0

    def initialize(self, config: Mapping[str, Any], context: Context) -> None:
        super().initialize(config, context)
        if config["stubborn"]:
            raise OSError("not yet")
        Sound.started += 1
        self.kept: dict[str, bytes] = {}

    def shutdown(self) -> None:
        Sound.stopped += 1

    def put(self, key: str, source: Path) -> None:
        self.kept[key] = source.read_bytes()

    def open(self, key: str) -> BinaryIO:
        if key not in self.kept:
            raise ArtifactNotFound
        return io.BytesIO(self.kept[key])

    def delete(self, key: str) -> None:
        self.kept.pop(key, None)
