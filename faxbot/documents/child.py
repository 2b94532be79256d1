"""The process that opens documents, so that a hostile one can harm nothing else.

`python -I -S -B child.py ...` reads requests from standard input and answers on standard output,
both as a length of four bytes and JSON, and keeps within the limits it is started with. It ends
when its standard input does, in the middle of work too, so it does not outlive the process that
started it; stopped by SIGSTOP, it ends when it goes on. (The kernel's signal for a parent's death
would come when the thread that started it ends, and web threads do.) It gets no environment, no
network use and no log: an unexpected error is answered by its kind alone, since its words might
quote the document.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import struct
import sys
import threading
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

# The package's own __init__ is the parent's half; loading it would cost every child 3 MiB
# (measured).
_package = ModuleType("faxbot.documents")
_package.__path__ = [str(Path(__file__).parent)]

LENGTH = struct.Struct(">I")
MEGABYTE = 1 << 20
IDLE = 0.5  # seconds
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # malloc.h of the GNU C library
Request = dict[str, Any]

_libc = ctypes.CDLL(None)


def main(arguments: list[str]) -> None:
    """Serve until standard input ends. Arguments: memory limit, largest file written (both MiB),
    niceness, import folders."""
    memory, written, nice, *folders = arguments
    sys.path += folders
    import_module("faxbot")
    sys.modules["faxbot.documents"] = _package
    os.umask(0o077)
    os.nice(int(nice))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (int(memory) * MEGABYTE,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(written) * MEGABYTE,) * 2)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    errors = import_module("faxbot.errors")
    while True:
        request = _next()
        _allow_cpu(request["seconds"])
        _answer(_served(request, errors))


def _next() -> Request:
    """The next request; when none comes for a while, freed memory is handed to the system (tens of
    MiB)."""
    if not _input(select.POLLIN).poll(IDLE * 1000) and hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)
    (length,) = LENGTH.unpack(_read(LENGTH.size))
    request: Request = json.loads(_read(length))
    return request


def _end_with_parent() -> None:
    _input(0).poll()  # told of nothing but its end
    os._exit(0)


def _input(events: int) -> select.poll:
    poll = select.poll()
    poll.register(0, events)
    return poll


def _read(length: int) -> bytes:
    """That many bytes of standard input; ends the process when there are no more."""
    data = b""
    while len(data) < length:
        more = os.read(0, length - len(data))
        if not more:
            os._exit(0)
        data += more
    return data


def _allow_cpu(seconds: float) -> None:
    """Processor time for this request, beside the parent's clock: a parent that hangs must not
    leave us spinning."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime + seconds) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


def _answer(reply: dict[str, object]) -> None:
    data = json.dumps(reply).encode()
    data = LENGTH.pack(len(data)) + data
    while data:
        data = data[os.write(1, data) :]


def _served(request: Request, errors: ModuleType) -> dict[str, object]:
    try:
        return {"result": _DOES[request["do"]](request)}
    except errors.FaxbotError as error:
        return {"error": error.code, "detail": error.detail}
    except MemoryError:
        return {"error": "memory"}
    except OSError as error:
        # Pillow's complaints about a picture have no number; those of the system (disk full, no
        # file) do.
        return {"error": "system", "number": error.errno} if error.errno else {"error": "broken"}
    except Exception as error:  # noqa: BLE001 - a library's trouble; see the module's first lines
        return {"error": "broken", "kind": type(error).__name__}


# What is needed for a document is loaded when the first of its kind comes: a child that only sees
# PDFs stays small.
def _part(name: str) -> ModuleType:
    return import_module(f"faxbot.documents.{name}")


class _Source(NamedTuple):
    """A document within the limits of its request."""

    path: str
    media_type: str
    pages: int
    ready: str = ""  # the resolution in which it is a fax TIFF already


def _counted(path: str, request: Request, *, look: bool) -> _Source:
    """The document and its pages; with `look`, damage in it is looked for as well."""
    media_type = _part("kinds").kind(path)
    max_pages, limits = request["max_pages"], {"max_pixels": request["max_pixels"], "look": look}
    if media_type == "application/pdf":
        pages = _part("pdfium").count(path, max_pages=max_pages, **limits)
        return _Source(path, media_type, pages)
    if media_type == "text/plain":
        return _Source(path, media_type, _part("plaintext").count(path, max_pages=max_pages))
    if media_type == "image/tiff":
        pages, ready = _part("tiff").ready_pages(path, request["resolutions"], max_pages)
        if pages:
            if look:
                _part("pictures").ask_for_rows(path, 0, pages, max_pages)
            return _Source(path, media_type, pages, ready)
    pages = _part("pictures").count(path, media_type, max_pages=max_pages, **limits)
    return _Source(path, media_type, pages)


def _check(request: Request) -> dict[str, object]:
    """{path, resolutions, max_pages, max_pixels} -> {media_type, pages, ready}"""
    path, media_type, pages, ready = _counted(request["path"], request, look=True)
    # A ready file goes to the carrier as it is, so it must hold nothing else.
    if ready and not _part("tiff").nothing_else(path, request["max_pages"]):
        ready = ""
    return {"media_type": media_type, "pages": pages, "ready": ready}


def _start(request: Request) -> dict[str, object]:
    """{paths, target, resolutions (one), alone, max_pages, max_pixels} -> {pages, sources, done}

    Count the pages of all documents, and draw them at once where they are few (`alone`) or are fax
    pages already, which are only copied.
    """
    sources = [_counted(path, request, look=False) for path in request["paths"]]
    pages = sum(source.pages for source in sources)
    if pages > request["max_pages"]:
        raise import_module("faxbot.errors").DocumentTooLarge(
            f"The documents have {pages} pages together, more than {request['max_pages']} "
            "(FAXBOT_MAX_PAGES); send them in parts."
        )
    done = pages <= request["alone"] or all(source.ready for source in sources)
    if done:
        _draw({**request, "sources": sources, "first": 0, "last": pages})
    return {"pages": pages, "sources": sources, "done": done}


def _draw(request: Request) -> dict[str, object]:
    """{sources, target, first, last, resolutions (one), max_pages, max_pixels} -> {pages}"""
    sources = [_Source(*source) for source in request["sources"]]
    rendering = _part("rendering")
    _keep_memory()
    pages = rendering.render(
        sources,
        request["target"],
        pages=range(request["first"], request["last"]),
        resolution=request["resolutions"][0],
        max_pages=request["max_pages"],
        max_pixels=request["max_pixels"],
    )
    return {"pages": pages}


def _join(request: Request) -> dict[str, object]:
    """{parts, target, pages, resolutions (one)} -> {pages}"""
    tiff, parts = _part("tiff"), request["parts"]
    pages = tiff.join(
        parts, request["target"], total=request["pages"], resolution=request["resolutions"][0]
    )
    return {"pages": pages}


def _wrap(request: Request) -> dict[str, object]:
    """{path, target, resolutions (one), max_pages} -> {pages}"""
    pages = _part("pdf").wrap(
        request["path"],
        request["target"],
        resolution=request["resolutions"][0],
        max_pages=request["max_pages"],
    )
    return {"pages": pages}


def _show(request: Request) -> dict[str, object]:
    """{path, target, number, width, resolutions (one), max_pages, max_pixels} -> {pages}"""
    _keep_memory()
    pages = _part("showing").show(
        request["path"],
        request["target"],
        number=request["number"],
        width=request["width"],
        resolution=request["resolutions"][0],
        max_pages=request["max_pages"],
        max_pixels=request["max_pixels"],
    )
    return {"pages": pages}


def _unfold(request: Request) -> dict[str, object]:
    """{path, target, max_pages, max_pixels} -> {pages}"""
    _keep_memory()
    pages = _part("unfolding").unfold(
        request["path"],
        request["target"],
        max_pages=request["max_pages"],
        max_pixels=request["max_pixels"],
    )
    return {"pages": pages}


def _keep_memory() -> None:
    """Let the C library use freed memory again for the next page: asking the system anew for every
    picture of a page costs a fifth of the time (measured)."""
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(MMAP_THRESHOLD, 64 * MEGABYTE)
        _libc.mallopt(TRIM_THRESHOLD, 256 * MEGABYTE)


_DOES = {
    "check": _check,
    "start": _start,
    "draw": _draw,
    "join": _join,
    "wrap": _wrap,
    "unfold": _unfold,
    "show": _show,
}


if __name__ == "__main__":
    main(sys.argv[1:])
