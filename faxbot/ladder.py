"""How the next call to a number is made: which step of its provider's ladder it takes, and from which page on.

The machines could not agree, or a page failed: the next call takes one step more, slower and surer (trait `ladder`);
the step that worked is remembered for the number, and calls begin with it. Pages that the far end has confirmed one
by one (trait `confirms_pages`) are not sent again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from faxbot.db import inserts
from faxbot.jobs import number_keys
from faxbot.models import Attempt, Job, JobRow, ProvenStep
from faxbot.plugins.manifest import Manifest
from faxbot.runtime import Runtime

STEPPING = frozenset(
    {
        "bearer",
        "dropped_early",
        "handshake_failed",
        "no_fax_tone",
        "page_failed",
        "session_timeout",
        "t38_failed",
    }
)
"""Causes after which the same call once more would likely end the same way."""
HEADER_LENGTH = 50


@dataclass(frozen=True, slots=True)
class Way:
    """How a call is made: its step (None: its provider has no ladder), and the first page that it sends, from 1."""

    step: int | None = None
    first_page: int = 1

    def header(self, header: str, pages: int) -> str:
        """The line at the top of each page; of a fax that goes on, it says so. At most 50 characters."""
        if self.first_page == 1:
            return header
        words = f"page {self.first_page} of {pages}, continued"
        room = HEADER_LENGTH - len(words) - 3
        return f"{header[:room].rstrip()} ({words})" if header and room > 0 else words


def way(runtime: Runtime, job: Job | JobRow, manifest: Manifest, pages: int) -> Way:
    """How this fax is sent through this provider now."""
    steps = int(next(iter(manifest.values("ladder")), 1))
    confirms = manifest.has("confirms_pages") and runtime.config.continue_faxes
    if steps == 1 and not confirms:
        return Way()
    names = {"account_id": job.account_id, "provider_id": manifest.id}
    earlier = runtime.database.rows(_EARLIER, {**names, "job_id": job.id}) if job.attempts else []
    step = None
    if steps > 1:
        numbers = number_keys(runtime.keyring, job)
        proven = runtime.database.row(_PROVEN, {**names, "to_keys": numbers})
        step = min(_step(proven.step if proven else 0, earlier), steps - 1)
    confirmed = max((row.pages_sent for row in earlier if row.outcome == "failed"), default=0)
    return Way(step, min(confirmed + 1, pages) if confirms else 1)


def _step(first: int, earlier: Any) -> int:
    """One more than that of the last call, where it ended in one of STEPPING."""
    step = first
    for row in earlier:
        step = max(step, (row.step or 0) + (row.cause in STEPPING))
    return step


def worked(
    session: Session, job: Job, attempt: Attempt, now: datetime, numbers: tuple[str, ...]
) -> None:
    """Remember how a fax was delivered to its number, which has these keyed hashes. Numbers where the fastest way works
    have no row."""
    if attempt.step is None:
        return
    here = {"account_id": job.account_id, "provider_id": attempt.provider_id, "to_keys": numbers}
    found = session.execute(_PROVEN, here).first()
    if found is None and attempt.step == 0:
        return
    dialect = session.get_bind().dialect.name
    insert = inserts(ProvenStep)[dialect].values(
        account_id=job.account_id,
        to_key=job.to_key,
        provider_id=attempt.provider_id,
        step=attempt.step,
        updated_at=now,
    )
    changed = {"step": insert.excluded.step, "updated_at": insert.excluded.updated_at}
    session.execute(
        insert.on_conflict_do_update(
            index_elements=["account_id", "to_key", "provider_id"], set_=changed
        )
    )


_EARLIER = (
    sa.select(Attempt.outcome, Attempt.cause, Attempt.step, Attempt.pages_sent)
    .where(
        Attempt.job_id == sa.bindparam("job_id"),
        Attempt.account_id == sa.bindparam("account_id"),
        Attempt.provider_id == sa.bindparam("provider_id"),
    )
    .order_by(Attempt.number)
)
_PROVEN = (
    sa.select(ProvenStep.step)
    .where(
        ProvenStep.account_id == sa.bindparam("account_id"),
        ProvenStep.to_key.in_(sa.bindparam("to_keys", expanding=True)),
        ProvenStep.provider_id == sa.bindparam("provider_id"),
    )
    .order_by(ProvenStep.updated_at.desc())
)
