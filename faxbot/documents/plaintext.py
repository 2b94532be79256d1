"""UTF-8 text: decoding, and laying it out in lines and pages. Nothing is cut: long lines are
wrapped.

Counting pages needs no graphics library; `lettering` draws what `lay_out` returns.
"""

from __future__ import annotations

import re
import struct
import unicodedata
from bisect import bisect_right
from functools import lru_cache
from pathlib import Path

from faxbot.errors import DocumentTooLarge, DocumentUnreadable, DocumentUnsupported

FONT = Path(__file__).with_name("DejaVuSansMono.ttf")
COLUMNS, LINES = 89, 59
TAB = 8
MARKS = 30  # on one letter; no language needs more (Unicode Standard Annex 15, section 13)

NO_TEXT = "This file is none of PDF, TIFF, PNG, JPEG and UTF-8 text; save it as PDF and send that."
UNPRINTABLE = (
    "The text has characters that this server cannot print (it prints Latin, Greek and Cyrillic); "
    "save it as PDF and send that."
)
# Line ends of all systems, and of Unicode.
_LINE_ENDS = dict.fromkeys(map(ord, "\r\v\x85\u2028\u2029"), "\n")
# What has no width and no ink: joiners, soft hyphens, variation selectors, marks of direction.
_INVISIBLE = frozenset({"Cf", "Mn"})


def count(path: str, *, max_pages: int) -> int:
    """Pages of the text; raises DocumentUnsupported, DocumentUnreadable or DocumentTooLarge."""
    return len(lay_out(path, max_pages=max_pages))


def lay_out(path: str, *, max_pages: int) -> list[list[str]]:
    """The pages of the text as lists of lines, at most COLUMNS wide; raises as `count`."""
    data = Path(path).read_bytes()
    # Not even a page of four-byte characters could hold more: refused before it is decoded.
    if len(data) > max_pages * LINES * (COLUMNS + 2) * 4:
        raise _too_long(max_pages)
    pages: list[list[str]] = []
    for part in _parts(_decoded(data)):
        lines: list[str] = []
        for line in part.split("\n"):
            lines += _wrapped(line.expandtabs(TAB).rstrip())
            if len(lines) > (max_pages - len(pages)) * LINES:
                raise _too_long(max_pages)
        pages += [lines[at : at + LINES] for at in range(0, len(lines), LINES)]
    return pages


def _too_long(max_pages: int) -> DocumentTooLarge:
    return DocumentTooLarge(
        f"The text has more than {max_pages} pages (FAXBOT_MAX_PAGES); send it in parts."
    )


def _decoded(data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DocumentUnsupported(NO_TEXT) from None
    marks = "".join(filter(unicodedata.combining, set(text)))
    # Putting them in order takes time by the square of their number.
    if marks and re.search(f"[{re.escape(marks)}]{{{MARKS + 1}}}", text):
        raise DocumentUnsupported(UNPRINTABLE)
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").translate(_LINE_ENDS))
    used = set(text) - {"\n", "\t", "\f"}
    if any(character < " " or character == "\x7f" for character in used):
        raise DocumentUnsupported(NO_TEXT)
    invisible = {
        character
        for character in used
        if unicodedata.category(character) in _INVISIBLE and not unicodedata.combining(character)
    }
    if invisible:
        text = text.translate(dict.fromkeys(map(ord, invisible)))
    if not text.strip():
        raise DocumentUnreadable("The file holds no text.")
    if not all(map(_printable, used - invisible)):
        raise DocumentUnsupported(UNPRINTABLE)
    return text


def _parts(text: str) -> list[str]:
    """The text at its form feeds; a form feed or line end that closes the text opens no page."""
    return [part.rstrip("\n") for part in text.rstrip("\n").removesuffix("\f").split("\f")]


def _wrapped(line: str) -> list[str]:
    """The line in pieces of at most COLUMNS, broken at spaces where there are any."""
    pieces, start = [], 0
    while len(line) - start > COLUMNS:
        end = line.rfind(" ", start, start + COLUMNS + 1)
        following = end + 1
        if end <= start or not line[start:end].strip():
            end = following = start + COLUMNS
        pieces.append(line[start:end])
        start = following
    return [*pieces, line[start:]]


def _printable(character: str) -> bool:
    """Whether the font has it, and it runs from left to right in a cell of its own."""
    if character < "\x7f":
        return True
    if unicodedata.combining(character) or unicodedata.bidirectional(character) in ("R", "AL"):
        return False
    starts, ends = _covered()
    at = bisect_right(starts, ord(character)) - 1
    return at >= 0 and ord(character) <= ends[at]


@lru_cache(maxsize=1)
def _covered() -> tuple[list[int], list[int]]:
    """First and last code points of the ranges in the font's character map (OpenType `cmap`, format
    12)."""
    data = FONT.read_bytes()
    (tables,) = struct.unpack_from(">H", data, 4)
    directory = {data[at : at + 4]: at for at in range(12, 12 + 16 * tables, 16)}
    (cmap,) = struct.unpack_from(">I", data, directory[b"cmap"] + 8)
    (maps,) = struct.unpack_from(">H", data, cmap + 2)
    for at in range(cmap + 4, cmap + 4 + 8 * maps, 8):
        (offset,) = struct.unpack_from(">I", data, at + 4)
        if struct.unpack_from(">H", data, cmap + offset) == (12,):
            (groups,) = struct.unpack_from(">I", data, cmap + offset + 12)
            flat = struct.unpack_from(f">{3 * groups}I", data, cmap + offset + 16)
            return list(flat[0::3]), list(flat[1::3])
    raise AssertionError("the bundled font has a format 12 map")
