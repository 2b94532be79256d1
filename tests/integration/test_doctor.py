"""The doctor says what is missing and what mends it, asks what is there, and keeps production from starting badly."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from faxbot import doctor, identity, sweeps, wiring
from faxbot.errors import ConfigError, Unauthenticated
from faxbot.heartbeats import beat
from faxbot.production import Finding
from tests.carrier import SimulatorProcess
from tests.installation import Installation
from tests.integration.command import run, run_process
from tests.integration.site import Site, open_site
from tests.integration.web import SECRET, assert_problem, client_of, new_key
from tests.servers import RedisServer

NOTE = {"note": "we move"}


def production(**changes: str) -> dict[str, str]:
    """What makes an installation fit for production, but for `changes`."""
    return {
        "FAXBOT_ENV": "production",
        "CONFIG_MASTER_KEY": base64.b64encode(os.urandom(32)).decode(),
        "PUBLIC_API_URL": "https://fax.example.org",
        "CELERY_BROKER_URL": "redis://:pass-word@127.0.0.1:9/0",
        "SIMULATOR_BASE_URL": "http://127.0.0.1:9",
        "SIMULATOR_SECRET": SECRET,
        **changes,
    }


def by_name(found: Any) -> dict[str, Finding]:
    return {each.name: each for each in found}


@pytest.fixture
def site(store: Installation, carrier_of_all: SimulatorProcess) -> Iterator[Site]:
    with open_site(store, carrier_of_all) as site:
        yield site


# Starting -----------------------------------------------------------------------------------------

ROLES = (["web"], ["worker"], ["beat"], ["listen"], ["up"])


@pytest.mark.parametrize("words", ROLES, ids=" ".join)
def test_no_role_starts_in_production_with_something_missing_and_all_of_it_is_named(
    embedded: Installation, words: list[str]
) -> None:
    wrong = production(
        CONFIG_MASTER_KEY="",
        PUBLIC_API_URL="http://fax.example.org",
        CELERY_BROKER_URL="redis://127.0.0.1:9/0",
        DATABASE_URL="postgresql://faxbot@127.0.0.1:9/faxbot",
        REQUIRE_API_KEY="false",
        FAX_BACKEND="phaxio",
    )
    ended = run_process(embedded, *words, **wrong)

    assert ended.code == 1
    assert "Traceback" not in ended.err
    for name in (
        "CONFIG_MASTER_KEY", "PUBLIC_API_URL", "CELERY_BROKER_URL", "DATABASE_URL", "REQUIRE_API_KEY",
    ):  # fmt: skip
        assert f"production needs {name}: " in ended.err
    assert not (embedded.data_dir / "master.key").exists()


@pytest.mark.parametrize("words", [["web"], ["worker"], ["listen"], ["prepare"]], ids=" ".join)
def test_a_carrier_whose_callbacks_cannot_be_proven_keeps_production_from_starting(
    embedded: Installation, words: list[str]
) -> None:
    phaxio = {"FAX_BACKEND": "phaxio", "PHAXIO_API_KEY": "k", "PHAXIO_API_SECRET": "s"}
    ended = run_process(embedded, *words, **production(**phaxio))

    assert ended.code == 1
    (line,) = (line for line in ended.err.splitlines() if "production needs" in line)
    assert line.startswith("faxbot: production needs PHAXIO_CALLBACK_TOKEN: what its carrier sends")
    assert "PUT /plugins/phaxio/config" in line


def test_production_starts_with_all_it_needs(embedded: Installation) -> None:
    doctor.start(embedded.config(**production()))
    with pytest.raises(ConfigError, match="PUBLIC_API_URL"):
        doctor.start(embedded.config(**production(PUBLIC_API_URL="")))
    doctor.start(embedded.config())


def test_an_address_that_is_saved_counts_as_one_of_the_environment(
    embedded: Installation,
) -> None:
    env = production(PUBLIC_API_URL="")
    config = embedded.config(**env)
    with pytest.raises(ConfigError, match="PUBLIC_API_URL"):
        doctor.start(config)
    words = ("config", "set", "PUBLIC_API_URL", "--note", "why")
    assert run(embedded, *words, "http://fax.example.org", **env).code == 1
    assert run(embedded, *words, "https://fax.example.org", **env).code == 0

    doctor.start(config)


def test_a_proof_that_is_saved_counts_as_one_of_the_environment(store: Installation) -> None:
    env = production(FAX_BACKEND="phaxio", PHAXIO_API_KEY="k", PHAXIO_API_SECRET="s")
    env["CELERY_BROKER_URL"] = "redis://:pass-word@127.0.0.1:9/0"
    config = store.config(**env)
    with pytest.raises(ConfigError, match="PHAXIO_CALLBACK_TOKEN"):
        doctor.start(config)
    runtime = wiring.build(config)
    with runtime.database.transaction() as session:
        wish = {"phaxio": {"callbackToken": "token"}}
        runtime.settings.write(session, wish, seen=0, now=runtime.now())
    runtime.close()

    doctor.start(config)


def test_a_database_that_is_away_keeps_no_role_from_starting(embedded: Installation) -> None:
    away = {"DATABASE_URL": "postgresql://faxbot:pass-word@127.0.0.1:9/faxbot"}
    doctor.start(embedded.config(**production(FAX_BACKEND="phaxio", **away)))


def test_production_asks_for_a_key_whatever_is_set(embedded: Installation) -> None:
    env = production(REQUIRE_API_KEY="false")
    runtime = wiring.build(embedded.config(**env))
    with pytest.raises(Unauthenticated):
        identity.authenticate(runtime, None)
    runtime.close()


def test_in_production_nothing_is_activated_whose_callbacks_cannot_be_proven(
    store: Installation,
) -> None:
    phaxio = {"PHAXIO_API_KEY": "k", "PHAXIO_API_SECRET": "s"}
    runtime = wiring.build(store.config(**production(**phaxio)))
    try:
        client = client_of(runtime, new_key(runtime, "admin"))
        wish = {**NOTE, "slot": "outbound", "untested": True}
        refused = client.post("/admin/providers/phaxio/activate", json=wish)
        assert "PHAXIO_CALLBACK_TOKEN" in assert_problem(refused, 409, "change-refused")["detail"]
        settings = {**NOTE, "untested": True, "settings": {"callbackToken": "token"}}
        assert client.put("/plugins/phaxio/config", json=settings).status_code == 200
        assert client.post("/admin/providers/phaxio/activate", json=wish).status_code == 200
        settings["settings"] = {"callbackToken": None}
        refused = client.put("/plugins/phaxio/config", json=settings)
        assert_problem(refused, 409, "change-refused")
    finally:
        runtime.close()


# Whenever somebody asks ---------------------------------------------------------------------------


def test_where_nothing_is_yet_the_doctor_says_so_makes_nothing_and_goes_on(
    embedded: Installation,
) -> None:
    folder = embedded.folder / "new"
    ended = run(embedded, "doctor", "--json", FAX_DATA_DIR=str(folder))
    found = {each["name"]: each for each in ended.json["findings"]}

    assert ended.code == 0
    assert ended.json["ok"] is True
    assert not folder.exists()
    assert found["database"]["ok"] is None
    assert "`faxbot up`" in found["database"]["sentence"]
    assert found["broker"]["ok"] is None
    assert found["master key"]["ok"] is False
    assert found["master key"]["setting"] == "CONFIG_MASTER_KEY"


def test_a_file_that_database_url_names_is_not_made_either(embedded: Installation) -> None:
    file = embedded.folder / "elsewhere.db"
    ended = run(embedded, "doctor", "--json", **production(DATABASE_URL=f"sqlite:///{file}"))
    found = {each["name"]: each for each in ended.json["findings"]}

    assert not file.exists()
    assert "where DATABASE_URL says" in found["database"]["sentence"]


def test_a_key_file_that_is_gone_is_said_and_not_made_anew(embedded: Installation) -> None:
    ended = run(embedded, "doctor", "--json")
    found = {each["name"]: each for each in ended.json["findings"]}

    assert "master.key" in found["database"]["sentence"]
    assert not (embedded.data_dir / "master.key").exists()


def test_of_what_runs_well_nothing_is_a_fault(site: Site, broker: str) -> None:
    assert broker
    runtime = site.runtime
    beat(runtime, sweeps.SWEEPS)
    found = by_name(doctor.examine(runtime.config, runtime))
    faults = [each for each in found.values() if each.is_fault(production=False)]

    assert faults == []
    for name in (
        "database",
        "storage",
        "provider",
        "queue",
        "listeners",
        "sweeps",
        "disk",
        "webhooks",
    ):
        assert found[name].ok, found[name]
    assert found["carrier of simulator"].ok
    assert found["callbacks of simulator"].ok
    if not runtime.database.is_sqlite:
        assert found["clock"].ok
        assert found["database password"].ok
        assert "requirepass" in found["broker"].mend, "that of the tests asks nobody"


def test_what_does_not_run_is_named_with_what_starts_it(site: Site) -> None:
    site.now += timedelta(hours=1)
    found = by_name(doctor.examine(site.runtime.config, site.runtime))

    if site.runtime.config.embedded_broker:
        assert found["sweeps"].ok is None
        assert found["sweeps"].sentence == "nothing runs here"
    else:
        assert found["sweeps"].ok is False
        assert "faxbot beat" in found["sweeps"].mend
        assert found["sweeps"].is_fault(production=False)


def test_a_broker_that_does_not_answer_and_one_that_asks_nobody_are_named(
    redis_server: RedisServer, embedded: Installation
) -> None:
    away = embedded.config(CELERY_BROKER_URL="redis://:pass-word@127.0.0.1:9/0")
    found = doctor._broker(away)
    assert (found.ok, found.setting, found.needed) == (False, "CELERY_BROKER_URL", True)
    anybody = doctor._broker(embedded.config(CELERY_BROKER_URL=redis_server.url))
    assert (anybody.ok, anybody.needed_in_production) == (False, True)
    assert "requirepass" in anybody.mend


def test_a_clock_that_is_apart_is_told(on_postgresql: Site) -> None:
    site = on_postgresql
    site.now += timedelta(seconds=30)
    found = by_name(doctor.examine(site.runtime.config, site.runtime))

    assert found["clock"].ok is False
    assert "30" in found["clock"].sentence or "29" in found["clock"].sentence
    assert "NTP" in found["clock"].mend


def test_a_schema_that_is_old_is_told(store: Installation) -> None:
    config = store.config()
    runtime = wiring.build(config)
    with runtime.database.transaction() as session:
        session.connection().exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    found = by_name(doctor.examine(config, runtime))
    runtime.close()

    assert found["database"].ok is False
    assert "faxbot db upgrade" in found["database"].mend


def test_a_plugin_that_takes_forged_callbacks_is_told(site: Site) -> None:
    site.odd.does["verify_callback"] = lambda *_: True
    found = by_name(doctor.examine(site.runtime.config, site.runtime))["callbacks of simulator"]

    assert (found.ok, found.needed_in_production) == (False, True)
    assert "forged" in found.sentence


def test_a_carrier_that_does_not_let_us_in_a_misspelt_setting_and_open_folders_are_told(
    embedded: Installation,
) -> None:
    run(embedded, "keys", "list")  # makes the key file
    (embedded.data_dir / "documents").mkdir()
    (embedded.data_dir / "documents").chmod(0o755)
    wrong = {"FAXBOT_LEASE_SECOND": "pass-word", "SIMULATOR_BASE_URL": "http://127.0.0.1:9"}
    ended = run(embedded, "doctor", SIMULATOR_SECRET="s3cret", **wrong)

    assert "setting FAXBOT_LEASE_SECOND" in ended.out
    assert "is FAXBOT_LEASE_SECONDS meant?" in ended.out
    assert "may look into documents" in ended.out
    assert "carrier of simulator: " in ended.out
    assert "pass-word" not in ended.out + ended.err
    assert "s3cret" not in ended.out + ended.err


def test_beside_faxbot_up_its_carrier_is_found_and_asked(
    embedded: Installation, carrier_of_all: SimulatorProcess
) -> None:
    run(embedded, "keys", "list")
    lost = run(embedded, "doctor")
    assert "FAIL  provider" in lost.out
    assert "uninstall" not in lost.out, "what comes with faxbot is not another's package"

    port = urlsplit(carrier_of_all.url).port
    (embedded.data_dir / "simulator-port").write_text(f"{port}\n")
    (embedded.data_dir / "simulator-secret").write_text(carrier_of_all.secret)
    ended = run(embedded, "doctor", "--json")
    found = {each["name"]: each for each in ended.json["findings"]}

    assert ended.code == 0, ended.out
    for name in ("provider", "carrier of simulator", "callbacks of simulator"):
        assert found[name]["ok"], found[name]
    assert "plugin simulator" not in found
    for words in (("providers", "test"), ("plugins", "test")):
        assert run(embedded, *words, "simulator").code == 0
    assert carrier_of_all.secret not in run(embedded, "plugins", "show", "simulator").out
    elsewhere = run(embedded, "doctor", SIMULATOR_BASE_URL="http://127.0.0.1:9")
    assert "FAIL  provider" in elsewhere.out, "a carrier that is named is not that of `faxbot up`"


def test_before_anything_runs_nobody_must_listen_yet(embedded: Installation) -> None:
    run(embedded, "keys", "list")  # makes the database
    asterisk = {"FAX_BACKEND": "asterisk", "ASTERISK_AMI_PASSWORD": "pass-word"}
    ended = run(embedded, "doctor", "--json", **asterisk)
    (found,) = (each for each in ended.json["findings"] if each["name"] == "listeners")
    assert (found["ok"], found["sentence"]) == (None, "nothing runs here")


@pytest.mark.parametrize("origin", ["saved", "environment"])
def test_sending_that_is_switched_off_is_told_with_what_switches_it_on(
    store: Installation, carrier_of_all: SimulatorProcess, origin: str
) -> None:
    env = {**carrier_of_all.environ, "FAX_DISABLED": "true" if origin == "environment" else ""}
    run(store, "config", "set", "FAX_HEADER", "another saved one", **env)
    if origin == "saved":
        run(store, "config", "set", "FAX_DISABLED", "true", **env)
    told = run(store, "doctor", **env)
    assert "warn  sending (FAX_DISABLED): it is switched off" in told.out
    assert origin in told.out.partition("FAX_DISABLED is ")[2].splitlines()[0]

    (mend,) = re.findall(r"`[^`]*?faxbot config set ([^`]+)`, or in the console", told.out)
    assert run(store, "config", "set", *mend.split(), **env).code == 0
    assert "ok    sending: it is switched on" in run(store, "doctor", **env).out


def test_a_disk_that_is_full_is_a_fault(
    embedded: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "LEAST_FREE", shutil.disk_usage("/").total * 2)
    found = by_name(doctor.of_installation(embedded.config()))["disk"]
    assert found.is_fault(production=False)


def test_the_exit_code_says_whether_something_needed_is_missing(embedded: Installation) -> None:
    well = production()
    missing = run(embedded, "doctor", **{**well, "PUBLIC_API_URL": ""})
    assert missing.code == 1
    assert "FAIL  public address (PUBLIC_API_URL): " in missing.out
    assert re.match(
        r"(1 fault|[2-9] faults), (1 warning|(no|\d+) warnings)$", missing.out.splitlines()[-1]
    )

    warned = run(embedded, "doctor", PUBLIC_API_URL="")
    assert warned.code == 0
    assert "warn  public address (PUBLIC_API_URL): " in warned.out
    assert "for FAXBOT_ENV=production" in warned.out.splitlines()[-1]


def test_the_words_for_programs_are_whole(embedded: Installation) -> None:
    ended = run(embedded, "doctor", "--json", **production())
    told = json.loads(ended.out)

    assert set(told) == {"ok", "production", "findings"}
    assert told["production"] is True
    for each in told["findings"]:
        assert set(each) == set(Finding.__slots__)
        assert each["ok"] is not False or each["mend"], each
        assert "pass-word" not in str(each)


def test_the_doctor_changes_nothing(embedded: Installation) -> None:
    run(embedded, "keys", "list")
    before = Path(embedded.data_dir / "faxbot.db").read_bytes()
    run(embedded, "doctor")
    assert Path(embedded.data_dir / "faxbot.db").read_bytes() == before
