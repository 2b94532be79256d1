"""For authors of providers: the contract as tests (`contract.ProviderContract`), and what such tests need.

It needs pytest: `pip install "faxbot[testing]"`.
"""

from __future__ import annotations

from faxbot.testing.contract import ProviderContract
from faxbot.testing.recorded import Recorded, recorded_in
from faxbot.testing.standin import Answer, Asked, StandIn

__all__ = ["Answer", "Asked", "ProviderContract", "Recorded", "StandIn", "recorded_in"]
