"""The terminal's page: there only where it is switched on, only at this machine, and what a command says is text."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient

from faxbot import terminal, wiring
from faxbot.actors import ADMIN, OPERATOR
from faxbot.runtime import Runtime
from tests.installation import Stores
from tests.integration.console import BY_SCRIPT, deed, page, problem, words
from tests.integration.web import browser_of, new_user

PATH = "/admin/ui/terminal"


@pytest.fixture(scope="module")
def runtime(stores: Stores) -> Iterator[Runtime]:
    runtime = wiring.build(stores.embedded().config(ENABLE_LOCAL_ADMIN="true"))
    yield runtime
    runtime.close()


@pytest.fixture(scope="module")
def admin(runtime: Runtime) -> FlaskClient:
    return browser_of(runtime, new_user(runtime, ADMIN))


def test_it_is_in_the_menu_of_administrators_and_says_what_may_be_run(
    runtime: Runtime, admin: FlaskClient
) -> None:
    assert f'href="{PATH}"' in page(admin, "/admin/ui/")
    shown = words(page(admin, PATH))
    assert "Say what is missing here" in shown
    assert "for 30 seconds at most" in shown
    operator = browser_of(runtime, new_user(runtime, OPERATOR))
    assert f'href="{PATH}"' not in page(operator, "/admin/ui/")
    assert operator.get(PATH).status_code == 403


def test_a_command_is_run_and_what_it_says_is_text(admin: FlaskClient) -> None:
    said = deed(admin, PATH, 200, command="plugins list").text
    assert "done" in words(said)
    assert "simulator" in said
    assert "<html" not in said


def test_a_command_that_is_cut_off_is_said_to_be_and_after_how_long(
    admin: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "SECONDS", 0.05)
    told = words(deed(admin, PATH, 200, command="doctor").text)
    assert "faxbot doctor : it was ended after 0.05 seconds" in told


@pytest.mark.parametrize(
    "command",
    ["", "doctor; id", "keys create", "db upgrade", "<script>", "doctor\nid", "x" * 10_000],
)
def test_nothing_else_is_run_and_what_was_typed_is_not_repeated(
    admin: FlaskClient, command: str
) -> None:
    answer = admin.post(PATH, data={"command": command}, headers=BY_SCRIPT)
    told = problem(answer, 422, "invalid-fields")
    assert "<script>" not in answer.text
    assert "command" in told


@pytest.mark.parametrize(
    "elsewhere",
    [{"X-Forwarded-For": "192.0.2.1"}, {"Forwarded": "for=192.0.2.1"}, {"Via": "1.1 proxy"}],
)
def test_who_may_be_elsewhere_gets_neither_page_nor_command(
    admin: FlaskClient, elsewhere: dict[str, str]
) -> None:
    assert admin.get(PATH, headers=elsewhere).status_code == 403
    assert PATH not in admin.get("/admin/ui/", headers=elsewhere).text
    answer = admin.post(PATH, data={"command": "doctor"}, headers={**BY_SCRIPT, **elsewhere})
    assert answer.status_code == 403


def test_it_is_not_there_where_it_is_not_switched_on(stores: Stores) -> None:
    runtime = wiring.build(stores.embedded().config())
    try:
        admin = browser_of(runtime, new_user(runtime, ADMIN))
        assert admin.get(PATH).status_code == 404
        assert PATH not in page(admin, "/admin/ui/")
    finally:
        runtime.close()
