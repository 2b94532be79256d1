"""The test numbers of the stand-in Phaxio, and the vendor's error types and ids they lead to.

The last four digits of a number choose. An ending of 0 and three digits is in OUTCOMES; one of 1 to
5 and three digits is an error type and an id (`2017` is lineError 17) where the vendor has that id,
or where it is 999, which nobody has. Every other ending succeeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

DOCUMENT = "documentConversionError"
LINE = "lineError"
FAX = "faxError"
FATAL = "fatalError"
GENERAL = "generalError"
TYPES: Mapping[str, str] = {"1": DOCUMENT, "2": LINE, "3": FAX, "4": FATAL, "5": GENERAL}
"""By the first of the four digits."""


@dataclass(frozen=True, slots=True)
class ErrorClass:
    """A class of failures: the ids of each type, and a text where the vendor's own is not known."""

    text: str
    ids: Mapping[str, tuple[int, ...]]


# fmt: off
CLASSES = (
    ErrorClass("Busy", {LINE: (15, 17, 35, 74, 90, 98, 101, 102, 111, 118, 124)}),
    ErrorClass("No answer", {LINE: (16, 30, 39, 87, 94, 112), FAX: (48,)}),
    ErrorClass("Call dropped", {
        LINE: (11, 19, 36, 37, 43, 56, 58, 59, 61, 62, 64, 81, 83, 88, 89, 93, 96, 97, 99, 100,
               103, 104, 106, 108, 110, 114),
        FAX: (40, 42, 44, 78)}),
    ErrorClass("Fax protocol error", {
        FAX: (6, 8, 10, 12, 13, 14, 18, 20, 21, 22, 26, 28, 29, 38, 41, 53, 60, 63, 65, 66, 67,
              70, 72, 77, 80, 82, 84, 117, 131)}),
    ErrorClass("No fax tone", {FAX: (132,)}),
    ErrorClass("Service error", {FATAL: (9, 24), FAX: (76,)}),
    ErrorClass("Number not in service", {LINE: (34, 47, 49, 91, 116, 123)}),
    ErrorClass("Number changed", {LINE: (73, 115)}),
    ErrorClass("Call rejected", {LINE: (50, 85)}),
    ErrorClass("Phone number is not permitted", {FAX: (133,)}),
    ErrorClass("Incompatible destination", {LINE: (32, 71, 92, 95), FAX: (7, 25, 31, 33, 45, 68)}),
    ErrorClass("No route to destination", {LINE: (52,)}),
    ErrorClass("Document conversion failed", {DOCUMENT: (4, 51, 55, 69, 128, 129, 130, 133)}),
    ErrorClass("File deleted", {FAX: (113,)}),
    ErrorClass("Could not fetch document", {DOCUMENT: (54, 57)}),
    ErrorClass("Insufficient funds", {GENERAL: (5, 86, 105, 125), FAX: (46,)}),
    ErrorClass("Unknown error", {GENERAL: (3,)}),
    ErrorClass("Error in the final stages", {FATAL: (23,)}),
    ErrorClass("Fax canceled by user", {FAX: (75,)}),
    ErrorClass("Could not cancel fax", {FAX: (79,)}),
    ErrorClass("Call dropped prematurely", {LINE: (107, 109)}),
    ErrorClass("Simulated error", {
        LINE: (121,), FAX: (119,), DOCUMENT: (122,), GENERAL: (120,), FATAL: (126,)}),
)
# fmt: on
"""The classes of the vendor's pages errors and errorMessages (phaxio.com/docs), and of an older
public copy of that table."""

TEXTS: Mapping[tuple[str, int], str] = {
    (DOCUMENT, 133): "Failed to normalize PDF document",
    (FAX, 8): "No response after sending a page",
}
"""Texts of the vendor's that differ from their class's."""

SIMULATED: Mapping[str, int] = {LINE: 121, FAX: 119, DOCUMENT: 122, GENERAL: 120, FATAL: 126}
"""What `test_fail` leads to, by the type that it names."""


@dataclass(frozen=True, slots=True)
class Error:
    """Why a fax failed, as its object says it; all None where the vendor does not say."""

    type: str | None
    id: int | None
    message: str | None


ERRORS: Mapping[tuple[str, int], Error] = {
    (kind, number): Error(kind, number, TEXTS.get((kind, number), each.text))
    for each in CLASSES
    for kind, numbers in each.ids.items()
    for number in numbers
}

BUSY = ERRORS[LINE, 17]
CANCELED = ERRORS[FAX, 75]
EXPIRED = ERRORS[FAX, 76]
CANCEL_TOO_LATE = ERRORS[FAX, 79]
FILE_DELETED = ERRORS[FAX, 113]
NOT_FETCHED = ERRORS[DOCUMENT, 54]
UNSUPPORTED = ERRORS[DOCUMENT, 128]
UNREADABLE = ERRORS[DOCUMENT, 133]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a number's last digits bring about.

    `error`: it fails so. `status`: its last status, where that is neither success nor failure.
    `midway`: a status before the end that no list has. `redialled`: busy at first. `missing`: pages
    that the object of a successful fax does not count. `stays`: in progress until it is cancelled.
    `cancel_fails`: a cancellation is scheduled and comes too late. `refused` and `reply` are names
    of words.REFUSALS: how a submission is answered that is not taken, or that is (`id`: as it should
    be). `callbacks`: `once`, `twice`, `late`, `reordered` or `none`. `listed_late`: a list does not
    show it at first. `seconds_refused`: after them the refusal is over.
    """

    meaning: str
    error: Error | None = None
    status: str | None = None
    midway: str = "inprogress"
    redialled: bool = False
    missing: int = 0
    stays: bool = False
    cancel_fails: bool = False
    refused: str = ""
    seconds_refused: float | None = None
    reply: str = "id"
    callbacks: str = "once"
    listed_late: bool = False


_UNTIL_2_SECONDS = "; taken once 2 seconds have passed since the first try"

OUTCOMES: Mapping[str, Outcome] = {
    "0000": Outcome("succeeds, like every number that has no meaning of its own"),
    # the fax
    "0017": Outcome("busy at first, redialled by the vendor, succeeds", redialled=True),
    "0048": Outcome("succeeds, and `num_pages` is a page less than was sent", missing=1),
    "0055": Outcome(
        "in progress until it is cancelled or its `cancel_timeout` is over", stays=True
    ),
    "0079": Outcome(
        "a cancellation is scheduled and comes too late: succeeds with faxError 79",
        cancel_fails=True,
    ),
    "0088": Outcome("ends as `partialsuccess`", ERRORS[FAX, 8], status="partialsuccess"),
    "0097": Outcome("has a status that no list has on its way, then succeeds", midway="holding"),
    "0098": Outcome("fails without error type, id and text", Error(None, None, None)),
    "0099": Outcome(
        "fails with an error type that no list has", Error("newError", 1, "Unheard of")
    ),
    # the submission
    "0200": Outcome("200 with `success: false`; nothing accepted", refused="refused_with_200"),
    "0400": Outcome("422, the number is invalid; nothing accepted", refused="number_invalid"),
    "0401": Outcome("401; nothing accepted", refused="auth_failure"),
    "0404": Outcome("404; nothing accepted", refused="not_found"),
    "0422": Outcome("422, no reason given; nothing accepted", refused="invalid_entity"),
    "0429": Outcome(
        "429 without Retry-After" + _UNTIL_2_SECONDS, refused="rate_limited", seconds_refused=2
    ),
    "0430": Outcome(
        "429 with Retry-After 2" + _UNTIL_2_SECONDS,
        refused="rate_limited_until",
        seconds_refused=2,
    ),
    "0433": Outcome(
        "422, the number is not permitted; nothing accepted", refused="number_not_permitted"
    ),
    "0500": Outcome("500 as JSON without accepting", refused="service_failure"),
    "0501": Outcome("500 as JSON after accepting; then succeeds", reply="service_failure"),
    "0502": Outcome("500 as plain text without accepting", refused="service_failure_text"),
    "0503": Outcome("an empty 503 without accepting", refused="unavailable"),
    "0504": Outcome("accepted, the reply is lost: the connection drops; succeeds", reply="drop"),
    "0505": Outcome(
        "accepted, the reply is lost, and a list shows it late; succeeds",
        reply="drop",
        listed_late=True,
    ),
    "0506": Outcome("500 as plain text after accepting; succeeds", reply="service_failure_text"),
    "0507": Outcome("an empty 503 after accepting; succeeds", reply="unavailable"),
    "0508": Outcome("no answer at all, nothing accepted", refused="hang"),
    "0509": Outcome("accepted, and no answer comes; succeeds", reply="hang"),
    "0510": Outcome(
        "accepted, and neither answer nor callback comes; succeeds", reply="hang", callbacks="none"
    ),
    "0511": Outcome("accepted, and a 200 that is no JSON; succeeds", reply="unreadable"),
    "0512": Outcome("accepted, and a 200 without an id; succeeds", reply="without_id"),
    # the callbacks
    "0022": Outcome("succeeds, every callback comes twice", callbacks="twice"),
    "0033": Outcome("succeeds, the last callback comes late", callbacks="late"),
    "0044": Outcome("succeeds, no callback ever: it must be asked for", callbacks="none"),
    "0066": Outcome(
        "succeeds, an old `retry_scheduled` comes after the end", callbacks="reordered"
    ),
}

UNHEARD_OF = 999
"""An id that no type has."""


def outcome(last_digits: str) -> Outcome:
    """What happens to a fax to a number with these last four digits."""
    kind = TYPES.get(last_digits[:1])
    number = int(last_digits[1:]) if kind else 0
    if kind and number == UNHEARD_OF:
        return Outcome("", Error(kind, number, "Unheard of"))
    if kind and (kind, number) in ERRORS:
        return Outcome("", ERRORS[kind, number])
    return OUTCOMES.get(last_digits, OUTCOMES["0000"])


def simulated(kind: str) -> Error:
    """What `test_fail` with this error type leads to."""
    return ERRORS[kind, SIMULATED[kind]]
