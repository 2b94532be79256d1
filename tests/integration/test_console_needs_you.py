"""What needs somebody: groups with what mends them, what can be done to a group or to one fax, and by whom."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from faxbot import actors, jobs
from faxbot.errors import OutcomeUnknown
from faxbot.models import Job
from tests.integration.console import deed, filled, page, problem, said, words
from tests.integration.odd import raises
from tests.integration.site import ACTOR, Site
from tests.integration.web import browser_of, new_user

PATH = "/admin/ui/needs-you"
REFUSED = {"status": "held", "reason": "account_refused"}
HOSTILE = '"><script>alert(1)</script>'


def browser(site: Site, role: str = actors.ADMIN) -> FlaskClient:
    return browser_of(site.runtime, new_user(site.runtime, role))


def test_where_nothing_waits_the_page_says_so(site: Site) -> None:
    assert "No fax waits for anybody." in words(page(browser(site, actors.VIEWER), PATH))


def test_a_group_says_how_many_why_and_where_it_is_mended(site: Site) -> None:
    first = site.sent("0401")
    for _ in range(2):
        site.sent("0401")
    text = page(browser(site), PATH)
    assert "3 faxes of simulator, since" in words(text)
    assert "The carrier refused the account: check credentials and funds." in words(text)
    assert 'href="/admin/ui/providers/simulator"' in text
    assert f'href="/admin/ui/faxes/{first}"' in text
    assert "1555" not in words(text)


def test_a_group_is_released_as_a_whole_once_its_number_was_said(site: Site) -> None:
    faxes = [site.sent("0401") for _ in range(3)]
    client = browser(site)
    asked = deed(client, f"{PATH}/ask", 200, deed="release", **REFUSED)
    assert "Release 3 faxes?" in words(asked.text)
    fields = filled(asked.text)
    done = deed(client, "/admin/ui/faxes/do", deed="release", fax_id=fields.getlist("fax_id"))
    assert said(done) == "Release: 3 of 3."
    assert {site.job(fax).status for fax in faxes} == {"queued"}
    problem(deed(client, f"{PATH}/ask", 409, deed="release", **REFUSED), 409, "not-possible-in-this-state")  # fmt: skip


def test_what_is_said_of_a_group_goes_with_what_is_said_of_its_faxes(site: Site) -> None:
    site.odd.does["send"] = raises(OutcomeUnknown())
    site.odd.does["look_up"] = raises(OutcomeUnknown())
    site.sent()
    failed(site)
    text = words(page(browser(site), PATH))
    assert "it is being looked up" in text
    assert "it is asked again and again" in text
    assert "does not say" not in text
    assert "All tries are used up" not in text, "a fax may have had one try of many"


def test_an_uncertain_fax_is_not_offered_to_be_cancelled_a_second_time(site: Site) -> None:
    site.odd.does["send"] = raises(OutcomeUnknown())
    site.odd.does["look_up"] = raises(OutcomeUnknown())
    faxes, client = [site.sent() for _ in range(2)], browser(site)
    jobs.cancel(site.runtime, ACTOR, faxes[0])
    text = page(client, PATH)
    assert text.count('value="cancel"') == 2, "all, and the other one"
    jobs.cancel(site.runtime, ACTOR, faxes[1])
    assert 'value="cancel"' not in page(client, PATH)


def failed(site: Site, reason: str = "busy") -> str:
    """A fax whose tries are used up."""
    fax = site.sent("0400")
    with site.runtime.database.transaction() as session:
        session.execute(sa.update(Job).where(Job.id == fax).values(reason=reason))
    return fax


def test_all_that_failed_for_the_same_are_sent_once_more_once_and_leave_the_list(
    site: Site,
) -> None:
    faxes, other = [failed(site) for _ in range(3)], failed(site, "no_answer")
    client, group = browser(site), {"status": "failed", "reason": "busy"}
    text = page(client, PATH)
    assert "Send all once more" in words(text)
    assert "Send it once more" in words(text)
    asked = deed(client, f"{PATH}/ask", 200, deed="resend", **group)
    assert "Send 3 faxes once more?" in words(asked.text)
    assert site.count(Job) == 4
    chosen = filled(asked.text).getlist("fax_id")
    for _ in range(2):  # a double click
        done = deed(client, "/admin/ui/faxes/do", deed="resend", fax_id=chosen)
        assert said(done) == "Send once more: 3 of 3."
    with site.runtime.database.reading() as session:
        made = session.scalars(sa.select(Job.resend_of).where(Job.resend_of.is_not(None))).all()
    assert sorted(map(str, made)) == sorted(faxes)
    text = page(client, PATH)
    assert other in text
    assert not any(fax in text for fax in faxes)
    problem(deed(client, f"{PATH}/ask", 409, deed="resend", **group), 409, "not-possible-in-this-state")  # fmt: skip


def test_one_that_failed_is_sent_once_more_by_its_own_button_and_a_viewer_has_none(
    site: Site,
) -> None:
    fax = failed(site)
    assert "once more</button>" not in page(browser(site, actors.VIEWER), PATH)
    client = browser(site, actors.OPERATOR)
    assert 'value="resend"' in page(client, PATH)
    asked = deed(client, "/admin/ui/faxes/ask", 200, deed="resend", fax_id=fax)
    assert "Send 1 fax once more?" in words(asked.text)


@pytest.mark.parametrize(
    ("reason", "verb"),
    [
        ("asked", "Release all"),
        ("paused", "It is resumed: release all"),
        ("disabled", "It is switched on: release all"),
        ("account_refused", "It is mended: release all"),
        ("said_delivered", "It did not arrive: try all again"),
        ("of_a_newer_version", "Release all"),
    ],
)
def test_what_letting_them_go_says_is_true_of_what_they_wait_for(
    site: Site, reason: str, verb: str
) -> None:
    for _ in range(2):
        site.sent("0401")
    with site.runtime.database.transaction() as session:
        session.execute(sa.update(Job).values(reason=reason))
    text = words(page(browser(site), PATH))
    assert f"{verb} Cancel all" in text
    assert ("It is mended" in text) == ("It is mended" in verb)


def test_an_uncertain_fax_is_settled_from_here(site: Site) -> None:
    site.odd.does["send"] = raises(OutcomeUnknown())
    site.odd.does["look_up"] = raises(OutcomeUnknown())
    fax = site.sent()
    client = browser(site)
    where = f"/admin/ui/faxes/{fax}/decide"
    assert where in page(client, PATH)
    dialog = page(client, where)
    assert "data-shows" in dialog
    told = {"attempt": filled(dialog)["attempt"], "outcome": "delivered", "reason": "they called"}
    assert said(deed(client, where, **told))
    assert site.job(fax).status == "delivered"
    assert "409" in words(page(client, where, 409))


def test_a_viewer_sees_what_waits_and_can_do_nothing_about_it(site: Site) -> None:
    site.sent("0401")
    client = browser(site, actors.VIEWER)
    text = page(client, PATH).partition("<main")[2]
    assert "1 fax of simulator" in words(text)
    assert "<form" not in text.partition("</main>")[0]
    assert "/admin/ui/providers" not in text
    problem(deed(client, f"{PATH}/ask", 403, deed="release", **REFUSED), 403, "forbidden")


@pytest.mark.parametrize(
    "fields",
    [
        {}, {"deed": "release"}, {"deed": HOSTILE, **REFUSED}, {"deed": "release", "status": "sent"},
        {"deed": "release", "status": HOSTILE}, {"deed": "release", **REFUSED, "reason": "x" * 33},
        {"deed": "release", **REFUSED, "other": "x"}, {"deed": "release", "status": ["held", "held"]},
    ],
)  # fmt: skip
def test_a_form_of_no_group_is_refused(site: Site, fields: dict[str, Any]) -> None:
    answer = deed(browser(site), f"{PATH}/ask", 422, **fields)
    problem(answer, 422, "invalid-fields")
    assert "<script" not in answer.text


def test_foreign_text_is_only_text(site: Site) -> None:
    fax = site.sent("0401")
    with site.runtime.database.transaction() as session:
        session.execute(
            sa.update(Job).where(Job.id == fax).values(reason="<b>x</b>", provider_id="<i>y</i>")
        )
    text = page(browser(site), PATH)
    assert "<b>x" not in text
    assert "<i>y" not in text
    assert "An operator must look." in words(text)
