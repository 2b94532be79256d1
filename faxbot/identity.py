"""API keys: who is asking, and what he may do.

A key reads fbk_live_<key id>_<secret>. The secret has 256 random bits, so a keyed hash
(HMAC-SHA256) keeps it as well as a password hash would and costs microseconds instead of 34 ms a
request (measured on the earlier Faxbot's scrypt).
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from faxbot.crypto import Keyring
from faxbot.errors import DatabaseAway, Forbidden, InvalidFields, Unauthenticated
from faxbot.events import DEFAULT_ACCOUNT
from faxbot.models import ApiKey
from faxbot.runtime import Runtime

SCOPES: dict[str, str] = {
    "fax:send": "send and cancel faxes",
    "fax:read": "read faxes and their timelines",
    "inbound:list": "list received faxes",
    "inbound:read": "open received faxes",
    "webhooks:manage": "manage webhook subscriptions",
    "events:read": "read the event stream",
    "metrics": "read metrics",
    "keys:manage": "manage API keys; implies admin",
    "admin": "everything an administrator does",
    "*": "everything",
}
PLANNED_SCOPES = frozenset(
    {
        "inbound:list",
        "inbound:read",
        "webhooks:manage",
        "events:read",
        "metrics",
        "keys:manage",
    }
)
"""A key may have them, so that it need not be replaced later; no address asks for them yet."""
ANONYMOUS = frozenset({"fax:send", "fax:read"})
_PRESENTED = re.compile(r"fbk_live_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_USED_EVERY = timedelta(minutes=10)
"""last_used_at is written at most this often: a write per request would cost more than the
request."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks: an account, the key used, and its scopes."""

    account_id: str
    key_id: str
    scopes: frozenset[str]

    def may(self, scope: str) -> bool:
        if "*" in self.scopes or scope in self.scopes:
            return True
        return scope == "admin" and "keys:manage" in self.scopes

    def require(self, scope: str) -> None:
        """Raise Forbidden unless the actor has `scope`."""
        if not self.may(scope):
            raise Forbidden(f"This key lacks the scope {scope}.")


def authenticate(runtime: Runtime, presented: str | None) -> Actor:
    """The actor behind a presented key; one SELECT. Raises Unauthenticated, the same for every
    kind of wrong key."""
    config = runtime.config
    if presented is None:
        if config.require_api_key or config.api_key:
            raise Unauthenticated(
                "An API key is needed: send it as X-API-Key or as Authorization: Bearer."
            )
        return Actor(DEFAULT_ACCOUNT, "anonymous", ANONYMOUS)
    if config.api_key and hmac.compare_digest(presented.encode(), config.api_key.encode()):
        return Actor(DEFAULT_ACCOUNT, "env", frozenset({"*"}))
    match = _PRESENTED.fullmatch(presented)
    if match is None:
        raise Unauthenticated("This API key is not valid.")
    key_id, secret = match.groups()
    row = runtime.database.row(_FIND, {"key_id": key_id})
    now = runtime.now()
    expected = row.secret_hash if row else "0" * 64
    matches = hmac.compare_digest(_hash(runtime.keyring, secret), expected)
    if row is None or not matches or row.revoked_at or (row.expires_at and row.expires_at <= now):
        raise Unauthenticated("This API key is not valid.")
    if row.last_used_at is None or now - row.last_used_at > _USED_EVERY:
        _note_use(runtime, key_id, now)
    return Actor(row.account_id, key_id, frozenset(row.scopes))


def _note_use(runtime: Runtime, key_id: str, now: datetime) -> None:
    lately = ApiKey.last_used_at.is_not(None) & (ApiKey.last_used_at >= now - _USED_EVERY)
    # A note is not worth a refused request: with the database busy the next request writes it.
    with suppress(DatabaseAway), runtime.database.transaction() as session:
        session.execute(
            sa.update(ApiKey).where(ApiKey.id == key_id, ~lately).values(last_used_at=now)
        )


_FIND = sa.select(
    ApiKey.account_id,
    ApiKey.secret_hash,
    ApiKey.scopes,
    ApiKey.expires_at,
    ApiKey.revoked_at,
    ApiKey.last_used_at,
).where(ApiKey.id == sa.bindparam("key_id"))


def _hash(keyring: Keyring, secret: str) -> str:
    return keyring.keyed_hash(secret.encode(), "api-key")


def create_key(
    session: Session,
    keyring: Keyring,
    *,
    name: str,
    scopes: Iterable[str],
    now: datetime,
    account_id: str = DEFAULT_ACCOUNT,
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """A new key row and the token to show once; raises InvalidFields for an unknown scope or an
    unusable name."""
    wanted = sorted(set(scopes))
    if unknown := [scope for scope in wanted if scope not in SCOPES]:
        raise InvalidFields(
            errors={"scopes": [f"unknown: {', '.join(unknown)}; known: {', '.join(SCOPES)}"]}
        )
    if not wanted:
        raise InvalidFields(errors={"scopes": [f"at least one of: {', '.join(SCOPES)}"]})
    if not 1 <= len(name) <= 255 or not name.isprintable():
        raise InvalidFields(errors={"name": ["1 to 255 printable characters"]})
    if expires_at is not None and expires_at <= now:
        raise InvalidFields(errors={"expires_at": ["lies in the past"]})
    secret = secrets.token_urlsafe(32)
    key = ApiKey(
        id=secrets.token_hex(6),
        account_id=account_id,
        name=name,
        scopes=wanted,
        secret_hash=_hash(keyring, secret),
        created_at=now,
        expires_at=expires_at,
    )
    session.add(key)
    session.flush()
    return key, f"fbk_live_{key.id}_{secret}"


def list_keys(session: Session, account_id: str = DEFAULT_ACCOUNT) -> Sequence[ApiKey]:
    """All keys of the account, newest first, the revoked ones too."""
    return session.scalars(
        sa.select(ApiKey)
        .where(ApiKey.account_id == account_id)
        .order_by(ApiKey.created_at.desc(), ApiKey.id)
    ).all()


def revoke_key(
    session: Session, key_id: str, now: datetime, account_id: str = DEFAULT_ACCOUNT
) -> bool:
    """End a key at once; False when there is none of that id. A second time changes nothing."""
    key = session.get(ApiKey, key_id)
    if key is None or key.account_id != account_id:
        return False
    key.revoked_at = key.revoked_at or now
    session.flush()
    return True
