"""Retention: what is removed when, with proof, and legal holds. Old code removes nothing, and shows a number that was
removed as none."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
ID, NAME, WORD = sa.String(32), sa.String(64), sa.String(16)
ENDED = "purged_at IS NULL AND status IN ('delivered', 'failed', 'cancelled', 'expired')"
COLUMNS = (
    ("jobs", ("purged_at", "legal_hold_at")),
    ("inbound_faxes", ("purged_at", "legal_hold_at")),
    ("attempts", ("copy_wanted_at", "copy_deleted_at")),
)


def upgrade() -> None:
    for table, names in COLUMNS:
        for name in names:
            op.add_column(table, sa.Column(name, TIME))
    # What was removed before this was taken back once.
    op.execute("UPDATE jobs SET purged_at = updated_at WHERE length(to_sealed) = 0")
    op.execute("UPDATE inbound_faxes SET purged_at = updated_at WHERE length(numbers_sealed) = 0")
    for name, column, condition in (
        ("ix_jobs_ended", "updated_at", ENDED),
        ("ix_jobs_purged", "purged_at", "purged_at IS NOT NULL"),
    ):
        op.create_index(
            name,
            "jobs",
            [column, "id"],
            postgresql_where=sa.text(condition),
            sqlite_where=sa.text(condition),
        )
    op.create_table(
        "legal_holds",
        sa.Column("id", ID, primary_key=True),
        sa.Column("account_id", NAME, nullable=False),
        sa.Column("kind", WORD, nullable=False),
        sa.Column("fax_id", ID, nullable=False),
        sa.Column("actor", NAME, nullable=False),
        sa.Column("reason_sealed", sa.LargeBinary, nullable=False),
        sa.Column("placed_at", TIME, nullable=False),
        sa.Column("lifted_by", NAME),
        sa.Column("lifted_at", TIME),
    )
    op.create_index("ix_legal_holds_fax", "legal_holds", ["fax_id"])
    op.create_table(
        "retention_runs",
        sa.Column("id", ID, primary_key=True),
        sa.Column("account_id", NAME, nullable=False),
        sa.Column("due_at", TIME, nullable=False),
        sa.Column("asked_by", NAME, nullable=False),
        sa.Column("state", WORD, nullable=False),
        sa.Column("rung_at", TIME),
        sa.Column("lease_until", TIME),
        sa.Column("fence", sa.Integer, nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("ended_at", TIME),
        sa.UniqueConstraint("account_id", "due_at", name="uq_retention_runs_account_id_due_at"),
    )
    op.create_table(
        "retention_proofs",
        sa.Column("run_id", ID, primary_key=True),
        sa.Column("class", WORD, primary_key=True),
        sa.Column("account_id", NAME, nullable=False),
        sa.Column("cutoff_at", TIME, nullable=False),
        sa.Column("step", sa.SmallInteger, nullable=False),
        sa.Column("cursor", sa.JSON),
        sa.Column("expected", sa.BigInteger, nullable=False),
        sa.Column("deleted", sa.BigInteger, nullable=False),
        sa.Column("outcome", WORD, nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("ended_at", TIME),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["retention_runs.id"],
            ondelete="CASCADE",
            name="fk_retention_proofs_run_id_retention_runs",
        ),
    )


def downgrade() -> None:
    held = op.get_bind().execute(
        sa.text("SELECT id FROM legal_holds WHERE lifted_at IS NULL LIMIT 1")
    )
    if held.first() is not None:
        raise RuntimeError("there are legal holds: nothing would say any more what must be kept")
    for name in ("retention_proofs", "retention_runs", "legal_holds"):
        op.drop_table(name)
    for name in ("ix_jobs_ended", "ix_jobs_purged"):
        op.drop_index(name, "jobs")
    for table, names in COLUMNS:
        for name in names:
            op.drop_column(table, name)
