"""Text is laid out whole: wrapped and never cut, tabs expanded, form feeds kept, every word on the
paper."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageDraw, ImageFont

from faxbot.documents import Checker, Limits, Renderer
from faxbot.documents.lettering import CELL, LEFT, LINE, MARGIN, SIZE
from faxbot.documents.plaintext import COLUMNS, FONT, LINES, _parts, _wrapped
from faxbot.errors import DocumentError, DocumentTooLarge, DocumentUnsupported
from tests.documents import look, make

LIMITS = Limits(max_pages=50, max_pixels=100_000_000, seconds=60, memory_mb=1024)


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    renderer = Renderer(LIMITS, 1)
    yield renderer
    renderer.close()


def rendered(
    renderer: Renderer, folder: Path, text: str, resolution: str = "fine"
) -> list[Image.Image]:
    source, target = folder / "a", folder / "b"
    source.write_bytes(text.encode())
    renderer.render([(source, "")], target, resolution=resolution)
    return look.pages(target)


@settings(deadline=None)  # a busy machine is no defect
@given(st.text(st.sampled_from("ab .-\u00e4"), max_size=400))
def test_wrapping_keeps_every_letter_in_its_order(line: str) -> None:
    pieces = _wrapped(line)

    assert all(len(piece) <= COLUMNS for piece in pieces)
    assert "".join(pieces).replace(" ", "") == line.replace(" ", "")
    assert " ".join(pieces).split() == line.split() or any(
        len(word) > COLUMNS for word in line.split()
    )


def before(line: str) -> list[str]:
    """The same by cutting the line down piece by piece, which is plain but slow."""
    pieces = []
    while len(line) > COLUMNS:
        at = line.rfind(" ", 0, COLUMNS + 1)
        if at <= 0 or not line[:at].strip():
            at, after = COLUMNS, COLUMNS
        else:
            after = at + 1
        pieces.append(line[:at])
        line = line[after:]
    return [*pieces, line]


@settings(deadline=None)
@given(st.text(st.sampled_from("ab    "), max_size=1000))
def test_wrapping_is_cutting_down_piece_by_piece(line: str) -> None:
    assert _wrapped(line) == before(line)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("\t" * 3_000_000 + "x", DocumentTooLarge),
        (" " * 5_000_000 + "x", DocumentTooLarge),
        ("x" * 7_000_000, DocumentTooLarge),
        ("\n" * 7_000_000 + "x", DocumentTooLarge),
        ("a" + "\u0301\u0316" * 1_000_000, DocumentUnsupported),
    ],
    ids=["tabs", "spaces", "one word", "line ends", "accents"],
)
def test_no_text_takes_long(tmp_path: Path, text: str, error: type[DocumentError]) -> None:
    path = tmp_path / "a"
    path.write_bytes(text.encode())
    checker = Checker(Limits(max_pages=350, max_pixels=10**8, seconds=5, memory_mb=1024))

    with pytest.raises(error) as caught:
        checker.check(path)

    assert type(caught.value) is error
    checker.close()


@settings(deadline=None)
@given(st.lists(st.text("abc", min_size=1, max_size=COLUMNS), min_size=1, max_size=60))
def test_no_word_is_broken_that_fits_a_line(words: list[str]) -> None:
    assert [word for piece in _wrapped(" ".join(words)) for word in piece.split()] == words


@settings(deadline=None)
@given(st.lists(st.text("ab\n", max_size=20), min_size=1, max_size=8))
def test_form_feeds_part_pages_and_only_a_last_one_opens_none(pages: list[str]) -> None:
    text = "\f".join([*pages, "x"])

    assert (
        len(_parts(text))
        == len(_parts(text + "\f"))
        == len(_parts(text + "\n\f\n"))
        == len(pages) + 1
    )


GLYPHS = "".join(map(chr, range(33, 127)))


def cell(page: Image.Image, row: int, column: int) -> Image.Image:
    left, top = LEFT + column * CELL, MARGIN + row * LINE
    return page.crop((left, top, left + CELL, top + LINE))


def template(character: str) -> Image.Image:
    """What a glyph looks like, drawn apart from the code under test."""
    image = Image.new("L", (CELL, LINE), 255)
    font = ImageFont.truetype(str(FONT), SIZE, layout_engine=ImageFont.Layout.BASIC)
    ImageDraw.Draw(image).text((0, 0), character, fill=0, font=font)
    return image.point([0 if tone < 150 else 255 for tone in range(256)], "1")


TEMPLATES = {character: template(character) for character in " " + GLYPHS}


def read(page: Image.Image, row: int) -> str:
    """The text of a line on a fax page, by the glyph that differs least in each cell."""
    line = ""
    for column in range(COLUMNS):
        seen = cell(page, row, column)
        line += min(TEMPLATES, key=lambda glyph: _difference(seen, TEMPLATES[glyph]))
    return line.rstrip()


def _difference(one: Image.Image, other: Image.Image) -> int:
    return int(ImageChops.logical_xor(one, other).convert("L").histogram()[255])


def test_every_letter_of_long_lines_can_be_read_from_the_paper(
    renderer: Renderer, tmp_path: Path
) -> None:
    text = f"{GLYPHS}{GLYPHS[::-1]}\n\tafter a tab\n" + " ".join(make.WORDS * 2)

    (page,) = rendered(renderer, tmp_path, text)

    lines = [read(page, row) for row in range(16)]
    assert "".join(lines[:3]) == GLYPHS + GLYPHS[::-1]
    assert lines[3] == " " * 8 + "after a tab"
    assert " ".join(lines[4:]).split() == make.WORDS * 2


@pytest.mark.parametrize("resolution", ["fine", "standard"])
def test_each_character_is_as_broad_as_it_is_laid_out(
    renderer: Renderer, tmp_path: Path, resolution: str
) -> None:
    """A full line of ink from margin to margin, in every script of the font."""
    text = "\n".join(letter * COLUMNS for letter in "M\u0416\u03a9\u00c4\u20ac\u2588")

    (page,) = rendered(renderer, tmp_path, text, resolution)

    left, top, right, bottom = look.ink_box(page)
    down = 1 if resolution == "fine" else 2
    assert page.size == (1728, 2156 // down)
    assert left == pytest.approx(LEFT, abs=3)
    assert right == pytest.approx(LEFT + COLUMNS * CELL, abs=3)
    assert bottom <= (MARGIN + 6 * LINE) / down + 2
    assert top >= MARGIN / down
    for row in range(6):
        line = (LEFT, (MARGIN + row * LINE) // down, right, (MARGIN + (row + 1) * LINE) // down)
        assert look.share(page, line) > 0.1


def test_as_many_lines_as_laid_out_are_on_each_page(renderer: Renderer, tmp_path: Path) -> None:
    pages = rendered(
        renderer, tmp_path, "\n".join(f"line {number}" for number in range(2 * LINES + 5))
    )

    assert [read(page, 0) for page in pages] == ["line 0", f"line {LINES}", f"line {2 * LINES}"]
    assert read(pages[0], LINES - 1) == f"line {LINES - 1}"
    assert read(pages[2], 4) == f"line {2 * LINES + 4}"
    assert read(pages[2], 5) == ""


def test_blank_pages_between_form_feeds_are_kept(renderer: Renderer, tmp_path: Path) -> None:
    pages = rendered(renderer, tmp_path, "one\f\fthree\r\n\f")

    assert [read(page, 0) for page in pages] == ["one", "", "three"]


def test_what_has_no_width_takes_no_column(renderer: Renderer, tmp_path: Path) -> None:
    (page,) = rendered(renderer, tmp_path, "\ufeffa\u00adb\u200bc\u200ed e\u0301\ufe0f")

    assert read(page, 0).startswith("abcd ")
    assert look.ink_box(page)[2] <= LEFT + 6 * CELL
