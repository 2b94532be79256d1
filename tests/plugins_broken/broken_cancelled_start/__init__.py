"""Raises what is no Exception when it starts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from faxbot.plugins.base import Context, OutboundFax, Receipt, TransportPlugin


class Plugin(TransportPlugin):
    def initialize(self, config: Mapping[str, Any], context: Context) -> None:
        super().initialize(config, context)
        raise asyncio.CancelledError("a secret")

    def send(self, fax: OutboundFax) -> Receipt:
        return Receipt(fax.tag)
