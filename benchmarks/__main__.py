"""Runs faxbot and the floor side by side, interleaved, and holds the ratios against the targets.

    python -m benchmarks --quick           a few minutes, nothing is written
    python -m benchmarks                   the full run; writes its tables into docs/performance.md
    python -m benchmarks --only submit,path

The figures mean something only while nothing else uses the machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from benchmarks import (
    asterisk,
    doors,
    machine,
    pages,
    product,
    receiving,
    report,
    retention,
    rotation,
    rows,
    stages,
    stream,
    surge,
    uploads,
    webhooks,
)
from benchmarks.calls import carrier_calls
from benchmarks.figures import Figures
from benchmarks.floor import start as floor
from benchmarks.launch import Workshop
from benchmarks.servers import Servers, servers
from benchmarks.sides import Side
from benchmarks.stages import FULL, QUICK, Length
from benchmarks.targets import TARGETS
from benchmarks.worker import worker_alone

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
UPLOADS_IN_FLIGHT = 3


@dataclasses.dataclass(frozen=True)
class Bench:
    """The servers of a run, how long it is, and where its figures go."""

    figures: Figures
    servers: Servers
    length: Length
    floor_only: bool

    def submit(self) -> None:
        """P1, P3-P6, P18: web alone."""
        with Workshop() as workshop:
            sides = [
                floor.start_web(
                    workshop,
                    "floor",
                    self.servers.postgres.new_database(),
                    self.servers.redis.database(1),
                ),
                floor.start_web(
                    workshop,
                    "floor sqlite",
                    str(workshop.folder / "floor.db"),
                    self.servers.redis.database(2),
                ),
            ]
            if not self.floor_only:
                sides += [
                    product.start_web(
                        workshop,
                        "faxbot",
                        self.servers.postgres.new_database(),
                        self.servers.redis.database(3),
                    ),
                    product.start_web(
                        workshop, "faxbot sqlite", "", self.servers.redis.database(4)
                    ),
                ]
            stages.submit_and_read(self.figures, sides, self.length, say)

    def path(self) -> None:
        """P7-P11, P18: all roles."""
        with Workshop() as workshop:
            sides = [
                floor.start_whole(
                    workshop,
                    "floor",
                    self.servers.postgres.new_database(),
                    self.servers.redis.database(5),
                )
            ]
            if not self.floor_only:
                sides += [
                    product.start_whole(
                        workshop,
                        "faxbot",
                        self.servers.postgres.new_database(),
                        self.servers.redis.database(6),
                    ),
                    product.start_embedded(workshop, "faxbot embedded"),
                ]
            stages.whole_path(self.figures, sides, self.length, say)
            for side in sides[1:]:
                stages.rendered_path(self.figures, side, self.length, say)

    def worker(self) -> None:
        """P12: the worker with nobody at the other end."""
        with Workshop() as workshop:
            worker_alone(self.figures, workshop, self.servers, self.length, say)

    def calls(self) -> None:
        """P13: the call to the carrier by itself."""
        with Workshop() as workshop:
            carrier_calls(self.figures, workshop, self.length, say)

    def rows(self) -> None:
        """P14: sweep, claim and lane from a thousand to a million rows."""
        with Workshop() as workshop:
            rows.measure(self.figures, self.servers.postgres.new_database(), workshop.folder, say)

    def pages(self) -> None:
        """P14, P15: lists and the console's pages, beside few faxes and many."""
        with Workshop() as workshop:
            pages.measure(self.figures, workshop, self.servers, self.length, say)

    def rotation(self) -> None:
        """A new master key in the place of the old one."""
        with Workshop() as workshop:
            for store, database in (
                ("postgresql", self.servers.postgres.new_database()),
                ("sqlite", ""),
            ):
                folder = workshop.folder / f"rotation-{store}"
                rotation.measure(self.figures, store, database, folder, say)

    def retention(self) -> None:
        """P17: what is old goes."""
        with Workshop() as workshop:
            retention.measure(self.figures, workshop, self.servers, self.length, say)

    def surge(self) -> None:
        """A surge of one account, and what the others notice of it."""
        with Workshop() as workshop:
            database = self.servers.postgres.new_database()
            side = product.start_whole(workshop, "faxbot", database, self.servers.redis.database(8))
            key = surge.account_key(database, workshop.folder / "faxbot-data")
            surge.measure(self.figures, side, key, self.length, say)

    def callbacks(self) -> None:
        """A carrier's callbacks while clients submit as fast as they can."""
        with Workshop() as workshop:
            faxbot = product.install(
                workshop,
                "faxbot-callbacks",
                self.servers.postgres.new_database(),
                self.servers.redis.database(9),
                PHAXIO_API_KEY="key",
                PHAXIO_API_SECRET="secret",  # noqa: S106 - nobody is called
                PHAXIO_CALLBACK_TOKEN=doors.TOKEN,
            )
            web, worker = faxbot.web(), faxbot.start("worker")
            roles = {"web": [web.pid], "worker": [worker.pid]}
            side = Side(faxbot.name, faxbot.service(), roles)
            doors.measure(self.figures, side, faxbot.url, self.length, say)

    def stream(self) -> None:
        """Submits while many listen to events."""
        with Workshop() as workshop:
            database, redis = self.servers.postgres.new_database(), self.servers.redis.database(11)
            side = product.start_web(workshop, "faxbot", database, redis)
            stream.measure(self.figures, workshop, side, self.length, say)

    def webhooks(self) -> None:
        """P13: what is sent to subscribers, and one of them that hangs."""
        with Workshop() as workshop:
            webhooks.measure(self.figures, workshop, self.servers, self.length, say)

    def asterisk(self) -> None:
        """Thirty calls at once on a line of one's own."""
        with Workshop() as workshop:
            database, redis = self.servers.postgres.new_database(), self.servers.redis.database(10)
            asterisk.measure(self.figures, workshop, database, redis, self.length, say)

    def received(self) -> None:
        """A received fax of 50 MB."""
        with Workshop() as workshop:
            database, redis = self.servers.postgres.new_database(), self.servers.redis.database(11)
            receiving.measure(self.figures, workshop, database, redis, self.length, say)

    def memory(self) -> None:
        """P18: large uploads in flight, and growth over many faxes."""
        with Workshop() as workshop:
            side = product.start_whole(
                workshop,
                "faxbot",
                self.servers.postgres.new_database(),
                self.servers.redis.database(7),
            )
            say("large uploads")
            self.figures.add(
                "uploads/each", side.name, uploads.added_memory(side, UPLOADS_IN_FLIGHT)
            )
            stages.growth(self.figures, side, self.length, say)

    def rendering(self) -> None:
        """P16: conversion, by a program of its own: {"values": {quantity: {side: [...]}}, "table": Markdown}."""
        if find_spec("benchmarks.rendering") is None:
            say("conversion is left out: there is no benchmarks/rendering.py")
            return
        say("conversion")
        command = [sys.executable, "-m", "benchmarks.rendering", "--json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=PAGE.parent.parent)
        said = json.loads(done.stdout)
        for what, sides in said["values"].items():
            for side, values in sides.items():
                for value in values:
                    self.figures.add(what, side, value)
        self.figures.facts["rendering"] = said["table"]


def say(text: str) -> None:
    """Progress goes to stderr, with the time."""
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", file=sys.stderr, flush=True)


STAGES: dict[str, Callable[[Bench], None]] = {
    "submit": Bench.submit,
    "path": Bench.path,
    "worker": Bench.worker,
    "calls": Bench.calls,
    "rows": Bench.rows,
    "pages": Bench.pages,
    "rotation": Bench.rotation,
    "retention": Bench.retention,
    "surge": Bench.surge,
    "callbacks": Bench.callbacks,
    "stream": Bench.stream,
    "webhooks": Bench.webhooks,
    "asterisk": Bench.asterisk,
    "received": Bench.received,
    "memory": Bench.memory,
    "rendering": Bench.rendering,
}


def _stage_names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - STAGES.keys():
        raise argparse.ArgumentTypeError(
            f"no stage {', '.join(sorted(unknown))}; there are {', '.join(STAGES)}"
        )
    return names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="short rounds; figures for a first look only")
    add("--rounds", type=int, help="how many (default: 5, quick: 2)")
    add("--only", type=_stage_names, default=list(STAGES), metavar="STAGES",
        help=f"some of: {', '.join(STAGES)}")  # fmt: skip
    add("--million", action="store_true",
        help="retention also of a million faxes: an hour or two, and 40 GB of disk")  # fmt: skip
    add("--floor-only", action="store_true", help="leave faxbot out")
    add("--save", type=Path, metavar="FILE", help="keep all figures of all rounds as JSON")
    add("--no-page", action="store_true", help="do not write docs/performance.md")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; exit code 1 when a target that was measured is missed."""
    options = _parser().parse_args(arguments)
    length = QUICK if options.quick else FULL
    if options.rounds:
        length = dataclasses.replace(length, rounds=options.rounds)
    if options.million:
        sizes = (*length.purged_faxes, retention.MILLION)
        length = dataclasses.replace(length, purged_faxes=sizes)
    figures = Figures()
    with servers() as running:
        bench = Bench(figures, running, length, options.floor_only)
        figures.facts = {
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "rounds": length.rounds,
            "machine": machine.description(running.description()),
            "rates": [dataclasses.asdict(rate) for rate in machine.rates()],
        }
        for name in options.only:
            STAGES[name](bench)
            if options.save:
                figures.save(options.save)
    print(report.whole(figures))
    complete = options.only == list(STAGES) and not (options.quick or options.floor_only)
    if complete and not options.no_page:
        report.write_page(figures, PAGE)
    return 1 if any(one.kept(figures) is False for one in TARGETS) else 0


if __name__ == "__main__":
    sys.exit(main())
