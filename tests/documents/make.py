"""Sound documents, each with marks that show whether all of it arrived and which way up."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import img2pdf
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfgen.canvas import Canvas

Box = tuple[float, float, float, float]
MARK = 18.0  # points: a quarter of an inch

_TEXT = """the patient was seen in clinic today with mild asthma no acute distress noted lungs
clear on both sides heart rate regular blood pressure within normal limits medication list reviewed
follow up in six weeks laboratory results enclosed please call our office with questions sent for
further evaluation"""
WORDS = _TEXT.split()


@dataclass(frozen=True)
class Sheet:
    """One PDF page in points; `content` is its content stream, by default four marks at the visible
    corners.

    `more` stands in the page's dictionary as it is.
    """

    media: Box = (0, 0, 612, 792)
    crop: Box | None = None
    rotate: int = 0
    user_unit: float = 1
    content: bytes | None = None
    more: bytes = b""

    def stream(self) -> bytes:
        return corner_marks(self.crop or self.media) if self.content is None else self.content

    def entries(self) -> bytes:
        text = b"/MediaBox [%g %g %g %g]" % self.media
        if self.crop:
            text += b" /CropBox [%g %g %g %g]" % self.crop
        if self.rotate:
            text += b" /Rotate %d" % self.rotate
        if self.user_unit != 1:
            text += b" /UserUnit %g" % self.user_unit
        return text + b" " + self.more


def corner_marks(box: Box) -> bytes:
    """Black squares in the four corners; the upper left one has a bar to its right, so that turns
    show."""
    left, bottom, right, top = box
    size = min(MARK, (right - left) / 8, (top - bottom) / 8)
    squares = [
        (left, bottom, size, size),
        (right - size, bottom, size, size),
        (left, top - size, size, size),
        (right - size, top - size, size, size),
        (left + 2 * size, top - size / 2, size, size / 2),
    ]
    return b"0 g " + b" ".join(b"%g %g %g %g re f" % square for square in squares)


def pdf(*sheets: Sheet, extra: bytes = b"") -> bytes:
    """A PDF written by hand, so that any page box can be had; `extra` goes into its catalogue."""
    objects: list[bytes] = [b"", b""]
    kids = []
    for sheet in sheets:
        stream = sheet.stream()
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /Resources << >> /Contents %d 0 R %s >>"
            % (len(objects), sheet.entries())
        )
        kids.append(b"%d 0 R" % len(objects))
    objects[0] = b"<< /Type /Catalog /Pages 2 0 R %s >>" % extra
    objects[1] = b"<< /Type /Pages /Count %d /Kids [%s] >>" % (len(kids), b" ".join(kids))
    return assemble(objects)


def assemble(objects: Sequence[bytes]) -> bytes:
    """The numbered objects (the first is the catalogue) as a file with its cross-reference
    table."""
    body, places = b"%PDF-1.7\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    table += b"".join(b"%010d 00000 n \n" % place for place in places)
    trailer = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n"
    return body + table + trailer % (len(objects) + 1, len(body))


def letter_pdf(pages: int = 1, *, password: str | None = None, owner: str = "owner") -> bytes:
    """Pages of text with a large page number; encrypted when a password (it may be empty) is
    given."""
    file = io.BytesIO()
    encrypt = None if password is None else StandardEncryption(password, ownerPassword=owner)
    canvas = Canvas(file, pagesize=(612, 792), encrypt=encrypt, invariant=True)
    chance = random.Random(pages)
    for page in range(pages):
        canvas.setFont("Times-Roman", 11)
        for row in range(46):
            canvas.drawString(72, 700 - row * 13, " ".join(chance.choices(WORDS, k=12))[:88])
        canvas.setFont("Helvetica-Bold", 30)
        canvas.drawString(72, 730, str(page + 1))
        canvas.showPage()
    canvas.save()
    return file.getvalue()


def form_pdf() -> bytes:
    """An empty page but for a filled-in form field, which only a form-aware reader draws."""
    file = io.BytesIO()
    canvas = Canvas(file, pagesize=(612, 792), invariant=True)
    canvas.acroForm.textfield(
        name="a", value="MMMMMMMM", x=100, y=400, width=300, height=40, fontSize=30
    )
    canvas.showPage()
    canvas.save()
    return file.getvalue()


def picture_pdf(pictures: Sequence[Image.Image], size: tuple[float, float] = (612, 792)) -> bytes:
    """Each picture as a full page, the way scanners make PDFs: its bytes as they are. (reportlab would write them as
    text, which takes it longer than all the rest of a test.)"""
    pages = [encoded(picture, "JPEG", quality=80) for picture in pictures]
    return img2pdf.convert(pages, layout_fun=lambda *_picture: (*size, *size), nodate=True) or b""


def data_pdf(data: bytes, size: tuple[int, int], entries: bytes, *, forms: int = 0) -> bytes:
    """A page that is one picture of these bytes; `entries` say how they are coded. It lies in so
    many forms, one in the other."""
    names = [b"<< /XObject << /I %d 0 R >> >>" % (5 + inner) for inner in range(forms + 1)]
    whole = b"q 612 0 0 792 0 0 cm /I Do Q"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Count 1 /Kids [3 0 R] >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources %s >>"
        % names[0],
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(whole), whole),
    ]
    objects += [
        b"<< /Type /XObject /Subtype /Form /BBox [0 0 1 1] /Resources %s /Length 5 >>"
        b"\nstream\n/I Do\nendstream" % inner
        for inner in names[1:]
    ]
    objects.append(
        b"<< /Type /XObject /Subtype /Image /Width %d /Height %d %s /Length %d >>\nstream\n%s\nendstream"
        % (*size, entries, len(data), data)
    )
    return assemble(objects)


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    """The image as a file of that format."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def marked(size: tuple[int, int], mode: str = "L") -> Image.Image:
    """A white picture with black marks in its corners, and a bar beside the upper left one."""
    image = Image.new("L", size, 255)
    pen = ImageDraw.Draw(image)
    side = min(size) // 8
    for x in (0, size[0] - side):
        for y in (0, size[1] - side):
            pen.rectangle((x, y, x + side - 1, y + side - 1), fill=0)
    pen.rectangle((2 * side, 0, 3 * side - 1, side // 2), fill=0)
    if mode == "RGBA":
        # Nothing but ink: the white is transparent.
        clear = Image.new("RGBA", size, (0, 0, 0, 0))
        clear.paste((0, 0, 0, 255), mask=ImageChops.invert(image))
        return clear
    if mode == "P":
        return image.convert("RGB").quantize(8)
    if mode == "I;16":
        return image.point([tone * 257 for tone in range(256)], "I").convert("I;16")
    return image.convert(mode)


def photo(size: tuple[int, int], seed: int = 1) -> Image.Image:
    """Soft tones, blobs and grain in grey, as in a photograph; no paper white anywhere."""
    chance = random.Random(seed)
    image = Image.linear_gradient("L").resize(size).point([70 + tone // 2 for tone in range(256)])
    for _ in range(30):
        side = chance.randrange(size[0] // 12, size[0] // 3)
        soft = ImageChops.invert(Image.radial_gradient("L").resize((side, side)))
        where = (chance.randrange(size[0]) - side // 2, chance.randrange(size[1]) - side // 2)
        image.paste(chance.randrange(30, 200), where, soft)
    return grain(image, 6, seed)


def grain(image: Image.Image, sigma: float, seed: int) -> Image.Image:
    """The image with noise of that standard deviation; the same every time."""
    chance = random.Random(seed)
    tile = bytes(min(255, max(0, round(chance.gauss(128, sigma)))) for _ in range(1 << 16))
    data = bytearray()
    while len(data) < image.width * image.height:
        start = chance.randrange(1 << 16)
        data += tile[start:] + tile[:start]
    noise = Image.frombytes("L", image.size, bytes(data[: image.width * image.height]))
    return ImageChops.add(image, noise, 1, -128)


def scan(
    lines: Sequence[str],
    *,
    dpi: int = 204,
    font: str,
    points: float = 11,
    sigma: float = 20,
    seed: int = 1,
) -> Image.Image:
    """A Letter page of text as a cheap scanner sees it: grey paper, a shadow, soft letters,
    noise."""
    width, height = round(8.47 * dpi), 11 * dpi
    page = Image.new("L", (width, height), 228)
    pen = ImageDraw.Draw(page)
    face = ImageFont.truetype(font, round(points * dpi / 72))
    for row, line in enumerate(lines):
        pen.text((dpi * 0.7, dpi * 0.7 + row * points * 1.7 * dpi / 72), line, fill=45, font=face)
    shadow = (
        Image.linear_gradient("L").resize(page.size).point([255 - tone // 7 for tone in range(256)])
    )
    soft = ImageChops.multiply(page.filter(ImageFilter.GaussianBlur(0.7)), shadow)
    return grain(soft, sigma, seed)
