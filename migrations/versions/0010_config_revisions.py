"""What was saved at each version of the settings; old code keeps none, and what it saves is kept by who saves next."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

NAME = sa.String(64)


def upgrade() -> None:
    op.create_table(
        "config_revisions",
        sa.Column("account_id", NAME, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("saved_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", NAME, nullable=False),
        sa.Column("note", sa.String(255)),
        sa.Column("names", sa.JSON, nullable=False),
        sa.Column("backup", sa.String(255)),
        sa.Column("settings_sealed", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("account_id", "version", name="pk_config_revisions"),
    )


def downgrade() -> None:
    op.drop_table("config_revisions")
