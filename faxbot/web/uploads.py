"""Receiving a submitted form: fields into memory, documents into the spool, hashed and counted while they come in.

The limits hold for the bytes that arrive, whatever Content-Length says, so a file over the limit is refused in the
middle and never lies on the disk whole. Nothing a client wrote becomes part of a path.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge

from faxbot.config import Config
from faxbot.errors import DocumentTooLarge, InvalidFields, Malformed, MediaTypeRefused
from faxbot.spool import SpoolFile
from faxbot.web import multipart, patience, schemas
from faxbot.web.multipart import Part

FIELDS = ("to", "file", "send_at", "expires_at", "priority", "resolution", "header", "provider_id")
FIELD_BYTES = 64 * 1024
"""All text fields of a form together."""
MORE_PARTS = 32
"""Parts of a form beside its documents: the fields, and room for mistakes that deserve a better answer than 413."""
FORM_BYTES = 1024 * 1024
"""Everything of a form that is not a document: fields, heads of parts, what stands around them."""
_TAG = re.compile(r"tags\[([A-Za-z0-9._-]{1,64})\]")


@dataclass(slots=True)
class Form:
    """A received form: `values` by field (`tags` is a mapping), and the documents in their order."""

    values: dict[str, Any] = field(default_factory=dict, repr=False)
    files: list[SpoolFile] = field(default_factory=list)


@contextmanager
def received(request: Request, config: Config) -> Iterator[Form]:
    """The form in the request's body; its spooled files are gone when the block ends, however it ends.

    Raises Malformed, MediaTypeRefused, InvalidFields, DocumentTooLarge, and werkzeug's exception for 413.
    """
    if request.mimetype != "multipart/form-data":
        raise MediaTypeRefused("This address takes multipart/form-data.")
    if (request.content_length or 0) > config.max_bytes + FORM_BYTES:
        raise _too_large(config)
    request.max_content_length = config.max_bytes + FORM_BYTES
    form = Form()
    try:
        _read(
            reader(request),
            multipart.boundary(request.mimetype_params.get("boundary")),
            form,
            config,
        )
        yield form
    finally:
        for file in form.files:
            file.remove()


def _too_large(config: Config) -> DocumentTooLarge:
    return DocumentTooLarge(
        f"The documents have more than {config.max_file_size_mb} MB together (MAX_FILE_SIZE_MB)."
    )


def reader(request: Request) -> Callable[[int], bytes]:
    """read(size) of the request's body, which raises Malformed where it breaks off."""
    stream = request.stream

    def read(size: int) -> bytes:
        try:
            return stream.read(size)
        except patience.BROKEN as error:
            raise Malformed("The body ended too early or is framed wrongly.") from error

    return read


def _read(read: Callable[[int], bytes], boundary: bytes, form: Form, config: Config) -> None:
    room, field_room = config.max_bytes, FIELD_BYTES
    part, text, count = Part("", is_file=False), bytearray(), 0
    for piece in multipart.parts(read, boundary):
        if isinstance(piece, Part):
            _end(form, part, text)
            count += 1
            if count > config.max_documents + MORE_PARTS:
                raise RequestEntityTooLarge
            part, text = piece, bytearray()
            _begin(form, part, config)
        elif part.is_file:
            room -= len(piece)
            if room < 0:
                raise _too_large(config)
            form.files[-1].write(piece)
        else:
            field_room -= len(piece)
            if field_room < 0:
                raise RequestEntityTooLarge
            text += piece
    _end(form, part, text)


def _begin(form: Form, part: Part, config: Config) -> None:
    """Refuse a part that has no place in the form before its content is read; make room for a document."""
    if part.name == "file":
        if not part.is_file:
            raise InvalidFields(
                errors={"file": ["This is text, not a file: with curl, write -F file=@NAME."]}
            )
        if len(form.files) == config.max_documents:
            raise InvalidFields(
                errors={
                    "file": [f"At most {config.max_documents} documents (FAXBOT_MAX_DOCUMENTS)."]
                }
            )
        form.files.append(SpoolFile(config.spool_dir))
    elif part.name.startswith("tags["):
        match = _TAG.fullmatch(part.name)
        if match is None:
            raise InvalidFields(errors={"tags": [schemas.TAG_NAME]})
    elif part.name not in FIELDS:
        raise InvalidFields(
            errors={
                "unknown": [
                    f"There is an unknown field; known are {', '.join(FIELDS)} and tags[name]."
                ]
            }
        )
    elif part.is_file:
        raise InvalidFields(errors={part.name: ["This is a file, not text."]})


def _end(form: Form, part: Part, text: bytearray) -> None:
    """Keep what was read of a part."""
    if part.name == "file":
        form.values["file"] = form.files
    elif part.name:
        try:
            value = text.decode()
        except UnicodeDecodeError:
            raise Malformed("A field of the form is not UTF-8 text.") from None
        match = _TAG.fullmatch(part.name)
        target, name = (
            (form.values.setdefault("tags", {}), match[1]) if match else (form.values, part.name)
        )
        if name in target:
            raise InvalidFields(
                errors={"tags" if match else name: ["This is given more than once."]}
            )
        target[name] = value
