"""What is sealed in the database, and how it is sealed anew under another master key, with the keyed hashes beside it.

Each sealed value names its key, so the rows themselves say how far a rotation has come: who is killed loses nothing,
and two who do the same do no harm. A row is changed only while it is as it was read.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from faxbot import (
    arrivals,
    artifacts,
    jobs,
    legalholds,
    masterkeys,
    posted,
    revisions,
    settings,
    webhooks,
)
from faxbot.crypto import Keyring, Past, Unsealable, digest, wraps
from faxbot.db import Base, Database, inserts, table
from faxbot.models import (
    Artifact,
    Attempt,
    CachedValue,
    Callback,
    ConfigEntry,
    ConfigRevision,
    DataKey,
    Decision,
    IdempotencyKey,
    InboundFax,
    Job,
    Lane,
    LegalHold,
    ProvenStep,
    Webhook,
)

Row = Any
"""A row as it was read: its columns by name."""
Rewritten = list[tuple[Row, dict[str, Any]]]
"""Rows as they were read, and what is to be written."""

LEAST_ROWS, FIRST_BATCH, MOST_ROWS = 20, 50, 500
AIM = {"sqlite": 0.02, "postgresql": 0.1}
"""Seconds for which a batch is to hold its locks: on SQLite everybody who writes waits meanwhile."""
REST = 1.0
"""For so many times as long as a batch took, the others are left alone."""


@dataclass(frozen=True, slots=True)
class Change:
    """From one master key to another, by id."""

    keyring: Keyring
    old: str
    new: str
    between: tuple[Past, ...] = ()
    """The keys that came between the two, oldest first."""


@dataclass(frozen=True, slots=True)
class Store:
    """A table with sealed columns."""

    model: type[Base]
    places: Mapping[str, Callable[[Row], str]]
    """By column where a value is sealed to (Keyring.seal); the first one is never empty without the others."""
    beside: Callable[[Change, Row, bytes], dict[str, Any]] = lambda *_: {}
    """What else changes in a row whose first column opened to this."""
    first: Callable[[Connection, Change, Rewritten], None] = lambda *_: None
    """What is done before, in the same transaction; it may change what is to be written."""
    also: tuple[str, ...] = ()
    """Columns that these functions look at."""

    @property
    def name(self) -> str:
        return self.rows.name

    @property
    def rows(self) -> sa.Table:
        return table(self.model)

    def sealed(self, column: str) -> sa.ColumnElement[bool]:
        """Whether there is something: what retention has removed is empty."""
        return sa.func.length(self.rows.c[column]) > 0

    def tag(self, column: str) -> sa.ColumnElement[bytes]:
        """The part of a sealed value that names its key."""
        return sa.func.substr(self.rows.c[column], 2, 4, type_=sa.LargeBinary())


def _to_key(change: Change, _row: Row, number: bytes) -> dict[str, Any]:
    return {"to_key": digest(change.keyring.hash_key(change.new, "number"), number)}


def _both_keys(change: Change, _row: Row, numbers: bytes) -> dict[str, Any]:
    key = change.keyring.hash_key(change.new, "number")
    said = json.loads(numbers)
    return {
        f"{side}_key": digest(key, number.encode()) if number else None
        for side, number in said.items()
    }


def _repeat_key(change: Change, _row: Row, packed: bytes) -> dict[str, Any]:
    key = change.keyring.hash_key(change.new, "callback")
    return {"key": digest(key, posted.said(packed))}


def _hashed_again(change: Change, row: Row, _reply: bytes) -> dict[str, Any]:
    """What was hashed is not kept: the hash is hashed."""

    def again(purpose: str, hashed: str) -> str:
        purpose = wraps(purpose)
        keys = [each.hash_keys[purpose] for each in change.between]
        for key in (*keys, change.keyring.hash_key(change.new, purpose)):
            hashed = digest(key, hashed.encode())
        return hashed

    return {
        "key_hash": again("idempotency-key", row.key_hash),
        "fingerprint": again("fingerprint", row.fingerprint),
    }


def _came_again(connection: Connection, change: Change, rewritten: Rewritten) -> None:
    """Where the same callback came again meanwhile, the later row is the one by which a repeat is known."""
    keys = [values["key"] for _, values in rewritten]
    there = {tuple(row) for row in connection.execute(_CALLBACKS, {"keys": keys})}
    key = change.keyring.hash_key(change.new, "callback")
    for row, values in rewritten:
        if (row.provider_id, values["key"]) in there:
            values["key"] = digest(key, f"earlier copy {row.id}".encode())


_CALLBACKS = sa.select(Callback.provider_id, Callback.key).where(
    Callback.key.in_(sa.bindparam("keys", expanding=True))
)


def _proven_too(connection: Connection, _change: Change, rewritten: Rewritten) -> None:
    """What was learnt about a number moves with its faxes; of two the later counts."""
    moves = {row.to_key: (row.account_id, values.get("to_key")) for row, values in rewritten}
    for known in connection.execute(_PROVEN, {"keys": list(moves)}).scalars().all():
        account_id, new_key = moves[known]
        if new_key is not None:
            names = {"account": account_id, "old": known, "new": new_key}
            for statement in (_FORGET_EARLIER, _MOVE_PROVEN, _FORGET_PROVEN):
                connection.execute(statement, names)


_STEPS, _OTHERS = table(ProvenStep), table(ProvenStep).alias()
_PROVEN = (
    sa.select(_STEPS.c.to_key)
    .where(_STEPS.c.to_key.in_(sa.bindparam("keys", expanding=True)))
    .distinct()
)
_SAME = sa.and_(
    _OTHERS.c.account_id == _STEPS.c.account_id, _OTHERS.c.provider_id == _STEPS.c.provider_id
)
_OLD = sa.and_(
    _STEPS.c.account_id == sa.bindparam("account"), _STEPS.c.to_key == sa.bindparam("old")
)
_FORGET_EARLIER = sa.delete(_STEPS).where(
    _STEPS.c.account_id == sa.bindparam("account"),
    _STEPS.c.to_key == sa.bindparam("new"),
    sa.exists().where(
        _SAME,
        _OTHERS.c.to_key == sa.bindparam("old"),
        _OTHERS.c.updated_at > _STEPS.c.updated_at,
    ),
)
_MOVE_PROVEN = (
    sa.update(_STEPS)
    .where(_OLD, ~sa.exists().where(_SAME, _OTHERS.c.to_key == sa.bindparam("new")))
    .values(to_key=sa.bindparam("new"))
)
_FORGET_PROVEN = sa.delete(_STEPS).where(_OLD)

STORES = (
    # What every process reads comes first, and what can wait comes last.
    Store(
        ConfigEntry,
        {"value_sealed": lambda row: settings.place(row.scope, row.key)},
    ),
    Store(
        DataKey,
        {"key_sealed": lambda row: masterkeys.place(row.account_id, row.name)},
    ),
    Store(
        CachedValue,
        {"value_sealed": lambda row: f"plugin_cache.value:{row.account_id}:{row.plugin_id}"},
    ),
    Store(
        Webhook,
        {
            "url_sealed": lambda row: webhooks.url_place(row.account_id),
            "secret_sealed": lambda row: webhooks.secret_place(row.account_id),
            "old_secret_sealed": lambda row: webhooks.secret_place(row.account_id),
        },
        also=("account_id",),
    ),
    Store(
        Job,
        {
            "to_sealed": lambda row: f"jobs.to:{row.account_id}",
            "header_sealed": lambda row: f"jobs.header:{row.account_id}",
        },
        beside=_to_key,
        first=_proven_too,
        also=("account_id", "to_key"),
    ),
    Store(
        InboundFax,
        {"numbers_sealed": lambda row: arrivals.place(row.account_id)},
        beside=_both_keys,
        also=("account_id",),
    ),
    Store(
        Artifact,
        {"data_key_sealed": lambda row: artifacts.place(row.account_id, row.id)},
        also=("account_id",),
    ),
    Store(
        IdempotencyKey,
        {"response_sealed": lambda row: jobs.answer_place(row.account_id)},
        beside=_hashed_again,
        also=("fingerprint",),
    ),
    Store(
        Callback,
        {"raw_sealed": lambda row: f"callbacks.raw:{row.account_id}"},
        beside=_repeat_key,
        first=_came_again,
        also=("account_id", "provider_id"),
    ),
    Store(
        LegalHold,
        {"reason_sealed": lambda row: legalholds.place(row.account_id)},
        also=("account_id",),
    ),
    Store(
        Decision,
        {"reason_sealed": lambda row: f"decisions.reason:{row.account_id}"},
        also=("account_id",),
    ),
    Store(
        ConfigRevision,
        {"settings_sealed": lambda row: revisions.place(row.version)},
    ),
)
"""Every sealed column there is; a test compares it with the schema."""


UNKNOWN = "unknown"


def counts(database: Database, tags: Mapping[str, bytes]) -> dict[str, dict[str, int]]:
    """By table.column how many values each of these keys seals, by its name, and UNKNOWN: how many another one does.
    Looks at every row; raises DatabaseAway."""
    names = {tag: name for name, tag in tags.items()}
    found: dict[str, dict[str, int]] = {}
    for store in STORES:
        for column in store.places:
            counted = found[f"{store.name}.{column}"] = dict.fromkeys([*tags, UNKNOWN], 0)
            tag = store.tag(column).label("tag")
            query = (
                sa.select(tag, sa.func.count().label("rows"))
                .where(store.sealed(column))
                .group_by(tag)
            )
            for row in database.rows(query, {}):
                counted[names.get(bytes(row.tag), UNKNOWN)] += row.rows
    return found


def newest_tags(database: Database) -> set[bytes]:
    """The keys, by their tags, that sealed the newest value of each table."""
    found = set()
    for store in STORES:
        column = next(iter(store.places))
        newest = [each.desc() for each in store.rows.primary_key]
        query = sa.select(store.tag(column).label("tag")).order_by(*newest).limit(1)
        row = database.row(query.where(store.sealed(column)), {})
        if row is not None:
            found.add(bytes(row.tag))
    return found


def forget_data_keys(connection: Connection, tags: Sequence[bytes]) -> None:
    """Forget the data keys that none of these keys has sealed: nobody can open them any more."""
    (store,) = [each for each in STORES if each.model is DataKey]
    connection.execute(sa.delete(store.rows).where(store.tag("key_sealed").not_in(tags)))


def seal_anew(
    database: Database,
    change: Change,
    store: Store,
    rest: Callable[[float], object] = time.sleep,
) -> Iterator[int]:
    """Seal anew what the old key sealed in this table: after each batch how many rows. Those that do not open stay as
    they are. Raises DatabaseAway."""
    key = [column.name for column in store.rows.primary_key]
    query, update = _batch(store, key), _update(store, key)
    columns = [store.rows.c[name] for name in key]
    # In the order in which all others lock faxes: first the rows, then what belongs to them.
    begin = _BEGIN if database.is_sqlite else _locked(store, key)
    tag, size = change.keyring.tag(change.old), FIRST_BATCH
    aim = AIM[database.engine.dialect.name]
    last: tuple[Any, ...] = ()
    while True:
        statement = query.limit(size)
        if last:
            statement = statement.where(sa.tuple_(*columns) > sa.tuple_(*last))
        found = database.rows(statement, {"tag": tag})
        if not found:
            return
        last = tuple(getattr(found[-1], name) for name in key)
        rewritten = [(row, values) for row in found if (values := _sealed_anew(change, store, row))]
        took = 0.0
        if rewritten:
            keys = [tuple(getattr(row, name) for name in key) for row, _ in rewritten]
            # Where somebody has just written the same, they are as they were, and come again.
            with suppress(IntegrityError), database.writing() as connection:
                connection.execute(begin, {"keys": keys})  # it waits for the other writers
                since = time.monotonic()
                store.first(connection, change, rewritten)
                connection.execute(update, [_words(key, row, values) for row, values in rewritten])
                took = time.monotonic() - since
        yield len(rewritten)
        size = max(LEAST_ROWS, min(MOST_ROWS, int(size * min(2.0, aim / max(took, 1e-4)))))
        rest(took * REST)


_BEGIN = sa.select(1)


def _locked(store: Store, key: Sequence[str]) -> sa.Select[Any]:
    columns = [store.rows.c[name] for name in key]
    these = sa.tuple_(*columns).in_(sa.bindparam("keys", expanding=True))
    return sa.select(*columns).where(these).order_by(*columns).with_for_update()


def _batch(store: Store, key: Sequence[str]) -> sa.Select[Any]:
    wanted = dict.fromkeys([*key, *store.places, *store.also])
    old = [store.tag(column) == sa.bindparam("tag") for column in store.places]
    columns = [store.rows.c[name] for name in wanted]
    return sa.select(*columns).where(sa.or_(*old)).order_by(*(store.rows.c[name] for name in key))


def _update(store: Store, key: Sequence[str]) -> sa.Update:
    """Of a row that is as it was read, in all that is written: a webhook's secret changes while its address stays."""
    its = [store.rows.c[name] == sa.bindparam(f"its_{name}") for name in key]
    as_read = [
        store.rows.c[name].is_not_distinct_from(sa.bindparam(f"its_{name}"))
        for name in store.places
    ]
    return sa.update(store.rows).where(*its, *as_read)


def _words(key: Sequence[str], row: Row, values: dict[str, Any]) -> dict[str, Any]:
    return {**{f"its_{name}": getattr(row, name) for name in key}, **values}


def _sealed_anew(change: Change, store: Store, row: Row) -> dict[str, Any]:
    """What to write into this row; nothing where none of it opens."""
    keyring, tag = change.keyring, change.keyring.tag(change.old)
    main = next(iter(store.places))
    was = {column: getattr(row, column) for column in store.places}
    values: dict[str, Any] = {}
    for column, sealed in was.items():
        if sealed is None or sealed[1:5] != tag:
            continue
        with suppress(Unsealable, ValueError, KeyError):
            place = store.places[column](row)
            plain = keyring.open(sealed, place)
            beside = store.beside(change, row, plain) if column == main else {}
            values |= {column: keyring.seal_with(change.new, plain, place), **beside}
    as_read = {f"its_{column}": sealed for column, sealed in was.items()}
    return {**as_read, **was, **values} if values else {}


# What is a hash alone -------------------------------------------------------------------------------


def forget_settings_hashes(
    database: Database, before: datetime, rest: Callable[[float], object] = time.sleep
) -> Iterator[int]:
    """Forget with which settings calls were made that have ended, and began before: it is asked of uncertain ones only.
    After each batch how many."""
    last = ""
    while True:
        since = time.monotonic()
        found = database.rows(_ENDED, {"before": before, "last": last})
        if not found:
            return
        last = max(row.id for row in found)
        names = {"ids": [row.id for row in found]}
        with database.writing() as connection:
            connection.execute(_FORGET, names)
        yield len(found)
        rest((time.monotonic() - since) * REST)


def count_settings_hashes(database: Database, before: datetime) -> int:
    """How many that will be."""
    found = database.row(sa.select(sa.func.count()).where(*_HAS_ENDED), {"before": before})
    return found[0] if found else 0


_HAS_ENDED = (
    Attempt.ended_at.is_not(None),
    Attempt.settings_hash.is_not(None),
    Attempt.intended_at < sa.bindparam("before", type_=Attempt.intended_at.type),
)
_ENDED = (
    sa.select(Attempt.id)
    .where(Attempt.id > sa.bindparam("last"), *_HAS_ENDED)
    .order_by(Attempt.id)
    .limit(MOST_ROWS // 2)
)
_FORGET = (
    sa.update(table(Attempt))
    .where(table(Attempt).c.id.in_(sa.bindparam("ids", expanding=True)))
    .values(settings_hash=None)
)


def renew_lanes(database: Database, change: Change, now: datetime) -> None:
    """Have the calls under way hold their places under the new hashes, and forget the old ones and all free places.
    Every fax is hashed anew already."""
    hold_lanes(database, change, now)
    while database.rows(_FREE_LANES, {"now": now}):
        pass
    forget_stray_lanes(database)


def hold_lanes(database: Database, change: Change, now: datetime) -> None:
    """Have places that are taken, and gaps after calls, hold under the new hashes too."""
    new_key = change.keyring.hash_key(change.new, "number")
    insert = inserts(Lane)[database.engine.dialect.name]
    held = {name: insert.excluded[name] for name in ("job_id", "held_until", "wanted")}
    hold = insert.on_conflict_do_update(
        index_elements=["account_id", "to_key", "slot"], set_=held, where=Lane.held_until <= now
    )
    for lane in database.rows(_HELD, {"now": now}):
        place = f"jobs.to:{lane.account_id}"
        try:
            number = change.keyring.open(lane.to_sealed or b"", place)
        except Unsealable:
            continue
        renewed = digest(new_key, number)
        if renewed == lane.to_key:
            continue
        row = {column.name: getattr(lane, column.name) for column in table(Lane).c}
        with database.writing() as connection:
            connection.execute(hold, {**row, "to_key": renewed})


def forget_stray_lanes(database: Database) -> None:
    """Forget places under hashes that no fax has (any more)."""
    while database.rows(_STRAY_LANES, {}):
        pass


def forget_strays(database: Database) -> int:
    """Forget what was learnt about numbers to which there is no fax (any more): they cannot be hashed anew. How
    many."""
    gone = 0
    while rows := database.rows(_STRAY_STEPS, {}):
        gone += len(rows)
    return gone


_LANES = table(Lane)
_OF_HOLDER = sa.select(Job.to_sealed).where(Job.id == _LANES.c.job_id).scalar_subquery()
_OF_NUMBER = (
    sa.select(Job.to_sealed)
    .where(Job.account_id == _LANES.c.account_id, Job.to_key == _LANES.c.to_key)
    .limit(1)
    .scalar_subquery()
)
_HELD = sa.select(_LANES, sa.func.coalesce(_OF_HOLDER, _OF_NUMBER).label("to_sealed")).where(
    _LANES.c.held_until > sa.bindparam("now", type_=Lane.held_until.type)
)


def _delete_some(rows: sa.Table, *which: sa.ColumnElement[bool]) -> sa.Executable:
    """Those that nobody holds just now, in small batches."""
    key = list(rows.primary_key)
    some = sa.select(*key).where(*which).limit(MOST_ROWS).with_for_update(skip_locked=True)
    return sa.delete(rows).where(sa.tuple_(*key).in_(some)).returning(*key)


def _without_fax(rows: sa.Table) -> sa.ColumnElement[bool]:
    return ~sa.exists().where(Job.account_id == rows.c.account_id, Job.to_key == rows.c.to_key)


_FREE_LANES = _delete_some(
    _LANES, _LANES.c.held_until <= sa.bindparam("now", type_=Lane.held_until.type)
)
_STRAY_LANES = _delete_some(_LANES, _without_fax(_LANES))
_STRAY_STEPS = _delete_some(_STEPS, _without_fax(_STEPS))
