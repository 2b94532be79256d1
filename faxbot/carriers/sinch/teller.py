"""What the stand-in Sinch tells: the fax as a client sees it, and webhooks in the manner of its
number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from faxbot.carriers.ledger import SENT, Fax, Ledger
from faxbot.carriers.live import LiveFaxes
from faxbot.carriers.sinch import words
from faxbot.carriers.sinch.numbers import outcome
from faxbot.carriers.timeline import Post, Poster, Timeline

REPOST_SECONDS = (300.0, 600.0, 1200.0, 1800.0) + (6 * 3600.0,) * 12
"""The vendor's waits before a webhook that was not taken is posted again: 16 times."""

PROGRESS = "FAX_IN_PROGRESS"
"""The event that `inProgressNotifications` asks for; how the vendor calls it is not documented."""

_REORDERED_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Times:
    """In seconds: a page on the line (0 ends every call at once), how long what is late waits; and
    by what the vendor's own waits are multiplied."""

    page: float
    late: float
    scale: float


class Teller:
    """Shows faxes and posts webhooks; `moods` are those of words.MOODS."""

    def __init__(
        self, ledger: Ledger, live: LiveFaxes, timeline: Timeline, project_id: str, times: Times
    ) -> None:
        self.moods = {name: choices[0] for name, choices in words.MOODS.items()}
        self._ledger = ledger
        self._live = live
        self._timeline = timeline
        self._project_id = project_id
        self._times = times
        waits = [wait * times.scale for wait in REPOST_SECONDS]
        self._poster = Poster(timeline, waits)

    def show(self, fax: Fax) -> dict[str, Any]:
        """A fax as its client sees it."""
        return words.fax_object(fax, self._project_id, self.moods["values"])

    def post_again(
        self,
        fax_id: str,
        *,
        event: str | None,
        url: str | None,
        contentType: str | None,  # noqa: N803 - as the vendor calls it
        lies: Mapping[str, Any],
    ) -> bool:
        """Post a webhook of a fax as it stands, but for the fields that it `lies` about, and to
        `url` where that is given. False where there is no such fax."""
        fax = self._live.find(fax_id)
        if fax is None:
            return False
        said = {**self.show(fax), **lies}
        self._post(fax, event or _event(fax), said, url=url, kind=contentType)
        return True

    def tell(self, fax: Fax) -> None:
        """Post a webhook of how it ended, in the manner of its number."""
        manner = outcome(fax.last_digits).callbacks if fax.direction == SENT else "once"
        event, said = _event(fax), self.show(fax)
        if manner == "none" or not fax.callback_url:
            self._live.told(fax)
        elif manner == "late":
            later = self._times.late
            self._timeline.after(later, lambda: self._post(fax, event, said, last=True))
        elif manner == "false":
            lie = {name: each for name, each in said.items() if not name.startswith("error")}
            self._post(fax, event, {**lie, "status": "COMPLETED"}, last=True)
        else:
            self._post(fax, event, said, last=True)
            if manner == "twice":
                self._post(fax, event, said)
            if manner == "reordered":
                before = self.show(replace(fax, status="IN_PROGRESS", ended_at=None))
                news = lambda: self._post(fax, PROGRESS, before)  # noqa: E731
                self._timeline.after(_REORDERED_SECONDS, news)

    def tell_progress(self, fax: Fax) -> None:
        if fax.details["fields"]["inProgressNotifications"] and fax.callback_url:
            self._post(fax, PROGRESS, self.show(fax))

    def _post(
        self,
        fax: Fax,
        event: str,
        said: Mapping[str, Any],
        *,
        last: bool = False,
        url: str | None = None,
        kind: str | None = None,
    ) -> None:
        documents = self._ledger.documents(fax.id) if fax.final else []
        document = documents[0][1] if documents else None
        kind = kind or fax.details["contentType"]
        posted = words.webhook(event, said, document, kind, self.moods)

        def sign(_body: bytes) -> Mapping[str, str]:
            return {"Content-Type": posted.content_type}

        def done(_taken: bool) -> None:
            if last:
                self._live.told(fax)

        self._poster.put(Post(url or fax.callback_url, posted.body, sign, done))


def _event(fax: Fax) -> str:
    return "FAX_COMPLETED" if fax.direction == SENT else "INCOMING_FAX"
