"""API keys: who is asking, and what he may do.

A key reads fbk_live_<key id>_<secret>. The secret has 256 random bits, so a keyed hash
(HMAC-SHA256) keeps it as well as a password hash would and costs microseconds instead of 34 ms a
request (measured on the earlier Faxbot's scrypt).
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from faxbot import audit, limits
from faxbot.actors import CLI, SCOPES, Actor
from faxbot.audit import Action
from faxbot.config import Config
from faxbot.crypto import Keyring
from faxbot.db import UtcDateTime
from faxbot.errors import (
    DatabaseAway,
    FailedLogins,
    HasEnded,
    InvalidFields,
    NotFound,
    Unauthenticated,
)
from faxbot.events import DEFAULT_ACCOUNT
from faxbot.models import ApiKey
from faxbot.production import UNGUESSABLE
from faxbot.runtime import Runtime

ANONYMOUS = frozenset({"fax:send", "fax:read"})
ACTIVE, EXPIRED, REVOKED = "active", "expired", "revoked"
OVERLAP_HOURS, MOST_OVERLAP_HOURS = 24, 24 * 30
"""How long the secret of before a rotation lives on, when nothing else is said; and at most."""
_NONE = "0" * 64
"""No secret has this hash."""
_PRESENTED = re.compile(r"fbk_live_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_ID = re.compile(r"[0-9a-f]{12}")
_USED_EVERY = timedelta(minutes=10)
"""last_used_at is written at most this often: a write per request would cost more than the
request."""


def authenticate(runtime: Runtime, presented: str | None, address: str | None = None) -> Actor:
    """The actor behind a presented key; one SELECT. For a while after a rotation two secrets are good. Raises
    Unauthenticated, the same for every kind of wrong key, and FailedLogins where `address` has shown too many of
    them; a good key is let in from there too, since one address may stand for many machines."""
    config = runtime.config
    known = _without_row(config, presented)
    if presented is None:
        if known is None:
            raise Unauthenticated(
                "An API key is needed: send it as X-API-Key or as Authorization: Bearer.",
                why="no_key",
            )
        return known
    wait = limits.barred(runtime, address, limits.API_KEY)
    if known is not None:
        if wait and len(config.api_key) < UNGUESSABLE:
            raise FailedLogins(retry_after=wait)
        return known
    match = _PRESENTED.fullmatch(presented)
    if wait and (match is None or _hash(runtime.keyring, match[2]) not in _good_hashes(runtime)):
        raise FailedLogins(retry_after=wait)
    try:
        return _behind(runtime, match)
    except Unauthenticated:
        limits.login_failed(runtime, address, limits.API_KEY)
        raise


def _without_row(config: Config, presented: str | None) -> Actor | None:
    """The actor of no key, where none is needed, and of the environment's."""
    if presented is None:
        return None if config.keys_required else Actor(DEFAULT_ACCOUNT, "anonymous", ANONYMOUS)
    if config.api_key and hmac.compare_digest(presented.encode(), config.api_key.encode()):
        return Actor(DEFAULT_ACCOUNT, "env", frozenset({"*"}))
    return None


def _behind(runtime: Runtime, match: re.Match[str] | None) -> Actor:
    """The actor of a key in the database; raises Unauthenticated for one that is wrong in any way."""
    if match is None:
        raise Unauthenticated(_NOT_VALID, why="no_such_key")
    key_id, secret = match.groups()
    row = runtime.database.row(_FIND, {"key_id": key_id})
    now = runtime.now()
    shown = _hash(runtime.keyring, secret)
    # Both are compared whatever there is: how long it takes says nothing of whether there is such a key.
    matches = hmac.compare_digest(shown, row.secret_hash if row else _NONE)
    was = hmac.compare_digest(shown, (row.old_secret_hash if row else None) or _NONE)
    if row is None:
        raise Unauthenticated(_NOT_VALID, why="no_such_key")
    matches = matches or (was and row.old_secret_until > now)
    if not matches or row.revoked_at or (row.expires_at and row.expires_at <= now):
        raise Unauthenticated(_NOT_VALID, why=_why(row, matches=matches), key_id=key_id)
    if row.last_used_at is None or now - row.last_used_at > _USED_EVERY:
        _note_use(runtime, key_id, now)
    return Actor(row.account_id, key_id, frozenset(row.scopes))


_NOT_VALID = "This API key is not valid."


def _why(row: sa.Row[Any], *, matches: bool) -> str:
    """Why a key is refused, for the audit trail alone: to the client all wrong keys are alike."""
    if not matches:
        return "wrong_secret"
    return "revoked" if row.revoked_at else "expired"


def _good_hashes(runtime: Runtime) -> frozenset[str]:
    """What the hash of a good key is among, read once in a few seconds: so that a barred address costs no question
    for each key that it tries. Only who holds a good secret can tell it from another."""
    return runtime.tallies.remembered(
        "good keys",
        lambda: frozenset(
            secret
            for row in runtime.database.rows(_GOOD, {"now": runtime.now()})
            for secret in row
            if secret
        ),
    )


def _note_use(runtime: Runtime, key_id: str, now: datetime) -> None:
    lately = ApiKey.last_used_at.is_not(None) & (ApiKey.last_used_at >= now - _USED_EVERY)
    # A note is not worth a refused request: with the database busy the next request writes it.
    with suppress(DatabaseAway), runtime.database.transaction() as session:
        session.execute(
            sa.update(ApiKey).where(ApiKey.id == key_id, ~lately).values(last_used_at=now)
        )


def still_good(runtime: Runtime, presented: Collection[str | None]) -> dict[str | None, Actor]:
    """Of keys that authenticate() has let in (None: who came without one) those that it would let in now, and as whom;
    one SELECT for all. Nothing is noted or counted: nobody has shown them anew. Raises DatabaseAway."""
    actors = {key: _without_row(runtime.config, key) for key in presented}
    found = {key: actor for key, actor in actors.items() if actor is not None}
    matches = {key: _PRESENTED.fullmatch(key) for key in actors.keys() - found.keys() if key}
    of_rows = {key: match.groups() for key, match in matches.items() if match is not None}
    if of_rows:
        ids = {"key_ids": [key_id for key_id, _ in of_rows.values()]}
        rows = {row.id: row for row in runtime.database.rows(_FIND_ALL, ids)}
        for key, (key_id, secret) in of_rows.items():
            row = rows.get(key_id)
            if row is not None and _is_good(row, _hash(runtime.keyring, secret), runtime.now()):
                found[key] = Actor(row.account_id, key_id, frozenset(row.scopes))
    return found


def _is_good(row: sa.Row[Any], shown: str, now: datetime) -> bool:
    """Whether a secret with this hash opens the key of this row."""
    if row.revoked_at or (row.expires_at and row.expires_at <= now):
        return False
    if hmac.compare_digest(shown, row.secret_hash):
        return True
    return hmac.compare_digest(shown, row.old_secret_hash or _NONE) and row.old_secret_until > now


_COLUMNS = sa.select(
    ApiKey.id,
    ApiKey.account_id,
    ApiKey.secret_hash,
    ApiKey.scopes,
    ApiKey.expires_at,
    ApiKey.revoked_at,
    ApiKey.last_used_at,
    ApiKey.old_secret_hash,
    ApiKey.old_secret_until,
)
_FIND = _COLUMNS.where(ApiKey.id == sa.bindparam("key_id"))
_FIND_ALL = _COLUMNS.where(ApiKey.id.in_(sa.bindparam("key_ids", expanding=True)))


_NOW = sa.bindparam("now", type_=UtcDateTime)
_GOOD = sa.select(
    ApiKey.secret_hash, sa.case((ApiKey.old_secret_until > _NOW, ApiKey.old_secret_hash))
).where(ApiKey.revoked_at.is_(None), ApiKey.expires_at.is_(None) | (ApiKey.expires_at > _NOW))


def _hash(keyring: Keyring, secret: str) -> str:
    return keyring.keyed_hash(secret.encode(), "api-key")


def fits_name(name: str) -> bool:
    """Whether a key can be called so: 1 to 255 printable characters."""
    return 1 <= len(name) <= 255 and name.isprintable()


def create_key(
    session: Session,
    keyring: Keyring,
    *,
    name: str,
    scopes: Iterable[str],
    now: datetime,
    expires_at: datetime | None = None,
    actor: Actor = CLI,
) -> tuple[ApiKey, str]:
    """A new key of the actor's account, and the token to show once; raises InvalidFields for an unknown scope or an
    unusable name, Forbidden for a scope that the actor lacks."""
    wanted = sorted(set(scopes))
    if unknown := [scope for scope in wanted if scope not in SCOPES]:
        raise InvalidFields(
            errors={"scopes": [f"unknown: {', '.join(unknown)}; known: {', '.join(SCOPES)}"]}
        )
    if not wanted:
        raise InvalidFields(errors={"scopes": [f"at least one of: {', '.join(SCOPES)}"]})
    if not fits_name(name):
        raise InvalidFields(errors={"name": ["1 to 255 printable characters"]})
    _must_lie_ahead(expires_at, now)
    actor.require_all(wanted)
    secret = secrets.token_urlsafe(32)
    key = ApiKey(
        id=secrets.token_hex(6),
        account_id=actor.account_id,
        name=name,
        scopes=wanted,
        secret_hash=_hash(keyring, secret),
        created_at=now,
        expires_at=expires_at,
    )
    session.add(key)
    session.flush()
    audit.record(
        session, actor, Action.KEY_CREATED, ("key", key.id), now=now, details={"scopes": wanted}
    )
    return key, _token(key, secret)


def rotate_key(
    session: Session,
    keyring: Keyring,
    actor: Actor,
    key_id: str,
    *,
    overlap: timedelta,
    now: datetime,
) -> tuple[ApiKey, str]:
    """A new secret for a key, and its token to show once. The secret of before is good for `overlap` (0: no more);
    the one before that ends now. Raises NotFound, HasEnded, and Forbidden where the key has a scope that the actor
    lacks: he would get it."""
    key = one(session, actor, key_id, locked=True)
    actor.require_all(key.scopes)
    if _state(key, now) != ACTIVE:
        raise HasEnded
    secret = secrets.token_urlsafe(32)
    key.old_secret_hash = key.secret_hash if overlap else None
    key.old_secret_until = now + overlap if overlap else None
    key.secret_hash = _hash(keyring, secret)
    session.flush()
    hours = {"overlap_hours": overlap / timedelta(hours=1)}
    audit.record(session, actor, Action.KEY_ROTATED, ("key", key_id), now=now, details=hours)
    return key, _token(key, secret)


def expire_key(
    session: Session, actor: Actor, key_id: str, expires_at: datetime | None, *, now: datetime
) -> ApiKey:
    """Change when a key ends (None: never by itself). Raises NotFound, HasEnded, InvalidFields for a time that is
    over, and Forbidden where a key that has a scope that the actor lacks would live longer."""
    key = one(session, actor, key_id, locked=True)
    if _state(key, now) != ACTIVE:
        raise HasEnded
    _must_lie_ahead(expires_at, now)
    if key.expires_at is not None and (expires_at is None or expires_at > key.expires_at):
        actor.require_all(key.scopes)
    key.expires_at = expires_at
    session.flush()
    audit.record(session, actor, Action.KEY_EXPIRY_CHANGED, ("key", key_id), now=now)
    return key


def revoke_key(session: Session, key_id: str, now: datetime, *, actor: Actor = CLI) -> ApiKey:
    """End a key at once, with both of its secrets; raises NotFound. A second time changes nothing."""
    key = one(session, actor, key_id, locked=True)
    if key.revoked_at is None:
        key.revoked_at = now
        session.flush()
        audit.record(session, actor, Action.KEY_REVOKED, ("key", key_id), now=now)
    return key


def _must_lie_ahead(expires_at: datetime | None, now: datetime) -> None:
    if expires_at is not None and expires_at <= now:
        raise InvalidFields(errors={"expires_at": ["lies in the past"]})


def _token(key: ApiKey, secret: str) -> str:
    return f"fbk_live_{key.id}_{secret}"


def list_keys(session: Session, account_id: str = DEFAULT_ACCOUNT) -> Sequence[ApiKey]:
    """All keys of the account, newest first, the revoked ones too."""
    return session.scalars(
        sa.select(ApiKey)
        .where(ApiKey.account_id == account_id)
        .order_by(ApiKey.created_at.desc(), ApiKey.id)
    ).all()


def one(session: Session, actor: Actor, key_id: str, *, locked: bool = False) -> ApiKey:
    """The key of this id; raises NotFound."""
    known = _ID.fullmatch(key_id)
    key = session.get(ApiKey, key_id, with_for_update=locked or None) if known else None
    if key is None or key.account_id != actor.account_id:
        raise NotFound("there is no key of that id")
    return key


def describe(key: ApiKey, now: datetime) -> dict[str, Any]:
    """A key as it is shown, in plain JSON types: what it may do and how it stands, never a secret."""
    overlaps = key.old_secret_until is not None and key.old_secret_until > now
    return {
        "id": key.id,
        "name": key.name,
        "scopes": list(key.scopes),
        "state": _state(key, now),
        "created_at": stamp(key.created_at),
        "expires_at": stamp(key.expires_at),
        "last_used_at": stamp(key.last_used_at),
        "revoked_at": stamp(key.revoked_at),
        "old_secret_until": stamp(key.old_secret_until) if overlaps else None,
    }


def _state(key: ApiKey, now: datetime) -> str:
    if key.revoked_at:
        return REVOKED
    return EXPIRED if key.expires_at is not None and key.expires_at <= now else ACTIVE


def stamp(at: datetime | None) -> str | None:
    """A time as lists of keys and users tell it."""
    return at.isoformat() if at else None
