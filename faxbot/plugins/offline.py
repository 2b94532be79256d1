"""Keeps the network from code that must do without it: a plugin while it is imported, and in contract tests while it
is initialised.

An audit hook refuses what this thread asks of the network, and remembers it, so that code which swallows the refusal is
found out too. It sees Python's sockets in this thread; threads that the code starts and C code with sockets of its own
escape it. Once installed a hook stays: it adds 0.2 us to each audited event of the process, such as opening a file,
which takes 10 us (measured).
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from faxbot.errors import PluginError

_EVENTS = frozenset(
    {
        "socket.connect",
        "socket.getaddrinfo",
        "socket.gethostbyaddr",
        "socket.gethostbyname",
        "socket.getnameinfo",
        "socket.sendmsg",
        "socket.sendto",
    }
)
"""Not socket.bind: urllib3 binds one when it is imported, to learn whether there is IPv6, and sends nothing."""


class _Here(threading.local):
    """What this thread asked of the network while it was to be kept from it; None: it is not."""

    used: list[str] | None = None
    folder = ""


_here = _Here()
_lock = threading.Lock()
_installed = False


@contextmanager
def offline(folder: Path) -> Iterator[list[str]]:
    """Within it this thread has no network; yields the list of what it asked all the same, as
    "socket.connect at __init__.py:5", where the place is the innermost in files below `folder`."""
    _install()
    before, _here.used = _here.used, []
    _here.folder = str(folder)
    try:
        yield _here.used
    finally:
        _here.used = before


def _install() -> None:
    global _installed
    with _lock:
        if not _installed:
            sys.addaudithook(_refuse)
            _installed = True


def _refuse(event: str, _: tuple[Any, ...]) -> None:
    if event in _EVENTS and _here.used is not None:
        _here.used.append(event + _place(sys._getframe(1)))  # noqa: SLF001 - the only way to a frame
        raise PluginError(f"no network here ({_here.used[-1]})")


def _place(frame: FrameType | None) -> str:
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(_here.folder):
            return f" at {Path(path).name}:{frame.f_lineno}"
        frame = frame.f_back
    return ""
