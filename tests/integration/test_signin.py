"""Signing in by way of an OpenID provider: a whole journey with one of somebody else's making, and with one that forges
everything that proves nothing."""

from __future__ import annotations

import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import jwt
import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from faxbot import signin, users, wiring
from faxbot.actors import CLI
from faxbot.db import table, utcnow
from faxbot.models import AuditEvent, User
from faxbot.plugins.base import IdentityPlugin
from faxbot.runtime import Runtime
from faxbot.signin import AT_ONCE
from faxbot.testing.standin import Answer, Asked, StandIn, dead_url, hangs_up
from tests.installation import Installation
from tests.integration.clock import Clock
from tests.integration.command import run
from tests.integration.web import assert_problem, client_of, new_user
from tests.openid import Forge, ProviderProcess, Script, honest, made_key, published, unsigned

WAYS = "/admin/session/providers"
BEGIN, FINISH = f"{WAYS}/oidc/begin", f"{WAYS}/oidc/finish"
RETURN_URL = f"http://127.0.0.1:8080{FINISH}"
EVERYBODY = {"FAXBOT_SIGN_IN_CREATES_USERS": "true", "FAXBOT_SIGN_IN_ROLES": "viewer=*"}


@pytest.fixture
def store(embedded: Installation) -> Installation:
    """Nothing here depends on the kind of database, but one test."""
    return embedded


@contextmanager
def a_runtime(store: Installation, issuer: str, **more: str) -> Iterator[Runtime]:
    runtime = wiring.build(
        store.config(
            **{
                "FAXBOT_IDENTITY_PLUGINS": "oidc",
                "FAXBOT_LOGIN_FAILURES": "0",
                "OIDC_ISSUER": issuer,
                "OIDC_CLIENT_ID": "faxbot",
                **EVERYBODY,
                **more,
            }
        )
    )
    try:
        yield runtime
    finally:
        runtime.close()


@pytest.fixture(scope="module")
def key() -> RSAPrivateKey:
    return made_key()


@pytest.fixture
def script(key: RSAPrivateKey) -> Script:
    return Script(key)


@pytest.fixture
def provider(script: Script) -> Iterator[StandIn]:
    with StandIn(script.behave) as provider:
        script.url = provider.url
        yield provider


@pytest.fixture
def runtime(store: Installation, provider: StandIn) -> Iterator[Runtime]:
    with a_runtime(store, provider.url) as runtime:
        yield runtime


def sent(client: FlaskClient) -> str:
    """Begin; where the browser is sent."""
    answer = client.get(BEGIN)
    assert answer.status_code == 302, answer.data
    assert json.loads(answer.data) == {"location": answer.headers["Location"]}
    return str(answer.headers["Location"])


def back(client: FlaskClient, address: str) -> TestResponse:
    """The browser comes back to where the provider sent it."""
    assert address.startswith(RETURN_URL)
    return client.get(address.removeprefix("http://127.0.0.1:8080"))


def who(client: FlaskClient) -> dict[str, Any]:
    answer = client.get("/admin/session")
    assert answer.status_code == 200, answer.data
    found: dict[str, Any] = json.loads(answer.data)
    return found


def journey(runtime: Runtime, script: Script) -> TestResponse:
    client = client_of(runtime)
    return back(client, script.sign_in(sent(client)))


def refusals(runtime: Runtime) -> list[dict[str, Any]]:
    rows = table(AuditEvent)
    wanted = sa.select(rows).where(rows.c.action == "session.refused").order_by(rows.c.id)
    return [row.details for row in runtime.database.rows(wanted, {})]


def everybody(runtime: Runtime) -> list[User]:
    with runtime.database.reading() as session:
        return list(users.everybody(session, "default"))


# A provider of somebody else's making -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real() -> Iterator[ProviderProcess]:
    with ProviderProcess() as real:
        yield real


@pytest.fixture
def at_the_real_one(store: Installation, real: ProviderProcess) -> Iterator[Runtime]:
    known = real.register(RETURN_URL)
    with a_runtime(
        store,
        real.url,
        OIDC_CLIENT_ID=known["client_id"],
        OIDC_CLIENT_SECRET=known["client_secret"],
        FAXBOT_SIGN_IN_ROLES="admin=fax admins; operator=staff",
    ) as runtime:
        yield runtime


def test_somebody_signs_in_at_a_real_provider_and_works(
    at_the_real_one: Runtime, real: ProviderProcess
) -> None:
    real.knows(
        "u-4711", preferred_username="Jo", groups=["staff", "others"], email="jo@example.org"
    )
    client = client_of(at_the_real_one)
    assert json.loads(client.get(WAYS).data) == {
        "items": [{"id": "oidc", "name": "OpenID Connect", "begin": BEGIN}]
    }

    answer = back(client, real.sign_in(sent(client), "u-4711"))

    assert (answer.status_code, answer.headers["Location"]) == (302, "/admin/ui/")
    session = who(client)
    assert (session["user"]["name"], session["role"]) == ("Jo", "operator")
    assert client.get("/admin/providers").status_code == 200
    (user,) = everybody(at_the_real_one)
    assert (user.issuer, user.subject, user.password_hash) == (real.url, "u-4711", None)
    again = client_of(at_the_real_one)
    back(again, real.sign_in(sent(again), "u-4711"))
    assert who(again)["user"] == session["user"]
    assert len(everybody(at_the_real_one)) == 1


def test_a_code_of_the_real_provider_is_good_once_and_for_one_browser(
    at_the_real_one: Runtime, real: ProviderProcess
) -> None:
    real.knows("u-1", preferred_username="Jo", groups=["staff"])
    client, other = client_of(at_the_real_one), client_of(at_the_real_one)
    address = real.sign_in(sent(client), "u-1")
    journeys = client.get_cookie("faxbot_session_journey")
    assert journeys is not None
    sent(other)

    assert_problem(back(other, address), 401, "unauthenticated")
    assert back(client, address).status_code == 302
    client.set_cookie("faxbot_session_journey", journeys.value)
    assert_problem(back(client, address), 401, "unauthenticated")


def test_who_says_no_at_the_real_provider_is_not_in(
    at_the_real_one: Runtime, real: ProviderProcess
) -> None:
    client = client_of(at_the_real_one)
    refused = real.sign_in(sent(client), "u-1", "deny")
    assert_problem(client.get(f"{FINISH}?{refused.partition('?')[2]}"), 401, "unauthenticated")
    assert client.get("/admin/session").status_code == 401


def test_test_connection_says_whether_the_provider_is_there(
    at_the_real_one: Runtime, store: Installation
) -> None:
    assert at_the_real_one.plugins.get("oidc", IdentityPlugin).health().ok
    with a_runtime(store, dead_url()) as runtime:
        assert not runtime.plugins.get("oidc", IdentityPlugin).health().ok


# What proves nothing ------------------------------------------------------------------------------------------------


def test_the_forger_can_be_honest(runtime: Runtime, script: Script) -> None:
    """Else the next tests would show nothing."""
    assert journey(runtime, script).status_code == 302
    assert len(everybody(runtime)) == 1


def with_claims(**changes: Any) -> Forge:
    """The right token with other claims; None takes one away."""

    def forge(script: Script, claims: dict[str, Any]) -> str:
        changed = {**claims, **changes}
        return honest(script, {name: value for name, value in changed.items() if value is not None})

    return forge


def public_key_as_secret(script: Script, claims: dict[str, Any]) -> str:
    """RFC 8725, 2.1: the public key, which everybody has, as the secret of an HMAC."""
    secret = json.dumps(published(script.key, "one")).encode()
    head = {"alg": "HS256", "kid": "one"}
    signed = unsigned(claims, head).rpartition(".")[0]
    return unsigned(claims, head, hmac.digest(secret, signed.encode(), "sha256"))


FOREIGN = made_key()
FORGED: dict[str, Forge] = {
    "not signed": lambda _script, claims: unsigned(claims, {"alg": "none", "kid": "one"}),
    "signed with nothing": lambda _script, claims: unsigned(claims, {"alg": "RS256", "kid": "one"}),
    "signed with the public key": public_key_as_secret,
    "signed by somebody else": lambda _script, claims: jwt.encode(
        claims, FOREIGN, "RS256", headers={"kid": "one"}
    ),
    "of a key that is not published": lambda script, claims: jwt.encode(
        claims, script.key, "RS256", headers={"kid": "two"}
    ),
    "with its own key in its head": lambda _script, claims: jwt.encode(
        claims, FOREIGN, "RS256", headers={"kid": "x", "jwk": published(FOREIGN, "x")}
    ),
    "with an extension that must be understood": lambda script, claims: jwt.encode(
        claims, script.key, "RS256", headers={"kid": "one", "crit": ["exp"], "exp": 1}
    ),
    "of another issuer": with_claims(iss="https://id.example.org"),
    "of an issuer that begins the same": with_claims(iss="http://127"),
    "for another client": with_claims(aud="another"),
    "for several clients, without a word for whom": with_claims(aud=["faxbot", "another"]),
    "asked for by another client": with_claims(azp="another"),
    "too old": with_claims(exp=int(time.time()) - 120),
    "without an end": with_claims(exp=None),
    "of the future": with_claims(iat=int(time.time()) + 3600),
    "of another sign-in": with_claims(nonce="x"),
    "of no sign-in": with_claims(nonce=None),
    "about nobody": with_claims(sub=None),
    "about an empty name": with_claims(sub=""),
    "about a number": with_claims(sub=1),
    "about too long a name": with_claims(sub="x" * 256),
    "no token": lambda _script, _claims: "x",
    "an empty token": lambda _script, _claims: "",
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED.keys())
def test_a_token_that_proves_nothing_signs_nobody_in(
    runtime: Runtime, script: Script, forge: Forge
) -> None:
    script.forge = forge
    refused = journey(runtime, script)

    assert_problem(refused, 401, "unauthenticated")
    assert "Set-Cookie" not in refused.headers
    assert everybody(runtime) == []
    assert refusals(runtime) == [{"plugin": "oidc"}]


Change = Callable[[str], str]
ANSWERS: dict[str, Change] = {
    "without a state": lambda address: address.partition("&state")[0],
    "with another state": lambda address: f"{address}x",
    "with a state of other letters": lambda address: f"{address}%ff%C3%A9",
    "without a code": lambda address: address.replace("code=", "node="),
    "with another code": lambda address: address.replace("code=", "code=x"),
    "of another provider": lambda address: f"{address}&iss=https%3A%2F%2Fid.example.org",
    "with an error": lambda address: f"{address}&error=access_denied",
    "with a strange error": lambda address: f"{address}&error=%3Cscript%3E",
}


@pytest.mark.parametrize("change", ANSWERS.values(), ids=ANSWERS.keys())
def test_an_answer_that_proves_nothing_signs_nobody_in(
    runtime: Runtime, script: Script, change: Change
) -> None:
    client = client_of(runtime)
    refused = back(client, change(script.sign_in(sent(client))))

    assert "script" not in assert_problem(refused, 401, "unauthenticated")["detail"]
    assert everybody(runtime) == []


def test_a_provider_that_says_whose_answer_it_is_says_it_always(
    runtime: Runtime, script: Script, provider: StandIn
) -> None:
    script.about = {"authorization_response_iss_parameter_supported": True}
    assert_problem(journey(runtime, script), 401, "unauthenticated")
    client = client_of(runtime)
    assert back(client, f"{script.sign_in(sent(client))}&iss={provider.url}").status_code == 302


def test_an_address_that_proves_nothing_too_often_is_not_even_heard(
    store: Installation, script: Script, provider: StandIn
) -> None:
    with a_runtime(store, provider.url, FAXBOT_LOGIN_FAILURES="2") as runtime:
        client = client_of(runtime)
        came_back = script.sign_in(sent(client))
        for _ in range(2):
            assert_problem(back(client, f"{came_back}x"), 401, "unauthenticated")
        assert_problem(journey(runtime, script), 429, "failed-logins")
        assert len(refusals(runtime)) == 2


def test_a_page_of_another_site_bars_nobodys_address(
    store: Installation, script: Script, provider: StandIn
) -> None:
    """It can have a browser ask for our address, as for a picture; what the browser keeps does not come with that."""
    with a_runtime(store, provider.url, FAXBOT_LOGIN_FAILURES="2") as runtime:
        for _ in range(3):
            picture = client_of(runtime).get(f"{FINISH}?code=x&state=x")
            assert_problem(picture, 401, "unauthenticated")
        assert refusals(runtime) == []
        assert journey(runtime, script).status_code == 302


@pytest.mark.parametrize("kept", [None, "", "x", "AAAA", "\u00e9", "of another ring"])
def test_a_browser_that_was_not_sent_is_not_let_in(
    runtime: Runtime, script: Script, kept: str | None
) -> None:
    client = client_of(runtime)
    address = script.sign_in(sent(client))
    client.delete_cookie("faxbot_session_journey")
    if kept is not None:
        client.set_cookie("faxbot_session_journey", kept)
    assert_problem(back(client, address), 401, "unauthenticated")


def test_a_journey_takes_ten_minutes_at_most(runtime: Runtime, script: Script) -> None:
    clock = Clock(utcnow())
    at = replace(runtime, now=clock)
    spans = (
        (signin.JOURNEY, 302),
        (signin.JOURNEY + timedelta(seconds=1), 401),
        (timedelta(seconds=-2), 302),  # another machine's clock is behind
        (timedelta(hours=-1), 401),
    )
    for span, status in spans:
        client = client_of(at)
        address = script.sign_in(sent(client))
        clock.now += span
        assert back(client, address).status_code == status


def test_what_the_browser_keeps_is_sealed_and_comes_back_from_elsewhere(runtime: Runtime) -> None:
    client = client_of(runtime)
    answer = client.get(BEGIN)
    name, *words = answer.headers["Set-Cookie"].split("; ")
    state = answer.headers["Location"].partition("state=")[2].partition("&")[0]

    assert state
    assert state not in name
    assert {"HttpOnly", "Path=/", "SameSite=Lax", "Max-Age=600"} <= set(words)


# When the provider is not as it should be ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "about",
    [
        {"issuer": "https://id.example.org"},
        {"authorization_endpoint": None},
        {"authorization_endpoint": "javascript:alert(1)"},
    ],
)
def test_a_provider_that_is_not_who_is_meant_is_not_asked_until_it_is(
    runtime: Runtime, script: Script, about: dict[str, Any]
) -> None:
    script.about = about
    assert_problem(client_of(runtime).get(BEGIN), 503, "identity-away")
    script.about = {}
    assert journey(runtime, script).status_code == 302


@pytest.mark.parametrize(
    "token",
    [
        Answer(401, {"error": "invalid_client"}),
        Answer(500, b"<html>"),
        Answer(200, b"<html>"),
        Answer(200, {"access_token": "x"}),
        Answer(200, []),
    ],
)
def test_a_provider_that_does_not_take_our_word_is_away(
    runtime: Runtime, script: Script, token: Answer
) -> None:
    script.token = lambda _: token
    assert_problem(journey(runtime, script), 503, "identity-away")


def test_a_provider_that_is_not_there_is_away_and_passwords_still_work(store: Installation) -> None:
    with a_runtime(store, dead_url()) as runtime:
        assert_problem(client_of(runtime).get(BEGIN), 503, "identity-away")
        password = "tall ships pass the quiet harbour"
        new_user(runtime, name="jo", password=password)
        wish = {"name": "jo", "password": password}
        assert client_of(runtime).post("/admin/session", json=wish).status_code == 200


def test_a_provider_that_hangs_does_not_take_all_threads(
    runtime: Runtime, script: Script, provider: StandIn
) -> None:
    """Anybody may begin; so those who wait for the provider are few, and the others are told at once."""
    clients, released = [client_of(runtime) for _ in range(AT_ONCE + 1)], threading.Event()

    def hangs(asked: Asked) -> Answer:
        assert released.wait(30)
        return script.behave(asked)

    provider.behave = hangs
    with ThreadPoolExecutor(len(clients)) as threads:
        asking = [threads.submit(client.get, BEGIN) for client in clients]
        told, waiting = wait(asking, timeout=10, return_when=FIRST_COMPLETED)
        released.set()
        assert [one.result().status_code for one in told] == [503]
        assert [one.result().status_code for one in waiting] == [302] * AT_ONCE
    assert clients[0].get(BEGIN).status_code == 302


def test_another_provider_is_asked_at_once_and_not_what_the_one_before_said(
    store: Installation, script: Script, provider: StandIn, key: RSAPrivateKey
) -> None:
    with a_runtime(store, provider.url) as runtime:
        assert journey(runtime, script).status_code == 302
    other = Script(key)
    with StandIn(other.behave) as next_one, a_runtime(store, next_one.url) as runtime:
        other.url = next_one.url
        assert journey(runtime, other).status_code == 302


def test_a_provider_that_was_there_lately_is_asked_whether_it_is_there(
    runtime: Runtime, script: Script, provider: StandIn
) -> None:
    assert journey(runtime, script).status_code == 302
    provider.behave = hangs_up
    assert not runtime.plugins.get("oidc", IdentityPlugin).health().ok


def test_the_provider_may_change_its_keys(
    runtime: Runtime, script: Script, provider: StandIn
) -> None:
    assert journey(runtime, script).status_code == 302
    script.keys = [published(FOREIGN, "new")]
    script.forge = lambda _script, claims: jwt.encode(
        claims, FOREIGN, "RS256", headers={"kid": "new"}
    )
    assert journey(runtime, script).status_code == 302
    assert [asked.path for asked in provider.asked].count("/keys") == 2


def test_keys_that_are_not_for_signing_do_not_sign(runtime: Runtime, script: Script) -> None:
    script.keys = [{**published(script.key, "one"), "use": "enc"}]
    assert_problem(journey(runtime, script), 401, "unauthenticated")


def test_a_provider_that_takes_a_form_only_gets_the_secret_there(
    store: Installation, script: Script, provider: StandIn
) -> None:
    script.about = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    with a_runtime(store, provider.url, OIDC_CLIENT_SECRET="a secret") as runtime:
        assert journey(runtime, script).status_code == 302
    (asked,) = [asked for asked in provider.asked if asked.path == "/token"]
    assert b"client_secret=a+secret" in asked.body
    assert "authorization" not in asked.headers


# Who that is here -----------------------------------------------------------------------------------------------------


def test_nobody_becomes_a_user_where_that_is_not_allowed_and_an_administrator_can_bind_one(
    store: Installation, script: Script, provider: StandIn
) -> None:
    with a_runtime(
        store, provider.url, FAXBOT_SIGN_IN_CREATES_USERS="false", FAXBOT_SIGN_IN_ROLES=""
    ) as runtime:
        user = new_user(runtime, "operator", name="Jo")
        refused = assert_problem(journey(runtime, script), 401, "unauthenticated")
        assert script.claims["sub"] not in refused["detail"]
        (asked,) = refusals(runtime)
        assert (asked["issuer"], asked["subject"]) == (provider.url, "248289761001")

        words = ("users", "bind", "jo", asked["issuer"], asked["subject"])
        assert run(store, *words).code == 0
        client = client_of(runtime)
        back(client, script.sign_in(sent(client)))
        assert (who(client)["user"]["id"], who(client)["role"]) == (user.id, "operator")
        new_user(runtime, name="sam")
        assert run(store, "users", "bind", "sam", *words[3:]).code == 1


def test_who_has_no_role_there_has_no_place_here(
    store: Installation, script: Script, provider: StandIn
) -> None:
    with a_runtime(store, provider.url, FAXBOT_SIGN_IN_ROLES="admin=a;viewer=b") as runtime:
        for groups in (None, [], ["c"], "c", [1], {"a": 1}, ["A"]):
            script.claims["groups"] = groups
            assert_problem(journey(runtime, script), 401, "unauthenticated")
        assert everybody(runtime) == []


def test_the_role_follows_the_groups_there(
    store: Installation, script: Script, provider: StandIn
) -> None:
    rules = {
        "FAXBOT_SIGN_IN_ROLES": "admin=CN=fax,OU=it; viewer = staff",
        "OIDC_GROUPS_CLAIM": "realm.roles",
    }
    with a_runtime(store, provider.url, **rules) as runtime:
        seen = []
        for groups in (["staff"], ["staff", "CN=fax,OU=it"], "staff"):
            script.claims["realm"] = {"roles": groups}
            assert journey(runtime, script).status_code == 302
            (user,) = everybody(runtime)
            seen.append(user.role)
        assert seen == ["viewer", "admin", "viewer"]
        script.claims["realm"] = {"roles": []}
        assert_problem(journey(runtime, script), 401, "unauthenticated")


def test_a_name_and_an_address_prove_nothing(runtime: Runtime, script: Script) -> None:
    mine = new_user(runtime, "admin", name="Jo")
    script.claims |= {"preferred_username": "jo", "email": "jo@example.org", "email_verified": True}
    assert journey(runtime, script).status_code == 302
    script.claims["sub"] = "another"
    assert journey(runtime, script).status_code == 302

    found = {user.name: (user.role, user.subject) for user in everybody(runtime)}
    assert found == {
        "Jo": ("admin", None),
        "jo (2)": ("viewer", "248289761001"),
        "jo (3)": ("viewer", "another"),
    }
    assert mine.subject is None


@pytest.mark.parametrize("name", [None, "", "\n", "x" * 1000, 7, "\ud83d\ude00", "\u202ejo"])
def test_a_user_is_made_of_whatever_name(runtime: Runtime, script: Script, name: Any) -> None:
    script.claims["preferred_username"] = name
    assert journey(runtime, script).status_code == 302
    (user,) = everybody(runtime)
    assert user.name.isprintable()


def test_who_is_disabled_here_is_not_let_in_by_another_way(
    runtime: Runtime, script: Script
) -> None:
    journey(runtime, script)
    (user,) = everybody(runtime)
    with runtime.database.transaction() as session:
        users.disable(session, CLI, user.id, now=runtime.now())
    assert_problem(journey(runtime, script), 401, "unauthenticated")


@pytest.mark.parametrize("plugin_id", ["simulator", "local", "nobody", "oidc"])
def test_only_what_is_set_up_is_a_way_in(store: Installation, plugin_id: str) -> None:
    with a_runtime(store, dead_url(), FAXBOT_IDENTITY_PLUGINS="simulator,local,nobody") as runtime:
        client = client_of(runtime)
        assert json.loads(client.get(WAYS).data) == {"items": []}
        for deed in ("begin", "finish"):
            assert_problem(client.get(f"{WAYS}/{plugin_id}/{deed}"), 404, "not-found")
