"""Pages a second and bytes on the line: faxbot's renderer in one process and in several, beside Ghostscript.

    python -m benchmarks.rendering                 ten pages of each kind, five rounds
    python -m benchmarks.rendering --rounds 9

Three documents are made anew: letters, letters with photographs, and scans with noise. Every round renders each of
them with every renderer, in another order each time; figures are medians, ratios are taken round by round. Without
`gs` on the PATH it prints our own figures and says so. Exit code 1 when a target is missed, or a page is not right.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont
from reportlab.lib.pagesizes import A4
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

from benchmarks.figures import Figures
from faxbot.documents import Limits, Renderer
from faxbot.documents.plaintext import FONT

LIMITS = Limits(max_pages=1000, max_pixels=100_000_000, seconds=600, memory_mb=1024)
GHOSTSCRIPT, ONE, SEVERAL = "ghostscript", "one process", "several processes"
ONE_AT_LEAST, SEVERAL_AT_LEAST = 0.4, 0.7
SCANS_AT_MOST = 0.25
CHILD_MIB = 110
MIB = 1 << 20

Render = Callable[[Path, Path], None]

TEXT = """the patient was seen in clinic today with a history of mild asthma and seasonal allergies no acute distress
noted lungs clear on both sides heart rate regular blood pressure within normal limits medication list reviewed follow
up in six weeks or sooner if symptoms worsen laboratory results enclosed please call our office with any questions
referral sent to specialist for further evaluation"""
WORDS = TEXT.split()


@dataclass(frozen=True)
class Document:
    """A PDF of the benchmark."""

    name: str
    path: Path
    pages: int


def documents(folder: Path, pages: int) -> list[Document]:
    """The three documents, from fixed seeds."""
    made = []
    for name, make in (
        ("letters", _letters),
        ("letters and photographs", _photographs),
        ("scans", _scans),
    ):
        path = folder / f"{name}.pdf"
        canvas = Canvas(str(path), pagesize=A4, invariant=True)
        make(canvas, pages)
        canvas.save()
        made.append(Document(name, path, pages))
    return made


def _chance(page: int) -> random.Random:
    """The same for the same page, every time."""
    return random.Random(page)


def _letters(canvas: Canvas, pages: int) -> None:
    for page in range(pages):
        _text(canvas, _chance(page), 52)
        canvas.showPage()


def _photographs(canvas: Canvas, pages: int) -> None:
    """Every other page has a photograph, as in the run that the target comes from."""
    for page in range(pages):
        chance = _chance(page)
        _text(canvas, chance, 52 if page % 2 else 24)
        if page % 2 == 0:
            _draw(canvas, _photo(chance, (900, 600)), 60, 80, 480, 320)
        canvas.showPage()


def _scans(canvas: Canvas, pages: int) -> None:
    for page in range(pages):
        _draw(canvas, _scan(_chance(page)), 0, 0, *A4)
        canvas.showPage()


def _text(canvas: Canvas, chance: random.Random, lines: int) -> None:
    font = chance.choice(("Helvetica", "Times-Roman"))
    canvas.setFont(font, 10.5)
    for row in range(lines):
        line = ""
        while canvas.stringWidth(line, font, 10.5) < 430:
            line += chance.choice(WORDS) + " "
        canvas.drawString(60, 770 - row * 13.6, line)
    canvas.line(60, 60, 540, 60)


def _draw(
    canvas: Canvas, image: Image.Image, x: float, y: float, width: float, height: float
) -> None:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    file.seek(0)
    canvas.drawImage(ImageReader(file), x, y, width, height)


def _photo(chance: random.Random, size: tuple[int, int]) -> Image.Image:
    image = Image.linear_gradient("L").resize(size).point([90 + tone // 2 for tone in range(256)])
    for _ in range(40):
        side = chance.randrange(size[0] // 20, size[0] // 4)
        soft = ImageChops.invert(Image.radial_gradient("L").resize((side, side)))
        where = (chance.randrange(size[0]) - side // 2, chance.randrange(size[1]) - side // 2)
        image.paste(chance.randrange(20, 230), where, soft)
    return _noisy(chance, image, 12)


def _scan(chance: random.Random, dpi: int = 200) -> Image.Image:
    """Text on grey paper, a little askew, with a shadow and more noise than a good scanner has."""
    size = (int(8.27 * dpi), int(11.69 * dpi))
    image = Image.new("L", size, 232)
    pen = ImageDraw.Draw(image)
    font = ImageFont.truetype(str(FONT), int(dpi * 10 / 72))
    for row in range(44):
        line = " ".join(chance.choices(WORDS, k=12))[:72]
        pen.text(
            (dpi * 0.8, dpi * 0.8 + row * dpi * 16 / 72),
            line,
            fill=chance.randrange(25, 70),
            font=font,
        )
    image = image.rotate(
        chance.uniform(-0.6, 0.6), resample=Image.Resampling.BICUBIC, fillcolor=232
    )
    shadow = Image.linear_gradient("L").resize(size).point([255 - tone // 8 for tone in range(256)])
    return _noisy(
        chance, ImageChops.multiply(image.filter(ImageFilter.GaussianBlur(0.7)), shadow), 20
    )


def _noisy(chance: random.Random, image: Image.Image, sigma: float) -> Image.Image:
    tile = bytes(min(255, max(0, round(chance.gauss(128, sigma)))) for _ in range(1 << 16))
    data, needed = bytearray(), image.width * image.height
    while len(data) < needed:
        start = chance.randrange(1 << 16)
        data += tile[start:] + tile[:start]
    return ImageChops.add(image, Image.frombytes("L", image.size, bytes(data[:needed])), 1, -128)


def ghostscript(program: str) -> Render:
    """`gs` as fax programs call it: one process a document, 204 x 196, its own halftone."""
    options = ("-q", "-dNOPAUSE", "-dBATCH", "-dSAFER", "-sDEVICE=tiffg4", "-r204x196")

    def render(source: Path, target: Path) -> None:
        subprocess.run([program, *options, f"-sOutputFile={target}", str(source)], check=True)

    return render


def ours(renderer: Renderer) -> Render:
    """faxbot's renderer, whose processes stay between documents as they do in a worker."""

    def render(source: Path, target: Path) -> None:
        renderer.render([(source, "application/pdf")], target, resolution="fine")

    return render


def measure(
    made: Sequence[Document], renderers: dict[str, Render], rounds: int, folder: Path
) -> Figures:
    """Every renderer on every document, `rounds` times, after one time that does not count."""
    figures = Figures()
    target = folder / "target.tif"
    for number in range(rounds + 1):
        for document in made:
            names = list(renderers)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                begun = time.perf_counter()
                renderers[name](document.path, target)
                passed = time.perf_counter() - begun
                check(target, document.pages)
                if number:
                    figures.add(f"{document.name}/rate", name, document.pages / passed)
                    figures.add(f"{document.name}/bytes", name, target.stat().st_size)
                target.unlink()
    return figures


def check(target: Path, pages: int) -> None:
    """A figure counts only if the pages are all there: 1728 wide, Group 4."""
    with Image.open(target) as image:
        found = getattr(image, "n_frames", 1)
        for number in range(found):
            image.seek(number)
            if image.width != 1728 or image.info.get("compression") != "group4":
                raise SystemExit(
                    f"page {number + 1} is {image.width} wide, {image.info.get('compression')}"
                )
    if found != pages:
        raise SystemExit(f"{found} pages instead of {pages}")


def peak_memory() -> float:
    """MiB of resident memory that the largest of our children ever had."""
    peaks = [
        int(line.split()[1]) * 1024
        for process in psutil.Process(os.getpid()).children()
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    ]
    return max(peaks) / MIB


def report(figures: Figures, made: Sequence[Document], names: Sequence[str], memory: float) -> bool:
    """Print the tables; whether all targets that could be measured are met."""
    good = memory <= CHILD_MIB
    print(f"{'document':26}{'renderer':20}{'pages/s':>9}{'x gs':>7}{'kB':>8}{'x gs':>7}")
    for document in made:
        for name in names:
            rate = statistics.median(figures.of(f"{document.name}/rate", name))
            size = statistics.median(figures.of(f"{document.name}/bytes", name))
            faster = figures.ratio(f"{document.name}/rate", name, GHOSTSCRIPT)
            longer = figures.ratio(f"{document.name}/bytes", name, GHOSTSCRIPT)
            print(
                f"{document.name:26}{name:20}{rate:9.1f}{_times(faster)}{size / 1000:8.0f}{_times(longer)}"
            )
            good &= _met(document.name, name, faster, longer)
    print(f"\nlargest child: {memory:.0f} MiB resident (target: at most {CHILD_MIB})")
    if GHOSTSCRIPT in names:
        print(
            f"targets beside Ghostscript: {ONE_AT_LEAST} in one process, {SEVERAL_AT_LEAST} in several; "
            f"scans at most {SCANS_AT_MOST} of its bytes"
        )
        print("all met" if good else "MISSED")
    else:
        print(
            "Ghostscript (gs) is not on the PATH: these are our own figures, and nothing is held against them"
        )
    return good


def as_json(
    figures: Figures, made: Sequence[Document], names: Sequence[str], memory: float
) -> dict[str, object]:
    """What `python -m benchmarks` takes over: per renderer the document that does worst, and all in a table."""
    rows = [
        "| document | renderer | pages/s | to Ghostscript | kB | to Ghostscript |",
        "|" + " --- |" * 6,
    ]
    for document in made:
        for name in names:
            rate, size = f"{document.name}/rate", f"{document.name}/bytes"
            rows.append(
                f"| {document.name} | {name} | {figures.median(rate, name):.1f} "
                f"| {_times(figures.ratio(rate, name, GHOSTSCRIPT)).strip()} "
                f"| {(figures.median(size, name) or 0) / 1000:.0f} "
                f"| {_times(figures.ratio(size, name, GHOSTSCRIPT)).strip()} |"
            )
    values: dict[str, dict[str, list[float]]] = {"rendering/memory": {"faxbot": [memory * MIB]}}
    for what, name in (("rendering/one", ONE), ("rendering/spread", SEVERAL)):
        rates = [f"{document.name}/rate" for document in made]
        worst = min(rates, key=lambda rate: figures.ratio(rate, name, GHOSTSCRIPT) or 0.0)
        values[what] = {"faxbot": figures.of(worst, name)}
        if GHOSTSCRIPT in names:
            values[what]["ghostscript"] = figures.of(worst, GHOSTSCRIPT)
    return {"values": values, "table": "\n".join(rows)}


def _times(ratio: float | None) -> str:
    return f"{ratio:7.2f}" if ratio is not None else " " * 7


def _met(document: str, name: str, faster: float | None, longer: float | None) -> bool:
    if faster is None or longer is None or name == GHOSTSCRIPT:
        return True
    at_least = ONE_AT_LEAST if name == ONE else SEVERAL_AT_LEAST
    return faster >= at_least and (document != "scans" or longer <= SCANS_AT_MOST)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rendering",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count (default: 5)")
    parser.add_argument(
        "--pages", type=int, default=10, help="pages of each document (default: 10)"
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=os.cpu_count() or 1,
        help="of the spread renderer (default: one a core)",
    )
    parser.add_argument("--json", action="store_true", help="for programs; exit code 0")
    options = parser.parse_args(arguments)
    one, several = Renderer(LIMITS, 1), Renderer(LIMITS, options.processes)
    renderers: dict[str, Render] = {ONE: ours(one), SEVERAL: ours(several)}
    if program := shutil.which("gs"):
        renderers = {GHOSTSCRIPT: ghostscript(program), **renderers}
    try:
        with tempfile.TemporaryDirectory(prefix="faxbot-bench-") as name:
            folder = Path(name)
            made = documents(folder, options.pages)
            figures = measure(made, renderers, options.rounds, folder)
        if options.json:
            print(json.dumps(as_json(figures, made, list(renderers), peak_memory())))
            return 0
        return 0 if report(figures, made, list(renderers), peak_memory()) else 1
    finally:
        one.close()
        several.close()


if __name__ == "__main__":
    sys.exit(main())
