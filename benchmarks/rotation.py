"""How long a new master key takes: all that is sealed of ten thousand faxes, and of ten times as many, sealed anew by
`faxbot config rotate-key`, while nobody else is there."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path

import sqlalchemy as sa

from benchmarks.figures import Figures
from faxbot import rotation, schema, wiring
from faxbot.actors import CLI
from faxbot.config import Config
from faxbot.crypto import Keyring
from faxbot.db import new_id, table, utcnow
from faxbot.models import IdempotencyKey, Job
from faxbot.runtime import Runtime

FEW, MANY = "10,000 faxes", "100,000 faxes"
SIZES = {FEW: 10_000, MANY: 100_000}
FLOOR = "floor"
"""The same values opened, sealed and written by the bare driver in batches of BATCH, without a rest."""
BATCH = 500
ANSWER = b"x" * 700
"""As long as the answer to a submit."""


def measure(
    figures: Figures, store: str, database: str, folder: Path, say: Callable[[str], None]
) -> None:
    """Microseconds a fax, and seconds in all, for few faxes and many; `database`: its address, "" for SQLite."""
    environment = {"FAX_DATA_DIR": str(folder), **({"DATABASE_URL": database} if database else {})}
    keys, there = {"CONFIG_MASTER_KEY": _new_key()}, 0
    schema.upgrade(Config.load({**environment, **keys}))
    for name, faxes in SIZES.items():
        say(f"a new master key for {name} on {store}")
        with _opened({**environment, **keys}) as runtime:
            _fill(runtime, faxes - there)
            there = faxes
        before, key = keys["CONFIG_MASTER_KEY"], _new_key()
        keys = {"CONFIG_MASTER_KEY": key}
        with _opened({**environment, **keys, "CONFIG_MASTER_KEY_PREVIOUS": before}) as runtime:
            took, waited = _rotated(runtime)
        figures.add(f"rotation/{store}/fax", name, (took - waited) / faxes * 1e6)
        figures.add(f"rotation/{store}/seconds", name, took)
    with _opened(
        {**environment, **keys}
    ) as runtime:  # behind all else, whose ground it would spoil
        figures.add(f"rotation/{store}/fax", FLOOR, _bare(runtime) / there * 1e6)


def _rotated(runtime: Runtime) -> tuple[float, float]:
    """How many seconds it took, and for how many of them it waited for other processes to notice."""
    waited = 0.0

    def wait(seconds: float) -> None:
        nonlocal waited
        if seconds > 1:  # a rest after a batch is shorter, and is part of the work
            waited += seconds
        time.sleep(seconds)

    began = time.perf_counter()
    assert rotation.rotate(runtime, CLI, wait=wait)
    return time.perf_counter() - began, waited


def _new_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def _opened(environment: dict[str, str]) -> AbstractContextManager[Runtime]:
    return closing(wiring.build(Config.load(environment)))


def _fill(runtime: Runtime, faxes: int) -> None:
    now, keyring = utcnow(), runtime.keyring
    jobs, answers = [], []
    for number in range(faxes):
        to, job_id = f"+1555{number:07}".encode(), new_id()
        jobs.append(
            {
                "id": job_id,
                "created_by": "bench",
                "status": "queued",
                "to_sealed": keyring.seal(to, "jobs.to:default"),
                "to_key": keyring.keyed_hash(to, "number"),
                "resolution": "fine",
                "priority": 128,
                "tags": {},
                "created_at": now,
                "updated_at": now,
            }
        )
        answers.append(
            {
                "route": "/fax/send",
                "key_hash": keyring.keyed_hash(job_id.encode(), "idempotency-key"),
                "fingerprint": keyring.keyed_hash(job_id.encode(), "fingerprint"),
                "job_id": job_id,
                "response_status": 202,
                "response_sealed": keyring.seal(ANSWER, "idempotency_keys.response:default"),
                "created_at": now,
                "expires_at": now,
            }
        )
    for first in range(0, faxes, 2000):
        with runtime.database.writing() as connection:
            connection.execute(sa.insert(table(Job)), jobs[first : first + 2000])
            connection.execute(sa.insert(table(IdempotencyKey)), answers[first : first + 2000])


def _bare(runtime: Runtime) -> float:
    """Seconds for the same numbers and answers with the driver alone."""
    began = time.perf_counter()
    with closing(runtime.database.engine.raw_connection()) as connection:
        cursor, mark = connection.cursor(), "?" if runtime.database.is_sqlite else "%s"
        for name, its, key, column, place in (
            ("jobs", "", "id", "to_sealed", "jobs.to:default"),
            (
                "idempotency_keys",
                "account_id = 'default' AND route = '/fax/send' AND ",
                "key_hash",
                "response_sealed",
                "idempotency_keys.response:default",
            ),
        ):
            select = (
                f"SELECT {key}, {column} FROM {name} WHERE {its}{key} > {mark} "
                f"ORDER BY {key} LIMIT {BATCH}"
            )
            update = f"UPDATE {name} SET {column} = {mark} WHERE {its}{key} = {mark}"
            last = ""
            while True:
                cursor.execute(select, (last,))
                found = cursor.fetchall()
                if not found:
                    break
                last = found[-1][0]
                if runtime.database.is_sqlite:
                    cursor.execute("BEGIN IMMEDIATE")  # psycopg begins by itself
                cursor.executemany(update, [_again(runtime.keyring, row, place) for row in found])
                connection.commit()
    return time.perf_counter() - began


def _again(keyring: Keyring, row: tuple[str, bytes], place: str) -> tuple[bytes, str]:
    return keyring.seal(keyring.open(bytes(row[1]), place), place), row[0]
