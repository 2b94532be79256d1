"""The service behind the set-up, as a page would call it: which questions there are, what an answer must be, and that
all is saved in one transaction."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy.orm import Session

from faxbot import (
    configuration,
    identity,
    jobs,
    passwords,
    questions,
    sending,
    setup,
    users,
    wiring,
)
from faxbot.actors import ADMIN, CLI
from faxbot.config import Config
from faxbot.errors import ChangedMeanwhile, ChangeRefused, InvalidFields
from faxbot.plugins.manifest import MASK
from faxbot.questions import Standing
from faxbot.runtime import Runtime
from tests.carrier import SimulatorProcess
from tests.installation import Installation

HEADER = "options.FAX_HEADER"
PASSWORD = "a heron walks over seven bridges"


@pytest.fixture
def config(store: Installation) -> Config:
    """Nothing but the stores is told by the environment."""
    return store.config()


@pytest.fixture
def standing(runtime: Runtime) -> Standing:
    return questions.begin(runtime, CLI)


def answers_for(carrier: SimulatorProcess, **more: Any) -> dict[str, Any]:
    settings = {"baseUrl": carrier.url, "secret": carrier.secret}
    return {
        "provider": "simulator",
        "change_settings": True,
        **{f"settings.{key}": value for key, value in settings.items()},
        "key.make": True,
        "admin.make": False,
        **more,
    }


def keys_of(standing: Standing, answers: dict[str, Any]) -> list[str]:
    return [question.key for question in questions.questions(standing, answers)]


def nothing_saved(runtime: Runtime) -> bool:
    with runtime.database.reading() as session:
        return runtime.settings.read().version == 0 and not identity.list_keys(session)


def test_an_answer_brings_the_questions_that_depend_on_it(standing: Standing) -> None:
    asked = keys_of(standing, {})
    assert asked[:2] == ["provider", "change_settings"]
    assert not [key for key in asked if key.startswith("settings.")], "somebody else may set it"

    asked = keys_of(standing, {"provider": "sinch", "key.make": False, "test.make": True})
    required = ("projectId", "apiKey", "apiSecret", "webhookUser", "webhookPassword")
    assert {f"settings.{key}" for key in required} < set(asked)
    assert "settings.authMethod" not in asked
    assert "alone" in asked
    assert "key.name" not in asked
    assert "test.to" in asked

    more = keys_of(standing, {"provider": "sinch", "all_settings": True})
    assert "settings.authMethod" in more


def test_a_question_says_what_the_manifest_says(standing: Standing) -> None:
    asked = {each.key: each for each in questions.everything(standing, "sinch")}
    manifest = standing.runtime.plugins.manifest("sinch")

    method = asked["settings.authMethod"]
    rule = manifest.properties["authMethod"]
    assert (method.title, method.help) == (rule["title"], rule["description"])
    assert (method.choices, method.value) == (("basic", "oauth2"), "basic")
    assert asked["settings.apiSecret"].secret
    assert not asked["settings.serviceId"].required


@pytest.mark.parametrize(
    ("provider_id", "key", "given", "kept"),
    [
        ("asterisk", "port", "5039", 5039),
        ("asterisk", "port", 5039, 5039),
        ("asterisk", "t38", "no", False),
        ("sinch", "authMethod", "oauth2", "oauth2"),
        ("sinch", "apiSecret", MASK, None),
        ("sinch", "serviceId", "", None),
    ],
)
def test_an_answer_is_kept_as_the_setting_has_it(
    standing: Standing, provider_id: str, key: str, given: Any, kept: Any
) -> None:
    asked = {each.key: each for each in questions.everything(standing, provider_id)}
    standing_secret = replace(asked[f"settings.{key}"], value=MASK) if given == MASK else None

    assert questions.checked(standing_secret or asked[f"settings.{key}"], given) == kept


@pytest.mark.parametrize(
    ("provider_id", "key", "given"),
    [
        ("asterisk", "port", "0"),
        ("asterisk", "port", "many"),
        ("asterisk", "port", 5.5),
        ("asterisk", "t38", "perhaps"),
        ("asterisk", "folder", "relative"),
        ("sinch", "authMethod", "none"),
        ("sinch", "baseUrl", "http://fax.example.org/v3"),
        ("sinch", "baseUrl", "https://fax.example.org/5550100000"),
        ("sinch", "apiSecret", MASK),
        ("sinch", "apiSecret", ""),
        ("sinch", "apiSecret", "\ud800"),
        ("sinch", "apiSecret", {"a": "b"}),
    ],
)
def test_a_wrong_answer_is_refused_by_its_question_and_never_repeated(
    standing: Standing, provider_id: str, key: str, given: Any
) -> None:
    asked = {each.key: each for each in questions.everything(standing, provider_id)}

    with pytest.raises(InvalidFields) as refused:
        questions.checked(asked[f"settings.{key}"], given)
    ((name, (sentence,)),) = refused.value.errors.items()
    assert name == f"settings.{key}"
    assert sentence.startswith(asked[name].title)
    assert len(str(given)) < 4 or str(given) not in sentence


def test_all_is_saved_in_one_transaction(
    runtime: Runtime, standing: Standing, carrier_of_all: SimulatorProcess
) -> None:
    answers = answers_for(carrier_of_all, **{HEADER: "Practice Dr. Who"})
    assert setup.test(standing, CLI, answers) == {"ok": True, "detail": ""}
    assert nothing_saved(runtime)

    done = setup.save(standing, CLI, answers)

    assert (done.before, done.version) == (0, 1)
    assert runtime.settings.read().config.fax_header == "Practice Dr. Who"
    assert identity.authenticate(runtime, done.token).id == done.key_id
    assert done.token is not None
    assert done.token not in repr(done)


def test_a_secret_that_is_set_is_never_in_a_question(
    runtime: Runtime, standing: Standing, carrier_of_all: SimulatorProcess
) -> None:
    setup.save(standing, CLI, answers_for(carrier_of_all))

    asked = questions.everything(questions.begin(runtime, CLI), "simulator")
    (secret,) = [each for each in asked if each.key == "settings.secret"]
    assert (secret.value, secret.saved) == (MASK, True)
    assert carrier_of_all.secret not in str(asked)


def test_what_the_carrier_does_not_take_is_not_saved_whoever_forgot_to_ask_it(
    runtime: Runtime, standing: Standing, carrier_of_all: SimulatorProcess
) -> None:
    answers = answers_for(carrier_of_all, **{"settings.secret": "not this one"})
    found = setup.test(standing, CLI, answers)
    assert not found["ok"]
    assert "not this one" not in found["detail"]

    with pytest.raises(ChangeRefused):
        setup.save(standing, CLI, answers)
    assert nothing_saved(runtime)

    setup.save(standing, CLI, {**answers, questions.UNTESTED: True})
    assert runtime.settings.read().version == 1


def test_what_somebody_else_saved_meanwhile_is_not_written_over(
    runtime: Runtime, standing: Standing, carrier_of_all: SimulatorProcess
) -> None:
    configuration.change(runtime, CLI, {"FAX_HEADER": "Another"}, note="meanwhile")

    with pytest.raises(ChangedMeanwhile):
        setup.save(standing, CLI, answers_for(carrier_of_all))

    assert runtime.settings.read().version == 1
    with runtime.database.reading() as session:
        assert not identity.list_keys(session)


def test_an_administrator_is_made_with_all_the_rest_or_nothing_is(
    runtime: Runtime, standing: Standing, carrier_of_all: SimulatorProcess
) -> None:
    name = {"admin.make": True, "admin.name": "nurse", "admin.password": PASSWORD}
    answers = answers_for(carrier_of_all, **name)
    assert any("administrator, 'nurse'" in line for line in setup.summary(standing, answers))
    with runtime.database.transaction() as session:
        users.create(session, CLI, name="Nurse", password=None, role=ADMIN, now=runtime.now())

    with pytest.raises(InvalidFields):
        setup.save(standing, CLI, answers)
    assert nothing_saved(runtime), "who was faster has the name"

    again = questions.begin(runtime, CLI)
    asked = {each.key: each for each in questions.questions(again, answers)}
    assert asked["admin.make"].value is False
    with pytest.raises(InvalidFields, match="not valid"):
        questions.checked(asked["admin.name"], "nurse")
    with pytest.raises(InvalidFields):
        questions.checked(asked["admin.password"], "nurse nurse nurse nurse")

    done = setup.save(again, CLI, {**answers, "admin.name": "doctor"})
    with runtime.database.reading() as session:
        doctor = users.find(session, CLI.account_id, "doctor")
        assert doctor is not None
        assert (doctor.id, doctor.role) == (done.user_id, ADMIN)
        assert passwords.matches(PASSWORD, doctor.password_hash)


@pytest.mark.parametrize("wish", [{"FAX_HEADER": "Practice"}, {}], ids=["change", "none"])
def test_what_is_done_with_a_change_is_done_with_it_or_both_are_not(
    runtime: Runtime, wish: dict[str, Any]
) -> None:
    def make(session: Session, now: datetime) -> None:
        identity.create_key(session, runtime.keyring, name="k", scopes=["*"], now=now)

    def fail(session: Session, now: datetime) -> None:
        make(session, now)
        raise InvalidFields(errors={"name": ["is taken"]})

    with pytest.raises(InvalidFields):
        configuration.change(runtime, CLI, wish, note="n", also=fail)
    assert nothing_saved(runtime)

    configuration.change(runtime, CLI, wish, note="n", also=make)
    assert runtime.settings.read().version == len(wish)
    with runtime.database.reading() as session:
        assert len(identity.list_keys(session)) == 1


def test_an_answer_that_changes_nothing_saves_nothing_and_asks_nobody(
    config: Config, carrier_of_all: SimulatorProcess
) -> None:
    """What the environment says already stays there."""
    environ = {**config.environ, **carrier_of_all.environ}
    runtime = wiring.build(Config.load(environ))
    try:
        standing = questions.begin(runtime, CLI)
        answers = {**answers_for(carrier_of_all), "key.make": False}
        answers["settings.secret"] = None
        assert not setup.must_be_tested(standing, answers)
        assert setup.summary(standing, answers) == []
        assert setup.save(standing, CLI, answers).version == 0
    finally:
        runtime.close()


def test_the_test_page_is_a_fax_as_any_other(
    runtime: Runtime, standing: Standing, carrier_of_all: SimulatorProcess
) -> None:
    answers = answers_for(carrier_of_all, **{"test.make": True, "test.to": "+15550100000"})
    setup.save(standing, CLI, answers)

    fax_id = setup.send_test(standing, CLI, answers)
    assert fax_id is not None
    assert setup.send_test(standing, CLI, {**answers, "test.make": False}) is None
    sending.attempt(runtime.fresh(), fax_id)

    job = jobs.describe(runtime, jobs.find(runtime, CLI, fax_id))
    assert (job["status"], job["pages"], job["provider_id"]) == ("sent", 1, "simulator")
    assert not list(runtime.config.spool_dir.glob("upload-*"))


def test_what_is_still_missing_is_advised(
    runtime: Runtime, standing: Standing, carrier_of_all: SimulatorProcess
) -> None:
    setup.save(standing, CLI, answers_for(carrier_of_all))
    assert "PUBLIC_API_URL" in " ".join(setup.advice(standing))

    wish = {"PUBLIC_API_URL": "https://fax.example.org"}
    configuration.change(runtime, CLI, wish, note="n")
    assert setup.advice(standing) == []
