"""The load program: submits faxes to a running service over HTTP, waits until all are final, and says how it went.

    python -m benchmarks.load --url http://127.0.0.1:8080 --key-file faxdata/first-api-key \\
        --carrier http://127.0.0.1:8090 --faxes 500 --connections 8 --pid 4711

Exit code 0 when every fax was accepted and delivered once, whole; 1 when not; 2 for misuse.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import documents
from benchmarks.carrier import HttpLedger, Ledger
from benchmarks.client import Address, Pace, Reply, drive
from benchmarks.documents import Document
from benchmarks.outcome import Faults, Outcome, Sent, Spread, add_the_way, find_faults
from benchmarks.processes import MIB, cpu_seconds, processes
from benchmarks.service import (
    Service,
    Submissions,
    read_all,
    wait_until_final,
)

TAIL = 16
"""So many of the last submissions are watched while a run drains: asking for all would be a load of its own."""


@dataclass(frozen=True)
class Load:
    """How much, how fast, and how long to wait for the end (seconds; 0: submit only)."""

    faxes: int
    pace: Pace
    wait: float = 0.0
    to: str | None = None
    converted: bool = False


@dataclass(frozen=True)
class Watched:
    """Process ids of the service by role; the trees below them are counted with them."""

    roles: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def cpu(self) -> dict[str, float]:
        return {role: cpu_seconds(roots) for role, roots in self.roles.items()}

    def memory(self) -> list[dict[str, object]]:
        return [
            {
                "role": role,
                "pid": process.pid,
                "command": process.command[:80],
                "rss": process.rss,
                "pss": process.pss,
            }
            for role, roots in self.roles.items()
            for process in processes(roots)
        ]


def run(
    service: Service,
    document: Document,
    load: Load,
    *,
    ledger: Ledger | None = None,
    watched: Watched | None = None,
) -> Outcome:
    """One run. Raises OSError when the service or the carrier's ledger cannot be reached."""
    watched = watched or Watched()
    submissions = Submissions(service, document, load.to)
    cpu_before, own_before, begun_at = watched.cpu(), time.process_time(), time.time()
    replies = drive(service.address, submissions.take(load.faxes), load.pace)
    submitted_for = max(time.time() - begun_at, 1e-9)
    own_share = (time.process_time() - own_before) / submitted_for
    sent = [_sent(reply, submissions) for reply in replies if reply.status == 202]
    deadline = time.time() + load.wait
    if load.wait:
        wait_until_final(service, [one.fax_id for one in sent[-TAIL:]], deadline)
    outcome = _outcome(replies, submitted_for, own_share)
    for role, seconds in watched.cpu().items():
        outcome.cpu_seconds[role] = round(seconds - cpu_before[role], 3)
    outcome.processes = watched.memory()
    if load.wait:
        _follow(outcome, service, sent, load, ledger, begun_at, deadline)
    return outcome


def _sent(reply: Reply, submissions: Submissions) -> Sent:
    return Sent(reply.json()["id"], submissions.hashes[reply.number], reply.due_at, reply.done_at)


def _outcome(replies: Sequence[Reply], submitted_for: float, own_share: float) -> Outcome:
    accepted = [reply for reply in replies if reply.status == 202]
    refused = Counter(str(reply.status or "none") for reply in replies if reply.status != 202)
    return Outcome(
        submitted=len(replies),
        accepted=len(accepted),
        refused=dict(refused),
        repeats=sum(reply.tries - 1 for reply in replies),
        submit_rate=round(len(accepted) / submitted_for, 1),
        submit_ms=Spread.of(reply.seconds for reply in accepted),
        client_share=round(own_share, 3),
    )


def _follow(
    outcome: Outcome,
    service: Service,
    sent: Sequence[Sent],
    load: Load,
    ledger: Ledger | None,
    begun_at: float,
    deadline: float,
) -> None:
    told = read_all(service, [one.fax_id for one in sent], load.pace.connections, deadline)
    arrivals = ledger.arrivals(begun_at) if ledger else []
    add_the_way(outcome, sent, told, arrivals)
    if ledger:
        outcome.faults = find_faults(sent, told, arrivals, converted=load.converted)


def describe(outcome: Outcome) -> str:
    """The run for people, a line per fact."""
    lines = [
        f"accepted        {outcome.accepted} of {outcome.submitted}"
        + "".join(f", {count} answered {status}" for status, count in outcome.refused.items()),
        f"submit rate     {outcome.submit_rate:.0f}/s (client {outcome.client_share:.2f} core)",
        _line("submit", outcome.submit_ms),
        _line("to the carrier", outcome.to_provider_ms),
        _line("to final", outcome.to_final_ms),
    ]
    if outcome.through_rate is not None:
        lines.append(f"whole path      {outcome.through_rate:.1f}/s")
    if outcome.faults is not None:
        lines.append(_faults(outcome.faults))
    for role, seconds in outcome.cpu_seconds.items():
        each = 1000 * seconds / max(outcome.accepted, 1)
        lines.append(f"CPU {role:<11} {seconds:.2f} s, {each:.2f} ms per fax")
    lines.extend(
        f"memory {process['role']:<8} RSS {process['rss'] / MIB:6.1f} MiB, "
        f"PSS {process['pss'] / MIB:6.1f} MiB  {process['pid']} {process['command']}"
        for process in outcome.processes
    )
    return "\n".join(line for line in lines if line)


def _line(what: str, spread: Spread | None) -> str:
    if spread is None:
        return ""
    return f"{what:<15} p50 {spread.p50} p95 {spread.p95} p99 {spread.p99} ms"


def _faults(faults: Faults) -> str:
    return "faults          " + ", ".join(
        f"{len(found)} {what}"
        for what, found in (
            ("lost", faults.lost),
            ("duplicated", faults.duplicated),
            ("damaged", faults.damaged),
            ("not final", faults.not_final),
            ("failed", faults.failed),
        )
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.load",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    url = "http://127.0.0.1:8080"
    add("--url", type=Address.of, default=url, help="the service (default: %(default)s)")
    add("--key-file", type=Path, required=True, help="file that holds the API key")
    add("--carrier", type=HttpLedger, help="address of the carrier whose /v1/ledger is the witness")
    add("--faxes", type=int, default=100, help="how many (default: %(default)s)")
    add("--connections", type=int, default=8, help="keep-alive connections (default: %(default)s)")
    add("--rate", type=float, help="submissions per second; default: as fast as answers come")
    add("--seconds", type=float, help="start none after so long")
    add("--document", default="pdf", help="pdf, fax (finished TIFF page) or a PDF or TIFF file")
    add("--to", help="number (default: a million of them, to which the simulator delivers)")
    add(
        "--wait",
        type=float,
        default=60.0,
        help="seconds to wait until all is final; 0: submit only",
    )
    add("--converted", action="store_true", help="the service converts the document on its way")
    add("--pid", type=int, action="append", default=[], help="root of the service's processes")
    add("--json", action="store_true", help="print everything as JSON")
    return parser


def _document(name: str) -> Document:
    if name == "pdf":
        return documents.pdf_page()
    if name == "fax":
        return documents.fax_page()
    path = Path(name)
    media_type = "application/pdf" if path.suffix.lower() == ".pdf" else "image/tiff"
    return Document(path.name, media_type, path.read_bytes())


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    pace = Pace(options.connections, options.seconds, options.rate)
    try:
        service = Service(options.url, options.key_file.read_text().strip())
        document = _document(options.document)
    except OSError as error:
        parser.error(f"{error.filename}: {error.strerror}")
    try:
        outcome = run(
            service,
            document,
            Load(options.faxes, pace, options.wait, options.to, options.converted),
            ledger=options.carrier,
            watched=Watched({"service": options.pid} if options.pid else {}),
        )
    except OSError as error:
        print(f"cannot go on: {error}", file=sys.stderr)
        return 1
    print(json.dumps(outcome.as_json(), indent=1) if options.json else describe(outcome))
    return 1 if outcome.refused or outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
