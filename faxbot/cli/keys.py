"""`faxbot keys`: API keys, straight in the database; the way in before there is any key."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import click

from faxbot import identity
from faxbot.cli import firstkey
from faxbot.cli.ledger import at_the_ledger
from faxbot.errors import NotFound
from faxbot.models import ApiKey
from faxbot.supervisor.program import program

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(short_help="Create, list and revoke API keys.")
def keys() -> None:
    """Create, list and revoke API keys. Works on the database itself, so it needs no key."""


@keys.command()
@click.option("--name", required=True, help="What the key is for; shown in lists.")
@click.option(
    "--scope",
    "scopes",
    required=True,
    multiple=True,
    metavar="SCOPE",
    type=click.Choice(list(identity.SCOPES)),
    help=f"What it may do; may be repeated: {', '.join(identity.SCOPES)}.",
)
@click.option(
    "--expires-at",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"]),
    help="When it ends, in UTC.  [default: never]",
)
@_as_json
def create(name: str, scopes: tuple[str, ...], expires_at: datetime | None, as_json: bool) -> None:
    """Make a key and show it, this once."""
    with at_the_ledger() as runtime:
        with runtime.database.transaction() as session:
            key, token = identity.create_key(
                session,
                runtime.keyring,
                name=name,
                scopes=scopes,
                now=runtime.now(),
                expires_at=expires_at.replace(tzinfo=UTC) if expires_at else None,
            )
        facts = _facts(key, runtime.now())
    if as_json:
        click.echo(json.dumps({**facts, "key": token}))
        return
    click.echo(token)
    click.echo(
        f"It is shown this once. Its id is {key.id}: {program()} keys revoke {key.id} ends it.",
        err=True,
    )


@keys.command("list")
@_as_json
def list_(as_json: bool) -> None:
    """Show all keys, newest first; never the keys themselves."""
    with at_the_ledger() as runtime, runtime.database.reading() as session:
        found = [_facts(key, runtime.now()) for key in identity.list_keys(session)]
    if as_json:
        click.echo(json.dumps(found))
        return
    if not found:
        click.echo(f"no keys yet: {program()} keys create --name NAME --scope fax:send")
    for key in found:
        # Written at most every ten minutes: to the minute it would say more than it knows.
        used = f"used about {key['last_used_at'][:16]}Z" if key["last_used_at"] else "never used"
        click.echo(
            f"{key['id']}  {key['state']:<8} {','.join(key['scopes']):<20} {used:<27} {key['name']}"
        )


@keys.command()
@click.argument("key_id")
def revoke(key_id: str) -> None:
    """End a key at once, by its id (faxbot keys list)."""
    with at_the_ledger() as runtime:
        with runtime.database.transaction() as session:
            if not identity.revoke_key(session, key_id, runtime.now()):
                raise NotFound("there is no key of that id: `faxbot keys list` shows all")
        was_first = firstkey.forget(runtime.config, key_id)
    click.echo("revoked" + (", and the file first-api-key is gone" if was_first else ""))


def _facts(key: ApiKey, now: datetime) -> dict[str, Any]:
    expired = key.expires_at is not None and key.expires_at <= now
    times = {
        name: at.isoformat() if (at := getattr(key, name)) else None
        for name in ("created_at", "expires_at", "last_used_at", "revoked_at")
    }
    state = "revoked" if key.revoked_at else "expired" if expired else "active"
    return {"id": key.id, "name": key.name, "scopes": list(key.scopes), "state": state, **times}
