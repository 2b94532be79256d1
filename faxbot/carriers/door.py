"""The front door of every stand-in carrier: HTTP/1.1 with kept connections, in a process that ends
cleanly on SIGTERM.

A carrier is a function from Request to Answer. An answer may also be none at all: the connection
drops.
"""

from __future__ import annotations

import json
import logging
import select
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from ipaddress import ip_address
from socketserver import TCPServer
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from werkzeug.formparser import MultiPartParser
from werkzeug.http import parse_options_header

MAX_BYTES = 32 * 1024 * 1024

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came; `headers` by lower-case name, of a repeated query parameter the first
    value, `local` where the caller is on this machine."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    local: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered: a mapping as JSON, bytes as they are, with no Content-Type but that of
    `headers`. `status` 0 answers nothing and drops the connection, after `hold` seconds or when the
    client has left. `then` runs once it is written."""

    status: int
    content: Mapping[str, Any] | bytes = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    then: Callable[[], None] | None = None
    hold: float = 0.0


Carrier = Callable[[Request], Answer]


def error(status: int, code: str, headers: Mapping[str, str] | None = None) -> Answer:
    """A refusal with the carrier's word for it."""
    return Answer(status, {"error": {"code": code}}, headers or {})


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a form that has a file name, which may be empty."""

    name: str
    filename: str
    media_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Form:
    """A multipart form: every field that is text (name, value) and every file, of one name in the
    order in which they came."""

    items: tuple[tuple[str, str], ...]
    parts: tuple[Part, ...]

    @property
    def fields(self) -> Mapping[str, str]:
        """Text by field name, of a repeated one the first."""
        return dict(reversed(self.items))

    @property
    def files(self) -> Mapping[str, bytes]:
        """Content by name of the part, of a repeated one the first."""
        return {part.name: part.content for part in reversed(self.parts)}


def read_form(request: Request) -> Form:
    """The multipart form in a request; raises ValueError where there is none."""
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get("boundary", "")
    if kind != "multipart/form-data" or not boundary or not boundary.isascii():
        raise ValueError("not multipart")
    size = len(request.body)
    # A buffer as large as the body: the parser searches a large part once, not once per buffer.
    parser = MultiPartParser(buffer_size=max(size, 64 * 1024), max_form_parts=100)
    fields, files = parser.parse(BytesIO(request.body), boundary.encode(), size)
    parts = []
    for name, file in files.items(multi=True):
        with closing(file):
            parts.append(Part(name, file.filename or "", file.mimetype, file.read()))
    return Form(tuple(fields.items(multi=True)), tuple(parts))


def serve(name: str, host: str, port: int, carrier: Carrier, ready: Callable[[], None]) -> None:
    """Answer requests until SIGTERM or SIGINT; to be called from the main thread.

    Once it listens it calls `ready` and prints one line with its address; port 0 takes a free one.
    Raises OSError where it cannot listen.
    """
    with _Server((host, port), carrier) as server:
        # A handler that raised could be swallowed, or come just before the wait for a request and be kept till its end.
        signal.signal(signal.SIGTERM, server.stop)
        signal.signal(signal.SIGINT, server.stop)
        ready()
        sys.stdout.write(f"{name} carrier: listening on http://{host}:{server.server_port}\n")
        sys.stdout.flush()
        with suppress(_Stopped):
            server.serve_forever(poll_interval=LOOK_EVERY)


LOOK_EVERY = 0.05  # seconds; whether it is to end


class _Stopped(Exception):
    """A signal asked the server to end."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], carrier: Carrier) -> None:
        self.carrier = carrier
        self._stopped = False
        super().__init__(address, _Connection)

    def stop(self, *_: object) -> None:
        """End soon; for signal handlers."""
        self._stopped = True

    def service_actions(self) -> None:
        """Called by serve_forever() after each wait."""
        if self._stopped:
            raise _Stopped

    def server_bind(self) -> None:
        """As HTTPServer does, without asking a name server what this machine is called."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "carrier", self.server_address[1]

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002
        """Name the fault only: its text could hold what a client sent."""
        kind = sys.exc_info()[0]
        logger.error("a connection ended with %s", kind.__name__ if kind else "a fault")


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60

    def do_GET(self) -> None:
        body = self._body()
        if isinstance(body, Answer):
            self._write(body, last=True)
            return
        parts = urlsplit(self.path)
        self._write(
            cast(_Server, self.server).carrier(
                Request(
                    self.command,
                    parts.path,
                    {name: values[0] for name, values in parse_qs(parts.query).items()},
                    {name.lower(): value for name, value in self.headers.items()},
                    body,
                    ip_address(self.client_address[0]).is_loopback,
                )
            )
        )

    do_POST = do_DELETE = do_GET  # noqa: N815 - the names http.server calls

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class has it
        """No access log: addresses hold tags."""

    def _body(self) -> bytes | Answer:
        """The request's body, or why it is not read."""
        length = self.headers.get("Content-Length", "0")
        if not (length.isascii() and length.isdigit()) or "Transfer-Encoding" in self.headers:
            return error(411, "length-missing")
        if len(length) > 12 or int(length) > MAX_BYTES:
            return error(413, "document-too-large")
        body = self.rfile.read(int(length))
        return body if len(body) == int(length) else error(400, "body-incomplete")

    def _write(self, answer: Answer, *, last: bool = False) -> None:
        self.close_connection = self.close_connection or last or answer.status == 0
        try:
            if answer.status:
                self.wfile.write(self._bytes(answer))
        finally:  # what was taken is taken, also from a client that has left
            if answer.then:
                answer.then()
        if answer.hold:
            select.select([self.connection], [], [], answer.hold)

    def _bytes(self, answer: Answer) -> bytes:
        """Head and body in one piece, so that they leave in one packet."""
        headers = dict(answer.headers)
        if isinstance(answer.content, bytes):
            body = answer.content
        else:
            body = json.dumps(answer.content).encode()
            headers = {"Content-Type": "application/json", **headers}
        headers["Content-Length"] = str(len(body))
        if self.close_connection:
            headers["Connection"] = "close"
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return (
            f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\n{lines}\r\n".encode()
            + body
        )
