"""Fixtures: an unpacked Asterisk for the session, and one that runs for each pytest process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.debian import NoPackages
from tests.ground import Ground
from tests.providers.asterisk import packages
from tests.providers.asterisk.packages import ASTERISK, Tree
from tests.providers.asterisk.server import AsteriskServer


@pytest.fixture(scope="session")
def asterisk_tree() -> Tree:
    """Unpacked in the cache that all processes and runs share; fetched by whoever is first (5 s)."""
    try:
        return packages.store().fetch()
    except NoPackages as error:
        pytest.skip(f"{ASTERISK.not_tested}: {error}")


@pytest.fixture(scope="session")
def asterisk(ground: Ground, asterisk_tree: Tree) -> Iterator[AsteriskServer]:
    """This pytest process' Asterisk, which is its own far end. A test that stops or freezes one makes its own."""
    server = AsteriskServer(ground, asterisk_tree)
    server.start()
    yield server
    server.stop()
