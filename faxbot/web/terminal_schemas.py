"""The shapes of the terminal, as marshmallow schemas."""

from __future__ import annotations

import marshmallow as ma
from marshmallow import fields

from faxbot.terminal import MOST_OUTPUT, SECONDS
from faxbot.web.schemas import says


class TerminalCommand(ma.Schema):
    """A command that may be run."""

    usage = fields.String(
        required=True,
        metadata=says("it and what may stand behind it", "retention list [--limit VALUE] [--json]"),
    )
    help = fields.String(required=True, metadata=says("what it does"))


class TerminalCommands(ma.Schema):
    """What may be run, and for how long."""

    items = fields.List(fields.Nested(TerminalCommand), required=True)
    seconds = fields.Float(
        required=True, metadata=says("a command that takes longer is ended", SECONDS)
    )


class TerminalWish(ma.Schema):
    """A command line."""

    command = fields.String(
        required=True,
        metadata=says("without a shell: no pipes, no files, no variables", "doctor --json"),
    )


class TerminalAnswer(ma.Schema):
    """How a command ended."""

    exit_code = fields.Integer(
        required=True,
        allow_none=True,
        metadata=says("0 done, 1 failed, 2 misuse; null: it took too long and was ended", 0),
    )
    output = fields.String(required=True, metadata=says("what it said, on both of its streams"))
    truncated = fields.Boolean(
        required=True,
        metadata=says(f"it said more than {MOST_OUTPUT} bytes, which is left out", False),
    )
