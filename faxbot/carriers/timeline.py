"""What a carrier does later: things due at a moment, and callbacks posted until they are taken.

One thread walks the timeline and sleeps until the next moment; a few more post callbacks over
connections that are kept.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import queue
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import unquote, urlsplit

Action = Callable[[], None]

_ENOUGH = 64 * 1024

logger = logging.getLogger(__name__)


class Timeline:
    """Runs actions at their moment (seconds of time.monotonic), one after another, in a thread of
    its own."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Action]] = []
        self._count = itertools.count()
        self._change = threading.Condition()
        self._open = True
        self._thread = threading.Thread(target=self._walk, name="timeline", daemon=True)
        self._thread.start()

    def after(self, seconds: float, action: Action) -> None:
        """Have `action` done in `seconds`; actions due at one moment keep their order."""
        entry = (time.monotonic() + seconds, next(self._count), action)
        with self._change:
            heapq.heappush(self._due, entry)
            if self._due[0] is entry:
                self._change.notify()

    def stop(self) -> None:
        """Do nothing more; returns when the action under way is done."""
        with self._change:
            self._open = False
            self._change.notify()
        self._thread.join()

    def _walk(self) -> None:
        while (action := self._next()) is not None:
            try:
                action()
            except Exception as error:  # noqa: BLE001 - one fax's fault must not stop all others
                logger.error("a step ended with %s", type(error).__name__)  # noqa: TRY400 - no text

    def _next(self) -> Action | None:
        with self._change:
            while self._open:
                wait = self._due[0][0] - time.monotonic() if self._due else None
                if wait is not None and wait <= 0:
                    return heapq.heappop(self._due)[2]
                self._change.wait(wait)
        return None


@dataclass(slots=True)
class Post:
    """One callback. `sign` gives the headers for its body at the moment of each try; `done` learns
    whether it was taken."""

    url: str
    body: bytes
    sign: Callable[[bytes], Mapping[str, str]]
    done: Callable[[bool], None]
    repeats: int = 0


class Poster:
    """Posts callbacks; one that is not answered with 2xx is posted again, after each of the `waits`
    (seconds) in turn."""

    def __init__(
        self,
        timeline: Timeline,
        waits: Sequence[float],
        *,
        timeout: float = 5.0,
        threads: int = 4,
    ) -> None:
        self._timeline = timeline
        self._waits, self._timeout = tuple(waits), timeout
        self._waiting: queue.SimpleQueue[Post] = queue.SimpleQueue()
        for number in range(threads):
            threading.Thread(target=self._work, name=f"poster-{number}", daemon=True).start()

    def put(self, post: Post) -> None:
        """Post it as soon as a thread is free."""
        self._waiting.put(post)

    def _work(self) -> None:
        line = _Line(self._timeout)
        while True:
            post = self._waiting.get()
            taken = line.post(post)
            if taken or post.repeats == len(self._waits):
                post.done(taken)
            else:
                post.repeats += 1
                self._timeline.after(self._waits[post.repeats - 1], partial(self.put, post))


class _Line:
    """A poster thread's own connections, one per server."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._connections: dict[tuple[str, str], HTTPConnection] = {}

    def post(self, post: Post) -> bool:
        """Whether the callback was answered with 2xx; not where its address is none."""
        try:
            parts = urlsplit(post.url)
        except ValueError:
            return False
        credentials, _, address = parts.netloc.rpartition("@")
        server = (parts.scheme, address)
        target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        kept = server in self._connections
        try:
            headers = {**basic(credentials), **post.sign(post.body)}
            try:
                return self._try(server, target, post.body, headers)
            except (HTTPException, OSError):
                if not kept:
                    raise
                # A server may close a connection that was idle; the news is repeatable, so once
                # more on a new one.
                return self._try(server, target, post.body, headers)
        except (HTTPException, OSError, ValueError):
            return False

    def _try(
        self, server: tuple[str, str], target: str, body: bytes, headers: Mapping[str, str]
    ) -> bool:
        connection = self._connections.pop(server, None) or self._connect(*server)
        try:
            connection.request("POST", target, body, dict(headers))
            answer = connection.getresponse()
            answer.read(_ENOUGH)
        except BaseException:
            connection.close()
            raise
        if answer.isclosed():
            self._connections[server] = connection
        else:
            connection.close()
        return 200 <= answer.status < 300

    def _connect(self, scheme: str, netloc: str) -> HTTPConnection:
        if scheme == "https":
            return HTTPSConnection(netloc, timeout=self._timeout)
        return HTTPConnection(netloc, timeout=self._timeout)


def basic(credentials: str) -> dict[str, str]:
    """What `user:password@` in front of an address stands for."""
    if not credentials:
        return {}
    return {"Authorization": f"Basic {b64encode(unquote(credentials).encode()).decode()}"}
