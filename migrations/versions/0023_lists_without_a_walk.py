"""Lists that walked through all others, found in an index now: received faxes that failed or are being fetched, deeds
that were refused or failed, deliveries of one type, faxes by when they ended, and stored bytes that were said to go.
Old code has no need of them.

PostgreSQL builds them beside those who write, so outside of a transaction: one that was broken off is begun anew.
"""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

ENDS = "'FAX_CANCELLED', 'FAX_DECIDED', 'FAX_DELIVERED', 'FAX_EXPIRED', 'FAX_FAILED'"
FINAL = "'cancelled', 'delivered', 'expired', 'failed'"
INDEXES: tuple[tuple[str, str, list[str], str | None], ...] = (
    (
        "ix_inbound_faxes_status",
        "inbound_faxes",
        ["account_id", "status", "id"],
        "status <> 'received'",
    ),
    (
        "ix_audit_events_outcome",
        "audit_events",
        ["account_id", "outcome", "happened_at", "id"],
        "outcome <> 'done'",
    ),
    ("ix_webhook_deliveries_type", "webhook_deliveries", ["webhook_id", "type", "id"], None),
    (
        "ix_events_ended",
        "events",
        ["account_id", "status", "recorded_at", "job_id"],
        f"type IN ({ENDS}) AND status IN ({FINAL})",
    ),
    ("ix_artifacts_going", "artifacts", ["id"], "deleted_at IS NOT NULL"),
)


def upgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        for name, table, columns, condition in INDEXES:
            where = sa.text(condition) if condition else None
            op.create_index(name, table, columns, sqlite_where=where)
        return
    with op.get_context().autocommit_block():
        # Such a building waits for the transactions that are under way, and nobody waits for it.
        op.execute("SET lock_timeout = '2min'")
        for name, table, columns, condition in INDEXES:
            where = sa.text(condition) if condition else None
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.create_index(
                name, table, columns, postgresql_where=where, postgresql_concurrently=True
            )
        op.execute("SET lock_timeout = '5s'")


def downgrade() -> None:
    for name, table, _, _ in reversed(INDEXES):
        op.drop_index(name, table)
