"""multipart/form-data (RFC 7578) read once, in pieces: a library parses it, and what it leaves open is refused here.

The library is PyPI's `multipart` (not `python-multipart`, which takes the same import name). Where two readers could
understand one form in two ways, a filter in front of us and we ourselves might: a part has each header once, its
Content-Disposition each parameter once and by the book, and the body begins with its boundary.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from multipart import (
    MultipartError,
    MultipartSegment,
    PushMultipartParser,
    StrictParserError,
    content_disposition_unquote,
)

from faxbot.errors import Malformed

PIECE = 64 * 1024
MAX_HEADER = 4 * 1024
"""Bytes of one header of a part; it may have eight."""
_BOUNDARY = re.compile(
    r"[0-9A-Za-z'()+_,./:=? -]{0,1023}[0-9A-Za-z'()+_,./:=?-]"
)  # RFC 2046 section 5.1.1, but for the length: the library takes 1024
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_PARAMETER = r"""[ \t]*;[ \t]*([\w!#$%&'*+.^`|~-]+)=("(?:[^"\\]|\\.)*"|[\w!#$%&'*+.^`|~-]+)"""
_DISPOSITION = re.compile(f"form-data(?:{_PARAMETER})*[ \t]*", re.ASCII | re.IGNORECASE)
_PARAMETERS = re.compile(_PARAMETER, re.ASCII)


@dataclass(frozen=True, slots=True)
class Part:
    """The head of one part. `is_file`: it has a file name or a type of its own; the file's name is dropped here."""

    name: str
    is_file: bool


def boundary(value: str | None) -> bytes:
    """The boundary of a Content-Type, ready for parts(); raises Malformed when it is missing or not one."""
    if value is None or not _BOUNDARY.fullmatch(value):
        raise Malformed("The Content-Type has no usable multipart boundary.")
    return value.encode("ascii")


def parts(read: Callable[[int], bytes], boundary: bytes) -> Iterator[Part | bytes]:
    """Each part's head, then its content in pieces; raises Malformed where the body is not multipart/form-data.

    `read(size)` gives at most `size` bytes, none at the end of the body.
    """
    parser = PushMultipartParser(boundary, strict=True, max_header_size=MAX_HEADER)
    try:
        data = _beginning(read, b"--" + boundary)
        while data:
            for event in parser.parse(data):
                if isinstance(event, MultipartSegment):
                    yield _part(event)
                elif event:
                    yield event
            data = read(PIECE)
        parser.close()
    except StrictParserError as error:
        _after(parser, error)
        while read(PIECE):
            pass
    except MultipartError as error:
        raise _broken(error) from None


def _beginning(read: Callable[[int], bytes], delimiter: bytes) -> bytes:
    """The first bytes of the body, which are its boundary; some clients put an empty line before it."""
    data = read(PIECE)
    while len(data) < len(delimiter) + 2 and (more := read(PIECE)):
        data += more
    if data and not data.removeprefix(b"\r\n").startswith(delimiter):
        raise Malformed("The multipart body does not begin with its boundary.")
    return data


def _after(parser: PushMultipartParser, error: StrictParserError) -> None:
    """Something follows the last boundary, usually a line end that came late: it means nothing."""
    try:
        parser.close()  # raises unless the form had ended
    except MultipartError:
        raise _broken(error) from None


def _broken(error: MultipartError) -> Malformed:
    return Malformed(f"The multipart body cannot be read: {error.args[0]}.")


def _part(segment: MultipartSegment) -> Part:
    headers = dict(segment.headerlist)
    if len(headers) < len(segment.headerlist):
        raise Malformed("A part of the form has a header twice.")
    if any(_CONTROL.search(value) for value in headers.values()):
        raise Malformed("A part's header has a control character or a bare line end in it.")
    if headers.get("Content-Transfer-Encoding", "binary").lower() not in ("binary", "8bit", "7bit"):
        raise Malformed(
            "A part has a Content-Transfer-Encoding: send it as it is (RFC 7578 section 4.7)."
        )
    names = _names(headers["Content-Disposition"])
    media_type = headers.get("Content-Type", "text/plain").partition(";")[0].strip().lower()
    is_file = "filename" in names or "filename*" in names or media_type != "text/plain"
    return Part(names["name"], is_file)


def _names(disposition: str) -> dict[str, str]:
    """The parameters of a Content-Disposition; there is a `name`."""
    if not _DISPOSITION.fullmatch(disposition):
        raise Malformed("A part's Content-Disposition is not form-data or cannot be read.")
    given = [(name.lower(), value) for name, value in _PARAMETERS.findall(disposition)]
    names = {name: content_disposition_unquote(value) for name, value in given}
    if len(names) < len(given):
        raise Malformed("A part's Content-Disposition has a parameter twice.")
    if "name" not in names or "name*" in names:
        raise Malformed("A part's Content-Disposition has no plain name (RFC 7578 section 4.2).")
    return names
