"""How many workers died at a fax, when each sweep last ran, the circuit breaker, lanes, what people decide; old code
names none of it."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
NAME = sa.String(64)
STATES = ("opened_at", "closed_at", "degraded_at", "paused_at", "paused_until", "next_call_at")


def upgrade() -> None:
    op.add_column("jobs", sa.Column("deaths", sa.Integer, nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("waiting", sa.String(80)))
    waiting = sa.text("waiting IS NOT NULL")
    op.create_index(
        "ix_jobs_waiting",
        "jobs",
        ["account_id", "waiting", "to_key"],
        postgresql_where=waiting,
        sqlite_where=waiting,
    )
    op.create_table(
        "lanes",
        sa.Column("account_id", NAME, nullable=False),
        sa.Column("to_key", NAME, nullable=False),
        sa.Column("slot", sa.SmallInteger, nullable=False),
        sa.Column("job_id", sa.String(32), nullable=False),
        sa.Column("held_until", TIME, nullable=False),
        sa.Column("wanted", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("account_id", "to_key", "slot", name="pk_lanes"),
    )
    op.add_column("attempts", sa.Column("answered_at", TIME))
    op.add_column("attempts", sa.Column("verdict", sa.String(8)))
    op.create_index("ix_attempts_answered", "attempts", ["provider_id", "answered_at"])
    for name in STATES:
        op.add_column("provider_states", sa.Column(name, TIME))
    op.add_column(
        "provider_states", sa.Column("openings", sa.Integer, nullable=False, server_default="0")
    )
    op.create_table(
        "provider_probes",
        sa.Column("account_id", NAME, nullable=False),
        sa.Column("provider_id", NAME, nullable=False),
        sa.Column("slot", sa.SmallInteger, nullable=False),
        sa.Column("job_id", sa.String(32), nullable=False),
        sa.Column("lease_until", TIME, nullable=False),
        sa.Column("succeeded", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("account_id", "provider_id", "slot", name="pk_provider_probes"),
    )
    op.create_table(
        "provider_events",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("account_id", NAME, nullable=False),
        sa.Column("provider_id", NAME, nullable=False),
        sa.Column("type", sa.String(32), nullable=False),
        sa.Column("reason", sa.String(32)),
        sa.Column("note", sa.String(255)),
        sa.Column("actor", NAME, nullable=False),
        sa.Column("expires_at", TIME),
        sa.Column("recorded_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_provider_events"),
    )
    op.create_index(
        "ix_provider_events_provider", "provider_events", ["account_id", "provider_id", "id"]
    )
    op.create_table(
        "decisions",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("account_id", NAME, nullable=False),
        sa.Column("job_id", sa.String(32), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("actor", NAME, nullable=False),
        sa.Column("reason_sealed", sa.LargeBinary, nullable=False),
        sa.Column("decided_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_decisions"),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name="fk_decisions_job_id_jobs", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_decisions_job", "decisions", ["job_id"])
    op.create_table(
        "heartbeats",
        sa.Column("account_id", NAME, nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.Column("beat_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("account_id", "name", name="pk_heartbeats"),
    )


def downgrade() -> None:
    op.drop_table("heartbeats")
    op.drop_table("decisions")
    op.drop_table("provider_events")
    op.drop_table("provider_probes")
    op.drop_column("provider_states", "openings")
    for name in reversed(STATES):
        op.drop_column("provider_states", name)
    op.drop_index("ix_attempts_answered", "attempts")
    op.drop_column("attempts", "verdict")
    op.drop_column("attempts", "answered_at")
    op.drop_table("lanes")
    op.drop_index("ix_jobs_waiting", "jobs")
    op.drop_column("jobs", "waiting")
    op.drop_column("jobs", "deaths")
