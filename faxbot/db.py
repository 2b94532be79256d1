"""The ledger's engine: PostgreSQL, or SQLite in WAL mode; transactions, try-locks, ids and the
migrations' door.

Rules that were measured to hold on SQLite: BEGIN IMMEDIATE for every write transaction (a deferred
BEGIN gave hundreds of "database is locked" under load), WAL, synchronous FULL (a 202 must survive a
power cut), busy time-out 10 s, short transactions with no network call inside. Engines are made
after a fork, never before.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import struct
import time
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any, cast

import psycopg
import sqlalchemy as sa
from psycopg.pq import TransactionStatus
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.types import TypeDecorator

from faxbot.config import Config
from faxbot.errors import ConfigError, DatabaseAway

CONSTRAINT_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
_PING_AFTER_IDLE = 1.0  # seconds; a pooled connection used more recently is taken as alive
_PING_SECONDS = 1.0
"""An answer that takes longer costs a new connection, no more; with connect_timeout it is what a silent server costs
whoever comes."""
_PATIENCE = 20.0
"""Seconds for one answer of PostgreSQL; one that gives none by then is away."""
_SERVER_LIMITS = (
    # A process that is stopped inside a transaction must not keep the others from its faxes.
    "-c idle_in_transaction_session_timeout=15000 -c lock_timeout=5000 -c statement_timeout=15000"
)
_LIMITS: dict[str, int] = {
    "connect_timeout": 3,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
"""libpq's names, in seconds and the last in milliseconds: a machine that vanished is noticed."""


class Base(DeclarativeBase):
    """All tables; constraints are named so that migrations can find them."""

    metadata = sa.MetaData(naming_convention=CONSTRAINT_NAMES)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time; a naive one is refused. PostgreSQL keeps the zone, SQLite keeps UTC
    without it."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone came to the database")
        return value.astimezone(UTC).replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, _dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def table(model: type[Base]) -> sa.Table:
    """The bare table of a model, for statements that need no objects."""
    return cast(sa.Table, model.__table__)


def inserts(model: type[Base]) -> dict[str, postgresql.Insert | sqlite.Insert]:
    """By dialect: an INSERT into a model's table that may say what to do on a conflict.

    To know whether it inserted, ask for RETURNING: rowcount is -1 on PostgreSQL.
    """
    return {
        "postgresql": postgresql.insert(table(model)),
        "sqlite": sqlite.insert(table(model)),
    }


def among(
    connection: Connection, column: sa.ColumnElement[Any], values: Sequence[str]
) -> sa.ColumnElement[bool]:
    """Whether a column is one of these (ids and hashes, however many): they go to the database as one value, where each
    of an IN would be written, sent and read by itself. Raises ValueError for an empty one and one with a comma."""
    joined = ",".join(values)
    if "" in values or joined.count(",") >= max(len(values), 1):
        raise ValueError("neither an empty value nor one with a comma can be looked for so")
    if connection.dialect.name == "postgresql":
        # Of 1,000 values an array of psycopg's costs 2 us each, this 0.2.
        return column == sa.any_(sa.func.string_to_array(joined, ","))
    each = sa.func.json_each(json.dumps(values)).table_valued("value")
    return column.in_(sa.select(each.c.value))


@contextmanager
def planned_anew(connection: Connection) -> Iterator[None]:
    """Have PostgreSQL plan each statement in here for the values that it comes with. What is prepared is planned after
    five times without them, however many ids a value holds: to find 1,000 of 40,000 rows took 50 ms then, and 1 ms."""
    if connection.dialect.name != "postgresql":
        yield
        return
    driver: Any = connection.connection.driver_connection
    usual, driver.prepare_threshold = driver.prepare_threshold, None
    try:
        yield
    finally:
        driver.prepare_threshold = usual


def utcnow() -> datetime:
    """The time now, aware, in UTC."""
    return datetime.now(UTC)


def new_id(at: datetime | None = None) -> str:
    """32 hex digits, a UUID version 7 (RFC 9562): ordered by time to the millisecond, random after
    that."""
    milliseconds = int((at or utcnow()).timestamp() * 1000)
    value = (milliseconds << 80) | secrets.randbits(80)
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    return f"{value:032x}"


def first_id(at: datetime) -> str:
    """The smallest id that new_id() can give at or after `at`: a time bound for lists ordered by
    id."""
    return f"{max(0, int(at.timestamp() * 1000)) << 80:032x}"


def made_at(made: str) -> datetime:
    """The time, to the millisecond, that new_id() was given for this id."""
    return datetime.fromtimestamp(int(made[:12], 16) / 1000, UTC)


_TRY_LOCK = sa.select(
    sa.func.pg_try_advisory_xact_lock(sa.bindparam("number", type_=sa.BigInteger))
)


class Database:
    """What one process works with: transactions for writing; for reading, and for a write of one
    statement, connections that commit each statement by itself."""

    def __init__(self, config: Config, *, pool_size: int = 8, hurried: bool = True) -> None:
        """`hurried`: on PostgreSQL whatever takes long is given up as DatabaseAway."""
        self.engine = _engine(config, pool_size, hurried=hurried)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        self._locks = config.data_dir / "locks"
        self._write = sessionmaker(self.engine, expire_on_commit=False, autoflush=False)
        # A single statement needs no BEGIN and COMMIT: two round trips less on PostgreSQL, and for
        # reading no write lock on SQLite.
        # It has connections of its own: switching one to and fro costs more than the SELECT.
        self.reader = _engine(
            config, pool_size, isolation_level="AUTOCOMMIT", pool_reset_on_return=None
        )
        self._read = sessionmaker(self.reader, expire_on_commit=False, autoflush=False)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session that commits at the end; raises DatabaseAway when the database cannot be
        reached."""
        with faults(), self._write() as session:
            try:
                with session.begin():
                    yield session
            finally:
                for descriptor in session.info.pop("locks", ()):
                    os.close(descriptor)
        _do_then(session.info)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that only reads; each statement sees what is committed when it runs."""
        with faults(), self._read() as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """As transaction(), without objects: for statements made once, where a session would cost
        as much as the statement.

        It begins with the first statement, so that try_lock() can come before it: on SQLite the
        beginning itself waits for other writers.
        """
        with faults(), self.engine.connect() as connection:
            info = connection.info
            try:
                yield connection
                connection.commit()
            except BaseException:
                connection.rollback()
                info.pop(_THEN, None)
                raise
            finally:
                for descriptor in info.pop("locks", ()):
                    os.close(descriptor)
            deeds = {_THEN: info.pop(_THEN, {})}
        _do_then(deeds)

    def row(self, statement: sa.Executable, values: dict[str, Any]) -> sa.Row[Any] | None:
        """The first row a statement gives; what it changes is committed with it. Raises
        DatabaseAway."""
        with faults(), self.reader.connect() as connection:
            return connection.execute(statement, values).first()

    def rows(self, statement: sa.Executable, values: dict[str, Any]) -> Sequence[sa.Row[Any]]:
        """All rows a statement gives, likewise."""
        with faults(), self.reader.connect() as connection:
            return connection.execute(statement, values).all()

    def try_lock(self, held: Session | Connection, name: str) -> bool:
        """Take the lock `name` until the transaction ends, or say at once that somebody holds it.

        `name` is hex. PostgreSQL: a transaction-scoped advisory lock. SQLite: a lock on one byte
        of a file that belongs to the open file (OFD), so that it holds between threads and
        processes alike; ask before the first statement, because the transaction itself waits for
        other writers.
        """
        number = int(name[:15], 16)
        if not self.is_sqlite:
            return bool(held.scalar(_TRY_LOCK, {"number": number}))
        self._locks.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(
            self._locks / "idempotency", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        wanted = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, number, 1, 0)
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wanted)
        except OSError:
            os.close(descriptor)
            return False
        held.info.setdefault("locks", []).append(descriptor)
        return True

    @property
    def held(self) -> int:
        """How many connections somebody works with just now."""
        pools = [cast(sa.QueuePool, engine.pool) for engine in (self.engine, self.reader)]
        return sum(pool.checkedout() for pool in pools)

    def close(self) -> None:
        self.engine.dispose()
        self.reader.dispose()


_THEN = "then"


def then(held: Session | Connection, name: str, deed: Callable[[], object]) -> None:
    """Have this done once, under this name, when the transaction of transaction() or writing() is committed; not where
    it is taken back."""
    held.info.setdefault(_THEN, {})[name] = deed


def _do_then(info: MutableMapping[Any, Any]) -> None:
    for deed in info.pop(_THEN, {}).values():
        deed()


@contextmanager
def faults() -> Iterator[None]:
    """Turn the drivers' ways of saying so into DatabaseAway."""
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        raise DatabaseAway from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise DatabaseAway from error
        raise


class _Cursor(psycopg.Cursor[Any]):
    """Says of a column its name and type: SQLAlchemy asks for no more, and the driver's own answer
    looks both up in registries (measured: an eighth of the time of all statements for a fax)."""

    @property
    def description(self) -> Any:
        result = self.pgresult
        if result is None or not result.nfields:
            return None
        return [
            ((result.fname(column) or b"").decode(), result.ftype(column), *_UNTOLD)
            for column in range(result.nfields)
        ]


_UNTOLD = (None,) * 5  # PEP 249: a column is described in seven words, five of them optional


class _Connection(psycopg.Connection[Any]):
    """A connection that does not wait for ever: a frozen server says nothing and enforces nothing,
    and its kernel acknowledges what we send, so that no limit of TCP notices either."""

    patience = _PATIENCE

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        try:
            return super().wait(gen, interval, self.patience if timeout is None else timeout)
        except psycopg.OperationalError:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.close()  # no whole answer came: nothing can follow on this connection
            raise


def _connect(
    _dialect: sa.Dialect, _record: ConnectionPoolEntry, words: Any, options: dict[str, Any]
) -> _Connection:
    asked = options.pop("options", "")
    return _Connection.connect(
        *words,
        **options,
        cursor_factory=_Cursor,
        options=f"{_SERVER_LIMITS} {asked}".strip(),
    )


def _engine(config: Config, pool_size: int, *, hurried: bool = True, **options: Any) -> Engine:
    url = _address(config.database)
    # An exception's text must not quote what was to be written.
    options |= {"pool_size": pool_size, "max_overflow": 4, "hide_parameters": True}
    if url.get_backend_name() == "sqlite":
        config.make_data_dir()
        engine = sa.create_engine(url, **options)
        event.listen(engine, "connect", _prepare_sqlite)
        if options.get("isolation_level") != "AUTOCOMMIT":
            event.listen(engine, "begin", _begin_immediate)
        return engine
    engine = sa.create_engine(url, connect_args=_LIMITS, **options)
    if hurried:
        event.listen(engine, "do_connect", _connect)
    event.listen(engine, "checkin", _note_use)
    event.listen(engine, "checkout", _ping_when_idle)
    return engine


def _address(text: str) -> sa.URL:
    try:
        url = sa.make_url(text)
    except (ArgumentError, ValueError):
        raise ConfigError(
            "DATABASE_URL cannot be read: write it as postgresql://user:password@host:port/database"
        ) from None
    on_disk = url.database not in (None, "", ":memory:")
    if url.drivername != "postgresql+psycopg" and not (url.drivername == "sqlite" and on_disk):
        raise ConfigError("DATABASE_URL must begin with postgresql:// or sqlite:///")
    return url


def _prepare_sqlite(connection: Any, _record: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself; _begin_immediate does
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "busy_timeout=10000",
        "foreign_keys=ON",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _note_use(_connection: Any, record: ConnectionPoolEntry) -> None:
    record.info["used"] = time.monotonic()


def _ping_when_idle(connection: Any, record: ConnectionPoolEntry, _proxy: Any) -> None:
    """After a restart of the server a pooled connection is dead: find out before a request does."""
    if time.monotonic() - record.info.get("used", time.monotonic()) < _PING_AFTER_IDLE:
        return
    try:
        connection.patience = _PING_SECONDS
        connection.execute("SELECT 1")
        connection.rollback()
        connection.patience = _PATIENCE
    except Exception as error:
        # Whatever the driver says, the connection is not usable.
        raise sa.exc.DisconnectionError from error


# The schema's revision; what changes it is in schema.py ------------------------------------------


def migrations_dir() -> Path:
    """Where the migrations lie: migrations/ of a checkout, faxbot.migrations of an installation."""
    return Path(str(resources.files("faxbot.migrations")))


def head() -> str:
    """The newest revision this code knows: migrations/HEAD."""
    return (migrations_dir() / "HEAD").read_text().strip()


def revision(session: Session) -> str | None:
    """The revision of the database, None when it is empty."""
    return _revision(session.connection())


def _revision(connection: Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    return None if found is None else str(found)


def is_known(revision: str) -> bool:
    """Whether it is one of this code's: migrations/versions."""
    files = (migrations_dir() / "versions").glob("*.py")
    return any(file.name.startswith(f"{revision}_") for file in files)


def must_exist(config: Config) -> None:
    """Raise ConfigError where SQLite's file is not there yet: opening it would make it, and a folder for it, wherever
    the command was called by mistake."""
    if not config.database_url and not (config.data_dir / "faxbot.db").exists():
        raise ConfigError(
            f"there is no database in {config.data_dir} (FAX_DATA_DIR): go to your faxbot folder or set it; "
            "`faxbot up` and `faxbot db upgrade` make a new one"
        )


def look(config: Config) -> tuple[str | None, frozenset[str]]:
    """The revision of the database that `config` names (None: it has none) and the names of its tables. Whoever made
    it: nothing is changed, and no file is made. Raises DatabaseAway; ConfigError for a file that is no database."""
    url = _address(config.database)
    is_sqlite = url.get_backend_name() == "sqlite"
    if is_sqlite:
        if not Path(str(url.database)).exists():
            return None, frozenset()
        engine = sa.create_engine(
            url, hide_parameters=True
        )  # without pragmas: WAL would be kept in the file
    else:
        engine = _engine(config, 1)
    try:
        with faults(), engine.connect() as connection:
            return _revision(connection), frozenset(sa.inspect(connection).get_table_names())
    except sa.exc.DatabaseError:
        if not is_sqlite:
            raise
        raise ConfigError(f"{place(config)} is no database, or is damaged") from None
    finally:
        engine.dispose()


def place(config: Config) -> str:
    """Where the database is, in words that name the setting and show no password."""
    if config.database_url:
        return "the database of DATABASE_URL"
    return f"faxbot.db in {config.data_dir} (FAX_DATA_DIR)"


def current(config: Config) -> str | None:
    """The revision of the database that `config` names; raises as look()."""
    return look(config)[0]


def check(config: Config) -> None:
    """Raise ConfigError unless the database has this code's schema."""
    found = current(config)
    if found is not None and not is_known(found):
        raise ConfigError(unknown(config))
    if found != head():
        raise ConfigError("the database schema is not up to date: run `faxbot db upgrade`")


def unknown(config: Config) -> str:
    """What is said of a revision that is not known here."""
    return (
        f"{place(config)} has a schema that this version of faxbot does not know, and was left as it is: a newer "
        "faxbot has made it, or another program"
    )
