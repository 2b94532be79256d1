"""Callbacks as carriers sent them, kept as files: `sample_payloads/*.json` beside a plugin's module.

{"url": "https://fax.example.com/callbacks/acme?attempt=fb01&token=t",
 "headers": {"Content-Type": "application/json", "X-Acme-Signature": "..."},
 "body": "{...}",                        or "body_base64" for one that is no text
 "at": "2026-11-20T12:00:00+00:00",      the clock when it came; for proofs that grow old
 "settings": {"secret": "..."},          those of the account it came to, where they matter
 "updates": [{"state": "delivered"}]}    what must be read in it: state, cause, tag, external_id, pages_sent;
                                         of a received fax external_id, pages, cause, attached
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from faxbot.errors import PluginError
from faxbot.plugins.base import CallbackRequest


@dataclass(frozen=True, slots=True)
class Recorded:
    """One genuine callback. `updates` holds facts of each piece of news in it, by the names of
    plugins.base.Update, or of Arrival (None: not compared)."""

    name: str
    request: CallbackRequest = field(repr=False)
    updates: tuple[Mapping[str, Any], ...] | None = None
    at: datetime | None = None
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    document: bytes | None = field(default=None, repr=False)
    """Of a received fax, byte for byte (None: not compared)."""


def recorded_in(folder: Path) -> list[Recorded]:
    """The callbacks in a folder, by file name; raises PluginError that names a file which is not
    what it should be."""
    return [_read(path) for path in sorted(folder.glob("*.json"))]


def _read(path: Path) -> Recorded:
    try:
        content = json.loads(path.read_bytes())
        headers = {name.lower(): str(value) for name, value in content["headers"].items()}
        updates, at = content.get("updates"), content.get("at")
        return Recorded(
            path.name,
            CallbackRequest(content.get("method", "POST"), content["url"], headers, _body(content)),
            None if updates is None else tuple(dict(each) for each in updates),
            None if at is None else datetime.fromisoformat(at),
            dict(content.get("settings", {})),
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise PluginError(
            f"{path.name} is no recorded callback ({type(error).__name__}): "
            "it needs url, headers and body"
        ) from None


def _body(content: Mapping[str, Any]) -> bytes:
    if "body_base64" in content:
        return base64.b64decode(content["body_base64"], validate=True)
    return str(content["body"]).encode()
