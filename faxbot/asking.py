"""Asking a carrier about one attempt: whatever it or its plugin does comes back as news fit for the ledger, or as
nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable

from faxbot import guard, outcomes
from faxbot.errors import FaxbotError
from faxbot.models import Attempt
from faxbot.plugins.base import TransportPlugin, Update
from faxbot.runtime import Runtime

log = logging.getLogger(__name__)

MARGIN = 10.0
"""Seconds beyond the calls to the carrier after which somebody else may ask it."""


def ask(
    runtime: Runtime, this: Attempt, question: Callable[[TransportPlugin], Update]
) -> Update | None:
    """The carrier's answer, fit for the ledger; None where it has none."""
    try:
        if not runtime.plugins.manifest(this.provider_id).has("status_lookup"):
            return None
        if guard.is_disabled(runtime, this.account_id, this.provider_id):
            return None
        answer = question(runtime.plugins.get(this.provider_id, TransportPlugin))
    except Exception as error:  # noqa: BLE001 - whatever a plugin does, we ask again later
        note_failure(runtime, "no answer from the carrier", this, error)
        return None
    try:
        return _about(this, outcomes.checked(answer))
    except ValueError as error:
        _log_failure("no answer from the carrier", this, error)
        return None


def _about(this: Attempt, update: Update) -> Update:
    """News that names this attempt by its tag or the carrier's id, or nothing at all. Raises
    ValueError where it names another fax: a carrier that did not understand what it was asked for
    may answer with any."""
    if update.tag is not None:  # made for this attempt; a carrier may use its own ids again
        is_about = update.tag == this.tag
    else:
        is_about = update.external_id is None or this.external_id in (None, update.external_id)
    if not is_about:
        raise ValueError("news of another fax")
    return update


def note_failure(runtime: Runtime, message: str, this: Attempt, error: Exception) -> None:
    """Log it, and count what was the plugin's own doing."""
    _log_failure(message, this, error)
    if not isinstance(error, FaxbotError):
        guard.failed(runtime, this.account_id, this.provider_id, error)


def _log_failure(message: str, this: Attempt, error: Exception) -> None:
    """The class or our own code only: the text of a foreign exception may hold anything."""
    what = error.code if isinstance(error, FaxbotError) else type(error).__name__
    log.warning(
        message, extra={"provider_id": this.provider_id, "job_id": this.job_id, "error": what}
    )
