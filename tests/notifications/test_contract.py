"""The plugin for e-mail keeps the contract, at a mail server with STARTTLS and a login."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from faxbot.notifications.email import EmailNotifier
from faxbot.testing import NotificationContract
from tests import certificates
from tests.mailserver import PASSWORD, USER, MailServer
from tests.servers import free_port


class TestEmail(NotificationContract):
    plugin = EmailNotifier

    @pytest.fixture
    def mail(self, certificate: Path) -> Iterator[MailServer]:
        with MailServer(certificate=certificates.serving(certificate), login=True) as server:
            yield server

    @pytest.fixture
    def settings(self, mail: MailServer, certificate: Path) -> dict[str, Any]:
        proof = {"user": USER, "password": PASSWORD, "caFile": str(certificate)}
        return {**mail.settings, "security": "starttls", **proof}

    @pytest.fixture
    def arrived(self, mail: MailServer) -> Callable[[], list[str]]:
        return lambda: [each.raw.decode("ascii") for each in mail.taken]

    @pytest.fixture
    def away(self, settings: dict[str, Any]) -> dict[str, Any]:
        return {**settings, "port": free_port()}

    @pytest.fixture
    def hanging(self, settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
        with MailServer() as silent:
            silent.silent = True
            yield {**settings, "port": silent.port, "seconds": 1}
