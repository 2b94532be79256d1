"""Users, over HTTP and at the command: who can sign in, and that nobody makes himself more than he is."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from faxbot import sessions, users, wiring
from faxbot.actors import CLI, ROLES
from faxbot.db import new_id, table
from faxbot.errors import InvalidFields, Unauthenticated
from faxbot.models import AuditEvent, User
from faxbot.runtime import Runtime
from tests.installation import FAXBOT, Installation
from tests.integration.command import Ended, environment, one_line, run
from tests.integration.web import assert_problem, browser_of, client_of, new_key, new_user
from tests.threads import at_once

USERS = "/admin/users"
PASSWORD = "tall ships pass the quiet harbour"
OTHER = "a quite different set of words"
JO = {"name": "Jo", "password": PASSWORD, "role": "operator"}


@pytest.fixture
def admin(runtime: Runtime) -> FlaskClient:
    return client_of(runtime, new_key(runtime, "*"))


def body(response: TestResponse, status: int = 200) -> dict[str, Any]:
    assert response.status_code == status, response.data
    found: dict[str, Any] = json.loads(response.data)
    return found


def can_sign_in(runtime: Runtime, password: str = PASSWORD, name: str = "jo") -> bool:
    try:
        sessions.log_in(runtime, CLI, name, password)
    except Unauthenticated:
        return False
    return True


def deeds(runtime: Runtime) -> list[str]:
    rows = table(AuditEvent)
    wanted = sa.select(rows.c.action).where(rows.c.object_kind == "user").order_by(rows.c.id)
    return [row.action for row in runtime.database.rows(wanted, {})]


def test_a_user_is_made_changed_and_shut_out(runtime: Runtime, admin: FlaskClient) -> None:
    user = body(admin.post(USERS, json=JO), 201)
    assert (user["name"], user["role"], user["state"]) == ("Jo", "operator", "active")
    assert can_sign_in(runtime)
    one = f"{USERS}/{user['id']}"

    assert body(admin.post(f"{one}/role", json={"role": "viewer"}))["role"] == "viewer"
    assert body(admin.post(f"{one}/password", json={"password": OTHER}))["warning"] is None
    assert [can_sign_in(runtime), can_sign_in(runtime, OTHER)] == [False, True]
    assert body(admin.post(f"{one}/disable"))["state"] == "disabled"
    assert not can_sign_in(runtime, OTHER)
    assert body(admin.post(f"{one}/enable"))["state"] == "active"
    assert can_sign_in(runtime, OTHER)
    (listed,) = body(admin.get(USERS))["items"]
    assert listed["last_login_at"] is not None
    assert not {"password", "password_hash"} & set(listed)
    assert [deed for deed in deeds(runtime) if deed != "session.refused"] == [
        "user.created", "user.role_changed", "user.password_changed", "user.disabled", "user.enabled",
    ]  # fmt: skip


def test_a_locked_user_is_shown_and_unlocked(runtime: Runtime, admin: FlaskClient) -> None:
    user = body(admin.post(USERS, json=JO), 201)
    for _ in range(sessions.FREE_TRIES):
        assert not can_sign_in(runtime, OTHER)
    (listed,) = body(admin.get(USERS))["items"]

    assert (listed["state"], bool(listed["locked_until"])) == ("locked", True)
    assert not can_sign_in(runtime)
    assert body(admin.post(f"{USERS}/{user['id']}/unlock"))["state"] == "active"
    assert can_sign_in(runtime)


@pytest.mark.parametrize("name", ["jo", "JO", "\uff2a\uff4f"])
def test_a_name_is_taken_however_it_is_written(
    runtime: Runtime, admin: FlaskClient, name: str
) -> None:
    body(admin.post(USERS, json=JO), 201)
    wish = {**JO, "name": name}

    assert "name" in assert_problem(admin.post(USERS, json=wish), 422, "invalid-fields")["errors"]
    assert new_user(runtime, name=name, account_id="other").role == "admin"


def test_of_many_who_make_the_same_user_at_once_one_does(runtime: Runtime) -> None:
    def make(_: int) -> bool:
        try:
            new_user(runtime, name="Jo")
        except InvalidFields:
            return False
        return True

    assert sorted(at_once(4, make)) == [False, False, False, True]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": " jo"}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"name": "nul\0"}, "name"),
        ({"role": "root"}, "role"),
        ({"password": "short"}, "password"),
        ({"password": "passwordpassword"}, "password"),
        ({"password": "x" * 300}, "password"),
        ({"issuer": "me"}, "unknown"),
    ],
)
def test_a_user_that_makes_no_sense_is_not_made(
    admin: FlaskClient, change: dict[str, Any], field: str
) -> None:
    refused = assert_problem(admin.post(USERS, json={**JO, **change}), 422, "invalid-fields")

    assert field in refused["errors"]
    assert body(admin.get(USERS)) == {"items": []}


@pytest.mark.parametrize("role", ROLES)
def test_nobody_makes_a_user_who_may_more_than_himself_or_becomes_one(
    runtime: Runtime, role: str
) -> None:
    """A key with `admin` alone may manage users, and may not send: nor by way of a user."""
    client, user = client_of(runtime, new_key(runtime, "admin")), new_user(runtime, role)
    one = f"{USERS}/{user.id}"
    for answer in (
        client.post(USERS, json={**JO, "role": role}),
        client.post(f"{one}/password", json={"password": PASSWORD}),
        client.post(f"{one}/role", json={"role": role}),
        client.post(f"{one}/enable"),
        client.post(f"{one}/unlock"),
        client.post(f"{one}/disable"),
    ):
        assert_problem(answer, 403, "forbidden")
    with runtime.database.reading() as session:
        (only,) = users.everybody(session, "default")
    assert (only.id, only.password_hash) == (user.id, None)


def test_an_administrator_does_all_of_it_with_his_session(runtime: Runtime) -> None:
    client = browser_of(runtime, new_user(runtime, "admin"))
    user = body(client.post(USERS, json={**JO, "role": "admin"}), 201)

    assert body(client.post(f"{USERS}/{user['id']}/disable"))["warning"] is None


def test_who_shuts_out_the_last_administrator_is_told_so(runtime: Runtime) -> None:
    last = new_user(runtime, "admin")
    client = browser_of(runtime, last)
    key = client_of(runtime, new_key(runtime, "*"))

    assert body(key.post(f"{USERS}/{last.id}/disable"))["warning"] is None
    body(key.post(f"{USERS}/{last.id}/enable"))
    revoked = f"/admin/api-keys/{str(key.environ_base['HTTP_X_API_KEY']).split('_')[2]}"
    assert body(key.delete(revoked))["warning"] is None
    client = browser_of(runtime, last)
    warned = body(client.post(f"{USERS}/{last.id}/role", json={"role": "viewer"}))
    assert "`faxbot users create NAME`" in warned["warning"]


def test_two_identities_of_one_provider_are_two_users(runtime: Runtime) -> None:
    with runtime.database.transaction() as session:
        for subject in ("1", "2"):
            users.create(
                session, CLI, name=f"jo {subject}", password=None, role="viewer", now=runtime.now(),
                issuer="https://id.example.org", subject=subject,
            )  # fmt: skip
    with pytest.raises(InvalidFields), runtime.database.transaction() as session:
        users.create(
            session, CLI, name="jo 3", password=None, role="viewer", now=runtime.now(),
            issuer="https://id.example.org", subject="2",
        )  # fmt: skip
    assert not can_sign_in(runtime, "", "jo 1")


def test_a_name_of_no_user_is_found_to_be_none(runtime: Runtime) -> None:
    with runtime.database.reading() as session:
        assert users.find(session, "default", "\ufdfa" * 64) is None
    with pytest.raises(InvalidFields):
        new_user(runtime, name="\u2028")


# The command --------------------------------------------------------------------------------------------------------


def told(installation: Installation, text: str, *words: str) -> Ended:
    """`faxbot words...` with `text` on standard input."""
    done = subprocess.run(
        [FAXBOT, *words],
        env=environment(installation, {}),
        cwd=installation.folder,
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def test_the_first_user_is_an_administrator_and_the_next_ones_are_what_is_said(
    embedded: Installation,
) -> None:
    assert "no users yet" in run(embedded, "users", "list").out
    made = told(embedded, f"{PASSWORD}\n", "users", "create", "Jo", "--json")
    assert (made.code, made.json["role"]) == (0, "admin")
    assert PASSWORD not in made.out + made.err

    nothing = told(embedded, "", "users", "create", "sam", "--role", "viewer")
    assert (nothing.code, "pipe it in" in nothing.err) == (2, True)
    vague = told(embedded, f"{PASSWORD}\n", "users", "create", "sam")
    assert vague.code == 2
    assert "--role" in vague.err
    assert told(embedded, f"{PASSWORD}\n", "users", "create", "sam", "--role", "viewer").code == 0
    assert [(user["name"], user["role"]) for user in run(embedded, "users", "list", "--json").json] == [
        ("Jo", "admin"), ("sam", "viewer"),
    ]  # fmt: skip
    assert "never signed in" in run(embedded, "users", "list").out


def test_users_are_changed_by_their_names(embedded: Installation) -> None:
    told(embedded, f"{PASSWORD}\n", "users", "create", "Jo")

    assert run(embedded, "users", "role", "jo", "operator").code == 0
    assert "Nobody can administer" in run(embedded, "users", "disable", "JO").err
    assert run(embedded, "users", "enable", "jo").code == 0
    assert run(embedded, "users", "unlock", "jo").code == 0
    assert told(embedded, f"{OTHER}\n", "users", "password", "jo").code == 0
    runtime = wiring.build(embedded.config())
    try:
        assert [can_sign_in(runtime), can_sign_in(runtime, OTHER)] == [False, True]
        assert [deed for deed in deeds(runtime) if deed.startswith("user.")] == [
            "user.created", "user.role_changed", "user.disabled", "user.enabled", "user.unlocked",
            "user.password_changed",
        ]  # fmt: skip
    finally:
        runtime.close()


@pytest.mark.parametrize(
    ("words", "text", "said"),
    [
        (("create", "jo"), "short\n", "password: it has 15 to 256 characters"),
        (("create", " jo"), f"{PASSWORD}\n", "name: it has 1 to 64 printable characters"),
        (("password", "nobody"), f"{PASSWORD}\n", "there is no user of this name"),
        (("disable", "nobody"), "", "there is no user of this name"),
    ],
)
def test_what_is_wrong_is_one_line(
    embedded: Installation, words: tuple[str, ...], text: str, said: str
) -> None:
    ended = told(embedded, text, "users", *words)

    assert ended.code == 1
    assert said in one_line(ended.err)
    assert PASSWORD not in ended.err


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def test_at_a_terminal_the_password_is_asked_for_twice_and_not_shown(
    embedded: Installation, terminal: tuple[int, int]
) -> None:
    ours, theirs = terminal
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "faxbot.cli", "users", "create", "jo"],
        env=environment(embedded, {}),
        cwd=embedded.folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    seen = b""
    for word in (b"Password:", b"Repeat for confirmation:"):
        seen = read_until(ours, seen, word)
        os.write(ours, f"{PASSWORD}\n".encode())
    assert process.wait(timeout=30) == 0
    seen = read_until(ours, seen, b"jo can sign in as admin")

    assert PASSWORD.encode() not in seen
    runtime = wiring.build(embedded.config())
    try:
        assert can_sign_in(runtime)
    finally:
        runtime.close()


def read_until(terminal: int, seen: bytes, word: bytes) -> bytes:
    deadline = time.monotonic() + 30
    while word not in seen:
        ready, _, _ = select.select([terminal], [], [], max(deadline - time.monotonic(), 0))
        assert ready, seen
        seen += os.read(terminal, 4096)
    return seen


def test_no_password_is_an_argument(embedded: Installation) -> None:
    for command in ("create", "password"):
        shown = run(embedded, "users", command, "--help").out
        assert not re.search(r"--password|PASSWORD\]", shown)
        assert run(embedded, "users", command, "jo", PASSWORD).code == 2


def test_nobody_is_deleted(runtime: Runtime) -> None:
    """The audit trail names users by ids; there is no command and no address that would remove one."""
    user = new_user(runtime)
    refused = client_of(runtime, new_key(runtime, "*")).delete(f"{USERS}/{user.id}")

    assert refused.status_code == 404
    with runtime.database.reading() as session:
        assert session.get(User, user.id) is not None
        assert session.get(User, new_id()) is None
