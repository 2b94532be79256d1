"""Keys, users and one's own password in the console."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient

from faxbot import identity, users, wiring
from faxbot.actors import ADMIN, CLI, ROLES, SCOPES, VIEWER
from faxbot.errors import Unauthenticated
from faxbot.runtime import Runtime
from faxbot.web.console.people import ROLE_MEANINGS
from tests.installation import Stores
from tests.integration.console import BY_SCRIPT, deed, page, problem, said, shown_once, words
from tests.integration.web import SECRET, ahead, begun, browser_of, client_of, new_key, new_user

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
PASSWORD, OTHER = "tall ships pass the quiet harbour", "slow trains leave an empty platform"


@pytest.fixture(scope="module")
def runtime(stores: Stores) -> Iterator[Runtime]:
    runtime = wiring.build(
        stores.embedded().config(SIMULATOR_SECRET=SECRET, FAXBOT_LOGIN_FAILURES="0")
    )
    yield runtime
    runtime.close()


@pytest.fixture(scope="module")
def admin(runtime: Runtime) -> FlaskClient:
    return browser_of(runtime, new_user(runtime, ADMIN))


def is_good(runtime: Runtime, token: str) -> bool:
    try:
        identity.authenticate(runtime, token)
    except Unauthenticated:
        return False
    return True


def made(admin: FlaskClient, name: str, *scopes: str, **more: str) -> str:
    wish: dict[str, str | list[str]] = {"name": name, "scopes": ["", *scopes], **more}
    return shown_once(deed(admin, "/admin/ui/keys", 200, **wish))


# Keys ---------------------------------------------------------------------------------------------------


def test_a_key_is_made_with_the_scopes_that_were_ticked_and_its_token_is_shown_once(
    runtime: Runtime, admin: FlaskClient
) -> None:
    day = ahead(30)[:10]
    token = made(admin, "billing", "fax:send", "fax:read", expires_at=day)
    key_id = token.split("_")[2]
    actor = identity.authenticate(runtime, token)
    assert actor.scopes == {"fax:send", "fax:read"}
    with runtime.database.reading() as session:
        key = identity.one(session, CLI, key_id)
    assert key.expires_at is not None
    assert key.expires_at.isoformat() == f"{day}T00:00:00+00:00"
    for path in ("/admin/ui/keys", f"/admin/ui/keys/{key_id}"):
        text = page(admin, path)
        assert "billing" in text
        assert token.split("_", 3)[3] not in text


def test_every_scope_can_be_ticked_and_says_what_it_is(admin: FlaskClient) -> None:
    text = page(admin, "/admin/ui/keys")
    assert set(re.findall(r'name="scopes" value="([^"]+)"', text)) == set(SCOPES)
    assert all(meaning in words(text) for meaning in SCOPES.values())


@pytest.mark.parametrize(
    "wish",
    [
        {}, {"name": "n"}, {"name": "n", "scopes": ""}, {"name": "n", "scopes": "root"}, {"scopes": "fax:read"},
        {"name": "x" * 256, "scopes": "fax:read"}, {"name": "a\nb", "scopes": "fax:read"},
        {"name": "n", "scopes": "fax:read", "expires_at": "tomorrow"},
        {"name": "n", "scopes": "fax:read", "expires_at": "2001-01-01"},
        {"name": "n", "scopes": "fax:read", "expires_at": "9999-12-31"},
        {"name": "n", "scopes": "fax:read", "more": "1"}, {"name": ["n", "m"], "scopes": "fax:read"},
    ],
)  # fmt: skip
def test_a_key_that_cannot_be_is_refused_in_the_form(
    runtime: Runtime, admin: FlaskClient, wish: dict[str, str | list[str]]
) -> None:
    with runtime.database.reading() as session:
        before = len(identity.list_keys(session))
    problem(deed(admin, "/admin/ui/keys", 422, **wish), 422, "invalid-fields")
    with runtime.database.reading() as session:
        assert len(identity.list_keys(session)) == before


def test_a_rotated_key_has_two_tokens_for_as_long_as_was_asked(
    runtime: Runtime, admin: FlaskClient
) -> None:
    first = made(admin, "rotated", "fax:read")
    path = f"/admin/ui/keys/{first.split('_')[2]}"
    second = shown_once(deed(admin, f"{path}/rotate", 200, overlap_hours="2"))
    assert second != first
    assert is_good(runtime, first)
    assert is_good(runtime, second)
    assert "Two secrets" in page(admin, path)
    third = shown_once(deed(admin, f"{path}/rotate", 200, overlap_hours="0"))
    assert [is_good(runtime, each) for each in (first, second, third)] == [False, False, True]
    for bad in ("-1", "721", "1.5", "x"):
        problem(deed(admin, f"{path}/rotate", 422, overlap_hours=bad), 422, "invalid-fields")


def test_when_a_key_ends_can_be_changed_and_taken_back(
    runtime: Runtime, admin: FlaskClient
) -> None:
    key_id = made(admin, "ending", "fax:read").split("_")[2]
    path = f"/admin/ui/keys/{key_id}/expire"
    ends: list[str | None] = []
    for wish in ({"expires_at": ahead(3)[:10]}, {"never": "yes", "expires_at": ahead(3)[:10]}):
        assert said(deed(admin, path, **wish)).startswith("Changed.")
        with runtime.database.reading() as session:
            ends.append(identity.stamp(identity.one(session, CLI, key_id).expires_at))
    assert ends == [f"{ahead(3)[:10]}T00:00:00+00:00", None]
    problem(deed(admin, path, 422), 422, "invalid-fields")


def test_a_revoked_key_is_good_for_nothing_and_nothing_more_is_offered(
    runtime: Runtime, admin: FlaskClient
) -> None:
    token = made(admin, "revoked", "fax:read")
    path = f"/admin/ui/keys/{token.split('_')[2]}"
    assert "Revoked" in said(deed(admin, f"{path}/revoke"))
    assert not is_good(runtime, token)
    assert 'hx-post="' + path not in page(admin, path)
    problem(deed(admin, f"{path}/rotate", 409), 409, "has-ended")


def test_names_are_text(runtime: Runtime, admin: FlaskClient) -> None:
    answer = deed(admin, "/admin/ui/keys", 200, name=HOSTILE, scopes="fax:read")
    assert HOSTILE not in answer.text
    new_user(runtime, VIEWER, name="<img src=x onerror=alert(2)>")
    for path in ("/admin/ui/keys", "/admin/ui/users", "/admin/ui/audit"):
        text = page(admin, path)
        assert "<img" not in text
        assert "<script>" not in text


# Users --------------------------------------------------------------------------------------------------


def test_a_user_is_made_and_can_sign_in(runtime: Runtime, admin: FlaskClient) -> None:
    deed(admin, "/admin/ui/users", name="Sam", role="viewer", password=PASSWORD)
    answer = client_of(runtime).post(
        "/admin/ui/sign-in", data={"name": "sam", "password": PASSWORD, "next": ""}
    )
    assert answer.status_code == 303
    assert "Sam" in page(admin, "/admin/ui/users")


@pytest.mark.parametrize(
    "wish",
    [
        {}, {"name": "max"}, {"name": "max", "role": "viewer"}, {"name": "max", "role": "root", "password": PASSWORD},
        {"name": "max", "role": "viewer", "password": "too short"},
        {"name": "max", "role": "viewer", "password": "passwordpassword"},
        {"name": "max", "role": "viewer", "password": "x" * 5000},
        {"name": "x" * 65, "role": "viewer", "password": PASSWORD},
        {"name": "a\x00b", "role": "viewer", "password": PASSWORD},
    ],
)  # fmt: skip
def test_a_user_who_cannot_be_is_refused_in_the_form_and_his_password_is_not_repeated(
    admin: FlaskClient, wish: dict[str, str]
) -> None:
    answer = deed(admin, "/admin/ui/users", 422, **wish)
    problem(answer, 422, "invalid-fields")
    assert wish.get("password", "nothing") not in answer.text


def test_what_is_done_to_a_user_holds(runtime: Runtime, admin: FlaskClient) -> None:
    user = new_user(runtime, VIEWER, name="Kim")
    path, session_of = f"/admin/ui/users/{user.id}", browser_of(runtime, user)

    def state() -> tuple[str, str]:
        with runtime.database.reading() as session:
            found = users.describe(users.one(session, CLI, user.id), runtime.now())
        return found["role"], found["state"]

    deed(admin, f"{path}/role", role="operator")
    assert state() == ("operator", "active")
    deed(admin, f"{path}/password", password=PASSWORD)
    assert session_of.get("/admin/ui/").status_code == 303
    for _ in range(5):
        wrong = {"name": "kim", "password": "wrong", "next": ""}
        client_of(runtime).post("/admin/ui/sign-in", data=wrong)
    assert state() == ("operator", "locked")
    assert f"{path}/unlock" in page(admin, path)
    deed(admin, f"{path}/unlock")
    assert state() == ("operator", "active")
    deed(admin, f"{path}/disable")
    assert state() == ("operator", "disabled")
    text = page(admin, path)
    assert f"{path}/enable" in text
    assert f'{path}/disable"' not in text.partition("<dialog")[0]
    deed(admin, f"{path}/enable")
    assert state() == ("operator", "active")


def test_who_takes_the_last_way_in_is_warned(stores: Stores) -> None:
    runtime = wiring.build(stores.embedded().config(SIMULATOR_SECRET=SECRET))
    try:
        user = new_user(runtime, ADMIN)
        asks = browser_of(runtime, user)
        key_id = new_key(runtime, "*").split("_")[2]
        assert "Nobody can" not in said(deed(asks, f"/admin/ui/keys/{key_id}/revoke"))
        told = said(deed(asks, f"/admin/ui/users/{user.id}/role", role="viewer"))
        assert "Nobody can administer faxbot over HTTP now" in told
    finally:
        runtime.close()


def test_every_role_has_its_sentence() -> None:
    assert set(ROLE_MEANINGS) == set(ROLES)


# Oneself ------------------------------------------------------------------------------------------------


def test_everybody_changes_his_own_password_and_stays_signed_in_here_alone(
    runtime: Runtime,
) -> None:
    user = new_user(runtime, VIEWER, name="Vera", password=PASSWORD)
    here, elsewhere = browser_of(runtime, user), browser_of(runtime, user)
    assert "Vera" in page(here, "/admin/ui/account")
    answer = deed(here, "/admin/ui/account/password", old_password=PASSWORD, password=OTHER)
    assert "Changed" in said(answer)
    assert elsewhere.get("/admin/ui/account").status_code == 303
    page(here, "/admin/ui/account")
    proof = {"X-CSRF-Token": answer.headers["X-CSRF-Token"], **BY_SCRIPT}
    assert here.post("/admin/ui/sign-out", headers=proof).status_code == 204


def test_a_wrong_present_password_is_said_in_the_form_and_ends_no_session(runtime: Runtime) -> None:
    user = new_user(runtime, VIEWER, password=PASSWORD)
    here = browser_of(runtime, user)
    for wish in (
        {"old_password": OTHER, "password": OTHER},
        {"old_password": PASSWORD, "password": "short"},
        {"old_password": PASSWORD},
        {},
    ):
        answer = deed(here, "/admin/ui/account/password", 422, **wish)
        problem(answer, 422, "invalid-fields")
        assert OTHER not in answer.text
    page(here, "/admin/ui/account")
    assert begun(runtime, user)
