"""python -m tests.soak.delays: how long a fax waits for a worker that died, with the times of real service.

A worker is killed behind the claim, and behind the intent; what is measured is the time from its death to the next
attempt at the fax, and to `uncertain`, whose look-up is rung for in the same breath. Minutes: a lease lasts one.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import click

from tests.acceptance.test_crash_matrix import HERE, POINTS, System
from tests.carrier import SimulatorProcess
from tests.ground import Ground, eventually
from tests.installation import Stores
from tests.planted import build
from tests.servers import PostgresServer, RedisServer

MEASURED = {
    "C5 claimed, before the intent": "FAX_SUBMITTING",
    "C6 intent committed, call not begun": "FAX_UNCERTAIN",
}
PROMISED = 90.0


def measure(point: str, event: str) -> float:
    """Seconds from the death of a worker to this event of its fax."""
    ground = Ground()
    database, broker = PostgresServer(ground), RedisServer(ground)
    database.start()
    broker.start()
    try:
        with (
            Stores(ground).postgresql(database, broker) as installation,
            SimulatorProcess(installation.folder) as carrier,
            tempfile.TemporaryDirectory(prefix="faxbot-planted-") as folder,
        ):
            path = build(Path(folder), POINTS[point])
            (path / "crash.py").write_text(HERE)
            system = System(installation, carrier, path, times={})
            system.start()
            try:
                fax_id = system.submit("key")
                eventually(system.mark.exists, 30)
                died_at = time.monotonic()
                eventually(lambda: event in _types(system.story(fax_id)), 120, every=0.2)
                return time.monotonic() - died_at
            finally:
                system.stop()
    finally:
        broker.stop()
        database.stop()
        ground.close()


def _types(story: dict[str, Any]) -> list[str]:
    return [event.get("type", "") for event in story["events"]]


@click.command()
def main() -> None:
    """Measure how long a fax waits for a worker that died, with the times of real service."""
    worst = 0.0
    for point, event in MEASURED.items():
        seconds = measure(point, event)
        worst = max(worst, seconds)
        click.echo(f"{point}: {event} after {seconds:.1f} s (promised: {PROMISED:g})")
    if worst > PROMISED:
        raise click.ClickException("later than promised")


if __name__ == "__main__":
    main()
