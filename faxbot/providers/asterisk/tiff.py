"""Whether a file is one that Asterisk's SendFAX sends as it is: looked at before anybody's telephone rings.

Asterisk finds out after the answer that a file cannot be opened, or that no machine takes its width (measured).
TIFF 6.0; RFC 2301 for the values that a fax page has.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

WIDTH, ROWS, BITS, COMPRESSION, SAMPLES = 256, 257, 258, 259, 277
STRIPS, STRIP_BYTES, X_DENSITY, Y_DENSITY, DENSITY_UNIT = 273, 279, 282, 283, 296
_FORMS = {3: "H", 4: "I", 5: "II"}  # SHORT, LONG, RATIONAL
_MOST_PAGES = 10_000
_MOST_VALUES = 100_000
_DENSITIES = ((204, 196), (204, 98))
_OFF = 1.5  # dots per inch; 8031 x 7700 a metre are rounded to these

Tags = dict[int, tuple[int, ...]]


def fault(path: Path) -> str:
    """What keeps the file from being faxed, in a few words; "" where nothing does."""
    with path.open("rb") as file:
        try:
            pages = _pages(file)
        except (struct.error, ValueError):
            return "it is not a whole TIFF"
    return next((words for page in pages if (words := _unfit(page))), "")


def _pages(file: BinaryIO) -> list[Tags]:
    """The tags of every page; raises struct.error or ValueError where something is cut off or not there."""
    size = file.seek(0, 2)
    head = _bytes(file, 0, 8)
    order = {b"II": "<", b"MM": ">"}[head[:2]] if head[:2] in (b"II", b"MM") else ""
    if not order:
        raise ValueError("no TIFF")
    magic, offset = struct.unpack(order + "HI", head[2:])
    pages: list[Tags] = []
    seen: set[int] = set()
    while offset:
        if magic != 42 or offset in seen or len(pages) >= _MOST_PAGES:
            raise ValueError("no TIFF")
        seen.add(offset)
        tags, offset = _directory(file, order, offset)
        strips = list(zip(tags.get(STRIPS, ()), tags.get(STRIP_BYTES, ()), strict=True))
        if not strips or any(start + length > size for start, length in strips):
            raise ValueError("cut off")
        pages.append(tags)
    if not pages:
        raise ValueError("no pages")
    return pages


def _directory(file: BinaryIO, order: str, offset: int) -> tuple[Tags, int]:
    """The numbers of one page's directory, and where the next one begins (0: nowhere)."""
    (count,) = struct.unpack(order + "H", _bytes(file, offset, 2))
    block = _bytes(file, offset + 2, count * 12 + 4)
    tags: Tags = {}
    for at in range(0, count * 12, 12):
        tag, kind, number = struct.unpack_from(order + "HHI", block, at)
        if kind not in _FORMS or number > _MOST_VALUES:
            continue
        form = order + _FORMS[kind] * number
        length = struct.calcsize(form)
        value = block[at + 8 : at + 8 + length]
        if length > 4:
            (where,) = struct.unpack_from(order + "I", block, at + 8)
            value = _bytes(file, where, length)
        tags[tag] = struct.unpack(form, value)
    return tags, struct.unpack_from(order + "I", block, count * 12)[0]


def _bytes(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    data = file.read(length)
    if len(data) < length:
        raise ValueError("cut off")
    return data


def _unfit(tags: Tags) -> str:
    if _one(tags, BITS) != 1 or _one(tags, SAMPLES) != 1:
        return "a page is not black and white"
    if _one(tags, COMPRESSION) not in (3, 4):
        return "a page is not compressed as Group 3 or Group 4"
    if _one(tags, WIDTH) != 1728 or _one(tags, ROWS) < 1:
        return "a page is not 1728 dots wide"
    across, down = (_per_inch(tags, tag) for tag in (X_DENSITY, Y_DENSITY))
    if not any(abs(across - x) < _OFF and abs(down - y) < _OFF for x, y in _DENSITIES):
        return "a page has not 204x196 or 204x98 dots per inch"
    return ""


def _one(tags: Tags, tag: int) -> int:
    return (tags.get(tag) or (1,))[0]


def _per_inch(tags: Tags, tag: int) -> float:
    top, bottom = (*tags.get(tag, ()), 0, 0)[:2]
    per_unit = top / bottom if bottom else 0.0
    return per_unit * 2.54 if _one({DENSITY_UNIT: (2,), **tags}, DENSITY_UNIT) == 3 else per_unit
