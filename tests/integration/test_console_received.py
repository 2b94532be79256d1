"""Received faxes in the console: who sees what of them, what is done with them, and what a carrier said is text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient

from faxbot import inbound, legalholds
from faxbot.actors import ADMIN, CLI, OPERATOR, VIEWER
from faxbot.audit import Action
from faxbot.errors import AccountRefused, Refused
from faxbot.hidden import Hidden
from faxbot.results import stamp
from tests.carrier import SimulatorProcess
from tests.installation import Installation
from tests.integration.console import (
    deed,
    filled,
    filtered_again,
    page,
    problem,
    said,
    shown_once,
    words,
)
from tests.integration.odd import raises
from tests.integration.site import Site, open_site
from tests.integration.test_arrivals import FROM, INBOUND, PDF, TO, arrives, faxes, given_up, gives
from tests.integration.test_audit_deeds import rows
from tests.integration.web import browser_of, client_of, new_user

MASKED = "+\u2022\u2022\u2022\u2022\u2022\u2022\u2022\u2022\u202201"
HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
NOTHING = "0" * 32


@pytest.fixture
def site(store: Installation, carrier_of_all: SimulatorProcess) -> Iterator[Site]:
    with open_site(store, carrier_of_all, more=INBOUND) as site:
        yield site


def browser(site: Site, role: str) -> FlaskClient:
    return browser_of(site.runtime, new_user(site.runtime, role))


def received(site: Site, name: str = "in-1", **facts: Any) -> str:
    site.odd.does["document"] = gives(PDF)
    arrives(site, body=f'"{name}"'.encode(), external_id=name, **facts)
    site.work()
    (fax,) = (each for each in faxes(site) if each.external_id == name)
    return str(fax.id)


def test_the_list_masks_numbers_for_everybody_and_one_fax_shows_them_to_who_may_open_it(
    site: Site,
) -> None:
    inbound_id = received(site)
    for role in (ADMIN, OPERATOR, VIEWER):
        text = page(browser(site, role), "/admin/ui/inbound")
        assert '<a href="/admin/ui/inbound?tab=unread">1 unread</a>' in text
        assert MASKED in text
        assert FROM not in text
        assert TO not in text
        assert (f'href="/admin/ui/inbound/{inbound_id}"' in text) == (role != VIEWER)
    shown = words(page(browser(site, OPERATOR), f"/admin/ui/inbound/{inbound_id}"))
    assert FROM in shown
    assert TO in shown
    assert "FAX_RECEIVED" in shown
    (row,) = rows(site.runtime, Action.INBOUND_SHOWN)
    assert (row.object_id, row.outcome) == (inbound_id, "done")


def test_a_page_that_asks_by_itself_is_not_written_down_again(site: Site) -> None:
    inbound_id, asks = received(site), browser(site, OPERATOR)
    asks.get(f"/admin/ui/inbound/{inbound_id}", headers={"X-Background": "1"})
    assert rows(site.runtime, Action.INBOUND_SHOWN) == []


def test_no_page_is_had_before_it_is_opened(site: Site) -> None:
    inbound_id = received(site)
    text = page(browser(site, OPERATOR), f"/admin/ui/inbound/{inbound_id}")
    assert "<img" not in text
    assert [f'data-image="/inbound/{inbound_id}/pages/{n}"' in text for n in (0, 1, 2, 3)] == [
        False, True, True, False,
    ]  # fmt: skip
    assert rows(site.runtime, Action.DOCUMENT_OPENED) == []


def test_each_tab_shows_its_own(site: Site) -> None:
    asks = browser(site, OPERATOR)
    of = {"unread": received(site, "in-1"), "failed": received(site, "in-2", cause="busy")}
    read = received(site, "in-3")
    inbound.mark(site.runtime, CLI, read, read=True)
    for tab, inbound_id in of.items():
        text = page(asks, f"/admin/ui/inbound?tab={tab}")
        assert [each for each in (*of.values(), read) if f"row-{each}" in text] == [inbound_id]
    everything = page(asks, "/admin/ui/inbound")
    assert all(f"row-{each}" in everything for each in (*of.values(), read))
    assert "It failed on its way here" in everything
    assert "No received fax is here" in page(asks, "/admin/ui/inbound?tab=fetching")


def test_read_and_unread_and_back(site: Site) -> None:
    inbound_id, asks = received(site), browser(site, OPERATOR)
    assert "read" in said(deed(asks, f"/admin/ui/inbound/{inbound_id}/read"))
    assert "Mark as unread" in page(asks, f"/admin/ui/inbound/{inbound_id}")
    deed(asks, f"/admin/ui/inbound/{inbound_id}/unread")
    assert "Mark as read" in page(asks, f"/admin/ui/inbound/{inbound_id}")


def test_one_whose_document_nobody_had_is_tried_once_more_by_a_button(site: Site) -> None:
    site.odd.does["document"] = raises(Refused())
    arrives(site)
    given_up(site)
    inbound_id, asks = str(faxes(site)[0].id), browser(site, OPERATOR)
    path = f"/admin/ui/inbound/{inbound_id}"
    assert "Try once more" in page(asks, path)
    assert "tried" in said(deed(asks, f"{path}/fetch"))
    assert "Try once more" not in page(asks, path)
    assert "Its document is being had" in problem(
        deed(asks, f"{path}/fetch", 409), 409, "not-possible-in-this-state"
    )


def test_a_time_that_a_link_has_set_is_said_and_kept_when_the_list_is_filtered_further(
    site: Site,
) -> None:
    received(site)
    site.now += timedelta(minutes=10)
    inbound_id, asks = received(site, "in-2"), browser(site, OPERATOR)
    text = page(asks, f"/admin/ui/inbound?since={stamp(site.now)}")
    for _ in range(2):
        assert re.findall('id="row-([^"]*)"', text) == [inbound_id]
        assert "Only faxes that came since" in words(text)
        text = filtered_again(asks, text)
    text = filtered_again(asks, text, since="2020-01-01")
    assert text.count('id="row-') == 2
    assert "Only faxes that came since" not in words(text)


def test_one_whose_document_will_never_be_had_is_given_up_by_a_button(site: Site) -> None:
    site.odd.does["document"] = raises(AccountRefused())
    arrives(site)
    site.work()
    inbound_id, asks = str(faxes(site)[0].id), browser(site, OPERATOR)
    path = f"/admin/ui/inbound/{inbound_id}"
    assert "Mark as read" not in page(asks, path)
    assert "Given up" in said(deed(asks, f"{path}/give-up"))
    shown = page(asks, path)
    assert ("Give up" in shown, "Mark as read" in shown, "Try once more" in shown) == (
        False,
        True,
        True,
    )
    assert "is not being had" in problem(
        deed(asks, f"{path}/give-up", 409), 409, "not-possible-in-this-state"
    )


def test_a_link_is_shown_once_and_opens_the_document_without_a_session(site: Site) -> None:
    inbound_id, asks = received(site), browser(site, OPERATOR)
    url = shown_once(deed(asks, f"/admin/ui/inbound/{inbound_id}/link", 200))
    path = url.removeprefix(site.runtime.config.base_url)
    answer = client_of(site.runtime).get(path)
    assert answer.data == PDF
    answer.close()
    assert "token=" not in page(asks, f"/admin/ui/inbound/{inbound_id}")


def test_operators_see_a_legal_hold_and_administrators_place_and_lift_it(site: Site) -> None:
    inbound_id = received(site)
    path, asks = f"/admin/ui/inbound/{inbound_id}", browser(site, ADMIN)
    assert "reason" in problem(deed(asks, f"{path}/hold", 422), 422, "invalid-fields")
    deed(asks, f"{path}/hold", reason="case 4711")
    text = page(browser(site, OPERATOR), path)
    assert "case 4711" in text
    assert "/lift" not in text
    assert "/hold" not in text
    (held,) = legalholds.of(site.runtime, CLI, legalholds.INBOUND, inbound_id)
    deed(asks, f"{path}/lift", hold=held["id"])
    assert "lifted" in words(page(asks, path))


def test_what_a_carrier_and_people_wrote_is_shown_as_text(site: Site) -> None:
    inbound_id = received(site, HOSTILE, sender=Hidden(HOSTILE))
    asks = browser(site, ADMIN)
    deed(asks, f"/admin/ui/inbound/{inbound_id}/hold", reason=HOSTILE)
    text = page(asks, f"/admin/ui/inbound/{inbound_id}")
    assert HOSTILE not in text
    assert HOSTILE in words(text.replace("&lt;", "\u2039").replace("&gt;", "\u203a")).replace(
        "\u2039", "<"
    ).replace("\u203a", ">")
    page(asks, "/admin/ui/inbound")


@pytest.mark.parametrize(
    "query",
    ["tab=nowhere", "cursor=x", "since=yesterday", "until=9999-12-31", "provider_id=%00", "from_key=+15550100000",
     "unknown=1", "since=1&since=2", f"provider_id={'x' * 5000}"],
)  # fmt: skip
def test_what_no_list_can_show_is_said_beside_the_filters_and_no_number_of_it_is_repeated(
    site: Site, query: str
) -> None:
    answer = browser(site, OPERATOR).get(f"/admin/ui/inbound?until=2026-11-01&{query}")
    assert answer.status_code in (400, 422)
    assert "data-problem=" in answer.text
    assert "No received fax is here" not in answer.text
    typed = filled(answer.text.partition('action="/admin/ui/inbound"')[2].partition("</form>")[0])
    assert typed["until"] == "2026-11-01"
    assert not typed.keys() & {"tab", "from_key"}, "what no field shows is not sent once more"
    assert "15550100000" not in answer.text.replace("/admin/ui/inbound?", "")


def test_where_faxes_are_not_received_the_page_says_so(
    store: Installation, carrier_of_all: SimulatorProcess
) -> None:
    with open_site(store, carrier_of_all, INBOUND_ENABLED="false") as site:
        asks = browser(site, ADMIN)
        shown = page(asks, "/admin/ui/inbound")
        assert '<a href="/admin/ui/settings#INBOUND_ENABLED">' in shown
        assert 'href="/admin/ui/inbound"' not in shown, "nor does the menu lead there"
        assert "is kept as it came for 30 days" in words(shown), "it goes like every message"
        assert "settings#" not in page(browser(site, OPERATOR), "/admin/ui/inbound")
        page(asks, f"/admin/ui/inbound/{NOTHING}", 404)
