"""The stand-in Sinch's door, without a process: whatever comes has an answer, and nothing is lost meanwhile."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faxbot.carriers.door import Answer, Request
from faxbot.carriers.ledger import Ledger
from faxbot.carriers.sinch.access import Access, Account
from faxbot.carriers.sinch.carrier import Carrier
from faxbot.carriers.sinch.routes import Incoming, Routes
from faxbot.carriers.sinch.submission import CHECKS, JSON, MULTIPART
from faxbot.carriers.sinch.teller import Times
from tests.ground import eventually
from tests.sinch_carrier import (
    KEY,
    PDF,
    PROJECT,
    SECRET,
)

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(), each, max_size=3),
    max_leaves=5,
)
FIELD_NAMES = st.sampled_from(["to", "files", *CHECKS])


def door(folder: Path, seconds: float) -> tuple[Carrier, Routes]:
    """A carrier and its door; everything that it waits for takes these seconds."""
    account = Account(PROJECT, KEY, SECRET)
    carrier = Carrier(Ledger(folder / "sinch.db"), account, Times(seconds, seconds, seconds))
    return carrier, Routes(carrier, Access(account, 60), PROJECT, Incoming("", MULTIPART))


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Routes]:
    carrier, routes = door(tmp_path_factory.mktemp("routes"), 3600)
    yield routes
    carrier.close()


def ask(
    routes: Routes, method: str, path: str, kind: str = "", body: bytes = b"", query: Any = None
) -> Answer:
    proof = base64.b64encode(f"{KEY}:{SECRET}".encode()).decode()
    headers = {"authorization": f"Basic {proof}", "content-type": kind}
    return routes(
        Request(method, f"/v3/projects/{PROJECT}/{path}", query or {}, headers, body, False)
    )


@settings(max_examples=150)
@given(st.dictionaries(FIELD_NAMES, ANYTHING, max_size=6))
def test_any_json_has_an_answer(routes: Routes, content: dict[str, Any]) -> None:
    document = {"to": "+15550100000", "contentUrl": "http://127.0.0.1:9/"}
    for body in (content, {**document, **content}):
        answer = ask(routes, "POST", "faxes", JSON, json.dumps(body).encode())
        assert answer.status in (200, 400, 422)


@settings(max_examples=100)
@given(st.dictionaries(FIELD_NAMES, st.text() | st.text("0123456789+,-"), max_size=6))
def test_any_form_has_an_answer(routes: Routes, fields: dict[str, str]) -> None:
    parts = [f'name="{name}"\r\n\r\n{text}' for name, text in fields.items()]
    parts.append(f'name="file"; filename="a.pdf"\r\n\r\n{PDF.decode()}')
    body = "".join(f"--b\r\nContent-Disposition: form-data; {part}\r\n" for part in parts)
    kind = f"{MULTIPART}; boundary=b"
    answer = ask(routes, "POST", "faxes", kind, f"{body}--b--\r\n".encode(errors="replace"))
    assert answer.status in (200, 400, 422)


@settings(max_examples=100)
@given(
    st.dictionaries(
        st.sampled_from(["createTime", "createTime>", "createTime<", "page", "pageSize", "to"]),
        st.text() | st.text("0123456789-T:.Z+", max_size=30),
    )
)
def test_any_query_has_an_answer(routes: Routes, query: dict[str, str]) -> None:
    assert ask(routes, "GET", "faxes", query=query).status in (200, 422)


@settings(max_examples=100)
@given(st.sampled_from(["GET", "POST", "DELETE"]), st.text(), st.text())
def test_any_path_and_authorization_have_an_answer(
    routes: Routes, method: str, path: str, authorization: str
) -> None:
    given = authorization.encode(errors="replace").decode("latin-1")
    for target in (path, f"/v3/projects/{PROJECT}/{path}", "/oauth2/token"):
        request = Request(method, target, {}, {"authorization": given}, b"\xff", local=True)
        assert routes(request).status in (401, 404, 429)


def test_what_is_asked_while_the_answer_is_on_its_way_is_not_lost(tmp_path: Path) -> None:
    carrier, routes = door(tmp_path, 0)
    files = [{"file": base64.b64encode(PDF).decode(), "fileType": "PDF"}]
    body = json.dumps({"to": "+15550100000", "files": files}).encode()
    answer = ask(routes, "POST", "faxes", JSON, body)
    assert isinstance(answer.content, Mapping)
    assert answer.then is not None
    path = f"faxes/{answer.content['id']}"
    assert ask(routes, "DELETE", f"{path}/file").status == 204
    answer.then()

    def fax() -> Any:
        return ask(routes, "GET", path).content

    eventually(lambda: fax()["status"] == "FAILURE")
    assert fax()["errorCode"] == 113
    carrier.close()
