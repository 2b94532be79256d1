"""`faxbot users`: who can sign in to the console, straight in the database; the way in before there is any user."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click

from faxbot import actors
from faxbot import users as people
from faxbot.cli import given
from faxbot.cli.ledger import at_the_ledger
from faxbot.models import User
from faxbot.supervisor.program import pasteable, program

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_name = click.argument("name")
_roles = click.Choice(list(actors.ROLES))


@click.group(short_help="Say who can sign in, and what he may do.")
def users() -> None:
    """Say who can sign in, and what he may do. Works on the database itself, so it needs no key.

    \b
    admin     may everything
    operator  sends, reads, cancels, releases and settles faxes, pauses and tests providers
    viewer    reads faxes, with masked numbers

    A password is asked for, or read from standard input; it never stands on a command line.
    """


@users.command()
@_name
@click.option("--role", type=_roles, help="What he may do.  [default: admin for the first user]")
@_as_json
def create(name: str, role: str | None, as_json: bool) -> None:
    """Let somebody sign in.

    \b
      faxbot users create jo
      faxbot users create sam --role viewer < password.txt
    """
    with at_the_ledger() as runtime:
        with runtime.database.reading() as session:
            first = not people.everybody(session, actors.CLI.account_id)
        if role is None and not first:
            raise click.UsageError("there are users already: say --role admin, operator or viewer")
        password = given.secret("Password")
        now = runtime.now()
        with runtime.database.transaction() as session:
            user = people.create(
                session,
                actors.CLI,
                name=name,
                password=password,
                role=role or actors.ADMIN,
                now=now,
            )
        facts = people.describe(user, now)
    click.echo(json.dumps(facts) if as_json else f"{facts['name']} can sign in as {facts['role']}")


@users.command("list")
@_as_json
def list_(as_json: bool) -> None:
    """Show all users, by name.

    \b
      faxbot users list
      faxbot users list --json
    """
    with at_the_ledger() as runtime, runtime.database.reading() as session:
        now = runtime.now()
        found = [
            people.describe(user, now) for user in people.everybody(session, actors.CLI.account_id)
        ]
    if as_json:
        click.echo(json.dumps(found))
        return
    if not found:
        click.echo(f"no users yet: {program()} users create NAME")
    for user in found:
        last = user["last_login_at"]
        signed_in = f"signed in {last[:16]}Z" if last else "never signed in"
        click.echo(f"{user['role']:<8}  {user['state']:<8}  {signed_in:<27}  {user['name']}")


@users.command()
@_name
@click.argument("role", type=_roles)
def role(name: str, role: str) -> None:
    """Give a user another role, which holds from his next request on.

    \b
      faxbot users role jo operator
    """
    _change(name, people.change_role, f"{name} is {role} now", role=role)


@users.command()
@_name
def password(name: str) -> None:
    """Give a user another password; his sessions end.

    \b
      faxbot users password jo
      faxbot users password jo < password.txt
    """
    with at_the_ledger() as runtime, runtime.database.reading() as session:
        people.named(session, actors.CLI, name)
    _change(
        name, people.change_password, "his password is changed", password=given.secret("Password")
    )


@users.command()
@_name
def disable(name: str) -> None:
    """Let a user in no more; his sessions end.

    \b
      faxbot users disable jo
    """
    _change(
        name, people.disable, f"{name} cannot sign in any more; keys that he knows: keys revoke"
    )


@users.command()
@_name
def enable(name: str) -> None:
    """Let a disabled user in again.

    \b
      faxbot users enable jo
    """
    _change(name, people.enable, f"{name} can sign in again")


@users.command()
@_name
def unlock(name: str) -> None:
    """Forget the wrong passwords that were tried for a user.

    \b
      faxbot users unlock jo
    """
    _change(name, people.unlock, f"{name} can sign in at once")


@users.command()
@_name
@click.argument("issuer")
@click.argument("subject")
def bind(name: str, issuer: str, subject: str) -> None:
    """Let a user come by way of an identity provider too.

    ISSUER is what the provider calls itself, SUBJECT its lasting id for him: the audit trail has both after he tried.

    \b
      faxbot users bind jo https://id.example.org 248289761001
    """
    _change(
        name, people.bind, f"{name} can sign in through {issuer}", issuer=issuer, subject=subject
    )


def _change(name: str, change: Callable[..., User], done: str, **wish: Any) -> None:
    with at_the_ledger() as runtime:
        now = runtime.now()
        with runtime.database.transaction() as session:
            user = people.named(session, actors.CLI, name)
            change(session, actors.CLI, user.id, now=now, **wish)
            warning = people.nobody_left(session, runtime.config, user.account_id, now)
    click.echo(done)
    if warning:
        click.echo(pasteable(warning), err=True)
