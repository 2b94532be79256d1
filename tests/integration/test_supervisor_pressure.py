"""The supervisor under pressure, as a real process: nobody reads what it says, or the machine has no file to spare."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.ground import BUSY, ENVIRONMENT, Ground, eventually, is_alive, processes_of

SCRIPT = """
import os, sys
from faxbot.supervisor.console import Console
from faxbot.supervisor.processes import ChildFailed, Processes, Role, Stopped, Timing

timing = Timing(first_delay=0.05, steady=float(sys.argv[2]), ask_every=0.01, tries=3)
def role(code):
    return Role("one", [sys.executable, "-c", code], dict(os.environ), grace=1)
try:
    with Processes(Console(sys.stderr, colour=False), timing) as processes:
        processes.wait_until_up(processes.add(role(sys.argv[1])))
        open("up", "w").close()
        try:
            while True:
                processes.turn()
        except Stopped:
            open("stopped", "w").close()
except ChildFailed as error:
    open("failed", "w").close()
    sys.exit(error.detail)
"""
CHATTERBOX = "import sys\nwhile True: sys.stderr.write('x' * 200 + chr(10))"
SLEEPER = "import time; time.sleep(600)"


@contextmanager
def family(
    ground: Ground, child: str, says: int, *, steady: float = 0.05
) -> Iterator[tuple[Path, psutil.Popen]]:
    """A supervisor of one child, which has come up after `steady` seconds, saying what it says into the descriptor
    `says`; and the folder it works in."""
    folder = ground.new_folder("pressure")
    env = {name: ENVIRONMENT[name] for name in ("PATH", "HOME") if name in ENVIRONMENT}
    supervisor = psutil.Popen(
        [sys.executable, "-P", "-c", SCRIPT, child, str(steady)],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stderr=says,
        start_new_session=True,
    )
    try:
        yield folder, supervisor
    finally:
        with suppress(psutil.NoSuchProcess):
            supervisor.kill()
        supervisor.wait()
        eventually(lambda: not processes_of(folder))


def test_a_reader_that_stands_still_keeps_it_neither_from_restarts_nor_from_ending(
    ground: Ground,
) -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    with family(ground, CHATTERBOX, writing) as (folder, supervisor):
        eventually((folder / "up").exists)
        (child,) = supervisor.children()
        child.kill()

        eventually(lambda: supervisor.children() not in ([], [child]))
        supervisor.send_signal(signal.SIGTERM)

        assert supervisor.wait(10 * BUSY) == 0
        assert (folder / "stopped").exists()
    os.close(reading)
    os.close(writing)


def test_what_it_could_not_say_to_the_end_keeps_it_from_nothing(ground: Ground) -> None:
    # All is over, and the last words are longer than what anybody reads: a signal ends that, too.
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writing, b"x" * 4096)
    with family(ground, "raise SystemExit(7)", writing, steady=60) as (folder, supervisor):
        eventually((folder / "failed").exists)

        supervisor.send_signal(signal.SIGTERM)

        assert supervisor.wait(10 * BUSY) == -signal.SIGTERM
    os.close(reading)
    os.close(writing)


def test_a_child_that_cannot_be_started_now_is_started_later(ground: Ground) -> None:
    said = ground.new_folder("said") / "log"
    with said.open("wb") as log, family(ground, SLEEPER, log.fileno()) as (folder, supervisor):
        eventually((folder / "up").exists)
        (child,) = supervisor.children()
        few, many = resource.prlimit(supervisor.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(supervisor.pid, resource.RLIMIT_NOFILE, (4, many))
        child.kill()

        eventually(lambda: "not started: Too many open files" in said.read_text())
        resource.prlimit(supervisor.pid, resource.RLIMIT_NOFILE, (few, many))

        (other,) = eventually(supervisor.children)
        assert is_alive(other)
        assert other != child
