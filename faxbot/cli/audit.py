"""`faxbot audit`: the audit trail, verified or exported. Works on the database itself, so it needs no key."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import click

from faxbot import audit as trail
from faxbot import auditors, chain, verification
from faxbot.actors import CLI
from faxbot.audit import Action
from faxbot.auditors import Filters
from faxbot.chain import Head
from faxbot.cli.ledger import at_the_ledger
from faxbot.runtime import Runtime
from faxbot.verification import Report

_HEAD = re.compile(r"([0-9]{1,18}):([0-9a-f]{64})")
_TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"]
_SAY_EVERY = 3.0
"""Seconds between two lines of progress."""


def _head(_ctx: click.Context, _param: click.Parameter, texts: tuple[str, ...]) -> list[Head]:
    found = [_HEAD.fullmatch(text) for text in texts]
    if None in found:
        raise click.BadParameter("write it as POSITION:MAC, as `faxbot audit verify` prints it")
    return [Head(int(match[1]), match[2]) for match in found if match]


@click.group(short_help="Verify or export the audit trail.")
def audit() -> None:
    """Verify or export the audit trail: who did what to which object, when, and with what outcome."""


@audit.command(short_help="Say whether the trail is as it was written.")
@click.option(
    "--since",
    type=click.DateTime(_TIMES),
    help="Look only at what was linked since then, in UTC.  [default: at everything]",
)
@click.option(
    "--head",
    "heads",
    multiple=True,
    callback=_head,
    metavar="POSITION:MAC",
    help="Where the chain ended once, as an earlier verify or export printed it; may be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(since: datetime | None, heads: list[Head], as_json: bool) -> int:
    """Say whether the trail is as it was written: which row was changed, removed, inserted or re-ordered, and how many
    are not linked yet. Exit code 1 when something is wrong.

    An end that was cut off shows in what FAX_DATA_DIR/audit-heads has noted on this machine, and in --head:

        faxbot audit verify --head 4711:0f3a...
    """
    with at_the_ledger() as runtime:
        report = verification.verify(runtime, since=_utc(since), known=heads, progress=_progress())
        outcome = trail.DONE if report.ok else trail.FAILED
        details = {"links": report.links, "faults": report.fault_count}
        _write_down(runtime, Action.AUDIT_VERIFIED, details, outcome)
    if as_json:
        click.echo(json.dumps(report.described()))
    else:
        _print(report)
    return 0 if report.ok else 1


def _print(report: Report) -> None:
    for fault in report.faults:
        click.echo(fault)
    if report.fault_count > len(report.faults):
        click.echo(f"and {report.fault_count - len(report.faults)} more")
    verdict = "sound" if report.ok else f"NOT SOUND: {report.fault_count} faults"
    reach = f"links {report.first} to {report.last.position}" if report.last else "no links"
    compared = f"compared with {report.heads} earlier ends"
    click.echo(f"{verdict}; {reach}, {report.waiting} rows not linked yet; {compared}")
    if report.ok and not report.heads:
        click.echo("whether rows were cut off its end cannot be told: no earlier end is known here")
    if report.last:
        click.echo(f"head {report.last.position}:{report.last.mac}")


@audit.command(short_help="Write the trail to a file, as JSON lines or CSV.")
@click.option("--since", type=click.DateTime(_TIMES), help="What happened then or later, in UTC.")
@click.option("--until", type=click.DateTime(_TIMES), help="What happened before, in UTC.")
@click.option(
    "--action", type=click.Choice([str(each) for each in Action]), help="Only such deeds."
)
@click.option("--actor", help="Only deeds of this actor: the id of a key or user, cli.")
@click.option(
    "--object", "of", metavar="KIND[:ID]", help="Only what was done to it, e.g. fax, key:ID."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(list(auditors.FORMATS)),
    default="jsonl",
    show_default=True,
    help="JSON lines, or CSV for a spreadsheet.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="The file, made for its owner alone.  [default: standard output]",
)
def export(
    since: datetime | None,
    until: datetime | None,
    action: str | None,
    actor: str | None,
    of: str | None,
    form: str,
    output: Path | None,
) -> None:
    """Write the trail to a file or to standard output, the oldest row first; that it was exported is written into it.

    faxbot audit export --since 2026-01-01 --format csv -o trail.csv

    faxbot audit export --object fax:0193f2c4a1b27c3d8e4f5a6b7c8d9e0f
    """
    kind, _, object_id = (of or "").partition(":")
    filters = Filters(
        since=_utc(since),
        until=_utc(until),
        action=action,
        actor=actor,
        object_kind=kind or None,
        object_id=object_id or None,
    )
    head, line_of = auditors.FORMATS[form]
    count, more = 0, _progress()
    with at_the_ledger() as runtime:
        # Written down first: who cuts the export short has seen rows as well.
        _write_down(runtime, Action.AUDIT_EXPORTED, {**filters.named(), "format": form})
        with _opened(output) as file:
            file.write(head)
            for row in auditors.rows(runtime, CLI.account_id, filters):
                file.write(line_of(row))
                count += 1
                more(count)
        end = chain.end(runtime, CLI.account_id)
    click.echo(f"{count} rows" + (f"; head {end.position}:{end.mac}" if end else ""), err=True)


@contextmanager
def _opened(output: Path | None) -> Iterator[TextIO]:
    if output is None:
        yield sys.stdout
        return
    with output.open("w", encoding="utf-8", newline="") as file:
        output.chmod(0o600)
        yield file


def _write_down(
    runtime: Runtime, action: Action, details: Mapping[str, object], outcome: str = trail.DONE
) -> None:
    with runtime.database.writing() as connection:
        trail.record(connection, CLI, action, now=runtime.now(), outcome=outcome, details=details)


def _utc(at: datetime | None) -> datetime | None:
    return at.replace(tzinfo=UTC) if at else None


def _progress() -> Callable[[int], None]:
    """Says now and then how far it is."""
    said = time.monotonic()

    def say(done: int) -> None:
        nonlocal said
        if time.monotonic() - said > _SAY_EVERY:
            said = time.monotonic()
            click.echo(f"{done} rows", err=True)

    return say
