"""Decodes pictures to see whether they are all there, where that cannot be told otherwise."""

from __future__ import annotations

import io
import os
import re
import struct
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

END_OF_IMAGE, FILLING = b"\xff\xd9", b"\x55" * 64
# T.6's end-of-facsimile-block, and its code for an extension, at which libtiff complains.
END_OF_BLOCK, BLOCK_BITS = 0x001001, 24
EXTENSION, EXTENSION_BITS = 0b0000001111, 10
EXTENSIONS = 48  # that many, so that one is met from the middle of a row and of a code too
PROBE = 16
# T.4's end-of-line, 4.1.2: no row and no two codes side by side have so many zeros.
END_OF_LINE = re.compile(f"(?<={11 * '0'})1")
NEARLY_ALL = 0.98
BLACK_IS_255 = 1  # as Pillow reads TIFF's "0 is black" (its PhotometricInterpretation)
LONGEST = 4 << 20  # bytes of a strip that is looked through, in some 64 MB of memory


def jpeg(data: bytes) -> bool:
    """Whether a JPEG that lacks its end holds all rows nevertheless: then it makes no difference
    what follows its data."""
    data = data.rstrip(b"\xff")
    return _reduced(data + END_OF_IMAGE) == _reduced(data + FILLING + END_OF_IMAGE) is not None


def _reduced(data: bytes) -> bytes | None:
    """The picture at an eighth of its size, which reads all data and takes next to no memory; None
    when it is damaged, or comes in several scans, of which the last may be missing."""
    try:
        with JpegImageFile(io.BytesIO(data)) as image:
            image.draft(None, (image.width // 8, image.height // 8))
            return None if "progressive" in image.info else image.tobytes()
    except (OSError, SyntaxError):
        return None


def group4(strips: Sequence[bytes], columns: int, rows: int, rows_per_strip: int) -> bool:
    """Whether the Group 4 data of a picture, most significant bit first, makes all its rows
    without an error; what comes after them does not matter.

    libtiff neither says how many rows it found nor fails for want of them: so each strip gets
    another end, at which it complains if it ever comes there.
    """
    return _decodes([_with_trap(strip) for strip in strips], columns, rows, rows_per_strip)


def cut(data: bytes, columns: int, rows: int) -> bool:
    """Whether this lacks rows, in whichever of the codes of fax machines it is.

    For Group 4 a quarter of the rows must decode: other codes rarely look like it for longer than a
    few.
    """
    if group4([data], columns, rows, rows):
        return False
    if cut_group3(data, rows):
        return True
    some = max(PROBE, rows // 4)
    return _decodes([data], columns, some, some)


def cut_group3(data: bytes, rows: int) -> bool:
    """Whether this is Group 3 data, most significant bit first, that lacks rows: it begins with an
    end of line, and each row has one. Some programs leave them out, and then it is not known; where
    rows begin at whole bytes, the zeros between them may look like one."""
    if len(data) > LONGEST or int.from_bytes(data[:2], "big") >> 5:
        return False
    return min(PROBE, rows) <= _ends_of_lines(data) < NEARLY_ALL * rows - 1


def _ends_of_lines(data: bytes) -> int:
    bits = f"{int.from_bytes(data, 'big'):0{8 * len(data)}b}"
    return sum(1 for _ in END_OF_LINE.finditer(bits))


def as_far_as_it_goes(
    data: bytes, columns: int, rows: int, coded: int, options: int
) -> Image.Image | None:
    """The rows of a strip of a fax page that can be read, 255 for what is coded as black; None for no row. `coded` is
    TIFF's compression, 3 or 4, and `options` its T4Options; the most significant bit comes first.

    A bad row of Group 3 is drawn as far as it goes, and the next end of line is found. Behind a bad one of Group 4
    nothing can be told any more.
    """
    if coded == 3:
        rows = min(rows, _ends_of_lines(data) if cut_group3(data, rows) else rows)
    elif not group4([data], columns, rows, rows):
        trapped = [_with_trap(data)]
        rows = bisect_left(
            range(1, rows + 1), True, key=lambda some: not _decodes(trapped, columns, some, some)
        )
    if not rows:
        return None
    file = io.BytesIO(_tiff([data], columns, rows, rows, (coded, options, BLACK_IS_255)))
    try:
        with TiffImageFile(file) as image:
            image.load()
            return image.copy()
    except OSError:
        return None


def _with_trap(strip: bytes) -> bytes:
    """The strip with extension codes where its last row ends, or the first sixteen zeros are: no
    code has so many, and libtiff takes them for an end."""
    strip = strip.partition(b"\0\0")[0]
    tail, bits = int.from_bytes(strip[-8:], "big"), 8 * min(8, len(strip))
    for shift in range(bits - BLOCK_BITS + 1):
        if tail >> shift & (1 << BLOCK_BITS) - 1 == END_OF_BLOCK:
            tail, bits = tail >> shift + BLOCK_BITS, bits - shift - BLOCK_BITS
            break
    else:  # after the last bit that is set comes padding, or up to four bits of a code
        padding = (tail & -tail).bit_length() - 1 if tail else 0
        tail, bits = tail >> padding, bits - padding
    for _ in range(EXTENSIONS):
        tail, bits = tail << EXTENSION_BITS | EXTENSION, bits + EXTENSION_BITS
    padding = -bits % 8
    return strip[:-8] + (tail << padding).to_bytes((bits + padding) // 8, "big")


def _decodes(strips: Sequence[bytes], columns: int, rows: int, rows_per_strip: int) -> bool:
    file = io.BytesIO(_tiff(strips, columns, rows, rows_per_strip))
    with _complaints() as complained:
        try:
            with TiffImageFile(file) as image:
                image.load()
        except OSError:
            return False
        return not complained()


@contextmanager
def _complaints() -> Iterator[Callable[[], bool]]:
    """Whether libtiff wrote to standard error: only there it tells of damage that it drew over."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    kept = os.dup(2)
    os.dup2(writing, 2)

    def complained() -> bool:
        try:
            return bool(os.read(reading, 1))
        except BlockingIOError:
            return False

    try:
        yield complained
    finally:
        os.dup2(kept, 2)
        for number in (reading, writing, kept):
            os.close(number)


def _tiff(
    strips: Sequence[bytes],
    columns: int,
    rows: int,
    rows_per_strip: int,
    form: tuple[int, int, int] = (4, 0, 0),
) -> bytes:
    """A TIFF of one picture, with no more than Pillow asks for (TIFF 6.0, section 11); `form` is its compression, its
    T4Options and its photometric interpretation."""
    coded, options, photometric = form
    offsets, at = [], 8
    for strip in strips:
        offsets.append(at)
        at += len(strip)
    listed = at
    at += 8 * len(strips) if len(strips) > 1 else 0
    at += at % 2
    first, lengths = (listed, listed + 4 * len(strips)) if len(strips) > 1 else (8, len(strips[0]))
    entries = (
        (256, 4, 1, columns), (257, 4, 1, rows), (258, 3, 1, 1), (259, 3, 1, coded),
        (262, 3, 1, photometric),
        (273, 4, len(strips), first), (277, 3, 1, 1), (278, 4, 1, rows_per_strip),
        (279, 4, len(strips), lengths),
        *([(292, 4, 1, options)] if coded == 3 else []),
    )  # fmt: skip
    body = b"".join(strips)
    if len(strips) > 1:
        body += struct.pack(f"<{2 * len(strips)}I", *offsets, *map(len, strips))
    body += b"\0" * (at - 8 - len(body))
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    head = struct.pack("<2sHI", b"II", 42, at)
    return head + body + struct.pack("<H", len(entries)) + directory + b"\0\0\0\0"
