"""Documents may be sealed where they are stored: each has a data key. Old code knows of no such thing and finds nothing
under the key of a sealed one, so that its fax waits until new code looks for it."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("artifacts", sa.Column("data_key_sealed", sa.LargeBinary))


def downgrade() -> None:
    op.drop_column("artifacts", "data_key_sealed")
