"""promtool, which checks rules and metrics, out of Debian's package of Prometheus, as tests/debian.py fetches it.

It is one program that needs no library but the C library of the machine. `python -m tests.prometheus.packages` fetches;
with `--lock` it asks the archive for the present version and writes lock.json anew.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests import debian
from tests.debian import Apt, Program, Store, cache_folder


class Tree(debian.Tree):
    """An unpacked Prometheus."""

    @property
    def promtool(self) -> Path:
        return self.root / "usr/bin/promtool"


def _needs(_apt: Apt) -> list[str]:
    return ["prometheus"]


PROMETHEUS = Program(
    "prometheus",
    Tree,
    # A release moves seldom, when something in it is mended; one that is kept does not.
    suites=("bookworm", "bullseye"),
    needs=_needs,
    module="tests.prometheus.packages",
)


def store() -> Store[Tree]:
    """Where it is fetched from and kept."""
    return Store(PROMETHEUS, cache_folder(), PROMETHEUS.read_lock())


if __name__ == "__main__":
    debian.main(
        Store(
            PROMETHEUS, cache_folder(), PROMETHEUS.read_lock() if PROMETHEUS.lock.exists() else []
        ),
        sys.argv[1:],
    )
