"""Keeps what a plugin raises within Exception, so that whoever called it can go on.

CancelledError of asyncio, a panic of a library written in Rust, sys.exit("a text"): none of them is an Exception. They
would end the worker or the process in which a plugin is called, and be printed there with their text, which may hold
anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from faxbot.errors import ProcessEnds
from faxbot.plugins.base import BASES, FaxbotPlugin


class NoException(Exception):
    """What a plugin raised was none; its class here has the name of that one, and no text."""


@contextmanager
def contained() -> Iterator[None]:
    """Raises NoException in the place of what is no Exception, but for what ends this process: those pass."""
    try:
        yield
    except (Exception, KeyboardInterrupt, GeneratorExit, ProcessEnds):
        raise
    except BaseException as error:
        if isinstance(error, SystemExit) and not isinstance(error.code, str):
            raise  # by a signal's handler; one that comes with a text is the plugin's own
        raise type(type(error).__name__, (NoException,), {})() from None


def contain(plugin: FaxbotPlugin) -> None:
    """Have all that core calls of this plugin raise nothing else."""
    base = next(each for each in BASES.values() if isinstance(plugin, each))
    for name in dir(base):
        if not name.startswith("_") and callable(getattr(base, name)):
            within = _iterating if name == "listen" else _calling
            setattr(plugin, name, within(type(plugin), name, plugin))


# The method is looked for with each call: a class may be changed while it is in use, as by a test.


def _calling(cls: type[FaxbotPlugin], name: str, plugin: FaxbotPlugin) -> Callable[..., Any]:
    @wraps(getattr(cls, name))
    def call(*arguments: Any, **named: Any) -> Any:
        with contained():
            return getattr(cls, name)(plugin, *arguments, **named)

    return call


def _iterating(cls: type[FaxbotPlugin], name: str, plugin: FaxbotPlugin) -> Callable[..., Any]:
    @wraps(getattr(cls, name))
    def iterate(*arguments: Any, **named: Any) -> Iterator[Any]:
        with contained():
            found: Iterable[Any] = getattr(cls, name)(plugin, *arguments, **named)
            yield from found

    return iterate
