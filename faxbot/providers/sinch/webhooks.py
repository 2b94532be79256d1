"""What Sinch calls back, in every shape that its documents and SDKs have: multipart or JSON, the
event with or without JSON quotes, documents in `file`, in `files` or left out.

Nothing of it is proven but that it came with our credentials.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any, BinaryIO

from faxbot.errors import OutcomeUnknown
from faxbot.plugins.base import CallbackRequest
from faxbot.providers.facts import moment
from faxbot.providers.sinch.bodies import LARGEST_NEWS, Base64, Head, News, form

INCOMING, COMPLETED = "INCOMING_FAX", "FAX_COMPLETED"
_FILE = b"file"


@dataclass(frozen=True, slots=True)
class Event:
    """One webhook: `name` as Sinch calls it, None where it does not; `fax` as described there, by
    nobody proven; when it says that this happened, and how many documents came with it."""

    name: str | None
    fax: Mapping[str, Any]
    at: datetime | None = None
    documents: int = 0


def read(request: CallbackRequest) -> Event:
    """The event in a webhook; raises OutcomeUnknown where there is none that can be read.

    Multipart is told by its first line, as Sinch's Node SDK does it. Documents are passed over:
    nothing of them is decoded. (Sinch Fax OpenAPI, webhooks; sinch-sdk-node, callbacks-webhook.test.ts)
    """
    chunks, is_form = _chunks(request)
    try:
        fields, documents = _form(chunks) if is_form else _json(chunks)
    except (ValueError, RecursionError):
        raise OutcomeUnknown("The callback cannot be read.") from None
    if not isinstance(fields, dict):
        raise OutcomeUnknown("The callback cannot be read.")
    name, fax = fields.get("event"), fields.get("fax")
    return Event(
        name if isinstance(name, str) else None,
        fax if isinstance(fax, dict) else {},
        moment(fields.get("eventTime")),
        documents,
    )


def save(request: CallbackRequest, target: BinaryIO) -> bool:
    """Write the document in a webhook into `target`; whether there is a whole one."""
    chunks, is_form = _chunks(request)
    try:
        if is_form:
            return _save_part(chunks, target)
        decoder = Base64(target.write)
        news = News(decoder.feed)
        for chunk in chunks:
            news.feed(chunk)
        decoder.close()
        return bool(news.text and news.documents)
    except ValueError:
        return False


def _chunks(request: CallbackRequest) -> tuple[Iterator[bytes], bool]:
    """The body, and whether it is a form."""
    chunks = request.chunks()
    first = next(chunks, b"")
    return chain((first,), chunks), first.startswith(b"--")


def _json(chunks: Iterator[bytes]) -> tuple[Any, int]:
    news = News()
    for chunk in chunks:
        news.feed(chunk)
    return json.loads(news.text), news.documents


_FIELDS = (b"event", b"eventTime", b"fax")


def _form(chunks: Iterator[bytes]) -> tuple[dict[str, Any], int]:
    """The parts that matter, of repeated ones the first, and how many documents there were. Raises
    ValueError where one is not what it should be."""
    texts: dict[bytes, bytearray] = {}
    documents, size, room, name = 0, 0, LARGEST_NEWS, b""
    into: bytearray | None = None
    for event in form(chunks):
        if isinstance(event, Head):
            name, size, into = event.name, 0, None
            if name in _FIELDS and name not in texts:
                into = texts[name] = bytearray()
        elif event is None:
            documents += name == _FILE and size > 0
        else:
            size += len(event)
            if into is not None:
                room -= len(event)
                if room < 0:
                    raise ValueError("a field is too large")
                into += event
    fields = {
        each.decode(): json.loads(text) if each == b"fax" else _unquoted(text.decode().strip())
        for each, text in texts.items()
    }
    return fields, documents


def _save_part(chunks: Iterator[bytes], target: BinaryIO) -> bool:
    taking = False
    for event in form(chunks):
        if isinstance(event, Head):
            taking = event.name == _FILE
        elif event is None and taking:
            return True
        elif event and taking:
            target.write(event)
    return False


def _unquoted(word: str) -> Any:
    return json.loads(word) if word.startswith('"') else word
