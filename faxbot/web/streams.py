"""Who listens to events in this process, and the one thread that reads for all of them.

The thread begins with the first listener and ends with the last. Twice a second it asks whether there is news, gives
it to everybody who has had all before it, and reads a page for each who is behind: somebody who came back with a
cursor, or who was slow to take what he got. Nobody gets more before he has taken what he has, so that a slow one costs
a page of memory and no more; and nobody who only waits costs a question. What he showed when he came is looked at again
from time to time, for all listeners at once. While the database is away nothing is told, and heartbeats go on.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from faxbot.actors import Actor
from faxbot.errors import FaxbotError, ListenersFull
from faxbot.feed import Cursor, Feed, Filters, describe
from faxbot.runtime import Runtime
from faxbot.web import auth
from faxbot.web.auth import NOTHING, Shown
from faxbot.web.endless import Piece, Tell

SCOPE = "events:read"
LOOK_SECONDS = 0.5
"""Between two looks for news."""
BATCH = 500
"""Events that are read at once for all."""
PAGE = 200
"""Events that one who is behind gets at once."""
PAGES = 20
"""For so many of them a page is read; then it is looked for news again."""
SHARE, LEAST_SHARE = 4, 4
"""One key, or one user, gets a quarter of the places at most, and these few in any case."""
AGAIN_SECONDS = 10
"""When somebody may come again for whom there was no room."""
RETRY_MILLISECONDS = 3000
"""When a client comes again whose stream has ended."""

log = logging.getLogger(__name__)


class Listener:
    """One who listens: what of the feed he wants, and how far he has got. An Endless."""

    farewell = b": this server stops; come again\n\n"

    def __init__(
        self, streams: Streams, actor: Actor, filters: Filters, shown: Shown, at: Cursor
    ) -> None:
        self._streams = streams
        self.account_id, self.filters, self.shown, self.at = actor.account_id, filters, shown, at
        self.who = (actor.kind, actor.id)
        self.every = streams.every
        self.has_room = False
        """Whether he has taken all that he was given. The reader alone sets it to false, the main loop to true."""

    def opening(self) -> bytes:
        """The beginning of his stream; a client that never gets more comes again from here."""
        return f"retry: {RETRY_MILLISECONDS}\nid: {self.at}\n\n".encode()

    def begin(self, tell: Tell) -> None:
        self._streams.begin(tell)

    def drained(self) -> None:
        if not self.has_room:
            self.has_room = True
            self._streams.wake_for(self)

    def heartbeat(self) -> bytes:
        # Read before the other: with room left, what lies before it was sent.
        at = self.at
        place = f"id: {at}\n" if self.has_room else ""
        return f": heartbeat\n{place}\n".encode()

    def ended(self) -> None:
        self._streams.leave(self)


class Streams:
    """The listeners of this process."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.feed = Feed(runtime.database)
        self.most, self.every = runtime.config.max_listeners, runtime.config.stream_heartbeat
        self.share = max(LEAST_SHARE, self.most // SHARE)
        self._listeners: dict[Listener, None] = {}
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._thread: threading.Thread | None = None
        self._tell: Tell = lambda _pieces: None
        self._at: Cursor | None = None
        """The last event that the reader has told; None: it has not begun."""
        self._upto = 0
        """The id up to which it has looked."""
        self._checked = 0.0
        self._failing = False
        self.read_at: datetime | None = None
        """When the reader has last asked for news without trouble."""

    def standing(self) -> dict[str, Any]:
        """How this process stands: listeners, how many there may be, and when the reader last read."""
        return {"listeners": len(self._listeners), "most": self.most, "read_at": self.read_at}

    def open(self, actor: Actor, shown: Shown, filters: Filters, cursor: Cursor | None) -> Listener:
        """A place for one more, behind `cursor` (None: behind all that there is). Raises ListenersFull and
        DatabaseAway."""
        with self._lock:
            self._make_sure_of_room(actor, shown)
        at = self.feed.last() if cursor is None else self.feed.resumed(cursor)
        listener = Listener(self, actor, filters, shown, at)
        with self._lock:
            self._make_sure_of_room(actor, shown)
            self._listeners[listener] = None
        return listener

    def _make_sure_of_room(self, actor: Actor, shown: Shown) -> None:
        if len(self._listeners) >= self.most:
            raise ListenersFull(retry_after=AGAIN_SECONDS)
        if shown == NOTHING:
            return  # nobody needs a key here, and all would be one
        who = (actor.kind, actor.id)
        if sum(each.who == who for each in self._listeners) >= self.share:
            raise ListenersFull(
                "This key, or user, has its share of the listeners at this process already.",
                retry_after=AGAIN_SECONDS,
            )

    def begin(self, tell: Tell) -> None:
        """Somebody is connected: read, if nobody does yet."""
        with self._lock:
            self._tell = tell
            if self._thread is None:
                self._thread = threading.Thread(target=self._read, name="events", daemon=True)
                self._thread.start()

    def wake_for(self, listener: Listener) -> None:
        """He has room: is there more for him already?"""
        if self._at is not None and listener.at.id < self._at.id:
            self._woken.set()

    def leave(self, listener: Listener) -> None:
        with self._lock:
            self._listeners.pop(listener, None)
            if not self._listeners:
                self._woken.set()

    # The reader ---------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        self._at, self._upto, self._checked = None, 0, time.monotonic()
        while True:
            self._woken.clear()
            with self._lock:
                if not self._listeners:
                    self._thread = None
                    return
            began = time.monotonic()
            try:
                is_busy = self._turn()
                self.read_at = self._runtime.now()
                self._note_trouble(None)
            except Exception as error:  # noqa: BLE001 - whatever it is, the listeners stay
                is_busy = False
                self._note_trouble(error)
            if is_busy:
                # Requests need this processor, too: half of one core is enough for who catches up.
                time.sleep(time.monotonic() - began)
            else:
                self._woken.wait(LOOK_SECONDS)

    def _note_trouble(self, error: Exception | None) -> None:
        if (error is not None) is self._failing:
            return
        self._failing = error is not None
        if error is None:
            log.info("events are read again")
            return
        # No foreign message: it may quote a row.
        ours = isinstance(error, FaxbotError)
        said = f"{type(error).__name__}: {error}" if ours else type(error).__name__
        log.warning("events cannot be read for those who listen", extra={"exception": said})

    def _turn(self) -> bool:
        """Give everybody the next of what there is for him; whether there may be more."""
        is_time = time.monotonic() - self._checked >= self.every
        if is_time:
            self._check()
            self._checked = time.monotonic()
        if self._at is None:
            self._at = self.feed.last()
        upto = self.feed.settled()
        # Numbers of transactions that were taken back come in as if there were events.
        looks = upto > self._upto
        news = self.feed.news(self._at, limit=BATCH, upto=upto) if looks else ()
        # In a restored database ids begin anew behind its last one, and may be as many again before anybody looks.
        # Asked when the news was read, so that nothing of it is told.
        if upto < self._at.id or ((looks or is_time) and not self.feed.knows(self._at)):
            self._end(list(self._listeners), "the database was restored; come again")
            self._at, self._upto = None, 0
            return False
        if news:
            self._give(news, self._at)
            self._at = Cursor.of(news[-1])
        is_busy = len(news) == BATCH
        self._upto = self._at.id if is_busy else upto
        return self._catch_up(self._at) or is_busy

    def _give(self, rows: Sequence[Any], before: Cursor) -> None:
        """Tell these events, the next ones behind `before`, to everybody who has had all until then."""
        reached = Cursor.of(rows[-1])
        texts = [(row, _text(row)) for row in rows]
        same: dict[tuple[str, Filters, int], bytes] = {}
        pieces = []
        for listener in list(self._listeners):
            if listener.at.id < before.id or not listener.has_room or listener.at.id >= reached.id:
                continue
            wanted = listener.account_id, listener.filters, listener.at.id
            data = same.get(wanted)
            if data is None:
                data = same[wanted] = b"".join(
                    text
                    for row, text in texts
                    if row.account_id == listener.account_id
                    and row.id > listener.at.id
                    and listener.filters.let(row)
                )
            pieces += _given(listener, data, reached)
        self._tell(pieces)

    def _catch_up(self, reached: Cursor) -> bool:
        """A page for some who are behind; whether there were any."""
        behind = [
            listener
            for listener in list(self._listeners)
            if listener.has_room and listener.at.id < reached.id
        ]
        for listener in behind[:PAGES]:
            page = self.feed.page(
                listener.account_id, listener.filters, listener.at, limit=PAGE, upto=reached.id
            )
            # At the end he has had all up to where the others are, whatever lies between.
            at = page.next if page.more else reached
            self._tell(_given(listener, b"".join(map(_text, page.rows)), at))
            self._to_the_end(listener)
        return bool(behind)

    def _to_the_end(self, listener: Listener) -> None:
        """He had his turn: the others come first."""
        with self._lock:
            if listener in self._listeners:
                del self._listeners[listener]
                self._listeners[listener] = None

    # Who may listen still -----------------------------------------------------------------------------------------

    def _check(self) -> None:
        """End the streams of those who could not begin one any more; two statements for all together."""
        listeners = list(self._listeners)
        good = auth.may_still(
            self._runtime.fresh(), {listener.shown for listener in listeners}, SCOPE
        )
        lapsed = [listener for listener in listeners if listener.shown not in good]
        self._end(lapsed, "this key or session may not listen any more")

    def _end(self, listeners: Sequence[Listener], why: str) -> None:
        self._tell(
            [Piece(listener, f": {why}\n\n".encode(), is_last=True) for listener in listeners]
        )


def _given(listener: Listener, data: bytes, at: Cursor) -> list[Piece]:
    """Bring him to `at`; what is to be sent for it."""
    if data:
        listener.has_room = False  # before the other: see heartbeat()
    listener.at = at
    return [Piece(listener, data)] if data else []


def _text(row: Any) -> bytes:
    """An event as it stands in a stream (HTML, 9.2: server-sent events)."""
    told = describe(row)
    data = json.dumps(told, separators=(",", ":"))
    return f"id: {told['id']}\nevent: {told['type']}\ndata: {data}\n\n".encode()
