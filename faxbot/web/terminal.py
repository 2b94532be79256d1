"""/admin/terminal: `faxbot` commands that only look, for an administrator at this very machine; there only where
ENABLE_LOCAL_ADMIN is true.

Whoever comes through a proxy seems to come from this machine too, and so does a page of another site whose name leads
here (DNS rebinding). So nothing may stand in between, and the address must be this machine's own name.
"""

from __future__ import annotations

from typing import Any

from flask import Response, request

from faxbot import origins, terminal
from faxbot.errors import Forbidden, NotPossibleNow
from faxbot.web import api, auth, problems
from faxbot.web.auth import actor, runtime
from faxbot.web.terminal_schemas import TerminalAnswer, TerminalCommands, TerminalWish

blueprint = api.Blueprint(
    "terminal", __name__, description="Commands that only look, at this machine."
)
_HERE = (
    "This is for who sits at this machine: ask http://127.0.0.1 itself, with no proxy in between."
)


@blueprint.operation(
    "GET",
    "/admin/terminal",
    access="admin",
    answers={200: api.answer(TerminalCommands, "The commands that may be run.")},
)
def read_terminal() -> Response:
    """See which commands may be run at this machine"""
    must_be_here()
    items = [{"usage": each.usage, "help": each.help} for each in terminal.COMMANDS]
    return api.reply(problems.dumps({"items": items, "seconds": terminal.SECONDS}))


@blueprint.operation(
    "POST",
    "/admin/terminal",
    access="admin",
    body=TerminalWish(),
    answers={200: api.answer(TerminalAnswer, "It has ended, well or not.")},
    errors=(NotPossibleNow,),
)
def run_at_terminal(wish: dict[str, Any]) -> Response:
    """Run a command at this machine

    One of those that GET names, with nothing else behind it; there is no shell. It is written into the audit trail.
    """
    must_be_here()
    ended = terminal.run(runtime(), actor(), wish["command"])
    return api.reply(
        problems.dumps(
            {
                "exit_code": ended.exit_code,
                "output": ended.output,
                "truncated": ended.truncated,
            }
        )
    )


def is_here() -> bool:
    """Whether the request comes from this machine for sure."""
    origin = request.environ.get("HTTP_ORIGIN")
    ours = origin is None or origins.names_loopback(origin.partition("://")[2])
    # We speak no TLS: where our address is https a proxy is in front, which may add no header at all.
    behind_proxy = runtime().config.base_url.startswith("https://")
    return ours and not behind_proxy and auth.came_straight()


def must_be_here() -> None:
    """Raise Forbidden for a request that may come from elsewhere."""
    if not is_here():
        raise Forbidden(_HERE)
