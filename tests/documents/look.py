"""Looks at fax pages: what is where on them, and whether the file is what a fax machine expects."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
from PIL import Image, ImageChops

from faxbot.documents.process import PROGRAM


def pages(path: Path) -> list[Image.Image]:
    """Every page in black and white, decoded by libtiff."""
    found = []
    with Image.open(path) as file:
        for number in range(getattr(file, "n_frames", 1)):
            file.seek(number)
            found.append(file.convert("1"))
    return found


def ink_box(page: Image.Image) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of all ink; raises when there is none."""
    box = ImageChops.invert(page.convert("L")).getbbox()
    assert box is not None, "the page is blank"
    return box


def share(page: Image.Image, box: tuple[int, int, int, int]) -> float:
    """How much of that part of the page is ink, 0 to 1."""
    part = page.crop(box).convert("L").histogram()
    return part[0] / sum(part)


def corners(page: Image.Image, box: tuple[int, int, int, int], rows: int) -> list[float]:
    """Ink in the corners of `box`, 20 pixels by `rows`: upper left, upper right, lower left, lower
    right."""
    left, top, right, bottom = box
    return [
        share(page, (x, y, x + 20, y + rows))
        for y in (top, bottom - rows)
        for x in (left, right - 20)
    ]


def children() -> list[psutil.Process]:
    """The processes of this one that open documents."""
    found = []
    for process in psutil.Process(os.getpid()).children():
        try:
            if str(PROGRAM) in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found
