"""Received faxes: the list, and one of them with its document, its holds and what happened to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flask import Response, request
from marshmallow import fields, validate

from faxbot import audit, inbound, legalholds, limits
from faxbot.audit import Action
from faxbot.errors import InvalidFields, Malformed
from faxbot.events import CAUSES, EVENT_MEANING, Event, Reception
from faxbot.inbound import Filters
from faxbot.legalholds import INBOUND
from faxbot.web import auth
from faxbot.web.auth import actor, runtime
from faxbot.web.console import frame
from faxbot.web.inbound import enabled
from faxbot.web.inbound_schemas import InboundQuery
from faxbot.web.retention_schemas import LegalHoldQuery, LegalHoldWish

pages = frame.Pages("received", __name__)

TABS: dict[str, tuple[str, Filters]] = {
    "unread": ("Unread", Filters(unread=True)),
    "fetching": ("Being fetched", Filters(status=Reception.FETCHING.value)),
    "failed": ("Failed", Filters(status=Reception.FAILED.value)),
}
"""By the word in the address: what the tab is called, and which faxes are behind it."""
ROWS = 50
MOST_PAGES = 50
"""So many can be opened one by one; a longer fax is read as its PDF."""


class _Query(InboundQuery):
    """What stands in the list's address. No number: a sender stands here as his key."""

    tab = fields.String(validate=validate.OneOf(list(TABS)))


_QUERY = _Query(exclude=("limit", "status", "unread"))
_FILTERS = ("provider_id", "since", "until", "from_key", "to_key")


def are_wanted() -> bool:
    """Whether faxes are received here."""
    return runtime().config.inbound_enabled


@pages.page("/inbound", access="inbound:list")
def list_received() -> Response:
    """The list; of an address that makes no sense the filters as they were typed, and what is wrong with them."""
    if not are_wanted():
        return frame.show("inbound.html", enabled=False, kept_days=runtime().config.callbacks_days)
    limits.admit_inbound(runtime(), actor(), "list")
    try:
        query = frame.checked(_QUERY, frame.days(frame.asked()))
        tab, cursor = query.pop("tab", None), query.pop("cursor", None)
        wanted = replace(TABS[tab][1] if tab else Filters(), **query)
        found, following = inbound.page(runtime(), actor(), wanted, limit=ROWS, cursor=cursor)
    except (InvalidFields, Malformed) as error:
        wrong = frame.mistaken(error)
        return _listed(wrong["problem"]["status"], [], **wrong)
    return _listed(200, found, **frame.leaves(cursor, following))


def _listed(status: int, found: Sequence[inbound.Row], **view: Any) -> Response:
    filters = frame.filters(("tab", *_FILTERS))
    return frame.show(
        "inbound.html",
        status,
        enabled=True,
        tabs=TABS,
        tab=filters.pop("tab", None),
        unread=inbound.unread(runtime(), actor()),
        rows=[inbound.describe(runtime(), fax, masked=True) for fax in found],
        filters=filters,
        providers=runtime().config.provider_ids,
        **view,
    )


@pages.page("/inbound/<inbound_id>", access="inbound:read")
@enabled
def show_received(inbound_id: str) -> Response:
    """The page of a received fax."""
    limits.admit_inbound(runtime(), actor(), "get")
    fax = inbound.find(runtime(), actor(), inbound_id)
    if not auth.in_background():  # who looks on has been written down
        details = {"masked": True} if actor().masked else None
        audit.note(runtime(), actor(), Action.INBOUND_SHOWN, ("inbound", fax.id), details=details)
    sees_holds = frame.may("operate")
    return frame.show(
        "received.html",
        fax=inbound.describe(runtime(), fax, masked=actor().masked),
        has_document=fax.status == Reception.RECEIVED and fax.purged_at is None,
        may_be_fetched=inbound.may_be_fetched(fax),
        events=[
            {**event, "means": _meaning(event["type"], event["cause"])}
            for event in inbound.events(runtime(), fax.id)
        ],
        holds=legalholds.of(runtime(), actor(), INBOUND, fax.id) if sees_holds else None,
        called=frame.called(),
        most_pages=MOST_PAGES,
    )


def _meaning(kind: str, cause: str | None) -> str:
    """An event in a sentence."""
    known = CAUSES.get(cause or "")
    return EVENT_MEANING[Event(kind)] + (f": {known.sentence}" if known else "")


@pages.deed("/inbound/<inbound_id>/read", access="inbound:read")
@enabled
def mark_read(inbound_id: str) -> Response:
    """Somebody has read it."""
    return _mark(inbound_id, read=True)


@pages.deed("/inbound/<inbound_id>/unread", access="inbound:read")
@enabled
def mark_unread(inbound_id: str) -> Response:
    """Nobody has."""
    return _mark(inbound_id, read=False)


def _mark(inbound_id: str, *, read: bool) -> Response:
    limits.admit_inbound(runtime(), actor(), "get")
    inbound.mark(runtime(), actor(), inbound_id, read=read)
    return frame.done("Marked as read." if read else "Marked as unread.")


@pages.deed("/inbound/<inbound_id>/fetch", access="inbound:read")
@enabled
def fetch_document(inbound_id: str) -> Response:
    """Try once more."""
    limits.admit_inbound(runtime(), actor(), "get")
    inbound.fetch(runtime(), actor(), inbound_id)
    return frame.done("Its document is tried to be had once more.")


@pages.deed("/inbound/<inbound_id>/give-up", access="inbound:read")
@enabled
def give_up_document(inbound_id: str) -> Response:
    """Try no more."""
    limits.admit_inbound(runtime(), actor(), "get")
    inbound.give_up(runtime(), actor(), inbound_id)
    return frame.done("Given up: its document is not tried to be had any more.")


@pages.deed("/inbound/<inbound_id>/link", access="inbound:read")
@enabled
def link_document(inbound_id: str) -> Response:
    """An address of the document that needs no key."""
    limits.admit_inbound(runtime(), actor(), "get")
    link = inbound.link(runtime(), actor(), inbound_id)
    return frame.reveal(
        "A link to the document",
        "Whoever has it has the document, without signing in. It is shown this once.",
        link["url"],
        until=link["expires_at"],
    )


@pages.deed("/inbound/<inbound_id>/hold", access="admin")
@enabled
def hold_received(inbound_id: str) -> Response:
    """Nothing of it is to be removed."""
    wish = frame.checked(LegalHoldWish(), request.form)
    legalholds.hold(runtime(), actor(), INBOUND, inbound_id, wish["reason"])
    return frame.done("Held. Nothing of it is removed until the hold is lifted.")


@pages.deed("/inbound/<inbound_id>/lift", access="admin")
@enabled
def lift_hold(inbound_id: str) -> Response:
    """It need be kept no longer."""
    wish = frame.checked(LegalHoldQuery(), request.form)
    legalholds.lift(runtime(), actor(), INBOUND, inbound_id, wish.get("hold"))
    return frame.done("Lifted. Without a hold it goes by its age again.")
