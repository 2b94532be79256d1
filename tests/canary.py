"""The canary: words that are personal, every way in which a careless program would write them down, and the channels in
which they must not be found.

A channel is a place where something of a running faxbot can be read by others than those who may read faxes: the
broker, its window (Flower), logs, command lines, addresses, answers that refuse, the database as it lies on its disk,
and what is left in folders.
"""

from __future__ import annotations

import base64
import html
import json
import quopri
import re
import socket
import socketserver
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import cast
from urllib.parse import quote, quote_plus, urlsplit

import psutil
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from faxbot.testing.standin import Served
from tests.ground import processes_of

NAME = "Quetzalcóatl"
"""A patient's. With a letter that every encoding writes in its own way."""
HEADER = "Practice of Dr. Zyzzyva"
FILE_NAME = "befund-mxyzptlk-ß.txt"
TEXT = "Verdacht auf Triskaidekaphobie"
SECRET = f"{NAME} +14158370000 {TEXT}"
PREFIX = "837"
"""Of all numbers, behind the area: +1 415 837 ...."""


AREAS = ("415", "416", "417", "418", "419", "420", "421")


def number(ending: str, area: str = AREAS[0]) -> str:
    return f"+1{area}{PREFIX}{ending}"


def words(endings: Iterable[str]) -> dict[str, list[str]]:
    """What is looked for, by the kind of what it gives away; of a number its last seven digits in every spelling."""
    digits = [PREFIX + ending for ending in endings]
    return {
        # Without the first dot "837.0017" would be found in a time of day.
        "number": [
            f"{before}{each[:3]}{between}{each[3:]}"
            for each in digits
            for before, between in (("", ""), ("", "-"), ("", " "), (".", "."))
        ],
        "name": [NAME, "Zyzzyva"],
        "file name": ["mxyzptlk-ß", "mxyzptlk"],
        "text": [TEXT, "Triskaidekaphobie"],
    }


# Writing down --------------------------------------------------------------------------------------


def spellings(word: str) -> dict[str, bytes]:
    """The word as text is written: raw, in JSON, in an address, in a page, in a log."""
    raw = word.encode()
    return {
        "raw": raw,
        "latin": word.encode("latin-1"),
        "json": json.dumps(word)[1:-1].encode(),
        "percent": quote(word, safe="").encode(),
        "percent lower": re.sub(
            "%[0-9A-F]{2}", lambda m: m[0].lower(), quote(word, safe="")
        ).encode(),
        "percent whole": "".join(f"%{byte:02X}" for byte in raw).encode(),
        "form": quote_plus(word).encode(),
        "page": html.escape(word).encode("ascii", "xmlcharrefreplace"),
        "escaped": raw.decode("latin-1").encode("unicode_escape"),
        "ascii": word.encode("ascii", "backslashreplace"),
        "mail": quopri.encodestring(raw),
        "escaped twice": json.dumps(json.dumps(word)[1:-1])[1:-1].encode(),
    }


def forms(word: str) -> dict[str, bytes]:
    """Every spelling as it is, in hexadecimal, and in base64 wherever it may begin in what is encoded."""
    found: dict[str, bytes] = {}
    for spelling, written in spellings(word).items():
        found[spelling] = written
        found[f"{spelling}, hex"] = written.hex().encode()
        for shift in range(3):
            encoded = _in_base64(written, shift)
            found[f"{spelling}, base64+{shift}"] = encoded
            found[f"{spelling}, base64url+{shift}"] = encoded.translate(_URL)
    return found


_URL = bytes.maketrans(b"+/", b"-_")


def _in_base64(written: bytes, shift: int) -> bytes:
    """What stands in base64 for these bytes whatever is before and behind them."""
    low, high = (
        base64.b64encode(filler * shift + written + filler * (3 - (shift + len(written)) % 3))
        for filler in (b"\x00", b"\xff")
    )
    same = [a == b for a, b in zip(low, high, strict=True)]
    begin = same.index(True)
    end = same.index(False, begin) if False in same[begin:] else len(same)
    return low[begin:end]


class Search:
    """Looks for every form of some words at once."""

    _BEGINNING = 4
    """Bytes. So much of a form is looked for in all that was seen, and the rest of it where that is: many forms begin
    alike, and one pattern of them all would take a hundred times as long (measured)."""

    def __init__(self, kinds: Mapping[str, Iterable[str]]) -> None:
        self._meaning: dict[bytes, tuple[str, str, list[str]]] = {}
        """By what is looked for: the kind and the form, and the words that look so (in base64 a last 4 to 7 is one)."""
        for kind, each in kinds.items():
            for word in each:
                for form, written in forms(word).items():
                    _, _, meant = self._meaning.setdefault(written.lower(), (kind, form, []))
                    meant.append(word)
        self._beginnings: dict[bytes, list[bytes]] = {}
        # The longest first: it says most.
        for written in sorted(self._meaning, key=len, reverse=True):
            assert len(written) >= self._BEGINNING, written
            self._beginnings.setdefault(written[: self._BEGINNING], []).append(written)

    def hits(self, seen: bytes) -> list[str]:
        """What is found, and what stands before it."""
        lower, found = seen.lower(), []
        for beginning, candidates in self._beginnings.items():
            for at in _places(beginning, lower):
                for written in candidates:
                    if lower.startswith(written, at):
                        kind, form, meant = self._meaning[written]
                        if not all(
                            word.isdigit() and _is_chance(word.encode(), form, seen, at)
                            for word in meant
                        ):
                            before = seen[max(0, at - 60) : at]
                            found.append(f"{kind} ({form}) behind {before!r}")
        return found


def _is_chance(digits: bytes, form: str, seen: bytes, at: int) -> bool:
    """Whether these are some of the many digits of another number, as of a time that was measured: more of them
    follow, or stand before them and are no area. In base64 the letters that are looked for leave the first and the last
    digit open: where what they decode to has other digits there, they were none of ours."""
    if "base64" in form:
        around = re.search(rb"[A-Za-z0-9+/_-]*$", seen[max(0, at - 16) : at])
        begin = at - len(around[0]) if around else at
        encoded = re.match(rb"[A-Za-z0-9+/_-]*", seen[begin : at + 24])
        pieces = [_decoded(encoded[0][offset:]) for offset in range(4)] if encoded else []
    elif form.endswith("hex") or not seen.startswith(digits, at):
        return False
    else:
        pieces = [seen[max(0, at - 3) : at + len(digits) + 1]]
    shown = [piece for piece in pieces if digits in piece or _another(digits, piece)]
    return bool(shown) and not any(_stands_alone(digits, piece) for piece in shown)


def _another(digits: bytes, piece: bytes) -> bool:
    first, last = digits[:1], digits[-1:]
    either = rb"[^%b]%b|%b[^%b]" % (first, digits[1:], digits[:-1], last)
    return re.search(either, piece, re.DOTALL) is not None


def _decoded(encoded: bytes) -> bytes:
    whole = encoded[:-1] if len(encoded) % 4 == 1 else encoded  # one letter alone says nothing
    return base64.b64decode(whole + b"=" * (-len(whole) % 4), altchars=b"-_")


def _stands_alone(digits: bytes, piece: bytes) -> bool:
    areas = b"|".join(each.encode() for each in AREAS)
    return re.search(rb"(?:^|[^0-9]|" + areas + rb")" + digits + rb"(?![0-9])", piece) is not None


def _places(word: bytes, seen: bytes) -> Iterator[int]:
    at = seen.find(word)
    while at >= 0:
        yield at
        at = seen.find(word, at + 1)


# Channels ------------------------------------------------------------------------------------------


class Monitor:
    """Everything that anybody asks of a Redis, by its own MONITOR, from the beginning to the end."""

    def __init__(self, broker: str) -> None:
        """`broker`: redis://host:port/0 or redis+socket:///path."""
        place = urlsplit(broker)
        self.seen = bytearray()
        if place.hostname:
            self._socket = socket.create_connection((place.hostname, place.port or 6379))
        else:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.connect(place.path)
        self._socket.sendall(b"MONITOR\r\n")
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        with suppress(OSError):
            while piece := self._socket.recv(65_536):
                self.seen += piece

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()


class Wiretap(Served):
    """Stands between faxbot and a carrier, gives on what is said, and keeps the addresses that were asked for.

    `answers`: what is said in the carrier's place to a request with these bytes in it; the carrier does not hear of it.
    """

    _ASKED = re.compile(rb"(?:GET|POST|PUT|PATCH|DELETE) ([^\r\n]*) HTTP/1\.1\r\n")

    def __init__(self, carrier: str, answers: Mapping[bytes, bytes] | None = None) -> None:
        self.carrier = urlsplit(carrier)
        self.answers = answers or {}
        self.answered: list[bytes] = []
        """The keys of the answers that were given."""
        self.said = bytearray()
        super().__init__(_Tap(self))

    def addresses(self) -> bytes:
        return b"\n".join(self._ASKED.findall(bytes(self.said)))

    def answer(self, request: bytes) -> bytes | None:
        for word, answer in self.answers.items():
            if word in request:
                self.answered.append(word)
                return answer
        return None


def http(status: str, body: object) -> bytes:
    """An answer with text, or with anything else as JSON."""
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    kind = "text/plain" if isinstance(body, str) else "application/json"
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


class _Tap(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, wiretap: Wiretap) -> None:
        self.wiretap = wiretap
        super().__init__(("127.0.0.1", 0), _Line)


class _Line(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        wiretap = cast(_Tap, self.server).wiretap
        to = (wiretap.carrier.hostname or "", wiretap.carrier.port or 80)
        with suppress(OSError), closing(socket.create_connection(to)) as carrier:
            back = threading.Thread(target=_pass_on, args=(carrier, self.request), daemon=True)
            back.start()
            while request := self._request():
                wiretap.said += request
                if (answer := wiretap.answer(request)) is None:
                    carrier.sendall(request)
                else:
                    self.request.sendall(answer)
            carrier.shutdown(socket.SHUT_WR)
            back.join()

    def _request(self) -> bytes:
        """The next one, whole; what there is of it where its end does not come."""
        data = b""
        while (head := data.find(b"\r\n\r\n")) < 0 or len(data) < head + 4 + _length(data[:head]):
            if not (piece := self.request.recv(65_536)):
                break
            data += piece
        return data


def _length(head: bytes) -> int:
    found = re.search(rb"(?i)\r\ncontent-length: *([0-9]+)", head)
    return int(found[1]) if found else 0


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65_536):
            target.sendall(piece)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


class Watch:
    """Command lines and environments of all processes of an installation, and the names of all files below some
    folders, looked at again and again."""

    def __init__(self, folder: Path, *folders: Path) -> None:
        self._folder, self._folders = folder, folders
        self.command_lines: set[str] = set()
        self.names: set[str] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._ended.wait(0.1):
            self.look()

    def look(self) -> None:
        for process in processes_of(self._folder):
            with suppress(psutil.Error):
                self.command_lines.update((*process.cmdline(), *process.environ().values()))
        for folder in self._folders:
            for each in _walk(folder):
                self.names.add(str(each.relative_to(folder)))

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self.look()


def _walk(folder: Path) -> Iterator[Path]:
    with suppress(OSError):  # what is there now is gone in a moment
        for each in folder.iterdir():
            yield each
            if each.is_dir() and not each.is_symlink():
                yield from _walk(each)


def contents(folder: Path, left_out: Callable[[Path], bool] = lambda _path: False) -> bytes:
    """What lies in all files below a folder."""
    read = []
    for each in _walk(folder):
        if each.is_file() and not left_out(each):
            with suppress(OSError):
                read.append(each.read_bytes())
    return b"\n".join(read)


def dump(engine: Engine) -> bytes:
    """Every value of every row of every table, also of tables that our models do not know."""
    pieces = []
    with engine.connect() as connection:
        for table in sa.inspect(connection).get_table_names():
            for row in connection.execute(sa.text(f'SELECT * FROM "{table}"')):
                pieces += [v if isinstance(v, bytes) else str(v).encode() for v in row]
    return b"\n".join(pieces)
