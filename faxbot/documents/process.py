"""One child process that opens documents: started when it is first needed, asked over pipes, killed
when it hangs.

Made to work in threads of a web process and in Celery's forked workers: `subprocess` without
`preexec_fn`; and a fork of the parent drops its copy of the pipes, so that the child still sees the
end of the process it belongs to.
"""

from __future__ import annotations

import json
import os
import select
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Collection, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import faxbot
from faxbot.errors import (
    ConfigError,
    DocumentTooLarge,
    DocumentUnreadable,
    DocumentUnsupported,
    FaxbotError,
)

PROGRAM = Path(__file__).with_name("child.py")
LENGTH = struct.Struct(">I")
LONGEST_REPLY = 1 << 20
GRACE = 2.0  # seconds a child gets to end after its standard input was closed

Reply = dict[str, Any]

_NAMED: dict[str, type[FaxbotError]] = {
    kind.code: kind
    for kind in (ConfigError, DocumentTooLarge, DocumentUnreadable, DocumentUnsupported)
}


class Crashed(DocumentUnreadable):
    """The document stopped the program that reads it; print it to a new PDF and send that."""


class TooSlow(DocumentUnreadable):
    """The document takes too long to read; send it in parts, or as a scan."""


class RenderingFailed(FaxbotError):
    """The fax pages could not be drawn now: the process that draws died, or the time was over."""

    code = "rendering-failed"


class Child:
    """One process, started anew after it died; for one thread at a time.

    `memory_mb` bounds its address space, `written_mb` each file it writes (0: it may write none);
    `nice` is how far it lets other programs of this machine go first (nice(2), 0 to 19).
    """

    def __init__(self, *, memory_mb: int, written_mb: int, nice: int = 0) -> None:
        self.memory_mb = memory_mb
        """Who changes it has the next question answered by a process that began with it."""
        self._began_with = memory_mb
        self._limits = (str(written_mb), str(nice))
        self._process: subprocess.Popen[bytes] | None = None
        self._received = b""
        self._busy = False
        self.lock = threading.Lock()
        """For whoever asks from several threads; a forked process gets a new one."""
        _children.add(self)

    def ask(self, request: Mapping[str, object], seconds: float) -> Reply:
        """The answer to `request`; raises as `first_answer`."""
        deadline = time.monotonic() + seconds
        try:
            self.begin(request, seconds)
            return first_answer([self], deadline)[1]
        finally:
            self.settle()

    def begin(self, request: Mapping[str, object], seconds: float) -> None:
        """Send the request, which may use `seconds` of processor time; the answer comes through
        `first_answer`."""
        data = json.dumps({**request, "seconds": seconds}).encode()
        data = LENGTH.pack(len(data)) + data
        other = self._began_with != self.memory_mb
        if other or self._process is None or self._process.poll() is not None:
            self._start()
        self._busy, self._received = True, b""
        try:
            self._write(data)
        except BrokenPipeError:
            # It died since, with nothing to do: that says nothing about this request.
            self._start()
            self._write(data)

    def settle(self) -> None:
        """Make sure that no late answer to a question nobody waits for can meet the next one."""
        if self._busy:
            self.kill()

    def kill(self) -> None:
        """End the process at once."""
        process, self._process, self._busy = self._process, None, False
        if process is not None:
            process.kill()
            _release(process)
            process.wait()

    def close(self) -> None:
        """End the process, which does so when its standard input ends."""
        process, self._process = self._process, None
        if process is not None:
            _release(process)
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def fileno(self) -> int:
        """Where its answer can be read."""
        return _number(self._process.stdout if self._process else None)

    def take(self) -> Reply | None:
        """What was answered, None while it is not complete; raises as `first_answer`. Call it when
        readable."""
        data = os.read(self.fileno(), 1 << 16)
        self._received += data
        if not data or len(self._received) > LONGEST_REPLY:
            self.kill()
            raise Crashed
        (length,) = (
            LENGTH.unpack(self._received[:4]) if len(self._received) >= 4 else (LONGEST_REPLY,)
        )
        if len(self._received) < LENGTH.size + length:
            return None
        self._busy = False
        return _result(json.loads(self._received[LENGTH.size :]))

    def _start(self) -> None:
        self.kill()
        self._began_with = self.memory_mb
        # No environment, for it holds keys; a session of its own, so that Ctrl-C is ours to handle;
        # no log.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", str(PROGRAM), str(self._began_with), *self._limits, *_folders()],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            bufsize=0, cwd="/", env={}, start_new_session=True,
        )  # fmt: skip

    def _write(self, data: bytes) -> None:
        number = _number(self._process.stdin if self._process else None)
        while data:
            data = data[os.write(number, data) :]

    def forget(self) -> None:
        """After a fork: the process is the parent's, only our copies of its pipes are closed."""
        self.lock = threading.Lock()  # a thread that was not forked with us may hold the old one
        process, self._process, self._busy = self._process, None, False
        if process is not None:
            _release(process)
            process.returncode = 0  # or its destructor would complain that it still runs


def first_answer(children: Collection[Child], deadline: float) -> tuple[Child, Reply]:
    """Wait for one of the asked children; `deadline` is on the monotonic clock.

    Raises the error that the child names (DocumentUnsupported, DocumentUnreadable,
    DocumentTooLarge), TooSlow, Crashed, or OSError when the system refused it something.
    """
    by_number = {child.fileno(): child for child in children}
    poll = select.poll()
    for number in by_number:
        poll.register(number, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0:
        for number, _ in poll.poll(left * 1000):
            reply = by_number[number].take()
            if reply is not None:
                return by_number[number], reply
    raise TooSlow


def _result(reply: Reply) -> Reply:
    if "result" in reply:
        return dict(reply["result"])
    error = reply["error"]
    if error in _NAMED:
        raise _NAMED[error](reply["detail"])
    if error == "system":
        raise OSError(reply["number"], os.strerror(reply["number"]))
    if error == "memory":
        raise DocumentTooLarge(
            "The document needs more memory than this server gives one "
            "(FAXBOT_DOCUMENT_MEMORY_MB); send it in parts, or as a scan."
        )
    raise DocumentUnreadable(
        "The document is damaged; open it, save it again as PDF and send that."
    )


def _number(stream: IO[bytes] | None) -> int:
    if stream is None:
        raise Crashed
    return stream.fileno()


def _release(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


def _folders() -> list[str]:
    """Where the child finds faxbot, Pillow and PDFium: it runs without the site packages' start-up
    code."""
    folders = [str(Path(faxbot.__file__).parent.parent)]
    for name in ("PIL", "pypdfium2_raw"):
        spec = find_spec(name)
        if spec is None or spec.origin is None:
            raise ConfigError(f"{name} is missing: install faxbot with its requirements")
        folders.append(str(Path(spec.origin).parent.parent))
    return list(dict.fromkeys(folders))


_children: weakref.WeakSet[Child] = weakref.WeakSet()


def _after_fork() -> None:
    for child in list(_children):
        child.forget()


os.register_at_fork(after_in_child=_after_fork)
