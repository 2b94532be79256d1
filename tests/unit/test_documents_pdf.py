"""Fax pages in a PDF: the very pages, dot by dot, for carriers that take no TIFF."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pypdfium2
import pytest
from PIL import Image, ImageChops

from faxbot.documents import Checker, Limits, Renderer
from tests.documents import look, make

LIMITS = Limits(max_pages=50, max_pixels=100_000_000, seconds=20, memory_mb=1024)


@pytest.fixture
def renderer() -> Iterator[Renderer]:
    renderer = Renderer(LIMITS, 1)
    yield renderer
    renderer.close()


def fax_pages(renderer: Renderer, folder: Path, resolution: str) -> Path:
    """A letter and a long page as fax pages."""
    sources = []
    for name, data in (("letter", make.letter_pdf()), ("text", b"line\n" * 150)):
        path = folder / name
        path.write_bytes(data)
        sources.append((path, ""))
    target = folder / "pages.tiff"
    renderer.render(sources, target, resolution=resolution)
    return target


def pictures(path: Path) -> list[Image.Image]:
    """Each page of a PDF as its one picture, undistorted."""
    with pypdfium2.PdfDocument(path) as document:
        found = []
        for page in document:
            (only,) = page.get_objects()
            found.append(only.get_bitmap(render=False).to_pil().convert("1"))
        return found


@pytest.mark.parametrize("resolution", ["fine", "standard"])
def test_every_dot_of_every_page_is_the_same(
    tmp_path: Path, renderer: Renderer, resolution: str
) -> None:
    pages = fax_pages(renderer, tmp_path, resolution)
    target = tmp_path / "pages.pdf"

    renderer.wrap(pages, target, resolution=resolution)

    wanted, made = look.pages(pages), pictures(target)
    assert len(made) == len(wanted) > 2
    for one, other in zip(wanted, made, strict=True):
        assert one.size == other.size
        assert ImageChops.logical_xor(one, other).getbbox() is None


@pytest.mark.parametrize("resolution", ["fine", "standard"])
def test_a_page_has_its_size_on_paper_and_looks_as_it_should(
    tmp_path: Path, renderer: Renderer, resolution: str
) -> None:
    pages = fax_pages(renderer, tmp_path, resolution)
    target = tmp_path / "pages.pdf"
    renderer.wrap(pages, target, resolution=resolution)

    rows = 196 if resolution == "fine" else 98
    with pypdfium2.PdfDocument(target) as document:
        for page, wanted in zip(document, look.pages(pages), strict=True):
            width, height = page.get_size()
            assert width == pytest.approx(1728 / 204 * 72, abs=0.01)
            assert height == pytest.approx(wanted.height / rows * 72, abs=0.01)
            drawn = page.render(scale=1).to_pil().convert("L")
            small = wanted.convert("L").resize(drawn.size, Image.Resampling.BOX)
            assert abs(mean(drawn) - mean(small)) < 3, "it is not drawn, or black for white"


def mean(picture: Image.Image) -> float:
    """Between 0 (black) and 255."""
    counts = picture.histogram()
    return sum(level * count for level, count in enumerate(counts)) / sum(counts)


def test_it_is_a_sound_pdf_that_says_nothing_but_its_pages(
    tmp_path: Path, renderer: Renderer
) -> None:
    pages = fax_pages(renderer, tmp_path, "fine")
    target = tmp_path / "pages.pdf"
    renderer.wrap(pages, target, resolution="fine")

    data = target.read_bytes()
    table = data.rindex(b"xref\n", 0, data.rindex(b"startxref"))
    assert int(data.rsplit(b"startxref\n", 1)[1].split()[0]) == table
    offsets = [int(offset) for offset in re.findall(rb"(\d{10}) 00000 n ", data[table:])]
    for number, offset in enumerate(offsets, 1):
        assert data[offset:].startswith(b"%d 0 obj\n" % number)
    assert b"/Info" not in data
    assert b"/Metadata" not in data
    checker = Checker(LIMITS)
    checked = checker.check(target)
    checker.close()
    assert (checked.media_type, checked.pages) == ("application/pdf", len(look.pages(pages)))


def test_the_pdf_is_hardly_larger_than_the_pages(tmp_path: Path, renderer: Renderer) -> None:
    pages = fax_pages(renderer, tmp_path, "fine")
    renderer.wrap(pages, tmp_path / "pages.pdf", resolution="fine")

    assert (tmp_path / "pages.pdf").stat().st_size < pages.stat().st_size + 700 * len(
        look.pages(pages)
    )
