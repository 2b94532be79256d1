"""Black and white by content: scans short on the line and readable, pictures like pictures, no
light mark lost."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache, lru_cache
from itertools import product
from pathlib import Path
from statistics import correlation

import pytest
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from faxbot.documents import Limits, Renderer
from faxbot.documents.plaintext import FONT
from tests.documents import look, make

LIMITS = Limits(max_pages=50, max_pixels=100_000_000, seconds=60, memory_mb=1024)
RESOLUTIONS = ("fine", "standard")
PAGE = (1728, 2156)
DPI = 204


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    renderer = Renderer(LIMITS, 2)
    yield renderer
    renderer.close()


def sent(
    renderer: Renderer, folder: Path, data: bytes, resolution: str = "fine"
) -> tuple[list[Image.Image], int]:
    """The fax pages of a document, and the bytes that go on the line for them."""
    source, target = folder / "a", folder / "b"
    source.write_bytes(data)
    renderer.render([(source, "")], target, resolution=resolution)
    return look.pages(target), target.stat().st_size


def as_png(image: Image.Image) -> bytes:
    """A picture whose pixels are the fax page's at fine resolution, but for the different scale
    down."""
    return make.encoded(image, "PNG", dpi=(DPI, DPI))


def group4(image: Image.Image) -> int:
    return len(
        make.encoded(image.convert("1", dither=Image.Dither.NONE), "TIFF", compression="group4")
    )


# --- scans


LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
POINTS = 11
ROWS, COLUMNS = 12, 52


def lines(seed: int) -> list[str]:
    chance = random.Random(seed)
    return ["".join(chance.choices(LETTERS, k=COLUMNS)) for _ in range(ROWS)]


@lru_cache(maxsize=1)
def scans() -> tuple[Image.Image, ...]:
    """From a clean scan to one that is noisier than any office scanner's."""
    return tuple(
        make.scan(lines(seed), font=str(FONT), points=POINTS, sigma=sigma, seed=seed)
        for seed, sigma in enumerate((4.0, 10.0, 16.0, 22.0))
    )


def halftone(image: Image.Image) -> Image.Image:
    """The page as a plain 8 x 8 ordered halftone, as conversion programs make one by default."""
    cell = Image.new("L", (8, 8))
    for x, y in product(range(8), range(8)):
        rank = sum(
            (((x ^ y) >> bit & 1) * 2 + (y >> bit & 1)) << (2 * (2 - bit)) for bit in range(3)
        )
        cell.putpixel((x, y), 4 * rank + 2)
    row = Image.new("L", (image.width, 8))
    for x in range(0, image.width, 8):
        row.paste(cell, (x, 0))
    tile = Image.new("L", image.size)
    for y in range(0, image.height, 8):
        tile.paste(row, (0, y))
    return ImageChops.subtract(image, tile).point([0] + [255] * 255)


def test_scans_take_a_quarter_of_their_halftone_on_the_line_at_most(
    renderer: Renderer, tmp_path: Path
) -> None:
    _, taken = sent(renderer, tmp_path, make.picture_pdf(scans(), (609.9, 792)))

    plain = sum(group4(halftone(scan.resize(PAGE))) for scan in scans())

    assert taken < plain / 4


@cache
def letter_width() -> float:
    return ImageFont.truetype(str(FONT), round(POINTS * DPI / 72)).getlength("m")


@lru_cache(maxsize=2)
def templates(rows_per_inch: int) -> dict[str, Image.Image]:
    """Every letter as it would look on the fax page, drawn apart from the code under test."""
    font = ImageFont.truetype(str(FONT), round(POINTS * DPI / 72))
    width, height = round(font.getlength("m")), round(POINTS * 1.5 * DPI / 72)
    drawn = {}
    for letter in LETTERS:
        image = Image.new("L", (width, height), 255)
        ImageDraw.Draw(image).text((0, 0), letter, fill=0, font=font)
        image = image.resize((width, height * rows_per_inch // DPI), Image.Resampling.BOX)
        drawn[letter] = image.point([0 if tone < 128 else 255 for tone in range(256)], "1")
    return drawn


def read(page: Image.Image, row: int, column: int, rows_per_inch: int) -> str:
    """The letter there: the one whose shape differs least, give or take a pixel of place."""
    drawn = templates(rows_per_inch)
    width, height = drawn["a"].size
    left = DPI * 0.7 + column * letter_width()
    top = (DPI * 0.7 + row * POINTS * 1.7 * DPI / 72) * rows_per_inch / DPI
    places = [(round(left) + x, round(top) + y) for x in (-1, 0, 1) for y in (-1, 0, 1)]
    seen = [page.crop((x, y, x + width, y + height)) for x, y in places]
    return min(drawn, key=lambda letter: min(_differing(one, drawn[letter]) for one in seen))


def _differing(one: Image.Image, other: Image.Image) -> int:
    return int(ImageChops.logical_xor(one, other).histogram()[255])


@pytest.mark.parametrize(("resolution", "rows_per_inch"), [("fine", 196), ("standard", 98)])
def test_scans_stay_readable(
    renderer: Renderer, tmp_path: Path, resolution: str, rows_per_inch: int
) -> None:
    """11 point letters are told apart by their shapes alone, without the words that help a
    person."""
    pages, _ = sent(renderer, tmp_path, make.picture_pdf(scans(), (609.9, 792)), resolution)

    for seed, page in enumerate(pages):
        places = list(product(range(0, ROWS, 4), range(0, COLUMNS, 2)))
        right = sum(
            read(page, row, column, rows_per_inch) == lines(seed)[row][column]
            for row, column in places
        )
        assert right / len(places) > 0.97, f"scan {seed}"


def test_paper_noise_leaves_no_specks(renderer: Renderer, tmp_path: Path) -> None:
    pages, _ = sent(renderer, tmp_path, make.picture_pdf(scans(), (609.9, 792)))

    for page in pages:
        # Below the last line there is nothing but paper; a shadow lies on it.
        assert look.share(page, (0, 1000, 1728, 2156)) < 0.0002


# --- pictures


@pytest.mark.parametrize("resolution", RESOLUTIONS)
@pytest.mark.parametrize("place", ["alone", "on a page of text"])
def test_a_photograph_keeps_its_tones(
    renderer: Renderer, tmp_path: Path, place: str, resolution: str
) -> None:
    photo = make.photo((1200, 900), 7)
    sheet = Image.new("L", PAGE, 255)
    sheet.paste(photo, (300, 600))
    if place == "alone":
        photo = make.photo(PAGE, 7)
        sheet = photo
    pages, _ = sent(renderer, tmp_path, make.encoded(sheet, "PNG", dpi=(204, 196)), resolution)

    box = (0, 0, *PAGE) if place == "alone" else (300, 600, 1500, 1500)
    down = 1 if resolution == "fine" else 2
    seen = pages[0].crop((box[0], box[1] // down, box[2], box[3] // down)).convert("L")
    tones = list(seen.reduce((24, 24 // down)).tobytes())
    wanted = list(photo.reduce(24).tobytes())
    assert len(tones) == len(wanted)
    assert correlation(tones, wanted) > 0.97
    assert len({tone // 16 for tone in tones}) >= 8, "not black and white, but many greys between"


def test_a_photograph_is_much_shorter_than_error_diffusion_would_make_it(
    renderer: Renderer, tmp_path: Path
) -> None:
    photo = make.photo(PAGE, 3)
    _, taken = sent(renderer, tmp_path, make.encoded(photo, "PNG", dpi=(204, 196)))

    diffused = len(make.encoded(photo.convert("1"), "TIFF", compression="group4"))

    assert taken < 0.5 * diffused


# --- marks that a plain threshold loses


def text_on(
    ground: int, ink: int, text: str = "Total amount 123.45", points: int = 11
) -> Image.Image:
    """A white page with a field of one grey, and one line of text on it."""
    image = Image.new("L", PAGE, 255)
    pen = ImageDraw.Draw(image)
    pen.rectangle((200, 500, 1500, 620), fill=ground)
    font = ImageFont.truetype(str(FONT), round(points * DPI / 72))
    pen.text((240, 540), text, fill=ink, font=font)
    return image


@pytest.mark.parametrize("resolution", RESOLUTIONS)
@pytest.mark.parametrize(
    ("ground", "ink"),
    [
        (255, 0),
        (255, 90),
        (255, 150),
        (255, 190),
        (230, 0),
        (200, 0),
        (160, 0),
        (120, 0),
        (0, 255),
        (60, 255),
        (110, 255),
    ],
)
def test_text_can_be_told_from_its_ground(
    renderer: Renderer, tmp_path: Path, ground: int, ink: int, resolution: str
) -> None:
    pages, _ = sent(
        renderer, tmp_path, make.encoded(text_on(ground, ink), "PNG", dpi=(204, 196)), resolution
    )

    # The shape of the letters, as black on white, and the page where they are.
    shape = text_on(255, 0).point([0 if tone < 128 else 255 for tone in range(256)])
    page = pages[0].convert("L")
    if resolution == "standard":
        page = page.resize(PAGE, Image.Resampling.NEAREST)
    box = (240, 540, 900, 590)
    letters = ImageChops.invert(shape.crop(box))
    around = ImageChops.subtract(letters.filter(ImageFilter.MaxFilter(5)), letters)
    inside = _black(page.crop(box), letters)
    outside = _black(page.crop(box), around)
    if ink < ground:
        assert inside > 0.75
        assert outside < 0.45
    else:
        assert inside < 0.25
        assert outside > 0.55


def _black(page: Image.Image, mask: Image.Image) -> float:
    counts = page.histogram(mask.convert("1", dither=Image.Dither.NONE))
    return counts[0] / sum(counts)


@pytest.mark.parametrize("resolution", RESOLUTIONS)
@pytest.mark.parametrize("width", [0.1, 0.25, 0.5])
def test_hairlines_are_not_lost(
    renderer: Renderer, tmp_path: Path, width: float, resolution: str
) -> None:
    stream = b"%g w " % width
    for number in range(10):
        offset = number * 30.7
        stream += b"100 %g m 500 %g l S %g 100 m %g 500 l S " % (
            (400 + offset,) * 2 + (130 + offset,) * 2
        )
    sheet = make.Sheet(content=stream)
    pages, _ = sent(renderer, tmp_path, make.pdf(sheet), resolution)

    (page,) = pages
    down = 196 / 72 if resolution == "fine" else 98 / 72
    for number in range(10):
        y = (792 - 400 - number * 30.7) * down
        x = (130 + number * 30.7) * 1728 / 612
        # Three pixels around the line: one of them is ink all along it.
        across = [
            look.share(page, (320, round(y) + at, 1380, round(y) + at + 1)) for at in (-1, 0, 1)
        ]
        column = round(x) - 2
        along = [
            look.share(page, (left, int(500 * down), left + 1, int(600 * down)))
            for left in range(column, column + 4)
        ]
        assert max(across) > 0.9
        assert max(along) > 0.9


@pytest.mark.parametrize("tone", [0, 128, 255])
def test_a_page_of_one_tone_keeps_it(renderer: Renderer, tmp_path: Path, tone: int) -> None:
    pages, _ = sent(
        renderer, tmp_path, make.encoded(Image.new("L", PAGE, tone), "PNG", dpi=(204, 196))
    )

    black = look.share(pages[0], (0, 0, *PAGE))
    assert {0: black == 1, 128: 0.2 < black < 0.7, 255: black == 0}[tone]
