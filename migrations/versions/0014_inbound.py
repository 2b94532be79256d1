"""Received faxes: their rows, their events and documents beside those of sent ones, and large bodies of callbacks.

Old code knows none of it, and goes on to write events and artifacts of jobs.
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
OWNERS = (
    ("events", "inbound", "sequence"),
    ("artifacts", "inbound", "role"),
    ("artifacts", "callback", "role"),
)
UNREAD = "read_at IS NULL AND status = 'received'"


def at(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def only_where(condition: str) -> dict[str, Any]:
    return {"postgresql_where": sa.text(condition), "sqlite_where": sa.text(condition)}


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
        at("fetching_at", nullable=True),
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
    for name, columns, condition in (
        ("ix_inbound_faxes_unread", ["account_id", "id"], UNREAD),
        ("ix_inbound_faxes_due", ["next_at"], "next_at IS NOT NULL"),
        ("ix_inbound_faxes_lost", ["id"], "cause = 'no-document' AND read_at IS NULL"),
        ("ix_inbound_faxes_callback", ["callback_id"], "callback_id IS NOT NULL"),
    ):
        op.create_index(name, "inbound_faxes", columns, **only_where(condition))
    unwanted = only_where("outcome = 'unwanted'")
    op.create_index("ix_callbacks_unwanted", "callbacks", ["provider_id"], **unwanted)
    for table in ("events", "artifacts"):
        allow_null(table)
    for table, name, _ in OWNERS:
        of = "inbound_faxes" if name == "inbound" else "callbacks"
        op.execute(f"ALTER TABLE {table} ADD COLUMN {name}_id VARCHAR(32) REFERENCES {of} (id)")
    for table, name, rest in OWNERS:
        op.create_index(
            f"uq_{table}_{name}",
            table,
            [f"{name}_id", rest],
            unique=True,
            **only_where(f"{name}_id IS NOT NULL"),
        )


def allow_null(table: str) -> None:
    """Events and artifacts may be of no job. SQLite cannot say so, but its own way for a change that touches no row is
    to write it into the schema (sqlite.org/lang_altertable.html, section 7): nothing is copied, nobody waits."""
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":
        op.alter_column(table, "job_id", existing_type=sa.String(32), nullable=True)
        return
    version = connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
    connection.exec_driver_sql("PRAGMA writable_schema = ON").close()
    changed = connection.exec_driver_sql(
        "UPDATE sqlite_master SET sql = replace(sql, 'job_id VARCHAR(32) NOT NULL', 'job_id VARCHAR(32)') "
        "WHERE type = 'table' AND name = ? AND sql LIKE '%job_id VARCHAR(32) NOT NULL%'",
        (table,),
    )
    if changed.rowcount != 1:
        raise RuntimeError(f"the table {table} is not as it was made")
    connection.exec_driver_sql(f"PRAGMA schema_version = {version + 1}").close()
    connection.exec_driver_sql("PRAGMA writable_schema = RESET").close()


def downgrade() -> None:
    kept = op.get_bind().execute(sa.text("SELECT id FROM artifacts WHERE job_id IS NULL LIMIT 1"))
    if kept.first() is not None:
        raise RuntimeError(
            "there are documents of received faxes: nothing would name them any more"
        )
    op.execute("DELETE FROM events WHERE job_id IS NULL")
    for table, name, _ in OWNERS:
        op.drop_index(f"uq_{table}_{name}", table)
        with op.batch_alter_table(table) as altered:
            altered.drop_column(f"{name}_id")
    for table in ("events", "artifacts"):
        with op.batch_alter_table(table) as altered:
            altered.alter_column("job_id", existing_type=sa.String(32), nullable=False)
    op.drop_index("ix_callbacks_unwanted", "callbacks")
    op.drop_table("inbound_faxes")
    if op.get_bind().dialect.name == "sqlite":
        op.execute(FINAL)
