"""Which faxes a carrier's message was about, noted when it is applied. Old code notes nothing; what it applied is of no
fax, as far as the database says."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

ID = sa.String(32)


def upgrade() -> None:
    op.create_table(
        "callback_faxes",
        sa.Column("job_id", ID, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column(
            "callback_id",
            ID,
            sa.ForeignKey("callbacks.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("account_id", sa.String(64), nullable=False),
    )
    op.create_index("ix_callback_faxes_callback", "callback_faxes", ["callback_id"])


def downgrade() -> None:
    op.drop_table("callback_faxes")
