"""HTTP connections on which a whole call ends in time: every wait of a call, to write, to read a head or a piece of a
body, lasts no longer than what is left of it, however slowly the other end drips.

urllib3's connections, as our two ways out use them: providers/http.py, which calls carriers, and dialling.py, which
calls subscribers.
"""

from __future__ import annotations

import io
import logging
import socket
import threading
import time
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import Any, cast

from urllib3.connection import HTTPConnection, HTTPSConnection

IDLE_SECONDS = 4.0
"""A connection unused for longer is replaced before the next request.

A server may close an idle connection in the very moment in which we write to it; the reset would be
an unknown outcome. The shortest idle limit of common servers is 5 s (Apache's KeepAliveTimeout,
Node's keepAliveTimeout), so we leave first. One that the server has closed already is seen by
urllib3 before use.
"""
_PIECE = 64 * 1024

# urllib3 logs whole addresses, of every request and of odd answers; a query may name a number.
logging.getLogger("urllib3").setLevel(logging.CRITICAL)


@dataclass(slots=True)
class Call:
    """One request on its way: its limits (monotonic seconds), and whether a byte of it may have
    left."""

    read: float
    deadline: float
    idle: float
    begun: bool = False

    def patience(self) -> float:
        """How long the next wait may last; raises TimeoutError when the call's time is over."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the call's total time is over")
        return min(self.read, left)


class _Thread(threading.local):
    """The call this thread is in. urllib3 hands nothing of a request down to its connections, so it
    goes beside it."""

    call = Call(read=30.0, deadline=float("inf"), idle=IDLE_SECONDS)


_thread = _Thread()


def begin(*, read: float, total: float, idle: float = IDLE_SECONDS) -> Call:
    """The call that this thread makes next, on connections of this module. Seconds: `read` for the longest silence,
    `total` for the whole of it, `idle` for how long an unused connection is good."""
    call = _thread.call = Call(read=read, deadline=time.monotonic() + total, idle=idle)
    return call


def current() -> Call:
    """The call that this thread is in."""
    return _thread.call


class _Reader(io.RawIOBase):
    """Reads from a socket with the patience of the call, so that a server that drips cannot outlast
    its total time."""

    def __init__(self, sock: socket.socket, call: Call) -> None:
        super().__init__()
        self._sock = sock
        self._file = sock.makefile("rb", buffering=0)
        self._call = call
        self.ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        self._sock.settimeout(self._call.patience())
        count = self._file.readinto(buffer)
        self.ended = count == 0
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


class _Response(HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp.close()
        self._reader = _Reader(sock, _thread.call)
        self.fp = io.BufferedReader(self._reader)

    def begin(self) -> None:
        """A head that was cut off passes for a whole one with http.client; here it does not."""
        super().begin()
        if self._reader.ended:
            raise HTTPException("the head of the answer is not complete")


class Connection(HTTPConnection):
    """What our connections do beside urllib3's: notice the first byte written, time every wait, and
    age."""

    response_class = _Response
    _used_at = 0.0

    def send(self, data: Any) -> None:
        """`data` is bytes-like: requests makes one body of a form and of its files."""
        if self.sock is None:
            self.connect()
        sock, call = cast(socket.socket, self.sock), _thread.call
        view = memoryview(data)
        for start in range(0, len(view), _PIECE):
            sock.settimeout(call.patience())
            call.begun = True
            sock.sendall(view[start : start + _PIECE])
        self._used_at = time.monotonic()

    @property
    def is_connected(self) -> bool:
        fresh = time.monotonic() - self._used_at < _thread.call.idle
        return fresh and super().is_connected


class TlsConnection(Connection, HTTPSConnection):
    """The same over TLS."""
