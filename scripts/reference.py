"""Writes the pages of docs/ that are made from the code: events.md and settings.md. `make check` compares them.

Run it after a change in faxbot/events.py or faxbot/config.py:  .venv/bin/python scripts/reference.py
"""

from __future__ import annotations

from pathlib import Path

from faxbot import events
from faxbot.claims import TASKS
from faxbot.config import OPTIONS, Option

DOCS = Path(__file__).resolve().parent.parent / "docs"

EVENTS_HEAD = """# Events and statuses

Made from `faxbot/events.py` by `scripts/reference.py`; do not edit by hand.

A fax's status is the fold of its events. Events are rows of the results table: they are appended,
numbered without gaps per fax, and never changed; the database refuses a status change that the
table below does not hold. An event carries ids, counts, causes and times, and never a number, a
name, a file name or a carrier's free text.
"""


def events_page() -> str:
    """docs/events.md: statuses, events, transitions, causes and hold reasons."""
    parts = [EVENTS_HEAD, "## Events\n\n| event | what happened |\n|---|---|"]
    parts += [f"| `{event}` | {meaning} |" for event, meaning in events.EVENT_MEANING.items()]
    parts.append(
        "\n## Which event moves which status\n\n| from | to | event | only if |\n|---|---|---|---|"
    )
    for change in events.TRANSITIONS:
        source = f"`{change.source}`" if change.source else "-"
        parts.append(f"| {source} | `{change.target}` | `{change.event}` | {change.only_if} |")
    kept = ", ".join(f"`{event}`" for event in events.Event if event in events.KEEPS_STATUS)
    final = ", ".join(f"`{status}`" for status in events.Status if status in events.TERMINAL)
    parts.append(f"\n{kept} may stand in a timeline without moving the status. {final} are final.")
    parts.append("\n## What watches an open status\n\n| status | task the sweep rings |\n|---|---|")
    parts += [f"| `{status}` | `{task}` |" for status, task in TASKS.items()]
    parts.append("\n## Causes\n\n| cause | tried again | sentence |\n|---|---|---|")
    parts += [f"| `{c.code}` | {_AGAIN[c.retry]} | {c.sentence} |" for c in events.CAUSES.values()]
    parts.append("\n## Why a fax is on hold\n\n| reason | what mends it |\n|---|---|")
    parts += [f"| `{reason}` | {mend} |" for reason, mend in events.HOLD_REASONS.items()]
    return "\n".join(parts) + "\n"


_AGAIN = {
    events.Retry.NEVER: "no",
    events.Retry.LINE: "yes",
    events.Retry.LIMITED: "a few times",
    events.Retry.WAIT: "yes, and waiting uses up no try",
    events.Retry.HOLD: "when an operator has mended it",
    events.Retry.VERIFY: "not by itself: a person decides",
}

SETTINGS_HEAD = """# Settings

Made from `faxbot/config.py` by `scripts/reference.py`; do not edit by hand.

faxbot is told everything by environment variables. Nothing must be set to try it: without any it
keeps its data in `./faxdata`, brings its own broker, uses SQLite and sends to the simulator. An
empty variable counts as unset. Times are in seconds. Values of secrets are never logged or shown. A
provider's own settings stand in its manifest (`faxbot plugins show ID`).

| variable | default | what it does |
|---|---|---|
"""


def settings_page() -> str:
    """docs/settings.md: every option with its default."""
    return SETTINGS_HEAD + "".join(_setting(option) for option in OPTIONS)


def _setting(option: Option) -> str:
    default = str(option.default).lower() if option.kind == "bool" else option.default
    shown = "unset" if default in ("", None) else f"`{default}`"
    secret = " (secret)" if option.secret else ""
    return f"| `{option.name}` | {shown} | {option.help}{secret} |\n"


PAGES = {"events.md": events_page, "settings.md": settings_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
