"""Users: the list, making one, and one of them; and everybody's own password."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Response, request

from faxbot import passwords, sessions, users
from faxbot.actors import ROLES
from faxbot.errors import InvalidFields, Unauthenticated
from faxbot.models import User
from faxbot.web import auth
from faxbot.web.auth import actor, runtime
from faxbot.web.console import frame
from faxbot.web.people_schemas import OwnPasswordWish, PasswordWish, RoleWish, UserWish

pages = frame.Pages("people", __name__)

ROLE_MEANINGS = {
    "admin": "may everything",
    "operator": "sends, reads, cancels, releases and settles faxes; pauses and tests providers",
    "viewer": "reads lists of faxes, with masked numbers",
}


@pages.page("/users", access="admin")
def list_users() -> Response:
    """The list, with the disabled ones."""
    with runtime().database.reading() as session:
        found = users.everybody(session, actor().account_id)
    now = runtime().now()
    rows = [users.describe(user, now) for user in found]
    return frame.show("users.html", rows=rows, **_asked())


def _asked() -> dict[str, Any]:
    """What forms that ask for roles and passwords say."""
    return {
        "roles": [(role, ROLE_MEANINGS[role]) for role in ROLES],
        "shortest": passwords.SHORTEST,
        "longest": passwords.LONGEST,
    }


@pages.deed("/users", access="admin")
def create_user() -> Response:
    """Make one."""
    wish = frame.checked(UserWish(), request.form)
    with runtime().database.transaction() as session:
        users.create(session, actor(), now=runtime().now(), **wish)
    return frame.done("Made. He can sign in with this password, and change it then.")


@pages.page("/users/<user_id>", access="admin")
def show_user(user_id: str) -> Response:
    """One of them."""
    with runtime().database.reading() as session:
        user = users.describe(users.one(session, actor(), user_id), runtime().now())
    return frame.show("user.html", user=user, oneself=user_id == actor().id, **_asked())


@pages.deed("/users/<user_id>/role", access="admin")
def change_user_role(user_id: str) -> Response:
    """Give him another role."""
    wish = frame.checked(RoleWish(), request.form)
    told = "Changed. It holds from his next request on."
    return _changed(told, users.change_role, user_id, role=wish["role"])


@pages.deed("/users/<user_id>/password", access="admin")
def change_user_password(user_id: str) -> Response:
    """Give him another password."""
    wish = frame.checked(PasswordWish(), request.form)
    told = "Changed. All of his sessions have ended."
    return _changed(told, users.change_password, user_id, password=wish["password"])


@pages.deed("/users/<user_id>/disable", access="admin")
def disable_user(user_id: str) -> Response:
    """Let him in no more."""
    told = "Disabled. All of his sessions have ended; revoke the API keys that he knows."
    return _changed(told, users.disable, user_id)


@pages.deed("/users/<user_id>/enable", access="admin")
def enable_user(user_id: str) -> Response:
    """Let him in again."""
    return _changed("Enabled. He can sign in again.", users.enable, user_id)


@pages.deed("/users/<user_id>/unlock", access="admin")
def unlock_user(user_id: str) -> Response:
    """Forget the wrong passwords that were tried."""
    return _changed("Unlocked. The next password counts at once.", users.unlock, user_id)


def _changed(told: str, change: Callable[..., User], user_id: str, **wish: str) -> Response:
    now = runtime().now()
    with runtime().database.transaction() as session:
        user = change(session, actor(), user_id, now=now, **wish)
        warning = users.nobody_left(session, runtime().config, user.account_id, now)
    return frame.done(told, warning)


# Oneself ------------------------------------------------------------------------------------------------


@pages.page("/account", access=auth.SESSION)
def show_account() -> Response:
    """Who one is here, and what one may."""
    return frame.show("account.html", meanings=ROLE_MEANINGS, oneself=True, **_asked())


@pages.deed("/account/password", access=auth.SESSION)
def change_own_password() -> Response:
    """Another password for who knows his present one; his other sessions end, and this one goes on as a new one."""
    wish = frame.checked(OwnPasswordWish(), request.form)
    try:
        login = sessions.change_own_password(
            runtime(), actor(), wish["old_password"], wish["password"]
        )
    except Unauthenticated as error:  # the session is good: what is wrong is in the form
        raise InvalidFields(errors={"old_password": [error.detail]}) from None
    answer = frame.done("Changed. Wherever else you were signed in, you are no more.")
    answer.headers["X-CSRF-Token"] = sessions.csrf_token(runtime(), login.token)
    auth.keep_session(answer, login.token)
    return answer
