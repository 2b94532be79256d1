"""Providers: how they stand, and what an operator does to one: test, pause, resume, reset."""

from __future__ import annotations

import re
from typing import Any

from flask import Response, request

from faxbot import activation, catalogue, oversight
from faxbot.events import PROVIDER_EVENT_MEANING
from faxbot.oversight import NOTE_LENGTH
from faxbot.web import schemas
from faxbot.web.auth import actor, runtime
from faxbot.web.console import frame

pages = frame.Pages("providers", __name__)

_WITHOUT_ZONE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2})?")
"""A time as a browser's field gives it; the page says that it is UTC."""


@pages.page("/providers", access="operate")
def list_providers() -> Response:
    """How all stand."""
    found = oversight.providers(runtime(), actor())
    found.sort(key=lambda one: not one["active"])
    return frame.show("providers.html", providers=[_with_words(one) for one in found])


@pages.page("/providers/<provider_id>", access="operate")
def show_provider(provider_id: str) -> Response:
    """One of them."""
    one = oversight.provider(runtime(), actor(), provider_id)
    order = runtime().config.providers_for(None)
    return frame.show(
        "provider.html",
        one=_with_words(one),
        plugin=catalogue.plugin(runtime(), actor(), provider_id),
        others=[each for each in order if each != provider_id],
        meaning=PROVIDER_EVENT_MEANING,
        called=frame.called(),
        note_length=NOTE_LENGTH,
        **(_for_administrators(provider_id) if frame.may("admin") else {}),
    )


def _with_words(one: dict[str, Any]) -> dict[str, Any]:
    return {**one, "does": catalogue.in_words(one["traits"])}


def _for_administrators(provider_id: str) -> dict[str, Any]:
    doors = oversight.webhooks(runtime())
    return {
        "door": next((each for each in doors if each["provider_id"] == provider_id), None),
        "config": catalogue.settings(runtime(), provider_id),
        "possible": activation.possible(runtime(), provider_id),
        "can_leave": activation.can_leave(runtime(), provider_id),
    }


@pages.deed("/providers/<provider_id>/test", access="operate")
def test_provider(provider_id: str) -> Response:
    """Ask the carrier whether it is there and lets us in."""
    found = oversight.try_connection(runtime(), actor(), provider_id)
    return frame.show("tested.html", found=found, provider_id=provider_id)


@pages.deed("/providers/<provider_id>/pause", access="operate")
def pause_provider(provider_id: str) -> Response:
    """Send nothing through it for now."""
    fields = request.form.copy()
    if _WITHOUT_ZONE.fullmatch(fields.get("until", "")):
        fields["until"] += "Z"
    wish = frame.checked(schemas.ProviderPause(), fields)
    oversight.change(runtime(), actor(), provider_id, "pause", **wish)
    return frame.done("Paused. Faxes are taken, and wait or go elsewhere.")


@pages.deed("/providers/<provider_id>/resume", access="operate")
def resume_provider(provider_id: str) -> Response:
    """End its pause."""
    return _changed(provider_id, "resume", "Resumed. What waited for it goes on.")


@pages.deed("/providers/<provider_id>/reset", access="operate")
def reset_provider(provider_id: str) -> Response:
    """Close its breaker."""
    return _changed(provider_id, "reset", "Its breaker is closed: it is called again.")


def _changed(provider_id: str, deed: str, sentence: str) -> Response:
    wish = frame.checked(schemas.ProviderChange(), request.form)
    oversight.change(runtime(), actor(), provider_id, deed, **wish)
    return frame.done(sentence)
