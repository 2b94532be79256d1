"""Cannot be constructed."""

from __future__ import annotations

from faxbot.plugins.base import OutboundFax, Receipt, TransportPlugin


class Plugin(TransportPlugin):
    def __init__(self) -> None:
        raise ZeroDivisionError("in the constructor")

    def send(self, fax: OutboundFax) -> Receipt:
        return Receipt(fax.tag)
