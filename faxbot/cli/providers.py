"""`faxbot providers`: how the providers stand, and what an operator does to them. Works on the database itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click

from faxbot import activation, oversight
from faxbot.actors import CLI
from faxbot.cli.ledger import at_the_ledger

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_note = click.option("--note", required=True, help="Why; it goes into the provider's history.")


@click.group(short_help="See how providers stand; pause, resume, reset and test them.")
def providers() -> None:
    """See how the providers stand; pause, resume, reset and test them."""


@providers.command("list")
@_as_json
def list_(as_json: bool) -> None:
    """Show every provider, its circuit breaker and the calls of the last five minutes."""
    with at_the_ledger() as runtime:
        found = oversight.providers(runtime, CLI)
    if as_json:
        click.echo(json.dumps(found))
        return
    for each in found:
        click.echo(_line(each))


@providers.command()
@click.argument("provider_id")
@_as_json
def show(provider_id: str, as_json: bool) -> None:
    """Show a provider and its history, the newest first."""
    with at_the_ledger() as runtime:
        found = oversight.provider(runtime, CLI, provider_id)
    _print(found, as_json)


@providers.command()
@click.argument("provider_id")
@_note
@click.option(
    "--until",
    type=click.DateTime(["%Y-%m-%dT%H:%M:%SZ"]),
    help="When the pause ends by itself, in UTC.  [default: when it is resumed]",
)
@_as_json
def pause(provider_id: str, note: str, until: datetime | None, as_json: bool) -> None:
    """Let nothing be sent through a provider, in every process within a second; faxes are taken and held."""
    ends = until.replace(tzinfo=UTC) if until else None
    with at_the_ledger() as runtime:
        found = oversight.change(runtime, CLI, provider_id, "pause", note=note, until=ends)
    _print(found, as_json)


def _deed(name: str, sentence: str) -> Callable[..., None]:
    @click.argument("provider_id")
    @_note
    @_as_json
    def command(provider_id: str, note: str, as_json: bool) -> None:
        with at_the_ledger() as runtime:
            found = oversight.change(runtime, CLI, provider_id, name, note=note)
        _print(found, as_json)

    command.__doc__ = sentence
    return command


providers.command("resume")(_deed("resume", "End a pause: held faxes are tried again."))
providers.command("reset")(
    _deed("reset", "Close a provider's breaker: you know that the trouble is over.")
)
providers.command("enable")(
    _deed("enable", "Have a plugin asked again that failed too often: you know that it is mended.")
)


_slot = click.option(
    "--slot", type=click.Choice(activation.SLOTS), default="outbound", show_default=True,
    help="What it is for: to send, to receive, or (a storage plugin) to keep documents.",
)  # fmt: skip


@providers.command()
@click.argument("provider_id")
@_slot
@_note
@click.option("--last", is_flag=True, help="Behind the others that send, not before them.")
@click.option(
    "--covered/--not-covered", default=None,
    help="Whether there is an agreement (BAA) with it: only then it may see faxes that the first cannot take.",
)  # fmt: skip
@click.option("--untested", is_flag=True, help="Although it does not work now, or was not asked.")
@_as_json
def activate(
    provider_id: str, slot: str, note: str, last: bool, covered: bool | None, untested: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Give a provider, or a storage plugin, a slot; a running faxbot goes by it within five seconds."""
    with at_the_ledger() as runtime:
        found = activation.activate(
            runtime, CLI, provider_id,
            slot=slot, note=note, first=not last, covered=covered, untested=untested,
        )  # fmt: skip
    _print_slots(found, as_json)


@providers.command()
@click.argument("provider_id")
@_slot
@_note
@_as_json
def deactivate(provider_id: str, slot: str, note: str, as_json: bool) -> None:
    """Take a provider out of a slot; faxes that it has are followed to their end."""
    with at_the_ledger() as runtime:
        found = activation.deactivate(runtime, CLI, provider_id, slot=slot, note=note)
    _print_slots(found, as_json)


def _print_slots(found: dict[str, Any], as_json: bool) -> None:
    slots = ", ".join(found["slots"]) or "nothing"
    click.echo(json.dumps(found) if as_json else f"{found['id']} is active for {slots}.")


@providers.command("test")
@click.argument("provider_id")
@_as_json
def test_(provider_id: str, as_json: bool) -> None:
    """Ask the carrier whether it is there and lets us in; no fax is sent."""
    with at_the_ledger() as runtime:
        found = oversight.try_connection(runtime, CLI, provider_id)
    click.echo(json.dumps(found) if as_json else found["detail"] or "It works.")
    if not found["ok"]:
        raise click.exceptions.Exit(1)


def _print(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(_line(found))
    for entry in found["history"]:
        words = [entry["reason"] or "", entry["note"] or ""]
        if entry["expires_at"]:
            words.append(f"until {entry['expires_at'][:19]}Z")
        said = ": ".join(word for word in words if word)
        click.echo(
            f"  {entry['recorded_at'][:19]}Z  {entry['type']:<18} {entry['actor']:<14} {said}"
        )


def _line(found: dict[str, Any]) -> str:
    calls = found["calls"]
    words = f"{calls['ok']} ok, {calls['fault']} failed, {calls['slow']} slow"
    if found["not_understood"]:
        words += f", {found['not_understood']} not understood"
    why = f"  {found['reason']}" if found["reason"] else ""
    until = f" until {found['rests_until'][:19]}Z" if found["rests_until"] else ""
    mark = "active" if found["active"] else ""
    return f"{found['id']:<16} {mark:<7} {found['state']:<10} {words}{why}{until}"
