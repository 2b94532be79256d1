"""Every value says where it comes from, and a change of settings is checked, audited, kept, and can be taken back; also
one that no longer holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from faxbot import activation, configuration, oversight, revisions, wiring
from faxbot.actors import CLI, Actor
from faxbot.config import Config
from faxbot.configuration import Configuration
from faxbot.crypto import Keyring
from faxbot.db import table, utcnow
from faxbot.errors import (
    ChangedMeanwhile,
    ChangeRefused,
    ConfigError,
    DocumentTooLarge,
    Forbidden,
    InvalidFields,
    NotFound,
)
from faxbot.models import AuditEvent, ConfigRevision
from faxbot.plugins.manifest import MASK
from faxbot.runtime import Runtime
from faxbot.settings import OPTIONS, Settings, Wish
from tests.installation import Installation
from tests.integration.site import tiff
from tests.integration.test_limits import statements
from tests.integration.web import SECRET
from tests.threads import at_once

NOTE = "as on our paper"
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def config(store: Installation) -> Config:
    return store.config(SIMULATOR_SECRET=SECRET, FAX_HEADER="theirs", FAXBOT_MAX_PAGES="7")


def saved(runtime: Runtime) -> dict[str, Any]:
    return dict(runtime.settings.stored().options)


def of(runtime: Runtime, name: str) -> dict[str, Any]:
    (found,) = [each for each in configuration.effective(runtime) if each["name"] == name]
    return found


def force(runtime: Runtime, wish: Wish) -> None:
    """Save what nobody checks, as another version of faxbot or another hand may have done."""
    lax = Settings(_Lax.load({}), runtime.database, runtime.keyring)
    with runtime.database.transaction() as session:
        lax.write(session, wish, seen=lax.stored().version, now=utcnow())


class _Lax(Config):
    def faults(self, saved: Any) -> dict[str, str]:  # noqa: ARG002
        return {}


def trail(runtime: Runtime) -> list[tuple[str, str | None, dict[str, Any]]]:
    rows = table(AuditEvent)
    found = runtime.database.rows(sa.select(rows).order_by(rows.c.id), {})
    return [(row.action, row.object_id, row.details) for row in found]


def errors(caught: pytest.ExceptionInfo[InvalidFields]) -> dict[str, list[str]]:
    return {name: list(sentences) for name, sentences in caught.value.errors.items()}


# Where a value comes from ---------------------------------------------------------------------------


def test_every_value_says_where_it_comes_from(runtime: Runtime) -> None:
    assert (of(runtime, "FAX_HEADER")["value"], of(runtime, "FAX_HEADER")["source"]) == (
        "theirs",
        "env",
    )
    assert (of(runtime, "FAX_DISABLED")["value"], of(runtime, "FAX_DISABLED")["source"]) == (
        False,
        "default",
    )

    configuration.change(runtime, CLI, {"FAX_HEADER": "", "FAXBOT_MAX_PAGES": 3}, note=NOTE)

    assert (of(runtime, "FAX_HEADER")["value"], of(runtime, "FAX_HEADER")["source"]) == ("", "db")
    assert (
        of(runtime, "FAXBOT_MAX_PAGES")["value"],
        of(runtime, "FAXBOT_MAX_PAGES")["source"],
    ) == (3, "db")
    assert runtime.fresh().config.fax_header == ""

    configuration.change(runtime, CLI, {"FAX_HEADER": None, "FAXBOT_MAX_PAGES": None}, note=NOTE)
    assert of(runtime, "FAXBOT_MAX_PAGES")["value"] == 7
    assert runtime.fresh().config.fax_header == "theirs"


def test_secrets_are_masked_wherever_they_come_from(store: Installation) -> None:
    runtime = wiring.build(store.config(API_KEY="the-key-of-all", SIMULATOR_SECRET=SECRET))
    assert of(runtime, "API_KEY")["value"] == MASK
    configuration.change(runtime, CLI, {"simulator.secret": "another"}, note=NOTE, untested=True)

    told = str(configuration.overview(runtime)) + str(
        configuration.item(runtime, "simulator.secret")
    )

    assert "the-key-of-all" not in told
    assert "another" not in told
    assert {"name": "simulator.secret", "value": MASK} in configuration.overview(runtime)["plugins"]
    runtime.close()


def test_that_nothing_is_saved_is_said(runtime: Runtime) -> None:
    before = configuration.overview(runtime)
    assert (before["using_environment"], before["notice"]) == (
        True,
        configuration.USING_ENVIRONMENT,
    )

    configuration.change(runtime, CLI, {"FAX_DISABLED": False}, note=NOTE)
    after = configuration.overview(runtime)
    assert (after["using_environment"], after["notice"], after["version"]) == (False, None, 1)

    configuration.change(runtime, CLI, {"FAX_DISABLED": None}, note=NOTE)
    assert configuration.overview(runtime)["using_environment"]


def test_the_surface_for_code_that_has_a_name_only(runtime: Runtime) -> None:
    provider = Configuration(runtime)
    assert (provider.get("FAX_DISABLED"), provider.source("FAX_DISABLED")) == (False, "default")
    assert (provider.get("FAX_HEADER"), provider.source("FAX_HEADER")) == ("theirs", "env")

    stands = provider.set(CLI, "FAX_DISABLED", True, note=NOTE)

    assert (stands["value"], stands["source"]) == (True, "db")
    assert (provider.get("FAX_DISABLED"), provider.source("FAX_DISABLED")) == (True, "db")
    assert provider.get_provider_config("simulator")["secret"] == SECRET
    for call in (provider.get, provider.source):
        with pytest.raises(NotFound, match="FAX_DISABLED"):
            call("FAX_DISABLE")


@pytest.mark.parametrize(("api_key", "warns"), [("", True), ("k" * 40, False)])
def test_no_key_required_is_warned_of_only_where_that_lets_somebody_in(
    store: Installation, api_key: str, *, warns: bool
) -> None:
    runtime = wiring.build(store.config(REQUIRE_API_KEY="false", API_KEY=api_key))
    (flag,) = (
        each for each in configuration.features(runtime) if each["feature"] == "api_key_required"
    )
    warning = of(runtime, "REQUIRE_API_KEY")["warning"]
    runtime.close()
    assert (flag["warns"], warning is not None) == (warns, warns)


def test_a_feature_is_switched_by_its_name_and_its_warning_is_about_its_state(
    runtime: Runtime,
) -> None:
    def flags() -> dict[str, dict[str, Any]]:
        return {each["feature"]: each for each in configuration.features(runtime)}

    assert flags()["fax_disabled"]["warns"] is False
    configuration.switch(runtime, CLI, {"fax_disabled": True}, note=NOTE)
    assert (flags()["fax_disabled"]["enabled"], flags()["fax_disabled"]["warns"]) == (True, True)
    assert of(runtime, "FAX_DISABLED")["warning"]
    configuration.switch(runtime, CLI, {"fax_disabled": False}, note=NOTE)
    assert (flags()["fax_disabled"]["source"], of(runtime, "FAX_DISABLED")["warning"]) == (
        "db",
        None,
    )

    for wish, words in (
        ({"plugins_from_outside": False}, "environment only"),
        ({"unknown": True}, "known are"),
    ):
        with pytest.raises(InvalidFields) as caught:
            configuration.switch(runtime, CLI, wish, note=NOTE)
        assert words in str(errors(caught))
    assert flags()["plugins_from_outside"]["fixed"]


# Bad input ------------------------------------------------------------------------------------------

BAD = [
    ({"FAXBOT_MAX_PAGES": "0"}, "FAXBOT_MAX_PAGES", "must be at least 1"),
    ({"FAXBOT_MAX_PAGES": "many"}, "FAXBOT_MAX_PAGES", "is not a whole number"),
    ({"FAXBOT_MAX_PAGES": 1.5}, "FAXBOT_MAX_PAGES", "is not a whole number"),
    ({"FAXBOT_ALARM_SECONDS": float("nan")}, "FAXBOT_ALARM_SECONDS", "is not a finite number"),
    ({"FAX_DISABLED": "perhaps"}, "FAX_DISABLED", "is neither true nor false"),
    ({"FAX_DISABLED": []}, "FAX_DISABLED", "must be text, a number, true, false or null"),
    ({"FAX_HEADER": {"a": 1}}, "FAX_HEADER", "must be text, a number, true, false or null"),
    ({"FAX_HEADER": "two\nlines"}, "FAX_HEADER", "printable ASCII"),
    ({"FAXBOT_DEFAULT_REGION": "ZZ"}, "FAXBOT_DEFAULT_REGION", "is the code of no country"),
    ({"DATABASE_URL": "sqlite:////tmp/x.db"}, "DATABASE_URL", "from the environment only"),
    ({"FAX_BACKEND": "phaxio"}, "FAX_BACKEND", "FAX_BACKENDS is what is saved"),
    ({"FAX_HEDER": "x"}, "FAX_HEADER", "is FAX_HEADER meant?"),
    ({"FAX_DISABLED": "true", "NOTHING_LIKE_IT": "x"}, "options", "key 2 is not known"),
    ({"patientName": "Jane Doe"}, "options", "looks like a person's data"),
    ({"+15550100000": "x"}, "options", "looks like a person's data"),
    ({"DOCS_BASE_URL": "https://docs.example/5550100000"}, "DOCS_BASE_URL", "telephone number"),
    ({"FAX_HEADER": "DOB 1970-01-01"}, "FAX_HEADER", "person's data"),
    ({"FAX_BACKENDS": "gone"}, "FAX_BACKENDS", "gone cannot be active for outbound"),
    ({"FAX_BACKENDS": "local"}, "FAX_BACKENDS", "local cannot be active for outbound"),
    (
        {"FAX_INBOUND_BACKENDS": "local"},
        "FAX_INBOUND_BACKENDS",
        "local cannot be active for inbound",
    ),
    ({"STORAGE_BACKEND": "simulator"}, "STORAGE_BACKEND", "simulator cannot be active for storage"),
    ({"simulator.baseUrl": "nonsense"}, "simulator", "must be an http or https address"),
    ({"simulator.baseUrI": "http://127.0.0.1:9"}, "simulator", "is baseUrl meant?"),
    ({"simulator.patient": "Jane"}, "simulator", "looks like a person's data"),
    ({"simulator.baseUrl": "http://127.0.0.1/5550100000"}, "simulator.baseUrl", "telephone number"),
    ({"simulater.baseUrl": "http://127.0.0.1:9"}, "plugins", "is simulator meant?"),
    ({"local.dataDir": "/tmp"}, "local.dataDir", "FAX_DATA_DIR in the environment"),
    ({"": "x"}, "options", "key 1 is not known"),
    ({".": "x"}, "options", "key 1 is not known"),
]


@pytest.mark.parametrize(("wish", "name", "words"), BAD)
def test_what_cannot_be_saved_is_named_and_nothing_is(
    runtime: Runtime, wish: dict[str, Any], name: str, words: str
) -> None:
    with pytest.raises(InvalidFields) as caught:
        configuration.change(
            runtime, CLI, {"FAXBOT_ALARM_SECONDS": 60, **wish}, note=NOTE, untested=True
        )

    assert words.replace("key 1", "key 2").replace("key 2 is not known", "is not known") in str(
        errors(caught)[name]
    )
    told = str(errors(caught))
    for secret in ("Jane", "5550100000", "nonsense", "NOTHING_LIKE", "1970"):
        assert secret not in told
    assert (runtime.settings.stored().version, trail(runtime)) == (0, [])


@pytest.mark.parametrize("note", ["", "x" * 256, "two\nlines"])
def test_a_change_needs_a_reason(runtime: Runtime, note: str) -> None:
    with pytest.raises(InvalidFields) as caught:
        configuration.change(runtime, CLI, {"FAX_DISABLED": True}, note=note)
    assert set(errors(caught)) == {"note"}


def test_production_refuses_to_be_opened_to_all(runtime: Runtime) -> None:
    boot = replace(runtime.config, environment="production")
    strict = replace(
        runtime, config=boot, settings=Settings(boot, runtime.database, runtime.keyring)
    )

    with pytest.raises(InvalidFields) as caught:
        configuration.change(strict, CLI, {"REQUIRE_API_KEY": False}, note=NOTE)
    assert "refused in production" in str(errors(caught)["REQUIRE_API_KEY"])


# Plugins --------------------------------------------------------------------------------------------


def test_a_plugin_is_tested_before_its_settings_are_saved_or_it_gets_a_slot(
    runtime: Runtime,
) -> None:
    for wish in (
        {"simulator.baseUrl": NOWHERE, "simulator.secret": "s"},
        {"FAX_BACKENDS": "phaxio"},
    ):
        with pytest.raises(ChangeRefused, match="does not work so"):
            configuration.change(runtime, CLI, wish, note=NOTE)
    assert (runtime.settings.stored().version, trail(runtime)) == (0, [])

    both = {"FAX_BACKENDS": "phaxio,simulator", "phaxio.apiKey": "k", "phaxio.apiSecret": "s"}
    configuration.change(runtime, CLI, both, note=NOTE, untested=True)

    assert runtime.fresh().config.provider_ids == ("phaxio", "simulator")
    ((action, _, details),) = trail(runtime)
    assert (action, details["untested"]) == ("config.changed", True)
    assert sorted(details["names"]) == sorted(both)


def test_a_secret_does_not_go_to_another_address_by_this_door_either(runtime: Runtime) -> None:
    with pytest.raises(InvalidFields) as caught:
        configuration.change(runtime, CLI, {"simulator.baseUrl": NOWHERE}, note=NOTE, untested=True)
    assert "another address" in str(errors(caught)["simulator.secret"])

    wish = {"simulator.baseUrl": NOWHERE, "simulator.secret": "given"}
    configuration.change(runtime, CLI, wish, note=NOTE, untested=True)
    again = {"simulator.baseUrl": "http://127.0.0.1:8", "simulator.secret": MASK}
    with pytest.raises(InvalidFields):
        configuration.change(runtime, CLI, again, note=NOTE, untested=True)
    configuration.change(
        runtime, CLI, {**again, "simulator.secret": "given"}, note=NOTE, untested=True
    )


def test_no_other_machine_is_asked_to_let_us_in_with_a_secret_that_nobody_gave_again(
    store: Installation,
) -> None:
    """A false manager can have the password guessed at leisure from the proof, or pass that on to the true one."""
    runtime = wiring.build(store.config(ASTERISK_AMI_PASSWORD="theirs", ASTERISK_FOLDER="/tmp"))
    with pytest.raises(InvalidFields) as caught:
        configuration.change(runtime, CLI, {"asterisk.host": "192.0.2.7"}, note=NOTE, untested=True)
    assert "another address (host)" in str(errors(caught)["asterisk.password"])

    wish = {"asterisk.host": "192.0.2.7", "asterisk.password": "given"}
    configuration.change(runtime, CLI, wish, note=NOTE, untested=True)
    with pytest.raises(InvalidFields):
        configuration.change(runtime, CLI, {"asterisk.password": None}, note=NOTE, untested=True)
    runtime.close()


@pytest.mark.parametrize(
    "address", ["https://1234567-fax.example.org", "https://fax-1234567a.example.org:8443/fax"]
)
def test_digits_in_the_name_of_a_host_are_no_telephone_number(
    runtime: Runtime, address: str
) -> None:
    wish = {"PUBLIC_API_URL": address, "simulator.baseUrl": address, "simulator.secret": "s"}
    configuration.change(runtime, CLI, wish, note=NOTE, untested=True)
    assert saved(runtime)["PUBLIC_API_URL"] == address


def test_what_an_identity_provider_calls_us_is_no_telephone_number(runtime: Runtime) -> None:
    wish = {
        "oidc.issuer": "https://login.example.org/12345678-1234-4abc-8def-123456789012/v2.0",
        "oidc.clientId": "123456789012-abc.apps.example.org",
    }
    configuration.change(runtime, CLI, wish, note=NOTE, untested=True)
    assert runtime.settings.stored().saved["oidc"]["clientId"] == wish["oidc.clientId"]


def test_what_changes_nothing_writes_nothing_and_asks_no_carrier(runtime: Runtime) -> None:
    wish = {"simulator.baseUrl": NOWHERE, "simulator.secret": "given", "FAX_HEADER": "ours"}
    configuration.change(runtime, CLI, wish, note=NOTE, untested=True)

    configuration.change(runtime, CLI, {**wish, "simulator.secret": MASK}, note=NOTE)
    configuration.change(runtime, CLI, {"FAX_DISABLED": None}, note=NOTE)

    assert (runtime.settings.stored().version, len(trail(runtime))) == (1, 1)


def test_how_all_values_stand_is_read_once(runtime: Runtime) -> None:
    configuration.change(runtime, CLI, {"FAX_DISABLED": False}, note=NOTE)
    few, many = ({f"FAXBOT_{each}_SECONDS": 60 for each in names} for names in (["ALARM"], MANY))
    with statements(runtime) as first:
        configuration.change(runtime, CLI, few, note=NOTE)
    with statements(runtime) as second:
        assert len(configuration.change(runtime, CLI, many, note=NOTE)) == len(MANY)

    own_row = len(MANY) - 1
    assert second.count("SELECT") <= first.count("SELECT") + own_row


MANY = ["SETTLE", "LOOK_UP", "NUMBER_GAP"]


# Versions -------------------------------------------------------------------------------------------


def test_each_change_is_a_version_with_its_reason_and_a_row_of_the_trail(runtime: Runtime) -> None:
    configuration.change(runtime, CLI, {"FAX_HEADER": "one"}, note="first")
    configuration.change(runtime, CLI, {"FAX_HEADER": "two", "FAX_DISABLED": True}, note="second")

    newest, first = configuration.backups(runtime, CLI)
    assert (newest["version"], newest["note"], newest["actor"], newest["current"]) == (
        2,
        "second",
        "cli",
        True,
    )
    assert (sorted(newest["names"]), first["current"]) == (["FAX_DISABLED", "FAX_HEADER"], False)
    assert [(action, version) for action, version, _ in trail(runtime)] == [
        ("config.changed", "1"),
        ("config.changed", "2"),
    ]
    assert "two" not in str(trail(runtime))
    with runtime.database.reading() as session:
        rows = session.scalars(sa.select(ConfigRevision)).all()
    assert not [
        row for row in rows if b"two" in row.settings_sealed or b"one" in row.settings_sealed
    ]


def test_any_version_can_be_gone_back_to_and_forward_again(runtime: Runtime) -> None:
    for header in ("one", "two", "three"):
        configuration.change(
            runtime,
            CLI,
            {"FAX_HEADER": header, f"FAXBOT_{'ALARM' if header == 'two' else 'SETTLE'}_SECONDS": 9},
            note=NOTE,
        )
    wanted = {number: revisions.saved_at(runtime, number) for number in range(4)}

    for number in (1, 0, 3, 2, 2):
        found = configuration.rollback(runtime, CLI, number, note=NOTE, dry_run=True)
        assert runtime.settings.stored().version == found["version"]
        configuration.rollback(runtime, CLI, number, note=NOTE)
        assert saved(runtime) == wanted[number].get(OPTIONS, {})
    assert runtime.settings.stored().version == 7, "the last one changed nothing"
    action, _, details = trail(runtime)[-1]
    assert (action, details["from"]) == ("config.restored", 2)

    with pytest.raises(NotFound, match="faxbot config backups"):
        configuration.rollback(runtime, CLI, 99, note=NOTE)


def test_going_back_brings_secrets_back_and_tests_the_plugin(runtime: Runtime) -> None:
    first = {"simulator.baseUrl": NOWHERE, "simulator.secret": "first"}
    configuration.change(runtime, CLI, first, note=NOTE, untested=True)
    second = {"simulator.baseUrl": "http://127.0.0.1:8", "simulator.secret": "second"}
    configuration.change(runtime, CLI, second, note=NOTE, untested=True)

    with pytest.raises(ChangeRefused, match="the plugin simulator does not work so"):
        configuration.rollback(runtime, CLI, 1, note=NOTE)
    told = configuration.rollback(runtime, CLI, 1, note=NOTE, untested=True)

    assert "first" not in str(told)
    assert "second" not in str(told)
    assert runtime.settings.read().of_plugin("simulator") == {"baseUrl": NOWHERE, "secret": "first"}


def test_the_newest_hundred_are_kept_and_every_backup(runtime: Runtime) -> None:
    configuration.backup(runtime, CLI, "before everything")
    configuration.change(runtime, CLI, {"FAX_HEADER": "kept"}, note=NOTE)
    named = configuration.backup(runtime, CLI, "our paper")
    assert (named["version"], named["backup"]) == (1, "our paper")
    for number in range(revisions.KEPT + 2):
        configuration.change(runtime, CLI, {"FAXBOT_ALARM_SECONDS": 60 + number}, note=NOTE)

    kept = [each["version"] for each in configuration.backups(runtime, CLI)]

    assert kept == [*range(103, 3, -1), 1, 0]
    configuration.rollback(runtime, CLI, 1, note=NOTE)
    assert saved(runtime) == {"FAX_HEADER": "kept"}
    assert ("config.backed_up", "1", {"version": 1}) in trail(runtime)


def test_what_an_older_faxbot_saved_can_be_gone_back_to(runtime: Runtime) -> None:
    """It keeps no revisions: whoever saves next keeps what he finds."""
    force(runtime, {OPTIONS: {"FAX_HEADER": "old"}, "gone": {"key": "x"}})

    configuration.change(runtime, CLI, {"FAX_HEADER": "new"}, note=NOTE)
    found = configuration.backups(runtime, CLI)
    assert [(each["version"], each["actor"]) for each in found] == [(2, "cli"), (1, "unknown")]

    told = configuration.rollback(runtime, CLI, 1, note=NOTE)
    assert saved(runtime) == {"FAX_HEADER": "old"}
    assert told["left_out"] == ["gone.key"]


# Conflicts ------------------------------------------------------------------------------------------


def test_who_has_not_seen_the_newest_version_changes_nothing(runtime: Runtime) -> None:
    configuration.change(runtime, CLI, {"FAX_HEADER": "one"}, note=NOTE, seen=0)
    with pytest.raises(ChangedMeanwhile):
        configuration.change(runtime, CLI, {"FAX_HEADER": "two"}, note=NOTE, seen=0)
    assert saved(runtime) == {"FAX_HEADER": "one"}
    configuration.change(runtime, CLI, {"FAX_HEADER": "two"}, note=NOTE, seen=1)


def test_of_writers_at_the_same_time_each_is_whole_or_refused(runtime: Runtime) -> None:
    """Whatever comes of it: as many versions, revisions and rows of the trail as were told that it is saved."""
    wishes: list[dict[str, Any]] = [
        {"FAX_HEADER": "a", "FAXBOT_ALARM_SECONDS": 61},
        {"FAX_HEADER": "b", "FAXBOT_ALARM_SECONDS": 62},
        {"FAX_DISABLED": True},
        {"FAX_HEADER": "c", "FAXBOT_ALARM_SECONDS": 63},
    ]

    def write(number: int) -> bool:
        try:
            configuration.change(runtime, CLI, wishes[number], note=NOTE)
        except ChangedMeanwhile:
            return False
        return True

    done = sum(at_once(len(wishes), write))

    assert 1 <= done == runtime.settings.stored().version
    assert done == len(configuration.backups(runtime, CLI)) == len(trail(runtime))
    found = saved(runtime)
    pair = (found.get("FAX_HEADER"), found.get("FAXBOT_ALARM_SECONDS"))
    assert pair in {("a", "61"), ("b", "62"), ("c", "63"), (None, None)}


# What no longer holds -------------------------------------------------------------------------------

BROKEN: list[tuple[str, str]] = [
    ("FAXBOT_MAX_PAGES", "0"),
    ("FAX_DISABLED", "perhaps"),
    ("FAX_BACKENDS", "no; name"),
]


@pytest.fixture
def broken(runtime: Runtime) -> Runtime:
    """Saved by a version with other rules: no process that starts now can go by it."""
    force(
        runtime, {OPTIONS: {**dict(BROKEN), "FAX_HEADER": "ours", "GONE": "1", "FAXBOT_PORT": "1"}}
    )
    with pytest.raises(ConfigError, match="faxbot config set FAXBOT_MAX_PAGES --unset"):
        runtime.fresh()
    return runtime


def test_what_no_longer_holds_is_listed_and_taken_back_one_by_one(broken: Runtime) -> None:
    told = configuration.overview(broken)
    stops = {each["name"] for each in told["broken"] if each["stops"]}
    assert stops == {name for name, _ in BROKEN}
    assert {each["name"] for each in told["broken"]} - stops == {"GONE", "FAXBOT_PORT"}
    assert of(broken, "FAXBOT_MAX_PAGES") | {"value": None, "source": "db"} == of(
        broken, "FAXBOT_MAX_PAGES"
    )
    assert "at least 1" in of(broken, "FAXBOT_MAX_PAGES")["fault"]
    assert of(broken, "FAX_HEADER")["value"] == "ours"

    with pytest.raises(InvalidFields) as caught:
        configuration.change(broken, CLI, {"FAX_HEADER": "new"}, note=NOTE)
    assert set(errors(caught)) == stops
    for name in (*stops, "GONE", "FAXBOT_PORT"):
        configuration.change(broken, CLI, {name: None}, note=NOTE)

    assert broken.fresh().config.fax_header == "ours"
    assert configuration.overview(broken)["broken"] == []


def test_what_no_longer_holds_can_be_set_anew_all_at_once_or_gone_back_from(
    broken: Runtime,
) -> None:
    wish = {"FAXBOT_MAX_PAGES": 5, "FAX_DISABLED": False, "FAX_BACKENDS": None}
    configuration.change(broken, CLI, wish, note=NOTE)
    assert broken.fresh().config.max_pages == 5

    configuration.rollback(broken, CLI, 0, note=NOTE)
    assert broken.fresh().config.max_pages == 7
    with pytest.raises(InvalidFields):
        configuration.rollback(broken, CLI, 1, note=NOTE)


def test_what_does_not_open_is_listed_and_can_be_taken_back(runtime: Runtime) -> None:
    configuration.change(runtime, CLI, {"FAX_HEADER": "ours", "FAXBOT_MAX_PAGES": 5}, note=NOTE)
    configuration.change(
        runtime, CLI, {"phaxio.apiKey": "k", "phaxio.apiSecret": "s"}, note=NOTE, untested=True
    )
    other = Keyring({"other": bytes(32)}, "other")
    blind = replace(
        runtime, keyring=other, settings=Settings(runtime.config, runtime.database, other)
    )

    told = configuration.overview(blind)["broken"]
    assert {each["name"] for each in told if "CONFIG_MASTER_KEY" in each["fault"]} == {
        "FAX_HEADER",
        "FAXBOT_MAX_PAGES",
        "phaxio.apiKey",
        "phaxio.apiSecret",
    }
    with pytest.raises(InvalidFields):
        configuration.change(blind, CLI, {"FAX_DISABLED": True}, note=NOTE)
    with pytest.raises(InvalidFields) as caught:
        configuration.rollback(blind, CLI, 1, note=NOTE)
    assert "does not open" in str(errors(caught)["version"])
    configuration.change(blind, CLI, {"FAX_HEADER": None, "phaxio.apiKey": None}, note=NOTE)
    configuration.rollback(blind, CLI, 0, note=NOTE)
    assert (blind.fresh().config.max_pages, blind.settings.stored().saved) == (7, {})


def test_a_plugin_that_is_gone_or_set_wrongly_keeps_nobody_out_and_is_listed(
    runtime: Runtime,
) -> None:
    force(
        runtime, {"gone": {"key": "secret-value"}, "simulator": {"baseUrl": "nonsense", "other": 1}}
    )

    told = configuration.overview(runtime)
    assert {(each["name"], each["stops"]) for each in told["broken"]} == {
        ("gone.key", False),
        ("simulator.other", False),
        ("simulator", False),
    }
    assert "secret-value" not in str(told)
    runtime.fresh()
    configuration.change(
        runtime,
        CLI,
        {"gone.key": None, "simulator.other": None, "simulator.baseUrl": None},
        note=NOTE,
        untested=True,
    )
    assert runtime.settings.stored().saved == {}


def test_what_is_saved_by_the_door_of_the_plugins_is_kept_and_written_down_too(
    runtime: Runtime,
) -> None:
    values = {"apiKey": "k", "apiSecret": "s"}
    odd = {**values, "baseUrl": "https://fax.example.org/5550100000"}
    with pytest.raises(InvalidFields) as caught:
        activation.configure(runtime, CLI, "phaxio", odd, note="an account", untested=True)
    assert "telephone number" in str(errors(caught)["baseUrl"]), "as no import would take it"
    activation.configure(runtime, CLI, "phaxio", values, note="an account", untested=True)
    activation.activate(runtime, CLI, "phaxio", slot="outbound", note="signed", untested=True)
    activation.deactivate(runtime, CLI, "phaxio", slot="outbound", note="no more")

    assert [(action, name, details["event"]) for action, name, details in trail(runtime)] == [
        ("plugin.configured", "phaxio", "PROVIDER_CONFIGURED"),
        ("plugin.activated", "phaxio", "PROVIDER_ACTIVATED"),
        ("plugin.deactivated", "phaxio", "PROVIDER_DEACTIVATED"),
    ]
    assert [each["note"] for each in configuration.backups(runtime, CLI)] == [
        "no more",
        "signed",
        "an account",
    ]
    configuration.rollback(runtime, CLI, 2, note=NOTE, untested=True)
    assert runtime.fresh().config.provider_ids == ("phaxio", "simulator")
    (last, *_) = oversight.provider(runtime, CLI, "phaxio")["history"]
    assert (last["type"], last["reason"], last["note"]) == ("PROVIDER_ACTIVATED", "outbound", NOTE)


def test_a_plugin_that_is_not_active_any_more_may_have_nothing_saved(runtime: Runtime) -> None:
    wish = {"phaxio.apiKey": "k", "phaxio.apiSecret": "s", "FAX_BACKENDS": "phaxio"}
    configuration.change(runtime, CLI, wish, note=NOTE, untested=True)

    with pytest.raises(InvalidFields) as caught:
        configuration.change(runtime, CLI, {"phaxio.apiKey": None}, note=NOTE, untested=True)
    assert "PHAXIO_API_KEY is not set" in str(errors(caught)["phaxio"])
    configuration.rollback(runtime, CLI, 0, note=NOTE, untested=True)
    assert runtime.settings.stored().saved == {}
    assert runtime.fresh().config.provider_ids == ("simulator",)


def test_a_secret_of_the_environment_does_not_come_back_to_an_address_that_was_saved(
    runtime: Runtime,
) -> None:
    """Also where the plugin is not active, and where what is saved does not open."""
    wish = {"simulator.baseUrl": NOWHERE, "simulator.secret": "given", "FAX_BACKENDS": "phaxio"}
    more = {"phaxio.apiKey": "k", "phaxio.apiSecret": "s"}
    configuration.change(runtime, CLI, wish | more, note=NOTE, untested=True)
    with pytest.raises(InvalidFields) as caught:
        configuration.change(runtime, CLI, {"simulator.secret": None}, note=NOTE, untested=True)
    assert "another address" in str(errors(caught)["simulator.secret"])

    with runtime.database.transaction() as session:
        session.execute(
            sa.text("UPDATE config_entries SET value_sealed = :x WHERE key = 'secret'"), {"x": b"?"}
        )
    with pytest.raises(InvalidFields):
        configuration.change(runtime, CLI, {"simulator.secret": None}, note=NOTE, untested=True)
    both = dict.fromkeys(("simulator.secret", "simulator.baseUrl"))
    configuration.change(runtime, CLI, both, note=NOTE, untested=True)


# What was made at the start -------------------------------------------------------------------------


def test_what_was_made_when_the_process_began_goes_by_a_change_too(
    runtime: Runtime, tmp_path: Path
) -> None:
    """Nobody else reads settings once: every other reader takes them from the snapshot of his request or task."""
    letter = tmp_path / "letter"
    letter.write_bytes(tiff(3))
    drawing = (runtime.renderer, runtime.renderer_behind)

    assert runtime.fresh().checker.check(letter).pages == 3
    wish = {
        "FAXBOT_MAX_PAGES": 2,
        "FAXBOT_BREAKER_PROBES": 4,
        "FAXBOT_DOCUMENT_MEMORY_MB": 512,
    }
    configuration.change(runtime, CLI, wish, note=NOTE)
    with pytest.raises(DocumentTooLarge):
        runtime.checker.check(letter)
    assert runtime.breakers._config.breaker_probes == 4
    assert {each._limits.memory_mb for each in drawing} == {512}

    configuration.rollback(runtime, CLI, 0, note=NOTE)
    assert runtime.checker.check(letter).pages == 3
    assert runtime.breakers._config.breaker_probes == 1
    assert {each._limits.memory_mb for each in drawing} == {1024}


def test_the_administrator_of_another_account_neither_changes_nor_takes_away_what_is_everybodys(
    runtime: Runtime,
) -> None:
    stranger = Actor("other", "k", frozenset({"*"}))
    deeds: list[Callable[[], object]] = [
        lambda: configuration.change(runtime, stranger, {"FAX_DISABLED": "true"}, note="n"),
        lambda: configuration.export(runtime, stranger, reveal=True),
        lambda: configuration.backup(runtime, stranger, "n"),
        lambda: configuration.backups(runtime, stranger),
        lambda: configuration.rollback(runtime, stranger, 0, note="n"),
    ]
    for deed in deeds:
        with pytest.raises(Forbidden):
            deed()
    assert runtime.settings.read().version == 0
