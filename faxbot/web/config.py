"""/admin/config, /admin/features: how everything is set and why; changes that are checked, kept and taken back."""

from __future__ import annotations

from typing import Any

from flask import Response

from faxbot import configuration
from faxbot.errors import ChangedMeanwhile, ChangeRefused, Forbidden, NotFound
from faxbot.web import api, config_schemas, problems
from faxbot.web.auth import actor, runtime

blueprint = api.Blueprint(
    "config", __name__, description="How everything is set and why; change it, and take it back."
)
_STATE = {200: api.answer(config_schemas.ConfigState, "Everything as it stands now.")}
_CHANGES = {200: api.answer(config_schemas.ConfigChanges, "What was changed, or would be.")}
_FEATURES = {200: api.answer(config_schemas.Features, "Every flag as it stands now.")}


@blueprint.operation("GET", "/admin/config", access="admin", answers=_STATE)
def read_config() -> Response:
    """See how everything is set

    Each option with its value and where that comes from: what is saved (`db`) goes before the environment, and that
    before the default.
    """
    return api.reply(problems.dumps(configuration.overview(runtime())))


@blueprint.operation(
    "PATCH",
    "/admin/config",
    access="admin",
    body=config_schemas.ConfigWish(),
    answers=_STATE,
    errors=(ChangeRefused, ChangedMeanwhile),
)
def change_config(wish: dict[str, Any]) -> Response:
    """Change settings

    All or nothing. It holds in every process within five seconds. A plugin whose settings change, or that becomes
    active, is asked first whether it works so.
    """
    seen, values = wish.pop("version"), wish.pop("settings")
    configuration.change(runtime(), actor(), values, seen=seen, **wish)
    return api.reply(problems.dumps(configuration.overview(runtime())))


@blueprint.operation(
    "GET",
    "/admin/config/backups",
    access="admin",
    answers={200: api.answer(config_schemas.Revisions, "The last 100, and every backup.")},
)
def list_config_backups() -> Response:
    """List the versions of the settings"""
    return api.reply(problems.dumps({"items": configuration.backups(runtime(), actor())}))


@blueprint.operation(
    "POST",
    "/admin/config/backups",
    access="admin",
    body=config_schemas.Why(),
    answers={200: api.answer(config_schemas.Revision, "The version that is kept.")},
)
def back_up_config(wish: dict[str, Any]) -> Response:
    """Keep what is saved now

    `note` is what it is called; it stays however much is changed later.
    """
    return api.reply(problems.dumps(configuration.backup(runtime(), actor(), wish["note"])))


@blueprint.operation(
    "POST",
    "/admin/config/rollback",
    access="admin",
    body=config_schemas.RollbackWish(),
    answers=_CHANGES,
    errors=(NotFound, ChangeRefused, ChangedMeanwhile),
)
def roll_back_config(wish: dict[str, Any]) -> Response:
    """Go back to a version

    What was saved then is saved again, as a new version.
    """
    return api.reply(problems.dumps(configuration.rollback(runtime(), actor(), **wish)))


@blueprint.operation(
    "GET",
    "/admin/config/export",
    access="admin",
    query=config_schemas.ExportQuery(),
    answers={200: api.answer(config_schemas.ConfigDocument, "What is saved.")},
    errors=(Forbidden,),
)
def export_config(query: dict[str, Any]) -> Response:
    """Export what is saved

    Secrets are masked, and stay as they are where such a document is imported.
    """
    return api.reply(problems.dumps(configuration.export(runtime(), actor(), **query)))


@blueprint.operation(
    "POST",
    "/admin/config/import",
    access="admin",
    body=config_schemas.ImportWish(),
    answers=_CHANGES,
    errors=(ChangeRefused, ChangedMeanwhile),
)
def import_config(wish: dict[str, Any]) -> Response:
    """Import an export

    All or nothing. What is not known, or looks like a person's data, is refused.
    """
    document = wish.pop("document")
    return api.reply(problems.dumps(configuration.restore(runtime(), actor(), document, **wish)))


@blueprint.operation("GET", "/admin/features", access="admin", answers=_FEATURES)
def list_features() -> Response:
    """List the flags, and what to mind about them"""
    return api.reply(problems.dumps({"items": configuration.features(runtime())}))


@blueprint.operation(
    "PATCH",
    "/admin/features",
    access="admin",
    body=config_schemas.FeatureWish(),
    answers=_FEATURES,
    errors=(ChangeRefused, ChangedMeanwhile),
)
def switch_features(wish: dict[str, Any]) -> Response:
    """Switch flags on or off"""
    seen, flags = wish.pop("version"), wish.pop("features")
    found = configuration.switch(runtime(), actor(), flags, seen=seen, **wish)
    return api.reply(problems.dumps({"items": found}))
