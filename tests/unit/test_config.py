"""Options: a wrong variable is named with its mend, an empty one is unset, and no secret shows."""

from __future__ import annotations

import base64
import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faxbot import db, forms, wiring
from faxbot.config import OPTIONS, Config
from faxbot.errors import ConfigError
from faxbot.options import Option

KEY = base64.b64encode(bytes(range(32))).decode()

WRONG = [
    ("FAXBOT_ENV", "staging", "must be one of: development, production"),
    ("FAXBOT_PORT", "-1", "must be at least 0"),
    ("FAXBOT_PORT", "65536", "must be at most 65535"),
    ("FAXBOT_PORT", "eighty", "is not a whole number"),
    ("FAXBOT_PORT", "80.5", "is not a whole number"),
    ("PUBLIC_API_URL", "fax.example.org", "must begin with https:// or http://"),
    ("PUBLIC_API_URL", "ftp://fax.example.org", "must begin with https:// or http://"),
    ("CELERY_BROKER_URL", "amqp://localhost", "must begin with redis://"),
    ("CELERY_BROKER_URL", "localhost:6379", "must begin with redis://"),
    ("REDIS_URL", "memory://", "must begin with redis://"),
    ("REDIS_URL", "redis://h:port/0", "must begin with redis://"),
    ("REDIS_URL", "redis://h:65536/0", "must begin with redis://"),
    ("REDIS_URL", "redis://[h/0", "must begin with redis://"),
    ("REDIS_URL", "redis://h/name", "must begin with redis://"),
    ("REDIS_URL", "redis://:pass/word@h:6379/0", "in a password write / as %2F"),
    ("CELERY_BROKER_URL", "redis+socket://", "must begin with redis://"),
    ("PUBLIC_API_URL", "http://", "must begin with https:// or http://"),
    ("PUBLIC_API_URL", "http://h:port", "must begin with https:// or http://"),
    ("PUBLIC_API_URL", "http://[h", "must begin with https:// or http://"),
    ("PUBLIC_API_URL", "http://h h", "must begin with https:// or http://"),
    ("FAXBOT_PORT", "\u0663", "is not a whole number"),
    ("FAXBOT_PORT", "8_080", "is not a whole number"),
    ("FAXBOT_PORT", "9" * 5000, "is not a whole number"),
    ("FAXBOT_WEB_THREADS", "1000000", "must be at most 1000"),
    ("FAXBOT_WEB_THREADS", "2", "must be at least 3"),
    ("API_KEY", "\u0416", "must be printable ASCII"),
    ("API_KEY", "key\n", "must be printable ASCII"),
    ("FAXBOT_API_KEY", " key", "must be printable ASCII"),
    ("FAX_HEADER", "two\nlines", "at most 50 printable ASCII characters"),
    ("FAXBOT_LEASE_SECONDS", "6_0", "is not a number"),
    ("FAXBOT_LEASE_SECONDS", "\u0666\u0660", "is not a number"),
    ("CONFIG_MASTER_KEY", "too short", "is not the base64 of 32 bytes"),
    ("CONFIG_MASTER_KEY", base64.b64encode(bytes(31)).decode(), "openssl rand -base64 32"),
    ("CONFIG_MASTER_KEY", KEY + "\n", "is not the base64 of 32 bytes"),
    ("REQUIRE_API_KEY", "maybe", "is neither true nor false"),
    ("FAX_DISABLED", "2", "is neither true nor false"),
    ("MAX_FILE_SIZE_MB", "0", "must be at least 1"),
    ("FAXBOT_MAX_PAGES", "many", "is not a whole number"),
    ("FAXBOT_DOCUMENT_MEMORY_MB", "64", "must be at least 256"),
    ("FAXBOT_DEFAULT_REGION", "USA", "two letters of a country"),
    ("FAXBOT_DEFAULT_REGION", "4\u0669", "two letters of a country"),
    ("FAX_HEADER", "x" * 51, "at most 50 printable ASCII characters"),
    ("FAX_HEADER", "caf\u00e9", "at most 50 printable ASCII characters"),
    ("DOCS_BASE_URL", "docs.example.org", "must begin with https:// or http://"),
    ("FAXBOT_WEB_WORKERS", "0", "must be at least 1"),
    ("FAXBOT_LEASE_SECONDS", "nan", "is not a finite number"),
    ("FAXBOT_LEASE_SECONDS", "inf", "is not a finite number"),
    ("FAXBOT_LEASE_SECONDS", "1e999", "is not a finite number"),
    ("FAXBOT_LEASE_SECONDS", "1 min", "is not a number"),
    ("FAXBOT_LEASE_SECONDS", "29", "FAXBOT_HEARTBEAT_SECONDS must be at most half"),
    ("FAXBOT_HEARTBEAT_SECONDS", "31", "at most half of FAXBOT_LEASE_SECONDS"),
    ("FAXBOT_SWEEP_SECONDS", "0", "must be at least 0.2"),
]


@pytest.mark.parametrize(("name", "value", "words"), WRONG)
def test_a_wrong_variable_is_refused_by_name_and_with_its_mend(
    name: str, value: str, words: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        Config.load({name: value})

    assert name in refused.value.detail
    assert words in refused.value.detail


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:pass-word@h/db",
        "postgresql+asyncpg://u:pass-word@h/db",
        "garbage pass-word",
        "postgresql://u:pass-word@h:port/db",
        "postgresql://u:pass-word@h:65536/db",
        "postgresql://u:pass-word@[bad/db",
        "postgresql://u:pass-word@bad]/db",
        "postgresql://u:pass-word@h h/db",
        "postgresql://u:pass@word@h/db",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite+pysqlcipher:///pass-word.db",
    ],
)
def test_a_database_that_cannot_be_is_refused_without_its_password(
    url: str,
) -> None:
    with pytest.raises(ConfigError, match=r"^DATABASE_URL ") as refused:
        Config.load({"DATABASE_URL": url})
    assert "pass-word" not in refused.value.detail


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p/w?#[:x@h:5432/fax",
        "postgresql://u:@[::1]:5432/fax",
        "postgresql://[fe80::1%eth0]/fax",
        "postgresql:///fax?host=/run/postgresql",
        "postgresql://h",
        "sqlite:////tmp/fax.db",
        "sqlite:///fax.db",
    ],
)
def test_a_database_that_can_be_is_taken(url: str, tmp_path: Path) -> None:
    db.Database(Config.load({"FAX_DATA_DIR": str(tmp_path), "DATABASE_URL": url})).close()


@pytest.mark.parametrize(
    "url",
    [
        "redis://",
        "redis://h",
        "redis://h:6379/0",
        "rediss://u:p%2Fw@[::1]:6379/15",
        "redis://h/1?socket_timeout=5",
        "redis+socket:///run/redis.sock?virtual_host=1",
    ],
)
def test_a_broker_that_can_be_is_taken(url: str) -> None:
    assert Config.load({"REDIS_URL": url}).broker == url


@pytest.mark.parametrize(
    "option",
    [option for option in OPTIONS if option.kind in ("int", "float")],
    ids=lambda o: o.name,
)
def test_a_number_beyond_all_reason_is_refused_before_a_timer_or_a_limit_overflows(
    option: Option,
) -> None:
    enormous = "1e300" if option.kind == "float" else "9" * 18

    with pytest.raises(ConfigError, match=rf"^{option.name} must be at most "):
        Config.load({option.name: enormous})


def test_a_country_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^FAXBOT_DEFAULT_REGION "):
        wiring.build(Config.load({"FAXBOT_DEFAULT_REGION": "ZZ"}))


@pytest.mark.parametrize("place", ["/dev/null/x", "/proc/x", "{tmp}/file", "{tmp}/file/x"])
def test_a_data_folder_that_cannot_be_is_named(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    config = Config.load({"FAX_DATA_DIR": place.format(tmp=tmp_path)})

    with pytest.raises(ConfigError, match="set FAX_DATA_DIR to a folder"):
        config.make_data_dir()
    with pytest.raises(ConfigError, match="set FAX_DATA_DIR to a folder"):
        db.Database(config)


@pytest.mark.parametrize(("mode", "warnings"), [(0o700, 0), (0o711, 0), (0o755, 1), (0o777, 1)])
def test_a_data_folder_that_is_open_to_others_is_warned_of(
    mode: int, warnings: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tmp_path.chmod(mode)

    Config.load({"FAX_DATA_DIR": str(tmp_path)}).warn_of_open_folder()

    assert [record.levelname for record in caplog.records] == ["WARNING"] * warnings
    assert all("FAX_DATA_DIR" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_an_empty_variable_is_an_unset_one(option: object) -> None:
    name = getattr(option, "name", "")

    assert Config.load({name: ""}) == dataclasses.replace(Config.load({}), environ={name: ""})


@pytest.mark.parametrize(
    ("word", "value"),
    [(word, True) for word in ("1", "true", "TRUE", " yes ", "on")]
    + [(word, False) for word in ("0", "false", "No", "off")],
)
def test_the_words_for_yes_and_no(word: str, value: bool) -> None:
    assert Config.load({"FAX_DISABLED": word}).fax_disabled is value


def test_every_option_is_named_once_and_explained() -> None:
    names = [option.name for option in OPTIONS]

    assert len(names) == len(set(names))
    assert all(option.help and not option.help.endswith(".") for option in OPTIONS)
    assert {option.kind for option in OPTIONS} == {"str", "int", "float", "bool", "Path"}


@pytest.mark.parametrize(
    ("given", "database"),
    [
        ("postgres://u:p@h:5432/fax", "postgresql+psycopg://u:p@h:5432/fax"),
        ("postgresql://u@h/fax?sslmode=require", "postgresql+psycopg://u@h/fax?sslmode=require"),
        ("postgresql+psycopg://u@h/fax", "postgresql+psycopg://u@h/fax"),
        ("sqlite:////tmp/fax.db", "sqlite:////tmp/fax.db"),
    ],
)
def test_the_database_is_the_one_named(given: str, database: str) -> None:
    assert Config.load({"DATABASE_URL": given}).database == database


def test_without_one_the_database_lies_in_the_data_folder(tmp_path: Path) -> None:
    config = Config.load({"FAX_DATA_DIR": str(tmp_path / "a b")})

    assert config.database == f"sqlite:///{tmp_path}/a b/faxbot.db"


def test_the_broker_is_the_one_named_else_a_private_one(tmp_path: Path) -> None:
    named = {"CELERY_BROKER_URL": "redis://one/1", "REDIS_URL": "redis://two/2"}
    private = Config.load({"FAX_DATA_DIR": str(tmp_path / "a b")})

    assert Config.load(named).broker == "redis://one/1"
    assert Config.load({"REDIS_URL": "redis://two/2"}).broker == "redis://two/2"
    assert not Config.load(named).embedded_broker
    assert private.embedded_broker
    assert private.broker == f"redis+socket://{tmp_path}/a%20b/broker.sock"
    assert private.broker_socket == tmp_path / "a b" / "broker.sock"


def test_a_socket_whose_path_is_too_long_lies_elsewhere_and_all_processes_agree_where(
    tmp_path: Path,
) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    link = tmp_path / ("l" * 100)
    link.symlink_to(deep)
    first, second = (Config.load({"FAX_DATA_DIR": str(path)}) for path in (deep, link))

    assert len(str(first.broker_socket)) <= 107
    assert first.broker_socket == second.broker_socket
    assert first.broker_socket != Config.load({"FAX_DATA_DIR": str(deep) + "x"}).broker_socket


def test_sip_means_asterisk() -> None:
    assert Config.load({"FAX_BACKEND": "sip"}).provider_id == "asterisk"
    assert Config.load({}).provider_id == "simulator"


def test_no_secret_shows_when_the_configuration_is_printed() -> None:
    secrets = {option.name for option in OPTIONS if option.secret}
    given = dict.fromkeys(secrets, "s3cret-value") | {
        "CONFIG_MASTER_KEY": KEY,
        "CONFIG_MASTER_KEY_PREVIOUS": KEY,
        "CELERY_BROKER_URL": "redis://:s3cret-value@h/0",
        "REDIS_URL": "redis://:s3cret-value@h/1",
        "DATABASE_URL": "postgresql://u:s3cret-value@h/fax",
        "PHAXIO_API_SECRET": "s3cret-value",
        "FLOWER_BASIC_AUTH": "operator:s3cret-value",
    }

    shown = repr(Config.load(given)) + str(Config.load(given))

    assert "s3cret" not in shown
    assert KEY not in shown
    assert {"DATABASE_URL", "API_KEY", "CONFIG_MASTER_KEY", "CELERY_BROKER_URL"} <= secrets


def test_production_wants_a_master_key_of_its_own(tmp_path: Path) -> None:
    production = {"FAXBOT_ENV": "production", "FAX_DATA_DIR": str(tmp_path)}

    with pytest.raises(ConfigError, match="CONFIG_MASTER_KEY"):
        wiring.build(Config.load(production))
    assert list(tmp_path.iterdir()) == [], "a key file was made all the same"
    wiring.build(Config.load({**production, "CONFIG_MASTER_KEY": KEY})).close()
    assert not (tmp_path / "master.key").exists()


def test_a_misspelt_setting_is_named_once_with_the_nearest_and_without_its_value(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = Config.load(
        {
            "FAXBOT_LEASE_SECOND": "pass-word",
            "FAXBOT_QQQ": "pass-word",
            "FAXBOT_PORT": "8080",
            "FAX_OTHER": "not ours to judge",
        }
    )
    config.warn_of_strangers()

    assert config.strangers() == {
        "FAXBOT_LEASE_SECOND": "FAXBOT_LEASE_SECONDS",
        "FAXBOT_QQQ": "",
    }
    (record,) = caplog.records
    assert record.getMessage() == (
        "no such setting: FAXBOT_LEASE_SECOND (is FAXBOT_LEASE_SECONDS meant?), FAXBOT_QQQ"
    )


@pytest.mark.parametrize(
    ("backends", "covered", "named"),
    [
        ("phaxio,sinch", "sinhc,sinch,sip", "asterisk, sinhc"),
        ("", "sinch", "sinch"),
        ("phaxio,sip", "asterisk", ""),
        ("phaxio,sinch", "", ""),
    ],
)
def test_a_provider_that_is_covered_and_would_never_be_asked_is_named(
    caplog: pytest.LogCaptureFixture, backends: str, covered: str, named: str
) -> None:
    given = {"FAX_BACKENDS": backends, "FAX_BACKENDS_COVERED": covered}
    Config.load(given).warn_of_strangers()

    said = [record.getMessage() for record in caplog.records]
    assert said == ([f"FAX_BACKENDS_COVERED: not in FAX_BACKENDS: {named}"] if named else [])


def test_settings_that_exist_are_no_strangers(caplog: pytest.LogCaptureFixture) -> None:
    Config.load({option.name: "" for option in OPTIONS}).warn_of_strangers()

    assert caplog.records == []


# What may be saved ----------------------------------------------------------------------------------

EDITABLE = [option for option in OPTIONS if option.editable]
EXAMPLES = {
    forms.WEB_ADDRESS: ("https://a.example", "http://b.example:81/x"),
    forms.COUNTRY: ("US", "de"),
    forms.NAMES: ("phaxio", "sinch, phaxio"),
    forms.ONE_LINE: ("Practice", "0"),
    forms.ROLES: ("admin=fax-admins;viewer=*", "operator = staff"),
    None: ("local", "elsewhere"),
}
RULES = {
    spec.metadata["name"]: spec.metadata for spec in dataclasses.fields(Config) if spec.metadata
}


def texts_of(option: Option) -> tuple[str, ...]:
    """Values that can be saved, among them those that are false, 0 or empty."""
    rules = RULES[option.name]
    if option.kind == "bool":
        return ("false", "true", "0", "off", "")
    if rules["form"] is forms.DAYS_OF_DEAD_LETTERS:
        return ("0", "30", "")
    if option.kind in ("int", "float"):
        low, high = rules["at_least"], rules["at_most"]
        return (f"{low:g}" if low < 10_000 else str(low), str(min(low + 1, high)), "")
    return (*EXAMPLES[rules["form"]], "")


def test_an_option_may_be_saved_or_says_why_not() -> None:
    for option in OPTIONS:
        assert option.editable == (option.fixed == ""), option.name
        assert not (option.editable and option.secret), (
            "it would be shown in the history of changes"
        )
    assert {
        "DATABASE_URL",
        "CELERY_BROKER_URL",
        "REDIS_URL",
        "CONFIG_MASTER_KEY",
        "FAX_DATA_DIR",
    } <= {option.name for option in OPTIONS if option.fixed}
    assert len(EDITABLE) > 30


@given(data=st.data())
def test_what_is_saved_goes_before_the_environment_and_that_before_the_default(
    data: st.DataObject,
) -> None:
    """Whatever is saved counts as it is: false, 0 and nothing are values like others."""
    saved: dict[str, str] = {}
    environ: dict[str, str] = {}
    for option in EDITABLE:
        texts = st.none() | st.sampled_from(texts_of(option))
        for place, text in ((saved, data.draw(texts)), (environ, data.draw(texts))):
            if text is not None:
                place[option.name] = text

    config = Config.load(environ).with_saved(saved)

    for option in EDITABLE:
        text = saved[option.name] if option.name in saved else environ.get(option.name, "")
        alone = Config.load({option.name: text})
        expected = option.default if text == "" else getattr(alone, option.field)
        assert getattr(config, option.field) == expected, option.name


def test_every_false_zero_or_empty_value_that_is_saved_wins() -> None:
    """Each of them is different from what the environment says, so that `or` would show."""
    seen = 0
    for option in EDITABLE:
        for text in texts_of(option):
            for other in texts_of(option):
                saved = Config.load({option.name: other}).with_saved({option.name: text})
                value = getattr(saved, option.field)
                before = getattr(Config.load({option.name: other}), option.field)
                if not value and before:
                    seen += 1
                assert value == getattr(Config.load({option.name: text}), option.field)
    assert seen > 10


def test_what_is_saved_and_does_not_hold_is_named_by_variable_each_by_itself() -> None:
    saved = {
        "FAXBOT_MAX_PAGES": "0",
        "FAX_HEADER": "Practice",
        "FAX_DISABLED": "perhaps",
        "GONE": "1",
    }
    config = Config.load({"FAX_HEADER": "theirs"})

    assert config.faults(saved) == {
        "FAXBOT_MAX_PAGES": "FAXBOT_MAX_PAGES must be at least 1",
        "FAX_DISABLED": "FAX_DISABLED is neither true nor false (true, false, 1, 0, yes, no, on, off)",
    }
    assert config.with_sound(saved).fax_header == "Practice"
    with pytest.raises(ConfigError, match="FAXBOT_MAX_PAGES must be at least 1; FAX_DISABLED is"):
        config.with_saved(saved)


@pytest.mark.parametrize("value", [1, True, None, ["text"]])
def test_what_is_saved_as_anything_but_text_does_not_hold(value: object) -> None:
    saved: dict[str, Any] = {"FAXBOT_MAX_PAGES": value}
    assert Config.load({}).faults(saved) == {
        "FAXBOT_MAX_PAGES": "FAXBOT_MAX_PAGES is not saved as text"
    }


def test_options_that_do_not_hold_together_are_all_named() -> None:
    production = Config.load({"FAXBOT_ENV": "production", "CONFIG_MASTER_KEY": KEY})
    saved = {"REQUIRE_API_KEY": "false", "FAX_HEADER": "Practice"}

    assert set(production.faults(saved)) == {"REQUIRE_API_KEY"}


def test_a_warning_is_about_a_value() -> None:
    by_name = {option.name: option for option in OPTIONS}
    assert by_name["REQUIRE_API_KEY"].warns(False)
    assert not by_name["REQUIRE_API_KEY"].warns(True)
    assert by_name["FAX_DISABLED"].warns(True)
    assert not by_name["FAX_DISABLED"].warns(False)
    assert by_name["FAXBOT_CALLS_PER_NUMBER"].warns(2)
    assert not by_name["FAXBOT_CALLS_PER_NUMBER"].warns(1)
    assert not by_name["FAX_HEADER"].warns("anything")
    features = [option.feature for option in OPTIONS if option.feature]
    assert len(features) == len(set(features)) > 4
