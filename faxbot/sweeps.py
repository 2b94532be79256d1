"""The sweeps, which find what nobody was told of: one for each open status, and for stored callbacks, received faxes,
webhooks, notices, resting providers, what people must look at, events to count, counts that are over, and the audit
trail.

Each asks for what is due, however long it has been so, and leaves a heartbeat in the database when it
is done. What ails one of them keeps no other from its faxes, and shows: a heartbeat that is overdue
makes the server unfit (health).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import sqlalchemy as sa

from faxbot import (
    alarms,
    breaker,
    callbacks,
    chain,
    claims,
    copies,
    deliveries,
    fetching,
    figures,
    heartbeats,
    lanes,
    limits,
    notices,
    notifying,
    retention,
)
from faxbot.events import Status
from faxbot.models import IS_OPEN, Job
from faxbot.runtime import Runtime

log = logging.getLogger(__name__)


def _look_after_providers(runtime: Runtime) -> int:
    """See which providers are well again, and wake faxes that are held for them: some hundreds where
    one is well, and as many as may try it where one has rested."""
    now = runtime.now()
    with runtime.database.transaction() as session:
        breaker.recover(session, now)
    runtime.breakers.forget()
    woken = 0
    for row in runtime.database.rows(_HELD_ACCOUNTS, {}):
        standings = [
            runtime.breakers.standing(row.account_id, provider_id, now)
            for provider_id in runtime.config.providers_for(None)
        ]
        states = {standing.state(now) for standing in standings}
        if "closed" in states:
            # Who was looked at since something changed is held for something else.
            changes = [standing.updated_at for standing in standings if standing.updated_at]
            until = max([runtime.started_at, *changes]) + MARGIN
            until += breaker.look_again(runtime.config, breaker.FAILING)
            woken += claims.wake_held(runtime, row.account_id, breaker.REASONS, until=until)
        elif "half_open" in states:
            probes = runtime.config.breaker_probes
            woken += claims.wake_held(runtime, row.account_id, breaker.REASONS, limit=probes)
    return woken


_HELD_ACCOUNTS = (
    sa.select(Job.account_id)
    .where(sa.text(IS_OPEN), Job.status == Status.HELD.value, Job.reason.in_(breaker.REASONS))
    .distinct()
)


SWEEPS: dict[str, Callable[[Runtime], int]] = {
    "providers": _look_after_providers,
    "waiting": lanes.let_in,
    **{str(status): partial(claims.announce_due, status=status) for status in claims.TASKS},
    "callbacks": callbacks.announce_waiting,
    "received": fetching.sweep,
    "copies": copies.announce_due,
    "webhooks": deliveries.announce_due,
    "deliveries": deliveries.tidy,
    "retention": retention.announce_due,
    "waits": notices.note_waits,
    "notices": notifying.announce_due,
    "told": notices.tidy,
    "alarms": alarms.say,
    "figures": figures.sweep,
    "limits": limits.forget,
    "audit": chain.link,
}
PERIODS = 2
"""So many periods without a heartbeat, and MARGIN, mean that a sweep does not run."""
MARGIN = timedelta(seconds=30)
"""A sweep may wait that long for a busy worker."""


def run(runtime: Runtime) -> None:
    """All sweeps, one after the other. Raises the first error, after the others had their turn."""
    done, failed, errors = [], [], []
    for name, sweep in SWEEPS.items():
        try:
            sweep(runtime)
        except Exception as error:  # noqa: BLE001 - it is raised when the others are done
            # The class only: the text of a foreign exception may hold anything.
            log.error("sweep failed", extra={"sweep": name, "exception": type(error).__name__})  # noqa: TRY400
            failed.append(name)
            errors.append(error)
        else:
            done.append(name)
    heartbeats.beat(runtime, done)
    heartbeats.fail(runtime, failed)
    if errors:
        raise errors[0]


def overdue(runtime: Runtime) -> list[str]:
    """The sweeps that do not run, in order. A server that has just started waits for them first."""
    limit = timedelta(seconds=PERIODS * runtime.config.sweep_seconds) + MARGIN
    return heartbeats.missing(runtime, list(SWEEPS), limit)
