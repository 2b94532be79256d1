"""The multipart form of a callback, read as a stream: fields are held, files pass by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from multipart import MultipartSegment, PushMultipartParser, parse_options_header

from faxbot.plugins.base import CallbackRequest

FORM = "multipart/form-data"
MOST_PARTS = 64


def form_of(request: CallbackRequest) -> tuple[str, str]:
    """The media type of a request and its boundary, "" where there is none."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    return kind, options.get("boundary", "")


def events(request: CallbackRequest) -> Iterator[MultipartSegment | bytes | None]:
    """Of each part its head, its content in pieces, and None. Raises ValueError where there is no
    whole form, or one of too many parts."""
    _, boundary = form_of(request)
    parser = PushMultipartParser(boundary, max_segment_count=MOST_PARTS, strict=True)
    for chunk in request.chunks():
        yield from parser.parse(chunk)
    parser.close()  # raises for a form that does not end


def take_file(request: CallbackRequest, names: tuple[str, ...], target: BinaryIO) -> bool:
    """Write the content of the first file of one of these names into `target`; whether there is one.
    Raises ValueError as events() does, maybe after something was written."""
    found, taking = False, False
    for event in events(request):
        if isinstance(event, MultipartSegment):
            taking = not found and event.name in names and event.filename is not None
            found = found or taking
        elif event and taking:
            target.write(event)
    return found
