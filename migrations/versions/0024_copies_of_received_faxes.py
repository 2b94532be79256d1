"""Carriers' copies of received faxes are deleted as well. Old code asks for none, and forgets a fax without waiting for
that."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

COLUMNS = ("delete_copy_at", "copy_wanted_at", "copy_deleted_at")


def upgrade() -> None:
    for name in COLUMNS:
        op.add_column("inbound_faxes", sa.Column(name, sa.DateTime(timezone=True), nullable=True))
    has_copy = sa.text("delete_copy_at IS NOT NULL")
    op.create_index(
        "ix_inbound_faxes_copies",
        "inbound_faxes",
        ["delete_copy_at"],
        postgresql_where=has_copy,
        sqlite_where=has_copy,
    )


def downgrade() -> None:
    op.drop_index("ix_inbound_faxes_copies", "inbound_faxes")
    for name in COLUMNS:
        op.drop_column("inbound_faxes", name)
