"""`faxbot up` and `faxbot demo`."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import click

import faxbot
from faxbot.config import Config
from faxbot.errors import ConfigError
from faxbot.supervisor import listening
from faxbot.supervisor import up as supervisor
from faxbot.supervisor.console import Console

_EXAMPLE = Path(faxbot.__file__).parent.parent / "examples" / "three-pages.pdf"
_NUMBER = "+15550100000"
"""A number that cannot be anybody's (555-01xx is kept for fiction); the simulator delivers to it."""


@click.command(
    context_settings={"allow_interspersed_args": False},
    short_help="Run everything here: broker, web, worker, beat; Ctrl-C ends it.",
)
@click.option(
    "-v", "--verbose", is_flag=True, help="Show what the parts log, not their warnings only."
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def up(command: tuple[str, ...], verbose: bool) -> int:
    """Run everything here: broker, web, worker and beat, until Ctrl-C.

    With COMMAND: run it once all is ready, with FAXBOT_URL and FAXBOT_API_KEY in its environment, then end
    everything with its exit code:

        faxbot up -- faxbot send letter.pdf --to +15550100000 --wait
    """
    config = Config.load()
    if not command:
        click.echo(f"faxbot starts, with its data in {config.data_dir}", err=True)
    return supervisor.up(config, command, console=_console(config), verbose=verbose)


@click.command(short_help="Send one fax through the whole system and show its timeline.")
@click.option(
    "-v", "--verbose", is_flag=True, help="Show what the parts log, not their warnings only."
)
@click.argument(
    "document", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
def demo(document: Path | None, verbose: bool) -> int:
    """Start everything, send DOCUMENT (a PDF that lies in the repository) through the simulated carrier, show its
    timeline until it is delivered, and stop everything again. The fax stays in FAX_DATA_DIR."""
    config = Config.load()
    if config.provider_id != "simulator":
        raise ConfigError(
            "the demo sends through the simulated carrier only: unset FAX_BACKEND for it"
        )
    if config.production:
        raise ConfigError("the demo makes a key and a fax of its own: unset FAXBOT_ENV for it")
    document = document or _EXAMPLE
    if not document.is_file():
        raise ConfigError(
            "examples/three-pages.pdf is not installed here: name a document, faxbot demo FILE"
        )
    click.echo(f"faxbot starts for one fax, with its data in {config.data_dir}", err=True)
    command = supervisor.faxbot_command("send", str(document), "--to", _NUMBER, "--wait")
    code = supervisor.up(
        listening.on_any_port(config), command, console=_console(config), verbose=verbose
    )
    if code == 0:
        program = "faxbot" if shutil.which("faxbot") else os.path.relpath(sys.argv[0])
        click.echo(
            f"\nThe fax and its timeline stay in {config.data_dir}/; docs/map.md tells what just happened.\n"
            f"Serve them:     {program} up (or make run), then look at http://127.0.0.1:{config.port}/docs\n"
            f"Send your own:  {program} send FILE.pdf --to {_NUMBER} --wait, while that runs"
        )
    return code


def _console(config: Config) -> Console:
    colour = sys.stderr.isatty() and not config.environ.get("NO_COLOR")
    return Console(sys.stderr, colour=colour)
