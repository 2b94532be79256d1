"""How a page is looked at: in which widths, colours and roles, by whom it can be read, what it weighs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal, Protocol

import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page

Scheme = Literal["light", "dark"]
HEIGHTS = {390: 844, 820: 1180, 1440: 900}
"""Of a screen, by its width."""
widths = pytest.mark.parametrize("width", list(HEIGHTS), ids=["phone", "tablet", "desktop"])
schemes = pytest.mark.parametrize("scheme", ["light", "dark"])


def signed_in(*roles: str) -> pytest.MarkDecorator:
    """Once for each of these roles, as a person who has it."""
    return pytest.mark.parametrize("role", roles)


class Visit(Protocol):
    """The fixture `visit`."""

    def __call__(
        self, role: str | None = None, width: int = 1440, scheme: Scheme = "light"
    ) -> Page: ...


def at_screen(browser: Browser, origin: str, width: int, scheme: Scheme) -> BrowserContext:
    """A browser of somebody's own, who sits before a screen of this width in these colours, or holds it."""
    return browser.new_context(
        base_url=origin,
        viewport={"width": width, "height": HEIGHTS[width]},
        color_scheme=scheme,
        is_mobile=width < 1000,
        has_touch=width < 1000,
        reduced_motion="reduce",
        locale="en-US",
        timezone_id="UTC",
    )


# Who can read it -----------------------------------------------------------------------------------------

AXE = Path(__file__).parent / "axe-core" / "axe.min.js"
_WCAG = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}
_COLOURS = {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}
"""Those of them that ask for colours; they take half of the time."""


_OTHER_SCHEME = """() => {
  const { dataset } = document.documentElement;
  dataset.bsTheme = dataset.bsTheme === 'dark' ? 'light' : 'dark';
}"""
"""As the page's button `Theme` does it; who is behind a dialog cannot be clicked."""


def assert_accessible_in_both_schemes(page: Page, within: str = "html") -> None:
    """As assert_accessible(), and once more in the other colours, by the rules that ask for them."""
    assert_accessible(page, within)
    page.evaluate(_OTHER_SCHEME)
    assert_accessible(page, within, _COLOURS)
    page.evaluate(_OTHER_SCHEME)


def assert_accessible(page: Page, within: str = "html", rules: object = _WCAG) -> None:
    """axe-core finds nothing in what is shown now that violates WCAG 2.1 A or AA; `within` the element that this
    selector finds, as in a dialog."""
    # As a debugger does it: what the page's policy says of scripts is not asked.
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate(
        "([within, rules]) => axe.run(within, {runOnly: rules, resultTypes: ['violations']})",
        [within, rules],
    )
    told = [
        f"{violation['id']} ({violation['impact']}): {violation['help']}\n"
        + "\n".join(f"  {_place(node)}: {_why(node)}" for node in violation["nodes"])
        for violation in found["violations"]
    ]
    assert not told, f"{page.url}\n" + "\n".join(told)


def _place(node: dict[str, list[str]]) -> str:
    return " ".join(map(str, node["target"]))


def _why(node: dict[str, str]) -> str:
    return " ".join(node["failureSummary"].split())


# Whether it has room -------------------------------------------------------------------------------------

_STICKS_OUT = """width => {
  const scrolls = element => {
    for (let each = element.parentElement; each && each !== document.body; each = each.parentElement)
      if (getComputedStyle(each).overflowX !== 'visible') return true;
    return false;
  };
  const name = element => element.tagName.toLowerCase() + (element.id && '#' + element.id)
    + [...element.classList].map(each => '.' + each).join('');
  return [...document.body.querySelectorAll('*')]
    .filter(element => element.getBoundingClientRect().right > width + 0.5 && !scrolls(element))
    .map(element => `${name(element)} to ${Math.ceil(element.getBoundingClientRect().right)}`);
}"""


def assert_fits(page: Page) -> None:
    """Nobody need scroll to the side: nothing is wider than the screen but what scrolls by itself."""
    assert page.viewport_size is not None
    width = page.viewport_size["width"]
    taken = page.evaluate("document.documentElement.scrollWidth")
    out = page.evaluate(_STICKS_OUT, width)
    assert taken <= width, f"{page.url} takes {taken} of {width} pixels: {', '.join(out[:5])}"


# What it weighs ------------------------------------------------------------------------------------------


def first_load(page: Page, path: str) -> dict[str, int]:
    """Go there as somebody who was never here, and count until the page's event `load`: the bytes that came over the
    network, heads too, by address. A stream that goes on is not in it."""
    sizes: dict[str, int] = {}
    addresses: dict[str, str] = {}
    session = page.context.new_cdp_session(page)
    session.on(
        "Network.requestWillBeSent",
        lambda event: addresses.update({event["requestId"]: event["request"]["url"]}),
    )
    session.on(
        "Network.loadingFinished",
        lambda event: sizes.update(
            {addresses[event["requestId"]]: int(event["encodedDataLength"])}
        ),
    )
    session.send("Network.enable")
    session.send("Network.clearBrowserCache")
    page.goto(path, wait_until="load")
    session.send("Network.disable")  # after its answer nothing more comes
    session.detach()
    return sizes


# What it looks like --------------------------------------------------------------------------------------

PICTURE_BYTES = 120_000


def small_picture(page: Page) -> bytes:
    """What its screen shows, as a PNG of fewer than PICTURE_BYTES."""
    taken = Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
    for colours in (256, 128, 64, 32, 16):
        file = io.BytesIO()
        taken.quantize(colours, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
        if file.tell() < PICTURE_BYTES:
            return file.getvalue()
    raise AssertionError(f"16 colours of {page.url} take {file.tell()} bytes")
