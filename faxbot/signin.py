"""Signing in by way of somebody else: an identity plugin proves who it is, and core decides who that is here, and what
he may do.

A user is bound to the provider's issuer and subject, never to a name or an e-mail address, which change hands there.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from faxbot import audit, limits, sessions, users
from faxbot.actors import ROLES, Actor
from faxbot.audit import REFUSED, Action
from faxbot.crypto import Unsealable
from faxbot.errors import (
    FaxbotError,
    IdentityAway,
    InvalidFields,
    NotFound,
    PluginError,
    ProviderError,
    Unauthenticated,
)
from faxbot.models import User
from faxbot.plugins.base import IdentityPlugin, Journey, Person
from faxbot.runtime import Runtime
from faxbot.sessions import Login

JOURNEY = timedelta(minutes=10)
"""Whoever takes longer to come back begins again."""
AT_ONCE = 2
"""So many threads of a process, which has three or more, are with identity providers: anybody may begin, and one that
hangs must not take them all."""
_CLOCKS_APART = timedelta(minutes=1)
"""The clocks of two machines differ by less."""
_LONGEST = 255
_NAMESAKES = 100
_AGAIN = "This sign-in was not begun with this browser, or too long ago: begin again."
_UNKNOWN = (
    "You have proven who you are, and there is no user here for you, or no role. The audit trail tells an "
    "administrator who asked."
)

log = logging.getLogger(__name__)
_turns = threading.BoundedSemaphore(AT_ONCE)


def ways(runtime: Runtime) -> list[dict[str, str]]:
    """The identity plugins through which people may sign in: id and name; as plain JSON types."""
    plugins = runtime.plugins
    wanted = runtime.config.identity_plugin_ids
    return [
        {"id": manifest.id, "name": manifest.name}
        for manifest in plugins.manifests()
        if manifest.id in wanted and manifest.has("oauth2")
    ]


def begin(runtime: Runtime, plugin_id: str) -> tuple[str, str]:
    """Where to send the browser, and what it is to keep, sealed, until it comes back. Raises NotFound, IdentityAway."""
    plugin = _plugin(runtime, plugin_id)
    with _faults(plugin_id):
        journey = plugin.begin(return_url(runtime, plugin_id))
        if type(journey) is not Journey:
            raise PluginError("it gives no Journey")
    kept = {"plugin": plugin_id, "memory": journey.memory, "at": runtime.now().timestamp()}
    sealed = runtime.keyring.seal(json.dumps(kept).encode(), _PLACE)
    return journey.url, base64.urlsafe_b64encode(sealed).decode()


def return_url(runtime: Runtime, plugin_id: str) -> str:
    """Where the browser comes back to; the provider has to know this address."""
    return f"{runtime.config.base_url}/admin/session/providers/{plugin_id}/finish"


def finish(
    runtime: Runtime, caller: Actor, plugin_id: str, answer: Mapping[str, str], kept: str | None
) -> Login:
    """A session for who came back, with what his browser kept; `caller` as sessions.log_in(). Raises NotFound,
    IdentityAway, FailedLogins as sessions.log_in(), and Unauthenticated for whatever proves nothing and for who has no
    place here."""
    plugin = _plugin(runtime, plugin_id)
    if not kept:
        # A page of another site can make browsers ask for this, and what they keep does not come with that: nobody's
        # address is to be barred by it.
        raise Unauthenticated(_AGAIN)
    limits.login_allowed(runtime, caller.address)
    try:
        memory = _memory(runtime, plugin_id, kept)
        with _faults(plugin_id):
            person = _as_said(plugin.finish(answer, memory))
    except Unauthenticated:
        with runtime.database.transaction() as session:
            _refuse(session, caller, runtime.now(), {"plugin": plugin_id})
        limits.login_failed(runtime, caller.address)
        raise
    now = runtime.now()
    with runtime.database.transaction() as session:
        user = _user(runtime, session, caller, person, now)
        if user is not None:
            return sessions.begin(runtime, session, caller, user, now=now)
        who = {"plugin": plugin_id, "issuer": person.issuer, "subject": person.subject}
        _refuse(session, caller, now, who)
    raise Unauthenticated(_UNKNOWN)


def _plugin(runtime: Runtime, plugin_id: str) -> IdentityPlugin:
    if plugin_id not in {way["id"] for way in ways(runtime)}:
        raise NotFound("there is no such way to sign in here (FAXBOT_IDENTITY_PLUGINS)")
    try:
        return runtime.plugins.get(plugin_id, IdentityPlugin)
    except PluginError as error:
        log.warning("identity plugin %s: %s", plugin_id, error.detail)
        raise IdentityAway from None


@contextmanager
def _faults(plugin_id: str) -> Iterator[None]:
    """What an identity plugin raises, as ours; the log says what it was. IdentityAway at once where too many wait."""
    if not _turns.acquire(blocking=False):
        raise IdentityAway
    try:
        yield
    except Unauthenticated:
        raise
    except (PluginError, ProviderError) as error:
        log.warning("identity plugin %s: %s", plugin_id, error.detail)
        raise IdentityAway from None
    except Exception as error:  # noqa: BLE001 - foreign code raises anything
        kind = "" if isinstance(error, FaxbotError) else f" ({type(error).__name__})"
        log.warning("identity plugin %s: it failed%s", plugin_id, kind)
        raise IdentityAway from None
    finally:
        _turns.release()


_PLACE = "browser.journey"


def _memory(runtime: Runtime, plugin_id: str, kept: str) -> str:
    """What begin() gave for this browser; raises Unauthenticated."""
    try:
        sealed = base64.urlsafe_b64decode(kept.encode())
        found = json.loads(runtime.keyring.open(sealed, _PLACE))
    except (Unsealable, binascii.Error, ValueError):
        raise Unauthenticated(_AGAIN) from None
    age = timedelta(seconds=runtime.now().timestamp() - found["at"])
    if found["plugin"] != plugin_id or not -_CLOCKS_APART <= age <= JOURNEY:
        raise Unauthenticated(_AGAIN)
    return str(found["memory"])


def _as_said(person: object) -> Person:
    if not isinstance(person, Person):
        raise PluginError("it gives no Person")
    for word in (person.issuer, person.subject):
        if type(word) is not str or not 1 <= len(word) <= _LONGEST or not word.isprintable():
            raise PluginError("its Person has no issuer and subject")
    return person


def _refuse(session: Session, caller: Actor, now: datetime, details: dict[str, Any]) -> None:
    audit.record(session, caller, Action.SESSION_REFUSED, now=now, outcome=REFUSED, details=details)


# Who that is here -----------------------------------------------------------------------------------------------------


def _user(
    runtime: Runtime, session: Session, caller: Actor, person: Person, now: datetime
) -> User | None:
    """The user of this person, in the role that his groups give him now; None for one who has no place here."""
    config = runtime.config
    role = config.role_of(person.groups)
    if config.sign_in_roles and role is None:
        return None
    user = session.scalars(
        sa.select(User)
        .where(
            User.account_id == caller.account_id,
            User.issuer == person.issuer,
            User.subject == person.subject,
        )
        .with_for_update()
    ).one_or_none()
    plugin = replace(caller, id="sign-in", scopes=frozenset({"*"}))
    if user is None:
        if role is None or not config.sign_in_creates_users:
            return None
        return _new(session, plugin, person, role, now)
    if user.disabled_at is not None:
        return None
    if role is not None and role != user.role and user.role in ROLES:
        users.change_role(session, plugin, user.id, role, now=now)
    return user


def _new(session: Session, actor: Actor, person: Person, role: str, now: datetime) -> User:
    """A user for this person. One who is called the same here is somebody else, and stays so."""
    spoken = "".join(character for character in person.name if character.isprintable()).strip()
    plain = (spoken or "user")[: users.NAME_LENGTH - 6].strip()
    names = [plain, *(f"{plain} ({number})" for number in range(2, _NAMESAKES))]
    free = next((n for n in names if users.find(session, actor.account_id, n) is None), None)
    if free is None:
        raise InvalidFields(errors={"name": ["too many users have this name"]})
    return users.create(
        session,
        actor,
        name=free,
        password=None,
        role=role,
        now=now,
        issuer=person.issuer,
        subject=person.subject,
    )
