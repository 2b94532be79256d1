"""What Sinch says: the fax object, pages of a list, refusals, and the bodies of webhooks.

Sources: the vendor's Fax OpenAPI (Fax, ListFaxesObject, Error Messages, incomingFax, faxCompleted)
and, where a mood says so, the other shapes that its SDKs know.
"""

from __future__ import annotations

import json
import re
import secrets
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from faxbot.carriers.door import Answer
from faxbot.carriers.ledger import SENT, Fax
from faxbot.carriers.sinch.submission import JSON, SERVICE_ID

HANG_SECONDS = 300.0
"""Longer than any client waits."""

MOODS: Mapping[str, tuple[str, ...]] = {
    "errors": ("json", "printed", "schema"),
    "event": ("plain", "quoted"),
    "document": ("files", "file", "none"),
    "values": ("plain", "odd"),
    "page": ("page", "pageNumber"),
    "account": ("paid", "unpaid"),
}
"""What can be asked for at the control door; the first of each is how it starts. `errors`: as JSON,
as the documentation prints them (no JSON), or by its schema. `event`: in a multipart webhook with
JSON quotes or without. `document`: in JSON webhooks, or none in any. `values`: a price that is a
number, `hasFile` as text. `page`: what a list calls it. `account`: unpaid answers 402 to every
submission."""

_MALFORMED = (
    "The request could not be understood by the server due to malformed syntax. "
    "The client SHOULD NOT repeat the request without modifications."
)
_INCOMPLETE = " It could be invalid JSON, missing required fields, or other issues."
_TEMPORARY = (
    "Most likely a temporary issue, please try again later. If the problem persists, "
    "please back of on this request and contact support."
)
_UNPAID = "You have reached 0 balance on your account please make a payment."
_ABSENT = "The resource is not found, not available, or does not exist."

_PRINTED_400 = """{
  "code": "404",
  "error": "Bad Request",
  "message": "
    The request could not be understood by the server due to malformed syntax. \
The client SHOULD NOT repeat the request without modifications.
    It could be invalid JSON, missing required fields, or other issues."
}
"""
_PRINTED_422 = """{
  "code": "422",
  "error": "Invalid parameters",
  "message": "The request could not be understood by the server due to malformed syntax.
     The client SHOULD NOT repeat the request without modifications."
  details: {
    fieldViolations: [
      {
        field: "%s",
        description: "%s"
      }
    ]

  }
"""


def refusal(name: str, mood: str = "json") -> Answer:
    """A refusal by its name, in the mood of `errors`."""
    if mood == "printed" and name == "bad_request":
        return Answer(400, _PRINTED_400.encode(), {"Content-Type": JSON})
    if mood == "schema" and name in _BY_SCHEMA:
        return _BY_SCHEMA[name]
    return REFUSALS[name]


def invalid(field: str, description: str, mood: str = "json") -> Answer:
    """422: the field, and what is wrong with it."""
    if mood == "printed":
        body = (_PRINTED_422 % (field, description)).encode()
        return Answer(422, body, {"Content-Type": JSON})
    violations = [{"field": field, "description": description}]
    if mood == "schema":
        details = [{"type": "BadRequest", "fieldViolations": violations}]
        return _schema(422, "INVALID_ARGUMENT", "Bad request.", details)
    content = {"code": "422", "error": "Invalid parameters", "message": _MALFORMED}
    return Answer(422, {**content, "details": {"fieldViolations": violations}})


def no_url(url: str) -> Answer:
    """What stands under "800", which is no status of HTTP: the callback address cannot be reached.
    What status it comes with is not documented."""
    return Answer(400, {"error": f"Could not connect to URL: {url}"})


def _printed(status: int, error: str, message: str, code: str = "") -> Answer:
    return Answer(status, {"code": code or str(status), "error": error, "message": message})


def _schema(status: int, word: str, message: str, details: list[dict[str, Any]]) -> Answer:
    return Answer(status, {"code": status, "status": word, "message": message, "details": details})


_BLOCKED = {
    "type": "ErrorInfo",
    "reason": "DESTINATION_BLOCKED",
    "domain": "VOICE",
    "metadata": {"country": "Bermuda"},
}
_PAGE = b"<html><body>Service Unavailable</body></html>"
_HTML = {"Content-Type": "text/html"}
REFUSALS: Mapping[str, Answer] = {
    # The body of 400 says 404; so it is printed.
    "bad_request": _printed(400, "Bad Request", _MALFORMED + _INCOMPLETE, code="404"),
    "unauthorized": Answer(401, b"", {"WWW-Authenticate": "Basic"}),
    "payment_required": _printed(402, "Payment required", _UNPAID),
    "forbidden": _schema(403, "PERMISSION_DENIED", "Forbidden.", [_BLOCKED]),
    "not_found": _printed(404, "Not found", _ABSENT),
    "throttled": Answer(429, b""),
    "throttled_until": Answer(429, b"", {"Retry-After": "2"}),
    "internal": _printed(500, "Internal service error", _TEMPORARY),
    "internal_empty": Answer(500, b""),
    "unavailable": Answer(503, _PAGE, _HTML),
    "drop": Answer(0),
    "hang": Answer(0, hold=HANG_SECONDS),
}
"""Refusals by their names, which are also those of the control door."""
_BY_SCHEMA: Mapping[str, Answer] = {
    "not_found": _schema(404, "NOT_FOUND", "Not found.", [{"type": "NotFound"}])
}


def acceptance(name: str, faxes: Sequence[Mapping[str, Any]]) -> Answer:
    """How a submission that was taken is answered: as it should be (`fax`), or not."""
    content: Mapping[str, Any] = faxes[0] if len(faxes) == 1 else {"faxes": list(faxes)}
    text = json.dumps(content).encode()
    odd: Mapping[str, Answer] = {
        "page": Answer(200, b"<html><body>OK</body></html>", _HTML),
        "empty": Answer(200, b""),
        "no_id": Answer(200, {name: each for name, each in content.items() if name != "id"}),
        "faxes": Answer(200, {"faxes": list(faxes)}),
        "list": Answer(200, json.dumps(list(faxes)).encode(), {"Content-Type": JSON}),
        "cut": Answer(200, text[: len(text) // 2], {"Content-Type": JSON}),
    }
    if name == "fax":
        return Answer(200, content)
    return odd[name] if name in odd else REFUSALS[name]


def fax_object(fax: Fax, project_id: str, mood: str = "plain") -> dict[str, Any]:
    """A fax as reads show it: credentials of its callback URL masked, and what only an end has once
    it has ended. `mood` is that of `values`."""
    details = fax.details
    fields = {name: value for name, value in details["fields"].items() if name not in _UNSHOWN}
    if "callbackUrl" in fields:
        fields["callbackUrl"] = masked(fields["callbackUrl"])
    shown = {
        "id": fax.id,
        "direction": "OUTBOUND" if fax.direction == SENT else "INBOUND",
        "from": details["from"],
        "to": details["to"],
        "status": fax.status,
        "projectId": project_id,
        "serviceId": SERVICE_ID,
        "createTime": moment(fax.received_at),
        **fields,
    }
    if fax.ended_at is not None:
        shown |= _end_of(fax, mood)
    return shown


_UNSHOWN = frozenset({"inProgressNotifications", "from", "coverPageData"})


def _end_of(fax: Fax, mood: str) -> dict[str, Any]:
    details = fax.details
    amount = 0.07 * max(fax.pages_sent, 1) if fax.direction == SENT else 0.0
    odd = mood == "odd"
    end = {
        "numberOfPages": fax.pages,
        "pagesSentSuccessfully": fax.pages_sent,
        "completedTime": moment(fax.ended_at),
        "price": {
            "amount": round(amount, 4) if odd else f"{amount:.4f}",
            "currencyCode": "USD",
        },
        "retryCount": details["retryCount"],
        "hasFile": str(details["hasFile"]).lower() if odd else details["hasFile"],
        "toCountry": "US",
        "fromCountry": "US",
    }
    if fax.direction != SENT:
        del end["pagesSentSuccessfully"], end["retryCount"]
    named = zip(("errorType", "errorCode", "errorMessage"), details["error"], strict=True)
    return {**end, **{name: value for name, value in named if value is not None}}


def masked(url: str) -> str:
    """A URL with `***` for its credentials."""
    return re.sub(r"//[^/?#]*@", "//***:***@", url, count=1)


def moment(seconds: float | None) -> str:
    """ISO 8601 in UTC, milliseconds and Z."""
    if seconds is None:
        return ""
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def page_of(
    name: str, entries: Sequence[Mapping[str, Any]], page: int, size: int, called: str = "page"
) -> Answer:
    """One page of a list; `called` is how the number of the page is."""
    shown = entries[(page - 1) * size : page * size]
    content = {
        name: list(shown),
        called: page,
        "totalPages": -(-len(entries) // size),
        "pageSize": size,
        "totalItems": len(entries),
    }
    return Answer(200, content)


def service(project_id: str, incoming_url: str, content_type: str) -> dict[str, Any]:
    """The project's one service."""
    return {
        "id": SERVICE_ID,
        "name": "Default service",
        **({"incomingWebhookUrl": masked(incoming_url)} if incoming_url else {}),
        "webhookContentType": content_type,
        "defaultForProject": True,
        "numberOfRetries": 3,
        "retryDelaySeconds": 60,
        "imageConversionMethod": "HALFTONE",
        "saveOutboundFaxDocuments": True,
        "saveInboundFaxDocuments": True,
        "projectId": project_id,
    }


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook's body and its Content-Type."""

    content_type: str
    body: bytes


def webhook(
    event: str,
    fax: Mapping[str, Any],
    document: bytes | None,
    content_type: str,
    moods: Mapping[str, str],
) -> Webhook:
    """News of a fax; `document` is the PDF that goes with it."""
    now = moment(datetime.now(UTC).timestamp())
    if moods["document"] == "none":
        document = None
    if content_type == JSON:
        content: dict[str, Any] = {"event": event, "eventTime": now, "fax": fax}
        if document is not None:
            file = {"file": b64encode(document).decode(), "fileType": "PDF"}
            in_list = event != "INCOMING_FAX" and moods["document"] == "files"
            content |= {"files": [file]} if in_list else file
        return Webhook(JSON, json.dumps(content).encode())
    typed = f"\r\nContent-Type: {JSON}"
    quoted = moods["event"] == "quoted"
    parts = [
        ('"event"' + typed * quoted, json.dumps(event).encode() if quoted else event.encode()),
        ('"eventTime"', now.encode()),
        ('"fax"' + typed, json.dumps(fax).encode()),
    ]
    if document is not None:
        parts.append(('"file"; filename="fax.pdf"\r\nContent-Type: application/pdf', document))
    boundary = f"----Boundary{secrets.token_hex(12)}"
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: form-data; name={head}\r\n\r\n".encode()
        + data
        + b"\r\n"
        for head, data in parts
    )
    return Webhook(
        f"multipart/form-data; boundary={boundary}", body + f"--{boundary}--\r\n".encode()
    )
