"""Starts what a benchmark needs as child processes, on free ports of the loopback, and ends them again.

Children get a small environment of their own: neither a proxy nor a setting of the caller may sway a figure.
They die with the benchmark, however it ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


class NotStarted(Exception):
    """A child did not come up; carries the end of its log."""


@dataclass
class Child:
    """A running child process in a session of its own, and the file its output goes to."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def check(self) -> None:
        """Raise NotStarted when it has ended."""
        if self.process.poll() is not None:
            tail = self.log.read_text(errors="replace")[-2000:]
            raise NotStarted(f"{self.log.name} ended with {self.process.returncode}:\n{tail}")

    def stop(self, seconds: float = 20.0) -> None:
        """Ask it to end, then kill what is left of its process group."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Workshop:
    """A temporary folder and the children that work in it; all gone at the end of the block."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Workshop:
        folder = tempfile.TemporaryDirectory(prefix="faxbot-bench-", ignore_cleanup_errors=True)
        self.folder = Path(self._stack.enter_context(folder))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        environment: Mapping[str, str] | None = None,
    ) -> Child:
        """Start one child."""
        log = self.folder / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [str(word) for word in command],
                env={"PATH": os.defpath, "LANG": "C.UTF-8", **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=_die_with_the_parent,
            )
        child = Child(process, log)
        self._stack.callback(child.stop)
        return child

    def python(
        self, name: str, *arguments: str | Path, environment: Mapping[str, str] | None = None
    ) -> Child:
        """Start a module of this repository with this interpreter."""
        here = {"PYTHONPATH": str(Path(__file__).parent.parent), **(environment or {})}
        return self.start(name, [sys.executable, "-m", *arguments], environment=here)


def _die_with_the_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def free_port() -> int:
    """A port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(
    ready: Callable[[], bool],
    child: Child | None = None,
    seconds: float = 30.0,
    every: float = 0.02,
) -> None:
    """Wait for `ready`; raises NotStarted when the child ends or the time is over."""
    deadline = time.monotonic() + seconds
    while not ready():
        if child is not None:
            child.check()
        if time.monotonic() > deadline:
            tail = child.log.read_text(errors="replace")[-2000:] if child else ""
            raise NotStarted(f"not ready after {seconds:.0f} s\n{tail}")
        time.sleep(every)


def listens(port: int) -> bool:
    """Whether somebody accepts connections on this port of the loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
