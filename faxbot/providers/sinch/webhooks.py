"""What Sinch calls back, in every shape that its documents and SDKs have: multipart or JSON, the
event with or without JSON quotes, documents in `file`, in `files` or left out.

Documents are passed over: nothing of them is decoded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from faxbot.errors import OutcomeUnknown

INCOMING, COMPLETED = "INCOMING_FAX", "FAX_COMPLETED"
_MOST_PARTS = 32
_HEAD = re.compile(rb"[ \t]*\r?\n(.{1,4096}?)\r?\n\r?\n", re.DOTALL)
_NAME = re.compile(rb'[;\s]name="?([^";\r\n]+)', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Event:
    """One webhook: `name` as Sinch calls it, None where it does not; `fax` as described there, by
    nobody proven."""

    name: str | None
    fax: Mapping[str, Any]


def read(body: bytes) -> Event:
    """The event in a webhook's body; raises OutcomeUnknown where there is none that can be read.

    Multipart is told by its first line, as Sinch's Node SDK does it, and lines may end in LF alone
    as in that SDK's tests. (Sinch Fax OpenAPI, webhooks; sinch-sdk-node, callbacks-webhook.test.ts)
    """
    try:
        fields = _form(body) if body.startswith(b"--") else json.loads(body)
    except (ValueError, RecursionError):
        raise OutcomeUnknown("The callback cannot be read.") from None
    if not isinstance(fields, dict):
        raise OutcomeUnknown("The callback cannot be read.")
    name, fax = fields.get("event"), fields.get("fax")
    return Event(
        name if isinstance(name, str) else None,
        fax if isinstance(fax, dict) else {},
    )


def _form(body: bytes) -> dict[str, Any]:
    """The two parts that matter, `event` and `fax`; of repeated ones the first. Raises ValueError
    where one is not what it should be."""
    boundary = body.partition(b"\n")[0].rstrip()
    fields: dict[str, Any] = {}
    for part in (b"\n" + body).split(b"\n" + boundary, _MOST_PARTS)[1:]:
        head = _HEAD.match(part)
        name = _NAME.search(head[1]) if head else None
        if head is None or name is None:
            continue
        content = part[head.end() :].strip
        if name[1] == b"fax":
            fields.setdefault("fax", json.loads(content()))
        elif name[1] == b"event":
            fields.setdefault("event", _unquoted(content().decode()))
    return fields


def _unquoted(word: str) -> Any:
    return json.loads(word) if word.startswith('"') else word
