"""PDF through PDFium, in the few calls that counting and drawing pages take.

The declarations are our own because the generated ones of pypdfium2 cost every child 40 ms and 10
MiB (measured); the library itself is the one that pypdfium2's wheel brings. PDFium is not
thread-safe: one thread, one child.
"""

from __future__ import annotations

import ctypes
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import POINTER, byref, c_char_p, c_float, c_int, c_uint, c_ulong, c_void_p
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from faxbot.documents import streams, whole
from faxbot.documents.page import DPI_X, ROWS_PER_INCH, WIDTH, Placement, place
from faxbot.errors import ConfigError, DocumentTooLarge, DocumentUnreadable

POINTS_PER_INCH = 72
# fpdfview.h: the last error, the pixel format of one grey byte, and the flags "with annotations",
# "as on paper".
ERR_PASSWORD, ERR_SECURITY = 4, 5
GRAY = 1
ANNOTATIONS, PRINTING = 0x01, 0x800
COUNTER_CLOCKWISE = 3
IMAGE, FORM = 3, 5
NO_FORM = 0
INKS = 3  # fpdf_edit.h: FPDF_COLORSPACE_DEVICECMYK
# The end of a PDF (ISO 32000-1, 7.5.5, with Adobe's tolerance for what follows it).
END, END_WITHIN = b"%%EOF", 2048

# Pages that a check parses, and the trouble that it takes to look for damage in their pictures, in
# pixels; all pages are counted and measured, and rendering asks the rest.
LOOKED_INTO, CHECK_TROUBLE = 10, 16_000_000
# The same for one page that is drawn: beyond it PDFium is trusted, or small files would keep us busy
# for hours. A picture is as much trouble as its pixels, or more when it is tiny; one that was looked
# at before, as much as reading it again (measured).
PAGE_TROUBLE, LEAST_TROUBLE, BYTES_READ_PER_PIXEL = 100_000_000, 10_000, 16
# Of all memory a child may have: a colour picture takes 4, and the work on it about as much.
BYTES_PER_PIXEL = 7

BROKEN = "The PDF is damaged; open it, print it to a new PDF and send that."


class _Size(ctypes.Structure):
    _fields_ = (("width", c_float), ("height", c_float))


class _FormInfo(ctypes.Structure):
    """FPDF_FORMFILLINFO, version 2, without one callback: fields are drawn, never filled in (280
    bytes on 64 bit)."""

    _fields_ = (("version", c_int), ("callbacks", c_void_p * 40))


class _Metadata(ctypes.Structure):
    """FPDF_IMAGEOBJ_METADATA; without bits PDFium cannot decode the picture and leaves it out, or
    has not found its colours, which it looks for in the page alone."""

    _fields_ = (
        ("width", c_uint), ("height", c_uint), ("horizontal", c_float), ("vertical", c_float),
        ("bits", c_uint), ("colours", c_int), ("marked", c_int),
    )  # fmt: skip


_SIGNATURES: dict[str, tuple[Any, ...]] = {
    # name: (result, arguments ...)
    "FPDF_InitLibrary": (None,),
    "FPDF_LoadDocument": (c_void_p, c_char_p, c_char_p),
    "FPDF_CloseDocument": (None, c_void_p),
    "FPDF_GetLastError": (c_ulong,),
    "FPDF_GetPageCount": (c_int, c_void_p),
    "FPDF_GetPageSizeByIndexF": (c_int, c_void_p, c_int, POINTER(_Size)),
    "FPDF_LoadPage": (c_void_p, c_void_p, c_int),
    "FPDF_ClosePage": (None, c_void_p),
    "FPDFPage_CountObjects": (c_int, c_void_p),
    "FPDFPage_GetObject": (c_void_p, c_void_p, c_int),
    "FPDFFormObj_CountObjects": (c_int, c_void_p),
    "FPDFFormObj_GetObject": (c_void_p, c_void_p, c_ulong),
    "FPDFPageObj_GetType": (c_int, c_void_p),
    "FPDFImageObj_GetImagePixelSize": (c_int, c_void_p, POINTER(c_uint), POINTER(c_uint)),
    "FPDFImageObj_GetImageMetadata": (c_int, c_void_p, c_void_p, POINTER(_Metadata)),
    "FPDFImageObj_GetImageFilterCount": (c_int, c_void_p),
    "FPDFImageObj_GetImageFilter": (c_ulong, c_void_p, c_int, c_char_p, c_ulong),
    "FPDFImageObj_GetImageDataRaw": (c_ulong, c_void_p, c_char_p, c_ulong),
    "FPDFImageObj_GetImageDataDecoded": (c_ulong, c_void_p, c_char_p, c_ulong),
    "FPDFImageObj_GetBitmap": (c_void_p, c_void_p),
    "FPDFBitmap_CreateEx": (c_void_p, c_int, c_int, c_int, c_void_p, c_int),
    "FPDFBitmap_Destroy": (None, c_void_p),
    "FPDF_RenderPageBitmap": (None, c_void_p, c_void_p, *(c_int,) * 6),
    "FPDF_GetFormType": (c_int, c_void_p),
    "FPDFDOC_InitFormFillEnvironment": (c_void_p, c_void_p, POINTER(_FormInfo)),
    "FPDFDOC_ExitFormFillEnvironment": (None, c_void_p),
    "FORM_OnAfterLoadPage": (None, c_void_p, c_void_p),
    "FORM_OnBeforeClosePage": (None, c_void_p, c_void_p),
    "FPDF_FFLDraw": (None, c_void_p, c_void_p, c_void_p, *(c_int,) * 6),
}


def _load() -> dict[str, Callable[..., int]]:
    spec = find_spec("pypdfium2_raw")
    path = Path(spec.origin).with_name("libpdfium.so") if spec and spec.origin else None
    if path is None or not path.exists():
        raise ConfigError("PDFium is missing: install the wheel of pypdfium2")
    library = ctypes.CDLL(str(path))
    calls: dict[str, Callable[..., int]] = {}
    for name, (result, *arguments) in _SIGNATURES.items():
        call = library[name]
        call.restype, call.argtypes = result, arguments
        calls[name] = call
    calls["FPDF_InitLibrary"]()
    return calls


_pdf = _load()


# Rows of a page that is shown, for each of its columns: no fax is longer, and a PDF might be.
LONGEST_SHOWN = 5


class Drawn(NamedTuple):
    """One page as grey bytes, `columns` x `rows`, 255 is white."""

    pixels: bytearray
    rows: int
    columns: int = WIDTH

    @property
    def size(self) -> tuple[int, int]:
        return self.columns, self.rows


@contextmanager
def _opened(path: str) -> Iterator[tuple[int, int]]:
    """The document's handle and its number of pages; raises DocumentUnreadable."""
    document = _pdf["FPDF_LoadDocument"](path.encode(), None)
    if not document:
        raise DocumentUnreadable(_why_closed(_pdf["FPDF_GetLastError"]()))
    try:
        pages = _pdf["FPDF_GetPageCount"](document)
        if pages < 1:
            raise DocumentUnreadable("The PDF has no pages.")
        yield document, pages
    finally:
        _pdf["FPDF_CloseDocument"](document)


def _why_closed(error: int) -> str:
    if error == ERR_PASSWORD:
        return (
            "The PDF is encrypted and needs a password to open; save it without one and send that."
        )
    if error == ERR_SECURITY:
        return (
            "The PDF is protected in a way that cannot be opened; "
            "print it to a new PDF and send that."
        )
    return BROKEN


def count(path: str, *, max_pages: int, max_pixels: int, look: bool) -> int:
    """Pages of the PDF; raises DocumentUnreadable or DocumentTooLarge. Draws nothing; with `look`
    it parses the first pages and looks at their pictures, as `draw` does for each page."""
    _ask_for_end(path)
    with _opened(path) as (document, pages):
        if pages > max_pages:
            raise DocumentTooLarge(
                f"The PDF has {pages} pages, more than {max_pages} (FAXBOT_MAX_PAGES); "
                "send it in parts."
            )
        left, sound = CHECK_TROUBLE, _Sound()
        for index in range(pages):
            _fitting_size(document, index, max_pixels)
            if look and index < LOOKED_INTO:
                with _loaded(document, index) as page:
                    left -= _ask_for_pictures(page, index, max_pixels, left, sound)
        if look and not streams.sound(path):
            raise DocumentUnreadable(BROKEN)
        return pages


def _ask_for_end(path: str) -> None:
    """Refuse a PDF without an end: PDFium would repair it and quietly lose the pages that are
    missing."""
    with Path(path).open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 65536))
        tail = file.read().rstrip(b"\0\t\n\r ")
    if END not in tail[-END_WITHIN:]:
        raise DocumentUnreadable(
            "The end of the PDF is missing: it was probably cut off; send it again."
        )


def _fitting_size(document: int, index: int, max_pixels: int) -> tuple[float, float]:
    """Width and height of a page in inches, CropBox and /Rotate applied."""
    size = _Size()
    if not _pdf["FPDF_GetPageSizeByIndexF"](document, index, byref(size)):
        raise DocumentUnreadable(BROKEN)
    width, height = size.width / POINTS_PER_INCH, size.height / POINTS_PER_INCH
    if min(width, height) <= 0:
        raise DocumentUnreadable(
            f"Page {index + 1} of the PDF has no area; print it to a new PDF and send that."
        )
    if width * DPI_X * height * ROWS_PER_INCH["fine"] > max_pixels:
        raise DocumentTooLarge(
            f"Page {index + 1} of the PDF is too large: {width:.0f} x {height:.0f} inches; "
            "scale it to a paper size and send that."
        )
    return width, height


def draw(path: str, first: int, last: int, *, resolution: str, max_pixels: int) -> Iterator[Drawn]:
    """Pages `first` to before `last` (from 0), in order; raises as `count`."""
    sound = _Sound()
    with _opened(path) as (document, _), _form(document) as form:
        for index in range(first, last):
            width, height = _fitting_size(document, index, max_pixels)
            at = place(width, height, resolution)
            yield _page(document, form, index, at, max_pixels, sound)


def picture(path: str, index: int, width: int, *, max_pixels: int) -> tuple[int, Drawn | None]:
    """The pages of the PDF, and page `index` (from 0) as it is, `width` pixels wide, or less where it is very long;
    None where there is no such page. Raises as `count`."""
    with _opened(path) as (document, pages), _form(document) as form:
        if index >= pages:
            return pages, None
        across, down = _fitting_size(document, index, max_pixels)
        columns = max(1, min(width, round(width * LONGEST_SHOWN * across / down)))
        rows = max(1, round(columns * down / across))
        at = Placement(turned=False, left=0, width=columns, rows=rows, length=rows)
        return pages, _page(document, form, index, at, max_pixels, _Sound(), columns)


@contextmanager
def _form(document: int) -> Iterator[int | None]:
    """PDFium draws form fields only through this environment; None when the document has no
    form."""
    if _pdf["FPDF_GetFormType"](document) == NO_FORM:
        yield None
        return
    info = _FormInfo(version=2)
    form = _pdf["FPDFDOC_InitFormFillEnvironment"](document, byref(info))
    try:
        yield form
    finally:
        _pdf["FPDFDOC_ExitFormFillEnvironment"](form)


@contextmanager
def _loaded(document: int, index: int) -> Iterator[int]:
    page = _pdf["FPDF_LoadPage"](document, index)
    if not page:
        raise DocumentUnreadable(
            f"Page {index + 1} of the PDF is damaged; print it to a new PDF and send that."
        )
    try:
        yield page
    finally:
        _pdf["FPDF_ClosePage"](page)


# The pictures of a document that were looked at and are sound: pages use one a thousand times.
_Sound = set[tuple[int, int, int]]


def _ask_for_pictures(page: int, index: int, max_pixels: int, left: int, sound: _Sound) -> int:
    """Refuse pictures that PDFium would leave out or cut short without a word: those for which
    memory would not do, and, as far as the trouble `left` goes, damaged ones. Returns the trouble
    it took."""
    memory = resource.getrlimit(resource.RLIMIT_AS)[0]
    if memory != resource.RLIM_INFINITY:
        max_pixels = min(max_pixels, memory // BYTES_PER_PIXEL)
    trouble = 0
    across, down = c_uint(), c_uint()
    for picture, nested in _pictures(page, "FPDFPage_CountObjects", "FPDFPage_GetObject"):
        _pdf["FPDFImageObj_GetImagePixelSize"](picture, byref(across), byref(down))
        pixels = across.value * down.value
        if pixels > max_pixels:
            raise DocumentTooLarge(
                f"A picture on page {index + 1} of the PDF has {across.value} x {down.value} "
                "pixels, more than this server takes (FAXBOT_MAX_PIXELS); make it smaller and "
                "send that."
            )
        if trouble >= left or not pixels:
            continue
        raw = _data("FPDFImageObj_GetImageDataRaw", picture)
        trouble += len(raw) // BYTES_READ_PER_PIXEL
        if (known := (across.value, down.value, hash(raw))) in sound:
            continue
        trouble += max(pixels, LEAST_TROUBLE)
        if not _decodable(picture, page, across.value, down.value, raw, nested=nested):
            raise DocumentUnreadable(
                f"A picture on page {index + 1} of the PDF is damaged; scan it again, or print "
                "it to a new PDF."
            )
        sound.add(known)
    return trouble


def _pictures(
    holder: int, count: str, get: str, *, nested: bool = False
) -> Iterator[tuple[int, bool]]:
    """The pictures of a page or form and of the forms in it, all of them: as deep and as many as
    PDFium itself reads; and whether each lies in a form."""
    kind_of, get_object = _pdf["FPDFPageObj_GetType"], _pdf[get]
    for number in range(_pdf[count](holder)):
        part = get_object(holder, number)
        kind = kind_of(part)
        if kind == IMAGE:
            yield part, nested
        elif kind == FORM:
            yield from _pictures(
                part, "FPDFFormObj_CountObjects", "FPDFFormObj_GetObject", nested=True
            )


def _decodable(
    picture: int, page: int, across: int, down: int, raw: bytes, *, nested: bool
) -> bool:
    """Whether PDFium can decode the picture, and all of its data is there."""
    metadata = _Metadata()
    _pdf["FPDFImageObj_GetImageMetadata"](picture, page, byref(metadata))
    filters = _filters(picture)
    last = filters[-1] if filters else b""
    if last == b"JPXDecode" or not (metadata.bits or nested):
        return bool(metadata.bits)  # to tell them, PDFium decodes JPEG 2000
    if last in (b"DCTDecode", b"DCT"):
        data = _data("FPDFImageObj_GetImageDataDecoded", picture)
        return bool(metadata.bits and whole.jpeg_ended(data)) or bool(_strict().jpeg(data))
    if last in (b"CCITTFaxDecode", b"CCF"):
        data = _data("FPDFImageObj_GetImageDataDecoded", picture)
        return not _strict().cut(data, across, down)
    if last == b"JBIG2Decode":
        data = _data("FPDFImageObj_GetImageDataDecoded", picture)
        return whole.jbig2(data) and _bitmap(picture)
    if filters in ([b"FlateDecode"], [b"Fl"]):
        if not (length := whole.flate(raw, down)):
            return False
        lengths = [length, length - down]  # PNG's predictors take a byte of each row
    else:
        lengths = [_pdf["FPDFImageObj_GetImageDataDecoded"](picture, None, 0)]
    inks = metadata.colours == INKS
    # The colours of an inline picture may be named in its form, and PDFium answers by the page's.
    bits = [metadata.bits] * bool(metadata.bits) + [whole.UNKNOWN_BITS] * nested
    return any(
        whole.rows(length, across, down, each, inks=inks) for each in bits for length in lengths
    )


def _filters(picture: int) -> list[bytes]:
    name = ctypes.create_string_buffer(32)
    filters = []
    for number in range(_pdf["FPDFImageObj_GetImageFilterCount"](picture)):
        _pdf["FPDFImageObj_GetImageFilter"](picture, number, name, len(name))
        filters.append(name.value)
    return filters


def _data(get: str, picture: int) -> bytes:
    """The picture's data as it is in the file, or with all codes but a picture's own undone."""
    length = _pdf[get](picture, None, 0)
    data = ctypes.create_string_buffer(length)
    _pdf[get](picture, data, length)
    return data.raw


def _bitmap(picture: int) -> bool:
    bitmap = _pdf["FPDFImageObj_GetBitmap"](picture)
    if bitmap:
        _pdf["FPDFBitmap_Destroy"](bitmap)
    return bool(bitmap)


def _strict() -> ModuleType:
    """It brings Pillow, which a child that checks PDFs hardly ever needs."""
    return import_module("faxbot.documents.strict")


def _page(
    document: int,
    form: int | None,
    index: int,
    at: Placement,
    max_pixels: int,
    sound: _Sound,
    columns: int = WIDTH,
) -> Drawn:
    pixels = bytearray(b"\xff") * (columns * at.length)
    buffer = (ctypes.c_char * len(pixels)).from_buffer(pixels)
    where_to = ctypes.addressof(buffer)
    bitmap = _pdf["FPDFBitmap_CreateEx"](columns, at.length, GRAY, where_to, columns)
    turn = COUNTER_CLOCKWISE if at.turned else 0
    try:
        with _loaded(document, index) as page:
            _ask_for_pictures(page, index, max_pixels, PAGE_TROUBLE, sound)
            where = (bitmap, page, at.left, 0, at.width, at.rows, turn, ANNOTATIONS | PRINTING)
            if form:
                _pdf["FORM_OnAfterLoadPage"](page, form)
            _pdf["FPDF_RenderPageBitmap"](*where)
            if form:
                _pdf["FPDF_FFLDraw"](form, *where)
                _pdf["FORM_OnBeforeClosePage"](page, form)
    finally:
        _pdf["FPDFBitmap_Destroy"](bitmap)
    return Drawn(pixels, at.length, columns)
