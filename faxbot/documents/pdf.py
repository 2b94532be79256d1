"""Puts fax pages into a PDF as they are, for carriers that take no TIFF: the same Group 4 bytes, bit by bit, at the
size that they have on paper (ISO 32000-1, 7.4.6 CCITTFaxDecode).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from faxbot.documents import tiff
from faxbot.documents.page import DPI_X, ROWS_PER_INCH, WIDTH
from faxbot.documents.tiff import Strip

POINTS = 72  # per inch
PER_PAGE = 3  # objects: the page, what is on it, the picture


def wrap(source: str, target: str, *, resolution: str, max_pages: int) -> int:
    """Write the pages of a fax TIFF into a new PDF; returns how many. Raises as tiff.read()."""
    with Path(source).open("rb") as file, Path(target).open("wb") as made:
        pages = tiff.read(file, max_pages)
        _write(made, tiff.strips(file, pages), len(pages), ROWS_PER_INCH[resolution])
    return len(pages)


def _write(file: BinaryIO, strips: Iterator[Strip], count: int, rows_per_inch: int) -> None:
    file.write(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    firsts = [3 + PER_PAGE * number for number in range(count)]
    kids = " ".join(f"{first} 0 R" for first in firsts)
    offsets = [
        _object(file, 1, "<</Type/Catalog/Pages 2 0 R>>"),
        _object(file, 2, f"<</Type/Pages/Count {count}/Kids[{kids}]>>"),
    ]
    for first, strip in zip(firsts, strips, strict=True):
        offsets += _page(file, first, strip, rows_per_inch)
    start = file.tell()
    file.write(f"xref\n0 {len(offsets) + 1}\n0000000000 65535 f \n".encode())
    file.writelines(f"{offset:010} 00000 n \n".encode() for offset in offsets)
    trailer = f"trailer\n<</Size {len(offsets) + 1}/Root 1 0 R>>\nstartxref\n{start}\n%%EOF\n"
    file.write(trailer.encode())


def _page(file: BinaryIO, first: int, strip: Strip, rows_per_inch: int) -> list[int]:
    """Where the objects of this page begin."""
    size = f"{WIDTH / DPI_X * POINTS:.4f}", f"{strip.rows / rows_per_inch * POINTS:.4f}"
    box, content, picture = " ".join(size), first + 1, first + 2
    drawn = f"q {size[0]} 0 0 {size[1]} 0 0 cm /I Do Q".encode()
    coded = f"/K -1/Columns {WIDTH}/Rows {strip.rows}"
    return [
        _object(
            file,
            first,
            f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 {box}]/Contents {content} 0 R"
            f"/Resources<</XObject<</I {picture} 0 R>>>>>>",
        ),
        _object(file, content, f"<</Length {len(drawn)}>>", drawn),
        _object(
            file,
            picture,
            f"<</Type/XObject/Subtype/Image/Width {WIDTH}/Height {strip.rows}/BitsPerComponent 1"
            f"/ColorSpace/DeviceGray/Filter/CCITTFaxDecode/DecodeParms<<{coded}>>"
            f"/Length {len(strip.data)}>>",
            strip.data,
        ),
    ]


def _object(file: BinaryIO, number: int, words: str, data: bytes | None = None) -> int:
    """Write one object, with a stream where there is data; where it begins."""
    start = file.tell()
    file.write(f"{number} 0 obj\n{words}\n".encode())
    if data is not None:
        file.write(b"stream\n" + data + b"\nendstream\n")
    file.write(b"endobj\n")
    return start
