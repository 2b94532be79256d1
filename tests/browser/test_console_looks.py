"""Every page of the console on every screen, by everybody who may see it. A new page is among them by itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from urllib.parse import urlsplit

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from faxbot.actors import ADMIN, OPERATOR, ROLES, VIEWER
from faxbot.web.auth import OPEN, WITHOUT_KEY
from faxbot.web.console import PLACES
from tests.browser import population
from tests.browser.conftest import SCREENSHOTS, Sit
from tests.browser.looks import (
    HEIGHTS,
    assert_accessible,
    assert_accessible_in_both_schemes,
    assert_fits,
    first_load,
    signed_in,
)
from tests.browser.site import Site
from tests.integration.console import CONSOLE, FILES
from tests.integration.test_console_doors import SCOPES
from tests.receiver import Receiver

PARTS = {
    "GET /admin/ui/fitness": ("/admin/ui/", ""),
    "GET /admin/ui/diagnostics/findings": ("/admin/ui/diagnostics", ""),
    "GET /admin/ui/faxes/<fax_id>/decide": ("/admin/ui/needs-you", "[hx-get$='/decide']"),
    "GET /admin/ui/faxes/<fax_id>/evidence": (
        "GET /admin/ui/faxes/<fax_id>",
        "[hx-get$='/evidence']",
    ),
    "GET /admin/ui/settings/<name>/edit": ("/admin/ui/settings", "[hx-get$='/edit']"),
    "GET /admin/ui/settings/versions/<version>": (
        "/admin/ui/settings/versions",
        "[hx-get*='/versions/']",
    ),
}
"""What is no page but part of one: of which, and what has to be clicked there; nothing: the page has it by itself."""
NO_PAGES = FILES | {"GET /admin/ui/static/<name>", "GET /admin/ui/audit/export/<form>"}
PAGES = sorted(
    route for route in CONSOLE if route.startswith("GET ") and route not in NO_PAGES | PARTS.keys()
)
FIRST = "GET /admin/ui/setup/first"
FIRST_PAINT = 150_000
PICTURES_BYTES = 1_200_000
_LEADS = """() => [...document.querySelectorAll('[href], [action], [hx-get], [hx-post], [formaction]')]
  .flatMap(each => ['href', 'action', 'hx-get', 'hx-post', 'formaction'].map(name => each.getAttribute(name)))
  .filter(address => address?.startsWith('/admin/ui/'))"""


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    return population.SETTINGS


@pytest.fixture(scope="module")
def ids(site: Site, receiver: Receiver) -> dict[str, str]:
    return {
        **population.populate(site, receiver),
        "user_id": site.person(VIEWER).id,
    }


@pytest.fixture(scope="module")
def at(ids: dict[str, str]) -> Callable[[str], str]:
    """The address of a route, with what there is of its kind."""

    def at(route: str) -> str:
        return re.sub("<(.*?)>", lambda match: ids[match[1]], route.partition(" ")[2])

    return at


def look(page: Page, path: str) -> None:
    """It loads, is whole and says what it is."""
    answer = page.goto(path)
    assert answer is not None
    assert answer.status == 200, path
    assert urlsplit(page.url).path == path
    settle(page)
    expect(page).to_have_title(re.compile(r"^.+ · faxbot$"))
    expect(page.locator("h1")).to_have_count(1)
    expect(page.locator("footer a").first).to_be_visible()
    assert_fits(page)


def settle(page: Page) -> None:
    """What the page asks for by itself has come."""
    expect(page.locator(".htmx-request")).to_have_count(0)


def assert_dialogs_fit(page: Page) -> None:
    """Each dialog that a button opens has room, and everybody can read it."""
    for button in page.locator("main button[data-opens]").all():
        button.click()
        assert_fits(page)
        assert_accessible_in_both_schemes(page, "dialog[open]")
        page.keyboard.press("Escape")


@pytest.mark.parametrize("route", PAGES)
def test_a_page_suits_every_screen_and_everybody_can_read_it(
    sit: Sit, site: Site, at: Callable[[str], str], route: str
) -> None:
    who = None if CONSOLE[route] == OPEN else ADMIN
    with site.without_users() if route == FIRST else nullcontext():
        phone = sit(who, 390)
        look(phone, at(route))
        assert_accessible_in_both_schemes(phone)
        assert_dialogs_fit(phone)
        phone.set_viewport_size({"width": 820, "height": HEIGHTS[820]})
        assert_fits(phone)
        assert_accessible_in_both_schemes(phone)
        phone.set_viewport_size({"width": 390, "height": HEIGHTS[390]})
        desk = sit(who)
        look(desk, at(route))
        assert_accessible_in_both_schemes(desk)


@pytest.mark.usefixtures("ids")
@pytest.mark.parametrize("route", PARTS)
def test_a_part_of_a_page_comes_where_it_belongs(
    sit: Sit, at: Callable[[str], str], route: str
) -> None:
    whole, click = PARTS[route]
    path = at(whole) if whole.startswith("GET ") else whole
    wanted = re.compile(re.sub("<.*?>", "[^/]+", route.partition(" ")[2]) + "$")
    page = sit(ADMIN, 390)
    with page.expect_response(wanted) as answer:
        page.goto(path)
        if click:
            page.locator(click).first.click()
    assert answer.value.status == 200
    settle(page)
    assert_fits(page)
    if click:
        opened_there = page.locator("dialog[open]").count()
        assert_accessible(page, *(["dialog[open]"] if opened_there else []))


@pytest.mark.parametrize(
    ("role", "route"),
    [
        (role, route)
        for role in (OPERATOR, VIEWER)
        for route in PAGES
        if CONSOLE[route] in SCOPES[role]
    ],
)
def test_nobody_is_led_where_he_may_not_go(
    sit: Sit, at: Callable[[str], str], role: str, route: str
) -> None:
    page = sit(role)
    look(page, at(route))
    rules = {
        re.compile(re.sub("<.*?>", "[^/?]+", route.partition(" ")[2]) + r"([?#].*)?"): access
        for route, access in CONSOLE.items()
    }
    for led in page.evaluate(_LEADS):
        needs = {access for rule, access in rules.items() if rule.fullmatch(led)}
        assert needs & {*SCOPES[role], *WITHOUT_KEY}, f"{page.url} leads a {role} to {led}"


@signed_in(*sorted(ROLES))
def test_the_menu_is_the_one_of_the_role_on_a_desk_and_on_a_phone(sit: Sit, role: str) -> None:
    words = [place.word for place in PLACES if place.scope in SCOPES[role]]
    page = sit(role)
    page.goto("/admin/ui/")
    expect(page.locator("#menu a")).to_have_text(words)
    expect(page.locator("#menu a").last).to_be_visible()
    phone = sit(role, 390)
    phone.goto("/admin/ui/")
    expect(phone.locator("#menu")).to_be_hidden()
    phone.get_by_role("button", name="Menu").click()
    expect(phone.locator("#menu a")).to_have_text(words)
    expect(phone.locator("#menu a").last).to_be_visible()


@signed_in(ADMIN)
@pytest.mark.usefixtures("ids")
def test_the_first_page_is_there_with_few_bytes(page: Page) -> None:
    loaded = first_load(page, "/admin/ui/")
    assert sum(loaded.values()) <= FIRST_PAINT, loaded


PICTURES = {
    ("overview", 390): "/admin/ui/",
    ("faxes", 390): "/admin/ui/faxes",
    ("fax", 390): "/admin/ui/faxes/<fax_id>",
    ("overview", 1440): "/admin/ui/",
    ("faxes", 1440): "/admin/ui/faxes",
    ("fax", 1440): "/admin/ui/faxes/<fax_id>",
    ("send", 1440): "/admin/ui/send",
    ("needs-you", 1440): "/admin/ui/needs-you",
    ("settings", 1440): "/admin/ui/settings",
    ("provider", 1440): "/admin/ui/providers/<provider_id>",
    ("diagnostics", 1440): "/admin/ui/diagnostics",
}
"""Of which pages docs have one, by name and width."""


@pytest.mark.usefixtures("role")
@signed_in(ADMIN)
@pytest.mark.parametrize(("name", "width"), PICTURES)
def test_there_is_a_picture_of_the_page_and_it_is_drawn_where_that_is_asked_for(
    request: pytest.FixtureRequest, name: str, width: int
) -> None:
    if request.config.getoption("--screenshots"):
        page, at = request.getfixturevalue("page"), request.getfixturevalue("at")
        look(page, at(f"GET {PICTURES[name, width]}"))
        expect(page.locator("#stream")).to_have_text("live")
        request.getfixturevalue("picture")(name)
    with Image.open(SCREENSHOTS / f"{name}-{width}.png") as picture:
        assert picture.size == (width, HEIGHTS[width])


def test_all_pictures_are_small_enough_for_who_clones_the_repository() -> None:
    drawn = {path.name: path.stat().st_size for path in SCREENSHOTS.iterdir()}
    assert drawn.keys() == {f"{name}-{width}.png" for name, width in PICTURES}
    assert sum(drawn.values()) < PICTURES_BYTES
