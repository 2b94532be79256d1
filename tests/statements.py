"""SQLAlchemy in a test process: a statement is compiled once, and a server is asked once what it can, as in any process
that serves for long.

Each test has a database of its own and so two engines of its own, and SQLAlchemy keeps what it learned by engine: every
test would compile each of its statements anew, and ask the same server the same six questions twice (measured: a tenth
of the time of tests with a database). Here engines of one kind are equal and share it. Processes that tests start know
nothing of this.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.util import LRUCache

_compiled: LRUCache[Any, Any] = LRUCache(5000)
_learned: dict[tuple[str, int], dict[str, Any]] = {}
"""What is known of a server, by its address."""


class _Shared(DefaultDialect):
    """A dialect that is the same as every other of its class that was told the same of a server of the same version.
    How connections begin their transactions changes no statement."""

    def __init__(self, **told: Any) -> None:
        self._told = tuple(
            sorted((name, repr(told[name])) for name in told.keys() - {"isolation_level"})
        )
        super().__init__(**told)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Shared)
            and type(self) is type(other)
            and self._told == other._told
            and self.server_version_info == other.server_version_info
        )

    def __hash__(self) -> int:
        return hash((type(self), self._told))

    @classmethod
    def engine_created(cls, engine: Engine) -> None:
        engine.update_execution_options(compiled_cache=_compiled)


class Postgresql(_Shared, PGDialect_psycopg):
    supports_statement_cache = True

    def initialize(self, connection: Connection) -> None:
        info = connection.connection.dbapi_connection.info  # type: ignore[union-attr]
        server = (info.host, info.port)
        if server not in _learned:
            before = dict(vars(self))
            super().initialize(connection)  # type: ignore[no-untyped-call]
            _learned[server] = {
                name: value
                for name, value in vars(self).items()
                if name not in before or before[name] is not value
            }
        vars(self).update(_learned[server])


class Sqlite(_Shared, SQLiteDialect_pysqlite):
    supports_statement_cache = True


def share() -> None:
    """From now on, for every engine of this process."""
    registry.register("postgresql.psycopg", __name__, Postgresql.__name__)
    registry.register("sqlite", __name__, Sqlite.__name__)
