"""PNG, JPEG and TIFF through Pillow: counting pages within limits, and drawing each on a fax page.

Pillow's readers are asked directly, by the type that the content showed, so that no other of its
forty formats is ever loaded or tried.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from faxbot.documents import strict, tiff, whole
from faxbot.documents.kinds import JPEG, PNG, TIFF
from faxbot.documents.page import WIDTH, Placement, place
from faxbot.errors import DocumentTooLarge, DocumentUnreadable

# Our own limit is stricter, is a setting, and is asked before anything is decoded.
Image.MAX_IMAGE_PIXELS = None

DENSITY = 200.0  # dots per inch of a picture that does not say
# A density is believed in this range: below stand the 72 and 96 of programs that know none, above
# is nonsense.
BELIEVED = 100.0, 9600.0
STRETCH = 4.0  # most that dots may differ across and down, or the density is not believed either
TURNS = {  # EXIF orientation: what puts the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SWAPPING = frozenset({5, 6, 7, 8})  # those that exchange width and height
LOWEST_FIRST = 2  # TIFF's FillOrder with the first pixel in the lowest bit
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
CHECK_DECODES = 16_000_000  # pixels of a TIFF that its check decodes; it looks at the rest


def count(path: str, media_type: str, *, max_pages: int, max_pixels: int, look: bool) -> int:
    """Pages of the picture; raises DocumentTooLarge, DocumentUnreadable, or what Pillow does on
    damage."""
    if media_type == TIFF:
        pages = tiff_pages(path, max_pages, max_pixels)
        if look:
            _look_into_tiff(path, pages)
        return len(pages)
    with _opened(path, media_type) as image:
        within(image.size, max_pixels)
        if look and media_type == PNG:
            image.verify()
        elif look:
            # An eighth of the size: still reads the whole file, and takes next to no memory.
            image.draft(None, (image.width // 8, image.height // 8))
            image.load()
    if look and media_type == PNG and not whole.png(path):
        raise DocumentUnreadable("The PNG is cut off or damaged; make it again, or send a PDF.")
    return 1


def _opened(path: str, media_type: str) -> PngImageFile | JpegImageFile:
    """The PNG or JPEG, and a JPEG whose end alone is missing, with one: Pillow insists on it."""
    if media_type == PNG:
        return PngImageFile(path)
    data = Path(path).read_bytes()
    if not whole.jpeg_ended(data) and strict.jpeg(data):
        data = data.rstrip(b"\xff") + whole.END_OF_IMAGE
    return JpegImageFile(io.BytesIO(data))


def within(size: tuple[int, int], max_pixels: int) -> None:
    """Raise DocumentTooLarge for a picture of more pixels than that."""
    if size[0] * size[1] > max_pixels:
        raise DocumentTooLarge(
            f"The picture has {size[0]} x {size[1]} pixels, more than this server takes "
            "(FAXBOT_MAX_PIXELS); make it smaller and send that."
        )


def _look_into_tiff(path: str, pages: list[tiff.Page]) -> None:
    left = CHECK_DECODES
    with Path(path).open("rb") as file, TiffImageFile(file) as image:
        for page in pages:
            left -= page.columns * page.rows
            if left < 0 and page is not pages[0]:
                break
            if not _rows_known(file, page):
                image.seek(page.place)
                image.load()


def ask_for_rows(path: str, first: int, last: int, max_pages: int) -> None:
    """Raise DocumentUnreadable when Group 3 or 4 pages `first` to before `last` (from 0) of the TIFF
    lack rows."""
    with Path(path).open("rb") as file:
        for page in tiff.read(file, max_pages)[first:last]:
            _rows_known(file, page)


def _rows_known(file: BinaryIO, page: tiff.Page) -> bool:
    """Whether this is a Group 4 page with all its rows, which Pillow would not miss; raises
    DocumentUnreadable when some are missing, from a Group 3 page too."""
    each = min(page.one(tiff.ROWS_PER_STRIP, page.rows), page.rows)
    coded = page.one(tiff.COMPRESSION, 1)
    if (
        coded not in (tiff.GROUP3, tiff.GROUP4)
        or page.one(tiff.T6_OPTIONS, 0)
        or tiff.TILE_OFFSETS in page.tags
        or not each
        or len(page.pieces) != -(-page.rows // each)
    ):
        return False
    strips = []
    for offset, length in page.pieces:
        file.seek(offset)
        strips.append(file.read(length))
    if page.one(tiff.FILL_ORDER, 1) == LOWEST_FIRST:
        strips = [strip.translate(REVERSED) for strip in strips]
    if coded == tiff.GROUP3:
        cut = any(
            strict.cut_group3(strip, min(each, page.rows - number * each))
            for number, strip in enumerate(strips)
        )
    else:
        cut = not strict.group4(strips, page.columns, page.rows, each)
    if cut:
        raise DocumentUnreadable(tiff.CUT_OFF)
    return coded == tiff.GROUP4


def tiff_pages(path: str, max_pages: int, max_pixels: int) -> list[tiff.Page]:
    """The pages of a TIFF, each within `max_pixels`; raises as `count`."""
    with Path(path).open("rb") as file:
        pages = tiff.read(file, max_pages)
    for page in pages:
        within((page.columns, page.rows), max_pixels)
    return pages


def draw(
    path: str,
    media_type: str,
    first: int,
    last: int,
    *,
    resolution: str,
    max_pages: int,
    max_pixels: int,
) -> Iterator[Image.Image]:
    """Pages `first` to before `last` (from 0) as grey images of a fax page's size; raises as
    `count`."""
    if media_type in (PNG, JPEG):
        with _opened(path, media_type) as image:
            within(image.size, max_pixels)
            yield _photograph(image, resolution)
        return
    pages = tiff_pages(path, max_pages, max_pixels)
    # Given a path, Pillow 13 maps the file and forgets to turn an uncompressed picture.
    with Path(path).open("rb") as file, TiffImageFile(file) as image:
        for page in pages[first:last]:
            _rows_known(file, page)
            image.seek(page.place)
            image.load()
            # Pillow has turned it by its orientation already.
            swapped = page.one(tiff.ORIENTATION, 1) in SWAPPING
            density = page.density[::-1] if swapped else page.density
            yield _drawn(greyed(image), place(*_inches(image.size, density), resolution))


def _photograph(image: Image.Image, resolution: str) -> Image.Image:
    size, density = image.size, image.info.get("dpi", (0.0, 0.0))
    orientation = image.getexif().get(tiff.ORIENTATION, 1)
    if orientation in SWAPPING:
        size, density = size[::-1], density[::-1]
    at = place(*_inches(size, density), resolution)
    # A JPEG is decoded no larger than it is needed, and in grey only.
    across, down = (at.rows, at.width) if at.turned else (at.width, at.rows)
    image.draft("L", (down, across) if orientation in SWAPPING else (across, down))
    grey = greyed(image)
    if orientation in TURNS:
        grey = grey.transpose(TURNS[orientation])
    return _drawn(grey, at)


def _inches(size: tuple[int, int], density: tuple[float, float]) -> tuple[float, float]:
    x, y = map(float, density)
    low, high = BELIEVED
    if not (low <= max(x, y) <= high and 1 / STRETCH <= x / max(y, 0.1) <= STRETCH):
        x = y = DENSITY
    return size[0] / x, size[1] / y


def _drawn(grey: Image.Image, at: Placement) -> Image.Image:
    if at.turned:
        grey = grey.transpose(Image.Transpose.ROTATE_90)
    if grey.size != (at.width, at.rows):
        grey = grey.resize((at.width, at.rows), Image.Resampling.BICUBIC, reducing_gap=2.0)
    if grey.size == (WIDTH, at.length):
        return grey
    sheet = Image.new("L", (WIDTH, at.length), 255)
    sheet.paste(grey, (at.left, 0))
    return sheet


def greyed(image: Image.Image) -> Image.Image:
    """Eight bits of grey, on white where it is transparent."""
    if image.mode == "L" and "transparency" not in image.info:
        image.load()
        return image
    if image.has_transparency_data:
        image = image.convert("RGBA")
        sheet = Image.new("L", image.size, 255)
        sheet.paste(image.convert("L"), mask=image.getchannel("A"))
        return sheet
    if image.mode == "F" or image.mode.startswith("I"):
        return _scaled(image)
    if image.mode == "CMYK":
        image = image.convert("RGB")
    return image.convert("L")


def group4(page: Image.Image) -> tiff.Strip:
    """The Group 4 bytes of a page that is 255 where the paper gets ink, by libtiff. It is told that 1 is white, which
    it does not mind: the directory that we write says otherwise.

    (Pillow would turn every pixel in Python for a file that says so itself: 290 ms a page instead of 9.)
    """
    file = io.BytesIO()
    page.save(file, "TIFF", compression="group4", tiffinfo={tiff.ROWS_PER_STRIP: page.height})
    return next(tiff.strips(file, tiff.read(file, 1)))


def _scaled(image: Image.Image) -> Image.Image:
    """More than 8 bits: 12 bits often lie in 16 (X-rays), so the brightest pixel tells the
    range."""
    brightest = cast(tuple[float, float], image.getextrema())[1]
    top = next((top for top in (1.0, 255.0, 4095.0, 65535.0) if brightest <= top), float(2**31))
    return image.point(lambda value: value * (255.0 / top)).convert("L")
