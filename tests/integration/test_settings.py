"""What is saved goes before the environment, is noticed by every process within seconds, and is never written over
what its writer has not seen."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import sqlalchemy as sa

from faxbot import wiring
from faxbot.config import Config
from faxbot.db import Database, utcnow
from faxbot.errors import ChangedMeanwhile, ConfigError, DatabaseAway
from faxbot.models import ConfigEntry
from faxbot.plugins.base import FaxbotPlugin
from faxbot.runtime import Runtime
from faxbot.settings import LOOK_EVERY, OPTIONS, TOO_OLD, Settings, Wish
from tests.integration.site import Site
from tests.integration.web import SECRET
from tests.threads import at_once, is_noting

ORDER = "FAX_BACKENDS"


@dataclass
class Clock:
    """Seconds that only a test moves."""

    seconds: float = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def settings(runtime: Runtime, clock: Clock) -> Settings:
    return another(runtime, clock)


def another(runtime: Runtime, clock: Clock) -> Settings:
    """As another process has it."""
    return Settings(runtime.config, runtime.database, runtime.keyring, clock)


def save(runtime: Runtime, settings: Settings, wish: Wish, seen: int | None = None) -> None:
    seen = settings.read().version if seen is None else seen
    with runtime.database.transaction() as session:
        settings.write(session, wish, seen=seen, now=utcnow())


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    """What is asked of the database meanwhile."""
    heard: list[str] = []

    def note(*told: Any) -> None:
        if not is_noting():
            heard.append(told[2])

    for engine in (database.engine, database.reader):
        sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield heard
    finally:
        for engine in (database.engine, database.reader):
            sa.event.remove(engine, "before_cursor_execute", note)


def test_without_anything_saved_the_environment_alone_counts(
    runtime: Runtime, settings: Settings
) -> None:
    snapshot = settings.snapshot()

    assert (snapshot.version, snapshot.saved) == (0, {})
    assert snapshot.config is runtime.config
    assert runtime.fresh() is runtime


def test_what_is_saved_goes_before_the_environment_and_an_empty_value_is_the_default(
    runtime: Runtime, settings: Settings
) -> None:
    config = replace(runtime.config, fax_backends="phaxio", storage_backend="elsewhere")
    settings = Settings(config, runtime.database, runtime.keyring)

    save(runtime, settings, {OPTIONS: {ORDER: "sinch,phaxio", "STORAGE_BACKEND": ""}})
    found = settings.read()
    assert found.config.provider_ids == ("sinch", "phaxio")
    assert found.config.storage_backend == "local"
    assert found.config.data_dir == config.data_dir

    save(runtime, settings, {OPTIONS: {ORDER: None, "STORAGE_BACKEND": None}})
    assert settings.read().config == config
    assert settings.read().saved == {}


def test_what_is_saved_of_other_options_is_left_out(runtime: Runtime, settings: Settings) -> None:
    """They are taken once, when a process starts."""
    save(runtime, settings, {OPTIONS: {"FAXBOT_PORT": "1", "NO_SUCH_OPTION": "1"}})
    assert settings.read().config == runtime.config


def test_other_processes_notice_a_change_within_five_seconds_and_ask_once_in_between(
    runtime: Runtime, settings: Settings, clock: Clock
) -> None:
    assert LOOK_EVERY < 5
    assert settings.snapshot().config.provider_ids == ("simulator",)
    save(runtime, another(runtime, clock), {OPTIONS: {ORDER: "phaxio"}})

    with statements(runtime.database) as heard:
        clock.seconds += LOOK_EVERY - 0.1
        at_once(4, lambda _: [settings.snapshot() for _ in range(50)])
        assert not heard
        assert settings.snapshot().config.provider_ids == ("simulator",)
        clock.seconds += 0.1
        assert settings.snapshot().config.provider_ids == ("phaxio",)

        asked = len(heard)
        clock.seconds += LOOK_EVERY
        known = [settings.snapshot() for _ in range(50)]
    assert len(heard) == asked + 1
    assert all(each is known[0] for each in known)


def test_who_has_saved_something_knows_it_at_once_whoever_else_looks_meanwhile(
    runtime: Runtime, settings: Settings, clock: Clock
) -> None:
    settings.snapshot()
    clock.seconds += LOOK_EVERY
    read, answered, readers = threading.Event(), threading.Event(), set[int]()

    def hold(*_: object) -> None:
        if threading.get_ident() in readers:
            read.set()
            answered.wait(0.5)  # it is waited for: then nobody answers before

    def look() -> None:
        readers.add(threading.get_ident())
        settings.snapshot()

    def change() -> tuple[str, ...]:
        assert read.wait(10)
        save(runtime, settings, {OPTIONS: {ORDER: "phaxio"}}, 0)
        settings.catch_up()
        found = settings.snapshot().config.provider_ids
        answered.set()
        return found

    sa.event.listen(runtime.database.reader, "after_cursor_execute", hold)
    found = at_once(2, lambda number: change() if number else look())

    assert found[1] == ("phaxio",)


@pytest.mark.parametrize("idle", [LOOK_EVERY, TOO_OLD, 3600.0])
def test_who_comes_while_another_looks_goes_by_what_was_known_lately_and_else_waits(
    runtime: Runtime, settings: Settings, clock: Clock, idle: float
) -> None:
    """A process that had nothing to do for an hour has much at once: nobody goes by what held an hour ago."""
    settings.snapshot()
    save(runtime, another(runtime, clock), {OPTIONS: {ORDER: "phaxio"}})
    clock.seconds += idle
    looks, goes_on = threading.Event(), threading.Event()
    asked: list[str] = []

    def hold(*told: Any) -> None:
        asked.append(told[2])
        looks.set()
        goes_on.wait(10)

    def come(number: int) -> tuple[str, ...]:
        if number == 0:
            return settings.snapshot().config.provider_ids
        assert looks.wait(10)
        if number == 1:
            threading.Timer(0.3 if idle >= TOO_OLD else 2.0, goes_on.set).start()
        return settings.snapshot().config.provider_ids

    sa.event.listen(runtime.database.reader, "after_cursor_execute", hold)
    first, *others = at_once(4, come)

    assert first == ("phaxio",)
    assert set(others) == {("phaxio",) if idle >= TOO_OLD else ("simulator",)}
    assert len([text for text in asked if "config_versions" in text]) == 1


def test_a_slow_thread_brings_no_earlier_settings_back_and_a_restored_backup_does(
    runtime: Runtime,
) -> None:
    settings, plugins = runtime.settings, runtime.plugins
    earlier = settings.snapshot()
    for each in ("http://127.0.0.1:8", "http://127.0.0.1:9"):
        save(runtime, settings, {"simulator": {"baseUrl": each}})
    settings.catch_up()
    runtime.fresh()
    now = plugins.get("simulator", FaxbotPlugin)

    plugins.set(earlier.saved, earlier.serial)
    assert plugins.get("simulator", FaxbotPlugin) is now
    assert plugins.source("simulator", "baseUrl") == "db"

    with runtime.database.transaction() as session:
        session.execute(sa.text("DELETE FROM config_entries"))
        session.execute(sa.text("UPDATE config_versions SET version = 1"))
    settings.catch_up()
    runtime.fresh()
    assert plugins.source("simulator", "baseUrl") == "default"
    assert plugins.get("simulator", FaxbotPlugin) is not now


def test_a_database_that_goes_away_between_two_questions_leaves_what_is_known(
    on_postgresql: Site, clock: Clock
) -> None:
    runtime = on_postgresql.runtime
    settings, database = another(runtime, clock), runtime.database
    known = settings.snapshot()
    save(runtime, settings, {OPTIONS: {ORDER: "phaxio"}})
    clock.seconds += LOOK_EVERY
    ended: list[bool] = []

    def end(connection: sa.Connection, _cursor: Any, text: str, *_: Any) -> None:
        if "config_versions" in text and not ended:
            driver: Any = connection.connection.driver_connection
            kill = sa.select(sa.func.pg_terminate_backend(driver.info.backend_pid, 5000))
            with database.transaction() as session:
                ended.append(session.scalar(kill) is True)

    sa.event.listen(database.reader, "after_cursor_execute", end)

    assert settings.snapshot() is known
    assert ended == [True]
    clock.seconds += LOOK_EVERY
    assert settings.snapshot().config.provider_ids == ("phaxio",)


def test_of_two_who_change_what_they_read_at_the_same_time_one_is_told_to_read_again(
    runtime: Runtime, settings: Settings
) -> None:
    seen = settings.read().version

    def change(number: int) -> bool:
        try:
            save(runtime, settings, {OPTIONS: {ORDER: f"provider-{number}"}}, seen)
        except ChangedMeanwhile:
            return False
        return True

    done = at_once(6, change)

    assert sum(done) == 1
    found = settings.read()
    assert found.version == seen + 1
    assert found.saved == {OPTIONS: {ORDER: f"provider-{done.index(True)}"}}


def test_options_that_do_not_hold_are_not_saved_and_nothing_of_the_change_is(
    runtime: Runtime, settings: Settings
) -> None:
    wish = {"phaxio": {"apiKey": "k"}, OPTIONS: {ORDER: "no; name"}}

    with pytest.raises(ConfigError, match=ORDER):
        save(runtime, settings, wish)

    assert (settings.read().version, settings.read().saved) == (0, {})


def test_values_are_sealed_to_their_place_and_another_master_key_is_named(
    runtime: Runtime, settings: Settings, clock: Clock
) -> None:
    save(runtime, settings, {"phaxio": {"apiSecret": "very-secret", "apiKey": "k"}})
    known = settings.snapshot()
    assert "very-secret" not in repr(known)
    with runtime.database.transaction() as session:
        rows = {row.key: row for row in session.scalars(sa.select(ConfigEntry))}
        assert not [row for row in rows.values() if b"very-secret" in row.value_sealed]
        rows["apiKey"].value_sealed = rows["apiSecret"].value_sealed
        session.execute(sa.text("UPDATE config_versions SET version = version + 1"))

    clock.seconds += LOOK_EVERY
    for each in (another(runtime, clock), settings):
        found = each.snapshot().of_plugin("phaxio")
        assert found["apiSecret"] == "very-secret"
        with pytest.raises(ConfigError, match="phaxio: apiKey does not open: CONFIG_MASTER_KEY"):
            dict(found)


def test_a_process_that_knows_the_settings_works_on_while_the_database_is_away(
    runtime: Runtime, settings: Settings, clock: Clock
) -> None:
    save(runtime, settings, {OPTIONS: {ORDER: "phaxio"}})
    known = settings.snapshot()
    away = Database(replace(runtime.config, database_url="postgresql://127.0.0.1:9/none"))
    settings._database = away
    clock.seconds += LOOK_EVERY

    assert settings.snapshot() is known
    with pytest.raises(DatabaseAway):
        Settings(runtime.config, away, runtime.keyring, clock).snapshot()
    away.close()


@pytest.mark.parametrize("value", [False, 0, "", [], {"a": None}, "text", 1.5])
def test_a_saved_value_comes_back_as_it_was_and_a_false_one_is_one(
    runtime: Runtime, settings: Settings, value: Any
) -> None:
    save(runtime, settings, {"phaxio": {"key": value}})

    assert json.dumps(dict(settings.read().of_plugin("phaxio"))) == json.dumps({"key": value})


def test_a_changed_plugin_starts_anew_and_the_others_go_on(config: Config) -> None:
    plugins = wiring.plugins(config)

    before, other = plugins.get("simulator", FaxbotPlugin), plugins.get("local", FaxbotPlugin)
    saved = {"simulator": {"baseUrl": "http://127.0.0.1:9", "gone": 1}}
    plugins.set(saved, 1)
    after = plugins.get("simulator", FaxbotPlugin)
    plugins.set(saved, 2)

    assert before is not after
    assert (before.config["baseUrl"], after.config["baseUrl"]) == (
        "http://127.0.0.1:8091",
        "http://127.0.0.1:9",
    )
    assert after.config["secret"] == SECRET
    assert plugins.get("simulator", FaxbotPlugin) is after
    assert plugins.get("local", FaxbotPlugin) is other
    assert [plugins.source("simulator", key) for key in ("baseUrl", "secret")] == ["db", "env"]
    plugins.close()
