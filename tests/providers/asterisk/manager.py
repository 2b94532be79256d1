"""The tests' own few lines of AMI, so that what is proved about Asterisk does not rest on the client that is tested."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from types import TracebackType

from tests.ground import BUSY
from tests.providers.asterisk.server import AsteriskServer

Message = dict[str, str]


class Manager:
    """One connection; `log` has every message that came, oldest first."""

    def __init__(self, server: AsteriskServer, user: str = "") -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=5)
        self._left = b""
        self.log: list[Message] = []
        self.ask("Login", ("Username", user or server.username), ("Secret", server.password))

    def __enter__(self) -> Manager:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def ask(self, action: str, *fields: tuple[str, str]) -> Message:
        """Send an action and return its Response; AssertionError unless it is a success."""
        mark = f"{action}-{time.monotonic_ns()}"
        self.tell(action, ("ActionID", mark), *fields)
        said = self.wait(lambda one: "Response" in one and one.get("ActionID") == mark)
        assert said["Response"] == "Success", said
        return said

    def tell(self, action: str, *fields: tuple[str, str]) -> None:
        lines = [f"{name}: {value}" for name, value in (("Action", action), *fields)]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())

    def wait(self, wanted: Callable[[Message], bool], timeout: float = 60.0) -> Message:
        """The first message, of those that came and those that come, that is wanted."""
        deadline = time.monotonic() + timeout * BUSY
        seen = 0
        while True:
            for message in self.log[seen:]:
                if wanted(message):
                    return message
            seen = len(self.log)
            self._read(deadline)

    def _read(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        assert left > 0, f"it did not come; the last that came: {self.log[-10:]}"
        self._socket.settimeout(left)
        try:
            got = self._socket.recv(65536)
        except TimeoutError:
            return
        assert got, "the connection was closed"
        *whole, self._left = (self._left + got).split(b"\r\n\r\n")
        self.log += [_parse(block.decode("utf-8", "replace")) for block in whole]


def _parse(block: str) -> Message:
    pairs = (line.partition(": ") for line in block.split("\r\n"))
    return {name: value for name, _, value in pairs}
