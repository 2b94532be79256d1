"""What mends a failure, for who uses a page, where that is said otherwise than to a program that calls the API; and
where one goes to mend what an alarm is about."""

from __future__ import annotations

from faxbot import alarms
from faxbot.events import Status
from faxbot.web.problems import Problem

_AGAIN = "Send it again in a moment."
_NAMED = "Mend what is named here, and send it again."
_LOAD = "Load the page again, and do it once more."

IN_PAGES = {
    "malformed": _NAMED,
    "unauthenticated": "Check what you typed, or sign in again.",
    "csrf-token": _LOAD,
    "forbidden": "Ask an administrator for a role that may do it.",
    "not-found": "Check the address: what stood there may be gone.",
    "method-not-allowed": "Go on by a link or a button of a page.",
    "change-refused": "Mend what is named here, or, where a test failed, tick that it is to be done all the same.",
    "changed-meanwhile": "Load the page again, and change it then.",
    "fax-removed": "It was sent when the button was pressed first. To send it once more, load the page again.",
    "idempotency-key-in-flight": "It is being done already: look again in a moment.",
    "not-possible-in-this-state": "Load the page again: how it stands says why.",
    "webhook-not-active": "Have it tested: where it takes the test event it is active.",
    "document-too-large": (
        "Send fewer or smaller documents, or have MAX_FILE_SIZE_MB, FAXBOT_MAX_PAGES or FAXBOT_PAGES_PER_DAY raised, "
        "whichever is named here."
    ),
    "media-type": _LOAD,
    "idempotency-key-reused": "It was sent already, with something else in it: load the page again.",
    "invalid-fields": _NAMED,
    "failed-logins": "Too much that was wrong came from your address: wait a while.",
    "pages-per-day": "The day ends at 00:00 UTC. Or have FAXBOT_PAGES_PER_DAY raised.",
    "requests-per-minute": "Wait a minute, or have MAX_REQUESTS_PER_MINUTE raised.",
    "sign-in-crowded": _AGAIN,
    "webhook-tests-crowded": _AGAIN,
    "plugin-tests-crowded": _AGAIN,
    "internal": "Send it again. If it stays, tell the operator the number of the request: it is in the log.",
    "busy": _AGAIN,
    "database-away": _AGAIN,
    "listeners-full": "Close pages that nobody reads, or have FAXBOT_MAX_LISTENERS raised.",
    "storage-away": f"{_AGAIN} `faxbot plugins test` and the log say what is wrong.",
}
"""By the failure's code; of the others a page says what the API says."""

OF_ALARMS = {
    Status.UNCERTAIN.value: "/admin/ui/needs-you",
    Status.HELD.value: "/admin/ui/needs-you",
    alarms.RECEIVED: "/admin/ui/inbound",
    alarms.CALLBACKS: "/admin/ui/providers",
    alarms.MASTER_KEY: "/admin/ui/settings#CONFIG_MASTER_KEY",
    alarms.AUDIT_LOG: "/admin/ui/settings#AUDIT_LOG_FILE",
    alarms.RETENTION: "/admin/ui/retention",
    alarms.COPIES: "/admin/ui/providers",
    alarms.WEBHOOKS: "/admin/ui/webhooks",
    alarms.SEALED: "/admin/ui/settings#CONFIG_MASTER_KEY",
    alarms.NOTICES: "/admin/ui/notifications",
    alarms.RESTORED: "/admin/ui/needs-you",
}
"""By the alarm's code."""


def of(problem: Problem | None) -> str:
    """What a page says of how this is mended; empty where nobody knows."""
    return IN_PAGES.get(problem.code, problem.mend) if problem else ""
