"""How each call was made, and which way works at a number; old code reads none of it and calls the fastest way."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

NAME = sa.String(64)


def upgrade() -> None:
    op.add_column("attempts", sa.Column("step", sa.SmallInteger))
    op.add_column(
        "attempts", sa.Column("first_page", sa.Integer, nullable=False, server_default="1")
    )
    op.create_table(
        "proven_steps",
        sa.Column("account_id", NAME, nullable=False),
        sa.Column("to_key", sa.String(64), nullable=False),
        sa.Column("provider_id", NAME, nullable=False),
        sa.Column("step", sa.SmallInteger, nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "to_key", "provider_id", name="pk_proven_steps"),
    )


def downgrade() -> None:
    op.drop_table("proven_steps")
    op.drop_column("attempts", "first_page")
    op.drop_column("attempts", "step")
