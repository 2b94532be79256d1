"""The family of children as real processes: restarts, give-up, stop order, wedged children, and nobody left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import psutil
import pytest

from faxbot.supervisor.up import must_listen
from tests.ground import BUSY, ENVIRONMENT, Ground, eventually, is_alive, processes_of

# What every script begins with; `note(...)` adds a line to the journal that the test reads.
NOTE = """
import json, os, signal, socket, subprocess, sys, time
def note(*words):
    with open("journal", "a") as file:
        file.write(json.dumps([*words, time.monotonic()]) + chr(10))
def wait_for(*words):
    while not any(json.loads(line)[:-1] == list(words) for line in open("journal")):
        time.sleep(0.01)
def stay():
    while True:
        signal.pause()
"""
# What a family's script begins with; role(name) runs the child's script of that name.
PREAMBLE = (
    NOTE
    + """
from faxbot.supervisor.console import Console
from faxbot.supervisor.processes import ChildFailed, Processes, Probe, Role, Stopped, Timing

def role(name, **more):
    return Role(name, [sys.executable, name + ".py"], dict(os.environ), **more)

def family(**timing):
    return Processes(Console(sys.stderr, colour=False), Timing(**timing))

def serve(processes):
    note("serving")
    try:
        while True:
            processes.turn()
    except Stopped as end:
        note("stopped", end.signum)
"""
)

Note = list[Any]


class Family:
    """One supervisor running `script`, and the scripts of its children, in a folder of its own."""

    def __init__(self, ground: Ground, script: str, children: Mapping[str, str]) -> None:
        self.folder = ground.new_folder("family")
        self.log = self.folder / "log"
        for name, code in children.items():
            (self.folder / f"{name}.py").write_text(NOTE + textwrap.dedent(code))
        env = {name: ENVIRONMENT[name] for name in ("PATH", "HOME") if name in ENVIRONMENT}
        program = PREAMBLE + textwrap.dedent(script)
        self.process = ground.start(
            [sys.executable, "-P", "-c", program], self.folder, env, self.log, cwd=self.folder
        )

    def notes(self, word: str) -> list[Note]:
        """What was noted so far under `word`, without the word."""
        journal = self.folder / "journal"
        lines = journal.read_text().splitlines() if journal.exists() else []
        return [note[1:] for note in map(json.loads, lines) if note[0] == word]

    def wait_for(self, word: str, count: int = 1) -> list[Note]:
        try:
            return eventually(lambda: found if len(found := self.notes(word)) >= count else [], 15)
        except AssertionError:
            raise AssertionError(f"no {count} x {word}; its output:\n{self.output()}") from None

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def members(self) -> list[psutil.Process]:
        return processes_of(self.folder)

    def stop(self, signum: signal.Signals = signal.SIGTERM, timeout: float = 15) -> int:
        self.process.send_signal(signum)
        return self.process.wait(timeout * BUSY)


StartFamily = Callable[..., Family]


@pytest.fixture
def start(ground: Ground) -> Iterator[StartFamily]:
    """start(script, child=script): a running Family. At the end of the test nothing of it may be left."""
    families: list[Family] = []

    def start(script: str, **children: str) -> Family:
        families.append(Family(ground, script, children))
        return families[-1]

    yield start
    for family in families:
        if family.process.poll() is None:
            family.stop()
        eventually(lambda family=family: not family.members(), 5)  # type: ignore[misc]


SLEEPER = "note('up', os.getpid()); stay()\n"
STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEPER
ONE = """
with family() as processes:
    processes.add(role("one"))
    serve(processes)
"""


def test_a_child_that_ends_is_started_again_after_growing_pauses(start: StartFamily) -> None:
    family = start(
        """
        with family(first_delay=0.1, longest_delay=0.4, tries=99, ask_every=0.01) as processes:
            processes.add(role("one"))
            serve(processes)
        """,
        one="note('born'); note('ended')",
    )
    births = [at for (at,) in family.wait_for("born", 6)]
    ends = [at for (at,) in family.notes("ended")]

    pauses = [birth - end for end, birth in zip(ends, births[1:], strict=False)]
    wanted = (0.1, 0.2, 0.4, 0.4, 0.4)
    assert all(pause >= least for pause, least in zip(pauses, wanted, strict=False))
    assert "faxbot    | one ended (exit code 0); it starts again in 0.4 s" in family.output()


def test_a_child_that_lived_long_starts_again_with_the_first_pause(start: StartFamily) -> None:
    family = start(
        """
        with family(first_delay=0.05, tries=99, calm=0.3, steady=0.1, ask_every=0.01) as processes:
            processes.add(role("one"))
            serve(processes)
        """,
        one="note('born'); time.sleep(0.6); sys.exit(3)",
    )
    family.wait_for("born", 5)

    assert family.output().count("one ended (exit code 3); it starts again in 0.05 s") >= 4


def test_a_child_that_never_comes_up_ends_everything_with_its_last_words(
    start: StartFamily,
) -> None:
    family = start(
        """
        try:
            with family(first_delay=0.05, tries=3) as processes:
                processes.add(role("good"))
                processes.add(role("bad"))
                serve(processes)
        except ChildFailed as error:
            sys.exit(error.detail)
        """,
        good=SLEEPER,
        bad="print('the disk is on fire'); sys.exit(7)",
    )

    assert family.process.wait(15 * BUSY) == 1
    assert "bad ended 3 times at its start (exit code 7)" in family.output()
    assert family.output().rstrip().endswith("the disk is on fire")
    assert not family.members()


def test_what_keeps_a_child_from_starting_can_be_mended(start: StartFamily) -> None:
    family = start(
        """
        open("broken", "w").close()
        with family(first_delay=0.05, ask_every=0.01) as processes:
            processes.add(role("one", mend=lambda: os.unlink("broken")))
            serve(processes)
        """,
        one="os.path.exists('broken') and sys.exit(1)\n" + SLEEPER,
    )

    family.wait_for("up")


def test_a_program_that_is_not_there_is_a_clear_error(start: StartFamily) -> None:
    family = start(
        """
        try:
            with family() as processes:
                processes.add(role("good"))
                processes.add(Role("gone", ["/no/such/program"], dict(os.environ)))
        except ChildFailed as error:
            sys.exit(error.detail)
        """,
        good=SLEEPER,
    )

    assert family.process.wait(15 * BUSY) == 1
    assert "gone cannot be started: No such file or directory" in family.output()


POLITE = """
def end(*_):
    note("asked", {0!r}); wait_for("asked", {1!r}); note("ended", {0!r}); sys.exit()
signal.signal(signal.SIGTERM, end)
""" + SLEEPER  # fmt: skip


def test_children_are_stopped_in_reverse_order_those_of_one_call_together(
    start: StartFamily,
) -> None:
    family = start(
        """
        with family() as processes:
            processes.add(role("first"))
            processes.add(role("second"), role("third"))
            serve(processes)
        """,
        first=POLITE.format("first", "first"),
        # It ends only when its companion was asked to end, too.
        second=POLITE.format("second", "third"),
        third=POLITE.format("third", "third"),
    )
    family.wait_for("up", 3)

    assert family.stop() == 0
    asked, ended = (dict(family.notes(word)) for word in ("asked", "ended"))
    assert max(asked["second"], asked["third"]) < ended["second"] < asked["first"]
    assert not family.members()


def test_a_child_that_will_not_end_is_killed_after_its_grace(start: StartFamily) -> None:
    family = start(
        """
        with family() as processes:
            processes.add(role("one", grace=0.3))
            serve(processes)
        """,
        one=STUBBORN,
    )
    family.wait_for("up")

    assert family.stop(timeout=5) == 0
    assert "one did not end in 0.3 s: it is killed" in family.output()


def test_a_second_signal_ends_everything_at_once(start: StartFamily) -> None:
    family = start(
        """
        with family() as processes:
            processes.add(role("one", grace=600))
            processes.add(role("two", grace=600))
            serve(processes)
        """,
        one=STUBBORN,
        two=STUBBORN,
    )
    family.wait_for("up", 2)
    family.process.send_signal(signal.SIGINT)
    family.wait_for("stopped")
    assert len(family.members()) == 3

    assert family.stop(signal.SIGINT, timeout=5) == 0
    assert not family.members()


def test_nothing_survives_a_kill_of_the_supervisor(start: StartFamily) -> None:
    family = start(
        """
        with family() as processes:
            processes.add(role("parent"))
            processes.add(role("stubborn"))
            serve(processes)
        """,
        parent="""
        from faxbot import lifeline
        lifeline.forks_die_with_me()
        note("forked") if os.fork() == 0 else note("parent")
        stay()
        """,
        stubborn=STUBBORN,
    )
    family.wait_for("forked")
    family.wait_for("parent")
    family.wait_for("up")
    members = family.members()
    assert len(members) == 4

    family.process.kill()
    family.process.wait()

    eventually(lambda: not any(map(is_alive, members)), 3)


def test_a_forked_child_of_a_forked_child_is_left_to_itself(start: StartFamily) -> None:
    family = start(
        """
        with family() as processes:
            processes.add(role("parent"))
            serve(processes)
        """,
        parent="""
        from faxbot import lifeline
        lifeline.forks_die_with_me()
        if os.fork() == 0:
            if os.fork() == 0:
                note("grandchild")
            stay()
        stay()
        """,
    )

    family.wait_for("grandchild")


def test_a_kill_of_one_child_takes_its_own_children_along_and_brings_it_back(
    start: StartFamily,
) -> None:
    # The grandchild does not look after itself: it is the group that is killed.
    family = start(
        """
        with family(first_delay=0.05) as processes:
            processes.add(role("one"))
            serve(processes)
        """,
        one="subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'])\n" + SLEEPER,
    )
    ((pid, _),) = family.wait_for("up")
    parent = psutil.Process(pid)
    (grandchild,) = parent.children()

    parent.kill()

    family.wait_for("up", 2)
    assert not is_alive(grandchild)


def test_orphans_that_left_every_session_are_collected_and_end_with_the_rest(
    start: StartFamily,
) -> None:
    # What a daemon does: fork, leave the session, fork again; no parent of its own is left then.
    family = start(
        ONE,
        one="""
        for seconds in (0, 600):
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    note("lasting" if seconds else "brief", os.getpid())
                    time.sleep(seconds)
                os._exit(0)
            os.wait()
        stay()
        """,
    )
    ((brief, _),) = family.wait_for("brief", 1)
    ((lasting, _),) = family.wait_for("lasting", 1)
    supervisor = psutil.Process(family.process.pid)

    eventually(lambda: not psutil.pid_exists(brief))
    eventually(lambda: psutil.Process(lasting).ppid() == supervisor.pid)
    assert [child for child in supervisor.children() if not is_alive(child)] == []
    assert family.stop() == 0
    assert not psutil.pid_exists(lasting)


def test_what_was_there_before_is_left_alone(start: StartFamily) -> None:
    family = start(
        """
        stranger = subprocess.Popen(["sleep", "600"])
        with family() as processes:
            processes.add(role("one"))
            serve(processes)
        note("still there", stranger.poll() is None)
        stranger.kill()
        """,
        one=SLEEPER,
    )
    family.wait_for("serving")

    assert family.stop() == 0
    assert [alive for alive, _ in family.notes("still there")] == [True]


def test_a_child_that_stops_answering_is_killed_and_started_again(start: StartFamily) -> None:
    family = start(
        """
        listener = socket.create_server(("127.0.0.1", 0))
        fast = dict(first_delay=0.05, watch_every=0.05, answer_within=0.2, silences=2)
        with family(**fast) as processes:
            os.dup2(listener.fileno(), 9)
            probe = Probe(listener.getsockname(), b"PING", b"PONG")
            processes.wait_until_up(processes.add(role("echo", pass_fds=(9,), probe=probe)))
            serve(processes)
        """,
        echo="""
        note("up", os.getpid())
        listener = socket.socket(fileno=9)
        while True:
            connection, _ = listener.accept()
            connection.recv(100)
            connection.sendall(b"PONG")
            connection.close()
        """,
    )
    family.wait_for("serving")
    ((first, _),) = family.wait_for("up")

    os.kill(first, signal.SIGSTOP)

    family.wait_for("up", 2)
    assert "echo does not answer: it is killed" in family.output()
    assert not psutil.pid_exists(first)


def test_log_lines_come_prefixed_and_a_banner_is_not_shown(start: StartFamily) -> None:
    family = start(
        ONE,
        one=r"""
        print("a banner", flush=True)
        print("plain and \x1b[31mred", file=sys.stderr)
        sys.stderr.buffer.write(b"not \xff text, and no end of line")
        """,
    )
    eventually(lambda: "it starts again" in family.output())
    assert family.stop() == 0

    lines = family.output().splitlines()
    assert "one       | plain and ?[31mred" in lines
    assert "one       | not \ufffd text, and no end of line" in lines
    assert not any("banner" in line for line in lines)


def test_a_reader_that_goes_away_stops_nothing(start: StartFamily) -> None:
    family = start(
        """
        read, write = os.pipe()
        os.dup2(write, 2)
        os.close(write)
        os.close(read)
        with family(first_delay=0.02, longest_delay=0.02, tries=9999, ask_every=0.01) as processes:
            processes.add(role("one"))
            serve(processes)
        """,
        one="print('again', file=sys.stderr); note('born')",
    )
    family.wait_for("serving")
    before = len(family.notes("born"))

    family.wait_for("born", before + 4)
    assert family.stop() == 0


def test_an_ignored_hang_up_stays_ignored(start: StartFamily) -> None:
    family = start(
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does" + ONE, one=SLEEPER
    )
    family.wait_for("up")
    family.wait_for("serving")

    family.process.send_signal(signal.SIGHUP)

    assert family.stop() == 0
    assert [signum for signum, _ in family.notes("stopped")] == [signal.SIGTERM]


@pytest.mark.parametrize(
    ("command", "code"),
    [(["true"], 0), (["sh", "-c", "exit 5"], 5), (["sh", "-c", "kill -9 $$"], 137)],
)
def test_a_command_in_front_decides_the_exit_code(
    start: StartFamily, command: list[str], code: int
) -> None:
    family = start(
        f"""
        with family() as processes:
            processes.add(role("one"))
            sys.exit(processes.run_in_front({command!r}, dict(os.environ)))
        """,
        one=SLEEPER,
    )

    assert family.process.wait(15 * BUSY) == code
    assert not family.members()


def test_a_unix_socket_can_be_asked_too(ground: Ground, start: StartFamily) -> None:
    path = ground.new_folder("s") / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        family = start(f"""
            with family(answer_within=5) as processes:
                note("answer", processes.answers(Probe({str(path)!r}, b"PING", b"+PONG")))
                note("answer", processes.answers(Probe({str(path)!r} + "x", b"PING", b"+PONG")))
        """)
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(100) == b"PING"
            connection.sendall(b"+PONG\r\n")

    assert [answer for answer, _ in family.wait_for("answer", 2)] == [True, False]


@pytest.mark.parametrize(
    ("answer", "is_wanted"), [(b"HTTP/1.1 503\r\n\r\nyes", True), (b"yes, or no", False)]
)
def test_an_answer_may_be_read_to_its_end(
    ground: Ground, start: StartFamily, answer: bytes, is_wanted: bool
) -> None:
    path = ground.new_folder("s") / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        family = start(f"""
            with family(answer_within=5) as processes:
                probe = Probe({str(path)!r}, b"PING", wanted=lambda answer: answer.endswith(b"yes"))
                note("answer", processes.answers(probe))
        """)
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(100) == b"PING"
            connection.sendall(answer)

    assert [said for said, _ in family.wait_for("answer")] == [is_wanted]


@pytest.mark.parametrize(
    ("body", "listen"),
    [
        (b'{"ready":false,"listen":true}\n', True),
        (b'{"ready": true, "listen": true}', True),
        (b'{"listen":false}', False),
        (b'{"parts":{"listen":true},"listen":false}', False),
        (b'{"parts":{"listen":true}}', False),
        (b'["listen"]', False),
        (b'{"listen":tr', False),
        (b"", False),
    ],
)
def test_who_must_be_listened_to_is_read_in_the_answer_not_found_in_its_bytes(
    body: bytes, listen: bool
) -> None:
    answer = b'HTTP/1.1 503 Service Unavailable\r\nX-Said: {"listen":true}\r\n\r\n' + body

    assert must_listen(answer) is listen


def test_the_supervisor_is_small_and_has_one_thread(start: StartFamily) -> None:
    family = start("import faxbot.supervisor.up" + ONE, one=SLEEPER)
    family.wait_for("serving")

    process = psutil.Process(family.process.pid)
    memory = process.memory_info().rss / 1024 / 1024
    assert memory < 30, f"{memory:.1f} MiB"
    # A parent-death signal fires when the parent's thread ends: there must be no other thread to fork from.
    assert process.num_threads() == 1
