"""The documents of a fax: fetched, looked at, shown as PDF.

PDF, text and HTML are known to be taken; what else the vendor takes is not published, and fails
here as it says of an unsupported type: accepted, then documentConversionError 128.
"""

from __future__ import annotations

import hashlib
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException

from faxbot.carriers.ledger import Fax
from faxbot.carriers.pages import PDF, Unreadable, inspect_pdf
from faxbot.carriers.phaxio import numbers
from faxbot.carriers.phaxio.details import doom

MAX_DOCUMENT = 32 * 1024 * 1024
_FETCH_SECONDS = 10.0
_TEXTS = ("text/plain", "text/html")


def measure(fax: Fax, documents: Sequence[tuple[str, bytes]]) -> None:
    """Note what its documents are; one that is not readable lets it fail."""
    content = b"".join(content for _, content in documents)
    fax.size, fax.sha256 = len(content), hashlib.sha256(content).hexdigest()
    fax.media_type = documents[0][0] if documents else ""
    fax.pages = 0
    for media_type, each in documents:
        try:
            fax.pages += 1 if media_type in _TEXTS else inspect_pdf(each).pages
        except Unreadable:
            unsupported = media_type != PDF or not each.startswith(b"%PDF-")
            doom(fax, numbers.UNSUPPORTED if unsupported else numbers.UNREADABLE)


def fetch(url: str) -> tuple[str, bytes] | None:
    """What lies at a `content_url` (media type, content); None where that cannot be had."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_FETCH_SECONDS) as answer:
            content = answer.read(MAX_DOCUMENT + 1)
            media_type = answer.headers.get_content_type()
    except (OSError, HTTPException, ValueError):
        return None
    return (media_type, content) if len(content) <= MAX_DOCUMENT else None
