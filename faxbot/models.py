"""All tables of the ledger. Columns named *_sealed hold PHI under the keyring; *_at are aware UTC
times.

The job row is also its own outbox: a due row that nobody claimed is announced again by the sweep.
Every table has an account_id. A status is moved by results.record_event() only, and the database
refuses pairs that events.py does not hold.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from faxbot.db import Base, UtcDateTime
from faxbot.events import DEFAULT_ACCOUNT, ENDS, OPEN, TERMINAL, Status

Id = String(32)
Name = String(64)
Digest = String(64)
BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
IS_OPEN = f"status IN ({', '.join(repr(str(status)) for status in OPEN)})"
"""What ix_jobs_due holds. A question that is to use it must ask for exactly this beside its own
status: SQLite takes no other condition for the same."""


HAS_COPY = "delete_copy_at IS NOT NULL"
HAS_ENDED = (
    f"purged_at IS NULL AND status IN ({', '.join(repr(str(s)) for s in Status if s not in OPEN)})"
)
"""Of a fax whose numbers are still there; what ix_jobs_ended holds, in these words."""


def _where(column: str) -> dict[str, Any]:
    """Of an index over the rows that have this column."""
    condition = sa.text(f"{column} IS NOT NULL")
    return {"postgresql_where": condition, "sqlite_where": condition}


class Job(Base):
    """One outbound fax to one number."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_account", "account_id", "id"),
        Index("ix_jobs_account_status", "account_id", "status", "id"),
        Index("ix_jobs_account_to", "account_id", "to_key", "id"),
        Index(
            "ix_jobs_account_provider", "account_id", "provider_id", "id", **_where("provider_id")
        ),
        Index(
            "ix_jobs_waiting",
            "account_id",
            "waiting",
            "to_key",
            postgresql_where=sa.text("waiting IS NOT NULL"),
            sqlite_where=sa.text("waiting IS NOT NULL"),
        ),
        Index(
            "ix_jobs_due",
            "status",
            "next_at",
            postgresql_where=sa.text(IS_OPEN),
            sqlite_where=sa.text(IS_OPEN),
        ),
        Index(
            "ix_jobs_ended",
            "updated_at",
            "id",
            postgresql_where=sa.text(HAS_ENDED),
            sqlite_where=sa.text(HAS_ENDED),
        ),
        Index("ix_jobs_purged", "purged_at", "id", **_where("purged_at")),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    account_id: Mapped[str] = mapped_column(Name, default=DEFAULT_ACCOUNT)
    created_by: Mapped[str] = mapped_column(Name)
    status: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(String(32))
    """Why it is held, or the cause of the last failed attempt."""
    to_sealed: Mapped[bytes]
    """Empty, as to_key, once retention has removed the number."""
    to_key: Mapped[str] = mapped_column(Digest)
    header_sealed: Mapped[bytes | None]
    resolution: Mapped[str] = mapped_column(String(8))
    priority: Mapped[int] = mapped_column(sa.SmallInteger)
    tags: Mapped[dict[str, Any]] = mapped_column(sa.JSON)
    wanted_provider_id: Mapped[str | None] = mapped_column(Name)
    provider_id: Mapped[str | None] = mapped_column(Name)
    external_id: Mapped[str | None] = mapped_column(String(255))
    pages: Mapped[int | None]
    pages_sent: Mapped[int] = mapped_column(default=0)
    attempts: Mapped[int] = mapped_column(default=0)
    """Attempt rows so far."""
    attempts_at_most: Mapped[int | None]
    """Of how many, if all that follow end like the last one; None: no limit was met, or earlier code decided."""
    tries: Mapped[int] = mapped_column(default=0)
    """Attempts that use up the limits."""
    faults: Mapped[int] = mapped_column(default=0, server_default="0")
    """Claims in a row that this server's own trouble ended before the intent."""
    deaths: Mapped[int] = mapped_column(default=0, server_default="0")
    """Claims since the last attempt whose worker was never heard of again."""
    waiting: Mapped[str | None] = mapped_column(String(80))
    """What it waits for before its call, beside its time: `number`, or `provider:` and its id; `let_in:` and its
    id when its turn has come."""
    resend_of: Mapped[str | None] = mapped_column(Id)
    send_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    next_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When somebody must look at it next, whatever its status; None once it is final."""
    rung_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    fence: Mapped[int] = mapped_column(default=0)
    cancel_requested_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_sequence: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    """When something happened to it last; that retention removed something does not count."""
    purged_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When retention removed its numbers."""
    legal_hold_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Since when nothing of it may be removed."""


JobRow = sa.Row[Any]
"""A job as it was read: its columns by name, for those who change nothing through it."""


class JobTag(Base):
    """An index over jobs.tags, for lists filtered by tag."""

    __tablename__ = "job_tags"
    __table_args__ = (Index("ix_job_tags_find", "account_id", "name", "value", "job_id"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(Name, primary_key=True)
    value: Mapped[str] = mapped_column(String(255))
    account_id: Mapped[str] = mapped_column(Name, default=DEFAULT_ACCOUNT)


class Attempt(Base):
    """One call to one provider for one job; `tag` is its own name at the carrier and the locator
    of its callbacks."""

    __tablename__ = "attempts"
    __table_args__ = (
        UniqueConstraint("job_id", "number"),
        UniqueConstraint("tag"),
        Index("ix_attempts_external", "provider_id", "external_id"),
        Index("ix_attempts_answered", "provider_id", "answered_at"),
        Index(
            "ix_attempts_copies",
            "delete_copy_at",
            postgresql_where=sa.text(HAS_COPY),
            sqlite_where=sa.text(HAS_COPY),
        ),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    account_id: Mapped[str] = mapped_column(Name, default=DEFAULT_ACCOUNT)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    number: Mapped[int]
    provider_id: Mapped[str] = mapped_column(Name)
    tag: Mapped[str] = mapped_column(Name)
    callback_base: Mapped[str | None] = mapped_column(sa.Text)
    """What PUBLIC_API_URL was when its callback's address was given to the carrier, which signs it."""
    fence: Mapped[int]
    outcome: Mapped[str] = mapped_column(String(16), default="open")
    """open, accepted, unknown; then refused, delivered, failed, absent, cancelled."""
    cause: Mapped[str | None] = mapped_column(String(32))
    external_id: Mapped[str | None] = mapped_column(String(255))
    counted: Mapped[bool] = mapped_column(default=False)
    pages_sent: Mapped[int] = mapped_column(default=0)
    looks: Mapped[int] = mapped_column(default=0)
    """Look-ups and polls so far since the outcome was last known."""
    absences: Mapped[int] = mapped_column(default=0)
    planned_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When it was to be made; None: earlier code made it."""
    intended_at: Mapped[datetime] = mapped_column(UtcDateTime)
    answered_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When its call came back."""
    verdict: Mapped[str | None] = mapped_column(String(8))
    """What the call said of the provider: ok, fault or slow; None: nothing."""
    accepted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    step: Mapped[int | None] = mapped_column(sa.SmallInteger)
    """Of its provider's ladder; None: it has none."""
    first_page: Mapped[int] = mapped_column(default=1, server_default="1")
    """The first page that it sent: the ones before were confirmed earlier."""
    settings_hash: Mapped[str | None] = mapped_column(String(16))
    """Of how its provider was set (routing.settings_hash); None: earlier code called."""
    delete_copy_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the carrier is to be asked to delete its copy of the document; None: it need not be."""
    copy_wanted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Since when retention wants it deleted; None: since the end, if it is wished at all."""
    copy_deleted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the carrier had deleted it."""


def _among(column: str, words: Iterable[str]) -> str:
    """That a column is one of these, the same text whoever asks."""
    return f"{column} IN ({', '.join(sorted(repr(str(word)) for word in words))})"


IS_END = f"{_among('type', ENDS)} AND {_among('status', TERMINAL)}"
"""Of the one event with which a fax that is sent came to its end; what ix_events_ended holds, in these words."""


class FaxEvent(Base):
    """The results table: one immutable fact about one fax, sent (`job_id`) or received (`inbound_id`), numbered without
    gaps per fax. No PHI."""

    __tablename__ = "events"
    __table_args__ = (
        UniqueConstraint("job_id", "sequence"),
        UniqueConstraint("job_id", "key"),
        Index("uq_events_inbound", "inbound_id", "sequence", unique=True, **_where("inbound_id")),
        Index(
            "ix_events_ended",
            "account_id",
            "status",
            "recorded_at",
            "job_id",
            postgresql_where=sa.text(IS_END),
            sqlite_where=sa.text(IS_END),
        ),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    account_id: Mapped[str] = mapped_column(Name, default=DEFAULT_ACCOUNT)
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    inbound_id: Mapped[str | None] = mapped_column(ForeignKey("inbound_faxes.id"))
    sequence: Mapped[int]
    type: Mapped[str] = mapped_column(String(32))
    schema_version: Mapped[int] = mapped_column(sa.SmallInteger)
    status: Mapped[str] = mapped_column(String(16))
    """The status after this event."""
    attempt: Mapped[int | None]
    provider_id: Mapped[str | None] = mapped_column(Name)
    cause: Mapped[str | None] = mapped_column(String(32))
    reason: Mapped[str | None] = mapped_column(String(32))
    pages: Mapped[int | None]
    pages_sent: Mapped[int | None]
    source: Mapped[str] = mapped_column(String(16))
    """api, worker, sweep, callback, look_up, poll or person."""
    key: Mapped[str | None] = mapped_column(Digest)
    """What makes a repeat of the same news known as one."""
    occurred_at: Mapped[datetime] = mapped_column(UtcDateTime)
    recorded_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Decision(Base):
    """What a named person decided about an uncertain fax, and why."""

    __tablename__ = "decisions"
    __table_args__ = (Index("ix_decisions_job", "job_id"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    account_id: Mapped[str] = mapped_column(Name, default=DEFAULT_ACCOUNT)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    attempt: Mapped[int]
    outcome: Mapped[str] = mapped_column(String(16))
    """delivered, failed or retry."""
    actor: Mapped[str] = mapped_column(Name)
    reason_sealed: Mapped[bytes]
    decided_at: Mapped[datetime] = mapped_column(UtcDateTime)


class IdempotencyKey(Base):
    """The first answer to a keyed request, to be given again byte for byte."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index("ix_idempotency_keys_expires", "expires_at"),)

    account_id: Mapped[str] = mapped_column(Name, primary_key=True, default=DEFAULT_ACCOUNT)
    route: Mapped[str] = mapped_column(Name, primary_key=True)
    key_hash: Mapped[str] = mapped_column(Digest, primary_key=True)
    fingerprint: Mapped[str] = mapped_column(Digest)
    job_id: Mapped[str] = mapped_column(Id)
    response_status: Mapped[int] = mapped_column(sa.SmallInteger)
    response_sealed: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Artifact(Base):
    """Stored bytes with hash and type: a submitted document, or the fax pages made of all of them; a received one, and
    the PDF that was made of it; or the body of a callback."""

    __tablename__ = "artifacts"
    __table_args__ = (
        UniqueConstraint("job_id", "role", "position"),
        *(
            Index(
                f"uq_artifacts_{owner}", f"{owner}_id", "role", unique=True, **_where(f"{owner}_id")
            )
            for owner in ("inbound", "callback")
        ),
        Index("ix_artifacts_going", "id", **_where("deleted_at")),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    account_id: Mapped[str] = mapped_column(Name, default=DEFAULT_ACCOUNT)
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    inbound_id: Mapped[str | None] = mapped_column(ForeignKey("inbound_faxes.id"))
    callback_id: Mapped[str | None] = mapped_column(ForeignKey("callbacks.id"))
    role: Mapped[str] = mapped_column(String(16))
    """document, pages or request."""
    position: Mapped[int] = mapped_column(sa.SmallInteger)
    storage_id: Mapped[str] = mapped_column(Name)
    key: Mapped[str] = mapped_column(String(255))
    sha256: Mapped[str] = mapped_column(Digest)
    size: Mapped[int] = mapped_column(sa.BigInteger)
    media_type: Mapped[str] = mapped_column(Name)
    pages: Mapped[int]
    ready: Mapped[str | None] = mapped_column(String(8))
    """The resolution in which it consists of fax pages; None where it must be rendered."""
    data_key_sealed: Mapped[bytes | None]
    """What the bytes are sealed with (envelopes); None: they are stored as they came."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    deleted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Since when retention is about to remove the bytes; the row goes when they are gone."""


_WAITING = "applied_at IS NULL"
_UNWANTED = "outcome = 'unwanted'"


class Callback(Base):
    """A carrier's verified message as it came, sealed; applied by a worker, once."""

    __tablename__ = "callbacks"
    __table_args__ = (
        UniqueConstraint("provider_id", "key"),
        Index("ix_callbacks_received", "provider_id", "received_at"),
        Index(
            "ix_callbacks_unwanted",
            "provider_id",
            postgresql_where=sa.text(_UNWANTED),
            sqlite_where=sa.text(_UNWANTED),
        ),
        Index(
            "ix_callbacks_waiting",
            "next_at",
            postgresql_where=sa.text(_WAITING),
            sqlite_where=sa.text(_WAITING),
        ),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    account_id: Mapped[str] = mapped_column(Name, default=DEFAULT_ACCOUNT)
    provider_id: Mapped[str] = mapped_column(Name)
    key: Mapped[str] = mapped_column(Digest)
    raw_sealed: Mapped[bytes]
    received_at: Mapped[datetime] = mapped_column(UtcDateTime)
    next_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    applied_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    tries: Mapped[int] = mapped_column(default=0)
    outcome: Mapped[str | None] = mapped_column(String(16))
    """applied, nothing, unmatched, unreadable, or unwanted: of a fax that was not to be received."""


class CallbackFax(Base):
    """That a callback was about a fax, as its plugin read it, or as the address says to which it came."""

    __tablename__ = "callback_faxes"
    __table_args__ = (Index("ix_callback_faxes_callback", "callback_id"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    callback_id: Mapped[str] = mapped_column(
        ForeignKey("callbacks.id", ondelete="CASCADE"), primary_key=True
    )
    account_id: Mapped[str] = mapped_column(Name, default=DEFAULT_ACCOUNT)


_UNREAD = "read_at IS NULL AND status = 'received'"
_NOT_RECEIVED = "status <> 'received'"
_LOST = "cause = 'no-document' AND read_at IS NULL"


class InboundFax(Base):
    """One fax that somebody sent to us."""

    __tablename__ = "inbound_faxes"
    __table_args__ = (
        UniqueConstraint("account_id", "provider_id", "external_id"),
        Index("ix_inbound_faxes_account", "account_id", "id"),
        Index("ix_inbound_faxes_provider", "account_id", "provider_id", "id"),
        Index("ix_inbound_faxes_from", "account_id", "from_key", "id"),
        Index("ix_inbound_faxes_to", "account_id", "to_key", "id"),
        Index(
            "ix_inbound_faxes_unread",
            "account_id",
            "id",
            postgresql_where=sa.text(_UNREAD),
            sqlite_where=sa.text(_UNREAD),
        ),
        Index(
            "ix_inbound_faxes_status",
            "account_id",
            "status",
            "id",
            postgresql_where=sa.text(_NOT_RECEIVED),
            sqlite_where=sa.text(_NOT_RECEIVED),
        ),
        Index("ix_inbound_faxes_due", "next_at", **_where("next_at")),
        Index(
            "ix_inbound_faxes_lost",
            "id",
            postgresql_where=sa.text(_LOST),
            sqlite_where=sa.text(_LOST),
        ),
        Index("ix_inbound_faxes_callback", "callback_id", **_where("callback_id")),
        Index("ix_inbound_faxes_copies", "delete_copy_at", **_where("delete_copy_at")),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    account_id: Mapped[str] = mapped_column(Name, default=DEFAULT_ACCOUNT)
    provider_id: Mapped[str] = mapped_column(Name)
    external_id: Mapped[str] = mapped_column(String(255))
    status: Mapped[str] = mapped_column(String(16))
    """fetching, received or failed."""
    cause: Mapped[str | None] = mapped_column(String(32))
    """Why it failed, or the code of the trouble with its document."""
    numbers_sealed: Mapped[bytes]
    """Both numbers, as JSON."""
    from_key: Mapped[str | None] = mapped_column(Digest)
    to_key: Mapped[str | None] = mapped_column(Digest)
    pages: Mapped[int | None]
    size: Mapped[int | None] = mapped_column(sa.BigInteger)
    """Bytes of the document as it came."""
    sha256: Mapped[str | None] = mapped_column(Digest)
    callback_id: Mapped[str | None] = mapped_column(Id)
    """The callback that the document came in; None where it is fetched from the carrier."""
    tries: Mapped[int] = mapped_column(default=0)
    fetching_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Since when its document is being had; later by the time in which nobody could."""
    next_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When its document is to be had next, or, once it is stored, what was kept for that is to be let go; None when
    nothing is to be done."""
    last_sequence: Mapped[int] = mapped_column(default=0)
    received_at: Mapped[datetime] = mapped_column(UtcDateTime)
    """By the carrier's clock, where it says."""
    read_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    read_by: Mapped[str | None] = mapped_column(Name)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    purged_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When retention removed its numbers; numbers_sealed is empty then."""
    legal_hold_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Since when nothing of it may be removed."""
    delete_copy_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the carrier is to be asked to delete its copy of the document; None: it need not be."""
    copy_wanted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Since when that is wished: since the document was stored, or retention removed it."""
    copy_deleted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the carrier had deleted it."""


class CallbackRefusal(Base):
    """How often requests to a provider's door were refused for one reason, and when last. Nothing of
    the requests."""

    __tablename__ = "callback_refusals"

    account_id: Mapped[str] = mapped_column(Name, primary_key=True, default=DEFAULT_ACCOUNT)
    provider_id: Mapped[str] = mapped_column(Name, primary_key=True)
    reason: Mapped[str] = mapped_column(String(32), primary_key=True)
    count: Mapped[int] = mapped_column(sa.BigInteger)
    first_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ApiKey(Base):
    """A key that clients present; only a keyed hash of its secret is kept."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    account_id: Mapped[str] = mapped_column(Name, default=DEFAULT_ACCOUNT)
    name: Mapped[str] = mapped_column(String(255))
    secret_hash: Mapped[str] = mapped_column(Digest)
    scopes: Mapped[list[str]] = mapped_column(sa.JSON)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    old_secret_hash: Mapped[str | None] = mapped_column(Digest)
    """Of the secret before the last rotation, which is good as well until old_secret_until."""
    old_secret_until: Mapped[datetime | None] = mapped_column(UtcDateTime)


class ProviderState(Base):
    """What all processes know of one provider: whether it may be called, and since when not."""

    __tablename__ = "provider_states"

    account_id: Mapped[str] = mapped_column(Name, primary_key=True, default=DEFAULT_ACCOUNT)
    provider_id: Mapped[str] = mapped_column(Name, primary_key=True)
    rests_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    reason: Mapped[str | None] = mapped_column(String(32))
    opened_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Since when its breaker is not closed."""
    closed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """What calls said before that does not count any more."""
    openings: Mapped[int] = mapped_column(default=0, server_default="0")
    """In a row, without a success in between."""
    degraded_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    paused_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    paused_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    disabled_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Since when its plugin is not asked, because its own code failed too often."""
    next_call_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Where calls a minute are limited: before it there is none."""
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Lane(Base):
    """A place for a call to one number, and whose it is until when."""

    __tablename__ = "lanes"

    account_id: Mapped[str] = mapped_column(Name, primary_key=True, default=DEFAULT_ACCOUNT)
    to_key: Mapped[str] = mapped_column(Digest, primary_key=True)
    slot: Mapped[int] = mapped_column(sa.SmallInteger, primary_key=True, autoincrement=False)
    job_id: Mapped[str] = mapped_column(Id)
    held_until: Mapped[datetime] = mapped_column(UtcDateTime)
    """Of the call; after it, of the gap that follows."""
    wanted: Mapped[bool] = mapped_column(default=False)
    """Whether a fax waits for it."""


class ProvenStep(Base):
    """The step of a provider's ladder with which a fax reached this number last."""

    __tablename__ = "proven_steps"

    account_id: Mapped[str] = mapped_column(Name, primary_key=True, default=DEFAULT_ACCOUNT)
    to_key: Mapped[str] = mapped_column(Digest, primary_key=True)
    provider_id: Mapped[str] = mapped_column(Name, primary_key=True)
    step: Mapped[int] = mapped_column(sa.SmallInteger)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ProviderProbe(Base):
    """A place among the calls that may try a provider whose breaker is half open."""

    __tablename__ = "provider_probes"

    account_id: Mapped[str] = mapped_column(Name, primary_key=True, default=DEFAULT_ACCOUNT)
    provider_id: Mapped[str] = mapped_column(Name, primary_key=True)
    slot: Mapped[int] = mapped_column(sa.SmallInteger, primary_key=True, autoincrement=False)
    job_id: Mapped[str] = mapped_column(Id)
    lease_until: Mapped[datetime] = mapped_column(UtcDateTime)
    succeeded: Mapped[bool] = mapped_column(default=False)


class ProviderHistory(Base):
    """What happened to a provider, and who did it. No PHI."""

    __tablename__ = "provider_events"
    __table_args__ = (Index("ix_provider_events_provider", "account_id", "provider_id", "id"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    account_id: Mapped[str] = mapped_column(Name, default=DEFAULT_ACCOUNT)
    provider_id: Mapped[str] = mapped_column(Name)
    type: Mapped[str] = mapped_column(String(32))
    reason: Mapped[str | None] = mapped_column(String(32))
    note: Mapped[str | None] = mapped_column(String(255))
    """What the person said who did it."""
    actor: Mapped[str] = mapped_column(Name)
    """An API key's id, `cli`, `worker` or `clock`."""
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    recorded_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Heartbeat(Base):
    """When something that runs by the clock was last done."""

    __tablename__ = "heartbeats"

    account_id: Mapped[str] = mapped_column(Name, primary_key=True, default=DEFAULT_ACCOUNT)
    name: Mapped[str] = mapped_column(Name, primary_key=True)
    beat_at: Mapped[datetime] = mapped_column(UtcDateTime)
    failures: Mapped[int] = mapped_column(sa.BigInteger, default=0, server_default="0")
    """How often it failed, since ever."""


class EventCount(Base):
    """How many events of one kind there were in one span of time (figures); nothing of the faxes."""

    __tablename__ = "event_counts"

    span: Mapped[int] = mapped_column(sa.SmallInteger, primary_key=True, autoincrement=False)
    """In minutes: 1 or 60; 0: since ever."""
    minute: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True, autoincrement=False)
    """With which it begins, counted since 1970; 0 where it is since ever."""
    account_id: Mapped[str] = mapped_column(Name, primary_key=True, default=DEFAULT_ACCOUNT)
    type: Mapped[str] = mapped_column(String(32), primary_key=True)
    status: Mapped[str] = mapped_column(String(16), primary_key=True)
    """After the event."""
    provider_id: Mapped[str] = mapped_column(Name, primary_key=True)
    cause: Mapped[str] = mapped_column(String(32), primary_key=True)
    """As provider_id empty where the event has none."""
    times: Mapped[int] = mapped_column(sa.BigInteger)


class DurationCount(Base):
    """How many faxes took how long in one span of time, which is told as in event_counts."""

    __tablename__ = "duration_counts"

    span: Mapped[int] = mapped_column(sa.SmallInteger, primary_key=True, autoincrement=False)
    minute: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True, autoincrement=False)
    account_id: Mapped[str] = mapped_column(Name, primary_key=True, default=DEFAULT_ACCOUNT)
    measure: Mapped[str] = mapped_column(String(16), primary_key=True)
    """Of figures.MEASURES."""
    provider_id: Mapped[str] = mapped_column(Name, primary_key=True)
    status: Mapped[str] = mapped_column(String(16), primary_key=True)
    step: Mapped[int] = mapped_column(sa.SmallInteger, primary_key=True, autoincrement=False)
    """The first of figures.BOUNDS that it did not exceed; len(BOUNDS): it exceeded them all."""
    times: Mapped[int] = mapped_column(sa.BigInteger)
    milliseconds: Mapped[int] = mapped_column(sa.BigInteger)
    """Of all of them together."""


class CountedEvents(Base):
    """Up to which event all are counted; moved in the transaction that counts them."""

    __tablename__ = "counted_events"

    account_id: Mapped[str] = mapped_column(Name, primary_key=True, default=DEFAULT_ACCOUNT)
    event_id: Mapped[int] = mapped_column(sa.BigInteger)
    recorded_at: Mapped[datetime] = mapped_column(UtcDateTime)


class CachedValue(Base):
    """What a plugin keeps for all processes for a while, sealed; `making_until`: until when who makes it
    anew has time for that."""

    __tablename__ = "plugin_cache"

    account_id: Mapped[str] = mapped_column(Name, primary_key=True, default=DEFAULT_ACCOUNT)
    plugin_id: Mapped[str] = mapped_column(Name, primary_key=True)
    name: Mapped[str] = mapped_column(Name, primary_key=True)
    value_sealed: Mapped[bytes | None]
    good_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    making_until: Mapped[datetime | None] = mapped_column(UtcDateTime)


class ConfigEntry(Base):
    """One value that was saved, sealed: an option of faxbot (scope ""), or a setting of a plugin."""

    __tablename__ = "config_entries"

    account_id: Mapped[str] = mapped_column(Name, primary_key=True, default=DEFAULT_ACCOUNT)
    scope: Mapped[str] = mapped_column(Name, primary_key=True)
    key: Mapped[str] = mapped_column(Name, primary_key=True)
    value_sealed: Mapped[bytes]
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ConfigVersion(Base):
    """How often something was saved; who saves holds this row."""

    __tablename__ = "config_versions"

    account_id: Mapped[str] = mapped_column(Name, primary_key=True, default=DEFAULT_ACCOUNT)
    version: Mapped[int] = mapped_column(sa.BigInteger)
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    sealing_key: Mapped[str | None] = mapped_column(String(16))
    """The id of the master key that seals; None: nobody has noted it yet."""
    upcoming_key: Mapped[str | None] = mapped_column(String(16))
    """Of the one that will seal soon: every process must have it before."""
    retiring_key: Mapped[str | None] = mapped_column(String(16))
    """Of the one that sealed before, while there may be values that only it opens."""
    rotated_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When one of these three changed last."""


_NOT_DONE = "outcome <> 'done'"


class AuditEvent(Base):
    """One deed, for the audit trail: who did what to which object, and how it ended. Never changed; no PHI."""

    __tablename__ = "audit_events"
    __table_args__ = (
        Index("ix_audit_events_happened", "account_id", "happened_at"),
        Index("ix_audit_events_object", "object_kind", "object_id"),
        Index("ix_audit_events_actor", "account_id", "actor", "happened_at"),
        Index("ix_audit_events_action", "account_id", "action", "happened_at"),
        Index(
            "ix_audit_events_outcome",
            "account_id",
            "outcome",
            "happened_at",
            "id",
            postgresql_where=sa.text(_NOT_DONE),
            sqlite_where=sa.text(_NOT_DONE),
        ),
        UniqueConstraint("proof"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    account_id: Mapped[str] = mapped_column(Name, default=DEFAULT_ACCOUNT)
    happened_at: Mapped[datetime] = mapped_column(UtcDateTime)
    actor_kind: Mapped[str] = mapped_column(String(16))
    actor: Mapped[str] = mapped_column(Name)
    action: Mapped[str] = mapped_column(Name)
    object_kind: Mapped[str | None] = mapped_column(String(16))
    object_id: Mapped[str | None] = mapped_column(Name)
    outcome: Mapped[str] = mapped_column(String(16))
    """done, refused or failed."""
    request_id: Mapped[str | None] = mapped_column(Name)
    address: Mapped[str | None] = mapped_column(Name)
    """Where the request came from."""
    details: Mapped[dict[str, Any]] = mapped_column(sa.JSON)
    proof: Mapped[str] = mapped_column(String(96))
    """That faxbot wrote it: a nonce, and HMAC-SHA256 over it and the row, under the data key `audit`."""


class AuditWaiting(Base):
    """A row of the audit trail that has no link yet; the database itself adds it."""

    __tablename__ = "audit_waiting"

    event_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    account_id: Mapped[str] = mapped_column(Name, default=DEFAULT_ACCOUNT)


class AuditLink(Base):
    """A link of the chain over an account's audit trail: its rows in the order in which the sweep found them."""

    __tablename__ = "audit_links"
    __table_args__ = (UniqueConstraint("event_id"),)

    account_id: Mapped[str] = mapped_column(Name, primary_key=True, default=DEFAULT_ACCOUNT)
    position: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    event_id: Mapped[int] = mapped_column(BigId)
    mac: Mapped[str] = mapped_column(Digest)
    """HMAC-SHA256 over the link before and the row, under the data key `audit`."""
    linked_at: Mapped[datetime] = mapped_column(UtcDateTime)


class AuditSink(Base):
    """How far an account's audit trail is written on to one log (auditlog)."""

    __tablename__ = "audit_sinks"

    account_id: Mapped[str] = mapped_column(Name, primary_key=True, default=DEFAULT_ACCOUNT)
    name: Mapped[str] = mapped_column(String(16), primary_key=True)
    position: Mapped[int] = mapped_column(sa.BigInteger)
    """Of the last link that is written."""
    claimed_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Till then one process has it to itself, or it is left alone."""


class DataKey(Base):
    """A random key that is itself sealed under the keyring, for what must outlive a master key."""

    __tablename__ = "data_keys"

    account_id: Mapped[str] = mapped_column(Name, primary_key=True, default=DEFAULT_ACCOUNT)
    name: Mapped[str] = mapped_column(Name, primary_key=True)
    key_sealed: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class RequestCount(Base):
    """How many requests of one actor's minute the processes have taken to hand out, and how many the last one took."""

    __tablename__ = "request_counts"

    account_id: Mapped[str] = mapped_column(Name, primary_key=True, default=DEFAULT_ACCOUNT)
    name: Mapped[str] = mapped_column(String(80), primary_key=True)
    """The actor's kind and id."""
    minute: Mapped[int] = mapped_column(sa.BigInteger)
    used: Mapped[int] = mapped_column(sa.BigInteger)
    granted: Mapped[int] = mapped_column(sa.BigInteger)


class FailedLogin(Base):
    """How often an address failed to log in since the first time, which is too long ago at some time."""

    __tablename__ = "failed_logins"

    account_id: Mapped[str] = mapped_column(Name, primary_key=True, default=DEFAULT_ACCOUNT)
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    """With a password or a key."""
    origin: Mapped[str] = mapped_column(Name, primary_key=True)
    failures: Mapped[int]
    began_at: Mapped[datetime] = mapped_column(UtcDateTime)


class PageCount(Base):
    """How many pages of faxes an account has submitted on one day (UTC); only where that is limited."""

    __tablename__ = "page_counts"

    account_id: Mapped[str] = mapped_column(Name, primary_key=True, default=DEFAULT_ACCOUNT)
    day: Mapped[date] = mapped_column(primary_key=True)
    pages: Mapped[int] = mapped_column(sa.BigInteger)
    full_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the first fax was refused for it."""


class ConfigRevision(Base):
    """What was saved when the settings had this version, sealed as a whole, so that it can be gone back to."""

    __tablename__ = "config_revisions"

    account_id: Mapped[str] = mapped_column(Name, primary_key=True, default=DEFAULT_ACCOUNT)
    version: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True, autoincrement=False)
    saved_at: Mapped[datetime] = mapped_column(UtcDateTime)
    actor: Mapped[str] = mapped_column(Name)
    """Who made it so; `unknown` where it was found as it is."""
    note: Mapped[str | None] = mapped_column(String(255))
    """What the person said."""
    names: Mapped[list[str]] = mapped_column(sa.JSON)
    """What was changed: variables of options, and plugins' settings as plugin.key."""
    backup: Mapped[str | None] = mapped_column(String(255))
    """What somebody called it who wants it kept; the others go when they are old."""
    settings_sealed: Mapped[bytes]


class User(Base):
    """A person who signs in to the console. Never deleted: the audit trail names him."""

    __tablename__ = "users"
    __table_args__ = (
        UniqueConstraint("account_id", "name_key"),
        UniqueConstraint("account_id", "issuer", "subject"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    account_id: Mapped[str] = mapped_column(Name, default=DEFAULT_ACCOUNT)
    name: Mapped[str] = mapped_column(Name)
    name_key: Mapped[str] = mapped_column(String(255))
    """The name as it is compared: without difference of case."""
    role: Mapped[str] = mapped_column(String(16))
    password_hash: Mapped[str | None] = mapped_column(String(255))
    """Argon2id, as a PHC string; None: he comes by way of an identity provider only."""
    issuer: Mapped[str | None] = mapped_column(String(255))
    subject: Mapped[str | None] = mapped_column(String(255))
    """Who he is at that identity provider, for good; names and addresses there may change hands."""
    failures: Mapped[int] = mapped_column(default=0)
    """Wrong passwords in a row."""
    locked_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    disabled_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    password_changed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_login_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class UserSession(Base):
    """Somebody who has signed in; only a keyed hash of his token is kept."""

    __tablename__ = "user_sessions"
    __table_args__ = (
        UniqueConstraint("token_hash"),
        Index("ix_user_sessions_user", "user_id"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    account_id: Mapped[str] = mapped_column(Name, default=DEFAULT_ACCOUNT)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    token_hash: Mapped[str] = mapped_column(Digest)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    seen_at: Mapped[datetime] = mapped_column(UtcDateTime)
    """About when he did something last."""
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    """The end whatever he does."""


_UNDELIVERED, _DEAD = "status = 'waiting'", "status = 'dead'"


class Webhook(Base):
    """A subscription: where events of an account are sent to, and how that place is doing."""

    __tablename__ = "webhooks"
    __table_args__ = (Index("ix_webhooks_account", "account_id", "id"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    account_id: Mapped[str] = mapped_column(Name, default=DEFAULT_ACCOUNT)
    created_by: Mapped[str] = mapped_column(Name)
    name: Mapped[str] = mapped_column(String(255))
    url_sealed: Mapped[bytes | None]
    """It may hold a secret of its owner; None: deleted."""
    secret_sealed: Mapped[bytes | None]
    old_secret_sealed: Mapped[bytes | None]
    """Of before the last rotation; it signs as well until old_secret_until."""
    old_secret_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    types: Mapped[list[str]] = mapped_column(sa.JSON)
    """Of the events it wants; empty: all."""
    state: Mapped[str] = mapped_column(String(16))
    """pending, active, disabled or deleted."""
    reason: Mapped[str | None] = mapped_column(String(16))
    """Why it is disabled: gone or failing."""
    failures: Mapped[int] = mapped_column(default=0)
    """Calls in a row that failed."""
    failing_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the first of them was."""
    rests: Mapped[int] = mapped_column(default=0)
    """In a row, without a success in between."""
    rests_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Of the process that delivers to it."""
    fence: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    """When its address, its types or its secret changed last, or its state."""
    activated_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    disabled_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class WebhookDelivery(Base):
    """One event for one subscriber. Its id is the `webhook-id` on every try. No PHI."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index("ix_webhook_deliveries_webhook", "webhook_id", "id"),
        Index("ix_webhook_deliveries_type", "webhook_id", "type", "id"),
        Index("ix_webhook_deliveries_fax", "fax_id"),
        Index("ix_webhook_deliveries_ended", "ended_at"),
        Index(
            "ix_webhook_deliveries_dead",
            "webhook_id",
            "id",
            postgresql_where=sa.text(_DEAD),
            sqlite_where=sa.text(_DEAD),
        ),
        Index(
            "ix_webhook_deliveries_due",
            "webhook_id",
            "next_at",
            postgresql_where=sa.text(_UNDELIVERED),
            sqlite_where=sa.text(_UNDELIVERED),
        ),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    account_id: Mapped[str] = mapped_column(Name, default=DEFAULT_ACCOUNT)
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    fax_id: Mapped[str] = mapped_column(Id)
    sequence: Mapped[int]
    type: Mapped[str] = mapped_column(String(32))
    body: Mapped[str] = mapped_column(sa.Text)
    """As it is signed."""
    status: Mapped[str] = mapped_column(String(16))
    """waiting, delivered or dead."""
    cause: Mapped[str | None] = mapped_column(String(16))
    """How the last try ended, or why there is none any more."""
    tries: Mapped[int] = mapped_column(default=0)
    """That failed in this turn."""
    turn: Mapped[int] = mapped_column(default=0)
    """0: it is sent for the first time; else which of the replays this is."""
    replays: Mapped[int] = mapped_column(default=0)
    """How often it was asked to be sent again."""
    next_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class WebhookTry(Base):
    """One call with a delivery, and how it ended; nothing of what the receiver answered."""

    __tablename__ = "webhook_tries"
    __table_args__ = (Index("ix_webhook_tries_delivery", "delivery_id", "id"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    account_id: Mapped[str] = mapped_column(Name, default=DEFAULT_ACCOUNT)
    delivery_id: Mapped[str] = mapped_column(
        ForeignKey("webhook_deliveries.id", ondelete="CASCADE")
    )
    turn: Mapped[int]
    """The delivery's: each replay has its own."""
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    duration_ms: Mapped[int]
    code: Mapped[int | None] = mapped_column(sa.SmallInteger)
    outcome: Mapped[str] = mapped_column(String(16))
    """Of dialling.OUTCOMES."""


class LegalHold(Base):
    """That nothing of a fax may be removed, who said so and why; kept when it is lifted, as long as the fax."""

    __tablename__ = "legal_holds"
    __table_args__ = (Index("ix_legal_holds_fax", "fax_id"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    account_id: Mapped[str] = mapped_column(Name, default=DEFAULT_ACCOUNT)
    kind: Mapped[str] = mapped_column(String(16))
    """fax or inbound."""
    fax_id: Mapped[str] = mapped_column(Id)
    actor: Mapped[str] = mapped_column(Name)
    reason_sealed: Mapped[bytes]
    placed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    lifted_by: Mapped[str | None] = mapped_column(Name)
    lifted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


_RUNS_NOW = "state = 'running'"


class RetentionRun(Base):
    """One run of retention, due at one time; whoever finds it due makes it, and nobody twice. One at a time runs."""

    __tablename__ = "retention_runs"
    __table_args__ = (
        UniqueConstraint("account_id", "due_at"),
        Index(
            "uq_retention_runs_running",
            "account_id",
            unique=True,
            postgresql_where=sa.text(_RUNS_NOW),
            sqlite_where=sa.text(_RUNS_NOW),
        ),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    account_id: Mapped[str] = mapped_column(Name, default=DEFAULT_ACCOUNT)
    due_at: Mapped[datetime] = mapped_column(UtcDateTime)
    asked_by: Mapped[str] = mapped_column(Name)
    """`clock`, or who wanted it now."""
    state: Mapped[str] = mapped_column(String(16))
    """running, done or failed."""
    rung_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Of the process that works on it."""
    fence: Mapped[int] = mapped_column(default=0)
    """How often it was claimed; the last one works."""
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class RetentionProof(Base):
    """What one run removed of one class: so many were found, so many are gone. Written with each batch, in its
    transaction."""

    __tablename__ = "retention_proofs"

    run_id: Mapped[str] = mapped_column(
        ForeignKey("retention_runs.id", ondelete="CASCADE"), primary_key=True
    )
    class_: Mapped[str] = mapped_column("class", String(16), primary_key=True)
    account_id: Mapped[str] = mapped_column(Name, default=DEFAULT_ACCOUNT)
    cutoff_at: Mapped[datetime] = mapped_column(UtcDateTime)
    """What ended before goes; the same for the whole run."""
    step: Mapped[int] = mapped_column(sa.SmallInteger, default=0)
    cursor: Mapped[list[str] | None] = mapped_column(sa.JSON)
    """Where its step goes on."""
    expected: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    deleted: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    outcome: Mapped[str] = mapped_column(String(16))
    """open, done; mismatch, storage or failed, where it was broken off."""
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


_UNTOLD = "notification_id IS NULL"


class Notice(Base):
    """One thing that people are to be told of one fax, by one notification plugin. No PHI."""

    __tablename__ = "notices"
    __table_args__ = (
        UniqueConstraint("plugin_id", "fax_id", "sequence"),
        Index(
            "ix_notices_untold",
            "account_id",
            "plugin_id",
            "id",
            postgresql_where=sa.text(_UNTOLD),
            sqlite_where=sa.text(_UNTOLD),
        ),
        Index("ix_notices_notification", "notification_id", "id"),
        Index("ix_notices_created", "created_at"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    account_id: Mapped[str] = mapped_column(Name, default=DEFAULT_ACCOUNT)
    plugin_id: Mapped[str] = mapped_column(Name)
    fax_id: Mapped[str] = mapped_column(Id)
    sequence: Mapped[int]
    """Of the event that it is about: each is told once."""
    kind: Mapped[str] = mapped_column(String(16))
    """Of events.Notable."""
    why: Mapped[str | None] = mapped_column(String(32))
    """Of events.CAUSES or HOLD_REASONS, if it is known."""
    notification_id: Mapped[str | None] = mapped_column(Id)
    """In which message it is told."""
    occurred_at: Mapped[datetime] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class SentNotification(Base):
    """One message of a notification plugin, with one notice or many, and what came of it. Its id is known to who gets
    it (the Message-ID of an e-mail), and the same on every try."""

    __tablename__ = "notifications"
    __table_args__ = (
        Index("ix_notifications_place", "account_id", "plugin_id", "id"),
        Index(
            "ix_notifications_waiting",
            "account_id",
            "plugin_id",
            postgresql_where=sa.text(_UNDELIVERED),
            sqlite_where=sa.text(_UNDELIVERED),
        ),
        Index("ix_notifications_ended", "ended_at"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    account_id: Mapped[str] = mapped_column(Name, default=DEFAULT_ACCOUNT)
    plugin_id: Mapped[str] = mapped_column(Name)
    notices: Mapped[int]
    """How many it tells."""
    status: Mapped[str] = mapped_column(String(16))
    """waiting, sent or given_up."""
    cause: Mapped[str | None] = mapped_column(String(32))
    """How the last try failed; `partly`: some of those to be told were refused; `partly-put-off`: or not taken now, for
    long."""
    tries: Mapped[int] = mapped_column(default=0)
    doubts: Mapped[int] = mapped_column(default=0)
    """Tries of which nobody knows whether they arrived."""
    next_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Notifier(Base):
    """Which process tells people of an account by a notification plugin, and from when on it may tell more."""

    __tablename__ = "notifiers"

    account_id: Mapped[str] = mapped_column(Name, primary_key=True, default=DEFAULT_ACCOUNT)
    plugin_id: Mapped[str] = mapped_column(Name, primary_key=True)
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    fence: Mapped[int] = mapped_column(default=0)
    ready_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """So many messages a minute are sent, and no more: before this there is none."""
