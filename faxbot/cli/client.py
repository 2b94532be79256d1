"""`faxbot send`, `status`, `list`, `cancel` and what else people do with a fax: clients of the HTTP API like any other,
on this machine or far away."""

from __future__ import annotations

import json
import re
import sys
import time
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click

from faxbot.cli.connection import FAX, PAGE, STORY, Connection
from faxbot.cli.timeline import Timeline, counted
from faxbot.config import Config
from faxbot.events import TERMINAL, Status
from faxbot.supervisor.program import program

_ID = re.compile(r"[0-9a-f]{32}")
_WIDTH = max(map(len, Status))
_FIRST_PAUSE, _LONGEST_PAUSE = 0.15, 2.0
_SILENT_PAUSE = 0.5
"""Pauses grow to this in about two seconds without news: then people want to know what it waits for."""

url_option = click.option("--url", help="The server.  [default: FAXBOT_URL, else this machine]")
key_option = click.option(
    "--key",
    help="API key; better in FAXBOT_API_KEY, where other users of the machine do not see it.",
)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print the fax as JSON.")


def _tag(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    if any(not name or not equals for name, equals, _ in pairs):
        raise click.BadParameter("write it as NAME=VALUE")
    return {f"tags[{name}]": value for name, _, value in pairs}


def _number(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    if value != "-":
        return value
    try:
        return sys.stdin.readline().strip()
    except UnicodeDecodeError:
        raise click.BadParameter("standard input is no UTF-8 text") from None


def checked_id(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """A fax's id; raises BadParameter for anything else."""
    if value is not None and not _ID.fullmatch(value):
        # Not repeated: who mistakes a number for an id would find it in a log.
        raise click.BadParameter("an id has 32 hex digits; faxbot send and faxbot list print it")
    return value


@click.command(short_help="Send documents as one fax.")
@click.argument(
    "files",
    metavar="FILE...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path),
)
@click.option(
    "--to",
    required=True,
    metavar="NUMBER",
    callback=_number,
    help="Where to, e.g. +15550100000; - reads it from standard input, where other users of the machine do not see it.",
)
@click.option(
    "--wait", is_flag=True, help="Show the timeline until the fax is delivered or has failed."
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Wait no longer than this.",
)
@click.option(
    "--header",
    help="Text at the top of each page: at most 50, printable ASCII only.  [default: FAX_HEADER]",
)
@click.option(
    "--resolution",
    type=click.Choice(["fine", "standard"]),
    help="204x196 or 204x98 dots per inch.  [default: fine]",
)
@click.option("--priority", type=click.IntRange(0, 255), help="Higher goes first.  [default: 128]")
@click.option(
    "--tag",
    "tags",
    multiple=True,
    callback=_tag,
    metavar="NAME=VALUE",
    help="To find it by; may be repeated.",
)
@click.option("--send-at", metavar="TIME", help="Not before this, e.g. 2026-11-20T18:00:00Z.")
@click.option("--expires-at", metavar="TIME", help="Not after this.")
@click.option(
    "--idempotency-key",
    metavar="KEY",
    help="Name this fax yourself: the same command again sends nothing twice.",
)
@url_option
@key_option
@_as_json
def send(
    files: tuple[Path, ...],
    to: str,
    wait: bool,
    timeout: float | None,
    tags: dict[str, str],
    idempotency_key: str | None,
    url: str | None,
    key: str | None,
    as_json: bool,
    **fields: object,
) -> int:
    """Send FILEs (PDF, TIFF, PNG, JPEG or UTF-8 text) as one fax, in this order.

    A lost connection is tried again under the same Idempotency-Key, so that it never becomes two faxes. Exit code
    0: accepted, or with --wait delivered; 1: not.
    """
    with Connection(Config.load(), url, key) as connection:
        job = connection.request(
            "POST",
            "/fax/send",
            FAX,
            data={
                "to": to,
                **{name: str(value) for name, value in fields.items() if value is not None},
                **tags,
            },
            files=[("file", (path.name, path.read_bytes())) for path in files],
            headers={"Idempotency-Key": idempotency_key or uuid.uuid4().hex},
            within=timeout if wait else None,
        )
        if not as_json:
            click.echo(f"fax {job['id']} is accepted{_pages(job)}")
        if wait:
            status = _follow(connection, job["id"], timeout, quiet=as_json)
            if as_json:
                job = connection.request("GET", f"/fax/{job['id']}", FAX)
        else:
            status = Status.DELIVERED  # being accepted is all that was asked for
    if as_json:
        click.echo(json.dumps(job))
    elif not wait:
        click.echo(f"follow it with: {program()} status {job['id']} --events", err=True)
    return 0 if status is Status.DELIVERED else 1


@click.command(short_help="Show where a fax stands.")
@click.argument("fax_id", metavar="ID", callback=checked_id)
@click.option("--events", "with_events", is_flag=True, help="Show its timeline too.")
@url_option
@key_option
@_as_json
def status(fax_id: str, with_events: bool, url: str | None, key: str | None, as_json: bool) -> None:
    """Show where a fax stands, what happens next, and why."""
    with Connection(Config.load(), url, key) as connection:
        job = connection.request("GET", f"/fax/{fax_id}", FAX, briefly=True)
        story = connection.request("GET", f"/fax/{fax_id}/events", STORY) if with_events else None
    if as_json:
        click.echo(json.dumps(job if story is None else {**job, "events": story["events"]}))
        return
    click.echo(f"{click.style(job['status'], bold=True)}: {job['explanation']}")
    error = job.get("error") or {}
    facts = {
        "pages": f"{job.get('pages_sent') or 0} of {job['pages']} sent"
        if job.get("pages")
        else None,
        "attempts": job.get("attempts"),
        "provider": job.get("provider_id"),
        "carrier's id": job.get("external_id"),
        "error": f"{error['message']} ({error['code']})" if error else None,
        "next try": job.get("next_at"),
        "accepted": job.get("created_at"),
    }
    for name, value in facts.items():
        if value is not None:
            click.echo(f"  {name + ':':<14}{value}")
    if story is not None:
        click.echo()
        Timeline().show(story["events"])


@click.command("list", short_help="List faxes, newest first.")
@click.option(
    "--status",
    "wanted",
    type=click.Choice([status.value for status in Status]),
    help="Only those in this status.",
)
@click.option(
    "--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="At most so many."
)
@url_option
@key_option
@_as_json
def list_(wanted: str | None, limit: int, url: str | None, key: str | None, as_json: bool) -> None:
    """List faxes, newest first: id, status, when it was accepted, pages, and the number, masked."""
    query = {"limit": str(limit), **({"status": wanted} if wanted else {})}
    with Connection(Config.load(), url, key) as connection:
        page = connection.request("GET", f"/fax?{urlencode(query)}", PAGE, briefly=True)
    if as_json:
        click.echo(json.dumps(page))
        return
    for job in page["items"]:
        accepted = f"{datetime.fromisoformat(job['created_at']):%Y-%m-%d %H:%M:%SZ}"
        pages = "" if job.get("pages") is None else str(job["pages"])
        to = job["to"] or "(does not open)"
        click.echo(f"{job['id']}  {job['status']:<{_WIDTH}}  {accepted}  {pages:>3}  {to}")
    if not page["items"]:
        click.echo("no faxes" + (" in this status" if wanted else " yet"), err=True)
    elif page.get("next"):
        click.echo("there are more: see --limit and --status", err=True)


@click.command(short_help="Cancel a fax.")
@click.argument("fax_id", metavar="ID", callback=checked_id)
@url_option
@key_option
@_as_json
def cancel(fax_id: str, url: str | None, key: str | None, as_json: bool) -> None:
    """Cancel a fax, so that it is not sent or not tried again.

    Where the carrier may have it already, the wish is passed on: it may come too late. A fax that is delivered, failed,
    expired or cancelled stays as it is; exit code 1.
    """
    with Connection(Config.load(), url, key) as connection:
        job = connection.cancel(fax_id)
    _show(job, as_json)
    if not as_json and job["status"] not in TERMINAL:
        click.echo(f"follow it with: {program()} status {fax_id} --events", err=True)


def _asked(fax_id: str, verb: str, url: str | None, key: str | None) -> Any:
    """The fax, after this was asked of it, once: who asks again asks anew."""
    with Connection(Config.load(), url, key) as connection:
        return connection.request("POST", f"/fax/{fax_id}/{verb}", FAX, once=True)


@click.command(short_help="Let a held fax go.")
@click.argument("fax_id", metavar="ID", callback=checked_id)
@url_option
@key_option
@_as_json
def release(fax_id: str, url: str | None, key: str | None, as_json: bool) -> None:
    """Let a held fax go, whatever it is held for; where that is not mended, it is held again."""
    _show(_asked(fax_id, "release", url, key), as_json)


@click.command(short_help="Send a fax once more that is over.")
@click.argument("fax_id", metavar="ID", callback=checked_id)
@click.option(
    "--to",
    metavar="NUMBER",
    callback=_number,
    help="Another number; - reads it from standard input.  [default: the same]",
)
@click.option("--provider", "provider_id", metavar="ID", help="Send with this provider.")
@click.option("--send-at", metavar="TIME", help="Not before this, e.g. 2026-11-20T18:00:00Z.")
@click.option(
    "--idempotency-key",
    metavar="KEY",
    help="Name this fax yourself: the same command again sends nothing twice.",
)
@url_option
@key_option
@_as_json
def resend(
    fax_id: str,
    idempotency_key: str | None,
    url: str | None,
    key: str | None,
    as_json: bool,
    **changes: str | None,
) -> None:
    """Send a fax once more that is delivered, failed, cancelled or expired: as a new fax with its documents.

    A lost connection is tried again under the same Idempotency-Key, so that it never becomes two faxes.
    """
    with Connection(Config.load(), url, key) as connection:
        job = connection.request(
            "POST",
            f"/fax/{fax_id}/resend",
            FAX,
            json={name: value for name, value in changes.items() if value is not None},
            headers={"Idempotency-Key": idempotency_key or uuid.uuid4().hex},
        )
    if as_json:
        click.echo(json.dumps(job))
    else:
        click.echo(f"fax {job['id']} is accepted{_pages(job)}")
        click.echo(f"follow it with: {program()} status {job['id']} --events", err=True)


@click.command(short_help="Hold a fax until it is released.")
@click.argument("fax_id", metavar="ID", callback=checked_id)
@url_option
@key_option
@_as_json
def hold(fax_id: str, url: str | None, key: str | None, as_json: bool) -> None:
    """Hold a fax that is queued or retrying, until it is released or cancelled; its deadline ends it all the same."""
    _show(_asked(fax_id, "hold", url, key), as_json)


@click.command("send-now", short_help="Send a fax now that waits for its time.")
@click.argument("fax_id", metavar="ID", callback=checked_id)
@url_option
@key_option
@_as_json
def send_now(fax_id: str, url: str | None, key: str | None, as_json: bool) -> None:
    """Send a fax now that waits for its --send-at, or for its next try.

    What waits for its turn at its number or its provider keeps it; exit code 1.
    """
    _show(_asked(fax_id, "send-now", url, key), as_json)


@click.command(short_help="Settle an uncertain fax by what you found out.")
@click.argument("fax_id", metavar="ID", callback=checked_id)
@click.option(
    "--outcome",
    required=True,
    type=click.Choice(["delivered", "failed", "retry"]),
    help="It was delivered; it has failed; it never went out and is sent anew.",
)
@click.option("--reason", required=True, help="How you know; it is kept.")
@click.option(
    "--attempt",
    type=click.IntRange(1, 999_999_999),
    help="Which one you found out about; refused where another has begun since.",
)
@url_option
@key_option
@_as_json
def decide(
    fax_id: str,
    outcome: str,
    reason: str,
    attempt: int | None,
    url: str | None,
    key: str | None,
    as_json: bool,
) -> None:
    """Settle an uncertain fax by what you found out at the carrier or the receiver. Needs a key with the scope operate.

    With `retry` it is sent anew: where you are wrong, it arrives twice.
    """
    wish = {"outcome": outcome, "reason": reason}
    if attempt is not None:
        wish["attempt"] = str(attempt)
    with Connection(Config.load(), url, key) as connection:
        job = connection.request("POST", f"/fax/{fax_id}/decide", FAX, json=wish, once=True)
    _show(job, as_json)


def _show(job: dict[str, Any], as_json: bool) -> None:
    """How the fax stands now."""
    if as_json:
        click.echo(json.dumps(job))
    else:
        click.echo(f"{click.style(job['status'], bold=True)}: {job['explanation']}")


def _pages(job: dict[str, Any]) -> str:
    return f", {counted(job['pages'])}" if job.get("pages") else ""


def _follow(connection: Connection, fax_id: str, timeout: float | None, *, quiet: bool) -> Status:
    """Print what happens as it happens, until it is final or `timeout` is over; the status then."""
    timeline, pause, said = Timeline(), _FIRST_PAUSE, ""
    until = None if timeout is None else time.monotonic() + timeout
    while True:
        events = connection.request("GET", f"/fax/{fax_id}/events", STORY)["events"]
        if timeline.show(events, quiet=quiet):
            pause = _FIRST_PAUSE
        reached = Status(events[-1]["status"]) if events else Status.QUEUED
        if reached in TERMINAL:
            return reached
        if until is not None and time.monotonic() + pause > until:
            click.echo(
                f"faxbot: still {reached} after {timeout:g} s; see how it goes on with: {program()} status {fax_id}",
                err=True,
            )
            return reached
        if pause >= _SILENT_PAUSE and not quiet:
            said = _say_why(connection.request("GET", f"/fax/{fax_id}", FAX), said)
        time.sleep(pause)
        pause = min(pause * 1.3, _LONGEST_PAUSE)


def _say_why(job: dict[str, Any], said: str) -> str:
    """Print what the fax waits for, and how to leave, unless that was `said` already; what was said."""
    # A held fax is looked at again and again and stays as it is: that is no news.
    says = f"{job['status']} {'' if job['status'] == Status.HELD else job.get('next_at')}"
    if job["status"] not in TERMINAL and says != said:
        leave = f"Ctrl-C leaves it to itself, `{program()} cancel {job['id']}` gives it up."
        click.echo(f"{'...':>10}  {job['explanation']} {leave}")
    return says
