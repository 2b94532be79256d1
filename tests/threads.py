"""Many threads: that do one thing at the same moment, as workers that hear the same bell; or that wait side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from tests.ground import BUSY

T = TypeVar("T")


def at_once(count: int, deed: Callable[[int], T]) -> list[T]:
    """The answers of deed(0) to deed(count - 1), which begin together, each in a thread of its own.

    Raises what the first of them raised, once all are done.
    """
    gate = threading.Barrier(count)

    def begin(number: int) -> T:
        gate.wait(10 * BUSY)
        return deed(number)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(begin, range(count)))


def side_by_side(subtests: pytest.Subtests, deeds: Mapping[str, Callable[[], None]]) -> None:
    """Do all of it at the same time, for it mostly waits; each deed is a subtest by its name."""
    with ThreadPoolExecutor(len(deeds)) as threads:
        begun = {name: threads.submit(deed) for name, deed in deeds.items()}
        for name, done in begun.items():
            with subtests.test(name):
                done.result()


def is_noting() -> bool:
    """Whether this is the thread that writes reads into the audit trail, beside who is counted."""
    return threading.current_thread().name == "audit notes"
