"""The supervisor's console: it never waits long for whoever reads it, and says what it left out."""

from __future__ import annotations

import os
import pty
import re
import termios
from collections.abc import Iterator
from contextlib import suppress
from threading import Thread
from typing import TextIO

import pytest

from faxbot.supervisor.console import Console
from tests.ground import eventually

LINES, LINE = 2000, "x" * 200


@pytest.fixture(params=["a pipe nobody reads", "a terminal nobody reads", "Ctrl-S"])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[int, TextIO]]:
    """A descriptor to read from, and the stream to write to: much less than all LINES fits between them."""
    reading, writing = os.pipe() if "pipe" in request.param else pty.openpty()
    if request.param == "Ctrl-S":
        termios.tcflow(writing, termios.TCOOFF)
    with open(writing, "w") as stream:  # noqa: PTH123 - a descriptor, no path
        yield reading, stream
    os.close(reading)


def within(seconds: float, console: Console, first: int) -> None:
    """Say LINES numbered lines; AssertionError when that takes longer."""

    def talk() -> None:
        for number in range(first, first + LINES):
            console.say(f"{number} {LINE}")

    talking = Thread(target=talk, daemon=True)
    talking.start()
    talking.join(seconds)
    assert not talking.is_alive(), "it waits for the reader"


def there(reading: int) -> str:
    """What can be read now."""
    os.set_blocking(reading, False)
    text = b""
    with suppress(BlockingIOError):
        while True:
            text += os.read(reading, 65536)
    return text.decode()


def test_a_reader_that_stands_still_holds_nobody_up_and_learns_what_was_left_out(
    ends: tuple[int, TextIO],
) -> None:
    reading, stream = ends
    console = Console(stream, colour=False)

    within(5, console, 0)
    if stream.isatty():
        termios.tcflow(stream.fileno(), termios.TCOON)
    shown, said = "", LINES

    def heard() -> bool:
        nonlocal shown, said
        shown += there(reading)
        console.say("here again")
        said += 1
        shown += there(reading)
        return "here again" in shown

    eventually(heard)

    numbers = [int(line.split()[0]) for line in shown.splitlines() if line.endswith(LINE)]
    left_out = sum(int(count) for count in re.findall(r"([0-9]+) lines are left out", shown))
    assert numbers == list(range(len(numbers)))
    assert 0 < left_out == said - len(numbers) - shown.count("here again")


def test_a_reader_that_goes_on_gets_every_line() -> None:
    reading, writing = os.pipe()
    found: list[bytes] = []

    def read() -> None:
        while not b"".join(found[-2:]).endswith(b"the end\n"):
            found.append(os.read(reading, 65536))

    reader = Thread(target=read)
    reader.start()
    with open(writing, "w") as stream:  # noqa: PTH123 - a descriptor, no path
        console = Console(stream, colour=False)
        within(10, console, 0)
        console.say("the end")
    reader.join(10)
    os.close(reading)

    assert b"".join(found).decode().splitlines()[:-1] == [
        f"{number} {LINE}" for number in range(LINES)
    ]
