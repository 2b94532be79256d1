"""Asks for an address when it is imported, and makes nothing of a failure."""

from __future__ import annotations

import socket
from contextlib import suppress

from faxbot.plugins.base import OutboundFax, Receipt, TransportPlugin

with suppress(Exception):
    socket.getaddrinfo("localhost", 443)


class Plugin(TransportPlugin):
    def send(self, fax: OutboundFax) -> Receipt:
        return Receipt(fax.tag)
