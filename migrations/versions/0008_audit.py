"""The audit trail, which the database keeps for six years whatever its clients ask; and keys that outlive a master key.
Old code writes none of it."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
NAME = sa.String(64)
BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TABLES = ("audit_events", "audit_links")
KEYS = {
    # Where the database is to choose the id, NEW.id is -1 here.
    "audit_events": "(old.id = NEW.id AND NEW.id > 0) OR old.proof = NEW.proof",
    "audit_links": "old.event_id = NEW.event_id "
    "OR (old.account_id = NEW.account_id AND old.position = NEW.position)",
}
"""What two rows of a table cannot share."""


def upgrade() -> None:
    op.create_table(
        "audit_events",
        sa.Column("id", BIG_ID, primary_key=True, autoincrement=True),
        sa.Column("account_id", NAME, nullable=False),
        sa.Column("happened_at", TIME, nullable=False),
        sa.Column("actor_kind", sa.String(16), nullable=False),
        sa.Column("actor", NAME, nullable=False),
        sa.Column("action", NAME, nullable=False),
        sa.Column("object_kind", sa.String(16)),
        sa.Column("object_id", NAME),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("request_id", NAME),
        sa.Column("address", NAME),
        sa.Column("details", sa.JSON, nullable=False),
        sa.Column("proof", sa.String(96), nullable=False),
        sa.UniqueConstraint("proof", name="uq_audit_events_proof"),
    )
    op.create_index("ix_audit_events_happened", "audit_events", ["account_id", "happened_at"])
    op.create_index("ix_audit_events_object", "audit_events", ["object_kind", "object_id"])
    for column in ("actor", "action"):
        op.create_index(
            f"ix_audit_events_{column}", "audit_events", ["account_id", column, "happened_at"]
        )
    op.create_table(
        "audit_waiting",
        sa.Column("event_id", BIG_ID, autoincrement=False, nullable=False),
        sa.Column("account_id", NAME, nullable=False),
        sa.PrimaryKeyConstraint("event_id", name="pk_audit_waiting"),
    )
    op.create_table(
        "audit_links",
        sa.Column("account_id", NAME, nullable=False),
        sa.Column("position", BIG_ID, autoincrement=False, nullable=False),
        sa.Column("event_id", BIG_ID, nullable=False),
        sa.Column("mac", sa.String(64), nullable=False),
        sa.Column("linked_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("account_id", "position", name="pk_audit_links"),
        sa.UniqueConstraint("event_id", name="uq_audit_links_event_id"),
        # By a hidden rowid INSERT OR REPLACE would take away a link past the guard.
        sqlite_with_rowid=False,
    )
    op.create_table(
        "data_keys",
        sa.Column("account_id", NAME, nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.Column("key_sealed", sa.LargeBinary, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("account_id", "name", name="pk_data_keys"),
    )
    if op.get_bind().dialect.name == "postgresql":
        guard_postgresql()
    else:
        guard_sqlite()


def guard_postgresql() -> None:
    """A row may not be changed at all, and not be deleted before it is six years old (45 CFR 164.316(b)(2)(i))."""
    op.execute("""
        CREATE FUNCTION faxbot_audit_is_kept() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP = 'DELETE' THEN
                IF (to_jsonb(OLD) ->> TG_ARGV[0])::timestamptz < now() - interval '6 years' THEN
                    RETURN OLD;
                END IF;
            END IF;
            RAISE EXCEPTION 'the audit trail is kept' USING ERRCODE = 'check_violation';
        END $$
    """)
    for table, at in zip(TABLES, ("happened_at", "linked_at"), strict=True):
        op.execute(f"""
            CREATE TRIGGER {table}_are_kept BEFORE UPDATE OR DELETE ON {table}
            FOR EACH ROW EXECUTE FUNCTION faxbot_audit_is_kept('{at}')
        """)
        op.execute(f"""
            CREATE TRIGGER {table}_are_not_emptied BEFORE TRUNCATE ON {table}
            FOR EACH STATEMENT EXECUTE FUNCTION faxbot_audit_is_kept('{at}')
        """)
    op.execute("""
        CREATE FUNCTION faxbot_audit_waits() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO audit_waiting (event_id, account_id) VALUES (NEW.id, NEW.account_id);
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER audit_events_wait AFTER INSERT ON audit_events
        FOR EACH ROW EXECUTE FUNCTION faxbot_audit_waits()
    """)


def guard_sqlite() -> None:
    """The same in SQLite's words; it keeps times in UTC, as text that sorts."""
    for table, at in zip(TABLES, ("happened_at", "linked_at"), strict=True):
        op.execute(f"""
            CREATE TRIGGER {table}_never_change BEFORE UPDATE ON {table}
            BEGIN SELECT RAISE(ABORT, 'the audit trail is kept'); END
        """)
        op.execute(f"""
            CREATE TRIGGER {table}_are_kept BEFORE DELETE ON {table}
            WHEN OLD.{at} >= datetime('now', '-6 years')
            BEGIN SELECT RAISE(ABORT, 'the audit trail is kept'); END
        """)
        # INSERT OR REPLACE deletes what is in its way without asking the trigger above.
        op.execute(f"""
            CREATE TRIGGER {table}_are_not_replaced BEFORE INSERT ON {table}
            WHEN EXISTS (SELECT 1 FROM {table} AS old WHERE {KEYS[table]})
            BEGIN SELECT RAISE(ABORT, 'the audit trail is kept'); END
        """)  # noqa: S608 - names of ours
    op.execute("""
        CREATE TRIGGER audit_events_wait AFTER INSERT ON audit_events
        BEGIN INSERT INTO audit_waiting (event_id, account_id) VALUES (NEW.id, NEW.account_id); END
    """)


def downgrade() -> None:
    op.drop_table("data_keys")
    for table in (*TABLES, "audit_waiting"):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION faxbot_audit_is_kept()")
        op.execute("DROP FUNCTION faxbot_audit_waits()")
