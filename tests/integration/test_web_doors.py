"""Every route against everybody who may come: nobody, a wrong key, a key without its scope, each role, a browser that
was made to ask, and somebody with the ids of another account. A new route is among them by itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from faxbot import actors, users, wiring
from faxbot.actors import ADMIN, CLI, OPERATOR, ROLES, VIEWER, Actor
from faxbot.db import new_id
from faxbot.models import Decision, InboundFax
from faxbot.runtime import Runtime
from faxbot.web.auth import OPEN, OR_HERE, SESSION, WITHOUT_KEY, scope_of
from tests.installation import Stores
from tests.integration.hooks import rows, subscribe
from tests.integration.web import (
    ACCESS,
    NUMBER,
    SECRET,
    assert_problem,
    browser_of,
    client_of,
    new_key,
    new_user,
    send,
)

ROUTES = sorted(route for route, access in ACCESS.items() if access not in WITHOUT_KEY)
UNSAFE = [route for route in ROUTES if not route.startswith("GET ")]
OPEN_TO_ALL = {
    "POST /admin/session", "GET /admin/session/providers", "GET /admin/session/providers/<plugin_id>/begin",
    "GET /admin/session/providers/<plugin_id>/finish", "GET /health", "GET /health/ready", "GET /openapi.json",
    "GET /docs", "GET /docs/", "GET /", "GET /static/docs.css",
}  # fmt: skip
OPERATES = {
    "GET /admin/notifications", "POST /admin/notifications/<plugin_id>/test",
    "GET /admin/retention", "GET /fax/<fax_id>/legal-hold", "GET /inbound/<inbound_id>/legal-hold",
    "POST /fax/send", "POST /fax", "GET /fax", "POST /fax/search", "GET /fax/<fax_id>", "GET /fax/<fax_id>/events",
    "GET /fax/<fax_id>/evidence",
    "GET /fax/<fax_id>/document", "GET /fax/<fax_id>/pages/<number>", "GET /inbound/<inbound_id>/pages/<number>",
    "POST /fax/<fax_id>/resend", "POST /fax/<fax_id>/hold", "POST /fax/<fax_id>/send-now",
    "POST /fax/<fax_id>/cancel", "POST /fax/<fax_id>/release", "POST /fax/<fax_id>/decide", "GET /admin/providers",
    "GET /admin/providers/<provider_id>", "POST /admin/providers/<provider_id>/pause",
    "POST /admin/providers/<provider_id>/resume", "POST /admin/providers/<provider_id>/reset",
    "POST /admin/providers/<provider_id>/test", "GET /inbound", "GET /inbound/unread", "GET /inbound/<inbound_id>",
    "GET /inbound/<inbound_id>/pdf", "GET /inbound/<inbound_id>/document", "POST /inbound/<inbound_id>/link",
    "POST /inbound/<inbound_id>/read", "POST /inbound/<inbound_id>/unread", "POST /inbound/<inbound_id>/fetch",
    "POST /inbound/<inbound_id>/give-up",
    "GET /events",
    "GET /events/stream",
}  # fmt: skip
VIEWS = {
    "GET /fax", "POST /fax/search", "GET /fax/<fax_id>", "GET /fax/<fax_id>/events", "GET /inbound",
    "GET /inbound/unread", "GET /events", "GET /events/stream",
}  # fmt: skip
ONESELF = {"GET /admin/session", "DELETE /admin/session", "POST /admin/session/password"}
MAY = {ADMIN: set(ROUTES), OPERATOR: OPERATES | ONESELF, VIEWER: VIEWS | ONESELF}
"""What each role may, said a second time on purpose: this is the decision, and the code is compared with it."""


@pytest.fixture(scope="module")
def runtime(stores: Stores) -> Iterator[Runtime]:
    """One installation for all questions: none of them changes what the next one asks."""
    runtime = wiring.build(
        stores.embedded().config(SIMULATOR_SECRET=SECRET, FAXBOT_LOGIN_FAILURES="0")
    )
    yield runtime
    runtime.close()


@pytest.fixture(scope="module")
def clients(runtime: Runtime) -> dict[str, FlaskClient]:
    """Whoever comes, by a word."""
    people = {role: browser_of(runtime, new_user(runtime, role)) for role in ROLES}
    no_csrf = browser_of(runtime, new_user(runtime), csrf=False)
    disabled = new_user(runtime, ADMIN)
    over = browser_of(runtime, disabled)
    with runtime.database.transaction() as session:
        users.disable(session, CLI, disabled.id, now=runtime.now())
    return {
        "nobody": client_of(runtime),
        "a wrong key": client_of(runtime, "fbk_live_000000000000_" + "x" * 43),
        "no csrf": no_csrf,
        "over": over,
        **people,
    }


def ask(client: FlaskClient, route: str, **ids: str) -> TestResponse:
    """A request to a route; ids that are not given are of nothing. Nothing it asks for is sound, so that it does
    nothing."""
    method, path = route.split()
    address = re.sub("<(.*?)>", lambda name: ids.get(name[1], "0" * 12), path)
    # From here some need no key (test_metrics).
    elsewhere = {"REMOTE_ADDR": "192.0.2.7"} if ACCESS[route].endswith(OR_HERE) else None
    return client.open(address, method=method, json={"unknown": 1}, environ_overrides=elsewhere)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("who", ["nobody", "a wrong key", "over"])
def test_who_proves_nothing_is_not_let_in(
    clients: dict[str, FlaskClient], who: str, route: str
) -> None:
    assert_problem(ask(clients[who], route), 401, "unauthenticated")


@pytest.mark.parametrize("route", ROUTES)
def test_a_key_with_every_scope_but_this_one_is_not_let_in(runtime: Runtime, route: str) -> None:
    access = scope_of(ACCESS[route])
    scopes = [
        scope
        for scope in actors.SCOPES
        if not Actor("default", "k", frozenset({scope})).may(access)
    ]
    refused = ask(client_of(runtime, new_key(runtime, *scopes)), route)
    assert access in assert_problem(refused, 403, "forbidden")["detail"]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_what_was_decided_and_nothing_else(
    clients: dict[str, FlaskClient], runtime: Runtime, role: str, route: str
) -> None:
    client = clients[role]
    if route == "DELETE /admin/session":
        client = browser_of(runtime, new_user(runtime, role))
    answer = ask(client, route)

    if route in MAY[role]:
        assert answer.status_code in (200, 202, 404, 415, 422), answer.data
    else:
        scope = scope_of(ACCESS[route])
        assert scope in assert_problem(answer, 403, "forbidden")["detail"]


@pytest.mark.parametrize("route", UNSAFE)
def test_a_browser_that_was_made_to_ask_changes_nothing(
    clients: dict[str, FlaskClient], route: str
) -> None:
    refused = assert_problem(ask(clients["no csrf"], route), 403, "csrf-token")
    assert "X-CSRF-Token" in refused["detail"]


def test_what_is_open_to_everybody_is_a_short_list() -> None:
    assert {route for route, access in ACCESS.items() if access == OPEN} == OPEN_TO_ALL
    assert {route for route, access in ACCESS.items() if access == SESSION} == ONESELF


# Ids of another account ---------------------------------------------------------------------------------------------

WITH_ID = [
    route for route in ROUTES if re.search("<(fax|inbound|key|user|webhook|delivery)_id>", route)
]
SOUND: dict[str, Any] = {
    "decide": {"outcome": "failed", "reason": "asked"},
    "rotate": {},
    "expire": {"expires_at": None},
    "role": {"role": "viewer"},
    "password": {"password": "a quite different set of words"},
    "PATCH /webhooks/<webhook_id>": {"name": "another"},
    "POST /webhooks/<webhook_id>/replay": {},
    "PUT /fax/<fax_id>/legal-hold": {"reason": "asked"},
    "PUT /inbound/<inbound_id>/legal-hold": {"reason": "asked"},
}


@pytest.fixture(scope="module")
def foreign(runtime: Runtime) -> dict[str, str]:
    """A fax, a received one, a key, a user and a webhook with a delivery, as they were made in another account."""
    now, inbound_id = runtime.now(), new_id()
    with runtime.database.transaction() as session:
        session.add(
            InboundFax(
                id=inbound_id,
                account_id="other",
                provider_id="simulator",
                external_id="in-1",
                status="received",
                numbers_sealed=b"theirs",
                received_at=now,
                created_at=now,
                updated_at=now,
            )
        )
    webhook_id, _ = subscribe(runtime, "https://hook.example.org/", account_id="other")
    fax = json.loads(send(client_of(runtime, new_key(runtime, account_id="other"))).data)
    return {
        "fax_id": fax["id"],
        "inbound_id": inbound_id,
        "key_id": new_key(runtime, "*", account_id="other").split("_")[2],
        "user_id": new_user(runtime, account_id="other").id,
        "webhook_id": webhook_id,
        "delivery_id": rows(runtime, webhook_id)[0].id,
        "number": "1",
    }


@pytest.mark.parametrize("route", WITH_ID)
def test_what_belongs_to_another_account_looks_like_what_is_not_there(
    runtime: Runtime, foreign: dict[str, str], route: str
) -> None:
    client = client_of(runtime, new_key(runtime, "*"))
    method, path = route.split()
    body = SOUND.get(route, SOUND.get(path.rpartition("/")[2]))
    nothing = {
        "fax_id": new_id(),
        "inbound_id": new_id(),
        "key_id": "0" * 12,
        "user_id": new_id(),
        "webhook_id": new_id(),
        "delivery_id": f"msg_{new_id()}",
        "number": "1",
    }
    answers = []
    for ids in (foreign, nothing):
        address = re.sub("<(.*?)>", lambda name, ids=ids: ids[name[1]], path)  # type: ignore[misc]
        response = client.open(
            address, method=method, **({"json": body} if body is not None else {})
        )
        answers.append({**assert_problem(response, 404, "not-found"), "request_id": None})

    assert answers[0] == answers[1]


def test_every_kind_of_id_has_a_foreign_one() -> None:
    """Plugins and providers belong to the installation, and a number is a page's."""
    kinds = {name for route in ACCESS for name in re.findall("<(.*?)>", route)}

    assert kinds == {
        "fax_id", "inbound_id", "key_id", "user_id", "provider_id", "plugin_id", "webhook_id", "delivery_id",
        "number",
    }  # fmt: skip


# What a viewer does not see -----------------------------------------------------------------------------------------


def test_a_viewer_sees_no_whole_number_and_not_what_people_wrote(
    runtime: Runtime, clients: dict[str, FlaskClient]
) -> None:
    fax = json.loads(send(client_of(runtime, new_key(runtime))).data)
    with runtime.database.transaction() as session:
        session.add(
            Decision(
                id=new_id(),
                account_id="default",
                job_id=fax["id"],
                attempt=1,
                outcome="failed",
                actor="somebody",
                reason_sealed=runtime.keyring.seal(b"Ms. Doe called", "decisions.reason:default"),
                decided_at=runtime.now(),
            )
        )
    asked = {
        who: [
            clients[who].get(f"/fax/{fax['id']}"),
            clients[who].get(f"/fax/{fax['id']}/events"),
            clients[who].get("/fax"),
            clients[who].post("/fax/search", json={"to": NUMBER}),
        ]
        for who in (VIEWER, OPERATOR)
    }

    assert all(answer.status_code == 200 for answers in asked.values() for answer in answers)
    shown = {who: answers[0].get_data(as_text=True) for who, answers in asked.items()}
    assert NUMBER in shown[OPERATOR]
    assert not [a for a in asked[VIEWER] if NUMBER in a.get_data(as_text=True)]
    assert json.loads(shown[VIEWER])["to"] != json.loads(shown[OPERATOR])["to"]
    reasons = {
        who: [one["reason"] for one in json.loads(answers[1].data)["decisions"]]
        for who, answers in asked.items()
    }
    assert reasons == {VIEWER: [""], OPERATOR: ["Ms. Doe called"]}


def test_roles_hold_no_scope_that_is_not_known() -> None:
    known = set(actors.SCOPES)

    assert all(scopes <= known for scopes in ROLES.values())
    assert replace(CLI, scopes=ROLES[VIEWER]).may("fax:send") is False
