"""What auditors get to see of the audit trail: pages, the newest first, and an export of all of it."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from faxbot.actors import Actor
from faxbot.audit import DONE, Action, note
from faxbot.db import table
from faxbot.errors import Malformed
from faxbot.models import AuditEvent, AuditLink
from faxbot.results import stamp
from faxbot.runtime import Runtime

PAGE = 1000
"""Rows that an export reads at a time."""
COLUMNS = (
    "id", "happened_at", "actor_kind", "actor", "action", "object_kind", "object_id", "outcome", "request_id",
    "address", "details", "position", "mac",
)  # fmt: skip
_EVENTS, _LINKS = table(AuditEvent), table(AuditLink)
_CURSOR = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")
_NOT_DONE = sa.text("audit_events.outcome <> 'done'")
"""In the words of its index (models): those are few."""
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which rows are shown; None means all. `until` itself is not."""

    since: datetime | None = None
    until: datetime | None = None
    action: str | None = None
    actor: str | None = None
    """An id."""
    object_kind: str | None = None
    object_id: str | None = None
    outcome: str | None = None

    def named(self) -> dict[str, str]:
        """Those that are asked for, as they are written down: words and ids, and no number that somebody took for an
        id."""
        found = {name: getattr(self, name) for name in self.__slots__}
        return {name: _plain(value) for name, value in found.items() if value is not None}


def _plain(value: datetime | str) -> str:
    if isinstance(value, datetime):
        return stamp(value) or ""
    return value if _NO_NUMBER.fullmatch(value) else "?"


_NO_NUMBER = re.compile(r"[a-z][a-z._-]*|(?=.*[a-f])[0-9a-f]{12,64}")


def page(
    runtime: Runtime, actor: Actor, filters: Filters, *, limit: int, cursor: str | None
) -> dict[str, Any]:
    """{"items": up to `limit` rows, "next": cursor of the next page or None} of the actor's account, as plain JSON
    types, the newest first; that it was read is written down itself.

    Keyset over time and id: no OFFSET, no COUNT. Raises Malformed for a cursor that is not ours.
    """
    behind = None if cursor is None else _behind(cursor)
    found = _read(runtime, actor.account_id, filters, limit + 1, behind=behind, newest=True)
    note(runtime, actor, Action.AUDIT_READ, details=filters.named())
    following = _cursor(found[limit - 1]) if len(found) > limit else None
    return {"items": [described(row) for row in found[:limit]], "next": following}


def rows(runtime: Runtime, account_id: str, filters: Filters) -> Iterator[dict[str, Any]]:
    """All of them as plain JSON types, the oldest first; those that come while it reads may be missing."""
    behind = None
    while found := _read(runtime, account_id, filters, PAGE, behind=behind, newest=False):
        yield from map(described, found)
        behind = (found[-1].happened_at, found[-1].id)


def described(row: sa.Row[Any]) -> dict[str, Any]:
    """A row as plain JSON types; `position` and `mac` are its link's, None while it has none."""
    found = row._asdict()
    return {**{name: found[name] for name in COLUMNS}, "happened_at": stamp(row.happened_at)}


def as_jsonl(row: Mapping[str, Any]) -> str:
    """A row as a line of JSON."""
    return json.dumps(row) + "\n"


def as_csv(row: Mapping[str, Any]) -> str:
    """A row as a line of CSV (RFC 4180). What a spreadsheet would take for a formula begins with an apostrophe."""
    return _csv([json.dumps(row[name]) if name == "details" else row[name] for name in COLUMNS])


FORMATS: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    "jsonl": ("", as_jsonl),
    "csv": (",".join(COLUMNS) + "\r\n", as_csv),
}
"""By name: the head of a file, and how a row is written."""


def _csv(cells: list[Any]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow([_harmless(cell) for cell in cells])
    return line.getvalue()


def _harmless(cell: Any) -> Any:
    # OWASP, CSV injection: what begins with one of these is a formula to a spreadsheet.
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(tuple("=+-@\t\r\n")) else cell


def _read(
    runtime: Runtime,
    account_id: str,
    filters: Filters,
    limit: int,
    *,
    behind: tuple[datetime, int] | None,
    newest: bool,
) -> list[sa.Row[Any]]:
    at, number = _EVENTS.c.happened_at, _EVENTS.c.id
    query = sa.select(_EVENTS, _LINKS.c.position, _LINKS.c.mac).outerjoin(
        _LINKS, _LINKS.c.event_id == number
    )
    query = query.where(_EVENTS.c.account_id == account_id)
    for name in ("action", "actor", "object_kind", "object_id", "outcome"):
        if (wanted := getattr(filters, name)) is not None:
            query = query.where(_EVENTS.c[name] == wanted)
    if filters.outcome not in (None, DONE):
        query = query.where(_NOT_DONE)
    if filters.since is not None:
        query = query.where(at >= filters.since)
    if filters.until is not None:
        query = query.where(at < filters.until)
    if behind is not None:
        place = sa.tuple_(
            *(sa.literal(*pair) for pair in zip(behind, (at.type, number.type), strict=True))
        )
        ours = sa.tuple_(at, number)
        query = query.where(ours < place if newest else ours > place)
    order = (at.desc(), number.desc()) if newest else (at, number)
    return list(runtime.database.rows(query.order_by(*order).limit(limit), {}))


def _cursor(row: sa.Row[Any]) -> str:
    return f"{(row.happened_at - _FIRST) // _MICROSECOND}-{row.id}"


def _behind(cursor: str) -> tuple[datetime, int]:
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise Malformed("`cursor` is not one that this server gave")
    try:
        return _FIRST + int(match[1]) * _MICROSECOND, int(match[2])
    except OverflowError:
        raise Malformed("`cursor` is not one that this server gave") from None
