"""The HTTP API over a real database and real documents: faxes, repeats, pages, timelines, cancelling."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from faxbot.config import Config
from faxbot.events import Event, Status
from faxbot.models import Artifact, IdempotencyKey, Job
from faxbot.results import locked, record_event
from faxbot.runtime import Runtime
from faxbot.web import schemas
from tests.installation import Installation
from tests.integration.web import (
    NUMBER,
    SECRET,
    TEXT,
    assert_problem,
    client_of,
    left_behind,
    new_key,
    send,
)


@pytest.fixture
def config(store: Installation) -> Config:
    return store.config(SIMULATOR_SECRET=SECRET)


@pytest.fixture
def client(runtime: Runtime) -> FlaskClient:
    return client_of(runtime, new_key(runtime))


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
        {"expires_at": "2026-12-24T00:00:00Z"},
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
    first = send(client, key="k", send_at="2026-12-24T12:00:00+02:00")
    again = send(client, key="k", send_at="2026-12-24T10:00:00Z")

    assert again.data == first.data


def test_a_refused_request_leaves_its_key_free(client: FlaskClient) -> None:
    assert send(client, key="k", priority="high").status_code == 422

    assert sent_in(client, key="k")["status"] == "queued"


def test_a_repeat_has_its_first_answer_when_its_time_is_long_over(
    client: FlaskClient, runtime: Runtime
) -> None:
    fields = {"send_at": "2026-12-24T00:00:00Z", "expires_at": "2026-12-25T00:00:00Z"}
    first = send(client, key="k", **fields)
    years_later = replace(runtime, now=lambda: datetime(2031, 1, 1, tzinfo=UTC))
    client.application.extensions["faxbot"] = years_later

    assert send(client, key="k", **fields).data == first.data
    assert_problem(send(client, key="other", **fields), 422, "invalid-fields")


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
    fax = sent_in(client, send_at="2026-12-24T12:00:00+02:00", expires_at="2026-12-25T00:00:00Z")

    assert datetime.fromisoformat(fax["send_at"]) == datetime(2026, 12, 24, 10, tzinfo=UTC)
    assert fax["next_at"] == fax["send_at"]
    assert datetime.fromisoformat(fax["expires_at"]) == datetime(2026, 12, 25, tzinfo=UTC)


def test_what_is_stored_of_a_request_is_sealed(client: FlaskClient, runtime: Runtime) -> None:
    sent_in(client, key="k", header="Dr. Who")
    with runtime.database.reading() as session:
        job = session.scalars(sa.select(Job)).one()
        key = session.scalars(sa.select(IdempotencyKey)).one()
    stored = [job.to_sealed, job.header_sealed or b"", key.response_sealed]

    assert not any(NUMBER[1:].encode() in value or b"Dr. Who" in value for value in stored)
    assert key.key_hash != "k"


def test_a_broker_that_is_away_changes_nothing(client: FlaskClient, runtime: Runtime) -> None:
    assert runtime.ring("faxbot.send_fax", "0" * 32) is False  # nobody listens in this test

    assert sent_in(client)["status"] == "queued"
    assert set(left_behind(runtime)) == {"jobs", "events", "artifacts", "files"}
