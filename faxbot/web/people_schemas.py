"""The shapes of keys, users and sessions; see web/schemas.py for the rules."""

from __future__ import annotations

import marshmallow as ma
from marshmallow import fields, validate

from faxbot.actors import ROLES, SCOPES
from faxbot.identity import ACTIVE, EXPIRED, MOST_OVERLAP_HOURS, OVERLAP_HOURS, REVOKED
from faxbot.passwords import LONGEST
from faxbot.users import NAME_LENGTH
from faxbot.web.schemas import EXAMPLE_ID, EXAMPLE_TIME, Count, Instant, printable, says

_SCOPES = fields.List(
    fields.String(validate=validate.OneOf(list(SCOPES))),
    required=True,
    validate=validate.Length(1, len(SCOPES), error="Choose at least one, and each once."),
    metadata=says("what it may do; nothing that you may not", ["fax:send", "fax:read"]),
)
_WARNING = fields.String(
    required=True,
    allow_none=True,
    metadata=says("a sentence where nobody could administer this server over HTTP any more"),
)


class Key(ma.Schema):
    """An API key, without its secret."""

    id = fields.String(required=True, metadata=says("its id", "0123456789ab"))
    key_id = fields.String(required=True, metadata=says("the same, for earlier clients"))
    name = fields.String(required=True, metadata=says("what it is for", "billing"))
    scopes = _SCOPES
    state = fields.String(
        required=True, validate=validate.OneOf([ACTIVE, EXPIRED, REVOKED]), metadata=says("now")
    )
    created_at = fields.AwareDateTime(required=True, metadata=says("in UTC", EXAMPLE_TIME))
    expires_at = fields.AwareDateTime(
        required=True, allow_none=True, metadata=says("when it ends by itself")
    )
    last_used_at = fields.AwareDateTime(
        required=True, allow_none=True, metadata=says("to within ten minutes")
    )
    revoked_at = fields.AwareDateTime(required=True, allow_none=True)
    old_secret_until = fields.AwareDateTime(
        required=True,
        allow_none=True,
        metadata=says("how long the secret of before the last rotation is good beside the new one"),
    )


class ChangedKey(Key):
    """An API key after a change that may have taken a way in."""

    warning = _WARNING


class NewKey(Key):
    """An API key with its token, which is shown this once."""

    token = fields.String(
        required=True, metadata=says("what clients show: X-API-Key, or Authorization: Bearer")
    )


class Keys(ma.Schema):
    """Every API key, newest first."""

    items = fields.List(fields.Nested(Key), required=True)


class KeyWish(ma.Schema):
    """A key to make."""

    name = fields.String(
        required=True,
        validate=[validate.Length(1, 255), printable],
        metadata=says("what it is for", "billing"),
    )
    scopes = _SCOPES
    expires_at = Instant(load_default=None, allow_none=True, metadata=says("when it is to end"))


class Rotation(ma.Schema):
    """How a key gets a new secret."""

    overlap_hours = Count(
        load_default=OVERLAP_HOURS,
        validate=validate.Range(0, MOST_OVERLAP_HOURS),
        metadata=says("for so long the old secret is good as well; 0: it ends at once"),
    )


class KeyExpiry(ma.Schema):
    """When a key ends."""

    expires_at = Instant(
        required=True,
        allow_none=True,
        metadata=says("when it is to end; null: never by itself", "2030-01-01T00:00:00Z"),
    )


_ROLE = fields.String(
    required=True,
    validate=validate.OneOf(list(ROLES)),
    metadata=says(
        "`admin` may everything; `operator` sends, reads, cancels, releases and settles faxes, and pauses and tests "
        "providers; `viewer` reads faxes, with masked numbers",
        "operator",
    ),
)
_USER_NAME = fields.String(
    required=True,
    validate=[validate.Length(1, NAME_LENGTH), printable],
    metadata=says("the name to sign in with", "jo"),
)


def _password(text: str) -> fields.String:
    return fields.String(
        required=True,
        validate=validate.Length(1, LONGEST),
        metadata=says(text, "several words that only I put together"),
    )


class User(ma.Schema):
    """Somebody who can sign in."""

    id = fields.String(required=True, metadata=says("his id", EXAMPLE_ID))
    name = fields.String(required=True, metadata=says("the name to sign in with", "jo"))
    role = _ROLE
    state = fields.String(
        required=True,
        validate=validate.OneOf(["active", "locked", "disabled"]),
        metadata=says("`locked`: after wrong passwords the next one counts only after a wait"),
    )
    locked_until = fields.AwareDateTime(required=True, allow_none=True)
    external = fields.Boolean(
        required=True, metadata=says("whether he comes by way of an identity provider")
    )
    created_at = fields.AwareDateTime(required=True, metadata=says("in UTC", EXAMPLE_TIME))
    last_login_at = fields.AwareDateTime(required=True, allow_none=True)


class ChangedUser(User):
    """A user after a change that may have taken a way in."""

    warning = _WARNING


class Users(ma.Schema):
    """Everybody who can sign in, by name."""

    items = fields.List(fields.Nested(User), required=True)


class UserWish(ma.Schema):
    """A user to make."""

    name = _USER_NAME
    password = _password("at least 15 characters, whichever; nothing that everybody tries first")
    role = _ROLE


class RoleWish(ma.Schema):
    """Another role."""

    role = _ROLE


class PasswordWish(ma.Schema):
    """Another password."""

    password = _password("at least 15 characters, whichever; nothing that everybody tries first")


class OwnPasswordWish(PasswordWish):
    """Another password for oneself."""

    old_password = _password("the present one")


class Credentials(ma.Schema):
    """Who signs in."""

    name = _USER_NAME
    password = _password("his password")


class SessionUser(ma.Schema):
    """Who has signed in."""

    id = fields.String(required=True, metadata=says("his id", EXAMPLE_ID))
    name = fields.String(required=True, metadata=says("his name", "jo"))


class Session(ma.Schema):
    """A session."""

    user = fields.Nested(SessionUser, required=True)
    role = _ROLE
    scopes = fields.List(fields.String(), required=True, metadata=says("what he may do"))
    csrf_token = fields.String(
        required=True,
        metadata=says("what every request that changes something shows as X-CSRF-Token"),
    )
    idle_minutes = fields.Integer(
        required=True,
        metadata=says("after so long without a request the session is over; at most a minute less"),
    )
    expires_at = fields.AwareDateTime(
        required=True, metadata=says("when it is over in any case", EXAMPLE_TIME)
    )


class SignedOut(ma.Schema):
    """A session that is over."""

    status = fields.String(required=True, metadata=says("a word", "signed out"))


class SignInWay(ma.Schema):
    """An identity provider through which people may sign in."""

    id = fields.String(required=True, metadata=says("the plugin's id", "oidc"))
    name = fields.String(required=True, metadata=says("what it is called", "OpenID Connect"))
    begin = fields.String(required=True, metadata=says("the address to send the browser to"))


class SignInWays(ma.Schema):
    """Identity providers through which people may sign in."""

    items = fields.List(fields.Nested(SignInWay), required=True)


class Elsewhere(ma.Schema):
    """Where to go."""

    location = fields.String(required=True, metadata=says("as in the header Location"))
