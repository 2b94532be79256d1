"""The page of the API, /docs, as browsers show it."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.looks import assert_accessible, assert_fits, first_load, widths
from tests.browser.site import Site


@widths
def test_every_screen_has_room_for_it(page: Page) -> None:
    page.goto("/docs")
    expect(page).to_have_title(re.compile("^faxbot .*: the API$"))
    assert_fits(page)


# It has 11,000 elements, and axe-core takes five seconds of a processor for them.
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1440, "dark")])
def test_everybody_can_read_it(page: Page) -> None:
    page.goto("/docs")
    assert_accessible(page)


def test_it_is_a_page_and_a_style_sheet(page: Page, site: Site) -> None:
    loaded = first_load(page, "/docs")
    assert set(loaded) == {f"{site.origin}/docs", f"{site.origin}/static/docs.css"}
