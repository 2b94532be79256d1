"""Proves the load program before it is believed: a stand-in service with planted faults and known times.

    python -m benchmarks.selftest

Every planted fault must be reported, under its own name, and nothing else. Exit code 0 when so, else 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any

from benchmarks import documents
from benchmarks.carrier import HttpLedger
from benchmarks.client import Address, Pace
from benchmarks.launch import Workshop, free_port, listens, until
from benchmarks.load import Load, run
from benchmarks.outcome import Outcome
from benchmarks.service import Service
from benchmarks.stub import Answer, Call, serve


class Fault(StrEnum):
    """What can be planted, and what the load program must call it."""

    NONE = "none"
    SWALLOWED = "swallowed: said to be delivered, never at the carrier"
    FORGOTTEN = "forgotten: 202, then 404"
    TWICE = "twice at the carrier under one tag"
    TWICE_HIDDEN = "twice at the carrier, once under a tag the service does not show"
    STUCK = "stuck in the queue"
    STUCK_SENT = "stuck after the carrier has it"
    DAMAGED = "other bytes at the carrier"
    FAILED = "failed"
    REFUSED = "refused with 503"
    HUNG_UP = "connection closed without an answer, good on the repeat"


REPORTED_AS: dict[Fault, str] = {
    Fault.SWALLOWED: "lost",
    Fault.FORGOTTEN: "lost",
    Fault.TWICE: "duplicated",
    Fault.TWICE_HIDDEN: "duplicated",
    Fault.STUCK: "not_final",
    Fault.STUCK_SENT: "not_final",
    Fault.DAMAGED: "damaged",
    Fault.FAILED: "failed",
}


@dataclass(frozen=True)
class Plan:
    """What the stand-in does: faults by the number of the submission, and its times in seconds."""

    faults: Mapping[int, Fault] = field(default_factory=dict)
    answer_after: float = 0.0
    at_carrier_after: float = 0.0
    final_after: float = 0.0

    def dump(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> Plan:
        values = json.loads(text)
        faults = {int(number): Fault(fault) for number, fault in values.pop("faults").items()}
        return cls(faults, **values)


@dataclass
class _Fax:
    fax_id: str
    fault: Fault
    sha256: str
    taken_at: float


class StandIn:
    """Service and carrier in one, in memory. Time alone moves a fax: no waiting, no threads."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.faxes: dict[str, _Fax] = {}
        self.by_key: dict[str, str] = {}
        self.seen: Counter[str] = Counter()

    def handle(self, call: Call) -> Answer:
        if call.method == "POST":
            return self.submit(call)
        if call.path == "/v1/ledger":
            return 200, {"faxes": self.ledger()}
        _, _, fax_id, *rest = call.path.split("/")
        fax = self.faxes.get(fax_id)
        if fax is None or fax.fault is Fault.FORGOTTEN:
            return 404, {}
        return 200, self.timeline(fax) if rest else {"id": fax_id, "status": self.status(fax)}

    def submit(self, call: Call) -> Answer:
        key = call.headers["idempotency-key"]
        fault = self.plan.faults.get(int(key.rpartition("-")[2]), Fault.NONE)
        self.seen[key] += 1
        if fault is Fault.REFUSED:
            return 503, {}
        if fault is Fault.HUNG_UP and self.seen[key] == 1:
            return 0, {}
        if key not in self.by_key:
            fax_id = f"f{len(self.by_key)}"
            self.by_key[key] = fax_id
            digest = sha256(call.form()["file"]).hexdigest()
            self.faxes[fax_id] = _Fax(fax_id, fault, digest, time.time())
        return 202, {"id": self.by_key[key], "status": "queued"}

    def status(self, fax: _Fax) -> str:
        if fax.fault is Fault.STUCK or time.time() < fax.taken_at + self.plan.at_carrier_after:
            return "queued"
        if fax.fault is Fault.STUCK_SENT or time.time() < fax.taken_at + self.plan.final_after:
            return "sent"
        return "failed" if fax.fault is Fault.FAILED else "delivered"

    def timeline(self, fax: _Fax) -> dict[str, Any]:
        status = self.status(fax)
        events = [{"sequence": 1, "type": "FAX_QUEUED", "recorded_at": _iso(fax.taken_at)}]
        if status in ("delivered", "failed"):
            at = _iso(fax.taken_at + self.plan.final_after)
            events.append({"sequence": 2, "type": f"FAX_{status.upper()}", "recorded_at": at})
        return {"events": events, "attempts": [{"tag": f"tag-{fax.fax_id}"}]}

    def ledger(self) -> list[dict[str, str]]:
        never = (Fault.SWALLOWED, Fault.FORGOTTEN, Fault.STUCK, Fault.FAILED)
        entries = []
        for fax in self.faxes.values():
            at = fax.taken_at + self.plan.at_carrier_after
            if fax.fault in never or at > time.time():
                continue
            digest = "0" * 64 if fax.fault is Fault.DAMAGED else fax.sha256
            entry = {"tag": f"tag-{fax.fax_id}", "sha256": digest, "received_at": _iso(at)}
            entries.append(entry)
            if fax.fault is Fault.TWICE:
                entries.append(entry)
            if fax.fault is Fault.TWICE_HIDDEN:
                entries.append({**entry, "tag": f"hidden-{fax.fax_id}"})
        return entries


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat()


def try_out(plan: Plan, faxes: int, pace: Pace, wait: float = 2.0) -> Outcome:
    """Run the load program against a stand-in that follows `plan`."""
    with Workshop() as workshop:
        port = free_port()
        arguments = ("--serve", str(port), "--plan", plan.dump())
        child = workshop.python("stand-in", "benchmarks.selftest", *arguments)
        until(lambda: listens(port), child)
        url = f"http://127.0.0.1:{port}"
        service = Service(Address.of(url), "a key")
        load = Load(faxes, pace, wait)
        return run(service, documents.pdf_page(), load, ledger=HttpLedger(url))


def differences(plan: Plan, outcome: Outcome, faxes: int) -> list[str]:
    """What the load program should have reported of `plan` and did not, in sentences; empty when all is right."""
    planted = Counter(plan.faults.values())
    found = {} if outcome.faults is None else asdict(outcome.faults)
    wanted: Counter[str] = Counter()
    for fault, count in planted.items():
        if fault in REPORTED_AS:
            wanted[REPORTED_AS[fault]] += count
    wrong = [
        f"{wanted[name]} {name} planted, {len(ids)} reported"
        for name, ids in found.items()
        if len(ids) != wanted[name] or len(set(ids)) != len(ids)
    ]
    refused = {"503": planted[Fault.REFUSED]} if planted[Fault.REFUSED] else {}
    for what, is_so, should_be in (
        ("accepted", outcome.accepted, faxes - planted[Fault.REFUSED]),
        ("refused", outcome.refused, refused),
        ("repeated", outcome.repeats, planted[Fault.HUNG_UP]),
        ("faults looked for", bool(found), True),
    ):
        if is_so != should_be:
            wrong.append(f"{what}: {is_so}, should be {should_be}")
    return wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.selftest",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--serve", type=int, metavar="PORT", help="be the stand-in on this port")
    parser.add_argument("--plan", type=Plan.parse, default=Plan(), help="what it does, as JSON")
    options = parser.parse_args(arguments)
    if options.serve:
        plan: Plan = options.plan
        asyncio.run(serve(options.serve, StandIn(plan).handle, plan.answer_after))
        return 0
    every = [fault for fault in Fault if fault is not Fault.NONE]
    plan = Plan({7 * number: fault for number, fault in enumerate(every * 2, start=1)})
    outcome = try_out(plan, 200, Pace(8))
    wrong = differences(plan, outcome, 200)
    print("\n".join(wrong) or f"{len(plan.faults)} planted faults, exactly those reported")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
