"""Renders the documents of a fax into one TIFF, long ones in several child processes at once."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from faxbot.documents.checker import Limits
from faxbot.documents.kinds import TIFF
from faxbot.documents.page import ROWS_PER_INCH
from faxbot.documents.process import (
    Child,
    Crashed,
    RenderingFailed,
    Reply,
    TooSlow,
    first_answer,
)
from faxbot.errors import DocumentError

ALONE = 3  # pages up to which starting another process costs more than it saves
NICE = 10
"""Drawing pages takes whole cores: what keeps the ledger and talks to people and carriers goes first."""
NICE_BEHIND = 19
"""Of faxes that are less urgent than usual: others' pages are drawn seven times as fast beside them (sched(7))."""
MOST_RECEIVED = 10_000
"""Pages of one received fax: what others send is not bounded by FAXBOT_MAX_PAGES, and no call is as long."""
SHOWN_WITHIN = 20.0
"""Seconds for one page that somebody looks at; others wait for it."""
WRITTEN_MB = 512  # 350 pages of the greatest length that do not compress at all


class Renderer:
    """Renders in up to `processes` child processes: the first is kept, the others while documents
    are long. `nice` is how far these let other programs of this machine go first (nice(2))."""

    def __init__(self, limits: Limits, processes: int, *, nice: int = NICE) -> None:
        self._limits = limits
        self._children = [
            Child(memory_mb=limits.memory_mb, written_mb=WRITTEN_MB, nice=nice)
            for _ in range(max(1, processes))
        ]

    def set(self, limits: Limits) -> None:
        """Other limits, from the next fax on; one whose pages are being drawn keeps its own."""
        self._limits = limits

    def render(self, sources: Sequence[tuple[Path, str]], target: Path, *, resolution: str) -> int:
        """Make one fax TIFF at `target` of the documents in `sources` (path, media type); returns
        its pages.

        `resolution` is `fine` (204 x 196) or `standard` (204 x 98). Pages of such a TIFF are taken
        over bit by bit, and nothing else of it. Content tells what a document is; the media type
        is not relied on.

        Raises DocumentUnsupported, DocumentUnreadable or DocumentTooLarge for what the documents
        themselves cause; RenderingFailed when the children died twice or the time is over, which
        this machine may have caused; OSError when the disk is full. Nothing is left at `target`
        or beside it then.
        """
        if resolution not in ROWS_PER_INCH:
            raise ValueError(f"resolution must be one of: {', '.join(ROWS_PER_INCH)}")
        if not sources:
            raise ValueError("a fax needs a document")
        limits = self._limits
        rendering = _Rendering(self._children, limits, resolution)
        paths = [str(path.absolute()) for path, _ in sources]
        with self._children[0].lock:
            for child in self._children:
                child.memory_mb = limits.memory_mb
            try:
                return self._run(rendering, paths, target.absolute())
            except (Crashed, TooSlow) as error:
                raise RenderingFailed from error

    def cut(self, pages: Path, target: Path, wanted: range, *, resolution: str) -> None:
        """Put the `wanted` pages (from 1) of a TIFF that render() made, or that is a fax already, into
        one of their own at `target`, bit by bit. Raises RenderingFailed and OSError as render()."""
        source = (str(pages.absolute()), TIFF, wanted.stop - 1, resolution)
        request = {
            "do": "draw", "sources": [source], "target": str(target.absolute()),
            "first": wanted.start - 1, "last": wanted.stop - 1, "resolutions": [resolution],
            "max_pages": self._limits.max_pages, "max_pixels": self._limits.max_pixels,
        }  # fmt: skip
        self._have_done(request)

    def wrap(self, pages: Path, target: Path, *, resolution: str) -> None:
        """Put the fax pages of a TIFF that render() made, or that is a fax already, into a PDF at
        `target`, bit by bit. Raises RenderingFailed and OSError as render()."""
        request = {
            "do": "wrap", "path": str(pages.absolute()), "target": str(target.absolute()),
            "resolutions": [resolution], "max_pages": self._limits.max_pages,
        }  # fmt: skip
        self._have_done(request)

    def unfold(self, source: Path, target: Path) -> int:
        """Put the pages of a received fax, a TIFF in whichever of fax machines' codes, into a PDF at `target`, dot by
        dot, each at its real proportions; returns how many. A damaged page is kept as far as it can be read.

        Raises RenderingFailed for what has no page that can be read, for a page beyond FAXBOT_MAX_PIXELS and for more
        than MOST_RECEIVED pages, too, and OSError as render(). What lies at `target` after an error is nothing.
        """
        request = {
            "do": "unfold", "path": str(source.absolute()), "target": str(target.absolute()),
            "max_pages": MOST_RECEIVED, "max_pixels": self._limits.max_pixels,
        }  # fmt: skip
        try:
            pages: int = self._have_done(request)["pages"]
        except DocumentError as error:
            raise RenderingFailed(error.detail) from error
        return pages

    def show(
        self, source: Path, target: Path, number: int, *, width: int, resolution: str = "fine"
    ) -> int:
        """Draw page `number` (from 1) of a fax TIFF of this resolution, or of a PDF, into a PNG of so many pixels
        across at `target`; returns how many pages there are, and there is no PNG where that is less.

        Raises RenderingFailed for what cannot be drawn, and OSError as render().
        """
        request = {
            "do": "show", "path": str(source.absolute()), "target": str(target.absolute()), "number": number,
            "width": width, "resolutions": [resolution], "max_pages": MOST_RECEIVED,
            "max_pixels": self._limits.max_pixels,
        }  # fmt: skip
        try:
            pages: int = self._have_done(request, SHOWN_WITHIN)["pages"]
        except DocumentError as error:
            raise RenderingFailed(error.detail) from error
        return pages

    def _have_done(self, request: dict[str, object], seconds: float | None = None) -> Reply:
        child, limit = self._children[0], self._limits.seconds
        with child.lock:
            child.memory_mb = self._limits.memory_mb
            try:
                return child.ask(request, min(limit, seconds or limit))
            except (Crashed, TooSlow) as error:
                raise RenderingFailed from error

    def _run(self, rendering: _Rendering, paths: list[str], target: Path) -> int:
        try:
            return rendering.run(paths, target)
        except Crashed:
            # A child that the system killed for want of memory proves nothing: once more.
            return rendering.run(paths, target)

    def close(self) -> None:
        """End the child processes; the next rendering would start others."""
        with self._children[0].lock:
            for child in self._children:
                child.close()


class _Rendering:
    """One rendering: its limits, and the children it may use."""

    def __init__(self, children: list[Child], limits: Limits, resolution: str) -> None:
        self._children = children
        self._deadline = time.monotonic() + limits.seconds
        self._common = {
            "resolutions": [resolution],
            "max_pages": limits.max_pages,
            "max_pixels": limits.max_pixels,
        }

    def run(self, paths: list[str], target: Path) -> int:
        with tempfile.TemporaryDirectory(
            dir=target.parent, prefix=f"{target.name}.", suffix=".parts"
        ) as folder:
            whole = Path(folder) / "whole"
            try:
                pages = self._render(paths, whole)
            finally:
                for child in self._children:
                    child.settle()
            whole.replace(target)
        return pages

    def _render(self, paths: list[str], whole: Path) -> int:
        first = self._children[0]
        alone = ALONE if len(self._children) > 1 else self._common["max_pages"]
        self._begin(first, {"do": "start", "paths": paths, "target": str(whole), "alone": alone})
        plan = first_answer([first], self._deadline)[1]
        pages: int = plan["pages"]
        if plan["done"]:
            # Each takes tens of MiB: they stay while one long document follows another, no longer.
            for child in self._children[1:]:
                child.close()
        else:
            parts = self._spread(plan["sources"], pages, whole.parent)
            self._begin(first, {"do": "join", "parts": parts, "target": str(whole), "pages": pages})
            first_answer([first], self._deadline)
        return pages

    def _spread(self, sources: list[Reply], pages: int, folder: Path) -> list[str]:
        """Draw all pages into files under `folder`, and return these in the order of the pages."""
        parts: list[str] = []
        idle, busy, done = list(self._children), set[Child](), 0
        while done < pages or busy:
            while idle and done < pages:
                # Shares shrink towards the end, so that all are ready at about the same time.
                last = done + -(-(pages - done) // (2 * len(self._children)))
                parts.append(str(folder / str(done)))
                child = idle.pop()
                self._begin(
                    child,
                    {
                        "do": "draw",
                        "sources": sources,
                        "target": parts[-1],
                        "first": done,
                        "last": last,
                    },
                )
                busy.add(child)
                done = last
            child, _ = first_answer(busy, self._deadline)
            busy.remove(child)
            idle.append(child)
        return parts

    def _begin(self, child: Child, request: dict[str, object]) -> None:
        child.begin({**self._common, **request}, max(0.0, self._deadline - time.monotonic()))
