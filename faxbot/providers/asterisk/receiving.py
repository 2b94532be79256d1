"""Finds the faxes that Asterisk has received, in its database; an event only says that there is one.

What lies in the database stays there until core has kept it for good. A fax that came while nobody listened is found in
the next look; what has the same name says the same, so that one that is told of twice is kept once. The entry of a fax
whose file is not in the folder stays longer: if that is on another machine, the entry is what has it handed over.
"""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from collections.abc import Iterator, Mapping
from functools import partial

from faxbot.plugins.base import Notice
from faxbot.providers.asterisk import arrivals
from faxbot.providers.asterisk.ami import Ami, Declined, Fields, Message
from faxbot.providers.asterisk.arrivals import BEGUN, FAMILY, LOST
from faxbot.providers.asterisk.calls import result_in
from faxbot.providers.asterisk.spool import Spool, is_ours

EVENT = "FaxbotReceived"
ACK_CHANNEL = "Local/received@faxbot-ack/n"
_CHANNEL = re.compile(r"[A-Za-z0-9_.-]{1,149}")
_MOST = 10_000
KEPT_WITHOUT_FILE = 30 * 86_400.0
"""Seconds after its end for which the entry of a fax stays that core knows and whose file was never seen."""
ASKED_ABOUT = 3 * 86_400.0
"""Seconds after its end for which people are asked about such a one: it may have been received, and its listener killed
before it could have the entry deleted."""


class Receiving:
    """What one listener knows of faxes that came in."""

    def __init__(self, spool: Spool, logger: logging.Logger) -> None:
        self._spool = spool
        self._log = logger
        self._rung: dict[str, None] = {}
        """Of which an event has told."""
        self._found: dict[str, tuple[Mapping[str, str], float | None]] = {}
        """What the database has of each, and when core was told."""
        self._gone: deque[str] = deque()
        """What core has kept, and the database need not."""
        self._acknowledged: dict[str, None] = {}
        self._elsewhere: dict[str, None] = {}
        """Of which core knows while their files were never in the folder, as far as was seen."""

    def hear(self, event: Message) -> None:
        """Take in an event. Of those about calls that come in, any text may be the caller's: it is believed for the
        name alone, under which the database is asked."""
        name = event.get("FaxID", "")
        if event.get("UserEvent") == EVENT and is_ours(name) and len(self._rung) < _MOST:
            self._rung[name] = None

    def ask(self, ami: Ami, *, all_of_them: bool) -> None:
        """Ask the database for what was told of, or for `all_of_them`, and have deleted what core has. Raises Lost,
        Stopping."""
        if not self._spool.is_there:
            self._rung.clear()  # who hands them over from where they are tells of them too
            return
        while self._rung:
            name = next(iter(self._rung))
            self._take(name, _entry(ami, name))
            del self._rung[name]
        if all_of_them:
            for name, entry in _entries(ami):
                lost = entry["status"] == BEGUN and not _is_up(ami, entry)
                # It may have ended in between.
                again = _entry(ami, name) if lost else entry
                if lost and again is not None and again["status"] == BEGUN:
                    again = {**again, "status": LOST}
                self._take(name, again)
            self._spool.tidy()
        self._let_go(ami)

    def notices(self, now: float, again_after: float) -> Iterator[Notice]:
        """Faxes to tell of: those that are new, and those of which core was told so many seconds ago in vain."""
        for name, (entry, told_at) in list(self._found.items()):
            if told_at is None or now - told_at >= again_after:
                self._found[name] = (entry, now)
                yield Notice(arrivals.body(name, entry), partial(self._acknowledge, name))

    def _take(self, name: str, entry: Mapping[str, str] | None) -> None:
        if entry is None or entry["status"] == BEGUN:
            return
        if name in self._acknowledged:
            if name in self._elsewhere and self._may_go(name, entry):
                del self._elsewhere[name]
                self._gone.append(name)
        elif name not in self._found:
            self._found[name] = (entry, None)
            # Now: once core knows of it, a worker may have taken the file away.
            if not self._may_go(name, entry):
                self._elsewhere[name] = None
                self._log.warning("a received fax is not in ASTERISK_RECEIVED_FOLDER")

    def _may_go(self, name: str, entry: Mapping[str, str]) -> bool:
        """Whether the entry is not needed any more once core knows of the fax."""
        if not arrivals.has_document(entry) or self._spool.has(name):
            return True
        return _is_older(name, entry, KEPT_WITHOUT_FILE)

    def _acknowledge(self, name: str) -> None:
        entry, _ = self._found.pop(name, ({}, None))
        if name in self._acknowledged:
            return
        self._acknowledged[name] = None
        if name in self._elsewhere and self._may_go(name, entry):
            del self._elsewhere[name]
        if name not in self._elsewhere:
            self._gone.append(name)
        if not arrivals.has_document(entry):
            self._spool.set_aside(name)
        while len(self._acknowledged) > _MOST:
            oldest = next(iter(self._acknowledged))
            del self._acknowledged[oldest]
            self._elsewhere.pop(oldest, None)

    def _let_go(self, ami: Ami) -> None:
        while self._gone:
            fields: Fields = [
                ("Channel", ACK_CHANNEL),
                ("Application", "NoOp"),
                ("Async", "true"),
                ("Variable", f"__FAXIN_ID={self._gone[0]}"),
            ]
            try:
                ami.action("Originate", fields)
            except Declined:
                self._log.warning("Asterisk keeps a received fax's entry: include faxbot-ack")
            self._gone.popleft()


def without_file(ami: Ami, spool: Spool) -> int:
    """How many faxes have arrived lately, as Asterisk's database has it, and are not in the folder. Raises Lost."""
    arrived = (each for each in _entries(ami) if arrivals.has_document(each[1]))
    return sum(
        not spool.has(name) for name, entry in arrived if not _is_older(name, entry, ASKED_ABOUT)
    )


def _is_older(name: str, entry: Mapping[str, str], seconds: float) -> bool:
    """Whether it ended longer ago, or nobody knows when."""
    ended = arrivals.arrival(name, entry).received_at
    return ended is None or time.time() - ended.timestamp() > seconds


def _entry(ami: Ami, name: str) -> Mapping[str, str] | None:
    try:
        found = ami.listing("DBGet", [("Family", FAMILY), ("Key", name)], last="DBGetResponse")
    except Declined:
        return None
    return next((entry for each in found if (entry := result_in(each.get("Val", "")))), None)


def _entries(ami: Ami) -> Iterator[tuple[str, Mapping[str, str]]]:
    try:
        found = ami.listing("DBGetTree", [("Family", FAMILY)])
    except Declined:  # there is none; or Asterisk is older than 16.25 and 18.11
        return
    for each in found:
        name = each.get("Key", "").removeprefix(f"/{FAMILY}/")
        entry = result_in(each.get("Val", ""))
        if entry is not None and is_ours(name):
            yield name, entry


def _is_up(ami: Ami, entry: Mapping[str, str]) -> bool:
    """Whether the call is there that an entry is about."""
    channel = entry.get("channel", "")
    if not _CHANNEL.fullmatch(channel):
        return False
    try:
        ami.listing("Status", [("Channel", channel)])
    except Declined as refusal:
        return "no such channel" not in refusal.words
    return True
