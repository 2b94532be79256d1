"""What Sinch answers, read with distrust: faxes, lists of them, and refusals, in our words.

An answer that is not what it should be is an unknown outcome; a number that the table does not
hold is the cause `unknown`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from faxbot.errors import AccountRefused, OutcomeUnknown, ProviderError
from faxbot.plugins.base import Arrival, HttpReply, State, Update
from faxbot.providers.facts import count_in, id_in, moment, number_in, object_in
from faxbot.providers.http import refusal


def _of(cause: str, kind: str, *codes: int) -> dict[tuple[str, int | None], str]:
    return {(kind, code): cause for code in codes}


_CALL, _FAX, _DOCUMENT = "CALL_ERROR", "FAX_ERROR", "DOCUMENT_CONVERSION_ERROR"

CAUSES: Mapping[tuple[str, int | None], str] = {
    **_of("busy", _CALL, 17, 35, 90, 118),
    **_of("congestion", _CALL, 15, 74, 98, 101, 102, 111, 124),
    **_of("no_answer", _CALL, 16, 30, 39, 87, 94, 112),
    **_of("dropped_early", _CALL, 11, 19, 64, 89, 93, 96, 103, 104, 106, 108, 114),
    **_of("network_error", _CALL, 36, 37, 56, 58, 59, 61, 62, 81, 83, 88, 97, 99, 100, 110, 121),
    **_of("unreachable", _CALL, 43),
    **_of("no_route", _CALL, 52),
    **_of("rejected", _CALL, 50, 85),
    **_of("bearer", _CALL, 32, 71, 92, 95),
    **_of("number_dead", _CALL, 34, 47, 49, 73, 91, 115, 116, 123),
    # "Dropped prematurely" in Sinch's words, dead numbers in the experience of others: one more try.
    **_of("no_fax_tone", _CALL, 107, 109),
    **_of("no_fax_tone", _FAX, 13, 14, 26, 132),
    **_of("no_answer", _FAX, 48),
    **_of("dropped_early", _FAX, 38, 41, 80),
    **_of("handshake_failed", _FAX, 6, 12, 18, 20, 22, 28, 63, 65, 66, 67, 70, 72, 82, 117, 119),
    **_of("page_failed", _FAX, 8, 10, 21, 29, 53, 60, 77, 84, 131),
    **_of("network_error", _FAX, 40, 42, 44, 78),
    **_of("incompatible_image", _FAX, 7, 25, 31, 33, 45, 68),
    **_of("session_timeout", _FAX, 76),
    **_of("cancelled", _FAX, 75),
    **_of("unconfirmed", _FAX, 79),  # the answer to a cancel that came too late
    **_of("funds", _FAX, 46),
    **_of("doc_unreadable", _FAX, 113),
    **_of(
        "policy", _FAX, 133
    ),  # the number is not permitted; as a document's error, 133 is another
    **_of("doc_unreadable", _DOCUMENT, 4, 51, 55, 69, 122, 128, 129, 130, 133),
    **_of("doc_fetch_failed", _DOCUMENT, 54, 57),
    **_of("funds", "GENERAL_ERROR", 5, 86, 105, 125),
    **_of("system", "GENERAL_ERROR", 3, 120),
    **_of("trunk_down", "FATAL_ERROR", 9, 24),
    # "In the final stages of sending": it may have arrived.
    **_of("system", "FATAL_ERROR", 23, 126),
    # It passes, or it is 23: few tries more, and late.
    ("FATAL_ERROR", None): "unreachable",
}
"""(errorType, errorCode) -> canonical cause (events.CAUSES); what is not here is `unknown`. The
numbers are Phaxio's: those that Sinch's OpenAPI lists, and older ones, of which 89 still arrives
(sinch-sdk-node, faxes-api.test.ts)."""

_SAME_TYPE = {"LINE_ERROR": _CALL}

BLAMED: Mapping[str, str] = {
    "to": "number_invalid",
    "file": "doc_unreadable",
    "files": "doc_unreadable",
    "DESTINATION_BLOCKED": "policy",
    **dict.fromkeys(
        ("callbackUrl", "callbackUrlContentType", "from", "maxRetries", "projectId", "serviceId"),
        "config",
    ),
}
"""What the body of a refusal blames, a field or a reason -> canonical cause."""

STATES: Mapping[str, State] = {
    "QUEUED": State.ACCEPTED,
    "IN_PROGRESS": State.PROGRESS,
    "COMPLETED": State.DELIVERED,
    "FAILURE": State.FAILED,
}
"""A COMPLETED fax may carry the error of an
earlier call: the status counts (sinch-sdk-node, faxes-api.test.ts)."""

LABEL = "faxbot"
END = (State.DELIVERED, State.FAILED)
CALLBACK_STATUS = 800
"""Sinch's "non-HTTP" number of a callback address that it cannot connect to."""
# As printed in Sinch's documents, bodies of refusals are not all JSON.
_NAMED = re.compile(rb'\b(?:field|reason)"?\s*:\s*"(\w{1,63})"')
NOT_FOUND = re.compile(rb'"code"\s*:\s*"?404\b')
_NO_WAY_BACK = re.compile(rb'"error"\s*:\s*"Could not connect to URL')
INBOUND = "INBOUND"


def accepted(reply: HttpReply) -> Any:
    """The content of a 2xx answer; raises what any other status means."""
    if 200 <= reply.status < 300:
        return reply.json()
    raise refused(reply)


def refused(reply: HttpReply) -> ProviderError:
    """What a refusal means: by its status, because the `code` in its body may be another (a 400
    says 404), and its cause by what the body blames. A setting that is wrong holds every fax."""
    mine = 400 <= reply.status < 500 or reply.status == CALLBACK_STATUS
    words = (word.decode() for word in _NAMED.findall(reply.body) if mine)
    cause = next((BLAMED[word] for word in words if word in BLAMED), None)
    no_way_back = mine and _NO_WAY_BACK.search(reply.body) is not None
    if no_way_back or cause == "config":
        return AccountRefused(
            f"The carrier refuses a setting, with HTTP status {reply.status}"
            + (": it cannot connect to PUBLIC_API_URL." if no_way_back else "."),
            cause="config",
        )
    return refusal(
        reply.status,
        reply.headers,
        cause=cause,
        blames_destination=cause in ("number_invalid", "policy"),
    )


def created(reply: HttpReply, tag: str) -> Mapping[str, Any]:
    """The fax that was made of a submission. The answer is that fax, or a list with it, or
    {"faxes": [...]}: the documents and SDKs have all three."""
    answer = accepted(reply)
    found = answer.get("faxes", answer) if isinstance(answer, dict) else answer
    faxes = [object_in(fax) for fax in (found if isinstance(found, list) else [found])]
    ours = [fax for fax in faxes if label(fax) == tag] or [
        fax for fax in faxes if label(fax) is None
    ]
    if len(ours) != 1:
        raise OutcomeUnknown("The carrier's answer is not about this one fax.")
    return ours[0]


def next_page(page: Mapping[str, Any]) -> int | None:
    """The page after this one, None after the last. It is called `page`, in the .NET SDK
    `pageNumber`."""
    number, pages = page.get("page", page.get("pageNumber")), page.get("totalPages")
    if type(number) is not int or type(pages) is not int:
        raise OutcomeUnknown("The carrier's list of faxes does not say whether it is whole.")
    return number + 1 if number < pages else None


def state_of(fax: Mapping[str, Any]) -> State:
    """Where the fax stands; a word that nobody knows says only that Sinch has it."""
    return STATES.get(str(fax.get("status")), State.ACCEPTED)


def update(fax: object) -> Update:
    """News from a fax as Sinch describes it; raises OutcomeUnknown where that cannot be told."""
    facts = object_in(fax)
    external_id = id_in(facts)
    state = state_of(facts)
    pages = count_in(facts.get("pagesSentSuccessfully"))
    if state is State.DELIVERED and not pages:
        pages = None  # a fax of no pages is none: the count is not told
    return Update(
        state,
        external_id=external_id,
        tag=label(facts),
        cause=_cause(facts, pages) if state is State.FAILED else None,
        pages_sent=pages,
        occurred_at=moment(facts.get("completedTime")),
        # The same news has the same name, whether it was called back (twice) or asked for.
        key=f"{external_id}:{state}:{'-' if pages is None else pages}",
    )


def arrival(fax: Mapping[str, Any], *, documents: int) -> Arrival:
    """A received fax that has ended, from Sinch's record of it, and of how many `documents` came
    with its webhook: only one alone is its document. Raises OutcomeUnknown where it has no id."""
    failed = state_of(fax) is State.FAILED
    return Arrival(
        id_in(fax),
        sender=number_in(fax.get("from")),
        recipient=number_in(fax.get("to")),
        pages=count_in(fax.get("numberOfPages")),
        cause=_cause(fax, None) if failed else None,
        attached=documents == 1 and not failed,
        received_at=moment(fax.get("completedTime")),
    )


def keeps_none(fax: Mapping[str, Any]) -> bool:
    """Whether Sinch says that it has no copy of the document; text in the Node SDK's tests."""
    return str(fax.get("hasFile")).lower() == "false"


def _cause(fax: Mapping[str, Any], pages: int | None) -> str:
    kind, code = str(fax.get("errorType")), fax.get("errorCode")
    if isinstance(code, str) and re.fullmatch(r"[0-9]{1,4}", code):
        code = int(code)
    known = code is None or type(code) is int
    cause = CAUSES.get((_SAME_TYPE.get(kind, kind), code), "unknown") if known else "unknown"
    # The same word, before and after the first page.
    return "page_failed" if cause == "dropped_early" and pages else cause


def label(fax: Mapping[str, Any]) -> str | None:
    """The tag under which we sent it; None for a fax that is not ours."""
    labels = fax.get("labels")
    mine = labels.get(LABEL) if isinstance(labels, dict) else None
    return mine if isinstance(mine, str) else None
