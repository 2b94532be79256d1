"""An HTTP/1.1 client for load: many keep-alive connections, one thread, one selector.

Built on raw sockets because the client shares the cores with what it measures: about 0.1 ms per request.
It knows just enough HTTP for a faxbot: answers carry Content-Length, requests are bytes made beforehand.
"""

from __future__ import annotations

import json
import selectors
import socket
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

REQUEST_SECONDS = 60.0
"""A request without an answer for so long is given up: one hung connection must not hang a run."""
TRIES = 3


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens."""

    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Address:
        """From http://host:port; raises ValueError for anything else."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"{url} is not an http://host:port address")
        return cls(parts.hostname, parts.port or 80)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Request:
    """One request as the bytes to be written; `number` comes back with its reply."""

    number: int
    data: bytes


@dataclass(slots=True)
class Reply:
    """What became of one request. Times are seconds of the epoch; `status` 0 means no answer at all."""

    number: int
    due_at: float
    """When it should have started: a late start counts as waiting, so that a stall is not left out."""
    done_at: float = 0.0
    status: int = 0
    body: bytes = b""
    tries: int = 0

    @property
    def seconds(self) -> float:
        return self.done_at - self.due_at

    def json(self) -> Any:
        return json.loads(self.body)


def http_request(
    address: Address,
    method: str,
    path: str,
    *,
    headers: Iterable[tuple[str, str]] = (),
    body: bytes = b"",
) -> bytes:
    """The bytes of one request."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {address}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


class _Connection:
    """One keep-alive connection with at most one request on it."""

    def __init__(self, address: Address, selector: selectors.BaseSelector) -> None:
        self.address = address
        self.selector = selector
        self.socket: socket.socket | None = None
        self.request: Request | None = None
        self.reply: Reply | None = None
        self.unsent = memoryview(b"")
        self.received = bytearray()
        self.begun_at = 0.0

    def begin(self, request: Request, due_at: float) -> None:
        self.request = request
        self.reply = Reply(request.number, due_at)
        self.attempt()

    def attempt(self) -> None:
        """Write the request, on a new connection if there is none."""
        assert self.request is not None
        assert self.reply is not None
        self.reply.tries += 1
        self.begun_at = time.time()
        self.unsent = memoryview(self.request.data)
        self.received.clear()
        if self.socket is None:
            self.socket = socket.create_connection((self.address.host, self.address.port), 10)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket.setblocking(False)
            self.selector.register(self.socket, selectors.EVENT_READ, self)
        self.write()

    def write(self) -> None:
        assert self.socket is not None
        try:
            while self.unsent:
                self.unsent = self.unsent[self.socket.send(self.unsent) :]
        except BlockingIOError:
            both = selectors.EVENT_READ | selectors.EVENT_WRITE
            self.selector.modify(self.socket, both, self)
            return
        if self.selector.get_key(self.socket).events != selectors.EVENT_READ:
            self.selector.modify(self.socket, selectors.EVENT_READ, self)

    def read(self) -> bool:
        """Take what came; True when the reply is complete. Raises ConnectionError when the server closed."""
        assert self.socket is not None
        assert self.reply is not None
        chunk = self.socket.recv(1 << 16)
        if not chunk:
            raise ConnectionResetError("closed by the server")
        self.received += chunk
        head_end = self.received.find(b"\r\n\r\n")
        if head_end < 0:
            return False
        head = bytes(self.received[:head_end])
        end = head_end + 4 + _content_length(head)
        if len(self.received) < end:
            return False
        self.reply.done_at = time.time()
        self.reply.status = int(head[9:12])
        self.reply.body = bytes(self.received[head_end + 4 : end])
        if self.unsent or b"connection: close" in head.lower():
            self.close()
        return True

    def lost(self) -> bool:
        """The connection broke: True when the request is given up, else it is on its way again.

        A repeat carries the same Idempotency-Key, so it can never make a second fax.
        """
        assert self.reply is not None
        self.close()
        while self.reply.tries < TRIES:
            try:
                self.attempt()
                return False
            except OSError:
                self.close()
        self.reply.done_at = time.time()
        return True

    def close(self) -> None:
        if self.socket is not None:
            self.selector.unregister(self.socket)
            self.socket.close()
            self.socket = None


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise ValueError("an answer without Content-Length: not a server this client can measure")


@dataclass(frozen=True, slots=True)
class Pace:
    """How requests follow each other: as fast as replies come, or `rate` per second whatever comes."""

    connections: int
    seconds: float | None = None
    """Start no request later than this after the first."""
    rate: float | None = None


class _Schedule:
    """Which request is due, and when."""

    def __init__(self, requests: Iterator[Request], pace: Pace) -> None:
        self.requests = requests
        self.pace = pace
        self.begun_at = time.time()
        self.started = 0
        self.over = False

    def due_at(self, now: float) -> float:
        if self.pace.rate is None:
            return now
        return self.begun_at + self.started / self.pace.rate

    def take(self, now: float) -> tuple[Request, float] | None:
        """The next request and its due time, or None when none is due at `now`."""
        due_at = self.due_at(now)
        if self.over or due_at > now:
            return None
        if self.pace.seconds is not None and due_at - self.begun_at >= self.pace.seconds:
            self.over = True
            return None
        request = next(self.requests, None)
        if request is None:
            self.over = True
            return None
        self.started += 1
        return request, due_at


def drive(address: Address, requests: Iterator[Request], pace: Pace) -> list[Reply]:
    """Send `requests` over `pace.connections` connections and return every reply, in order of arrival.

    A connection is made when it is first needed and kept.
    """
    selector = selectors.DefaultSelector()
    connections = [_Connection(address, selector) for _ in range(pace.connections)]
    idle = deque(connections)
    schedule = _Schedule(requests, pace)
    replies: list[Reply] = []
    try:
        while True:
            _start_what_is_due(schedule, idle, replies)
            if schedule.over and len(idle) == len(connections):
                return replies
            for connection in _ready(selector, schedule, idle):
                _finish(connection, idle, replies)
            _give_up_the_hung(connections, idle, replies)
    finally:
        for connection in connections:
            connection.close()
        selector.close()


def _start_what_is_due(schedule: _Schedule, idle: deque[_Connection], replies: list[Reply]) -> None:
    while idle:
        taken = schedule.take(time.time())
        if taken is None:
            return
        connection = idle.popleft()
        try:
            connection.begin(*taken)
        except OSError:
            if connection.lost():
                _finish(connection, idle, replies)


def _ready(
    selector: selectors.BaseSelector, schedule: _Schedule, idle: deque[_Connection]
) -> list[_Connection]:
    """Connections whose request ended, once there are any or something new is due."""
    wait = 1.0
    if idle and not schedule.over:
        now = time.time()
        wait = min(wait, max(0.0, schedule.due_at(now) - now))
    ended = []
    for key, events in selector.select(wait):
        connection: _Connection = key.data
        if connection.request is None:
            connection.close()  # an idle connection becomes readable only when the server closes it
        elif _advance(connection, events):
            ended.append(connection)
    return ended


def _advance(connection: _Connection, events: int) -> bool:
    try:
        if events & selectors.EVENT_WRITE:
            connection.write()
        return bool(events & selectors.EVENT_READ) and connection.read()
    except OSError:
        return connection.lost()


def _finish(connection: _Connection, idle: deque[_Connection], replies: list[Reply]) -> None:
    assert connection.reply is not None
    replies.append(connection.reply)
    connection.request = connection.reply = None
    idle.append(connection)


def _give_up_the_hung(
    connections: list[_Connection], idle: deque[_Connection], replies: list[Reply]
) -> None:
    oldest = time.time() - REQUEST_SECONDS
    for connection in connections:
        if connection.request is not None and connection.begun_at < oldest:
            assert connection.reply is not None
            connection.close()
            connection.reply.done_at = time.time()
            _finish(connection, idle, replies)
