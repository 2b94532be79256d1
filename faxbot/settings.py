"""What administrators set while it runs: kept sealed in the database, over the environment, noticed by every process
within seconds.

Who is about to work takes snapshot(), which asks the database for the version at most every LOOK_EVERY; a change is
written whole, and never over another one that its writer has not seen.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from faxbot import masterkeys, phone
from faxbot.config import Config
from faxbot.crypto import Keyring, Keys, Unsealable
from faxbot.db import Database, inserts, table
from faxbot.errors import ChangedMeanwhile, ConfigError, DatabaseAway, KeyMissing
from faxbot.events import DEFAULT_ACCOUNT
from faxbot.masterkeys import Stand
from faxbot.models import ConfigEntry, ConfigVersion

LOOK_EVERY = 2.0  # seconds
TOO_OLD = 4.0
"""Seconds after which nobody goes by what is known any more, without a look: a process may have had nothing to do for
an hour, and then much at once."""
OPTIONS = ""
"""The scope of faxbot's own options; a plugin's settings have its id."""

Saved = Mapping[str, Mapping[str, Any]]
Wish = Mapping[str, Mapping[str, Any]]
Place = tuple[str, str]
"""Of one value: its scope and key."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How everything is set at one moment."""

    config: Config
    version: int = 0
    """0: nothing was ever saved, the environment alone counts."""
    saved: Saved = field(default_factory=dict, repr=False)
    """By scope and key what the database holds: text of options; JSON values of plugins' settings, which stay sealed
    until somebody takes one."""
    serial: int = 0
    """Of two that one process knew, the later has the higher one: a restored backup may bring `version` down."""
    keys: Keys = field(default_factory=Keys)
    """Which master keys are at work."""
    stand: Stand = field(default_factory=Stand)
    """What it was read at."""

    def of_plugin(self, plugin_id: str) -> Mapping[str, Any]:
        return self.saved.get(plugin_id, {})


@dataclass(frozen=True, slots=True)
class Stored:
    """What the database holds, whether it can be used or not."""

    version: int
    saved: Saved = field(repr=False)
    """What opens, by scope and key."""
    faults: Mapping[Place, str]
    """Of what does not open, and of options that do not hold (any more), a sentence that names them: while there is
    one of an option, no process that has not read the settings yet can begin, and one of a plugin's setting keeps the
    plugin from it."""

    @property
    def options(self) -> Mapping[str, Any]:
        return self.saved.get(OPTIONS, {})


@dataclass(frozen=True, slots=True)
class Written:
    """What was changed: what the database held before, and what it holds when the transaction ends."""

    before: Stored
    after: Stored


def _follow_nobody(_config: Config) -> None:
    """Nothing in this process was made of the settings."""


class Settings:
    """How this installation is set, as this process last read it; safe to share between threads."""

    def __init__(
        self,
        boot: Config,
        database: Database,
        keyring: Keyring,
        clock: Callable[[], float] = time.monotonic,
        follow: Callable[[Config], None] = _follow_nobody,
    ) -> None:
        """`follow` is told of settings that are new to this process, before anybody goes by them."""
        self.boot = boot
        self._database, self._keyring = database, keyring
        self._clock, self._follow = clock, follow
        self._known: Snapshot | None = None
        self._alone: tuple[Keys | None, float] = None, 0.0
        """The keys, while nothing else is known."""
        self._serial = 0
        self._looked_at = 0.0
        self._lock = threading.Lock()

    def snapshot(self) -> Snapshot:
        """The settings that hold now, or held LOOK_EVERY ago.

        Raises DatabaseAway and ConfigError only while this process never read them: then nobody knows through
        whom a fax may go. Later it keeps what it knows, and says so in the log.
        """
        age = self._clock() - self._looked_at  # before what is known: that is written first
        known = self._known
        if known is not None and age < LOOK_EVERY:
            return known
        # One thread looks; the others go by what is known, if anything is, and that lately.
        if not self._lock.acquire(blocking=known is None or age >= TOO_OLD):
            return known or self.snapshot()
        try:
            if self._known is not None and self._clock() - self._looked_at < LOOK_EVERY:
                return self._known  # another one has looked meanwhile
            return self._look()
        finally:
            self._lock.release()

    def keys(self) -> Keys:
        """The master keys that are at work now, or were LOOK_EVERY ago; raises DatabaseAway and KeyMissing, and
        ConfigError where a key that lives on does not open, but not for settings that do not hold."""
        if self._known is not None:
            return self.snapshot().keys
        keys, looked_at = self._alone
        if keys is None or self._clock() - looked_at >= LOOK_EVERY:
            keys = self._keys(masterkeys.stand(self._database))
            self._alone = keys, self._clock()
        return keys

    def read(self) -> Snapshot:
        """As they stand in the database at this moment; raises DatabaseAway, ConfigError."""
        stand = masterkeys.stand(self._database)
        return self._read(stand, self._keys(stand))

    def _keys(self, stand: Stand) -> Keys:
        return masterkeys.keys(self._database, self._keyring, stand)

    def _read(self, stand: Stand, keys: Keys) -> Snapshot:
        if not stand.version:
            return Snapshot(self.boot, keys=keys, stand=stand)
        entries = self._database.rows(_ENTRIES, _ACCOUNT)
        ours = self._opened((row for row in entries if row.scope == OPTIONS), stand.version)
        for unopened in ours.faults.values():
            raise ConfigError(unopened)
        if faults := self.boot.faults(ours.options):
            said = "; ".join(dict.fromkeys(faults.values()))
            names = " and ".join(f"`faxbot config set {name} --unset`" for name in faults)
            raise ConfigError(f"{said}: it was saved so, and {names} takes it back")
        scopes = dict.fromkeys(row.scope for row in entries if row.scope != OPTIONS)
        unopened_yet = {
            scope: Unopened((row for row in entries if row.scope == scope), self._open)
            for scope in scopes
        }
        config = self.boot.with_sound(ours.options)
        return Snapshot(
            config, stand.version, {**ours.saved, **unopened_yet}, keys=keys, stand=stand
        )

    def stored(self) -> Stored:
        """What stands in the database at this moment, also what does not hold; raises DatabaseAway."""
        found = self._stored()
        return replace(found, faults={**found.faults, **self.faults(found.options)})

    def write(self, session: Session, wish: Wish, *, seen: int, now: datetime) -> Written:
        """Save values by scope and key (None: take back what was saved) in the caller's transaction,
        which then holds the version's row. What stood there before, and what stands there now.

        Raises ChangedMeanwhile when somebody else has saved something since version `seen` was read, ConfigError
        for options that do not hold (together), and where others do not hold already: those can be taken back.
        Plugins' settings are checked by who knows their manifest.
        """
        self._raise_version(session, seen, now)
        before = self._opened(session.execute(_ENTRIES, _ACCOUNT), seen)
        for scope, values in wish.items():
            for key, value in values.items():
                self._put(session, scope, key, value, now)
        after = self._opened(session.execute(_ENTRIES, _ACCOUNT), seen + 1)
        self._check(wish, before, after)
        return Written(before, after)

    def catch_up(self) -> None:
        """Look at once: this process has changed something. A look that another thread began before that is
        waited for, and does not count."""
        with self._lock:
            self._look()

    def _look(self) -> Snapshot:
        """The caller holds the lock. Who lacks a master key knows nothing any more."""
        try:
            known = self._known = self._newer(self._known)
        except KeyMissing:
            self._known = None
            raise
        self._looked_at = self._clock()
        return known

    def _newer(self, known: Snapshot | None) -> Snapshot:
        try:
            stand = masterkeys.stand(self._database)
            if known is not None and stand == known.stand:
                return known
            keys = self._keys(stand)
        except DatabaseAway as error:
            return _as_known(known, error)
        try:
            found = self._read(stand, keys)
            self._follow(found.config)
        except (DatabaseAway, ConfigError) as error:
            known = _as_known(known, error)
            return known if known.keys == keys else replace(known, keys=keys)
        self._serial += 1
        return replace(found, serial=self._serial)

    def _raise_version(self, session: Session, seen: int, now: datetime) -> None:
        dialect = session.get_bind().dialect.name
        session.execute(
            inserts(ConfigVersion)[dialect]
            .values(**_ACCOUNT, version=0, changed_at=now)
            .on_conflict_do_nothing()
        )
        state = session.get_one(ConfigVersion, DEFAULT_ACCOUNT, with_for_update=True)
        if state.version != seen:
            raise ChangedMeanwhile("the settings were changed meanwhile: nothing was saved")
        state.version, state.changed_at = seen + 1, now

    def _put(self, session: Session, scope: str, key: str, value: Any, now: datetime) -> None:
        names = {**_ACCOUNT, "scope": scope, "key": key}
        if value is None:
            session.execute(sa.delete(ConfigEntry).filter_by(**names))
            return
        sealed = self._keyring.seal(json.dumps(value).encode(), place(scope, key))
        new = {"value_sealed": sealed, "updated_at": now}
        insert = inserts(ConfigEntry)[session.get_bind().dialect.name].values(**names, **new)
        session.execute(insert.on_conflict_do_update(index_elements=list(names), set_=new))

    def _check(self, wish: Wish, before: Stored, after: Stored) -> None:
        faults = {**after.faults, **self.faults(after.options)}
        known = {**before.faults, **self.faults(before.options)}
        sets = any(value is not None for values in wish.values() for value in values.values())
        if faults and (sets or not faults.keys() <= known.keys()):
            raise ConfigError("; ".join(dict.fromkeys(faults.values())))

    def faults(self, options: Mapping[str, Any]) -> dict[Place, str]:
        """What is wrong with options that are saved, or would be, in sentences that name them."""
        faults = self.boot.faults(options)
        region = options.get(_REGION)
        if region and _REGION not in faults and not phone.is_region(region):
            faults[_REGION] = f"{_REGION} is the code of no country: write it like US or DE"
        return {(OPTIONS, name): fault for name, fault in faults.items()}

    def _stored(self) -> Stored:
        version = masterkeys.stand(self._database).version
        if not version:
            return Stored(0, {}, {})
        return self._opened(self._database.rows(_ENTRIES, _ACCOUNT), version)

    def _opened(self, entries: Iterable[sa.Row[Any]], version: int) -> Stored:
        saved: dict[str, dict[str, Any]] = {}
        faults: dict[Place, str] = {}
        for entry in entries:
            try:
                value = self._open(entry)
            except ConfigError as error:
                faults[entry.scope, entry.key] = error.detail
            else:
                saved.setdefault(entry.scope, {})[entry.key] = value
        return Stored(version, saved, faults)

    def _open(self, entry: sa.Row[Any]) -> Any:
        try:
            return json.loads(self._keyring.open(entry.value_sealed, place(entry.scope, entry.key)))
        except (Unsealable, ValueError):
            name = f"{entry.scope}: {entry.key}" if entry.scope else entry.key
            raise ConfigError(
                f"the saved setting {name} does not open: CONFIG_MASTER_KEY is not the key it was saved with"
            ) from None


class Unopened(Mapping[str, Any]):
    """Settings of one plugin that are opened when somebody takes one, and not before. Two are equal when the same was
    saved at the same time: a master key that seals them anew changes nothing. Taking one raises ConfigError where it
    does not open."""

    def __init__(
        self, entries: Iterable[sa.Row[Any]], opened: Callable[[sa.Row[Any]], Any]
    ) -> None:
        self._entries, self._opened = {entry.key: entry for entry in entries}, opened

    def __getitem__(self, key: str) -> Any:
        return self._opened(self._entries[key])

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Unopened):
            return self._saved_at() == other._saved_at()
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment] # as a dict

    def __repr__(self) -> str:
        return f"<{len(self)} unopened>"

    def _saved_at(self) -> dict[str, datetime]:
        return {key: entry.updated_at for key, entry in self._entries.items()}


def _as_known(known: Snapshot | None, error: DatabaseAway | ConfigError) -> Snapshot:
    """What a process goes on with that could not read what there is now."""
    if known is None:
        raise error
    log.warning("settings not read: %s", error.detail)
    return known


def place(scope: str, key: str) -> str:
    """Where a value is sealed (Keyring.seal): its name is part of it."""
    return f"config_entries.value:{DEFAULT_ACCOUNT}:{scope}:{key}"


_REGION = "FAXBOT_DEFAULT_REGION"
_ACCOUNT = {"account_id": DEFAULT_ACCOUNT}
_ENTRIES = sa.select(table(ConfigEntry)).where(ConfigEntry.account_id == sa.bindparam("account_id"))
