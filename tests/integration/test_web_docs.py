"""The OpenAPI document and the page made from it: valid, whole, and true to the routes."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from flask.testing import FlaskClient
from openapi_spec_validator import validate

from faxbot import wiring
from faxbot.events import Status
from faxbot.runtime import Runtime
from faxbot.web import docs
from faxbot.web.auth import SESSION, WITHOUT_KEY, scope_of
from faxbot.web.problems import PROBLEMS
from tests.installation import Installation
from tests.integration.web import (
    ACCESS,
    SECRET,
    assert_problem,
    client_of,
    new_key,
)


@pytest.fixture
def store(embedded: Installation) -> Installation:
    """Nothing here depends on the kind of database."""
    return embedded


METHODS = {"get", "post", "put", "patch", "delete"}
PAGES = re.compile("openapi|docs| /$")
"""Routes for people and programs that read of the API; they are no part of it."""


@pytest.fixture
def document(client: FlaskClient) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(client.get("/openapi.json").data)
    return found


def route_of(method: str, path: str) -> str:
    """A documented operation as ACCESS names it."""
    return f"{method.upper()} {path.replace('{', '<').replace('}', '>')}"


def test_the_document_is_valid_and_has_every_route_of_the_api(document: dict[str, Any]) -> None:
    validate(document)
    documented = {
        route_of(method, path)
        for path, item in document["paths"].items()
        for method in item
        if method in METHODS
    }

    assert documented == {route for route in ACCESS if not PAGES.search(route)}


def test_every_operation_states_its_failures_and_its_security(document: dict[str, Any]) -> None:
    for path, item in document["paths"].items():
        for method in set(item) & METHODS:
            operation, access = item[method], ACCESS[route_of(method, path)]
            statuses = set(operation["responses"])

            assert "500" in statuses
            if access not in WITHOUT_KEY:
                assert {"401", "403", "503"} <= statuses
                schemes = ["ApiKey", "Bearer"] * (access != SESSION) + ["Session"]
                scope = scope_of(access)
                ways: list[dict[str, list[str]]] = [{scheme: [scope]} for scheme in schemes]
                assert operation["security"] == ways + [{}] * (scope != access)
            for status, answer in operation["responses"].items():
                if status != "500":
                    assert list(answer["content"]) == media_types(path, status)


def media_types(path: str, status: str) -> list[str]:
    """What a route answers with."""
    if status >= "4" and path != "/health/ready":
        return ["application/problem+json"]
    of_files = {
        "/pdf": ["application/pdf"],
        "/fax/{fax_id}/document": ["application/pdf"],
        "/document": ["application/pdf", "image/tiff"],
        "/{number}": ["image/png"],
        "/stream": ["text/event-stream"],
        "/metrics": ["text/plain"],
    }
    found = (kinds for end, kinds in of_files.items() if status == "200" and path.endswith(end))
    return next(found, ["application/json"])


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
    commands = re.findall(r"<pre><code>curl[^<]*?\"?(http://127[^<\"]*)", page)

    paths = {
        command.removeprefix("http://127.0.0.1:8080").partition("?")[0] for command in commands
    }
    assert paths == {
        re.sub(
            "<(.*?)>",
            lambda name: "$" + name[1].upper(),
            re.sub(
                "<(provider|plugin)_id>",
                "oidc"
                if "/session/" in route
                else "email"
                if "/notifications/" in route
                else "simulator",
                route.split()[1],
            ),
        )
        for route in ACCESS
        if not PAGES.search(route)
    }


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/admin/config/import"), ("PUT", "/plugins/simulator/config")]
)
def test_what_its_commands_want_saved_can_be_saved(
    runtime: Runtime, method: str, path: str
) -> None:
    client = client_of(runtime, new_key(runtime, "*"))
    page = html.unescape(client.get("/docs").get_data(as_text=True))
    command = rf"curl -X {method} [^<]*-d '([^']+)' \\\n  http://127.0.0.1:8080{path}<"
    (body,) = re.findall(command, page)
    # No carrier is here to be asked.
    answer = client.open(path, method=method, json={**json.loads(body), "untested": True})
    assert answer.status_code == 200, answer.get_json()


def test_what_a_query_may_have_is_said_beside_what_its_path_has(client: FlaskClient) -> None:
    paths = client.get("/openapi.json").get_json()["paths"]
    for path, name in (
        ("/fax/{fax_id}/pdf", "token"),
        ("/fax/{fax_id}/pages/{number}", "width"),
        ("/inbound/{inbound_id}/pdf", "token"),
        ("/inbound/{inbound_id}/pages/{number}", "width"),
        ("/webhooks/{webhook_id}/deliveries", "status"),
    ):
        found = {(each["in"], each["name"]) for each in paths[path]["get"]["parameters"]}
        assert ("query", name) in found, path
        assert {each[1] for each in found if each[0] == "path"} == set(re.findall("{(.+?)}", path))


def test_a_command_names_what_its_address_must_have(client: FlaskClient) -> None:
    page = html.unescape(client.get("/docs").get_data(as_text=True))
    assert "/fax/$FAX_ID/pdf?token=$TOKEN" in page


@pytest.mark.parametrize(("path", "to"), [("/", "/admin/ui/"), ("/docs/", "/docs")])
def test_who_comes_to_the_front_door_is_led_to_the_console_and_beside_it_to_the_page(
    runtime: Runtime, path: str, to: str
) -> None:
    response = client_of(runtime).get(path)

    assert (response.status_code, response.headers["Location"]) == (302, to)


def test_the_page_says_what_each_status_means_and_what_is_taken_when_nothing_is_given(
    client: FlaskClient,
) -> None:
    page = html.unescape(client.get("/docs").get_data(as_text=True))

    assert re.findall(r"<dt><code>([a-z]+)</code></dt>", page) == [str(one) for one in Status]
    assert "1 to 100, 50 when not given" in page
    assert 'echo "Hello from faxbot." > hello.txt' in page
    assert set(re.findall(r"-F file=@(\S+)", page)) == {"hello.txt"}


def test_the_example_of_a_callback_is_refused_as_it_says(client: FlaskClient) -> None:
    page = html.unescape(client.get("/docs").get_data(as_text=True))
    (signature,) = set(re.findall(r"X-Simulator-Signature: (t=[^']*)'", page))
    response = client.post(
        "/callbacks/simulator",
        json={"event": "fax.delivered"},
        headers={"X-Simulator-Signature": signature},
    )

    assert_problem(response, 401, "unauthenticated")
    assert "It is not proven that the carrier sent this." in page


@pytest.mark.parametrize(
    ("base", "link"),
    [
        ("", None),
        ("https://docs.example.org/faxbot/", "https://docs.example.org/faxbot/simulator"),
    ],
)
def test_where_the_pages_are_published_the_active_provider_has_its_link(
    store: Installation, base: str, link: str | None
) -> None:
    runtime = wiring.build(store.config(SIMULATOR_SECRET=SECRET, DOCS_BASE_URL=base))
    page = Links()
    page.feed(client_of(runtime).get("/docs").get_data(as_text=True))
    runtime.close()

    assert [one for one in page.targets if one.startswith("http")] == ([link] if link else [])


@pytest.mark.parametrize(
    "text", ["<b>`x<i>`</b>", "`internal` & `fine`", "one ` alone", "``", '`"onclick="`']
)
def test_words_in_backticks_are_code_and_nothing_is_markup(text: str) -> None:
    shown = str(docs._inline(text))

    assert re.sub(r"</?code>|<a href=\"#internal\">|</a>", "", shown).count("<") == 0
    assert html.unescape(re.sub(r"<[^>]*>", "", shown)) == (
        text if text.count("`") == 1 or text == "``" else text.replace("`", "")
    )
