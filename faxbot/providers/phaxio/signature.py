"""What Phaxio posts to us, read once as a stream: the fields and files of a form, and the signature
over all of them.

The scheme is that of phaxio.com/docs/security/callbacks. It does not say what a name that comes
twice means, so such a form is refused.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from multipart import MultipartSegment

from faxbot.plugins.base import CallbackRequest
from faxbot.providers import parts

LARGEST_FIELD = 1024 * 1024
"""Bytes of all fields together; a fax object with one recipient has less than two thousand. Files
may be larger, as core lets in what it lets in: they are hashed while they pass."""
DOCUMENTS = ("file", "filename")
"""The file part of a received fax, in versions 2 and 2.1, and in 1."""
_EMPTY = hashlib.sha1(usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class Form:
    """`fields`: content by name, as it came; `files`: hex SHA-1 of the content by name."""

    fields: Mapping[bytes, bytes]
    files: Mapping[bytes, str]

    @property
    def has_document(self) -> bool:
        """Whether a document came with it."""
        return any(self.files.get(name.encode(), _EMPTY) != _EMPTY for name in DOCUMENTS)


def read(request: CallbackRequest) -> Form:
    """The form in a request: multipart/form-data as Phaxio sends it, or urlencoded. Raises
    ValueError where there is none, where a name comes twice, or where it is too large."""
    kind, _ = parts.form_of(request)
    if kind == parts.FORM:
        found = _multipart(request)
    elif kind == "application/x-www-form-urlencoded":
        found = _urlencoded(request)
    else:
        raise ValueError("no form")
    fields: dict[bytes, bytes] = {}
    files: dict[bytes, str] = {}
    for name, content in found:
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


def _multipart(request: CallbackRequest) -> Iterator[Part]:
    """A part with a file name is a file, whatever its type: Phaxio's own examples type the field
    `fax` as application/json."""
    name, is_file, room = b"", False, LARGEST_FIELD
    content, digest = bytearray(), hashlib.sha1(usedforsecurity=False)
    for event in parts.events(request):
        if isinstance(event, MultipartSegment):
            name, is_file = event.name.encode(), event.filename is not None
            content, digest = bytearray(), hashlib.sha1(usedforsecurity=False)
        elif event is None:
            yield name, digest.hexdigest() if is_file else bytes(content)
        elif is_file:
            digest.update(event)
        else:
            room -= len(event)
            if room < 0:
                raise ValueError("a field is too large")
            content += event


def _urlencoded(request: CallbackRequest) -> Iterator[Part]:
    body = bytearray()
    for chunk in request.chunks():
        body += chunk
        if len(body) > LARGEST_FIELD:
            raise ValueError("a form is too large")
    pairs = bytes(body).split(b"&", parts.MOST_PARTS)
    if len(pairs) > parts.MOST_PARTS:
        raise ValueError("too many fields")
    for pair in pairs:
        name, _, content = pair.replace(b"+", b" ").partition(b"=")
        yield unquote_to_bytes(name), unquote_to_bytes(content)
