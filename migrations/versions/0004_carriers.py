"""What plugins keep for all processes, whether one is disabled, and the address an attempt's callbacks were asked for
at; old code names none of it."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
NAME = sa.String(64)


def upgrade() -> None:
    op.add_column("attempts", sa.Column("callback_base", sa.Text))
    op.add_column("attempts", sa.Column("delete_copy_at", TIME))
    has_copy = sa.text("delete_copy_at IS NOT NULL")
    op.create_index(
        "ix_attempts_copies",
        "attempts",
        ["delete_copy_at"],
        postgresql_where=has_copy,
        sqlite_where=has_copy,
    )
    op.add_column("provider_states", sa.Column("disabled_at", TIME))
    op.create_index("ix_callbacks_received", "callbacks", ["provider_id", "received_at"])
    op.create_table(
        "callback_refusals",
        sa.Column("account_id", NAME, nullable=False),
        sa.Column("provider_id", NAME, nullable=False),
        sa.Column("reason", sa.String(32), nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("first_at", TIME, nullable=False),
        sa.Column("last_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("account_id", "provider_id", "reason", name="pk_callback_refusals"),
    )
    op.create_table(
        "plugin_cache",
        sa.Column("account_id", NAME, nullable=False),
        sa.Column("plugin_id", NAME, nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.Column("value_sealed", sa.LargeBinary),
        sa.Column("good_until", TIME),
        sa.Column("making_until", TIME),
        sa.PrimaryKeyConstraint("account_id", "plugin_id", "name", name="pk_plugin_cache"),
    )


def downgrade() -> None:
    op.drop_table("plugin_cache")
    op.drop_table("callback_refusals")
    op.drop_index("ix_callbacks_received", "callbacks")
    op.drop_column("provider_states", "disabled_at")
    op.drop_index("ix_attempts_copies", "attempts")
    op.drop_column("attempts", "delete_copy_at")
    op.drop_column("attempts", "callback_base")
