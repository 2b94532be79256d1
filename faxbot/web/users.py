"""/admin/users: who can sign in, and what he may do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Response

from faxbot import users
from faxbot.errors import Forbidden, NotFound, SignInCrowded
from faxbot.models import User
from faxbot.web import api, people_schemas, problems
from faxbot.web.auth import actor, runtime

blueprint = api.Blueprint("users", __name__, description="Who can sign in, and what he may do.")

_USER_ID = [api.path("user_id", "the user's id")]
_CHANGED = {200: api.answer(people_schemas.ChangedUser, "The user as he stands now.")}


@blueprint.operation(
    "GET",
    "/admin/users",
    access="admin",
    answers={200: api.answer(people_schemas.Users, "All users, the disabled ones too.")},
)
def list_users() -> Response:
    """List the users"""
    with runtime().database.reading() as session:
        found = users.everybody(session, actor().account_id)
    now = runtime().now()
    return api.reply(problems.dumps({"items": [users.describe(user, now) for user in found]}))


@blueprint.operation(
    "POST",
    "/admin/users",
    access="admin",
    body=people_schemas.UserWish(),
    answers={201: api.answer(people_schemas.User, "The user.")},
    errors=(Forbidden, SignInCrowded),
)
def create_user(wish: dict[str, Any]) -> Response:
    """Make a user

    Nobody can be given a role that may more than you.
    """
    now = runtime().now()
    with runtime().database.transaction() as session:
        user = users.create(session, actor(), now=now, **wish)
    return api.reply(problems.dumps(users.describe(user, now)), 201)


@blueprint.operation(
    "POST",
    "/admin/users/<user_id>/role",
    access="admin",
    body=people_schemas.RoleWish(),
    answers=_CHANGED,
    errors=(NotFound,),
    parameters=_USER_ID,
)
def change_user_role(wish: dict[str, Any], user_id: str) -> Response:
    """Give a user another role

    It holds from his next request on.
    """
    return _changed(users.change_role, user_id, role=wish["role"])


@blueprint.operation(
    "POST",
    "/admin/users/<user_id>/password",
    access="admin",
    body=people_schemas.PasswordWish(),
    answers=_CHANGED,
    errors=(NotFound, SignInCrowded),
    parameters=_USER_ID,
)
def change_user_password(wish: dict[str, Any], user_id: str) -> Response:
    """Give a user another password

    All of his sessions end.
    """
    return _changed(users.change_password, user_id, password=wish["password"])


@blueprint.operation(
    "POST",
    "/admin/users/<user_id>/disable",
    access="admin",
    answers=_CHANGED,
    errors=(NotFound,),
    parameters=_USER_ID,
)
def disable_user(user_id: str) -> Response:
    """Let a user in no more

    All of his sessions end. API keys do not belong to users: revoke those that he knows.
    """
    return _changed(users.disable, user_id)


@blueprint.operation(
    "POST",
    "/admin/users/<user_id>/enable",
    access="admin",
    answers=_CHANGED,
    errors=(NotFound,),
    parameters=_USER_ID,
)
def enable_user(user_id: str) -> Response:
    """Let a disabled user in again"""
    return _changed(users.enable, user_id)


@blueprint.operation(
    "POST",
    "/admin/users/<user_id>/unlock",
    access="admin",
    answers=_CHANGED,
    errors=(NotFound,),
    parameters=_USER_ID,
)
def unlock_user(user_id: str) -> Response:
    """Forget the wrong passwords that were tried for a user"""
    return _changed(users.unlock, user_id)


def _changed(change: Callable[..., User], user_id: str, **wish: str) -> Response:
    now = runtime().now()
    with runtime().database.transaction() as session:
        user = change(session, actor(), user_id, now=now, **wish)
        warning = users.nobody_left(session, runtime().config, user.account_id, now)
    return api.reply(problems.dumps({**users.describe(user, now), "warning": warning}))
