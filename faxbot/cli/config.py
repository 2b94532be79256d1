"""`faxbot config`: how everything is set and why, changed at the database itself; also where something saved no longer
holds and keeps every other command out."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from faxbot import configuration
from faxbot.actors import CLI
from faxbot.cli import given
from faxbot.cli.ledger import although_broken
from faxbot.cli.migrate import migrate_env
from faxbot.cli.rotate import rotate_key
from faxbot.errors import ConfigError
from faxbot.plugins import manifest as manifests
from faxbot.supervisor.program import program
from faxbot.wishes import only_environment

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_untested = click.option(
    "--untested", is_flag=True, help="Although a plugin does not work so, or was not asked."
)
_dry_run = click.option("--dry-run", is_flag=True, help="Check everything and change nothing.")
_MOST = 1024 * 1024
"""Bytes of a document that is imported."""


F = TypeVar("F", bound=Callable[..., Any])


def _note(what: str) -> Callable[[F], F]:
    return click.option(
        "--note", default=what, show_default=True, help="Why; it is kept with the version."
    )


@click.group(short_help="See, change and take back settings.")
def config() -> None:
    """See how everything is set and where each value comes from; save values, which go before the environment and
    which a running faxbot goes by within five seconds; take them back, or go back to any version.

    \b
    faxbot config list
    faxbot config set FAX_HEADER "Practice Dr. Who" --note "as on our paper"
    faxbot config set phaxio.apiSecret < secret.txt
    faxbot config set FAX_HEADER --unset
    faxbot config rollback 12 --note "the header was wrong"
    faxbot config rotate-key --status
    """


config.add_command(migrate_env)
config.add_command(rotate_key)


@config.command("list")
@click.option("--saved", is_flag=True, help="Only what is saved.")
@_as_json
def list_(saved: bool, as_json: bool) -> None:
    """Show every option with its value and origin: db (saved), env, default. Secrets are masked."""
    with although_broken() as runtime:
        found = configuration.overview(runtime)
    if saved:
        found["items"] = [each for each in found["items"] if each["source"] == configuration.DB]
    if as_json:
        click.echo(json.dumps(found))
        return
    for each in found["items"]:
        click.echo(_line(each))
    for each in found["plugins"]:
        click.echo(_line({**each, "source": configuration.DB}))
    if found["notice"]:
        click.echo(found["notice"], err=True)
    for each in found["broken"]:
        how = f"; {program()} config set {each['name']} --unset takes it back"
        said = (
            f"{each['name']}: {each['fault']}{how if each['stops'] or '.' in each['name'] else ''}"
        )
        click.echo(said, err=True)


@config.command()
@click.argument("name")
@_as_json
def get(name: str, as_json: bool) -> None:
    """Show one value: of an option (FAX_HEADER) or of a plugin's setting (phaxio.baseUrl). Secrets are masked."""
    with although_broken() as runtime:
        found = configuration.item(runtime, name)
    click.echo(json.dumps(found) if as_json else _text(found["value"]))
    if not as_json and found["fault"]:
        click.echo(f"{name}: {found['fault']}", err=True)


@config.command("set", short_help="Save one value, or take it back.")
@click.argument("name")
@click.argument("value", required=False)
@click.option("--unset", is_flag=True, help="Take back what was saved.")
@_note("set at the command line")
@_untested
@_as_json
def set_(
    name: str, value: str | None, unset: bool, note: str, untested: bool, as_json: bool
) -> None:
    """Save the VALUE of an option or of a plugin's setting; without VALUE it is asked for, or read from a pipe.

    A plugin is asked first whether it works so: where it needs several settings, `faxbot setup` asks for all of them.
    An empty VALUE is the default, whatever the environment says.

    \b
    faxbot config set FAXBOT_MAX_PAGES 100
    faxbot config set phaxio.apiSecret          (asks, and shows nothing)
    """
    if unset and value is not None:
        raise click.UsageError("either VALUE or --unset")
    with although_broken() as runtime:
        wish: Any = None
        if not unset:
            described = configuration.item(runtime, name)
            if not described.get("editable", True):
                # Before anybody types a secret for nothing.
                raise ConfigError(only_environment(described["name"]))
            # Options are saved as text: their kinds are none of a plugin's.
            wish = manifests.typed({"type": described["kind"]}, _given(described, value))
        found = configuration.change(runtime, CLI, {name: wish}, note=note, untested=untested)
    if as_json:
        click.echo(json.dumps(found[0] if found else {"name": name, "value": None}))
        return
    for each in found:
        click.echo(_line(each))
        if each.get("warning"):
            click.echo(f"mind: {each['warning']}", err=True)
    if not found:
        click.echo(f"{name} is taken back")


def _given(described: dict[str, Any], value: str | None) -> str:
    """The value; a secret never from the command line, where every user of this machine can read it (ps)."""
    if described["secret"] and value is not None:
        raise click.UsageError(
            "a secret on a command line is seen by every user of this machine: leave VALUE out and type it when it "
            "is asked for, or pipe it in"
        )
    if value is not None:
        return value
    if described["secret"]:
        return given.secret(described["name"])
    return str(click.prompt(described["name"], err=True)) if sys.stdin.isatty() else given.piped()


@config.command()
@click.option("--reveal", is_flag=True, help="With the secrets, in clear; that is written down.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write, for you alone (0600); it must not be there yet.  [default: print it]",
)
def export(reveal: bool, output: Path | None) -> None:
    """Print what is saved as a document for `faxbot config import`; secrets are masked."""
    with although_broken() as runtime:
        found = configuration.export(runtime, CLI, reveal=reveal)
    text = json.dumps(found, indent=2, ensure_ascii=False)
    if output is None:
        click.echo(text)
    else:
        _write(output, text + "\n")


def _write(path: Path, text: str) -> None:
    """The whole of it into a new file that its user alone may read, or no file; raises ConfigError."""
    made = False
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        made = True
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        if made:
            path.unlink()
        raise ConfigError(f"--output {path} cannot be written: {error.strerror}") from None


@config.command("import")
@click.argument("file", type=click.File("rb"))
@click.option(
    "--whole", is_flag=True, help="Take back what the document does not name.  [default: it stays]"
)
@_dry_run
@_note("imported at the command line")
@_untested
@_as_json
def import_(
    file: Any, whole: bool, dry_run: bool, note: str, untested: bool, as_json: bool
) -> None:
    """Save what a document of `faxbot config export` says, all of it or nothing. FILE may be - for a pipe.

    Masked secrets are left as they are. Options that are not known, or that look like a person's data, are refused.
    """
    content = file.read(_MOST + 1)
    try:
        document = json.loads(content) if len(content) <= _MOST else None
    except (ValueError, RecursionError):
        document = None
    with although_broken() as runtime:
        found = configuration.restore(
            runtime, CLI, document, note=note, dry_run=dry_run, untested=untested, whole=whole
        )
    _print_changes(found, as_json)


@config.command()
@click.argument("note")
@_as_json
def backup(note: str, as_json: bool) -> None:
    """Keep what is saved now under the name NOTE, however much is changed later."""
    with although_broken() as runtime:
        found = configuration.backup(runtime, CLI, note)
    click.echo(json.dumps(found) if as_json else f"version {found['version']} is kept")


@config.command()
@_as_json
def backups(as_json: bool) -> None:
    """Show the versions that can be gone back to, newest first: the last 100, and every backup."""
    with although_broken() as runtime:
        found = configuration.backups(runtime, CLI)
    if as_json:
        click.echo(json.dumps(found))
        return
    for each in found:
        mark = "now" if each["current"] else ""
        named = f"backup: {each['backup']}  " if each["backup"] else ""
        click.echo(
            f"{each['version']:>5} {mark:<3} {each['saved_at'][:19]}Z  {each['actor']:<14} "
            f"{named}{each['note'] or ''}  {', '.join(each['names'])}".rstrip()
        )


@config.command()
@click.argument("version", type=click.IntRange(0, 2**53))
@_dry_run
@_note("rolled back at the command line")
@_untested
@_as_json
def rollback(version: int, dry_run: bool, note: str, untested: bool, as_json: bool) -> None:
    """Have saved again what was saved at VERSION (`faxbot config backups`); 0: nothing, so that the environment alone
    counts. It becomes a new version, which can be taken back too."""
    with although_broken() as runtime:
        found = configuration.rollback(
            runtime, CLI, version, note=note, dry_run=dry_run, untested=untested
        )
    _print_changes(found, as_json)


def _print_changes(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(found))
        return
    for each in found["changes"]:
        becomes = "taken back" if each["becomes"] is None else _in_a_line(each["becomes"])
        was = "not saved" if each["was"] is None else _in_a_line(each["was"])
        click.echo(f"{each['name']}: {was} -> {becomes}")
    _say_left_out(found["left_out"])
    if not found["changes"]:
        click.echo("nothing changes")
    elif found["dry_run"]:
        click.echo("nothing was changed: this was a dry run", err=True)
    else:
        click.echo(f"saved as version {found['version']}", err=True)


def _say_left_out(names: Iterable[str]) -> None:
    if told := ", ".join(names):
        click.echo(f"left out, because nobody here knows them any more: {told}", err=True)


def _line(each: dict[str, Any]) -> str:
    return f"{each['name']:<34} {each['source']:<8} {_in_a_line(each['value'])}".rstrip()


def _in_a_line(value: Any) -> str:
    """The same where a line is to stay one: what is no character to be seen is written as an escape."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode()
        for each in _text(value)
    )


def _text(value: Any) -> str:
    """As it is written in the environment."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
