"""Fixtures: a browser, a faxbot that it asks, and pages that fail their test where the browser complains of them.

What a test wants of `page` it says in its parameters, each with a usual value:

    @widths                                   # phone, tablet, desktop; usually desktop
    @schemes                                  # light, dark; usually light
    @signed_in("operator", "admin")           # a person of each of these roles; usually nobody
    def test_a_fax_is_cancelled(page: Page, site: Site) -> None: ...

`visit` opens more pages, of other people. `watch.expect("status of 409")` is for what a test provokes. A module has an
installation of its own (`site`); pages of another server are tried by a fixture `origin` of the module's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.browser import packages
from tests.browser.looks import Scheme, Visit, at_screen, small_picture
from tests.browser.packages import CHROMIUM, Tree
from tests.browser.site import Site, opened
from tests.browser.watch import Watch
from tests.debian import NoPackages
from tests.ground import MARK, Ground
from tests.installation import Stores
from tests.servers import Postgres, RedisServer

SCREENSHOTS = Path(__file__).parents[2] / "docs" / "screenshots"
# Beside those that Playwright gives: no name is looked up and no other machine asked, not even for Chromium's own ends.
_FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


@pytest.fixture(scope="session")
def chromium(request: pytest.FixtureRequest) -> Tree:
    """Unpacked in the cache that all processes and runs share; fetched by whoever is first (10 s)."""
    try:
        return packages.fetch()
    except NoPackages as error:
        why = f"{CHROMIUM.not_tested}: {error}"
        if request.config.getoption("--need-chromium"):
            pytest.fail(why)
        pytest.skip(why)


@pytest.fixture(scope="package")
def browser(chromium: Tree, ground: Ground) -> Iterator[Browser]:
    """This pytest process' browser. (While it is there no test of this process can have an event loop of its own:
    therefore it ends with the tests of this folder.)"""
    folder = ground.new_folder("chromium")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))  # where profiles are made, a new one for each browser
        patch.setenv(MARK, str(folder))
        playwright = sync_playwright().start()
    try:
        browser = playwright.chromium.launch(
            executable_path=chromium.binary,
            args=_FLAGS,
            env={**chromium.environment(folder), MARK: str(folder)},
        )
        yield browser
        browser.close()
    finally:
        playwright.stop()


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    """What a module sets otherwise than it comes."""
    return {}


@pytest.fixture(scope="module")
def site(
    stores: Stores,
    postgres_server: Postgres,
    redis_server: RedisServer,
    settings: dict[str, str],
) -> Iterator[Site]:
    """A faxbot for the tests of one module."""
    with (
        stores.postgresql(postgres_server, redis_server) as installation,
        opened(installation, **settings) as site,
    ):
        yield site


@pytest.fixture
def origin(site: Site) -> str:
    """The server under test, http://127.0.0.1:port."""
    return site.origin


@pytest.fixture
def width() -> int:
    return 1440


@pytest.fixture
def scheme() -> Scheme:
    return "light"


@pytest.fixture
def role() -> str | None:
    return None


@pytest.fixture
def watch(origin: str) -> Iterator[Watch]:
    """Of all pages of this test."""
    watch = Watch(origin)
    yield watch
    watch.assert_quiet()


@pytest.fixture
def visit(
    browser: Browser, origin: str, watch: Watch, request: pytest.FixtureRequest
) -> Iterator[Visit]:
    """visit(role="admin", width=390, scheme="dark"): a page in a browser of somebody's own, where nothing was asked
    yet; page.goto("/docs") and the like."""
    contexts: list[BrowserContext] = []

    def visit(role: str | None = None, width: int = 1440, scheme: Scheme = "light") -> Page:
        context = at_screen(browser, origin, width, scheme)
        contexts.append(context)
        watch.follow(context)
        if role is not None:
            name, value = request.getfixturevalue("site").cookie(role)
            context.add_cookies([{"name": name, "value": value, "url": origin}])
        return context.new_page()

    yield visit
    for context in contexts:
        context.close()


@pytest.fixture
def page(visit: Visit, role: str | None, width: int, scheme: Scheme) -> Page:
    """The page of this test's parameters."""
    return visit(role, width, scheme)


Sit = Callable[..., Page]
Seats = dict[tuple[str | None, int], tuple[Page, Watch]]


@pytest.fixture(scope="module")
def seats() -> Iterator[Seats]:
    """Who sits where: by role and width."""
    seats: Seats = {}
    yield seats
    for page, _ in seats.values():
        page.context.close()


@pytest.fixture
def sit(browser: Browser, site: Site, seats: Seats) -> Iterator[Sit]:
    """sit("admin", 390): the one page that this person has open in this width, in all tests of a module; on a phone it
    is light, at a desk dark."""

    def sit(role: str | None, width: int = 1440) -> Page:
        if (role, width) not in seats:
            scheme: Scheme = "dark" if width > 1000 else "light"
            context, watch = at_screen(browser, site.origin, width, scheme), Watch(site.origin)
            watch.follow(context)
            if role is not None:
                name, value = site.cookie(role)
                context.add_cookies([{"name": name, "value": value, "url": site.origin}])
            seats[role, width] = context.new_page(), watch
        return seats[role, width][0]

    for _, watch in seats.values():
        watch.troubles.clear()
    yield sit
    for _, watch in seats.values():
        watch.assert_quiet()


@pytest.fixture
def picture(page: Page, width: int, request: pytest.FixtureRequest) -> Callable[[str], None]:
    """picture("overview") draws docs/screenshots/overview-1440.png anew, where pytest was told --screenshots."""

    def picture(name: str) -> None:
        if request.config.getoption("--screenshots"):
            SCREENSHOTS.mkdir(exist_ok=True)
            (SCREENSHOTS / f"{name}-{width}.png").write_bytes(small_picture(page))

    return picture
