"""A page on a screen: the one that was asked for, as wide as asked, at its proportions on paper, whatever document it
is of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from PIL import Image, ImageChops

from faxbot.documents import Limits, Renderer, RenderingFailed
from tests.documents import hostile, look, make

LIMITS = Limits(max_pages=50, max_pixels=100_000_000, seconds=20, memory_mb=512)
A4 = 297 / 210


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    renderer = Renderer(LIMITS, 1)
    yield renderer
    renderer.close()


def document(folder: Path, data: bytes) -> Path:
    path = folder / "document"
    path.write_bytes(data)
    return path


def fax(renderer: Renderer, folder: Path, resolution: str) -> Path:
    """Three pages of Letter with their numbers."""
    target = folder / f"{resolution}.tiff"
    source = document(folder, make.letter_pdf(3))
    renderer.render([(source, "")], target, resolution=resolution)
    return target


def shown(
    renderer: Renderer, source: Path, number: int = 1, width: int = 850, resolution: str = "fine"
) -> Image.Image:
    target = source.with_name("page.png")
    assert renderer.show(source, target, number, width=width, resolution=resolution) >= number
    with Image.open(target) as page:
        assert page.format == "PNG"
        page.load()
        return page


@pytest.mark.parametrize("resolution", ["fine", "standard"])
@pytest.mark.parametrize("width", [200, 850, 1700])
def test_a_fax_page_has_the_width_that_was_asked_for_and_its_proportions_on_paper(
    renderer: Renderer, tmp_path: Path, resolution: str, width: int
) -> None:
    page = shown(renderer, fax(renderer, tmp_path, resolution), width=width, resolution=resolution)
    # 1728 dots at 204 to the inch are a little less than the 8.5 inches of Letter.
    assert page.width == width
    assert page.height == pytest.approx(width * 11 / (1728 / 204), abs=2)


def test_it_is_the_page_that_was_asked_for_and_looks_like_the_document(
    renderer: Renderer, tmp_path: Path
) -> None:
    pages = fax(renderer, tmp_path, "fine")
    pictures = [shown(renderer, pages, number) for number in (1, 2, 3)]
    others = [shown(renderer, tmp_path / "document", number) for number in (1, 2, 3)]
    for number, (one, other) in enumerate(zip(pictures, others, strict=True)):
        box = look.ink_box(one.point(lambda tone: 255 if tone > 128 else 0))
        beside = look.ink_box(other.point(lambda tone: 255 if tone > 128 else 0))
        assert all(abs(a - b) <= 6 for a, b in zip(box, beside, strict=True))
        for wrong in pictures[number + 1 :]:
            assert ImageChops.difference(one, wrong).getbbox() is not None


def test_a_page_of_a_pdf_is_neither_turned_nor_enlarged(renderer: Renderer, tmp_path: Path) -> None:
    source = document(tmp_path, make.pdf(make.Sheet(media=(0, 0, 842, 595))))
    page = shown(renderer, source)
    assert page.width == 850
    assert page.width / page.height == pytest.approx(A4, abs=0.01)


def test_a_very_long_page_is_shown_whole_and_narrower(renderer: Renderer, tmp_path: Path) -> None:
    source = document(tmp_path, make.pdf(make.Sheet(media=(0, 0, 72, 7200))))
    page = shown(renderer, source)
    assert page.height <= 5 * 850
    assert page.height / page.width == pytest.approx(100, rel=0.1)


@pytest.mark.parametrize("kind", ["tiff", "pdf"])
def test_where_there_is_no_such_page_nothing_is_drawn(
    renderer: Renderer, tmp_path: Path, kind: str
) -> None:
    pages = fax(renderer, tmp_path, "fine")
    source, target = pages if kind == "tiff" else tmp_path / "document", tmp_path / "page.png"
    assert renderer.show(source, target, 4, width=850) == 3
    assert not target.exists()


def hostile_page(data: bytes) -> int:
    """Of the two pages of a PDF with a vast one that one."""
    return 2 if data == hostile.vast_page() else 1


@pytest.mark.parametrize(
    "data",
    [b"%PDF-1.4 nothing", b"II*\0nothing", hostile.vast_page(), hostile.image_bomb_pdf(), b"text"],
    ids=["no pdf", "no tiff", "vast page", "picture bomb", "text"],
)
def test_what_cannot_be_drawn_is_refused_within_its_memory(
    renderer: Renderer, tmp_path: Path, data: bytes
) -> None:
    source = document(tmp_path, data)
    with pytest.raises(RenderingFailed):
        renderer.show(source, tmp_path / "page.png", hostile_page(data), width=1700)
    for child in look.children():
        assert psutil.Process(child.pid).memory_info().rss < LIMITS.memory_mb << 20
