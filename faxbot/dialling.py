"""The way out for webhooks: HTTP that dials only where webhooks may go.

A name is resolved once for a connection, every address that comes of it is judged (destinations.py), and one of these
very addresses is dialled: whatever the name says a moment later changes nothing. The host's name stays in the request
and in the TLS handshake. Redirects, cookies, proxies of the environment and netrc do not exist here; of an answer its
status counts, and its body is read no further than is good for the connection, and thrown away.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from http.client import HTTPException
from typing import Any

import certifi
from urllib3 import BaseHTTPResponse, PoolManager
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError
from urllib3.util.ssl_ import create_urllib3_context

from faxbot import timed
from faxbot.destinations import NotAllowed, Place, Rules, is_literal
from faxbot.errors import ConfigError

CONNECT_SECONDS = 5.0
"""For one address, at most."""
MOST_ADDRESSES = 4
"""Of one name so many are tried."""
MOST_BODY = 8 * 1024
OWN_SECONDS, OWN_AGAIN = 2.0, 60.0
"""How long the look-up of this server's own name may take, and how long what it gave is good."""
BODY_SECONDS = 1.0
"""A receiver that has more to say, or takes longer, loses its connection."""
MOST_HOSTS, MOST_CONNECTIONS = 256, 16
"""Kept open: hosts, and connections of one. Of hosts as many as are called at once: of one that is pushed out a call
that has just begun would fail."""

OK, STATUS, REDIRECT, GONE = "ok", "status", "redirect", "gone"
NOT_ALLOWED, NAME, CONNECTION, TLS, TIMEOUT, BROKEN = (
    "not_allowed", "name", "connection", "tls", "timeout", "broken",
)  # fmt: skip
OUTCOMES: dict[str, str] = {
    OK: "the receiver has taken it (2xx)",
    STATUS: "the receiver answered with another status than 2xx",
    REDIRECT: "the receiver answered with a redirect (3xx), which is not followed",
    GONE: "the receiver wants nothing more (410)",
    NOT_ALLOWED: "the address is not one that webhooks may go to (FAXBOT_WEBHOOK_NETWORKS, FAXBOT_WEBHOOK_DENY, "
    "FAXBOT_WEBHOOK_PORTS)",
    NAME: "the name of the host is not known",
    CONNECTION: "nobody could be connected with there",
    TLS: "the TLS handshake failed: see the certificate (FAXBOT_WEBHOOK_CA_FILE)",
    TIMEOUT: "no answer came in time (FAXBOT_WEBHOOK_SECONDS)",
    BROKEN: "the connection broke before a whole answer had come",
}
"""How a call can end."""

Resolve = Callable[[str, int], Sequence[str]]
"""The addresses of a name, for a port; raises OSError."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How a call ended."""

    outcome: str
    """Of OUTCOMES."""
    seconds: float
    code: int | None = None
    headers: Mapping[str, str] | None = None

    @property
    def ok(self) -> bool:
        return self.outcome == OK


class Dialler:
    """Calls receivers, over connections that it keeps open for a while; safe to share between threads."""

    def __init__(self, ca_file: str = "", *, resolve: Resolve | None = None) -> None:
        """`ca_file`: certificates that vouch for receivers beside the usual ones. Raises ConfigError."""
        self._resolve = resolve or _addresses
        self._own = _OwnAddresses(self._resolve)
        self._pools = PoolManager(
            num_pools=MOST_HOSTS, maxsize=MOST_CONNECTIONS, ssl_context=_trust(ca_file)
        )
        self._pools.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    def post(
        self, rules: Rules, url: str, headers: Mapping[str, str], body: bytes, *, seconds: float
    ) -> Answer:
        """One POST that ends within so many seconds, name and all; any end is an Answer."""
        since = time.monotonic()
        call = timed.begin(read=seconds, total=seconds)
        _thread.dial = _Dial(rules, self._resolve, self._own)
        code: int | None = None
        found: Mapping[str, str] | None = None
        try:
            place = rules.read(url)
            with self._send(place, headers, body) as response:
                code = response.status
                # A receiver may send megabytes of them, which wait until they are written down.
                kept = ((each, response.headers.get(each)) for each in ("Retry-After", "Date"))
                found = {each: value[:64] for each, value in kept if value}
                call.deadline = min(call.deadline, time.monotonic() + BODY_SECONDS)
                with suppress(HTTPError, HTTPException, OSError):
                    _throw_away(response)
            outcome = _judged(code)
        except NotAllowed:
            outcome = NOT_ALLOWED
        except _NoSuchName:
            outcome = NAME
        except (HTTPError, HTTPException, OSError, ValueError) as error:
            outcome = _fault(error, begun=call.begun)
        return Answer(outcome, time.monotonic() - since, code, found)

    def _send(self, place: Place, headers: Mapping[str, str], body: bytes) -> _Closing:
        pool = self._pools.connection_from_host(place.host, place.port, place.scheme)
        return _Closing(
            pool.urlopen(
                "POST",
                place.target,
                body=body,
                headers={**headers, "Accept-Encoding": "identity"},
                retries=False,
                redirect=False,
                assert_same_host=False,
                preload_content=False,
                decode_content=False,
            )
        )

    def close(self) -> None:
        """Let go of all connections that are not in use."""
        self._pools.clear()


class _Closing:
    """An answer that is read to its end, or else takes its connection with it."""

    def __init__(self, response: BaseHTTPResponse) -> None:
        self._response = response

    def __enter__(self) -> BaseHTTPResponse:
        return self._response

    def __exit__(self, *_: object) -> None:
        # A connection whose answer was read has gone back to its pool by itself.
        self._response.close()


def _throw_away(response: BaseHTTPResponse) -> None:
    room = MOST_BODY
    while room > 0 and (piece := response.read1(room)):
        room -= len(piece)


def _judged(code: int) -> str:
    if 200 <= code < 300:
        return OK
    if code == 410:
        return GONE
    return REDIRECT if 300 <= code < 400 else STATUS


def _fault(error: BaseException, *, begun: bool) -> str:
    links = list(_links(error))
    if any(isinstance(link, TimeoutError) for link in links):
        return TIMEOUT
    if any(isinstance(link, ssl.SSLError | ssl.CertificateError) for link in links) and not begun:
        return TLS
    return BROKEN if begun else CONNECTION


def _links(error: BaseException) -> Iterable[BaseException]:
    """The error and what urllib3 has wrapped in it."""
    todo: list[object] = [error]
    seen: list[BaseException] = []
    while todo:
        link = todo.pop()
        if isinstance(link, BaseException) and link not in seen:
            seen.append(link)
            todo += [*link.args, link.__cause__, link.__context__]
    return seen


def _trust(ca_file: str) -> ssl.SSLContext:
    context = create_urllib3_context()
    context.load_verify_locations(certifi.where())
    if ca_file:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError):
            raise ConfigError(
                "FAXBOT_WEBHOOK_CA_FILE does not name a readable file of certificates (PEM)"
            ) from None
    return context


# Connecting -------------------------------------------------------------------------------------------


class _NoSuchName(Exception):
    """No OSError, which urllib3 would wrap."""


class _OwnAddresses:
    """Where the names of this server itself lead: a proxy before it has addresses that this machine has not. Safe to
    share between threads."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._lock = threading.Lock()
        self._found: dict[str, tuple[float, frozenset[str]]] = {}

    def of(self, names: Iterable[str], port: int, patience: float) -> frozenset[str]:
        """All addresses of these names, as they are known within so many seconds; of one that is not found those of
        before."""
        wanted = [name for name in names if not is_literal(name)]
        if wanted and self._lock.acquire(timeout=min(OWN_SECONDS, patience)):
            try:
                for name in wanted:
                    self._look(name, port, min(OWN_SECONDS, patience))
            finally:
                self._lock.release()
        known = (self._found.get(name, _UNKNOWN)[1] for name in wanted)
        return frozenset[str]().union(*known)

    def _look(self, name: str, port: int, seconds: float) -> None:
        until, found = self._found.get(name, _UNKNOWN)
        if time.monotonic() < until:
            return
        with suppress(TimeoutError, _NoSuchName):
            found = frozenset(_within(seconds, partial(self._resolve, name, port)))
        self._found[name] = time.monotonic() + OWN_AGAIN, found


_UNKNOWN = (0.0, frozenset[str]())


@dataclass(frozen=True, slots=True)
class _Dial:
    """How this thread's call connects, if it must."""

    rules: Rules
    resolve: Resolve
    own: _OwnAddresses

    def connect(self, host: str, port: int) -> socket.socket:
        """A connection with one of the addresses that this name has now; raises NotAllowed where one of them is not to
        be dialled: a name that mixes them is no mistake of ours to sort out."""
        call = timed.current()
        look = partial(self.resolve, host, port)
        found = [host] if is_literal(host) else list(dict.fromkeys(_within(call.patience(), look)))
        if not found:
            raise _NoSuchName
        names = self.rules.own_names
        own = self.own.of(names, port, call.patience())
        rules = replace(self.rules, own_names=names | own)
        for address in found:
            rules.judge(address, port)
        some = found[:MOST_ADDRESSES]
        for count, address in enumerate(some):
            try:
                # Each has its part of what is left, and so has the answer.
                part = call.patience() / (len(some) - count + 1)
                sock = _dialled(address, port, min(CONNECT_SECONDS, part))
            except OSError as error:
                last = error
            else:
                sock.settimeout(call.patience())  # the whole handshake's, too
                return sock
        raise last


class _Thread(threading.local):
    """As in timed.py: urllib3 hands nothing of a request down to its connections."""

    dial: _Dial


_thread = _Thread()


def _addresses(host: str, port: int) -> Sequence[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


def _within(seconds: float, look: Callable[[], Sequence[str]]) -> Sequence[str]:
    """What `look` finds; a resolver asks its name servers for longer than anybody waits, and cannot be told otherwise.
    Raises TimeoutError, and _NoSuchName."""
    found: list[Sequence[str]] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(look())
        except BaseException as error:  # noqa: BLE001 - raised again by who waits
            failed.append(error)

    thread = threading.Thread(target=run, name="resolver", daemon=True)
    thread.start()
    thread.join(seconds)
    if failed:
        if isinstance(failed[0], OSError | UnicodeError):
            raise _NoSuchName from None
        raise failed[0]
    if not found:
        raise TimeoutError("the name is not resolved in time")
    return found[0]


def _dialled(address: str, port: int, seconds: float) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(seconds)
        sock.connect((address, port))
    except BaseException:
        sock.close()
        raise
    return sock


class _Guarded(timed.Connection):
    def _new_conn(self) -> socket.socket:
        return _thread.dial.connect(self.host, self.port)


class _GuardedTls(_Guarded, timed.TlsConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls: Any = _Guarded


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls: Any = _GuardedTls
