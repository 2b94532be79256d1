"""The terminal for administrators at this machine (ENABLE_LOCAL_ADMIN): which `faxbot` commands may be run there, and
how one is.

There is no shell. A command line is split into words and must be a command of COMMANDS with options and arguments of
the forms that stand there, none of which names a file or an address; what is run is put together anew from what was
recognised. All of them only look, and end by themselves.
"""

from __future__ import annotations

import os
import re
import select
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any

from faxbot import audit
from faxbot.actors import Actor
from faxbot.audit import Action
from faxbot.errors import Forbidden, InvalidFields, NotPossibleNow
from faxbot.events import DEFAULT_ACCOUNT
from faxbot.runtime import Runtime

LONGEST_LINE = 500
"""Characters of a command line."""
SECONDS = 30.0
"""A command that takes longer is ended."""
MOST_OUTPUT = 256 * 1024
"""Bytes; what a command says beyond them is read and left out."""

_FAX = re.compile(r"[0-9a-f]{32}")
_PLUGIN = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_SETTING = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}(\.[A-Za-z][A-Za-z0-9_]{0,63})?")
_COUNT = re.compile(r"[1-9][0-9]{0,2}")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_WORD = re.compile(r"[a-z]{1,20}")

_PROGRAM = (
    "import sys; from faxbot.lifeline import die_with_parent; die_with_parent(int(sys.argv.pop(1))); "
    "from faxbot.cli import main; main()"
)
"""The `faxbot` command as a child that does not outlive us. It says so itself: a process with threads must run no
Python between fork and exec (subprocess, preexec_fn)."""
_NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Command:
    """One that may be run: its words, what it does, and the forms of what may stand behind them."""

    words: str
    help: str
    argument: tuple[str, re.Pattern[str]] | None = None
    """What the one argument is called, and its form; each command has it or has none."""
    options: Mapping[str, re.Pattern[str] | None] = field(default_factory=lambda: {"--json": None})
    """By name; None for one without a value."""
    scope: str = "admin"
    """What one must have beside being let in: what the API asks for the same, where `admin` does not imply it."""

    @property
    def usage(self) -> str:
        """`webhooks deliveries WEBHOOK_ID [--limit VALUE] [--json]`."""
        named = [self.argument[0]] if self.argument else []
        offered = [f"[{name}{' VALUE' if form else ''}]" for name, form in self.options.items()]
        return " ".join([self.words, *named, *offered])


COMMANDS: tuple[Command, ...] = (
    Command("doctor", "Say what is missing here, and what mends it."),
    # Not as JSON, where the number is whole.
    Command(
        "status", "Show where a fax stands.", ("FAX_ID", _FAX), {"--events": None}, "fax:read"
    ),
    Command(
        "list", "List faxes, newest first.",
        options={"--status": _WORD, "--limit": _COUNT, "--json": None}, scope="fax:read",
    ),
    Command("db check", "Say whether it has this version's schema.", options=_NOTHING),
    Command("keys list", "Show all keys, newest first; never the keys themselves."),
    Command("users list", "Show all users, by name."),
    Command(
        "config list", "Show every option with its value and origin: db (saved), env, default.",
        options={"--saved": None, "--json": None},
    ),
    Command("config get", "Show one value; secrets are masked.", ("NAME", _SETTING)),
    Command("config backups", "Show the versions that can be gone back to, newest first."),
    Command("providers list", "Show every provider, its circuit breaker and its last calls."),
    Command("providers show", "Show a provider and its history.", ("PROVIDER_ID", _PLUGIN)),
    Command("plugins list", "Show every installed plugin."),
    Command("plugins show", "Show a plugin and how its settings stand.", ("PLUGIN_ID", _PLUGIN)),
    Command("plugins validate", "Check the installed plugins.", options=_NOTHING),
    Command("webhooks list", "Show all webhooks, newest first.", scope="webhooks:manage"),
    Command(
        "webhooks deliveries", "Show what was sent to a webhook, newest first.", ("WEBHOOK_ID", _FAX),
        {"--status": _WORD, "--limit": _COUNT, "--json": None}, "webhooks:manage",
    ),
    Command("notifications list", "Show by which plugins people are told, and the newest messages."),
    Command(
        "retention list", "Show what is kept how long, and what the newest runs removed.",
        options={"--limit": _COUNT, "--json": None},
    ),
    Command(
        "restored status", "Show whether the database was restored, and how many faxes are held for it.",
    ),
    Command(
        "audit verify", "Say whether the audit trail is as it was written.",
        options={"--since": _DAY, "--json": None},
    ),
)  # fmt: skip
"""All that may be run (a test holds them against the commands themselves, and against those that may not)."""


@dataclass(frozen=True, slots=True)
class Call:
    """A command line that was recognised."""

    command: Command
    options: tuple[tuple[str, str | None], ...]
    argument: str | None

    @property
    def words(self) -> list[str]:
        """As it is run: values are tied to their options, and nothing behind -- is an option."""
        tied = [name if value is None else f"{name}={value}" for name, value in self.options]
        last = ["--", self.argument] if self.argument is not None else []
        return [*self.command.words.split(), *tied, *last]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended, and what it said."""

    exit_code: int | None
    """None where it took too long and was ended."""
    output: str
    """Both of its streams as they came; what is no character to be seen is shown as ?."""
    truncated: bool
    """It said more than MOST_OUTPUT."""


def recognised(line: str) -> Call:
    """The command of a line, with or without `faxbot` before it. Raises InvalidFields, which repeats nothing of it: it
    may hold anything."""
    if len(line) > LONGEST_LINE:
        raise _refusal(f"A command line has at most {LONGEST_LINE} characters.")
    if not line.isascii() or not line.isprintable():
        raise _refusal("It has characters that no command needs: plain ASCII in one line, please.")
    try:
        words = shlex.split(line)
    except ValueError:
        raise _refusal("A quotation mark is left open.") from None
    if words[:1] == ["faxbot"]:
        words = words[1:]
    for command in COMMANDS:
        own = command.words.split()
        if words[: len(own)] == own:
            return _call(command, iter(words[len(own) :]))
    raise _refusal(
        "That is none of the commands that may be run here: GET /admin/terminal names them."
    )


def _call(command: Command, words: Iterator[str]) -> Call:
    options: dict[str, str | None] = {}
    arguments: list[str] = []
    for word in words:
        if not word.startswith("-"):
            arguments.append(word)
            continue
        name, value = _option(command, word, words)
        if name in options:
            raise _misuse(command)
        options[name] = value
    form = command.argument[1] if command.argument else None
    if len(arguments) != (form is not None) or (form and not form.fullmatch(arguments[0])):
        raise _misuse(command)
    return Call(command, tuple(options.items()), next(iter(arguments), None))


def _option(command: Command, word: str, words: Iterator[str]) -> tuple[str, str | None]:
    """An option by its whole name, and its value, from the same word or the next one."""
    name, tied, value = word.partition("=")
    form = command.options.get(name)
    if form is not None and not tied:
        value = next(words, "")
    sound = form.fullmatch(value) if form else name in command.options and not tied
    if not sound:
        raise _misuse(command)
    return name, value if form else None


def _misuse(command: Command) -> InvalidFields:
    return _refusal(f"It may be run here so, and not otherwise: {command.usage}.")


def _refusal(sentence: str) -> InvalidFields:
    return InvalidFields(errors={"command": [sentence]})


_busy = threading.Lock()


@audit.refusals(Action.TERMINAL_USED)
def run(runtime: Runtime, actor: Actor, line: str) -> Ended:
    """Run a command line to its end and have it written down, with what was run, before anybody sees what it said.

    Raises InvalidFields for what may not be run, Forbidden for who may not, NotPossibleNow while another one runs, and
    DatabaseAway where it cannot be written down.
    """
    call = recognised(line)
    actor.require(call.command.scope)
    if actor.account_id != DEFAULT_ACCOUNT:
        raise Forbidden("Commands speak for the first account, which is not yours.")
    if not _busy.acquire(blocking=False):
        raise NotPossibleNow("Another command is running: wait until it has ended.")
    try:
        ended = _run(call.words, runtime.config.environ)
    finally:
        _busy.release()
    _write_down(runtime, actor, call, ended)
    return ended


def _write_down(runtime: Runtime, actor: Actor, call: Call, ended: Ended) -> None:
    """Of what was typed the words that COMMANDS has, and ids; a name of a setting or plugin could be any word."""
    details = {
        "command": call.command.words,
        "options": [name for name, _ in call.options],
        "exit_code": ended.exit_code,
    }
    of = None
    if call.argument and call.command.argument and call.command.argument[1] is _FAX:
        kind = call.command.argument[0].partition("_")[0].lower()
        of = (kind, call.argument)
    outcome = audit.DONE if ended.exit_code == 0 else audit.FAILED
    with runtime.database.writing() as connection:
        audit.record(
            connection, actor, Action.TERMINAL_USED, of, now=runtime.now(), outcome=outcome, details=details
        )  # fmt: skip


def _run(words: Sequence[str], environ: Mapping[str, str]) -> Ended:
    until = time.monotonic() + SECONDS
    # In a session, and so in a group, of its own, which can be killed as one.
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _PROGRAM, str(os.getpid()), *words],
        env={**environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        umask=0o077,
    )
    with process, closing(_Ending(process.pid)) as ending:
        said = _Said(process)
        try:
            in_time = said.hear_until(ending.descriptor, until)
        finally:
            # While the first of the group is not waited for, its number is nobody else's.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        said.hear_rest()
    text = bytes(said.kept).decode(errors="replace")
    shown = "".join(each if each.isprintable() or each in "\n\t" else "?" for each in text)
    return Ended(process.returncode if in_time else None, shown, said.more)


class _Ending:
    """A descriptor that can be read once a process has ended (pidfd_open(2))."""

    def __init__(self, pid: int) -> None:
        self.descriptor = os.pidfd_open(pid)

    def close(self) -> None:
        os.close(self.descriptor)


class _Said:
    """What comes out of a pipe: the first MOST_OUTPUT bytes of it, and whether there was `more`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._descriptor = process.stdout.fileno() if process.stdout else -1
        os.set_blocking(self._descriptor, False)
        self.kept = bytearray()
        self.more = False

    def hear_until(self, ending: int, until: float) -> bool:
        """Hear until the process behind `ending` has ended; whether that was in time."""
        poll = select.poll()
        for each in (self._descriptor, ending):
            poll.register(each, select.POLLIN)
        while (left := until - time.monotonic()) > 0:
            ready = [descriptor for descriptor, _ in poll.poll(left * 1000)]
            if ending in ready:
                return True
            if self._descriptor in ready and not self._take():
                poll.unregister(self._descriptor)
        return False

    def hear_rest(self) -> None:
        """What is still in the pipe; everybody who wrote there has ended."""
        while self._take():
            pass

    def _take(self) -> bool:
        """Take what is there; False where nothing is, or comes any more."""
        try:
            data = os.read(self._descriptor, 65536)
        except BlockingIOError:
            return False
        room = MOST_OUTPUT - len(self.kept)
        self.kept += data[:room]
        self.more = self.more or len(data) > room
        return bool(data)
