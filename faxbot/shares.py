"""Fair shares: an account that submits far more than the others does not make them wait.

Each web process notes how much each account has submitted lately, and the sweep sees how much of
each waits. Who has more than its share stands behind the others while they come, and is served as
fast as ever when they do not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection

URGENT = 255
"""What is so urgent comes first."""
HALF_LIFE = 10.0
"""Seconds after which a submission counts half."""
LEAST = 10.0
"""So few in a short time are no surge, whatever the others do."""
SHARE = 1.5
"""Of the average of all who submit; who has more stands behind."""
BEHIND = 64
"""By so much of the 256 steps of priority: behind what others send with the same priority."""
FORGOTTEN = 0.5


def has_too_many(mine: float, all_have: Collection[float]) -> bool:
    """Whether this is much, and more than a fair share of what all have."""
    return mine >= LEAST and mine > SHARE * sum(all_have) / len(all_have)


def behind(priority: int) -> int:
    """The priority of who stands behind the others."""
    return max(priority - BEHIND, 0)


class Shares:
    """What the accounts have submitted lately; safe to share between threads."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lately: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def urgency(self, account_id: str, priority: int) -> int:
        """Note one more submission of this account; how urgent it is, 0 to 255, 255 first."""
        now = self._clock()
        with self._lock:
            mine = self._faded(account_id, now) + 1
            self._lately[account_id] = (mine, now)
            if mine < LEAST:
                return priority
            counts = {account: self._faded(account, now) for account in self._lately}
            self._lately = {
                account: (count, now) for account, count in counts.items() if count >= FORGOTTEN
            }
        active = [count for count in counts.values() if count >= FORGOTTEN]
        return behind(priority) if has_too_many(mine, active) else priority

    def _faded(self, account_id: str, now: float) -> float:
        count, at = self._lately.get(account_id, (0.0, now))
        return float(count * 0.5 ** ((now - at) / HALF_LIFE))
