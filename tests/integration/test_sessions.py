"""Signing in: what proves it, when it is over, who has to wait, and that a browser alone proves nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from time import perf_counter
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from faxbot import sessions, users, wiring
from faxbot.actors import CLI, ROLES, USER
from faxbot.config import Config
from faxbot.db import table
from faxbot.errors import ConfigError, SignInCrowded, Unauthenticated
from faxbot.models import AuditEvent, User, UserSession
from faxbot.runtime import Runtime
from faxbot.sessions import FIRST_WAIT, FREE_TRIES, LONGEST, LONGEST_WAIT, SEEN_EVERY
from tests.installation import Installation
from tests.integration.clock import Clock
from tests.integration.test_identity import statements
from tests.integration.web import (
    NUMBER,
    assert_problem,
    begun,
    browser_of,
    client_of,
    new_key,
    new_user,
)
from tests.threads import at_once

PASSWORD = "tall ships pass the quiet harbour"
WRONG = "tall ships pass the quiet harbour?"
ADDRESS = "/admin/session"


@pytest.fixture
def config(store: Installation) -> Config:
    """An address may fail as often as it likes: what is meant here is that of users."""
    return store.config(FAXBOT_LOGIN_FAILURES="0")


@pytest.fixture
def jo(at: Runtime) -> User:
    return new_user(at, "operator", name="Jo", password=PASSWORD)


def sign_in(
    client: FlaskClient, name: str = "jo", password: str = PASSWORD, **headers: str
) -> TestResponse:
    return client.post(ADDRESS, json={"name": name, "password": password}, headers=headers)


def body(response: TestResponse, status: int = 200) -> dict[str, Any]:
    assert response.status_code == status, response.data
    found: dict[str, Any] = json.loads(response.data)
    return found


def is_in(runtime: Runtime, token: str) -> bool:
    try:
        sessions.authenticate(runtime, token, in_background=True)
    except Unauthenticated:
        return False
    return True


def trail(runtime: Runtime) -> list[tuple[str, str, str | None, str]]:
    """What the audit trail says of sessions: deed, by whom, to what kind of thing, outcome."""
    rows = table(AuditEvent)
    wanted = sa.select(rows).where(rows.c.action.like("session.%")).order_by(rows.c.id)
    return [
        (row.action, row.actor, row.object_kind, row.outcome)
        for row in runtime.database.rows(wanted, {})
    ]


# The way in and out -------------------------------------------------------------------------------------------------


def test_who_knows_the_password_is_in_until_he_signs_out(at: Runtime, jo: User) -> None:
    client = client_of(at)
    answer = sign_in(client, " jo".strip().upper())
    session = body(answer)

    assert session["user"] == {"id": jo.id, "name": "Jo"}
    assert session["role"] == "operator"
    assert "operate" in session["scopes"]
    assert session["idle_minutes"] == 15
    assert body(client.get(ADDRESS)) == session
    assert client.get("/fax").status_code == 200
    csrf = {"X-CSRF-Token": session["csrf_token"]}
    assert body(client.delete(ADDRESS, headers=csrf)) == {"status": "signed out"}
    assert client.get_cookie("faxbot_session") is None
    assert_problem(client.get("/fax"), 401, "unauthenticated")
    assert trail(at) == [
        ("session.opened", jo.id, "session", "done"),
        ("session.closed", jo.id, "session", "done"),
    ]


@pytest.mark.usefixtures("jo")
def test_the_cookie_is_for_this_server_and_no_script(at: Runtime) -> None:
    header = sign_in(client_of(at)).headers["Set-Cookie"]
    name, *words = header.split("; ")

    assert name.startswith("faxbot_session=")
    assert len(name.partition("=")[2]) == 43
    assert set(words) == {"HttpOnly", "Path=/", "SameSite=Strict"}


def test_where_the_address_is_https_the_cookie_is_for_https_alone(store: Installation) -> None:
    runtime = wiring.build(store.config(PUBLIC_API_URL="https://fax.example.org"))
    try:
        new_user(runtime, name="jo", password=PASSWORD)
        client = client_of(runtime)
        name, *words = sign_in(client).headers["Set-Cookie"].split("; ")

        assert name.startswith("__Host-faxbot=")
        assert set(words) == {"Secure", "HttpOnly", "Path=/", "SameSite=Strict"}
    finally:
        runtime.close()


def test_the_database_has_no_token_and_no_password(at: Runtime, jo: User) -> None:
    client = client_of(at)
    csrf = body(sign_in(client))["csrf_token"]
    cookie = client.get_cookie("faxbot_session")
    assert cookie is not None

    with at.database.reading() as session:
        kept = str(
            [
                session.execute(sa.text(f"SELECT * FROM {name}")).all()
                for name in ("users", "user_sessions", "audit_events")
            ]
        )
    assert jo.id in kept
    assert not [word for word in (cookie.value, csrf, PASSWORD) if word in kept]


@pytest.mark.usefixtures("jo")
def test_each_login_is_a_new_session(at: Runtime) -> None:
    client = client_of(at)
    client.set_cookie("faxbot_session", "chosen-by-somebody-else-chosen-by-somebody-")
    tokens = []
    for _ in range(2):
        body(sign_in(client))
        cookie = client.get_cookie("faxbot_session")
        assert cookie is not None
        tokens.append(cookie.value)

    assert len({"chosen-by-somebody-else-chosen-by-somebody-", *tokens}) == 3
    assert all(is_in(at, token) for token in tokens)


def test_without_a_session_there_is_none_to_read(at: Runtime) -> None:
    client = client_of(at)
    for cookie in (None, "", "x", "x" * 43, "\u00e9" * 43):
        if cookie is not None:
            client.set_cookie("faxbot_session", cookie)
        assert_problem(client.get(ADDRESS), 401, "unauthenticated")
    with_key = client_of(at, new_key(at, "*"))
    assert_problem(with_key.get(ADDRESS), 403, "forbidden")


def test_an_old_session_is_not_taken_for_nobody(store: Installation) -> None:
    """Where nobody needs a key, who was signed in is told that he is not any more."""
    runtime = wiring.build(store.config(REQUIRE_API_KEY="false"))
    try:
        client = client_of(runtime)
        assert client.get("/fax").status_code == 200
        client.set_cookie("faxbot_session", "x" * 43)
        assert_problem(client.get("/fax"), 401, "unauthenticated")
    finally:
        runtime.close()


# When it is over ----------------------------------------------------------------------------------------------------


def test_who_does_nothing_is_signed_out_at_most_a_minute_early_and_never_late(
    at: Runtime, jo: User, clock: Clock
) -> None:
    token, idle = begun(at, jo), timedelta(minutes=15)
    last = clock.now
    for seconds in (30, 29, 60, 45, 14 * 60, 10, 70):
        clock.pass_by(seconds=seconds)
        sessions.authenticate(at, token)
        last = clock.now

    clock.now = last + idle - SEEN_EVERY
    assert is_in(at, token)
    clock.now = last + idle
    assert not is_in(at, token)


def test_a_page_that_asks_by_itself_keeps_nobody_signed_in(
    at: Runtime, jo: User, clock: Clock
) -> None:
    client = browser_of(at, jo)
    for _ in range(5):
        clock.pass_by(minutes=2, seconds=59)
        assert client.get("/fax", headers={"X-Background": "1"}).status_code == 200
    clock.pass_by(seconds=5)
    assert_problem(client.get("/fax", headers={"X-Background": "1"}), 401, "unauthenticated")


def test_after_twelve_hours_it_is_over_whatever_one_does(
    at: Runtime, jo: User, clock: Clock
) -> None:
    token, began = begun(at, jo), clock.now
    while clock.now - began < LONGEST:
        assert sessions.authenticate(at, token).id == jo.id
        clock.pass_by(minutes=10)
    assert not is_in(at, token)
    begun(at, jo)
    with at.database.reading() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(UserSession)) == 1


def test_how_long_one_may_do_nothing_is_a_setting_and_never_so_short_that_who_works_is_out(
    store: Installation, clock: Clock
) -> None:
    with pytest.raises(ConfigError, match="FAXBOT_SESSION_IDLE_MINUTES"):
        store.config(FAXBOT_SESSION_IDLE_MINUTES="1")
    runtime = replace(wiring.build(store.config(FAXBOT_SESSION_IDLE_MINUTES="2")), now=clock)
    try:
        token = begun(runtime, new_user(runtime))
        for _ in range(12):
            clock.pass_by(seconds=20)
            sessions.authenticate(runtime, token)
        clock.pass_by(minutes=2, seconds=-1)
        assert is_in(runtime, token)
        clock.pass_by(seconds=1)
        assert not is_in(runtime, token)
    finally:
        runtime.close()


def test_a_request_costs_one_question_and_a_note_once_a_minute(
    at: Runtime, jo: User, clock: Clock
) -> None:
    token = begun(at, jo)
    with statements(at) as asked:
        for seconds in (0, 59, 1, 59, 1):
            clock.pass_by(seconds=seconds)
            sessions.authenticate(at, token)

    assert asked == ["SELECT"] * 3 + ["UPDATE"] + ["SELECT"] * 2 + ["UPDATE"]


@pytest.mark.parametrize("deed", ["password", "disable"])
def test_another_password_and_being_disabled_end_all_sessions(
    at: Runtime, jo: User, deed: str
) -> None:
    tokens, other = [begun(at, jo) for _ in range(2)], begun(at, new_user(at))
    with at.database.transaction() as session:
        if deed == "password":
            users.change_password(session, CLI, jo.id, WRONG, now=at.now())
        else:
            users.disable(session, CLI, jo.id, now=at.now())

    assert [is_in(at, token) for token in (*tokens, other)] == [False, False, True]


def test_another_role_holds_from_the_next_request_on(at: Runtime, jo: User) -> None:
    client = browser_of(at, jo)
    assert client.get("/admin/providers").status_code == 200
    with at.database.transaction() as session:
        users.change_role(session, CLI, jo.id, "viewer", now=at.now())
    assert "operate" in assert_problem(client.get("/admin/providers"), 403, "forbidden")["detail"]


def test_one_changes_ones_own_password_by_the_old_one(at: Runtime, jo: User) -> None:
    client, other = browser_of(at, jo), begun(at, jo)
    address = f"{ADDRESS}/password"

    wish = {"old_password": WRONG, "password": "a quite different set of words"}
    assert_problem(client.post(address, json=wish), 401, "unauthenticated")
    short = {"old_password": PASSWORD, "password": "short"}
    assert (
        "password"
        in assert_problem(client.post(address, json=short), 422, "invalid-fields")["errors"]
    )
    assert is_in(at, other)
    session = body(client.post(address, json={**wish, "old_password": PASSWORD}))
    assert session["user"]["name"] == "Jo"
    assert not is_in(at, other)
    assert body(client.get(ADDRESS)) == session
    assert_problem(sign_in(client_of(at)), 401, "unauthenticated")
    assert sign_in(client_of(at), password=wish["password"]).status_code == 200


@contextmanager
def changed_while_it_is_compared(runtime: Runtime, user: User, to: str) -> Iterator[None]:
    """Right after what is kept of the password was first read, an administrator gives the user another one."""
    waiting = [to]

    def change(_connection: Any, _cursor: Any, text: str, *_: Any) -> None:
        if "password_hash" in text and waiting:
            with runtime.database.transaction() as session:
                users.change_password(session, CLI, user.id, waiting.pop(), now=runtime.now())

    sa.event.listen(runtime.database.reader, "after_cursor_execute", change)
    yield
    sa.event.remove(runtime.database.reader, "after_cursor_execute", change)
    assert not waiting


@pytest.mark.parametrize("deed", ["log in", "change it"])
def test_a_password_that_is_replaced_while_it_is_compared_is_good_for_nothing_more(
    at: Runtime, jo: User, deed: str
) -> None:
    replaced = "what an administrator gave him"
    him = replace(CLI, id=jo.id, scopes=ROLES["operator"], kind=USER)
    deeds: dict[str, Callable[[], object]] = {
        "log in": lambda: sessions.log_in(at, CLI, "jo", PASSWORD),
        "change it": lambda: sessions.change_own_password(at, him, PASSWORD, "many other words"),
    }
    with changed_while_it_is_compared(at, jo, replaced), pytest.raises(Unauthenticated):
        deeds[deed]()
    with at.database.reading() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(UserSession)) == 0
    assert sign_in(client_of(at), password=replaced).status_code == 200


# Who does not come in -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("jo")
def test_whoever_does_not_come_in_is_told_the_same(at: Runtime) -> None:
    out = new_user(at, name="out", password=PASSWORD)
    new_user(at, name="by another way")
    new_user(at, name="foreign", password=PASSWORD, account_id="other")
    with at.database.transaction() as session:
        users.disable(session, CLI, out.id, now=at.now())
    tries = [
        ("jo", WRONG), ("nobody", PASSWORD), ("out", PASSWORD), ("by another way", PASSWORD), ("foreign", PASSWORD),
    ]  # fmt: skip
    said = [assert_problem(sign_in(client_of(at), *one), 401, "unauthenticated") for one in tries]
    for one in said:
        del one["request_id"]
    assert all(one == said[0] for one in said)
    assert [row[:1] + row[2:] for row in trail(at)] == [
        ("session.refused", "user", "refused"),
        ("session.refused", None, "refused"),
        ("session.refused", "user", "refused"),
        ("session.refused", "user", "refused"),
        ("session.refused", None, "refused"),
    ]
    for name, password in tries:
        at.settings.catch_up()  # so that no look at the settings, which is due every two seconds, is among them
        with statements(at) as asked, pytest.raises(Unauthenticated):
            sessions.log_in(at, CLI, name, password)
        assert asked == ["SELECT", "SELECT", "UPDATE", "INSERT"]


@pytest.mark.usefixtures("jo")
def test_whoever_does_not_come_in_waits_as_long(at: Runtime) -> None:
    with at.database.transaction() as session:  # a wait for one and none for the other would show
        session.execute(sa.update(User).values(failures=-1000))
    times: dict[str, list[float]] = {"jo": [], "nobody": []}
    client = client_of(at)
    ratio = 0.0
    # On a busy machine the shortest of few says nothing yet; a step left out shows in all.
    for _ in range(60):
        for name, taken in times.items():
            began = perf_counter()
            sign_in(client, name, WRONG)
            taken.append(perf_counter() - began)
        ratio = min(times["jo"]) / min(times["nobody"])
        if len(times["jo"]) >= 7 and 0.6 < ratio < 1.7:
            break

    assert 0.6 < ratio < 1.7, times


def test_after_five_wrong_passwords_in_a_row_the_next_one_waits_and_longer_each_time(
    at: Runtime, jo: User, clock: Clock
) -> None:
    client = client_of(at)
    for _ in range(FREE_TRIES):
        assert sign_in(client, password=WRONG).status_code == 401
    waits = []
    for n in range(9):
        at_an_end = n in (0, 8)
        if at_an_end:
            assert sign_in(client).status_code == 401  # the right one, too early
        with at.database.reading() as session:
            until = session.get_one(User, jo.id).locked_until
        assert until is not None
        waits.append(until - clock.now)
        clock.now = until - timedelta(microseconds=1)
        if at_an_end:
            assert sign_in(client, password=WRONG).status_code == 401  # in the wait: not counted
        clock.now = until
        assert sign_in(client, password=WRONG).status_code == 401
    assert waits == [min(FIRST_WAIT * 2**n, LONGEST_WAIT) for n in range(9)]
    assert waits[-1] == LONGEST_WAIT

    clock.now += LONGEST_WAIT
    assert sign_in(client).status_code == 200
    with at.database.reading() as session:
        found = session.get_one(User, jo.id)
    assert (found.failures, found.locked_until) == (0, None)


def test_a_stranger_does_not_end_the_sessions_of_whom_he_delays(at: Runtime, jo: User) -> None:
    token, client = begun(at, jo), client_of(at)
    for _ in range(FREE_TRIES + 3):
        sign_in(client, password=WRONG)

    assert is_in(at, token)
    with at.database.transaction() as session:
        users.unlock(session, CLI, jo.id, now=at.now())
    assert sign_in(client).status_code == 200


@pytest.mark.usefixtures("jo")
def test_of_many_tries_at_once_no_more_count_than_are_free(at: Runtime) -> None:
    """Five are looked at; the right password among those behind them is not taken."""
    for number in range(FREE_TRIES):
        with pytest.raises(Unauthenticated):
            sessions.log_in(at, CLI, "jo", f"{WRONG}{number}")

    def right(_: int) -> bool:
        try:
            sessions.log_in(at, CLI, "jo", PASSWORD)
        except (
            Unauthenticated,
            SignInCrowded,
        ):  # the second: on a busy machine, who was not even looked at
            return False
        return True

    assert at_once(3, right) == [False] * 3


def test_an_address_that_fails_too_often_is_not_even_heard(store: Installation) -> None:
    runtime = wiring.build(store.config(FAXBOT_LOGIN_FAILURES="3"))
    try:
        new_user(runtime, name="jo", password=PASSWORD)
        token, client = begun(runtime, new_user(runtime)), client_of(runtime)
        for number in range(3):
            assert sign_in(client, f"nobody {number}", WRONG).status_code == 401
        assert_problem(sign_in(client), 429, "failed-logins")
        assert len(trail(runtime)) == 4
        assert is_in(runtime, token)
    finally:
        runtime.close()


def test_a_hash_of_weaker_parameters_is_renewed_at_the_next_login(at: Runtime, jo: User) -> None:
    from_before = (
        "$argon2id$v=19$m=8192,t=1,p=1$"
        "c29tZSBzYWx0IG9mIDE2IQ$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    )
    with at.database.transaction() as session:
        session.execute(sa.update(User).values(password_hash=from_before))
    assert sign_in(client_of(at)).status_code == 401
    with at.database.reading() as session:
        assert session.get_one(User, jo.id).password_hash == from_before


# What a browser does by itself ---------------------------------------------------------------------------------------

WISH = {"name": "n", "scopes": ["fax:read"]}


@pytest.fixture
def person(at: Runtime) -> FlaskClient:
    """An administrator's browser, which shows its token."""
    return browser_of(at, new_user(at))


def test_what_changes_something_needs_the_token_of_this_session(at: Runtime) -> None:
    user = new_user(at)
    bare, full = browser_of(at, user, csrf=False), browser_of(at, user)
    other = str(full.environ_base["HTTP_X_CSRF_TOKEN"])

    for token in (None, "", "x", other, "\u00e9"):
        headers = {} if token is None else {"X-CSRF-Token": token}
        refused = bare.post("/admin/api-keys", json=WISH, headers=headers)
        assert "X-CSRF-Token" in assert_problem(refused, 403, "csrf-token")["detail"]
        assert_problem(bare.delete(ADDRESS, headers=headers), 403, "csrf-token")
    assert bare.get("/admin/api-keys").status_code == 200
    assert full.post("/admin/api-keys", json=WISH).status_code == 201


@pytest.mark.usefixtures("jo")
@pytest.mark.parametrize(
    ("headers", "ours"),
    [
        ({}, True),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"}, False),
        ({"Origin": "http://localhost"}, True),
        ({"Origin": "http://127.0.0.1:8080"}, True),
        ({"Origin": "https://evil.example.org"}, False),
        ({"Origin": "http://localhost.evil.example.org"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://["}, False),
    ],
)
def test_a_page_of_another_site_changes_nothing_and_signs_nobody_in(
    at: Runtime, person: FlaskClient, headers: dict[str, str], ours: bool
) -> None:
    assert person.post("/admin/api-keys", json=WISH, headers=headers).status_code == (
        201 if ours else 403
    )
    assert sign_in(client_of(at), **headers).status_code == (200 if ours else 403)
    # Reading changes nothing, and other sites cannot read the answer.
    assert person.get("/fax", headers=headers).status_code == 200


def test_where_nobody_needs_a_key_another_sites_page_sends_nothing_either(
    store: Installation,
) -> None:
    """A form travels to any address without being asked for, also to one that only this machine reaches."""
    runtime = wiring.build(store.config(REQUIRE_API_KEY="false"))
    try:
        client, form = client_of(runtime), {"to": NUMBER}
        for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example.org"}):
            refused = client.post("/fax/send", data=form, headers=headers)
            assert_problem(refused, 403, "forbidden")
        assert_problem(client.post("/fax/send", data=form), 415, "media-type")
    finally:
        runtime.close()


def test_a_request_with_a_key_needs_no_token(at: Runtime, person: FlaskClient) -> None:
    key = new_key(at, "keys:manage", "fax:read")
    del person.environ_base["HTTP_X_CSRF_TOKEN"]
    headers = {"X-API-Key": key, "Origin": "https://elsewhere.example.org"}

    assert person.post("/admin/api-keys", json=WISH, headers=headers).status_code == 201
    assert person.post("/admin/api-keys", json=WISH).status_code == 403


@pytest.mark.usefixtures("jo")
@pytest.mark.parametrize(
    "wish",
    [
        {},
        {"name": "jo"},
        {"name": "jo", "password": ""},
        {"name": "jo", "password": "x" * 257},
        {"name": "x" * 65, "password": "x"},
        {"name": "nul\0", "password": "x"},
        {"name": "\ud800", "password": "x"},
        {"name": ["jo"], "password": PASSWORD},
        {"name": "jo", "password": PASSWORD, "role": "admin"},
    ],
)
def test_what_is_no_name_and_password_is_not_tried(at: Runtime, wish: dict[str, Any]) -> None:
    assert_problem(client_of(at).post(ADDRESS, json=wish), 422, "invalid-fields")
    assert trail(at) == []


@pytest.mark.usefixtures("jo")
def test_a_form_signs_nobody_in(at: Runtime) -> None:
    """Another site's page can send a form, and no JSON."""
    form = {"name": "jo", "password": PASSWORD}
    assert_problem(client_of(at).post(ADDRESS, data=form), 415, "media-type")
    text = client_of(at).post(ADDRESS, data=json.dumps(form), content_type="text/plain")
    assert_problem(text, 415, "media-type")
