"""PostgreSQL and Redis as the figures want them: the tests' servers, as durable as where faxes matter."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import psycopg

from tests.ground import Ground
from tests.servers import PostgresServer, RedisServer


class DurablePostgres(PostgresServer):
    """With fsync and synchronous_commit, which the tests do without, and on a disk, where they mean something."""

    in_memory = False
    options = ("-c", "fsync=on", "-c", "synchronous_commit=on", "-c", "shared_buffers=256MB")

    def new_database(self) -> str:
        """The address of a new, empty database."""
        name = f"bench_{secrets.token_hex(4)}"
        self.create_database(name)
        return self.url(name)


class PlainRedis(RedisServer):
    """Without persistence: the rows are the truth, whatever the broker keeps."""

    options = ("--appendonly", "no")

    def database(self, number: int) -> str:
        """The address of one of its 16 databases."""
        return f"redis://127.0.0.1:{self.port}/{number}"


@dataclass(frozen=True)
class Servers:
    """What both sides work with."""

    postgres: DurablePostgres
    redis: PlainRedis

    def description(self) -> str:
        """Their versions and settings, for the report."""
        with psycopg.connect(self.postgres.admin_url) as connection:
            number = connection.info.server_version
        with closing(self.redis.client()) as client:
            info = client.info("server")
        name = info.get("server_name", "redis").capitalize()
        version = info.get("valkey_version", info["redis_version"])
        return (
            f"PostgreSQL {number // 10000}.{number % 10000} (fsync and synchronous_commit on, "
            f"shared_buffers 256 MB), {name} {version} without persistence"
        )


@contextmanager
def servers() -> Iterator[Servers]:
    """Both, for the length of the block."""
    with closing(Ground()) as ground:
        postgres, redis = DurablePostgres(ground), PlainRedis(ground)
        postgres.start()
        redis.start()
        yield Servers(postgres, redis)
