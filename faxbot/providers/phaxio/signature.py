"""What Phaxio posts to us, read once: the fields and files of a form, and the signature over all of
them.

The scheme is that of phaxio.com/docs/security/callbacks. It does not say what a name that comes
twice means, so such a form is refused.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from multipart import MultipartSegment, PushMultipartParser, parse_options_header

from faxbot.plugins.base import CallbackRequest

MOST_PARTS = 64
LARGEST_FIELD = 1024 * 1024
"""Bytes of one field; a fax object with one recipient has less than two thousand. Files may be
larger, as core lets in what it lets in."""


@dataclass(frozen=True, slots=True)
class Form:
    """`fields`: content by name, as it came; `files`: hex SHA-1 of the content by name."""

    fields: Mapping[bytes, bytes]
    files: Mapping[bytes, str]


def read(request: CallbackRequest) -> Form:
    """The form in a request: multipart/form-data as Phaxio sends it, or urlencoded. Raises
    ValueError where there is none, where a name comes twice, or where it is too large."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind == "multipart/form-data":
        parts = _multipart(request.body, options.get("boundary", ""))
    elif kind == "application/x-www-form-urlencoded":
        parts = _urlencoded(request.body)
    else:
        raise ValueError("no form")
    fields: dict[bytes, bytes] = {}
    files: dict[bytes, str] = {}
    for name, content in parts:
        if name in fields or name in files:
            raise ValueError("a name twice")
        if isinstance(content, str):
            files[name] = content
        else:
            fields[name] = content
    return Form(fields, files)


def sign(token: str, url: str, form: Form) -> str:
    """The lower-case hex HMAC-SHA1 of a callback: over the address as it was submitted, each field's
    name and content, each file's name and SHA-1; both in the order of their names' bytes."""
    mac = hmac.new(token.encode(), url.encode(errors="backslashreplace"), hashlib.sha1)
    for name, content in sorted(form.fields.items()):
        mac.update(name)
        mac.update(content)
    for name, digest in sorted(form.files.items()):
        mac.update(name)
        mac.update(digest.encode())
    return mac.hexdigest()


Part = tuple[bytes, bytes | str]
"""The name of a field and its content, or of a file and its SHA-1."""


def _multipart(body: bytes, boundary: str) -> Iterator[Part]:
    """A part with a file name is a file, whatever its type: Phaxio's own examples type the field
    `fax` as application/json."""
    parser = PushMultipartParser(boundary, max_segment_count=MOST_PARTS, strict=True)
    head: MultipartSegment | None = None
    content: list[bytes] = []
    # The whole body in one piece: each part is then cut out of it once.
    for event in parser.parse(body):
        if isinstance(event, MultipartSegment):
            head, content = event, []
        elif event:
            content.append(event)
        else:
            yield _part(head, b"".join(content))
    parser.close()  # raises for a form that does not end


def _part(head: MultipartSegment, content: bytes) -> Part:
    name = head.name.encode()
    if head.filename is not None:
        return name, hashlib.sha1(content, usedforsecurity=False).hexdigest()
    if len(content) > LARGEST_FIELD:
        raise ValueError("a field is too large")
    return name, content


def _urlencoded(body: bytes) -> Iterator[Part]:
    if len(body) > LARGEST_FIELD:
        raise ValueError("a form is too large")
    pairs = body.split(b"&", MOST_PARTS)
    if len(pairs) > MOST_PARTS:
        raise ValueError("too many fields")
    for pair in pairs:
        name, _, content = pair.replace(b"+", b" ").partition(b"=")
        yield unquote_to_bytes(name), unquote_to_bytes(content)
