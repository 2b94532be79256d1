"""Draws lines of text on a fax page: 10 point DejaVu Sans Mono, 12 characters and 6 lines to the
inch."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from faxbot.documents import plaintext
from faxbot.documents.page import ROWS_PER_INCH, WIDTH

CELL, LINE = 17, 33  # pixels of a character across and of a line down, at 204 x 196
SIZE = 28  # the font's pixels per em that makes its characters CELL wide
MARGIN = 98
LEFT = (WIDTH - plaintext.COLUMNS * CELL) // 2
LENGTH = 11 * ROWS_PER_INCH["fine"]


@lru_cache(maxsize=1)
def _font() -> ImageFont.FreeTypeFont:
    # The basic layout is the same everywhere; the other one depends on a library that may not be
    # installed.
    return ImageFont.truetype(str(plaintext.FONT), SIZE, layout_engine=ImageFont.Layout.BASIC)


def draw(
    path: str, first: int, last: int, *, resolution: str, max_pages: int
) -> Iterator[Image.Image]:
    """Pages `first` to before `last` (from 0) as grey images; raises as `plaintext.lay_out`."""
    for lines in plaintext.lay_out(path, max_pages=max_pages)[first:last]:
        image = Image.new("L", (WIDTH, LENGTH), 255)
        pen = ImageDraw.Draw(image)
        for number, line in enumerate(lines):
            pen.text((LEFT, MARGIN + number * LINE), line, fill=0, font=_font())
        yield image if resolution == "fine" else image.reduce((1, 2))
