"""Reads the structure of TIFF files and writes fax pages: TIFF 6.0, and RFC 2301 (TIFF-F) for what
a fax page carries.

Pillow decodes and encodes strips; this module knows where they lie. It serves three things Pillow
cannot do: counting pages without decoding, telling whether a file is fax-ready already, and putting
pages that several processes made into one file, one strip a page, min-is-white.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from faxbot.documents.page import DPI_X, ROWS_PER_INCH, WIDTH, longest
from faxbot.errors import DocumentTooLarge, DocumentUnreadable, DocumentUnsupported

NEW_SUBFILE, COLUMNS, ROWS, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = (
    254,
    256,
    257,
    258,
    259,
    262,
    266,
)
STRIP_OFFSETS, ORIENTATION, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES = 273, 274, 277, 278, 279
X_RESOLUTION, Y_RESOLUTION, T6_OPTIONS, RESOLUTION_UNIT, PAGE_NUMBER = 282, 283, 293, 296, 297
PLANAR, T4_OPTIONS, SOFTWARE, TILE_OFFSETS, TILE_BYTES = 284, 292, 305, 324, 325
KEPT = frozenset(
    {
        NEW_SUBFILE,
        COLUMNS,
        ROWS,
        BITS,
        COMPRESSION,
        PHOTOMETRIC,
        FILL_ORDER,
        STRIP_OFFSETS,
        ORIENTATION,
        SAMPLES,
        ROWS_PER_STRIP,
        STRIP_BYTES,
        X_RESOLUTION,
        Y_RESOLUTION,
        T6_OPTIONS,
        RESOLUTION_UNIT,
        TILE_OFFSETS,
        TILE_BYTES,
    }
)
READ = KEPT | {T4_OPTIONS}
BYTE, ASCII, SHORT, LONG, RATIONAL = 1, 2, 3, 4, 5
FORMATS = {BYTE: "B", SHORT: "H", LONG: "I", RATIONAL: "II"}
SIZES = {BYTE: 1, ASCII: 1, SHORT: 2, LONG: 4, RATIONAL: 8}
TELLING_NOTHING = frozenset({PLANAR, PAGE_NUMBER, SOFTWARE})
ALIGNED = 24  # bytes of a header and padding that Pillow leaves before each page
GROUP3, GROUP4 = 3, 4
INCH, CENTIMETRE = 2, 3
HEADER = 8
# A reduced image (bit 0) or a mask (bit 2) belongs to another page and is none itself.
NO_PAGE = 0b101

CUT_OFF = "The TIFF is cut off or damaged; make it again, or send a PDF."


class Page(NamedTuple):
    """One page of a TIFF: its place among all images of the file, and the tags of READ."""

    place: int
    tags: dict[int, tuple[int, ...]]
    size: int = 0
    """Bytes of the file that its directory, values and pieces take; 0 when it has tags that tell
    more than a fax page needs."""

    def one(self, tag: int, default: int) -> int:
        return self.tags.get(tag, (default,))[0]

    @property
    def columns(self) -> int:
        return self.one(COLUMNS, 0)

    @property
    def rows(self) -> int:
        return self.one(ROWS, 0)

    @property
    def density(self) -> tuple[float, float]:
        """Dots per inch across and down; (0, 0) when the file does not say."""
        x, y = (self.tags.get(tag, (0, 1)) for tag in (X_RESOLUTION, Y_RESOLUTION))
        if len(x) < 2 or len(y) < 2 or not (x[1] and y[1]):
            return 0.0, 0.0
        per_inch = 2.54 if self.one(RESOLUTION_UNIT, INCH) == CENTIMETRE else 1.0
        return x[0] / x[1] * per_inch, y[0] / y[1] * per_inch

    @property
    def pieces(self) -> list[tuple[int, int]]:
        """Offset and length of every strip or tile."""
        if TILE_OFFSETS in self.tags:
            return list(zip(self.tags[TILE_OFFSETS], self.tags.get(TILE_BYTES, ()), strict=False))
        return list(
            zip(self.tags.get(STRIP_OFFSETS, ()), self.tags.get(STRIP_BYTES, ()), strict=False)
        )


def read(file: BinaryIO, max_pages: int, *, damaged: bool = False) -> list[Page]:
    """Every page of the TIFF; raises DocumentUnreadable, or DocumentTooLarge beyond `max_pages`.

    Of one that may be `damaged`, every page to the first directory that cannot be read: pieces end where the file does,
    and a page that does not say how large it is has the size of the one before it. Only where that is none, or nothing
    is there of any of them, it raises DocumentUnreadable."""
    size = file.seek(0, 2)
    file.seek(0)
    order, offset = _header(file.read(8))
    pages: list[Page] = []
    seen: set[int] = set()
    while offset:
        try:
            # Images that point back at one another would never end.
            if offset in seen:
                raise DocumentUnreadable(CUT_OFF)
            seen.add(offset)
            tags, used, offset = _directory(file, order, offset, size)
        except DocumentUnreadable:
            if damaged and pages:
                break
            raise
        if not tags.get(NEW_SUBFILE, (0,))[0] & NO_PAGE:
            page = Page(len(seen) - 1, tags)
            page = _sound(_mended(page, pages, size) if damaged else page, size)
            taken = used and used + sum(length for _, length in page.pieces)
            pages.append(page._replace(size=taken))
        if len(pages) > max_pages or len(seen) > 4 * max_pages:
            raise DocumentTooLarge(
                f"The TIFF has more than {max_pages} pages (FAXBOT_MAX_PAGES); send it in parts."
            )
    # Of a damaged one of which nothing is there, all would be blank.
    if not pages or (damaged and not _hold_anything(pages)):
        raise DocumentUnreadable("The TIFF has no pages.")
    return pages


def _hold_anything(pages: Iterable[Page]) -> bool:
    return any(length for page in pages for _, length in page.pieces)


def _header(head: bytes) -> tuple[str, int]:
    order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
    if not order or len(head) < 8:
        raise DocumentUnreadable(CUT_OFF)
    magic, offset = struct.unpack(order + "HI", head[2:])
    if magic == 43:
        raise DocumentUnsupported("BigTIFF cannot be faxed; save it as an ordinary TIFF or as PDF.")
    return order, offset


def _directory(
    file: BinaryIO, order: str, offset: int, size: int
) -> tuple[dict[int, tuple[int, ...]], int, int]:
    """The kept tags of the image at `offset`, the bytes that they take (0: there are others), and
    where the next one begins (0: nowhere)."""
    (count,) = struct.unpack(order + "H", _bytes(file, offset, 2, size))
    block = _bytes(file, offset + 2, count * 12 + 4, size)
    tags: dict[int, tuple[int, ...]] = {}
    used, others = 2 + len(block), False
    for at in range(0, count * 12, 12):
        tag, kind, number = struct.unpack_from(order + "HHI", block, at)
        others = others or tag not in KEPT | TELLING_NOTHING
        used += number * SIZES.get(kind, 0) if number * SIZES.get(kind, 0) > 4 else 0
        if tag not in READ or kind not in FORMATS:
            continue
        form = order + FORMATS[kind] * number if number <= 1 << 20 else ""
        length = struct.calcsize(form)
        if length <= 4:
            value = block[at + 8 : at + 8 + length]
        else:
            (where,) = struct.unpack_from(order + "I", block, at + 8)
            value = _bytes(file, where, length, size)
        if value:
            tags[tag] = struct.unpack(form, value)
    return tags, 0 if others else used, struct.unpack_from(order + "I", block, count * 12)[0]


def _bytes(file: BinaryIO, offset: int, length: int, size: int) -> bytes:
    if offset + length > size:
        raise DocumentUnreadable(CUT_OFF)
    file.seek(offset)
    return file.read(length)


def _sound(page: Page, size: int) -> Page:
    if not page.columns or not page.rows or not page.pieces:
        raise DocumentUnreadable(CUT_OFF)
    if any(offset + length > size for offset, length in page.pieces):
        raise DocumentUnreadable(CUT_OFF)
    return page


def _mended(page: Page, before: list[Page], size: int) -> Page:
    """A page of a damaged file, as much of it as is there."""
    tags = dict(page.tags)
    if before and not (page.columns and page.rows):
        tags |= {COLUMNS: (before[-1].columns,), ROWS: (before[-1].rows,)}
    offsets, lengths = (
        (TILE_OFFSETS, TILE_BYTES) if TILE_OFFSETS in tags else (STRIP_OFFSETS, STRIP_BYTES)
    )
    pieces = [(min(at, size), min(length, max(0, size - at))) for at, length in page.pieces]
    tags[offsets], tags[lengths] = zip(*(pieces or [(0, 0)]), strict=True)
    return page._replace(tags=tags)


def ready_pages(path: str, resolutions: Iterable[str], max_pages: int) -> tuple[int, str]:
    """Pages of a TIFF that is a fax already, and in which of the `resolutions`; else 0 and "".

    Raises as `read`.
    """
    with Path(path).open("rb") as file:
        pages = read(file, max_pages)
        for resolution in resolutions:
            if fax_ready(file, pages, resolution):
                return len(pages), resolution
    return 0, ""


def fax_ready(file: BinaryIO, pages: list[Page], resolution: str) -> bool:
    """Whether these pages can go on the line as they are; looks at the structure and never
    decodes."""
    return all(_page_ready(file, page, resolution) for page in pages)


def nothing_else(path: str, max_pages: int) -> bool:
    """Whether the file holds its pages and no more: no preview, no description, no page that was
    taken out of the list alone. Raises as `read`."""
    with Path(path).open("rb") as file:
        pages = read(file, max_pages)
        size = file.seek(0, 2)
    return all(page.size for page in pages) and size <= HEADER + sum(
        page.size + ALIGNED for page in pages
    )


def _page_ready(file: BinaryIO, page: Page, resolution: str) -> bool:
    x, y = page.density
    return (
        page.columns == WIDTH
        and page.rows <= longest(resolution)
        and page.one(COMPRESSION, 1) == GROUP4
        and page.one(PHOTOMETRIC, 1) == 0
        and all(page.one(tag, 1) == 1 for tag in (BITS, SAMPLES, FILL_ORDER, ORIENTATION))
        and page.one(T6_OPTIONS, 0) == 0
        and abs(x - DPI_X) < 1.5
        and abs(y - ROWS_PER_INCH[resolution]) < 1.5
        and len(page.pieces) == 1
        and TILE_OFFSETS not in page.tags
        and _has_end(file, *page.pieces[0])
    )


def _has_end(file: BinaryIO, offset: int, length: int) -> bool:
    """Whether the strip ends with T.6's end-of-facsimile-block, 24 bits at any bit position."""
    file.seek(offset + max(0, length - 6))
    tail = int.from_bytes(file.read(min(6, length)), "big")
    return any(tail >> shift & 0xFFFFFF == 0x001001 for shift in range(24))


class Strip(NamedTuple):
    """One page as Group 4 bytes, ink as black runs."""

    rows: int
    data: bytes


def strips(file: BinaryIO, pages: Iterable[Page]) -> Iterator[Strip]:
    """The bytes of pages that have one strip each."""
    for page in pages:
        offset, length = page.pieces[0]
        file.seek(offset)
        yield Strip(page.rows, file.read(length))


def join(parts: Iterable[str], target: str, *, total: int, resolution: str) -> int:
    """Put the pages of fax TIFFs that `write` made into one file, in order; returns how many."""

    def pages() -> Iterator[Strip]:
        for part in parts:
            with Path(part).open("rb") as file:
                yield from strips(file, read(file, total))

    with Path(target).open("wb") as file:
        return write(file, pages(), total=total, resolution=resolution)


def write(file: BinaryIO, pages: Iterable[Strip], *, total: int, resolution: str) -> int:
    """Write a fax TIFF of `total` pages to the empty `file`; returns the pages written."""
    file.write(struct.pack("<2sHI", b"II", 42, 0))
    link, count = 4, 0
    for count, strip in enumerate(pages, 1):
        offset = file.tell()
        # Directories begin on even offsets (TIFF 6.0, section 2).
        file.write(strip.data + b"\0" * (len(strip.data) % 2))
        start = file.tell()
        file.seek(link)
        file.write(struct.pack("<I", start))
        file.seek(start)
        file.write(_fax_directory(strip, offset, start, (count - 1, total), resolution))
        link = file.tell() - 4 - _EXTRA
    return count


_SOFTWARE = b"faxbot\0\0"
_EXTRA = 16 + len(_SOFTWARE)  # two rationals and the name, after the directory


def _fax_directory(
    strip: Strip, offset: int, start: int, number: tuple[int, int], resolution: str
) -> bytes:
    entries = [
        (NEW_SUBFILE, LONG, 1, 2), (COLUMNS, LONG, 1, WIDTH), (ROWS, LONG, 1, strip.rows),
        (BITS, SHORT, 1, 1), (COMPRESSION, SHORT, 1, GROUP4), (PHOTOMETRIC, SHORT, 1, 0),
        (FILL_ORDER, SHORT, 1, 1),
        (STRIP_OFFSETS, LONG, 1, offset), (ORIENTATION, SHORT, 1, 1), (SAMPLES, SHORT, 1, 1),
        (ROWS_PER_STRIP, LONG, 1, strip.rows), (STRIP_BYTES, LONG, 1, len(strip.data)),
        (X_RESOLUTION, RATIONAL, 1, 0), (Y_RESOLUTION, RATIONAL, 1, 8), (T6_OPTIONS, LONG, 1, 0),
        (RESOLUTION_UNIT, SHORT, 1, INCH), (PAGE_NUMBER, SHORT, 2, number[0] | number[1] << 16),
        (SOFTWARE, ASCII, len(_SOFTWARE) - 1, 16),
    ]  # fmt: skip
    extra = start + 2 + len(entries) * 12 + 4
    block = struct.pack("<H", len(entries))
    for tag, kind, count, value in entries:
        away = tag in (X_RESOLUTION, Y_RESOLUTION, SOFTWARE)
        block += struct.pack("<HHII", tag, kind, count, value + extra if away else value)
    dpi = struct.pack("<4I", DPI_X, 1, ROWS_PER_INCH[resolution], 1)
    return block + struct.pack("<I", 0) + dpi + _SOFTWARE
