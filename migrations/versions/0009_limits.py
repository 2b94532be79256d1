"""What limits count: a key's requests of this minute, an address's failed logins, an account's pages of a day.
Old code counts nothing.

The first two are worth minutes only: on PostgreSQL they are not logged, so that a count waits for no disk, and begin
anew after a crash of the server. The pages are counted with the faxes and kept as they are.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
NAME = sa.String(64)


def upgrade() -> None:
    brief = ["UNLOGGED"] if op.get_bind().dialect.name == "postgresql" else []
    op.create_table(
        "request_counts",
        sa.Column("account_id", NAME, nullable=False),
        sa.Column("name", sa.String(80), nullable=False),
        sa.Column("minute", sa.BigInteger, nullable=False),
        sa.Column("used", sa.BigInteger, nullable=False),
        sa.Column("granted", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("account_id", "name", name="pk_request_counts"),
        prefixes=brief,
    )
    op.create_table(
        "failed_logins",
        sa.Column("account_id", NAME, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("origin", NAME, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("began_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("account_id", "kind", "origin", name="pk_failed_logins"),
        prefixes=brief,
    )
    op.create_table(
        "page_counts",
        sa.Column("account_id", NAME, nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("pages", sa.BigInteger, nullable=False),
        sa.Column("full_at", TIME),
        sa.PrimaryKeyConstraint("account_id", "day", name="pk_page_counts"),
    )


def downgrade() -> None:
    for name in ("page_counts", "failed_logins", "request_counts"):
        op.drop_table(name)
