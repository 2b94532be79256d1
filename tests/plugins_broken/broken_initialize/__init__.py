"""Repeats its secret when it cannot start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from faxbot.plugins.base import Context, OutboundFax, Receipt, TransportPlugin


class Plugin(TransportPlugin):
    def initialize(self, config: Mapping[str, Any], context: Context) -> None:
        super().initialize(config, context)
        raise ValueError(f"the key {config['key']} is wrong")

    def send(self, fax: OutboundFax) -> Receipt:
        return Receipt(fax.tag)
