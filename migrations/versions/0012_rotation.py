"""Which master key seals, and which one did before. Old code asks for none of it and seals with its only key."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

KEYS = ("sealing_key", "upcoming_key", "retiring_key")


def upgrade() -> None:
    for name in KEYS:
        op.add_column("config_versions", sa.Column(name, sa.String(16)))
    op.add_column("config_versions", sa.Column("rotated_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    for name in (*KEYS, "rotated_at"):
        op.drop_column("config_versions", name)
