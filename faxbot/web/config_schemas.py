"""The shapes of /admin/config and /admin/features (see schemas)."""

from __future__ import annotations

import marshmallow as ma
from marshmallow import fields, validate

from faxbot.configuration import DB, DEFAULT, ENV, FORMAT, KIND
from faxbot.oversight import NOTE_LENGTH
from faxbot.web.schemas import printable, says

_SOURCE = fields.String(
    required=True,
    validate=validate.OneOf([DB, ENV, DEFAULT]),
    metadata=says("where the value comes from; `db`: it is saved", "env"),
)
_FIXED = fields.String(
    required=True,
    allow_none=True,
    metadata=says("why it is taken from the environment only; null where it can be saved"),
)
_UNTESTED = fields.Boolean(
    load_default=False,
    metadata=says("save it although a plugin does not work so, or was not asked", False),
)
_DRY_RUN = fields.Boolean(
    load_default=False, metadata=says("check everything and change nothing", False)
)
_SEEN = fields.Integer(
    strict=True,
    load_default=None,
    validate=validate.Range(min=0),
    metadata=says("the version that you have read: where another is the newest, it is a 409", 7),
)


class Setting(ma.Schema):
    """One option as it stands."""

    name = fields.String(required=True, metadata=says("its variable", "FAX_HEADER"))
    group = fields.String(required=True, metadata=says("what it is about", "Sending"))
    value = fields.Raw(
        required=True, allow_none=True, metadata=says("a secret that is set is masked", "Practice")
    )
    source = _SOURCE
    default = fields.Raw(required=True, allow_none=True, metadata=says("without any setting"))
    editable = fields.Boolean(required=True, metadata=says("whether it can be saved"))
    fixed = _FIXED
    secret = fields.Boolean(required=True)
    kind = fields.String(required=True, metadata=says("bool, int, float or str", "str"))
    help = fields.String(required=True, metadata=says("what it does"))
    feature = fields.String(
        required=True, allow_none=True, metadata=says("its name under /admin/features")
    )
    warning = fields.String(
        required=True, allow_none=True, metadata=says("what to mind about this very value")
    )
    fault = fields.String(
        required=True,
        allow_none=True,
        metadata=says("what is wrong with what is saved; then there is no value"),
    )


class SavedSetting(ma.Schema):
    """A saved setting of a plugin."""

    name = fields.String(required=True, metadata=says("plugin.key", "phaxio.baseUrl"))
    value = fields.Raw(required=True, allow_none=True, metadata=says("secrets are masked"))


class BrokenSetting(ma.Schema):
    """Something that is saved and does not count."""

    name = fields.String(required=True, metadata=says("option, plugin.key or plugin"))
    fault = fields.String(required=True, metadata=says("a sentence"))
    stops = fields.Boolean(
        required=True, metadata=says("whether a process that starts now cannot go by the settings")
    )


class ConfigState(ma.Schema):
    """How everything is set, and where each value comes from."""

    version = fields.Integer(required=True, metadata=says("counts the changes; 0: none yet", 7))
    using_environment = fields.Boolean(
        required=True, metadata=says("whether the database holds nothing", False)
    )
    notice = fields.String(
        required=True, allow_none=True, metadata=says("the same as a sentence for people")
    )
    items = fields.List(fields.Nested(Setting), required=True)
    plugins = fields.List(fields.Nested(SavedSetting), required=True)
    broken = fields.List(fields.Nested(BrokenSetting), required=True)


class Why(ma.Schema):
    """Why something is changed."""

    note = fields.String(
        required=True,
        validate=[validate.Length(1, NOTE_LENGTH), printable],
        metadata=says("why; it is kept with the version", "as on our paper"),
    )


class ConfigWish(Why):
    """Values that are to be saved."""

    settings = fields.Dict(
        keys=fields.String(validate=validate.Length(1, 128)),
        values=fields.Raw(allow_none=True),
        required=True,
        validate=validate.Length(1, 200),
        metadata=says(
            "values by name, options by variable and plugins' settings as plugin.key; null takes back what was "
            "saved, and ******** leaves a secret as it is",
            {"FAX_HEADER": "Practice"},
        ),
    )
    version = _SEEN
    untested = _UNTESTED


class Revision(ma.Schema):
    """A version of the settings that can be gone back to."""

    version = fields.Integer(required=True)
    saved_at = fields.AwareDateTime(required=True)
    actor = fields.String(required=True, metadata=says("who made it so", "cli"))
    note = fields.String(required=True, allow_none=True)
    names = fields.List(
        fields.String(), required=True, metadata=says("what was changed then", ["FAX_HEADER"])
    )
    backup = fields.String(
        required=True, allow_none=True, metadata=says("its name, where it is kept for good")
    )
    current = fields.Boolean(required=True, metadata=says("whether it is the newest"))


class Revisions(ma.Schema):
    """The versions that can be gone back to, newest first."""

    items = fields.List(fields.Nested(Revision), required=True)


class RollbackWish(Why):
    """Which version is to be gone back to."""

    version = fields.Integer(
        required=True,
        strict=True,
        validate=validate.Range(0, 2**53),
        metadata=says("0: nothing is saved, and the environment alone counts", 6),
    )
    dry_run = _DRY_RUN
    untested = _UNTESTED


class ExportQuery(ma.Schema):
    """How the export is wanted."""

    reveal = fields.Boolean(
        load_default=False,
        metadata=says("with the secrets in clear; needs the scope * and is written down", False),
    )


class ConfigDocument(ma.Schema):
    """What is saved, for /admin/config/import."""

    kind = fields.String(required=True, metadata=says("always `faxbot settings`"))
    format = fields.Integer(required=True)
    version = fields.Integer(required=True)
    exported_at = fields.AwareDateTime(required=True)
    redacted = fields.Boolean(required=True, metadata=says("whether secrets are masked"))
    options = fields.Dict(
        keys=fields.String(), values=fields.Raw(), required=True, metadata=says("by variable")
    )
    plugins = fields.Dict(
        keys=fields.String(),
        values=fields.Dict(keys=fields.String(), values=fields.Raw()),
        required=True,
        metadata=says("settings by a plugin's id and key"),
    )
    left_out = fields.List(
        fields.String(), required=True, metadata=says("names of what does not open or count")
    )


class ImportWish(Why):
    """A document that is to be saved."""

    document = fields.Raw(
        required=True,
        metadata=says(
            "as /admin/config/export gives it, or with fewer settings",
            {"kind": KIND, "format": FORMAT, "options": {"FAXBOT_MAX_PAGES": "100"}},
        ),
    )
    whole = fields.Boolean(
        load_default=False,
        metadata=says("take back what the document does not name; else that stays", False),
    )
    dry_run = _DRY_RUN
    untested = _UNTESTED


class ConfigChange(ma.Schema):
    """One value that is changed."""

    name = fields.String(required=True)
    was = fields.Raw(required=True, allow_none=True, metadata=says("null: it was not saved"))
    becomes = fields.Raw(required=True, allow_none=True, metadata=says("null: taken back"))


class ConfigChanges(ma.Schema):
    """What was changed, or would be; secrets are masked."""

    version = fields.Integer(required=True, metadata=says("the newest now"))
    dry_run = fields.Boolean(required=True)
    changes = fields.List(fields.Nested(ConfigChange), required=True)
    left_out = fields.List(
        fields.String(),
        required=True,
        metadata=says("what this faxbot does not know any more, and was not saved"),
    )


class Feature(ma.Schema):
    """A flag, and what to mind about it."""

    feature = fields.String(required=True, metadata=says("its name", "fax_disabled"))
    name = fields.String(required=True, metadata=says("its variable", "FAX_DISABLED"))
    enabled = fields.Boolean(required=True)
    default = fields.Boolean(required=True)
    source = _SOURCE
    editable = fields.Boolean(required=True)
    fixed = _FIXED
    help = fields.String(required=True)
    warning = fields.String(required=True, allow_none=True, metadata=says("a sentence"))
    warns = fields.Boolean(
        required=True, metadata=says("whether the warning is about its state now")
    )


class Features(ma.Schema):
    """Every flag."""

    items = fields.List(fields.Nested(Feature), required=True)


class FeatureWish(Why):
    """Flags that are to be switched."""

    features = fields.Dict(
        keys=fields.String(validate=validate.Length(1, 64)),
        values=fields.Boolean(truthy={True}, falsy={False}),
        required=True,
        validate=validate.Length(1, 50),
        metadata=says("true or false by the feature's name", {"fax_disabled": True}),
    )
    version = _SEEN
