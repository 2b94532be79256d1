"""`faxbot retention`: what is removed when, runs by hand, and what must be kept; straight in the database."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from faxbot import legalholds
from faxbot import retention as runs
from faxbot.actors import CLI
from faxbot.cli import given
from faxbot.cli.client import checked_id
from faxbot.cli.ledger import at_the_ledger
from faxbot.legalholds import FAX, INBOUND, REASON_LENGTH
from faxbot.results import stamp
from faxbot.runtime import Runtime
from faxbot.supervisor.program import program

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_received = click.option("--inbound", "received", is_flag=True, help="It is a received fax.")
_SAY_EVERY = 2.0
"""Seconds between two lines of progress."""
_SLICE = 2.0


@click.group(short_help="See what is removed when; remove what is old now; keep what must be kept.")
def retention() -> None:
    """See what is removed when, remove what is old now, and keep what must be kept.

    Works on the database itself, so it needs no key. How long each class is kept is said by settings: `faxbot retention
    list` names them.
    """


@retention.command("list")
@click.option(
    "--limit", type=click.IntRange(1, 100), default=5, show_default=True, help="So many runs."
)
@_as_json
def list_(limit: int, as_json: bool) -> None:
    """Show what is kept how long, and what the newest runs removed."""
    with at_the_ledger() as runtime:
        config = runtime.config
        found = runs.runs(runtime, limit=limit)
        due = runs.next_at(config, runtime.now())
    if as_json:
        click.echo(json.dumps({"days": runs.kept(config), "next_at": stamp(due), "runs": found}))
        return
    click.echo("kept for")
    for name, days in runs.kept(config).items():
        length = f"{days} days" if days else "ever"
        click.echo(f"  {name:<11} {length:<9} {runs.setting(name)}")
    click.echo(f"next run     {due:%Y-%m-%dT%H:%M}Z")
    for run in found:
        click.echo("")
        _print_run(run)


def _print_run(run: dict[str, Any]) -> None:
    when = f"{run['started_at'][:19]}Z"
    click.echo(f"{when}  {run['state']}  (asked by {run['asked_by']}, run {run['id']})")
    for proof in run["classes"]:
        if proof["expected"] or proof["outcome"] != runs.DONE:
            counted = f"{proof['deleted']:,} of {proof['expected']:,}"
            click.echo(f"  {proof['class']:<11} {counted:<17} {proof['outcome']}")
    if not any(proof["expected"] for proof in run["classes"]):
        click.echo("  nothing was old enough")


@retention.command()
@click.option("--dry-run", is_flag=True, help="Count what would go, and change nothing.")
@_as_json
def run(dry_run: bool, as_json: bool) -> int:
    """Remove what is old now, and say what went; exit code 1 when something was broken off.

    Where a run is under way already, it is that one. It goes on by itself when this command is ended.
    """
    with at_the_ledger() as runtime:
        if dry_run:
            _rehearse(runtime, as_json)
            return 0
        run_id = runs.ask(runtime, CLI)
        progress = _Progress()
        while (state := runs.one(runtime, run_id))["state"] == runs.RUNNING:
            if runs.work(runtime, run_id, seconds=_SLICE, progress=progress.removed):
                time.sleep(0.2)  # another process has it, or it has just ended
    if as_json:
        click.echo(json.dumps(state))
    else:
        _print_run(state)
    return 0 if state["state"] == runs.DONE else 1


class _Progress:
    """Says now and then how far it is, on standard error."""

    def __init__(self) -> None:
        self._said_at = time.monotonic()

    def removed(self, name: str, count: int) -> None:
        now = time.monotonic()
        if now - self._said_at >= _SAY_EVERY:
            self._said_at = now
            click.echo(f"{name}: {count:,}", err=True)


def _rehearse(runtime: Runtime, as_json: bool) -> None:
    counted: dict[str, int] = {}
    progress = _Progress()
    for name, _, count in runs.would_remove(runtime):
        counted[name] = count
        progress.removed(name, count)
    if as_json:
        click.echo(json.dumps(counted))
        return
    for name in runs.kept(runtime.config):
        said = f"{counted[name]:,}" if name in counted else "kept for ever"
        click.echo(f"{name:<11} {said}")
    click.echo(
        "nothing was changed; what is left of a fax goes later than its document and numbers"
    )


@retention.command()
@click.argument("fax_id", callback=checked_id)
@_received
def hold(fax_id: str, received: bool) -> None:
    """Keep all of a fax, here and at its carrier, until the hold is lifted.

    The reason is asked for, or read from standard input: it may name people, which do not belong on a command line.

    \b
      echo "litigation, case 4711" | faxbot retention hold FAX_ID
    """
    reason = given.typed_or_piped("Reason")
    if len(reason) > REASON_LENGTH:
        raise click.UsageError(f"the reason is longer than {REASON_LENGTH} characters")
    with at_the_ledger() as runtime:
        legalholds.hold(runtime, CLI, INBOUND if received else FAX, fax_id, reason)
    click.echo(f"held; to lift it: {program()} retention lift {fax_id}{' --inbound' * received}")


@retention.command()
@click.argument("fax_id", callback=checked_id)
@_received
@click.option("--hold", "hold_id", callback=checked_id, help="Which one, where there are several.")
def lift(fax_id: str, received: bool, hold_id: str | None) -> None:
    """Lift the legal hold of a fax: what is old enough of it goes with the next run."""
    with at_the_ledger() as runtime:
        legalholds.lift(runtime, CLI, INBOUND if received else FAX, fax_id, hold_id)
    click.echo("lifted")


@retention.command()
@click.argument("fax_id", callback=checked_id)
@_received
@_as_json
def holds(fax_id: str, received: bool, as_json: bool) -> None:
    """Show the legal holds of a fax, newest first; those that were lifted, too."""
    with at_the_ledger() as runtime:
        found = legalholds.of(runtime, CLI, INBOUND if received else FAX, fax_id)
    if as_json:
        click.echo(json.dumps({"items": found}))
        return
    if not found:
        click.echo("none")
    for each in found:
        since = f"since {each['placed_at'][:16]}Z by {each['actor']}"
        ended = f", lifted {each['lifted_at'][:16]}Z" if each["lifted_at"] else ""
        click.echo(f"{each['id']}  {since}{ended}  {each['reason'] or ''}".rstrip())
