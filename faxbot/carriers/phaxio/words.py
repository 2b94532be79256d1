"""What Phaxio says: answers, fax objects in its versions, callbacks and their signature.

Sources: the vendor's pages on objects, statuses, webhooks and callback security (phaxio.com/docs),
and answers recorded from the live service (phaxio/phaxio-ruby).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from faxbot.carriers.door import Answer
from faxbot.carriers.ledger import RECEIVED, Fax

VERSIONS = ("v1", "v2", "v2.1")
"""Of the webhook format, an account setting whatever version the API is called in."""

HANG_SECONDS = 300.0
"""Longer than any client waits."""

_JSON = {"Content-Type": "application/json"}
_MARK = b"\xef\xbb\xbf"
_OFFSET = timezone(timedelta(hours=-5))
"""The recorded service gives times with its own offset."""

_NUMBER_INVALID = (
    "Phone number is not formatted correctly or invalid. Please check the number and try again."
)


def _failure(status: int, message: str, headers: Mapping[str, str] | None = None) -> Answer:
    body = json.dumps({"success": False, "message": message}, indent=2).encode()
    return Answer(status, body, {**_JSON, **(headers or {})})


REFUSALS: Mapping[str, Answer] = {
    "auth_failure": _failure(401, "Auth failure."),
    "not_found": _failure(404, "Not found failure."),
    "invalid_entity": _failure(422, "Invalid entity"),
    "number_invalid": _failure(422, _NUMBER_INVALID),
    "number_not_permitted": _failure(422, "Phone number is not permitted."),
    "rate_limited": _failure(429, "Rate limited"),
    "rate_limited_until": _failure(429, "Rate limited", {"Retry-After": "2"}),
    "service_failure": _failure(500, "Service failure."),
    "service_failure_text": Answer(500, b"There was an error", {"Content-Type": "text/plain"}),
    "unavailable": Answer(503, b""),
    "refused_with_200": _failure(200, _NUMBER_INVALID),
    "unreadable": Answer(200, b"<html>accepted", {"Content-Type": "text/html"}),
    "without_id": Answer(200, b'{"success":true,"message":"Fax queued for sending"}', _JSON),
    "drop": Answer(0),
    "hang": Answer(0, hold=HANG_SECONDS),
}
"""Answers that are none a client hopes for, by name."""


def invalid(message: str) -> Answer:
    """422 with a text of its own."""
    return _failure(422, message)


def marked(answer: Answer) -> Answer:
    """The same with a byte order mark before its JSON, as some recorded error bodies have it."""
    content = answer.content
    if isinstance(content, bytes) and answer.headers.get("Content-Type") == "application/json":
        return replace(answer, content=_MARK + content)
    return answer


def success(message: str, headers: Mapping[str, str] | None = None, **content: Any) -> Answer:
    """200 with `data` and `paging` as given."""
    body = compact({"success": True, "message": message, **content}).encode()
    return Answer(
        200,
        body,
        {
            "Content-Type": "application/json; charset=utf-8",
            "x-request-id": secrets.token_hex(16),
            **(headers or {}),
        },
    )


def compact(content: Any) -> str:
    """JSON without a space, letters beyond ASCII as they are."""
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False)


def fax_object(fax: Fax) -> dict[str, Any]:
    """A fax as versions 2 and 2.1 describe it."""
    details = fax.details
    recipients = [
        {**recipient, "completed_at": moment(recipient["completed_at"])}
        for recipient in details["recipients"]
    ]
    return {
        "id": int(fax.id),
        "direction": fax.direction,
        "num_pages": details["num_pages"],
        "status": fax.status,
        "is_test": details["is_test"],
        "created_at": moment(fax.received_at),
        "caller_id": details["caller_id"],
        "from_number": details["from_number"],
        "completed_at": moment(fax.ended_at),
        "caller_name": None,
        "cost": details["cost"],
        "tags": details["tags"],
        "recipients": recipients,
        "to_number": details["to_number"],
        "error_id": details["error_id"],
        "error_type": details["error_type"],
        "error_message": details["error_message"],
        "barcodes": [],
    }


def fax_object_v1(fax: Fax) -> dict[str, Any]:
    """A fax as version 1 describes it: seconds of the epoch, national numbers, `error_code` a text,
    and no field that is empty."""
    details = fax.details
    common = {
        "id": int(fax.id),
        "num_pages": details["num_pages"],
        "cost": details["cost"],
        "direction": fax.direction,
        "status": fax.status,
        "is_test": details["is_test"],
        "requested_at": int(fax.received_at),
        "completed_at": None if fax.ended_at is None else int(fax.ended_at),
    }
    failed = {
        "error_type": details["error_type"],
        "error_id": details["error_id"],
        "error_code": details["error_message"],
    }
    error = failed if details["error_type"] else {}
    if fax.direction == RECEIVED:
        numbers = {name: _national(details[name]) for name in ("from_number", "to_number")}
        return {**common, **numbers, **error}
    recipients = [_recipient_v1(each) for each in details["recipients"]]
    return {**common, "tags": details["tags"], "recipients": recipients, **error}


def _recipient_v1(recipient: Mapping[str, Any]) -> dict[str, Any]:
    speed = {
        name: str(recipient[name])
        for name in ("bitrate", "resolution")
        if recipient[name] is not None
    }
    ended = recipient["completed_at"]
    return {
        "number": _national(recipient["phone_number"]),
        "status": recipient["status"],
        **speed,
        "completed_at": None if ended is None else int(ended),
    }


def _national(number: str) -> str:
    return number.removeprefix("+1").removeprefix("+")


def moment(seconds: float | None) -> str | None:
    """RFC 3339 with milliseconds and an offset."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).astimezone(_OFFSET).isoformat("T", "milliseconds")


@dataclass(frozen=True, slots=True)
class File:
    """A file part of a callback."""

    name: str
    filename: str
    media_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Callback:
    """What a callback says: fields by name in their order, and files."""

    fields: Mapping[str, str]
    files: Sequence[File] = ()

    def signature(self, url: str, token: str) -> str:
        """What X-Phaxio-Signature says of it, in hex: HMAC-SHA1 under the callback token, of the
        address as it was submitted, each field's name and value, and each file's name and SHA-1,
        both in the order of the names' bytes (phaxio.com/docs/security/callbacks)."""
        text = url + "".join(
            name + value
            for name, value in sorted(self.fields.items(), key=lambda item: item[0].encode())
        )
        text += "".join(
            # The vendor's scheme, not ours.
            file.name + hashlib.sha1(file.content, usedforsecurity=False).hexdigest()
            for file in sorted(self.files, key=lambda file: file.name.encode())
        )
        return hmac.new(token.encode(), text.encode(), "sha1").hexdigest()

    def body(self, boundary: str) -> bytes:
        """It as multipart/form-data."""
        pieces = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
            for name, value in self.fields.items()
        ]
        for file in self.files:
            head = (
                f'--{boundary}\r\nContent-Disposition: form-data; name="{file.name}";'
                f' filename="{file.filename}"\r\nContent-Type: {file.media_type}\r\n\r\n'
            )
            pieces.append(head.encode() + file.content + b"\r\n")
        return b"".join([*pieces, f"--{boundary}--\r\n".encode()])


def callback(fax: Fax, version: str, *, file: bytes | None = None) -> Callback:
    """The news that a fax ended, in a version of the webhook format; `file` goes with one that was
    received."""
    received = fax.direction == RECEIVED
    content = compact(fax_object_v1(fax) if version == "v1" else fax_object(fax))
    files = () if file is None else (_file(fax, version, file),)
    if version == "v2.1":
        event = {} if received else {"event_type": "fax_completed"}
        return Callback({"fax": content, **event}, files)
    # Version 2 gives no `success` with a received fax.
    said = {} if received and version == "v2" else {"success": _text(fax.status == "success")}
    message = fax.details["error_message"] or ""
    more = {"message": message} if message or version == "v1" else {}
    if received:
        more = {"metadata": ""}
    return Callback(
        {
            **said,
            "is_test": _text(fax.details["is_test"]),
            "direction": fax.direction,
            "fax": content,
            **more,
        },
        files,
    )


def inflight(fax: Fax, event: str, number: str, **more: int) -> Callback:
    """News of a fax on its way, which only version 2.1 has: `transmitting_page` with `page`, or
    `retry_scheduled` with `retry_count`."""
    fields = {"fax": compact(fax_object(fax)), "event_type": event}
    fields |= {name: str(value) for name, value in more.items()}
    return Callback({**fields, "recipient_phone_number": number})


def _file(fax: Fax, version: str, content: bytes) -> File:
    name = "filename" if version == "v1" else "file"
    return File(name, f"fax-{fax.id}.pdf", "application/pdf", content)


def _text(value: bool) -> str:
    return "true" if value else "false"
