"""The documents of a fax: fetched, their pages counted, kept as one PDF."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Sequence
from http.client import HTTPException
from urllib.parse import urlsplit

from faxbot.carriers.pages import Document, Unreadable, blank_pdf, inspect, inspect_pdf
from faxbot.carriers.sinch.numbers import UNREADABLE_PDF, UNREADABLE_TIFF, UNSUPPORTED, Error
from faxbot.carriers.sinch.submission import MAX_FILE_BYTES, File
from faxbot.carriers.timeline import basic

_FETCH_SECONDS = 10.0
_TYPES = {
    "application/pdf": "PDF",
    "image/tiff": "TIF",
    "image/jpeg": "JPG",
    "image/png": "PNG",
    "text/html": "HTML",
    "text/plain": "TXT",
}


def fetch(urls: Sequence[str]) -> list[File] | None:
    """What lies at every `contentUrl`, credentials in it used; None where one cannot be had."""
    files = [_fetched(url) for url in urls]
    return None if None in files else [file for file in files if file]


def _fetched(url: str) -> File | None:
    parts = urlsplit(url)
    credentials, _, address = parts.netloc.rpartition("@")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    asked = urllib.request.Request(  # noqa: S310 - checked when it was submitted
        parts._replace(netloc=address).geturl(), headers=basic(credentials)
    )
    try:
        with opener.open(asked, timeout=_FETCH_SECONDS) as answer:
            content = answer.read(MAX_FILE_BYTES + 1)
            kind = _TYPES.get(answer.headers.get_content_type(), "")
    except (OSError, HTTPException, ValueError):
        return None
    return File(kind, content) if len(content) <= MAX_FILE_BYTES else None


def render(files: Sequence[File]) -> tuple[int, Error | None, bytes]:
    """(pages, what was wrong, the PDF that is kept) of what came."""
    pages, fault = 0, None
    for file in files:
        counted, wrong = _pages_of(file)
        pages, fault = pages + counted, fault or wrong
    if len(files) == 1 and files[0].type == "PDF":
        return pages, fault, files[0].content
    return pages, fault, blank_pdf(pages)


def _pages_of(file: File) -> tuple[int, Error | None]:
    if file.type == "PDF":
        return _counted(inspect_pdf, file, UNREADABLE_PDF)
    if file.type == "TIF":
        return _counted(inspect, file, UNREADABLE_TIFF)
    if file.type in ("DOCX", "JPG", "TXT", "HTML", "PNG"):
        return 1, None
    return 0, UNSUPPORTED


def _counted(
    look: Callable[[bytes], Document], file: File, fault: Error
) -> tuple[int, Error | None]:
    try:
        return look(file.content).pages, None
    except Unreadable:
        return 0, fault
