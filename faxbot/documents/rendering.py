"""Draws documents as fax pages into one TIFF: any page of any kind, grey first, then black and
white, then Group 4."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypedDict

from PIL import Image

from faxbot.documents import lettering, pdfium, pictures, tiff
from faxbot.documents.kinds import PDF, TEXT
from faxbot.documents.page import WIDTH
from faxbot.documents.raster import ink


class Limits(TypedDict):
    """What `pictures.draw` and its like are bounded by."""

    max_pages: int
    max_pixels: int


def render(
    sources: Sequence[tuple[str, str, int, bool]],
    target: str,
    *,
    pages: range,
    resolution: str,
    max_pages: int,
    max_pixels: int,
) -> int:
    """Draw `pages` (from 0, over all `sources` together) into a TIFF at `target`; returns how many.

    A source is path, media type, number of pages, and whether it is a fax TIFF of this resolution
    already. Raises as the counters of the types do.
    """
    limits: Limits = {"max_pages": max_pages, "max_pixels": max_pixels}

    def strips() -> Iterator[tiff.Strip]:
        begin = 0
        for path, media_type, number, ready in sources:
            here = range(max(pages.start - begin, 0), min(pages.stop - begin, number))
            if here and ready:
                yield from _ready_strips(path, here, limits)
            elif here:
                for grey in _grey(path, media_type, here, resolution, limits):
                    yield pictures.group4(ink(grey, resolution))
            begin += number

    with Path(target).open("wb") as file:
        return tiff.write(file, strips(), total=len(pages), resolution=resolution)


def _ready_strips(path: str, pages: range, limits: Limits) -> Iterator[tiff.Strip]:
    pictures.ask_for_rows(path, pages.start, pages.stop, limits["max_pages"])
    with Path(path).open("rb") as file:
        yield from tiff.strips(file, tiff.read(file, limits["max_pages"])[pages.start : pages.stop])


def _grey(
    path: str, media_type: str, pages: range, resolution: str, limits: Limits
) -> Iterator[Image.Image]:
    first, last = pages.start, pages.stop
    if media_type == PDF:
        max_pixels = limits["max_pixels"]
        for drawn in pdfium.draw(path, first, last, resolution=resolution, max_pixels=max_pixels):
            yield Image.frombuffer("L", (WIDTH, drawn.rows), drawn.pixels, "raw", "L", 0, 1)
    elif media_type == TEXT:
        yield from lettering.draw(
            path, first, last, resolution=resolution, max_pages=limits["max_pages"]
        )
    else:
        yield from pictures.draw(path, media_type, first, last, resolution=resolution, **limits)
