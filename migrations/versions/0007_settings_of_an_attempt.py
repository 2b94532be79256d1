"""With which settings each call was made; old code writes none, and absence proves nothing of its calls."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("attempts", sa.Column("settings_hash", sa.String(16)))


def downgrade() -> None:
    op.drop_column("attempts", "settings_hash")
