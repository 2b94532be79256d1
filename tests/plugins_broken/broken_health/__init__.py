"""Starts, and stumbles when it is asked how it is."""

from __future__ import annotations

from faxbot.plugins.base import Health, OutboundFax, Receipt, TransportPlugin


class Plugin(TransportPlugin):
    def health(self) -> Health:
        raise ValueError("a secret")

    def send(self, fax: OutboundFax) -> Receipt:
        return Receipt(fax.tag)
