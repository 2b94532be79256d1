"""What holds for every route: who may use it, the one error body, headers, the OpenAPI document and its page."""

from __future__ import annotations

import html
import json
import logging
import re
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openapi_spec_validator import validate

from faxbot import identity, wiring
from faxbot.config import Config
from faxbot.runtime import Runtime
from faxbot.web import auth, schemas
from faxbot.web.app import JSON_BYTES, create_app
from faxbot.web.auth import OPEN, SIGNATURE
from faxbot.web.problems import PROBLEMS
from tests.installation import Installation
from tests.integration.web import (
    NUMBER,
    SECRET,
    TEXT,
    assert_problem,
    client_of,
    left_behind,
    new_key,
    post,
    send,
)

ACCESS = {
    "POST /fax/send": "fax:send",
    "POST /fax": "fax:send",
    "GET /fax": "fax:read",
    "POST /fax/search": "fax:read",
    "GET /fax/<fax_id>": "fax:read",
    "GET /fax/<fax_id>/events": "fax:read",
    "POST /fax/<fax_id>/cancel": "fax:send",
    "POST /callbacks/<provider_id>": SIGNATURE,
    "GET /health": OPEN,
    "GET /health/ready": OPEN,
    "GET /openapi.json": OPEN,
    "GET /docs": OPEN,
    "GET /static/docs.css": OPEN,
}
"""Who may use which route. A new route is a decision: it is made here too."""
GUARDED = sorted(route for route, access in ACCESS.items() if access not in (OPEN, SIGNATURE))


@pytest.fixture
def store(embedded: Installation) -> Installation:
    """Nothing here depends on the kind of database."""
    return embedded


@pytest.fixture
def config(store: Installation) -> Config:
    return store.config(SIMULATOR_SECRET=SECRET)


@pytest.fixture
def client(runtime: Runtime) -> FlaskClient:
    return client_of(runtime, new_key(runtime))


# Access -------------------------------------------------------------------------------------------


def test_every_route_states_who_may_use_it(runtime: Runtime) -> None:
    app = create_app(runtime)
    access = auth.access_of(app)
    routes = {
        f"{method} {rule.rule}": access[rule.endpoint]
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD"}
    }

    assert routes == ACCESS


def test_a_route_that_states_nothing_is_found(runtime: Runtime) -> None:
    app = create_app(runtime)
    app.add_url_rule("/forgotten", view_func=lambda: "everything")

    with pytest.raises(LookupError, match="/forgotten"):
        auth.access_of(app)


@pytest.mark.parametrize("route", GUARDED)
def test_a_guarded_route_asks_for_a_key(runtime: Runtime, route: str) -> None:
    method, path = route.split()
    response = client_of(runtime).open(path.replace("<fax_id>", "0" * 32), method=method)

    assert_problem(response, 401, "unauthenticated")
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("route", GUARDED)
def test_a_guarded_route_asks_for_its_scope(runtime: Runtime, route: str) -> None:
    method, path = route.split()
    others = {"fax:send", "fax:read", "metrics"} - {ACCESS[route]}
    client = client_of(runtime, new_key(runtime, *others))
    response = client.open(path.replace("<fax_id>", "0" * 32), method=method)

    assert ACCESS[route] in assert_problem(response, 403, "forbidden")["detail"]


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


# Errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "allow"),
    [
        ("GET", "/", 404, "not-found", None),
        ("GET", "/fax/", 404, "not-found", None),
        ("GET", "//fax", 404, "not-found", None),
        ("GET", "/static/../app.py", 404, "not-found", None),
        ("GET", "/fax/+15550100000/x", 404, "not-found", None),
        ("DELETE", "/fax", 405, "method-not-allowed", {"GET", "HEAD", "POST"}),
        ("GET", "/fax/send", 404, "not-found", None),
        ("PUT", "/fax/send", 405, "method-not-allowed", {"GET", "HEAD", "POST"}),
        ("OPTIONS", "/fax", 405, "method-not-allowed", {"GET", "HEAD", "POST"}),
        ("GET", "/callbacks/simulator", 405, "method-not-allowed", {"POST"}),
        ("POST", "/health", 405, "method-not-allowed", {"GET", "HEAD"}),
    ],
)
def test_wrong_addresses_and_methods_have_the_one_error_body(
    client: FlaskClient, method: str, path: str, status: int, code: str, allow: set[str] | None
) -> None:
    response = client.open(path, method=method)

    assert "+15550100000" not in str(assert_problem(response, status, code))
    if allow is not None:
        assert set(response.headers["Allow"].split(", ")) == allow


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"nonsense", b"\xff\xfe", b'{"to": ' + b"9" * 5000 + b"}", b"[" * 50_000,
    ],
    ids=["empty", "open", "words", "not-utf-8", "huge-number", "deep"],
)  # fmt: skip
def test_broken_json_is_malformed(client: FlaskClient, body: bytes) -> None:
    assert_problem(
        client.post("/fax/search", data=body, content_type="application/json"), 400, "malformed"
    )


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], "body"),
        (0, "body"),
        ("text", "body"),
        ({}, "to"),
        ({"to": 15550100000}, "to"),
        ({"to": NUMBER, "limit": "many"}, "limit"),
        ({"to": NUMBER, "tags": ["a"]}, "tags"),
        ({"to": NUMBER, "Jane Doe": 1}, "unknown"),
    ],
    ids=str,
)
def test_json_of_the_wrong_shape_is_named_by_field(
    client: FlaskClient, body: object, field: str
) -> None:
    problem = assert_problem(client.post("/fax/search", json=body), 422, "invalid-fields")

    assert list(problem["errors"]) == [field]
    assert "Jane" not in str(problem)


def test_json_of_another_type_and_too_much_json(client: FlaskClient) -> None:
    assert_problem(
        client.post("/fax/search", data=b"to=1", content_type="text/plain"), 415, "media-type"
    )
    long = b'{"to": "' + b"1" * JSON_BYTES + b'"}'
    assert_problem(
        client.post("/fax/search", data=long, content_type="application/json"),
        413,
        "request-too-large",
    )


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=five", "limit"),
        ("limit=", "limit"),
        ("status=SUCCESS", "status"),
        ("since=yesterday", "since"),
        ("until=2026-11-20T12:00:00", "until"),
        ("to_key=1555", "to_key"),
        ("to=%2B15550100000", "unknown"),
        ("Jane=Doe", "unknown"),
        ("limit=1&limit=2", "query"),
        ("tag=x", "tag"),
        ("tag=x&tag[a]=b", "tag"),
        ("tag[two words]=x", "tag"),
        ("tag[a]=x&tag[a]=y", "query"),
        ("tag[a]=%00", "tag"),
        ("provider_id=%00", "provider_id"),
    ],
)
def test_a_bad_filter_is_named(client: FlaskClient, query: str, field: str) -> None:
    problem = assert_problem(client.get(f"/fax?{query}"), 422, "invalid-fields")

    assert list(problem["errors"]) == [field]
    assert not re.search("Jane|Doe|1555", str(problem["errors"]))


@pytest.mark.parametrize("cursor", ["", "x", "0" * 33, "%00", "' OR 1=1 --"])
def test_a_cursor_that_we_never_gave_is_malformed(client: FlaskClient, cursor: str) -> None:
    assert_problem(client.get("/fax", query_string={"cursor": cursor}), 400, "malformed")


def test_a_fault_of_ours_is_logged_without_what_was_sent(
    client: FlaskClient, runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    runtime.config.spool_dir.write_bytes(b"a file where the folder should be")
    with caplog.at_level(logging.DEBUG):
        problem = assert_problem(send(client, header="Jane Doe"), 500, "internal")
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    facts = record.__dict__

    assert facts["request_id"] == problem["request_id"]
    assert facts["exception"] == "NotADirectoryError"
    assert any(place.startswith("spool.py:") for place in facts["trace"])
    assert not re.search(r"Jane|1555|document", caplog.text + str(facts["trace"]))


@pytest.mark.parametrize("path", ["/fax", "/fax/" + "0" * 32])
def test_a_database_that_is_away_is_503(store: Installation, path: str) -> None:
    away = store.config(
        SIMULATOR_SECRET=SECRET,
        DATABASE_URL="postgresql://nobody@127.0.0.1:1/none",
        API_KEY="the key",
    )
    runtime = wiring.build(away)
    try:
        client = client_of(runtime, "the key")
        answers = [
            client.get(path),
            send(client),
            client_of(runtime, "fbk_live_" + "0" * 12 + "_" + "x" * 43).get(path),
        ]
        left = left_behind(runtime, tables=())
    finally:
        runtime.close()

    for response in answers:
        assert_problem(response, 503, "database-away")
        assert int(response.headers["Retry-After"]) > 0
    assert left == {}


# Headers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/health", "/fax", "/nowhere", "/docs", "/openapi.json"])
def test_every_answer_is_guarded_against_curious_browsers(client: FlaskClient, path: str) -> None:
    headers = client.get(path).headers

    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == (
        "no-cache" if path in ("/docs", "/openapi.json") else "no-store"
    )


def test_a_request_id_is_given_and_a_sane_one_is_kept(client: FlaskClient) -> None:
    given_ids = [client.get("/health").headers["X-Request-Id"] for _ in range(2)]
    kept = "0193f2c4-a1b2-7c3d-8e4f-5a6b7c8d9e0f"

    assert given_ids[0] != given_ids[1]
    assert client.get("/health", headers={"X-Request-Id": kept}).headers["X-Request-Id"] == kept


@pytest.mark.parametrize(
    "foreign", ["+15550100000", "15550100000", "short", "x" * 65, "Jane Doe was here again"]
)
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


# Documentation ------------------------------------------------------------------------------------


@pytest.fixture
def document(client: FlaskClient) -> dict[str, object]:
    found: dict[str, object] = json.loads(client.get("/openapi.json").data)
    return found


def route_of(method: str, path: str) -> str:
    """A documented operation as ACCESS names it."""
    return f"{method.upper()} {path.replace('{', '<').replace('}', '>')}"


def test_the_document_is_valid_and_has_every_route_of_the_api(document: dict[str, object]) -> None:
    validate(document)
    paths: dict[str, dict[str, object]] = document["paths"]  # type: ignore[assignment]
    documented = {
        route_of(method, path)
        for path, item in paths.items()
        for method in item
        if method in ("get", "post")
    }

    assert documented == {route for route in ACCESS if not re.search("openapi|docs", route)}


def test_every_operation_states_its_failures_and_its_security(document: dict[str, object]) -> None:
    for path, item in document["paths"].items():  # type: ignore[attr-defined]
        for method in set(item) & {"get", "post"}:
            operation, access = item[method], ACCESS[route_of(method, path)]
            statuses = set(operation["responses"])

            assert "500" in statuses
            if access not in (OPEN, SIGNATURE):
                assert {"401", "403", "503"} <= statuses
                assert operation["security"] == [{"ApiKey": [access]}, {"Bearer": [access]}]
            for status, answer in operation["responses"].items():
                kind = (
                    "application/problem+json"
                    if status >= "4" and path != "/health/ready"
                    else "application/json"
                )
                if status != "500":
                    assert list(answer["content"]) == [kind]


class Links(HTMLParser):
    """Where a page leads and what it loads, and the ids in it."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.ids: set[str] = set()

    def handle_starttag(self, _tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value is not None:
                self.targets.append(value)
            if name == "id" and value is not None:
                assert value not in self.ids
                self.ids.add(value)


def test_the_page_needs_nothing_from_outside_and_all_its_links_lead_somewhere(
    client: FlaskClient,
) -> None:
    page = Links()
    page.feed(client.get("/docs").get_data(as_text=True))

    assert {target for target in page.targets if not target.startswith(("#", "data:"))} == {
        "/openapi.json",
        "/static/docs.css",
    }
    assert {target[1:] for target in page.targets if target.startswith("#")} <= page.ids
    assert set(PROBLEMS) <= page.ids
    assert client.get("/static/docs.css").status_code == 200


def test_the_page_has_a_command_for_every_operation(client: FlaskClient) -> None:
    page = html.unescape(client.get("/docs").get_data(as_text=True))
    commands = re.findall(r"<pre><code>curl[^<]*?(http://[^<\"]*)", page)

    assert {command.removeprefix("http://127.0.0.1:8080") for command in commands} == {
        route.split()[1].replace("<fax_id>", "$FAX_ID").replace("<", "{").replace(">", "}")
        for route in ACCESS
        if not re.search("openapi|docs", route)
    }


# Anything at all ----------------------------------------------------------------------------------

_values = st.text(max_size=20) | st.sampled_from(
    [NUMBER, "", "0", "\0", "fine", "2026-12-24T00:00:00Z", "x" * 300]
)
_names = st.sampled_from(
    [
        "to",
        "send_at",
        "expires_at",
        "priority",
        "resolution",
        "header",
        "provider_id",
        "tags[a]",
        "tags[",
        "tags",
        "file",
        "x",
    ]
)


@pytest.fixture(scope="module")
def lasting(stores: object) -> Iterator[tuple[Runtime, FlaskClient]]:
    runtime = wiring.build(stores.embedded().config(SIMULATOR_SECRET=SECRET))  # type: ignore[attr-defined]
    yield runtime, client_of(runtime, new_key(runtime, "fax:send"))
    runtime.close()


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)
@given(
    fields=st.dictionaries(_names, _values),
    key=st.none() | st.text(st.characters(codec="latin-1"), max_size=20),
)
def test_any_form_is_taken_or_refused_by_name_and_never_a_fault(
    lasting: tuple[Runtime, FlaskClient], fields: dict[str, str], key: str | None
) -> None:
    runtime, client = lasting
    headers = {} if key is None or set(key) & {"\r", "\n"} else {"Idempotency-Key": key}
    before = left_behind(runtime)
    document = [] if "file" in fields else [("file", ("document", TEXT))]
    response = post(client, [*document, *{"to": NUMBER, **fields}.items()], **headers)

    assert response.status_code in (202, 400, 422), response.data
    if response.status_code != 202:
        assert_problem(
            response, response.status_code, json.loads(response.data)["type"].removeprefix("/docs#")
        )
        assert left_behind(runtime) == before
    assert TEXT not in response.data
