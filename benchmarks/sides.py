"""What is run side by side: one service, ready to be put under load, and the processes it is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.carrier import Ledger
from benchmarks.load import Watched
from benchmarks.service import Service


@dataclass(frozen=True)
class Side:
    """A running service. `roles`: process ids by role; those named in `own` count as the service's own work."""

    name: str
    service: Service
    roles: Mapping[str, Sequence[int]]
    ledger: Ledger | None = None
    own: tuple[str, ...] = field(default=("web", "worker", "beat"))

    @property
    def watched(self) -> Watched:
        return Watched(self.roles)

    @property
    def own_roots(self) -> list[int]:
        return [pid for role in self.own for pid in self.roles.get(role, ())]

    def own_cpu(self, cpu_seconds: Mapping[str, float]) -> float:
        """CPU seconds of the service itself: neither carrier nor database nor broker."""
        return sum(cpu_seconds.get(role, 0.0) for role in self.own)
