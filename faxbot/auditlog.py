"""The audit trail written on, for who collects logs elsewhere: each row, once it is chained, as a line in a file, to a
syslog, or on the worker's standard error.

The database knows how far each of them has come, so nothing is left out: not what happened while the log was off, full
or away. A crash between writing and noting writes a batch again; `position` tells who reads it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import re
import socket
import ssl
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from faxbot import syslog, trail
from faxbot.auditors import described
from faxbot.config import FILE, STDERR, SYSLOG, Config
from faxbot.db import inserts, table
from faxbot.models import AuditEvent, AuditLink, AuditSink, DataKey
from faxbot.runtime import Runtime

log = logging.getLogger(__name__)

BATCH, MOST = 500, 5000
"""Rows that are written at a time, and in one run of the task."""
CLAIM = timedelta(minutes=1)
"""For so long one process has a log to itself; others come after it."""
REST = timedelta(seconds=30)
"""For so long a log that takes nothing is left alone."""
_EVENTS, _LINKS, _SINKS = table(AuditEvent), table(AuditLink), table(AuditSink)


def write_on(runtime: Runtime) -> int:
    """Write on what is new, wherever it is wanted; how many rows. A log that takes nothing is logged, and tried again
    later. Raises DatabaseAway."""
    if not runtime.config.audit_sinks:
        return 0
    accounts = [row.account_id for row in runtime.database.rows(_ACCOUNTS, {})]
    places = [(account, sink) for account in accounts for sink in runtime.config.audit_sinks]
    return sum(_catch_up(runtime, account_id=account, name=sink) for account, sink in places)


_ACCOUNTS = (
    sa.select(DataKey.account_id).where(DataKey.name == trail.KEY_NAME).order_by(DataKey.account_id)
)


def _catch_up(runtime: Runtime, **place: str) -> int:
    """`place`: whose trail and which log."""
    claim = _claimed(runtime, place)
    written, rests = 0, None
    while claim is not None and written < MOST:
        found = runtime.database.rows(_NEXT, {**place, "position": claim.position})
        if not found:
            break
        try:
            _WRITERS[place["name"]](runtime.config, found)
        except (OSError, ValueError) as error:  # ValueError: a name that no host can have
            log.error("audit log not written", extra={"log": place["name"], "error": _kind(error)})  # noqa: TRY400
            rests = REST
            break
        written += len(found)
        claim = _noted(runtime, place, claim, found[-1].position, CLAIM)
    if claim is not None:
        _noted(runtime, place, claim, claim.position, rests)
    return written


@dataclass(frozen=True, slots=True)
class _Claim:
    """A log that this process has to itself: how far it has come, and until when."""

    position: int
    until: datetime | None


def _kind(error: OSError | ValueError) -> str:
    """Its number's name, like ECONNREFUSED; its text may name a file or a host."""
    if isinstance(error, ssl.SSLError | socket.gaierror | ValueError):
        return type(error).__name__
    return errno.errorcode.get(error.errno or 0, type(error).__name__)


def _claimed(runtime: Runtime, place: dict[str, str]) -> _Claim | None:
    """None where there is nothing new, or the log is another's now."""
    sink = runtime.database.row(_SINK, place)
    position, now = sink.position if sink else 0, runtime.now()
    if runtime.database.row(_NEXT, {**place, "position": position}) is None:
        return None
    with runtime.database.writing() as connection:
        begin = inserts(AuditSink)[connection.dialect.name].on_conflict_do_nothing()
        connection.execute(begin, {**place, "position": 0})
        names = {**_its(place), "now": now, "until": now + CLAIM}
        taken = connection.execute(_TAKE, names).first()
    return None if taken is None else _Claim(int(taken.position), names["until"])


def _noted(
    runtime: Runtime,
    place: dict[str, str],
    claim: _Claim,
    position: int,
    longer: timedelta | None,
) -> _Claim | None:
    """It has come so far, and nobody else is to go on for so much `longer`; None where it is another's by now."""
    until = None if longer is None else runtime.now() + longer
    names = {**_its(place), "come_to": position, "mine": claim.until, "until": until}
    with runtime.database.writing() as connection:
        still = connection.execute(_NOTE, names).first()
    return None if still is None else _Claim(position, until)


def _its(place: dict[str, str]) -> dict[str, Any]:
    return {f"its_{name}": value for name, value in place.items()}


_NEXT = (
    sa.select(_EVENTS, _LINKS.c.position, _LINKS.c.mac)
    .join(_LINKS, _LINKS.c.event_id == _EVENTS.c.id)
    .where(
        _LINKS.c.account_id == sa.bindparam("account_id"),
        _LINKS.c.position > sa.bindparam("position"),
    )
    .order_by(_LINKS.c.position)
    .limit(BATCH)
)
_SINK = sa.select(_SINKS).where(
    _SINKS.c.account_id == sa.bindparam("account_id"), _SINKS.c.name == sa.bindparam("name")
)
_MINE = sa.and_(
    _SINKS.c.account_id == sa.bindparam("its_account_id"),
    _SINKS.c.name == sa.bindparam("its_name"),
)
_TIME = _SINKS.c.claimed_until.type
_TAKE = (
    sa.update(_SINKS)
    .where(
        _MINE,
        sa.or_(
            _SINKS.c.claimed_until.is_(None),
            _SINKS.c.claimed_until <= sa.bindparam("now", type_=_TIME),
        ),
    )
    .values(claimed_until=sa.bindparam("until", type_=_TIME))
    .returning(_SINKS.c.position)
)
_NOTE = (
    sa.update(_SINKS)
    .where(_MINE, _SINKS.c.claimed_until == sa.bindparam("mine", type_=_TIME))
    .values(position=sa.bindparam("come_to"), claimed_until=sa.bindparam("until", type_=_TIME))
    .returning(_SINKS.c.position)
)


# How a row is written -------------------------------------------------------------------------------

Found = Sequence[sa.Row[Any]]


def _line(config: Config, row: sa.Row[Any]) -> str:
    """A row as one line of ASCII, without its end."""
    facts = {"account_id": row.account_id, **described(row)}
    if config.audit_log_format == "json":
        return json.dumps(facts)
    words = (f"{name}={_word(value)}" for name, value in facts.items() if value is not None)
    return " ".join(words)


def _word(value: Any) -> str:
    """As it is where it is plain, else as JSON."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


_PLAIN = re.compile(r"[!#-<>-~]+")


def _to_stderr(config: Config, rows: Found) -> None:
    sys.stderr.write("".join(f"{_line(config, row)}\n" for row in rows))
    sys.stderr.flush()


def _to_syslog(config: Config, rows: Found) -> None:
    entries = [
        syslog.Entry(
            syslog.NOTICE if row.outcome == "done" else syslog.WARNING,
            row.happened_at,
            _line(config, row),
        )
        for row in rows
    ]
    syslog.send(config.audit_log_syslog_address, entries)


def _to_file(config: Config, rows: Found) -> None:
    """Behind what is there, on the disk on return. The file may be moved away and begin anew at any time."""
    # Not blocking: a pipe that nobody reads would hold the sweeps.
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    with os.fdopen(os.open(config.audit_log_file, flags, 0o600), "r+b", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "no file")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        end = file.seek(0, os.SEEK_END)
        # What was cut off in the middle of a line comes again as a whole.
        cut = end > 0 and os.pread(file.fileno(), 1, end - 1) != b"\n"
        text = "".join(f"{_line(config, row)}\n" for row in rows)
        left = memoryview(("\n" * cut + text).encode("ascii"))
        while left:
            left = left[os.write(file.fileno(), left) :]
        os.fsync(file.fileno())
    if end == 0:  # it is new: its name is to be there after a loss of power, too
        folder = os.open(Path(config.audit_log_file).parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


_WRITERS: Mapping[str, Callable[[Config, Found], None]] = {
    FILE: _to_file,
    SYSLOG: _to_syslog,
    STDERR: _to_stderr,
}


# How it stands --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Behind:
    """A log that has not taken what was chained at `since`, the oldest of it."""

    log: str
    since: datetime


def behind(runtime: Runtime) -> list[Behind]:
    """The logs that are wanted and have rows waiting; raises DatabaseAway."""
    found = []
    for name in runtime.config.audit_sinks:
        for account in runtime.database.rows(_ACCOUNTS, {}):
            place = {"account_id": account.account_id, "name": name}
            row = runtime.database.row(_OLDEST, place)
            if row is not None:
                found.append(Behind(name, row.linked_at))
    return found


_COME_TO = sa.func.coalesce(
    sa.select(_SINKS.c.position)
    .where(_SINKS.c.account_id == sa.bindparam("account_id"), _SINKS.c.name == sa.bindparam("name"))
    .scalar_subquery(),
    0,
)
_OLDEST = (
    sa.select(_LINKS.c.linked_at)
    .where(_LINKS.c.account_id == sa.bindparam("account_id"), _LINKS.c.position > _COME_TO)
    .order_by(_LINKS.c.position)
    .limit(1)
)
