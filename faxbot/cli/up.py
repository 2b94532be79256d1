"""`faxbot up` and `faxbot demo`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from faxbot.config import Config
from faxbot.errors import ConfigError
from faxbot.supervisor import listening
from faxbot.supervisor import up as supervisor
from faxbot.supervisor.console import Console
from faxbot.supervisor.program import faxbot_command, pasteable_path, program

_FRESH = "faxdata-fresh"


@click.command(
    context_settings={"allow_interspersed_args": False},
    short_help="Run everything here: broker, web, worker, beat; Ctrl-C ends it.",
)
@click.option(
    "-v", "--verbose", is_flag=True, help="Show what the parts log, not their warnings only."
)
@click.option(
    "--flower",
    "with_flower",
    is_flag=True,
    help="Run Flower, too: a window on the queue that changes nothing, at FAXBOT_FLOWER_PORT.",
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def up(command: tuple[str, ...], verbose: bool, with_flower: bool) -> int:
    """Run everything here until Ctrl-C: broker, web, worker and beat, and, while FAX_BACKEND is the simulator and
    SIMULATOR_BASE_URL is unset, its stand-in carrier.

    With COMMAND: run it once all is ready, with FAXBOT_URL and FAXBOT_API_KEY in its environment, then end
    everything with its exit code:

        faxbot up -- faxbot send letter.pdf --to +15550100000 --wait
    """
    config = Config.load()
    if not command:
        click.echo(f"faxbot starts, with its data in {config.data_dir}", err=True)
    return supervisor.up(
        config, command, console=_console(config), verbose=verbose, with_flower=with_flower
    )


@click.command(short_help="Send one fax through the whole system and show its timeline.")
@click.option(
    "-v", "--verbose", is_flag=True, help="Show what the parts log, not their warnings only."
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    default=120.0,
    show_default=True,
    help="Wait no longer than this for the fax.",
)
@click.argument(
    "document", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
def demo(document: Path | None, verbose: bool, timeout: float) -> int:
    """Start everything, send DOCUMENT through the simulated carrier, show its timeline until it is delivered, and stop
    everything again. The fax stays in FAX_DATA_DIR.

    Without DOCUMENT it sends examples/three-pages.pdf of the checkout. Exit code 1 when it is not delivered in time.
    """
    config = Config.load()
    if config.provider_id != "simulator":
        raise ConfigError(
            "the demo sends through the simulated carrier only: unset FAX_BACKEND for it"
        )
    if config.production:
        raise ConfigError("the demo makes a key and a fax of its own: unset FAXBOT_ENV for it")
    document = document or supervisor.EXAMPLE
    if not document.is_file():
        raise ConfigError(
            "examples/three-pages.pdf is not installed here: name a document, `faxbot demo FILE`"
        )
    click.echo(f"faxbot starts for one fax, with its data in {config.data_dir}", err=True)
    words = (
        "send",
        str(document),
        "--to",
        supervisor.NUMBER,
        "--wait",
        "--timeout",
        f"{timeout:g}",
    )
    code = supervisor.up(
        listening.on_any_port(config),
        faxbot_command(*words),
        console=_console(config),
        verbose=verbose,
    )
    if code == 0:
        click.echo("\n".join(_what_next(config, document)))
    elif code == 1:
        click.echo("\n".join(_what_now(config)), err=True)
    return code


def _what_next(config: Config, document: Path) -> list[str]:
    """What to do after a fax that was delivered; every command can be pasted."""
    faxbot = _called(config)
    here = f"{listening.url(config.host, config.port)}/docs"
    docs = here if config.port else "/docs at the address it names"
    send = f"{faxbot} send {pasteable_path(document)} --to {supervisor.NUMBER} --wait"
    return [
        "",
        f"The fax and its timeline stay in {config.data_dir}/; docs/map.md tells what just happened.",
        f"Serve them:     {faxbot} up, then look at {docs}",
        f"Send your own:  {send}{'' if config.port else ' --url ADDRESS'}, while that runs",
    ]


def _what_now(config: Config) -> list[str]:
    """What to do after one that was not."""
    faxbot = _called(config)
    return [
        "",
        f"The demo's fax was not delivered, and nothing runs any more. It stays in {config.data_dir}/.",
        f"Go on with it:  {faxbot} up, and {faxbot} list, while that runs",
        f"Start afresh:   FAX_DATA_DIR={_FRESH} {program()} demo",
        "After a number like ...0401 the carrier rests for ten minutes and holds every fax: see docs/simulator.md",
    ]


def _called(config: Config) -> str:
    """The command, with the settings of this one that the next one needs to find the same data and server."""
    wanted = [("FAX_DATA_DIR", ""), ("FAXBOT_HOST", ""), ("FAXBOT_PORT", "0")]
    given = [(name, config.environ.get(name, ""), without) for name, without in wanted]
    settings = [
        f"{name}={shlex.quote(value)} "
        for name, value, without in given
        if value not in ("", without)
    ]
    return "".join(settings) + program()


def _console(config: Config) -> Console:
    colour = sys.stderr.isatty() and not config.environ.get("NO_COLOR")
    return Console(sys.stderr, colour=colour)
