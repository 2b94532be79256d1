"""Syslogs of a test's own: they listen on this machine and keep what comes, line by line."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

RFC5424 = re.compile(
    r"<(?P<priority>[0-9]{1,3})>1 (?P<at>[0-9T:.-]+Z) (?P<host>\S+) faxbot-audit - - - (?P<text>.*)"
)
LOCAL = re.compile(
    r"<(?P<priority>[0-9]{1,3})>[A-Z][a-z]{2} [ 1-3][0-9] [0-9:]{8} faxbot-audit: (?P<text>.*)"
)


@dataclass
class Syslog:
    """One that listens at `address`; `messages` as they came."""

    address: str
    messages: list[str] = field(default_factory=list)

    def texts(self) -> list[str]:
        """What they say, behind a head that is as it must be."""
        form = LOCAL if self.address.startswith("/") else RFC5424
        return [self._read(form, each)["text"] for each in self.messages]

    def priorities(self) -> list[int]:
        form = LOCAL if self.address.startswith("/") else RFC5424
        return [int(self._read(form, each)["priority"]) for each in self.messages]

    @staticmethod
    def _read(form: re.Pattern[str], message: str) -> re.Match[str]:
        found = form.fullmatch(message)
        assert found is not None, message
        return found


@contextmanager
def datagrams(path: Path | None = None) -> Iterator[Syslog]:
    """Over UDP, or at the socket `path` as a machine's own."""
    kind = socket.AF_UNIX if path else socket.AF_INET
    with socket.socket(kind, socket.SOCK_DGRAM) as listening:
        listening.bind(str(path) if path else ("127.0.0.1", 0))
        address = str(path) if path else f"udp://127.0.0.1:{listening.getsockname()[1]}"
        syslog = Syslog(address)

        def listen() -> None:
            while (message := listening.recv(65536)) != b"end":
                syslog.messages.append(message.decode())

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield syslog
        finally:
            with socket.socket(kind, socket.SOCK_DGRAM) as ending:
                ending.sendto(b"end", listening.getsockname())
            thread.join(10)


@contextmanager
def stream(
    context: ssl.SSLContext | None = None,
    host: str = "127.0.0.1",
    heard: Callable[[Syslog, socket.socket], None] = lambda *_: None,
) -> Iterator[Syslog]:
    """Over TCP, or TLS with a `context`. `heard` is called before a connection ends on this side."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        scheme = "tls" if context else "tcp"
        syslog = Syslog(f"{scheme}://{host}:{listening.getsockname()[1]}")

        def serve(connection: socket.socket) -> None:
            try:
                if context:
                    connection = context.wrap_socket(connection, server_side=True)
            except OSError:
                return
            with connection:
                text = b""
                with suppress(OSError):
                    while more := connection.recv(65536):
                        text += more
                        text = _unframed(text, syslog)
                heard(syslog, connection)

        def listen() -> None:
            with suppress(OSError):
                while True:
                    serve(listening.accept()[0])

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield syslog
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def _unframed(text: bytes, syslog: Syslog) -> bytes:
    """Take whole messages out, each behind its length (RFC 6587, 3.4.1); what is left."""
    while (head := re.match(rb"([0-9]+) ", text)) and len(text) >= head.end() + int(head[1]):
        end = head.end() + int(head[1])
        syslog.messages.append(text[head.end() : end].decode())
        text = text[end:]
    return text
