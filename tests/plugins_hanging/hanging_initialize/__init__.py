"""Waits when it starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hanging_gate import begun, gate, stopped  # type: ignore[import-not-found]

from faxbot.plugins.base import Context, OutboundFax, Receipt, TransportPlugin


class Plugin(TransportPlugin):
    def initialize(self, config: Mapping[str, Any], context: Context) -> None:
        super().initialize(config, context)
        begun.append("hanging_initialize")
        gate.wait()

    def shutdown(self) -> None:
        stopped.append("hanging_initialize")

    def send(self, fax: OutboundFax) -> Receipt:
        return Receipt(fax.tag)
