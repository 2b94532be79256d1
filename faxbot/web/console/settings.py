"""Settings: every option with its value and where that comes from; changed, taken back, and gone back to."""

from __future__ import annotations

import json
from itertools import groupby
from typing import Any

import marshmallow as ma
from flask import Response, request
from marshmallow import fields, validate

from faxbot import configuration
from faxbot.config import BY_NAME
from faxbot.errors import InvalidFields, NotFound
from faxbot.options import Option
from faxbot.oversight import NOTE_LENGTH
from faxbot.web import config_schemas, problems, schemas
from faxbot.web.auth import actor, runtime
from faxbot.web.console import frame

pages = frame.Pages("settings", __name__)

_SAVED = "Saved. Every process goes by it within five seconds."
_LOOK = "look what would change"
"""The reason of a comparison, which is written down nowhere."""


class _Wish(config_schemas.Why):
    """Why, over which version that was read, and whether a plugin need not work so."""

    seen = schemas.Count(load_default=None)
    untested = fields.Boolean(load_default=False)


class _Document(ma.Schema):
    """A document that somebody brings."""

    document = fields.String(required=True)
    whole = fields.Boolean(load_default=False)


class _Import(_Wish, _Document):
    """The same, to be saved."""


class _Version(ma.Schema):
    """A version in an address."""

    version = schemas.Count(required=True, validate=validate.Range(min=0))


@pages.page("/settings", access="admin")
def list_settings() -> Response:
    """Every option."""
    stand = configuration.overview(runtime())
    groups = groupby(stand["items"], key=lambda one: one["group"])
    return frame.show(
        "settings.html",
        stand=stand,
        groups=[(word, list(options)) for word, options in groups],
        changeable={name for name, one in BY_NAME.items() if one.editable and frame.may(one.scope)},
        plugins=_by_plugin(stand["plugins"]),
    )


def _by_plugin(saved: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    groups = groupby(saved, key=lambda one: one["name"].rpartition(".")[0])
    return [(plugin_id, list(some)) for plugin_id, some in groups]


@pages.page("/settings/<name>/edit", access="admin")
def edit_setting(name: str) -> Response:
    """What is asked about one of them."""
    _known(name)
    stand = configuration.overview(runtime())
    (one,) = (each for each in stand["items"] if each["name"] == name)
    return frame.show(
        "setting.html",
        one=one,
        mind=BY_NAME[name].warning,
        seen=stand["version"],
        note_length=NOTE_LENGTH,
    )


@pages.deed("/settings/<name>", access="admin")
def change_setting(name: str) -> Response:
    """Save it."""
    option = _known(name)
    wish = frame.checked(_Wish(), request.form, name)
    value = request.form.get(name, "")
    if option.secret and not value:
        return frame.done("It stays as it is.")
    configuration.change(runtime(), actor(), {name: value}, **wish)
    return frame.done(_SAVED)


@pages.deed("/settings/<name>/unset", access="admin")
def unset_setting(name: str) -> Response:
    """Take back what was saved of it."""
    _known(name)
    wish = frame.checked(_Wish(), request.form)
    configuration.change(runtime(), actor(), {name: None}, **wish)
    return frame.done("Taken back: the environment counts again, or the default.")


def _known(name: str) -> Option:
    if name not in BY_NAME:
        raise NotFound("there is no such option")
    return BY_NAME[name]


# Versions -----------------------------------------------------------------------------------------------


@pages.page("/settings/versions", access="admin")
def list_versions() -> Response:
    """The versions that can be gone back to."""
    return frame.show(
        "versions.html",
        versions=configuration.backups(runtime(), actor()),
        note_length=NOTE_LENGTH,
    )


@pages.deed("/settings/versions", access="admin")
def keep_version() -> Response:
    """Keep what is saved now, under a name."""
    wish = frame.checked(config_schemas.Why(), request.form)
    configuration.backup(runtime(), actor(), wish["note"])
    return frame.done("Kept: it stays, however much is changed later.")


@pages.page("/settings/versions/<version>", access="admin")
def compare_version(version: str) -> Response:
    """What would change if one went back to it."""
    number = _number(version)
    found = configuration.rollback(
        runtime(), actor(), number, note=_LOOK, dry_run=True, untested=True
    )
    return _changes(found, title=f"Go back to version {number}", action=f"versions/{number}")


@pages.deed("/settings/versions/<version>", access="admin")
def roll_back(version: str) -> Response:
    """Go back to it."""
    wish = frame.checked(_Wish(), request.form)
    found = configuration.rollback(runtime(), actor(), _number(version), **wish)
    return frame.done(f"Gone back; this is version {found['version']}.")


def _number(version: str) -> int:
    return int(schemas.load(_Version(), {"version": version})["version"])


def _changes(found: dict[str, Any], **view: Any) -> Response:
    return frame.show("changes.html", found=found, note_length=NOTE_LENGTH, **view)


# Documents ----------------------------------------------------------------------------------------------


@pages.page("/settings/export", access="admin")
def export_settings() -> Response:
    """What is saved, as a file without secrets."""
    document = configuration.export(runtime(), actor())
    name = f"faxbot-settings-{document['version']}.json"
    return frame.download(problems.dumps(document), "application/json", name)


@pages.deed("/settings/import/compare", access="admin")
def compare_import() -> Response:
    """What a document would change."""
    wish = frame.checked(_Document(), request.form)
    found = configuration.restore(
        runtime(),
        actor(),
        _read(wish["document"]),
        note=_LOOK,
        dry_run=True,
        untested=True,
        whole=wish["whole"],
    )
    return frame.ask(_changes(found, title="Import", action="import", brought=wish))


@pages.deed("/settings/import", access="admin")
def import_settings() -> Response:
    """Save what it says."""
    wish = frame.checked(_Import(), request.form)
    document = _read(wish.pop("document"))
    configuration.restore(runtime(), actor(), document, **wish)
    return frame.done(_SAVED)


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidFields(errors={"document": ["It is not JSON."]}) from None
