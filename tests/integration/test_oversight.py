"""What operators see of the providers and do to them, over HTTP and from the command line."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient

from faxbot import followup, oversight
from faxbot.actors import Actor
from faxbot.errors import InvalidFields, NotFound, OutcomeUnknown, Refused, Unreachable
from faxbot.plugins.base import Health, State, Update
from faxbot.runtime import Runtime
from faxbot.web import schemas
from tests.installation import Installation
from tests.integration.command import run
from tests.integration.odd import answers, raises
from tests.integration.site import ACTOR, Site
from tests.integration.web import NUMBER, TEXT, client_of, new_key
from tests.servers import free_port

NOTE = {"note": "the carrier works on its lines"}


@pytest.fixture
def admin(runtime: Runtime) -> FlaskClient:
    return client_of(runtime, new_key(runtime, "admin"))


def asked(client: FlaskClient, method: str, path: str, **body: Any) -> Any:
    answer = client.open(path, method=method, json=body or None)
    assert answer.status_code == 200, answer.data
    return json.loads(answer.data)


def test_every_provider_is_listed_as_it_stands(admin: FlaskClient) -> None:
    items = asked(admin, "GET", "/admin/providers")["items"]
    (found,) = (each for each in items if each["active"])

    assert not any(schemas.Provider().validate(each) for each in items)
    assert {each["id"] for each in items} == {"asterisk", "simulator", "phaxio", "sinch"}
    assert (found["id"], found["state"]) == ("simulator", "closed")
    assert found["calls"] == {"ok": 0, "fault": 0, "slow": 0}
    assert "status_lookup" in found["traits"]


def test_a_pause_and_its_end_are_in_the_history_with_reason_actor_and_time(
    admin: FlaskClient,
) -> None:
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    paused = asked(admin, "POST", "/admin/providers/simulator/pause", **NOTE, until=until)
    assert (paused["state"], paused["reason"]) == ("paused", "paused")
    resumed = asked(admin, "POST", "/admin/providers/simulator/resume", note="they are done")
    assert resumed == asked(admin, "GET", "/admin/providers/simulator")

    assert not schemas.ProviderDetail().validate(resumed)
    assert resumed["state"] == "closed"
    newest, first = resumed["history"]
    assert (newest["type"], newest["note"]) == ("PROVIDER_RESUMED", "they are done")
    assert (first["type"], first["note"]) == ("PROVIDER_PAUSED", NOTE["note"])
    assert datetime.fromisoformat(first["expires_at"]) == datetime.fromisoformat(until)
    assert first["actor"] == newest["actor"] != ""


@pytest.mark.parametrize(
    ("deed", "body", "field"),
    [
        ("pause", {}, "note"),
        ("resume", {"note": ""}, "note"),
        ("reset", {"note": "a\nb"}, "note"),
        ("reset", {"note": "x" * 256}, "note"),
        ("pause", {**NOTE, "until": "2001-01-01T00:00:00Z"}, "until"),
        ("pause", {**NOTE, "until": "tomorrow"}, "until"),
        ("resume", {**NOTE, "until": "2999-01-01T00:00:00Z"}, "unknown"),
    ],
)
def test_bad_input_is_named_and_changes_nothing(
    admin: FlaskClient, deed: str, body: dict[str, str], field: str
) -> None:
    answer = admin.post(f"/admin/providers/simulator/{deed}", json=body)

    assert answer.status_code == 422
    assert field in json.loads(answer.data)["errors"]
    assert asked(admin, "GET", "/admin/providers/simulator")["history"] == []


@pytest.mark.parametrize("unknown", ["nobody", "local"])
def test_what_is_no_provider_is_not_found(admin: FlaskClient, unknown: str) -> None:
    for method, deed in (("GET", ""), ("POST", "/pause"), ("POST", "/test")):
        answer = admin.open(f"/admin/providers/{unknown}{deed}", method=method, json=NOTE)
        assert answer.status_code == 404


def test_a_key_without_the_scope_is_refused(client: FlaskClient) -> None:
    assert client.post("/admin/providers/simulator/pause", json=NOTE).status_code == 403


def test_faxes_are_taken_while_a_provider_is_paused(admin: FlaskClient, runtime: Runtime) -> None:
    sender = client_of(runtime, new_key(runtime))
    asked(admin, "POST", "/admin/providers/simulator/pause", **NOTE)
    answer = sender.post("/fax/send", data={"to": NUMBER, "file": (io.BytesIO(TEXT), "a.txt")})

    assert answer.status_code == 202


def test_calls_and_state_are_those_of_the_ledger(site: Site) -> None:
    site.sent()
    site.odd.does["send"] = raises(Unreachable())
    for _ in range(4):
        site.sent()
    found = oversight.provider(site.runtime, ACTOR, "simulator")

    assert found["calls"] == {"ok": 1, "fault": 4, "slow": 0}
    assert found["newest"] == ["ok", "fault", "fault", "fault", "fault"]
    assert (found["state"], found["reason"]) == ("open", "provider_failing")
    assert found["degraded_at"] is not None
    waiting = site.sent()
    assert site.job(waiting).status == "held"
    site.odd.does.clear()
    oversight.change(site.runtime, ACTOR, "simulator", "reset", note="mended")
    site.after(0)
    assert site.job(waiting).status == "sent", "all that were held go at once"
    assert oversight.provider(site.runtime, ACTOR, "simulator")["state"] == "closed"


def test_an_account_sees_and_changes_its_own(site: Site) -> None:
    other = Actor("other", "k", frozenset({"*"}))
    oversight.change(site.runtime, other, "simulator", "pause", note="x")

    assert oversight.provider(site.runtime, ACTOR, "simulator")["history"] == []
    assert site.job(site.sent()).status == "sent"


@pytest.mark.parametrize("year", [3000, 9999])
def test_a_pause_ends_at_a_time_that_every_database_can_tell(site: Site, year: int) -> None:
    until = datetime(year, 12, 31, 23, 59, 59, tzinfo=UTC)
    with pytest.raises(InvalidFields):
        oversight.change(site.runtime, ACTOR, "simulator", "pause", note="x", until=until)

    assert site.job(site.sent()).status == "sent"


def test_a_connection_is_tried_and_what_is_wrong_is_said(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert oversight.try_connection(site.runtime, ACTOR, "simulator")["ok"] is True
    monkeypatch.setattr(site.odd, "health", lambda: Health(False, "The carrier is away."))
    wrong = {"ok": False, "detail": "The carrier is away."}
    assert oversight.try_connection(site.runtime, ACTOR, "simulator") == wrong

    def fail() -> Health:
        raise ValueError("+15550101234")

    monkeypatch.setattr(site.odd, "health", fail)
    wrong = {"ok": False, "detail": "The plugin failed (ValueError)."}
    assert oversight.try_connection(site.runtime, ACTOR, "simulator") == wrong
    for nonsense in (None, True, "fine", Health("yes", b"?")):  # type: ignore[arg-type]
        monkeypatch.setattr(site.odd, "health", lambda said=nonsense: said)
        wrong = {"ok": False, "detail": "The plugin does not say how it is."}
        assert oversight.try_connection(site.runtime, ACTOR, "simulator") == wrong
    with pytest.raises(NotFound):
        oversight.try_connection(site.runtime, ACTOR, "nobody")
    with pytest.raises(InvalidFields):
        oversight.change(site.runtime, ACTOR, "simulator", "pause", note="")


def test_the_command_shows_and_changes_the_same(store: Installation) -> None:
    assert "closed" in run(store, "providers", "list").out
    words = ("providers", "pause", "simulator", "--note", "maintenance")
    paused = run(store, *words, "--until", "2099-01-01T00:00:00Z", "--json").json
    assert (paused["state"], paused["rests_until"]) == ("paused", "2099-01-01T00:00:00Z")

    shown = run(store, "providers", "show", "simulator").out
    assert "PROVIDER_PAUSED    cli            maintenance: until 2099-01-01T00:00:00Z" in shown
    resumed = run(store, "providers", "resume", "simulator", "--note", "done").out
    assert "closed" in resumed
    assert run(store, "providers", "reset", "simulator", "--note", "done").code == 0
    assert run(store, "providers", "resume", "nobody", "--note", "x").code == 1
    assert run(store, "providers", "pause", "simulator").code == 2
    nowhere = {"SIMULATOR_SECRET": "s", "SIMULATOR_BASE_URL": f"http://127.0.0.1:{free_port()}"}
    tried = run(store, "providers", "test", "simulator", **nowhere)
    assert tried.code == 1, "no carrier runs here"
    assert "faxbot carrier simulator" in tried.out


def test_causes_that_no_list_has_are_counted_and_logged_without_a_word_of_the_carrier(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    said = "subscriber 15550100199 hung up"
    deeds: list[tuple[str, Any]] = [
        ("send", raises(Refused(cause=said))),
        ("send", raises(OutcomeUnknown(cause=said))),
        ("fetch", answers(Update(State.FAILED, cause=said))),
    ]
    for name, deed in deeds:
        site.odd.does = {name: deed}
        job_id = site.sent("0044")
        if name == "fetch":
            site.now += timedelta(seconds=site.wait_of(job_id))
            followup.poll(site.runtime, job_id)
        assert site.attempt(job_id).cause == "unknown"
    site.odd.does = {}
    site.sent("0044")

    (found,) = oversight.providers(site.runtime, ACTOR)
    assert found["not_understood"] == len(deeds)
    lines = [record for record in caplog.records if record.msg == "a cause that no list has"]
    assert len(lines) == len(deeds)
    assert said not in repr([record.__dict__ for record in lines])
    site.now += timedelta(days=1, seconds=1)
    (found,) = oversight.providers(site.runtime, ACTOR)
    assert found["not_understood"] == 0
