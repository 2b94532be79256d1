"""The provider keeps faxbot's contract, at the invented carrier of carrier.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from carrier import Carrier
from faxbot_provider_example import ExampleProvider

from faxbot.testing import ProviderContract

SECRET = "a long test secret"


class TestExample(ProviderContract):
    plugin = ExampleProvider
    refused_number = "+15550100099"

    def settings(self, url: str) -> dict[str, Any]:
        return {"baseUrl": url, "secret": SECRET}

    @pytest.fixture
    def carrier(self) -> Iterator[str]:
        with Carrier(SECRET) as carrier:
            yield carrier.url
