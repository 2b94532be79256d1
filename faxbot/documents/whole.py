"""Tells whether the data of a picture is all there, without decoding it.

Readers of pictures draw what a damaged or cut-off file still has and fill the rest with white, grey
or black: a page that looks like a fax and is none. So each kind of data is asked for its own end.
Damage that leaves the end where it belongs cannot be told from another picture. `strict` decodes
where that is needed; nothing here loads Pillow, which most children never need.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

START_OF_SCAN, END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"  # ITU-T T.81, table B.1
PIECE = 1 << 20  # bytes that are unpacked at a time
SYNCHRONISED = b"\0\0\xff\xff"  # how data ends that was flushed and never finished (RFC 1951)
# Of PNG (its sections 6.1 and 8.2): values of a pixel by colour type; where each of the seven passes
# begins, and its steps.
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
ADAM7 = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
)  # fmt: skip
# Bits of a pixel in the file by those it has once decoded, and for three and more colours.
# It has 32 when one colour is see-through, whatever it had before.
UNKNOWN_BITS = 32
BITS, MORE_BITS = {1: (1,), 8: range(2, 9), UNKNOWN_BITS: range(1, 65)}, range(10, 65, 2)
SLACK, SPARE = 2, 256  # bytes: of a line end, and what some programs leave behind a picture
PAGE_INFORMATION, UNKNOWN_LENGTH = 48, 0xFFFFFFFF  # ITU-T T.88, 7.3 and 7.2.7


def jpeg_ended(data: bytes) -> bool:
    """Whether a JPEG has its end. Some cameras write none, so only decoding proves a loss."""
    end = data.rfind(END_OF_IMAGE)
    # A preview has an end too, but the picture's own scan comes after it.
    return end >= 0 and data.find(START_OF_SCAN, end) < 0


class Unpacked(NamedTuple):
    """What zlib data holds: `length` bytes, up to where it was read; `after` lies behind its end."""

    length: int
    checked: bool
    after: bytes


def unpacked(data: bytes, most: float = math.inf) -> Unpacked | None:
    """Read zlib data to its end, or until `most` bytes came; None when it is damaged or ends too
    soon.

    Some programs write a wrong checksum or none, or flush the data and never finish it.
    """
    reader = zlib.decompressobj(-zlib.MAX_WBITS)
    rest, piece, total, checksum = data[2:], b"", 0, 1
    try:
        while not reader.eof and total < most and (rest or len(piece) == PIECE):
            piece = reader.decompress(rest, PIECE)
            total, checksum = total + len(piece), zlib.adler32(piece, checksum)
            rest = reader.unconsumed_tail
    except zlib.error:
        return None
    if not (reader.eof or total >= most or data.rstrip(b"\r\n").endswith(SYNCHRONISED)):
        return None
    after = reader.unused_data
    return Unpacked(total, after[:4] == struct.pack(">I", checksum), after)


def flate(data: bytes, rows: int) -> int:
    """Bytes that sound zlib data of a picture of `rows` rows holds, 0 when it is damaged.

    Without the right checksum the rows must come out even.
    """
    found = unpacked(data)
    if found and (found.checked or (found.length + SLACK) % rows <= 2 * SLACK):
        return found.length
    return 0


def rows(length: int, across: int, down: int, bits: int, *, inks: bool = False) -> bool:
    """Whether unpacked data of that many bytes makes `down` rows of `across` pixels, or more.

    `bits` are those of a pixel once decoded: 1, 8 or more; `inks` says that the file has four
    values for it. How many bits the file has is not known: where they may be fewer than a byte for
    each value, nearly as much or whole rows more must be there.
    """
    length += SLACK
    if (
        bits != UNKNOWN_BITS
        and length >= (across * (32 if inks else min(bits, 24)) + 7) // 8 * down
    ):
        return True
    for each in BITS.get(bits, MORE_BITS):
        row = (across * each + 7) // 8
        spare = length - row * down
        if spare >= 0 and (spare <= SPARE or spare % row <= 2 * SLACK):
            return True
    return False


def png(path: str) -> bool:
    """Whether the data of a PNG makes all its rows: Pillow does not miss them. Its checksums are
    not asked."""
    with Path(path).open("rb") as file:
        width, height, depth, colour, _, _, laced = struct.unpack(">IIBBBBB", file.read(29)[16:])
        bits = depth * CHANNELS[colour]
        wanted: int = sum(
            down * (1 + (across * bits + 7) // 8)
            for across, down in _passes(width, height, laced)
            if across
        )
        reader = zlib.decompressobj()
        file.seek(4, 1)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            rest = file.read(length) if kind == b"IDAT" else b""
            file.seek(4 if rest else length + 4, 1)
            while rest and wanted > 0:
                wanted -= len(reader.decompress(rest, PIECE))
                rest = reader.unconsumed_tail
        while wanted > 0 and (more := reader.decompress(b"", PIECE)):
            wanted -= len(more)
    return wanted <= 0


def _passes(width: int, height: int, laced: int) -> Iterator[tuple[int, int]]:
    """Pixels across and down of each of its pictures: an interlaced PNG holds seven."""
    for x, y, right, down in ADAM7 if laced else ((0, 0, 1, 1),):
        yield (width - x + right - 1) // right, (height - y + down - 1) // down


def jbig2(data: bytes) -> bool:
    """Whether the segments of JBIG2 data, as a PDF holds it, are complete and make a page."""
    at, page = 0, False
    try:
        while at + 11 <= len(data):
            kind, at, length = _segment(data, at)
            page = page or kind == PAGE_INFORMATION
            if length == UNKNOWN_LENGTH:
                return page
            at += length
    except struct.error:
        return False
    return page and at <= len(data)


def _segment(data: bytes, at: int) -> tuple[int, int, int]:
    """Type of the segment at `at`, where its data begins, and how long that is (T.88, 7.2)."""
    number, flags, referred = struct.unpack_from(">IBB", data, at)
    count, header = referred >> 5, 6
    if count == 7:
        (count,) = struct.unpack_from(">I", data, at + 5)
        count &= 0x1FFFFFFF
        header = 9 + (count + 8) // 8
    at += header + count * (1 if number <= 256 else 2 if number <= 65536 else 4)
    at += 4 if flags & 0x40 else 1
    (length,) = struct.unpack_from(">I", data, at)
    return flags & 0x3F, at + 4, length
