"""The schema: up, down and up again on both engines, equal to the models, and safe when everybody
starts at once."""

from __future__ import annotations

import ast
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.sql.schema import ColumnCollectionConstraint

from faxbot import db, events, schema
from faxbot.config import Config
from faxbot.db import Base, Database, UtcDateTime
from faxbot.errors import ConfigError, DatabaseAway
from faxbot.models import Job, RetentionProof, RetentionRun
from tests.ground import eventually
from tests.installation import Installation
from tests.integration.command import one_line, run
from tests.integration.site import Site

FIRST = import_module("faxbot.migrations.versions.0001_jobs_and_results")
assert Job.metadata is Base.metadata


CATALOGUES = {
    "sqlite": "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY 1, 2",
    "postgresql": """
        SELECT 'column' AS kind, table_name || '.' || column_name AS name,
            concat_ws(' ', data_type, is_nullable, character_maximum_length, column_default) AS text
        FROM information_schema.columns WHERE table_schema = 'public'
        UNION ALL SELECT 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
        UNION ALL SELECT 'constraint', conrelid::regclass || '.' || conname,
            pg_get_constraintdef(oid)
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace
        UNION ALL SELECT 'trigger', tgname, pg_get_triggerdef(oid)
        FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL SELECT 'FUNCTION', proname, pg_get_functiondef(oid)
        FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        ORDER BY 1, 2
    """,
}


def catalogue(config: Config) -> list[str]:
    """What the database says it holds, as text that two schemas can be compared by."""
    with closing(Database(config)) as database, database.reading() as session:
        query = CATALOGUES[database.engine.dialect.name]
        return [str(row) for row in session.connection().exec_driver_sql(query)]


def test_up_down_and_up_again_gives_the_same_schema(store: Installation) -> None:
    config = store.config()
    first = catalogue(config)
    assert len(first) > 20
    assert db.current(config) == db.head()

    schema.migrate(config, "base")
    left = "".join(catalogue(config))
    assert db.current(config) is None
    assert not [name for name in Base.metadata.tables if f"'{name}'" in left]
    assert "guard" not in left
    assert "FUNCTION" not in left
    with pytest.raises(ConfigError, match="faxbot db upgrade"):
        db.check(config)

    schema.upgrade(config)
    assert catalogue(config) == first
    schema.upgrade(config)
    db.check(config)


def made_by_the_earlier_faxbot(config: Config, *more: str) -> None:
    """In the place of ours (its api/app/db.py): a fax and a key."""
    schema.migrate(config, "base")
    with closing(Database(config)) as database, database.transaction() as session:
        for statement in (
            "DROP TABLE alembic_version",
            "CREATE TABLE fax_jobs (id VARCHAR(40) PRIMARY KEY, to_number VARCHAR(64))",
            "CREATE TABLE api_keys (id VARCHAR(40) PRIMARY KEY, key_hash VARCHAR(200))",
            "INSERT INTO fax_jobs VALUES ('1', '+15550100000')",
            *more,
        ):
            session.execute(sa.text(statement))


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("DROP TABLE api_keys",),
        (
            "CREATE TABLE alembic_version (version_num VARCHAR(32))",
            "INSERT INTO alembic_version VALUES ('0001_initial')",
        ),
    ],
    ids=["as it makes it", "an older one", "by Alembic"],
)
def test_the_earlier_faxbots_database_is_refused_and_stays_as_it_is(
    store: Installation, more: tuple[str, ...]
) -> None:
    config = store.config()
    made_by_the_earlier_faxbot(config, *more)

    def held() -> Any:
        if config.database_url:
            return catalogue(config)
        return (store.data_dir / "faxbot.db").read_bytes()

    if not config.database_url:
        with closing(sqlite3.connect(store.data_dir / "faxbot.db")) as connection:
            connection.execute("PRAGMA journal_mode=DELETE").close()
    before = held()

    ended = run(store, "db", "upgrade")
    assert (ended.code, "was left as it is" in one_line(ended.err)) == (1, True)
    assert ("DATABASE_URL" if config.database_url else "FAX_DATA_DIR") in ended.err
    for words in (("db", "check"), ("config", "list"), ("config", "migrate-env")):
        ended = run(store, *words)
        assert (ended.code, "schema" in one_line(ended.err)) == (1, True)
    assert held() == before


def test_a_newer_faxbots_database_is_left_to_it(store: Installation) -> None:
    config = store.config()
    with closing(Database(config)) as database, database.transaction() as session:
        session.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))

    for command in ("check", "upgrade"):
        ended = run(store, "db", command)
        assert (ended.code, "a newer faxbot" in one_line(ended.err)) == (1, True)
    assert db.current(config) == "9999"


def test_a_file_that_is_no_database_is_named(embedded: Installation) -> None:
    (embedded.data_dir / "faxbot.db").write_bytes(b"a letter, and no database at all\n" * 99)

    for command in ("check", "upgrade"):
        ended = run(embedded, "db", command)
        assert (ended.code, "FAX_DATA_DIR) is no database" in one_line(ended.err)) == (1, True)


def test_the_migrations_make_what_the_models_say(store: Installation) -> None:
    database = Database(store.config())

    def same_type(_context: object, _one: object, _two: object, found: Any, model: Any) -> bool:
        """True where they differ. A model's own types are compared by what they become in the
        database."""
        plain = model.impl_instance if isinstance(model, UtcDateTime) else model
        dialect = database.engine.dialect
        return str(found.compile(dialect)) != str(plain.compile(dialect))

    with database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": same_type, "compare_server_default": True}
        )
        assert compare_metadata(context, Base.metadata) == []
        assert constraints(connection) == expected_constraints()
        assert partial_indexes(connection) == {
            "ix_artifacts_going",
            "ix_attempts_copies",
            "ix_audit_events_outcome",
            "ix_callbacks_unwanted",
            "ix_callbacks_waiting",
            "ix_events_ended",
            "ix_inbound_faxes_callback",
            "ix_inbound_faxes_copies",
            "ix_inbound_faxes_due",
            "ix_inbound_faxes_lost",
            "ix_inbound_faxes_status",
            "ix_inbound_faxes_unread",
            "ix_jobs_account_provider",
            "ix_jobs_due",
            "ix_jobs_ended",
            "ix_jobs_purged",
            "ix_jobs_waiting",
            "uq_artifacts_callback",
            "uq_artifacts_inbound",
            "uq_events_inbound",
            "uq_retention_runs_running",
            "ix_webhook_deliveries_dead",
            "ix_webhook_deliveries_due",
            "ix_notices_untold",
            "ix_notifications_waiting",
        }
    database.close()


def constraints(connection: sa.Connection) -> set[tuple[str, str, tuple[str, ...]]]:
    """Primary, unique and foreign keys as the database holds them."""
    inspector, found = sa.inspect(connection), set()
    for name in Base.metadata.tables:
        found.add(
            (name, "primary", tuple(inspector.get_pk_constraint(name)["constrained_columns"]))
        )
        for unique in inspector.get_unique_constraints(name):
            found.add((name, "unique", tuple(unique["column_names"])))
        for key in inspector.get_foreign_keys(name):
            cascade = str(key["options"].get("ondelete"))
            found.add((name, f"foreign {cascade}", tuple(key["constrained_columns"])))
    return found


def expected_constraints() -> set[tuple[str, str, tuple[str, ...]]]:
    words = {sa.PrimaryKeyConstraint: "primary", sa.UniqueConstraint: "unique"}

    def word(constraint: ColumnCollectionConstraint) -> str | None:
        if isinstance(constraint, sa.ForeignKeyConstraint):
            return f"foreign {constraint.ondelete}"
        return words.get(type(constraint))

    return {
        (table.name, kind, tuple(constraint.columns.keys()))
        for table in Base.metadata.tables.values()
        for constraint in table.constraints
        if isinstance(constraint, ColumnCollectionConstraint) and (kind := word(constraint))
    }


def partial_indexes(connection: sa.Connection) -> set[str | None]:
    """Indexes that hold a part of their table only."""
    inspector = sa.inspect(connection)
    option = f"{connection.dialect.name}_where"
    return {
        index["name"]
        for name in Base.metadata.tables
        for index in inspector.get_indexes(name)
        if index.get("dialect_options", {}).get(option) is not None
    }


def test_every_table_belongs_to_an_account_and_every_time_has_a_zone() -> None:
    for table in Base.metadata.tables.values():
        assert "account_id" in table.columns
        for column in table.columns:
            assert column.name.endswith("_at") == isinstance(column.type, UtcDateTime) or (
                column.name.endswith("_until")
            )
            sealed = isinstance(column.type, sa.LargeBinary)
            assert column.name.endswith("_sealed") == sealed


def test_the_frozen_pairs_of_the_first_migration_are_those_of_the_code() -> None:
    pairs = {(str(source), str(target)) for source, target in events.PAIRS if source is not None}

    assert set(FIRST.TRANSITIONS) == pairs
    assert len(FIRST.TRANSITIONS) == len(pairs)
    assert set(FIRST.OPEN) == set(map(str, events.OPEN))
    assert (None, events.Status(FIRST.FIRST_STATUS)) in events.PAIRS


def test_a_migration_is_frozen_it_imports_nothing_of_ours() -> None:
    for path in sorted((db.migrations_dir() / "versions").glob("0*.py")):
        tree = ast.parse(path.read_text())
        modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        modules |= {
            n.name for node in ast.walk(tree) if isinstance(node, ast.Import) for n in node.names
        }

        assert not {name for name in modules if name and name.startswith("faxbot")}, path.name


def test_the_newest_revision_is_named_so_that_two_at_once_collide() -> None:
    scripts = ScriptDirectory(str(db.migrations_dir()))
    names = sorted(path.stem for path in (db.migrations_dir() / "versions").glob("0*.py"))

    assert scripts.get_heads() == [db.head()]
    assert (db.migrations_dir() / "HEAD").read_text() == f"{db.head()}\n"
    assert [name[:4] for name in names] == [f"{n:04}" for n in range(1, len(names) + 1)]
    assert names[-1].startswith(db.head())


_UPGRADE = (
    "from faxbot.config import Config; from faxbot import schema; schema.upgrade(Config.load())"
)


def test_several_processes_upgrade_at_once(store: Installation) -> None:
    config = store.config()
    before = catalogue(config)
    schema.migrate(config, "base")

    upgrades = [
        subprocess.Popen(
            [sys.executable, "-c", _UPGRADE],
            env=store.env,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for _ in range(3)
    ]
    failures = [upgrade.communicate(timeout=60)[1] for upgrade in upgrades]

    assert failures == ["", "", ""]
    assert [upgrade.returncode for upgrade in upgrades] == [0, 0, 0]
    assert catalogue(config) == before


def test_indexes_are_built_beside_who_writes_and_anew_where_that_was_broken_off(
    on_postgresql: Site,
) -> None:
    config = on_postgresql.runtime.config
    before = catalogue(config)
    schema.migrate(config, f"-{int(db.head()) - 22}")
    with closing(Database(config)) as database, ThreadPoolExecutor(1) as others:
        with database.transaction() as session:
            session.execute(sa.text("CREATE INDEX ix_events_ended ON events (id)"))

        def waits() -> bool:
            with database.reading() as session:
                return bool(session.scalar(sa.text(_BUILDS)))

        with database.transaction() as session:
            session.execute(sa.text(_A_DEED), {"proof": "one"})
            upgrade = others.submit(schema.upgrade, config)
            eventually(waits)
            with database.transaction() as another:
                another.execute(sa.text(_A_DEED), {"proof": "two"})
            assert not upgrade.done()
        upgrade.result(60)

    assert catalogue(config) == before


_BUILDS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' "
    "AND query LIKE 'CREATE INDEX%'"
)
_A_DEED = (
    "INSERT INTO audit_events (account_id, happened_at, actor_kind, actor, action, outcome, details, proof) "
    "VALUES ('default', now(), 'cli', 'cli', 'fax.shown', 'done', '{}', :proof)"
)


def test_an_upgrade_that_fails_changes_nothing(store: Installation) -> None:
    config = store.config()
    schema.migrate(config, "base")
    with closing(Database(config)) as database, database.engine.begin() as connection:
        connection.exec_driver_sql("CREATE VIEW provider_states AS SELECT 1 AS in_the_way")
    before = catalogue(config)

    with pytest.raises((sa.exc.SQLAlchemyError, DatabaseAway)):
        schema.upgrade(config)

    assert catalogue(config) == before
    assert db.current(config) is None


def test_of_two_runs_of_retention_that_were_under_way_at_once_the_older_goes_on(
    store: Installation,
) -> None:
    config = store.config()
    schema.migrate(config, "base")
    schema.migrate(config, "0024")
    at = datetime(2026, 11, 20, tzinfo=UTC)
    with closing(Database(config)) as database:
        with database.writing() as connection:
            for number, state in enumerate(("done", "running", "running", "running")):
                run = {"id": f"{number}", "due_at": at + timedelta(hours=number), "state": state}
                more = {"asked_by": "clock", "fence": 3, "started_at": at, "lease_until": at}
                connection.execute(sa.insert(RetentionRun).values(**run, **more))
            proof = {"class": "document", "cutoff_at": at, "step": 0, "expected": 5, "deleted": 5}
            for run_id in ("1", "2"):
                more = {"run_id": run_id, "outcome": "open", "started_at": at}
                connection.execute(sa.insert(RetentionProof).values(**proof, **more))
        schema.upgrade(config)
        runs = database.rows(sa.select(RetentionRun).order_by("id"), {})
        assert [row.state for row in runs] == ["done", "running", "failed", "failed"]
        assert [(row.fence, row.ended_at is None) for row in runs[1:]] == [
            (3, True),
            (4, False),
            (4, False),
        ]
        proofs = database.rows(sa.select(RetentionProof).order_by("run_id"), {})
        assert [(row.outcome, row.deleted) for row in proofs] == [("open", 5), ("failed", 5)]
