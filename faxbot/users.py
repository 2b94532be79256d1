"""People who sign in: made, given a role and a password, disabled, unlocked. What they do then is a matter of sessions.

Nobody is deleted, since the audit trail names users by their ids. A name is compared without difference of case.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from faxbot import audit, identity, passwords
from faxbot.actors import ADMIN, ROLES, Actor
from faxbot.audit import Action
from faxbot.config import Config
from faxbot.db import new_id
from faxbot.errors import InvalidFields, NotFound
from faxbot.models import User, UserSession

NAME_LENGTH = 64
_ID = re.compile(r"[0-9a-f]{32}")


def fits_name(name: str) -> bool:
    """Whether somebody can be called so: 1 to NAME_LENGTH printable characters, no space at an end."""
    return 1 <= len(name) <= NAME_LENGTH and name.isprintable() and name == name.strip()


def create(
    session: Session,
    actor: Actor,
    *,
    name: str,
    password: str | None,
    role: str,
    now: datetime,
    issuer: str | None = None,
    subject: str | None = None,
) -> User:
    """A new user of the actor's account. Raises InvalidFields for a name that is taken or unusable, an unknown role or
    a password that is not taken (see passwords.check()), Forbidden for a role that may more than the actor,
    SignInCrowded.

    `password` None with `issuer` and `subject`: he comes by way of that identity provider only.
    """
    _check_role(actor, role)
    if not fits_name(name):
        raise InvalidFields(errors={"name": [f"it has 1 to {NAME_LENGTH} printable characters"]})
    kept = None
    if password is not None:
        passwords.check(password, name)
        kept = passwords.keep(password)
    user = User(
        id=new_id(now),
        account_id=actor.account_id,
        name=name,
        name_key=name_key(name),
        role=role,
        password_hash=kept,
        issuer=issuer,
        subject=subject,
        created_at=now,
        password_changed_at=now if kept else None,
    )
    session.add(user)
    try:
        session.flush()
    except IntegrityError:
        raise InvalidFields(errors={"name": ["there is such a user already"]}) from None
    _note(session, actor, Action.USER_CREATED, user, now, {"role": role})
    return user


def name_key(name: str) -> str:
    """The form in which names are compared; at most 255 characters of one that is no user's."""
    return passwords.plain(name).casefold()[:255]


def find(session: Session, account_id: str, name: str) -> User | None:
    """The user of this name."""
    return session.scalars(
        sa.select(User).where(User.account_id == account_id, User.name_key == name_key(name))
    ).one_or_none()


def named(session: Session, actor: Actor, name: str) -> User:
    """The same; raises NotFound."""
    user = find(session, actor.account_id, name)
    if user is None:
        raise NotFound("there is no user of this name: `faxbot users list` shows all")
    return user


def everybody(session: Session, account_id: str) -> Sequence[User]:
    """All users of the account, by name, the disabled ones too."""
    return session.scalars(
        sa.select(User).where(User.account_id == account_id).order_by(User.name_key)
    ).all()


def one(session: Session, actor: Actor, user_id: str, *, locked: bool = False) -> User:
    """The user of this id; raises NotFound."""
    known = _ID.fullmatch(user_id)
    user = session.get(User, user_id, with_for_update=locked or None) if known else None
    if user is None or user.account_id != actor.account_id:
        raise NotFound("there is no user of that id")
    return user


def called(session: Session, account_id: str) -> dict[str, str]:
    """What users and keys are called, by their ids: as the audit trail names them."""
    found = {key.id: key.name for key in identity.list_keys(session, account_id)}
    return found | {user.id: user.name for user in everybody(session, account_id)}


def nobody_yet(session: Session, account_id: str) -> bool:
    """Whether no user was ever made in the account."""
    return session.scalar(sa.select(User.id).where(User.account_id == account_id).limit(1)) is None


def describe(user: User, now: datetime) -> dict[str, Any]:
    """A user as he is shown, in plain JSON types."""
    locked = user.locked_until is not None and user.locked_until > now
    return {
        "id": user.id,
        "name": user.name,
        "role": user.role,
        "state": "disabled" if user.disabled_at else "locked" if locked else "active",
        "locked_until": identity.stamp(user.locked_until) if locked else None,
        "external": user.subject is not None,
        "created_at": identity.stamp(user.created_at),
        "last_login_at": identity.stamp(user.last_login_at),
    }


# Changes; each raises NotFound, and Forbidden where the user may, or may then, do more than the actor -----------------


def change_role(session: Session, actor: Actor, user_id: str, role: str, *, now: datetime) -> User:
    """Give a user another role; his sessions have it with their next request. Raises InvalidFields."""
    user = _held(session, actor, user_id)
    _check_role(actor, role)
    details = {"from": user.role, "to": role}
    user.role = role
    session.flush()
    _note(session, actor, Action.USER_ROLE_CHANGED, user, now, details)
    return user


def change_password(
    session: Session, actor: Actor, user_id: str, password: str, *, now: datetime
) -> User:
    """Give a user another password, and end all of his sessions; what locked him is forgotten. Raises InvalidFields,
    SignInCrowded."""
    user = _held(session, actor, user_id)
    passwords.check(password, user.name)
    user.password_hash, user.password_changed_at = passwords.keep(password), now
    user.failures, user.locked_until = 0, None
    end_sessions(session, user)
    _note(session, actor, Action.USER_PASSWORD_CHANGED, user, now)
    return user


def disable(session: Session, actor: Actor, user_id: str, *, now: datetime) -> User:
    """Let a user in no more, and end his sessions."""
    user = _held(session, actor, user_id)
    if user.disabled_at is None:
        user.disabled_at = now
        end_sessions(session, user)
        _note(session, actor, Action.USER_DISABLED, user, now)
    return user


def enable(session: Session, actor: Actor, user_id: str, *, now: datetime) -> User:
    """Let a disabled user in again."""
    user = _held(session, actor, user_id)
    if user.disabled_at is not None:
        user.disabled_at = None
        session.flush()
        _note(session, actor, Action.USER_ENABLED, user, now)
    return user


def unlock(session: Session, actor: Actor, user_id: str, *, now: datetime) -> User:
    """Forget the wrong passwords that somebody tried for a user."""
    user = _held(session, actor, user_id)
    user.failures, user.locked_until = 0, None
    session.flush()
    _note(session, actor, Action.USER_UNLOCKED, user, now)
    return user


def bind(
    session: Session, actor: Actor, user_id: str, issuer: str, subject: str, *, now: datetime
) -> User:
    """Let a user come by way of an identity provider too: who he is there, for good. Raises InvalidFields where
    somebody else is that, or it cannot be."""
    user = _held(session, actor, user_id)
    for name, value in (("issuer", issuer), ("subject", subject)):
        if not 1 <= len(value) <= 255 or not value.isprintable():
            raise InvalidFields(errors={name: ["it has 1 to 255 printable characters"]})
    taken = sa.select(User.id).where(
        User.account_id == actor.account_id, User.issuer == issuer, User.subject == subject
    )
    if session.scalar(taken) not in (None, user.id):
        raise InvalidFields(errors={"subject": ["another user comes as that already"]})
    user.issuer, user.subject = issuer, subject
    session.flush()
    _note(session, actor, Action.USER_BOUND, user, now, {"issuer": issuer, "subject": subject})
    return user


def end_sessions(session: Session, user: User) -> None:
    """Sign a user out everywhere."""
    session.flush()
    session.execute(sa.delete(UserSession).where(UserSession.user_id == user.id))


def _held(session: Session, actor: Actor, user_id: str) -> User:
    user = one(session, actor, user_id, locked=True)
    if actor.id != user.id:
        actor.require_all(ROLES[user.role])
    return user


def _check_role(actor: Actor, role: str) -> None:
    if role not in ROLES:
        raise InvalidFields(errors={"role": [f"one of: {', '.join(ROLES)}"]})
    actor.require_all(ROLES[role])


def _note(
    session: Session,
    actor: Actor,
    action: Action,
    user: User,
    now: datetime,
    details: dict[str, str] | None = None,
) -> None:
    audit.record(session, actor, action, ("user", user.id), now=now, details=details)


# The last way in ------------------------------------------------------------------------------------------------------

_ADMINISTER = {"*", "admin", "keys:manage"}


def nobody_left(session: Session, config: Config, account_id: str, now: datetime) -> str | None:
    """A sentence where no key, no user and no API_KEY could administer this installation any more; the machine itself
    still can. For who has just taken one away."""
    if config.api_key:
        return None
    keys = (identity.describe(key, now) for key in identity.list_keys(session, account_id))
    if any(key["state"] == identity.ACTIVE and _ADMINISTER & {*key["scopes"]} for key in keys):
        return None
    if any(user.role == ADMIN and not user.disabled_at for user in everybody(session, account_id)):
        return None
    return (
        "Nobody can administer faxbot over HTTP now: at the machine, `faxbot keys create --name NAME --scope '*'` or "
        "`faxbot users create NAME` makes a new way in."
    )
