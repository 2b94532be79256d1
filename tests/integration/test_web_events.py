"""GET /events over the test client, and what of /events/stream needs no server."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from faxbot import actors, results
from faxbot.db import utcnow
from faxbot.events import Event, Status
from faxbot.models import UserSession
from faxbot.runtime import Runtime
from faxbot.web.event_schemas import FeedPage
from tests.integration.web import assert_problem, browser_of, client_of, new_key, new_user, send

CURSOR = "`cursor` is not one that this server gave"


@pytest.fixture
def ears(runtime: Runtime) -> FlaskClient:
    return client_of(runtime, new_key(runtime, "events:read"))


def fax(client: FlaskClient) -> str:
    return str(json.loads(send(client).data)["id"])


def cancel(runtime: Runtime, fax_id: str) -> None:
    with runtime.database.transaction() as session:
        job = results.locked(session, fax_id)
        results.record_event(
            session, job, Event.CANCELLED, now=utcnow(), source="api", status=Status.CANCELLED
        )


def listed(client: FlaskClient, query: str = "") -> dict[str, Any]:
    answer = client.get(f"/events{query}")
    assert answer.status_code == 200
    page: dict[str, Any] = json.loads(answer.data)
    assert FeedPage().validate(page) == {}
    return page


def test_pages_lead_through_everything_and_go_on_with_what_comes(
    client: FlaskClient, ears: FlaskClient, runtime: Runtime
) -> None:
    faxes = [fax(client) for _ in range(5)]
    first = listed(ears, "?limit=3")
    second = listed(ears, f"?limit=3&cursor={first['next']}")
    told = [item["data"]["fax_id"] for item in (*first["items"], *second["items"])]

    assert told == faxes
    assert (first["more"], second["more"]) == (True, False)
    assert first["next"] == first["items"][-1]["id"]
    at_the_end = listed(ears, f"?cursor={second['next']}")
    assert at_the_end == {"items": [], "next": second["next"], "more": False}

    cancel(runtime, faxes[0])
    (news,) = listed(ears, f"?cursor={at_the_end['next']}")["items"]
    assert (news["type"], news["data"]["fax_id"]) == ("FAX_CANCELLED", faxes[0])
    assert (news["data"]["sequence"], news["data"]["status"]) == (2, "cancelled")


def test_types_and_a_fax_can_be_asked_for(
    client: FlaskClient, ears: FlaskClient, runtime: Runtime
) -> None:
    one, two = fax(client), fax(client)
    cancel(runtime, one)

    def told(query: str) -> list[tuple[str, str]]:
        items = listed(ears, query)["items"]
        return [(item["data"]["fax_id"], item["type"].removeprefix("FAX_")) for item in items]

    assert told("?type=FAX_CANCELLED") == [(one, "CANCELLED")]
    assert told("?type=FAX_CANCELLED,FAX_QUEUED") == [
        *((one, "QUEUED"), (two, "QUEUED"), (one, "CANCELLED"))
    ]
    assert told(f"?fax_id={two}") == [(two, "QUEUED")]
    assert told(f"?fax_id={two}&type=FAX_CANCELLED") == []
    assert told(f"?fax_id={'0' * 32}") == []


def test_a_time_says_where_to_begin(client: FlaskClient, ears: FlaskClient) -> None:
    fax(client)
    before = listed(ears)["items"][-1]["timestamp"]
    later = (utcnow() + timedelta(seconds=5)).isoformat().replace("+00:00", "Z")

    assert len(listed(ears, f"?since={before}")["items"]) == 1
    nothing_yet = listed(ears, f"?since={later}")
    assert nothing_yet["items"] == []
    two = fax(client)
    (told,) = listed(ears, f"?cursor={nothing_yet['next']}")["items"]
    assert told["data"]["fax_id"] == two


@pytest.mark.parametrize("path", ["/events", "/events/stream"])
@pytest.mark.parametrize("cursor", ["", "0", "newest", "1-2-3", "9" * 30, "9" * 18 + "-1"])
def test_a_wrong_cursor_is_a_clear_400(ears: FlaskClient, path: str, cursor: str) -> None:
    problem = assert_problem(ears.get(path, query_string={"cursor": cursor}), 400, "malformed")
    assert problem["detail"] == f"{CURSOR}."


def test_a_wrong_last_event_id_is_a_clear_400(ears: FlaskClient) -> None:
    answer = ears.get("/events/stream", headers={"Last-Event-ID": "4711"})
    assert assert_problem(answer, 400, "malformed")["detail"] == f"{CURSOR}."


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("type=FAX_LOST", "type"),
        ("type=", "type"),
        ("fax_id=4711", "fax_id"),
        ("since=yesterday", "since"),
        ("since=2026-11-20T12:00:00Z&cursor=0-0", "since"),
        ("after=0-0", "unknown"),
    ],
)
def test_what_cannot_be_asked_is_said_by_field(ears: FlaskClient, query: str, field: str) -> None:
    problem = assert_problem(ears.get(f"/events?{query}"), 422, "invalid-fields")
    assert list(problem["errors"]) == [field]


def test_another_account_sees_nothing(client: FlaskClient, runtime: Runtime) -> None:
    fax_id = fax(client)
    foreign = client_of(runtime, new_key(runtime, "events:read", account_id="other"))

    assert listed(foreign)["items"] == []
    assert listed(foreign, f"?fax_id={fax_id}")["items"] == []


def test_no_event_holds_a_number(client: FlaskClient, ears: FlaskClient) -> None:
    send(client, to="+15550100017", header="Practice of Dr. Zyzzyva")
    text = ears.get("/events").get_data(as_text=True)

    assert "FAX_QUEUED" in text
    assert not any(word in text for word in ("5550100017", "Zyzzyva", "document"))


# The stream's door ----------------------------------------------------------------------------------------------


def test_a_stream_begins_with_a_place_to_come_back_to(
    client: FlaskClient, ears: FlaskClient
) -> None:
    fax(client)
    last = listed(ears)["next"]
    answer = ears.get("/events/stream")

    assert answer.get_data(as_text=True) == f"retry: 3000\nid: {last}\n\n"
    assert answer.content_type == "text/event-stream; charset=utf-8"
    assert (answer.headers["Cache-Control"], answer.headers["X-Accel-Buffering"]) == (
        "no-store",
        "no",
    )
    assert "Content-Length" not in answer.headers


def test_asking_for_the_head_alone_begins_no_stream(ears: FlaskClient) -> None:
    answer = ears.head("/events/stream")
    streams = ears.application.extensions["faxbot.streams"]

    assert (answer.status_code, answer.data) == (200, b"")
    assert streams.standing() == {"listeners": 0, "most": streams.most, "read_at": None}


def test_listening_keeps_nobody_signed_in(runtime: Runtime) -> None:
    user = new_user(runtime, actors.VIEWER)
    browser = browser_of(runtime, user)
    long_ago = utcnow() - timedelta(minutes=5)

    def seen() -> Any:
        with runtime.database.reading() as session:
            return session.scalar(sa.select(UserSession.seen_at).filter_by(user_id=user.id))

    with runtime.database.transaction() as session:
        session.execute(sa.update(UserSession).values(seen_at=long_ago))
    assert browser.get("/events/stream").status_code == 200
    assert seen() == long_ago
    assert browser.get("/events").status_code == 200
    assert seen() > long_ago
