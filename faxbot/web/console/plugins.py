"""Plugins: what is installed, what cannot be used and why, how each is set and what it is active for; the registry."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
from flask import Response, request
from marshmallow import fields
from werkzeug.datastructures import MultiDict

from faxbot import activation, catalogue
from faxbot.oversight import NOTE_LENGTH
from faxbot.web import schemas
from faxbot.web.auth import actor, runtime
from faxbot.web.console import frame, schema_form

pages = frame.Pages("plugins", __name__)


class _Wish(schemas.ProviderChange):
    """Why settings are saved, and whether the plugin need not work so."""

    untested = fields.Boolean(load_default=False)


@pages.page("/plugins", access="admin")
def list_plugins() -> Response:
    """All that are installed, and the registry."""
    return frame.show(
        "plugins.html",
        **catalogue.plugins(runtime(), actor()),
        registry=catalogue.listed(runtime()),
    )


@pages.page("/plugins/<plugin_id>", access="admin")
def show_plugin(plugin_id: str) -> Response:
    """One of them."""
    one = catalogue.plugin(runtime(), actor(), plugin_id)
    return frame.show(
        "plugin.html",
        one=one,
        does=catalogue.in_words(one["traits"]),
        config=catalogue.settings(runtime(), plugin_id),
        possible=activation.possible(runtime(), plugin_id),
        can_leave=activation.can_leave(runtime(), plugin_id),
        note_length=NOTE_LENGTH,
    )


@pages.deed("/plugins/<plugin_id>/settings", access="admin")
def configure_plugin(plugin_id: str) -> Response:
    """Save its settings."""
    found = catalogue.settings(runtime(), plugin_id)
    values = schema_form.wish(found["settings"], request.form)
    wish = _of_page(_Wish())
    if not values:
        return frame.done("Nothing was changed.")
    activation.configure(runtime(), actor(), plugin_id, values, **wish)
    return frame.done("Saved. Every process goes by it within five seconds.")


def _of_page(schema: ma.Schema) -> dict[str, Any]:
    """What the form says beside the plugin's own settings."""
    own = (schema_form.FIELD, schema_form.TAKE_BACK, schema_form.SHOWN)
    pairs = [pair for pair in request.form.items(multi=True) if not pair[0].startswith(own)]
    return frame.checked(schema, MultiDict(pairs))


@pages.deed("/plugins/<plugin_id>/enable", access="admin")
def enable_plugin(plugin_id: str) -> Response:
    """Have one that failed too often asked again."""
    wish = frame.checked(schemas.ProviderChange(), request.form)
    catalogue.enable(runtime(), actor(), plugin_id, wish["note"])
    return frame.done("Enabled: it is asked again.")


@pages.deed("/plugins/<plugin_id>/activate", access="admin")
def activate_plugin(plugin_id: str) -> Response:
    """Give it a slot."""
    wish = frame.checked(schemas.Activation(), request.form)
    activation.activate(runtime(), actor(), plugin_id, **wish)
    return frame.done(f"Active for {wish['slot']}, in every process within five seconds.")


@pages.deed("/plugins/<plugin_id>/deactivate", access="admin")
def deactivate_plugin(plugin_id: str) -> Response:
    """Take it out of a slot."""
    wish = frame.checked(schemas.Deactivation(), request.form)
    activation.deactivate(runtime(), actor(), plugin_id, **wish)
    return frame.done(f"Not active for {wish['slot']} any more. Faxes that it has are followed.")
