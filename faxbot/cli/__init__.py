"""The `faxbot` command: exit code 0 done, 1 failed, 2 misuse; errors are one line that names what mends them.

The module of a subcommand is imported when it is that command's turn: help is there at once, and no role carries
what only another one needs.
"""

from __future__ import annotations

import errno
import gc
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import click

from faxbot import __version__
from faxbot.errors import DatabaseAway, FaxbotError, RequestError
from faxbot.supervisor.program import pasteable

COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("faxbot.cli.up:up", "Run everything here: broker, web, worker, beat; Ctrl-C ends it."),
    "demo": ("faxbot.cli.up:demo", "Send one fax through the whole system and show its timeline."),
    "send": ("faxbot.cli.client:send", "Send documents as one fax."),
    "status": ("faxbot.cli.client:status", "Show where a fax stands."),
    "list": ("faxbot.cli.client:list_", "List faxes, newest first."),
    "cancel": ("faxbot.cli.client:cancel", "Cancel a fax."),
    "resend": ("faxbot.cli.client:resend", "Send a fax once more that is over."),
    "hold": ("faxbot.cli.client:hold", "Hold a fax until it is released."),
    "release": ("faxbot.cli.client:release", "Let a held fax go."),
    "send-now": ("faxbot.cli.client:send_now", "Send a fax now that waits for its time."),
    "decide": ("faxbot.cli.client:decide", "Settle an uncertain fax by what you found out."),
    "events": ("faxbot.cli.events:events", "Show what happens to all faxes, in order."),
    "keys": ("faxbot.cli.keys:keys", "Create, list, rotate and revoke API keys."),
    "providers": (
        "faxbot.cli.providers:providers",
        "See how providers stand; pause, resume, reset and test them.",
    ),
    "plugins": ("faxbot.cli.plugins:plugins", "List, show, check, write and test plugins."),
    "web": ("faxbot.cli.web:web", "Run the HTTP API."),
    "worker": ("faxbot.cli.worker:worker", "Run a worker, which sends the faxes."),
    "beat": ("faxbot.cli.beat:beat", "Run the clock, which rings for what is due."),
    "listen": (
        "faxbot.cli.listen:listen",
        "Listen to providers that speak by themselves (Asterisk).",
    ),
    "flower": (
        "faxbot.cli.flower:flower",
        "Run Flower, a window on the queue that changes nothing.",
    ),
    "carrier": ("faxbot.cli.carrier:carrier", "Run a stand-in for a carrier, to try things out."),
    "db": ("faxbot.cli.db:db", "Bring the database to the newest schema, or check it."),
    "setup": ("faxbot.cli.setup:setup_", "Set faxbot up by questions and answers."),
    "users": ("faxbot.cli.users:users", "Say who can sign in, and what he may do."),
    "webhooks": (
        "faxbot.cli.webhooks:webhooks_",
        "Have events sent to subscribers; see what was sent.",
    ),
    "retention": (
        "faxbot.cli.retention:retention",
        "See what is removed when; remove what is old now; keep what must be kept.",
    ),
    "restored": (
        "faxbot.cli.restored:restored",
        "See what is in doubt since the database was restored; say that it was, or was not.",
    ),
    "notifications": (
        "faxbot.cli.notifications:notifications",
        "See how people are told of faxes; send a test notice.",
    ),
    "prepare": ("faxbot.cli.prepare:prepare", ""),
    "config": ("faxbot.cli.config:config", "See, change and take back settings."),
    "audit": ("faxbot.cli.audit:audit", "Verify or export the audit trail."),
    "doctor": ("faxbot.cli.doctor:doctor", "Say what is missing here, and what mends it."),
}
"""Name: where it lives, and its line in `faxbot --help` (a test compares it with the command's own); "" hides it."""
_HOME = Path(__file__).parent.parent


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        # What is imported stays; to look through it for garbage meanwhile takes a fifth of a start (measured).
        gc.disable()
        try:
            return cast(click.Command, getattr(importlib.import_module(module), attribute))
        finally:
            gc.freeze()
            gc.enable()

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items() if line])


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Settings are environment variables; docs/settings.md lists them all.",
)
@click.version_option(__version__, message="faxbot %(version)s")
def cli() -> None:
    """A fax job queue: no accepted fax is lost, and none is sent twice by guessing."""


def main() -> None:
    """The entry point of the `faxbot` command."""
    # Whatever a command writes is for its own user, also where a library opens the file (SQLite's database).
    os.umask(0o077)
    sys.exit(run(sys.argv[1:]))


def run(words: Sequence[str]) -> int:
    """Carry out one command line; the exit code."""
    try:
        code = cli.main(list(words), prog_name="faxbot", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except FaxbotError as error:
        return _failed(error)
    except BrokenPipeError:
        # Whoever read our output has gone; the interpreter must not stumble over it again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        click.echo(f"faxbot: {_refusal(error)}", err=True)
        return 1
    except Exception as error:
        if sys.excepthook is not sys.__excepthook__:
            raise  # a role logs it
        click.echo(f"faxbot: {_fault(error)}", err=True)
        return 1
    return code if isinstance(code, int) else 0


def _refusal(error: OSError) -> str:
    text = error.strerror or "the system refused something"
    if error.filename:
        text += f" ({error.filename})"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        text += ": set FAX_DATA_DIR to a folder where you may write"
    return text


def _fault(error: Exception) -> str:
    """What nobody foresaw, by its kind and the places it came through: its text may quote a number or a name."""
    # No statement's fault: the file is damaged.
    if type(getattr(error, "orig", None)).__qualname__ == "DatabaseError":
        return _unusable(error)
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames[:-1] if Path(frame.filename).is_relative_to(_HOME)]
    places = (f"{Path(frame.filename).name}:{frame.lineno}" for frame in [*ours, frames[-1]][-9:])
    kind = type(error).__name__
    if isinstance(error, ImportError) and error.name:
        kind += f" of {error.name}"
    return f"a fault of its own, {kind} at {' '.join(places)}: please report it"


def _unusable(error: BaseException | None) -> str:
    """SQLite's reason is a word of its own (`database or disk is full`); a server's may hold anything."""
    reason = getattr(error, "orig", None)
    why = f" ({reason})" if type(reason).__module__ == "sqlite3" else ""
    return f"the database cannot be used{why}: see DATABASE_URL, or without it FAX_DATA_DIR"


def _of_field(field: str, sentences: Sequence[str]) -> str:
    """With the field's name in front, where the sentences do not begin with it."""
    text = " ".join(sentences)
    return text if text.startswith(f"{field} ") else f"{field}: {text}"


def _failed(error: FaxbotError) -> int:
    detail = error.detail
    if isinstance(error, DatabaseAway):  # its own words are for who calls the API
        detail = _unusable(error.__cause__)
    faults = error.errors if isinstance(error, RequestError) else {}
    fields = " ".join(_of_field(field, sentences) for field, sentences in faults.items())
    for line in (fields or pasteable(detail)).splitlines():
        click.echo(f"faxbot: {line}", err=True)
    return 1
