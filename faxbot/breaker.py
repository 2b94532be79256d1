"""Until when a provider rests, and why: rows in the database, so every process knows and a restart
forgets nothing.

A refusal of the account or of the rate stops the next faxes as well, before they are tried in vain.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from faxbot import retry
from faxbot.db import Database, inserts
from faxbot.errors import AccountRefused, NotSent, Throttled
from faxbot.models import ProviderState

ACCOUNT_REST = timedelta(minutes=10)
"""After a refused account; then the next fax finds out whether it is mended."""
THROTTLED = "throttled"
ACCOUNT_REFUSED = "account_refused"


@dataclass(frozen=True, slots=True)
class Rest:
    """The provider is not to be called before `until`."""

    until: datetime
    reason: str


def resting(database: Database, account_id: str, provider_id: str, now: datetime) -> Rest | None:
    """The rest this provider takes at the moment, None when it may be called."""
    state = database.row(_STATE, {"account_id": account_id, "provider_id": provider_id})
    if state is None or state.rests_until is None or state.rests_until <= now:
        return None
    return Rest(state.rests_until, state.reason or ACCOUNT_REFUSED)


_STATE = sa.select(ProviderState.rests_until, ProviderState.reason).where(
    ProviderState.account_id == sa.bindparam("account_id"),
    ProviderState.provider_id == sa.bindparam("provider_id"),
)


def note(
    session: Session, account_id: str, provider_id: str, error: NotSent, now: datetime
) -> None:
    """Let the provider rest when `error` is about the account or the rate; else nothing.

    Several workers may say so at once; a rest that lasts longer is not cut short by a later word.
    """
    if isinstance(error, AccountRefused):
        until, reason = now + ACCOUNT_REST, ACCOUNT_REFUSED
    elif isinstance(error, Throttled):
        wait = retry.asked_wait(error.retry_after) or 1.0
        until, reason = now + timedelta(seconds=wait), THROTTLED
    else:
        return
    state = inserts(ProviderState)[session.get_bind().dialect.name].values(
        account_id=account_id,
        provider_id=provider_id,
        rests_until=until,
        reason=reason,
        updated_at=now,
    )
    new = state.excluded
    session.execute(
        state.on_conflict_do_update(
            index_elements=["account_id", "provider_id"],
            set_={
                "rests_until": new.rests_until,
                "reason": new.reason,
                "updated_at": new.updated_at,
            },
            where=sa.or_(
                ProviderState.rests_until.is_(None), ProviderState.rests_until < new.rests_until
            ),
        )
    )
