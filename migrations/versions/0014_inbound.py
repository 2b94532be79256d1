"""Received faxes: their rows, their events and documents beside those of sent ones, and large bodies of callbacks.

Old code knows none of it, and goes on to write events and artifacts of jobs. SQLite cannot drop NOT NULL: there both
tables are made anew.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

NAME = sa.String(64)
FINAL = """
    CREATE TRIGGER events_are_final BEFORE UPDATE ON events
    BEGIN SELECT RAISE(ABORT, 'an event never changes'); END
"""
UNREAD = "read_at IS NULL AND status = 'received'"


def at(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def only_where(condition: str) -> dict[str, Any]:
    return {"postgresql_where": sa.text(condition), "sqlite_where": sa.text(condition)}


def owner(name: str, table: str) -> sa.Column[object]:
    key = sa.ForeignKey(f"{table}.id", name=f"fk_{name}", ondelete="CASCADE")
    return sa.Column(name, sa.String(32), key, nullable=True)


def upgrade() -> None:
    op.create_table(
        "inbound_faxes",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("account_id", NAME, nullable=False),
        sa.Column("provider_id", NAME, nullable=False),
        sa.Column("external_id", sa.String(255), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("cause", sa.String(32)),
        sa.Column("numbers_sealed", sa.LargeBinary, nullable=False),
        sa.Column("from_key", NAME),
        sa.Column("to_key", NAME),
        sa.Column("pages", sa.Integer),
        sa.Column("size", sa.BigInteger),
        sa.Column("sha256", NAME),
        sa.Column("callback_id", sa.String(32)),
        sa.Column("tries", sa.Integer, nullable=False),
        at("next_at", nullable=True),
        sa.Column("last_sequence", sa.Integer, nullable=False),
        at("received_at"),
        at("read_at", nullable=True),
        sa.Column("read_by", NAME),
        at("created_at"),
        at("updated_at"),
        sa.UniqueConstraint("account_id", "provider_id", "external_id"),
    )
    for name, columns in (
        ("account", ["account_id", "id"]),
        ("from", ["account_id", "from_key", "id"]),
        ("to", ["account_id", "to_key", "id"]),
    ):
        op.create_index(f"ix_inbound_faxes_{name}", "inbound_faxes", columns)
    op.create_index(
        "ix_inbound_faxes_unread", "inbound_faxes", ["account_id", "id"], **only_where(UNREAD)
    )
    op.create_index(
        "ix_inbound_faxes_due", "inbound_faxes", ["next_at"], **only_where("next_at IS NOT NULL")
    )
    with op.batch_alter_table("events") as events:
        events.alter_column("job_id", existing_type=sa.String(32), nullable=True)
        events.add_column(owner("inbound_id", "inbound_faxes"))
        events.create_unique_constraint("uq_events_inbound", ["inbound_id", "sequence"])
    with op.batch_alter_table("artifacts") as artifacts:
        artifacts.alter_column("job_id", existing_type=sa.String(32), nullable=True)
        artifacts.add_column(owner("inbound_id", "inbound_faxes"))
        artifacts.add_column(owner("callback_id", "callbacks"))
        artifacts.create_unique_constraint(
            "uq_artifacts_inbound", ["inbound_id", "role", "position"]
        )
        artifacts.create_unique_constraint(
            "uq_artifacts_callback", ["callback_id", "role", "position"]
        )
    if op.get_bind().dialect.name == "sqlite":
        op.execute(FINAL)


def downgrade() -> None:
    for table, owners in (("events", ["inbound"]), ("artifacts", ["inbound", "callback"])):
        op.execute(f"DELETE FROM {table} WHERE job_id IS NULL")  # noqa: S608 - one of two names
        with op.batch_alter_table(table) as altered:
            for name in owners:
                altered.drop_constraint(f"uq_{table}_{name}", type_="unique")
                altered.drop_column(f"{name}_id")
            altered.alter_column("job_id", existing_type=sa.String(32), nullable=False)
    op.drop_table("inbound_faxes")
    if op.get_bind().dialect.name == "sqlite":
        op.execute(FINAL)
