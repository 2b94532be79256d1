"""The fax TIFF: what a receiver expects of it, faxes that are ready already, and many documents in
one."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageChops
from PIL.TiffImagePlugin import TiffImageFile

from faxbot.documents import Checked, Checker, Limits, Renderer, tiff
from faxbot.errors import DocumentTooLarge, DocumentUnreadable, DocumentUnsupported
from tests.documents import hostile, look, make
from tests.documents.make import Sheet

LIMITS = Limits(max_pages=50, max_pixels=100_000_000, seconds=60, memory_mb=1024)
GROUP4 = {"compression": "group4", "tiffinfo": {278: 10_000}}


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    renderer = Renderer(LIMITS, 2)
    yield renderer
    renderer.close()


@pytest.fixture(scope="module")
def checker() -> Iterator[Checker]:
    checker = Checker(LIMITS)
    yield checker
    checker.close()


def numbered(*lengths: int) -> bytes:
    """A PDF of pages with these lengths in inches, which tell them apart."""
    return make.pdf(*(Sheet((0, 0, 612, 72 * length)) for length in lengths))


def heights(path: Path) -> list[int]:
    return [round(page.height / 196) for page in look.pages(path)]


def fax(*lengths: int, resolution: str = "fine", **changes: int) -> bytes:
    """A fax TIFF of other hands (libtiff's own directory), min-is-white like the real ones."""
    down = {"fine": 196, "standard": 98}[resolution]
    pages = [
        ImageChops.invert(make.marked((1728, length * down), "L")).convert("1")
        for length in lengths
    ]
    data = bytearray(
        make.encoded(
            pages[0], "TIFF", save_all=True, append_images=pages[1:], dpi=(204, down), **GROUP4
        )
    )
    _set(data, 262, changes.get("photometric", 0))
    if "orientation" in changes:
        _set(data, 256, changes["orientation"])
    return bytes(data)


def _set(data: bytearray, tag: int, value: int) -> None:
    """Write `value` into that tag of every directory of a little-endian TIFF."""
    (offset,) = struct.unpack_from("<I", data, 4)
    while offset:
        (count,) = struct.unpack_from("<H", data, offset)
        for at in range(offset + 2, offset + 2 + 12 * count, 12):
            found, kind = struct.unpack_from("<HH", data, at)
            if found == tag:
                struct.pack_into("<H" if kind == 3 else "<I", data, at + 8, value)
        (offset,) = struct.unpack_from("<I", data, offset + 2 + 12 * count)


@pytest.mark.parametrize(("resolution", "rows"), [("fine", 196), ("standard", 98)])
def test_the_file_is_what_fax_machines_and_gateways_expect(
    renderer: Renderer, tmp_path: Path, resolution: str, rows: int
) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(numbered(11, 14, 11, 5, 11))

    renderer.render([(source, "")], target, resolution=resolution)

    with TiffImageFile(target) as image:
        assert image.n_frames == 5
        for number, length in enumerate((11, 14, 11, 5, 11)):
            image.seek(number)
            tags = image.tag_v2
            assert image.size == (1728, length * rows)
            assert (tags[258], tags[277]) == ((1,), 1)
            assert tags[259] == 4, "Group 4"
            assert tags[262] == 0, "min-is-white"
            assert tags[266] == 1, "most significant bit first"
            assert tags[274] == 1
            assert len(tags[273]) == len(tags[279]) == 1, "one strip"
            assert tags[278] == length * rows
            assert (tags[282], tags[283], tags[296]) == (204, rows, 2)
            assert tags[297] == (number, 5)
            assert image.convert("L").getpixel((864, 1)) == 255, "white is white"
            assert image.convert("L").getpixel((1, 1)) == 0, "and black is black"
    assert target.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("resolution", ["fine", "standard"])
def test_pages_of_a_fax_that_is_ready_pass_through_bit_by_bit_and_are_known_as_such(
    renderer: Renderer, checker: Checker, tmp_path: Path, resolution: str
) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(fax(11, 14, 11, 11, 11, resolution=resolution))

    assert renderer.render([(source, "")], target, resolution=resolution) == 5

    assert strips(target) == strips(source)
    assert checker.check(source) == Checked("image/tiff", 5, resolution)


def test_what_was_rendered_once_is_ready(renderer: Renderer, tmp_path: Path) -> None:
    source, once, twice = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    source.write_bytes(make.letter_pdf(5))

    renderer.render([(source, "")], once, resolution="fine")
    renderer.render([(once, "")], twice, resolution="fine")

    assert once.read_bytes() == twice.read_bytes()


def strips(path: Path) -> list[tiff.Strip]:
    with path.open("rb") as file:
        return list(tiff.strips(file, tiff.read(file, 9)))


NOT_READY: dict[str, Callable[[], bytes]] = {
    "another resolution": lambda: fax(11, resolution="standard"),
    "min is black": lambda: fax(11, photometric=1),
    "another width": lambda: make.encoded(
        make.marked((1700, 2156), "1"), "TIFF", dpi=(204, 196), **GROUP4),
    "another compression": lambda: make.encoded(
        make.marked((1728, 2156), "1"), "TIFF", dpi=(204, 196), compression="group3",
        tiffinfo={262: 0}),
    "many strips": lambda: make.encoded(
        make.marked((1728, 2156), "1"), "TIFF", dpi=(204, 196), compression="group4",
        tiffinfo={262: 0}),
    "no resolution": lambda: make.encoded(make.marked((1728, 2156), "1"), "TIFF", **GROUP4),
    "a strip that was cut": lambda: fax(11)[:8] + fax(11)[8:].replace(b"\0\x10\x01", b"\0\x00\x00"),
}  # fmt: skip


@pytest.mark.parametrize("made", NOT_READY.values(), ids=list(NOT_READY))
def test_a_fax_that_is_nearly_ready_is_made_ready(
    renderer: Renderer, checker: Checker, tmp_path: Path, made: Callable[[], bytes]
) -> None:
    source, target, data = tmp_path / "a", tmp_path / "b", made()
    source.write_bytes(data)

    assert renderer.render([(source, "")], target, resolution="fine") == 1

    assert checker.check(source).ready != "fine"
    assert target.read_bytes() != data
    with target.open("rb") as file:
        assert tiff.fax_ready(file, tiff.read(file, 9), "fine")


def test_a_standard_fax_keeps_its_shape_when_it_is_sent_in_fine(
    renderer: Renderer, tmp_path: Path
) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(fax(11, resolution="standard"))

    renderer.render([(source, "")], target, resolution="fine")

    (page,) = look.pages(target)
    assert page.size == (1728, 2156)
    assert all(corner > 0.9 for corner in look.corners(page, (0, 0, 1728, 2156), 20))


def test_documents_of_every_kind_become_one_fax_in_their_order(
    renderer: Renderer, tmp_path: Path
) -> None:
    sources = [
        numbered(10, 12),
        b"one\ftwo\fthree",
        fax(7, 8),
        make.encoded(make.marked((1000, 1200)), "PNG", dpi=(150, 150)),
        make.encoded(make.marked((1400, 1800)), "JPEG", dpi=(200, 200)),
        numbered(14),
    ]
    paths = []
    for number, data in enumerate(sources):
        paths.append(tmp_path / str(number))
        paths[-1].write_bytes(data)
    target = tmp_path / "b"

    assert renderer.render([(path, "") for path in paths], target, resolution="fine") == 10

    assert heights(target) == [10, 12, 11, 11, 11, 7, 8, 8, 9, 14]
    assert (
        look.pages(target)[5].tobytes() == Image.open(io.BytesIO(sources[2])).convert("1").tobytes()
    )
    with TiffImageFile(target) as image:
        numbers = []
        for number in range(10):
            image.seek(number)
            numbers.append(image.tag_v2[297])
    assert numbers == [(number, 10) for number in range(10)]


@pytest.mark.parametrize("pages", [1, 3, 4, 5, 17, 50])
def test_several_processes_make_the_same_file_as_one(tmp_path: Path, pages: int) -> None:
    lengths = [5 + number % 13 for number in range(pages)]
    source = tmp_path / "a"
    source.write_bytes(numbered(*lengths))
    files, before = [], look.children()
    for processes in (1, 2, 3):
        renderer = Renderer(LIMITS, processes)
        target = tmp_path / f"with {processes}"
        assert renderer.render([(source, "")], target, resolution="fine") == pages
        renderer.close()
        files.append(target.read_bytes())

    assert heights(tmp_path / "with 3") == lengths
    assert files[0] == files[1] == files[2]
    assert look.children() == before


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", DocumentUnreadable),
        (b"<html>", DocumentUnsupported),
        (hostile.many_pages(51), DocumentTooLarge),
        (hostile.cut(make.letter_pdf(9)), DocumentUnreadable),
        (make.letter_pdf(password="x"), DocumentUnreadable),
        (hostile.cut(make.encoded(make.photo((300, 300)), "PNG")), DocumentUnreadable),
    ],
    ids=["empty", "html", "too many pages", "cut off", "password", "broken picture"],
)
@pytest.mark.parametrize("before", [0, 5], ids=["alone", "after five good pages"])
def test_a_bad_document_leaves_nothing_at_the_target_or_beside_it(
    renderer: Renderer, tmp_path: Path, data: bytes, error: type[Exception], before: int
) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_bytes(make.letter_pdf(5))
    bad.write_bytes(data)
    sources = [(good, "application/pdf")] * (before // 5) + [(bad, "application/pdf")]

    with pytest.raises(error):
        renderer.render(sources, tmp_path / "target", resolution="fine")

    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["bad", "good"]


def test_a_page_that_proves_broken_late_leaves_nothing_either(
    renderer: Renderer, tmp_path: Path
) -> None:
    """The check of a large TIFF looks at the structure of its later pages, and only drawing unpacks
    them."""
    page, source = make.marked((1700, 2200)), tmp_path / "a"
    options = {"compression": "tiff_adobe_deflate", "dpi": (200, 200)}
    data = bytearray(make.encoded(page, "TIFF", save_all=True, append_images=[page] * 7, **options))
    with io.BytesIO(data) as file:
        offset, length = tiff.read(file, 9)[7].pieces[-1]
    data[offset : offset + length] = bytes(length)
    source.write_bytes(data)

    with pytest.raises(DocumentUnreadable, match="damaged"):
        renderer.render([(source, "")], tmp_path / "target", resolution="fine")

    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_more_pages_together_than_a_fax_may_have_are_refused(
    renderer: Renderer, tmp_path: Path
) -> None:
    source = tmp_path / "a"
    source.write_bytes(make.letter_pdf(20))

    with pytest.raises(DocumentTooLarge, match="60 pages together"):
        renderer.render([(source, "")] * 3, tmp_path / "target", resolution="fine")


def test_a_resolution_that_does_not_exist_is_a_mistake_of_the_caller(
    renderer: Renderer, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="fine, standard"):
        renderer.render([(tmp_path / "a", "")], tmp_path / "b", resolution="superfine")
    with pytest.raises(ValueError, match="needs a document"):
        renderer.render([], tmp_path / "b", resolution="fine")
