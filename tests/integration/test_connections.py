"""While a carrier is asked anything at all, no connection to the database is held: a slow carrier stops nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from faxbot import fanout, jobs, sending, trail
from faxbot.db import Database
from faxbot.plugins.base import Health
from tests.integration.site import ACTOR, Site


@pytest.fixture
def alone(site: Site) -> Iterator[Site]:
    """A site whose pools have one connection each."""
    usual = site.runtime
    database = Database(usual.config, pool_size=1)
    trail.attach(database, usual.keyring)
    fanout.attach(database, usual.ring)
    site.runtime = replace(usual, database=database)
    yield site
    database.close()
    site.runtime = usual


ASKED: dict[str, tuple[str, str, float]] = {
    # what the provider is asked -> the number's ending, the status it is asked in, seconds until then
    "look_up": ("0500", "uncertain", 0),
    "fetch": ("0044", "sent", 600),
    "cancel": ("0044", "sent", 0),
}


@pytest.mark.parametrize("question", ASKED)
def test_no_connection_is_held_while_the_carrier_is_asked(alone: Site, question: str) -> None:
    ending, status, wait = ASKED[question]
    job_id = alone.sent(ending)
    assert alone.job(job_id).status == status
    held: list[int] = []

    def look(usual: Callable[[Any], Any], name: str) -> Any:
        held.append(alone.runtime.database.held)
        assert jobs.find(alone.runtime, ACTOR, job_id).status == status
        return usual(name)

    alone.odd.does[question] = look
    if question == "cancel":
        jobs.cancel(alone.runtime, ACTOR, job_id)
    alone.after(wait)

    assert held == [0]


def test_no_connection_is_held_while_a_carrier_is_asked_whether_it_lets_us_in(
    alone: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []

    def look() -> Health:
        held.append(alone.runtime.database.held)
        return Health(True, "")

    monkeypatch.setattr(alone.odd, "health", look)
    sending.attempt(alone.runtime, alone.fax("0403"))

    assert held == [0]


def test_no_connection_is_held_while_a_callback_is_verified_and_read(alone: Site) -> None:
    job_id = alone.sent("0044")
    request = alone.callback(alone.final_at_carrier(job_id))
    held: list[int] = []

    def look(usual: Callable[[Any], Any], question: Any) -> Any:
        held.append(alone.runtime.database.held)
        return usual(question)

    alone.odd.does["verify_callback"] = alone.odd.does["read_callback"] = look
    alone.receive(request)
    alone.work()

    assert (held, alone.job(job_id).status) == ([0, 0], "delivered")
