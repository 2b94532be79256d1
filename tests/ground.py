"""The folder of one pytest process, all that runs in it, and the watchdog that clears both when
pytest is killed.

A process belongs to a folder when it was started with the folder in its environment (children
inherit it), works in it, or names it on its command line: so none escapes by being orphaned, by a
session of its own or by a title that it gives itself.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil

T = TypeVar("T")

ENVIRONMENT: Mapping[str, str] = os.environ
MARK = "FAXBOT_TEST_FOLDER"
BUSY = 4
"""How much slower a machine may be that runs several installations at once. What comes true is not waited for any
longer by this, and what never does is told of later."""
MEMORY = 4 << 30
"""Bytes that must be free in /dev/shm for databases and installations to be kept there; those of one run take a
GB at most."""


def eventually(condition: Callable[[], T], timeout: float = 10.0, every: float = 0.02) -> T:
    """Ask until the answer is true, and return it; AssertionError with the last answer after
    `timeout` seconds of a quiet machine, which are BUSY times as many of any clock."""
    deadline = time.monotonic() + timeout * BUSY
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout * BUSY:g} s; the last answer was {answer!r}")
        time.sleep(every)
    return answer


def is_alive(process: psutil.Process) -> bool:
    """Whether it still does anything; a zombie only waits for its parent to look."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def processes_of(folder: Path) -> list[psutil.Process]:
    """The living processes that belong to `folder`, zombies left out."""
    return [process for process in psutil.process_iter() if _belongs(process, str(folder))]


def _belongs(process: psutil.Process, folder: str) -> bool:
    def lies_within(path: str) -> bool:
        return path == folder or path.startswith(folder + os.sep)

    try:
        if process.pid == os.getpid() or not is_alive(process):
            return False
        return (
            lies_within(process.environ().get(MARK, ""))
            or lies_within(process.cwd())
            or any(folder + os.sep in word for word in process.cmdline())
        )
    except psutil.Error:
        return False  # somebody else's, or gone meanwhile


def kill_all(folder: Path, timeout: float = 10.0) -> None:
    """End whatever belongs to `folder`; SIGQUIT comes first, upon which PostgreSQL gives its shared
    memory back."""

    def none_left(how: signal.Signals) -> bool:
        left = processes_of(folder)
        for process in left:
            with suppress(psutil.Error):
                process.send_signal(how)
                process.resume()
        return not left

    with suppress(AssertionError):
        eventually(lambda: none_left(signal.SIGQUIT), timeout=2.0, every=0.1)
    eventually(lambda: none_left(signal.SIGKILL), timeout)


class Ground:
    """A folder for servers and installations, and the one way to start a process in it."""

    def __init__(self) -> None:
        # Short, because a unix socket's path may have 107 bytes; under /tmp, because PostgreSQL
        # runs as nobody when the tests run as root and must be able to get there. No folder listing
        # for others (0711).
        self.folder = Path(tempfile.mkdtemp(prefix="faxbot-test-", dir="/tmp"))
        self._memory = _in_memory(self.folder.name)
        for folder in self._folders:
            folder.chmod(0o711)
        self._names = 0
        self._watchdog = subprocess.Popen(
            [sys.executable, "-m", "tests.ground"],
            cwd=Path(__file__).parent.parent,
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._watchdog.stdin is not None
        self._watchdog.stdin.write(b"\0".join(map(os.fsencode, self._folders)) + b"\n")
        self._watchdog.stdin.flush()

    @property
    def _folders(self) -> list[Path]:
        return [self.folder, *([self._memory] if self._memory else [])]

    def new_folder(self, name: str, *, in_memory: bool = False) -> Path:
        """An empty folder, 0700; `in_memory` where this machine has some to spare: to make a file takes a tenth of the
        time there (measured), and a database consists of 300."""
        self._names += 1
        folder = ((in_memory and self._memory) or self.folder) / f"{name}{self._names}"
        folder.mkdir(mode=0o700)
        return folder

    def start(
        self,
        command: Sequence[str | Path],
        folder: Path,
        env: Mapping[str, str],
        log: Path,
        **options: Any,
    ) -> subprocess.Popen[bytes]:
        """Start a process that belongs to `folder`; both its outputs are added to the file
        `log`."""
        with log.open("ab") as output:
            return subprocess.Popen(
                [str(word) for word in command],
                env={**env, MARK: str(folder)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **options,
            )

    def close(self) -> None:
        """Let the watchdog clear the folder and what still runs in it, and wait for that."""
        assert self._watchdog.stdin is not None
        self._watchdog.stdin.close()
        self._watchdog.wait(timeout=180)  # thousands of folders, on a busy machine


def _in_memory(name: str) -> Path | None:
    """A new folder in memory; None where there is less than MEMORY of it, or no program may lie there (as in many
    containers)."""
    with suppress(OSError):
        may_run = not os.statvfs("/dev/shm").f_flag & os.ST_NOEXEC
        if may_run and shutil.disk_usage("/dev/shm").free >= MEMORY:
            return Path(tempfile.mkdtemp(prefix=f"{name}-", dir="/dev/shm"))
    return None


def watch() -> None:
    """The watchdog: the pipe from pytest ends when pytest does, in whatever way."""
    line = sys.stdin.buffer.readline().rstrip(b"\n")
    folders = [Path(os.fsdecode(each)) for each in line.split(b"\0")]
    sys.stdin.buffer.read()
    for folder in folders:
        kill_all(folder, timeout=20)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    watch()
