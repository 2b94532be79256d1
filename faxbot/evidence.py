"""What carriers said of a fax, word for word: the callbacks that were about it, opened for who may settle it.

Which they were is noted when they are applied (callbacks), also of those that nobody could read, by the address to
which they came. They hold numbers and free text: that somebody has seen them is written down.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from faxbot import audit, jobs, posted
from faxbot.actors import Actor
from faxbot.audit import Action
from faxbot.crypto import Unsealable
from faxbot.db import table
from faxbot.models import Callback, CallbackFax
from faxbot.results import stamp
from faxbot.runtime import Runtime

MOST = 50
"""Callbacks that are shown of one fax."""
LONGEST = 32 * 1024
"""Characters of one of them."""
HEADERS = ("content-type", "content-length", "date", "user-agent")
"""That tell something of the message; others prove it, or are secrets (Authorization)."""
LONGEST_HEADER = 255
BINARY, LARGE, GONE, SEALED = "binary", "large", "gone", "sealed"
"""Why a body is not shown."""
_KEPT = "\t\n\r"


def of_fax(runtime: Runtime, actor: Actor, job_id: str) -> dict[str, Any]:
    """{"items": what was said, newest first, "more": whether there was more}, as plain JSON types, and written down.
    Raises NotFound."""
    job = jobs.find(runtime, actor, job_id)
    found = runtime.database.rows(_OF_FAX, {"job_id": job.id})
    shown = [_shown(runtime, row) for row in found[:MOST]]
    audit.note(runtime, actor, Action.FAX_EVIDENCE_SHOWN, ("fax", job.id))
    return {"items": shown, "more": len(found) > MOST}


_CALLBACKS, _LINKS = table(Callback), table(CallbackFax)
# Without what they say: of that there is one at a time in memory.
_OF_FAX = (
    sa.select(*(each for each in _CALLBACKS.c if each.name != "raw_sealed"))
    .join(_LINKS, _LINKS.c.callback_id == _CALLBACKS.c.id)
    .where(_LINKS.c.job_id == sa.bindparam("job_id"))
    .order_by(_CALLBACKS.c.id.desc())
    .limit(MOST + 1)
)
_RAW = sa.select(_CALLBACKS.c.raw_sealed).where(_CALLBACKS.c.id == sa.bindparam("callback_id"))


def _shown(runtime: Runtime, callback: sa.Row[Any]) -> dict[str, Any]:
    return {
        "id": callback.id,
        "provider_id": callback.provider_id,
        "outcome": callback.outcome,
        "received_at": stamp(callback.received_at),
        "applied_at": stamp(callback.applied_at),
        **_said(runtime, callback.id),
    }


def _said(runtime: Runtime, callback_id: str) -> dict[str, Any]:
    nothing: dict[str, Any] = {
        "method": None, "path": None, "headers": {}, "content_type": None, "size_bytes": None,
        "body": None, "cut": False,
    }  # fmt: skip
    row = runtime.database.row(_RAW, {"callback_id": callback_id})
    if row is None:  # retention has removed it meanwhile
        return {**nothing, "not_shown": GONE}
    try:
        kept = posted.content(runtime, callback_id, row.raw_sealed)
    except Unsealable:
        return {**nothing, "not_shown": SEALED}
    headers = {
        name: _legible(kept.headers[name][:LONGEST_HEADER])
        for name in HEADERS
        if name in kept.headers
    }
    text, why = _text(kept)
    return {
        "method": kept.method,
        "path": _legible(kept.path[:LONGEST_HEADER]),
        "headers": headers,
        "content_type": headers.get("content-type"),
        "size_bytes": kept.size,
        "body": None if text is None else _legible(text[:LONGEST]),
        "cut": text is not None and len(text) > LONGEST,
        "not_shown": why,
    }


def _text(kept: posted.Content) -> tuple[str | None, str | None]:
    """The body as text, or why there is none."""
    if kept.body is None:
        return None, GONE if kept.size is None else LARGE
    try:
        text = kept.body.decode()
    except UnicodeDecodeError:
        return None, BINARY
    is_text = all(each >= " " or each in _KEPT for each in text)
    return (text, None) if is_text else (None, BINARY)


def _legible(text: str) -> str:
    """With what would steer a terminal, or turn the direction of the text, written as its code."""
    return "".join(
        each if each.isprintable() or each in _KEPT else each.encode("unicode_escape").decode()
        for each in text
    )
