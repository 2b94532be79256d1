"""`faxbot carrier`: stand-ins for carriers, each a process with a ledger of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from faxbot.carriers import phaxio as carriers_phaxio
from faxbot.carriers import simulator as carriers_simulator
from faxbot.carriers import sinch as carriers_sinch
from faxbot.config import Config

Command = Callable[..., None]


def _serves(name: str, port: int) -> Callable[[Command], Command]:
    """The options of where it listens and keeps its ledger."""
    options = (
        click.option("--host", default="127.0.0.1", show_default=True, help="Where it listens."),
        click.option(
            "--port",
            type=click.IntRange(0, 65535),
            default=port,
            show_default=True,
            help="0 takes a free one.",
        ),
        click.option(
            "--ledger",
            type=click.Path(dir_okay=False, path_type=Path),
            help=f"Its SQLite file.  [default: {name}.db in FAX_DATA_DIR]",
        ),
    )
    return lambda command: _with(command, *options)


def _takes_time(command: Command) -> Command:
    """The options of how long a vendor's stand-in takes."""
    pages = click.option(
        "--seconds-per-page",
        "page_seconds",
        type=click.FloatRange(0),
        default=0.3,
        show_default=True,
        help="How long a page takes on the line; 0 ends every call at once.",
    )
    late = click.option(
        "--late-seconds",
        type=click.FloatRange(0),
        default=30.0,
        show_default=True,
        help="How long what comes late waits.",
    )
    return _with(command, pages, late)


def _with(command: Command, *options: Callable[[Command], Command]) -> Command:
    for option in reversed(options):  # as decorators that stand one below the other
        command = option(command)
    return command


def _ledger(config: Config, given: Path | None, name: str) -> Path:
    if given is None:
        config.make_data_dir()
    return given or config.data_dir / f"{name}.db"


@click.group(short_help="Run a stand-in for a carrier, to try things out.")
def carrier() -> None:
    """Run a stand-in for a carrier, to try things out and to test against. None of them places a call."""


@carrier.command(short_help="Run the simulated carrier.")
@_serves("simulator", 8091)
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
    carriers_simulator.serve(
        host,
        port,
        _ledger(config, ledger, "simulator"),
        config.environ.get("SIMULATOR_SECRET", ""),
        page_seconds=seconds_per_page,
        late_seconds=late_seconds,
    )


@carrier.command(short_help="Run the stand-in for Phaxio.")
@_serves("phaxio", 8092)
@click.option(
    "--webhooks",
    "version",
    type=click.Choice(carriers_phaxio.VERSIONS),
    default="v2.1",
    show_default=True,
    help="The account's webhook format.",
)
@click.option("--inflight", is_flag=True, help="Call back on the way, too (v2.1 only).")
@click.option("--live", is_flag=True, help="The key is no test key.")
@click.option(
    "--byte-order-mark", is_flag=True, help="Error bodies begin with one, as some were recorded."
)
@click.option(
    "--callback-url", default="", help="Where news of a fax goes that names no address of its own."
)
@click.option("--receive-url", default="", help="Where news of received faxes goes.")
@click.option(
    "--number",
    "numbers",
    multiple=True,
    help="A number of the account's, for caller_id; may be repeated.  [default: any number]",
)
@_takes_time
@click.option(
    "--scale",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    help="Multiplies the vendor's own times: re-posted callbacks, batch_delay, cancel_timeout.",
)
def phaxio(host: str, port: int, ledger: Path | None, **settings: Any) -> None:
    """Run the stand-in for Phaxio, which speaks its API 2 and 2.1, keeps a ledger and calls back. The last four
    digits of a number choose what happens (docs/phaxio-carrier.md). Needs PHAXIO_API_KEY and PHAXIO_API_SECRET, the
    same as its client; it signs its callbacks with PHAXIO_CALLBACK_TOKEN. Its ledger holds numbers and documents:
    use invented ones."""
    config = Config.load()
    carriers_phaxio.serve(
        host,
        port,
        _ledger(config, ledger, "phaxio"),
        config.environ.get("PHAXIO_API_KEY", ""),
        config.environ.get("PHAXIO_API_SECRET", ""),
        callback_token=config.environ.get("PHAXIO_CALLBACK_TOKEN", ""),
        **settings,
    )


@carrier.command(short_help="Run the stand-in for Sinch.")
@_serves("sinch", 8093)
@click.option(
    "--incoming-url", default="", help="The service's address for news of faxes that come in."
)
@click.option(
    "--incoming-type",
    type=click.Choice(carriers_sinch.CONTENT_TYPES),
    default=carriers_sinch.CONTENT_TYPES[0],
    show_default=True,
    help="What that news is written in.",
)
@_takes_time
@click.option(
    "--token-seconds",
    type=click.FloatRange(0),
    default=3600.0,
    show_default=True,
    help="How long a token is good.",
)
@click.option(
    "--scale",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    help="Multiplies the vendor's own times: the wait before a redial, and re-posted webhooks.",
)
def sinch(host: str, port: int, ledger: Path | None, **settings: Any) -> None:
    """Run the stand-in for Sinch, which speaks its Fax API v3, keeps a ledger and posts webhooks. The last four digits
    of a number choose what happens (docs/sinch-carrier.md). Needs SINCH_PROJECT_ID, SINCH_API_KEY and
    SINCH_API_SECRET, the same as its client. Its ledger holds numbers and documents: use invented ones."""
    config = Config.load()
    names = ("SINCH_PROJECT_ID", "SINCH_API_KEY", "SINCH_API_SECRET")
    account = (config.environ.get(name, "") for name in names)
    carriers_sinch.serve(host, port, _ledger(config, ledger, "sinch"), *account, **settings)
