"""Of how many attempts the next one is, and when an attempt was to be made. Old code leaves both empty: not known."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("attempts_at_most", sa.Integer(), nullable=True))
    op.add_column("attempts", sa.Column("planned_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("attempts", "planned_at")
    op.drop_column("jobs", "attempts_at_most")
