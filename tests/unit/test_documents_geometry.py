"""Pages of any size become fax pages of one width: nothing cut off, proportions kept, the right way
up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from faxbot.documents import Limits, Renderer
from faxbot.documents.page import DPI_X, ROWS_PER_INCH, WIDTH, longest, place
from tests.documents import look, make
from tests.documents.make import Sheet

LIMITS = Limits(max_pages=50, max_pixels=100_000_000, seconds=60, memory_mb=1024)
RESOLUTIONS = ("fine", "standard")
inches = st.floats(0.05, 190)


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    renderer = Renderer(LIMITS, 1)
    yield renderer
    renderer.close()


@settings(deadline=None)  # a busy machine is no defect
@given(inches, inches, st.sampled_from(RESOLUTIONS))
def test_every_page_fits_and_keeps_its_proportions(
    width: float, height: float, resolution: str
) -> None:
    at = place(width, height, resolution)
    across, down = (height, width) if at.turned else (width, height)

    assert at.left >= 0
    assert 0 < at.width <= WIDTH - 2 * at.left
    assert 0 < at.rows <= at.length <= longest(resolution)
    drawn = (at.width / DPI_X) / (at.rows / ROWS_PER_INCH[resolution])
    # One pixel of rounding on either side, and the six pixels that Letter is wider than a fax line.
    assert drawn == pytest.approx(across / down, rel=0.01 + 1.0 / at.width + 1.0 / at.rows)


@settings(deadline=None)
@given(inches, inches, st.sampled_from(RESOLUTIONS))
def test_only_a_page_that_is_wider_than_the_fax_is_turned(
    width: float, height: float, resolution: str
) -> None:
    assert place(width, height, resolution).turned == (width > 8.5 and width > height)


@settings(deadline=None)
@given(st.floats(6, 8.5), st.floats(1, 33))
def test_a_page_that_fits_keeps_its_size(width: float, height: float) -> None:
    at = place(width, height, "fine")

    assert at.rows == round(height * 196)
    assert at.width == min(WIDTH, round(width * 204))


def mm(width: float, height: float) -> make.Box:
    return (0, 0, width * 72 / 25.4, height * 72 / 25.4)


PAPERS = {
    # name: page box, columns of the drawn page, its rows at fine resolution, turned
    "letter": (Sheet((0, 0, 612, 792)), 1728, 2156, False),
    "legal": (Sheet((0, 0, 612, 1008)), 1728, 2744, False),
    "tabloid": (Sheet((0, 0, 792, 1224)), 1728, 2575, False),
    "a4": (Sheet(mm(210, 297)), 1687, 2292, False),
    "a3": (Sheet(mm(297, 420)), 1728, 2356, False),
    "a5": (Sheet(mm(148, 210)), 1581, 2156, False),
    "a5 landscape": (Sheet(mm(210, 148)), 1687, 1142, False),
    "a4 landscape": (Sheet(mm(297, 210)), 1687, 2292, True),
    "letter landscape": (Sheet((0, 0, 792, 612)), 1728, 2156, True),
    "slides": (Sheet((0, 0, 960, 540)), 1530, 2613, True),
    "letter turned by /Rotate": (Sheet((0, 0, 792, 612), rotate=90), 1728, 2156, False),
    "letter upside down": (Sheet((0, 0, 612, 792), rotate=180), 1728, 2156, False),
    "letter on its side by /Rotate": (Sheet((0, 0, 612, 792), rotate=270), 1728, 2156, True),
    "crop box": (Sheet((0, 0, 1000, 1000), crop=(150, 50, 150 + 504, 50 + 648)), 1428, 1764, False),
    "origin elsewhere": (Sheet((-300, -400, 312, 392)), 1728, 2156, False),
    "label": (Sheet((0, 0, 288, 432)), 1496, 2156, False),
    "card": (Sheet((0, 0, 252, 144)), 1687, 926, False),
    "units of a drawing": (Sheet((0, 0, 306, 396), user_unit=2), 1687, 2097, False),
    "receipt": (Sheet((0, 0, 226, 3600)), 423, 6468, False),
    "a2 poster": (Sheet(mm(420, 594)), 1728, 2356, False),
}


@pytest.mark.parametrize("resolution", RESOLUTIONS)
@pytest.mark.parametrize(("sheet", "columns", "rows", "turned"), PAPERS.values(), ids=list(PAPERS))
def test_all_four_corners_of_a_pdf_page_arrive(
    renderer: Renderer,
    tmp_path: Path,
    sheet: Sheet,
    columns: int,
    rows: int,
    turned: bool,
    resolution: str,
) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(make.pdf(sheet))

    assert renderer.render([(source, "application/pdf")], target, resolution=resolution) == 1

    (page,) = look.pages(target)
    length = rows if resolution == "fine" else rows / 2
    left, top, right, bottom = look.ink_box(page)
    assert page.width == 1728
    assert page.height >= bottom
    assert left == pytest.approx((1728 - columns) // 2, abs=2)
    assert top <= 1
    assert right - left == pytest.approx(columns, abs=3)
    assert bottom == pytest.approx(length, abs=3)
    assert all(
        corner > 0.9 for corner in look.corners(page, (left, top, right, bottom), _rows(resolution))
    )
    assert _bar(page, (left, top, right, bottom)) == _bar_expected(sheet.rotate, turned)


def _rows(resolution: str) -> int:
    return 20 if resolution == "fine" else 10


def _bar(page: Image.Image, box: tuple[int, int, int, int]) -> str:
    """On which edge the bar is: three marks there, two on the one opposite."""
    left, top, right, bottom = box
    edges = {
        "top": look.share(page, (left, top, right, top + 3)),
        "bottom": look.share(page, (left, bottom - 3, right, bottom)),
        "left": look.share(page, (left, top, left + 3, bottom)),
        "right": look.share(page, (right - 3, top, right, bottom)),
    }
    opposite = {"top": "bottom", "bottom": "top", "left": "right", "right": "left"}
    return max(edges, key=lambda edge: edges[edge] / edges[opposite[edge]])


def _bar_expected(rotate: int, turned: bool) -> str:
    """The bar is on the upper edge; /Rotate turns clockwise, a landscape page is turned
    counter-clockwise."""
    sides = ("top", "right", "bottom", "left")
    return sides[(rotate // 90 - (1 if turned else 0)) % 4]


IMAGES = {
    # name: mode, size, how it is saved, columns and rows of the drawn page (fine), edge with the
    # bar
    "png": ("L", (1000, 1200), "PNG", {"dpi": (150, 150)}, (1360, 1568), "top"),
    "png without a density": ("L", (1600, 2000), "PNG", {}, (1632, 1960), "top"),
    "png of a screen": ("L", (1920, 1080), "PNG", {"dpi": (96, 96)}, (1262, 2156), "left"),
    "png in colours": ("RGB", (1000, 1200), "PNG", {"dpi": (150, 150)}, (1360, 1568), "top"),
    "png on nothing": ("RGBA", (1000, 1200), "PNG", {"dpi": (150, 150)}, (1360, 1568), "top"),
    "png with a palette": ("P", (1000, 1200), "PNG", {"dpi": (150, 150)}, (1360, 1568), "top"),
    "png of 16 bits": ("I;16", (1000, 1200), "PNG", {"dpi": (150, 150)}, (1360, 1568), "top"),
    "png in black and white": ("1", (1000, 1200), "PNG", {"dpi": (150, 150)}, (1360, 1568), "top"),
    "jpeg": ("RGB", (1000, 1200), "JPEG", {"dpi": (150, 150)}, (1360, 1568), "top"),
    "jpeg of a camera": ("RGB", (4000, 3000), "JPEG", {}, (1728, 2221), "left"),
    "jpeg for print": ("CMYK", (1000, 1200), "JPEG", {"dpi": (150, 150)}, (1360, 1568), "top"),
    "tiny jpeg": ("L", (60, 80), "JPEG", {}, (1683, 2156), "top"),
    "tiff": ("L", (1000, 1200), "TIFF", {"dpi": (150, 150)}, (1360, 1568), "top"),
    "tiff lzw": (
        "RGB", (1000, 1200), "TIFF", {"dpi": (150, 150), "compression": "tiff_lzw"},
        (1360, 1568), "top"),
    "tiff jpeg": (
        "RGB", (1000, 1200), "TIFF", {"dpi": (150, 150), "compression": "jpeg"},
        (1360, 1568), "top"),
    "tiff deflate": (
        "L", (1000, 1200), "TIFF", {"dpi": (150, 150), "compression": "tiff_adobe_deflate"},
        (1360, 1568), "top"),
    "tiff packbits": (
        "P", (1000, 1200), "TIFF", {"dpi": (150, 150), "compression": "packbits"},
        (1360, 1568), "top"),
    "tiff group 3": (
        "1", (1728, 1100), "TIFF", {"dpi": (204, 98), "compression": "group3"},
        (1728, 2200), "top"),
    "tiff group 4 at 300": (
        "1", (2480, 3508), "TIFF", {"dpi": (300, 300), "compression": "group4"},
        (1686, 2292), "top"),
    "tiff of 16 bits": ("I;16", (1000, 1200), "TIFF", {"dpi": (150, 150)}, (1360, 1568), "top"),
    "tiff in CMYK": ("CMYK", (1000, 1200), "TIFF", {"dpi": (150, 150)}, (1360, 1568), "top"),
    "tiff with transparency": (
        "RGBA", (1000, 1200), "TIFF", {"dpi": (150, 150)}, (1360, 1568), "top"),
    "tiff in centimetres": (
        "L", (1000, 1200), "TIFF", {"tiffinfo": {282: 60.0, 283: 60.0, 296: 3}},
        (1339, 1543), "top"),
    "tiff on its side with oblong pixels": (
        "L", (1000, 1200), "TIFF", {"dpi": (100, 200), "tiffinfo": {274: 6}},
        (1224, 1960), "right"),
    "tiff on its side": (
        "L", (1200, 1000), "TIFF", {"dpi": (150, 150), "tiffinfo": {274: 6}},
        (1360, 1568), "right"),
}  # fmt: skip


@pytest.mark.parametrize("resolution", RESOLUTIONS)
@pytest.mark.parametrize(
    ("mode", "size", "form", "options", "drawn", "edge"), IMAGES.values(), ids=list(IMAGES)
)
def test_all_four_corners_of_a_picture_arrive(
    renderer: Renderer,
    tmp_path: Path,
    mode: str,
    size: tuple[int, int],
    form: str,
    options: dict[str, object],
    drawn: tuple[int, int],
    edge: str,
    resolution: str,
) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(make.encoded(make.marked(size, mode), form, **options))

    assert renderer.render([(source, "")], target, resolution=resolution) == 1

    (page,) = look.pages(target)
    left, top, right, bottom = look.ink_box(page)
    assert page.width == 1728
    assert right - left == pytest.approx(drawn[0], abs=8)
    assert left == pytest.approx((1728 - drawn[0]) // 2, abs=5)
    assert bottom - top == pytest.approx(drawn[1] / (1 if resolution == "fine" else 2), abs=8)
    assert all(
        corner > 0.85
        for corner in look.corners(page, (left, top, right, bottom), _rows(resolution))
    )
    assert _bar(page, (left, top, right, bottom)) == edge
    assert look.share(page, (left + 400, top + 200, right - 400, bottom - 200)) < 0.01


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize(
    ("orientation", "edge"),
    # EXIF 2.32, 4.6.5 A: where row 0 and column 0 of the stored picture are shown; 2, 4, 5 and 7
    # are mirrored.
    [
        (1, "top"),
        (2, "top"),
        (3, "bottom"),
        (4, "bottom"),
        (5, "left"),
        (6, "right"),
        (7, "right"),
        (8, "left"),
    ],
)
def test_a_picture_is_shown_as_the_camera_was_held(
    renderer: Renderer, tmp_path: Path, form: str, orientation: int, edge: str
) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    exif = Image.Exif()
    exif[274] = orientation
    options = {"tiffinfo": {274: orientation}} if form == "TIFF" else {"exif": exif}
    source.write_bytes(make.encoded(make.marked((1300, 1500)), form, dpi=(200, 200), **options))

    renderer.render([(source, "")], target, resolution="fine")

    (page,) = look.pages(target)
    box = look.ink_box(page)
    swapped = orientation >= 5
    assert box[2] - box[0] == pytest.approx((1500 if swapped else 1300) * 1.02, abs=6)
    assert _bar(page, box) == edge


def test_pages_of_different_sizes_keep_their_order_and_their_lengths(
    renderer: Renderer, tmp_path: Path
) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    sheets = [Sheet((0, 0, 612, 72 * length)) for length in (11, 14, 5, 17, 11)]
    source.write_bytes(make.pdf(*sheets))

    assert renderer.render([(source, "")], target, resolution="fine") == 5

    assert [page.height for page in look.pages(target)] == [2156, 2744, 980, 3332, 2156]


def test_a_filled_in_form_field_is_drawn(renderer: Renderer, tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(make.form_pdf())

    renderer.render([(source, "")], target, resolution="fine")

    (page,) = look.pages(target)
    # The field begins 100 points from the left and 352 points from the top; its letters are broad.
    assert look.share(page, (300, 970, 800, 1050)) > 0.15


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_empty_pages_stay_where_they_are(
    renderer: Renderer, tmp_path: Path, resolution: str
) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(make.pdf(Sheet(), Sheet(content=b""), Sheet(), Sheet(content=b"")))

    assert renderer.render([(source, "")], target, resolution=resolution) == 4

    blank = [
        not page.convert("L").point(lambda tone: 255 - tone).getbbox()
        for page in look.pages(target)
    ]
    assert blank == [False, True, False, True]


def test_annotations_are_drawn_as_on_paper(renderer: Renderer, tmp_path: Path) -> None:
    """Those that print: a note on the screen alone, or a hidden one, is not on the fax."""
    source, target = tmp_path / "a", tmp_path / "b"
    square = b"<< /Type /Annot /Subtype /Square /IC [0 0 0] /CA 1 /F %d /Rect [100 %d 300 %d] >>"
    places = {
        4: 600,
        0: 400,
        6: 200,
    }  # flags (ISO 32000-1, table 165): print; none; print and hidden
    annotations = b"".join(
        square % (flags, bottom, bottom + 100) for flags, bottom in places.items()
    )
    source.write_bytes(make.pdf(Sheet(content=b"", more=b"/Annots [%s]" % annotations)))

    renderer.render([(source, "")], target, resolution="fine")

    (page,) = look.pages(target)
    seen = {
        flags: look.share(
            page, (300, (792 - bottom - 90) * 196 // 72, 800, (792 - bottom - 10) * 196 // 72)
        )
        for flags, bottom in places.items()
    }
    assert seen == {4: 1, 0: 0, 6: 0}
