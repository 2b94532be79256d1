"""Questions to a child that show whether it works: asked without blocking, through the supervisor's selector."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

_LONGEST = 1024 * 1024
"""Bytes of an answer; more are not read."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Connect to `address` (host and port, or a unix socket), send `ask`: a child that works answers `expect`..., or,
    where it is read to its end, what is `wanted`."""

    address: tuple[str, int] | str
    ask: bytes
    expect: bytes = b""
    wanted: Callable[[bytes], bool] | None = None


class Question:
    """A Probe under way, without blocking; `answer` is None until it is decided."""

    def __init__(self, probe: Probe, selector: selectors.BaseSelector, within: float) -> None:
        self.answer: bool | None = None
        self._probe, self._selector = probe, selector
        self._until = time.monotonic() + within
        self._asked, self._read = False, b""
        self._socket = socket.socket(_family(probe.address), socket.SOCK_STREAM)
        self._socket.setblocking(False)
        selector.register(self._socket, selectors.EVENT_WRITE, self._go_on)
        try:
            self._socket.connect(probe.address)
        except BlockingIOError:
            pass
        except OSError:
            self.decide(False)

    def _go_on(self, _mask: int) -> None:
        try:
            if not self._asked:
                self._socket.sendall(self._probe.ask)
                self._asked = True
                self._selector.modify(self._socket, selectors.EVENT_READ, self._go_on)
                return
            data = self._socket.recv(4096)
        except OSError:
            self.decide(False)
            return
        self._read += data
        if self._probe.wanted is not None:
            if not data or len(self._read) > _LONGEST:
                self.decide(self._probe.wanted(self._read))
        elif not data or len(self._read) >= len(self._probe.expect):
            self.decide(self._read.startswith(self._probe.expect))

    def decide(self, answer: bool) -> None:
        """Settle it; the first answer stands."""
        if self.answer is None:
            self.answer = answer
            self._selector.unregister(self._socket)
            self._socket.close()

    def settled(self) -> bool:
        """Whether there is an answer; silence for too long is one."""
        if time.monotonic() > self._until:
            self.decide(False)
        return self.answer is not None


def _family(address: tuple[str, int] | str) -> socket.AddressFamily:
    if isinstance(address, str):
        return socket.AF_UNIX
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET
