"""Answers that do not end by themselves: a thread gives the first bytes, and the worker's main loop all that follows.

A view calls hand_over(). When its thread has sent what the view answered, the connection belongs to the main loop,
which waits for all connections at once anyway: it sends what others say through tell(), a heartbeat when it is time,
and notices at once who is gone. So nobody who only listens has a thread, and a worker that stops ends them at once.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, Protocol

from faxbot.web.patience import ANSWER_SECONDS, PatientWorker, Sender

LOST_SECONDS = 45
"""A machine that has vanished is noticed when it has acknowledged nothing for so long (TCP_USER_TIMEOUT)."""
KEPT_BYTES = 64 * 1024
"""So much the system keeps for a slow client, about; by itself it would take megabytes for each."""
_PIECE = 64 * 1024


class Piece(NamedTuple):
    """What is to be sent to whom."""

    to: Endless
    data: bytes
    is_last: bool = False


Tell = Callable[[list[Piece]], None]


class Endless(Protocol):
    """An answer without an end. Its methods are called in the worker's main loop, or before it knows of it, and do not
    wait."""

    farewell: bytes
    """What is said last when the worker stops."""
    every: float
    """Seconds between two heartbeats."""

    def begin(self, tell: Tell) -> None:
        """The connection is ready; what is given to `tell`, from any thread, goes out in its order."""

    def drained(self) -> None:
        """All that was told is sent."""

    def heartbeat(self) -> bytes:
        """What shows that the connection lives."""

    def ended(self) -> None:
        """Nobody listens any more."""


def hand_over(environ: Mapping[str, Any], endless: Endless) -> None:
    """Have `endless` go on where this request's answer ends. Without our server (the test client) it ends there."""
    connection = environ.get("gunicorn.socket")
    if isinstance(connection, Sender):
        connection.endless = endless
    else:
        endless.ended()


class EndlessWorker(PatientWorker):
    """The methods are called from the main loop, but for tell()."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._connections: dict[Endless, Any] = {}
        self._beating: deque[Any] = deque()
        """The same connections, by the time of their next heartbeat."""

    def tell(self, pieces: list[Piece]) -> None:
        """Send these pieces to those who are still there; from any thread."""
        self.method_queue.defer(self._tell, pieces)

    def _tell(self, pieces: Iterable[Piece]) -> None:
        for piece in pieces:
            conn = self._connections.get(piece.to)
            if conn is not None:
                conn.owes = True
                self._send_on(conn, piece.data)
                if piece.is_last and piece.to in self._connections:
                    self._finish(conn)

    def _answered(self, conn: Any, fs: Future[Any]) -> None:
        endless: Endless | None = conn.sock.endless
        if endless is None:
            super()._answered(conn, fs)
            return
        if fs.cancelled() or fs.exception() or conn.sock.fileno() < 0:
            endless.ended()
            super()._answered(conn, fs)
            return
        conn.sock.setblocking(False)
        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KEPT_BYTES)
        with suppress(OSError):  # a unix socket has no such thing
            conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, LOST_SECONDS * 1000)
        conn.writes, conn.owes = False, True
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._stirs, conn))
        self._connections[endless] = conn
        conn.moved_at = time.monotonic()
        conn.timeout = conn.moved_at + endless.every
        self._beating.append(conn)
        if not self.alive:
            self._send_on(conn, endless.farewell)
            self._finish(conn)
            return
        endless.begin(self.tell)
        self._send_on(conn, b"")

    def _send_on(self, conn: Any, data: bytes) -> None:
        """Send what can be sent without waiting; the rest goes when the client takes it."""
        waiting = len(conn.sock.unsent)
        try:
            conn.sock.sendall(data)
        except OSError:
            self._drop(conn)
            return
        left = len(conn.sock.unsent)
        if not left or left < waiting + len(data):
            conn.moved_at = time.monotonic()
        if bool(left) != conn.writes:
            conn.writes = bool(left)
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if left else 0)
            self.poller.modify(conn.sock, events, partial(self._stirs, conn))
        if conn.owes and not left:
            conn.owes = False
            conn.sock.endless.drained()

    def _stirs(self, conn: Any, client: Sender) -> None:
        """The client takes more, is gone, or says something, which nobody asked for."""
        if client.endless not in self._connections:
            return  # it was ended a moment ago, with what the main loop had been woken for as well
        try:
            is_gone = not client.recv(_PIECE)
        except BlockingIOError:
            is_gone = False
        except OSError:
            is_gone = True
        if is_gone:
            self._drop(conn)
        elif conn.writes:
            self._send_on(conn, b"")

    def murder_pending(self) -> None:
        """Each second or more often: heartbeats, and the end of those who take nothing."""
        super().murder_pending()
        now = time.monotonic()
        while self._beating and self._beating[0].timeout <= now:
            conn = self._beating.popleft()
            endless: Endless = conn.sock.endless
            conn.timeout = now + endless.every
            self._beating.append(conn)
            if not conn.writes:
                self._send_on(conn, endless.heartbeat())
            elif now - conn.moved_at > ANSWER_SECONDS:
                self._drop(conn)

    def _cap_keepalive(self, deadline: float) -> None:
        """At the worker's end: they come again, to another one."""
        for endless, conn in list(self._connections.items()):
            self._send_on(conn, endless.farewell)
            if endless in self._connections:
                self._finish(conn)
        super()._cap_keepalive(deadline)

    def _finish(self, conn: Any) -> None:
        """Say that nothing more comes, and wait a little until the client has seen it."""
        self._forget(conn)
        self._linger(conn)

    def _drop(self, conn: Any) -> None:
        self._forget(conn)
        self.nr_conns -= 1
        conn.close()

    def _forget(self, conn: Any) -> None:
        endless: Endless = conn.sock.endless
        del self._connections[endless]
        self._beating.remove(conn)
        self.poller.unregister(conn.sock)
        endless.ended()
