"""Puts the pages of a received TIFF into a PDF that every reader opens, each at its real proportions.

Receiving machines write Group 3 or 4, either bit first, of any width, and of 98, 196 or 391 rows to the inch, whatever
the sender chose for that page. Every page is decoded and coded anew as Group 4, dot by dot the same, and goes into the
file before the next one is read.

Without error correction a line may spoil rows, and a machine that dies writes half a strip. Such a page is kept as far
as it can be read, and ends there; one of which nothing can be read is white. None is left out of which the file has a
directory: the count of pages is what people compare with the sender's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageChops
from PIL.TiffImagePlugin import TiffImageFile

from faxbot.documents import pdf, pictures, raster, strict, tiff

STANDARD, FINE = 98.0, 196.0
LONGEST_STANDARD = 1400
"""Rows: 14 inches (Legal) at 98 to the inch. Of pages that do not say how dense they are, one that is longer shows that
they are fine."""
GUESSED = {2592: 300.0, 3072: 300.0, 3648: 300.0, 3456: 408.0, 4096: 408.0, 4864: 408.0}
"""Dots to the inch by width, where it is not the usual one (T.4, table 1)."""
USUAL = 204.0
BELIEVED = 97.0, 1300.0
STRETCH = 4.5  # of 408 x 98, which no machine has, still one can make a page


def unfold(source: str, target: str, *, max_pages: int, max_pixels: int) -> int:
    """Write the pages of the TIFF into a new PDF; returns how many. Raises as tiff.read() of a damaged one, and
    DocumentTooLarge for a page of more than `max_pixels`."""
    with Path(source).open("rb") as file, Path(target).open("wb") as made:
        pages = tiff.read(file, max_pages, damaged=True)
        for page in pages:
            pictures.within((page.columns, page.rows), max_pixels)
        pdf.write(made, _sheets(file, pages, source), len(pages))
    return len(pages)


def _sheets(file: BinaryIO, pages: Sequence[tiff.Page], path: str) -> Iterator[pdf.Sheet]:
    silent = [page.rows for page in pages if not _believed(page.density)]
    guess = FINE if max(silent, default=0) > LONGEST_STANDARD else STANDARD
    for page in pages:
        across, down = page.density if _believed(page.density) else _guessed(page.columns, guess)
        if page.one(tiff.ORIENTATION, 1) in pictures.SWAPPING:
            across, down = down, across
        ink = _coded_as_a_fax(file, page) or _otherwise_coded(path, page)
        inches = ink.width / across, ink.height / down
        yield pdf.Sheet(ink.width, ink.height, inches, pictures.group4(ink).data)


def _believed(density: tuple[float, float]) -> bool:
    """Whether a page may have so many dots to the inch: some machines write none, or a screen's."""
    low, high = min(density), max(density)
    return BELIEVED[0] <= low and high <= BELIEVED[1] and high / low <= STRETCH


def _guessed(columns: int, down: float) -> tuple[float, float]:
    across = GUESSED.get(columns, USUAL)
    return across, down if across == USUAL else across


def _coded_as_a_fax(file: BinaryIO, page: tiff.Page) -> Image.Image | None:
    """The page upright, 255 where there is ink; None where it is neither Group 3 nor Group 4 in strips."""
    if (
        page.one(tiff.COMPRESSION, 1) not in (tiff.GROUP3, tiff.GROUP4)
        or tiff.TILE_OFFSETS in page.tags
    ):
        return None
    ink = _runs(file, page)
    if page.one(tiff.PHOTOMETRIC, 0):  # "0 is black": what is coded as black runs is the paper
        ink = ImageChops.invert(ink)
    turn = pictures.TURNS.get(page.one(tiff.ORIENTATION, 1))
    return ink if turn is None else ink.transpose(turn)


def _runs(file: BinaryIO, page: tiff.Page) -> Image.Image:
    """The page with 255 for what is coded as black, to the last row that can be read."""
    each = min(page.one(tiff.ROWS_PER_STRIP, page.rows) or page.rows, page.rows)
    paper = 255 if page.one(tiff.PHOTOMETRIC, 0) else 0
    whole = Image.new("1", (page.columns, page.rows), paper)
    end = 0
    for top, (offset, length) in zip(range(0, page.rows, each), page.pieces, strict=False):
        file.seek(offset)
        data = file.read(length)
        if page.one(tiff.FILL_ORDER, 1) == pictures.LOWEST_FIRST:
            data = data.translate(pictures.REVERSED)
        strip = strict.as_far_as_it_goes(
            data,
            page.columns,
            min(each, page.rows - top),
            page.one(tiff.COMPRESSION, tiff.GROUP4),
            page.one(tiff.T4_OPTIONS, 0),
        )
        if strip is not None:
            whole.paste(strip, (0, top))
            end = top + strip.height
    return whole.crop((0, 0, page.columns, end)) if 0 < end < page.rows else whole


def _otherwise_coded(path: str, page: tiff.Page) -> Image.Image:
    """What no fax line brings, but a program that converts pages may; upright, as Pillow makes it."""
    with Path(path).open("rb") as file, TiffImageFile(file) as image:
        image.seek(page.place)
        image.load()
        return (
            ImageChops.invert(image)
            if image.mode == "1"
            else raster.ink(pictures.greyed(image), "fine")
        )
