"""Puts fax pages into a PDF as they are: the same Group 4 bytes, bit by bit, at the size that they have on paper (ISO
32000-1, 7.4.6 CCITTFaxDecode). For carriers that take no TIFF, and for people who read what was received.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from faxbot.documents import tiff
from faxbot.documents.page import DPI_X, ROWS_PER_INCH, WIDTH

POINTS = 72  # per inch
LARGEST = 200.0  # inches; no page of a PDF is longer or wider (ISO 32000-1, annex C)
PER_PAGE = 3  # objects: the page, what is on it, the picture


class Sheet(NamedTuple):
    """One page: its dots, its size on paper in inches, and the Group 4 bytes, ink as black runs."""

    columns: int
    rows: int
    inches: tuple[float, float]
    data: bytes


def wrap(source: str, target: str, *, resolution: str, max_pages: int) -> int:
    """Write the pages of a fax TIFF into a new PDF; returns how many. Raises as tiff.read()."""
    down = ROWS_PER_INCH[resolution]
    with Path(source).open("rb") as file, Path(target).open("wb") as made:
        pages = tiff.read(file, max_pages)
        sheets = (
            Sheet(WIDTH, strip.rows, (WIDTH / DPI_X, strip.rows / down), strip.data)
            for strip in tiff.strips(file, pages)
        )
        write(made, sheets, len(pages))
    return len(pages)


def write(file: BinaryIO, sheets: Iterator[Sheet], count: int) -> None:
    """Write a PDF of these `count` sheets to the empty `file`, one after another."""
    file.write(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    firsts = [3 + PER_PAGE * number for number in range(count)]
    kids = " ".join(f"{first} 0 R" for first in firsts)
    offsets = [
        _object(file, 1, "<</Type/Catalog/Pages 2 0 R>>"),
        _object(file, 2, f"<</Type/Pages/Count {count}/Kids[{kids}]>>"),
    ]
    for first, sheet in zip(firsts, sheets, strict=True):
        offsets += _page(file, first, sheet)
    start = file.tell()
    file.write(f"xref\n0 {len(offsets) + 1}\n0000000000 65535 f \n".encode())
    file.writelines(f"{offset:010} 00000 n \n".encode() for offset in offsets)
    trailer = f"trailer\n<</Size {len(offsets) + 1}/Root 1 0 R>>\nstartxref\n{start}\n%%EOF\n"
    file.write(trailer.encode())


def _page(file: BinaryIO, first: int, sheet: Sheet) -> list[int]:
    """Where the objects of this page begin."""
    smaller = min(1.0, LARGEST / max(sheet.inches))
    size = [f"{inches * smaller * POINTS:.4f}" for inches in sheet.inches]
    box, content, picture = " ".join(size), first + 1, first + 2
    drawn = f"q {size[0]} 0 0 {size[1]} 0 0 cm /I Do Q".encode()
    coded = f"/K -1/Columns {sheet.columns}/Rows {sheet.rows}"
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
            f"<</Type/XObject/Subtype/Image/Width {sheet.columns}/Height {sheet.rows}"
            f"/BitsPerComponent 1/ColorSpace/DeviceGray/Filter/CCITTFaxDecode"
            f"/DecodeParms<<{coded}>>/Length {len(sheet.data)}>>",
            sheet.data,
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
