"""`faxbot config rotate-key`: another master key, while everything runs."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

import click

from faxbot import actors, db, rotation
from faxbot.cli.ledger import although_broken, at_the_ledger
from faxbot.config import Config
from faxbot.rotation import Progress
from faxbot.runtime import Runtime


@click.command("rotate-key", short_help="Bring a new master key into use, while everything runs.")
@click.option("--status", is_flag=True, help="Only say how far it is, and what is left.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option(
    "--old-key-is-lost",
    is_flag=True,
    help="Go on with the new key though the old one is gone: what it sealed can never be read again.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def rotate_key(status: bool, dry_run: bool, old_key_is_lost: bool, as_json: bool) -> None:
    """Bring a new master key into use and seal everything anew with it, while everything runs. Whoever is interrupted
    calls it again; it goes on where it was.

    \b
    With the key in the environment:
      1. CONFIG_MASTER_KEY_PREVIOUS = the old key, CONFIG_MASTER_KEY = openssl rand -base64 32;
         restart every process, one after the other.
      2. faxbot config rotate-key
      3. It says when the old one is needed no more: take CONFIG_MASTER_KEY_PREVIOUS away.
    With a key file: faxbot config rotate-key makes the new one and does the rest by itself.

    \b
    faxbot config rotate-key --status --json
    """
    if old_key_is_lost:
        _give_up(as_json)
        return
    with at_the_ledger() as runtime:
        if status or dry_run:
            _show(rotation.progress(runtime, planned=dry_run), dry_run, as_json)
            return
        done = rotation.rotate(runtime, actors.CLI, told=_Line())
        _end(runtime, done, as_json)


class _Line:
    """One line at a terminal that is written over; without one a line for every tenth."""

    def __init__(self) -> None:
        self._said: tuple[str, int] | None = None
        self._over = sys.stderr.isatty()

    def __call__(self, what: str, done: int, of: int) -> None:
        tenth = done * 10 // max(of, 1)
        if self._over:
            end = "\n" if done >= of else ""
            click.echo(f"\r{what}: {done} of {of}\033[K{end}", err=True, nl=False)
        elif self._said != (what, tenth):
            self._said = what, tenth
            click.echo(f"{what}: {done} of {of}", err=True)


def _show(found: Progress, dry_run: bool, as_json: bool) -> None:
    facts: dict[str, Any] = asdict(found)
    facts["since"] = found.since.isoformat() if found.since else None
    if as_json:
        click.echo(json.dumps(facts))
        return
    click.echo(f"{_STATES[found.state]} The key that seals is {found.sealing}.")
    words = "would be sealed anew" if dry_run else "are left to be sealed anew"
    click.echo(f"{sum(found.left.values())} values {words}.")
    for place, rows in found.left.items():
        click.echo(f"  {place}: {rows}")
    for place, rows in found.unknown.items():
        click.echo(f"  {place}: {rows} are sealed with a key that is not given, and do not open")


_STATES = {
    "resting": "No new master key is being brought into use.",
    "announced": "A new master key is announced: `faxbot config rotate-key` goes on with it.",
    "sealing": "A new master key seals; what the old one sealed is being sealed anew.",
}


def _end(runtime: Runtime, done: bool, as_json: bool) -> None:
    found = rotation.progress(runtime)
    if as_json:
        _show(found, False, True)
    elif not done:
        click.echo(
            "nothing to do: CONFIG_MASTER_KEY is in use already. To change it, make a new one "
            "(openssl rand -base64 32), give every process the old one as CONFIG_MASTER_KEY_PREVIOUS, and restart them"
        )
    elif runtime.config.master_key:
        click.echo(
            "done: the old key is needed no more. Take CONFIG_MASTER_KEY_PREVIOUS away and restart; keep it as long as "
            "you keep backups of before"
        )
    else:
        click.echo(
            f"done: master.key is the new key, {found.sealing}. The old one lies beside it under its id: delete it "
            "when you keep no backup of before"
        )
    if done and not as_json:
        for place, rows in found.left.items():
            click.echo(f"  {place}: {rows} are damaged, do not open, and stay as they are")


def _give_up(as_json: bool) -> None:
    config = Config.load()
    db.must_exist(config)
    db.check(config)
    rotation.make_key_file(config)
    with although_broken() as runtime:
        lost = rotation.give_up(runtime, actors.CLI)
    if as_json:
        click.echo(json.dumps({"lost": lost}))
        return
    click.echo(f"{sum(lost.values())} values can never be read again.")
    for place, rows in lost.items():
        click.echo(f"  {place}: {rows}")
    click.echo(
        "make new API keys (faxbot keys create), and save the settings of your carriers anew"
    )
