"""Cannot send."""

from __future__ import annotations

from faxbot.plugins.base import TransportPlugin


class Plugin(TransportPlugin):
    pass
