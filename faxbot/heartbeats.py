"""Heartbeats in the database: what runs by the clock says when it was last done, and others see what does not run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from faxbot.db import inserts, table
from faxbot.events import DEFAULT_ACCOUNT
from faxbot.models import Heartbeat
from faxbot.runtime import Runtime

NEVER = datetime(1970, 1, 1, tzinfo=UTC)
"""The beat of what was tried, and never done."""


def beat(runtime: Runtime, names: Iterable[str]) -> None:
    """Say that these were done now."""
    now = runtime.now()
    rows = [{"account_id": DEFAULT_ACCOUNT, "name": name, "beat_at": now} for name in names]
    if not rows:
        return
    runtime.restores.notice(now)
    with runtime.database.writing() as connection:
        insert = inserts(Heartbeat)[connection.dialect.name]
        connection.execute(
            insert.on_conflict_do_update(
                index_elements=["account_id", "name"], set_={"beat_at": insert.excluded.beat_at}
            ),
            rows,
        )
        runtime.restores.beat(connection, now)


def fail(runtime: Runtime, names: Iterable[str]) -> None:
    """Count that these were tried and failed."""
    rows = [
        {"account_id": DEFAULT_ACCOUNT, "name": name, "beat_at": NEVER, "failures": 1}
        for name in names
    ]
    if not rows:
        return
    with runtime.database.writing() as connection:
        insert = inserts(Heartbeat)[connection.dialect.name]
        counted = {"failures": table(Heartbeat).c.failures + 1}
        connection.execute(
            insert.on_conflict_do_update(index_elements=["account_id", "name"], set_=counted), rows
        )


def missing(runtime: Runtime, names: Sequence[str], limit: timedelta) -> list[str]:
    """Those of which nothing was heard for so long, in order. A server that has just started waits for them first."""
    now = runtime.now()
    if not names or now - runtime.started_at < limit:
        return []
    beats = known(runtime)
    return [name for name in names if name not in beats or now - beats[name].beat_at > limit]


def known(runtime: Runtime) -> dict[str, sa.Row[Any]]:
    """By name when all that runs by the clock was last done, and how often it failed: beat_at, failures."""
    return {row.name: row for row in runtime.database.rows(_BEATS, {})}


def lately(runtime: Runtime, name: str, within: timedelta) -> bool:
    """Whether this was done within that time."""
    since = {"name": name, "since": runtime.now() - within}
    return runtime.database.row(_LATELY, since) is not None


_LATELY = sa.select(Heartbeat.name).where(
    Heartbeat.account_id == DEFAULT_ACCOUNT,
    Heartbeat.name == sa.bindparam("name"),
    Heartbeat.beat_at > sa.bindparam("since", type_=Heartbeat.beat_at.type),
)
_BEATS = sa.select(Heartbeat.name, Heartbeat.beat_at, Heartbeat.failures).where(
    Heartbeat.account_id == DEFAULT_ACCOUNT
)
