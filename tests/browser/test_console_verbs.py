"""What can be done to faxes in the console is clicked, and that every verb of the console is clicked somewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from tests.browser import population, test_console_deeds
from tests.browser.clicks import in_turn
from tests.browser.conftest import Sit
from tests.browser.site import Site
from tests.browser.verbs import CLICKED_IN, FAXES, SERVICE, Place, assert_done
from tests.integration.console import CONSOLE
from tests.receiver import Receiver


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    return population.SETTINGS


@pytest.fixture(scope="module")
def place(site: Site) -> Iterator[Place]:
    with Receiver() as receiver:
        yield Place(site, receiver)


@pytest.mark.parametrize("route", FAXES)
def test_a_verb_is_clicked_and_its_page_says_what_came_of_it(
    sit: Sit, place: Place, route: str
) -> None:
    verb = FAXES[route]
    with place.site.without_users() if verb.role is None else nullcontext():
        assert_done(sit(verb.role, in_turn(list(FAXES).index(route))), route, verb, place)


def test_every_verb_is_clicked_on_one_screen_and_could_be_on_all() -> None:
    verbs = {route for route in CONSOLE if route.startswith("POST ")}
    clicked = [*FAXES, *SERVICE, *CLICKED_IN]
    assert sorted(clicked) == sorted({*verbs, "POST /admin/ui/terminal"})
    for name in CLICKED_IN.values():
        assert hasattr(test_console_deeds, name), f"there is no {name} in test_console_deeds.py"
