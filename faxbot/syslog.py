"""How lines reach a syslog: the machine's own by its socket, another machine's over UDP, TCP or TLS."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

TIMEOUT = 3.0
"""Seconds for which a connection, a write, or the end of a connection is waited for."""
MOMENT = 0.2
"""Seconds within which who does not want us says so."""
LONGEST = 10.0
"""Seconds for all of it, but for finding the host's address."""
_AUDIT = 13 * 8
"""The facility "log audit" (RFC 5424, 6.2.1)."""
WARNING, NOTICE = 4, 5
"""Severities (RFC 5424, 6.2.1)."""
_TAG = "faxbot-audit"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of ASCII, with what syslog wants to know of it."""

    severity: int
    at: datetime
    """Aware."""
    text: str


def send(address: str, entries: Sequence[Entry]) -> None:
    """Send these to the syslog at `address` (forms.SYSLOG) within LONGEST; raises OSError and ValueError, and then some
    of them may have arrived.

    Over TCP and TLS who reads is asked to end the connection, so that one that breaks off, or ended it before, is
    noticed. Over UDP nobody says whether anything arrives.
    """
    parts, until = urlsplit(address), time.monotonic() + LONGEST
    if not parts.scheme:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            _wait(connection, until)
            connection.connect(address)
            _send_each(connection, [_as_local(entry) for entry in entries], until)
        return
    host, messages = str(parts.hostname), [_as_rfc5424(entry) for entry in entries]
    if parts.scheme == "udp":
        _send_datagrams(host, parts.port or 514, messages, until)
    else:
        encrypted = parts.scheme == "tls"
        port = parts.port or (6514 if encrypted else 514)
        _send_stream(host, port, messages, until, encrypted=encrypted)


def _wait(connection: socket.socket, until: float, most: float = TIMEOUT) -> None:
    """Have what comes next wait `most` seconds, and no longer than `until`."""
    connection.settimeout(max(0.001, min(most, until - time.monotonic())))


def _send_each(connection: socket.socket, messages: Sequence[bytes], until: float) -> None:
    for message in messages:
        _wait(connection, until)
        connection.send(message)


def _send_datagrams(host: str, port: int, messages: Sequence[bytes], until: float) -> None:
    family, kind, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as connection:
        connection.connect(where)
        _send_each(connection, messages, until)
        if refused := connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(refused, os.strerror(refused))


def _send_stream(
    host: str, port: int, messages: Sequence[bytes], until: float, *, encrypted: bool
) -> None:
    # Each with its length before it (RFC 6587, 3.4.1; RFC 5425, 4.3).
    framed = b"".join(b"%d %b" % (len(message), message) for message in messages)
    with socket.create_connection((host, port), timeout=TIMEOUT) as plain:
        _wait(plain, until)
        if not encrypted:
            plain.sendall(framed)
            _must_be_open(plain)
            _wait(plain, until)
            plain.shutdown(socket.SHUT_WR)
            _read_to_end(plain, until)
            return
        with ssl.create_default_context().wrap_socket(plain, server_hostname=host) as connection:
            _wait(connection, until)
            connection.sendall(framed)
            _must_be_open(connection)
            _wait(connection, until)
            # Some end the connection below without a word, or never.
            with suppress(TimeoutError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
                connection.unwrap()


def _must_be_open(connection: socket.socket) -> None:
    """Raise OSError where the other side ends the connection before we do, or refuses us, as for a certificate that we
    did not show: it reads nothing. Servers say that a moment later."""
    connection.settimeout(MOMENT)
    with suppress(TimeoutError):
        if not connection.recv(1):
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))


def _read_to_end(connection: socket.socket, until: float) -> None:
    """Wait until the other side ends it, too: with unread lines it breaks off. Not every syslog does, which is no
    fault."""
    over = min(until, time.monotonic() + TIMEOUT)
    with suppress(TimeoutError):
        while time.monotonic() < over:
            _wait(connection, over)
            if not connection.recv(4096):
                return


def _as_rfc5424(entry: Entry) -> bytes:
    at = entry.at.isoformat(timespec="microseconds").replace("+00:00", "Z")
    head = f"<{_AUDIT + entry.severity}>1 {at} {socket.gethostname() or '-'} {_TAG} - - -"
    return f"{head} {entry.text}".encode("ascii")


def _as_local(entry: Entry) -> bytes:
    """As the C library writes to a machine's own socket (syslog(3)): local time, no host."""
    at = entry.at.astimezone()
    day = f"{_MONTHS[at.month - 1]} {at.day:2} {at:%H:%M:%S}"
    return f"<{_AUDIT + entry.severity}>{day} {_TAG}: {entry.text}".encode("ascii")


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
"""Whatever this machine's language is."""
