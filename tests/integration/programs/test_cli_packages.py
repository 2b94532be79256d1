"""`faxbot plugins new`, `validate` and `test`: packages are made whole or not at all, and what is wrong is named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from faxbot.plugins import registry
from faxbot.providers import sinch as sinch_provider
from faxbot.testing import Answer, Asked, StandIn
from tests.installation import Installation
from tests.integration.command import one_line, run, run_process

SECRET = "the secret of a test"


@pytest.fixture
def package(embedded: Installation) -> Path:
    """A new package, as the command writes it."""
    assert run(embedded, "plugins", "new", "acme").code == 0
    return embedded.folder / "faxbot-provider-acme"


def test_a_new_package_is_sound_and_its_tests_pass_as_they_are(
    embedded: Installation, package: Path
) -> None:
    assert run(embedded, "plugins", "validate", package).out == "sound\n"
    tested = run_process(embedded, "plugins", "test", str(package))

    assert tested.code == 0, tested.out
    assert " passed" in tested.out
    assert not {"failed", "skipped", "error"} & set(tested.out.split())


def test_a_new_package_has_its_name_in_every_place(embedded: Installation) -> None:
    assert run(embedded, "plugins", "new", "my-2nd_fax").code == 0
    folder = embedded.folder / "faxbot-provider-my-2nd-fax"
    texts = {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }

    assert "class My2ndFaxProvider(" in texts["faxbot_provider_my_2nd_fax/__init__.py"]
    assert '"env": "MY_2ND_FAX_SECRET"' in texts["faxbot_provider_my_2nd_fax/manifest.json"]
    assert not [name for name, text in texts.items() if "__ID__" in text or "xample" in name]
    assert run(embedded, "plugins", "validate", folder).code == 0


@pytest.mark.parametrize("name", ["Acme", "4fax", "a b", "../acme", "acme-", "", "a" * 41, "a--b"])
def test_a_name_that_is_none_writes_nothing(embedded: Installation, name: str) -> None:
    before = sorted(embedded.folder.iterdir())
    ended = run(embedded, "plugins", "new", "--", name)

    assert ended.code == 1
    assert "lower-case letters and digits" in one_line(ended.err)
    assert sorted(embedded.folder.iterdir()) == before


def test_the_name_of_an_installed_plugin_is_taken(embedded: Installation) -> None:
    ended = run(embedded, "plugins", "new", "simulator")

    assert ended.code == 1
    assert "'simulator' is installed already" in one_line(ended.err)


def test_a_folder_that_is_there_is_left_as_it_is(embedded: Installation, package: Path) -> None:
    (package / "README.md").write_text("mine")
    ended = run(embedded, "plugins", "new", "acme")

    assert ended.code == 1
    assert "faxbot-provider-acme is there already" in one_line(ended.err)
    assert (package / "README.md").read_text() == "mine"
    assert not list(embedded.folder.glob(".faxbot-new-*"))


def test_where_nothing_can_be_written_nothing_is_left(embedded: Installation) -> None:
    # Nobody, root included, makes a folder there.
    ended = run(embedded, "plugins", "new", "acme", "--into", "/sys")

    assert ended.code == 1
    assert one_line(ended.err).startswith("faxbot: ")


FAULTS = {
    "manifest": (
        "faxbot_provider_acme/manifest.json",
        '"send_fax"',
        '"reads_minds"',
        "acme: its trait 'reads_minds' is unknown",
    ),
    "json": (
        "faxbot_provider_acme/manifest.json",
        "{",
        "[",
        "acme: its manifest.json is not JSON",
    ),
    "id": (
        "faxbot_provider_acme/manifest.json",
        '"id": "acme"',
        '"id": "emca"',
        "acme: its manifest says 'emca': entry point and id must be the same",
    ),
    "api": (
        "faxbot_provider_acme/manifest.json",
        ">=1,<2",
        ">=7",
        "acme: it works with the plugin contract >=7",
    ),
    "import": (
        "faxbot_provider_acme/__init__.py",
        "import hmac",
        "import nobody_has_it",
        "acme: it cannot be imported: ModuleNotFoundError",
    ),
    "class": (
        "faxbot_provider_acme/__init__.py",
        "def look_up(",
        "def find(",
        "acme: AcmeProvider lacks look_up() (trait status_lookup)",
    ),
    "entry point": (
        "pyproject.toml",
        "faxbot_provider_acme:",
        "faxbot_provider_nobody:",
        "acme: its module faxbot_provider_nobody is not installed",
    ),
    "group": (
        "pyproject.toml",
        '"faxbot.plugins"',
        '"faxbot.plugs"',
        'its pyproject.toml has no [project.entry-points."faxbot.plugins"]',
    ),
    "toml": ("pyproject.toml", "[project]", "[project", "its pyproject.toml cannot be read"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_with_a_package_is_named(
    embedded: Installation, package: Path, fault: str
) -> None:
    name, old, new, told = FAULTS[fault]
    text = (package / name).read_text()
    assert old in text
    (package / name).write_text(text.replace(old, new))

    ended = run_process(embedded, "plugins", "validate", str(package))

    assert ended.code == 1
    assert told in one_line(ended.err)


def test_a_folder_that_is_no_package_is_said_to_be_none(embedded: Installation) -> None:
    ended = run(embedded, "plugins", "validate", embedded.data_dir)

    assert ended.code == 1
    assert "there is no pyproject.toml in it" in one_line(ended.err)


def test_tests_that_fail_and_tests_that_are_not_there_are_a_failure(
    embedded: Installation, package: Path
) -> None:
    test = package / "tests" / "test_contract.py"
    test.write_text("def test_it():\n    raise AssertionError\n")
    failed = run_process(embedded, "plugins", "test", str(package))
    test.unlink()
    none = run_process(embedded, "plugins", "test", str(package))

    assert (failed.code, none.code) == (1, 1)
    assert "do not pass" in one_line(failed.err)
    assert "there are no tests" in one_line(none.err)


@pytest.fixture
def carrier() -> Iterator[StandIn]:
    def behave(asked: Asked) -> Answer:
        known = asked.headers.get("authorization") == f"Bearer {SECRET}"
        return Answer(200 if known else 401, {})

    with StandIn(behave) as carrier:
        yield carrier


def test_the_connection_of_an_installed_plugin_is_tested_with_the_settings_of_the_environment(
    embedded: Installation, carrier: StandIn
) -> None:
    env = {"SIMULATOR_BASE_URL": carrier.url, "SIMULATOR_SECRET": SECRET}
    good = run(embedded, "plugins", "test", "simulator", "--json", **env)
    bad = run(embedded, "plugins", "test", "simulator", **{**env, "SIMULATOR_SECRET": "another"})

    assert (good.code, good.json["ok"]) == (0, True)
    assert (bad.code, bad.err) == (1, "")
    assert "SIMULATOR_SECRET" in bad.out
    assert "another" not in bad.out


def test_without_its_settings_a_plugin_is_not_tested(embedded: Installation) -> None:
    ended = run(embedded, "plugins", "test", "phaxio")

    assert ended.code == 1
    assert "PHAXIO_API_KEY is not set" in one_line(ended.err)


def test_a_plugin_that_is_not_there_is_not_tested(embedded: Installation) -> None:
    ended = run(embedded, "plugins", "test", "telex")

    assert ended.code == 1
    assert "There is no plugin 'telex'; installed: " in one_line(ended.err)


def test_every_plugin_that_is_broken_or_hangs_is_listed_with_its_reason_beside_those_that_work(
    embedded: Installation,
) -> None:
    folders = (Path(__file__).parents[2] / name for name in ("plugins_broken", "plugins_hanging"))
    ended = run_process(
        embedded,
        *("plugins", "list", "--json"),
        PYTHONPATH=os.pathsep.join(map(str, folders)),
        FAXBOT_PLUGIN_START_SECONDS="3",
    )

    assert ended.code == 0, ended.err
    reasons = {fault["id"]: fault["reason"] for fault in ended.json["broken"]}
    late = "it cannot be imported: it was not done after 3 s (FAXBOT_PLUGIN_START_SECONDS)"
    assert reasons["hanging_import"] == reasons["hanging_import_too"] == late
    assert "it uses the network" in reasons["broken_network_quiet"]
    assert "its trait 'reads_minds' is unknown" in reasons["broken_trait"]
    usable = {plugin["id"] for plugin in ended.json["plugins"]}
    assert {"local", "phaxio", "simulator", "sinch", "sound"} <= usable
    assert not usable & {"broken_import", "broken_network", "hanging_import"}


def test_a_plugin_whose_own_code_fails_is_said_to_fail_without_its_words(
    embedded: Installation,
) -> None:
    path = str(Path(__file__).parents[2] / "plugins_broken")
    ended = run_process(embedded, "plugins", "test", "broken_health", "--json", PYTHONPATH=path)

    assert ended.code == 1
    assert json.loads(ended.out) == {"ok": False, "detail": "The plugin failed (ValueError)."}


def test_what_a_registry_asks_for_is_listed(embedded: Installation) -> None:
    listed = run(embedded, "plugins", "list", "--json").json["plugins"]

    (sinch,) = (each for each in listed if each["id"] == "sinch")
    assert (sinch["package"], sinch["sha256"]) == (
        "faxbot",
        registry.digest(Path(sinch_provider.__file__)),
    )


def test_of_two_folders_with_one_module_each_is_checked_by_its_own_code(
    embedded: Installation, package: Path
) -> None:
    other = package.with_name("other")
    shutil.copytree(package, other)
    (other / "faxbot_provider_acme" / "__init__.py").write_text("raise ValueError\n")

    ended = run(embedded, "plugins", "validate", str(package), str(other))

    assert (ended.code, "ValueError at __init__.py:1" in one_line(ended.err)) == (1, True)
