"""What comes of the answers to the questions of the set-up: the carrier is asked whether it takes them, then all is
saved in one transaction, or nothing. The same for a terminal, a file of answers and a page.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from faxbot import (
    activation,
    audit,
    configuration,
    identity,
    limits,
    passwords,
    phone,
    sessions,
    testpage,
    users,
)
from faxbot.actors import ADMIN, ROLES, STRANGER, Actor
from faxbot.audit import Action
from faxbot.config import BY_NAME
from faxbot.errors import (
    ChangeRefused,
    FailedLogins,
    Forbidden,
    InvalidFields,
    NotFound,
    NotPossibleNow,
    Unauthenticated,
)
from faxbot.events import DEFAULT_ACCOUNT
from faxbot.hidden import Hidden
from faxbot.plugins.manifest import Manifest
from faxbot.questions import UNTESTED, Answers, Standing, answered, provider, questions
from faxbot.runtime import Runtime
from faxbot.sessions import Login

NOTE = "faxbot setup"


@dataclass(frozen=True, slots=True)
class Done:
    """What was saved."""

    before: int
    """The version of the settings that can be gone back to."""
    version: int
    key_id: str | None = None
    token: str | None = field(default=None, repr=False)
    """The API key, to be shown this once."""
    user_id: str | None = None


def _changed(standing: Standing, answers: Answers, head: str) -> dict[str, Any]:
    """The answers below `head` that are not what holds already, by key; None takes back what is saved."""
    found: dict[str, Any] = {}
    for question in questions(standing, answers):
        where, _, key = question.key.partition(".")
        given = answers.get(question.key)
        if where == head and given is not None and given != question.value:
            found[key] = None if given == "" else given
    return found


def _order(standing: Standing, answers: Answers) -> dict[str, str]:
    """The option that says who sends, where it is to change."""
    manifest, active = provider(standing, answers), standing.snapshot.config.provider_ids
    if manifest is None:
        return {}
    others = [each for each in active if each != manifest.id]
    named = {question.key: answered(answers, question) for question in questions(standing, answers)}
    wanted = [manifest.id, *(() if named.get("alone") else others)]
    return {} if wanted == list(active) else {"FAX_BACKENDS": ",".join(wanted)}


def _chosen(standing: Standing, answers: Answers) -> Manifest:
    manifest = provider(standing, answers)
    if manifest is None:
        raise InvalidFields(errors={"provider": ["Provider is needed."]})
    return manifest


def must_be_tested(standing: Standing, answers: Answers) -> bool:
    """Whether the provider is another one, or is set otherwise, than what works already."""
    manifest = provider(standing, answers)
    is_new = manifest is not None and manifest.id not in standing.snapshot.config.provider_ids
    return is_new or bool(_changed(standing, answers, "settings"))


def test(standing: Standing, actor: Actor, answers: Answers) -> dict[str, Any]:
    """{"ok": bool, "detail": str}: whether the carrier lets us in with these answers, which is written down; nothing is
    saved, no fax is sent.

    Raises InvalidFields, by question, for settings that do not hold together, Forbidden, and PluginTestsCrowded.
    """
    actor.require_house()
    manifest = _chosen(standing, answers)
    with limits.one_test():
        found = _tested(standing, manifest, answers)
    outcome = audit.DONE if found["ok"] else audit.FAILED
    of = ("plugin", manifest.id)
    audit.note(standing.runtime, actor, Action.PROVIDER_TESTED, of, outcome=outcome)
    return found


def _tested(standing: Standing, manifest: Manifest, answers: Answers) -> dict[str, Any]:
    values = _changed(standing, answers, "settings")
    was = standing.snapshot.of_plugin(manifest.id)
    try:
        activation.examined(standing.runtime, manifest.id, values, was, untested=False)
    except ChangeRefused as error:
        return {"ok": False, "detail": error.detail}
    except InvalidFields as error:
        errors = {
            key if key == "settings" else f"settings.{key}": sentences
            for key, sentences in error.errors.items()
        }
        raise InvalidFields(errors=errors) from None
    return {"ok": True, "detail": ""}


def summary(standing: Standing, answers: Answers) -> list[str]:
    """What would be saved and done, a line each; names, never values that are secret or PHI."""
    lines = []
    manifest = provider(standing, answers)
    settings, options = (
        _changed(standing, answers, "settings"),
        _changed(standing, answers, "options"),
    )
    if manifest is not None and settings:
        lines.append(f"settings of {manifest.name}: {', '.join(settings)}")
    lines += [
        f"{name}: {'taken back' if value is None else value}" for name, value in options.items()
    ]
    lines += [f"who sends: {order}" for order in _order(standing, answers).values()]
    named = {question.key: answered(answers, question) for question in questions(standing, answers)}
    if named.get("key.make"):
        lines.append(f"an API key, {named['key.name']!r}, that may: {named['key.scopes']}")
    if named.get("admin.make"):
        lines.append(f"an administrator, {named['admin.name']!r}")
    if named.get("test.make"):
        lines.append(f"then a test page to {phone.mask(named['test.to'])}")
    return lines


def save(standing: Standing, actor: Actor, answers: Answers, *, note: str = NOTE) -> Done:
    """Save everything in one transaction. The carrier is asked first, unless the answers say `untested`.

    Raises ChangeRefused, InvalidFields; ChangedMeanwhile where somebody has saved something since begin().
    """
    runtime, before = standing.runtime, standing.snapshot.version
    manifest = _chosen(standing, answers)
    settings = _changed(standing, answers, "settings")
    wish = {
        **{f"{manifest.id}.{key}": value for key, value in settings.items()},
        **_changed(standing, answers, "options"),
        **_order(standing, answers),
    }
    made: dict[str, str] = {}

    def also(session: Session, now: datetime) -> None:
        made.update(_make(standing, session, actor, answers, now))

    configuration.change(
        runtime,
        actor,
        wish,
        note=note,
        seen=before,
        untested=bool(answers.get(UNTESTED)),
        also=also,
    )
    return Done(before, runtime.settings.stored().version, **made)


def _make(
    standing: Standing, session: Session, actor: Actor, answers: Answers, now: datetime
) -> Iterator[tuple[str, str]]:
    """Make the key and the administrator that were asked for; what Done tells of them."""
    named = {question.key: answered(answers, question) for question in questions(standing, answers)}
    if named.get("key.make"):
        key, token = identity.create_key(
            session,
            standing.runtime.keyring,
            name=named["key.name"],
            scopes=named["key.scopes"].split(","),
            now=now,
            actor=actor,
        )
        yield from (("key_id", key.id), ("token", token))
    if named.get("admin.make"):
        user = users.create(
            session,
            actor,
            name=named["admin.name"],
            password=named["admin.password"],
            role=ADMIN,
            now=now,
        )
        yield "user_id", user.id


def advice(standing: Standing) -> list[str]:
    """What is still to be thought of when all is saved; a sentence each."""
    config = standing.runtime.fresh().config
    found = []
    manifest = standing.runtime.plugins.manifest(config.provider_id)
    listened_to = manifest.has("listens")
    if manifest.has("status_callback") and not listened_to and not config.public_url:
        found.append(
            f"{manifest.name} calls back with news: it needs PUBLIC_API_URL, the address under which it reaches this "
            "server. Until then it is asked, which takes longer."
        )
    if listened_to:
        found.append(
            f"{manifest.name} must be listened to: `faxbot up` does it, or run `faxbot listen`."
        )
    return found


def send_test(
    standing: Standing, actor: Actor, answers: Answers, *, key: str | None = None
) -> str | None:
    """Submit the test page, where one is wanted: the fax's id, the same for the same `key`. Raises as
    testpage.send()."""
    if not answers.get("test.make"):
        return None
    return testpage.send(standing.runtime.fresh(), actor, Hidden(answers["test.to"]), key=key)


def nothing_is_set(runtime: Runtime) -> bool:
    """Whether nothing was ever saved, and faxes go where they go by default. Raises DatabaseAway, ConfigError."""
    snapshot = runtime.settings.snapshot()
    by_default = snapshot.config.provider_ids == (BY_NAME["FAX_BACKEND"].default,)
    return snapshot.version == 0 and by_default


# The first administrator ---------------------------------------------------------------------------------------------


def nobody_yet(runtime: Runtime) -> bool:
    """Whether no user was ever made: whoever runs this server makes the first one. Raises DatabaseAway."""
    with runtime.database.reading() as session:
        return users.nobody_yet(session, DEFAULT_ACCOUNT)


def first_administrator(
    runtime: Runtime, stranger: Actor, *, key: str, name: str, password: str
) -> Login:
    """Make the first user, an administrator, for who shows an API key that has every scope, and sign him in. Of two at
    once one does. `stranger`: who asks, as far as it is known by now.

    Raises NotFound once there is a user, whatever is shown; Unauthenticated for a wrong key, which is counted and
    written down as any other, and FailedLogins after too many; Forbidden for a key that may less; InvalidFields,
    NotPossibleNow, SignInCrowded.
    """
    if not nobody_yet(runtime):
        raise NotFound(_THERE_IS_ONE)
    actor = _proven(runtime, stranger, key)
    if not users.fits_name(name):
        raise InvalidFields(
            errors={"name": [f"it has 1 to {users.NAME_LENGTH} printable characters"]}
        )
    passwords.check(password, name)
    now = runtime.now()
    with runtime.database.transaction() as session:
        if not runtime.database.try_lock(session, _FIRST):
            raise NotPossibleNow("somebody else makes the first administrator just now")
        if not users.nobody_yet(session, DEFAULT_ACCOUNT):
            raise NotFound(_THERE_IS_ONE)
        user = users.create(session, actor, name=name, password=password, role=ADMIN, now=now)
        return sessions.begin(runtime, session, stranger, user, now=now)


def _proven(runtime: Runtime, stranger: Actor, key: str) -> Actor:
    """Who shows this key; raises as first_administrator()."""
    if not key:
        raise InvalidFields(errors={"key": ["it is needed"]})
    try:
        actor = identity.authenticate(runtime, key, stranger.address)
        actor.require_all(ROLES[ADMIN])
    except (Unauthenticated, Forbidden, FailedLogins) as error:
        why = error.why if isinstance(error, Unauthenticated) else error.code
        details = {"by": "key", "why": why}
        nobody = replace(stranger, id="stranger", kind=STRANGER)
        audit.note(
            runtime, nobody, Action.AUTHENTICATION_FAILED, outcome=audit.REFUSED, details=details
        )
        raise
    if actor.account_id != DEFAULT_ACCOUNT:
        raise Forbidden(
            "The first administrator is one of the whole installation: use a key of its own account."
        )
    return replace(actor, request_id=stranger.request_id, address=stranger.address)


_FIRST = hashlib.sha256(b"the first administrator").hexdigest()
_THERE_IS_ONE = "there is a user already: sign in, or have an administrator make you one"
