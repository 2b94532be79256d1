"""/admin/providers: how the providers stand, and what an operator does to them."""

from __future__ import annotations

from typing import Any

from flask import Response

from faxbot import activation, oversight
from faxbot.errors import ChangedMeanwhile, ChangeRefused, NotFound, PluginTestsCrowded
from faxbot.web import api, problems, schemas
from faxbot.web.auth import actor, runtime

blueprint = api.Blueprint(
    "providers", __name__, description="How the providers stand; pause, resume, reset, test them."
)

_PROVIDER_ID = [api.path("provider_id", "the provider's id", "simulator")]
_PLUGIN = {200: api.answer(schemas.Plugin, "The plugin as it stands now.")}
_ONE = {200: api.answer(schemas.ProviderDetail, "The provider as it stands now.")}


@blueprint.operation(
    "GET",
    "/admin/providers",
    access="operate",
    answers={200: api.answer(schemas.Providers, "Every provider that is installed.")},
)
def list_providers() -> Response:
    """List the providers"""
    return api.reply(problems.dumps({"items": oversight.providers(runtime(), actor())}))


@blueprint.operation(
    "GET",
    "/admin/providers/<provider_id>",
    access="operate",
    answers=_ONE,
    errors=(NotFound,),
    parameters=_PROVIDER_ID,
)
def read_provider(provider_id: str) -> Response:
    """Read a provider, with its history"""
    return api.reply(problems.dumps(oversight.provider(runtime(), actor(), provider_id)))


@blueprint.operation(
    "POST",
    "/admin/providers/<provider_id>/pause",
    access="operate",
    body=schemas.ProviderPause(),
    answers=_ONE,
    errors=(NotFound,),
    parameters=_PROVIDER_ID,
)
def pause_provider(wish: dict[str, Any], provider_id: str) -> Response:
    """Pause a provider

    Nothing is sent through it until it is resumed, or until `until`; faxes are taken and held. Every process has heard
    of it within a second.
    """
    return _changed(provider_id, "pause", wish)


@blueprint.operation(
    "POST",
    "/admin/providers/<provider_id>/resume",
    access="operate",
    body=schemas.ProviderChange(),
    answers=_ONE,
    errors=(NotFound,),
    parameters=_PROVIDER_ID,
)
def resume_provider(wish: dict[str, Any], provider_id: str) -> Response:
    """End a pause"""
    return _changed(provider_id, "resume", wish)


@blueprint.operation(
    "POST",
    "/admin/providers/<provider_id>/reset",
    access="operate",
    body=schemas.ProviderChange(),
    answers=_ONE,
    errors=(NotFound,),
    parameters=_PROVIDER_ID,
)
def reset_provider(wish: dict[str, Any], provider_id: str) -> Response:
    """Close a provider's breaker

    For who knows that the trouble is over and does not want to wait for a probe.
    """
    return _changed(provider_id, "reset", wish)


@blueprint.operation(
    "POST",
    "/admin/providers/<provider_id>/activate",
    access="admin",
    body=schemas.Activation(),
    answers=_PLUGIN,
    errors=(NotFound, ChangeRefused, ChangedMeanwhile),
    parameters=_PROVIDER_ID,
)
def activate_provider(wish: dict[str, Any], provider_id: str) -> Response:
    """Give a provider, or a store, a slot

    It holds in every process within five seconds. The plugin is asked first whether it works, and nothing is changed
    when it does not.
    """
    return api.reply(problems.dumps(activation.activate(runtime(), actor(), provider_id, **wish)))


@blueprint.operation(
    "POST",
    "/admin/providers/<provider_id>/deactivate",
    access="admin",
    body=schemas.Deactivation(),
    answers={200: api.answer(schemas.PluginSlots, "What the plugin is still active for.")},
    errors=(NotFound, ChangeRefused, ChangedMeanwhile),
    parameters=_PROVIDER_ID,
)
def deactivate_provider(wish: dict[str, Any], provider_id: str) -> Response:
    """Take a provider out of a slot

    The last one of a slot stays. Faxes that it has are followed to their end. One that is not installed any more can be
    taken out too.
    """
    return api.reply(problems.dumps(activation.deactivate(runtime(), actor(), provider_id, **wish)))


def _changed(provider_id: str, deed: str, wish: dict[str, Any]) -> Response:
    return api.reply(
        problems.dumps(oversight.change(runtime(), actor(), provider_id, deed, **wish))
    )


@blueprint.operation(
    "GET",
    "/admin/webhooks",
    access="admin",
    answers={200: api.answer(schemas.CallbackDoors, "Every provider whose carrier calls back.")},
)
def list_callback_doors() -> Response:
    """See how carriers' callbacks arrive

    What to enter at each carrier, what came within a day, what was refused and why, and the newest, without content.
    """
    return api.reply(problems.dumps({"items": oversight.webhooks(runtime())}))


@blueprint.operation(
    "POST",
    "/admin/providers/<provider_id>/test",
    access="operate",
    answers={200: api.answer(schemas.Part, "Whether the carrier lets us in, and what is wrong.")},
    errors=(NotFound, PluginTestsCrowded),
    parameters=_PROVIDER_ID,
)
def test_provider(provider_id: str) -> Response:
    """Test the connection

    Asks the carrier whether it is there and takes our credentials; no fax is sent.
    """
    return api.reply(problems.dumps(oversight.try_connection(runtime(), actor(), provider_id)))
