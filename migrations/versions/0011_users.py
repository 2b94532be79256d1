"""People who sign in, their sessions, and keys with two secrets while one replaces the other. Code of before knows the
newest secret of a key only, and no session."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
ID, NAME, DIGEST, TEXT = sa.String(32), sa.String(64), sa.String(64), sa.String(255)


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("old_secret_hash", DIGEST))
    op.add_column("api_keys", sa.Column("old_secret_until", TIME))
    op.create_table(
        "users",
        sa.Column("id", ID, primary_key=True),
        sa.Column("account_id", NAME, nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.Column("name_key", TEXT, nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("password_hash", TEXT),
        sa.Column("issuer", TEXT),
        sa.Column("subject", TEXT),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("locked_until", TIME),
        sa.Column("disabled_at", TIME),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("password_changed_at", TIME),
        sa.Column("last_login_at", TIME),
        sa.UniqueConstraint("account_id", "name_key", name="uq_users_account_id_name_key"),
        sa.UniqueConstraint(
            "account_id", "issuer", "subject", name="uq_users_account_id_issuer_subject"
        ),
    )
    op.create_table(
        "user_sessions",
        sa.Column("id", ID, primary_key=True),
        sa.Column("account_id", NAME, nullable=False),
        sa.Column(
            "user_id",
            ID,
            sa.ForeignKey("users.id", ondelete="CASCADE", name="fk_user_sessions_user_id_users"),
            nullable=False,
        ),
        sa.Column("token_hash", DIGEST, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("seen_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.UniqueConstraint("token_hash", name="uq_user_sessions_token_hash"),
    )
    op.create_index("ix_user_sessions_user", "user_sessions", ["user_id"])


def downgrade() -> None:
    op.drop_table("user_sessions")
    op.drop_table("users")
    op.drop_column("api_keys", "old_secret_until")
    op.drop_column("api_keys", "old_secret_hash")
