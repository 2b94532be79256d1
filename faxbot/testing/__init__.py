"""For authors of plugins: the contracts as tests (`contract.ProviderContract`, `storage.StorageContract`,
`notification.NotificationContract`), and what such tests need.

It needs pytest: `pip install "faxbot[testing]"`.
"""

from __future__ import annotations

from faxbot.testing.contract import ProviderContract
from faxbot.testing.notification import NotificationContract
from faxbot.testing.recorded import Recorded, recorded_in
from faxbot.testing.standin import Answer, Asked, StandIn
from faxbot.testing.storage import StorageContract

__all__ = [
    "Answer",
    "Asked",
    "NotificationContract",
    "ProviderContract",
    "Recorded",
    "StandIn",
    "StorageContract",
    "recorded_in",
]
