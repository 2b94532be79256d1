"""A command at a real terminal: a pseudo-terminal of its own that controls it, so that Ctrl-C and hidden input are what
they are for a person."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

_TAKE_THE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """`command` at a terminal of its own, as a context manager; it is killed at the end if it still runs."""

    def __init__(self, command: Sequence[str | Path], env: Mapping[str, str], cwd: Path) -> None:
        self._ours, theirs = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _TAKE_THE_TERMINAL, *map(str, command)],
            env={**env, "TERM": "dumb", "COLUMNS": "200"},
            cwd=cwd,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self.shown = ""
        """Everything so far."""
        self._seen = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._ours)

    def until(self, text: str, timeout: float = 30.0) -> str:
        """Wait until `text` is shown, after what was waited for last; what was shown in between."""
        deadline = time.monotonic() + timeout
        while text not in self.shown[self._seen :]:
            if not self._read(deadline - time.monotonic()):
                raise AssertionError(f"{text!r} is not shown; what is:\n{self.shown}")
        begin, self._seen = self._seen, self.shown.index(text, self._seen) + len(text)
        return self.shown[begin : self._seen]

    def type(self, line: str) -> None:
        """Write a line, and Enter."""
        os.write(self._ours, line.encode() + b"\r")

    def left_by_ctrl_c(self) -> int:
        """Press Ctrl-C; the exit code. Python loses one that comes in the very moment in which it begins to wait for a
        line, so it is pressed again."""
        for _ in range(20):
            with suppress(OSError):
                os.write(self._ours, b"\x03")
            with suppress(subprocess.TimeoutExpired):
                return self.ended(1.0)
        raise AssertionError(f"it does not end; what it showed:\n{self.shown}")

    def answer(self, question: str, line: str) -> None:
        """Wait for a question, and answer it."""
        self.until(question)
        self.type(line)

    def ended(self, timeout: float = 30.0) -> int:
        """Wait for the end; the exit code."""
        deadline = time.monotonic() + timeout
        while self._read(deadline - time.monotonic()):
            pass
        return self._process.wait(max(deadline - time.monotonic(), 0.5))

    def _read(self, seconds: float) -> bool:
        """Take what is shown within `seconds`; False at the end, or when that is over."""
        if seconds <= 0 or not select.select([self._ours], [], [], seconds)[0]:
            return False
        with suppress(OSError):  # EIO: nobody has the other end any more
            if data := os.read(self._ours, 65536):
                self.shown += data.decode(errors="replace").replace("\r\n", "\n")
                return True
        return False
