"""What production demands of the configuration: each missing thing is named with the setting that mends it, all at
once, and without a value."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from faxbot import wiring
from faxbot.config import Config
from faxbot.errors import ConfigError
from faxbot.production import Finding, demand, of_config

KEY = "A" * 43 + "="
WELL = {
    "FAXBOT_ENV": "production",
    "CONFIG_MASTER_KEY": KEY,
    "PUBLIC_API_URL": "https://fax.example.org",
    "DATABASE_URL": "postgresql://faxbot:pass-word@db/faxbot",
    "CELERY_BROKER_URL": "redis://:pass-word@broker:6379/0",
}


def config(folder: Path, **changes: str) -> Config:
    return Config.load({**WELL, "FAX_DATA_DIR": str(folder), **changes})


def missing(config: Config) -> list[str]:
    """The settings that are named, in order."""
    return [
        each.setting or each.name
        for each in of_config(config)
        if not each.ok and each.needed_in_production
    ]


def finding(config: Config, name: str) -> Finding:
    (found,) = (each for each in of_config(config) if each.name == name)
    return found


def test_with_all_it_needs_production_starts(tmp_path: Path) -> None:
    demand(config(tmp_path))
    assert missing(config(tmp_path)) == []


def test_everything_that_is_missing_is_named_at_once_with_its_mend(tmp_path: Path) -> None:
    (tmp_path / "first-api-key").write_text("fbk_live_secret")
    wrong = config(
        tmp_path,
        CONFIG_MASTER_KEY="",
        PUBLIC_API_URL="http://fax.example.org",
        DATABASE_URL="postgresql://faxbot@db/faxbot",
        CELERY_BROKER_URL="redis://broker:6379/0",
        REQUIRE_API_KEY="false",
    )
    with pytest.raises(ConfigError) as refused:
        demand(wrong)
    lines = refused.value.detail.splitlines()

    assert missing(wrong) == [
        "CONFIG_MASTER_KEY", "DATABASE_URL", "CELERY_BROKER_URL", "first key", "PUBLIC_API_URL", "REQUIRE_API_KEY",
    ]  # fmt: skip
    assert len(lines) == 6
    for line, name in zip(lines, missing(wrong), strict=True):
        assert line.startswith(f"production needs {name}: ")
        assert "; " in line
    assert "openssl rand -base64 32" in lines[0]
    assert "secret" not in refused.value.detail


def test_development_demands_nothing_and_says_the_same(tmp_path: Path) -> None:
    bare = Config.load({"FAX_DATA_DIR": str(tmp_path)})
    demand(bare)

    assert missing(bare) == ["CONFIG_MASTER_KEY", "PUBLIC_API_URL"]
    assert not any(each.is_fault(production=False) for each in of_config(bare))


def test_no_finding_holds_a_secret(tmp_path: Path) -> None:
    said = str(of_config(config(tmp_path, API_KEY="short-pass-word")))
    assert "pass-word" not in said
    assert KEY not in said


@pytest.mark.parametrize(
    ("url", "more"),
    [
        ("postgresql://faxbot:pass-word@db/faxbot", {}),
        ("postgres://faxbot:p%40ss/w?rd@db:5432/faxbot", {}),
        ("postgresql://faxbot@db/faxbot?password=pass-word", {}),
        ("postgresql://faxbot@db/faxbot?sslmode=verify-full&sslcert=/c&sslkey=/k", {}),
        ("postgresql://faxbot@db/faxbot?passfile=/p", {}),
        ("postgresql:///faxbot?service=fax", {}),
        ("postgresql:///faxbot", {}),
        ("postgresql://faxbot@/faxbot?host=/run/postgresql", {}),
        ("postgresql://faxbot@%2Frun%2Fpostgresql/faxbot", {}),
        ("postgresql://faxbot@db/faxbot", {"PGPASSWORD": "pass-word"}),
        ("postgresql://faxbot@db/faxbot", {"PGPASSFILE": "/p"}),
    ],
)
def test_a_database_that_is_shown_a_proof(tmp_path: Path, url: str, more: dict[str, str]) -> None:
    assert missing(config(tmp_path, DATABASE_URL=url, **more)) == []


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://faxbot@db/faxbot",
        "postgresql://faxbot:@db/faxbot",
        "postgresql://db:5432/faxbot?application_name=a:b",
        "postgresql://faxbot@127.0.0.1/faxbot?host=db",
        "postgresql://faxbot@[::1]:5432/faxbot",
    ],
)
def test_a_database_that_is_shown_none(tmp_path: Path, url: str) -> None:
    assert missing(config(tmp_path, DATABASE_URL=url)) == ["DATABASE_URL"]


def test_sqlite_is_guarded_by_the_permissions_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "data" / "faxbot.db"
    file.parent.mkdir(mode=0o700)
    on_file = config(file.parent, DATABASE_URL="")
    assert missing(on_file) == [], "it is not there yet"
    file.touch(0o600)
    assert missing(on_file) == []

    file.chmod(0o644)
    assert missing(on_file) == [], "nobody gets to it"
    file.parent.chmod(0o711)
    assert missing(on_file) == ["DATABASE_URL"]
    file.chmod(0o600)
    assert missing(on_file) == []
    file.parent.chmod(0o770)
    assert missing(on_file) == ["DATABASE_URL"]
    elsewhere = config(tmp_path, DATABASE_URL=f"sqlite:///{file}")
    assert missing(elsewhere) == ["DATABASE_URL"]


@pytest.mark.parametrize(
    ("url", "ok"),
    [
        ("redis://:pass-word@broker:6379/0", True),
        ("redis://user:pass-word@broker", True),
        ("rediss://:pass-word@broker", True),
        ("redis://broker:6379/0", False),
        ("redis://user@broker:6379/0", False),
        ("rediss://broker", False),
        ("redis://:@broker", False),
    ],
)
@pytest.mark.parametrize("name", ["CELERY_BROKER_URL", "REDIS_URL"])
def test_a_broker_is_shown_a_password(tmp_path: Path, name: str, url: str, *, ok: bool) -> None:
    given = config(tmp_path, **{"CELERY_BROKER_URL": "", name: url})
    assert missing(given) == ([] if ok else [name])


def test_a_broker_on_a_socket_is_guarded_by_its_permissions(tmp_path: Path) -> None:
    folder = tmp_path / "broker"
    folder.mkdir(mode=0o700)
    (folder / "sock").touch(0o777)
    given = config(tmp_path, CELERY_BROKER_URL=f"redis+socket://{folder}/sock")
    assert missing(given) == []

    folder.chmod(0o755)
    (folder / "sock").chmod(0o777)
    assert missing(given) == ["CELERY_BROKER_URL"]
    (folder / "sock").chmod(0o700)
    assert missing(given) == []
    named = config(tmp_path, CELERY_BROKER_URL=f"redis+socket://:pass-word@{folder}/sock")
    (folder / "sock").chmod(0o777)
    assert missing(named) == []


def test_the_embedded_broker_will_do_while_nobody_else_can_take_its_place(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o755)
    embedded = config(folder, CELERY_BROKER_URL="")
    assert missing(embedded) == []
    folder.chmod(0o777)
    assert missing(embedded) == ["FAX_DATA_DIR"]


def test_who_goes_from_development_to_production_is_told_to_keep_his_key(tmp_path: Path) -> None:
    (tmp_path / "master.key").write_bytes(os.urandom(32))
    mend = finding(config(tmp_path, CONFIG_MASTER_KEY=""), "master key").mend
    assert f"base64 -w0 {tmp_path}/master.key" in mend
    with pytest.raises(ConfigError) as refused:
        wiring.build(config(tmp_path, CONFIG_MASTER_KEY=""))
    assert refused.value.detail == f"production needs CONFIG_MASTER_KEY: {mend}", "one order"


def test_a_key_of_the_environment_that_can_be_guessed_is_refused_and_a_short_one_a_warning(
    tmp_path: Path,
) -> None:
    assert missing(config(tmp_path, API_KEY="guess me")) == ["API_KEY"]
    short = finding(config(tmp_path, API_KEY="x" * 20), "key of the environment")
    assert (short.ok, short.needed_in_production, short.setting) == (False, False, "API_KEY")
    assert finding(config(tmp_path, API_KEY="x" * 32), "key of the environment").ok


def test_where_there_is_a_key_of_the_environment_all_need_one_whatever_is_required(
    tmp_path: Path,
) -> None:
    assert missing(config(tmp_path, REQUIRE_API_KEY="false", API_KEY="x" * 32)) == []


@pytest.mark.parametrize(
    ("named", "url", "ok"),
    [
        ("", "https://fax.example.org", False),
        ("", "http://fax.example.org", True),
        ("10.0.0.5", "https://fax.example.org", True),
        ("0.0.0.0/0", "https://fax.example.org", False),
        ("10.0.0.5,::/0", "http://fax.example.org", False),
    ],
)
def test_who_is_behind_a_proxy_and_does_not_name_it_or_names_everybody_is_warned(
    tmp_path: Path, named: str, url: str, *, ok: bool
) -> None:
    found = finding(config(tmp_path, FAXBOT_TRUSTED_PROXIES=named, PUBLIC_API_URL=url), "clients")
    assert (found.ok, found.needed_in_production) == (ok, False)
    assert (found.setting, bool(found.mend)) == ("FAXBOT_TRUSTED_PROXIES", not ok)


@pytest.mark.parametrize(
    ("name", "value"), [("REQUIRE_API_KEY", "false"), ("PUBLIC_API_URL", "http://h")]
)
def test_what_may_be_saved_is_not_demanded_of_who_cannot_look_but_may_not_be_saved_either(
    tmp_path: Path, name: str, value: str
) -> None:
    given = config(tmp_path, **{name: value})
    demand(given)
    with pytest.raises(ConfigError, match=name):
        demand(given, of_config(given))
    with pytest.raises(ConfigError, match=name):
        config(tmp_path).with_saved({name: value})


def test_nobody_runs_commands_on_a_production_machine_over_http(tmp_path: Path) -> None:
    wrong = config(tmp_path, ENABLE_LOCAL_ADMIN="true")
    assert missing(wrong) == ["ENABLE_LOCAL_ADMIN"]
    with pytest.raises(ConfigError, match="remove ENABLE_LOCAL_ADMIN"):
        demand(wrong, of_config(wrong))
