"""Names a function where a class is wanted."""

from __future__ import annotations


def Plugin() -> None:  # noqa: N802 - the fault
    """No class."""
