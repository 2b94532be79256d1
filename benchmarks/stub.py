"""A very small HTTP server for stand-ins: one asyncio loop, keep-alive, a handler from request to answer.

A stand-in shares the cores with what is measured, so it does no more than it must.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Call:
    """One request as it came; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def form(self) -> dict[str, bytes]:
        """The parts of a multipart/form-data body by name."""
        boundary = self.headers["content-type"].partition("boundary=")[2].strip('"').encode()
        parts = {}
        for part in self.body.split(b"--" + boundary)[1:-1]:
            head, _, value = part.partition(b"\r\n\r\n")
            name = head.partition(b'name="')[2].partition(b'"')[0].decode()
            parts[name] = value.removesuffix(b"\r\n")
        return parts


Answer = tuple[int, Any]
"""Status and what goes out as JSON; status 0 closes the connection without an answer, a negative one never answers."""
Handler = Callable[[Call], Answer]


def _call(head: bytes, body: bytes) -> Call:
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return Call(method, path, headers, body)


class _Connection(asyncio.Protocol):
    def __init__(self, handler: Handler, delay: float) -> None:
        self.handler = handler
        self.delay = delay
        self.received = bytearray()
        self.wanted = 0
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        while len(self.received) >= max(self.wanted, 1):
            head_end = self.received.find(b"\r\n\r\n")
            if head_end < 0:
                return
            head = bytes(self.received[:head_end])
            self.wanted = head_end + 4 + _length(head)
            if len(self.received) < self.wanted:
                return
            body = bytes(self.received[head_end + 4 : self.wanted])
            del self.received[: self.wanted]
            self.wanted = 0
            call = _call(head, body)
            if self.delay:
                asyncio.get_running_loop().call_later(self.delay, self._answer, call)
            else:
                self._answer(call)

    def _answer(self, call: Call) -> None:
        assert self.transport is not None
        status, content = self.handler(call)
        if status < 0:
            return
        if not status:
            self.transport.close()
            return
        body = json.dumps(content).encode()
        self.transport.write(
            f"HTTP/1.1 {status} Stub\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )


def _length(head: bytes) -> int:
    name = b"\r\ncontent-length:"
    start = head.lower().find(name)
    return int(head[start + len(name) :].split(b"\r\n", 1)[0]) if start >= 0 else 0


async def serve(port: int, handler: Handler, delay: float = 0.0) -> None:
    """Serve on 127.0.0.1 until SIGTERM, every request `delay` seconds after it came."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    server = await loop.create_server(lambda: _Connection(handler, delay), "127.0.0.1", port)
    async with server:
        await over.wait()
