"""The HTTP API over a real database and real documents: faxes, repeats, pages, timelines, cancelling."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from faxbot import sending, wiring
from faxbot.config import Config
from faxbot.events import Event, Status
from faxbot.models import Artifact, Job
from faxbot.results import locked, record_event
from faxbot.runtime import Runtime
from faxbot.tasks.app import Bell
from faxbot.web import schemas
from tests.carrier import SimulatorProcess
from tests.installation import Installation
from tests.integration.site import open_site
from tests.integration.web import (
    NUMBER,
    TABLES,
    TEXT,
    TODAY,
    ahead,
    assert_problem,
    client_of,
    left_behind,
    new_key,
    send,
)
from tests.servers import free_port


def sent_in(client: FlaskClient, **fields: Any) -> dict[str, Any]:
    response = send(client, **fields)
    assert response.status_code == 202, response.data
    fax: dict[str, Any] = json.loads(response.data)
    return fax


def test_a_fax_is_recorded_and_has_an_address(client: FlaskClient, runtime: Runtime) -> None:
    response = send(client, TEXT, b"another document\n", resolution="standard", priority="7")
    fax = json.loads(response.data)

    assert response.status_code == 202
    assert schemas.Fax().validate(fax) == {}
    assert (fax["to"], fax["status"], fax["pages"], fax["priority"]) == (NUMBER, "queued", 2, 7)
    assert response.headers["Location"] == f"/fax/{fax['id']}"
    assert json.loads(client.get(response.headers["Location"]).data) == fax
    with runtime.database.reading() as session:
        stored = session.scalars(sa.select(Artifact.sha256).order_by(Artifact.position)).all()
    assert list(stored) == [
        hashlib.sha256(text).hexdigest() for text in (TEXT, b"another document\n")
    ]
    assert not list(runtime.config.spool_dir.iterdir())


def test_the_earlier_address_does_the_same(client: FlaskClient) -> None:
    response = send(client, path="/fax")
    fax = json.loads(response.data)

    assert response.status_code == 202
    assert {
        "id",
        "to",
        "status",
        "error",
        "pages",
        "backend",
        "provider_sid",
        "created_at",
        "updated_at",
    } <= set(fax)


def test_a_repeated_request_has_the_first_answer_byte_for_byte(
    client: FlaskClient, runtime: Runtime
) -> None:
    first = send(client, key="order 4711")
    fax = json.loads(first.data)
    client.post(f"/fax/{fax['id']}/cancel")
    again = [send(client, key="order 4711"), send(client, key='"order 4711"')]
    with runtime.database.reading() as session:
        jobs = session.scalar(sa.select(sa.func.count()).select_from(Job))

    assert "Idempotency-Replayed" not in first.headers
    for response in again:
        assert (response.status_code, response.data) == (202, first.data)
        assert response.headers["Idempotency-Replayed"] == "true"
        assert response.headers["Location"] == first.headers["Location"]
    assert jobs == 1


@pytest.mark.parametrize(
    "change",
    [
        {"to": "+15550100017"},
        {"documents": (b"another page\n",)},
        {"documents": (TEXT, TEXT)},
        {"priority": "1"},
        {"resolution": "standard"},
        {"header": "Practice"},
        {"tags[case]": "4711"},
        {"expires_at": ahead(20)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_key_is_not_used_for_another_request(client: FlaskClient, change: dict[str, Any]) -> None:
    fax = sent_in(client, key="k")
    documents = change.get("documents", ())
    fields = {name: value for name, value in change.items() if name != "documents"}
    refused = send(client, *documents, key="k", **fields)

    assert_problem(refused, 422, "idempotency-key-reused")
    assert json.loads(client.get(f"/fax/{fax['id']}").data)["to"] == NUMBER


def test_the_same_time_in_another_zone_is_the_same_request(client: FlaskClient) -> None:
    first = send(client, key="k", send_at=ahead(20).replace("12:00:00Z", "14:00:00+02:00"))
    again = send(client, key="k", send_at=ahead(20))

    assert again.data == first.data


def test_a_refused_request_leaves_its_key_free(client: FlaskClient) -> None:
    assert send(client, key="k", priority="high").status_code == 422

    assert sent_in(client, key="k")["status"] == "queued"


def test_a_repeat_has_its_first_answer_when_its_time_is_long_over(
    client: FlaskClient, runtime: Runtime
) -> None:
    fields = {"send_at": ahead(20), "expires_at": ahead(21)}
    first = send(client, key="k", **fields)
    years_later = replace(runtime, now=lambda: TODAY + timedelta(days=2000))
    client.application.extensions["faxbot"] = years_later

    assert send(client, key="k", **fields).data == first.data
    assert_problem(send(client, key="other", **fields), 422, "invalid-fields")


def test_a_year_ahead_is_counted_from_the_clock_of_the_server(
    client: FlaskClient, runtime: Runtime
) -> None:
    assert send(client, send_at=ahead(360)).status_code == 202
    refused = assert_problem(send(client, send_at=ahead(2010)), 422, "invalid-fields")
    client.application.extensions["faxbot"] = replace(
        runtime, now=lambda: TODAY + timedelta(days=2000)
    )

    assert list(refused["errors"]) == ["send_at"]
    assert send(client, send_at=ahead(2010)).status_code == 202
    assert client.get("/fax", query_string={"until": ahead(9000)}).status_code == 200


def test_two_accounts_may_use_the_same_key(client: FlaskClient, runtime: Runtime) -> None:
    neighbour = client_of(runtime, new_key(runtime, account_id="other"))

    assert sent_in(client, key="k")["id"] != sent_in(neighbour, key="k")["id"]


def test_pages_follow_each_other_and_hide_numbers(client: FlaskClient) -> None:
    made = [sent_in(client)["id"] for _ in range(5)]
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    sizes = []
    while True:
        query = "/fax?limit=2" + (f"&cursor={cursor}" if cursor else "")
        page = json.loads(client.get(query).data)
        assert schemas.FaxPage().validate(page) == {}
        found += page["items"]
        sizes.append(len(page["items"]))
        if (cursor := page["next"]) is None:
            break

    assert [fax["id"] for fax in found] == made[::-1]
    assert sizes == [2, 2, 1]
    assert all(NUMBER not in json.dumps(fax) and fax["to"].endswith("00") for fax in found)


def test_a_list_is_filtered(client: FlaskClient) -> None:
    plain, tagged, other = (
        sent_in(client),
        sent_in(client, **{"tags[case]": "4711", "tags[ward]": "3"}),
        sent_in(client, to="+15550100017"),
    )
    client.post(f"/fax/{plain['id']}/cancel")

    def ids(query: str) -> list[str]:
        response = client.get(f"/fax?{query}")
        assert response.status_code == 200, response.data
        return [fax["id"] for fax in json.loads(response.data)["items"]]

    assert ids("tag[case]=4711") == ids("tag[case]=4711&tag[ward]=3") == [tagged["id"]]
    assert ids("tag[case]=4712") == ids("tag[ward]=4711") == []
    assert ids("status=cancelled") == [plain["id"]]
    assert ids(f"to_key={other['to_key']}") == [other["id"]]
    assert ids("since=2020-01-01T00:00:00Z&until=2021-01-01T00:00:00Z") == []
    assert ids("since=2020-01-01T00:00:00Z") == [other["id"], tagged["id"], plain["id"]]
    assert ids("provider_id=simulator") == []
    client.post(f"/fax/{other['id']}/cancel")
    client.post(f"/fax/{tagged['id']}/cancel")
    over = "ended_since=2020-01-01T00:00:00Z"
    assert ids(over) == [tagged["id"], other["id"], plain["id"]], "the last to end comes first"
    assert ids(f"{over}&status=cancelled&tag[case]=4711") == [tagged["id"]]
    assert ids(f"{over}&to_key={other['to_key']}") == [other["id"]]
    assert ids(f"{over}&status=delivered") == ids(f"{over}&status=queued") == []
    assert ids("ended_since=2999-01-01T00:00:00Z") == []


def test_a_number_is_looked_for_in_a_body(client: FlaskClient) -> None:
    sent_in(client)
    other = sent_in(client, to="+15550100017")
    page = json.loads(client.post("/fax/search", json={"to": "+1 (555) 010-0017"}).data)

    assert [fax["id"] for fax in page["items"]] == [other["id"]]
    assert schemas.FaxPage().validate(page) == {}
    assert "+15550100017" not in json.dumps(page)


def test_the_timeline_has_the_events(client: FlaskClient) -> None:
    fax = sent_in(client)
    client.post(f"/fax/{fax['id']}/cancel")
    timeline = json.loads(client.get(f"/fax/{fax['id']}/events").data)

    assert schemas.Timeline().validate(timeline) == {}
    assert [event["type"] for event in timeline["events"]] == ["FAX_QUEUED", "FAX_CANCELLED"]
    assert NUMBER not in json.dumps(timeline)


def test_a_waiting_fax_is_cancelled_at_once_and_stays_so(client: FlaskClient) -> None:
    fax = sent_in(client)
    cancelled = client.post(f"/fax/{fax['id']}/cancel")

    assert (cancelled.status_code, json.loads(cancelled.data)["status"]) == (200, "cancelled")
    assert_problem(client.post(f"/fax/{fax['id']}/cancel"), 409, "not-possible-in-this-state")


def test_a_fax_that_the_carrier_may_have_is_asked_to_stop(
    client: FlaskClient, runtime: Runtime
) -> None:
    fax = sent_in(client)
    with runtime.database.transaction() as session:
        job = locked(session, fax["id"])
        record_event(
            session,
            job,
            Event.SUBMITTING,
            status=Status.SUBMITTING,
            now=runtime.now(),
            source="worker",
        )
    asked = client.post(f"/fax/{fax['id']}/cancel")

    assert asked.status_code == 202
    assert json.loads(asked.data)["status"] == "submitting"
    assert json.loads(asked.data)["cancel_requested_at"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("GET", "/events"), ("POST", "/cancel")],
    ids=["read", "events", "cancel"],
)
def test_a_foreign_fax_looks_like_one_that_does_not_exist(
    client: FlaskClient, runtime: Runtime, method: str, path: str
) -> None:
    fax = sent_in(client)
    neighbour = client_of(runtime, new_key(runtime, account_id="other"))
    bodies = []
    for fax_id in (fax["id"], "0" * 32, "no-id", "%00", "\u00fc"):
        body = assert_problem(
            neighbour.open(f"/fax/{fax_id}{path}", method=method), 404, "not-found"
        )
        bodies.append({name: value for name, value in body.items() if name != "request_id"})

    assert all(body == bodies[0] for body in bodies)
    assert json.loads(neighbour.get("/fax").data)["items"] == []


def test_times_given_are_times_kept(client: FlaskClient) -> None:
    at = ahead(20).replace("12:00:00Z", "14:00:00+02:00")
    fax = sent_in(client, send_at=at, expires_at=ahead(21))

    assert datetime.fromisoformat(fax["send_at"]) == TODAY + timedelta(days=20)
    assert fax["next_at"] == fax["send_at"]
    assert datetime.fromisoformat(fax["expires_at"]) == TODAY + timedelta(days=21)


def test_what_is_stored_of_a_request_is_sealed(client: FlaskClient, runtime: Runtime) -> None:
    sent_in(client, key="a key of ours", header="Dr. Who")
    with runtime.database.reading() as session:
        rows = [
            str(value)
            for table in TABLES
            for row in session.execute(sa.select(table.__table__))
            for value in row
        ]

    assert len(rows) > 40
    assert not [
        value
        for value in rows
        if any(word in value for word in (NUMBER[1:], "Dr. Who", "a key of ours"))
    ]


def test_a_broker_that_is_away_changes_nothing(config: Config) -> None:
    """Nobody listens at the port of the broker, and the bell that web processes have says so soon."""
    away = replace(config, broker_url=f"redis://127.0.0.1:{free_port()}/0")
    rung: list[bool] = []
    quick = Bell(away)

    def ring(task: str, row_id: str, _urgency: int = 0, /) -> bool:
        rung.append(quick(task, row_id))
        return rung[-1]

    runtime = wiring.build(away, ring=ring)
    try:
        begun = time.monotonic()
        fax = sent_in(client_of(runtime, new_key(runtime)))

        assert time.monotonic() - begun < 20
        assert (fax["status"], rung) == ("queued", [False])
        assert set(left_behind(runtime)) == {"jobs", "events", "artifacts", "files"}
    finally:
        runtime.close()


@pytest.mark.parametrize(("given", "expected"), [("Dr. Who", "Dr. Who"), ("", "The practice")])
def test_a_header_goes_all_the_way_to_the_carrier(
    store: Installation, carrier_of_all: SimulatorProcess, given: str, expected: str
) -> None:
    with open_site(store, carrier_of_all, FAX_HEADER="The practice") as site:
        client = client_of(site.runtime, new_key(site.runtime))
        fax = sent_in(client, **({"header": given} if given else {}))
        sending.attempt(site.runtime, fax["id"])
        (taken,) = carrier_of_all.faxes(site.attempt(fax["id"]).tag)

    key = hmac.new(carrier_of_all.secret.encode(), expected.encode(), "sha256").hexdigest()[:32]
    assert taken["header_key"] == key
