"""A client of GET /events/stream over a real socket, which reads a stream as HTML, 9.2.6 has it, line by line."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self
from urllib.parse import urlencode

from tests.ground import BUSY
from tests.installation import Service


class Told(NamedTuple):
    """One event of a stream."""

    id: str
    type: str
    data: Any


class Silence(AssertionError):
    """Nothing came in time."""


@dataclass
class Ear:
    """Listens; `last_id` is what it would come again with."""

    socket: socket.socket
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    """Of an answer that is no stream."""
    last_id: str | None = None
    comments: list[str] = field(default_factory=list)
    retry: int | None = None
    has_ended: bool = False
    heard: bytearray = field(default_factory=bytearray)
    """All that came, as it came."""
    _buffer: bytes = b""
    _fields: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def take(self, count: int = 1, *, within: float = 15.0 * BUSY) -> list[Told]:
        """The next events, as many as `count`; raises Silence."""
        until, found = time.monotonic() + within, list[Told]()
        while len(found) < count:
            event = self._step(until)
            if event is not None:
                found.append(event)
        return found

    def until_comment(self, text: str, *, within: float = 15.0 * BUSY) -> list[Told]:
        """What comes before the next comment that holds `text`, with it; raises Silence."""
        until, found, known = time.monotonic() + within, list[Told](), len(self.comments)
        while not any(text in comment for comment in self.comments[known:]):
            event = self._step(until)
            found += [event] if event is not None else []
        return found

    def until_end(self, *, within: float = 15.0 * BUSY) -> list[Told]:
        """What comes before the server ends the stream; raises Silence."""
        until, found = time.monotonic() + within, list[Told]()
        while not self.has_ended:
            event = self._step(until)
            found += [event] if event is not None else []
        return found

    def _step(self, until: float) -> Told | None:
        line = self._line(until)
        if line is None:
            self.has_ended = True
            if until < time.monotonic():
                raise Silence
            return None
        name, colon, value = line.partition(":")
        value = value.removeprefix(" ")
        if line == "":
            said, self._fields = self._fields, {}
            self.last_id = said.get("id", self.last_id)
            if "data" in said:
                return Told(self.last_id or "", said.get("event", ""), json.loads(said["data"]))
        elif colon and not name:
            self.comments.append(value)
        elif name == "retry":
            self.retry = int(value)
        else:
            assert name in ("id", "event", "data"), line
            assert name not in self._fields, line
            self._fields[name] = value
        return None

    def _line(self, until: float) -> str | None:
        """None at the end of the connection."""
        while b"\n" not in self._buffer:
            self.socket.settimeout(max(until - time.monotonic(), 0.001))
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                raise Silence(f"nothing more came; last id {self.last_id}") from None
            except ConnectionError:
                data = b""
            if not data:
                return None
            self._buffer += data
            self.heard += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode().removesuffix("\r")

    def open(self, request: bytes) -> Self:
        """Ask; read the head, and the body of what is no stream."""
        self.socket.sendall(request)
        until = time.monotonic() + 15
        first = self._line(until)
        assert first is not None, "the connection was closed without an answer"
        self.status = int(first.split()[1])
        while line := self._line(until):
            name, _, value = line.partition(": ")
            self.headers[name.lower()] = value
        if self.headers.get("content-type", "").partition(";")[0] != "text/event-stream":
            length = int(self.headers.get("content-length", 0))
            while len(self._buffer) < length:
                self._buffer += self.socket.recv(65536)
            self.body = self._buffer
        return self


def listen(
    service: Service,
    *,
    key: str | None = None,
    headers: dict[str, str] | None = None,
    receive_buffer: int | None = None,
    method: str = "GET",
    **query: str,
) -> Ear:
    """Begin to listen; `key` is the service's own unless given ("": none)."""
    path = "/events/stream" + (f"?{urlencode(query)}" if query else "")
    lines = [f"{method} {path} HTTP/1.1", "Host: faxbot", "Accept: text/event-stream"]
    shown = service.key if key is None else key
    lines += [f"X-API-Key: {shown}"] if shown else []
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    connection = socket.socket()
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(15)
    try:
        connection.connect(("127.0.0.1", service.port))
        return Ear(connection).open("\r\n".join([*lines, "", ""]).encode())
    except BaseException:
        connection.close()
        raise
