"""One fax: what is known of it, everything that happened to it, and what can be done now."""

from __future__ import annotations

from typing import Any

from flask import Response, request

from faxbot import artifacts, audit, decisions, evidence, jobs, results
from faxbot.audit import Action
from faxbot.db import new_id
from faxbot.errors import NotPossibleNow
from faxbot.events import (
    AFTER_INTENT,
    CAUSES,
    CLAIMABLE,
    EVENT_MEANING,
    HOLD_REASONS,
    TERMINAL,
    Event,
    Status,
)
from faxbot.models import JobRow
from faxbot.web import api, auth, schemas, submission
from faxbot.web.auth import actor, runtime
from faxbot.web.console import frame

pages = frame.Pages("fax", __name__)

MOST_PAGES = 60
"""Of so many pages each can be looked at by itself."""


@pages.page("/faxes/<fax_id>", access="fax:read")
def show_fax(fax_id: str) -> Response:
    """The page of a fax."""
    job = jobs.find(runtime(), actor(), fax_id)
    if not auth.in_background():  # who looks on has been written down
        details = {"masked": True} if actor().masked else None
        audit.note(runtime(), actor(), Action.FAX_SHOWN, ("fax", job.id), details=details)
    timeline = results.timeline(runtime().database, job.id)
    return frame.show(
        "fax.html",
        fax=jobs.describe(runtime(), job, masked=actor().masked),
        calls=_by_attempt(timeline),
        decided=decisions.of_fax(runtime(), job, masked=actor().masked),
        verbs=_verbs(job),
        pages_stand=_pages_stand(job),
        most_pages=MOST_PAGES,
        resend_key=new_id(),
        providers=runtime().config.provider_ids,
        wanted=job.wanted_provider_id,
    )


def _verbs(job: JobRow) -> set[str]:
    """What may be done to a fax as it stands by who looks at it."""
    status = Status(job.status)
    possible = {
        "cancel": status not in TERMINAL and not _is_asked_to_cancel(job),
        "release": status is Status.HELD,
        "hold": status in CLAIMABLE,
        "send-now": decisions.why_not_now(job, runtime().now()) is None,
        "resend": status in TERMINAL and job.purged_at is None,
    }
    found = {verb for verb, can in possible.items() if can and frame.may("fax:send")}
    if frame.may("operate"):
        found |= {"decide"} if status is Status.UNCERTAIN else set()
        found |= {"evidence"} if job.attempts and not actor().masked else set()
    return found


def _is_asked_to_cancel(job: JobRow) -> bool:
    """Whether the carrier may have it, and the wish to cancel it is kept and passed on already."""
    return job.cancel_requested_at is not None and Status(job.status) in AFTER_INTENT


def _pages_stand(job: JobRow) -> str:
    """Whether its pages can be looked at: `made`, `to come`, `gone`; nothing for whom they are not."""
    if actor().masked:
        return ""
    if artifacts.are_made(runtime(), job):
        return "made"
    return "gone" if Status(job.status) in TERMINAL else "to come"


@pages.page("/faxes/<fax_id>/pages/<number>/preview", access="fax:read")
def preview_page(fax_id: str, number: str) -> Response:
    """A page so coarse that nothing can be read of it (artifacts.PREVIEW_WIDTH): nobody has opened a document, and none
    is written down as opened. For who may open the page itself."""
    job = jobs.find(runtime(), actor(), fax_id)
    actor().require_whole("fax:read")
    with artifacts.Workspace(runtime()) as workspace:
        path = artifacts.page_as_sent(
            runtime(), job, api.page_number(number), artifacts.PREVIEW_WIDTH, workspace
        )
        return api.opened(path, api.PNG)


@pages.page("/faxes/<fax_id>/evidence", access="operate")
def show_evidence(fax_id: str) -> Response:
    """A part of the page: what carriers said, word for word."""
    actor().require_whole("operate")
    return frame.show("evidence.html", said=evidence.of_fax(runtime(), actor(), fax_id))


def _by_attempt(timeline: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """What happened, in its order: one card for each attempt with its events, and what lies between them."""
    attempts = {attempt["number"]: attempt for attempt in timeline["attempts"]}
    cards: list[dict[str, Any]] = []
    for event in timeline["events"]:
        attempt = attempts.get(event["attempt"])
        if not cards or cards[-1]["attempt"] is not attempt:
            cards.append({"attempt": attempt, "events": []})
        cards[-1]["events"].append({**event, "means": _meaning(event)})
    return cards


def _meaning(event: dict[str, Any]) -> str:
    """An event in a sentence: what it says, and why."""
    words = [EVENT_MEANING[Event(event["type"])]]
    if cause := CAUSES.get(event["cause"] or ""):
        words.append(cause.sentence)
    if why := HOLD_REASONS.get(event["reason"] or ""):
        words.append(why)
    return ": ".join(words)


@pages.deed("/faxes/<fax_id>/cancel", access="fax:send")
def cancel_fax(fax_id: str) -> Response:
    """It is not to be sent."""
    _, ended = jobs.cancel(runtime(), actor(), fax_id)
    if ended:
        return frame.done("Cancelled. It is not sent any more.")
    return frame.done("The carrier may have it already: the wish is kept and passed on.")


@pages.deed("/faxes/<fax_id>/release", access="fax:send")
def release_fax(fax_id: str) -> Response:
    """It is held no longer."""
    decisions.release(runtime(), actor(), fax_id)
    return frame.done("Released. It is tried again; where nothing was mended it is held again.")


@pages.deed("/faxes/<fax_id>/hold", access="fax:send")
def hold_fax(fax_id: str) -> Response:
    """It is to wait until somebody releases it."""
    decisions.hold(runtime(), actor(), fax_id)
    return frame.done("Held. It waits until somebody releases it.")


@pages.deed("/faxes/<fax_id>/send-now", access="fax:send")
def send_fax_now(fax_id: str) -> Response:
    """It is not to wait for its time."""
    decisions.send_now(runtime(), actor(), fax_id)
    return frame.done("It is sent as soon as a worker is free.")


@pages.deed("/faxes/<fax_id>/resend", access="fax:send")
def resend_fax(fax_id: str) -> Response:
    """Send it once more, perhaps to another number; a double click makes one fax (the page's Idempotency-Key)."""
    wish = frame.checked(schemas.ResendRequest(), request.form)
    answer = submission.resent(fax_id, wish, jobs.no_body)
    return frame.lead(f"/admin/ui/faxes/{answer.job_id}")


@pages.page("/faxes/<fax_id>/decide", access="operate")
def ask_what_became_of_it(fax_id: str) -> Response:
    """A dialog: what became of the attempt that is uncertain now."""
    job = jobs.find(runtime(), actor(), fax_id)
    if job.status != Status.UNCERTAIN:
        raise NotPossibleNow(f"only an uncertain fax is settled; this one is {job.status}")
    return frame.show("decide.html", fax={"id": job.id, "attempts": job.attempts})


@pages.deed("/faxes/<fax_id>/decide", access="operate")
def decide_fax(fax_id: str) -> Response:
    """What a person found out about it."""
    wish = frame.checked(schemas.DecisionRequest(), request.form)
    decisions.decide(runtime(), actor(), fax_id, **wish)
    return frame.done("Settled as you said.")
