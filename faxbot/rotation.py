"""A new master key in the place of the old one, while everything runs: `faxbot config rotate-key`.

1. Every process has both keys, and looks under the hashes of both; the old one seals. The database says that a new one
   is coming, and a process that lacks it objects.
2. In one transaction the new one begins to seal; every process goes by it within seconds.
3. Row by row what the old one sealed is sealed anew (resealing). The rows themselves are the progress.
4. When none is left, the database says that the old one is needed no more.

Who is killed anywhere is followed by the next one who is called, and begins where the database stands.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from faxbot import audit, crypto, db, masterkeys, resealing
from faxbot.actors import Actor
from faxbot.audit import Action
from faxbot.config import Config
from faxbot.crypto import Keyring
from faxbot.db import Database, inserts, table, utcnow
from faxbot.errors import ChangedMeanwhile, ConfigError, DatabaseAway, KeyMissing
from faxbot.events import DEFAULT_ACCOUNT
from faxbot.models import ConfigVersion
from faxbot.resealing import UNKNOWN, Change, Store
from faxbot.runtime import Runtime
from faxbot.settings import LOOK_EVERY

NOTICE = timedelta(seconds=3 * LOOK_EVERY)
"""After so long every process goes by what the database says: it looks before it does anything."""

Told = Callable[[str, int, int], object]
"""What is being done, and how many of how many values are done."""


def _nobody(_what: str, _done: int, _of: int) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How it stands. Ids of keys say nothing of the keys."""

    state: str
    """`resting`, `announced` (a new key is coming) or `sealing` (what the old one sealed is sealed anew)."""
    sealing: str | None
    other: str | None
    """The one that is coming, or the one before."""
    since: datetime | None
    left: dict[str, int]
    """By table.column how many values are sealed with a key that is given and is to go: one before, or the one that
    seals now where another is to follow it."""
    unknown: dict[str, int]
    """By table.column how many are sealed with a key that is not given."""


def progress(runtime: Runtime, *, planned: bool = False) -> Progress:
    """How it stands now, or, `planned`, what a new key would find; looks at every sealed value. Raises DatabaseAway,
    KeyMissing."""
    database, keyring = runtime.database, runtime.keyring
    note_sealing(database, keyring, runtime.now())
    stand, counted = masterkeys.stand(database), _counts(database, keyring)
    stays = _stays(runtime, stand, planned=planned)
    return Progress(
        "sealing" if stand.retiring else "announced" if stand.upcoming else "resting",
        stand.sealing,
        stand.retiring or stand.upcoming,
        stand.rotated_at,
        _sealed_with(counted, *(key_id for key_id in keyring.ids if key_id != stays)),
        _sealed_with(counted, UNKNOWN),
    )


def _stays(runtime: Runtime, stand: masterkeys.Stand, *, planned: bool) -> str | None:
    """The key that is to seal everything; None: it is not made yet."""
    if stand.retiring is not None:
        return stand.sealing
    if stand.upcoming is not None:
        return stand.upcoming
    if planned and not runtime.config.master_key:
        return None
    newest = runtime.keyring.ids[-1]
    return stand.sealing if newest in _used(runtime) else newest


def _used(runtime: Runtime) -> list[str]:
    """Earlier keys, as far as hashes of theirs live on."""
    return [each.key_id for each in runtime.settings.keys().past]


def _counts(database: Database, keyring: Keyring) -> Mapping[str, Mapping[str, int]]:
    """By table.column how many values each key of this process seals, and how many another one."""
    return resealing.counts(database, {key_id: keyring.tag(key_id) for key_id in keyring.ids})


def _sealed_with(counted: Mapping[str, Mapping[str, int]], *keys: str) -> dict[str, int]:
    """By table.column how many values these keys seal, where there are any."""
    rows = {place: sum(by_key[key] for key in keys) for place, by_key in counted.items()}
    return {place: found for place, found in rows.items() if found}


def rotate(
    runtime: Runtime,
    actor: Actor,
    *,
    told: Told = _nobody,
    wait: Callable[[float], object] = time.sleep,
) -> bool:
    """Bring the newest master key into use, or go on where it was interrupted, to the end, and seal anew what an
    earlier one has sealed since; False where nothing is left to do.

    Raises ConfigError where there is no new key, or where a process does not have it: nothing is changed then;
    KeyMissing where this process lacks one; DatabaseAway.
    """
    note_sealing(runtime.database, runtime.keyring, runtime.now())
    runtime.settings.catch_up()
    stand = masterkeys.stand(runtime.database)
    if stand.retiring is None:
        new = _new_key(runtime, stand)
        if new is None:
            _take_back(runtime, stand)
            return _seal_late_ones(runtime, told, wait) > 0
        old = str(stand.sealing)
        announced_at = _announce(runtime, old, new, wait)
        _switch(runtime, actor, old, new, announced_at)
        stand = masterkeys.stand(runtime.database)
    change = _change(runtime, str(stand.retiring), str(stand.sealing))
    _wait_until_noticed(runtime, wait)
    done = _seal_all_anew(runtime, change, told, wait)
    _retire(runtime, actor, change, done)
    # Until they notice, others take places under the old hashes as well.
    wait(NOTICE.total_seconds())
    _seal_late_ones(runtime, told, wait)
    resealing.renew_lanes(runtime.database, change, runtime.now())
    return True


def _new_key(runtime: Runtime, stand: masterkeys.Stand) -> str | None:
    keyring, config = runtime.keyring, runtime.config
    # One that is not there any more has sealed nothing: another one takes its place.
    if stand.upcoming is not None and keyring.holds(stand.upcoming):
        return stand.upcoming
    if not config.master_key:
        following = config.data_dir / crypto.NEXT
        if following.exists() and crypto.id_of(crypto.key_file(following)) == stand.sealing:
            # A backup of the files may be older than that of the database.
            crypto.promote(config.data_dir)
        key_id = crypto.id_of(crypto.key_file(following))
        return key_id if keyring.holds(key_id) else None
    newest = keyring.ids[-1]
    if newest in _used(runtime):
        raise ConfigError(
            "that master key was used before: make a new one with `openssl rand -base64 32`"
        )
    return newest if newest != stand.sealing else None


def _take_back(runtime: Runtime, stand: masterkeys.Stand) -> None:
    """There is no new key: let nobody wait for one that was announced."""
    if stand.upcoming is not None:
        before = {"sealing_key": stand.sealing, "upcoming_key": stand.upcoming}
        with runtime.database.writing() as connection:
            _set(connection, before, runtime.now(), upcoming_key=None)


def _announce(runtime: Runtime, old: str, new: str, wait: Callable[[float], object]) -> datetime:
    """Say which key is coming, and give every process time to say that it lacks it; when it was said."""
    now = runtime.now()
    with runtime.database.writing() as connection:
        masterkeys.forget_lacks(connection)
        _set(connection, {"sealing_key": old}, now, upcoming_key=new)
    wait(NOTICE.total_seconds())
    if masterkeys.lacks(runtime.database, new):
        with runtime.database.writing() as connection:
            _set(connection, {"upcoming_key": new}, runtime.now(), upcoming_key=None)
        raise ConfigError(
            "a process of this installation does not have the new master key: give every one of them CONFIG_MASTER_KEY "
            "(the new one) and CONFIG_MASTER_KEY_PREVIOUS (the old one), restart it, and try again; nothing was changed"
        )
    return now


def _switch(runtime: Runtime, actor: Actor, old: str, new: str, announced_at: datetime) -> None:
    """Where it was announced once more meanwhile, who did that waits for objections."""
    now = runtime.now()
    before = {"sealing_key": old, "upcoming_key": new, "rotated_at": announced_at}
    with runtime.database.writing() as connection:
        after = {"sealing_key": new, "upcoming_key": None, "retiring_key": old}
        _set(connection, before, now, **after)
        masterkeys.keep_alive(connection, runtime.keyring, old, new, now)
        names = {"old": old, "new": new}
        audit.record(connection, actor, Action.MASTER_KEY_CHANGED, _OBJECT, now=now, details=names)
    runtime.settings.catch_up()


def _wait_until_noticed(runtime: Runtime, wait: Callable[[float], object]) -> None:
    """Who has not noticed seals with the old key: to count before would be to count again."""
    since = masterkeys.stand(runtime.database).rotated_at
    left = since + NOTICE - runtime.now() if since else NOTICE
    if left > timedelta():
        wait(min(left, NOTICE).total_seconds())


def _seal_all_anew(
    runtime: Runtime, change: Change, told: Told, wait: Callable[[float], object]
) -> int:
    """Until nothing is left that opens with the old key; how many rows were sealed anew."""
    database = runtime.database
    resealing.hold_lanes(database, change, runtime.now())
    sealed = _seal_rows_anew(database, change, told, wait)
    begun = masterkeys.stand(database).rotated_at or runtime.now()
    done, of = 0, resealing.count_settings_hashes(database, begun)
    for some in resealing.forget_settings_hashes(database, begun, wait):
        done += some
        told("attempts", done, max(of, done))
    resealing.forget_strays(database)
    resealing.renew_lanes(database, change, runtime.now())
    return sealed


def _change(runtime: Runtime, old: str, new: str) -> Change:
    past = runtime.settings.keys().past
    known = [each.key_id for each in past]
    between = past[known.index(old) + 1 :] if old in known else ()
    return Change(runtime.keyring, old, new, between)


def _seal_late_ones(runtime: Runtime, told: Told, wait: Callable[[float], object]) -> int:
    """Seal anew what a process has sealed with an earlier key after all, because it was stopped while the others
    changed; how many rows."""
    database, keyring, sealed = runtime.database, runtime.keyring, 0
    sealing = str(masterkeys.stand(database).sealing)
    counted = _counts(database, keyring)
    for earlier in keyring.ids:
        if earlier != sealing and _sealed_with(counted, earlier):
            change = _change(runtime, earlier, sealing)
            sealed += _seal_rows_anew(database, change, told, wait)
    resealing.forget_stray_lanes(database)
    return sealed


def _seal_rows_anew(
    database: Database, change: Change, told: Told, wait: Callable[[float], object]
) -> int:
    tags, sealed = {change.old: change.keyring.tag(change.old)}, 0
    while True:
        left = _sealed_with(resealing.counts(database, tags), change.old)
        done = 0
        for store in resealing.STORES:
            done += _seal_table_anew(database, change, store, left, told, wait)
        sealed += done
        if not done:  # what is left, if anything, does not open
            return sealed


def _seal_table_anew(
    database: Database,
    change: Change,
    store: Store,
    left: Mapping[str, int],
    told: Told,
    wait: Callable[[float], object],
) -> int:
    of, done = max(left.get(f"{store.name}.{column}", 0) for column in store.places), 0
    if not of:
        return 0
    for changed in resealing.seal_anew(database, change, store, wait):
        done += changed
        told(store.name, done, max(of, done))
    return done


def _retire(runtime: Runtime, actor: Actor, change: Change, sealed: int) -> None:
    if not runtime.config.master_key:
        crypto.promote(runtime.config.data_dir)
    now, before = runtime.now(), {"sealing_key": change.new, "retiring_key": change.old}
    names = {"old": change.old, "new": change.new, "values": sealed}
    try:
        with runtime.database.writing() as connection:
            _set(connection, before, now, retiring_key=None)
            audit.record(
                connection, actor, Action.MASTER_KEY_RETIRED, _OBJECT, now=now, details=names
            )
    except ChangedMeanwhile:
        if masterkeys.stand(runtime.database).retiring is not None:
            raise
        # Two were at it, and the other one was faster.
    runtime.settings.catch_up()


_OBJECT = ("config", "master key")


# What the database says -----------------------------------------------------------------------------


def _set(
    connection: Connection, before: Mapping[str, object], now: datetime, **after: str | None
) -> None:
    """Raises ChangedMeanwhile unless it stands as `before`."""
    is_so = [_ROWS.c[name] == value for name, value in before.items()]
    changed = connection.execute(
        sa.update(_ROWS)
        .where(_ROWS.c.account_id == DEFAULT_ACCOUNT, *is_so)
        .values(**after, rotated_at=now)
        .returning(_ROWS.c.version)
    )
    if changed.first() is None:
        raise ChangedMeanwhile("somebody else changes the master key just now: nothing was done")


def note_sealing(database: Database, keyring: Keyring, now: datetime) -> None:
    """Have the database say which key seals, where it does not yet: the one with which the newest values are sealed.
    Raises KeyMissing where that is none of these, DatabaseAway."""
    if masterkeys.stand(database).sealing is not None:
        return
    there = resealing.newest_tags(database)
    known = [key_id for key_id in keyring.ids if keyring.tag(key_id) in there]
    if there and not known:
        raise KeyMissing(
            "the database is sealed with another master key than this process has: give it as CONFIG_MASTER_KEY, or "
            "as CONFIG_MASTER_KEY_PREVIOUS where CONFIG_MASTER_KEY is to follow it (of a key file its base64)"
        )
    sealing = known[0] if known else keyring.ids[-1]
    insert = inserts(ConfigVersion)[database.engine.dialect.name]
    row = {"account_id": DEFAULT_ACCOUNT, "version": 0, "changed_at": now, "sealing_key": sealing}
    noted = insert.values(row).on_conflict_do_update(
        index_elements=["account_id"],
        set_={"sealing_key": sealing},
        where=_ROWS.c.sealing_key.is_(None),
    )
    database.row(noted.returning(_ROWS.c.version), {})


def ring(config: Config) -> Keyring:
    """The keyring of this installation. A key file is made only for a database in which nothing is sealed: beside
    another one it would open nothing, and lie where the right one belongs.

    Raises KeyMissing where the file is gone; ConfigError; DatabaseAway where it is not there and nobody can say.
    """
    master_key, previous = config.master_keys()
    if master_key is None and not has_key_file(config):
        _must_be_unsealed(config)
    return crypto.keyring(master_key, config.data_dir, previous)


def has_key_file(config: Config) -> bool:
    """Whether master.key lies in FAX_DATA_DIR."""
    return (config.data_dir / crypto.MAIN).exists()


def make_key_file(config: Config) -> None:
    """Make the key file whatever is sealed, for who has lost the one before: give_up() follows. Raises ConfigError."""
    if not config.master_key:
        crypto.key_file(config.data_dir / crypto.MAIN)


def _must_be_unsealed(config: Config) -> None:
    if db.current(config) is None:
        return
    db.check(config)
    database = Database(config, pool_size=1)
    try:
        stand = masterkeys.stand(database)
        is_sealed = stand.sealing is not None or bool(resealing.newest_tags(database))
    finally:
        database.close()
    # Who made one meanwhile, before he sealed anything, was quicker.
    if is_sealed and not has_key_file(config):
        raise KeyMissing(
            f"the database is sealed with a master key, and there is none in {config.data_dir} (FAX_DATA_DIR): bring "
            "master.key back there from where you keep it, or set CONFIG_MASTER_KEY; none was made. Only where it is "
            "lost for good: `faxbot config rotate-key --old-key-is-lost`"
        )


def admit(config: Config) -> None:
    """What a process asks before it serves: raises KeyMissing, with how many values it could not open, where it lacks a
    key that is needed. Nothing where the database is away or has an older schema: that shows elsewhere."""
    database = Database(config, pool_size=1)
    try:
        keyring = ring(config)
        try:
            note_sealing(database, keyring, utcnow())
            masterkeys.keys(database, keyring, masterkeys.stand(database))
        except KeyMissing as missing:
            raise KeyMissing(f"{missing.detail} ({_without(database, keyring)})") from None
    except (DatabaseAway, sa.exc.SQLAlchemyError):
        return
    finally:
        database.close()


def _without(database: Database, keyring: Keyring) -> str:
    shut = _sealed_with(_counts(database, keyring), UNKNOWN)
    words = ", ".join(f"{rows} of {place}" for place, rows in shut.items())
    return f"{sum(shut.values())} values do not open: {words}" if shut else "all values open"


def give_up(runtime: Runtime, actor: Actor) -> dict[str, int]:
    """The master key is lost: go on with the newest one that is given. By table.column how many values do not open;
    they stay as they are. All API keys end, and so does the proof of what was written into the audit trail.

    Raises ConfigError where the key is not lost; DatabaseAway.
    """
    database, keyring, now = runtime.database, runtime.keyring, runtime.now()
    with suppress(KeyMissing):
        note_sealing(database, keyring, now)
    stand = masterkeys.stand(database)
    needed = [key_id for key_id in (stand.sealing, stand.retiring) if key_id is not None]
    if needed and all(keyring.holds(key_id) for key_id in needed):
        raise ConfigError("the master key is not lost: this process has it")
    counted, tags = _counts(database, keyring), [keyring.tag(each) for each in keyring.ids]
    row = {"account_id": DEFAULT_ACCOUNT, "version": 0, "changed_at": now}
    insert = inserts(ConfigVersion)[database.engine.dialect.name]
    keys: dict[str, Any] = {"upcoming_key": None, "retiring_key": None}
    with database.writing() as connection:
        resealing.forget_data_keys(connection, tags)
        connection.execute(insert.on_conflict_do_nothing(), row)
        _set(connection, {}, now, sealing_key=keyring.ids[-1], **keys)
    # Only now is there a key for the trail's own.
    with database.writing() as connection:
        audit.record(connection, actor, Action.MASTER_KEY_LOST, _OBJECT, now=now)
    return _sealed_with(counted, UNKNOWN)


_ROWS = table(ConfigVersion)
