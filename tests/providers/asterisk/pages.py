"""Fax pages that tests send, and whether they arrived."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw

WIDTH = 1728
HEIGHTS = {"fine": 2156, "standard": 1078}
_DPI = {"fine": (204, 196), "standard": (204, 98)}
_HIGHEST_HEADER = 40  # lines; spandsp prints 32, at standard resolution 16


def make_tiff(path: Path, pages: int = 1, resolution: str = "fine", *, dense: bool = False) -> Path:
    """A TIFF ready to be sent; no two pages are alike. A dense page takes five minutes at 14400 bit/s, for calls that
    end in its middle; another takes a second."""
    draw = _noise if dense else _drawing
    images = [draw(number, HEIGHTS[resolution]) for number in range(1, pages + 1)]
    images[0].save(
        path,
        "TIFF",
        compression="group4",
        dpi=_DPI[resolution],
        # White is zero, as in every fax; Pillow inverts the bits then. One strip a page, as faxbot makes them.
        tiffinfo={262: 0, 278: HEIGHTS[resolution]},
        save_all=True,
        append_images=images[1:],
    )
    return path


def assert_arrived(
    sent: Path, received: Path, first: int = 1, pages: int | None = None
) -> list[int]:
    """Every page bit by bit, below the header that the sending Asterisk prints above it (the page grows by that): all
    from the `first` on, or so many `pages`, behind which the call was cut off.

    Returns the height of each page's header, in lines; AssertionError says which page differs and by how much.
    """
    before, after = _pages(sent)[first - 1 :], _pages(received)
    if pages is not None:
        before, after = before[:pages], after[:pages]
    assert len(before) == len(after), f"{len(before)} pages were sent, {len(after)} received"
    headers = []
    for number, (page, arrived) in enumerate(zip(before, after, strict=True), 1):
        header = arrived.height - page.height
        assert arrived.width == page.width, f"page {number} is {arrived.width} wide"
        assert 0 <= header <= _HIGHEST_HEADER, f"page {number} has grown by {header} lines"
        below = arrived.crop((0, header, arrived.width, arrived.height))
        difference = ImageChops.logical_xor(page, below)
        wrong = sum(difference.histogram()[1:])
        assert not wrong, f"page {number} differs in {wrong} pixels"
        headers.append(header)
    return headers


def assert_readable(sent: Path, received: Path) -> None:
    """Nineteen of twenty rows of every page. Without ECM nobody asks again for a row that a busy machine was late
    with."""
    before, after = _pages(sent), _pages(received)
    assert len(before) == len(after), f"{len(before)} pages were sent, {len(after)} received"
    for number, (page, arrived) in enumerate(zip(before, after, strict=True), 1):
        there = Counter(_rows(arrived))
        missing = (Counter(_rows(page)) - there).total()
        assert missing <= page.height // 20, f"page {number} lacks {missing} rows"


def _rows(page: Image.Image) -> list[bytes]:
    bits, width = page.tobytes(), (page.width + 7) // 8
    return [bits[at : at + width] for at in range(0, len(bits), width)]


def _pages(path: Path) -> list[Image.Image]:
    pages = []
    with Image.open(path) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            pages.append(image.convert("1"))
    return pages


def _drawing(number: int, height: int) -> Image.Image:
    page = Image.new("1", (WIDTH, height), 255)
    draw = ImageDraw.Draw(page)
    draw.rectangle((40, 40, WIDTH - 41, height - 41), outline=0, width=4)
    for row in range(6):
        y = 120 + row * (height - 300) // 6
        for column in range(number % 10 + 1):
            draw.rectangle((120 + column * 140, y, 200 + column * 140, y + 40), fill=0)
        draw.text((1400, y + 60), f"page {number}, row {row}", fill=0)
    return page


def _noise(number: int, height: int) -> Image.Image:
    grey = Image.frombytes("L", (WIDTH, height), random.Random(number).randbytes(WIDTH * height))
    return grey.point(lambda value: 255 if value > 25 else 0).convert("1", dither=Image.Dither.NONE)
