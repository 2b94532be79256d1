"""/inbound: received faxes."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from flask import Response, g

from faxbot import audit, inbound, limits
from faxbot.actors import LINK, Actor
from faxbot.artifacts import FAX_PAGES, PDF, Workspace
from faxbot.audit import Action
from faxbot.errors import Malformed, NotFound, NotPossibleNow, StorageAway
from faxbot.inbound import Filters
from faxbot.web import api, auth, problems
from faxbot.web.auth import actor, runtime
from faxbot.web.inbound_schemas import (
    InboundFax,
    InboundLink,
    InboundLinkQuery,
    InboundPage,
    InboundQuery,
    InboundUnread,
)
from faxbot.web.schemas import PageQuery

blueprint = api.Blueprint("inbound", __name__, description="Faxes that somebody sent to us.")
_ID = [api.path("inbound_id", "its id")]
View = TypeVar("View", bound=Callable[..., Response])


def enabled(view: View) -> View:
    """Where received faxes are not wanted there is nothing at these addresses."""

    @wraps(view)
    def answer(*arguments: Any, **named: Any) -> Response:
        if not runtime().config.inbound_enabled:
            raise NotFound("faxes are not received here (INBOUND_ENABLED)")
        return view(*arguments, **named)

    return cast(View, answer)


@blueprint.operation(
    "GET",
    "/inbound",
    access="inbound:list",
    query=InboundQuery(),
    answers={
        200: api.answer(InboundPage, "A page of received faxes, newest first, with masked numbers.")
    },
    errors=(Malformed, NotFound),
)
@enabled
def list_inbound(query: dict[str, Any]) -> Response:
    """List received faxes

    Pages by cursor: follow `next` until it is null.
    """
    limits.admit_inbound(runtime(), actor(), "list")
    limit, cursor = query.pop("limit"), query.pop("cursor", None)
    found, following = inbound.page(
        runtime(), actor(), Filters(**query), limit=limit, cursor=cursor
    )
    items = [inbound.describe(runtime(), fax, masked=True) for fax in found]
    return api.reply(problems.dumps({"items": items, "next": following}))


@blueprint.operation(
    "GET",
    "/inbound/unread",
    access="inbound:list",
    answers={200: api.answer(InboundUnread, "How many, and since when.")},
    errors=(NotFound,),
)
@enabled
def count_unread() -> Response:
    """Count the unread"""
    limits.admit_inbound(runtime(), actor(), "list")
    return api.reply(problems.dumps(inbound.unread(runtime(), actor())))


@blueprint.operation(
    "GET",
    "/inbound/<inbound_id>",
    access="inbound:read",
    answers={200: api.answer(InboundFax, "The received fax.")},
    errors=(NotFound,),
    parameters=_ID,
)
@enabled
def read_inbound(inbound_id: str) -> Response:
    """Read about a received fax"""
    limits.admit_inbound(runtime(), actor(), "get")
    return _shown(inbound.find(runtime(), actor(), inbound_id))


def _shown(fax: inbound.Row) -> Response:
    """A received fax as its reader sees it, which is written down."""
    details = {"masked": True} if actor().masked else None
    audit.note(runtime(), actor(), Action.INBOUND_SHOWN, ("inbound", fax.id), details=details)
    return api.reply(problems.dumps(inbound.describe(runtime(), fax, masked=actor().masked)))


@blueprint.operation(
    "GET",
    "/inbound/<inbound_id>/pdf",
    access=f"inbound:read{auth.OR_LINK}",
    query=InboundLinkQuery(),
    answers={200: api.file_answer("The document as PDF.", PDF)},
    errors=(NotFound, StorageAway),
    parameters=_ID,
)
@enabled
def read_inbound_pdf(query: dict[str, Any], inbound_id: str) -> Response:
    """Open the document of a received fax

    With a key, or by a link (POST /inbound/{inbound_id}/link) until it expires. A TIFF is shown at its proportions.
    """
    if "actor" in g:
        limits.admit_inbound(runtime(), actor(), "get")
        reader = actor()
        inbound.find(runtime(), reader, inbound_id)
    else:
        account_id = inbound.admit(runtime(), inbound_id, query.get("token", ""))
        reader = Actor(account_id, "link", frozenset(), LINK, g.request_id, auth.address())
    return _file(reader, inbound_id)


@blueprint.operation(
    "GET",
    "/inbound/<inbound_id>/document",
    access="inbound:read",
    answers={200: api.file_answer("The document as it came.", PDF, FAX_PAGES)},
    errors=(NotFound, StorageAway),
    parameters=_ID,
)
@enabled
def read_inbound_document(inbound_id: str) -> Response:
    """Open the document as it came"""
    limits.admit_inbound(runtime(), actor(), "get")
    inbound.find(runtime(), actor(), inbound_id)
    return _file(actor(), inbound_id, as_it_came=True)


def _file(reader: Actor, inbound_id: str, *, as_it_came: bool = False) -> Response:
    with Workspace(runtime()) as workspace:
        path, media_type = inbound.document(runtime(), inbound_id, workspace, as_it_came=as_it_came)
        answer = api.opened(path, media_type)
    audit.note(runtime(), reader, Action.DOCUMENT_OPENED, ("inbound", inbound_id))
    return answer


@blueprint.operation(
    "GET",
    "/inbound/<inbound_id>/pages/<number>",
    access="inbound:read",
    query=PageQuery(),
    answers={200: api.file_answer("The page, at its proportions on paper.", api.PNG)},
    errors=(NotFound, NotPossibleNow, StorageAway),
    parameters=[*_ID, api.path("number", "which page, from 1")],
)
@enabled
def show_inbound_page(query: dict[str, Any], inbound_id: str, number: str) -> Response:
    """Look at a page of a received fax"""
    limits.admit_inbound(runtime(), actor(), "get")
    actor().require_whole("inbound:read")
    inbound.find(runtime(), actor(), inbound_id)
    with Workspace(runtime()) as workspace:
        path = inbound.shown(
            runtime(), inbound_id, api.page_number(number), query["width"], workspace
        )
        answer = api.opened(path, api.PNG)
    audit.note(runtime(), actor(), Action.DOCUMENT_OPENED, ("inbound", inbound_id))
    return answer


@blueprint.operation(
    "POST",
    "/inbound/<inbound_id>/link",
    access="inbound:read",
    answers={200: api.answer(InboundLink, "An address that needs no key.")},
    errors=(NotFound,),
    parameters=_ID,
)
@enabled
def link_inbound(inbound_id: str) -> Response:
    """Make a link to the document

    For INBOUND_TOKEN_TTL_MINUTES whoever has it has the document.
    """
    limits.admit_inbound(runtime(), actor(), "get")
    return api.reply(problems.dumps(inbound.link(runtime(), actor(), inbound_id)))


@blueprint.operation(
    "POST",
    "/inbound/<inbound_id>/read",
    access="inbound:read",
    answers={200: api.answer(InboundFax, "It is marked.")},
    errors=(NotFound, NotPossibleNow),
    parameters=_ID,
)
@enabled
def mark_inbound_read(inbound_id: str) -> Response:
    """Mark a received fax as read

    Who did so first, and when, stays.
    """
    limits.admit_inbound(runtime(), actor(), "get")
    return _shown(inbound.mark(runtime(), actor(), inbound_id, read=True))


@blueprint.operation(
    "POST",
    "/inbound/<inbound_id>/unread",
    access="inbound:read",
    answers={200: api.answer(InboundFax, "It is marked.")},
    errors=(NotFound, NotPossibleNow),
    parameters=_ID,
)
@enabled
def mark_inbound_unread(inbound_id: str) -> Response:
    """Mark a received fax as unread"""
    limits.admit_inbound(runtime(), actor(), "get")
    return _shown(inbound.mark(runtime(), actor(), inbound_id, read=False))


@blueprint.operation(
    "POST",
    "/inbound/<inbound_id>/fetch",
    access="inbound:read",
    answers={200: api.answer(InboundFax, "It is tried.")},
    errors=(NotFound, NotPossibleNow),
    parameters=_ID,
)
@enabled
def fetch_inbound(inbound_id: str) -> Response:
    """Have the document of a received fax tried once more

    Of one that is `failed` for want of it (`no-document`): as if it came now, and unread.
    """
    limits.admit_inbound(runtime(), actor(), "get")
    return _shown(inbound.fetch(runtime(), actor(), inbound_id))


@blueprint.operation(
    "POST",
    "/inbound/<inbound_id>/give-up",
    access="inbound:read",
    answers={200: api.answer(InboundFax, "It is given up.")},
    errors=(NotFound, NotPossibleNow),
    parameters=_ID,
)
@enabled
def give_up_inbound(inbound_id: str) -> Response:
    """Have the document of a received fax not tried any more

    Of one that is `fetching`: it is `failed` then (`no-document`), can be marked as read, and goes by its age; or
    is tried once more.
    """
    limits.admit_inbound(runtime(), actor(), "get")
    return _shown(inbound.give_up(runtime(), actor(), inbound_id))
