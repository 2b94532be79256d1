"""What text must look like: the addresses, keys and lines that people write into settings and command lines.

Each rule has its words for people; they never hold the text, which may be a password.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import urlsplit


def is_web_address(text: str) -> bool:
    """Whether it is an http or https address whose host and port can be."""
    return _is_address(text, ("http", "https")) and bool(urlsplit(text).hostname)


def _is_broker(text: str) -> bool:
    """redis://host:port/number, or redis+socket:///path."""
    if not _is_address(text, ("redis", "rediss", "redis+socket")):
        return False
    parts = urlsplit(text)
    if parts.scheme == "redis+socket":
        return bool(parts.netloc or parts.path)
    return bool(re.fullmatch(r"/?[0-9]{0,9}", parts.path))


def _is_address(text: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises ValueError for what is no port
    except ValueError:
        return False
    return parts.scheme in schemes and re.fullmatch(r"[!-~]+", text) is not None


def _is_syslog(text: str) -> bool:
    """/path, or udp://host:port, tcp://, tls:// with nothing behind it."""
    if text.startswith("/"):
        return (
            re.fullmatch(r"[ -~]{2,107}", text) is not None
        )  # unix(7): 108 bytes with the final NUL
    if not _is_address(text, ("udp", "tcp", "tls")):
        return False
    parts = urlsplit(text)
    return bool(parts.hostname) and not (parts.path or parts.query or parts.username)


_POSTGRES = re.compile(
    r"(postgres|postgresql|postgresql\+psycopg)://([^@]*@)?"
    r"(\[[0-9A-Fa-f:.]+(%[^\]]+)?\]|[^@\[\]/:?\s]*)(:(?P<port>[0-9]{0,5}))?(/[^?]*)?(\?.*)?"
)
_SQLITE = re.compile(r"sqlite:///(?!:memory:).+")


def _is_database(text: str) -> bool:
    # Not by urlsplit(): SQLAlchemy lets a password hold what an address cannot.
    match = _POSTGRES.fullmatch(text)
    if match is None:
        return _SQLITE.fullmatch(text) is not None
    return int(match["port"] or 0) <= 65535


Form = tuple[Callable[[str], object], str]
"""What the whole text must pass, and the words for one that does not; they never hold the text."""

WEB_ADDRESS: Form = (
    is_web_address,
    "must begin with https:// or http://, a host and perhaps a port, like https://fax.example.org",
)
BROKER: Form = (
    _is_broker,
    (
        "must begin with redis://, rediss:// or redis+socket://, like redis://:password@host:6379/0 "
        "(in a password write / as %2F, : as %3A, @ as %40)"
    ),
)
DATABASE: Form = (
    _is_database,
    (
        "must begin with postgresql:// or sqlite:///, like postgresql://user:password@host:5432/name "
        "(in a password write @ as %40)"
    ),
)
ONE_LINE: Form = (
    re.compile(r"[ -~]{0,50}").fullmatch,
    "must be at most 50 printable ASCII characters",
)
KEY: Form = (
    re.compile(r"[!-~]([ -~]*[!-~])?").fullmatch,
    "must be printable ASCII without a space at its ends: nothing else can come in a header",
)
CREDENTIALS: Form = (
    re.compile(r"[!-9;-~]+:[!-~]+").fullmatch,
    "must be a name and a password with a colon between them, like operator:password, in ASCII without spaces",
)
COUNTRY: Form = (
    re.compile(r"[A-Za-z]{2}").fullmatch,
    "must be the two letters of a country, like US or DE",
)
NAMES: Form = (
    re.compile(r"( *[a-z0-9][a-z0-9._-]{0,63} *(,|$))*").fullmatch,
    "must be provider_ids separated by commas, like phaxio,sinch",
)
SYSLOG: Form = (
    _is_syslog,
    (
        "must be the path of a socket, like /dev/log, or udp://, tcp:// or tls:// with a host and perhaps a port, "
        "like tls://logs.example.org:6514"
    ),
)
ROLES: Form = (
    re.compile(r"( *(admin|operator|viewer) *= *[^=; ][^;]{0,199}(;|$))*").fullmatch,
    "must be role=group separated by semicolons, like admin=fax-admins;viewer=*",
)
DAYS_OF_DEAD_LETTERS: Form = (
    re.compile(r" *\+?0*(0|[3-9][0-9]|[1-9][0-9]{2,}) *").fullmatch,
    "must be at least 30, or 0 (for ever): a receiver that was away for weeks gets what it missed by a replay",
)
