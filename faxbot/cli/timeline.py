"""The timeline of a fax for people: time since it was accepted, event, and one sentence in our own words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import click

from faxbot.events import CAUSES, EVENT_MEANING, HOLD_REASONS, Event

_COLOURS: dict[str, str] = {
    Event.DELIVERED: "green",
    Event.FAILED: "red",
    Event.EXPIRED: "red",
    Event.CANCELLED: "yellow",
    Event.RETRYING: "yellow",
    Event.UNCERTAIN: "yellow",
    Event.HELD: "yellow",
}
_WIDTH = max(len(event) for event in Event)
_LATE = timedelta(seconds=1)
"""News that took no longer is in order; two clocks may differ by as much."""


class Timeline:
    """Prints each event once, as they come in."""

    def __init__(self) -> None:
        self._shown = 0
        self._began: datetime | None = None
        self._reached: datetime | None = None

    def show(self, events: Iterable[Mapping[str, Any]], *, quiet: bool = False) -> bool:
        """Print those that were not shown yet, in order of their sequence; whether there were any."""
        news = [event for event in events if event["sequence"] > self._shown]
        for event in news:
            self._shown = event["sequence"]
            if not quiet:
                self._print(event)
        return bool(news)

    def _print(self, event: Mapping[str, Any]) -> None:
        at = datetime.fromisoformat(event["occurred_at"])
        began = self._began = self._began or at
        learnt, earlier = at, ""
        # What happened at the carrier before the line above it stands where we heard of it: time does not go back.
        if self._reached is not None and at < self._reached:
            recorded = datetime.fromisoformat(event["recorded_at"])
            late = recorded - at > _LATE
            learnt = max(self._reached, recorded) if late else self._reached
            earlier = f" (happened at {_offset(at - began)})" if late else ""
        self._reached = learnt
        offset = _offset(learnt - began)
        click.echo(f"{offset:>10}  {name(event['type'])}  {sentence(event)}{earlier}".rstrip())


def name(event: str) -> str:
    """An event's name as a column, in its colour."""
    text = f"{event:<{_WIDTH}}"
    return click.style(text, fg=_COLOURS[event]) if event in _COLOURS else text


def _offset(since: timedelta) -> str:
    return f"+{max(since.total_seconds(), 0):.2f} s"


def sentence(event: Mapping[str, Any]) -> str:
    """What happened, with the numbers of this very event."""
    pages, sent = event.get("pages"), event.get("pages_sent")
    of_pages = f"page {sent} of {pages}" if pages else f"page {sent}"
    cause = CAUSES[event["cause"]].sentence if event.get("cause") in CAUSES else ""
    match event["type"]:
        case Event.QUEUED:
            return f"accepted and recorded, {counted(pages)}" if pages else "accepted and recorded"
        case Event.SUBMITTING:
            return f"attempt {event.get('attempt')} via {event.get('provider_id')}"
        case Event.SENT:
            return f"{event.get('provider_id')} has it"
        case Event.PROGRESS if sent is not None:
            return of_pages
        case Event.DELIVERED if sent is not None:
            return f"{sent} of {counted(pages or sent)} confirmed"
        case Event.HELD:
            return HOLD_REASONS.get(str(event.get("reason")), cause) or _meaning(event)
    return cause or _meaning(event)


def counted(count: int) -> str:
    """`1 page`, `3 pages`."""
    return f"{count} page" if count == 1 else f"{count} pages"


def _meaning(event: Mapping[str, Any]) -> str:
    return EVENT_MEANING.get(event["type"], "")
