"""What the children say: their lines, prefixed by role, on one stream; the last ones are kept in case they fail.

Nobody has to read them: a reader that stands still (`| less`, Ctrl-S, a hung log collector) must not stop the process
that restarts children and answers signals. What does not fit is left out and counted.
"""

from __future__ import annotations

import os
import select
import stat
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

_LONGEST_LINE = 8192
_AT_ONCE = 4096
"""Bytes: what a pipe that is ready takes without blocking (PIPE_BUF, pipe(7))."""
_PATIENCE, _PATIENCE_GROWS = 0.5, 0.05
"""Seconds to wait for a reader, who is slower than a burst of lines, and how many a second they grow again."""
_COLOURS = (36, 32, 33, 35, 34, 96, 92)


class Console:
    """Where the lines of all children go, each prefixed by its role; coloured on a terminal."""

    def __init__(self, stream: TextIO, *, colour: bool) -> None:
        stream.flush()
        self._stream = stream
        self._descriptor: int | None = _never_blocking(stream.fileno())
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLOUT)
        self._rest = b""
        self._left_out = 0
        self._patience, self._waited_at = _PATIENCE, time.monotonic()
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
        if self._descriptor is None:
            return
        try:
            self._push()
            if self._left_out and not self._rest:
                self._put(f"faxbot    | {self._left_out} lines are left out: nobody read them")
                self._left_out = 0
            if self._rest:
                self._left_out += 1
            else:
                self._put(text)
        except OSError:
            # What others still write there must not fail at the interpreter's end.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            self._descriptor = None

    def _put(self, text: str) -> None:
        self._rest = f"{text}\n".encode(errors="backslashreplace")
        self._push()

    def _push(self) -> None:
        """Write what there is room for; `_rest` is what there was none for."""
        while self._rest and self._descriptor is not None and self._has_room():
            try:
                written = os.write(self._descriptor, self._rest[:_AT_ONCE])
            except BlockingIOError:
                return
            self._rest = self._rest[written:]

    def _has_room(self) -> bool:
        if self._poll.poll(0):
            return True
        began = time.monotonic()
        grown = (began - self._waited_at) * _PATIENCE_GROWS
        self._patience = min(self._patience + grown, _PATIENCE)
        ready = self._poll.poll(max(self._patience, 0) * 1000)
        self._waited_at = time.monotonic()
        self._patience -= self._waited_at - began
        return bool(ready)


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


def _never_blocking(descriptor: int) -> int:
    """The same pipe or terminal, opened anew so that only our own writes do not block: the flag belongs to the open
    file, which others share. Where that cannot be, the same descriptor: polling comes before each write."""
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        try:
            return os.open(f"/proc/self/fd/{descriptor}", flags)
        except OSError:
            return descriptor
    return descriptor
