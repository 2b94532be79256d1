"""The form of a request becomes a fax: one way for programs and for people, with the same key, checks and limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import request

from faxbot import artifacts, jobs, phone, resending
from faxbot.errors import Malformed
from faxbot.hidden import Hidden
from faxbot.jobs import Answer, Submission
from faxbot.models import JobRow
from faxbot.resending import Changes
from faxbot.web import idempotency, schemas, uploads
from faxbot.web.auth import actor, runtime

_FAX_REQUEST = schemas.FaxRequest()


def submitted(present: Callable[[JobRow], bytes], *, by_hand: bool = False) -> Answer:
    """Record the fax that this request's form asks for, under its Idempotency-Key. `by_hand`: a browser sends fields
    that nobody filled in too; they were not given. Raises what uploads.received() and jobs.submit() raise."""
    key = idempotency.parse(request.environ.get("HTTP_IDEMPOTENCY_KEY"))
    with uploads.received(request, runtime().config) as form:
        values = form.values
        if by_hand:
            values = {name: value for name, value in values.items() if value != ""}
        wish = schemas.load(_FAX_REQUEST, values)
        schemas.within_reach(wish, runtime().now())
        return jobs.submit(runtime(), actor(), _submission(wish), key=key, present=present)


def resent(fax_id: str, wish: dict[str, Any], present: Callable[[JobRow], bytes]) -> Answer:
    """Send a fax once more, changed as `wish` (schemas.ResendRequest) says, under this request's Idempotency-Key.
    Raises what resending.resend() raises, and Malformed."""
    key = idempotency.parse(request.environ.get("HTTP_IDEMPOTENCY_KEY"))
    schemas.within_reach(wish, runtime().now())
    to = number(wish) if "to" in wish else None
    return resending.resend(
        runtime(), actor(), fax_id, Changes(to=to, **wish), key=key, present=present
    )


def _submission(wish: dict[str, Any]) -> Submission:
    to = number(wish)
    header = Hidden(wish.pop("header", ""))
    spooled = [(file.path, file.sha256, file.size) for file in wish.pop("file")]
    uploaded = artifacts.accept(runtime(), spooled)
    return Submission(to=to, header=header, uploads=uploaded, **wish)


def number(wish: dict[str, Any]) -> Hidden[str]:
    """The number asked for, taken out of `wish`; raises Malformed under its field's name."""
    try:
        return Hidden(phone.parse(wish.pop("to"), runtime().config.default_region))
    except Malformed as error:
        raise Malformed(errors={"to": [error.detail]}) from None
