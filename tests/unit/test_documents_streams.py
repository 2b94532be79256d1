"""A PDF with a hole in it is refused: what lay there would be missing on a page that looks sound."""

from __future__ import annotations

import io
import random
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pikepdf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faxbot.documents import Checker, Limits, streams
from faxbot.errors import DocumentUnreadable
from tests.documents import make

LIMITS = Limits(max_pages=50, max_pixels=50_000_000, seconds=60, memory_mb=1024)
SIZE = 200, 300
LETTER = make.letter_pdf(3)


@pytest.fixture(scope="module")
def checker() -> Iterator[Checker]:
    checker = Checker(LIMITS)
    yield checker
    checker.close()


def saved(**options: Any) -> bytes:
    """The letter as pikepdf writes it."""
    file = io.BytesIO()
    with pikepdf.open(io.BytesIO(LETTER)) as pdf:
        pdf.save(file, **options)
    return file.getvalue()


def masked(alpha: bytes) -> bytes:
    """A black page that is seen where the soft mask of its one picture lets it be."""
    mask = (
        b"<< /Type /XObject /Subtype /Image /Width %d /Height %d /ColorSpace /DeviceGray"
        b" /BitsPerComponent 8 /Filter /FlateDecode /Length %d >>\nstream\n%s\nendstream\nendobj\n"
        % (*SIZE, len(alpha), alpha)
    )
    black = zlib.compress(bytes(1))
    entries = b"/SMask 9 0 R /ColorSpace /DeviceGray /BitsPerComponent 8 /Filter /FlateDecode"
    return make.data_pdf(black, (1, 1), entries).replace(
        b"xref\n", b"9 0 obj\n" + mask + b"xref\n", 1
    )


GOOD = {
    "text": LETTER,
    "object streams": saved(object_stream_mode=pikepdf.ObjectStreamMode.generate),
    "linear": saved(linearize=True),
    "not packed": saved(stream_decode_level=pikepdf.StreamDecodeLevel.all, compress_streams=False),
    "encrypted": saved(encryption=pikepdf.Encryption(owner="a", user="")),
    "a mask": masked(zlib.compress(random.Random(1).randbytes(60_000))),
    "bytes before and after it": bytes(200) + b"\n" + LETTER + bytes(200),
    "an empty stream": LETTER.replace(
        b"xref\n", b"99 0 obj\n<< /Filter /FlateDecode /Length 0 >>\nstream\n\nendstream\nxref\n", 1
    ),
}


@pytest.mark.parametrize("data", GOOD.values(), ids=list(GOOD))
def test_a_pdf_without_holes_is_sound(checker: Checker, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a").write_bytes(data)

    assert checker.check(tmp_path / "a").media_type == "application/pdf"


@pytest.mark.parametrize("name", ["text", "object streams", "linear"])
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_a_hole_is_found_wherever_it_lies(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    whole, path = GOOD[name], tmp_path_factory.mktemp("hole") / "a"
    end = whole.rfind(b"startxref")
    at = data.draw(st.integers(100, end - 512))
    path.write_bytes(whole)
    assert streams.sound(str(path))

    path.write_bytes(whole[:at] + bytes(512) + whole[at + 512 :])

    assert not streams.sound(str(path))


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_half_a_mask_or_content_is_refused(checker: Checker, tmp_path: Path, part: float) -> None:
    packed = zlib.compress(random.Random(1).randbytes(60_000))
    (tmp_path / "a").write_bytes(masked(packed[: int(len(packed) * part)]))
    with pytest.raises(DocumentUnreadable, match="The PDF is damaged"):
        checker.check(tmp_path / "a")

    at = (whole := GOOD["linear"]).rfind(b"endstream") - 200
    (tmp_path / "a").write_bytes(whole[:at] + bytes(int(150 * part) + 80) + whole[at:])
    with pytest.raises(DocumentUnreadable, match="The PDF is damaged"):
        checker.check(tmp_path / "a")


def test_what_is_unpacked_is_bounded(tmp_path: Path) -> None:
    """Beyond that nothing is looked at: short streams, which are text, come first."""
    packed = zlib.compress(bytes(streams.UNPACKED + 1))
    for damaged, sound in ((packed[:-100], True), (zlib.compress(b"text" * 99)[:-9], False)):
        (tmp_path / "a").write_bytes(
            make.assemble(
                [
                    b"<< /Filter /FlateDecode >>\nstream\n%s\nendstream" % data
                    for data in (packed, damaged + bytes(len(packed) if sound else 0))
                ]
            )
        )
        assert streams.sound(str(tmp_path / "a")) is sound
