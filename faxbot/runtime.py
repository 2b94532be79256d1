"""What the domain functions need, put together once per process by wiring.build(): a plain frozen
value.

A function with a `session` argument works in its caller's transaction and never commits; a
function with a
`runtime` argument opens its own short ones. Nothing here is global.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

from faxbot.breaker import Breakers
from faxbot.config import Config
from faxbot.crypto import Keyring
from faxbot.db import Database, utcnow
from faxbot.documents import Checker, Renderer
from faxbot.leases import Leases
from faxbot.plugins.loader import Plugins
from faxbot.restored import Restores
from faxbot.settings import Settings
from faxbot.shares import URGENT, Shares
from faxbot.tallies import Tallies
from faxbot.trail import Notes


class Ring(Protocol):
    """Rings the bell: whether the broker took it. Never raises, never waits long."""

    def __call__(self, task: str, row_id: str, urgency: int = URGENT, /) -> bool:
        """`urgency` is 0 to 255: what is more urgent is answered first."""


def silent(_task: str, _row_id: str, _urgency: int = URGENT, /) -> bool:
    """The bell of a process without a broker; the sweep finds what was not announced."""
    return False


def nothing_unanswered(_task: str, /) -> int:
    """Of a process that does not look into its broker."""
    return 0


@dataclass(frozen=True, slots=True)
class Runtime:
    """Everything a process works with."""

    config: Config
    database: Database
    keyring: Keyring
    plugins: Plugins
    checker: Checker
    renderer: Renderer
    renderer_behind: Renderer
    """In the place of the other for faxes that stand behind others."""
    leases: Leases
    breakers: Breakers
    restores: Restores
    settings: Settings
    tallies: Tallies
    notes: Notes
    """What is to be written into the audit trail of reads."""
    ring: Ring = silent
    unanswered: Callable[[str], int] = nothing_unanswered
    """How many rings wait for a worker in the queue of this task."""
    now: Callable[[], datetime] = utcnow
    started_at: datetime = field(default_factory=utcnow)
    shares: Shares = field(default_factory=lambda: Shares(time.monotonic))

    def fresh(self) -> Runtime:
        """The same as it is set now: for one request, or one task, from its beginning to its end.
        Raises DatabaseAway and ConfigError as Settings.snapshot()."""
        snapshot = self.settings.snapshot()
        self.plugins.set(snapshot.saved, snapshot.serial)
        return self if snapshot.config is self.config else replace(self, config=snapshot.config)

    def anew(self) -> Runtime:
        """The same as fresh() with a look at the database now: who looks at settings sees what another process has just
        saved. Raises as fresh()."""
        self.settings.catch_up()
        return self.fresh()

    def close(self) -> None:
        """Write the last notes and counts, and let go of child processes, plugins and connections."""
        self.notes.close()
        self.tallies.close()
        self.leases.close()
        self.checker.close()
        self.renderer.close()
        self.renderer_behind.close()
        self.plugins.close()
        self.database.close()
