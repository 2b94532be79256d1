"""Servers on raw sockets that behave as a test says, well or badly: what carriers' servers do on
their worst days."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
Behaviour = Callable[[socket.socket, "Server"], None]


class Server:
    """A server on a raw socket that behaves as told on each connection, and remembers what it was
    sent."""

    def __init__(
        self,
        behave: Behaviour,
        tls: ssl.SSLContext | None = None,
        address: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.done = threading.Event()
        self._behave = behave
        self._tls = tls
        self._listener = socket.create_server(address)
        self._host: str = self._listener.getsockname()[0]
        self.port: int = self._listener.getsockname()[1]
        self._handlers: list[tuple[threading.Thread, socket.socket]] = []
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self._host}:{self.port}"

    def close(self) -> None:
        self.done.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for handler, connection in self._handlers:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            handler.join()

    def read(self, connection: socket.socket) -> bytes:
        """One whole request; b"" when the client has gone."""
        data = b""
        while b"\r\n\r\n" not in data:
            if not (piece := connection.recv(65536)):
                return b""
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        lengths = [
            line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
        ]
        while lengths and len(body) < int(lengths[0].split(b":")[1]):
            body += connection.recv(65536)
        self.requests.append(head + b"\r\n\r\n" + body)
        return self.requests[-1]

    def _accept(self) -> None:
        while not self.done.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            handler = threading.Thread(target=self._handle, args=(connection,))
            handler.start()
            self._handlers.append((handler, connection))

    def _handle(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(20)
            if self._tls is None:
                self._behave(connection, self)
            else:
                with self._tls.wrap_socket(connection, server_side=True) as secured:
                    self._behave(secured, self)


def answering(*answers: bytes) -> Behaviour:
    """Answers the requests of a connection in turn, the last answer for ever."""

    def behave(connection: socket.socket, server: Server) -> None:
        turn = 0
        while server.read(connection):
            connection.sendall(answers[min(turn, len(answers) - 1)])
            turn += 1

    return behave


def hanging_up(connection: socket.socket, server: Server) -> None:
    """Reads the request and closes."""
    server.read(connection)


def silent(connection: socket.socket, server: Server) -> None:
    server.read(connection)
    server.done.wait(20)


def saying(text: bytes) -> Behaviour:
    """Reads the request, says this much, and closes."""

    def behave(connection: socket.socket, server: Server) -> None:
        server.read(connection)
        connection.sendall(text)

    return behave


def resetting(connection: socket.socket, server: Server) -> None:
    server.read(connection)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")


def dripping(connection: socket.socket, server: Server) -> None:
    """Sends its head one byte at a time, for ever."""
    server.read(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Drip: ")
    while not server.done.wait(0.05):
        connection.sendall(b"x")


@contextmanager
def black_hole(address: str, port: int) -> Iterator[socket.socket]:
    """An address of this machine at which nothing answers: the queue of this listener is full."""
    made = [socket.create_server((address, port), backlog=0)]
    try:
        for _ in range(4):
            made.append(filler := socket.socket())
            filler.setblocking(False)
            filler.connect_ex(made[0].getsockname())
        yield made[0]
    finally:
        for each in made:
            each.close()
