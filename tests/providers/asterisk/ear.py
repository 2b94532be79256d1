"""The provider at an Asterisk, faxes for it, and an ear: whoever listens as core does."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Generator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from faxbot.errors import ProviderError
from faxbot.hidden import Hidden
from faxbot.plugins import manifest
from faxbot.plugins.base import (
    Arrival,
    CallbackRequest,
    Context,
    Gap,
    Notice,
    OutboundFax,
    State,
    Update,
)
from faxbot.providers import asterisk
from faxbot.providers.asterisk import Asterisk
from faxbot.providers.http import HttpClient
from tests.ground import eventually

MANIFEST = manifest.read(Path(asterisk.__file__).parent / "manifest.json")
ENDS = (State.DELIVERED, State.FAILED)


def provider(*, folder: Path | str, **settings: Any) -> Asterisk:
    """The provider as core would make it."""
    made = Asterisk()
    given = {"folder": str(folder), **settings}
    context = Context(logging.getLogger("test"), lambda: datetime.now(UTC), HttpClient([]))
    made.initialize(manifest.validated(MANIFEST, given), context)
    return made


def fax(
    number: str, document: Path, pages: int = 1, step: int = 0, header: str = ""
) -> OutboundFax:
    return OutboundFax(
        tag=f"fb{secrets.token_hex(16)}",
        to=Hidden(number),
        document=document,
        media_type="image/tiff",
        pages=pages,
        resolution="fine",
        callback_url="",
        header=Hidden(header),
        step=step,
    )


class Ear:
    """Listens in a thread of its own, as core does: keeps what it hears, and then acknowledges it, unless it
    `forgets` to."""

    def __init__(self, listening: Asterisk, *, forgets: bool = False) -> None:
        self.news: dict[str, list[Update]] = {}
        self.arrivals: list[Arrival] = []
        self.gaps = 0
        self.error: ProviderError | None = None
        self._provider = listening
        self._forgets = forgets
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen)

    def __enter__(self) -> Ear:
        self._thread.start()
        eventually(lambda: self.gaps or self.error)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def of(self, tag: str, *states: State) -> list[Update]:
        return [each for each in self.news.get(tag, []) if each.state in (states or ENDS)]

    def end(self, tag: str, timeout: float = 30.0) -> Update:
        """How the fax ended, as soon as that is heard."""
        return eventually(lambda: self.of(tag), timeout, every=0.05)[0]

    def came(self, number: str, timeout: float = 90.0) -> Arrival:
        """The one fax that came in for this number of ours, as soon as that is heard."""
        eventually(lambda: self.all_for(number), timeout, every=0.05)
        (only,) = self.all_for(number)
        return only

    def all_for(self, number: str) -> list[Arrival]:
        return [each for each in self.arrivals if each.recipient.reveal() == number]

    def _listen(self) -> None:
        heard = self._provider.listen()
        assert isinstance(heard, Generator)
        with suppress(StopIteration):
            try:
                while not self._stop.is_set():
                    self._take(next(heard))
            except ProviderError as error:
                self.error = error
        heard.close()

    def _take(self, each: Notice | Gap | None) -> None:
        if isinstance(each, Gap):
            self.gaps += 1
        elif each is not None:
            request = CallbackRequest("LISTEN", "", {}, each.body)
            for update in self._provider.read_callback(request):
                if isinstance(update, Arrival):
                    self.arrivals.append(update)
                    continue
                self.news.setdefault(update.tag or "", []).append(update)
            if not self._forgets:
                each.acknowledge()
