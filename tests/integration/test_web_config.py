"""/admin/config and /admin/features: what an administrator sees and changes; no secret in any answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask.testing import FlaskClient
from marshmallow import Schema
from werkzeug.test import TestResponse

from faxbot import configuration
from faxbot.actors import CLI
from faxbot.config import OPTIONS as ALL_OPTIONS
from faxbot.config import Config
from faxbot.plugins.manifest import MASK
from faxbot.runtime import Runtime
from faxbot.web import config_schemas
from tests.installation import Installation
from tests.integration.test_configuration import NOTE, NOWHERE
from tests.integration.test_settings import statements
from tests.integration.web import SECRET, assert_problem, client_of, new_key, send

HIDDEN = "very-secret"


@pytest.fixture
def config(store: Installation) -> Config:
    return store.config(SIMULATOR_SECRET=SECRET, FAX_HEADER="theirs")


@pytest.fixture
def admin(runtime: Runtime) -> FlaskClient:
    return client_of(runtime, new_key(runtime, "admin"))


def answer(response: TestResponse, schema: type[Schema]) -> dict[str, Any]:
    assert response.status_code == 200, response.data
    assert HIDDEN not in response.get_data(as_text=True)
    found: dict[str, Any] = json.loads(response.data)
    assert schema().validate(found) == {}
    return found


def state(admin: FlaskClient) -> dict[str, Any]:
    return answer(admin.get("/admin/config"), config_schemas.ConfigState)


def patched(admin: FlaskClient, settings: dict[str, Any], **more: Any) -> TestResponse:
    return admin.patch("/admin/config", json={"settings": settings, "note": NOTE, **more})


def test_every_option_is_shown_with_its_origin(admin: FlaskClient) -> None:
    found = state(admin)
    assert [each["name"] for each in found["items"]] == [option.name for option in ALL_OPTIONS]
    assert (found["using_environment"], found["notice"]) == (True, configuration.USING_ENVIRONMENT)
    by_name = {each["name"]: each for each in found["items"]}
    assert (by_name["FAX_HEADER"]["value"], by_name["FAX_HEADER"]["source"]) == ("theirs", "env")
    assert by_name["DATABASE_URL"]["value"] in ("", MASK)
    assert "environment" not in str(by_name["FAX_HEADER"]["fixed"])
    assert by_name["DATABASE_URL"]["fixed"]


def test_a_change_holds_at_once_here_and_a_false_value_is_one(admin: FlaskClient) -> None:
    found = answer(
        patched(admin, {"FAX_HEADER": "", "FAXBOT_MAX_DOCUMENTS": 1, "FAX_DISABLED": False}),
        config_schemas.ConfigState,
    )
    by_name = {each["name"]: each for each in found["items"]}
    assert (by_name["FAX_HEADER"]["value"], by_name["FAX_HEADER"]["source"]) == ("", "db")
    assert (by_name["FAX_DISABLED"]["value"], by_name["FAX_DISABLED"]["source"]) == (False, "db")
    assert (found["version"], found["using_environment"], found["notice"]) == (1, False, None)
    refused = send(client_of_same(admin), b"one", b"two")
    assert "FAXBOT_MAX_DOCUMENTS" in str(assert_problem(refused, 422, "invalid-fields")["errors"])


def client_of_same(admin: FlaskClient) -> FlaskClient:
    """Another client of the same process, that may send."""
    runtime: Runtime = admin.application.extensions["faxbot"]
    client = admin.application.test_client()
    client.environ_base["HTTP_X_API_KEY"] = new_key(runtime)
    return client


def test_who_read_another_version_is_told_so(admin: FlaskClient) -> None:
    assert patched(admin, {"FAX_HEADER": "one"}, version=0).status_code == 200
    assert_problem(patched(admin, {"FAX_HEADER": "two"}, version=0), 409, "changed-meanwhile")
    features = {"features": {"fax_disabled": True}, "note": NOTE, "version": 0}
    assert_problem(admin.patch("/admin/features", json=features), 409, "changed-meanwhile")
    assert patched(admin, {"FAX_HEADER": "two"}, version=1).status_code == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"settings": {"FAXBOT_MAX_PAGES": 0}, "note": NOTE}, "FAXBOT_MAX_PAGES"),
        ({"settings": {"FAX_HEDER": "Jane Doe"}, "note": NOTE}, "FAX_HEADER"),
        ({"settings": {"patient": "Jane Doe"}, "note": NOTE}, "options"),
        ({"settings": {"DATABASE_URL": "sqlite:////x"}, "note": NOTE}, "DATABASE_URL"),
        ({"settings": {"phaxio.apiKey": 1}, "note": NOTE, "untested": True}, "phaxio"),
        ({"settings": {}, "note": NOTE}, "settings"),
        ({"settings": ["x"], "note": NOTE}, "settings"),
        ({"settings": {"FAX_HEADER": "x"}}, "note"),
        ({"settings": {"FAX_HEADER": "x"}, "note": ""}, "note"),
        ({"settings": {"FAX_HEADER": "x"}, "note": NOTE, "version": -1}, "version"),
        ({"settings": {"FAX_HEADER": "x"}, "note": NOTE, "version": "1"}, "version"),
    ],
)
def test_what_is_not_valid_is_named_and_not_repeated(
    admin: FlaskClient, body: dict[str, Any], field: str
) -> None:
    problem = assert_problem(admin.patch("/admin/config", json=body), 422, "invalid-fields")
    assert field in problem["errors"]
    assert "Jane" not in json.dumps(problem)
    assert state(admin)["version"] == 0


def test_a_plugin_is_asked_first(admin: FlaskClient) -> None:
    wish = {"phaxio.apiKey": "k", "phaxio.apiSecret": HIDDEN, "phaxio.baseUrl": NOWHERE}
    assert_problem(patched(admin, wish), 409, "change-refused")
    found = answer(patched(admin, wish, untested=True), config_schemas.ConfigState)
    assert {"name": "phaxio.apiSecret", "value": MASK} in found["plugins"]


def test_versions_are_listed_named_and_gone_back_to(admin: FlaskClient) -> None:
    for header in ("one", "two"):
        patched(admin, {"FAX_HEADER": header})
    kept = admin.post("/admin/config/backups", json={"note": "before the move"})
    assert answer(kept, config_schemas.Revision)["backup"] == "before the move"
    items = answer(admin.get("/admin/config/backups"), config_schemas.Revisions)["items"]
    assert [(each["version"], each["current"]) for each in items] == [(2, True), (1, False)]

    for dry_run in (True, False):
        wish = {"version": 1, "note": NOTE, "dry_run": dry_run}
        found = answer(
            admin.post("/admin/config/rollback", json=wish), config_schemas.ConfigChanges
        )
        assert found["changes"] == [{"name": "FAX_HEADER", "was": "two", "becomes": "one"}]
        assert found["version"] == (2 if dry_run else 3)
    gone = admin.post("/admin/config/rollback", json={"version": 99, "note": NOTE})
    assert_problem(gone, 404, "not-found")


def test_an_export_comes_back_and_secrets_are_for_whoever_has_every_scope(
    admin: FlaskClient, runtime: Runtime
) -> None:
    patched(admin, {"FAX_HEADER": "one", "simulator.secret": HIDDEN}, untested=True)
    document = answer(admin.get("/admin/config/export"), config_schemas.ConfigDocument)
    assert_problem(admin.get("/admin/config/export?reveal=true"), 403, "forbidden")
    master = client_of(runtime, new_key(runtime, "*"))
    revealed = master.get("/admin/config/export?reveal=true")
    assert json.loads(revealed.data)["plugins"] == {"simulator": {"secret": HIDDEN}}
    assert revealed.headers["Cache-Control"] == "no-store"

    patched(admin, {"FAX_HEADER": "two"})
    wish = {"document": document, "note": NOTE}
    found = answer(admin.post("/admin/config/import", json=wish), config_schemas.ConfigChanges)
    assert found["changes"] == [{"name": "FAX_HEADER", "was": "two", "becomes": "one"}]
    document["options"]["patientName"] = "Jane Doe"
    problem = assert_problem(admin.post("/admin/config/import", json=wish), 422, "invalid-fields")
    assert "Jane" not in json.dumps(problem)


def test_what_lets_others_in_or_sends_secrets_elsewhere_is_for_whoever_has_every_scope(
    admin: FlaskClient, runtime: Runtime
) -> None:
    """Who may not read faxes does not come to them by leaving the door open, by having carriers call him, or by
    vouching for himself as an administrator."""
    master = client_of(runtime, new_key(runtime, "*"))
    opened, moved = {"REQUIRE_API_KEY": False}, {"PUBLIC_API_URL": "https://elsewhere.example"}
    patched(master, {**opened, **moved})
    document = json.loads(master.get("/admin/config/export").data)
    assert patched(master, dict.fromkeys((*opened, *moved))).status_code == 200
    assert client_of(runtime).get("/fax").status_code == 401

    wish = {"note": NOTE}
    mine = {"issuer": "https://id.example.org", "clientId": "mine"}
    vouched = {**wish, "settings": mine, "untested": True}
    for refused in (
        patched(admin, opened),
        patched(admin, moved),
        patched(admin, {"FAXBOT_IDENTITY_PLUGINS": "oidc"}),
        patched(admin, {"FAXBOT_SIGN_IN_ROLES": "admin=*"}),
        patched(admin, {"FAXBOT_SIGN_IN_CREATES_USERS": True}),
        patched(admin, {f"oidc.{key}": text for key, text in mine.items()}, untested=True),
        admin.put("/plugins/oidc/config", json=vouched),
        admin.patch("/admin/features", json={**wish, "features": {"api_key_required": False}}),
        admin.post("/admin/config/import", json={**wish, "document": document}),
        admin.post("/admin/config/rollback", json={**wish, "version": 1}),
        admin.post("/admin/config/rollback", json={**wish, "version": 1, "dry_run": True}),
    ):
        problem = assert_problem(refused, 403, "forbidden")
        assert "scope *" in str(problem["detail"])
    assert state(admin)["version"] == 2
    answer(patched(admin, {"FAX_HEADER": "ours"}), config_schemas.ConfigState)


def test_flags_are_switched_and_say_what_to_mind(admin: FlaskClient) -> None:
    def flags(response: TestResponse) -> dict[str, Any]:
        return {
            each["feature"]: each for each in answer(response, config_schemas.Features)["items"]
        }

    assert flags(admin.get("/admin/features"))["fax_disabled"]["warns"] is False
    wish: dict[str, Any] = {"features": {"fax_disabled": True}, "note": NOTE}
    assert flags(admin.patch("/admin/features", json=wish))["fax_disabled"]["warns"] is True
    for features in (
        {"plugins_from_outside": False},
        {"nothing": True},
        {"fax_disabled": "true"},
        {},
    ):
        refused = admin.patch("/admin/features", json={**wish, "features": features})
        assert_problem(refused, 422, "invalid-fields")


def test_to_read_settings_costs_a_request_no_query(runtime: Runtime) -> None:
    """Whether something is saved or not, a request asks the database for its key, and for what it is about."""
    client = client_of(runtime, new_key(runtime))
    fax_id = json.loads(send(client).data)["id"]

    def asked() -> list[str]:
        client.get(f"/fax/{fax_id}")  # the settings are read within this one, if they are
        with statements(runtime.database) as heard:
            for _ in range(10):
                assert client.get(f"/fax/{fax_id}").status_code == 200
        return heard

    without = asked()
    wish = {"FAX_HEADER": "x", "simulator.baseUrl": NOWHERE, "simulator.secret": HIDDEN}
    configuration.change(runtime, CLI, wish, note=NOTE, untested=True)
    saved = asked()

    assert len(without) == len(saved) == 20
    assert not [text for text in (*without, *saved) if "config_" in text]
