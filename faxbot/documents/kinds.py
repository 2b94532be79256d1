"""Tells by its content what a document is; names and claimed types are never asked."""

from __future__ import annotations

from pathlib import Path

from faxbot.errors import DocumentUnreadable, DocumentUnsupported

PDF, TIFF, PNG, JPEG, TEXT = (
    "application/pdf",
    "image/tiff",
    "image/png",
    "image/jpeg",
    "text/plain",
)

HEAD = 1024
_BEGINNINGS = (
    (b"%PDF-", PDF),
    (b"II*\0", TIFF),
    (b"MM\0*", TIFF),
    (b"II+\0", TIFF),  # BigTIFF: refused by its reader, with a sentence of its own
    (b"MM\0+", TIFF),
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"\xff\xd8\xff", JPEG),
)
_REFUSED = (
    (b"PK\x03\x04", "This is a ZIP file or an Office document; save it as PDF and send that."),
    (b"\xd0\xcf\x11\xe0", "This is an Office document; save it as PDF and send that."),
    (b"GIF8", "GIF pictures cannot be faxed; save it as PNG or PDF and send that."),
    (b"BM", "BMP pictures cannot be faxed; save it as PNG or PDF and send that."),
    (b"RIFF", "WebP pictures cannot be faxed; save it as PNG or PDF and send that."),
    (b"\xff\xfe", "This text is UTF-16; save it as UTF-8 and send that."),
    (b"\xfe\xff", "This text is UTF-16; save it as UTF-8 and send that."),
)
# Markup is text too, but nobody wants its source on paper.
_MARKUP = (
    (b"<!doctype html", "HTML"), (b"<html", "HTML"), (b"<?xml", "XML"), (b"<svg", "SVG"),
    (b"{\\rtf", "RTF"), (b"%!ps", "PostScript"),
)  # fmt: skip


def kind(path: str) -> str:
    """The media type of the file at `path`; `text/plain` stands for "text, if it decodes".

    Raises DocumentUnreadable for an empty file, DocumentUnsupported for what is known and cannot be
    faxed.
    """
    with Path(path).open("rb") as file:
        head = file.read(HEAD)
    if not head:
        raise DocumentUnreadable("The file is empty.")
    for beginning, media_type in _BEGINNINGS:
        if head.startswith(beginning):
            return media_type
    # A mail gateway or a scanner may put lines first; PDF readers look through the first kilobyte.
    if b"\n%PDF-" in head:
        return PDF
    _refuse(head)
    return TEXT


def _refuse(head: bytes) -> None:
    for beginning, sentence in _REFUSED:
        if head.startswith(beginning) and not _plain(head):
            raise DocumentUnsupported(sentence)
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for beginning, name in _MARKUP:
        if start.startswith(beginning):
            raise DocumentUnsupported(f"{name} cannot be faxed; save it as PDF and send that.")


def _plain(head: bytes) -> bool:
    """Whether this is printable ASCII: a note may well begin with BM or RIFF."""
    return all(32 <= byte < 127 or byte in b"\t\n\f\r" for byte in head)
