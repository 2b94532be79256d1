"""What faxbot has promised of its speed, as data: a quantity, whom it is compared with, and the limit.

A limit is a ratio to the floor of the same run, or an absolute value where there is no floor.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks import pages, retention, rotation
from benchmarks.calls import BARE
from benchmarks.doors import BUSY
from benchmarks.figures import Figures
from benchmarks.processes import MIB
from benchmarks.receiving import WAYS
from benchmarks.rows import FEW, MANY
from benchmarks.stream import NOBODY, TOLD, WAITING
from benchmarks.surge import QUIET, SURGE
from benchmarks.webhooks import HUNG
from benchmarks.webhooks import QUIET as QUIET_HOOKS


@dataclass(frozen=True, slots=True)
class Target:
    """One promise. `base` None: the limit is held against the value itself."""

    name: str
    text: str
    what: str
    limit: float
    at_least: bool = False
    side: str = "faxbot"
    base: str | None = "floor"
    scale: float = 1.0
    unit: str = ""
    worst: bool = False
    """Hold the worst round against the limit, not the median: for what must never happen."""

    def found(self, figures: Figures) -> float | None:
        """The ratio or the value; None when it was not measured."""
        if self.base is not None:
            return figures.ratio(self.what, self.side, self.base)
        values = figures.of(self.what, self.side)
        if self.worst:
            return max(values) / self.scale if values else None
        median = figures.median(self.what, self.side)
        return None if median is None else median / self.scale

    def kept(self, figures: Figures) -> bool | None:
        """Whether it holds; None when it was not measured."""
        found = self.found(figures)
        if found is None:
            return None
        return found >= self.limit if self.at_least else found <= self.limit

    @property
    def wanted(self) -> str:
        sign = "at least" if self.at_least else "at most"
        base = f"x {'the floor' if self.base == 'floor' else self.base}" if self.base else self.unit
        return f"{sign} {self.limit:g}{base}"


def _each(name: str, text: str, what: str, limit: float, *, at_least: bool) -> list[Target]:
    return [
        Target(name, text.format(c), what.format(c), limit, at_least=at_least) for c in (1, 8, 32)
    ]


TARGETS: tuple[Target, ...] = (
    *_each("P1", "submits per second, {} connections", "submit/{}/rate", 0.6, at_least=True),
    Target("P3", "submit p95, 8 connections", "submit/8/submit/p95", 1.8),
    Target("P3", "submit p99, 8 connections", "submit/8/submit/p99", 2.5),
    Target("P4", "CPU per submit, 8 connections", "submit/8/cpu", 1.7),
    Target("P5", "submits per second on SQLite, 1 connection", "submit/1/rate", 0.6, True,
           "faxbot sqlite", "floor sqlite"),
    Target("P5", "submits per second on SQLite, 8 connections", "submit/8/rate", 0.6, True,
           "faxbot sqlite", "floor sqlite"),
    Target("P5", "refused on SQLite, 32 connections", "submit/32/refused", 0, False,
           "faxbot sqlite", None, worst=True),
    *_each("P6", "reads per second, {} connections", "read/{}/rate", 0.6, at_least=True),
    Target("P7", "accepted to carrier p50, 10 a second", "paced/provider/p50", 5),
    Target("P7", "accepted to carrier p95, 10 a second", "paced/provider/p95", 8),
    Target("P8", "accepted to final p95, 10 a second", "paced/final/p95", 5),
    Target("P9", "whole path, faxes per second, 8 connections", "closed/through", 0.5, True),
    Target("P10", "CPU per fax, whole path", "closed/cpu", 2),
    *(
        Target("P11", what.replace("_", " "), f"faults/{what}", 0, base=None, worst=True)
        for what in ("lost", "duplicated", "damaged", "not_final")
    ),
    Target("P12", "worker alone, faxes per second", "worker/rate", 0.5, True),
    Target("P13", "calls to the carrier, 1 thread", "calls/rate", 0.7, True),
    Target("P13", "webhooks of one worker, rows included, a second", "webhooks/rate", 0.2, True),
    Target("webhooks", "the others' p95 from event to arrival while one receiver hangs",
           "webhooks/late/p95", 1.25, False, HUNG, QUIET_HOOKS),
    # No more than 1.3 times its time.
    Target("calls", "calls to Phaxio, 1 thread", "calls/phaxio", round(1 / 1.3, 2), True, base=BARE),
    *(
        Target("P14", f"{what}, a million rows to a thousand", f"rows/{what}", 1.5, False, MANY, FEW)
        for what in ("sweep", "claim", "lane")
    ),
    *(
        Target("P14", f"{what}, p95, a million faxes to 10,000", f"pages/{what}", limit, False,
               pages.MANY, pages.FEW)
        for what, limit in pages.GROWTH.items()
    ),
    Target("P15", "a list of 50 over the API to one fax, p95, at a million", "pages/list to one", 3,
           False, pages.MANY, None, unit="x"),
    *(
        Target("pages", f"{what}, p95 at a million faxes", f"pages/{what}", 200, False, pages.MANY,
               None, unit=" ms")
        for what in pages.CONSOLE
    ),
    *(
        Target("rotation", f"a new master key on {store}, time a fax, 100,000 to 10,000",
               f"rotation/{store}/fax", 1.5, False, rotation.MANY, rotation.FEW)
        for store in ("postgresql", "sqlite")
    ),
    Target("surge", "others' accepted to carrier p95 while one account sends 7 times as much",
           "surge/provider/p95", 2, False, SURGE, QUIET),
    Target("callbacks", "acknowledged under load, p99", "callbacks/p99", 250, False,
           BUSY, None, unit=" ms"),
    Target("stream", "submits per second while 200 listen and wait", "stream/rate", 0.8, True, WAITING,
           NOBODY),
    Target("stream", "events that were missed or came twice", "stream/missed", 0, False, TOLD, None,
           worst=True),
    Target("asterisk", "login and Originate", "asterisk/call", 5, base=None, unit=" ms"),
    Target("asterisk", "listener and provider, 30 calls at once", "asterisk/share", 5, base=None,
           unit=" % of a core"),
    Target("asterisk", "calls that were up at the same time", "asterisk/at once", 30, True, base=None),
    Target("asterisk", "calls of those 30 that delivered nothing", "asterisk/failed", 0, base=None,
           worst=True),
    Target("asterisk", "memory of the listener (PSS)", "asterisk/memory", 110, base=None, scale=MIB,
           unit=" MiB", worst=True),
    *(
        Target("received", f"memory that a received fax of 50 MB adds, {way}", "received/memory", 64,
               False, way, None, scale=MIB, unit=" MiB", worst=True)
        for way in WAYS
    ),
    Target("P16", "conversion, pages per second, 1 process", "rendering/one", 0.4, True,
           base="ghostscript"),
    Target("P16", "conversion, pages spread over the cores", "rendering/spread", 0.7, True,
           base="ghostscript"),
    Target("P16", "memory of a converting process", "rendering/memory", 110, base=None,
           scale=MIB, unit=" MiB", worst=True),
    Target("P17", "retention, faxes removed a second, without its rests", "retention/rate", 0.4, True),
    Target("P17", "retention, p95 of the time for which a batch holds its locks",
           "retention/held/p95", 300, base=None, unit=" ms"),
    Target("P17", "submit p95 while retention works", "retention/beside/submit/p95", 2, False,
           retention.WORKING, retention.QUIET),
    *(
        target
        for store in retention.STORES
        for target in (
            Target("retention", f"time a fax on {store}, 100,000 to 10,000", f"retention/{store}/fax", 1.5,
                   False, retention.MANY, retention.FEW),
            Target("retention", f"memory on {store}, from the first tenth of 100,000 faxes to the last",
                   f"retention/{store}/growth", 1.05, False, retention.MANY, None, worst=True),
        )
    ),
    Target("P18", "memory of web (PSS) after 32 connections", "memory/web", 1.6),
    Target("P18", "memory of all roles (PSS)", "memory/all", 1.6),
    Target("P18", "memory at the last fax / at the 2,000th", "growth/ratio", 1.05, base=None),
    Target("P18", "memory that a 20 MB upload adds", "uploads/each", 40, base=None,
           scale=MIB, unit=" MiB"),
)  # fmt: skip
