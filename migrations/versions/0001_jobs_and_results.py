"""Jobs, attempts, the results table, and what the road of one fax needs beside them."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TRANSITIONS: tuple[tuple[str, str], ...] = (
    ("held", "cancelled"),
    ("held", "expired"),
    ("held", "queued"),
    ("queued", "cancelled"),
    ("queued", "expired"),
    ("queued", "failed"),
    ("queued", "held"),
    ("queued", "submitting"),
    ("retrying", "cancelled"),
    ("retrying", "expired"),
    ("retrying", "failed"),
    ("retrying", "held"),
    ("retrying", "submitting"),
    ("sent", "cancelled"),
    ("sent", "delivered"),
    ("sent", "failed"),
    ("sent", "held"),
    ("sent", "retrying"),
    ("sent", "uncertain"),
    ("submitting", "cancelled"),
    ("submitting", "failed"),
    ("submitting", "held"),
    ("submitting", "retrying"),
    ("submitting", "sent"),
    ("submitting", "uncertain"),
    ("uncertain", "cancelled"),
    ("uncertain", "delivered"),
    ("uncertain", "failed"),
    ("uncertain", "retrying"),
    ("uncertain", "sent"),
)
"""The allowed status pairs as they were at this revision; a frozen copy of events.PAIRS."""

FIRST_STATUS = "queued"
OPEN = ("queued", "submitting", "sent", "retrying", "held", "uncertain")

BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def at(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def account() -> sa.Column[object]:
    return sa.Column("account_id", sa.String(64), nullable=False)


def job_key() -> sa.Column[object]:
    return sa.Column(
        "job_id", sa.String(32), sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False
    )


def only_where(condition: str) -> dict[str, Any]:
    return {"postgresql_where": sa.text(condition), "sqlite_where": sa.text(condition)}


def quoted(words: Sequence[str]) -> str:
    return ", ".join(f"'{word}'" for word in words)


def upgrade() -> None:
    jobs_and_attempts()
    results()
    documents()
    doors()
    if op.get_bind().dialect.name == "postgresql":
        guard_postgresql()
    else:
        guard_sqlite()


def jobs_and_attempts() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(32), primary_key=True),
        account(),
        sa.Column("created_by", sa.String(64), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(32)),
        sa.Column("to_sealed", sa.LargeBinary, nullable=False),
        sa.Column("to_key", sa.String(64), nullable=False),
        sa.Column("header_sealed", sa.LargeBinary),
        sa.Column("resolution", sa.String(8), nullable=False),
        sa.Column("priority", sa.SmallInteger, nullable=False),
        sa.Column("tags", sa.JSON, nullable=False),
        sa.Column("wanted_provider_id", sa.String(64)),
        sa.Column("provider_id", sa.String(64)),
        sa.Column("external_id", sa.String(255)),
        sa.Column("pages", sa.Integer),
        sa.Column("pages_sent", sa.Integer, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("resend_of", sa.String(32)),
        at("send_at", nullable=True),
        at("expires_at", nullable=True),
        at("next_at", nullable=True),
        at("rung_at", nullable=True),
        at("lease_until", nullable=True),
        sa.Column("fence", sa.Integer, nullable=False),
        at("cancel_requested_at", nullable=True),
        sa.Column("last_sequence", sa.Integer, nullable=False),
        at("created_at"),
        at("updated_at"),
    )
    op.create_index("ix_jobs_account", "jobs", ["account_id", "id"])
    op.create_index("ix_jobs_account_status", "jobs", ["account_id", "status", "id"])
    op.create_index("ix_jobs_account_to", "jobs", ["account_id", "to_key", "id"])
    op.create_index(
        "ix_jobs_due", "jobs", ["status", "next_at"], **only_where(f"status IN ({quoted(OPEN)})")
    )
    op.create_table(
        "job_tags",
        sa.Column(
            "job_id", sa.String(32), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", sa.String(255), nullable=False),
        account(),
    )
    op.create_index("ix_job_tags_find", "job_tags", ["account_id", "name", "value", "job_id"])
    op.create_table(
        "attempts",
        sa.Column("id", sa.String(32), primary_key=True),
        account(),
        job_key(),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("provider_id", sa.String(64), nullable=False),
        sa.Column("tag", sa.String(64), nullable=False, unique=True),
        sa.Column("fence", sa.Integer, nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("cause", sa.String(32)),
        sa.Column("external_id", sa.String(255)),
        sa.Column("counted", sa.Boolean, nullable=False),
        sa.Column("pages_sent", sa.Integer, nullable=False),
        sa.Column("looks", sa.Integer, nullable=False),
        sa.Column("absences", sa.Integer, nullable=False),
        at("intended_at"),
        at("accepted_at", nullable=True),
        at("ended_at", nullable=True),
        sa.UniqueConstraint("job_id", "number"),
    )
    op.create_index("ix_attempts_external", "attempts", ["provider_id", "external_id"])


def results() -> None:
    op.create_table(
        "events",
        sa.Column("id", BigId, primary_key=True, autoincrement=True),
        account(),
        job_key(),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("type", sa.String(32), nullable=False),
        sa.Column("schema_version", sa.SmallInteger, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("attempt", sa.Integer),
        sa.Column("provider_id", sa.String(64)),
        sa.Column("cause", sa.String(32)),
        sa.Column("reason", sa.String(32)),
        sa.Column("pages", sa.Integer),
        sa.Column("pages_sent", sa.Integer),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("key", sa.String(64)),
        at("occurred_at"),
        at("recorded_at"),
        sa.UniqueConstraint("job_id", "sequence"),
        sa.UniqueConstraint("job_id", "key"),
    )


def documents() -> None:
    op.create_table(
        "artifacts",
        sa.Column("id", sa.String(32), primary_key=True),
        account(),
        job_key(),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("position", sa.SmallInteger, nullable=False),
        sa.Column("storage_id", sa.String(64), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("media_type", sa.String(64), nullable=False),
        sa.Column("pages", sa.Integer, nullable=False),
        sa.Column("ready", sa.String(8)),
        at("created_at"),
        at("deleted_at", nullable=True),
        sa.UniqueConstraint("job_id", "role", "position"),
    )


def doors() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("account_id", sa.String(64), primary_key=True),
        sa.Column("route", sa.String(64), primary_key=True),
        sa.Column("key_hash", sa.String(64), primary_key=True),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("job_id", sa.String(32), nullable=False),
        sa.Column("response_status", sa.SmallInteger, nullable=False),
        sa.Column("response_sealed", sa.LargeBinary, nullable=False),
        at("created_at"),
        at("expires_at"),
    )
    op.create_index("ix_idempotency_keys_expires", "idempotency_keys", ["expires_at"])
    op.create_table(
        "callbacks",
        sa.Column("id", sa.String(32), primary_key=True),
        account(),
        sa.Column("provider_id", sa.String(64), nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("raw_sealed", sa.LargeBinary, nullable=False),
        at("received_at"),
        at("next_at", nullable=True),
        at("applied_at", nullable=True),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("outcome", sa.String(16)),
        sa.UniqueConstraint("provider_id", "key"),
    )
    op.create_index(
        "ix_callbacks_waiting", "callbacks", ["next_at"], **only_where("applied_at IS NULL")
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(32), primary_key=True),
        account(),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("secret_hash", sa.String(64), nullable=False),
        sa.Column("scopes", sa.JSON, nullable=False),
        at("created_at"),
        at("expires_at", nullable=True),
        at("last_used_at", nullable=True),
        at("revoked_at", nullable=True),
    )
    op.create_table(
        "provider_states",
        sa.Column("account_id", sa.String(64), primary_key=True),
        sa.Column("provider_id", sa.String(64), primary_key=True),
        at("rests_until", nullable=True),
        sa.Column("reason", sa.String(32)),
        at("updated_at"),
    )


def guard_postgresql() -> None:
    """A status may only start as queued and move along TRANSITIONS; an event never changes."""
    pairs = quoted([f"{source} {target}" for source, target in TRANSITIONS])
    op.execute(f"""
        CREATE FUNCTION faxbot_guard_status() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP = 'INSERT' THEN
                IF NEW.status <> '{FIRST_STATUS}' THEN
                    RAISE EXCEPTION 'a fax may not begin as %', NEW.status USING ERRCODE = 'check_violation';
                END IF;
            ELSIF NEW.status <> OLD.status
                AND (OLD.status || ' ' || NEW.status) NOT IN ({pairs}) THEN
                RAISE EXCEPTION 'a fax may not go from % to %', OLD.status, NEW.status
                    USING ERRCODE = 'check_violation';
            END IF;
            RETURN NEW;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER jobs_guard_status BEFORE INSERT OR UPDATE OF status ON jobs
        FOR EACH ROW EXECUTE FUNCTION faxbot_guard_status()
    """)
    op.execute("""
        CREATE FUNCTION faxbot_events_are_final() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'an event never changes' USING ERRCODE = 'check_violation';
        END $$
    """)
    op.execute("""
        CREATE TRIGGER events_are_final BEFORE UPDATE ON events
        FOR EACH ROW EXECUTE FUNCTION faxbot_events_are_final()
    """)


def guard_sqlite() -> None:
    """The same three rules in SQLite's words."""
    pairs = quoted([f"{source} {target}" for source, target in TRANSITIONS])
    op.execute(f"""
        CREATE TRIGGER jobs_guard_first_status BEFORE INSERT ON jobs WHEN NEW.status <> '{FIRST_STATUS}'
        BEGIN SELECT RAISE(ABORT, 'a fax may not begin in that status'); END
    """)
    op.execute(f"""
        CREATE TRIGGER jobs_guard_status BEFORE UPDATE OF status ON jobs
        WHEN NEW.status <> OLD.status AND (OLD.status || ' ' || NEW.status) NOT IN ({pairs})
        BEGIN SELECT RAISE(ABORT, 'a fax may not change its status that way'); END
    """)
    op.execute("""
        CREATE TRIGGER events_are_final BEFORE UPDATE ON events
        BEGIN SELECT RAISE(ABORT, 'an event never changes'); END
    """)


def downgrade() -> None:
    for table in (
        "provider_states",
        "api_keys",
        "callbacks",
        "idempotency_keys",
        "artifacts",
        "events",
        "attempts",
        "job_tags",
        "jobs",
    ):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION faxbot_guard_status()")
        op.execute("DROP FUNCTION faxbot_events_are_final()")
