"""The words of the ledger, as data: job statuses, FAX_* events, which event may move which status, and canonical
causes.

Pure: no imports of ours, no I/O. The database refuses what TRANSITIONS does not hold (a trigger over PAIRS);
docs/events.md is compared with this module by a test.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

SCHEMA_VERSION = 1
DEFAULT_ACCOUNT = "default"


class Status(StrEnum):
    """Where a fax stands; always the fold of its events."""

    QUEUED = "queued"
    SUBMITTING = "submitting"
    SENT = "sent"
    RETRYING = "retrying"
    HELD = "held"
    UNCERTAIN = "uncertain"
    DELIVERED = "delivered"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


TERMINAL = frozenset({Status.DELIVERED, Status.FAILED, Status.CANCELLED, Status.EXPIRED})
OPEN = tuple(status for status in Status if status not in TERMINAL)
CLAIMABLE = (Status.QUEUED, Status.RETRYING)
"""Before the intent: a worker may claim the job and a person may cancel it at once."""
AFTER_INTENT = (Status.SUBMITTING, Status.SENT, Status.UNCERTAIN)
"""The carrier may have it: a cancel is kept and passed on."""


STATUS_MEANING: dict[Status, str] = {
    Status.QUEUED: "accepted and recorded; it waits for a worker, or for its `send_at`",
    Status.SUBMITTING: "being handed to the carrier",
    Status.SENT: "the carrier has it and works on it",
    Status.RETRYING: "a try is over, the next one is planned",
    Status.HELD: "it waits for something outside, which `status_reason` names",
    Status.UNCERTAIN: "whether the carrier has it is not known; it is looked up, never sent blindly",
    Status.DELIVERED: "all pages are confirmed by the receiving machine; final",
    Status.FAILED: "it will not be tried again; final",
    Status.CANCELLED: "it was cancelled as asked; final",
    Status.EXPIRED: "its `expires_at` passed before it could be sent; final",
}


class Event(StrEnum):
    """What happened to a fax; rows of the results table carry these names."""

    QUEUED = "FAX_QUEUED"
    SUBMITTING = "FAX_SUBMITTING"
    SENT = "FAX_SENT"
    PROGRESS = "FAX_PROGRESS"
    DELIVERED = "FAX_DELIVERED"
    RETRYING = "FAX_RETRYING"
    FAILED = "FAX_FAILED"
    UNCERTAIN = "FAX_UNCERTAIN"
    RECONCILED = "FAX_RECONCILED"
    DECIDED = "FAX_DECIDED"
    HELD = "FAX_HELD"
    RELEASED = "FAX_RELEASED"
    CANCEL_REQUESTED = "FAX_CANCEL_REQUESTED"
    CANCELLED = "FAX_CANCELLED"
    EXPIRED = "FAX_EXPIRED"
    ANOMALY = "FAX_ANOMALY"
    PURGED = "FAX_PURGED"
    RECEIVED = "FAX_RECEIVED"
    RECEIVE_FAILED = "FAX_RECEIVE_FAILED"


EVENT_MEANING: dict[Event, str] = {
    Event.QUEUED: "the fax is accepted and recorded",
    Event.SUBMITTING: "the intent to call the provider is recorded; the call follows",
    Event.SENT: "the carrier has the fax",
    Event.PROGRESS: "the carrier reported pages or a new stage",
    Event.DELIVERED: "all pages are confirmed by the receiving machine",
    Event.RETRYING: "this attempt is over, another one is planned",
    Event.FAILED: "the fax will not be tried again",
    Event.UNCERTAIN: "whether the carrier has the fax is not known; it is being looked up",
    Event.RECONCILED: "the look-up settled an uncertain outcome",
    Event.DECIDED: "a person settled an uncertain outcome, with a reason",
    Event.HELD: "the fax waits for something outside: see the reason",
    Event.RELEASED: "holding is over",
    Event.CANCEL_REQUESTED: "a cancel was asked for after the carrier was called",
    Event.CANCELLED: "cancelled as asked",
    Event.EXPIRED: "its deadline passed before it could be sent",
    Event.ANOMALY: "news that contradicts what is known: kept, never applied; an open fax is held for it",
    Event.PURGED: "retention removed its document, or its numbers: see the reason",
    Event.RECEIVED: "somebody sent this fax to us, and its document is stored",
    Event.RECEIVE_FAILED: "somebody tried to send us a fax, and there is no document of it: see the cause",
}


class Reception(StrEnum):
    """Where a received fax stands."""

    FETCHING = "fetching"
    RECEIVED = "received"
    FAILED = "failed"


RECEPTION_MEANING: dict[Reception, str] = {
    Reception.FETCHING: "it is known to have come, and its document is being fetched; `error` says what hinders",
    Reception.RECEIVED: "its document is stored; final",
    Reception.FAILED: "it failed on its way, or nobody has its document: see the cause",
}


class ProviderEvent(StrEnum):
    """What happened to a provider; rows of its history carry these names."""

    DEGRADED = "PROVIDER_DEGRADED"
    RECOVERED = "PROVIDER_RECOVERED"
    PAUSED = "PROVIDER_PAUSED"
    RESUMED = "PROVIDER_RESUMED"
    PLUGIN_FAILED = "PLUGIN_FAILED"
    PLUGIN_DISABLED = "PLUGIN_DISABLED"
    PLUGIN_ENABLED = "PLUGIN_ENABLED"
    ACTIVATED = "PROVIDER_ACTIVATED"
    DEACTIVATED = "PROVIDER_DEACTIVATED"
    CONFIGURED = "PROVIDER_CONFIGURED"


PROVIDER_EVENT_MEANING: dict[ProviderEvent, str] = {
    ProviderEvent.DEGRADED: "calls to the carrier fail, or it refuses the account: see the reason",
    ProviderEvent.RECOVERED: "calls go well again, or a person has reset its breaker",
    ProviderEvent.PAUSED: "a person lets nothing be sent through it for now",
    ProviderEvent.RESUMED: "the pause is over",
    ProviderEvent.PLUGIN_FAILED: "its plugin's own code raised, or took too long: the reason says which",
    ProviderEvent.PLUGIN_DISABLED: "its plugin failed too often and is not asked any more until a person enables it",
    ProviderEvent.PLUGIN_ENABLED: "a person has enabled its plugin again",
    ProviderEvent.ACTIVATED: "a person has given it a slot: the reason says which",
    ProviderEvent.DEACTIVATED: "a person has taken it out of a slot: the reason says which",
    ProviderEvent.CONFIGURED: "a person has changed its settings; `untested`: without a test that went well",
}


@dataclass(frozen=True, slots=True)
class Transition:
    """One allowed change: `event` moves a fax from `source` (None: it does not exist yet) to `target`."""

    source: Status | None
    target: Status
    event: Event
    only_if: str


def _from(
    sources: Iterable[Status], target: Status, event: Event, only_if: str
) -> list[Transition]:
    return [Transition(source, target, event, only_if) for source in sources]


TRANSITIONS: tuple[Transition, ...] = (
    Transition(None, Status.QUEUED, Event.QUEUED, "the submit transaction"),
    *_from(
        CLAIMABLE,
        Status.SUBMITTING,
        Event.SUBMITTING,
        "claimed, due, not expired, document rendered, attempt row with tag committed",
    ),
    *_from(
        CLAIMABLE,
        Status.HELD,
        Event.HELD,
        "nothing usable to send with, this server cannot prepare it, it may have been delivered, or a person holds it",
    ),
    *_from(
        CLAIMABLE,
        Status.FAILED,
        Event.FAILED,
        "the document cannot be rendered, or was the death of three workers: nothing was sent",
    ),
    *_from(
        (Status.SUBMITTING, Status.SENT),
        Status.HELD,
        Event.HELD,
        "the account was refused or has no funds, or an earlier attempt may have been delivered",
    ),
    Transition(
        Status.HELD,
        Status.QUEUED,
        Event.RELEASED,
        "the reason is gone, or enough time has passed to see whether it is",
    ),
    Transition(
        Status.SUBMITTING,
        Status.SENT,
        Event.SENT,
        "the carrier has it: its id is known, or it has called back under our tag",
    ),
    Transition(
        Status.SUBMITTING, Status.RETRYING, Event.RETRYING, "a refusal that proves nothing was sent"
    ),
    Transition(
        Status.SUBMITTING, Status.FAILED, Event.FAILED, "document or number refused for good"
    ),
    Transition(
        Status.SUBMITTING, Status.UNCERTAIN, Event.UNCERTAIN, "the outcome of the call is not known"
    ),
    Transition(
        Status.UNCERTAIN,
        Status.SENT,
        Event.SENT,
        "the look-up found the tag, or an authenticated callback carries this attempt's locator",
    ),
    Transition(
        Status.UNCERTAIN,
        Status.RETRYING,
        Event.RECONCILED,
        "absent twice after the settle time, and the provider's absence is proof",
    ),
    *(
        Transition(Status.UNCERTAIN, target, Event.DECIDED, "a named person decided, with a reason")
        for target in (Status.DELIVERED, Status.FAILED, Status.RETRYING)
    ),
    Transition(
        Status.SENT, Status.DELIVERED, Event.DELIVERED, "final success, all pages confirmed"
    ),
    Transition(Status.SENT, Status.RETRYING, Event.RETRYING, "final, retryable, budget left"),
    Transition(Status.SENT, Status.FAILED, Event.FAILED, "final, permanent or budget spent"),
    Transition(
        Status.SENT,
        Status.UNCERTAIN,
        Event.UNCERTAIN,
        "the provider has no record of it, or nothing final for 24 hours",
    ),
    *_from(
        (*CLAIMABLE, Status.HELD), Status.CANCELLED, Event.CANCELLED, "asked for by owner or admin"
    ),
    *_from(
        AFTER_INTENT,
        Status.CANCELLED,
        Event.CANCELLED,
        "a cancel was asked for, and the outcome is anything but delivery",
    ),
    *_from((*CLAIMABLE, Status.HELD), Status.EXPIRED, Event.EXPIRED, "past expires_at"),
)

KEEPS_STATUS = frozenset(
    {Event.PROGRESS, Event.RECONCILED, Event.CANCEL_REQUESTED, Event.ANOMALY, Event.PURGED}
)
"""Events that may stand in a timeline without moving the status."""

ENDS = frozenset({Event.DELIVERED, Event.FAILED, Event.CANCELLED, Event.EXPIRED, Event.DECIDED})
"""With which a fax may come to its end; others that come later leave it as it is."""

PAIRS = frozenset((change.source, change.target) for change in TRANSITIONS)
_MOVES = frozenset((change.source, change.target, change.event) for change in TRANSITIONS)


def allowed(source: Status | None, target: Status, event: Event) -> bool:
    """Whether `event` may take a fax from `source` to `target`."""
    if source is target:
        return event in KEEPS_STATUS
    return (source, target, event) in _MOVES


def fold(history: Iterable[tuple[Event, Status]]) -> Status | None:
    """The status a timeline adds up to; raises ValueError where a step is not allowed."""
    status: Status | None = None
    for event, target in history:
        if not allowed(status, target, event):
            raise ValueError(f"{event} may not lead from {status} to {target}")
        status = target
    return status


class Retry(StrEnum):
    """What a cause says about trying again (the schedules are in retry.py)."""

    NEVER = "never"
    AGAIN = "again"
    HOLD = "hold"
    VERIFY = "verify"
    """Not by faxbot: part of it may have gone out, or nobody knows why it did not."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why an attempt ended as it did: a canonical code, what it means for a retry, a sentence for people."""

    code: str
    retry: Retry
    sentence: str

    @property
    def retryable(self) -> bool:
        """Whether the same fax may go through another time, whoever sends it then."""
        return self.retry is not Retry.NEVER


CAUSES: dict[str, Cause] = {
    cause.code: cause
    for cause in (
        Cause("busy", Retry.AGAIN, "The line was busy."),
        Cause("no_answer", Retry.AGAIN, "Nobody answered."),
        Cause("no_fax_tone", Retry.AGAIN, "No fax machine answered; check the number."),
        Cause("dropped_early", Retry.AGAIN, "The call dropped before the first page."),
        Cause("number_invalid", Retry.NEVER, "The number is not valid."),
        Cause("number_dead", Retry.NEVER, "The number is not in service."),
        Cause("rejected", Retry.AGAIN, "The call was refused."),
        Cause("unreachable", Retry.AGAIN, "The destination cannot be reached."),
        Cause("no_route", Retry.AGAIN, "There is no route to this destination."),
        Cause(
            "trunk_denied", Retry.HOLD, "The carrier refused the account; an operator must look."
        ),
        Cause("funds", Retry.HOLD, "The carrier account is out of funds."),
        Cause("congestion", Retry.AGAIN, "The carrier is busy; waiting for a free line."),
        Cause("trunk_down", Retry.AGAIN, "The carrier could not be reached."),
        Cause("network_error", Retry.AGAIN, "The network failed during the call."),
        Cause("bearer", Retry.AGAIN, "The line cannot carry a fax this way."),
        Cause("t38_failed", Retry.AGAIN, "Fax over IP failed on this line."),
        Cause("handshake_failed", Retry.AGAIN, "The machines could not agree on a speed."),
        Cause("page_failed", Retry.AGAIN, "A page failed in the middle of the call."),
        Cause(
            "incompatible_image",
            Retry.AGAIN,
            "The receiving machine cannot take this page format.",
        ),
        Cause("remote_refused", Retry.NEVER, "The receiving machine refused the fax."),
        Cause("session_timeout", Retry.AGAIN, "The fax call took too long."),
        Cause(
            "doc_unreadable",
            Retry.NEVER,
            "The document cannot be faxed: it has no readable pages, or the carrier refused it.",
        ),
        Cause("doc_fetch_failed", Retry.AGAIN, "The carrier could not fetch the document."),
        Cause("doc_too_large", Retry.NEVER, "The document is too large for the carrier."),
        Cause("doc_empty", Retry.NEVER, "The document has no pages."),
        Cause("config", Retry.HOLD, "A setting of the provider is wrong; an operator must look."),
        Cause("system", Retry.VERIFY, "The carrier had an internal fault."),
        Cause("policy", Retry.NEVER, "A rule forbids this fax."),
        Cause("poison", Retry.NEVER, "Preparing this fax stopped three workers; it is set aside."),
        Cause("exhausted", Retry.NEVER, "All tries are used up."),
        Cause("expired", Retry.NEVER, "The deadline passed."),
        Cause("cancelled", Retry.NEVER, "It was cancelled."),
        Cause("unconfirmed", Retry.VERIFY, "Whether it went is not known."),
        Cause("unknown", Retry.VERIFY, "The carrier gave a reason that faxbot does not know."),
    )
}

HOLD_REASONS: dict[str, str] = {
    "no_provider": (
        "no provider may take it: set FAX_BACKENDS to what is installed and configured, "
        "and keep there what had the fax before"
    ),
    "disabled": "sending is switched off (by FAX_DISABLED, among the settings)",
    "account_refused": "the carrier refused the account: check credentials and funds",
    "provider_failing": "calls to the carrier fail: it rests, then single faxes try it, and the others follow",
    "paused": "the provider is paused: resume it (faxbot providers resume)",
    "plugin_disabled": (
        "the provider's plugin failed too often and was disabled: have it mended, then enable it "
        "(faxbot providers enable)"
    ),
    "restored": (
        "the ledger was restored from a backup, and the carrier is asked whether this was sent since; where it cannot "
        "say that for sure, look at the carrier's own page, or ask the receiver: release what was not sent, and cancel "
        "what was; its deadline does not end it before"
    ),
    "document_gone": "the stored document cannot be read: check the storage",
    "fault": "this server fails to prepare it: the worker's log says why; it is tried again every hour",
    "said_delivered": (
        "the carrier reported a failure and then that it was delivered: a second try might be a second fax"
    ),
    "said_accepted": (
        "the carrier works on it after all, or has it twice: a second try might be a second fax"
    ),
    "asked": "a person holds it: release it (faxbot release)",
}
ASKED = "asked"
"""Of HOLD_REASONS the one that nothing ends but a person, or the fax's deadline."""


# What people are told -------------------------------------------------------------------------------


class Notable(StrEnum):
    """What people may be told of a fax (notices.py); a notification plugin's setting `events` names some of these."""

    DELIVERED = "delivered"
    FAILED = "failed"
    RECEIVED = "received"
    RECEIVE_FAILED = "receive_failed"
    HELD = "held"


NOTABLE_MEANING: dict[Notable, str] = {
    Notable.DELIVERED: "A fax was delivered.",
    Notable.FAILED: "A fax was not delivered, and will not be tried again.",
    Notable.RECEIVED: "A fax was received.",
    Notable.RECEIVE_FAILED: "Somebody tried to send a fax to us, and there is no document of it.",
    Notable.HELD: "A fax waits for a person.",
}
WAIT_ENDS: dict[Status, tuple[str, ...]] = {
    Status.UNCERTAIN: tuple(each.value for each in Status if each is not Status.UNCERTAIN),
    # One that is let go, tried and held again has waited all the time, unless a carrier took it.
    Status.HELD: (Status.SENT.value, Status.UNCERTAIN.value),
}
"""The statuses in which a fax waits, if not for long, and those that end the wait: one that lasts is for a person."""
FOR_A_PERSON = frozenset({"said_delivered", "said_accepted"})
"""Of HOLD_REASONS those that are for a person at once."""
IN_DOUBT = FOR_A_PERSON | {"restored"}
"""Of HOLD_REASONS those of faxes that may have arrived: what is let go may arrive a second time."""
_NOTABLE: dict[tuple[str, str], Notable] = {
    (Event.DELIVERED, Status.DELIVERED): Notable.DELIVERED,
    (Event.DECIDED, Status.DELIVERED): Notable.DELIVERED,
    (Event.FAILED, Status.FAILED): Notable.FAILED,
    (Event.DECIDED, Status.FAILED): Notable.FAILED,
    (Event.EXPIRED, Status.EXPIRED): Notable.FAILED,
    (Event.RECEIVED, Reception.RECEIVED): Notable.RECEIVED,
    (Event.RECEIVE_FAILED, Reception.FAILED): Notable.RECEIVE_FAILED,
}


def may_be_notable(event: str) -> bool:
    """Whether people may ever be told of such an event."""
    return event == Event.HELD or any(event == each for each, _ in _NOTABLE)


def notable(event: str, status: str, reason: str | None) -> Notable | None:
    """What people may be told as soon as such an event is recorded. Who cancels a fax knows it, and most waits end by
    themselves (WAIT_ENDS)."""
    if event == Event.HELD and reason in FOR_A_PERSON:
        return Notable.HELD
    return _NOTABLE.get((event, status))
