"""Who has signed in: a session begins with a password, is shown as a cookie, and ends by itself.

Its token has 256 random bits and only a keyed hash of it is kept, as of API keys. It ends when nothing was done for
FAXBOT_SESSION_IDLE_MINUTES (automatic logoff, 45 CFR 164.312(a)(2)(iii)), after LONGEST in any case, and when its user
signs out, is disabled or gets another password.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from faxbot import audit, limits, passwords, users
from faxbot.actors import ROLES, USER, VIEWER, Actor
from faxbot.audit import REFUSED, Action
from faxbot.db import new_id, table
from faxbot.errors import CsrfTokenWrong, DatabaseAway, Unauthenticated
from faxbot.models import User, UserSession
from faxbot.runtime import Runtime

LONGEST = timedelta(hours=12)
SEEN_EVERY = timedelta(minutes=1)
"""When somebody was last there is written at most so often: a session may end by so much too early, never too late."""
FREE_TRIES = 5
FIRST_WAIT, LONGEST_WAIT = timedelta(seconds=30), timedelta(hours=1)
"""After so many wrong passwords in a row a user's next one counts only after a wait, which doubles with each further
one and is never longer than an hour (the range of NIST SP 800-63B-4, 3.2.2). Tries within the wait do not prolong it:
a stranger can delay somebody, again and again if he insists, and not shut him out for ever."""
WRONG = (
    "The name or the password is not right. After five wrong passwords in a row a user has to wait before the next one "
    "counts, half a minute first and never longer than an hour."
)
_LAPSED = "This session is over: sign in again."
_TOKEN_LENGTH = 43


@dataclass(frozen=True, slots=True)
class Login:
    """A session that has just begun."""

    token: str
    """What the browser keeps; shown nowhere else."""
    user: User
    expires_at: datetime


def log_in(runtime: Runtime, caller: Actor, name: str, password: str) -> Login:
    """Begin a session for whoever knows the password of this user; `caller` is who asks, as far as it is known by now
    (his address, the request). Raises Unauthenticated, the same for an unknown name, a wrong password, a user who is
    disabled and one who has to wait, and after the same time; FailedLogins where too many came from this address, and
    SignInCrowded."""
    limits.login_allowed(runtime, caller.address)
    user = runtime.database.row(_BY_NAME, _of_name(caller.account_id, name))
    kept = user.password_hash if user else None
    proven = kept if passwords.matches(password, kept) else None
    outdated = proven is not None and passwords.is_outdated(proven)
    rehashed = passwords.keep(password) if outdated else None
    now = runtime.now()
    with runtime.database.transaction() as session:
        found = _judged(session, user.id if user else "", proven, now)
        if found is not None:
            found.password_hash = rehashed or found.password_hash
            return begin(runtime, session, caller, found, now=now)
        of = ("user", user.id) if user else None
        audit.record(session, caller, Action.SESSION_REFUSED, of, now=now, outcome=REFUSED)
    limits.login_failed(runtime, caller.address)
    raise Unauthenticated(WRONG)


def _of_name(account_id: str, name: str) -> dict[str, str]:
    return {"account_id": account_id, "name_key": users.name_key(name)}


_BY_NAME = sa.select(User.id, User.password_hash).where(
    User.account_id == sa.bindparam("account_id"), User.name_key == sa.bindparam("name_key")
)


def _judged(session: Session, user_id: str, proven: str | None, now: datetime) -> User | None:
    """The user, if he may come in now; a wrong password is counted. `proven`: what was kept of the password that he
    showed; None: it was wrong. It is wrong as well when he has another one by now. The row is held, so that of many
    tries at once each sees what the ones before it left; and for an unknown user the same is asked and written as for
    a known one."""
    user = session.get(User, user_id, with_for_update=True)
    right = user is not None and proven is not None and user.password_hash == proven
    waits = user is not None and user.locked_until is not None and user.locked_until > now
    if user is not None and right and not waits and user.disabled_at is None:
        return user
    failures = user.failures + 1 if user is not None else 1
    counts = not right and not waits
    session.execute(
        sa.update(_USERS)
        .where(_USERS.c.id == (user_id if counts else ""))
        .values(failures=failures, locked_until=_locked_until(failures, now))
    )
    return None


_USERS = table(User)


def _locked_until(failures: int, now: datetime) -> datetime | None:
    over = failures - FREE_TRIES
    return now + min(FIRST_WAIT * 2 ** min(over, 20), LONGEST_WAIT) if over >= 0 else None


def begin(runtime: Runtime, session: Session, caller: Actor, user: User, *, now: datetime) -> Login:
    """A new session with a new token for a user who has proven himself, in the caller's transaction."""
    user.failures, user.locked_until, user.last_login_at = 0, None, now
    session.flush()
    # Those that are over are of no use to anybody; there are never many.
    session.execute(sa.delete(UserSession).where(UserSession.expires_at <= now))
    token = secrets.token_urlsafe(32)
    begun = UserSession(
        id=new_id(now),
        account_id=user.account_id,
        user_id=user.id,
        token_hash=_hash(runtime, token),
        created_at=now,
        seen_at=now,
        expires_at=now + LONGEST,
    )
    session.add(begun)
    session.flush()
    actor = replace(_actor(user.account_id, user.id, user.role), request_id=caller.request_id)
    audit.record(
        session,
        replace(actor, address=caller.address),
        Action.SESSION_OPENED,
        ("session", begun.id),
        now=now,
    )
    return Login(token, user, begun.expires_at)


def authenticate(runtime: Runtime, token: str, *, in_background: bool = False) -> Actor:
    """Who has this session; one SELECT, and an UPDATE once a minute. Raises Unauthenticated.

    `in_background`: a page asks by itself, which keeps nobody signed in.
    """
    row = runtime.database.row(_FIND, {"token_hash": _hash(runtime, token)})
    now = runtime.now()
    if row is None or _is_over(runtime, row, now) or row.disabled_at is not None:
        raise Unauthenticated(_LAPSED)
    if not in_background and now - row.seen_at >= SEEN_EVERY:
        _note_presence(runtime, row.id, now)
    return _actor(row.account_id, row.user_id, row.role)


def still_good(runtime: Runtime, tokens: Collection[str]) -> dict[str, Actor]:
    """Of tokens that authenticate() has let in those that it would let in now, and as whom; one SELECT for all. Nobody
    is taken for present by it. Raises DatabaseAway."""
    by_hash = {_hash(runtime, token): token for token in tokens}
    if not by_hash:
        return {}
    now = runtime.now()
    return {
        by_hash[row.token_hash]: _actor(row.account_id, row.user_id, row.role)
        for row in runtime.database.rows(_FIND_ALL, {"token_hashes": list(by_hash)})
        if not _is_over(runtime, row, now) and row.disabled_at is None
    }


def _is_over(runtime: Runtime, row: sa.Row[Any], now: datetime) -> bool:
    idle = timedelta(minutes=runtime.config.session_idle_minutes)
    return bool(row.expires_at <= now or row.seen_at + idle <= now)


def _actor(account_id: str, user_id: str, role: str) -> Actor:
    return Actor(account_id, user_id, ROLES.get(role, frozenset()), USER, masked=role == VIEWER)


def _note_presence(runtime: Runtime, session_id: str, now: datetime) -> None:
    due = (UserSession.id == session_id) & (UserSession.seen_at <= now - SEEN_EVERY)
    # As of API keys: a note is not worth a refused request.
    with suppress(DatabaseAway), runtime.database.transaction() as session:
        session.execute(sa.update(UserSession).where(due).values(seen_at=now))


_SESSIONS = sa.select(
    table(UserSession),
    User.name,
    User.role,
    User.disabled_at,
).join(User, User.id == UserSession.user_id)
_FIND = _SESSIONS.where(UserSession.token_hash == sa.bindparam("token_hash"))
_FIND_ALL = _SESSIONS.where(
    UserSession.token_hash.in_(sa.bindparam("token_hashes", expanding=True))
)


def describe(runtime: Runtime, token: str) -> dict[str, Any]:
    """Whose session it is and when it ends, in plain JSON types; raises Unauthenticated."""
    row = runtime.database.row(_FIND, {"token_hash": _hash(runtime, token)})
    if row is None:
        raise Unauthenticated(_LAPSED)
    return {
        "user": {"id": row.user_id, "name": row.name},
        "role": row.role,
        "scopes": sorted(ROLES.get(row.role, ())),
        "csrf_token": csrf_token(runtime, token),
        "idle_minutes": runtime.config.session_idle_minutes,
        "expires_at": row.expires_at.isoformat(),
    }


def csrf_token(runtime: Runtime, token: str) -> str:
    """What a request that changes something shows beside the cookie: who makes a browser send the cookie from another
    site does not know it."""
    return runtime.keyring.keyed_hash(token.encode(), "csrf")


def check_csrf(runtime: Runtime, token: str, shown: str) -> None:
    """Raise CsrfTokenWrong unless `shown` is the session's."""
    if not hmac.compare_digest(csrf_token(runtime, token).encode(), shown.encode(errors="replace")):
        raise CsrfTokenWrong


def end(runtime: Runtime, actor: Actor, token: str) -> None:
    """Sign out; a session that is over already is no error."""
    gone = sa.delete(UserSession).where(UserSession.token_hash == _hash(runtime, token))
    with runtime.database.transaction() as session:
        ended = session.scalar(gone.returning(UserSession.id))
        if ended is not None:
            of = ("session", ended)
            audit.record(session, actor, Action.SESSION_CLOSED, of, now=runtime.now())


def change_own_password(runtime: Runtime, actor: Actor, old: str, new: str) -> Login:
    """Another password for who knows his present one, and a new session in the place of all of his. Raises
    Unauthenticated for a wrong one, which counts as at a login, InvalidFields, SignInCrowded."""
    with runtime.database.reading() as session:
        user = session.get(User, actor.id)
    kept = user.password_hash if user else None
    proven = kept if passwords.matches(old, kept) else None
    now = runtime.now()
    with runtime.database.transaction() as session:
        found = _judged(session, actor.id, proven, now)
        if found is not None:
            users.change_password(session, actor, found.id, new, now=now)
            return begin(runtime, session, actor, found, now=now)
        of = ("user", actor.id)
        audit.record(session, actor, Action.USER_PASSWORD_CHANGED, of, now=now, outcome=REFUSED)
    raise Unauthenticated(WRONG)


def _hash(runtime: Runtime, token: str) -> str:
    return runtime.keyring.keyed_hash(token.encode(errors="replace"), "session")
