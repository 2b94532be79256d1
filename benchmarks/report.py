"""Turns the figures of one run into tables: on the terminal, and between two marks of docs/performance.md."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.figures import Figures
from benchmarks.processes import MIB
from benchmarks.retention import STORES
from benchmarks.targets import TARGETS, Target

BEGIN = "<!-- figures: written by python -m benchmarks, not by hand -->"
END = "<!-- end of figures -->"
WORDS = {True: "yes", False: "**no**", None: "not measured"}

Row = Sequence[str]


def table(head: Row, rows: Iterable[Row]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float) -> str:
    """Three digits that count."""
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def spread(values: Sequence[float]) -> str:
    """Median (lowest-highest)."""
    if not values:
        return ""
    ranked = sorted(values)
    middle = (ranked[(len(ranked) - 1) // 2] + ranked[len(ranked) // 2]) / 2
    if len(ranked) == 1:
        return number(middle)
    return f"{number(middle)} ({number(ranked[0])}-{number(ranked[-1])})"


def targets(figures: Figures) -> str:
    """Every target with what was found."""
    return table(
        ("", "quantity", "target", "found", "kept"),
        (
            (one.name, one.text, one.wanted, _found(one, figures), WORDS[one.kept(figures)])
            for one in TARGETS
        ),
    )


def _found(target: Target, figures: Figures) -> str:
    found = target.found(figures)
    if found is None:
        return ""
    if target.base is None:
        return number(found) + target.unit
    ours, theirs = (
        figures.median(target.what, target.side),
        figures.median(target.what, target.base),
    )
    assert ours is not None
    assert theirs is not None
    ours, theirs = ours / _unit(target.what), theirs / _unit(target.what)
    return f"{found:.2f}x ({number(ours)} to {number(theirs)})"


_BYTES = (
    "memory/", "growth/", "rendering/memory", *(f"retention/{store}/memory" for store in STORES),
)  # fmt: skip


def _unit(what: str) -> float:
    return MIB if what.startswith(_BYTES) else 1.0


def submits(figures: Figures) -> str:
    """Submits and reads of all sides."""
    sides = ("floor", "faxbot", "floor sqlite", "faxbot sqlite")
    rows = [
        (
            side, str(count),
            spread(figures.of(f"submit/{count}/rate", side)),
            spread(figures.of(f"submit/{count}/submit/p50", side)),
            spread(figures.of(f"submit/{count}/submit/p95", side)),
            spread(figures.of(f"submit/{count}/submit/p99", side)),
            spread(figures.of(f"submit/{count}/cpu", side)),
            spread(figures.of(f"read/{count}/rate", side)),
        )
        for side in sides
        for count in (1, 8, 32)
    ]  # fmt: skip
    head = ("side", "connections", "submits/s", "p50 ms", "p95 ms", "p99 ms", "CPU ms", "reads/s")
    return table(head, rows)


def paths(figures: Figures) -> str:
    """The whole path of all sides."""
    quantities = (
        ("paced 10/s: accepted to carrier p50, ms", "paced/provider/p50"),
        ("paced 10/s: accepted to carrier p95, ms", "paced/provider/p95"),
        ("paced 10/s: accepted to carrier p99, ms", "paced/provider/p99"),
        ("paced 10/s: accepted to final p50, ms", "paced/final/p50"),
        ("paced 10/s: accepted to final p95, ms", "paced/final/p95"),
        ("paced 10/s: CPU per fax, ms", "paced/cpu"),
        ("8 connections: faxes/s through the carrier", "closed/through"),
        ("8 connections: submits/s meanwhile", "closed/rate"),
        ("8 connections: CPU per fax, ms", "closed/cpu"),
        ("... of web", "closed/cpu/web"),
        ("... of the worker", "closed/cpu/worker"),
        ("... of the carrier, not counted", "closed/cpu/carrier"),
        ("the same with a PDF that is converted: faxes/s", "rendered/through"),
        ("the same with a PDF that is converted: CPU per fax, ms", "rendered/cpu"),
        ("worker alone: faxes/s", "worker/rate"),
        ("worker alone: CPU per fax, ms", "worker/cpu"),
        ("calls to the carrier, 1 thread: calls/s", "calls/rate"),
        ("calls to Phaxio, 1 thread: calls/s", "calls/phaxio"),
        ("webhooks of one worker: deliveries/s", "webhooks/rate"),
        ("webhooks of one worker: CPU per delivery, ms", "webhooks/cpu"),
        ("calls started at Asterisk, 1 thread: ms", "asterisk/call"),
        ("calls started at Asterisk: CPU, ms", "asterisk/cpu"),
        ("30 calls through Asterisk: at once", "asterisk/at once"),
        ("30 calls through Asterisk: listener and provider, % of a core", "asterisk/share"),
    )
    sides = ("floor", "faxbot", "faxbot embedded")
    rows = [
        (text, *(spread(figures.of(what, side)) for side in sides)) for text, what in quantities
    ]
    return table(("quantity", *sides), rows)


def memory(figures: Figures) -> str:
    """Memory of all sides, in MiB."""
    rows = []
    for what, sides in sorted(figures.values.items()):
        if what.startswith(("memory/", "growth/", "uploads/")) and what != "growth/ratio":
            rows += [(what, side, spread([value / MIB for value in values]))
                     for side, values in sides.items()]  # fmt: skip
    return table(("quantity", "side", "PSS, MiB"), rows)


def purges(figures: Figures) -> str:
    """Retention of all sides, by quantity."""
    quantities = (
        ("faxes a second, both goes, without rests", "rate"),
        ("CPU a fax, its process and the database's, us", "cpu"),
        ("a batch holds its locks, p95, ms (floor: with its unlinks)", "held/p95"),
        ("submit p95 at 20 a second, ms", "beside/submit/p95"),
        *(
            (text.format(store), f"{store}/{what}")
            for store in STORES
            for text, what in (
                ("{}: us a fax", "fax"),
                ("{}: us a fax, rests between batches included", "fax and rest"),
                ("{}: a batch holds its locks, p95, ms", "held/p95"),
                ("{}: most memory of the process (RSS), MiB", "memory"),
                ("{}: the same at the end to that at a tenth", "growth"),
            )
        ),
    )
    rows = [
        (text, side, spread([value / _unit(f"retention/{what}") for value in values]))
        for text, what in quantities
        for side, values in figures.values.get(f"retention/{what}", {}).items()
    ]
    return table(("quantity", "side", "found"), rows)


def faults(figures: Figures) -> str:
    """One sentence over all runs of the whole path."""
    kinds = ("lost", "duplicated", "damaged", "not_final", "failed")
    sides = sorted({side for kind in kinds for side in figures.values.get(f"faults/{kind}", {})})
    said = [
        f"{side}: "
        + ", ".join(
            f"{sum(figures.of(f'faults/{kind}', side)):.0f} {kind.replace('_', ' ')}"
            for kind in kinds
        )
        for side in sides
    ]
    return "; ".join(said) + "." if said else "The whole path was not run."


def rendering(figures: Figures) -> str:
    """What the rendering benchmark reported, in its own words."""
    return str(figures.facts.get("rendering", "Not measured in this run."))


def whole(figures: Figures) -> str:
    """All tables as Markdown."""
    facts = figures.facts
    rates = ", ".join(f"{rate['what']} {rate['per_second']:,.0f}/s" for rate in facts["rates"])
    return "\n\n".join(
        (
            f"Run of {facts['date']}, {facts['rounds']} rounds. {facts['machine']}",
            f"The machine's own rates: {rates}.",
            "### Targets",
            targets(figures),
            "### Submit and read",
            submits(figures),
            "### Whole path",
            paths(figures),
            f"Faults over all runs: {faults(figures)}",
            "### Memory",
            memory(figures),
            "### Retention",
            purges(figures),
            "### Conversion",
            rendering(figures),
        )
    )


def write_page(figures: Figures, page: Path) -> None:
    """Replace what stands between the marks of the page; raises ValueError when it has no marks."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page} has no place for figures: it lacks {BEGIN} ... {END}")
    page.write_text(f"{before}{BEGIN}\n\n{whole(figures)}\n\n{END}{after}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables of a saved run, or write them into the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=main.__doc__)
    parser.add_argument("figures", type=Path, help="file that python -m benchmarks --save wrote")
    parser.add_argument("--page", type=Path, help="Markdown page to write them into")
    options = parser.parse_args(arguments)
    figures = Figures.load(options.figures)
    if options.page:
        write_page(figures, options.page)
    else:
        print(whole(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
