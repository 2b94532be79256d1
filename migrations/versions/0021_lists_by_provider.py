"""Lists of one provider's faxes, found from their end: of a provider that has few, the list walked through all others.
Old code gains by it too."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

TRIED = sa.text("provider_id IS NOT NULL")


def upgrade() -> None:
    op.create_index(
        "ix_jobs_account_provider",
        "jobs",
        ["account_id", "provider_id", "id"],
        postgresql_where=TRIED,
        sqlite_where=TRIED,
    )
    op.create_index(
        "ix_inbound_faxes_provider", "inbound_faxes", ["account_id", "provider_id", "id"]
    )


def downgrade() -> None:
    op.drop_index("ix_inbound_faxes_provider", "inbound_faxes")
    op.drop_index("ix_jobs_account_provider", "jobs")
