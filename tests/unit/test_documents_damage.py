"""A damaged picture is refused: it is never drawn white, grey or black in part and sent as a fax."""

from __future__ import annotations

import base64
import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

from faxbot.documents import Checker, Limits, Renderer, pdfium, strict, tiff, whole
from faxbot.errors import DocumentTooLarge, DocumentUnreadable
from tests.documents import hostile, make

LIMITS = Limits(max_pages=50, max_pixels=50_000_000, seconds=60, memory_mb=1024)
SIZE = WIDTH, HEIGHT = 1200, 1600


@pytest.fixture(scope="module")
def checker() -> Iterator[Checker]:
    checker = Checker(LIMITS)
    yield checker
    checker.close()


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    renderer = Renderer(LIMITS, 1)
    yield renderer
    renderer.close()


@cache
def page(mode: str = "L") -> Image.Image:
    """Drawn once: nobody draws into it. Each process that collects tests needs it thirty times."""
    if mode != "L":
        return page().convert(mode)
    image = Image.new("L", SIZE, 255)
    pen = ImageDraw.Draw(image)
    for row in range(60, HEIGHT - 60, 60):
        pen.text((80, row), f"line {row}: 5 mg twice a day", fill=0, font_size=36)
    return image


def group4(image: Image.Image, rows_per_strip: int = 10_000) -> list[bytes]:
    """The Group 4 strips of the picture, by libtiff."""
    file = io.BytesIO(
        make.encoded(image, "TIFF", compression="group4", tiffinfo={278: rows_per_strip})
    )
    return [file.getvalue()[at : at + length] for at, length in tiff.read(file, 1)[0].pieces]


def fax_file(strip: bytes) -> bytes:
    file = io.BytesIO()
    tiff.write(file, [tiff.Strip(2156, strip)], total=1, resolution="fine")
    return file.getvalue()


def jbig2(strip: bytes) -> bytes:
    """A page of one region in JBIG2, coded as Group 4 (T.88, 6.2.6)."""

    def segment(number: int, kind: int, data: bytes) -> bytes:
        return struct.pack(">IBBBI", number, kind, 0, 1, len(data)) + data

    return segment(0, 48, struct.pack(">IIIIBH", *SIZE, 0, 0, 0, 0)) + segment(
        1, 38, struct.pack(">IIIIBB", *SIZE, 0, 0, 0, 1) + strip
    )


def group3(image: Image.Image, rows_per_strip: int = 10_000, options: int = 0) -> bytes:
    """A TIFF of Group 3 data by libtiff; options 1: with two dimensions, 4: ends at whole bytes."""
    return make.encoded(
        image, "TIFF", compression="group3", dpi=(204, 196),
        tiffinfo={278: rows_per_strip, 292: options})  # fmt: skip


def group3_strip(**options: int) -> bytes:
    data = group3(page("1"), **options)
    ((at, length),) = tiff.read(io.BytesIO(data), 1)[0].pieces
    return data[at : at + length]


def group3_without_ends() -> bytes:
    """Rows of Group 3 data that begin at whole bytes instead, so that zeros lie between them."""
    data = make.encoded(page("1"), "TIFF", compression="tiff_ccitt", tiffinfo={278: 10_000})
    ((at, length),) = tiff.read(io.BytesIO(data), 1)[0].pieces
    return data[at : at + length]


def less(data: bytes, part: float) -> bytes:
    """The TIFF with only a part of each strip: what follows is zeros, as where a file was not
    written to its end."""
    for at, length in tiff.read(io.BytesIO(data), 1)[0].pieces:
        kept = int(length * part)
        data = data[: at + kept] + bytes(length - kept) + data[at + length :]
    return data


JPEG = make.encoded(page(), "JPEG")
SLOW_JPEG = make.encoded(page(), "JPEG", progressive=True)
THUMBED = JPEG[:2] + b"\xff\xe1\x02\x00" + (b"\xff\xd8\xff\xda\xff\xd9" * 99)[:510] + JPEG[2:]
JPX = make.encoded(page(), "JPEG2000")
FLATE = zlib.compress(page().tobytes())
(STRIP,) = group4(page("1"))
JBIG2 = jbig2(*group4(page().point([255 - tone for tone in range(256)], "1")))
FLUSHED = zlib.compressobj()
SYNCHRONISED = FLUSHED.compress(page().tobytes()) + FLUSHED.flush(zlib.Z_SYNC_FLUSH)
FLUSHED = zlib.compressobj()
ONE_BYTE_MORE = FLUSHED.compress(page().tobytes() + b"\n") + FLUSHED.flush(zlib.Z_SYNC_FLUSH)

GREY = b"/ColorSpace /DeviceGray /BitsPerComponent 8 /Filter "
COLOURS = b"/ColorSpace /DeviceRGB /BitsPerComponent 8 /Filter "
INKS = b"/ColorSpace /DeviceCMYK /BitsPerComponent 8 /Filter "
LINES = b"/ColorSpace /DeviceGray /BitsPerComponent 1 /Filter "
SEEN_THROUGH = b"/Mask [0 0] " + GREY
FAX = LINES + b"/CCITTFaxDecode /DecodeParms << /K -1 /Columns 1200 /Rows 1600 /BlackIs1 true >>"

FAX3 = FAX.replace(b"/K -1", b"/K 0 /EndOfLine true")


def middle(data: bytes, other: bytes) -> bytes:
    at = len(data) // 2
    return data[:at] + other + data[at + len(other) :]


WHOLE = {
    "jpeg": (JPEG, GREY + b"/DCTDecode"),
    "progressive jpeg": (SLOW_JPEG, GREY + b"/DCTDecode"),
    "jpeg without its end": (JPEG[:-2], GREY + b"/DCTDecode"),
    "jpeg with a preview": (THUMBED, GREY + b"/DCTDecode"),
    "jpeg in zlib": (zlib.compress(JPEG), GREY + b"[/FlateDecode /DCTDecode]"),
    "jpeg 2000": (JPX, GREY + b"/JPXDecode"),
    "zlib": (FLATE, GREY + b"/FlateDecode"),
    "zlib without its checksum": (FLATE[:-4], GREY + b"/FlateDecode"),
    "zlib with a wrong checksum": (FLATE[:-4] + b"abcd", GREY + b"/FlateDecode"),
    "zlib that was never finished": (SYNCHRONISED, GREY + b"/FlateDecode"),
    "zlib with more behind it": (FLATE + b"\r\n", GREY + b"/FlateDecode"),
    "zlib of lines": (zlib.compress(page("1").tobytes()), LINES + b"/FlateDecode"),
    "group 4": (STRIP, FAX),
    "group 4 without its end": (STRIP[:-3], FAX),
    "group 4 with zeros behind it": (STRIP + bytes(9), FAX),
    "group 4 with other things behind it": (STRIP + bytes(range(256)) + bytes(9), FAX),
    "group 3": (group3_strip(), FAX3),
    "group 3 with two dimensions": (group3_strip(options=1), FAX3.replace(b"/K 0", b"/K 4")),
    "group 3 in whole bytes, without ends": (
        group3_without_ends(),
        FAX.replace(b"/K -1", b"/K 0 /EncodedByteAlign true"),
    ),
    "jbig2": (JBIG2, LINES + b"/JBIG2Decode"),
    "not packed": (page().tobytes(), GREY + b"[]"),
    "not packed, in colours": (page("RGB").tobytes(), COLOURS + b"[]"),
    "not packed, in inks": (page("CMYK").tobytes(), INKS + b"[]"),
    "not packed, with a line end": (page().tobytes() + b"\r\n", GREY + b"[]"),
    "not packed, with more rows": (page().tobytes() + bytes(12_000), GREY + b"[]"),
    "not packed, with bytes that make no row": (page().tobytes() + bytes(607), GREY + b"[]"),
    "not packed, in colours, with such": (page("RGB").tobytes() + bytes(607), COLOURS + b"[]"),
    "not packed, in inks, with such": (page("CMYK").tobytes() + bytes(607), INKS + b"[]"),
    "not packed lines with such": (page("1").tobytes() + bytes(607), LINES + b"[]"),
    "zlib with a line end inside, not finished": (ONE_BYTE_MORE, GREY + b"/FlateDecode"),
    "zlib with a line end inside, no checksum": (
        zlib.compress(page().tobytes() + b"\r\n")[:-4],
        GREY + b"/FlateDecode",
    ),
    "text of zlib": (base64.a85encode(FLATE) + b"~>", GREY + b"[/ASCII85Decode /FlateDecode]"),
}
DAMAGED = {
    "jpeg with a zeroed head": (bytes(64) + JPEG[64:], GREY + b"/DCTDecode"),
    "jpeg with a broken frame": (JPEG.replace(b"\xff\xc0", b"\xff\x00", 1), GREY + b"/DCTDecode"),
    "jpeg of 200 bytes": (JPEG[:200], GREY + b"/DCTDecode"),
    "half a jpeg": (hostile.cut(JPEG, 0.5), GREY + b"/DCTDecode"),
    "nearly all of a jpeg": (JPEG[:-400], GREY + b"/DCTDecode"),
    "half a progressive jpeg": (hostile.cut(SLOW_JPEG, 0.5), GREY + b"/DCTDecode"),
    "half a jpeg with a preview": (hostile.cut(THUMBED, 0.5), GREY + b"/DCTDecode"),
    "half a jpeg in zlib": (zlib.compress(JPEG[:9000]), GREY + b"[/FlateDecode /DCTDecode]"),
    "no jpeg": (b"garbage", GREY + b"/DCTDecode"),
    "nothing": (b"", GREY + b"/DCTDecode"),
    "no jpeg 2000": (b"garbage", GREY + b"/JPXDecode"),
    "half a jpeg 2000": (hostile.cut(JPX, 0.5), GREY + b"/JPXDecode"),
    "no zlib": (b"garbage", GREY + b"/FlateDecode"),
    "half a zlib": (hostile.cut(FLATE, 0.5), GREY + b"/FlateDecode"),
    "zlib with a zeroed middle": (middle(FLATE, bytes(400)), GREY + b"/FlateDecode"),
    "sound zlib of too few rows": (zlib.compress(page().tobytes()[:-5077]), GREY + b"/FlateDecode"),
    "half a group 4": (hostile.cut(STRIP, 0.5), FAX),
    "half a group 4 with an end": (hostile.cut(STRIP, 0.5) + b"\0\x10\x01", FAX),
    "group 4 with a zeroed middle": (middle(STRIP, bytes(200)), FAX),
    "half a group 3": (hostile.cut(group3_strip(), 0.5), FAX3),
    "half a group 3 with two dimensions": (
        hostile.cut(group3_strip(options=1), 0.5),
        FAX3.replace(b"/K 0", b"/K 4"),
    ),
    "half a jbig2": (hostile.cut(JBIG2, 0.5), LINES + b"/JBIG2Decode"),
    "jbig2 with a zeroed head": (bytes(20) + JBIG2[20:], LINES + b"/JBIG2Decode"),
    "no jbig2": (b"garbage", LINES + b"/JBIG2Decode"),
    "cut off, not packed": (page().tobytes()[:-5000], GREY + b"[]"),
    "cut off, not packed, in colours": (page("RGB").tobytes()[:-5000], COLOURS + b"[]"),
    "cut off, not packed, in inks": (page("CMYK").tobytes()[:-5000], INKS + b"[]"),
    "cut off, not packed, seen through": (page().tobytes()[:-5000], SEEN_THROUGH + b"[]"),
    "half a text of zlib": (
        base64.a85encode(hostile.cut(FLATE, 0.5)) + b"~>",
        GREY + b"[/ASCII85Decode /FlateDecode]",
    ),
    "no lzw": (b"garbage", GREY + b"/LZWDecode"),
    "a code that nobody knows": (b"garbage", GREY + b"/FooDecode"),
}


@pytest.mark.parametrize(("data", "entries"), WHOLE.values(), ids=list(WHOLE))
@pytest.mark.parametrize("forms", [0, 6])
def test_a_picture_that_is_whole_is_sent(
    checker: Checker, renderer: Renderer, tmp_path: Path, data: bytes, entries: bytes, forms: int
) -> None:
    path = tmp_path / "a"
    path.write_bytes(make.data_pdf(data, SIZE, entries, forms=forms))

    assert checker.check(path).pages == 1
    assert renderer.render([(path, "")], tmp_path / "b", resolution="fine") == 1

    with Image.open(tmp_path / "b") as image:
        ink = image.convert("L").histogram()[0]
    assert 0.005 < ink / (1728 * 2156) < 0.2


@pytest.mark.parametrize(("data", "entries"), DAMAGED.values(), ids=list(DAMAGED))
@pytest.mark.parametrize("forms", [0, 6])
def test_a_damaged_picture_is_refused_at_once_and_never_drawn(
    checker: Checker, renderer: Renderer, tmp_path: Path, data: bytes, entries: bytes, forms: int
) -> None:
    path = tmp_path / "a"
    path.write_bytes(make.data_pdf(data, SIZE, entries, forms=forms))

    with pytest.raises(DocumentUnreadable, match="picture on page 1 of the PDF is damaged"):
        checker.check(path)
    with pytest.raises(DocumentUnreadable, match="picture on page 1 of the PDF is damaged"):
        renderer.render([(path, "")], tmp_path / "b", resolution="fine")


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("palette", [False, True])
@pytest.mark.parametrize("pack", ["none", "hex", "text of zlib", "zlib"])
@pytest.mark.parametrize("size", [(200, 100), (17, 9), (1, 1)])
def test_a_picture_with_a_colour_to_see_through_is_whole(
    checker: Checker, tmp_path: Path, bits: int, palette: bool, pack: str, size: tuple[int, int]
) -> None:
    data = random.Random(1).randbytes((size[0] * bits + 7) // 8 * size[1])
    coded, code = {
        "none": (data, b"[]"),
        "hex": (data.hex().encode() + b">", b"/ASCIIHexDecode"),
        "text of zlib": (
            base64.a85encode(zlib.compress(data)) + b"~>",
            b"[/ASCII85Decode /FlateDecode]",
        ),
        "zlib": (zlib.compress(data), b"/FlateDecode"),
    }[pack]
    space = b"[/Indexed /DeviceRGB 1 <000000FFFFFF>]" if palette else b"/DeviceGray"
    entries = b"/ColorSpace %s /BitsPerComponent %d /Mask [0 0] /Filter %s" % (space, bits, code)
    path = tmp_path / "a"
    path.write_bytes(make.data_pdf(coded, size, entries))

    assert checker.check(path).pages == 1


@pytest.mark.parametrize("there", [b"", b"/ColorSpace << /C /DeviceRGB >>"])
@pytest.mark.parametrize("missing", [0, 5000])
def test_an_inline_picture_has_the_colours_of_its_form(
    checker: Checker, renderer: Renderer, tmp_path: Path, there: bytes, missing: int
) -> None:
    """Whatever the page calls by their name."""
    path = tmp_path / "a"
    data = page().tobytes()
    picture = b"BI /W 1200 /H 1600 /BPC 8 /CS /C /F /AHx ID %s>\nEI" % (
        data[: len(data) - missing].hex().encode()
    )
    draws = b"q 612 0 0 792 0 0 cm /I Do Q"
    path.write_bytes(
        make.assemble(
            [
                b"<< /Type /Catalog /Pages 2 0 R >>",
                b"<< /Type /Pages /Count 1 /Kids [3 0 R] >>",
                b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R"
                b" /Resources << /XObject << /I 5 0 R >> %s >> >>" % there,
                b"<< /Length %d >>\nstream\n%s\nendstream" % (len(draws), draws),
                b"<< /Type /XObject /Subtype /Form /BBox [0 0 1 1] /Resources"
                b" << /ColorSpace << /C 6 0 R >> >> /Length %d >>\nstream\n%s\nendstream"
                % (len(picture), picture),
                b"[/Indexed /DeviceGray 255 <%s>]" % bytes(range(256)).hex().encode(),
            ]
        )
    )

    if missing:
        with pytest.raises(DocumentUnreadable, match="picture on page 1 of the PDF is damaged"):
            checker.check(path)
        return
    assert checker.check(path).pages == 1
    renderer.render([(path, "")], tmp_path / "b", resolution="fine")
    with Image.open(tmp_path / "b") as image:
        ink = image.convert("L").histogram()[0]
    assert 0.005 < ink / (1728 * 2156) < 0.2


def uses(data: bytes, size: tuple[int, int], entries: bytes, times: int) -> bytes:
    """A page that draws the picture of `make.data_pdf` so many times, each time a slice of it."""
    once = b"<< /Length 28 >>\nstream\nq 612 0 0 792 0 0 cm /I Do Q\nendstream"
    slices = b"".join(
        b"q 0 %.2f 612 %.2f re W n 612 0 0 792 0 0 cm /I Do Q\n" % (792 * at / times, 792 / times)
        for at in range(times)
    )
    file = make.data_pdf(data, size, entries)
    assert once in file
    return file.replace(once, b"<< /Length %d >>\nstream\n%s\nendstream" % (len(slices), slices))


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A handle for each picture whose data is looked at, in this process."""
    seen: list[int] = []
    look = pdfium._decodable

    def counting(picture: int, *words: Any, **more: Any) -> bool:
        seen.append(picture)
        return look(picture, *words, **more)

    monkeypatch.setattr(pdfium, "_decodable", counting)
    return seen


def draw(path: Path) -> int:
    """How many pages PDFium draws of it."""
    return sum(1 for _ in pdfium.draw(str(path), 0, 1, resolution="fine", max_pixels=10**8))


@pytest.mark.parametrize("kind", ["jpeg 2000", "zlib"])
def test_a_picture_used_many_times_is_looked_at_once(
    tmp_path: Path, kind: str, looks: list[int]
) -> None:
    """(PDFium itself decodes JPEG 2000 anew for each use when the page has more pixels.)"""
    large = page().resize((2000, 2600))
    data, entries = {
        "jpeg 2000": (make.encoded(large, "JPEG2000"), GREY + b"/JPXDecode"),
        "zlib": (zlib.compress(large.tobytes()), GREY + b"/FlateDecode"),
    }[kind]
    (tmp_path / "a").write_bytes(uses(data, large.size, entries, 1000))

    assert draw(tmp_path / "a") == 1
    assert len(looks) == 1


def test_a_page_of_a_thousand_pictures_is_looked_at_within_measure(
    tmp_path: Path, looks: list[int]
) -> None:
    """Beyond that PDFium is trusted: each of these takes longer to look at than to draw."""
    path, count = tmp_path / "a", 1000
    size, many = (3000, 3000), range(5, 5 + count)
    empty = zlib.compress(bytes(9_000_000), 9)
    content = b"".join(b"q 1 0 0 1 -9 -9 cm /I%d Do Q\n" % number for number in many)
    names = b"".join(b"/I%d %d 0 R " % (number, number) for number in many)
    pictures = [
        b"<< /Type /XObject /Subtype /Image /Width %d /Height %d %s/FlateDecode /Length %d >>\n"
        b"stream\n%s%06d\nendstream" % (*size, GREY, len(empty) + 6, empty, number)
        for number in many
    ]
    path.write_bytes(
        make.assemble(
            [
                b"<< /Type /Catalog /Pages 2 0 R >>",
                b"<< /Type /Pages /Count 1 /Kids [3 0 R] >>",
                b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R"
                b" /Resources << /XObject << %s >> >> >>" % names,
                b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
                *pictures,
            ]
        )
    )

    assert draw(path) == 1
    assert 1 <= len(looks) <= pdfium.PAGE_TROUBLE // 9_000_000 + 1


def test_the_same_picture_is_looked_at_again_in_the_next_document(
    renderer: Renderer, tmp_path: Path
) -> None:
    for name, (data, entries) in (("whole", WHOLE["zlib"]), ("bad", DAMAGED["half a zlib"])):
        (tmp_path / name).write_bytes(uses(data, SIZE, entries, 3))
    assert renderer.render([(tmp_path / "whole", "")], tmp_path / "b", resolution="fine") == 1

    with pytest.raises(DocumentUnreadable, match="picture on page 1"):
        renderer.render([(tmp_path / "bad", "")], tmp_path / "b", resolution="fine")


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_jpeg_that_lacks_nothing_but_its_end_is_sent(
    checker: Checker, renderer: Renderer, tmp_path: Path, mode: str
) -> None:
    path, image = tmp_path / "a", page(mode)
    drawn = []
    for data in (make.encoded(image, "JPEG"), make.encoded(image, "JPEG")[:-2]):
        path.write_bytes(data)
        assert checker.check(path).media_type == "image/jpeg"
        renderer.render([(path, "")], tmp_path / "b", resolution="fine")
        drawn.append((tmp_path / "b").read_bytes())

    assert drawn[0] == drawn[1]

    path.write_bytes(data[:-400])
    with pytest.raises(DocumentUnreadable):
        checker.check(path)
    with pytest.raises(DocumentUnreadable):
        renderer.render([(path, "")], tmp_path / "b", resolution="fine")


def test_a_picture_on_a_late_page_is_looked_at_when_it_is_drawn(
    checker: Checker, renderer: Renderer, tmp_path: Path
) -> None:
    path = tmp_path / "a"
    bad = make.data_pdf(JPEG[:200], SIZE, GREY + b"/DCTDecode")
    kids = b"/Kids [%s] /X [3 0 R]" % (b"6 0 R " * 11 + b"3 0 R")
    path.write_bytes(
        bad.replace(b"/Count 1 /Kids [3 0 R]", b"/Count 12 " + kids).replace(
            b"xref\n",
            b"6 0 obj\n<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] >>\nendobj\nxref\n",
            1,
        )
    )
    assert checker.check(path).pages == 12

    with pytest.raises(DocumentUnreadable, match="picture on page 12"):
        renderer.render([(path, "")], tmp_path / "b", resolution="fine")


@pytest.mark.parametrize("forms", [4, 12])
def test_a_vast_picture_is_found_however_deep_it_lies(
    checker: Checker, tmp_path: Path, forms: int
) -> None:
    path = tmp_path / "a"
    data = zlib.compress(bytes(60_000))
    path.write_bytes(make.data_pdf(data, (20_000, 20_000), GREY + b"/FlateDecode", forms=forms))

    with pytest.raises(DocumentTooLarge, match="20000 x 20000"):
        checker.check(path)


def test_a_vast_picture_is_found_behind_many_objects(checker: Checker, tmp_path: Path) -> None:
    path = tmp_path / "a"
    bomb = hostile.image_bomb_pdf()
    many = b"q " + b"0 0 1 1 re f " * 10_001 + b"q 612 0 0 792 0 0 cm /I Do Q Q"
    stream = b"<< /Length 28 >>\nstream\nq 612 0 0 792 0 0 cm /I Do Q\nendstream"
    assert stream in bomb
    path.write_bytes(
        bomb.replace(stream, b"<< /Length %d >>\nstream\n%s\nendstream" % (len(many), many))
    )

    with pytest.raises(DocumentTooLarge, match="30000 x 30000"):
        checker.check(path)


def sheet() -> Image.Image:
    image = Image.new("1", (1728, 2156), 1)
    image.paste(page("1"), (200, 200))
    return image


(FAX_STRIP,) = group4(sheet())
BAD_FAXES: dict[str, Callable[[], bytes]] = {
    "cut off": lambda: fax_file(FAX_STRIP[: len(FAX_STRIP) // 2]),
    "cut off, with an end": lambda: fax_file(FAX_STRIP[: len(FAX_STRIP) // 2] + b"\0\x10\x01"),
    "one row too few": lambda: fax_file(group4(sheet().crop((0, 0, 1728, 2155)))[0]),
    "damaged": lambda: fax_file(middle(FAX_STRIP, random.Random(1).randbytes(300))),
    "zeroed": lambda: fax_file(middle(FAX_STRIP, bytes(300))),
}


@pytest.mark.parametrize("build", BAD_FAXES.values(), ids=list(BAD_FAXES))
def test_fax_pages_that_lack_rows_are_refused(
    checker: Checker, renderer: Renderer, tmp_path: Path, build: Callable[[], bytes]
) -> None:
    path = tmp_path / "a"
    path.write_bytes(build())

    with pytest.raises(DocumentUnreadable, match="cut off or damaged"):
        checker.check(path)
    with pytest.raises(DocumentUnreadable, match="cut off or damaged"):
        renderer.render([(path, "")], tmp_path / "b", resolution="fine")
    with pytest.raises(DocumentUnreadable, match="cut off or damaged"):
        renderer.render([(path, "")], tmp_path / "b", resolution="standard")


GROUP3 = {
    "one dimension": {},
    "two dimensions": {"options": 1},
    "whole bytes": {"options": 4},
    "many strips": {"rows_per_strip": 100},
}


@pytest.mark.parametrize("options", GROUP3.values(), ids=list(GROUP3))
def test_group3_pages_that_lack_rows_are_refused_and_whole_ones_are_not(
    checker: Checker, renderer: Renderer, tmp_path: Path, options: dict[str, int]
) -> None:
    path = tmp_path / "a"
    data = group3(page("1"), **options)
    for part in (0.9, 0.5, 0.1):
        path.write_bytes(less(data, part))
        with pytest.raises(DocumentUnreadable, match="cut off or damaged"):
            checker.check(path)
        with pytest.raises(DocumentUnreadable, match="cut off or damaged"):
            renderer.render([(path, "")], tmp_path / "b", resolution="fine")

    for whole_image in (page("1"), Image.new("1", (1728, 40)), Image.new("1", (1728, 40), 1)):
        path.write_bytes(group3(whole_image, **options))
        assert checker.check(path).pages == 1
        assert renderer.render([(path, "")], tmp_path / "b", resolution="fine") == 1


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 2000), st.integers(1, 200), st.integers(1, 200), st.integers(0, 999))
def test_whole_group4_data_is_known_as_whole_and_less_is_not(
    columns: int, rows: int, each: int, seed: int
) -> None:
    chance, each = random.Random(seed), min(each, rows)
    noise = Image.frombytes("L", (columns, rows), chance.randbytes(columns * rows))
    image = noise.point([255 if tone > chance.randrange(256) else 0 for tone in range(256)], "1")

    strips = group4(image, each)

    assert strict.group4(strips, columns, rows, each)
    (strip,) = group4(image)
    assert not strict.group4([strip], columns, rows + 1, rows + 1)


@pytest.mark.parametrize(
    ("space", "values"),
    [
        (b"/DeviceGray", 1),
        (b"/DeviceRGB", 3),
        (b"/DeviceCMYK", 4),
        (b"[/Lab << /WhitePoint [1 1 1] >>]", 3),
    ],
)
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("size", [(1, 1), (17, 9), (333, 77), (1000, 31)])
def test_pictures_of_any_colours_are_long_enough_when_they_are_whole(
    checker: Checker, tmp_path: Path, space: bytes, values: int, bits: int, size: tuple[int, int]
) -> None:
    path, row = tmp_path / "a", (size[0] * values * bits + 7) // 8
    data = random.Random(1).randbytes(row * size[1])
    for coded, code in (
        (data, b"[]"), (zlib.compress(data), b"/FlateDecode"), (data.hex().encode() + b">", b"/ASCIIHexDecode"),
    ):  # fmt: skip
        entries = b"/ColorSpace %s /BitsPerComponent %d /Filter %s" % (space, bits, code)
        path.write_bytes(make.data_pdf(coded, size, entries))

        assert checker.check(path).pages == 1


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "RGBA"])
def test_pdfs_of_usual_programs_are_whole(checker: Checker, tmp_path: Path, mode: str) -> None:
    """Pillow leaves the rest of a TIFF behind Group 4 data, and reportlab writes zlib as text."""
    path, image = tmp_path / "a", make.marked((200, 150), "L").convert("RGB")
    image = image.quantize(8) if mode == "P" else image.convert(mode)
    drawn = io.BytesIO()
    canvas = Canvas(drawn)
    canvas.drawImage(ImageReader(image), 0, 0, mask="auto")
    canvas.drawInlineImage(image.convert("RGB"), 0, 200)
    canvas.save()

    for data in (
        make.encoded(image if mode != "RGBA" else image.convert("RGB"), "PDF"),
        drawn.getvalue(),
    ):
        path.write_bytes(data)
        assert checker.check(path).pages == 1


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=5000), st.data())
def test_no_part_of_zlib_data_passes_for_all_of_it(content: bytes, data: st.DataObject) -> None:
    packed = zlib.compress(content)
    cut = data.draw(st.integers(0, len(packed) - 5))

    assert whole.flate(packed, 1)
    assert not whole.flate(packed[:cut], 1)


@pytest.mark.parametrize("rows", [0, 1, 1000, 1999])
def test_a_png_with_too_few_pixels_is_refused_at_once(
    checker: Checker, tmp_path: Path, rows: int
) -> None:
    path = tmp_path / "a"
    path.write_bytes(hostile.png(2000, 2000, rows=rows))

    with pytest.raises(DocumentUnreadable, match="damaged"):
        checker.check(path)


@settings(deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (3, 4), (4, 8), (6, 16)]),
    st.booleans(),
)
def test_a_png_is_whole_with_all_its_rows_and_no_byte_less(
    tmp_path_factory: pytest.TempPathFactory,
    width: int,
    height: int,
    kind: tuple[int, int],
    laced: bool,
) -> None:
    colour, depth = kind
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    # The passes of an interlaced picture, by counting its pixels (PNG, section 8.2).
    order = ("16462646", "77777777", "56565656", "77777777") * 2
    passes: dict[tuple[str, int], int] = {}
    for x in range(width):
        for y in range(height):
            name = order[y % 8][x % 8] if laced else "1"
            if laced and y % 8 == 4 and x % 4 == 0:
                name = "3"
            passes[name, y] = passes.get((name, y), 0) + 1
    size = sum(1 + (across * bits + 7) // 8 for across in passes.values())
    path = tmp_path_factory.mktemp("png") / "a"

    for missing in (0, 1):
        head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, laced)
        data = zlib.compress(bytes(size - missing))
        path.write_bytes(
            b"\x89PNG\r\n\x1a\n"
            + b"".join(
                struct.pack(">I", len(body))
                + name
                + body
                + struct.pack(">I", zlib.crc32(name + body))
                for name, body in (
                    (b"IHDR", head),
                    (b"IDAT", data[:9]),
                    (b"IDAT", data[9:]),
                    (b"IEND", b""),
                )
            )
        )
        assert whole.png(str(path)) is not bool(missing)


def test_what_a_fax_tiff_holds_beside_its_pages_does_not_leave_the_house(
    checker: Checker, renderer: Renderer, tmp_path: Path
) -> None:
    page, preview = sheet(), make.marked((100, 120), "1")
    preview.encoderinfo = {"tiffinfo": {254: 1}}
    options = {"compression": "group4", "dpi": (204, 196)}
    plain = {262: 0, 278: 10_000}
    files = {
        "pages alone": make.encoded(page, "TIFF", tiffinfo=plain, **options),
        "a description": make.encoded(page, "TIFF", tiffinfo={**plain, 270: "Mary"}, **options),
        "a preview": make.encoded(
            page, "TIFF", tiffinfo=plain, save_all=True, append_images=[preview], **options),
        "a page that was taken out": make.encoded(page, "TIFF", tiffinfo=plain, **options) + FAX_STRIP,
    }  # fmt: skip
    ready, drawn = {}, set()
    for name, data in files.items():
        (tmp_path / "a").write_bytes(data)
        ready[name] = checker.check(tmp_path / "a").ready
        renderer.render([(tmp_path / "a", "")], tmp_path / "b", resolution="fine")
        drawn.add((tmp_path / "b").read_bytes())

    assert ready == {name: "fine" if name == "pages alone" else "" for name in files}
    assert len(drawn) == 1
    assert b"Mary" not in drawn.pop()
