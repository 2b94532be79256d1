"""`faxbot webhooks`: subscriptions to events, straight in the database."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from faxbot import replays, webhooks
from faxbot.actors import CLI
from faxbot.cli import given
from faxbot.cli.ledger import at_the_ledger
from faxbot.deliveries import STATUSES
from faxbot.dialling import OUTCOMES
from faxbot.replays import Filters
from faxbot.runtime import Runtime
from faxbot.supervisor.program import program

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_webhook_id = click.argument("webhook_id")
_TIME = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"])
_status = click.option("--status", type=click.Choice(STATUSES), help="Only those in this status.")
_type = click.option(
    "--type", "type_", type=click.Choice(webhooks.TYPES), metavar="TYPE", help="Only of this event."
)
_fax = click.option("--fax", "fax_id", help="Only of this fax.")
_since = click.option("--since", type=_TIME, help="Only of events at or after this time, in UTC.")
_until = click.option("--until", type=_TIME, help="Only of events before this time, in UTC.")


@click.group("webhooks", short_help="Have events sent to subscribers; see what was sent.")
def webhooks_() -> None:
    """Have events sent to subscribers, signed; see what was sent, and have it sent again.

    Works on the database itself, so it needs no key. Where webhooks may go is said by FAXBOT_WEBHOOK_NETWORKS and
    FAXBOT_WEBHOOK_PORTS.
    """


@webhooks_.command()
@click.option("--name", required=True, help="What it is for; shown in lists.")
@click.option(
    "--type",
    "types",
    multiple=True,
    metavar="TYPE",
    type=click.Choice([*webhooks.TYPES, webhooks.ALL]),
    help=f"An event that is to be sent; may be repeated: {', '.join(webhooks.TYPES)}.  [default: all]",
)
@_as_json
def create(name: str, types: tuple[str, ...], as_json: bool) -> None:
    """Make a webhook and show its secret, this once.

    Its address is asked for, or read from standard input: it may hold a secret of the receiver's, which does not belong
    on a command line. Nothing is sent there before it has taken a test event.

    \b
      echo https://hooks.example.org/faxbot | faxbot webhooks create --name records
      faxbot webhooks create --name billing --type FAX_DELIVERED --type FAX_FAILED
    """
    url = given.typed_or_piped("Address")
    with at_the_ledger() as runtime:
        with runtime.database.transaction() as session:
            webhook, secret = webhooks.create(
                session, runtime, CLI, name=name, url=url, types=types or [webhooks.ALL],
                now=runtime.now(),
            )  # fmt: skip
        facts = webhooks.describe(runtime, webhook)
    if as_json:
        click.echo(json.dumps({**facts, "secret": secret}))
        return
    click.echo(secret)
    click.echo(
        f"It is shown this once. Give it to the receiver, then: {program()} webhooks test {facts['id']}",
        err=True,
    )


@webhooks_.command("list")
@_as_json
def list_(as_json: bool) -> None:
    """Show all webhooks, newest first; of their addresses only the host."""
    with at_the_ledger() as runtime, runtime.database.reading() as session:
        found = [
            webhooks.describe(runtime, each) for each in webhooks.everybody(session, CLI.account_id)
        ]
    if as_json:
        click.echo(json.dumps(found))
        return
    if not found:
        click.echo(f"no webhooks yet: {program()} webhooks create --name NAME")
    for each in found:
        click.echo(
            f"{each['id']}  {each['state']:<8}  {','.join(each['types'])}  {each['url']}  {each['name']}"
            f"{_trouble(each)}"
        )


def _trouble(webhook: dict[str, Any]) -> str:
    if webhook["reason"]:
        return f"  (disabled: {webhooks.REASONS[webhook['reason']]})"
    if webhook["rests_until"]:
        return f"  (fails, and rests until {webhook['rests_until'][:16]}Z)"
    return f"  ({webhook['failures']} failures in a row)" if webhook["failures"] else ""


@webhooks_.command()
@_webhook_id
@_as_json
def test(webhook_id: str, as_json: bool) -> int:
    """Send a test event, and where it is taken, every event from then on."""
    with at_the_ledger() as runtime:
        webhook, answer, activated = webhooks.send_test(runtime, CLI, webhook_id)
        facts = webhooks.describe(runtime, webhook)
    said = {"ok": answer.ok, "outcome": answer.outcome, "code": answer.code, "activated": activated}
    if as_json:
        click.echo(json.dumps({**said, "webhook": facts}))
    else:
        code = f" (HTTP {answer.code})" if answer.code else ""
        now = "; it is active now" if activated else f"; it is {facts['state']}"
        click.echo(f"{OUTCOMES[answer.outcome]}{code}{now}")
    return 0 if answer.ok else 1


@webhooks_.command()
@_webhook_id
@click.option(
    "--overlap-hours",
    type=click.IntRange(0, webhooks.MOST_OVERLAP_HOURS),
    default=webhooks.OVERLAP_HOURS,
    show_default=True,
    help="For so long the old secret signs as well; 0: no more.",
)
@_as_json
def rotate(webhook_id: str, overlap_hours: int, as_json: bool) -> None:
    """Give a webhook a new secret and show it, this once.

    For a day, or for as long as --overlap-hours says, each request is signed with both.
    """
    overlap = timedelta(hours=overlap_hours)
    with at_the_ledger() as runtime:
        with runtime.database.transaction() as session:
            webhook, secret = webhooks.rotate(
                session, runtime.keyring, CLI, webhook_id, overlap=overlap, now=runtime.now()
            )
        facts = webhooks.describe(runtime, webhook)
    if as_json:
        click.echo(json.dumps({**facts, "secret": secret}))
        return
    click.echo(secret)
    old = f"signs until {facts['old_secret_until'][:16]}Z" if overlap_hours else "signs no more"
    click.echo(f"It is shown this once. The old secret {old}.", err=True)


@webhooks_.command()
@_webhook_id
def delete(webhook_id: str) -> None:
    """End a webhook, with all of its deliveries."""
    with at_the_ledger() as runtime:
        webhooks.delete(runtime, CLI, webhook_id)
    click.echo("deleted")


@webhooks_.command()
@_webhook_id
@_status
@_type
@_fax
@_since
@_until
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@_as_json
def deliveries(
    webhook_id: str,
    status: str | None,
    type_: str | None,
    fax_id: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    as_json: bool,
) -> None:
    """Show what was sent to a webhook, newest first."""
    filters = _filters(status, type_, fax_id, since, until)
    with at_the_ledger() as runtime, runtime.database.reading() as session:
        items, _ = replays.page(session, CLI, webhook_id, filters, limit=limit, cursor=None)
    if as_json:
        click.echo(json.dumps(items))
        return
    if not items:
        click.echo("nothing")
    for each in items:
        tries = f"  {each['tries']} failed" if each["tries"] else ""
        following = f", next {each['next_at'][:19]}Z" if each["next_at"] else ""
        click.echo(
            f"{each['id']}  {each['created_at'][:19]}Z  {each['status']:<9}  {each['cause'] or '-':<11}  "
            f"{each['type']}  fax {each['fax_id']}{tries}{following}"
        )


@webhooks_.command()
@click.argument("which")
@_status
@_type
@_fax
@_since
@_until
@_as_json
def replay(
    which: str,
    status: str | None,
    type_: str | None,
    fax_id: str | None,
    since: datetime | None,
    until: datetime | None,
    as_json: bool,
) -> None:
    """Have a delivery sent again, by its id, or all of a webhook that fit.

    The webhook-id stays, so that a receiver knows what it has had.

    \b
      faxbot webhooks replay msg_0193f2c4a1b27c3d8e4f5a6b7c8d9e0f
      faxbot webhooks replay 0193f2c4a1b27c3d8e4f5a6b7c8d9e0f --status dead --since 2026-11-20
    """
    filters = _filters(status, type_, fax_id, since, until)
    one = which.startswith("msg_")
    if one and filters != Filters():
        raise click.UsageError("a single delivery takes no filter")
    with at_the_ledger() as runtime:
        if one:
            replays.replay(runtime, CLI, which)
            count = 1
        else:
            count = _all(runtime, which, filters)
    click.echo(json.dumps({"count": count}) if as_json else f"{count} to be sent again")


def _all(runtime: Runtime, webhook_id: str, filters: Filters) -> int:
    count, cursor = 0, None
    while True:
        done = replays.replay_all(runtime, CLI, webhook_id, filters, cursor=cursor)
        count += int(done["count"])
        if (cursor := done["next"]) is None:
            return count


def _filters(
    status: str | None,
    type_: str | None,
    fax_id: str | None,
    since: datetime | None,
    until: datetime | None,
) -> Filters:
    return Filters(
        status=status,
        type=type_,
        fax_id=fax_id,
        since=since.replace(tzinfo=UTC) if since else None,
        until=until.replace(tzinfo=UTC) if until else None,
    )
