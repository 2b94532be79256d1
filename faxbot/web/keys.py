"""/admin/api-keys: make, list, rotate and revoke API keys, and change when they end."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from flask import Response

from faxbot import identity, users
from faxbot.errors import Forbidden, HasEnded, InvalidFields, NotFound
from faxbot.models import ApiKey
from faxbot.web import api, people_schemas, problems
from faxbot.web.auth import actor, runtime

blueprint = api.Blueprint("keys", __name__, description="Make, rotate and revoke API keys.")

_KEY_ID = [api.path("key_id", "the key's id")]


@blueprint.operation(
    "GET",
    "/admin/api-keys",
    access="keys:manage",
    answers={200: api.answer(people_schemas.Keys, "All keys, the ended ones too; no secrets.")},
)
def list_keys() -> Response:
    """List the keys"""
    with runtime().database.reading() as session:
        found = identity.list_keys(session, actor().account_id)
    return api.reply(problems.dumps({"items": [_describe(key) for key in found]}))


@blueprint.operation(
    "POST",
    "/admin/api-keys",
    access="keys:manage",
    body=people_schemas.KeyWish(),
    answers={201: api.answer(people_schemas.NewKey, "The key, with its token.")},
    errors=(Forbidden,),
)
def create_key(wish: dict[str, Any]) -> Response:
    """Make a key

    Its token is shown this once. A key cannot be given what you may not do yourself.
    """
    with runtime().database.transaction() as session:
        key, token = identity.create_key(
            session, runtime().keyring, actor=actor(), now=runtime().now(), **wish
        )
    return api.reply(problems.dumps({**_describe(key), "token": token}), 201)


@blueprint.operation(
    "POST",
    "/admin/api-keys/<key_id>/rotate",
    access="keys:manage",
    body=people_schemas.Rotation(),
    answers={200: api.answer(people_schemas.NewKey, "The key, with its new token.")},
    errors=(NotFound, HasEnded),
    parameters=_KEY_ID,
)
def rotate_key(wish: dict[str, Any], key_id: str) -> Response:
    """Give a key a new secret

    The new token is shown this once. The old one is good as well for `overlap_hours`, so that clients can be changed
    one by one; a token of an earlier rotation ends now.
    """
    overlap = timedelta(hours=wish["overlap_hours"])
    with runtime().database.transaction() as session:
        key, token = identity.rotate_key(
            session, runtime().keyring, actor(), key_id, overlap=overlap, now=runtime().now()
        )
    return api.reply(problems.dumps({**_describe(key), "token": token}))


@blueprint.operation(
    "POST",
    "/admin/api-keys/<key_id>/expire",
    access="keys:manage",
    body=people_schemas.KeyExpiry(),
    answers={200: api.answer(people_schemas.ChangedKey, "The key as it stands now.")},
    errors=(NotFound, HasEnded, InvalidFields),
    parameters=_KEY_ID,
)
def expire_key(wish: dict[str, Any], key_id: str) -> Response:
    """Change when a key ends"""
    with runtime().database.transaction() as session:
        key = identity.expire_key(session, actor(), key_id, wish["expires_at"], now=runtime().now())
        # A way in that ends some day is none to rely on: the question is what is left then.
        warning = users.nobody_left(
            session, runtime().config, key.account_id, key.expires_at or runtime().now()
        )
    return api.reply(problems.dumps({**_describe(key), "warning": warning}))


@blueprint.operation(
    "DELETE",
    "/admin/api-keys/<key_id>",
    access="keys:manage",
    answers={200: api.answer(people_schemas.ChangedKey, "It has ended.")},
    errors=(NotFound,),
    parameters=_KEY_ID,
)
def revoke_key(key_id: str) -> Response:
    """Revoke a key

    It ends at once and for good, with both of its secrets where it was rotated lately.
    """
    now = runtime().now()
    with runtime().database.transaction() as session:
        key = identity.revoke_key(session, key_id, now, actor=actor())
        warning = users.nobody_left(session, runtime().config, key.account_id, now)
    return api.reply(problems.dumps({**_describe(key), "warning": warning}))


def _describe(key: ApiKey) -> dict[str, Any]:
    return {**identity.describe(key, runtime().now()), "key_id": key.id}
