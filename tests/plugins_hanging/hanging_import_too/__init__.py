"""Waits when it is imported."""

from __future__ import annotations

from hanging_gate import begun, gate  # type: ignore[import-not-found]

from faxbot.plugins.base import OutboundFax, Receipt, TransportPlugin

begun.append("hanging_import_too")
gate.wait()


class Plugin(TransportPlugin):
    def send(self, fax: OutboundFax) -> Receipt:
        return Receipt(fax.tag)
