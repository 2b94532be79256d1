"""The breaker between processes and transactions: exactly so many probes, whoever asks and whatever they knew."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from faxbot import breaker, followup, sending
from faxbot.breaker import Breakers
from faxbot.errors import AccountRefused, Throttled, Unreachable
from faxbot.models import ProviderProbe, ProviderState
from faxbot.plugins.base import Receipt
from faxbot.runtime import Runtime
from tests.carrier import SimulatorProcess
from tests.installation import Installation
from tests.integration.odd import raises
from tests.integration.site import Site, number, open_site
from tests.processes import begun_together
from tests.threads import at_once

REST = timedelta(seconds=31)


def fresh(site: Site) -> Runtime:
    """The runtime of another process: it has a view of its own of the breakers."""
    return replace(site.runtime, breakers=Breakers(site.runtime.config, site.runtime.database))


def state(site: Site) -> str:
    standing = fresh(site).breakers.standing("default", "simulator", site.now)
    return standing.state(site.now)


def takes(_usual: Any, fax: Any) -> Receipt:
    return Receipt(f"id-{fax.tag}")


def break_it(site: Site) -> None:
    site.odd.does["send"] = raises(Unreachable())
    for _ in range(5):
        site.sent()
    assert state(site) == "open"


@pytest.fixture
def half_open(site: Site) -> Site:
    break_it(site)
    site.now += REST
    return site


# Real processes -------------------------------------------------------------------------------------

_PROBER = """
import sys, time
from faxbot.config import Config
from faxbot import breaker
from faxbot.db import Database, utcnow
from faxbot.errors import Unreachable
from faxbot.models import Attempt

config = Config.load()
database = Database(config)
breakers = breaker.Breakers(config, database)
name, result = sys.argv[1], "id" if sys.argv[2] == "good" else Unreachable()
print("ready", flush=True)
end = time.monotonic() + float(sys.stdin.readline())
calls, turn, through = 0, 0, None
while time.monotonic() < end and through is not False:
    turn += 1
    job_id = f"{name}-{turn}"
    through = breakers.let_through("default", "simulator", job_id, utcnow())
    if through is not True:
        time.sleep(0.001)
        continue
    calls += 1
    time.sleep(0.01)
    this = Attempt(account_id="default", provider_id="simulator", job_id=job_id)
    with database.transaction() as session:
        breaker.judge(session, config, this, result, utcnow(), seconds=0.01, is_probe=True)
    breakers.forget()
print(calls, flush=True)
"""
PROCESSES = 4


def calls_of_processes(site: Site, kind: str, seconds: float) -> int:
    """How many calls so many processes made that all ask without end."""
    with site.runtime.database.transaction() as session:
        row = breaker.locked(session, "default", "simulator", site.now)
        row.opened_at = row.rests_until = site.now - timedelta(seconds=1)
    each = [(f"p{index}", kind) for index in range(PROCESSES)]
    return sum(begun_together(_PROBER, each, site.runtime.config.environ, word=str(seconds)))


@pytest.mark.parametrize("probes", [1, 3])
def test_many_processes_let_exactly_as_many_probes_through_as_set_before_it_closes(
    store: Installation, carrier_of_all: SimulatorProcess, probes: int
) -> None:
    with open_site(store, carrier_of_all, FAXBOT_BREAKER_PROBES=str(probes)) as site:
        assert calls_of_processes(site, "good", 30) == probes
        assert state(site) == "closed"
        assert site.count(ProviderProbe) == 0


@pytest.mark.parametrize("probes", [1, 3])
def test_many_processes_let_no_probe_through_any_more_once_one_has_failed(
    store: Installation, carrier_of_all: SimulatorProcess, probes: int
) -> None:
    settings = {"FAXBOT_BREAKER_PROBES": str(probes), "FAXBOT_BREAKER_REST_SECONDS": "0.1"}
    with open_site(store, carrier_of_all, **settings) as site:
        calls = calls_of_processes(site, "bad", 3)
        with site.runtime.database.reading() as session:
            openings = session.scalars(sa.select(ProviderState.openings)).one()

        assert openings > 1
        assert openings <= calls <= probes * openings


# What a process knows may be a second old -----------------------------------------------------------


def test_one_that_has_not_heard_yet_that_the_probe_failed_sends_none(half_open: Site) -> None:
    ours, others = fresh(half_open), fresh(half_open)
    others.breakers.standing("default", "simulator", half_open.now)
    sending.attempt(ours, half_open.fax())
    assert state(half_open) == "open"
    half_open.odd.does["send"] = takes
    fax = half_open.fax()
    sending.attempt(others, fax)

    assert (half_open.job(fax).status, half_open.job(fax).attempts) == ("held", 0)


def test_one_that_has_not_heard_yet_that_it_is_closed_sends_all(half_open: Site) -> None:
    ours, others = fresh(half_open), fresh(half_open)
    others.breakers.standing("default", "simulator", half_open.now)
    half_open.odd.does["send"] = takes
    sending.attempt(ours, half_open.fax())
    assert state(half_open) == "closed"
    faxes = [half_open.fax() for _ in range(3)]
    for fax in faxes:
        sending.attempt(others, fax)

    assert {half_open.job(fax).status for fax in faxes} == {"sent"}
    assert half_open.count(ProviderProbe) == 0


def test_a_probe_whose_place_was_ended_before_its_intent_does_not_call(half_open: Site) -> None:
    fax = half_open.fax()

    def reopen() -> None:
        with half_open.runtime.database.transaction() as session:
            session.execute(sa.delete(ProviderProbe))
            row = breaker.locked(session, "default", "simulator", half_open.now)
            row.rests_until = half_open.now + REST

    half_open.odd.does["send"] = takes
    half_open.interrupt("INSERT INTO provider_probes", reopen)
    sending.attempt(half_open.runtime, fax)
    assert (half_open.job(fax).status, half_open.job(fax).attempts) == ("queued", 0)
    half_open.after(1)
    half_open.after(1)

    assert half_open.job(fax).status == "held"


def test_a_place_that_waited_long_for_a_worker_lasts_as_long_as_its_call(half_open: Site) -> None:
    half_open.now -= REST
    waiting = half_open.sent()
    half_open.now += timedelta(seconds=601)
    followup.review(half_open.runtime, waiting)
    assert half_open.job(waiting).status == "queued", "it has a place"
    config = half_open.runtime.config
    half_open.now += timedelta(seconds=config.lease_seconds + config.provider_call_seconds - 5)
    called = []

    def take_long(_usual: Any, fax: Any) -> Receipt:
        called.append(fax.tag)
        if len(called) == 1:
            half_open.now += timedelta(seconds=20)
            sending.attempt(fresh(half_open), half_open.fax())
        return Receipt(f"id-{fax.tag}")

    half_open.odd.does["send"] = take_long
    sending.attempt(half_open.runtime, waiting)

    assert len(called) == 1


def test_fewer_probes_set_while_it_is_half_open_close_it(
    store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    with open_site(store, carrier_of_all, FAXBOT_BREAKER_PROBES="3") as site:
        break_it(site)
        site.now += REST
        site.odd.does["send"] = takes
        site.sent()
        assert state(site) == "half_open"
        later = site.now + timedelta(hours=1)
    with open_site(store, carrier_of_all, FAXBOT_BREAKER_PROBES="1") as site:
        site.now = later
        site.odd.does["send"] = takes

        assert site.job(site.sent()).status == "sent"
        assert state(site) == "closed"


@pytest.mark.parametrize("asked", [1, 90])
def test_a_probe_that_succeeds_while_another_is_told_to_wait_counts(
    store: Installation, carrier_of_all: SimulatorProcess, asked: int
) -> None:
    with open_site(store, carrier_of_all, FAXBOT_BREAKER_PROBES="2") as site:
        break_it(site)
        site.now += REST

        def good_and_other_throttled(_usual: Any, fax: Any) -> Receipt:
            site.odd.does["send"] = raises(Throttled(retry_after=asked))
            sending.attempt(fresh(site), site.fax())
            return Receipt(f"id-{fax.tag}")

        site.odd.does["send"] = good_and_other_throttled
        site.sent()
        assert site.rest() is not None, "the wish to wait is kept"
        site.now += timedelta(seconds=asked)
        site.odd.does["send"] = takes
        site.sent()

        assert state(site) == "closed"


@pytest.mark.parametrize("probes", ["1", "2"])
def test_a_held_fax_that_is_reviewed_by_many_at_once_takes_one_place_and_goes(
    store: Installation, carrier_of_all: SimulatorProcess, probes: str
) -> None:
    with open_site(store, carrier_of_all, FAXBOT_BREAKER_PROBES=probes) as site:
        break_it(site)
        faxes = [site.sent() for _ in range(8)]
        site.now += timedelta(seconds=601)
        for fax in faxes:
            many = [fresh(site) for _ in range(4)]
            at_once(len(many), lambda index: followup.review(many[index], fax))  # noqa: B023 - called here
            assert site.job(fax).status == "queued"
            with site.runtime.database.transaction() as session:
                places = session.scalars(sa.delete(ProviderProbe).returning(ProviderProbe.job_id))
                assert places.all() == [fax]


def test_a_probe_that_waits_for_its_number_and_one_that_fails_there_do_not_block_each_other(
    on_postgresql: Site,
) -> None:
    site = on_postgresql
    to = number()
    first = site.fax_to(to)
    wanted, failing, ended = threading.Event(), threading.Event(), threading.Event()
    errors: list[str] = []

    def executed(_c: Any, _cursor: Any, text: str, *_: Any) -> None:
        if text.startswith("UPDATE lanes SET wanted"):
            wanted.set()
            ended.wait(2)
        elif text.startswith("DELETE FROM provider_probes") and failing.is_set():
            ended.set()

    def failed(context: Any) -> None:
        errors.append(type(context.original_exception).__name__)

    def fail_when_wanted(_usual: Any, _fax: Any) -> Receipt:
        # This call began while all was well. Meanwhile the provider broke and has rested.
        break_it(site)
        site.now += REST
        probe = threading.Thread(target=sending.attempt, args=(fresh(site), second))
        threads.append(probe)
        second_started.set()
        probe.start()
        assert wanted.wait(10)
        failing.set()
        raise AccountRefused

    threads: list[threading.Thread] = []
    second_started = threading.Event()
    second = site.fax_to(to)
    site.rung.clear()
    sa.event.listen(site.runtime.database.engine, "after_cursor_execute", executed)
    sa.event.listen(site.runtime.database.engine, "handle_error", failed)
    site.odd.does["send"] = fail_when_wanted
    sending.attempt(site.runtime, first)
    for thread in threads:
        thread.join(20)

    assert errors == [], "they waited for each other"
    assert site.job(first).status == "held"
    assert (site.job(second).status, site.job(second).waiting) == ("queued", "number")
