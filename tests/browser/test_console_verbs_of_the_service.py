"""What can be done to carriers, and to the service itself, in the console is clicked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from faxbot.actors import ADMIN
from tests.browser import population
from tests.browser.clicks import in_turn
from tests.browser.conftest import Sit
from tests.browser.looks import assert_accessible_in_both_schemes, assert_fits, widths
from tests.browser.site import Site
from tests.browser.verbs import SERVICE, Place, assert_done
from tests.mailserver import MailServer
from tests.receiver import Receiver


@pytest.fixture(scope="module")
def mail() -> Iterator[MailServer]:
    with MailServer() as mail:
        yield mail


@pytest.fixture(scope="module")
def settings(mail: MailServer) -> dict[str, str]:
    """There is a mail server, and nobody is told by it yet; a carrier that refuses our account is left alone for long;
    the terminal is there. One web process: what one of them has saved, another knows two seconds later."""
    return {
        **population.SETTINGS,
        **mail.environ,
        "FAXBOT_NOTIFICATIONS": "",
        "FAXBOT_HELD_CHECK_SECONDS": "600",
        "ENABLE_LOCAL_ADMIN": "true",
        "FAXBOT_WEB_WORKERS": "1",
    }


@pytest.fixture(scope="module")
def place(site: Site) -> Iterator[Place]:
    with Receiver() as receiver:
        yield Place(site, receiver)


@pytest.mark.parametrize("route", SERVICE)
def test_a_verb_is_clicked_and_its_page_says_what_came_of_it(
    sit: Sit, place: Place, route: str
) -> None:
    verb = SERVICE[route]
    assert_done(sit(verb.role, in_turn(list(SERVICE).index(route))), route, verb, place)


@widths
def test_the_terminal_suits_every_screen_and_everybody_can_read_it(sit: Sit, width: int) -> None:
    """Other pages are looked at in test_console_looks.py; this one is there only where it is switched on."""
    page = sit(ADMIN, width)
    page.goto("/admin/ui/terminal")
    assert_fits(page)
    assert_accessible_in_both_schemes(page)
