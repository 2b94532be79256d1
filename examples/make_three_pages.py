"""Makes three-pages.pdf, the document that the demo faxes: a letter, a table and a picture. All of it is invented.

Run it after a change here: `python examples/make_three_pages.py`. The same script makes the same bytes.
"""

from __future__ import annotations

import io
import math
import random
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFilter
from reportlab.lib.colors import HexColor, black, white
from reportlab.lib.pagesizes import letter
from reportlab.lib.utils import ImageReader, simpleSplit
from reportlab.pdfgen.canvas import Canvas

TARGET = Path(__file__).with_name("three-pages.pdf")
WIDTH, HEIGHT = letter
LEFT, RIGHT = 72.0, WIDTH - 72.0
INK = HexColor("#1f3a4d")

LETTER = """
Dear Dr. Marlowe,

Thank you for seeing Jordan Example (born 14 March 1970), who has had pain in the left shoulder for eight weeks. It
began after a fall from a ladder onto the outstretched arm and wakes him at night when he lies on that side. He takes
ibuprofen 400 mg when needed, which helps for about four hours. There is no history of earlier injury, no fever, and
no loss of weight.

On examination active abduction is limited to 80 degrees by pain; passive movement is nearly full. Strength of
external rotation is reduced compared with the right. Sensation and pulses are normal. Plain films of 3 November
showed no fracture. Six sessions of physiotherapy have brought little change.

I would be grateful for your opinion, and in particular for an ultrasound of the rotator cuff. Laboratory results are
on the next page; the picture on page three shows where the garden ladder stood, since he was asked for it by his
insurance and wished you to have it as well.

Please send your report to the fax number above. We are open on weekdays from 8 to 17 h.

With kind regards,
"""
RESULTS = (
    ("Haemoglobin", "14.6", "g/dL", "13.5 - 17.5", ""),
    ("Leucocytes", "6.8", "10^9/L", "4.0 - 11.0", ""),
    ("Platelets", "251", "10^9/L", "150 - 400", ""),
    ("C-reactive protein", "9.2", "mg/L", "< 5.0", "high"),
    ("Creatinine", "0.94", "mg/dL", "0.70 - 1.20", ""),
    ("Glucose, fasting", "103", "mg/dL", "70 - 99", "high"),
    ("HbA1c", "5.6", "%", "< 5.7", ""),
    ("Uric acid", "5.9", "mg/dL", "3.4 - 7.0", ""),
    ("Sodium", "141", "mmol/L", "136 - 145", ""),
    ("Potassium", "4.3", "mmol/L", "3.5 - 5.1", ""),
    ("Calcium", "2.38", "mmol/L", "2.15 - 2.55", ""),
    ("25-OH vitamin D", "17", "ng/mL", "20 - 50", "low"),
    ("TSH", "1.84", "mIU/L", "0.40 - 4.00", ""),
)


def main() -> None:
    """Write TARGET."""
    canvas = Canvas(str(TARGET), pagesize=letter, invariant=True, pageCompression=True)
    canvas.setTitle("Referral, three pages (invented)")
    for number, page in enumerate((_letter, _table, _picture), 1):
        page(canvas)
        canvas.setFont("Helvetica", 8)
        canvas.setFillColor(black)
        canvas.drawString(
            LEFT, 40, "Lakeside Family Practice  -  invented data, for trying out faxbot"
        )
        canvas.drawRightString(RIGHT, 40, f"page {number} of 3")
        canvas.showPage()
    canvas.save()


def _letter(canvas: Canvas) -> None:
    canvas.setFillColor(INK)
    canvas.setFont("Times-Bold", 24)
    canvas.drawString(LEFT, HEIGHT - 80, "Lakeside Family Practice")
    canvas.setFont("Helvetica", 9)
    canvas.drawString(
        LEFT,
        HEIGHT - 96,
        "12 Harbour Road, Springfield  -  Tel +1 555 010 0100  -  Fax +1 555 010 0101",
    )
    canvas.setLineWidth(1.2)
    canvas.line(LEFT, HEIGHT - 104, RIGHT, HEIGHT - 104)
    canvas.setFillColor(black)
    canvas.setFont("Times-Roman", 11)
    for row, line in enumerate(
        ("Dr. A. Marlowe", "Springfield Orthopaedics", "Fax +1 555 010 0000")
    ):
        canvas.drawString(LEFT, HEIGHT - 140 - 14 * row, line)
    canvas.drawRightString(RIGHT, HEIGHT - 140, "20 November 2026")
    canvas.setFont("Times-Bold", 12)
    canvas.drawString(
        LEFT, HEIGHT - 205, "Referral: left shoulder, suspected tear of the rotator cuff"
    )
    y = HEIGHT - 230.0
    for paragraph in LETTER.strip().split("\n\n"):
        for line in simpleSplit(paragraph.replace("\n", " "), "Times-Roman", 11.5, RIGHT - LEFT):
            canvas.setFont("Times-Roman", 11.5)
            canvas.drawString(LEFT, y, line)
            y -= 15.5
        y -= 8
    _signature(canvas, LEFT, y - 24)
    canvas.setFont("Times-Roman", 11.5)
    canvas.drawString(LEFT, y - 52, "Robin Sample, MD")


def _signature(canvas: Canvas, x: float, y: float) -> None:
    path = canvas.beginPath()
    path.moveTo(x, y)
    for step in range(1, 13):
        sign = 1 if step % 2 else -1
        path.curveTo(
            x + step * 11 - 8, y + sign * 20 / (1 + step / 6),
            x + step * 11 - 4, y - sign * 12 / (1 + step / 6), x + step * 11, y + (step % 3),
        )  # fmt: skip
    canvas.setLineWidth(0.9)
    canvas.drawPath(path)


def _table(canvas: Canvas) -> None:
    canvas.setFont("Times-Bold", 16)
    canvas.drawString(LEFT, HEIGHT - 90, "Laboratory results of 12 November 2026")
    columns = (LEFT, LEFT + 170, LEFT + 235, LEFT + 310, LEFT + 410)
    top, step = HEIGHT - 130.0, 24.0
    canvas.setFillColor(INK)
    canvas.rect(LEFT - 6, top - 8, RIGHT - LEFT + 12, step, stroke=0, fill=1)
    canvas.setFillColor(white)
    canvas.setFont("Helvetica-Bold", 10.5)
    for x, title in zip(columns, ("Test", "Result", "Unit", "Range", "Note"), strict=True):
        canvas.drawString(x, top, title)
    canvas.setLineWidth(0.4)
    for row, values in enumerate(RESULTS, 1):
        y = top - row * step
        if row % 2 == 0:
            canvas.setFillColor(HexColor("#e6e6e6"))
            canvas.rect(LEFT - 6, y - 8, RIGHT - LEFT + 12, step, stroke=0, fill=1)
        canvas.setFillColor(black)
        for x, value in zip(columns, values, strict=True):
            canvas.setFont("Helvetica-Bold" if values[4] else "Helvetica", 10.5)
            canvas.drawString(x, y, value)
        canvas.line(LEFT - 6, y - 8, RIGHT + 6, y - 8)
    canvas.setFont("Times-Italic", 11)
    canvas.drawString(
        LEFT,
        top - (len(RESULTS) + 2) * step,
        "Samples taken fasting. Results in bold are outside the range.",
    )


def _picture(canvas: Canvas) -> None:
    canvas.setFont("Times-Bold", 16)
    canvas.drawString(LEFT, HEIGHT - 90, "The view from the garden")
    file = io.BytesIO()
    _landscape(900, 720).save(file, "JPEG", quality=60)
    file.seek(0)
    width = RIGHT - LEFT
    canvas.drawImage(ImageReader(file), LEFT, HEIGHT - 120 - width * 0.8, width, width * 0.8)
    canvas.setFont("Times-Italic", 11)
    canvas.drawString(
        LEFT,
        HEIGHT - 140 - width * 0.8,
        "The ladder stood to the left of the tree, on the slope towards the lake.",
    )


def _landscape(width: int, height: int) -> Image.Image:
    """Hills, a lake, a tree and the sun in grey: soft tones, texture and edges, as in a photograph."""
    chance = random.Random(1970)
    sky = (
        Image.linear_gradient("L")
        .resize((width, height))
        .point([150 + tone // 3 for tone in range(256)])
    )
    sun = ImageChops.invert(Image.radial_gradient("L").resize((520, 520))).point(
        [max(0, 2 * tone - 256) for tone in range(256)]
    )
    sky.paste(255, (int(width * 0.55), -40), sun)
    for depth, tone in enumerate((175, 145, 112, 80)):
        _hills(sky, chance, base=height * (0.42 + 0.07 * depth), swing=60 - 9 * depth, tone=tone)
    draw = ImageDraw.Draw(sky)
    shore = int(height * 0.7)
    mirror = sky.crop((0, 2 * shore - height, width, shore)).transpose(
        Image.Transpose.FLIP_TOP_BOTTOM
    )
    sky.paste(
        mirror.point([30 + tone * 3 // 4 for tone in range(256)]).filter(ImageFilter.BoxBlur(3)),
        (0, shore),
    )
    for _ in range(260):
        x, y = chance.randrange(width), chance.randrange(shore, height)
        draw.line((x, y, x + chance.randrange(10, 60), y), fill=chance.randrange(120, 220))
    draw.polygon(
        [(0, height), (0, height * 0.8), (width * 0.3, height * 0.86), (width * 0.62, height)],
        fill=52,
    )
    draw.line((width * 0.17, height * 0.86, width * 0.18, height * 0.45), fill=30, width=14)
    for _ in range(700):
        angle, reach = chance.uniform(0, 2 * math.pi), chance.gauss(0, 1)
        x = width * 0.18 + math.cos(angle) * reach * 62
        y = height * 0.36 + math.sin(angle) * reach * 78
        size = chance.randrange(4, 15)
        draw.ellipse((x, y, x + size, y + size), fill=chance.randrange(22, 105))
    grain = Image.frombytes(
        "L", (width, height), bytes(chance.randrange(122, 135) for _ in range(width * height))
    )
    return ImageChops.add(sky.filter(ImageFilter.GaussianBlur(0.8)), grain, 1, -128)


def _hills(
    image: Image.Image, chance: random.Random, *, base: float, swing: float, tone: int
) -> None:
    waves = [
        (chance.uniform(0.4, 3.2), chance.uniform(0, 6.3), swing / (step + 1)) for step in range(4)
    ]
    line = [
        (
            x,
            base
            - sum(size * math.sin(speed * x / 140 + start) for speed, start, size in waves) * 0.6,
        )
        for x in range(0, image.width + 6, 6)
    ]
    ImageDraw.Draw(image).polygon(
        [(0, image.height), *line, (image.width, image.height)], fill=tone
    )


if __name__ == "__main__":
    main()
