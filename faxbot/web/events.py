"""/events: what happened to all faxes, page by page or as it happens."""

from __future__ import annotations

from typing import Any, cast

from flask import Response, current_app, request

from faxbot import feed
from faxbot.errors import ListenersFull, Malformed
from faxbot.feed import BEGINNING, Cursor
from faxbot.web import api, auth, endless, event_schemas, problems
from faxbot.web.auth import actor
from faxbot.web.streams import SCOPE, Streams

blueprint = api.Blueprint("events", __name__, description="What happens to faxes, in order.")

MEDIA_TYPE = "text/event-stream"
_EXAMPLE = (
    "retry: 3000\nid: 1795176000000000-4711\n\n"
    "id: 1795176000123456-4712\nevent: FAX_QUEUED\n"
    'data: {"id":"1795176000123456-4712","type":"FAX_QUEUED","timestamp":"2026-11-20T12:00:00.123456Z",'
    '"data":{"fax_id":"0193f2c4a1b27c3d8e4f5a6b7c8d9e0f","sequence":1,"status":"queued","provider_id":null,'
    '"attempt":null,"pages":3,"pages_sent":null,"cause":null}}\n\n'
    ": heartbeat\nid: 1795176000123456-4712\n\n"
)


@blueprint.operation(
    "GET",
    "/events",
    access=SCOPE,
    query=event_schemas.EventQuery(),
    answers={200: api.answer(event_schemas.FeedPage, "A page of events, the newest last.")},
    errors=(Malformed,),
)
def list_events(query: dict[str, Any]) -> Response:
    """List events

    Everything that happened to the account's faxes, each event once and none left out. Without `cursor` and `since` it
    begins with the oldest. Keep `next`, and ask with it again: at once while `more` is true, else when you like.
    """
    found = streams().feed
    since = query.get("since")
    if since is not None:
        behind = found.since(since)
    else:
        behind = found.resumed(Cursor.parse(query["cursor"])) if "cursor" in query else BEGINNING
    page = found.page(
        actor().account_id,
        event_schemas.filters(query),
        behind,
        limit=query["limit"],
        upto=found.settled(),
        since=since,
    )
    items = [feed.describe(row) for row in page.rows]
    return api.reply(problems.dumps({"items": items, "next": str(page.next), "more": page.more}))


@blueprint.operation(
    "GET",
    "/events/stream",
    access=SCOPE,
    query=event_schemas.StreamQuery(),
    answers={
        200: {
            "description": "Server-sent events (HTML, 9.2) until one of both ends the connection. `data` is an item of "
            "GET /events, `id` its cursor. A comment comes as heartbeat, by default every 15 s.",
            "content": {MEDIA_TYPE: {"schema": {"type": "string"}, "example": _EXAMPLE}},
        }
    },
    errors=(Malformed, ListenersFull),
    parameters=[
        {
            "name": "Last-Event-ID",
            "in": "header",
            "required": False,
            "description": "Goes before `cursor`: browsers send it by themselves when they come again.",
            "schema": {"type": "string"},
            "example": event_schemas.EXAMPLE_CURSOR,
        }
    ],
    in_background=True,
)
def stream_events(query: dict[str, Any]) -> Response:
    """Listen to events

    As they happen, within about a second. Without a cursor it begins at the present. When the connection ends, for
    whatever reason, come again with the last `id` as Last-Event-ID: nothing is missed and nothing comes twice. Once a
    key or a session ends its stream does, too; and what asks for it keeps nobody signed in.
    """
    given = request.headers.get("Last-Event-ID") or query.get("cursor")
    cursor = None if given is None else Cursor.parse(given)
    headers = {"X-Accel-Buffering": "no"}  # nginx would keep it back
    if request.method == "HEAD":
        return Response(iter(()), mimetype=MEDIA_TYPE, headers=headers)
    listener = streams().open(actor(), auth.shown(), event_schemas.filters(query), cursor)
    endless.hand_over(request.environ, listener)
    # An iterator: nobody knows how long it gets.
    return Response(iter((listener.opening(),)), mimetype=MEDIA_TYPE, headers=headers)


def streams() -> Streams:
    """Who listens at this process."""
    return cast(Streams, current_app.extensions["faxbot.streams"])
