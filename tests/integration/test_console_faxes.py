"""The pages of faxes: what a list shows of them, what one fax shows of itself, and what forms do to one and to many."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from markupsafe import escape

from faxbot import jobs, phone, sending
from faxbot.actors import OPERATOR, VIEWER
from faxbot.errors import OutcomeUnknown
from faxbot.events import Status
from faxbot.models import Decision, Job
from faxbot.results import stamp, timeline
from faxbot.web.console import faxes, frame
from faxbot.web.console.faxes import TABS
from tests.carrier import SimulatorProcess
from tests.installation import Installation
from tests.integration.console import (
    BY_SCRIPT,
    deed,
    filled,
    filtered_again,
    page,
    problem,
    said,
    words,
)
from tests.integration.odd import raises
from tests.integration.site import ACTOR, Site, open_site
from tests.integration.web import browser_of, new_user, send

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>{{7*7}}'


@pytest.fixture
def operator(site: Site) -> FlaskClient:
    return browser_of(site.runtime, new_user(site.runtime, OPERATOR))


@pytest.fixture
def viewer(site: Site) -> FlaskClient:
    return browser_of(site.runtime, new_user(site.runtime, VIEWER))


def doubtful(site: Site) -> str:
    """A fax that only a person can settle; every one that is sent later is as this one."""
    site.odd.does["send"] = raises(OutcomeUnknown())
    site.odd.does["look_up"] = raises(OutcomeUnknown())
    return site.sent()


@pytest.fixture
def uncertain(site: Site) -> str:
    return doubtful(site)


def listed(text: str) -> list[str]:
    """The faxes of a list's page, in its order."""
    return re.findall(r'id="row-([0-9a-f]{32})"', text)


def ended(site: Site, ending: str) -> str:
    """A fax of which the carrier has said how its first attempt ended."""
    fax = site.sent(ending)
    site.receive(site.callback(site.final_at_carrier(fax)))
    site.work()
    return fax


def queued(site: Site) -> set[str]:
    with site.runtime.database.reading() as session:
        return set(session.scalars(sa.select(Job.id).where(Job.status == Status.QUEUED.value)))


def next_of(text: str) -> str | None:
    led = re.search(r'href="([^"]*)" rel="next"', text)
    return led[1].replace("&amp;", "&") if led else None


def test_every_status_is_behind_one_tab_and_no_other() -> None:
    behind = [status for _, statuses in TABS.values() for status in statuses]
    assert sorted(behind) == sorted(Status)


def test_each_tab_shows_the_faxes_of_its_statuses_the_newest_first(
    site: Site, operator: FlaskClient
) -> None:
    made = {
        "waiting": [site.fax()],
        "retrying": [ended(site, "0017")],
        "needs-you": [site.sent("0403")],
        "failed": [ended(site, "0404")],
        "sending": [site.sent()],
    }
    cancelled = site.fax()
    deed(operator, f"/admin/ui/faxes/{cancelled}/cancel")
    made["failed"].append(cancelled)
    for tab in TABS:
        shown = listed(page(operator, f"/admin/ui/faxes?tab={tab}"))
        assert shown == sorted(made.get(tab, []), reverse=True)
    everything = listed(page(operator, "/admin/ui/faxes"))
    assert sorted(everything) == sorted(fax for some in made.values() for fax in some)
    assert everything == sorted(everything, reverse=True)


def test_how_many_pages_are_confirmed_is_read_out_as_it_is_and_only_once(
    site: Site, operator: FlaskClient
) -> None:
    known, unknown = site.fax(), site.fax()
    with site.runtime.database.transaction() as session:
        session.execute(sa.update(Job).where(Job.id == unknown).values(pages=None))
    table = page(operator, "/admin/ui/faxes")
    for fax, sentence in (
        (known, "0 of 1 pages confirmed"),
        (unknown, "0 pages confirmed, of how many is not known yet"),
    ):
        shown = page(operator, f"/admin/ui/faxes/{fax}")
        for text in (table, shown):
            heard = words(re.sub(r'<span aria-hidden="true">[^<]*</span>', "", text))
            assert sentence in heard
            assert f"{sentence} confirmed" not in heard
        assert "<span aria-label" not in table + shown


def test_pages_follow_each_other_without_a_gap_or_a_repeat_also_over_several_statuses(
    site: Site, operator: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faxes, "ROWS", 3)
    wanted = []
    for _ in range(4):
        wanted += [ended(site, "0404"), site.fax()]
        jobs.cancel(site.runtime, ACTOR, wanted[-1])
        site.fax()
    found: list[str] = []
    path: str | None = "/admin/ui/faxes?tab=failed"
    while path:
        text = page(operator, path)
        found += listed(text)
        path = next_of(text)
    assert found == sorted(wanted, reverse=True)


def test_faxes_are_listed_by_when_they_ended_the_last_to_end_first_and_news_of_later_changes_nothing(
    site: Site, operator: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faxes, "ROWS", 2)
    first, *others = [site.fax() for _ in range(6)]
    delivered = ended(site, "0000")
    jobs.cancel(site.runtime, ACTOR, first)
    site.now += timedelta(minutes=10)
    since, in_order = stamp(site.now), list[str]()
    for fax in (others[2], others[0], others[3], others[1]):
        jobs.cancel(site.runtime, ACTOR, fax)
        in_order.insert(0, fax)
        site.now += timedelta(seconds=1)
    known = site.final_at_carrier(delivered)
    site.receive(site.callback(known, status="failed", code="line-busy"))
    site.work()
    assert site.story(delivered).endswith("DELIVERED ANOMALY")

    for tab in ("", "&tab=failed", "&status=cancelled"):
        found: list[str] = []
        path: str | None = f"/admin/ui/faxes?ended_since={since}{tab}"
        while path:
            text = page(operator, path)
            assert "Only faxes that ended since" in words(text)
            found += listed(text)
            path = next_of(text)
        assert found == in_order
    for tab in ("waiting", "done"):
        assert listed(page(operator, f"/admin/ui/faxes?ended_since={since}&tab={tab}")) == []
    assert listed(page(operator, f"/admin/ui/faxes?ended_since={stamp(site.now)}")) == []


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("since", "Only faxes accepted since"),
        ("ended_since", "Only faxes that ended since"),
    ],
)
def test_a_time_that_a_link_has_set_is_said_and_kept_until_somebody_takes_it_away(
    site: Site, operator: FlaskClient, name: str, sentence: str
) -> None:
    before = site.fax()
    site.now += timedelta(minutes=10)
    after = site.fax()
    jobs.cancel(site.runtime, ACTOR, after)
    set_to = f"{site.now:%Y-%m-%dT%H:%M:00Z}"
    text = page(operator, f"/admin/ui/faxes?{name}={set_to}")
    for _ in range(2):
        assert listed(text) == [after]
        assert f"{sentence} {site.now:%Y-%m-%d %H:%M}:00 UTC" in words(text)
        many = filled(text.partition('id="many"')[2].partition("</form>")[0])
        assert many[name] == set_to, "all that match are no more than these"
        text = filtered_again(operator, text)
    (without,) = re.findall('href="([^"]*)">Any time', text)
    text = page(operator, without.replace("&amp;", "&"))
    assert set(listed(text)) == {before, after}
    assert "Only faxes" not in words(text)


def test_a_day_that_somebody_chooses_counts_instead_of_the_time_of_a_link(
    site: Site, operator: FlaskClient
) -> None:
    before = site.fax()
    site.now += timedelta(minutes=10)
    after = site.fax()
    text = page(operator, f"/admin/ui/faxes?since={stamp(site.now)}")
    assert 'type="date" id="since" name="since" value=""' in text
    text = filtered_again(operator, text, since="2020-01-01")
    assert listed(text) == [after, before]
    assert 'type="date" id="since" name="since" value="2020-01-01"' in text
    assert "Only faxes" not in words(text)
    text = page(operator, f"/admin/ui/faxes?until={stamp(site.now)}")
    assert listed(text) == [before]
    assert "Only faxes accepted before" in words(text)


@pytest.mark.parametrize(
    "query",
    [
        "tab=all", "tab=done&tab=failed", "status=lost", "provider_id=../x", "to_key=7", "to=%2B15550100000",
        "since=yesterday", "until=2026-13-01", "tag=nothing", "tag==x", "cursor=7", "cursor=" + "f" * 65, "unknown=1",
        "tag=" + "x" * 200, "until=9999-12-31", "since=9999-12-31", "ended_since=now", "since=2026-11-01T00:00:00",
    ],
)  # fmt: skip
def test_an_address_that_makes_no_sense_is_refused_by_the_name_of_its_filter_and_can_be_mended(
    operator: FlaskClient, query: str
) -> None:
    status = 400 if query == "cursor=7" else 422
    name = "unknown" if query.startswith(("to=", "unknown")) else query.partition("=")[0]
    kept = "until" if name == "since" else "since"
    text = page(operator, f"/admin/ui/faxes?{kept}=2026-11-01&{query}", status)
    told = text.partition("data-problem=")[2].partition("</div>")[0]
    assert name.replace("_", " ") in words(told)
    assert "No fax is here" not in text
    typed = filled(text.partition('action="/admin/ui/faxes"')[2].partition("</form>")[0])
    assert typed[kept] == "2026-11-01"
    unseen = name in frame.BY_LINK or query == "since=yesterday"
    assert not (unseen and typed.get(name)), "what no field shows is not sent once more"
    if name == "tag":
        assert f"tag={typed['tag']}" == query


def test_a_list_of_one_state_says_so_and_keeps_it_when_it_is_filtered_further(
    site: Site, operator: FlaskClient
) -> None:
    held, queued = site.sent("0403"), site.fax()
    text = page(operator, "/admin/ui/faxes?status=held")
    assert listed(text) == [held]
    assert "Only faxes that are held . All states" in words(text)
    assert "All states" not in words(page(operator, "/admin/ui/faxes"))
    form = filled(text.partition('action="/admin/ui/faxes"')[2].partition("</form>")[0])
    further = operator.get("/admin/ui/faxes", query_string={**form.to_dict(), "tag": ""})
    assert listed(further.text) == [held]
    assert set(listed(page(operator, "/admin/ui/faxes?status="))) == {queued, held}


def test_a_number_is_looked_for_without_standing_in_an_address(operator: FlaskClient) -> None:
    to = "+15550104711"
    wanted = send(operator, to=to).get_json()["id"]
    send(operator, to="+15550104712")
    answer = deed(operator, "/admin/ui/faxes/search", to=to)
    led = answer.headers["HX-Redirect"]
    assert to.strip("+") not in led
    assert listed(page(operator, led)) == [wanted]
    refused = operator.post("/admin/ui/faxes/search", data={"to": "12"}, headers=BY_SCRIPT)
    assert "to" in problem(refused, 422, "invalid-fields")


def test_lists_mask_numbers_for_everybody_and_pages_for_viewers(
    site: Site, operator: FlaskClient, viewer: FlaskClient
) -> None:
    fax = site.fax()
    with site.runtime.database.reading() as session:
        to = jobs.number(site.runtime, session.get_one(Job, fax)).reveal()
    path = f"/admin/ui/faxes/{fax}"
    assert to in page(operator, path)
    assert to not in page(operator, "/admin/ui/faxes")
    for shown in (page(viewer, path), page(viewer, "/admin/ui/faxes")):
        assert to not in shown
        assert phone.mask(to) in shown


def test_what_clients_and_people_wrote_is_text_wherever_it_is_shown(
    operator: FlaskClient, uncertain: str
) -> None:
    hostile = HOSTILE[:200]
    answer = send(operator, **{"tags[case]": hostile}, to="+15550100000")
    assert answer.status_code == 202
    fax = answer.get_json()["id"]
    deed(
        operator,
        f"/admin/ui/faxes/{uncertain}/decide",
        outcome="failed",
        reason=hostile,
        attempt="1",
    )
    shown = [page(operator, f"/admin/ui/faxes/{one}") for one in (fax, uncertain)]
    for text in shown:
        assert str(escape(hostile)) in text
        assert "<script>alert" not in text
        assert "<img src=x" not in text
    path = "/admin/ui/faxes?" + re.findall(r'href="/admin/ui/faxes\?(tag=[^"]*)"', shown[0])[0]
    assert listed(page(operator, path.replace("&amp;", "&"))) == [fax]


def test_a_page_says_what_happened_in_each_attempt_and_why(
    site: Site, operator: FlaskClient
) -> None:
    fax = ended(site, "0017")
    shown = words(page(operator, f"/admin/ui/faxes/{fax}"))
    for word in ("Attempt 1", "FAX_QUEUED", "FAX_SUBMITTING", "FAX_RETRYING", "The line was busy."):
        assert word in shown
    assert "404" in words(page(operator, f"/admin/ui/faxes/{'0' * 32}", 404))


def test_a_fax_says_which_attempt_of_how_many_comes_next_and_when_each_was_planned(
    site: Site, operator: FlaskClient
) -> None:
    fax = ended(site, "0017")
    shown = page(operator, f"/admin/ui/faxes/{fax}")
    row = jobs.find(site.runtime, ACTOR, fax)
    assert (row.attempts, row.attempts_at_most) == (1, 12)
    assert "1 of 12" in words(page(operator, "/admin/ui/faxes"))
    assert "Attempt 2 of 12 at most Planned for" in words(shown)
    assert row.next_at
    planned_at, site.now = row.next_at, row.next_at + timedelta(seconds=7)
    sending.attempt(site.runtime, fax)
    attempts = timeline(site.runtime.database, fax)["attempts"]
    assert [each["planned_at"] for each in attempts] == [stamp(row.created_at), stamp(planned_at)]
    assert "2 of 12" in words(page(operator, "/admin/ui/faxes"))
    deed(operator, f"/admin/ui/faxes/{fax}/cancel")
    site.receive(site.callback(site.final_at_carrier(fax)))
    site.work()
    assert jobs.describe(site.runtime, jobs.find(site.runtime, ACTOR, fax))["status"] == "cancelled"
    assert " of 12" not in words(page(operator, "/admin/ui/faxes"))


def test_verbs_are_those_that_are_possible_now_and_permitted(
    site: Site, operator: FlaskClient, viewer: FlaskClient
) -> None:
    def verbs(client: FlaskClient, fax: str) -> set[str]:
        text = page(client, f"/admin/ui/faxes/{fax}")
        shown = text.partition('<div class="verbs')[2].partition('<div class="row')[0]
        posts = re.findall(rf'hx-post="/admin/ui/faxes/{fax}/([a-z-]+)"', shown)
        asked = re.findall(rf'hx-get="/admin/ui/faxes/{fax}/([a-z-]+)"', shown)
        return {*posts, *asked, *re.findall(r'data-opens="#([a-z-]+)"', shown)}

    held, queued, over = site.sent("0403"), site.fax(), ended(site, "0404")
    retrying = ended(site, "0017")
    uncertain = doubtful(site)
    assert verbs(operator, uncertain) >= {"decide", "cancel"}
    assert verbs(operator, held) >= {"release", "cancel"}
    assert "cancel" in verbs(operator, queued)
    assert "hold" in verbs(operator, queued)
    assert not {"decide", "release", "resend", "send-now"} & verbs(operator, queued)
    assert verbs(operator, retrying) == {"cancel", "hold", "send-now"}
    assert verbs(operator, over) == {"resend"}
    for fax in (uncertain, held, queued, over):
        assert verbs(viewer, fax) == set()
    jobs.cancel(site.runtime, ACTOR, uncertain)
    assert "cancel" not in verbs(operator, uncertain), "it was asked for"


def test_an_uncertain_fax_is_settled_by_its_form_once_and_a_bad_word_settles_nothing(
    site: Site, operator: FlaskClient, uncertain: str
) -> None:
    path = f"/admin/ui/faxes/{uncertain}/decide"
    good = {"outcome": "delivered", "reason": "they called", "attempt": "1"}
    for bad in ({"outcome": "lost"}, {"reason": ""}, {"reason": "a\nb"}, {"attempt": "x"}):
        refused = operator.post(path, data={**good, **bad}, headers=BY_SCRIPT)
        assert next(iter(bad)) in problem(refused, 422, "invalid-fields")
    assert site.count(Decision) == 0
    assert "Settled" in said(deed(operator, path, **good))
    problem(operator.post(path, data=good, headers=BY_SCRIPT), 409, "not-possible-in-this-state")
    assert (site.job(uncertain).status, site.count(Decision)) == ("delivered", 1)


def test_a_fax_is_held_by_its_form_and_a_retrying_one_is_sent_now(
    site: Site, operator: FlaskClient
) -> None:
    queued, retrying = site.fax(), ended(site, "0017")
    assert "Held" in said(deed(operator, f"/admin/ui/faxes/{queued}/hold"))
    assert (site.job(queued).status, site.job(queued).reason) == ("held", "asked")
    site.rung.clear()
    assert "worker is free" in said(deed(operator, f"/admin/ui/faxes/{retrying}/send-now"))
    assert ("faxbot.send_fax", retrying) in site.rung
    refused = operator.post(f"/admin/ui/faxes/{queued}/send-now", headers=BY_SCRIPT)
    problem(refused, 409, "not-possible-in-this-state")


def test_a_fax_is_sent_once_more_once_however_often_its_button_is_pressed(
    site: Site, operator: FlaskClient
) -> None:
    over = ended(site, "0404")
    text = page(operator, f"/admin/ui/faxes/{over}")
    key = re.search(r'"Idempotency-Key": "([0-9a-f]{32})"', text)
    assert key is not None
    headers = {**BY_SCRIPT, "Idempotency-Key": key[1]}
    path = f"/admin/ui/faxes/{over}/resend"
    refused = operator.post(path, data={"to": "12"}, headers=headers)
    assert "to" in problem(refused, 400, "malformed")
    led = {
        operator.post(path, data={"to": "+15550104711"}, headers=headers).headers["HX-Redirect"]
        for _ in range(3)
    }
    assert len(led) == 1
    new = led.pop().rpartition("/")[2]
    assert site.job(new).resend_of == over
    assert "+15550104711" in page(operator, f"/admin/ui/faxes/{new}")


def test_a_fax_whose_provider_is_not_active_any_more_is_sent_once_more_by_another(
    site: Site, operator: FlaskClient
) -> None:
    over = ended(site, "0404")
    path = f"/admin/ui/faxes/{over}"
    assert "as faxbot chooses" in page(operator, path)
    with site.runtime.database.transaction() as session:
        session.execute(sa.update(Job).values(wanted_provider_id="phaxio"))
    assert "It was for phaxio, which is not active any more." in words(page(operator, path))
    for wish in ({}, {"provider_id": "phaxio"}):
        refused = operator.post(f"{path}/resend", data=wish, headers=BY_SCRIPT)
        assert "provider id" in problem(refused, 422, "invalid-fields")
    led = deed(operator, f"{path}/resend", provider_id="simulator").headers["HX-Redirect"]
    assert site.job(led.rpartition("/")[2]).wanted_provider_id == "simulator"


def test_what_carriers_said_is_shown_word_for_word_as_text_to_who_may_see_numbers(
    site: Site, operator: FlaskClient, viewer: FlaskClient
) -> None:
    fax = site.sent("0404")
    site.receive(site.callback(site.final_at_carrier(fax), remark="<script>alert(1)</script>"))
    site.work()
    shown = page(operator, f"/admin/ui/faxes/{fax}/evidence")
    assert "fax.news" in shown
    assert str(escape("<script>alert(1)</script>")) in shown
    for path in (f"/admin/ui/faxes/{fax}/evidence", f"/fax/{fax}/document", f"/fax/{fax}/pages/1"):
        assert viewer.get(path).status_code == 403
    seen = page(viewer, f"/admin/ui/faxes/{fax}")
    for word in ("/evidence", "/document", "/pages/"):
        assert word not in seen
        assert word in page(operator, f"/admin/ui/faxes/{fax}")


def test_the_page_of_a_fax_has_each_dialog_before_it_is_needed(
    site: Site, operator: FlaskClient, viewer: FlaskClient
) -> None:
    fax = site.fax()
    text = page(operator, f"/admin/ui/faxes/{fax}")
    for dialog in ("cancel", "resend"):
        assert f'<dialog id="{dialog}"' in text
    assert '<div id="asked"></div>' in text
    assert '<dialog id="cancel"' not in page(viewer, f"/admin/ui/faxes/{fax}")
    for form in re.findall(r"<form[^>]*hx-post[^>]*>", text):
        assert 'method="post" action="/admin/ui/' in form


# Many at once -------------------------------------------------------------------------------------------


def asked(text: str) -> list[str]:
    return re.findall(r'name="fax_id" value="([0-9a-f]{32})"', text)


def test_many_are_counted_first_then_done_and_what_has_moved_on_is_told(
    site: Site, operator: FlaskClient
) -> None:
    made = [site.fax() for _ in range(4)]
    before = deed(operator, "/admin/ui/faxes/ask", 200, deed="cancel", fax_id=made[:3])
    assert asked(before.text) == made[:3]
    assert "Cancel 3 faxes?" in words(before.text)
    assert queued(site) == set(made)
    jobs.cancel(site.runtime, ACTOR, made[0])
    after = deed(operator, "/admin/ui/faxes/do", deed="cancel", fax_id=[*made[:3], "0" * 32])
    assert "Cancel: 2 of 4." in said(after)
    assert "1 not: the fax is cancelled already" in said(after)
    assert queued(site) == {made[3]}


def test_of_many_that_are_sent_once_more_those_that_cannot_be_are_told_with_why(
    site: Site, operator: FlaskClient
) -> None:
    failed, bound, waiting = ended(site, "0404"), ended(site, "0404"), site.fax()
    with site.runtime.database.transaction() as session:
        bind = sa.update(Job).where(Job.id == bound).values(wanted_provider_id="phaxio")
        session.execute(bind)
    chosen = [failed, bound, waiting, "0" * 32]
    told = said(deed(operator, "/admin/ui/faxes/do", deed="resend", fax_id=chosen))
    assert "Send once more: 1 of 4." in told
    assert "1 not: It was for phaxio" in told
    assert "this one is queued." in told
    assert "there is no fax with this id." in told


def test_where_no_more_pages_may_be_sent_today_the_rest_is_told_at_once(
    store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    with open_site(store, carrier_of_all, FAXBOT_PAGES_PER_DAY="4") as site:
        failed = [ended(site, "0404") for _ in range(3)]
        operator = browser_of(site.runtime, new_user(site.runtime, OPERATOR))
        told = said(deed(operator, "/admin/ui/faxes/do", deed="resend", fax_id=failed))
    assert told.startswith("Send once more: 1 of 3. 2 not: ")
    assert "FAXBOT_PAGES_PER_DAY" in told


def test_all_that_match_are_those_of_the_filters_and_of_one_account(
    site: Site, operator: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, _ = site.sent("0403"), ended(site, "0404")
    waiting = [site.fax() for _ in range(3)]
    every = deed(
        operator, "/admin/ui/faxes/ask", 200, deed="cancel", all="yes", tab="waiting", fax_id=held
    )
    assert sorted(asked(every.text)) == sorted(waiting)
    monkeypatch.setitem(faxes.DEEDS, "cancel", replace(faxes.DEEDS["cancel"], most=2))
    some = deed(operator, "/admin/ui/faxes/ask", 200, deed="cancel", all="yes", tab="waiting")
    assert asked(some.text) == sorted(waiting, reverse=True)[:2]
    assert "More than 2 match" in words(some.text)


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"deed": "delete", "fax_id": "0" * 32}, 422, "invalid-fields"),
        ({"fax_id": "0" * 32}, 422, "invalid-fields"),
        ({"deed": "cancel"}, 409, "not-possible-in-this-state"),
        ({"deed": "cancel", "all": "yes", "tab": "nowhere"}, 422, "invalid-fields"),
    ],
)
def test_a_form_about_nothing_does_nothing(
    operator: FlaskClient, fields: dict[str, str], status: int, code: str
) -> None:
    problem(operator.post("/admin/ui/faxes/ask", data=fields, headers=BY_SCRIPT), status, code)
