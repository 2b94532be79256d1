"""How a role writes its log: one JSON object a line, or short text for a person in front of `faxbot up`.

Nothing a foreign library says in an exception, or of one, is written, because that may quote a number or a name: a
failure is logged by its kind and the places it came through. That goes for one that nobody catches too.
docs/logs.md names the fields.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import traceback
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import click

from faxbot import logcontext
from faxbot.errors import FaxbotError

log = logging.getLogger(__name__)

LEVELS = ("debug", "info", "warning", "error")
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}

log_level = click.option(
    "--log-level",
    type=click.Choice(LEVELS),
    default="info",
    show_default=True,
    help="The least that is logged.",
)
log_format = click.option(
    "--log-format",
    type=click.Choice(["json", "text"]),
    default="json",
    show_default=True,
    help="How it is written.",
)


class JsonLines(logging.Formatter):
    """{"at", "level", "role", "process", "logger", "message", ...what it is at and of, "exception", "trace"}."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "role": self._role,
            "process": record.process,
            "logger": record.name,
            "message": _message(record),
            **_facts(record),
        }
        return json.dumps(entry, default=str)


class TextLines(logging.Formatter):
    """WARNING message field=value; the supervisor puts the role in front."""

    def format(self, record: logging.LogRecord) -> str:
        facts = _facts(record)
        trace = facts.pop("trace", [])
        fields = "".join(f" {name}={value}" for name, value in facts.items())
        places = "".join(f"\n    {place}" for place in trace)
        return f"{record.levelname} {_message(record)}{fields}{places}"


def configure(role: str, level: str, style: str) -> None:
    """Send everything this process logs to stderr, in `style`: json or text."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(role) if style == "json" else TextLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda failed: _uncaught(
        failed.exc_type, failed.exc_value, failed.exc_traceback
    )


def _uncaught(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    """What nobody caught: Python's own way is to print it with its text."""
    if error is not None and not issubclass(kind, SystemExit):
        log.critical("not caught", exc_info=(kind, error, trace))


def _message(record: logging.LogRecord) -> str:
    """The message; what others say of an exception quotes it, so that is said in our words."""
    if record.exc_info and not record.name.startswith("faxbot"):
        task = getattr(record, "data", {}).get("name")  # Celery's own on a failed task
        return f"task {task} failed" if task else f"{record.name}: failed"
    return record.getMessage()


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    facts = dict(logcontext.facts())
    facts |= {
        name: value
        for name, value in record.__dict__.items()
        if name not in _STANDARD and name != "data"
    }
    if record.exc_info and (error := record.exc_info[1]):
        facts["exception"] = (
            error.detail if isinstance(error, FaxbotError) else type(error).__name__
        )
        facts["trace"] = [
            f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"
            for frame in traceback.extract_tb(error.__traceback__)
        ]
    return facts
