"""Both storages keep the contract: the folder, and S3 at a server that is a
process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from faxbot.storage.local import LocalStorage
from faxbot.storage.s3 import S3Storage
from faxbot.testing import StorageContract
from faxbot.testing.standin import dead_url
from tests.storage.server import S3Server


class TestLocal(StorageContract):
    plugin = LocalStorage

    @pytest.fixture
    def settings(self, tmp_path: Path) -> dict[str, Any]:
        return {"dataDir": str(tmp_path / "data")}


class TestS3(StorageContract):
    plugin = S3Storage

    @pytest.fixture
    def settings(self, s3: S3Server, bucket: str) -> dict[str, Any]:
        return s3.settings(bucket)

    @pytest.fixture
    def away(self, settings: dict[str, Any]) -> dict[str, Any]:
        return {**settings, "endpointUrl": dead_url(), "attempts": 1}
