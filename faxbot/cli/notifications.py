"""`faxbot notifications`: how people are told of faxes, straight in the database."""

from __future__ import annotations

import json
from typing import Any

import click

from faxbot import notifiers
from faxbot.actors import CLI
from faxbot.cli.ledger import at_the_ledger

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(short_help="See how people are told of faxes; send a test notice.")
def notifications() -> None:
    """See by which plugins people are told of faxes, what waits and what was sent; send a test notice.

    Plugins are named in FAXBOT_NOTIFICATIONS, or activated with `faxbot providers activate ID --slot notification`.
    """


@notifications.command("list")
@_as_json
def list_(as_json: bool) -> None:
    """Show the plugins by which people are told, or could be, and the newest messages."""
    with at_the_ledger() as runtime:
        found = notifiers.notifiers(runtime, CLI)
    if as_json:
        click.echo(json.dumps(found))
        return
    for each in found["items"]:
        mark = "active" if each["active"] else ""
        # What is wrong with one that nobody uses is no news.
        trouble = f"  ({each['fault']})" if each["active"] and each["fault"] else ""
        click.echo(
            f"{each['id']:<16} {mark:<7} {','.join(each['events'])}  {each['waiting']} waiting{trouble}"
        )
    for message in found["messages"]:
        click.echo(_line(message))


def _line(message: dict[str, Any]) -> str:
    number = message["notices"]
    what = "test" if not number else f"{number} notice{'s' if number > 1 else ''}"
    why = f"  ({message['cause']})" if message["cause"] else ""
    until = f"  next try {message['next_at'][:19]}Z" if message["next_at"] else ""
    return (
        f"  {message['created_at'][:19]}Z  {message['plugin_id']:<12} {message['status']:<9} "
        f"{what}{why}{until}"
    )


@notifications.command("test")
@click.argument("plugin_id", default="email")
@_as_json
def test_(plugin_id: str, as_json: bool) -> None:
    """Send a test notice by PLUGIN_ID, `email` unless you name another one, to all whom it tells."""
    with at_the_ledger() as runtime:
        found = notifiers.test(runtime, CLI, plugin_id)
    click.echo(json.dumps(found) if as_json else found["detail"])
    if not found["ok"]:
        raise click.exceptions.Exit(1)
