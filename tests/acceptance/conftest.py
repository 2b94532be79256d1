"""The Asterisk of these tests is the one that its provider's own tests have. Their store is PostgreSQL with Redis, as
in production, unless their module names others in STORES: what depends on the store is tried on both below
tests/integration, and here where processes die and where everything runs on one machine."""

from __future__ import annotations

import pytest

from tests.conftest import installed
from tests.providers.asterisk.conftest import asterisk_tree

__all__ = ["asterisk_tree"]

store = pytest.fixture(installed, name="store")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "store" in metafunc.fixturenames:
        stores = getattr(metafunc.module, "STORES", ("postgresql",))
        metafunc.parametrize("store", stores, indirect=True)
