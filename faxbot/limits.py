"""Limits against mistakes, guessing and toll fraud: requests a minute, failed logins of an address, pages a day; and
one test of a plugin at a time.

The counts are rows that all processes share (tallies); what nobody needs any more is removed by a sweep. A limit that
is 0 is off, and then nothing is counted and nothing asked.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, time, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from faxbot import origins
from faxbot.actors import Actor
from faxbot.db import UtcDateTime, inserts, table
from faxbot.errors import (
    DatabaseAway,
    DocumentTooLarge,
    FailedLogins,
    PagesPerDay,
    PluginTestsCrowded,
    RequestsPerMinute,
)
from faxbot.models import FailedLogin, PageCount, RequestCount
from faxbot.runtime import Runtime
from faxbot.tallies import MINUTE

PASSWORD, API_KEY = "password", "key"
"""They are counted apart: a program with an old key, in a loop, keeps no person of the same address from logging in."""
KEPT = timedelta(hours=1)
PAGES_KEPT = timedelta(days=35)
"""For so long counts of the past are kept; they count nothing any more."""
TEST_SECONDS = 20.0
"""So long takes a test, as a rule, where nobody answers."""
_one_test = threading.Lock()

log = logging.getLogger(__name__)


# Tests ----------------------------------------------------------------------------------------------------------------


@contextmanager
def one_test() -> Iterator[None]:
    """Around a test of a plugin. It waits for somebody else's computer, in a thread of a web process: no more than one
    of them. Raises PluginTestsCrowded."""
    if not _one_test.acquire(blocking=False):
        raise PluginTestsCrowded(retry_after=TEST_SECONDS)
    try:
        yield
    finally:
        _one_test.release()


# Requests a minute --------------------------------------------------------------------------------------------------


def admit(runtime: Runtime, actor: Actor) -> None:
    """Count one request of a known actor against MAX_REQUESTS_PER_MINUTE. Raises RequestsPerMinute, and DatabaseAway
    when this process may not hand out one and cannot ask for more."""
    _take(runtime, actor, runtime.config.requests_per_minute, "requests", "MAX_REQUESTS_PER_MINUTE")


def admit_inbound(runtime: Runtime, actor: Actor, kind: str) -> None:
    """Count one request for received faxes (`list`, `get`) against INBOUND_LIST_RPM or INBOUND_GET_RPM. Raises as
    admit()."""
    config = runtime.config
    limit = config.inbound_lists_per_minute if kind == "list" else config.inbound_gets_per_minute
    setting = f"INBOUND_{kind.upper()}_RPM"
    _take(runtime, actor, limit, "such requests", setting, counted_as=f":{kind}")


def _take(
    runtime: Runtime, actor: Actor, limit: int, what: str, setting: str, *, counted_as: str = ""
) -> None:
    if not limit:
        return
    name = f"{actor.kind}:{actor.id}{counted_as}"
    wait = runtime.tallies.take(actor.account_id, name, limit, runtime.now())
    if wait:
        raise RequestsPerMinute(
            f"This key has had its {limit} {what} of this minute ({setting}).", retry_after=wait
        )


# Failed logins ------------------------------------------------------------------------------------------------------


def barred(runtime: Runtime, address: str | None, kind: str) -> float:
    """For how many seconds more `address` is barred from logins of this kind, as far as this process knows; 0: it is
    not. Asks the database nothing."""
    if address is None or runtime.tallies.none_barred:
        return 0.0
    limit = runtime.config.login_failures
    if not limit:
        return 0.0
    return runtime.tallies.barred(kind, origins.group(address), limit, runtime.now())


def login_allowed(runtime: Runtime, address: str | None, kind: str = PASSWORD) -> None:
    """Ask before a password is even looked at. Raises FailedLogins where the address has failed too often, and
    DatabaseAway; an address that is barred costs no question after the first."""
    limit = runtime.config.login_failures
    if address is None or not limit:
        return
    wait = barred(runtime, address, kind) or runtime.tallies.look(
        kind, origins.group(address), limit, _span(runtime), runtime.now()
    )
    if wait:
        raise FailedLogins(retry_after=wait)


def login_failed(runtime: Runtime, address: str | None, kind: str = PASSWORD) -> None:
    """Count a wrong password or key. Raises FailedLogins when there were too many without it, and DatabaseAway."""
    limit = runtime.config.login_failures
    if address is None or not limit:
        return
    failures, wait = runtime.tallies.failed(
        kind, origins.group(address), limit, _span(runtime), runtime.now()
    )
    if failures == limit:  # one process sees this number
        log.warning("an address failed to log in too often", extra={"login": kind, "limit": limit})
    if failures > limit:
        raise FailedLogins(retry_after=wait)


def _span(runtime: Runtime) -> timedelta:
    return timedelta(minutes=runtime.config.login_minutes)


# Pages a day --------------------------------------------------------------------------------------------------------


def pages(
    runtime: Runtime, connection: Connection, account_id: str, count: int, now: datetime
) -> None:
    """Count the pages of a new fax, in the transaction that records it and as its last statement, because the
    account's other submissions wait for the row until the commit.

    Raises PagesPerDay where they are too many for this day (UTC), DocumentTooLarge where they are for any.
    """
    limit = runtime.config.pages_per_day
    if not limit:
        return
    if count > limit:
        raise DocumentTooLarge(
            f"The fax has {count} pages, and an account may send {limit} a day (FAXBOT_PAGES_PER_DAY)."
        )
    names = {"account": account_id, "today": now.date()}
    counted = connection.scalar(
        _COUNT_PAGES[connection.dialect.name], {**names, "more": count, "most": limit}
    )
    if counted is None:
        left = max(limit - (connection.scalar(_PAGES, names) or 0), 0)
        raise PagesPerDay(
            f"The fax has {count} page{'s' * (count != 1)}, and this account may send {left} more "
            f"until 00:00 UTC (FAXBOT_PAGES_PER_DAY: {limit}).",
            retry_after=_until_midnight(now),
        )


def tell_of_pages(runtime: Runtime, account_id: str, now: datetime) -> None:
    """One line in the log for an account and day, whichever process refused first."""
    names = {"account": account_id, "today": now.date(), "at": now}
    with suppress(DatabaseAway):  # the answer is the same without the line
        if runtime.database.row(_TELL, names) is not None:
            log.warning(
                "an account has sent its pages of the day",
                extra={"account": account_id, "limit": runtime.config.pages_per_day},
            )


def _until_midnight(now: datetime) -> float:
    midnight = datetime.combine(now.date() + timedelta(days=1), time(), now.tzinfo)
    return (midnight - now).total_seconds()


_ACCOUNT = sa.bindparam("account", type_=sa.String)
_TODAY = sa.bindparam("today", type_=sa.Date)
_MORE = sa.bindparam("more", type_=sa.BigInteger)
_COUNT_PAGES = {
    dialect: insert.values(account_id=_ACCOUNT, day=_TODAY, pages=_MORE)
    .on_conflict_do_update(
        index_elements=["account_id", "day"],
        set_={"pages": table(PageCount).c.pages + _MORE},
        where=table(PageCount).c.pages + _MORE <= sa.bindparam("most", type_=sa.BigInteger),
    )
    .returning(table(PageCount).c.pages)
    for dialect, insert in inserts(PageCount).items()
}
_ROW = sa.and_(PageCount.account_id == _ACCOUNT, PageCount.day == _TODAY)
_PAGES = sa.select(PageCount.pages).where(_ROW)
_TELL = (
    sa.update(table(PageCount))
    .where(_ROW, PageCount.full_at.is_(None))
    .values(full_at=sa.bindparam("at", type_=UtcDateTime))
    .returning(table(PageCount).c.day)
)


# What is over -------------------------------------------------------------------------------------------------------


def forget(runtime: Runtime) -> int:
    """Remove the counts of what is over; how many rows they were."""
    now = runtime.now()
    before = now - KEPT
    over = (
        sa.delete(table(RequestCount)).where(RequestCount.minute < before.timestamp() // MINUTE),
        sa.delete(table(FailedLogin)).where(FailedLogin.began_at < before - _span(runtime)),
        sa.delete(table(PageCount)).where(PageCount.day < (now - PAGES_KEPT).date()),
    )
    with runtime.database.writing() as connection:
        return sum(connection.execute(statement).rowcount for statement in over)
