"""A received TIFF becomes a PDF: every dot, every page, at the proportions that it had on the sender's paper, whatever
the line did to it."""

from __future__ import annotations

import io
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pypdfium2
import pytest
from PIL import Image, ImageChops, ImageDraw, TiffImagePlugin

from faxbot.documents import Limits, Renderer, RenderingFailed, tiff, unfolding
from faxbot.documents import pictures as pictures_of
from faxbot.errors import DocumentUnreadable
from tests.documents import hostile, look, make

LIMITS = Limits(max_pages=5, max_pixels=50_000_000, seconds=60, memory_mb=512)
LSB_FIRST, MSB_FIRST = 2, 1
LETTER = {98: 1078, 196: 2156, 391: 4301}
"""Rows of 11 inches."""
CODES: dict[str, dict[str, Any]] = {
    "Group 3, 1-D": {"compression": "group3", "options": 0},
    "Group 3, 2-D": {"compression": "group3", "options": 1},
    "Group 3, 2-D, whole bytes": {"compression": "group3", "options": 5},
    "Group 4": {"compression": "group4"},
    "packed": {"compression": "packbits"},
    "as it is": {"compression": None},
}


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    renderer = Renderer(LIMITS, 1)
    yield renderer
    renderer.close()


def drawn(rows: int, columns: int = 1728, number: int = 1) -> Image.Image:
    page = Image.new("1", (columns, rows), 255)
    pen = ImageDraw.Draw(page)
    pen.rectangle((30, 30, columns - 31, rows - 31), outline=0, width=3)
    for row in range(60, rows - 60, 60):
        pen.text((80, row), f"page {number}, row {row}: 5 mg twice a day", fill=0, font_size=30)
    return page


def received(
    pages: Sequence[Image.Image],
    densities: Sequence[tuple[float, float] | None],
    *,
    compression: str | None = "group3",
    options: int = 1,
    fill: int = LSB_FIRST,
    photometric: int = 0,
    rows_per_strip: int = 100_000,
    more: dict[int, int] | None = None,
) -> bytes:
    """A TIFF as spandsp writes it, unless it is said otherwise."""
    tags: dict[int, Any] = {262: 1, 266: fill, 278: rows_per_strip, **(more or {})}
    if compression == "group3":
        tags[292] = options
    file, made = io.BytesIO(), dict[tuple[int, object], bytes]()
    with TiffImagePlugin.AppendingTiffWriter(file) as whole:
        for page, density in zip(pages, densities, strict=True):
            if (id(page), density) not in made:
                said = {} if density is None else {"dpi": density}
                # Pillow would turn every dot in Python for "0 is white": so that is said behind its back.
                turned = page if photometric else ImageChops.invert(page)
                one = make.encoded(turned, "TIFF", compression=compression, tiffinfo=tags, **said)
                before, after = (struct.pack("<HHII", 262, 3, 1, each) for each in (1, photometric))
                assert one.count(before) == 1
                made[id(page), density] = one.replace(before, after)
            whole.write(made[id(page), density])
            whole.newFrame()
    return file.getvalue()


def unfolded(renderer: Renderer, folder: Path, data: bytes) -> Path:
    source, target = folder / "received.tif", folder / "received.pdf"
    source.write_bytes(data)
    count = renderer.unfold(source, target)
    with pypdfium2.PdfDocument(target) as document:
        assert len(document) == count
    return target


def pictures(path: Path) -> list[Image.Image]:
    """Each page of a PDF as its one picture, undistorted."""
    with pypdfium2.PdfDocument(path) as document:
        found = []
        for page in document:
            (only,) = page.get_objects()
            found.append(only.get_bitmap(render=False).to_pil().convert("1"))
        return found


def sizes(path: Path) -> list[tuple[float, float]]:
    """In inches, as PDFium has them."""
    with pypdfium2.PdfDocument(path) as document:
        return [tuple(each / 72 for each in page.get_size()) for page in document]


def same(one: Image.Image, other: Image.Image) -> bool:
    return one.size == other.size and ImageChops.logical_xor(one, other).getbbox() is None


@pytest.mark.parametrize("code", CODES)
def test_every_dot_is_the_same_in_whichever_code_it_came(
    tmp_path: Path, renderer: Renderer, code: str
) -> None:
    pages = [drawn(LETTER[98], number=1), drawn(LETTER[196], number=2)]
    fills = (
        (LSB_FIRST, MSB_FIRST)
        if CODES[code]["compression"] in ("group3", "group4")
        else (MSB_FIRST,)
    )
    for fill in fills:
        for photometric in (0, 1):
            data = received(
                pages, [(204, 98), (204, 196)], fill=fill, photometric=photometric, **CODES[code]
            )
            made = pictures(unfolded(renderer, tmp_path, data))
            assert len(made) == 2
            assert all(map(same, made, pages)), f"fill order {fill}, photometric {photometric}"


def test_a_page_in_several_strips_is_put_together(tmp_path: Path, renderer: Renderer) -> None:
    page = drawn(1000)
    for code in ("group3", "group4"):
        data = received([page], [(204, 98)], compression=code, rows_per_strip=128)
        assert len(tiff.read(io.BytesIO(data), 1)[0].pieces) == 8
        (made,) = pictures(unfolded(renderer, tmp_path, data))
        assert same(made, page)


def test_each_page_has_the_size_of_its_own_resolution(tmp_path: Path, renderer: Renderer) -> None:
    """11 inches, whatever the rows."""
    pages = [drawn(rows) for rows in LETTER.values()]
    data = received(pages, [(204, down) for down in LETTER])
    target = unfolded(renderer, tmp_path, data)
    for width, height in sizes(target):
        assert width == pytest.approx(1728 / 204, abs=0.001)
        assert height == pytest.approx(11.0, abs=0.001)
    with pypdfium2.PdfDocument(target) as document:
        for page in document:  # drawn over the whole page, and black on white
            seen = page.render(scale=1).to_pil().convert("L")
            left, top, right, bottom = look.ink_box(
                seen.point(lambda tone: 0 if tone < 200 else 255)
            )
            assert (left, top) < (15, 25)
            assert right > seen.width - 15
            assert bottom > seen.height - 25


@pytest.mark.parametrize(
    ("columns", "rows", "density", "inches"),
    [
        (1728, 1078, (204, 98), (8.47, 11.0)),
        (1728, 1078, None, (8.47, 11.0)),
        (1728, 2156, None, (8.47, 11.0)),
        (1728, 1078, (72, 72), (8.47, 11.0)),
        (2048, 2292, (204, 196), (10.04, 11.69)),
        (2432, 3000, None, (11.92, 15.31)),
        (2592, 3300, (300, 300), (8.64, 11.0)),
        (2592, 3300, None, (8.64, 11.0)),
        (1728, 1100, (200, 100), (8.64, 11.0)),
        (1728, 2200, (200, 200), (8.64, 11.0)),
    ],
)  # fmt: skip
def test_what_a_page_does_not_say_of_its_density_is_told_by_its_dots(
    tmp_path: Path,
    renderer: Renderer,
    columns: int,
    rows: int,
    density: tuple[int, int] | None,
    inches: tuple[float, float],
) -> None:
    data = received([drawn(rows, columns)], [density])
    assert sizes(unfolded(renderer, tmp_path, data)) == [pytest.approx(inches, abs=0.01)]


def test_a_density_by_the_centimetre_is_one_too(tmp_path: Path, renderer: Renderer) -> None:
    data = received([drawn(1078)], [(80.3, 38.5)], more={296: 3})
    unit = struct.pack("<HHII", 296, 3, 1, 3)
    if unit not in data:  # Pillow writes inches where it is given a density
        data = data.replace(struct.pack("<HHII", 296, 3, 1, 2), unit)
    (size,) = sizes(unfolded(renderer, tmp_path, data))
    assert size == pytest.approx((1728 / 80.3 / 2.54, 1078 / 38.5 / 2.54), abs=0.01)


def test_a_short_last_page_that_says_nothing_is_as_dense_as_those_before_it(
    tmp_path: Path, renderer: Renderer
) -> None:
    data = received([drawn(2156), drawn(600)], [None, None])
    (_, first), (_, last) = sizes(unfolded(renderer, tmp_path, data))
    assert (first, last) == pytest.approx((11.0, 600 / 196), abs=0.01)


def test_a_page_that_lies_on_its_side_is_put_upright(tmp_path: Path, renderer: Renderer) -> None:
    page = drawn(1078)
    data = received([page], [(204, 98)], more={274: 6})
    target = unfolded(renderer, tmp_path, data)
    (made,) = pictures(target)
    assert same(made, page.transpose(Image.Transpose.ROTATE_270))
    assert sizes(target) == [pytest.approx((11.0, 1728 / 204), abs=0.01)]


def test_a_page_longer_than_a_pdf_may_be_keeps_its_proportions(
    tmp_path: Path, renderer: Renderer
) -> None:
    rows = 28_000
    data = received([drawn(rows)], [(204, 98)])
    (made,) = sizes(unfolded(renderer, tmp_path, data))
    assert made[1] == pytest.approx(200.0, abs=0.01)
    assert made[0] / made[1] == pytest.approx((1728 / 204) / (rows / 98), rel=1e-3)


def spoilt(data: bytes, place: int, how: Callable[[bytes], bytes]) -> bytes:
    """The same file with another strip in the page at this place, as long as before."""
    offset, length = tiff.read(io.BytesIO(data), 10)[place].pieces[0]
    strip = how(data[offset : offset + length])
    assert len(strip) == length
    return data[:offset] + strip + data[offset + length :]


def lines(page: Image.Image) -> list[bytes]:
    bits, each = page.tobytes(), page.width // 8
    return [bits[at : at + each] for at in range(0, len(bits), each)]


def noise_in_the_middle(strip: bytes) -> bytes:
    middle = len(strip) // 2
    return (
        strip[:middle]
        + bytes(0xA5 ^ each for each in strip[middle : middle + 30])
        + strip[middle + 30 :]
    )


def half_of_it(strip: bytes) -> bytes:
    return strip[: len(strip) // 2] + bytes(len(strip) - len(strip) // 2)


def nothing_of_it(strip: bytes) -> bytes:
    return bytes(len(strip))


@pytest.mark.parametrize("code", [name for name in CODES if name.startswith("Group")])
@pytest.mark.parametrize("how", [noise_in_the_middle, half_of_it, nothing_of_it])
def test_a_damaged_page_is_kept_as_far_as_it_can_be_read_and_the_others_are_whole(
    tmp_path: Path, renderer: Renderer, code: str, how: Callable[[bytes], bytes]
) -> None:
    pages = [drawn(1078, number=number) for number in (1, 2, 3)]
    data = spoilt(received(pages, [(204, 98)] * 3, **CODES[code]), 1, how)

    made = pictures(unfolded(renderer, tmp_path, data))

    assert len(made) == 3, "a page is missing"
    assert same(made[0], pages[0])
    assert same(made[2], pages[2])
    upper = (0, 0, 1728, 480)
    if how is nothing_of_it:
        assert made[1].getextrema() == (255, 255), "white, not what was there before"
        return
    assert made[1].height >= 480
    assert same(made[1].crop(upper), pages[1].crop(upper))
    if how is noise_in_the_middle and code != "Group 4":
        lost = Counter(lines(pages[1])) - Counter(lines(made[1]))
        assert made[1].height == 1078
        assert lost.total() < 40, "the next end of line is not found"
    else:
        assert made[1].height < 600, "it ends where it cannot be read any more"


def joined(pages: Sequence[Image.Image]) -> bytes:
    """Group 4, each directory behind its page, as libtiff writes it."""
    file = io.BytesIO()
    strips = [pictures_of.group4(ImageChops.invert(page)) for page in pages]
    tiff.write(file, strips, total=len(pages), resolution="standard")
    return file.getvalue()


def test_of_a_file_that_is_cut_off_in_its_last_strip_every_page_is_shown(
    tmp_path: Path, renderer: Renderer
) -> None:
    pages = [drawn(1078, number=number) for number in range(1, 6)]
    data = joined(pages)
    at, length = tiff.read(io.BytesIO(data), 5)[4].pieces[0]
    offset = len(data)
    here, there = (struct.pack("<HHII", tiff.STRIP_OFFSETS, 4, 1, each) for each in (at, offset))
    assert data.count(here) == 1
    data = data.replace(here, there) + data[at : at + length]

    made = pictures(unfolded(renderer, tmp_path, data[: offset + length // 2]))

    assert len(made) == 5
    assert all(map(same, made[:4], pages[:4]))
    assert 200 < made[4].height < 1000
    assert same(made[4], pages[4].crop((0, 0, 1728, made[4].height)))
    (*others, last) = pictures(unfolded(renderer, tmp_path, data[:offset]))
    assert len(others) == 4
    assert last.getextrema() == (255, 255)


def test_of_a_file_whose_last_directory_is_not_there_every_page_before_it_is_shown(
    tmp_path: Path, renderer: Renderer
) -> None:
    pages = [drawn(1078, number=number) for number in range(1, 6)]
    data = joined(pages)
    assert len(pictures(unfolded(renderer, tmp_path, data))) == 5
    offset, length = tiff.read(io.BytesIO(data), 5)[4].pieces[0]
    for end in (offset + length // 2, offset + length + 40):
        made = pictures(unfolded(renderer, tmp_path, data[:end]))
        assert len(made) == 4
        assert all(map(same, made, pages))


def test_a_last_page_that_does_not_say_how_long_it_is_is_shown_as_long_as_the_one_before(
    tmp_path: Path, renderer: Renderer
) -> None:
    pages = [drawn(1078, number=number) for number in range(1, 6)]
    data = joined(pages)
    rows = struct.pack("<HHII", tiff.ROWS, 4, 1, 1078)
    assert data.count(rows) == 5
    at = data.rindex(rows)
    data = data[:at] + struct.pack("<HHII", tiff.ROWS, 4, 1, 0) + data[at + len(rows) :]
    made = pictures(unfolded(renderer, tmp_path, data))
    assert all(map(same, made, pages))
    assert len(made) == 5


def without_lengths(data: bytes, count: int) -> bytes:
    """The same file, of whose first pages no directory says how long their strips are."""
    there, other = (struct.pack("<HHI", tag, 4, 1) for tag in (tiff.STRIP_BYTES, 65_000))
    assert data.count(there) >= count
    return data.replace(there, other, count)


def beyond_its_end(data: bytes, count: int) -> bytes:
    """The same file, whose first pages have their strips where it has ended."""
    for page in tiff.read(io.BytesIO(data), 5)[:count]:
        here, there = (
            struct.pack("<HHII", tiff.STRIP_OFFSETS, 4, 1, each)
            for each in (page.pieces[0][0], len(data))
        )
        assert data.count(here) == 1
        data = data.replace(here, there)
    return data


@pytest.mark.parametrize("without", [without_lengths, beyond_its_end])
@pytest.mark.parametrize("count", [1, 2])
def test_a_file_of_whose_pages_nothing_can_be_placed_is_refused_and_not_shown_as_a_blank_fax(
    tmp_path: Path, renderer: Renderer, without: Callable[[bytes, int], bytes], count: int
) -> None:
    pages = [drawn(1078, number=number) for number in range(1, count + 1)]
    with pytest.raises(RenderingFailed):
        unfolded(renderer, tmp_path, without(joined(pages), count))
    with pytest.raises(DocumentUnreadable):
        tiff.read(io.BytesIO(without(joined(pages), count)), 5, damaged=True)
    (*others, last) = pictures(
        unfolded(renderer, tmp_path, without(joined([*pages, *pages]), count))
    )
    assert len(others) == 2 * count - 1
    assert same(last, pages[-1]), "what is there is shown"


def test_whatever_is_cut_off_a_file_of_which_a_page_is_left_is_shown(tmp_path: Path) -> None:
    pages = [drawn(300, number=number) for number in range(1, 4)]
    for data in (joined(pages), received(pages, [(204, 98)] * 3)):
        source, target = tmp_path / "received.tif", tmp_path / "received.pdf"
        for end in range(len(data), 0, -211):
            source.write_bytes(data[:end])
            with suppress(DocumentUnreadable):
                count = unfolding.unfold(
                    str(source), str(target), max_pages=9, max_pixels=LIMITS.max_pixels
                )
                assert count == len(sizes(target)) > 0
                assert count < 3 or end > len(data) // 2


def test_a_fax_of_many_pages_takes_no_more_memory_than_one_of_few(tmp_path: Path) -> None:
    """64 dense pages in a child that may have 200 MB, of which half are its programs."""
    page = make.grain(make.marked((1728, 2156)), 40, 1).convert("1")
    data = received([page] * 64, [(204, 196)] * 64)
    assert 64 * page.width * page.height > 200 << 20
    renderer = Renderer(replace(LIMITS, memory_mb=200), 1)
    try:
        made = unfolded(renderer, tmp_path, data)
    finally:
        renderer.close()
    assert len(sizes(made)) == 64


def test_what_has_no_page_is_refused(tmp_path: Path, renderer: Renderer) -> None:
    sound = received([drawn(1078)] * 2, [(204, 98)] * 2)
    for data in (b"", b"%PDF-1.4", hostile.no_pages(), sound[:60]):
        with pytest.raises(RenderingFailed):
            unfolded(renderer, tmp_path, data)
    with pytest.raises(RenderingFailed, match="FAXBOT_MAX_PIXELS"):
        unfolded(renderer, tmp_path, received([drawn(40_000)], [(204, 98)]))


def test_it_is_a_sound_pdf_that_says_nothing_of_the_tiff(
    tmp_path: Path, renderer: Renderer
) -> None:
    data = received([drawn(1078)], [(204, 98)], more={})
    made = unfolded(renderer, tmp_path, data).read_bytes()
    offsets = [int(line[:10]) for line in made.split(b"\n") if line.endswith(b" 00000 n ")]
    assert all(one < other for one, other in pairwise(offsets))
    for number, offset in enumerate(offsets, 1):
        assert made[offset:].startswith(b"%d 0 obj\n" % number)
    assert b"/Info" not in made
