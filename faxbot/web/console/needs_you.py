"""What needs somebody: faxes that wait, by what they wait for, with the sentence that mends it and what can be done."""

from __future__ import annotations

import marshmallow as ma
from flask import Response, request
from marshmallow import fields, validate

from faxbot import alarms, waiting
from faxbot.errors import NotPossibleNow
from faxbot.events import ASKED, CAUSES, HOLD_REASONS, IN_DOUBT, Status
from faxbot.waiting import Cause, Group
from faxbot.web.auth import actor, runtime
from faxbot.web.console import faxes, frame

pages = frame.Pages("needs_you", __name__)

NOT_KNOWN = (
    "whether the carrier has them is not known; as long as it can say, it is asked again and again. Who knows better, "
    "from its own page or from the receiver, settles them one by one"
)
_MENDING_OPTION = {
    "no_provider": "FAX_BACKENDS",
    "disabled": "FAX_DISABLED",
    "document_gone": "STORAGE_BACKEND",
}
_MENDED = "It is mended: release {}"
_RELEASE = {
    **dict.fromkeys(HOLD_REASONS, _MENDED),
    "disabled": "It is switched on: release {}",
    "paused": "It is resumed: release {}",
    "said_delivered": "It did not arrive: try {} again",
    "said_accepted": "It did not arrive: try {} again",
    "restored": "Not sent: release {}",
    ASKED: "Release {}",
}
"""What letting them go says of what they are held for."""
_BY_ITS_PROVIDER = frozenset({"account_refused", "provider_failing", "paused", "plugin_disabled"})


class _Group(ma.Schema):
    """Which group a form is about."""

    status = fields.String(required=True, validate=validate.OneOf(waiting.STATUSES))
    reason = fields.String(load_default=None, validate=validate.Length(max=32))


@pages.page("/needs-you", access="fax:read")
def show_what_waits() -> Response:
    """The page."""
    return frame.show(
        "needs-you.html",
        groups=[
            {
                "cause": group.cause,
                "count": f"{len(group.ids):,}{'+' * group.more}",
                "one": len(group.ids) == 1 and not group.more,
                "since": group.since,
                "sentence": _sentence(group.cause),
                "verb": _verb(group.cause),
                "cancels": _cancels(group),
                "mends": _mends(group),
                "providers": group.provider_ids,
                "faxes": group.faxes,
                "rest": len(group.ids) > len(group.faxes),
            }
            for group in waiting.groups(runtime(), actor())
        ],
        received=alarms.of_received(runtime()) if frame.may("inbound:list") else [],
        days=waiting.LATELY.days,
    )


def _sentence(cause: Cause) -> str:
    """What they wait for, and what mends it."""
    reason = cause.reason or ""
    if cause.status == Status.UNCERTAIN:
        return NOT_KNOWN
    if cause.status == Status.FAILED:
        known = CAUSES.get(reason)
        return known.sentence if known else "The carrier did not say why."
    return HOLD_REASONS.get(reason, "an operator must look")


def _verb(cause: Cause) -> tuple[str, str] | None:
    """The deed that goes on with them, and how it is called, with {} for which of them."""
    if cause.status == Status.HELD:
        return "release", _RELEASE.get(cause.reason or "", "Release {}")
    return ("resend", "Send {} once more") if cause.status == Status.FAILED else None


def _cancels(group: Group) -> bool:
    """Whether there is one that can be cancelled: of uncertain ones it is asked once."""
    asked = [fax["cancel_requested_at"] is not None for fax in group.faxes]
    if group.cause.status == Status.UNCERTAIN:
        return len(group.ids) > len(asked) or not all(asked)
    return group.cause.status == Status.HELD


def _mends(group: Group) -> list[tuple[str, str]]:
    """Where it is mended, for who may: words and addresses."""
    status, reason = group.cause.status, group.cause.reason or ""
    if status == Status.FAILED:
        return []
    if reason in _MENDING_OPTION:
        option = _MENDING_OPTION[reason]
        return [(option, f"/admin/ui/settings#{option}")] if frame.may("admin") else []
    if (reason in _BY_ITS_PROVIDER or status == Status.UNCERTAIN) and frame.may("operate"):
        return [(each, f"/admin/ui/providers/{each}") for each in group.provider_ids]
    return []


@pages.deed("/needs-you/ask", access="fax:send")
def ask_for_group() -> Response:
    """Say how many faxes of a group a deed is about, before it is done."""
    name, deed = faxes.the_deed()
    wish = frame.checked(_Group(), request.form, "deed")
    fax_ids = waiting.faxes_of(runtime(), actor(), Cause(**wish))
    if not fax_ids:
        raise NotPossibleNow("none of these faxes waits any more")
    return frame.show(
        "many.html",
        name=name,
        deed=deed,
        fax_ids=fax_ids[: deed.most],
        more=len(fax_ids) > deed.most,
        which="first",
        in_doubt=name == "release" and wish["reason"] in IN_DOUBT,
    )
