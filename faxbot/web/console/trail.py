"""The audit trail: who did what to which object, whether it is as it was written, and all of it as a file."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from flask import Response, request

from faxbot import audit, auditors
from faxbot.audit import Action
from faxbot.auditors import Filters
from faxbot.errors import InvalidFields, Malformed, NotFound
from faxbot.web.audit import verdict
from faxbot.web.audit_schemas import AuditQuery, AuditVerifyQuery
from faxbot.web.auth import actor, runtime
from faxbot.web.console import frame
from faxbot.web.patience import paced

pages = frame.Pages("trail", __name__)

ROWS = 50
LINES = 200
"""Of an export so many rows are sent at a time."""
OUTCOMES = (audit.DONE, audit.REFUSED, audit.FAILED)
PAGES = {
    "fax": "/admin/ui/faxes/",
    "inbound": "/admin/ui/inbound/",
    "key": "/admin/ui/keys/",
    "user": "/admin/ui/users/",
    "webhook": "/admin/ui/webhooks/",
}
"""Where the page of an object is, by its kind."""
MEDIA_TYPES = {"jsonl": "application/jsonl", "csv": "text/csv; charset=utf-8"}
_QUERY = AuditQuery(exclude=("limit",))
_EXPORT = AuditQuery(exclude=("limit", "cursor"))
_FILTERS = tuple(_EXPORT.fields)


@pages.page("/audit", access="admin")
def read_trail() -> Response:
    """A page of it, the newest first; that it was read is written down as well. Of an address that makes no sense the
    filters as they were typed, and what is wrong with them."""
    try:
        query = frame.checked(_QUERY, frame.days(frame.asked()))
        cursor = query.pop("cursor", None)
        found = auditors.page(runtime(), actor(), Filters(**query), limit=ROWS, cursor=cursor)
    except (InvalidFields, Malformed) as error:
        wrong = frame.mistaken(error)
        return _listed(wrong["problem"]["status"], [], **wrong)
    return _listed(200, found["items"], **frame.leaves(cursor, found["next"]))


def _listed(status: int, rows: list[dict[str, Any]], **view: Any) -> Response:
    return frame.show(
        "audit.html",
        status,
        rows=rows,
        called=frame.called(),
        pages_of=PAGES,
        actions=[str(action) for action in sorted(Action)],
        outcomes=OUTCOMES,
        formats=list(auditors.FORMATS),
        filters=frame.filters(_FILTERS),
        **view,
    )


@pages.deed("/audit/verify", access="admin")
def verify_trail() -> Response:
    """Whether a part of the chain is as it was written; where there is more the page asks again by itself."""
    query = frame.checked(AuditVerifyQuery(), request.form)
    return frame.show("verdict.html", verdict=verdict(**query))


@pages.page("/audit/export/<form>", access="admin")
def export_trail(form: str) -> Response:
    """All that the filters let through as a file, the oldest first; written down first, since who cuts it short has
    seen rows as well."""
    if form not in auditors.FORMATS:
        raise NotFound("the trail is exported as " + " or ".join(auditors.FORMATS))
    filters = Filters(**frame.checked(_EXPORT, frame.days(request.args)))
    details = {**filters.named(), "format": form}
    audit.note(runtime(), actor(), Action.AUDIT_EXPORTED, details=details)
    head, line_of = auditors.FORMATS[form]
    rows = auditors.rows(runtime(), actor().account_id, filters)
    pieces = chain([head], _pieces(line_of(row) for row in rows))
    return frame.download(paced(request.environ, pieces), MEDIA_TYPES[form], f"audit.{form}")


def _pieces(lines: Iterator[str]) -> Iterator[str]:
    """Many lines at a time: a row by itself would be a piece on the wire."""
    some: list[str] = []
    for line in lines:
        some.append(line)
        if len(some) == LINES:
            yield "".join(some)
            some = []
    yield "".join(some)
