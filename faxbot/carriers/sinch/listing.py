"""Reads the query of GET /faxes (Fax OpenAPI, getFaxes).

Comparisons stand in the parameter's name: `createTime>=2026-11-01` is the parameter `createTime>`
with the value `2026-11-01`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from faxbot.carriers.ledger import SENT, Fax
from faxbot.carriers.sinch.submission import SERVICE_ID, Invalid

WEEK_SECONDS = 7 * 24 * 3600.0
"""How far a list goes back where nobody says."""

DEFAULT_SIZE, MAX_SIZE = 100, 1000

_KNOWN = frozenset(
    {
        *("createTime", "createTime>", "createTime<", "direction", "status", "to", "from"),
        *("serviceId", "page", "pageSize"),
    }
)
_MOMENT = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?"
    r"(Z|[+-]\d\d:\d\d)?)?)?)?",
    re.ASCII,
)
_DIRECTIONS = ("OUTBOUND", "INBOUND")
_STATUSES = ("QUEUED", "IN_PROGRESS", "COMPLETED", "FAILURE")


@dataclass(frozen=True, slots=True)
class Listing:
    """What is asked for; times in seconds of the epoch, both ends included."""

    since: float
    until: float
    shows: Callable[[Fax], bool]
    page: int
    size: int


def read(query: Mapping[str, str]) -> Listing:
    """What a query asks for. Raises Invalid, also for a parameter that is not known here: `labels`
    among them, as nothing shows how the vendor has it written."""
    for name in query:
        if name not in _KNOWN:
            raise Invalid(name, "The parameter is not known")
    since, until = _times(query)
    direction = _word(query, "direction", _DIRECTIONS)
    status = _word(query, "status", _STATUSES)
    _word(query, "serviceId", (SERVICE_ID,))
    to, sender = query.get("to", ""), query.get("from", "")

    def shows(fax: Fax) -> bool:
        return (
            fax.details["to"].startswith(to)
            and fax.details["from"].startswith(sender)
            and (not status or fax.status == status)
            and (not direction or (direction == "OUTBOUND") == (fax.direction == SENT))
        )

    page = _whole(query, "page", 1, 10**9)
    return Listing(since, until, shows, page, _whole(query, "pageSize", DEFAULT_SIZE, MAX_SIZE))


def pages(query: Mapping[str, str]) -> tuple[int, int]:
    """(page, its size) of a query for services. Raises Invalid."""
    return _whole(query, "page", 1, 10**9), _whole(query, "pageSize", 20, MAX_SIZE)


def _times(query: Mapping[str, str]) -> tuple[float, float]:
    now = time.time()
    since, until = now - WEEK_SECONDS, now + 1
    if "createTime" in query:
        since, until = span(query["createTime"])
        if "T" in query["createTime"]:  # "all calls after 14:00 on the first of February"
            until = span(query["createTime"][:10])[1]
    if "createTime<" in query:
        until = span(query["createTime<"])[1]
        since = min(since, until - WEEK_SECONDS)
    if "createTime>" in query:
        since = span(query["createTime>"])[0]
    return since, until


def span(text: str) -> tuple[float, float]:
    """First and last moment that a date or time, which may be partial, means. Raises Invalid."""
    found = _MOMENT.fullmatch(text)
    try:
        if found is None:
            raise ValueError(text)
        return _span(*found.groups())
    except (ValueError, OverflowError):
        raise Invalid("createTime", "A date or time is expected") from None


def _span(*groups: str | None) -> tuple[float, float]:
    year, month, day, hour, minute, second, fraction, zone = groups
    offset = "+00:00" if zone in (None, "Z") else zone
    first = datetime.fromisoformat(
        f"{year}-{month or '01'}-{day or '01'}T{hour or '00'}:{minute or '00'}:{second or '00'}"
        f".{(fraction or '0').ljust(6, '0')[:6]}{offset}"
    ).astimezone(UTC)
    return first.timestamp(), _after(first, groups).timestamp() - 1e-6


def _after(first: datetime, groups: tuple[str | None, ...]) -> datetime:
    """The moment at which what was meant is over."""
    _year, month, day, hour, minute, second, fraction, _zone = groups
    if month is None:
        return first.replace(year=first.year + 1)
    if day is None:
        return (first + timedelta(days=32)).replace(day=1)
    lengths = (
        (fraction, timedelta(microseconds=10 ** max(0, 6 - len(fraction or "")))),
        (second, timedelta(seconds=1)),
        (minute, timedelta(minutes=1)),
        (hour, timedelta(hours=1)),
    )
    return first + next((length for given, length in lengths if given), timedelta(days=1))


def _word(query: Mapping[str, str], name: str, words: tuple[str, ...]) -> str:
    given = query.get(name, "")
    if given and given not in words:
        raise Invalid(name, f"Must be one of {', '.join(words)}")
    return given


def _whole(query: Mapping[str, str], name: str, default: int, highest: int) -> int:
    text = query.get(name, str(default))
    if not re.fullmatch("[0-9]{1,10}", text) or not 1 <= int(text) <= highest:
        raise Invalid(name, f"A number from 1 to {highest} is expected")
    return int(text)
