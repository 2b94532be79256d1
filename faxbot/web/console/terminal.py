"""The terminal: `faxbot` commands that only look, for an administrator at this very machine; there only where
ENABLE_LOCAL_ADMIN is true."""

from __future__ import annotations

from flask import Response, request

from faxbot import terminal
from faxbot.web import terminal_schemas
from faxbot.web.auth import actor, runtime
from faxbot.web.console import frame
from faxbot.web.terminal import must_be_here

pages = frame.Pages("terminal", __name__)


@pages.page("/terminal", access="admin")
def show_terminal() -> Response:
    """The page: which commands there are, and what the last one said."""
    must_be_here()
    return frame.show("terminal.html", commands=terminal.COMMANDS, seconds=terminal.SECONDS)


@pages.deed("/terminal", access="admin")
def run_command() -> Response:
    """Run one of them; its output is a part of the page."""
    must_be_here()
    wish = frame.checked(terminal_schemas.TerminalWish(), request.form)
    ended = terminal.run(runtime(), actor(), wish["command"])
    return frame.show(
        "terminal-output.html", command=wish["command"], ended=ended, seconds=terminal.SECONDS
    )
