"""What comes of the answers to the questions of the set-up: the carrier is asked whether it takes them, then all is
saved in one transaction, or nothing. The same for a terminal, a file of answers and a page.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from faxbot import activation, artifacts, configuration, identity, jobs, phone, users
from faxbot.actors import ADMIN, Actor
from faxbot.errors import ChangeRefused, InvalidFields
from faxbot.hidden import Hidden
from faxbot.plugins.manifest import Manifest
from faxbot.questions import UNTESTED, Answers, Standing, answered, provider, questions
from faxbot.spool import SpoolFile

NOTE = "faxbot setup"
TEST_PAGE = "This is a test page of faxbot.\n\nIf you can read it, faxes go out.\n"


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


def test(standing: Standing, answers: Answers) -> dict[str, Any]:
    """{"ok": bool, "detail": str}: whether the carrier lets us in with these answers; nothing is saved, no fax is sent.

    Raises InvalidFields, by question, for settings that do not hold together.
    """
    manifest = _chosen(standing, answers)
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


def send_test(standing: Standing, actor: Actor, answers: Answers) -> str | None:
    """Submit the test page, where one is wanted: the fax's id. Raises what jobs.submit() raises."""
    if not answers.get("test.make"):
        return None
    runtime = standing.runtime.fresh()
    file = SpoolFile(runtime.config.spool_dir)
    try:
        file.write(TEST_PAGE.encode())
        uploads = artifacts.accept(runtime, [(file.path, file.sha256, file.size)])
        submission = jobs.Submission(to=Hidden(answers["test.to"]), uploads=uploads)
        return jobs.submit(runtime, actor, submission, key=None, present=_no_body).job_id
    finally:
        file.remove()


def _no_body(_job: Any) -> bytes:
    return b""
