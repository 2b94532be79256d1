"""`faxbot carrier`: stand-ins for carriers, each a process with a ledger of its own."""

from __future__ import annotations

from pathlib import Path

import click

from faxbot.carriers import simulator as carriers_simulator
from faxbot.config import Config


@click.group(short_help="Run a stand-in for a carrier, to try things out.")
def carrier() -> None:
    """Run a stand-in for a carrier, to try things out and to test against. None of them places a call."""


@carrier.command(short_help="Run the simulated carrier.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where it listens.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8091,
    show_default=True,
    help="0 takes a free one.",
)
@click.option(
    "--ledger",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Its SQLite file.  [default: simulator.db in FAX_DATA_DIR]",
)
@click.option(
    "--seconds-per-page",
    type=click.FloatRange(0),
    default=0.3,
    show_default=True,
    help="How long a page takes on the line; 0 ends every call at once.",
)
@click.option(
    "--late-seconds",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    help="How long the number with the late callback waits with it.",
)
def simulator(
    host: str, port: int, ledger: Path | None, seconds_per_page: float, late_seconds: float
) -> None:
    """Run the simulated carrier, which takes faxes over HTTP, keeps them in a ledger and calls back. The last four
    digits of a number choose what happens (docs/simulator.md). Needs SIMULATOR_SECRET, the same as its client."""
    config = Config.load()
    if ledger is None:
        config.make_data_dir()
        ledger = config.data_dir / "simulator.db"
    carriers_simulator.serve(
        host,
        port,
        ledger,
        config.environ.get("SIMULATOR_SECRET", ""),
        page_seconds=seconds_per_page,
        late_seconds=late_seconds,
    )
