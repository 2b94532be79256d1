"""`faxbot restored`: which faxes are in doubt since the database came from a backup; straight in the database."""

from __future__ import annotations

import json

import click

from faxbot import recall
from faxbot.actors import CLI
from faxbot.cli.ledger import at_the_ledger
from faxbot.results import stamp


@click.group(
    short_help="See what is in doubt since the database was restored; say that it was, or was not."
)
def restored() -> None:
    """See what is in doubt since the database was restored from a backup; say that it was, or was not.

    What was done after the backup is not in it: a fax that waits there may have been sent since. So none of before is
    sent until its carrier was asked. A dump that was loaded, a base backup that was recovered from its archive, a
    promoted standby and a copied file are noticed by themselves. The snapshot of a volume, a base backup that is
    started as it is, and a backup of a version without this command are not, and have to be declared.
    """


@restored.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(as_json: bool) -> None:
    """Show whether the database was restored, and how many faxes are held for it."""
    with at_the_ledger() as runtime:
        found, held = runtime.restores.notice(runtime.now()), recall.waiting(runtime)
    shown = {
        "noticed_at": stamp(found.at) if found else None,
        "known_until": stamp(found.backup_at) if found else None,
        "held": held,
    }
    if as_json:
        click.echo(json.dumps(shown))
    elif found is None:
        click.echo("not restored, as far as this database can be told from another")
    else:
        click.echo(
            f"restored: noticed {shown['noticed_at']}, knows all until {shown['known_until']}"
        )
        more = "more than " if held >= recall.MOST else ""
        click.echo(
            f"held until it is known whether they were sent: {more}{held} (status `held`, reason `restored`)"
        )


@restored.command()
def declare() -> None:
    """Say that the database was restored, before anything else of faxbot is started on it.

    Every fax that is not final is in doubt then, and none is sent before its carrier was asked. Needed where that is
    not noticed: `faxbot restored --help` says where.
    """
    with at_the_ledger() as runtime:
        recall.declare(runtime, CLI)
    click.echo("noted: no fax of before is sent until its carrier was asked")


@restored.command()
@click.confirmation_option(
    prompt="Was nothing lost? A fax that was sent after the backup would be sent again"
)
def deny() -> None:
    """Say that nothing was lost: the database was stopped, moved and started again, pg_upgrade was run, or its standby
    had everything.

    Faxes that are held for it go at once. Where something was lost after all, some of them are sent twice.
    """
    with at_the_ledger() as runtime:
        recall.deny(runtime, CLI)
    click.echo("noted: no fax is in doubt")
