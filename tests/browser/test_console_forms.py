"""Forms of the console in a browser: nothing that somebody typed is lost, or saved as what he did not mean."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from faxbot.actors import ADMIN, OPERATOR, VIEWER
from tests.browser import population
from tests.browser.clicks import click, dialog, go, listens, named, said
from tests.browser.looks import signed_in
from tests.browser.site import PASSWORD, Site
from tests.browser.test_console_deeds import fill, state, stayed, stays
from tests.browser.watch import Watch
from tests.ground import eventually
from tests.integration.web import ahead


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    mail = {"EMAIL_FROM": "fax@example.org", "EMAIL_TO": "ward@example.org"}
    return {**population.SETTINGS, **mail}


# What a form shows as saved ------------------------------------------------------------------------------


@signed_in(ADMIN)
def test_a_form_shows_what_it_saved_and_the_next_time_changes_nothing_else(
    page: Page, site: Site
) -> None:
    go(page, "plugins/email")

    def save(field: str, value: str) -> None:
        page.locator(f"#setting-{field}").fill(value)
        why = page.locator("#settings-note")
        why.fill("the mail has moved")
        page.get_by_label("save it although").check()
        click(page, "Test and save")
        expect(why).to_have_value("")
        expect(page.locator(f"#setting-{field}")).to_have_value(value)
        expect(page.locator(f"#setting-{field} ~ .form-check")).to_contain_text("take back")

    save("host", "first.example.org")
    save("host", "second.example.org")
    save("linkUrl", "https://fax.example.org")
    expect(page.locator("#setting-host")).to_have_value("second.example.org")
    shown = site.service.request("GET", "/plugins/email/config").json()["settings"]
    saved = {each["key"]: each["value"] for each in shown if each["source"] == "db"}
    assert saved == {"host": "second.example.org", "linkUrl": "https://fax.example.org"}


@signed_in(ADMIN)
def test_a_dialog_ticks_what_was_saved_in_it_before(page: Page, site: Site) -> None:
    go(page, f"users/{site.person(VIEWER).id}")
    for role in (OPERATOR, VIEWER):
        click(page, "Change the role")
        expect(dialog(page).locator("[checked]")).to_be_checked()
        dialog(page).locator(f"[value={role}]").check()
        click(page, "Change it")
        said(page, "Changed.")
        expect(page.locator(f"#role [value={role}]")).to_be_checked()


@signed_in(OPERATOR)
def test_what_became_of_a_fax_is_decided_on_a_page_that_was_open_before_its_attempt(
    page: Page, site: Site
) -> None:
    site.pause("simulator")
    fax_id = site.send("0500")
    go(page, f"faxes/{fax_id}")
    site.resume("simulator")
    eventually(lambda: site.fax(fax_id)["status"] == "uncertain")
    click(page, "Say what became of it")
    dialog(page).get_by_label("was delivered", exact=True).check()
    dialog(page).get_by_label("How do you know?").fill("the ward has it")
    click(page, "Settle it")
    state(page, "delivered")


@signed_in(OPERATOR)
def test_a_time_that_a_link_has_set_holds_until_a_day_is_chosen(page: Page, site: Site) -> None:
    site.send(send_at=ahead(2))
    go(page, "faxes?since=2999-01-01T00:00:00Z")
    for _ in range(2):
        expect(page.get_by_text("Only faxes accepted since")).to_be_visible()
        expect(page.get_by_text("No fax is here.")).to_be_visible()
        expect(page.get_by_label("From")).to_have_value("")
        click(page, "Show")
        listens(page)
    page.get_by_label("From").fill("2020-01-01")
    click(page, "Show")
    expect(page.locator("[data-row]").first).to_be_visible()
    expect(page.get_by_label("From")).to_have_value("2020-01-01")
    expect(page.get_by_text("Only faxes accepted since")).to_have_count(0)


@signed_in(ADMIN)
def test_an_import_that_is_wrong_says_so_where_it_was_typed_and_can_be_mended(
    page: Page, watch: Watch
) -> None:
    watch.expect("status of 422")
    go(page, "settings")
    click(page, "Import")
    form = dialog(page)
    form.get_by_label("Its text").fill("{not json")
    click(page, "Show what would change")
    expect(form.locator(".problems")).to_contain_text("It is not JSON.")
    assert form.get_by_label("Its text").input_value() == "{not json"
    document = {"kind": "faxbot settings", "format": 1, "options": {"FAX_HEADER": "Riverside"}}
    form.get_by_label("Its text").fill(json.dumps(document))
    click(page, "Show what would change")
    expect(page.locator("#changes")).to_contain_text("FAX_HEADER")
    expect(dialog(page)).to_have_count(1)


@signed_in(OPERATOR)
def test_who_works_by_keyboard_goes_on_at_the_top_once_the_button_that_he_pressed_is_gone(
    page: Page, site: Site
) -> None:
    go(page, f"faxes/{site.send(send_at=ahead(2))}")
    hold = page.get_by_role("button", name="Hold", exact=True)
    hold.focus()
    page.keyboard.press("Enter")
    state(page, "held")
    expect(hold).to_have_count(0)
    expect(page.locator("h1")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Release", exact=True)).to_be_focused()


# Pressed twice -------------------------------------------------------------------------------------------


def press_again(button: Locator, path: str) -> None:
    """A double click, and its form is sent once more, before anybody hears of the first; until the answer is there."""
    page, first = button.page, list[Route]()

    def wait(route: Route) -> None:
        if first:
            route.continue_()
        else:
            first.append(route)

    page.route(f"**{path}", wait)
    with page.expect_request(f"**{path}"):
        button.dblclick()
    expect(button).to_be_disabled()
    button.evaluate("button => button.form.requestSubmit()")
    first[0].continue_()
    expect(page.locator(".htmx-request")).to_have_count(0)


def written(site: Site, action: str, **of: str) -> list[dict[str, Any]]:
    """What the audit trail has of it."""
    query = "&".join(f"{name}={value}" for name, value in of.items())
    answer = site.service.request("GET", f"/admin/audit?action={action}&{query}")
    rows: list[dict[str, Any]] = answer.json()["items"]
    return rows


@signed_in(ADMIN)
def test_a_secret_is_rotated_once_and_the_one_before_is_good_as_long_as_was_said(
    page: Page, site: Site, watch: Watch
) -> None:
    wish = {"name": "pressed twice", "scopes": ["fax:read"]}
    key = site.service.request("POST", "/admin/api-keys", json=wish).json()
    path = f"/admin/ui/keys/{key['id']}/rotate"
    go(page, f"keys/{key['id']}")
    click(page, "New secret")
    press_again(named(page, "Make the new secret"), path)
    assert watch.posted == [path]
    assert len(written(site, "key.rotated", object_id=key["id"])) == 1
    for token in (key["token"], page.locator("#once-value").inner_text()):
        answer = page.request.get(f"{site.origin}/fax", headers={"X-API-Key": token})
        assert answer.status == 200


@signed_in(ADMIN)
@pytest.mark.parametrize(
    ("where", "opens", "fields", "listed"),
    [
        ("keys", "Make a key", {"fax:read": "yes"}, "/admin/api-keys"),
        ("webhooks", "Make a webhook", {"Address": "http://127.0.0.1:9999/"}, "/webhooks"),
    ],
)
def test_a_thing_is_made_once_and_its_secret_is_the_one_that_is_shown(
    page: Page,
    site: Site,
    watch: Watch,
    where: str,
    opens: str,
    fields: dict[str, str],
    listed: str,
) -> None:
    go(page, where)
    click(page, opens)
    dialog(page).get_by_label("What is it for?").fill("pressed once more")
    for label, value in fields.items():
        field = dialog(page).get_by_label(label)
        field.check() if value == "yes" else field.fill(value)
    press_again(named(page, "Make it"), f"/admin/ui/{where}")
    assert watch.posted == [f"/admin/ui/{where}"]
    expect(page.locator("#once-value")).to_have_count(1)
    made = site.service.request("GET", listed).json()["items"]
    assert [each["name"] for each in made].count("pressed once more") == 1


def test_who_signs_in_has_one_session_however_often_he_pressed(
    page: Page, site: Site, watch: Watch
) -> None:
    person = site.person(OPERATOR)
    before = written(site, "session.opened", actor=person.id)
    page.goto("/admin/ui/sign-in")
    form = page.locator("main form")
    form.get_by_label("Name").fill(person.name)
    form.get_by_label("Password").fill(PASSWORD)
    press_again(form.get_by_role("button"), "/admin/ui/sign-in")
    expect(page.locator(".top")).to_contain_text(person.name)
    assert watch.posted == ["/admin/ui/sign-in"]
    assert len(written(site, "session.opened", actor=person.id)) == len(before) + 1


@signed_in(ADMIN)
def test_who_works_by_keyboard_is_still_at_the_button_that_he_pressed_once_it_is_answered(
    page: Page, watch: Watch
) -> None:
    watch.expect("status of 422")
    go(page, "keys")
    click(page, "Make a key")
    form = dialog(page).locator("form")
    form.get_by_label("What is it for?").fill("nothing")
    button = named(page, "Make it")
    button.focus()
    page.keyboard.press("Enter")
    expect(form.locator(".problems")).to_contain_text("scopes")
    expect(page.locator(".htmx-request")).to_have_count(0)
    expect(button).to_be_focused()


# What went wrong -----------------------------------------------------------------------------------------


@signed_in(OPERATOR)
def test_why_something_was_not_done_stays_when_what_stands_on_the_page_is_had_anew(
    page: Page, site: Site, watch: Watch
) -> None:
    watch.expect("status of 409")
    fax_id = site.send(send_at=ahead(2))
    go(page, f"faxes/{fax_id}")

    def too_late(route: Route) -> None:
        """Somebody else was first."""
        assert site.service.request("POST", f"/fax/{fax_id}/hold").ok
        route.continue_()

    page.route(f"**/faxes/{fax_id}/hold", too_late)
    told = page.locator("#said")
    click(page, "Hold")
    expect(told).to_contain_text("holds it already")
    state(page, "held")
    expect(page.locator(".htmx-request")).to_have_count(0)
    expect(told).to_contain_text("holds it already")
    click(page, "Release")
    state(page, "queued")
    expect(told).to_be_empty()


# Whose session it is -------------------------------------------------------------------------------------


def signs_in_elsewhere(page: Page, site: Site, role: str) -> None:
    """In another tab of this browser the session is ended, and a person of this role signs in."""
    other = page.context.new_page()
    other.goto("/admin/ui/account")
    click(other, "Sign out")
    expect(other).to_have_url(f"{site.origin}/admin/ui/sign-in")
    form = other.locator("main form")
    form.get_by_label("Name").fill(site.person(role).name)
    form.get_by_label("Password").fill(PASSWORD)
    other.keyboard.press("Enter")
    expect(other.locator(".top")).to_contain_text(site.person(role).name)
    other.close()


def sent(page: Page) -> str:
    """The id of the fax whose page its form has led to."""
    expect(page).to_have_url(re.compile("/admin/ui/faxes/[0-9a-f]{32}$"))
    return page.url.rpartition("/")[2]


@signed_in(OPERATOR)
def test_what_was_typed_is_sent_once_its_person_has_signed_in_anew_in_another_tab(
    page: Page, role: str, site: Site, watch: Watch
) -> None:
    watch.expect("status of 40[13]")
    go(page, "send")
    fill(page, "0100")
    signs_in_elsewhere(page, site, role)
    click(page, "Send")
    assert site.final(sent(page))["status"] == "delivered"


@signed_in(OPERATOR)
def test_nothing_is_sent_in_the_name_of_who_has_signed_in_in_another_tab(
    page: Page, role: str, site: Site, watch: Watch
) -> None:
    watch.expect("status of 40[13]")
    go(page, "send")
    fill(page, "0100")
    signs_in_elsewhere(page, site, ADMIN)
    before = site.service.request("GET", "/fax?limit=1").json()["items"]
    stays(page)
    click(page, "Send")
    expect(dialog(page)).to_contain_text("What you typed is still here")
    assert site.service.request("GET", "/fax?limit=1").json()["items"] == before
    dialog(page).get_by_label("Password").fill(PASSWORD)
    click(page, "Sign in")
    expect(dialog(page)).to_have_count(0)
    assert stayed(page)
    click(page, "Send")
    assert site.final(sent(page))["status"] == "delivered"
    expect(page.locator(".top")).to_contain_text(site.person(role).name)


@signed_in(ADMIN)
def test_a_page_becomes_that_of_who_signs_in_on_it_again(
    page: Page, site: Site, watch: Watch
) -> None:
    watch.expect("status of 401")
    watch.expect("status of 403")
    go(page, "keys")
    page.context.clear_cookies()
    click(page, "Make a key")
    dialog(page).get_by_label("What is it for?").fill("pharmacy")
    dialog(page).get_by_label("fax:read").check()
    click(page, "Make it")
    again = page.locator("#again")
    again.get_by_label("Name").fill(site.person(OPERATOR).name)
    again.get_by_label("Password").fill(PASSWORD)
    again.get_by_role("button", name="Sign in").click()
    expect(page.locator(".top")).to_contain_text(site.person(OPERATOR).name)
    expect(page.locator("h1")).to_have_text("403")


@signed_in(OPERATOR)
def test_a_page_and_a_document_of_a_fax_ask_who_is_there_once_the_session_is_over(
    page: Page, site: Site, watch: Watch
) -> None:
    watch.expect("status of 401")
    fax_id = site.send("0000")
    site.final(fax_id)
    go(page, f"faxes/{fax_id}")
    again = page.locator("#again")

    def signs_in() -> None:
        again.get_by_label("Password").fill(PASSWORD)
        again.get_by_role("button", name="Sign in").click()
        expect(again).to_be_hidden()

    leaf = page.locator("#leaves").get_by_role("button", name="Page 1")
    page.context.clear_cookies()
    leaf.click()
    expect(again).to_be_visible()
    signs_in()
    leaf.click()
    expect(page.locator("#leaves").get_by_role("img", name="Page 1")).to_be_visible()
    page.context.clear_cookies()
    link = page.get_by_role("link", name="PDF as sent")
    link.click()
    expect(again).to_be_visible()
    signs_in()
    with page.expect_download() as kept:
        link.click()
    assert kept.value.path().read_bytes().startswith(b"%PDF-")
