"""Tells whether a PDF has holes: PDFium takes what it finds of a damaged stream or object for all
of it, and text, a font or a mask that is lost makes a page blank and no error.

The file is searched as it lies there, not read as a PDF, so nothing that a page might use is left
out; how far it goes is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from mmap import ACCESS_READ, mmap
from pathlib import Path

from faxbot.documents import whole

_FILTER = re.compile(rb"/Filter\s*(?:\[\s*)?/(?:(FlateDecode|Fl)|ASCII85Decode|ASCIIHexDecode)\b")
DICTIONARY = 2048  # bytes before a stream in which its filter is looked for
HOLE = bytes(64)  # nothing writes that in the codes of text, nor in packed data
# Some pad objects and packed data with zeros; a disk or a download loses 512 bytes and more.
GAP = bytes(256)
UNPACKED = 64 << 20  # bytes looked at, of the shortest streams first: text before pictures


def sound(path: str) -> bool:
    """Whether no hole was found in the PDF; one that is encrypted is not searched."""
    with Path(path).open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        if data.find(b"/Encrypt") >= 0:
            return True
        streams = list(_streams(data))
        ends = [data.find(b"%PDF-"), *(end for _, end in streams)]
        starts = [*(start for start, _ in streams), data.rfind(b"startxref")]
        if any(GAP in data[end:start] for end, start in zip(ends, starts, strict=True)):
            return False
        return _all_unpack(data, streams)


def _all_unpack(data: mmap, streams: list[tuple[int, int]]) -> bool:
    left = UNPACKED
    for start, end in sorted(streams, key=lambda each: each[1] - each[0]):
        head = data[max(0, start - DICTIONARY) : start]
        coded = _FILTER.search(head, head.rfind(b"obj") + 1)
        rest = data[start:end].lstrip(b"\r\n") if coded else b""
        hole = HOLE
        if coded and coded[1] and rest:
            if (found := whole.unpacked(rest, left)) is None:
                return False
            left -= found.length
            rest, hole = (found.after, GAP) if found.checked else (rest, HOLE)
        if left <= 0:
            break
        if hole in rest:
            return False
    return True


def _streams(data: mmap) -> Iterator[tuple[int, int]]:
    """Where the data of each stream begins, with its line end, and ends."""
    at = 0
    while (start := data.find(b"stream", at)) >= 0:
        at = start + len(b"stream")
        if data[max(0, start - 32) : start].rstrip().endswith(b">>"):
            end = data.find(b"endstream", at)
            if end < 0:
                return
            yield at, end
            at = end + len(b"endstream")
