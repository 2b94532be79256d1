"""Figures: how many events there were and how long faxes took, by minute, by hour and since ever; how far they are
counted; and how often a sweep failed. Old code counts nothing, and writes the events that new code counts."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
NAME, WORD, CODE = sa.String(64), sa.String(16), sa.String(32)


def upgrade() -> None:
    op.create_table(
        "event_counts",
        sa.Column("span", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("minute", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("account_id", NAME, primary_key=True),
        sa.Column("type", CODE, primary_key=True),
        sa.Column("status", WORD, primary_key=True),
        sa.Column("provider_id", NAME, primary_key=True),
        sa.Column("cause", CODE, primary_key=True),
        sa.Column("times", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "duration_counts",
        sa.Column("span", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("minute", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("account_id", NAME, primary_key=True),
        sa.Column("measure", WORD, primary_key=True),
        sa.Column("provider_id", NAME, primary_key=True),
        sa.Column("status", WORD, primary_key=True),
        sa.Column("step", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("times", sa.BigInteger, nullable=False),
        sa.Column("milliseconds", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "counted_events",
        sa.Column("account_id", NAME, primary_key=True),
        sa.Column("event_id", sa.BigInteger, nullable=False),
        sa.Column("recorded_at", TIME, nullable=False),
    )
    # A constant default: PostgreSQL writes no row for it.
    op.add_column(
        "heartbeats", sa.Column("failures", sa.BigInteger, nullable=False, server_default="0")
    )


def downgrade() -> None:
    op.drop_column("heartbeats", "failures")
    for name in ("counted_events", "duration_counts", "event_counts"):
        op.drop_table(name)
