"""The Asterisk of these tests is the one that its provider's own tests have."""

from __future__ import annotations

from tests.providers.asterisk.conftest import asterisk_tree

__all__ = ["asterisk_tree"]
