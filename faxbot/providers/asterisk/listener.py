"""Listens to Asterisk for as long as it is asked to: events as they come, and the results that lie in its database
for a listener that was away.

A result stays in the database until core has kept it for good, and a while longer: whoever asks for that fax in
between finds it there. Faxes that come in are found in the same way (receiving.py).
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

from faxbot.errors import Unreachable
from faxbot.plugins.base import Gap, Notice
from faxbot.providers.asterisk.ami import Ami, Declined, Login, Lost, Stopping, connected
from faxbot.providers.asterisk.calls import Calls
from faxbot.providers.asterisk.folder import Folder
from faxbot.providers.asterisk.receiving import Receiving

FAMILY = "faxbot"
ACK_CHANNEL = "Local/ack@faxbot-ack/n"
PING_EVERY = 15.0
LIST_EVERY = 60.0
"""Seconds between looks for results of which no event came."""
TELL_AGAIN = 120.0
"""Seconds after which a result that was not acknowledged is told of once more."""
KEPT = 3600.0
"""Seconds for which an acknowledged result stays in Asterisk's database. A result that is not there within that time
was never written, whoever listened, and however late core is with what it was told."""
QUIET = 30.0
"""Seconds after which no event of a call comes any more whose result is kept for good."""
NOTHING_EVERY = 2.0
STOPPING_EVERY = 5.0
"""Seconds between actions while Asterisk is being stopped: it may be told to go on (`core abort shutdown`), and its
refusal shows that it is still there."""
PAUSES = (1.0, 2.0, 5.0, 10.0)
"""Seconds before each further try to connect; after the last, listening ends, and core begins anew."""
_LOOK = 0.25  # seconds; the longest wait for an event before what is due is done
_MOST_ACKNOWLEDGED = 10_000


class Listener:
    """One listener: what it has heard outlives a connection. `meet` is called with each connection.
    A document leaves `folder` when its result is kept for good, and Asterisk's database `kept_seconds` later."""

    def __init__(
        self,
        login: Login,
        logger: logging.Logger,
        folder: Folder,
        receiving: Receiving,
        meet: Callable[[Ami], object],
        kept_seconds: float = KEPT,
    ) -> None:
        self._login = login
        self._log = logger
        self._folder = folder
        self._receiving = receiving
        self._meet = meet
        self._kept_seconds = kept_seconds
        self._calls = Calls()
        self._quiet: deque[tuple[float, str]] = deque()
        """Calls whose results are kept for good, and when they may be forgotten."""
        self._due: deque[tuple[float, str]] = deque()
        """The same, and when their results may leave Asterisk's database."""
        self._acknowledged: dict[str, None] = {}
        self._ping_at = self._list_at = 0.0

    def listen(self) -> Iterator[Notice | Gap | None]:
        """TransportPlugin.listen(). Raises Unreachable where Asterisk stays away, AccountRefused where it
        does not admit us."""
        failures = 0
        while True:
            begun = time.monotonic()
            try:
                with connected(self._login, "on") as ami:
                    self._log.info("listening to Asterisk")
                    self._meet(ami)
                    yield from self._hear(ami)
            except Unreachable as error:
                if time.monotonic() - begun > PAUSES[-1]:
                    failures = 0
                if failures == len(PAUSES):
                    raise
                self._log.warning("not connected to Asterisk", extra={"error": error.code})
            yield from _pause(PAUSES[failures])
            failures += 1

    def _hear(self, ami: Ami) -> Iterator[Notice | Gap | None]:
        # From now on events come; what came before them lies in the database, or core asks for it.
        yield Gap()
        self._ping_at, self._list_at = time.monotonic() + PING_EVERY, 0.0
        nothing_at = ask_at = 0.0
        while True:
            now = time.monotonic()
            if now >= ask_at and not self._ask(ami, now):
                ask_at = now + STOPPING_EVERY
            event = ami.event(_LOOK)
            now = time.monotonic()
            if event is not None:
                if event.get("Event") == "Shutdown":
                    raise Lost("Asterisk is being stopped.")
                self._calls.hear(event, now)
                self._receiving.hear(event)
            for notice in self._notices(now):
                yield notice
                nothing_at = time.monotonic() + NOTHING_EVERY
            if now >= nothing_at:
                yield None
                nothing_at = time.monotonic() + NOTHING_EVERY

    def _ask(self, ami: Ami, now: float) -> bool:
        """Do what is due; False where Asterisk takes no actions, but goes on to tell of its calls."""
        try:
            listing = now >= self._list_at
            self._receiving.ask(ami, all_of_them=listing)
            if listing or self._calls.missing(now):
                self._find(ami)
                self._calls.tidy(now)
                self._folder.tidy()
                self._list_at = now + LIST_EVERY
            if now >= self._ping_at:
                ami.action("Ping")
                self._ping_at = now + PING_EVERY
            self._let_go(ami, now)
        except Stopping:
            self._list_at = 0.0  # what is missing is looked for once only
            return False
        return True

    def _notices(self, now: float) -> Iterator[Notice]:
        for call, over in self._calls.ripe(now, TELL_AGAIN):
            if call.tag not in self._acknowledged:
                done = partial(self._acknowledge, call.tag) if over else _nothing
                yield Notice(call.body(), done)
        yield from self._receiving.notices(now, TELL_AGAIN)

    def _acknowledge(self, tag: str) -> None:
        if tag not in self._acknowledged:
            self._acknowledged[tag] = None
            now = time.monotonic()
            self._quiet.append((now + QUIET, tag))
            self._due.append((now + self._kept_seconds, tag))
        self._folder.forget(tag)

    def _let_go(self, ami: Ami, now: float) -> None:
        """Have the results that are kept for good deleted from Asterisk's database."""
        while self._due and self._due[0][0] <= now:
            tag = self._due[0][1]
            if not delete(ami, tag):
                self._log.warning("Asterisk keeps a result: its dialplan lacks faxbot-ack")
            self._due.popleft()
        while self._quiet and self._quiet[0][0] <= now:
            self._calls.forget(self._quiet.popleft()[1])
        while len(self._acknowledged) > _MOST_ACKNOWLEDGED:
            del self._acknowledged[next(iter(self._acknowledged))]

    def _find(self, ami: Ami) -> None:
        """Take in the results in Asterisk's database (DBGetTree is there from 16.25 and 18.11 on; before it core's
        questions find them)."""
        try:
            found = ami.listing("DBGetTree", [("Family", FAMILY)])
        except Declined:
            return
        for entry in found:
            key = entry.get("Key", "").removeprefix(f"/{FAMILY}/")
            if key.partition("/")[0] not in self._acknowledged:
                self._calls.find(key, entry.get("Val", ""), time.monotonic())


def delete(ami: Ami, tag: str) -> bool:
    """Have the dialplan delete a result and its cause, and whether it has the extension for it. (DBDel would need
    the right `system`, which may do much more.)"""
    fields = [
        ("Channel", ACK_CHANNEL),
        ("Application", "NoOp"),
        ("Async", "true"),
        ("Variable", f"__FAXJOB_ID={tag}"),
    ]
    try:
        ami.action("Originate", fields)
    except Declined:
        return False
    return True


def _pause(seconds: float) -> Iterator[None]:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        yield None
        time.sleep(min(left, 1.0))


def _nothing() -> None:
    """What was told on the way needs no thanks."""
