"""Child processes that are kept running and never outlive their parent: start, watch, restart with back-off, stop.

One thread and one selector: signals, the children's output, their deaths and the questions put to them (`Probe`) meet
in `turn()`. Knows nothing of faxes; faxbot.supervisor says which roles there are.
"""

from __future__ import annotations

import errno
import os
import selectors
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from faxbot.errors import FaxbotError
from faxbot.lifeline import adopt_orphans, die_with_parent
from faxbot.supervisor.console import Console, Output
from faxbot.supervisor.probe import Probe, Question

_END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LAST_LINES = 20
_PASSING = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
"""The machine has no process, memory or file to spare now; it may have in a moment."""


class Stopped(Exception):
    """A signal asked the whole tree to end."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class ChildFailed(FaxbotError):
    """A part of faxbot does not start."""

    code = "child-failed"


@dataclass(frozen=True, slots=True)
class Role:
    """What to run. `grace` is how many seconds SIGTERM may take before SIGKILL of the whole process group."""

    name: str
    command: Sequence[str]
    environ: Mapping[str, str] = field(repr=False)
    pass_fds: tuple[int, ...] = ()
    probe: Probe | None = None
    grace: float = 10.0
    mend: Callable[[], None] | None = None
    """Called when the child ended before it ever came up: a chance to clear what keeps it from starting."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds, and counts."""

    first_delay: float = 0.5
    longest_delay: float = 30.0
    tries: int = 5
    """Failures in a row of a child that never came up: then everything ends."""
    steady: float = 5.0
    """A child without a probe that lived this long has come up."""
    calm: float = 30.0
    """A child that lived this long starts again with the first delay."""
    start_within: float = 60.0
    ask_every: float = 0.05
    watch_every: float = 10.0
    answer_within: float = 10.0
    silences: int = 3
    """Unanswered questions in a row: the child is wedged, is killed and started again."""


class Child:
    """One role as it runs: the process of the moment, when to start it again, what it was asked."""

    def __init__(self, role: Role, *, keep: bool) -> None:
        self.role = role
        self.keep = keep
        """Start it again when it ends; else it runs once."""
        self.process: subprocess.Popen[bytes] | None = None
        self.exit_code = 0
        self.outputs: list[Output] = []
        self.last: deque[str] = deque(maxlen=_LAST_LINES)
        self.came_up = False
        """It has worked at least once."""
        self.up = False
        self.failures = 0
        self.silences = 0
        self.started_at = 0.0
        self.start_at: float | None = None
        self.ask_at = 0.0
        self.question: Question | None = None

    @property
    def runs(self) -> bool:
        return self.process is not None


class Processes:
    """All children of this process, its orphaned grandchildren included. On leaving the context none of them is left.

    There is one per process, in its main thread: it takes over the signals and reaps whatever ends.
    """

    def __init__(
        self, console: Console, timing: Timing | None = None, *, verbose: bool = False
    ) -> None:
        self._console, self._verbose = console, verbose
        self._timing = timing or Timing()
        self._waves: list[list[Child]] = []
        self._outputs: dict[int, Output] = {}
        self._signals: deque[int] = deque()
        self._ending = False
        self._hurry = False
        self._others: set[int] = set()
        self._selector = selectors.DefaultSelector()
        self._wake, self._waker = socket.socketpair()

    def __enter__(self) -> Self:
        # What a shell started before it became us (`something & exec faxbot up`) is not ours to end.
        self._others = _own_children()
        adopt_orphans()
        # A signal writes a byte into the socket, which wakes the selector at once.
        for end in (self._wake, self._waker):
            end.setblocking(False)
        self._selector.register(self._wake, selectors.EVENT_READ, self._drain)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, self._on_signal)
        for signum in _END_SIGNALS:
            if signal.getsignal(signum) is not signal.SIG_IGN:  # nohup, or a job in the background
                signal.signal(signum, self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        if kind is not None:
            # Why it failed is still to be said, perhaps to a reader that stands still: a signal ends that.
            for signum in _END_SIGNALS:
                if signal.getsignal(signum) == self._on_signal:
                    signal.signal(signum, signal.SIG_DFL)

    def add(self, *roles: Role) -> list[Child]:
        """Start children that are kept running; those of one call are stopped together."""
        return self._begin([Child(role, keep=True) for role in roles])

    def wait_until_up(self, children: Iterable[Child]) -> None:
        """Return when each has answered its probe or lived a while; raises ChildFailed, Stopped."""
        for child in children:
            while not child.came_up:
                self.turn()

    def run(self, role: Role) -> Child:
        """Run something to its end; its `exit_code` (128 + n after signal n) and `last` lines tell how it was."""
        (child,) = self._begin([Child(role, keep=False)])
        while child.runs:
            self.turn()
        return child

    def run_in_front(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        meanwhile: Callable[[], object] = lambda: None,
    ) -> int:
        """Run the user's own command on our terminal, in our process group, and do `meanwhile` again and again; its
        exit code."""
        child = Child(Role("command", command, environ, grace=5.0), keep=False)
        self._waves.append([child])
        try:
            child.process = subprocess.Popen(
                command, env=dict(environ), preexec_fn=partial(die_with_parent, os.getpid())
            )
        except OSError as error:
            raise ChildFailed(f"{command[0]} cannot be run: {error.strerror}") from None
        while child.runs:
            self.turn()
            meanwhile()
        return child.exit_code

    def answers(self, probe: Probe) -> bool:
        """Ask once and wait for the answer."""
        question = Question(probe, self._selector, self._timing.answer_within)
        while not question.settled():
            self.turn()
        return question.answer is True

    def turn(self) -> None:
        """Wait a moment for whatever comes next, and deal with it; raises Stopped and ChildFailed."""
        unsettled = any(not child.up and child.keep for child in self._children)
        for key, mask in self._selector.select(
            self._timing.ask_every if unsettled or self._ending else 1.0
        ):
            key.data(mask)
        self._reap()
        if self._signals:
            signum = self._signals.popleft()
            if not self._ending:
                raise Stopped(signum)
            self._hurry = True
        if not self._ending:
            for child in self._children:
                self._tend(child, time.monotonic())

    def stop(self) -> None:
        """End all, the youngest first: SIGTERM, the grace, SIGKILL. One more signal cuts every grace short."""
        self._ending = True
        for wave in reversed(self._waves):
            self._stop(wave)
        self._until(lambda: not self._kill_orphans(), 10.0)
        for output in tuple(self._outputs.values()):
            self._hear(output, 0)

    @property
    def _children(self) -> Iterator[Child]:
        return chain.from_iterable(self._waves)

    def _begin(self, wave: list[Child]) -> list[Child]:
        self._waves.append(wave)
        for child in wave:
            self._start(child)
        return wave

    def _start(self, child: Child) -> None:
        child.start_at, child.up, child.silences = None, False, 0
        child.started_at = child.ask_at = time.monotonic()
        try:
            child.process = self._spawn(child)
        except OSError as error:
            if not (child.keep and (child.came_up or error.errno in _PASSING)):
                raise ChildFailed(
                    f"{child.role.name} cannot be started: {error.strerror}"
                ) from None
            self._plan_restart(child, f"not started: {error.strerror}")

    def _spawn(self, child: Child) -> subprocess.Popen[bytes]:
        role = child.role
        child.outputs = []
        with ExitStack() as theirs:
            # What is logged is shown; what is only said (a banner, an address) is kept for the case that it fails.
            said = self._pipe(child, shown=self._verbose)
            theirs.callback(os.close, said)
            logged = self._pipe(child, shown=True)
            theirs.callback(os.close, logged)
            # In a session of its own: Ctrl-C on the terminal is ours to pass on, and its group can be killed as one.
            return subprocess.Popen(
                role.command,
                env=dict(role.environ),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=logged,
                pass_fds=role.pass_fds,
                start_new_session=True,
                umask=0o077,
                preexec_fn=partial(die_with_parent, os.getpid()),
            )

    def _pipe(self, child: Child, *, shown: bool) -> int:
        """The writing end of a new pipe; what comes out of it is the child's."""
        reading, writing = os.pipe()
        say = partial(self._console.line, child.role.name) if shown else lambda _: None
        output = Output(reading, say, child.last)
        child.outputs.append(output)
        self._outputs[reading] = output
        self._selector.register(reading, selectors.EVENT_READ, partial(self._hear, output))
        return writing

    def _tend(self, child: Child, now: float) -> None:
        if child.start_at is not None and now >= child.start_at:
            self._start(child)
        elif child.process and child.keep:
            if child.role.probe:
                self._watch(child, child.role.probe, now)
            elif now - child.started_at >= self._timing.steady:
                child.up = child.came_up = True

    def _watch(self, child: Child, probe: Probe, now: float) -> None:
        if child.question is None:
            if now >= child.ask_at:
                child.question = Question(probe, self._selector, self._timing.answer_within)
            return
        if not child.question.settled():
            return
        well, child.question = child.question.answer, None
        if well:
            child.up, child.came_up, child.silences = True, True, 0
        else:
            child.silences += 1
        child.ask_at = now + (self._timing.watch_every if child.up else self._timing.ask_every)
        too_slow = not child.up and now - child.started_at > self._timing.start_within
        if too_slow or (child.up and child.silences >= self._timing.silences):
            self._console.line("faxbot", f"{child.role.name} does not answer: it is killed")
            _kill_group(child)

    def _reap(self) -> None:
        """Collect every process that ended: children, and orphans that became ours."""
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            child = next(
                (c for c in self._children if c.process and c.process.pid == ended.si_pid), None
            )
            if child:
                # While it is a zombie its number cannot be taken by another group: what is left of its own goes now.
                _kill_group(child)
            _, status = os.waitpid(ended.si_pid, 0)
            if child:
                self._ended(child, os.waitstatus_to_exitcode(status))

    def _ended(self, child: Child, code: int) -> None:
        if child.process:
            child.process.returncode = code
        child.process, child.up = None, False
        child.exit_code = code if code >= 0 else 128 - code
        if child.question:
            child.question.decide(False)
            child.question = None
        for output in child.outputs:
            self._hear(output, 0)
        if child.keep and not self._ending:
            self._plan_restart(child, f"exit code {code}" if code >= 0 else f"signal {-code}")

    def _plan_restart(self, child: Child, how: str) -> None:
        timing, now = self._timing, time.monotonic()
        child.failures = 1 if now - child.started_at >= timing.calm else child.failures + 1
        if not child.came_up:
            if child.role.mend:
                child.role.mend()
            if child.failures >= timing.tries:
                lines = "".join(f"\n    {line}" for line in child.last)
                raise ChildFailed(
                    f"{child.role.name} ended {child.failures} times at its start ({how}). Its last lines:{lines}"
                )
        delay = min(timing.first_delay * 2 ** min(child.failures - 1, 16), timing.longest_delay)
        child.start_at = now + delay
        self._console.line(
            "faxbot", f"{child.role.name} ended ({how}); it starts again in {delay:g} s"
        )

    def _stop(self, wave: Sequence[Child]) -> None:
        for child in wave:
            _signal(child, signal.SIGKILL if self._hurry else signal.SIGTERM)
        began = time.monotonic()
        for child in sorted(wave, key=lambda child: child.role.grace):
            grace = began + child.role.grace - time.monotonic()
            self._until(lambda child=child: not child.runs or self._hurry, grace)  # type: ignore[misc]
            if child.runs:
                if not self._hurry:
                    said = f"{child.role.name} did not end in {child.role.grace:g} s: it is killed"
                    self._console.line("faxbot", said)
                _kill_group(child)
                _signal(child, signal.SIGKILL)
        self._until(lambda: not any(child.runs for child in wave), 10.0)

    def _kill_orphans(self) -> set[int]:
        """SIGKILL what became our child because its own parent ended; who that was."""
        orphans = _own_children() - self._others
        for pid in orphans:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        return orphans

    def _until(self, condition: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end:
            self.turn()

    def _hear(self, output: Output, _mask: int) -> None:
        if output.descriptor in self._outputs and not output.read():
            del self._outputs[output.descriptor]
            self._selector.unregister(output.descriptor)
            os.close(output.descriptor)

    def _drain(self, _mask: int) -> None:
        with suppress(BlockingIOError):
            self._wake.recv(4096)

    def _on_signal(self, signum: int, _frame: FrameType | None) -> None:
        if signum != signal.SIGCHLD:
            self._signals.append(signum)


def _signal(child: Child, signum: int) -> None:
    # Not Popen.send_signal(): that would collect the process behind the back of _reap().
    if child.process:
        os.kill(child.process.pid, signum)


def _kill_group(child: Child) -> None:
    if child.process:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.process.pid, signal.SIGKILL)


def _own_children() -> set[int]:
    """The pids of all children of this process, adopted ones and zombies included."""
    entries = (entry for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return {int(entry.name) for entry in entries if _parent(entry) == os.getpid()}


def _parent(process: Path) -> int | None:
    try:
        # pid (name) state parent ...: the name may hold anything, so read from its last bracket on (proc(5)).
        return int((process / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return None
