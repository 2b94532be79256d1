"""Writes what is made from the code, and a test compares: the pages of docs/ on events, settings, errors and traits,
the published schema of manifests, and the example of a plugin package.

Run it after a change in events, retry, config, errors, web/problems, plugins/manifest, plugins/schemas or
plugins/template: .venv/bin/python scripts/reference.py
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from faxbot import errors, events, purging, retry
from faxbot.claims import TASKS
from faxbot.cli import packages
from faxbot.cli.connection import ServerSaid
from faxbot.config import OPTIONS
from faxbot.crypto import Unsealable
from faxbot.destinations import NotAllowed
from faxbot.documents import RenderingFailed
from faxbot.errors import FaxbotError
from faxbot.options import Option
from faxbot.plugins.manifest import TRAITS, Trait
from faxbot.supervisor.processes import ChildFailed
from faxbot.tasks.app import TaskFailed
from faxbot.web.problems import PROBLEMS

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
EXAMPLE = ROOT / "examples" / "faxbot-provider-example"

EVENTS_HEAD = """# Events and statuses

Made from `faxbot/events.py` and `faxbot/retry.py` by `scripts/reference.py`; do not edit by hand.

A fax's status is the fold of its events. Events are rows of the results table: they are appended,
numbered without gaps per fax, and never changed; the database refuses a status change that the
table below does not hold. An event carries ids, counts, causes and times, and never a number, a
name, a file name or a carrier's free text. What is "not written yet" has its place in the contract
and in the database, and nothing of this version records it.
"""

CAUSES_HEAD = f"""
## Causes

Why a try ended, and when the next one follows. A wait is stretched by up to a fifth, so that faxes
that failed together are not tried together; a cause that is not in this table counts as `unknown`.
Each kind of trouble has a limit of its own; beside it there are at most {retry.MOST_DIALS} calls that nobody
took, {retry.MOST_TRIES} in which machines met, and {retry.MOST_PAGE_TRIES} that ended in the same page. A carrier
without a free line uses up neither. A carrier that cannot be reached or asks to wait costs nothing at all: the
fax is sent again after the time it asks for (Retry-After), else after a growing pause of up to ten
minutes.

| cause | tried again | sentence |
|---|---|---|"""


def events_page() -> str:
    """docs/events.md: statuses, events, transitions, causes and hold reasons."""
    parts = [EVENTS_HEAD, "## Statuses\n\n| status | where the fax stands |\n|---|---|"]
    parts += [f"| `{status}` | {meaning} |" for status, meaning in events.STATUS_MEANING.items()]
    parts.append("\n## Events\n\n| event | what happened |\n|---|---|")
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
    parts.append(CAUSES_HEAD)
    parts += [
        f"| `{cause.code}` | {_again(cause)} | {cause.sentence} |"
        for cause in events.CAUSES.values()
    ]
    parts.append("\n## Why a fax is on hold\n\n| reason | what mends it |\n|---|---|")
    parts += [f"| `{reason}` | {mend} |" for reason, mend in events.HOLD_REASONS.items()]
    return "\n".join(parts) + "\n"


_ENDS = {
    events.Retry.NEVER: "no",
    events.Retry.HOLD: "the fax is held until the account works",
    events.Retry.VERIFY: "no: a fax that ends so has failed; whether to send it anew is for a person to say",
}


def _again(cause: events.Cause) -> str:
    """The real schedule: how often at most, and the waits between; and where it differs, that of a number that a fax
    has reached before."""
    schedule, proven = retry.SCHEDULES.get(cause.code), retry.PROVEN.get(cause.code)
    if schedule is None:
        words = _ENDS[cause.retry]
    else:
        kin = [f"`{code}`" for code, one in retry.SCHEDULES.items() if one.kind == schedule.kind]
        kin.remove(f"`{cause.code}`")
        words = _limits(schedule) + (f"; counted together with {', '.join(kin)}" if kin else "")
    if proven is not None:
        words += f"; where a fax has arrived before: {_limits(proven)}"
    return words


def _limits(schedule: retry.Schedule) -> str:
    waits = [schedule.delays[min(n, len(schedule.delays) - 1)] for n in range(schedule.tries - 1)]
    told = [(wait, len(list(same))) for wait, same in groupby(waits)]
    words = ", ".join(_wait(wait) + (f" (x{count})" if count > 1 else "") for wait, count in told)
    return f"{schedule.tries} times in all, after {words}"


def _wait(seconds: float) -> str:
    return f"{seconds / 60:g} min" if seconds >= 60 else f"{seconds:g} s"


SETTINGS_HEAD = """# Settings

Made from `faxbot/config.py` by `scripts/reference.py`; do not edit by hand.

Each setting is an environment variable. What is marked "yes" can also be saved in the database, sealed, while faxbot
runs (`faxbot config set`, `PATCH /admin/config`): that goes before the environment, and every process goes by it within
five seconds, without a restart ([configuration](configuration.md)). The last column says of the others why they
are taken from the environment only. Nothing must be set to try it: without any it
keeps its data in `./faxdata`, brings its own broker, uses SQLite and sends to the simulator. An
empty variable counts as unset. Times are in seconds. Values of secrets are never logged or shown. A
provider's own settings stand in its manifest (`faxbot plugins show ID`), and can all be saved. A variable that begins
with FAXBOT_ and is not in this table is named in a warning at start, with the setting that looks like it.

| variable | default | what it does | can be saved |
|---|---|---|---|
"""

FEATURES_HEAD = """
## Features

The flags among them, as `GET /admin/features` shows them, and what to mind.

| feature | variable | what to mind |
|---|---|---|
"""


def settings_page() -> str:
    """docs/settings.md: every option with its default."""
    flags = (_feature(option) for option in OPTIONS if option.feature)
    return SETTINGS_HEAD + "".join(map(_setting, OPTIONS)) + FEATURES_HEAD + "".join(flags)


def _setting(option: Option) -> str:
    default = str(option.default).lower() if option.kind == "bool" else option.default
    shown = "unset" if default in ("", None) else f"`{default}`"
    marks = " (secret)" * option.secret
    saved = "yes" if option.editable else f"no: {option.fixed}"
    return f"| `{option.name}` | {shown} | {option.help}{marks} | {saved} |\n"


def _feature(option: Option) -> str:
    word = "true" if option.warns_when else "false"
    mind = f"{word}: {option.warning}" if option.warning else "nothing"
    return f"| `{option.feature}` | `{option.name}` | {mind} |\n"


ERRORS_HEAD = """# Errors

Made from `faxbot/errors.py` and `faxbot/web/problems.py` by `scripts/reference.py`; do not edit by hand.

Every failed request has one body, `application/problem+json` (RFC 9457):

```json
{"type": "/docs#invalid-fields", "title": "Some fields are not valid.", "status": 422,
 "detail": "Not valid: priority.", "errors": {"priority": ["Not a valid integer."]},
 "request_id": "5f0c9a1be2d34c7788aa01ef"}
```

`type` ends in the error's code, which never changes its meaning. `title` is the kind of failure, `detail` is about
this one, `errors` about single fields. `request_id` is the answer's `X-Request-Id` too and stands in the server's log.
Nothing in the body repeats what was sent. 401 brings `WWW-Authenticate`, 405 `Allow`, 429, 503 and
`idempotency-key-in-flight` bring `Retry-After`.

## Answers to requests

| status | code | meaning | mend |
|---|---|---|---|
"""

INSIDE_HEAD = """
A request that is refused leaves nothing behind: no fax, no file, no used-up Idempotency-Key.

## Inside

These never answer a request by name; where one reaches a request after all, the answer is `internal`.

| code | meaning | where it shows |
|---|---|---|
"""

INSIDE: dict[type[FaxbotError], str] = {
    errors.ConfigError: "Printed when a command ends with exit code 1; in `/health/ready`.",
    errors.NotSent: "For a plugin that knows no more. The attempt's row; the fax is tried again.",
    errors.Unreachable: "The attempt's row; the fax is tried again.",
    errors.Refused: "The attempt's row; the fax is failed.",
    errors.AccountRefused: "The attempt's row; the fax is held, and tried again from time to time.",
    errors.DestinationBarred: "The attempt's row; the fax is held, and tried again from time to time.",
    errors.Throttled: "The attempt's row; the fax waits as long as the carrier asks.",
    errors.OutcomeUnknown: "The attempt's row; the fax is `uncertain` and is looked up.",
    errors.PluginError: "`faxbot plugins list`, the log, `/health/ready`.",
    RenderingFailed: "The log; the fax is tried again later and later, and held when that does not help.",
    purging.Mismatch: "The log, the run's proof, the alarm `retention`; nothing of that batch is removed.",
    errors.ArtifactNotFound: "The fax is held with the reason `document_gone`.",
    errors.NotADocument: "`error` of a received fax; it is tried again.",
    errors.ArtifactDamaged: "The log; the fax is held with the reason `document_gone`.",
    TaskFailed: "The log; the sweeps find what the task left.",
    errors.LeaseLost: "The worker that was too slow drops what it was about to write.",
    errors.TransitionRefused: "The log: a bug, and nothing was written.",
    ChildFailed: "Printed by `faxbot up`, which then ends with exit code 1.",
    ServerSaid: "Printed by `faxbot send` and `faxbot status`: what the server answered.",
    NotAllowed: "A call of a webhook ends as `not_allowed`; nothing is dialled.",
    Unsealable: "The log: CONFIG_MASTER_KEY or the key file is not the one that sealed the database.",
}


def errors_page() -> str:
    """docs/errors.md: how requests fail, and what is raised inside."""
    answers = (f"| {p.status} | `{p.code}` | {p.title} | {p.mend} |\n" for p in PROBLEMS.values())
    inside = (
        f"| `{kind.code}` | {(kind.__doc__ or '').splitlines()[0]} | {place} |\n"
        for kind, place in INSIDE.items()
    )
    return ERRORS_HEAD + "".join(answers) + INSIDE_HEAD + "".join(inside)


TRAITS_HEAD = """# Traits

Made from `faxbot/plugins/manifest.py` by `scripts/reference.py`; do not edit by hand.

What a plugin can do, in the words of its `manifest.json` (`"traits": [...]`). Core never asks for a plugin's name; it
asks for a trait. A trait with a value stands as `name:value`, and may stand several times. A word that is not in this
table is refused.

The set is fixed, so that a manifest written today holds later. Which module asks for a trait today is in the last
column; declare also those that nothing reads yet, where they are true. Of every plugin the loader checks that it has
the methods its traits name. The same goes for the rest of a manifest: `docs.learnMore` is linked from /docs,
`categories` and `hipaa` are read by nothing yet.

| trait | meaning | methods it must have | read by |
|---|---|---|---|
"""

TRAITS_FOOT = """
In code: `manifest.has("cancel")`, `manifest.values("accepts")`.
"""


def traits_page() -> str:
    """docs/traits.md: every trait, what it means and who reads it."""
    return TRAITS_HEAD + "".join(_trait(*item) for item in TRAITS.items()) + TRAITS_FOOT


def _trait(name: str, trait: Trait) -> str:
    shown = f"{name}:<{trait.value}>" if trait.value else name
    methods = ", ".join(f"`{method}()`" for method in trait.methods)
    readers = ", ".join(f"`{module}`" for module in trait.readers) or "nothing yet"
    return f"| `{shown}` | {trait.meaning} | {methods} | {readers} |\n"


PAGES = {
    "events.md": events_page,
    "settings.md": settings_page,
    "errors.md": errors_page,
    "traits.md": traits_page,
}


def copies() -> dict[Path, str]:
    """Files outside the package that say what its own files say."""
    schema = ROOT / "faxbot" / "plugins" / "schemas" / "manifest.schema.json"
    example = packages.contents("example")
    return {
        ROOT / "plugin-dev-kit" / "manifest.schema.json": schema.read_text(encoding="utf-8"),
        **{EXAMPLE / name: text for name, text in example.items()},
    }


if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
    for path, text in copies().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
