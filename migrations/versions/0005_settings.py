"""What administrators set while faxbot runs; old code reads none of it and goes on by its environment."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
NAME = sa.String(64)


def upgrade() -> None:
    op.create_table(
        "config_entries",
        sa.Column("account_id", NAME, nullable=False),
        sa.Column("scope", NAME, nullable=False),
        sa.Column("key", NAME, nullable=False),
        sa.Column("value_sealed", sa.LargeBinary, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("account_id", "scope", "key", name="pk_config_entries"),
    )
    op.create_table(
        "config_versions",
        sa.Column("account_id", NAME, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("changed_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("account_id", name="pk_config_versions"),
    )


def downgrade() -> None:
    op.drop_table("config_versions")
    op.drop_table("config_entries")
