"""Tests talk to this machine only: an attempt to reach another, or to ask for its address, fails
the test. And connections say whose they are."""

from __future__ import annotations

import ipaddress
import socket
import sys
from typing import Any

import psycopg


class NetworkUsed(AssertionError):
    """A test tried to leave this machine. No OSError, so that no code takes it for a fault of the
    network."""


def allow_this_machine_only() -> None:
    """Install the guard for the rest of this process (an audit hook, so no import order escapes
    it)."""
    sys.addaudithook(_look)


def _look(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        if isinstance(address, tuple) and not _is_here(str(address[0])):
            raise NetworkUsed(f"a test wants to reach {address[0]}")
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
        name = host.decode() if isinstance(host, bytes) else str(host or "localhost")
        if name.endswith(".invalid"):
            # Never resolves (RFC 6761), and is answered so without asking a name server.
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if not _is_here(name):
            raise NetworkUsed(f"a test wants to know the address of {name}")


def _is_here(host: str) -> bool:
    if host in ("localhost", "", socket.gethostname()):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


running = ["no test"]
"""The test that runs, last."""


def name_connections() -> None:
    """Have the warning about a connection that nobody closed say in which test it was made: it comes in another one."""
    make = psycopg.Connection.__init__

    def init(self: Any, *words: Any, **more: Any) -> None:
        make(self, *words, **more)
        self.made_in = running[-1]

    psycopg.Connection.__init__ = init  # type: ignore[method-assign]
    psycopg.Connection.__repr__ = lambda self: f"<a connection made in {self.made_in}>"  # type: ignore[attr-defined, method-assign]
