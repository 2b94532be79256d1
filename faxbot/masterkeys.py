"""Which master keys are at work, as the database says: the one that seals, the one that will, the one that did, and
what of earlier ones lives on.

Every process reads it with the version of the settings, and goes by it within seconds (settings). What is written here
is written by a rotation (rotation).
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from faxbot.crypto import GIVEN_OUT, LASTING, WRAPPED, Keyring, Keys, Past, Unsealable, wraps
from faxbot.db import Database, inserts, table, utcnow
from faxbot.errors import ConfigError, KeyMissing
from faxbot.events import DEFAULT_ACCOUNT
from faxbot.models import ConfigVersion, DataKey, Heartbeat

LIFE = timedelta(days=32)
"""So long the hashes of an earlier master key are good: a day longer than an Idempotency-Key, which is what lives
longest of what cannot be hashed anew."""
_LASTING, _PAST, _LACKS = "hash:", "hashes:", "lacks key:"
"""What names begin with: of data keys, and of heartbeats of processes that do not have an upcoming key."""


class Stand(NamedTuple):
    """What a process asks for again and again; it reads more when one of these has changed."""

    version: int = 0
    sealing: str | None = None
    upcoming: str | None = None
    retiring: str | None = None
    rotated_at: datetime | None = None
    """When it was changed last; who lacks a key that is announced once more says so once more."""


def stand(database: Database) -> Stand:
    """As it is now; raises DatabaseAway."""
    row = database.row(_STAND, _ACCOUNT)
    return Stand(*row) if row else Stand()


def keys(database: Database, keyring: Keyring, now: Stand) -> Keys:
    """The keys of such a stand. A process that does not have the upcoming one says so in the database. Raises
    KeyMissing where it lacks one that it needs, DatabaseAway; ConfigError where a key that lives on does not open."""
    if now.sealing is None:
        return Keys()
    if not keyring.holds(now.sealing):
        raise KeyMissing(
            "the database is sealed with another master key than this process has: "
            f"{_WHERE} must be the key that it was sealed with"
        )
    if now.retiring is not None and not keyring.holds(now.retiring):
        raise KeyMissing(
            "the master key is being changed, and this process lacks the one before: set CONFIG_MASTER_KEY_PREVIOUS "
            "until `faxbot config rotate-key` has come to its end"
        )
    if now.upcoming is not None and not keyring.holds(now.upcoming):
        _object(database, now.upcoming)
    lasting, past = {}, []
    for row in database.rows(_DATA_KEYS, {**_ACCOUNT, "since": utcnow() - LIFE}):
        opened = _opened(keyring, row)
        if row.name.startswith(_LASTING):
            lasting[row.name.removeprefix(_LASTING)] = opened
        else:
            hash_keys = {name: bytes.fromhex(key) for name, key in json.loads(opened).items()}
            past.append(Past(row.name.removeprefix(_PAST), hash_keys))
    return Keys(now.sealing, now.upcoming, now.retiring, tuple(past), lasting)


_WHERE = "CONFIG_MASTER_KEY (or master.key under FAX_DATA_DIR)"


def _opened(keyring: Keyring, row: sa.Row[tuple[str, bytes]]) -> bytes:
    try:
        return keyring.open(row.key_sealed, place(DEFAULT_ACCOUNT, row.name))
    except Unsealable:
        raise ConfigError(
            f"the key {row.name} in the table data_keys does not open: it was changed, or sealed with a master key "
            "that this process does not have"
        ) from None


def place(account_id: str, name: str) -> str:
    """Where a data key is sealed (Keyring.seal)."""
    return f"data_keys.key:{account_id}:{name}"


def keep_alive(connection: Connection, keyring: Keyring, old: str, new: str, now: datetime) -> None:
    """Have what was hashed with the master key `old` found further on, when only `new` is left; in the caller's
    transaction. What earlier rotations kept stays, sealed anew, and what has lived long enough goes."""
    dead = sa.delete(_ROWS).where(_ROWS.c.name.startswith(_PAST), _ROWS.c.created_at < now - LIFE)
    connection.execute(dead)
    purposes = [*WRAPPED, *map(wraps, WRAPPED), *GIVEN_OUT]
    derived = {purpose: keyring.hash_key(old, purpose).hex() for purpose in purposes}
    kept = {f"{_PAST}{old}": json.dumps(derived).encode()}
    kept |= {f"{_LASTING}{purpose}": keyring.hash_key(old, purpose) for purpose in LASTING}
    insert = inserts(DataKey)[connection.dialect.name].on_conflict_do_nothing()
    for name, key in kept.items():
        sealed = keyring.seal_with(new, key, place(DEFAULT_ACCOUNT, name))
        connection.execute(
            insert, {**_ACCOUNT, "name": name, "key_sealed": sealed, "created_at": now}
        )


# Who lacks a key says so ----------------------------------------------------------------------------


def _object(database: Database, key_id: str) -> None:
    insert = inserts(Heartbeat)[database.engine.dialect.name]
    said = insert.values(**_ACCOUNT, name=f"{_LACKS}{key_id}", beat_at=utcnow())
    said = said.on_conflict_do_update(
        index_elements=["account_id", "name"], set_={"beat_at": said.excluded.beat_at}
    )
    database.row(said.returning(table(Heartbeat).c.name), {})


def lacks(database: Database, key_id: str) -> bool:
    """Whether a process has said that it does not have this key."""
    return database.row(_LACKED, {"name": f"{_LACKS}{key_id}"}) is not None


def forget_lacks(connection: Connection) -> None:
    """Let them say so anew."""
    connection.execute(
        sa.delete(table(Heartbeat)).where(table(Heartbeat).c.name.startswith(_LACKS))
    )


_ROWS = table(DataKey)
_ACCOUNT = {"account_id": DEFAULT_ACCOUNT}
_STAND = sa.select(
    ConfigVersion.version,
    ConfigVersion.sealing_key,
    ConfigVersion.upcoming_key,
    ConfigVersion.retiring_key,
    ConfigVersion.rotated_at,
).where(ConfigVersion.account_id == sa.bindparam("account_id"))
_DATA_KEYS = (
    sa.select(DataKey.name, DataKey.key_sealed)
    .where(
        DataKey.account_id == sa.bindparam("account_id"),
        sa.or_(
            DataKey.name.startswith(_LASTING),
            sa.and_(
                DataKey.name.startswith(_PAST),
                DataKey.created_at > sa.bindparam("since", type_=DataKey.created_at.type),
            ),
        ),
    )
    .order_by(DataKey.created_at)
)
_LACKED = sa.select(Heartbeat.name).where(
    Heartbeat.account_id == DEFAULT_ACCOUNT, Heartbeat.name == sa.bindparam("name")
)
