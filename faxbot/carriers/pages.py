"""What a carrier sees in a document: whether it is a whole TIFF or PDF, and its pages, counted
without rendering anything.

TIFF 6.0 is walked from one image file directory to the next, and every strip must lie within the
file, so a document that was cut off on its way is noticed. Of a PDF the page objects are counted,
also inside compressed object streams (ISO 32000-1, 7.5.7), and its end must be there. What a
carrier shows of a document that it has not as PDF, or makes up, is blank_pdf().
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

TIFF = "image/tiff"
PDF = "application/pdf"

_PDF_PAGE = re.compile(rb"/Type\s*/Page(?![A-Za-z])")
_PDF_OBJECTS = re.compile(rb"/Type\s*/ObjStm\b.{0,500}?\bstream\r?\n", re.DOTALL)
_ENOUGH = 64 * 1024 * 1024

_FIELD_SIZES: Mapping[int, str] = {1: "B", 3: "H", 4: "I"}
_WIDTH, _LENGTH, _STRIP_OFFSETS, _STRIP_COUNTS = 256, 257, 273, 279
_NEEDED = frozenset((_WIDTH, _LENGTH, _STRIP_OFFSETS, _STRIP_COUNTS))


class Unreadable(ValueError):
    """The document is no whole TIFF, or PDF, with at least one page."""


@dataclass(frozen=True, slots=True)
class Document:
    """What a document is: a media type, and how many pages it has."""

    media_type: str
    pages: int


def inspect(data: bytes) -> Document:
    """Type and pages of a document; raises Unreadable."""
    if data[:4] not in (b"II*\x00", b"MM\x00*"):
        raise Unreadable("no TIFF")
    return Document(TIFF, sum(1 for _ in _directories(data)))


def inspect_pdf(data: bytes) -> Document:
    """Type and pages of a PDF document; raises Unreadable."""
    if not data.startswith(b"%PDF-"):
        raise Unreadable("no PDF")
    if b"%%EOF" not in data[-1024:]:
        raise Unreadable("it ends too early")
    objects = [data, *(_inflated(data[found.end() :]) for found in _PDF_OBJECTS.finditer(data))]
    pages = sum(len(_PDF_PAGE.findall(each)) for each in objects)
    if not pages:
        raise Unreadable("no page")
    return Document(PDF, pages)


def blank_pdf(pages: int = 1, size: int = 0) -> bytes:
    """A PDF of empty letter pages, filled up to at least `size` bytes with numbered lines: a piece
    that is lost or stands elsewhere shows."""
    kids = b" ".join(b"%d 0 R" % (3 + number) for number in range(pages))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [%b] /Count %d >>" % (kids, pages),
        *[b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] >>"] * pages,
    ]
    if size:
        padding = b"".join(b"%015d\n" % number for number in range(size // 16 + 1))
        objects.append(b"<< /Length %d >>\nstream\n%b\nendstream" % (len(padding), padding))
    body, places = [b"%PDF-1.4\n"], []
    written = len(body[0])
    for number, each in enumerate(objects, 1):
        places.append(written)
        body.append(b"%d 0 obj\n%b\nendobj\n" % (number, each))
        written += len(body[-1])
    entries = b"".join(b"%010d 00000 n \n" % place for place in places)
    count = len(objects) + 1
    return b"".join(body) + (
        b"xref\n0 %d\n0000000000 65535 f \n%b" % (count, entries)
        + b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (count, written)
    )


def _inflated(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, _ENOUGH)
    except zlib.error:
        return b""


def _directories(data: bytes) -> Iterator[int]:
    """The place of every page's directory, each checked."""
    order = "<" if data[:2] == b"II" else ">"
    place = _number(data, order + "I", 4)
    seen: set[int] = set()
    if place == 0:
        raise Unreadable("no page")
    while place:
        if place in seen:
            raise Unreadable("its directories form a loop")
        seen.add(place)
        entries = _number(data, order + "H", place)
        fields = dict(_fields(data, order, place + 2, entries))
        _check_page(data, fields)
        yield place
        place = _number(data, order + "I", place + 2 + 12 * entries)


def _fields(
    data: bytes, order: str, start: int, entries: int
) -> Iterator[tuple[int, tuple[int, ...]]]:
    """(tag, values) of the fields this reader needs."""
    for place in range(start, start + 12 * entries, 12):
        tag = _number(data, order + "H", place)
        kind = _FIELD_SIZES.get(_number(data, order + "H", place + 2))
        if tag not in _NEEDED or kind is None:
            continue
        count = _number(data, order + "I", place + 4)
        layout = f"{order}{count}{kind}"
        size = count * struct.calcsize(kind)
        if size > len(data):
            raise Unreadable("a field is longer than the file")
        values = _unpack(
            data, layout, place + 8 if size <= 4 else _number(data, order + "I", place + 8)
        )
        yield tag, values


def _check_page(data: bytes, fields: Mapping[int, tuple[int, ...]]) -> None:
    if not fields.keys() >= _NEEDED or not all(fields.values()):
        raise Unreadable("a page without size or strips")
    if not (fields[_WIDTH][0] and fields[_LENGTH][0]):
        raise Unreadable("a page without extent")
    offsets, counts = fields[_STRIP_OFFSETS], fields[_STRIP_COUNTS]
    whole = len(offsets) == len(counts) and all(
        offset + count <= len(data) for offset, count in zip(offsets, counts, strict=True)
    )
    if not whole:
        raise Unreadable("a page is cut off")


def _number(data: bytes, layout: str, place: int) -> int:
    value: int = _unpack(data, layout, place)[0]
    return value


def _unpack(data: bytes, layout: str, place: int) -> tuple[int, ...]:
    try:
        return struct.unpack_from(layout, data, place)
    except struct.error:
        raise Unreadable("it ends too early") from None
