"""`faxbot prepare`: what `faxbot up` has done before anything serves, in a process of its own that ends again."""

from __future__ import annotations

import click

from faxbot import hearing, schema, wiring
from faxbot.cli import firstkey
from faxbot.config import Config
from faxbot.errors import PluginError
from faxbot.runtime import Runtime
from faxbot.supervisor.up import LISTEN


@click.command(hidden=True)
def prepare() -> int:
    """Check the settings, bring the database to the newest schema and, outside production, see to the first API key.
    The exit code says whether an active provider must be listened to (supervisor.up.LISTEN)."""
    config = Config.load()
    runtime = wiring.build(config)
    try:
        schema.upgrade(config)
        fresh = runtime.fresh()
        _say_what_is_missing(fresh)
        if not config.production:
            firstkey.keep(runtime)
        return LISTEN if hearing.listeners(fresh) else 0
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
