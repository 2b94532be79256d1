"""Heartbeats in the database: what runs by the clock says when it was last done, and others see what does not run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa

from faxbot.db import inserts
from faxbot.events import DEFAULT_ACCOUNT
from faxbot.models import Heartbeat
from faxbot.runtime import Runtime


def beat(runtime: Runtime, names: Iterable[str]) -> None:
    """Say that these were done now."""
    now = runtime.now()
    rows = [{"account_id": DEFAULT_ACCOUNT, "name": name, "beat_at": now} for name in names]
    if not rows:
        return
    with runtime.database.writing() as connection:
        insert = inserts(Heartbeat)[connection.dialect.name]
        connection.execute(
            insert.on_conflict_do_update(
                index_elements=["account_id", "name"], set_={"beat_at": insert.excluded.beat_at}
            ),
            rows,
        )


def missing(runtime: Runtime, names: Sequence[str], limit: timedelta) -> list[str]:
    """Those of which nothing was heard for so long, in order. A server that has just started waits for them first."""
    now = runtime.now()
    if not names or now - runtime.started_at < limit:
        return []
    beats: dict[str, datetime] = {
        row.name: row.beat_at for row in runtime.database.rows(_BEATS, {})
    }
    return [name for name in names if name not in beats or now - beats[name] > limit]


def lately(runtime: Runtime, name: str, within: timedelta) -> bool:
    """Whether this was done within that time."""
    since = {"name": name, "since": runtime.now() - within}
    return runtime.database.row(_LATELY, since) is not None


_LATELY = sa.select(Heartbeat.name).where(
    Heartbeat.account_id == DEFAULT_ACCOUNT,
    Heartbeat.name == sa.bindparam("name"),
    Heartbeat.beat_at > sa.bindparam("since", type_=Heartbeat.beat_at.type),
)
_BEATS = sa.select(Heartbeat.name, Heartbeat.beat_at).where(Heartbeat.account_id == DEFAULT_ACCOUNT)
