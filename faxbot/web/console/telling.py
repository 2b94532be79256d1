"""Notifications: how people are told of faxes, what waits, and a test notice."""

from __future__ import annotations

from flask import Response

from faxbot import notifiers
from faxbot.web.auth import actor, runtime
from faxbot.web.console import frame

pages = frame.Pages("telling", __name__)


@pages.page("/notifications", access="operate")
def list_notifiers() -> Response:
    """The plugins that tell people, or could, and the newest messages."""
    return frame.show("notifications.html", **notifiers.notifiers(runtime(), actor()))


@pages.deed("/notifications/<plugin_id>/test", access="operate")
def send_test_notice(plugin_id: str) -> Response:
    """Send a test notice to all whom the plugin tells."""
    said = notifiers.test(runtime(), actor(), plugin_id)
    return frame.ask(frame.show("notice-test.html", **said))
