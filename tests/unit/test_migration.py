"""The earlier Faxbot's settings: every variable has its place, and the plan says what becomes of each without showing
what is secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from faxbot import migration, wiring
from faxbot.config import BY_NAME, Config
from faxbot.errors import ConfigError
from faxbot.legacy import JSON_KEYS, NEVER, TABLE
from faxbot.migration import Known, Plan, Step

VARIABLES = Path(__file__).parent.parent / "earlier" / "variables.tsv"
SECRET = "a-secret-of-the-clinic"


@pytest.fixture(scope="module")
def known() -> Known:
    return Known(wiring.plugins(Config.load({})).manifests())


def planned(known: Known, **values: str) -> Plan:
    """Of a file with these variables."""
    return migration.plan(migration.of_environment(values, whole=True), known)


def step(plan: Plan, name: str) -> Step:
    (found,) = [each for each in plan.steps if each.name == name]
    return found


def listed() -> dict[str, str]:
    """Every variable that the earlier Faxbot read, with its default."""
    lines = VARIABLES.read_text(encoding="utf-8").splitlines()
    return {name: default for name, _, default in (line.partition("\t") for line in lines)}


def test_every_variable_of_the_earlier_faxbot_is_in_the_table_with_its_default() -> None:
    assert {row.name: row.default for row in TABLE} == listed()
    assert len({row.name for row in TABLE}) == len(TABLE)


def test_what_is_not_taken_over_has_a_reason_and_what_is_has_a_setting(known: Known) -> None:
    for row in TABLE:
        new = row.name if row.new is None else row.new
        assert known.is_known(new) or row.gone, row.name
        assert row.new != NEVER or row.gone


def test_every_variable_is_told_about_and_nothing_of_it_is_shown_that_is_secret(
    known: Known,
) -> None:
    plan = planned(known, **{name: SECRET if _is_secret(name) else "1" for name in listed()})

    assert {each.name for each in plan.steps} >= listed().keys()
    assert SECRET not in str(plan.steps)
    assert SECRET not in repr(plan)


def _is_secret(name: str) -> bool:
    if name == "REQUIRE_API_KEY":
        return False
    words = ("_KEY", "SECRET", "PASSWORD", "_PASS", "_TOKEN", "DATABASE_URL")
    return name.endswith(words)


def test_the_settings_of_a_provider_go_to_that_provider(known: Known) -> None:
    plan = planned(
        known,
        FAX_BACKEND="Phaxio",
        PHAXIO_API_KEY="key",
        PHAXIO_API_SECRET="secret",
        PHAXIO_CALLBACK_TOKEN="ours already",
        PHAXIO_CALLBACK_URL="https://fax.example.org/phaxio-callback",
    )

    assert plan.saved["phaxio"] == {
        "apiKey": "key",
        "apiSecret": "secret",
        "callbackToken": "ours already",
    }
    assert plan.wish["FAX_BACKENDS"] == plan.provider_id == "phaxio"
    assert "sinch" not in plan.saved, "nobody named anything of Sinch's own"
    assert step(plan, "PHAXIO_API_KEY").kind == migration.SAME
    assert step(plan, "FAX_BACKEND").kind == migration.RENAMED
    assert "PUBLIC_API_URL" in step(plan, "PHAXIO_CALLBACK_URL").note
    assert step(plan, "PHAXIO_CALLBACK_URL").kind == migration.DROPPED


def test_the_bucket_is_taken_over_and_another_prefix_is_told(known: Known) -> None:
    bucket = {"S3_BUCKET": "faxes", "S3_REGION": "eu-west-1", "S3_KMS_KEY_ID": "alias/fax"}
    plan = planned(known, STORAGE_BACKEND="s3", **bucket)

    assert plan.saved["s3"] == {"bucket": "faxes", "region": "eu-west-1", "kmsKeyId": "alias/fax"}
    assert plan.wish["STORAGE_BACKEND"] == "s3"
    told = step(plan, "S3_PREFIX")
    assert told.kind == migration.UNSET
    assert "took inbound/, this one takes faxbot/" in told.note

    as_it_was = planned(known, STORAGE_BACKEND="S3", S3_BUCKET="faxes", S3_PREFIX="inbound/")
    assert as_it_was.saved["s3"] == {"bucket": "faxes", "prefix": "inbound/"}
    assert step(as_it_was, "S3_PREFIX").kind == migration.DIFFERS


def test_sinch_has_the_credentials_of_phaxio_where_it_has_none_of_its_own(known: Known) -> None:
    plan = planned(
        known, SINCH_PROJECT_ID="project", PHAXIO_API_KEY="key", PHAXIO_API_SECRET="secret"
    )

    assert plan.saved["sinch"] == {"projectId": "project", "apiKey": "key", "apiSecret": "secret"}


def test_sip_is_asterisk_and_the_station_id_is_its(known: Known) -> None:
    plan = planned(
        known, FAX_BACKEND="sip", FAX_LOCAL_STATION_ID="+15551234567", ASTERISK_AMI_PORT="5039"
    )

    assert plan.saved["asterisk"] == {"port": 5039, "stationId": "+15551234567"}
    assert plan.provider_id == "asterisk"
    shown = step(plan, "FAX_LOCAL_STATION_ID")
    assert (shown.kind, shown.new) == (migration.RENAMED, "ASTERISK_STATION_ID")
    assert "5551234" not in str(plan.steps)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("FAX_BACKEND", "signalwire", "no provider plugin"),
        ("FAX_BACKEND", "local", "no provider plugin"),
        ("STORAGE_BACKEND", "phaxio", "no storage plugin"),
        ("ENABLE_S3_DIAGNOSTICS", "true", "is tried whenever"),
        ("MAX_FILE_SIZE_MB", "0", "at least"),
        ("PDF_TOKEN_TTL_MINUTES", "soon", "whole number"),
        ("FAX_HEADER", "Přáctice", "ASCII"),
        ("API_KEY", "your_secure_api_key_here", "example"),
        ("SINCH_PROJECT_ID", "your_sinch_project_id", "example"),
        ("FAX_DATA_DIR", "/faxdata", "new, empty folder"),
        ("DATABASE_URL", "sqlite:////faxdata/faxbot.db", "not read"),
        ("SIGNALWIRE_API_TOKEN", "token", "SignalWire"),
        ("SIP_PASSWORD", "trunk", "Asterisk"),
        ("TZ", "UTC", "neither"),
    ],
)
def test_what_cannot_be_taken_over_says_why(
    known: Known, name: str, value: str, words: str
) -> None:
    plan = planned(known, **{name: value})

    assert step(plan, name).kind == migration.DROPPED
    assert words in step(plan, name).note
    assert (plan.saved, plan.environment) == ({}, {})


@pytest.mark.parametrize(
    ("value", "ours"),
    [("true", "true"), ("1", "true"), ("Yes", "true"), ("on", "false"), ("maybe", "false")],
)
def test_a_truth_value_is_what_the_earlier_one_took_it_for(
    known: Known, value: str, ours: str
) -> None:
    """It took everything for false but 1, true and yes (its api/app/config.py)."""
    assert {**(plan := planned(known, FAX_DISABLED=value)).wish, **plan.environment} == {
        "FAX_DISABLED": ours
    }


@pytest.mark.parametrize("name", ["ASTERISK_AMI_PASSWORD", "SIP_PASSWORD", "API_KEY"])
@pytest.mark.parametrize("published", ["changeme", "ClueCon"])
def test_a_secret_that_everybody_can_read_is_warned_of_whatever_becomes_of_it(
    known: Known, name: str, published: str
) -> None:
    assert "public" in step(planned(known, **{name: published}), name).warning
    assert not step(planned(known, **{name: SECRET}), name).warning


def test_where_nobody_said_anything_another_default_is_told(known: Known) -> None:
    plan = planned(known, FAX_BACKEND="sip")
    told = {each.name: each.note for each in plan.steps if each.kind == migration.UNSET}

    assert "false" in told["REQUIRE_API_KEY"]
    assert "asterisk" in told["ASTERISK_AMI_HOST"]
    assert "PDF_TOKEN_TTL_MINUTES" not in told, "it is the same"
    assert "ASTERISK_AMI_PASSWORD" not in told, "a secret has no default here"
    assert "SINCH_BASE_URL" not in told
    assert (
        "took phaxio"
        in {each.name: each.note for each in planned(known, TZ="UTC").steps}["FAX_BACKEND"]
    )


def test_of_a_process_only_what_the_earlier_one_read_is_looked_at(known: Known) -> None:
    environ = {"HOME": "/root", "PHAXIO_API_KEY": "", "FAX_DISABLED": "true"}
    plan = migration.plan(migration.of_environment(environ), known)

    assert [each.name for each in plan.steps if each.kind != migration.UNSET] == ["FAX_DISABLED"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("+1 (555) 123-4567", "+•"),
        ("Clinic 5551234567", "Clinic +•"),
        ("https://user:password@example.org/x", "https://********@example.org/x"),
        ("https://user:pass/5551234567@example.org/x", "https://********@example.org/x"),
        ("https://example.org/?token=5551234567", "https://example.org/?********"),
        ("192.168.100.100", "192.168.100.100"),
        ("5038", "5038"),
        ("a\x1b[31mb", "a?[31mb"),
    ],
)
def test_what_is_shown_has_no_number_no_password_and_does_not_steer_a_terminal(
    value: str, shown: str
) -> None:
    assert migration.masked(value, secret=False).startswith(shown)
    assert "5551234" not in migration.masked(value, secret=False)
    assert migration.masked(value, secret=True) == "********"


# faxbot.config.json ---------------------------------------------------------------------------------------------------


def document(**providers: Any) -> str:
    return json.dumps({"version": 1, "providers": providers})


def test_the_file_says_what_variables_say(known: Known) -> None:
    text = document(
        outbound={
            "plugin": "sinch",
            "enabled": True,
            "settings": {
                "project_id": "project",
                "configured": True,
                "odd-\x1bkey": SECRET,
                "base_url": "",
            },
        },
        inbound={"plugin": None, "enabled": False, "settings": {}},
        storage={"plugin": "local", "enabled": True, "settings": {}},
        auth={"plugin": "ldap", "enabled": True, "settings": {"password": SECRET}},
    )
    plan = migration.plan(migration.of_json(text), known)

    assert plan.provider_id == "sinch"
    assert plan.saved["sinch"] == {"projectId": "project"}
    told = {each.name: each.note for each in plan.steps}
    assert "never read" in told["providers.auth"]
    assert "no such setting" in told["providers.outbound.settings.?"]
    assert SECRET not in str(plan.steps)
    assert migration.UNSET not in {each.kind for each in plan.steps}


def test_every_setting_of_the_file_is_a_variable_of_the_table() -> None:
    names = {name for keys in JSON_KEYS.values() for name in keys.values()}
    assert names <= {row.name for row in TABLE}


def test_the_environment_goes_before_the_file_and_that_is_told(known: Known) -> None:
    file = migration.of_json(document(outbound={"plugin": "sinch", "settings": {}}))
    environment = migration.of_environment({"FAX_BACKEND": "phaxio"})
    plan = migration.plan(migration.joined([environment, file]), known)

    assert plan.provider_id == "phaxio"
    assert "something else" in step(plan, "FAX_BACKEND of the file").note


@pytest.mark.parametrize(
    ("entry", "name", "words"),
    [
        ({"plugin": "phaxio", "settings": {"api_key": "***"}}, "settings.api_key", "mask"),
        ({"plugin": "phaxio", "settings": {"api_key": [SECRET]}}, "settings.api_key", "no text"),
        ({"plugin": "phaxio", "settings": {"key": SECRET}}, "settings.key", "no such setting"),
        ({"plugin": "phaxio", "settings": SECRET}, "settings", "no object"),
        ({"plugin": {"phaxio": SECRET}}, "", "names no plugin"),
        ([SECRET], "", "names no plugin"),
        ("phaxio", "", "names no plugin"),
    ],
)
def test_what_of_the_file_is_no_value_is_told_and_not_repeated(
    known: Known, entry: Any, name: str, words: str
) -> None:
    plan = migration.plan(migration.of_json(document(outbound=entry)), known)

    assert words in step(plan, ".".join(filter(None, ("providers.outbound", name)))).note
    assert "phaxio" not in plan.saved
    assert SECRET not in str(plan.steps)


def test_a_provider_that_is_not_enabled_there_is_not_taken(known: Known) -> None:
    text = document(outbound={"plugin": "phaxio", "enabled": False, "settings": {"api_key": "k"}})
    plan = migration.plan(migration.of_json(text), known)

    assert plan.wish == {}
    assert "not enabled" in plan.steps[0].note


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "[]",
        "{}",
        '{"providers": {}}',
        '{"version": 2, "providers": {}}',
        '{"version": 1, "providers": []}',
        f'{{"password": "{SECRET}"}}',
        "[" * 100_000,
    ],
    ids=range(9),
)
def test_another_file_is_refused_without_a_word_of_it(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        migration.of_json(text)
    assert SECRET not in refused.value.detail


@pytest.mark.parametrize(
    "entry",
    [
        None,
        5,
        [],
        {"plugin": 7},
        {"plugin": "phaxio", "settings": [1]},
        {"plugin": "phaxio\ud800", "settings": {"api_key": "\ud800", "base_url": "\ud800"}},
        {"plugin": "phaxio", "settings": {"api_key": "\ud800", "base_url": "\ud800"}},
    ],
)
def test_a_strange_entry_does_no_harm(known: Known, entry: Any) -> None:
    migration.plan(migration.of_json(document(outbound=entry, **{"?\x1b": {"plugin": "x"}})), known)


def test_options_of_the_table_exist() -> None:
    assert {"FAX_BACKENDS", "STORAGE_BACKEND", "FAX_HEADER"} <= BY_NAME.keys()
