"""What people do in the console, clicked and typed in a browser, with a real queue and carrier behind it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Dialog, Page, expect

from faxbot.actors import ADMIN, OPERATOR
from tests.acceptance.site import PDF
from tests.browser import population
from tests.browser.clicks import click, dialog, go, in_turn, listens, press, said
from tests.browser.looks import Visit, signed_in
from tests.browser.site import PASSWORD, Site
from tests.browser.verbs import CLICKED_IN, leads
from tests.browser.watch import Watch
from tests.ground import eventually
from tests.integration.web import ahead
from tests.receiver import Receiver

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    return population.SETTINGS


@pytest.fixture
def width(request: pytest.FixtureRequest) -> int:
    """Each test sits before another screen than the one above it."""
    names = [name for name in vars(request.module) if name.startswith("test_")]
    return in_turn(names.index(request.function.__name__))


@pytest.fixture(autouse=True)
def sends_its_verbs(request: pytest.FixtureRequest, watch: Watch) -> Iterator[None]:
    """What verbs.py says is clicked in a test has been."""
    yield
    its = [route for route, name in CLICKED_IN.items() if name == request.function.__name__]
    missed = [route for route in its if not any(leads(route, path) for path in watch.posted)]
    assert not missed, f"{missed} were not clicked"


@pytest.fixture
def paused(site: Site) -> Iterator[None]:
    """The carrier gets nothing until the test has it resumed, or ends."""
    site.pause("simulator")
    yield
    site.resume("simulator")


def stays(page: Page) -> None:
    """From now on nobody may load the page anew: stayed() would see it."""
    page.evaluate("window.stayed = true")


def stayed(page: Page) -> bool:
    return bool(page.evaluate("window.stayed === true"))


def state(page: Page, words: str) -> None:
    """The fax that is shown is in this state, or one of these a|b, now or soon."""
    expect(page.locator("h1")).to_have_text(re.compile(rf"^\s*({words})\s"))


# Coming in -----------------------------------------------------------------------------------------------


def test_a_wrong_password_is_told_where_it_was_typed_and_the_right_one_leads_on(
    page: Page, site: Site, watch: Watch
) -> None:
    watch.expect("status of 401")
    name = site.person(OPERATOR).name
    page.goto("/admin/ui/faxes?tab=done")
    form = page.locator("main form")
    form.get_by_label("Name").fill(name)
    form.get_by_label("Password").fill("not this one")
    click(page, "Sign in")
    expect(form.locator(".problems")).to_contain_text("not right")
    expect(form.get_by_label("Name")).to_have_value(name)
    form.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{site.origin}/admin/ui/faxes?tab=done")
    expect(page.locator(".top")).to_contain_text(name)


@signed_in(OPERATOR)
def test_what_was_typed_outlives_the_session(
    page: Page, role: str, site: Site, watch: Watch
) -> None:
    """Its other window has signed out meanwhile."""
    watch.expect("status of 401")
    go(page, "send")
    fill(page, "0100")
    other = page.context.new_page()
    other.goto("/admin/ui/account")
    click(other, "Sign out")
    expect(other).to_have_url(f"{site.origin}/admin/ui/sign-in")
    other.close()
    stays(page)
    click(page, "Send")
    expect(dialog(page)).to_contain_text("What you typed is still here")
    assert dialog(page).get_by_label("Name").input_value() == site.person(role).name
    dialog(page).get_by_label("Password").fill(PASSWORD)
    click(page, "Sign in")
    expect(dialog(page)).to_have_count(0)
    assert stayed(page)
    assert page.get_by_label("To", exact=True).input_value() == "+15550100100"
    click(page, "Send")
    expect(page).to_have_url(re.compile("/admin/ui/faxes/[0-9a-f]{32}$"))
    assert site.final(page.url.rpartition("/")[2])["status"] == "delivered"


# Faxes ---------------------------------------------------------------------------------------------------


def fill(page: Page, ending: str) -> None:
    """The form for a fax, with the example."""
    page.get_by_label("To", exact=True).fill(f"+1555010{ending}")
    page.get_by_label("Documents").set_input_files(PDF)
    expect(page.locator("#chosen")).to_contain_text(PDF.name)


@signed_in(OPERATOR)
@pytest.mark.usefixtures("paused")
def test_a_fax_is_sent_by_its_form_and_its_page_follows_it_to_its_end(
    page: Page, site: Site
) -> None:
    go(page, "send")
    fill(page, "0000")
    press(page.get_by_text("When, how, and by which name"))
    page.get_by_label("Name of the tag").fill("case")
    page.get_by_label("Value of the tag").fill("4711")
    click(page, "Send")
    expect(page).to_have_url(re.compile("/admin/ui/faxes/[0-9a-f]{32}$"))
    listens(page)
    state(page, "queued|held")
    expect(page.locator(".facts").first).to_contain_text("4711")
    stays(page)
    site.resume("simulator")
    state(page, "delivered")
    expect(page.locator(".timeline")).to_contain_text("FAX_DELIVERED")
    expect(page.locator(".facts").first).to_contain_text("3/3")
    assert stayed(page)


@signed_in(OPERATOR)
@pytest.mark.usefixtures("paused")
def test_pages_come_by_themselves_once_they_are_made_and_stay_open_once_they_are_opened(
    page: Page, site: Site
) -> None:
    fax_id = site.send("0000")
    go(page, f"faxes/{fax_id}")
    leaves = page.locator("#leaves")
    expect(leaves).to_contain_text("stand here then")
    site.resume("simulator")
    first = leaves.get_by_role("button", name="Page 1")
    expect(first).to_be_visible()
    first.scroll_into_view_if_needed()
    preview = first.locator("img")
    expect(preview).to_have_js_property("complete", True)
    expect(preview).to_have_js_property("naturalWidth", 24)
    press(first)
    opened_page = leaves.get_by_role("img", name="Page 1")
    expect(opened_page).to_be_focused()
    expect(opened_page).to_have_js_property("naturalWidth", 850)
    state(page, "delivered")
    expect(opened_page).to_be_visible()


@signed_in(OPERATOR)
def test_what_failed_is_sent_once_more_and_needs_nobody_any_more(page: Page, site: Site) -> None:
    fax_id = site.send("0048")
    eventually(lambda: site.fax(fax_id)["status"] == "failed")
    go(page, "needs-you")
    row = page.locator(f"#row-{fax_id}")
    press(row.get_by_role("button", name="Send once more"))
    expect(dialog(page)).to_contain_text("Send 1 fax once more?")
    click(page, "Send once more")
    said(page, "Send once more: 1 of 1.")
    expect(row).to_have_count(0)
    made = site.service.request("GET", "/fax?limit=1").json()["items"]
    assert [each["resend_of"] for each in made] == [fax_id]


@signed_in(OPERATOR)
def test_a_scheduled_fax_is_cancelled_once_its_dialog_is_answered(page: Page, site: Site) -> None:
    fax_id = site.send(send_at=ahead(2))
    go(page, f"faxes/{fax_id}")
    click(page, "Cancel")
    click(page, "Not now")
    expect(dialog(page)).to_have_count(0)
    assert site.fax(fax_id)["status"] == "queued"
    click(page, "Cancel")
    click(page, "Cancel the fax")
    state(page, "cancelled")
    assert site.fax(fax_id)["status"] == "cancelled"


@signed_in(OPERATOR)
def test_many_are_cancelled_at_once_and_how_many_is_said_before(page: Page, site: Site) -> None:
    faxes = [site.send(send_at=ahead(2), **{"tags[batch]": "monday"}) for _ in range(4)]
    go(page, "faxes?tag=batch%3Dmonday")
    for fax_id in faxes[:2]:
        page.locator(f"#row-{fax_id} input").check()
    click(page, "Cancel")
    expect(dialog(page)).to_contain_text("Cancel 2 faxes?")
    click(page, "Not now")
    page.get_by_label("all that match").check()
    click(page, "Cancel")
    expect(dialog(page)).to_contain_text("Cancel 4 faxes?")
    assert {site.fax(fax_id)["status"] for fax_id in faxes} == {"queued"}
    click(page, "Cancel")
    said(page, "Cancel: 4 of 4.")
    expect(page.locator("[data-row] .status")).to_have_text(["cancelled"] * 4)


@signed_in(OPERATOR)
def test_a_filtered_list_follows_its_faxes_and_keeps_what_is_ticked(page: Page, site: Site) -> None:
    ticked = site.send(send_at=ahead(2), **{"tags[batch]": "news"})
    go(page, "faxes?tag=batch%3Dnews")
    page.locator(f"#row-{ticked} input").check()
    stays(page)
    other = site.send("0000", **{"tags[batch]": "news"})
    expect(page.locator(f"#row-{other} .status")).to_have_text("delivered")
    expect(page.locator(f"#row-{ticked} input")).to_be_checked()
    assert stayed(page)


@signed_in(OPERATOR)
def test_a_held_fax_is_released_where_it_is_said_that_it_waits(page: Page, site: Site) -> None:
    fax_id = site.send(send_at=ahead(2))
    assert site.service.request("POST", f"/fax/{fax_id}/hold").ok
    go(page, "needs-you")
    row = page.locator(f"#row-{fax_id}")
    press(row.get_by_role("button", name="Release"))
    expect(row).to_have_count(0)
    assert site.fax(fax_id)["status"] == "queued"


@signed_in(OPERATOR)
def test_what_became_of_an_uncertain_fax_is_decided_with_a_reason(page: Page, site: Site) -> None:
    fax_id = site.send("0500")
    eventually(lambda: site.fax(fax_id)["status"] == "uncertain")
    go(page, f"faxes/{fax_id}")
    click(page, "Say what became of it")
    dialog(page).get_by_label("was delivered", exact=True).check()
    click(page, "Settle it")
    expect(dialog(page)).to_have_count(1)  # a reason is wanted
    dialog(page).get_by_label("How do you know?").fill("the ward has it")
    click(page, "Settle it")
    state(page, "delivered")
    expect(page.locator("#live")).to_contain_text("the ward has it")


@signed_in(OPERATOR)
def test_a_list_is_gone_through_by_keys(page: Page, site: Site) -> None:
    faxes = [site.send(send_at=ahead(2), **{"tags[batch]": "keys"}) for _ in range(2)]
    go(page, "faxes?tag=batch%3Dkeys")
    newest, older = (page.locator(f"#row-{fax_id}") for fax_id in reversed(faxes))
    page.keyboard.press("j")
    expect(newest.locator("a")).to_be_focused()
    page.keyboard.press("j")
    expect(older.locator("a")).to_be_focused()
    page.keyboard.press("x")
    expect(older.locator("input")).to_be_checked()
    expect(newest.locator("input")).not_to_be_checked()
    page.keyboard.press("k")
    expect(newest.locator("a")).to_be_focused()
    page.keyboard.press("/")
    expect(page.get_by_label("Number")).to_be_focused()
    page.keyboard.type("j/x")
    assert page.get_by_label("Number").input_value() == "j/x"
    newest.locator("a").focus()
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{site.origin}/admin/ui/faxes/{faxes[1]}")


@signed_in(OPERATOR)
def test_commands_of_one_key_are_switched_off_and_on_again(page: Page, site: Site) -> None:
    fax_id = site.send(send_at=ahead(2), **{"tags[batch]": "off"})
    go(page, "faxes?tag=batch%3Doff")
    row, opens = page.locator(f"#row-{fax_id} a"), page.get_by_role("button", name="Keyboard")

    def switch() -> None:
        press(opens)
        press(dialog(page).get_by_label("are on in this browser"))
        click(page, "Close")

    def press_all() -> None:
        for key in ("j", "x", "k", "/", "?"):
            page.keyboard.press(key)

    switch()
    press_all()
    expect(opens).to_be_focused()
    expect(dialog(page)).to_have_count(0)
    go(page, "faxes?tag=batch%3Doff")
    press_all()
    expect(page.locator("body")).to_be_focused()
    expect(dialog(page)).to_have_count(0)
    switch()
    page.keyboard.press("j")
    expect(row).to_be_focused()
    page.keyboard.press("?")
    expect(dialog(page)).to_contain_text("Keys")


# The service ---------------------------------------------------------------------------------------------


@signed_in(ADMIN)
def test_a_key_is_made_and_its_token_is_shown_this_once(page: Page, site: Site) -> None:
    go(page, "keys")
    click(page, "Make a key")
    dialog(page).get_by_label("What is it for?").fill("pharmacy")
    dialog(page).get_by_label("fax:read").check()
    click(page, "Make it")
    token = page.locator("#once-value").inner_text()
    answer = page.request.get(f"{site.origin}/fax", headers={"X-API-Key": token})
    assert answer.status == 200
    click(page, "I have it")
    expect(page.locator("#live")).to_contain_text("pharmacy")
    assert token not in page.content()
    page.reload()
    assert token not in page.content()


@signed_in(ADMIN)
def test_a_webhook_is_made_tried_and_active(page: Page) -> None:
    with Receiver() as receiver:
        go(page, "webhooks")
        click(page, "Make a webhook")
        dialog(page).get_by_label("What is it for?").fill("records")
        dialog(page).get_by_label("Address").fill(f"{receiver.url}/faxbot")
        click(page, "Make it")
        expect(page.locator("#once-value")).to_contain_text("whsec_")
        click(page, "I have it")
        press(page.get_by_role("link", name="records"))
        expect(page.locator("h1")).to_have_text("records")
        listens(page)
        click(page, "Send a test event")
        expect(dialog(page)).to_contain_text("was taken")
        assert len(receiver.heard) == 1
        click(page, "Close")
        expect(page.locator("main .status").first).to_have_text("active")
        click(page, "Delete")
        press(dialog(page).locator("button.btn-danger"))
        expect(page).to_have_url(re.compile("/admin/ui/webhooks$"))


@signed_in(ADMIN)
def test_a_setting_is_changed_and_says_where_its_value_comes_from(page: Page) -> None:
    go(page, "settings")
    page.get_by_label("Search").fill("FAXBOT_SESSION_IDLE")
    row = page.locator("#FAXBOT_SESSION_IDLE_MINUTES")
    expect(page.locator("[data-sifted]:visible")).to_have_count(1)
    expect(row.locator(".badge")).to_have_text("default")
    press(row.get_by_role("button"))
    dialog(page).get_by_label("Value").fill("20")
    dialog(page).get_by_label("Why?").first.fill("rounds take longer")
    click(page, "Save")
    expect(row.locator(".badge")).to_have_text("db")
    expect(row.locator(".value")).to_have_text("20")


@signed_in(OPERATOR)
def test_a_provider_is_paused_and_resumed(page: Page, site: Site) -> None:
    go(page, "providers/simulator")
    click(page, "Pause")
    dialog(page).get_by_label("Why?").fill("the line is mended")
    click(page, "Pause")
    expect(page.locator("main")).to_contain_text("the line is mended")
    expect(page.locator("main .status").first).to_have_text("paused")
    click(page, "Resume")
    dialog(page).get_by_label("Why?").fill("it is done")
    click(page, "Resume")
    expect(page.get_by_role("button", name="Pause", exact=True)).to_be_visible()
    shown = site.service.request("GET", "/admin/providers/simulator").json()
    assert [event["note"] for event in shown["history"][:2]] == ["it is done", "the line is mended"]


@signed_in(OPERATOR)
def test_a_number_stands_in_no_address_even_where_no_script_came(page: Page, watch: Watch) -> None:
    watch.expect("htmx.*ERR_FAILED|ERR_FAILED.*htmx")
    watch.expect("htmx is not defined|status of 403")
    page.route("**/htmx*", lambda route: route.abort())
    page.goto("/admin/ui/faxes")
    page.get_by_label("Number").fill("+15550100000")
    click(page, "Find")
    expect(page.locator("h1")).to_contain_text("403")
    assert "5550100000" not in page.url


# The pages themselves ------------------------------------------------------------------------------------


@signed_in(OPERATOR)
def test_the_colours_that_one_chose_are_kept(page: Page) -> None:
    root = page.locator("html")
    go(page, "")
    expect(root).to_have_attribute("data-bs-theme", "light")
    click(page, "Theme")
    expect(root).to_have_attribute("data-bs-theme", "dark")
    go(page, "faxes")
    expect(root).to_have_attribute("data-bs-theme", "dark")
    page.emulate_media(color_scheme="light")
    expect(root).to_have_attribute("data-bs-theme", "dark")


def test_what_others_wrote_is_text_on_every_page(visit: Visit, site: Site) -> None:
    wanted = {
        "/webhooks": {"name": HOSTILE, "url": "http://127.0.0.1:9999/", "types": ["*"]},
        "/admin/api-keys": {"name": HOSTILE, "scopes": ["fax:read"]},
        "/admin/users": {"name": HOSTILE, "role": "viewer", "password": PASSWORD},
        "/admin/providers/simulator/pause": {"note": HOSTILE},
        "/admin/providers/simulator/resume": {"note": HOSTILE},
    }
    made = {}
    for path, wish in wanted.items():
        answer = site.service.request("POST", path, json=wish)
        assert answer.ok, answer.text
        made[path] = answer.json()
    header = {"settings": {"FAX_HEADER": HOSTILE[:40]}, "note": HOSTILE}
    assert site.service.request("PATCH", "/admin/config", json=header).ok
    fax_id = site.send(send_at=ahead(2), **{"tags[case]": HOSTILE})
    page = visit(ADMIN)
    alerts: list[str] = []

    def alert(shown: Dialog) -> None:
        alerts.append(shown.message)
        shown.dismiss()

    page.on("dialog", alert)
    shown = {
        f"faxes/{fax_id}": HOSTILE,
        f"webhooks/{made['/webhooks']['id']}": HOSTILE,
        "webhooks": HOSTILE,
        f"keys/{made['/admin/api-keys']['id']}": HOSTILE,
        "keys": HOSTILE,
        f"users/{made['/admin/users']['id']}": HOSTILE,
        "users": HOSTILE,
        "providers/simulator": HOSTILE,
        "settings": HOSTILE[:40],
        "settings/versions": HOSTILE,
    }
    for path, text in shown.items():
        go(page, path)
        expect(page.locator("main")).to_contain_text(text)
        expect(page.locator("main img, main script")).to_have_count(0)
    for path in ("audit", "", "faxes", "diagnostics"):
        go(page, path)
    assert alerts == []
