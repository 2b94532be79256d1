"""The figures of one interleaved run: for every quantity and every side one value per round.

Sides are compared round by round, for a machine is now faster and now slower, and the same for both in one round;
the median of those ratios is what a target is held against.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.outcome import Outcome, Spread


class Figures:
    """`what` is a path like `submit/8/rate`, `side` who did it."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.facts: dict[str, Any] = {}
        """What else belongs to the run: date, machine, what somebody else's program reported."""

    def add(self, what: str, side: str, value: float) -> None:
        self.values[what][side].append(value)

    def of(self, what: str, side: str) -> list[float]:
        """The values by round; empty when it was not measured."""
        return self.values[what][side] if side in self.values.get(what, {}) else []

    def median(self, what: str, side: str) -> float | None:
        values = self.of(what, side)
        return statistics.median(values) if values else None

    def ratio(self, what: str, side: str, base: str) -> float | None:
        """Median over the rounds of side / base."""
        pairs = zip(self.of(what, side), self.of(what, base), strict=False)
        ratios = [value / other for value, other in pairs if other]
        return statistics.median(ratios) if ratios else None

    def save(self, path: Path) -> None:
        path.write_text(json.dumps({"facts": self.facts, "values": self.values}, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Figures:
        kept: Mapping[str, Any] = json.loads(path.read_text())
        figures = cls()
        figures.facts = dict(kept["facts"])
        for what, sides in kept["values"].items():
            for side, values in sides.items():
                figures.values[what][side] = list(values)
        return figures

    def take_outcome(self, stage: str, side: str, outcome: Outcome, own_cpu: float) -> None:
        """Note what a load run came to; `own_cpu` is the CPU of the service's own processes in seconds."""
        self.add(f"{stage}/rate", side, outcome.submit_rate)
        self.add(f"{stage}/refused", side, float(sum(outcome.refused.values())))
        if outcome.accepted:
            self.add(f"{stage}/cpu", side, 1000 * own_cpu / outcome.accepted)
            for role, seconds in outcome.cpu_seconds.items():
                self.add(f"{stage}/cpu/{role}", side, 1000 * seconds / outcome.accepted)
        if outcome.through_rate is not None:
            self.add(f"{stage}/through", side, outcome.through_rate)
        for name, spread in (
            ("submit", outcome.submit_ms),
            ("provider", outcome.to_provider_ms),
            ("final", outcome.to_final_ms),
        ):
            self._take_spread(f"{stage}/{name}", side, spread)
        if outcome.faults is not None:
            for fault in ("lost", "duplicated", "damaged", "not_final", "failed"):
                count = len(getattr(outcome.faults, fault))
                self.add(f"faults/{fault}", side, float(count))

    def _take_spread(self, what: str, side: str, spread: Spread | None) -> None:
        if spread is not None:
            self.add(f"{what}/p50", side, spread.p50)
            self.add(f"{what}/p95", side, spread.p95)
            self.add(f"{what}/p99", side, spread.p99)
