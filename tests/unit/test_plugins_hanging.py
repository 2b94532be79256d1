"""A plugin whose own code never ends, when it is imported or when it starts, is named, and holds up nobody else."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from faxbot.errors import PluginError
from faxbot.plugins.base import Context, StoragePlugin, TransportPlugin
from faxbot.plugins.loader import Plugins, discover
from faxbot.plugins.manifest import Manifest
from faxbot.providers.http import HttpClient
from tests.ground import eventually
from tests.threads import at_once

FOLDER = Path(__file__).parents[1] / "plugins_hanging"
LIMIT = 2.0
LATE = "it was not done after 2 s (FAXBOT_PLUGIN_START_SECONDS)"
REASONS = {
    "hanging_import": f"it cannot be imported: {LATE}",
    "hanging_import_too": f"it cannot be imported: {LATE}",
    "hanging_initialize": f"it does not start: {LATE}",
}


def context(manifest: Manifest, settings: Mapping[str, Any]) -> Context:
    logger = logging.getLogger(manifest.id)
    return Context(logger, lambda: datetime.now(UTC), HttpClient(manifest.addresses(settings)))


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """What the hanging plugins wait for; open at the end, so that no thread stays behind."""
    monkeypatch.syspath_prepend(FOLDER)
    module = __import__("hanging_gate")
    yield module
    module.gate.set()
    eventually(lambda: not hanging())
    for name in [name for name in sys.modules if name.startswith("hanging_")]:
        del sys.modules[name]


def hanging() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("plugin-hanging")]


@pytest.fixture
def plugins(gate: ModuleType, tmp_path: Path) -> Iterator[Plugins]:
    assert not gate.gate.is_set()
    environ = {"FAX_DATA_DIR": str(tmp_path)}
    found = discover(environ=environ, make_context=context, start_seconds=LIMIT, again_seconds=0.0)
    yield found
    found.close()


@pytest.mark.parametrize("name", REASONS)
def test_a_plugin_that_hangs_is_named_after_the_time_limit(plugins: Plugins, name: str) -> None:
    begun = time.monotonic()
    with pytest.raises(PluginError) as refused:
        plugins.get(name, TransportPlugin)

    assert LIMIT <= time.monotonic() - begun < 3 * LIMIT
    assert refused.value.detail == f"The plugin {name!r} cannot be used: {REASONS[name]}."
    assert name in [broken.name for broken in plugins.broken]


def test_several_that_hang_take_the_time_of_one(plugins: Plugins) -> None:
    begun = time.monotonic()
    reasons = {broken.name: broken.reason for broken in plugins.broken}

    assert time.monotonic() - begun < 2 * LIMIT
    assert reasons == {name: REASONS[name] for name in ("hanging_import", "hanging_import_too")}


@pytest.mark.parametrize("name", REASONS)
def test_it_is_not_begun_again_while_it_hangs_however_often_it_is_asked_for(
    plugins: Plugins, gate: ModuleType, name: str
) -> None:
    def ask(_: int) -> float:
        begun = time.monotonic()
        with pytest.raises(PluginError):
            plugins.get(name, TransportPlugin)
        return time.monotonic() - begun

    assert max(at_once(8, ask)) < 3 * LIMIT
    assert max(map(ask, range(100))) < LIMIT
    assert gate.begun.count(name) == 1
    assert len(hanging()) == 1


@pytest.mark.parametrize("name", REASONS)
def test_while_it_hangs_the_others_are_had_at_once(plugins: Plugins, name: str) -> None:
    with ThreadPoolExecutor(1) as other:
        asked = other.submit(plugins.get, name, TransportPlugin)
        eventually(hanging)
        begun = time.monotonic()
        assert isinstance(plugins.get("local", StoragePlugin), StoragePlugin)
        assert time.monotonic() - begun < LIMIT
        with pytest.raises(PluginError):
            asked.result()


@pytest.mark.parametrize("name", REASONS)
def test_when_it_has_ended_after_all_it_can_be_used(
    plugins: Plugins, gate: ModuleType, name: str
) -> None:
    with pytest.raises(PluginError):
        plugins.get(name, TransportPlugin)
    gate.gate.set()
    eventually(lambda: not hanging())

    assert isinstance(plugins.get(name, TransportPlugin), TransportPlugin)
    assert plugins.broken == () or name not in [broken.name for broken in plugins.broken]


def test_one_that_did_not_start_is_still_there_to_be_asked_again(plugins: Plugins) -> None:
    for name in ("hanging_initialize", "hanging_import"):
        with pytest.raises(PluginError):
            plugins.get(name, TransportPlugin)

    found = {manifest.id for manifest in plugins.manifests()}
    assert {"hanging_initialize", "hanging_import"} & found == {"hanging_initialize"}


def test_what_starts_too_late_is_shut_down_again(plugins: Plugins, gate: ModuleType) -> None:
    with pytest.raises(PluginError):
        plugins.get("hanging_initialize", TransportPlugin)
    assert gate.stopped == []
    gate.gate.set()

    eventually(lambda: gate.stopped == ["hanging_initialize"])


def test_a_fork_while_a_plugin_starts_leaves_the_child_free(
    plugins: Plugins, gate: ModuleType
) -> None:
    """The thread that starts it is not in the child, nor is what it holds."""
    with ThreadPoolExecutor(1) as other:
        asked = other.submit(plugins.get, "hanging_initialize", TransportPlugin)
        eventually(lambda: gate.begun == ["hanging_initialize"])
        child = os.fork()
        if child == 0:
            gate.gate.set()
            plugins.get("hanging_initialize", TransportPlugin)
            os._exit(0)
        code = exit_code(child, seconds=20)
        with pytest.raises(PluginError):
            asked.result()
    assert code == 0


def exit_code(child: int, seconds: float) -> int | None:
    """Of a child process; one that has not ended by then is killed."""
    ended: list[int] = []

    def look() -> bool:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            ended.append(os.waitstatus_to_exitcode(status))
        return bool(ended)

    with suppress(AssertionError):
        eventually(look, seconds)
    if not ended:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return ended[0] if ended else None
