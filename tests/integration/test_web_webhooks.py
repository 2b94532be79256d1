"""Webhooks over HTTP: made, tested, rotated, replayed; a secret is shown once and an address never again."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from faxbot import audit, webhooks
from faxbot.audit import Action
from faxbot.config import Config
from faxbot.db import table
from faxbot.models import AuditEvent, Webhook
from faxbot.runtime import Runtime
from faxbot.web import webhook_schemas
from tests.installation import Installation
from tests.integration.hooks import HERE, deliver, hook, rows
from tests.integration.web import SECRET, ahead, assert_problem, client_of, new_key, send
from tests.receiver import Receiver, verified

KEY = ("fax:send", "fax:read", "webhooks:manage")


@pytest.fixture
def config(store: Installation) -> Config:
    return store.config(SIMULATOR_SECRET=SECRET, FAXBOT_WEBHOOK_SECONDS="3", **HERE)


@pytest.fixture
def client(runtime: Runtime) -> FlaskClient:
    return client_of(runtime, new_key(runtime, *KEY))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def made(client: FlaskClient, url: str, **more: Any) -> dict[str, Any]:
    answer = client.post("/webhooks", json={"name": "records", "url": url, **more})
    assert answer.status_code == 201, answer.data
    found: dict[str, Any] = json.loads(answer.data)
    assert webhook_schemas.NewWebhook().validate(found) == {}
    return found


def try_out(client: FlaskClient, webhook_id: str) -> dict[str, Any]:
    answer = client.post(f"/webhooks/{webhook_id}/test")
    assert answer.status_code == 200, answer.data
    found: dict[str, Any] = json.loads(answer.data)
    assert webhook_schemas.WebhookTest().validate(found) == {}
    return found


def read(client: FlaskClient, path: str) -> dict[str, Any]:
    answer = client.get(path)
    assert answer.status_code == 200, answer.data
    found: dict[str, Any] = json.loads(answer.data)
    return found


def test_from_the_subscription_to_the_first_event(
    client: FlaskClient, runtime: Runtime, receiver: Receiver
) -> None:
    new = made(client, receiver.url, types=["FAX_QUEUED"])
    assert (new["state"], new["types"]) == ("pending", ["FAX_QUEUED"])
    assert new["secret"].startswith("whsec_")
    send(client)
    deliver(runtime)
    assert receiver.heard == [], "nothing before the test event"

    said = try_out(client, new["id"])
    assert (said["ok"], said["code"], said["activated"]) == (True, 200, True)
    assert said["webhook"]["state"] == "active"
    (test,) = receiver.heard
    assert verified(test, new["secret"])["type"] == "webhook.test"
    assert test.event["data"] == {"webhook_id": new["id"]}

    fax = json.loads(send(client).data)
    deliver(runtime)
    _, event = receiver.heard
    assert verified(event, new["secret"])["data"]["fax_id"] == fax["id"]
    page = read(client, f"/webhooks/{new['id']}/deliveries")
    assert webhook_schemas.DeliveryPage().validate(page) == {}
    (delivery,) = page["items"]
    assert (delivery["status"], delivery["id"]) == ("delivered", event.id)
    detail = read(client, f"/webhooks/deliveries/{event.id}")
    assert webhook_schemas.DeliveryDetail().validate(detail) == {}
    assert detail["body"].encode() == event.body
    assert [each["code"] for each in detail["history"]] == [200]
    assert try_out(client, new["id"])["activated"] is False, "it is active already"


def test_a_secret_is_shown_once_and_of_an_address_only_the_host(
    client: FlaskClient, runtime: Runtime, receiver: Receiver
) -> None:
    new = made(client, receiver.url)
    try_out(client, new["id"])
    shown = [
        client.get("/webhooks"),
        client.get(f"/webhooks/{new['id']}"),
        client.patch(f"/webhooks/{new['id']}", json={"name": "other"}),
        client.post(f"/webhooks/{new['id']}/test"),
        client.get(f"/webhooks/{new['id']}/deliveries"),
    ]
    for answer in shown:
        assert answer.status_code == 200
        assert new["secret"] not in answer.get_data(as_text=True)
        assert "s3cret" not in answer.get_data(as_text=True)
    assert json.loads(shown[1].data)["url"] == f"http://127.0.0.1:{receiver.port}/…"
    assert "s3cret" not in json.dumps(new)
    with runtime.database.engine.connect() as connection:
        for name in ("webhooks", "audit_events"):
            text = str(connection.execute(sa.text(f"SELECT * FROM {name}")).all())
            assert new["secret"] not in text
            assert "s3cret" not in text


@pytest.mark.parametrize(
    ("status", "outcome"), [(500, "status"), (302, "redirect"), (410, "gone"), (404, "status")]
)
def test_where_the_test_event_is_not_taken_it_stays_as_it_is_and_says_why(
    client: FlaskClient, receiver: Receiver, status: int, outcome: str
) -> None:
    receiver.does = lambda _: (status, {"Location": "http://127.0.0.1:9/", "X-Inside": "s3cret"})
    new = made(client, receiver.url)
    said = try_out(client, new["id"])

    assert (said["ok"], said["outcome"], said["code"]) == (False, outcome, status)
    assert (said["activated"], said["webhook"]["state"]) == (False, "pending")
    assert len(said["detail"]) > 20
    assert "s3cret" not in json.dumps(said)


def test_a_receiver_that_hangs_costs_its_time_and_another_test_meanwhile_is_put_off(
    client: FlaskClient, runtime: Runtime, receiver: Receiver
) -> None:
    begun = threading.Event()

    def hangs(heard: Any) -> int:
        begun.set()
        receiver.hang(heard)
        return 200

    receiver.does = hangs
    new = made(client, receiver.url)
    other = client_of(runtime, new_key(runtime, "webhooks:manage"))
    results: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: results.append(try_out(client, new["id"])))
    thread.start()
    assert begun.wait(20)
    answer = other.post(f"/webhooks/{new['id']}/test")
    thread.join()

    assert_problem(answer, 429, "webhook-tests-crowded")
    assert int(answer.headers["Retry-After"]) >= 1
    assert results[0]["outcome"] == "timeout"
    assert 2900 < results[0]["duration_ms"] < 8000


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"url": "http://10.0.0.1:8080/"}, "url"),
        ({"url": "http://169.254.169.254:8080/latest/meta-data"}, "url"),
        ({"url": "http://[::1]:8080/"}, "url"),
        ({"url": "http://2130706433:8080/"}, "url"),
        ({"url": "ftp://example.org/"}, "url"),
        ({"url": "https://me:password@example.org:8080/"}, "url"),
        ({"url": "https://example.org:22/"}, "url"),
        ({"url": ""}, "url"),
        ({"url": "https://example.org:8080/" + "x" * 2048}, "url"),
        ({"url": None}, "url"),
        ({"name": ""}, "name"),
        ({"name": "x" * 256}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"types": []}, "types"),
        ({"types": ["FAX_UNHEARD_OF"]}, "types"),
        ({"types": ["FAX_FORGOTTEN"]}, "types"),
        ({"types": "*"}, "types"),
        ({"secret": "whsec_mine"}, "unknown"),
    ],
)
def test_what_cannot_be_is_refused_by_its_field_and_leaves_nothing(
    client: FlaskClient, runtime: Runtime, wish: dict[str, Any], field: str
) -> None:
    sound = {"name": "records", "url": "https://hooks.example.org:8080/"}
    answer = client.post("/webhooks", json={**sound, **wish})
    problem = assert_problem(answer, 422, "invalid-fields")

    assert set(problem["errors"]) == {field}
    said = json.dumps(problem)
    assert "password" not in said or "no password" in said
    assert "169.254" not in said
    assert read(client, "/webhooks")["items"] == []
    assert runtime.database.rows(sa.select(table(Webhook)), {}) == []


def test_a_new_address_is_taken_only_when_it_has_taken_a_test_event(
    client: FlaskClient, runtime: Runtime, receiver: Receiver
) -> None:
    new = made(client, receiver.url)
    try_out(client, new["id"])
    with Receiver(lambda _: 500) as elsewhere:
        refused = client.patch(f"/webhooks/{new['id']}", json={"url": elsewhere.url, "name": "x"})
        problem = assert_problem(refused, 422, "invalid-fields")
        assert "test event" in problem["errors"]["url"][0]
        assert read(client, f"/webhooks/{new['id']}")["name"] == "records", "nothing was changed"
        elsewhere.does = lambda _: 200
        moved = client.patch(f"/webhooks/{new['id']}", json={"url": elsewhere.url})
        assert (moved.status_code, json.loads(moved.data)["state"]) == (200, "active")
        send(client)
        deliver(runtime)
        assert [heard.event["type"] for heard in elsewhere.heard] == [
            "webhook.test", "webhook.test", "FAX_QUEUED",
        ]  # fmt: skip
        for heard in elsewhere.heard:
            verified(heard, new["secret"])
    assert [heard.event["type"] for heard in receiver.heard] == ["webhook.test"]
    answer = client.patch(f"/webhooks/{new['id']}", json={"url": "http://10.0.0.1:8080/"})
    assert_problem(answer, 422, "invalid-fields")
    assert_problem(client.patch(f"/webhooks/{new['id']}", json={}), 422, "invalid-fields")


def test_a_new_address_that_took_nothing_is_in_the_audit_trail(
    client: FlaskClient, runtime: Runtime, receiver: Receiver
) -> None:
    new = made(client, receiver.url)
    try_out(client, new["id"])
    with Receiver(lambda _: 500) as elsewhere:
        client.patch(f"/webhooks/{new['id']}", json={"url": elsewhere.url})
    runtime.notes.flush()
    events = table(AuditEvent)
    query = sa.select(events).where(events.c.action == str(Action.WEBHOOK_CHANGED))
    (row,) = runtime.database.rows(query, {})
    assert (row.object_id, row.outcome, row.details) == (new["id"], "refused", {"why": "status"})


def test_types_that_are_changed_hold_from_the_next_event_on(
    client: FlaskClient, runtime: Runtime, receiver: Receiver
) -> None:
    new = made(client, receiver.url, types=["FAX_DELIVERED"])
    try_out(client, new["id"])
    send(client)
    assert rows(runtime) == []
    answer = client.patch(f"/webhooks/{new['id']}", json={"types": ["*", "FAX_SENT"]})
    assert json.loads(answer.data)["types"] == ["*"]
    send(client)
    assert [row.type for row in rows(runtime)] == ["FAX_QUEUED"]


def test_while_a_secret_is_rotated_both_verify(
    client: FlaskClient, runtime: Runtime, receiver: Receiver
) -> None:
    new = made(client, receiver.url)
    try_out(client, new["id"])
    answer = client.post(f"/webhooks/{new['id']}/rotate", json={})
    rotated = json.loads(answer.data)
    assert webhook_schemas.NewWebhook().validate(rotated) == {}
    assert rotated["secret"] != new["secret"]
    until = datetime.fromisoformat(rotated["old_secret_until"])
    assert timedelta(hours=23) < until - datetime.now(UTC) <= timedelta(hours=24)
    send(client)
    deliver(runtime)
    event = receiver.heard[-1]
    assert verified(event, new["secret"]) == verified(event, rotated["secret"])

    at_once = json.loads(
        client.post(f"/webhooks/{new['id']}/rotate", json={"overlap_hours": 0}).data
    )
    assert at_once["old_secret_until"] is None
    try_out(client, new["id"])
    verified(receiver.heard[-1], at_once["secret"])
    with pytest.raises(Exception, match="signature"):
        verified(receiver.heard[-1], rotated["secret"])


def test_what_is_deleted_is_gone_with_all_that_was_kept(
    client: FlaskClient, runtime: Runtime, receiver: Receiver
) -> None:
    new = made(client, receiver.url)
    try_out(client, new["id"])
    send(client)
    (delivery,) = rows(runtime)
    assert client.delete(f"/webhooks/{new['id']}").status_code == 200
    for path in (f"/webhooks/{new['id']}", f"/webhooks/deliveries/{delivery.id}"):
        assert_problem(client.get(path), 404, "not-found")
    assert_problem(client.delete(f"/webhooks/{new['id']}"), 404, "not-found")
    assert read(client, "/webhooks")["items"] == []
    send(client)
    deliver(runtime)
    assert [heard.event["type"] for heard in receiver.heard] == ["webhook.test"]


def test_replays_over_http(client: FlaskClient, runtime: Runtime, receiver: Receiver) -> None:
    new = made(client, receiver.url)
    path = f"/webhooks/{new['id']}/replay"
    said = assert_problem(client.post(path, json={}), 409, "webhook-not-active")["detail"]
    assert f"it is pending. Have it tested first (`faxbot webhooks test {new['id']}`)" in said
    try_out(client, new["id"])
    for _ in range(3):
        send(client)
    deliver(runtime)
    one = rows(runtime)[0].id
    answer = client.post(f"/webhooks/deliveries/{one}/replay")
    assert (answer.status_code, json.loads(answer.data)["turn"]) == (200, 1)
    deliver(runtime)
    assert [heard.id for heard in receiver.heard].count(one) == 2

    done = client.post(path, json={"status": "delivered", "since": ahead(-2)})
    assert json.loads(done.data) == {"count": 3, "next": None}
    assert json.loads(client.post(path, json={"until": ahead(-1)}).data)["count"] == 0
    assert_problem(client.post(path, json={"cursor": "x"}), 400, "malformed")
    assert_problem(client.post(path, json={"status": "lost"}), 422, "invalid-fields")
    deliver(runtime)
    assert len(receiver.heard) == 1 + 3 + 1 + 3


def test_pages_of_deliveries_follow_each_other(client: FlaskClient, receiver: Receiver) -> None:
    new = made(client, receiver.url)
    try_out(client, new["id"])
    faxes = [json.loads(send(client).data)["id"] for _ in range(5)]
    path, seen, cursor = f"/webhooks/{new['id']}/deliveries?limit=2", [], None
    while True:
        page = read(client, path + (f"&cursor={cursor}" if cursor else ""))
        seen += [item["fax_id"] for item in page["items"]]
        if (cursor := page["next"]) is None:
            break
    assert seen == faxes[::-1]
    assert len(read(client, f"{path}&fax_id={faxes[0]}")["items"]) == 1
    assert read(client, f"{path}&status=dead")["items"] == []
    assert_problem(client.get(f"{path}&cursor=1"), 400, "malformed")
    assert_problem(client.get(f"{path}&fax_id=%00"), 422, "invalid-fields")
    for odd in ("%00", "x" * 300, "é"):
        assert_problem(client.get(f"/webhooks/{odd}"), 404, "not-found")
        assert_problem(client.get(f"/webhooks/deliveries/{odd}"), 404, "not-found")


def test_an_account_has_so_many_and_no_more(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "MOST", 2)
    url = "https://hooks.example.org:8080/"
    for _ in range(2):
        made(client, url)
    answer = client.post("/webhooks", json={"name": "third", "url": url})
    assert_problem(answer, 422, "invalid-fields")


def test_a_test_of_one_that_was_changed_meanwhile_activates_nothing(
    client: FlaskClient, runtime: Runtime, receiver: Receiver
) -> None:
    new = made(client, receiver.url)

    def change(_heard: Any) -> int:
        other = client_of(runtime, new_key(runtime, "webhooks:manage"))
        url = "https://hooks.example.org:8080/"
        assert other.patch(f"/webhooks/{new['id']}", json={"url": url}).status_code == 200
        return 200

    receiver.does = change
    said = try_out(client, new["id"])
    assert (said["ok"], said["activated"], said["webhook"]["state"]) == (True, False, "pending")


def test_what_a_failed_test_was_is_in_the_audit_trail(
    client: FlaskClient, runtime: Runtime, receiver: Receiver
) -> None:
    receiver.does = lambda _: 500
    new = made(client, receiver.url)
    try_out(client, new["id"])
    events = table(AuditEvent)
    query = sa.select(events).where(events.c.action == str(Action.WEBHOOK_TESTED))
    (row,) = runtime.database.rows(query, {})
    assert (row.object_id, row.outcome) == (new["id"], audit.FAILED)
    assert row.details == {"outcome": "status", "code": 500, "activated": False}
    assert hook(runtime, new["id"]).state == "pending"
