"""What an administrator sees of plugins and callbacks over HTTP: everything but secrets and content."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from faxbot import callbacks, guard, settings, wiring
from faxbot.config import Config
from faxbot.models import Callback
from faxbot.plugins import registry
from faxbot.runtime import Runtime
from faxbot.web import schemas
from tests.installation import Installation
from tests.integration.web import SECRET, assert_problem, client_of, new_key

PASSWORD = "open-sesame-0123"
TOKEN = "phaxio-callback-token"
SETTINGS = {
    "SIMULATOR_SECRET": SECRET,
    "PHAXIO_API_KEY": "phaxio-key",
    "PHAXIO_API_SECRET": "phaxio-secret",
    "PHAXIO_CALLBACK_TOKEN": TOKEN,
    "SINCH_PROJECT_ID": "project",
    "SINCH_WEBHOOK_BASIC_USER": "hook",
    "SINCH_WEBHOOK_BASIC_PASS": PASSWORD,
    "PUBLIC_API_URL": "https://fax.example.org",
    "DOCS_BASE_URL": "https://docs.example.org/faxbot",
}
HIDDEN = (SECRET, "phaxio-key", "phaxio-secret", TOKEN, PASSWORD)


@pytest.fixture
def config(store: Installation) -> Config:
    return store.config(**SETTINGS)


@pytest.fixture
def admin(runtime: Runtime) -> FlaskClient:
    return client_of(runtime, new_key(runtime, "admin"))


def asked(client: FlaskClient, path: str, **body: Any) -> Any:
    answer = client.post(path, json=body) if body else client.get(path)
    assert answer.status_code == 200, answer.data
    assert not [secret for secret in HIDDEN if secret in answer.get_data(as_text=True)]
    return json.loads(answer.data)


def of(items: list[dict[str, Any]], plugin_id: str, key: str = "id") -> dict[str, Any]:
    (found,) = (each for each in items if each[key] == plugin_id)
    return found


def test_every_plugin_is_listed_with_where_it_comes_from_and_what_it_may(
    admin: FlaskClient,
) -> None:
    found = asked(admin, "/plugins")

    assert not schemas.Plugins().validate(found)
    phaxio, simulator = of(found["items"], "phaxio"), of(found["items"], "simulator")
    assert (phaxio["package"], phaxio["allowed_hosts"]) == ("faxbot", ["api.phaxio.com"])
    assert phaxio["learn_more"] == "https://docs.example.org/faxbot/providers/phaxio"
    assert (phaxio["active"], simulator["active"]) == (False, True)
    folder = Path(wiring.__file__).parent / "providers" / "phaxio"
    assert phaxio["sha256"] == registry.digest(folder / "__init__.py")


def test_settings_are_shown_with_their_source_and_secrets_are_masked(admin: FlaskClient) -> None:
    found = asked(admin, "/plugins/phaxio/config")

    assert not schemas.PluginConfig().validate(found)
    token = of(found["settings"], "callbackToken", "key")
    base = of(found["settings"], "baseUrl", "key")
    caller = of(found["settings"], "callerId", "key")
    assert (token["value"], token["source"], token["secret"]) == ("********", "env", True)
    assert (base["value"], base["source"]) == ("https://api.phaxio.com/v2.1", "default")
    assert (caller["value"], caller["source"]) == (None, "unset")
    assert token["variables"] == ["PHAXIO_CALLBACK_TOKEN"]


def test_what_was_just_saved_is_shown_by_every_process(
    runtime: Runtime, admin: FlaskClient, store: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "LOOK_EVERY", 3600.0)
    with closing(wiring.build(store.config(**SETTINGS))) as another:
        elsewhere = client_of(another, new_key(runtime, "admin"))
        asked(elsewhere, "/plugins/phaxio/config")
        saved = {"settings": {"callerId": "+15550100001"}, "note": "a test", "untested": True}
        assert admin.put("/plugins/phaxio/config", json=saved).status_code == 200
        activates = {"slot": "inbound", "note": "a test", "untested": True}
        assert admin.post("/admin/providers/phaxio/activate", json=activates).status_code == 200

        caller = of(asked(elsewhere, "/plugins/phaxio/config")["settings"], "callerId", "key")
        assert caller["source"] == "db"
        assert "inbound" in of(asked(elsewhere, "/plugins")["items"], "phaxio")["slots"]
        assert "inbound" in of(asked(elsewhere, "/admin/providers")["items"], "phaxio")["slots"]


def test_what_is_wrong_with_settings_is_said_by_variable(
    store: Installation,
) -> None:
    runtime = wiring.build(store.config(SINCH_PROJECT_ID="project"))
    found = asked(client_of(runtime, new_key(runtime, "admin")), "/plugins/sinch/config")
    runtime.close()

    assert "SINCH_WEBHOOK_BASIC_USER is not set" in found["fault"]
    project = of(found["settings"], "projectId", "key")
    assert (project["value"], project["source"]) == ("project", "env")


@pytest.mark.parametrize("path", ["/plugins/none/config", "/plugins/..%2f/config"])
def test_a_plugin_that_is_not_there_is_not_found(admin: FlaskClient, path: str) -> None:
    assert_problem(admin.get(path), 404, "not-found")


def test_the_active_ones_are_asked_whether_they_work(admin: FlaskClient) -> None:
    found = asked(admin, "/plugins/health")

    assert not schemas.PluginsHealth().validate(found)
    assert {each["id"]: each["ok"] for each in found["items"]} == {
        "simulator": False,
        "local": True,
    }
    assert "SIMULATOR_BASE_URL" in of(found["items"], "simulator")["detail"]


def test_a_disabled_one_says_so_and_is_enabled_with_a_reason(
    admin: FlaskClient, runtime: Runtime
) -> None:
    for _ in range(5):
        guard.failed(runtime, "default", "simulator", KeyError("x"))
    assert of(asked(admin, "/plugins")["items"], "simulator")["disabled"]
    assert admin.post("/plugins/simulator/enable", json={}).status_code == 422

    enabled = asked(admin, "/plugins/simulator/enable", note="1.0.1 is installed")

    assert not schemas.Plugin().validate(enabled)
    assert not enabled["disabled"]
    history = asked(admin, "/admin/providers/simulator")["history"]
    assert (history[0]["type"], history[0]["note"]) == ("PLUGIN_ENABLED", "1.0.1 is installed")


def test_the_registry_is_read_by_category_and_by_what_fits_hipaa(admin: FlaskClient) -> None:
    found = asked(admin, "/plugin-registry")
    assert not schemas.PluginRegistry().validate(found)
    assert not found["closed"]
    assert of(found["items"], "sinch")["installed"] == "1.0.0"

    narrow = asked(admin, "/plugin-registry?category=outbound&hipaa_only=true")
    assert [each["id"] for each in narrow["items"]] == ["asterisk", "phaxio", "sinch"]


def test_an_installations_own_registry_keeps_the_others_out(
    store: Installation, tmp_path: Path
) -> None:
    file = tmp_path / "registry.json"
    only = [
        {"id": "simulator", "name": "Simulator", "package": "faxbot"},
        {"id": "local", "name": "Local", "package": "faxbot", "sha256": "0" * 64},
    ]
    file.write_text(json.dumps({"plugins": only}))
    runtime = wiring.build(store.config(**SETTINGS, FAXBOT_PLUGIN_REGISTRY=str(file)))
    found = asked(client_of(runtime, new_key(runtime, "admin")), "/plugins")
    runtime.close()

    assert [each["id"] for each in found["items"]] == ["simulator"]
    reasons = {each["id"]: each["reason"] for each in found["broken"]}
    assert set(reasons) == {"asterisk", "email", "local", "oidc", "phaxio", "s3", "sinch"}
    assert "sha256" in reasons["local"]


# Callbacks ----------------------------------------------------------------------------------------


def phaxio_proof(url: str, name: str, value: str) -> str:
    message = url + name + value
    return hmac.new(TOKEN.encode(), message.encode(), hashlib.sha1).hexdigest()


def test_what_to_enter_at_each_carrier_is_said_without_a_secret(admin: FlaskClient) -> None:
    found = asked(admin, "/admin/webhooks")

    assert not schemas.CallbackDoors().validate(found)
    phaxio = of(found["items"], "phaxio", "provider_id")
    sinch = of(found["items"], "sinch", "provider_id")
    assert phaxio["addresses"] == ["https://fax.example.org/callbacks/phaxio"]
    assert "X-Phaxio-Signature" in phaxio["proof"]
    assert sinch["addresses"] == ["https://NAME:PASSWORD@fax.example.org/callbacks/sinch"]
    assert "SINCH_WEBHOOK_BASIC_PASS" in sinch["proof"]


def test_what_came_and_what_was_refused_is_counted_without_content(
    admin: FlaskClient, runtime: Runtime
) -> None:
    at = str(int(time.time()))
    body = b'{"fax": {"id": "x", "status": "delivered", "to": "+15550100000"}}'
    proof = hmac.new(SECRET.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    signed = {"X-Simulator-Signature": f"t={at},v1={proof}"}
    client = client_of(runtime)
    assert client.post("/callbacks/simulator", data=body, headers=signed).status_code == 200
    for _ in range(3):
        assert client.post("/callbacks/simulator", data=b"Jane Doe").status_code == 401
    url = "/callbacks/simulator?attempt=fb0&token=x"
    assert client.post(url, data=body, headers=signed).status_code == 401

    simulator = of(asked(admin, "/admin/webhooks")["items"], "simulator", "provider_id")

    assert simulator["lately"] == {"waiting": 1}
    assert {each["reason"]: each["count"] for each in simulator["refused"]} == {
        callbacks.NOT_PROVEN: 3,
        callbacks.NO_TOKEN: 1,
    }
    (kept,) = simulator["latest"]
    assert set(kept) == {"id", "received_at", "applied_at", "outcome"}


def test_of_many_callbacks_the_last_hundred_are_shown_the_newest_first(
    admin: FlaskClient, runtime: Runtime
) -> None:
    now, minute = runtime.now(), timedelta(minutes=1)
    with runtime.database.transaction() as session:
        session.add_all(
            Callback(
                id=f"{age:032}",
                provider_id="simulator",
                key=f"{age:064}",
                raw_sealed=b"Jane Doe",
                received_at=now - age * minute,
                tries=0,
            )
            for age in range(103)
        )

    simulator = of(asked(admin, "/admin/webhooks")["items"], "simulator", "provider_id")

    assert [int(each["id"]) for each in simulator["latest"]] == list(range(100))
    assert simulator["lately"] == {"waiting": 103}


@pytest.mark.parametrize("path", ["/phaxio-callback", "/phaxio-inbound", "/inbound/callback"])
def test_an_earlier_faxbots_addresses_take_phaxios_callbacks(
    admin: FlaskClient, runtime: Runtime, path: str
) -> None:
    client = client_of(runtime)
    url, fax = f"https://fax.example.org{path}", '{"id":1,"status":"success"}'
    proof = {"X-Phaxio-Signature": phaxio_proof(url, "fax", fax)}

    assert client.post(path, data={"fax": fax}, headers=proof).status_code == 200
    assert client.post(path, data={"fax": fax + " "}, headers=proof).status_code == 401
    assert client.post(path, data={"fax": fax}).status_code == 401
    found = of(asked(admin, "/admin/webhooks")["items"], "phaxio", "provider_id")
    assert found["lately"] == {"waiting": 1}
    # What comes to the common address without any proof is nobody's.
    assert found["refused"][0]["count"] == (1 if path == "/inbound/callback" else 2)


@pytest.mark.parametrize("path", ["/sinch-inbound", "/inbound/callback"])
def test_an_earlier_faxbots_addresses_take_sinchs_callbacks(
    admin: FlaskClient, runtime: Runtime, path: str
) -> None:
    client = client_of(runtime)
    body = {"event": "INCOMING_FAX", "fax": {"id": "x", "direction": "INBOUND"}}
    good = base64.b64encode(f"hook:{PASSWORD}".encode()).decode()
    bad = base64.b64encode(b"hook:wrong-wrong").decode()

    for credentials, status in ((good, 200), (bad, 401), ("", 401)):
        headers = {"Authorization": f"Basic {credentials}"}
        answer = client.post(path, json=body, headers=headers)
        assert answer.status_code == status
        # Credentials in an address are sent by many clients only when they are asked for.
        challenge = answer.headers.get("WWW-Authenticate", "")
        assert challenge.startswith("Basic " if status == 401 else "")
    found = of(asked(admin, "/admin/webhooks")["items"], "sinch", "provider_id")
    assert found["lately"] == {"waiting": 1}
    assert found["refused"][0]["count"] == 2
