"""The two kinds of body that Sinch posts, read as streams, because a document lies in them: forms, and
JSON with documents in base64.

Forms are read more kindly than a strict parser would: the boundary is the first line, as Sinch's Node
SDK finds it, and lines may end in LF alone, as in that SDK's tests. Of JSON nothing well kept gives a
long string in pieces, so what is none of its documents is put aside for `json` as it is.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

LARGEST_NEWS = 1024 * 1024
"""Bytes of everything but the documents; a webhook has less than two thousand."""
MOST_PARTS = 32
MOST_DEPTH = 64
_LONGEST_LINE = 512
_LONGEST_HEAD = 4096
_AHEAD = 66
"""Bytes that must be seen behind a boundary to know that it is one."""
_HEAD = re.compile(rb"[ \t]*\r?\n(.{1,%d}?)\r?\n\r?\n" % _LONGEST_HEAD, re.DOTALL)
_NAME = re.compile(rb'[;\s]name="?([^";\r\n]+)', re.IGNORECASE)
_LINE_END = re.compile(rb"[ \t]{0,64}\r?\n")
_STRUCTURE = re.compile(rb'["{}\[\]:,]')
_STOP = re.compile(rb'["\\]')
_SPACE = b" \t\r\n"
_ESCAPES = {b"/": b"/", b"n": b"\n", b"r": b"\r", b"t": b"\t"}


@dataclass(frozen=True, slots=True)
class Head:
    """A part of a form begins; its name is empty where it has none."""

    name: bytes


def form(chunks: Iterable[bytes]) -> Iterator[Head | bytes | None]:
    """Of each part its Head, its content in pieces, and None where it ends as it should."""
    stream = _Stream(chunks)
    delimiter = stream.delimiter()
    if not delimiter or any(stream.until(delimiter)):
        return
    parts = 0
    while stream.found and parts < MOST_PARTS and not stream.is_over():
        parts += 1
        yield Head(stream.name(delimiter))
        yield from stream.until(delimiter)
        if stream.found:
            yield None


class _Stream:
    """A body of which only so much is `held` as is looked at; `found`: until() came to its end."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._source = iter(chunks)
        self._whole = False
        self.held = b""
        self.found = False

    def hold(self, size: int) -> None:
        """Have so many bytes at hand, or all that there are."""
        while len(self.held) < size and not self._whole:
            piece = next(self._source, b"")
            self.held, self._whole = self.held + piece, not piece

    def delimiter(self) -> bytes:
        """What stands between the parts, by the first line; empty where that cannot be."""
        self.hold(_LONGEST_LINE)
        line, ended, _ = self.held[:_LONGEST_LINE].partition(b"\n")
        end_of_line = b"\r\n" if line.endswith(b"\r") else b"\n"
        self.held = end_of_line + self.held
        return end_of_line + line.rstrip() if ended else b""

    def is_over(self) -> bool:
        """Whether the last delimiter was the form's end; else a whole head is at hand."""
        self.hold(_LONGEST_HEAD + _AHEAD)
        return self.held.startswith(b"--")

    def name(self, delimiter: bytes) -> bytes:
        """The name in the head of a part, which is left behind; empty where there is none."""
        head = _HEAD.match(self.held)
        if head is None or delimiter in head[0]:
            return b""
        self.held = self.held[head.end() :]
        name = _NAME.search(head[1])
        return name[1] if name else b""

    def until(self, delimiter: bytes) -> Iterator[bytes]:
        """What stands before the next delimiter, or before the end; it is left behind."""
        self.found = False
        while True:
            at = self._place(delimiter)
            sure = at if at >= 0 else len(self.held) - len(delimiter) - _AHEAD
            if at < 0 and self._whole:
                sure = len(self.held)
            if sure > 0:
                yield self.held[:sure]
                self.held = self.held[sure:]
            if at >= 0 and (self._whole or len(self.held) >= len(delimiter) + _AHEAD):
                self.held, self.found = self.held[len(delimiter) :], True
                return
            if self._whole:
                return
            self.hold(len(self.held) + 1)

    def _place(self, delimiter: bytes) -> int:
        """Where it stands on a line of its own, or may do so as far as is known; -1 for nowhere."""
        at = self.held.find(delimiter)
        while at >= 0:
            behind = self.held[at + len(delimiter) : at + len(delimiter) + _AHEAD]
            open_still = not self._whole and len(behind) < _AHEAD
            if open_still or behind.startswith(b"--") or _LINE_END.match(behind):
                return at
            at = self.held.find(delimiter, at + 1)
        return -1


class News:
    """JSON that is fed in pieces: `text` is all of it but the documents, of which empty strings are
    left, and `documents` how many there were. Of the first one `take` is given the content, in
    pieces, as it stands in the string.

    A document is the string `file` of the whole, or of an object in its list `files`. Raises
    ValueError for what is too deep or too large.
    """

    def __init__(self, take: Callable[[bytes], None] = lambda _: None) -> None:
        self.documents = 0
        self._take = take
        self._text = bytearray()
        self._carry = b""
        self._mode = _OUTSIDE
        self._levels: list[_Level] = []
        self._begin = 0
        self._size = 0

    def feed(self, chunk: bytes) -> None:
        """The next piece of the body."""
        chunk, at = self._carry + chunk, 0
        self._carry = b""
        while at < len(chunk):
            if self._mode is _OUTSIDE:
                at = self._outside(chunk, at)
                continue
            stop = _STOP.search(chunk, at)
            self._keep(chunk[at : stop.start() if stop else len(chunk)])
            if stop is None:
                break
            at = stop.start()
            if stop[0] == b'"':
                self._end_string()
                at += 1
            else:
                length = 6 if chunk[at + 1 : at + 2] == b"u" else 2
                if len(chunk) - at < length:
                    self._carry = chunk[at:]
                    break
                self._keep_escape(chunk[at : at + length])
                at += length
        if len(self._text) > LARGEST_NEWS:
            raise ValueError("too large")

    @property
    def text(self) -> bytes:
        """What there was but documents; raises ValueError where it ends within a string."""
        if self._mode is not _OUTSIDE:
            raise ValueError("it ends within a string")
        return bytes(self._text)

    def _outside(self, chunk: bytes, at: int) -> int:
        found = _STRUCTURE.search(chunk, at)
        end = found.end() if found else len(chunk)
        self._text += chunk[at:end]
        if found is None:
            return end
        mark, levels = found[0], self._levels
        if mark in b"{[":
            if len(levels) == MOST_DEPTH:
                raise ValueError("too deep")
            levels.append(_Level(mark == b"{"))
        elif mark in b"}]":
            del levels[-1:]
        elif mark == b'"':
            is_name = bool(levels) and levels[-1].awaits_name
            document = not is_name and self._is_document()
            self._mode = _DOCUMENT if document else _STRING
            self._begin, self._size = len(self._text), 0
        elif levels and levels[-1].is_object:
            levels[-1].awaits_name = mark == b","
        return end

    def _is_document(self) -> bool:
        names = [level.name if level.is_object else None for level in self._levels]
        return names in ([b"file"], [b"files", None, b"file"])

    def _keep(self, piece: bytes) -> None:
        if self._mode is _STRING:
            self._text += piece
        elif piece:
            self.documents += self._size == 0
            self._size += len(piece)
            if self.documents == 1:
                self._take(piece)

    def _keep_escape(self, escape: bytes) -> None:
        if self._mode is _STRING:
            self._text += escape
        elif escape[1:2] == b"u":
            self._keep(chr(int(escape[2:], 16)).encode(errors="replace"))
        else:
            # None of the others stands for anything that base64 has.
            self._keep(_ESCAPES.get(escape[1:], b"?"))

    def _end_string(self) -> None:
        if self._mode is _STRING and self._levels and self._levels[-1].awaits_name:
            self._levels[-1].name = bytes(self._text[self._begin :])
        self._mode = _OUTSIDE
        self._text += b'"'


_OUTSIDE, _STRING, _DOCUMENT = range(3)


@dataclass(slots=True)
class _Level:
    """An object or a list that is open: of an object, the name of the value that it is at."""

    is_object: bool
    name: bytes = b""
    awaits_name: bool = False

    def __post_init__(self) -> None:
        self.awaits_name = self.is_object


class Base64:
    """Text of base64 that is fed in pieces, lines of any length, written as the bytes that it stands
    for. Raises ValueError for any that is none."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._rest = b""
        self._ended = False

    def feed(self, text: bytes) -> None:
        text = self._rest + text.translate(None, _SPACE)
        whole = len(text) - len(text) % 4
        self._rest = text[whole:]
        if not text:
            return
        if self._ended:
            raise ValueError("more after its end")
        if whole:
            self._ended = text[whole - 1 : whole] == b"="
            self._write(binascii.a2b_base64(text[:whole], strict_mode=True))

    def close(self) -> None:
        """Raises ValueError where it is cut off."""
        if self._rest:
            raise ValueError("cut off")
