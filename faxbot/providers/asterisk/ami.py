"""Speaks to Asterisk's manager (AMI): one connection, flat messages, every wait and every length bounded.

Lines end with CR LF and a message with an empty line; an answer carries the ActionID of its question. (Asterisk
16 and 22, measured; docs.asterisk.org, "Asterisk Manager Interface (AMI)".)
"""

from __future__ import annotations

import hashlib
import itertools
import socket
import struct
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from faxbot.errors import AccountRefused, Unreachable

Message = Mapping[str, str]
"""The headers of one message; of one that is repeated, the first."""
Fields = Iterable[tuple[str, str]]

EOL, END = b"\r\n", b"\r\n\r\n"
GREETING = b"Asterisk Call Manager/"
LONGEST_GREETING = 256
LONGEST_MESSAGE = 128 * 1024
"""Bytes; the longest that is asked for, ListCommands, has 10 KB."""
MOST_WAITING = 4 * 1024 * 1024
"""Bytes of events that wait to be read."""


class Lost(Unreachable):
    """The connection to Asterisk is of no use any more."""


class Stopping(Unreachable):
    """Asterisk is asked to stop as soon as its calls are over. It takes no action any more, not even a login, and does
    nothing of what it was asked; events still come. (Asterisk 16 and 22, measured.)"""


class Declined(AccountRefused):
    """Asterisk did not do what it was asked to. `words` are its own, in lower case: to be compared, never shown."""

    def __init__(self, words: str) -> None:
        super().__init__("Asterisk refuses this action.", cause="config")
        self.words = words


@dataclass(frozen=True, slots=True)
class Login:
    """Whom to call and as whom; seconds to connect, and to wait for an answer."""

    host: str
    port: int
    username: str
    password: str = field(repr=False)
    connect_seconds: float = 5.0
    answer_seconds: float = 10.0


class Ami:
    """A connection after its login. Raises Lost where it breaks; it is not mended, but opened again."""

    def __init__(self, sock: socket.socket, answer_seconds: float) -> None:
        self._sock = sock
        self._patience = answer_seconds
        self._buffer = bytearray()
        self._searched = 0
        self._waiting: deque[tuple[Message, int]] = deque()
        self._weight = 0
        self._ids = itertools.count(1)
        self.uptime: int | None = None
        """Seconds for which Asterisk was up at the login; None where it is not fully booted, or its
        user may not read system events."""

    def action(self, name: str, fields: Fields = (), *, action_id: str = "") -> Message:
        """Ask, and return the answer. Raises Declined, Stopping, Lost, and ValueError for a line break in a value."""
        action_id = action_id or f"faxbot-{next(self._ids)}"
        self._send([("Action", name), ("ActionID", action_id), *fields])
        return self._answer(action_id, self._deadline())

    def listing(self, name: str, fields: Fields = (), *, last: str = "") -> list[Message]:
        """Ask, and return the events that are the answer, of a very long one the first (MOST_WAITING); the
        one named `last` ends it too."""
        action_id = f"faxbot-{next(self._ids)}"
        self._send([("Action", name), ("ActionID", action_id), *fields])
        deadline = self._deadline()
        self._answer(action_id, deadline)
        found: list[Message] = []
        room = MOST_WAITING
        while True:
            message, size = self._next(deadline)
            if message.get("ActionID") != action_id:
                self._keep(message, size)
                continue
            if message.get("EventList") == "Complete":
                return found
            room -= size
            if room >= 0:
                found.append(message)
            if message.get("Event") == last:
                return found

    def event(self, timeout: float) -> Message | None:
        """The next event; None where there is none within `timeout` seconds."""
        if self._waiting:
            message, size = self._waiting.popleft()
            self._weight -= size
            return message
        deadline = time.monotonic() + timeout
        try:
            while True:
                message, _ = self._read(deadline)
                if "Event" in message:
                    return message
        except TimeoutError:
            return None

    def abandon(self) -> None:
        """Have what Asterisk has not got yet discarded at close(): over a line that is cut the kernel would go on
        for minutes, and an action would be done long after it was given up."""
        with suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def close(self) -> None:
        """Say good-bye where that is possible at once, and let go of the connection."""
        with suppress(OSError):
            self._sock.settimeout(0.1)
            self._sock.sendall(b"Action: Logoff" + END)
        self._sock.close()

    def _greet(self, deadline: float) -> None:
        """Read the first line; raises Lost where it is not Asterisk's."""
        while EOL not in self._buffer and len(self._buffer) <= LONGEST_GREETING:
            self._fill_or_lose(deadline)
        line, _, rest = bytes(self._buffer).partition(EOL)
        if not line.startswith(GREETING):
            raise Lost("What answers there is not an Asterisk manager.")
        self._buffer = bytearray(rest)

    def log_in(self, username: str, password: str, events: str, deadline: float) -> None:
        """Hear the greeting by the deadline, and prove who we are, by challenge. Raises AccountRefused.

        We speak first: Asterisk lets ten connections wait for it, and of more that come at once the kernel forgets
        those that only listen (SYN cookies; of 30 at once one heard no greeting, measured)."""
        asked = f"faxbot-{next(self._ids)}"
        self._send([("Action", "Challenge"), ("ActionID", asked), ("AuthType", "MD5")])
        self._greet(deadline)
        try:
            challenge = self._answer(asked, self._deadline()).get("Challenge", "")
            proof = hashlib.md5((challenge + password).encode(), usedforsecurity=False).hexdigest()
            login = [("AuthType", "MD5"), ("Username", username), ("Key", proof)]
            self.action("Login", [*login, ("Events", events)])
        except Declined:
            raise AccountRefused(
                "Asterisk does not admit this manager user: check ASTERISK_AMI_USERNAME, "
                "ASTERISK_AMI_PASSWORD and the addresses that manager.conf permits.",
                cause="config",
            ) from None
        # FullyBooted follows the login's answer at once: whoever has the next answer has seen it.
        self.action("Ping")
        booted = [each for each, _ in self._waiting if each.get("Event") == "FullyBooted"]
        if booted:
            uptime = booted[-1].get("Uptime", "")
            # Below 0 where its clock was set back since it started.
            self.uptime = int(uptime[:9]) if uptime.isascii() and uptime.isdigit() else 0

    def _deadline(self) -> float:
        return time.monotonic() + self._patience

    def _send(self, fields: Fields) -> None:
        lines = [f"{_clean(name)}: {_clean(value)}" for name, value in fields]
        try:
            self._sock.settimeout(self._patience)
            self._sock.sendall("\r\n".join(lines).encode() + END)
        except OSError:
            raise Lost("The connection to Asterisk broke.") from None

    def _answer(self, action_id: str, deadline: float) -> Message:
        while True:
            message, size = self._next(deadline)
            if "Event" in message:
                self._keep(message, size)
            elif message.get("ActionID") == action_id and "Response" in message:
                if message["Response"] == "Error":
                    raise _refusal(message.get("Message", "").strip().lower())
                return message

    def _keep(self, message: Message, size: int) -> None:
        if "Event" not in message:
            return
        self._weight += size
        if self._weight > MOST_WAITING:
            raise Lost("Asterisk sends more events than can be taken.")
        self._waiting.append((message, size))

    def _next(self, deadline: float) -> tuple[Message, int]:
        try:
            return self._read(deadline)
        except TimeoutError:
            raise Lost("Asterisk did not answer in time.") from None

    def _read(self, deadline: float) -> tuple[Message, int]:
        """A message and its bytes; raises TimeoutError at the deadline, Lost for one that is too long."""
        while (end := self._buffer.find(END, max(0, self._searched - len(END)))) < 0:
            self._searched = len(self._buffer)
            if self._searched > LONGEST_MESSAGE:
                raise Lost("Asterisk's answer is too long.")
            self._fill(deadline)
        if time.monotonic() >= deadline:
            raise TimeoutError
        block = bytes(self._buffer[:end])
        del self._buffer[: end + len(END)]
        self._searched = 0
        return _parsed(block), len(block) + len(END)

    def _fill(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        try:
            self._sock.settimeout(left)
            data = self._sock.recv(65536)
        except TimeoutError:
            raise
        except OSError:
            raise Lost("The connection to Asterisk broke.") from None
        if not data:
            raise Lost("Asterisk closed the connection.")
        self._buffer += data

    def _fill_or_lose(self, deadline: float) -> None:
        try:
            self._fill(deadline)
        except TimeoutError:
            raise Lost("What answers there does not greet as an Asterisk manager does.") from None


@contextmanager
def connected(login: Login, events: str = "system") -> Iterator[Ami]:
    """A connection that is logged in, closed at the end. `events`: the classes to be told of, `on` for all that
    the user may read; `system` brings FullyBooted. Raises Lost, Stopping, and AccountRefused for a login that
    fails."""
    deadline = time.monotonic() + login.connect_seconds
    try:
        sock = socket.create_connection((login.host, login.port), timeout=login.connect_seconds)
    except OSError as error:
        raise Lost(f"Asterisk cannot be reached: {_why(error)}.") from None
    ami = Ami(sock, login.answer_seconds)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ami.log_in(login.username, login.password, events, deadline)
        yield ami
    finally:
        ami.close()


def _why(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "its name is not known"
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused"
    return "connecting took too long" if isinstance(error, TimeoutError) else "no connection"


def _refusal(words: str) -> Stopping | Declined:
    if "shutting down" in words:
        return Stopping("Asterisk is being stopped.")
    return Declined(words)


def _clean(text: str) -> str:
    """A line break in a value would begin a header, or an action."""
    if any(mark in text for mark in "\r\n\0"):
        raise ValueError("a line break in a header")
    return text


def _parsed(block: bytes) -> Message:
    found: dict[str, str] = {}
    for line in block.split(EOL):
        name, colon, value = line.decode("utf-8", "replace").partition(":")
        if colon:
            found.setdefault(name.strip(), value.strip())
    return found
