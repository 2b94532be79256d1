"""python -m tests.soak --kills N --seed S: exit code 0 when nothing is lost, duplicated or stuck."""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path

import click

from tests.planted import build
from tests.soak.broken import PLANTED
from tests.soak.run import ENDINGS, KILL_PAUSE, Result, soak
from tests.soak.system import TIMES, opened


def say(text: str) -> None:
    click.echo(text, err=True)


def run(store: str, kills: int, seed: int, **changes: str) -> Result:
    """One soak of a fresh system."""
    luck = random.Random(seed)
    with opened(store, luck, changes) as system:
        return soak(system, kills, seed, luck, say)


def finds(planted: str, store: str, seed: int) -> bool:
    """Whether a soak finds what is planted, and says so."""
    with tempfile.TemporaryDirectory(prefix="faxbot-broken-") as folder:
        path = build(Path(folder), PLANTED[planted])
        result = run(store, PLANTED[planted].kills, seed, PYTHONPATH=str(path))
    found = len(getattr(result, planted))
    say(f"planted {planted}: {'found' if found else 'NOT FOUND'} ({result.line})")
    return bool(found)


@click.command()
@click.option("--kills", default=100, show_default=True, type=click.IntRange(1, 1_000_000))
@click.option("--seed", type=int, help="Of all that is left to chance.  [default: the time]")
@click.option(
    "--store",
    type=click.Choice(["postgresql", "embedded"]),
    default="postgresql",
    show_default=True,
    help="PostgreSQL and Redis, or SQLite and a broker on a socket.",
)
@click.option(
    "--prove/--no-prove",
    default=True,
    show_default=True,
    help="First find a loss, a duplicate and a stuck fax in builds that are broken on purpose.",
)
def main(kills: int, seed: int | None, store: str, prove: bool) -> None:
    """Kill processes of a faxbot under traffic, one at a time, and count every fax against the carrier's ledger."""
    seed = int(time.time()) if seed is None else seed
    click.echo(f"store {store} seed {seed} one kill in {KILL_PAUSE} s and the time of a start")
    click.echo("times " + " ".join(f"{name}={value}" for name, value in TIMES.items()))
    if prove and not all(finds(planted, store, seed) for planted in PLANTED):
        raise click.ClickException("the soak does not find what was planted: it proves nothing")
    begun = time.monotonic()
    result = run(store, kills, seed)
    click.echo(
        "killed " + " ".join(f"{kind}: {count}" for kind, count in sorted(result.killed.items()))
    )
    click.echo("faxes " + " ".join(f"{end}: {count}" for end, count in sorted(result.ends.items())))
    if result.poisoned:
        click.echo(f"poisoned {result.poisoned}: three workers died at each before its call")
    for name in ("lost", "duplicated", "stuck", "wrong"):
        for fax_id in getattr(result, name):
            click.echo(f"{name} {fax_id}")
    click.echo(
        f"{result.accepted} faxes of {len(ENDINGS)} kinds in {time.monotonic() - begun:.0f} s"
    )
    click.echo(result.line)
    sys.exit(0 if result.is_good else 1)


if __name__ == "__main__":
    main()
