"""What holds for every route: who may use it, the headers of its answers, and what its health says."""

from __future__ import annotations

import json

import pytest
from flask.testing import FlaskClient

from faxbot import actors, identity, wiring
from faxbot.runtime import Runtime
from faxbot.web import auth, schemas
from faxbot.web.app import create_app
from faxbot.web.auth import OR_HERE, WITHOUT_KEY, scope_of
from tests.installation import Installation
from tests.integration.console import CONSOLE
from tests.integration.web import (
    ACCESS,
    SECRET,
    assert_problem,
    client_of,
    new_key,
    send,
)

GUARDED = sorted(route for route, access in ACCESS.items() if access not in WITHOUT_KEY)


@pytest.fixture
def store(embedded: Installation) -> Installation:
    """Nothing here depends on the kind of database."""
    return embedded


def test_every_route_states_who_may_use_it(runtime: Runtime) -> None:
    app = create_app(runtime)
    access = auth.access_of(app)
    routes = {
        f"{method} {rule.rule}": access[rule.endpoint]
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD"}
    }

    assert routes == ACCESS | CONSOLE


def test_a_route_that_states_nothing_is_found(runtime: Runtime) -> None:
    app = create_app(runtime)
    app.add_url_rule("/forgotten", view_func=lambda: "everything")

    with pytest.raises(LookupError, match="/forgotten"):
        auth.access_of(app)


@pytest.mark.parametrize("route", GUARDED)
def test_a_guarded_route_asks_for_a_key(runtime: Runtime, route: str) -> None:
    method, path = route.split()
    # From here some need no key (test_metrics).
    elsewhere = {"REMOTE_ADDR": "192.0.2.7"} if ACCESS[route].endswith(OR_HERE) else None
    path = path.replace("<fax_id>", "0" * 32)
    response = client_of(runtime).open(path, method=method, environ_overrides=elsewhere)
    problem = assert_problem(response, 401, "unauthenticated")

    assert problem["detail"].startswith("An API key is needed: ")
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("route", GUARDED)
def test_a_guarded_route_asks_for_its_scope(runtime: Runtime, route: str) -> None:
    method, path = route.split()
    scope = scope_of(ACCESS[route])
    others = {"fax:send", "fax:read", "metrics"} - {scope}
    client = client_of(runtime, new_key(runtime, *others))
    response = client.open(path.replace("<fax_id>", "0" * 32), method=method)

    assert scope in assert_problem(response, 403, "forbidden")["detail"]


def test_a_key_is_taken_from_either_header(runtime: Runtime) -> None:
    key, client = new_key(runtime), client_of(runtime)

    for headers in (
        {"X-API-Key": key},
        {"Authorization": f"Bearer {key}"},
        {"Authorization": f"bearer {key}"},
    ):
        assert client.get("/fax", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": ""},
        {"X-API-Key": "fbk_live_000000000000_" + "x" * 43},
        {"X-API-Key": "caf\u00e9"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic dXNlcjpwYXNz"},
        {"Authorization": "fbk_live_000000000000_" + "x" * 43},
    ],
)
def test_what_is_not_a_key_is_refused(runtime: Runtime, headers: dict[str, str]) -> None:
    assert_problem(client_of(runtime).get("/fax", headers=headers), 401, "unauthenticated")


def test_a_revoked_key_is_refused_at_once(runtime: Runtime) -> None:
    key = new_key(runtime)
    client = client_of(runtime, key)
    assert client.get("/fax").status_code == 200
    with runtime.database.transaction() as session:
        identity.revoke_key(session, key.split("_")[2], runtime.now())

    assert_problem(client.get("/fax"), 401, "unauthenticated")


def test_without_required_keys_faxes_may_be_sent_and_read(store: Installation) -> None:
    runtime = wiring.build(store.config(SIMULATOR_SECRET=SECRET, REQUIRE_API_KEY="false"))
    try:
        client = client_of(runtime)

        assert send(client).status_code == 202
        assert len(json.loads(client.get("/fax").data)["items"]) == 1
    finally:
        runtime.close()


# Headers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/health", "/fax", "/nowhere", "/docs", "/openapi.json"])
def test_every_answer_is_guarded_against_curious_browsers(client: FlaskClient, path: str) -> None:
    headers = client.get(path).headers

    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == (
        "no-cache" if path in ("/docs", "/openapi.json") else "no-store"
    )


@pytest.mark.parametrize("kept", ["0193f2c4-a1b2-7c3d-8e4f-5a6b7c8d9e0f", "4BF92F3577B34DA6"])
def test_a_request_id_is_given_and_a_sane_one_is_kept(client: FlaskClient, kept: str) -> None:
    given_ids = [client.get("/health").headers["X-Request-Id"] for _ in range(2)]

    assert given_ids[0] != given_ids[1]
    assert client.get("/health", headers={"X-Request-Id": kept}).headers["X-Request-Id"] == kept


@pytest.mark.parametrize(
    "foreign",
    [
        "+15550100000", "15550100000", "0000015550100000", "a1b2c3d4", "a1" * 33, "Jane Doe was here again",
        "Wolfgang-Amadeus-Mozart", "deadbeef-dead-beef",
    ],
)  # fmt: skip
def test_a_request_id_that_could_be_a_number_or_a_name_is_replaced(
    client: FlaskClient, foreign: str
) -> None:
    assert (
        client.get("/health", headers={"X-Request-Id": foreign}).headers["X-Request-Id"] != foreign
    )


# Health -------------------------------------------------------------------------------------------


def test_health_is_open_and_ready_names_what_is_away(runtime: Runtime) -> None:
    client = client_of(runtime)
    ready = client.get("/health/ready")
    state = json.loads(ready.data)

    assert json.loads(client.get("/health").data) == {"status": "ok"}
    assert ready.status_code == 503
    assert schemas.Readiness().validate(state) == {}
    assert state["parts"]["broker"]["ok"] is False
    assert state["parts"]["database"]["ok"] is True


def test_there_is_no_scope_that_no_route_asks_for() -> None:
    asked = {scope_of(access) for access in ACCESS.values()}

    assert set(actors.SCOPES) - asked == {"*"}
