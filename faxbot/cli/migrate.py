"""`faxbot config migrate-env`: take over what the earlier Faxbot was told; shown first, written when that is wanted."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path
from typing import Any

import click
from dotenv.parser import parse_stream

from faxbot import migration
from faxbot.actors import CLI
from faxbot.cli.ledger import at_the_ledger
from faxbot.errors import ConfigError
from faxbot.migration import Applied, Found, Known, Plan, Step
from faxbot.runtime import Runtime
from faxbot.supervisor.program import pasteable, program

_FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")
_HEADINGS = {
    migration.DATABASE: "To be saved in the database:",
    migration.ENVIRONMENT: "To be put into this faxbot's environment, which is not written here:",
    "": "Not taken over:",
}


@click.command("migrate-env", short_help="Take over the settings of the earlier Faxbot.")
@click.option(
    "--env",
    "env_files",
    type=_FILE,
    multiple=True,
    help="Its .env; may be repeated, and the last one counts.  [default: the environment of this command]",
)
@click.option("--json", "json_file", type=_FILE, help="Its faxbot.config.json.")
@click.option("--apply", "apply_", is_flag=True, help="Write it; without, a terminal is asked.")
@click.option(
    "--untested", is_flag=True, help="Although a provider does not work so, or was not asked."
)
@click.option(
    "--note", default="from the earlier Faxbot", show_default=True, help="Why; it is kept."
)
@click.option("--as-json", is_flag=True, help="Print JSON.")
def migrate_env(
    env_files: tuple[Path, ...],
    json_file: Path | None,
    apply_: bool,
    untested: bool,
    note: str,
    as_json: bool,
) -> int:
    """Show what becomes of the earlier Faxbot's variables and of its faxbot.config.json, and write it with --apply.

    Each value is the same, renamed, different in meaning, or dropped with the reason. What is written is one version
    of the settings: it is read back, the provider is asked whether it lets us in, and `faxbot config rollback` takes
    all of it back. Secrets and numbers are masked.

    \b
    faxbot config migrate-env --env old/.env
    faxbot config migrate-env --env old/.env --env old/faxdata/faxbot.env
    faxbot config migrate-env --env old/.env --json old/config/faxbot.config.json --apply
    """
    with at_the_ledger() as runtime:
        found = _found(runtime, env_files, json_file)
        plan = migration.plan(found, Known(runtime.plugins.manifests()))
        if not as_json:
            _show(plan)
        reasons = migration.weigh(runtime, plan, untested=untested)
        if not as_json:
            _say_what_does_not_work(plan, reasons)
        if not plan.wish or not (apply_ or _wanted(as_json)):
            _say_not_written(plan, as_json, reasons)
            return 0
        applied = migration.apply(runtime, CLI, plan, note=note, untested=untested)
    if as_json:
        click.echo(json.dumps({**_facts(plan, reasons), "applied": asdict(applied)}))
    else:
        _say_written(applied)
    return 1 if applied.differing or not applied.health.get("ok", True) else 0


def _found(runtime: Runtime, env_files: tuple[Path, ...], json_file: Path | None) -> Found:
    """What the earlier one was told; raises ConfigError naming the file."""
    several: list[Found] = []
    if env_files:
        several.append(_of_files(env_files))
    elif json_file is None:
        several.append(migration.of_environment(runtime.config.environ))
    if json_file is not None:
        try:
            several.append(migration.of_json(_text(json_file)))
        except ConfigError as error:
            raise ConfigError(f"{json_file}: {error.detail}") from None
    return migration.joined(several)


def _of_files(paths: Iterable[Path]) -> Found:
    values: dict[str, str] = {}
    not_taken: list[tuple[str, str]] = []
    for path in paths:
        # Not by dotenv_values(): it passes over what it does not understand, and a secret may have lost its quotes.
        for line in parse_stream(StringIO(_text(path))):
            if line.key is not None and _VARIABLE.fullmatch(line.key) and not line.error:
                values[line.key] = line.value or ""
            elif line.key is not None or line.error:
                where = f"line {line.original.line} of {path}"
                not_taken.append((where, "it is not understood: NAME=value is expected"))
    return replace(migration.of_environment(values, whole=True), not_taken=tuple(not_taken))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text") from None


def _wanted(as_json: bool) -> bool:
    if as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    return click.confirm("\nWrite this?", default=False)


def _show(plan: Plan) -> None:
    for place, heading in _HEADINGS.items():
        steps = [
            step
            for step in plan.steps
            if step.place.partition(" ")[0] == place and step.kind != migration.UNSET
        ]
        if steps:
            click.echo(f"\n{heading}")
        for step in steps:
            _show_step(step)
    unset = [step for step in plan.steps if step.kind == migration.UNSET]
    if unset:
        click.echo("\nNot set there, and another default here:")
    for step in unset:
        click.echo(f"  {step.name}: {step.note}")
    if not plan.steps:
        click.echo("Nothing of the earlier Faxbot is set here: name its .env with --env", err=True)


def _show_step(step: Step) -> None:
    becomes = f" -> {step.new}" if step.new not in ("", step.name) else ""
    kind = "" if step.kind in (migration.SAME, migration.DROPPED) else step.kind
    words = "; ".join(word for word in (kind, step.note) if word)
    value = f"={step.shown}" if step.shown else ""
    click.echo(f"  {step.name}{value}{becomes}" + (f"  ({pasteable(words)})" if words else ""))
    if step.warning:
        click.secho(f"    warning: {step.name}: {step.warning}", fg="yellow", err=True)


def _say_what_does_not_work(plan: Plan, reasons: Mapping[str, str]) -> None:
    for plugin_id, reason in reasons.items():
        left = "" if plugin_id in plan.saved else "; its settings are left out"
        click.echo(f"\n{plugin_id} cannot be used so: {pasteable(reason)}{left}", err=True)


def _say_not_written(plan: Plan, as_json: bool, reasons: Mapping[str, str]) -> None:
    if as_json:
        click.echo(json.dumps({**_facts(plan, reasons), "applied": None}))
    elif plan.wish:
        click.echo("\nNothing was written; --apply writes it.", err=True)


def _facts(plan: Plan, reasons: Mapping[str, str]) -> dict[str, Any]:
    return {
        "steps": [asdict(step) for step in plan.steps],
        "to_save": sorted(plan.wish),
        "to_environment": sorted(plan.environment),
        "cannot_be_used": dict(reasons),
    }


def _say_written(applied: Applied) -> None:
    changed = applied.version != applied.before
    written = f"Written as version {applied.version}." if changed else "It is all saved already."
    click.echo(f"\n{written}")
    if applied.differing:
        click.echo(f"These do not read back as written: {', '.join(applied.differing)}", err=True)
    else:
        click.echo("Everything reads back as it was written.")
    if applied.health:
        said = "works" if applied.health["ok"] else f"does not work: {applied.health['detail']}"
        click.echo(f"The provider that sends {pasteable(said).removesuffix('.')}.")
    if changed:
        click.echo(
            f"{program()} config rollback {applied.before} takes it back (--untested where what was set before does "
            "not work from here)."
        )
