"""The geometry of a fax page: how large a page of any size is drawn, and whether it is turned.

Every fax page is 1728 pixels wide (T.4: 215 mm). A page keeps its own size where that fits; a wider
one is made smaller as a whole, a landscape one is turned first; one narrower than 6 inches (A5, a
label, a card) is enlarged until it fills a sheet. Its length stays its own, up to three sheets of
Letter; what is longer still is made smaller as a whole. So nothing is cut off and proportions are
kept.
"""

from __future__ import annotations

from typing import NamedTuple

WIDTH = 1728
DPI_X = 204
ROWS_PER_INCH = {"fine": 196, "standard": 98}

# Letter is 6 pixels wider than a fax line: they are taken from its width alone, so that its length
# stays 11 inches.
FULL_WIDTH = 8.5
NARROW = 6.0
SHEET = (8.27, 11.0)  # fits both on A4 and on Letter paper
LONGEST = 33.0
SHORTEST = 1.0


class Placement(NamedTuple):
    """Where the content goes, in pixels: `width` x `rows` from `left`, on a page of `length` rows.

    `turned`: the content is first turned by 90 degrees counter-clockwise.
    """

    turned: bool
    left: int
    width: int
    rows: int
    length: int


def place(width: float, height: float, resolution: str) -> Placement:
    """Place a page of `width` x `height` inches (both above 0) on a fax page of `resolution`."""
    turned = width > FULL_WIDTH and width > height
    if turned:
        width, height = height, width
    scale = min(1.0, FULL_WIDTH / width)
    if width < NARROW:
        scale = max(1.0, min(SHEET[0] / width, SHEET[1] / height))
    scale = min(scale, LONGEST / height)
    down = ROWS_PER_INCH[resolution]
    columns = min(WIDTH, max(1, round(width * scale * DPI_X)))
    rows = max(1, round(height * scale * down))
    return Placement(
        turned, (WIDTH - columns) // 2, columns, rows, max(rows, round(SHORTEST * down))
    )


def longest(resolution: str) -> int:
    """Most rows a page can have."""
    return round(LONGEST * ROWS_PER_INCH[resolution])
