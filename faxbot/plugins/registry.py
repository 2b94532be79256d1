"""The registry: plugins that somebody has looked at, and, where an installation names one of its own
(FAXBOT_PLUGIN_REGISTRY), the only ones that are admitted.

A registry is a JSON file: {"plugins": [{id, name, package, version, sha256?, categories?, hipaa?,
docs?}]}. `sha256` is that of the plugin's own files (digest()), so that what runs is what was
looked at.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from faxbot.errors import ConfigError, PluginError


@dataclass(frozen=True, slots=True)
class Entry:
    """One plugin of a registry; `sha256` is empty where any version of its files will do."""

    id: str
    name: str
    package: str
    version: str = ""
    sha256: str = ""
    categories: tuple[str, ...] = ()
    hipaa: Mapping[str, bool] = field(default_factory=dict)
    docs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Registry:
    """The entries of a registry by plugin id; `closed` where nothing else is admitted."""

    entries: Mapping[str, Entry]
    closed: bool

    def admit(self, plugin_id: str, package: str, module: Path) -> None:
        """Raise PluginError where this installation admits only what its registry names, and that
        is not this plugin, of this package, with the files of this module."""
        if not self.closed:
            return
        entry = self.entries.get(plugin_id)
        if entry is None:
            raise PluginError("it is not in the registry of this installation")
        if entry.package != package:
            raise PluginError(f"the registry of this installation has it from {entry.package!r}")
        if entry.sha256 and digest(module) != entry.sha256:
            raise PluginError("its files are not those of the registry (sha256)")

    def listed(self, *, category: str | None = None, hipaa_only: bool = False) -> list[Entry]:
        """Its entries by id: of one category, or only those that say they fit HIPAA."""
        return [
            entry
            for _, entry in sorted(self.entries.items())
            if category in (None, *entry.categories)
            and (not hipaa_only or entry.hipaa.get("compliant") is True)
        ]


OPEN = Registry({}, closed=False)
"""Keeps nobody out."""


def load(path: str) -> Registry:
    """The registry in this file, which then is the only way in; "": the one that faxbot brings,
    which keeps nobody out. Raises ConfigError."""
    if not path:
        return _ours()
    try:
        content = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise ConfigError(
            f"FAXBOT_PLUGIN_REGISTRY: the file cannot be read: {error.strerror}"
        ) from None
    except (ValueError, RecursionError):
        raise ConfigError("FAXBOT_PLUGIN_REGISTRY: the file is not JSON") from None
    return Registry(_entries(content), closed=True)


@cache
def _ours() -> Registry:
    ours = resources.files("faxbot.plugins").joinpath("registry.json").read_bytes()
    return Registry(_entries(json.loads(ours)), closed=False)


def _entries(content: Any) -> dict[str, Entry]:
    fault = best_match(_SCHEMA.iter_errors(content))
    if fault is not None:
        place = ".".join(str(step) for step in fault.absolute_path) or "its top level"
        raise ConfigError(f"FAXBOT_PLUGIN_REGISTRY is wrong at {place}: {fault.message[:160]}")
    entries = [
        Entry(**{**plugin, "categories": tuple(plugin.get("categories", ()))})
        for plugin in content["plugins"]
    ]
    return {entry.id: entry for entry in entries}


_NAME = {"type": "string", "minLength": 1, "maxLength": 64}
_SCHEMA = Draft202012Validator(
    {
        "type": "object",
        "required": ["plugins"],
        "additionalProperties": False,
        "properties": {
            "plugins": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["id", "name", "package"],
                    "additionalProperties": False,
                    "properties": {
                        "id": _NAME,
                        "name": _NAME,
                        "package": _NAME,
                        "version": {"type": "string", "maxLength": 64},
                        "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
                        "categories": {"type": "array", "items": _NAME},
                        "hipaa": {
                            "type": "object",
                            "additionalProperties": {"type": "boolean"},
                        },
                        "docs": {"type": "object", "additionalProperties": {"type": "string"}},
                    },
                },
            }
        },
    }
)


def digest(module: Path) -> str:
    """SHA-256 in hex over the names and contents of a plugin's own files: of the package that this
    module is in, or, where it is in none, of the module and the manifest beside it; without what
    Python compiles there. Raises PluginError where they cannot be read."""
    folder = module.parent
    in_package = (folder / "__init__.py").exists()
    total = hashlib.sha256()
    try:
        files = _files(folder) if in_package else [module, folder / "manifest.json"]
        for path in sorted(files):
            name = path.relative_to(folder).as_posix().encode()
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").digest()
            total.update(len(name).to_bytes(4, "big") + name + content)
    except OSError as error:
        raise PluginError(f"its files cannot be read: {error.strerror}") from None
    return total.hexdigest()


def _files(folder: Path) -> Iterable[Path]:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            if path.name != "__pycache__":
                yield from _files(path)
        elif path.is_file():
            yield path
        else:  # Python follows a link to a folder; a pipe would be read for ever
            raise PluginError(
                f"{path.name} in its package is neither a file nor a folder of its own"
            )
