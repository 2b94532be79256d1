"""Webhooks: subscriptions, one row for each event and subscriber, one for each try. Old code tells nobody of events."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
ID, NAME, WORD = sa.String(32), sa.String(64), sa.String(16)


def upgrade() -> None:
    op.create_table(
        "webhooks",
        sa.Column("id", ID, primary_key=True),
        sa.Column("account_id", NAME, nullable=False),
        sa.Column("created_by", NAME, nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("url_sealed", sa.LargeBinary),
        sa.Column("secret_sealed", sa.LargeBinary),
        sa.Column("old_secret_sealed", sa.LargeBinary),
        sa.Column("old_secret_until", TIME),
        sa.Column("types", sa.JSON, nullable=False),
        sa.Column("state", WORD, nullable=False),
        sa.Column("reason", WORD),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("failing_at", TIME),
        sa.Column("rests", sa.Integer, nullable=False),
        sa.Column("rests_until", TIME),
        sa.Column("lease_until", TIME),
        sa.Column("fence", sa.Integer, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.Column("activated_at", TIME),
        sa.Column("disabled_at", TIME),
    )
    op.create_index("ix_webhooks_account", "webhooks", ["account_id", "id"])
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("account_id", NAME, nullable=False),
        sa.Column("webhook_id", ID, nullable=False),
        sa.Column("fax_id", ID, nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("type", sa.String(32), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("status", WORD, nullable=False),
        sa.Column("cause", WORD),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("turn", sa.Integer, nullable=False),
        sa.Column("replays", sa.Integer, nullable=False),
        sa.Column("next_at", TIME),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("ended_at", TIME),
        sa.ForeignKeyConstraint(
            ["webhook_id"],
            ["webhooks.id"],
            ondelete="CASCADE",
            name="fk_webhook_deliveries_webhook_id_webhooks",
        ),
    )
    op.create_index("ix_webhook_deliveries_webhook", "webhook_deliveries", ["webhook_id", "id"])
    op.create_index("ix_webhook_deliveries_fax", "webhook_deliveries", ["fax_id"])
    op.create_index("ix_webhook_deliveries_ended", "webhook_deliveries", ["ended_at"])
    for name, columns, status in (
        ("due", ["webhook_id", "next_at"], "waiting"),
        ("dead", ["webhook_id", "id"], "dead"),
    ):
        of_status = sa.text(f"status = '{status}'")
        op.create_index(
            f"ix_webhook_deliveries_{name}",
            "webhook_deliveries",
            columns,
            postgresql_where=of_status,
            sqlite_where=of_status,
        )
    op.create_table(
        "webhook_tries",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("account_id", NAME, nullable=False),
        sa.Column("delivery_id", sa.String(40), nullable=False),
        sa.Column("turn", sa.Integer, nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("duration_ms", sa.Integer, nullable=False),
        sa.Column("code", sa.SmallInteger),
        sa.Column("outcome", WORD, nullable=False),
        sa.ForeignKeyConstraint(
            ["delivery_id"],
            ["webhook_deliveries.id"],
            ondelete="CASCADE",
            name="fk_webhook_tries_delivery_id_webhook_deliveries",
        ),
    )
    op.create_index("ix_webhook_tries_delivery", "webhook_tries", ["delivery_id", "id"])


def downgrade() -> None:
    for name in ("webhook_tries", "webhook_deliveries", "webhooks"):
        op.drop_table(name)
