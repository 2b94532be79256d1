"""Turns a grey page into black and white, by what is on it.

Text and lines are thresholded, pictures and shades are screened, and scans are cleaned first: on
the line every byte costs time, and a threshold of a scan is ten times shorter than its halftone.
Two maps of the page at a quarter of its size decide: the brightest and the darkest grey near each
point.

- All ink dark on clean white: one threshold for the page.
- Otherwise the threshold lies half-way between the brightest and the darkest nearby, so that light
  text, hairlines, text on a shade and white text on a dark field all stay readable; noise stays
  below a least contrast.
- Where even the brightest nearby is not paper, and contrast is low, there is a picture or a shade:
  it gets a 45-degree clustered-dot screen. Floyd-Steinberg looks finer and takes 2.5 to 3.5 times
  the bytes (measured), because Group 4 codes lengths of runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from PIL import Image, ImageChops, ImageFilter, ImageOps

INK = 255  # in the black and white image: Group 4 codes these pixels as black runs
TONES = 256

# Darker than this is ink wherever it stands, so that the inside of broad strokes stays black.
SOLID = 90
PLAIN = 150  # the threshold of a page with nothing but dark ink; text keeps its weight
DIMMEST_PAPER = 160  # the paper's own level is no darker than this
HILL = 6  # greys to either side of a level that belong to it: scanned paper has no single grey
PAPER_SHARE = 0.85  # brighter than this part of the paper's own level counts as paper
EVEN = 0.88  # paper differs from its own level by no more than this, either way
CONTRAST = 0.82  # ink is darker than this part of the paper around it; on noisy paper darker still
CONTRAST_NOISY = 0.75
# Below this part of the paper's level there is a picture or a shade.
PICTURE_CLEAN, PICTURE_NOISY = 0.97, 0.85
EDGE = 96  # from this difference on it is drawn as an edge, within pictures too
INKED = 64  # where even the brightest nearby is darker than this, there is solid ink and no shade
FEW_SHADED = 0.002  # part of the page: less than this in shades is nothing
STROKE = 110  # from this grey on nothing nearby belongs to a dark stroke or to its edge
LIGHT_FROM, LIGHT_TO = 100, 225  # greys of light marks: pencil, pale lettering
FEW_LIGHT = 8  # points of light marks, at a quarter of the size
HALF = 0.5
PALE = 128  # brighter than this, nothing nearby can be lettering on a shade
# A picture's range: black below, white above, lighter between for dot gain.
SHADOWS, LIGHTS, GAMMA = 40, 228, 0.85
DULLEST = 160  # a picture's lights are stretched down to here at most

_Operation = Callable[[Image.Image, Image.Image], Image.Image]


class _Survey(NamedTuple):
    """What is on the page: two maps of it at a quarter of its size, and figures about them."""

    brightest: Image.Image
    darkest: Image.Image
    tones: list[int]  # how many points of a sample have each grey
    level: int  # grey of the paper
    paper: float  # part of the page that is paper
    shaded: float  # part of the page where the brightest nearby is neither paper nor solid ink
    noisy: bool
    light: int  # points of light marks


def ink(grey: Image.Image, resolution: str) -> Image.Image:
    """The page in black and white: mode "1", INK where the paper gets ink."""
    page = _survey(grey, 2 if resolution == "fine" else 1)
    if page.shaded < FEW_SHADED and not page.noisy and page.light < FEW_LIGHT:
        return grey.point([INK if tone < PLAIN else 0 for tone in range(TONES)], "1")
    source = grey
    if page.noisy and page.paper >= HALF:
        source = grey.filter(ImageFilter.BoxBlur(0.7))
    result = _darker(source, _thresholds(page).resize(grey.size, Image.Resampling.NEAREST))
    if page.shaded >= FEW_SHADED:
        pictures = _pictures(page)
        if pictures.getbbox():
            dots = _screened(source, page, resolution)
            result.paste(dots, mask=pictures.resize(grey.size, Image.Resampling.NEAREST))
    return result


def _survey(grey: Image.Image, down: int) -> _Survey:
    half = grey.reduce((2, down))
    sample = half.resize((half.width // 2, half.height // 2), Image.Resampling.NEAREST)
    tones = sample.histogram()
    # Windows of 20 and 12 pixels of a fine page: wider than a stroke of text, narrower than what
    # counts as a shade.
    brightest = _spread(_pooled(half, ImageChops.lighter), ImageChops.lighter, (1, 1, 2))
    pooled = _pooled(half, ImageChops.darker)
    darkest = _spread(pooled, ImageChops.darker, (1, 1))
    highs = brightest.histogram()
    level = max(
        range(DIMMEST_PAPER, TONES),
        key=lambda tone: (sum(highs[tone - HILL : tone + HILL + 1]), tone),
    )
    paper_from = int(level * PAPER_SHARE)
    points = brightest.width * brightest.height
    # Paper is much of one level; brightness alone may also be a sky.
    paper = sum(highs[int(level * EVEN) : int(level / EVEN) + 1]) / points
    # Paper from a program has one grey, scanned paper a hill of them.
    peak = max(range(level - HILL, min(TONES, level + HILL + 1)), key=tones.__getitem__)
    alike = sum(tones[peak - 2 : peak + 3]) / sum(tones)
    # The edge of a dark stroke is grey too, but has something dark beside it.
    nothing_dark = darkest.point([255 if tone >= STROKE else 0 for tone in range(TONES)])
    return _Survey(
        brightest, darkest, tones, level, paper,
        shaded=sum(highs[INKED:paper_from]) / points,
        noisy=alike < HALF * paper,
        light=sum(pooled.histogram(nothing_dark)[LIGHT_FROM:LIGHT_TO]),
    )  # fmt: skip


def _pooled(image: Image.Image, operation: _Operation) -> Image.Image:
    """Half the size, by the brightest or darkest of each four points."""
    image = operation(image, ImageChops.offset(image, 1, 0))
    image = operation(image, ImageChops.offset(image, 0, 1))
    # Of two points the nearest to the middle is the second, which has seen the first.
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.NEAREST)


def _spread(image: Image.Image, operation: _Operation, steps: tuple[int, ...]) -> Image.Image:
    """The operation over a square around each point, sum(steps) + 1 points wide."""
    reach = sum(steps)
    neutral = 0 if operation is ImageChops.lighter else 255
    wide = ImageOps.expand(image, reach, neutral)
    for step in steps:
        wide = operation(wide, ImageChops.offset(wide, step, 0))
        wide = operation(wide, ImageChops.offset(wide, 0, step))
    left = reach + reach // 2
    return wide.crop((left, left, left + image.width, left + image.height))


def _thresholds(page: _Survey) -> Image.Image:
    between = ImageChops.add(page.brightest, page.darkest, 2)
    contrast = CONTRAST_NOISY if page.noisy else CONTRAST
    most = page.brightest.point([int(contrast * min(tone, page.level)) for tone in range(TONES)])
    return ImageChops.darker(between, most).point([max(SOLID, tone) for tone in range(TONES)])


def _darker(grey: Image.Image, than: Image.Image) -> Image.Image:
    return ImageChops.subtract(than, grey).point([0] + [INK] * (TONES - 1), "1")


def _pictures(page: _Survey) -> Image.Image:
    """Where the screen goes, as 255: pictures and shades, but not edges and lettering in them."""
    even = ImageChops.subtract(page.brightest, page.darkest).point(
        [255 if tone < EDGE else 0 for tone in range(TONES)])  # fmt: skip
    # Where nothing is dark, an edge is the border of a shade: thresholded it would become a thick
    # frame.
    pale = page.darkest.point([255 if tone >= PALE else 0 for tone in range(TONES)])
    # Dots come back to within two pixels of lettering, which keeps a fine halo.
    flat = _spread(ImageChops.lighter(even, pale), ImageChops.lighter, (1, 1))
    if page.paper < HALF:
        return flat
    limit = int(page.level * (PICTURE_NOISY if page.noisy else PICTURE_CLEAN))
    cells = page.brightest.point([255 if tone < limit else 0 for tone in range(TONES)]).reduce(2)
    # Grown by five cells and shrunk by three: holes close, and the border that the window ate comes
    # back.
    grown = (
        cells.point([0] * 128 + [255] * 128).filter(ImageFilter.BoxBlur(5)).point([0] + [255] * 255)
    )
    kept = grown.filter(ImageFilter.BoxBlur(3)).point([0] * 255 + [255])
    return ImageChops.darker(kept.resize(flat.size, Image.Resampling.NEAREST), flat)


def _screened(grey: Image.Image, page: _Survey, resolution: str) -> Image.Image:
    low, high = SHADOWS, LIGHTS
    if page.paper < HALF:  # nothing but a picture: it gets the whole range
        low, high = _range(page.tones)
    curve = [
        round(255 * min(1.0, max(0.0, (tone - low) / (high - low))) ** GAMMA)
        for tone in range(TONES)
    ]
    return _darker(grey.point(curve), _tiled(_CELLS[resolution], grey.size))


def _range(tones: list[int]) -> tuple[int, int]:
    """The greys that leave out the darkest and the brightest fiftieth, within what a picture may
    use."""
    points = sum(tones)
    below, low, high = 0, 0, TONES - 1
    for tone, number in enumerate(tones):
        below += number
        if below < points / 50:
            low = tone
        if below > points * 49 / 50:
            high = tone
            break
    return min(low, SHADOWS), min(LIGHTS, max(DULLEST, high))


def _cell(across: int, down: int) -> Image.Image:
    """One period of a 45-degree clustered-dot screen as thresholds, spread evenly over the
    greys."""

    def height(x: int, y: int) -> float:
        a, b = (x + 0.5) / across, (y + 0.5) / down
        # The small phases keep two pixels from being equal, which would make dots jump in size.
        return math.cos(2 * math.pi * (a + b) + 0.1) + math.cos(2 * math.pi * (a - b) + 0.2)

    places = sorted((height(x, y), x, y) for y in range(down) for x in range(across))
    cell = Image.new("L", (across, down))
    for rank, (_, x, y) in enumerate(places):
        cell.putpixel((x, y), int((rank + 0.5) * TONES / len(places)))
    return cell


# About 48 lines to the inch; coarser would be shorter still, but eats small print in pictures.
_CELLS = {"fine": _cell(6, 6), "standard": _cell(8, 4)}


def _tiled(cell: Image.Image, size: tuple[int, int]) -> Image.Image:
    sheet = Image.new("L", size)
    sheet.paste(cell)
    width, height = cell.size
    while width < size[0]:
        sheet.paste(sheet.crop((0, 0, width, height)), (width, 0))
        width *= 2
    while height < size[1]:
        sheet.paste(sheet.crop((0, 0, size[0], height)), (0, height))
        height *= 2
    return sheet
