"""What a process is at, said with each line of its log: the request, or the task and its fax.

Kept by thread: what another thread does in the meantime is its own. It holds ids and counts, never PHI.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

_NOTHING: Mapping[str, object] = MappingProxyType({})
_facts: ContextVar[Mapping[str, object]] = ContextVar("facts", default=_NOTHING)


def begin(**facts: object) -> None:
    """From now on this thread is at something new, of which this is known; without anything: at nothing."""
    _facts.set(facts)


def note(**facts: object) -> None:
    """This is known, too, of what it is at."""
    _facts.set({**_facts.get(), **facts})


@contextmanager
def about(**facts: object) -> Iterator[None]:
    """This is known while the body runs."""
    token = _facts.set({**_facts.get(), **facts})
    try:
        yield
    finally:
        _facts.reset(token)


def facts() -> Mapping[str, object]:
    """What is known of what this thread is at."""
    return _facts.get()
