"""/plugins, /plugin-registry: what is installed, how it is set, whether it works; a disabled one is enabled again."""

from __future__ import annotations

from typing import Any

from flask import Response

from faxbot import activation, catalogue
from faxbot.errors import ChangedMeanwhile, ChangeRefused, NotFound
from faxbot.web import api, problems, schemas
from faxbot.web.auth import actor, runtime

blueprint = api.Blueprint(
    "plugins", __name__, description="What is installed, how it is set, and whether it works."
)

_PLUGIN_ID = [api.path("plugin_id", "the plugin's id", "simulator")]


@blueprint.operation(
    "GET",
    "/plugins",
    access="admin",
    answers={200: api.answer(schemas.Plugins, "Every plugin that is installed.")},
)
def list_plugins() -> Response:
    """List the plugins

    Those that cannot be used are named, with the reason.
    """
    return api.reply(problems.dumps(catalogue.plugins(runtime(), actor())))


@blueprint.operation(
    "GET",
    "/plugins/health",
    access="admin",
    answers={200: api.answer(schemas.PluginsHealth, "What the active ones say of themselves.")},
)
def check_plugins() -> Response:
    """Ask the active plugins whether they work

    They ask their carriers, all at once, and have five seconds; no fax is sent.
    """
    return api.reply(problems.dumps({"items": catalogue.health(runtime())}))


@blueprint.operation(
    "GET",
    "/plugins/<plugin_id>/config",
    access="admin",
    answers={200: api.answer(schemas.PluginConfig, "Its settings; secrets are masked.")},
    errors=(NotFound,),
    parameters=_PLUGIN_ID,
)
def read_plugin_config(plugin_id: str) -> Response:
    """Read a plugin's settings"""
    return api.reply(problems.dumps(catalogue.settings(runtime(), plugin_id)))


@blueprint.operation(
    "PUT",
    "/plugins/<plugin_id>/config",
    access="admin",
    body=schemas.PluginWish(),
    answers={200: api.answer(schemas.PluginConfig, "Its settings as they stand now.")},
    errors=(NotFound, ChangeRefused, ChangedMeanwhile),
    parameters=_PLUGIN_ID,
)
def change_plugin_config(wish: dict[str, Any], plugin_id: str) -> Response:
    """Change a plugin's settings

    They go before those of the environment, and hold in every process within five seconds. The plugin is asked first
    whether it works so, and nothing is saved when it does not.
    """
    values = wish.pop("settings")
    found = activation.configure(runtime(), actor(), plugin_id, values, **wish)
    return api.reply(problems.dumps(found))


@blueprint.operation(
    "POST",
    "/plugins/<plugin_id>/enable",
    access="admin",
    body=schemas.ProviderChange(),
    answers={200: api.answer(schemas.Plugin, "The plugin as it stands now.")},
    errors=(NotFound,),
    parameters=_PLUGIN_ID,
)
def enable_plugin(wish: dict[str, Any], plugin_id: str) -> Response:
    """Enable a plugin that failed too often

    For who knows that it is mended; what it did before does not count any more.
    """
    return api.reply(problems.dumps(catalogue.enable(runtime(), actor(), plugin_id, wish["note"])))


@blueprint.operation(
    "GET",
    "/plugin-registry",
    access="admin",
    query=schemas.RegistryQuery(),
    answers={200: api.answer(schemas.PluginRegistry, "Plugins that somebody has looked at.")},
)
def read_registry(query: dict[str, Any]) -> Response:
    """Read the registry"""
    return api.reply(problems.dumps(catalogue.listed(runtime(), **query)))
