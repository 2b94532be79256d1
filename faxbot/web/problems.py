"""Every way a request can fail, in one table: error code -> HTTP status, meaning and mend; and the one body they have.

The body is application/problem+json (RFC 9457); `type` leads to the error's paragraph on /docs. No body ever repeats
what the client sent, shows a stack or holds PHI. docs/errors.md is compared with PROBLEMS by a test.
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
        (errors.RequestError, 400, "Read `detail`; it says what is in the way."),
        (
            errors.Malformed,
            400,
            "Read `detail`: it names the header, field or body that could not be read, and the form it must have.",
        ),
        (
            errors.Unauthenticated,
            401,
            "Send a key that is valid and not revoked. `faxbot keys create` makes one.",
        ),
        (
            errors.Forbidden,
            403,
            "Use a key that has the scope named in `detail`, or have one made.",
        ),
        (
            errors.NotFound,
            404,
            "Check the address and the id. A fax of another account looks like one that does not exist.",
        ),
        (errors.Conflict, 409, "Ask for the fax again and look at its status."),
        (
            errors.KeyInFlight,
            409,
            "Ask again after Retry-After with the same key: the answer will be the first request's.",
        ),
        (
            errors.NotPossibleNow,
            409,
            "Ask for the fax: its status says why. A fax that is final stays as it is.",
        ),
        (
            errors.DocumentTooLarge,
            413,
            "Send fewer or smaller documents, or raise MAX_FILE_SIZE_MB or FAXBOT_MAX_PAGES, whichever `detail` names.",
        ),
        (
            errors.DocumentUnsupported,
            415,
            "Send PDF, TIFF, PNG, JPEG or UTF-8 text. The content decides, not the file's name or declared type.",
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
        (errors.DocumentError, 422, "Read `detail`, and send another document."),
        (
            errors.DocumentUnreadable,
            422,
            "Open the document: it may be damaged, empty or locked with a password. Print it to a new PDF.",
        ),
        (
            errors.DatabaseAway,
            503,
            "Send the same request again after Retry-After; with the same Idempotency-Key it cannot become two faxes.",
        ),
    )
}

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
MEDIA_TYPE_REFUSED = Problem(
    "media-type",
    415,
    "This address does not take that Content-Type.",
    "Send multipart/form-data to submit a fax and application/json everywhere else.",
)
INTERNAL = Problem(
    "internal",
    500,
    "Something in this server failed.",
    "Send it again with the same Idempotency-Key. If it stays, tell the operator the `request_id`: it is in the log.",
)
REFUSED: dict[int, Problem] = {
    400: RAISED[errors.Malformed],
    401: RAISED[errors.Unauthenticated],
    403: RAISED[errors.Forbidden],
    404: RAISED[errors.NotFound],
    405: METHOD_NOT_ALLOWED,
    413: REQUEST_TOO_LARGE,
    415: MEDIA_TYPE_REFUSED,
    500: INTERNAL,
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


def body(
    problem: Problem,
    request_id: str,
    *,
    detail: str | None = None,
    fields: Mapping[str, Sequence[str]] | None = None,
) -> bytes:
    """The JSON of one failure; `fields` maps a field to sentences about it."""
    content: dict[str, Any] = {
        "type": f"/docs#{problem.code}",
        "title": problem.title,
        "status": problem.status,
        "detail": detail or problem.title,
        "errors": {name: list(sentences) for name, sentences in (fields or {}).items()},
        "request_id": request_id,
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
