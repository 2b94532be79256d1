"""The one way out for plugins: pooled HTTP that reaches only admitted addresses, ends in bounded
time and bounded memory, and says of every fault whether the carrier can have seen the request.

A fault before the first byte of a request was written proves that nothing was sent (Unreachable);
any fault after it leaves the outcome open (OutcomeUnknown). `refusal()` is the same question
answered from a status.
"""

from __future__ import annotations

import json as jsonlib
import socket
import ssl
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any, BinaryIO, NoReturn

import requests
from requests.adapters import HTTPAdapter
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, HTTPError, LocationParseError
from urllib3.util import parse_url

from faxbot import __version__, timed
from faxbot.errors import (
    AccountRefused,
    DestinationBarred,
    OutcomeUnknown,
    ProviderError,
    Refused,
    Throttled,
    Unreachable,
)

PDF = "application/pdf"
MAX_BODY = 2 * 1024 * 1024
MAX_FILE = 256 * 1024 * 1024
"""A document that is fetched: 350 pages of photographs take less."""
LONGEST_WAIT = 86_400.0
_PIECE = 64 * 1024

_REFUSALS: Mapping[int, tuple[type[ProviderError], str | None]] = {
    301: (AccountRefused, "config"),
    307: (AccountRefused, "config"),
    308: (AccountRefused, "config"),
    401: (AccountRefused, None),
    402: (AccountRefused, "funds"),
    403: (DestinationBarred, None),
    404: (AccountRefused, "config"),
    408: (OutcomeUnknown, None),
    413: (Refused, "doc_too_large"),
    415: (Refused, "doc_unreadable"),
    429: (Throttled, None),
}
"""Status of a submit -> what it proves, and the cause where the status alone names one.

301, 307 and 308 say that the address is wrong, and the request was not worked on; 302 and 303 may
follow a request that was (RFC 9110, 15.4), so they are unknown like every status that is neither
here nor 4xx.
"""


def refusal(
    status: int,
    headers: Mapping[str, str],
    *,
    cause: str | None = None,
    blames_destination: bool = False,
) -> ProviderError:
    """What the HTTP status of a submit that was not accepted proves; to be raised by the provider.

    `cause`: the canonical code that the carrier's table gives for its body, if it does.
    `blames_destination`: the body of a 403 names the number, not the account.
    """
    kind, usual = _REFUSALS.get(status, (Refused if 400 <= status < 500 else OutcomeUnknown, None))
    if kind is DestinationBarred and blames_destination:
        kind = Refused
    return kind(
        f"The carrier answered with HTTP status {status}.",
        cause=cause or usual,
        retry_after=retry_after(headers),
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a Retry-After header asks to wait, between 0 and a day; None where there is none
    that can be read.

    A date is compared with the carrier's own Date, so its clock and ours need not agree (RFC 9110,
    10.2.3).
    """
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), LONGEST_WAIT)
    until = _date(text)
    if until is None:
        return None
    now = _date(headers.get("Date", ""))
    return max(0.0, min(until - (time.time() if now is None else now), LONGEST_WAIT))


def _date(text: str) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
        # "-0000" gives a time without a zone; it is UTC all the same (RFC 5322, 3.3).
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer; `headers` are found in any case. The body of a refusal may be cut short: its
    status is what counts."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON; one that is not raises OutcomeUnknown after a 2xx status, else
        refusal(status)."""
        try:
            return jsonlib.loads(self.body, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            if 200 <= self.status < 300:
                raise OutcomeUnknown("The carrier's answer cannot be read.") from None
            raise refusal(self.status, self.headers) from None


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


class HttpClient:
    """The `Http` that plugins are given. Safe to share between threads; redirects, cookies, proxies
    and netrc do not exist for it.

    `addresses`: every http(s) address that may be called (Manifest.addresses); scheme, host and
    port must agree. Seconds: `connect` to connect, `read` for the longest silence, `total` for one
    whole call, `idle` for how long an unused connection is kept. `max_body` in bytes.
    """

    def __init__(
        self,
        addresses: Iterable[str],
        *,
        connect: float = 5.0,
        read: float = 30.0,
        total: float = 120.0,
        idle: float = timed.IDLE_SECONDS,
        max_body: int = MAX_BODY,
        ca_file: str | None = None,
    ) -> None:
        self._origins = frozenset(_origin(address) for address in addresses)
        self._limits = (connect, read, total)
        self._idle = idle
        self._max_body = max_body
        self._verify: bool | str = ca_file or True
        self._adapter = _Adapter(pool_connections=8, pool_maxsize=8)

    def request(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        data: Mapping[str, str] | None = None,
        json: object | None = None,
        files: Mapping[str, tuple[str | None, BinaryIO, str]] | None = None,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
    ) -> Reply:
        """One call; any status is returned. Raises AccountRefused for an address that is not
        admitted, Unreachable when nothing was sent, OutcomeUnknown when something was and no whole
        answer came."""
        return self._exchange(
            _prepared(
                requests.Request(
                    method, url, params=params, data=data, json=json, files=files, auth=auth,
                    headers=headers,
                )
            )
        )  # fmt: skip

    def download(
        self,
        url: str,
        target: BinaryIO,
        *,
        media_type: str,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
    ) -> Reply | None:
        """plugins.base.Http.download(): at most MAX_FILE bytes; raises as request()."""
        prepared = _prepared(requests.Request("GET", url, headers=headers, auth=auth))
        wanted = _Wanted(target, media_type)
        reply = self._exchange(prepared, wanted)
        return None if wanted.is_in(reply) else reply

    def close(self) -> None:
        """Close every pooled connection; a later request opens new ones."""
        self._adapter.close()

    def _exchange(self, prepared: requests.PreparedRequest, wanted: _Wanted | None = None) -> Reply:
        if _origin(prepared.url or "") not in self._origins:
            raise AccountRefused(
                "This address is not among those that the plugin may call.", cause="config"
            )
        connect, read, total = self._limits
        call = timed.begin(read=read, total=total, idle=self._idle)
        try:
            answer = self._adapter.send(
                prepared, stream=True, timeout=(min(connect, total), read), verify=self._verify
            )
            try:
                reply = Reply(answer.status_code, answer.headers, b"")
                if wanted is not None and wanted.is_in(reply):
                    wanted.take(answer)
                else:
                    reply = replace(reply, body=self._body(answer))
            finally:
                answer.close()
        except (requests.RequestException, HTTPError, HTTPException, OSError) as error:
            # `from None`: the texts of these errors hold the address with its query, which may name
            # a number.
            if call.begun:
                raise OutcomeUnknown(_lost(error)) from None
            raise Unreachable(_unreachable(error)) from None
        return reply

    def _body(self, answer: requests.Response) -> bytes:
        """The whole body, or for a refusal what there is of it."""
        pieces: list[bytes] = []
        room = self._max_body
        taken = 200 <= answer.status_code < 300
        try:
            while piece := answer.raw.read1(_PIECE, decode_content=False):
                room -= len(piece)
                if room < 0:
                    if taken:
                        raise OutcomeUnknown("The carrier's answer is too large to be read.")
                    break
                pieces.append(piece)
        except (HTTPError, HTTPException, OSError):
            if taken:
                raise
        return b"".join(pieces)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A large body, and where it is to go."""

    target: BinaryIO
    media_type: str

    def is_in(self, reply: Reply) -> bool:
        kind = reply.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        return 200 <= reply.status < 300 and kind == self.media_type

    def take(self, answer: requests.Response) -> None:
        room = MAX_FILE
        while piece := answer.raw.read1(_PIECE, decode_content=False):
            room -= len(piece)
            if room < 0:
                raise OutcomeUnknown("The carrier's document is too large to be taken.")
            try:
                self.target.write(piece)
            except OSError:
                raise Unreachable("The carrier's document cannot be kept here.") from None
        if room == MAX_FILE:
            raise OutcomeUnknown("The carrier's document is empty.")


def _prepared(request: requests.Request) -> requests.PreparedRequest:
    usual = {"User-Agent": f"faxbot/{__version__}", "Accept-Encoding": "identity"}
    request.headers = {**usual, **request.headers}
    try:
        return request.prepare()
    except (requests.RequestException, ValueError):
        raise AccountRefused(
            "The request to the carrier cannot be built.", cause="config"
        ) from None


def _origin(address: str) -> tuple[str, str, int]:
    """(scheme, host, port), read by the parser that connects; ("", "", 0), which nothing may have,
    where it is none of http or https."""
    try:
        parts = parse_url(address)
        port = {"http": 80, "https": 443}[parts.scheme or ""]
    except (LocationParseError, KeyError):
        return "", "", 0
    return parts.scheme or "", parts.host or "", parts.port or port


def _lost(error: BaseException) -> str:
    if any(isinstance(link, TimeoutError | requests.Timeout) for link in _links(error)):
        return "The carrier did not answer in time."
    return "The connection to the carrier broke before its answer was complete."


_KINDS: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((socket.gaierror,), "its name is not known"),
    ((ssl.SSLError,), "the TLS handshake failed"),
    ((ConnectionRefusedError,), "the connection was refused"),
    ((ConnectTimeoutError, TimeoutError), "connecting took too long"),
)


def _unreachable(error: BaseException) -> str:
    links = list(_links(error))
    kind = next(
        (words for kinds, words in _KINDS if any(isinstance(link, kinds) for link in links)), None
    )
    return f"The carrier cannot be reached: {kind or 'the connection failed'}."


def _links(error: BaseException) -> Iterable[BaseException]:
    """The error and what lies beneath it: requests and urllib3 wrap by argument, by `reason` and by
    cause."""
    seen: list[BaseException] = []
    todo: list[object] = [error]
    while todo:
        link = todo.pop()
        if isinstance(link, BaseException) and link not in seen:
            seen.append(link)
            todo.extend(
                (*link.args, getattr(link, "reason", None), link.__cause__, link.__context__)
            )
    return seen


class _Pool(HTTPConnectionPool):
    ConnectionCls = timed.Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = timed.TlsConnection


class _Adapter(HTTPAdapter):
    """requests' adapter over our connections. Its default of no retries stays: nothing is sent
    twice."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
