"""How lines reach a syslog: the machine's own by its socket, another machine's over UDP, TCP or TLS."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

TIMEOUT = 3.0
"""Seconds for which a connection, a write, or the end of a connection is waited for."""
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
    """Send these to the syslog at `address` (forms.SYSLOG); raises OSError, and then some of them may have arrived.

    Over TCP and TLS who reads is asked to end the connection, so that one that breaks off is noticed. Over UDP
    nobody says whether anything arrives.
    """
    parts = urlsplit(address)
    if not parts.scheme:
        _send_locally(address, entries)
    elif parts.scheme == "udp":
        _send_datagrams(str(parts.hostname), parts.port or 514, entries)
    else:
        encrypted = parts.scheme == "tls"
        port = parts.port or (6514 if encrypted else 514)
        _send_stream(str(parts.hostname), port, entries, encrypted=encrypted)


def _send_locally(path: str, entries: Sequence[Entry]) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
        connection.settimeout(TIMEOUT)
        connection.connect(path)
        for entry in entries:
            connection.send(_as_local(entry))


def _send_datagrams(host: str, port: int, entries: Sequence[Entry]) -> None:
    family, kind, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as connection:
        connection.settimeout(TIMEOUT)
        connection.connect(where)
        for entry in entries:
            connection.send(_as_rfc5424(entry))
        if refused := connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(refused, os.strerror(refused))


def _send_stream(host: str, port: int, entries: Sequence[Entry], *, encrypted: bool) -> None:
    with socket.create_connection((host, port), timeout=TIMEOUT) as plain:
        if not encrypted:
            plain.sendall(_framed(entries))
            plain.shutdown(socket.SHUT_WR)
            _read_to_end(plain)
            return
        with ssl.create_default_context().wrap_socket(plain, server_hostname=host) as connection:
            connection.sendall(_framed(entries))
            with suppress(TimeoutError, ssl.SSLError):
                connection.unwrap()  # a closure that is not answered is none of ours


def _framed(entries: Sequence[Entry]) -> bytes:
    """Each with its length before it (RFC 6587, 3.4.1; RFC 5425, 4.3)."""
    messages = (_as_rfc5424(entry) for entry in entries)
    return b"".join(b"%d %b" % (len(message), message) for message in messages)


def _read_to_end(connection: socket.socket) -> None:
    """Wait until the other side ends it, too: with unread lines it breaks off. Not every syslog does, which is no
    fault."""
    with suppress(TimeoutError):
        while connection.recv(4096):
            pass


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
