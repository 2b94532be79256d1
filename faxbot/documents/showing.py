"""One page as a picture for a screen: a fax page at its proportions on paper, or a page of a received PDF."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from faxbot.documents import pdfium, pictures, tiff
from faxbot.documents.kinds import PDF, kind
from faxbot.documents.page import DPI_X, ROWS_PER_INCH, WIDTH


def show(
    path: str,
    target: str,
    *,
    number: int,
    width: int,
    resolution: str,
    max_pages: int,
    max_pixels: int,
) -> int:
    """Draw page `number` (from 1), `width` pixels wide, into a PNG at `target`; returns the pages of the document, and
    draws nothing where it has no such page. `resolution` is that of a fax TIFF. Raises as the counters of the types."""
    if kind(path) == PDF:
        pages, drawn = pdfium.picture(path, number - 1, width, max_pixels=max_pixels)
        grey = drawn and Image.frombuffer("L", drawn.size, drawn.pixels, "raw", "L", 0, 1)
    else:
        pages, grey = _fax_page(path, number, width, ROWS_PER_INCH[resolution], max_pages)
    if grey is not None:
        grey.save(target, "PNG")
    return pages


def _fax_page(
    path: str, number: int, width: int, down: int, max_pages: int
) -> tuple[int, Image.Image | None]:
    with Path(path).open("rb") as file:
        pages = tiff.read(file, max_pages)
        if number > len(pages):
            return len(pages), None
        page = pages[number - 1]
        file.seek(0)
        with TiffImageFile(file) as image:
            image.seek(page.place)
            grey = pictures.greyed(image)
    size = width, max(1, round(page.rows * DPI_X / down * width / WIDTH))
    return len(pages), grey.resize(size, Image.Resampling.BICUBIC)
