"""How a person moves through the console: goes to a page, presses its buttons, reads what is said. Whatever is pressed
on one screen could be pressed on the others, too."""

from __future__ import annotations

import re

from playwright.sync_api import Locator, Page, expect

from tests.browser.looks import HEIGHTS
from tests.ground import BUSY

expect.set_options(timeout=15_000 * BUSY)
"""Milliseconds: what a page shows may wait for a worker, on a machine that has much else to do."""


def in_turn(position: int) -> int:
    """A width for what stands at this position of a table: all of them come."""
    return list(HEIGHTS)[position % len(HEIGHTS)]


def go(page: Page, path: str) -> None:
    """There, and until it hears of what happens."""
    page.goto(f"/admin/ui/{path}")
    listens(page)


def listens(page: Page) -> None:
    expect(page.locator("#stream")).to_have_text("live")


def press(button: Locator) -> None:
    """On the screen that is there; on those of the other widths it is only seen that it could be: it is in sight or can
    be scrolled there, stands still, can be used, and nothing lies over it."""
    page, own = button.page, button.page.viewport_size
    assert own is not None
    for width, height in HEIGHTS.items():
        if width != own["width"]:
            page.set_viewport_size({"width": width, "height": height})
            button.click(trial=True)
    page.set_viewport_size(own)
    button.click()


def click(page: Page, name: str) -> None:
    """The button of this name, of the dialog if one is open."""
    press(named(page, name))


def named(page: Page, name: str | re.Pattern[str]) -> Locator:
    """The button of this name; where a dialog is open, of those in it."""
    front = dialog(page) if dialog(page).count() else page.locator("body")
    return front.get_by_role("button", name=name, exact=True)


def dialog(page: Page) -> Locator:
    return page.locator("dialog[open]")


def said(page: Page, sentence: str) -> None:
    """It is told in a corner of the page, and no dialog is in front of it any more."""
    expect(page.locator("#toasts")).to_contain_text(sentence)
    expect(dialog(page)).to_have_count(0)
