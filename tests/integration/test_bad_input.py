"""Bad input gets a clear error of our own and leaves nothing: no row, no file in spool or storage, no process."""

from __future__ import annotations

import io
import logging
import os
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from typing import Any

import img2pdf
import pikepdf
import psutil
import pytest
from flask.testing import FlaskClient
from PIL import Image

from faxbot import wiring
from faxbot.runtime import Runtime
from tests.conftest import BOTH, installed
from tests.ground import eventually
from tests.installation import Installation, Stores
from tests.integration.web import (
    NUMBER,
    SECRET,
    TEXT,
    ahead,
    assert_problem,
    client_of,
    left_behind,
    new_key,
    post,
    send,
)

MEGABYTE = 1024 * 1024


@pytest.fixture(scope="module", params=BOTH)
def runtime(request: pytest.FixtureRequest, stores: Stores) -> Iterator[Runtime]:
    """One installation of each kind for all tests of this module: a refused request leaves it as it was."""
    store = contextmanager(installed)(request, stores)
    with store as installation, closing(build(installation)) as runtime:
        yield runtime


def build(installation: Installation) -> Runtime:
    """A runtime with limits that are easily reached."""
    return wiring.build(
        installation.config(SIMULATOR_SECRET=SECRET, MAX_FILE_SIZE_MB="2", FAXBOT_MAX_DOCUMENTS="3")
    )


@pytest.fixture
def taking(runtime: Runtime) -> FlaskClient:
    """A client whose requests may be taken."""
    return client_of(runtime, new_key(runtime))


@pytest.fixture
def client(runtime: Runtime, taking: FlaskClient) -> Iterator[FlaskClient]:
    """A client whose requests are all refused: after them everything is as it was before."""
    before = left_behind(runtime)
    yield taking

    assert left_behind(runtime) == before


# Documents ----------------------------------------------------------------------------------------


def picture(kind: str = "PNG", size: tuple[int, int] = (60, 80)) -> bytes:
    data = io.BytesIO()
    Image.new("1", size, 1).save(data, kind)
    return data.getvalue()


@cache
def pdf(pages: int = 1) -> bytes:
    with pikepdf.new() as document:
        for _ in range(pages):
            document.add_blank_page(page_size=(595, 842))
        data = io.BytesIO()
        document.save(data)
    return data.getvalue()


def heavy_pdf(size: int) -> bytes:
    """A PDF of one page and a little more than `size` bytes, good in all else."""
    with pikepdf.open(io.BytesIO(pdf())) as document:
        document.Root.Noise = pikepdf.Stream(document, os.urandom(size))
        data = io.BytesIO()
        document.save(data)
    return data.getvalue()


def encrypted_pdf() -> bytes:
    data = io.BytesIO()
    with pikepdf.open(io.BytesIO(pdf())) as document:
        document.save(data, encryption=pikepdf.Encryption(owner="owner", user="user"))
    return data.getvalue()


def pixel_bomb() -> bytes:
    """A PNG of a few bytes that says it has ten thousand million pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            len(content).to_bytes(4, "big")
            + kind
            + content
            + zlib.crc32(kind + content).to_bytes(4, "big")
        )

    side = (100_000).to_bytes(4, "big")
    head = side + side + bytes([1, 0, 0, 0, 0])
    rows = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


DOCUMENTS: dict[str, tuple[Callable[[], bytes], int, str]] = {
    "empty": (lambda: b"", 422, "document-unreadable"),
    "encrypted PDF": (encrypted_pdf, 422, "document-unreadable"),
    "broken PDF": (lambda: pdf()[:200], 422, "document-unreadable"),
    "PDF of nonsense": (lambda: b"%PDF-1.7\n" + b"nonsense " * 99, 422, "document-unreadable"),
    "PDF without pages": (lambda: pdf(0), 422, "document-unreadable"),
    "PDF of 10,000 pages": (lambda: pdf(10_000), 413, "document-too-large"),
    "pixel bomb": (pixel_bomb, 413, "document-too-large"),
    "broken picture": (lambda: picture()[:60], 422, "document-unreadable"),
    "a program": (lambda: b"\x7fELF" + bytes(400), 415, "document-unsupported"),
    "an archive": (lambda: b"PK\x03\x04" + bytes(400), 415, "document-unsupported"),
    "text that is not UTF-8": (
        lambda: "caf\u00e9".encode("latin-1") * 9,
        415,
        "document-unsupported",
    ),
    "over the limit": (lambda: heavy_pdf(2 * MEGABYTE), 413, "document-too-large"),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_bad_document_is_refused(client: FlaskClient, name: str) -> None:
    make, status, code = DOCUMENTS[name]
    response = send(client, make(), key="k")

    assert_problem(response, status, code)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_bad_document_among_good_ones_takes_all_back(client: FlaskClient, name: str) -> None:
    make, status, code = DOCUMENTS[name]

    assert_problem(send(client, TEXT, make(), picture()), status, code)


def test_the_same_kinds_in_good_order_are_taken(taking: FlaskClient) -> None:
    documents = [
        pdf(2),
        img2pdf.convert(picture("PNG")),
        picture("TIFF"),
        picture("JPEG"),
        picture(),
        TEXT,
    ]
    for document in documents:
        assert send(taking, document).status_code == 202
    assert send(taking, "caf\u00e9".encode(), heavy_pdf(MEGABYTE), picture()).status_code == 202


def test_the_limit_is_for_all_documents_together(client: FlaskClient) -> None:
    half = heavy_pdf(MEGABYTE)

    assert_problem(send(client, half, half), 413, "document-too-large")


def test_the_type_is_what_the_content_is(taking: FlaskClient) -> None:
    modest = ("a.exe", pdf(), "application/x-msdownload")
    lying = ("a.pdf", b"\x7fELF" + bytes(99), "application/pdf")

    assert post(taking, [("to", NUMBER), ("file", modest)]).status_code == 202
    assert_problem(post(taking, [("to", NUMBER), ("file", lying)]), 415, "document-unsupported")


@pytest.mark.parametrize(
    "name",
    [
        "../../evilname", "/etc/evilname", "evilname 1970-01-01.pdf", "a\nevilname.pdf", "a\r\nX: evilname",
        "", ".", "evilname" * 300, "C:\\evilname", '"evilname".pdf', "\u202eevilname",
    ],
    ids=ascii,
)  # fmt: skip
def test_a_file_name_goes_nowhere(
    taking: FlaskClient, runtime: Runtime, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    with caplog.at_level(logging.DEBUG):
        response = post(taking, [("to", NUMBER), ("file", (name, TEXT))])
        refused = post(taking, [("to", "nobody"), ("file", (name, TEXT))])
    stored: list[str] = left_behind(runtime)["files"]

    assert (response.status_code, refused.status_code) == (202, 400)
    assert all(
        re.fullmatch(r"documents/\d{4}/\d\d/\d\d/[0-9a-f]{32}\.sealed", path) for path in stored
    )
    assert "evilname" not in caplog.text
    assert b"evilname" not in response.data + refused.data


# Fields -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("to", "status", "code"),
    [
        (None, 422, "invalid-fields"),
        ("", 400, "malformed"),
        ("Jane Doe", 400, "malformed"),
        ("15550100000", 400, "malformed"),
        ("+1555", 400, "malformed"),
        ("+999123456789", 400, "malformed"),
        ("+15550100000\n", 400, "malformed"),
        ("+1555010000\u0660", 400, "malformed"),
        ("+15550100000;ext=1", 400, "malformed"),
        ("+" + "1" * 500, 422, "invalid-fields"),
        ("911", 400, "malformed"),
    ],
)
def test_what_is_not_a_number_is_refused(
    client: FlaskClient, to: str | None, status: int, code: str
) -> None:
    problem = assert_problem(send(client, to=to), status, code)

    assert (problem["detail"], list(problem["errors"])) == ("Not valid: to.", ["to"])
    assert not to or to not in str(problem).replace(NUMBER, "")  # the example that it names


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"prioritty": "1"}, "unknown"),
        ({"Jane Doe": "1"}, "unknown"),
        ({"tags[two words]": "x"}, "tags"),
        ({"tags[]": "x"}, "tags"),
        ({"tags": "x"}, "unknown"),
        ({f"tags[n{number}]": "x" for number in range(11)}, "tags"),
        ({"priority": "256"}, "priority"),
        ({"priority": ["1", "2"]}, "priority"),
        ({"to": [NUMBER, NUMBER]}, "to"),
        ({"resolution": "best"}, "resolution"),
        ({"header": "caf\u00e9"}, "header"),
        ({"send_at": ahead(20).removesuffix("Z")}, "send_at"),
        ({"send_at": ahead(400)}, "send_at"),
        ({"send_at": ahead(20), "expires_at": ahead(400)}, "expires_at"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"send_at": ahead(20), "expires_at": ahead(19)}, "expires_at"),
        ({"provider_id": "nobody"}, "provider_id"),
        ({"provider_id": "../local"}, "provider_id"),
        ({"priority": ("1.txt", b"1")}, "priority"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value,
)
def test_a_bad_field_is_named(client: FlaskClient, fields: dict[str, Any], named: str) -> None:
    problem = assert_problem(send(client, **fields), 422, "invalid-fields")

    assert list(problem["errors"]) == [named]
    assert "Jane" not in str(problem)


def test_no_file_or_too_many_or_a_text_in_its_place(client: FlaskClient) -> None:
    none = post(client, [("to", NUMBER)])
    text = post(client, [("to", NUMBER), ("file", "document.pdf")])
    four = send(client, TEXT, TEXT, TEXT, TEXT)

    for response in (none, text, four):
        assert list(assert_problem(response, 422, "invalid-fields")["errors"]) == ["file"]


@pytest.mark.parametrize(
    "key",
    ["", '""', '"open', "x" * 256, "caf\u00e9", "tab\tin"],
    ids=["empty", "quotes", "open", "long", "accent", "tab"],
)
def test_a_bad_idempotency_key_is_malformed(client: FlaskClient, key: str) -> None:
    assert "Idempotency-Key" in assert_problem(send(client, key=key), 400, "malformed")["detail"]


# Bodies -------------------------------------------------------------------------------------------

BOUNDARY = "multipart/form-data; boundary=b"
PART = b'--b\r\nContent-Disposition: form-data; name="to"\r\n\r\n+15550100000'


@pytest.mark.parametrize(
    ("content_type", "body", "status", "code"),
    [
        ("application/json", b'{"to": "+15550100000"}', 415, "media-type"),
        ("application/x-www-form-urlencoded", b"to=%2B15550100000", 415, "media-type"),
        ("text/plain", b"hello", 415, "media-type"),
        ("", b"hello", 415, "media-type"),
        ("multipart/form-data", PART, 400, "malformed"),
        ("multipart/form-data; boundary=" + "x" * 100, PART, 400, "malformed"),
        (BOUNDARY, PART, 400, "malformed"),
        (BOUNDARY, b"nonsense" * 99, 400, "malformed"),
        (BOUNDARY, PART + b"\r\n--b--", 422, "invalid-fields"),
        (BOUNDARY, PART + b"\xff\r\n--b--", 400, "malformed"),
        (BOUNDARY, b"--b--\r\n", 422, "invalid-fields"),
        (BOUNDARY, PART + b"0" * 70_000 + b"\r\n--b--", 413, "request-too-large"),
        (
            BOUNDARY,
            PART.replace(b'"to"', b'"tags[a]"') + (b"\r\n" + PART) * 60 + b"\r\n--b--",
            422,
            "invalid-fields",
        ),
    ],
)
def test_a_broken_body_is_refused(
    client: FlaskClient, content_type: str, body: bytes, status: int, code: str
) -> None:
    response = client.post("/fax/send", data=body, content_type=content_type)
    problem = assert_problem(response, status, code)

    assert status != 415 or problem["detail"] == "This address takes multipart/form-data."


def test_too_many_parts_are_refused(client: FlaskClient) -> None:
    tags = {f"tags[n{number}]": "x" for number in range(60)}

    assert_problem(send(client, **tags), 413, "request-too-large")


def test_a_file_that_breaks_off_leaves_nothing(client: FlaskClient) -> None:
    file = (
        b'\r\n--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        + b"x" * MEGABYTE
    )

    assert_problem(
        client.post("/fax/send", data=PART + file, content_type=BOUNDARY), 400, "malformed"
    )


# Keys and processes -------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, "", "wrong", "fbk_live_" + "0" * 12 + "_" + "x" * 43])
def test_without_a_good_key_not_even_the_body_is_looked_at(
    runtime: Runtime, key: str | None
) -> None:
    before = left_behind(runtime)
    response = client_of(runtime, key).post(
        "/fax/send", data=b"nonsense", content_type="text/plain"
    )

    assert_problem(response, 401, "unauthenticated")
    assert left_behind(runtime) == before


def test_bad_documents_leave_no_process(embedded: Installation) -> None:
    me = psutil.Process()
    others = set(me.children(recursive=True))
    runtime = build(embedded)
    client = client_of(runtime, new_key(runtime))
    for make, _, _ in DOCUMENTS.values():
        send(client, make())
    opened = set(me.children(recursive=True)) - others
    runtime.close()

    assert len(opened) == 1  # the checking child, which this process keeps
    eventually(lambda: not opened & set(me.children(recursive=True)))


def test_a_wish_that_is_well_formed_is_taken(taking: FlaskClient) -> None:
    """The table above refuses what it changes and nothing else: all fields together, unchanged, are fine."""
    whole = {
        "priority": "255", "resolution": "standard", "header": "Practice", "send_at": ahead(20),
        "expires_at": ahead(21), "provider_id": "simulator", "tags[a]": "b",
    }  # fmt: skip

    assert send(taking, **whole).status_code == 202
