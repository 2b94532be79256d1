"""API keys: the list, making one, and one of them: a new secret, when it ends, and its end."""

from __future__ import annotations

from datetime import timedelta

from flask import Response, request

from faxbot import identity, users
from faxbot.actors import SCOPES
from faxbot.web.auth import actor, runtime
from faxbot.web.console import frame
from faxbot.web.people_schemas import KeyExpiry, KeyWish, Rotation

pages = frame.Pages("keys", __name__)

HOME = "/admin/ui/keys"
_ONCE = "What clients show, as X-API-Key or as Authorization: Bearer. Nobody can look it up later: keep it now."


@pages.page("/keys", access="keys:manage")
def list_keys() -> Response:
    """The list, with the ended ones."""
    with runtime().database.reading() as session:
        found = identity.list_keys(session, actor().account_id)
    now = runtime().now()
    return frame.show(
        "keys.html",
        rows=[identity.describe(key, now) for key in found],
        scopes=[each for each in SCOPES.items() if frame.may(each[0])],
    )


@pages.deed("/keys", access="keys:manage")
def create_key() -> Response:
    """Make one; its token is shown this once."""
    wish = frame.checked(KeyWish(), frame.days(request.form))
    with runtime().database.transaction() as session:
        key, token = identity.create_key(
            session, runtime().keyring, actor=actor(), now=runtime().now(), **wish
        )
        name = key.name
    return frame.reveal(f"The key {name}", _ONCE, token)


@pages.page("/keys/<key_id>", access="keys:manage")
def show_key(key_id: str) -> Response:
    """One of them."""
    with runtime().database.reading() as session:
        key = identity.describe(identity.one(session, actor(), key_id), runtime().now())
    return frame.show(
        "key.html",
        key=key,
        scopes=SCOPES,
        overlap=identity.OVERLAP_HOURS,
        most_overlap=identity.MOST_OVERLAP_HOURS,
    )


@pages.deed("/keys/<key_id>/rotate", access="keys:manage")
def rotate_key(key_id: str) -> Response:
    """A new secret; its token is shown this once."""
    wish = frame.checked(Rotation(), request.form)
    overlap = timedelta(hours=wish["overlap_hours"])
    with runtime().database.transaction() as session:
        key, token = identity.rotate_key(
            session, runtime().keyring, actor(), key_id, overlap=overlap, now=runtime().now()
        )
        name = key.name
    return frame.reveal(f"The new token of {name}", _ONCE, token)


@pages.deed("/keys/<key_id>/expire", access="keys:manage")
def expire_key(key_id: str) -> Response:
    """Change when it ends; an empty day: never by itself."""
    wish = frame.checked(KeyExpiry(), frame.days(request.form)) if _ends() else {"expires_at": None}
    with runtime().database.transaction() as session:
        key = identity.expire_key(session, actor(), key_id, wish["expires_at"], now=runtime().now())
        # As the API: the question is who is left then.
        warning = users.nobody_left(
            session, runtime().config, key.account_id, key.expires_at or runtime().now()
        )
    return frame.done("Changed.", warning)


def _ends() -> bool:
    return request.form.get("never") != "yes"


@pages.deed("/keys/<key_id>/revoke", access="keys:manage")
def revoke_key(key_id: str) -> Response:
    """End it at once and for good."""
    now = runtime().now()
    with runtime().database.transaction() as session:
        key = identity.revoke_key(session, key_id, now, actor=actor())
        warning = users.nobody_left(session, runtime().config, key.account_id, now)
    return frame.done("Revoked. Nobody is let in with it any more.", warning)
