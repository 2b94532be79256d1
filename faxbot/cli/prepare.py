"""`faxbot prepare`: what `faxbot up` has done before anything serves, in a process of its own that ends again."""

from __future__ import annotations

import click

from faxbot import doctor, rotation, schema, wiring
from faxbot.cli import firstkey
from faxbot.config import Config
from faxbot.errors import PluginError
from faxbot.runtime import Runtime


@click.command(hidden=True)
def prepare() -> None:
    """Check the settings, bring the database to the newest schema and, outside production, see to the first API key."""
    config = Config.load()
    doctor.start(config)
    schema.upgrade(config)
    runtime = wiring.build(config)
    try:
        rotation.admit(config)
        _say_what_is_missing(runtime.fresh())
        if not config.production:
            firstkey.keep(runtime)
    finally:
        runtime.close()


def _say_what_is_missing(runtime: Runtime) -> None:
    """A plugin that is not there keeps nothing from serving, but whoever chose it wants to know at once."""
    config = runtime.config
    providers = "FAX_BACKENDS" if config.fax_backends else "FAX_BACKEND"
    chosen = [(providers, provider_id) for provider_id in config.provider_ids]
    for setting, plugin_id in (*chosen, ("STORAGE_BACKEND", config.storage_backend)):
        try:
            runtime.plugins.manifest(plugin_id)
        except PluginError as error:
            click.echo(f"{setting}={plugin_id}: {error.detail}", err=True)
