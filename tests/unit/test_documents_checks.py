"""What a document is comes from its content; what cannot be faxed is refused at once, in plain
words."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from faxbot.documents import Checked, Checker, Limits
from faxbot.errors import (
    DocumentError,
    DocumentTooLarge,
    DocumentUnreadable,
    DocumentUnsupported,
)
from tests.documents import hostile, look, make
from tests.documents.make import Sheet
from tests.threads import at_once

LIMITS = Limits(max_pages=50, max_pixels=50_000_000, seconds=20, memory_mb=1024)
PDF, TIFF, PNG, JPEG, TEXT = (
    "application/pdf",
    "image/tiff",
    "image/png",
    "image/jpeg",
    "text/plain",
)


@pytest.fixture(scope="module")
def checker() -> Iterator[Checker]:
    checker = Checker(LIMITS)
    yield checker
    checker.close()


def fax_tiff(pages: int = 1, **options: object) -> bytes:
    page = make.marked((1728, 2156), "1")
    options = {"compression": "group4", "dpi": (204, 196), **options}
    return make.encoded(page, "TIFF", save_all=True, append_images=[page] * (pages - 1), **options)


def docx() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("word/document.xml", "<w:document/>")
    return file.getvalue()


SOUND: dict[str, tuple[Callable[[], bytes], Checked]] = {
    "pdf": (make.letter_pdf, Checked(PDF, 1)),
    "pdf of 50 pages": (lambda: make.letter_pdf(50), Checked(PDF, 50)),
    "pdf after the words of a gateway": (
        lambda: b"X-Scan: ok\n\n" + make.letter_pdf(), Checked(PDF, 1)),
    "pdf before zeros": (hostile.tail_of_nothing, Checked(PDF, 1)),
    "pdf encrypted, but open to all": (lambda: make.letter_pdf(2, password=""), Checked(PDF, 2)),
    "png": (lambda: make.encoded(make.marked((80, 80)), "PNG"), Checked(PNG, 1)),
    "jpeg": (lambda: make.encoded(make.marked((80, 80)), "JPEG"), Checked(JPEG, 1)),
    "progressive jpeg": (
        lambda: make.encoded(make.marked((300, 300)), "JPEG", progressive=True), Checked(JPEG, 1)),
    "tiff": (lambda: make.encoded(make.marked((80, 80)), "TIFF"), Checked(TIFF, 1)),
    "tiff of four pages": (lambda: fax_tiff(4), Checked(TIFF, 4)),
    "tiff of a Motorola": (
        lambda: make.encoded(make.marked((80, 80), "I;16"), "TIFF"), Checked(TIFF, 1)),
    "text": (lambda: b"Dear colleague,\n", Checked(TEXT, 1)),
    "text with a byte order mark": (lambda: b"\xef\xbb\xbfGr\xc3\xbc\xc3\x9fe", Checked(TEXT, 1)),
    "text with letters across any read boundary": (
        lambda: b"x" + "äöüß€ЖΩ ".encode() * 4000, Checked(TEXT, 7)),
    "text about PDF": (lambda: b"The header of a PDF reads %PDF-1.4 and more.\n", Checked(TEXT, 1)),
    "text that begins like a picture": (
        lambda: b"BMI 23.4, RIFF raff, II* and so on\n", Checked(TEXT, 1)),
    "text of three pages by form feeds": (lambda: b"one\ftwo\fthree\f", Checked(TEXT, 3)),
    "text with blank pages": (lambda: b"one\f\f\ffour", Checked(TEXT, 4)),
    "text from an old system": (lambda: b"a\r\nb\rc\x0bd\xc2\x85e\n", Checked(TEXT, 1)),
}  # fmt: skip


@pytest.mark.parametrize(("build", "wanted"), SOUND.values(), ids=list(SOUND))
@pytest.mark.parametrize("name", ["document.pdf", "document.txt", "document"])
def test_the_type_comes_from_the_content_and_never_from_the_name(
    checker: Checker, tmp_path: Path, build: Callable[[], bytes], wanted: Checked, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(build())

    assert checker.check(path) == wanted


def jpeg_of(width: int, height: int) -> bytes:
    return hostile.jpeg_of_size(make.encoded(make.marked((80, 80)), "JPEG"), width, height)


BAD: dict[str, tuple[Callable[[], bytes], type[DocumentError], str]] = {
    "empty file": (lambda: b"", DocumentUnreadable, "empty"),
    "byte order mark alone": (lambda: b"\xef\xbb\xbf", DocumentUnreadable, "no text"),
    "spaces alone": (lambda: b" \n\t\f \n", DocumentUnreadable, "no text"),
    "html": (lambda: b"  <!DOCTYPE html><html><body>x", DocumentUnsupported, "HTML"),
    "html with a byte order mark": (lambda: b"\xef\xbb\xbf<html>", DocumentUnsupported, "HTML"),
    "xml": (lambda: b"<?xml version='1.0'?><a/>", DocumentUnsupported, "XML"),
    "svg": (lambda: b"<svg xmlns='x'/>", DocumentUnsupported, "SVG"),
    "rtf": (lambda: b"{\\rtf1 hello}", DocumentUnsupported, "RTF"),
    "postscript": (lambda: b"%!PS-Adobe-3.0\nshowpage", DocumentUnsupported, "PostScript"),
    "docx": (docx, DocumentUnsupported, "Office"),
    "old doc": (
        lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), DocumentUnsupported, "Office"),
    "gif": (lambda: make.encoded(make.marked((9, 9)), "GIF"), DocumentUnsupported, "GIF"),
    "bmp": (lambda: make.encoded(make.marked((9, 9)), "BMP"), DocumentUnsupported, "BMP"),
    "webp": (lambda: make.encoded(make.marked((9, 9)), "WEBP"), DocumentUnsupported, "WebP"),
    "binary": (lambda: bytes(range(256)) * 9, DocumentUnsupported, "UTF-8"),
    "zeros": (lambda: bytes(4000), DocumentUnsupported, "UTF-8"),
    "an escape sequence": (lambda: b"\x1b[2Jhello", DocumentUnsupported, "UTF-8"),
    "text in Latin-1": (lambda: "Grüße".encode("latin-1"), DocumentUnsupported, "UTF-8"),
    "text in UTF-16": (lambda: "Gruesse".encode("utf-16"), DocumentUnsupported, "UTF-16"),
    "text that no font here has": (lambda: "你好".encode(), DocumentUnsupported, "cannot print"),
    "text from right to left": (lambda: "שלום".encode(), DocumentUnsupported, "cannot print"),
    "too much text": (lambda: b"x\n" * 60 * 50, DocumentTooLarge, "50 pages"),
    "far too much text": (lambda: b"x" * 3_000_000, DocumentTooLarge, "50 pages"),
    "too many form feeds": (lambda: b"x\f" * 51, DocumentTooLarge, "50 pages"),
    "garbage that says it is a PDF": (
        lambda: b"%PDF-1.7\n" + bytes(range(256)) * 9 + b"%%EOF", DocumentUnreadable, "damaged"),
    "pdf cut off": (lambda: hostile.cut(make.letter_pdf(5)), DocumentUnreadable, "end of the PDF"),
    "pdf cut off before its last line": (
        lambda: make.letter_pdf()[:-8], DocumentUnreadable, "end of the PDF"),
    "pdf with a password": (lambda: make.letter_pdf(password="x"), DocumentUnreadable, "password"),
    "pdf without pages": (hostile.no_pages, DocumentUnreadable, "no pages"),
    "pdf that contains itself": (hostile.endless_tree, DocumentUnreadable, "damaged"),
    "pdf of 51 pages": (lambda: make.letter_pdf(51), DocumentTooLarge, "51 pages"),
    "pdf of 10,000 pages": (hostile.many_pages, DocumentTooLarge, "10000 pages"),
    "pdf with a vast page": (hostile.vast_page, DocumentTooLarge, "Page 2"),
    "pdf with a vast picture": (hostile.image_bomb_pdf, DocumentTooLarge, "30000 x 30000"),
    "png cut off": (
        lambda: hostile.cut(make.encoded(make.photo((200, 200)), "PNG")),
        DocumentUnreadable, "damaged"),
    "png with a flipped bit": (
        lambda: make.encoded(make.marked((80, 80)), "PNG").replace(b"IDAT", b"IDAU"),
        DocumentUnreadable, "damaged"),
    "png bomb": (lambda: hostile.png(60_000, 60_000, rows=1), DocumentTooLarge, "60000 x 60000"),
    "jpeg cut off": (
        lambda: hostile.cut(make.encoded(make.photo((400, 400)), "JPEG")),
        DocumentUnreadable, "damaged"),
    "jpeg header alone": (lambda: b"\xff\xd8\xff\xe0", DocumentUnreadable, "damaged"),
    "jpeg bomb": (lambda: jpeg_of(65_000, 65_000), DocumentTooLarge, "65000 x 65000"),
    "tiff cut off": (lambda: hostile.cut(fax_tiff()), DocumentUnreadable, "cut off"),
    "tiff cut off after two of its pages": (
        lambda: hostile.cut(fax_tiff(3), 0.7), DocumentUnreadable, "cut off"),
    "tiff header alone": (lambda: b"II*\0", DocumentUnreadable, "cut off"),
    "tiff whose strip lies outside": (
        lambda: hostile.tiff(strip=1 << 31), DocumentUnreadable, "cut off"),
    "tiff without pixels": (lambda: hostile.tiff(width=0), DocumentUnreadable, "cut off"),
    "tiff with too little data": (
        lambda: hostile.tiff(width=5000, height=5000), DocumentUnreadable, "damaged"),
    "tiff in a circle": (lambda: hostile.tiff(next_at=72), DocumentUnreadable, "cut off"),
    "tiff bomb": (
        lambda: hostile.tiff(width=100_000, height=100_000), DocumentTooLarge, "100000 x 100000"),
    "tiff of 51 pages": (lambda: fax_tiff(51), DocumentTooLarge, "50 pages"),
    "big tiff": (lambda: b"II+\0\x08\0\0\0" + bytes(40), DocumentUnsupported, "BigTIFF"),
}  # fmt: skip


@pytest.mark.parametrize(("build", "error", "words"), BAD.values(), ids=list(BAD))
def test_a_bad_document_is_refused_in_plain_words(
    checker: Checker,
    tmp_path: Path,
    build: Callable[[], bytes],
    error: type[DocumentError],
    words: str,
) -> None:
    path = tmp_path / "document"
    path.write_bytes(build())
    good = tmp_path / "good"
    good.write_bytes(make.letter_pdf(3))

    with pytest.raises(error, match=words) as caught:
        checker.check(path)

    assert type(caught.value) is error
    assert str(tmp_path) not in caught.value.detail
    assert len(caught.value.detail) > 15
    # Whatever it was, the next document is none the worse for it, and nothing new lies about.
    assert checker.check(good) == Checked(PDF, 3)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["document", "good"]
    assert len(look.children()) == 1


def test_a_file_that_is_not_there_is_no_fault_of_a_document(
    checker: Checker, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError):
        checker.check(tmp_path / "nothing")


def test_the_reduced_preview_in_a_tiff_is_no_page(checker: Checker, tmp_path: Path) -> None:
    page, preview = make.marked((1000, 1200), "1"), make.marked((100, 120), "1")
    preview.encoderinfo = {"tiffinfo": {254: 1}}
    path = tmp_path / "a"
    path.write_bytes(make.encoded(page, "TIFF", save_all=True, append_images=[preview, page]))

    with Image.open(path) as image:
        assert getattr(image, "n_frames", 0) == 3
    assert checker.check(path) == Checked(TIFF, 2)


def test_many_threads_share_one_process_and_a_spare_one_where_that_is_slow(
    checker: Checker, tmp_path: Path
) -> None:
    paths = []
    for pages in range(1, 9):
        paths.append(tmp_path / str(pages))
        paths[-1].write_bytes(make.pdf(*[Sheet()] * pages))

    def check(number: int) -> list[int]:
        return [checker.check(paths[(number + turn) % 8]).pages for turn in range(20)]

    assert at_once(8, check) == [
        [(number + turn) % 8 + 1 for turn in range(20)] for number in range(8)
    ]
    assert 1 <= len(look.children()) <= 2
