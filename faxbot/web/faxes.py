"""/fax: send, list, search, read, cancel. A view checks, calls one function of the domain and gives its answer on."""

from __future__ import annotations

from typing import Any

from flask import Response, g

from faxbot import artifacts, audit, decisions, evidence, jobs, logcontext, results
from faxbot.actors import LINK, Actor
from faxbot.audit import Action
from faxbot.errors import (
    DocumentTooLarge,
    DocumentUnreadable,
    DocumentUnsupported,
    FaxRemoved,
    InvalidFields,
    KeyInFlight,
    KeyReused,
    Malformed,
    MediaTypeRefused,
    NotFound,
    NotPossibleNow,
    PagesPerDay,
    StorageAway,
)
from faxbot.jobs import Answer, Filters
from faxbot.models import Job, JobRow
from faxbot.web import api, auth, idempotency, problems, schemas, submission
from faxbot.web.auth import actor, runtime

blueprint = api.Blueprint("faxes", __name__, description="Send faxes and see what became of them.")

_REPLAYED = "Idempotency-Replayed"
_FAX_ID = [api.path("fax_id", "the fax's id")]
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Your own name for this request, bare or as a quoted string. Repeat the "
    "request with the same key as often as you like: there will be one fax. Kept for 31 days.",
    "schema": {"type": "string", "minLength": 1, "maxLength": idempotency.MAX_LENGTH},
    "example": "order-4711-fax-1",
}
_RECORDED = {
    202: api.answer(
        schemas.Fax,
        "The fax is recorded and will be sent.",
        headers={
            "Location": "the fax's address",
            _REPLAYED: "`true` when this is the first answer again, byte for byte, "
            "or, where retention has removed the number, the fax as it stands",
        },
    )
}


@blueprint.operation(
    "POST",
    "/fax/send",
    "/fax",
    access="fax:send",
    answers=_RECORDED,
    errors=(
        Malformed,
        KeyInFlight,
        KeyReused,
        FaxRemoved,
        InvalidFields,
        DocumentTooLarge,
        DocumentUnsupported,
        DocumentUnreadable,
        PagesPerDay,
        StorageAway,
        problems.REQUEST_TOO_LARGE,
        MediaTypeRefused,
    ),
    parameters=[_KEY],
    requestBody={
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": schemas.FaxRequest,
                "encoding": {
                    "file": {
                        "contentType": "application/pdf, image/tiff, image/png, image/jpeg, text/plain"
                    },
                    "tags": {"style": "deepObject", "explode": True},
                },
                "examples": {
                    "simple": {
                        "summary": "A document to a number",
                        "value": {"to": "+15550100000", "file": ["(bytes)"]},
                    },
                    "planned": {
                        "summary": "Tonight, with tags",
                        "value": {
                            "to": "+15550100000",
                            "file": ["(bytes)"],
                            "send_at": "2026-11-20T22:00:00+01:00",
                            "tags": {"case": "4711"},
                        },
                    },
                },
            }
        },
    },
)
def send_fax() -> Response:
    """Send a fax

    Takes the documents and records the fax; a worker sends it. The answer comes at once and is a promise: the fax
    will not be lost, and it will not be sent twice by guessing. Follow it at its address.
    """
    return _recorded(submission.submitted(_present))


def _present(job: Job | JobRow) -> bytes:
    return problems.dumps(jobs.describe(runtime(), job, masked=actor().masked))


def _recorded(answer: Answer) -> Response:
    logcontext.note(job_id=answer.job_id)
    response = api.reply(answer.body, answer.status)
    response.headers["Location"] = f"/fax/{answer.job_id}"
    if answer.replayed:
        response.headers[_REPLAYED] = "true"
    return response


@blueprint.operation(
    "GET",
    "/fax",
    access="fax:read",
    query=schemas.FaxQuery(),
    answers={
        200: api.answer(schemas.FaxPage, "A page of faxes, newest first, with masked numbers.")
    },
    errors=(Malformed,),
)
def list_faxes(query: dict[str, Any]) -> Response:
    """List faxes

    Pages by cursor: follow `next` until it is null. Faxes that are made meanwhile do not disturb the pages.
    """
    to_key = query.pop("to_key", None)
    to_keys = jobs.keys_beside(runtime(), actor(), to_key) if to_key else ()
    return _page(query, tags=query.pop("tag", {}), to_keys=to_keys)


@blueprint.operation(
    "POST",
    "/fax/search",
    access="fax:read",
    body=schemas.FaxSearch(),
    answers={
        200: api.answer(schemas.FaxPage, "A page of faxes, newest first, with masked numbers.")
    },
)
def search_faxes(query: dict[str, Any]) -> Response:
    """Find the faxes to a number

    A number is personal, so it is asked for in the body and never stands in an address.
    """
    to_keys = jobs.keys_of_number(runtime(), submission.number(query))
    audit.note(runtime(), actor(), Action.FAX_SEARCHED)
    return _page(query, tags=query.pop("tags", {}), to_keys=to_keys)


def _page(query: dict[str, Any], **more: Any) -> Response:
    limit, cursor, status = query.pop("limit"), query.pop("cursor", None), query.pop("status", None)
    filters = Filters(statuses=(status,) if status else (), **query, **more)
    here = runtime()
    found, following = jobs.page(here, actor(), filters, limit=limit, cursor=cursor)
    items = [jobs.describe(here, job, masked=True) for job in found]
    return api.reply(problems.dumps({"items": items, "next": following}))


@blueprint.operation(
    "GET",
    "/fax/<fax_id>",
    access="fax:read",
    answers={200: api.answer(schemas.Fax, "The fax as it stands now.")},
    errors=(NotFound,),
    parameters=_FAX_ID,
)
def read_fax(fax_id: str) -> Response:
    """Read a fax"""
    job = _shown(fax_id, Action.FAX_SHOWN)
    return api.reply(_present(job))


@blueprint.operation(
    "GET",
    "/fax/<fax_id>/events",
    access="fax:read",
    answers={200: api.answer(schemas.Timeline, "Events and attempts, oldest first.")},
    errors=(NotFound,),
    parameters=_FAX_ID,
)
def read_timeline(fax_id: str) -> Response:
    """Read a fax's timeline

    Everything that happened to the fax, every call to a provider, and what people decided about it.
    """
    job = _shown(fax_id, Action.FAX_TIMELINE_SHOWN)
    timeline = results.timeline(runtime().database, job.id)
    decided = decisions.of_fax(runtime(), job, masked=actor().masked)
    return api.reply(problems.dumps({**timeline, "decisions": decided}))


@blueprint.operation(
    "GET",
    "/fax/<fax_id>/evidence",
    access="operate",
    answers={200: api.answer(schemas.FaxEvidencePage, "The newest messages, newest first.")},
    errors=(NotFound,),
    parameters=_FAX_ID,
)
def read_evidence(fax_id: str) -> Response:
    """Read what carriers said of a fax

    Their messages as they came, with numbers and free text, those that were not understood too; not for whom numbers
    are masked. What came before this version noted whose it was (migration 0020) is not among them.
    """
    actor().require_whole("operate")
    return api.reply(problems.dumps(evidence.of_fax(runtime(), actor(), fax_id)))


def _shown(fax_id: str, action: Action) -> JobRow:
    """The fax that is about to be shown, which is written down."""
    job = jobs.find(runtime(), actor(), fax_id)
    details = {"masked": True} if actor().masked else None
    audit.note(runtime(), actor(), action, ("fax", job.id), details=details)
    return job


@blueprint.operation(
    "GET",
    "/fax/<fax_id>/pdf",
    access=auth.LINK,
    query=schemas.LinkQuery(),
    answers={200: api.file_answer("The pages as they are sent.", artifacts.PDF)},
    errors=(NotFound, StorageAway),
    parameters=_FAX_ID,
)
def read_pages(query: dict[str, Any], fax_id: str) -> Response:
    """Fetch the pages of a fax, for a carrier

    By the link that the carrier was given with the fax; it ends with the attempt, or when its time is over.
    """
    with artifacts.Workspace(runtime()) as workspace:
        path, account_id = artifacts.fetched(runtime(), fax_id, query["token"], workspace)
        answer = api.opened(path, artifacts.PDF)
    carrier = Actor(account_id, "link", frozenset(), LINK, g.request_id, auth.address())
    audit.note(runtime(), carrier, Action.DOCUMENT_OPENED, ("fax", fax_id))
    return answer


@blueprint.operation(
    "GET",
    "/fax/<fax_id>/document",
    access="fax:read",
    answers={200: api.file_answer("The pages as they are sent, to be saved.", artifacts.PDF)},
    errors=(NotFound, NotPossibleNow, StorageAway),
    parameters=_FAX_ID,
)
def read_document(fax_id: str) -> Response:
    """Open the pages of a fax

    As they are sent, or will be: what the carrier gets, dot by dot. Not for whom numbers are masked.
    """
    job = _whole(fax_id)
    with artifacts.Workspace(runtime()) as workspace:
        path = artifacts.pdf_as_sent(runtime(), job, workspace)
        answer = api.opened(path, artifacts.PDF, name=f"fax-{job.id}.pdf")
    audit.note(runtime(), actor(), Action.DOCUMENT_OPENED, ("fax", job.id))
    return answer


@blueprint.operation(
    "GET",
    "/fax/<fax_id>/pages/<number>",
    access="fax:read",
    query=schemas.PageQuery(),
    answers={200: api.file_answer("The page, at its proportions on paper.", api.PNG)},
    errors=(NotFound, NotPossibleNow, StorageAway),
    parameters=[*_FAX_ID, api.path("number", "which page, from 1")],
)
def show_page(query: dict[str, Any], fax_id: str, number: str) -> Response:
    """Look at a page of a fax

    As it is sent, or will be. Not for whom numbers are masked.
    """
    job = _whole(fax_id)
    with artifacts.Workspace(runtime()) as workspace:
        path = artifacts.page_as_sent(
            runtime(), job, api.page_number(number), query["width"], workspace
        )
        answer = api.opened(path, api.PNG)
    audit.note(runtime(), actor(), Action.DOCUMENT_OPENED, ("fax", job.id))
    return answer


def _whole(fax_id: str) -> JobRow:
    """A fax of which everything may be shown to this actor, the number in the document too."""
    actor().require_whole("fax:read")
    return jobs.find(runtime(), actor(), fax_id)


@blueprint.operation(
    "POST",
    "/fax/<fax_id>/cancel",
    access="fax:send",
    answers={
        200: api.answer(schemas.Fax, "It will not be sent."),
        202: api.answer(
            schemas.Fax,
            "The carrier may have it already: the wish is kept and passed on; follow the fax.",
        ),
    },
    errors=(NotFound, NotPossibleNow),
    parameters=_FAX_ID,
)
def cancel_fax(fax_id: str) -> Response:
    """Cancel a fax"""
    job, ended = jobs.cancel(runtime(), actor(), fax_id)
    return api.reply(_present(job), 200 if ended else 202)


@blueprint.operation(
    "POST",
    "/fax/<fax_id>/resend",
    access="fax:send",
    body=schemas.ResendRequest(),
    answers=_RECORDED,
    errors=(
        NotFound,
        NotPossibleNow,
        KeyInFlight,
        KeyReused,
        FaxRemoved,
        DocumentTooLarge,
        PagesPerDay,
        StorageAway,
    ),
    parameters=[*_FAX_ID, _KEY],
)
def resend_fax(wish: dict[str, Any], fax_id: str) -> Response:
    """Send a fax once more

    A new fax with the same documents, number, header, resolution, priority and tags (`resend_of` names the first one).
    Only of one that is final, however it ended, and whose documents are still there.
    """
    return _recorded(submission.resent(fax_id, wish, _present))


@blueprint.operation(
    "POST",
    "/fax/<fax_id>/hold",
    access="fax:send",
    answers={200: api.answer(schemas.Fax, "It is held until somebody releases it.")},
    errors=(NotFound, NotPossibleNow),
    parameters=_FAX_ID,
)
def hold_fax_back(fax_id: str) -> Response:
    """Hold a fax

    One that is `queued` or `retrying`, until it is released or cancelled; its `expires_at` ends it all the same.
    """
    return api.reply(_present(decisions.hold(runtime(), actor(), fax_id)))


@blueprint.operation(
    "POST",
    "/fax/<fax_id>/send-now",
    access="fax:send",
    answers={200: api.answer(schemas.Fax, "It is tried now.")},
    errors=(NotFound, NotPossibleNow),
    parameters=_FAX_ID,
)
def send_fax_now(fax_id: str) -> Response:
    """Send a waiting fax now

    One that waits for its `send_at`, or for its next try. What waits for its turn (at its number or provider) keeps it.
    """
    return api.reply(_present(decisions.send_now(runtime(), actor(), fax_id)))


@blueprint.operation(
    "POST",
    "/fax/<fax_id>/release",
    access="fax:send",
    answers={200: api.answer(schemas.Fax, "It is tried again.")},
    errors=(NotFound, NotPossibleNow),
    parameters=_FAX_ID,
)
def release_fax(fax_id: str) -> Response:
    """Release a held fax

    Whatever it is held for. Where that is not mended, it is held again.
    """
    return api.reply(_present(decisions.release(runtime(), actor(), fax_id)))


@blueprint.operation(
    "POST",
    "/fax/<fax_id>/decide",
    access="operate",
    body=schemas.DecisionRequest(),
    answers={200: api.answer(schemas.Fax, "It is settled as you say.")},
    errors=(NotFound, NotPossibleNow),
    parameters=_FAX_ID,
)
def decide_fax(wish: dict[str, Any], fax_id: str) -> Response:
    """Settle an uncertain fax

    By what you found out at the carrier or the receiver. `retry` sends it anew: where you are wrong, it arrives twice.
    """
    return api.reply(_present(decisions.decide(runtime(), actor(), fax_id, **wish)))
