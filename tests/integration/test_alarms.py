"""What waits for a person is said: to who asks, once an hour in the log, and no longer than it lasts."""

from __future__ import annotations

from datetime import timedelta

import pytest

from faxbot import alarms, decisions, health
from faxbot.errors import OutcomeUnknown
from tests.integration.odd import raises
from tests.integration.site import ACTOR, Site

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
    for _ in range(179):
        site.after(60)

    said = [record for record in caplog.records if record.message == "alarm"]
    assert len(said) == 3, "once an hour"
    assert {record.levelname for record in said} == {"ERROR"}
    decisions.decide(site.runtime, ACTOR, job_id, "delivered", "they called")
    assert codes(site) == []


def test_a_held_fax_raises_it_and_nobody_is_unfit_for_that(site: Site) -> None:
    site.sent("0403")
    site.odd.does["send"] = raises(OutcomeUnknown())
    site.now += HOUR + timedelta(seconds=1)

    (alarm,) = alarms.raised(site.runtime)
    assert (alarm.code, alarm.count) == ("held", 1)
    assert "1 fax waits for more than an hour" in alarm.detail
    assert "uncertain" not in health.ready(site.runtime)["parts"]


def test_all_is_well(site: Site) -> None:
    site.sent()
    site.now += 5 * HOUR

    assert codes(site) == []
