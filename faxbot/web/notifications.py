"""/admin/notifications: how people are told of faxes, and a test notice."""

from __future__ import annotations

from flask import Response

from faxbot import notifiers
from faxbot.errors import NotFound, PluginTestsCrowded
from faxbot.web import api, problems, schemas
from faxbot.web.auth import actor, runtime

blueprint = api.Blueprint(
    "notifications", __name__, description="How people are told of faxes, and a test notice."
)


@blueprint.operation(
    "GET",
    "/admin/notifications",
    access="operate",
    answers={
        200: api.answer(schemas.Notifications, "By which plugins, what waits, what was sent.")
    },
)
def list_notifications() -> Response:
    """See how people are told

    The plugins that tell people, or could, with what waits and what is wrong; and the newest messages, without whom
    they went to.
    """
    return api.reply(problems.dumps(notifiers.notifiers(runtime(), actor())))


@blueprint.operation(
    "POST",
    "/admin/notifications/<plugin_id>/test",
    access="operate",
    answers={200: api.answer(schemas.Part, "Whether it is on its way, and what is wrong.")},
    errors=(NotFound, PluginTestsCrowded),
    parameters=[api.path("plugin_id", "the plugin's id", "email")],
)
def send_test_notice(plugin_id: str) -> Response:
    """Send a test notice

    To all whom the plugin tells, whether it is active or not.
    """
    return api.reply(problems.dumps(notifiers.test(runtime(), actor(), plugin_id)))
