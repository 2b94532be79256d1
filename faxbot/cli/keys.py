"""`faxbot keys`: API keys, straight in the database; the way in before there is any key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import click

from faxbot import actors, identity, users
from faxbot.cli import firstkey
from faxbot.cli.ledger import at_the_ledger
from faxbot.errors import NotFound
from faxbot.supervisor.program import pasteable, program

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@contextmanager
def _one_that_there_is() -> Iterator[None]:
    try:
        yield
    except NotFound as error:
        raise NotFound(f"{error.detail}: `faxbot keys list` shows all") from None


@click.group(short_help="Create, list, rotate and revoke API keys.")
def keys() -> None:
    """Create, list, rotate and revoke API keys. Works on the database itself, so it needs no key."""


@keys.command()
@click.option("--name", required=True, help="What the key is for; shown in lists.")
@click.option(
    "--scope",
    "scopes",
    required=True,
    multiple=True,
    metavar="SCOPE",
    type=click.Choice(list(actors.SCOPES)),
    help=f"What it may do; may be repeated: {', '.join(actors.SCOPES)}.",
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
        facts = identity.describe(key, runtime.now())
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
        found = [identity.describe(key, runtime.now()) for key in identity.list_keys(session)]
    if as_json:
        click.echo(json.dumps(found))
        return
    if not found:
        click.echo(
            f"no keys yet: {program()} keys create --name NAME --scope fax:send --scope fax:read"
        )
    for key in found:
        # Written at most every ten minutes: to the minute it would say more than it knows.
        used = f"used about {key['last_used_at'][:16]}Z" if key["last_used_at"] else "never used"
        until = key["old_secret_until"]
        old = f"  (its old secret is good until {until[:16]}Z)" if until else ""
        click.echo(
            f"{key['id']}  {key['state']:<8} {','.join(key['scopes']):<20} {used:<27} {key['name']}{old}"
        )


@keys.command()
@click.argument("key_id")
@click.option(
    "--overlap-hours",
    type=click.IntRange(0, identity.MOST_OVERLAP_HOURS),
    default=identity.OVERLAP_HOURS,
    show_default=True,
    help="For so long the old secret is good as well; 0 ends it at once.",
)
@_as_json
def rotate(key_id: str, overlap_hours: int, as_json: bool) -> None:
    """Give a key a new secret and show it, this once.

    Its id and its scopes stay. Clients go on with the old secret for a day, or for as long as --overlap-hours says,
    and are changed meanwhile; `faxbot keys list` shows until when.

    \b
      faxbot keys rotate 0123456789ab
      faxbot keys rotate 0123456789ab --overlap-hours 0
    """
    overlap = timedelta(hours=overlap_hours)
    with _one_that_there_is(), at_the_ledger() as runtime:
        with runtime.database.transaction() as session:
            key, token = identity.rotate_key(
                session, runtime.keyring, actors.CLI, key_id, overlap=overlap, now=runtime.now()
            )
        firstkey.renew(runtime.config, key_id, token)
        facts = identity.describe(key, runtime.now())
    if as_json:
        click.echo(json.dumps({**facts, "key": token}))
        return
    click.echo(token)
    old = f"is good until {facts['old_secret_until'][:16]}Z" if overlap_hours else "has ended"
    click.echo(f"It is shown this once. The old secret {old}.", err=True)


@keys.command()
@click.argument("key_id")
def revoke(key_id: str) -> None:
    """End a key at once, by its id (faxbot keys list)."""
    with _one_that_there_is(), at_the_ledger() as runtime:
        now = runtime.now()
        with runtime.database.transaction() as session:
            key = identity.revoke_key(session, key_id, now)
            warning = users.nobody_left(session, runtime.config, key.account_id, now)
        was_first = firstkey.forget(runtime.config, key_id)
    click.echo("revoked" + (", and the file first-api-key is gone" if was_first else ""))
    if warning:
        click.echo(pasteable(warning), err=True)
