"""The faxbot that the tests of pages ask: it sends faxes, and a person of each role is signed in there."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page

from faxbot.actors import ROLES
from tests.browser.looks import Visit, signed_in
from tests.browser.site import PASSWORD, Site


def session(page: Page) -> dict[str, Any]:
    answer = page.goto("/admin/session")
    assert answer is not None
    body: dict[str, Any] = answer.json()
    return body


@signed_in(*ROLES)
def test_a_page_is_that_of_a_person_of_this_role(page: Page, role: str) -> None:
    assert session(page)["role"] == role


def test_several_people_are_there_at_once(visit: Visit) -> None:
    admin, viewer = visit(role="admin"), visit(role="viewer")
    assert [session(page)["role"] for page in (admin, viewer)] == ["admin", "viewer"]


def test_who_is_nobody_signs_in_by_name_and_password(page: Page, site: Site) -> None:
    wish = {"name": site.person("operator").name, "password": PASSWORD}
    answer = page.request.post("/admin/session", data=wish)
    assert answer.status == 200, answer.text()
    assert session(page)["role"] == "operator"


@pytest.mark.parametrize(("ending", "status"), [("0000", "delivered"), ("0404", "failed")])
def test_a_fax_goes_its_way(site: Site, ending: str, status: str) -> None:
    assert site.final(site.send(ending))["status"] == status
