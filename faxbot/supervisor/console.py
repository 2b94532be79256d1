"""What the children say: their lines, prefixed by role, on one stream; the last ones are kept in case they fail."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import TextIO

_LONGEST_LINE = 8192
_COLOURS = (36, 32, 33, 35, 34, 96, 92)


class Console:
    """Where the lines of all children go, each prefixed by its role; coloured on a terminal."""

    def __init__(self, stream: TextIO, *, colour: bool) -> None:
        self._stream: TextIO | None = stream
        self._colour = colour
        self._names: list[str] = []
        self.is_terminal = stream.isatty()
        """Whether a person reads along; what nobody should find in a log is shown to him alone."""

    def line(self, name: str, text: str) -> None:
        """One line of `name`; characters that could steer a terminal are shown as ?."""
        text = "".join(sign if sign.isprintable() or sign == "\t" else "?" for sign in text)
        if name not in self._names:
            self._names.append(name)
        prefix = f"{name:<9} |"
        if self._colour:
            prefix = f"\x1b[{_COLOURS[self._names.index(name) % len(_COLOURS)]}m{prefix}\x1b[0m"
        self.say(f"{prefix} {text}")

    def say(self, text: str) -> None:
        """One line of our own. A reader that went away (`faxbot up 2>&1 | head`) is no reason to stop serving."""
        if self._stream is not None:
            try:
                self._stream.write(text + "\n")
                self._stream.flush()
            except OSError:
                # What is still buffered must not fail again at the interpreter's end.
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
                self._stream = None


class Output:
    """The reading end of one child's stdout and stderr: whole lines to the console, the last ones kept."""

    def __init__(self, descriptor: int, say: Callable[[str], None], last: deque[str]) -> None:
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor
        self._say, self._last = say, last
        self._rest = b""

    def read(self) -> bool:
        """Take what is there; False at the end."""
        for _ in range(16):  # at most 1 MiB in one go: the others have things to say, too
            try:
                data = os.read(self.descriptor, 65536)
            except BlockingIOError:
                return True
            *lines, self._rest = (self._rest + data).split(b"\n")
            if not data or len(self._rest) > _LONGEST_LINE:
                lines, self._rest = [*lines, self._rest], b""
            for line in lines:
                if text := line.decode(errors="replace").rstrip():
                    self._last.append(text)
                    self._say(text)
            if not data:
                return False
        return True
