"""Guards everybody against a provider plugin whose own code fails: it is disabled, says so, and is enabled again by a
person.

A carrier's errors are no fault of its plugin (the breaker counts those); what counts is an exception that no contract
knows, and a call that outlasts what a call may take. Strangers' requests never count: they could switch a provider off.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from faxbot import breaker
from faxbot.events import ProviderEvent
from faxbot.models import ProviderHistory, ProviderState
from faxbot.runtime import Runtime

log = logging.getLogger(__name__)

OVERRUN = "overrun"
MARGIN = 2.5
"""A plugin may make two calls in one (a token, then the fax); beyond so many times the limit it is its own doing."""


def failed(runtime: Runtime, account_id: str, provider_id: str, error: Exception | str) -> None:
    """Note a fault of a plugin's own code, and disable it where it is one too many. `error`: the
    exception, of which only the class is kept, or OVERRUN."""
    now = runtime.now()
    kind = error if isinstance(error, str) else type(error).__name__[:32]
    with runtime.database.transaction() as session:
        state = breaker.locked(session, account_id, provider_id, now)
        breaker.record(session, state, ProviderEvent.PLUGIN_FAILED, now, reason=kind)
        if state.disabled_at is not None:
            return
        session.flush()
        if _faults(session, runtime, state, now) < runtime.config.plugin_faults:
            return
        state.disabled_at = state.updated_at = now
        breaker.record(session, state, ProviderEvent.PLUGIN_DISABLED, now, reason=kind)
    runtime.breakers.forget()
    log.error("plugin disabled", extra={"provider_id": provider_id, "exception": kind})


def _faults(session: Session, runtime: Runtime, state: ProviderState, now: datetime) -> int:
    """Lately, and since it was enabled last; no more are counted than it takes."""
    of_provider = (
        ProviderHistory.account_id == state.account_id,
        ProviderHistory.provider_id == state.provider_id,
    )
    enabled = (
        sa.select(sa.func.coalesce(sa.func.max(ProviderHistory.id), 0))
        .where(*of_provider, ProviderHistory.type == ProviderEvent.PLUGIN_ENABLED.value)
        .scalar_subquery()
    )
    since = now - timedelta(minutes=runtime.config.plugin_fault_minutes)
    faults = (
        sa.select(ProviderHistory.id)
        .where(
            *of_provider,
            ProviderHistory.type == ProviderEvent.PLUGIN_FAILED.value,
            ProviderHistory.id > enabled,
            ProviderHistory.recorded_at > since,
        )
        .limit(runtime.config.plugin_faults)
        .subquery()
    )
    return session.scalar(sa.select(sa.func.count()).select_from(faults)) or 0


def overran(runtime: Runtime, took: timedelta) -> bool:
    """Whether a call of a plugin took longer than its carrier's slowness can explain."""
    return took.total_seconds() > MARGIN * runtime.config.provider_call_seconds


def is_disabled(runtime: Runtime, account_id: str, provider_id: str) -> bool:
    """As known in this process, a second old at most."""
    standing = runtime.breakers.standing(account_id, provider_id, runtime.now())
    return standing.disabled_at is not None


def enable(session: Session, state: ProviderState, now: datetime, *, actor: str, note: str) -> None:
    """Ask a locked provider's plugin again; what it did before does not count any more."""
    state.disabled_at, state.updated_at = None, now
    breaker.record(session, state, ProviderEvent.PLUGIN_ENABLED, now, actor=actor, note=note)
