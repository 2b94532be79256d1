"""What a connection may cost: no thread while a head is coming in, and a bounded wait while a body is.

A thread of gunicorn waits for whatever a client sends, as long as it goes on sending: a few sockets with a byte a
second each would be the end of the service. Here gunicorn's main loop, which waits for all connections at once,
collects the heads, sends what a client is slow to take, and reads away what nobody wants. A thread gets a request with
a whole head and waits for nothing but its body, within an allowance of time. One thread is kept for requests without a
body, so that /health answers whatever uploads do, and one more for bodies that come with a key to where one is asked
for: a wrong key is refused there before a byte of the body is waited for. Requests that must wait for a thread are few
and wait briefly; the others are told to come again. Uploads with good keys can still fill all threads for bodies.
"""

from __future__ import annotations

import io
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from gunicorn.http.body import ChunkedReader
from gunicorn.http.errors import LimitRequestHeaders, ParseException, UnsupportedTransferCoding
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, ThreadWorker


class Allowance(NamedTuple):
    """How long a body may let us wait: `seconds` altogether; what arrives earns more, `rate` bytes a second."""

    seconds: float
    rate: float


STRANGER = Allowance(10, 64 * 1024)
"""For a request that has shown no key: a carrier's callback, from one computing centre to another."""
KNOWN = Allowance(30, 8 * 1024)
"""For a request with a good key. A slow DSL line sends 12 KB a second (128 kbit/s): 20 MB take half an hour."""
_NOTHING = Allowance(0, 1)
HEAD_SECONDS = 10.0
"""A connection has so long to send a request's whole head."""
HEAD_BYTES = 32 * 1024
ANSWER_SECONDS = 30.0
"""A client has so long to take an answer."""
LINGER_SECONDS = 30.0
"""A client that sends first and reads later must not lose its answer (RFC 9112 section 9.6): what comes behind a
refusal is read away for so long."""
BROKEN = (OSError, ParseException)
"""What reading a body raises when its client is gone, too slow or frames it wrongly; NoMoreData is an OSError."""
_PIECE = 64 * 1024
_OPEN = (b"callback", b"-inbound", b"/_internal/")
"""Where bodies are read from anybody. Anywhere in an address, since there is more than one way to write a path."""
_QUEUE_PART, _LONGEST_QUEUE = 8, 125
"""Of a worker's connections this part may wait for a thread with a body, for each of the two kinds; and at most so
many, for there may be others that never want one."""


class Crowded(ParseException):
    """Too many requests wait for a thread, or one did for too long."""


def trust(environ: Mapping[str, Any]) -> None:
    """Let a client who showed a good key take longer with its body."""
    allow = getattr(environ["wsgi.input"], "allow", None)  # the test client's body has none
    if allow is not None:
        allow(KNOWN)


class Reader(SocketUnreader):
    """What a connection sends. take_in() collects a head and never waits; a body is waited for within allow()."""

    ended = False
    has_body = False
    shows_key = False
    """Whether a key or a session comes with it, to where one is asked for; whether it is a good one shows later."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._allowance: Allowance | None = None
        self._left = 0.0

    def take_in(self) -> bool:
        """Whether the head is whole, or longer than heads may be, with what has arrived by now."""
        self._allowance = None
        if self._is_whole():
            return True
        if not self.ended:
            try:
                data = self.sock.recv(_PIECE)
            except BlockingIOError:
                return False
            except OSError:
                data = b""
            self.ended = not data
            self.buf.seek(0, io.SEEK_END)
            self.buf.write(data)
        return self._is_whole()

    def _is_whole(self) -> bool:
        data = self.buf.getvalue()
        end = data.find(b"\r\n\r\n")
        if end < 0:  # with line ends that are none gunicorn refuses it
            return b"\n\n" in data or len(data) > HEAD_BYTES
        head = data[:end].lower()
        self.has_body = b"\ncontent-length:" in head or b"\ntransfer-encoding:" in head
        address = unquote_to_bytes(head.lstrip().partition(b"\r\n")[0]).lower()
        self.shows_key = not any(word in address for word in _OPEN) and (
            b"\nx-api-key:" in head or b"\nauthorization:" in head or b"\ncookie:" in head
        )
        return True

    def allow(self, allowance: Allowance) -> None:
        """Begin to wait for a body."""
        self._allowance, self._left = allowance, allowance.seconds

    def chunk(self, size_hint: int | None = None) -> bytes:
        """One read from the socket, for gunicorn's parsers; raises OSError when the allowance is used up."""
        if self._allowance is None:
            raise LimitRequestHeaders("no end of the head")
        self.sock.settimeout(max(self._left, 0))
        began = time.monotonic()
        try:
            data: bytes = super().chunk(size_hint)
        finally:
            self._left -= time.monotonic() - began
            self.sock.setblocking(True)
        earned = self._left + len(data) / self._allowance.rate
        self._left = min(earned, self._allowance.seconds)
        return data


class Sender(socket.socket):
    """A connection whose sendall() keeps for flush() what cannot be sent at once, and what is to go with the next."""

    unsent = b""
    keeps = False
    """Whether what sendall() is given goes with what comes next: a head and a short body are one packet then."""
    endless: Any = None
    """What goes on where the answer ends (web.endless)."""

    def sendall(self, data: Any, flags: int = 0, /) -> None:  # noqa: ARG002 - socket's signature
        self.unsent += data
        if not self.keeps:
            self.flush()

    def flush(self) -> bool:
        """Send what can be sent without waiting; whether that was all. Raises OSError."""
        with suppress(BlockingIOError):
            self.unsent = self.unsent[self.send(self.unsent, socket.MSG_DONTWAIT) :]
        return not self.unsent


def paced(environ: Mapping[str, Any], pieces: Iterable[str]) -> Iterator[str]:
    """The same pieces, each made when the one before has gone out, so that an answer of any length takes the memory of
    one. It holds a thread; raises TimeoutError for a client that takes nothing for ANSWER_SECONDS."""
    client = environ.get("gunicorn.socket")  # the test client has none
    for piece in pieces:
        yield piece
        while isinstance(client, Sender) and not client.flush():
            with selectors.DefaultSelector() as writable:
                writable.register(client, selectors.EVENT_WRITE)
                if not writable.select(ANSWER_SECONDS):
                    raise TimeoutError


class Invited:
    """A body that its client sends when it is asked to (Expect: 100-continue): the first read asks."""

    def __init__(self, reader: Any, sock: socket.socket) -> None:
        self._reader, self._sock = reader, sock
        self.is_asked = False

    def read(self, size: int) -> bytes:
        if not self.is_asked:
            self.is_asked = True
            self._sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        data: bytes = self._reader.read(size)
        return data


class PatientWorker(ThreadWorker):
    """gunicorn's threaded worker; the methods are its own, called from its main loop or, where it says so, a thread."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # By whether they show a key: how many bodies may have a thread, and who waits for one, the oldest first.
        self._most = {True: max(1, self.cfg.threads - 1), False: max(1, self.cfg.threads - 2)}
        self._queued: dict[bool, deque[Any]] = {True: deque(), False: deque()}
        part = self.cfg.worker_connections // _QUEUE_PART
        self._longest_queue = max(1, min(part, _LONGEST_QUEUE))
        self._bodies = 0
        self._strangers = 0
        self._sending: deque[Any] = deque()
        self._lingering: deque[Any] = deque()

    def enqueue_req(self, conn: Any) -> None:
        """Something may have arrived: a whole head goes to a thread, for the rest of one the main loop waits."""
        if not conn.initialized:
            raw = conn.sock
            conn.sock = Sender(raw.family, raw.type, raw.proto, fileno=raw.detach())
            conn.init()
            conn.parser.unreader = Reader(conn.sock)
        # Also where a thread has just answered, and the next head has begun already.
        conn.sock.setblocking(False)
        reader: Reader = conn.parser.unreader
        if reader.take_in():
            self._start(conn)
        elif reader.ended:
            self.nr_conns -= 1
            conn.close()
        else:
            conn.timeout = self._in(HEAD_SECONDS)
            self._await(conn, self.pending_conns, self.on_pending_socket_readable)

    def on_pending_socket_readable(self, conn: Any, client: socket.socket) -> None:
        if conn.parser.unreader.take_in() or conn.parser.unreader.ended:
            super().on_pending_socket_readable(conn, client)

    def _start(self, conn: Any) -> None:
        reader: Reader = conn.parser.unreader
        conn.has_body, conn.is_stranger = reader.has_body, reader.has_body and not reader.shows_key
        if conn.has_body and not self._has_room(reader.shows_key):
            self._queue(conn, shows_key=reader.shows_key)
            return
        self._bodies += conn.has_body
        self._strangers += conn.is_stranger
        super().enqueue_req(conn)

    def _queue(self, conn: Any, *, shows_key: bool) -> None:
        queue = self._queued[shows_key]
        if len(queue) >= self._longest_queue:
            self._turn_away(conn)
        else:
            conn.queued_at = time.monotonic()
            conn.timeout = self._in((KNOWN if shows_key else STRANGER).seconds)
            queue.append(conn)

    def _turn_away(self, conn: Any) -> None:
        """Answer without a thread that it is too much just now. Of those who send on, only so many are listened to."""
        self.handle_error(None, conn.sock, conn.client, Crowded())
        if len(self._lingering) < self._longest_queue:
            self._linger(conn)
        else:
            self.nr_conns -= 1
            conn.close()

    def _has_room(self, shows_key: bool) -> bool:
        """For one more body; strangers leave room for those with a key, and both for requests without a body."""
        return self._bodies < self._most[True] and (
            shows_key or self._strangers < self._most[False]
        )

    def finish_request(self, conn: Any, fs: Future[Any]) -> None:
        """A thread is done: the next one may use it, and the connection is served on."""
        self._bodies -= conn.has_body
        self._strangers -= conn.is_stranger
        self._serve_queued()
        self._answered(conn, fs)

    def _answered(self, conn: Any, fs: Future[Any]) -> None:
        if conn.sock.unsent and conn.sock.fileno() >= 0:
            conn.sock.setblocking(False)
            conn.timeout = time.monotonic() + ANSWER_SECONDS
            self._await(conn, self._sending, partial(self._send, fs), selectors.EVENT_WRITE)
        else:
            self._go_on(conn, fs)

    def _serve_queued(self) -> None:
        """Start those there is room for, who waits the longest first: neither kind can keep the other waiting for
        ever."""
        while ready := [
            queue
            for shows_key, queue in self._queued.items()
            if queue and self._has_room(shows_key)
        ]:
            self._start(min(ready, key=lambda queue: queue[0].queued_at).popleft())

    def _send(self, fs: Future[Any], conn: Any, client: Sender) -> None:
        try:
            if not client.flush():
                return
        except OSError:
            self._end(conn, self._sending)
            return
        self._sending.remove(conn)
        self.poller.unregister(client)
        self._go_on(conn, fs)

    def _go_on(self, conn: Any, fs: Future[Any]) -> None:
        """After the answer: gunicorn keeps the connection, or it is closed."""
        if fs.cancelled() or fs.exception() or fs.result():
            super().finish_request(conn, fs)
        else:
            self._linger(conn)

    def _linger(self, conn: Any) -> None:
        """Say that nothing more comes, and read away what still does; gunicorn would stop its main loop for it."""
        conn.timeout = self._in(LINGER_SECONDS)
        try:
            conn.sock.setblocking(False)
            conn.sock.shutdown(socket.SHUT_WR)
            self._await(conn, self._lingering, self._discard)
        except OSError:
            self.nr_conns -= 1
            conn.close()

    def _discard(self, conn: Any, client: socket.socket) -> None:
        try:
            if client.recv(_PIECE):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._end(conn, self._lingering)

    def _in(self, seconds: float) -> float:
        """When so long is over; a worker that stops has less time."""
        return time.monotonic() + (seconds if self.alive else STOP_KEEPALIVE_LINGER)

    def _await(
        self,
        conn: Any,
        among: deque[Any],
        ready: Callable[[Any, Any], None],
        event: int = selectors.EVENT_READ,
    ) -> None:
        """Have the main loop call `ready` when the connection is, or close it after its timeout."""
        self.poller.register(conn.sock, event, partial(ready, conn))
        among.append(conn)

    def _end(self, conn: Any, among: deque[Any]) -> None:
        among.remove(conn)
        self.poller.unregister(conn.sock)
        self.nr_conns -= 1
        conn.close()

    def murder_pending(self) -> None:
        """Each second or more often: close what took too long."""
        super().murder_pending()
        for queue in self._queued.values():
            while queue and queue[0].timeout < time.monotonic():
                self._turn_away(queue.popleft())
        for among in (self._sending, self._lingering):
            while among and among[0].timeout < time.monotonic():
                self._end(among[0], among)

    def _cap_keepalive(self, deadline: float) -> None:
        """At the worker's end nobody without a request under way is waited for, nor strangers without a thread."""
        super()._cap_keepalive(deadline)
        for conn in (*self.pending_conns, *self._lingering, *self._queued[False]):
            conn.timeout = min(conn.timeout, deadline)

    def handle_request(self, req: Any, conn: Any) -> bool:
        """In a thread. Raises UnsupportedTransferCoding for a body that is packed in another way than in chunks."""
        body = req.body
        if isinstance(body.reader, ChunkedReader) and any(
            name == "TRANSFER-ENCODING" and value.lower() != "chunked"
            for name, value in req.headers
        ):
            raise UnsupportedTransferCoding("only chunked")
        body.allow = conn.parser.unreader.allow
        body.allow(STRANGER)
        if req._expected_100_continue:  # noqa: SLF001 - else gunicorn asks for the body before anybody is known
            req._expected_100_continue = False  # noqa: SLF001
            body.reader = Invited(body.reader, conn.sock)
        return bool(super().handle_request(req, conn))

    def _keepalive_after(self, conn: Any, keepalive: bool) -> bool:
        """In a thread: whether the connection can be used again. Of a body that nobody read, what has arrived is
        taken away; for the rest nobody waits."""
        body = conn.parser.mesg.body
        if not keepalive or (isinstance(body.reader, Invited) and not body.reader.is_asked):
            return False
        body.allow(_NOTHING)
        try:
            return bool(conn.parser.finish_body(max_bytes=_PIECE))
        except BROKEN:
            return False
