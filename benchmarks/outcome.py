"""What one load run came to: rates, percentiles, and every fax that did not go as it should.

Pure: it compares what the client sent, what the service says of it and what the carrier has.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.carrier import Arrival

FINAL = frozenset({"delivered", "failed", "cancelled", "expired"})


@dataclass(frozen=True, slots=True)
class Sent:
    """One accepted submission: the service's id for it, the document's SHA-256, when the 202 was in our hands."""

    fax_id: str
    sha256: str
    started_at: float
    accepted_at: float


@dataclass(frozen=True, slots=True)
class Told:
    """What the service says of one fax; `status` "unknown" when it does not know the id."""

    status: str
    tags: Collection[str] = ()
    final_at: float | None = None

    @property
    def final(self) -> bool:
        return self.status in FINAL or self.status == "unknown"


@dataclass(frozen=True, slots=True)
class Spread:
    """Percentiles in milliseconds, by nearest rank."""

    count: int
    p50: float
    p95: float
    p99: float
    longest: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Spread | None:
        """None when there is nothing to rank."""
        ranked = sorted(seconds)
        if not ranked:
            return None

        def at(share: float) -> float:
            return round(1000 * ranked[math.ceil(share * len(ranked)) - 1], 2)

        return cls(len(ranked), at(0.5), at(0.95), at(0.99), at(1))


@dataclass(slots=True)
class Faults:
    """Ids of faxes that went wrong; each list is empty after a good run."""

    lost: list[str] = field(default_factory=list)
    """Accepted, and never came to the carrier though the service is done with it, or forgotten by the service."""
    duplicated: list[str] = field(default_factory=list)
    """More than one of it at the carrier."""
    damaged: list[str] = field(default_factory=list)
    """The carrier has other bytes than were submitted."""
    not_final: list[str] = field(default_factory=list)
    """Without a final status when the wait was over."""
    failed: list[str] = field(default_factory=list)
    """Final, but not delivered."""

    def __bool__(self) -> bool:
        return any((self.lost, self.duplicated, self.damaged, self.not_final, self.failed))


def find_faults(
    sent: Sequence[Sent],
    told: Sequence[Told],
    arrivals: Sequence[Arrival],
    *,
    converted: bool = False,
) -> Faults:
    """Compare submissions, the service's word on each (same order) and the carrier's ledger.

    `converted`: the service turns the documents into other bytes. As every document then shows the same page, all of
    them must have become the same bytes; one that did not is damaged.
    """
    faults = Faults()
    by_tag, by_hash = _index(arrivals)
    wanted = _most_common(arrivals) if converted else None
    ids = Counter(one.fax_id for one in sent)
    for one, word in zip(sent, told, strict=True):
        here = [arrival for tag in word.tags for arrival in by_tag[tag]]
        if not converted:
            # Also what arrived under a tag that the service does not own up to.
            here += [other for other in by_hash[one.sha256] if other.tag not in word.tags]
        _judge(faults, one, word, here, wanted or one.sha256)
        if ids[one.fax_id] > 1:
            # Two submissions with keys of their own, one fax: the other submission is lost.
            ids[one.fax_id] -= 1
            faults.lost.append(one.fax_id)
    return faults


def _index(
    arrivals: Sequence[Arrival],
) -> tuple[dict[str, list[Arrival]], dict[str, list[Arrival]]]:
    by_tag: dict[str, list[Arrival]] = defaultdict(list)
    by_hash: dict[str, list[Arrival]] = defaultdict(list)
    for arrival in arrivals:
        by_tag[arrival.tag].append(arrival)
        by_hash[arrival.sha256].append(arrival)
    return by_tag, by_hash


def _most_common(arrivals: Sequence[Arrival]) -> str | None:
    counted = Counter(arrival.sha256 for arrival in arrivals).most_common(1)
    return counted[0][0] if counted else None


def _judge(faults: Faults, one: Sent, word: Told, here: Sequence[Arrival], sha256: str) -> None:
    if len(here) > 1:
        faults.duplicated.append(one.fax_id)
    if any(arrival.sha256 != sha256 for arrival in here):
        faults.damaged.append(one.fax_id)
    if not word.final:
        faults.not_final.append(one.fax_id)
    elif word.status not in ("delivered", "unknown"):
        faults.failed.append(one.fax_id)
    elif not here or word.status == "unknown":
        faults.lost.append(one.fax_id)


@dataclass(slots=True)
class Outcome:
    """Everything one run is reported with. Rates are per second, memory in bytes, CPU in seconds."""

    submitted: int
    accepted: int
    refused: dict[str, int]
    """Answers other than 202 by status; "none": no answer."""
    repeats: int
    """Requests that were sent again because their connection broke."""
    submit_rate: float
    submit_ms: Spread | None
    client_share: float
    """CPU of the load program itself, as a share of one core."""
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    """CPU of the service's processes by role, from the first request until all is final."""
    through_rate: float | None = None
    """Final faxes per second, from the first request to the last final status."""
    to_provider_ms: Spread | None = None
    start_to_provider_ms: Spread | None = None
    to_final_ms: Spread | None = None
    faults: Faults | None = None
    processes: list[dict[str, Any]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def add_the_way(
    outcome: Outcome, sent: Sequence[Sent], told: Sequence[Told], arrivals: Sequence[Arrival]
) -> None:
    """Fill in how long the faxes took to the carrier and to their end; the first arrival of a fax counts."""
    first: dict[str, float] = {}
    for arrival in arrivals:
        first[arrival.tag] = min(arrival.at, first.get(arrival.tag, arrival.at))
    reached = []
    for one, word in zip(sent, told, strict=True):
        moments = [first[tag] for tag in word.tags if tag in first]
        if moments:
            reached.append((one, min(moments)))
    ended = [(one, word.final_at) for one, word in zip(sent, told, strict=True) if word.final_at]
    outcome.to_provider_ms = Spread.of(at - one.accepted_at for one, at in reached)
    outcome.start_to_provider_ms = Spread.of(at - one.started_at for one, at in reached)
    outcome.to_final_ms = Spread.of(at - one.accepted_at for one, at in ended)
    if ended:
        span = max(at for _, at in ended) - min(one.started_at for one, _ in ended)
        outcome.through_rate = round(len(ended) / span, 1) if span > 0 else None
