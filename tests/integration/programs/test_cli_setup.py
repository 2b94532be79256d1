"""`faxbot setup` at a real terminal and from a file of answers, with a real carrier: each answer is checked at once,
the carrier decides, and nothing is half saved."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from faxbot import identity, users, wiring
from faxbot.actors import ADMIN, CLI
from faxbot.plugins.manifest import MASK
from faxbot.runtime import Runtime
from tests.carrier import SimulatorProcess
from tests.conftest import StartService
from tests.installation import FAXBOT, Installation
from tests.integration.command import Ended, one_line, run, run_process
from tests.integration.terminal import Terminal

PROVIDER = "Provider (asterisk"
HEADER = "Practice Dr. Who"
ADMINISTRATOR, PASSWORD = "head nurse", "a heron walks over seven bridges"


@pytest.fixture
def carrier(carrier_of_all: SimulatorProcess) -> SimulatorProcess:
    return carrier_of_all


def setup(installation: Installation, **changes: str) -> Terminal:
    """`faxbot setup` at a terminal."""
    return Terminal([FAXBOT, "setup"], {**installation.env, **changes}, installation.folder)


@contextmanager
def looking(installation: Installation) -> Iterator[Runtime]:
    """As another process finds it."""
    runtime = wiring.build(installation.config())
    try:
        yield runtime
    finally:
        runtime.close()


def untouched(installation: Installation) -> bool:
    """Whether nothing was saved: no setting, no key, no user."""
    with looking(installation) as runtime, runtime.database.reading() as session:
        made = [*identity.list_keys(session), *users.everybody(session, CLI.account_id)]
        return runtime.settings.read().version == 0 and not made


def administrators(installation: Installation) -> dict[str, str]:
    """Their ids, by name."""
    with looking(installation) as runtime, runtime.database.reading() as session:
        everybody = users.everybody(session, CLI.account_id)
        return {user.name: user.id for user in everybody if user.role == ADMIN}


def saved(installation: Installation) -> dict[str, dict[str, Any]]:
    with looking(installation) as runtime:
        return {scope: dict(values) for scope, values in runtime.settings.read().saved.items()}


def give_settings(person: Terminal, carrier: SimulatorProcess, secret: str) -> None:
    """Answer what is asked of the simulator, up to whether it works."""
    person.answer("Address [", carrier.url)
    person.answer("Shared secret", secret)
    person.until("Asking the carrier")


def up_to_the_settings(person: Terminal) -> None:
    person.answer(PROVIDER, "simulator")
    person.answer("Go through its settings? [no]", "yes")


def options_and_key(person: Terminal) -> None:
    """The questions that follow the provider's settings."""
    person.answer("PUBLIC_API_URL", "")
    person.answer("FAXBOT_DEFAULT_REGION", "us")
    person.answer("FAX_HEADER", HEADER)
    person.answer("Make an API key? [yes]", "")
    person.answer("Name of the key [first key]", "front desk")
    person.answer("What the key may do [", "")
    person.answer("Make an administrator? [yes]", "")
    person.answer("Name of the administrator", ADMINISTRATOR)
    person.answer("Password of the administrator", PASSWORD)
    person.answer("Once more", PASSWORD)
    person.answer("Send a test page? [no]", "")


# At a terminal --------------------------------------------------------------------------------------------------------


def test_a_wrong_secret_is_refused_and_asked_again_and_the_right_one_is_saved_with_all_the_rest(
    embedded: Installation, carrier: SimulatorProcess
) -> None:
    with setup(embedded) as person:
        up_to_the_settings(person)
        person.answer("Address [", carrier.url)
        person.answer("Shared secret", "not this one")
        options_and_key(person)
        person.until("does not work so")
        assert untouched(embedded)
        person.answer("Save it all the same? [y/N]", "n")
        person.answer(f"Address [{carrier.url}]", "")
        person.answer("Shared secret [set]", carrier.secret)
        person.until("It works.")
        told = person.until("Save this?")
        assert untouched(embedded)
        person.type("")
        assert person.ended() == 0

    token = next(line for line in person.shown.splitlines() if line.startswith("fbk_live_"))
    assert "settings of Simulator: baseUrl, secret" in told
    assert carrier.secret not in person.shown
    assert "not this one" not in person.shown
    assert "config rollback 0" in person.shown
    assert saved(embedded) == {
        "": {"FAXBOT_DEFAULT_REGION": "us", "FAX_HEADER": HEADER},
        "simulator": {"baseUrl": carrier.url, "secret": carrier.secret},
    }
    with looking(embedded) as runtime:
        assert runtime.settings.read().version == 1, "one version that can be gone back from"
        actor = identity.authenticate(runtime.fresh(), token)
    assert actor.scopes == {"fax:send", "fax:read"}
    assert administrators(embedded).keys() == {ADMINISTRATOR}
    assert PASSWORD not in person.shown


STEPS = [PROVIDER, "Address [", "Shared secret", "FAX_HEADER", "Name of the key", "Save this?"]


@pytest.mark.parametrize("step", STEPS)
def test_ctrl_c_leaves_at_any_question_and_nothing_is_saved(
    embedded: Installation, carrier: SimulatorProcess, step: str
) -> None:
    answers = {
        PROVIDER: "simulator",
        "Go through its settings?": "yes",
        "Address [": carrier.url,
        "Shared secret": carrier.secret,
        "PUBLIC_API_URL": "",
        "FAXBOT_DEFAULT_REGION": "",
        "FAX_HEADER": HEADER,
        "Make an API key?": "yes",
        "Name of the key": "",
        "What the key may do": "",
        "Make an administrator?": "no",
        "Send a test page?": "no",
    }
    with setup(embedded) as person:
        for question, answer in answers.items():
            if question == step:
                break
            person.answer(question, answer)
        person.until(step)
        assert person.left_by_ctrl_c() == 130

    assert "Nothing was saved." in person.shown
    assert "Traceback" not in person.shown
    assert untouched(embedded)


def test_who_does_not_want_it_saved_saves_nothing(
    embedded: Installation, carrier: SimulatorProcess
) -> None:
    with setup(embedded, **carrier.environ) as person:
        person.answer(PROVIDER, "")
        person.answer("Go through its settings? [yes]", "no")
        options_and_key(person)
        person.answer("Save this?", "n")
        assert person.ended() == 130

    assert "Nothing was saved." in person.shown
    assert untouched(embedded)


def test_each_answer_is_checked_at_once_and_asked_again_with_a_sentence(
    embedded: Installation, carrier: SimulatorProcess
) -> None:
    def wrong(question: str, answer: str, words: str) -> None:
        person.answer(question, answer)
        person.until(words)

    with setup(embedded) as person:
        wrong(
            PROVIDER,
            "carrier pigeon",
            "Provider must be one of: asterisk, phaxio, simulator, sinch.",
        )
        person.answer(PROVIDER, "simulator")
        wrong("Go through its settings?", "perhaps", "must be yes or no")
        person.answer("Go through its settings?", "y")
        wrong("Address [", "ftp://example.org", "must be an http or https address")
        wrong("Address [", "http://fax.example.org", "must begin with https://")
        person.answer("Address [", carrier.url)
        wrong("Shared secret", "", "Shared secret is needed.")
        person.answer("Shared secret", carrier.secret)
        wrong("PUBLIC_API_URL", "fax.example.org", "must begin with https://")
        wrong("PUBLIC_API_URL", "https://fax.example.org/5550100000", "like a telephone number")
        person.answer("PUBLIC_API_URL", "")
        wrong("FAXBOT_DEFAULT_REGION", "USA", "two letters of a country")
        wrong("FAXBOT_DEFAULT_REGION", "ZZ", "code of no country")
        person.answer("FAXBOT_DEFAULT_REGION", "")
        wrong("FAX_HEADER", "x" * 51, "at most 50")
        person.answer("FAX_HEADER", "")
        person.answer("Make an API key?", "")
        wrong("Name of the key", "x" * 256, "1 to 255 printable characters")
        person.answer("Name of the key", "")
        wrong("What the key may do", "fax:everything", "must be some of: fax:send")
        person.answer("What the key may do", "fax:send")
        person.answer("Make an administrator?", "yes")
        wrong("Name of the administrator", "", "is needed")
        person.answer("Name of the administrator", ADMINISTRATOR)
        wrong("Password of the administrator", "too short", "15 to 256 characters")
        person.answer("Password of the administrator", PASSWORD)
        wrong("Once more", "a slip", "two different ones")
        person.answer("Password of the administrator", PASSWORD)
        person.answer("Once more", PASSWORD)
        person.answer("Send a test page?", "yes")
        wrong("Number of the test page", "5550100000", "needs the country code")
        person.answer("Number of the test page", "+15550100000")
        shown = person.until("Save this?")
        assert person.left_by_ctrl_c() == 130
    assert "then a test page to +•••••••••00" in shown
    assert untouched(embedded)


def test_a_second_run_shows_what_is_set_and_enter_keeps_it(
    embedded: Installation, carrier: SimulatorProcess
) -> None:
    assert answered(embedded, settings_of(carrier), key={"name": "one"}).code == 0

    with setup(embedded) as person:
        person.answer(PROVIDER, "")
        person.answer("Go through its settings? [yes]", "")
        person.answer(f"Address [{carrier.url}]", "")
        person.answer("Shared secret [set]", "")
        person.answer("PUBLIC_API_URL", "")
        person.answer("FAXBOT_DEFAULT_REGION", "")
        person.answer("FAX_HEADER", "")
        person.answer("Make an API key? [no]", "")
        person.answer("Make an administrator?", "no")
        person.answer("Send a test page? [no]", "")
        person.until("There is nothing to save.")
        assert person.ended() == 0

    with looking(embedded) as runtime:
        assert runtime.settings.read().version == 1
    assert saved(embedded)["simulator"] == settings_of(carrier)
    assert carrier.secret not in person.shown


def test_a_secret_is_given_again_where_another_address_would_get_it_and_what_is_saved_is_taken_back(
    embedded: Installation, carrier: SimulatorProcess, ground_carrier: SimulatorProcess
) -> None:
    assert answered(embedded, settings_of(carrier), options={"FAX_HEADER": HEADER}).code == 0

    with setup(embedded) as person:
        person.answer(PROVIDER, "")
        person.answer("Go through its settings?", "")
        person.answer("Address [", ground_carrier.url)
        person.answer("Shared secret [set]", "")
        person.answer("PUBLIC_API_URL", "")
        person.answer("FAXBOT_DEFAULT_REGION", "")
        person.answer(f"FAX_HEADER [{HEADER}]", "-")
        person.answer("Make an API key?", "no")
        person.answer("Make an administrator?", "no")
        person.answer("Send a test page?", "")
        person.until("give it again")
        person.answer("Shared secret", "-")
        person.until("SIMULATOR_SECRET is not set")
        person.answer(f"Address [{ground_carrier.url}]", "")
        person.answer("Shared secret [taken back]", ground_carrier.secret)
        person.until("It works.")
        person.until("FAX_HEADER: taken back")
        person.answer("Save this?", "y")
        assert person.ended() == 0

    assert saved(embedded) == {"simulator": settings_of(ground_carrier)}


@pytest.fixture
def ground_carrier(tmp_path: Path) -> Iterator[SimulatorProcess]:
    """Another carrier, with another secret."""
    with SimulatorProcess(tmp_path, secret="the other one's secret") as other:
        yield other


def test_without_a_database_one_is_made_only_for_who_wants_it(embedded: Installation) -> None:
    database = embedded.data_dir / "faxbot.db"
    database.unlink()
    with setup(embedded) as person:
        person.answer("Make one here?", "n")
        assert person.ended() == 130
    assert not database.exists()

    with setup(embedded) as person:
        person.answer("Make one here?", "y")
        person.until(PROVIDER)
        assert person.left_by_ctrl_c() == 130
    assert untouched(embedded)


def test_the_test_page_goes_all_the_way(
    embedded: Installation, carrier: SimulatorProcess, start_service: StartService
) -> None:
    start_service(embedded, "up", **carrier.environ, FAXBOT_SWEEP_SECONDS="0.3")
    with setup(embedded, **carrier.environ) as person:
        person.answer(PROVIDER, "")
        person.answer("Go through its settings?", "no")
        person.answer("PUBLIC_API_URL", "")
        person.answer("FAXBOT_DEFAULT_REGION", "")
        person.answer("FAX_HEADER", "")
        person.answer("Make an API key?", "no")
        person.answer("Make an administrator?", "no")
        person.answer("Send a test page?", "yes")
        person.answer("Number of the test page", "+15550100000")
        person.answer("Save this?", "y")
        person.until("delivered:", 60)
        assert person.ended() == 0
    assert person.shown.count("15550100000") == 2, "in the help, and as it was typed"


# From a file ----------------------------------------------------------------------------------------------------------


def settings_of(carrier: SimulatorProcess) -> dict[str, Any]:
    return {"baseUrl": carrier.url, "secret": carrier.secret}


def answered(
    installation: Installation, settings: dict[str, Any], *words: str, **more: Any
) -> Ended:
    return from_file(installation, {"provider": "simulator", "settings": settings, **more}, *words)


def from_file(installation: Installation, document: Any, *words: str) -> Ended:
    file = installation.folder / "answers.json"
    file.write_text(document if isinstance(document, str) else json.dumps(document))
    return run(installation, "setup", "--answers", file, *words)


def test_a_file_of_answers_does_the_same_and_asks_nothing(
    embedded: Installation, carrier: SimulatorProcess
) -> None:
    ended = answered(
        embedded,
        settings_of(carrier),
        "--json",
        key={"name": "robot", "scopes": ["fax:read"]},
        options={"FAX_HEADER": HEADER},
        admin={"name": ADMINISTRATOR, "password": PASSWORD},
    )

    assert ended.code == 0, ended.err
    assert ended.json["admin"] == {
        "id": administrators(embedded)[ADMINISTRATOR],
        "name": ADMINISTRATOR,
    }
    assert PASSWORD not in ended.out + ended.err
    assert (ended.json["before"], ended.json["version"]) == (0, 1)
    assert carrier.secret not in ended.out + ended.err
    assert saved(embedded) == {"": {"FAX_HEADER": HEADER}, "simulator": settings_of(carrier)}
    with looking(embedded) as runtime:
        actor = identity.authenticate(runtime.fresh(), ended.json["key"]["key"])
    assert actor.id == ended.json["key"]["id"]
    assert actor.scopes == {"fax:read"}


def test_wrong_credentials_in_a_file_are_refused_and_nothing_is_saved(
    embedded: Installation, carrier: SimulatorProcess
) -> None:
    wrong = {**settings_of(carrier), "secret": "not this one"}

    ended = answered(embedded, wrong, key={"name": "robot"})
    assert ended.code == 1
    assert "does not work so" in one_line(ended.err)
    assert "not this one" not in ended.err
    assert untouched(embedded)

    assert answered(embedded, wrong, untested=True).code == 0
    assert saved(embedded)["simulator"] == wrong


@pytest.mark.parametrize(
    ("document", "names"),
    [
        ({"provider": "pigeon"}, ["provider"]),
        ({"provider": 5}, ["provider"]),
        ({"settings": {"baseUrl": "ftp://x", "secret": 5}}, ["settings.baseUrl", "settings.secret"]),
        ({"settings": {"baseUrl": "http://127.0.0.1:9"}}, ["settings.secret"]),
        ({"settings": {"sekret": "x", "secret": "y"}}, ["settings.sekret", "settings.secret meant"]),
        ({"provider": "asterisk", "settings": {"port": "five", "folder": "/f", "password": "x"}},
         ["settings.port"]),
        ({"options": {"FAXBOT_DEFAULT_REGION": "USA"}}, ["options.FAXBOT_DEFAULT_REGION"]),
        ({"options": {"FAXBOT_PORT": "80"}}, ["options.FAXBOT_PORT"]),
        ({"key": {"name": "", "scopes": "fax:everything"}}, ["key.scopes"]),
        ({"key": {"scopes": [5]}}, ["key.scopes"]),
        ({"test": {"to": "12"}}, ["test.to"]),
        ({"admin": {"name": " x", "password": "short"}}, ["admin.name", "admin.password"]),
        ({"admin": {"make": True}}, ["admin.name", "admin.password"]),
        ({"test": {"make": True}}, ["test.to"]),
        ({"admin": {"make": False, "name": "bob"}}, ["admin.make", "admin.name"]),
        ({"key": {"make": False, "scopes": ["*"]}}, ["key.make", "key.scopes"]),
        ({"alone": "perhaps"}, ["alone"]),
        ({"untested": "yes"}, ["untested"]),
        ({"key": {"make": "no"}}, ["key.make"]),
        ({"change_settings": False, "settings": {"secret": "x"}}, ["settings.secret"]),
        ({"whatever +15551234567": 1}, ["answers"]),
        ([], ["answers"]),
        ("{", ["answers.json"]),
    ],
    ids=range(23),
)  # fmt: skip
def test_a_wrong_answer_is_named_and_nothing_is_saved(
    embedded: Installation, document: Any, names: list[str]
) -> None:
    if isinstance(document, dict):
        document = {"provider": "phaxio" if "alone" in document else "simulator", **document}
    ended = from_file(embedded, document)

    assert ended.code == 1
    line = one_line(ended.err)
    assert all(name in line for name in names), line
    assert "5551234567" not in line
    assert untouched(embedded)


def test_a_dry_run_checks_everything_and_saves_nothing(
    embedded: Installation, carrier: SimulatorProcess
) -> None:
    ended = answered(embedded, settings_of(carrier), "--dry-run", key={"name": "robot"})
    assert ended.code == 0
    assert "settings of Simulator: baseUrl, secret" in ended.out
    assert untouched(embedded)

    wrong = {**settings_of(carrier), "secret": "not this one"}
    assert answered(embedded, wrong, "--dry-run").code == 1


def test_the_printed_answers_are_taken_back_once_they_are_filled_in(
    embedded: Installation, carrier: SimulatorProcess
) -> None:
    ended = run(embedded, "setup", "--print-answers", "--provider", "simulator")
    document = ended.json
    assert document["settings"] == {"baseUrl": "http://127.0.0.1:8091", "secret": None}
    assert "settings.secret (needed, secret): Shared secret." in ended.err

    document["settings"] = settings_of(carrier)
    document["admin"]["make"] = document["test"]["make"] = False
    document["key"]["make"] = True
    done = from_file(embedded, document, "--json")
    assert done.code == 0, done.err
    assert "key" in done.json

    again = run(embedded, "setup", "--print-answers").json
    assert again["settings"] == {"baseUrl": carrier.url, "secret": None}
    again["admin"]["make"] = again["key"]["make"] = False
    assert from_file(embedded, again, "--json").json["version"] == 1
    masked = {**again["settings"], "secret": MASK}
    assert answered(embedded, masked).code == 0
    assert saved(embedded)["simulator"] == settings_of(carrier)


@pytest.mark.parametrize("provider_id", ["asterisk", "phaxio", "sinch"])
def test_what_a_provider_is_asked_for_is_what_its_manifest_names(
    embedded: Installation, provider_id: str
) -> None:
    ended = run(embedded, "setup", "--print-answers", "--provider", provider_id)

    with looking(embedded) as runtime:
        manifest = runtime.plugins.manifest(provider_id)
    assert ended.json["settings"].keys() == manifest.properties.keys()
    assert all(ended.json["settings"][key] is None for key in manifest.secrets)
    assert all(str(rule["title"]) in ended.err for rule in manifest.properties.values())


def test_another_provider_takes_the_place_of_the_first_or_stands_before_it(
    embedded: Installation,
) -> None:
    settings = {"apiKey": "key", "apiSecret": "secret"}
    phaxio = {"provider": "phaxio", "settings": settings, "untested": True}

    assert from_file(embedded, {**phaxio, "alone": False}).code == 0
    assert saved(embedded)[""] == {"FAX_BACKENDS": "phaxio,simulator"}

    assert from_file(embedded, {"options": {"FAX_HEADER": ""}}).code == 0
    assert saved(embedded)[""] == {"FAX_BACKENDS": "phaxio,simulator"}, "nobody spoke of it"

    ended = from_file(embedded, {**phaxio, "alone": True})
    assert (ended.code, saved(embedded)[""]) == (0, {"FAX_BACKENDS": "phaxio"})
    assert "PUBLIC_API_URL" in ended.err, "it calls back, and does not know where to"

    sinch = {
        "projectId": "p",
        **settings,
        "webhookUser": "faxbot",
        "webhookPassword": "a-heron-walks",
    }
    assert from_file(embedded, {**phaxio, "provider": "sinch", "settings": sinch}).code == 0
    assert saved(embedded)[""] == {"FAX_BACKENDS": "sinch"}


def test_a_provider_that_would_not_be_heeded_is_misuse(
    embedded: Installation, tmp_path: Path
) -> None:
    answers = tmp_path / "answers.json"
    answers.write_text('{"provider": "phaxio"}')
    ended = run(embedded, "setup", "--answers", answers, "--provider", "simulator")

    assert (ended.code, "--print-answers" in ended.err) == (2, True)
    assert untouched(embedded)


def test_without_a_terminal_and_without_answers_it_says_so(embedded: Installation) -> None:
    ended = run_process(embedded, "setup")

    assert ended.code == 2
    assert "--answers" in ended.err
