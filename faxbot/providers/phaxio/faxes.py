"""What Phaxio says of a fax, in our words: the tables of its codes and statuses, and the news in a
fax object of any version.

Only the status `success` is a delivery; a code that the table does not hold is the cause `unknown`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from faxbot.errors import OutcomeUnknown
from faxbot.plugins.base import Arrival, State, Update
from faxbot.providers.facts import count_in, moment, number_in

_CODES: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "documentConversionError": {
        "doc_unreadable": (4, 51, 55, 69, 122, 128, 129, 130, 133),
        "doc_fetch_failed": (54, 57),  # 57: its own store had a fault, the document has none
    },
    "lineError": {
        "busy": (17, 35, 90, 118),
        "congestion": (15, 74, 98, 101, 102, 111, 124),
        "no_answer": (16, 30, 39, 87, 94, 112),
        "dropped_early": (11, 19, 64, 89, 93, 96, 103, 104, 106, 108, 114),
        "network_error": (36, 37, 56, 58, 59, 61, 62, 81, 83, 88, 97, 99, 100, 110, 121),
        "unreachable": (43,),
        "bearer": (32, 71, 92, 95),
        "number_dead": (34, 47, 49, 73, 91, 115, 116, 123),
        "rejected": (50, 85),
        "no_route": (52,),
        # A dropped call in Phaxio's words, a dead number to those who send much: one more try.
        "no_fax_tone": (107, 109),
    },
    "faxError": {
        "no_fax_tone": (13, 14, 26, 132),
        "handshake_failed": (6, 12, 18, 20, 22, 28, 63, 65, 66, 67, 70, 72, 82, 117, 119),
        "dropped_early": (38, 41, 80),
        "page_failed": (8, 10, 21, 29, 53, 60, 77, 84, 131),
        "incompatible_image": (7, 25, 31, 33, 45, 68),
        "network_error": (40, 42, 44, 78),
        "no_answer": (48,),
        "session_timeout": (76,),  # cancelTimeoutMinutes: too long for that, not for its sender
        "cancelled": (75,),
        "unconfirmed": (79,),  # "already complete", so it is not said how
        "doc_unreadable": (113,),
        "funds": (46,),
        "policy": (133,),
    },
    "fatalError": {
        "trunk_down": (9, 24),  # a fault before the call
        "system": (23, 126),  # 23: "in the final stages", it may have arrived
    },
    "generalError": {"system": (3, 120), "funds": (5, 86, 105, 125)},
}
CAUSES: Mapping[tuple[str, int], str] = MappingProxyType(
    {
        (kind, number): cause
        for kind, causes in _CODES.items()
        for cause, numbers in causes.items()
        for number in numbers
    }
)
"""(error_type, error_id) of a fax that failed -> canonical cause (events.CAUSES); every other one is
`unknown`. An id means nothing without its type: 133 is a document that cannot be read, or a number
that is not permitted. Sources: phaxio.com/docs/errorMessages, and for ids that this page lacks an
older public copy of the same table. 119 to 122 and 126 are what a test key asks for."""

STATES: Mapping[str, State] = MappingProxyType(
    {
        "queued": State.ACCEPTED,
        "pendingbatch": State.ACCEPTED,
        "inprogress": State.PROGRESS,
        "success": State.DELIVERED,
        "failure": State.FAILED,
        "partialsuccess": State.FAILED,
    }
)
"""Phaxio's words for where a fax stands (phaxio.com/docs/statuses); every other word says only that
Phaxio has it."""

TAG = "faxbot"
"""The name of our tag; its value is the attempt's own."""
RECEIVED = "received"
"""The direction of a fax that somebody sent to us."""


def update_of(fax: Mapping[str, Any]) -> Update:
    """News from a fax object of any version; raises OutcomeUnknown where that cannot be told.

    The status decides: a fax that was sent may still carry the error of an earlier call.
    """
    if fax.get("direction") == RECEIVED:
        raise OutcomeUnknown("The carrier's answer is about a received fax.")
    external_id, word = id_of(fax), fax.get("status")
    state = STATES.get(word, State.ACCEPTED) if isinstance(word, str) else State.ACCEPTED
    pages = count_in(fax.get("num_pages"))
    return Update(
        state,
        external_id=external_id,
        tag=tag_of(fax),
        cause=_cause(fax) if state is State.FAILED else None,
        # How many pages the fax has; how many of them went is said of a sent one alone.
        pages_sent=pages if pages and state is State.DELIVERED else None,
        occurred_at=ended_at(fax),
        # The same news has the same name, whether it was called back (twice) or asked for.
        key=f"{external_id}:{state}",
    )


def arrival_of(fax: Mapping[str, Any], *, attached: bool, success: str = "") -> Arrival | None:
    """A received fax from a fax object of any version, None while it is on its way. Raises
    OutcomeUnknown where it cannot be told whether it came.

    The status decides. Where it is a word that nobody knows, the callback's field `success` does
    ("true", "false"), and a document that came is a fax that came.
    """
    external_id, word = id_of(fax), fax.get("status")
    state = STATES.get(word) if isinstance(word, str) else None
    if state is None and (success in ("true", "false") or attached):
        state = State.FAILED if success == "false" else State.DELIVERED
    if state is None:
        raise OutcomeUnknown("The callback does not say whether the fax was received.")
    failed = state is State.FAILED
    if not (failed or state is State.DELIVERED):
        return None
    return Arrival(
        external_id,
        sender=number_in(fax.get("from_number")),
        recipient=number_in(fax.get("to_number")),
        pages=count_in(fax.get("num_pages")),
        cause=_cause(fax) if failed else None,
        attached=attached and not failed,
        received_at=ended_at(fax),
    )


def ended_at(fax: Mapping[str, Any]) -> datetime | None:
    """When its call was over."""
    return _moment(fax.get("completed_at"))


def _cause(fax: Mapping[str, Any]) -> str:
    """Why a fax failed, by the error of the fax, else by that of its one recipient."""
    if fax.get("status") == "partialsuccess":
        return "unconfirmed"  # somebody has it, and it was for one
    recipients = fax.get("recipients")
    first = recipients[0] if isinstance(recipients, list) and recipients else None
    for told in (fax, first if isinstance(first, dict) else {}):
        kind, number = told.get("error_type"), told.get("error_id")
        if isinstance(kind, str) and type(number) is int:
            return CAUSES.get((kind, number), "unknown")
    return "unknown"


def id_of(fax: Mapping[str, Any]) -> str:
    """Phaxio's id, a number; raises OutcomeUnknown where there is none."""
    number = fax.get("id")
    if type(number) is not int or not 0 < number < 10**18:
        raise OutcomeUnknown("The carrier's answer holds no id.")
    return str(number)


def tag_of(fax: Mapping[str, Any]) -> str | None:
    """Our tag; a fax without any may have {}, [] or null."""
    tags = fax.get("tags")
    tag = tags.get(TAG) if isinstance(tags, dict) else None
    return tag if isinstance(tag, str) and tag else None


def _moment(value: object) -> datetime | None:
    """RFC 3339, or seconds since 1970 as version 1 has them."""
    if type(value) is not int:
        return moment(value)
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        return None
