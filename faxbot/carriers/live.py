"""The faxes that a carrier has in hand: in memory, and written to its ledger soon after each change,
many together."""

from __future__ import annotations

import sqlite3
import threading

from faxbot.carriers.ledger import Fax, Ledger
from faxbot.carriers.timeline import Timeline

SAVE_SECONDS = 0.05
"""News of many faxes is written together this often; a kill -9 in between repeats it."""


class LiveFaxes:
    """Those whose end is still to be told. Change a fax only with `lock` held, and note() it."""

    def __init__(self, ledger: Ledger, timeline: Timeline) -> None:
        self.lock = threading.RLock()
        self._ledger = ledger
        self._timeline = timeline
        self._live: dict[str, Fax] = {}
        self._changed: dict[str, Fax] = {}

    def add(self, fax: Fax) -> None:
        with self.lock:
            self._live[fax.id] = fax

    def current(self, fax: Fax) -> Fax:
        """How a fax that was read from the ledger stands by now."""
        return self._live.get(fax.id, fax)

    def find(self, fax_id: str) -> Fax | None:
        return self._live.get(fax_id) or self._ledger.fax(fax_id)

    def note(self, fax: Fax) -> None:
        """Have it written soon, together with others."""
        with self.lock:
            if not self._changed:
                self._timeline.after(SAVE_SECONDS, self.save)
            self._changed[fax.id] = fax

    def told(self, fax: Fax) -> None:
        """Its end was called back, or need not be."""
        with self.lock:
            fax.told = True
            self.note(fax)

    def save(self) -> None:
        """Write what has changed; it is tried again where that fails."""
        with self.lock:
            try:
                self._ledger.save(self._changed.values())
            except sqlite3.Error:
                # A full disk, say: nothing is forgotten.
                self._timeline.after(1.0, self.save)
                raise
            for fax in self._changed.values():
                if fax.told:
                    self._live.pop(fax.id, None)
            self._changed = {}
