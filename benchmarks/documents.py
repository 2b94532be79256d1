"""The documents that are sent: the sizes of performance runs everywhere in this project, made anew from a fixed seed.

Every copy ends in a mark of its own behind the document's end, which readers of PDF and TIFF pass over: no server can
profit from having seen the bytes before, and a swapped document is found as surely as a damaged one.
"""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import img2pdf
from PIL import Image
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

PAGE_BYTES = 29_900
"""Size of the small documents: the one that the floors and the peers were measured with."""
UPLOAD_BYTES = 20_000_000
_SEED = 1728
_WIDTH, _HEIGHT = 1728, 2292
_MARK = b"\n%%%016x\n"
_MARK_BYTES = 19


@dataclass(frozen=True, slots=True)
class Document:
    """A document of which every copy is different in its last bytes."""

    name: str
    media_type: str
    body: bytes

    def copy(self, number: int) -> tuple[bytes, str]:
        """Copy `number`: its bytes and their SHA-256 in hex."""
        data = self.body + _MARK % number
        return data, hashlib.sha256(data).hexdigest()


@lru_cache
def pdf_page() -> Document:
    """One page of text and a grey picture of noise that fills it up to PAGE_BYTES."""
    return Document("page.pdf", "application/pdf", _fit(_pdf, 1, 200))


@lru_cache
def fax_page() -> Document:
    """One finished fax page of PAGE_BYTES: TIFF, Group 4, 1728 pixels wide, 204x196 dpi, one strip, min-is-white."""
    return Document("page.tif", "image/tiff", _fit(_tiff, 100, 130))


@lru_cache
def large_pdf() -> Document:
    """UPLOAD_BYTES of PDF: pages of noise that nothing can compress."""
    noise = _noise()
    pages: list[bytes] = []
    while sum(map(len, pages)) < UPLOAD_BYTES - 1_000_000:
        pages.append(_jpeg(noise, 1000))
    return Document("large.pdf", "application/pdf", img2pdf.convert(pages) or b"")


def _noise() -> random.Random:
    """The same every time."""
    return random.Random(_SEED)


def _jpeg(noise: random.Random, side: int) -> bytes:
    picture = Image.frombytes("L", (side, side), noise.randbytes(side * side))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=95)
    return file.getvalue()


def _fit(make: Callable[[int], bytes], low: int, high: int) -> bytes:
    """The largest document with at most PAGE_BYTES, mark included, over the amount of noise in it."""
    body = b""
    while low <= high:
        amount = (low + high) // 2
        data = make(amount)
        if len(data) + _MARK_BYTES <= PAGE_BYTES:
            body, low = data, amount + 1
        else:
            high = amount - 1
    return body


def _pdf(rows: int) -> bytes:
    file = io.BytesIO()
    canvas = Canvas(file, pagesize=(595, 842), invariant=True)
    for line in range(40):
        canvas.drawString(
            60, 780 - 14 * line, f"Line {line + 1} of a page that is only here to be measured."
        )
    noise = _noise().randbytes(160 * rows)
    canvas.drawImage(ImageReader(Image.frombytes("L", (160, rows), noise)), 60, 40, 180, 180)
    canvas.save()
    return file.getvalue()


def _tiff(hundreds: int) -> bytes:
    noise = _noise()
    # 255, not 1: saved as min-is-white, a page filled with 1 comes out black
    page = Image.new("1", (_WIDTH, _HEIGHT), 255)
    for _ in range(100 * hundreds):
        page.putpixel((noise.randrange(_WIDTH), noise.randrange(_HEIGHT)), 0)
    file = io.BytesIO()
    page.save(
        file,
        "TIFF",
        compression="group4",
        dpi=(204, 196),
        tiffinfo={262: 0, 266: 1, 278: _HEIGHT},
    )
    return file.getvalue()
