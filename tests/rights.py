"""What a file's mode forbids is forbidden to the tests too, also where they run as root."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
_VERSION = 0x20080522
"""_LINUX_CAPABILITY_VERSION_3 (capset(2)): two sets of 32, each as effective, permitted and inheritable."""


def bound_by_modes(deed: Callable[[], T]) -> T:
    """The answer of `deed`, done in a thread that has none of root's rights, and so have those that it starts: Linux
    keeps them by thread. What root owns is its own still."""
    with ThreadPoolExecutor(1, initializer=_give_up_rights) as thread:
        return thread.submit(deed).result()


def _give_up_rights() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset((ctypes.c_uint32 * 2)(_VERSION, 0), (ctypes.c_uint32 * 6)()):
        raise OSError(ctypes.get_errno(), "capset")
