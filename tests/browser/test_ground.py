"""What is wrong with a page fails its test, and the browser is the one that was fetched."""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
from PIL import Image
from playwright.sync_api import Page
from playwright.sync_api import TimeoutError as TooLate

from tests.browser.clicks import press
from tests.browser.looks import (
    AXE,
    HEIGHTS,
    PICTURE_BYTES,
    Scheme,
    Visit,
    assert_accessible,
    assert_fits,
    first_load,
    schemes,
    small_picture,
    widths,
)
from tests.browser.packages import CHROMIUM, Tree
from tests.browser.watch import Watch
from tests.ground import BUSY, ENVIRONMENT

PLANTED = Path(__file__).with_name("planted_pages.py")
ROOT = Path(__file__).parents[2]
HEAD = (
    "<!doctype html><html lang=en><meta name=viewport content='width=device-width'><title>t</title>"
)
PAGES = {
    "good": "<main><h1>Good</h1><p><a href='/other'>more</a></main>",
    "error": "<script>console.error('it broke')</script>",
    "warning": "<script>console.warn('it may break')</script>",
    "exception": "<script>missing()</script>",
    "rejection": "<script>Promise.reject(new Error('nobody looks'))</script>",
    "absent": "<img alt='' src=/absent.png>",
    "broken-off": "<script src=/hang-up></script>",
    "foreign": "<img alt='' src=http://192.0.2.1/pixel.png>",
    "foreign-name": "<script src=https://cdn.example/x.js></script>",
    "inline-style": "<p style='color: red'>red</p>",
    "unreadable": "<main><img src=data:,><p style='color: #ccc; background: #fff'>pale</p></main>",
    "too-wide": "<main><div id=wide style='width: 900px; height: 1px'></div></main>",
    "scrolls": "<main style='overflow-x: auto'><div style='width: 2000px; height: 1px'></div></main>",
    "covered": "<style>#veil {position: fixed; inset: 0} @media (min-width: 500px) {#veil {display: none}}</style>"
    "<button>Send</button><div id=veil></div><button style='z-index: 1; position: relative'>Show</button>",
    "heavy": f"<link rel=stylesheet href=/style.css><!--{'.' * 5000}-->",
}


class Pages(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/hang-up":
            self.close_connection = True
            return
        style = path == "/style.css"
        text = "p {}\n" * 600 if style else PAGES.get(path[1:], "")
        self.send_response(200 if text else 404)
        self.send_header("Content-Type", "text/css" if style else "text/html; charset=utf-8")
        if path == "/inline-style":
            self.send_header("Content-Security-Policy", "default-src 'none'")
        self.end_headers()
        self.wfile.write((text if style else HEAD + text).encode())

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def origin(server: str) -> str:
    return server


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("error", "console error: it broke"),
        ("warning", "console warning: it may break"),
        ("exception", "exception: .*missing is not defined"),
        ("rejection", "exception: .*nobody looks"),
        ("absent", "console error: .*404"),
        ("broken-off", "failed: GET .*/hang-up: net::ERR_EMPTY_RESPONSE"),
        ("foreign", "foreign: GET http://192.0.2.1/pixel.png"),
        ("foreign-name", "foreign: GET https://cdn.example/x.js"),
        ("inline-style", "console error: .*Content Security Policy"),
    ],
)
def test_what_is_wrong_with_a_page_is_told(page: Page, watch: Watch, path: str, told: str) -> None:
    page.goto(path)
    with pytest.raises(AssertionError, match=told):
        watch.assert_quiet()
    watch.expect(".")


def test_other_machines_are_never_reached(page: Page, watch: Watch) -> None:
    watch.expect("192.0.2.1")
    watch.expect(
        "ERR_NAME_NOT_RESOLVED"
    )  # an address, too: Chromium takes it for a name that there is not
    page.goto("foreign")


def test_a_page_is_good_until_its_test_ends_and_one_that_was_left_has_not_failed(
    page: Page, watch: Watch
) -> None:
    page.goto("good")
    page.goto("good?again")
    watch.assert_quiet()


def test_what_was_expected_has_to_come_and_nothing_else(page: Page, watch: Watch) -> None:
    watch.expect("status of 404")
    page.goto("good")
    with pytest.raises(AssertionError, match=r"expected to complain of .*404"):
        watch.assert_quiet()
    page.goto("absent")
    watch.assert_quiet()
    page.goto("error")
    with pytest.raises(AssertionError, match="it broke"):
        watch.assert_quiet()
    watch.expect("it broke")


@widths
@schemes
def test_a_page_is_seen_in_this_width_and_colour(page: Page, width: int, scheme: Scheme) -> None:
    page.goto("good")
    seen = page.evaluate("[innerWidth, matchMedia('(prefers-color-scheme: dark)').matches]")
    assert seen == [width, scheme == "dark"]
    assert_fits(page)


def test_nobody_knows_what_another_page_was_told(visit: Visit) -> None:
    one, other = visit(), visit(width=390)
    one.goto("good")
    other.goto("good")
    one.evaluate("document.cookie = localStorage.seen = 'here'")
    assert other.evaluate("[document.cookie, localStorage.seen ?? '']") == ["", ""]


def test_what_some_cannot_read_is_named_with_its_place(page: Page) -> None:
    page.goto("good")
    assert_accessible(page)
    page.goto("unreadable")
    with pytest.raises(AssertionError) as told:
        assert_accessible(page)
    assert re.search(r"image-alt \(critical\).*\n  img: ", str(told.value))
    assert re.search(r"color-contrast \(serious\).*\n  p: .*contrast of 1\.6", str(told.value))


@widths
def test_what_sticks_out_to_the_side_is_named(page: Page, width: int) -> None:
    page.goto("scrolls")
    assert_fits(page)
    page.goto("too-wide")
    if width > 1000:
        assert_fits(page)
    else:
        with pytest.raises(AssertionError, match=f"of {width} pixels: div#wide to 908"):
            assert_fits(page)


def test_what_cannot_be_clicked_on_another_screen_is_not_clicked_on_this_one(page: Page) -> None:
    page.goto("covered")
    page.evaluate(
        "document.addEventListener('click', event => { window.last = event.target.textContent })"
    )
    press(page.get_by_role("button", name="Show"))
    page.set_default_timeout(1000)
    with pytest.raises(TooLate, match=r"#veil|id=\"veil\""):
        press(page.get_by_role("button", name="Send"))
    assert page.evaluate("window.last") == "Show"


@pytest.mark.parametrize("width", [820])
def test_a_click_leaves_the_screen_as_it_was(page: Page, width: int) -> None:
    page.goto("covered")
    press(page.get_by_role("button", name="Show"))
    assert page.evaluate("innerWidth") == width


def test_a_first_load_is_counted_with_all_that_it_brings(page: Page, origin: str) -> None:
    page.goto("heavy")
    loaded = first_load(page, "/heavy")
    assert set(loaded) == {f"{origin}/heavy", f"{origin}/style.css"}
    assert 5_100 < loaded[f"{origin}/heavy"] < 5_500
    assert 3_000 < loaded[f"{origin}/style.css"] < 3_300


def test_a_picture_is_small_and_shows_the_screen(page: Page) -> None:
    page.goto("good")
    noise = "for (let i = 0; i < 99; i++) document.body.append(`${i} faxes went to everybody. `.repeat(9))"
    page.evaluate(noise)
    drawn = small_picture(page)
    assert len(drawn) < PICTURE_BYTES
    with Image.open(io.BytesIO(drawn)) as picture:
        assert picture.size == (1440, HEIGHTS[1440])
        assert len(picture.convert("RGB").getcolors() or []) > 10


@pytest.mark.usefixtures("page")
def test_chromium_uses_no_library_of_this_machine_but_the_c_library(chromium: Tree) -> None:
    """Else it would not start where nothing is installed: in an image such as python:slim."""
    loaded = set()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if process.exe() == str(chromium.binary):
                loaded |= {Path(each.path) for each in process.memory_maps()}
    libraries = {path for path in loaded if ".so" in path.name}
    strange = {path for path in libraries if not path.is_relative_to(chromium.root)}
    of_glibc = r"ld-linux.*|lib(c|m|mvec|dl|pthread|rt|resolv|util|nss_\w+)\.so\.\d+"
    assert len(libraries - strange) > 50
    assert {path for path in strange if not re.fullmatch(of_glibc, path.name)} == set()


def test_axe_core_is_the_published_one() -> None:
    """axe-core 4.14.1 of the npm registry, package/axe.min.js; its licence, MPL 2.0, lies beside it."""
    published = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
    assert hashlib.sha256(AXE.read_bytes()).hexdigest() == published
    assert "Mozilla Public License" in AXE.with_name("LICENSE").read_text()


def run(*options: str, **environment: str) -> tuple[int, str]:
    """Exit code and output of pytest on the planted pages."""
    mine = {name: value for name, value in ENVIRONMENT.items() if "PYTEST" not in name}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, PLANTED],
        cwd=ROOT,
        env={**mine, **environment},
        capture_output=True,
        text=True,
        timeout=120 * BUSY,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.usefixtures("chromium")
def test_a_test_fails_by_what_its_page_leaves_behind() -> None:
    code, said = run()
    assert (code, "2 passed, 1 error" in said) == (1, True), said
    assert "console error: planted" in said
    assert "ERROR tests/browser/planted_pages.py::test_a_bad_page" in said


def test_without_a_chromium_the_run_says_so_and_one_for_pages_alone_fails(tmp_path: Path) -> None:
    nowhere = {
        "FAXBOT_TEST_CACHE": str(tmp_path),
        "FAXBOT_TEST_DEBIAN": f"file:{tmp_path}",
    }
    code, said = run(**nowhere)
    assert (code, f"! 2 tests: {CHROMIUM.not_tested} !" in said) == (0, True), said
    code, said = run("--need-chromium", **nowhere)
    assert (code, "2 errors" in said) == (1, True), said
