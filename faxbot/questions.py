"""The questions of the set-up: which there are depends on the answers so far, and each answer is checked by itself.

What a provider asks for is its manifest's configSchema; no question knows a provider by its name. A secret that is set
is shown as MASK, and kept where MASK or nothing comes back.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from faxbot import activation, identity, passwords, phone, users, wishes
from faxbot.actors import ADMIN, SCOPES, Actor
from faxbot.config import BY_NAME
from faxbot.errors import InvalidFields, Malformed
from faxbot.options import FALSE, TRUE
from faxbot.plugins import manifest as manifests
from faxbot.plugins.manifest import MASK, Manifest
from faxbot.runtime import Runtime
from faxbot.settings import OPTIONS, Snapshot

ASKED_OPTIONS = ("PUBLIC_API_URL", "FAXBOT_DEFAULT_REGION", "FAX_HEADER")
"""Of faxbot's own options those that a newcomer has an answer to."""
KEY_NAME, KEY_SCOPES = "first key", ("fax:send", "fax:read")
UNTESTED = "untested"
"""Among the answers: all is saved although the carrier does not take it."""

Answers = Mapping[str, Any]
"""By the question's key. None: as it is."""


def _anything(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True)
class Question:
    """One thing to be asked."""

    key: str
    """What the answer is called: `provider`, or below a heading, `settings.apiKey`."""
    title: str
    help: str = ""
    type: str = "string"
    """Of the answer, in JSON's words."""
    secret: bool = False
    required: bool = False
    choices: tuple[str, ...] = ()
    value: Any = None
    """What holds without an answer; MASK for a secret that is set."""
    saved: bool = False
    """Whether that is saved in the database, and can be taken back."""
    twice: bool = False
    """Whether it is made up here, so that a slip would lock somebody out: who asks, asks twice."""
    check: Callable[[Any], Any] = field(default=_anything, repr=False, compare=False)
    """The answer as it is kept; raises ValueError with words that follow the question's title."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How everything stands when the questions begin."""

    runtime: Runtime
    snapshot: Snapshot
    has_keys: bool
    has_admin: bool
    user_names: frozenset[str] = frozenset()
    """As users.name_key() has them."""

    def of_plugin(self, manifest: Manifest) -> dict[str, Any]:
        """The settings of a plugin as they hold now, complete or not."""
        environ = self.snapshot.config.environ
        return manifests.standing(manifest, environ, self.snapshot.of_plugin(manifest.id))


def begin(runtime: Runtime, actor: Actor) -> Standing:
    """Look how everything stands; raises DatabaseAway, ConfigError."""
    with runtime.database.reading() as session:
        now = runtime.now()
        keys = identity.list_keys(session, actor.account_id)
        everybody = users.everybody(session, actor.account_id)
    return Standing(
        runtime,
        runtime.settings.read(),
        has_admin=any(user.role == ADMIN and not user.disabled_at for user in everybody),
        user_names=frozenset(user.name_key for user in everybody),
        has_keys=any(not key.revoked_at and not _over(key.expires_at, now) for key in keys),
    )


def _over(at: datetime | None, now: datetime) -> bool:
    return at is not None and at <= now


# The questions --------------------------------------------------------------------------------------------------------


def questions(standing: Standing, answers: Answers) -> list[Question]:
    """Everything that is asked, in order, as far as the answers so far tell; an answer may bring further ones."""
    return [
        *_provider(standing),
        *_settings(standing, answers),
        *_others(standing, answers),
        *_options(standing),
        *_key(standing, answers),
        *_admin(standing, answers),
        *_test(standing, answers),
    ]


def unanswered(standing: Standing, answers: Answers) -> Question | None:
    """The next question; None: that was all."""
    return next((each for each in questions(standing, answers) if each.key not in answers), None)


def answered(answers: Answers, question: Question) -> Any:
    """What holds with these answers: the one to this question, else what held before."""
    given = answers.get(question.key)
    return question.value if given is None else given


def _provider(standing: Standing) -> Iterator[Question]:
    able = [each for each in standing.runtime.plugins.manifests() if each.has("send_fax")]
    active = standing.snapshot.config.provider_id
    ids = tuple(each.id for each in able)
    names = ", ".join(f"{each.id} ({each.name})" for each in able)
    yield Question(
        "provider",
        "Provider",
        f"Who sends the faxes: {names}.",
        choices=ids,
        required=True,
        value=active if active in ids else None,
        check=partial(_one_of, ids),
    )


def provider(standing: Standing, answers: Answers) -> Manifest | None:
    """The manifest of the chosen provider; None while none is."""
    (question,) = _provider(standing)
    chosen = answered(answers, question)
    return standing.runtime.plugins.manifest(chosen) if chosen else None


def _settings(standing: Standing, answers: Answers) -> Iterator[Question]:
    manifest = provider(standing, answers)
    if manifest is None:
        return
    own = [_setting(standing, manifest, key) for key in _own(manifest)]
    if not own:
        return
    if manifest.id in standing.snapshot.config.provider_ids:
        complete = all(each.value is not None for each in own if each.required)
        change = _yes_or_no(
            "change_settings",
            "Go through its settings?",
            f"{manifest.name} is active already." if complete
            else f"{manifest.name} is active, and not all that it needs is set here: somebody else may set it, "
            "as `faxbot up` does for a carrier of its own.",
            value=complete,
        )  # fmt: skip
        yield change
        if not answered(answers, change):
            return
    first = [each for each in own if each.required or each.secret or each.saved]
    yield from first
    if rest := [each for each in own if each not in first]:
        titles = ", ".join(each.title for each in rest)
        more = _yes_or_no("all_settings", "Go through the others too?", f"Not needed: {titles}.")
        yield more
        if answered(answers, more):
            yield from rest


def _own(manifest: Manifest) -> list[str]:
    """Its settings but those that all of faxbot goes by."""
    return [
        key
        for key in manifest.properties
        if not BY_NAME.keys() & set(manifest.variables.get(key, ()))
    ]


def _setting(standing: Standing, manifest: Manifest, key: str) -> Question:
    rule, now = manifest.properties[key], standing.of_plugin(manifest)
    secret = key in manifest.secrets
    return Question(
        f"settings.{key}",
        str(rule.get("title", key)),
        str(rule.get("description", "")),
        type=rule["type"],
        secret=secret,
        required=key in manifest.config_schema.get("required", ()),
        choices=tuple(str(each) for each in rule.get("enum", ())),
        value=MASK if secret and now.get(key) else now.get(key),
        saved=key in standing.snapshot.of_plugin(manifest.id),
        check=partial(_fits_setting, manifest, key),
    )


def _fits_setting(manifest: Manifest, key: str, value: Any) -> Any:
    rule = manifest.properties[key]
    if isinstance(value, str) and rule["type"] != "string":
        value = manifests.typed(rule, value)
    if faults := manifests.faults_of(manifest, key, value):
        raise ValueError("; ".join(faults))
    if words := activation.odd(rule, value):
        raise ValueError(words)
    return value


def _others(standing: Standing, answers: Answers) -> Iterator[Question]:
    manifest = provider(standing, answers)
    active = standing.snapshot.config.provider_ids
    others = [each for each in active if manifest is not None and each != manifest.id]
    if others:
        yield _yes_or_no(
            "alone",
            f"Take {', '.join(others)} out?",
            "Faxes that they have are followed to their end. No: they stay behind it, and see a fax only with an "
            "agreement (BAA).",
            value=manifest is not None and manifest.id != active[0],
        )


def _options(standing: Standing) -> Iterator[Question]:
    config = standing.snapshot.config
    for name in ASKED_OPTIONS:
        option = BY_NAME[name]
        if option.editable:
            yield Question(
                f"options.{name}",
                name,
                option.help,
                value=str(getattr(config, option.field)) or None,
                saved=name in standing.snapshot.of_plugin(OPTIONS),
                check=partial(_fits_option, standing, name),
            )


def _fits_option(standing: Standing, name: str, value: Any) -> str:
    text = _text(value)
    faults = standing.runtime.settings.faults({name: text})
    if fault := faults.get((OPTIONS, name)) or wishes.out_of_place(BY_NAME[name], text):
        raise ValueError(fault.removeprefix(f"{name} "))
    return text


def _key(standing: Standing, answers: Answers) -> Iterator[Question]:
    make = _yes_or_no(
        "key.make",
        "Make an API key?",
        "Programs send faxes with it. It is shown once.",
        value=not standing.has_keys,
    )
    yield make
    if not answered(answers, make):
        return
    yield Question(
        "key.name", "Name of the key", "What it is for.", value=KEY_NAME, check=_fits_name
    )
    yield Question(
        "key.scopes",
        "What the key may do",
        f"Separated by commas, of: {', '.join(SCOPES)}.",
        value=",".join(KEY_SCOPES),
        check=_fits_scopes,
    )


def _fits_name(value: Any) -> str:
    text = _text(value)
    if not identity.fits_name(text):
        raise ValueError("must be 1 to 255 printable characters")
    return text


def _fits_scopes(value: Any) -> str:
    parts = value if isinstance(value, list) else _text(value).split(",")
    scopes = [part.strip() for part in parts if isinstance(part, str) and part.strip()]
    if not scopes or not SCOPES.keys() >= set(scopes):
        raise ValueError(f"must be some of: {', '.join(SCOPES)}")
    return ",".join(dict.fromkeys(scopes))


def _admin(standing: Standing, answers: Answers) -> Iterator[Question]:
    make = _yes_or_no(
        "admin.make",
        "Make an administrator?",
        "A person who signs in with a name and a password.",
        value=not standing.has_admin,
    )
    yield make
    if not answered(answers, make):
        return
    yield Question(
        "admin.name",
        "Name of the administrator",
        required=True,
        check=partial(_fits_user_name, standing),
    )
    name = answers.get("admin.name") or ""
    yield Question(
        "admin.password",
        "Password of the administrator",
        f"At least {passwords.SHORTEST} characters; several words will do.",
        secret=True,
        required=True,
        twice=True,
        check=partial(_fits_password, name),
    )


def _fits_user_name(standing: Standing, value: Any) -> str:
    text = _text(value)
    if not users.fits_name(text):
        raise ValueError(f"must be 1 to {users.NAME_LENGTH} printable characters")
    if users.name_key(text) in standing.user_names:
        raise ValueError("is taken: there is a user of this name already")
    return text


def _fits_password(name: str, value: Any) -> str:
    text = _text(value)
    try:
        passwords.check(text, name)
    except InvalidFields as error:
        raise ValueError(f"is not taken: {error.errors['password'][0]}") from None
    return text


def _test(standing: Standing, answers: Answers) -> Iterator[Question]:
    make = _yes_or_no(
        "test.make",
        "Send a test page?",
        "When all is saved; the carrier may charge for it.",
        value=False,
    )
    yield make
    if answered(answers, make):
        yield Question(
            "test.to",
            "Number of the test page",
            "With + and country code, like +15550100000.",
            required=True,
            check=partial(_fits_number, standing, answers),
        )


def _fits_number(standing: Standing, answers: Answers, value: Any) -> str:
    region = answers.get("options.FAXBOT_DEFAULT_REGION")
    if region is None:
        region = standing.snapshot.config.default_region
    try:
        return phone.parse(_text(value), region)
    except Malformed as error:
        raise ValueError(error.detail.removeprefix("`to` ")) from None


def _yes_or_no(key: str, title: str, text: str, *, value: bool = False) -> Question:
    return Question(key, title, text, type="boolean", value=value, check=_fits_boolean)


def _fits_boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else ""
    if word in TRUE | {"y"}:
        return True
    if word in FALSE | {"n"}:
        return False
    raise ValueError("must be yes or no")


def _one_of(choices: Sequence[str], value: Any) -> str:
    if value not in choices:
        raise ValueError(f"must be one of: {', '.join(choices)}")
    return str(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a string")
    return value


# Answers --------------------------------------------------------------------------------------------------------------


def checked(question: Question, value: Any) -> Any:
    """The answer as it is kept: None where all stays as it is, "" where what is saved is taken back.

    Raises InvalidFields with the question's key and a sentence, never with the value.
    """
    kept = value is None or (question.secret and value == MASK)
    if kept or (value == "" and not question.saved):
        if question.required and question.value is None:
            raise _wrong(question, "is needed")
        return None
    if value == "":
        return ""
    try:
        return question.check(value)
    except ValueError as error:
        raise _wrong(question, str(error)) from None


def _wrong(question: Question, words: str) -> InvalidFields:
    # A title that is a question itself does not begin a sentence.
    sentence = f"{question.title} {words}." if question.title[-1] != "?" else f"It {words}."
    return InvalidFields(errors={question.key: [sentence]})


def read(standing: Standing, document: Any) -> dict[str, Any]:
    """The answers in decoded JSON, as template() gives it; what is not named stays as it is. Raises InvalidFields with
    everything that is wrong, by key, never with values."""
    given = _flat(document)
    flags = (UNTESTED, *(f"{head}.make" for head in _HEADS))
    errors: dict[str, Sequence[str]] = {
        flag: ["must be true or false"]
        for flag in flags
        if not isinstance(given.get(flag, False), bool)
    }
    unwanted = [head for head in _HEADS if given.get(f"{head}.make") is False]
    errors |= _given_all_the_same(standing, given, unwanted)
    given = {key: each for key, each in given.items() if key.partition(".")[0] not in unwanted}
    answers: dict[str, Any] = {UNTESTED: given.get(UNTESTED) is True, **_implied(given)}
    while (question := unanswered(standing, answers)) is not None:
        try:
            answers[question.key] = checked(question, given.get(question.key))
        except InvalidFields as error:
            errors |= error.errors
            answers[question.key] = None
    errors |= _unasked(standing, given, answers)
    if errors:
        raise InvalidFields(errors=errors)
    return answers


def _given_all_the_same(
    standing: Standing, given: Mapping[str, Any], unwanted: Sequence[str]
) -> dict[str, Sequence[str]]:
    """Where none is to be made, and it is said which: who filled that in wants one. What template() says of it does
    not count."""
    asked = (*_key(standing, _ALL), *_admin(standing, _ALL), *_test(standing, _ALL))
    errors: dict[str, Sequence[str]] = {}
    for head in unwanted:
        mine = [each for each in asked if each.key.startswith(f"{head}.") and each.key in given]
        filled = [each.key for each in mine if given[each.key] not in (each.value, False)]
        if filled:
            words = f"is false, and {', '.join(filled)} is given: make it true, or leave that away"
            errors[f"{head}.make"] = [words]
    return errors


def _implied(given: Mapping[str, Any]) -> dict[str, Any]:
    """Answers that follow from others: who names something wants it looked at, or made; else no key is made."""
    named = {key.partition(".")[0] for key in given}
    implied = {f"{head}.make": head in named for head in _HEADS}
    if "settings" in named:
        implied |= {"change_settings": True, "all_settings": True}
    return {key: value for key, value in implied.items() if key not in given}


_HEADS = ("key", "admin", "test")
"""What is made only where the answers name it."""
_ALL = {"change_settings": True, "all_settings": True, **{f"{head}.make": True for head in _HEADS}}


def _flat(document: Any) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise InvalidFields(errors={"answers": ["must be a JSON object: --print-answers shows it"]})
    flat: dict[str, Any] = {}
    for key, value in document.items():
        below = value.items() if isinstance(value, dict) else ()
        flat |= {f"{key}.{inner}": each for inner, each in below}
        if not isinstance(value, dict):
            flat[key] = value
    # null is no answer: everything is as it is.
    return {key: value for key, value in flat.items() if value is not None}


def _unasked(
    standing: Standing, given: Mapping[str, Any], answers: Answers
) -> dict[str, Sequence[str]]:
    """What is answered and nobody asks."""
    asked = [*answers, UNTESTED, *(each.key for each in questions(standing, answers))]
    if answers.get("provider") is None and "provider" in given:
        return {}  # with another provider other things are asked
    errors: dict[str, Sequence[str]] = {}
    for key in given.keys() - set(asked):
        # A key that looks like none may be anything: it is not repeated.
        name = key if re.fullmatch(r"[A-Za-z0-9_.]{1,80}", key) else "answers"
        near = difflib.get_close_matches(key, asked, n=1, cutoff=0.75)
        errors[name] = [f"is not asked for{f' (is {near[0]} meant?)' if near else ''}"]
    return errors


def everything(standing: Standing, provider_id: str) -> list[Question]:
    """All that can be asked where this provider is chosen."""
    return questions(standing, {**_ALL, "provider": provider_id})


def template(standing: Standing, provider_id: str | None = None) -> dict[str, Any]:
    """A document for read() with everything that can be answered; secrets, and what is not set, are null. Raises
    InvalidFields for a provider that is none."""
    (first,) = _provider(standing)
    chosen = checked(first, provider_id) or first.value
    document: dict[str, Any] = {"provider": chosen}
    for question in everything(standing, chosen):
        head, dot, key = question.key.partition(".")
        value = None if question.secret else question.value
        if dot:
            document.setdefault(head, {})[key] = value
        elif head not in _ALL:
            document[head] = value
    return {**document, "provider": chosen, UNTESTED: False}
