"""`faxbot events`: what happens to all faxes, as a client of GET /events and GET /events/stream."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import urlencode

import click
import requests
from urllib3.exceptions import HTTPError

from faxbot.cli.client import checked_id, key_option, url_option
from faxbot.cli.connection import NEWS, NEWS_PAGE, STRANGE, Connection, ServerSaid, has_shape
from faxbot.cli.timeline import name, sentence
from faxbot.config import Config
from faxbot.events import Event
from faxbot.supervisor.program import program

_PAST = timedelta(hours=24)
_PAGE = 500
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0
_TRIES = 4
"""To reach a server at all; one that was there is waited for."""


def _cursor(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    # Not repeated, and not sent on in an address: it may be anything.
    if value is not None and not re.fullmatch(r"[0-9]{1,18}-[0-9]{1,18}", value):
        raise click.BadParameter("it is none: --json shows one as the id of each event")
    return value


def _time(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter("write it like 2026-11-20T18:00:00Z") from None
    if at.tzinfo is None:
        raise click.BadParameter("it needs its zone: add Z or an offset like +02:00")
    return value


@click.command(short_help="Show what happens to all faxes, in order.")
@click.option("--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option(
    "--cursor",
    metavar="CURSOR",
    callback=_cursor,
    help="Begin behind this event: its id, with --json.",
)
@click.option(
    "--since",
    metavar="TIME",
    callback=_time,
    help="Begin with what was recorded then, e.g. 2026-11-20T18:00:00Z.  [default: a day ago; with --follow now]",
)
@click.option(
    "--type",
    "types",
    multiple=True,
    metavar="EVENT",
    type=click.Choice([event.value for event in Event]),
    help="Only these, e.g. FAX_DELIVERED; may be repeated.",
)
@click.option("--fax", "fax_id", metavar="ID", callback=checked_id, help="Only those of this fax.")
@url_option
@key_option
@click.option("--json", "as_json", is_flag=True, help="Print each event as a line of JSON.")
def events(
    follow: bool,
    cursor: str | None,
    since: str | None,
    types: tuple[str, ...],
    fax_id: str | None,
    url: str | None,
    key: str | None,
    as_json: bool,
) -> None:
    """Show what happens to all faxes, each event once and in order. Needs a key with the scope events:read.

    The last line on standard error says how to go on behind what was shown; nothing is missed meanwhile.
    """
    if cursor and since:
        raise click.UsageError("either --cursor or --since: both say where to begin")
    if not (cursor or since or follow):
        since = (datetime.now(UTC) - _PAST).isoformat()
    wanted = {"type": ",".join(types), "fax_id": fax_id}
    with Connection(Config.load(), url, key) as connection:
        told = _told(connection, _given(wanted), _given({"cursor": cursor, "since": since}), follow)
        place = cursor
        try:
            for found in told:
                for event in found.events:
                    _show(event, as_json)
                place = found.place
        finally:
            if place and not as_json:
                click.echo(f"go on with: {program()} events --cursor {place}", err=True)


def _given(options: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in options.items() if value}


class _Found(NamedTuple):
    """Events, and the place behind them."""

    events: list[Any]
    place: str | None


def _told(
    connection: Connection, wanted: dict[str, str], begin: dict[str, str], follow: bool
) -> Iterator[_Found]:
    place = begin.get("cursor")
    if not follow or "since" in begin:
        for page in _pages(connection, {**wanted, **begin}):
            place = page["next"]
            yield _Found(page["items"], place)
    if follow:
        path = "/events/stream" + (f"?{urlencode(wanted)}" if wanted else "")
        for said in _stream(connection, path, place):
            place = said.id or place
            yield _Found([] if said.data is None else [_event(said.data)], place)


def _pages(connection: Connection, query: dict[str, str]) -> Iterator[Any]:
    """The pages that there are by now."""
    page: Any = {"more": True}
    while page["more"]:
        path = f"/events?{urlencode({**query, 'limit': _PAGE})}"
        page = connection.request("GET", path, NEWS_PAGE)
        yield page
        query = {**query, "cursor": page["next"]}
        query.pop("since", None)


class _Said(NamedTuple):
    """A block of a stream (HTML, 9.2.6): the last id, and what it says; None where only the id has moved on."""

    id: str | None
    data: str | None


def _stream(connection: Connection, path: str, place: str | None) -> Iterator[_Said]:
    """What a stream says, for ever: where it ends it is taken up at the same place. Raises ServerSaid where the server
    refuses, and where it was never reached."""
    was_there, failures = False, 0
    while True:
        fault, pause = ServerSaid("the connection has ended"), _FIRST_PAUSE
        try:
            with connection.listen(path, place) as reply, suppress(HTTPError):
                was_there, failures = True, 0
                for said in _blocks(reply):
                    place = said.id or place
                    yield said
        except ServerSaid as error:
            if error.again_in is None or (not was_there and failures >= _TRIES):
                raise
            fault, pause = (
                error,
                max(error.again_in, min(_FIRST_PAUSE * 2**failures, _LONGEST_PAUSE)),
            )
        if not failures:
            click.echo(f"faxbot: {fault.detail}; trying again until it goes on", err=True)
        failures += 1
        time.sleep(pause)


def _blocks(reply: requests.Response) -> Iterator[_Said]:
    said: dict[str, str] = {}
    last_id: str | None = None
    for line in _lines(reply):
        field, colon, value = line.partition(":")
        if field:
            said[field] = value.removeprefix(" ")
        elif not colon and said:
            last_id = said.get("id", last_id)
            yield _Said(last_id, said.get("data"))
            said = {}


def _lines(reply: requests.Response) -> Iterator[str]:
    """Lines as they come; those of requests wait for more than one."""
    buffer = b""
    while data := reply.raw.read1(65536):
        *lines, buffer = (buffer + data).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace").removesuffix("\r")


def _event(data: str) -> Any:
    """An event as it is told; raises ServerSaid for anything else."""
    try:
        event = json.loads(data)
    except ValueError:
        raise ServerSaid(STRANGE) from None
    if not has_shape(event, NEWS):
        raise ServerSaid(STRANGE)
    return event


def _show(event: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(event))
        return
    at = f"{datetime.fromisoformat(event['timestamp']):%Y-%m-%d %H:%M:%SZ}"
    told = {**event["data"], "type": event["type"]}
    click.echo(f"{at}  {told['fax_id']}  {name(event['type'])}  {sentence(told)}".rstrip())
