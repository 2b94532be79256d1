"""`faxbot plugins`: what is installed, what a plugin says of itself, and whether everything is sound."""

from __future__ import annotations

import json
from pathlib import Path

import click

from faxbot import oversight, wiring
from faxbot.cli import packages
from faxbot.cli.ledger import at_the_ledger
from faxbot.config import Config
from faxbot.errors import ConfigError, FaxbotError, PluginError
from faxbot.oversight import as_said
from faxbot.plugins import manifest as manifests
from faxbot.plugins import registry
from faxbot.plugins.base import FaxbotPlugin, Health
from faxbot.plugins.loader import Plugins
from faxbot.plugins.manifest import Manifest
from faxbot.supervisor import standin
from faxbot.supervisor.program import pasteable

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

_TRUST = {
    "sandboxed": "sandboxed: asks for nothing but what faxbot hands it",
    "trusted": "trusted: its code runs inside the worker, as faxbot's own does",
    "full_access": "full_access: asks for everything the worker may do",
}
"""What a manifest's requiredScope means to who installs it."""


@click.group(short_help="List, show, check, write and test plugins.")
def plugins() -> None:
    """List, show, check, write and test plugins: providers, storage and more, found by their entry points."""


@plugins.command("list", short_help="Show every installed plugin.")
@_as_json
def list_(as_json: bool) -> None:
    """Show every installed plugin, and those that cannot be used with the reason."""
    config, found = _as_set()
    broken, usable = found.broken, found.manifests()
    active = {each.id for each in usable if oversight.slots(found, config, each.id)}
    if as_json:
        rows = [
            {**_summary(each), **_origin(found, each.id), "active": each.id in active}
            for each in usable
        ]
        faults = [
            {"id": fault.name, "package": fault.package, "reason": fault.reason} for fault in broken
        ]
        click.echo(json.dumps({"plugins": rows, "broken": faults}))
        return
    for manifest in usable:
        mark = "active" if manifest.id in active else ""
        click.echo(
            f"{manifest.id:<16} {_kind(manifest):<13} {manifest.version:<10} {mark:<7} {manifest.name}"
        )
    for fault in broken:
        click.echo(
            f"{fault.name:<16} cannot be used (package {fault.package}): {fault.reason}", err=True
        )


def _as_set() -> tuple[Config, Plugins]:
    """The settings and the plugins, with what is saved in the database, where one can be asked."""
    config = standin.known(Config.load())
    found = wiring.plugins(config)
    if config.database_url or (config.data_dir / "faxbot.db").exists():
        try:
            with at_the_ledger() as runtime:
                snapshot = runtime.settings.snapshot()
                found.set(snapshot.saved, snapshot.serial)
                return runtime.config, found
        except FaxbotError as error:
            click.echo(f"what is saved in the database is not counted: {error.detail}", err=True)
    return config, found


@plugins.command(short_help="Show a plugin and how its settings stand.")
@click.argument("plugin_id")
@_as_json
def show(plugin_id: str, as_json: bool) -> None:
    """Show what a plugin says of itself, and how its settings stand here; secrets are masked."""
    config, found = _as_set()
    manifest = found.manifest(plugin_id)
    try:
        settings, fault = manifests.masked(manifest, found.settings(plugin_id)), None
    except ConfigError as error:
        settings, fault = {}, error.detail
    if as_json:
        facts = {**_summary(manifest), "settings": settings, "fault": fault}
        click.echo(json.dumps(facts))
        return
    click.echo(
        f"{manifest.name} {manifest.version} ({manifest.id}, {_kind(manifest)}, plugin contract {manifest.api})"
    )
    click.echo(f"traits:    {', '.join(manifest.traits)}")
    click.echo(f"trust:     {_TRUST[manifest.required_scope]}")
    hosts = ", ".join(manifest.allowed_hosts) or "none but an address that its settings name"
    click.echo(f"calls:     {hosts}")
    for key, rule in manifest.properties.items():
        variables = " or ".join(manifest.variables.get(key, ()))
        click.echo(
            f"setting:   {key} ({variables or 'no variable'}): {settings.get(key, 'not set')}  {rule.get('title', '')}"
        )
    if fault and manifest.id == "simulator" and not config.environ.get("SIMULATOR_BASE_URL"):
        fault += "; not needed under `faxbot up`, which starts its carrier and sets both"
    click.echo(f"settings:  {pasteable(fault) if fault else 'complete'}")


@plugins.command(short_help="Check installed plugins, packages or manifest files.")
@click.argument("paths", nargs=-1, type=click.Path(exists=True, path_type=Path))
def validate(paths: tuple[Path, ...]) -> int:
    """Check every installed plugin, or what PATHS name: folders of packages, whose plugins are
    imported, or manifest files; exit code 1 when one is not sound."""
    config = Config.load()
    if paths:
        faults = [fault for path in paths for fault in _faults_in(path, config)]
    else:
        faults = _faults_of(wiring.plugins(config))
    for name, reason in faults:
        click.echo(f"{name}: {reason}", err=True)
    if not faults:
        click.echo("sound")
    return 1 if faults else 0


def _faults_in(path: Path, config: Config) -> list[tuple[str, str]]:
    if path.is_dir():
        return packages.faults(path, config.plugin_start_seconds)
    try:
        manifests.read(path)
    except PluginError as error:
        return [(str(path), error.detail)]
    return []


@plugins.command(short_help="Write the package of a new provider.")
@click.argument("name")
@click.option(
    "--into",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
    help="Folder below which it is written.  [default: this one]",
)
def new(name: str, into: Path) -> None:
    """Write a package with a new provider called NAME: it is whole, passes its tests, and speaks to
    an invented carrier until you have it speak to yours."""
    folder = packages.create(name, into)
    click.echo(f"{folder} is written; its README.md says what to do next")


@plugins.command("test", short_help="Test a package, or the connection of an installed plugin.")
@click.argument("what", metavar="ID|FOLDER")
@_as_json
def test_(what: str, as_json: bool) -> None:
    """Test a plugin: of the package in FOLDER the tests are run; the installed plugin ID is asked,
    with the settings of this environment, whether it can work, which may call its carrier. Where
    settings are missing, the tests of the folder it was installed from are run."""
    config = standin.known(Config.load())
    folder = _to_test(what, config)
    if folder is not None:
        packages.run_tests(folder)
        return
    health = _health(what, config)
    if as_json:
        click.echo(json.dumps({"ok": health.ok, "detail": health.detail}))
    else:
        click.echo(health.detail or ("It works." if health.ok else "It does not work."))
    if not health.ok:
        raise click.exceptions.Exit(1)


def _to_test(what: str, config: Config) -> Path | None:
    """The package whose tests are meant; None for the connection of an installed plugin."""
    if packages.is_package(Path(what)):
        return Path(what)
    manifest = wiring.plugins(config).manifest(what)
    try:
        manifests.settings(manifest, config.environ)
    except ConfigError:
        return packages.source_of(what)
    return None


def _health(plugin_id: str, config: Config) -> Health:
    found = wiring.plugins(config)
    try:
        return as_said(found.get(plugin_id, FaxbotPlugin).health())
    except FaxbotError:
        raise
    except Exception as error:  # noqa: BLE001 - a plugin raises anything
        return Health(False, f"The plugin failed ({type(error).__name__}).")
    finally:
        found.close()


def _faults_of(found: Plugins) -> list[tuple[str, str]]:
    faults = [
        (f"{broken.name} (package {broken.package})", broken.reason) for broken in found.broken
    ]
    if not faults and not found.manifests():
        faults.append(("plugins", "none is installed, not even ours: install faxbot again"))
    return faults


def _kind(manifest: Manifest) -> str:
    """In the words of docs/glossary.md: a manifest's `transport` is what people choose as provider."""
    return "provider" if manifest.type == "transport" else manifest.type


def _summary(manifest: Manifest) -> dict[str, object]:
    return {
        "id": manifest.id,
        "name": manifest.name,
        "version": manifest.version,
        "type": manifest.type,
        "api": manifest.api,
        "traits": list(manifest.traits),
        "required_scope": manifest.required_scope,
        "allowed_hosts": list(manifest.allowed_hosts),
    }


def _origin(found: Plugins, plugin_id: str) -> dict[str, object]:
    """What an installation's own registry asks for (FAXBOT_PLUGIN_REGISTRY)."""
    plugin = found.found(plugin_id)
    try:
        sha256 = registry.digest(plugin.module)
    except PluginError:
        sha256 = None
    return {"package": plugin.package, "sha256": sha256}
