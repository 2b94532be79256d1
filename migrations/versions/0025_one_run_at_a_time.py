"""One run of retention at a time: two that work at once break each other off. Where two were begun at the same moment
the older one goes on; the others end as broken off, and whoever works on one of them has lost it. Old code that begins
a second one is told that there is one."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

RUNNING = sa.text("state = 'running'")
IDS = sa.bindparam("ids", expanding=True, type_=sa.String)
SURPLUS = sa.text(
    "SELECT DISTINCT newer.id FROM retention_runs AS newer JOIN retention_runs AS older "
    "ON older.account_id = newer.account_id AND older.id < newer.id "
    "WHERE older.state = 'running' AND newer.state = 'running'"
)
END_PROOFS = sa.text(
    "UPDATE retention_proofs SET outcome = 'failed', ended_at = started_at "
    "WHERE outcome = 'open' AND run_id IN :ids"
).bindparams(IDS)
END_RUNS = sa.text(
    "UPDATE retention_runs SET state = 'failed', lease_until = NULL, fence = fence + 1, "
    "ended_at = coalesce(rung_at, started_at) WHERE id IN :ids"
).bindparams(IDS)


def upgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":
        op.execute("LOCK TABLE retention_runs IN SHARE ROW EXCLUSIVE MODE")
    surplus = connection.scalars(SURPLUS).all()
    for statement in (END_PROOFS, END_RUNS):
        connection.execute(statement, {"ids": surplus})
    op.create_index(
        "uq_retention_runs_running",
        "retention_runs",
        ["account_id"],
        unique=True,
        postgresql_where=RUNNING,
        sqlite_where=RUNNING,
    )


def downgrade() -> None:
    op.drop_index("uq_retention_runs_running", "retention_runs")
