"""Plugins are found over their entry points, handed out once per process, and refused by name where they are broken."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import socket
import sys
import weakref
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from faxbot.errors import PluginError
from faxbot.plugins.base import Context, FaxbotPlugin, StoragePlugin, TransportPlugin
from faxbot.plugins.loader import Plugins, discover
from faxbot.plugins.manifest import Manifest
from faxbot.plugins.offline import offline
from faxbot.providers.http import HttpClient
from tests.ground import eventually
from tests.threads import at_once

BROKEN = Path(__file__).parents[1] / "plugins_broken"
SECRET = "a-secret-that-no-message-may-hold"


class CountingHttp(HttpClient):
    """Knows how often it was closed."""

    closed = 0

    def close(self) -> None:
        type(self).closed += 1
        super().close()


def context(manifest: Manifest, settings: Mapping[str, Any]) -> Context:
    logger = logging.getLogger(manifest.id)
    return Context(logger, lambda: datetime.now(UTC), CountingHttp(manifest.addresses(settings)))


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of broken packages on the path, and every trace of them gone afterwards."""
    monkeypatch.syspath_prepend(BROKEN)
    before = set(sys.modules)
    yield BROKEN
    for name in set(sys.modules) - before:
        if name.startswith(("broken_", "double_", "sound")):
            del sys.modules[name]


@pytest.fixture
def environ() -> dict[str, str]:
    return {"BROKEN_KEY": SECRET}


@pytest.fixture
def plugins(site: Path, environ: dict[str, str]) -> Iterator[Plugins]:
    assert site.is_dir()
    found = discover(environ=environ, make_context=context, again_seconds=0.0)
    yield found
    found.close()


REASONS = {
    "broken_import": "it cannot be imported: ModuleNotFoundError at __init__.py:5 "
    "(No module named 'a_package_that_nobody_has')",
    "broken_exit": "it cannot be imported: SystemExit at __init__.py:7",
    "broken_cancelled": "it cannot be imported: CancelledError at __init__.py:7",
    "broken_base": "Plugin is no TransportPlugin, as its type 'transport' demands",
    "broken_function": "Plugin is no TransportPlugin, as its type 'transport' demands",
    "broken_abstract": "Plugin lacks delete",
    "broken_promise": "Plugin lacks look_up() (trait status_lookup), fetch() (trait status_lookup)",
    "broken_attribute": "it cannot be imported: AttributeError at __init__.py",
    "broken_type": "its type 'telegraph' is unknown "
    "(known: transport, storage, notification, identity, ui)",
    "broken_trait": "its trait 'reads_minds' is unknown (docs/traits.md lists all)",
    "broken_value": "its trait 'accepts' needs a media type after the colon",
    "broken_scope": "it needs the scope full_access; this installation allows trusted",
    "broken_api": "it works with the plugin contract >=2,<3; this is 1.0",
    "broken_field": "its manifest is wrong at its top level: "
    "Additional properties are not allowed ('surprise' was unexpected)",
    "broken_json": "its manifest.json is not JSON",
    "broken_missing": "there is no manifest.json beside its module",
    "broken_name": "its manifest says 'another_name': entry point and id must be the same",
    "broken_module": "its module broken_module_that_nobody_has is not installed",
    "broken_syntax": "it cannot be found: AttributeError at __init__.py",
    "broken_network": "it cannot be imported: it uses the network (socket.getaddrinfo at __init__.py:9)",
    "broken_network_quiet": "it cannot be imported: it uses the network "
    "(socket.getaddrinfo at __init__.py:11)",
    "broken_parent": "it cannot be imported: ZeroDivisionError at __init__.py:3",
}


@pytest.mark.parametrize("name", REASONS)
def test_a_broken_plugin_is_named_with_its_package_and_its_reason(
    plugins: Plugins, name: str
) -> None:
    (broken,) = (broken for broken in plugins.broken if broken.name == name)
    assert broken.package == "faxbot-broken"
    assert broken.reason.startswith(REASONS[name])


@pytest.mark.parametrize("name", REASONS)
def test_asking_for_a_broken_plugin_says_why_it_cannot_be_had(plugins: Plugins, name: str) -> None:
    with pytest.raises(PluginError) as refused:
        plugins.get(name, TransportPlugin)
    assert refused.value.detail.startswith(f"The plugin {name!r} cannot be used: {REASONS[name]}")


def test_every_broken_package_is_listed_and_nothing_sound_is(plugins: Plugins) -> None:
    listed = sorted(broken.name for broken in plugins.broken)
    assert listed == sorted([*REASONS, "double", "double"])
    assert {"sound", "simulator", "local"} <= {manifest.id for manifest in plugins.manifests()}


def test_two_packages_with_one_id_are_both_refused_and_name_each_other(plugins: Plugins) -> None:
    doubles = {
        broken.package: broken.reason for broken in plugins.broken if broken.name == "double"
    }
    assert doubles == {
        "faxbot-broken": "its id is also claimed by the package faxbot-double: uninstall one of them",
        "faxbot-double": "its id is also claimed by the package faxbot-broken: uninstall one of them",
    }
    with pytest.raises(PluginError, match="is also claimed by"):
        plugins.get("double", TransportPlugin)


@pytest.mark.usefixtures("site")
def test_an_installation_may_admit_only_what_comes_with_faxbot(environ: dict[str, str]) -> None:
    found = discover(environ=environ, make_context=context, from_outside=False)

    assert {manifest.id for manifest in found.manifests()} >= {"simulator", "phaxio", "local"}
    with pytest.raises(PluginError, match="FAXBOT_PLUGINS_FROM_OUTSIDE is false"):
        found.get("sound", StoragePlugin)
    assert {broken.package for broken in found.broken} == {"faxbot-broken", "faxbot-double"}
    assert not [name for name in sys.modules if name.startswith(("broken_", "double_", "sound"))]


@pytest.mark.usefixtures("site")
def test_discovery_runs_no_line_of_any_plugin() -> None:
    discover(environ={}, make_context=context)
    ran = [name for name in sys.modules if name.startswith(("broken_", "double_", "sound"))]
    assert ran == []


def test_a_package_that_is_installed_or_removed_meanwhile_is_seen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(tmp_path)

    def seen() -> dict[str, str]:
        found = discover(environ={}, make_context=context)
        return {each.name: each.package for each in found.broken}

    assert "late" not in seen()
    package = tmp_path / "too_late-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: too-late\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[faxbot.plugins]\nlate = too_late\n")
    assert seen()["late"] == "too-late"
    shutil.rmtree(package)
    assert "late" not in seen()


def test_a_plugin_that_works_works_in_broken_company(plugins: Plugins, tmp_path: Path) -> None:
    assert plugins.broken
    storage = plugins.get("sound", StoragePlugin)
    file = tmp_path / "file"
    file.write_bytes(b"kept")
    storage.put("key", file)
    assert storage.open("key").read() == b"kept"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("broken_constructor", "it does not start: ZeroDivisionError at __init__.py:10"),
        ("broken_initialize", "it does not start: ValueError at __init__.py:14"),
        ("broken_cancelled_start", "it does not start: CancelledError at __init__.py:15"),
    ],
)
def test_a_plugin_that_does_not_start_is_named_without_its_exceptions_text(
    plugins: Plugins, name: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert name not in [broken.name for broken in plugins.broken]
    with pytest.raises(PluginError) as refused:
        plugins.get(name, TransportPlugin)
    assert [broken.reason for broken in plugins.broken if broken.name == name] == [reason]
    assert SECRET not in refused.value.detail + caplog.text
    assert refused.value.__cause__ is None


def test_what_a_failed_start_had_opened_is_closed(plugins: Plugins) -> None:
    before = CountingHttp.closed
    with pytest.raises(PluginError):
        plugins.get("broken_initialize", TransportPlugin)
    assert CountingHttp.closed == before + 1


def test_a_missing_setting_is_named_by_its_variable(
    plugins: Plugins, environ: dict[str, str]
) -> None:
    del environ["BROKEN_KEY"]
    with pytest.raises(PluginError, match=r"it does not start: BROKEN_KEY is not set\."):
        plugins.get("broken_initialize", TransportPlugin)


def test_a_plugin_that_failed_to_start_is_tried_again_after_a_while(
    site: Path, environ: dict[str, str]
) -> None:
    assert site.is_dir()
    environ["SOUND_STUBBORN"] = "yes"
    plugins = discover(environ=environ, make_context=context, again_seconds=0.5)
    opened = CountingHttp.closed
    for _ in range(10):
        with pytest.raises(PluginError, match="OSError"):
            plugins.get("sound", StoragePlugin)
    assert CountingHttp.closed == opened + 1  # it was tried once
    assert "sound" in [broken.name for broken in plugins.broken]
    assert "sound" in [manifest.id for manifest in plugins.manifests()], "nobody would ask it again"
    environ["SOUND_STUBBORN"] = "no"

    def started() -> bool:
        with suppress(PluginError):
            return isinstance(plugins.get("sound", StoragePlugin), StoragePlugin)
        return False

    eventually(started)
    assert "sound" not in [broken.name for broken in plugins.broken]
    plugins.close()


def test_a_plugin_that_used_the_network_stays_refused(plugins: Plugins) -> None:
    """Python imports it once: a second look would find nothing."""
    for _ in range(3):
        with pytest.raises(PluginError, match="it uses the network"):
            plugins.get("broken_network_quiet", TransportPlugin)


def test_the_network_is_refused_to_the_importing_thread_alone(tmp_path: Path) -> None:
    def resolved() -> bool:
        return bool(socket.getaddrinfo("localhost", 443))

    with ThreadPoolExecutor(1) as other, offline(tmp_path) as used:
        with pytest.raises(PluginError, match="no network here"):
            resolved()
        assert other.submit(resolved).result()
    assert used == ["socket.getaddrinfo"]
    assert resolved()


def test_an_unknown_id_is_answered_with_what_is_installed(plugins: Plugins) -> None:
    with pytest.raises(
        PluginError, match=r"There is no plugin 'telex'; installed: .*local, .*simulator, .*sound"
    ):
        plugins.manifest("telex")


def test_a_plugin_of_another_kind_than_asked_for_is_refused(plugins: Plugins) -> None:
    with pytest.raises(PluginError, match="The plugin 'sound' is no TransportPlugin"):
        plugins.get("sound", TransportPlugin)


@pytest.mark.usefixtures("site")
def test_the_scope_an_installation_allows_decides() -> None:
    generous = discover(environ={}, make_context=context, scope_allowed="full_access")
    strict = discover(environ={}, make_context=context, scope_allowed="sandboxed")
    with pytest.raises(PluginError, match="cannot be imported: AssertionError"):
        generous.get("broken_scope", TransportPlugin)  # admitted, and its code runs
    assert not {"sound", "simulator", "local"} & {found.id for found in strict.manifests()}


def test_threads_that_ask_at_once_share_one_instance(plugins: Plugins) -> None:
    got = at_once(8, lambda _: plugins.get("sound", FaxbotPlugin))

    assert len(set(map(id, got))) == 1
    assert sys.modules["sound"].Sound.started == 1


def test_after_a_fork_the_child_starts_its_own_and_the_parents_is_left_alone(
    plugins: Plugins,
) -> None:
    mine = weakref.ref(plugins.get("sound", FaxbotPlugin))
    closed = CountingHttp.closed
    child = os.fork()
    if child == 0:
        theirs = plugins.get("sound", FaxbotPlugin)
        gc.collect()
        # Collected, it would close the connections that the parent still uses.
        own = theirs is not mine() and mine() is not None
        sound = sys.modules["sound"].Sound
        alone = sound.started == 2 and sound.stopped == 0 and CountingHttp.closed == closed
        os._exit(0 if own and alone else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert plugins.get("sound", FaxbotPlugin) is mine()


def test_closing_shuts_each_plugin_down_once_and_closes_its_connections(plugins: Plugins) -> None:
    plugins.get("sound", FaxbotPlugin)
    closed = CountingHttp.closed
    plugins.close()
    plugins.close()
    assert sys.modules["sound"].Sound.stopped == 1
    assert CountingHttp.closed == closed + 1
    plugins.get("sound", FaxbotPlugin)
    assert sys.modules["sound"].Sound.started == 2
