"""How news of a fax reaches its client: which callbacks, when, where to and how often."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

from faxbot.carriers.ledger import RECEIVED, Fax
from faxbot.carriers.live import LiveFaxes
from faxbot.carriers.phaxio import numbers, words
from faxbot.carriers.phaxio.account import REPOST_SECONDS, Account, Times
from faxbot.carriers.phaxio.details import said
from faxbot.carriers.phaxio.numbers import outcome
from faxbot.carriers.timeline import Post, Poster, Timeline

_REORDER_SECONDS = 0.2


class Teller:
    """Calls back; `file` gives the document of a fax that was received."""

    def __init__(
        self,
        account: Account,
        times: Times,
        timeline: Timeline,
        live: LiveFaxes,
        file: Callable[[Fax], bytes | None],
    ) -> None:
        self._account = account
        self._times = times
        self._timeline = timeline
        self._live = live
        self._file = file
        self._poster = Poster(timeline, [wait * times.scale for wait in REPOST_SECONDS])

    def tell(self, fax: Fax) -> None:
        """Call back how it ended, in the manner of its number."""
        manner = outcome(fax.last_digits).callbacks
        url = self._callback_url(fax)
        if manner == "none" or not url.startswith("http"):
            self._live.told(fax)
        elif manner == "late":
            self._timeline.after(self._times.late, lambda: self._tell_end(fax, url))
        else:
            for _ in range(2 if manner == "twice" else 1):
                self._tell_end(fax, url)
            if manner == "reordered" and fax.details["recipients"]:
                self._tell_old(fax)

    def _callback_url(self, fax: Fax) -> str:
        own = self._account.receive_url if fax.direction == RECEIVED else self._account.callback_url
        return fax.callback_url or own

    def _tell_end(self, fax: Fax, url: str) -> None:
        file = self._file(fax) if fax.details["with_file"] else None
        callback = words.callback(fax, self._account.version, file=file)
        self._post(url, callback, lambda _taken: self._live.told(fax))

    def _tell_old(self, fax: Fax) -> None:
        """News from before the end, after it: an earlier post that failed would come so."""
        before = replace(fax, status="inprogress", ended_at=None, details=deepcopy(fax.details))
        before.details |= {"cost": 0}
        before.details["recipients"][0] |= {
            "status": "willretry",
            "completed_at": None,
            "bitrate": None,
            "resolution": None,
            **said(numbers.BUSY),
        }
        self._timeline.after(
            _REORDER_SECONDS,
            lambda: self.tell_inflight(before, "retry_scheduled", asked=True, retry_count=1),
        )

    def tell_inflight(self, fax: Fax, event: str, *, asked: bool = False, **more: int) -> None:
        wanted = asked or self._account.inflight
        url = self._callback_url(fax)
        if not (wanted and self._account.version == "v2.1" and url.startswith("http")):
            return
        for _ in range(2 if outcome(fax.last_digits).callbacks == "twice" else 1):
            number = fax.details["recipients"][0]["phone_number"]
            self._post(url, words.inflight(fax, event, number, **more), lambda _taken: None)

    def _post(self, url: str, callback: words.Callback, done: Callable[[bool], None]) -> None:
        boundary = f"----------------------------{secrets.token_hex(6)}"
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        if self._account.callback_token:
            token = self._account.callback_token
            headers["X-Phaxio-Signature"] = callback.signature(url, token)
        self._poster.put(Post(url, callback.body(boundary), lambda _body: headers, done))
