"""The chain over the audit trail: a sweep links its rows, one after the other; verification.py finds what was done to
them since.

Rows are appended without a lock and come to light in any order; the database notes each in audit_waiting, so that one
that was committed late is found like any other, and finding them costs the same however long the trail is. A link holds
a MAC over the one before, its position and its row. What a chain cannot know is whether its end was cut off: so each
end is noted in a file as well (heads), outside the database.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from faxbot import trail
from faxbot.config import Config
from faxbot.db import table
from faxbot.models import AuditEvent, AuditLink, AuditWaiting
from faxbot.runtime import Runtime

log = logging.getLogger(__name__)

BATCH = 500
"""Rows that one transaction links."""
_LOCK = "a0d17c4a100000"
"""Whoever holds it links (Database.try_lock)."""
_EVENTS, _LINKS, _WAITING = table(AuditEvent), table(AuditLink), table(AuditWaiting)


@dataclass(frozen=True, slots=True)
class Head:
    """Where a chain ended at some time; None: nobody says when."""

    position: int
    mac: str
    noted_at: datetime | None = None


# Linking --------------------------------------------------------------------------------------------


def link(runtime: Runtime) -> int:
    """Link what has no link yet, unless another process is at it; how many. Raises DatabaseAway, ConfigError."""
    linked, more = 0, True
    while more and runtime.database.row(_ANY_WAITING, {}) is not None:
        heads = _link_batch(runtime)
        for account_id, (head, rows) in heads.items():
            _note(runtime.config, account_id, head, runtime.now())
            linked += rows
        more = sum(rows for _, rows in heads.values()) == BATCH
    return linked


_ANY_WAITING = sa.select(_WAITING.c.event_id).limit(1)


def _link_batch(runtime: Runtime) -> dict[str, tuple[Head, int]]:
    """By account the new end of its chain, and how many rows it grew by."""
    database, now = runtime.database, runtime.now()
    known, heads = trail.of(database), dict[str, tuple[Head, int]]()
    with database.writing() as connection:
        if not database.try_lock(connection, _LOCK):
            return {}
        links = []
        for row in (each._asdict() for each in connection.execute(_NEXT).all()):
            account_id = row["account_id"]
            before, count = heads.get(account_id) or (_end(connection, account_id), 0)
            found = {"position": before.position + 1, "event_id": row["id"], "linked_at": now}
            mac = mac_of(known.key(connection, account_id), before.mac, found, row)
            links.append({**found, "account_id": account_id, "mac": mac})
            heads[account_id] = (Head(found["position"], mac, now), count + 1)
        if links:
            connection.execute(_LINK, links)
            connection.execute(_LINKED, [{"linked": each["event_id"]} for each in links])
    return heads


def mac_of(key: bytes, before: str, link: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """Of a link (`position`, `event_id`, `linked_at`) over a row, behind the link with the MAC `before`."""
    place = [link["position"], link["event_id"], trail.stamped(link["linked_at"])]
    return trail.mac(key, ["link", before, *place, row["proof"], *trail.values(row)])


def _end(connection: Connection, account_id: str) -> Head:
    row = connection.execute(_END, {"account_id": account_id}).first()
    return Head(row.position, row.mac, row.linked_at) if row else Head(0, "")


_NEXT = (
    sa.select(_EVENTS)
    .join(_WAITING, _WAITING.c.event_id == _EVENTS.c.id)
    .outerjoin(_LINKS, _LINKS.c.event_id == _EVENTS.c.id)
    .where(_LINKS.c.event_id.is_(None))
    .order_by(_WAITING.c.event_id)
    .limit(BATCH)
)
_END = (
    sa.select(_LINKS)
    .where(_LINKS.c.account_id == sa.bindparam("account_id"))
    .order_by(_LINKS.c.position.desc())
    .limit(1)
)
_LINK = sa.insert(_LINKS).inline()
_LINKED = sa.delete(_WAITING).where(_WAITING.c.event_id == sa.bindparam("linked"))


def end(runtime: Runtime, account_id: str) -> Head | None:
    """Where the chain of an account ends now."""
    row = runtime.database.row(_END, {"account_id": account_id})
    return Head(row.position, row.mac, row.linked_at) if row else None


# Where it ended -------------------------------------------------------------------------------------

_THIN_AT = 256 * 1024
"""Bytes from which on of each hour but the last day's only the last line is kept."""
_DAY, _HOUR = timedelta(days=1), len("2026-11-20T12")
_LINE = re.compile(r"(\S{1,64}) ([0-9]{1,18}) ([0-9a-f]{64}) ([0-9T:.+-]{32})\n?")
"""Account, position, MAC, time."""


def heads_file(config: Config) -> Path:
    """Where the ends of the chains are noted, a line each."""
    return config.data_dir / "audit-heads"


def heads(config: Config, account_id: str) -> list[Head]:
    """Those that this machine has noted, the oldest first."""
    try:
        lines = heads_file(config).read_text().splitlines()
    except FileNotFoundError:
        return []
    found = [line for each in lines if (line := _LINE.fullmatch(each)) and line[1] == account_id]
    return [Head(int(line[2]), line[3], datetime.fromisoformat(line[4])) for line in found]


def _note(config: Config, account_id: str, head: Head, now: datetime) -> None:
    """Note an end, and log the first of an hour: a log that is kept elsewhere is beyond who changes this machine."""
    config.make_data_dir()
    descriptor = os.open(heads_file(config), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if file.seek(0, os.SEEK_END) > _THIN_AT:
            _thin(file, trail.stamped(now - _DAY))
        at, last = trail.stamped(now), _last_line(file)
        file.write(f"{account_id} {head.position} {head.mac} {at}\n")
    if at[:_HOUR] not in last:
        log.info("audit head", extra={"position": head.position, "mac": head.mac})


def _last_line(file: TextIO) -> str:
    """It leaves the file at its end."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - 300))
    return (file.read().splitlines() or [""])[-1]


def _thin(file: TextIO, since: str) -> None:
    file.seek(0)
    kept: dict[str, str] = {}
    for line in (found for each in file if (found := _LINE.fullmatch(each))):
        account, at = line[1], line[4]
        kept[account + (at if at >= since else at[:_HOUR])] = line[0]
    file.seek(0)
    file.truncate()
    file.writelines(kept.values())
