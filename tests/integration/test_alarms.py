"""What waits for a person is said: to who asks, once an hour in the log, and no longer than it lasts."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from faxbot import alarms, decisions, health, jobs, oversight, sending, sweeps
from faxbot.crypto import Unsealable
from faxbot.errors import AccountRefused, NotSent, OutcomeUnknown, Unreachable
from faxbot.models import Job
from tests.carrier import SimulatorProcess
from tests.installation import Installation
from tests.integration.odd import raises
from tests.integration.site import ACTOR, TASKS, Site, open_site

HOUR = timedelta(hours=1)


def codes(site: Site) -> list[tuple[str, int]]:
    return [(alarm["code"], alarm["count"]) for alarm in health.ready(site.runtime)["alarms"]]


def test_an_uncertain_fax_raises_the_alarm_after_an_hour_until_it_is_settled(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.odd.does["send"] = raises(OutcomeUnknown())
    site.odd.does["look_up"] = raises(OutcomeUnknown())
    job_id = site.sent()
    site.after(3600)
    assert codes(site) == []
    site.after(1)
    assert codes(site) == [("uncertain", 1)]
    for _ in range(60):
        site.after(179)

    said = [record for record in caplog.records if record.message == "alarm"]
    assert len(said) == 3, "once an hour"
    assert {record.levelname for record in said} == {"ERROR"}
    decisions.decide(site.runtime, ACTOR, job_id, "delivered", "they called")
    assert codes(site) == []


@pytest.mark.parametrize(("seconds", "in_words"), [("90", "1 min"), ("5", "5 s")])
def test_it_is_raised_as_soon_as_set_and_says_so_in_round_figures(
    store: Installation, carrier_of_all: SimulatorProcess, seconds: str, in_words: str
) -> None:
    with open_site(store, carrier_of_all, FAXBOT_ALARM_SECONDS=seconds) as site:
        site.sent("0403")
        site.after(int(seconds))
        assert codes(site) == []
        site.now += timedelta(seconds=1)

        (alarm,) = alarms.raised(site.runtime)
        assert f"1 fax waits for more than {in_words}: " in alarm.detail


def test_a_held_fax_raises_it_and_nobody_is_unfit_for_that(site: Site) -> None:
    site.sent("0403")
    site.odd.does["send"] = raises(OutcomeUnknown())
    site.now += HOUR + timedelta(seconds=1)

    (alarm,) = alarms.raised(site.runtime)
    assert (alarm.code, alarm.count) == ("held", 1)
    assert "1 fax waits for more than 60 min" in alarm.detail
    assert "uncertain" not in health.ready(site.runtime)["parts"]


@pytest.mark.parametrize("error", [AccountRefused, Unreachable])
def test_a_fax_that_is_let_go_and_held_again_all_the_time_raises_it(
    site: Site, error: type[NotSent]
) -> None:
    site.odd.does["send"] = raises(error())
    others = [site.fax() for _ in range(4)]
    job_id = site.sent()
    for other in others:
        sending.attempt(site.runtime, other)
        jobs.cancel(site.runtime, ACTOR, other)
    site.rung.clear()
    for _ in range(38):
        site.after(120)
    assert site.job(job_id).attempts > 3
    seen = []
    for _ in range(30):
        site.after(60)
        status = site.job(job_id).status
        seen.append((status, codes(site)))

    assert "held" in {status for status, _ in seen}
    assert all(raised == ([("held", 1)] if status == "held" else []) for status, raised in seen)
    site.odd.does.clear()
    oversight.change(site.runtime, ACTOR, "simulator", "reset", note="mended")
    for _ in range(12):
        site.after(60)
    assert site.job(job_id).status in ("sent", "delivered")
    assert codes(site) == []


def test_a_fax_that_this_server_cannot_prepare_raises_it_as_long_as_that_lasts(site: Site) -> None:
    job_id = site.fax()
    site.rung.clear()
    with site.runtime.database.transaction() as session:
        session.get_one(Job, job_id).to_sealed = b"sealed under another key"
    seen = []
    for _ in range(90):
        site.now += timedelta(minutes=2)
        sweeps.run(site.runtime)
        while site.rung:
            task, row_id = site.rung.pop(0)
            with suppress(Unsealable):
                TASKS[task](site.runtime, row_id)
        seen.append(codes(site))

    assert (site.job(job_id).status, site.job(job_id).reason) == ("held", "fault")
    assert seen[-45:] == [[("held", 1)]] * 45


def test_a_cancel_that_is_asked_for_does_not_put_the_alarm_off(site: Site) -> None:
    site.odd.does["send"] = raises(OutcomeUnknown())
    site.odd.does["look_up"] = raises(OutcomeUnknown())
    job_id = site.sent()
    site.after(3000)
    jobs.cancel(site.runtime, ACTOR, job_id)
    site.after(601)

    assert codes(site) == [("uncertain", 1)]


def test_a_fax_that_was_tried_for_long_and_is_held_just_now_raises_none(site: Site) -> None:
    site.odd.does["send"] = raises(OutcomeUnknown())
    site.odd.does["look_up"] = raises(OutcomeUnknown())
    job_id = site.sent()
    site.now += timedelta(minutes=59)
    decisions.decide(site.runtime, ACTOR, job_id, "retry", "they have none")
    site.odd.does["send"] = raises(AccountRefused())
    site.now += timedelta(minutes=59)
    sending.attempt(site.runtime, job_id)

    assert site.job(job_id).status == "held"
    assert codes(site) == []


def test_all_is_well(site: Site) -> None:
    site.sent()
    site.now += 5 * HOUR

    assert codes(site) == []


def test_no_alarm_speaks_of_a_call_of_the_api() -> None:
    source = Path(alarms.__file__).read_text(encoding="utf-8")
    assert not re.findall(r"(?:GET|POST|PUT|PATCH|DELETE) /", source)
