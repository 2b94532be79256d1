"""Fixtures of the notification plugins' tests: a mail server, and a certificate of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import certificates
from tests.integration.conftest import carrier_of_all
from tests.mailserver import MailServer

__all__ = ["carrier_of_all"]


@pytest.fixture
def mail() -> Iterator[MailServer]:
    """In clear, without a login."""
    with MailServer() as server:
        yield server


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return certificates.certificate(tmp_path / "mail.pem", "127.0.0.1")
