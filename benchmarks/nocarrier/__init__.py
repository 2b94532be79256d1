"""A transport plugin that accepts every fax at once and calls nobody: what is left is the worker's own work."""

from __future__ import annotations

from faxbot.plugins.base import OutboundFax, Receipt, TransportPlugin


class NoCarrier(TransportPlugin):
    """Accepts."""

    def send(self, fax: OutboundFax) -> Receipt:
        return Receipt(external_id=f"none-{fax.tag}")
