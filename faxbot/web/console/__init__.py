"""The console: pages under /admin/ui/ on which people see and run the service.

A page asks the same functions of the domain as the API and shows what they answer; a deed is a form that a page sends
(htmx), with the rights, checks and errors of the API. What somebody may not do is neither shown to him nor served.
"""

from __future__ import annotations

from flask import Flask

from faxbot.config import Config
from faxbot.web.auth import SESSION
from faxbot.web.console import (
    diagnostics,
    door,
    fax,
    faxes,
    frame,
    keys,
    needs_you,
    overview,
    people,
    plugins,
    providers,
    received,
    retention,
    send,
    settings,
    setup,
    telling,
    terminal,
    trail,
    webhooks,
)
from faxbot.web.console.frame import Place
from faxbot.web.terminal import is_here

PAGES = (
    door.pages,
    overview.pages,
    faxes.pages,
    fax.pages,
    needs_you.pages,
    send.pages,
    setup.pages,
    received.pages,
    webhooks.pages,
    telling.pages,
    keys.pages,
    people.pages,
    trail.pages,
    providers.pages,
    plugins.pages,
    settings.pages,
    retention.pages,
    diagnostics.pages,
)
PLACES = (
    Place("Overview", "/admin/ui/", "fax:read"),
    Place("Faxes", "/admin/ui/faxes", "fax:read", "Faxes"),
    Place("Needs you", "/admin/ui/needs-you", "fax:read", "Faxes"),
    Place("Send", "/admin/ui/send", "fax:send", "Faxes"),
    Place("Inbound", "/admin/ui/inbound", "inbound:list", "Faxes", received.are_wanted),
    Place("Providers", "/admin/ui/providers", "operate", "Carriers"),
    Place("Plugins", "/admin/ui/plugins", "admin", "Carriers"),
    Place("Webhooks", "/admin/ui/webhooks", "webhooks:manage", "Carriers"),
    Place("Notifications", "/admin/ui/notifications", "operate", "Carriers"),
    Place("Setup", "/admin/ui/setup", "admin", "Service"),
    Place("Settings", "/admin/ui/settings", "admin", "Service"),
    Place("Keys", "/admin/ui/keys", "keys:manage", "Service"),
    Place("Users", "/admin/ui/users", "admin", "Service"),
    Place("Audit", "/admin/ui/audit", "admin", "Service"),
    Place("Retention", "/admin/ui/retention", "operate", "Service"),
    Place("Diagnostics", "/admin/ui/diagnostics", "admin", "Service"),
    Place("Your account", "/admin/ui/account", SESSION, "You"),
)
"""The menu, in its order."""


TERMINAL = Place("Terminal", "/admin/ui/terminal", "admin", "Service", is_here)


def publish(app: Flask, config: Config) -> None:
    """Serve the pages."""
    # Off, its address is like any that does not exist.
    more = (terminal.pages,) if config.local_admin else ()
    for group in (*PAGES, *more):
        app.register_blueprint(group)
    you = len(PLACES) - 1
    frame.furnish(app, (*PLACES[:you], *((TERMINAL,) if more else ()), *PLACES[you:]))
