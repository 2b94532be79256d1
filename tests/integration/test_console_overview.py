"""The overview: its numbers are those of the ledger and lead to what they count; what is not well is said with the
setting that mends it."""

from __future__ import annotations

import html
import re
from datetime import timedelta

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from faxbot import alarms, configuration, figures, jobs, sending
from faxbot.actors import ADMIN, OPERATOR, VIEWER
from faxbot.models import Webhook
from faxbot.web.console import mends
from faxbot.web.console.faxes import TABS
from faxbot.webhooks import DISABLED
from tests.integration import hooks
from tests.integration.console import page, words
from tests.integration.site import ACTOR, Site
from tests.integration.web import browser_of, new_user


@pytest.fixture
def operator(site: Site) -> FlaskClient:
    return browser_of(site.runtime, new_user(site.runtime, OPERATOR))


def counts(text: str) -> dict[str, tuple[str, str]]:
    """By tab where it leads, and the number that leads there."""
    found = re.findall(
        r'<a href="(/admin/ui/faxes\?tab=([a-z-]+)[^"]*)"><strong>([^<]*)</strong>', text
    )
    return {tab: (html.unescape(path), number) for path, tab, number in found}


def of_before(site: Site) -> None:
    """Three faxes that were accepted a month ago: one ended then, one is cancelled now, and one is delivered."""
    site.now -= timedelta(days=30)
    ended, cancelled, delivered = site.fax(), site.fax(), site.fax()
    jobs.cancel(site.runtime, ACTOR, ended)
    site.now += timedelta(days=30)
    jobs.cancel(site.runtime, ACTOR, cancelled)
    site.rung.clear()
    sending.attempt(site.runtime, delivered)
    site.receive(site.callback(site.final_at_carrier(delivered)))
    site.work()


def test_each_number_leads_to_as_many_faxes(site: Site, operator: FlaskClient) -> None:
    of_before(site)
    site.fax(), site.fax(), site.sent("0403"), site.sent()
    jobs.cancel(site.runtime, ACTOR, site.fax())
    failed = site.sent("0404")
    site.receive(site.callback(site.final_at_carrier(failed)))
    site.work()
    figures.sweep(site.runtime)
    shown = counts(page(operator, "/admin/ui/"))
    assert list(shown) == list(TABS)
    assert {tab: number for tab, (_, number) in shown.items()} == {
        "waiting": "2", "sending": "1", "retrying": "0", "needs-you": "1", "done": "1", "failed": "3",
    }  # fmt: skip
    for path, number in shown.values():
        assert len(re.findall('id="row-', page(operator, path))) == int(number), path


def test_the_chart_says_in_words_what_it_draws(site: Site, operator: FlaskClient) -> None:
    assert "0 accepted , 0 delivered , 0 not ; 0 received ." in words(page(operator, "/admin/ui/"))
    fax = site.sent("0404")
    site.receive(site.callback(site.final_at_carrier(fax)))
    site.work()
    figures.sweep(site.runtime)
    for over in ("hour", "day", "week"):
        text = page(operator, f"/admin/ui/?over={over}")
        assert "1 accepted , 0 delivered , 1 not : 0.0 % went through" in words(text)
        drawn = [
            float(h)
            for h in re.findall(
                r'class="failed" x="[^"]*" width="[^"]*" y="[^"]*" height="([^"]*)"', text
            )
        ]
        assert drawn == [120.0, 10.0], "one bar of full height, and the legend's"
        assert text.count('fill="url(#hatch)"') == 2, "told from the others without colours, too"
        assert '<pattern id="hatch"' in text


def test_each_sum_of_the_chart_leads_to_as_many_faxes(site: Site, operator: FlaskClient) -> None:
    of_before(site)
    site.fax(), site.sent("0403")
    jobs.cancel(site.runtime, ACTOR, site.fax())
    failed = site.sent("0404")
    site.receive(site.callback(site.final_at_carrier(failed)))
    site.work()
    figures.sweep(site.runtime)
    for over in ("hour", "day", "week"):
        text = page(operator, f"/admin/ui/?over={over}")
        assert "3 not (2 cancelled): 50.0 % of the others went through" in words(text)
        sums = dict(
            re.findall(r'<a href="([^"]*)">([0-9]+) (?:accepted|delivered|not|received)<', text)
        )
        assert list(sums.values()) == ["4", "1", "3", "0"]
        for path, number in sums.items():
            listed = page(operator, html.unescape(path))
            assert len(re.findall('id="row-', listed)) == int(number), path


@pytest.mark.parametrize("over", ["year", "", "hour&over=day", "<script>"])
def test_a_span_that_is_none_is_refused(operator: FlaskClient, over: str) -> None:
    answer = operator.get(f"/admin/ui/?over={over}")
    assert answer.status_code in (200, 400)
    assert (answer.status_code == 400) == (over in ("year", "", "<script>"))
    assert "<script>" not in answer.text.replace("<script src", "")


def test_the_oldest_fax_that_is_not_done_is_named(site: Site) -> None:
    site.now -= timedelta(hours=1)
    site.sent("0403")
    site.now += timedelta(hours=1)
    operator = browser_of(site.runtime, new_user(site.runtime, OPERATOR))
    site.fax()
    assert "The oldest that is not done is held" in words(page(operator, "/admin/ui/"))


def test_what_waits_for_a_person_is_said_to_who_can_do_something(site: Site) -> None:
    site.sent("0403")
    site.now += timedelta(days=1)
    operator = browser_of(site.runtime, new_user(site.runtime, OPERATOR))
    viewer = browser_of(site.runtime, new_user(site.runtime, VIEWER))
    assert "1 fax waits for more than" in words(page(operator, "/admin/ui/"))
    shown = words(page(viewer, "/admin/ui/"))
    assert "waits for more than" not in shown
    assert "Providers" not in shown


def test_that_sending_is_switched_off_is_said_to_everybody_with_the_setting(site: Site) -> None:
    admin, viewer = (
        browser_of(site.runtime, new_user(site.runtime, role)) for role in (ADMIN, VIEWER)
    )
    assert "switched off" not in page(viewer, "/admin/ui/")
    configuration.change(site.runtime, ACTOR, {"FAX_DISABLED": True}, note="a test")
    sentence = "Sending is switched off: faxes are accepted and held. FAX_DISABLED"
    assert sentence in words(page(viewer, "/admin/ui/"))
    assert 'href="/admin/ui/settings#FAX_DISABLED"' in page(admin, "/admin/ui/")


def test_each_alarm_leads_to_a_page_or_a_setting_that_there_is(site: Site) -> None:
    admin = browser_of(site.runtime, new_user(site.runtime, ADMIN))
    assert mends.OF_ALARMS.keys() == set(alarms.CODES)
    for path in set(mends.OF_ALARMS.values()):
        there, _, setting = path.partition("#")
        shown = page(admin, there)
        assert not setting or f'id="{setting}"' in shown, path


def test_an_alarm_is_shown_with_the_way_to_where_it_is_mended(site: Site) -> None:
    site.sent("0403")
    site.now += timedelta(days=1)
    admin = browser_of(site.runtime, new_user(site.runtime, ADMIN))
    for path in ("/admin/ui/", "/admin/ui/diagnostics"):
        shown = page(admin, path)
        assert "held : 1 fax waits for more than 60 min: they are held" in words(shown)
        assert '<a href="/admin/ui/needs-you">To Needs you</a></div>' in shown


def test_who_may_not_mend_it_is_led_nowhere(site: Site) -> None:
    hooks.subscribe(site.runtime, "https://hooks.example.org/")
    with site.runtime.database.transaction() as session:
        session.execute(sa.update(Webhook).values(state=DISABLED))
    operator = browser_of(site.runtime, new_user(site.runtime, OPERATOR))
    shown = page(operator, "/admin/ui/")
    assert "webhooks : 1 webhook: were given up" in words(shown)
    assert 'href="/admin/ui/webhooks"' not in shown


def test_what_does_not_answer_is_named(site: Site) -> None:
    site.fax()
    site.now += timedelta(hours=1)
    operator = browser_of(site.runtime, new_user(site.runtime, OPERATOR))
    shown = words(page(operator, "/admin/ui/fitness"))
    assert "due faxes wait and nobody takes them: start a worker ( faxbot worker )" in shown
