"""Settings in the console: every option is there, what is wrong is said in the form, and what would change is said
before it does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from faxbot import configuration, wiring
from faxbot.actors import CLI
from faxbot.config import GROUPS, OPTIONS, Config
from faxbot.db import table
from faxbot.models import AuditEvent
from faxbot.runtime import Runtime
from tests.installation import Stores
from tests.integration.console import deed, page, problem, said, words
from tests.integration.web import SECRET, browser_of, new_user

SETTINGS = "/admin/ui/settings"
HEADER = f"{SETTINGS}/FAX_HEADER"
CANARY = "c4n4ry-t0ken-that-nobody-may-see"
EVIL = '<script>alert("1")</script>'


@pytest.fixture(scope="module")
def config(stores: Stores) -> Config:
    return stores.embedded().config(
        SIMULATOR_SECRET=SECRET, API_KEY=CANARY, FAX_HEADER="theirs", FAXBOT_MAX_PAGES="7"
    )


@pytest.fixture(scope="module")
def runtime(config: Config) -> Iterator[Runtime]:
    runtime = wiring.build(config)
    yield runtime
    runtime.close()


@pytest.fixture(scope="module")
def admin(runtime: Runtime) -> FlaskClient:
    return browser_of(runtime, new_user(runtime))


@pytest.fixture(autouse=True)
def nothing_saved(runtime: Runtime) -> None:
    """Each test begins with the environment alone."""
    saved = runtime.settings.stored().saved
    names = {
        f"{scope}.{key}" if scope else key: None for scope, keys in saved.items() for key in keys
    }
    if names:
        configuration.change(runtime, CLI, names, note="the next test", untested=True)


def of(runtime: Runtime, name: str) -> tuple[Any, str]:
    one = configuration.item(runtime, name)
    return one["value"], one["source"]


def save(runtime: Runtime, **values: Any) -> int:
    configuration.change(runtime, CLI, values, note="before")
    return runtime.settings.stored().version


def row(text: str, name: str) -> str:
    """What the list says of one option."""
    found = text.partition(f'id="{name}"')[2].partition("</tr>")[0].partition(">")[2]
    return words(re.sub("</?code>", "", found))


# The list -------------------------------------------------------------------------------------------


def test_every_option_is_there_in_its_group_with_its_value_and_where_that_comes_from(
    runtime: Runtime, admin: FlaskClient
) -> None:
    save(runtime, FAXBOT_MAX_DOCUMENTS=3)
    text = page(admin, SETTINGS)
    for option in OPTIONS:
        said_of_it = row(text, option.name)
        assert said_of_it.startswith(option.name)
        assert option.help.replace("`", "") in said_of_it
        if option.fixed:
            assert option.fixed.replace("`", "") in said_of_it
    for group in GROUPS.values():
        assert f">{group}</h2>" in text
    assert row(text, "FAXBOT_MAX_DOCUMENTS").endswith("3 db Change")
    assert row(text, "FAXBOT_MAX_PAGES").endswith("7 env Change")
    assert row(text, "MAX_FILE_SIZE_MB").endswith("50 default Change")
    assert row(text, "FAXBOT_HOST").endswith("default")


def test_no_secret_stands_in_a_page(admin: FlaskClient) -> None:
    for path in (SETTINGS, f"{SETTINGS}/API_KEY/edit", f"{SETTINGS}/versions"):
        assert CANARY not in page(admin, path)
    assert "set, not shown" in row(page(admin, SETTINGS), "API_KEY")


def test_it_is_said_when_nothing_is_saved_and_what_is_saved_and_does_not_count(
    runtime: Runtime, admin: FlaskClient
) -> None:
    assert configuration.USING_ENVIRONMENT in words(page(admin, SETTINGS))
    save(runtime, FAX_HEADER="ours")
    assert configuration.USING_ENVIRONMENT not in words(page(admin, SETTINGS))


@pytest.mark.parametrize("first", GROUPS)
def test_a_group_begins_with_an_option_that_there_is(first: str) -> None:
    assert first in {option.name for option in OPTIONS}


# Changing -------------------------------------------------------------------------------------------


def test_an_option_is_changed_and_taken_back(runtime: Runtime, admin: FlaskClient) -> None:
    asked = page(admin, f"{HEADER}/edit")
    assert 'value="theirs"' in asked
    seen = asked.partition('name="seen" value="')[2].partition('"')[0]
    done = deed(admin, HEADER, FAX_HEADER="ours", note="as on our paper", seen=seen)
    assert "Saved" in said(done)
    assert of(runtime, "FAX_HEADER") == ("ours", "db")
    assert f"{HEADER}/unset" in page(admin, f"{HEADER}/edit")
    deed(admin, f"{HEADER}/unset", note="no more")
    assert of(runtime, "FAX_HEADER") == ("theirs", "env")


def test_an_empty_value_is_the_default_whatever_the_environment_says(
    runtime: Runtime, admin: FlaskClient
) -> None:
    deed(admin, HEADER, FAX_HEADER="", note="none")
    assert of(runtime, "FAX_HEADER") == ("", "db")


@pytest.mark.parametrize(
    ("name", "fields", "wrong"),
    [
        ("FAXBOT_MAX_PAGES", {"note": "n", "FAXBOT_MAX_PAGES": "many"}, "FAXBOT_MAX_PAGES"),
        ("FAXBOT_MAX_PAGES", {"note": "n", "FAXBOT_MAX_PAGES": "0"}, "FAXBOT_MAX_PAGES"),
        ("FAXBOT_MAX_PAGES", {"note": "n", "FAXBOT_MAX_PAGES": "9" * 5000}, "FAXBOT_MAX_PAGES"),
        ("FAX_HEADER", {"note": "n", "FAX_HEADER": "Ärzte\n"}, "FAX_HEADER"),
        ("FAX_HEADER", {"FAX_HEADER": "ours"}, "note"),
        ("FAX_HEADER", {"FAX_HEADER": "ours", "note": "n" * 256}, "note"),
        ("FAX_HEADER", {"FAX_HEADER": "ours", "note": "\x1b[2J"}, "note"),
        ("FAX_HEADER", {"FAX_HEADER": ["a", "b"], "note": "n"}, "FAX_HEADER"),
        ("FAX_HEADER", {"FAX_HEADER": "ours", "note": "n", "seen": "x"}, "seen"),
        ("FAX_HEADER", {"FAX_HEADER": "ours", "note": "n", "untested": "perhaps"}, "untested"),
        ("FAX_HEADER", {"FAX_HEADER": "ours", "note": "n", EVIL: "1"}, "unknown"),
        ("FAXBOT_PORT", {"FAXBOT_PORT": "1", "note": "n"}, "FAXBOT_PORT"),
        ("FAX_BACKENDS", {"FAX_BACKENDS": "nobody", "note": "n"}, "FAX_BACKENDS"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_the_form_and_nothing_is_saved(
    runtime: Runtime, admin: FlaskClient, name: str, fields: dict[str, Any], wrong: str
) -> None:
    version = runtime.settings.stored().version
    refused = deed(admin, f"{SETTINGS}/{name}", 422, **fields)
    problem(refused, 422, "invalid-fields")
    assert f'data-field="{wrong}"' in refused.text
    assert EVIL not in refused.text
    assert runtime.settings.stored().version == version


def test_who_has_read_an_older_version_changes_nothing(
    runtime: Runtime, admin: FlaskClient
) -> None:
    seen = save(runtime, FAX_HEADER="another")
    save(runtime, FAX_HEADER="a third")
    late = deed(admin, HEADER, 409, FAX_HEADER="ours", note="n", seen=str(seen))
    problem(late, 409, "changed-meanwhile")
    assert of(runtime, "FAX_HEADER") == ("a third", "db")


def test_what_is_no_option_is_not_found(admin: FlaskClient) -> None:
    for name in ("NOBODY", "simulator.secret", EVIL):
        assert EVIL not in page(admin, f"{SETTINGS}/{name}/edit", 404)
        problem(admin.post(f"{SETTINGS}/{name}", headers={"HX-Request": "true"}), 404, "not-found")


# Versions -------------------------------------------------------------------------------------------


def test_what_would_change_is_said_before_one_goes_back(
    runtime: Runtime, admin: FlaskClient
) -> None:
    first = save(runtime, FAX_HEADER="first")
    second = save(runtime, FAX_HEADER="second", FAXBOT_MAX_DOCUMENTS=2)
    compared = page(admin, f"{SETTINGS}/versions/{first}")
    assert "FAX_HEADER second first" in words(compared)
    assert "FAXBOT_MAX_DOCUMENTS 2 taken back" in words(compared)
    assert of(runtime, "FAX_HEADER") == ("second", "db")
    back = deed(admin, f"{SETTINGS}/versions/{first}", note="it was better", seen=str(second))
    assert f"version {second + 1}" in said(back)
    assert of(runtime, "FAX_HEADER") == ("first", "db")
    assert of(runtime, "FAXBOT_MAX_DOCUMENTS")[1] == "default"


def test_what_was_compared_with_something_older_is_not_done(
    runtime: Runtime, admin: FlaskClient
) -> None:
    first = save(runtime, FAX_HEADER="first")
    second = save(runtime, FAX_HEADER="second")
    save(runtime, FAX_HEADER="third")
    late = deed(admin, f"{SETTINGS}/versions/{first}", 409, note="n", seen=str(second))
    problem(late, 409, "changed-meanwhile")
    assert of(runtime, "FAX_HEADER") == ("third", "db")


def test_a_version_that_has_a_name_says_it(runtime: Runtime, admin: FlaskClient) -> None:
    save(runtime, FAX_HEADER="ours")
    deed(admin, f"{SETTINGS}/versions", note=EVIL)
    text = page(admin, f"{SETTINGS}/versions")
    assert EVIL in words(text)
    assert EVIL not in text


@pytest.mark.parametrize(
    ("version", "status"), [("77", 404), ("x", 422), ("-1", 422), ("1e3", 422)]
)
def test_a_version_that_there_is_not(admin: FlaskClient, version: str, status: int) -> None:
    page(admin, f"{SETTINGS}/versions/{version}", status)
    deed(admin, f"{SETTINGS}/versions/{version}", status, note="n")


# Documents ------------------------------------------------------------------------------------------


def test_an_export_has_no_secret_is_written_down_and_comes_in_again(
    runtime: Runtime, admin: FlaskClient
) -> None:
    configuration.change(
        runtime, CLI, {"FAX_HEADER": "ours", "phaxio.apiSecret": CANARY, "phaxio.apiKey": "k"},
        note="n", untested=True,
    )  # fmt: skip
    answer = admin.get(f"{SETTINGS}/export")
    assert answer.content_type == "application/json"
    assert "attachment" in answer.headers["Content-Disposition"]
    assert CANARY not in answer.text
    rows = table(AuditEvent)
    told = runtime.database.rows(
        sa.select(rows.c.action).where(rows.c.action == "config.exported"), {}
    )
    assert len(told) == 1

    save(runtime, FAX_HEADER="changed")
    compared = deed(admin, f"{SETTINGS}/import/compare", 200, document=answer.text)
    assert "FAX_HEADER changed ours" in words(compared.text)
    assert of(runtime, "FAX_HEADER")[0] == "changed"
    deed(admin, f"{SETTINGS}/import", document=answer.text, note="back again", untested="true")
    assert of(runtime, "FAX_HEADER")[0] == "ours"


def test_what_a_document_brings_is_shown_as_text(admin: FlaskClient) -> None:
    document = {"kind": "faxbot settings", "format": 1, "options": {"FAX_HEADER": EVIL}}
    compared = deed(admin, f"{SETTINGS}/import/compare", 200, document=json.dumps(document))
    assert EVIL not in compared.text
    assert EVIL in words(compared.text)


@pytest.mark.parametrize(
    "document",
    [
        "", "{", "[" * 15_000, "null", "[]", '{"kind": "another"}', '{"kind": "faxbot settings"}',
        '{"kind": "faxbot settings", "format": 1, "options": {"NOBODY": "1"}}',
        '{"kind": "faxbot settings", "format": 1, "options": {"FAXBOT_PORT": "1"}}',
        '{"kind": "faxbot settings", "format": 1, "options": 7}',
        '{"kind": "faxbot settings", "format": 1, "plugins": {"phaxio": {"<b>": 1}}}',
    ],
)  # fmt: skip
def test_a_document_that_is_none_is_refused(
    runtime: Runtime, admin: FlaskClient, document: str
) -> None:
    version = runtime.settings.stored().version
    for path in ("import/compare", "import"):
        fields = {"document": document, **({"note": "n"} if path == "import" else {})}
        refused = deed(admin, f"{SETTINGS}/{path}", 422, **fields)
        assert "<b>" not in problem(refused, 422, "invalid-fields")
    assert runtime.settings.stored().version == version
