"""A worker that is to end leaves at once what costs nothing to leave: a fax that is only being prepared. A call to a
carrier is never left.

Its first process asks the others by a signal, because they wait for renderers and databases, and nothing else reaches
them there.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from faxbot.errors import ProcessEnds

_SIGNAL = signal.SIGUSR2
_asked = False
_may_leave = False


class Stopped(ProcessEnds):
    """This process has been asked to end, and what it did may be left at any point."""


def ignore() -> None:
    """Before forking: one that is asked before it listens lives on."""
    signal.signal(_SIGNAL, signal.SIG_IGN)


def listen() -> None:
    """Heed ask() from now on; in the main thread of a process that works on faxes."""
    signal.signal(_SIGNAL, _heed)


def ask(processes: Iterable[int]) -> None:
    """Ask these processes to leave what may be left; one that is gone has left it."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, _SIGNAL)


def _heed(*_: object) -> None:
    global _asked
    _asked = True
    if _may_leave:
        raise Stopped


@contextmanager
def may_be_left() -> Iterator[None]:
    """While the body runs, Stopped may come out of it at any point; at once where it was asked for before."""
    global _may_leave
    try:
        _may_leave = True
        if _asked:
            raise Stopped
        yield
    finally:
        _may_leave = False
