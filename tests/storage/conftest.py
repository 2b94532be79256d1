"""Fixtures of the storages' tests: an S3 that runs, one that a test may crash and freeze, and a carrier for faxes whose
documents lie there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ground import Ground
from tests.integration.conftest import carrier_of_all
from tests.storage.server import S3Server

__all__ = ["carrier_of_all"]


@pytest.fixture(scope="module")
def s3(ground: Ground) -> Iterator[S3Server]:
    server = S3Server(ground)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_s3(ground: Ground) -> Iterator[S3Server]:
    server = S3Server(ground)
    server.start()
    yield server
    if server.process is not None:
        server.kill9()


@pytest.fixture
def bucket(s3: S3Server) -> str:
    """An empty one."""
    return s3.bucket()
