"""A provider that quotes number, name and text wherever it can; the last digits of a number say where."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import datetime

from faxbot.errors import OutcomeUnknown, Refused
from faxbot.hidden import Hidden
from faxbot.plugins.base import (
    CallbackRequest,
    Health,
    Notice,
    OutboundFax,
    Receipt,
    State,
    TransportPlugin,
    Update,
)

NUMBER, FILE_NAME = "+14158370000", "befund-mxyzptlk-ß.txt"
SAID = f"fax to {NUMBER} of Quetzalcóatl: Verdacht auf Triskaidekaphobie, {FILE_NAME}, Dr. Zyzzyva"
STUMBLE, END = b"stumble", b"end"
"""In a callback: its code fails, with an exception or with what is none."""
RAISED: dict[str, Callable[[str], BaseException]] = {
    "6001": ValueError,
    "6002": lambda words: Refused(words, cause=words),
    "6003": lambda words: OutcomeUnknown(words, cause=words),
    "6004": asyncio.CancelledError,
    "6005": lambda words: KeyError({words: words}),
}
"""What send() raises, by the last digits of a number."""
NAMED, TAKEN = "6006", "6007"
"""Taken under a name that quotes; taken, and then asked for in vain."""


class Careless(TransportPlugin):
    def send(self, fax: OutboundFax) -> Receipt:
        ending = fax.to.reveal()[-4:]
        words = f"{fax.to.reveal()} {fax.header.reveal()} {SAID}"
        if ending in RAISED:
            raise RAISED[ending](words)
        return Receipt(f"{words}\n" if ending == NAMED else fax.tag)

    def look_up(self, tag: str, *, to: Hidden[str], since: datetime) -> Update:
        raise ValueError(f"{to.reveal()} {SAID} {tag} {since}")

    def fetch(self, external_id: str) -> Update:
        if int(external_id[-1], 16) % 2:
            raise asyncio.CancelledError(SAID, external_id)
        return Update(State.FAILED, external_id=external_id, cause=SAID, key=SAID)

    def cancel(self, external_id: str) -> None:
        raise RuntimeError(SAID, external_id)

    def health(self) -> Health:
        raise asyncio.CancelledError(SAID)

    def verify_callback(self, request: CallbackRequest) -> bool:
        _fail(request.headers.get("x-proof", "").encode(), request)
        return True

    def read_callback(self, request: CallbackRequest) -> list[Update]:
        _fail(request.body, request)
        return [Update(State.FAILED, tag=SAID, cause=SAID, key=SAID)]

    def listen(self) -> Iterator[Notice | None]:
        yield Notice(SAID.encode(), lambda: None)
        yield Notice(STUMBLE + SAID.encode(), lambda: None)
        raise asyncio.CancelledError(SAID)


def _fail(word: bytes, request: CallbackRequest) -> None:
    if word.startswith(STUMBLE):
        raise ValueError(SAID, request.body, request.url)
    if word.startswith(END):
        raise asyncio.CancelledError(SAID, request.body, request.url)
