"""Who looks for what was lost: each sweep for itself, seen when it stops; and a fax that kills whoever takes it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from faxbot import claims, health, heartbeats, jobs, retention, sending, sweeps
from faxbot.errors import Unreachable
from faxbot.events import CAUSES, TRANSITIONS
from faxbot.models import Callback, Heartbeat
from faxbot.plugins.base import State, Update
from faxbot.runtime import Runtime
from tests.integration.odd import Vanished, raises, taken_and_gone
from tests.integration.site import ACTOR, Site

HOUR = timedelta(hours=1)


def unfit(site: Site) -> str:
    """What the sweeps' part of fitness complains of."""
    part = health.ready(site.runtime)["parts"]["sweeps"]
    return "" if part["ok"] else str(part["detail"])


def failures(site: Site) -> dict[str, int]:
    """How often sweeps failed."""
    query = sa.select(Heartbeat).where(Heartbeat.failures > 0)
    with site.runtime.database.reading() as session:
        return {each.name: each.failures for each in session.scalars(query)}


def test_every_status_that_a_fax_can_leave_has_its_sweep() -> None:
    left = {str(change.source) for change in TRANSITIONS if change.source is not None}

    assert left <= set(sweeps.SWEEPS)
    others = {
        "callbacks",
        "copies",
        "providers",
        "waiting",
        "alarms",
        "figures",
        "limits",
        "audit",
    }
    others |= {"webhooks", "deliveries", "received", "waits", "notices", "told", "retention"}
    assert set(sweeps.SWEEPS) == left | others


def test_each_sweep_leaves_a_heartbeat_and_one_that_stops_is_named(site: Site) -> None:
    assert unfit(site) == "", "it has only just started"
    site.now += HOUR
    assert all(name in unfit(site) for name in sweeps.SWEEPS)

    sweeps.run(site.runtime)
    sweeps.run(site.runtime)

    assert unfit(site) == ""
    assert set(sweeps.SWEEPS) <= heartbeats.known(site.runtime).keys()
    site.now += timedelta(seconds=2 * site.runtime.config.sweep_seconds) + sweeps.MARGIN
    assert unfit(site) == ""
    site.now += timedelta(seconds=1)
    assert "faxbot beat" in unfit(site)


def test_what_ails_one_sweep_keeps_no_other_from_its_faxes(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_runtime: Runtime) -> int:
        raise ValueError("+15550101234 is in this text")

    job_id = site.submit("+15550100000").job_id
    site.rung.clear()
    site.now += HOUR
    monkeypatch.setitem(sweeps.SWEEPS, "queued", broken)
    monkeypatch.setitem(sweeps.SWEEPS, "held", broken)
    with pytest.raises(ValueError, match="is in this text"):
        sweeps.run(site.runtime)
    assert unfit(site).startswith("overdue: queued, held;")
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "sweep failed"
    ] * 2
    assert "+1555" not in caplog.text
    assert failures(site) == {"queued": 1, "held": 1}
    with pytest.raises(ValueError, match="is in this text"):
        sweeps.run(site.runtime)
    assert failures(site) == {"queued": 2, "held": 2}

    monkeypatch.undo()
    sweeps.run(site.runtime)
    assert unfit(site) == ""
    assert failures(site) == {"queued": 2, "held": 2}, "counted since ever"
    assert [rung for rung in site.rung if rung[0] != retention.TASK] == [
        ("faxbot.send_fax", job_id)
    ]


def test_a_bell_that_was_lost_is_rung_again_within_fifteen_seconds(site: Site) -> None:
    """With the times of real service, whenever beat ticks."""
    for tick in range(5):
        job_id, begun = site.submit("+15550100000").job_id, site.now
        site.rung.clear()
        site.now += timedelta(seconds=tick)
        for _ in range(10):
            sweeps.run(site.runtime)
            if ("faxbot.send_fax", job_id) in site.rung:
                break
            site.now += timedelta(seconds=site.runtime.config.sweep_seconds)
        assert site.now - begun <= timedelta(seconds=15)


def test_beat_is_off_for_three_hours_and_then_everything_is_caught_up(site: Site) -> None:
    """Every kind of wait, with its bell or its callback lost."""
    taken = {name: site.sent(ending) for name, ending in (("polled", "0044"), ("found", "0504"))}
    taken["vanished"] = site.fax()
    site.odd.does["send"] = taken_and_gone
    with pytest.raises(Vanished):
        sending.attempt(site.runtime, taken["vanished"])
    site.odd.does.clear()
    taken["called back"] = site.sent()
    for job_id in taken.values():
        account = site.final_at_carrier(job_id)
    site.receive(site.callback(account))
    cancelled = site.sent("0044")
    site.odd.does["fetch"] = lambda usual, name: (
        Update(State.FAILED, external_id=name, cause="cancelled")
        if name == site.job(cancelled).external_id
        else usual(name)
    )
    jobs.cancel(site.runtime, ACTOR, cancelled)
    site.odd.does["send"] = raises(Unreachable())
    waiting = [site.sent(), site.fax(), site.fax(send_at=site.now + HOUR)]
    site.odd.does.pop("send")
    late = site.fax(send_at=site.now + HOUR, expires_at=site.now + 2 * HOUR)
    held = site.sent("0403")
    site.rung.clear()
    site.now += 3 * HOUR

    assert unfit(site), "nobody was told"
    for _ in range(3):
        site.after(5)
    assert unfit(site) == ""
    assert {name: site.job(fax).status for name, fax in taken.items()} == dict.fromkeys(
        taken, "delivered"
    )
    with site.runtime.database.reading() as session:
        assert session.scalars(sa.select(Callback.outcome)).all() == ["applied"]
    assert {site.job(fax).status for fax in waiting} == {"sent"}
    assert (site.job(late).status, site.job(cancelled).status) == ("expired", "cancelled")
    assert (site.job(held).status, site.job(held).attempts) == ("held", 2)
    assert all(site.at_carrier(fax) == 1 for fax in (*taken.values(), *waiting))


# A fax that nobody survives -----------------------------------------------------------------------


def let_a_worker_die_at(site: Site, job_id: str) -> None:
    """Somebody takes it and is never heard of again."""
    assert claims.claim(site.runtime, job_id) is not None
    site.now += timedelta(seconds=site.runtime.config.lease_seconds + 1)


def test_a_fax_that_is_the_death_of_three_workers_is_set_aside_and_says_so(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = site.submit("+15550100000").job_id
    for _ in range(3):
        assert site.job(job_id).status == "queued"
        let_a_worker_die_at(site, job_id)
    site.work()

    job, last = site.job(job_id), site.events(job_id)[-1]
    assert (job.status, job.reason, job.next_at, job.attempts) == ("failed", "poison", None, 0)
    assert (last.type, last.cause) == ("FAX_FAILED", "poison")
    assert CAUSES["poison"].sentence in jobs.describe(site.runtime, job)["explanation"]
    assert site.at_carrier(job_id) == 0
    assert any("poison" in record.message for record in caplog.records)


def test_two_deaths_cost_a_fax_nothing(site: Site) -> None:
    job_id = site.submit("+15550100000").job_id
    for _ in range(2):
        let_a_worker_die_at(site, job_id)
    site.work()

    assert (site.job(job_id).status, site.job(job_id).attempts) == ("sent", 1)
    assert (site.at_carrier(job_id), site.job(job_id).deaths) == (1, 0)


def test_who_is_stopped_and_gives_the_fax_back_is_no_death(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise SystemExit

    job_id = site.submit("+15550100000").job_id
    with monkeypatch.context() as patch:
        patch.setattr(sending, "_prepare", stop)
        for _ in range(5):
            with pytest.raises(SystemExit):
                sending.attempt(site.runtime, job_id)
            site.now += timedelta(seconds=1)

    assert site.job(job_id).deaths == 0
    site.work()
    assert site.job(job_id).status == "sent"


def test_an_expired_fax_is_expired_whoever_died_at_it(site: Site) -> None:
    job_id = site.submit("+15550100000", expires_at=site.now + timedelta(minutes=3)).job_id
    for _ in range(3):
        let_a_worker_die_at(site, job_id)
    assert claims.claim(site.runtime, job_id) is None

    assert site.job(job_id).status == "expired"


def test_a_server_that_started_long_after_its_last_heartbeat_waits_for_the_next(site: Site) -> None:
    sweeps.run(site.runtime)
    site.now += HOUR
    started = replace(site.runtime, started_at=site.now)

    assert sweeps.overdue(started) == []
    assert sweeps.overdue(site.runtime) == list(sweeps.SWEEPS)
