"""The test numbers of the stand-in Sinch: what the last four digits of a number bring about.

An ending of 0 and three digits is in OUTCOMES. One of 1 to 6 and three digits is an error type and
an error code, whatever the code (`2017` is CALL_ERROR 17). Every other ending is delivered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

DOCUMENT = "DOCUMENT_CONVERSION_ERROR"
CALL = "CALL_ERROR"
FAX = "FAX_ERROR"
FATAL = "FATAL_ERROR"
GENERAL = "GENERAL_ERROR"
LINE = "LINE_ERROR"
TYPES: Mapping[str, str] = {
    "1": DOCUMENT,
    "2": CALL,
    "3": FAX,
    "4": FATAL,
    "5": GENERAL,
    "6": LINE,
}
"""By the first of the four digits. LINE_ERROR is not in the vendor's list and occurs all the same."""

_NOT_REDIALLED: Mapping[str, frozenset[int]] = {
    # dead, changed, refusing, no fax; no route; simulated
    CALL: frozenset((34, 47, 49, 91, 116, 123, 73, 115, 50, 85, 32, 71, 92, 95, 52, 121)),
    # pages that cannot be taken, money, ends that somebody wished, not permitted; simulated
    FAX: frozenset((7, 25, 31, 33, 45, 68, 113, 46, 75, 76, 79, 133, 119)),
}
_AFTER_PAGES = frozenset((21, 29, 53, 60, 84, 131))
_TEXTS: Mapping[tuple[str, int], str] = {
    (CALL, 16): "No answer",
    (CALL, 17): "Busy",
    (CALL, 34): "The number is not in service",
    (CALL, 50): "The call was rejected",
    (DOCUMENT, 54): "Could not fetch the content",
    (DOCUMENT, 128): "Unsupported file type",
    (DOCUMENT, 133): "Failed to normalize PDF document",
    (FAX, 75): "Canceled",
    (FAX, 113): "The file was deleted",
    (FAX, 117): "No pages received",
    (FAX, 132): "No fax tone",
    (FAX, 133): "Phone number is not permitted",
    (GENERAL, 5): "Insufficient funds",
    (LINE, 89): "The call dropped prematurely",
}


@dataclass(frozen=True, slots=True)
class Error:
    """Why a call failed, as the fax says it; None where it does not say."""

    type: str | None
    code: int | None
    message: str | None

    @property
    def is_redialled(self) -> bool:
        """Whether the vendor tries again by itself, as often as `maxRetries` allows."""
        final = _NOT_REDIALLED.get(CALL if self.type == LINE else self.type or "")
        return final is not None and self.code not in final

    @property
    def comes_after_a_page(self) -> bool:
        """Whether the receiver holds part of the fax by then."""
        return self.type == FAX and self.code in _AFTER_PAGES


def error(kind: str, code: int) -> Error:
    """The error of this type and code, in words."""
    return Error(kind, code, _TEXTS.get((kind, code), f"Error {code}"))


FILE_DELETED = error(FAX, 113)
NOT_FETCHED = error(DOCUMENT, 54)
UNSUPPORTED = error(DOCUMENT, 128)
UNREADABLE_TIFF = error(DOCUMENT, 129)
UNREADABLE_PDF = error(DOCUMENT, 133)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a number's last digits bring about.

    `error`: every call fails so. `first_error`: the first call does, a redial succeeds.
    `kept_error`: it is completed, and shows the error of an earlier call that nobody asked for.
    `missing`: pages not counted, though it is called completed. `midway`: a status of its own
    before the end. `refused`: the name of a words.refusal() that answers a submission which is not
    taken; `until`: after so many seconds it is. `reply`: how an accepted submission is answered
    (`fax`, or a name that the carrier knows). `callbacks`: `once`, `twice`, `late`, `reordered`,
    `false` or `none`. `listed_late`, `read_late`: a list, or every read, is behind at first.
    """

    meaning: str
    error: Error | None = None
    first_error: Error | None = None
    kept_error: Error | None = None
    missing: int = 0
    midway: str = "IN_PROGRESS"
    refused: str = ""
    until: float | None = None
    reply: str = "fax"
    callbacks: str = "once"
    listed_late: bool = False
    read_late: bool = False


_THROTTLE = "; taken once 2 seconds have passed since the first try"

OUTCOMES: Mapping[str, Outcome] = {
    "0000": Outcome("delivered, like every number that has no meaning of its own"),
    # the fax
    "0089": Outcome(
        "the first call fails with LINE_ERROR 89, the vendor's own redial delivers; the error stays",
        first_error=error(LINE, 89),
    ),
    "0090": Outcome(
        "COMPLETED with LINE_ERROR 89, whatever `maxRetries` is", kept_error=error(LINE, 89)
    ),
    "0048": Outcome("COMPLETED, and a page less is counted", missing=1),
    "0097": Outcome("has a status that no list has on its way; then delivered", midway="PAUSED"),
    "0098": Outcome("FAILURE without any error field", Error(None, None, None)),
    "0099": Outcome("FAILURE with a type that no list has", Error("GREMLIN_ERROR", 1, "Gremlins")),
    "0094": Outcome("FAILURE with FATAL_ERROR and no code", Error(FATAL, None, None)),
    "0095": Outcome("FAILURE with GENERAL_ERROR and no code", Error(GENERAL, None, None)),
    # the submission
    "0400": Outcome("400; nothing accepted", refused="bad_request"),
    "0401": Outcome("401 with an empty body; nothing accepted", refused="unauthorized"),
    "0402": Outcome("402, no money; nothing accepted", refused="payment_required"),
    "0403": Outcome("403, destination blocked; nothing accepted", refused="forbidden"),
    "0404": Outcome("404; nothing accepted", refused="not_found"),
    "0422": Outcome("422, the number is not valid; nothing accepted", refused="number_invalid"),
    "0429": Outcome(
        f"429 without Retry-After, as the vendor{_THROTTLE}", refused="throttled", until=2.0
    ),
    "0430": Outcome(f"429 with Retry-After 2{_THROTTLE}", refused="throttled_until", until=2.0),
    "0500": Outcome("500 without accepting", refused="internal"),
    "0502": Outcome("500 without accepting, no body", refused="internal_empty"),
    "0503": Outcome("503 without accepting, a page of a proxy", refused="unavailable"),
    "0508": Outcome("no answer at all, nothing accepted", refused="hang"),
    "0507": Outcome("the connection drops, nothing accepted", refused="drop"),
    "0800": Outcome("the callback address cannot be reached; nothing accepted", refused="no_url"),
    "0501": Outcome("500 after accepting; then delivered", reply="internal"),
    "0504": Outcome(
        "accepted, the reply is lost: the connection drops; then delivered", reply="drop"
    ),
    "0505": Outcome(
        "accepted, the reply is lost, and a list shows it late; then delivered",
        reply="drop",
        listed_late=True,
    ),
    "0506": Outcome(
        "accepted, the reply is lost; CALL_ERROR 17", error=error(CALL, 17), reply="drop"
    ),
    "0509": Outcome("accepted, and no answer comes; then delivered", reply="hang"),
    "0510": Outcome(
        "accepted, and neither answer nor callback comes; delivered",
        reply="hang",
        callbacks="none",
    ),
    "0201": Outcome("accepted, the answer is a web page; then delivered", reply="page"),
    "0202": Outcome("accepted, 200 without a body; then delivered", reply="empty"),
    "0203": Outcome("accepted, the answer has no id; then delivered", reply="no_id"),
    "0204": Outcome('accepted, the answer is {"faxes": [...]}; then delivered', reply="faxes"),
    "0205": Outcome("accepted, the answer is a bare list; then delivered", reply="list"),
    "0206": Outcome("accepted, the answer ends in the middle; then delivered", reply="cut"),
    # the callbacks
    "0022": Outcome("delivered, the callback comes twice", callbacks="twice"),
    "0033": Outcome("delivered, the callback comes late", callbacks="late"),
    "0044": Outcome("delivered, no callback ever: it must be asked for", callbacks="none"),
    "0066": Outcome(
        "delivered, and news from its way comes after the callback of its end",
        callbacks="reordered",
    ),
    "0077": Outcome(
        "CALL_ERROR 17, and the callback says COMPLETED: only a read shows the truth",
        error=error(CALL, 17),
        callbacks="false",
    ),
    "0078": Outcome("delivered, and reads say IN_PROGRESS for a while yet", read_late=True),
}


def outcome(last_digits: str) -> Outcome:
    """What a number with these last four digits brings about."""
    known = OUTCOMES.get(last_digits)
    if known:
        return known
    kind = TYPES.get(last_digits[:1])
    if kind is None:
        return OUTCOMES["0000"]
    fault = error(kind, int(last_digits[1:]))
    return Outcome(f"{fault.type} {fault.code}", fault)
