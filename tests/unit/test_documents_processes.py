"""The processes that open documents: their limits, their end, and what happens when one crashes or
hangs."""

from __future__ import annotations

import base64
import contextlib
import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import billiard
import psutil
import pytest

from faxbot.documents import Checked, Checker, Limits, Renderer, RenderingFailed
from faxbot.documents.process import Child
from faxbot.errors import DocumentError, DocumentTooLarge, DocumentUnreadable
from tests.documents import hostile, look, make
from tests.ground import eventually

LIMITS = Limits(max_pages=50, max_pixels=100_000_000, seconds=20, memory_mb=1024)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def checker() -> Iterator[Checker]:
    checker = Checker(LIMITS)
    yield checker
    checker.close()
    assert not look.children()


@pytest.fixture
def letter(tmp_path: Path) -> Path:
    path = tmp_path / "letter"
    path.write_bytes(make.letter_pdf())
    return path


def the_child() -> psutil.Process:
    (process,) = look.children()
    return process


def cpu_seconds(process: psutil.Process) -> float:
    used = process.cpu_times()
    return float(used.user + used.system)


def gone(pid: int) -> bool:
    """Whether it ended, with all its threads; nobody need have asked for its last word."""
    with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE and len(threads) == 1)
    return True


def test_no_process_is_started_before_it_is_needed_nor_left_after(
    checker: Checker, letter: Path
) -> None:
    assert not look.children()
    checker.check(letter)
    first = the_child()
    checker.check(letter)
    assert the_child() == first

    checker.close()

    assert not first.is_running()


def test_drawing_pages_lets_the_ledger_go_first_and_checking_an_upload_waits_for_nobody(
    tmp_path: Path, checker: Checker, letter: Path
) -> None:
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    checker.check(letter)
    assert the_child().nice() == ours
    checker.close()

    renderer = Renderer(LIMITS, 1)
    renderer.render([(letter, "")], tmp_path / "target", resolution="fine")
    assert the_child().nice() == min(ours + 10, 19)
    renderer.close()


def test_a_process_gets_no_keys_no_descriptors_and_no_log(checker: Checker, letter: Path) -> None:
    with letter.open("rb"):
        checker.check(letter)
    folder = Path(f"/proc/{the_child().pid}")

    assert (folder / "environ").read_bytes() == b""
    open_now = {link.name: str(link.readlink()) for link in (folder / "fd").iterdir()}
    assert set(open_now) == {"0", "1", "2"}
    assert open_now["2"] == "/dev/null"
    assert os.getpgid(the_child().pid) != os.getpgid(0)


def test_a_process_is_limited_in_memory_files_and_traces(checker: Checker, letter: Path) -> None:
    checker.check(letter)
    child = the_child()

    assert child.rlimit(psutil.RLIMIT_AS) == (1024 << 20, 1024 << 20)
    assert child.rlimit(psutil.RLIMIT_FSIZE) == (0, 0)
    assert child.rlimit(psutil.RLIMIT_CORE) == (0, 0)
    used = cpu_seconds(child)
    assert used + 20 <= child.rlimit(psutil.RLIMIT_CPU)[0] <= used + 24


def test_a_child_that_checks_pdfs_stays_small(checker: Checker, letter: Path) -> None:
    for _ in range(200):
        checker.check(letter)

    assert the_child().memory_full_info().uss < 16 << 20


@pytest.mark.parametrize("name", [signal.SIGKILL, signal.SIGSEGV])
def test_a_crash_during_a_check_is_told_at_once_and_the_next_check_works(
    checker: Checker, letter: Path, name: signal.Signals
) -> None:
    checker.check(letter)
    child = the_child()
    errors: list[DocumentError] = []

    def check() -> None:
        try:
            checker.check(letter)
        except DocumentError as error:
            errors.append(error)

    child.suspend()
    thread = threading.Thread(target=check)
    thread.start()
    # The request lies in the pipe when the thread waits for its answer.
    eventually(lambda: thread.ident is not None and _waits_in_poll(thread))
    begun = time.monotonic()
    child.send_signal(name)
    with contextlib.suppress(psutil.NoSuchProcess):  # SIGKILL does not wait for it
        child.resume()
    thread.join(20)

    assert time.monotonic() - begun < 10
    (error,) = errors
    assert type(error) is not DocumentError
    assert isinstance(error, DocumentUnreadable)
    assert "stopped the program" in error.detail
    assert checker.check(letter) == Checked("application/pdf", 1)
    assert the_child().pid != child.pid


def test_a_long_check_keeps_no_other_document_waiting(
    checker: Checker, letter: Path, tmp_path: Path
) -> None:
    others = tmp_path / "others"
    others.write_bytes(make.letter_pdf(2))
    checker.check(letter)
    child = the_child()
    child.suspend()
    with ThreadPoolExecutor(1) as pool:
        try:
            long = pool.submit(checker.check, letter)
            eventually(lambda: not checker._idle.qsize())

            assert [checker.check(others).pages for _ in range(3)] == [2, 2, 2]

            assert not long.done()
            assert len(look.children()) == 2
        finally:
            child.resume()
        assert long.result().pages == 1


def test_no_number_of_long_checks_starts_more_than_two_processes(
    checker: Checker, letter: Path
) -> None:
    checker.check(letter)
    first = the_child()
    first.suspend()
    with ThreadPoolExecutor(4) as pool:
        checks = [pool.submit(checker.check, letter) for _ in range(4)]
        try:
            eventually(lambda: sum(check.done() for check in checks) == 3)
            assert len(look.children()) == 2
        finally:
            first.resume()
        assert [check.result().pages for check in checks] == [1, 1, 1, 1]


def _waits_in_poll(thread: threading.Thread) -> bool:
    return "poll" in Path(f"/proc/self/task/{thread.native_id}/wchan").read_text()


def test_a_child_that_died_while_idle_is_no_fault_of_the_next_document(
    checker: Checker, letter: Path
) -> None:
    checker.check(letter)
    child = the_child()
    child.kill()
    eventually(lambda: gone(child.pid))

    assert checker.check(letter) == Checked("application/pdf", 1)


def test_a_hanging_check_ends_at_the_time_limit_and_its_process_with_it(letter: Path) -> None:
    checker = Checker(Limits(max_pages=50, max_pixels=10**8, seconds=4, memory_mb=1024))
    checker.check(letter)
    child = the_child()
    child.suspend()
    begun = time.monotonic()

    with pytest.raises(DocumentUnreadable, match="too long"):
        checker.check(letter)

    assert 3.5 < time.monotonic() - begun < 20
    assert not child.is_running()
    assert not look.children()
    assert checker.check(letter) == Checked("application/pdf", 1)
    checker.close()


def test_a_page_that_draws_for_minutes_is_stopped(tmp_path: Path, letter: Path) -> None:
    renderer = Renderer(Limits(max_pages=50, max_pixels=10**8, seconds=6, memory_mb=1024), 2)
    slow, target = tmp_path / "slow", tmp_path / "target"
    slow.write_bytes(hostile.slow_pdf())
    begun = time.monotonic()

    with pytest.raises(RenderingFailed):
        renderer.render([(slow, ""), (letter, "")], target, resolution="fine")

    assert time.monotonic() - begun < 30
    assert not look.children()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["letter", "slow"]
    assert renderer.render([(letter, "")], target, resolution="fine") == 1
    renderer.close()


@pytest.mark.parametrize(
    "build",
    [
        lambda: hostile.image_bomb_pdf(9_900),
        lambda: hostile.png(9_900, 9_900),
        lambda: hostile.png(9_900, 9_900, colour=2),
    ],
    ids=["picture in a PDF", "PNG with transparency", "PNG"],
)
def test_a_picture_that_needs_more_memory_than_is_allowed_is_refused(
    tmp_path: Path, letter: Path, build: Callable[[], bytes]
) -> None:
    renderer = Renderer(Limits(max_pages=50, max_pixels=10**8, seconds=60, memory_mb=256), 1)
    path, target = tmp_path / "bomb", tmp_path / "target"
    path.write_bytes(build())

    with pytest.raises(DocumentTooLarge):
        renderer.render([(path, "")], target, resolution="fine")

    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["bomb", "letter"]
    assert renderer.render([(letter, "")], target, resolution="fine") == 1
    renderer.close()
    assert not look.children()


def test_a_disk_that_takes_no_more_is_no_fault_of_the_document(
    tmp_path: Path, letter: Path
) -> None:
    child = Child(memory_mb=1024, written_mb=0)
    request = {
        "do": "start", "paths": [str(letter)], "target": str(tmp_path / "target"), "alone": 9,
        "resolutions": ["fine"], "max_pages": 9, "max_pixels": 10**8,
    }  # fmt: skip

    with pytest.raises(OSError, match="File too large") as caught:
        child.ask(request, 20)

    assert caught.value.errno == errno.EFBIG
    assert not isinstance(caught.value, DocumentError)
    child.close()


PARENT = """
    import os, signal, sys
    from pathlib import Path
    from faxbot.documents import Checker, Limits, Renderer
    from tests.documents import look

    limits = Limits(max_pages=50, max_pixels=10**8, seconds=300, memory_mb=1024)
    how, letter, slow, target = sys.argv[1], *map(Path, sys.argv[2:])
    checker = Checker(limits)
    checker.check(letter)
    print(look.children()[0].pid, flush=True)
    if how == "while its fork lives on":
        fork = os.fork()
        if fork:
            print(fork, flush=True)
    elif how == "while it renders":
        checker.close()
        renderer = Renderer(limits, 1)
        renderer.render([(letter, "")], target, resolution="fine")
        print(look.children()[0].pid, flush=True)
        renderer.render([(slow, "")], target, resolution="fine")
    while True:
        signal.pause()
"""


@pytest.mark.parametrize("how", ["while idle", "while its fork lives on", "while it renders"])
def test_a_parent_that_is_killed_leaves_no_child(tmp_path: Path, letter: Path, how: str) -> None:
    slow = tmp_path / "slow"
    slow.write_bytes(hostile.slow_pdf())
    paths = [str(path) for path in (letter, slow, tmp_path / "t")]
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT), how, *paths],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert parent.stdout is not None
    with parent:
        lines = 1 if how == "while idle" else 2
        pids = [int(parent.stdout.readline()) for _ in range(lines)]
        child = psutil.Process(pids[0] if how != "while it renders" else pids[1])
        if how == "while it renders":
            idle = child.cpu_times().user
            eventually(lambda: child.cpu_times().user > idle + 0.5)
        try:
            parent.kill()
            eventually(lambda: gone(child.pid))
            if how == "while its fork lives on":
                assert psutil.Process(pids[1]).is_running()
        finally:
            if how == "while its fork lives on":
                os.kill(pids[1], signal.SIGKILL)


def test_a_fork_has_a_process_of_its_own_and_leaves_ours_alone(
    checker: Checker, letter: Path
) -> None:
    checker.check(letter)
    ours = the_child()
    child = checker._idle.get()  # as if another thread were in the middle of a check
    try:
        pid = os.fork()
        if pid == 0:
            good = checker.check(letter).pages == 1 and len(look.children()) == 1
            checker.close()
            os._exit(0 if good else 1)
        _, status = os.waitpid(pid, 0)
    finally:
        checker._idle.put(child)

    assert os.waitstatus_to_exitcode(status) == 0
    assert checker.check(letter) == Checked("application/pdf", 1)
    assert the_child() == ours


def _render(letter: str, target: str) -> None:
    renderer = Renderer(LIMITS, 2)
    pages = renderer.render([(Path(letter), "")], Path(target), resolution="fine")
    renderer.close()
    raise SystemExit(0 if pages == 5 and not look.children() else 1)


def test_it_works_in_a_daemonic_worker_of_celery(tmp_path: Path) -> None:
    letter, target = tmp_path / "letter", tmp_path / "target"
    letter.write_bytes(make.letter_pdf(5))
    worker = billiard.Process(target=_render, args=(str(letter), str(target)), daemon=True)

    worker.start()
    worker.join(60)

    assert worker.exitcode == 0
    assert len(look.pages(target)) == 5


def test_a_rendering_that_lost_its_process_to_the_system_is_tried_once_more(tmp_path: Path) -> None:
    path, target = tmp_path / "a", tmp_path / "target"
    path.write_bytes(make.letter_pdf(50))
    renderer = Renderer(LIMITS, 2)
    killed: list[int] = []

    def kill_the_first() -> None:
        child = eventually(look.children)[0]
        eventually(lambda: cpu_seconds(child) > 0.15)
        child.kill()
        killed.append(child.pid)

    thread = threading.Thread(target=kill_the_first)
    thread.start()
    pages = renderer.render([(path, "")], target, resolution="fine")
    thread.join()

    assert killed
    assert pages == 50
    assert len(look.pages(target)) == 50
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a", "target"]
    renderer.close()
    assert not look.children()


def test_a_rendering_that_loses_its_processes_again_is_no_fault_of_the_document(
    tmp_path: Path, letter: Path
) -> None:
    slow, target = tmp_path / "slow", tmp_path / "target"
    slow.write_bytes(hostile.slow_pdf())
    renderer = Renderer(LIMITS, 1)

    def kill_one() -> None:
        child = eventually(look.children)[0]
        eventually(lambda: cpu_seconds(child) > 0.3)
        child.kill()
        eventually(lambda: gone(child.pid))

    def kill_two() -> None:
        kill_one()
        kill_one()

    with ThreadPoolExecutor(1) as pool:
        killing = pool.submit(kill_two)
        with pytest.raises(RenderingFailed) as caught:
            renderer.render([(slow, "")], target, resolution="fine")
        killing.result()

    assert not isinstance(caught.value, DocumentError)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["letter", "slow"]
    assert renderer.render([(letter, "")], target, resolution="fine") == 1
    renderer.close()


def test_an_interrupted_rendering_leaves_neither_process_nor_file(tmp_path: Path) -> None:
    slow, target = tmp_path / "slow", tmp_path / "target"
    slow.write_bytes(hostile.slow_pdf())
    renderer = Renderer(LIMITS, 1)

    class Interrupted(Exception):
        """As Celery's soft time limit interrupts a task."""

    def interrupt(*_: object) -> None:
        raise Interrupted

    def interrupt_when_it_draws() -> None:
        eventually(lambda: [child for child in look.children() if cpu_seconds(child) > 0.5])
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with ThreadPoolExecutor(1) as threads:
            watching = threads.submit(interrupt_when_it_draws)
            with pytest.raises(Interrupted):
                renderer.render([(slow, "")], target, resolution="fine")
            watching.result()
    finally:
        signal.signal(signal.SIGALRM, before)

    assert not look.children()
    assert [entry.name for entry in tmp_path.iterdir()] == ["slow"]
    renderer.close()


def test_long_documents_get_more_processes_and_short_ones_let_them_go(
    tmp_path: Path, letter: Path
) -> None:
    long, target = tmp_path / "long", tmp_path / "target"
    long.write_bytes(make.letter_pdf(40))
    renderer = Renderer(LIMITS, 2)

    renderer.render([(long, "")], target, resolution="fine")
    worked = [cpu_seconds(child) for child in look.children()]
    renderer.render([(letter, "")], target, resolution="fine")
    left = look.children()
    renderer.close()

    assert len(worked) == 2
    assert min(worked) > 0.15
    assert len(left) == 1


def test_a_process_that_waits_gives_its_memory_back(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "target"
    size = (3000, 4000)
    photo = base64.a85encode(make.encoded(make.photo(size), "JPEG", quality=80)) + b"~>"
    coded = b"/ColorSpace /DeviceGray /BitsPerComponent 8 /Filter [/ASCII85Decode /DCTDecode]"
    source.write_bytes(make.data_pdf(photo, size, coded))
    renderer = Renderer(LIMITS, 1)

    renderer.render([(source, "")], target, resolution="fine")
    child = the_child()

    assert _peak(child) > 50 << 20
    eventually(lambda: child.memory_info().rss < 40 << 20)
    renderer.close()


def _peak(process: psutil.Process) -> int:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


# Limits that change meanwhile -----------------------------------------------------------------------


def memory_mb(process: psutil.Process) -> int:
    soft, _ = process.rlimit(psutil.RLIMIT_AS)
    return int(soft) >> 20


def test_other_limits_hold_from_the_next_document_on(checker: Checker, tmp_path: Path) -> None:
    path, target = tmp_path / "letter", tmp_path / "target"
    path.write_bytes(make.letter_pdf(3))
    renderer, fewer = Renderer(LIMITS, 2), replace(LIMITS, max_pages=2, memory_mb=900)
    deeds: list[tuple[Checker | Renderer, Callable[[], object]]] = [
        (checker, lambda: checker.check(path)),
        (renderer, lambda: renderer.render([(path, "")], target, resolution="fine")),
    ]
    for program, deed in deeds:
        deed()
        assert memory_mb(the_child()) == 1024
        program.set(fewer)
        with pytest.raises(DocumentTooLarge):
            deed()
        assert memory_mb(the_child()) == 900
        program.set(LIMITS)
        deed()
        assert memory_mb(the_child()) == 1024, "its memory is limited when it begins"
        program.close()
