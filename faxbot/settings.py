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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from faxbot.config import Config
from faxbot.crypto import Keyring, Unsealable
from faxbot.db import Database, inserts, table
from faxbot.errors import ChangedMeanwhile, ConfigError, DatabaseAway
from faxbot.events import DEFAULT_ACCOUNT
from faxbot.models import ConfigEntry, ConfigVersion

LOOK_EVERY = 2.0  # seconds
OPTIONS = ""
"""The scope of faxbot's own options; a plugin's settings have its id."""

Saved = Mapping[str, Mapping[str, Any]]
Wish = Mapping[str, Mapping[str, Any]]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How everything is set at one moment."""

    config: Config
    version: int = 0
    """0: nothing was ever saved, the environment alone counts."""
    saved: Saved = field(default_factory=dict, repr=False)
    """By scope and key what the database holds: text of options, JSON values of plugins' settings."""
    serial: int = 0
    """Of two that one process knew, the later has the higher one: a restored backup may bring `version` down."""

    def of_plugin(self, plugin_id: str) -> Mapping[str, Any]:
        return self.saved.get(plugin_id, {})


class Settings:
    """How this installation is set, as this process last read it; safe to share between threads."""

    def __init__(
        self,
        boot: Config,
        database: Database,
        keyring: Keyring,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._boot, self._database, self._keyring = boot, database, keyring
        self._clock = clock
        self._known: Snapshot | None = None
        self._looked_at = 0.0
        self._lock = threading.Lock()

    def snapshot(self) -> Snapshot:
        """The settings that hold now, or held LOOK_EVERY ago.

        Raises DatabaseAway and ConfigError only while this process never read them: then nobody knows through
        whom a fax may go. Later it keeps what it knows, and says so in the log.
        """
        known = self._known
        if known is not None and self._clock() - self._looked_at < LOOK_EVERY:
            return known
        # One thread looks; the others go by what is known, if anything is.
        if not self._lock.acquire(blocking=known is None):
            return known or self.snapshot()
        try:
            self._known = self._look(self._known)
            self._looked_at = self._clock()
            return self._known
        finally:
            self._lock.release()

    def read(self) -> Snapshot:
        """As they stand in the database at this moment; raises DatabaseAway, ConfigError."""
        row = self._database.row(_VERSION, _ACCOUNT)
        version = row.version if row else 0
        if not version:
            return Snapshot(self._boot)
        saved = self._opened(self._database.rows(_ENTRIES, _ACCOUNT))
        return Snapshot(self._boot.with_saved(saved.get(OPTIONS, {})), version, saved)

    def write(self, session: Session, wish: Wish, *, seen: int, now: datetime) -> None:
        """Save values by scope and key (None: take back what was saved) in the caller's transaction,
        which then holds the version's row.

        Raises ChangedMeanwhile when somebody else has saved something since version `seen` was read, ConfigError
        for options that do not hold together. Plugins' settings are checked by who knows their manifest.
        """
        self._raise_version(session, seen, now)
        for scope, values in wish.items():
            for key, value in values.items():
                self._put(session, scope, key, value, now)
        session.flush()
        saved = self._opened(session.execute(_ENTRIES, _ACCOUNT))
        self._boot.with_saved(saved.get(OPTIONS, {}))

    def catch_up(self) -> None:
        """Look at once: this process has changed something. A look that another thread began before that is
        waited for, and does not count."""
        with self._lock:
            self._known = self._look(self._known)
            self._looked_at = self._clock()

    def _look(self, known: Snapshot | None) -> Snapshot:
        try:
            if known is not None:
                row = self._database.row(_VERSION, _ACCOUNT)
                if (row.version if row else 0) == known.version:
                    return known
            return replace(self.read(), serial=known.serial + 1 if known else 1)
        except (DatabaseAway, ConfigError) as error:
            if known is None:
                raise
            log.warning("settings not read: %s", error.detail)
            return known

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
        entry = session.get(ConfigEntry, tuple(names.values()))
        if value is None:
            if entry is not None:
                session.delete(entry)
            return
        if entry is None:
            entry = ConfigEntry(**names)
            session.add(entry)
        entry.value_sealed = self._keyring.seal(json.dumps(value).encode(), _place(scope, key))
        entry.updated_at = now

    def _opened(self, entries: Iterable[sa.Row[Any]]) -> dict[str, dict[str, Any]]:
        saved: dict[str, dict[str, Any]] = {}
        for entry in entries:
            saved.setdefault(entry.scope, {})[entry.key] = self._open(entry)
        return saved

    def _open(self, entry: sa.Row[Any]) -> Any:
        try:
            return json.loads(
                self._keyring.open(entry.value_sealed, _place(entry.scope, entry.key))
            )
        except (Unsealable, ValueError):
            name = f"{entry.scope}: {entry.key}" if entry.scope else entry.key
            raise ConfigError(
                f"the saved setting {name} does not open: CONFIG_MASTER_KEY is not the key it was saved with"
            ) from None


def _place(scope: str, key: str) -> str:
    return f"config_entries.value:{DEFAULT_ACCOUNT}:{scope}:{key}"


_ACCOUNT = {"account_id": DEFAULT_ACCOUNT}
_VERSION = sa.select(ConfigVersion.version).where(
    ConfigVersion.account_id == sa.bindparam("account_id")
)
_ENTRIES = sa.select(table(ConfigEntry)).where(ConfigEntry.account_id == sa.bindparam("account_id"))
