"""Notices: what people are to be told, the messages in which they are told it, and who sends them. Old code tells
nobody."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
ID, NAME, WORD, CODE = sa.String(32), sa.String(64), sa.String(16), sa.String(32)


def upgrade() -> None:
    op.create_table(
        "notices",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("account_id", NAME, nullable=False),
        sa.Column("plugin_id", NAME, nullable=False),
        sa.Column("fax_id", ID, nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("kind", WORD, nullable=False),
        sa.Column("why", CODE),
        sa.Column("notification_id", ID),
        sa.Column("occurred_at", TIME, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.UniqueConstraint(
            "plugin_id", "fax_id", "sequence", name="uq_notices_plugin_id_fax_id_sequence"
        ),
    )
    untold = sa.text("notification_id IS NULL")
    op.create_index(
        "ix_notices_untold",
        "notices",
        ["account_id", "plugin_id", "id"],
        postgresql_where=untold,
        sqlite_where=untold,
    )
    op.create_index("ix_notices_notification", "notices", ["notification_id", "id"])
    op.create_index("ix_notices_created", "notices", ["created_at"])
    op.create_table(
        "notifications",
        sa.Column("id", ID, primary_key=True),
        sa.Column("account_id", NAME, nullable=False),
        sa.Column("plugin_id", NAME, nullable=False),
        sa.Column("notices", sa.Integer, nullable=False),
        sa.Column("status", WORD, nullable=False),
        sa.Column("cause", CODE),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("doubts", sa.Integer, nullable=False),
        sa.Column("next_at", TIME),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("ended_at", TIME),
    )
    op.create_index("ix_notifications_place", "notifications", ["account_id", "plugin_id", "id"])
    waiting = sa.text("status = 'waiting'")
    op.create_index(
        "ix_notifications_waiting",
        "notifications",
        ["account_id", "plugin_id"],
        postgresql_where=waiting,
        sqlite_where=waiting,
    )
    op.create_index("ix_notifications_ended", "notifications", ["ended_at"])
    op.create_table(
        "notifiers",
        sa.Column("account_id", NAME, primary_key=True),
        sa.Column("plugin_id", NAME, primary_key=True),
        sa.Column("lease_until", TIME),
        sa.Column("fence", sa.Integer, nullable=False),
        sa.Column("ready_at", TIME),
    )


def downgrade() -> None:
    for name in ("notifiers", "notifications", "notices"):
        op.drop_table(name)
