"""A wire between a client and a server that a test may cut, stop, and listen to."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self


class Wire:
    """Passes bytes on to a port of this machine, each way in a thread, as a context manager.

    `cut_up` and `cut_down`: after so many bytes to the server, or from it, all in all, both sides of that connection
    are reset, once; with `dies` nobody is let in any more then. `stop_up`: after so many nothing more is passed on to
    the server, and nobody is told.
    """

    def __init__(
        self, port: int, *, cut_up: int = 0, cut_down: int = 0, stop_up: int = 0, dies: bool = False
    ) -> None:
        self._target = ("127.0.0.1", port)
        self._limits = {"up": cut_up, "down": cut_down}
        self._stop_up = stop_up
        self._dies = dies
        self._passed = {"up": 0, "down": 0}
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.stopped = threading.Event()
        """Set when nothing more is passed on."""
        self.cuts = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for end in self._open:
            _reset(end)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._dies and self.cuts:
                    _reset(client)
                    continue
                server = socket.create_connection(self._target)
                self._open += [client, server]
                for way in (("up", client, server), ("down", server, client)):
                    threading.Thread(target=self._pass_on, args=way, daemon=True).start()

    def _pass_on(self, way: str, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(64 * 1024):
                if self._is_to_stop(way, len(data)):
                    self.stopped.set()
                    return
                if self._is_to_be_cut(way):
                    break
                target.sendall(data)
            else:
                target.shutdown(socket.SHUT_WR)
                return
        _reset(source)
        _reset(target)

    def _is_to_stop(self, way: str, more: int) -> bool:
        with self._lock:
            self._passed[way] += more
            return way == "up" and 0 < self._stop_up < self._passed[way]

    def _is_to_be_cut(self, way: str) -> bool:
        with self._lock:
            if not 0 < self._limits[way] < self._passed[way]:
                return False
            self._limits[way] = 0
            self.cuts += 1
            return True


def _reset(end: socket.socket) -> None:
    """At once, also where another thread waits for bytes from there: that one holds the connection open else."""
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        end.shutdown(socket.SHUT_RDWR)
    end.close()
