"""Every way a request can fail, in one table: error code -> HTTP status, meaning and mend; and the one body they have.

The body is application/problem+json (RFC 9457); `type` leads to the error's paragraph on /docs. No body ever repeats
what the client sent, shows a stack or holds PHI. docs/errors.md is made from PROBLEMS.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from faxbot import errors
from faxbot.errors import FaxbotError

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Problem:
    """One kind of failure: its code, HTTP status, what it means and what mends it."""

    code: str
    status: int
    title: str
    mend: str


def _of(error: type[FaxbotError], status: int, mend: str) -> Problem:
    return Problem(error.code, status, (error.__doc__ or "").splitlines()[0], mend)


# What faxbot raises on purpose; the nearest class in the error's ancestry counts.
RAISED: dict[type[FaxbotError], Problem] = {
    error: _of(error, status, mend)
    for error, status, mend in (
        (
            errors.Malformed,
            400,
            "Mend the header, field or body that `detail` names, and send it again.",
        ),
        (
            errors.Unauthenticated,
            401,
            "Send a valid API key (X-API-Key, or Authorization: Bearer), or sign in; a callback needs its proof.",
        ),
        (
            errors.Forbidden,
            403,
            "Use a key, or a role, that has the scope named in `detail`; with a session send X-CSRF-Token too.",
        ),
        (
            errors.CsrfTokenWrong,
            403,
            "Send the X-CSRF-Token that GET /admin/session tells; after each sign-in it is another one.",
        ),
        (
            errors.NotFound,
            404,
            "Check the address and the id. A fax of another account looks like one that does not exist.",
        ),
        (
            errors.KeyInFlight,
            409,
            "Ask again after Retry-After with the same key: the answer will be the first request's.",
        ),
        (
            errors.FaxRemoved,
            409,
            "The fax was made when the key came first. To send the document once more, use a new Idempotency-Key.",
        ),
        (
            errors.NotPossibleNow,
            409,
            "Ask for the fax: its status says why. A fax that is final stays as it is.",
        ),
        (
            errors.ChangeRefused,
            409,
            "Mend what the detail names, or, where a test failed, send `untested: true`.",
        ),
        (
            errors.ChangedMeanwhile,
            409,
            "Read the settings again, and change them then.",
        ),
        (
            errors.HasEnded,
            409,
            "Make a new key.",
        ),
        (
            errors.WebhookNotActive,
            409,
            "Have it tested (POST /webhooks/ID/test): where it takes the test event it is active.",
        ),
        (
            errors.DocumentTooLarge,
            413,
            (
                "Send fewer or smaller documents, or raise MAX_FILE_SIZE_MB, FAXBOT_MAX_PAGES or FAXBOT_PAGES_PER_DAY, "
                "whichever `detail` names."
            ),
        ),
        (
            errors.DocumentUnsupported,
            415,
            "Send PDF, TIFF, PNG, JPEG or UTF-8 text. The content decides, not the file's name or declared type.",
        ),
        (
            errors.MediaTypeRefused,
            415,
            "Send the Content-Type that `detail` names: multipart/form-data for a fax, else application/json.",
        ),
        (
            errors.InvalidFields,
            422,
            "`errors` says what is wrong with which field. Mend it and send again; the Idempotency-Key is free.",
        ),
        (
            errors.KeyReused,
            422,
            "Use a new Idempotency-Key for every new fax, and the old one only to repeat a request that had no answer.",
        ),
        (
            errors.DocumentUnreadable,
            422,
            "Open the document: it may be damaged, empty or locked with a password. Print it to a new PDF.",
        ),
        (
            errors.KeyMissing,
            503,
            "Tell the operator: a process of this server lacks a master key, and its log names it.",
        ),
        (
            errors.RequestsPerMinute,
            429,
            "Send it again after Retry-After, and fewer in each minute, or have MAX_REQUESTS_PER_MINUTE raised.",
        ),
        (
            errors.FailedLogins,
            429,
            "Mend the program that sends a wrong key: a good one is let in. A password is looked at after Retry-After.",
        ),
        (
            errors.PagesPerDay,
            429,
            "Send it again after Retry-After: the day ends at 00:00 UTC. Or have FAXBOT_PAGES_PER_DAY raised.",
        ),
        (
            errors.SignInCrowded,
            429,
            "Send it again after Retry-After.",
        ),
        (
            errors.ListenersFull,
            503,
            "Come again after Retry-After, close streams that nobody reads, or have FAXBOT_MAX_LISTENERS raised.",
        ),
        (
            errors.WebhookTestsCrowded,
            429,
            "Send it again after Retry-After.",
        ),
        (
            errors.PluginTestsCrowded,
            429,
            "Send it again after Retry-After.",
        ),
        (
            errors.IdentityAway,
            503,
            "Sign in again in a moment, or by password. `faxbot plugins test` and the log say what is wrong.",
        ),
        (
            errors.StorageAway,
            503,
            "Send the same request again after Retry-After. `faxbot plugins test` and the log say what is wrong.",
        ),
        (
            errors.DatabaseAway,
            503,
            "Send the same request again after Retry-After; with the same Idempotency-Key it cannot become two faxes.",
        ),
    )
}

UNREADABLE = "The request is no whole HTTP request: it ended too early or is framed wrongly."
"""What the web server's own machinery says of a request that it cannot read."""

# What the web server's own machinery refuses, by HTTP status.
METHOD_NOT_ALLOWED = Problem(
    "method-not-allowed",
    405,
    "This address does not take that method.",
    "Use one of the methods in the Allow header.",
)
REQUEST_TOO_LARGE = Problem(
    "request-too-large",
    413,
    "The request, apart from its documents, is larger than this server takes.",
    "Send shorter fields, fewer of them, or a shorter body.",
)
INTERNAL = Problem(
    "internal",
    500,
    "Something in this server failed.",
    "Send it again with the same Idempotency-Key. If it stays, tell the operator the `request_id`: it is in the log.",
)
BUSY = Problem(
    "busy",
    503,
    "Too many requests wait for their turn.",
    "Send the same request again after Retry-After; with the same Idempotency-Key it cannot become two faxes.",
)
REFUSED: dict[int, Problem] = {
    400: RAISED[errors.Malformed],
    401: RAISED[errors.Unauthenticated],
    403: RAISED[errors.Forbidden],
    404: RAISED[errors.NotFound],
    405: METHOD_NOT_ALLOWED,
    413: REQUEST_TOO_LARGE,
    415: RAISED[errors.MediaTypeRefused],
    500: INTERNAL,
    503: BUSY,
}

PROBLEMS: dict[str, Problem] = {
    problem.code: problem
    for problem in sorted(
        {*RAISED.values(), *REFUSED.values()}, key=lambda problem: (problem.status, problem.code)
    )
}


def of_error(error: FaxbotError) -> Problem:
    """The problem an error of ours leaves as; one that is not about the request is INTERNAL."""
    for cls in type(error).__mro__:
        if cls in RAISED:
            return RAISED[cls]
    return INTERNAL


def of_status(status: int) -> Problem:
    """The problem behind a status that the framework chose."""
    return REFUSED.get(status) or (INTERNAL if status >= 500 else REFUSED[400])


def dumps(value: Any) -> bytes:
    """Compact JSON in UTF-8, with a line end for those who read it in a terminal."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def body(
    problem: Problem,
    request_id: str,
    *,
    detail: str | None = None,
    fields: Mapping[str, Sequence[str]] | None = None,
) -> bytes:
    """The JSON of one failure; `fields` maps a field to sentences about it. Where `detail` says no more than the
    title, the fields are named instead, else what mends it."""
    if detail in (None, problem.title):
        detail = f"Not valid: {', '.join(fields)}." if fields else problem.mend
    return dumps(
        {
            "type": f"/docs#{problem.code}",
            "title": problem.title,
            "status": problem.status,
            "detail": _sentence(detail),
            "errors": {
                name: [_sentence(text) for text in texts] for name, texts in (fields or {}).items()
            },
            "request_id": request_id,
        }
    )


def _sentence(text: str) -> str:
    """As people read it. An error's own text begins small where a command prints it behind a colon."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
