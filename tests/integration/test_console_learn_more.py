"""Where pages of the console lead to learn more: to a page of the documentation that there is, else to a part of this
server's own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from faxbot import wiring
from faxbot.web.console import frame
from tests.installation import Stores
from tests.integration.console import CONSOLE, FILES, page
from tests.integration.web import SECRET, browser_of, client_of, new_user

ROOT = Path(__file__).parents[2]
BASE = "https://docs.example.org/faxbot"
PAGES = sorted(
    route.partition(" ")[2]
    for route in CONSOLE
    if route.startswith("GET ") and "<" not in route and route not in FILES
)


def browser(stores: Stores, **settings: str) -> Iterator[FlaskClient]:
    runtime = wiring.build(stores.embedded().config(SIMULATOR_SECRET=SECRET, **settings))
    yield browser_of(runtime, new_user(runtime))
    runtime.close()


@pytest.fixture(scope="module")
def admin(stores: Stores) -> Iterator[FlaskClient]:
    yield from browser(stores)


@pytest.fixture(scope="module")
def of_docs(stores: Stores) -> Iterator[FlaskClient]:
    """Of an installation that says where its documentation stands."""
    yield from browser(stores, DOCS_BASE_URL=BASE + "/")


def wanted() -> set[str]:
    """The pages of the documentation that templates name."""
    folder = resources.files("faxbot.web.templates").joinpath("console")
    texts = [each.read_text() for each in folder.iterdir() if each.name.endswith(".html")]
    return {name for text in texts for name in re.findall(r"learn_more\('([^']*)'", text)}


def led(text: str) -> list[str]:
    footer = text.rpartition("<footer")[2].partition("</footer>")[0]
    return re.findall(r'href="([^"]*)"', footer)


def test_templates_name_pages_of_the_documentation_that_there_are() -> None:
    assert wanted() == frame.OWN_DOCS.keys()
    for name in wanted() - {""}:
        assert (ROOT / "docs" / f"{name}.md").is_file(), name


def test_plugins_of_ours_name_pages_of_the_documentation_that_there_are() -> None:
    found = list(ROOT.glob("faxbot/*/*/manifest.json"))
    pages = [json.loads(each.read_text()).get("docs", {}).get("learnMore") for each in found]
    assert any(pages)
    for name in filter(None, pages):
        assert (ROOT / "docs" / f"{name.strip('/')}.md").is_file(), name


@pytest.mark.parametrize("path", PAGES)
def test_a_page_leads_to_a_part_of_this_servers_own_documentation(
    admin: FlaskClient, path: str
) -> None:
    shown = admin.get(path).text
    if "<html" not in shown or path.startswith("/admin/ui/setup/first"):
        return  # a part of a page, or none while there are users
    assert led(shown)
    for target in led(shown):
        address, _, anchor = target.partition("#")
        answer = client_of(admin.application.extensions["faxbot"]).get(address)
        assert answer.status_code == 200, target
        assert f'id="{anchor}"' in answer.text, target


def test_where_the_documentation_stands_somewhere_pages_lead_there(of_docs: FlaskClient) -> None:
    assert led(page(of_docs, "/admin/ui/webhooks")) == [f"{BASE}/webhooks"]
    assert "How webhooks are signed and sent" in page(of_docs, "/admin/ui/webhooks")
