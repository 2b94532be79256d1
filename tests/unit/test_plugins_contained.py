"""What a plugin raises that is no Exception: it comes out as one, without its text; what ends this process passes."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from faxbot.errors import ProcessEnds, Refused
from faxbot.hidden import Hidden
from faxbot.plugins.base import Notice, OutboundFax, Receipt, TransportPlugin, Update
from faxbot.plugins.contained import NoException, contain
from faxbot.stopping import Stopped

TEXT, NOW = "fax to +15550100000", datetime(2026, 11, 21, tzinfo=UTC)


class Panic(BaseException):
    """As a library written in Rust raises it."""


class Raising(TransportPlugin):
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def send(self, fax: OutboundFax) -> Receipt:  # noqa: ARG002
        raise self.error

    def look_up(self, tag: str, *, to: Hidden[str], since: datetime) -> Update:  # noqa: ARG002
        raise self.error

    def listen(self) -> Iterator[Notice | None]:
        yield None
        raise self.error


def contained(error: BaseException) -> Raising:
    plugin = Raising(error)
    contain(plugin)
    return plugin


@pytest.mark.parametrize("error", [asyncio.CancelledError(TEXT), Panic(TEXT), SystemExit(TEXT)])
def test_what_is_no_exception_comes_out_as_one_with_its_name_and_without_its_text(
    error: BaseException,
) -> None:
    plugin = contained(error)
    for ask in (
        lambda: plugin.look_up("t", to=Hidden(""), since=NOW),
        lambda: list(plugin.listen()),
    ):
        with pytest.raises(NoException) as caught:
            ask()
        assert caught.type.__name__ == type(error).__name__
        assert TEXT not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)


@pytest.mark.parametrize(
    "error",
    [Refused("no"), ValueError("no"), SystemExit(0), SystemExit(), KeyboardInterrupt(), Stopped()],
)
def test_what_is_an_exception_and_what_ends_this_process_passes(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        contained(error).look_up("t", to=Hidden(""), since=NOW)
    assert caught.value is error


def test_a_listener_that_is_closed_lets_go() -> None:
    heard = contained(ProcessEnds()).listen()
    assert next(heard) is None
    heard.close()  # type: ignore[attr-defined]
    assert list(heard) == []
