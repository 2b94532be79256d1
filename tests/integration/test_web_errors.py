"""The one error body: wrong addresses, broken JSON, bad filters, faults of ours, and any form at all."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient
from gunicorn.http.errors import InvalidChunkSize
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from faxbot import wiring
from faxbot.runtime import Runtime
from faxbot.web.app import JSON_BYTES
from tests.installation import Installation, Stores
from tests.integration.web import (
    NUMBER,
    SECRET,
    TEXT,
    ahead,
    assert_problem,
    client_of,
    left_behind,
    new_key,
    post,
    send,
)


@pytest.fixture
def store(embedded: Installation) -> Installation:
    """Nothing here depends on the kind of database."""
    return embedded


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "allow"),
    [
        ("GET", "/doc", 404, "not-found", None),
        ("GET", "/fax/", 404, "not-found", None),
        ("GET", "/static//docs.css", 404, "not-found", None),
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


def test_a_number_asked_for_in_an_address_leads_to_the_search(client: FlaskClient) -> None:
    problem = assert_problem(client.get("/fax?to=%2B15550100000"), 422, "invalid-fields")

    assert problem["detail"] == "Not valid: to."
    assert "POST /fax/search" in problem["errors"]["to"][0]


def test_json_of_another_type_and_too_much_json(client: FlaskClient) -> None:
    refused = assert_problem(
        client.post("/fax/search", data=b"to=1", content_type="text/plain"), 415, "media-type"
    )
    assert refused["detail"] == "This address takes application/json."
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
        ("to=%2B15550100000", "to"),
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
        CONFIG_MASTER_KEY="A" * 43 + "=",
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


# Anything at all ----------------------------------------------------------------------------------

_values = st.text(max_size=20) | st.sampled_from(
    [NUMBER, "", "0", "\0", "fine", ahead(20), "x" * 300]
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
def lasting(stores: Stores) -> Iterator[tuple[Runtime, FlaskClient]]:
    runtime = wiring.build(stores.embedded().config(SIMULATOR_SECRET=SECRET))
    yield runtime, client_of(runtime, new_key(runtime, "fax:send"))
    runtime.close()


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
    max_examples=60,
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


def post_what_raises(
    client: FlaskClient,
    fault: Exception,
    path: str = "/fax/send",
    content_type: str = "multipart/form-data; boundary=b",
) -> TestResponse:
    """Send what, when its body is read, raises `fault`."""

    class Body:
        def read(self, _size: int = -1) -> bytes:
            raise fault

    return client.post(
        path,
        content_type=content_type,
        content_length=500,
        headers={"X-Simulator-Signature": "is looked at when the body is there"},
        environ_overrides={"wsgi.input": Body(), "wsgi.input_terminated": True},
    )


def test_a_fault_of_ours_while_a_body_is_read_is_not_put_on_the_client(
    client: FlaskClient,
) -> None:
    assert_problem(post_what_raises(client, KeyError("a bug")), 500, "internal")


@pytest.mark.parametrize("fault", [ConnectionResetError(), TimeoutError(), InvalidChunkSize("x")])
def test_a_body_that_breaks_off_is_malformed(client: FlaskClient, fault: Exception) -> None:
    assert_problem(post_what_raises(client, fault), 400, "malformed")


@pytest.mark.parametrize("path", ["/fax/search", "/callbacks/simulator"])
@pytest.mark.parametrize("fault", [ConnectionResetError(), TimeoutError(), InvalidChunkSize("x")])
def test_what_is_no_form_and_breaks_off_is_malformed_too(
    client: FlaskClient, path: str, fault: Exception
) -> None:
    assert_problem(post_what_raises(client, fault, path, "application/json"), 400, "malformed")
