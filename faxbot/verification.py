"""Whether the audit trail is as it was written: which row was changed, removed, inserted or re-ordered, and whether the
chain's end was cut off.

It looks at a page of links at a time, so that it can be done in parts and holds nothing for long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from faxbot import chain, trail
from faxbot.chain import Head
from faxbot.db import table
from faxbot.events import DEFAULT_ACCOUNT
from faxbot.models import AuditEvent, AuditLink, AuditWaiting
from faxbot.runtime import Runtime

PAGE = 1000
"""Links that are read at a time."""
WINDOW = 50_000
"""Rows among which those without a link are looked for at a time."""
_BEFORE_ALL = -(2**63) - 1
"""Every id is higher, also one that was chosen by somebody who puts a row in."""
MOST_FAULTS = 100
"""More are counted and not told."""
_EVENTS, _LINKS, _WAITING = table(AuditEvent), table(AuditLink), table(AuditWaiting)


@dataclass(slots=True)
class Report:
    """What verify() found."""

    faults: list[str] = field(default_factory=list)
    """A sentence each, the first MOST_FAULTS."""
    fault_count: int = 0
    links: int = 0
    """How many were looked at."""
    first: int | None = None
    """Positions of the first and the last of them."""
    last: Head | None = None
    waiting: int = 0
    """Rows that no sweep has linked yet; nothing guards their order, and what has no link can be removed unseen."""
    heads: int = 0
    """Noted ends that it was compared with."""
    more: bool = False
    """There are more links behind `last`, which were not looked at."""

    @property
    def ok(self) -> bool:
        return not self.fault_count

    def add(self, fault: str) -> None:
        self.fault_count += 1
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(fault)

    def described(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "ok": self.ok,
            "faults": self.faults,
            "fault_count": self.fault_count,
            "links": self.links,
            "first": self.first,
            "head": f"{self.last.position}:{self.last.mac}" if self.last else None,
            "waiting": self.waiting,
            "heads": self.heads,
            "next": self.last.position if self.last and self.more else None,
        }


def verify(
    runtime: Runtime,
    account_id: str = DEFAULT_ACCOUNT,
    *,
    since: datetime | None = None,
    after: int = 0,
    most: int | None = None,
    known: Iterable[Head] = (),
    progress: Callable[[int], None] = lambda _links: None,
) -> Report:
    """Look at the chain of an account: all of it, what was linked since some time, or `most` links behind the position
    `after`; and at what has no link yet. `known` are ends that somebody has noted, beside those of this machine;
    `progress` is told how many links are done.

    Raises DatabaseAway, and ConfigError where the key of the trail does not open.
    """
    report = Report()
    # Read first: the chain may grow meanwhile.
    noted = _by_position([*chain.heads(runtime.config, account_id), *known])
    after = max(after, _position_before(runtime, account_id, since) if since else 0)
    key = trail.of(runtime.database).known(account_id)
    if key is None:
        if noted or runtime.database.row(_NEWEST, {"account_id": account_id}) is not None:
            report.add("the key of the trail is gone: nothing in it can be proven")
        return report
    link = _at(runtime, account_id, after) if after else None
    walk = _Walk(report, key, after, link, noted)
    first_row = walk.highest
    for row in _rows(runtime, account_id, after, most):
        walk.step(row)
        if report.links % PAGE == 0:
            progress(report.links)
    if most is not None:
        report.more = _at(runtime, account_id, walk.before.position + 1) is not None
    if not report.more:
        walk.end()
        _look_at_waiting(runtime, account_id, report, key)
    _look_for_links(runtime, account_id, report, first_row, walk.highest)
    return report


class _Walk:
    """From link to link. Where one is wrong the next is judged by what is there, so that each fault is told once."""

    def __init__(
        self,
        report: Report,
        key: bytes,
        after: int,
        link: sa.Row[Any] | None,
        noted: Mapping[int, list[Head]],
    ) -> None:
        """It begins behind the position `after`, where `link` is, if it is there."""
        self.report, self._key, self._noted = report, key, noted
        self.before = Head(after, link.mac if link else "")
        self.highest: int = link.event_id if link else _BEFORE_ALL
        """The newest row that has a link so far."""
        self._sure = link is not None or not after
        """Whether the MAC of the link before is known."""

    def step(self, row: Mapping[str, Any]) -> None:
        report, position = self.report, row["position"]
        if report.first is None:
            report.first = position
        if position != self.before.position + 1:
            self._gap(position)
        report.links += 1
        if fault := self._fault(row):
            report.add(f"row {row['event_id']} (link {position}) {fault}")
        for head in self._noted.get(position, ()):
            report.heads += 1
            if not trail.same(head.mac, row["mac"]):
                report.add(f"link {position} is not the one that was noted{_when(head)}: {_ANEW}")
        self.before = report.last = Head(position, row["mac"], row["linked_at"])
        self.highest = max(self.highest, row["event_id"])
        self._sure = True

    def end(self) -> None:
        """The chain is over: was it ever longer?"""
        beyond = [each for position, each in self._noted.items() if position > self.before.position]
        if beyond:
            head = max((each[0] for each in beyond), key=lambda each: each.position)
            lost, self.report.heads = head.position - self.before.position, self.report.heads + 1
            self.report.add(
                f"the end is cut off: the chain ends at link {self.before.position}, and{_when(head)} it ended at "
                f"{head.position}, so {lost} are gone (or a backup was restored)"
            )

    def _gap(self, position: int) -> None:
        first, last = self.before.position + 1, position - 1
        which = f"link {first} is" if first == last else f"links {first} to {last} are"
        self.report.add(f"{which} gone: the rows were removed, or their links")
        self._sure = False

    def _fault(self, row: Mapping[str, Any]) -> str:
        if row["id"] is None:
            return "was removed"
        ours = trail.is_ours(self._key, row)
        mac = chain.mac_of(self._key, self.before.mac, row, row) if self._sure else row["mac"]
        linked = trail.same(mac, row["mac"])
        if ours and row["original"] is not None:
            return f"is a copy of row {row['original']}"
        if ours and linked:
            return ""
        if linked:
            return "was inserted: it was linked as it is, and faxbot did not write it"
        if ours:
            return "does not belong here: rows were re-ordered or put in, or the link was changed"
        return "was changed"


_ANEW = "rows behind it were removed and the chain went on, or a backup was restored"


def _when(head: Head) -> str:
    return f" at {head.noted_at:%Y-%m-%dT%H:%M:%SZ}" if head.noted_at else " elsewhere"


def _by_position(known: Iterable[Head]) -> dict[int, list[Head]]:
    found: dict[int, list[Head]] = {}
    for head in known:
        same = found.setdefault(head.position, [])
        if head.mac not in {each.mac for each in same}:
            same.append(head)
    return found


def _rows(
    runtime: Runtime, account_id: str, after: int, most: int | None
) -> Iterator[Mapping[str, Any]]:
    """Links with their rows (None where that is gone), in order."""
    left = most
    while left is None or left > 0:
        limit = PAGE if left is None else min(PAGE, left)
        asked = {"account_id": account_id, "after": after, "most": limit}
        page = runtime.database.rows(_WALK, asked)
        for row in page:
            yield row._asdict()
        if len(page) < limit:
            return
        after, left = page[-1].position, None if left is None else left - limit


def _position_before(runtime: Runtime, account_id: str, since: datetime) -> int:
    row = runtime.database.row(_SINCE, {"account_id": account_id, "since": since})
    if row is not None and row.first is not None:
        return int(row.first) - 1
    last = chain.end(runtime, account_id)
    return last.position if last else 0


def _at(runtime: Runtime, account_id: str, position: int) -> sa.Row[Any] | None:
    return runtime.database.row(_AT, {"account_id": account_id, "position": position})


def _look_at_waiting(runtime: Runtime, account_id: str, report: Report, key: bytes) -> None:
    """At the rows that no sweep has linked yet."""
    after: int | None = _BEFORE_ALL
    while after is not None:
        page = runtime.database.rows(_NO_LINK_YET, {"account_id": account_id, "start": after + 1})
        for row in (each._asdict() for each in page):
            if row["id"] is None:
                report.add(f"row {row['event_id']} was removed before it was linked")
                continue
            report.waiting += 1
            if not trail.is_ours(key, row):
                report.add(f"row {row['id']} (not linked yet) was changed or inserted")
        after = page[-1].event_id if len(page) == PAGE else None


def _look_for_links(
    runtime: Runtime, account_id: str, report: Report, first: int, last: int
) -> None:
    """Of every row between these two, or behind both where nothing more is linked."""
    if not report.more:
        newest = runtime.database.row(_NEWEST, {"account_id": account_id})
        last = newest.id if newest else last
    while first < last and (until := _a_window_on(runtime, first, last)) is not None:
        among = {"account_id": account_id, "start": first + 1, "until": until}
        for row in runtime.database.rows(_LOST, among):
            report.add(f"row {row.id} lost its link")
        first = until


def _a_window_on(runtime: Runtime, first: int, last: int) -> int | None:
    """The id of the row WINDOW rows behind `first`, or of the last one; None behind that."""
    among = {"start": first + 1, "until": last, "most": WINDOW}
    row = runtime.database.row(_WINDOW, among)
    return row[0] if row else None


_OF_ACCOUNT = _LINKS.c.account_id == sa.bindparam("account_id")
_OTHERS = _EVENTS.alias("others")
_ORIGINAL = (
    sa.select(sa.func.min(_OTHERS.c.id))
    .where(_OTHERS.c.proof == _EVENTS.c.proof, _OTHERS.c.id < _EVENTS.c.id)
    .scalar_subquery()
)
"""Where a row has the proof of another: no two that faxbot wrote do."""
_WALK = (
    sa.select(
        _LINKS.c.position,
        _LINKS.c.event_id,
        _LINKS.c.mac,
        _LINKS.c.linked_at,
        _ORIGINAL.label("original"),
        *_EVENTS.columns,
    )
    .outerjoin_from(_LINKS, _EVENTS, _EVENTS.c.id == _LINKS.c.event_id)
    .where(_OF_ACCOUNT, _LINKS.c.position > sa.bindparam("after"))
    .order_by(_LINKS.c.position)
    .limit(sa.bindparam("most"))
)
_AT = sa.select(_LINKS).where(_OF_ACCOUNT, _LINKS.c.position == sa.bindparam("position"))
_SINCE = sa.select(sa.func.min(_LINKS.c.position).label("first")).where(
    _OF_ACCOUNT, _LINKS.c.linked_at >= sa.bindparam("since", type_=_LINKS.c.linked_at.type)
)
_OF_ITS_ACCOUNT = _EVENTS.c.account_id == sa.bindparam("account_id")
_NEWEST = sa.select(_EVENTS.c.id).where(_OF_ITS_ACCOUNT).order_by(_EVENTS.c.id.desc()).limit(1)
_LOST = (
    sa.select(_EVENTS.c.id)
    .outerjoin(
        _LINKS,
        # One at another place is in no chain that anybody walks.
        (_LINKS.c.event_id == _EVENTS.c.id)
        & (_LINKS.c.account_id == _EVENTS.c.account_id)
        & (_LINKS.c.position > 0),
    )
    .outerjoin(
        _WAITING,
        (_WAITING.c.event_id == _EVENTS.c.id) & (_WAITING.c.account_id == _EVENTS.c.account_id),
    )
    .where(
        _OF_ITS_ACCOUNT,
        _EVENTS.c.id >= sa.bindparam("start"),
        _EVENTS.c.id <= sa.bindparam("until"),
        _LINKS.c.event_id.is_(None),
        _WAITING.c.event_id.is_(None),
    )
    .order_by(_EVENTS.c.id)
)
_IN_ORDER = (
    sa.select(_EVENTS.c.id)
    .where(_EVENTS.c.id >= sa.bindparam("start"), _EVENTS.c.id <= sa.bindparam("until"))
    .order_by(_EVENTS.c.id)
    .limit(sa.bindparam("most"))
    .subquery()
)
_WINDOW = sa.select(sa.func.max(_IN_ORDER.c.id))
_NO_LINK_YET = (
    sa.select(_WAITING.c.event_id, *_EVENTS.columns)
    .outerjoin(_EVENTS, _EVENTS.c.id == _WAITING.c.event_id)
    .where(
        _WAITING.c.account_id == sa.bindparam("account_id"),
        _WAITING.c.event_id >= sa.bindparam("start"),
    )
    .order_by(_WAITING.c.event_id)
    .limit(PAGE)
)
