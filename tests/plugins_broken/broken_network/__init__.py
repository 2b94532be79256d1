"""Calls home when it is imported."""

from __future__ import annotations

import socket

from faxbot.plugins.base import OutboundFax, Receipt, TransportPlugin

socket.create_connection(("127.0.0.1", 9), timeout=1).close()


class Plugin(TransportPlugin):
    def send(self, fax: OutboundFax) -> Receipt:
        return Receipt(fax.tag)
