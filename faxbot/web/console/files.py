"""What pages are made of beside HTML: style sheets and scripts, ours and Bootstrap's and htmx's, all from this server.

They are small and never change while a process lives: each is read, hashed and compressed once. The hash stands in its
address, so that a browser keeps it for good and asks for another one after an upgrade.

static/vendor holds, as published and with their licences: Bootstrap (MIT), whose forms, tables and colours hold WCAG AA
in light and dark, its style sheet alone; htmx (0BSD), with which a page sends forms and takes in answers without a
build step or a line of eval.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources

from flask import Response, request

from faxbot.errors import NotFound

FILES = {
    "bootstrap.css": ("vendor/bootstrap-5.3.9.min.css", "text/css"),
    "htmx.js": ("vendor/htmx-4.0.1.min.js", "text/javascript"),
    "console.css": ("console.css", "text/css"),
    "console.js": ("console.js", "text/javascript"),
    "theme.js": ("theme.js", "text/javascript"),
}
"""By the name in its address: where it lies in static/, and its type."""
PATH = "/admin/ui/static/"


@dataclass(frozen=True, slots=True)
class File:
    """One of FILES as it is served."""

    content: bytes
    compressed: bytes
    media_type: str
    version: str


@cache
def file(name: str) -> File:
    """One of FILES; raises KeyError."""
    place, media_type = FILES[name]
    content = resources.files("faxbot.web.static").joinpath(place).read_bytes()
    version = hashlib.sha256(content).hexdigest()[:16]
    packed = gzip.compress(content, 9, mtime=0)
    return File(content, packed, f"{media_type}; charset=utf-8", version)


def address(name: str) -> str:
    """Where a page finds it; raises KeyError."""
    return f"{PATH}{name}?{file(name).version}"


def serve(name: str) -> Response:
    """The answer to who asks for it; raises NotFound."""
    if name not in FILES:
        raise NotFound("there is no such file")
    found = file(name)
    packed = "gzip" in request.headers.get("Accept-Encoding", "")
    answer = Response(found.compressed if packed else found.content, content_type=found.media_type)
    answer.headers["Vary"] = "Accept-Encoding"
    if packed:
        answer.headers["Content-Encoding"] = "gzip"
    # Another version, as while servers are upgraded one by one, is not kept under this one's name.
    same = request.query_string.decode("latin-1") == found.version
    answer.headers["Cache-Control"] = "public, max-age=31536000, immutable" if same else "no-cache"
    return answer
