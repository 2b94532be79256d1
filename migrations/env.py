"""Alembic's door: runs the revisions on the connection that faxbot.db hands over, with short lock waits on
PostgreSQL."""

from alembic import context
from sqlalchemy.engine import Connection

from faxbot.models import Job


def run(connection: Connection) -> None:
    """Run what was asked for in one transaction; a revision that builds beside writers ends it and begins another."""
    postgresql = connection.dialect.name == "postgresql"
    if postgresql:
        # A migration waits for nobody for long: better a failed upgrade than a stalled service behind it.
        connection.exec_driver_sql("SET lock_timeout = '5s'")
        connection.commit()  # the transaction that follows is Alembic's: a revision may have to leave it
    context.configure(
        connection=connection,
        target_metadata=Job.metadata,
        compare_type=True,
        compare_server_default=True,
        transactional_ddl=True,
        render_as_batch=not postgresql,
    )
    with context.begin_transaction():
        context.run_migrations()


run(context.config.attributes["connection"])
