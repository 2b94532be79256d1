"""Faxes: the list with its tabs and filters, and what is done to many at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import marshmallow as ma
from flask import Response, request
from marshmallow import fields, validate
from werkzeug.datastructures import MultiDict

from faxbot import audit, decisions, jobs, phone, resending
from faxbot.actors import Actor
from faxbot.audit import Action
from faxbot.errors import (
    DatabaseAway,
    FaxbotError,
    InvalidFields,
    Malformed,
    NotPossibleNow,
    PagesPerDay,
    RequestError,
    StorageAway,
)
from faxbot.events import Status
from faxbot.hidden import Hidden
from faxbot.jobs import Filters
from faxbot.models import JobRow
from faxbot.runtime import Runtime
from faxbot.web import schemas
from faxbot.web.auth import actor, runtime
from faxbot.web.console import frame

pages = frame.Pages("faxes", __name__)

TABS: dict[str, tuple[str, tuple[Status, ...]]] = {
    "waiting": ("Waiting", (Status.QUEUED,)),
    "sending": ("Sending", (Status.SUBMITTING, Status.SENT)),
    "retrying": ("Retrying", (Status.RETRYING,)),
    "needs-you": ("Needs you", (Status.HELD, Status.UNCERTAIN)),
    "done": ("Done", (Status.DELIVERED,)),
    "failed": ("Not sent", (Status.FAILED, Status.CANCELLED, Status.EXPIRED)),
}
"""By the word in the address: what the tab is called, and which statuses are behind it."""
ROWS = 50
MOST_AT_ONCE = 500
"""Of so many faxes at a time a deed asks; for more it is asked again."""


@dataclass(frozen=True, slots=True)
class Deed:
    """What can be done to many faxes: the word for it, how somebody is asked whether he wants it of so many, the scope
    it takes, how it is done to one, what one should know before, and to how many at a time it is done."""

    word: str
    question: str
    scope: str
    do: Callable[[Runtime, Actor, str], object]
    mind: str = "A fax that has moved on meanwhile is left as it is, and you are told."
    most: int = MOST_AT_ONCE


DEEDS = {
    "cancel": Deed("Cancel", "Cancel {}?", "fax:send", jobs.cancel),
    "hold": Deed("Hold", "Hold {}?", "fax:send", decisions.hold),
    "release": Deed(
        "Release",
        "Release {}?",
        "fax:send",
        decisions.release,
        "One of which it is said that it may have arrived is sent, maybe for the second time. A fax that has moved on "
        "meanwhile is left as it is, and you are told.",
    ),
    "resend": Deed(
        "Send once more",
        "Send {} once more?",
        "fax:send",
        resending.as_one_of_many,
        "Each becomes a new fax, with the same documents to the same number; once, however often this is asked. If one "
        "arrived after all, its receiver gets it twice. Only what failed or expired is sent so, and you are told what "
        "was not.",
        100,  # its documents are copied: 0.1 s each (measured)
    ),
}
_ENDS_IT = (DatabaseAway, StorageAway, PagesPerDay)
"""What would be said of every other fax too."""


class _Query(ma.Schema):
    """What stands in the list's address. No number: it is asked for in a form and stands here as its key."""

    tab = fields.String(validate=validate.OneOf(list(TABS)))
    status = fields.String(validate=validate.OneOf([str(status) for status in Status]))
    provider_id = fields.String(validate=schemas.PROVIDER)
    to_key = fields.String(validate=schemas.TO_KEY)
    since, until, ended_since = schemas.Instant(), schemas.Instant(), schemas.Instant()
    tag = fields.String(validate=validate.Length(max=130))
    cursor = fields.String(validate=validate.Length(max=64))


_QUERY = _Query()
_PAGE = tuple(name for name in _QUERY.fields if name != "cursor")


@pages.page("/faxes", access="fax:read")
def list_faxes() -> Response:
    """The list; of an address that makes no sense the filters as they were typed, and what is wrong with them."""
    try:
        query = frame.checked(_QUERY, frame.days(frame.asked()))
        cursor = query.pop("cursor", None)
        found, following = _found(query, cursor, ROWS)
    except (InvalidFields, Malformed) as error:
        wrong = frame.mistaken(error)
        return _listed(wrong["problem"]["status"], [], **wrong)
    return _listed(200, found, **frame.leaves(cursor, following))


def _listed(status: int, found: list[JobRow], **view: Any) -> Response:
    return frame.show(
        "faxes.html",
        status,
        tabs=TABS,
        deeds=[(name, deed.word) for name, deed in DEEDS.items() if frame.may(deed.scope)],
        rows=[jobs.describe(runtime(), job, masked=True) for job in found],
        filters=frame.filters(_PAGE),
        providers=runtime().config.provider_ids,
        **view,
    )


def _found(
    query: dict[str, Any], cursor: str | None, limit: int
) -> tuple[list[JobRow], str | None]:
    """The faxes that an address asks for, newest first, and the cursor behind them."""
    tab, status, to_key = query.get("tab"), query.get("status"), query.get("to_key")
    statuses = (Status(status),) if status else TABS[tab][1] if tab else ()
    to_keys = jobs.keys_beside(runtime(), actor(), to_key) if to_key else ()
    filters = Filters(
        statuses=tuple(each.value for each in statuses),
        provider_id=query.get("provider_id"),
        to_keys=to_keys,
        since=query.get("since"),
        until=query.get("until"),
        ended_since=query.get("ended_since"),
        tags=_tags(query.get("tag")),
    )
    return jobs.page(runtime(), actor(), filters, limit=limit, cursor=cursor)


def _tags(text: str | None) -> dict[str, str]:
    """`name=value` as people write it; raises InvalidFields."""
    if text is None:
        return {}
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise InvalidFields(errors={"tag": ["A tag is looked for as name=value."]})
    return {name.strip(): value.strip()}


@pages.deed("/faxes/search", access="fax:read")
def search_faxes() -> Response:
    """Find the faxes to a number: it goes on with the number's key, since no number stands in an address."""
    given = Hidden(request.form.get("to", "").strip())
    try:
        to = Hidden(phone.parse(given.reveal(), runtime().config.default_region))
    except Malformed as error:
        raise InvalidFields(errors={"to": [error.detail]}) from None
    audit.note(runtime(), actor(), Action.FAX_SEARCHED)
    key = jobs.keys_of_number(runtime(), to)[0]
    return frame.lead(f"/admin/ui/faxes?to_key={key}")


# Many at once -------------------------------------------------------------------------------------------


@pages.deed("/faxes/ask", access="fax:send")
def ask_for_many() -> Response:
    """Say how many faxes a deed is about, before it is done."""
    name, deed = the_deed()
    fax_ids, more = _chosen(deed.most)
    if not fax_ids:
        raise NotPossibleNow("no fax is chosen: tick some, or all that match")
    return frame.show("many.html", name=name, deed=deed, fax_ids=fax_ids, more=more)


@pages.deed("/faxes/do", access="fax:send")
def do_to_many() -> Response:
    """Do it, one fax after the other: what one refuses hinders no other."""
    _, deed = the_deed()
    fax_ids = request.form.getlist("fax_id")[: deed.most]
    refused: dict[str, int] = {}
    for number, fax_id in enumerate(fax_ids):
        try:
            deed.do(runtime(), actor(), fax_id)
        except _ENDS_IT as error:
            refused[_why(error)] = len(fax_ids) - number
            break
        except RequestError as error:
            refused[_why(error)] = refused.get(_why(error), 0) + 1
    went = len(fax_ids) - sum(refused.values())
    told = [f"{deed.word}: {went} of {len(fax_ids)}."]
    told += [f"{count} not: {why}." for why, count in refused.items()]
    return frame.done(*told)


def _why(error: FaxbotError) -> str:
    """Why a fax refuses a deed, without the full stop."""
    if isinstance(error, DatabaseAway):
        return "the database was away: do it again"
    if isinstance(error, StorageAway):
        return "the storage of documents was away: do it again"
    sentences = [each for some in getattr(error, "errors", {}).values() for each in some]
    return (" ".join(sentences) or error.detail).removesuffix(".")


def the_deed() -> tuple[str, Deed]:
    """What a form asks for, if it may; raises InvalidFields, Forbidden."""
    name = request.form.get("deed", "")
    if name not in DEEDS:
        raise InvalidFields(errors={"deed": ["It is none that can be done to many faxes."]})
    actor().require(DEEDS[name].scope)
    return name, DEEDS[name]


def _chosen(most: int) -> tuple[list[str], bool]:
    """The faxes that a form is about, ticked or all that match its page, `most` at most; whether there are more."""
    if request.form.get("all") != "yes":
        return request.form.getlist("fax_id")[:most], False
    values = MultiDict({name: request.form.get(name, "") for name in _PAGE})
    found, following = _found(frame.checked(_QUERY, frame.days(values)), None, most)
    return [job.id for job in found], following is not None
