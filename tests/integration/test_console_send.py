"""Sending by hand: the page's form makes the fax that the API's would, once, or says what is wrong and keeps all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from faxbot import actors, jobs, wiring
from faxbot.jobs import Filters
from faxbot.models import JobRow
from faxbot.runtime import Runtime
from faxbot.web import uploads
from tests.installation import Stores
from tests.integration.console import BY_SCRIPT, filled, page, problem
from tests.integration.web import (
    NUMBER,
    SECRET,
    TEXT,
    Field,
    Unread,
    ahead,
    browser_of,
    left_behind,
    new_user,
    post,
)

PATH = "/admin/ui/send"
HOSTILE = '"><script>alert(1)</script>'


@pytest.fixture(scope="module")
def runtime(stores: Stores) -> Iterator[Runtime]:
    runtime = wiring.build(
        stores.embedded().config(
            SIMULATOR_SECRET=SECRET, MAX_FILE_SIZE_MB="1", FAXBOT_MAX_DOCUMENTS="2"
        )
    )
    yield runtime
    runtime.close()


@pytest.fixture(scope="module")
def browser(runtime: Runtime) -> FlaskClient:
    return browser_of(runtime, new_user(runtime, actors.OPERATOR))


def sent(browser: FlaskClient, key: str = "", **fields: Any) -> TestResponse:
    """What the form sends when these fields are filled in, as a browser does: those that were left empty too."""
    form = page(browser, PATH)
    own = re.search(r'"Idempotency-Key": "([0-9a-f]{32})"', form)
    assert own
    empty: dict[str, Field] = dict(
        filled(form.partition("<form class=")[2].partition("</form>")[0])
    )
    documents = fields.pop("documents", (TEXT,))
    files: list[tuple[str, Field]] = [("file", ("chart of J. Doe.txt", each)) for each in documents]
    values = {**empty, "to": NUMBER, **fields}
    headers = {"Idempotency-Key": key or own[1], **BY_SCRIPT}
    return post(browser, [*values.items(), *files], PATH, **headers)


def made(runtime: Runtime, answer: TestResponse) -> JobRow:
    """The fax to whose page the answer leads."""
    assert answer.status_code == 204, answer.text[:800]
    led = answer.headers["HX-Redirect"]
    return jobs.find(runtime, actors.CLI, led.removeprefix("/admin/ui/faxes/"))


def newest(runtime: Runtime) -> list[str]:
    found, _ = jobs.page(runtime, actors.CLI, Filters(), limit=100, cursor=None)
    return [job.id for job in found]


def test_a_form_with_a_number_and_a_document_is_a_fax_and_leads_to_its_page(
    runtime: Runtime, browser: FlaskClient
) -> None:
    job = made(runtime, sent(browser))
    shown = jobs.describe(runtime, job)
    assert (shown["to"], shown["pages"], shown["resolution"], shown["priority"]) == (
        NUMBER, 1, "fine", 128,
    )  # fmt: skip
    assert (shown["send_at"], shown["expires_at"], shown["tags"]) == (None, None, {})
    assert NUMBER in page(browser, f"/admin/ui/faxes/{job.id}")


def test_everything_that_is_filled_in_comes_with_the_fax(
    runtime: Runtime, browser: FlaskClient
) -> None:
    fields: dict[str, Any] = {
        "send_at": ahead(1), "expires_at": ahead(2), "resolution": "standard", "priority": "7",
        "header": "Clinic", "tags[case]": "4711", "provider_id": "simulator", "documents": (TEXT, TEXT),
    }  # fmt: skip
    shown = jobs.describe(runtime, made(runtime, sent(browser, **fields)))
    assert (shown["resolution"], shown["priority"], shown["pages"]) == ("standard", 7, 2)
    assert shown["tags"] == {"case": "4711"}
    assert shown["send_at"] < shown["expires_at"]


def test_a_form_that_is_sent_twice_is_one_fax(runtime: Runtime, browser: FlaskClient) -> None:
    first = made(runtime, sent(browser, key="0" * 32))
    count = len(newest(runtime))
    again = made(runtime, sent(browser, key="0" * 32))
    assert (again.id, len(newest(runtime))) == (first.id, count)
    problem(sent(browser, key="0" * 32, to="+15550100001"), 422, "idempotency-key-reused")


def test_each_page_has_a_key_of_its_own(runtime: Runtime, browser: FlaskClient) -> None:
    assert made(runtime, sent(browser)).id != made(runtime, sent(browser)).id


@pytest.mark.parametrize(
    ("fields", "status", "code", "said"),
    [
        ({"to": ""}, 422, "invalid-fields", "to"),
        ({"to": "12"}, 400, "malformed", "to"),
        ({"to": "x" * 65}, 422, "invalid-fields", "to"),
        ({"to": HOSTILE}, 400, "malformed", "to"),
        ({"documents": ()}, 422, "invalid-fields", "file"),
        ({"documents": (b"",)}, 422, "document-unreadable", ""),
        ({"documents": (b"%PDF-1.7 but not one",)}, 422, "document-unreadable", ""),
        ({"documents": (b"MZ\x00\x01",)}, 415, "document-unsupported", ""),
        ({"documents": (TEXT,) * 3}, 422, "invalid-fields", "FAXBOT_MAX_DOCUMENTS"),
        ({"documents": (b"a" * (1024 * 1024 + 1),)}, 413, "document-too-large", "MAX_FILE_SIZE_MB"),
        ({"send_at": "2026-11-20T12:00"}, 422, "invalid-fields", "send_at"),
        ({"send_at": ahead(400)}, 422, "invalid-fields", "more than a year"),
        ({"expires_at": ahead(-1)}, 422, "invalid-fields", "expires_at"),
        ({"send_at": ahead(2), "expires_at": ahead(1)}, 422, "invalid-fields", "Must be later"),
        ({"priority": "256"}, 422, "invalid-fields", "priority"),
        ({"priority": "9" * 400}, 422, "invalid-fields", "priority"),
        ({"resolution": HOSTILE}, 422, "invalid-fields", "resolution"),
        ({"provider_id": "phaxio"}, 422, "invalid-fields", "FAX_BACKENDS"),
        ({"provider_id": HOSTILE}, 422, "invalid-fields", "provider_id"),
        ({"header": "é"}, 422, "invalid-fields", "header"),
        ({"tags[]": "x"}, 422, "invalid-fields", "A name is"),
        ({"tags[a b]": "x"}, 422, "invalid-fields", "A name is"),
        ({"tags[a]": "x" * 256}, 422, "invalid-fields", "tags"),
        ({"tags[a]": ["x", "y"]}, 422, "invalid-fields", "more than once"),
        ({f"tags[{n}]": "x" for n in range(11)}, 422, "invalid-fields", "At most 10"),
        ({HOSTILE: "x"}, 422, "invalid-fields", "unknown field"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_the_form_and_no_fax_is_made(
    runtime: Runtime,
    browser: FlaskClient,
    fields: dict[str, Any],
    status: int,
    code: str,
    said: str,
) -> None:
    before = left_behind(runtime)
    answer = sent(browser, **fields)
    told = problem(answer, status, code)
    assert (said if said.isupper() else said.replace("_", " ")) in told
    assert "<script" not in answer.text
    assert "J. Doe" not in told
    assert left_behind(runtime) == before


def test_nothing_is_read_of_who_may_not_send(runtime: Runtime) -> None:
    viewer = browser_of(runtime, new_user(runtime, actors.VIEWER))
    stranger = browser_of(runtime, new_user(runtime, actors.OPERATOR), csrf=False)
    for who, code in ((viewer, "forbidden"), (stranger, "csrf-token")):
        answer = who.post(
            PATH,
            input_stream=Unread(),
            content_type="multipart/form-data; boundary=x",
            headers=BY_SCRIPT,
        )
        problem(answer, 403, code)


def test_a_form_of_another_kind_is_refused(browser: FlaskClient) -> None:
    problem(browser.post(PATH, data={"to": NUMBER}, headers=BY_SCRIPT), 415, "media-type")


def test_the_form_has_every_field_that_the_api_takes(browser: FlaskClient) -> None:
    form = page(browser, PATH)
    assert set(uploads.FIELDS) <= set(re.findall(r'name="([a-z_]+)"', form))
    assert 'maxlength="64" required' in form
